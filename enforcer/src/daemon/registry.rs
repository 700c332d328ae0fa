//! Which agents there are, which policy each has, and what must be done when the files change.
//!
//! [`plan`] is the decision, pure; `core` carries it out.

use super::enforcement::AgentSlot;
use enforcer_common::limits;
use std::{
    collections::{BTreeMap, BTreeSet},
    path::{Path, PathBuf},
};

/// What a policy file turned out to be.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Reading {
    /// The file.
    pub path: PathBuf,
    /// Whose policy it is and its digest, or what is wrong with it.
    pub outcome: Result<Claim, String>,
}

/// A good policy file.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Claim {
    /// The agent.
    pub agent: String,
    /// SHA-256 of the canonical policy.
    pub digest: [u8; 32],
}

/// What is in force for an agent.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct InForce {
    /// The file that it came from.
    pub file: PathBuf,
    /// SHA-256 of the canonical policy.
    pub digest: [u8; 32],
}

/// What to do about a set of files.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Plan {
    /// Agents whose policy must be published, and the index of its file among the readings.
    pub publish: Vec<(String, usize)>,
    /// Agents that have no file any more: refused everything from now on.
    pub retire: Vec<String>,
    /// Files that claim an agent which another file has claimed before, and what to say.
    pub refused: Vec<(usize, String)>,
}

/// Decides what to do. `in_force` is what this daemon has published, `known` every agent that the kernel
/// knows. A broken file leaves its agent as it is; a file that is gone takes its agent's policy away.
pub fn plan(readings: &[Reading], in_force: &BTreeMap<String, InForce>, known: &BTreeSet<String>) -> Plan {
    let mut plan = Plan::default();
    let mut claimed: BTreeMap<&str, usize> = BTreeMap::new();
    for (index, reading) in readings.iter().enumerate() {
        let Ok(claim) = &reading.outcome else { continue };
        match claimed.get(claim.agent.as_str()) {
            None => drop(claimed.insert(&claim.agent, index)),
            Some(first) => {
                let (name, first) = (&claim.agent, readings[*first].path.display());
                plan.refused.push((index, format!("agent {name} already has the policy {first}")));
            }
        }
    }
    let broken: BTreeSet<&Path> =
        readings.iter().filter(|r| r.outcome.is_err()).map(|r| r.path.as_path()).collect();
    for (agent, index) in &claimed {
        let Ok(claim) = &readings[*index].outcome else { continue };
        if in_force.get(*agent).is_none_or(|now| now.digest != claim.digest) {
            plan.publish.push(((*agent).to_owned(), *index));
        }
    }
    for agent in known.iter().chain(in_force.keys()).collect::<BTreeSet<_>>() {
        let kept = in_force.get(agent).is_some_and(|now| broken.contains(now.file.as_path()));
        if !claimed.contains_key(agent.as_str()) && !kept {
            plan.retire.push(agent.clone());
        }
    }
    plan
}

/// The agents' places in the kernel's table: stable by name, also across restarts.
#[derive(Clone, Debug, Default)]
pub struct Slots {
    by_name: BTreeMap<String, AgentSlot>,
    by_slot: BTreeMap<AgentSlot, String>,
    /// Every place below has an agent: they are never given back, only given to another one.
    full_below: u32,
}

impl Slots {
    /// The places that an earlier daemon gave out.
    pub fn adopt(agents: impl IntoIterator<Item = (AgentSlot, String)>) -> Self {
        let by_slot: BTreeMap<AgentSlot, String> = agents.into_iter().collect();
        Self {
            by_name: by_slot.iter().map(|(slot, name)| (name.clone(), *slot)).collect(),
            by_slot,
            full_below: 0,
        }
    }

    /// An agent's place.
    pub fn get(&self, name: &str) -> Option<AgentSlot> {
        self.by_name.get(name).copied()
    }

    /// The agent in a place.
    pub fn name(&self, slot: AgentSlot) -> Option<&str> {
        self.by_slot.get(&slot).map(String::as_str)
    }

    /// Every agent that has a place.
    pub fn names(&self) -> BTreeSet<String> {
        self.by_name.keys().cloned().collect()
    }

