//! What a policy means: the verdicts that tables and kernel programs must reproduce.
//!
//! Paths are matched here by going back and forth over components and bytes, rule by rule, with
//! nothing compiled. Paths may be given with or without their leading slash.

use super::{
    condition::Run,
    glob::{Atom, Component, Glob, Pattern},
    image::Image,
    rule::{Rule, RuleId},
    valid::ValidPolicy,
};
use enforcer_common::{
    access::file,
    address::Address,
    map::{Masks, TierMap},
    verdict::{Folded, Verdict},
};

/// Whether a glob matches a path.
pub fn matches(glob: &Glob, path: &[u8]) -> bool {
    let names = names(path);
    glob.patterns().iter().any(|pattern| pattern_matches(pattern, &names))
}

/// Whether one alternative of a glob matches a path.
pub fn matches_pattern(pattern: &Pattern, path: &[u8]) -> bool {
    pattern_matches(pattern, &names(path))
}

fn names(path: &[u8]) -> Vec<&[u8]> {
    let path = path.strip_prefix(b"/").unwrap_or(path);
    if path.is_empty() { Vec::new() } else { path.split(|byte| *byte == b'/').collect() }
}

fn pattern_matches(pattern: &Pattern, names: &[&[u8]]) -> bool {
    sequence_matches(pattern.components(), names, name_matches)
}

/// Whether components stand for a whole sequence of names, each of which `fits` its component.
pub(super) fn sequence_matches(
    components: &[Component],
    names: &[&[u8]],
    fits: fn(&[Atom], &[u8]) -> bool,
) -> bool {
    // `reached[i]`: the components so far can stand for the first i names.
    let mut reached = vec![false; names.len() + 1];
    reached[0] = true;
    for component in components {
        reached = match component {
            Component::AnyDepth => {
                let mut open = false;
                let step = |here: &bool| {
                    open |= *here;
                    open
                };
                reached.iter().map(step).collect()
            }
            Component::Name(atoms) => {
                let stepped = names.iter().zip(&reached).map(|(name, here)| *here && fits(atoms, name));
                std::iter::once(false).chain(stepped).collect()
            }
        };
    }
    reached[names.len()]
}

fn name_matches(atoms: &[Atom], name: &[u8]) -> bool {
    !name.is_empty() && bytes_match(atoms, name)
}

/// Whether the atoms stand for these bytes.
pub(super) fn bytes_match(atoms: &[Atom], name: &[u8]) -> bool {
    let (mut a, mut n) = (0, 0);
    // Where to go on if the last star takes one byte more.
    let mut retry: Option<(usize, usize)> = None;
    loop {
        let fits = match (atoms.get(a), name.get(n)) {
            (None, None) => return true,
            (Some(Atom::Star), _) => {
                retry = Some((a, n));
                a += 1;
                continue;
            }
            (Some(Atom::Byte(byte)), Some(found)) => byte == found,
            (Some(Atom::Set(set)), Some(found)) => set.contains(*found),
            (None, Some(_)) | (Some(_), None) => false,
        };
        if fits {
            a += 1;
            n += 1;
            continue;
        }
        match retry {
            Some((star, taken)) if taken < name.len() => {
                retry = Some((star, taken + 1));
                a = star + 1;
                n = taken + 1;
            }
            _ => return false,
        }
    }
}

/// The rules about files and programs whose paths include this one.
pub fn rules_at_path(policy: &ValidPolicy, path: &[u8]) -> Vec<RuleId> {
    let names = names(path);
    policy.numbered_rules().filter(|(_, rule)| includes(rule, &names)).map(|(id, _)| id).collect()
}

/// Those of some rules whose paths include this one.
pub fn rules_among(policy: &ValidPolicy, mut rules: Vec<RuleId>, path: &[u8]) -> Vec<RuleId> {
    let names = names(path);
    rules.retain(|id| policy.rule(*id).is_some_and(|rule| includes(rule, &names)));
    rules
}

/// Whether a glob stands for this path.
pub(super) fn glob_matches(glob: &Glob, path: &[u8]) -> bool {
    let names = names(path);
    glob.patterns().iter().any(|pattern| pattern_matches(pattern, &names))
}

fn includes(rule: &Rule, names: &[&[u8]]) -> bool {
    rule.globs().iter().any(|glob| glob.patterns().iter().any(|pattern| pattern_matches(pattern, names)))
}

/// What the rules together say about a path.
pub fn masks_at_path(policy: &ValidPolicy, path: &[u8]) -> Masks {
    joined(policy, &rules_at_path(policy, path))
}

