//! Which records are worth waking somebody: rules of the settings over the stream of records. Pure.

use super::acts;
use crate::{
    event::flat::Flat,
    policy::{Glob, reference},
};
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};
use serde_json::{Map, Value, json};
use std::collections::{HashMap, VecDeque};

/// The daemon proves itself by being refused; that alarms nobody.
const OWN: &str = "enforcer-canary";
/// A step of the clock that is none of the small corrections that time services make. Nanoseconds.
const STEP: i128 = 1_000_000_000;
/// Nanoseconds in a second.
const SECOND: i128 = 1_000_000_000;

/// `[alerts]` in the settings. A rule that is not set does not exist; one is set by default.
#[derive(Clone, Debug, PartialEq, Eq, Deserialize, Serialize, JsonSchema)]
#[serde(deny_unknown_fields, default)]
pub struct AlertSettings {
    /// So many denials of one agent in so many seconds.
    pub denials: Option<Rate>,
    /// Any denial by the floor.
    pub floor: bool,
    /// Records were lost.
    pub loss: bool,
    /// The log could not be written or signed: said when it can again.
    pub log: bool,
    /// The proof that agents are refused has failed.
    pub not_enforcing: bool,
    /// The signing key was changed, or a new log was begun.
    pub keys: bool,
    /// The host's clock was set.
    pub clock: bool,
    /// A sink does not deliver; another one can still say so.
    pub sinks: bool,
    /// Two agents have tried to read the same credential.
    pub credentials: Option<Credentials>,
    /// Break-glass begins, is refused or ends; each time, whatever `repeat_seconds` says.
    pub break_glass: bool,
    /// The same rule alerts about the same agent at most once in so many seconds.
    pub repeat_seconds: u64,
}

impl Default for AlertSettings {
    fn default() -> Self {
        Self {
            denials: None,
            floor: false,
            loss: false,
            log: false,
            not_enforcing: false,
            keys: false,
            clock: false,
            sinks: false,
            credentials: None,
            break_glass: true,
            repeat_seconds: 300,
        }
    }
}

/// What is a credential, and for how long it is remembered who tried to read it.
#[derive(Clone, Debug, PartialEq, Eq, Deserialize, Serialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct Credentials {
    /// Globs as in policies, `/home/*/.ssh/**`.
    pub paths: Vec<String>,
    /// Seconds within which two agents must have tried.
    pub seconds: u64,
}

impl Credentials {
    fn problem(&self) -> Option<String> {
        if !(1..=86_400).contains(&self.seconds) {
            return Some("seconds must be 1 to 86400: a day".to_owned());
        }
        if self.paths.is_empty() || self.paths.len() > 100 {
            return Some("paths must be 1 to 100 globs".to_owned());
        }
        self.paths.iter().find_map(|path| Glob::parse(path).err().map(|e| format!("{path:?}: {e}")))
    }
}

/// A number of acts in a time.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Deserialize, Serialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct Rate {
    /// How many.
    pub count: u64,
    /// In how many seconds.
    pub seconds: u64,
}

impl AlertSettings {
    /// What is wrong with them.
    pub fn problem(&self) -> Option<(&'static str, String)> {
        if let Some(problem) = self.credentials.as_ref().and_then(Credentials::problem) {
            return Some(("alerts.credentials", problem));
        }
        let rate = self.denials?;
        if !(1..=100_000).contains(&rate.count) {
            return Some(("alerts.denials.count", "must be 1 to 100000".to_owned()));
        }
        let problem = "must be 1 to 86400: a day".to_owned();
        (!(1..=86_400).contains(&rate.seconds)).then_some(("alerts.denials.seconds", problem))
    }
}

