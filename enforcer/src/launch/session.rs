//! One launched session, from the request to the removal of its cgroup.

use super::{
    authorize::authorize,
    cgroup::SessionCgroup,
    environment::environment,
    identity::{self, Identity, identity},
    layers,
    report::{self, Blame},
    scope::{self, Scope, Systemd},
    spawn::{Heard, Helper},
    spec::{Spec, Trouble},
    stdio::check_stdio,
};
use crate::{
    cli::exit::{Exit, Failure},
    control::{
        connection::{Connection, ConnectionError},
        message::{Bytes, Ended, ExecRequest, Reply, Request},
        peer::Peer,
    },
    daemon::{
        core::Shared,
        enforcement::{AgentSlot, SessionRef},
        lives::new_id,
        watch,
    },
    event::json::Launcher,
    event::text::{escape, session_id},
};
use enforcer_common::map::TierMap;
use nix::{
    sys::signal::{Signal, kill},
    unistd::Pid,
};
use serde_json::json;
use std::{
    io,
    os::{
        fd::OwnedFd,
        unix::{ffi::OsStrExt, process::ExitStatusExt},
    },
    path::Path,
    process::ExitStatus,
    time::Duration,
};
use tokio::process::Child;

/// Bounds on what a caller may say a session is for.
const TASK: usize = 1024;

/// What the policy in force says about a launch.
struct Terms {
    slot: AgentSlot,
    tiers: TierMap,
    user: Identity,
    layers: layers::Plan,
}

/// A session that is bound. Its end is [`finish`].
struct Bound {
    cgroup: SessionCgroup,
    session: SessionRef,
    /// The scope of systemd's that its cgroup is.
    unit: Option<String>,
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
    let launch = Launch { core, peer, request, terms, id: new_id() };
    let (bound, helper) = match scope::reach(core).await {
        Some(systemd) => launch.in_scope(&systemd, stdio).await?,
        None => launch.in_plain_cgroup(stdio).await?,
    };
    let outcome = helper.outcome().await.map_err(|e| not_started(&e));
    let started = match outcome {
        Ok(Heard::Executed(child, pid)) => Ok((child, pid)),
        Ok(Heard::Failed(trouble)) => Err(launch.explain(&bound, &trouble).await),
        Ok(Heard::Ready(_)) => Err(not_started(&io::ErrorKind::InvalidData.into())),
        Err(failure) => Err(failure),
    };
    core.borrow_mut().watched.take(bound.session.id);
    match started {
        Ok((child, pid)) => {
            core.borrow_mut().set_launching(bound.cgroup.path().to_owned(), false);
            announce(core, peer, request, &launch.terms, &bound, pid);
            Ok(Running { bound, child, pid })
        }
        Err(failure) => {
            finish(core, bound).await;
            Err(failure)
        }
    }
}

fn not_started(error: &io::Error) -> Failure {
    Failure::new(Exit::NotStarted, format!("cannot start the helper: {error}"), "")
}

/// A launch on its way.
struct Launch<'a> {
    core: &'a Shared,
    peer: &'a Peer,
    request: &'a ExecRequest,
    terms: Terms,
    id: [u64; 2],
}

