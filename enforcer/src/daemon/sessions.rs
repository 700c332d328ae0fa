//! What is known of sessions beyond a single record: who started them and what for, what their processes executed,
//! and what they did in sum. Pure; times are boot time in nanoseconds.

use crate::event::{
    decode::{Event, Kind},
    json::{SessionNote, SessionOf},
};
use enforcer_common::{event::flag, verdict::Verdict};
use serde_json::{Value, json};
use std::{
    collections::{HashMap, HashSet, VecDeque},
    sync::Arc,
};

/// Processes of sessions whose programs are remembered. Beyond that the one that was noted first is forgotten.
const PROCESSES: usize = 65_536;
/// The same of those that are no session's. When they end, nothing says so.
const OF_NOBODY: usize = 4_096;
const NOBODY: Id = [0, 0];

type Id = [u64; 2];
/// A process by number and start.
type Process = (u32, u64);

/// What is known.
#[derive(Debug)]
pub(super) struct Sessions {
    sessions: HashMap<Id, Session>,
    programs: Programs,
    of_nobody: Programs,
}

impl Default for Sessions {
    fn default() -> Self {
        let sessions = HashMap::new();
        Self { sessions, programs: Programs::new(PROCESSES), of_nobody: Programs::new(OF_NOBODY) }
    }
}

/// What processes executed, and whose they are.
#[derive(Debug)]
struct Programs {
    known: HashMap<Process, (Id, Arc<[u8]>)>,
    /// In the order in which they were noted.
    order: VecDeque<Process>,
    most: usize,
}

impl Programs {
    fn new(most: usize) -> Self {
        Self { known: HashMap::new(), order: VecDeque::new(), most }
    }

    fn remember(&mut self, process: Process, whose: Id, exe: &[u8]) {
        if exe.is_empty() || process == (0, 0) {
            return;
        }
        if self.known.get(&process).is_some_and(|(id, known)| *id == whose && **known == *exe) {
            return;
        }
        if self.known.insert(process, (whose, Arc::from(exe))).is_none() {
            self.order.push_back(process);
        }
        while self.order.len() > self.most {
            self.order.pop_front().and_then(|oldest| self.known.remove(&oldest));
        }
    }

    fn retain(&mut self, ids: &HashSet<Id>) {
        let before = self.known.len();
        self.known.retain(|_, (id, _)| ids.contains(id));
        if self.known.len() < before {
            self.order.retain(|process| self.known.contains_key(process));
        }
    }
}

#[derive(Debug, Default)]
struct Session {
    note: SessionNote,
    /// When it was bound, if that is known.
    began: Option<u64>,
    counts: Counts,
}

/// What a session did, since this daemon knows it. Every act counts, recorded by itself or with others.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(super) struct Counts {
    executed: u64,
    denied: u64,
    would_be_denied: u64,
    held: u64,
    granted: u64,
    entered: u64,
}

impl Sessions {
    /// Whether the session is one that nothing is known of.
    pub(super) fn is_new(&self, id: Id) -> bool {
        id != NOBODY && !self.sessions.contains_key(&id)
    }

    /// Notes who started a session, what for, which container it is, and when it was bound, if that is known.
    pub(super) fn introduce(&mut self, id: Id, note: SessionNote, began: Option<u64>) {
        let session = self.sessions.entry(id).or_default();
        session.note = note;
        session.began = began;
    }

    /// Takes a record into account.
    pub(super) fn note(&mut self, event: &Event<'_>) {
        let header = &event.header;
        let process = (header.tgid, header.started);
        let programs = if header.session == NOBODY { &mut self.of_nobody } else { &mut self.programs };
        if matches!(event.kind, Kind::Executed | Kind::SessionArmed) || !programs.known.contains_key(&process)
        {
            programs.remember(process, header.session, event.exe);
        }
        if header.session == NOBODY {
            return;
        }
        let session = self.sessions.entry(header.session).or_default();
        let counts = &mut session.counts;
        match (event.kind, event.verdict) {
            (Kind::SessionBound, _) => session.began = Some(header.time),
            (Kind::Executed, _) => counts.executed += 1,
            (Kind::Entered, _) => counts.entered += 1,
            (Kind::Held, _) => counts.held += 1,
            (Kind::Decision, _) if header.flags & flag::WOULD != 0 => counts.would_be_denied += 1,
            (Kind::Decision, Ok(Verdict::Allow)) => counts.granted += 1,
            (Kind::Decision, Ok(Verdict::Deny)) => counts.denied += 1,
            _ => {}
        }
    }

    /// Forgets all but these: records that came late may have brought back what had ended.
    pub(super) fn retain(&mut self, ids: &HashSet<Id>) {
        self.sessions.retain(|id, _| ids.contains(id));
        self.programs.retain(ids);
    }

    /// What a session did in sum, when it has ended; then nothing is known of it any more.
    pub(super) fn end(&mut self, id: Id, now: u64) -> Value {
        let session = self.sessions.remove(&id).unwrap_or_default();
        let seconds = session.began.map(|began| now.saturating_sub(began) / 1_000_000_000);
        let Counts { executed, denied, would_be_denied, held, granted, entered } = session.counts;
        json!({
            "seconds": seconds, "executed": executed, "denied": denied, "would_be_denied": would_be_denied,
            "held": held, "granted": granted, "entered": entered,
        })
    }
}

impl SessionOf for Sessions {
    fn session(&self, id: Id) -> Option<&SessionNote> {
        self.sessions.get(&id).map(|session| &session.note)
    }

