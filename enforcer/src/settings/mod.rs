//! The settings file, `enforcer.toml`. Unknown keys are errors; every key has a default.

mod tables;
#[cfg(test)]
mod tests;

pub use tables::{
    Agents, Approvals, Audit, Control, Daemon, Launch, Metrics, OnFailure, Paths, Root, WitnessSettings,
};

use crate::{
    approvals::webhook,
    audit::AlertSettings,
    break_glass::BreakGlass,
    log::witness::WitnessKey,
    sink::settings::{self as sinks, SinkSettings},
    trust::table::Table,
};
use enforcer_common::limits;
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};
use std::{
    collections::HashSet,
    path::{Component, Path, PathBuf},
};

/// Where the settings are looked for unless the command line says otherwise.
pub const DEFAULT_PATH: &str = "/etc/enforcer/enforcer.toml";

/// Everything that an operator can set.
#[derive(Clone, Debug, Default, PartialEq, Eq, Deserialize, Serialize, JsonSchema)]
#[serde(deny_unknown_fields, default)]
pub struct Settings {
    /// Where things are.
    pub paths: Paths,
    /// Where agents live and who may start them.
    pub agents: Agents,
    /// What `enforcer exec` gives to a session.
    pub launch: Launch,
    /// The control socket.
    pub control: Control,
    /// The audit log.
    pub audit: Audit,
    /// What waits for a person, and who decides.
    pub approvals: Approvals,
    /// What tiers mean at each level of trust. A level that is named here names all three tiers; tier critical is
    /// always refused.
    pub trust: Table,
    /// Lifting what policies refuse, for a while.
    pub break_glass: BreakGlass,
    /// The daemon itself.
    pub daemon: Daemon,
    /// Figures for monitoring.
    pub metrics: Metrics,
    /// Where the audit log's records go besides.
    pub sinks: Vec<SinkSettings>,
    /// Which records become alerts.
    pub alerts: AlertSettings,
}

/// Why the settings cannot be used.
#[derive(Debug, thiserror::Error)]
pub enum SettingsError {
    /// The file cannot be read.
    #[error("cannot read {path}: {source}")]
    Read {
        /// The file.
        path: PathBuf,
        /// Why.
        source: std::io::Error,
    },
    /// The file is not TOML, or has a key or a type that is not known.
    #[error("{name}: {source}")]
    Parse {
        /// The file.
        name: String,
        /// Where and what.
        source: Box<toml::de::Error>,
    },
    /// A value cannot be.
    #[error("{name}: {key}: {problem}")]
    Value {
        /// The file.
        name: String,
        /// The key.
        key: &'static str,
        /// What is wrong with it.
        problem: String,
    },
}

impl Settings {
    /// The settings in `path`. Without a path: those in [`DEFAULT_PATH`], or the defaults where that
    /// file does not exist.
    pub fn load(path: Option<&Path>) -> Result<Self, SettingsError> {
        let named = path.unwrap_or(Path::new(DEFAULT_PATH));
        match std::fs::read_to_string(named) {
            Ok(text) => Self::parse(&named.display().to_string(), &text),
            Err(e) if e.kind() == std::io::ErrorKind::NotFound && path.is_none() => Ok(Self::default()),
            Err(source) => Err(SettingsError::Read { path: named.to_owned(), source }),
        }
    }

    /// The settings in `text`; `name` is what errors call it.
    pub fn parse(name: &str, text: &str) -> Result<Self, SettingsError> {
        let settings: Self = toml::from_str(text)
            .map_err(|source| SettingsError::Parse { name: name.to_owned(), source: Box::new(source) })?;
        match settings.problem() {
            None => Ok(settings),
            Some((key, problem)) => Err(SettingsError::Value { name: name.to_owned(), key, problem }),
        }
    }

    /// The root that receives the sessions of `enforcer exec` and the canary.
    pub fn home_root(&self) -> &str {
        // `problem()` refuses settings without an exclusive root.
        self.agents.roots.iter().find(|r| !r.shared).map_or("/agents.slice", |r| &r.path)
    }

    fn problem(&self) -> Option<(&'static str, String)> {
        self.roots_problem()
            .map(|p| ("agents.roots", p))
            .or_else(|| self.paths_problem())
            .or_else(|| self.launch_problem())
            .or_else(|| self.approvals_problem())
            .or_else(|| self.trust.problem().map(|problem| ("trust", problem)))
            .or_else(|| self.break_glass.problem())
            .or_else(|| self.daemon.problem())
            .or_else(|| self.alerts.problem())
            .or_else(|| sinks::problem(&self.sinks).map(|problem| ("sinks", problem)))
    }

    fn roots_problem(&self) -> Option<String> {
        let roots = &self.agents.roots;
        if roots.len() > limits::ROOTS {
            return Some(format!("{} roots, but at most {} are possible", roots.len(), limits::ROOTS));
        }
        if roots.iter().all(|r| r.shared) {
            return Some("at least one root must not be shared".to_owned());
        }
        for root in roots {
            let path = &root.path;
            let plain = path.strip_prefix('/').is_some_and(|rest| {
                rest.split('/').all(|part| !matches!(part, "" | "." | "..") && !part.contains('\0'))
            });
            if !plain {
                return Some(format!("{path:?} is not an absolute cgroup path like /agents.slice"));
            }
            if path.len() >= limits::ROOT_PATH {
                return Some(format!("{path:?} is longer than {} bytes", limits::ROOT_PATH - 1));
            }
            if let Some(outer) = roots.iter().find(|o| !std::ptr::eq(*o, root) && is_below(path, &o.path)) {
                return Some(format!("{path:?} lies in {:?}: roots must not contain each other", outer.path));
            }
        }
        None
    }

