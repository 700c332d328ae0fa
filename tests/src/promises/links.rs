//! Files with several names: what rules deny and hold of a file goes for every name that it had when the
//! policy was published.

use super::{promise_in, tree, units::enforcing};
use crate::{
    cases,
    command::{Command, systemctl},
    ensure,
    harness::{Outcome, Test},
    promise::{Attempt, Denial},
};
use enforcer_common::limits::LINKS_OF_ONE;
use std::fs;

cases!(links:
    what_is_denied_stays_denied_under_names_that_were_there,
    what_is_denied_anywhere_stays_denied_under_names_that_were_there,
    what_runs_under_one_name_does_not_run_if_another_is_denied,
    what_an_agent_linked_before_is_denied_with_the_rest,
    removing_a_denied_name_frees_no_other_one,
    more_links_than_there_is_room_for_are_all_refused,
);

/// The tree, with `open/f1` to `open/f8` as further names of `shut/f1` to `shut/f8`; `open/f9` and `open/same`
/// are one file that no rule denies.
fn linked(t: &Test) -> Outcome {
    tree(t)?;
    for number in 1..=8 {
        fs::remove_file(t.at(&format!("open/f{number}")))?;
        fs::hard_link(t.at(&format!("shut/f{number}")), t.at(&format!("open/f{number}")))?;
    }
    fs::hard_link(t.at("open/f9"), t.at("open/same"))?;
    Ok(())
}

fn what_is_denied_stays_denied_under_names_that_were_there(t: &mut Test) -> Outcome {
    let (open, shut) = (t.at("open"), t.at("shut"));
    let wide = t.policy().allow("all", &format!("{open}/**"));
    let rule = format!("{shut}/**");
    let narrow = wide.next().deny("read, write, truncate, metadata, delete", &rule);
    let denied = |act: &str, operation: &'static str, file: &str, access: &'static str| {
        let path = format!("{open}/{file}");
        let denial = Denial::by_rule(operation, &rule).on(&path).asking(access).flagged("other-name");
        Attempt::new(format!("{act} {path}"), denial)
    };
    let gains = |act: &str, operation: &'static str, file: &str| {
        let path = format!("{open}/{file}");
        let denial = Denial::because(operation, "gains-rights").on(&path).flagged("other-name");
        Attempt::new(format!("{act} {path} {open}/n-{file}"), denial)
    };
    let attempts = [
        denied("read", "open", "f1", "read"),
        denied("write", "open", "f2", "write"),
        denied("truncate", "truncate", "f3", "truncate"),
        denied("chmod", "chmod", "f4", "metadata"),
        denied("unlink", "unlink", "f5", "delete"),
        gains("link", "link", "f6"),
    ];
    let twins = ["read", "write", "truncate", "chmod", "unlink"].map(|act| format!("{act} {open}/f9"));
    promise_in(t, linked, (narrow, wide.next()), (&twins, &attempts), || Ok(()))?;
    Ok(())
}

fn what_is_denied_anywhere_stays_denied_under_names_that_were_there(t: &mut Test) -> Outcome {
    let (open, secret) = (t.at("open"), "secret-of-the-links-test");
    let prepare = |t: &Test| -> Outcome {
        tree(t)?;
        t.file(&format!("shut/{secret}"))?;
        fs::hard_link(t.at(&format!("shut/{secret}")), t.at("open/harmless"))?;
        Ok(())
    };
    let wide = t.policy().allow("read, write", &format!("{open}/**"));
    // A new name pattern: what was found for others is not enough.
    let narrow = wide.next().deny("read", &format!("{}/**/{secret}", t.at("shut")));
    let path = format!("{open}/harmless");
    let denial = Denial::by_rule("open", secret).on(&path).asking("read").flagged("other-name");
    let attempts = [Attempt::new(format!("read {path}"), denial)];
    let twins = [format!("read {open}/f1"), format!("write {path}")];
    promise_in(t, prepare, (narrow, wide.next()), (&twins, &attempts), || Ok(()))?;
    Ok(())
}

fn what_runs_under_one_name_does_not_run_if_another_is_denied(t: &mut Test) -> Outcome {
    let (open, shut) = (t.at("open"), t.at("shut"));
    let prepare = |t: &Test| -> Outcome {
        tree(t)?;
        fs::copy("/usr/bin/true", t.at("shut/tool"))?;
        fs::hard_link(t.at("shut/tool"), t.at("open/tool"))?;
        fs::copy("/usr/bin/true", t.at("open/other"))?;
        Ok(())
    };
    let wide = t.policy().exec(&format!("{open}/*"));
    let narrow = wide.next().exec_deny(&format!("{shut}/tool"));
    let path = format!("{open}/tool");
    let denial = Denial::by_rule("exec", "shut/tool").on(&path).asking("exec").flagged("other-name");
    let attempts = [Attempt::new(format!("exec {path}"), denial)];
    let twins = [format!("exec {open}/other")];
    promise_in(t, prepare, (narrow, wide.next()), (&twins, &attempts), || Ok(()))?;
    Ok(())
}

