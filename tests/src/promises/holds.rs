//! What waits for a person: the call stops, and goes on or fails as the person says.

use crate::{
    agent::{Agent, Live},
    approvals::{Request, approve, asked, deny, held, nothing_waits, pending},
    cases,
    command::{Command, systemctl, wait_for},
    ensure, events, fail,
    harness::{Outcome, Test, exists},
    peer::Port,
};
use serde_json::Value;
use std::{collections::BTreeSet, fs, os::unix::fs::PermissionsExt};

cases!(holds:
    approved_calls_go_on_as_if_nothing_had_happened,
    refused_calls_fail_and_leave_nothing_behind,
    what_nobody_answers_is_refused_in_time,
    a_signal_to_go_on_answers_nothing,
    an_approval_is_for_one_object_as_it_was,
    one_call_asks_once_for_all_its_checks,
    a_rename_that_waits_gains_nothing,
    who_is_killed_waits_no_longer,
    what_waits_outlives_the_daemon,
    what_waits_is_refused_in_time_without_a_daemon,
    another_policy_judges_what_waits_anew,
    what_an_agent_says_decides_nothing,
    a_rule_can_refuse_while_somebody_is_asked,
    an_agent_asks_for_no_more_than_it_may,
);

/// A directory `w` with files `f0` to `f9`, all allowed, but what `holds` says.
pub(super) fn policy(t: &Test, holds: &[(&str, &str)]) -> Outcome<(crate::policy::Policy, String)> {
    t.fresh()?;
    let w = t.dir("w")?;
    for number in 0..10 {
        t.file(&format!("w/f{number}"))?;
    }
    let all = t.policy().allow("all", &format!("{w}/**"));
    let policy =
        holds.iter().fold(all, |policy, (operations, path)| policy.hold(operations, &format!("{w}/{path}")));
    Ok((policy, w))
}

/// The state of a process as /proc tells it: `T` is stopped.
fn state(pid: u32) -> Option<char> {
    let stat = fs::read_to_string(format!("/proc/{pid}/stat")).ok()?;
    stat.rsplit_once(") ")?.1.chars().next()
}

pub(super) fn process(request: &Request) -> Outcome<u32> {
    match request.said["request"]["who"]["process"].as_u64().and_then(|pid| u32::try_from(pid).ok()) {
        Some(pid) => Ok(pid),
        None => fail!("no process in {}", request.said),
    }
}

pub(super) fn stopped(pid: u32) -> Outcome {
    Ok(wait_for("a process that is stopped", 120, || (state(pid) == Some('T')).then_some(()))?)
}

/// The records of a session about one hold.
fn about(live: &Live, hold: &str) -> Outcome<Vec<Value>> {
    Ok(events::since(live.mark)?.into_iter().filter(|record| record["hold"] == hold).collect())
}

/// Exactly these records about a hold: kind and reason or outcome.
pub(super) fn recorded(live: &Live, hold: &str, kind: &str, reason: &str, count: usize) -> Outcome {
    let found = wait_for(&format!("{count} records {kind} {reason}"), 120, || {
        let all = about(live, hold).ok()?;
        let fitting = all.iter().filter(|r| r["kind"] == kind && r["reason"] == reason).count();
        (fitting >= count).then_some(fitting)
    });
    match found {
        Ok(found) if found == count => Ok(()),
        Ok(found) => {
            fail!("{found} records {kind} {reason} instead of {count}: {:?}", about(live, hold)?)
        }
        Err(error) => fail!("{error}: {:?}", about(live, hold)?),
    }
}

