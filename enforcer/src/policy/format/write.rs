//! Items → text.

use super::{
    items::{Item, Items, Remark},
    scalar::{scalar, string},
};
use crate::policy::yaml::{Node, Value};

/// Widest line that is not one long value.
const WIDTH: usize = 100;

/// The whole document.
pub(super) fn document(items: &Items<'_>) -> String {
    let mut writer = Writer { items, out: String::new() };
    writer.remarks(0, &items.head, true);
    let gap = items.top.first().is_some_and(|first| items.all[*first].blank_before);
    if !items.head.is_empty() && gap {
        writer.out.push('\n');
    }
    for (i, item) in items.top.iter().enumerate() {
        writer.entry(0, *item, i == 0);
    }
    writer.out
}

struct Writer<'a> {
    items: &'a Items<'a>,
    out: String,
}

impl Writer<'_> {
    fn remarks(&mut self, indent: usize, remarks: &[Remark<'_>], first: bool) {
        for (i, Remark { text, blank_before }) in remarks.iter().enumerate() {
            if *blank_before && !(first && i == 0) {
                self.out.push('\n');
            }
            self.line(indent, text);
        }
    }

    fn line(&mut self, indent: usize, text: &str) {
        self.out.extend(std::iter::repeat_n(' ', indent));
        self.out.push_str(text);
        self.out.push('\n');
    }

    /// What stands above an item. `moved` are comments from the ends of lines that are no more.
    fn above(&mut self, indent: usize, item: &Item<'_>, moved: &[&str], first: bool) {
        self.remarks(indent, &item.leading, first);
        if item.blank_before && !(first && item.leading.is_empty()) {
            self.out.push('\n');
        }
        moved.iter().for_each(|text| self.line(indent, text));
    }

    /// A key with its value.
    fn entry(&mut self, indent: usize, index: usize, first: bool) {
        let item = &self.items.all[index];
        let (own, moved) = trailing(item);
        self.above(indent, item, moved, first);
        self.value(indent, &format!("{}:", string(item.key.unwrap_or_default())), index, own);
        self.remarks(indent, &item.after, false);
    }

    /// The rest of an entry behind its key.
    fn value(&mut self, indent: usize, key: &str, index: usize, own: Option<&str>) {
        let item = &self.items.all[index];
        if let Some(line) = self.one_line(indent + key.len() + 1, index) {
            self.line(indent, &with(format!("{key} {line}"), own));
            return;
        }
        self.line(indent, &with(key.to_owned(), own));
        for (i, child) in item.children.iter().enumerate() {
            match self.items.all[*child].key {
                Some(_) => self.entry(indent + 2, *child, i == 0),
                None => self.element(indent + 2, *child, i == 0),
            }
        }
    }

    /// An entry of a list.
    fn element(&mut self, indent: usize, index: usize, first: bool) {
        let item = &self.items.all[index];
        let line = self.one_line(indent + 2, index);
        if let Some(line) = line {
            let (own, moved) = trailing(item);
            self.above(indent, item, moved, first);
            self.line(indent, &with(format!("- {line}"), own));
        } else {
            // The first key shares the line of the dash; its comments are the element's.
            let (own, moved) = trailing(item);
            self.above(indent, item, moved, first);
            let children = &item.children;
            if let Some(head) = children.first() {
                let item = &self.items.all[*head];
                let key = format!("- {}:", string(item.key.unwrap_or_default()));
                // Entries of its value stand deeper than the other keys.
                self.first_value(indent, &key, *head, own);
                self.remarks(indent + 2, &item.after, false);
            }
            for child in children.iter().skip(1) {
                self.entry(indent + 2, *child, false);
            }
        }
        self.remarks(indent, &item.after, false);
    }

    /// As [`Self::value`], for the key that shares the line of a dash.
    fn first_value(&mut self, indent: usize, key: &str, index: usize, own: Option<&str>) {
        if let Some(line) = self.one_line(indent + key.len() + 1, index) {
            self.line(indent, &with(format!("{key} {line}"), own));
            return;
        }
        self.line(indent, &with(key.to_owned(), own));
        for (i, child) in self.items.all[index].children.iter().enumerate() {
            match self.items.all[*child].key {
                Some(_) => self.entry(indent + 4, *child, i == 0),
                None => self.element(indent + 4, *child, i == 0),
            }
        }
    }

    /// A value on one line, if it can be: it has no comments inside, fits, and is no list of mappings.
    fn one_line(&self, column: usize, index: usize) -> Option<String> {
        let item = &self.items.all[index];
        if let Some(scalar) = scalar(item.node) {
            return Some(scalar);
        }
        let of_maps = |node: &Node| matches!(node.value, Value::Map(_));
        let rules = matches!(&item.node.value, Value::List(nodes) if nodes.iter().any(of_maps));
        if rules || self.items.has_inner_comments(index) {
            return None;
        }
        let line = self.flow(index);
        // An empty list or mapping has no other form.
        (item.children.is_empty() || column + line.chars().count() <= WIDTH).then_some(line)
    }

    fn flow(&self, index: usize) -> String {
        let item = &self.items.all[index];
        if let Some(scalar) = scalar(item.node) {
            return scalar;
        }
        let parts: Vec<String> = item
            .children
            .iter()
            .map(|child| match self.items.all[*child].key {
                Some(key) => format!("{}: {}", string(key), self.flow(*child)),
                None => self.flow(*child),
            })
            .collect();
        match &item.node.value {
            Value::Map(_) if parts.is_empty() => "{}".to_owned(),
            Value::Map(_) => format!("{{ {} }}", parts.join(", ")),
            _ => format!("[{}]", parts.join(", ")),
        }
    }
}

/// The comment that stays at the end of the line, and those that move above it.
fn trailing<'a, 'b>(item: &'b Item<'a>) -> (Option<&'a str>, &'b [&'a str]) {
    match item.trailing[..] {
        [only] => (Some(only), &[]),
        _ => (None, &item.trailing),
    }
}

fn with(line: String, comment: Option<&str>) -> String {
    match comment {
        Some(comment) => format!("{line}  {comment}"),
        None => line,
    }
}
