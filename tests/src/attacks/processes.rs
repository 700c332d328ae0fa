//! Other people's processes.

use super::{Attack, almighty, refused};
use crate::{
    cases,
    command::{Command, survives},
    ensure,
    harness::{Outcome, Test, outside_all},
    promise::{self, Attempt, Denial},
};
use std::process::Child;

cases!(attack_processes:
    no_group_and_no_owner_of_signals_is_an_outsider,
    no_call_looks_into_an_outsider_or_changes_it,
);

/// A process outside every agent, in a group of its own, which sleeps until this value goes.
struct Victim(Child);

impl Victim {
    fn new() -> Outcome<Self> {
        Ok(Self(Command::new("/usr/bin/setsid").args(["/usr/bin/sleep", "1000"]).spawn()?))
    }

    fn lives(&mut self) -> Outcome<bool> {
        Ok(survives(&mut self.0)?)
    }
}

impl Drop for Victim {
    fn drop(&mut self) {
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}

fn no_group_and_no_owner_of_signals_is_an_outsider(t: &mut Test) -> Outcome {
    let mut victim = Victim::new()?;
    let pid = victim.0.id();
    // `setsid` makes the group a moment after it was started.
    crate::command::wait_for("the victim's group", 120, || {
        (outside_all(&[format!("kill-group {pid}")]).ok()? == ["ok"]).then_some(())
    })?;
    let signal = |act: String| Attempt::new(act, Denial::floor("signal"));
    let owner = |act: &str| Attempt::new(format!("{act} {pid}"), Denial::floor("signal-owner|ioctl"));
    let mut attempts = vec![
        signal(format!("kill-group {pid}")),
        signal(format!("thread-queue {pid} 18")),
        owner("own-signals"),
        owner("own-signals-ioctl"),
        owner("own-signals-group"),
    ];
    promise::control(&attempts)?;
    attempts.push(signal(format!("kill-group {pid} 9")));
    attempts.push(signal(format!("thread-queue {pid} 9")));
    promise::refused(t, &t.agent(almighty(t)?)?, &["kill-self".to_owned()], &attempts)?;
    ensure!(victim.lives()?, "the outsider was killed");
    // Nobody is told that a signal to everybody reached nobody: whether it arrived is what counts.
    let (mut control, agent) = (Victim::new()?, t.agent(almighty(t)?)?);
    agent.probe(&["kill-everybody 9".to_owned()])?;
    ensure!(victim.lives()? && control.lives()?, "an outsider was killed");
    Ok(())
}

fn no_call_looks_into_an_outsider_or_changes_it(t: &mut Test) -> Outcome {
    let mut victim = Victim::new()?;
    let pid = victim.0.id();
    let reads = [
        "auxv",
        "syscall",
        "stack",
        "pagemap",
        "io",
        "smaps",
        "numa_maps",
        "fd/0",
        "exe",
        "cwd/etc/hostname",
        "personality",
    ];
    let writes =
        ["oom_score_adj", "coredump_filter", "clear_refs", "timerslack_ns", "sched", "autogroup", "comm"];
    let acts: Vec<String> = reads
        .iter()
        .map(|file| format!("proc-read {pid} {file}"))
        .chain(writes.iter().map(|file| format!("proc-write {pid} {file}")))
        .chain([format!("robust-list {pid}"), format!("migrate-pages {pid}")])
        .chain([format!("set-attr-schedule {pid}"), format!("set-parameter-schedule {pid}")])
        .collect();
    let outside = outside_all(&acts)?;
    let agent = t.agent(almighty(t)?)?;
    let marker = promise::marker(t)?;
    let inside = agent.probe(&[acts.clone(), vec![format!("read {marker}")]].concat())?;
    let mut wrong = Vec::new();
    let mut tried = 0;
    for ((act, before), line) in acts.iter().zip(&outside).zip(&inside.lines) {
        // A file that this kernel does not have refuses nothing.
        if before == "ENOENT" || before == "EINVAL" {
            continue;
        }
        tried += 1;
        if before != "ok" || !["EPERM", "EACCES"].contains(&line.as_str()) {
            wrong.push(format!("{act}: {line}, and {before} outside"));
        }
    }
    ensure!(wrong.is_empty() && tried >= 16, "{tried} tried\n{}", wrong.join("\n"));
    let records = crate::events::acts_until_marker(inside.mark, &inside.id, &marker, tried)?;
    let shown: Vec<String> = records.iter().map(crate::events::shown).collect();
    // A path that leads through a link of another process asks at each step, so one attempt can leave two.
    ensure!(records.len() >= tried, "{} records of {tried} attempts:\n{}", records.len(), shown.join("\n"));
    ensure!(victim.lives()?, "the outsider has ended");
    Ok(())
}

const SIGNAL: &str = "tasks::no_signal_reaches_an_outsider";
const TRACE: &str = "tasks::no_outsider_is_traced_or_read";
const GIVES: &str = "tasks::a_descriptor_of_an_outsider_gives_nothing";
const PROC: &str = "tasks::nothing_of_an_outsider_in_proc_can_be_opened";
const LIMIT: &str = "tasks::no_limit_or_priority_of_an_outsider_changes";
const GROUP: &str = "attack_processes::no_group_and_no_owner_of_signals_is_an_outsider";
const LOOK: &str = "attack_processes::no_call_looks_into_an_outsider_or_changes_it";

#[rustfmt::skip]
pub const ATTACKS: &[Attack] = &[
    refused("P01", "`kill`", "task_kill", SIGNAL, "kill"),
    refused("P02", "`tgkill`", "task_kill", SIGNAL, "tgkill"),
    refused("P03", "`tkill`", "task_kill", SIGNAL, "tkill"),
    refused("P04", "`rt_sigqueueinfo`", "task_kill", SIGNAL, "sigqueue"),
    refused("P05", "`rt_tgsigqueueinfo`", "task_kill", GROUP, "thread-queue"),
    refused("P06", "`pidfd_send_signal`", "task_kill; file_open of newer descriptors", GIVES, "pidfd-kill"),
    refused("P07", "a signal to a process group", "task_kill", GROUP, "kill-group"),
    refused("P08", "a signal to everybody", "task_kill", GROUP, "kill-everybody"),
    refused("P09", "a signal by which a pipe says that it has data", "file_fcntl", "tasks::no_signal_of_a_pipe_reaches_an_outsider", "sigio"),
    refused("P10", "an outsider as a descriptor's owner (`F_SETOWN`)", "file_fcntl", GROUP, "own-signals"),
    refused("P11", "the same by `F_SETOWN_EX`", "file_fcntl", GROUP, "own-signals-group"),
    refused("P12", "the same by `FIOSETOWN`", "file_ioctl", GROUP, "own-signals-ioctl"),
    refused("P13", "`PTRACE_ATTACH`", "ptrace_access_check", TRACE, "ptrace-attach"),
    refused("P14", "`PTRACE_SEIZE`", "ptrace_access_check", TRACE, "ptrace-seize"),
    refused("P15", "`process_vm_readv`", "ptrace_access_check", TRACE, "process-vm-readv"),
    refused("P16", "`process_vm_writev`", "ptrace_access_check", TRACE, "process-vm-writev"),
    refused("P17", "`kcmp`", "ptrace_access_check", TRACE, "kcmp"),
    refused("P18", "`move_pages`", "ptrace_access_check", TRACE, "move-pages"),
    refused("P19", "`migrate_pages`", "ptrace_access_check", LOOK, "migrate-pages"),
    refused("P20", "`get_robust_list`", "ptrace_access_check", LOOK, "robust-list"),
    refused("P21", "`process_madvise`", "ptrace_access_check", GIVES, "process-madvise"),
    refused("P22", "`/proc/PID/mem` for reading", "file_open", PROC, "proc-mem"),
    refused("P23", "`/proc/PID/mem` for writing", "file_open", PROC, "proc-mem-write"),
    refused("P24", "`/proc/PID/environ`", "file_open", PROC, "proc-environ"),
    refused("P25", "`/proc/PID/maps`", "file_open", PROC, "proc-maps"),
    refused("P26", "`/proc/PID/root`", "ptrace_access_check", PROC, "proc-root"),
    refused("P27", "`/proc/PID/auxv`, `syscall`, `stack`, `pagemap`, `io`, `smaps`", "file_open", LOOK, "auxv"),
    refused("P28", "an outsider's descriptors, program and directory through `/proc/PID/fd`, `exe`, `cwd`", "ptrace_access_check", LOOK, "fd/0"),
    refused("P29", "`/proc/PID/oom_score_adj`", "file_open", LOOK, "oom_score_adj"),
    refused("P30", "other files of `/proc/PID` that change it", "file_open", LOOK, "coredump_filter"),
    refused("P31", "`prlimit`", "task_setrlimit", LIMIT, "prlimit"),
    refused("P32", "`sched_setaffinity`", "task_setscheduler", LIMIT, "affinity"),
    refused("P33", "`sched_setscheduler`", "task_setscheduler", LIMIT, "scheduler"),
    refused("P34", "`sched_setattr`", "task_setscheduler", LOOK, "set-attr-schedule"),
    refused("P35", "`sched_setparam`", "task_setscheduler", LOOK, "set-parameter-schedule"),
    refused("P36", "`setpriority`", "task_setnice", LIMIT, "priority"),
    refused("P37", "`ioprio_set`", "task_setioprio", LIMIT, "io-priority"),
    refused("P38", "an outsider's mount namespace by its descriptor", "ptrace_access_check, capable", GIVES, "setns-pidfd"),
    refused("P39", "keys of the user's other processes", "key_permission", "tasks::no_key_of_others_is_read", "keyctl-describe"),
    refused("P40", "counting what an outsider does (`perf_event_open`)", "perf_event_open, capable", "floor::no_kernel_programs_and_no_counters", "perf-event 1"),
];
