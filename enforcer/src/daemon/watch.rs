//! Sessions whose refusals somebody waits for: the canary's, and those whose command could not be executed.

use super::core::Shared;
use crate::event::decode::{Event, Kind};
use enforcer_common::{event::Header, limits::DECISION_RING};
use std::collections::HashMap;

/// Refusals that are kept for one session: the first ones tell why it failed.
const MOST: usize = 8;
/// More records cannot wait in the rings at one time.
pub const ALL: usize = DECISION_RING as usize / size_of::<Header>();

/// What the kernel refused to a session.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Refusal {
    /// Place of the agent.
    pub agent: u32,
    /// Number of the policy.
    pub policy: u32,
    /// The operation's name.
    pub operation: String,
    /// The object's bytes.
    pub object: Vec<u8>,
}

/// The sessions, and what was refused to them since somebody watches.
#[derive(Debug, Default)]
pub struct Watched {
    sessions: HashMap<[u64; 2], Vec<Refusal>>,
}

impl Watched {
    /// Begins to watch a session.
    pub fn watch(&mut self, session: [u64; 2]) {
        self.sessions.insert(session, Vec::new());
    }

    /// Looks at a record.
    pub fn note(&mut self, event: &Event<'_>) {
        // What an audited policy only would refuse has no error.
        if self.sessions.is_empty() || event.kind != Kind::Decision || event.header.error == 0 {
            return;
        }
        if let Some(known) = self.sessions.get_mut(&event.header.session)
            && known.len() < MOST
        {
            known.push(Refusal {
                agent: event.header.agent,
                policy: event.header.policy,
                operation: event.operation().into_owned(),
                object: event.object.to_vec(),
            });
        }
    }

    /// What was refused so far.
    pub fn refusals(&self, session: [u64; 2]) -> &[Refusal] {
        self.sessions.get(&session).map(Vec::as_slice).unwrap_or_default()
    }

    /// Ends watching.
    pub fn take(&mut self, session: [u64; 2]) -> Vec<Refusal> {
        self.sessions.remove(&session).unwrap_or_default()
    }
}

/// Takes records until a refusal of the session has come, or everything that waited when this was called:
/// the kernel has handed a record over before the refused call returns.
pub async fn catch_up(core: &Shared, session: [u64; 2]) {
    let mut taken = 0;
    loop {
        let drained = core.borrow_mut().drain();
        taken += drained.records;
        if !drained.more || taken > 2 * ALL || !core.borrow().watched.refusals(session).is_empty() {
            return;
        }
        tokio::task::yield_now().await;
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::event::decode::tests::record;

    #[test]
    fn only_refusals_of_watched_sessions_are_kept_and_only_the_first() {
        let mut watched = Watched::default();
        let see = |watched: &mut Watched, session: [u64; 2], error: i32| {
            let bytes =
                record(b"/x", b"", |h| (h.session, h.error, h.agent, h.policy) = (session, error, 3, 9));
            watched.note(&Event::try_from(&bytes[..]).expect("a record"));
        };
        see(&mut watched, [1, 1], -1);
        watched.watch([1, 1]);
        see(&mut watched, [1, 1], 0);
        see(&mut watched, [1, 2], -1);
        assert_eq!(watched.refusals([1, 1]), []);
        (0..20).for_each(|_| see(&mut watched, [1, 1], -1));
        let refusal = Refusal { agent: 3, policy: 9, operation: "open".to_owned(), object: b"/x".to_vec() };
        assert_eq!(watched.refusals([1, 1])[0], refusal);
        assert_eq!(watched.take([1, 1]).len(), MOST);
        assert_eq!(watched.take([1, 1]), []);
    }
}
