//! How far an agent is trusted: a person says it, it counts at once, and an agent cannot say it about itself.

use super::holds::policy;
use crate::{
    agent::Agent,
    approvals::{Request, approve, asked, deny, nothing_waits, pending},
    cases,
    command::{Command, Ran, systemctl, wait_for},
    ensure, events, fail,
    harness::{Outcome, Test},
};
use serde_json::Value;
use std::fs;

cases!(trust:
    a_level_counts_at_once_in_a_session_that_runs,
    an_agent_does_not_set_its_own_level,
    a_level_outlives_the_daemon_unless_it_cannot_be_read,
);

/// Files `f0` to `f9`, all allowed; those in `medium` are tier medium, and `f8` and `f9` are deleted when a person
/// approves. The ceiling is supervised.
fn agent(t: &Test, medium: &[&str]) -> Outcome<(Agent, String)> {
    let (policy, w) = policy(t, &[("delete", "f8"), ("delete", "f9")])?;
    let policy = medium.iter().fold(policy.line("trust: supervised"), |policy, name| {
        policy.file(format!("allow: [read, write], tier: medium, paths: ['{w}/{name}']"))
    });
    Ok((t.agent(policy)?, w))
}

fn set(agent: &Agent, level: &str) -> Outcome<Ran> {
    Ok(Command::new("enforcer")
        .args(["trust", "set", agent.name(), level, "--reason", "a test says so"])
        .run()?)
}

fn stated(agent: &Agent, level: &str) -> Outcome {
    let ran = set(agent, level)?;
    ensure!(ran.code == Some(0) && ran.out.contains(&format!("{level} is stated")), "{ran}");
    Ok(())
}

/// What `enforcer trust show` says.
fn shown(agent: &Agent) -> Outcome<Value> {
    let ran = Command::new("enforcer").args(["--output", "json", "trust", "show", agent.name()]).run()?;
    match serde_json::from_str::<Value>(&ran.out) {
        Ok(said) => Ok(said["agents"][0].clone()),
        Err(error) => fail!("{error}: {ran}"),
    }
}

/// Waits until one request waits, to do this: one that was overtaken by another level stays for a moment.
fn only(agent: &Agent, operation: &str) -> Outcome<Request> {
    Ok(wait_for(&format!("nothing but a request to {operation}"), 120, || match &pending(agent).ok()?[..] {
        [one] if one.said["request"]["what"]["operation"] == operation => Some(one.clone()),
        _ => None,
    })?)
}

fn has_text(path: &str, text: &str) -> bool {
    fs::read_to_string(path).is_ok_and(|found| found.starts_with(text))
}

fn a_level_counts_at_once_in_a_session_that_runs(t: &mut Test) -> Outcome {
    let (agent, w) = agent(t, &["f1"])?;
    let secret = t.file("secret")?;
    let read = format!("read {w}/f1");
    let acts = [format!("read {secret}"), read.clone(), format!("unlink {w}/f8"), read.clone(), read];
    let mut live = agent.start(&acts)?;
    live.expect(&["EPERM"])?;

    // Nobody has stated anything: what is tier medium waits, whatever the policy's ceiling is.
    let first = only(&agent, "open")?;
    ensure!(first.said["request"]["why"]["trust"] == "probation", "{}", first.said);
    let before = first.said["request"]["recent"].to_string();
    ensure!(before.contains(&format!("was refused to open {secret} to read")), "{before}");
    // With more trust it needs nobody any more.
    stated(&agent, "supervised")?;
    live.expect(&["ok"])?;
    let second = only(&agent, "unlink")?;

    // With less it waits again, in the same session.
    stated(&agent, "probation")?;
    approve(&second, &[])?;
    live.expect(&["ok"])?;
    let third = only(&agent, "open")?;
    deny(&third)?;
    live.expect(&["EPERM"])?;
    let refused = events::wait("the refusal", live.mark, |record| {
        record["hold"] == third.hold.as_str() && record["kind"] == "decision"
    })?;
    ensure!(refused["trust"] == "probation", "{refused}");

    let changes: Vec<Value> = events::since(live.mark)?
        .into_iter()
        .filter(|record| record["kind"] == "trust-changed" && record["agent"] == agent.name())
        .collect();
    let levels: Vec<&Value> = changes.iter().map(|record| &record["in_force"]).collect();
    ensure!(levels == ["supervised", "probation"], "{changes:?}");
    ensure!(changes[1]["by"]["uid"] == 0 && changes[1]["because"] == "a test says so", "{}", changes[1]);
    // Never more than the ceiling.
    let ran = set(&agent, "autonomous")?;
    ensure!(ran.code == Some(14) && ran.err.contains("more than the policy"), "{ran}");
    Ok(())
}

