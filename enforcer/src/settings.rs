//! The settings file, `enforcer.toml`. Unknown keys are errors; every key has a default.

use crate::{
    approvals::{queue::TwoPersons, webhook},
    audit::AlertSettings,
    log::segments::OnDamage,
    sink::settings::{self as sinks, SinkSettings},
    trust::table::Table,
};
use enforcer_common::limits;
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};
use std::{
    net::SocketAddr,
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
    /// The daemon itself.
    pub daemon: Daemon,
    /// Figures for monitoring.
    pub metrics: Metrics,
    /// Where the audit log's records go besides.
    pub sinks: Vec<SinkSettings>,
    /// Which records become alerts.
    pub alerts: AlertSettings,
}

/// Where things are.
#[derive(Clone, Debug, PartialEq, Eq, Deserialize, Serialize, JsonSchema)]
#[serde(deny_unknown_fields, default)]
pub struct Paths {
    /// Directory of the policies.
    pub policies: PathBuf,
    /// Directory of the approvers.
    pub approvers: PathBuf,
    /// The daemon's own files: audit log, last good policies.
    pub state: PathBuf,
    /// The control socket.
    pub socket: PathBuf,
    /// Directory in bpffs for the pins.
    pub pins: PathBuf,
    /// Where the cgroup hierarchy is mounted.
    pub cgroups: PathBuf,
}

impl Default for Paths {
    fn default() -> Self {
        Self {
            policies: "/etc/enforcer/policies.d".into(),
            approvers: "/etc/enforcer/approvers.d".into(),
            state: "/var/lib/enforcer".into(),
            socket: "/run/enforcer/control.sock".into(),
            pins: "/sys/fs/bpf/enforcer".into(),
            cgroups: "/sys/fs/cgroup".into(),
        }
    }
}

/// A cgroup below which agents live.
#[derive(Clone, Debug, PartialEq, Eq, Deserialize, Serialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct Root {
    /// Path in the cgroup hierarchy, `/agents.slice`.
    pub path: String,
    /// Whether others live there too: a child that no policy claims is then an outsider, while below
    /// an exclusive root it is refused everything.
    #[serde(default)]
    pub shared: bool,
}

/// Where agents live and who may start them.
#[derive(Clone, Debug, PartialEq, Eq, Deserialize, Serialize, JsonSchema)]
#[serde(deny_unknown_fields, default)]
pub struct Agents {
    /// The roots. The first one that is not shared receives the sessions of `enforcer exec`.
    pub roots: Vec<Root>,
    /// Programs that may prepare a session before its entry point runs.
    pub executors: Vec<PathBuf>,
    /// Seconds that looking for hard links of files that a policy denies or holds may take when it is published; 0:
    /// none are looked for.
    pub link_seconds: u64,
}

impl Default for Agents {
    fn default() -> Self {
        Self {
            roots: vec![Root { path: "/agents.slice".to_owned(), shared: false }],
            executors: [
                "/usr/lib/systemd/systemd",
                "/usr/lib/systemd/systemd-executor",
                "/usr/bin/runc",
                "/usr/sbin/runc",
                "/usr/bin/crun",
            ]
            .map(PathBuf::from)
            .to_vec(),
            link_seconds: 5,
        }
    }
}

/// What `enforcer exec` gives to a session.
#[derive(Clone, Debug, PartialEq, Eq, Deserialize, Serialize, JsonSchema)]
#[serde(deny_unknown_fields, default)]
pub struct Launch {
    /// `PATH` of the session; commands are looked up in it.
    pub path: String,
    /// `LANG` where the caller has none.
    pub lang: String,
    /// Set `no_new_privs`: set-user-id programs and file capabilities give nothing.
    pub no_new_privileges: bool,
    /// `pids.max` of the session's cgroup.
    pub pids_max: Option<u64>,
    /// `memory.max` of the session's cgroup, as the kernel reads it: `2G`.
    pub memory_max: Option<String>,
}

impl Default for Launch {
    fn default() -> Self {
        Self {
            path: "/usr/local/bin:/usr/bin:/bin".to_owned(),
            lang: "C.UTF-8".to_owned(),
            no_new_privileges: true,
            pids_max: None,
            memory_max: None,
        }
    }
}

/// The control socket.
#[derive(Clone, Debug, PartialEq, Eq, Deserialize, Serialize, JsonSchema)]
#[serde(deny_unknown_fields, default)]
pub struct Control {
    /// The group whose members may connect: read what there is, and launch where a policy says so.
    pub group: String,
}

