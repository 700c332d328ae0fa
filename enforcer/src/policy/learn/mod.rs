//! Records of sessions in audit mode → a draft of the rules that they would have needed.
//!
//! An agent writes its own record, so nothing here is trusted: a draft is narrow, says for each rule
//! which records led to it, names what it leaves out and why, and does not load until a person has put
//! an owner into it. What no rule may say (the floor) is never proposed, nor are secrets, nor running
//! what the agent can write.

mod guards;
mod narrow;
mod record;
mod text;

use super::{endpoint::Prefix, format::scalar, rule::Section, valid::ValidPolicy};
use enforcer_common::{access::file, address::Address};
use record::Reading;
use serde::{Serialize, Serializer};
use std::{
    collections::{BTreeMap, BTreeSet},
    fmt,
};

/// Where a record stands, and what it says about who.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct Source {
    /// The log.
    pub log: String,
    /// Its line, from 1.
    pub line: u64,
    /// When.
    pub time: String,
    /// The session.
    pub session: String,
    /// The program, as the kernel named it, with everything unusual escaped.
    pub exe: String,
}

/// The records behind a rule.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize)]
pub struct Evidence {
    /// How many.
    pub records: u64,
    /// Of which sessions.
    pub sessions: BTreeSet<String>,
    /// The first of each session and program.
    pub first: Vec<Source>,
}

/// Most sources that are kept of one observation.
const SOURCES: usize = 8;

impl Evidence {
    fn add(&mut self, source: Source) {
        self.records += 1;
        self.sessions.insert(source.session.clone());
        let known = |one: &Source| one.session == source.session && one.exe == source.exe;
        if self.first.len() < SOURCES && !self.first.iter().any(known) {
            self.first.push(source);
        }
    }

    fn join(&mut self, other: &Self) {
        self.records += other.records;
        self.sessions.extend(other.sessions.iter().cloned());
        let room = SOURCES.saturating_sub(self.first.len());
        self.first.extend(other.first.iter().take(room).cloned());
    }
}

/// What was asked for.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
enum Object {
    /// Without its leading slash.
    Path(Vec<u8>),
    /// Family, address, port, protocol.
    Address(u8, [u8; 16], u16, u8),
}

impl fmt::Display for Object {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Path(path) => write!(f, "/{}", crate::event::text::escape(path)),
            Self::Address(..) => f.write_str(&self.pattern()),
        }
    }
}

impl Object {
    /// The rule's pattern for just this.
    fn pattern(&self) -> String {
        match self {
            Self::Path(path) => narrow::literal(path),
            Self::Address(family, bytes, port, protocol) => {
                let bits = if *family == 4 { 32 } else { 128 };
                let one = Prefix { family: *family, bits, bytes: *bytes };
                let protocol = if *protocol == super::TCP { "tcp" } else { "udp" };
                format!("{one}:{port}/{protocol}")
            }
        }
    }
}

/// A rule of the draft.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct Proposed {
    /// Where it stands.
    pub section: Section,
    /// Its operations.
    #[serde(serialize_with = "names")]
    pub operations: (Section, u16),
    /// Its path or address.
    pub pattern: String,
    /// How many objects it stands for; more than one where names in one directory became `*`.
    pub objects: u64,
    /// Why.
    pub evidence: Evidence,
}

#[expect(clippy::trivially_copy_pass_by_ref, reason = "the signature that serde asks for")]
fn names<S: Serializer>(operations: &(Section, u16), serializer: S) -> Result<S::Ok, S::Error> {
    serializer.collect_seq(super::operation_names(operations.0, operations.1))
}

/// Something that the draft leaves out.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct LeftOut {
    /// The operations and the object.
    pub what: String,
    /// The reason.
    pub why: &'static str,
    /// The records.
    pub evidence: Evidence,
}

/// A draft. [`fmt::Display`] writes it as a policy without an owner.
#[derive(Clone, Debug, Serialize)]
pub struct Draft {
    /// The agent.
    pub agent: String,
    /// The version that the draft has.
    pub version: u64,
    /// What it includes.
    pub include: Vec<String>,
    /// The sessions that were asked about.
    pub sessions: Vec<String>,
    /// What it allows.
    pub rules: Vec<Proposed>,
    /// What it does not.
    pub left_out: Vec<LeftOut>,
    /// What makes it incomplete.
    pub notes: Vec<String>,
}

/// Why there is no draft.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum LearnError {
    /// A session is not in the log.
    #[error("no record of the session {0} is in the log")]
    NoSession(String),
    /// Sessions of different agents.
    #[error("the sessions are of different agents: {0}")]
    Agents(String),
    /// The base is for somebody else.
    #[error("the policy is for {policy}, but the sessions are of {agent}")]
    OtherAgent {
        /// Whose policy it is.
        policy: String,
        /// Whose sessions they are.
        agent: String,
    },
}

