//! How far agents are trusted: the daemon as the world in which a level changes.

use super::{
    core::{AgentState, Core, now},
    enforcement::{AgentSlot, EnforcementError},
};
use crate::{
    approvals::{error::DecisionError, signature::LocalPeer},
    audit,
    control::{peer::Peer, trust::TrustStatus},
    event::text::{hex, rfc3339},
    policy::Trust,
    settings::Settings,
    trust::{
        book::{Book, Kept},
        change::{self, Changed},
        store::Store,
    },
};
use enforcer_common::map::TierMap;
use serde_json::{Value, json};
use std::collections::HashMap;

/// The daemon's part of trust.
pub(super) struct Trusts {
    book: Book,
    store: Store,
}

impl Trusts {
    /// Reads what was stated. What cannot be read leaves its agent on probation.
    pub(super) fn load(settings: &Settings) -> Self {
        let store = Store::new(&settings.paths.state);
        let book = store.load(audit::host(), &mut random);
        Self { book, store }
    }

    /// What cannot be read.
    pub(super) fn problems(&self) -> Vec<String> {
        self.book.problems()
    }
}

impl Core {
    /// The level in force of an agent whose policy has this ceiling.
    pub fn level(&self, agent: &str, ceiling: Trust) -> Trust {
        self.trust.book.in_force(agent, ceiling)
    }

    /// What tiers mean in an agent's sessions now.
    pub fn tiers(&self, agent: &AgentState) -> TierMap {
        let policy = agent.policy.head();
        self.narrowed(self.settings.trust.tiers(self.level(policy.id(), policy.trust())))
    }

    /// The same of all agents.
    pub(super) fn all_tiers(&self) -> HashMap<AgentSlot, TierMap> {
        self.agents.values().map(|agent| (agent.slot, self.tiers(agent))).collect()
    }

    /// Says once what cannot be read.
    pub fn say_trust_problems(&mut self) {
        let problems = self.trust.problems();
        if !problems.is_empty() {
            problems.iter().for_each(|problem| tracing::error!("{problem}"));
            self.record("trust-lost", json!({"problems": problems}));
        }
    }

    /// Brings the sessions that run in line with ceilings, statements and table.
    pub(super) fn apply_trust(&mut self) {
        let tiers = self.all_tiers();
        if let Err(error) = self.enforcement.set_tiers(&|slot| tiers.get(&slot).copied()) {
            tracing::error!(%error, "cannot bring sessions in line with the trust of their agents");
        }
    }

    /// A policy with this ceiling is about to be the agent's: no session may have more from here on.
    pub(super) fn lower_ceiling(&mut self, agent: &str, ceiling: Trust) -> Result<(), EnforcementError> {
        let Some(state) = self.agents.get(agent) else { return Ok(()) };
        if ceiling >= state.policy.head().trust() {
            return Ok(());
        }
        let tiers = self.narrowed(self.settings.trust.tiers(self.level(agent, ceiling)));
        let slot = state.slot;
        self.enforcement.set_tiers(&|of| (of == slot).then_some(tiers))
    }

    /// A person changes an agent's level.
    pub fn change_trust(
        &mut self,
        text: &str,
        signature: Option<&str>,
        peer: &Peer,
    ) -> Result<Changed, DecisionError> {
        let (approvers, local) = (self.approvers(), self.local_peer(peer));
        // The world is the daemon; its book is changed by the change alone.
        let mut book = self.trust.book.clone();
        let result = change::change(self, &mut book, (text, signature), &local, &approvers);
        match &result {
            Ok(changed) => {
                tracing::info!(
                    agent = changed.agent,
                    stated = changed.stated.name(),
                    in_force = changed.in_force.name(),
                    "trust was changed"
                );
                changed.problems.iter().for_each(|problem| tracing::error!("{problem}"));
            }
            Err(error) => self.reject_trust(&error.to_string(), &local),
        }
        self.trust.book = book;
        result
    }

    fn reject_trust(&mut self, because: &str, peer: &LocalPeer) {
        let fields = json!({"because": because, "peer": {"uid": peer.uid, "pid": peer.pid}});
        Self::record(self, "trust-rejected", fields);
    }

    /// What is known about agents' trust.
    pub fn trust_list(&self) -> Vec<TrustStatus> {
        let book = &self.trust.book;
        let status = |(name, state): (&String, &AgentState)| {
            let ceiling = state.policy.head().trust();
            let last = book.last(name);
            let level = book.in_force(name, ceiling);
            TrustStatus {
                agent: name.clone(),
                ceiling: ceiling.name().to_owned(),
                stated: book.stated(name).name().to_owned(),
                in_force: level.name().to_owned(),
                tiers: self.settings.trust.row(level),
                host: book.host().to_owned(),
                follows: hex(&book.follows(name)),
                statements: last.map_or(0, |(_, kept)| kept.number),
                since: last.map(|(_, kept)| rfc3339(i128::from(kept.since) * 1_000_000_000)),
                by: last.map(|(_, kept)| kept.by["name"].as_str().unwrap_or_default().to_owned()),
                reason: last.map(|(statement, _)| statement.reason.clone()),
            }
        };
        self.agents.iter().map(status).collect()
    }
}

impl change::World for Core {
    fn now(&self) -> i64 {
        i64::try_from(now() / 1_000_000_000).unwrap_or(i64::MAX)
    }

    fn ceiling(&self, agent: &str) -> Option<Trust> {
        self.agents.get(agent).map(|state| state.policy.head().trust())
    }

    fn record(&mut self, kind: &'static str, fields: Value) {
        Self::record(self, kind, fields);
    }

    fn record_surely(&mut self, kind: &'static str, fields: Value) -> Result<(), String> {
        crate::approvals::drive::World::record_surely(self, kind, fields)
    }

    fn keep(&mut self, agent: &str, kept: &Kept) -> Result<(), String> {
        self.trust.store.keep(agent, kept).map_err(|e| e.to_string())
    }

    fn activate(&mut self, agent: &str, level: Trust) -> Result<(), String> {
        let Some(slot) = self.agents.get(agent).map(|state| state.slot) else { return Ok(()) };
        let tiers = self.narrowed(self.settings.trust.tiers(level));
        self.enforcement.set_tiers(&|of| (of == slot).then_some(tiers)).map_err(|e| e.to_string())?;
        // What waits may run now, or not even be asked about any more.
        self.judge_anew(slot);
        Ok(())
    }
}

/// 32 bytes that nobody can guess.
fn random() -> [u8; 32] {
    let mut bytes = [0; 32];
    // It has no way to fail where it has worked once (random(7)), and the audit log's salts come from it too.
    getrandom::getrandom(&mut bytes).expect("the kernel gives random bytes");
    bytes
}