impl Default for Control {
    fn default() -> Self {
        Self { group: "enforcer".to_owned() }
    }
}

/// The audit log.
#[derive(Clone, Debug, PartialEq, Eq, Deserialize, Serialize, JsonSchema)]
#[serde(deny_unknown_fields, default)]
pub struct Audit {
    /// Seconds after which the live copy in JSON lines is forced to the disk.
    pub sync_seconds: u64,
    /// Milliseconds after which records are under a signed checkpoint, on the disk.
    pub checkpoint_milliseconds: u64,
    /// The signing key, where no credential `audit-key` is passed; `audit/key` in the state directory
    /// without it. Made if it is not there.
    pub key: Option<PathBuf>,
    /// What to do at the start when the log is not what was signed.
    pub on_damage: OnDamage,
    /// What to do while the log cannot be written or signed.
    pub on_failure: OnFailure,
}

/// What to do while the log cannot be written or signed.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Deserialize, Serialize, JsonSchema)]
#[serde(rename_all = "kebab-case")]
pub enum OnFailure {
    /// Enforcement and launches go on; records wait, and those that cannot are counted.
    #[default]
    Continue,
    /// The same, but no session is started.
    Refuse,
}

impl Default for Audit {
    fn default() -> Self {
        Self {
            sync_seconds: 1,
            checkpoint_milliseconds: 1000,
            key: None,
            on_damage: OnDamage::NewLog,
            on_failure: OnFailure::Continue,
        }
    }
}

/// What waits for a person, and who decides.
#[derive(Clone, Debug, PartialEq, Eq, Deserialize, Serialize, JsonSchema)]
#[serde(deny_unknown_fields, default)]
pub struct Approvals {
    /// Seconds that a request is open where its rule does not say.
    pub timeout_seconds: u64,
    /// Seconds that a refusal stands before the same thing may be asked again.
    pub refusal_seconds: u64,
    /// Requests of one agent that may wait at one time; 0: nobody is asked, and what is held is refused at once.
    pub per_agent: u32,
    /// Refusals and timeouts in a row after which an agent is not listened to for a while.
    pub strikes: u32,
    /// How long that is, in seconds.
    pub cool_down_seconds: u64,
    /// Root on this host decides without a signature.
    pub local_operator: bool,
    /// Where two persons must sign.
    pub two_persons: Vec<TwoPersons>,
    /// Who hears of new requests.
    pub webhook: Option<webhook::Target>,
}

impl Default for Approvals {
    fn default() -> Self {
        Self {
            timeout_seconds: 600,
            refusal_seconds: 60,
            per_agent: 16,
            strikes: 5,
            cool_down_seconds: 300,
            local_operator: true,
            two_persons: Vec::new(),
            webhook: None,
        }
    }
}

/// The daemon itself.
#[derive(Clone, Debug, PartialEq, Eq, Deserialize, Serialize, JsonSchema)]
#[serde(deny_unknown_fields, default)]
pub struct Daemon {
    /// Seconds between two proofs that a process without rights is really refused.
    pub canary_seconds: u64,
}

impl Default for Daemon {
    fn default() -> Self {
        Self { canary_seconds: 30 }
    }
}

/// Figures for monitoring, as OpenMetrics text over HTTP.
#[derive(Clone, Debug, PartialEq, Eq, Deserialize, Serialize, JsonSchema)]
#[serde(deny_unknown_fields, default)]
pub struct Metrics {
    /// The unix socket, for root and the members of `control.group`; `""` for none.
    pub socket: PathBuf,
    /// A loopback address with its port, `127.0.0.1:9469`, which every local process may ask; none without it.
    pub address: Option<SocketAddr>,
}

impl Default for Metrics {
    fn default() -> Self {
        Self { socket: "/run/enforcer/metrics.sock".into(), address: None }
    }
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

#[cfg(test)]
mod tests {
    use super::*;

    fn refused(text: &str) -> String {
        Settings::parse("enforcer.toml", text).expect_err("must be refused").to_string()
    }

    #[test]
    fn an_empty_file_gives_the_defaults() {
        assert_eq!(Settings::parse("x", "").expect("valid"), Settings::default());
        assert_eq!(Settings::default().home_root(), "/agents.slice");
    }

    #[test]
    fn the_shipped_file_is_valid_and_says_the_defaults() {
        let text = include_str!("../../dist/etc/enforcer/enforcer.toml");
        assert_eq!(Settings::parse("shipped", text).expect("valid"), Settings::default());
    }

