//! What a record of a refusal means for whoever was refused: pure.

use serde::{Deserialize, Serialize};
use serde_json::{Map, Value};

/// A refusal in words.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Why {
    /// When.
    pub time: String,
    /// The agent; none for a process that belongs to nobody.
    pub agent: Option<String>,
    /// Its session.
    pub session: Option<String>,
    /// The process.
    pub process: String,
    /// What was tried.
    pub tried: String,
    /// What came of it.
    pub outcome: String,
    /// Which part of the Enforcer decided.
    pub layer: String,
    /// The rules that decided, as the policy has them, or that there is none.
    pub rules: Vec<String>,
    /// The policy's own words.
    pub because: Vec<String>,
    /// The policy.
    pub policy: Option<String>,
    /// What can be asked for, and of whom.
    pub ask: String,
}

/// Whether a record is of something that was refused, held, or would have been.
pub fn is_refusal(record: &Map<String, Value>) -> bool {
    let is = |key: &str, wanted: &str| record.get(key).and_then(Value::as_str) == Some(wanted);
    let decided = is("kind", "decision") && (is("verdict", "deny") || is("verdict", "hold"));
    // Held calls that still wait have a kind of their own.
    decided || is("kind", "held")
}

/// Puts a record of a refusal into words.
pub fn why(record: &Map<String, Value>) -> Why {
    let text = |key: &str| record.get(key).and_then(Value::as_str);
    let number =
        |key: &str| record.get(key).and_then(Value::as_u64).map_or("?".to_owned(), |n| n.to_string());
    let access = words(record.get("access")).join("+");
    let object = object(record);
    let operation = text("operation").unwrap_or("something");
    let wanted = if access.is_empty() { String::new() } else { format!(" ({access})") };
    let would = words(record.get("flags")).iter().any(|flag| flag == "would");
    let outcome = match (would, text("verdict"), text("error")) {
        (true, ..) => "went on: the policy is in audit mode, and would have refused it".to_owned(),
        (_, Some("hold"), None) => "waits for a person".to_owned(),
        (_, _, Some("SIGKILL")) => "ended before its first instruction".to_owned(),
        (_, _, Some(error)) => format!("refused with {error}"),
        _ => "refused".to_owned(),
    };
    let reason = text("reason").unwrap_or("unknown");
    // Whoever is ended so has not run an instruction of its program.
    let was_loaded = text("error") == Some("SIGKILL");
    let (rules, because) = rules(record.get("rule"));
    let policy = record.get("policy").and_then(|policy| {
        let named = policy.get("id")?.as_str()?;
        Some(format!("{named}, version {}", policy.get("version")?))
    });
    let owner =
        policy.as_ref().map_or("the policy's owner", |_| "the owner of that policy (enforcer agents)");
    Why {
        time: text("time").unwrap_or_default().to_owned(),
        agent: text("agent").map(str::to_owned),
        session: text("session").map(str::to_owned),
        process: format!(
            "{} ({}), user {}",
            number("tgid"),
            text("exe").filter(|exe| !exe.is_empty()).or(text("comm")).unwrap_or("unknown"),
            number("uid")
        ),
        tried: format!("{operation}{wanted} {object}").trim_end().to_owned(),
        outcome,
        layer: if was_loaded { LOADED.to_owned() } else { layer(reason).to_owned() },
        ask: match reason {
            why if was_loaded && !matches!(why, "rule" | "too-many-holds") => {
                format!("it could not be judged ({why}): try again, and ask the operator if it stays so")
            }
            _ => ask(reason, record, &rules, owner),
        },
        rules,
        because,
        policy,
    }
}

/// Where a program was judged that had been loaded.
const LOADED: &str =
    "a rule about a program's arguments, content or parent, by the daemon, once the kernel had loaded it";

fn layer(reason: &str) -> &'static str {
    match reason {
        "rule" => "a rule of the policy, in the kernel",
        "floor" => "the floor: what no agent may do unless its policy says so by name, in the kernel",
        "unknown-object" => "the kernel's programs: the object's name could not be told",
        "no-session" => "the kernel's programs: the process lives where agents live and is no agent's",
        "gains-rights" | "moves-rules" => "the kernel's programs: what rules are about must not move away",
        "held" | "granted" | "refused-by-person" | "hold-timed-out" | "too-many-holds" => {
            "a rule of the policy that asks a person"
        }
        "second-layer" => {
            "the second layer on the network, in the kernel: the first one should have refused it"
        }
        "internal" => "the kernel's programs: a table lacked what must be there",
        _ => "cannot tell: a newer version made this record",
    }
}

