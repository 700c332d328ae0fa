//! Two policies compared as authority: what the second lets an agent do that the first does not, and
//! the other way round. Computed from the compiled tables; the texts may differ as they like.

mod addresses;
mod arguments;
mod change;
mod paths;
mod text;

pub use change::{Direction, Step};

use super::{
    calls,
    compile::{CompileError, compile},
    endpoint::Prefix,
    reference,
    rule::{Mode, Rule, RuleId, Section, Trust, operation_names},
    valid::{Launch, User, ValidPolicy},
};
use change::{Change, Levels};
use enforcer_common::{
    access::file,
    address::Address,
    floor::{Grants, ITEMS},
    verdict::Verdict,
};
use serde::{Serialize, Serializer};
use std::{
    collections::{BTreeMap, btree_map::Entry},
    fmt,
};

/// How the authority of two policies compares, seen from the first.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
#[serde(rename_all = "lowercase")]
pub enum Relation {
    /// They answer alike.
    Same,
    /// The second only takes away.
    Less,
    /// The second only grants.
    More,
    /// The second does both.
    Both,
}

/// What distinguishes two policies.
#[derive(Clone, Debug, Serialize)]
pub struct Diff {
    /// The answer in one word.
    pub relation: Relation,
    /// What is answered differently, grants first, each with a shortest example.
    pub differences: Vec<Difference>,
    /// What else differs and is not a rule.
    pub settings: Vec<Setting>,
    /// No answer differs, but the tables do: whether a *directory* may be moved from one place to
    /// another can differ, since that asks whether the rules behind both names are the same.
    pub moves_may_differ: bool,
}

/// Operations on some objects that are answered differently for the same reasons.
#[derive(Clone, Debug, Serialize)]
pub struct Difference {
    /// Which way.
    pub direction: Direction,
    /// On what.
    pub section: Section,
    /// The operations.
    pub operations: Vec<&'static str>,
    /// A shortest path, or an address, for which this is so.
    pub example: Example,
    /// Where it is so: patterns that match the example, of the denials that fell or were made, or else of
    /// the rules that allow; for addresses, the blocks.
    pub objects: Vec<String>,
    /// The verdicts, by level of trust.
    pub steps: Vec<Step>,
    /// The rules of the first policy that decide; none where it denies for want of a rule.
    pub from: Vec<Decider>,
    /// The same of the second.
    pub to: Vec<Decider>,
}

/// An object that shows a difference.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Example {
    /// A path, with its leading slash.
    Path(Vec<u8>),
    /// An address.
    Address {
        /// The address.
        address: Address,
        /// The port.
        port: u16,
        /// The protocol's number.
        protocol: u8,
    },
}

/// A rule that decides.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct Decider {
    /// Its number in its policy.
    pub id: RuleId,
    /// Where it stands.
    pub origin: String,
    /// The verdict that it names, and on what.
    pub text: String,
    /// Its reason.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub because: Option<String>,
}

/// A difference that is not in the rules.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct Setting {
    /// The key.
    pub key: &'static str,
    /// What the first policy says.
    pub from: String,
    /// What the second says.
    pub to: String,
    /// Which ways it changes what the agent can do; none for what says who the agent is.
    pub weighs: Vec<Direction>,
}

/// Why two policies cannot be compared.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum DiffError {
    /// One does not compile.
    #[error(transparent)]
    Compile(#[from] CompileError),
    /// The automata of the two multiply each other.
    #[error("the paths of the two policies multiply each other: more than {states} states")]
    TooLarge {
        /// How many were looked at.
        states: usize,
    },
}

impl DiffError {
    /// What to do about it.
    pub fn remedy(&self) -> &'static str {
        match self {
            Self::Compile(error) => error.remedy(),
            Self::TooLarge { states: _ } => {
                "compare smaller steps, such as each commit by itself, or use fewer `**` before the last component"
            }
        }
    }
}

/// Compares two policies at every level of trust, or at one.
pub fn diff(a: &ValidPolicy, b: &ValidPolicy, trust: Option<Trust>) -> Result<Diff, DiffError> {
    let levels = Levels::new(a, b, trust);
    let (image_a, image_b) = (compile(a)?, compile(b)?);
    let paths = paths::compare(&image_a, &image_b, &levels)?;
    let mut groups = Groups { a, b, levels: &levels, groups: BTreeMap::new() };
    for paths::Found { change, operations, path, labels } in paths.found {
        let matches = |rule: &Rule| rule.globs().iter().any(|glob| reference::matches(glob, &path));
        let labels = [(a, &labels[0]), (b, &labels[1])].map(|(policy, labels)| {
            let ids = labels.iter().copied().map(RuleId);
            ids.filter(|id| policy.rule(*id).is_some_and(matches)).collect()
        });
        groups.add(Section::Files, change, operations, labels, Example::Path(path), None);
    }
    for found in addresses::compare(&image_a, &image_b, &levels) {
        let addresses::Found { change, operations, block, ports, protocol, example, labels } = found;
        let labels = labels.map(|labels| labels.into_iter().map(RuleId).collect());
        let example = Example::Address { address: example, port: ports.0, protocol };
        let block = text::block(&block, ports, protocol);
        groups.add(Section::Network, change, operations, labels, example, Some(block));
    }
    let differences = groups.finish();
    let settings = settings(a, b);
    let goes = |direction| {
        differences.iter().any(|difference| difference.direction == direction)
            || settings.iter().any(|setting| setting.weighs.contains(&direction))
    };
    let relation = match (goes(Direction::Grants), goes(Direction::TakesAway)) {
        (false, false) => Relation::Same,
        (false, true) => Relation::Less,
        (true, false) => Relation::More,
        (true, true) => Relation::Both,
    };
    Ok(Diff {
        relation,
        moves_may_differ: differences.is_empty() && paths.masks_differ,
        differences,
        settings,
    })
}

