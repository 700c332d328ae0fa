//! A record as a leaf of the log, version 1. Pure, but for the salts that are passed in.
//!
//! The leaf is the record's JSON object in canonical form: UTF-8, no white space, keys sorted, strings
//! escaped as RFC 8785 has them, integers in full. Fields of the log's own are added: `leaf` (this format's
//! version), `host`, `boot` and `seq` (the index in the log).
//!
//! Numbers, truth values and what `readable.rs` names stand in the leaf as they are. Every other text (paths,
//! arguments, people's and agents' words, errors), and whatever is long, is *sealed*: the leaf has `{"sealed":C}` in its place, where C is the base64 of
//! `SHA-256("enforcer/sealed/v1\n" || salt || pointer || "\n" || value)`, the salt has 16 bytes, the
//! pointer is the value's place (RFC 6901) and the value is canonical JSON. Salt and value lie beside the
//! leaf, in the *clear part*: an object from pointers to `[salt, value]`. Without it nobody can tell the
//! value, and all proofs hold. A record whose leaf would not fit an entry bundle is sealed as a whole
//! (pointer: the empty string, in the field `record`).

mod open;
mod readable;

pub use open::{Disclosed, LeafError, Opened, disclose, open};

use crate::event::flat::{Flat, View};
use base64::{Engine as _, prelude::BASE64_STANDARD};
use readable::Readable;
use serde_json::{Map, Value};
use sha2::{Digest, Sha256};
use std::ops::Range;

/// Version of this format.
pub const VERSION: u64 = 1;
/// The longest leaf that an entry bundle can hold: lengths have two bytes there.
pub const LONGEST: usize = u16::MAX as usize;
/// A field that is longer as JSON is sealed whatever it is, so that leaves stay small. Bytes.
const LONG: usize = 1024;
/// Domain separation of the commitments.
const DOMAIN: &[u8] = b"enforcer/sealed/v1\n";

/// Bytes of a salt.
pub type Salt = [u8; 16];

/// Where records come from: the same for all that a daemon writes between two boots.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Place {
    /// The host's id.
    pub host: String,
    /// The boot's id.
    pub boot: String,
}

/// A record as the log takes it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Sealed {
    /// What is hashed and signed.
    pub leaf: Vec<u8>,
    /// What the leaf commits to; empty where that is nothing.
    pub clear: Vec<u8>,
}

/// Makes the leaf number `seq` of a record.
pub fn seal(record: &Map<String, Value>, place: &Place, seq: u64, salts: &mut dyn FnMut() -> Salt) -> Sealed {
    let mut room = Room::default();
    let mut writer = Writer::new(&mut room, false, salts);
    let mut own = Own::new(place, seq);
    let kind = readable::kind_of(record);
    for (key, value) in record {
        own.before(key, &mut writer);
        writer.field(kind, key, value);
    }
    own.rest(&mut writer);
    writer.finish();
    if room.leaf.len() > LONGEST {
        let mut writer = Writer::new(&mut room, false, salts);
        let mut own = Own::new(place, seq);
        own.before("record", &mut writer);
        writer.key("record");
        writer.seal("", record);
        own.rest(&mut writer);
        writer.finish();
    }
    Sealed { leaf: room.leaf, clear: room.clear }
}

/// A leaf in the making, in buffers that serve the next one too.
#[derive(Debug, Default)]
pub struct Room {
    /// See [`Sealed::leaf`].
    pub leaf: Vec<u8>,
    /// See [`Sealed::clear`].
    pub clear: Vec<u8>,
    /// The text of the record as it is read back from the leaf with the whole clear part, where that was wanted.
    pub shown: Vec<u8>,
    /// Where the record's kind stands there.
    pub kind: Range<usize>,
}

/// As [`seal`], of a record of the kernel, and without memory of its own. With `shows` the text is made too.
pub fn seal_flat(
    record: &Flat,
    place: &Place,
    seq: u64,
    shows: bool,
    salts: &mut dyn FnMut() -> Salt,
    room: &mut Room,
) {
    let mut writer = Writer::new(room, shows, salts);
    let mut own = Own::new(place, seq);
    let kind = record.get("kind").and_then(|text| serde_json::from_slice(text).ok()).unwrap_or_default();
    for field in record.fields() {
        own.before(field.key(), &mut writer);
        writer.flat(kind, field);
    }
    own.rest(&mut writer);
    writer.finish();
    if room.leaf.len() > LONGEST {
        // Far too long for anything but the slow way; the text is the same.
        let sealed = seal(&record.to_map(), place, seq, salts);
        (room.leaf, room.clear) = (sealed.leaf, sealed.clear);
    }
}

