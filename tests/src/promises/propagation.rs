//! Mounts that spread from one place to others: an agent does not change how, and what arrives, moves or goes while names
//! are remembered is judged by where it is.

use super::{
    mounts::{Mounted, read},
    tree,
    units::{Unit, allow_executor, judged, matched, probe},
};
use crate::{
    agent::Agent,
    cases,
    command::Command,
    ensure, events,
    harness::{Outcome, Test, outside_all},
    promise::{self as check, Attempt, Denial},
};
use serde_json::Value;
use std::fs;

cases!(propagation:
    nobody_changes_how_mounts_spread,
    a_mount_that_arrives_is_judged_by_its_name_there,
    what_was_remembered_below_a_mount_does_not_survive_its_moving,
    a_mount_that_arrives_in_a_container_is_judged_by_its_name_inside,
);

/// How each mount below a directory, and the root, spreads: `/proc/self/mountinfo` without what is mounted.
fn spreading(below: &str) -> Outcome<Vec<String>> {
    let text = fs::read_to_string("/proc/self/mountinfo")?;
    let mine = |line: &&str| line.split(' ').nth(4).is_some_and(|at| at == "/" || at.starts_with(below));
    Ok(text.lines().filter(mine).filter_map(|line| line.split(" - ").next()).map(str::to_owned).collect())
}

fn outside_ok(acts: &[String]) -> Outcome {
    let lines = outside_all(acts)?;
    ensure!(lines.iter().all(|line| line == "ok"), "{acts:?}: {lines:?}");
    Ok(())
}

fn nobody_changes_how_mounts_spread(t: &mut Test) -> Outcome {
    tree(t)?;
    let at = |number: u32| t.at(&format!("open/e{number}"));
    let _mounts: Vec<Mounted> =
        (1..=3).map(|number| Mounted::new("none", &at(number), "tmpfs", 0)).collect::<Result<_, _>>()?;
    let _peer = Mounted::bind(&at(3), &at(4))?;
    let lay = [
        format!("propagation shared {}", at(1)),
        format!("propagation private {}", at(2)),
        format!("propagation shared {}", at(3)),
        format!("propagation private {}", at(4)),
    ];
    let floor = |act: String| Attempt::new(act, Denial::floor("mount|move-mount|capability"));
    let attempts = [
        floor(format!("join-peers {} {}", at(3), at(4))),
        floor(format!("propagation slave {}", at(1))),
        floor(format!("propagation private {}", at(1))),
        floor(format!("propagation shared {}", at(2))),
        floor(format!("propagation unbindable {}", at(2))),
        floor("propagation rshared /".to_owned()),
        floor("propagation rslave /".to_owned()).not_outside(),
        floor(format!("propagation-attr shared {}", at(2))),
        floor(format!("propagation-attr slave {}", at(2))),
        floor(format!("propagation-attr unbindable {}", at(2))),
        floor(format!("propagation-attr rprivate {}", at(1))),
        floor("propagation-attr rprivate /".to_owned()).not_outside(),
    ];
    outside_ok(&lay)?;
    check::control(&attempts)?;
    outside_ok(&lay)?;
    let before = spreading(&t.at("open"))?;
    ensure!(before.len() >= 5, "{before:?}");
    let agent = super::floor::almighty(t)?;
    check::refused(t, &agent, &[format!("read {}", t.at("open/f1")), format!("list {}", at(3))], &attempts)?;
    let after = spreading(&t.at("open"))?;
    ensure!(before == after, "{before:?}\n{after:?}");
    Ok(())
}

/// A session that has read what is allowed, stands there, and goes on when somebody says so.
struct Warm<'a> {
    t: &'a Test,
    agent: Agent,
    live: crate::agent::Live,
}

