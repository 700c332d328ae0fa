//! The tables of the settings file, and what they say by default.

use crate::{
    approvals::{queue::TwoPersons, webhook},
    log::segments::OnDamage,
    policy::{Landlock, Seccomp},
    sink::settings::TlsSettings,
};
use enforcer_common::limits;
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};
use std::{net::SocketAddr, path::PathBuf};

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
    /// What a seccomp filter around each session refuses, unless its policy says something else.
    pub seccomp: Seccomp,
    /// What a Landlock ruleset around each session is about, unless its policy says something else. Only where the
    /// kernel asks `bpf` before `landlock`.
    pub landlock: Landlock,
    /// Each session is a transient scope of systemd's, where systemd runs and answers. Otherwise, and with `false`,
    /// the daemon makes plain cgroups.
    pub scopes: bool,
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
            seccomp: Seccomp::default(),
            landlock: Landlock::default(),
            scopes: true,
            pids_max: None,
            memory_max: None,
        }
    }
}

impl Launch {
    /// [`Launch::memory_max`] as a number.
    pub fn memory_bytes(&self) -> Option<u64> {
        let text = self.memory_max.as_deref()?;
        let digits = text.trim_end_matches(['K', 'M', 'G', 'T']);
        let shift = match text.get(digits.len()..)? {
            "K" => 10,
            "M" => 20,
            "G" => 30,
            "T" => 40,
            _ => 0,
        };
        // What has no number is no limit that the kernel could tell from none.
        Some(digits.parse::<u64>().unwrap_or(u64::MAX).saturating_mul(1 << shift))
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
    /// Bytes that the log's records may take: when full bundles and their clear texts have more, the oldest go. At
    /// least 1048576; 0: nothing is removed for its size.
    pub max_bytes: u64,
    /// Days after which records go; 0: never.
    pub max_days: u32,
    /// Who is asked to sign checkpoints too.
    pub witnesses: Vec<WitnessSettings>,
    /// How many of them should have signed; fewer are a problem of `enforcer status`, and nothing else. 0: any number.
    pub witness_quorum: usize,
    /// Seconds between two checkpoints that they are asked to sign.
    pub witness_seconds: u64,
}

/// A witness: somebody elsewhere who signs what only continues what they have signed before.
#[derive(Clone, Debug, PartialEq, Eq, Deserialize, Serialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct WitnessSettings {
    /// Where; `/add-checkpoint` is added.
    pub url: String,
    /// Its public key, `name+id+key`.
    pub key: String,
    /// For `https`.
    #[serde(default)]
    pub tls: TlsSettings,
}

/// What to do while the log cannot be written or signed.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Deserialize, Serialize, JsonSchema)]
#[serde(rename_all = "kebab-case")]
pub enum OnFailure {
    /// Enforcement and launches go on; records wait, and those that cannot are counted.
    Continue,
    /// The same, but no session is started, and what tiers medium and high allow is refused in those that run.
    #[default]
    Refuse,
    /// The same, and sessions are frozen until the log works again.
    Freeze,
}

impl Default for Audit {
    fn default() -> Self {
        Self {
            sync_seconds: 1,
            checkpoint_milliseconds: 1000,
            key: None,
            on_damage: OnDamage::NewLog,
            on_failure: OnFailure::Refuse,
            max_bytes: 0,
            max_days: 0,
            witnesses: Vec::new(),
            witness_quorum: 0,
            witness_seconds: 10,
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
    /// MiB of kernel memory for the automata of all policies: a power of two from 16 to 1024. Policies with equal rules
    /// share theirs. Another number takes effect when the tables are made anew: at the next boot, or after
    /// `enforcer daemon --uninstall`.
    pub arena_mib: u32,
}

impl Default for Daemon {
    fn default() -> Self {
        Self { canary_seconds: 30, arena_mib: (limits::ARENA >> 20) as u32 }
    }
}

impl Daemon {
    /// Bytes of the arena.
    pub fn arena(&self) -> usize {
        (self.arena_mib as usize) << 20
    }

    pub(super) fn problem(&self) -> Option<(&'static str, String)> {
        let [least, most] = limits::ARENAS;
        if self.arena_mib.is_power_of_two() && (least..=most).contains(&self.arena()) {
            return None;
        }
        let (least, most, given) = (least >> 20, most >> 20, self.arena_mib);
        Some(("daemon.arena_mib", format!("{given} is no power of two from {least} to {most}")))
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
