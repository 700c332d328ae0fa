//! `enforcer exec` from end to end: the real command line, daemon and launch helper, real cgroups, and a
//! kernel side in memory that refuses nothing. Needs root and a cgroup v2 hierarchy that can be written.

#[path = "support/fake.rs"]
mod fake;

use enforcer::{daemon, launch::cgroup, settings::Settings};
use std::{
    fs,
    io::{Read, Write},
    os::unix::fs::PermissionsExt,
    path::{Path, PathBuf},
    process::{Command, Output, Stdio},
    sync::OnceLock,
    time::{Duration, Instant},
};

const PROGRAM: &str = env!("CARGO_BIN_EXE_enforcer");
const PATIENCE: Duration = Duration::from_secs(120);

struct World {
    dir: PathBuf,
    root: PathBuf,
}

/// One daemon for all tests, or nothing where this host has no cgroups to give.
fn world() -> Option<&'static World> {
    static WORLD: OnceLock<Option<World>> = OnceLock::new();
    let world = WORLD.get_or_init(start).as_ref();
    if world.is_none() {
        eprintln!("SKIPPED: needs root and a cgroup v2 hierarchy that can be written");
    }
    world
}

fn start() -> Option<World> {
    let mounts = fs::read_to_string("/proc/self/mountinfo").expect("mountinfo");
    let cgroup2 = mounts.lines().find(|line| line.contains(" - cgroup2 "))?;
    let cgroups = PathBuf::from(cgroup2.split(' ').nth(4)?);
    let name = format!("enforcer-test-{}", std::process::id());
    let root = cgroups.join(&name);
    remove_left_over(&cgroups);
    fs::create_dir(&root).ok()?;
    let dir = Path::new(env!("CARGO_TARGET_TMPDIR")).join("launch");
    // Of an earlier run, if there was one.
    let _ = fs::remove_dir_all(&dir);
    fs::create_dir(&dir).expect("dir");
    fs::set_permissions(&dir, fs::Permissions::from_mode(0o755)).expect("chmod");
    fs::create_dir(dir.join("policies.d")).expect("dir");
    for (agent, launch) in [
        ("bot", ""),
        ("low", "launch: { by: [uid:root], run_as: 65534 }\n"),
        ("other", "launch: { by: [uid:4711] }\n"),
    ] {
        let text = format!(
            "apiVersion: enforcer/v1\nkind: AgentPolicy\n\
             metadata: {{ id: {agent}, version: 1, owner: a@example.com, purpose: Test }}\n{launch}\
             files:\n  - {{ allow: [read], paths: [\"/**\"] }}\n"
        );
        fs::write(dir.join(format!("policies.d/{agent}.yaml")), text).expect("write");
    }
    let text = format!(
        "[paths]\npolicies = '{0}/policies.d'\nstate = '{0}/state'\nsocket = '{0}/control.sock'\n\
         pins = '{0}/pins'\ncgroups = '{1}'\n[agents]\nroots = [{{ path = '/{name}' }}]\n",
        dir.display(),
        cgroups.display()
    );
    fs::write(dir.join("enforcer.toml"), &text).expect("write");
    fs::create_dir(dir.join("state")).expect("dir");
    // The kernel side in memory refuses nothing, so the canary must be told to sing.
    let program = dir.join("program");
    fs::write(&program, format!("#!/bin/sh\n[ \"$1\" = canary ] && exit 0\nexec {PROGRAM} \"$@\"\n"))
        .expect("write");
    fs::set_permissions(&program, fs::Permissions::from_mode(0o755)).expect("chmod");
    let settings = Settings::parse("test", &text).expect("settings");
    std::thread::spawn(move || {
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().expect("runtime");
        let fake = Box::new(fake::Fake::default());
        let result =
            tokio::task::LocalSet::new().block_on(&runtime, daemon::run_with(settings, program, fake));
        eprintln!("the daemon ended: {result:?}");
    });
    let world = World { dir, root };
    wait_until("the daemon answers", || world.dir.join("control.sock").exists());
    Some(world)
}

/// A test's daemon ends with the test, so the next one tidies up.
fn remove_left_over(cgroups: &Path) {
    for entry in fs::read_dir(cgroups).expect("cgroups").flatten() {
        let name = entry.file_name().to_string_lossy().into_owned();
        if name.strip_prefix("enforcer-test-").is_some_and(|pid| !Path::new("/proc").join(pid).exists()) {
            // One that somebody else removes at the same time is as gone.
            let _ = cgroup::remove(&entry.path());
        }
    }
}

