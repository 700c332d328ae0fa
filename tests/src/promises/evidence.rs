//! Records of rare system calls with their arguments, also of those that fail before any hook is asked, and what a policy
//! can have done to whoever makes them.

use super::{
    lifecycle::{Builds, daemon, generation, other_daemon},
    units::{self, Unit, matched, probe},
};
use crate::{
    agent::{Agent, Session},
    cases,
    command::{Command, systemctl, wait_for},
    ensure, events,
    harness::{Failed, Outcome, Test, outside_all},
    policy::Policy,
    program::narrow_call,
    promise as check,
};
use serde_json::{Value, json};
use std::{fs, os::unix::fs::PermissionsExt, path::PathBuf};

cases!(evidence:
    rare_system_calls_leave_their_arguments_whatever_became_of_them,
    calls_of_32_bit_programs_do_too,
    whoever_is_not_root_leaves_evidence_of_what_the_kernel_itself_refuses,
    a_policy_ignores_stops_and_kills_by_the_call,
    a_flood_of_calls_is_counted_and_hides_no_program,
    every_call_that_the_kernel_has_is_watched,
    a_policy_counts_on_no_program_that_is_not_there_and_the_status_names_it,
    whoever_a_policy_kills_for_a_call_does_not_survive_another_build,
);

const PINS: &str = "/sys/fs/bpf/enforcer";

type Act = (&'static str, &'static str, &'static [(usize, &'static str)], Value, &'static str);

/// The act; the call, some of its arguments, its error, its text.
fn acts() -> Vec<Act> {
    vec![
        ("unshare-mount", "unshare", &[(0, "0x20000")], json!("EPERM"), ""),
        ("unshare-user", "unshare", &[(0, "0x10000000")], json!("EPERM"), ""),
        ("fsopen tmpfs", "fsopen", &[(1, "0x0")], json!("EPERM"), "tmpfs"),
        ("open-tree-plain /", "open_tree", &[(2, "0x0")], Value::Null, "/"),
        ("chroot /", "chroot", &[], json!("EPERM"), "/"),
        ("call 308 18446744073709551615 131072 0", "setns", &[(1, "0x20000")], json!("EBADF"), ""),
        ("call 101 99 1 0", "ptrace", &[(0, "0x63"), (1, "0x1")], json!("ESRCH"), ""),
        ("call 175 0 0 0", "init_module", &[(1, "0x0")], json!("EPERM"), ""),
        ("call 304 77 0 0", "open_by_handle_at", &[(0, "0x4d")], json!("EBADF or EPERM or EFAULT"), ""),
        ("call 425 0 0 0", "io_uring_setup", &[(0, "0x0")], json!("EFAULT"), ""),
        ("call 438 77 3 0", "pidfd_getfd", &[(0, "0x4d"), (1, "0x3")], json!("EBADF"), ""),
        ("call 319 0 1 0", "memfd_create", &[(1, "0x1")], json!("EFAULT"), ""),
        ("call 135 4294967295 0 0", "personality", &[(0, "0xffffffff")], Value::Null, ""),
        ("call 310 4194304 0 0", "process_vm_readv", &[(0, "0x400000")], Value::Null, ""),
        ("call 321 11 0 0", "bpf", &[(0, "0xb")], json!("EPERM"), ""),
        ("call 298 0 0 0", "perf_event_open", &[(0, "0x0")], json!("EFAULT or EPERM"), ""),
        ("call 56 1073741841 0 0", "clone", &[(0, "0x40000000")], Value::Null, ""),
    ]
}

/// The session's records of system calls, as soon as there are so many.
fn calls(session: &Session, least: usize) -> Outcome<Vec<Value>> {
    // The two rings have no common order: the last call's record may come after the marker's.
    let mine = || -> Outcome<Vec<Value>> {
        let all = events::since(session.mark)?.into_iter();
        Ok(all.filter(|r| r["kind"] == "system-call" && r["session"] == session.id.as_str()).collect())
    };
    let enough = wait_for("a record of each call", 120, || mine().ok().filter(|all| all.len() >= least));
    match enough {
        Ok(all) => Ok(all),
        Err(error) => {
            let there: Vec<String> =
                mine()?.iter().map(|r| format!("{} {}", r["call"], r["error"])).collect();
            crate::fail!("{error}: only {} of {least}:\n{}", there.len(), there.join("\n"))
        }
    }
}

fn status() -> Outcome<Value> {
    let ran = Command::new("enforcer").args(["status", "--output", "json"]).run()?;
    serde_json::from_str(&ran.out).map_err(|error| Failed::new(format!("{error}: {ran}")))
}