fn ask(reason: &str, record: &Map<String, Value>, rules: &[String], owner: &str) -> String {
    match reason {
        "rule" if rules.is_empty() => match rule_for(record) {
            Some(rule) => {
                format!("nothing allows it; ask {owner} for this rule, if the task needs it: {rule}")
            }
            None => format!("nothing allows it; ask {owner}"),
        },
        "rule" if words(record.get("flags")).iter().any(|flag| flag == "other-name") => format!(
            "it is refused on purpose, perhaps because of another name that the same file has (a hard link); ask \
             {owner} whether that rule must stay, or for a copy under this name instead of a link"
        ),
        "rule" => format!("it is refused on purpose; ask {owner} whether that rule must stay"),
        "floor" => format!(
            "if the task really needs it, ask {owner} for an entry in `system` or `capabilities`; docs/policy.md \
             lists what can be granted at all"
        ),
        "unknown-object" => {
            "nothing can be granted: name the file by a path that exists in the session's own mounts"
                .to_owned()
        }
        "no-session" => {
            "start it with enforcer exec, or give its cgroup to an agent with `match` in a policy".to_owned()
        }
        "gains-rights" | "moves-rules" => {
            "copy the data instead of moving the file or directory, so that the rules of the new place hold"
                .to_owned()
        }
        "held" | "granted" => "ask those who approve for this agent".to_owned(),
        "refused-by-person" => "a person refused it; ask those who approve for this agent".to_owned(),
        "hold-timed-out" => "nobody answered in time; try again when somebody can".to_owned(),
        "too-many-holds" => "too many requests wait already; try again when they are answered".to_owned(),
        "internal" | "second-layer" => {
            "ask the operator to look at enforcer status and journalctl -u enforcer".to_owned()
        }
        _ => "ask the operator".to_owned(),
    }
}

/// The narrowest rule that would allow what was tried.
fn rule_for(record: &Map<String, Value>) -> Option<String> {
    let access = words(record.get("access"));
    let object = record.get("object")?;
    if let Some(address) = object.get("address").and_then(Value::as_str) {
        let (port, protocol) = (object.get("port")?, object.get("protocol")?.as_str()?);
        let bare = if address.contains(':') { format!("[{address}]") } else { address.to_owned() };
        // As the record says: sending to an address is a kind of connecting, listening one of binding.
        let verb = access.first()?;
        return Some(format!("network: [{{ allow: [{verb}], to: [\"{bare}:{port}/{protocol}\"] }}]"));
    }
    let path = object.get("path")?.as_str()?;
    // What stands for bytes, or would be read as a pattern, is for a person to write.
    if object.get("path_b64").is_some()
        || !path.starts_with('/')
        || path.contains(['*', '?', '[', '{', '"', '\\'])
    {
        return None;
    }
    match access.iter().map(String::as_str).collect::<Vec<_>>()[..] {
        [] => None,
        ["exec"] if record.get("argv").is_some() => None,
        ["exec"] => Some(format!("exec: [{{ allow: [\"{path}\"] }}]")),
        _ => Some(format!("files: [{{ allow: [{}], paths: [\"{path}\"] }}]", access.join(", "))),
    }
}

fn rules(value: Option<&Value>) -> (Vec<String>, Vec<String>) {
    let all = value.and_then(Value::as_array).map(Vec::as_slice).unwrap_or_default();
    let field = |key: &str| -> Vec<String> {
        all.iter().filter_map(|rule| rule.get(key)?.as_str().map(str::to_owned)).collect()
    };
    (field("text"), field("because"))
}

fn object(record: &Map<String, Value>) -> String {
    let argument =
        record.get("argument").map(|value| value.as_str().map_or(value.to_string(), str::to_owned));
    let object = record.get("object").unwrap_or(&Value::Null);
    let text = |key: &str| object.get(key).and_then(Value::as_str);
    let named = match (text("path"), text("address"), text("protocol")) {
        (Some(path), ..) => path.to_owned(),
        (None, Some(address), protocol) => {
            let port = object.get("port").map(ToString::to_string).unwrap_or_default();
            format!("{address} port {port}/{}", protocol.unwrap_or("?"))
        }
        _ => String::new(),
    };
    [Some(named).filter(|named| !named.is_empty()), argument]
        .into_iter()
        .flatten()
        .collect::<Vec<_>>()
        .join(", ")
}

