//! Merging of states that nothing can tell apart: refinement of partitions of states and
//! transitions in O(m log m), after A. Valmari, "Fast brief practical DFA minimization" (2012).
//! Transitions to the dead state are left out, which makes the many chains of literals cheap.

use super::{
    Automaton,
    subset::{Raw, START},
};
use enforcer_common::map::Masks;
use std::collections::HashMap;

/// The smallest automaton that leads every path to the same masks.
pub(super) fn minimise(raw: &Raw, masks: &dyn Fn(&[u32]) -> Masks) -> Automaton {
    let list_masks: Vec<Masks> = raw.lists.iter().map(|list| masks(list)).collect();
    let blocks = refine(raw, &list_masks, Transitions::of(raw));
    build(raw, &list_masks, &blocks)
}

/// Blocks of states that nothing can tell apart, whose lists have these masks.
pub(super) fn partition(raw: &Raw, list_masks: &[Masks]) -> Vec<u32> {
    refine(raw, list_masks, Transitions::of(raw))
}

/// Every transition between live states.
struct Transitions {
    tail: Vec<u32>,
    /// Transitions by column.
    by_column: Vec<u32>,
    column_ends: Vec<u32>,
    /// Transitions by the state that they lead to.
    into: Vec<u32>,
    into_start: Vec<u32>,
}

impl Transitions {
    fn of(raw: &Raw) -> Self {
        let states = raw.list.len();
        let (mut tail, mut head, mut column_of) = (Vec::new(), Vec::new(), Vec::new());
        for (state, row) in raw.next.chunks_exact(raw.columns).enumerate().skip(1) {
            for (column, to) in row.iter().enumerate().filter(|(_, to)| **to != 0) {
                tail.push(state as u32);
                head.push(*to);
                column_of.push(column as u32);
            }
        }
        let (by_column, starts) = sorted_by(&column_of, raw.columns);
        drop(column_of);
        let (into, into_start) = sorted_by(&head, states);
        Self { tail, by_column, column_ends: starts[1..].to_vec(), into, into_start }
    }

    fn entering(&self, state: u32) -> &[u32] {
        &self.into[self.into_start[state as usize] as usize..self.into_start[state as usize + 1] as usize]
    }
}

/// Indices sorted by key, and where each key starts.
fn sorted_by(keys: &[u32], count: usize) -> (Vec<u32>, Vec<u32>) {
    let mut starts = vec![0u32; count + 1];
    for key in keys {
        starts[*key as usize + 1] += 1;
    }
    for i in 0..count {
        starts[i + 1] += starts[i];
    }
    let mut at = starts.clone();
    let mut sorted = vec![0; keys.len()];
    for (i, key) in keys.iter().enumerate() {
        sorted[at[*key as usize] as usize] = i as u32;
        at[*key as usize] += 1;
    }
    (sorted, starts)
}

/// A partition whose blocks can be split by marking elements.
struct Partition {
    elements: Vec<u32>,
    location: Vec<u32>,
    block_of: Vec<u32>,
    first: Vec<u32>,
    past: Vec<u32>,
    marked: Vec<u32>,
    touched: Vec<u32>,
}

impl Partition {
    /// `elements` in the order of their blocks, which end at `ends`.
    fn new(elements: Vec<u32>, ends: &[u32]) -> Self {
        let mut location = vec![0; elements.len()];
        for (i, element) in elements.iter().enumerate() {
            location[*element as usize] = i as u32;
        }
        let mut partition = Self {
            location,
            block_of: vec![0; elements.len()],
            elements,
            first: Vec::new(),
            past: Vec::new(),
            marked: Vec::new(),
            touched: Vec::new(),
        };
        let mut first = 0;
        for end in ends {
            if *end > first {
                partition.push(first, *end);
                first = *end;
            }
        }
        partition
    }

    fn push(&mut self, first: u32, past: u32) {
        let block = self.first.len() as u32;
        for i in first..past {
            self.block_of[self.elements[i as usize] as usize] = block;
        }
        self.first.push(first);
        self.past.push(past);
        self.marked.push(0);
    }

    fn blocks(&self) -> usize {
        self.first.len()
    }

    fn block(&self, block: usize) -> std::ops::Range<usize> {
        self.first[block] as usize..self.past[block] as usize
    }

    fn mark(&mut self, element: u32) {
        let block = self.block_of[element as usize] as usize;
        let from = self.location[element as usize];
        let to = self.first[block] + self.marked[block];
        let other = self.elements[to as usize];
        self.elements[from as usize] = other;
        self.location[other as usize] = from;
        self.elements[to as usize] = element;
        self.location[element as usize] = to;
        if self.marked[block] == 0 {
            self.touched.push(block as u32);
        }
        self.marked[block] += 1;
    }