/// The entries of calls in a status.
fn entries(status: &Value) -> Vec<Value> {
    let hooks = status["hooks"].as_array().into_iter().flatten();
    let call = |hook: &&Value| hook["name"].as_str().is_some_and(|name| name.starts_with("system call "));
    hooks.filter(call).cloned().collect()
}

/// Waits until all that this kernel has is watched: that takes its time after the start.
pub(super) fn watched() -> Outcome<Value> {
    let ask = || status().ok().filter(|s| s["waiting"] == json!([]) && entries(s).len() >= 48);
    Ok(wait_for("48 calls that are watched, and none to come", 300, ask)?)
}

fn rare_system_calls_leave_their_arguments_whatever_became_of_them(t: &mut Test) -> Outcome {
    t.fresh()?;
    watched()?;
    let marker = check::marker(t)?;
    let all = acts();
    let mut words: Vec<String> = all.iter().map(|(act, ..)| (*act).to_owned()).collect();
    let before = events::mark()?;
    // Outside the same calls leave nothing. (Namespaces are entered there, so not before the others.)
    outside_all(&words[3..words.len() - 1])?;
    words.push(format!("read {marker}"));
    let agent = t.agent(t.policy())?;
    let session = agent.probe(&words)?;
    ensure!(session.lines.len() == words.len(), "{:?} {}", session.lines, session.err);
    events::until_marker(session.mark, &session.id, &marker)?;
    let found = calls(&session, all.len())?;
    let mut faults = Vec::new();
    for (act, name, arguments, error, text) in &all {
        let fits = |record: &&Value| {
            let call = &record["call"];
            call["name"] == *name
                && arguments.iter().all(|(at, word)| call["arguments"][at] == *word)
                && (text.is_empty() || call["text"] == *text)
        };
        let records: Vec<&Value> = found.iter().filter(fits).collect();
        match records[..] {
            [one]
                if one["call"]["bits"] == 64
                    && one["verdict"].is_null()
                    // Which of several checks comes first differs between kernels.
                    && match error.as_str() {
                        Some(names) => names.split(" or ").any(|name| one["error"] == name),
                        None => one["error"].is_null(),
                    } => {}
            _ => faults.push(format!("{act}: {records:?}")),
        }
    }
    let said: Vec<String> = found.iter().map(|r| format!("{} {}", r["call"], r["error"])).collect();
    ensure!(faults.is_empty(), "{}\nall:\n{}", faults.join("\n"), said.join("\n"));
    ensure!(found.len() == all.len(), "{} records:\n{}", found.len(), said.join("\n"));
    // What an earlier session did may be told late.
    let others = events::since(before)?.into_iter().filter(|r| r["kind"] == "system-call");
    let others = others.filter(|r| r["session"].is_null() || r["agent"] == agent.name());
    let strangers: Vec<Value> = others.filter(|r| r["session"] != session.id.as_str()).collect();
    ensure!(strangers.is_empty(), "somebody else's: {strangers:?}");
    Ok(())
}

fn calls_of_32_bit_programs_do_too(t: &mut Test) -> Outcome {
    t.fresh()?;
    watched()?;
    let program = t.at("narrow");
    // unshare(CLONE_NEWNS): the number is another one there.
    fs::write(&program, narrow_call(310, 0x2_0000))?;
    fs::set_permissions(&program, fs::Permissions::from_mode(0o755))?;
    let agent = t.agent(t.policy().exec(&program))?;
    let session = agent.run(std::slice::from_ref(&program))?;
    ensure!(session.code == Some(40 + libc::EPERM), "{:?} {}", session.code, session.err);
    let found = calls(&session, 1)?;
    let call = &found[0]["call"];
    let right = call["name"] == "unshare" && call["bits"] == 32 && call["arguments"][0] == "0x20000";
    ensure!(found.len() == 1 && right && found[0]["error"] == "EPERM", "{found:?}");
    // umount(NULL), which 64-bit programs do not have.
    fs::write(&program, narrow_call(22, 0))?;
    let session = agent.run(&[program])?;
    ensure!(session.code == Some(40 + libc::EFAULT), "{:?} {}", session.code, session.err);
    let found = calls(&session, 1)?;
    let right = found[0]["call"]["name"] == "umount2" && found[0]["call"]["bits"] == 32;
    ensure!(found.len() == 1 && right && found[0]["error"] == "EFAULT", "{found:?}");
    Ok(())
}

