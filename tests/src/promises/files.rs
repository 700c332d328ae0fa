//! Opening files: reading, writing, creating, listing.

use super::{promise, tree};
use crate::{
    cases, ensure,
    harness::{Outcome, Test, exists},
    promise::{self as check, Attempt, Denial},
};
use std::{fs, os::unix::fs::symlink};

cases!(files:
    reading_needs_a_rule,
    every_name_of_a_file_leads_to_the_same_verdict,
    writing_needs_a_rule,
    creating_needs_a_rule_and_leaves_nothing_behind,
    listing_a_directory_needs_a_rule,
    reading_a_directory_is_not_reading_its_files,
    deny_beats_allow_in_any_order,
    names_of_255_bytes_are_told,
    a_depth_of_100_is_told_and_200_is_refused,
);

fn reading_needs_a_rule(t: &mut Test) -> Outcome {
    let (open, shut) = (t.at("open"), t.at("shut"));
    let narrow = t.policy().allow("read", &format!("{open}/**"));
    let wide = narrow.next().allow("read", &format!("{shut}/**"));
    let file = format!("{shut}/f1");
    let denial = || Denial::no_rule("open").on(&file).asking("read");
    let acts = ["read", "openat2", "from-child", "from-thread"];
    let attempts: Vec<Attempt> =
        acts.iter().map(|act| Attempt::new(format!("{act} {file}"), denial())).collect();
    let twins = acts.map(|act| format!("{act} {open}/f1"));
    promise(t, (narrow, wide), (&twins, &attempts), || Ok(()))?;
    Ok(())
}

fn every_name_of_a_file_leads_to_the_same_verdict(t: &mut Test) -> Outcome {
    let (open, shut) = (t.at("open"), t.at("shut"));
    let lay = || -> Outcome {
        tree(t)?;
        symlink(format!("{shut}/f1"), format!("{open}/to-shut"))?;
        symlink(format!("{open}/f1"), format!("{shut}/to-open"))?;
        Ok(())
    };
    let file = format!("{shut}/f1");
    let denial = || Denial::no_rule("open").on(&file).asking("read");
    let acts = ["opath-reopen", "opath-dev-fd", "proc-self-root", "proc-self-cwd", "stdin-reopen"];
    let mut attempts: Vec<Attempt> =
        acts.iter().map(|act| Attempt::new(format!("{act} {file}"), denial())).collect();
    attempts.push(Attempt::new(format!("read {open}/to-shut"), denial()));
    attempts.push(Attempt::new(format!("read {shut}/../shut/./f1"), denial()));
    attempts.push(Attempt::new(format!("read /proc/self/root/proc/self/root{open}/../shut/f1"), denial()));
    let mut twins: Vec<String> = acts.iter().map(|act| format!("{act} {open}/f1")).collect();
    twins.push(format!("read {shut}/to-open"));
    lay()?;
    check::control(&attempts)?;
    let mut agent = t.agent(t.policy().allow("read", &format!("{open}/**")))?;
    check::refused(t, &agent, &twins, &attempts)?;
    agent.change(agent.policy().next().allow("read", &format!("{shut}/**")))?;
    check::allowed(&agent, &check::acts(&attempts))
}

fn writing_needs_a_rule(t: &mut Test) -> Outcome {
    let (open, shut) = (t.at("open"), t.at("shut"));
    let narrow = t.policy().allow("read", &format!("{shut}/**")).allow("all", &format!("{open}/**"));
    let wide = narrow.next().allow("write", &format!("{shut}/**"));
    let acts = [
        ("write", "f1", "write"),
        ("append", "f2", "write"),
        ("read-write", "f3", "read+write"),
        ("access-3", "f4", "read+write"),
        ("write-trunc", "f5", "write+truncate"),
        ("rdonly-trunc", "f6", "read+write+truncate"),
    ];
    let attempt = |(act, file, access): (&str, &str, &'static str)| {
        let path = format!("{shut}/{file}");
        Attempt::new(format!("{act} {path}"), Denial::no_rule("open").on(&path).asking(access))
    };
    let attempts: Vec<Attempt> = acts.into_iter().map(attempt).collect();
    let twins = acts.map(|(act, file, _)| format!("{act} {open}/{file}"));
    promise(t, (narrow, wide), (&twins, &attempts), || {
        for (_, file, _) in acts {
            let text = fs::read_to_string(format!("{shut}/{file}"))?;
            ensure!(text == format!("the text of shut/{file}\n"), "{file} has changed: {text:?}");
        }
        Ok(())
    })?;
    Ok(())
}