    #[test]
    fn an_unknown_key_is_refused_with_its_line() {
        let message = refused("[launch]\nno_new_privs = true\n");
        assert!(message.contains("line 2") && message.contains("no_new_privs"), "{message}");
    }

    #[test]
    fn a_root_must_be_an_absolute_plain_cgroup_path() {
        for path in ["agents.slice", "/", "/a//b", "/a/../b", "/a/"] {
            let message = refused(&format!("[agents]\nroots = [{{ path = {path:?} }}]"));
            assert!(message.contains("agents.roots"), "{message}");
        }
    }

    #[test]
    fn roots_must_not_contain_each_other_nor_all_be_shared() {
        assert!(refused("[agents]\nroots = [{path='/a'},{path='/a/b'}]").contains("contain each other"));
        assert!(refused("[agents]\nroots = [{path='/a'},{path='/a'}]").contains("contain each other"));
        assert!(refused("[agents]\nroots = [{path='/a',shared=true}]").contains("not be shared"));
        assert!(refused("[agents]\nroots = []").contains("not be shared"));
        assert!(Settings::parse("x", "[agents]\nroots = [{path='/a'},{path='/ab'}]").is_ok());
    }

    #[test]
    fn more_roots_than_the_kernel_holds_are_refused() {
        let text = "[agents]\nroots=[{path='/a'},{path='/b'},{path='/c'},{path='/d'},{path='/e'}]";
        assert!(refused(text).contains("at most 4"));
    }

    #[test]
    fn relative_paths_and_odd_sizes_are_refused() {
        assert!(refused("[paths]\nstate = 'var'").contains("paths.state"));
        assert!(refused("[launch]\npath = '/bin:.'").contains("launch.path"));
        assert!(refused("[launch]\nmemory_max = '2 G'").contains("memory_max"));
        assert!(refused("[launch]\nmemory_max = 'G'").contains("memory_max"));
        assert!(refused("[launch]\npids_max = 0").contains("pids_max"));
        assert!(Settings::parse("x", "[launch]\nmemory_max='2G'\npids_max=512").is_ok());
    }

    #[test]
    fn more_trust_must_not_be_stricter_nor_more_at_stake_more_lenient() {
        let row = |level: &str, low: &str, medium: &str, high: &str| {
            format!("[trust.{level}]\nlow = '{low}'\nmedium = '{medium}'\nhigh = '{high}'\n")
        };
        let strict = row("probation", "allow", "hold", "deny") + &row("supervised", "allow", "hold", "hold");
        let settings = Settings::parse("x", &strict).expect("valid");
        assert_eq!(settings.trust.probation.high, crate::trust::table::Becomes::Deny);
        for (text, words) in [
            (
                row("supervised", "allow", "deny", "deny"),
                "supervised.medium is `deny`, but `hold` at probation",
            ),
            (row("autonomous", "hold", "hold", "hold"), "autonomous.low is `hold`, but `allow` at trusted"),
            (row("trusted", "hold", "allow", "hold"), "trusted: tier low is `hold`, but tier medium"),
            (row("probation", "allow", "hold", "hold") + "critical = 'hold'\n", "unknown field `critical`"),
            ("[trust.probation]\nlow = 'allow'\nmedium = 'hold'\n".to_owned(), "missing field `high`"),
            (row("intern", "allow", "hold", "hold"), "unknown field `intern`"),
            (row("probation", "allow", "ask", "hold"), "unknown variant `ask`"),
        ] {
            let message = refused(&text);
            assert!(message.starts_with("enforcer.toml: ") && message.contains(words), "{message}");
        }
    }

    #[test]
    fn metrics_stay_on_this_host() {
        for address in ["0.0.0.0:9469", "10.0.0.1:9469", "[::]:9469"] {
            let message = refused(&format!("[metrics]\naddress = '{address}'"));
            assert!(message.contains("metrics.address"), "{message}");
        }
        assert!(Settings::parse("x", "[metrics]\naddress = '[::1]:9469'\nsocket = ''").is_ok());
        assert!(refused("[metrics]\nsocket = 'run/x'").contains("metrics.socket"));
    }

    #[test]
    fn a_file_that_was_named_must_exist() {
        let missing = Settings::load(Some(Path::new("/nonexistent/enforcer.toml")));
        assert!(matches!(missing, Err(SettingsError::Read { .. })));
    }
}
