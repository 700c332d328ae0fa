//! Running programs, and making memory executable.

use super::promise;
use crate::{
    agent::PROBE,
    cases,
    command::Command,
    ensure,
    harness::{Outcome, Test},
    promise::{self as check, Attempt, Denial},
};
use std::{
    fs,
    os::unix::fs::{PermissionsExt, symlink},
};

cases!(execution:
    running_a_program_needs_a_rule,
    a_symbolic_link_runs_what_it_leads_to,
    a_script_needs_a_rule_for_itself_and_for_its_interpreter,
    a_registered_interpreter_needs_a_rule_too,
    a_copied_program_does_not_run,
    a_program_in_memory_does_not_run,
    the_dynamic_linker_runs_nothing_that_may_not_run,
    mapping_a_file_executable_needs_a_rule,
    a_preloaded_library_needs_a_rule,
    a_program_that_may_not_be_read_may_still_run,
);

const TRUE: &str = "/usr/bin/true";
const FALSE: &str = "/usr/bin/id";

fn running_a_program_needs_a_rule(t: &mut Test) -> Outcome {
    let narrow = t.policy().exec(TRUE);
    let wide = narrow.next().exec(FALSE);
    let denial = || Denial::no_rule("exec").on(FALSE).asking("exec");
    let acts = ["exec", "execveat-fd", "exec-proc-fd"];
    let attempts = acts.map(|act| Attempt::new(format!("{act} {FALSE}"), denial()));
    let twins = acts.map(|act| format!("{act} {TRUE}"));
    promise(t, (narrow.exec_deny("/usr/bin/who*"), wide), (&twins, &attempts), || Ok(()))?;
    Ok(())
}

fn a_symbolic_link_runs_what_it_leads_to(t: &mut Test) -> Outcome {
    let (good, bad) = (t.at("good"), t.at("bad"));
    symlink(TRUE, &good)?;
    symlink(FALSE, &bad)?;
    let denial = Denial::no_rule("exec").on(FALSE).asking("exec");
    let attempts = [Attempt::new(format!("exec {bad}"), denial)];
    check::control(&attempts)?;
    // A rule for the link's own name means nothing.
    let agent = t.agent(t.policy().exec(TRUE).exec(&bad))?;
    check::refused(t, &agent, &[format!("exec {good}")], &attempts)
}

/// An executable file with this text.
fn program(t: &Test, name: &str, text: &[u8]) -> Outcome<String> {
    let path = t.file(name)?;
    fs::write(&path, text)?;
    fs::set_permissions(&path, fs::Permissions::from_mode(0o755))?;
    Ok(path)
}

fn a_script_needs_a_rule_for_itself_and_for_its_interpreter(t: &mut Test) -> Outcome {
    let script = program(t, "script", b"#!/bin/sh\nexit 0\n")?;
    let other = program(t, "other", b"#!/bin/sh\nexit 0\n")?;
    let shell = fs::canonicalize("/bin/sh")?.display().to_string();
    // Scripts can be interpreters of scripts, and each of them is executed.
    let chain = program(t, "chain", format!("#!{script}\n").as_bytes())?;
    let detour = program(t, "detour", format!("#!{other}\n").as_bytes())?;
    let denial = || Denial::no_rule("exec").on(&other).asking("exec");
    let attempts =
        [Attempt::new(format!("exec {other}"), denial()), Attempt::new(format!("exec {detour}"), denial())];
    check::control(&attempts)?;
    let both = t.policy().exec(&script).exec(&chain).exec(&detour).exec(&shell).allow("read", &script);
    let mut agent = t.agent(both)?;
    check::refused(t, &agent, &[format!("exec {script}"), format!("exec {chain}")], &attempts)?;
    agent.change(t.policy().exec(&script).allow("read", &script))?;
    let denial = Denial::no_rule("exec").on(&shell).asking("exec");
    check::refused(t, &agent, &[], &[Attempt::new(format!("exec {script}"), denial)])
}

