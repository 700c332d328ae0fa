//! One way to write each value.

use crate::policy::yaml::{Node, Value};

/// A scalar, or nothing for a list or mapping.
pub(super) fn scalar(node: &Node) -> Option<String> {
    Some(match &node.value {
        Value::Null => "null".to_owned(),
        Value::Bool(value) => value.to_string(),
        Value::Integer(value) => value.to_string(),
        Value::Natural(value) => value.to_string(),
        Value::Float(value) => value.to_string(),
        Value::Text(text) => string(text),
        Value::List(_) | Value::Map(_) => return None,
    })
}

/// Plain where no reader could take it for something else, else in quotes.
pub(in crate::policy) fn string(text: &str) -> String {
    if is_plain(text) {
        return text.to_owned();
    }
    let printable = text.chars().all(|c| !c.is_control() && crate::event::text::is_plain(c));
    // A backslash means itself in single quotes, which is what globs want.
    if printable && text.contains(['\\', '"']) && !text.contains('\'') {
        return format!("'{text}'");
    }
    let mut out = String::from("\"");
    for c in text.chars() {
        match c {
            '"' => out.push_str("\\\""),
            '\\' => out.push_str("\\\\"),
            '\n' => out.push_str("\\n"),
            '\t' => out.push_str("\\t"),
            c if crate::event::text::is_plain(c) => out.push(c),
            c => out.push_str(&format!("\\U{:08x}", c as u32)),
        }
    }
    out.push('"');
    out
}

fn is_plain(text: &str) -> bool {
    const WORDS: [&str; 9] = ["true", "false", "null", "yes", "no", "on", "off", "y", "n"];
    let safe =
        |c: char| c.is_ascii_alphanumeric() || matches!(c, '_' | '.' | '/' | '@' | '+' | '-' | ':' | ' ');
    let first = text.chars().next();
    let starts = first.is_some_and(|c| c.is_ascii_alphabetic() || matches!(c, '/' | '_'));
    starts
        && text.chars().all(safe)
        && !text.ends_with([' ', ':'])
        && !text.contains(": ")
        && !WORDS.contains(&text.to_ascii_lowercase().as_str())
}
