//! Two or more automata side by side: the bytes that none of them tells apart, and the states of two
//! behind which nothing differs.

use super::{Automaton, minimise, subset::Raw};
use enforcer_common::map::Masks;
use std::collections::HashMap;

/// One byte for all that no automaton tells apart, readable ones first.
///
/// `/` and `.` stand for themselves only: what a name is depends on them. NUL is in no name.
pub(in crate::policy) fn alphabet(automata: &[&Automaton]) -> Vec<u8> {
    let readable = b"abcdefghijklmnopqrstuvwxyz0123456789ABCDEFGHIJKLMNOPQRSTUVWXYZ_-./".iter().copied();
    let mut known: HashMap<(Vec<u8>, u8), ()> = HashMap::new();
    readable
        .chain(1..=u8::MAX)
        .filter(|byte| {
            let columns = automata.iter().map(|automaton| automaton.classes[usize::from(*byte)]).collect();
            let own = if matches!(byte, b'/' | b'.') { *byte } else { 0 };
            known.insert((columns, own), ()).is_none()
        })
        .collect()
}

/// Numbers for the states of both: where two numbers agree, every further path leads to equal masks.
pub(in crate::policy) fn futures(a: &Automaton, b: &Automaton) -> (Vec<u32>, Vec<u32>) {
    let bytes = alphabet(&[a, b]);
    // The states of `b` follow those of `a`, and both have the one dead state.
    let shifted = |state: u32| if state == 0 { 0 } else { state + a.states() as u32 - 1 };
    let mut next = Vec::with_capacity((a.states() + b.states()) * bytes.len());
    for state in 0..a.states() as u32 {
        next.extend(bytes.iter().map(|byte| a.step(state, *byte)));
    }
    for state in 1..b.states() as u32 {
        next.extend(bytes.iter().map(|byte| shifted(b.step(state, *byte))));
    }
    let masks: Vec<Masks> = a.masks.iter().chain(&b.masks[1..]).copied().collect();
    let raw = Raw {
        classes: [0; 256],
        columns: bytes.len(),
        next,
        list: (0..masks.len() as u32).collect(),
        lists: Vec::new(),
    };
    let blocks = minimise::partition(&raw, &masks);
    let of_b = (0..b.states() as u32).map(|state| blocks[shifted(state) as usize]).collect();
    (blocks[..a.states()].to_vec(), of_b)
}

/// Per state the first one behind which, and at which, nothing differs in what is said, whichever labels say it.
pub(super) fn twins(automaton: &Automaton) -> Vec<u32> {
    let raw = Raw {
        classes: [0; 256],
        columns: automaton.columns,
        next: automaton.next.clone(),
        list: (0..automaton.masks.len() as u32).collect(),
        lists: Vec::new(),
    };
    let blocks = minimise::partition(&raw, &automaton.masks);
    let mut first: HashMap<u32, u32> = HashMap::new();
    blocks.into_iter().zip(0..).map(|(block, state)| *first.entry(block).or_insert(state)).collect()
}
