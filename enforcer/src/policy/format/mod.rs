//! The one layout of a document. Comments stay where they belong; what a document means does not change.
//!
//! Keys stand in the order of the documentation, rules in their own. A mapping or list is written on one
//! line where it fits and has no comment inside. A comment on a line of its own belongs to what follows,
//! one at the end of a line to what that line starts with, and goes where that goes. What would be lost
//! (anchors, aliases, tags, directives) is an error, not a loss.

mod comments;
pub(super) mod items;
pub(super) mod scalar;
mod write;

use super::{
    problem::{PolicyErrors, Problem},
    profile::parse_profile,
    validate::parse,
    yaml::{self, Node, Value},
};
use comments::comments;
use items::Items;

/// Why a text is not laid out anew.
#[derive(Clone, Debug, thiserror::Error)]
pub enum FormatError {
    /// It is not a valid document, or has something that would be lost.
    #[error(transparent)]
    Document(#[from] PolicyErrors),
    /// The result would not say the same: a fault of this program.
    #[error("{source_name}: the new layout would change {what}, so the text stays as it is")]
    Unsure {
        /// The name under which the text was read.
        source_name: String,
        /// What would be lost.
        what: &'static str,
    },
}

/// Lays out a valid policy or profile.
pub fn format(source_name: &str, text: &str) -> Result<String, FormatError> {
    let fail = |problem: Problem| PolicyErrors::new(source_name, text, vec![problem]);
    let node = yaml::read(text).map_err(fail)?;
    let is_profile =
        entry(&node, "kind").is_some_and(|kind| matches!(kind, Value::Text(k) if k == "Profile"));
    if is_profile {
        parse_profile(source_name, text)?;
    } else {
        parse(source_name, text)?;
    }
    let remarks = comments(text, &node).map_err(fail)?;
    let expected = texts(&remarks);
    let items = Items::new(&node, remarks, text);
    let out = write::document(&items);
    let unsure = |what| FormatError::Unsure { source_name: source_name.to_owned(), what };
    let again = yaml::read(&out).map_err(|_| unsure("the document"))?;
    if !same(&node, &again) {
        return Err(unsure("the document"));
    }
    match comments(&out, &again) {
        Ok(kept) if texts(&kept) == expected => Ok(out),
        _ => Err(unsure("a comment")),
    }
}

fn texts(comments: &[comments::Comment<'_>]) -> Vec<String> {
    let mut texts: Vec<String> = comments.iter().map(|comment| comment.text.to_owned()).collect();
    texts.sort();
    texts
}

fn entry<'a>(node: &'a Node, name: &str) -> Option<&'a Value> {
    let Value::Map(entries) = &node.value else { return None };
    entries.iter().find(|(key, _)| key.name == name).map(|(_, node)| &node.value)
}

/// Whether two trees are equal but for places and the order of keys.
fn same(a: &Node, b: &Node) -> bool {
    match (&a.value, &b.value) {
        (Value::List(a), Value::List(b)) => a.len() == b.len() && a.iter().zip(b).all(|(a, b)| same(a, b)),
        (Value::Map(a), Value::Map(b)) => {
            let equal = |(key, node): &(yaml::Key, Node)| {
                b.iter().any(|(other, value)| other.name == key.name && same(node, value))
            };
            a.len() == b.len() && a.iter().all(equal)
        }
        (Value::Null, Value::Null) => true,
        (Value::Bool(a), Value::Bool(b)) => a == b,
        (Value::Integer(a), Value::Integer(b)) => a == b,
        (Value::Natural(a), Value::Natural(b)) => a == b,
        (Value::Float(a), Value::Float(b)) => a.to_bits() == b.to_bits(),
        (Value::Text(a), Value::Text(b)) => a == b,
        _ => false,
    }
}
