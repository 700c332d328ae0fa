//! Every kind of record, checked against the schema by a validator of others.

use super::*;
use std::{
    io::Write,
    process::{Command, Stdio},
};

const SCRIPT: &str = concat!(env!("CARGO_MANIFEST_DIR"), "/tests/validate_ocsf.py");
/// A Python that has `ocsf-json-schema` and `jsonschema`; `cargo xtask test` sets one up.
const PYTHON: &str = "ENFORCER_TEST_PYTHON";

fn record(fields: Value) -> Item {
    let mut record = json!({
        "schema": 1, "leaf": 1, "time": "2026-01-02T03:04:05.678901234Z", "host": "h0", "boot": "b0", "seq": 41,
        "log": "enforcer-audit/h0/0001", "leaf_hash": "ab".repeat(32),
    });
    for (key, value) in fields.as_object().expect("object") {
        record[key] = value.clone();
    }
    Item::from(record)
}

fn act(operation: &str, reason: &str, object: Value) -> Item {
    record(json!({
        "kind": "decision", "agent": "bot", "session": "0f", "pid": 12, "tgid": 11, "ppid": 1, "started": 99,
        "uid": 1000, "cgroup": 7, "exe": "/usr/bin/python3.11", "comm": "python3", "operation": operation,
        "access": ["write"], "verdict": if reason == "held" { "hold" } else { "deny" }, "reason": reason,
        "rule": [{"text": "deny write /srv/**", "because": "not yours"}], "error": "EPERM", "flags": [],
        "policy": {"id": "bot", "version": 3, "digest": "cd".repeat(32)}, "object": object,
    }))
}

fn all() -> Vec<Item> {
    let path = || json!({"path": "/srv/\u{fc}\\n", "device": "8:1", "inode": 4});
    let mut all: Vec<Item> = enforcer_common::event::operation::ALL
        .iter()
        .flat_map(|(_, name)| {
            [("rule", path()), ("held", path()), ("floor", Value::Null)].map(|(r, o)| act(name, r, o))
        })
        .collect();
    let address = json!({"address": "2001:db8::1", "port": 443, "protocol": "tcp", "family": "inet6"});
    let other = json!({"address": "192.0.2.1", "port": 53, "protocol": "udp", "family": "inet"});
    for name in ["connect", "send", "bind", "listen", "receive", "socket"] {
        all.extend(
            [address.clone(), other.clone(), json!({"protocol": "132", "family": "inet"})]
                .map(|o| act(name, "rule", o)),
        );
    }
    let mut audited = act("open", "rule", path());
    audited.fields.insert("flags".to_owned(), json!(["would"]));
    let mut repeated = act("open", "no-session", path());
    for (key, value) in [("count", json!(7)), ("first", json!("2026-01-02T03:04:05.000000000Z"))] {
        repeated.fields.insert(key.to_owned(), value);
    }
    repeated.fields.insert("last".to_owned(), repeated.fields["time"].clone());
    repeated.fields.insert("policy".to_owned(), json!({"number": 9}));
    repeated.fields.insert("rule".to_owned(), json!("no rule"));
    all.extend([audited, repeated]);
    for kind in ["executed", "entered", "session-bound", "session-armed", "session-removed", "root-created"] {
        let mut item = act("exec", "rule", Value::Null);
        item.fields.insert("kind".to_owned(), json!(kind));
        ["verdict", "reason", "rule"].iter().for_each(|key| drop(item.fields.remove(*key)));
        all.push(item);
    }
    let policy = json!({"id": "bot", "version": 3, "digest": "cd"});
    all.extend(
        [
            json!({"kind": "daemon-started", "version": "1"}),
            json!({"kind": "daemon-stopped", "because": null}),
            json!({"kind": "policy-published", "agent": "bot", "policy": policy}),
            json!({"kind": "policy-retired", "agent": "bot"}),
            json!({"kind": "policy-tightened", "agent": "bot", "policy": policy, "left_open": [], "killed": []}),
            json!({"kind": "policy-problems", "problems": ["x"]}),
            json!({"kind": "launched", "agent": "bot", "session": "0f", "pid": 4, "launcher": {"uid": 0}}),
            json!({"kind": "launch-refused", "agent": "bot", "because": "no", "launcher": {"uid": 0}}),
            json!({"kind": "session-ended", "agent": "bot", "session": "0f"}),
            json!({"kind": "control-refused", "because": "no"}),
            json!({"kind": "approval-refused", "agent": "bot", "session": "0f"}),
            json!({"kind": "held", "agent": "bot", "session": "0f"}),
            json!({"kind": "alert", "rule": "floor", "because": "x", "agent": "bot"}),
            json!({"kind": "lost", "agent": null, "records": 3, "because": "x"}),
            json!({"kind": "canary", "problem": "x"}),
            json!({"kind": "malformed", "why": "x", "raw_b64": ""}),
            json!({"kind": "log-begun", "because": "x"}),
            json!({"kind": "log-failed", "because": "x", "meanwhile": "y"}),
            json!({"kind": "truncated", "because": "bytes", "from": 0, "to": 256, "root": "00"}),
            json!({"kind": "unreadable", "time": null, "records": 1, "because": "x"}),
            json!({"kind": "checkpoint", "size": 1, "root": "00", "note": "x"}),
            json!({"kind": "alive"}),
            json!({"kind": "unknown-99", "agent": "unknown-7", "pid": 1}),
        ]
        .map(record),
    );
    all.push(Item::from(json!({"kind": "decision"})));
    all.push(Item::from(json!({})));
    all
}

