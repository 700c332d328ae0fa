//! Sessions as scopes of systemd's, and what they are where systemd cannot be asked.

use super::{
    tree,
    units::{enforcing, judged},
};
use crate::{
    agent::{Agent, Live, ROOT},
    cases,
    command::{Command, systemctl, wait_for},
    ensure, events,
    harness::{Outcome, Test, exists},
    promise::{self as check, Denial},
};
use serde_json::Value;
use std::fs;

cases!(scopes:
    a_session_is_a_scope_in_the_slice_and_leaves_none,
    stopping_its_scope_ends_a_session_once,
    a_scope_outlives_the_daemon,
    what_systemd_does_not_start_does_not_run,
    without_the_bus_a_session_has_a_plain_cgroup,
);

const BUS: &str = "/run/dbus/system_bus_socket";

/// A property of a unit, as systemd shows it.
fn property(unit: &str, name: &str) -> Outcome<String> {
    let ran =
        Command::new("systemctl").args(["show", "--value", &format!("--property={name}"), unit]).run()?;
    Ok(ran.out.trim().to_owned())
}

/// What `enforcer status` says about plain cgroups.
fn plain() -> Outcome<Value> {
    let ran = Command::new("enforcer").args(["status", "--output", "json"]).run()?;
    let status: Value = serde_json::from_str(&ran.out).unwrap_or_default();
    ensure!(status["state"] != "NOT ENFORCING" && status.get("plain_cgroups").is_some(), "{ran}");
    Ok(status["plain_cgroups"].clone())
}

/// Waits until nothing is left of a scope.
fn gone(unit: &str) -> Outcome {
    let is_gone = || property(unit, "LoadState").is_ok_and(|state| state == "not-found");
    wait_for("the end of the unit", 120, || is_gone().then_some(()))?;
    ensure!(!exists(&format!("{ROOT}/{unit}")), "the cgroup of {unit} is still there");
    Ok(())
}

/// The records of a kind about a session, once a later session has ended too: none is still to come.
fn about(agent: &Agent, mark: events::Mark, session: &str, kind: &str) -> Outcome<Vec<Value>> {
    let last = agent.probe(&["say last".to_owned()])?;
    events::wait("the end of a later session", last.mark, |record| {
        record["kind"] == "session-ended" && record["session"] == last.id
    })?;
    let all = events::since(mark)?.into_iter();
    Ok(all.filter(|record| record["kind"] == kind && record["session"] == session).collect())
}

fn ended_once(agent: &Agent, live: &Live) -> Outcome<Value> {
    let ends = about(agent, live.mark, &live.id, "session-ended")?;
    ensure!(ends.len() == 1, "{} records of the end: {ends:?}", ends.len());
    Ok(ends[0].clone())
}

/// An agent that may read and create below `open`.
fn agent(t: &Test) -> Outcome<Agent> {
    tree(t)?;
    t.agent(t.policy().allow("read, create, write", &t.at("open/**")))
}

fn shut(t: &Test, file: &str) -> Denial {
    Denial::no_rule("open").on(&t.at(&format!("shut/{file}"))).asking("read")
}

fn a_session_is_a_scope_in_the_slice_and_leaves_none(t: &mut Test) -> Outcome {
    let agent = agent(t)?;
    let marker = check::marker(t)?;
    let [first, second, open] = ["shut/f1", "shut/f2", "open/f1"].map(|file| format!("read {}", t.at(file)));
    let bus = format!("unix-stream {BUS}");
    check::allowed_outside(&[first.clone(), second.clone(), bus.clone()])?;
    ensure!(plain()?.is_null(), "{}", plain()?);
    let wait = format!("wait-for {}", t.at("go"));
    let mut live =
        agent.start(&[first, "say ready".to_owned(), wait, second, bus, open, format!("read {marker}")])?;
    live.expect(&["EPERM", "ready", "ok"])?;
    let unit = live.unit();
    let listed = Command::new("systemctl")
        .args(["list-units", "--type=scope", "--plain", "--no-legend", &unit])
        .run()?;
    ensure!(listed.out.contains(&unit) && listed.out.contains("running"), "{listed}");
    let path = format!("/agents.slice/{unit}");
    for (name, expected) in [
        ("Slice", "agents.slice"),
        ("ControlGroup", &path),
        ("Transient", "yes"),
        ("TasksMax", "infinity"),
        ("TimeoutStopUSec", "10s"),
    ] {
        let found = property(&unit, name)?;
        ensure!(found == expected, "{name} is {found}, not {expected}");
    }
    ensure!(property(&unit, "Description")?.contains(&live.id), "{}", property(&unit, "Description")?);
    // systemd looks at all its units anew, and at their cgroups.
    systemctl("daemon-reload")?;
    t.file("go")?;
    live.expect(&["ok", "EPERM", "EPERM", "ok", "EPERM"])?;
    ensure!(live.finish()? == Some(0), "the probe failed");
    let records = events::until_marker(live.mark, &live.id, &marker)?;
    judged(&records, &[shut(t, "f1"), shut(t, "f2"), Denial::floor("unix-connect")], &agent)?;
    gone(&unit)?;
    let end = ended_once(&agent, &live)?;
    ensure!(end["end"]["how"] == "exited", "{end}");
    let launched = about(&agent, live.mark, &live.id, "launched")?;
    ensure!(launched.len() == 1 && launched[0]["scope"] == *unit, "{launched:?}");
    Ok(())
}

