//! What a record costs the daemon, from the ring's bytes to the file: measured, not asserted.
//!
//! `cargo test --release --package enforcer --lib throughput -- --ignored --nocapture`, and for instructions
//! `valgrind --tool=callgrind` on the test program with the same words and `RECORDS=20000`.

use super::{
    canary::Canary,
    core::Core,
    fake::{Fake, Told},
};
use crate::{
    audit::{JsonLines, Recorder, Sink, acts},
    event::decode::tests::record,
    settings::Settings,
};
use serde_json::Value;
use std::{cell::RefCell, fmt::Write as _, fs, path::Path, rc::Rc, time::Instant};

/// A policy with this many rules about directories.
fn policy(rules: usize) -> String {
    let mut text = "apiVersion: enforcer/v1\nkind: AgentPolicy\n\
        metadata: { id: a, version: 1, owner: a@example.com, purpose: Test }\nfiles:\n"
        .to_owned();
    for rule in 0..rules {
        let _ = writeln!(text, "  - {{ allow: [read, write], paths: [\"/srv/data/group-{rule}/**\"] }}");
    }
    text
}

/// Settings of a daemon whose files lie below a directory.
pub(super) fn settings(dir: &Path) -> Settings {
    let mut settings = Settings::default();
    settings.paths.policies = dir.join("policies.d");
    settings.paths.state = dir.join("state");
    settings.paths.cgroups = dir.join("cgroups");
    settings
}

/// The daemon with a file of lines only, or with the signed log and a sink.
fn core(dir: &Path, fake: &Fake, rules: usize, signed: bool) -> Core {
    for name in ["policies.d", "state", "cgroups/agents.slice"] {
        fs::create_dir_all(dir.join(name)).expect("dir");
    }
    fs::write(dir.join("policies.d/a.yaml"), policy(rules)).expect("write");
    let mut settings = settings(dir);
    let program = Path::new("/proc/self/exe");
    let canary = Canary::prepare(&settings, program).expect("canary");
    let log: Box<dyn Sink> = if signed {
        let sink = format!(
            "[[sinks]]\nname='file'\nbatch=5000\nfile={{path='{}/out',rotate_megabytes=9999}}",
            dir.display()
        );
        settings.sinks = Settings::parse("sink", &sink).expect("valid").sinks;
        Box::new(Recorder::open(&settings).expect("log"))
    } else {
        Box::new(JsonLines::open(&dir.join("events.jsonl")).expect("log"))
    };
    let mut core =
        Core::new(Rc::new(settings), program.to_owned(), canary, Box::new(fake.clone()), log).expect("core");
    core.reload();
    core
}

/// Denials of one process: of one file, or each of another.
fn denials(count: usize, same: bool) -> Vec<Vec<u8>> {
    let denial = |n: usize| {
        let path = format!("/home/someone/secrets/file-{}", if same { 0 } else { n });
        record(path.as_bytes(), b"/usr/bin/python3.11", |h| {
            (h.agent, h.policy, h.session) = (0, 1, [7, 7]);
            (h.tgid, h.pid, h.parent, h.uid) = (4711, 4711, 1, 1000);
            (h.device, h.inode, h.cgroup) = (8 << 20 | 1, 1 + n as u64 * u64::from(!same), 4712);
            h.time = 1_000_000_000 + n as u64 * 10_000;
        })
    };
    (0..count).map(denial).collect()
}

fn measure(rules: usize, batch: usize, same: bool) {
    let total: usize = std::env::var("RECORDS").ok().and_then(|n| n.parse().ok()).unwrap_or(200_000);
    let dir = tempfile::tempdir().expect("dir");
    let fake = Fake(Rc::new(RefCell::new(Told::default())));
    let mut core = core(dir.path(), &fake, rules, false);
    let all = denials(total, same);
    let begun = Instant::now();
    for some in all.chunks(batch) {
        fake.0.borrow_mut().records = some.to_vec();
        core.drain();
    }
    core.drain_all();
    let took = begun.elapsed().as_secs_f64();
    let log = fs::read_to_string(dir.path().join("events.jsonl")).expect("log");
    let records = log.lines().map(|line| serde_json::from_str(line).expect("JSON"));
    let denials: Vec<Value> = records.filter(|r: &Value| r["kind"] == "decision").collect();
    let (lines, sum) = (denials.len(), denials.iter().map(|r| acts(r.get("count"))).sum::<u64>());
    assert_eq!(sum, total as u64, "every denial is in the log once");
    let what = if same { "identical" } else { "different" };
    println!(
        "{rules} rules, {what} denials, {batch} at a time: {:.0} records/s, {total} denials in {lines} lines",
        total as f64 / took
    );
}

#[test]
#[ignore = "a measurement"]
fn different_denials_in_batches() {
    measure(10, 256, false);
}

#[test]
#[ignore = "a measurement"]
fn different_denials_one_by_one() {
    measure(10, 1, false);
}

#[test]
#[ignore = "a measurement"]
fn identical_denials_in_batches() {
    measure(10, 256, true);
}

#[test]
#[ignore = "a measurement"]
fn different_denials_under_a_thousand_rules() {
    measure(1000, 256, false);
}

/// From the ring's bytes to the signed log, its live copy, and a file that a sink writes.
#[test]
#[ignore = "a measurement"]
fn different_denials_into_the_signed_log_and_one_sink() {
    let total: usize = std::env::var("RECORDS").ok().and_then(|n| n.parse().ok()).unwrap_or(200_000);
    let dir = tempfile::tempdir().expect("dir");
    let fake = Fake(Rc::new(RefCell::new(Told::default())));
    let mut core = core(dir.path(), &fake, 10, true);
    let all = denials(total, false);
    let begun = Instant::now();
    for some in all.chunks(256) {
        fake.0.borrow_mut().records = some.to_vec();
        core.drain();
    }
    core.drain_all();
    let taken = begun.elapsed().as_secs_f64();
    while core.audit.sinks().iter().any(|sink| sink.delivered < total as u64 || sink.lag > 0) {
        assert!(begun.elapsed().as_secs() < 600, "{:?}", core.audit.sinks());
        std::thread::sleep(std::time::Duration::from_millis(5));
    }
    let delivered = begun.elapsed().as_secs_f64();
    let (taken, delivered) = (total as f64 / taken, total as f64 / delivered);
    println!("{total} denials: {taken:.0} records/s into the log, {delivered:.0} records/s out of the sink");
}
