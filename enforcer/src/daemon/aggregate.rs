//! Denials that an agent repeats: the first is recorded at once, the others of the same second together, with
//! how many they were. Pure; times are boot time in nanoseconds.

use crate::event::decode::{Event, Kind};
use enforcer_common::event::Header;
use std::{
    collections::{HashMap, VecDeque, hash_map::Entry},
    mem::offset_of,
    rc::Rc,
};

/// How long identical denials are gathered, from the first one on.
pub const WINDOW: u64 = 1_000_000_000;
/// Denials that are gathered at one time. What is beyond is recorded one by one.
const MOST: usize = 1024;
/// Where a record has its time, the one thing in which identical ones differ.
const TIME: usize = offset_of!(Header, time);

/// The windows that are open.
#[derive(Debug, Default)]
pub struct Aggregator {
    windows: HashMap<Rc<[u8]>, Window>,
    /// In the order in which they were opened; one that was closed early may still stand here.
    order: VecDeque<(u64, Rc<[u8]>)>,
    /// The record at hand without its time.
    key: Vec<u8>,
}

#[derive(Clone, Copy, Debug)]
struct Window {
    opened: u64,
    count: u64,
    first: u64,
    last: u64,
}

/// Identical denials beyond the first one of their window.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Summary {
    /// The record's bytes; its time is [`Self::last`].
    pub record: Vec<u8>,
    /// How many there were.
    pub count: u64,
    /// Time of the first of them.
    pub first: u64,
    /// Time of the last of them.
    pub last: u64,
}

impl Aggregator {
    /// Takes a record: whether it must be recorded by itself. If not, it is counted in a window, and whatever
    /// window that closed before is returned.
    pub fn take(&mut self, bytes: &[u8], event: &Event<'_>) -> (bool, Option<Summary>) {
        if !matches!(event.kind, Kind::Decision | Kind::SystemCall) || event.raw.is_some() {
            return (true, None);
        }
        let time = event.header.time;
        self.key.clear();
        self.key.extend_from_slice(&bytes[..event.header.length as usize]);
        self.key[TIME..TIME + size_of::<u64>()].fill(0);
        let fresh = Window { opened: time, count: 0, first: time, last: time };
        if let Some(window) = self.windows.get_mut(&self.key[..]) {
            // Another CPU's record may come late, with an earlier time.
            if time.saturating_sub(window.opened) < WINDOW {
                window.first = if window.count == 0 { time } else { window.first.min(time) };
                window.last = if window.count == 0 { time } else { window.last.max(time) };
                window.count += 1;
                return (false, None);
            }
            let closed = std::mem::replace(window, fresh);
            let summary = summary(&self.key, closed);
            self.order.push_back((time, Rc::from(&self.key[..])));
            return (true, summary);
        }
        if self.windows.len() < MOST {
            let key: Rc<[u8]> = Rc::from(&self.key[..]);
            self.order.push_back((time, Rc::clone(&key)));
            self.windows.insert(key, fresh);
        }
        (true, None)
    }

    /// Closes the windows that are over at `now`.
    pub fn close(&mut self, now: u64) -> Vec<Summary> {
        let mut closed = Vec::new();
        while let Some((opened, _)) = self.order.front()
            && now.saturating_sub(*opened) >= WINDOW
            && let Some((opened, key)) = self.order.pop_front()
        {
            if let Entry::Occupied(entry) = self.windows.entry(key)
                && entry.get().opened == opened
            {
                let (key, window) = entry.remove_entry();
                closed.extend(summary(&key, window));
            }
        }
        closed
    }

    /// Closes all of them.
    pub fn close_all(&mut self) -> Vec<Summary> {
        self.close(u64::MAX)
    }
}

