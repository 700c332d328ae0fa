//! What a reader of records must be told: what numbers mean, and what earlier records have said.

use super::decode::Event;

/// A rule as records name it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct RuleNote {
    /// The rule as the policy has it.
    pub text: String,
    /// The policy's own words on why.
    pub because: Option<String>,
}

/// A policy as records name it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct PolicyNote {
    /// The agent that it is for.
    pub id: String,
    /// The version that it says it has.
    pub version: u64,
    /// SHA-256 of the canonical policy, hexadecimal.
    pub digest: String,
}

/// A session as records name it.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct SessionNote {
    /// The session that started it.
    pub parent: Option<String>,
    /// Who launched it.
    pub launcher: Option<Launcher>,
    /// What for, in the launcher's words.
    pub task: Option<String>,
    /// The container that it is.
    pub container: Option<String>,
}

/// Who launched a session.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Launcher {
    /// The user.
    pub uid: u32,
    /// The process.
    pub pid: i32,
}

impl Launcher {
    /// Reads `uid 0 pid 12`.
    pub fn parse(text: &str) -> Option<Self> {
        let (uid, pid) = text.strip_prefix("uid ")?.split_once(" pid ")?;
        Some(Self { uid: uid.parse().ok()?, pid: pid.parse().ok()? })
    }
}

/// What earlier records have told.
pub trait SessionOf {
    /// The session with this id.
    fn session(&self, id: [u64; 2]) -> Option<&SessionNote>;
    /// The program that the process with this number and start executed last.
    fn program(&self, tgid: u32, started: u64) -> Option<&[u8]>;
}

/// Nothing was told.
impl SessionOf for () {
    fn session(&self, _: [u64; 2]) -> Option<&SessionNote> {
        None
    }

    fn program(&self, _: u32, _: u64) -> Option<&[u8]> {
        None
    }
}

/// What the numbers in a record mean: only the daemon knows.
pub trait Context {
    /// What earlier records have told.
    fn sessions(&self) -> &dyn SessionOf {
        &()
    }
    /// The agent in this slot.
    fn agent(&self, slot: u32) -> Option<String>;
    /// The policy with this id.
    fn policy(&self, id: u32) -> Option<PolicyNote>;
    /// The id of break-glass that was in force for the agent in this slot at this boot time.
    fn break_glass(&self, agent: u32, time: u64) -> Option<String>;
    /// The rules that decided; none where nothing allows it. `None`: they cannot be told.
    fn rules(&self, event: &Event<'_>) -> Option<Vec<RuleNote>>;
}
