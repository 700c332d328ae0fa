//! What becomes of policies: changed, broken, removed, recorded only.

use super::tree;
use crate::{
    cases,
    command::{Command, wait_for},
    ensure, events, fail,
    harness::{Outcome, Test},
    promise::{self as check, Attempt, Denial},
};
use serde_json::Value;
use std::fs;

cases!(policies:
    a_policy_that_was_there_at_the_start_is_in_force,
    a_new_policy_holds_for_running_sessions_at_once,
    no_verdict_is_mixed_from_two_policies,
    a_broken_policy_keeps_the_last_good_one_and_says_so,
    applying_puts_all_files_in_force_or_none,
    an_agent_whose_policy_is_gone_is_refused_everything,
    audit_mode_records_and_refuses_nothing_but_the_floor,
    two_agents_do_not_share_their_rights,
    names_with_control_characters_are_recorded_safely,
);

/// `tests/policies/at-start.yaml`
fn a_policy_that_was_there_at_the_start_is_in_force(t: &mut Test) -> Outcome {
    tree(t)?;
    let acts = format!("seq read {} , read {}", t.at("open/f1"), t.at("shut/f1"));
    let words =
        ["exec", "at-start", "--cwd", "/", "--", crate::agent::PROBE].into_iter().chain(acts.split(' '));
    let ran = Command::new("enforcer").args(words).run()?;
    ensure!(ran.code == Some(0) && ran.out == "ok\nEPERM\n", "{ran}");
    Ok(())
}

fn a_new_policy_holds_for_running_sessions_at_once(t: &mut Test) -> Outcome {
    tree(t)?;
    let file = t.at("open/f1");
    let strict = t.policy();
    let mut agent = t.agent(strict.clone())?;
    let mut acts = vec![format!("read {file}")];
    for step in ["one", "two"] {
        acts.extend([format!("say {step}"), format!("wait-for {}", t.at(step)), format!("read {file}")]);
    }
    let mut live = agent.start(&acts)?;
    live.expect(&["EPERM", "one", "ok"])?;
    agent.change(strict.next().allow("read", &t.at("open/**")))?;
    t.file("one")?;
    live.expect(&["ok", "ok", "two", "ok"])?;
    agent.change(strict.next())?;
    t.file("two")?;
    live.expect(&["ok", "EPERM"])?;
    live.finish()?;
    Ok(())
}

/// Two policies that agree about two files and about hardly anything else take turns, while two processes
/// ask about these files all the time.
fn no_verdict_is_mixed_from_two_policies(t: &mut Test) -> Outcome {
    tree(t)?;
    let (swaps, checks) = if t.full { (1_000, 500_000) } else { (6, 3_000) };
    let (allowed, refused, stop) = (t.at("open/f1"), t.at("shut/f1"), t.at("stop"));
    let few = t.policy().allow("read", &t.at("open/**")).deny("read", &refused);
    let mut many = few.next();
    // Enough for tables of quite another shape, and few enough for a thousand of them in an emulated machine.
    for number in 0..60 {
        many = many.allow("read, write", &format!("/srv/other/{number}/*.txt"));
        many = many.deny("read", &format!("/srv/**/secret-{number}"));
    }
    let mut agent = t.agent(few.clone())?;
    let acts = [format!("hammer {allowed} {refused} {stop} {checks}")];
    let mut busy = [agent.start(&acts)?, agent.start(&acts)?];
    for turn in 0..swaps {
        let next = if turn % 2 == 0 { &many } else { &few };
        agent.change(next.next())?;
    }
    t.file("stop")?;
    for live in &mut busy {
        live.expect(&["ok"])?;
    }
    for mut live in busy {
        live.finish()?;
    }
    Ok(())
}

