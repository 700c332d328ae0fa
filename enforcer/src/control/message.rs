//! What is asked and answered over the control socket.

use super::{
    approvals::{ApprovalStatus, Decision},
    break_glass::BreakGlassStatus,
    trust::{TrustChanged, TrustStatus},
};
use crate::sink::SinkStatus;
use base64::{Engine as _, prelude::BASE64_STANDARD};
use serde::{Deserialize, Deserializer, Serialize, Serializer, de::Error as _};
use std::{ffi::OsString, os::unix::ffi::OsStringExt};

/// Bytes that are usually text: a string in JSON, or `{"base64": "…"}` where they are not UTF-8.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct Bytes(pub Vec<u8>);

#[derive(Serialize, Deserialize)]
#[serde(untagged, deny_unknown_fields)]
enum BytesForm {
    Text(String),
    Encoded { base64: String },
}

impl Serialize for Bytes {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        match std::str::from_utf8(&self.0) {
            Ok(text) => BytesForm::Text(text.to_owned()),
            Err(_) => BytesForm::Encoded { base64: BASE64_STANDARD.encode(&self.0) },
        }
        .serialize(serializer)
    }
}

impl<'de> Deserialize<'de> for Bytes {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        match BytesForm::deserialize(deserializer)? {
            BytesForm::Text(text) => Ok(Self(text.into_bytes())),
            BytesForm::Encoded { base64 } => {
                BASE64_STANDARD.decode(base64).map(Self).map_err(|e| D::Error::custom(e.to_string()))
            }
        }
    }
}

impl From<OsString> for Bytes {
    fn from(text: OsString) -> Self {
        Self(text.into_vec())
    }
}

impl From<&str> for Bytes {
    fn from(text: &str) -> Self {
        Self(text.as_bytes().to_vec())
    }
}

/// What a client asks.
#[derive(Clone, Debug, Serialize, Deserialize)]
#[serde(tag = "request", rename_all = "kebab-case", deny_unknown_fields)]
pub enum Request {
    /// How things are.
    Status,
    /// The agents and their sessions.
    Agents,
    /// Figures for monitoring, as OpenMetrics text.
    Metrics,
    /// Read the policies again.
    Reload,
    /// What waits for a person.
    Approvals,
    /// A person's decision.
    Decide {
        /// The canonical text.
        statement: String,
        /// Its signature, as ssh-keygen writes it; without one the peer itself decides.
        signature: Option<String>,
    },
    /// How far agents are trusted.
    Trust,
    /// A person's statement about an agent's trust.
    ChangeTrust {
        /// The canonical text.
        statement: String,
        /// Its signature, as ssh-keygen writes it; without one the peer itself states it.
        signature: Option<String>,
    },
    /// Lift what policies refuse, for a while.
    BreakGlass {
        /// The agents; none: all that have a policy.
        agents: Vec<String>,
        /// For how long.
        seconds: u64,
        /// Why.
        reason: String,
    },
    /// End that before its time.
    EndBreakGlass {
        /// Its id; without one all that there is.
        id: Option<String>,
    },
    /// Start a command as an agent. The relayed standard input, output and error come beside it.
    Exec(ExecRequest),
    /// Pass a signal to the session that this connection has started.
    Signal {
        /// Its number.
        signal: i32,
    },
}

/// A command to start.
#[derive(Clone, Debug, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct ExecRequest {
    /// Whose policy decides.
    pub agent: String,
    /// The command and its arguments.
    pub command: Vec<Bytes>,
    /// Variables that the session gets beside the usual ones.
    pub environment: Vec<(Bytes, Bytes)>,
    /// The directory to start in; the home directory of the session's user without it.
    pub directory: Option<Bytes>,
    /// What the session is for, in the caller's words; goes into the audit log.
    pub task: Option<String>,
    /// Let the session go on when this connection ends.
    pub detach: bool,
    /// The standard descriptors are a terminal.
    pub terminal: bool,
    /// `TERM` of the caller.
    pub term: Option<String>,
    /// `LANG` of the caller.
    pub lang: Option<String>,
}

