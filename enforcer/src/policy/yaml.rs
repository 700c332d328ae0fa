//! YAML text → a tree that remembers where everything stands.

use super::problem::{Position, Problem};
use crate::event::text::is_plain;
use serde::de::{Deserialize, Deserializer, MapAccess, SeqAccess, Visitor};
use serde_saphyr::{Budget, DuplicateKeyPolicy, Error, Location, MergeKeyPolicy, Options, Spanned};
use std::fmt;

/// Largest policy text.
pub(super) const TEXT: usize = 16 << 20;

/// A node of the document.
#[derive(Clone, Debug)]
pub(super) struct Node {
    pub(super) at: Position,
    /// Bytes of a scalar in the text, quotes included.
    pub(super) bytes: u32,
    pub(super) value: Value,
}

/// What a node is.
#[derive(Clone, Debug)]
pub(super) enum Value {
    Null,
    Bool(bool),
    Integer(i64),
    Natural(u64),
    Float(f64),
    Text(String),
    List(Vec<Node>),
    Map(Vec<(Key, Node)>),
}

/// A key of a mapping.
#[derive(Clone, Debug)]
pub(super) struct Key {
    pub(super) at: Position,
    /// Bytes in the text, quotes included.
    pub(super) bytes: u32,
    pub(super) name: String,
}

/// Reads one document.
pub(super) fn read(text: &str) -> Result<Node, Problem> {
    let start = Position { line: 1, column: 1, offset: 0 };
    if text.len() > TEXT {
        return Err(Problem::new(
            start,
            format!("the file is larger than {} MiB", TEXT >> 20),
            "split the agent's rules into fewer, wider ones",
        ));
    }
    if let Some(problem) = unseen(text) {
        return Err(problem);
    }
    serde_saphyr::from_str_with_options::<Spanned<Value>>(text, options())
        .map(node)
        .map_err(|error| problem(text, &error))
}

/// The first character that makes a text look unlike what it says. YAML takes a carriage return alone for the
/// end of a line (YAML 1.2.2, 5.4), which what shows a change to its reviewer often does not, so that rules
/// could hide in what looks like a comment; others hide, or turn the order in which text is shown.
fn unseen(text: &str) -> Option<Problem> {
    let bytes = text.as_bytes();
    let seen = |at: usize, c: char| match c {
        '\n' | '\t' => true,
        '\r' => bytes.get(at + 1) == Some(&b'\n'),
        '\u{feff}' => at == 0,
        c => is_plain(c),
    };
    let (offset, found) = text.char_indices().find(|(at, c)| !seen(*at, *c))?;
    let before = &text[..offset];
    let line_start = before.rfind('\n').map_or(0, |end| end + 1);
    let at = Position {
        line: before.matches('\n').count() as u32 + 1,
        column: before[line_start..].chars().count() as u32 + 1,
        offset: offset as u32,
    };
    let code = u32::from(found);
    Some(if found == '\r' {
        let remedy = "end lines with a line feed, with or without a carriage return before it";
        Problem::new(
            at,
            "a carriage return stands alone, which few programs show as the end of a line",
            remedy,
        )
    } else {
        let remedy = format!("remove it, or write \"\\U{code:08x}\" between double quotes");
        Problem::new(
            at,
            format!("the text contains U+{code:04X}, which cannot be seen as what it is"),
            remedy,
        )
    })
}

fn options() -> Options {
    let mut budget = Budget::default();
    budget.max_events = 2_000_000;
    budget.max_nodes = 1_000_000;
    budget.max_depth = 32;
    budget.max_aliases = 64;
    budget.max_anchors = 64;
    budget.max_recorded_anchor_events = 10_000;
    budget.max_recorded_anchor_bytes = 1 << 20;
    budget.max_total_scalar_bytes = TEXT;
    let mut options = serde_saphyr::options! {
        budget: Some(budget),
        duplicate_keys: DuplicateKeyPolicy::Error,
        merge_keys: MergeKeyPolicy::Error,
        strict_booleans: true,
        reject_unsupported_tags: true,
    };
    options.alias_limits.max_total_replayed_events = 10_000;
    options.alias_limits.max_replay_stack_depth = 4;
    options
}