/// An agent that expects a stricter policy gives further names to what it still may link.
fn what_an_agent_linked_before_is_denied_with_the_rest(t: &mut Test) -> Outcome {
    tree(t)?;
    let (open, shut) = (t.at("open"), t.at("shut"));
    let both = t.policy().allow("all", &format!("{open}/**")).allow("all", &format!("{shut}/**"));
    let mut agent = t.agent(both.clone())?;
    let (link, read) = (format!("link {shut}/f1 {open}/kept"), format!("read {open}/kept"));
    let acts = [link, read.clone(), "say linked".to_owned(), format!("wait-for {}", t.at("stricter")), read];
    let mut live = agent.start(&acts)?;
    live.expect(&["ok", "ok", "linked", "ok"])?;
    agent.change(both.next().deny("read", &format!("{shut}/**")))?;
    t.file("stricter")?;
    live.expect(&["ok", "EPERM"])?;
    live.finish()?;
    Ok(())
}

/// A file is asked about other names while it has some. So the name that something is denied under stays while there are
/// others, though rules let names be removed; the others may go.
fn removing_a_denied_name_frees_no_other_one(t: &mut Test) -> Outcome {
    let open = t.at("open");
    let prepare = |t: &Test| -> Outcome {
        tree(t)?;
        t.dir("drop")?;
        for number in 1..=4 {
            t.file(&format!("open/secret{number}"))?;
            fs::hard_link(t.at(&format!("open/secret{number}")), t.at(&format!("open/copy{number}")))?;
        }
        Ok(())
    };
    // Nothing there may be read either, but nothing says so.
    let drop = t.at("drop");
    let wide = t.policy().allow("all", &format!("{open}/**"));
    let wide = wide.allow("list, write, create, delete, rename", &format!("{drop}/**"));
    let narrow = wide.next().deny("read", &format!("{open}/secret*"));
    let gains = |act: String, operation: &'static str, name: &str| {
        let denial =
            Denial::because(operation, "gains-rights").on(&format!("{open}/{name}")).flagged("other-name");
        Attempt::new(act, denial)
    };
    let copy = format!("{open}/copy1");
    let attempts = [
        Attempt::new(
            format!("read {copy}"),
            Denial::by_rule("open", "secret").on(&copy).flagged("other-name"),
        ),
        gains(format!("unlink {open}/secret1"), "unlink", "secret1"),
        gains(format!("rename {open}/f1 {open}/secret2"), "rename", "secret2"),
        gains(format!("rename {open}/secret4 {drop}/n"), "rename", "secret4"),
    ];
    let twins =
        [format!("unlink {open}/copy3"), format!("unlink {open}/secret3"), format!("unlink {open}/f9")];
    promise_in(t, prepare, (narrow, wide.next()), (&twins, &attempts), || Ok(()))?;
    Ok(())
}

/// Settings with more time for each look, which go back to what they were with this value.
struct MoreTime(String);

impl MoreTime {
    const FILE: &str = "/etc/enforcer/enforcer.toml";

    fn new() -> Outcome<Self> {
        let usual = fs::read_to_string(Self::FILE)?;
        let changed = usual.replacen("[agents]\n", "[agents]\nlink_seconds = 300\n", 1);
        ensure!(changed != usual, "{} has no agents", Self::FILE);
        fs::write(Self::FILE, changed)?;
        let longer = Self(usual);
        systemctl("restart enforcer.service")?;
        enforcing()?;
        Ok(longer)
    }
}

impl Drop for MoreTime {
    fn drop(&mut self) {
        let _ = fs::write(Self::FILE, &self.0);
        let _ = systemctl("restart enforcer.service");
        let _ = enforcing();
    }
}

/// An agent could otherwise keep a stricter policy from being in force by making links of what that would deny.
fn more_links_than_there_is_room_for_are_all_refused(t: &mut Test) -> Outcome {
    t.needs_thorough()?;
    let _longer = MoreTime::new()?;
    linked(t)?;
    let (open, shut) = (t.at("open"), t.at("shut"));
    t.dir("open/many")?;
    for number in 0..=LINKS_OF_ONE {
        let name = format!("{shut}/many-{number}");
        fs::write(&name, "")?;
        fs::hard_link(name, format!("{open}/many/{number}"))?;
    }
    let wide = t.policy().allow("read", &format!("{open}/**"));
    let mut agent = t.agent(wide.clone())?;
    let acts = ["many/0", "f1", "f9", "f10"].map(|name| format!("read {open}/{name}"));
    let all = agent.probe(&acts)?;
    ensure!(all.lines == ["ok"; 4], "{:?}", all.lines);
    agent.change(wide.next().deny("read", &format!("{shut}/**")))?;
    // Two that have a denied name, one that only has another, and one that has none.
    let refused = agent.probe(&acts)?;
    ensure!(refused.lines == ["EPERM", "EPERM", "EPERM", "ok"], "{:?}", refused.lines);
    let status = Command::new("enforcer").args(["status"]).run()?;
    let said = status.out.contains("whatever has several names is refused");
    ensure!(status.code == Some(1) && said && status.out.contains(agent.name()), "{status}");
    // With fewer links the policy is in force as it is meant.
    fs::remove_dir_all(format!("{open}/many"))?;
    agent.change(wide.next().next().deny("read", &format!("{shut}/**")))?;
    let known = agent.probe(&acts[1..])?;
    ensure!(known.lines == ["EPERM", "ok", "ok"], "{:?}", known.lines);
    Ok(())
}
