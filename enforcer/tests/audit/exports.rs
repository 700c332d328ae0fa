//! Exports verify with nothing but the public key, and the command line says what it should.

use crate::world::Host;
use enforcer::log::{
    export,
    reader::Reader,
    store::CHECKPOINT,
    verify::{Demands, Finding},
};
use std::{
    fs,
    process::{Command, Output},
};

const PROGRAM: &str = env!("CARGO_BIN_EXE_enforcer");

fn run(arguments: &[&str]) -> Output {
    Command::new(PROGRAM).args(arguments).output().expect("run")
}

fn text(bytes: &[u8]) -> String {
    String::from_utf8_lossy(bytes).into_owned()
}

fn exported(host: &Host, complete: bool, redact: bool) -> Vec<String> {
    with_proofs(host, complete, redact, !complete)
}

fn with_proofs(host: &Host, complete: bool, redact: bool, proofs: bool) -> Vec<String> {
    let mut reader = Reader::open(&host.log()).expect("log");
    let mut lines = vec![export::head(&mut reader, complete).expect("head")];
    let indexes = (reader.first()..reader.size()).filter(|index| complete || index % 7 == 0);
    lines.extend(indexes.map(|index| export::line(&mut reader, index, proofs, redact).expect("line")));
    lines
}

fn verify(host: &Host, lines: &[String], redacted: bool) -> Result<export::Export, Finding> {
    let kept = fs::read(host.log().join(CHECKPOINT)).ok();
    let demands = Demands { keys: vec![host.public()], kept, redacted };
    export::verify(&mut lines.join("\n").as_bytes(), &demands)
}

#[test]
fn complete_and_selected_exports_verify() {
    let host = Host::with_records(300, 100);
    let whole = verify(&host, &exported(&host, true, false), false).expect("verifies");
    assert_eq!((whole.records, whole.complete, whole.verified.kept), (300, true, Some(300)));
    let some = verify(&host, &exported(&host, false, false), false).expect("verifies");
    assert_eq!((some.records, some.complete), (43, false));
    let redacted = exported(&host, false, true);
    assert!(!redacted.join("").contains("/workspace"));
    assert!(verify(&host, &redacted, false).is_err());
    // The record that says that the key was made has nothing sealed.
    assert_eq!(verify(&host, &redacted, true).expect("verifies").verified.withheld, 42 * 2);
}

#[test]
fn exports_of_a_log_without_its_oldest_records_say_so() {
    let host = Host::with_records(1_000, 300);
    let (mut store, _) = host.open();
    let to = crate::retention::truncate(&host, &mut store, 200_000).to;
    let lines = exported(&host, true, false);
    let whole = verify(&host, &lines, false).expect("verifies");
    assert_eq!((whole.complete, whole.records), (true, whole.verified.size - to));
    assert_eq!(whole.verified.removed.expect("said").to, to);
    verify(&host, &exported(&host, false, false), false).expect("verifies");
    // Without the record, the first line proves nothing; nor may it say less or other hashes.
    let without: Vec<String> = lines.iter().filter(|line| !line.contains("truncated")).cloned().collect();
    assert!(verify(&host, &without, false).is_err());
    let head: serde_json::Value = serde_json::from_str(&lines[0]).expect("json");
    for (key, value) in [("first", (to - 256).into()), ("before", serde_json::json!([]))] {
        let mut other = (head.clone(), lines.clone());
        other.0[key] = value;
        other.1[0] = other.0.to_string();
        assert!(verify(&host, &other.1, false).is_err(), "{key}");
    }
    let (log, key) = (host.log().display().to_string(), host.public().text());
    let out = run(&["audit", "verify", "--log", &log, "--key", &key]);
    let said = text(&out.stdout);
    let expected =
        format!("records 0..{} removed by retention on 2026-02-03T04:05:06.000000000Z, signed", to - 1);
    assert!(said.contains(&expected) && said.contains(&format!("complete from record {to} to")), "{said}");
    let out = run(&["audit", "search", "--log", &log, "--kind", "truncated"]);
    assert!(text(&out.stdout).contains("truncated"), "{}", text(&out.stderr));
}

