//! A session asks the daemon about itself, and about nothing else.

use super::holds::{policy, process, stopped};
use crate::{
    agent::{Agent, Session},
    approvals::{approve, asked, pending},
    cases,
    command::{Command, wait_for},
    ensure, fail,
    harness::{Outcome, Test, exists, outside, outside_all},
};
use serde_json::Value;
use std::{
    io::Write,
    net::{TcpListener, TcpStream},
    os::{
        fd::{AsRawFd, IntoRawFd},
        unix::net::UnixStream,
    },
    thread,
    time::{Duration, Instant},
};

cases!(asking:
    a_session_learns_who_it_is_and_why_it_was_refused,
    a_session_learns_that_a_program_was_ended_before_it_began,
    an_agent_says_why_it_asks_once_and_in_a_box,
    nobody_else_learns_anything_at_the_sessions_socket,
    nothing_that_is_sent_to_the_sessions_socket_holds_the_daemon_up,
);

const SOCKET: &str = "/run/enforcer/agent.sock";

fn enforcer(agent: &Agent, words: &[&str]) -> Outcome<Session> {
    let words: Vec<String> =
        ["/usr/bin/enforcer"].iter().chain(words).map(|word| (*word).to_owned()).collect();
    agent.run(&words)
}

fn json(session: &Session) -> Outcome<Value> {
    match serde_json::from_str(&session.lines.join("\n")) {
        Ok(value) => Ok(value),
        Err(error) => fail!("{error}: {:?} {}", session.lines, session.err),
    }
}

/// A policy under which a session may run the command line, through a shell.
fn talkative(t: &Test) -> Outcome<(crate::policy::Policy, String)> {
    let (policy, w) = policy(t, &[("delete", "f2")])?;
    Ok((policy.deny("read", &format!("{w}/f1")).exec("/usr/bin/{enforcer,dash,cat,grep,unlink}"), w))
}

fn a_session_learns_who_it_is_and_why_it_was_refused(t: &mut Test) -> Outcome {
    let (policy, w) = talkative(t)?;
    let agent = t.agent(policy)?;
    let who = enforcer(&agent, &["session", "who", "--output", "json"])?;
    let told = json(&who)?;
    ensure!(told["agent"] == agent.name() && told["session"] == who.id.as_str(), "{told}");
    ensure!(told["policy_digest"] == agent.digest() && told["trust"] == "probation", "{told}");
    // The settings, the log and the operators' socket are none of its business, and it needs none of them.
    let script = format!("cat {w}/f1 2>/dev/null; exec enforcer why --output json");
    let why = agent.run(&["/usr/bin/dash".to_owned(), "-c".to_owned(), script])?;
    let told = json(&why)?["refusal"].clone();
    let fits = told["session"] == why.id.as_str() && told["because"] == serde_json::json!(["a test says so"]);
    ensure!(fits && told["tried"].to_string().contains(&format!("{w}/f1")), "{told}");
    ensure!(told["ask"].to_string().contains("on purpose"), "{told}");
    // Another session was refused nothing.
    let none = enforcer(&agent, &["why"])?;
    ensure!(none.code == Some(15), "{:?} {:?} {}", none.code, none.lines, none.err);
    ensure!(none.lines.iter().any(|line| line.contains("EACCES")), "{:?}", none.lines);
    Ok(())
}

fn a_session_learns_that_a_program_was_ended_before_it_began(t: &mut Test) -> Outcome {
    const TOUCH: &str = "/usr/bin/touch";
    let (policy, w) = talkative(t)?;
    let narrow = format!("deny: ['{TOUCH}'], arguments: ['*/bad'], because: 'not that one'");
    let agent = t.agent(policy.exec(TOUCH).exec_rule(narrow))?;
    let script = format!("{TOUCH} {w}/good; {TOUCH} {w}/bad 2>/dev/null; exec enforcer why --output json");
    let why = agent.run(&["/usr/bin/dash".to_owned(), "-c".to_owned(), script])?;
    let told = json(&why)?["refusal"].clone();
    ensure!(exists(&format!("{w}/good")) && !exists(&format!("{w}/bad")), "what was run is wrong: {told}");
    let fits = told["session"] == why.id.as_str() && told["because"] == serde_json::json!(["not that one"]);
    ensure!(fits && told["tried"].to_string().contains(TOUCH), "{told}");
    ensure!(told["outcome"].to_string().contains("first instruction"), "{told}");
    Ok(())
}