/// What some rules say together.
pub(super) fn joined(policy: &ValidPolicy, rules: &[RuleId]) -> Masks {
    let mut masks = Masks::NONE;
    for rule in rules.iter().filter_map(|id| policy.rule(*id)) {
        masks.join(&rule.masks());
    }
    masks
}

/// The verdict on doing all of `want` to the object at `path`, and the rules that decide it.
pub fn file_verdict(policy: &ValidPolicy, path: &[u8], want: u16, tiers: &TierMap) -> (Verdict, Vec<RuleId>) {
    let rules = rules_at_path(policy, path);
    let verdict = joined(policy, &rules).fold(tiers).verdict(want);
    (verdict, deciders(policy, &rules, want, verdict, tiers))
}

/// The verdict on one run of a program, where `rules` are those that match its path, and the rules that decide it.
/// That the program may be executed was decided before, by a person where rules leave it to one. What a rule depends on
/// and cannot be told is denied.
pub fn arguments_verdict(
    policy: &ValidPolicy,
    rules: &[RuleId],
    run: &Run<'_>,
    tiers: &TierMap,
) -> (Verdict, Vec<RuleId>) {
    let said = |rule: &Rule| {
        let said = rule.plain_masks().fold(tiers);
        match (rule.condition().is_none(), rule.condition().is_met(run)) {
            _ if rule.operations() & file::EXEC == 0 => None,
            (true, _) => Some(Folded { allow: said.allow | said.hold, hold: 0, deny: said.deny }),
            (false, Some(met)) => met.then_some(said),
            (false, None) => Some(Folded { allow: 0, hold: 0, deny: file::EXEC }),
        }
    };
    let said: Vec<(RuleId, Folded)> =
        rules.iter().filter_map(|id| Some((*id, said(policy.rule(*id)?)?))).collect();
    let none = Folded { allow: 0, hold: 0, deny: 0 };
    let all = said.iter().fold(none, |all, (_, one)| Folded {
        allow: all.allow | one.allow,
        hold: all.hold | one.hold,
        deny: all.deny | one.deny,
    });
    let verdict = all.verdict(file::EXEC);
    let deciding = said.iter().filter(|(_, one)| of(one, verdict) & file::EXEC != 0);
    (verdict, deciding.map(|(id, _)| *id).collect())
}

/// The verdict on executing the program at `path` like this, and the rules that decide it: whether it may be executed
/// at all, and if so whether like this.
pub fn run_verdict(
    policy: &ValidPolicy,
    path: &[u8],
    run: &Run<'_>,
    tiers: &TierMap,
) -> (Verdict, Vec<RuleId>) {
    let rules = rules_at_path(policy, path);
    let (verdict, deciding) = file_verdict(policy, path, file::EXEC, tiers);
    if verdict == Verdict::Deny || joined(policy, &rules).deny & file::ANY_ARGUMENTS == 0 {
        return (verdict, deciding);
    }
    let (then, more) = arguments_verdict(policy, &rules, run, tiers);
    if then < verdict { (verdict, deciding) } else { (then, more) }
}

/// The operations that have a verdict.
fn of(said: &Folded, verdict: Verdict) -> u16 {
    match verdict {
        Verdict::Deny => said.deny,
        Verdict::Hold => said.hold,
        Verdict::Allow => said.allow,
    }
}

/// The verdict on mapping the file at `path` executable, and the rules that decide it.
pub fn map_verdict(policy: &ValidPolicy, path: &[u8], tiers: &TierMap) -> (Verdict, Vec<RuleId>) {
    let rules = rules_at_path(policy, path);
    let verdict = joined(policy, &rules).fold(tiers).map_verdict();
    let want = match verdict {
        Verdict::Allow | Verdict::Hold => file::EXEC | file::LOAD,
        Verdict::Deny => file::LOAD,
    };
    (verdict, deciders(policy, &rules, want, verdict, tiers))
}

/// A rename that is asked about.
#[derive(Clone, Copy, Debug)]
pub struct Rename<'a> {
    /// The old name.
    pub from: &'a [u8],
    /// The new name.
    pub to: &'a [u8],
    /// Whether a directory is renamed.
    pub is_directory: bool,
    /// Whether something has the new name already.
    pub replaces: bool,
}

