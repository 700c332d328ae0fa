//! [`ValidPolicy`] → [`Image`].

use super::{
    automaton::{Automaton, Bounds, Nfa, TooLarge, classes},
    glob::Pattern,
    image::{FirstUses, Image},
    ports::{Ports, TooManyRanges},
    rule::RuleId,
    sets::{Sets, joined},
    valid::ValidPolicy,
};
use enforcer_common::{
    limits::{ARENA, GROUPS},
    map::Masks,
};

type SayTogether<'a> = &'a dyn Fn(&[u32]) -> Masks;

/// Most states of a policy's one automaton; beyond it the patterns are split.
const ONE_AUTOMATON: usize = 4_096;
/// Bounds while trying one automaton: merging usually halves the states at least.
const ONE_BOUNDS: Bounds =
    Bounds { nodes: 4 * ONE_AUTOMATON, raw_states: 8 * ONE_AUTOMATON, raw_cells: 2 << 20 };
/// Bounds on each of several automata.
const GROUP_BOUNDS: Bounds = Bounds { nodes: usize::MAX, raw_states: 250_000, raw_cells: 12 << 20 };
/// Most bytes of one policy: a quarter of the arena, so that there is room for its successor beside it.
pub const IMAGE_BYTES: usize = ARENA / 4;

/// Why a policy does not fit the kernel's tables.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum CompileError {
    /// The patterns multiply each other's states.
    #[error("the paths of these rules multiply each other: {}", names(.rules))]
    Explodes {
        /// The rules without which the others fit, those with the largest share first.
        rules: Vec<BlamedRule>,
    },
    /// There are too many rules.
    #[error("the compiled policy takes {bytes} bytes, and {IMAGE_BYTES} are the limit")]
    TooLarge {
        /// Bytes that it would take.
        bytes: usize,
    },
    /// One address has too many different ranges of ports.
    #[error(
        "the rules split the ports of {prefix} into more than {} ranges",
        enforcer_common::limits::PORT_RANGES
    )]
    TooManyPorts {
        /// The address block.
        prefix: String,
        /// The rules that name it or a block around it.
        rules: Vec<RuleId>,
    },
}

/// A rule that an error names.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct BlamedRule {
    /// Its number.
    pub id: RuleId,
    /// Where it stands.
    pub origin: String,
    /// The glob that costs most.
    pub glob: String,
}

fn names(rules: &[BlamedRule]) -> String {
    const SHOWN: usize = 6;
    let mut shown: Vec<String> =
        rules.iter().take(SHOWN).map(|rule| format!("`{}` at {}", rule.glob, rule.origin)).collect();
    if rules.len() > SHOWN {
        shown.push(format!("and {} more", rules.len() - SHOWN));
    }
    shown.join(", ")
}

impl CompileError {
    /// The rules that are named, those with the largest share first.
    pub fn rules(&self) -> Vec<RuleId> {
        match self {
            Self::Explodes { rules } => rules.iter().map(|rule| rule.id).collect(),
            Self::TooLarge { bytes: _ } => Vec::new(),
            Self::TooManyPorts { prefix: _, rules } => rules.clone(),
        }
    }

    /// What to write instead.
    pub fn remedy(&self) -> &'static str {
        match self {
            Self::Explodes { rules: _ } => {
                "use at most one `**` before the last component, put a fixed directory in front of it \
                 (`/srv/data/**/x` instead of `**/data/**/x`), avoid two `*` in one component behind `**`, \
                 or name the directories"
            }
            Self::TooLarge { bytes: _ } => "replace lists of single files by their directories",
            Self::TooManyPorts { prefix: _, rules: _ } => "join neighbouring ports into ranges",
        }
    }
}

/// Compiles a policy. One that [`super::parse`] returned has been compiled before, and shares that.
pub fn compile(policy: &ValidPolicy) -> Result<Image, CompileError> {
    if let Some(image) = &policy.image {
        return Ok(image.clone());
    }
    build(policy, ONE_AUTOMATON)
}