/// Reads records one by one.
#[derive(Debug)]
pub struct Learner {
    sessions: Vec<String>,
    seen: BTreeMap<Object, BTreeMap<u16, Evidence>>,
    left_out: BTreeMap<(String, &'static str), Evidence>,
    agents: BTreeMap<String, BTreeSet<String>>,
    /// Records of each agent that were lost.
    lost: BTreeMap<String, u64>,
    unreadable: u64,
    enforced: u64,
}

impl Learner {
    /// Will learn from these sessions.
    pub fn new(sessions: &[String]) -> Self {
        Self {
            sessions: sessions.to_vec(),
            seen: BTreeMap::new(),
            left_out: BTreeMap::new(),
            agents: BTreeMap::new(),
            lost: BTreeMap::new(),
            unreadable: 0,
            enforced: 0,
        }
    }

    /// Takes a line of a log.
    pub fn line(&mut self, log: &str, number: u64, line: &str) {
        let reading = record::read(log, number, line);
        if let Reading::Lost { agent, records } = reading {
            *self.lost.entry(agent).or_default() += records;
            return;
        }
        let Reading::Of { agent, source, what } = reading else {
            self.unreadable += u64::from(matches!(reading, Reading::Unreadable));
            return;
        };
        if !self.sessions.contains(&source.session) {
            return;
        }
        self.agents.entry(agent).or_default().insert(source.session.clone());
        match what {
            record::What::Nothing => {}
            record::What::Enforced => self.enforced += 1,
            record::What::Unlearnable { what, why } => {
                self.left_out.entry((what, why)).or_default().add(source);
            }
            record::What::Wanted { object, operations } => {
                self.seen.entry(object).or_default().entry(operations).or_default().add(source);
            }
        }
    }

    /// The agent whose sessions they are.
    pub fn agent(&self) -> Result<&str, LearnError> {
        for session in &self.sessions {
            if !self.agents.values().any(|sessions| sessions.contains(session)) {
                return Err(LearnError::NoSession(session.clone()));
            }
        }
        let mut names = self.agents.keys();
        match (names.next(), names.next()) {
            (Some(agent), None) => Ok(agent),
            _ => {
                let names: Vec<&str> = self.agents.keys().map(String::as_str).collect();
                Err(LearnError::Agents(names.join(", ")))
            }
        }
    }

    /// The draft, in addition to the policy in force if that is known.
    pub fn draft(self, base: Option<&ValidPolicy>) -> Result<Draft, LearnError> {
        let agent = self.agent()?.to_owned();
        if let Some(base) = base.filter(|base| base.id() != agent) {
            return Err(LearnError::OtherAgent { policy: base.id().to_owned(), agent });
        }
        let notes = self.notes(&agent, base.is_some());
        let mut left_out = self.left_out;
        let wanted = guards::sift(self.seen, base, &mut left_out);
        let rules = narrow::rules(wanted, base);
        let mut include: Vec<String> = base.map(|base| base.includes().to_vec()).unwrap_or_default();
        // A `*` takes in names that were not seen.
        if rules.iter().any(|rule| rule.objects > 1) && !include.iter().any(|name| name == guards::SECRETS) {
            include.push(guards::SECRETS.to_owned());
        }
        Ok(Draft {
            agent,
            version: base.map_or(1, |base| base.version() + 1),
            include,
            sessions: self.sessions,
            rules,
            left_out: left_out
                .into_iter()
                .map(|((what, why), evidence)| LeftOut { what, why, evidence })
                .collect(),
            notes,
        })
    }

    fn notes(&self, agent: &str, has_base: bool) -> Vec<String> {
        let mut notes = Vec::new();
        if let Some(records) = self.lost.get(agent).filter(|records| **records > 0) {
            notes.push(format!("{records} records of {agent} were lost, so rules may be missing"));
        }
        if self.unreadable > 0 {
            notes.push(format!("{} lines of the log could not be read", self.unreadable));
        }
        if self.enforced > 0 {
            notes.push(format!(
                "{} refusals were enforced: nothing is learned from those, only from audit mode",
                self.enforced
            ));
        }
        if !has_base {
            notes.push("the policy in force is not known, so running programs is not proposed".to_owned());
        }
        notes
    }
}

/// Operations as a rule of the section writes them. To write includes to truncate.
fn operation_list(section: Section, operations: u16) -> Vec<&'static str> {
    let both = file::WRITE | file::TRUNCATE;
    let shown = match section {
        Section::Files if operations & both == both => operations & !file::TRUNCATE,
        _ => operations,
    };
    super::operation_names(section, shown)
}

fn quoted(text: &str) -> String {
    scalar::string(text)
}

/// An address of a record.
fn address(object: &Address, port: u16, protocol: u8) -> Object {
    Object::Address(object.family, object.bytes, port, protocol)
}
