//! A thread waits: news of the kernel about a request.

use super::{Action, Entry, KernelAct, Queue, State, about, record};
use crate::approvals::{
    hold::{HoldId, Now, SECOND, SessionKey, Waiter},
    request::Request,
};

/// A record of the kernel: somebody waits, or was refused until somebody has decided.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Ask {
    /// What for, as the kernel calls it.
    pub id: HoldId,
    /// Boot time of the record.
    pub at: u64,
    /// Whose session it is.
    pub session: SessionKey,
    /// Who waits.
    pub waiter: Waiter,
    /// Whether it waits inside the call.
    pub waits: bool,
    /// Seconds that the request is open, where the rule says so.
    pub timeout: Option<u64>,
}

impl Queue {
    /// Takes such a record. `make` looks around for what a request needs, with its end in seconds since 1970; it is
    /// called for new requests only.
    pub fn ask(&mut self, now: Now, ask: &Ask, make: impl FnOnce(i64) -> Request) -> Vec<Action> {
        let id = ask.id;
        self.strange.remove(&id);
        if let Some(entry) = self.kept.entry_mut(id) {
            match entry.state {
                // The same question again: one answer is for all who ask.
                State::Pending => {
                    entry.asked += 1;
                    return Vec::new();
                }
                // The record was made before the answer.
                State::Granted { at, .. } | State::Refused { at, .. } if ask.at <= at => {
                    return vec![Action::Kernel(KernelAct::Wake(ask.waiter))];
                }
                // What was decided is used up or over.
                State::Granted { .. } | State::Refused { .. } => {}
            }
        }
        let seconds = ask.timeout.unwrap_or(self.limits.timeout);
        let request = make(now.wall.saturating_add(i64::try_from(seconds).unwrap_or(i64::MAX)));
        let agent = request.who.agent.clone();
        self.stirred.insert(agent.clone());
        let mut entry = Entry {
            request,
            session: ask.session,
            asked_at: ask.at,
            deadline: now.boot.saturating_add(seconds.saturating_mul(SECOND)),
            waits: ask.waits,
            asked: 1,
            state: State::Pending,
            approvals: Vec::new(),
        };
        let silent = self.is_silenced(&agent, now);
        let mut actions = Vec::new();
        if silent || self.waiting(&agent) >= self.limits.per_agent {
            let because = match silent {
                true => "the agent is not listened to for a while".to_owned(),
                false => format!("{} requests of the agent wait already", self.limits.per_agent),
            };
            let until = now.boot.saturating_add(self.limits.refusal * SECOND);
            entry.state = State::Refused { at: now.boot, until };
            actions.push(record("approval-refused", id, &entry.request, &because));
            self.insert(id, entry);
            actions.push(Action::Persist);
            actions.push(Action::Kernel(KernelAct::Refuse(id, until)));
            actions.push(Action::Kernel(KernelAct::Wake(ask.waiter)));
        } else {
            let mut fields = about(id, &entry.request);
            fields.insert("text".to_owned(), entry.request.text().into());
            actions.push(Action::Record("approval-requested", fields.into()));
            let (deadline, waits) = (entry.deadline, entry.waits);
            self.insert(id, entry);
            actions.push(Action::Persist);
            actions.push(Action::Kernel(KernelAct::Open(id, deadline, waits)));
            if !waits {
                // It stopped before anybody could say that it need not; it is refused now and comes again.
                actions.push(Action::Kernel(KernelAct::Wake(ask.waiter)));
            }
            actions.push(Action::Announce(id));
        }
        actions.extend(self.quotas(now));
        actions
    }
}
