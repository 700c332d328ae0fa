//! What a rule says, whatever document it stands in.

use super::{condition::Condition, endpoint::Endpoint, glob::Glob};
use enforcer_common::{
    access::{file, net},
    map::{Masks, TierMap},
};
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};
use std::fmt;

/// Number of a rule within its policy: the policy's own rules first, then those of its profiles.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize)]
pub struct RuleId(pub u32);

impl fmt::Display for RuleId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "#{}", self.0)
    }
}

/// What a rule wants to become of an operation.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
#[serde(rename_all = "lowercase")]
pub enum Effect {
    /// It goes on.
    Allow,
    /// A person decides.
    Hold,
    /// It is refused.
    Deny,
}

impl Effect {
    /// The word in policies.
    pub fn name(self) -> &'static str {
        match self {
            Self::Allow => "allow",
            Self::Hold => "hold",
            Self::Deny => "deny",
        }
    }
}

/// How much is at stake when a rule applies.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Deserialize, Serialize, JsonSchema)]
#[serde(rename_all = "lowercase")]
pub enum Tier {
    /// Routine.
    Low,
    /// Needs some trust.
    Medium,
    /// Needs a person, or much trust.
    High,
    /// Never.
    Critical,
}

/// How far a session's agent is trusted: what each tier becomes.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Deserialize, Serialize, JsonSchema)]
#[serde(rename_all = "lowercase")]
pub enum Trust {
    /// Low runs; medium and high wait for a person.
    #[default]
    Probation,
    /// Low and medium run; high waits.
    Supervised,
    /// As supervised, and the first candidate for more.
    Trusted,
    /// Low, medium and high run.
    Autonomous,
}

impl Trust {
    /// Every level, the lowest first.
    pub const ALL: [Self; 4] = [Self::Probation, Self::Supervised, Self::Trusted, Self::Autonomous];

    /// The number that stands for it in the kernel's records; 0 stands for none.
    pub fn number(self) -> u32 {
        match self {
            Self::Probation => 1,
            Self::Supervised => 2,
            Self::Trusted => 3,
            Self::Autonomous => 4,
        }
    }

    /// The level with this number.
    pub fn from_number(number: u32) -> Option<Self> {
        Self::ALL.into_iter().find(|level| level.number() == number)
    }

    /// The level with this name.
    pub fn named(name: &str) -> Option<Self> {
        Self::ALL.into_iter().find(|level| level.name() == name)
    }

    /// The word in policies.
    pub fn name(self) -> &'static str {
        match self {
            Self::Probation => "probation",
            Self::Supervised => "supervised",
            Self::Trusted => "trusted",
            Self::Autonomous => "autonomous",
        }
    }
}

/// What each tier becomes at a level of trust unless the settings say something else (`trust::table`). Tier
/// critical is not in the table: it is always denied.
pub fn trust_tiers(level: Trust) -> TierMap {
    const ALL: u16 = u16::MAX;
    let (allow, hold) = match level {
        Trust::Probation => ([ALL, 0, 0], [0, ALL, ALL]),
        Trust::Supervised | Trust::Trusted => ([ALL, ALL, 0], [0, 0, ALL]),
        Trust::Autonomous => ([ALL, ALL, ALL], [0, 0, 0]),
    };
    TierMap { allow, hold, level: 0 }
}

/// Whether verdicts are enforced.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Deserialize, Serialize, JsonSchema)]
#[serde(rename_all = "lowercase")]
pub enum Mode {
    /// They are.
    #[default]
    Enforce,
    /// They are computed and recorded, and nothing is refused.
    Audit,
}

/// What becomes of a session that holds something open that a new policy of its agent refuses.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Deserialize, Serialize, JsonSchema)]
#[serde(rename_all = "lowercase")]
pub enum OnTighten {
    /// It goes on, and what it holds open is listed.
    #[default]
    List,
    /// It is killed before the new policy counts as applied.
    Kill,
}

impl OnTighten {
    /// The word in policies.
    pub fn name(self) -> &'static str {
        match self {
            Self::List => "list",
            Self::Kill => "kill",
        }
    }
}

/// What a held operation does while nobody has decided.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Deserialize, Serialize, JsonSchema)]
#[serde(rename_all = "lowercase")]
pub enum OnHold {
    /// The call waits.
    Wait,
    /// The call fails now and may be repeated after the approval.
    Refuse,
}

/// The part of a document that a rule stands in.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize)]
#[serde(rename_all = "lowercase")]
pub enum Section {
    /// `files`
    Files,
    /// `exec`
    Exec,
    /// `network`
    Network,
    /// `unix`
    Unix,
}

impl Section {
    /// The key in policies.
    pub fn name(self) -> &'static str {
        match self {
            Self::Files => "files",
            Self::Exec => "exec",
            Self::Network => "network",
            Self::Unix => "unix",
        }
    }
}

