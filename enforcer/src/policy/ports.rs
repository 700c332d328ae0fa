//! Address rules → per prefix the ranges of ports, with all that wider prefixes say already joined.

use super::{
    endpoint::{Prefix, TCP, UDP},
    rule::{Rule, RuleId, normal},
    sets::Sets,
};
use enforcer_common::{limits::PORT_RANGES, map::Masks};
use std::collections::{BTreeMap, BTreeSet, HashMap};

/// A range of ports about which the rules say one thing.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub(super) struct Range {
    pub(super) first: u16,
    pub(super) last: u16,
    pub(super) masks: Masks,
    /// See [`Masks::set`].
    pub(super) set: u16,
    pub(super) rules: Vec<u32>,
}

/// The tables of a policy's addresses.
#[derive(Clone, Debug, Default)]
pub(super) struct Ports {
    /// Each different table once.
    pub(super) tables: Vec<Vec<Range>>,
    /// Prefix and protocol → entry of `tables`.
    pub(super) prefixes: BTreeMap<(Prefix, u8), usize>,
}

/// A prefix whose ports fall into more ranges than the kernel's search looks through.
#[derive(Debug)]
pub(super) struct TooManyRanges {
    pub(super) prefix: Prefix,
    pub(super) rules: Vec<RuleId>,
}

/// First port, last port, rule.
type Span = (u16, u16, u32);

impl Ports {
    pub(super) fn build(rules: &[Rule]) -> Result<Self, TooManyRanges> {
        let mut spans: HashMap<(Prefix, u8), Vec<Span>> = HashMap::new();
        let mut lengths: BTreeSet<(u8, u8)> = BTreeSet::new();
        for (rule, id) in rules.iter().zip(0..) {
            for endpoint in rule.endpoints() {
                let (first, last) = endpoint.ports();
                for prefix in endpoint.prefixes() {
                    lengths.insert((prefix.family, prefix.bits));
                    for protocol in endpoint.protocols() {
                        spans.entry((prefix, *protocol)).or_default().push((first, last, id));
                    }
                }
            }
        }
        let mut ports = Self::default();
        let mut known: HashMap<Vec<Range>, usize> = HashMap::new();
        let mut keys: Vec<(Prefix, u8)> = spans.keys().copied().collect();
        keys.sort_unstable();
        for (prefix, protocol) in keys {
            debug_assert!(matches!(protocol, TCP | UDP));
            let wider =
                lengths.iter().filter(|(family, bits)| *family == prefix.family && *bits <= prefix.bits);
            let all: Vec<Span> = wider
                .filter_map(|(_, bits)| spans.get(&(prefix.widened(*bits), protocol)))
                .flatten()
                .copied()
                .collect();
            let table = sweep(&all, rules);
            if table.len() > PORT_RANGES as usize {
                let mut rules: Vec<RuleId> = all.iter().map(|(_, _, rule)| RuleId(*rule)).collect();
                rules.sort_unstable();
                rules.dedup();
                return Err(TooManyRanges { prefix, rules });
            }
            let fresh = ports.tables.len();
            let entry = *known.entry(table).or_insert_with_key(|table| {
                ports.tables.push(table.clone());
                fresh
            });
            ports.prefixes.insert((prefix, protocol), entry);
        }
        Ok(ports)
    }

    /// Numbers the sets of rules behind the ranges; false, and nothing has a number, where there are too many.
    pub(super) fn number(&mut self, sets: &Sets<'_>) -> bool {
        for range in self.tables.iter_mut().flatten() {
            range.set = sets.number(&range.rules, &range.masks);
        }
        if !sets.are_told() {
            self.tables.iter_mut().flatten().for_each(|range| range.set = 0);
        }
        sets.are_told()
    }

    /// How many ranges all tables have.
    pub(super) fn ranges(&self) -> usize {
        self.tables.iter().map(Vec::len).sum()
    }
}

/// Overlapping spans → ranges in order, adjacent equal ones as one.
fn sweep(spans: &[Span], rules: &[Rule]) -> Vec<Range> {
    // Port → rules that begin there, rules that have ended before it. The end is one past 65535.
    let mut changes: BTreeMap<u32, (Vec<u32>, Vec<u32>)> = BTreeMap::new();
    for (first, last, rule) in spans {
        changes.entry(u32::from(*first)).or_default().0.push(*rule);
        changes.entry(u32::from(*last) + 1).or_default().1.push(*rule);
    }
    let mut active: BTreeMap<u32, u32> = BTreeMap::new();
    let mut ranges: Vec<Range> = Vec::new();
    let mut changes = changes.into_iter().peekable();
    while let Some((port, (begin, end))) = changes.next() {
        for rule in begin {
            *active.entry(rule).or_default() += 1;
        }
        for rule in end {
            if let Some(count) = active.get_mut(&rule) {
                *count -= 1;
                if *count == 0 {
                    active.remove(&rule);
                }
            }
        }
        let Some((next, _)) = changes.peek() else { break };
        if active.is_empty() {
            continue;
        }
        let here: Vec<u32> = active.keys().copied().collect();
        let (first, last) = (port as u16, (next - 1) as u16);
        match ranges.last_mut() {
            Some(before) if before.rules == here && u32::from(before.last) + 1 == port => before.last = last,
            _ => {
                let mut masks = Masks::NONE;
                here.iter().for_each(|rule| masks.join(&rules[*rule as usize].masks()));
                ranges.push(Range { first, last, masks: normal(&masks), set: 0, rules: here });
            }
        }
    }
    ranges
}
