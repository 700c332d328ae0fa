//! Reading the policies and bringing the kernel in line with them.

use super::{
    canary,
    core::{AgentState, Core, boot_time},
    enforcement::{AgentSlot, EnforcementError, Linked, PublishedPolicy},
    loaded::Kept,
    memory,
    policies::{PolicyFile, fingerprint, paths},
    progress,
    registry::{Due, InForce, Plan},
};
use crate::{
    control::message::FileStatus, event::text::hex, links::Links, policy, trust::change::World as _,
};
use serde_json::{Value, json};
use sha2::{Digest, Sha256};
use std::{
    collections::{BTreeMap, BTreeSet},
    path::{Path, PathBuf},
    rc::Rc,
};

/// What a reload did.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(crate) struct Outcome {
    /// Agents whose policy was published or replaced.
    pub published: Vec<String>,
    /// Agents that lost their policy.
    pub retired: Vec<String>,
    /// What is wrong.
    pub problems: Vec<String>,
}

/// Agents that live, and places that sessions refer to. Looked at once for all that a reload publishes: until it ends
/// only agents that live get sessions.
pub(super) struct Taken {
    alive: BTreeSet<String>,
    in_use: BTreeSet<AgentSlot>,
}

/// A policy that an agent has got.
pub(super) struct InForceNow {
    pub(super) slot: AgentSlot,
    pub(super) published: PublishedPolicy,
    pub(super) links: Links,
}

/// Policies whose rules and tables stay in memory from a reload to their first use: they are most often asked for soon
/// where there are few.
pub(super) const FEW: usize = 16;

impl Core {
    /// Reads every policy and publishes what has changed, one after the other, so that the tables of many agents are never
    /// in memory together. Whatever goes wrong leaves in force what was.
    pub(crate) fn reload(&mut self) -> Outcome {
        let mut outcome = Outcome::default();
        let (directory, roots) = (self.settings.paths.policies.clone(), self.roots());
        // Before it is read: what changes meanwhile is seen to have changed.
        self.read_as = fingerprint(&directory).ok();
        let begun =
            paths(&directory).map_err(|error| format!("cannot read {}: {error}", directory.display()));
        let begun = begun.and_then(|paths| {
            let taken = self
                .taken()
                .map_err(|error| format!("cannot tell which agents run: {error}; nothing is published"))?;
            Ok((paths, taken))
        });
        let (paths, mut taken) = match begun {
            Ok(begun) => begun,
            Err(problem) => {
                // The next look tries again.
                self.read_as = None;
                tracing::error!("{problem}");
                outcome.problems.push(problem);
                return outcome;
            }
        };
        let in_force = self.in_force();
        let homes: BTreeSet<PathBuf> = in_force.values().map(|now| now.file.clone()).collect();
        self.links.begin();
        let (before, mut plan) = (std::mem::take(&mut self.known), Plan::default());
        let mut files = Vec::with_capacity(paths.len());
        let (mut moved, mut looked) = (Vec::new(), Vec::new());
        for path in paths {
            let mut file = PolicyFile::read(path, &roots, &before);
            if let Ok(kept) = &file.outcome {
                self.known.insert(file.path.clone(), Rc::clone(kept));
            }
            let own_error = file.outcome.as_ref().err().cloned();
            if own_error.is_some() && !homes.contains(&file.path) {
                self.bring_back_last_good(&mut file, &roots);
            }
            let mut status = status(&file, own_error);
            match (plan.next(file.reading(), &in_force), &file.outcome) {
                (Due::Publish(agent), Ok(kept)) => match self.publish(&agent, &file.path, kept, &mut taken) {
                    Ok(links) => {
                        looked.extend(links.looked.map(|looked| (agent.clone(), looked)));
                        outcome.published.push(agent);
                    }
                    Err(error) => {
                        let stays =
                            if self.agents.contains_key(&agent) { "; the earlier one stays" } else { "" };
                        status.error = Some(format!("cannot publish the policy: {error}{stays}"));
                    }
                },
                (Due::Refuse(error), kept) => {
                    status.error = Some(error);
                    if let Ok(kept) = kept {
                        kept.let_go();
                    }
                }
                (Due::Publish(_) | Due::Nothing, outcome) => {
                    // An agent whose policy is unchanged may live in another file now.
                    let claim = outcome.as_ref().ok().filter(|_| status.error.is_none());
                    moved.extend(claim.map(|kept| (kept.head().id().to_owned(), file.path.clone())));
                }
            }
            if let Ok(kept) = &file.outcome
                && files.len() >= FEW
            {
                kept.let_go();
            }
            files.push(status);
        }
        self.files = files;
        outcome.published.sort();
        self.look_again(&looked);
        for (agent, file) in moved {
            if let Some(state) = self.agents.get_mut(&agent) {
                state.file = file;
            }
        }
        let mut known = self.slots.names();
        // The daemon's own agent has no file.
        known.remove(canary::AGENT);
        let retire = plan.retire(&in_force, &known);
        for agent in &retire {
            self.links_incomplete.remove(agent);
            self.agents.remove(agent);
        }
        self.apply_trust();
        self.publish_matcher();
        self.retire_all(retire, &mut outcome);
        self.refill();
        self.say(&mut outcome);
        if self.files.len() > FEW {
            memory::give_back();
        }
        outcome
    }

