//! From records to a committed log, over restarts.

use super::*;
use crate::log::segments::OnDamage;
use std::collections::BTreeSet;

fn settings(state: &Path) -> Settings {
    let mut settings = Settings::default();
    settings.paths.state = state.to_owned();
    settings.audit.checkpoint_milliseconds = 10;
    settings
}

fn record(n: u64) -> Value {
    json!({"schema": 1, "kind": "decision", "n": n, "object": {"path": format!("/a\n{n}")}})
}

fn lines(state: &Path) -> Vec<Value> {
    let text = fs::read_to_string(state.join("audit/events.jsonl")).expect("lines");
    text.lines().map(|line| serde_json::from_str(line).expect("json")).collect()
}

fn wait_until_committed(recorder: &Recorder, size: u64) {
    let start = Instant::now();
    while recorder.committed() < size {
        assert!(start.elapsed() < Duration::from_secs(120), "{:?}", recorder.ledger.error());
        std::thread::sleep(Duration::from_millis(5));
    }
}

#[test]
fn records_are_committed_soon_and_numbered_in_both_places() {
    let dir = tempfile::tempdir().expect("dir");
    let mut recorder = Recorder::open(&settings(dir.path())).expect("opens");
    (0..600).for_each(|n| recorder.append(&record(n)));
    recorder.flush().expect("flushes");
    // The first record says that the key was made.
    wait_until_committed(&recorder, 601);
    let all = lines(dir.path());
    assert_eq!((all.len(), &all[0]["kind"], &all[600]["seq"]), (601, &json!("key-made"), &json!(600)));
    drop(recorder);
    let log = directory(dir.path()).join("0001");
    for file in ["checkpoint", "tile/0/000", "tile/0/002.p/89", "tile/1/000.p/2", "tile/entries/002.p/89"] {
        assert!(log.join(file).exists(), "{file}");
    }
    assert!(!log.join("tile/0/000.p").exists());
    assert_eq!(fs::metadata(log.join("journal")).expect("journal").len(), 0);
}

#[test]
fn an_alert_is_a_record_right_after_the_one_that_it_is_about() {
    let dir = tempfile::tempdir().expect("dir");
    let mut settings = settings(dir.path());
    settings.alerts.floor = true;
    let mut recorder = Recorder::open(&settings).expect("opens");
    recorder.append(&record(0));
    recorder.append(&json!({"kind": "decision", "agent": "a", "verdict": "deny", "reason": "floor"}));
    drop(recorder);
    let last = lines(dir.path()).pop().expect("a record");
    assert_eq!(
        (&last["kind"], &last["rule"], &last["record"]),
        (&json!("alert"), &json!("floor"), &json!(2))
    );
    assert_eq!(last["seq"], 3);
}

#[test]
fn a_restart_goes_on_and_loses_nothing() {
    let dir = tempfile::tempdir().expect("dir");
    for start in 0..5u64 {
        let mut recorder = Recorder::open(&settings(dir.path())).expect("opens");
        assert_eq!(recorder.next, if start == 0 { 1 } else { 1 + start * 150 });
        (0..150).for_each(|n| recorder.append(&record(n)));
    }
    assert_eq!(segments::list(&directory(dir.path())).expect("list").len(), 1);
}

#[test]
fn a_damaged_log_is_left_alone_and_the_next_one_says_why() {
    let dir = tempfile::tempdir().expect("dir");
    let mut settings = settings(dir.path());
    drop(Recorder::open(&settings).expect("opens"));
    let tile = directory(dir.path()).join("0001/tile/0/000.p/1");
    let before = fs::read(&tile).expect("tile");
    fs::write(&tile, [0; 32]).expect("write");
    settings.audit.on_damage = OnDamage::Refuse;
    let error = Recorder::open(&settings).err().expect("refused");
    assert!(error.is_damage() && error.to_string().contains("root that was signed"), "{error}");
    settings.audit.on_damage = OnDamage::NewLog;
    drop(Recorder::open(&settings).expect("opens"));
    assert_eq!(fs::read(&tile).expect("tile"), [0; 32]);
    let said = lines(dir.path()).pop().expect("a record");
    assert_eq!((&said["kind"], &said["previous"]["size"]), (&json!("log-begun"), &json!(1)));
    // The new log is the one that is continued from now on.
    drop(Recorder::open(&settings).expect("opens"));
    assert_eq!(segments::list(&directory(dir.path())).expect("list").len(), 2);
    assert_ne!(before, [0; 32]);
}

#[test]
fn a_replaced_key_hands_over_and_then_signs_alone() {
    let dir = tempfile::tempdir().expect("dir");
    let settings = settings(dir.path());
    drop(Recorder::open(&settings).expect("opens"));
    let key = secret_key(&settings);
    let new = crate::log::key::replace(&key).expect("replaced");
    drop(Recorder::open(&settings).expect("opens"));
    assert_eq!(lines(dir.path()).pop().expect("a record")["kind"], "key-handover");
    assert!(!key.with_extension("previous").exists());
    let log = directory(dir.path()).join("0001/checkpoint");
    let signatures = || fs::read_to_string(&log).expect("text").matches('\u{2014}').count();
    assert_eq!(signatures(), 2);
    let mut recorder = Recorder::open(&settings).expect("opens");
    recorder.append(&record(0));
    drop(recorder);
    assert_eq!(signatures(), 1);
    assert_eq!(fs::read_to_string(public_key(dir.path())).expect("text").trim(), new.text());
}