    fn program(&self, tgid: u32, started: u64) -> Option<&[u8]> {
        let process = (tgid, started);
        let known = self.programs.known.get(&process).or_else(|| self.of_nobody.known.get(&process));
        known.map(|(_, exe)| &**exe)
    }
}

/// The container that a cgroup is, by the names that container engines give: the digits of its id.
pub(super) fn container(cgroup: &str) -> Option<String> {
    const PREFIXES: [&str; 5] = ["docker-", "libpod-", "cri-containerd-", "crio-", "nerdctl-"];
    let id = |part: &str| {
        let bare = part.strip_suffix(".scope").unwrap_or(part);
        let bare = PREFIXES.iter().find_map(|prefix| bare.strip_prefix(prefix)).unwrap_or(bare);
        let digits =
            bare.len() == 64 && bare.bytes().all(|b| b.is_ascii_digit() || (b'a'..=b'f').contains(&b));
        digits.then(|| bare.to_owned())
    };
    let lxc = |part: &str| part.strip_prefix("lxc.payload.").map(str::to_owned);
    cgroup.rsplit('/').find_map(|part| id(part).or_else(|| lxc(part)))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::event::decode::tests::record;
    use enforcer_common::event::{Header, kind};

    fn note(sessions: &mut Sessions, exe: &[u8], change: impl FnOnce(&mut Header)) {
        let bytes = record(b"/w/x", exe, |h| {
            h.session = [0, 1];
            change(h);
        });
        sessions.note(&Event::try_from(&bytes[..]).expect("a record"));
    }

    #[test]
    fn what_a_session_did_is_summed_up_once_it_has_ended() {
        let mut sessions = Sessions::default();
        assert!(sessions.is_new([0, 1]));
        note(&mut sessions, b"", |h| (h.kind, h.time) = (kind::SESSION_BOUND, 1_000_000_000));
        note(&mut sessions, b"/bin/a", |h| h.kind = kind::EXECUTED);
        (0..3).for_each(|_| note(&mut sessions, b"/bin/a", |_| ()));
        note(&mut sessions, b"/bin/a", |h| h.flags = flag::WOULD);
        note(&mut sessions, b"/bin/a", |h| h.kind = kind::HELD);
        note(&mut sessions, b"/bin/a", |h| h.verdict = Verdict::Allow as u16);
        let sum = sessions.end([0, 1], 61_500_000_000);
        let expected = json!({"seconds": 60, "executed": 1, "denied": 3, "would_be_denied": 1, "held": 1,
            "granted": 1, "entered": 0});
        assert_eq!(sum, expected);
        assert_eq!(sessions.end([0, 1], 0)["seconds"], Value::Null);
    }

    #[test]
    fn programs_are_known_by_process_and_start() {
        let mut sessions = Sessions::default();
        note(&mut sessions, b"/bin/a", |h| (h.tgid, h.started) = (7, 1));
        note(&mut sessions, b"/bin/b", |h| (h.kind, h.tgid, h.started) = (kind::EXECUTED, 7, 1));
        // A denial later does not change what was executed.
        note(&mut sessions, b"/bin/c", |h| (h.tgid, h.started) = (7, 1));
        assert_eq!(sessions.program(7, 1), Some(&b"/bin/b"[..]));
        assert_eq!(sessions.program(7, 2), None);
        for n in 0..PROCESSES as u32 {
            note(&mut sessions, b"/bin/x", |h| (h.tgid, h.started) = (100 + n, 1));
        }
        assert_eq!((sessions.program(7, 1), sessions.programs.known.len()), (None, PROCESSES));
    }

    #[test]
    fn programs_go_with_their_session_and_those_of_nobody_are_few() {
        let mut sessions = Sessions::default();
        note(&mut sessions, b"/bin/a", |h| (h.tgid, h.started) = (7, 1));
        note(&mut sessions, b"/bin/b", |h| (h.session, h.tgid, h.started) = ([0, 2], 8, 1));
        for n in 0..=OF_NOBODY as u32 {
            note(&mut sessions, b"/bin/c", |h| (h.session, h.tgid, h.started) = (NOBODY, 100 + n, 1));
        }
        assert_eq!((sessions.program(100, 1), sessions.program(101, 1)), (None, Some(&b"/bin/c"[..])));
        // What came late has brought nothing back, either.
        sessions.end([0, 1], 0);
        note(&mut sessions, b"/bin/a", |h| (h.tgid, h.started) = (7, 1));
        sessions.retain(&HashSet::from([[0, 2]]));
        assert_eq!((sessions.program(7, 1), sessions.program(8, 1)), (None, Some(&b"/bin/b"[..])));
        assert_eq!((sessions.programs.known.len(), sessions.programs.order.len()), (1, 1));
        assert!(sessions.is_new([0, 1]) && !sessions.is_new([0, 2]));
    }

    #[test]
    fn containers_are_recognised_by_what_engines_call_them() {
        let id = "0123456789abcdef".repeat(4);
        for path in [
            format!("/system.slice/docker-{id}.scope"),
            format!("/kubepods.slice/kubepods-pod1.slice/cri-containerd-{id}.scope"),
            format!("/kubepods/burstable/pod1/{id}"),
            format!("/machine.slice/libpod-{id}.scope/container"),
        ] {
            assert_eq!(container(&path).as_deref(), Some(&*id), "{path}");
        }
        assert_eq!(container("/lxc.payload.web/init").as_deref(), Some("web"));
        assert_eq!(container("/agents.slice/session-bot-0123456789abcdef"), None);
    }
}
