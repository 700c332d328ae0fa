//! The daemon's life after the kernel side has started.

use super::{
    canary::{Canary, Silence},
    core::{Core, Shared},
    enforcement::{Enforcement, EnforcementError},
    memory, metrics_server, open_audit,
    policies::is_policy,
    proof::{self, Heard},
    signals::{Asked, Signals},
};
use crate::{
    cli::exit::{Exit, Failure},
    control::{agent::agent_socket, agent_server, fds, message::State, server},
    settings::Settings,
};
use nix::sys::inotify::{AddWatchFlags, InitFlags, Inotify};
use sd_notify::NotifyState;
use serde_json::json;
use std::{
    cell::RefCell,
    io,
    os::fd::RawFd,
    path::{Path, PathBuf},
    rc::Rc,
    time::Duration,
};
use tokio::{
    sync::Notify,
    task::{JoinSet, spawn_local, yield_now},
    time::{MissedTickBehavior, interval, sleep, timeout},
};

/// How long records may gather before they are taken: while some wait, further ones wake nobody.
const GATHER: Duration = Duration::from_millis(10);
/// How often the rings are looked at even if nothing wakes the daemon.
const TICK: Duration = Duration::from_millis(500);
/// How often the counters of lost records are read.
const LOSSES: Duration = Duration::from_secs(5);
/// How often the daemon looks for sessions that have ended unnoticed.
const SWEEP: Duration = Duration::from_secs(30);
/// How often the daemon looks at what waits for a person: timeouts are as exact as this.
const HOLDS: Duration = Duration::from_secs(1);
/// Editors write a file in several steps.
const SETTLE: Duration = Duration::from_millis(200);
/// Canaries in a row that may fail without showing that nothing is refused.
const UNTOLD: u32 = 3;

/// Publishes, proves, says ready, and serves until it is told to end.
pub(super) async fn run(
    settings: Rc<Settings>,
    program: PathBuf,
    enforcement: Box<dyn Enforcement>,
) -> Result<(), Failure> {
    // From here on signals are answered, not fatal.
    let mut signals = Signals::new().map_err(internal("catch signals"))?;
    let audit = open_audit(&settings)?;
    let canary = Canary::prepare(&settings, &program).map_err(internal("prepare the canary"))?;
    let core = Core::new(Rc::clone(&settings), program, canary, enforcement, Box::new(audit))
        .map_err(|e| kernel("set up the kernel's tables", &e))?;
    let core: Shared = Rc::new(RefCell::new(core));
    core.borrow_mut().say_started();
    core.borrow_mut().say_brought_back();
    core.borrow_mut().sweep();
    // What an earlier daemon has frozen; if the log does not work, it is frozen again at once.
    core.borrow_mut().thaw();
    core.borrow_mut().say_trust_problems();
    core.borrow_mut().adopt_break_glass();
    core.borrow_mut().reload();
    // What an earlier daemon has left: sessions may ask again, and what does not match is refused.
    core.borrow_mut().look_at_holds(true);
    proof::prove_first(&core).await?;
    core.borrow_mut().note_kernel();

    let (listener, group) = server::listen(&settings.paths.socket, &settings.control.group)
        .map_err(internal("open the control socket"))?;
    let at = agent_socket(&settings.paths.socket);
    let (agents, file) = agent_server::listen(&at).map_err(internal("open the sessions' socket"))?;
    core.borrow_mut().enforcement.set_agent_socket(Some(file));
    let metrics = metrics_server::bind(&settings).await?;
    let mut tasks = JoinSet::new();
    tasks.spawn_local(endless(metrics_server::serve(core.clone(), metrics)));
    let rings = core.borrow().ring_fds();
    let filled = Rc::new(Notify::new());
    for fd in rings {
        tasks.spawn_local(watch_ring(fd, Rc::clone(&filled)));
    }
    tasks.spawn_local(endless(drain(core.clone(), filled)));
    tasks.spawn_local(endless(tick(core.clone())));
    tasks.spawn_local(endless(server::serve(core.clone(), listener, group)));
    tasks.spawn_local(endless(agent_server::serve(core.clone(), agents)));
    tasks.spawn_local(watch_policies(core.clone(), settings.paths.policies.clone()));
    tasks.spawn_local(repeat_canary(core.clone()));
    spawn_local(feed_watchdog(core.clone()));
    say_ready(&core);
    // What loading the programs has taken.
    memory::give_back();

    let result = loop {
        tokio::select! {
            asked = signals.next() => match asked {
                Asked::Stop => break Ok(()),
                Asked::Reload => {
                    notify(&[NotifyState::Reloading]);
                    core.borrow_mut().reload();
                    say_ready(&core);
                }
            },
            Some(ended) = tasks.join_next() => match ended {
                Ok(Ok(())) => {}
                Ok(Err(failure)) => break Err(failure),
                Err(error) => break Err(internal("go on")(io::Error::other(error))),
            },
        }
    };
    notify(&[NotifyState::Stopping]);
    let mut core = core.borrow_mut();
    core.drain_all();
    core.note_losses();
    let because = result.as_ref().err().map(ToString::to_string);
    core.record("daemon-stopped", json!({"because": because, "enforcement": "stays pinned"}));
    core.sync();
    result
}

