//! Patterns → a nondeterministic automaton in which equal beginnings are one path.

use super::hash::NumberMap;
use crate::policy::{
    bytes::ByteSet,
    glob::{Atom, Component, Pattern},
};
use std::collections::HashMap;

/// A node and what leads out of it.
#[derive(Default)]
pub(super) struct Node {
    /// On one byte.
    pub(super) bytes: Vec<(u8, u32)>,
    /// On every byte, `/` included, back to itself.
    pub(super) absorbs: bool,
    /// Apart, since most nodes are inside a name and have none of it.
    rare: Option<Box<Rare>>,
}

/// What few nodes have.
#[derive(Default)]
pub(super) struct Rare {
    /// On a byte of a set (an index into [`Nfa::sets`]).
    pub(super) sets: Vec<(u32, u32)>,
    /// On every byte of a name.
    pub(super) any: Vec<u32>,
    /// On nothing.
    pub(super) free: Vec<u32>,
    /// Labels of the patterns that end here.
    pub(super) ends: Vec<u32>,
}

impl Node {
    pub(super) fn rare(&self) -> &Rare {
        static NONE: Rare = Rare { sets: Vec::new(), any: Vec::new(), free: Vec::new(), ends: Vec::new() };
        self.rare.as_deref().unwrap_or(&NONE)
    }

    fn rare_mut(&mut self) -> &mut Rare {
        self.rare.get_or_insert_default()
    }
}

/// The automaton of several patterns. Node 0 is the start.
pub(in crate::policy) struct Nfa {
    pub(super) nodes: Vec<Node>,
    pub(super) sets: Vec<ByteSet>,
    /// Labels of the patterns that match the root directory itself.
    pub(super) root: Vec<u32>,
    trie: NumberMap<(u32, Step), u32>,
    set_ids: HashMap<ByteSet, u32>,
    /// Class of labels → the node in which everything matches. Labels of one class have the same
    /// masks: below `/a/**` and below `**/b/**` such rules need not be told apart, and if they were,
    /// every combination of them would become a state.
    subtrees: HashMap<u32, u32>,
}

#[derive(Clone, Copy, PartialEq, Eq, Hash)]
enum Step {
    Byte(u8),
    Set(u32),
    Star,
    Deep,
    Subtree(u32),
}

impl Nfa {
    /// `class_of` says which labels have the same masks.
    pub(in crate::policy) fn new(patterns: &[(u32, &Pattern)], class_of: &dyn Fn(u32) -> u32) -> Self {
        let mut nfa = Self {
            nodes: vec![Node::default()],
            sets: Vec::new(),
            root: Vec::new(),
            trie: NumberMap::default(),
            set_ids: HashMap::new(),
            subtrees: HashMap::new(),
        };
        for (label, pattern) in patterns {
            nfa.add(*label, class_of(*label), pattern);
        }
        nfa.root.sort_unstable();
        nfa.root.dedup();
        nfa
    }

    /// The nodes that a pattern goes through.
    pub(in crate::policy) fn path(&self, pattern: &Pattern, class: u32) -> Vec<u32> {
        let mut at = 0;
        let mut out = Vec::new();
        for step in self.steps(pattern, class) {
            let Some(to) = self.trie.get(&(at, step)) else { return out };
            at = *to;
            out.push(at);
            // The second node of `**/` lies behind the first.
            if step == Step::Deep {
                out.push(at + 1);
            }
        }
        out
    }

    fn add(&mut self, label: u32, class: u32, pattern: &Pattern) {
        for component in pattern.components() {
            if let Component::Name(atoms) = component {
                for atom in atoms {
                    if let Atom::Set(set) = atom
                        && **set != ByteSet::name_bytes()
                        && !self.set_ids.contains_key(&**set)
                    {
                        self.set_ids.insert(**set, self.sets.len() as u32);
                        self.sets.push(**set);
                    }
                }
            }
        }
        let mut at = 0;
        for step in self.steps(pattern, class) {
            if step == Step::Subtree(class) {
                // The directory itself matches, too.
                if at == 0 {
                    self.root.push(label);
                } else {
                    self.nodes[at as usize].rare_mut().ends.push(label);
                }
            }
            at = self.follow(at, step);
        }
        self.nodes[at as usize].rare_mut().ends.push(label);
        if pattern.components().is_empty() {
            self.root.push(label);
        }
    }

    /// A pattern as steps of the trie.
    fn steps(&self, pattern: &Pattern, class: u32) -> Vec<Step> {
        let mut steps = Vec::new();
        let components = pattern.components();
        for (i, component) in components.iter().enumerate() {
            let last = i + 1 == components.len();
            match component {
                Component::AnyDepth if last => steps.push(Step::Subtree(class)),
                Component::AnyDepth => steps.push(Step::Deep),
                Component::Name(atoms) => {
                    steps.extend(atoms.iter().map(|atom| match atom {
                        Atom::Byte(byte) => Step::Byte(*byte),
                        Atom::Set(set) => Step::Set(self.set_ids.get(&**set).copied().unwrap_or(ANY_SET)),
                        Atom::Star => Step::Star,
                    }));
                    let before_subtree = i + 2 == components.len() && pattern.is_subtree();
                    if !last && !before_subtree {
                        steps.push(Step::Byte(b'/'));
                    }
                }
            }
        }
        steps
    }

    fn follow(&mut self, from: u32, step: Step) -> u32 {
        if let Some(to) = self.trie.get(&(from, step)) {
            return *to;
        }
        let fresh = self.nodes.len() as u32;
        let to = match step {
            Step::Subtree(class) => *self.subtrees.entry(class).or_insert(fresh),
            Step::Byte(_) | Step::Set(_) | Step::Star | Step::Deep => fresh,
        };
        self.trie.insert((from, step), to);
        if to == fresh {
            self.nodes.push(Node::default());
        }
        match step {
            Step::Byte(byte) => self.nodes[from as usize].bytes.push((byte, to)),
            Step::Set(ANY_SET) => self.nodes[from as usize].rare_mut().any.push(to),
            Step::Set(set) => self.nodes[from as usize].rare_mut().sets.push((set, to)),
            Step::Star => {
                self.nodes[from as usize].rare_mut().free.push(to);
                self.nodes[to as usize].rare_mut().any.push(to);
            }
            Step::Deep => {
                self.nodes.push(Node::default());
                let inside = to + 1;
                self.nodes[from as usize].rare_mut().free.push(to);
                self.nodes[to as usize].rare_mut().any.push(inside);
                self.nodes[inside as usize].rare_mut().any.push(inside);
                self.nodes[inside as usize].bytes.push((b'/', to));
            }
            Step::Subtree(_) => {
                // Below the root there is no directory's own slash to pass.
                if from == 0 {
                    self.nodes[0].rare_mut().free.push(to);
                } else {
                    self.nodes[from as usize].bytes.push((b'/', to));
                }
                self.nodes[to as usize].absorbs = true;
            }
        }
        to
    }
}

/// Stands for the set of every byte of a name.
const ANY_SET: u32 = u32::MAX;
