//! Rules about what a program is and who executes it.

use super::holds::policy;
use crate::{
    cases,
    command::{Command, wait_for},
    ensure, events, fail,
    harness::{Outcome, Test, exists},
    promise as check,
    promises::lifecycle::daemon,
};
use std::fs;

cases!(identity:
    a_program_is_known_by_its_content_whatever_becomes_of_its_name,
    an_interpreters_content_is_not_its_scripts,
    who_executes_a_program_can_decide,
    a_large_program_that_is_read_keeps_nobody_else_waiting,
);

/// Whether the daemon reads a program.
fn is_reading() -> Outcome<bool> {
    let threads = fs::read_dir(format!("/proc/{}/task", daemon()?))?.flatten();
    // One that has just ended has no name any more.
    let mut names = threads.filter_map(|thread| fs::read_to_string(thread.path().join("comm")).ok());
    Ok(names.any(|name| name == "content\n"))
}

/// It takes the daemon seconds to read, and whoever may execute it can have that done again and again.
fn a_large_program_that_is_read_keeps_nobody_else_waiting(t: &mut Test) -> Outcome {
    t.fresh()?;
    let w = t.dir("w")?;
    let (large, small) = (format!("{w}/large"), format!("{w}/small"));
    copy("/usr/bin/true", &large)?;
    copy("/usr/bin/true", &small)?;
    fs::OpenOptions::new().write(true).open(&large)?.set_len(900 << 20)?;
    let pin = |path: &str, digest: &str| format!("allow: ['{path}'], sha256: ['{digest}']");
    let greedy = t.agent(t.policy().exec_rule(pin(&large, &"00".repeat(32))))?;
    let other = t.agent(t.policy().exec_rule(pin(&small, &sha256(&small)?)))?;
    let mut live = greedy.start(&[format!("exec {large}")])?;
    wait_for("a program that is read", 120, || is_reading().ok()?.then_some(()))?;
    let session = other.probe(&[format!("exec {small}")])?;
    ensure!(session.lines == ["ok"], "{:?}", session.lines);
    ensure!(is_reading()?, "the large program was read first");
    live.expect(&[KILLED])
}

/// What a program's parent sees of its end by SIGKILL.
const KILLED: &str = "status-0x9";

fn sha256(path: &str) -> Outcome<String> {
    let ran = Command::new("sha256sum").args([path]).run()?;
    match ran.out.split_whitespace().next() {
        Some(digest) if digest.len() == 64 => Ok(digest.to_owned()),
        _ => fail!("{ran}"),
    }
}

fn copy(from: &str, to: &str) -> Outcome {
    fs::copy(from, to)?;
    Ok(())
}

/// The interpreter of a script is executed too, and rules need not say anything about it.
fn an_interpreters_content_is_not_its_scripts(t: &mut Test) -> Outcome {
    t.fresh()?;
    let w = t.dir("w")?;
    let shell = fs::canonicalize("/bin/sh")?.display().to_string();
    let digest = sha256(&shell)?;
    let pinned = t.program("w/pinned", "#!/bin/sh\nexit 0\n")?;
    let free = t.program("w/free", "#!/bin/sh\nexit 0\n")?;
    let copied = format!("{w}/copied");
    copy(&shell, &copied)?;
    let denied = t.program("w/denied", "#!/bin/sh\nexit 0\n")?;
    let policy = t
        .policy()
        .allow("read", &format!("{w}/**"))
        .exec_rule(format!("allow: ['{pinned}', '{copied}'], sha256: ['{digest}']"))
        .exec_rule(format!("deny: ['{denied}'], sha256: ['{}']", "00".repeat(32)))
        .exec(&denied)
        .exec(&free)
        .exec(&shell);
    let agent = t.agent(policy)?;
    // What cannot be told is denied, and a script's content cannot.
    let acts = [&pinned, &denied, &free, &copied].map(|path| format!("exec {path} -c :"));
    let session = agent.probe(&acts)?;
    ensure!(session.lines == [KILLED, KILLED, "ok", "ok"], "{:?}", session.lines);
    Ok(())
}

