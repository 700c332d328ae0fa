//! Random trees and policies over few names, so that rules and paths meet often.

use super::random::Random;
use std::collections::BTreeSet;

/// Names of directories and files. Short ones collide; one does not lie inside its dentry.
const NAMES: &[&str] = &[
    "a",
    "b",
    "ab",
    "c.rs",
    "x.rs",
    ".env",
    "d",
    "e",
    "secret",
    "a name with spaces, and longer than a dentry keeps inside",
];

/// What patterns are made of beside the names.
const GLOBS: &[&str] = &["*", "?", "a*", "*.rs", "[a-d]", "[!a]*", "{a,b}", "*e*", ".*", "?b"];

/// Operations that rules name.
const OPERATIONS: &[&str] =
    &["read", "write", "create", "delete", "rename", "truncate", "metadata", "list", "link"];

/// A tree below one directory: relative paths, parents before children.
pub struct Tree {
    /// Directories.
    pub directories: Vec<String>,
    /// Files.
    pub files: Vec<String>,
}

/// A tree of up to `size` objects, up to six levels deep.
pub fn tree(random: &mut Random, size: usize) -> Tree {
    let mut directories = vec![String::new()];
    let mut files = Vec::new();
    let mut taken = BTreeSet::new();
    for _ in 0..size {
        let parent = random.of(&directories).clone();
        if parent.matches('/').count() >= 6 {
            continue;
        }
        let path = format!("{parent}/{}", random.of(NAMES));
        if taken.insert(path.clone()) {
            if random.chance(40) { &mut directories } else { &mut files }.push(path);
        }
    }
    directories.remove(0);
    Tree { directories, files }
}

/// A pattern below `root`, or one that begins with `**/`.
fn pattern(random: &mut Random, root: &str) -> String {
    let mut parts = Vec::new();
    for _ in 0..1 + random.below(4) {
        let part = match random.below(10) {
            0..5 => *random.of(NAMES),
            5..8 => *random.of(GLOBS),
            _ => "**",
        };
        if part != "**" || parts.last() != Some(&"**") {
            parts.push(part);
        }
    }
    // A glob behind it could take in the programs that the worker needs to run.
    if random.chance(20) && NAMES.contains(&parts[0]) {
        return format!("**/{}", parts.join("/"));
    }
    format!("{root}/{}", parts.join("/"))
}

/// A policy of `rules` rules about `root`. What the worker itself needs is allowed elsewhere, so that
/// only the random rules speak about the tree.
pub fn policy(
    random: &mut Random,
    id: &str,
    version: usize,
    root: &str,
    worker: &str,
    rules: usize,
) -> String {
    let mut text = format!(
        "apiVersion: enforcer/v1\nkind: AgentPolicy\n\
         metadata: {{ id: {id}, version: {version}, owner: tests@example.com, purpose: Compare verdicts }}\n\
         trust: {}\ninclude: [base@1]\nexec:\n  - {{ allow: [\"{worker}\"] }}\nfiles:\n",
        random.of(&["probation", "supervised", "trusted", "autonomous"]),
    );
    for number in 0..rules {
        let verdict = match random.below(20) {
            0..12 => "allow",
            12..14 => "hold",
            _ => "deny",
        };
        let mut operations: Vec<&str> = (0..1 + random.below(5)).map(|_| *random.of(OPERATIONS)).collect();
        operations.sort_unstable();
        operations.dedup();
        let operations = if random.chance(if number == 0 { 70 } else { 20 }) {
            "all".to_owned()
        } else {
            operations.join(", ")
        };
        let tier = match random.below(8) {
            0 => ", tier: medium",
            1 => ", tier: high",
            _ => "",
        };
        // One broad rule first: without it nearly everything is refused for want of a rule.
        let path = if number == 0 { format!("{root}/**") } else { pattern(random, root) };
        let verdict = if number == 0 { "allow" } else { verdict };
        text.push_str(&format!("  - {{ {verdict}: [{operations}], paths: [\"{path}\"]{tier} }}\n"));
    }
    text
}
