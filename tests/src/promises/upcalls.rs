//! Programs that the kernel runs, as root and outside of every agent, because of what somebody did.

use super::{
    floor::almighty,
    tree,
    units::{Unit, judged, matched, probe, records},
};
use crate::{
    cases, ensure, events,
    harness::{Outcome, Test, exists, outside_all},
    promise::{self as check, Attempt, Denial},
};
use std::{fs, os::unix::fs::PermissionsExt};

cases!(upcalls:
    no_program_is_run_for_a_key,
    no_keyring_is_given_to_a_parent,
    no_module_is_asked_for,
    no_program_is_run_for_a_crash,
);

/// A program that leaves a line in a file each time that it is run.
fn handler(t: &Test, path: &str) -> Outcome<String> {
    let trace = t.at("handled");
    let _ = fs::remove_file(path);
    fs::write(path, format!("#!/bin/sh\necho >> {trace}\n"))?;
    fs::set_permissions(path, fs::Permissions::from_mode(0o755))?;
    Ok(trace)
}

fn no_program_is_run_for_a_key(t: &mut Test) -> Outcome {
    tree(t)?;
    const PROGRAM: &str = "/usr/sbin/request-key";
    let trace = handler(t, PROGRAM)?;
    let attempts = [Attempt::new("request-key", Denial::floor("key")).fails_outside("ENOKEY")];
    let outcome = (|| {
        check::control(&attempts)?;
        ensure!(exists(&trace), "outside the program is not run either");
        fs::remove_file(&trace)?;
        check::refused(t, &almighty(t)?, &["add-key".to_owned()], &attempts)?;
        ensure!(!exists(&trace), "the program was run");
        Ok(())
    })();
    fs::remove_file(PROGRAM)?;
    outcome
}

fn no_keyring_is_given_to_a_parent(t: &mut Test) -> Outcome {
    tree(t)?;
    // The kernel takes it for a lack of memory.
    let attempts = [Attempt::new("session-to-parent", Denial::floor("key")).errno("ENOMEM")];
    check::control(&attempts)?;
    check::refused(t, &almighty(t)?, &["add-key".to_owned()], &attempts)
}

fn no_module_is_asked_for(t: &mut Test) -> Outcome {
    tree(t)?;
    let attempts =
        [Attempt::new("unknown-hash", Denial::floor("module")).fails_outside("ENOENT").errno("ENOENT")];
    check::control(&attempts)?;
    check::refused(t, &almighty(t)?, &["fork".to_owned()], &attempts)
}

fn no_program_is_run_for_a_crash(t: &mut Test) -> Outcome {
    tree(t)?;
    const PATTERN: &str = "/proc/sys/kernel/core_pattern";
    let program = t.at("on-crash");
    let trace = handler(t, &program)?;
    let before = fs::read_to_string(PATTERN)?;
    fs::write(PATTERN, format!("|{program}"))?;
    let outcome = (|| {
        let act = ["crash".to_owned()];
        let runs = || fs::read_to_string(&trace).map_or(0, |text| text.lines().count());
        // The kernel starts the program before the parent hears of the end, and does not wait for it.
        let times = |number: usize| {
            let what = format!("run {number} of the program for crashes");
            crate::command::wait_for(&what, 120, || (runs() >= number).then_some(()))
        };
        ensure!(outside_all(&act)? == ["ok"], "outside");
        times(1)?;
        let session = almighty(t)?.probe(&act)?;
        ensure!(session.lines == ["ok"], "{:?}", session.lines);
        // One for the crash inside would have begun earlier.
        ensure!(outside_all(&act)? == ["ok"], "outside");
        times(2)?;
        ensure!(runs() == 2, "the program was run {} times", runs());
        // A limit of nothing is none where a program takes the dump.
        let attempts = [Attempt::new("crash 0", Denial::floor("core-dump")).not_outside().errno("ok")];
        check::refused(t, &almighty(t)?, &[], &attempts)?;
        // Nor has a unit one byte as its limit, unless it says so.
        let agent = t.agent(matched(t, "probe-crash"))?;
        let marker = check::marker(t)?;
        let mark = events::mark()?;
        let (unit, _) =
            Unit::start(t, "probe-crash", &probe(&["crash".to_owned(), format!("read {marker}")]), true)?;
        ensure!(unit.lines() == ["ok", "EPERM"], "{:?}", unit.lines());
        judged(&records(&agent, mark, &marker)?, &[Denial::floor("core-dump")], &agent)?;
        ensure!(outside_all(&act)? == ["ok"], "outside");
        times(3)?;
        ensure!(runs() == 3, "the program was run {} times", runs());
        let limits = t.agent(t.policy().line("capabilities: [sys_resource]"))?;
        ensure!(limits.probe(&["crash 0".to_owned()])?.lines == ["ok"], "with a say in limits");
        Ok(times(4)?)
    })();
    fs::write(PATTERN, before)?;
    outcome
}
