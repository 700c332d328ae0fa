//! Changing names and what they stand for: deleting, linking, renaming, truncating, metadata.

use super::{promise, tree};
use crate::{
    cases, ensure,
    harness::{Outcome, Test, exists},
    promise::{self as check, Attempt, Denial},
};
use std::fs;

cases!(changes:
    deleting_needs_a_rule,
    linking_needs_a_rule_at_the_new_name,
    a_link_gives_no_rights_that_the_file_did_not_have,
    renaming_needs_rules_at_both_names,
    exchanging_needs_rules_in_both_directions,
    a_whiteout_is_created,
    a_renamed_directory_cannot_carry_denied_children_out,
    a_rename_gives_no_rights_that_the_file_did_not_have,
    truncating_needs_a_rule,
    truncating_an_open_file_needs_a_rule,
    own_memory_and_pipes_change_without_a_rule,
    changing_mode_and_owner_needs_a_rule,
    changing_times_needs_a_rule,
    changing_attributes_and_flags_needs_a_rule,
);

fn deleting_needs_a_rule(t: &mut Test) -> Outcome {
    let (open, shut) = (t.at("open"), t.at("shut"));
    let almost = "read, write, create, rename, link, list, metadata";
    let narrow = t.policy().allow(almost, &format!("{shut}/**")).allow("all", &format!("{open}/**"));
    let wide = narrow.next().allow("delete", &format!("{shut}/**"));
    let acts = [("unlink", "f1"), ("rmdir", "e1")];
    let attempt = |(act, name): (&'static str, &str)| {
        let path = format!("{shut}/{name}");
        Attempt::new(format!("{act} {path}"), Denial::no_rule(act).on(&path).asking("delete"))
    };
    let twins = acts.map(|(act, name)| format!("{act} {open}/{name}"));
    promise(t, (narrow, wide), (&twins, &acts.map(attempt)), || {
        ensure!(acts.iter().all(|(_, name)| exists(&format!("{shut}/{name}"))), "something is gone");
        Ok(())
    })?;
    Ok(())
}

/// Moving a name may leave a device in its place, which in a layer of an overlay hides what lies below.
fn a_whiteout_is_created(t: &mut Test) -> Outcome {
    let (open, shut) = (t.at("open"), t.at("shut"));
    let almost = "read, write, delete, rename, list";
    let all = "read, write, create, delete, rename, list";
    let narrow = t.policy().allow(almost, &format!("{shut}/**")).allow(all, &format!("{open}/**"));
    let wide = narrow.next().allow("create", &format!("{shut}/**"));
    let old = format!("{shut}/f1");
    let denial = Denial::no_rule("rename").on(&old).asking("create+delete+rename");
    let attempts = [Attempt::new(format!("rename-whiteout {old} {open}/n1"), denial)];
    let twins = [format!("rename {shut}/f2 {open}/n2"), format!("rename-whiteout {open}/f3 {open}/n3")];
    promise(t, (narrow, wide), (&twins, &attempts), || {
        ensure!(fs::metadata(&old)?.is_file(), "it is no file any more");
        Ok(())
    })?;
    Ok(())
}

fn linking_needs_a_rule_at_the_new_name(t: &mut Test) -> Outcome {
    let (open, shut) = (t.at("open"), t.at("shut"));
    let narrow = t.policy().allow("all", &format!("{open}/**"));
    let wide = narrow.next().allow("create, link", &format!("{shut}/**"));
    let attempt = |act: &str, name: &str| {
        let path = format!("{shut}/{name}");
        Attempt::new(
            format!("{act} {open}/f1 {path}"),
            Denial::no_rule("link").on(&path).asking("create+link"),
        )
    };
    let attempts = [attempt("link", "n1"), attempt("link-fd", "n2")];
    let twins = [format!("link {open}/f1 {open}/n1"), format!("link-fd {open}/f1 {open}/n2")];
    promise(t, (narrow, wide), (&twins, &attempts), || {
        ensure!(!exists(&format!("{shut}/n1")), "the link exists");
        Ok(())
    })?;
    Ok(())
}

