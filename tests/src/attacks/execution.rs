//! Running what may not run.

use super::{Attack, refused};
use crate::{
    agent::PROBE,
    cases, ensure,
    harness::{Outcome, Test, exists, outside_all},
    promise::{self, Attempt, Denial},
};
use std::fs;

cases!(attack_execution:
    nothing_is_mapped_executable_by_a_detour,
    a_program_that_crashes_leaves_no_core,
);

const TRUE: &str = "/usr/bin/true";

fn nothing_is_mapped_executable_by_a_detour(t: &mut Test) -> Outcome {
    let (work, file) = (t.dir("work")?, t.file("work/file")?);
    let library = fs::canonicalize("/lib/x86_64-linux-gnu/libm.so.6")?.display().to_string();
    let map =
        |act: &str| Attempt::new(format!("{act} {file}"), Denial::no_rule("map").on(&file).asking("load"));
    let attempts = [
        map("map-implied-exec"),
        map("mprotect-key-exec"),
        Attempt::new(
            format!("memfd-map-exec {library}"),
            Denial::because("map", "unknown-object").flagged("foreign"),
        ),
        Attempt::new(format!("exec-deleted {TRUE} {work}"), Denial::no_rule("exec").asking("exec")),
    ];
    promise::control(&attempts)?;
    let policy =
        t.policy().exec(TRUE).allow("read, write, create, delete, list, metadata", &format!("{work}/**"));
    let agent = t.agent(policy)?;
    let twins = [
        format!("map-implied-exec {library}"),
        format!("mprotect-key-exec {library}"),
        format!("exec {TRUE}"),
    ];
    promise::refused(t, &agent, &twins, &attempts)
}