/// What the daemon answers.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(tag = "reply", rename_all = "kebab-case")]
pub enum Reply {
    /// To [`Request::Status`].
    Status(Box<Status>),
    /// To [`Request::Agents`].
    Agents {
        /// By name.
        agents: Vec<AgentStatus>,
    },
    /// To [`Request::Metrics`].
    Metrics {
        /// OpenMetrics.
        text: String,
    },
    /// To [`Request::Reload`].
    Reloaded {
        /// Policies that were published or replaced.
        published: Vec<String>,
        /// Agents that lost their policy.
        retired: Vec<String>,
        /// What is wrong.
        problems: Vec<String>,
    },
    /// To [`Request::Approvals`].
    Approvals {
        /// The requests, the oldest first.
        requests: Vec<ApprovalStatus>,
        /// Files of approvers that cannot be used.
        problems: Vec<String>,
    },
    /// To [`Request::Decide`].
    Decided {
        /// What became of each request.
        decisions: Vec<Decision>,
    },
    /// To [`Request::Trust`].
    Trust {
        /// By name.
        agents: Vec<TrustStatus>,
    },
    /// To [`Request::ChangeTrust`].
    TrustChanged(TrustChanged),
    /// To [`Request::BreakGlass`] and [`Request::EndBreakGlass`].
    BreakGlass {
        /// What is in force now.
        in_force: Vec<BreakGlassStatus>,
    },
    /// The command runs.
    Started {
        /// The session's id.
        session: String,
        /// The main process.
        pid: u32,
    },
    /// The command has ended.
    Ended(Ended),
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

/// How a command ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(tag = "how", rename_all = "kebab-case")]
pub enum Ended {
    /// By itself.
    Exited {
        /// Its status.
        status: i32,
    },
    /// By a signal.
    Killed {
        /// Its number.
        signal: i32,
    },
}

/// Whether agents are confined.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum State {
    /// Everything works.
    #[serde(rename = "enforcing")]
    Enforcing,
    /// Agents are confined, but something needs attention.
    #[serde(rename = "degraded")]
    Degraded,
    /// Agents are not, or not certainly, confined.
    #[serde(rename = "NOT ENFORCING")]
    NotEnforcing,
}

impl State {
    /// The word that people read.
    pub fn word(self) -> &'static str {
        match self {
            Self::Enforcing => "enforcing",
            Self::Degraded => "degraded",
            Self::NotEnforcing => "NOT ENFORCING",
        }
    }
}

/// How things are.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Status {
    /// The answer in one word.
    pub state: State,
    /// Everything that needs attention.
    pub problems: Vec<String>,
    /// The daemon's version.
    pub version: String,
    /// The daemon's process id.
    pub pid: u32,
    /// The kernel's release.
    pub kernel: String,
    /// Generation of the kernel programs that decide.
    pub generation: u32,
    /// Cgroups below which agents live.
    pub roots: Vec<String>,
    /// How many agents have a policy.
    pub agents: usize,
    /// How many sessions exist.
    pub sessions: usize,
    /// The kernel's hooks.
    pub hooks: Vec<HookStatus>,
    /// Rare system calls whose programs are still to be attached.
    #[serde(default)]
    pub waiting: Vec<String>,
    /// How full the kernel's tables are.
    pub usage: Vec<UsageStatus>,
    /// The policy files.
    pub policies: Vec<FileStatus>,
    /// When a process without rights was last seen refused; RFC 3339.
    pub canary: Option<String>,
    /// What could not be recorded.
    pub lost: Lost,
    /// Refusals of all agents that were a further check of a system call whose refusal is recorded already.
    #[serde(default)]
    pub folded: u64,
    /// Where what policies refuse is only recorded, for a while.
    #[serde(default)]
    pub break_glass: Vec<BreakGlassStatus>,
    /// The layers that sessions of `enforcer exec` get unless their policy says something else.
    #[serde(default)]
    pub layers: Vec<LayerStatus>,
    /// Why `enforcer exec` gives sessions plain cgroups; `null` where they are scopes of systemd's.
    #[serde(default)]
    pub plain_cgroups: Option<String>,
    /// What delivers records elsewhere.
    #[serde(default)]
    pub sinks: Vec<SinkStatus>,
}

/// What could not be recorded since the daemon started.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Lost {
    /// Decisions that the kernel's ring could not take.
    pub decisions: u64,
    /// Activity records that the kernel's ring could not take.
    pub activity: u64,
    /// Ring records that made no sense.
    pub malformed: u64,
    /// Records that could not be written to the audit log.
    pub unwritten: u64,
}

/// One hook.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct HookStatus {
    /// Its name.
    pub name: String,
    /// Whether there is no enforcement without it.
    pub required: bool,
    /// Whether it is attached.
    pub attached: bool,
    /// Why not.
    #[serde(skip_serializing_if = "String::is_empty", default)]
    pub note: String,
}

