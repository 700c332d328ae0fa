//! Agents that systemd starts, containers, and what happens while no daemon runs.

use super::tree;
use crate::{
    agent::{Agent, PROBE, ROOT},
    cases,
    command::{Command, systemctl, wait_for},
    ensure,
    events::{self, Mark},
    fail,
    harness::{Outcome, Test, exists},
    promise::{self as check, Denial},
};
use serde_json::Value;
use std::{fs, os::unix::fs::MetadataExt, thread, time::Duration};

cases!(units:
    a_unit_in_the_slice_starts_as_its_agent,
    an_instance_of_the_template_is_its_agent_and_outlives_a_restart_of_the_daemon,
    a_unit_that_no_policy_names_has_no_rights,
    a_container_is_governed_by_the_names_inside_it,
    without_a_daemon_denials_continue,
    a_slice_started_anew_without_a_daemon_is_governed,
);

/// A unit in the agents' slice, whose lines go to a file.
pub(crate) struct Unit {
    name: String,
    out: String,
}

impl Unit {
    /// Starts it, and waits for its end if asked to.
    pub(crate) fn start(t: &Test, name: &str, words: &[String], wait: bool) -> Outcome<(Self, Option<i32>)> {
        Self::start_in(t, "agents.slice", "out", name, words, wait)
    }

    /// The same in a slice below the agents', with another file for its lines.
    pub(crate) fn start_in(
        t: &Test,
        slice: &str,
        file: &str,
        name: &str,
        words: &[String],
        wait: bool,
    ) -> Outcome<(Self, Option<i32>)> {
        let out = t.at(file);
        let _ = fs::remove_file(&out);
        let mut run =
            Command::new("systemd-run").args(["--quiet", "--collect", &format!("--slice={slice}")]).args([
                format!("--unit={name}"),
                format!("--property=StandardOutput=file:{out}"),
                format!("--property=StandardError=file:{}", t.at("err")),
            ]);
        if wait {
            run = run.args(["--wait"]);
        }
        let ran = run.args(words).run()?;
        Ok((Self { name: name.to_owned(), out }, ran.code))
    }

    pub(crate) fn lines(&self) -> Vec<String> {
        fs::read_to_string(&self.out).unwrap_or_default().lines().map(str::to_owned).collect()
    }

    pub(crate) fn wait_for_line(&self, line: &str) -> Outcome {
        let what = format!("the line {line} of {}", self.name);
        match wait_for(&what, 120, || self.lines().contains(&line.to_owned()).then_some(())) {
            Ok(()) => Ok(()),
            Err(error) => fail!("{error}: {:?}", self.lines()),
        }
    }
}

impl Drop for Unit {
    fn drop(&mut self) {
        let _ = Command::new("systemctl").args(["stop", &self.name]).run();
    }
}

pub(crate) fn probe(acts: &[String]) -> Vec<String> {
    let words = acts.join(" , ");
    [PROBE, "seq"].into_iter().chain(words.split(' ')).map(str::to_owned).collect()
}

/// The policy of an agent that lives in the unit `name`.
pub(crate) fn matched(t: &Test, name: &str) -> crate::policy::Policy {
    t.policy().line(&format!("match: {{ cgroup: '/agents.slice/{name}.service' }}"))
}

/// The records of an agent's session before the one about `marker`.
pub(crate) fn records(agent: &Agent, mark: Mark, marker: &str) -> Outcome<Vec<Value>> {
    let last = events::wait("the marker's record", mark, |record| {
        record["agent"] == agent.name() && record["object"]["path"] == marker
    })?;
    events::until_marker(mark, last["session"].as_str().unwrap_or_default(), marker)
}