/// The text of a record as it is read back from its leaf number `seq` with the whole clear part.
pub fn show(record: &Map<String, Value>, place: &Place, seq: u64) -> Disclosed {
    let mut text = Vec::with_capacity(1024);
    let mut own = Own::new(place, seq);
    for (key, value) in record {
        own.put_before(key, [&mut text]);
        text.push(if text.is_empty() { b'{' } else { b',' });
        put(&mut text, key);
        text.push(b':');
        put(&mut text, value);
    }
    own.put_before(LAST, [&mut text]);
    text.push(b'}');
    let kind = record.get("kind").and_then(Value::as_str).unwrap_or_default().to_owned();
    Disclosed { text: String::from_utf8(text).expect("JSON is UTF-8"), kind }
}

/// Sorts after every key that records have.
const LAST: &str = "\u{10ffff}";

/// The fields that the log adds, in order.
struct Own<'a> {
    fields: [(&'static str, OwnValue<'a>); 4],
    next: usize,
}

#[derive(Clone, Copy)]
enum OwnValue<'a> {
    Text(&'a str),
    Number(u64),
}

impl<'a> Own<'a> {
    fn new(place: &'a Place, seq: u64) -> Self {
        let fields = [
            ("boot", OwnValue::Text(&place.boot)),
            ("host", OwnValue::Text(&place.host)),
            ("leaf", OwnValue::Number(VERSION)),
            ("seq", OwnValue::Number(seq)),
        ];
        Self { fields, next: 0 }
    }

    /// Writes those that come before `key`.
    fn before(&mut self, key: &str, writer: &mut Writer<'_>) {
        let Room { leaf, shown, .. } = &mut *writer.room;
        if writer.shows { self.put_before(key, [leaf, shown]) } else { self.put_before(key, [leaf]) }
    }

    fn put_before<const N: usize>(&mut self, key: &str, mut outs: [&mut Vec<u8>; N]) {
        // Most keys are told apart by their first byte, without a call.
        let first = key.as_bytes().first().copied().unwrap_or_default();
        let before = |name: &str| name.as_bytes().first().is_some_and(|byte| *byte <= first) && name < key;
        while let Some((name, value)) = self.fields.get(self.next).filter(|(name, _)| before(name)) {
            for out in &mut outs {
                put_key(out, name);
                match value {
                    OwnValue::Text(text) => put(out, text),
                    OwnValue::Number(number) => put(out, number),
                }
            }
            self.next += 1;
        }
    }

    fn rest(&mut self, writer: &mut Writer<'_>) {
        self.before(LAST, writer);
    }
}

/// Whether there is text in a value: a string or a key.
fn has_text(value: &Value) -> bool {
    match value {
        Value::Null | Value::Bool(_) | Value::Number(_) => false,
        Value::String(_) => true,
        Value::Array(items) => items.iter().any(has_text),
        Value::Object(object) => !object.is_empty(),
    }
}

/// A key that needs no escapes, with what stands before and after it.
fn put_key(out: &mut Vec<u8>, key: &str) {
    out.extend_from_slice(if out.is_empty() { b"{\"" } else { b",\"" });
    out.extend_from_slice(key.as_bytes());
    out.extend_from_slice(b"\":");
}

struct Writer<'a> {
    room: &'a mut Room,
    shows: bool,
    salts: &'a mut dyn FnMut() -> Salt,
}

impl<'a> Writer<'a> {
    fn new(room: &'a mut Room, shows: bool, salts: &'a mut dyn FnMut() -> Salt) -> Self {
        room.leaf.clear();
        room.clear.clear();
        room.shown.clear();
        room.kind = 0..0;
        Self { room, shows, salts }
    }

    fn key(&mut self, key: &str) {
        self.room.leaf.push(if self.room.leaf.is_empty() { b'{' } else { b',' });
        put(&mut self.room.leaf, key);
        self.room.leaf.push(b':');
    }

    fn field(&mut self, kind: &str, key: &str, value: &Value) {
        self.key(key);
        let (start, clear_start) = (self.room.leaf.len(), self.room.clear.len());
        match (readable::of(kind, key), value) {
            (Readable::Members(names), Value::Object(object)) => self.object(key, object, names),
            (Readable::All, _) => put(&mut self.room.leaf, value),
            _ if has_text(value) => return self.seal(&format!("/{key}"), value),
            _ => put(&mut self.room.leaf, value),
        }
        if self.room.leaf.len() - start > LONG {
            self.room.leaf.truncate(start);
            self.room.clear.truncate(clear_start);
            self.seal(&format!("/{key}"), value);
        }
    }

