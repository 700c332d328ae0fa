//! Rules about the arguments that a program is executed with.

use super::holds::{process, recorded, stopped};
use crate::{
    approvals::{approve, asked, deny, nothing_waits, pending},
    cases,
    command::{systemctl, wait_for},
    ensure, events,
    harness::{Outcome, Test, exists, outside},
    promise as check,
};
use serde_json::Value;
use std::{fs, os::unix::fs::PermissionsExt};

cases!(arguments:
    arguments_decide_what_a_program_is_run_with,
    a_person_decides_about_arguments,
    a_program_that_waits_is_out_of_reach,
    a_script_is_judged_by_its_own_arguments,
    a_program_that_waits_outlives_the_daemon,
);

const TOUCH: &str = "/usr/bin/touch";
/// What a program's parent sees of its end by SIGKILL.
const KILLED: &str = "status-0x9";

/// A directory in which everything is allowed, and a policy that lets `touch` work there.
fn policy(t: &Test) -> Outcome<(crate::policy::Policy, String)> {
    let (policy, w) = super::holds::policy(t, &[])?;
    Ok((policy.exec(TOUCH), w))
}

/// The records of a session about arguments, up to the marker that it read last.
fn about_arguments(mark: events::Mark, session: &str, marker: &str) -> Outcome<Vec<Value>> {
    let records = events::until_marker(mark, session, marker)?;
    Ok(records.into_iter().filter(|record| record["operation"] == "exec-arguments").collect())
}

fn arguments_decide_what_a_program_is_run_with(t: &mut Test) -> Outcome {
    let (policy, w) = policy(t)?;
    let acts = [
        format!("exec {TOUCH} {w}/good"),
        format!("exec {TOUCH} -c {w}/bad"),
        format!("exec {TOUCH} {w}/bad"),
        format!("exec {TOUCH} {w}/good {w}/bad {w}/other"),
    ];
    for act in &acts {
        let said = outside(act)?;
        ensure!(said == "ok", "{act} outside: {said}");
    }
    ["good", "bad", "other"].iter().try_for_each(|name| fs::remove_file(format!("{w}/{name}")))?;
    let narrow = policy.clone().exec_rule(format!("deny: ['{TOUCH}'], arguments: ['**', '*/bad', '**']"));
    let mut agent = t.agent(narrow)?;
    let marker = check::marker(t)?;
    let all = [&acts[..], &[format!("read {marker}")]].concat();
    let session = agent.probe(&all)?;
    // `-c` makes nothing, and is refused as well.
    let expected = ["ok", KILLED, KILLED, KILLED];
    ensure!(session.lines.iter().zip(expected).all(|(line, wanted)| line == wanted), "{:?}", session.lines);
    ensure!(exists(&format!("{w}/good")), "the allowed run did nothing");
    ensure!(!exists(&format!("{w}/bad")) && !exists(&format!("{w}/other")), "a refused run did something");
    let records = about_arguments(session.mark, &session.id, &marker)?;
    ensure!(records.len() == 3, "{} records instead of 3: {records:?}", records.len());
    let last = &records[2];
    let argv = [TOUCH, &format!("{w}/good"), &format!("{w}/bad"), &format!("{w}/other")];
    let fits =
        last["verdict"] == "deny" && last["error"] == "SIGKILL" && last["argv"] == serde_json::json!(argv);
    ensure!(fits && last["rule"].to_string().contains("with the arguments"), "{last}");
    ensure!(last["object"]["path"] == TOUCH, "{last}");
    // A list of what is allowed.
    let only = super::holds::policy(t, &[])?.0;
    agent.change(only.exec_rule(format!("allow: ['{TOUCH}'], arguments: ['{w}/*']")))?;
    let session = agent.probe(&acts)?;
    ensure!(session.lines == ["ok", KILLED, "ok", KILLED], "{:?}", session.lines);
    // And without any such rule.
    agent.change(policy.next().next())?;
    let session = agent.probe(&acts)?;
    ensure!(session.lines == ["ok"; 4], "{:?}", session.lines);
    Ok(())
}

fn a_person_decides_about_arguments(t: &mut Test) -> Outcome {
    let (policy, w) = policy(t)?;
    let hold = format!("hold: ['{TOUCH}'], arguments: ['*/ask*'], because: 'a test asks'");
    let first = policy.exec_rule(hold);
    let second = first.next().deny("read", &format!("{w}/f9"));
    let mut agent = t.agent(first)?;
    let acts = [
        format!("exec {TOUCH} {w}/free"),
        format!("exec {TOUCH} {w}/ask1"),
        format!("exec {TOUCH} {w}/ask1"),
        format!("exec {TOUCH} {w}/ask2"),
        format!("exec {TOUCH} {w}/ask3"),
    ];
    let mut live = agent.start(&acts)?;
    live.expect(&["ok"])?;
    let request = asked(&agent, "exec-arguments")?;
    stopped(process(&request)?)?;
    ensure!(!exists(&format!("{w}/ask1")), "it ran before anybody had answered");
    let what = &request.said["request"]["what"];
    ensure!(what["arguments"] == serde_json::json!([TOUCH, format!("{w}/ask1")]), "{what}");
    recorded(&live, &request.hold, "held", "held", 1)?;
    approve(&request, &[])?;
    live.expect(&["ok"])?;
    ensure!(exists(&format!("{w}/ask1")), "approved, it did nothing");
    // The same again is another run.
    let again = asked(&agent, "exec-arguments")?;
    ensure!(again.hold != request.hold, "one approval counted twice");
    approve(&again, &[])?;
    live.expect(&["ok"])?;
    let refused = asked(&agent, "exec-arguments")?;
    deny(&refused)?;
    live.expect(&[KILLED])?;
    ensure!(!exists(&format!("{w}/ask2")), "refused, it ran");
    // It was loaded under a policy that is none any more.
    let late = asked(&agent, "exec-arguments")?;
    agent.change(second)?;
    live.expect(&[KILLED])?;
    ensure!(approve(&late, &[]).is_err() && !exists(&format!("{w}/ask3")), "an overtaken answer counted");
    nothing_waits(&agent)
}

