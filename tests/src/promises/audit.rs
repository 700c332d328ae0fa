//! The signed log on a real host: what an agent was refused can be proved, and a log that was changed cannot.

use super::tree;
use crate::{
    cases,
    command::{Command, Ran, wait_for},
    ensure, events,
    harness::{Outcome, Test},
};
use serde_json::Value;
use std::{fs, io, path::Path};

cases!(audit:
    a_refusal_is_in_the_log_and_the_log_verifies,
    a_log_that_was_changed_does_not_verify,
    an_agent_reaches_neither_the_log_nor_its_key,
);

const LOG: &str = "/var/lib/enforcer/audit";

/// `enforcer audit WORDS…`
fn audit(words: &[&str]) -> Outcome<Ran> {
    Ok(Command::new("enforcer").args(["audit"]).args(words).patience(300).run()?)
}

fn a_refusal_is_in_the_log_and_the_log_verifies(t: &mut Test) -> Outcome {
    tree(t)?;
    let shut = t.at("shut/f1");
    let agent = t.agent(t.policy())?;
    let session = agent.probe(&[format!("read {shut}")])?;
    ensure!(session.lines == ["EPERM"], "{:?}", session.lines);
    events::wait("the refusal", session.mark, |record| events::decides(record, &session.id))?;
    // A record is under a checkpoint a second later at the latest.
    let found = wait_for("the refusal under a checkpoint", 120, || {
        let ran = audit(&["search", "--session", &session.id, "--object", &shut, "--output", "json"]).ok()?;
        let first: Value = serde_json::from_str(ran.out.lines().next()?).ok()?;
        (first["kind"] == "decision").then_some(first)
    })?;
    ensure!(found["object"]["path"] == shut.as_str() && found["verdict"] == "deny", "{found}");
    let index = found["seq"].to_string();
    let proof = audit(&["prove", "--index", &index])?;
    ensure!(proof.code == Some(0) && proof.out.contains(&index), "{proof}");
    let whole = audit(&["verify"])?;
    ensure!(whole.code == Some(0) && whole.out.contains("complete to record"), "{whole}");
    Ok(())
}

fn a_log_that_was_changed_does_not_verify(t: &mut Test) -> Outcome {
    let copy = t.dir("copy")?;
    let log = format!("{copy}/log");
    let checkpoints = |log: &str| {
        let mut all: Vec<_> = fs::read_dir(log)?.map(|entry| Ok(entry?.path())).collect::<io::Result<_>>()?;
        all.sort();
        all.iter().map(|path| fs::read(path.join("checkpoint"))).collect::<io::Result<Vec<_>>>()
    };
    // A file that the daemon renames under the copy's hands ends it, and a checkpoint that was signed meanwhile speaks of
    // more than was copied before it: again.
    wait_for("a copy of the log", 120, || {
        let _ = fs::remove_dir_all(&log);
        let before = checkpoints(&format!("{LOG}/log")).ok()?;
        let ran = Command::new("cp").args(["-a", &format!("{LOG}/log"), &log]).run().ok()?;
        (ran.code == Some(0) && checkpoints(&log).is_ok_and(|copied| copied == before)).then_some(())
    })?;
    let key = format!("{LOG}/key.pub");
    let verify = || audit(&["verify", "--key", &key, "--log", &log]);
    // The copy was taken while the daemon wrote: what is behind the checkpoint is not looked at.
    let good = verify()?;
    ensure!(good.code == Some(0), "{good}");
    let entries = first_file(Path::new(&log), "entries").ok_or("there is no bundle of entries".to_owned())?;
    let original = fs::read(&entries)?;
    let mut changed = original.clone();
    let middle = changed.len() / 2;
    changed[middle] ^= 1;
    fs::write(&entries, &changed)?;
    let bad = verify()?;
    ensure!(bad.code == Some(74), "a flipped bit in {}: {bad}", entries.display());
    fs::write(&entries, &original)?;
    ensure!(verify()?.code == Some(0), "the copy is as it was");
    Ok(())
}

/// The first file below `at` that lies below a directory called `name`.
fn first_file(at: &Path, name: &str) -> Option<std::path::PathBuf> {
    let mut inside: Vec<_> = fs::read_dir(at).ok()?.flatten().map(|entry| entry.path()).collect();
    inside.sort();
    let below = at.components().any(|part| part.as_os_str() == name);
    inside.iter().find_map(|path| match path.is_dir() {
        true => first_file(path, name),
        false => below.then(|| path.clone()),
    })
}

fn an_agent_reaches_neither_the_log_nor_its_key(t: &mut Test) -> Outcome {
    tree(t)?;
    // Whatever the policy allows, and although the agent is root.
    let agent = super::floor::almighty(t)?;
    let acts = [
        "write /etc/enforcer/enforcer.toml".to_owned(),
        "rename /usr/bin/enforcer /usr/bin/enforcer-away".to_owned(),
        "create /etc/enforcer/policies.d/more.yaml".to_owned(),
        format!("read {LOG}/key"),
        format!("write {LOG}/key"),
        format!("list {LOG}"),
        format!("unlink {LOG}/log/0001/checkpoint"),
        format!("rename {LOG}/events.jsonl {LOG}/x"),
    ];
    let session = agent.probe(&acts)?;
    ensure!(session.lines == ["EPERM"; 8], "{:?}", session.lines);
    Ok(())
}
