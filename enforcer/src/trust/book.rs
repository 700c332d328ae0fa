//! The last statement about each agent, and whether another one may follow it.

use super::statement::Statement;
use crate::{
    approvals::{
        canonical::{Digest, Lines, digest},
        error::DecisionError,
        signature::Identity,
    },
    event::text::hex,
    policy::Trust,
};
use serde::{Deserialize, Serialize};
use serde_json::{Value, json};
use std::collections::BTreeMap;

/// How far a statement's clock may be ahead of this host's, in seconds.
const AHEAD: i64 = 300;

/// A statement that counts, as it is kept.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Kept {
    /// The text.
    pub statement: String,
    /// Its signature; none where the local operator has stated it.
    pub signature: Option<String>,
    /// Who has stated it, as records say it.
    pub by: Value,
    /// When it came into force, in seconds since 1970.
    pub since: i64,
    /// The how manieth about this agent it is.
    pub number: u64,
}

/// What is known of an agent.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Standing {
    /// Something was stated.
    Stated(Box<Statement>, Kept),
    /// What was stated cannot be read: the agent is on probation.
    Damaged(String),
}

impl Standing {
    /// What a file of the store says about an agent; whatever is not exactly as it was written is damaged.
    pub fn of(host: &str, agent: &str, kept: Result<Kept, String>) -> Self {
        let read = kept.and_then(|kept| {
            let statement = Statement::parse(&kept.statement).map_err(|e| e.to_string())?;
            match statement.agent == agent && statement.host == host {
                true => Ok(Self::Stated(Box::new(statement), kept)),
                false => Err(format!("it is about {} on host {}", statement.agent, statement.host)),
            }
        });
        read.unwrap_or_else(Self::Damaged)
    }
}

/// The last statements. Agents without an entry are on probation.
#[derive(Clone, Debug)]
pub struct Book {
    host: String,
    /// Random, made with the store: what the first statement about an agent follows.
    origin: Digest,
    /// Random, made with the daemon: what a statement about an agent follows whose last one is damaged.
    fresh: Digest,
    entries: BTreeMap<String, Standing>,
    problem: Option<String>,
}

/// A change that may be made: it is in force when [`Book::enter`] has taken it.
#[must_use]
#[derive(Clone, Debug)]
pub struct Change {
    /// What was stated.
    pub statement: Statement,
    /// What is to be kept.
    pub kept: Kept,
    /// The level in force until now.
    pub was: Trust,
    /// The level in force from now on.
    pub is: Trust,
}

impl Change {
    /// Whether it takes something away, or nothing: that never waits for the log or the disk.
    pub fn restricts(&self) -> bool {
        self.statement.after <= self.statement.before
    }

    /// The record.
    pub fn record(&self, ceiling: Trust) -> Value {
        let Self { statement, kept, was, is } = self;
        json!({
            "agent": statement.agent, "before": statement.before.name(), "after": statement.after.name(),
            "ceiling": ceiling.name(), "in_force_before": was.name(), "in_force": is.name(),
            "because": statement.reason, "by": kept.by, "number": kept.number,
            "follows": hex(&statement.follows), "statement": kept.statement, "signature": kept.signature,
        })
    }
}

impl Book {
    /// A book with what was kept.
    pub fn new(
        host: String,
        (origin, fresh): (Digest, Digest),
        entries: BTreeMap<String, Standing>,
        problem: Option<String>,
    ) -> Self {
        Self { host, origin, fresh, entries, problem }
    }

    /// This host's id.
    pub fn host(&self) -> &str {
        &self.host
    }

    /// The level that was last stated.
    pub fn stated(&self, agent: &str) -> Trust {
        match self.entries.get(agent) {
            Some(Standing::Stated(statement, _)) => statement.after,
            Some(Standing::Damaged(_)) | None => Trust::Probation,
        }
    }

    /// The level in force under a policy's ceiling.
    pub fn in_force(&self, agent: &str, ceiling: Trust) -> Trust {
        self.stated(agent).min(ceiling)
    }

    /// The last statement, if there is one that can be read.
    pub fn last(&self, agent: &str) -> Option<(&Statement, &Kept)> {
        match self.entries.get(agent)? {
            Standing::Stated(statement, kept) => Some((statement, kept)),
            Standing::Damaged(_) => None,
        }
    }

    /// What the next statement about an agent must follow.
    pub fn follows(&self, agent: &str) -> Digest {
        let first = |origin: &Digest| {
            let mut out = Lines::new("enforcer-trust-origin 1");
            out.put("origin", &hex(origin));
            out.put_escaped("agent", agent);
            digest(&out.end())
        };
        match self.entries.get(agent) {
            Some(Standing::Stated(statement, _)) => statement.digest(),
            Some(Standing::Damaged(_)) => first(&self.fresh),
            None => first(&self.origin),
        }
    }

    /// What is wrong with what was kept, in sentences.
    pub fn problems(&self) -> Vec<String> {
        let damaged = self.entries.iter().filter_map(|(agent, standing)| match standing {
            Standing::Damaged(why) => Some(format!(
                "the trust of {agent} cannot be read, so it is on probation: {why}; state it again: enforcer trust set"
            )),
            Standing::Stated(..) => None,
        });
        self.problem.iter().cloned().chain(damaged).collect()
    }

    /// Whether a statement may be the next one. `ceiling` is the policy's, `None` where the agent has none; `now`
    /// in seconds since 1970.
    pub fn propose(
        &self,
        now: i64,
        statement: &Statement,
        (identity, signature): (&Identity<'_>, Option<&str>),
        ceiling: Option<Trust>,
    ) -> Result<Change, DecisionError> {
        let agent = &statement.agent;
        if statement.host != self.host {
            return Err(DecisionError::Host { found: statement.host.clone(), own: self.host.clone() });
        }
        let Some(ceiling) = ceiling else { return Err(DecisionError::UnknownAgent(agent.clone())) };
        if let Identity::Approver { approver, .. } = identity
            && !approver.changes_trust(agent)
        {
            return Err(DecisionError::TrustScope { name: approver.name.clone(), agent: agent.clone() });
        }
        if statement.valid_until < now {
            return Err(DecisionError::Expired(statement.valid_until));
        }
        if statement.made > now + AHEAD {
            return Err(DecisionError::Early(statement.made));
        }
        let (stated, follows) = (self.stated(agent), self.follows(agent));
        if (statement.before, statement.follows) != (stated, follows) {
            return Err(DecisionError::Order {
                agent: agent.clone(),
                found: format!("{} {}", statement.before.name(), hex(&statement.follows)),
                last: format!("{} {}", stated.name(), hex(&follows)),
            });
        }
        if statement.after > stated && statement.after > ceiling {
            return Err(DecisionError::Ceiling {
                agent: agent.clone(),
                after: statement.after.name(),
                ceiling: ceiling.name(),
            });
        }
        let number = self.last(agent).map_or(0, |(_, kept)| kept.number) + 1;
        let kept = Kept {
            statement: statement.text(),
            signature: signature.map(str::to_owned),
            by: identity.record(),
            since: now,
            number,
        };
        let (was, is) = (stated.min(ceiling), statement.after.min(ceiling));
        Ok(Change { statement: statement.clone(), kept, was, is })
    }

    /// A change is in force.
    pub fn enter(&mut self, change: Change) {
        let Change { statement, kept, .. } = change;
        self.entries.insert(statement.agent.clone(), Standing::Stated(Box::new(statement), kept));
    }
}