fn a_link_gives_no_rights_that_the_file_did_not_have(t: &mut Test) -> Outcome {
    let (open, shut) = (t.at("open"), t.at("shut"));
    let narrow = t.policy().allow("all", &format!("{open}/**")).allow("write", &format!("{shut}/**"));
    let wide = narrow.next().allow("all", &format!("{shut}/**"));
    let path = format!("{shut}/f1");
    let denial = || Denial::because("link", "gains-rights").on(&path);
    let attempts = [
        Attempt::new(format!("link {path} {open}/n1"), denial()),
        Attempt::new(format!("link-fd {path} {open}/n2"), denial()),
    ];
    let twins = [format!("link {open}/f1 {open}/n3")];
    promise(t, (narrow, wide), (&twins, &attempts), || {
        ensure!(!exists(&format!("{open}/n1")), "the link exists");
        Ok(())
    })?;
    Ok(())
}

/// `delete+rename` to leave a name; `write+create` to arrive at one, and `delete` where it exists.
fn renaming_needs_rules_at_both_names(t: &mut Test) -> Outcome {
    let (open, shut) = (t.at("open"), t.at("shut"));
    let narrow = t.policy().allow("all", &format!("{open}/**"));
    let wide = narrow.next().allow("all", &format!("{shut}/**"));
    let leaving = |name: &str, to: &str| {
        let path = format!("{shut}/{name}");
        let denial = Denial::no_rule("rename").on(&path).asking("delete+rename");
        Attempt::new(format!("rename {path} {open}/{to}"), denial)
    };
    let arriving = |act: &str, from: &str, name: &str, access: &'static str| {
        let path = format!("{shut}/{name}");
        Attempt::new(
            format!("{act} {open}/{from} {path}"),
            Denial::no_rule("rename").on(&path).asking(access),
        )
    };
    let attempts = [
        leaving("f1", "n1"),
        leaving("f2", "f2"),
        leaving("d1", "n2"),
        arriving("rename", "f3", "n3", "write+create"),
        arriving("rename", "f4", "f4", "write+create+delete"),
        arriving("rename-noreplace", "f5", "n5", "write+create"),
        arriving("rename", "d2", "n6", "write+create"),
    ];
    let twins = [
        format!("rename {open}/f6 {open}/n7"),
        format!("rename {open}/f7 {open}/f8"),
        format!("rename {open}/d3 {open}/n8"),
        format!("rename-noreplace {open}/f9 {open}/n9"),
    ];
    promise(t, (narrow, wide), (&twins, &attempts), || {
        for name in ["f1", "f2", "d1", "f4"] {
            ensure!(exists(&format!("{shut}/{name}")), "{name} has gone");
        }
        let text = fs::read_to_string(format!("{shut}/f4"))?;
        ensure!(text == "the text of shut/f4\n", "f4 was replaced: {text}");
        Ok(())
    })?;
    Ok(())
}

fn exchanging_needs_rules_in_both_directions(t: &mut Test) -> Outcome {
    let (open, shut) = (t.at("open"), t.at("shut"));
    // Everything that one direction needs and the other does not.
    let narrow = t
        .policy()
        .allow("all", &format!("{open}/**"))
        .allow("read, write, create, list, metadata, link", &format!("{shut}/f1"))
        .allow("read, delete, rename, list, metadata, link", &format!("{shut}/f2"));
    let wide = t.policy().allow("all", &format!("{open}/**")).allow("all", &format!("{shut}/**"));
    let attempt = |from: String, to: String, path: &str| {
        let denial =
            Denial::no_rule("rename").on(&format!("{shut}/{path}")).asking("write+create+delete+rename");
        Attempt::new(format!("rename-exchange {from} {to}"), denial)
    };
    let attempts = [
        attempt(format!("{open}/f1"), format!("{shut}/f1"), "f1"),
        attempt(format!("{shut}/f1"), format!("{open}/f1"), "f1"),
        attempt(format!("{open}/f2"), format!("{shut}/f2"), "f2"),
        attempt(format!("{shut}/f2"), format!("{open}/f2"), "f2"),
    ];
    tree(t)?;
    check::control(&attempts)?;
    tree(t)?;
    let agent = t.agent(narrow)?;
    check::refused(t, &agent, &[format!("rename-exchange {open}/f3 {open}/f4")], &attempts)?;
    let text = fs::read_to_string(format!("{open}/f1"))?;
    ensure!(text == "the text of open/f1\n", "f1 was exchanged: {text}");
    check::allowed(&t.agent(wide)?, &check::acts(&attempts))
}

