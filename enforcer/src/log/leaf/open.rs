//! A leaf with its clear part, read back: as fields, or as text.

use super::{Salt, VERSION, commitment};
use base64::{Engine as _, prelude::BASE64_STANDARD};
use serde_json::{Map, Value};
use std::ops::Range;

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
    // Only values of records and members of these were ever sealed.
    let all = record.values().chain(record.values().filter_map(Value::as_object).flat_map(Map::values));
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
