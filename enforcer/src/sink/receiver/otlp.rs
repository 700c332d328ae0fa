//! OpenTelemetry logs (OTLP 1.x) over HTTP, as protocol buffers or as JSON.

use super::{Message, Receiver, otlp_proto as proto, web::Web};
use crate::sink::{
    error::SinkError,
    item::Item,
    settings::{OtlpEncoding, OtlpSettings},
};
use prost::Message as _;
use serde_json::{Value, json};

pub(super) struct Otlp {
    web: Web,
    url: String,
    encoding: OtlpEncoding,
}

impl Otlp {
    pub(super) fn new(settings: OtlpSettings) -> Self {
        let OtlpSettings { url, encoding, token_file, tls } = settings;
        Self { web: Web::new(url.clone(), "Bearer", token_file, tls), url, encoding }
    }
}

impl Receiver for Otlp {
    fn deliver(&mut self, messages: &[Message]) -> Result<(), SinkError> {
        let (body, content) = match self.encoding {
            OtlpEncoding::Protobuf => (protobuf(messages).encode_to_vec(), "application/x-protobuf"),
            OtlpEncoding::Json => (json(messages).to_string().into_bytes(), "application/json"),
        };
        let answer = self.web.post(&body, content, messages.len())?;
        let rejected = match self.encoding {
            OtlpEncoding::Protobuf => rejected_protobuf(&answer),
            OtlpEncoding::Json => rejected(&String::from_utf8_lossy(&answer)),
        };
        match rejected {
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
    (count > 0).then(|| say_rejected(count, why))
}

fn rejected_protobuf(answer: &[u8]) -> Option<String> {
    // Some answer 200 with something else; that is no rejection.
    let partial = proto::ExportLogsServiceResponse::decode(answer).ok()?.partial_success?;
    let count = u64::try_from(partial.rejected_log_records).unwrap_or(1);
    (count > 0).then(|| say_rejected(count, &partial.error_message))
}

fn say_rejected(count: u64, why: &str) -> String {
    let why: String = crate::event::text::escape(why.as_bytes()).chars().take(200).collect();
    format!("that it rejects {count} records: {why}")
}

/// What resource attributes say.
fn resource(messages: &[Message]) -> [(&'static str, Option<&str>); 2] {
    let host = messages.iter().find_map(|message| message.item.text("host"));
    [("service.name", Some("enforcer")), ("host.id", host)]
}

fn severity(item: &Item) -> (i32, &'static str) {
    match item.severity() {
        0..=2 => (21, "FATAL"),
        3 => (17, "ERROR"),
        4 => (13, "WARN"),
        _ => (9, "INFO"),
    }
}

/// What attributes of a record say.
fn named<'a>(item: &'a Item, seq: Option<&'a str>) -> [(&'static str, Option<&'a str>); 7] {
    [
        ("event.name", Some(item.kind())),
        ("enforcer.agent", item.text("agent")),
        ("enforcer.session", item.text("session")),
        ("enforcer.verdict", item.text("verdict")),
        ("enforcer.log", item.text("log")),
        ("enforcer.seq", seq),
        ("enforcer.leaf_hash", item.text("leaf_hash")),
    ]
}

fn seq(item: &Item) -> Option<String> {
    item.fields().get("seq").and_then(Value::as_u64).map(|seq| seq.to_string())
}

fn json(messages: &[Message]) -> Value {
    json!({"resourceLogs": [{
        "resource": {"attributes": attributes(&resource(messages))},
        "scopeLogs": [{
            "scope": {"name": "enforcer.audit", "version": env!("CARGO_PKG_VERSION")},
            "logRecords": messages.iter().map(record).collect::<Vec<_>>(),
        }],
    }]})
}

fn record(message: &Message) -> Value {
    let item = &message.item;
    let (number, text) = severity(item);
    let time = item.nanoseconds().unwrap_or(0).to_string();
    json!({
        "timeUnixNano": time, "observedTimeUnixNano": time,
        "severityNumber": number, "severityText": text,
        "body": {"stringValue": message.json()}, "attributes": attributes(&named(item, seq(item).as_deref())),
    })
}

fn attributes(named: &[(&str, Option<&str>)]) -> Vec<Value> {
    let attribute = |(key, value): &(&str, Option<&str>)| -> Option<Value> {
        Some(json!({"key": key, "value": {"stringValue": (*value)?}}))
    };
    named.iter().filter_map(attribute).collect()
}

fn protobuf(messages: &[Message]) -> proto::ExportLogsServiceRequest {
    let log_record = |message: &Message| {
        let item = &message.item;
        let (severity_number, text) = severity(item);
        let time = item.nanoseconds().unwrap_or(0);
        proto::LogRecord {
            time_unix_nano: time,
            observed_time_unix_nano: time,
            severity_number,
            severity_text: text.to_owned(),
            body: Some(proto::AnyValue::text(message.json())),
            attributes: key_values(&named(item, seq(item).as_deref())),
        }
    };
    let scope = proto::InstrumentationScope {
        name: "enforcer.audit".to_owned(),
        version: env!("CARGO_PKG_VERSION").to_owned(),
    };
    let scope_logs =
        proto::ScopeLogs { scope: Some(scope), log_records: messages.iter().map(log_record).collect() };
    let resource = proto::Resource { attributes: key_values(&resource(messages)) };
    let resource_logs = proto::ResourceLogs { resource: Some(resource), scope_logs: vec![scope_logs] };
    proto::ExportLogsServiceRequest { resource_logs: vec![resource_logs] }
}

fn key_values(named: &[(&str, Option<&str>)]) -> Vec<proto::KeyValue> {
    let known = named.iter().filter_map(|(key, value)| Some((key, (*value)?)));
    known
        .map(|(key, value)| proto::KeyValue {
            key: (*key).to_owned(),
            value: Some(proto::AnyValue::text(value)),
        })
        .collect()
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
        let answer = |count| {
            let error_message = "full".to_owned();
            let partial = proto::ExportLogsPartialSuccess { rejected_log_records: count, error_message };
            rejected_protobuf(
                &proto::ExportLogsServiceResponse { partial_success: Some(partial) }.encode_to_vec(),
            )
        };
        assert_eq!((answer(0), rejected_protobuf(b""), rejected_protobuf(b"{}")), (None, None, None));
        assert_eq!(answer(2).expect("rejected"), "that it rejects 2 records: full");
    }
}