/// Section, change, operations, and the deciding rules of both policies.
type Reasons = (Section, Change, u16, [Vec<RuleId>; 2]);

/// Differences by their reasons. The first example of each is a shortest.
struct Groups<'a> {
    a: &'a ValidPolicy,
    b: &'a ValidPolicy,
    levels: &'a Levels,
    groups: BTreeMap<Reasons, (Example, Vec<String>)>,
}

impl Groups<'_> {
    fn add(
        &mut self,
        section: Section,
        change: Change,
        operations: u16,
        matching: [Vec<RuleId>; 2],
        example: Example,
        block: Option<String>,
    ) {
        let Some(step) = change.steps.first().copied() else { return };
        let Some(tiers) = self.levels.at(step.trust) else { return };
        let deciders = [(self.a, &matching[0], step.from, tiers.0), (self.b, &matching[1], step.to, tiers.1)]
            .map(|(policy, matching, verdict, tiers)| {
                let want = wanted(section, operations, verdict);
                reference::deciders(policy, matching, want, verdict, &tiers)
            });
        let patterns = match block {
            Some(block) => vec![block],
            None => self.patterns(change.direction, &deciders, &example),
        };
        match self.groups.entry((section, change, operations, deciders)) {
            Entry::Occupied(known) if section == Section::Network => known.into_mut().1.extend(patterns),
            Entry::Occupied(_) => {}
            Entry::Vacant(fresh) => drop(fresh.insert((example, patterns))),
        }
    }

    /// The patterns that match the example: of the rules that refuse, since that is where something
    /// changed, or else of those that allow.
    fn patterns(&self, direction: Direction, deciders: &[Vec<RuleId>; 2], example: &Example) -> Vec<String> {
        let Example::Path(path) = example else { return Vec::new() };
        let [of_a, of_b] = [(self.a, &deciders[0]), (self.b, &deciders[1])].map(|(policy, rules)| {
            let globs = rules.iter().filter_map(|id| policy.rule(*id)).flat_map(Rule::globs);
            let mut texts: Vec<String> =
                globs.filter(|glob| reference::matches(glob, path)).map(ToString::to_string).collect();
            texts.dedup();
            texts
        });
        let (refuse, allow) = match direction {
            Direction::Grants => (of_a, of_b),
            Direction::TakesAway => (of_b, of_a),
        };
        if refuse.is_empty() { allow } else { refuse }
    }

    fn finish(self) -> Vec<Difference> {
        let Self { a, b, levels: _, groups } = self;
        let mut all: Vec<Difference> = groups
            .into_iter()
            .map(|((section, change, operations, [from, to]), (example, mut objects))| {
                objects.dedup();
                Difference {
                    direction: change.direction,
                    section,
                    operations: operation_names(section, operations),
                    example,
                    objects,
                    steps: change.steps,
                    from: deciders(a, &from),
                    to: deciders(b, &to),
                }
            })
            .collect();
        all.sort_by_key(|one| (one.direction, one.section, one.example.length()));
        all
    }
}

/// What rules are asked about when it is to be told which of them decide.
fn wanted(section: Section, operations: u16, verdict: Verdict) -> u16 {
    match section {
        // A program that may run may be mapped.
        Section::Files | Section::Exec if operations & file::LOAD != 0 && verdict == Verdict::Allow => {
            operations | file::EXEC
        }
        Section::Files | Section::Exec | Section::Network | Section::Unix => operations,
    }
}

fn deciders(policy: &ValidPolicy, rules: &[RuleId]) -> Vec<Decider> {
    let shown = |id: &RuleId| {
        let rule = policy.rule(*id)?;
        let tier = rule.tier().map(|tier| format!(" (tier {})", format!("{tier:?}").to_lowercase()));
        let all = rule.origin().section == Section::Files && rule.operations() == file::ALL;
        let names = if all { "everything".to_owned() } else { rule.operation_names().join(", ") };
        Some(Decider {
            id: *id,
            origin: rule.origin().to_string(),
            text: format!("{} {names}{}", rule.effect().name(), tier.unwrap_or_default()),
            because: rule.because().map(str::to_owned),
        })
    };
    rules.iter().filter_map(shown).collect()
}

