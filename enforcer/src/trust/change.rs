//! In which order a change of trust takes effect: recorded, kept, then active. What takes trust away does not wait
//! for a log or a disk that fails; what gives some does not happen then.

use super::{
    book::{Book, Kept},
    statement::{NAMESPACE, Statement},
};
use crate::{
    approvals::{
        approver::Approvers,
        error::DecisionError,
        signature::{LocalPeer, identify_in},
    },
    policy::Trust,
};
use serde_json::{Value, json};

/// Whatever has effects.
pub trait World {
    /// Seconds since 1970.
    fn now(&self) -> i64;
    /// The ceiling of an agent's policy; `None` where it has none.
    fn ceiling(&self, agent: &str) -> Option<Trust>;
    /// Writes a record.
    fn record(&mut self, kind: &'static str, fields: Value);
    /// Writes a record so that it stays, or says why not.
    fn record_surely(&mut self, kind: &'static str, fields: Value) -> Result<(), String>;
    /// Keeps a statement on the disk.
    fn keep(&mut self, agent: &str, kept: &Kept) -> Result<(), String>;
    /// Gives the agent's sessions the level, those that run too.
    fn activate(&mut self, agent: &str, level: Trust) -> Result<(), String>;
}

/// What a statement did.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Changed {
    /// The agent.
    pub agent: String,
    /// The level that was stated.
    pub stated: Trust,
    /// The ceiling of the agent's policy.
    pub ceiling: Trust,
    /// The level in force.
    pub in_force: Trust,
    /// What did not work although the change counts.
    pub problems: Vec<String>,
}

/// A person changes an agent's level, from the text to the kernel.
pub fn change(
    world: &mut dyn World,
    book: &mut Book,
    (text, signature): (&str, Option<&str>),
    peer: &LocalPeer,
    approvers: &Approvers,
) -> Result<Changed, DecisionError> {
    let statement = Statement::parse(text)?;
    let identity = identify_in(NAMESPACE, text, &statement.approver, signature, peer, approvers)?;
    let ceiling = world.ceiling(&statement.agent);
    let change = book.propose(world.now(), &statement, (&identity, signature), ceiling)?;
    let ceiling = ceiling.unwrap_or_default();
    let (agent, restricts, is) = (statement.agent.clone(), change.restricts(), change.is);
    let mut problems = Vec::new();
    if let Err(why) = world.record_surely("trust-changed", change.record(ceiling)) {
        if !restricts {
            return Err(DecisionError::Unrecorded(why));
        }
        problems.push(format!("the change could not be recorded: {why}"));
    }
    if let Err(why) = world.keep(&agent, &change.kept) {
        let because = format!("the statement could not be kept: {why}");
        if !restricts {
            world.record("trust-void", json!({"agent": agent, "statement": text, "because": because}));
            return Err(DecisionError::Unrecorded(because));
        }
        problems.push(format!("{because}; the earlier level comes back when the daemon starts again"));
    }
    book.enter(change);
    if let Err(why) = world.activate(&agent, is) {
        problems.push(format!("sessions that run may still have the earlier level: {why}"));
    }
    if !problems.is_empty() {
        world.record("trust-problems", json!({"agent": agent, "problems": problems}));
    }
    Ok(Changed { agent, stated: statement.after, ceiling, in_force: is, problems })
}