fn an_agent_does_not_set_its_own_level(t: &mut Test) -> Outcome {
    let policy = t.policy().line("trust: autonomous").line("unix: [{ allow: ['/**'] }]");
    let agent = t.agent(policy.allow("all", "/**").exec("/**").connect("*:*/*"))?;
    let words = ["enforcer", "trust", "set", agent.name(), "autonomous", "--reason", "I am good"];
    let words: Vec<String> = words.iter().map(|word| (*word).to_owned()).collect();
    let session = agent.run(&words)?;
    ensure!(session.code != Some(0), "it set its own level: {}", session.err);
    let said = shown(&agent)?;
    ensure!(said["in_force"] == "probation" && said["statements"] == 0, "{said}");
    // The same words outside.
    stated(&agent, "autonomous")?;
    ensure!(shown(&agent)?["in_force"] == "autonomous", "{}", shown(&agent)?);
    Ok(())
}

fn a_level_outlives_the_daemon_unless_it_cannot_be_read(t: &mut Test) -> Outcome {
    let (agent, w) = agent(t, &["f1", "f2", "f3"])?;
    stated(&agent, "supervised")?;
    let acts = ["write f1 one", "unlink f8", "write f2 two", "unlink f9", "write f3 three"]
        .map(|act| act.replace(" f", &format!(" {w}/f")));
    let mut waits = agent.detached(&acts)?;
    let first = asked(&agent, "unlink")?;
    ensure!(has_text(&format!("{w}/f1"), "one"), "tier medium did not run on its own");
    systemctl("restart enforcer.service")?;
    ensure!(shown(&agent)?["in_force"] == "supervised", "{}", shown(&agent)?);
    approve(&first, &[])?;
    let second = wait_for("the next request", 120, || {
        pending(&agent).ok()?.into_iter().find(|one| one.hold != first.hold)
    })?;
    ensure!(second.said["request"]["what"]["operation"] == "unlink", "{}", second.said);
    ensure!(has_text(&format!("{w}/f2"), "two"), "tier medium did not run after the restart");

    // What cannot be read is no trust, in the session that runs, too.
    systemctl("stop enforcer.service")?;
    let file = format!("/var/lib/enforcer/trust/{}.json", agent.name());
    let mut bytes = fs::read(&file)?;
    *bytes.last_mut().ok_or_else(|| format!("{file} is empty"))? ^= 1;
    fs::write(&file, &bytes)?;
    systemctl("start enforcer.service")?;
    ensure!(shown(&agent)?["in_force"] == "probation", "{}", shown(&agent)?);
    let status = Command::new("enforcer").args(["status"]).run()?;
    ensure!(status.out.contains(&format!("the trust of {} cannot be read", agent.name())), "{status}");
    let second = wait_for("the request after the restart", 120, || pending(&agent).ok()?.pop())?;
    approve(&second, &[])?;
    let third = wait_for("the request for tier medium", 120, || {
        pending(&agent).ok()?.into_iter().find(|one| one.said["request"]["what"]["operation"] == "open")
    })?;
    deny(&third)?;
    nothing_waits(&agent)?;
    ensure!(!has_text(&format!("{w}/f3"), "three"), "it was written after all");
    stated(&agent, "supervised")?;
    let status = Command::new("enforcer").args(["status"]).run()?;
    ensure!(!status.out.contains("cannot be read"), "{status}");
    let _ = waits.wait();
    Ok(())
}
