//! What a full disk does to agents, as the settings say.

use super::{
    small_state::{STATE, SmallState, enforcer, fill, frozen, signed},
    tree,
};
use crate::{
    agent::{Agent, PROBE},
    cases,
    command::{Command, Ran, wait_for},
    ensure, events,
    harness::{Outcome, Test, exists},
};
use std::fs;

cases!(full_disk:
    a_full_disk_freezes_agents_until_the_log_can_be_written,
    a_full_disk_takes_the_upper_tiers_away_where_that_is_said,
    a_full_disk_stops_nothing_where_that_is_said,
);

fn launch(agent: &Agent) -> Outcome<Ran> {
    enforcer(&["exec", agent.name(), "--", PROBE, "prctl-name"])
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
    wait_for("a session that goes on", 120, || (frozen(&cgroup) == Some(false)).then_some(()))?;
    fs::write(&stop, "")?;
    live.expect(&["ok"])?;
    live.finish()?;
    let failed = signed("log-failed")?;
    ensure!(failed["because"].is_string(), "{failed}");
    let back = signed("log-recovered")?;
    ensure!(back["milliseconds"].is_u64(), "{back}");
    // What waited in memory came first, and all of it verifies.
    let verified = wait_for("a log that verifies", 120, || {
        let ran = Command::new("enforcer").args(["audit", "verify"]).patience(300).run().ok()?;
        (ran.code == Some(0)).then_some(ran)
    });
    ensure!(verified.is_ok(), "{:?}", Command::new("enforcer").args(["audit", "verify"]).run());
    drop(agent);
    small.end()?;
    ensure!(exists(&format!("{STATE}/audit/log")), "the state is not back");
    Ok(())
}

/// What a session that runs and a launch are told before, while and after nothing can be written: all of it is
/// allowed, but for tier medium and the launch where `refused`.
fn while_the_disk_is_full(t: &mut Test, on_failure: &str, refused: bool) -> Outcome {
    tree(t)?;
    let small = SmallState::begin(on_failure)?;
    let (shut, open, tiered) = (t.at("shut/f1"), t.at("open/f1"), t.at("open/f2"));
    let stops = ["stop-1", "stop-2", "stop-3"].map(|name| t.at(name));
    let policy = t.policy().line("trust: supervised").allow("read", &open);
    let policy = policy.file(format!("allow: [read], tier: medium, paths: ['{tiered}']"));
    let agent = t.agent(policy)?;
    let stated = enforcer(&["trust", "set", agent.name(), "supervised", "--reason", "a test says so"])?;
    ensure!(stated.code == Some(0), "{stated}");
    let read = format!("read {tiered}");
    let hammer = |stop: &str| format!("hammer {open} {shut} {stop} 1");
    // It goes on being refused, so there is always something to record.
    let meanwhile = format!("loop {} {read}", stops[1]);
    let mut live = agent.start(&[read.clone(), hammer(&stops[0]), meanwhile, hammer(&stops[2]), read])?;
    let cgroup = live.cgroup()?.display().to_string();
    live.expect(&["ok"])?;
    events::wait("a refusal", live.mark, |record| events::decides(record, &live.id))?;
    let ran = launch(&agent)?;
    ensure!(ran.code == Some(0), "a launch before: {ran}");

    // A page that the daemon itself gives back is enough for the log to work again for a moment, so the disk is filled
    // again and again, and what is refused need not be refused each time.
    wait_for("a status that says that the log cannot be written", 120, || {
        fill().ok()?;
        let ran = enforcer(&["status"]).ok()?;
        (ran.code == Some(1) && ran.out.contains("; meanwhile")).then_some(())
    })?;
    fs::write(&stops[0], "")?;
    live.expect(&["ok"])?;
    let mut seen = String::new();
    let launched = wait_for("what a launch is told", 120, || {
        fill().ok()?;
        let ran = launch(&agent).ok()?;
        seen = ran.to_string();
        let said = ran.err.contains("cannot be written");
        ((ran.code != Some(0), said) == (refused, refused)).then_some(())
    });
    ensure!(launched.is_ok(), "{launched:?}: {seen}");
    ensure!(frozen(&cgroup) == Some(false), "frozen, although the settings say {on_failure}");
    fs::write(&stops[1], "")?;
    let tried = live.line()?;
    let done = live.line()?;
    let tried =
        tried.strip_prefix("tried ").and_then(|number| number.parse::<u64>().ok()).unwrap_or_default();
    let done = done.split_once("-of-").map_or(0, |(done, _)| done.parse::<u64>().unwrap_or(tried));
    ensure!(
        tried > 0 && (done < tried) == refused,
        "{done} of {tried} were let, the settings say {on_failure}"
    );

    fs::remove_file(format!("{STATE}/filler"))?;
    wait_for("a log that can be written", 120, || {
        enforcer(&["status"]).ok().filter(|ran| !ran.out.contains("; meanwhile"))
    })?;
    let back = signed("log-recovered")?;
    ensure!(back["milliseconds"].is_u64(), "{back}");
    let failed = signed("log-failed")?;
    ensure!(failed["because"].is_string() && failed["meanwhile"].is_string(), "{failed}");
    fs::write(&stops[2], "")?;
    live.expect(&["ok", "ok"])?;
    live.finish()?;
    let ran = launch(&agent)?;
    ensure!(ran.code == Some(0), "a launch after: {ran}");
    let whole = wait_for("a log that verifies", 120, || {
        enforcer(&["audit", "verify"]).ok().filter(|ran| ran.code == Some(0))
    });
    ensure!(whole.is_ok(), "{}", enforcer(&["audit", "verify"])?);
    if refused {
        // What was refused while nothing could be written is in the log all the same.
        let words = ["audit", "search", "--session", &live.id, "--object", &tiered, "--output", "json"];
        let refusal = |line: &str| line.contains("\"decision\"") && line.contains("\"deny\"");
        let found = wait_for("a refusal of that time", 120, || {
            enforcer(&words).ok().filter(|ran| ran.out.lines().any(refusal))
        });
        ensure!(found.is_ok(), "{}", enforcer(&words)?);
    }
    drop(agent);
    small.end()
}

fn a_full_disk_takes_the_upper_tiers_away_where_that_is_said(t: &mut Test) -> Outcome {
    while_the_disk_is_full(t, "refuse", true)
}

fn a_full_disk_stops_nothing_where_that_is_said(t: &mut Test) -> Outcome {
    while_the_disk_is_full(t, "continue", false)
}
