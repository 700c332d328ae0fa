//! What sessions did last, in words, for whoever is asked about the next thing.

use super::held::what;
use crate::{
    approvals::words,
    event::{
        decode::{Event, Kind},
        text::rfc3339,
    },
};
use enforcer_common::event::{flag, reason};
use std::collections::{BTreeMap, HashSet, VecDeque};

/// Acts that are remembered of a session.
const ACTS: usize = 10;
/// Sessions of which something is remembered: beyond that, the one that was quiet for longest is forgotten.
const SESSIONS: usize = 1024;
/// The longest text of an act, in characters; what is cut says so.
const LENGTH: usize = 200;

/// What sessions did last. In memory only: a daemon that has just started remembers nothing.
#[derive(Debug, Default)]
pub(super) struct Recent {
    sessions: BTreeMap<[u64; 2], Session>,
}

#[derive(Debug)]
struct Session {
    acts: VecDeque<String>,
    /// Boot time of the last one.
    last: u64,
}

impl Recent {
    /// Remembers what a record tells, if it tells of an act.
    pub(super) fn note(&mut self, event: &Event<'_>, boot_offset: i128) {
        let header = &event.header;
        if event.kind == Kind::SessionRemoved {
            self.sessions.remove(&header.session);
            return;
        }
        let Some(act) = act(event).filter(|_| header.session != [0, 0]) else { return };
        if !self.sessions.contains_key(&header.session) && self.sessions.len() >= SESSIONS {
            let quiet = self.sessions.iter().min_by_key(|(_, session)| session.last).map(|(id, _)| *id);
            quiet.and_then(|id| self.sessions.remove(&id));
        }
        let time = rfc3339(i128::from(header.time) + boot_offset);
        let text = format!("{} {act}", time.get(11..19).unwrap_or_default());
        let new = Session { acts: VecDeque::with_capacity(ACTS), last: 0 };
        let session = self.sessions.entry(header.session).or_insert(new);
        session.last = header.time;
        if session.acts.len() >= ACTS {
            session.acts.pop_front();
        }
        session.acts.push_back(cut(text));
    }

    /// Forgets all sessions but these: records that came late may have brought back what had ended.
    pub(super) fn retain(&mut self, ids: &HashSet<[u64; 2]>) {
        self.sessions.retain(|id, _| ids.contains(id));
    }

    /// What a session did last, the oldest first. Fit to be shown.
    pub(super) fn of(&self, session: [u64; 2]) -> Vec<String> {
        self.sessions.get(&session).map(|session| session.acts.iter().cloned().collect()).unwrap_or_default()
    }
}

/// An act in words; whatever an agent may have chosen is escaped.
fn act(event: &Event<'_>) -> Option<String> {
    let how = match (event.kind, event.header.reason) {
        (Kind::Executed, _) => {
            return Some(format!("ran {}", crate::event::text::escape(event.exe)));
        }
        (Kind::Held, _) => "asked to",
        (Kind::Decision, reason::GRANTED) => "was let by a person:",
        (Kind::Decision, _) if event.header.flags & flag::WOULD != 0 => "would have been refused to",
        (Kind::Decision, _) => "was refused to",
        _ => return None,
    };
    Some(format!("{how} {}", words::act(&what(event))))
}

fn cut(text: String) -> String {
    match text.char_indices().nth(LENGTH) {
        None => text,
        Some((at, _)) => format!("{}… ({} characters more)", &text[..at], text[at..].chars().count()),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::event::decode::tests::record;

    fn note(recent: &mut Recent, object: &[u8], change: impl FnOnce(&mut enforcer_common::event::Header)) {
        let bytes = record(object, b"/usr/bin/cat", |h| {
            h.session = [0, 1];
            change(h);
        });
        recent.note(&Event::try_from(&bytes[..]).expect("a record"), 0);
    }

    #[test]
    fn the_last_acts_stay_in_their_order_and_escaped() {
        let mut recent = Recent::default();
        for n in 0..15u64 {
            note(&mut recent, format!("/w/{n}\n\x1b[2J").as_bytes(), |h| h.time = n * 1_000_000_000);
        }
        let acts = recent.of([0, 1]);
        assert_eq!(acts.len(), ACTS);
        assert_eq!(acts[0], "00:00:05 was refused to open /w/5\\n\\x1b[2J to read");
        assert!(
            acts[9].contains("/w/14") && acts.iter().all(|act| !act.contains(['\n', '\x1b'])),
            "{acts:?}"
        );
        assert!(recent.of([0, 2]).is_empty());
    }

    #[test]
    fn what_is_too_long_says_what_is_missing() {
        let mut recent = Recent::default();
        note(&mut recent, &b"/a".repeat(600), |_| ());
        let act = &recent.of([0, 1])[0];
        assert!(act.chars().count() < LENGTH + 40 && act.contains("characters more"), "{act}");
    }

    #[test]
    fn a_session_that_ended_and_the_quietest_of_too_many_are_forgotten() {
        let mut recent = Recent::default();
        note(&mut recent, b"/x", |_| ());
        note(&mut recent, b"", |h| h.kind = enforcer_common::event::kind::SESSION_REMOVED);
        assert!(recent.of([0, 1]).is_empty());
        for n in 0..=SESSIONS as u64 {
            note(&mut recent, b"/x", |h| (h.session, h.time) = ([1, n], n));
        }
        assert_eq!(recent.sessions.len(), SESSIONS);
        assert!(recent.of([1, 0]).is_empty() && recent.of([1, 1]).len() == 1);
    }
}
