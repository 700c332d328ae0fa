//! The layers that `enforcer exec` puts around a session: each refuses by itself, and together they refuse nothing
//! that the policy allows.
//!
//! A layer alone is tried outside every agent, where the kernel programs decide nothing (`layered`).

use super::tree;
use crate::{
    agent::PROBE,
    cases,
    command::Command,
    ensure, events, fail,
    harness::{Outcome, Test, outside_all},
    policy::Policy,
    program::narrow_call,
    promise,
};
use serde_json::Value;
use std::{fs, net::TcpListener, os::unix::fs::PermissionsExt};

cases!(layers:
    the_filter_alone_refuses_what_no_policy_grants,
    the_filter_alone_refuses_32_bit_calls_too,
    the_filter_alone_grants_what_the_policy_grants,
    the_ruleset_alone_refuses_changes_where_no_rule_could_allow_them,
    the_ruleset_alone_refuses_reading_where_that_was_asked_for,
    the_ruleset_alone_refuses_ports_and_processes_of_others,
    no_new_privileges_alone_takes_the_power_of_set_user_id_programs,
    by_default_the_filter_refuses_what_leaves_no_record,
    a_session_says_which_layers_it_has_and_when_they_are_outgrown,
    a_policy_can_leave_the_layers_away,
    all_layers_let_real_work_pass,
);

const LAYERED: &str = "/usr/lib/enforcer-tests/layered";

/// Runs acts in one process outside every agent, under a layer of the policy.
fn under(t: &Test, policy: &Policy, layers: &[&str], acts: &[String]) -> Outcome<Vec<String>> {
    let file = t.at("layered.yaml");
    fs::write(&file, policy.to_string())?;
    let words = acts.join(" , ");
    let run = Command::new(LAYERED).args([&file[..]]).args(layers.iter().copied());
    let ran = run.args(["--", PROBE, "seq"]).args(words.split_whitespace()).run()?;
    ensure!(ran.code == Some(0), "{layers:?} {words}: {ran}");
    Ok(ran.out.lines().map(str::to_owned).collect())
}

/// Acts that are refused with these errors under the layer, and go further without it.
fn alone(t: &Test, policy: &Policy, layers: &[&str], acts: &[(String, &str)], twins: &[String]) -> Outcome {
    tree(t)?;
    let tried: Vec<String> = acts.iter().map(|(act, _)| act.clone()).collect();
    let without = outside_all(&tried)?;
    tree(t)?;
    let with = under(t, policy, layers, &[twins, &tried[..]].concat())?;
    let mut faults = Vec::new();
    for (index, (act, errno)) in acts.iter().enumerate() {
        let (without, with) = (said(&without, index), said(&with, twins.len() + index));
        if without == *errno {
            faults.push(format!("{act}: {without} without the layer too"));
        }
        if with != *errno {
            faults.push(format!("{act}: {with}, not {errno}"));
        }
    }
    for (index, twin) in twins.iter().enumerate().filter(|(index, _)| said(&with, *index) != "ok") {
        faults.push(format!("{twin}: {}, not ok", said(&with, index)));
    }
    if faults.is_empty() { Ok(()) } else { fail!("{}", faults.join("\n")) }
}

fn said(lines: &[String], index: usize) -> &str {
    lines.get(index).map_or("nothing", String::as_str)
}

/// What no filter may touch.
fn harmless(t: &Test) -> Vec<String> {
    let file = t.at("open/f1");
    let made = t.at("open/made");
    ["fork", "prctl-name", "kill-self", "socketpair", "add-key"]
        .map(str::to_owned)
        .into_iter()
        .chain([format!("read {file}"), format!("write {file}"), format!("create {made}")])
        .chain([format!("from-thread {file}"), format!("open-tree-plain {file}")])
        .collect()
}

fn policy(t: &Test) -> Policy {
    let open = t.at("open/**");
    t.policy().allow("all", &open).exec(&open).connect("127.0.0.1:7/tcp").bind("127.0.0.1:7007/tcp")
}