const KINDS: &str = "/proc/sys/fs/binfmt_misc";

/// Kinds of programs that somebody registered, told by how their names end, until this goes.
struct Kinds(Vec<&'static str>);

impl Kinds {
    fn mount() -> Outcome<Self> {
        let ran = Command::new("mount").args(["-t", "binfmt_misc", "binfmt_misc", KINDS]).run()?;
        ensure!(ran.code == Some(0), "{ran}");
        Ok(Self(Vec::new()))
    }

    fn register(&mut self, name: &'static str, interpreter: &str, flags: &str) -> Outcome {
        fs::write(format!("{KINDS}/register"), format!(":{name}:E::{name}::{interpreter}:{flags}"))?;
        self.0.push(name);
        Ok(())
    }
}

impl Drop for Kinds {
    fn drop(&mut self) {
        self.0.iter().for_each(|name| drop(fs::write(format!("{KINDS}/{name}"), "-1")));
        let _ = Command::new("umount").args([KINDS]).run();
    }
}

fn a_registered_interpreter_needs_a_rule_too(t: &mut Test) -> Outcome {
    let other = program(t, "interpreters/other", &fs::read(TRUE)?)?;
    let mut kinds = Kinds::mount()?;
    kinds.register("probegood", TRUE, "")?;
    kinds.register("probebad", &other, "")?;
    // Opened when it was registered, so that no name is looked up when it is used.
    kinds.register("probefixed", &other, "F")?;
    // Handed the program as a descriptor.
    kinds.register("probeopen", &other, "O")?;
    let files = ["good", "bad", "fixed", "open"].map(|kind| format!("work/a.probe{kind}"));
    let [good, bad, fixed, open] = files.each_ref().map(|name| program(t, name, b"nothing that runs"));
    let (good, bad, fixed, open) = (good?, bad?, fixed?, open?);
    let denial = || Denial::no_rule("exec").on(&other).asking("exec");
    let mut attempts: Vec<Attempt> =
        [&bad, &fixed, &open].map(|file| Attempt::new(format!("exec {file}"), denial())).into();
    let unnamed = program(t, "shut/a.probegood", b"nothing that runs")?;
    attempts
        .push(Attempt::new(format!("exec {unnamed}"), Denial::no_rule("exec").on(&unnamed).asking("exec")));
    check::control(&attempts)?;
    let agent = t.agent(t.policy().exec(TRUE).exec(&t.at("work/*")).allow("read", &t.at("work/**")))?;
    check::refused(t, &agent, &[format!("exec {good}")], &attempts)
}

fn a_copied_program_does_not_run(t: &mut Test) -> Outcome {
    let copy = program(t, "work/copy", &fs::read(TRUE)?)?;
    let work = t.at("work/**");
    let attempts = [Attempt::new(format!("exec {copy}"), Denial::no_rule("exec").on(&copy).asking("exec"))];
    check::control(&attempts)?;
    let file_rights = "read, write, create, delete, rename, link, metadata, list";
    let agent = t.agent(t.policy().exec(TRUE).allow(file_rights, &work))?;
    let moved = [
        format!("exec {TRUE}"),
        format!("copy-file-range {TRUE} {}", t.at("work/inside")),
        format!("chmod {copy}"),
    ];
    check::refused(t, &agent, &moved[..2], &attempts)
}

fn a_program_in_memory_does_not_run(t: &mut Test) -> Outcome {
    let attempts = [Attempt::new(
        format!("memfd-exec {TRUE}"),
        Denial::because("exec", "unknown-object").flagged("foreign"),
    )];
    check::control(&attempts)?;
    let agent = t.agent(t.policy().exec("/usr/bin/*").exec("/**"))?;
    check::refused(t, &agent, &[format!("exec {TRUE}")], &attempts)
}

fn the_dynamic_linker_runs_nothing_that_may_not_run(t: &mut Test) -> Outcome {
    let linker = fs::canonicalize("/lib64/ld-linux-x86-64.so.2")?.display().to_string();
    let copy = program(t, "work/copy", &fs::read(TRUE)?)?;
    let attempts = [
        // The linker is no program by itself.
        Attempt::new(format!("exec {linker} {copy}"), Denial::no_rule("exec").on(&linker).asking("exec")),
    ];
    check::control(&attempts)?;
    let base = t.policy().exec(TRUE).allow("read, write", &t.at("work/**"));
    let mut agent = t.agent(base.clone())?;
    check::refused(t, &agent, &[format!("exec {TRUE}")], &attempts)?;
    // Where it may run, it still maps nothing that may not.
    agent.change(base.next().exec(&linker))?;
    let marker = check::marker(t)?;
    let acts = [format!("exec {linker} {TRUE}"), format!("exec {linker} {copy}"), format!("read {marker}")];
    let session = agent.probe(&acts)?;
    ensure!(session.lines.first().is_some_and(|line| line == "ok"), "{TRUE}: {:?}", session.lines);
    ensure!(session.lines.get(1).is_some_and(|line| line != "ok"), "the copy ran: {:?}", session.lines);
    let records = crate::events::until_marker(session.mark, &session.id, &marker)?;
    let faults = match &records[..] {
        [one] => Denial::no_rule("map").on(&copy).asking("load").faults(one, &agent),
        _ => vec![format!(
            "{} records instead of one: {:?}",
            records.len(),
            records.iter().map(crate::events::shown).collect::<Vec<_>>()
        )],
    };
    ensure!(faults.is_empty(), "{}", faults.join("\n"));
    Ok(())
}

fn mapping_a_file_executable_needs_a_rule(t: &mut Test) -> Outcome {
    let (open, shut) = (t.at("open"), t.at("shut"));
    let narrow = t.policy().allow("read", &format!("{shut}/**")).allow("read, load", &format!("{open}/**"));
    let wide = narrow.next().allow("load", &format!("{shut}/**"));
    let file = format!("{shut}/f1");
    let denial = || Denial::no_rule("map").on(&file).asking("load");
    let acts = ["map-exec", "mprotect-exec"];
    let attempts = acts.map(|act| Attempt::new(format!("{act} {file}"), denial()));
    let twins = acts.map(|act| format!("{act} {open}/f1"));
    promise(t, (narrow, wide), (&twins, &attempts), || Ok(()))?;
    Ok(())
}

fn a_preloaded_library_needs_a_rule(t: &mut Test) -> Outcome {
    let library = fs::canonicalize("/lib/x86_64-linux-gnu/libm.so.6")?;
    let copy = program(t, "work/library.so", &fs::read(&library)?)?;
    let agent = t.agent(t.policy().exec(TRUE).allow("read", &t.at("work/**")))?;
    let marker = check::marker(t)?;
    let acts = [
        format!("preload {} {TRUE}", library.display()),
        format!("preload {copy} {TRUE}"),
        format!("read {marker}"),
    ];
    let session = agent.probe(&acts)?;
    // The linker goes on without a library that it cannot map; what counts is that it was refused.
    ensure!(session.lines == ["ok", "ok", "EPERM"], "{:?}", session.lines);
    let records = crate::events::until_marker(session.mark, &session.id, &marker)?;
    let [one] = &records[..] else { crate::fail!("{} records instead of one", records.len()) };
    let faults = Denial::no_rule("map").on(&copy).asking("load").faults(one, &agent);
    ensure!(faults.is_empty() && one["exe"] == TRUE, "{}", faults.join("\n"));
    Ok(())
}

fn a_program_that_may_not_be_read_may_still_run(t: &mut Test) -> Outcome {
    let copy = program(t, "work/copy", &fs::read(PROBE)?)?;
    let agent = t.agent(t.policy().exec(&copy))?;
    let attempts = [Attempt::new(format!("read {copy}"), Denial::no_rule("open").on(&copy).asking("read"))];
    check::refused(t, &agent, &[format!("exec {copy} prctl-name")], &attempts)
}