fn internal(what: &str) -> impl Fn(io::Error) -> Failure {
    let what = what.to_owned();
    move |e| Failure::new(Exit::Internal, format!("cannot {what}: {e}"), "")
}

fn kernel(what: &str, error: &EnforcementError) -> Failure {
    Failure::new(Exit::Kernel, format!("cannot {what}: {error}"), "")
}

async fn endless(task: impl Future<Output = ()>) -> Result<(), Failure> {
    task.await;
    Ok(())
}

fn notify(states: &[NotifyState<'_>]) {
    // Without a service manager there is nobody to tell.
    let _ = sd_notify::notify(false, states);
}

fn say_ready(core: &Shared) {
    let status = core.borrow().status();
    let text = format!("{}: {} agents, {} sessions", status.state.word(), status.agents, status.sessions);
    notify(&[NotifyState::Ready, NotifyState::Status(&text)]);
    tracing::info!("{text}");
}

/// The word in systemd's status line is the one of `enforcer status`, also when it changes.
fn say_state(core: &Shared, said: &mut Option<State>) {
    let status = core.borrow().status();
    let problem = status.problems.first().map_or(String::new(), |problem| format!(": {problem}"));
    notify(&[NotifyState::Status(&format!(
        "{}: {} agents, {} sessions{problem}",
        status.state.word(),
        status.agents,
        status.sessions
    ))]);
    if said.replace(status.state).is_some_and(|before| before != status.state) {
        tracing::warn!("{}{problem}", status.state.word());
        let fields = json!({"state": status.state, "problems": status.problems});
        core.borrow_mut().record("state", fields);
    }
}

async fn watch_ring(fd: RawFd, filled: Rc<Notify>) -> Result<(), Failure> {
    let failed = internal("watch a ring");
    let ring = fds::watch(fds::duplicate_raw(fd).map_err(&failed)?).map_err(&failed)?;
    loop {
        let mut ready = ring.readable().await.map_err(&failed)?;
        // Cleared first: what arrives while the ring is drained wakes this again.
        ready.clear_ready();
        filled.notify_one();
    }
}

/// Takes records in turns of bounded size.
pub(super) async fn drain(core: Shared, filled: Rc<Notify>) {
    loop {
        // Windows of repeated denials close also when nothing comes.
        let _ = timeout(TICK, filled.notified()).await;
        sleep(GATHER).await;
        while core.borrow_mut().drain().more {
            // Sockets and timers are looked at before this goes on, even if a ring never becomes empty.
            yield_now().await;
        }
        if core.borrow().sweep_due() {
            core.borrow_mut().sweep();
        }
    }
}

async fn tick(core: Shared) {
    let (mut losses, mut sweep, mut holds) = (interval(LOSSES), interval(SWEEP), interval(HOLDS));
    let seconds = core.borrow().settings.audit.sync_seconds;
    let mut sync = interval(Duration::from_secs(seconds));
    for timer in [&mut losses, &mut sweep, &mut sync, &mut holds] {
        timer.set_missed_tick_behavior(MissedTickBehavior::Delay);
    }
    let mut said = None;
    loop {
        tokio::select! {
            _ = losses.tick() => {
                core.borrow_mut().note_losses();
                core.borrow_mut().rest_between_records();
            }
            _ = sweep.tick() => {
                core.borrow_mut().sweep();
                core.borrow_mut().reload_what_is_stale();
                core.borrow_mut().rest();
                say_state(&core, &mut said);
            }
            _ = holds.tick() => {
                core.borrow_mut().follow_roots();
                core.borrow_mut().attach_more();
                core.borrow_mut().look_at_holds(false);
                core.borrow_mut().end_overdue_break_glass();
                core.borrow_mut().look_at_open_again(false);
                core.borrow_mut().flush();
                core.borrow_mut().look_at_log();
            }
            _ = sync.tick() => core.borrow_mut().sync(),
        }
    }
}

async fn feed_watchdog(core: Shared) {
    let mut microseconds = 0;
    if !sd_notify::watchdog_enabled(false, &mut microseconds) {
        return;
    }
    let mut timer = interval(Duration::from_micros(microseconds / 3));
    loop {
        timer.tick().await;
        // The state must be usable: a daemon whose state is stuck must be restarted.
        if core.try_borrow_mut().is_ok() {
            notify(&[NotifyState::Watchdog]);
        }
    }
}

async fn repeat_canary(core: Shared) -> Result<(), Failure> {
    let seconds = core.borrow().settings.daemon.canary_seconds;
    let mut untold = 0;
    loop {
        sleep(Duration::from_secs(seconds)).await;
        let proof = match proof::round(&core).await {
            // Somebody floods the ring; the kernel refuses and counts. The earlier proof stands.
            Ok(Heard::Counted) => continue,
            Ok(Heard::Record) => Ok(()),
            Err(silence) => Err(silence),
        };
        let certain = matches!(proof, Ok(()) | Err(Silence::NotRefused));
        untold = if certain { 0 } else { untold + 1 };
        if certain || untold >= UNTOLD {
            core.borrow_mut().note_canary(proof.clone());
        }
        if proof == Err(Silence::NotRefused) {
            proof?;
        }
    }
}

/// Reloads when a policy has changed.
async fn watch_policies(core: Shared, directory: PathBuf) -> Result<(), Failure> {
    loop {
        match watch_directory(&core, &directory).await {
            Ok(()) => {}
            Err(error) if error.kind() == io::ErrorKind::NotFound => {}
            Err(error) => tracing::warn!(%error, "cannot watch {}", directory.display()),
        }
        // The directory is not there, or is not there any more.
        sleep(Duration::from_secs(5)).await;
        if directory.exists() {
            core.borrow_mut().reload();
        }
    }
}

async fn watch_directory(core: &Shared, directory: &Path) -> io::Result<()> {
    let inotify = Inotify::init(InitFlags::IN_CLOEXEC | InitFlags::IN_NONBLOCK)?;
    let changes = AddWatchFlags::IN_CLOSE_WRITE
        | AddWatchFlags::IN_MOVED_TO
        | AddWatchFlags::IN_MOVED_FROM
        | AddWatchFlags::IN_DELETE
        | AddWatchFlags::IN_ATTRIB
        | AddWatchFlags::IN_DELETE_SELF
        | AddWatchFlags::IN_MOVE_SELF;
    inotify.add_watch(directory, changes | AddWatchFlags::IN_ONLYDIR)?;
    let events = fds::watch(fds::duplicate(&inotify)?)?;
    loop {
        let mut ready = events.readable().await?;
        ready.clear_ready();
        sleep(SETTLE).await;
        let mut due = false;
        loop {
            match inotify.read_events() {
                Ok(all) => {
                    let gone = AddWatchFlags::IN_IGNORED | AddWatchFlags::IN_MOVE_SELF;
                    if all.iter().any(|event| event.mask.intersects(gone)) {
                        return Ok(());
                    }
                    let overflow = AddWatchFlags::IN_Q_OVERFLOW;
                    due |= all.iter().any(|event| {
                        event.mask.contains(overflow)
                            || event.name.as_ref().is_some_and(|name| is_policy(Path::new(name)))
                    });
                }
                Err(nix::errno::Errno::EAGAIN) => break,
                Err(e) => return Err(e.into()),
            }
        }
        if due {
            core.borrow_mut().reload();
        }
    }
}