/// The state of all rules.
pub(super) struct Alerts {
    settings: AlertSettings,
    /// Denials of the last while, by agent; never more entries than a rule counts.
    denials: HashMap<String, VecDeque<(i128, u64)>>,
    /// What is a credential.
    credentials: Vec<Glob>,
    /// Who tried to read which of them when.
    readers: HashMap<String, Vec<(String, i128)>>,
    /// When a rule alerted about an agent, and how often it had to be silent since.
    said: HashMap<(&'static str, String), (i128, u64)>,
    /// Wall clock minus boot time, at the last look.
    offset: Option<i128>,
}

impl Alerts {
    pub(super) fn new(settings: AlertSettings) -> Self {
        let globs = settings.credentials.iter().flat_map(|credentials| &credentials.paths);
        // They were read with the settings.
        let credentials = globs.filter_map(|path| Glob::parse(path).ok()).collect();
        let (denials, readers) = (HashMap::new(), HashMap::new());
        Self { settings, denials, credentials, readers, said: HashMap::new(), offset: None }
    }

    /// Whether a record of the kernel can give rise to an alert at all: most of them need not be looked at.
    pub(super) fn may_be_about(&self, record: &Flat) -> bool {
        let AlertSettings { denials, floor, credentials, .. } = &self.settings;
        (denials.is_some() || *floor || credentials.is_some()) && record.is("kind", "decision")
    }

    /// Looks at record number `seq`; returns the fields of the alerts that it gives rise to. `now` only ever
    /// grows: nanoseconds since the boot.
    pub(super) fn note(&mut self, record: &Map<String, Value>, seq: u64, now: i128) -> Option<Value> {
        let text = |key: &str| record.get(key).and_then(Value::as_str);
        let agent = text("agent").unwrap_or_default();
        let settings = &self.settings;
        let (rule, because) = match text("kind")? {
            "decision" => {
                return self.credential(record, seq, now).or_else(|| self.decision(record, seq, now));
            }
            "lost" if settings.loss => ("loss", "records were lost"),
            "log-failed" if settings.log => ("log", "the audit log could not be written or signed"),
            "canary" if settings.not_enforcing => {
                ("not-enforcing", "a process without rights was not seen to be refused")
            }
            "key-handover" if settings.keys => ("keys", "the signing key was replaced"),
            "log-begun" if settings.keys => ("keys", "the log was not what was signed; a new one was begun"),
            "break-glass-begun" if settings.break_glass => return Some(lifts(record, seq, "begins")),
            "break-glass-refused" if settings.break_glass => return Some(lifts(record, seq, "was refused")),
            "break-glass-ended" if settings.break_glass => return Some(lifts(record, seq, "has ended")),
            "sink-failed" if settings.sinks => ("sinks", "a sink does not deliver"),
            _ => return None,
        };
        let about = if rule == "sinks" { text("sink").unwrap_or_default() } else { agent };
        let mut alert = self.say(rule, about, now, because)?;
        alert["record"] = seq.into();
        Some(alert)
    }

    fn decision(&mut self, record: &Map<String, Value>, seq: u64, now: i128) -> Option<Value> {
        let text = |key: &str| record.get(key).and_then(Value::as_str);
        let flags = record.get("flags").and_then(Value::as_array);
        let would = flags.is_some_and(|flags| flags.iter().any(|flag| flag == "would"));
        let agent =
            text("agent").filter(|agent| *agent != OWN && !would && text("verdict") == Some("deny"))?;
        let rate =
            self.settings.denials.filter(|rate| self.reaches(*rate, agent, acts(record.get("count")), now));
        let floor = self.settings.floor && text("reason") == Some("floor");
        let mut alert = match (floor, rate) {
            (true, _) => self.say("floor", agent, now, "the floor refused an act")?,
            (false, Some(rate)) => {
                let because = format!("{} denials within {} seconds", rate.count, rate.seconds);
                self.say("denials", agent, now, &because)?
            }
            (false, None) => return None,
        };
        alert["record"] = seq.into();
        alert["session"] = record.get("session").cloned().unwrap_or_default();
        alert["operation"] = record.get("operation").cloned().unwrap_or_default();
        Some(alert)
    }