fn wait_until(what: &str, mut done: impl FnMut() -> bool) {
    let begun = Instant::now();
    while !done() {
        assert!(begun.elapsed() < PATIENCE, "timed out: {what}");
        std::thread::sleep(Duration::from_millis(20));
    }
}

impl World {
    fn command(&self, arguments: &[&str]) -> Command {
        let mut command = Command::new(PROGRAM);
        command.arg("--settings").arg(self.dir.join("enforcer.toml")).args(arguments);
        command
    }

    fn exec(&self, arguments: &[&str]) -> Output {
        self.exec_with("bot", arguments)
    }

    fn exec_with(&self, agent: &str, arguments: &[&str]) -> Output {
        self.command(&["exec", agent]).args(arguments).stdin(Stdio::null()).output().expect("run")
    }

    fn cgroup(&self, session: &str) -> PathBuf {
        self.root.join(Path::new(session.trim()).file_name().expect("a name"))
    }
}

fn text(bytes: &[u8]) -> String {
    String::from_utf8_lossy(bytes).into_owned()
}

fn code(output: &Output) -> i32 {
    output.status.code().unwrap_or_else(|| panic!("killed: {}", text(&output.stderr)))
}

#[test]
fn input_output_and_status_are_relayed() {
    let Some(world) = world() else { return };
    let mut child = world
        .command(&["exec", "bot", "--", "sh", "-c", "cat; echo trouble >&2; exit 3"])
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .spawn()
        .expect("run");
    let long = "0123456789".repeat(30_000);
    child.stdin.take().expect("stdin").write_all(long.as_bytes()).expect("write");
    let output = child.wait_with_output().expect("wait");
    assert_eq!((code(&output), text(&output.stderr)), (3, "trouble\n".to_owned()));
    assert_eq!(output.stdout.len(), long.len());
}

#[test]
fn a_command_killed_by_a_signal_ends_with_128_and_the_signal() {
    let Some(world) = world() else { return };
    assert_eq!(code(&world.exec(&["--", "sh", "-c", "kill -9 $$"])), 137);
}

#[test]
fn nothing_of_the_callers_environment_leaks_in() {
    let Some(world) = world() else { return };
    let output = world
        .command(&["exec", "bot", "--env", "GIVEN=x y", "--", "env"])
        .env("SECRET_TOKEN", "hunter2")
        .env("LANG", "C")
        .stdin(Stdio::null())
        .output()
        .expect("run");
    let mut names: Vec<String> =
        text(&output.stdout).lines().filter_map(|l| l.split_once('=')).map(|(n, _)| n.to_owned()).collect();
    names.sort();
    assert_eq!(
        names,
        ["ENFORCER_AGENT", "ENFORCER_SESSION", "GIVEN", "HOME", "LANG", "LOGNAME", "PATH", "USER"]
    );
}

#[test]
fn a_session_starts_clean() {
    let Some(world) = world() else { return };
    let script = "ls -l /proc/self/fd; grep -E 'NoNewPrivs|Sig(Blk|Ign|Cgt)' /proc/self/status; umask; \
                  cat /proc/self/oom_score_adj; ulimit -c; cut -d' ' -f5,6 /proc/$$/stat; echo $$";
    let output = world.exec(&["--", "sh", "-c", script]);
    let out = text(&output.stdout);
    let fds = out.lines().filter(|line| line.contains(" -> ")).count();
    assert_eq!(fds, 4, "three pipes and the directory itself: {out}");
    assert_eq!(out.lines().filter(|line| line.contains("pipe:")).count(), 3, "{out}");
    assert!(out.contains("NoNewPrivs:\t1"), "{out}");
    assert!(out.contains("SigBlk:\t0000000000000000") && out.contains("SigIgn:\t0000000000000000"), "{out}");
    let last: Vec<&str> = out.lines().rev().take(5).collect();
    let [pid, group, core, oom, umask] = last[..] else { panic!("{out}") };
    assert_eq!((umask, oom, core), ("0022", "0", "0"));
    assert_eq!(group, format!("{pid} {pid}"), "leader of a process group and session of its own");
}