impl<'a> Warm<'a> {
    /// `acts` are steps: after each somebody outside does something.
    fn start(t: &'a Test, warm: &[String], steps: &[&[String]]) -> Outcome<Self> {
        let agent = t.agent(t.policy().allow("read, list", &t.at("open/**")))?;
        let mut acts = warm.to_vec();
        for (number, step) in steps.iter().enumerate() {
            acts.push(format!("wait-for {}", t.at(&format!("go{number}"))));
            acts.extend(step.iter().cloned());
        }
        acts.push(format!("read {}", check::marker(t)?));
        let mut live = agent.start(&acts)?;
        live.expect(&vec!["ok"; warm.len()])?;
        Ok(Self { t, agent, live })
    }

    fn step(&mut self, number: usize, lines: &[&str]) -> Outcome {
        self.t.file(&format!("go{number}"))?;
        self.live.expect(&["ok"])?;
        self.live.expect(lines)
    }

    /// Its end, with one record for each of these.
    fn end(mut self, denials: &[Denial]) -> Outcome {
        self.live.expect(&["EPERM"])?;
        let marker = check::marker(self.t)?;
        let records: Vec<Value> =
            events::acts_until_marker(self.live.mark, &self.live.id, &marker, denials.len())?;
        judged(&records, denials, &self.agent)?;
        self.live.finish()?;
        Ok(())
    }
}

fn denied(path: &str) -> Denial {
    Denial::no_rule("open").on(path).asking("read")
}

fn a_mount_that_arrives_is_judged_by_its_name_there(t: &mut Test) -> Outcome {
    tree(t)?;
    let (peer, open, shut) = (t.dir("peer")?, t.at("open/e1"), t.at("shut/e1"));
    let _first = Mounted::new("none", &peer, "tmpfs", 0)?;
    outside_ok(&[format!("propagation shared {peer}")])?;
    t.file("peer/sub/x")?;
    let _others = [Mounted::bind(&peer, &open)?, Mounted::bind(&peer, &shut)?];
    let warm = [format!("chdir {open}/sub"), "read x".to_owned(), format!("read {open}/sub/x")];
    let then = [
        format!("read {open}/sub/y"),
        // It stands below the mount, in what it covers, whose name is the same.
        "read x".to_owned(),
        format!("read {shut}/sub/y"),
        format!("read {peer}/sub/y"),
        "read ../../../shut/e1/sub/y".to_owned(),
    ];
    let gone = [format!("read {open}/sub/x"), format!("read {shut}/sub/x")];
    let mut warm = Warm::start(t, &warm, &[&then, &gone])?;
    {
        let _arrives = Mounted::new("none", &format!("{peer}/sub"), "tmpfs", 0)?;
        fs::write(format!("{peer}/sub/y"), "y")?;
        ensure!(fs::read(format!("{shut}/sub/y"))? == b"y", "it did not spread");
        check::control(&[read(&format!("{open}/sub/y")), read(&format!("{shut}/sub/y"))])?;
        warm.step(0, &["ok", "ok", "EPERM", "EPERM", "EPERM"])?;
    }
    warm.step(1, &["ok", "EPERM"])?;
    let (y, x) = (format!("{shut}/sub/y"), format!("{shut}/sub/x"));
    warm.end(&[denied(&y), denied(&format!("{peer}/sub/y")), denied(&y), denied(&x)])
}

