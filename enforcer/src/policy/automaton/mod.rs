//! Patterns → a minimal byte automaton.
//!
//! An object's path is fed without its leading slash. The state after a directory's bytes and a
//! further `/` is where its children start; the root starts at the start state.

mod hash;
mod joint;
mod minimise;
mod nfa;
mod subset;

pub(super) use joint::{alphabet, futures};
pub(super) use nfa::Nfa;
pub(super) use subset::TooLarge;

use super::glob::Pattern;
use enforcer_common::map::{Masks, ROW_HEADER, STATE_SETTLED};
use std::collections::{HashMap, VecDeque};

/// Bounds on one automaton.
#[derive(Clone, Copy, Debug)]
pub(super) struct Bounds {
    /// Nodes before the automaton is made deterministic.
    pub(super) nodes: usize,
    /// States before minimisation.
    pub(super) raw_states: usize,
    /// Transitions before minimisation.
    pub(super) raw_cells: usize,
}

/// Numbers labels by their masks.
pub(super) fn classes(
    patterns: &[(u32, &Pattern)],
    masks: &dyn Fn(&[u32]) -> Masks,
) -> impl Fn(u32) -> u32 + use<> {
    let mut numbers: HashMap<Masks, u32> = HashMap::new();
    let mut class: HashMap<u32, u32> = HashMap::new();
    for (label, _) in patterns {
        let fresh = numbers.len() as u32;
        class.entry(*label).or_insert_with(|| *numbers.entry(masks(&[*label])).or_insert(fresh));
    }
    move |label| class.get(&label).copied().unwrap_or(u32::MAX)
}

/// A deterministic automaton. State 0 is the dead one: nothing matches, and nothing will.
#[derive(Clone, Debug)]
pub(super) struct Automaton {
    /// byte → column.
    classes: [u8; 256],
    columns: usize,
    start: u32,
    /// `next[state * columns + column]`.
    next: Vec<u32>,
    /// Entry of `lists` per state.
    list: Vec<u32>,
    lists: Vec<Box<[u32]>>,
    settled: Vec<bool>,
    masks: Vec<Masks>,
    /// [`Masks::set`] per state, which `masks` do not have.
    sets: Vec<u16>,
    /// Per state the first of all that say the same, here and behind every further name. Empty: every state its own.
    twins: Vec<u32>,
}

impl Automaton {
    /// Builds the automaton in which every state knows the labels of the patterns that match there.
    ///
    /// States are merged where `masks` of their labels, and all that may follow, agree: the labels
    /// of a merged state are those of any of its members.
    pub(super) fn build(
        patterns: &[(u32, &Pattern)],
        bounds: Bounds,
        masks: &dyn Fn(&[u32]) -> Masks,
    ) -> Result<Self, TooLarge> {
        let nfa = Nfa::new(patterns, &classes(patterns, masks));
        let raw = subset::determinise(&nfa, bounds)?;
        // What is needed no more makes room for what comes.
        drop(nfa);
        let mut automaton = minimise::minimise(&raw, masks);
        drop(raw);
        if automaton.sets.iter().any(|set| *set != 0) {
            automaton.twins = joint::twins(&automaton);
        }
        Ok(automaton)
    }

    pub(super) fn states(&self) -> usize {
        self.list.len()
    }

    /// Bytes of one row.
    pub(super) fn stride(&self) -> usize {
        ROW_HEADER as usize + 4 * self.columns
    }

    /// Bytes of all rows.
    pub(super) fn bytes(&self) -> usize {
        self.states() * self.stride()
    }

    pub(super) fn start(&self) -> u32 {
        self.start
    }

    /// Labels of the patterns that match in `state`.
    pub(super) fn labels(&self, state: u32) -> &[u32] {
        self.list.get(state as usize).map_or(&[], |list| &self.lists[*list as usize])
    }

    /// A number for the labels of `state`: equal ones are equal labels.
    pub(super) fn label_list(&self, state: u32) -> u32 {
        self.list[state as usize]
    }

    pub(super) fn masks(&self, state: u32) -> Masks {
        self.masks[state as usize]
    }

    /// The number of the set of rules that allow something at `state`, or 0.
    pub(super) fn set(&self, state: u32) -> u16 {
        self.sets[state as usize]
    }

    /// The state that stands for all that say the same as `state`, here and behind every further name.
    pub(super) fn twin(&self, state: u32) -> u32 {
        self.twins.get(state as usize).copied().unwrap_or(state)
    }

    pub(super) fn step(&self, state: u32, byte: u8) -> u32 {
        self.next[state as usize * self.columns + usize::from(self.classes[usize::from(byte)])]
    }