    /// Whether this is the second agent that tried to read a credential. That one of them was let by a person, or only
    /// audited, makes it no better; what a rule simply allows leaves no record, so nobody can tell of it here.
    fn credential(&mut self, record: &Map<String, Value>, seq: u64, now: i128) -> Option<Value> {
        /// Credentials that are remembered; beyond that, the one that was tried first is forgotten.
        const MOST: usize = 4096;
        let seconds = self.settings.credentials.as_ref()?.seconds;
        let agent = record.get("agent").and_then(Value::as_str).filter(|agent| *agent != OWN)?;
        let reads = record.get("access").and_then(Value::as_array)?.iter().any(|access| access == "read");
        let path = record.get("object")?.get("path")?.as_str().filter(|_| reads)?;
        let bytes = path.as_bytes();
        self.credentials.iter().find(|glob| reference::matches(glob, bytes))?;
        let within = i128::from(seconds) * SECOND;
        if self.readers.len() >= MOST && !self.readers.contains_key(path) {
            let last = |readers: &[(String, i128)]| readers.iter().map(|(_, at)| *at).max();
            let oldest =
                self.readers.iter().min_by_key(|(_, readers)| last(readers)).map(|(path, _)| path.clone());
            oldest.and_then(|oldest| self.readers.remove(&oldest));
        }
        let readers = self.readers.entry(path.to_owned()).or_default();
        readers.retain(|(other, at)| now - at < within && other != agent);
        let others: Vec<String> = readers.iter().map(|(other, _)| other.clone()).collect();
        readers.push((agent.to_owned(), now));
        if others.is_empty() {
            return None;
        }
        let because =
            format!("{agent} has tried to read a credential that {} tried to read", others.join(", "));
        let mut alert = self.say("credentials", agent, now, &because)?;
        alert["record"] = seq.into();
        alert["session"] = record.get("session").cloned().unwrap_or_default();
        alert["agents"] = others.into_iter().chain([agent.to_owned()]).collect();
        alert["object"] = serde_json::json!({"path": path});
        Some(alert)
    }

    /// Counts denials; whether they are as many as the rule says. Then it begins anew.
    fn reaches(&mut self, rate: Rate, agent: &str, count: u64, now: i128) -> bool {
        let recent = match self.denials.get_mut(agent) {
            Some(recent) => recent,
            None => self.denials.entry(agent.to_owned()).or_default(),
        };
        while recent.front().is_some_and(|(at, _)| now - at >= i128::from(rate.seconds) * SECOND) {
            recent.pop_front();
        }
        recent.push_back((now, count));
        let reached = recent.iter().map(|(_, count)| count).sum::<u64>() >= rate.count;
        if reached {
            self.denials.remove(agent);
        }
        reached
    }

    /// Looks at the clock; both times in nanoseconds. A host that slept has not set it: boot time goes on.
    pub(super) fn look_at_clock(&mut self, wall: i128, boot: i128) -> Option<Value> {
        let before = self.offset.replace(wall - boot)?;
        let step = wall - boot - before;
        if !self.settings.clock || step.abs() < STEP {
            return None;
        }
        let because = format!("the clock was set by {} milliseconds", step / 1_000_000);
        self.say("clock", "", boot, &because)
    }

