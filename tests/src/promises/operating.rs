//! What operators ask: why was that refused, how are things, and who may end enforcement.

use super::{
    tree,
    units::{enforcing, start_from_nothing},
};
use crate::{
    cases,
    command::{Command, systemctl, wait_for},
    ensure, events, fail,
    harness::{Outcome, Test, exists},
    promises::lifecycle::daemon,
};
use serde_json::Value;
use std::fs;

cases!(operating:
    why_says_what_decided_and_what_to_ask_for,
    status_doctor_and_figures_agree,
    top_and_a_support_bundle_say_how_things_are_and_no_key,
    an_agent_that_may_do_everything_does_not_end_enforcement,
    the_daemon_has_what_it_names_and_a_session_has_what_the_host_has,
    the_arena_is_as_large_as_the_settings_say_when_it_is_made,
);

fn json(words: &[&str]) -> Outcome<(Option<i32>, Value)> {
    let ran = Command::new("enforcer").args(["--output", "json"]).args(words).run()?;
    match serde_json::from_str(&ran.out) {
        Ok(value) => Ok((ran.code, value)),
        Err(error) => Err(format!("{error}: {ran}").into()),
    }
}

fn why_says_what_decided_and_what_to_ask_for(t: &mut Test) -> Outcome {
    tree(t)?;
    let (shut, secret) = (t.at("shut/f1"), t.at("open/f2"));
    let agent = t.agent(t.policy().allow("read", &t.at("open/**")).deny("read", &secret))?;
    for (path, wanted) in [
        (&shut, format!("files: [{{ allow: [read], paths: [\"{shut}\"] }}]")),
        (&secret, "on purpose".to_owned()),
    ] {
        let session = agent.probe(&[format!("read {path}")])?;
        ensure!(session.lines == ["EPERM"], "{:?}", session.lines);
        events::wait("the refusal", session.mark, |record| events::decides(record, &session.id))?;
        let said = wait_for("an explanation", 120, || {
            let (code, said) = json(&["why", "--session", &session.id]).ok()?;
            (code == Some(0)).then(|| said["refusal"].clone())
        })?;
        ensure!(said["agent"] == agent.name() && said["outcome"] == "refused with EPERM", "{said}");
        ensure!(said["ask"].as_str().is_some_and(|ask| ask.contains(&wanted)), "no {wanted:?} in {said}");
        let because = said["because"].as_array().map_or(0, Vec::len);
        ensure!(because == usize::from(path == &secret), "{said}");
    }
    // This process was refused nothing.
    let own = std::process::id().to_string();
    let (code, said) = json(&["why", &own])?;
    ensure!(code == Some(15) && said["refusal"].is_null(), "{code:?} {said}");
    ensure!(said["beside"].to_string().contains("below no root"), "{said}");
    Ok(())
}

fn status_doctor_and_figures_agree(_: &mut Test) -> Outcome {
    // It may have lost records in an earlier test; what the doctor adds is that the guest's unit is not enabled.
    let mut seen = String::new();
    let agree = wait_for("a state, and figures that have the same", 120, || {
        let (code, status) = json(&["status"]).ok()?;
        let figures = Command::new("enforcer").args(["metrics"]).run().ok()?;
        let (after, _) = json(&["status"]).ok()?;
        seen = format!("{code:?} {status} {figures}");
        // Not what changes between two looks.
        (code == after).then_some(())?;
        let word = status["state"].as_str().unwrap_or_default();
        let fits = matches!((code, word), (Some(0), "enforcing") | (Some(1), "degraded"));
        Some(fits && figures.out.contains(&format!("enforcer_state{{state=\"{word}\"}} 1\n")))
    });
    ensure!(matches!(agree, Ok(true)), "{seen}");
    let (_, doctor) = json(&["doctor"])?;
    ensure!(doctor["state"] != "NOT ENFORCING" && doctor["host_can_enforce"] == true, "{doctor}");
    let scrape = ["--silent", "--unix-socket", "/run/enforcer/metrics.sock", "http://enforcer/metrics"];
    let scraped = Command::new("curl").args(scrape).run()?;
    ensure!(
        scraped.out.contains("enforcer_canary_age_seconds ") && scraped.out.ends_with("# EOF\n"),
        "{scraped}"
    );
    Ok(())
}

