//! What happens to agents while the audit log cannot be written or signed, as `audit.on_failure` says. What
//! is known of it waits in memory and is recorded once the log works again.

use super::core::{Core, now};
use crate::{launch::cgroup, settings::OnFailure};
use enforcer_common::map::TierMap;
use serde_json::json;
use std::{
    collections::BTreeSet,
    io,
    path::{Path, PathBuf},
};

/// The attribute of a cgroup that the daemon has frozen: what a person has frozen stays so.
const MARK: &str = "trusted.enforcer.frozen";

/// The log has failed, and what was done about it.
#[derive(Default)]
pub(super) struct Unwritten {
    failed: Option<Failed>,
    /// Cgroups that were frozen.
    frozen: BTreeSet<PathBuf>,
}

struct Failed {
    /// Nanoseconds since 1970.
    since: i128,
    /// Records lost before.
    lost: u64,
}

impl OnFailure {
    /// What is done meanwhile, for people.
    fn meanwhile(self) -> &'static str {
        match self {
            Self::Continue => "agents go on, and records that do not fit are counted",
            Self::Refuse => "what tiers medium and high allow is refused, and no session is started",
            Self::Freeze => "sessions are frozen, and none is started",
        }
    }
}

impl Core {
    /// Brings agents in line with whether the log can be written.
    pub fn look_at_log(&mut self) {
        let action = self.settings.audit.on_failure;
        match (self.audit_error.clone(), self.unwritten.failed.is_some()) {
            (None, false) => {}
            (Some(because), false) => {
                self.unwritten.failed = Some(Failed { since: now(), lost: self.audit.lost() });
                tracing::error!("{}", action.meanwhile());
                self.record("log-failed", json!({"because": because, "meanwhile": action.meanwhile()}));
                self.apply();
            }
            // Sessions that the kernel has bound since.
            (Some(_), true) => self.apply(),
            (None, true) => self.log_works_again(),
        }
    }

    fn log_works_again(&mut self) {
        let Some(Failed { since, lost }) = self.unwritten.failed.take() else { return };
        let milliseconds = (now() - since) / 1_000_000;
        let lost = self.audit.lost().saturating_sub(lost);
        tracing::info!(milliseconds, lost, "the audit log can be written again");
        // Before anybody goes on.
        self.record("log-recovered", json!({"milliseconds": milliseconds as i64, "records_lost": lost}));
        if self.settings.audit.on_failure != OnFailure::Continue {
            self.refill();
            self.apply_trust();
            let slots: Vec<_> = self.agents.values().map(|agent| agent.slot).collect();
            slots.into_iter().for_each(|slot| self.judge_anew(slot));
        }
        self.thaw();
    }

    fn apply(&mut self) {
        match self.settings.audit.on_failure {
            OnFailure::Continue => {}
            OnFailure::Refuse => self.apply_trust(),
            OnFailure::Freeze => {
                self.apply_trust();
                self.freeze();
            }
        }
    }

    /// What is said besides while the log cannot be written: of what is done meanwhile once it is done.
    pub(super) fn audit_problem(&self) -> Option<String> {
        let why = self.audit_error.as_ref()?;
        if self.unwritten.failed.is_none() {
            return Some(why.clone());
        }
        Some(format!("{why}; meanwhile {}", self.settings.audit.on_failure.meanwhile()))
    }

    /// These tiers, as far as they hold now: without a log nothing of tier medium or high runs or waits.
    pub(super) fn narrowed(&self, mut tiers: TierMap) -> TierMap {
        let works = self.unwritten.failed.is_none();
        if !works && self.settings.audit.on_failure != OnFailure::Continue {
            for words in [&mut tiers.allow, &mut tiers.hold] {
                words[1..].fill(0);
            }
        }
        tiers
    }

    /// Freezes every session but the canary's.
    fn freeze(&mut self) {
        let ids: Vec<u64> = match self.enforcement.sessions() {
            Ok(sessions) => {
                let own = self.canary.cgroup().ok();
                sessions.iter().map(|entry| entry.session.cgroup).filter(|id| Some(*id) != own).collect()
            }
            Err(error) => return tracing::error!(%error, "cannot list the sessions to freeze them"),
        };
        for path in self.cgroups(|_, id| ids.contains(&id)) {
            if self.unwritten.frozen.contains(&path) || cgroup::is_frozen(&path).unwrap_or(false) {
                continue;
            }
            if let Err(error) = mark(&path) {
                // The daemon itself still knows it.
                tracing::error!(%error, "cannot note that {} is frozen", path.display());
            }
            match cgroup::freeze(&path, true) {
                Ok(()) => drop(self.unwritten.frozen.insert(path)),
                Err(error) => tracing::error!(%error, "cannot freeze {}", path.display()),
            }
        }
    }

    /// Thaws what this daemon or an earlier one has frozen.
    pub fn thaw(&mut self) {
        let frozen = std::mem::take(&mut self.unwritten.frozen);
        let ours = self.cgroups(|path, _| frozen.contains(path) || is_marked(path));
        for path in ours {
            match cgroup::freeze(&path, false) {
                Ok(()) => drop(rustix::fs::removexattr(&path, MARK)),
                Err(error) => {
                    tracing::error!(%error, "cannot thaw {}", path.display());
                    self.unwritten.frozen.insert(path);
                }
            }
        }
    }

    /// The cgroups below the roots that are meant.
    fn cgroups(&self, meant: impl Fn(&Path, u64) -> bool) -> Vec<PathBuf> {
        let mut all = Vec::new();
        for root in self.roots() {
            let path = super::sweep::directory(&self.settings.paths.cgroups, &root);
            match cgroup::cgroups_below(&path) {
                Ok(found) => all.extend(found.into_iter().filter(|(path, id)| meant(path, *id))),
                Err(error) => tracing::error!(%error, "cannot look below {}", path.display()),
            }
        }
        all.into_iter().map(|(path, _)| path).collect()
    }
}

fn mark(path: &Path) -> io::Result<()> {
    Ok(rustix::fs::setxattr(path, MARK, b"1", rustix::fs::XattrFlags::empty())?)
}

fn is_marked(path: &Path) -> bool {
    let mut value = [0u8; 8];
    rustix::fs::getxattr(path, MARK, &mut value[..]).is_ok()
}
