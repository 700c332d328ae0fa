//! Where nothing can be enforced, nothing pretends to: one clear error and a fixed code.

use crate::{
    cases,
    command::{Command, Ran, systemctl, wait_for},
    ensure,
    harness::{Outcome, Test, exists},
};
use std::fs;

cases!(refusals:
    without_the_bpf_lsm_the_daemon_ends_with_its_reason,
    nobody_but_root_runs_the_daemon,
    broken_settings_are_named,
    without_a_daemon_nothing_is_started,
    no_unit_starts_in_the_slice,
    every_surface_says_not_enforcing,
    a_daemon_that_stays_down_is_an_alert,
);

/// One error, which names the thing, and nothing that looks like work.
fn refuses(ran: &Ran, code: i32, words: &[&str]) -> Outcome {
    ensure!(ran.code == Some(code), "not {code}: {ran}");
    let text = ran.err.to_lowercase();
    for word in words {
        ensure!(text.contains(word), "no {word:?} in: {ran}");
    }
    let errors = ran.err.lines().filter(|line| line.starts_with("enforcer:")).count();
    ensure!(errors == 1 && ran.err.lines().count() <= 8, "more than an error and its remedy: {ran}");
    ensure!(
        !exists("/sys/fs/bpf/enforcer") && !exists("/run/enforcer/control.sock"),
        "something was left behind"
    );
    Ok(())
}

fn without_the_bpf_lsm_the_daemon_ends_with_its_reason(_: &mut Test) -> Outcome {
    let active = fs::read_to_string("/sys/kernel/security/lsm")?;
    ensure!(!active.split(',').any(|name| name == "bpf"), "this kernel has the BPF LSM: {active}");
    refuses(&Command::new("enforcer").args(["daemon"]).run()?, 71, &["bpf", "lsm="])
}

fn nobody_but_root_runs_the_daemon(_: &mut Test) -> Outcome {
    let words = ["--reuid=1000", "--regid=1000", "--clear-groups", "enforcer", "daemon"];
    refuses(&Command::new("setpriv").args(words).run()?, 77, &["root"])
}

fn broken_settings_are_named(t: &mut Test) -> Outcome {
    let file = t.file("enforcer.toml")?;
    fs::write(&file, "[agents]\nroot = 1\n")?;
    refuses(&Command::new("enforcer").args(["daemon", "--settings", &file]).run()?, 78, &[&file, "root"])
}

fn without_a_daemon_nothing_is_started(t: &mut Test) -> Outcome {
    let proof = t.at("proof");
    let ran = Command::new("enforcer").args(["exec", "anybody", "--", "/usr/bin/touch", &proof]).run()?;
    refuses(&ran, 69, &["daemon"])?;
    ensure!(!exists(&proof), "the command ran");
    Ok(())
}

fn no_unit_starts_in_the_slice(t: &mut Test) -> Outcome {
    let proof = t.at("proof");
    let outside = Command::new("systemd-run").args(["--quiet", "--wait", "--collect", "true"]).run()?;
    ensure!(outside.code == Some(0), "{outside}");
    let words = ["--quiet", "--wait", "--collect", "--slice=agents.slice", "touch", &proof];
    let ran = Command::new("systemd-run").args(words).run()?;
    ensure!(ran.code != Some(0) && !exists(&proof), "{ran}");
    Ok(())
}

fn every_surface_says_not_enforcing(_: &mut Test) -> Outcome {
    let doctor = Command::new("enforcer").args(["doctor"]).run()?;
    ensure!(doctor.code == Some(2) && doctor.out.starts_with("NOT ENFORCING\n"), "{doctor}");
    let lsm = doctor.out.lines().find(|line| line.contains("FATAL  lsm")).unwrap_or_default();
    ensure!(lsm.contains("BPF LSM is off"), "{doctor}");
    // Debian's words, with what is active now and bpf.
    let mends = |line: &str| line.contains(" add lsm=") && line.contains(",bpf to GRUB_CMDLINE_LINUX");
    ensure!(doctor.out.lines().any(|line| mends(line) && line.contains("landlock")), "{doctor}");
    let host = Command::new("enforcer").args(["doctor", "--host"]).run()?;
    ensure!(host.code == Some(71), "{host}");
    // The unit: it ends with the code, is not started again and again, and its status line says the word.
    let started = Command::new("systemctl").args(["start", "enforcer.service"]).run()?;
    ensure!(started.code != Some(0), "{started}");
    wait_for("the unit's word", 120, || {
        let words = ["show", "enforcer.service", "--property=ExecMainStatus,StatusText"];
        let shown = Command::new("systemctl").args(words).run().ok()?.out;
        (shown.contains("ExecMainStatus=71") && shown.contains("StatusText=NOT ENFORCING: ")).then_some(())
    })?;
    Command::new("systemctl").args(["stop", "enforcer.service"]).run()?;
    Ok(())
}

fn a_daemon_that_stays_down_is_an_alert(_: &mut Test) -> Outcome {
    let settings = "/etc/enforcer/enforcer.toml";
    let good = fs::read_to_string(settings)?;
    fs::write(settings, "[agents]\nroot = 1\n")?;
    // It is said so often in a minute, and others may have had that.
    let _ = systemctl("reset-failed enforcer-failed.service");
    let started = Command::new("systemctl").args(["start", "enforcer.service"]).run();
    let alert = wait_for("the alert", 120, || {
        let words = ["--priority=alert", "--output=cat", "--unit=enforcer-failed.service"];
        let ran = Command::new("journalctl").args(words).run().ok()?;
        (ran.out.contains("NOT ENFORCING") && ran.out.contains("unknown field `root`")).then_some(())
    });
    fs::write(settings, good)?;
    ensure!(started?.code != Some(0), "it started");
    alert.map_err(Into::into)
}
