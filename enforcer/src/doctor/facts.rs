//! Gathers what the doctor judges; changes nothing.

use super::{
    layers::LayerFacts,
    remedy::{Family, family},
};
use crate::{
    audit,
    control::{
        client::Client,
        message::{Reply, Request, Status},
    },
    daemon::{
        policies::{self, Known, PolicyFile},
        probe::{self, Need},
        this_host,
    },
    launch::layers::host::Host,
    policy::{Landlock, Seccomp},
    settings::Settings,
};
use std::{
    fs, io,
    os::unix::fs::MetadataExt,
    path::{Path, PathBuf},
    process::{Command, Stdio},
};

/// What is known about a host. `None` and `Err` mean that it could not be told, or that it is not there, as said.
#[derive(Clone, Debug)]
pub struct Facts {
    /// The user who asks.
    pub uid: u32,
    /// The distribution.
    pub family: Family,
    /// Why the settings file cannot be used; everything else is then looked for where the defaults say.
    pub settings: Option<String>,
    /// What a host must have, and what is wrong there.
    pub needs: Vec<(Need, Option<String>)>,
    /// The active LSMs, `None` where securityfs does not say.
    pub lsms: Option<String>,
    /// `net.core.bpf_jit_enable`.
    pub jit: Option<String>,
    /// What sessions can have around them beside the kernel programs.
    pub layers: LayerFacts,
    /// systemd runs this host.
    pub systemd: bool,
    /// What systemd says of the daemon's unit: whether it is enabled.
    pub unit: Option<String>,
    /// Pinned links, or `None` where nothing is pinned.
    pub links: Result<Option<usize>, String>,
    /// Programs without which something is decided by nobody, and of which none is pinned.
    pub missing: Vec<&'static str>,
    /// What the daemon says.
    pub daemon: DaemonFact,
    /// Policy files, and what is wrong with each.
    pub policies: Result<Vec<(PathBuf, Option<String>)>, String>,
    /// The secret key of the audit log, `None` where there is none yet.
    pub key: Result<Option<KeyFact>, String>,
    /// Free bytes and all bytes of the file system with the state directory, `None` where that is not there.
    pub disk: Option<(u64, u64)>,
}

/// What the daemon says.
#[derive(Clone, Debug)]
pub enum DaemonFact {
    /// Its status.
    Answers(Box<Status>),
    /// Nobody listens.
    Silent(String),
    /// It was not allowed to ask.
    Forbidden,
}

/// The secret key's file.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct KeyFact {
    /// Where it is.
    pub path: PathBuf,
    /// Whose it is.
    pub uid: u32,
    /// Its mode.
    pub mode: u32,
}

/// Looks at this host.
pub fn gather(settings: Result<Settings, String>) -> Facts {
    let (settings, broken) = match settings {
        Ok(settings) => (settings, None),
        Err(why) => (Settings::default(), Some(why)),
    };
    let settings = &settings;
    let host = this_host(settings);
    let needs = probe::needs(&host);
    let roots: Vec<String> = settings.agents.roots.iter().map(|root| root.path.clone()).collect();
    let read = |path: &str| fs::read_to_string(path).ok().map(|text| text.trim().to_owned());
    let systemd = Path::new("/run/systemd/system").is_dir();
    Facts {
        uid: nix::unistd::geteuid().as_raw(),
        family: read("/etc/os-release")
            .or_else(|| read("/usr/lib/os-release"))
            .map_or(Family::Other, |text| family(&text)),
        settings: broken,
        needs: needs.into_iter().map(|(need, problem)| (need, problem.map(|p| p.message))).collect(),
        lsms: read("/sys/kernel/security/lsm"),
        jit: read("/proc/sys/net/core/bpf_jit_enable"),
        layers: LayerFacts {
            seccomp: read("/proc/sys/kernel/seccomp/actions_avail"),
            seccomp_wanted: settings.launch.seccomp != Seccomp::None,
            host: Host::look(),
            landlock_wanted: settings.launch.landlock != Landlock::None,
        },
        systemd,
        unit: systemd.then(unit_enabled).flatten(),
        missing: missing_links(&settings.paths.pins, needed()),
        links: pinned_links(&settings.paths.pins)
            .map_err(|e| format!("{}: {e}", settings.paths.pins.display())),
        daemon: ask_daemon(&settings.paths.socket),
        policies: policies::paths(&settings.paths.policies)
            .map(|paths| {
                let read = |path| PolicyFile::read(path, &roots, &Known::new());
                paths.into_iter().map(read).map(|file| (file.path, file.outcome.err())).collect()
            })
            .map_err(|e| format!("{}: {e}", settings.paths.policies.display())),
        key: key(&audit::secret_key(settings)),
        disk: disk(&settings.paths.state),
    }
}

