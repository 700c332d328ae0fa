//! The Debian package, from an empty host and back to one. The tests build on each other.

use super::{
    lifecycle::{Builds, daemon, other_daemon},
    units::{Unit, probe},
};
use crate::{
    agent::{PROBE, ROOT},
    cases,
    command::{Command, Ran, wait_for},
    ensure,
    harness::{Outcome, Test, exists},
};
use serde_json::Value;
use std::fs;

cases!(package:
    it_installs_and_enforces_without_policies,
    the_first_agent_is_governed_after_two_more_commands,
    neither_an_agent_nor_anybody_beside_one_ends_enforcement,
    installing_it_again_keeps_what_is_attached,
    no_attack_succeeds_while_the_package_is_upgraded_and_downgraded,
    a_daemon_that_is_killed_or_hangs_comes_back_and_confines_meanwhile,
    nothing_in_the_slice_runs_at_boot_before_it_is_confined,
    removal_ends_enforcement_and_says_so,
    a_purge_leaves_nothing,
);

const DEB: &str = "/usr/lib/enforcer-tests/enforcer.deb";
pub(super) const PINS: &str = "/sys/fs/bpf/enforcer";
const LOG: &str = "/var/lib/enforcer/audit/events.jsonl";

pub(super) fn shell(words: &str) -> Outcome<Ran> {
    Ok(Command::new("sh").args(["-c", words]).run()?)
}

pub(super) fn works(words: &str) -> Outcome<Ran> {
    // Installing waits until the daemon is ready, which takes an emulated machine its time.
    let ran = Command::new("sh").args(["-c", words]).patience(900).run()?;
    ensure!(ran.code == Some(0), "{ran}");
    Ok(ran)
}

fn install() -> Outcome<Ran> {
    // The guest has no archive: what the package needs is there.
    // It waits until the daemon is ready, which takes an emulated machine its time.
    let words = format!("DEBIAN_FRONTEND=noninteractive apt-get install --yes --reinstall {DEB}");
    let ran = Command::new("sh").args(["-c", &words]).patience(900).run()?;
    ensure!(ran.code == Some(0), "{ran}");
    Ok(ran)
}

pub(super) fn state() -> Outcome<(Option<i32>, Value)> {
    let ran = Command::new("enforcer").args(["status", "--output", "json"]).run()?;
    let status = serde_json::from_str(&ran.out).unwrap_or_default();
    Ok((ran.code, status))
}

fn it_installs_and_enforces_without_policies(_: &mut Test) -> Outcome {
    ensure!(!exists("/usr/bin/enforcer") && !exists(PINS), "something is installed already");
    install()?;
    let (code, status) = state()?;
    ensure!(code == Some(0) && status["state"] == "enforcing", "{code:?} {status}");
    ensure!(status["agents"] == 0 && status["policies"] == Value::Array(Vec::new()), "{status}");
    works("systemctl is-enabled enforcer.service && systemctl is-active enforcer.service")?;
    for surface in
        ["enforcer doctor --host", "systemctl status --no-pager enforcer | grep -F 'Status: \"enforcing'"]
    {
        works(surface)?;
    }
    let doctor = works("enforcer doctor")?;
    ensure!(doctor.out.starts_with("enforcing\n") && !doctor.out.contains("FATAL"), "{doctor}");
    let scrape = "curl --silent --unix-socket /run/enforcer/metrics.sock http://enforcer/metrics";
    let metrics = works(scrape)?.out;
    ensure!(metrics.contains("enforcer_state{state=\"enforcing\"} 1\n"), "{metrics}");
    // The host goes on as before.
    works("systemctl daemon-reload && systemd-run --quiet --wait --collect true && getent group enforcer")?;
    for path in ["man/man1/enforcer-exec.1.gz", "enforcer/policy.schema.json", "doc/enforcer/policy.md"] {
        // dpkg may have been told to leave documentation out.
        let listed = works("dpkg-query --listfiles enforcer")?.out;
        ensure!(listed.lines().any(|line| line == format!("/usr/share/{path}")), "no {path} in\n{listed}");
    }
    Ok(())
}

fn the_first_agent_is_governed_after_two_more_commands(_: &mut Test) -> Outcome {
    fs::write(
        "/tmp/first.yaml",
        "apiVersion: enforcer/v1\nkind: AgentPolicy\nmetadata: { id: first, version: 1, owner: t, purpose: t }\n\
         launch: { by: [uid:root], run_as: root }\ninclude: [base@1]\n\
         files:\n  - { allow: [read, list, write, delete], paths: [/sys/fs/**] }\n\
         exec:\n  - { allow: [/usr/bin/cat, /usr/bin/enforcer, /usr/bin/rm, /usr/bin/sleep] }\n",
    )?;
    works("enforcer policy apply /tmp/first.yaml")?;
    let ran = shell("enforcer exec first -- cat /etc/shadow")?;
    ensure!(ran.code == Some(1) && ran.err.contains("Operation not permitted"), "{ran}");
    works("cat /etc/shadow").map(drop)
}

