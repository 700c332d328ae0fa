//! Enforcement outlives every daemon: killed, restarted, replaced by another build and back. And what is not as it
//! should be is said in the same words everywhere.

use super::{
    tree,
    units::{NoDaemon, Unit, enforcing, matched, probe},
};
use crate::{
    agent::Agent,
    approvals::{approve, asked, pending},
    cases,
    command::{Command, systemctl, wait_for},
    ensure, events, fail,
    harness::{Outcome, Test, exists, outside},
};
use serde_json::{Value, json};
use std::{fs, net::TcpListener, time::Instant};

cases!(lifecycle:
    no_attack_succeeds_through_kills_restarts_upgrades_and_downgrades,
    pins_of_another_version_are_refused_and_what_is_attached_goes_on,
    tables_that_are_gone_or_foreign_are_said_and_never_replaced_beside_what_is_attached,
    a_hook_that_is_gone_is_said_in_the_same_words_everywhere,
    what_a_tighter_policy_refuses_is_listed_until_it_is_closed,
    a_session_that_holds_open_what_is_refused_is_killed,
);

const PINS: &str = "/sys/fs/bpf/enforcer";
const PROGRAM: &str = "/usr/bin/enforcer";

fn json(words: &[&str]) -> Outcome<(Option<i32>, Value)> {
    let ran = Command::new("enforcer").args(["--output", "json"]).args(words).run()?;
    match serde_json::from_str(&ran.out) {
        Ok(value) => Ok((ran.code, value)),
        Err(error) => Err(format!("{error}: {ran}").into()),
    }
}

pub(super) fn generation() -> Outcome<u64> {
    Ok(json(&["status"])?.1["generation"].as_u64().unwrap_or_default())
}

/// Waits for a daemon that is not this one, and enforces; its process.
pub(super) fn other_daemon(before: &str) -> Outcome<String> {
    // An emulated machine takes its time to load programs while others attack.
    let now = wait_for("another daemon", 300, || daemon().ok().filter(|now| *now != before && now != "0"))?;
    enforcing()?;
    Ok(now)
}

pub(super) fn daemon() -> Outcome<String> {
    let ran = Command::new("systemctl")
        .args(["show", "--property=MainPID", "--value", "enforcer.service"])
        .run()?;
    Ok(ran.out.trim().to_owned())
}

/// The build that is installed, and one whose kernel programs are another object; the first is put back at the end.
pub(super) struct Builds {
    pub(super) first: Vec<u8>,
    pub(super) second: Vec<u8>,
}

impl Builds {
    pub(super) fn new() -> Outcome<Self> {
        let first = fs::read(PROGRAM)?;
        Ok(Self { second: Self::other(&first)?, first })
    }

    /// The same program with another object for the kernel.
    pub(super) fn other(first: &[u8]) -> Outcome<Vec<u8>> {
        let mut second = first.to_vec();
        // The embedded object is an ELF file for machine 247, EM_BPF. Its debug strings name the compiler; the kernel
        // never sees them, and to the daemon an object with another digest is another one.
        let start = first
            .windows(20)
            .position(|w| w.starts_with(b"\x7fELF") && u16::from_le_bytes([w[18], w[19]]) == 247);
        let Some(start) = start else { fail!("no object in {PROGRAM}") };
        let word = b"rustc version";
        let Some(at) = first[start..].windows(word.len()).position(|w| w == word) else {
            fail!("the object does not name its compiler")
        };
        second[start + at..start + at + word.len()].copy_from_slice(b"RUSTC VERSION");
        Ok(second)
    }

    /// As a package manager does it: a new file takes the name.
    pub(super) fn install(build: &[u8]) -> Outcome {
        use std::os::unix::fs::PermissionsExt;
        let fresh = format!("{PROGRAM}.new");
        fs::write(&fresh, build)?;
        fs::set_permissions(&fresh, fs::Permissions::from_mode(0o755))?;
        Ok(fs::rename(fresh, PROGRAM)?)
    }
}

impl Drop for Builds {
    fn drop(&mut self) {
        let installed = fs::read(PROGRAM).unwrap_or_default();
        if installed != self.first {
            let _ = Self::install(&self.first);
            let _ = systemctl("restart enforcer.service");
            let _ = enforcing();
        }
    }
}

