//! `cargo xtask tidy`: the rules of this checkout that no compiler knows.

mod licences;

use std::{
    collections::BTreeSet,
    fs,
    path::{Path, PathBuf},
    process::Command,
};

use anyhow::{Result, bail};

use crate::{
    compile,
    progress::{note, output},
};

/// A file is read in one go, or it is too long.
const LINES_WARN: usize = 500;
const LINES_FAIL: usize = 600;

/// Rooms that decide from values alone, so that they can be tested and replayed anywhere.
const PURE_ROOMS: [&str; 7] = [
    "enforcer/src/policy",
    "enforcer/src/event",
    "enforcer-common",
    "enforcer/src/log/tree.rs",
    "enforcer/src/log/tile.rs",
    "enforcer/src/log/leaf",
    "enforcer/src/log/note.rs",
];
const IMPURE: [&str; 5] = ["std::fs", "std::net", "SystemTime", "Instant::now", "tokio"];

/// Addresses come from the machine's own configuration, so that a mirror is enough. (Split, so that this
/// file passes.)
const HOSTS: [&str; 8] = [
    concat!("crates", ".io/"),
    concat!("registry.", "npmjs"),
    concat!("pypi", ".org"),
    concat!("python", "hosted.org"),
    concat!("deb.", "debian.org"),
    concat!("security.", "debian.org"),
    concat!("snapshot.", "debian.org"),
    concat!("node", "source.com"),
];
/// Places of one machine only.
const PATHS: [&str; 5] = [
    concat!("/wo", "rk/"),
    concat!("/root", "/.ca"),
    concat!("/home/", "runner"),
    concat!("../sha", "red"),
    concat!("/tmp/", "log/"),
];

struct Source {
    path: PathBuf,
    text: String,
}

/// Prints each finding as `file:line: what`; an error if there is one.
pub(crate) fn check() -> Result<()> {
    let sources = sources()?;
    let mut findings = Vec::new();
    for source in &sources {
        findings.extend(rooms(source));
        findings.extend(length(source));
        findings.extend(unexplained_unsafe(source));
        findings.extend(places(source));
    }
    findings.extend(map_is_complete(&sources));
    findings.extend(licences::check()?);
    for finding in &findings {
        note(format!("tidy: {finding}"));
    }
    if !findings.is_empty() {
        bail!("{} findings of tidy, listed above", findings.len());
    }
    Ok(())
}

/// What is in git or would be added to it.
fn sources() -> Result<Vec<Source>> {
    let list = ["ls-files", "-z", "--cached", "--others", "--exclude-standard"];
    let names = output(Command::new("git").arg("-C").arg(compile::root()).args(list))?;
    let read = |name: &str| {
        // Not text, or deleted but not yet from the index.
        let text = fs::read_to_string(compile::root().join(name)).ok()?;
        Some(Source { path: name.into(), text })
    };
    Ok(names.split('\0').filter(|name| !name.is_empty()).filter_map(read).collect())
}

fn rooms(source: &Source) -> Vec<String> {
    if !is_rust(&source.path) {
        return Vec::new();
    }
    let mut findings = Vec::new();
    if source.path.starts_with("enforcer/src") && !source.path.starts_with("enforcer/src/kernel") {
        findings.extend(found(source, &lines(source), |line| {
            has_word(line, "aya").then(|| "`aya` outside enforcer/src/kernel".to_owned())
        }));
    }
    if PURE_ROOMS.iter().any(|room| source.path.starts_with(room)) && !is_test(&source.path) {
        let code: Vec<&str> =
            lines(source).into_iter().take_while(|line| line.trim() != "#[cfg(test)]").collect();
        findings.extend(found(source, &code, |line| {
            let code = line.split("//").next().unwrap_or("");
            let name = IMPURE.iter().find(|name| code.contains(**name))?;
            let remedy = if *name == "std::net" { "addresses are in core::net" } else { "pass the value in" };
            Some(format!("`{name}` in a pure room: {remedy}"))
        }));
    }
    findings
}

fn length(source: &Source) -> Option<String> {
    let count = source.text.lines().count();
    if !is_rust(&source.path) || count <= LINES_WARN {
        return None;
    }
    let finding = format!("{}: {count} lines; split it", source.path.display());
    if count > LINES_FAIL {
        return Some(finding);
    }
    note(format!("tidy: warning: {finding}"));
    None
}

fn unexplained_unsafe(source: &Source) -> Vec<String> {
    if !is_rust(&source.path) || source.path.starts_with("xtask/src/tidy.rs") {
        return Vec::new();
    }
    let lines = lines(source);
    let explained = |index: usize| {
        let from = index.saturating_sub(5);
        // Every line of the kernel programs touches kernel memory; one reason a function is enough there.
        let from = if source.path.starts_with("enforcer-ebpf") {
            from.min(start_of_fn(&lines, index))
        } else {
            from
        };
        lines[from..=index].iter().any(|line| line.contains("SAFETY:"))
    };
    let is_unsafe = |line: &str| {
        let code = line.split("//").next().unwrap_or("");
        code.contains("unsafe {") || code.contains("unsafe impl")
    };
    let unexplained = lines.iter().enumerate().filter(|(index, line)| is_unsafe(line) && !explained(*index));
    unexplained
        .map(|(index, _)| {
            format!("{}:{}: unsafe without a SAFETY comment above it", source.path.display(), index + 1)
        })
        .collect()
}

