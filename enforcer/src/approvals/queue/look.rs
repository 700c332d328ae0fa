//! A look at the kernel's tables: what is over, what has gone, what should not be.

use super::{Action, Entry, GRACE, KernelAct, Queue, State, record};
use crate::approvals::hold::{Hold, HoldId, HoldState, Now, SECOND, SessionKey, Waiter};
use std::collections::{BTreeMap, BTreeSet};

/// A session that exists.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct SessionInfo {
    /// Its place.
    pub key: SessionKey,
    /// Its id as people see it.
    pub id: String,
    /// Its agent.
    pub agent: String,
}

/// What the kernel's tables have.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Seen {
    /// The holds.
    pub holds: Vec<Hold>,
    /// The threads that wait.
    pub waiters: Vec<Waiter>,
    /// The sessions.
    pub sessions: Vec<SessionInfo>,
}

impl Queue {
    /// Compares the queue with the kernel's tables. Also brings together what an earlier daemon has kept with what is
    /// there now: a request stays open or is refused, and nothing becomes a grant here.
    pub fn look(&mut self, now: Now, seen: &Seen) -> Vec<Action> {
        let holds: BTreeMap<HoldId, HoldState> =
            seen.holds.iter().map(|hold| (hold.id, hold.state)).collect();
        let waited: BTreeSet<HoldId> = seen.waiters.iter().map(|waiter| waiter.id).collect();
        let mut actions = self.take_sessions(seen);
        let ids: Vec<HoldId> = self.kept.entries.keys().copied().collect();
        for id in ids {
            let Some(entry) = self.entry(id) else { continue };
            let alive = self.sessions.iter().any(|session| session.key == entry.session);
            let kernel = holds.get(&id).copied();
            let further = match entry.state {
                State::Pending => self.look_at_pending(now, id, kernel, alive, waited.contains(&id)),
                State::Granted { until, .. } | State::Refused { until, .. } => {
                    self.look_at_decided(now, id, kernel, alive && now.boot < until)
                }
            };
            actions.extend(further);
        }
        actions.extend(self.look_at_strange(now, seen));
        // What was decided while somebody waited, and what a lost wake-up has left.
        let mut woken = BTreeSet::new();
        for waiter in &seen.waiters {
            let decided = match self.entry(waiter.id) {
                Some(entry) => entry.state != State::Pending,
                None => {
                    !self.strange.contains_key(&waiter.id)
                        && holds.get(&waiter.id) != Some(&HoldState::Pending)
                }
            };
            if decided && woken.insert((waiter.tgid, waiter.started)) {
                actions.push(Action::Kernel(KernelAct::Wake(*waiter)));
            }
        }
        let over: Vec<String> = self
            .kept
            .meters
            .iter()
            .filter(|(_, m)| m.silent_until != 0 && now.boot >= m.silent_until)
            .map(|(a, _)| a.clone())
            .collect();
        for agent in over {
            self.kept.meters.remove(&agent);
            self.stirred.insert(agent);
        }
        actions.extend(self.quotas(now));
        actions
    }

    fn take_sessions(&mut self, seen: &Seen) -> Vec<Action> {
        let new = seen.sessions.iter().filter(|session| !self.sessions.contains(session));
        self.stirred.extend(new.map(|session| session.agent.clone()));
        self.sessions.clone_from(&seen.sessions);
        let before = self.kept.launches.len();
        self.kept.launches.retain(|id, _| seen.sessions.iter().any(|session| session.id == *id));
        if self.kept.launches.len() == before { Vec::new() } else { vec![Action::Persist] }
    }

    fn look_at_pending(
        &mut self,
        now: Now,
        id: HoldId,
        kernel: Option<HoldState>,
        alive: bool,
        waited: bool,
    ) -> Vec<Action> {
        let Some(entry) = self.entry(id) else { return Vec::new() };
        let old = now.boot.saturating_sub(entry.asked_at) > GRACE;
        let withdrawn = match kernel {
            _ if !alive && old => Some("its session has ended"),
            None if old => Some("the kernel knows nothing of it"),
            Some(HoldState::Pending) if entry.waits && !waited && old => Some("nobody waits for it any more"),
            _ => None,
        };
        if kernel == Some(HoldState::Granted) {
            // A grant that was never recorded as a decision of a person: it ends here.
            return self.refuse(now, id, "approval-void", "the kernel had a grant that nobody has recorded");
        }
        if now.boot >= entry.deadline || kernel == Some(HoldState::Over) {
            let agent = entry.request.who.agent.clone();
            let mut actions = self.refuse(now, id, "approval-timed-out", "nobody decided in time");
            // What is open until now is over, and the kernel says that it timed out.
            actions.pop();
            actions.push(Action::Kernel(KernelAct::Open(id, now.boot, false)));
            actions.extend(self.strike(&agent, now));
            return actions;
        }
        if kernel == Some(HoldState::Refused) {
            return self.refuse(now, id, "approval-refused", "the kernel refuses it already");
        }
        let Some(because) = withdrawn else { return Vec::new() };
        let Some(entry) = self.remove(id) else { return Vec::new() };
        self.stirred.insert(entry.request.who.agent.clone());
        let said = record("approval-withdrawn", id, &entry.request, because);
        vec![said, Action::Persist, Action::Kernel(KernelAct::Forget(id))]
    }

