//! Who is governed: whoever lives in a session or was born in one, wherever they are moved.

use super::tree;
use crate::{
    agent::{Agent, Live, PROBE, ROOT, move_to},
    cases,
    command::{Command, wait_for},
    ensure, events, fail,
    harness::{Outcome, Test},
    program::first_call,
    promise::{self as check, Denial},
};
use std::{
    fs,
    io::{BufRead, BufReader},
    os::unix::fs::PermissionsExt,
    process::{Child, ChildStdout},
    sync::atomic::{AtomicU32, Ordering},
    thread,
};

cases!(sessions:
    the_first_system_call_of_a_launch_is_governed,
    a_child_cgroup_is_governed,
    a_process_moved_out_stays_governed_and_so_do_its_children,
    a_process_moved_into_another_session_keeps_its_own_rules,
    an_outsider_moved_into_a_session_is_governed,
    an_unknown_child_of_the_root_has_no_rights,
    a_session_gets_nothing_of_its_callers,
    an_agent_cannot_start_another,
    an_executor_as_the_command_of_a_session_is_governed,
);

fn the_first_system_call_of_a_launch_is_governed(t: &mut Test) -> Outcome {
    tree(t)?;
    let launches = if t.full { 1000 } else { 30 };
    let executable = |name: &str, target: &str| -> Outcome<String> {
        let path = t.file(name)?;
        fs::write(&path, first_call(target))?;
        fs::set_permissions(&path, fs::Permissions::from_mode(0o755))?;
        Ok(path)
    };
    let attack = executable("attack", &t.at("shut/f1"))?;
    let twin = executable("twin", &t.at("open/f1"))?;
    let alone = |program: &str| Ok::<_, std::io::Error>(Command::new(program).run()?.code);
    ensure!(alone(&attack)? == Some(40) && alone(&twin)? == Some(40), "the control");
    let agent = t.agent(t.policy().exec(&attack).exec(&twin).allow("read", &t.at("open/**")))?;
    ensure!(agent.run(std::slice::from_ref(&twin))?.code == Some(40), "the twin");
    let mark = events::mark()?;
    let (next, escaped, broken) = (AtomicU32::new(0), AtomicU32::new(0), AtomicU32::new(0));
    thread::scope(|scope| {
        // Several at a time, so that sessions are made and removed while others begin.
        for _ in 0..4 {
            scope.spawn(|| {
                while next.fetch_add(1, Ordering::SeqCst) < launches {
                    match agent.run(std::slice::from_ref(&attack)).map(|session| session.code) {
                        Ok(Some(41)) => {}
                        Ok(Some(40)) => drop(escaped.fetch_add(1, Ordering::SeqCst)),
                        Ok(_) | Err(_) => drop(broken.fetch_add(1, Ordering::SeqCst)),
                    }
                }
            });
        }
    });
    let (escaped, broken) = (escaped.into_inner(), broken.into_inner());
    ensure!(escaped == 0 && broken == 0, "{escaped} of {launches} escaped, {broken} did not run");
    ensure!(agent.run(&[twin])?.code == Some(40), "the twin afterwards");
    let mine = |record: &serde_json::Value| record["kind"] == "decision" && record["agent"] == agent.name();
    let count = || events::since(mark).map(|all| all.iter().filter(|record| mine(record)).count());
    let recorded =
        wait_for("a record of every launch", 120, || count().ok().filter(|n| *n >= launches as usize))?;
    ensure!(recorded == launches as usize, "{recorded} records of {launches} launches");
    Ok(())
}

/// A session that waits for `go` and then does these acts; the last one is refused and marks the end.
fn waiting(t: &Test, agent: &Agent, acts: &[String]) -> Outcome<Live> {
    let mut all = vec!["say ready".to_owned(), format!("wait-for {}", t.at("go"))];
    all.extend(acts.iter().cloned());
    all.push(format!("read {}", check::marker(t)?));
    let mut live = agent.start(&all)?;
    live.expect(&["ready", "ok"])?;
    Ok(live)
}