fn whoever_is_not_root_leaves_evidence_of_what_the_kernel_itself_refuses(t: &mut Test) -> Outcome {
    t.fresh()?;
    watched()?;
    let agent = t.agent(t.policy().line("launch: { by: [uid:root], run_as: nobody }"))?;
    // Modules and another root: for want of a capability. The last one the session's filter refuses.
    let acts = ["call 175 0 0 0", "chroot /", "call 313 77 0 0", "userfaultfd"].map(str::to_owned);
    let session = agent.probe(&acts)?;
    ensure!(session.lines == ["EPERM"; 4], "{:?} {}", session.lines, session.err);
    let found = calls(&session, 3)?;
    let said: Vec<&str> = found.iter().filter_map(|record| record["call"]["name"].as_str()).collect();
    ensure!(said == ["init_module", "chroot", "finit_module"], "{found:?}");
    ensure!(found.iter().all(|r| r["error"] == "EPERM" && r["verdict"].is_null()), "{found:?}");
    Ok(())
}

fn a_policy_ignores_stops_and_kills_by_the_call(t: &mut Test) -> Outcome {
    t.fresh()?;
    watched()?;
    let said = "system_calls: { ignore: [personality], stop: [kcmp], kill: [memfd_create, clone] }";
    let mut agent: Agent = t.agent(t.policy().line(said))?;
    // Ended: nothing after the call runs. A clone has no child then.
    for (act, name) in [("call 319 0 1 0", "memfd_create"), ("call 56 1073741841 0 0", "clone")] {
        let words = ["call 135 4294967295 0 0", act, "fork"].map(str::to_owned);
        let session = agent.probe(&words)?;
        ensure!(session.code == Some(128 + 9) && session.lines.len() <= 1, "{act}: {:?}", session.code);
        let found = calls(&session, 1)?;
        ensure!(found.len() == 1 && found[0]["call"]["name"] == name, "{act}: {found:?}");
        ensure!(found[0]["call"]["then"] == "killed" && found[0]["flags"] == json!([]), "{found:?}");
    }
    // Stopped, until somebody outside lets it go on.
    let mut live = agent.start(&["call 312 1 1 0".to_owned(), "fork".to_owned()])?;
    let pid = live.pid()?;
    let state = || fs::read_to_string(format!("/proc/{pid}/stat")).unwrap_or_default();
    wait_for("a stopped process", 120, || state().contains(") T ").then_some(()))?;
    Command::new("/usr/bin/kill").args(["-CONT", &pid.to_string()]).run()?;
    let (first, second) = (live.line()?, live.line()?);
    ensure!(first != "ok" && second == "ok", "{first} {second}");
    live.finish()?;
    let stopped = events::wait("the record of the stop", live.mark, |r| r["call"]["name"] == "kcmp")?;
    ensure!(stopped["call"]["then"] == "stopped" && stopped["agent"] == agent.name(), "{stopped}");
    // In audit mode it is only said.
    agent.change(t.policy().line(said).line("mode: audit"))?;
    let session = agent.probe(&["call 319 0 1 0".to_owned(), "fork".to_owned()])?;
    ensure!(session.code == Some(0) && session.lines[1..] == ["ok"], "{:?}", session.lines);
    let found = calls(&session, 1)?;
    ensure!(found[0]["call"]["then"] == "killed" && found[0]["flags"] == json!(["would"]), "{found:?}");
    Ok(())
}

fn a_flood_of_calls_is_counted_and_hides_no_program(t: &mut Test) -> Outcome {
    t.fresh()?;
    watched()?;
    let agent = t.agent(t.policy().exec("/usr/bin/true"))?;
    let session = agent.probe(&["call-each 319 20000".to_owned(), "exec /usr/bin/true".to_owned()])?;
    ensure!(session.code == Some(0), "{:?} {:?} {}", session.code, session.lines, session.err);
    let program = |r: &Value| {
        r["kind"] == "executed" && r["exe"] == "/usr/bin/true" && r["session"] == session.id.as_str()
    };
    events::wait("the program's record", session.mark, program)?;
    // Somebody else's losses may be told of at the same time.
    events::wait("what was not recorded", session.mark, |r| {
        r["kind"] == "lost" && r["agent"] == agent.name() && r["calls"].as_u64() > Some(0)
    })?;
    // Recorded and lost together are what was made.
    let count = || -> Outcome<u64> {
        let records = events::since(session.mark)?;
        let made = records.iter().filter(|r| r["kind"] == "system-call" && r["agent"] == agent.name());
        let lost = records.iter().filter(|r| r["kind"] == "lost" && r["agent"] == agent.name());
        Ok(made.map(|r| r["count"].as_u64().unwrap_or(1)).sum::<u64>()
            + lost.map(|r| r["calls"].as_u64().unwrap_or(0)).sum::<u64>())
    };
    wait_for("all of them", 120, || (count().ok()? == 20_000).then_some(()))
        .map_err(|e| crate::harness::Failed::new(format!("{e}: {:?}", count())))?;
    Ok(())
}