fn approved_calls_go_on_as_if_nothing_had_happened(t: &mut Test) -> Outcome {
    let holds = [
        ("write", "f1"),
        ("create,write", "new"),
        ("delete", "f2"),
        ("rename", "f3"),
        ("create", "dir"),
        ("metadata", "f4"),
        ("truncate", "f5"),
        ("link", "twin"),
        ("create", "sym"),
        ("read", "f6"),
    ];
    let (policy, w) = policy(t, &holds)?;
    let port = Port::open()?;
    let policy = policy
        .exec_hold("/usr/bin/true")
        .connect_hold(&format!("127.0.0.1:{}/tcp", port.number))
        .connect_hold(&format!("127.0.0.1:{}/udp", port.number));
    let (number, here) = (port.number, "127.0.0.1");
    // The act, the operation that waits, and what must not be there before and must be there afterwards.
    let steps: Vec<(String, &str, Done)> = vec![
        (format!("write {w}/f1 changed"), "open", is_text(&format!("{w}/f1"), "changed")),
        (format!("create {w}/new"), "create", there(&format!("{w}/new"))),
        (format!("unlink {w}/f2"), "unlink", gone(&format!("{w}/f2"))),
        (format!("rename {w}/f3 {w}/moved"), "rename", there(&format!("{w}/moved"))),
        (format!("mkdir {w}/dir"), "mkdir", there(&format!("{w}/dir"))),
        (format!("chmod {w}/f4"), "chmod", has_mode(&format!("{w}/f4"), 0o640)),
        (format!("truncate {w}/f5"), "truncate", Box::new(|| true)),
        (format!("link {w}/f7 {w}/twin"), "link", there(&format!("{w}/twin"))),
        (format!("symlink {w}/f7 {w}/sym"), "symlink", there(&format!("{w}/sym"))),
        (format!("read {w}/f6"), "open", Box::new(|| true)),
        ("exec /usr/bin/true".to_owned(), "exec", Box::new(|| true)),
        (format!("tcp {here} {number}"), "connect", Box::new(|| true)),
        (format!("udp-send {here} {number}"), "send", Box::new(|| true)),
    ];
    let acts: Vec<String> = steps.iter().map(|(act, _, _)| act.clone()).collect();
    let agent = t.agent(policy)?;
    let mut live = agent.start(&acts)?;
    for (act, operation, done) in &steps {
        let always = done();
        let request = asked(&agent, operation)?;
        ensure!(always == done(), "{act} changed something before anybody had answered");
        stopped(process(&request)?)?;
        approve(&request, &[])?;
        let line = live.line()?;
        ensure!(line == "ok", "{act}, approved: {line}");
        ensure!(done(), "{act}, approved, did nothing");
        recorded(&live, &request.hold, "held", "held", 1)?;
        recorded(&live, &request.hold, "decision", "granted", 1)?;
    }
    let code = live.finish()?;
    ensure!(code == Some(0), "the session ended with {code:?}");
    Ok(())
}

/// Whether an act has changed what it changes.
type Done = Box<dyn Fn() -> bool>;

fn is_text(path: &str, text: &'static str) -> Done {
    let path = path.to_owned();
    Box::new(move || fs::read_to_string(&path).is_ok_and(|found| found.starts_with(text)))
}

fn there(path: &str) -> Done {
    let path = path.to_owned();
    Box::new(move || exists(&path))
}

fn gone(path: &str) -> Done {
    let path = path.to_owned();
    Box::new(move || !exists(&path))
}

fn has_mode(path: &str, mode: u32) -> Done {
    let path = path.to_owned();
    Box::new(move || fs::metadata(&path).is_ok_and(|found| found.permissions().mode() & 0o7777 == mode))
}

fn refused_calls_fail_and_leave_nothing_behind(t: &mut Test) -> Outcome {
    let (policy, w) = policy(t, &[("create,write", "new"), ("delete", "f2")])?;
    let policy = policy.exec_hold("/usr/bin/true");
    let acts = [format!("create {w}/new"), format!("unlink {w}/f2"), "exec /usr/bin/true".to_owned()];
    let agent = t.agent(policy)?;
    let mut live = agent.start(&[&acts[..], &[format!("read {w}/f1")]].concat())?;
    for (act, operation) in acts.iter().zip(["create", "unlink", "exec"]) {
        let request = asked(&agent, operation)?;
        deny(&request)?;
        let line = live.line()?;
        ensure!(line == "EPERM", "{act}, refused: {line}");
        recorded(&live, &request.hold, "decision", "refused-by-person", 1)?;
    }
    live.expect(&["ok"])?;
    ensure!(!exists(&format!("{w}/new")) && exists(&format!("{w}/f2")), "something was left behind");
    Ok(())
}