impl Launch<'_> {
    /// The daemon makes a cgroup and binds it: the policy is in force before anything of the session exists.
    async fn in_plain_cgroup(&self, stdio: [OwnedFd; 3]) -> Result<(Bound, Helper), Failure> {
        let settings = self.core.borrow().settings.clone();
        let failed = |what: String| Failure::new(Exit::NotStarted, what, "see enforcer status");
        let (root, agent) = (settings.home_root(), &self.request.agent);
        let cgroup = SessionCgroup::create(&settings.paths.cgroups, root, agent, &session_id(self.id))
            .map_err(|e| failed(format!("cannot make a cgroup below {root}: {e}")))?;
        let pids = settings.launch.pids_max.map(|n| ("pids", "pids.max", n.to_string()));
        let memory = settings.launch.memory_max.clone().map(|text| ("memory", "memory.max", text));
        for (controller, file, value) in pids.into_iter().chain(memory) {
            if let Err(e) = cgroup.limit(controller, file, &value) {
                // An empty cgroup that stays is removed by the next look around.
                let _ = cgroup.remove();
                return Err(failed(format!("cannot set {file} of the session: {e}")));
            }
        }
        let procs = cgroup.procs();
        let bound = self.bind(cgroup, None, &self.terms)?;
        match self.helper(Some(&procs), stdio) {
            Ok(helper) => Ok((bound, helper)),
            Err(failure) => {
                finish(self.core, bound).await;
                Err(failure)
            }
        }
    }

    /// systemd makes a scope with the helper in it, which waits. Until the scope's cgroup is bound, whoever runs in it
    /// has no rights; the helper meets no hook meanwhile.
    async fn in_scope(&self, systemd: &Systemd, stdio: [OwnedFd; 3]) -> Result<(Bound, Helper), Failure> {
        let mut helper = match self.helper(None, stdio)?.ready().await.map_err(|e| not_started(&e))? {
            Heard::Ready(helper) => helper,
            Heard::Failed(trouble) => {
                return Err(report::explain(&self.request.agent, &trouble, &Blame::Nobody));
            }
            Heard::Executed(..) => return Err(not_started(&io::ErrorKind::UnexpectedEof.into())),
        };
        // Whatever goes wrong from here on: the helper never hears that it may go on.
        match self.move_in(systemd, &helper).await {
            Ok(bound) => match helper.release().await {
                Ok(()) => Ok((bound, helper)),
                Err(error) => {
                    finish(self.core, bound).await;
                    Err(not_started(&error))
                }
            },
            Err(failure) => {
                helper.kill();
                Err(failure)
            }
        }
    }

    async fn move_in(&self, systemd: &Systemd, helper: &Helper) -> Result<Bound, Failure> {
        let launch = self.core.borrow().settings.launch.clone();
        let remedy =
            "systemctl status of the slice says more; launch.scopes = false starts sessions without systemd";
        let failed = |what: String| Failure::new(Exit::NotStarted, what, remedy);
        let session = session_id(self.id);
        let scope = Scope {
            agent: &self.request.agent,
            session: &session,
            launcher: self.peer.uid,
            pid: helper.pid(),
        };
        let path = systemd.start(&scope, launch.pids_max, launch.memory_bytes()).await;
        let path = path.map_err(|e| failed(e.to_string()))?;
        let cgroup =
            SessionCgroup::at(path).map_err(|e| failed(format!("the session's scope has gone: {e}")))?;
        // What held when the helper got its order must hold now: meanwhile others were served.
        let terms = terms(self.core, self.peer, self.request)?;
        if (&terms.user, &terms.layers) != (&self.terms.user, &self.terms.layers) {
            let what = format!("the policy of {} changed during the launch", self.request.agent);
            return Err(Failure::new(Exit::NotStarted, what, "try again"));
        }
        self.bind(cgroup, Some(scope.unit()), &terms)
    }

    /// Makes the cgroup the session, which this daemon ends.
    fn bind(&self, cgroup: SessionCgroup, unit: Option<String>, terms: &Terms) -> Result<Bound, Failure> {
        let mut core = self.core.borrow_mut();
        core.set_launching(cgroup.path().to_owned(), true);
        match core.bind(cgroup.id(), self.id, terms.slot, terms.tiers) {
            Ok(session) => {
                core.set_attended(session.id, true);
                core.watched.watch(session.id);
                let launcher = Launcher { uid: self.peer.uid, pid: self.peer.pid };
                core.introduce(session, self.request.task.clone(), launcher);
                // A scope may be gone as soon as the command runs.
                core.note_layers(cgroup.path(), &terms.layers, terms.user.uid);
                Ok(Bound { cgroup, session, unit })
            }
            Err(error) => {
                core.set_launching(cgroup.path().to_owned(), false);
                if unit.is_none() {
                    // As above.
                    let _ = cgroup.remove();
                }
                let what = format!("cannot bind a session: {error}");
                Err(Failure::new(Exit::NotStarted, what, "see enforcer status"))
            }
        }
    }

    fn helper(&self, procs: Option<&Path>, stdio: [OwnedFd; 3]) -> Result<Helper, Failure> {
        let (settings, program) = {
            let core = self.core.borrow();
            (core.settings.clone(), core.program.clone())
        };
        let spec = self.order(procs, &settings.launch)?;
        Helper::start(&program, &spec, stdio).map_err(|e| not_started(&e))
    }

    /// The order to the helper.
    fn order(&self, procs: Option<&Path>, settings: &crate::settings::Launch) -> Result<Spec, Failure> {
        let (request, user) = (self.request, &self.terms.user);
        let environment = environment(request, settings, user, &session_id(self.id))
            .map_err(|e| Failure::new(Exit::Usage, e, "change --env"))?;
        Ok(Spec {
            procs: procs.map(|procs| Bytes(procs.as_os_str().as_bytes().to_vec())),
            command: request.command.clone(),
            environment,
            path: settings.path.clone(),
            directory: request.directory.clone().unwrap_or_else(|| Bytes(user.home.clone())),
            directory_is_home: request.directory.is_none(),
            uid: user.uid,
            gid: user.gid,
            groups: user.groups.clone(),
            terminal: request.terminal,
            layers: self.terms.layers.layers.clone(),
        })
    }

    /// Why the command was not executed.
    async fn explain(&self, bound: &Bound, trouble: &Trouble) -> Failure {
        let mut blame = Blame::Nobody;
        if trouble.is_refused_execution() {
            watch::catch_up(self.core, bound.session.id).await;
            let core = self.core.borrow();
            blame = match core.watched.refusals(bound.session.id).last() {
                Some(refusal) => Blame::Policy(refusal.clone()),
                None if core.may_have_lost(self.terms.slot) => Blame::Unknown,
                None => Blame::Nobody,
            };
        }
        report::explain(&self.request.agent, trouble, &blame)
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
            "cgroup": bound.cgroup.id(), "scope": bound.unit, "terminal": request.terminal, "detached": request.detach,
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

/// Kills what is left, waits until nobody lives in the cgroup and it is gone, and frees the session.
async fn finish(core: &Shared, bound: Bound) {
    // At most about 20 s; then the next look around does the rest.
    let mut pause = Duration::from_millis(1);
    // Where nobody has entered there is nobody to kill.
    let _ = bound.cgroup.kill();
    loop {
        let empty = bound.cgroup.populated().is_ok_and(|populated| !populated);
        // A scope's cgroup is systemd's to remove; if it does not, nobody else minds.
        let is_systemds = bound.unit.is_some() && pause < Duration::from_secs(2);
        if empty && if is_systemds { !bound.cgroup.path().exists() } else { bound.cgroup.remove().is_ok() } {
            break;
        }
        if pause > Duration::from_secs(10) {
            tracing::warn!("the cgroup {} does not become empty", bound.cgroup.path().display());
            core.borrow_mut().set_launching(bound.cgroup.path().to_owned(), false);
            core.borrow_mut().set_attended(bound.session.id, false);
            return;
        }
        tokio::time::sleep(pause).await;
        pause *= 2;
    }
    let mut core = core.borrow_mut();
    core.set_launching(bound.cgroup.path().to_owned(), false);
    core.set_attended(bound.session.id, false);
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
