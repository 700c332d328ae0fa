//! From an [`Event`] to one JSON object.

use super::{
    decode::{Event, Kind, Malformed},
    text::{escape, plain, rfc3339, session_id},
};
use crate::policy::Trust;
use base64::{Engine as _, prelude::BASE64_STANDARD};
use enforcer_common::{
    event::{NO_AGENT, flag, operation, reason},
    verdict::Verdict,
};
use serde_json::{Map, Value, json};

/// Version of the JSON records.
pub const SCHEMA: u32 = 1;

/// A rule as records name it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct RuleNote {
    /// The rule as the policy has it.
    pub text: String,
    /// The policy's own words on why.
    pub because: Option<String>,
}

/// A policy as records name it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct PolicyNote {
    /// The agent that it is for.
    pub id: String,
    /// The version that it says it has.
    pub version: u64,
    /// SHA-256 of the canonical policy, hexadecimal.
    pub digest: String,
}

/// What the numbers in a record mean: only the daemon knows.
pub trait Context {
    /// The agent in this slot.
    fn agent(&self, slot: u32) -> Option<String>;
    /// The policy with this id.
    fn policy(&self, id: u32) -> Option<PolicyNote>;
    /// The id of break-glass that was in force for the agent in this slot at this boot time.
    fn break_glass(&self, agent: u32, time: u64) -> Option<String>;
    /// The rules that decided; none where nothing allows it. `None`: they cannot be told.
    fn rules(&self, event: &Event<'_>) -> Option<Vec<RuleNote>>;
}

/// An event as JSON. `boot_offset` is what must be added to nanoseconds of boot time to get nanoseconds
/// since 1970.
pub fn event(event: &Event<'_>, boot_offset: i128, context: &dyn Context) -> Value {
    let header = &event.header;
    let mut out = Map::new();
    let mut put = |key: &str, value: Value| drop(out.insert(key.to_owned(), value));
    put("schema", json!(SCHEMA));
    put("time", json!(rfc3339(i128::from(header.time) + boot_offset)));
    put("kind", json!(event.kind.name()));
    put("agent", agent(header.agent, context));
    put("session", if header.session == [0, 0] { Value::Null } else { json!(session_id(header.session)) });
    put("trust", trust(header.trust));
    put("pid", json!(header.pid));
    put("tgid", json!(header.tgid));
    put("ppid", json!(header.parent));
    put("started", json!(header.started));
    put("uid", json!(header.uid));
    put("cgroup", json!(header.cgroup));
    put_bytes(&mut put, "exe", event.exe);
    put_bytes(&mut put, "comm", event.comm);
    if header.operation != 0 {
        put("operation", json!(event.operation()));
        put("access", event.access().collect());
    }
    if event.kind == Kind::Decision || header.verdict != 0 || header.reason != 0 {
        put("verdict", verdict(event));
        put("reason", json!(event.reason()));
    }
    let decided = matches!(event.kind, Kind::Decision | Kind::Held);
    if decided && by_rule(header.reason) {
        put("rule", rules(context.rules(event).as_deref()));
    }
    if let Some(id) = context.break_glass(header.agent, header.time) {
        put("break_glass", json!(id));
    }
    put("policy", policy(header.policy, context));
    put("object", object(event));
    if !event.target.is_empty() {
        put_bytes(&mut put, "target", event.target);
    }
    if header.hold != [0, 0] {
        put("hold", json!(session_id(header.hold)));
    }
    if let Some(argument) = argument(event) {
        put("argument", argument);
    }
    put("error", error(header.error));
    put("flags", flags(header.flags));
    if let Some(raw) = &event.raw {
        put("raw_b64", json!(BASE64_STANDARD.encode(raw)));
    }
    Value::Object(out)
}

/// Identical denials beyond the one that was recorded at once, as JSON: the record of the last one, with how
/// many there were and when.
pub fn repeated(
    event: &Event<'_>,
    count: u64,
    times: [u64; 2],
    boot_offset: i128,
    context: &dyn Context,
) -> Value {
    let mut out = self::event(event, boot_offset, context);
    let [first, last] = times.map(|time| rfc3339(i128::from(time) + boot_offset));
    (out["count"], out["first"], out["last"]) = (count.into(), first.into(), last.into());
    out
}

/// Bytes that were no record, as JSON.
pub fn malformed(error: &Malformed, now: i128) -> Value {
    json!({
        "schema": SCHEMA, "time": rfc3339(now), "kind": "malformed", "why": error.why,
        "raw_b64": BASE64_STANDARD.encode(&error.raw),
    })
}

/// Records of an agent that could not be taken, as JSON: how many since the last such record.
pub fn lost(agent: Option<&str>, decisions: u64, activity: u64, now: i128) -> Value {
    json!({
        "schema": SCHEMA, "time": rfc3339(now), "kind": "lost", "agent": agent,
        "decisions": decisions, "activity": activity,
    })
}

/// Whether rules of the policy are behind a verdict.
fn by_rule(number: u16) -> bool {
    use reason::{GRANTED, HELD, REFUSED, RULE, TIMED_OUT, TOO_MANY};
    matches!(number, RULE | HELD | GRANTED | REFUSED | TIMED_OUT | TOO_MANY)
}

fn agent(slot: u32, context: &dyn Context) -> Value {
    match context.agent(slot) {
        Some(name) => json!(name),
        None if slot == NO_AGENT => Value::Null,
        None => json!(format!("unknown-{slot}")),
    }
}

/// The level of trust that the session had; null where there was none.
fn trust(number: u32) -> Value {
    match (number, Trust::from_number(number)) {
        (0, _) => Value::Null,
        (_, Some(level)) => level.name().into(),
        (_, None) => format!("unknown-{number}").into(),
    }
}

fn verdict(event: &Event<'_>) -> Value {
    match event.verdict {
        Ok(Verdict::Allow) => "allow".into(),
        Ok(Verdict::Hold) => "hold".into(),
        Ok(Verdict::Deny) => "deny".into(),
        Err(number) => format!("unknown-{number}").into(),
    }
}

fn rules(rules: Option<&[RuleNote]>) -> Value {
    let rules = match rules {
        None => return json!("unknown"),
        Some([]) => return "no rule".into(),
        Some(rules) => rules,
    };
    rules.iter().map(|r| json!({"text": escape(r.text.as_bytes()), "because": r.because})).collect()
}

fn policy(id: u32, context: &dyn Context) -> Value {
    match context.policy(id) {
        Some(note) => json!({"id": note.id, "version": note.version, "digest": note.digest}),
        None if id == 0 => Value::Null,
        None => json!({"number": id}),
    }
}

fn object(event: &Event<'_>) -> Value {
    let header = &event.header;
    let mut out = Map::new();
    let mut put = |key: &str, value: Value| drop(out.insert(key.to_owned(), value));
    if matches!(event.kind, Kind::SessionBound | Kind::SessionRemoved | Kind::RootCreated) {
        put("cgroup", json!(header.inode));
        return Value::Object(out);
    }
    if !event.object.is_empty() {
        put_bytes(&mut put, "path", event.object);
    }
    if header.inode != 0 || header.device != 0 {
        // The kernel's own encoding (MAJOR() and MINOR(), include/linux/kdev_t.h).
        put("device", json!(format!("{}:{}", header.device >> 20, header.device & 0xf_ffff)));
        put("inode", json!(header.inode));
    }
    if let Some(endpoint) = event.endpoint() {
        if let Some(address) = endpoint.address {
            put("address", json!(address.to_string()));
            put("port", json!(endpoint.port));
        }
        put("protocol", json!(protocol(endpoint.protocol)));
        put("family", json!(family(endpoint.family)));
    }
    if out.is_empty() { Value::Null } else { Value::Object(out) }
}

/// The bytes as text, and as base64 too where the text is not exactly the bytes.
fn put_bytes(put: &mut dyn FnMut(&str, Value), key: &str, bytes: &[u8]) {
    match plain(bytes) {
        Some(text) => put(key, json!(text)),
        None => {
            put(key, json!(escape(bytes)));
            put(&format!("{key}_b64"), json!(BASE64_STANDARD.encode(bytes)));
        }
    }
}

fn protocol(number: u16) -> String {
    match i32::from(number) {
        libc::IPPROTO_TCP => "tcp".to_owned(),
        libc::IPPROTO_UDP => "udp".to_owned(),
        other => other.to_string(),
    }
}

fn family(number: u16) -> String {
    match i32::from(number) {
        libc::AF_UNIX => "unix".to_owned(),
        libc::AF_INET => "inet".to_owned(),
        libc::AF_INET6 => "inet6".to_owned(),
        libc::AF_NETLINK => "netlink".to_owned(),
        libc::AF_PACKET => "packet".to_owned(),
        other => other.to_string(),
    }
}

fn argument(event: &Event<'_>) -> Option<Value> {
    let argument = event.header.argument;
    match event.header.operation {
        operation::CAPABILITY => {
            let name = CAPABILITIES.get(argument as usize);
            Some(json!(name.map_or_else(|| format!("capability-{argument}"), |n| format!("cap_{n}"))))
        }
        operation::SIGNAL => {
            let signal =
                i32::try_from(argument).ok().and_then(|n| nix::sys::signal::Signal::try_from(n).ok());
            Some(json!(signal.map_or_else(|| argument.to_string(), |s| s.as_str().to_owned())))
        }
        _ if argument != 0 => Some(json!(argument)),
        _ => None,
    }
}

fn error(number: i32) -> Value {
    match number.unsigned_abs() {
        0 => Value::Null,
        n => match i32::try_from(n).map(nix::errno::Errno::from_raw) {
            Ok(errno) if errno != nix::errno::Errno::UnknownErrno => json!(format!("{errno:?}")),
            _ => json!(n.to_string()),
        },
    }
}

fn flags(bits: u16) -> Value {
    const NAMES: [(u16, &str); 8] = [
        (flag::OBJECT_CUT, "object-cut"),
        (flag::EXE_CUT, "exe-cut"),
        (flag::WOULD, "would"),
        (flag::STRAY, "stray"),
        (flag::LAUNCHING, "launching"),
        (flag::FOREIGN, "foreign"),
        (flag::OTHER_NAME, "other-name"),
        (flag::BREAK_GLASS, "break-glass"),
    ];
    let set = (0..16u16).map(|bit| 1 << bit).filter(|bit| bits & bit != 0);
    set.map(|bit| -> Value {
        let name = NAMES.iter().find(|(known, _)| *known == bit);
        name.map_or_else(|| format!("bit-{}", bit.trailing_zeros()).into(), |(_, name)| (*name).into())
    })
    .collect()
}

/// Capabilities by number (include/uapi/linux/capability.h).
const CAPABILITIES: [&str; 41] = [
    "chown",
    "dac_override",
    "dac_read_search",
    "fowner",
    "fsetid",
    "kill",
    "setgid",
    "setuid",
    "setpcap",
    "linux_immutable",
    "net_bind_service",
    "net_broadcast",
    "net_admin",
    "net_raw",
    "ipc_lock",
    "ipc_owner",
    "sys_module",
    "sys_rawio",
    "sys_chroot",
    "sys_ptrace",
    "sys_pacct",
    "sys_admin",
    "sys_boot",
    "sys_nice",
    "sys_resource",
    "sys_time",
    "sys_tty_config",
    "mknod",
    "lease",
    "audit_write",
    "audit_control",
    "setfcap",
    "mac_override",
    "mac_admin",
    "syslog",
    "wake_alarm",
    "block_suspend",
    "audit_read",
    "perfmon",
    "bpf",
    "checkpoint_restore",
];

#[cfg(test)]
mod tests {
    use super::super::decode::tests::record;
    use super::*;