fn neither_an_agent_nor_anybody_beside_one_ends_enforcement(_: &mut Test) -> Outcome {
    let ran = shell("enforcer exec first -- enforcer daemon --uninstall")?;
    ensure!(ran.code != Some(0) && exists(PINS), "{ran}");
    let ran = shell("enforcer exec first -- rm -r /sys/fs/bpf/enforcer")?;
    ensure!(ran.code != Some(0) && exists(PINS), "{ran}");
    let user = "setpriv --reuid=1000 --regid=1000 --clear-groups enforcer daemon --uninstall";
    ensure!(shell(user)?.code == Some(77), "a user");
    let ran = shell("enforcer daemon --uninstall")?;
    ensure!(ran.code == Some(75) && ran.err.contains("another daemon"), "{ran}");
    works("enforcer exec first --detach -- sleep 1000")?;
    works("systemctl stop enforcer.service")?;
    let ran = shell("enforcer daemon --uninstall")?;
    ensure!(ran.code == Some(75) && ran.err.contains("agents are running"), "{ran}");
    ensure!(exists(&format!("{PINS}/maps/GATE")), "the pins are gone");
    works("systemctl start enforcer.service").map(drop)
}

fn installing_it_again_keeps_what_is_attached(_: &mut Test) -> Outcome {
    let links = || works(&format!("cd {PINS} && find . -name 'file_open*' | sort")).map(|ran| ran.out);
    let before = links()?;
    install()?;
    ensure!(links()? == before && !before.is_empty(), "other links than {before}");
    ensure!(state()?.0 == Some(0), "{:?}", state()?);
    // The session that was running went on, and what is refused is refused.
    let ran = shell("enforcer exec first -- cat /etc/shadow")?;
    ensure!(ran.code == Some(1), "{ran}");
    works(&format!("grep -q 'populated 1' {ROOT}/cgroup.events")).map(drop)
}

/// An agent that is a unit, and tries without end what it must not do.
fn storm(t: &Test, name: &str) -> Outcome<Unit> {
    let policy = format!(
        "apiVersion: enforcer/v1\nkind: AgentPolicy\nmetadata: {{ id: {name}, version: 1, owner: t, purpose: t }}\n\
         match: {{ cgroup: /agents.slice/{name}.service }}\ninclude: [base@1]\nexec:\n  - {{ allow: [{PROBE}] }}\n"
    );
    fs::write(format!("/tmp/{name}.yaml"), policy)?;
    works(&format!("enforcer policy apply /tmp/{name}.yaml"))?;
    let acts = format!("storm {} read /etc/shadow + write /etc/passwd + tcp 127.0.0.1 9", t.at("end"));
    let (unit, _) = Unit::start(t, name, &probe(&["say ready".to_owned(), acts]), false)?;
    unit.wait_for_line("ready")?;
    Ok(unit)
}

/// Ends it: none of its attempts may have succeeded.
fn storm_is_over(t: &Test, unit: &Unit) -> Outcome {
    t.file("end")?;
    wait_for("the end of the attack", 120, || (unit.lines().len() == 4).then_some(()))?;
    let lines = unit.lines();
    ensure!(lines[3] == "ok" && !lines[2].starts_with("tried 0 "), "{lines:?}");
    eprintln!("{}", lines[2]);
    Ok(())
}

/// Makes of the package one of a later version whose kernel programs are another object.
fn next_version(to: &str) -> Outcome {
    works(&format!("rm -rf /tmp/next && dpkg-deb --raw-extract {DEB} /tmp/next"))?;
    let program = "/tmp/next/usr/bin/enforcer";
    fs::write(program, Builds::other(&fs::read(program)?)?)?;
    works(&format!(
        "sed -i 's/^Version: .*/&+next1/' /tmp/next/DEBIAN/control && dpkg-deb -Znone --build /tmp/next {to} && \
         rm -rf /tmp/next"
    ))
    .map(drop)
}

fn no_attack_succeeds_while_the_package_is_upgraded_and_downgraded(t: &mut Test) -> Outcome {
    let next = t.at("next.deb");
    next_version(&next)?;
    let unit = storm(t, "storm")?;
    let generation = || -> Outcome<u64> { Ok(state()?.1["generation"].as_u64().unwrap_or_default()) };
    let apt = "DEBIAN_FRONTEND=noninteractive apt-get install --yes --allow-downgrades";
    let mut seen = generation()?;
    for deb in [next.as_str(), DEB] {
        works(&format!("{apt} {deb}"))?;
        let now = generation()?;
        ensure!(now > seen, "{deb}: generation {seen}, then {now}");
        seen = now;
    }
    storm_is_over(t, &unit)?;
    // The session that was running before all this still does.
    works(&format!("grep -q 'populated 1' {ROOT}/cgroup.events"))?;
    let ran = shell("enforcer exec first -- cat /etc/shadow")?;
    ensure!(ran.code == Some(1), "{ran}");
    Ok(())
}