fn stopping_its_scope_ends_a_session_once(t: &mut Test) -> Outcome {
    let agent = agent(t)?;
    let mut live = agent.start(&["say ready".to_owned(), format!("wait-for {}", t.at("never"))])?;
    live.expect(&["ready"])?;
    systemctl(&format!("stop {}", live.unit()))?;
    let code = live.finish()?;
    ensure!(code == Some(128 + 15), "{code:?}");
    gone(&live.unit())?;
    let end = ended_once(&agent, &live)?;
    ensure!(end["end"]["how"] == "killed" && end["end"]["signal"] == 15, "{end}");
    Ok(())
}

fn a_scope_outlives_the_daemon(t: &mut Test) -> Outcome {
    let agent = agent(t)?;
    let (wait, marker) = (format!("wait-for {}", t.at("go")), check::marker(t)?);
    let acts = [wait, format!("read {}", t.at("shut/f1")), format!("read {marker}")];
    let mark = events::mark()?;
    let child = agent.detached(&acts)?.wait_with_output()?;
    let id = String::from_utf8_lossy(&child.stdout).trim().to_owned();
    let unit = format!("enforcer-{}-{id}.scope", agent.name());
    ensure!(property(&unit, "ActiveState")? == "active", "{unit} is not there: {child:?}");
    systemctl("restart enforcer.service")?;
    enforcing()?;
    ensure!(property(&unit, "ActiveState")? == "active", "{unit} has ended with the daemon");
    t.file("go")?;
    let records = events::until_marker(mark, &id, &marker)?;
    judged(&records, &[shut(t, "f1")], &agent)?;
    gone(&unit)?;
    events::wait("the end of the session", mark, |record| {
        record["kind"] == "session-ended" && record["session"] == *id
    })?;
    let ends = about(&agent, mark, &id, "session-ended")?;
    ensure!(ends.len() == 1, "{ends:?}");
    Ok(())
}

fn what_systemd_does_not_start_does_not_run(t: &mut Test) -> Outcome {
    let agent = agent(t)?;
    let mark = events::mark()?;
    let made = t.at("open/made");
    let exec = || {
        Command::new("enforcer")
            .args(["exec", agent.name(), "--", crate::agent::PROBE, "create", &made])
            .run()
    };
    // A drop-in for all scopes of this agent.
    let directory = format!("/run/systemd/system/enforcer-{}-.scope.d", agent.name());
    fs::create_dir_all(&directory)?;
    fs::write(format!("{directory}/tests.conf"), "[Unit]\nAssertPathExists=/nowhere\n")?;
    systemctl("daemon-reload")?;
    let refused = exec();
    fs::remove_dir_all(&directory)?;
    systemctl("daemon-reload")?;
    let refused = refused?;
    ensure!(refused.code == Some(125) && refused.err.contains("assert"), "{refused}");
    ensure!(!exists(&made), "it ran");
    let sessions = agent.status()?.unwrap_or_default()["sessions"].clone();
    ensure!(sessions.as_array().is_some_and(Vec::is_empty), "{sessions}");
    let recorded = |record: &Value| record["kind"] == "launch-refused" && record["agent"] == agent.name();
    events::wait("the record of it", mark, recorded)?;
    ensure!(exec()?.code == Some(0) && exists(&made), "it does not run afterwards");
    let all = events::since(mark)?;
    ensure!(all.iter().filter(|record| recorded(record)).count() == 1, "{all:?}");
    Ok(())
}

/// The bus, which comes back when this value goes.
struct NoBus;

impl NoBus {
    fn stop() -> Outcome<Self> {
        let guard = Self;
        systemctl("stop dbus.socket dbus.service")?;
        ensure!(std::os::unix::net::UnixStream::connect(BUS).is_err(), "the bus answers");
        Ok(guard)
    }
}

impl Drop for NoBus {
    fn drop(&mut self) {
        let _ = systemctl("start dbus.socket dbus.service");
    }
}

fn without_the_bus_a_session_has_a_plain_cgroup(t: &mut Test) -> Outcome {
    let agent = agent(t)?;
    let marker = check::marker(t)?;
    let [first, open] = ["shut/f1", "open/f1"].map(|file| format!("read {}", t.at(file)));
    check::allowed_outside(&[first.clone(), open.clone()])?;
    let dead = NoBus::stop()?;
    let wait = format!("wait-for {}", t.at("go"));
    let mut live = agent.start(&[first, "say ready".to_owned(), wait, open, format!("read {marker}")])?;
    live.expect(&["EPERM", "ready", "ok"])?;
    let cgroup = live.cgroup()?.display().to_string();
    ensure!(cgroup == format!("{ROOT}/session-{}-{}", agent.name(), live.id), "{cgroup}");
    ensure!(plain()?.as_str().is_some_and(|why| why.contains(BUS)), "{}", plain()?);
    t.file("go")?;
    live.expect(&["ok", "ok", "EPERM"])?;
    ensure!(live.finish()? == Some(0), "the probe failed");
    let records = events::until_marker(live.mark, &live.id, &marker)?;
    judged(&records, &[shut(t, "f1")], &agent)?;
    wait_for("the end of the cgroup", 120, || (!exists(&cgroup)).then_some(()))?;
    let launched = about(&agent, live.mark, &live.id, "launched")?;
    ensure!(launched.len() == 1 && launched[0]["scope"].is_null(), "{launched:?}");
    ended_once(&agent, &live)?;
    drop(dead);
    // Whoever does not answer is asked again after some seconds.
    wait_for("a scope again", 60, || {
        let session = agent.probe(&["say again".to_owned()]).ok()?;
        let launched = about(&agent, session.mark, &session.id, "launched").ok()?;
        launched.first().filter(|record| record["scope"].is_string()).map(|_| ())
    })?;
    ensure!(plain()?.is_null(), "{}", plain()?);
    Ok(())
}