    pub(super) fn run(&self, bytes: &[u8]) -> u32 {
        bytes.iter().fold(self.start, |state, byte| self.step(state, *byte))
    }

    /// Whether some path leads from `state` to one, or through one, whose masks are `wanted`.
    pub(super) fn reaches(&self, state: u32, wanted: impl Fn(&Masks) -> bool) -> bool {
        let mut seen = vec![false; self.states()];
        let mut left = vec![state];
        seen[state as usize] = true;
        while let Some(state) = left.pop() {
            if wanted(&self.masks[state as usize]) {
                return true;
            }
            for to in &self.next[state as usize * self.columns..][..self.columns] {
                if !std::mem::replace(&mut seen[*to as usize], true) {
                    left.push(*to);
                }
            }
        }
        false
    }

    /// A reference to `state` in rows that start at `base`.
    pub(super) fn reference(&self, state: u32, base: u32) -> u32 {
        let offset = base + state * u32::try_from(self.stride()).unwrap_or(u32::MAX);
        offset | if self.settled[state as usize] { STATE_SETTLED } else { 0 }
    }

    /// byte → column, as a byte offset into `next`.
    pub(super) fn class_table(&self) -> [u16; 256] {
        std::array::from_fn(|byte| u16::from(self.classes[byte]) * 4)
    }

    /// Writes the rows for a place at `base`.
    pub(super) fn write(&self, base: u32, out: &mut Vec<u8>) {
        use zerocopy::IntoBytes;
        let references: Vec<[u8; 4]> =
            (0..self.list.len() as u32).map(|state| self.reference(state, base).to_le_bytes()).collect();
        out.reserve(self.bytes());
        for (state, row) in self.next.chunks_exact(self.columns).enumerate() {
            out.extend_from_slice(Masks { set: self.sets[state], ..self.masks[state] }.as_bytes());
            out.extend_from_slice(&references[self.twin(state as u32) as usize]);
            for target in row {
                out.extend_from_slice(&references[*target as usize]);
            }
        }
    }

    /// The shortest path, over readable bytes where possible, that leads to a state that is `wanted`.
    pub(super) fn example(&self, wanted: impl Fn(u32) -> bool) -> Option<Vec<u8>> {
        let mut sample: HashMap<u8, u8> = HashMap::new();
        let readable = b"abcdefghijklmnopqrstuvwxyz0123456789._-".iter().copied();
        for byte in readable.chain(1..=u8::MAX) {
            sample.entry(self.classes[usize::from(byte)]).or_insert(byte);
        }
        let mut bytes: Vec<u8> = sample.into_values().collect();
        bytes.sort_unstable();
        // Two places per state: behind a slash, where no object is and no further slash follows, and not.
        let place = |state: u32, byte: u8| 2 * state as usize + usize::from(byte == b'/');
        let start = place(self.start, b'/');
        let mut by = vec![(usize::MAX, 0); 2 * self.states()];
        by[start] = (start, b'/');
        let mut queue = VecDeque::from([start]);
        while let Some(from) = queue.pop_front() {
            let state = (from / 2) as u32;
            let behind_slash = from % 2 == 1;
            if !behind_slash && wanted(state) {
                let mut path = Vec::new();
                let mut at = from;
                while at != start {
                    path.push(by[at].1);
                    at = by[at].0;
                }
                path.push(b'/');
                path.reverse();
                return Some(path);
            }
            for byte in bytes.iter().filter(|byte| !(behind_slash && **byte == b'/')) {
                let to = place(self.step(state, *byte), *byte);
                if by[to].0 == usize::MAX {
                    by[to] = (from, *byte);
                    queue.push_back(to);
                }
            }
        }
        None
    }

    /// Puts the parts together; `next` and `list` are of minimal states with the dead one first.
    fn finish(
        classes: [u8; 256],
        columns: usize,
        start: u32,
        next: Vec<u32>,
        list: Vec<u32>,
        lists: Vec<Box<[u32]>>,
        masks: Vec<Masks>,
    ) -> Self {
        let slash = usize::from(classes[usize::from(b'/')]);
        let settled = next
            .chunks_exact(columns)
            .zip(0u32..)
            .map(|(row, state)| row.iter().enumerate().all(|(column, to)| column == slash || *to == state))
            .collect();
        let sets = masks.iter().map(|masks| masks.set).collect();
        let masks = masks.into_iter().map(|masks| Masks { set: 0, ..masks }).collect();
        Self { classes, columns, start, next, list, lists, settled, masks, sets, twins: Vec::new() }
    }
}
