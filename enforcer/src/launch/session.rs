//! One launched session, from the request to the removal of its cgroup.

use super::{
    authorize::authorize,
    cgroup::SessionCgroup,
    environment::environment,
    identity::{self, Identity, identity},
    layers,
    report::{self, Blame},
    spec::{Spec, Trouble},
    stdio::check_stdio,
};
use crate::{
    cli::exit::{Exit, Failure},
    control::{
        connection::{Connection, ConnectionError},
        fds,
        message::{Bytes, Ended, ExecRequest, Reply, Request},
        peer::Peer,
    },
    daemon::{
        core::Shared,
        enforcement::{AgentSlot, SessionRef},
        watch,
    },
    event::json::Launcher,
    event::text::{escape, session_id},
};
use enforcer_common::map::TierMap;
use nix::{
    fcntl::{FcntlArg, SealFlag, fcntl},
    sys::{
        memfd::{MFdFlags, memfd_create},
        signal::{Signal, kill},
    },
    unistd::Pid,
};
use serde_json::json;
use std::{
    fs::File,
    io::{self, Write},
    os::{
        fd::{AsFd, OwnedFd},
        unix::{net::UnixStream, process::ExitStatusExt},
    },
    process::{ExitStatus, Stdio},
    time::Duration,
};
use tokio::{
    io::AsyncReadExt,
    net::unix::pipe,
    process::{Child, Command},
};

/// After which time the helper must have executed the command or failed.
const PATIENCE: Duration = Duration::from_secs(120);
/// The longest report that is read.
const REPORT: usize = 64 * 1024;
/// Bounds on what a caller may say a session is for.
const TASK: usize = 1024;

/// What the policy in force says about a launch.
struct Terms {
    slot: AgentSlot,
    tiers: TierMap,
    user: Identity,
    layers: layers::Plan,
}

/// A session that is bound. Its cgroup is removed by [`finish`].
struct Bound {
    cgroup: SessionCgroup,
    session: SessionRef,
}

/// A session whose command runs.
struct Running {
    bound: Bound,
    child: Child,
    pid: i32,
}

/// Serves a request to launch, and the session until it ends.
pub async fn run(
    core: &Shared,
    peer: &Peer,
    request: ExecRequest,
    mut connection: Connection,
) -> Result<(), ConnectionError> {
    let stdio = connection.take_fds();
    match start(core, peer, &request, stdio).await {
        Ok(running) => attend(core, running, &request, connection).await,
        Err(failure) => {
            core.borrow_mut().record(
                "launch-refused",
                json!({
                    "agent": escape(request.agent.as_bytes()), "because": failure.message,
                    "launcher": {"uid": peer.uid, "gid": peer.gid, "pid": peer.pid},
                }),
            );
            connection.fail(&failure).await
        }
    }
}

async fn start(
    core: &Shared,
    peer: &Peer,
    request: &ExecRequest,
    stdio: Vec<OwnedFd>,
) -> Result<Running, Failure> {
    let terms = terms(core, peer, request)?;
    let stdio = check_stdio(stdio, request.terminal)?;
    let bound = bind(core, peer, request, &terms)?;
    // The policy is in force from here on, before anything of the session exists.
    let spawned = spawn(core, request, &terms, &bound, stdio).await;
    core.borrow_mut().watched.take(bound.session.id);
    match spawned {
        Ok((child, pid)) => {
            core.borrow_mut().set_launching(bound.cgroup.path().to_owned(), false);
            core.borrow_mut().note_layers(bound.cgroup.path(), &terms.layers, terms.user.uid);
            announce(core, peer, request, &terms, &bound, pid);
            Ok(Running { bound, child, pid })
        }
        Err(failure) => {
            finish(core, bound).await;
            Err(failure)
        }
    }
}