fn no_attack_succeeds_through_kills_restarts_upgrades_and_downgrades(t: &mut Test) -> Outcome {
    t.needs_thorough()?;
    tree(t)?;
    let listener = TcpListener::bind("127.0.0.1:0")?;
    let port = listener.local_addr()?.port();
    let agent = t.agent(matched(t, "probe-storm").allow("read", &t.at("open/**")))?;
    let builds = Builds::new()?;
    let storm = [
        format!("read {}", t.at("shut/f1")),
        format!("write {} x", t.at("shut/f2")),
        format!("unlink {}", t.at("shut/f3")),
        format!("mkdir {}", t.at("shut/new")),
        format!("rename {} {}", t.at("open/f4"), t.at("open/f5")),
        format!("tcp 127.0.0.1 {port}"),
    ];
    let acts = [
        "say ready".to_owned(),
        format!("storm {} {}", t.at("end"), storm.join(" + ")),
        format!("read {}", t.at("open/f1")),
    ];
    let (unit, _) = Unit::start(t, "probe-storm", &probe(&acts), false)?;
    unit.wait_for_line("ready")?;
    let mut asker = Asker::start(t)?;
    let (cycles, mut seen) = (if t.full { 100 } else { 4 }, generation()?);
    let begun = Instant::now();
    for cycle in 0..cycles {
        let (before, replaced) = (daemon()?, cycle % 4 >= 2);
        match cycle % 4 {
            0 => systemctl("kill --signal=KILL enforcer.service")?,
            1 => systemctl("restart --no-block enforcer.service")?,
            2 => {
                Builds::install(&builds.second)?;
                systemctl("restart --no-block enforcer.service")?;
            }
            _ => {
                Builds::install(&builds.first)?;
                systemctl("restart --no-block enforcer.service")?;
            }
        }
        other_daemon(&before)?;
        let now = generation()?;
        ensure!((now > seen) == replaced, "cycle {cycle}: generation {seen}, then {now}");
        seen = now;
        match cycle {
            2 => asker.is_answered()?,
            3 => asker.uses_what_is_left(t)?,
            _ => {}
        }
        if cycle % 20 == 19 {
            eprintln!("{} cycles in {} s", cycle + 1, begun.elapsed().as_secs());
        }
    }
    t.file("end")?;
    wait_for("the end of the storm", 120, || (unit.lines().len() == 5).then_some(()))?;
    let lines = unit.lines();
    let [ready, said, tried, stormed, twin] = &lines[..] else { fail!("{lines:?}") };
    ensure!([ready, said, stormed, twin] == ["ready", "ok", "ok", "ok"], "{lines:?}");
    let numbers: Vec<u64> = tried.split(' ').filter_map(|word| word.parse().ok()).collect();
    let [count, milliseconds] = numbers[..] else { fail!("{tried}") };
    let rate = count * 1000 / milliseconds.max(1);
    eprintln!("{cycles} cycles, {count} attempts in {milliseconds} ms ({rate} each second), none succeeded");
    // A machine that others use as well, or that stood still at the end, makes fewer.
    let least = if t.full { 1_000 } else { 200 };
    ensure!(rate >= least, "{cycles} cycles, only {rate} attempts each second: {tried}");
    // What was attempted is untouched, and another session goes on as before.
    ensure!(
        exists(&t.at("shut/f3")) && exists(&t.at("open/f5")) && !exists(&t.at("shut/new")),
        "a file has changed"
    );
    drop(listener);
    let session = agent.probe(&[format!("read {}", t.at("open/f1")), format!("read {}", t.at("shut/f1"))])?;
    ensure!(session.lines == ["ok", "EPERM"], "{:?}", session.lines);
    Ok(())
}

/// Somebody who waits for a person through kills and an upgrade, and is granted two calls, one of which comes after a
/// further change of programs.
struct Asker {
    agent: Agent,
    unit: Unit,
}

