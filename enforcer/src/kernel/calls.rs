//! Programs at the end of rare system calls. A layer of its own, which decides nothing: a call that this kernel does not
//! let be watched is named in the status and stops nobody.

use super::{
    btf::Btf,
    load::{Loaded, chain},
    pins::make_private,
};
use crate::daemon::enforcement::{Hook, SYSTEM_CALLS, StartError};
use aya::{
    Btf as AyaBtf, Ebpf,
    maps::Array,
    maps::ProgramArray,
    programs::{FExit, ProgramError, links::FdLink},
};
use enforcer_common::{
    calls::{CALLS, Call, NARROW, NONE, entry},
    floor::Grants,
};
use std::{
    collections::{BTreeMap, HashSet},
    path::Path,
};

/// Where the links are pinned, among those of a generation.
const PINS: &str = "system-calls";
/// The tables of what the programs go on in: the kernel empties one when nobody but programs refers to it.
const PROGRAMS: &str = "programs-";
/// What they go on in.
const SHARED: &str = "call_over";

/// The end of a call, where this kernel has the call.
#[derive(Clone, Copy, Debug)]
pub struct Watched {
    call: &'static Call,
    program: &'static str,
    function: &'static str,
    /// What the kernel says that its parameters are.
    prototype: Option<u32>,
}

/// What this kernel has of the list. `symbols` is the text of /proc/kallsyms.
pub fn find(btf: &Btf<'_>, symbols: &str) -> Vec<Watched> {
    let known: HashSet<&str> = symbols.lines().filter_map(own_function).collect();
    let is_there = |function: &str| {
        // Without the list, what the kernel does not describe counts as absent.
        if known.is_empty() { btf.function(function).is_some() } else { known.contains(function) }
    };
    let ends = CALLS.iter().flat_map(|call| {
        [call.wide_program, call.narrow_program].map(|(program, function)| Watched {
            call,
            program,
            function,
            prototype: btf.prototype(function),
        })
    });
    ends.filter(|end| !end.function.is_empty() && is_there(end.function)).collect()
}

/// The name of a system call's function in a line of /proc/kallsyms. A weak one only says that the kernel was built
/// without the call (`COND_SYSCALL`, arch/x86/include/asm/syscall_wrapper.h).
fn own_function(line: &str) -> Option<&str> {
    let (kind, name) = line.split_once(' ')?.1.split_once(' ')?;
    let function = name.starts_with("__x64_sys_") || name.starts_with("__ia32_");
    (function && !kind.eq_ignore_ascii_case("w")).then_some(name)
}

/// Loads and attaches what can be, and pins the links. What cannot be is missing from [`health`].
///
/// A table of programs takes only programs of functions with the same parameters, their names included, which differ
/// where the kernel can be built without the call (`bpf_prog_map_compatible()`, kernel/bpf/core.c): so each kind of
/// function has its own copy of the object, with its own table.
pub fn attach(
    btf: &AyaBtf,
    links: &Path,
    watched: &[Watched],
    open: impl Fn() -> Result<Ebpf, StartError>,
) -> Vec<Loaded> {
    let mut kinds: BTreeMap<Option<u32>, Vec<&Watched>> = BTreeMap::new();
    for end in watched {
        kinds.entry(end.prototype).or_default().push(end);
    }
    let mut loaded = Vec::new();
    for (number, ends) in kinds.into_values().enumerate() {
        let prepared = open().map_err(|e| e.to_string()).and_then(|mut ebpf| {
            loaded.push(prepare(&mut ebpf, btf, links, number, ends[0])?);
            Ok(ebpf)
        });
        let mut ebpf = match prepared {
            Ok(ebpf) => ebpf,
            Err(problem) => {
                let names: Vec<&str> = ends.iter().map(|end| end.function).collect();
                tracing::error!(problem, "{} leave no records", names.join(" "));
                continue;
            }
        };
        for end in ends {
            match attach_one(&mut ebpf, btf, links, end) {
                Ok(figures) => loaded.push(figures),
                Err(problem) => tracing::error!(problem, "{} leaves no records", end.function),
            }
        }
    }
    loaded
}

