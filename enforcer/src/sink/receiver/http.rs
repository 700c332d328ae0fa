//! HTTP: a JSON array of records, or the events of Splunk's collector.

use super::{Message, Receiver, web::Web};
use crate::sink::{
    error::SinkError,
    settings::{HttpSettings, HttpStyle},
};
use serde_json::{Value, json, value::RawValue};

pub(super) struct Http {
    web: Web,
    style: HttpStyle,
}

impl Http {
    pub(super) fn new(settings: HttpSettings) -> Self {
        let HttpSettings { url, style, token_file, tls } = settings;
        let scheme = match style {
            HttpStyle::Json => "Bearer",
            HttpStyle::Splunk => "Splunk",
        };
        Self { web: Web::new(url, scheme, token_file, tls), style }
    }
}

impl Receiver for Http {
    fn deliver(&mut self, messages: &[Message]) -> Result<(), SinkError> {
        let body = match self.style {
            HttpStyle::Json => array(messages),
            HttpStyle::Splunk => splunk(messages),
        };
        self.web.post(body.as_bytes(), "application/json", messages.len()).map(drop)
    }
}

fn array(messages: &[Message]) -> String {
    let all: Vec<&str> = messages.iter().map(|message| message.json()).collect();
    format!("[{}]", all.join(","))
}

/// Events one after the other, as the collector's `/services/collector/event` takes them.
fn splunk(messages: &[Message]) -> String {
    let mut out = String::new();
    for message in messages {
        let seconds = message.item.nanoseconds().map(|nanoseconds| {
            json!(format!("{}.{:09}", nanoseconds / 1_000_000_000, nanoseconds % 1_000_000_000))
        });
        let head = json!({
            "time": seconds, "host": message.item.text("host"), "source": "enforcer",
            "sourcetype": format!("enforcer:{}", message.item.kind()),
        });
        out.push_str(&with_event(head, message.json()));
        out.push('\n');
    }
    out
}

/// The fields of `head` that are not null, and the record as it is.
fn with_event(head: Value, json: &str) -> String {
    let mut fields: std::collections::BTreeMap<String, Box<RawValue>> = Default::default();
    for (key, value) in head.as_object().into_iter().flatten().filter(|(_, value)| !value.is_null()) {
        fields.extend(serde_json::value::to_raw_value(value).ok().map(|raw| (key.clone(), raw)));
    }
    fields.extend(RawValue::from_string(json.to_owned()).ok().map(|raw| ("event".to_owned(), raw)));
    serde_json::to_string(&fields).unwrap_or_default()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::sink::{item::Item, settings::Format};

    #[test]
    fn splunk_gets_events_with_their_times_and_others_an_array() {
        let item =
            Item::from(json!({"kind": "alive", "time": "1970-01-01T00:01:00.000000005Z", "host": "h"}));
        let messages =
            [Message::new(item, Format::Native), Message::new(Item::from(json!({})), Format::Native)];
        let text = splunk(&messages);
        let lines: Vec<Value> = text.lines().map(|l| serde_json::from_str(l).expect("json")).collect();
        assert_eq!(
            (&lines[0]["time"], &lines[0]["event"]["kind"]),
            (&json!("60.000000005"), &json!("alive"))
        );
        assert_eq!((lines[1].get("time"), &lines[1]["event"]), (None, &json!({})));
        let all: Vec<Value> = serde_json::from_str(&array(&messages)).expect("json");
        assert_eq!(all.len(), 2);
    }
}
