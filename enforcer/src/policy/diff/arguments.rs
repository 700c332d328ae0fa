//! Rules about arguments, content and parents. What they say is not in the automata, so they are compared as they are written, and every
//! difference counts.

use super::Direction;
use crate::policy::{Effect, Tier, ValidPolicy};
use std::collections::BTreeSet;

/// Every one: whether it allows, and its text.
pub(super) fn rules(policy: &ValidPolicy) -> BTreeSet<(bool, String)> {
    let with = policy.rules().iter().filter(|rule| !rule.condition().is_none());
    with.map(|rule| {
        let paths: Vec<&str> = rule.globs().iter().map(|glob| glob.text()).collect();
        let tier = match rule.tier() {
            None | Some(Tier::Low) => String::new(),
            Some(tier) => format!(", tier {}", format!("{tier:?}").to_lowercase()),
        };
        let text = format!("{} {}{}{tier}", rule.effect().name(), paths.join(" "), rule.condition());
        (rule.effect() == Effect::Allow, text)
    })
    .collect()
}

pub(super) fn text(rules: &BTreeSet<(bool, String)>) -> String {
    let texts: Vec<&str> = rules.iter().map(|(_, text)| text.as_str()).collect();
    if texts.is_empty() { "none".to_owned() } else { texts.join("; ") }
}

/// What the second policy has more and less than the first, by what it does to the agent.
pub(super) fn weigh(a: &BTreeSet<(bool, String)>, b: &BTreeSet<(bool, String)>) -> Vec<Direction> {
    let grants = b.difference(a).any(|(allows, _)| *allows) || a.difference(b).any(|(allows, _)| !allows);
    let takes = b.difference(a).any(|(allows, _)| !allows) || a.difference(b).any(|(allows, _)| *allows);
    [(grants, Direction::Grants), (takes, Direction::TakesAway)]
        .into_iter()
        .filter_map(|(is, direction)| is.then_some(direction))
        .collect()
}