#[test]
fn a_session_lives_in_a_cgroup_of_its_own_and_leaves_nothing() {
    let Some(world) = world() else { return };
    let output =
        world.exec(&["-v", "--", "sh", "-c", "sleep 1000 & echo $!; sed -n s/^0:://p /proc/self/cgroup"]);
    let out = text(&output.stdout);
    let [left, cgroup] = out.lines().collect::<Vec<_>>()[..] else { panic!("{out}") };
    assert!(cgroup.contains("/session-bot-"), "{cgroup}");
    assert!(text(&output.stderr).starts_with("session "));
    let (path, left) = (world.cgroup(cgroup), format!("/proc/{left}/status"));
    wait_until("the cgroup goes away", || !path.exists());
    // Killed; its new parent may not have waited for it.
    assert!(
        !fs::read_to_string(left).is_ok_and(|text| text.contains("sleep") && !text.contains("State:\tZ"))
    );
}

#[test]
fn failures_end_with_the_codes_of_env_and_say_what_to_do() {
    let Some(world) = world() else { return };
    for (arguments, expected, words) in [
        (&["--", "no-such-command-here"][..], 127, "no command"),
        (&["--", "/no/such/command"], 127, "cannot execute"),
        (&["--", "/etc/passwd"], 126, "cannot execute"),
        (&["--cwd", "/no/such/directory", "--", "true"], 125, "--cwd"),
        (&["--env", "ENFORCER_AGENT=x", "--", "true"], 64, "ENFORCER_"),
    ] {
        let output = world.exec(arguments);
        let error = text(&output.stderr);
        assert_eq!(code(&output), expected, "{arguments:?}: {error}");
        assert!(error.contains(words), "{arguments:?}: {error}");
    }
    assert_eq!(code(&world.exec_with("nobody-here", &["--", "true"])), 64);
}

#[test]
fn only_those_whom_the_policy_names_may_launch() {
    let Some(world) = world() else { return };
    let output = world.exec_with("other", &["--", "true"]);
    assert_eq!(code(&output), 77, "{}", text(&output.stderr));
    assert!(text(&output.stderr).contains("uid:4711"));
}

#[test]
fn the_session_runs_as_the_user_that_the_policy_names() {
    let Some(world) = world() else { return };
    let script = "id -u; id -G; echo again > /dev/stderr; grep CapEff /proc/self/status";
    let output = world.exec_with("low", &["--cwd", "/", "--", "sh", "-c", script]);
    let out = text(&output.stdout);
    assert!(out.starts_with("65534\n65534\n"), "{out}");
    assert!(out.contains("CapEff:\t0000000000000000"), "{out}");
    assert_eq!(text(&output.stderr), "again\n", "it may open its own standard error");
}

#[test]
fn signals_are_passed_on() {
    let Some(world) = world() else { return };
    let mut child = world
        .command(&[
            "exec",
            "bot",
            "--",
            "sh",
            "-c",
            "trap 'exit 7' TERM; echo ready; while :; do sleep 0.05; done",
        ])
        .stdin(Stdio::null())
        .stdout(Stdio::piped())
        .spawn()
        .expect("run");
    child.stdout.as_mut().expect("stdout").read_exact(&mut [0; 6]).expect("ready");
    let pid = nix::unistd::Pid::from_raw(child.id() as i32);
    nix::sys::signal::kill(pid, nix::sys::signal::Signal::SIGTERM).expect("kill");
    assert_eq!(child.wait().expect("wait").code(), Some(7));
}

#[test]
fn a_session_ends_when_its_caller_dies() {
    let Some(world) = world() else { return };
    let mut child = world
        .command(&[
            "exec",
            "bot",
            "--",
            "sh",
            "-c",
            "sed -n s/^0:://p /proc/self/cgroup; trap '' HUP PIPE; sleep 1000",
        ])
        .stdin(Stdio::null())
        .stdout(Stdio::piped())
        .spawn()
        .expect("run");
    let mut line = String::new();
    std::io::BufRead::read_line(&mut std::io::BufReader::new(child.stdout.take().expect("out")), &mut line)
        .expect("a line");
    let path = world.cgroup(&line);
    assert!(path.exists());
    child.kill().expect("kill");
    child.wait().expect("wait");
    wait_until("the session is killed", || !path.exists());
}

