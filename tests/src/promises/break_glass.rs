//! Break-glass: who begins it, what it lifts, and that it ends by itself, daemon or no daemon.

use super::{
    tree,
    units::{NoDaemon, Unit, matched, probe},
};
use crate::{
    agent::Agent,
    cases,
    command::{Command, Ran, wait_for},
    ensure, events, fail,
    harness::{Outcome, Test},
};
use serde_json::Value;
use std::{
    thread,
    time::{Duration, Instant},
};

cases!(break_glass:
    only_root_at_a_terminal_outside_agents_begins_break_glass,
    break_glass_ends_by_itself_while_no_daemon_runs,
);

/// Long enough for what happens in it on an emulated machine that stands still for many seconds.
const TIME: u64 = 25;

/// `enforcer break-glass start` for an agent, as a shell has it.
fn start(agent: &Agent, seconds: u64) -> String {
    format!(
        "enforcer break-glass start --agent {} --for {seconds}s --reason 'the disk is full'",
        agent.name()
    )
}

/// Runs a shell's command with a terminal of its own.
fn at_a_terminal(line: &str) -> Outcome<Ran> {
    Ok(Command::new("script").args(["--quiet", "--return", "--command", line, "/dev/null"]).run()?)
}

fn in_force() -> Outcome<Vec<Value>> {
    let ran = Command::new("enforcer").args(["--output", "json", "break-glass", "status"]).run()?;
    match serde_json::from_str::<Value>(&ran.out) {
        Ok(said) => Ok(said["break_glass"].as_array().cloned().unwrap_or_default()),
        Err(error) => fail!("{error}: {ran}"),
    }
}

fn has(record: &Value, flag: &str) -> bool {
    record["flags"].as_array().is_some_and(|flags| flags.iter().any(|one| one == flag))
}

fn only_root_at_a_terminal_outside_agents_begins_break_glass(t: &mut Test) -> Outcome {
    tree(t)?;
    let policy = t.policy().line("unix: [{ allow: ['/**'] }]").deny("read", &t.at("shut/**"));
    let agent = t.agent(policy.allow("all", "/**").exec("/**").connect("*:*/*"))?;
    let mark = events::mark()?;
    let line = start(&agent, 600);
    let shut = format!("read {}", t.at("shut/f1"));

    // Root, and no terminal.
    let ran = Command::new("sh").args(["-c", &line]).run()?;
    ensure!(ran.code == Some(77) && ran.err.contains("terminal"), "{ran}");
    events::wait("the record of that", mark, |record| record["kind"] == "break-glass-refused")?;
    // The agent itself, as root and with one.
    let words = ["script", "-qec", &line, "/dev/null"].map(str::to_owned);
    let session = agent.run(&words)?;
    ensure!(session.code != Some(0), "{:?} {}", session.lines, session.err);
    ensure!(in_force()?.is_empty(), "the agent began break-glass");
    ensure!(agent.probe(std::slice::from_ref(&shut))?.lines == ["EPERM"], "the agent reads what is denied");

    // The same words at a terminal outside.
    let ran = at_a_terminal(&line)?;
    ensure!(ran.code == Some(0) && ran.out.contains("BREAK-GLASS"), "{ran}");
    let session = agent.probe(&[shut.clone(), "mount-tmpfs /mnt".to_owned()])?;
    ensure!(session.lines == ["ok", "EPERM"], "{:?}", session.lines);
    let status = Command::new("enforcer").args(["status"]).run()?;
    ensure!(status.code == Some(1) && status.out.contains("BREAK-GLASS until"), "{status}");
    let ran = Command::new("enforcer").args(["break-glass", "stop"]).run()?;
    ensure!(ran.code == Some(0) && in_force()?.is_empty(), "{ran}");
    ensure!(agent.probe(&[shut])?.lines == ["EPERM"], "it is still lifted");
    Ok(())
}

fn break_glass_ends_by_itself_while_no_daemon_runs(t: &mut Test) -> Outcome {
    tree(t)?;
    let agent = t.agent(matched(t, "probe-glass").allow("read", &t.at("open/**")))?;
    let mark = events::mark()?;
    let (shut, open) = (t.at("shut/f1"), t.at("open/f1"));
    let acts = [
        format!("read {shut}"),
        "say ready".to_owned(),
        format!("wait-for {} 600", t.at("go")),
        format!("read {shut}"),
        "say lifted".to_owned(),
        format!("wait-for {} 600", t.at("late")),
        format!("read {shut}"),
        format!("read {open}"),
        "say end".to_owned(),
    ];
    let (unit, _) = Unit::start(t, "probe-glass", &probe(&acts), false)?;
    unit.wait_for_line("ready")?;
    let ran = at_a_terminal(&start(&agent, TIME))?;
    let over = Instant::now() + Duration::from_secs(TIME);
    ensure!(ran.code == Some(0), "{ran}");
    t.file("go")?;
    unit.wait_for_line("lifted")?;

    let dead = NoDaemon::kill()?;
    thread::sleep(over.saturating_duration_since(Instant::now()));
    ensure!(Command::new("enforcer").args(["status"]).run()?.code == Some(69), "a daemon answers");
    t.file("late")?;
    unit.wait_for_line("end")?;
    let lines = unit.lines();
    let expected = ["EPERM", "ready", "ok", "ok", "ok", "lifted", "ok", "ok", "EPERM", "ok", "end", "ok"];
    wait_for("its last line", 120, || (unit.lines().len() == expected.len()).then_some(()))?;
    ensure!(unit.lines() == expected, "{lines:?}");

    dead.start_again()?;
    let ended = events::wait("the record of its end", mark, |record| record["kind"] == "break-glass-ended")?;
    // The daemon that came back may read what the kernel has kept for it after that.
    let decision = |record: &Value| record["kind"] == "decision" && record["object"]["path"] == *shut;
    let all = wait_for("three decisions about the file", 120, || {
        let all = events::since(mark).ok()?;
        (all.iter().filter(|record| decision(record)).count() >= 3).then_some(all)
    });
    let all = all.or_else(|_| events::since(mark))?;
    let one = |kind: &str| all.iter().find(|record| record["kind"] == kind).cloned().unwrap_or_default();
    let begun = one("break-glass-begun");
    let id = &begun["break_glass"];
    ensure!(id.is_string() && ended["break_glass"] == *id && ended["seconds"] == TIME, "{begun} {ended}");
    ensure!(begun["because"] == "the disk is full" && begun["by"]["terminal"].is_string(), "{begun}");
    let alerts = all.iter().filter(|record| record["rule"] == "break-glass" && record["break_glass"] == *id);
    ensure!(alerts.count() == 2, "no two alerts: {all:?}");
    // Refused, let pass and said so, refused: the last one while no daemon ran.
    let decisions: Vec<&Value> = all.iter().filter(|record| decision(record)).collect();
    let [before, meanwhile, after] = decisions[..] else { fail!("{decisions:?}") };
    ensure!(has(meanwhile, "would") && has(meanwhile, "break-glass"), "{meanwhile}");
    ensure!(meanwhile["break_glass"] == *id && meanwhile["error"].is_null(), "{meanwhile}");
    for refused in [before, after] {
        ensure!(refused["error"] == "EPERM" && refused["break_glass"].is_null(), "{refused}");
        ensure!(!has(refused, "would") && refused["rule"] == "no rule", "{refused}");
    }
    Ok(())
}
