//! What stands around a session beside the kernel programs, as policies and settings name it.

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

/// System calls that a session's seccomp filter refuses.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Deserialize, Serialize, JsonSchema)]
#[serde(rename_all = "lowercase")]
pub enum Seccomp {
    /// There is no filter.
    None,
    /// Those whose refusal would leave no record without the filter either.
    #[default]
    Unrecorded,
    /// All that the policy cannot or does not grant; what only the filter refuses leaves no record.
    All,
}

impl Seccomp {
    /// The word in policies and settings.
    pub fn name(self) -> &'static str {
        match self {
            Self::None => "none",
            Self::Unrecorded => "unrecorded",
            Self::All => "all",
        }
    }
}

/// What a session's Landlock ruleset is about.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Deserialize, Serialize, JsonSchema)]
#[serde(rename_all = "lowercase")]
pub enum Landlock {
    /// There is no ruleset.
    None,
    /// Writing, making, removing and renaming, executing, TCP ports; opening for reading passes early.
    #[default]
    Changes,
    /// Also reading, listing and truncating.
    All,
}

impl Landlock {
    /// The word in policies and settings.
    pub fn name(self) -> &'static str {
        match self {
            Self::None => "none",
            Self::Changes => "changes",
            Self::All => "all",
        }
    }
}

/// What a policy itself says about the layers of its sessions; where it says nothing, the settings do.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct LayerChoice {
    /// `no_new_privs`.
    pub no_new_privileges: Option<bool>,
    /// The filter of system calls.
    pub seccomp: Option<Seccomp>,
    /// The Landlock ruleset.
    pub landlock: Option<Landlock>,
}
