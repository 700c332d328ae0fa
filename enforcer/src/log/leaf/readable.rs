//! Which texts of a record may stand in its leaf for everybody who gets a copy. What is not named here is sealed, so
//! that a field that is added some day is at worst withheld.
//!
//! Readable is what the Enforcer or the kernel has chosen from a fixed set, what is an id, a digest, a key or a time,
//! network addresses, and what policies and settings name: agents, rules, approvers, sinks. Paths, arguments, names that
//! processes give themselves, errors (which name files) and words of people and agents are not.

use crate::event::kinds;
use serde_json::{Map, Value};

/// What of a field is readable.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Readable {
    /// All of it.
    All,
    /// Of an object, these members. Any other text is sealed as a whole.
    Members(&'static [&'static str]),
    /// Only what has no text in it.
    Nothing,
}

/// What is readable of this field in records of this kind.
pub(super) fn of(kind: &str, key: &str) -> Readable {
    let all = match key {
        // Of the kernel's records a word; a person's words where a person has decided.
        "reason" => kinds::KERNEL.contains(&kind),
        _ => {
            let alike = |(field, kinds): &(&str, &[&str])| *field == key && kinds.contains(&kind);
            ALL.binary_search(&key).is_ok() || OF_KIND.iter().any(alike)
        }
    };
    match MEMBERS.iter().find(|(field, _)| *field == key) {
        _ if all => Readable::All,
        Some((_, members)) => Readable::Members(members),
        None => Readable::Nothing,
    }
}

/// The kind of a record, as [`of`] wants to hear it.
pub(super) fn kind_of(record: &Map<String, Value>) -> &str {
    let text = |key: &str| record.get(key).and_then(Value::as_str);
    match (text("kind"), text("rule")) {
        // What this alert says has a person's words in it.
        (Some("alert"), Some("break-glass")) => "",
        (kind, _) => kind.unwrap_or_default(),
    }
}

/// In records of all kinds, in the order of the alphabet.
const ALL: [&str; 56] = [
    "access",
    "after",
    "agent",
    "agents",
    "argument",
    "before",
    "break_glass",
    "ceiling",
    "cgroup",
    "container",
    "end",
    "enforcement",
    "error",
    "first",
    "first_uses_of",
    "flags",
    "follows",
    "from",
    "function",
    "hold",
    "image",
    "in_force",
    "in_force_before",
    "killed",
    "kind",
    "last",
    "layer",
    "meanwhile",
    "note",
    "on_tighten",
    "operation",
    "outcome",
    "owner",
    "parent_session",
    "policy",
    "previous",
    "public",
    "request",
    "rule",
    "schema",
    "scope",
    "session",
    "settings",
    "sink",
    "source",
    "started",
    "state",
    "still_ending",
    "summary",
    "time",
    "to",
    "trust",
    "verdict",
    "version",
    "why",
    "witness",
];

/// Where the same name means something else in other records.
const OF_KIND: [(&str, &[&str]); 4] = [
    // One of a few sentences, with numbers and names of agents.
    (
        "because",
        &[
            "alert",
            "approval-ended",
            "approval-justified",
            "approval-refused",
            "approval-timed-out",
            "approval-withdrawn",
            "approvals-silenced",
            "lost",
            "truncated",
        ],
    ),
    // The name of a call.
    ("call", &["call-unwatched"]),
    // Names of the Enforcer's programs.
    ("hooks", &["hooks-brought-back"]),
    // The digest of a tree; elsewhere a directory.
    ("root", &["truncated"]),
];

/// Of objects, these members.
const MEMBERS: [(&str, &[&str]); 7] = [
    ("by", &["by", "key", "login_uid", "name", "person", "pid", "uid"]),
    ("call", &["arguments", "bits", "name", "number", "result", "then"]),
    ("hooks", &["attached", "waiting"]),
    ("launcher", PERSON),
    ("object", &["address", "cgroup", "device", "family", "inode", "port", "protocol"]),
    ("peer", PERSON),
    ("run_as", PERSON),
];

/// Who somebody is to the kernel.
const PERSON: &[&str] = &["gid", "name", "pid", "uid"];

#[cfg(test)]
mod tests {
    use super::*;
    use crate::log::leaf::{Place, open, seal};
    use serde_json::json;

