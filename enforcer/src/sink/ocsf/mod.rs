//! Records as events of the Open Cybersecurity Schema Framework, version 1.8.0. Pure.
//!
//! What a record says is mapped where OCSF has a place for it, and stands in full under `unmapped.record`;
//! `unmapped.integrity` says which leaf of which log it is. Which class a record becomes is in [`classify`].

mod objects;

use super::item::Item;
use objects::{actor, device, file, network, policy, process, rule, string};
use serde_json::{Map, Value, json};

/// The version of the schema.
const VERSION: &str = "1.8.0";

/// A class of events, by its number.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Class {
    Base = 0,
    File = 1001,
    Process = 1007,
    Finding = 2004,
    Authorize = 3003,
    Entity = 3004,
    Network = 4001,
    Lifecycle = 6002,
}

/// An activity that the class has no number for.
const OTHER: u64 = 99;

/// An item as an event.
pub(super) fn event(item: &Item) -> Value {
    let (class, activity) = classify(item);
    let mut out = base(item, class, activity);
    let mut put = |key: &str, value: Value| drop(out.insert(key.to_owned(), value));
    match class {
        Class::File => put("file", file(item)),
        Class::Process => put("process", process(item)),
        Class::Network => network(item).into_iter().for_each(|(key, value)| put(key, value)),
        Class::Finding => put("finding_info", finding(item)),
        Class::Authorize => {
            put("user", json!({"name": string(item, "agent"), "type": "Agent", "type_id": 99}));
            put("privileges", privileges(item));
            if let Some(session) = item.text("session") {
                put("session", json!({"uid": session}));
            }
        }
        Class::Entity => {
            let mut entity = json!({"type": "Policy", "type_id": 5, "name": string(item, "agent")});
            if let Some(policy) = policy(item) {
                entity["policy"] = policy;
            }
            put("entity", entity);
        }
        Class::Lifecycle => put("app", product()),
        Class::Base => {}
    }
    if activity == OTHER {
        put("activity_name", json!(item.text("operation").unwrap_or_else(|| item.kind())));
    }
    if let Some(actor) = actor(item) {
        put("actor", actor);
    } else if matches!(class, Class::File | Class::Process) {
        put("actor", json!({"app_name": "enforcer"}));
    }
    control(item, class, &mut put);
    Value::Object(out)
}

/// Whether a refusal is of what no agent has a reason to try, or should never have been left to the layer that refused.
fn is_alarm(item: &Item) -> bool {
    matches!(item.text("reason"), Some("floor" | "second-layer"))
}

/// The class and the activity in it.
fn classify(item: &Item) -> (Class, u64) {
    let held = item.text("verdict") == Some("hold") || item.text("reason") == Some("held");
    match item.kind() {
        "held" => (Class::Authorize, 1),
        "decision" if held => (Class::Authorize, 1),
        "decision" if is_alarm(item) => (Class::Finding, 1),
        "decision" => operation(item.text("operation").unwrap_or_default(), item),
        "executed" | "arguments" => (Class::Process, 1),
        "alert" | "lost" | "malformed" | "canary" | "log-begun" | "log-failed" | "unreadable"
        | "call-unwatched" | "hooks-brought-back" => (Class::Finding, 1),
        "launched" | "launch-refused" | "session-bound" => (Class::Authorize, 1),
        kind if kind.starts_with("approval") || kind.starts_with("trust") => (Class::Authorize, 1),
        "policy-published" | "policy-tightened" => (Class::Entity, 3),
        "policy-retired" => (Class::Entity, 4),
        "daemon-started" => (Class::Lifecycle, 3),
        "daemon-stopped" => (Class::Lifecycle, 4),
        _ => (Class::Base, OTHER),
    }
}

fn operation(name: &str, item: &Item) -> (Class, u64) {
    let access = item.fields().get("access").and_then(Value::as_array);
    let writes = access.is_some_and(|all| all.iter().any(|right| right == "write"));
    match name {
        "open" if writes => (Class::File, 3),
        "open" => (Class::File, 2),
        "create" | "mkdir" | "symlink" | "link" => (Class::File, 1),
        "unlink" | "rmdir" => (Class::File, 4),
        "rename" => (Class::File, 5),
        "truncate" => (Class::File, 3),
        "setattr" | "xattr" => (Class::File, 6),
        "chmod" | "chown" => (Class::File, 7),
        "mount" | "move-mount" => (Class::File, 12),
        "unmount" => (Class::File, 13),
        "ioctl" | "watch" | "lease" | "chroot" | "pivot-root" => (Class::File, OTHER),
        "exec" | "exec-arguments" => (Class::Process, 1),
        "ptrace" => (Class::Process, 3),
        "map" | "anonymous-exec" | "signal" | "fork" | "limit" | "signal-owner" | "core-dump" => {
            (Class::Process, OTHER)
        }
        "connect" | "unix-connect" => (Class::Network, 1),
        "send" | "unix-send" | "receive" => (Class::Network, 6),
        "listen" => (Class::Network, 7),
        "bind" | "socket" | "socket-option" => (Class::Network, OTHER),
        _ => (Class::Finding, 1),
    }
}