#[test]
fn a_detached_session_goes_on_without_its_caller() {
    let Some(world) = world() else { return };
    let (mark, go) = (world.dir.join("mark"), world.dir.join("go"));
    let script =
        format!("until test -e {}; do sleep 0.05; done; echo done > {}", go.display(), mark.display());
    let output = world.exec(&["--detach", "--", "sh", "-c", &script]);
    assert_eq!((code(&output), text(&output.stdout).len()), (0, 33));
    assert!(!mark.exists());
    fs::write(go, "").expect("write");
    wait_until("the session has done its work", || mark.exists());
}

#[test]
fn a_caller_at_a_terminal_gets_a_terminal_of_its_own() {
    let Some(world) = world() else { return };
    let settings = world.dir.join("enforcer.toml");
    let inner = "tty; stty size; test -t 0 && test -t 1 && test -t 2 && echo all; exec 3<>/dev/tty && echo controlling";
    let line = format!(
        "stty rows 31 cols 77; tty; {PROGRAM} --settings {} exec bot -- sh -c '{inner}'; echo $?",
        settings.display()
    );
    let Ok(output) = Command::new("script").args(["-qec", &line, "/dev/null"]).stdin(Stdio::null()).output()
    else {
        eprintln!("SKIPPED: script(1) is not installed");
        return;
    };
    let out = text(&output.stdout).replace(['\r', '\0'], "").replace("^@", "").replace("^D", "");
    let lines: Vec<&str> = out.lines().filter(|l| !l.is_empty()).collect();
    let terminals: Vec<&&str> = lines.iter().filter(|l| l.starts_with("/dev/pts/")).collect();
    assert_eq!(terminals.len(), 2, "{out}");
    assert_ne!(terminals[0], terminals[1], "{out}");
    for expected in ["31 77", "all", "controlling", "0"] {
        assert!(lines.contains(&expected), "{expected}: {out}");
    }
}

#[test]
fn status_and_agents_answer() {
    let Some(world) = world() else { return };
    let status = world.command(&["status"]).output().expect("run");
    assert_eq!(code(&status), 0, "{}", text(&status.stdout));
    assert!(text(&status.stdout).starts_with("enforcing\n"));
    let agents = world.command(&["--output", "json", "agents"]).output().expect("run");
    let agents: serde_json::Value = serde_json::from_slice(&agents.stdout).expect("json");
    assert_eq!(agents["agents"][0]["name"], "bot");
    let reload = world.command(&["reload"]).output().expect("run");
    assert_eq!((code(&reload), text(&reload.stdout)), (0, "nothing has changed\n".to_owned()));
}

#[test]
fn launches_are_recorded() {
    let Some(world) = world() else { return };
    world.exec(&["--task", "TICKET-1\n{}", "--", "true", "\x1b[31m"]);
    // Other tests' records are being written: the last line may be half there.
    let log = fs::read_to_string(world.dir.join("state/audit/events.jsonl")).expect("log");
    let whole = log.split_inclusive('\n').filter(|line| line.ends_with('\n'));
    let records: Vec<serde_json::Value> = whole.map(|l| serde_json::from_str(l).expect("json")).collect();
    let launch = records.iter().find(|r| r["task"] == "TICKET-1\\n{}").expect("recorded");
    assert_eq!(launch["kind"], "launched");
    assert_eq!(launch["command"][1], "\\x1b[31m");
    assert_eq!(launch["launcher"]["uid"], 0);
}

#[test]
fn what_a_daemon_records_is_signed_found_and_verified() {
    let Some(world) = world() else { return };
    world.exec(&["--task", "TICKET-2", "--", "true"]);
    let search = || world.command(&["audit", "search", "--kind", "launched"]).output().expect("run");
    wait_until("the launch is under a checkpoint", || text(&search().stdout).contains("TICKET-2"));
    let verify = world.command(&["audit", "verify"]).output().expect("run");
    assert_eq!(code(&verify), 0, "{}", text(&verify.stderr));
    assert!(text(&verify.stdout).contains("0001: complete to record"), "{}", text(&verify.stdout));
}

#[test]
fn a_hundred_launches_leave_nothing_behind() {
    let Some(world) = world() else { return };
    for _ in 0..100 {
        assert_eq!(code(&world.exec(&["--", "true"])), 0);
    }
    // Other tests may have a session at the same time, but not all the time.
    let sessions = || {
        let children = fs::read_dir(&world.root).expect("root").flatten();
        children.filter(|c| c.file_name().to_string_lossy().starts_with("session-")).count()
    };
    wait_until("all cgroups are gone", || sessions() == 0);
}
