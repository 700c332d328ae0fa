//! Hours of load: neither the daemon's memory nor its descriptors grow.

use super::{scale::resident, tree};
use crate::{
    agent::Agent,
    approvals::{approve, asked, deny, nothing_waits},
    cases,
    command::{systemctl, wait_for},
    ensure, fail,
    harness::{Outcome, Test},
    promises::{lifecycle::daemon, units::enforcing},
};
use std::{
    fs, thread,
    time::{Duration, Instant},
};

cases!(soak: memory_and_descriptors_stay_flat_under_load);

/// Kilobytes by which the daemon's memory may be more in the last quarter than in the second one.
const GROWTH: u64 = 2_048;

struct Sample {
    kilobytes: u64,
    descriptors: usize,
}

impl Sample {
    fn take(pid: &str) -> Outcome<Self> {
        Ok(Self { kilobytes: resident(pid)?, descriptors: fs::read_dir(format!("/proc/{pid}/fd"))?.count() })
    }
}

/// Allowed acts, refused ones, things that wait for a person, and policies that change: by default for a moment, with
/// `--full` for two hours, or for `--minutes=N`.
fn memory_and_descriptors_stay_flat_under_load(t: &mut Test) -> Outcome {
    let length = match (t.minutes, t.full) {
        (Some(minutes), _) => Duration::from_secs(minutes * 60),
        (None, true) => Duration::from_secs(2 * 3600),
        (None, false) => Duration::from_secs(40),
    };
    tree(t)?;
    // A guest's disk is its memory.
    limit_the_log(32 << 20)?;
    // What somebody asks for is renamed each time, so the load has a file of its own.
    let (open, shut, kept) = (t.at("open"), t.at("shut"), t.file("kept")?);
    let plain = t.policy().allow("all", &format!("{open}/**"));
    let mut worker = t.agent(plain.clone())?;
    let asker =
        t.agent(t.policy().allow("read", &format!("{open}/**")).hold("read", &format!("{shut}/**")))?;
    let churn = [
        format!("read {open}/f1"),
        format!("write {open}/f2 x"),
        format!("create {open}/n"),
        format!("unlink {open}/n"),
        format!("flood-read {kept} 5"),
        format!("flood-create {shut} 10"),
    ];
    let mut live = worker.start(&[format!("churn {} 200 {}", t.at("end"), churn.join(" + "))])?;
    let (pid, begun) = (daemon()?, Instant::now());
    let (mut samples, mut turns, mut said) = (Vec::new(), 0u64, 0);
    while begun.elapsed() < length {
        live.goes_on()?;
        ask(&asker, &shut, turns)?;
        let next = plain.next();
        worker.change(if turns.is_multiple_of(2) { next.deny("all", &t.at("other/**")) } else { next })?;
        turns += 1;
        samples.push(Sample::take(&pid)?);
        if fs::metadata(LIVE_COPY)?.len() > 64 << 20 {
            // As logrotate does it with copytruncate.
            fs::OpenOptions::new().write(true).open(LIVE_COPY)?.set_len(0)?;
        }
        if begun.elapsed().as_secs() / 300 > said {
            said = begun.elapsed().as_secs() / 300;
            if let Some(Sample { kilobytes, descriptors }) = samples.last() {
                eprintln!("{} min: {kilobytes} kB, {descriptors} descriptors, {turns} turns", said * 5);
            }
        }
        thread::sleep(Duration::from_millis(500));
    }
    t.file("end")?;
    let line = live.line()?;
    live.expect(&["ok"])?;
    ensure!(daemon()? == pid, "another daemon runs than at the beginning");
    let quarter = samples.len() / 4;
    ensure!(quarter >= 2, "only {} samples", samples.len());
    let (second, last) = (&samples[quarter..2 * quarter], &samples[3 * quarter..]);
    let most = |of: &[Sample]| {
        let kilobytes = of.iter().map(|s| s.kilobytes).max().unwrap_or_default();
        (kilobytes, of.iter().map(|s| s.descriptors).max().unwrap_or_default())
    };
    let ((before, fds_before), (after, fds_after)) = (most(second), most(last));
    eprintln!(
        "{} s of load: {line}, {turns} policies and decisions of a person; at most {before} kB and {fds_before} \
         descriptors in the second quarter, {after} kB and {fds_after} in the last",
        begun.elapsed().as_secs()
    );
    ensure!(after <= before + GROWTH, "memory grows: {before} kB, then {after} kB");
    ensure!(fds_after <= fds_before + 2, "descriptors grow: {fds_before}, then {fds_after}");
    Ok(())
}

const LIVE_COPY: &str = "/var/lib/enforcer/audit/events.jsonl";

/// A session asks for something, and is answered: yes, then no, in turn.
fn ask(agent: &Agent, shut: &str, turn: u64) -> Outcome {
    // A refusal stands for a minute, so each turn asks for another file.
    let file = format!("{shut}/f{}", turn % 12 + 1);
    let name = format!("{shut}/asked-{turn}");
    fs::rename(&file, &name)?;
    let mut live = agent.start(&[format!("read {name}")])?;
    let request = asked(agent, "open")?;
    let expected = if turn.is_multiple_of(2) { "ok" } else { "EPERM" };
    // A slow disk: the daemon says that a decision does not count yet, and to decide again.
    wait_for("a decision that counts", 300, || {
        if turn.is_multiple_of(2) { approve(&request, &[]).ok() } else { deny(&request).ok() }
    })?;
    let line = live.line()?;
    if line != expected {
        fail!("turn {turn}: {line}, not {expected}");
    }
    live.finish()?;
    nothing_waits(agent)?;
    fs::rename(&name, &file)?;
    Ok(())
}

fn limit_the_log(bytes: u64) -> Outcome {
    let settings = "/etc/enforcer/enforcer.toml";
    let text = fs::read_to_string(settings)?;
    let changed = text.replacen("max_bytes = 0", &format!("max_bytes = {bytes}"), 1);
    ensure!(changed != text, "{settings} has no max_bytes");
    // What a person refuses too often is not listened to for a while; here that is the load.
    let changed = changed.replacen("strikes = 5", "strikes = 1000", 1);
    fs::write(settings, changed)?;
    systemctl("restart enforcer.service")?;
    enforcing()
}
