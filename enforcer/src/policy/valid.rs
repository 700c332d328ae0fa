//! A policy that has been checked.

use super::{
    glob::Glob,
    image::Image,
    rule::{Mode, OnTighten, Rule, RuleId, Trust},
};
use enforcer_common::{address::Address, floor::Grants, verdict::Verdict};
use serde::Serialize;
use std::fmt;

/// A policy that can be enforced as it stands. Only [`super::parse`] makes one.
#[derive(Clone, Debug)]
pub struct ValidPolicy {
    pub(super) id: String,
    pub(super) version: u64,
    pub(super) owner: String,
    pub(super) purpose: String,
    pub(super) expires: Option<(String, i64)>,
    pub(super) cgroups: Vec<Glob>,
    pub(super) launch: Option<Launch>,
    pub(super) trust: Trust,
    pub(super) mode: Mode,
    pub(super) on_tighten: OnTighten,
    pub(super) requires: Vec<Feature>,
    pub(super) includes: Vec<String>,
    pub(super) rules: Vec<Rule>,
    pub(super) grants: Grants,
    pub(super) tests: Vec<Test>,
    pub(super) warnings: Vec<Warning>,
    pub(super) digest: [u8; 32],
    /// The tables, once the policy has been found to compile.
    pub(super) image: Option<Image>,
}

/// Who may start an agent, and as whom it runs.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Launch {
    pub(super) by: Vec<Launcher>,
    pub(super) run_as: Option<User>,
}

impl Launch {
    /// Who may start the agent.
    pub fn by(&self) -> &[Launcher] {
        &self.by
    }

    /// The user that it runs as.
    pub fn run_as(&self) -> Option<&User> {
        self.run_as.as_ref()
    }
}

/// A user or a group that may start an agent.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Launcher {
    /// A user.
    User(User),
    /// The members of a group, by name.
    Group(String),
    /// The members of a group, by number.
    GroupId(u32),
}

/// A user by name or number.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum User {
    /// By name.
    Name(String),
    /// By number.
    Id(u32),
}

impl fmt::Display for Launcher {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::User(user) => write!(f, "uid:{user}"),
            Self::Group(name) => write!(f, "group:{name}"),
            Self::GroupId(id) => write!(f, "group:{id}"),
        }
    }
}

impl fmt::Display for User {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Name(name) => f.write_str(name),
            Self::Id(id) => write!(f, "{id}"),
        }
    }
}

/// Something that a host may or may not be able to enforce.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Feature {
    /// Path rules.
    FilePaths,
    /// Rules about running programs.
    Exec,
    /// Address rules.
    Network,
    /// Launch control.
    Launch,
    /// Rules about unix sockets.
    Unix,
    /// What processes of a session may not do to each other.
    Process,
    /// Capabilities that are granted.
    Capabilities,
    /// Items of the floor that are granted.
    System,
}

impl Feature {
    /// Every feature.
    pub const ALL: [Self; 8] = [
        Self::FilePaths,
        Self::Exec,
        Self::Network,
        Self::Launch,
        Self::Unix,
        Self::Process,
        Self::Capabilities,
        Self::System,
    ];

    /// The word in policies.
    pub fn name(self) -> &'static str {
        match self {
            Self::FilePaths => "file-paths",
            Self::Exec => "exec",
            Self::Network => "network",
            Self::Launch => "launch",
            Self::Unix => "unix",
            Self::Process => "process",
            Self::Capabilities => "capabilities",
            Self::System => "system",
        }
    }
}

/// Something that is allowed and probably not meant.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct Warning {
    /// File or profile.
    pub source: String,
    /// Line, from 1.
    pub line: u32,
    /// Column, from 1.
    pub column: u32,
    /// What to know.
    pub message: String,
}

impl fmt::Display for Warning {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}:{}:{}: warning: {}", self.source, self.line, self.column, self.message)
    }
}