fn a_program_is_known_by_its_content_whatever_becomes_of_its_name(t: &mut Test) -> Outcome {
    t.fresh()?;
    let w = t.dir("w")?;
    // All but running, which the rules below are about.
    let policy =
        t.policy().allow("read, list, write, create, delete, rename, link, metadata", &format!("{w}/**"));
    let (tool, other) = (format!("{w}/tool"), format!("{w}/other"));
    let (sleeper, script) = (format!("{w}/sleeper"), t.program("w/script", "#!/bin/sh\nexit 0\n")?);
    copy("/usr/bin/touch", &tool)?;
    copy("/usr/bin/mkdir", &other)?;
    copy("/usr/bin/sleep", &sleeper)?;
    for name in ["lower", "upper", "work", "merged"] {
        t.dir(&format!("w/{name}"))?;
    }
    copy("/usr/bin/touch", &format!("{w}/lower/tool"))?;
    let overlay = Overlay::mount(&w)?;
    let shell = fs::canonicalize("/bin/sh")?.display().to_string();
    let pin = |paths: &str, digest: &str| format!("allow: [{paths}], sha256: ['{digest}']");
    let policy = policy
        .exec_rule(pin(&format!("'{w}/tool*', '{w}/merged/tool'"), &sha256(&tool)?))
        .exec_rule(pin(&format!("'{sleeper}'"), &sha256(&sleeper)?))
        .exec_rule(pin(&format!("'{script}'"), &sha256(&script)?))
        .exec(&shell);
    let agent = t.agent(policy)?;
    let marker = check::marker(t)?;
    let go = |number: usize| t.at(&format!("go{number}"));
    let run = |name: &str, number: usize| format!("exec {name} {w}/made{number}");
    let acts = [
        run(&tool, 0),
        // A further name of the same file.
        format!("link {tool} {w}/tool-2"),
        run(&format!("{w}/tool-2"), 1),
        run(&format!("{w}/merged/tool"), 2),
        format!("exec {script}"),
        format!("wait-for {}", go(0)),
        // Another program under the name.
        run(&tool, 3),
        run(&format!("{w}/merged/tool"), 4),
        format!("wait-for {}", go(1)),
        // Its own content again, in another file.
        run(&tool, 5),
        format!("wait-for {}", go(2)),
        // One byte more in the same file.
        run(&tool, 6),
        format!("read {marker}"),
    ];
    let mut live = agent.start(&acts)?;
    live.expect(&["ok", "ok", "ok", "ok", KILLED])?;
    copy(&other, &format!("{w}/new"))?;
    fs::rename(format!("{w}/new"), &tool)?;
    copy(&other, &format!("{w}/merged/tool"))?;
    fs::write(go(0), "")?;
    live.expect(&["ok", KILLED, KILLED])?;
    copy("/usr/bin/touch", &format!("{w}/new"))?;
    fs::rename(format!("{w}/new"), &tool)?;
    fs::write(go(1), "")?;
    live.expect(&["ok", "ok"])?;
    let mut bytes = fs::read(&tool)?;
    bytes.push(b'x');
    fs::write(&tool, bytes)?;
    fs::write(go(2), "")?;
    live.expect(&["ok", KILLED, "EPERM"])?;
    let made: Vec<bool> = (0..7).map(|number| exists(&format!("{w}/made{number}"))).collect();
    ensure!(made == [true, true, true, false, false, true, false], "{made:?}");
    let records = events::until_marker(live.mark, &live.id, &marker)?;
    let fits = |r: &&serde_json::Value| {
        r["operation"] == "exec-arguments" && r["verdict"] == "deny" && r["error"] == "SIGKILL"
    };
    let refused: Vec<_> = records.iter().filter(fits).collect();
    ensure!(refused.len() == 4 && records.len() == 4, "{records:?}");
    let found = sha256(&other)?;
    ensure!(refused.iter().filter(|r| r["sha256"] == found.as_str()).count() == 2, "{refused:?}");
    drop(live);
    // Nobody writes to what runs.
    let mut live = agent.start(&[format!("exec {sleeper} 1000")])?;
    let procs = live.cgroup()?.join("cgroup.procs");
    let runs = |pid: &&str| {
        fs::read_link(format!("/proc/{pid}/exe")).is_ok_and(|exe| exe == std::path::Path::new(&sleeper))
    };
    let pid = wait_for("a program that runs", 120, || {
        fs::read_to_string(&procs).ok()?.lines().find(runs).map(str::to_owned)
    })?;
    let busy = fs::OpenOptions::new().append(true).open(&sleeper).err().and_then(|e| e.raw_os_error());
    ensure!(busy == Some(26), "writing to a program that runs: error {busy:?}");
    Command::new("kill").args(["-KILL", &pid]).run()?;
    live.expect(&[KILLED])?;
    drop(overlay);
    Ok(())
}

/// An overlay over `lower` at `merged`, until this goes.
struct Overlay(String);

impl Overlay {
    fn mount(w: &str) -> Outcome<Self> {
        let options = format!("lowerdir={w}/lower,upperdir={w}/upper,workdir={w}/work");
        let at = format!("{w}/merged");
        let ran = Command::new("mount").args(["-t", "overlay", "overlay", "-o", &options, &at]).run()?;
        ensure!(ran.code == Some(0), "{ran}");
        Ok(Self(at))
    }
}

impl Drop for Overlay {
    fn drop(&mut self) {
        let _ = Command::new("umount").args([&self.0]).run();
    }
}

fn who_executes_a_program_can_decide(t: &mut Test) -> Outcome {
    let (policy, w) = policy(t, &[])?;
    let shell = fs::canonicalize("/bin/sh")?.display().to_string();
    let script = t.file("w/run")?;
    fs::write(&script, format!("/usr/bin/touch {w}/by-shell\n"))?;
    let policy = policy.exec(&shell).exec_rule(format!("allow: ['/usr/bin/touch'], parent: ['{shell}']"));
    let agent = t.agent(policy)?;
    let session = agent.probe(&[
        format!("exec /usr/bin/touch {w}/by-probe"),
        format!("exec {shell} {script}"),
        format!("exec /usr/bin/touch {w}/by-probe"),
    ])?;
    ensure!(session.lines == [KILLED, "ok", KILLED], "{:?}", session.lines);
    ensure!(exists(&format!("{w}/by-shell")) && !exists(&format!("{w}/by-probe")), "the wrong one ran");
    let record = events::wait("the refused run", session.mark, |record| {
        events::decides(record, &session.id) && record["operation"] == "exec-arguments"
    })?;
    ensure!(record["reason"] == "rule" && record["rule"] == "no rule", "{record}");
    Ok(())
}