    /// A decision that is over, or of which the kernel knows something else, is forgotten.
    fn look_at_decided(
        &mut self,
        now: Now,
        id: HoldId,
        kernel: Option<HoldState>,
        counts: bool,
    ) -> Vec<Action> {
        let Some(Entry { state, .. }) = self.entry(id) else { return Vec::new() };
        let granted = matches!(state, State::Granted { .. });
        let fits = match kernel {
            Some(HoldState::Granted) => granted,
            Some(HoldState::Refused | HoldState::Over) => !granted,
            Some(HoldState::Pending) | None => false,
        };
        if counts && fits {
            return Vec::new();
        }
        if counts && kernel == Some(HoldState::Pending) && !granted {
            // The kernel has not taken the refusal.
            let State::Refused { until, .. } = *state else { return Vec::new() };
            return vec![Action::Kernel(KernelAct::Refuse(id, until))];
        }
        if kernel == Some(HoldState::Granted) && !granted {
            return self.refuse(now, id, "approval-void", "the kernel had a grant for what was refused");
        }
        let Some(entry) = self.remove(id) else { return Vec::new() };
        let mut actions = Vec::new();
        if granted {
            actions.push(record("approval-ended", id, &entry.request, "it is used up or over"));
        }
        actions.push(Action::Persist);
        // What is asked again meanwhile stays.
        if matches!(kernel, Some(HoldState::Granted | HoldState::Refused | HoldState::Over)) {
            actions.push(Action::Kernel(KernelAct::Forget(id)));
        }
        actions
    }

    fn refuse(&mut self, now: Now, id: HoldId, kind: &'static str, because: &str) -> Vec<Action> {
        let until = now.boot.saturating_add(self.limits.refusal * SECOND);
        let Some(entry) = self.kept.entry_mut(id) else { return Vec::new() };
        entry.state = State::Refused { at: now.boot, until };
        self.stirred.insert(entry.request.who.agent.clone());
        let said = record(kind, id, &entry.request, because);
        vec![said, Action::Persist, Action::Kernel(KernelAct::Refuse(id, until))]
    }

    /// Holds whose record never came, or whose decision was not kept: nobody can be asked about them, so they are
    /// refused; a grant among them at once.
    fn look_at_strange(&mut self, now: Now, seen: &Seen) -> Vec<Action> {
        let mut actions = Vec::new();
        let mut strange = BTreeMap::new();
        for hold in seen.holds.iter().filter(|hold| !self.kept.entries.contains_key(&hold.id)) {
            let since = self.strange.get(&hold.id).copied().unwrap_or(now.boot);
            let due = match hold.state {
                HoldState::Granted => true,
                HoldState::Pending => now.boot.saturating_sub(since) > GRACE,
                HoldState::Refused | HoldState::Over => false,
            };
            if hold.state == HoldState::Over {
                actions.push(Action::Kernel(KernelAct::Forget(hold.id)));
            } else if due {
                let until = now.boot.saturating_add(self.limits.refusal * SECOND);
                let because = match hold.state {
                    HoldState::Granted => "the kernel had a grant that nobody has recorded",
                    _ => "what was asked for is not known",
                };
                actions.push(Action::Record(
                    "approval-void",
                    serde_json::json!({"hold": hold.id.to_string(), "because": because}),
                ));
                actions.push(Action::Kernel(KernelAct::Refuse(hold.id, until)));
                let waiters = seen.waiters.iter().filter(|waiter| waiter.id == hold.id);
                actions.extend(waiters.map(|waiter| Action::Kernel(KernelAct::Wake(*waiter))));
            } else if hold.state == HoldState::Pending {
                strange.insert(hold.id, since);
            }
        }
        self.strange = strange;
        actions
    }
}