pub(crate) fn judged(records: &[Value], denials: &[Denial], agent: &Agent) -> Outcome {
    let shown: Vec<String> = records.iter().map(events::shown).collect();
    ensure!(
        records.len() == denials.len(),
        "{} records, not {}:\n{}",
        records.len(),
        denials.len(),
        shown.join("\n")
    );
    let both = records.iter().zip(denials);
    let faults: Vec<String> = both.flat_map(|(record, denial)| denial.faults(record, agent)).collect();
    if faults.is_empty() { Ok(()) } else { fail!("{}", faults.join("\n")) }
}

fn a_unit_in_the_slice_starts_as_its_agent(t: &mut Test) -> Outcome {
    tree(t)?;
    let agent = t.agent(matched(t, "probe-unit").allow("read", &t.at("open/**")))?;
    let mark = events::mark()?;
    let marker = check::marker(t)?;
    let acts = [
        format!("read {}", t.at("open/f1")),
        format!("read {}", t.at("shut/f1")),
        "mount-tmpfs /mnt".to_owned(),
        format!("read {marker}"),
    ];
    let (unit, code) = Unit::start(t, "probe-unit", &probe(&acts), true)?;
    let lines = unit.lines();
    ensure!(code == Some(0) && lines == ["ok", "EPERM", "EPERM", "EPERM"], "{code:?} {lines:?}");
    let denials =
        [Denial::no_rule("open").on(&t.at("shut/f1")).asking("read"), Denial::floor("mount|capability")];
    judged(&records(&agent, mark, &marker)?, &denials, &agent)
}

