//! From an [`Event`] to one JSON object.

pub use super::context::{Context, Launcher, PolicyNote, RuleNote, SessionNote, SessionOf};

use super::{
    call,
    decode::{Event, Kind, Malformed},
    flat::{Flat, Members, array, optional, string, value},
    names,
    text::{escape, plain, put_hex, put_rfc3339, rfc3339},
};
use crate::policy::Trust;
use base64::{Engine as _, prelude::BASE64_STANDARD};
use enforcer_common::{
    calls::QUOTA,
    event::{Above, NO_AGENT, operation, reason},
    verdict::Verdict,
};
use serde_json::{Value, json};

/// Version of the JSON records.
pub const SCHEMA: u32 = 1;

/// An event as JSON. `boot_offset` is what must be added to nanoseconds of boot time to get nanoseconds
/// since 1970.
pub fn event(event: &Event<'_>, boot_offset: i128, context: &dyn Context) -> Value {
    let mut flat = Flat::default();
    write(event, None, boot_offset, context, &mut flat);
    Value::Object(flat.to_map())
}

/// Identical denials beyond the one that was recorded at once: how many, and when the first and the last were.
#[derive(Clone, Copy, Debug)]
pub struct Repeats {
    /// How many.
    pub count: u64,
    /// Boot time of the first.
    pub first: u64,
    /// Boot time of the last.
    pub last: u64,
}

/// As [`event`], into `out`, which is cleared before.
pub fn write(
    event: &Event<'_>,
    repeats: Option<Repeats>,
    boot_offset: i128,
    context: &dyn Context,
    out: &mut Flat,
) {
    out.clear();
    let header = &event.header;
    let sessions = context.sessions();
    let empty = SessionNote::default();
    let session = sessions.session(header.session).unwrap_or(&empty);
    let time = |out: &mut Vec<u8>, boot: u64| {
        out.push(b'"');
        put_rfc3339(out, i128::from(boot) + boot_offset);
        out.push(b'"');
    };
    let decides = event.kind == Kind::Decision || header.verdict != 0 || header.reason != 0;
    let by_rule = matches!(event.kind, Kind::Decision | Kind::Held) && by_rule(header.reason);

    // In the order of the keys.
    if header.operation != 0 {
        out.put("access", |out| array(out, event.access(), |out, name| string(out, &name)));
    }
    out.put("agent", |out| agent(out, header.agent, context));
    out.put("ancestry", |out| ancestry(out, event, sessions));
    if let Some(argument) = argument(event) {
        out.put("argument", |out| value(out, &argument));
    }
    if let Some(id) = context.break_glass(header.agent, header.time) {
        out.put("break_glass", |out| string(out, &id));
    }
    if event.kind == Kind::SystemCall {
        call::put(out, event);
    }
    out.put("cgroup", |out| value(out, &header.cgroup));
    put_bytes(out, ["comm", "comm_b64"], event.comm);
    out.put("container", |out| optional(out, session.container.as_deref()));
    if let Some(repeats) = repeats {
        out.put("count", |out| value(out, &repeats.count));
    }
    out.put("error", |out| optional(out, names::error(header.error).as_deref()));
    put_bytes(out, ["exe", "exe_b64"], event.exe);
    if let Some(repeats) = repeats {
        out.put("first", |out| time(out, repeats.first));
    }
    out.put("flags", |out| array(out, names::flags(header.flags), |out, name| string(out, &name)));
    if header.hold != [0, 0] {
        out.put("hold", |out| id(out, header.hold));
    }
    out.put("kind", |out| string(out, &event.kind.name()));
    if let Some(repeats) = repeats {
        out.put("last", |out| time(out, repeats.last));
    }
    out.put("launcher", |out| launcher(out, session.launcher));
    out.put_object("object", |object| put_object(object, event));
    if header.operation != 0 {
        out.put("operation", |out| string(out, &event.operation()));
    }
    out.put("parent_session", |out| optional(out, session.parent.as_deref()));
    out.put("pid", |out| value(out, &header.pid));
    out.put("policy", |out| policy(out, header.policy, context));
    out.put("ppid", |out| value(out, &header.parent));
    if let Some(raw) = &event.raw {
        out.put("raw_b64", |out| string(out, &BASE64_STANDARD.encode(raw)));
    }
    if decides {
        out.put("reason", |out| string(out, &event.reason()));
    }
    if by_rule {
        out.put("rule", |out| rules(out, context.rules(event).as_deref()));
    }
    out.put("schema", |out| value(out, &SCHEMA));
    out.put("session", |out| match header.session {
        [0, 0] => out.extend(b"null"),
        session => id(out, session),
    });
    out.put("started", |out| value(out, &header.started));
    if !event.target.is_empty() && !matches!(event.kind, Kind::Executed | Kind::SystemCall) {
        put_bytes(out, ["target", "target_b64"], event.target);
    }
    out.put("task", |out| match &session.task {
        Some(task) => string(out, &escape(task.as_bytes())),
        None => out.extend(b"null"),
    });
    out.put("tgid", |out| value(out, &header.tgid));
    out.put("time", |out| time(out, header.time));
    out.put("trust", |out| trust(out, header.trust));
    out.put("uid", |out| value(out, &header.uid));
    if decides {
        out.put("verdict", |out| verdict(out, event));
    }
}