fn base(item: &Item, class: Class, activity: u64) -> Map<String, Value> {
    let class = class as u64;
    let severity = match item.severity() {
        0..=3 => 4,
        4 => 3,
        _ => 1,
    };
    let milliseconds = |text: Option<&str>| {
        let timed = Item::from(json!({"time": text}));
        timed.nanoseconds().map(|n| n / 1_000_000)
    };
    let seq = item.fields().get("seq").and_then(Value::as_u64);
    let log = item.text("log").unwrap_or_default();
    let mut metadata = json!({
        "version": VERSION, "product": product(), "profiles": ["host", "security_control"],
        "log_name": log, "event_code": item.kind(), "log_provider": "enforcer",
    });
    if let Some(seq) = seq {
        metadata["uid"] = json!(format!("{log}/{seq}"));
        metadata["sequence"] = json!(seq);
    }
    if let Some(time) = item.text("time") {
        metadata["original_time"] = json!(time);
    }
    let mut out = json!({
        "activity_id": activity, "category_uid": class / 1000, "class_uid": class,
        "type_uid": class * 100 + activity, "severity_id": severity, "metadata": metadata,
        "time": milliseconds(item.text("time")).unwrap_or(0), "message": item.summary(), "device": device(item),
        "unmapped": {
            "integrity": {
                "log": log, "index": seq, "leaf_hash": item.text("leaf_hash"), "algorithm": "SHA-256",
                "scheme": "RFC 6962 Merkle tree",
            },
            "record": item.fields(),
        },
    });
    if let Some(count) = item.fields().get("count").and_then(Value::as_u64) {
        out["count"] = count.into();
        for (key, from) in [("start_time", "first"), ("end_time", "last")] {
            if let Some(time) = milliseconds(item.text(from)) {
                out[key] = time.into();
            }
        }
    }
    match out {
        Value::Object(out) => out,
        _ => Map::new(),
    }
}

fn product() -> Value {
    json!({"name": "Enforcer", "vendor_name": "Enforcer", "version": env!("CARGO_PKG_VERSION")})
}

/// What was decided: the profile `security_control`.
fn control(item: &Item, class: Class, put: &mut dyn FnMut(&str, Value)) {
    let flags = item.fields().get("flags").and_then(Value::as_array);
    let would = flags.is_some_and(|all| all.iter().any(|flag| flag == "would"));
    let refused = matches!(item.kind(), "launch-refused" | "approval-refused" | "approval-timed-out");
    // Action and disposition: denied and blocked, or observed and detected, or allowed.
    let decided = match (item.kind(), item.text("verdict")) {
        ("decision", Some(_)) if would => Some((3, 15, "would have been denied")),
        ("decision", Some("deny" | "hold")) => Some((2, 2, "denied")),
        ("decision", Some("allow")) | ("executed" | "launched", _) => Some((1, 1, "allowed")),
        _ if refused => Some((2, 2, "refused")),
        _ => None,
    };
    if let Some((action, disposition, decision)) = decided {
        put("action_id", action.into());
        put("disposition_id", disposition.into());
        let mut authorization = json!({"decision": decision});
        if let Some(policy) = policy(item) {
            authorization["policy"] = policy;
        }
        put("authorizations", json!([authorization]));
        if class != Class::Finding {
            put("status_id", if action == 2 { 2 } else { 1 }.into());
        }
    }
    if class == Class::Finding {
        put("status_id", 1.into());
        put("is_alert", (item.kind() == "alert" || is_alarm(item)).into());
    }
    if let Some(error) = item.text("error").or_else(|| item.text("because")) {
        put(if item.text("error").is_some() { "status_code" } else { "status_detail" }, json!(error));
    }
    if let Some(policy) = policy(item) {
        put("policy", policy);
    }
    if let Some(rule) = rule(item) {
        put("firewall_rule", rule);
    }
}

fn finding(item: &Item) -> Value {
    let log = item.text("log").unwrap_or_default();
    let seq = item.fields().get("seq").and_then(Value::as_u64).unwrap_or(0);
    let title = match item.kind() {
        "alert" => format!("alert {}", string(item, "rule")),
        "decision" => format!("{} refused by the {}", string(item, "operation"), string(item, "reason")),
        "lost" => "audit records were lost".to_owned(),
        "canary" => "the proof of enforcement failed".to_owned(),
        kind => format!("audit log: {kind}"),
    };
    json!({
        "uid": format!("{log}/{seq}"), "title": title, "desc": item.summary(), "types": [item.kind()],
        "analytic": {"type_id": 1, "name": string(item, if item.kind() == "alert" { "rule" } else { "reason" })},
    })
}

/// What was asked for.
fn privileges(item: &Item) -> Value {
    let access = item.fields().get("access").and_then(Value::as_array);
    let mut all: Vec<String> = match access {
        Some(access) => access.iter().filter_map(Value::as_str).map(str::to_owned).collect(),
        None => Vec::new(),
    };
    if all.is_empty() {
        all.push(item.text("operation").unwrap_or_else(|| item.kind()).to_owned());
    }
    json!(all)
}

#[cfg(test)]
mod tests;