/// An instance of the template, with its drop-in.
struct Instance(&'static str);

impl Instance {
    fn start(name: &'static str, acts: &[String], out: &str) -> Outcome<Self> {
        let instance = Self(name);
        fs::create_dir_all(instance.drop_ins())?;
        let words = probe(acts).join(" ");
        let text = format!(
            "[Service]\nExecStart={words}\nRestart=no\nStandardOutput=file:{out}\nStandardError=null\n"
        );
        fs::write(format!("{}/10-tests.conf", instance.drop_ins()), text)?;
        systemctl("daemon-reload")?;
        systemctl(&format!("start {name}"))?;
        Ok(instance)
    }

    fn drop_ins(&self) -> String {
        format!("/run/systemd/system/{}.d", self.0)
    }

    fn pid(&self) -> Outcome<String> {
        let ran = Command::new("systemctl").args(["show", "--property=MainPID", "--value", self.0]).run()?;
        Ok(ran.out.trim().to_owned())
    }
}

impl Drop for Instance {
    fn drop(&mut self) {
        let _ = Command::new("systemctl").args(["stop", self.0, "enforcer-ready.service"]).run();
        let _ = fs::remove_dir_all(self.drop_ins());
        let _ = systemctl("daemon-reload");
    }
}

fn an_instance_of_the_template_is_its_agent_and_outlives_a_restart_of_the_daemon(t: &mut Test) -> Outcome {
    tree(t)?;
    let agent = t.agent(matched(t, "enforcer@template-bot").allow("read", &t.at("open/**")))?;
    let (out, open, shut) = (t.at("out"), t.at("open/f1"), t.at("shut/f1"));
    let wait = format!("wait-for {} 600", t.at("go"));
    let acts = [
        format!("read {open}"),
        format!("read {shut}"),
        "say begun".to_owned(),
        wait,
        format!("read {shut}"),
    ];
    let instance = Instance::start("enforcer@template-bot.service", &acts, &out)?;
    let lines = || fs::read_to_string(&out).unwrap_or_default();
    wait_for("its first lines", 120, || lines().starts_with("ok\nEPERM\nbegun\n").then_some(()))?;
    let status = agent.status()?.unwrap_or_default();
    ensure!(status["sessions"].as_array().map(Vec::len) == Some(1), "{status}");
    let pid = instance.pid()?;
    systemctl("restart enforcer.service")?;
    enforcing()?;
    ensure!(instance.pid()? == pid && pid != "0", "it was process {pid}, and is {}", instance.pid()?);
    t.file("go")?;
    wait_for("its last line", 120, || (lines() == "ok\nEPERM\nbegun\nok\nok\nEPERM\n").then_some(()))?;
    Ok(())
}

fn a_unit_that_no_policy_names_has_no_rights(t: &mut Test) -> Outcome {
    tree(t)?;
    let mark = events::mark()?;
    let acts = [format!("read {}", t.at("open/f1"))];
    let (unit, code) = Unit::start(t, "probe-unknown", &probe(&acts), true)?;
    ensure!(code != Some(0) && unit.lines().is_empty(), "{code:?} {:?}", unit.lines());
    events::wait("the refusal", mark, |record| {
        record["kind"] == "decision" && record["reason"] == "no-session" && record["agent"].is_null()
    })?;
    Ok(())
}

/// Tests' own executor, beside those of the settings.
pub(super) fn allow_executor(path: &str) -> Outcome {
    let settings = "/etc/enforcer/enforcer.toml";
    let text = fs::read_to_string(settings)?;
    if !text.contains(path) {
        let changed = text.replacen("executors = [", &format!("executors = [\n    \"{path}\","), 1);
        ensure!(changed != text, "{settings} has no executors");
        fs::write(settings, changed)?;
        systemctl("restart enforcer.service")?;
        enforcing()?;
    }
    Ok(())
}

/// The end of enforcement, and a start that finds nothing.
pub(super) fn start_from_nothing() -> Outcome {
    systemctl("stop enforcer.service")?;
    let ran = Command::new("enforcer").args(["daemon", "--uninstall"]).run()?;
    ensure!(ran.code == Some(0), "{ran}");
    // All programs are loaded anew: minutes on a busy machine.
    systemctl("start --no-block enforcer.service")?;
    let active = || Command::new("systemctl").args(["is-active", "--quiet", "enforcer.service"]).run();
    wait_for("a start from nothing", 600, || active().ok().filter(|ran| ran.code == Some(0)))?;
    enforcing()
}

/// Waits for a daemon that enforces. It may say that records were lost while there was none.
pub(super) fn enforcing() -> Outcome {
    let status = || Command::new("enforcer").args(["status"]).run();
    wait_for("a daemon that enforces", 300, || status().ok().filter(|ran| matches!(ran.code, Some(0 | 1))))?;
    Ok(())
}

fn a_container_is_governed_by_the_names_inside_it(t: &mut Test) -> Outcome {
    tree(t)?;
    let init = "/usr/lib/enforcer-tests/container-init";
    Command::new("modprobe").args(["overlay"]).run()?;
    allow_executor(init)?;
    // LOWER/data/{open,shut} is /data inside.
    for side in ["open", "shut"] {
        fs::create_dir_all(t.at("lower/data"))?;
        fs::rename(t.at(side), t.at(&format!("lower/data/{side}")))?;
    }
    fs::write(t.at("lower/data/marker"), "")?;
    let scratch = t.dir("scratch")?;
    let agent = t.agent(matched(t, "probe-container").allow("all", "/data/open/**").exec("/usr/bin/true"))?;
    let mark = events::mark()?;
    let outside_name = t.at("lower/data/open/f1");
    let (good, bad): (Vec<String>, Vec<(String, Denial)>) = (
        [
            "read /data/open/f1",
            "write /data/open/f1 x",
            "create /data/open/n1",
            "mkdir /data/open/n2",
            "symlink x /data/open/n3",
            "link /data/open/f2 /data/open/n4",
            "rename /data/open/f3 /data/open/n5",
            "rename /data/open/f4 /data/open/f5",
            "rename /data/open/n2 /data/open/n6",
            "unlink /data/open/f6",
            "rmdir /data/open/e1",
            "truncate /data/open/f7",
            "chmod /data/open/f8",
            "list /data/open",
            "exec /usr/bin/true",
        ]
        .map(str::to_owned)
        .into(),
        vec![
            ("read /data/shut/f1".into(), Denial::no_rule("open").on("/data/shut/f1").asking("read")),
            ("write /data/shut/f2 x".into(), Denial::no_rule("open").on("/data/shut/f2").asking("write")),
            ("create /data/shut/n1".into(), Denial::no_rule("create").on("/data/shut/n1").asking("create")),
            ("unlink /data/shut/f3".into(), Denial::no_rule("unlink").on("/data/shut/f3").asking("delete")),
            (
                "rename /data/shut/f4 /data/open/n7".into(),
                Denial::no_rule("rename").on("/data/shut/f4").asking("delete+rename"),
            ),
            ("chmod /data/shut/f5".into(), Denial::no_rule("chmod").on("/data/shut/f5").asking("metadata")),
            ("exec /usr/bin/id".into(), Denial::no_rule("exec").on("/usr/bin/id").asking("exec")),
            (format!("read {outside_name}"), Denial::no_rule("open").on(&outside_name).asking("read")),
            ("chroot /data".into(), Denial::floor("chroot|capability")),
            ("mount-tmpfs /mnt".into(), Denial::floor("mount|capability")),
        ],
    );
    let mut acts = good.clone();
    acts.extend(bad.iter().map(|(act, _)| act.clone()));
    acts.push("read /data/marker".to_owned());
    let mut words = [init, &t.at("lower"), &scratch, "--"].map(str::to_owned).to_vec();
    words.extend(probe(&acts));
    let (unit, code) = Unit::start(t, "probe-container", &words, true)?;
    let lines = unit.lines();
    let complaint = fs::read_to_string(t.at("err")).unwrap_or_default();
    if code != Some(0) {
        let mine = events::since(mark)?.into_iter().filter(|record| record["agent"] == agent.name());
        let shown: Vec<String> =
            mine.map(|record| format!("{} {}", record["kind"], events::shown(&record))).collect();
        fail!("{code:?} {lines:?} {complaint}\n{}", shown.join("\n"));
    }
    let expected = |index: usize| if index < good.len() { "ok" } else { "EPERM" };
    let wrong: Vec<String> = acts
        .iter()
        .enumerate()
        .filter(|(index, _)| lines.get(*index).is_none_or(|line| line != expected(*index)))
        .map(|(index, act)| format!("{act}: {}", lines.get(index).map_or("nothing", String::as_str)))
        .collect();
    ensure!(wrong.is_empty(), "{}", wrong.join("\n"));
    let denials: Vec<Denial> = bad.into_iter().map(|(_, denial)| denial).collect();
    judged(&records(&agent, mark, "/data/marker")?, &denials, &agent)?;
    // What the container wrote stays in its own layer.
    ensure!(!exists(&t.at("lower/data/open/n1")), "the container wrote through its root");
    Ok(())
}

/// No daemon, and none is started again, until this value goes.
pub(crate) struct NoDaemon;

const DROP_IN: &str = "/run/systemd/system/enforcer.service.d/90-tests.conf";

impl NoDaemon {
    pub(crate) fn kill() -> Outcome<Self> {
        fs::create_dir_all("/run/systemd/system/enforcer.service.d")?;
        fs::write(DROP_IN, "[Service]\nRestart=no\n")?;
        systemctl("daemon-reload")?;
        let guard = Self;
        systemctl("kill --signal=KILL enforcer.service")?;
        let dead = || Command::new("systemctl").args(["is-active", "enforcer.service"]).run();
        wait_for("the end of the daemon", 120, || dead().ok().filter(|ran| ran.code != Some(0)))?;
        Ok(guard)
    }

    pub(crate) fn start_again(self) -> Outcome {
        drop(self);
        enforcing()
    }
}

impl Drop for NoDaemon {
    fn drop(&mut self) {
        let _ = fs::remove_file(DROP_IN);
        let _ = systemctl("daemon-reload");
        let _ = systemctl("reset-failed enforcer.service");
        let _ = systemctl("start enforcer.service");
    }
}

fn without_a_daemon_denials_continue(t: &mut Test) -> Outcome {
    tree(t)?;
    let agent = t.agent(matched(t, "probe-loop").allow("read", &t.at("open/**")))?;
    let mark = events::mark()?;
    let marker = check::marker(t)?;
    let acts = [
        "say ready".to_owned(),
        format!("loop {} read {}", t.at("end"), t.at("shut/f1")),
        format!("read {}", t.at("open/f1")),
        format!("read {marker}"),
    ];
    let (unit, _) = Unit::start(t, "probe-loop", &probe(&acts), false)?;
    unit.wait_for_line("ready")?;
    let dead = NoDaemon::kill()?;
    thread::sleep(Duration::from_secs(2));
    ensure!(Command::new("enforcer").args(["status"]).run()?.code == Some(69), "a daemon answers");
    // What only rules allow goes on without a daemon too; a new launch does not.
    let launch = Command::new("enforcer").args(["exec", agent.name(), "--", PROBE, "fork"]).run()?;
    ensure!(launch.code == Some(69), "{launch}");
    dead.start_again()?;
    systemctl("restart enforcer.service")?;
    enforcing()?;
    t.file("end")?;
    unit.wait_for_line("EPERM")?;
    let lines = unit.lines();
    let [ready, said, tried, looped, twin, last] = &lines[..] else { fail!("{lines:?}") };
    ensure!([ready, said, looped, twin] == ["ready", "ok", "ok", "ok"] && last == "EPERM", "{lines:?}");
    let number: u64 = tried.strip_prefix("tried ").and_then(|n| n.parse().ok()).unwrap_or(0);
    ensure!(number > 100, "only {number} attempts");
    let all = records(&agent, mark, &marker)?;
    let denial = Denial::no_rule("open").on(&t.at("shut/f1")).asking("read");
    let last = all.last().map(|record| denial.faults(record, &agent)).unwrap_or_default();
    ensure!(!all.is_empty() && last.is_empty(), "{} records; the last: {}", all.len(), last.join("\n"));
    Ok(())
}

fn a_slice_started_anew_without_a_daemon_is_governed(t: &mut Test) -> Outcome {
    tree(t)?;
    let agent = t.agent(matched(t, "probe-anew").allow("read", &t.at("open/**")))?;
    let mark = events::mark()?;
    let marker = check::marker(t)?;
    let acts =
        [format!("read {}", t.at("open/f1")), format!("read {}", t.at("shut/f1")), format!("read {marker}")];
    let before = fs::metadata(ROOT)?.ino();
    let dead = NoDaemon::kill()?;
    systemctl("stop agents.slice")?;
    wait_for("the end of the slice's cgroup", 120, || (!exists(ROOT)).then_some(()))?;
    systemctl("start agents.slice")?;
    ensure!(fs::metadata(ROOT)?.ino() != before, "the slice has the same cgroup as before");
    let (unit, code) = Unit::start(t, "probe-anew", &probe(&acts), true)?;
    ensure!(unit.lines() == ["ok", "EPERM", "EPERM"], "{code:?} {:?}", unit.lines());
    // An unknown child of the new root has no rights either.
    let (unknown, code) = Unit::start(t, "probe-unknown", &probe(&acts), true)?;
    ensure!(code != Some(0) && unknown.lines().is_empty(), "{code:?} {:?}", unknown.lines());
    dead.start_again()?;
    let denial = Denial::no_rule("open").on(&t.at("shut/f1")).asking("read");
    judged(&records(&agent, mark, &marker)?, &[denial], &agent)?;
    // And the daemon that came back still launches into the slice.
    let session = agent.probe(&[format!("read {}", t.at("open/f1")), format!("read {}", t.at("shut/f1"))])?;
    ensure!(session.lines == ["ok", "EPERM"], "{:?}", session.lines);
    Ok(())
}