fn every_call_that_the_kernel_has_is_watched(_: &mut Test) -> Outcome {
    let calls = entries(&watched()?);
    let absent: Vec<&Value> = calls.iter().filter(|hook| hook["attached"] != true).collect();
    ensure!(absent.is_empty(), "{} calls, without {absent:?}", calls.len());
    Ok(())
}

/// Where the programs that decide are pinned.
fn links() -> Outcome<PathBuf> {
    Ok(PathBuf::from(format!("{PINS}/links-{}", status()?["generation"])))
}

/// The last call to be attached, its function, and where its own program is while another one stands in its place.
const LAST: (&str, &str, &str) = ("process_mrelease", "__x64_sys_process_mrelease", "away");

/// As after a start that has loaded programs and attached none yet. In place of one that waits stands a program that the
/// kernel attaches to no function, until this goes.
struct Unattached(PathBuf);

impl Unattached {
    fn start() -> Outcome<Self> {
        let links = links()?;
        let (attached, waiting) = (links.join("system-calls"), links.join("system-calls-waiting"));
        systemctl("stop enforcer.service")?;
        let here = Self(links.clone());
        let all = fs::read_dir(&attached)?.flatten().map(|entry| entry.path());
        let all: Vec<PathBuf> = all
            .filter(|at| at.file_name().is_some_and(|name| name.as_encoded_bytes().starts_with(b"__")))
            .collect();
        let to = |link: &PathBuf| waiting.join(link.file_name().unwrap_or_default());
        let acts: Vec<String> = all
            .iter()
            .map(|link| format!("bpf-pin-program {} {}", link.display(), to(link).display()))
            .collect();
        let said = outside_all(&acts)?;
        ensure!(said.iter().all(|word| word == "ok"), "{said:?}");
        all.iter().try_for_each(fs::remove_file)?;
        fs::rename(waiting.join(LAST.1), waiting.join(LAST.2))?;
        let other =
            fs::read_dir(links.join("network"))?.next().ok_or_else(|| Failed::new("no program"))??;
        fs::hard_link(other.path(), waiting.join(LAST.1))?;
        systemctl("start enforcer.service")?;
        units::enforcing()?;
        Ok(here)
    }

    /// Puts the program back to where it waits, and has it attached.
    fn mend(&self) -> Outcome {
        let waiting = self.0.join("system-calls-waiting");
        systemctl("stop enforcer.service")?;
        // Where it was tried, a directory says that it was in vain.
        let _ = fs::remove_dir(self.0.join("system-calls").join(LAST.1));
        if waiting.join(LAST.2).exists() {
            fs::rename(waiting.join(LAST.2), waiting.join(LAST.1))?;
        }
        systemctl("start enforcer.service")?;
        units::enforcing()
    }
}

impl Drop for Unattached {
    fn drop(&mut self) {
        let _ = self.mend();
    }
}

/// Writes a policy that the daemon refuses, and returns what it says.
fn refusal(policy: &Policy) -> Outcome<String> {
    let file = format!("/etc/enforcer/policies.d/{}.yaml", policy.name());
    fs::write(&file, policy.to_string())?;
    let ran = Command::new("enforcer").args(["reload"]).run()?;
    fs::remove_file(&file)?;
    Command::new("enforcer").args(["reload"]).run()?;
    Ok(ran.to_string())
}