impl Asker {
    fn start(t: &Test) -> Outcome<Self> {
        let held = t.at("shut/f9");
        // Four changes of daemons take a busy machine longer than the settings' ten minutes.
        let rule = format!("hold: [read], paths: ['{held}'], hold_timeout: 2h");
        let agent = t.agent(matched(t, "probe-asker").file(rule))?;
        let acts =
            [format!("read {held}"), format!("wait-for {} 600", t.at("again")), format!("read {held}")];
        let (unit, _) = Unit::start_in(t, "agents.slice", "asked", "probe-asker", &probe(&acts), false)?;
        asked(&agent, "open")?;
        Ok(Self { agent, unit })
    }

    fn lines(&self, wanted: &[&str]) -> Outcome {
        let what = format!("{wanted:?} of who waits");
        match wait_for(&what, 120, || (self.unit.lines() == wanted).then_some(())) {
            Ok(()) => Ok(()),
            Err(error) => fail!("{error}: {:?}", self.unit.lines()),
        }
    }

    fn is_answered(&mut self) -> Outcome {
        ensure!(self.unit.lines().is_empty(), "it did not wait: {:?}", self.unit.lines());
        approve(&asked(&self.agent, "open")?, &["--times", "2"])?;
        self.lines(&["ok"])
    }

    fn uses_what_is_left(&mut self, t: &Test) -> Outcome {
        t.file("again")?;
        self.lines(&["ok", "ok", "ok"])?;
        ensure!(pending(&self.agent)?.is_empty(), "somebody was asked again");
        Ok(())
    }
}

/// Starts the daemon, which must refuse to start, for this reason.
fn start_refused(t: &Test, reason: &str) -> Outcome {
    let _ = fs::remove_file(t.at("err"));
    let log = t.at("err");
    let words = format!("exec timeout 250 {PROGRAM} daemon >{log} 2>&1");
    let ran = Command::new("sh").args(["-c", &words]).run()?;
    let text = fs::read_to_string(&log)?;
    ensure!(!matches!(ran.code, Some(0 | 124)) && text.contains(reason), "{:?} {text}", ran.code);
    Ok(())
}

/// A unit that tries, while `during` goes on, what it must not do.
fn refused_meanwhile(t: &Test, name: &str, during: impl FnOnce() -> Outcome) -> Outcome {
    let shut = t.at("shut/f1");
    let acts = [
        "say ready".to_owned(),
        format!("storm {} read {shut}", t.at("end")),
        format!("read {}", t.at("open/f1")),
    ];
    let (unit, _) = Unit::start(t, name, &probe(&acts), false)?;
    unit.wait_for_line("ready")?;
    let result = during();
    t.file("end")?;
    result?;
    wait_for("the end of the storm", 120, || (unit.lines().len() == 5).then_some(()))?;
    let lines = unit.lines();
    ensure!(lines[3..] == ["ok", "ok"], "{lines:?}");
    Ok(())
}

fn pins_of_another_version_are_refused_and_what_is_attached_goes_on(t: &mut Test) -> Outcome {
    tree(t)?;
    let _agent = t.agent(matched(t, "probe-version").allow("read", &t.at("open/**")))?;
    let meta = format!("{PINS}/maps/META");
    let generation = generation()?;
    refused_meanwhile(t, "probe-version", || {
        let dead = NoDaemon::kill()?;
        ensure!(outside(&format!("bpf-add-abi {meta} 1"))? == "ok", "the version cannot be changed");
        let refused = start_refused(t, "ABI version");
        ensure!(outside(&format!("bpf-add-abi {meta} -1"))? == "ok", "the version cannot be changed back");
        refused?;
        ensure!(exists(&format!("{PINS}/links-{generation}/socket_connect")), "the links are gone");
        dead.start_again()
    })
}

fn tables_that_are_gone_or_foreign_are_said_and_never_replaced_beside_what_is_attached(
    t: &mut Test,
) -> Outcome {
    tree(t)?;
    let _agent = t.agent(matched(t, "probe-tables").allow("read", &t.at("open/**")))?;
    let generation = generation()?;
    refused_meanwhile(t, "probe-tables", || {
        let meta = Away::take("META")?;
        let said = json(&["status"]);
        let dead = NoDaemon::kill()?;
        start_refused(t, "of their tables META is gone")?;
        // Another table under its name, which says nothing.
        meta.replace("128 0")?;
        start_refused(t, "META does not say what they are")?;
        drop(meta);
        let labels = Away::take("LABELS")?;
        start_refused(t, "of their tables LABELS is gone")?;
        drop(labels);
        let gate = Away::take("GATE")?;
        gate.replace("136 1024")?;
        start_refused(t, "GATE is not the tables that they use")?;
        drop(gate);
        ensure!(exists(&format!("{PINS}/links-{generation}/socket_connect")), "the links are gone");
        dead.start_again()?;
        let (code, status) = said?;
        ensure!(code == Some(1) && status["state"] == "degraded", "{code:?} {status}");
        ensure!(status["problems"].to_string().contains("the pin of META is gone"), "{status}");
        Ok(())
    })?;
    ensure!(self::generation()? == generation, "the programs were replaced");
    Ok(())
}

