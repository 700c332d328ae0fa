//! The canonical form of a policy: what its digest is taken of. Two files that mean the same in the
//! same words have one digest, whatever their layout, comments, quoting and order of keys.

use super::{
    calls,
    layers::LayerChoice,
    rule::{Objects, OnTighten, Rule},
    valid::{Launch, Question, Test, ValidPolicy},
};
use enforcer_common::{
    access::{file, net},
    calls::Actions,
};
use serde_json::{Value, json};
use sha2::{Digest, Sha256};

/// SHA-256 of the canonical form.
pub(super) fn digest(policy: &ValidPolicy) -> [u8; 32] {
    Sha256::digest(text(policy)).into()
}

/// The canonical form: JSON with sorted keys and no white space.
pub(super) fn text(policy: &ValidPolicy) -> String {
    let ValidPolicy {
        id,
        version,
        owner,
        purpose,
        expires,
        cgroups,
        launch,
        trust,
        mode,
        on_tighten,
        requires,
        includes,
        rules,
        grants,
        tests,
        warnings: _,
        digest: _,
        image: _,
    } = policy;
    let mut value = json!({
        "apiVersion": "enforcer/v1",
        "kind": "AgentPolicy",
        "metadata": {
            "id": id,
            "version": version,
            "owner": owner,
            "purpose": purpose,
            "expires": expires.as_ref().map(|(_, seconds)| seconds),
        },
        "match": cgroups.iter().map(ToString::to_string).collect::<Vec<_>>(),
        "launch": launch.as_ref().map(launch_terms),
        "trust": trust,
        "mode": mode,
        "requires": requires.iter().map(|feature| feature.name()).collect::<Vec<_>>(),
        "include": includes,
        "floor": grants.floor,
        "capabilities": grants.capabilities,
        "rules": rules.iter().map(rule).collect::<Vec<_>>(),
        "tests": tests.iter().map(test).collect::<Vec<_>>(),
    });
    // Only what differs from the default: policies that never said it keep their digest.
    if *on_tighten != OnTighten::default()
        && let Some(map) = value.as_object_mut()
    {
        map.insert("on_tighten".to_owned(), json!(on_tighten));
    }
    if grants.calls != Actions::default()
        && let Some(map) = value.as_object_mut()
    {
        let Actions { ignored, stopped, killed } = grants.calls;
        let names = |bits| calls::names(bits).collect::<Vec<_>>();
        let said = json!({"ignore": names(ignored), "stop": names(stopped), "kill": names(killed)});
        map.insert("system_calls".to_owned(), said);
    }
    let mut out = String::new();
    write(&value, &mut out);
    out
}

fn launch_terms(launch: &Launch) -> Value {
    let Launch { by, run_as, layers: LayerChoice { no_new_privileges, seccomp, landlock } } = launch;
    let mut value = json!({
        "by": by.iter().map(ToString::to_string).collect::<Vec<_>>(),
        "run_as": run_as.as_ref().map(ToString::to_string),
    });
    // Policies that say nothing of layers keep the digest that they always had.
    let layers = [
        ("no_new_privileges", no_new_privileges.map(Value::from)),
        ("seccomp", seccomp.map(|seccomp| seccomp.name().into())),
        ("landlock", landlock.map(|landlock| landlock.name().into())),
    ];
    for (key, said) in layers.into_iter().filter_map(|(key, said)| Some((key, said?))) {
        value[key] = said;
    }
    value
}

fn rule(rule: &Rule) -> Value {
    let Rule { origin, effect, tier, operations: _, objects, condition, because, on_hold, hold_timeout } =
        rule;
    let objects: Vec<String> = match objects {
        Objects::Paths(globs) => globs.iter().map(ToString::to_string).collect(),
        Objects::Endpoints(endpoints) => endpoints.iter().map(ToString::to_string).collect(),
    };
    let mut value = json!({
        "section": origin.section,
        "effect": effect,
        "tier": tier,
        "operations": rule.operation_names(),
        "objects": objects,
        "because": because,
        "on_hold": on_hold,
        "hold_timeout": hold_timeout,
    });
    // Policies that say nothing of arguments keep the digest that they always had.
    if let Some(arguments) = condition.arguments() {
        value["arguments"] = json!(arguments.texts());
    }
    if condition.is_about_content() {
        value["sha256"] = json!(condition.content());
    }
    if !condition.parents().is_empty() {
        value["parent"] = json!(condition.parents());
    }
    value
}

fn test(test: &Test) -> Value {
    let Test { line: _, column: _, expect, question } = test;
    let names = |names: &[(u16, &'static str)], want: u16| -> Vec<&'static str> {
        names.iter().filter(|(bit, _)| want & bit != 0).map(|(_, name)| *name).collect()
    };
    match question {
        Question::File { want, path } => json!({
            "expect": super::validate::word(*expect),
            "operations": names(&file::NAMES, *want),
            "path": String::from_utf8_lossy(path),
        }),
        Question::Run { path, arguments, content, parent } => {
            let mut value = json!({
                "expect": super::validate::word(*expect),
                "operations": names(&file::NAMES, file::EXEC),
                "path": String::from_utf8_lossy(path),
                "arguments": arguments.iter().map(|one| String::from_utf8_lossy(one)).collect::<Vec<_>>(),
            });
            if let Some(content) = content {
                value["sha256"] = json!(crate::event::text::hex(content));
            }
            if let Some(parent) = parent {
                value["parent"] = json!(String::from_utf8_lossy(parent));
            }
            value
        }
        Question::Net { want, address, port, protocol } => json!({
            "expect": super::validate::word(*expect),
            "operations": names(&net::NAMES, *want),
            "family": address.family,
            "address": address.bytes,
            "port": port,
            "protocol": protocol,
        }),
    }
}

/// Writes a value with the keys of every object sorted. The order must not depend on how the JSON
/// library was built.
fn write(value: &Value, out: &mut String) {
    match value {
        Value::Object(map) => {
            let mut entries: Vec<_> = map.iter().collect();
            entries.sort_by(|a, b| a.0.cmp(b.0));
            out.push('{');
            for (i, (key, value)) in entries.into_iter().enumerate() {
                if i > 0 {
                    out.push(',');
                }
                out.push_str(&Value::from(key.as_str()).to_string());
                out.push(':');
                write(value, out);
            }
            out.push('}');
        }
        Value::Array(items) => {
            out.push('[');
            for (i, value) in items.iter().enumerate() {
                if i > 0 {
                    out.push(',');
                }
                write(value, out);
            }
            out.push(']');
        }
        Value::Null | Value::Bool(_) | Value::Number(_) | Value::String(_) => {
            out.push_str(&value.to_string())
        }
    }
}