/// What a window has beyond its first record, which stands by itself.
fn summary(key: &[u8], window: Window) -> Option<Summary> {
    let Window { opened: _, count, first, last } = window;
    let mut record = key.to_vec();
    record[TIME..TIME + size_of::<u64>()].copy_from_slice(&last.to_ne_bytes());
    (count > 0).then_some(Summary { record, count, first, last })
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::event::decode::tests::record;
    use enforcer_common::event::kind;
    use proptest::prelude::*;

    fn denial(object: &str, time: u64) -> Vec<u8> {
        record(object.as_bytes(), b"/usr/bin/cat", |h| (h.time, h.session) = (time, [1, 2]))
    }

    fn take(aggregator: &mut Aggregator, bytes: &[u8]) -> (bool, Option<Summary>) {
        aggregator.take(bytes, &Event::try_from(bytes).expect("a record"))
    }

    #[test]
    fn the_first_is_recorded_at_once_and_the_others_when_the_second_is_over() {
        let mut windows = Aggregator::default();
        let begin = 5 * WINDOW;
        assert_eq!(take(&mut windows, &denial("/a", begin)), (true, None));
        for time in [begin + 10, begin + 5, begin + 20] {
            assert_eq!(take(&mut windows, &denial("/a", time)), (false, None));
        }
        assert_eq!(windows.close(begin + WINDOW - 1), []);
        let [summary] = &windows.close(begin + WINDOW)[..] else { panic!("one window") };
        assert_eq!((summary.count, summary.first, summary.last), (3, begin + 5, begin + 20));
        assert_eq!(summary.record, denial("/a", begin + 20));
        assert_eq!(take(&mut windows, &denial("/a", begin + 2 * WINDOW)), (true, None));
    }

    #[test]
    fn a_single_denial_leaves_one_record() {
        let mut windows = Aggregator::default();
        assert!(take(&mut windows, &denial("/a", 1)).0);
        assert_eq!(windows.close_all(), []);
    }

    #[test]
    fn what_comes_after_the_second_closes_the_window_and_opens_another() {
        let mut windows = Aggregator::default();
        take(&mut windows, &denial("/a", 0));
        take(&mut windows, &denial("/a", 1));
        let (alone, closed) = take(&mut windows, &denial("/a", WINDOW + 7));
        assert_eq!((alone, closed.map(|s| s.count)), (true, Some(1)));
        take(&mut windows, &denial("/a", WINDOW + 8));
        // The first window's place in the order means nothing any more.
        assert_eq!(windows.close(WINDOW + 8), []);
        assert_eq!(windows.close(2 * WINDOW + 7).len(), 1);
    }

    #[test]
    fn whatever_differs_is_recorded_by_itself() {
        let mut windows = Aggregator::default();
        let plain = |change: fn(&mut Header)| record(b"/a", b"/b", change);
        for bytes in [
            plain(|_| ()),
            plain(|h| h.session = [9, 9]),
            plain(|h| h.tgid = 1),
            plain(|h| h.access = 2),
            plain(|h| h.error = 0),
            record(b"/a", b"/c", |_| ()),
            record(b"/aa", b"/b", |_| ()),
        ] {
            assert!(take(&mut windows, &bytes).0);
        }
        for _ in 0..2 {
            assert!(take(&mut windows, &plain(|h| h.kind = kind::EXECUTED)).0, "only denials are gathered");
            assert!(take(&mut windows, &plain(|h| h.reason = 77)).0, "what is not known stays as it is");
        }
    }

    #[test]
    fn more_than_fits_is_recorded_one_by_one() {
        let mut windows = Aggregator::default();
        for n in 0..2 * MOST {
            assert!(take(&mut windows, &denial(&format!("/{n}"), 1)).0);
        }
        assert!(take(&mut windows, &denial(&format!("/{}", MOST + 1), 2)).0);
        assert!(!take(&mut windows, &denial("/1", 2)).0);
        assert_eq!(windows.windows.len(), MOST);
    }

    proptest! {
        #[test]
        fn every_denial_is_counted_exactly_once(
            acts in proptest::collection::vec((0u8..4, 0u64..300_000_000, any::<bool>()), 0..300)
        ) {
            let (mut windows, mut now) = (Aggregator::default(), 0);
            let (mut attempted, mut counted) = ([0u64; 4], [0u64; 4]);
            let object = |bytes: &[u8]| usize::from(bytes[size_of::<Header>() + 1] - b'0');
            let mut count = |summary: &Summary| counted[object(&summary.record)] += summary.count;
            let mut alone = [0u64; 4];
            for (which, step, close) in acts {
                now += step;
                let bytes = denial(&format!("/{which}"), now);
                attempted[usize::from(which)] += 1;
                let (recorded, closed) = take(&mut windows, &bytes);
                alone[usize::from(which)] += u64::from(recorded);
                closed.iter().for_each(&mut count);
                if close {
                    windows.close(now).iter().for_each(&mut count);
                }
            }
            windows.close_all().iter().for_each(&mut count);
            for which in 0..4 {
                prop_assert_eq!(attempted[which], alone[which] + counted[which]);
            }
        }
    }
}