fn a_renamed_directory_cannot_carry_denied_children_out(t: &mut Test) -> Outcome {
    let (open, shut) = (t.at("open"), t.at("shut"));
    let all = t.policy().allow("all", &format!("{open}/**")).allow("all", &format!("{shut}/**"));
    let wide = all.next();
    let narrow = all.deny("read", &format!("{shut}/d1/x"));
    let attempt = |act: &str, from: String, to: String| {
        Attempt::new(format!("{act} {from} {to}"), Denial::because("rename", "moves-rules").on(&from))
    };
    let attempts = [
        attempt("rename", format!("{shut}/d1"), format!("{shut}/n1")),
        attempt("rename-exchange", format!("{shut}/d1"), format!("{shut}/d2")),
        attempt("rename-exchange", format!("{shut}/d2"), format!("{shut}/d1")),
    ];
    let acts = ["rename-exchange", "rename-exchange", "rename"];
    let names = [("d1", "d2"), ("d2", "d1"), ("d1", "n1")];
    let controls: Vec<String> =
        acts.iter().zip(names).map(|(act, (from, to))| format!("{act} {shut}/{from} {shut}/{to}")).collect();
    tree(t)?;
    check::allowed_outside(&controls)?;
    tree(t)?;
    let twins = [format!("rename {shut}/d3 {shut}/n2"), format!("rename-exchange {shut}/n2 {shut}/d4")];
    check::refused(t, &t.agent(narrow)?, &twins, &attempts)?;
    ensure!(exists(&format!("{shut}/d1/x")), "the directory has moved");
    check::allowed(&t.agent(wide)?, &controls)
}

fn a_rename_gives_no_rights_that_the_file_did_not_have(t: &mut Test) -> Outcome {
    let (open, shut) = (t.at("open"), t.at("shut"));
    let narrow = t
        .policy()
        .allow("all", &format!("{open}/**"))
        .allow("write, create, delete, rename", &format!("{shut}/**"));
    let wide = narrow.next().allow("all", &format!("{shut}/**"));
    let attempt = |act: &str, from: String, to: String| {
        Attempt::new(format!("{act} {from} {to}"), Denial::because("rename", "gains-rights").on(&from))
    };
    let attempts = [
        attempt("rename", format!("{shut}/f1"), format!("{open}/n1")),
        attempt("rename", format!("{shut}/f2"), format!("{open}/f2")),
        attempt("rename-exchange", format!("{shut}/f3"), format!("{open}/f3")),
        attempt("rename-exchange", format!("{open}/f4"), format!("{shut}/f4")),
    ];
    let twins = [format!("rename {open}/f5 {shut}/n5"), format!("rename {shut}/f6 {shut}/n6")];
    promise(t, (narrow, wide), (&twins, &attempts), || {
        ensure!(!exists(&format!("{open}/n1")), "the file has moved");
        Ok(())
    })?;
    Ok(())
}