fn what_nobody_answers_is_refused_in_time(t: &mut Test) -> Outcome {
    let (policy, w) = policy(t, &[])?;
    let policy = policy.file(format!("hold: [delete], paths: ['{w}/f1'], hold_timeout: 3s"));
    let agent = t.agent(policy)?;
    let mut live = agent.start(&[format!("unlink {w}/f1"), format!("read {w}/f1")])?;
    let request = held(&live)?;
    live.expect(&["EPERM", "ok"])?;
    recorded(&live, &request.hold, "decision", "hold-timed-out", 1)?;
    // Late: there is nothing left to answer.
    ensure!(approve(&request, &[]).is_err(), "an answer counted after the time was over");
    ensure!(exists(&format!("{w}/f1")), "the file is gone");
    Ok(())
}

fn a_signal_to_go_on_answers_nothing(t: &mut Test) -> Outcome {
    let (policy, w) = policy(t, &[("delete", "f1")])?;
    let agent = t.agent(policy)?;
    let mut live = agent.start(&[format!("unlink {w}/f1"), format!("read {w}/f2")])?;
    let request = asked(&agent, "unlink")?;
    let pid = process(&request)?;
    for _ in 0..50 {
        stopped(pid)?;
        let ran = Command::new("kill").args(["-CONT", &pid.to_string()]).run()?;
        ensure!(ran.code == Some(0), "{ran}");
    }
    stopped(pid)?;
    ensure!(exists(&format!("{w}/f1")), "a signal was an approval");
    recorded(&live, &request.hold, "held", "held", 1)?;
    ensure!(pending(&agent)?.len() == 1, "the request was multiplied");
    approve(&request, &[])?;
    live.expect(&["ok", "ok"])
}

fn an_approval_is_for_one_object_as_it_was(t: &mut Test) -> Outcome {
    let (policy, w) = policy(t, &[("delete", "f?")])?;
    let script = t.file("w/script")?;
    fs::write(&script, "#!/bin/sh\nexit 0\n")?;
    fs::set_permissions(&script, fs::Permissions::from_mode(0o755))?;
    let shell = fs::canonicalize("/bin/sh")?.display().to_string();
    let policy = policy.exec_hold(&script).exec(&shell);
    let agent = t.agent(policy)?;
    let acts = [
        format!("unlink {w}/f1"),
        format!("unlink {w}/f1"),
        format!("unlink {w}/f2"),
        format!("exec {script}"),
    ];
    let mut live = agent.start(&acts)?;
    // Another file of the same name.
    let first = asked(&agent, "unlink")?;
    stopped(process(&first)?)?;
    fs::rename(format!("{w}/f9"), format!("{w}/f1"))?;
    approve(&first, &[])?;
    let second = wait_for("a request for the other file", 120, || {
        pending(&agent).ok()?.into_iter().find(|request| request.hold != first.hold)
    })?;
    ensure!(exists(&format!("{w}/f1")), "the other file is gone");
    approve(&second, &[])?;
    live.expect(&["ok", "ENOENT"])?;
    // One use is one use: another name asks anew.
    let third = asked(&agent, "unlink")?;
    approve(&third, &[])?;
    live.expect(&["ok"])?;
    // A program that has changed.
    let fourth = asked(&agent, "exec")?;
    stopped(process(&fourth)?)?;
    fs::write(&script, "#!/bin/sh\nexit 7\n")?;
    approve(&fourth, &[])?;
    let fifth = wait_for("a request for the changed program", 120, || {
        pending(&agent).ok()?.into_iter().find(|request| request.hold != fourth.hold)
    })?;
    deny(&fifth)?;
    live.expect(&["EPERM"])
}

