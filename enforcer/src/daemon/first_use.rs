//! The first use of rules that let programs run, and of rules under which a person let something. Pure. What other rules
//! allow leaves no record, so nothing can be told of them here.

use super::{loaded::Loaded, names::deciding_rules, numbers::Numbers};
use crate::{
    event::{
        decode::{Event, Kind},
        flat::Flat,
        json::SCHEMA,
    },
    policy::{RuleId, reference},
    trust::table::Table,
};
use enforcer_common::{
    access::file::EXEC,
    event::{flag, reason},
    verdict::Verdict,
};
use serde_json::{Value, json};
use std::collections::HashSet;

/// Programs of policies that were looked up; beyond that all are looked up again.
const MOST: usize = 16_384;

/// What was used.
#[derive(Debug, Default)]
pub(super) struct FirstUses {
    rules: HashSet<([u8; 32], RuleId)>,
    programs: HashSet<([u8; 32], Vec<u8>)>,
}

impl FirstUses {
    /// The rules that let this program run, if they have not been used before: each as records name it.
    pub(super) fn note(&mut self, loaded: &Loaded, exe: &[u8]) -> Vec<String> {
        let digest = loaded.policy.digest();
        if exe.is_empty() || !self.programs.insert((digest, exe.to_vec())) {
            return Vec::new();
        }
        if self.programs.len() > MOST {
            self.programs.clear();
        }
        let path = exe.strip_prefix(b"/").unwrap_or(exe);
        let mut out = Vec::new();
        for id in reference::rules_among(&loaded.policy, loaded.image.rules_near(path), path) {
            let Some(rule) = loaded.policy.rule(id) else { continue };
            let lets = rule.operations() & EXEC != 0 && rule.effect().name() != "deny";
            if lets {
                out.extend(self.first(loaded, id));
            }
        }
        out
    }

    /// The record of the first use of the rules under which a person let this, if it is that.
    pub(super) fn granted(
        &mut self,
        event: &Event<'_>,
        numbers: &Numbers,
        table: &Table,
        record: &Flat,
    ) -> Option<Value> {
        let header = &event.header;
        let let_by_a_person = event.kind == Kind::Decision
            && event.verdict == Ok(Verdict::Allow)
            && header.reason == reason::GRANTED
            && header.flags & flag::WOULD == 0;
        if !let_by_a_person {
            return None;
        }
        let (loaded, base) = numbers.loaded(header.policy)?;
        let rules = deciding_rules(&loaded, event, base, table)?;
        let first = rules.into_iter().filter_map(|(id, _)| self.first(&loaded, id)).collect();
        let record = Value::Object(record.to_map());
        first_use(&record, record["operation"].as_str().unwrap_or_default(), record["object"].clone(), first)
    }

    /// The rule as records name it, unless it was used before.
    fn first(&mut self, loaded: &Loaded, id: RuleId) -> Option<String> {
        let first = self.rules.insert((loaded.policy.digest(), id));
        loaded.words(id).filter(|_| first).map(|words| words.text.clone())
    }
}

/// The same of rules that let a program run, from the record of its execution.
pub(super) fn of_program(executed: &Value, rules: Vec<String>) -> Option<Value> {
    let mut object = json!({"path": executed["exe"]});
    if let Some(bytes) = executed.get("exe_b64") {
        object["path_b64"] = bytes.clone();
    }
    first_use(executed, "exec", object, rules)
}

/// The record of the first use of rules, from that of the act.
fn first_use(act: &Value, operation: &str, object: Value, rules: Vec<String>) -> Option<Value> {
    if rules.is_empty() {
        return None;
    }
    let of = |key: &str| act[key].clone();
    Some(json!({
        "schema": SCHEMA, "kind": "first-use", "time": of("time"), "agent": of("agent"),
        "session": of("session"), "policy": of("policy"), "operation": operation, "object": object,
        "rule": rules.into_iter().map(|text| json!({"text": text})).collect::<Vec<_>>(),
    }))
}
