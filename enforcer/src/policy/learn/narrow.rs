//! What was wanted → the fewest rules that say little more.
//!
//! An object is named as it is. Only where many names of one directory were wanted in the same way do
//! they become `*`: one component, never `**`, never in a private or shallow directory, never to run.

use super::{Evidence, Object, Proposed, guards::Guards};
use crate::policy::{compile::compile, rule::Section, valid::ValidPolicy};
use enforcer_common::access::file;
use std::collections::BTreeMap;

/// Names of one directory that become `*`.
const MANY: usize = 8;
/// Directories above such names, at least.
const DEPTH: usize = 2;

const RUN: u16 = file::EXEC | file::LOAD;

/// A directory, and what was wanted of names in it.
type Alike = (Vec<u8>, u16);

pub(super) fn rules(
    wanted: BTreeMap<Object, BTreeMap<u16, Evidence>>,
    base: Option<&ValidPolicy>,
) -> Vec<Proposed> {
    let guards = Guards::new();
    let mut rules = Vec::new();
    // What was wanted of each object, all its records taken together.
    let mut paths: BTreeMap<Alike, Vec<(Vec<u8>, Evidence)>> = BTreeMap::new();
    for (object, by) in wanted {
        let operations = by.keys().fold(0, |all, operations| all | operations);
        let mut evidence = Evidence::default();
        by.values().for_each(|one| evidence.join(one));
        match object {
            Object::Path(path) => {
                for (section, bits) in
                    [(Section::Files, operations & !file::EXEC), (Section::Exec, operations & file::EXEC)]
                {
                    if bits == 0 {
                        continue;
                    }
                    if section == Section::Exec || bits & RUN != 0 {
                        rules.push(proposed(section, bits, literal(&path), 1, evidence.clone()));
                        continue;
                    }
                    let directory = path.iter().rposition(|byte| *byte == b'/').map_or(0, |at| at);
                    let key = (path[..directory].to_vec(), bits);
                    paths.entry(key).or_default().push((path.clone(), evidence.clone()));
                }
            }
            address @ Object::Address(..) => {
                rules.push(proposed(Section::Network, operations, address.pattern(), 1, evidence));
            }
        }
    }
    for ((directory, bits), objects) in paths {
        let depth = directory.split(|byte| *byte == b'/').filter(|name| !name.is_empty()).count();
        let probe = [&directory[..], b"/x"].concat();
        let wide = objects.len() >= MANY
            && depth >= DEPTH
            && !guards.is_private(&directory)
            && !guards.is_private(&probe)
            && !(bits & !(file::READ | file::LIST) != 0
                && base.is_none_or(|base| runs_below(base, &directory)));
        if wide {
            let mut evidence = Evidence::default();
            objects.iter().for_each(|(_, one)| evidence.join(one));
            let pattern = format!("{}/*", literal(&directory));
            rules.push(proposed(Section::Files, bits, pattern, objects.len() as u64, evidence));
        } else {
            for (path, evidence) in objects {
                rules.push(proposed(Section::Files, bits, literal(&path), 1, evidence));
            }
        }
    }
    rules.sort_by(|a, b| {
        (a.section, &a.pattern, a.operations.1).cmp(&(b.section, &b.pattern, b.operations.1))
    });
    rules
}

fn proposed(
    section: Section,
    operations: u16,
    pattern: String,
    objects: u64,
    evidence: Evidence,
) -> Proposed {
    Proposed { section, operations: (section, operations), pattern, objects, evidence }
}

/// Whether some rule of the policy lets something below a directory run. Says so too where another rule
/// denies that again.
fn runs_below(policy: &ValidPolicy, directory: &[u8]) -> bool {
    let Ok(image) = compile(policy) else { return true };
    image.automata().iter().any(|automaton| {
        let start = automaton.step(automaton.run(directory), b'/');
        automaton.reaches(start, |masks| {
            (masks.allow.iter().chain(&masks.hold)).any(|operations| operations & RUN != 0)
        })
    })
}

/// The pattern that matches one path only.
pub(super) fn literal(path: &[u8]) -> String {
    let mut out = String::from("/");
    for chunk in path.utf8_chunks() {
        for c in chunk.valid().chars() {
            match c {
                '*' | '?' | '[' | ']' | '{' | '}' | ',' | '\\' => out.extend(['\\', c]),
                c if crate::event::text::is_plain(c) => out.push(c),
                c => {
                    let mut bytes = [0; 4];
                    for byte in c.encode_utf8(&mut bytes).bytes() {
                        out.push_str(&format!("\\x{byte:02x}"));
                    }
                }
            }
        }
        for byte in chunk.invalid() {
            out.push_str(&format!("\\x{byte:02x}"));
        }
    }
    out
}
