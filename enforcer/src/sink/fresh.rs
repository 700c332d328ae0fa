//! Records that this process has written a moment ago, as sinks deliver them: what has just been made need not be read
//! back from the disk and checked. What is not here any more, or never was, is in the log.

use super::{cursor::Position, item::Item, queue::Limits};
use std::{
    collections::VecDeque,
    sync::{Mutex, MutexGuard, PoisonError},
};

/// Bytes of text that are kept, about. A sink that is further behind reads the log.
const MOST: usize = 32 << 20;

/// The end of the log in memory, shared by the thread that writes it and the threads that deliver.
#[derive(Default)]
pub struct Fresh(Mutex<Inner>);

#[derive(Default)]
struct Inner {
    /// Where the first of them stands.
    from: Position,
    /// One after the other; `None` where a record's text was not made.
    items: VecDeque<Option<Item>>,
    bytes: usize,
    /// How far those have come who read here.
    passed: Vec<Position>,
}

/// One who reads here.
#[derive(Clone, Copy, Debug)]
pub(super) struct Place(usize);

impl Fresh {
    fn lock(&self) -> MutexGuard<'_, Inner> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// From now on somebody reads here.
    pub(super) fn join(&self) -> Place {
        let mut inner = self.lock();
        inner.passed.push(Position::default());
        Place(inner.passed.len() - 1)
    }

    /// Whether anybody reads here.
    pub(crate) fn is_wanted(&self) -> bool {
        !self.lock().passed.is_empty()
    }

    /// Adds the records from `at` on.
    pub(crate) fn put(&self, at: Position, items: Vec<Option<Item>>) {
        let mut inner = self.lock();
        if inner.end() != at {
            inner.items.clear();
            (inner.from, inner.bytes) = (at, 0);
        }
        inner.bytes += items.iter().map(size).sum::<usize>();
        inner.items.extend(items);
        while inner.bytes > MOST {
            inner.drop_first();
        }
    }

    /// The records from `at` on, up to record `end`, as many as are here one after the other.
    pub(super) fn get(&self, place: Place, at: Position, end: u64, limits: Limits) -> Vec<Item> {
        let mut inner = self.lock();
        inner.passed[place.0] = at;
        let slowest = inner.passed.iter().min().copied().unwrap_or_default();
        while !inner.items.is_empty() && inner.from < slowest {
            inner.drop_first();
        }
        let skip = match at.index.checked_sub(inner.from.index) {
            Some(skip) if at.log == inner.from.log => skip,
            _ => return Vec::new(),
        };
        let wanted = limits.records.min(usize::try_from(end.saturating_sub(at.index)).unwrap_or(usize::MAX));
        let mut bytes = 0;
        let from = usize::try_from(skip).unwrap_or(usize::MAX).min(inner.items.len());
        let items = inner.items.range(from..).take(wanted).map_while(Option::as_ref);
        let within = |item: &&Item| {
            let fits = bytes < limits.bytes;
            bytes += item.size();
            fits
        };
        items.take_while(within).cloned().collect()
    }
}

impl Inner {
    fn end(&self) -> Position {
        Position { index: self.from.index + self.items.len() as u64, ..self.from }
    }

    fn drop_first(&mut self) {
        if let Some(item) = self.items.pop_front() {
            self.bytes -= size(&item);
            self.from.index += 1;
        }
    }
}

/// What an item takes. A gap must not be free, or nothing would bound their number.
fn size(item: &Option<Item>) -> usize {
    item.as_ref().map_or(64, Item::size)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::log::leaf::Disclosed;

    fn item(n: u64) -> Option<Item> {
        let disclosed = Disclosed { text: format!("{{\"seq\":{n}}}"), kind: "alive".to_owned() };
        Some(Item::made(&disclosed, &[0; 32], "a"))
    }

    fn at(index: u64) -> Position {
        Position { log: 1, index }
    }

    fn got(fresh: &Fresh, place: Place, from: u64, end: u64) -> Vec<u64> {
        let limits = Limits { records: 5, bytes: 1 << 20 };
        let items = fresh.get(place, at(from), end, limits);
        items.iter().map(|item| item.fields()["seq"].as_u64().expect("number")).collect()
    }

    #[test]
    fn what_is_here_is_given_in_order_and_never_past_a_gap_or_the_end() {
        let fresh = Fresh::default();
        assert!(!fresh.is_wanted());
        let place = fresh.join();
        fresh.put(at(10), vec![item(10), item(11), None, item(13)]);
        assert_eq!(got(&fresh, place, 9, 99), [0; 0]);
        assert_eq!(got(&fresh, place, 10, 99), [10, 11]);
        assert_eq!(got(&fresh, place, 11, 11), [0; 0]);
        assert_eq!(got(&fresh, place, 12, 99), [0; 0]);
        assert_eq!(got(&fresh, place, 13, 99), [13]);
        fresh.put(at(14), (14..30).map(item).collect());
        assert_eq!(got(&fresh, place, 13, 99), [13, 14, 15, 16, 17]);
        let other = Position { log: 2, index: 14 };
        assert!(fresh.get(place, other, 99, Limits { records: 5, bytes: 99 }).is_empty());
    }

    #[test]
    fn what_everybody_has_had_is_forgotten_and_so_is_the_oldest_of_too_much() {
        let fresh = Fresh::default();
        let (quick, slow) = (fresh.join(), fresh.join());
        fresh.put(at(0), (0..10).map(item).collect());
        assert_eq!(got(&fresh, quick, 8, 99), [8, 9]);
        assert_eq!(got(&fresh, slow, 2, 99), [2, 3, 4, 5, 6]);
        assert_eq!(fresh.lock().items.len(), 8);
        let big = || {
            let text = format!("{{\"pad\":\"{}\"}}", "x".repeat(MOST / 3));
            Some(Item::made(&Disclosed { text, kind: String::new() }, &[0; 32], "a"))
        };
        fresh.put(at(10), vec![big(), big(), big()]);
        let inner = fresh.lock();
        assert!(inner.bytes <= MOST && inner.from > at(10), "{} from {:?}", inner.bytes, inner.from);
        assert_eq!(inner.end(), at(13));
    }

    #[test]
    fn another_place_in_the_log_begins_anew() {
        let fresh = Fresh::default();
        let place = fresh.join();
        fresh.put(at(0), vec![item(0)]);
        fresh.put(at(7), vec![item(7)]);
        assert_eq!((got(&fresh, place, 0, 99), got(&fresh, place, 7, 99)), (vec![], vec![7]));
    }
}
