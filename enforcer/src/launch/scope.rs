//! A session's cgroup as a transient scope of systemd's, so that an operator finds sessions where everything else on
//! the host is: in `systemctl`, in `systemd-cgls`, under limits of units.
//!
//! systemd makes the cgroup and moves the launch helper there while that waits for a word from the daemon. It gets that
//! word after the cgroup is a session with its policy in force, and not if anything about the cgroup is not as asked.

use crate::settings::Settings;
use std::{
    fmt, fs,
    path::{Path, PathBuf},
    pin::Pin,
    time::Duration,
};
use tokio::time::timeout;
use zbus::{
    Connection, MatchRule, MessageStream, ObjectPath, Variant, connection::Builder,
    export::futures_core::Stream, message::Type,
};

/// Where a bus is asked to listen by everybody (D-Bus specification, "System message bus").
const SOCKET: &str = "/run/dbus/system_bus_socket";
/// Where systemd mounts the hierarchy.
const CGROUPS: &str = "/sys/fs/cgroup";
/// sd_booted(3).
const BOOTED: &str = "/run/systemd/system";
/// `PROC_PID_INIT_INO`, include/linux/proc_ns.h: systemd's process numbers are those of the first namespace.
const FIRST_PIDS: &str = "pid:[4026531836]";
const SYSTEMD: &str = "org.freedesktop.systemd1";
const OBJECT: &str = "/org/freedesktop/systemd1";
const MANAGER: &str = "org.freedesktop.systemd1.Manager";
/// How long the bus and systemd may take to answer at all.
const HELLO: Duration = Duration::from_secs(5);
/// How long systemd may take to make a scope; it may be reloading.
const JOB: Duration = Duration::from_secs(60);
/// Microseconds that a session has between SIGTERM and SIGKILL when its scope or its slice is stopped: an agent that
/// ignores the former must not hold up a shutdown, or the end of the package.
const STOP: u64 = 10_000_000;
/// How long one that did not answer is not asked again.
const SILENCE: i128 = 5_000_000_000;

/// What is known of systemd.
#[derive(Debug, Default)]
pub struct Scopes {
    /// Since when it does not answer, and why not.
    silent: Option<(i128, String)>,
}

impl Scopes {
    /// Why sessions have plain cgroups, if they have.
    pub fn without(&self, settings: &Settings) -> Option<String> {
        possible(settings).err().or_else(|| self.silent.as_ref().map(|(_, why)| why.clone()))
    }

    /// Whether systemd is worth asking.
    fn is_silent(&self, now: i128) -> bool {
        self.silent.as_ref().is_some_and(|(since, _)| now - since < SILENCE)
    }

    /// Notes whether it has answered, and says so when that has changed.
    fn note(&mut self, answer: Result<(), String>, now: i128) {
        let before = self.silent.take().map(|(_, why)| why);
        match answer {
            Ok(()) if before.is_some() => tracing::info!("sessions are scopes of systemd's again"),
            Ok(()) => {}
            Err(why) => {
                if before.as_ref() != Some(&why) {
                    tracing::warn!("sessions get plain cgroups: {why}");
                }
                self.silent = Some((now, why));
            }
        }
    }
}

/// The slice in which this host's sessions are scopes, or why they are not.
fn possible(settings: &Settings) -> Result<String, String> {
    if !settings.launch.scopes {
        return Err("launch.scopes is false".to_owned());
    }
    if settings.paths.cgroups != Path::new(CGROUPS) {
        return Err(format!("cgroups are not at {CGROUPS}"));
    }
    if !Path::new(BOOTED).is_dir() {
        return Err("systemd does not run here".to_owned());
    }
    if fs::read_link("/proc/self/ns/pid").map_err(|e| e.to_string())? != Path::new(FIRST_PIDS) {
        return Err("the daemon has other process numbers than systemd".to_owned());
    }
    let root = settings.home_root();
    slice_at(root).map(str::to_owned).ok_or_else(|| format!("{root} is not where a slice of systemd's lies"))
}