fn a_policy_counts_on_no_program_that_is_not_there_and_the_status_names_it(t: &mut Test) -> Outcome {
    t.fresh()?;
    watched()?;
    let killing = |call: &str| t.policy().line(&format!("system_calls: {{ kill: [{call}] }}"));
    let ended = |agent: &Agent, number: u32| -> Outcome {
        let session = agent.probe(&[format!("call {number} 0 0 0"), "fork".to_owned()])?;
        ensure!(session.code == Some(128 + 9), "{number}: {:?} {:?}", session.code, session.lines);
        Ok(())
    };
    let waits = |status: &Value, call: &str| {
        status["waiting"].as_array().is_some_and(|all| all.contains(&json!(call)))
    };
    let listed = |status: &Value, call: &str| {
        entries(status).iter().any(|hook| hook["name"] == format!("system call {call}"))
    };
    let named = |value: &Value| value.to_string().contains(LAST.1);
    // The calls are among the last to be attached. The first policy is in force before its program is attached, the second
    // comes before its program would have had its turn.
    let kept = t.agent(killing("process_madvise"))?;
    let mark = events::mark()?;
    let unattached = Unattached::start()?;
    let begun = status()?;
    ended(&kept, 440)?;
    let fresh = t.agent(killing("quotactl_fd"))?;
    ended(&fresh, 443)?;
    let then = status()?;
    ensure!(waits(&begun, "quotactl_fd") && !waits(&begun, "process_madvise"), "{}", begun["waiting"]);
    ensure!(waits(&then, LAST.0) && !waits(&then, "quotactl_fd"), "{}", then["waiting"]);
    ensure!(listed(&then, "quotactl_fd") && !listed(&then, LAST.0), "{:?}", entries(&then));
    let text = Command::new("enforcer").args(["status"]).run()?;
    ensure!(text.out.contains("are still to be attached"), "{text}");
    // What cannot be attached is tried for the policy that asks for it, which is refused.
    let error = refusal(&killing(LAST.0))?;
    ensure!(error.contains(LAST.0) && error.contains("is not watched"), "{error}");
    let record = events::wait("a record of that", mark, |r| r["kind"] == "call-unwatched")?;
    ensure!(record["call"] == LAST.0 && record["function"] == LAST.1, "{record}");
    let told = status()?;
    ensure!(told["state"] == "degraded" && named(&told["problems"]) && !waits(&told, LAST.0), "{told}");
    ended(&kept, 440)?;
    ended(&fresh, 443)?;
    // The next daemon knows of it, and does not try again.
    let mark = events::mark()?;
    systemctl("restart enforcer.service")?;
    units::enforcing()?;
    let again = status()?;
    ensure!(again["generation"] == told["generation"] && named(&again["problems"]), "{again}");
    let more = events::since(mark)?.into_iter().filter(|r| r["kind"] == "call-unwatched").count();
    ensure!(more == 0, "{more} records");
    ended(&kept, 440)?;
    unattached.mend()?;
    std::mem::forget(unattached);
    let mended = status()?;
    ensure!(!named(&mended["problems"]), "{mended}");
    Ok(())
}

/// Another build loads all its programs anew, and most calls are watched again only later.
fn whoever_a_policy_kills_for_a_call_does_not_survive_another_build(t: &mut Test) -> Outcome {
    // Two starts that load everything, which take minutes on an emulated machine.
    t.needs_full()?;
    t.fresh()?;
    watched()?;
    // Among the last to be attached, if nobody asked for it.
    let policy = matched(t, "probe-killed").line("system_calls: { kill: [quotactl_fd] }");
    let agent = t.agent(policy)?;
    let builds = Builds::new()?;
    let (mark, begun) = (events::mark()?, generation()?);
    let acts = ["say begun".to_owned(), format!("killed {} 443", t.at("end"))];
    let (unit, _) = Unit::start(t, "probe-killed", &probe(&acts), false)?;
    unit.wait_for_line("begun")?;
    let mut seen = begun;
    for build in [&builds.second, &builds.first] {
        let before = daemon()?;
        Builds::install(build)?;
        systemctl("restart --no-block enforcer.service")?;
        other_daemon(&before)?;
        let (now, status) = (generation()?, status()?);
        ensure!(now > seen, "generation {seen}, then {now}");
        // Whatever is not asked for waits, so what was tried is tried in time.
        let waits = status["waiting"].as_array().cloned().unwrap_or_default();
        ensure!(waits.len() > 10 && !waits.contains(&json!("quotactl_fd")), "{waits:?}");
        seen = now;
    }
    t.file("end")?;
    wait_for("the end of the calls", 120, || (unit.lines().len() == 4).then_some(()))?;
    let lines = unit.lines();
    let tried = lines[2].split(' ').nth(1).and_then(|n| n.parse::<u64>().ok()).unwrap_or_default();
    eprintln!("{} by one process after the other", lines[2]);
    ensure!(lines[3] == "ok" && tried >= 500, "{lines:?}");
    // None leaves two records. Some leave none: the ring takes no more while no daemon reads it.
    let count = || -> Outcome<u64> {
        let made = events::since(mark)?.into_iter();
        let made = made.filter(|r| r["kind"] == "system-call" && r["agent"] == agent.name());
        Ok(made.map(|r| r["count"].as_u64().unwrap_or(1)).sum())
    };
    wait_for("a record", 120, || count().ok().filter(|made| *made > 0))?;
    let made = count()?;
    eprintln!("{made} recorded");
    ensure!(made <= tried, "{made} records of {tried} calls");
    watched()?;
    Ok(())
}