/// The verdict on a rename, and the rules that decide it.
///
/// Besides giving up one name and making the other, an object must not gain rights by moving, and
/// neither must anything below a directory: the two names have to be equal for all that may follow,
/// which is a question to the compiled `image`.
pub fn rename_verdict(
    policy: &ValidPolicy,
    image: &Image,
    rename: &Rename<'_>,
    tiers: &TierMap,
) -> (Verdict, Vec<RuleId>) {
    let Rename { from, to, is_directory, replaces } = *rename;
    let give = file::DELETE | file::RENAME;
    let take = file::CREATE | file::WRITE | if replaces { file::DELETE } else { 0 };
    let (source, mut rules) = file_verdict(policy, from, give, tiers);
    let (target, more) = file_verdict(policy, to, take, tiers);
    let carries = if is_directory {
        image.same_directory(from, to)
    } else {
        folded(policy, from, tiers).may_become(&folded(policy, to, tiers))
    };
    if !carries && source.max(target) != Verdict::Deny {
        // What stands in the way are the rights at either name.
        let mut rules = rules_at_path(policy, from);
        rules.extend(rules_at_path(policy, to));
        return (Verdict::Deny, sorted(rules));
    }
    let verdict = source.max(target);
    match (source == verdict, target == verdict) {
        (true, true) => rules.extend(more),
        (false, _) => rules = more,
        (true, false) => {}
    }
    (verdict, sorted(rules))
}

/// The verdict on exchanging two names, each given with whether it is a directory's.
pub fn exchange_verdict(
    policy: &ValidPolicy,
    image: &Image,
    one: (&[u8], bool),
    other: (&[u8], bool),
    tiers: &TierMap,
) -> (Verdict, Vec<RuleId>) {
    let want = file::DELETE | file::RENAME | file::CREATE | file::WRITE;
    let (first, mut rules) = file_verdict(policy, one.0, want, tiers);
    let (second, more) = file_verdict(policy, other.0, want, tiers);
    let (a, b) = (folded(policy, one.0, tiers), folded(policy, other.0, tiers));
    let same = !(one.1 || other.1) || image.same_directory(one.0, other.0);
    let carries = same && (one.1 || a.may_become(&b)) && (other.1 || b.may_become(&a));
    let verdict = first.max(second);
    if !carries && verdict != Verdict::Deny {
        rules = rules_at_path(policy, one.0);
        rules.extend(rules_at_path(policy, other.0));
        return (Verdict::Deny, sorted(rules));
    }
    if first != verdict {
        rules = more;
    } else if second == verdict {
        rules.extend(more);
    }
    (verdict, sorted(rules))
}

/// The verdict on giving the file at `from` the further name `to`, and the rules that decide it.
pub fn link_verdict(policy: &ValidPolicy, from: &[u8], to: &[u8], tiers: &TierMap) -> (Verdict, Vec<RuleId>) {
    let (verdict, rules) = file_verdict(policy, to, file::CREATE | file::LINK, tiers);
    let allowed = folded(policy, from, tiers).may_also_be(&folded(policy, to, tiers));
    if !allowed && verdict != Verdict::Deny {
        let mut rules = rules_at_path(policy, from);
        rules.extend(rules_at_path(policy, to));
        return (Verdict::Deny, sorted(rules));
    }
    (verdict, rules)
}

/// The operations at a path by what becomes of them.
pub fn folded(policy: &ValidPolicy, path: &[u8], tiers: &TierMap) -> Folded {
    masks_at_path(policy, path).fold(tiers)
}

/// The rules whose addresses include this one.
pub fn rules_at_address(policy: &ValidPolicy, address: Address, port: u16, protocol: u8) -> Vec<RuleId> {
    let hit =
        |rule: &Rule| rule.endpoints().iter().any(|endpoint| endpoint.matches(&address, port, protocol));
    policy.numbered_rules().filter(|(_, rule)| hit(rule)).map(|(id, _)| id).collect()
}

/// The verdict on doing `want` with an address, and the rules that decide it.
pub fn net_verdict(
    policy: &ValidPolicy,
    address: Address,
    port: u16,
    protocol: u8,
    want: u16,
    tiers: &TierMap,
) -> (Verdict, Vec<RuleId>) {
    let rules = rules_at_address(policy, address, port, protocol);
    let verdict = joined(policy, &rules).fold(tiers).verdict(want);
    (verdict, deciders(policy, &rules, want, verdict, tiers))
}

/// Those of the matching rules that say what became the verdict on `want`. None decides a denial
/// that is for want of a rule.
pub fn deciders(
    policy: &ValidPolicy,
    matching: &[RuleId],
    want: u16,
    verdict: Verdict,
    tiers: &TierMap,
) -> Vec<RuleId> {
    let says = |rule: &Rule| of(&rule.masks().fold(tiers), verdict) & want != 0;
    matching.iter().copied().filter(|id| policy.rule(*id).is_some_and(says)).collect()
}

fn sorted(mut rules: Vec<RuleId>) -> Vec<RuleId> {
    rules.sort_unstable();
    rules.dedup();
    rules
}