/// A pinned table that is not where it was pinned, until this value goes.
struct Away(&'static str);

impl Away {
    fn take(map: &'static str) -> Outcome<Self> {
        fs::rename(format!("{PINS}/maps/{map}"), format!("{PINS}/maps/AWAY"))?;
        Ok(Self(map))
    }

    /// Puts another table there, of so many bytes and these flags.
    fn replace(&self, words: &str) -> Outcome {
        let said = outside(&format!("bpf-pin-other {PINS}/maps/{} {words}", self.0))?;
        ensure!(said == "ok", "nothing is pinned: {said}");
        Ok(())
    }
}

impl Drop for Away {
    fn drop(&mut self) {
        let _ = fs::remove_file(format!("{PINS}/maps/{}", self.0));
        let _ = fs::rename(format!("{PINS}/maps/AWAY"), format!("{PINS}/maps/{}", self.0));
    }
}

/// A link that lies where that of another program belongs.
fn another_hooks_link_is_said(links: &str) -> Outcome {
    let [place, other] = ["socket_connect", "socket_listen"].map(|hook| format!("{links}/{hook}"));
    let away = format!("{place}-away");
    fs::rename(&place, &away)?;
    fs::rename(&other, &place)?;
    let status = json(&["status"]);
    fs::rename(&place, &other)?;
    fs::rename(&away, &place)?;
    let (code, status) = status?;
    let problems = status["problems"].to_string();
    ensure!(code == Some(2) && status["state"] == "NOT ENFORCING", "{code:?} {status}");
    ensure!(problems.contains(&format!("{place} is a link to another program")), "{problems}");
    ensure!(problems.contains(&format!("the link {other} is gone")), "{problems}");
    let (code, status) = json(&["status"])?;
    ensure!(matches!(code, Some(0 | 1)) && status["state"] != "NOT ENFORCING", "{code:?} {status}");
    Ok(())
}

fn a_hook_that_is_gone_is_said_in_the_same_words_everywhere(_: &mut Test) -> Outcome {
    let links = format!("{PINS}/links-{}", generation()?);
    another_hooks_link_is_said(&links)?;
    let link = format!("{links}/socket_connect");
    let mark = events::mark()?;
    fs::remove_file(&link)?;
    let said = || -> Outcome {
        let (code, status) = json(&["status"])?;
        ensure!(code == Some(2) && status["state"] == "NOT ENFORCING", "{code:?} {status}");
        ensure!(status["problems"].to_string().contains("socket_connect is not attached"), "{status}");
        let (code, doctor) = json(&["doctor"])?;
        ensure!(code == Some(2) && doctor["state"] == "NOT ENFORCING", "{code:?} {doctor}");
        let text = Command::new("enforcer").args(["status"]).run()?;
        ensure!(text.out.starts_with("NOT ENFORCING\n"), "{text}");
        let metrics = Command::new("enforcer").args(["metrics"]).run()?;
        ensure!(metrics.out.contains("enforcer_state{state=\"NOT ENFORCING\"} 1\n"), "{metrics}");
        wait_for("systemd's status line", 120, || {
            let show = ["show", "--property=StatusText", "--value", "enforcer.service"];
            let ran = Command::new("systemctl").args(show).run().ok()?;
            (ran.out.starts_with("NOT ENFORCING: ") && ran.out.contains("socket_connect")).then_some(())
        })?;
        events::wait("the record of the state", mark, |record| {
            record["kind"] == "state" && record["state"] == "NOT ENFORCING"
        })?;
        Ok(())
    };
    let result = said();
    let before = daemon()?;
    systemctl("restart enforcer.service")?;
    other_daemon(&before)?;
    result?;
    let (code, status) = json(&["status"])?;
    ensure!(matches!(code, Some(0 | 1)) && status["state"] != "NOT ENFORCING", "{code:?} {status}");
    ensure!(exists(&format!("{PINS}/links-{}/socket_connect", generation()?)), "the hook is not back");
    Ok(())
}

fn what_a_tighter_policy_refuses_is_listed_until_it_is_closed(t: &mut Test) -> Outcome {
    tree(t)?;
    let listener = TcpListener::bind("127.0.0.1:0")?;
    let port = listener.local_addr()?.port();
    let (kept, to) = (t.at("open/f1"), format!("127.0.0.1:{port}/tcp"));
    let wide = t.policy().allow("read", &t.at("open/**")).connect(&to);
    let narrow = wide.next();
    let mut agent = t.agent(wide)?;
    let acts = [
        format!("keep {kept}"),
        format!("keep {}", t.at("open/f2")),
        format!("keep-tcp 127.0.0.1 {port}"),
        "say held".to_owned(),
        format!("wait-for {} 600", t.at("end")),
    ];
    let mut live = agent.start(&acts)?;
    live.expect(&["ok", "ok", "ok", "held"])?;
    let mark = events::mark()?;
    agent.change(narrow.deny("read", &kept).connect_deny(&to))?;
    let id = live.id.clone();
    let listed = |agent: &Agent| -> Outcome<Vec<(String, String)>> {
        let status = agent.status()?.unwrap_or_default();
        let all = status["left_open"].as_array().cloned().unwrap_or_default();
        let text = |value: &Value| value.as_str().unwrap_or_default().to_owned();
        ensure!(all.iter().all(|one| one["source"] == "proc" && one["session"] == id.as_str()), "{status}");
        Ok(all.iter().map(|one| (text(&one["how"]), text(&one["object"]))).collect())
    };
    let expected = [("descriptor".to_owned(), kept.clone()), ("socket".to_owned(), to.clone())];
    ensure!(listed(&agent)? == expected, "{:?}", listed(&agent)?);
    let record = events::wait("the record", mark, |record| record["kind"] == "policy-tightened")?;
    ensure!(record["agent"] == agent.name() && record["killed"] == Value::Array(Vec::new()), "{record}");
    let (code, status) = json(&["status"])?;
    ensure!(code == Some(1) && status["problems"].to_string().contains("2 things open"), "{code:?} {status}");
    t.file("end")?;
    live.finish()?;
    wait_for("an empty list", 120, || listed(&agent).ok().filter(Vec::is_empty))?;
    Ok(())
}

fn a_session_that_holds_open_what_is_refused_is_killed(t: &mut Test) -> Outcome {
    tree(t)?;
    let kept = t.at("open/f1");
    let wide = t.policy().allow("read", &t.at("open/**"));
    let narrow = wide.next().line("on_tighten: kill").deny("read", &kept);
    let mut agent = t.agent(wide)?;
    let holds =
        |path: &str| [format!("keep {path}"), "say held".to_owned(), format!("wait-for {} 600", t.at("end"))];
    let (mut guilty, mut innocent) = (agent.start(&holds(&kept))?, agent.start(&holds(&t.at("open/f2")))?);
    guilty.expect(&["ok", "held"])?;
    innocent.expect(&["ok", "held"])?;
    let mark = events::mark()?;
    agent.change(narrow)?;
    // The policy counts as applied: the session is gone already.
    let sessions = agent.status()?.unwrap_or_default()["sessions"].to_string();
    let record = events::wait("the record", mark, |record| record["kind"] == "policy-tightened")?;
    ensure!(record["killed"][0] == guilty.id.as_str() && record["killed"][1].is_null(), "{record}");
    // The daemon waits for its end, though not for long.
    let ended = record["still_ending"] == Value::Array(Vec::new());
    ensure!(ended || record["still_ending"] == json!([guilty.id]), "{record}");
    ensure!(!(ended && sessions.contains(&guilty.id)), "{sessions} {record}");
    ensure!(sessions.contains(&innocent.id), "{sessions}");
    guilty.finish()?;
    t.file("end")?;
    innocent.finish()?;
    Ok(())
}
