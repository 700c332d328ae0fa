//! The daemon: reads top to bottom. The only caller of the kernel side.

pub mod aggregate;
mod arguments;
mod break_glass;
pub mod canary;
mod capabilities;
mod cmdline;
mod commands;
mod content;
pub mod core;
mod counted;
pub mod enforcement;
mod first_use;
mod held;
mod holds;
pub mod judge;
mod layers;
mod left_open;
mod links;
pub(crate) mod lives;
mod loaded;
mod losses;
mod memory;
mod metrics;
mod metrics_server;
mod names;
mod numbers;
mod own;
pub mod policies;
pub mod probe;
mod progress;
mod proof;
mod published;
mod recent;
mod refusals;
pub mod registry;
mod reload;
mod report;
mod serve;
mod sessions;
mod signals;
mod sweep;
mod trust;
pub mod uninstall;
mod unwritten;
pub mod watch;

#[cfg(test)]
#[expect(unreachable_pub, reason = "the file serves the integration tests too")]
#[path = "../../tests/support/fake.rs"]
mod fake;
#[cfg(test)]
mod scale;
#[cfg(test)]
mod tests;
#[cfg(test)]
mod throughput;

use crate::{
    audit::Recorder,
    cli::exit::{Exit, Failure},
    control::message::State,
    doctor,
    settings::Settings,
};
use enforcement::{Enforcement, StartError};
use nix::fcntl::{Flock, FlockArg};
use std::{
    fs,
    path::{Path, PathBuf},
    rc::Rc,
};

/// How the kernel side is started.
pub type Start = fn(&Settings) -> Result<Box<dyn Enforcement>, StartError>;

/// Runs the daemon until it is told to end. Either it enforces, or it returns an error.
pub fn run(settings: Settings, start: Start) -> Result<(), Failure> {
    let pins = settings.paths.pins.clone();
    run_or_fail(settings, start).inspect_err(|failure| {
        // What an earlier daemon pinned goes on deciding.
        let some = matches!(doctor::pinned_links(&pins), Ok(Some(1..)));
        let decides = some && doctor::missing_links(&pins, doctor::needed()).is_empty();
        let word = if decides { State::Degraded } else { State::NotEnforcing }.word();
        let text = format!("{word}: {failure}");
        // Without a service manager there is nobody to tell.
        let _ = sd_notify::notify(false, &[sd_notify::NotifyState::Status(&text)]);
    })
}

fn run_or_fail(settings: Settings, start: Start) -> Result<(), Failure> {
    probe_host(&settings)?;
    capabilities::give_up()?;
    let _only = only_daemon(&settings)?;
    make_roots(&settings)?;
    let enforcement = start(&settings)?;
    let runtime = tokio::runtime::Builder::new_current_thread()
        .enable_all()
        .build()
        .map_err(|e| Failure::new(Exit::Internal, format!("cannot start the event loop: {e}"), ""))?;
    let program = PathBuf::from("/proc/self/exe");
    tokio::task::LocalSet::new().block_on(&runtime, serve::run(Rc::new(settings), program, enforcement))
}

/// As [`run`], in a runtime that is there already and without looking at the host: for tests.
#[doc(hidden)]
pub async fn run_with(
    settings: Settings,
    program: PathBuf,
    enforcement: Box<dyn Enforcement>,
) -> Result<(), Failure> {
    serve::run(Rc::new(settings), program, enforcement).await
}

/// Refuses a host that cannot enforce; every problem is logged, the first decides the exit code.
fn probe_host(settings: &Settings) -> Result<(), Failure> {
    let host = this_host(settings);
    let mut problems = probe::problems(&host).into_iter();
    let Some(first) = problems.next() else { return Ok(()) };
    for other in problems {
        tracing::error!(remedy = other.remedy, "{other}");
    }
    Err(first)
}

/// Where to look on this host.
pub fn this_host(settings: &Settings) -> probe::Host<'static> {
    let build = nix::sys::utsname::uname().map(|name| name.version().to_string_lossy().into_owned());
    let bpffs = settings.paths.pins.parent().unwrap_or(Path::new("/sys/fs/bpf"));
    probe::Host {
        uid: nix::unistd::geteuid().as_raw(),
        release: probe::full_release(&kernel_release(), &build.unwrap_or_default()),
        cgroups: settings.paths.cgroups.clone(),
        mountinfo: "/proc/self/mountinfo".into(),
        lsm: "/sys/kernel/security/lsm".into(),
        lockdown: "/sys/kernel/security/lockdown".into(),
        btf: "/sys/kernel/btf/vmlinux".into(),
        bpffs: bpffs.to_owned(),
        state: settings.paths.state.clone(),
        magic: &|path| Ok(nix::sys::statfs::statfs(path)?.filesystem_type().0),
    }
}

/// Two daemons would undo each other's work. The lock ends with the process.
fn only_daemon(settings: &Settings) -> Result<Flock<fs::File>, Failure> {
    let path = settings.paths.state.join("lock");
    let shown = path.display();
    let file = fs::File::create(&path)
        .map_err(|e| Failure::new(Exit::CannotWrite, format!("cannot make {shown}: {e}"), "make room"))?;
    Flock::lock(file, FlockArg::LockExclusiveNonblock).map_err(|(_, e)| {
        let message = format!("another daemon runs with this state directory ({shown}: {})", e.desc());
        Failure::new(Exit::Internal, message, "see systemctl status enforcer")
    })
}

/// The roots exist when their slices are started; where they are not, they are made.
fn make_roots(settings: &Settings) -> Result<(), Failure> {
    for root in &settings.agents.roots {
        let path = sweep::directory(&settings.paths.cgroups, &root.path);
        fs::create_dir_all(&path).map_err(|e| {
            let message = format!("cannot make the cgroup {}: {e}", path.display());
            Failure::new(Exit::Internal, message, "start its slice: systemctl start agents.slice")
        })?;
    }
    Ok(())
}

/// Opens the audit log.
fn open_audit(settings: &Settings) -> Result<Recorder, Failure> {
    Recorder::open(settings)
        .map_err(|e| Failure::new(Exit::CannotWrite, format!("cannot use the audit log: {e}"), e.remedy()))
}

/// `uname -r`.
pub(crate) fn kernel_release() -> String {
    nix::sys::utsname::uname().map(|name| name.release().to_string_lossy().into_owned()).unwrap_or_default()
}