fn the_filter_alone_refuses_what_no_policy_grants(t: &mut Test) -> Outcome {
    let at = |name: &str| t.at(name);
    let acts: Vec<(String, &str)> = [
        format!("mount-tmpfs {}", at("open/e1")),
        format!("umount {}", at("open/e1")),
        "unshare-mount".to_owned(),
        "unshare-user".to_owned(),
        "unshare-net".to_owned(),
        "setns 1 net".to_owned(),
        format!("open-tree {} x", at("open/d3")),
        "fsopen tmpfs".to_owned(),
        "fspick /".to_owned(),
        format!("move-mount {} {}", at("open/d4"), at("open/e2")),
        format!("mount-setattr {}", at("open/d4")),
        "chroot /".to_owned(),
        format!("pivot-root {} {}", at("open/d1"), at("open/d1")),
        "bpf-next-program".to_owned(),
        "bpf-create-map".to_owned(),
        "perf-event".to_owned(),
        "io-uring".to_owned(),
        "userfaultfd".to_owned(),
        "init-module".to_owned(),
        "finit-module".to_owned(),
        "delete-module".to_owned(),
        "kexec-file-load".to_owned(),
        "iopl".to_owned(),
        "swapon /nothing".to_owned(),
        "acct /nothing".to_owned(),
        "set-time-of-day".to_owned(),
        "clock-settime".to_owned(),
        "syslog".to_owned(),
        "sethostname".to_owned(),
        format!("handle {}", at("open/f1")),
    ]
    .map(|act| (act, "EPERM"))
    .into();
    alone(t, &policy(t), &["seccomp=all"], &acts, &harmless(t))
}

fn the_filter_alone_refuses_32_bit_calls_too(t: &mut Test) -> Outcome {
    tree(t)?;
    let file = t.at("layered.yaml");
    fs::write(&file, policy(t).to_string())?;
    // unshare(CLONE_NEWNS), getpid(), modify_ldt with a function that there is none of.
    for (number, argument, without, with) in [
        (310, 0x2_0000, 40, 40 + libc::EPERM),
        (20, 0, 40, 40),
        (123, 77, 40 + libc::ENOSYS, 40 + libc::EPERM),
    ] {
        let program = t.at(&format!("narrow-{number}"));
        fs::write(&program, narrow_call(number, argument))?;
        fs::set_permissions(&program, fs::Permissions::from_mode(0o755))?;
        let outside = Command::new(&program).run()?;
        ensure!(outside.code == Some(without), "{number} outside: {outside}");
        let ran = Command::new(LAYERED).args([&file[..], "seccomp=all", "--", &program]).run()?;
        ensure!(ran.code == Some(with), "{number}: {ran}");
    }
    Ok(())
}

fn the_filter_alone_grants_what_the_policy_grants(t: &mut Test) -> Outcome {
    tree(t)?;
    let granted = policy(t).line("system: [io-uring, clock, kernel-log]");
    let acts = ["io-uring", "clock-settime", "adjtimex", "syslog"].map(str::to_owned);
    let lines = under(t, &granted, &["seccomp=all"], &acts)?;
    ensure!(lines.iter().all(|line| line == "ok"), "{lines:?}");
    let traced = policy(t).line("process: { trace: deny }");
    let acts = ["ptrace-attach 1".to_owned(), "fork".to_owned()];
    let lines = under(t, &traced, &["seccomp=all"], &acts)?;
    ensure!(lines == ["EPERM", "ok"], "{lines:?}");
    Ok(())
}

