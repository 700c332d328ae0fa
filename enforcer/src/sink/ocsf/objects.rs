//! The objects inside OCSF events. Pure.

use crate::sink::item::Item;
use serde_json::{Map, Value, json};

/// The text in a field; "unknown" where there is none.
pub(super) fn string(item: &Item, key: &str) -> String {
    item.text(key).unwrap_or("unknown").to_owned()
}

fn number(item: &Item, key: &str) -> Option<u64> {
    item.fields().get(key)?.as_u64()
}

fn in_object<'a>(item: &'a Item, key: &str) -> Option<&'a Value> {
    item.fields().get("object")?.get(key)
}

/// The host.
pub(super) fn device(item: &Item) -> Value {
    let mut out = json!({"type_id": 1, "type": "Server", "uid": string(item, "host")});
    if let Some(boot) = item.text("boot") {
        out["boot_uid"] = json!(boot);
    }
    out
}

/// Who acted: the agent as application, its session, and the process.
pub(super) fn actor(item: &Item) -> Option<Value> {
    let mut out = Map::new();
    if let Some(agent) = item.text("agent") {
        out.insert("app_name".to_owned(), json!(agent));
    }
    if let Some(session) = item.text("session") {
        out.insert("session".to_owned(), json!({"uid": session}));
    }
    if number(item, "tgid").is_some() || number(item, "pid").is_some() {
        out.insert("process".to_owned(), acting(item));
    }
    let launcher =
        item.fields().get("launcher").and_then(|launcher| launcher.get("uid")).and_then(Value::as_u64);
    if let Some(uid) = number(item, "uid").or(launcher) {
        let mut user = json!({"uid": uid.to_string()});
        if let Some(owner) = item.text("owner") {
            user["name"] = json!(owner);
        }
        out.insert("user".to_owned(), user);
    }
    (!out.is_empty()).then_some(Value::Object(out))
}

/// The process that acted.
fn acting(item: &Item) -> Value {
    let pid = number(item, "tgid").or_else(|| number(item, "pid")).unwrap_or(0);
    let mut out = json!({"pid": pid});
    if let Some(tid) = number(item, "pid").filter(|_| number(item, "tgid").is_some()) {
        out["tid"] = tid.into();
    }
    if let Some(started) = number(item, "started") {
        // Unique on this host between two boots.
        out["uid"] = json!(format!("{}/{pid}/{started}", item.text("boot").unwrap_or_default()));
    }
    if let Some(name) = item.text("comm") {
        out["name"] = json!(name);
    }
    if let Some(exe) = item.text("exe").filter(|exe| !exe.is_empty()) {
        out["file"] = json!({"path": exe, "name": last(exe), "type_id": 8});
    }
    if let Some(parent) = number(item, "ppid") {
        out["parent_process"] = json!({"pid": parent});
    }
    out
}

/// The process that something was done to.
pub(super) fn process(item: &Item) -> Value {
    match (item.kind(), in_object(item, "path").and_then(Value::as_str)) {
        // The new program of the process that asks for it.
        ("decision", Some(path)) => {
            let mut out = acting(item);
            out["file"] = json!({"path": path, "name": last(path), "type_id": 8});
            out
        }
        _ => acting(item),
    }
}

/// The file that something was done to.
pub(super) fn file(item: &Item) -> Value {
    let path = in_object(item, "path").and_then(Value::as_str);
    let mut out = json!({"name": path.map_or("unknown", last), "type_id": 0});
    if let Some(path) = path {
        out["path"] = json!(path);
    }
    let place =
        (in_object(item, "device").and_then(Value::as_str), in_object(item, "inode").and_then(Value::as_u64));
    if let (Some(device), Some(inode)) = place {
        out["uid"] = json!(format!("{device}/{inode}"));
    }
    if matches!(item.text("operation"), Some("mkdir" | "rmdir")) {
        out["type_id"] = 2.into();
    }
    out
}

/// The ends of a connection.
pub(super) fn network(item: &Item) -> Vec<(&'static str, Value)> {
    let operation = item.text("operation").unwrap_or_default();
    let own = matches!(operation, "bind" | "listen" | "receive");
    let mut end = Map::new();
    if let Some(address) = in_object(item, "address").and_then(Value::as_str) {
        end.insert("ip".to_owned(), json!(address));
        if let Some(port) = in_object(item, "port").filter(|port| port.is_u64()) {
            end.insert("port".to_owned(), port.clone());
        }
    }
    if end.is_empty() {
        let name = in_object(item, "path").and_then(Value::as_str).unwrap_or("unknown");
        end.insert("name".to_owned(), json!(name));
    }
    let mut info = json!({"direction_id": if own { 1 } else { 2 }});
    let family = in_object(item, "family").and_then(Value::as_str);
    if family == Some("unix") || operation.starts_with("unix") {
        info["direction_id"] = 4.into();
    }
    match in_object(item, "protocol").and_then(Value::as_str) {
        Some(name @ "tcp") => (info["protocol_name"], info["protocol_num"]) = (name.into(), 6.into()),
        Some(name @ "udp") => (info["protocol_name"], info["protocol_num"]) = (name.into(), 17.into()),
        Some(other) => info["protocol_name"] = other.into(),
        None => {}
    }
    match family {
        Some("inet") => info["protocol_ver_id"] = 4.into(),
        Some("inet6") => info["protocol_ver_id"] = 6.into(),
        _ => {}
    }
    let side = if own { "src_endpoint" } else { "dst_endpoint" };
    vec![(side, Value::Object(end)), ("connection_info", info)]
}

/// The policy that decided.
pub(super) fn policy(item: &Item) -> Option<Value> {
    let policy = item.fields().get("policy")?;
    let mut out = Map::new();
    for (key, from) in [("name", "id"), ("uid", "digest")] {
        if let Some(text) = policy.get(from).and_then(Value::as_str) {
            out.insert(key.to_owned(), json!(text));
        }
    }
    if let Some(version) = policy.get("version").and_then(Value::as_u64) {
        out.insert("version".to_owned(), json!(version.to_string()));
    }
    if out.is_empty() {
        let number = policy.get("number").and_then(Value::as_u64)?;
        out.insert("uid".to_owned(), json!(format!("number {number}")));
    }
    Some(Value::Object(out))
}

/// The rule that decided.
pub(super) fn rule(item: &Item) -> Option<Value> {
    let reason = item.text("reason").filter(|_| item.kind() == "decision")?;
    let rule = item.fields().get("rule");
    let first = rule.and_then(Value::as_array).and_then(|rules| rules.first());
    let name = first
        .and_then(|rule| rule.get("text")?.as_str())
        .or_else(|| rule.and_then(Value::as_str))
        .unwrap_or(reason);
    let mut out = json!({"name": name, "type": reason});
    if let Some(because) = first.and_then(|rule| rule.get("because")?.as_str()) {
        out["desc"] = json!(because);
    }
    Some(out)
}

/// The last part of a path.
fn last(path: &str) -> &str {
    path.trim_end_matches('/').rsplit('/').next().filter(|name| !name.is_empty()).unwrap_or(path)
}
