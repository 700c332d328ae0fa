//! What is recorded: programs with their arguments, and floods to the last act.

use super::{
    tree,
    units::{NoDaemon, Unit, enforcing, matched, probe},
};
use crate::{
    agent::{Agent, PROBE},
    cases,
    command::{systemctl, wait_for},
    ensure, events,
    harness::{Outcome, Test},
};
use serde_json::Value;

cases!(proof:
    an_executed_program_leaves_its_arguments_and_who_started_it,
    a_flood_is_recorded_gathered_or_counted_as_lost_to_the_last_act,
    what_is_lost_while_no_daemon_runs_is_counted_by_the_next,
    who_fills_the_rings_leaves_room_for_others,
);

const TRUE: &str = "/usr/bin/true";

fn an_executed_program_leaves_its_arguments_and_who_started_it(t: &mut Test) -> Outcome {
    tree(t)?;
    let shut = t.at("shut/f1");
    let agent = t.agent(t.policy().exec(TRUE))?;
    // Short, longer than one record of the kernel's can hold, and 128 KiB with everything else.
    let lengths = [3usize, 5_000, 130_000];
    let mut acts = vec![format!("read {shut}")];
    acts.extend(lengths.map(|length| format!("exec-odd {TRUE} {length}")));
    let session = agent.probe(&acts)?;
    ensure!(session.lines == ["EPERM", "ok", "ok", "ok"], "{:?}", session.lines);
    let ended = events::wait("the end of the session", session.mark, |record| {
        record["kind"] == "session-ended" && record["session"] == session.id.as_str()
    })?;
    let sum = &ended["summary"];
    ensure!(sum["executed"] == 4 && sum["denied"] == 1 && sum["seconds"].is_u64(), "{ended}");
    let all = events::since(session.mark)?;
    let of = |record: &&Value| {
        record["kind"] == "executed" && record["session"] == session.id.as_str() && record["exe"] == TRUE
    };
    let executed: Vec<&Value> = all.iter().filter(of).collect();
    ensure!(executed.len() == lengths.len(), "{} records: {executed:?}", executed.len());
    for (record, length) in executed.iter().zip(lengths) {
        let argv = record["argv"].as_array().cloned().unwrap_or_default();
        let shown = record.to_string();
        let shown = &shown[..shown.len().min(1500)];
        ensure!(argv.len() == 3 && argv[0] == TRUE && argv[1] == "a\\nb\\x1b[31m\\xff", "{shown}");
        let long = argv[2].as_str().unwrap_or_default();
        ensure!(long.len() == length && long.bytes().all(|byte| byte == b'x'), "{} of {length}", long.len());
        ensure!(record["argv_missing"].is_null() && record["argv_b64"].is_string(), "{shown}");
        ensure!(record["policy"]["digest"] == agent.digest(), "{shown}");
        // The probe forks; whoever started that is outside.
        let above = record["ancestry"].as_array().cloned().unwrap_or_default();
        ensure!(above.len() >= 2 && above[0]["exe"] == PROBE, "{shown}");
        ensure!(
            above[0]["pid"] == record["ppid"] && above.last().is_some_and(|last| last["pid"] == 1),
            "{shown}"
        );
        ensure!(record["launcher"]["uid"] == 0 && record["launcher"]["pid"].is_u64(), "{shown}");
        ensure!(record["parent_session"].is_null() && record["container"].is_null(), "{shown}");
    }
    let first = |record: &&Value| record["kind"] == "first-use" && record["session"] == session.id.as_str();
    let first: Vec<&Value> =
        all.iter().filter(first).filter(|record| record["object"]["path"] == TRUE).collect();
    ensure!(first.len() == 1 && first[0]["rule"][0]["text"].is_string(), "first uses: {first:?}");
    Ok(())
}

/// The sum of what records say that an agent was refused, and of what was lost of it.
fn accounted(mark: events::Mark, agent: &Agent) -> Outcome<(u64, u64)> {
    let (mut recorded, mut lost) = (0, 0);
    for record in events::since(mark)?.iter().filter(|record| record["agent"] == agent.name()) {
        match record["kind"].as_str() {
            Some("decision") => recorded += record["count"].as_u64().unwrap_or(1),
            Some("lost") => lost += record["decisions"].as_u64().unwrap_or(0),
            _ => {}
        }
    }
    Ok((recorded, lost))
}