    /// Stands wherever there can be a path, an argument, or words of people, agents and errors.
    const M: &str = "/srv/marker";

    /// A record of each kind, with all of its fields that can carry such text.
    fn records() -> Vec<(&'static str, Value)> {
        let object = json!({"path": M, "path_b64": M, "name": M, "name_b64": M, "inode": 7, "port": 443});
        let mut kernel = json!({
            "agent": "bot", "ancestry": [{"exe": M, "exe_b64": M, "pid": 1}], "comm": M, "comm_b64": M, "exe": M,
            "exe_b64": M, "object": object, "target": M, "target_b64": M, "task": M, "argv": [M], "argv_b64": M,
            "raw_b64": M, "call": {"name": "mount", "text": M, "text_b64": M}, "launcher": {"uid": 0, "pid": 1},
        });
        kernel["policy"] = json!({"id": "bot", "version": 1, "digest": "ab"});
        let about = |more: Value| {
            let mut out =
                json!({"agent": "bot", "hold": "12", "request": "ab", "operation": "unlink", "object": M});
            out.as_object_mut().expect("object").extend(more.as_object().expect("object").clone());
            out
        };
        let glass = json!({"by": {"uid": 0, "terminal": M}, "because": M, "break_glass": "1"});
        let ends = json!({"by": {"uid": 0, "parent": M, "cgroup": M}, "because": M, "pins": M, "problem": M});
        let trust = json!({"agent": "bot", "because": M, "statement": M, "signature": M, "problems": [M]});
        let because = json!({"because": M});
        let mut out: Vec<(&'static str, Value)> =
            kinds::KERNEL.iter().map(|kind| (*kind, kernel.clone())).collect();
        out.extend([
            ("alert", json!({"rule": "break-glass", "because": M, "agent": null, "object": {"path": M}})),
            ("alive", json!({})),
            (
                "approval-decided",
                json!({"by": {"name": "anna"}, "reason": M, "statement": M, "signature": M,
                    "requests": [about(json!({"outcome": "denied"}))]}),
            ),
            ("approval-ended", about(json!({"because": "it is used up or over"}))),
            ("approval-justified", about(json!({"the_agent_says": M}))),
            ("approval-refused", about(json!({}))),
            ("approval-rejected", json!({"because": M, "peer": {"uid": 0, "pid": 1}})),
            ("approval-requested", about(json!({"text": format!("program: {M}\nargument: {M}\n")}))),
            ("approval-timed-out", about(json!({}))),
            ("approval-void", about(json!({"because": M, "statement": M}))),
            ("approval-withdrawn", about(json!({}))),
            ("approvals-lost", because.clone()),
            ("approvals-silenced", json!({"agent": "bot", "seconds": 5})),
            ("break-glass-begun", glass.clone()),
            ("break-glass-ended", glass.clone()),
            ("break-glass-refused", glass),
            ("call-unwatched", json!({"call": "mount", "function": "__x64_sys_mount", "because": M})),
            ("canary", json!({"problem": M})),
            ("control-refused", because.clone()),
            ("daemon-started", json!({"hooks": {"attached": 3, "missing": [{"name": M, "note": M}]}})),
            ("daemon-stopped", because.clone()),
            ("enforcement-ended", ends.clone()),
            ("enforcement-ends", ends.clone()),
            ("enforcement-not-ended", ends),
            ("first-use", json!({"agent": "bot", "object": object, "operation": "exec"})),
            ("hooks-brought-back", json!({"hooks": ["file_open"]})),
            ("kernel-changed", json!({"from": "6.1", "to": "6.12"})),
            ("key-handover", json!({"note": "n", "public": "p"})),
            ("key-made", json!({"public": "p"})),
            ("launch-refused", json!({"agent": "bot", "because": M, "launcher": {"uid": 0}})),
            (
                "launched",
                json!({"command": [M, M], "directory": M, "task": M, "environment": {"A": M}, "layers": [{"because": M}]}),
            ),
            ("layer-attached", json!({"layer": "network", "root": M, "cgroup": 7})),
            ("log-begun", because.clone()),
            ("log-failed", because.clone()),
            ("log-recovered", json!({"milliseconds": 1})),
            ("lost", json!({"agent": "bot", "because": "the kernel's ring was full"})),
            ("malformed", json!({"why": "too short", "raw_b64": M})),
            ("other", json!({"whatever": [{"is": {"added": M}}], M: {M: 1}})),
            ("policy-problems", json!({"problems": [M], "rejected": [{"file": M, "sha256": "ab"}]})),
            ("policy-published", json!({"agent": "bot", "file": M, "links_incomplete": M})),
            ("policy-retired", json!({"agent": "bot"})),
            (
                "policy-tightened",
                json!({"agent": "bot", "left_open": [{"object": M, "session": "1"}], "problems": [M], "errors": [M]}),
            ),
            ("session-ended", json!({"agent": "bot", "end": {"how": "exited", "status": 0}})),
            ("sink-failed", json!({"sink": "siem", "because": M})),
            ("sink-recovered", json!({"sink": "siem", "attempts": 2})),
            ("state", json!({"state": "degraded", "problems": [M]})),
            ("truncated", json!({"to": 256, "root": "ab", "because": "max_bytes", "settings": "ab"})),
            ("trust-changed", trust.clone()),
            ("trust-lost", trust.clone()),
            ("trust-problems", trust.clone()),
            ("trust-rejected", trust.clone()),
            ("trust-void", trust),
            ("witness-failed", json!({"witness": "w", "because": M})),
            ("witness-recovered", json!({"witness": "w"})),
        ]);
        out
    }

    #[test]
    fn no_record_of_any_kind_has_a_path_an_argument_or_words_in_its_leaf() {
        let known: Vec<&str> = kinds::KERNEL.iter().chain(kinds::DAEMON).copied().collect();
        let records = records();
        let missing: Vec<&&str> =
            known.iter().filter(|kind| records.iter().all(|(of, _)| of != *kind)).collect();
        assert!(missing.is_empty(), "kinds without an example: {missing:?}");
        let place = Place { host: "h".to_owned(), boot: "b".to_owned() };
        for (kind, mut record) in records {
            record["kind"] = kind.into();
            let fields = record.as_object().expect("object");
            let sealed = seal(fields, &place, 5, &mut || [7; 16]);
            let redacted = open(&sealed.leaf, b"", 5).expect("opens").record;
            // A name of a field that is a path itself is no case: names are the Enforcer's. What they hold is sealed.
            let shown = Value::Object(redacted).to_string().replace(&format!("{M:?}:"), "");
            assert!(!shown.contains(M), "{kind}: {shown}");
            if kind == "other" {
                continue;
            }
            let opened = open(&sealed.leaf, &sealed.clear, 5).expect("opens");
            assert_eq!(opened.withheld, 0, "{kind}");
            for (key, value) in fields {
                assert_eq!(&opened.record[key], value, "{kind} {key}");
            }
        }
    }

    #[test]
    fn what_verifying_and_receivers_need_stays_readable() {
        for (kind, key) in [
            ("key-handover", "note"),
            ("truncated", "to"),
            ("truncated", "root"),
            ("truncated", "time"),
            ("truncated", "because"),
            ("decision", "rule"),
            ("decision", "reason"),
            ("alert", "because"),
            ("lost", "because"),
        ] {
            assert_eq!(of(kind, key), Readable::All, "{kind} {key}");
        }
        assert!(ALL.is_sorted());
    }

    #[test]
    fn leaves_that_sealed_less_are_still_read() {
        // As version 1.0 wrote it: the object of a request in clear, a program sealed.
        let digest = super::super::commitment(&[7; 16], &["/exe"], br#""/bin/x""#);
        let (mut mark, mut salt) = (Vec::new(), Vec::new());
        super::super::base64(&mut mark, &digest);
        super::super::base64(&mut salt, &[7; 16]);
        let [mark, salt] = [mark, salt].map(|text| String::from_utf8(text).expect("text"));
        let leaf = format!(
            r#"{{"boot":"b","exe":{{"sealed":"{mark}"}},"kind":"approval-requested","leaf":1,"object":"/w/x","seq":5}}"#
        );
        let clear = format!(r#"{{"/exe":["{salt}","/bin/x"]}}"#);
        let opened = open(leaf.as_bytes(), clear.as_bytes(), 5).expect("opens");
        assert_eq!((&opened.record["exe"], &opened.record["object"]), (&json!("/bin/x"), &json!("/w/x")));
        assert_eq!(open(leaf.as_bytes(), b"", 5).expect("opens").withheld, 1);
    }
}
