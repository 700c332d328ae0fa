//! The last refusals of each session, for when the session asks why.

use crate::event::{
    decode::{Event, Kind},
    why::Why,
};
use enforcer_common::event::flag;
use std::collections::{BTreeMap, HashSet, VecDeque};

/// Refusals that are remembered of a session.
const MOST: usize = 5;
/// Bytes that are remembered of a session: whoever has long names has fewer refusals.
const BYTES: usize = 16 * 1024;
/// Sessions of which something is remembered: beyond that, the one that was quiet for longest is forgotten.
const SESSIONS: usize = 1024;

/// The last refusals. In memory only: a daemon that has just started remembers nothing.
#[derive(Debug, Default)]
pub(super) struct Refusals {
    sessions: BTreeMap<[u64; 2], Session>,
}

/// A refusal.
#[derive(Debug)]
pub(super) enum Refusal {
    /// As the kernel told it.
    Told(Vec<u8>),
    /// Of a program that was ended before it began, in words already.
    Ended(Box<Why>),
}

impl Refusal {
    /// Roughly, in bytes.
    fn size(&self) -> usize {
        match self {
            Self::Told(bytes) => bytes.len(),
            Self::Ended(why) => {
                let texts = why.rules.iter().chain(&why.because).map(String::len).sum::<usize>();
                size_of::<Why>() + texts + why.tried.len() + why.process.len() + why.ask.len()
            }
        }
    }
}

#[derive(Debug, Default)]
struct Session {
    records: VecDeque<Refusal>,
    /// Boot time of the last one.
    last: u64,
}

impl Refusals {
    /// Remembers a record, if it is of a refusal or of something that waits.
    pub(super) fn note(&mut self, bytes: &[u8], event: &Event<'_>) {
        let header = &event.header;
        match event.kind {
            Kind::SessionRemoved => drop(self.sessions.remove(&header.session)),
            Kind::Decision | Kind::Held if header.session != [0, 0] => {
                let refused = header.error != 0 || header.flags & flag::WOULD != 0;
                if refused || event.kind == Kind::Held {
                    self.keep(header.session, header.time, Refusal::Told(bytes.to_vec()));
                }
            }
            _ => {}
        }
    }

    /// Remembers that a program of a session was ended before it began. `time` is boot time in nanoseconds.
    pub(super) fn note_ended(&mut self, session: [u64; 2], time: u64, why: Why) {
        if session != [0, 0] {
            self.keep(session, time, Refusal::Ended(Box::new(why)));
        }
    }

    fn keep(&mut self, id: [u64; 2], time: u64, refusal: Refusal) {
        if !self.sessions.contains_key(&id) && self.sessions.len() >= SESSIONS {
            let quiet = self.sessions.iter().min_by_key(|(_, session)| session.last).map(|(id, _)| *id);
            quiet.and_then(|id| self.sessions.remove(&id));
        }
        let session = self.sessions.entry(id).or_default();
        session.last = time;
        session.records.push_back(refusal);
        let size = |records: &VecDeque<Refusal>| records.iter().map(Refusal::size).sum::<usize>();
        while session.records.len() > MOST || session.records.len() > 1 && size(&session.records) > BYTES {
            session.records.pop_front();
        }
    }

    /// Forgets all sessions but these: records that came late may have brought back what had ended.
    pub(super) fn retain(&mut self, ids: &HashSet<[u64; 2]>) {
        self.sessions.retain(|id, _| ids.contains(id));
    }

    /// The records of a session, the newest first.
    pub(super) fn of(&self, session: [u64; 2]) -> impl Iterator<Item = &Refusal> {
        self.sessions.get(&session).into_iter().flat_map(|s| s.records.iter().rev())
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::event::decode::tests::record;

    fn note(refusals: &mut Refusals, session: [u64; 2], object: &[u8], error: i32) {
        let bytes = record(object, b"/usr/bin/cat", |h| (h.session, h.error) = (session, error));
        refusals.note(&bytes, &Event::try_from(&bytes[..]).expect("a record"));
    }

    #[test]
    fn the_last_refusals_of_each_session_are_kept_and_nothing_else() {
        let mut refusals = Refusals::default();
        note(&mut refusals, [0, 1], b"/allowed", 0);
        assert_eq!(refusals.of([0, 1]).count(), 0);
        (0..9).for_each(|n| note(&mut refusals, [0, 1], format!("/w/{n}").as_bytes(), -1));
        note(&mut refusals, [0, 0], b"/nobody", -1);
        let objects: Vec<Vec<u8>> = refusals
            .of([0, 1])
            .map(|refusal| match refusal {
                Refusal::Told(bytes) => Event::try_from(&bytes[..]).expect("a record").object.to_vec(),
                Refusal::Ended(why) => panic!("{why:?}"),
            })
            .collect();
        assert_eq!(objects.len(), MOST);
        assert_eq!((&objects[0][..], &objects[MOST - 1][..]), (&b"/w/8"[..], &b"/w/4"[..]));
        assert_eq!((refusals.of([0, 2]).count(), refusals.of([0, 0]).count()), (0, 0));
    }

    #[test]
    fn a_program_that_was_ended_is_among_them() {
        let mut refusals = Refusals::default();
        note(&mut refusals, [0, 1], b"/w/1", -1);
        let record =
            serde_json::json!({"operation": "exec", "object": {"path": "/usr/bin/git"}, "reason": "rule"});
        let why = crate::event::why::why(record.as_object().expect("an object"));
        refusals.note_ended([0, 1], 9, why.clone());
        refusals.note_ended([0, 0], 9, why);
        let kept: Vec<_> = refusals.of([0, 1]).collect();
        assert!(
            matches!(&kept[..], [Refusal::Ended(why), Refusal::Told(_)] if why.tried == "exec /usr/bin/git")
        );
        assert_eq!(refusals.of([0, 0]).count(), 0);
    }

    #[test]
    fn long_names_and_many_sessions_are_bounded_and_who_ended_is_forgotten() {
        let mut refusals = Refusals::default();
        let long = b"/x".repeat(3000);
        (0..5).for_each(|_| note(&mut refusals, [0, 1], &long, -1));
        assert!(refusals.of([0, 1]).map(Refusal::size).sum::<usize>() <= BYTES);
        (0..=SESSIONS as u64).for_each(|n| note(&mut refusals, [1, n], b"/x", -1));
        assert_eq!(refusals.sessions.len(), SESSIONS);
        let last = [1, SESSIONS as u64];
        let bytes = record(b"", b"", |h| {
            (h.session, h.kind) = (last, enforcer_common::event::kind::SESSION_REMOVED);
        });
        refusals.note(&bytes, &Event::try_from(&bytes[..]).expect("a record"));
        assert_eq!(refusals.of(last).count(), 0);
    }
}