#[test]
fn every_change_of_an_export_is_found() {
    let host = Host::with_records(40, 10);
    for complete in [true, false] {
        let lines = exported(&host, complete, false);
        for at in 1..lines.len() {
            let mut other = lines.clone();
            other[at] = other[at].replacen("deny", "allow", 1).replacen("hold", "allow", 1);
            if other[at] != lines[at] {
                assert!(verify(&host, &other, false).is_err(), "changed line {at}");
            }
            let mut other = lines.clone();
            other.insert(at, lines[at].clone());
            assert!(verify(&host, &other, false).is_err(), "doubled line {at}");
            let mut other = lines.clone();
            other.remove(at);
            assert_eq!(verify(&host, &other, false).is_err(), complete, "dropped line {at}");
        }
    }
}

/// The record that a finding names.
fn named(result: Result<export::Export, Finding>) -> u64 {
    match result {
        Err(Finding::Record { index, .. }) => index,
        other => panic!("{other:?}"),
    }
}

#[test]
fn a_complete_export_with_proofs_names_the_record_that_was_changed() {
    let host = Host::with_records(300, 100);
    let lines = with_proofs(&host, true, false, true);
    let whole = verify(&host, &lines, false).expect("verifies");
    assert_eq!((whole.records, whole.complete, whole.verified.kept), (300, true, Some(300)));
    let bare = exported(&host, true, false);
    for at in [2usize, 17, 256, 257, 299, 300] {
        let change = |line: &str| {
            let mut line: serde_json::Value = serde_json::from_str(line).expect("json");
            let leaf =
                line["leaf"].as_str().expect("a leaf").replacen("\"agent\":\"bot", "\"agent\":\"bat", 1);
            assert_ne!(line["leaf"], leaf.as_str(), "nothing to change in line {at}");
            line["leaf"] = leaf.into();
            line.to_string()
        };
        let mut other = lines.clone();
        other[at] = change(&lines[at]);
        assert_eq!(named(verify(&host, &other, false)), at as u64 - 1);
        // Taking its proof away as well leaves only that one to be it; without any proof it is one of all.
        let mut line: serde_json::Value = serde_json::from_str(&other[at]).expect("json");
        line["proof"] = serde_json::json!([]);
        other[at] = line.to_string();
        assert_eq!(named(verify(&host, &other, false)), at as u64 - 1);
        let mut other = bare.clone();
        other[at] = change(&bare[at]);
        assert_eq!(named(verify(&host, &other, false)), 0);
    }
}

#[test]
fn the_commands_verify_prove_and_search() {
    let host = Host::with_records(300, 100);
    let (log, key) = (host.log().display().to_string(), host.public().text());
    let out = run(&["audit", "verify", "--log", &log, "--key", &key]);
    assert_eq!(out.status.code(), Some(0), "{}", text(&out.stderr));
    let said = text(&out.stdout);
    assert_eq!(said, "test/host/0001: complete to record 299 (300 records); later unknown\n");

    let proof = run(&["audit", "prove", "--log", &log, "--index", "17"]);
    assert!(text(&proof.stdout).starts_with("c2sp.org/tlog-proof@v1\nindex 17\n"), "{}", text(&proof.stderr));
    let proof = run(&["--output", "json", "audit", "prove", "--log", &log, "--from", "100"]);
    let proof: serde_json::Value = serde_json::from_slice(&proof.stdout).expect("json");
    assert_eq!((&proof["from"], &proof["size"]), (&100.into(), &300.into()));

    let found =
        run(&["--output", "json", "audit", "search", "--log", &log, "--agent", "bot-1", "--verdict", "deny"]);
    assert_eq!(text(&found.stdout).lines().count(), 50, "{}", text(&found.stderr));
    let last = run(&["audit", "tail", "--log", &log, "-n", "1"]);
    assert!(text(&last.stdout).contains("#299 decision bot-2 hold"), "{}", text(&last.stdout));

    let export = host.dir.path().join("export").display().to_string();
    let lines = run(&["audit", "export", "--log", &log, "--object", "299"]);
    fs::write(&export, &lines.stdout).expect("write");
    let out = run(&["audit", "verify", "--export", &export, "--key", &key]);
    assert!(
        text(&out.stdout).contains("each of the 1 records is in the log of 300"),
        "{}",
        text(&out.stderr)
    );

    let tile = host.log().join("tile/entries/000");
    let mut bytes = fs::read(&tile).expect("read");
    bytes[100] ^= 1;
    fs::write(&tile, bytes).expect("write");
    let out = run(&["audit", "verify", "--log", &log, "--key", &key]);
    assert_eq!(out.status.code(), Some(74));
    assert!(text(&out.stderr).contains("record 0 is the first that is wrong"), "{}", text(&out.stderr));
}