    struct Names;
    impl Context for Names {
        fn break_glass(&self, _: u32, _: u64) -> Option<String> {
            None
        }
        fn agent(&self, slot: u32) -> Option<String> {
            (slot == 3).then(|| "billing-bot".to_owned())
        }
        fn policy(&self, id: u32) -> Option<PolicyNote> {
            (id == 9).then(|| PolicyNote {
                id: "billing-bot".to_owned(),
                version: 7,
                digest: "ab".repeat(32),
            })
        }
        fn rules(&self, event: &Event<'_>) -> Option<Vec<RuleNote>> {
            let note =
                || RuleNote { text: "deny read **/.env".to_owned(), because: Some("secrets".to_owned()) };
            match event.header.states[0] {
                0 => Some(Vec::new()),
                1 => None,
                _ => Some(vec![note()]),
            }
        }
    }

    fn shown(bytes: &[u8]) -> Value {
        event(&Event::try_from(bytes).expect("a record"), 1_000_000_000, &Names)
    }

    #[test]
    fn a_denied_open_names_everything_that_a_reader_asks_for() {
        let value = shown(&record(b"/workspace/.env", b"/usr/bin/cat", |h| {
            (h.agent, h.policy, h.session, h.states[0]) = (3, 9, [1, 2], 64);
            (h.time, h.tgid, h.pid, h.parent, h.uid) = (500_000_000, 10, 11, 1, 1000);
            (h.device, h.inode, h.trust) = (8 << 20 | 1, 77, 2);
        }));
        assert_eq!(value["trust"], "supervised");
        assert_eq!(value["time"], "1970-01-01T00:00:01.500000000Z");
        assert_eq!((&value["kind"], &value["agent"]), (&json!("decision"), &json!("billing-bot")));
        assert_eq!(value["session"], "00000000000000010000000000000002");
        assert_eq!(value["verdict"], "deny");
        assert_eq!(value["reason"], "rule");
        assert_eq!(value["access"], json!(["read"]));
        assert_eq!(value["rule"], json!([{"text": "deny read **/.env", "because": "secrets"}]));
        assert_eq!(value["policy"]["version"], 7);
        assert_eq!(value["object"], json!({"path": "/workspace/.env", "device": "8:1", "inode": 77}));
        assert_eq!(value["error"], "EPERM");
        assert_eq!(value["exe"], "/usr/bin/cat");
        assert_eq!(value["flags"], json!([]));
    }

