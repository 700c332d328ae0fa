//! Which agents there are, which policy each has, and what must be done when the files change.
//!
//! [`Plan`] is the decision, pure; `reload` carries it out.

use super::enforcement::AgentSlot;
use enforcer_common::limits;
use std::{
    collections::{BTreeMap, BTreeSet},
    path::PathBuf,
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

/// What to do about a set of files, one after the other.
#[derive(Clone, Debug, Default)]
pub struct Plan {
    /// Which file has an agent.
    claimed: BTreeMap<String, PathBuf>,
    broken: BTreeSet<PathBuf>,
}

/// What to do about a file.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Due {
    /// Publish it: the policy of this agent is new or has changed.
    Publish(String),
    /// Leave what is in force.
    Nothing,
    /// It claims an agent that another file has claimed before: what to say.
    Refuse(String),
}

impl Plan {
    /// Decides about the next file. `in_force` is what this daemon had published before the first. A broken file leaves
    /// its agent as it is.
    pub fn next(&mut self, reading: Reading, in_force: &BTreeMap<String, InForce>) -> Due {
        let Ok(Claim { agent, digest }) = reading.outcome else {
            self.broken.insert(reading.path);
            return Due::Nothing;
        };
        if let Some(first) = self.claimed.get(&agent) {
            return Due::Refuse(format!("agent {agent} already has the policy {}", first.display()));
        }
        self.claimed.insert(agent.clone(), reading.path);
        let is_new = in_force.get(&agent).is_none_or(|now| now.digest != digest);
        if is_new { Due::Publish(agent) } else { Due::Nothing }
    }

    /// After the last file: the agents that have none any more, to be refused everything from now on. `known` is every
    /// agent that the kernel knows.
    pub fn retire(&self, in_force: &BTreeMap<String, InForce>, known: &BTreeSet<String>) -> Vec<String> {
        let kept = |agent: &String| in_force.get(agent).is_some_and(|now| self.broken.contains(&now.file));
        let all: BTreeSet<&String> = known.iter().chain(in_force.keys()).collect();
        let gone = all.into_iter().filter(|agent| !self.claimed.contains_key(*agent) && !kept(agent));
        gone.cloned().collect()
    }
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

    /// What becomes of each file, and who is retired.
    fn plan(
        readings: &[Reading],
        in_force: &BTreeMap<String, InForce>,
        known: &BTreeSet<String>,
    ) -> (Vec<Due>, Vec<String>) {
        let mut plan = Plan::default();
        let due = readings.iter().map(|reading| plan.next(reading.clone(), in_force)).collect();
        (due, plan.retire(in_force, known))
    }

    fn publish(agent: &str) -> Due {
        Due::Publish(agent.to_owned())
    }

    #[test]
    fn new_and_changed_policies_are_published_and_others_left_alone() {
        let readings = [good("a", "x", 1), good("b", "y", 2), good("c", "z", 3)];
        let (due, retire) = plan(&readings, &now(&[("x", "a", 1), ("y", "b", 9)]), &set(&["x", "y"]));
        assert_eq!(due, [Due::Nothing, publish("y"), publish("z")]);
        assert!(retire.is_empty());
    }

    #[test]
    fn a_broken_file_leaves_its_agent_with_the_last_good_policy() {
        let planned = plan(&[broken("a")], &now(&[("x", "a", 1)]), &set(&["x"]));
        assert_eq!(planned, (vec![Due::Nothing], vec![]));
    }

    #[test]
    fn a_file_that_is_gone_takes_its_agents_policy_away() {
        let (_, retire) = plan(&[broken("b")], &now(&[("x", "a", 1)]), &set(&["x"]));
        assert_eq!(retire, ["x"]);
    }

    #[test]
    fn an_agent_of_an_earlier_daemon_without_a_file_is_retired() {
        assert_eq!(plan(&[], &BTreeMap::new(), &set(&["old"])).1, ["old"]);
    }

    #[test]
    fn two_files_for_one_agent_are_an_error_that_names_both() {
        let (due, _) = plan(&[good("a", "x", 1), good("b", "x", 2)], &BTreeMap::new(), &set(&[]));
        let error = "agent x already has the policy a".to_owned();
        assert_eq!(due, [publish("x"), Due::Refuse(error)]);
    }

    #[test]
    fn an_agent_may_move_to_another_file() {
        let planned = plan(&[good("b", "x", 1)], &now(&[("x", "a", 1)]), &set(&["x"]));
        assert_eq!(planned, (vec![Due::Nothing], vec![]));
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
