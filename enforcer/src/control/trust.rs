//! Questions and answers about agents' trust.

use super::{message::Reply, peer::Peer};
use crate::{cli::exit::Failure, daemon::core::Core, trust::table::Row};
use serde::{Deserialize, Serialize};

/// How far an agent is trusted.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct TrustStatus {
    /// The agent.
    pub agent: String,
    /// The most that its policy lets it have.
    pub ceiling: String,
    /// The level that was last stated; probation where nothing was, or where it cannot be read.
    pub stated: String,
    /// The lower of the two.
    pub in_force: String,
    /// What tiers become at the level in force.
    pub tiers: Row,
    /// This host's id, which statements name.
    pub host: String,
    /// What the next statement follows: SHA-256, hexadecimal.
    pub follows: String,
    /// How many statements there were.
    pub statements: u64,
    /// When the last one came into force; RFC 3339.
    pub since: Option<String>,
    /// Who has made it.
    pub by: Option<String>,
    /// Its reason.
    pub reason: Option<String>,
}

/// What a statement did.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct TrustChanged {
    /// The agent.
    pub agent: String,
    /// The level that was stated.
    pub stated: String,
    /// The most that its policy lets it have.
    pub ceiling: String,
    /// The level in force now.
    pub in_force: String,
    /// What did not work although the change counts.
    pub problems: Vec<String>,
}

/// A person changes an agent's level.
pub fn change(
    core: &mut Core,
    peer: &Peer,
    statement: &str,
    signature: Option<&str>,
) -> Result<Reply, Failure> {
    let changed = core.change_trust(statement, signature, peer)?;
    Ok(Reply::TrustChanged(TrustChanged {
        agent: changed.agent,
        stated: changed.stated.name().to_owned(),
        ceiling: changed.ceiling.name().to_owned(),
        in_force: changed.in_force.name().to_owned(),
        problems: changed.problems,
    }))
}