    #[test]
    fn repeated_denials_say_how_many_and_when() {
        let bytes = record(b"/x", b"", |h| h.time = 3);
        let event = Event::try_from(&bytes[..]).expect("a record");
        let value = repeated(&event, 17, [1, 3], 0, &Names);
        assert_eq!((&value["count"], &value["object"]["path"]), (&json!(17), &json!("/x")));
        assert_eq!(value["first"], "1970-01-01T00:00:00.000000001Z");
        assert_eq!(
            (&value["last"], &value["time"]),
            (&value["time"], &json!("1970-01-01T00:00:00.000000003Z"))
        );
    }

    #[test]
    fn a_denial_without_a_rule_says_so() {
        assert_eq!(shown(&record(b"/x", b"", |_| ()))["rule"], "no rule");
        assert_eq!(shown(&record(b"/x", b"", |h| h.states[0] = 1))["rule"], "unknown");
    }

    #[test]
    fn bytes_that_are_not_plain_text_are_escaped_and_kept() {
        let value = shown(&record(b"/a\n{\"verdict\":\"allow\"}\xff", b"", |_| ()));
        assert_eq!(value["object"]["path"], "/a\\n{\"verdict\":\"allow\"}\\xff");
        let kept = BASE64_STANDARD.decode(value["object"]["path_b64"].as_str().expect("text"));
        assert_eq!(kept.expect("base64"), b"/a\n{\"verdict\":\"allow\"}\xff");
        assert_eq!(value.to_string().lines().count(), 1);
    }