/// Whether this peer may launch this agent now, and how it would run.
fn terms(core: &Shared, peer: &Peer, request: &ExecRequest) -> Result<Terms, Failure> {
    let core = core.borrow();
    let name = &request.agent;
    let shown = escape(name.as_bytes());
    if let Some(why) = core.no_proof() {
        return Err(Failure::new(Exit::Kernel, format!("not enforcing: {why}"), "see enforcer status"));
    }
    if let Some(why) = core.unrecorded() {
        let remedy = "make room for the log; unless audit.on_failure is \"continue\", no session starts until it can be written";
        return Err(Failure::new(
            Exit::CannotWrite,
            format!("the audit log cannot be written: {why}"),
            remedy,
        ));
    }
    let Some(agent) = core.agent(name) else {
        let remedy = "enforcer agents lists those that have a policy";
        return Err(Failure::new(Exit::Usage, format!("there is no agent {shown}"), remedy));
    };
    let whole = agent.policy.whole();
    let policy = &whole.policy;
    let by = policy.launch().map(|launch| launch.by()).unwrap_or_default();
    let Some(authorized) = authorize(peer, by, &identity::Host) else {
        let who = match by {
            [] => "root".to_owned(),
            some => some.iter().map(ToString::to_string).collect::<Vec<_>>().join(", "),
        };
        return Err(Failure::new(
            Exit::Permission,
            format!("user {} may not launch {shown}", peer.uid),
            format!("its policy (launch.by) lets {who}"),
        ));
    };
    if core.expired().contains(name) {
        let until = policy.expires().unwrap_or_default();
        return Err(Failure::new(
            Exit::BadPolicy,
            format!("the policy of {shown} has expired ({until})"),
            "publish a new version of it",
        ));
    }
    if request.command.first().is_none_or(|command| command.0.is_empty()) {
        return Err(Failure::new(Exit::Usage, "there is no command", "name it after --"));
    }
    if request.task.as_ref().is_some_and(|task| task.len() > TASK) {
        return Err(Failure::new(Exit::Usage, format!("--task is longer than {TASK} bytes"), ""));
    }
    let user = identity(&authorized.run_as(policy.launch().and_then(|launch| launch.run_as())))
        .map_err(|e| Failure::new(Exit::NotStarted, e, "create the user, or change launch.run_as"))?;
    let layers = layers::plan(policy, &core.settings.launch, user.uid, &layers::host::Host::look())
        .map_err(|e| Failure::new(Exit::NotStarted, e.to_string(), "change launch.landlock in the policy"))?;
    Ok(Terms { slot: agent.slot, tiers: core.tiers(agent), user, layers })
}

fn bind(core: &Shared, peer: &Peer, request: &ExecRequest, terms: &Terms) -> Result<Bound, Failure> {
    let mut core = core.borrow_mut();
    let settings = core.settings.clone();
    let failed = |what: String| Failure::new(Exit::NotStarted, what, "see enforcer status");
    let cgroup = SessionCgroup::create(&settings.paths.cgroups, settings.home_root(), &request.agent)
        .map_err(|e| failed(format!("cannot make a cgroup below {}: {e}", settings.home_root())))?;
    let undo = |cgroup: &SessionCgroup, message: String| {
        // An empty cgroup that stays is removed by the next look around.
        let _ = cgroup.remove();
        failed(message)
    };
    let launch = &settings.launch;
    let pids = launch.pids_max.map(|n| ("pids", "pids.max", n.to_string()));
    let memory = launch.memory_max.clone().map(|text| ("memory", "memory.max", text));
    for (controller, file, value) in pids.into_iter().chain(memory) {
        if let Err(e) = cgroup.limit(controller, file, &value) {
            return Err(undo(&cgroup, format!("cannot set {file} of the session: {e}")));
        }
    }
    core.set_launching(cgroup.path().to_owned(), true);
    match core.bind(cgroup.id(), terms.slot, terms.tiers) {
        Ok(session) => {
            core.watched.watch(session.id);
            let launcher = Launcher { uid: peer.uid, pid: peer.pid };
            core.introduce(session, request.task.clone(), launcher);
            Ok(Bound { cgroup, session })
        }
        Err(error) => {
            core.set_launching(cgroup.path().to_owned(), false);
            Err(undo(&cgroup, format!("cannot bind a session: {error}")))
        }
    }
}

