//! The first use of what rules allow, and of rules under which a person let something: once for each operation of a rule.
//! Pure. The kernel tells each first time in the tables that are in force, of sets of rules; which rules are new is told
//! here.

use super::{loaded::Loaded, names::deciding_rules, numbers::Numbers};
use crate::{
    event::{
        decode::{Event, Kind},
        flat::Flat,
        json::SCHEMA,
        text::hex,
    },
    policy::{RuleId, operation_names, reference},
    trust::table::Table,
};
use enforcer_common::{
    access::file::EXEC,
    event::{flag, reason},
    verdict::Verdict,
};
use serde_json::{Value, json};
use std::borrow::Cow;
use std::collections::{HashMap, HashSet};

/// Programs of policies that were looked up; beyond that all are looked up again.
const MOST: usize = 16_384;

/// What was used.
#[derive(Debug, Default)]
pub(super) struct FirstUses {
    /// By policy and rule: the operations.
    rules: HashMap<([u8; 32], RuleId), u16>,
    programs: HashSet<([u8; 32], Vec<u8>)>,
}

impl FirstUses {
    /// The rules that let this program run, if they have not been used before: each as records name it.
    pub(super) fn note(&mut self, loaded: &Loaded, exe: &[u8]) -> Rules {
        let digest = loaded.policy.digest();
        if exe.is_empty() || !self.programs.insert((digest, exe.to_vec())) {
            return Rules::default();
        }
        if self.programs.len() > MOST {
            self.programs.clear();
        }
        let path = exe.strip_prefix(b"/").unwrap_or(exe);
        let mut out = Rules::default();
        for id in reference::rules_among(&loaded.policy, loaded.image.rules_near(path), path) {
            let Some(rule) = loaded.policy.rule(id) else { continue };
            let lets = rule.operations() & EXEC != 0 && rule.effect().name() != "deny";
            if lets {
                self.first(loaded, id, EXEC, &mut out);
            }
        }
        out
    }

    /// Forgets the policies that no record can name any more.
    pub(super) fn retain(&mut self, digests: &HashSet<&str>) {
        let known = |digest: &[u8; 32]| digests.contains(hex(digest).as_str());
        self.rules.retain(|(digest, _), _| known(digest));
        self.programs.retain(|(digest, _)| known(digest));
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
        let first = self.first_of(&loaded, event, base, table)?;
        let record = Value::Object(record.to_map());
        first_use(&record, record["operation"].as_str().unwrap_or_default(), record["object"].clone(), first)
    }

    /// The record of the first use of rules that allow this, from what the kernel told of it; `record` makes that one's.
    /// Where the rules cannot be told any more it says so.
    pub(super) fn allowed(
        &mut self,
        event: &Event<'_>,
        numbers: &Numbers,
        table: &Table,
        record: impl FnOnce() -> Value,
    ) -> Option<Value> {
        let loaded = numbers.loaded(event.header.policy);
        let first = loaded.and_then(|(loaded, base)| self.first_of(&loaded, event, base, table));
        let rules = first.unwrap_or_else(|| Rules::unknown(event));
        if rules.access.is_empty() {
            return None;
        }
        let act = record();
        first_use(&act, act["operation"].as_str().unwrap_or_default(), act["object"].clone(), rules)
    }

    /// Those of the rules behind an act that were not used so before.
    fn first_of(
        &mut self,
        loaded: &Loaded,
        event: &Event<'_>,
        base: Option<u32>,
        table: &Table,
    ) -> Option<Rules> {
        let mut out = Rules::default();
        for (id, rule) in deciding_rules(loaded, event, base, table)? {
            self.first(loaded, id, event.header.access as u16 & rule.operations(), &mut out);
        }
        Some(out)
    }

    /// Adds the rule as records name it, with those of the operations that it was not used for before.
    fn first(&mut self, loaded: &Loaded, id: RuleId, operations: u16, out: &mut Rules) {
        let known = self.rules.entry((loaded.policy.digest(), id)).or_default();
        let fresh = operations & !*known;
        *known |= operations;
        let (Some(words), Some(rule)) = (loaded.words(id), loaded.policy.rule(id)) else { return };
        if fresh == 0 {
            return;
        }
        out.texts.push(words.text.clone());
        for name in operation_names(rule.origin().section, fresh) {
            if !out.access.iter().any(|known| known == name) {
                out.access.push(name.to_owned());
            }
        }
    }
}

/// Rules that were used for the first time, as records name them, and for what.
#[derive(Debug, Default)]
pub(super) struct Rules {
    texts: Vec<String>,
    access: Vec<String>,
}

impl Rules {
    /// Which ones cannot be told any more.
    fn unknown(event: &Event<'_>) -> Self {
        Self { texts: Vec::new(), access: event.access().map(Cow::into_owned).collect() }
    }

    fn named(self) -> Value {
        match self.texts {
            texts if texts.is_empty() => "unknown".into(),
            texts => texts.into_iter().map(|text| json!({"text": text})).collect(),
        }
    }
}

/// The same of rules that let a program run, from the record of its execution.
pub(super) fn of_program(executed: &Value, rules: Rules) -> Option<Value> {
    let mut object = json!({"path": executed["exe"]});
    if let Some(bytes) = executed.get("exe_b64") {
        object["path_b64"] = bytes.clone();
    }
    first_use(executed, "exec", object, rules)
}

/// The record of the first use of rules, from that of the act.
fn first_use(act: &Value, operation: &str, object: Value, rules: Rules) -> Option<Value> {
    if rules.access.is_empty() {
        return None;
    }
    let of = |key: &str| act[key].clone();
    Some(json!({
        "schema": SCHEMA, "kind": "first-use", "time": of("time"), "agent": of("agent"),
        "session": of("session"), "policy": of("policy"), "operation": operation, "object": object, "access": rules.access,
        "rule": rules.named(),
    }))
}
