//! Reading the policies and bringing the kernel in line with them.

use super::{
    canary,
    core::{AgentState, Core, boot_time},
    enforcement::{AgentSlot, EnforcementError, PublishedPolicy},
    policies::{Loaded, PolicyFile, fingerprint, read_all},
    progress,
    registry::{InForce, Reading, plan},
};
use crate::{
    control::message::FileStatus, event::text::hex, links::Links, policy, trust::change::World as _,
};
use serde_json::{Value, json};
use sha2::{Digest, Sha256};
use std::{
    collections::{BTreeMap, BTreeSet},
    path::Path,
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

impl Core {
    /// Reads every policy and publishes what has changed. Whatever goes wrong leaves in force what was.
    pub(crate) fn reload(&mut self) -> Outcome {
        let mut outcome = Outcome::default();
        let (directory, roots) = (self.settings.paths.policies.clone(), self.roots());
        // Before it is read: what changes meanwhile is seen to have changed.
        self.read_as = fingerprint(&directory).ok();
        let mut files = match read_all(&directory, &roots, &self.known) {
            Ok(files) => files,
            Err(error) => {
                let problem = format!("cannot read {}: {error}", directory.display());
                tracing::error!("{problem}");
                outcome.problems.push(problem);
                return outcome;
            }
        };
        let good = |f: &PolicyFile| f.outcome.as_ref().ok().map(|l| (f.path.clone(), Rc::clone(l)));
        self.known = files.iter().filter_map(good).collect();
        let errors = self.bring_back_last_good(&mut files);
        let readings: Vec<Reading> = files.iter().map(PolicyFile::reading).collect();
        let in_force = self.in_force();
        let mut known = self.slots.names();
        // The daemon's own agent has no file.
        known.remove(canary::AGENT);
        let plan = plan(&readings, &in_force, &known);
        self.files = statuses(&files, &errors);
        for (index, error) in &plan.refused {
            self.files[*index].error = Some(error.clone());
        }
        let mut taken = match self.taken() {
            Ok(taken) => taken,
            Err(error) => {
                outcome.problems.push(format!("cannot tell which agents run: {error}; nothing is published"));
                tracing::error!("{}", outcome.problems[0]);
                return outcome;
            }
        };
        for (agent, index) in &plan.publish {
            progress::goes_on();
            let Ok(loaded) = &files[*index].outcome else { continue };
            match self.publish(agent, &files[*index].path, loaded, &mut taken) {
                Ok(()) => outcome.published.push(agent.clone()),
                Err(error) => {
                    let kept = if self.agents.contains_key(agent) { "; the earlier one stays" } else { "" };
                    self.files[*index].error = Some(format!("cannot publish the policy: {error}{kept}"));
                }
            }
        }
        self.look_again(&outcome.published);
        // An agent whose policy is unchanged may live in another file now.
        for (index, reading) in readings.iter().enumerate() {
            let claimed = reading.outcome.as_ref().ok().filter(|_| self.files[index].error.is_none());
            if let Some(state) = claimed.and_then(|claim| self.agents.get_mut(&claim.agent)) {
                state.file.clone_from(&reading.path);
            }
        }
        for agent in &plan.retire {
            self.links_incomplete.remove(agent);
            self.agents.remove(agent);
        }
        self.apply_trust();
        self.publish_matcher();
        for agent in &plan.retire {
            progress::goes_on();
            match self.retire(agent) {
                Ok(true) => outcome.retired.push(agent.clone()),
                Ok(false) => {}
                Err(error) => {
                    outcome.problems.push(format!("cannot take away the policy of {agent}: {error}"))
                }
            }
        }
        self.refill();
        self.say(&mut outcome);
        outcome
    }

    /// Reads the policies if they are not those that were read: the kernel may not have told of a change.
    pub(crate) fn reload_what_is_stale(&mut self) {
        match fingerprint(&self.settings.paths.policies) {
            Ok(now) if self.read_as == Some(now) => {}
            Ok(_) => {
                tracing::warn!("the policies have changed unnoticed");
                self.reload();
            }
            Err(error) => tracing::error!(%error, "cannot tell whether the policies have changed"),
        }
    }

    fn in_force(&self) -> BTreeMap<String, InForce> {
        let entry = |(name, state): (&String, &AgentState)| {
            let digest = state.loaded.policy.digest();
            (name.clone(), InForce { file: state.file.clone(), digest })
        };
        self.agents.iter().map(entry).collect()
    }

    /// After a restart the kernel still enforces what was good: a file that is broken now is replaced by
    /// its last good text, so that the agent does not lose what it has. Returns the files' own errors.
    fn bring_back_last_good(&self, files: &mut [PolicyFile]) -> BTreeMap<usize, String> {
        let roots = self.roots();
        let mut errors = BTreeMap::new();
        for (index, file) in files.iter_mut().enumerate() {
            let Err(error) = &file.outcome else { continue };
            errors.insert(index, error.clone());
            if self.agents.values().any(|state| state.file == file.path) {
                continue;
            }
            let Some(last) = self.last_good.load(&file.path, &roots) else { continue };
            if self.slots.get(last.policy.id()).is_some() && !self.agents.contains_key(last.policy.id()) {
                file.outcome = Ok(Rc::new(last));
            }
        }
        errors
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
        loaded: &Rc<Loaded>,
        taken: &mut Taken,
    ) -> Result<(), EnforcementError> {
        let before = self.before(agent, Some(&loaded.policy));
        // A lower ceiling counts for sessions that run before the policy does, a higher one after it.
        self.lower_ceiling(agent, loaded.policy.trust())?;
        let InForceNow { slot, published, links } = self.put_in_force(agent, file, loaded, taken)?;
        taken.alive.insert(agent.to_owned());
        // It counts as applied once nobody is left who holds open what it refuses, if it says so.
        self.look_at_open(agent, slot, before, Some(loaded));
        self.say_published(agent, file, loaded, &published, &links);
        let state = AgentState { slot, file: file.to_owned(), loaded: Rc::clone(loaded), published };
        self.agents.insert(agent.to_owned(), state);
        // What waits is judged by the new policy, at the level that it allows.
        if let Err(error) = self.activate(agent, self.level(agent, loaded.policy.trust())) {
            tracing::error!(error, "cannot bring the sessions of {agent} in line with its trust");
        }
        if let Err(error) = self.last_good.keep(file, &loaded.text) {
            tracing::warn!(%error, "cannot keep the policy of {agent} for a restart");
        }
        Ok(())
    }

    /// Makes a policy the agent's in the kernel, noted.
    pub(super) fn put_in_force(
        &mut self,
        agent: &str,
        file: &Path,
        loaded: &Rc<Loaded>,
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
            numbers.note(file, loaded, published);
            noted = Some(published.id);
        };
        let links = self.links.find(&loaded.policy, &loaded.image);
        let published =
            enforcement.publish(slot, agent, &loaded.policy, &loaded.image, &links.files, &mut note);
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
        loaded: &Rc<Loaded>,
        published: &PublishedPolicy,
        links: &Links,
    ) {
        let policy = &loaded.policy;
        self.record(
            "policy-published",
            json!({
                "agent": agent, "file": file.display().to_string(), "number": published.id,
                "owner": policy.owner(),
                "policy": {"id": policy.id(), "version": policy.version(), "digest": hex(&policy.digest())},
                "image": hex(&published.image_digest),
                "linked_files": links.files.len(), "links_incomplete": links.incomplete,
                "trust": {"ceiling": policy.trust().name(), "in_force": self.level(agent, policy.trust()).name()},
            }),
        );
    }

    fn publish_matcher(&mut self) {
        let wanted: Vec<(AgentSlot, Vec<String>)> = self
            .agents
            .values()
            .map(|a| (a.slot, a.loaded.policy.cgroups().iter().map(|g| g.text().to_owned()).collect()))
            .collect();
        if self.matched.as_ref() == Some(&wanted) {
            self.matcher_error = None;
            return;
        }
        let agents: Vec<policy::AgentMatch<'_>> = self
            .agents
            .iter()
            .map(|(name, a)| (a.slot.0, name.as_str(), a.loaded.policy.cgroups()))
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

    /// Takes an agent's policy away; says whether the kernel had one.
    fn retire(&mut self, agent: &str) -> Result<bool, EnforcementError> {
        let Some(slot) = self.slots.get(agent) else { return Ok(false) };
        let in_force = self.enforcement.agents()?.iter().any(|(s, _, policy)| *s == slot && *policy != 0);
        if !in_force {
            return Ok(false);
        }
        let before = self.before(agent, None);
        self.enforcement.retire(slot)?;
        self.numbers.in_force(agent, None, boot_time());
        self.record("policy-retired", json!({"agent": agent}));
        self.look_at_open(agent, slot, before, None);
        Ok(true)
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

fn statuses(files: &[PolicyFile], errors: &BTreeMap<usize, String>) -> Vec<FileStatus> {
    let status = |(index, file): (usize, &PolicyFile)| {
        let loaded = file.outcome.as_ref().ok();
        FileStatus {
            path: file.path.display().to_string(),
            agent: loaded.map(|l| l.policy.id().to_owned()),
            error: errors.get(&index).cloned(),
            warnings: loaded
                .map(|l| l.policy.warnings().iter().map(ToString::to_string).collect())
                .unwrap_or_default(),
        }
    };
    files.iter().enumerate().map(status).collect()
}
