//! The comments of a text: what stands behind a `#` outside every scalar.

use crate::policy::{
    problem::{Position, Problem},
    yaml::{Node, Value},
};

/// A comment.
#[derive(Clone, Debug)]
pub(super) struct Comment<'a> {
    /// From its `#` on, without white space at the end.
    pub(super) text: &'a str,
    pub(super) offset: u32,
    /// From 1.
    pub(super) line: u32,
    /// Columns before it.
    pub(super) indent: u32,
    /// Nothing else stands on its line.
    pub(super) alone: bool,
    /// An empty line precedes it.
    pub(super) blank_before: bool,
    /// It stands between brackets or braces.
    pub(super) in_flow: bool,
}

/// All comments from the top down, or the first thing that the layout could not keep.
pub(super) fn comments<'a>(text: &'a str, root: &Node) -> Result<Vec<Comment<'a>>, Problem> {
    let mut scalars = Vec::new();
    spans(root, &mut scalars);
    scalars.sort_unstable();
    let mut scalars = scalars.into_iter().peekable();
    let mut found = Vec::new();
    let (mut line, mut line_start, mut depth) = (1, 0, 0u32);
    let mut blank_line = false;
    let mut at = 0;
    let bytes = text.as_bytes();
    while at < bytes.len() {
        while scalars.peek().is_some_and(|(_, end)| *end <= at) {
            scalars.next();
        }
        if let Some((_, end)) = scalars.peek().copied().filter(|(start, _)| *start <= at) {
            // What the value's own lines look like is the writer's matter.
            for newline in (at..end.min(bytes.len())).filter(|i| bytes[*i] == b'\n') {
                (line, line_start) = (line + 1, newline + 1);
            }
            at = end;
            continue;
        }
        let place = Position {
            line,
            column: text.get(line_start..at).map_or(0, |before| before.chars().count()) as u32 + 1,
            offset: at as u32,
        };
        match bytes[at] {
            b'\n' => {
                blank_line = text[line_start..at].trim().is_empty();
                (line, line_start) = (line + 1, at + 1);
            }
            b'#' => {
                let end = text[at..].find('\n').map_or(text.len(), |end| at + end);
                found.push(Comment {
                    text: text[at..end].trim_end(),
                    offset: at as u32,
                    line,
                    indent: place.column - 1,
                    alone: text[line_start..at].trim().is_empty(),
                    blank_before: blank_line,
                    in_flow: depth > 0,
                });
                at = end;
                continue;
            }
            b'[' | b'{' => depth += 1,
            b']' | b'}' => depth = depth.saturating_sub(1),
            // White space, indicators, the heads of block scalars, the marks around the document.
            b' ' | b'\t' | b'\r' | b':' | b'-' | b',' | b'|' | b'>' | b'+' | b'.' | b'0'..=b'9' => {}
            0xef | 0xbb | 0xbf => {}
            other => return Err(unkept(place, other)),
        }
        at += 1;
    }
    Ok(found)
}

fn unkept(at: Position, byte: u8) -> Problem {
    let what = match byte {
        b'&' | b'*' => "anchors and aliases",
        b'!' => "tags",
        b'%' => "directives",
        b'?' => "keys that are marked with `?`",
        _ => "this way of writing",
    };
    Problem::new(at, format!("the canonical layout has no {what}"), "write the values out")
}

/// Where the scalars are.
fn spans(node: &Node, out: &mut Vec<(usize, usize)>) {
    let span = |at: Position, bytes: u32| (at.offset as usize, (at.offset + bytes) as usize);
    match &node.value {
        Value::List(nodes) => nodes.iter().for_each(|node| spans(node, out)),
        Value::Map(entries) => {
            for (key, node) in entries {
                out.push(span(key.at, key.bytes));
                spans(node, out);
            }
        }
        Value::Null
        | Value::Bool(_)
        | Value::Integer(_)
        | Value::Natural(_)
        | Value::Float(_)
        | Value::Text(_) => out.push(span(node.at, node.bytes)),
    }
}