fn top_and_a_support_bundle_say_how_things_are_and_no_key(t: &mut Test) -> Outcome {
    t.fresh()?;
    let secret = t.file("secret")?;
    let agent = t.agent(t.policy().deny("read", &secret))?;
    let session = agent.probe(&[format!("read {secret}")])?;
    ensure!(session.lines == ["EPERM"], "{:?}", session.lines);
    events::wait("the refusal", session.mark, |record| events::decides(record, &session.id))?;
    let (code, top) = json(&["top", "--once"])?;
    let rows = top["agents"].as_array().cloned().unwrap_or_default();
    let row = rows.iter().find(|row| row["name"] == agent.name()).cloned().unwrap_or_default();
    ensure!(code == Some(0) && row["total"]["denied"].as_u64() >= Some(1), "{code:?} {top}");
    let text = Command::new("enforcer").args(["top", "--once"]).run()?;
    ensure!(text.out.contains("DENIED/s") && text.out.contains(agent.name()), "{text}");

    let archive = t.at("support.tar");
    let ran = Command::new("enforcer").args(["support-bundle", &archive]).run()?;
    ensure!(ran.code == Some(0), "{ran}");
    let unpack = |name: &str| {
        let name = format!("enforcer-support/{name}");
        Command::new("tar").args(["--extract", "--to-stdout", "--file", &archive, &name]).run()
    };
    let list = unpack("contents.txt")?;
    for name in [
        "status.json",
        "doctor.json",
        "metrics.txt",
        "settings.json",
        "units.txt",
        "journal.txt",
        "kernel.txt",
    ] {
        ensure!(list.out.contains(&format!("  {name}")), "{name} is not in\n{list}");
    }
    let units = unpack("units.txt")?;
    ensure!(units.out.contains("Id=enforcer.service") && units.out.contains("ActiveState=active"), "{units}");
    ensure!(unpack(&format!("policies/{}.yaml", agent.name()))?.code == Some(0), "{list}");
    let key = std::fs::read_to_string("/var/lib/enforcer/audit/key")?;
    let bytes = std::fs::read(&archive)?;
    let has = |text: &str| bytes.windows(text.len()).any(|window| window == text.as_bytes());
    ensure!(key.trim().len() > 20 && !has(key.trim()), "the log's key is in the archive");
    ensure!(has("What is left out on purpose"), "{list}");
    // Never over a file that is there.
    let ran = Command::new("enforcer").args(["support-bundle", &archive]).run()?;
    ensure!(ran.code == Some(73), "{ran}");
    Ok(())
}

fn an_agent_that_may_do_everything_does_not_end_enforcement(t: &mut Test) -> Outcome {
    let agent = t.agent(t.policy().allow("all", "/**").exec("/**").connect("*:*/*"))?;
    let pins = "/sys/fs/bpf/enforcer/maps/GATE";
    for words in [
        "enforcer daemon --uninstall",
        "rm /sys/fs/bpf/enforcer/maps/GATE",
        "curl --unix-socket /run/enforcer/metrics.sock http://enforcer/metrics",
    ] {
        let words: Vec<String> = words.split(' ').map(str::to_owned).collect();
        let session = agent.run(&words)?;
        ensure!(session.code != Some(0) && exists(pins), "{words:?}: {:?} {}", session.code, session.err);
    }
    // Nor does root outside, while a daemon runs.
    let ran = Command::new("enforcer").args(["daemon", "--uninstall"]).run()?;
    ensure!(ran.code == Some(75) && exists(pins), "{ran}");
    Ok(())
}

/// Bytes of the arena, as status says.
fn arena() -> Outcome<u64> {
    let (_, status) = json(&["status"])?;
    let usage = status["usage"].as_array().into_iter().flatten().find(|one| one["name"] == "arena");
    usage.and_then(|one| one["room"].as_u64()).ok_or_else(|| format!("no arena in {status}").into())
}

