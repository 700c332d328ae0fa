//! What becomes of one operation under two policies, at every level of trust.

use crate::policy::{
    rule::{Section, Trust, trust_tiers},
    valid::ValidPolicy,
    validate::word,
};
use enforcer_common::{
    access::{file, net},
    map::{Masks, TierMap},
    verdict::{Folded, Verdict},
};
use serde::{Serialize, Serializer};
use std::collections::BTreeMap;

/// Whether something became allowed, or easier to get.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize)]
#[serde(rename_all = "kebab-case")]
pub enum Direction {
    /// The second policy allows what the first does not.
    Grants,
    /// The second policy refuses what the first does not.
    TakesAway,
}

/// A verdict that differs.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize)]
pub struct Step {
    /// The level of trust at which it differs.
    pub trust: Trust,
    /// The verdict of the first policy.
    #[serde(serialize_with = "verdict")]
    pub from: Verdict,
    /// The verdict of the second.
    #[serde(serialize_with = "verdict")]
    pub to: Verdict,
}

#[expect(clippy::trivially_copy_pass_by_ref, reason = "the signature that serde asks for")]
fn verdict<S: Serializer>(verdict: &Verdict, serializer: S) -> Result<S::Ok, S::Error> {
    serializer.serialize_str(word(*verdict))
}

/// How the verdicts on some operations differ: all steps go in one direction.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(super) struct Change {
    pub(super) direction: Direction,
    pub(super) steps: Vec<Step>,
}

/// What tiers mean in sessions of either policy, by the trust that was stated about the agent.
pub(super) struct Levels(Vec<(Trust, TierMap, TierMap)>);

impl Levels {
    /// Every level, or the one that is asked about. Neither policy gives more trust than it says.
    pub(super) fn new(a: &ValidPolicy, b: &ValidPolicy, only: Option<Trust>) -> Self {
        let all = [Trust::Probation, Trust::Supervised, Trust::Trusted, Trust::Autonomous];
        let tiers = |policy: &ValidPolicy, level| trust_tiers(policy.trust_in_force(Some(level)));
        let asked = all.into_iter().filter(|level| only.is_none_or(|only| only == *level));
        Self(asked.map(|level| (level, tiers(a, level), tiers(b, level))).collect())
    }

    /// The tiers of both policies at a level.
    pub(super) fn at(&self, trust: Trust) -> Option<(TierMap, TierMap)> {
        self.0.iter().find(|(level, _, _)| *level == trust).map(|(_, a, b)| (*a, *b))
    }

    /// Whether equal masks are equal answers.
    pub(super) fn same_tiers(&self) -> bool {
        self.0.iter().all(|(_, a, b)| a == b)
    }

    /// The operations that masks of the two policies answer differently, by how.
    pub(super) fn changes(&self, section: Section, a: &Masks, b: &Masks) -> BTreeMap<Change, u16> {
        let mut changes = BTreeMap::new();
        if a == b && self.same_tiers() {
            return changes;
        }
        let names: &[(u16, &str)] = match section {
            Section::Network => &net::NAMES,
            Section::Files | Section::Exec | Section::Unix => &file::NAMES,
        };
        let folded: Vec<(Trust, Folded, Folded)> =
            self.0.iter().map(|(level, x, y)| (*level, a.fold(x), b.fold(y))).collect();
        for (bit, _) in names {
            let (mut grants, mut takes) = (Vec::new(), Vec::new());
            for (trust, a, b) in &folded {
                let (from, to) = (answer(section, a, *bit), answer(section, b, *bit));
                let step = Step { trust: *trust, from, to };
                match to.cmp(&from) {
                    std::cmp::Ordering::Less => grants.push(step),
                    std::cmp::Ordering::Greater => takes.push(step),
                    std::cmp::Ordering::Equal => {}
                }
            }
            for (direction, steps) in [(Direction::Grants, grants), (Direction::TakesAway, takes)] {
                if !steps.is_empty() {
                    *changes.entry(Change { direction, steps }).or_insert(0) |= bit;
                }
            }
        }
        changes
    }
}

/// The verdict on one operation by itself. That on several is the strictest of theirs, so this is all
/// that can differ.
fn answer(section: Section, folded: &Folded, bit: u16) -> Verdict {
    match section {
        Section::Files | Section::Exec if bit == file::LOAD => folded.map_verdict(),
        _ => folded.verdict(bit),
    }
}