/// Where a rule was written.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct Origin {
    /// File, or profile as `name@version`.
    pub source: String,
    /// Line, from 1.
    pub line: u32,
    /// Column, from 1.
    pub column: u32,
    /// Section.
    pub section: Section,
    /// Place in the section's list, from 0.
    pub index: usize,
}

impl fmt::Display for Origin {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}:{}:{} ({}[{}])", self.source, self.line, self.column, self.section.name(), self.index)
    }
}

/// What a rule is about.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Objects {
    /// Files and programs.
    Paths(Vec<Glob>),
    /// Addresses.
    Endpoints(Vec<Endpoint>),
}

/// A checked rule.
#[derive(Clone, Debug)]
pub struct Rule {
    pub(super) origin: Origin,
    pub(super) effect: Effect,
    pub(super) tier: Option<Tier>,
    pub(super) operations: u16,
    pub(super) objects: Objects,
    pub(super) condition: Condition,
    pub(super) because: Option<String>,
    pub(super) on_hold: Option<OnHold>,
    pub(super) hold_timeout: Option<u64>,
}

impl Rule {
    /// Where it was written.
    pub fn origin(&self) -> &Origin {
        &self.origin
    }

    /// The verdict that it names.
    pub fn effect(&self) -> Effect {
        self.effect
    }

    /// Its tier, if it names one.
    pub fn tier(&self) -> Option<Tier> {
        self.tier
    }

    /// The operations that it is about: bits of [`mod@file`] or [`net`], by its section.
    pub fn operations(&self) -> u16 {
        self.operations
    }

    /// What it is about.
    pub fn objects(&self) -> &Objects {
        &self.objects
    }

    /// The runs of programs that it is about.
    pub fn condition(&self) -> &Condition {
        &self.condition
    }

    /// Its reason.
    pub fn because(&self) -> Option<&str> {
        self.because.as_deref()
    }

    /// What a held operation does meanwhile.
    pub fn on_hold(&self) -> Option<OnHold> {
        self.on_hold
    }

    /// After how many seconds an undecided hold is refused.
    pub fn hold_timeout(&self) -> Option<u64> {
        self.hold_timeout
    }

    /// Its paths; none for a rule about addresses.
    pub fn globs(&self) -> &[Glob] {
        match &self.objects {
            Objects::Paths(globs) => globs,
            Objects::Endpoints(_) => &[],
        }
    }

    /// Its addresses; none for a rule about paths.
    pub fn endpoints(&self) -> &[Endpoint] {
        match &self.objects {
            Objects::Paths(_) => &[],
            Objects::Endpoints(endpoints) => endpoints,
        }
    }

    /// The names of its operations.
    pub fn operation_names(&self) -> Vec<&'static str> {
        operation_names(self.origin.section, self.operations)
    }

    /// What it says in kernel form. The hook that decides about programs does not know their arguments and content yet:
    /// a rule about some says that they have to be judged, and at most that they may turn out to be allowed.
    pub fn masks(&self) -> Masks {
        let any = if self.operations & file::EXEC != 0 { file::ANY_ARGUMENTS } else { 0 };
        match (self.condition.is_none(), self.effect) {
            (true, _) => self.masks_on(self.operations | any),
            (false, Effect::Allow) => Masks { deny: any, ..self.masks_on(self.operations) },
            (false, Effect::Hold | Effect::Deny) => Masks { deny: any, ..Masks::NONE },
        }
    }

    /// What it says about what it applies to.
    pub(super) fn plain_masks(&self) -> Masks {
        self.masks_on(self.operations)
    }

    fn masks_on(&self, operations: u16) -> Masks {
        let mut masks = Masks::NONE;
        let tier = match self.tier {
            None | Some(Tier::Low) => 0,
            Some(Tier::Medium) => 1,
            Some(Tier::High) => 2,
            Some(Tier::Critical) => {
                masks.deny = operations;
                return masks;
            }
        };
        match self.effect {
            Effect::Allow => masks.allow[tier] = operations,
            Effect::Hold => masks.hold[tier] = operations,
            Effect::Deny => masks.deny = operations,
        }
        masks
    }
}

/// The names of the operations in a mask of `section`.
pub fn operation_names(section: Section, operations: u16) -> Vec<&'static str> {
    let names: &[(u16, &str)] = match section {
        Section::Files | Section::Exec | Section::Unix => &file::NAMES,
        Section::Network => &net::NAMES,
    };
    names.iter().filter(|(bit, _)| operations & bit != 0).map(|(_, name)| *name).collect()
}

/// The same masks without what can never become a verdict: what is denied anyway, and what a hold of
/// the same tier makes moot. Equal rights then are equal masks, which keeps automata small.
pub(super) fn normal(masks: &Masks) -> Masks {
    let Masks { mut allow, mut hold, deny, set } = *masks;
    for tier in 0..3 {
        hold[tier] &= !deny;
        allow[tier] &= !deny & !hold[tier];
    }
    Masks { allow, hold, deny, set }
}