fn the_arena_is_as_large_as_the_settings_say_when_it_is_made(t: &mut Test) -> Outcome {
    const SETTINGS: &str = "/etc/enforcer/enforcer.toml";
    // Two starts from nothing take minutes on a busy machine.
    t.needs_full()?;
    tree(t)?;
    let good = fs::read_to_string(SETTINGS)?;
    let changed = good.replace("arena_mib = 64", "arena_mib = 16");
    ensure!(changed != good, "{SETTINGS} does not say arena_mib = 64");
    let agent = t.agent(t.policy().allow("read", &t.at("open/**")))?;
    let works = || -> Outcome {
        let session =
            agent.probe(&[format!("read {}", t.at("open/f1")), format!("read {}", t.at("shut/f1"))])?;
        ensure!(session.lines == ["ok", "EPERM"], "{:?}", session.lines);
        Ok(())
    };
    let restart = || -> Outcome {
        systemctl("restart enforcer.service")?;
        enforcing()
    };
    let smaller = || -> Outcome {
        // A table that is there keeps its size, and everything in it.
        restart()?;
        ensure!(arena()? == 64 << 20, "the arena has {} bytes", arena()?);
        works()?;
        start_from_nothing()?;
        ensure!(arena()? == 16 << 20, "the arena has {} bytes", arena()?);
        works()
    };
    fs::write(SETTINGS, &changed)?;
    let result = smaller();
    fs::write(SETTINGS, good)?;
    result?;
    start_from_nothing()?;
    ensure!(arena()? == 64 << 20, "the arena has {} bytes", arena()?);
    works()
}

/// A set of capabilities in `/proc/PID/status` (proc_pid_status(5)).
fn capabilities(status: &str, set: &str) -> Outcome<u64> {
    let value = status.lines().find_map(|line| line.strip_prefix(set)?.strip_prefix(':'));
    match value.map(|value| u64::from_str_radix(value.trim(), 16)) {
        Some(Ok(bits)) => Ok(bits),
        _ => fail!("no {set} in {status}"),
    }
}

/// The daemon cannot load modules, reboot or change the system's programs, and a session, which is started from it, is
/// not the less for it: what it is refused, it is refused by the hooks.
fn the_daemon_has_what_it_names_and_a_session_has_what_the_host_has(t: &mut Test) -> Outcome {
    /// include/uapi/linux/capability.h: `CAP_SYS_MODULE`, `CAP_SYS_RAWIO`, `CAP_SYS_BOOT`, `CAP_MKNOD`.
    const NOT_NEEDED: [u32; 4] = [16, 17, 22, 27];
    /// `CAP_BPF`.
    const NEEDED: u32 = 39;
    let status = |of: &str| fs::read_to_string(format!("/proc/{of}/status"));
    let first = status("1")?;
    let everything = capabilities(&first, "CapBnd")?;
    let daemon = daemon()?;
    let mut threads = 0;
    for thread in fs::read_dir(format!("/proc/{daemon}/task"))? {
        let text = fs::read_to_string(thread?.path().join("status"))?;
        for set in ["CapEff", "CapPrm"] {
            let has = capabilities(&text, set)?;
            ensure!(has & 1 << NEEDED != 0, "{set} {has:x}");
            ensure!(NOT_NEEDED.iter().all(|one| has & 1 << one == 0), "{set} {has:x}");
            ensure!(has.count_ones() == 13, "{set} {has:x} is not what the daemon names");
        }
        ensure!(capabilities(&text, "CapBnd")? == everything, "what it starts would have less: {text}");
        threads += 1;
    }
    ensure!(threads > 1, "the daemon has one thread only");
    // Its own view of the file system, in which what it has no business with cannot be written.
    let mounts = fs::read_to_string(format!("/proc/{daemon}/mountinfo"))?;
    for place in ["/usr", "/etc", "/root"] {
        let line = mounts.lines().find(|line| line.split(' ').nth(4) == Some(place));
        let access = line.and_then(|line| line.split(' ').nth(5)).unwrap_or("not there");
        ensure!(access.split(',').any(|word| word == "ro"), "{place} is {access} for the daemon");
    }
    let mount_namespace = |of: &str| fs::read_link(format!("/proc/{of}/ns/mnt"));
    ensure!(mount_namespace(&daemon)? != mount_namespace("1")?, "the daemon lives with the host's mounts");

    let agent = t.agent(t.policy())?;
    let mut live = agent.start(&["say ready".to_owned(), format!("wait-for {} 600", t.at("end"))])?;
    live.expect(&["ready"])?;
    let session = live.pid()?.to_string();
    let text = status(&session)?;
    for set in ["CapEff", "CapPrm", "CapBnd"] {
        ensure!(
            capabilities(&text, set)? == capabilities(&first, set)?,
            "{set} of a session of root's: {text}"
        );
    }
    ensure!(mount_namespace(&session)? == mount_namespace("1")?, "the session has the daemon's mounts");
    t.file("end")?;
    live.expect(&["ok"])
}
