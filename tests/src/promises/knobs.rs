//! Files that are knobs: writing to them changes the kernel or other processes rather than data.

use super::{floor::almighty, tree};
use crate::{
    cases,
    command::Command,
    ensure,
    harness::{Outcome, Test, exists},
    promise::{self as check, Attempt, Denial},
};
use std::{fs, os::unix::fs::symlink};

cases!(knobs:
    cgroup_files_cannot_be_written,
    cgroups_cannot_be_made_or_removed,
    kernel_settings_cannot_be_written,
    sysctl_settings_cannot_be_written,
    names_in_bpffs_cannot_be_made_or_removed,
    the_pins_cannot_be_removed,
    the_daemons_files_are_denied_to_who_may_do_everything,
);

/// Opening for writing.
fn write(path: &str) -> Attempt {
    Attempt::new(format!("write {path}"), Denial::floor("open").on(path).asking("write"))
}

fn cgroup_files_cannot_be_written(t: &mut Test) -> Outcome {
    tree(t)?;
    let root = "/sys/fs/cgroup";
    let attempts = [
        write(&format!("{root}/cgroup.procs")),
        write(&format!("{root}/agents.slice/cgroup.kill")),
        write(&format!("{root}/system.slice/cgroup.freeze")),
        write(&format!("{root}/system.slice/enforcer.service/memory.high")),
        Attempt::new(format!("cgroup-move {root}"), Denial::floor("open").asking("write")),
    ];
    check::control(&attempts)?;
    check::refused(t, &almighty(t)?, &[format!("read {root}/cgroup.controllers")], &attempts)
}

fn cgroups_cannot_be_made_or_removed(t: &mut Test) -> Outcome {
    tree(t)?;
    let (new, old) = ("/sys/fs/cgroup/probe-new", "/sys/fs/cgroup/probe-old");
    let _ = fs::remove_dir(new);
    fs::create_dir_all(old)?;
    let attempts = [
        Attempt::new(format!("mkdir {new}"), Denial::floor("mkdir").on(new)),
        Attempt::new(format!("rmdir {old}"), Denial::floor("rmdir").on(old)),
    ];
    check::control(&attempts)?;
    let _ = fs::remove_dir(new);
    fs::create_dir_all(old)?;
    let outcome = check::refused(t, &almighty(t)?, &[format!("list {old}")], &attempts);
    let left = (exists(new), exists(old));
    let _ = (fs::remove_dir(new), fs::remove_dir(old));
    outcome?;
    ensure!(left == (false, true), "made or removed although refused");
    Ok(())
}

fn kernel_settings_cannot_be_written(t: &mut Test) -> Outcome {
    tree(t)?;
    // Who registers a kind of program says what runs when others execute a file.
    let kinds = "/proc/sys/fs/binfmt_misc";
    let _ = Command::new("mount").args(["-t", "binfmt_misc", "binfmt_misc", kinds]).run()?;
    let attempts = [
        write(&format!("{kinds}/register")),
        write("/sys/kernel/mm/transparent_hugepage/enabled"),
        write("/sys/kernel/tracing/trace_marker"),
        write("/sys/kernel/debug/clear_warn_once"),
        write("/sys/kernel/uevent_helper"),
    ];
    let there: Vec<Attempt> = attempts.into_iter().filter(|attempt| exists(attempt.object())).collect();
    ensure!(exists(&format!("{kinds}/register")), "no kinds of programs can be registered");
    ensure!(there.len() >= 3, "only {} of these knobs exist", there.len());
    check::control(&there)?;
    let twin = "read /sys/kernel/mm/transparent_hugepage/enabled".to_owned();
    let outcome = check::refused(t, &almighty(t)?, &[twin], &there);
    let _ = Command::new("umount").args([kinds]).run()?;
    outcome
}

fn sysctl_settings_cannot_be_written(t: &mut Test) -> Outcome {
    tree(t)?;
    let attempts = [
        write("/proc/sys/kernel/core_pattern"),
        write("/proc/sys/kernel/modprobe"),
        write("/proc/sys/fs/file-max"),
        write("/proc/sysrq-trigger"),
    ];
    check::control(&attempts)?;
    check::refused(t, &almighty(t)?, &["read /proc/sys/kernel/core_pattern".to_owned()], &attempts)
}

fn names_in_bpffs_cannot_be_made_or_removed(t: &mut Test) -> Outcome {
    tree(t)?;
    let (new, old, link) = ("/sys/fs/bpf/probe-new", "/sys/fs/bpf/probe-old", "/sys/fs/bpf/probe-link");
    let lay = || -> Outcome {
        let _ = (fs::remove_dir(new), fs::remove_dir(old), fs::remove_file(link));
        fs::create_dir(old)?;
        Ok(symlink("/nowhere", link)?)
    };
    let attempts = [
        Attempt::new(format!("mkdir {new}"), Denial::floor("mkdir").on(new)),
        Attempt::new(format!("rmdir {old}"), Denial::floor("rmdir").on(old)),
        Attempt::new(format!("unlink {link}"), Denial::floor("unlink").on(link)),
    ];
    lay()?;
    check::control(&attempts)?;
    lay()?;
    let outcome = check::refused(t, &almighty(t)?, &[], &attempts);
    let left = (exists(new), exists(old), exists(link));
    let _ = (fs::remove_dir(new), fs::remove_dir(old), fs::remove_file(link));
    outcome?;
    ensure!(left == (false, true, true), "made or removed although refused");
    Ok(())
}

/// Under a policy that says nothing about bpffs: should this fail, enforcement would end.
fn the_pins_cannot_be_removed(t: &mut Test) -> Outcome {
    tree(t)?;
    // Programs for rare system calls are pinned elsewhere until they are attached, some time after a start.
    super::evidence::watched()?;
    let mut pins: Vec<String> = Vec::new();
    let mut waiting = vec![std::path::PathBuf::from("/sys/fs/bpf/enforcer")];
    while let Some(path) = waiting.pop() {
        if path.is_dir() {
            waiting.extend(fs::read_dir(&path)?.flatten().map(|entry| entry.path()));
        } else {
            pins.push(path.display().to_string());
        }
    }
    ensure!(pins.len() > 10, "only {} pins", pins.len());
    let attempts: Vec<Attempt> = pins
        .iter()
        .take(40)
        .map(|pin| Attempt::new(format!("unlink {pin}"), Denial::floor("unlink").on(pin)).not_outside())
        .collect();
    check::refused(t, &t.agent(t.policy().allow("all", &t.at("open/**")))?, &[], &attempts)?;
    ensure!(pins.iter().all(|pin| exists(pin)), "a pin is gone");
    Ok(())
}

const UNIT: &str = "/usr/lib/systemd/system/enforcer.service";

fn the_daemons_files_are_denied_to_who_may_do_everything(t: &mut Test) -> Outcome {
    tree(t)?;
    let files = ["/etc/enforcer/enforcer.toml", "/var/lib/enforcer/audit/events.jsonl", UNIT];
    let attempts: Vec<Attempt> = files
        .iter()
        .map(|path| {
            Attempt::new(
                format!("append {path}"),
                Denial::by_rule("open", "floor@1").on(path).asking("write"),
            )
            .not_outside()
        })
        .collect();
    check::refused(t, &almighty(t)?, &["read /usr/bin/enforcer".to_owned()], &attempts)
}