    /// An agent's place, a free one if it has none. A place whose sessions still run is never given to
    /// another agent: they would run under its policy. `None` where there is no place.
    pub fn allocate(
        &mut self,
        name: &str,
        alive: &BTreeSet<String>,
        in_use: &BTreeSet<AgentSlot>,
    ) -> Option<AgentSlot> {
        if let Some(slot) = self.get(name) {
            return Some(slot);
        }
        let is_free = |slot: &AgentSlot| !self.by_slot.contains_key(slot) && !in_use.contains(slot);
        let first =
            (self.full_below..limits::AGENTS).find(|slot| !self.by_slot.contains_key(&AgentSlot(*slot)));
        let from = first.unwrap_or(limits::AGENTS);
        let slot = (from..limits::AGENTS).map(AgentSlot).find(is_free).or_else(|| {
            let retired = self.by_name.iter().find(|(n, s)| !alive.contains(*n) && !in_use.contains(s));
            let (old, slot) = retired.map(|(n, s)| (n.clone(), *s))?;
            self.by_name.remove(&old);
            Some(slot)
        })?;
        self.full_below = from;
        self.by_name.insert(name.to_owned(), slot);
        self.by_slot.insert(slot, name.to_owned());
        Some(slot)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn good(path: &str, agent: &str, digest: u8) -> Reading {
        let claim = Claim { agent: agent.to_owned(), digest: [digest; 32] };
        Reading { path: path.into(), outcome: Ok(claim) }
    }

    fn broken(path: &str) -> Reading {
        Reading { path: path.into(), outcome: Err("1:1: no".to_owned()) }
    }

    fn now(entries: &[(&str, &str, u8)]) -> BTreeMap<String, InForce> {
        entries
            .iter()
            .map(|(agent, file, d)| ((*agent).to_owned(), InForce { file: file.into(), digest: [*d; 32] }))
            .collect()
    }

    fn set(names: &[&str]) -> BTreeSet<String> {
        names.iter().map(|n| (*n).to_owned()).collect()
    }

    #[test]
    fn new_and_changed_policies_are_published_and_others_left_alone() {
        let readings = [good("a", "x", 1), good("b", "y", 2), good("c", "z", 3)];
        let plan = plan(&readings, &now(&[("x", "a", 1), ("y", "b", 9)]), &set(&["x", "y"]));
        assert_eq!(plan.publish, [("y".to_owned(), 1), ("z".to_owned(), 2)]);
        assert!(plan.retire.is_empty() && plan.refused.is_empty());
    }

    #[test]
    fn a_broken_file_leaves_its_agent_with_the_last_good_policy() {
        let plan = plan(&[broken("a")], &now(&[("x", "a", 1)]), &set(&["x"]));
        assert_eq!(plan, Plan::default());
    }

    #[test]
    fn a_file_that_is_gone_takes_its_agents_policy_away() {
        let plan = plan(&[broken("b")], &now(&[("x", "a", 1)]), &set(&["x"]));
        assert_eq!(plan.retire, ["x"]);
    }

    #[test]
    fn an_agent_of_an_earlier_daemon_without_a_file_is_retired() {
        assert_eq!(plan(&[], &BTreeMap::new(), &set(&["old"])).retire, ["old"]);
    }

    #[test]
    fn two_files_for_one_agent_are_an_error_that_names_both() {
        let plan = plan(&[good("a", "x", 1), good("b", "x", 2)], &BTreeMap::new(), &set(&[]));
        assert_eq!(plan.publish, [("x".to_owned(), 0)]);
        assert_eq!(plan.refused, [(1, "agent x already has the policy a".to_owned())]);
    }

    #[test]
    fn an_agent_may_move_to_another_file() {
        let plan = plan(&[good("b", "x", 1)], &now(&[("x", "a", 1)]), &set(&["x"]));
        assert_eq!(plan, Plan::default());
    }

    #[test]
    fn places_are_stable_by_name_and_survive_a_restart() {
        let mut slots = Slots::adopt([(AgentSlot(5), "old".to_owned())]);
        let none = BTreeSet::new();
        assert_eq!(slots.allocate("old", &set(&[]), &none), Some(AgentSlot(5)));
        assert_eq!(slots.allocate("new", &set(&[]), &none), Some(AgentSlot(0)));
        assert_eq!(slots.allocate("new", &set(&[]), &none), Some(AgentSlot(0)));
        assert_eq!(slots.name(AgentSlot(5)), Some("old"));
    }

    #[test]
    fn a_place_with_sessions_is_never_given_to_another_agent() {
        let mut slots = Slots::default();
        let in_use = BTreeSet::from([AgentSlot(0), AgentSlot(1)]);
        assert_eq!(slots.allocate("a", &set(&[]), &in_use), Some(AgentSlot(2)));
    }

    #[test]
    fn a_full_table_gives_the_place_of_a_retired_agent_without_sessions() {
        let all = (0..limits::AGENTS).map(|n| (AgentSlot(n), format!("a{n}")));
        let mut slots = Slots::adopt(all);
        let alive: BTreeSet<String> = slots.names().into_iter().filter(|n| n != "a7" && n != "a9").collect();
        assert_eq!(slots.allocate("b", &alive, &BTreeSet::from([AgentSlot(7)])), Some(AgentSlot(9)));
        assert_eq!(slots.allocate("c", &alive, &BTreeSet::from([AgentSlot(7), AgentSlot(9)])), None);
    }
}
