//! What sinks deliver: a record of the log, a checkpoint, or that records cannot be read. Pure.

use crate::{
    event::{
        json::SCHEMA,
        text::{hex, put_hex},
    },
    log::{
        leaf::{self, Sealed},
        note::Checkpoint,
        tree::{Hash, leaf_hash},
    },
};
use serde_json::{Map, Value, json};
use std::{cell::OnceCell, ops::Range, sync::Arc};

/// One thing to deliver. Its fields are those of `docs/records.md`, with those of the log (`seq`, `log`, `leaf_hash`).
#[derive(Clone, Debug)]
pub struct Item {
    /// Which of these texts it is, where it is a record whose fields nobody has asked for.
    text: Option<(Arc<Texts>, usize)>,
    fields: OnceCell<Map<String, Value>>,
}

/// Records as one JSON object each, one after the other: what comes together lies together, so that neither making nor
/// dropping one takes the allocator, which the threads that do so would wait for each other at.
#[derive(Debug)]
pub(crate) struct Texts {
    text: String,
    each: Vec<Text>,
}

/// Where a record and its kind stand.
#[derive(Clone, Debug)]
struct Text {
    all: Range<usize>,
    kind: Range<usize>,
}

/// [`Texts`] in the making.
pub(crate) struct Making {
    bytes: Vec<u8>,
    each: Vec<Text>,
    /// What is behind a record's own fields and the hash of its leaf.
    end: Vec<u8>,
}

impl Making {
    /// For records of the log `origin`, with room for so many bytes.
    pub(crate) fn new(origin: &str, room: usize) -> Self {
        // A log's name needs no escapes (see `log::note`), but nothing here depends on that.
        let end = format!("\",\"log\":{}}}", Value::from(origin)).into_bytes();
        Self { bytes: Vec::with_capacity(room), each: Vec::new(), end }
    }

    /// Adds a record: an object with fields, where its kind stands in it, and the hash of its leaf.
    pub(crate) fn add(&mut self, object: &[u8], kind: &Range<usize>, leaf_hash: &Hash) {
        let start = self.bytes.len();
        self.bytes.extend_from_slice(object.strip_suffix(b"}").unwrap_or(object));
        self.bytes.extend_from_slice(b",\"leaf_hash\":\"");
        put_hex(&mut self.bytes, leaf_hash);
        self.bytes.extend_from_slice(&self.end);
        let kind = start + kind.start..start + kind.end;
        self.each.push(Text { all: start..self.bytes.len(), kind });
    }

    /// How many there are.
    pub(crate) fn len(&self) -> usize {
        self.each.len()
    }

    pub(crate) fn done(self) -> Arc<Texts> {
        Arc::new(Texts { text: String::from_utf8(self.bytes).expect("JSON is UTF-8"), each: self.each })
    }
}

impl PartialEq for Item {
    fn eq(&self, other: &Self) -> bool {
        self.fields() == other.fields()
    }
}

impl Item {
    /// Record number `index` of the log `origin`. With `redact` everything that is sealed stays sealed.
    pub(super) fn record(origin: &str, index: u64, sealed: &Sealed, redact: bool) -> Self {
        let clear = if redact { &[][..] } else { &sealed.clear };
        if let Some(record) = leaf::disclose(&sealed.leaf, clear, index)
            && record.text.ends_with('}')
        {
            return Self::made(&record, &leaf_hash(&sealed.leaf), origin);
        }
        // A clear part that does not fit its leaf is no reason to withhold what was signed.
        let opened = leaf::open(&sealed.leaf, clear, index)
            .or_else(|first| leaf::open(&sealed.leaf, &[], index).map_err(|_| first));
        match opened {
            Ok(opened) => {
                let mut fields = opened.record;
                fields.insert("log".to_owned(), origin.into());
                fields.insert("leaf_hash".to_owned(), hex(&leaf_hash(&sealed.leaf)).into());
                fields.into()
            }
            Err(error) => Self::unreadable(origin, index, 1, &error.to_string()),
        }
    }

    /// The same of a record whose text is known: an object with fields.
    pub(crate) fn made(record: &leaf::Disclosed, leaf_hash: &Hash, origin: &str) -> Self {
        let mut texts = Making::new(origin, record.text.len() + 160);
        texts.add(record.text.as_bytes(), &record.place_of_kind(), leaf_hash);
        Self::of(&texts.done(), 0)
    }

    /// The record that is number `at` of these.
    pub(crate) fn of(texts: &Arc<Texts>, at: usize) -> Self {
        Self { text: Some((Arc::clone(texts), at)), fields: OnceCell::new() }
    }

    /// Bytes of its text, where that is all that there is.
    pub(super) fn size(&self) -> usize {
        self.text.as_ref().map_or(0, |(texts, at)| texts.each[*at].all.len())
    }

