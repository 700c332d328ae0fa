//! A person decides. First everything is checked and nothing changes; then the record is written; then, if it is not
//! too late by now, the decision counts.

use super::{Action, Approval, KernelAct, Queue, State, record};
use crate::{
    approvals::{
        error::DecisionError,
        hold::{HoldId, Now, SECOND, Waiter},
        request::tier_name,
        shape::Shape,
        signature::Identity,
        statement::{Statement, Verdict},
    },
    event::text::hex,
};
use serde_json::{Value, json};

/// A decision that may be recorded. It counts only if it is committed after that.
#[must_use]
#[derive(Clone, Debug, PartialEq)]
pub struct Proposal {
    /// What becomes of each request.
    pub outcomes: Vec<(HoldId, Outcome)>,
    /// The record that must be written first.
    pub record: Value,
}

/// What a decision makes of a request.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Outcome {
    /// It goes on.
    Approved(Shape),
    /// The first of two persons has approved.
    First(Approval),
    /// It is refused.
    Denied,
}

impl Queue {
    /// Whether a statement counts, and what it makes of its requests. All of them, or none.
    pub fn propose(
        &self,
        now: Now,
        statement: &Statement,
        identity: &Identity<'_>,
        signature: Option<&str>,
    ) -> Result<Proposal, DecisionError> {
        if statement.valid_until <= now.wall {
            return Err(DecisionError::Expired(statement.valid_until));
        }
        let outcomes = statement.requests.iter().map(|digest| {
            let id = self.digests.get(digest).ok_or_else(|| DecisionError::UnknownRequest(hex(digest)))?;
            Ok((*id, self.outcome(now, *id, statement.verdict, identity)?))
        });
        let outcomes = outcomes.collect::<Result<Vec<_>, DecisionError>>()?;
        let requests = outcomes.iter().map(|(id, outcome)| {
            let entry = self.entry(*id);
            let mut fields = entry.map(|e| super::about(*id, &e.request)).unwrap_or_default();
            let word = match outcome {
                Outcome::Approved(shape) => format!("approved {shape}"),
                Outcome::First(_) => "approved by the first of two persons".to_owned(),
                Outcome::Denied => "denied".to_owned(),
            };
            fields.insert("outcome".to_owned(), word.into());
            Value::Object(fields)
        });
        let record = json!({
            "by": identity.record(), "reason": crate::event::text::escape(statement.reason.as_bytes()),
            "requests": requests.collect::<Value>(), "statement": statement.text(), "signature": signature,
        });
        Ok(Proposal { outcomes, record })
    }

    fn outcome(
        &self,
        now: Now,
        id: HoldId,
        verdict: Verdict,
        identity: &Identity<'_>,
    ) -> Result<Outcome, DecisionError> {
        let Some(entry) = self.entry(id) else {
            return Err(DecisionError::UnknownRequest(id.to_string()));
        };
        let (agent, tier) = (&entry.request.who.agent, entry.request.why.tier);
        if entry.state != State::Pending {
            return Err(DecisionError::Decided(id.to_string()));
        }
        if now.boot >= entry.deadline {
            return Err(DecisionError::Late { id: id.to_string(), deadline: entry.request.deadline });
        }
        if let Identity::Approver { approver, .. } = identity
            && !approver.decides(agent, tier)
        {
            let name = approver.name.clone();
            return Err(DecisionError::Scope { name, agent: agent.clone(), tier: tier_name(tier) });
        }
        let Verdict::Approve(shape) = verdict else { return Ok(Outcome::Denied) };
        if let Some(why) = shape.excess(tier, now.wall) {
            return Err(DecisionError::Shape { shape: shape.to_string(), tier: tier_name(tier), why });
        }
        if !self.needs_two(agent, tier) {
            return Ok(Outcome::Approved(shape));
        }
        let Identity::Approver { approver, .. } = identity else { return Err(DecisionError::TwoPersons) };
        let same = |known: &&Approval| known.name == approver.name || known.person == approver.person;
        if entry.approvals.iter().any(|known| same(&known)) {
            return Err(DecisionError::SamePerson(approver.person.clone()));
        }
        match entry.approvals.first() {
            None => {
                let (name, person) = (approver.name.clone(), approver.person.clone());
                Ok(Outcome::First(Approval { name, person, shape }))
            }
            Some(first) if first.shape != shape => {
                let (first, second) = (first.shape.to_string(), shape.to_string());
                Err(DecisionError::OtherShape { first, second })
            }
            Some(_) => Ok(Outcome::Approved(shape)),
        }
    }

    /// Makes a recorded decision count, except for requests whose time is over by now. `waiters` are those that wait.
    /// The first action is to keep the queue: until that is done, nothing else may be.
    pub fn commit(&mut self, now: Now, proposal: Proposal, waiters: &[Waiter]) -> Vec<Action> {
        let mut actions = vec![Action::Persist];
        for (id, outcome) in proposal.outcomes {
            let Some(entry) = self.kept.entry_mut(id) else { continue };
            if entry.state != State::Pending || now.boot >= entry.deadline {
                actions.push(record(
                    "approval-void",
                    id,
                    &entry.request,
                    "it was over before the decision was recorded",
                ));
                continue;
            }
            let agent = entry.request.who.agent.clone();
            self.stirred.insert(agent.clone());
            match outcome {
                Outcome::First(approval) => {
                    entry.approvals.push(approval);
                    continue;
                }
                Outcome::Approved(shape) => {
                    let until = shape.ends(now.wall).map_or(u64::MAX, |end| now.boot_at(end));
                    entry.state = State::Granted { at: now.boot, until };
                    actions.push(Action::Kernel(KernelAct::Grant(id, shape.uses(), until)));
                    self.kept.meters.remove(&agent);
                }
                Outcome::Denied => {
                    let until = now.boot.saturating_add(self.limits.refusal * SECOND);
                    entry.state = State::Refused { at: now.boot, until };
                    actions.push(Action::Kernel(KernelAct::Refuse(id, until)));
                    actions.extend(self.strike(&agent, now));
                }
            }
            let own = waiters.iter().filter(|waiter| waiter.id == id);
            actions.extend(own.map(|waiter| Action::Kernel(KernelAct::Wake(*waiter))));
        }
        actions.extend(self.quotas(now));
        actions
    }

    /// The kernel did not take a grant: what was approved had ended, or it could not be written.
    pub fn not_granted(&mut self, now: Now, id: HoldId, because: &str) -> Vec<Action> {
        let Some(entry) = self.kept.entry_mut(id) else { return Vec::new() };
        let until = now.boot.saturating_add(self.limits.refusal * SECOND);
        entry.state = State::Refused { at: now.boot, until };
        let said = record("approval-void", id, &entry.request, because);
        vec![said, Action::Persist, Action::Kernel(KernelAct::Refuse(id, until))]
    }
}
