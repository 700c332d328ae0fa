//! Unix sockets: a session's own, and nobody else's.

use super::floor::almighty;
use crate::{
    agent::{Agent, PROBE},
    cases,
    command::{Command, wait_for},
    ensure, events,
    harness::{Outcome, Test},
    peer::{UnixServers, hand_over},
    promise::{self as check, Attempt, Denial},
};

cases!(unix:
    sockets_of_outsiders_are_refused,
    sockets_of_the_session_are_its_own_business,
    sockets_of_another_session_are_refused,
    a_descriptor_from_an_outsider_is_judged_like_an_open,
    the_daemon_and_the_system_manager_cannot_be_asked,
    the_command_line_answers_no_agent,
);

fn sockets_of_outsiders_are_refused(t: &mut Test) -> Outcome {
    let directory = t.dir("sockets")?;
    let servers = UnixServers::open(&directory, "enforcer-tests")?;
    let denial = |operation| Denial::floor(operation);
    let attempts = [
        Attempt::new(format!("unix-stream {directory}/stream"), denial("unix-connect")),
        Attempt::new("unix-stream @enforcer-tests-stream", denial("unix-connect")),
        Attempt::new(format!("unix-dgram {directory}/dgram"), denial("unix-send")),
        Attempt::new("unix-dgram @enforcer-tests-dgram", denial("unix-send")),
        Attempt::new(format!("unix-dgram-connect {directory}/dgram"), denial("unix-send")),
        Attempt::new("unix-dgram-connect @enforcer-tests-dgram", denial("unix-send")),
    ];
    check::control(&attempts)?;
    let before = servers.arrivals.count()?;
    ensure!(before == 4, "{before} of 4 arrived from outside");
    // Rights over the file are not rights over whoever listens.
    let agent = t.agent(t.policy().allow("all", &format!("{directory}/**")))?;
    let twins = [format!("unix-own-stream {directory}/own"), "unix-own-dgram @own".to_owned()];
    check::refused(t, &agent, &twins, &attempts)?;
    let after = servers.arrivals.count()?;
    ensure!(after == before, "{} arrived although refused", after - before);
    Ok(())
}

fn sockets_of_the_session_are_its_own_business(t: &mut Test) -> Outcome {
    let directory = t.dir("sockets")?;
    let agent = t.agent(t.policy().allow("create, write", &format!("{directory}/**")))?;
    let twins = [
        "socketpair".to_owned(),
        format!("unix-own-stream {directory}/stream"),
        format!("unix-own-dgram {directory}/dgram"),
        "unix-own-stream @own-stream".to_owned(),
        "unix-own-dgram @own-dgram".to_owned(),
    ];
    check::refused(t, &agent, &twins, &[])
}

fn sockets_of_another_session_are_refused(t: &mut Test) -> Outcome {
    let policy = t.policy();
    let agent = t.agent(policy)?;
    let other = t.agent(t.policy())?;
    let go = t.at("go");
    let serve = ["unix-serve @other-session".to_owned(), "say ready".to_owned(), format!("wait-for {go}")];
    let mut live = other.start(&serve)?;
    live.expect(&["ok", "ready", "ok"])?;
    let attempts = [Attempt::new("unix-stream @other-session", Denial::floor("unix-connect"))];
    check::control(&attempts)?;
    check::refused(t, &agent, &[], &attempts)?;
    t.file("go")?;
    live.expect(&["ok"])?;
    live.finish()?;
    Ok(())
}

fn a_descriptor_from_an_outsider_is_judged_like_an_open(t: &mut Test) -> Outcome {
    let (open, shut) = (t.file("open/f1")?, t.file("shut/f1")?);
    let hand_over = |file: &str| wait_for("somebody to listen", 120, || hand_over("receiver", file).ok());
    let control = Command::new(PROBE).args(["unix-receive", "@receiver"]).spawn()?;
    hand_over(&shut)?;
    let said = control.wait_with_output()?.stdout;
    ensure!(said == b"ok\n", "outside: {}", String::from_utf8_lossy(&said));
    let agent = t.agent(t.policy().allow("read", &t.at("open/**")))?;
    for (file, expected) in [(open, "ok"), (shut, "EPERM")] {
        let mut live = agent.start(&["say ready".to_owned(), "unix-receive @receiver".to_owned()])?;
        live.expect(&["ready", "ok"])?;
        hand_over(&file)?;
        let line = live.line()?;
        ensure!(line == expected, "{file}: {line}, not {expected}");
        live.finish()?;
    }
    Ok(())
}

fn the_daemon_and_the_system_manager_cannot_be_asked(t: &mut Test) -> Outcome {
    let sockets = ["/run/enforcer/control.sock", "/run/systemd/private", "/run/dbus/system_bus_socket"];
    let mut attempts =
        sockets.map(|path| Attempt::new(format!("unix-stream {path}"), Denial::floor("unix-connect")));
    // The daemon has mounts of its own, and a socket the name that its maker gave it.
    attempts[0] = Attempt::new(
        format!("unix-stream {}", sockets[0]),
        Denial::floor("unix-connect").on(sockets[0]).flagged("foreign"),
    );
    check::control(&attempts)?;
    check::refused(t, &almighty(t)?, &["socketpair".to_owned()], &attempts)
}

fn the_command_line_answers_no_agent(t: &mut Test) -> Outcome {
    let agent: Agent = t.agent(
        t.policy()
            .exec("/usr/bin/enforcer")
            .exec("/usr/bin/dash")
            .exec("/usr/bin/bash")
            .allow("all", "/etc/enforcer/**"),
    )?;
    for words in ["status", "agents", "reload", "exec t1 -- /usr/bin/true"] {
        // By a shell, as an agent would.
        let session =
            agent.run(&["/usr/bin/sh", "-c", &format!("enforcer {words}; exit $?")].map(str::to_owned))?;
        ensure!(session.code == Some(77), "`enforcer {words}` inside: {:?} {}", session.code, session.err);
        let record = events::wait("the refused connection", session.mark, |record| {
            events::decides(record, &session.id) && record["operation"] == "unix-connect"
        })?;
        ensure!(record["exe"] == "/usr/bin/enforcer", "{record}");
    }
    Ok(())
}
