//! What sessions may ask about themselves, at a socket of their own: who they are, why they were refused, and to say
//! why they want what waits. Nothing else, and nothing about anybody else.

use crate::event::why::Why;
use serde::{Deserialize, Serialize};
use std::path::{Path, PathBuf};

/// The longest question.
pub const REQUEST: usize = 4 * 1024;
/// The longest answer.
pub const REPLY: usize = 1 << 18;
/// The longest justification, in characters.
pub const JUSTIFICATION: usize = 500;

/// Where the sessions' socket is: beside the operators'.
pub fn agent_socket(control: &Path) -> PathBuf {
    control.with_file_name("agent.sock")
}

/// What a process of a session asks.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(tag = "request", rename_all = "kebab-case", deny_unknown_fields)]
pub enum AgentRequest {
    /// Whose session it is.
    Who,
    /// What was refused to the session last, and what waits.
    Why,
    /// Why the session wants what waits, in its own words. Whoever decides sees them as such; they count once.
    Justify {
        /// Which request, by the beginning of its id; without it the only one that there is.
        hold: Option<String>,
        /// The words.
        text: String,
    },
}

/// What the daemon answers.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(tag = "reply", rename_all = "kebab-case")]
pub enum AgentReply {
    /// To [`AgentRequest::Who`].
    Who(Who),
    /// To [`AgentRequest::Why`].
    Why {
        /// The last refusals, the newest first.
        refusals: Vec<Why>,
        /// What waits for a person.
        waiting: Vec<Waits>,
    },
    /// To [`AgentRequest::Justify`].
    Justified {
        /// The request.
        hold: String,
    },
    /// It did not work.
    Failed {
        /// The exit code that the client should end with.
        exit: u8,
        /// What happened.
        message: String,
        /// What to do about it.
        remedy: String,
    },
}

/// Who a session is.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Who {
    /// The agent.
    pub agent: String,
    /// Who answers for it.
    pub owner: String,
    /// What it is for.
    pub purpose: String,
    /// The session's id.
    pub session: String,
    /// What the session is for, as whoever launched it has said.
    pub task: Option<String>,
    /// The policy's version.
    pub policy_version: u64,
    /// SHA-256 of the canonical policy.
    pub policy_digest: String,
    /// `enforce` or `audit`.
    pub mode: String,
    /// The level of trust in force.
    pub trust: String,
}

/// A request of the session that nobody has answered.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Waits {
    /// Its id.
    pub hold: String,
    /// What is asked for, in words.
    pub act: String,
    /// Until when it can be answered, in seconds since 1970.
    pub deadline: i64,
    /// The session has said why.
    pub justified: bool,
}