fn a_broken_policy_keeps_the_last_good_one_and_says_so(t: &mut Test) -> Outcome {
    tree(t)?;
    let agent = t.agent(t.policy().allow("read", &t.at("open/**")))?;
    let good = fs::read_to_string(agent.file())?;
    let broken = [
        ("an unknown key", good.replace("files:", "fyles:")),
        ("an unknown operation", good.replace("allow: [read]", "allow: [reed]")),
        ("a relative path", good.replace("paths: ['/srv", "paths: ['srv")),
        ("no YAML", "{{{{".to_owned()),
        ("nothing", String::new()),
    ];
    for (what, text) in broken {
        ensure!(text != good, "{what}: the text is not broken");
        fs::write(agent.file(), &text)?;
        let ran = Command::new("enforcer").args(["reload"]).run()?;
        // Another reader of the directory may have told of it already; the state says it in any case.
        let status = Command::new("enforcer").args(["status"]).run()?;
        ensure!(status.code == Some(1), "{what}: {status}\n{ran}");
        ensure!(ran.code == Some(65), "{what}: {ran}");
        let said = format!("{}:", agent.file());
        ensure!(ran.out.contains(&said) && status.out.contains(&said), "{what}: {ran}\n{status}");
        let now = agent.status()?.unwrap_or_default();
        ensure!(now["digest"] == agent.digest(), "{what}: {now}");
        let file = t.at("shut/f1");
        let attempt = Attempt::new(format!("read {file}"), Denial::no_rule("open").on(&file).asking("read"));
        check::refused(t, &agent, &[format!("read {}", t.at("open/f1"))], &[attempt])?;
    }
    fs::write(agent.file(), &good)?;
    let ran = Command::new("enforcer").args(["reload"]).run()?;
    ensure!(ran.code == Some(0), "{ran}");
    nothing_is_wrong()
}

/// The status complains of nothing but of records that the kernel's ring had no room for, in whatever test.
fn nothing_is_wrong() -> Outcome {
    let ran = Command::new("enforcer").args(["status", "--output", "json"]).run()?;
    let status: Value = serde_json::from_str(&ran.out).unwrap_or_default();
    let full =
        |problem: &Value| problem.as_str().is_some_and(|text| text.ends_with("the kernel's ring was full"));
    let Some(problems) = status["problems"].as_array() else { fail!("{ran}") };
    ensure!(problems.iter().all(full) && matches!(ran.code, Some(0 | 1)), "{ran}");
    Ok(())
}

fn applying_puts_all_files_in_force_or_none(t: &mut Test) -> Outcome {
    tree(t)?;
    let (first, second) = (t.at("first.yaml"), t.at("second.yaml"));
    let agent = t.agent(t.policy().allow("read", &t.at("open/f1")))?;
    let before = fs::read_to_string(agent.file())?;
    fs::write(&first, agent.policy().next().allow("read", &t.at("shut/f1")).to_string())?;
    let apply =
        |files: &[&str]| Command::new("enforcer").args(["policy", "apply"]).args(files.iter().copied()).run();
    // The policy is good by itself; only the daemon knows that nothing lives there.
    let elsewhere = t.policy().line("match: { cgroup: /system.slice/nowhere }");
    let other = format!("/etc/enforcer/policies.d/{}.yaml", elsewhere.name());
    fs::write(&second, elsewhere.to_string())?;
    for (what, text) in [("no root", elsewhere.to_string()), ("broken", "{{{{".to_owned())] {
        fs::write(&second, &text)?;
        let ran = apply(&[&first, &second])?;
        ensure!(ran.code == Some(65), "{what}: {ran}");
        ensure!(fs::read_to_string(agent.file())? == before, "{what}: the first file was replaced");
        ensure!(!crate::harness::exists(&other), "{what}: the second file was left behind");
        let now = agent.status()?.unwrap_or_default();
        ensure!(now["digest"] == agent.digest(), "{what}: {now}");
    }
    let ran = apply(&[&first])?;
    ensure!(ran.code == Some(0) && ran.out.contains("in force"), "{ran}");
    let session = agent.probe(&[format!("read {}", t.at("shut/f1"))])?;
    ensure!(session.lines == ["ok"], "{:?}", session.lines);
    nothing_is_wrong()
}