fn truncating_needs_a_rule(t: &mut Test) -> Outcome {
    let (open, shut) = (t.at("open"), t.at("shut"));
    let all = t.policy().allow("all", &format!("{open}/**")).allow("read, write", &format!("{shut}/**"));
    let wide = all.next();
    let narrow = all.deny("truncate", &format!("{shut}/**"));
    let attempt = |act: &str, operation: &'static str, file: &str, access: &'static str| {
        let path = format!("{shut}/{file}");
        Attempt::new(
            format!("{act} {path}"),
            Denial::by_rule(operation, "deny truncate").on(&path).asking(access),
        )
    };
    let attempts = [
        attempt("truncate", "truncate", "f1", "truncate"),
        attempt("write-trunc", "open", "f2", "write+truncate"),
        attempt("rdonly-trunc", "open", "f3", "read+write+truncate"),
    ];
    let twins =
        [format!("write {shut}/f4"), format!("truncate {open}/f1"), format!("rdonly-trunc {open}/f2")];
    tree(t)?;
    check::control(&attempts)?;
    tree(t)?;
    check::refused(t, &t.agent(narrow)?, &twins, &attempts)?;
    for file in ["f1", "f2", "f3"] {
        ensure!(fs::metadata(format!("{shut}/{file}"))?.len() > 1, "{file} was truncated");
    }
    check::allowed(&t.agent(wide)?, &check::acts(&attempts))
}

fn truncating_an_open_file_needs_a_rule(t: &mut Test) -> Outcome {
    let (open, shut) = (t.at("open"), t.at("shut"));
    let all = t.policy().allow("all", &format!("{open}/**")).allow("read, write", &format!("{shut}/**"));
    let wide = all.next();
    let narrow = all.deny("truncate", &format!("{shut}/**"));
    let path = format!("{shut}/f1");
    let denial = Denial::by_rule("truncate", "deny truncate").on(&path).asking("truncate");
    let attempts = [Attempt::new(format!("ftruncate {path}"), denial)];
    tree(t)?;
    check::control(&attempts)?;
    tree(t)?;
    check::refused(t, &t.agent(narrow)?, &[format!("ftruncate {open}/f1")], &attempts)?;
    ensure!(fs::metadata(&path)?.len() > 1, "the file was truncated");
    check::allowed(&t.agent(wide)?, &check::acts(&attempts))
}

/// Nobody has to be asked about them, and programs make them all the time.
fn own_memory_and_pipes_change_without_a_rule(t: &mut Test) -> Outcome {
    let acts = ["memory", "pipe"].map(|what| format!("change-own {what}"));
    check::control(&acts.clone().map(|act| Attempt::new(act, Denial::floor("truncate"))))?;
    check::allowed(&t.agent(t.policy())?, &acts)
}

/// Attempts at `metadata` in a directory in which everything else is allowed.
fn metadata(t: &Test, acts: &[(&str, &'static str)]) -> Outcome {
    let (open, shut) = (t.at("open"), t.at("shut"));
    let almost = "read, write, create, delete, rename, link, list";
    let narrow = t.policy().allow(almost, &format!("{shut}/**")).allow("all", &format!("{open}/**"));
    let wide = narrow.next().allow("metadata", &format!("{shut}/**"));
    let attempt = |(number, (act, operation)): (usize, &(&str, &'static str))| {
        let path = format!("{shut}/f{}", number + 1);
        Attempt::new(format!("{act} {path}"), Denial::no_rule(operation).on(&path).asking("metadata"))
    };
    let attempts: Vec<Attempt> = acts.iter().enumerate().map(attempt).collect();
    let twins: Vec<String> =
        acts.iter().enumerate().map(|(number, (act, _))| format!("{act} {open}/f{}", number + 1)).collect();
    promise(t, (narrow, wide), (&twins, &attempts), || Ok(()))?;
    Ok(())
}

fn changing_mode_and_owner_needs_a_rule(t: &mut Test) -> Outcome {
    let acts = [
        ("chmod", "chmod"),
        ("fchmod", "chmod"),
        ("chown", "chown"),
        ("fchown", "chown"),
        ("lchown", "chown"),
    ];
    metadata(t, &acts)
}

fn changing_times_needs_a_rule(t: &mut Test) -> Outcome {
    metadata(t, &[("utimes", "setattr")])
}

fn changing_attributes_and_flags_needs_a_rule(t: &mut Test) -> Outcome {
    metadata(t, &[("setxattr", "xattr"), ("setflags", "setattr")])
}
