//! Answers to questions about the daemon.

use super::{
    core::{Core, boot_time, now},
    enforcement::AgentSlot,
    judge::{Facts, judge},
    layers,
};
use crate::{
    control::message::{AgentStatus, HookStatus, SessionStatus, Status, UsageStatus},
    event::text::{hex, rfc3339, session_id},
    policy::Mode,
};
use enforcer_common::map::{SESSION_ARMED, SESSION_LAUNCHING};
use std::collections::{BTreeMap, HashMap};

impl Core {
    /// How things are.
    pub fn status(&self) -> Status {
        let health = self.enforcement.health();
        let expired = self.expired();
        let sinks = self.audit.sinks();
        let trust = self.trust.problems();
        let break_glass = self.break_glass_list();
        let audit = self.audit_problem();
        let left_open = self.open_problems();
        let facts = Facts {
            health: health.clone(),
            no_proof: self.no_proof.as_deref(),
            matcher: self.matcher_error.as_deref(),
            files: &self.files,
            expired: &expired,
            links: Some(&self.links_incomplete),
            left_open: &left_open,
            lost: self.lost,
            audit: audit.as_deref(),
            sinks: &sinks,
            trust: &trust,
            break_glass: &break_glass,
        };
        let (state, mut problems) = judge(&facts);
        let sessions = match self.enforcement.sessions() {
            Ok(sessions) => sessions.len(),
            Err(error) => {
                problems.push(format!("cannot list the sessions: {error}"));
                0
            }
        };
        let hook = |h: &super::enforcement::Hook| HookStatus {
            name: h.name.clone(),
            required: h.required,
            attached: h.attached,
            note: h.note.clone(),
        };
        let usage =
            |u: &super::enforcement::Usage| UsageStatus { name: u.name.clone(), used: u.used, room: u.room };
        Status {
            state,
            problems,
            version: env!("CARGO_PKG_VERSION").to_owned(),
            pid: std::process::id(),
            kernel: super::kernel_release(),
            generation: health.generation,
            roots: self.roots(),
            agents: self.agents.len(),
            sessions,
            hooks: health.hooks.iter().map(hook).collect(),
            waiting: health.waiting,
            usage: health.usage.iter().map(usage).collect(),
            policies: self.files.clone(),
            canary: self.proven_at.map(rfc3339),
            lost: self.lost,
            folded: self.folded().values().sum(),
            break_glass,
            layers: self.usual_layers(),
            plain_cgroups: self.scopes.without(&self.settings),
            sinks,
        }
    }

    /// Folded refusals by agent; what cannot be read is missing.
    pub(super) fn folded(&self) -> BTreeMap<AgentSlot, u64> {
        self.enforcement.folded().unwrap_or_default().into_iter().collect()
    }

    /// Agents whose policy has expired.
    pub fn expired(&self) -> Vec<String> {
        let seconds = now() / 1_000_000_000;
        let over = |at: Option<i64>| at.is_some_and(|at| i128::from(at) <= seconds);
        let agents = self.agents.iter().filter(|(_, a)| over(a.policy.head().expires_unix()));
        agents.map(|(name, _)| name.clone()).collect()
    }

    /// The agents and their sessions.
    pub fn agent_list(&self) -> Vec<AgentStatus> {
        let mut by_slot: HashMap<u32, Vec<SessionStatus>> = HashMap::new();
        let boot = boot_time();
        let (below, mut present) = (self.session_directories(), layers::Present::default());
        for entry in self.enforcement.sessions().unwrap_or_default() {
            let session = entry.session;
            let state = match session.state {
                SESSION_LAUNCHING => "launching".to_owned(),
                SESSION_ARMED => "armed".to_owned(),
                other => format!("unknown-{other}"),
            };
            let age = (boot - i128::from(session.bound_at)).max(0) / 1_000_000_000;
            let layers = below.get(&session.cgroup).and_then(|path| layers::noted(path));
            let restart_to_widen =
                layers.as_ref().is_some_and(|noted| present.outgrows(self, session.agent, noted));
            by_slot.entry(session.agent).or_default().push(SessionStatus {
                id: session_id(session.id),
                state,
                cgroup: session.cgroup,
                age: u64::try_from(age).unwrap_or(0),
                layers: layers.map(|noted| noted.status).unwrap_or_default(),
                restart_to_widen,
            });
        }
        let folded = self.folded();
        let agent = |(name, state): (&String, &super::core::AgentState)| {
            let policy = state.policy.head();
            AgentStatus {
                name: name.clone(),
                owner: policy.owner().to_owned(),
                purpose: policy.purpose().to_owned(),
                version: policy.version(),
                digest: hex(&policy.digest()),
                mode: match policy.mode() {
                    Mode::Enforce => "enforce".to_owned(),
                    Mode::Audit => "audit".to_owned(),
                },
                trust: policy.trust().name().to_owned(),
                trust_in_force: self.level(name, policy.trust()).name().to_owned(),
                file: state.file.display().to_string(),
                folded: folded.get(&state.slot).copied().unwrap_or(0),
                decisions: self.verdicts.counts(name),
                left_open: self.left_open.of(name).map(|of| of.listed().to_vec()).unwrap_or_default(),
                left_open_unlisted: self.left_open.of(name).map_or(0, super::left_open::OfAgent::unlisted),
                sessions: by_slot.remove(&state.slot.0).unwrap_or_default(),
            }
        };
        self.agents.iter().map(agent).collect()
    }
}
