//! The entries of all mappings and lists of a document, each with the comments that belong to it.

use super::comments::Comment;
use crate::policy::yaml::{Node, Value};

/// The order in which keys are written: that of the documentation. Every key of the language is here.
pub(in crate::policy) const ORDER: [&str; 60] = [
    "apiVersion",
    "kind",
    "metadata",
    "match",
    "launch",
    "trust",
    "mode",
    "on_tighten",
    "requires",
    "include",
    "expect",
    "files",
    "exec",
    "network",
    "unix",
    "process",
    "capabilities",
    "system_calls",
    "system",
    "trace",
    "ignore",
    "stop",
    "kill",
    "tests",
    "id",
    "version",
    "owner",
    "purpose",
    "expires",
    "cgroup",
    "unit",
    "slice",
    "by",
    "run_as",
    "no_new_privileges",
    "seccomp",
    "landlock",
    "allow",
    "hold",
    "deny",
    "paths",
    "arguments",
    "sha256",
    "parent",
    "to",
    "tier",
    "because",
    "on_hold",
    "hold_timeout",
    "read",
    "write",
    "create",
    "delete",
    "rename",
    "link",
    "truncate",
    "load",
    "list",
    "connect",
    "bind",
];

/// An entry of a mapping or a list.
#[derive(Debug)]
pub(super) struct Item<'a> {
    /// Its key, in a mapping.
    pub(super) key: Option<&'a str>,
    pub(super) node: &'a Node,
    /// Entries of its value, in the order in which they are written.
    pub(super) children: Vec<usize>,
    /// Comments on lines of their own above it.
    pub(super) leading: Vec<Remark<'a>>,
    /// Comments at the end of its line.
    pub(super) trailing: Vec<&'a str>,
    /// Comments on lines of their own below it, where nothing follows that they could belong to.
    pub(super) after: Vec<Remark<'a>>,
    /// An empty line precedes it.
    pub(super) blank_before: bool,
    offset: u32,
    line: u32,
    indent: u32,
}

/// A comment on a line of its own.
#[derive(Clone, Copy, Debug)]
pub(super) struct Remark<'a> {
    pub(super) text: &'a str,
    pub(super) blank_before: bool,
}

/// A document taken apart.
#[derive(Debug)]
pub(super) struct Items<'a> {
    /// Every item, a container before what it contains.
    pub(super) all: Vec<Item<'a>>,
    /// The document's own keys, in the order in which they are written.
    pub(super) top: Vec<usize>,
    /// Comments above everything else.
    pub(super) head: Vec<Remark<'a>>,
}

impl<'a> Items<'a> {
    pub(super) fn new(root: &'a Node, comments: Vec<Comment<'a>>, text: &str) -> Self {
        let mut items = Self { all: Vec::new(), top: Vec::new(), head: Vec::new() };
        items.top = items.collect(root);
        let lines: Vec<&str> = text.lines().collect();
        for item in &mut items.all {
            let above = (item.line as usize).checked_sub(2).and_then(|above| lines.get(above));
            item.blank_before = above.is_some_and(|above| above.trim().is_empty());
        }
        comments.into_iter().for_each(|comment| items.attach(&comment));
        items.hoist();
        items
    }

    /// The key that is written first shares the line of its element's dash, and so its comments.
    fn hoist(&mut self) {
        for index in 0..self.all.len() {
            let Some(head) = self.all[index].children.first().copied() else { continue };
            if self.all[index].key.is_some() || self.all[head].key.is_none() {
                continue;
            }
            let leading = std::mem::take(&mut self.all[head].leading);
            let trailing = std::mem::take(&mut self.all[head].trailing);
            self.all[index].leading.extend(leading);
            self.all[index].trailing.extend(trailing);
        }
    }

    fn collect(&mut self, node: &'a Node) -> Vec<usize> {
        let mut children = Vec::new();
        match &node.value {
            Value::Map(entries) => {
                for (key, value) in entries {
                    children.push(self.add(
                        Some(&key.name),
                        value,
                        key.at.offset,
                        key.at.line,
                        key.at.column,
                    ));
                }
            }
            Value::List(nodes) => {
                for node in nodes {
                    // A block list's dash stands two columns before its entry.
                    let column = node.at.column.saturating_sub(2).max(1);
                    children.push(self.add(None, node, node.at.offset, node.at.line, column));
                }
            }
            _ => {}
        }
        let rank = |item: &usize| match self.all[*item].key {
            Some(key) => ORDER.iter().position(|known| *known == key).unwrap_or(ORDER.len()),
            None => 0,
        };
        // `exec` and `metadata` are also operations of tests, where only `expect` precedes them.
        children.sort_by_key(rank);
        children
    }

    fn add(&mut self, key: Option<&'a str>, node: &'a Node, offset: u32, line: u32, column: u32) -> usize {
        let index = self.all.len();
        self.all.push(Item {
            key,
            node,
            children: Vec::new(),
            leading: Vec::new(),
            trailing: Vec::new(),
            after: Vec::new(),
            blank_before: false,
            offset,
            line,
            indent: column - 1,
        });
        self.all[index].children = self.collect(node);
        index
    }

    fn attach(&mut self, comment: &Comment<'a>) {
        let remark = Remark { text: comment.text, blank_before: comment.blank_before };
        // A container precedes what it contains, so places only grow.
        let before = self.all.partition_point(|item| item.offset <= comment.offset);
        let next = (before < self.all.len()).then_some(before);
        if !comment.alone {
            let on_line = self.all[..before].partition_point(|item| item.line < comment.line);
            let owner = match on_line < before {
                true if comment.in_flow => Some(before - 1),
                true => Some(on_line),
                false => None,
            };
            match owner.or(before.checked_sub(1)) {
                Some(owner) => self.all[owner].trailing.push(comment.text),
                None => self.head.push(remark),
            }
            return;
        }
        let below = next.is_none_or(|next| self.all[next].indent < comment.indent);
        let owner = self.all[..before].iter().rposition(|item| item.indent <= comment.indent);
        match (next, owner) {
            (_, Some(owner)) if below => self.all[owner].after.push(remark),
            (Some(0) | None, _) => self.head.push(remark),
            (Some(next), _) => self.all[next].leading.push(remark),
        }
    }

    /// Whether comments stand inside an item, so that it cannot be written on one line.
    pub(super) fn has_inner_comments(&self, item: usize) -> bool {
        self.all[item].children.iter().any(|child| {
            let Item { leading, trailing, after, .. } = &self.all[*child];
            !(leading.is_empty() && trailing.is_empty() && after.is_empty())
                || self.has_inner_comments(*child)
        })
    }
}