/// A test that a policy carries.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Test {
    /// Line, from 1.
    pub line: u32,
    /// Column, from 1.
    pub column: u32,
    /// The answer.
    pub expect: Verdict,
    /// The question.
    pub question: Question,
}

/// What a test asks.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Question {
    /// Operations on a path, which is without its leading slash.
    File {
        /// Bits of [`enforcer_common::access::file`].
        want: u16,
        /// The path.
        path: Vec<u8>,
    },
    /// Executing a program with arguments.
    Run {
        /// The path, without its leading slash.
        path: Vec<u8>,
        /// The arguments after the program's name.
        arguments: Vec<Vec<u8>>,
    },
    /// Operations on an address.
    Net {
        /// Bits of [`enforcer_common::access::net`].
        want: u16,
        /// The address.
        address: Address,
        /// The port.
        port: u16,
        /// The protocol's number.
        protocol: u8,
    },
}

impl ValidPolicy {
    /// Name of the agent.
    pub fn id(&self) -> &str {
        &self.id
    }

    /// Version of the policy.
    pub fn version(&self) -> u64 {
        self.version
    }

    /// Who answers for the agent.
    pub fn owner(&self) -> &str {
        &self.owner
    }

    /// What the agent is for.
    pub fn purpose(&self) -> &str {
        &self.purpose
    }

    /// When the policy ends, as it was written.
    pub fn expires(&self) -> Option<&str> {
        self.expires.as_ref().map(|(text, _)| text.as_str())
    }

    /// When the policy ends, in seconds since 1970-01-01T00:00:00Z.
    pub fn expires_unix(&self) -> Option<i64> {
        self.expires.as_ref().map(|(_, seconds)| *seconds)
    }

    /// Where sessions of the agent live in the cgroup hierarchy; none for agents that are only
    /// started explicitly.
    pub fn cgroups(&self) -> &[Glob] {
        &self.cgroups
    }

    /// Who may start the agent, if the policy says so.
    pub fn launch(&self) -> Option<&Launch> {
        self.launch.as_ref()
    }

    /// The most trust that a session of the agent can have.
    pub fn trust(&self) -> Trust {
        self.trust
    }

    /// The trust that a session has: what was stated about the agent, and never more than the policy
    /// lets it have. Trust is earned by a statement; without one it is probation.
    pub fn trust_in_force(&self, stated: Option<Trust>) -> Trust {
        stated.unwrap_or(Trust::Probation).min(self.trust)
    }

    /// Whether verdicts are enforced.
    pub fn mode(&self) -> Mode {
        self.mode
    }

    /// What becomes of a session that holds something open that this policy refuses.
    pub fn on_tighten(&self) -> OnTighten {
        self.on_tighten
    }

    /// What the host must be able to enforce.
    pub fn requires(&self) -> &[Feature] {
        &self.requires
    }

    /// The profiles whose rules it contains.
    pub fn includes(&self) -> &[String] {
        &self.includes
    }

    /// Every rule, those of the profiles included.
    pub fn rules(&self) -> &[Rule] {
        &self.rules
    }

    /// What it changes of the floor.
    pub fn grants(&self) -> Grants {
        self.grants
    }

    /// A rule by its number.
    pub fn rule(&self, id: RuleId) -> Option<&Rule> {
        self.rules.get(id.0 as usize)
    }

    /// Every rule with its number.
    pub fn numbered_rules(&self) -> impl Iterator<Item = (RuleId, &Rule)> {
        self.rules.iter().zip(0..).map(|(rule, id)| (RuleId(id), rule))
    }

    /// The tests that it carries. They have passed.
    pub fn tests(&self) -> &[Test] {
        &self.tests
    }

    /// What the operator should know.
    pub fn warnings(&self) -> &[Warning] {
        &self.warnings
    }

    /// SHA-256 of the canonical policy.
    pub fn digest(&self) -> [u8; 32] {
        self.digest
    }
}