async fn spawn(
    core: &Shared,
    request: &ExecRequest,
    terms: &Terms,
    bound: &Bound,
    stdio: [OwnedFd; 3],
) -> Result<(Child, i32), Failure> {
    let failed = |e: io::Error| Failure::new(Exit::NotStarted, format!("cannot start the helper: {e}"), "");
    let (order, program) = {
        let core = core.borrow();
        (order(request, terms, bound, &core.settings.launch)?, core.program.clone())
    };
    let (ours, theirs) = UnixStream::pair().map_err(failed)?;
    let [input, output, error] = &stdio;
    fds::send_all(ours.as_fd(), b"!", &[input.as_fd(), output.as_fd(), error.as_fd(), order.as_fd()])
        .map_err(failed)?;
    let (report, report_end) =
        nix::unistd::pipe2(nix::fcntl::OFlag::O_CLOEXEC).map_err(|e| failed(e.into()))?;
    let child = Command::new(program)
        .arg("launch-helper")
        .env_clear()
        .current_dir("/")
        .stdin(Stdio::from(OwnedFd::from(theirs)))
        .stdout(Stdio::from(report_end))
        .stderr(Stdio::inherit())
        .spawn()
        .map_err(failed)?;
    drop(stdio);
    let pid = child.id().and_then(|pid| i32::try_from(pid).ok());
    let pid = pid.ok_or_else(|| failed(io::Error::other("the helper has no process id")))?;
    let mut text = Vec::new();
    let mut report = pipe::Receiver::from_owned_fd(report).map_err(failed)?.take(REPORT as u64);
    match tokio::time::timeout(PATIENCE, report.read_to_end(&mut text)).await {
        Ok(Ok(_)) => {}
        Ok(Err(e)) => return Err(failed(e)),
        Err(_) => {
            // It may not have entered the cgroup yet, so cgroup.kill need not reach it.
            let _ = kill(Pid::from_raw(pid), Signal::SIGKILL);
            return Err(failed(io::ErrorKind::TimedOut.into()));
        }
    }
    if text.is_empty() {
        // The report ends without a word when the command is executed - or when the helper dies.
        return Ok((child, pid));
    }
    let trouble: Trouble = serde_json::from_slice(&text).map_err(|e| failed(e.into()))?;
    let mut blame = Blame::Nobody;
    if trouble.is_refused_execution() {
        watch::catch_up(core, bound.session.id).await;
        let core = core.borrow();
        blame = match core.watched.refusals(bound.session.id).last() {
            Some(refusal) => Blame::Policy(refusal.clone()),
            None if core.may_have_lost(terms.slot) => Blame::Unknown,
            None => Blame::Nobody,
        };
    }
    Err(report::explain(&request.agent, &trouble, &blame))
}

/// The order to the helper, in memory that cannot be changed any more.
fn order(
    request: &ExecRequest,
    terms: &Terms,
    bound: &Bound,
    settings: &crate::settings::Launch,
) -> Result<File, Failure> {
    use std::os::unix::ffi::OsStrExt;
    let session = session_id(bound.session.id);
    let user = &terms.user;
    let environment = environment(request, settings, user, &session)
        .map_err(|e| Failure::new(Exit::Usage, e, "change --env"))?;
    let spec = Spec {
        procs: Bytes(bound.cgroup.procs().as_os_str().as_bytes().to_vec()),
        command: request.command.clone(),
        environment,
        path: settings.path.clone(),
        directory: request.directory.clone().unwrap_or_else(|| Bytes(user.home.clone())),
        directory_is_home: request.directory.is_none(),
        uid: user.uid,
        gid: user.gid,
        groups: user.groups.clone(),
        terminal: request.terminal,
        layers: terms.layers.layers.clone(),
    };
    let write = || -> io::Result<File> {
        let fd = memfd_create(c"enforcer-launch", MFdFlags::MFD_CLOEXEC | MFdFlags::MFD_ALLOW_SEALING)?;
        let mut file = File::from(fd);
        file.write_all(&serde_json::to_vec(&spec)?)?;
        let seals = SealFlag::F_SEAL_WRITE | SealFlag::F_SEAL_SHRINK | SealFlag::F_SEAL_GROW;
        fcntl(&file, FcntlArg::F_ADD_SEALS(seals | SealFlag::F_SEAL_SEAL))?;
        Ok(file)
    };
    write().map_err(|e| Failure::new(Exit::NotStarted, format!("cannot write the helper's order: {e}"), ""))
}

fn announce(core: &Shared, peer: &Peer, request: &ExecRequest, terms: &Terms, bound: &Bound, pid: i32) {
    let command: Vec<String> = request.command.iter().map(|argument| escape(&argument.0)).collect();
    core.borrow_mut().record(
        "launched",
        json!({
            "agent": request.agent, "session": session_id(bound.session.id), "pid": pid,
            "launcher": {"uid": peer.uid, "gid": peer.gid, "pid": peer.pid},
            "run_as": {"uid": terms.user.uid, "name": terms.user.name},
            "command": command, "directory": request.directory.as_ref().map(|d| escape(&d.0)),
            "task": request.task.as_ref().map(|task| escape(task.as_bytes())),
            "cgroup": bound.cgroup.id(), "terminal": request.terminal, "detached": request.detach,
            "layers": terms.layers.status,
        }),
    );
}