#[test]
fn every_kind_of_record_is_valid_in_the_schema() {
    let Some(python) = std::env::var_os(PYTHON) else {
        eprintln!(
            "SKIPPED: {PYTHON} does not name a Python with ocsf-json-schema; `cargo xtask test` sets it"
        );
        return;
    };
    let mut child = Command::new(python)
        .arg(SCRIPT)
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .spawn()
        .expect("Python starts");
    let all = all();
    let mut input = child.stdin.take().expect("piped");
    // Its last words come when it has read everything.
    let lines: String = all.iter().map(|item| format!("{}\n", event(item))).collect();
    let writer = std::thread::spawn(move || input.write_all(lines.as_bytes()));
    let output = child.wait_with_output().expect("waits");
    writer.join().expect("thread").expect("written");
    let text = String::from_utf8_lossy(&output.stdout);
    assert_eq!(text.trim(), format!("ok {} 8", all.len()), "{text}");
    assert!(output.status.success());
}

#[test]
fn the_validator_finds_what_is_wrong() {
    let Some(python) = std::env::var_os(PYTHON) else { return };
    let good = event(&act("open", "rule", json!({"path": "/x"})));
    for (key, value) in
        [("activity_id", json!(77)), ("file", json!({})), ("strange", json!(1)), ("time", json!("x"))]
    {
        let mut event = good.clone();
        event[key] = value;
        let mut child = Command::new(&python)
            .arg(SCRIPT)
            .stdin(Stdio::piped())
            .stdout(Stdio::null())
            .spawn()
            .expect("Python starts");
        let mut input = child.stdin.take().expect("piped");
        input.write_all(format!("{event}\n").as_bytes()).expect("written");
        drop(input);
        assert!(!child.wait().expect("waits").success(), "{key}");
    }
}

#[test]
fn a_denial_says_who_what_by_which_rule_and_which_leaf_it_is() {
    let event = event(&act("open", "rule", json!({"path": "/srv/secret", "device": "8:1", "inode": 4})));
    assert_eq!(
        (&event["class_uid"], &event["activity_id"], &event["type_uid"]),
        (&json!(1001), &json!(3), &json!(100_103))
    );
    assert_eq!((&event["action_id"], &event["disposition_id"]), (&json!(2), &json!(2)));
    assert_eq!((&event["file"]["path"], &event["file"]["uid"]), (&json!("/srv/secret"), &json!("8:1/4")));
    assert_eq!(
        (&event["actor"]["app_name"], &event["actor"]["session"]["uid"]),
        (&json!("bot"), &json!("0f"))
    );
    assert_eq!(
        (&event["firewall_rule"]["name"], &event["policy"]["version"]),
        (&json!("deny write /srv/**"), &json!("3"))
    );
    assert_eq!(
        (&event["unmapped"]["integrity"]["index"], &event["time"]),
        (&json!(41), &json!(1_767_323_045_678u64))
    );
}

#[test]
fn the_floor_is_a_finding_and_a_hold_an_authorization() {
    assert_eq!(event(&act("ptrace", "floor", Value::Null))["class_uid"], 2004);
    assert_eq!(event(&act("open", "held", Value::Null))["class_uid"], 3003);
    assert_eq!(event(&record(json!({"kind": "alert", "rule": "loss"})))["is_alert"], true);
}
