//! The catalogue as docs/bypasses.md has it. The tests fail when the page says something else than the catalogue,
//! or the catalogue something else than the suite.

#![cfg(test)]

use super::{ALL, Attack, CLASSES, Tried};
use crate::{harness::Case, promises};
use std::{collections::BTreeSet, fmt::Write, fs};

const PAGE: &str = concat!(env!("CARGO_MANIFEST_DIR"), "/../docs/bypasses.md");
const BEGIN: &str = "<!-- attacks: made from the suite -->\n";
const END: &str = "<!-- end of attacks -->\n";
const UPDATE: &str = "ENFORCER_UPDATE_DOCS=1 cargo test -p enforcer-tests --lib attacks";

fn attacks() -> impl Iterator<Item = &'static Attack> {
    CLASSES.iter().flat_map(|class| class.attacks)
}

fn cases() -> impl Iterator<Item = &'static Case> {
    let all = [promises::ALL, promises::PACKAGE, promises::WITHOUT_LSM, ALL];
    all.into_iter().flatten().flat_map(|table| table.iter())
}

fn table() -> String {
    let mut text = String::new();
    for class in CLASSES {
        let _ = writeln!(text, "\n### {}\n", class.title);
        text.push_str("| | attempt | kernels | refused by | layer | tried by |\n|---|---|---|---|---|---|\n");
        for Attack { id, tries, kernels, hooks, layers, tried } in class.attacks {
            let _ = match tried {
                Tried::By(case, _) => {
                    writeln!(text, "| {id} | {tries} | {kernels} | {hooks} | {layers} | `{case}` |")
                }
                Tried::Open(row) => {
                    writeln!(text, "| {id} | {tries} | {kernels} | **open** | | above: {row} |")
                }
            };
        }
    }
    text
}

#[test]
fn the_page_has_the_catalogue() {
    let there = fs::read_to_string(PAGE).expect("docs/bypasses.md");
    let (before, rest) = there.split_once(BEGIN).expect("the beginning of the table");
    let (_, after) = rest.split_once(END).expect("the end of the table");
    let now = format!("{before}{BEGIN}{}\n{END}{after}", table());
    if std::env::var_os("ENFORCER_UPDATE_DOCS").is_some() {
        fs::write(PAGE, &now).expect("docs/bypasses.md can be written");
    } else {
        assert!(there == now, "docs/bypasses.md is stale: {UPDATE}");
    }
}

#[test]
fn every_attack_is_tried_by_a_case_that_is_there() {
    let names: BTreeSet<&str> = cases().map(|case| case.name).collect();
    let page = fs::read_to_string(PAGE).expect("docs/bypasses.md");
    let mut missing = Vec::new();
    for attack in attacks() {
        match attack.tried {
            Tried::By(case, act) => {
                let tried = names.contains(case) && source_of(case).is_some_and(|text| says(&text, act));
                if !tried {
                    missing.push(format!("{}: {case} does not try {act:?}", attack.id));
                }
            }
            Tried::Open(row) if !page.contains(&format!("\n| {row}")) => {
                missing.push(format!("{}: no row of what is open begins with {row:?}", attack.id));
            }
            Tried::Open(_) => {}
        }
    }
    assert!(missing.is_empty(), "{}", missing.join("\n"));
}

/// The source of the module that has a case, and of what its cases take their acts from.
fn source_of(case: &str) -> Option<String> {
    let (module, name) = case.split_once("::")?;
    let file = match module.strip_prefix("attack_") {
        Some(class) => format!("attacks/{class}"),
        None => format!("promises/{module}"),
    };
    let text = fs::read_to_string(format!("{}/src/{file}.rs", env!("CARGO_MANIFEST_DIR"))).ok()?;
    // The catalogue in the same file is no proof of itself.
    let text = match text.split_once("pub const ATTACKS") {
        Some((before, rest)) => format!("{before}{}", rest.split_once("\n];\n")?.1),
        None => text,
    };
    text.contains(&format!("fn {name}(")).then_some(text)
}

/// Whether a text has these words, not as a part of others.
fn says(text: &str, words: &str) -> bool {
    let part = |c: char| c.is_ascii_alphanumeric() || "-_".contains(c);
    text.match_indices(words)
        .any(|(at, _)| !text[..at].ends_with(part) && !text[at + words.len()..].starts_with(part))
}

#[test]
fn the_catalogue_is_long_and_repeats_nothing() {
    let (mut ids, mut texts, mut refused) = (BTreeSet::new(), BTreeSet::new(), 0);
    for attack in attacks() {
        assert!(ids.insert(attack.id), "{} twice", attack.id);
        assert!(texts.insert(attack.tries), "{}: {:?} is there already", attack.id, attack.tries);
        assert!(!attack.tries.contains('|'), "{} would break the table", attack.id);
        refused += usize::from(matches!(attack.tried, Tried::By(..)));
    }
    assert!(refused >= 150, "only {refused} attacks");
}