/// Waits for the end of the command; passes signals on; kills the session when its caller has gone.
async fn attend(
    core: &Shared,
    mut running: Running,
    request: &ExecRequest,
    mut connection: Connection,
) -> Result<(), ConnectionError> {
    let started =
        Reply::Started { session: session_id(running.bound.session.id), pid: running.pid.unsigned_abs() };
    let mut attached = connection.reply(&started).await.is_ok();
    if !attached && !request.detach {
        kill_all(&running.bound);
    }
    let status = loop {
        tokio::select! {
            status = running.child.wait() => break status,
            said = connection.request(), if attached => match said {
                Ok(Some(Request::Signal { signal })) => pass_on(signal, running.pid, request.terminal),
                Ok(Some(_)) => tracing::debug!("a request in a running session is ignored"),
                Ok(None) | Err(_) => {
                    attached = false;
                    if !request.detach {
                        kill_all(&running.bound);
                    }
                }
            },
        }
    };
    let ended = ended(status);
    // Whatever the command has left behind ends with it.
    kill_all(&running.bound);
    let id = running.bound.session.id;
    let summary = core.borrow_mut().sum_up(id);
    core.borrow_mut().record(
        "session-ended",
        json!({"agent": request.agent, "session": session_id(id), "end": ended, "summary": summary}),
    );
    let core = core.clone();
    tokio::task::spawn_local(async move { finish(&core, running.bound).await });
    if attached { connection.reply(&Reply::Ended(ended)).await } else { Ok(()) }
}

fn kill_all(bound: &Bound) {
    if let Err(error) = bound.cgroup.kill() {
        tracing::error!(%error, "cannot kill the session in {}", bound.cgroup.path().display());
    }
}

fn ended(status: io::Result<ExitStatus>) -> Ended {
    match status {
        Ok(status) => match (status.code(), status.signal()) {
            (Some(status), _) => Ended::Exited { status },
            (None, signal) => Ended::Killed { signal: signal.unwrap_or(libc::SIGKILL) },
        },
        Err(error) => {
            tracing::error!(%error, "cannot wait for a session");
            Ended::Killed { signal: libc::SIGKILL }
        }
    }
}

/// Signals that a caller may pass on. What a keyboard sends goes to the whole foreground, as it would there.
fn pass_on(signal: i32, pid: i32, terminal: bool) {
    let (signal, group) = match Signal::try_from(signal) {
        Ok(s @ (Signal::SIGINT | Signal::SIGQUIT)) => (s, !terminal),
        Ok(s @ (Signal::SIGTERM | Signal::SIGHUP | Signal::SIGUSR1 | Signal::SIGUSR2 | Signal::SIGCONT)) => {
            (s, false)
        }
        _ => return,
    };
    // The process has not been waited for, so its number is still its own; it may have ended, though.
    let _ = kill(Pid::from_raw(if group { -pid } else { pid }), signal);
}

/// Kills what is left, waits until nobody lives in the cgroup, removes it and frees the session.
async fn finish(core: &Shared, bound: Bound) {
    // At most about 20 s; then the next look around does the rest.
    let mut pause = Duration::from_millis(1);
    // Where nobody has entered there is nobody to kill.
    let _ = bound.cgroup.kill();
    loop {
        let empty = bound.cgroup.populated().is_ok_and(|populated| !populated);
        if empty && bound.cgroup.remove().is_ok() {
            break;
        }
        if pause > Duration::from_secs(10) {
            tracing::warn!("the cgroup {} does not become empty", bound.cgroup.path().display());
            core.borrow_mut().set_launching(bound.cgroup.path().to_owned(), false);
            return;
        }
        tokio::time::sleep(pause).await;
        pause *= 2;
    }
    let mut core = core.borrow_mut();
    core.set_launching(bound.cgroup.path().to_owned(), false);
    core.end(bound.session);
    core.refill();
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_end_is_a_status_or_a_signal() {
        assert_eq!(ended(Ok(ExitStatus::from_raw(3 << 8))), Ended::Exited { status: 3 });
        assert_eq!(ended(Ok(ExitStatus::from_raw(9))), Ended::Killed { signal: 9 });
    }
}
