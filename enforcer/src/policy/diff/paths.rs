//! The paths about which two policies differ: a walk through the product of their automata, breadth
//! first, so that the first path to each difference is a shortest one.

use super::{
    DiffError,
    change::{Change, Levels},
};
use crate::policy::{
    automaton::{Automaton, alphabet, futures},
    image::Image,
    rule::Section,
};
use enforcer_common::{limits::GROUPS, map::Masks};
use std::collections::{BTreeMap, HashMap, VecDeque};

/// Most product states that are looked at.
const STATES: usize = 2_000_000;

/// A difference at one path.
#[derive(Debug)]
pub(super) struct Found {
    pub(super) change: Change,
    pub(super) operations: u16,
    /// With its leading slash.
    pub(super) path: Vec<u8>,
    /// Rules of either policy that may match there, and others.
    pub(super) labels: [Vec<u32>; 2],
}

/// What the product's states differ in.
#[derive(Debug, Default)]
pub(super) struct Paths {
    pub(super) found: Vec<Found>,
    /// The tables differ somewhere, even if no verdict does.
    pub(super) masks_differ: bool,
}

/// What was read of the present name: `.` and `..` are no objects, nor is what ends in a slash.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
enum Name {
    Empty,
    Dot,
    DotDot,
    Other,
}

impl Name {
    fn then(self, byte: u8) -> Self {
        match (self, byte) {
            (_, b'/') => Self::Empty,
            (Self::Empty, b'.') => Self::Dot,
            (Self::Dot, b'.') => Self::DotDot,
            _ => Self::Other,
        }
    }

    fn is_object(self) -> bool {
        self == Self::Other
    }
}

type States = [u32; 2 * GROUPS];
type Place = (States, Name);

/// Finds one shortest path for each way in which verdicts and matching rules differ.
pub(super) fn compare(a: &Image, b: &Image, levels: &Levels) -> Result<Paths, DiffError> {
    let product = Product::new(a.automata(), b.automata(), levels);
    let mut walk = Walk { levels, product: &product, out: Paths::default(), known: HashMap::new() };
    let start: Place = (product.start(), Name::Empty);
    let mut places: Vec<(Place, u32, u8)> = vec![(start, 0, b'/')];
    let mut seen: HashMap<Place, ()> = HashMap::from([(start, ())]);
    let mut queue = VecDeque::from([0u32]);
    walk.judge(&start.0, || b"/".to_vec());
    while let Some(from) = queue.pop_front() {
        let ((states, name), _, _) = places[from as usize];
        for byte in &product.bytes {
            if *byte == b'/' && !name.is_object() {
                continue;
            }
            let to: Place = (product.step(&states, *byte), name.then(*byte));
            // Nothing differs any more behind it.
            if product.agree(&to.0) || seen.insert(to, ()).is_some() {
                continue;
            }
            if places.len() >= STATES {
                return Err(DiffError::TooLarge { states: STATES });
            }
            let index = places.len() as u32;
            places.push((to, from, *byte));
            if to.1.is_object() {
                walk.judge(&to.0, || path_to(&places, index));
            }
            queue.push_back(index);
        }
    }
    Ok(walk.out)
}

fn path_to(places: &[(Place, u32, u8)], mut at: u32) -> Vec<u8> {
    let mut path = Vec::new();
    while at != 0 {
        let (_, from, byte) = places[at as usize];
        path.push(byte);
        at = from;
    }
    path.push(b'/');
    path.reverse();
    path
}

/// All automata of both policies, stepped together.
struct Product<'a> {
    automata: Vec<&'a Automaton>,
    /// How many of them are the first policy's.
    first: usize,
    bytes: Vec<u8>,
    /// Per pair of automata of the same rank: what is equal behind their states. Empty where equal
    /// tables are no equal answers.
    futures: Vec<(Vec<u32>, Vec<u32>)>,
}

impl<'a> Product<'a> {
    fn new(a: &'a [Automaton], b: &'a [Automaton], levels: &Levels) -> Self {
        let automata: Vec<&Automaton> = a.iter().chain(b).collect();
        let bytes = alphabet(&automata);
        let comparable = a.len() == b.len() && levels.same_tiers();
        let futures = if comparable { a.iter().zip(b).map(|(a, b)| futures(a, b)).collect() } else { vec![] };
        Self { automata, first: a.len(), bytes, futures }
    }

    fn start(&self) -> States {
        let mut states = [0; 2 * GROUPS];
        self.automata.iter().zip(&mut states).for_each(|(automaton, state)| *state = automaton.start());
        states
    }

    fn step(&self, states: &States, byte: u8) -> States {
        let mut next = [0; 2 * GROUPS];
        for ((automaton, from), to) in self.automata.iter().zip(states).zip(&mut next) {
            *to = automaton.step(*from, byte);
        }
        next
    }

    /// Whether no path from here on is answered differently. Can be false where that is so.
    fn agree(&self, states: &States) -> bool {
        if self.futures.is_empty() {
            return states.iter().all(|state| *state == 0);
        }
        let (a, b) = states.split_at(self.first);
        self.futures
            .iter()
            .zip(a.iter().zip(b))
            .all(|((of_a, of_b), (a, b))| of_a[*a as usize] == of_b[*b as usize])
    }

    fn masks(&self, states: &States) -> [Masks; 2] {
        let mut masks = [Masks::NONE; 2];
        for (i, (automaton, state)) in self.automata.iter().zip(states).enumerate() {
            masks[usize::from(i >= self.first)].join(&automaton.masks(*state));
        }
        masks.map(|masks| crate::policy::rule::normal(&masks))
    }

    fn label_lists(&self, states: &States) -> States {
        let mut lists = [0; 2 * GROUPS];
        for ((automaton, state), list) in self.automata.iter().zip(states).zip(&mut lists) {
            *list = automaton.label_list(*state);
        }
        lists
    }

    fn labels(&self, states: &States) -> [Vec<u32>; 2] {
        let mut labels = [Vec::new(), Vec::new()];
        for (i, (automaton, state)) in self.automata.iter().zip(states).enumerate() {
            labels[usize::from(i >= self.first)].extend_from_slice(automaton.labels(*state));
        }
        labels.map(|mut labels| {
            labels.sort_unstable();
            labels.dedup();
            labels
        })
    }
}

struct Walk<'a> {
    levels: &'a Levels,
    product: &'a Product<'a>,
    out: Paths,
    /// Masks and lists of labels that were met before.
    known: HashMap<([Masks; 2], States), ()>,
}

impl Walk<'_> {
    fn judge(&mut self, states: &States, path: impl Fn() -> Vec<u8>) {
        let masks = self.product.masks(states);
        self.out.masks_differ |= masks[0] != masks[1];
        if self.known.insert((masks, self.product.label_lists(states)), ()).is_some() {
            return;
        }
        let changes: BTreeMap<Change, u16> = self.levels.changes(Section::Files, &masks[0], &masks[1]);
        for (change, operations) in changes {
            let labels = self.product.labels(states);
            self.out.found.push(Found { change, operations, path: path(), labels });
        }
    }
}