fn an_agent_says_why_it_asks_once_and_in_a_box(t: &mut Test) -> Outcome {
    let (policy, w) = talkative(t)?;
    let agent = t.agent(policy)?;
    // A harness: what it runs waits, and meanwhile it says why.
    let script = format!(
        "unlink {w}/f2 & until enforcer session why --output json | grep -q deadline; do :; done; \
         enforcer session justify 'it is old, and the disk is full' && echo said; \
         enforcer session justify again || echo refused; wait; echo ended"
    );
    let words = ["exec", agent.name(), "--cwd", "/", "--", "/usr/bin/dash", "-c", &script];
    let child = Command::new("enforcer").args(words).spawn()?;
    let request = asked(&agent, "unlink")?;
    stopped(process(&request)?)?;
    let justified = wait_for("the agent's words", 120, || {
        let all = pending(&agent).ok()?;
        let [one] = &all[..] else { return None };
        (!one.said["request"]["justification"].is_null()).then(|| one.clone())
    })?;
    ensure!(
        justified.said["request"]["justification"] == "it is old, and the disk is full",
        "{}",
        justified.said
    );
    // Whoever has read the request without these words has read another one.
    let unsaid = request.said["request"]["justification"].is_null();
    ensure!(!unsaid || justified.said["digest"] != request.said["digest"], "the same digest");
    ensure!(justified.hold == request.hold, "another request: {}", justified.said);
    let shown = Command::new("enforcer").args(["approvals", "show", &justified.hold]).run()?;
    let marked = shown.out.contains("the agent's own words; nobody has checked them\n  | it is old, and");
    ensure!(marked, "{shown}");
    approve(&justified, &[])?;
    let ended = child.wait_with_output()?;
    let out = String::from_utf8_lossy(&ended.stdout).into_owned();
    let said: Vec<&str> = out.lines().filter(|line| ["said", "refused", "ended"].contains(line)).collect();
    ensure!(said == ["said", "refused", "ended"], "{out}{}", String::from_utf8_lossy(&ended.stderr));
    ensure!(!std::path::Path::new(&format!("{w}/f2")).exists(), "approved, and the file is there");
    Ok(())
}

fn nobody_else_learns_anything_at_the_sessions_socket(t: &mut Test) -> Outcome {
    // Outside every session it answers that it knows nobody.
    let who = Command::new("enforcer").args(["session", "who"]).run()?;
    ensure!(who.code != Some(0) && who.err.contains("belongs to no session"), "{who}");
    // In the kernel it is for sessions alone: a process below the root that is nobody's does not get as far.
    let cgroup = "/sys/fs/cgroup/agents.slice/nobody";
    std::fs::create_dir_all(cgroup)?;
    let tried = outside_all(&[format!("cgroup-move {cgroup}"), format!("unix-stream {SOCKET}")]);
    wait_for("an empty cgroup", 120, || std::fs::remove_dir(cgroup).ok())?;
    let tried = tried?;
    ensure!(tried == ["ok", "EPERM"], "nobody's process: {tried:?}");
    ensure!(outside(&format!("unix-stream {SOCKET}"))? == "ok", "there is no such socket");
    // And it is the only one: the operators' socket stays shut.
    let agent = t.agent(t.policy())?;
    let tried = agent.probe(&[
        format!("unix-stream {SOCKET}"),
        "unix-stream /run/enforcer/control.sock".to_owned(),
        "unix-stream /run/enforcer/metrics.sock".to_owned(),
    ])?;
    ensure!(tried.lines == ["ok", "EPERM", "EPERM"], "{:?}", tried.lines);
    Ok(())
}

/// Connections of which closing takes as long as their owner has said, since nobody reads what was sent.
fn lingering(count: usize, seconds: i32) -> Outcome<Vec<TcpStream>> {
    let listener = TcpListener::bind("127.0.0.1:0")?;
    crate::passing::narrow(&listener)?;
    let mut streams = Vec::new();
    for _ in 0..count {
        let stream = TcpStream::connect(listener.local_addr()?)?;
        // Kept, so that it is neither read nor reset.
        let _ = listener.accept()?.0.into_raw_fd();
        crate::passing::narrow(&stream)?;
        stream.set_nonblocking(true)?;
        streams.push(stream);
    }
    let full = Instant::now();
    while full.elapsed() < Duration::from_secs(2) {
        for mut stream in &streams {
            while stream.write(&[0; 4096]).is_ok() {}
        }
        thread::sleep(Duration::from_millis(50));
    }
    for stream in &streams {
        stream.set_nonblocking(false)?;
        crate::passing::linger(stream, seconds)?;
    }
    Ok(streams)
}

/// The daemon answers, and what it says is no worse than what a busy machine makes of it (tracing programs that the kernel
/// has left out).
fn answers() -> Outcome {
    let status = Command::new("enforcer").args(["status"]).run()?;
    ensure!(["enforcing", "degraded"].iter().any(|word| status.out.starts_with(word)), "{status}");
    Ok(())
}

fn nothing_that_is_sent_to_the_sessions_socket_holds_the_daemon_up(t: &mut Test) -> Outcome {
    const LONG: i32 = 40;
    let begun = Instant::now();
    drop(lingering(1, 4)?);
    ensure!(begun.elapsed() > Duration::from_secs(5), "closing does not wait: the control");

    let (policy, _) = talkative(t)?;
    let agent = t.agent(policy)?;
    // All of them are turned away: with the beginning of a question, and without.
    let mut sent = Vec::new();
    // More than there are places for those that are turned away.
    for (number, stream) in lingering(200, LONG)?.into_iter().enumerate() {
        let socket = UnixStream::connect(SOCKET)?;
        if number % 2 == 0 {
            (&socket).write_all(b"\0\0\0\x07")?;
        }
        crate::passing::give(&socket, stream.as_raw_fd())?;
        // The last reference is the one in the message.
        sent.push(socket);
    }
    let begun = Instant::now();
    for _ in 0..5 {
        answers()?;
    }
    let who = enforcer(&agent, &["session", "who", "--output", "json"])?;
    ensure!(json(&who)?["agent"] == agent.name(), "{:?}", who.lines);
    drop(sent);
    answers()?;
    ensure!(begun.elapsed() < Duration::from_secs(LONG as u64 - 5), "it took {:?}", begun.elapsed());
    Ok(())
}