/// What differs besides the rules.
fn settings(a: &ValidPolicy, b: &ValidPolicy) -> Vec<Setting> {
    let mode = |policy: &ValidPolicy| match policy.mode() {
        Mode::Enforce => "enforce".to_owned(),
        Mode::Audit => "audit".to_owned(),
    };
    let launchers = |policy: &ValidPolicy| {
        let mut by: Vec<String> =
            policy.launch().iter().flat_map(|launch| launch.by()).map(ToString::to_string).collect();
        by.sort();
        by.join(", ")
    };
    let runs_as = |policy: &ValidPolicy| {
        policy.launch().and_then(|launch| launch.run_as()).map_or("its caller".to_owned(), User::to_string)
    };
    let cgroups = |policy: &ValidPolicy| {
        let globs: Vec<String> = policy.cgroups().iter().map(ToString::to_string).collect();
        globs.join(", ")
    };
    let either = vec![Direction::Grants, Direction::TakesAway];
    let layers = |policy: &ValidPolicy| policy.launch().map(Launch::layers).unwrap_or_default();
    let (layers_a, layers_b) = (layers(a), layers(b));
    // Layers refuse nothing that the policy lets pass. With set-user-id programs comes another user.
    let same_users = layers_a.no_new_privileges == layers_b.no_new_privileges;
    let layers_weigh = if same_users { Vec::new() } else { either.clone() };
    // Nothing is refused in audit mode; another user has other rights that no rule speaks of.
    let weighs = match (a.mode(), b.mode()) {
        (_, Mode::Audit) => vec![Direction::Grants],
        (_, Mode::Enforce) => vec![Direction::TakesAway],
    };
    let (floor_a, floor_b) = (a.grants(), b.grants());
    let floor = |bits_a: u64, bits_b: u64| {
        let grants = (bits_b & !bits_a != 0).then_some(Direction::Grants);
        let takes = (bits_a & !bits_b != 0).then_some(Direction::TakesAway);
        grants.into_iter().chain(takes).collect::<Vec<_>>()
    };
    let items = ITEMS.iter().fold(0, |all, (bit, _)| all | bit);
    // The bits of `process` take away: the first policy's are what the second grants.
    let process = |grants: Grants| u64::from(grants.floor & !items);
    let with_arguments = [a, b].map(arguments::rules);
    let compared = [
        (
            "exec.arguments",
            arguments::text(&with_arguments[0]),
            arguments::text(&with_arguments[1]),
            arguments::weigh(&with_arguments[0], &with_arguments[1]),
        ),
        (
            "process",
            text::process(floor_a),
            text::process(floor_b),
            floor(process(floor_b), process(floor_a)),
        ),
        (
            "capabilities",
            text::capabilities(floor_a),
            text::capabilities(floor_b),
            floor(floor_a.capabilities, floor_b.capabilities),
        ),
        (
            "system",
            text::system(floor_a),
            text::system(floor_b),
            floor((floor_a.floor & items).into(), (floor_b.floor & items).into()),
        ),
        // They refuse nothing that would be allowed otherwise.
        ("system_calls", calls::text(floor_a.calls), calls::text(floor_b.calls), Vec::new()),
        ("mode", mode(a), mode(b), weighs),
        ("on_tighten", a.on_tighten().name().to_owned(), b.on_tighten().name().to_owned(), Vec::new()),
        ("launch.run_as", runs_as(a), runs_as(b), either),
        ("launch.layers", text::layers(layers_a), text::layers(layers_b), layers_weigh),
        ("launch.by", launchers(a), launchers(b), Vec::new()),
        ("metadata.id", a.id().to_owned(), b.id().to_owned(), Vec::new()),
        ("metadata.expires", text::or_never(a.expires()), text::or_never(b.expires()), Vec::new()),
        ("match.cgroup", cgroups(a), cgroups(b), Vec::new()),
        ("trust", a.trust().name().to_owned(), b.trust().name().to_owned(), Vec::new()),
    ];
    let differs = compared.into_iter().filter(|(_, from, to, _)| from != to);
    differs.map(|(key, from, to, weighs)| Setting { key, from, to, weighs }).collect()
}

impl Example {
    fn length(&self) -> usize {
        match self {
            Self::Path(path) => path.len(),
            Self::Address { .. } => 0,
        }
    }
}

impl fmt::Display for Example {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            // An abstract name, as rules know it.
            Self::Path(path) if path.starts_with(&[b'/', file::ABSTRACT]) => {
                write!(f, "@{}", crate::event::text::escape(&path[2..]))
            }
            Self::Path(path) => f.write_str(&crate::event::text::escape(path)),
            Self::Address { address, port, protocol } => {
                let bits = if address.family == 4 { 32 } else { 128 };
                let one = Prefix { family: address.family, bits, bytes: address.bytes };
                f.write_str(&text::block(&one, (*port, *port), *protocol))
            }
        }
    }
}

impl Serialize for Example {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.collect_str(self)
    }
}