/// A setting that goes back to what it was.
struct Setting(&'static str, String);

impl Setting {
    fn new(path: &'static str, value: &str) -> Outcome<Self> {
        let before = fs::read_to_string(path)?;
        fs::write(path, value)?;
        Ok(Self(path, before))
    }
}

impl Drop for Setting {
    fn drop(&mut self) {
        let _ = fs::write(self.0, self.1.trim_end());
    }
}

/// The kernel writes a core in the name of who dies.
fn a_program_that_crashes_leaves_no_core(t: &mut Test) -> Outcome {
    let _pattern = Setting::new("/proc/sys/kernel/core_pattern", "core")?;
    let _plain = Setting::new("/proc/sys/kernel/core_uses_pid", "0")?;
    let lay = || -> Outcome {
        t.fresh()?;
        t.dir("open")?;
        t.dir("shut")?;
        promise::marker(t)?;
        Ok(())
    };
    lay()?;
    let (open, shut) = (format!("core-dump {}", t.at("open")), format!("core-dump {}", t.at("shut")));
    let outside = outside_all(std::slice::from_ref(&shut))?;
    ensure!(outside == ["ok"] && exists(&t.at("shut/core")), "outside: {outside:?}");
    lay()?;
    // Sessions get a limit that they cannot raise, so that no handler of cores runs outside because of them. That holds
    // where they may create files, too. Who dies is not told why there is no core.
    let denial = || Denial::floor("capability").argument("cap_sys_resource");
    let attempts = [shut, open].map(|act| Attempt::new(act, denial()).errno("EBADE").exe(PROBE));
    let agent = t.agent(t.policy().allow("all", &t.at("open/**")))?;
    promise::refused(t, &agent, &[format!("write {}", t.file("open/f")?)], &attempts)?;
    ensure!(!exists(&t.at("shut/core")) && !exists(&t.at("open/core")), "there is a core");
    Ok(())
}

const RUN: &str = "execution::running_a_program_needs_a_rule";
const LINKER: &str = "execution::the_dynamic_linker_runs_nothing_that_may_not_run";
const REGISTERED: &str = "execution::a_registered_interpreter_needs_a_rule_too";
const DETOUR: &str = "attack_execution::nothing_is_mapped_executable_by_a_detour";

#[rustfmt::skip]
pub const ATTACKS: &[Attack] = &[
    refused("X01", "a program that no rule names", "bprm_check_security", RUN, "exec"),
    refused("X02", "`execveat` of an `O_PATH` descriptor", "bprm_check_security", RUN, "execveat-fd"),
    refused("X03", "its name in `/proc/self/fd`", "bprm_check_security", RUN, "exec-proc-fd"),
    refused("X04", "a symbolic link with an allowed name", "bprm_check_security", "execution::a_symbolic_link_runs_what_it_leads_to", "exec"),
    refused("X05", "a script without a rule of its own", "bprm_check_security", "execution::a_script_needs_a_rule_for_itself_and_for_its_interpreter", "exec {other}"),
    refused("X06", "a script whose interpreter may not run", "bprm_check_security", "execution::a_script_needs_a_rule_for_itself_and_for_its_interpreter", "exec {script}"),
    refused("X07", "a copy of an allowed program", "bprm_check_security", "execution::a_copied_program_does_not_run", "exec {copy}"),
    refused("X08", "a program in memory (`memfd_create`)", "bprm_check_security", "execution::a_program_in_memory_does_not_run", "memfd-exec"),
    refused("X09", "a copy that has lost its name", "bprm_check_security", DETOUR, "exec-deleted"),
    refused("X10", "the dynamic linker with a program as its argument", "bprm_check_security, mmap_file", LINKER, "exec {linker} {copy}"),
    refused("X11", "mapping a file executable", "mmap_file", "execution::mapping_a_file_executable_needs_a_rule", "map-exec"),
    refused("X12", "making a mapping executable later", "file_mprotect", "execution::mapping_a_file_executable_needs_a_rule", "mprotect-exec"),
    refused("X13", "the same by `pkey_mprotect`", "file_mprotect", DETOUR, "mprotect-key-exec"),
    refused("X14", "a personality by which readable is executable", "mmap_file", DETOUR, "map-implied-exec"),
    refused("X15", "mapping a memory file executable", "mmap_file", DETOUR, "memfd-map-exec"),
    refused("X16", "`LD_PRELOAD` of a library that may not be loaded", "mmap_file", "execution::a_preloaded_library_needs_a_rule", "preload"),
    refused("X17", "an allowed program that has a denied name too", "bprm_check_security", "links::what_runs_under_one_name_does_not_run_if_another_is_denied", "exec"),
    refused("X18", "arguments that a rule denies", "bprm_check_security, sched_process_exec", "arguments::arguments_decide_what_a_program_is_run_with", "exec {TOUCH} -c {w}/bad"),
    refused("X19", "arguments of a script, in front of its interpreter's", "sched_process_exec", "arguments::a_script_is_judged_by_its_own_arguments", "exec"),
    refused("X20", "letting a program go that waits for its verdict", "task_kill", "arguments::a_program_that_waits_is_out_of_reach", "stopped-cont"),
    refused("X21", "tracing a program that waits", "ptrace_access_check", "arguments::a_program_that_waits_is_out_of_reach", "stopped-trace"),
    refused("X22", "writing to the memory of a program that waits", "ptrace_access_check, file_open", "arguments::a_program_that_waits_is_out_of_reach", "stopped-memory"),
    refused("X23", "executing while being traced, where arguments are judged", "sched_process_exec", "arguments::a_program_that_waits_is_out_of_reach", "traced-exec"),
    refused("X24", "having the kernel write a core, or run what is named for cores", "capable; a limit set at launch", "attack_execution::a_program_that_crashes_leaves_no_core", "core-dump"),
    refused("X28", "passing itself off as another program (`PR_SET_MM`), also where `sys_resource` is granted", "capable", "grants::no_process_passes_itself_off_as_another", "set-stack"),
    refused("X29", "a script whose interpreter is a script that may not run", "bprm_check_security", "execution::a_script_needs_a_rule_for_itself_and_for_its_interpreter", "exec {detour}"),
    refused("X30", "a file of a kind that somebody registered (`binfmt_misc`), whose interpreter may not run", "bprm_check_security", REGISTERED, "exec {file}"),
    refused("X31", "the same with an interpreter that was opened when it was registered", "bprm_check_security", REGISTERED, "probefixed"),
    refused("X32", "a file of such a kind without a rule of its own", "bprm_check_security", REGISTERED, "exec {unnamed}"),
    super::open("X25", "code on standard input or in the arguments of an allowed interpreter", "Code on standard input"),
    super::open("X26", "anonymous executable memory", "Anonymous executable memory"),
    super::open("X27", "files that somebody else executes later", "Files that humans or daemons execute later"),
    super::open("X33", "the content of a program that may be executed and not read", "A program that may be executed and not read"),
];
