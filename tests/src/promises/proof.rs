//! What is recorded: programs with their arguments, floods to the last act, and what happens when nothing can be.

use super::tree;
use crate::{
    agent::{Agent, PROBE},
    cases,
    command::{Command, systemctl, wait_for},
    ensure, events,
    harness::{Outcome, Test, exists},
};
use serde_json::Value;
use std::fs;

cases!(proof:
    an_executed_program_leaves_its_arguments_and_who_started_it,
    a_flood_is_recorded_gathered_or_counted_as_lost_to_the_last_act,
    a_full_disk_freezes_agents_until_the_log_can_be_written,
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
    let all = wait_for("every act recorded or counted as lost", 60, whole);
    let (recorded, lost) = accounted(session.mark, &agent)?;
    ensure!(all.is_ok() && recorded + lost == attempted, "{recorded} recorded, {lost} lost of {attempted}");
    for record in events::since(session.mark)?.iter().filter(|record| record["kind"] == "lost") {
        ensure!(record["from"].as_str() < record["to"].as_str(), "{record}");
    }
    println!("flood: {attempted} attempted, {recorded} recorded or gathered, {lost} counted as lost");
    Ok(())
}

const SETTINGS: &str = "/etc/enforcer/enforcer.toml";
pub(super) const STATE: &str = "/var/lib/enforcer";

/// The daemon with its state on a small file system of its own, until this goes.
pub(super) struct SmallState {
    settings: String,
}

impl SmallState {
    /// With 8 MiB, and this in the settings for a log that cannot be written.
    pub(super) fn begin(on_failure: &str) -> Outcome<Self> {
        Self::with("8m", &[("on_failure", &format!("\"{on_failure}\""))])
    }

    /// With a file system of this size, and these values in the settings.
    pub(super) fn with(size: &str, values: &[(&str, &str)]) -> Outcome<Self> {
        let settings = fs::read_to_string(SETTINGS)?;
        let small = Self { settings };
        systemctl("stop enforcer.service")?;
        let options = format!("size={size},mode=700");
        let ran = Command::new("mount").args(["-t", "tmpfs", "-o", &options, "none", STATE]).run()?;
        ensure!(ran.code == Some(0), "{ran}");
        let mut lines: Vec<String> = small.settings.lines().map(str::to_owned).collect();
        for (key, value) in values {
            let begins = format!("{key} =");
            let line = lines.iter_mut().find(|line| line.starts_with(&begins));
            *line.ok_or_else(|| format!("{SETTINGS} says nothing about {key}"))? =
                format!("{begins} {value}");
        }
        fs::write(SETTINGS, lines.join("\n") + "\n")?;
        systemctl("start enforcer.service")?;
        Ok(small)
    }
}

impl Drop for SmallState {
    fn drop(&mut self) {
        let _ = systemctl("stop enforcer.service");
        let _ = fs::write(SETTINGS, &self.settings);
        let _ = Command::new("umount").args([STATE]).run();
        let _ = systemctl("reset-failed enforcer.service");
        let _ = systemctl("start enforcer.service");
    }
}

pub(super) fn frozen(cgroup: &str) -> Option<bool> {
    Some(fs::read_to_string(format!("{cgroup}/cgroup.events")).ok()?.lines().any(|line| line == "frozen 1"))
}

/// Takes what room is left where the state lies.
pub(super) fn fill() -> Outcome {
    let filler = format!("of={STATE}/filler");
    let ran =
        Command::new("dd").args(["if=/dev/zero", &filler, "bs=4k", "oflag=append", "conv=notrunc"]).run()?;
    ensure!(ran.code != Some(0), "the disk is not full: {ran}");
    Ok(())
}

/// The record of this kind in the signed log: the live copy has half a line where the disk became full.
pub(super) fn signed(kind: &str) -> Outcome<Value> {
    let words = ["audit", "search", "--kind", kind, "--output", "json"];
    Ok(wait_for(kind, 30, || {
        let ran = Command::new("enforcer").args(words).run().ok()?;
        serde_json::from_str(ran.out.lines().next()?).ok()
    })?)
}

fn a_full_disk_freezes_agents_until_the_log_can_be_written(t: &mut Test) -> Outcome {
    tree(t)?;
    let small = SmallState::begin("freeze")?;
    let (shut, open, stop) = (t.at("shut/f1"), t.at("open/f1"), t.at("stop"));
    let policy = t.policy().allow("read", &format!("{}/**", t.at("open")));
    let agent = t.agent(policy)?;
    // Refused again and again, and each time it must be recorded.
    let mut live = agent.start(&[format!("hammer {open} {shut} {stop} 1")])?;
    let cgroup = live.cgroup()?.display().to_string();
    events::wait("a refusal", live.mark, |record| events::decides(record, &live.id))?;
    ensure!(frozen(&cgroup) == Some(false), "frozen before anything failed");

    // A page that the daemon itself gives back is enough for the log to work again for a moment, so the disk
    // is filled again until all of it is seen in one look.
    let mut seen = String::new();
    let all_of_it = wait_for("a frozen session, a status that says so, and a refused start", 120, || {
        fill().map_err(|error| seen = error.to_string()).ok()?;
        let before = frozen(&cgroup);
        let status = Command::new("enforcer").args(["status"]).run().ok()?;
        let start = ["exec", agent.name(), "--", PROBE, "prctl-name"];
        let started = Command::new("enforcer").args(start).run().ok()?;
        let after = frozen(&cgroup);
        seen = format!("frozen before {before:?}, after {after:?}\n{status}\n{started}");
        let told = status.code == Some(1) && status.out.contains("audit log cannot be written");
        let refused = started.code != Some(0) && started.err.contains("cannot be written");
        (before == Some(true) && after == Some(true) && told && refused).then_some(())
    });
    ensure!(all_of_it.is_ok(), "{all_of_it:?}: {seen}");

    fs::remove_file(format!("{STATE}/filler"))?;
    wait_for("a session that goes on", 60, || (frozen(&cgroup) == Some(false)).then_some(()))?;
    fs::write(&stop, "")?;
    live.expect(&["ok"])?;
    live.finish()?;
    let failed = signed("log-failed")?;
    ensure!(failed["because"].is_string(), "{failed}");
    let back = signed("log-recovered")?;
    ensure!(back["milliseconds"].is_u64(), "{back}");
    // What waited in memory came first, and all of it verifies.
    let verified = wait_for("a log that verifies", 30, || {
        let ran = Command::new("enforcer").args(["audit", "verify"]).patience(60).run().ok()?;
        (ran.code == Some(0)).then_some(ran)
    });
    ensure!(verified.is_ok(), "{:?}", Command::new("enforcer").args(["audit", "verify"]).run());
    drop(agent);
    drop(small);
    ensure!(exists(&format!("{STATE}/audit/log")), "the state is not back");
    wait_for("the daemon", 60, || {
        Command::new("enforcer").args(["status"]).run().ok().filter(|ran| matches!(ran.code, Some(0 | 1)))
    })?;
    Ok(())
}