/// The first line of the function around a line, its comments and attributes included.
fn start_of_fn(lines: &[&str], index: usize) -> usize {
    let is_fn = |line: &str| {
        let code = line.trim_start();
        !code.starts_with("//") && (code.starts_with("fn ") || code.contains(" fn "))
    };
    let start = (0..=index).rev().find(|at| is_fn(lines[*at])).unwrap_or(index);
    let above = |at: &usize| ["//", "#[", "#!["].iter().any(|sign| lines[*at].trim_start().starts_with(sign));
    (0..start).rev().take_while(above).last().unwrap_or(start)
}

fn places(source: &Source) -> Vec<String> {
    // Lock files name where a package came from; that is their job.
    let name = source.path.file_name().unwrap_or_default().to_string_lossy();
    if name.ends_with(".lock") || name == "package-lock.json" || name.starts_with("LICENSE") {
        return Vec::new();
    }
    found(source, &lines(source), |line| {
        let host =
            HOSTS.iter().find(|host| line.contains(**host)).map(|host| format!("names the host {host}"));
        let path = PATHS
            .iter()
            .find(|path| line.contains(**path))
            .map(|path| format!("names {path}, a place of one machine"));
        host.or(path)
    })
}

/// The map of the code must not lack a street.
fn map_is_complete(sources: &[Source]) -> Vec<String> {
    let map = Path::new("ARCHITECTURE.md");
    let Some(text) = sources.iter().find(|source| source.path == map).map(|source| &source.text) else {
        return vec!["ARCHITECTURE.md is missing".to_owned()];
    };
    let dirs: BTreeSet<String> = sources
        .iter()
        .filter(|source| source.path.components().count() > 1)
        .filter_map(|source| {
            Some(source.path.components().next()?.as_os_str().to_string_lossy().into_owned())
        })
        .filter(|dir| dir != ".cargo")
        .collect();
    let unnamed = dirs
        .into_iter()
        .filter(|dir| !text.contains(&format!("{dir}/")) && !text.contains(&format!("`{dir}`")));
    unnamed.map(|dir| format!("ARCHITECTURE.md does not mention {dir}/")).collect()
}

fn found(source: &Source, lines: &[&str], rule: impl Fn(&str) -> Option<String>) -> Vec<String> {
    let hit = |(index, line): (usize, &&str)| {
        Some(format!("{}:{}: {}", source.path.display(), index + 1, rule(line)?))
    };
    lines.iter().enumerate().filter_map(hit).collect()
}

fn lines(source: &Source) -> Vec<&str> {
    source.text.lines().collect()
}

fn is_rust(path: &Path) -> bool {
    path.extension().is_some_and(|extension| extension == "rs")
}

fn is_test(path: &Path) -> bool {
    path.components().any(|part| part.as_os_str() == "tests") || path.ends_with("tests.rs")
}

/// Whether `word` stands in `line` by itself; `_` ends a word too, as in `aya_obj`.
fn has_word(line: &str, word: &str) -> bool {
    line.match_indices(word).any(|(at, _)| {
        let before = line[..at].chars().next_back();
        let after = line[at + word.len()..].chars().next();
        ![before, after].into_iter().flatten().any(char::is_alphanumeric)
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn source(path: &str, text: &str) -> Source {
        Source { path: path.into(), text: text.into() }
    }

    #[test]
    fn every_pure_room_is_there() {
        for room in PURE_ROOMS {
            assert!(compile::root().join(room).exists(), "{room}");
        }
    }

    #[test]
    fn a_pure_room_has_no_clock_outside_its_tests() {
        let text = "fn now() { SystemTime::now() }\n#[cfg(test)]\nmod tests { use std::fs; }\n";
        assert_eq!(rooms(&source("enforcer/src/policy/a.rs", text)).len(), 1);
        assert_eq!(rooms(&source("enforcer/src/daemon/a.rs", text)).len(), 0);
    }

    #[test]
    fn the_loader_is_named_in_its_room_only() {
        assert_eq!(rooms(&source("enforcer/src/daemon.rs", "use aya::Ebpf;")).len(), 1);
        assert_eq!(rooms(&source("enforcer/src/daemon.rs", "let playa = 1;")).len(), 0);
        assert_eq!(rooms(&source("enforcer/src/kernel/load.rs", "use aya::Ebpf;")).len(), 0);
    }

    #[test]
    fn one_reason_a_function_is_enough_for_kernel_programs_only() {
        let text = "// SAFETY: typed by BTF\nfn f() {\n1;\n2;\n3;\n4;\n5;\n6;\nunsafe { g() }\n}\n";
        assert_eq!(unexplained_unsafe(&source("enforcer-ebpf/src/a.rs", text)).len(), 0);
        assert_eq!(unexplained_unsafe(&source("enforcer/src/a.rs", text)).len(), 1);
    }
}