/// The slice whose cgroup has this path: `a.slice`, and `a-b.slice` in it (systemd.slice(5)).
fn slice_at(path: &str) -> Option<&str> {
    let mut above = String::new();
    let mut last = None;
    for part in path.strip_prefix('/')?.split('/') {
        let name = part.strip_suffix(".slice")?;
        let own = name.strip_prefix(&above)?;
        if own.is_empty() || own.contains('-') || !own.bytes().all(|b| b.is_ascii_alphanumeric() || b == b'_')
        {
            return None;
        }
        above = format!("{name}-");
        last = Some(part);
    }
    last
}

/// A scope to be made.
pub(super) struct Scope<'a> {
    /// The agent.
    pub(super) agent: &'a str,
    /// The session, as text.
    pub(super) session: &'a str,
    /// Who launches it.
    pub(super) launcher: u32,
    /// The helper.
    pub(super) pid: i32,
}

impl Scope<'_> {
    /// Its unit. Names of agents have nothing in them that systemd would want escaped.
    pub(super) fn unit(&self) -> String {
        format!("enforcer-{}-{}.scope", self.agent, self.session)
    }
}

/// Why there is no scope. The helper must not go on.
#[derive(Debug)]
pub(super) enum NoScope {
    /// systemd or the bus said so.
    Refused(String),
    /// It did not answer in time.
    Late,
    /// The helper is not where it should be.
    Elsewhere(String),
}

impl fmt::Display for NoScope {
    fn fmt(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Refused(why) => write!(out, "systemd did not make the session's scope: {why}"),
            Self::Late => write!(out, "systemd did not make the session's scope in {} s", JOB.as_secs()),
            Self::Elsewhere(found) => write!(out, "systemd did not move the helper into the scope: {found}"),
        }
    }
}

impl From<zbus::Error> for NoScope {
    fn from(error: zbus::Error) -> Self {
        Self::Refused(error.to_string())
    }
}

/// systemd, which has answered.
pub(super) struct Systemd {
    connection: Connection,
    slice: String,
    below: PathBuf,
}

/// systemd, if sessions are to be scopes and it answers.
pub(super) async fn reach(core: &crate::daemon::core::Shared) -> Option<Systemd> {
    let now = crate::daemon::core::boot_time();
    let (slice, below) = {
        let core = core.borrow();
        let slice = possible(&core.settings).ok()?;
        if core.scopes.is_silent(now) {
            return None;
        }
        (slice, Path::new(CGROUPS).join(core.settings.home_root().trim_start_matches('/')))
    };
    let answer = connect(Path::new(SOCKET), HELLO).await;
    let mut core = core.borrow_mut();
    match answer {
        Ok(connection) => {
            core.scopes.note(Ok(()), now);
            Some(Systemd { connection, slice, below })
        }
        Err(why) => {
            core.scopes.note(Err(format!("systemd cannot be asked over the bus: {why}")), now);
            None
        }
    }
}

/// The bus, if it answers in time, and systemd on it.
async fn connect(socket: &Path, bound: Duration) -> Result<Connection, String> {
    const PEER: &str = "org.freedesktop.DBus.Peer";
    let answer = async {
        // Not blocking, even if the bus does not accept.
        let stream = tokio::net::UnixStream::connect(socket).await?.into_std()?;
        let connection = Builder::unix_stream(stream).build().await?;
        connection.call_method(Some(SYSTEMD), OBJECT, Some(PEER), "Ping", &()).await?;
        Ok::<_, zbus::Error>(connection)
    };
    match timeout(bound, answer).await {
        Ok(Ok(connection)) => Ok(connection),
        Ok(Err(error)) => Err(format!("{}: {error}", socket.display())),
        Err(_) => Err(format!("{}: no answer in {} s", socket.display(), bound.as_secs())),
    }
}