fn an_agent_whose_policy_is_gone_is_refused_everything(t: &mut Test) -> Outcome {
    tree(t)?;
    let (file, go) = (t.at("open/f1"), t.at("go"));
    let agent = t.agent(t.policy().allow("read", &t.at("open/**")))?;
    let mut live = agent.start(&[
        format!("read {file}"),
        "say ready".to_owned(),
        format!("wait-for {go}"),
        format!("read {file}"),
        "socketpair".to_owned(),
    ])?;
    live.expect(&["ok", "ready", "ok"])?;
    fs::remove_file(agent.file())?;
    let _ = Command::new("enforcer").args(["reload"]).run()?;
    wait_for("the agent to be gone", 120, || agent.status().ok()?.is_none().then_some(()))?;
    fs::write(&go, "")?;
    live.expect(&["ok", "EPERM", "EPERM"])?;
    live.finish()?;
    let ran = Command::new("enforcer").args(["exec", agent.name(), "--", "/usr/bin/true"]).run()?;
    ensure!(ran.code == Some(64), "{ran}");
    Ok(())
}

fn audit_mode_records_and_refuses_nothing_but_the_floor(t: &mut Test) -> Outcome {
    tree(t)?;
    let agent = t.agent(t.policy().line("mode: audit"))?;
    let file = t.at("shut/f1");
    let session = agent.probe(&[format!("read {file}"), "unshare-mount".to_owned()])?;
    ensure!(session.lines == ["ok", "EPERM"], "{:?}", session.lines);
    let floor = events::wait("the floor's refusal", session.mark, |record| {
        events::decides(record, &session.id) && record["reason"] == "floor"
    })?;
    ensure!(floor["error"] == "EPERM", "{floor}");
    let all: Vec<_> = events::since(session.mark)?
        .into_iter()
        .filter(|record| events::decides(record, &session.id))
        .collect();
    ensure!(all.len() == 2, "{} records instead of 2", all.len());
    let would = &all[0];
    ensure!(would["object"]["path"] == file.as_str() && would["verdict"] == "deny", "{would}");
    ensure!(would["error"].is_null() && would["flags"] == serde_json::json!(["would"]), "{would}");
    Ok(())
}

fn two_agents_do_not_share_their_rights(t: &mut Test) -> Outcome {
    tree(t)?;
    let (open, shut) = (t.at("open/f1"), t.at("shut/f1"));
    let one = t.agent(t.policy().allow("read", &open))?;
    let two = t.agent(t.policy().allow("read", &shut))?;
    let attempt =
        |path: &str| [Attempt::new(format!("read {path}"), Denial::no_rule("open").on(path).asking("read"))];
    // In turns, so that what was remembered for one is not used for the other.
    for _ in 0..2 {
        check::refused(t, &one, &[format!("read {open}")], &attempt(&shut))?;
        check::refused(t, &two, &[format!("read {shut}")], &attempt(&open))?;
    }
    Ok(())
}

fn names_with_control_characters_are_recorded_safely(t: &mut Test) -> Outcome {
    tree(t)?;
    // Words of an act are split at white space, so this name has none; a tab and a newline would do the same.
    let name = t.at("shut/a\u{1b}[31m\u{1}{\"verdict\":\"allow\"}\u{202e}");
    fs::write(&name, "x")?;
    let agent = t.agent(t.policy())?;
    let session = agent.probe(&[format!("read {name}")])?;
    ensure!(session.lines == ["EPERM"], "{:?}", session.lines);
    let record = events::wait("the refusal", session.mark, |record| events::decides(record, &session.id))?;
    let path = record["object"]["path"].as_str().unwrap_or_default();
    ensure!(path.chars().all(|c| !c.is_control() && c != '\u{202e}'), "{path:?}");
    ensure!(record["object"]["path_b64"].is_string() && record["verdict"] == "deny", "{record}");
    Ok(())
}