fn one_call_asks_once_for_all_its_checks(t: &mut Test) -> Outcome {
    let (policy, w) =
        policy(t, &[("read,write,create,truncate", "f1"), ("read,write,create,truncate", "n?")])?;
    let shell = fs::canonicalize("/bin/sh")?.display().to_string();
    let script = t.file("w/script")?;
    fs::write(&script, "#!/bin/sh\nexit 0\n")?;
    fs::set_permissions(&script, fs::Permissions::from_mode(0o755))?;
    let policy = policy.exec_hold(&script).exec_hold(&shell);
    let agent = t.agent(policy)?;
    let acts = [
        format!("write-trunc {w}/f1"),
        format!("creat {w}/n1"),
        format!("create {w}/n2"),
        format!("exec {script}"),
    ];
    let mut live = agent.start(&acts)?;
    for operation in ["open", "create", "create"] {
        let request = asked(&agent, operation)?;
        approve(&request, &[])?;
        live.expect(&["ok"])?;
        recorded(&live, &request.hold, "decision", "granted", 1)?;
    }
    // A script and its interpreter are two objects: each is asked about once, and the first answer still counts
    // when the second has come.
    let first = asked(&agent, "exec")?;
    approve(&first, &[])?;
    let second = wait_for("the request for the interpreter", 120, || {
        pending(&agent).ok()?.into_iter().find(|request| request.hold != first.hold)
    })?;
    approve(&second, &[])?;
    live.expect(&["ok"])?;
    recorded(&live, &first.hold, "decision", "granted", 1)?;
    recorded(&live, &second.hold, "decision", "granted", 1)
}

fn a_rename_that_waits_gains_nothing(t: &mut Test) -> Outcome {
    let (policy, w) = policy(t, &[("rename", "f1"), ("rename", "f2")])?;
    let policy = policy.deny("create", &format!("{w}/shut")).deny("read", &format!("{w}/f2"));
    let agent = t.agent(policy)?;
    // Refused without asking: one name is denied, the other would give a right that the object does not have.
    let mut live = agent.start(&[
        format!("rename {w}/f1 {w}/shut"),
        format!("rename {w}/f2 {w}/open"),
        format!("rename {w}/f1 {w}/open"),
    ])?;
    live.expect(&["EPERM", "EPERM"])?;
    let request = asked(&agent, "rename")?;
    ensure!(request.said["request"]["what"]["target"] == format!("{w}/open"), "{}", request.said);
    approve(&request, &[])?;
    live.expect(&["ok"])
}

