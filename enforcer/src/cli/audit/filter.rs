//! Which records somebody asks for.

use clap::Args;
use serde_json::{Map, Value};
use time::{OffsetDateTime, format_description::well_known::Rfc3339};

/// All that is named must fit.
#[derive(Clone, Debug, Default, Args)]
pub(in crate::cli) struct Filter {
    /// Records of this agent.
    #[arg(long, value_name = "AGENT")]
    pub(super) agent: Option<String>,
    /// Records of the session whose id begins so.
    #[arg(long, value_name = "ID")]
    pub(super) session: Option<String>,
    /// Records from this time on, as in 2026-01-31T12:00:00Z.
    #[arg(long, value_name = "TIME", value_parser = time)]
    pub(super) since: Option<i128>,
    /// Records before this time.
    #[arg(long, value_name = "TIME", value_parser = time)]
    pub(super) until: Option<i128>,
    /// Decisions with this verdict: allow, hold, deny.
    #[arg(long, value_name = "VERDICT")]
    pub(super) verdict: Option<String>,
    /// Decisions by a rule whose text has this in it.
    #[arg(long, value_name = "TEXT")]
    pub(super) rule: Option<String>,
    /// Records about an object whose path, address or number has this in it.
    #[arg(long, value_name = "TEXT")]
    pub(super) object: Option<String>,
    /// Records of this kind: decision, executed, launched, policy-published, lost …
    #[arg(long, value_name = "KIND")]
    pub(super) kind: Option<String>,
}

/// Nanoseconds since 1970.
fn time(text: &str) -> Result<i128, String> {
    OffsetDateTime::parse(text, &Rfc3339)
        .map(OffsetDateTime::unix_timestamp_nanos)
        .map_err(|e| format!("{e}; write it like 2026-01-31T12:00:00Z"))
}

impl Filter {
    /// Whether everything fits.
    pub(super) fn is_empty(&self) -> bool {
        let Self { agent, session, since, until, verdict, rule, object, kind } = self;
        [agent, session, verdict, rule, object, kind].iter().all(|text| text.is_none())
            && since.is_none()
            && until.is_none()
    }

    /// Whether a record fits.
    pub(super) fn fits(&self, record: &Map<String, Value>) -> bool {
        let Self { agent, session, since, until, verdict, rule, object, kind } = self;
        let text = |key: &str| record.get(key).and_then(Value::as_str);
        let same = |key, wanted: &Option<String>| wanted.as_ref().is_none_or(|w| text(key) == Some(w));
        let within = |key: &str, wanted: &Option<String>| {
            let has = |wanted: &String| record.get(key).is_some_and(|value| contains(value, wanted));
            wanted.as_ref().is_none_or(has)
        };
        let at = text("time").and_then(|time| OffsetDateTime::parse(time, &Rfc3339).ok());
        let at = at.map(OffsetDateTime::unix_timestamp_nanos);
        same("agent", agent)
            && same("verdict", verdict)
            && same("kind", kind)
            && session.as_ref().is_none_or(|id| text("session").is_some_and(|s| s.starts_with(id.as_str())))
            && since.is_none_or(|since| at.is_some_and(|at| at >= since))
            && until.is_none_or(|until| at.is_some_and(|at| at < until))
            && within("rule", rule)
            && within("object", object)
    }
}

/// Whether some text or number in a value has `wanted` in it.
fn contains(value: &Value, wanted: &str) -> bool {
    match value {
        Value::String(text) => text.contains(wanted),
        Value::Number(number) => number.to_string().contains(wanted),
        Value::Array(all) => all.iter().any(|value| contains(value, wanted)),
        Value::Object(all) => all.values().any(|value| contains(value, wanted)),
        Value::Null | Value::Bool(_) => false,
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    fn fits(change: impl FnOnce(&mut Filter)) -> bool {
        let record = json!({
            "agent": "bot", "session": "00ab12", "time": "2026-01-31T12:00:00.000000001Z", "verdict": "deny",
            "kind": "decision", "rule": [{"text": "deny read **/.env"}], "object": {"path": "/w/.env", "inode": 77},
        });
        let mut filter = Filter::default();
        change(&mut filter);
        filter.fits(record.as_object().expect("object"))
    }

    #[test]
    fn every_part_selects_and_all_must_fit() {
        let some = |text: &str| Some(text.to_owned());
        assert!(fits(|_| ()));
        assert!(fits(|f| f.agent = some("bot")) && !fits(|f| f.agent = some("bo")));
        assert!(fits(|f| f.session = some("00ab")) && !fits(|f| f.session = some("ab")));
        assert!(fits(|f| f.verdict = some("deny")) && !fits(|f| f.verdict = some("hold")));
        assert!(fits(|f| f.kind = some("decision")) && !fits(|f| f.kind = some("lost")));
        assert!(fits(|f| f.rule = some(".env")) && !fits(|f| f.rule = some("no rule")));
        assert!(fits(|f| f.object = some("/w/")) && fits(|f| f.object = some("77")));
        assert!(!fits(|f| (f.agent, f.object) = (some("bot"), some("/x"))));
    }

    #[test]
    fn times_are_a_half_open_range() {
        let at = time("2026-01-31T13:00:00.000000001+01:00").expect("valid");
        assert!(fits(|f| f.since = Some(at)) && !fits(|f| f.since = Some(at + 1)));
        assert!(!fits(|f| f.until = Some(at)) && fits(|f| f.until = Some(at + 1)));
        assert!(time("yesterday").is_err());
    }
}