/// Puts the arguments that a program was executed with into its record: `total` bytes, of which these are known.
pub fn put_arguments(record: &mut Value, bytes: &[u8], total: usize) {
    let Some(record) = record.as_object_mut() else { return };
    if total == 0 {
        return;
    }
    let bytes = &bytes[..bytes.len().min(total)];
    // Each ends with a zero byte; the last one does not where something is missing.
    let arguments = bytes.strip_suffix(b"\0").unwrap_or(bytes).split(|byte| *byte == 0);
    let shown: Vec<Value> = arguments.map(|argument| escape(argument).into()).collect();
    record.insert("argv".to_owned(), if bytes.is_empty() { Value::Null } else { shown.into() });
    if !bytes.split(|byte| *byte == 0).all(|argument| plain(argument).is_some()) {
        record.insert("argv_b64".to_owned(), BASE64_STANDARD.encode(bytes).into());
    }
    if bytes.len() < total {
        record.insert("argv_missing".to_owned(), (total - bytes.len()).into());
    }
}

/// Bytes that were no record, as JSON.
pub fn malformed(error: &Malformed, now: i128) -> Value {
    json!({
        "schema": SCHEMA, "time": rfc3339(now), "kind": "malformed", "why": error.why,
        "raw_b64": BASE64_STANDARD.encode(&error.raw),
    })
}

/// Records of an agent that could not be taken between these times, as JSON.
pub fn lost(agent: Option<&str>, decisions: u64, activity: u64, between: [i128; 2]) -> Value {
    let [from, to] = between.map(rfc3339);
    json!({
        "schema": SCHEMA, "time": to, "kind": "lost", "agent": agent, "decisions": decisions,
        "activity": activity, "from": from, "to": to, "because": "the kernel's ring was full",
    })
}

/// System calls of an agent beyond those that are recorded in a second, as JSON.
pub fn calls_beyond(agent: Option<&str>, calls: u64, between: [i128; 2]) -> Value {
    let [from, to] = between.map(rfc3339);
    json!({
        "schema": SCHEMA, "time": to, "kind": "lost", "agent": agent, "calls": calls, "from": from, "to": to,
        "because": format!("more system calls than {QUOTA} of a session in a second"),
    })
}

/// Whether rules of the policy are behind a verdict.
fn by_rule(number: u16) -> bool {
    use reason::{GRANTED, HELD, REFUSED, RULE, TIMED_OUT, TOO_MANY};
    matches!(number, RULE | HELD | GRANTED | REFUSED | TIMED_OUT | TOO_MANY)
}

fn id(out: &mut Vec<u8>, id: [u64; 2]) {
    out.push(b'"');
    id.iter().for_each(|half| put_hex(out, &half.to_be_bytes()));
    out.push(b'"');
}

fn agent(out: &mut Vec<u8>, slot: u32, context: &dyn Context) {
    match context.agent(slot) {
        Some(name) => string(out, &name),
        None if slot == NO_AGENT => out.extend(b"null"),
        None => string(out, &format!("unknown-{slot}")),
    }
}

fn launcher(out: &mut Vec<u8>, launcher: Option<Launcher>) {
    match launcher {
        Some(Launcher { uid, pid }) => out.extend(format!("{{\"pid\":{pid},\"uid\":{uid}}}").into_bytes()),
        None => out.extend(b"null"),
    }
}

/// The level of trust that the session had; null where there was none.
fn trust(out: &mut Vec<u8>, number: u32) {
    match (number, Trust::from_number(number)) {
        (0, _) => out.extend(b"null"),
        (_, Some(level)) => string(out, level.name()),
        (_, None) => string(out, &format!("unknown-{number}")),
    }
}

fn verdict(out: &mut Vec<u8>, event: &Event<'_>) {
    match event.verdict {
        Ok(Verdict::Allow) => string(out, "allow"),
        Ok(Verdict::Hold) => string(out, "hold"),
        Ok(Verdict::Deny) => string(out, "deny"),
        Err(number) => string(out, &format!("unknown-{number}")),
    }
}