    /// The alert, unless the same was said a short while ago.
    fn say(&mut self, rule: &'static str, about: &str, now: i128, because: &str) -> Option<Value> {
        let said = self.said.entry((rule, about.to_owned()));
        let pause = i128::from(self.settings.repeat_seconds) * SECOND;
        let mut silent = 0;
        match said {
            std::collections::hash_map::Entry::Occupied(mut said) => {
                let (at, count) = said.get_mut();
                if now - *at < pause {
                    *count += 1;
                    return None;
                }
                silent = std::mem::take(count);
                *at = now;
            }
            std::collections::hash_map::Entry::Vacant(place) => drop(place.insert((now, 0))),
        }
        let (key, about) = (if rule == "sinks" { "sink" } else { "agent" }, about);
        let about = if about.is_empty() { Value::Null } else { about.into() };
        Some(json!({"rule": rule, "because": because, key: about, "silent": silent}))
    }
}

/// What is said about break-glass is said each time: there is nothing to wait for.
fn lifts(record: &Map<String, Value>, seq: u64, what: &str) -> Value {
    let because = record.get("because").and_then(Value::as_str).unwrap_or_default();
    let agents = record.get("agents").cloned().unwrap_or_default();
    json!({
        "rule": "break-glass", "because": format!("break-glass {what}: {because}"), "agent": null, "agents": agents,
        "break_glass": record.get("break_glass"), "record": seq, "silent": 0,
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn all() -> AlertSettings {
        let denials = Some(Rate { count: 5, seconds: 10 });
        let on = true;
        AlertSettings {
            denials,
            floor: on,
            loss: on,
            log: on,
            not_enforcing: on,
            keys: on,
            clock: on,
            sinks: on,
            credentials: Some(Credentials { paths: vec!["/home/*/.ssh/**".to_owned()], seconds: 60 }),
            break_glass: on,
            repeat_seconds: 60,
        }
    }

    fn denial(agent: &str, reason: &str, count: u64) -> Map<String, Value> {
        let record = json!({"kind": "decision", "agent": agent, "verdict": "deny", "reason": reason, "count": count,
            "session": "0f", "operation": "open", "flags": []});
        record.as_object().expect("object").clone()
    }

    fn kind(kind: &str) -> Map<String, Value> {
        json!({"kind": kind, "sink": "siem"}).as_object().expect("object").clone()
    }

    #[test]
    fn so_many_denials_of_one_agent_in_a_time_alert_and_slow_ones_or_those_of_others_do_not() {
        let mut alerts = Alerts::new(all());
        for n in 0..40 {
            // One in three seconds: never five in ten.
            assert_eq!(alerts.note(&denial("slow", "rule", 1), n, i128::from(n) * 3 * SECOND), None);
        }
        let mut at = |agent: &str, count, seq| alerts.note(&denial(agent, "rule", count), seq, 200 * SECOND);
        assert_eq!((at("a", 2, 1), at("b", 2, 2), at("a", 2, 3), at("b", 2, 4)), (None, None, None, None));
        let alert = at("a", 1, 5).expect("an alert");
        assert_eq!(
            (&alert["rule"], &alert["agent"], &alert["record"]),
            (&json!("denials"), &json!("a"), &json!(5))
        );
        assert_eq!(alert["because"], "5 denials within 10 seconds");
        // A repeated denial counts for as many as it stands for.
        assert!(at("c", 5, 6).is_some());
    }

    #[test]
    fn the_same_alert_waits_and_says_how_often_it_was_silent() {
        let mut alerts = Alerts::new(all());
        let mut at = |second: i128| alerts.note(&denial("a", "floor", 1), 0, second * SECOND);
        assert_eq!(at(0).expect("an alert")["silent"], 0);
        assert!((1..60).all(|second| at(second).is_none()));
        assert_eq!(at(60).expect("an alert")["silent"], 59);
    }

    #[test]
    fn each_other_rule_has_its_record_and_nothing_alerts_that_is_not_set() {
        for (record, rule) in [
            (kind("lost"), "loss"),
            (kind("log-failed"), "log"),
            (kind("canary"), "not-enforcing"),
            (kind("key-handover"), "keys"),
            (kind("log-begun"), "keys"),
            (kind("sink-failed"), "sinks"),
            (denial("a", "floor", 1), "floor"),
        ] {
            let alert = Alerts::new(all()).note(&record, 7, 0).expect("an alert");
            assert_eq!((&alert["rule"], &alert["record"]), (&json!(rule), &json!(7)));
            assert_eq!(Alerts::new(AlertSettings::default()).note(&record, 7, 0), None);
        }
        assert_eq!(Alerts::new(all()).note(&kind("alert"), 0, 0), None);
    }

    #[test]
    fn a_credential_that_two_agents_try_to_read_alerts_and_one_that_one_agent_reads_does_not() {
        let read = |agent: &str, path: &str, access: &str| {
            let mut record = denial(agent, "rule", 1);
            record.insert("verdict".to_owned(), json!("allow"));
            record.insert("access".to_owned(), json!([access]));
            record.insert("object".to_owned(), json!({"path": path}));
            record
        };
        let mut alerts = Alerts::new(all());
        let mut at = |agent: &str, path: &str, access: &str, s: i128| {
            alerts.note(&read(agent, path, access), 3, s * SECOND)
        };
        let key = "/home/x/.ssh/id_ed25519";
        assert_eq!((at("a", key, "read", 0), at("a", key, "read", 1)), (None, None));
        assert_eq!((at("b", "/home/x/other", "read", 2), at("b", key, "write", 2)), (None, None));
        // Longer ago than the rule remembers.
        assert_eq!(at("b", key, "read", 62), None);
        let alert = at("c", key, "read", 63).expect("an alert");
        assert_eq!(
            (&alert["rule"], &alert["agents"], &alert["record"]),
            (&json!("credentials"), &json!(["b", "c"]), &json!(3))
        );
        assert_eq!(alert["object"]["path"], key);
    }

    #[test]
    fn credentials_are_globs_and_a_time() {
        let problem = |paths: &[&str], seconds| {
            let paths = paths.iter().map(|path| (*path).to_owned()).collect();
            let credentials = Some(Credentials { paths, seconds });
            AlertSettings { credentials, ..AlertSettings::default() }.problem()
        };
        assert_eq!(problem(&["/x/**"], 60), None);
        for (paths, seconds) in [(&["/x/**"][..], 0), (&[][..], 60), (&["x["][..], 60)] {
            assert_eq!(problem(paths, seconds).expect("a problem").0, "alerts.credentials");
        }
    }

    #[test]
    fn break_glass_alerts_each_time_unless_that_is_turned_off() {
        let mut record = kind("break-glass-begun");
        record.insert("because".to_owned(), json!("disk full"));
        let mut alerts = Alerts::new(AlertSettings::default());
        for seq in [1, 2] {
            let alert = alerts.note(&record, seq, 0).expect("an alert");
            assert_eq!((&alert["rule"], &alert["record"]), (&json!("break-glass"), &json!(seq)));
            assert_eq!(alert["because"], "break-glass begins: disk full");
        }
        assert!(alerts.note(&kind("break-glass-ended"), 3, 0).is_some());
        let mut off = Alerts::new(AlertSettings { break_glass: false, ..AlertSettings::default() });
        assert_eq!(off.note(&record, 1, 0), None);
    }

    #[test]
    fn neither_the_canary_nor_what_would_have_been_refused_alerts() {
        let mut alerts = Alerts::new(all());
        assert_eq!(alerts.note(&denial(OWN, "floor", 9), 0, 0), None);
        let mut would = denial("a", "floor", 9);
        would.insert("flags".to_owned(), json!(["would"]));
        assert_eq!(alerts.note(&would, 0, 0), None);
    }

    #[test]
    fn a_clock_that_is_set_alerts_and_one_that_drifts_does_not() {
        let mut alerts = Alerts::new(all());
        for second in 0..100 {
            assert_eq!(alerts.look_at_clock(second * (SECOND + 1_000_000), second * SECOND), None);
        }
        let alert = alerts.look_at_clock(50 * SECOND, 100 * SECOND).expect("an alert");
        assert!(alert["because"].as_str().is_some_and(|text| text.contains("set by -50")), "{alert}");
    }
}