    fn paths_problem(&self) -> Option<(&'static str, String)> {
        let paths = &self.paths;
        let named = [
            ("paths.policies", &paths.policies),
            ("paths.approvers", &paths.approvers),
            ("paths.state", &paths.state),
            ("paths.socket", &paths.socket),
            ("paths.pins", &paths.pins),
            ("paths.cgroups", &paths.cgroups),
        ];
        let executors = self.agents.executors.iter().map(|path| ("agents.executors", path));
        if self.agents.executors.len() >= limits::EXECUTORS as usize {
            return Some(("agents.executors", format!("more than {} entries", limits::EXECUTORS - 1)));
        }
        let key = self.audit.key.iter().map(|path| ("audit.key", path));
        let metrics =
            Some(("metrics.socket", &self.metrics.socket)).filter(|(_, p)| !p.as_os_str().is_empty());
        named.into_iter().chain(executors).chain(key).chain(metrics).find_map(|(key, path)| {
            let absolute = path.is_absolute() && !path.components().any(|c| c == Component::ParentDir);
            (!absolute).then(|| (key, format!("{path:?} is not an absolute path without `..`")))
        })
    }

    fn approvals_problem(&self) -> Option<(&'static str, String)> {
        const YEAR: u64 = 366 * 86_400;
        let approvals = &self.approvals;
        for (key, seconds) in [
            ("approvals.timeout_seconds", approvals.timeout_seconds),
            ("approvals.refusal_seconds", approvals.refusal_seconds),
            ("approvals.cool_down_seconds", approvals.cool_down_seconds),
        ] {
            if !(1..=YEAR).contains(&seconds) {
                return Some((key, "must be 1 to 31622400 seconds".to_owned()));
            }
        }
        if approvals.strikes == 0 {
            return Some(("approvals.strikes", "must be at least 1".to_owned()));
        }
        if approvals.two_persons.iter().any(|two| two.tiers.is_empty() || two.agents.is_empty()) {
            return Some(("approvals.two_persons", "names no agents or no tiers".to_owned()));
        }
        approvals.webhook.as_ref().and_then(webhook::Target::problem).map(|p| ("approvals.webhook", p))
    }

    fn witness_problem(&self) -> Option<String> {
        let audit = &self.audit;
        if !(1..=86_400).contains(&audit.witness_seconds) {
            return Some("audit.witness_seconds must be 1 to 86400: a day".to_owned());
        }
        if audit.witness_quorum > audit.witnesses.len() {
            return Some(format!(
                "a quorum of {}, but {} witnesses",
                audit.witness_quorum,
                audit.witnesses.len()
            ));
        }
        let mut names = HashSet::new();
        audit.witnesses.iter().find_map(|witness| match WitnessKey::parse(&witness.key) {
            Err(error) => Some(error.to_string()),
            Ok(key) if !names.insert(key.name().to_owned()) => Some(format!("{} is there twice", key.name())),
            Ok(_) => sinks::witness_problem(&witness.url, &witness.tls),
        })
    }

    fn launch_problem(&self) -> Option<(&'static str, String)> {
        let launch = &self.launch;
        if launch.path.is_empty() || launch.path.split(':').any(|p| !p.starts_with('/')) {
            return Some(("launch.path", format!("{:?} is not a list of absolute directories", launch.path)));
        }
        if launch.path.contains('\0') || launch.lang.contains('\0') {
            return Some(("launch", "a value contains a zero byte".to_owned()));
        }
        if launch.pids_max == Some(0) {
            return Some(("launch.pids_max", "0 would let nothing start".to_owned()));
        }
        if let Some(text) = &launch.memory_max {
            let digits = text.trim_end_matches(['K', 'M', 'G', 'T']);
            let number = !digits.is_empty() && digits.bytes().all(|b| b.is_ascii_digit());
            if !number || text.len() > digits.len() + 1 {
                return Some(("launch.memory_max", format!("{text:?} is not a size like 512M or 2G")));
            }
        }
        if self.audit.sync_seconds == 0 {
            return Some(("audit.sync_seconds", "0 is not an interval".to_owned()));
        }
        if !(10..=1000).contains(&self.audit.checkpoint_milliseconds) {
            let problem = "must be 10 to 1000: a record is under a checkpoint within a second";
            return Some(("audit.checkpoint_milliseconds", problem.to_owned()));
        }
        if (1..1 << 20).contains(&self.audit.max_bytes) {
            return Some(("audit.max_bytes", "must be 0, or at least 1048576 bytes".to_owned()));
        }
        if let Some(problem) = self.witness_problem() {
            return Some(("audit.witnesses", problem));
        }
        if self.daemon.canary_seconds == 0 {
            return Some(("daemon.canary_seconds", "0 is not an interval".to_owned()));
        }
        if let Some(address) = self.metrics.address
            && !address.ip().is_loopback()
        {
            let problem = format!("{address} is not a loopback address; put a proxy with TLS before it");
            return Some(("metrics.address", problem));
        }
        self.control.group.is_empty().then(|| ("control.group", "is empty".to_owned()))
    }
}

/// Whether the cgroup `path` is `root` or lies below it.
pub fn is_below(path: &str, root: &str) -> bool {
    path.strip_prefix(root).is_some_and(|rest| rest.is_empty() || rest.starts_with('/'))
}
