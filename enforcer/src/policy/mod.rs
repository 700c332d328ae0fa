//! The policy language and its compiler: text in, kernel tables out.
//!
//! [`parse`] makes a [`ValidPolicy`] of a text, [`compile`] an [`Image`] of that, and
//! [`Image::place`] gives the bytes for the arena. [`mod@reference`] says what a policy means; the
//! tables must agree with it. Nothing here reads a file, a clock or the network.

mod arguments;
mod automaton;
mod bytes;
mod calls;
mod canonical;
mod check;
mod compile;
mod condition;
mod decode;
mod diff;
mod draft;
mod endpoint;
mod explain;
mod floor;
mod format;
mod glob;
mod head;
mod image;
mod layers;
mod learn;
mod links;
mod matcher;
mod matches;
mod ports;
mod problem;
mod profile;
pub mod reference;
mod rule;
mod sets;
mod valid;
mod validate;
mod yaml;

pub use bytes::ByteSet;
pub use check::digest;
pub use compile::{BlamedRule, CompileError, IMAGE_BYTES, compile};
pub use condition::{Condition, Run};
pub use diff::{Decider, Diff, DiffError, Difference, Direction, Example, Relation, Setting, Step, diff};
pub use draft::schema;
pub use endpoint::{Endpoint, EndpointError, Prefix, TCP, UDP};
pub use explain::{ExplainError, ExplainedRule, Explanation, explain, explain_with};
pub use format::{FormatError, format};
pub use glob::{Atom, Component, Glob, GlobError, Pattern};
pub use head::Head;
pub use image::{ALIGN, FirstUses, Image, NetEntry, Placed};
pub use layers::{Landlock, LayerChoice, Seccomp};
pub use learn::{Draft, Evidence, LearnError, Learner, LeftOut, Proposed, Source};
pub use links::{LinkedFile, Name as LinkName, linked_files, places as link_places};
pub use matcher::{AgentMatch, MatchError, matcher};
pub use problem::{PolicyErrors, Problem};
pub use profile::{Profile, parse_profile, profiles};
pub use rule::{
    Effect, Mode, Objects, OnHold, OnTighten, Origin, Rule, RuleId, Section, Tier, Trust, operation_names,
    trust_tiers,
};
pub use valid::{Feature, Launch, Launcher, Question, Test, User, ValidPolicy, Warning};
pub use validate::{parse, path_bytes};

#[cfg(test)]
mod tests;
