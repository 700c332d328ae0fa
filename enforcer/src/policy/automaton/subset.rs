//! Nondeterministic → deterministic, over classes of bytes that no pattern tells apart.

use super::{
    Bounds,
    hash::NumberMap,
    nfa::{Nfa, Rare},
};
use crate::policy::bytes::ByteSet;
use std::{collections::HashMap, rc::Rc};

/// The automaton before minimisation. State 0 is dead, state 1 the start.
pub(super) struct Raw {
    pub(super) classes: [u8; 256],
    pub(super) columns: usize,
    pub(super) next: Vec<u32>,
    /// Entry of `lists` per state.
    pub(super) list: Vec<u32>,
    pub(super) lists: Vec<Box<[u32]>>,
}

/// The state of the start.
pub(super) const START: u32 = 1;

/// A bound was reached.
#[derive(Debug)]
pub(in crate::policy) struct TooLarge {
    /// In how many of the states made so far each node takes part.
    pub(in crate::policy) presence: Vec<u32>,
    /// How many states were made.
    pub(in crate::policy) states: u32,
}

/// Builds the deterministic automaton, or gives up at the bounds.
pub(super) fn determinise(nfa: &Nfa, bounds: Bounds) -> Result<Raw, TooLarge> {
    if nfa.nodes.len() > bounds.nodes {
        return Err(TooLarge { presence: Vec::new(), states: 0 });
    }
    let (classes, columns) = byte_classes(nfa);
    let mut build = Subsets::new(nfa, classes, columns);
    let mut state = START;
    while (state as usize) < build.sets.len() {
        if build.sets.len() > bounds.raw_states || build.next.len() > bounds.raw_cells {
            return Err(build.too_large());
        }
        build.expand(state);
        state += 1;
    }
    Ok(build.finish())
}

struct Subsets<'a> {
    nfa: &'a Nfa,
    classes: [u8; 256],
    columns: usize,
    /// Node → itself and what it leads to for free, sorted.
    closure: Vec<Box<[u32]>>,
    /// Set of bytes → its columns.
    set_columns: Vec<Vec<u8>>,
    ids: NumberMap<Rc<[u32]>, u32>,
    sets: Vec<Rc<[u32]>>,
    next: Vec<u32>,
    /// Working memory: extra nodes per column, and which columns have any.
    extra: Vec<Vec<u32>>,
    touched: Vec<u8>,
    merged: Vec<u32>,
}

impl<'a> Subsets<'a> {
    fn new(nfa: &'a Nfa, classes: [u8; 256], columns: usize) -> Self {
        let closure: Vec<Box<[u32]>> = (0..nfa.nodes.len() as u32).map(|node| closure(nfa, node)).collect();
        let set_columns = nfa
            .sets
            .iter()
            .map(|set| {
                let mut columns: Vec<u8> = set.iter().map(|byte| classes[usize::from(byte)]).collect();
                columns.sort_unstable();
                columns.dedup();
                columns
            })
            .collect();
        let (nothing, start): (Rc<[u32]>, Rc<[u32]>) = (Rc::default(), closure[0].as_ref().into());
        Self {
            nfa,
            classes,
            columns,
            closure,
            set_columns,
            ids: NumberMap::from_iter([(Rc::clone(&nothing), 0)]),
            // The start is not entered in `ids`: a later state of the same nodes may differ from it,
            // since the root directory is the only one that is judged by a state behind a slash.
            sets: vec![nothing, start],
            next: vec![0; columns],
            extra: vec![Vec::new(); columns],
            touched: Vec::new(),
            merged: Vec::new(),
        }
    }

    fn touch(&mut self, column: u8, node: u32) {
        let extra = &mut self.extra[usize::from(column)];
        if extra.is_empty() {
            self.touched.push(column);
        }
        extra.extend_from_slice(&self.closure[node as usize]);
    }