fn node(spanned: Spanned<Value>) -> Node {
    let at = if spanned.referenced == Location::UNKNOWN { spanned.defined } else { spanned.referenced };
    Node { at: position(&at), bytes: bytes(&at), value: spanned.value }
}

fn position(location: &Location) -> Position {
    let small = |n: u64| u32::try_from(n).unwrap_or(u32::MAX);
    Position {
        line: small(location.line()),
        column: small(location.column()),
        offset: location.span().byte_offset().map_or(u32::MAX, small),
    }
}

fn bytes(location: &Location) -> u32 {
    location.span().byte_len().and_then(|bytes| u32::try_from(bytes).ok()).unwrap_or(0)
}

/// What the parser complains about, in our words where there is something to add.
fn problem(text: &str, error: &Error) -> Problem {
    let at = error.location().map_or(Position { line: 1, column: 1, offset: 0 }, |at| position(&at));
    let error = error.without_snippet();
    let remedy = match error {
        Error::MultipleDocuments { .. } => "put each agent's policy into a file of its own",
        Error::DuplicateMappingKey { .. } => "remove one of the two; lists of rules are joined by hand",
        Error::MergeKeyNotAllowed { .. } => "write the keys out, or use `include`",
        Error::Budget { .. } => "the file is far larger or more deeply nested than any policy needs",
        Error::Eof { .. } => "a policy starts with `apiVersion: enforcer/v1`",
        error if error.to_string().contains("alias") => {
            "a value that starts with `*` needs quotes, as in \"**/.env\": without them it is a YAML alias"
        }
        _ if text.contains('\t') => "YAML is indented with spaces, not tabs; quote paths that start with `*`",
        _ => "quote values that contain special characters, such as paths that start with `*`",
    };
    let message = match error {
        Error::MultipleDocuments { .. } => "the file has more than one YAML document".to_owned(),
        other => other.to_string(),
    };
    // The parser repeats the place at the end of its message.
    let message = message.split(" at line ").next().unwrap_or_default().trim_end_matches(',').to_owned();
    Problem::new(at, message, remedy)
}

impl<'de> Deserialize<'de> for Value {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        deserializer.deserialize_any(ValueVisitor)
    }
}

struct ValueVisitor;

impl<'de> Visitor<'de> for ValueVisitor {
    type Value = Value;

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("a YAML value")
    }

    fn visit_unit<E>(self) -> Result<Value, E> {
        Ok(Value::Null)
    }

    fn visit_none<E>(self) -> Result<Value, E> {
        Ok(Value::Null)
    }

    fn visit_bool<E>(self, value: bool) -> Result<Value, E> {
        Ok(Value::Bool(value))
    }

    fn visit_i64<E>(self, value: i64) -> Result<Value, E> {
        Ok(u64::try_from(value).map_or(Value::Integer(value), Value::Natural))
    }

    fn visit_u64<E>(self, value: u64) -> Result<Value, E> {
        Ok(Value::Natural(value))
    }

    fn visit_f64<E>(self, value: f64) -> Result<Value, E> {
        Ok(Value::Float(value))
    }

    fn visit_str<E>(self, value: &str) -> Result<Value, E> {
        Ok(Value::Text(value.to_owned()))
    }

    fn visit_string<E>(self, value: String) -> Result<Value, E> {
        Ok(Value::Text(value))
    }

    fn visit_seq<A: SeqAccess<'de>>(self, mut list: A) -> Result<Value, A::Error> {
        let mut nodes = Vec::new();
        while let Some(item) = list.next_element::<Spanned<Value>>()? {
            nodes.push(node(item));
        }
        Ok(Value::List(nodes))
    }

    fn visit_map<A: MapAccess<'de>>(self, mut map: A) -> Result<Value, A::Error> {
        let mut entries = Vec::new();
        while let Some(key) = map.next_key::<Spanned<String>>()? {
            let (at, bytes) = (position(&key.referenced), bytes(&key.referenced));
            let value = map.next_value::<Spanned<Value>>()?;
            entries.push((Key { at, bytes, name: key.value }, node(value)));
        }
        Ok(Value::Map(entries))
    }
}