fn a_daemon_that_is_killed_or_hangs_comes_back_and_confines_meanwhile(t: &mut Test) -> Outcome {
    let unit = storm(t, "storm")?;
    let drop_in = "/run/systemd/system/enforcer.service.d";
    fs::create_dir_all(drop_in)?;
    fs::write(format!("{drop_in}/watchdog.conf"), "[Service]\nWatchdogSec=6\n")?;
    let before = daemon()?;
    works("systemctl daemon-reload && systemctl kill --signal=KILL enforcer.service")?;
    let killed = other_daemon(&before);
    // It hangs: systemd hears nothing of it, ends it and starts another one.
    let hung = killed.and_then(|now| {
        works("systemctl kill --kill-whom=main --signal=STOP enforcer.service")?;
        other_daemon(&now)
    });
    fs::remove_dir_all(drop_in)?;
    works("systemctl daemon-reload")?;
    hung?;
    let journal = works("journalctl --unit=enforcer.service --output=cat")?;
    ensure!(journal.out.contains("Watchdog timeout"), "{journal}");
    storm_is_over(t, &unit)
}

fn nothing_in_the_slice_runs_at_boot_before_it_is_confined(t: &mut Test) -> Outcome {
    // As after a reboot: nothing is attached, nothing of ours has run.
    works("systemctl stop agents.slice && echo 1 > /sys/fs/cgroup/agents.slice/cgroup.kill || true")?;
    works("systemctl stop enforcer.service && enforcer daemon --uninstall --reason boot")?;
    works("rmdir /sys/fs/cgroup/agents.slice/* /sys/fs/cgroup/agents.slice || true")?;
    ensure!(!exists(PINS), "something is attached");
    let (out, early) = (t.at("out"), "/run/systemd/system/early.service");
    let policy = "apiVersion: enforcer/v1\nkind: AgentPolicy\nmetadata: { id: early, version: 1, owner: t, purpose: t }\n\
                  match: { cgroup: /agents.slice/early.service }\ninclude: [base@1]\n";
    fs::write(
        "/etc/enforcer/policies.d/early.yaml",
        format!(
            "{policy}exec:\n  - {{ allow: [{PROBE}] }}\nfiles:\n  - {{ allow: [read], paths: [/etc/passwd] }}\n"
        ),
    )?;
    // It says nothing about the daemon: only that it lives in the slice.
    let words = probe(&["read /etc/passwd".to_owned(), "read /etc/shadow".to_owned()]).join(" ");
    fs::write(
        early,
        format!("[Service]\nSlice=agents.slice\nExecStart={words}\nStandardOutput=file:{out}\n"),
    )?;
    fs::write(
        "/run/systemd/system/like-boot.target",
        "[Unit]\nWants=early.service enforcer.service agents.slice\n",
    )?;
    // Alone it does not start at all.
    let alone = shell("systemctl daemon-reload && systemctl start early.service")?;
    ensure!(alone.code != Some(0) && !exists(&out), "it ran: {alone}");
    works("systemctl start like-boot.target")?;
    let said = wait_for("what it could do", 120, || {
        fs::read_to_string(&out).ok().filter(|text| text.lines().count() == 2)
    })?;
    ensure!(said == "ok\nEPERM\n", "{said}");
    ensure!(matches!(state()?.0, Some(0 | 1)), "{:?}", state()?);
    fs::remove_file(early)?;
    works("systemctl daemon-reload").map(drop)
}

fn removal_ends_enforcement_and_says_so(_: &mut Test) -> Outcome {
    let ran = works("DEBIAN_FRONTEND=noninteractive apt-get remove --yes enforcer")?;
    ensure!(ran.out.contains("NOT ENFORCING"), "{ran}");
    ensure!(!exists(PINS) && !exists("/usr/bin/enforcer"), "{ran}");
    let log = fs::read_to_string(LOG)?;
    let records: Vec<Value> = log.lines().filter_map(|line| serde_json::from_str(line).ok()).collect();
    let records = |kind: &str| records.iter().filter(|record| record["kind"] == kind).count();
    // Once like a boot, once now.
    ensure!(records("enforcement-ends") == 2 && records("enforcement-ended") == 2, "{log}");
    ensure!(log.contains("package removed"), "{log}");
    // What would have been refused below the root is refused no more.
    works(&format!("mkdir -p {ROOT}/free && echo $$ > {ROOT}/free/cgroup.procs && {PROBE} fork")).map(drop)
}

fn a_purge_leaves_nothing(_: &mut Test) -> Outcome {
    works("dpkg --purge enforcer")?;
    let ran = works(
        "find / -xdev \\( -path '*enforcer-tests*' -o -path '*enforcer-guest*' -o -path '/var/log/*' \
         -o -path '/var/cache/*' -o -path '/proc/*' \\) -prune -o -iname '*enforcer*' -print",
    )?;
    ensure!(ran.out.trim().is_empty(), "left: {}", ran.out);
    ensure!(shell("getent group enforcer")?.code != Some(0), "the group is left");
    Ok(())
}