    /// Appends the row of `state`, making the states that it leads to.
    fn expand(&mut self, state: u32) {
        let nfa = self.nfa;
        let slash = self.classes[usize::from(b'/')];
        let set = Rc::clone(&self.sets[state as usize]);
        let mut base: Vec<u32> = Vec::new();
        for id in set.iter() {
            let node = &nfa.nodes[*id as usize];
            let Rare { sets, any, free: _, ends: _ } = node.rare();
            for to in any {
                base.extend_from_slice(&self.closure[*to as usize]);
            }
            if node.absorbs {
                base.push(*id);
                self.touch(slash, *id);
            }
            for (byte, to) in &node.bytes {
                self.touch(self.classes[usize::from(*byte)], *to);
            }
            for (set, to) in sets {
                for i in 0..self.set_columns[*set as usize].len() {
                    self.touch(self.set_columns[*set as usize][i], *to);
                }
            }
        }
        base.sort_unstable();
        base.dedup();
        let row = self.next.len();
        // No state is made for the usual case where each column has more than that.
        let touched = self.touched.iter().filter(|column| **column != slash).count();
        let usual = if touched + 1 < self.columns { self.id_of(&base) } else { 0 };
        self.next.resize(row + self.columns, usual);
        self.next[row + usize::from(slash)] = 0;
        for column in std::mem::take(&mut self.touched) {
            let mut merged = std::mem::take(&mut self.merged);
            merged.clear();
            merged.append(&mut self.extra[usize::from(column)]);
            if column != slash {
                merged.extend_from_slice(&base);
            }
            merged.sort_unstable();
            merged.dedup();
            self.next[row + usize::from(column)] = self.id_of(&merged);
            self.merged = merged;
        }
    }

    fn id_of(&mut self, set: &[u32]) -> u32 {
        if let Some(id) = self.ids.get(set) {
            return *id;
        }
        let id = self.sets.len() as u32;
        let set: Rc<[u32]> = set.into();
        self.ids.insert(Rc::clone(&set), id);
        self.sets.push(set);
        id
    }

    fn finish(mut self) -> Raw {
        // No state is looked for any more, and the rows grow no more.
        (self.ids, self.closure) = (NumberMap::default(), Vec::new());
        self.next.shrink_to_fit();
        let mut ids: NumberMap<Box<[u32]>, u32> = NumberMap::default();
        let mut lists = Vec::new();
        let mut labels = Vec::new();
        let mut list = Vec::with_capacity(self.sets.len());
        for (state, set) in self.sets.iter().enumerate() {
            labels.clear();
            if state == START as usize {
                labels.extend_from_slice(&self.nfa.root);
            } else {
                labels.extend(set.iter().flat_map(|node| &self.nfa.nodes[*node as usize].rare().ends));
            }
            labels.sort_unstable();
            labels.dedup();
            let id = match ids.get(labels.as_slice()) {
                Some(id) => *id,
                None => {
                    let id = lists.len() as u32;
                    let boxed: Box<[u32]> = labels.as_slice().into();
                    lists.push(boxed.clone());
                    ids.insert(boxed, id);
                    id
                }
            };
            list.push(id);
        }
        Raw { classes: self.classes, columns: self.columns, next: self.next, list, lists }
    }

    fn too_large(&self) -> TooLarge {
        let mut presence = vec![0; self.nfa.nodes.len()];
        for node in self.sets.iter().flat_map(|set| set.iter()) {
            presence[*node as usize] += 1;
        }
        TooLarge { presence, states: self.sets.len() as u32 }
    }
}

/// A node and all that it leads to for free.
fn closure(nfa: &Nfa, node: u32) -> Box<[u32]> {
    let mut out = vec![node];
    let mut i = 0;
    while let Some(at) = out.get(i) {
        for to in &nfa.nodes[*at as usize].rare().free {
            if !out.contains(to) {
                out.push(*to);
            }
        }
        i += 1;
    }
    out.sort_unstable();
    out.into()
}

/// Bytes that no pattern tells apart share a column. `/` has its own; NUL, which no name contains,
/// goes with another byte.
fn byte_classes(nfa: &Nfa) -> ([u8; 256], usize) {
    let mut single = ByteSet::EMPTY;
    single.insert(b'/');
    for (byte, _) in nfa.nodes.iter().flat_map(|node| &node.bytes) {
        single.insert(*byte);
    }
    let mut keys: HashMap<(Option<u8>, Vec<bool>), u8> = HashMap::new();
    let mut classes = [0u8; 256];
    for byte in 1..=u8::MAX {
        let alone = single.contains(byte).then_some(byte);
        // A byte that stands alone needs no further distinction.
        let sets = match alone {
            Some(_) => Vec::new(),
            None => nfa.sets.iter().map(|set| set.contains(byte)).collect(),
        };
        let fresh = keys.len() as u8;
        classes[usize::from(byte)] = *keys.entry((alone, sets)).or_insert(fresh);
    }
    classes[0] = classes[1];
    (classes, keys.len())
}