fn a_program_that_waits_is_out_of_reach(t: &mut Test) -> Outcome {
    let (policy, w) = policy(t)?;
    let proc = "allow: [read, write, list], paths: ['/proc/**']".to_owned();
    let policy = policy.file(proc).exec_rule(format!("hold: ['{TOUCH}'], arguments: ['*/ask*']"));
    let acts = ["stopped-cont", "stopped-trace", "stopped-memory"];
    for act in acts {
        let said = outside(&format!("{act} -"))?;
        ensure!(said == "ok", "{act} outside: {said}");
    }
    let agent = t.agent(policy)?;
    let marker = check::marker(t)?;
    let mut all: Vec<String> = acts.iter().map(|act| format!("{act} -")).collect();
    all.extend(acts.iter().map(|act| format!("{act} {TOUCH} {w}/ask")));
    all.push(format!("traced-exec {TOUCH} {w}/free"));
    all.push(format!("traced-exec {TOUCH} -c {w}/free"));
    all.push(format!("read {marker}"));
    let session = agent.probe(&all)?;
    // A stopped process of the session can be reached, one that waits cannot, and a traced one never waits.
    let expected = ["ok", "ok", "ok", "EPERM", "EPERM", "EACCES", KILLED, KILLED];
    let fits = session.lines.iter().zip(expected).all(|(line, wanted)| line == wanted);
    ensure!(fits && session.lines.len() > expected.len(), "{:?}", session.lines);
    ensure!(!exists(&format!("{w}/ask")) && !exists(&format!("{w}/free")), "a program ran");
    let records = events::until_marker(session.mark, &session.id, &marker)?;
    let of = |name: &str| records.iter().filter(|r| r["operation"] == name && r["verdict"] == "deny").count();
    ensure!((of("signal"), of("ptrace"), of("exec-arguments")) == (1, 2, 2), "{records:?}");
    Ok(())
}

fn a_script_is_judged_by_its_own_arguments(t: &mut Test) -> Outcome {
    let (policy, w) = policy(t)?;
    let script = t.file("w/script")?;
    let shell = fs::canonicalize("/bin/sh")?.display().to_string();
    let policy = policy.exec(&script).exec(&shell);
    let policy = policy.exec_rule(format!("deny: ['{script}'], arguments: ['--prod', '**']"));
    fs::write(&script, "#!/bin/sh -e\n: > \"$2\"\n")?;
    fs::set_permissions(&script, fs::Permissions::from_mode(0o755))?;
    let agent = t.agent(policy)?;
    let acts = [format!("exec {script} --test {w}/one"), format!("exec {script} --prod {w}/two")];
    for act in &acts {
        let said = outside(act)?;
        ensure!(said == "ok", "{act} outside: {said}");
    }
    fs::remove_file(format!("{w}/one"))?;
    fs::remove_file(format!("{w}/two"))?;
    let session = agent.probe(&acts)?;
    ensure!(session.lines == ["ok", KILLED], "{:?}", session.lines);
    ensure!(exists(&format!("{w}/one")) && !exists(&format!("{w}/two")), "the wrong one ran");
    Ok(())
}

fn a_program_that_waits_outlives_the_daemon(t: &mut Test) -> Outcome {
    let (policy, w) = policy(t)?;
    let agent = t.agent(policy.exec_rule(format!("hold: ['{TOUCH}'], arguments: ['*/ask*']")))?;
    let mut child = agent.detached(&[format!("exec {TOUCH} {w}/ask1"), format!("exec {TOUCH} {w}/ask2")])?;
    let first = asked(&agent, "exec-arguments")?;
    let pid = process(&first)?;
    stopped(pid)?;
    systemctl("kill -s KILL enforcer.service")?;
    stopped(pid)?;
    systemctl("restart enforcer.service")?;
    stopped(pid)?;
    ensure!(!exists(&format!("{w}/ask1")), "it ran while there was no daemon");
    let same = wait_for("the same request", 120, || {
        pending(&agent).ok()?.into_iter().find(|request| request.hold == first.hold)
    })?;
    approve(&same, &[])?;
    wait_for("the approved program's work", 120, || exists(&format!("{w}/ask1")).then_some(()))?;
    let second = asked(&agent, "exec-arguments")?;
    deny(&second)?;
    nothing_waits(&agent)?;
    wait_for("the end of the session", 120, || child.try_wait().ok().flatten())?;
    ensure!(!exists(&format!("{w}/ask2")), "refused, it ran");
    Ok(())
}