fn words(value: Option<&Value>) -> Vec<String> {
    let all = value.and_then(Value::as_array).map(Vec::as_slice).unwrap_or_default();
    all.iter().filter_map(Value::as_str).map(str::to_owned).collect()
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    fn record(change: impl FnOnce(&mut Value)) -> Map<String, Value> {
        let mut value = json!({
            "kind": "decision", "time": "2026-01-31T12:00:00Z", "agent": "bot", "session": "00ab", "tgid": 10, "uid": 5,
            "exe": "/usr/bin/cat", "operation": "open", "access": ["read"], "object": {"path": "/w/x"},
            "verdict": "deny", "reason": "rule", "rule": "no rule", "error": "EPERM", "flags": [],
            "policy": {"id": "bot", "version": 7, "digest": "ab"},
        });
        change(&mut value);
        value.as_object().expect("object").clone()
    }

    #[test]
    fn what_nothing_allows_comes_with_the_rule_to_ask_for() {
        let said = why(&record(|_| ()));
        assert_eq!(said.tried, "open (read) /w/x");
        assert_eq!(said.outcome, "refused with EPERM");
        assert!(said.ask.contains("files: [{ allow: [read], paths: [\"/w/x\"] }]"), "{}", said.ask);
        let exec = why(&record(|r| (r["access"], r["operation"]) = (json!(["exec"]), json!("exec"))));
        assert!(exec.ask.contains("exec: [{ allow: [\"/w/x\"] }]"), "{}", exec.ask);
        let connect = why(&record(|r| {
            r["object"] = json!({"address": "::1", "port": 443, "protocol": "tcp"});
            (r["operation"], r["access"]) = (json!("connect"), json!(["connect"]));
        }));
        assert!(connect.ask.contains("connect], to: [\"[::1]:443/tcp\"]"), "{}", connect.ask);
        let send = why(&record(|r| {
            r["object"] = json!({"address": "10.0.0.1", "port": 53, "protocol": "udp"});
            (r["operation"], r["access"]) = (json!("send"), json!(["connect"]));
        }));
        assert!(send.ask.contains("connect], to: [\"10.0.0.1:53/udp\"]"), "{}", send.ask);
        let bind = why(&record(|r| {
            r["object"] = json!({"address": "0.0.0.0", "port": 80, "protocol": "tcp"});
            (r["operation"], r["access"]) = (json!("listen"), json!(["bind"]));
        }));
        assert!(bind.ask.contains("allow: [bind]"), "{}", bind.ask);
    }

    #[test]
    fn a_rule_is_named_with_its_reason() {
        let said = why(&record(|r| r["rule"] = json!([{"text": "deny read **/.env", "because": "secrets"}])));
        assert_eq!(
            (said.rules, said.because),
            (vec!["deny read **/.env".to_owned()], vec!["secrets".to_owned()])
        );
        assert!(said.ask.contains("on purpose"));
    }

    #[test]
    fn a_rule_for_another_name_is_told() {
        let said = why(&record(|r| {
            r["rule"] = json!([{"text": "deny read /s/**"}]);
            r["flags"] = json!(["other-name"]);
        }));
        assert!(said.ask.contains("hard link"), "{}", said.ask);
    }

    #[test]
    fn no_rule_is_made_up_for_a_name_that_would_be_read_as_a_pattern() {
        for path in ["/w/*", "/w/\\n", "pipe:[1]"] {
            let said = why(&record(|r| r["object"] = json!({"path": path})));
            assert!(!said.ask.contains("files:"), "{}", said.ask);
        }
        let bytes = why(&record(|r| r["object"] = json!({"path": "/w/x", "path_b64": "eA=="})));
        assert!(!bytes.ask.contains("files:"), "{}", bytes.ask);
    }

    #[test]
    fn a_program_that_was_ended_says_so_and_why() {
        let ended = |reason: &str| {
            why(&record(|r| {
                (r["error"], r["operation"], r["reason"]) = (json!("SIGKILL"), json!("exec"), json!(reason));
                r["rule"] = json!([{"text": "deny git push"}]);
            }))
        };
        let said = ended("rule");
        assert!(said.outcome.contains("first instruction") && said.layer.contains("arguments"), "{said:?}");
        assert!(said.ask.contains("on purpose"), "{said:?}");
        assert!(ended("its arguments changed").ask.contains("its arguments changed"));
        assert!(ended("too-many-holds").ask.contains("wait already"));
    }

    #[test]
    fn audit_mode_is_not_called_a_refusal() {
        let said = why(&record(|r| r["flags"] = json!(["would"])));
        assert!(said.outcome.starts_with("went on"), "{}", said.outcome);
    }

    #[test]
    fn every_reason_has_a_layer_and_somebody_to_ask() {
        for number in 1..=13u16 {
            let name = crate::event::decode::reason_name(number).expect("a name");
            let said = why(&record(|r| (r["reason"], r["rule"]) = (json!(name), Value::Null)));
            assert!(!said.layer.starts_with("cannot tell") && said.ask != "ask the operator", "{name}");
        }
        assert!(why(&record(|r| r["reason"] = json!("unknown-99"))).layer.starts_with("cannot tell"));
    }

    #[test]
    fn only_decisions_that_refuse_count() {
        assert!(is_refusal(&record(|_| ())));
        assert!(!is_refusal(&record(|r| r["verdict"] = json!("allow"))));
        assert!(!is_refusal(&record(|r| r["kind"] = json!("executed"))));
    }
}