/// Acts on the side that no rule names, and the same on the other.
fn changes(t: &Test) -> (Vec<(String, &'static str)>, Vec<String>) {
    let (open, shut) = (t.at("open"), t.at("shut"));
    let acts = [
        format!("write {shut}/f1"),
        format!("append {shut}/f1"),
        format!("create {shut}/n1"),
        format!("mkdir {shut}/n2"),
        format!("mknod-fifo {shut}/n3"),
        format!("symlink /x {shut}/n4"),
        format!("unlink {shut}/f2"),
        format!("rmdir {shut}/e1"),
        format!("rename {open}/f3 {shut}/n5"),
        format!("rename {shut}/f3 {open}/n5"),
        format!("link {open}/f4 {shut}/n6"),
        format!("exec {shut}/probe prctl-name"),
    ];
    let twins = [
        format!("write {open}/f1"),
        format!("create {open}/n1"),
        format!("mkdir {open}/n2"),
        format!("mknod-fifo {open}/n3"),
        format!("symlink /x {open}/n4"),
        format!("unlink {open}/f2"),
        format!("rmdir {open}/e1"),
        format!("rename {open}/f5 {open}/d1/n5"),
        format!("rename {open}/d2 {open}/d1/n7"),
        format!("link {open}/f4 {open}/d1/n6"),
        format!("exec {open}/probe prctl-name"),
    ];
    (acts.map(|act| (act, "EACCES")).into(), twins.into())
}

/// The tree, with the probe on either side.
fn with_programs(t: &Test) -> Outcome {
    tree(t)?;
    for side in ["open", "shut"] {
        fs::copy(PROBE, t.at(&format!("{side}/probe")))?;
    }
    Ok(())
}

fn the_ruleset_alone_refuses_changes_where_no_rule_could_allow_them(t: &mut Test) -> Outcome {
    let (acts, twins) = changes(t);
    let tried: Vec<String> = acts.iter().map(|(act, _)| act.clone()).collect();
    with_programs(t)?;
    let without = outside_all(&tried)?;
    ensure!(without.iter().all(|line| line == "ok"), "the control: {without:?}");
    for which in ["landlock=changes", "landlock=all"] {
        with_programs(t)?;
        let with = under(t, &policy(t), &[which], &[&twins[..], &tried[..]].concat())?;
        let expected = twins.iter().map(|_| "ok").chain(acts.iter().map(|(_, errno)| *errno));
        for (index, (act, expected)) in twins.iter().chain(&tried).zip(expected).enumerate() {
            ensure!(said(&with, index) == expected, "{which}, {act}: {}, not {expected}", said(&with, index));
        }
    }
    Ok(())
}

fn the_ruleset_alone_refuses_reading_where_that_was_asked_for(t: &mut Test) -> Outcome {
    tree(t)?;
    let (open, shut) = (t.at("open"), t.at("shut"));
    // Listing is not among them: base@1 lets `/` be listed, and Landlock takes that for all that is below.
    let acts = [format!("read {shut}/f1"), format!("truncate {shut}/f1")];
    let twins = [format!("read {open}/f1"), format!("truncate {open}/f1")];
    let all = [&twins[..], &acts[..]].concat();
    let lines = under(t, &policy(t), &["landlock=changes"], &all)?;
    ensure!(lines.iter().all(|line| line == "ok"), "reading is none of its business: {lines:?}");
    let lines = under(t, &policy(t), &["landlock=all"], &all)?;
    // Truncating came with Landlock's third version.
    let truncated = if version()? >= 3 { "EACCES" } else { "ok" };
    ensure!(lines == ["ok", "ok", "EACCES", truncated], "{lines:?}");
    // A program may be run without being readable.
    let program = t.at("shut/program");
    fs::copy(PROBE, &program)?;
    let lines = under(t, &policy(t).exec(&program), &["landlock=all"], &[format!("exec {program} fork")])?;
    ensure!(lines == ["ok"], "{lines:?}");
    Ok(())
}

/// Landlock's version in this kernel.
fn version() -> Outcome<u32> {
    enforcer::launch::layers::apply::landlock_version()
        .ok_or_else(|| crate::harness::Failed::new("this kernel has no Landlock"))
}

fn the_ruleset_alone_refuses_ports_and_processes_of_others(t: &mut Test) -> Outcome {
    tree(t)?;
    let listeners = (TcpListener::bind("127.0.0.1:0")?, TcpListener::bind("127.0.0.1:0")?);
    let (named, other) = (listeners.0.local_addr()?.port(), listeners.1.local_addr()?.port());
    let policy = t
        .policy()
        .allow("all", &t.at("open/**"))
        .connect(&format!("127.0.0.1:{named}/tcp"))
        .bind("127.0.0.1:7007/tcp");
    // A process outside, to be signalled and traced.
    let mut victim = Command::new("sleep").args(["1000"]).spawn()?;
    let pid = victim.id();
    let acts = [
        format!("tcp 127.0.0.1 {other}"),
        "bind 127.0.0.1 7008".to_owned(),
        format!("kill {pid} 0"),
        format!("ptrace-seize {pid}"),
        format!("mount-tmpfs {}", t.at("open/e1")),
    ];
    let twins = [
        format!("tcp 127.0.0.1 {named}"),
        "bind 127.0.0.1 7007".to_owned(),
        "kill-self".to_owned(),
        "fork".to_owned(),
    ];
    let control = under(t, &policy, &[], &acts[..4]);
    let lines = under(t, &policy, &["landlock=changes"], &[&twins[..], &acts[..]].concat());
    let _ = (victim.kill(), victim.wait());
    drop(listeners);
    let control = control?;
    ensure!(control.iter().all(|line| line == "ok"), "without the layer: {control:?}");
    let version = version()?;
    let port = if version >= 4 { "EACCES" } else { "ok" };
    let signal = if version >= 6 { "EPERM" } else { "ok" };
    let expected = ["ok", "ok", "ok", "ok", port, port, signal, "EPERM", "EPERM"].map(str::to_owned);
    let lines = lines?;
    ensure!(lines == expected, "version {version}: {lines:?}, not {expected:?}");
    Ok(())
}

fn no_new_privileges_alone_takes_the_power_of_set_user_id_programs(t: &mut Test) -> Outcome {
    tree(t)?;
    let (file, program) = (t.at("layered.yaml"), t.at("powerful"));
    fs::write(&file, policy(t).to_string())?;
    fs::copy(PROBE, &program)?;
    fs::set_permissions(&program, fs::Permissions::from_mode(0o4755))?;
    for (layer, answer) in [("uid=65534", "ok"), ("nnp", "EPERM")] {
        let run = Command::new(LAYERED).args([&file[..], layer, "uid=65534", "--", &program, "setuid", "0"]);
        let ran = run.run()?;
        ensure!(ran.out.trim() == answer, "{layer}: {ran}");
    }
    Ok(())
}

/// Root's refusals by capability are recorded, so the filter is none of them; those of others are not.
fn by_default_the_filter_refuses_what_leaves_no_record(t: &mut Test) -> Outcome {
    tree(t)?;
    let agent = t.agent(t.policy().allow("read", &t.at("open/**")))?;
    let acts = ["userfaultfd".to_owned(), format!("read {}", t.at("open/f1"))];
    ensure!(outside_all(&acts)? == ["ok", "ok"], "the control");
    let session = agent.probe(&acts)?;
    ensure!(session.lines == ["EPERM", "ok"], "{:?}", session.lines);
    let status = fs::read_to_string("/proc/self/status")?;
    ensure!(status.contains("Seccomp:\t0"), "the suite itself is filtered");
    let shell = t.agent(t.policy().exec("/usr/bin/*"))?;
    let script = "grep -E '^(Seccomp|NoNewPrivs):' /proc/self/status | tr -s '\\t\\n' ' '";
    let session = shell.run(&["/usr/bin/sh", "-c", script].map(str::to_owned))?;
    ensure!(session.lines == ["NoNewPrivs: 1 Seccomp: 2 "], "{:?} {}", session.lines, session.err);
    Ok(())
}

/// What `enforcer agents` says of the one session of an agent.
fn session_of(agent: &crate::agent::Agent) -> Outcome<Value> {
    let Some(status) = agent.status()? else { fail!("{} is no agent", agent.name()) };
    match status["sessions"].as_array().map(Vec::as_slice) {
        Some([one]) => Ok(one.clone()),
        other => fail!("{other:?} instead of one session"),
    }
}

fn layers_of(value: &Value) -> Vec<String> {
    let all = value["layers"].as_array().cloned().unwrap_or_default();
    let text = |layer: &Value| {
        format!("{} {}", layer["name"].as_str().unwrap_or(""), layer["state"].as_str().unwrap_or(""))
    };
    all.iter().map(text).collect()
}

fn a_session_says_which_layers_it_has_and_when_they_are_outgrown(t: &mut Test) -> Outcome {
    tree(t)?;
    let shut = t.at("shut");
    let narrow = policy(t).line("launch: { seccomp: all, landlock: changes }");
    let wide = narrow.next().allow("read, write", &format!("{shut}/**"));
    let mut agent = t.agent(narrow)?;
    let acts = ["say ready".to_owned(), format!("wait-for {}", t.at("go")), format!("write {shut}/f1")];
    let mut live = agent.start(&acts)?;
    live.expect(&["ready", "ok"])?;
    let expected = ["no-new-privileges set", "seccomp all", "landlock changes"];
    let session = session_of(&agent)?;
    ensure!(layers_of(&session) == expected && session["restart_to_widen"] == false, "{session}");
    let launched = events::wait("the launch", live.mark, |record| {
        record["kind"] == "launched" && record["session"] == live.id.as_str()
    })?;
    ensure!(layers_of(&launched) == expected, "{launched}");
    // What the policy allows by now the layer still refuses, and that is said.
    agent.change(wide)?;
    let session = session_of(&agent)?;
    ensure!(session["restart_to_widen"] == true, "{session}");
    t.file("go")?;
    live.expect(&["ok", "EACCES"])?;
    live.finish()?;
    promise::allowed(&agent, &[format!("write {shut}/f1")])?;
    let status = Command::new("enforcer").args(["status", "--output", "json"]).run()?;
    let status: Value = serde_json::from_str(&status.out).unwrap_or_default();
    let usual = layers_of(&status);
    ensure!(usual.len() == 3 && usual[1] == "seccomp unrecorded", "{usual:?}");
    Ok(())
}

fn a_policy_can_leave_the_layers_away(t: &mut Test) -> Outcome {
    tree(t)?;
    let bare = t.policy().line("launch: { no_new_privileges: false, seccomp: none, landlock: none }");
    let agent = t.agent(bare.exec("/usr/bin/*"))?;
    let script = "grep -E '^(Seccomp|NoNewPrivs):' /proc/self/status | tr -s '\\t\\n' ' '";
    let session = agent.run(&["/usr/bin/sh", "-c", script].map(str::to_owned))?;
    ensure!(session.lines == ["NoNewPrivs: 0 Seccomp: 0 "], "{:?} {}", session.lines, session.err);
    Ok(())
}

/// Threads, processes, pipes, sockets, temporary files, moves between directories; git; node.
const WORK: &str = r#"
import http.server, multiprocessing, os, shutil, socket, sqlite3, subprocess, tempfile, threading, urllib.request
os.chdir(os.environ["HOME"])
def run(*words):
    return subprocess.run(words, check=True, capture_output=True, text=True).stdout.strip()
os.makedirs("a/b"); open("a/b/f", "w").write("x"); shutil.move("a/b/f", "g"); os.link("g", "a/h"); os.rename("a", "c")
with tempfile.TemporaryDirectory(dir=".") as d: open(d + "/t", "w").write("y")
with multiprocessing.Pool(2) as pool: assert pool.map(abs, [-1, -2]) == [1, 2]
db = sqlite3.connect("db"); db.execute("create table t (x)"); db.commit(); db.close()
server = http.server.ThreadingHTTPServer(("127.0.0.1", 7007), http.server.SimpleHTTPRequestHandler)
threading.Thread(target=server.serve_forever, daemon=True).start()
assert urllib.request.urlopen("http://127.0.0.1:7007/g").read() == b"x"
run("git", "init", "-q", "repo"); os.chdir("repo"); open("f", "w").write("1")
run("git", "add", "f"); run("git", "-c", "user.name=a", "-c", "user.email=a@b.c", "commit", "-qm", "one")
run("git", "clone", "-q", ".", "../copy"); run("git", "gc", "-q")
assert run("node", "-e", "require('fs').writeFileSync('n', '1'); console.log(process.version)").startswith("v")
print("all of it worked")
"#;

fn all_layers_let_real_work_pass(t: &mut Test) -> Outcome {
    tree(t)?;
    let home = t.dir("home")?;
    let script = t.at("open/work.py");
    fs::write(&script, WORK)?;
    let mut policy = t
        .policy()
        .line("launch: { seccomp: all, landlock: all }")
        .allow("all", &format!("{home}/**"))
        .allow("read, list", &t.at("open/**"))
        .allow("read, write", "/dev/shm/**")
        .allow("create, delete, link, list", "/dev/shm/**")
        .allow("read, list", "/{proc,sys}/**")
        .allow("read, list", "/{etc,tmp,srv}/**")
        .exec("/usr/**");
    policy = policy.connect("127.0.0.1:7007/tcp").bind("127.0.0.1:7007/tcp");
    let agent = t.agent(policy)?;
    let mut words = vec!["/usr/bin/env".to_owned(), format!("HOME={home}")];
    words.extend(["/usr/bin/python3".to_owned(), script]);
    let session = agent.run(&words)?;
    ensure!(
        session.code == Some(0) && session.lines.last().is_some_and(|line| line == "all of it worked"),
        "{:?} {:?}\n{}",
        session.code,
        session.lines,
        session.err
    );
    Ok(())
}