/// Lets it go on: `lines` and the refused marker follow; returns the records before the marker's.
fn release(t: &Test, live: &mut Live, lines: &[&str]) -> Outcome<Vec<serde_json::Value>> {
    t.file("go")?;
    live.expect(&["ok"])?;
    live.expect(lines)?;
    live.expect(&["EPERM"])?;
    let (mark, id) = (live.mark, live.id.clone());
    events::until_marker(mark, &id, &check::marker(t)?)
}

fn refused_read(t: &Test) -> Denial {
    Denial::no_rule("open").on(&t.at("shut/f1")).asking("read")
}

fn agent(t: &Test) -> Outcome<Agent> {
    tree(t)?;
    t.agent(t.policy().allow("read", &t.at("open/**")))
}

fn a_child_cgroup_is_governed(t: &mut Test) -> Outcome {
    let agent = agent(t)?;
    let acts = [format!("read {}", t.at("shut/f1")), format!("read {}", t.at("open/f1"))];
    let mut live = waiting(t, &agent, &acts)?;
    let pid = live.pid()?;
    let child = live.cgroup()?.join("child").join("grandchild").display().to_string();
    fs::create_dir_all(&child)?;
    move_to(&child, pid)?;
    let records = release(t, &mut live, &["EPERM", "ok"])?;
    check::judged(&records, &[refused_read(t)], &agent)?;
    live.finish()?;
    Ok(())
}

fn a_process_moved_out_stays_governed_and_so_do_its_children(t: &mut Test) -> Outcome {
    let agent = agent(t)?;
    let shut = t.at("shut/f1");
    let acts = [format!("read {shut}"), format!("from-child {shut}"), format!("read {}", t.at("open/f1"))];
    let mut live = waiting(t, &agent, &acts)?;
    let pid = live.pid()?;
    let outside = "/sys/fs/cgroup/probe-moved";
    move_to(outside, pid)?;
    let records = release(t, &mut live, &["EPERM", "EPERM", "ok"])?;
    let stray = || refused_read(t).flagged("stray");
    check::judged(&records, &[stray(), stray()], &agent)?;
    live.finish()?;
    // While a stray lives, outsiders stay outsiders.
    check::allowed_outside(&acts)?;
    fs::remove_dir(outside)?;
    Ok(())
}

fn a_process_moved_into_another_session_keeps_its_own_rules(t: &mut Test) -> Outcome {
    let agent = agent(t)?;
    let other = t.agent(t.policy().allow("read", &t.at("shut/**")))?;
    let host = other.start(&["say ready".to_owned(), format!("wait-for {}", t.at("end"))])?;
    let acts = [format!("read {}", t.at("shut/f1")), format!("read {}", t.at("open/f1"))];
    let mut live = waiting(t, &agent, &acts)?;
    let to = wait_for("the other session", 120, || host.cgroup().ok())?;
    move_to(&to.display().to_string(), live.pid()?)?;
    let records = release(t, &mut live, &["EPERM", "ok"])?;
    check::judged(&records, &[refused_read(t)], &agent)?;
    live.finish()?;
    t.file("end")?;
    Ok(())
}

/// A probe outside every agent.
struct Outsider {
    child: Child,
    out: BufReader<ChildStdout>,
}

impl Outsider {
    /// It has loaded what it needs, waits for `go`, and then does these acts.
    fn start(t: &Test, acts: &[String]) -> Outcome<Self> {
        let first = vec!["say ready".to_owned(), format!("wait-for {}", t.at("go"))];
        let words = [first, acts.to_vec()].concat().join(" , ");
        let mut child = Command::new(PROBE).args(["seq"]).args(words.split_whitespace()).spawn()?;
        let Some(out) = child.stdout.take() else { fail!("the pipe is missing") };
        let mut out = BufReader::new(out);
        for _ in 0..2 {
            out.read_line(&mut String::new())?;
        }
        Ok(Self { child, out })
    }

    /// What the acts led to.
    fn finish(mut self) -> Outcome<Vec<String>> {
        wait_for("the end of the outsider", 120, || self.child.try_wait().ok().flatten())?;
        Ok(self.out.lines().collect::<Result<_, _>>()?)
    }
}

