//! A record as the JSON texts of its fields, in one buffer that is used again for the next one: what the log, its
//! live copy and commitments need, without a tree of values.

use serde_json::{Map, Value};
use std::ops::Range;

/// A record: fields in the order of their keys.
#[derive(Debug, Default)]
pub struct Flat {
    text: Vec<u8>,
    fields: Vec<Field>,
    members: Vec<Member>,
}

#[derive(Debug)]
struct Field {
    key: &'static str,
    text: Range<usize>,
    /// Those of [`Flat::members`] that are this field's.
    members: Range<usize>,
}

/// A value inside a field that is an object.
#[derive(Debug)]
struct Member {
    key: &'static str,
    text: Range<usize>,
}

/// One field.
#[derive(Clone, Copy, Debug)]
pub struct View<'a> {
    flat: &'a Flat,
    field: &'a Field,
}

impl Flat {
    /// Forgets the record; the room stays.
    pub fn clear(&mut self) {
        self.text.clear();
        self.fields.clear();
        self.members.clear();
    }

    /// Adds a field; keys come in their order. `write` writes the value as canonical JSON.
    pub(super) fn put(&mut self, key: &'static str, write: impl FnOnce(&mut Vec<u8>)) {
        debug_assert!(self.fields.last().is_none_or(|last| last.key < key), "{key} is out of order");
        let start = self.text.len();
        write(&mut self.text);
        let none = self.members.len()..self.members.len();
        self.fields.push(Field { key, text: start..self.text.len(), members: none });
    }

    /// Adds a field that is an object, or null where it has no members.
    pub(super) fn put_object(&mut self, key: &'static str, write: impl FnOnce(&mut Members<'_>)) {
        debug_assert!(self.fields.last().is_none_or(|last| last.key < key), "{key} is out of order");
        let (start, first) = (self.text.len(), self.members.len());
        write(&mut Members { flat: self, first });
        if self.members.len() == first {
            self.text.extend(b"null");
        } else {
            self.text.push(b'}');
        }
        let members = first..self.members.len();
        self.fields.push(Field { key, text: start..self.text.len(), members });
    }

    /// The fields, in the order of their keys.
    pub fn fields(&self) -> impl Iterator<Item = View<'_>> {
        self.fields.iter().map(|field| View { flat: self, field })
    }

    /// The JSON text of a field.
    pub fn get(&self, key: &str) -> Option<&[u8]> {
        let field = self.fields.iter().find(|field| field.key == key)?;
        Some(&self.text[field.text.clone()])
    }

    /// Whether a field is this text, which needs no escapes.
    pub fn is(&self, key: &str, text: &str) -> bool {
        let value = self.get(key).unwrap_or_default();
        value.len() == text.len() + 2 && &value[1..value.len() - 1] == text.as_bytes()
    }

    /// How many acts the record stands for.
    pub fn acts(&self) -> u64 {
        let count = self.get("count").and_then(|text| std::str::from_utf8(text).ok()?.parse().ok());
        count.unwrap_or(1)
    }

    /// Appends the fields, each with a comma before it.
    pub fn write_fields(&self, out: &mut Vec<u8>) {
        out.reserve(self.text.len() + self.fields.len() * 16);
        for field in &self.fields {
            out.extend(b",\"");
            out.extend(field.key.as_bytes());
            out.extend(b"\":");
            out.extend(&self.text[field.text.clone()]);
        }
    }

    /// The record as a map of values.
    pub fn to_map(&self) -> Map<String, Value> {
        let value = |field: &Field| {
            let value = serde_json::from_slice(&self.text[field.text.clone()]);
            (field.key.to_owned(), value.expect("fields are JSON"))
        };
        self.fields.iter().map(value).collect()
    }
}

impl<'a> View<'a> {
    /// The key.
    pub fn key(&self) -> &'static str {
        self.field.key
    }

    /// The value as JSON.
    pub fn text(&self) -> &'a [u8] {
        &self.flat.text[self.field.text.clone()]
    }

    /// The values inside an object: key, and the place within [`View::text`].
    pub fn members(&self) -> impl Iterator<Item = (&'static str, Range<usize>)> + 'a {
        let start = self.field.text.start;
        let members = &self.flat.members[self.field.members.clone()];
        members.iter().map(move |member| (member.key, member.text.start - start..member.text.end - start))
    }
}

/// The members of an object in the making.
pub(super) struct Members<'a> {
    flat: &'a mut Flat,
    first: usize,
}

impl Members<'_> {
    /// Adds a member; keys come in their order.
    pub(super) fn put(&mut self, key: &'static str, write: impl FnOnce(&mut Vec<u8>)) {
        let Flat { text, members, .. } = &mut *self.flat;
        text.push(if members.len() == self.first { b'{' } else { b',' });
        text.push(b'"');
        text.extend(key.as_bytes());
        text.extend(b"\":");
        let start = text.len();
        write(text);
        members.push(Member { key, text: start..text.len() });
    }
}

/// Appends text as a JSON string.
pub(super) fn string(out: &mut Vec<u8>, text: &str) {
    if text.bytes().all(|byte| byte >= b' ' && byte != b'"' && byte != b'\\') {
        out.push(b'"');
        out.extend(text.as_bytes());
        out.push(b'"');
    } else {
        value(out, text);
    }
}

/// Appends a text, or null.
pub(super) fn optional(out: &mut Vec<u8>, text: Option<&str>) {
    match text {
        Some(text) => string(out, text),
        None => out.extend(b"null"),
    }
}

/// Appends whatever JSON has.
pub(super) fn value<T: serde::Serialize + ?Sized>(out: &mut Vec<u8>, value: &T) {
    serde_json::to_writer(out, value).expect("JSON values can be written to memory");
}

/// Appends an array of what `each` writes.
pub(super) fn array<T>(
    out: &mut Vec<u8>,
    items: impl Iterator<Item = T>,
    mut each: impl FnMut(&mut Vec<u8>, T),
) {
    out.push(b'[');
    for (at, item) in items.enumerate() {
        if at > 0 {
            out.push(b',');
        }
        each(out, item);
    }
    out.push(b']');
}