/// Fills the tables and loads what all programs of one kind of function go on in.
fn prepare(
    ebpf: &mut Ebpf,
    btf: &AyaBtf,
    links: &Path,
    number: usize,
    first: &Watched,
) -> Result<Loaded, String> {
    let told = |e: &dyn std::error::Error| chain(e);
    let directory = links.join(PINS);
    make_private(&directory).map_err(|e| e.to_string())?;
    let program: &mut FExit = program(ebpf, SHARED)?.try_into().map_err(|e: ProgramError| told(&e))?;
    program.load(first.function, btf).map_err(|e| super::load::not_loaded(SHARED, &e).to_string())?;
    let figures = figures(SHARED, program)?;
    let descriptor =
        program.fd().map_err(|e| told(&e))?.try_clone().map_err(|e: std::io::Error| e.to_string())?;
    let map = ebpf.map_mut("CALLS").ok_or("the object has no table of calls")?;
    let mut table = Array::<_, u32>::try_from(map).map_err(|e| told(&e))?;
    for (place, call) in CALLS.iter().enumerate() {
        let narrow = (call.narrow != NONE).then(|| call.narrow + NARROW);
        for at in [Some(call.number), narrow].into_iter().flatten() {
            table.set(at, entry(place, call), 0).map_err(|e| told(&e))?;
        }
    }
    let map = ebpf.map_mut("CALL_PROGRAMS").ok_or("the object has no table of programs")?;
    map.pin(directory.join(format!("{PROGRAMS}{number}"))).map_err(|e| told(&e))?;
    let mut table = ProgramArray::try_from(map).map_err(|e| told(&e))?;
    table.set(0, &descriptor, 0).map_err(|e| told(&e))?;
    Ok(figures)
}

fn attach_one(ebpf: &mut Ebpf, btf: &AyaBtf, links: &Path, end: &Watched) -> Result<Loaded, String> {
    let told = |e: ProgramError| chain(&e);
    let program: &mut FExit = program(ebpf, end.program)?.try_into().map_err(told)?;
    program.load(end.function, btf).map_err(told)?;
    let figures = figures(end.program, program)?;
    let id = program.attach().map_err(told)?;
    let link: FdLink = program.take_link(id).map_err(told)?.into();
    let at = links.join(PINS).join(end.program);
    link.pin(&at).map_err(|e| format!("cannot pin {}: {}", at.display(), chain(&e)))?;
    Ok(figures)
}

fn program<'a>(ebpf: &'a mut Ebpf, name: &str) -> Result<&'a mut aya::programs::Program, String> {
    ebpf.program_mut(name).ok_or_else(|| format!("the object has no program {name}"))
}

fn figures(name: &'static str, program: &FExit) -> Result<Loaded, String> {
    let info = program.info().map_err(|e| chain(&e))?;
    Ok(Loaded {
        program: name,
        verified: info.verified_instruction_count(),
        machine_code: info.size_jitted(),
    })
}

/// The ends of calls that are not watched, or not any more.
pub fn missing<'a>(links: &'a Path, watched: &'a [Watched]) -> impl Iterator<Item = &'a Watched> {
    watched.iter().filter(|end| !links.join(PINS).join(end.program).exists())
}

/// One entry for each call that this kernel has.
pub fn health(links: &Path, watched: &[Watched], active: bool) -> Vec<Hook> {
    let missing: HashSet<&str> = missing(links, watched).map(|end| end.program).collect();
    let one = |call: &&Call| {
        let ends: Vec<&Watched> = watched.iter().filter(|end| end.call.number == call.number).collect();
        if ends.is_empty() {
            return None;
        }
        let absent: Vec<&str> =
            ends.iter().filter(|end| missing.contains(end.program)).map(|end| end.function).collect();
        let note = match (absent.is_empty(), active) {
            (true, true) => String::new(),
            (true, false) => "another generation decides".to_owned(),
            (false, _) => format!("{} is not watched; the daemon's log says why", absent.join(" ")),
        };
        let attached = absent.is_empty() && active;
        Some(Hook { name: format!("{SYSTEM_CALLS}{}", call.name), required: false, attached, note })
    };
    CALLS.iter().collect::<Vec<_>>().iter().filter_map(one).collect()
}

/// What a policy asks for and these programs cannot do.
pub fn undoable(links: &Path, watched: &[Watched], grants: Grants) -> Option<String> {
    let acts = grants.calls.stopped | grants.calls.killed;
    if acts == 0 {
        return None;
    }
    let wanted = |end: &&Watched| {
        CALLS
            .iter()
            .position(|call| call.number == end.call.number)
            .is_some_and(|place| acts >> place & 1 != 0)
    };
    missing(links, watched).find(wanted).map(|end| {
        format!(
            "`system_calls`: nothing can be done about `{}`, because {} is not watched on this kernel",
            end.call.name, end.function
        )
    })
}

#[cfg(test)]
mod tests {
    use super::own_function;

    #[test]
    fn a_call_that_the_kernel_was_built_without_is_not_there() {
        for (line, expected) in [
            ("ffffffff81000010 T __x64_sys_setns", Some("__x64_sys_setns")),
            ("0000000000000000 t __ia32_compat_sys_ptrace", Some("__ia32_compat_sys_ptrace")),
            ("ffffffff81000010 W __x64_sys_userfaultfd", None),
            ("ffffffff81000010 T security_file_open", None),
            ("", None),
        ] {
            assert_eq!(own_function(line), expected, "{line}");
        }
    }
}
