//! A record as a leaf of the log, version 1. Pure, but for the salts that are passed in.
//!
//! The leaf is the record's JSON object in canonical form: UTF-8, no white space, keys sorted, strings
//! escaped as RFC 8785 has them, integers in full. Fields of the log's own are added: `leaf` (this format's
//! version), `host`, `boot` and `seq` (the index in the log).
//!
//! What an agent may have put a secret into (paths, arguments), and whatever is long, is *sealed*: the leaf
//! has `{"sealed":C}` in its place, where C is the base64 of
//! `SHA-256("enforcer/sealed/v1\n" || salt || pointer || "\n" || value)`, the salt has 16 bytes, the
//! pointer is the value's place (RFC 6901) and the value is canonical JSON. Salt and value lie beside the
//! leaf, in the *clear part*: an object from pointers to `[salt, value]`. Without it nobody can tell the
//! value, and all proofs hold. A record whose leaf would not fit an entry bundle is sealed as a whole
//! (pointer: the empty string, in the field `record`).

use crate::event::flat::{Flat, View};
use base64::{Engine as _, prelude::BASE64_STANDARD};
use serde_json::{Map, Value};
use sha2::{Digest, Sha256};
use std::ops::Range;

/// Version of this format.
pub const VERSION: u64 = 1;
/// The longest leaf that an entry bundle can hold: lengths have two bytes there.
pub const LONGEST: usize = u16::MAX as usize;
/// A field that is longer as JSON is sealed whatever it is, so that leaves stay small. Bytes.
const LONG: usize = 1024;
/// Fields with what agents and their launchers have chosen.
const SEALED: [&str; 12] = [
    "ancestry",
    "argv",
    "argv_b64",
    "command",
    "cwd",
    "directory",
    "environment",
    "exe",
    "exe_b64",
    "raw_b64",
    "target",
    "target_b64",
];
/// The same within fields that are objects.
const SEALED_WITHIN: [(&str, &[&str]); 2] =
    [("call", &["text", "text_b64"]), ("object", &["name", "name_b64", "path", "path_b64"])];
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
    for (key, value) in record {
        own.before(key, &mut writer);
        writer.field(key, value);
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
    for field in record.fields() {
        own.before(field.key(), &mut writer);
        writer.flat(field);
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

/// What is sealed within a field.
fn sealed_within(key: &str) -> &'static [&'static str] {
    SEALED_WITHIN.iter().find(|(field, _)| *field == key).map_or(&[], |(_, members)| members)
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

    fn field(&mut self, key: &str, value: &Value) {
        self.key(key);
        let (start, clear_start) = (self.room.leaf.len(), self.room.clear.len());
        match value {
            _ if SEALED.contains(&key) && !value.is_null() => return self.seal(&format!("/{key}"), value),
            Value::Object(object) => self.object(key, object),
            _ => put(&mut self.room.leaf, value),
        }
        if self.room.leaf.len() - start > LONG {
            self.room.leaf.truncate(start);
            self.room.clear.truncate(clear_start);
            self.seal(&format!("/{key}"), value);
        }
    }

    fn flat(&mut self, field: View<'_>) {
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
        if SEALED.contains(&key) && text != b"null" {
            return self.seal_text(&["/", key], text);
        }
        let mut done = 0;
        let within = sealed_within(key);
        for (member, at) in field.members().filter(|(member, _)| within.contains(member)) {
            self.room.leaf.extend_from_slice(&text[done..at.start]);
            self.seal_text(&["/", key, "/", member], &text[at.clone()]);
            done = at.end;
        }
        self.room.leaf.extend_from_slice(&text[done..]);
        if self.room.leaf.len() - start > LONG {
            self.room.leaf.truncate(start);
            self.room.clear.truncate(clear_start);
            self.seal_text(&["/", key], text);
        }
    }

    fn object(&mut self, field: &str, object: &Map<String, Value>) {
        let within = sealed_within(field);
        if within.is_empty() {
            return put(&mut self.room.leaf, object);
        }
        self.room.leaf.push(b'{');
        for (at, (key, value)) in object.iter().enumerate() {
            if at > 0 {
                self.room.leaf.push(b',');
            }
            put(&mut self.room.leaf, key);
            self.room.leaf.push(b':');
            if within.contains(&key.as_str()) {
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

/// What is wrong with a leaf or its clear part.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum LeafError {
    /// The leaf is no canonical JSON object.
    #[error("the leaf is not canonical JSON")]
    NotCanonical,
    /// The leaf's version is another one.
    #[error("the leaf has version {0}, but this program reads {VERSION}")]
    Version(String),
    /// The leaf says another index than it has.
    #[error("the leaf says that it is record {0}")]
    Sequence(String),
    /// The clear part is no canonical object of salts and values.
    #[error("the clear part is malformed")]
    ClearMalformed,
    /// The clear part has something that the leaf does not commit to.
    #[error("the clear part has {0:?}, which the leaf does not commit to")]
    Uncommitted(String),
    /// A value is not the one that the leaf commits to.
    #[error("the value of {0:?} is not the one that the leaf commits to")]
    WrongValue(String),
}

/// A record as it was before it was sealed.
#[derive(Clone, Debug, PartialEq)]
pub struct Opened {
    /// The fields, the log's own included. What is not disclosed is still `{"sealed":…}`.
    pub record: Map<String, Value>,
    /// Values that are sealed and not disclosed.
    pub withheld: usize,
}

/// Reads leaf number `seq` and checks its clear part against it.
pub fn open(leaf: &[u8], clear: &[u8], seq: u64) -> Result<Opened, LeafError> {
    let mut record = canonical(leaf).ok_or(LeafError::NotCanonical)?;
    if record.get("leaf") != Some(&VERSION.into()) {
        return Err(LeafError::Version(record.get("leaf").map(Value::to_string).unwrap_or_default()));
    }
    if record.get("seq") != Some(&seq.into()) {
        return Err(LeafError::Sequence(record.get("seq").map(Value::to_string).unwrap_or_default()));
    }
    let clear = match clear {
        [] => Map::new(),
        bytes => canonical(bytes).ok_or(LeafError::ClearMalformed)?,
    };
    for (pointer, pair) in clear {
        let place = place_of(&mut record, &pointer);
        let sealed = place.as_ref().and_then(|place| sealed(place));
        let sealed = sealed.ok_or_else(|| LeafError::Uncommitted(pointer.clone()))?.to_owned();
        let (salt, value) = disclosed(pair).ok_or(LeafError::ClearMalformed)?;
        let digest = commitment(&salt, &[&pointer], value.to_string().as_bytes());
        if BASE64_STANDARD.encode(digest) != sealed {
            return Err(LeafError::WrongValue(pointer));
        }
        if let Some(place) = place_of(&mut record, &pointer) {
            *place = value;
        }
    }
    // A record that was sealed as a whole.
    if record.get("record").is_some_and(|whole| whole.is_object() && sealed(whole).is_none())
        && let Some(Value::Object(whole)) = record.remove("record")
    {
        record.extend(whole);
    }
    let objects = SEALED_WITHIN.iter().filter_map(|(field, _)| record.get(*field)?.as_object());
    let all = record.values().chain(objects.flat_map(Map::values));
    let withheld = all.filter(|value| sealed(value).is_some()).count();
    Ok(Opened { record, withheld })
}

/// What must be known of a leaf before its text is taken as it is.
#[derive(serde::Deserialize)]
struct Head<'a> {
    kind: &'a str,
    leaf: u64,
    seq: u64,
    record: Option<serde::de::IgnoredAny>,
}

/// A record's text and kind, see [`disclose`].
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Disclosed {
    /// The record's fields as one JSON object.
    pub text: String,
    /// Its kind.
    pub kind: String,
}

impl Disclosed {
    /// Where the kind stands in the text. Quotes are escaped within strings, so wherever its key and it are found, they
    /// say the same.
    pub fn place_of_kind(&self) -> Range<usize> {
        const KEY: &str = "\"kind\":\"";
        let start = self.text.find(&format!("{KEY}{}\"", self.kind)).map_or(0, |at| at + KEY.len());
        if start == 0 { 0..0 } else { start..start + self.kind.len() }
    }
}

/// As [`open`], but leaves the record as text: the leaf with what the clear part discloses put in its place, each
/// value checked against its commitment. `None`: not at a glance; then [`open`] can, or says what is wrong.
pub fn disclose(leaf: &[u8], clear: &[u8], seq: u64) -> Option<Disclosed> {
    const MARK: &str = "{\"sealed\":\"";
    const DIGEST: usize = 44;
    let (leaf, mut clear) = (std::str::from_utf8(leaf).ok()?, std::str::from_utf8(clear).ok()?);
    let head: Head<'_> = serde_json::from_str(leaf).ok()?;
    if (head.leaf, head.seq) != (VERSION, seq) || head.record.is_some() {
        return None;
    }
    let mut text = String::with_capacity(leaf.len() + clear.len() + 160);
    let mut rest = leaf;
    // Both have the same order. The mark stands in no string: quotes are escaped there.
    while !clear.is_empty() && clear != "}" {
        let (before, after) = rest.split_at(rest.find(MARK)?);
        let (digest, after) = after.get(MARK.len()..)?.split_at_checked(DIGEST)?;
        let (pointer, salt, value, clear_rest) = next_of_clear(clear)?;
        let key = pointer.rsplit('/').next()?;
        if !before.strip_suffix("\":").and_then(|b| b.strip_suffix(key)).is_some_and(|b| b.ends_with('"')) {
            return None;
        }
        let salt: Salt = BASE64_STANDARD.decode(salt).ok()?.try_into().ok()?;
        let mut encoded = [0; DIGEST];
        BASE64_STANDARD.encode_slice(commitment(&salt, &[pointer], value.as_bytes()), &mut encoded).ok()?;
        if encoded != digest.as_bytes() {
            return None;
        }
        text.push_str(before);
        text.push_str(value);
        rest = after.strip_prefix("\"}")?;
        clear = clear_rest;
    }
    text.push_str(rest);
    Some(Disclosed { text, kind: head.kind.to_owned() })
}

/// Pointer, salt and value that come next in a clear part, and what is behind them.
fn next_of_clear(clear: &str) -> Option<(&str, &str, &str, &str)> {
    const SALT: usize = 24;
    let (pointer, after) = clear.strip_prefix(['{', ','])?.strip_prefix('"')?.split_once('"')?;
    let (salt, after) = after.strip_prefix(":[\"")?.split_at_checked(SALT)?;
    let after = after.strip_prefix("\",")?;
    let (mut depth, mut quoted, mut escaped) = (0usize, false, false);
    for (at, byte) in after.bytes().enumerate() {
        match byte {
            _ if escaped => escaped = false,
            b'\\' if quoted => escaped = true,
            b'"' => quoted = !quoted,
            _ if quoted => {}
            b'[' | b'{' => depth += 1,
            b']' if depth == 0 => {
                let plain = !pointer.contains('\\');
                return plain.then(|| (pointer, salt, &after[..at], &after[at + 1..]));
            }
            b']' | b'}' => depth = depth.checked_sub(1)?,
            _ => {}
        }
    }
    None
}

fn place_of<'a>(record: &'a mut Map<String, Value>, pointer: &str) -> Option<&'a mut Value> {
    if pointer.is_empty() {
        return record.get_mut("record");
    }
    let mut parts = pointer.strip_prefix('/')?.split('/');
    let first = record.get_mut(parts.next()?)?;
    parts.try_fold(first, |value, part| value.as_object_mut()?.get_mut(part))
}

/// The commitment, if this is one.
fn sealed(value: &Value) -> Option<&str> {
    let object = value.as_object().filter(|object| object.len() == 1)?;
    object.get("sealed")?.as_str()
}

fn disclosed(pair: Value) -> Option<(Salt, Value)> {
    let Value::Array(pair) = pair else { return None };
    let [salt, value] = <[Value; 2]>::try_from(pair).ok()?;
    let salt = BASE64_STANDARD.decode(salt.as_str()?).ok()?;
    Some((salt.try_into().ok()?, value))
}

/// A JSON object, if these bytes are exactly its canonical form.
fn canonical(bytes: &[u8]) -> Option<Map<String, Value>> {
    let object: Map<String, Value> = serde_json::from_slice(bytes).ok()?;
    (serde_json::to_vec(&object).ok()? == bytes).then_some(object)
}

#[cfg(test)]
#[path = "tests/leaf.rs"]
mod tests;