/// Builds the tables, with one automaton where it has no more than so many states.
///
/// Sets of rules that say the same are told apart (see [`Sets`]) where that takes no more automata, and hardly more room.
pub(super) fn build(policy: &ValidPolicy, one_automaton: usize) -> Result<Image, CompileError> {
    let rules = policy.rules();
    let sets = Sets::new(rules);
    let plain = |labels: &[u32]| joined(rules, labels);
    let told = |labels: &[u32]| sets.masks(labels);
    let patterns: Vec<(u32, &Pattern)> = rules
        .iter()
        .zip(0..)
        .flat_map(|(rule, id)| {
            rule.globs().iter().flat_map(move |glob| glob.patterns().iter().map(move |p| (id, p)))
        })
        .collect();
    let one = |masks: SayTogether<'_>| {
        let built = Automaton::build(&patterns, ONE_BOUNDS, masks).ok();
        built.filter(|automaton| automaton.states() <= one_automaton).map(|automaton| vec![automaton])
    };
    let mut paths = true;
    let with_sets = |build: &dyn Fn() -> Option<Vec<Automaton>>| {
        sets.clear();
        sets.may_be_told(true).then(build).flatten().filter(|_| sets.are_told())
    };
    let automata = if let Some(automata) = with_sets(&|| one(&told)) {
        automata
    } else if let Some(automata) = one(&plain) {
        paths = false;
        automata
    } else {
        let automata = split(policy, &patterns, &plain, GROUP_BOUNDS)?;
        // As many states again as merging leaves out in most policies; beyond that it is not worth its room.
        let states = automata.iter().map(Automaton::states).sum::<usize>() * 2;
        let bounds = Bounds { raw_states: GROUP_BOUNDS.raw_states / 2, ..GROUP_BOUNDS };
        let fits = |all: &Vec<Automaton>| all.iter().map(Automaton::states).sum::<usize>() <= states;
        match with_sets(&|| split(policy, &patterns, &told, bounds).ok().filter(fits)) {
            Some(told) => told,
            None => {
                paths = false;
                automata
            }
        }
    };
    if !paths {
        sets.clear();
    }
    let mut ports = Ports::build(rules).map_err(|TooManyRanges { prefix, rules }| {
        CompileError::TooManyPorts { prefix: prefix.to_string(), rules }
    })?;
    let addresses = sets.may_be_told(false) && ports.number(&sets);
    let image = Image::new(automata, ports, policy.grants(), FirstUses { paths, addresses });
    match image.len() {
        bytes if bytes > IMAGE_BYTES => Err(CompileError::TooLarge { bytes }),
        _ => Ok(image),
    }
}

/// Automata for patterns without an inner `**`, with a leading one only, and the rest: patterns of
/// one kind hardly multiply each other, those of different kinds do.
fn split(
    policy: &ValidPolicy,
    patterns: &[(u32, &Pattern)],
    masks: SayTogether<'_>,
    bounds: Bounds,
) -> Result<Vec<Automaton>, CompileError> {
    let mut groups: [Vec<(u32, &Pattern)>; GROUPS] = Default::default();
    for (label, pattern) in patterns {
        let group = match pattern.depth_wildcards() {
            (0, _) => 0,
            (1, true) => 1,
            _ => 2,
        };
        groups[group].push((*label, pattern));
    }
    let used = groups.iter().filter(|group| !group.is_empty());
    used.map(|group| {
        Automaton::build(group, bounds, masks).map_err(|large| blame(policy, group, masks, &large))
    })
    .collect()
}

/// The patterns without which the others fit.
///
/// What explodes are places in patterns at which an automaton may or may not stand independently of
/// where it stands in others: nodes that take part in neither hardly any nor nearly all states.
fn blame(
    policy: &ValidPolicy,
    patterns: &[(u32, &Pattern)],
    masks: &dyn Fn(&[u32]) -> Masks,
    large: &TooLarge,
) -> CompileError {
    let class_of = classes(patterns, masks);
    let nfa = Nfa::new(patterns, &class_of);
    let total = f64::from(large.states.max(1));
    let entropy = |node: u32| {
        let p = f64::from(large.presence.get(node as usize).copied().unwrap_or(0)) / total;
        if p <= 0.0 || p >= 1.0 { 0.0 } else { -p * p.log2() - (1.0 - p) * (1.0 - p).log2() }
    };
    let mut ranked: Vec<(f64, usize)> = patterns
        .iter()
        .enumerate()
        .map(|(i, (label, pattern))| (nfa.path(pattern, class_of(*label)).into_iter().map(entropy).sum(), i))
        .collect();
    ranked.sort_by(|a, b| b.0.total_cmp(&a.0).then(a.1.cmp(&b.1)));
    // A tighter bound keeps the search short: what fits it fits the real one.
    let bounds = Bounds { raw_states: GROUP_BOUNDS.raw_states / 4, ..GROUP_BOUNDS };
    let fits_without = |count: usize| {
        let mut left: Vec<usize> = ranked[count..].iter().map(|(_, i)| *i).collect();
        left.sort_unstable();
        let left: Vec<(u32, &Pattern)> = left.into_iter().map(|i| patterns[i]).collect();
        Automaton::build(&left, bounds, masks).is_ok()
    };
    let mut high = 2.min(ranked.len());
    let mut low = 0;
    while high < ranked.len() && !fits_without(high) {
        low = high;
        high = (2 * high).min(ranked.len());
    }
    while high - low > 1 {
        let middle = usize::midpoint(low, high);
        if fits_without(middle) {
            high = middle;
        } else {
            low = middle;
        }
    }
    let mut rules: Vec<BlamedRule> = Vec::new();
    for (_, i) in &ranked[..high.max(2).min(ranked.len())] {
        let (label, pattern) = patterns[*i];
        let Some(rule) = policy.rules().get(label as usize) else { continue };
        let glob = rule.globs().iter().find(|glob| glob.patterns().contains(pattern));
        let blamed = BlamedRule {
            id: RuleId(label),
            origin: rule.origin().to_string(),
            glob: glob.map(ToString::to_string).unwrap_or_default(),
        };
        if !rules.contains(&blamed) {
            rules.push(blamed);
        }
    }
    CompileError::Explodes { rules }
}