fn creating_needs_a_rule_and_leaves_nothing_behind(t: &mut Test) -> Outcome {
    let (open, shut) = (t.at("open"), t.at("shut"));
    let narrow =
        t.policy().allow("read, write, list", &format!("{shut}/**")).allow("all", &format!("{open}/**"));
    let wide = narrow.next().allow("create", &format!("{shut}/**"));
    let acts = [
        ("create", "create", "n1"),
        ("creat", "create", "n2"),
        ("rdonly-creat", "create", "n3"),
        ("mknod-fifo", "create", "n4"),
        ("mknod-file", "create", "n5"),
        ("mkdir", "mkdir", "n6"),
        ("symlink anything", "symlink", "n7"),
        ("unix-own-stream", "create", "n8"),
        ("unix-own-dgram", "create", "n9"),
    ];
    let attempt = |(act, operation, name): (&str, &'static str, &str)| {
        let path = format!("{shut}/{name}");
        Attempt::new(format!("{act} {path}"), Denial::no_rule(operation).on(&path).asking("create"))
    };
    let mut attempts: Vec<Attempt> = acts.into_iter().map(attempt).collect();
    // It has no name yet, but it is made in that directory.
    attempts.push(Attempt::new(format!("tmpfile {shut}"), Denial::no_rule("open").asking("write+create")));
    let mut twins: Vec<String> = acts.iter().map(|(act, _, name)| format!("{act} {open}/{name}")).collect();
    twins.push(format!("tmpfile {open}"));
    twins.push(format!("tmpfile-link {open} {open}/n10"));
    twins.push(format!("rdonly-creat {shut}/f1"));
    promise(t, (narrow, wide), (&twins, &attempts), || {
        for (act, _, name) in acts {
            ensure!(!exists(&format!("{shut}/{name}")), "`{act}` failed and left {name} behind");
            ensure!(exists(&format!("{open}/{name}")), "`{act}` succeeded without {name}");
        }
        Ok(())
    })?;
    Ok(())
}

fn listing_a_directory_needs_a_rule(t: &mut Test) -> Outcome {
    let (open, shut) = (t.at("open"), t.at("shut"));
    let narrow = t.policy().allow("read", &format!("{shut}/**")).allow("list", &format!("{open}/**"));
    let wide = narrow.next().allow("list", &format!("{shut}/**"));
    let attempt = |name: &str| {
        let path = format!("{shut}{name}");
        Attempt::new(format!("list {path}"), Denial::no_rule("open").on(&path).asking("list"))
    };
    let twins = ["", "/d1"].map(|name| format!("list {open}{name}"));
    promise(t, (narrow, wide), (&twins, &[attempt(""), attempt("/d1")]), || Ok(()))?;
    Ok(())
}

fn reading_a_directory_is_not_reading_its_files(t: &mut Test) -> Outcome {
    let shut = t.at("shut");
    let narrow = t.policy().allow("list", &format!("{shut}/**"));
    let wide = narrow.next().allow("read", &format!("{shut}/d1/*"));
    let path = format!("{shut}/d1/x");
    let attempts = [Attempt::new(format!("read {path}"), Denial::no_rule("open").on(&path).asking("read"))];
    promise(t, (narrow, wide), (&[format!("list {shut}/d1")], &attempts), || Ok(()))?;
    Ok(())
}

fn deny_beats_allow_in_any_order(t: &mut Test) -> Outcome {
    let (open, shut) = (t.at("open"), t.at("shut"));
    let narrow = t
        .policy()
        .deny("read", &format!("{shut}/f1"))
        .allow("read", &format!("{shut}/**"))
        .allow("read", &format!("{open}/**"))
        .deny("read", &format!("{open}/d?/x"));
    let wide = t.policy().allow("read", &format!("{open}/**")).allow("read", &format!("{shut}/**"));
    let attempt = |path: String, rule: &str| {
        Attempt::new(format!("read {path}"), Denial::by_rule("open", rule).on(&path).asking("read"))
    };
    let attempts = [
        attempt(format!("{shut}/f1"), &format!("deny read {shut}/f1")),
        attempt(format!("{open}/d1/x"), &format!("deny read {open}/d?/x")),
    ];
    let twins = [format!("read {shut}/f2"), format!("read {open}/f1")];
    tree(t)?;
    check::control(&attempts)?;
    let agent = t.agent(narrow)?;
    check::refused(t, &agent, &twins, &attempts)?;
    check::allowed(&t.agent(wide)?, &check::acts(&attempts))
}

fn names_of_255_bytes_are_told(t: &mut Test) -> Outcome {
    let (open, shut) = (t.at("open"), t.at("shut"));
    tree(t)?;
    let lengths = [31, 32, 33, 39, 40, 41, 254, 255];
    let mut attempts = Vec::new();
    let mut twins = Vec::new();
    for length in lengths {
        let path = format!("{shut}/{}", "n".repeat(length));
        let denial = Denial::no_rule("create").on(&path).asking("create");
        attempts.push(Attempt::new(format!("long-create {shut} {length}"), denial));
        twins.push(format!("long-create {open} {length}"));
    }
    check::control(&attempts)?;
    tree(t)?;
    // A name is told to its last byte.
    let near = format!("{open}/{}", "n".repeat(255));
    let agent = t.agent(t.policy().allow("all", &format!("{open}/**")).deny("read", &near))?;
    check::refused(t, &agent, &twins, &attempts)?;
    let almost = format!("{open}/{}", "n".repeat(254));
    let denial = Denial::by_rule("open", "deny read").on(&near).asking("read");
    check::refused(t, &agent, &[format!("read {almost}")], &[Attempt::new(format!("read {near}"), denial)])
}

fn a_depth_of_100_is_told_and_200_is_refused(t: &mut Test) -> Outcome {
    tree(t)?;
    for (top, depth) in [("hundred", 100), ("two-hundred", 200)] {
        t.file(&format!("{top}/{}file", "d/".repeat(depth)))?;
    }
    let (hundred, more) = (t.at("hundred"), t.at("two-hundred"));
    let denial = Denial::because("open", "unknown-object").asking("read").flagged("foreign");
    let attempts = [Attempt::new(format!("deep-read {more} 200"), denial)];
    check::control(&attempts)?;
    let agent =
        t.agent(t.policy().allow("read", &format!("{hundred}/**")).allow("read", &format!("{more}/**")))?;
    check::refused(t, &agent, &[format!("deep-read {hundred} 100")], &attempts)
}
