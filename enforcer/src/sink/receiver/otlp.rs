//! OpenTelemetry logs (OTLP 1.x) over HTTP, in JSON.

use super::{Message, Receiver, web::Web};
use crate::sink::{error::SinkError, settings::OtlpSettings};
use serde_json::{Value, json};

pub(super) struct Otlp {
    web: Web,
    url: String,
}

impl Otlp {
    pub(super) fn new(settings: OtlpSettings) -> Self {
        let OtlpSettings { url, token_file, tls } = settings;
        Self { web: Web::new(url.clone(), "Bearer", token_file, tls), url }
    }
}

impl Receiver for Otlp {
    fn deliver(&mut self, messages: &[Message]) -> Result<(), SinkError> {
        let answer = self.web.post(&request(messages).to_string(), messages.len())?;
        match rejected(&answer) {
            None => Ok(()),
            // Nothing is left out silently: the sink stands still until the receiver takes them.
            Some(answer) => Err(SinkError::Refused { place: self.url.clone(), answer }),
        }
    }
}

/// What the receiver says that it has not taken.
fn rejected(answer: &str) -> Option<String> {
    let answer: Value = serde_json::from_str(answer).ok()?;
    let partial = answer.get("partialSuccess")?;
    // A 64-bit number is a string in this JSON; some send a number.
    let count = match partial.get("rejectedLogRecords")? {
        Value::String(text) => text.parse().unwrap_or(1),
        other => other.as_u64().unwrap_or(0),
    };
    let why = partial.get("errorMessage").and_then(Value::as_str).unwrap_or("no reason given");
    let why: String = crate::event::text::escape(why.as_bytes()).chars().take(200).collect();
    (count > 0).then(|| format!("that it rejects {count} records: {why}"))
}

fn request(messages: &[Message]) -> Value {
    let host = messages.iter().find_map(|message| message.item.text("host"));
    let resource = [("service.name", Some("enforcer")), ("host.id", host)];
    json!({"resourceLogs": [{
        "resource": {"attributes": attributes(&resource)},
        "scopeLogs": [{
            "scope": {"name": "enforcer.audit", "version": env!("CARGO_PKG_VERSION")},
            "logRecords": messages.iter().map(record).collect::<Vec<_>>(),
        }],
    }]})
}

fn record(message: &Message) -> Value {
    let item = &message.item;
    let (number, text) = match item.severity() {
        0..=2 => (21, "FATAL"),
        3 => (17, "ERROR"),
        4 => (13, "WARN"),
        _ => (9, "INFO"),
    };
    let seq = item.fields.get("seq").and_then(Value::as_u64).map(|seq| seq.to_string());
    let named = [
        ("event.name", Some(item.kind())),
        ("enforcer.agent", item.text("agent")),
        ("enforcer.session", item.text("session")),
        ("enforcer.verdict", item.text("verdict")),
        ("enforcer.log", item.text("log")),
        ("enforcer.seq", seq.as_deref()),
        ("enforcer.leaf_hash", item.text("leaf_hash")),
    ];
    let time = item.nanoseconds().unwrap_or(0).to_string();
    json!({
        "timeUnixNano": time, "observedTimeUnixNano": time,
        "severityNumber": number, "severityText": text,
        "body": {"stringValue": message.json}, "attributes": attributes(&named),
    })
}

fn attributes(named: &[(&str, Option<&str>)]) -> Vec<Value> {
    let attribute = |(key, value): &(&str, Option<&str>)| -> Option<Value> {
        Some(json!({"key": key, "value": {"stringValue": (*value)?}}))
    };
    named.iter().filter_map(attribute).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_partial_success_is_no_success() {
        assert_eq!(rejected("{}"), None);
        assert_eq!(rejected(r#"{"partialSuccess":{"rejectedLogRecords":"0"}}"#), None);
        assert_eq!(rejected(""), None);
        let text = rejected(r#"{"partialSuccess":{"rejectedLogRecords":"2","errorMessage":"full"}}"#);
        assert_eq!(text.expect("rejected"), "that it rejects 2 records: full");
    }
}