fn a_flood_is_recorded_gathered_or_counted_as_lost_to_the_last_act(t: &mut Test) -> Outcome {
    tree(t)?;
    let agent = t.agent(t.policy())?;
    let acts: u64 = if t.full { 200_000 } else { 20_000 };
    // The same file, which is gathered; and each time another one, which is not. As fast as the guest can.
    let session = agent.probe(&[
        format!("flood {} {acts} 1", t.at("shut")),
        format!("flood {} {acts} {acts}", t.at("shut")),
    ])?;
    ensure!(session.lines == ["ok", "ok"], "{:?}", session.lines);
    let attempted = 2 * acts;
    let whole =
        || accounted(session.mark, &agent).ok().filter(|(recorded, lost)| recorded + lost >= attempted);
    let all = wait_for("every act recorded or counted as lost", 120, whole);
    let (recorded, lost) = accounted(session.mark, &agent)?;
    ensure!(all.is_ok() && recorded + lost == attempted, "{recorded} recorded, {lost} lost of {attempted}");
    for record in events::since(session.mark)?.iter().filter(|record| record["kind"] == "lost") {
        ensure!(record["from"].as_str() < record["to"].as_str(), "{record}");
    }
    println!("flood: {attempted} attempted, {recorded} recorded or gathered, {lost} counted as lost");
    Ok(())
}

fn what_is_lost_while_no_daemon_runs_is_counted_by_the_next(t: &mut Test) -> Outcome {
    const ACTS: u64 = 20_000;
    tree(t)?;
    let agent = t.agent(matched(t, "probe-unheard"))?;
    let mark = events::mark()?;
    // More of them than the ring has room for, each of another file.
    let acts = [
        "say ready".to_owned(),
        format!("wait-for {} 600", t.at("go")),
        format!("flood {} {ACTS} {ACTS}", t.at("shut")),
    ];
    let (unit, _) = Unit::start(t, "probe-unheard", &probe(&acts), false)?;
    unit.wait_for_line("ready")?;
    let nobody = NoDaemon::kill()?;
    t.file("go")?;
    wait_for("the end of the flood", 300, || (unit.lines().len() == 4).then_some(()))?;
    nobody.start_again()?;
    ensure!(unit.lines() == ["ready", "ok", "ok", "ok"], "{:?}", unit.lines());
    let whole = || accounted(mark, &agent).ok().filter(|(recorded, lost)| recorded + lost >= ACTS);
    let all = wait_for("every act recorded or counted as lost", 120, whole);
    let (recorded, lost) = accounted(mark, &agent)?;
    ensure!(all.is_ok() && recorded + lost == ACTS && lost > 0, "{recorded} recorded, {lost} lost of {ACTS}");
    // Once: the next daemon knows that it has been told.
    systemctl("restart enforcer.service")?;
    enforcing()?;
    ensure!(accounted(mark, &agent)? == (recorded, lost), "{:?} after {lost}", accounted(mark, &agent)?);
    println!("without a daemon: {ACTS} attempted, {recorded} recorded, {lost} counted as lost");
    Ok(())
}

/// Nobody empties the rings here, so what one agent may put into them at most is seen.
fn who_fills_the_rings_leaves_room_for_others(t: &mut Test) -> Outcome {
    // Each as much as the rings have room for, more than once.
    const ACTS: u64 = 20_000;
    const LONG: usize = 20;
    tree(t)?;
    let loud = t.agent(matched(t, "probe-loud").exec(TRUE))?;
    let quiet = t.agent(matched(t, "probe-quiet").exec(TRUE))?;
    let mark = events::mark()?;
    let nobody = NoDaemon::kill()?;
    let flood = format!("flood {} {ACTS} {ACTS}", t.at("shut"));
    let mut acts = vec![flood];
    acts.resize(LONG + 1, format!("exec-odd {TRUE} 130000"));
    let (unit, _) = Unit::start(t, "probe-loud", &probe(&acts), true)?;
    ensure!(unit.lines() == vec!["ok"; LONG + 1], "{:?}", unit.lines());
    let few = [format!("flood {} 3 3", t.at("shut")), format!("exec {TRUE}")];
    let (unit, _) = Unit::start(t, "probe-quiet", &probe(&few), true)?;
    ensure!(unit.lines() == ["ok", "ok"], "{:?}", unit.lines());
    nobody.start_again()?;
    let whole = || accounted(mark, &loud).ok().filter(|(recorded, lost)| recorded + lost >= ACTS);
    let all = wait_for("every act recorded or counted as lost", 120, whole);
    let (recorded, lost) = accounted(mark, &loud)?;
    ensure!(all.is_ok() && recorded + lost == ACTS && lost > 0, "{recorded} recorded, {lost} lost of {ACTS}");
    let records = events::since(mark)?;
    let ran = |agent: &Agent| -> Vec<&Value> {
        let by = |record: &&Value| record["agent"] == agent.name() && record["exe"] == TRUE;
        records.iter().filter(|record| record["kind"] == "executed").filter(by).collect()
    };
    let cut = ran(&loud).iter().filter(|record| !record["argv_missing"].is_null()).count();
    ensure!(cut > 0, "every argument of {LONG} programs had room");
    ensure!(accounted(mark, &quiet)? == (3, 0), "the other one's: {:?}", accounted(mark, &quiet)?);
    ensure!(ran(&quiet).len() == 1, "the other one's program: {:?}", ran(&quiet));
    println!(
        "rings: {recorded} of {ACTS} refusals recorded, {cut} programs with fewer arguments; the other lost nothing"
    );
    Ok(())
}