    /// Reads the policies if they are not those that were read: the kernel may not have told of a change. Only what is the
    /// same as the last time: what is still being written is not a policy yet, and its end will be told.
    pub(crate) fn reload_what_is_stale(&mut self) {
        match fingerprint(&self.settings.paths.policies) {
            Ok(now) if self.read_as == Some(now) => self.stale_as = None,
            Ok(now) if self.stale_as.replace(now) != Some(now) => {}
            Ok(_) => {
                tracing::warn!("the policies have changed unnoticed");
                self.reload();
            }
            Err(error) => tracing::error!(%error, "cannot tell whether the policies have changed"),
        }
    }

    fn in_force(&self) -> BTreeMap<String, InForce> {
        let entry = |(name, state): (&String, &AgentState)| {
            let digest = state.policy.head().digest();
            (name.clone(), InForce { file: state.file.clone(), digest })
        };
        self.agents.iter().map(entry).collect()
    }

    /// After a restart the kernel still enforces what was good: a file that is broken now is replaced by
    /// its last good text, so that the agent does not lose what it has.
    fn bring_back_last_good(&self, file: &mut PolicyFile, roots: &[String]) {
        let Some(last) = self.last_good.load(&file.path, roots) else { return };
        let agent = last.head().id();
        if self.slots.get(agent).is_some() && !self.agents.contains_key(agent) {
            file.outcome = Ok(Rc::new(last));
        }
    }

    /// Whose places must not be given to others.
    pub(super) fn taken(&self) -> Result<Taken, EnforcementError> {
        let own = std::iter::once(canary::AGENT.to_owned());
        Ok(Taken { alive: self.agents.keys().cloned().chain(own).collect(), in_use: self.slots_in_use()? })
    }

    fn publish(
        &mut self,
        agent: &str,
        file: &Path,
        kept: &Rc<Kept>,
        taken: &mut Taken,
    ) -> Result<Links, EnforcementError> {
        let (policy, before) = (kept.head(), self.before(agent, Some(kept.head())));
        let is_new = self.numbers.current(agent).is_none();
        let has_sessions = self.slots.get(agent).is_some_and(|slot| taken.in_use.contains(&slot));
        self.will_look(agent, &before, policy.on_tighten(), has_sessions);
        // A lower ceiling counts for sessions that run before the policy does, a higher one after it.
        self.lower_ceiling(agent, policy.trust())?;
        let InForceNow { slot, published, links } = self.put_in_force(agent, file, kept, taken)?;
        taken.alive.insert(agent.to_owned());
        // It counts as applied once nobody is left who holds open what it refuses, if it says so.
        self.look_at_open(agent, slot, before, Some(&kept.whole()));
        self.say_published(agent, file, kept, &published, &links);
        let state = AgentState { slot, file: file.to_owned(), policy: Rc::clone(kept), published };
        self.agents.insert(agent.to_owned(), state);
        // What waits is judged by the new policy, at the level that it allows. An agent that had none has no sessions.
        if (!is_new || taken.in_use.contains(&slot))
            && let Err(error) = self.activate(agent, self.level(agent, policy.trust()))
        {
            tracing::error!(error, "cannot bring the sessions of {agent} in line with its trust");
        }
        if let Err(error) = self.last_good.keep(file, kept.text()) {
            tracing::warn!(%error, "cannot keep the policy of {agent} for a restart");
        }
        Ok(links)
    }

    /// Makes a policy the agent's in the kernel, noted.
    pub(super) fn put_in_force(
        &mut self,
        agent: &str,
        file: &Path,
        kept: &Rc<Kept>,
        taken: &Taken,
    ) -> Result<InForceNow, EnforcementError> {
        let slot = self.slots.allocate(agent, &taken.alive, &taken.in_use).ok_or(EnforcementError::Full {
            what: "the table of agents".to_owned(),
            limit: u64::from(enforcer_common::limits::AGENTS),
        })?;
        let (enforcement, numbers) = (&mut self.enforcement, &mut self.numbers);
        let mut noted = None;
        // Whatever the kernel may name is known before, also to the next daemon.
        let mut note = |published: &PublishedPolicy| {
            numbers.note(file, kept, published);
            noted = Some(published.id);
        };
        let whole = kept.whole();
        let mut links = self.links.find(&whole.policy, &whole.image);
        let (linked, too_many) = Linked::new(&links.files, enforcement.room_for_links());
        let published = enforcement.publish(slot, agent, &whole.policy, &whole.image, linked, &mut note);
        links.incomplete = too_many.or(links.incomplete);
        let published = match (published, noted) {
            (Err(error), Some(number)) => {
                self.numbers.withdraw(number);
                return Err(error);
            }
            (published, _) => published?,
        };
        self.numbers.in_force(agent, Some(published.id), boot_time());
        self.note_links(agent, links.incomplete.clone());
        Ok(InForceNow { slot, published, links })
    }