fn an_outsider_moved_into_a_session_is_governed(t: &mut Test) -> Outcome {
    let agent = agent(t)?;
    let mut live = agent.start(&["say ready".to_owned(), format!("wait-for {}", t.at("end"))])?;
    live.expect(&["ready", "ok"])?;
    let acts = [format!("read {}", t.at("shut/f1")), format!("read {}", t.at("open/f1"))];
    let newcomer = Outsider::start(t, &acts)?;
    let pid = newcomer.child.id();
    move_to(&live.cgroup()?.display().to_string(), pid)?;
    t.file("go")?;
    let lines = newcomer.finish()?;
    ensure!(lines == ["ok", "EPERM", "ok"], "{lines:?}");
    let record = events::wait("the outsider's refusal", live.mark, |record| {
        events::decides(record, &live.id) && record["tgid"] == pid
    })?;
    check::judged(&[record], &[refused_read(t)], &agent)?;
    t.file("end")?;
    live.expect(&["ok"])?;
    live.finish()?;
    Ok(())
}

fn an_unknown_child_of_the_root_has_no_rights(t: &mut Test) -> Outcome {
    tree(t)?;
    let mark = events::mark()?;
    let acts = [
        format!("read {}", t.at("open/f1")),
        format!("create {}", t.at("open/n1")),
        "tcp 127.0.0.1 1".to_owned(),
        "socketpair".to_owned(),
        format!("clone-into-cgroup {ROOT}"),
    ];
    let stranger = Outsider::start(t, &acts)?;
    let pid = stranger.child.id();
    let nobody = format!("{ROOT}/nobody");
    move_to(&nobody, pid)?;
    t.file("go")?;
    let lines = stranger.finish()?;
    fs::remove_dir(&nobody)?;
    ensure!(lines == ["ok", "EPERM", "EPERM", "EPERM", "EPERM", "EPERM"], "{lines:?}");
    let record = events::wait("the stranger's refusal", mark, |record| {
        record["kind"] == "decision" && record["tgid"] == pid
    })?;
    ensure!(record["reason"] == "no-session" && record["agent"].is_null(), "{record}");
    ensure!(record["session"].is_null() && record["policy"].is_null(), "{record}");
    Ok(())
}

fn a_session_gets_nothing_of_its_callers(t: &mut Test) -> Outcome {
    tree(t)?;
    let agent = t.agent(t.policy().exec("/usr/bin/*"))?;
    let script = "env | sort | tr '\\n' ' '; umask; ls /proc/self/fd | tr '\\n' ' '; grep NoNewPrivs /proc/self/status";
    let session = agent.run(&["/usr/bin/sh", "-c", script].map(str::to_owned))?;
    let text = session.lines.join("\n");
    ensure!(!text.contains("SECRET") && text.contains("ENFORCER_AGENT="), "{text}\n{}", session.err);
    // Standard descriptors, and the one by which `ls` reads the directory.
    ensure!(text.contains("0022\n0 1 2 3 NoNewPrivs:\t1"), "{text}\n{}", session.err);
    Ok(())
}

fn an_agent_cannot_start_another(t: &mut Test) -> Outcome {
    tree(t)?;
    let agent = t.agent(t.policy().exec("/usr/bin/{enforcer,dash}").allow("all", "/etc/enforcer/**"))?;
    let script = format!("enforcer exec {} -- {PROBE} prctl-name; exit $?", agent.name());
    let session = agent.run(&["/usr/bin/sh", "-c", &script].map(str::to_owned))?;
    ensure!(session.code == Some(77) && session.lines.is_empty(), "{:?} {}", session.code, session.err);
    Ok(())
}

/// Executors may prepare sessions; what a session is started for is not preparation.
fn an_executor_as_the_command_of_a_session_is_governed(t: &mut Test) -> Outcome {
    let agent = agent(t)?;
    let session = agent.run(&["/usr/bin/enforcer", "version"].map(str::to_owned));
    let code =
        Command::new("enforcer").args(["exec", agent.name(), "--", "/usr/bin/enforcer", "version"]).run()?;
    ensure!(session.is_err() && code.code == Some(126), "no rule lets it run: {code}");
    Ok(())
}