    #[test]
    fn connections_name_address_port_and_protocol() {
        let value = shown(&record(b"", b"", |h| {
            (h.operation, h.family, h.port, h.protocol, h.access) = (operation::CONNECT, 10, 443, 6, 1);
            h.address = std::net::Ipv6Addr::LOCALHOST.octets();
        }));
        assert_eq!(
            value["object"],
            json!({"address": "::1", "port": 443, "protocol": "tcp", "family": "inet6"})
        );
    }

    #[test]
    fn a_new_session_names_its_cgroup() {
        let value = shown(&record(b"", b"", |h| (h.kind, h.inode) = (2, 4711)));
        assert_eq!(value["object"], json!({"cgroup": 4711}));
    }

    #[test]
    fn unknown_numbers_stay_visible() {
        let value = shown(&record(b"", b"", |h| (h.kind, h.agent, h.policy, h.flags) = (42, 5, 6, 0x8001)));
        assert_eq!(value["kind"], "unknown-42");
        assert_eq!(value["agent"], "unknown-5");
        assert_eq!(value["policy"], json!({"number": 6}));
        assert_eq!(value["trust"], Value::Null);
        assert_eq!(shown(&record(b"", b"", |h| h.trust = 9))["trust"], "unknown-9");
        assert_eq!(value["flags"], json!(["object-cut", "bit-15"]));
        assert!(value["raw_b64"].is_string());
    }

    #[test]
    fn capabilities_and_signals_have_names() {
        let cap = shown(&record(b"", b"", |h| (h.operation, h.argument) = (operation::CAPABILITY, 21)));
        assert_eq!(cap["argument"], "cap_sys_admin");
        let signal = shown(&record(b"", b"", |h| (h.operation, h.argument) = (operation::SIGNAL, 9)));
        assert_eq!(signal["argument"], "SIGKILL");
    }
}