    /// Records that a policy is in force.
    pub(super) fn say_published(
        &mut self,
        agent: &str,
        file: &Path,
        kept: &Rc<Kept>,
        published: &PublishedPolicy,
        links: &Links,
    ) {
        let policy = kept.head();
        self.record(
            "policy-published",
            json!({
                "agent": agent, "file": file.display().to_string(), "number": published.id,
                "owner": policy.owner(),
                "policy": {"id": policy.id(), "version": policy.version(), "digest": hex(&policy.digest())},
                "image": hex(&published.image_digest),
                "first_uses_of": kept.first_uses(),
                "linked_files": links.files.len(), "links_incomplete": links.incomplete,
                "trust": {"ceiling": policy.trust().name(), "in_force": self.level(agent, policy.trust()).name()},
            }),
        );
    }

    fn publish_matcher(&mut self) {
        let wanted: Vec<(AgentSlot, Vec<String>)> = self
            .agents
            .values()
            .map(|a| (a.slot, a.policy.head().cgroups().iter().map(|g| g.text().to_owned()).collect()))
            .collect();
        if self.matched.as_ref() == Some(&wanted) {
            self.matcher_error = None;
            return;
        }
        let agents: Vec<policy::AgentMatch<'_>> = self
            .agents
            .iter()
            .map(|(name, a)| (a.slot.0, name.as_str(), a.policy.head().cgroups()))
            .collect();
        let image = match policy::matcher(&agents) {
            Ok(image) => image,
            Err(error) => {
                self.matcher_error = Some(format!("{error}; the earlier assignment stays"));
                return;
            }
        };
        match self.enforcement.publish_matcher(&image) {
            Ok(()) => (self.matched, self.matcher_error) = (Some(wanted), None),
            Err(error) => self.matcher_error = Some(error.to_string()),
        }
    }

    /// Takes the policies of agents away.
    fn retire_all(&mut self, agents: Vec<String>, outcome: &mut Outcome) {
        if agents.is_empty() {
            return;
        }
        let known = match self.enforcement.agents() {
            Ok(known) => known,
            Err(error) => {
                outcome.problems.push(format!("cannot take away policies: {error}"));
                return;
            }
        };
        let has_one: BTreeSet<AgentSlot> =
            known.iter().filter(|(_, _, policy)| *policy != 0).map(|(slot, _, _)| *slot).collect();
        for agent in agents {
            progress::goes_on();
            let Some(slot) = self.slots.get(&agent).filter(|slot| has_one.contains(slot)) else { continue };
            match self.retire(&agent, slot) {
                Ok(()) => outcome.retired.push(agent),
                Err(error) => {
                    outcome.problems.push(format!("cannot take away the policy of {agent}: {error}"));
                }
            }
        }
    }

    fn retire(&mut self, agent: &str, slot: AgentSlot) -> Result<(), EnforcementError> {
        let before = self.before(agent, None);
        self.will_look(agent, &before, before.on_tighten(), true);
        self.enforcement.retire(slot)?;
        self.numbers.in_force(agent, None, boot_time());
        self.record("policy-retired", json!({"agent": agent}));
        self.look_at_open(agent, slot, before, None);
        Ok(())
    }

    fn say(&mut self, outcome: &mut Outcome) {
        for file in &self.files {
            if let Some(error) = &file.error {
                outcome.problems.push(error.clone());
            }
            for warning in &file.warnings {
                tracing::warn!("{warning}");
            }
        }
        outcome.problems.extend(self.matcher_error.clone());
        for problem in &outcome.problems {
            tracing::error!("{problem}");
        }
        if !outcome.problems.is_empty() {
            // The bytes that are there now: what was refused, unless it was changed in this very moment.
            let digest = |path: &str| std::fs::read(path).ok().map(|bytes| hex(&Sha256::digest(bytes)));
            let bad = self.files.iter().filter(|file| file.error.is_some());
            let rejected: Vec<Value> =
                bad.map(|file| json!({"file": file.path, "sha256": digest(&file.path)})).collect();
            self.record("policy-problems", json!({"problems": outcome.problems, "rejected": rejected}));
        }
        tracing::info!(
            agents = self.agents.len(),
            published = outcome.published.len(),
            retired = outcome.retired.len(),
            problems = outcome.problems.len(),
            "policies read"
        );
    }
}

/// What is said of a file; `error` is its own, even where its last good text stands in for it.
fn status(file: &PolicyFile, error: Option<String>) -> FileStatus {
    let head = file.outcome.as_ref().ok().map(|kept| kept.head());
    FileStatus {
        path: file.path.display().to_string(),
        agent: head.map(|head| head.id().to_owned()),
        error,
        warnings: head.map(|h| h.warnings().iter().map(ToString::to_string).collect()).unwrap_or_default(),
    }
}