    fn flat(&mut self, kind: &str, field: View<'_>) {
        let (key, text) = (field.key(), field.text());
        put_key(&mut self.room.leaf, key);
        if self.shows {
            let shown = &mut self.room.shown;
            put_key(shown, key);
            if key == "kind" && text.len() > 2 {
                // Within its quotes.
                self.room.kind = shown.len() + 1..shown.len() + text.len() - 1;
            }
            shown.extend_from_slice(text);
        }
        let (start, clear_start) = (self.room.leaf.len(), self.room.clear.len());
        // Within JSON a quotation mark begins a string or a key.
        let has_text = |text: &[u8]| text.contains(&b'"');
        let mut done = 0;
        match readable::of(kind, key) {
            Readable::Members(names) if text.first() == Some(&b'{') => {
                let closed =
                    |member: &str, at: &Range<usize>| !names.contains(&member) && has_text(&text[at.clone()]);
                for (member, at) in field.members().filter(|(member, at)| closed(member, at)) {
                    self.room.leaf.extend_from_slice(&text[done..at.start]);
                    self.seal_text(&["/", key, "/", member], &text[at.clone()]);
                    done = at.end;
                }
            }
            Readable::All => {}
            _ if has_text(text) => return self.seal_text(&["/", key], text),
            _ => {}
        }
        self.room.leaf.extend_from_slice(&text[done..]);
        if self.room.leaf.len() - start > LONG {
            self.room.leaf.truncate(start);
            self.room.clear.truncate(clear_start);
            self.seal_text(&["/", key], text);
        }
    }

    fn object(&mut self, field: &str, object: &Map<String, Value>, readable: &[&str]) {
        self.room.leaf.push(b'{');
        for (at, (key, value)) in object.iter().enumerate() {
            if at > 0 {
                self.room.leaf.push(b',');
            }
            put(&mut self.room.leaf, key);
            self.room.leaf.push(b':');
            if !readable.contains(&key.as_str()) && has_text(value) {
                self.seal(&format!("/{field}/{key}"), value);
            } else {
                put(&mut self.room.leaf, value);
            }
        }
        self.room.leaf.push(b'}');
    }

    /// Puts a commitment into the leaf, and salt and value into the clear part.
    fn seal<T: serde::Serialize + ?Sized>(&mut self, pointer: &str, value: &T) {
        self.seal_with(&[pointer], |out| put(out, value));
    }

    /// The same of a value that is JSON already; the pointer in its parts, which need no escapes.
    fn seal_text(&mut self, pointer: &[&str], value: &[u8]) {
        self.seal_with(pointer, |out| out.extend_from_slice(value));
    }

    fn seal_with(&mut self, pointer: &[&str], value: impl FnOnce(&mut Vec<u8>)) {
        let salt = (self.salts)();
        self.room.clear.push(if self.room.clear.is_empty() { b'{' } else { b',' });
        match pointer {
            [one] => put(&mut self.room.clear, *one),
            parts => {
                self.room.clear.push(b'"');
                parts.iter().for_each(|part| self.room.clear.extend(part.as_bytes()));
                self.room.clear.push(b'"');
            }
        }
        self.room.clear.extend(b":[\"");
        base64(&mut self.room.clear, &salt);
        self.room.clear.extend(b"\",");
        let start = self.room.clear.len();
        value(&mut self.room.clear);
        let digest = commitment(&salt, pointer, &self.room.clear[start..]);
        self.room.clear.push(b']');
        self.room.leaf.extend(b"{\"sealed\":\"");
        base64(&mut self.room.leaf, &digest);
        self.room.leaf.extend(b"\"}");
    }

    fn finish(self) {
        let Room { leaf, clear, shown, .. } = self.room;
        leaf.push(b'}');
        if !clear.is_empty() {
            clear.push(b'}');
        }
        if self.shows {
            shown.push(b'}');
        }
    }
}

/// Appends canonical JSON. Maps of `serde_json` are sorted.
fn put<T: serde::Serialize + ?Sized>(out: &mut Vec<u8>, value: &T) {
    serde_json::to_writer(out, value).expect("JSON values can be written to memory");
}

fn base64(out: &mut Vec<u8>, bytes: &[u8]) {
    let start = out.len();
    out.resize(start + bytes.len().div_ceil(3) * 4, 0);
    BASE64_STANDARD.encode_slice(bytes, &mut out[start..]).expect("room was made");
}

fn commitment(salt: &Salt, pointer: &[&str], value: &[u8]) -> [u8; 32] {
    let digest = Sha256::new().chain_update(DOMAIN).chain_update(salt);
    let digest = pointer.iter().fold(digest, |digest, part| digest.chain_update(part));
    digest.chain_update(b"\n").chain_update(value).finalize().into()
}

#[cfg(test)]
#[path = "../tests/leaf.rs"]
mod tests;