fn rules(out: &mut Vec<u8>, rules: Option<&[RuleNote]>) {
    match rules {
        None => string(out, "unknown"),
        Some([]) => string(out, "no rule"),
        Some(rules) => array(out, rules.iter(), |out, rule| {
            out.extend(b"{\"because\":");
            optional(out, rule.because.as_deref());
            out.extend(b",\"text\":");
            string(out, &escape(rule.text.as_bytes()));
            out.push(b'}');
        }),
    }
}

fn policy(out: &mut Vec<u8>, id: u32, context: &dyn Context) {
    match context.policy(id) {
        Some(note) => {
            out.extend(b"{\"digest\":");
            string(out, &note.digest);
            out.extend(b",\"id\":");
            string(out, &note.id);
            out.extend(b",\"version\":");
            value(out, &note.version);
            out.push(b'}');
        }
        None if id == 0 => out.extend(b"null"),
        None => value(out, &json!({"number": id})),
    }
}

/// The processes above, the nearest first. The numbers are the kernel's at the moment of the act; programs are those
/// that earlier records told of, null where none did: outside every session, or where a child has executed nothing.
fn ancestry(out: &mut Vec<u8>, event: &Event<'_>, sessions: &dyn SessionOf) {
    let above = &event.header.above;
    let known = above.iter().take_while(|above| above.tgid != 0).map(Some);
    let more = above.last().is_some_and(|last| last.tgid > 1).then_some(None);
    array(out, known.chain(more), |out, above| match above {
        Some(Above { tgid, started, .. }) => {
            let exe = sessions.program(*tgid, *started);
            out.extend(b"{\"exe\":");
            match exe.map(|exe| (exe, plain(exe))) {
                None => out.extend(b"null"),
                Some((_, Some(text))) => string(out, text),
                Some((exe, None)) => {
                    string(out, &escape(exe));
                    out.extend(b",\"exe_b64\":");
                    string(out, &BASE64_STANDARD.encode(exe));
                }
            }
            out.extend(b",\"pid\":");
            value(out, tgid);
            out.extend(b",\"started\":");
            value(out, started);
            out.push(b'}');
        }
        None => out.extend(b"{\"more\":true}"),
    });
}

fn put_object(out: &mut Members<'_>, event: &Event<'_>) {
    let header = &event.header;
    if matches!(event.kind, Kind::SessionBound | Kind::SessionRemoved | Kind::RootCreated) {
        return out.put("cgroup", |out| value(out, &header.inode));
    }
    let endpoint = event.endpoint();
    let address = endpoint.as_ref().and_then(|endpoint| endpoint.address);
    if let Some(address) = address {
        out.put("address", |out| string(out, &address.to_string()));
    }
    let known = header.inode != 0 || header.device != 0;
    if known {
        // The kernel's own encoding (MAJOR() and MINOR(), include/linux/kdev_t.h).
        let (major, minor) = (header.device >> 20, header.device & 0xf_ffff);
        out.put("device", |out| string(out, &format!("{major}:{minor}")));
    }
    if let Some(endpoint) = &endpoint {
        out.put("family", |out| string(out, &names::family(endpoint.family)));
    }
    if known {
        out.put("inode", |out| value(out, &header.inode));
    }
    if !event.object.is_empty() {
        match plain(event.object) {
            Some(text) => out.put("path", |out| string(out, text)),
            None => {
                out.put("path", |out| string(out, &escape(event.object)));
                out.put("path_b64", |out| string(out, &BASE64_STANDARD.encode(event.object)));
            }
        }
    }
    if let Some(endpoint) = &endpoint {
        if address.is_some() {
            out.put("port", |out| value(out, &endpoint.port));
        }
        out.put("protocol", |out| string(out, &names::protocol(endpoint.protocol)));
    }
}

/// The bytes as text, and as base64 too where the text is not exactly the bytes.
fn put_bytes(out: &mut Flat, [key, key_b64]: [&'static str; 2], bytes: &[u8]) {
    match plain(bytes) {
        Some(text) => out.put(key, |out| string(out, text)),
        None => {
            out.put(key, |out| string(out, &escape(bytes)));
            out.put(key_b64, |out| string(out, &BASE64_STANDARD.encode(bytes)));
        }
    }
}

fn argument(event: &Event<'_>) -> Option<Value> {
    let argument = event.header.argument;
    match event.header.operation {
        _ if matches!(event.kind, Kind::Executed | Kind::SystemCall) => None,
        operation::CAPABILITY => Some(names::capability(argument).into()),
        operation::SIGNAL => Some(names::signal(argument).into()),
        _ if argument != 0 => Some(argument.into()),
        _ => None,
    }
}

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
        let mut flat = Flat::default();
        write(&event, Some(Repeats { count: 17, first: 1, last: 3 }), 0, &Names, &mut flat);
        let value = Value::Object(flat.to_map());
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