    /// A checkpoint of the log. Its time is that of the last record that it covers.
    pub(super) fn checkpoint(checkpoint: &Checkpoint, note: &[u8], time: Option<&Value>) -> Self {
        Self::from(json!({
            "schema": SCHEMA, "kind": "checkpoint", "time": time, "log": checkpoint.origin,
            "size": checkpoint.size, "root": hex(&checkpoint.root), "note": String::from_utf8_lossy(note),
        }))
    }

    /// `records` records from `index` on cannot be read.
    pub(super) fn unreadable(origin: &str, index: u64, records: u64, why: &str) -> Self {
        Self::from(json!({
            "schema": SCHEMA, "kind": "unreadable", "time": null, "log": origin, "seq": index,
            "records": records, "because": why,
        }))
    }

    /// Its fields.
    pub fn fields(&self) -> &Map<String, Value> {
        self.fields.get_or_init(|| {
            let text = self.ready().unwrap_or("{}");
            // The leaf was read before, and what was put into it is what it commits to.
            serde_json::from_str(text).unwrap_or_default()
        })
    }

    /// Its fields, to be changed.
    #[cfg(test)]
    pub(super) fn fields_mut(&mut self) -> &mut Map<String, Value> {
        self.fields();
        self.text = None;
        self.fields.get_mut().expect("they were read")
    }

    /// It as one JSON object, where that is known.
    pub(super) fn ready(&self) -> Option<&str> {
        self.text.as_ref().map(|(texts, at)| &texts.text[texts.each[*at].all.clone()])
    }

    /// It as one JSON object.
    pub fn json(&self) -> String {
        match self.ready() {
            Some(text) => text.to_owned(),
            None => serde_json::to_string(self.fields()).expect("JSON values can be written to memory"),
        }
    }

    /// The text in a field.
    pub fn text(&self, key: &str) -> Option<&str> {
        self.fields().get(key)?.as_str()
    }

    /// What it is; empty where a record does not say.
    pub fn kind(&self) -> &str {
        match &self.text {
            Some((texts, at)) => &texts.text[texts.each[*at].kind.clone()],
            None => self.text("kind").unwrap_or_default(),
        }
    }

    /// Its time since 1970.
    pub fn nanoseconds(&self) -> Option<u64> {
        let format = &time::format_description::well_known::Rfc3339;
        let time = time::OffsetDateTime::parse(self.text("time")?, format).ok()?;
        u64::try_from(time.unix_timestamp_nanos()).ok()
    }

    /// How urgent it is, in syslog's numbers (RFC 5424 section 6.2.1).
    pub fn severity(&self) -> u8 {
        match (self.kind(), self.text("verdict")) {
            ("alert", _) => 1,
            ("unreadable" | "lost" | "malformed" | "canary" | "log-begun" | "log-failed", _) => 3,
            ("decision", Some("deny" | "hold")) => 4,
            ("sink-failed" | "launch-refused" | "control-refused" | "policy-problems", _) => 4,
            ("trust-lost" | "trust-problems" | "trust-rejected", _) => 4,
            ("break-glass-begun" | "break-glass-refused", _) => 4,
            ("trust-changed" | "trust-void" | "break-glass-ended", _) => 5,
            ("daemon-started" | "daemon-stopped" | "key-handover" | "key-made" | "sink-recovered", _) => 5,
            ("log-recovered" | "truncated", _) => 5,
            _ => 6,
        }
    }

    /// One line for people, with nothing in it that could deceive a terminal.
    pub fn summary(&self) -> String {
        let object = self.fields().get("object");
        let object = ["path", "address", "name"].iter().find_map(|key| object?.get(key)?.as_str());
        let parts = ["kind", "agent", "verdict", "operation"].map(|key| self.text(key));
        let because = self.text("because").filter(|_| object.is_none());
        let words: Vec<String> = parts
            .into_iter()
            .chain([object, because])
            .flatten()
            .map(|text| text.chars().filter(|c| crate::event::text::is_plain(*c)).collect())
            .collect();
        words.join(" ")
    }
}

impl From<Value> for Item {
    fn from(value: Value) -> Self {
        let fields = match value {
            Value::Object(fields) => fields,
            other => Map::from_iter([("value".to_owned(), other)]),
        };
        fields.into()
    }
}

impl From<Map<String, Value>> for Item {
    fn from(fields: Map<String, Value>) -> Self {
        Self { text: None, fields: OnceCell::from(fields) }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn times_are_read_back() {
        for nanoseconds in [0, 5, 951_782_400_000_000_001, 1_767_225_599_999_999_999] {
            let item = Item::from(json!({"time": crate::event::text::rfc3339(nanoseconds)}));
            assert_eq!(item.nanoseconds(), Some(nanoseconds as u64));
        }
        assert_eq!(Item::from(json!({"time": "yesterday"})).nanoseconds(), None);
    }

    #[test]
    fn a_summary_cannot_deceive_a_terminal() {
        let item =
            Item::from(json!({"kind": "decision", "agent": "a\u{1b}[2J\u{202e}", "object": {"path": "/x"}}));
        assert_eq!(item.summary(), "decision a[2J /x");
    }
}