impl Systemd {
    /// Makes the scope with the helper in it, and returns its cgroup's directory.
    pub(super) async fn start(
        &self,
        scope: &Scope<'_>,
        pids_max: Option<u64>,
        memory_max: Option<u64>,
    ) -> Result<PathBuf, NoScope> {
        let unit = scope.unit();
        timeout(JOB, self.job(scope, &unit, pids_max, memory_max)).await.unwrap_or(Err(NoScope::Late))?;
        let path = self.below.join(&unit);
        // Whoever may send signals on the bus could say that the job is done; the kernel knows.
        let cgroups = fs::read_to_string(format!("/proc/{}/cgroup", scope.pid));
        let cgroups = cgroups.map_err(|e| NoScope::Elsewhere(e.to_string()))?;
        let expected = path.strip_prefix(CGROUPS).unwrap_or(&path);
        let found = cgroups.lines().find_map(|line| line.strip_prefix("0::/"));
        if found.map(Path::new) != Some(expected) {
            return Err(NoScope::Elsewhere(format!("it is in {}", found.unwrap_or("no cgroup"))));
        }
        Ok(path)
    }

    async fn job(
        &self,
        scope: &Scope<'_>,
        unit: &str,
        pids_max: Option<u64>,
        memory_max: Option<u64>,
    ) -> Result<(), NoScope> {
        let rule = MatchRule::builder()
            .msg_type(Type::Signal)
            .sender(SYSTEMD)
            .path(OBJECT)
            .interface(MANAGER)
            .member("JobRemoved")
            .arg(2, unit)
            .build()?;
        let mut ended = MessageStream::for_match_rule(rule, &self.connection, None).await?;
        let pid = u32::try_from(scope.pid).map_err(|e| NoScope::Refused(e.to_string()))?;
        let about =
            format!("Session {} of the agent {}, user {}", scope.session, scope.agent, scope.launcher);
        // Infinity is what systemd calls the largest number. Without it the scope would have the host's default.
        let mut properties: Vec<(&str, Variant<'_>)> = vec![
            ("Description", about.as_str().into()),
            ("Slice", self.slice.as_str().into()),
            ("CollectMode", "inactive-or-failed".into()),
            ("TimeoutStopUSec", STOP.into()),
            ("TasksMax", pids_max.unwrap_or(u64::MAX).into()),
            ("PIDs", vec![pid].into()),
        ];
        properties.extend(memory_max.map(|most| ("MemoryMax", most.into())));
        let aux: Vec<(&str, Vec<(&str, Variant<'_>)>)> = Vec::new();
        let body = (unit, "fail", properties, aux);
        self.connection
            .call_method(Some(SYSTEMD), OBJECT, Some(MANAGER), "StartTransientUnit", &body)
            .await?;
        loop {
            let next = std::future::poll_fn(|context| Pin::new(&mut ended).poll_next(context)).await;
            let message = next.ok_or_else(|| NoScope::Refused("the bus has gone".to_owned()))??;
            let body = message.body();
            let (_, _, of, result): (u32, ObjectPath<'_>, &str, &str) = body.deserialize()?;
            match result {
                _ if of != unit => {}
                "done" => return Ok(()),
                other => return Err(NoScope::Refused(format!("the job's result is {other}"))),
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_slice_lies_where_its_name_says() {
        assert_eq!(slice_at("/agents.slice"), Some("agents.slice"));
        assert_eq!(slice_at("/agents.slice/agents-night.slice"), Some("agents-night.slice"));
        for other in [
            "/agents",
            "agents.slice",
            "/",
            "/.slice",
            "/a-b.slice",
            "/a.slice/b.slice",
            "/a.slice/a-.slice",
            "/a.slice/x",
        ] {
            assert_eq!(slice_at(other), None, "{other}");
        }
    }

    #[test]
    fn who_does_not_answer_is_asked_again_after_a_while() {
        let mut scopes = Scopes::default();
        assert!(!scopes.is_silent(5));
        scopes.note(Err("no bus".to_owned()), 5);
        assert!(scopes.is_silent(5) && scopes.is_silent(4 + SILENCE) && !scopes.is_silent(5 + SILENCE));
        scopes.note(Ok(()), 6 + SILENCE);
        assert!(!scopes.is_silent(6 + SILENCE));
    }

    #[tokio::test]
    async fn a_bus_that_does_not_answer_is_given_up() {
        let dir = tempfile::tempdir().expect("dir");
        let socket = dir.path().join("bus");
        let asked = || connect(&socket, Duration::from_millis(50));
        assert!(asked().await.expect_err("nobody listens").contains("No such file"));
        let silent = std::os::unix::net::UnixListener::bind(&socket).expect("bind");
        assert!(asked().await.expect_err("nobody answers").contains("no answer in"));
        drop(silent);
        assert!(asked().await.expect_err("nobody listens any more").contains("refused"));
    }

    /// What systemd does after it was asked for a scope.
    #[derive(Clone, Copy)]
    enum Manager {
        Dies,
        Refuses,
        Lies(&'static str),
    }

    /// A bus with a systemd that moves nobody.
    async fn bus(listener: tokio::net::UnixListener, manager: Manager) -> zbus::Result<()> {
        let (stream, _) = listener.accept().await?;
        let builder = Builder::unix_stream(stream.into_std()?).server(zbus::Guid::generate()).p2p();
        let mut calls = builder.build_message_stream().await?;
        let connection = Connection::from(&calls);
        while let Some(call) =
            std::future::poll_fn(|context| Pin::new(&mut calls).poll_next(context)).await.transpose()?
        {
            let header = call.header();
            match header.member().map(|name| name.as_str()) {
                Some("Hello") => connection.reply(&header, &":1.1").await?,
                Some("StartTransientUnit") => match manager {
                    Manager::Dies => return connection.close().await,
                    Manager::Refuses => {
                        let error = "org.freedesktop.systemd1.TransactionIsDestructive";
                        connection.reply_error(&header, error, &"it is being stopped").await?;
                    }
                    Manager::Lies(result) => {
                        let (job, name) = (ObjectPath::try_from("/job/1")?, "enforcer-bot-0f.scope");
                        connection.reply(&header, &job).await?;
                        let body = (1u32, job, name, result);
                        connection.emit_signal(None::<&str>, OBJECT, MANAGER, "JobRemoved", &body).await?;
                    }
                },
                _ => connection.reply(&header, &()).await?,
            }
        }
        Ok(())
    }

    async fn asked(manager: Manager) -> NoScope {
        let dir = tempfile::tempdir().expect("dir");
        let socket = dir.path().join("bus");
        let listener = tokio::net::UnixListener::bind(&socket).expect("bind");
        let served = tokio::spawn(bus(listener, manager));
        let asked = async {
            let connection = connect(&socket, HELLO).await.expect("answers");
            let below = Path::new(CGROUPS).join("agents.slice");
            let systemd = Systemd { connection, slice: "agents.slice".to_owned(), below };
            let pid = i32::try_from(std::process::id()).expect("a number");
            let scope = Scope { agent: "bot", session: "0f", launcher: 0, pid };
            systemd.start(&scope, Some(7), Some(1 << 30)).await.expect_err("nobody was moved")
        };
        let said = timeout(Duration::from_secs(20), asked).await.expect("an answer");
        served.abort();
        said
    }

    #[tokio::test]
    async fn a_scope_that_systemd_does_not_make_is_none() {
        for (manager, expected) in [
            (Manager::Dies, "did not make"),
            (Manager::Refuses, "it is being stopped"),
            (Manager::Lies("dependency"), "the job's result is dependency"),
            (Manager::Lies("done"), "did not move the helper into the scope: it is in "),
        ] {
            let said = asked(manager).await.to_string();
            assert!(said.contains(expected), "{said}");
        }
    }

    #[test]
    fn a_scope_is_named_after_agent_and_session() {
        let scope = Scope { agent: "bot", session: "0f", launcher: 0, pid: 1 };
        assert_eq!(scope.unit(), "enforcer-bot-0f.scope");
    }
}