    /// Splits every block that has marked elements from the unmarked; the smaller part is new.
    fn split(&mut self) {
        while let Some(block) = self.touched.pop() {
            let block = block as usize;
            let (first, past) = (self.first[block], self.past[block]);
            let middle = first + self.marked[block];
            self.marked[block] = 0;
            if middle == past {
                continue;
            }
            if middle - first <= past - middle {
                self.first[block] = middle;
                self.push(first, middle);
            } else {
                self.past[block] = middle;
                self.push(middle, past);
            }
        }
    }
}

/// The coarsest partition of the live states that masks and transitions respect.
fn refine(raw: &Raw, list_masks: &[Masks], mut transitions: Transitions) -> Vec<u32> {
    let states = raw.list.len();
    let mut kinds: HashMap<Masks, u32> = HashMap::new();
    // The dead state is kept apart by a kind of its own.
    let kind: Vec<u32> = (0..states)
        .map(|state| {
            let fresh = kinds.len() as u32 + 1;
            if state == 0 { 0 } else { *kinds.entry(list_masks[raw.list[state] as usize]).or_insert(fresh) }
        })
        .collect();
    let (order, starts) = sorted_by(&kind, kinds.len() + 1);
    let mut blocks = Partition::new(order, &starts[1..]);
    let mut cords = Partition::new(std::mem::take(&mut transitions.by_column), &transitions.column_ends);
    // Block 0 is the dead state, which no listed transition enters: nothing to split by.
    let mut block = 1;
    let mut cord = 0;
    // One block of live states less than all is enough to split by, but the first need not be skipped.
    while cord < cords.blocks() || block < blocks.blocks() {
        while cord < cords.blocks() {
            for i in cords.block(cord) {
                blocks.mark(transitions.tail[cords.elements[i] as usize]);
            }
            blocks.split();
            cord += 1;
        }
        while block < blocks.blocks() {
            for i in blocks.block(block) {
                for transition in transitions.entering(blocks.elements[i]) {
                    cords.mark(*transition);
                }
            }
            cords.split();
            block += 1;
        }
    }
    blocks.block_of
}

/// Numbers the blocks in the order in which a walk from the start meets them, the dead one first.
fn build(raw: &Raw, list_masks: &[Masks], block_of: &[u32]) -> Automaton {
    let blocks = block_of.iter().max().map_or(0, |last| *last as usize + 1);
    let mut number = vec![u32::MAX; blocks];
    let mut order: Vec<u32> = vec![0, START];
    number[block_of[0] as usize] = 0;
    number[block_of[START as usize] as usize] = 1;
    let mut i = 0;
    while let Some(state) = order.get(i) {
        for to in &raw.next[*state as usize * raw.columns..][..raw.columns] {
            let block = &mut number[block_of[*to as usize] as usize];
            if *block == u32::MAX {
                *block = order.len() as u32;
                order.push(*to);
            }
        }
        i += 1;
    }
    let next = order
        .iter()
        .flat_map(|state| &raw.next[*state as usize * raw.columns..][..raw.columns])
        .map(|to| number[block_of[*to as usize] as usize])
        .collect();
    let masks = order.iter().map(|state| list_masks[raw.list[*state as usize] as usize]).collect();
    let (list, lists) = joined_lists(raw, block_of, &number, order.len());
    Automaton::finish(raw.classes, raw.columns, 1, next, list, lists, masks)
}

/// Per merged state the labels of all its members.
fn joined_lists(raw: &Raw, block_of: &[u32], number: &[u32], states: usize) -> (Vec<u32>, Vec<Box<[u32]>>) {
    let mut members: Vec<Vec<u32>> = vec![Vec::new(); states];
    for (state, list) in raw.list.iter().enumerate() {
        members[number[block_of[state] as usize] as usize].push(*list);
    }
    let mut lists = raw.lists.clone();
    let list = members
        .into_iter()
        .map(|mut member| {
            member.sort_unstable();
            member.dedup();
            if let [only] = member[..] {
                return only;
            }
            let mut labels: Vec<u32> =
                member.iter().flat_map(|list| raw.lists[*list as usize].iter().copied()).collect();
            labels.sort_unstable();
            labels.dedup();
            lists.push(labels.into());
            (lists.len() - 1) as u32
        })
        .collect();
    (list, lists)
}