fn unit_enabled() -> Option<String> {
    let mut ask = Command::new("systemctl");
    ask.args(["is-enabled", "enforcer.service"]).stdin(Stdio::null()).stderr(Stdio::null());
    let out = ask.output().ok()?;
    Some(String::from_utf8_lossy(&out.stdout).trim().to_owned())
}

/// The directories of pinned programs, one for each generation; `None`: there is nothing for pins.
fn generations(pins: &Path) -> io::Result<Option<Vec<PathBuf>>> {
    let entries = match fs::read_dir(pins) {
        Err(e) if e.kind() == io::ErrorKind::NotFound => return Ok(None),
        entries => entries?,
    };
    let mut all = Vec::new();
    for entry in entries {
        let path = entry?.path();
        if path.file_name().is_some_and(|name| name.as_encoded_bytes().starts_with(b"links-")) {
            all.push(path);
        }
    }
    Ok(Some(all))
}

/// How many programs are pinned; `None`: the directory is not there.
pub fn pinned_links(pins: &Path) -> io::Result<Option<usize>> {
    let Some(all) = generations(pins)? else { return Ok(None) };
    let counts = all.iter().map(|links| Ok(fs::read_dir(links)?.count()));
    counts.sum::<io::Result<usize>>().map(Some)
}

/// Those of `needed` that are pinned by no generation of programs.
pub fn missing_links(pins: &Path, mut needed: Vec<&'static str>) -> Vec<&'static str> {
    let all = generations(pins).ok().flatten().unwrap_or_default();
    needed.retain(|program| !all.iter().any(|links| links.join(program).exists()));
    needed
}

/// The programs that every kernel needs.
pub fn needed() -> Vec<&'static str> {
    #[cfg(feature = "kernel")]
    return crate::kernel::needed().collect();
    #[cfg(not(feature = "kernel"))]
    Vec::new()
}

fn ask_daemon(socket: &Path) -> DaemonFact {
    use crate::cli::exit::Exit;
    match Client::connect(socket).and_then(|mut client| client.ask(&Request::Status)) {
        Ok(Reply::Status(status)) => DaemonFact::Answers(status),
        Ok(_) => DaemonFact::Silent("the daemon answers something else".to_owned()),
        Err(failure) if failure.exit == Exit::Permission => DaemonFact::Forbidden,
        Err(failure) => DaemonFact::Silent(failure.message),
    }
}

fn key(path: &Path) -> Result<Option<KeyFact>, String> {
    match fs::symlink_metadata(path) {
        Ok(meta) => Ok(Some(KeyFact { path: path.to_owned(), uid: meta.uid(), mode: meta.mode() & 0o7777 })),
        Err(e) if e.kind() == io::ErrorKind::NotFound => Ok(None),
        Err(e) => Err(format!("{}: {e}", path.display())),
    }
}

/// Of the nearest directory that exists.
fn disk(state: &Path) -> Option<(u64, u64)> {
    let there = state.ancestors().find(|path| path.exists())?;
    let stat = nix::sys::statvfs::statvfs(there).ok()?;
    let unit = stat.fragment_size();
    Some((stat.blocks_available() * unit, stat.blocks() * unit))
}