/// One table.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct UsageStatus {
    /// Its name.
    pub name: String,
    /// Entries or bytes in use.
    pub used: u64,
    /// Entries or bytes there are.
    pub room: u64,
}

/// One policy file.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct FileStatus {
    /// Where it is.
    pub path: String,
    /// The agent, where that is known.
    pub agent: Option<String>,
    /// Why it is not in force as it stands.
    pub error: Option<String>,
    /// What its author should know.
    #[serde(skip_serializing_if = "Vec::is_empty", default)]
    pub warnings: Vec<String>,
}

/// One agent.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct AgentStatus {
    /// Its name.
    pub name: String,
    /// Who answers for it.
    pub owner: String,
    /// What it is for.
    pub purpose: String,
    /// The policy's version.
    pub version: u64,
    /// SHA-256 of the canonical policy.
    pub digest: String,
    /// `enforce` or `audit`.
    pub mode: String,
    /// The trust level that the policy allows at most.
    pub trust: String,
    /// The level in force: the lower of that and the last statement.
    #[serde(default)]
    pub trust_in_force: String,
    /// The policy's file.
    pub file: String,
    /// Refusals that were a further check of a system call whose refusal is recorded already.
    #[serde(default)]
    pub folded: u64,
    /// What was decided since the daemon started, as far as it is recorded.
    #[serde(default)]
    pub decisions: DecisionCounts,
    /// What its sessions hold open that the policy refuses since it was replaced.
    #[serde(skip_serializing_if = "Vec::is_empty", default)]
    pub left_open: Vec<LeftOpen>,
    /// How many such things there are beside those.
    #[serde(default)]
    pub left_open_unlisted: usize,
    /// Its sessions.
    pub sessions: Vec<SessionStatus>,
}

/// Something that a session opened under an earlier policy and that the policy in force refuses.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct LeftOpen {
    /// The session's id.
    pub session: String,
    /// The process.
    pub process: u32,
    /// `descriptor`, `mapping`, `code`, `program` or `socket`.
    pub how: String,
    /// A path, escaped, or `ADDRESS:PORT/PROTOCOL`.
    pub object: String,
    /// Operations that it lets the process do.
    pub access: Vec<String>,
    /// What would become of it now: `refused`, or `waits for a person`.
    pub now: String,
    /// The rules that say so; none where nothing allows it any more.
    pub rules: Vec<String>,
    /// `proc`: read from `/proc`, not recorded by the kernel programs.
    pub source: String,
}

/// Recorded decisions. What rules allow by themselves is not recorded.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct DecisionCounts {
    /// Refused.
    pub denied: u64,
    /// Left to a person.
    pub held: u64,
    /// Let pass because a person has approved it.
    pub granted: u64,
    /// Only recorded: the policy audits, or break-glass is in force.
    pub would: u64,
}

/// One session.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct SessionStatus {
    /// The 128-bit id.
    pub id: String,
    /// `launching` or `armed`.
    pub state: String,
    /// Id of its cgroup.
    pub cgroup: u64,
    /// Seconds since it was bound.
    pub age: u64,
    /// What stands around it beside the kernel programs; empty where it was not started by `enforcer exec`.
    #[serde(default)]
    pub layers: Vec<LayerStatus>,
    /// The policy has changed in a way in which its layers cannot: what it allows by now may still be refused.
    #[serde(default)]
    pub restart_to_widen: bool,
}

/// One layer.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct LayerStatus {
    /// `no-new-privileges`, `seccomp` or `landlock`.
    pub name: String,
    /// What of it there is, as settings call it; `none`.
    pub state: String,
    /// Why there is none.
    #[serde(skip_serializing_if = "Option::is_none", default)]
    pub because: Option<String>,
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn bytes_that_are_not_text_survive() {
        for bytes in [b"plain".to_vec(), b"\xff\0x".to_vec(), Vec::new()] {
            let text = serde_json::to_string(&Bytes(bytes.clone())).expect("encode");
            assert_eq!(serde_json::from_str::<Bytes>(&text).expect("decode").0, bytes);
        }
        assert!(serde_json::from_str::<Bytes>("{\"base64\":\"*\"}").is_err());
    }

    #[test]
    fn unknown_requests_and_fields_are_refused() {
        assert!(serde_json::from_str::<Request>(r#"{"request":"status"}"#).is_ok());
        assert!(serde_json::from_str::<Request>(r#"{"request":"halt"}"#).is_err());
        assert!(serde_json::from_str::<Request>(r#"{"request":"signal","signal":2,"x":1}"#).is_err());
    }
}
