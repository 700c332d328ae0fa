//! Records of rare system calls: programs at the end of their functions. A layer of its own, which decides nothing: what
//! this kernel lacks or refuses is said in the status and stops nobody.

use super::{
    hooks::{EVIDENCE, HookProgram},
    load::{Loaded, chain, refused},
    pins::make_private,
};
use crate::daemon::enforcement::{Hook, SYSTEM_CALLS, StartError};
use aya::{
    Btf, Ebpf,
    programs::{FExit, ProgramError, links::FdLink},
};
use std::path::{Path, PathBuf};

/// Where the links are pinned, among those of a generation.
const PINS: &str = "system-calls";

/// Loads what this kernel has a function for, attaches it and pins the links.
pub(super) fn attach(
    ebpf: &mut Ebpf,
    btf: &Btf,
    links: &Path,
    has: &dyn Fn(&str) -> bool,
) -> Result<Vec<Loaded>, StartError> {
    let directory = links.join(PINS);
    make_private(&directory)?;
    let mut loaded = Vec::new();
    for wanted in EVIDENCE.iter().filter(|wanted| has(wanted.hook)) {
        match attach_one(ebpf, btf, wanted) {
            Ok((link, figures)) => {
                loaded.push(figures);
                let at = directory.join(wanted.program);
                link.pin(&at).map_err(|e| refused(format!("cannot pin {}: {}", at.display(), chain(&e))))?;
            }
            Err(problem) => tracing::warn!(problem, "no records of {}", wanted.hook),
        }
    }
    Ok(loaded)
}

fn attach_one(
    ebpf: &mut Ebpf,
    btf: &Btf,
    wanted: &HookProgram,
) -> Result<(FdLink, Loaded), String> {
    let told = |e: ProgramError| chain(&e);
    let program = ebpf.program_mut(wanted.program).ok_or("the object has no such program")?;
    let program: &mut FExit = program.try_into().map_err(told)?;
    program.load(wanted.hook, btf).map_err(told)?;
    let info = program.info().map_err(told)?;
    let figures = Loaded {
        program: wanted.program,
        verified: info.verified_instruction_count(),
        machine_code: info.size_jitted(),
    };
    let id = program.attach().map_err(told)?;
    Ok((program.take_link(id).map_err(told)?.into(), figures))
}

fn pin(links: &Path, program: &str) -> PathBuf {
    links.join(PINS).join(program)
}

/// One entry for each call.
pub(super) fn health(links: &Path, active: bool) -> impl Iterator<Item = Hook> {
    EVIDENCE.iter().map(move |wanted| {
        let attached = pin(links, wanted.program).exists() && active;
        let note = if attached { "" } else { "this kernel has no such function, or does not let it be watched" };
        let name = wanted.hook.trim_start_matches("__x64_sys_");
        Hook { name: format!("{SYSTEM_CALLS}{name}"), required: false, attached, note: note.to_owned() }
    })
}