fn what_was_remembered_below_a_mount_does_not_survive_its_moving(t: &mut Test) -> Outcome {
    tree(t)?;
    let (base, open, shut) = (t.at("open"), t.at("open/e1"), t.at("shut/e1"));
    // A mount below one that spreads is not moved.
    let root = base.trim_end_matches("/open");
    let _base = Mounted::bind(root, root)?;
    outside_ok(&[format!("propagation private {root}")])?;
    let _mount = Mounted::new("none", &open, "tmpfs", 0)?;
    t.file("open/e1/d/x")?;
    let warm = [
        format!("chdir {open}/d"),
        "read x".to_owned(),
        format!("read {open}/d/x"),
        "read ../../f1".to_owned(),
    ];
    let moved = ["read x".to_owned(), format!("read {shut}/d/x"), "read ../../f1".to_owned()];
    let back = ["read x".to_owned(), format!("read {open}/d/x")];
    let mut warm = Warm::start(t, &warm, &[&moved, &back, &["read x".to_owned()]])?;
    let mv = |from: &str, to: &str| outside_ok(&[format!("move-mount {from} {to}")]);
    mv(&open, &shut)?;
    check::control(&[read(&format!("{shut}/d/x"))])?;
    warm.step(0, &["EPERM", "EPERM", "EPERM"])?;
    mv(&shut, &open)?;
    warm.step(1, &["ok", "ok"])?;
    // Taken away from under those who stand there: it has no name any more.
    outside_ok(&[format!("umount {open}")])?;
    warm.step(2, &["EPERM"])?;
    let x = format!("{shut}/d/x");
    warm.end(&[
        denied(&x),
        denied(&x),
        denied(&t.at("shut/f1")),
        Denial::because("open", "unknown-object").flagged("foreign"),
    ])
}

fn a_mount_that_arrives_in_a_container_is_judged_by_its_name_inside(t: &mut Test) -> Outcome {
    t.fresh()?;
    let init = "/usr/lib/enforcer-tests/container-init";
    Command::new("modprobe").args(["overlay"]).run()?;
    allow_executor(init)?;
    for side in ["open", "shut"] {
        t.dir(&format!("lower/data/{side}/in"))?;
    }
    t.file("lower/data/marker")?;
    let (scratch, shared) = (t.dir("scratch")?, t.dir("shared")?);
    let _shared = Mounted::new("none", &shared, "tmpfs", 0)?;
    outside_ok(&[format!("propagation shared {shared}")])?;
    t.file("shared/sub/x")?;
    let agent = t.agent(matched(t, "probe-peers").allow("read, list", "/data/open/**"))?;
    let mark = events::mark()?;
    let before = ["chdir /data/open/in/sub", "read x", "say begun", "wait-for /data/open/in/go"];
    let bad = [
        ("read /data/shut/in/sub/y", denied("/data/shut/in/sub/y")),
        ("propagation rshared /", Denial::floor("mount|capability")),
        ("propagation private /data/open/in", Denial::floor("mount|capability")),
        ("propagation-attr rshared /", Denial::floor("capability")),
        ("umount /data/open/in/sub", Denial::floor("unmount|capability")),
    ];
    let mut acts: Vec<String> = before.map(str::to_owned).into();
    acts.extend(["read /data/open/in/sub/y", "read x"].map(str::to_owned));
    acts.extend(bad.iter().map(|(act, _)| (*act).to_owned()));
    acts.push("read /data/marker".to_owned());
    let mut words = [init, &t.at("lower"), &scratch, &shared, "--"].map(str::to_owned).to_vec();
    words.extend(probe(&acts));
    let (unit, _) = Unit::start(t, "probe-peers", &words, false)?;
    unit.wait_for_line("begun")?;
    let _arrives = Mounted::new("none", &format!("{shared}/sub"), "tmpfs", 0)?;
    t.file("shared/sub/y")?;
    check::control(&[read(&t.at("shared/sub/y"))])?;
    t.file("shared/go")?;
    let denials: Vec<Denial> = bad.into_iter().map(|(_, denial)| denial).collect();
    let last = events::wait("the marker's record", mark, |record| {
        record["agent"] == agent.name() && record["object"]["path"] == "/data/marker"
    })?;
    let session = last["session"].as_str().unwrap_or_default();
    let records = events::acts_until_marker(mark, session, "/data/marker", denials.len())?;
    judged(&records, &denials, &agent)?;
    let expected = ["ok", "ok", "begun", "ok", "ok", "ok", "ok"].into_iter().chain(["EPERM"; 6]);
    let expected: Vec<&str> = expected.collect();
    ensure!(unit.lines() == expected, "{:?}", unit.lines());
    Ok(())
}