/// One act of each kind, each in a session of its own that waits for a person; what shows that it was done.
struct Waiting {
    agent: Agent,
    _port: Port,
    acts: Vec<(&'static str, Done)>,
    sessions: Vec<std::process::Child>,
}

fn one_of_each_waits(t: &mut Test) -> Outcome<Waiting> {
    let holds = [("write", "f1"), ("create,write", "new"), ("delete", "f2")];
    let (policy, w) = policy(t, &holds)?;
    let port = Port::open()?;
    let policy = policy.exec_hold("/usr/bin/true").connect_hold(&format!("127.0.0.1:{}/tcp", port.number));
    let agent = t.agent(policy)?;
    let steps: Vec<(&'static str, String, Done)> = vec![
        ("open", format!("write {w}/f1 changed"), is_text(&format!("{w}/f1"), "changed")),
        ("create", format!("create {w}/new"), there(&format!("{w}/new"))),
        ("unlink", format!("unlink {w}/f2"), gone(&format!("{w}/f2"))),
        ("exec", "exec /usr/bin/true".to_owned(), Box::new(|| false)),
        ("connect", format!("tcp 127.0.0.1 {}", port.number), Box::new(|| false)),
    ];
    let mut sessions = Vec::new();
    for (_, act, _) in &steps {
        sessions.push(agent.detached(std::slice::from_ref(act))?);
    }
    let acts = steps.into_iter().map(|(operation, _, done)| (operation, done)).collect();
    Ok(Waiting { agent, _port: port, acts, sessions })
}

impl Waiting {
    /// Every request, once all are there and their callers are stopped.
    fn requests(&self) -> Outcome<Vec<Request>> {
        let requests = wait_for("a request of each kind", 120, || {
            pending(&self.agent).ok().filter(|requests| requests.len() == self.acts.len())
        })?;
        requests.iter().try_for_each(|request| stopped(process(request)?))?;
        ensure!(self.acts.iter().all(|(_, done)| !done()), "something happened before anybody had answered");
        Ok(requests)
    }
}

fn who_is_killed_waits_no_longer(t: &mut Test) -> Outcome {
    let waiting = one_of_each_waits(t)?;
    let requests = waiting.requests()?;
    for request in &requests {
        Command::new("kill").args(["-KILL", &process(request)?.to_string()]).run()?;
    }
    nothing_waits(&waiting.agent)?;
    for request in &requests {
        ensure!(approve(request, &[]).is_err(), "an answer counted though nobody waits: {}", request.said);
    }
    ensure!(waiting.acts.iter().all(|(_, done)| !done()), "something happened");
    waiting.sessions.into_iter().try_for_each(|mut session| session.wait().map(drop))?;
    Ok(())
}

fn what_waits_outlives_the_daemon(t: &mut Test) -> Outcome {
    let waiting = one_of_each_waits(t)?;
    let before = waiting.requests()?;
    systemctl("kill -s KILL enforcer.service")?;
    before.iter().try_for_each(|request| stopped(process(request)?))?;
    ensure!(waiting.acts.iter().all(|(_, done)| !done()), "without a daemon something went on");
    systemctl("restart enforcer.service")?;
    let after = waiting.requests()?;
    let holds = |requests: &[Request]| -> BTreeSet<String> {
        requests.iter().map(|request| request.hold.clone()).collect()
    };
    ensure!(holds(&before) == holds(&after), "other requests: {after:?}, before {before:?}");
    for request in &after {
        let operation = &request.said["request"]["what"]["operation"];
        if operation == "unlink" {
            deny(request)?;
        } else {
            approve(request, &[])?;
        }
    }
    nothing_waits(&waiting.agent)?;
    // What was approved ends well, whatever it does.
    waiting.sessions.into_iter().try_for_each(|mut session| session.wait().map(drop))?;
    let ended = |request: &Request| process(request).is_ok_and(|pid| state(pid).is_none());
    wait_for("the end of those who waited", 120, || after.iter().all(ended).then_some(()))?;
    for (operation, done) in &waiting.acts {
        match *operation {
            "unlink" => ensure!(!done(), "refused, and it happened"),
            "exec" | "connect" => {}
            _ => ensure!(done(), "approved, and {operation} did nothing"),
        }
    }
    Ok(())
}

fn what_waits_is_refused_in_time_without_a_daemon(t: &mut Test) -> Outcome {
    const SETTINGS: &str = "/etc/enforcer/enforcer.toml";
    let (policy, w) = policy(t, &[])?;
    // What is done in it takes a moment; a guest that stands still meanwhile needs more.
    let policy = policy.file(format!("hold: [delete], paths: ['{w}/f1'], hold_timeout: 25s"));
    let agent = t.agent(policy)?;
    let go = t.at("go");
    let acts = [format!("wait-for {go}"), format!("unlink {w}/f1"), format!("create {w}/afterwards")];
    let mut child = agent.detached(&acts)?;
    let good = fs::read_to_string(SETTINGS)?;
    fs::write(&go, "")?;
    let request = asked(&agent, "unlink")?;
    stopped(process(&request)?)?;
    fs::write(SETTINGS, "[agents]\nroot = 1\n")?;
    systemctl("kill -s KILL enforcer.service")?;
    let went_on = wait_for("the refusal", 120, || exists(&format!("{w}/afterwards")).then_some(()));
    let down = Command::new("systemctl").args(["is-active", "enforcer.service"]).run();
    fs::write(SETTINGS, good)?;
    systemctl("reset-failed enforcer.service")?;
    systemctl("restart enforcer.service")?;
    went_on?;
    ensure!(down?.out.trim() == "failed", "there was a daemon");
    ensure!(exists(&format!("{w}/f1")), "what nobody approved was done");
    wait_for("the end of the session", 120, || child.try_wait().ok().flatten())?;
    Ok(())
}

fn another_policy_judges_what_waits_anew(t: &mut Test) -> Outcome {
    let (policy, w) = policy(t, &[("delete", "f1"), ("delete", "f2")])?;
    let shut = policy.next().deny("delete", &format!("{w}/f1"));
    let mut agent = t.agent(policy)?;
    let mut live = agent.start(&[format!("unlink {w}/f1"), format!("unlink {w}/f2")])?;
    let first = asked(&agent, "unlink")?;
    stopped(process(&first)?)?;
    agent.change(shut)?;
    live.expect(&["EPERM"])?;
    let second =
        wait_for("the request for the other file alone", 120, || match &pending(&agent).ok()?[..] {
            [one] if one.hold != first.hold => Some(one.clone()),
            _ => None,
        })?;
    ensure!(approve(&first, &[]).is_err(), "an answer counted that another policy had overtaken");
    approve(&second, &[])?;
    live.expect(&["ok"])
}

fn what_an_agent_says_decides_nothing(t: &mut Test) -> Outcome {
    let (policy, w) = policy(t, &[("delete", "f1")])?;
    let policy = policy.exec("/usr/bin/enforcer").file("allow: [read, list], paths: ['/**']".to_owned());
    let agent = t.agent(policy)?;
    let _live = agent.start(&[format!("unlink {w}/f1")])?;
    let request = asked(&agent, "unlink")?;
    stopped(process(&request)?)?;
    let words = ["/usr/bin/enforcer", "approvals", "approve", &request.hold].map(str::to_owned);
    let session = agent.run(&words)?;
    ensure!(session.code != Some(0), "an agent approved its own request");
    ensure!(pending(&agent)?.len() == 1 && exists(&format!("{w}/f1")), "an agent approved its own request");
    Ok(())
}

fn a_rule_can_refuse_while_somebody_is_asked(t: &mut Test) -> Outcome {
    let (policy, w) = policy(t, &[("delete", "f2")])?;
    let policy = policy.file(format!("hold: [delete], paths: ['{w}/f1'], on_hold: refuse"));
    let agent = t.agent(policy)?;
    // The second one waits, so that the third is tried when the first has been approved.
    let mut live =
        agent.start(&[format!("unlink {w}/f1"), format!("unlink {w}/f2"), format!("unlink {w}/f1")])?;
    live.expect(&["EPERM"])?;
    let both = wait_for("two requests", 120, || {
        let all = pending(&agent).ok()?;
        (all.len() == 2).then_some(all)
    })?;
    let of = |path: &str| both.iter().find(|one| one.said["request"]["what"]["object"] == path);
    let (Some(first), Some(second)) = (of(&format!("{w}/f1")), of(&format!("{w}/f2"))) else {
        fail!("other requests: {both:?}")
    };
    approve(first, &[])?;
    approve(second, &[])?;
    live.expect(&["ok", "ok"])
}

fn an_agent_asks_for_no_more_than_it_may(t: &mut Test) -> Outcome {
    let (policy, w) = policy(t, &[("delete", "many/*")])?;
    for number in 0..40 {
        t.file(&format!("w/many/{number}"))?;
    }
    let agent = t.agent(policy)?;
    // Each in a process of its own; those that have not come back after the others wait.
    let mut live = agent.start(&[format!("unlink-each {w}/many 40"), format!("read {w}/f0")])?;
    let most = wait_for("as many requests as there may be", 120, || {
        let all = pending(&agent).ok()?.len();
        (all >= 16).then_some(all)
    })?;
    ensure!(most == 16, "{most} requests wait");
    for request in pending(&agent)? {
        deny(&request)?;
    }
    // All were refused: some by a person, the others at once.
    live.expect(&["EPERM", "ok"])?;
    let left = fs::read_dir(format!("{w}/many"))?.count();
    ensure!(left == 40, "{left} of 40 files are left");
    Ok(())
}