#[test]
fn the_oldest_records_go_when_there_are_too_many_and_never_before_that_is_said() {
    let dir = tempfile::tempdir().expect("dir");
    let mut settings = settings(dir.path());
    // Less than the settings file may say: it is for the test.
    settings.audit.max_bytes = 100_000;
    let mut recorder = Recorder::open(&settings).expect("opens");
    (0..1_500).for_each(|n| recorder.append(&record(n)));
    recorder.flush().expect("flushes");
    // Else what was not written yet would be taken for what was removed.
    wait_until_committed(&recorder, 1_501);
    let log = directory(dir.path()).join("0001");
    let begun = Instant::now();
    while log.join("tile/entries/000").exists() {
        recorder.flush().expect("flushes");
        assert!(begun.elapsed() < Duration::from_secs(120), "nothing was removed");
        std::thread::sleep(Duration::from_millis(10));
    }
    drop(recorder);
    // A first part may go before all is written, on a busy machine.
    let all: Vec<Value> =
        lines(dir.path()).into_iter().filter(|record| record["kind"] == "truncated").collect();
    let said = all.first().expect("a record");
    assert_eq!(
        (&said["from"], &said["because"], &said["max_bytes"]),
        (&json!(0), &json!("bytes"), &json!(100_000))
    );
    assert_eq!(said["settings"].as_str().expect("digest").len(), 64);
    // Over a restart, with what is left.
    let recorder = Recorder::open(&settings).expect("opens");
    let keys = vec![recorder_key(dir.path())];
    drop(recorder);
    let demands = crate::log::verify::Demands { keys, ..Default::default() };
    let verified = crate::log::verify::directory(&log, &demands).expect("verifies");
    let removed = verified.removed.expect("said").to;
    assert!(all.iter().any(|said| said["to"] == removed), "{removed}: {all:?}");
}

fn recorder_key(state: &Path) -> crate::log::note::PublicKey {
    let text = fs::read_to_string(public_key(state)).expect("text");
    crate::log::note::PublicKey::parse(&text).expect("key")
}

/// The rows of the table of kinds in the documentation.
fn documented() -> BTreeSet<&'static str> {
    let page = include_str!("../../../../docs/records.md");
    let (_, table) = page.split_once("## Kinds").expect("a section");
    let rows =
        table.lines().skip_while(|line| !line.starts_with('|')).take_while(|line| line.starts_with('|'));
    rows.skip(2).filter_map(|row| row.strip_prefix("| `")?.split_once('`').map(|(kind, _)| kind)).collect()
}

#[test]
fn every_kind_of_record_is_documented_and_nothing_else_is() {
    let known: BTreeSet<&str> =
        kinds::KERNEL.iter().chain(kinds::DAEMON).copied().chain(["unknown-N"]).collect();
    assert_eq!(documented(), known);
    for number in 1..=enforcer_common::event::kind::ARGUMENTS {
        let kind = crate::event::decode::Kind::from_number(number);
        assert!(kinds::KERNEL.contains(&&*kind.name()) || kind.name() == "loading", "{kind:?}");
    }
}

/// What stands behind these words in the sources, as far as it is a literal.
#[test]
fn every_kind_that_the_sources_name_is_known() {
    let mut sources = vec![PathBuf::from(concat!(env!("CARGO_MANIFEST_DIR"), "/src"))];
    let mut found = BTreeSet::new();
    while let Some(path) = sources.pop() {
        if path.is_dir() {
            sources.extend(fs::read_dir(&path).expect("list").map(|entry| entry.expect("entry").path()));
            continue;
        }
        // Alerts' rules are said by another function of that name, and this file has these words as text.
        if path.ends_with("audit/alerts.rs") || path.ends_with("audit/tests/recorder.rs") {
            continue;
        }
        let text = fs::read_to_string(&path).expect("read");
        for call in [".record(", ".own(", ".say(", "Record("] {
            for (at, _) in text.match_indices(call) {
                let argument = text[at + call.len()..].trim_start();
                found.extend(
                    argument.strip_prefix('"').and_then(|rest| rest.split('"').next()).map(str::to_owned),
                );
            }
        }
    }
    let unknown: Vec<&String> = found.iter().filter(|kind| !kinds::is_known(kind)).collect();
    assert!(found.len() > 15 && unknown.is_empty(), "{unknown:?} of {found:?}");
}

#[test]
fn what_a_log_had_last_is_known_to_the_next_daemon() {
    let dir = tempfile::tempdir().expect("dir");
    let open = || Recorder::open(&settings(dir.path())).expect("log");
    let mut first = open();
    assert_eq!(first.previous(), None);
    first.append(&json!({"kind": "daemon-stopped", "time": "2026-01-02T03:04:05Z"}));
    let seq = first.taken() - 1;
    drop(first);
    let expected = json!({"kind": "daemon-stopped", "time": "2026-01-02T03:04:05Z", "seq": seq});
    assert_eq!(open().previous(), Some(expected));
}
