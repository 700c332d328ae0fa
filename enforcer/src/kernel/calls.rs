//! Programs at the end of rare system calls. A layer of its own, which decides nothing: a call that this kernel does not
//! let be watched is named in the status and stops nobody.
//!
//! Attaching takes the kernel long, since it changes its own code for each function and waits until no CPU runs the old
//! one. A start only loads the programs and pins them; they are attached one by one afterwards, by whichever daemon runs.
//!
//! A table of programs takes only programs of functions with the same parameters, their names included
//! (`bpf_prog_map_compatible()`, kernel/bpf/core.c). System calls are of two kinds there: those that a kernel can be built
//! without have a stand-in with another name for the registers.

use super::{
    health::program_of,
    load::{Loaded, Programs, chain, not_loaded},
    pins::make_private,
};
use crate::daemon::enforcement::{Hook, SYSTEM_CALLS};
use aya::{
    Btf as AyaBtf, Ebpf,
    maps::{Array, ProgramArray},
    programs::{FExit, ProgramError, links::FdLink},
};
use enforcer_common::{
    calls::{CALLS, CLONE, Call, NARROW, NONE, entry},
    floor::Grants,
};
use std::{
    collections::{BTreeMap, BTreeSet, HashSet},
    fs,
    path::{Path, PathBuf},
    time::{Duration, Instant},
};

/// Where the links are pinned, among those of a generation: by the name of the kernel's function. Where the kernel did
/// not let a function be watched, a directory stands instead, so that the next daemon need not try again.
const PINS: &str = "system-calls";
/// Where the programs are pinned until they are attached, by the name of the function.
const WAITING: &str = "system-calls-waiting";
/// For each kind of function the program at its end, and the table of what it goes on in, which is pinned among the links:
/// the kernel empties such a table when nobody but programs refers to it.
const KINDS: [(&str, &str); 2] = [("call_ends_0", "CALL_PROGRAM_0"), ("call_ends_1", "CALL_PROGRAM_1")];
/// What they go on in.
const SHARED: &str = "call_over";

/// A function at whose end a call is seen, where this kernel has the call.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Watched {
    call: &'static Call,
    function: String,
    /// What the kernel says that its parameters are.
    prototype: Option<u32>,
}

impl Watched {
    /// The function's name.
    pub fn function(&self) -> &[u8] {
        self.function.as_bytes()
    }

    fn link(&self, links: &Path) -> PathBuf {
        links.join(PINS).join(&self.function)
    }

    fn waiting(&self, links: &Path) -> PathBuf {
        links.join(WAITING).join(&self.function)
    }
}

/// What this kernel has of the list. `symbols` is the text of /proc/kallsyms.
pub fn find(symbols: &str, prototype: impl Fn(&str) -> Option<u32>) -> Vec<Watched> {
    let known: HashSet<&str> = symbols.lines().filter_map(own_function).collect();
    let mut found = Vec::new();
    // New tasks are seen by a hook.
    for call in CALLS.iter().filter(|call| call.number != CLONE) {
        let name = if call.name == "umount2" { "umount" } else { call.name };
        // Where both of the latter are there, the table of calls has the first
        // (arch/x86/entry/syscalls/syscall_32.tbl).
        let narrow = [format!("__ia32_compat_sys_{name}"), format!("__ia32_sys_{name}")];
        let narrow = narrow.into_iter().find(|f| call.narrow != NONE && known.contains(f.as_str()));
        let wide = Some(format!("__x64_sys_{name}")).filter(|f| known.contains(f.as_str()));
        found.extend([wide, narrow].into_iter().flatten().map(|function| Watched {
            call,
            prototype: prototype(&function),
            function,
        }));
    }
    found
}

/// The name of a system call's function in a line of /proc/kallsyms. A weak one only says that the kernel was built
/// without the call (`COND_SYSCALL`, arch/x86/include/asm/syscall_wrapper.h).
fn own_function(line: &str) -> Option<&str> {
    let (kind, name) = line.split_once(' ')?.1.split_once(' ')?;
    let function = name.starts_with("__x64_sys_") || name.starts_with("__ia32_");
    (function && !kind.eq_ignore_ascii_case("w")).then_some(name)
}

/// Loads what can be, and pins it for [`attach_some`]. What cannot be is missing from [`health`]. Returns the figures of
/// each program once: they differ in nothing but the function.
pub fn load_all(programs: &mut Programs, links: &Path, watched: &[Watched]) -> Vec<Loaded> {
    let begun = Instant::now();
    let Programs { ebpf, btf, .. } = programs;
    let mut kinds: BTreeMap<Option<u32>, Vec<&Watched>> = BTreeMap::new();
    for end in watched {
        kinds.entry(end.prototype).or_default().push(end);
    }
    let mut loaded = Vec::new();
    let directories = [PINS, WAITING].map(|name| make_private(&links.join(name)).map_err(|e| e.to_string()));
    if let Err(problem) = directories.into_iter().collect::<Result<(), _>>().and_then(|()| fill(ebpf)) {
        tracing::error!(problem, "no rare system call leaves records");
        return loaded;
    }
    let mut own = KINDS.into_iter();
    for ends in kinds.into_values() {
        let prepared = own.next().ok_or("there are more kinds of functions than programs".to_owned());
        let prepared = prepared.and_then(|(name, table)| {
            loaded.push(prepare(ebpf, btf, links, table, &ends[0].function)?);
            Ok((name, exit(ebpf, name)?))
        });
        match prepared {
            Ok((name, program)) => {
                let mut figures = None;
                for end in ends {
                    match load_one(program, btf, name, end, links) {
                        Ok(loaded) => figures = Some(loaded),
                        Err(problem) => give_up(end, links, &problem),
                    }
                    // If it was not even loaded, there is nothing to unload.
                    let _ = program.unload();
                }
                loaded.extend(figures);
            }
            Err(problem) => ends.into_iter().for_each(|end| give_up(end, links, &problem)),
        }
    }
    let milliseconds = begun.elapsed().as_millis();
    tracing::info!(functions = watched.len(), milliseconds, "programs for rare system calls are loaded");
    loaded
}

/// Notes that a function is not watched.
fn give_up(end: &Watched, links: &Path, problem: &str) {
    tracing::error!(problem, "{} leaves no records", end.function);
    // If it cannot be made, the next daemon tries again.
    let _ = fs::create_dir(end.link(links));
    let _ = fs::remove_file(end.waiting(links));
}

/// Attaches what waits for it, as much as there is time for but at least one, and says what.
pub fn attach_some(links: &Path, watched: &[Watched], time: Duration) -> Vec<(String, u32)> {
    let begun = Instant::now();
    let mut attached = Vec::new();
    for end in watched.iter().filter(|end| is_waiting(links, end)) {
        attached.extend(attach_waiting(links, end));
        if begun.elapsed() >= time {
            break;
        }
    }
    attached
}

/// Whether its program is loaded and not attached yet.
fn is_waiting(links: &Path, end: &Watched) -> bool {
    end.waiting(links).exists()
}

/// Attaches a program that waits for it.
fn attach_waiting(links: &Path, end: &Watched) -> Option<(String, u32)> {
    match attach_one(links, end) {
        Ok(id) => Some((end.function.clone(), id)),
        Err(problem) => {
            give_up(end, links, &problem);
            None
        }
    }
}

fn attach_one(links: &Path, end: &Watched) -> Result<u32, String> {
    let (at, waiting) = (end.link(links), end.waiting(links));
    // An earlier daemon was cut off between the two.
    if !at.exists() {
        let told = |e: ProgramError| chain(&e);
        let mut program = FExit::from_pin(&waiting).map_err(told)?;
        let id = program.attach().map_err(told)?;
        let link: FdLink = program.take_link(id).map_err(told)?.into();
        link.pin(&at).map_err(|e| format!("cannot pin {}: {}", at.display(), chain(&e)))?;
    }
    fs::remove_file(&waiting).map_err(|e| format!("cannot remove {}: {e}", waiting.display()))?;
    program_of(&at)
}

/// Fills the table of numbers.
fn fill(ebpf: &mut Ebpf) -> Result<(), String> {
    let map = ebpf.map_mut("CALLS").ok_or("the object has no table of calls")?;
    let mut table = Array::<_, u32>::try_from(map).map_err(|e| chain(&e))?;
    for (place, call) in CALLS.iter().enumerate() {
        let narrow = (call.narrow != NONE).then(|| call.narrow + NARROW);
        for at in [Some(call.number), narrow].into_iter().flatten() {
            table.set(at, entry(place, call), 0).map_err(|e| chain(&e))?;
        }
    }
    Ok(())
}

/// Loads what all programs of a kind go on in, as if for `function`.
fn prepare(
    ebpf: &mut Ebpf,
    btf: &AyaBtf,
    links: &Path,
    table: &str,
    function: &str,
) -> Result<Loaded, String> {
    let program = exit(ebpf, SHARED)?;
    let figures = load(program, btf, SHARED, function)?;
    let descriptor = program.fd().map_err(|e| chain(&e))?.try_clone().map_err(|e| e.to_string())?;
    program.unload().map_err(|e| chain(&e))?;
    let map = ebpf.map_mut(table).ok_or_else(|| format!("the object has no table {table}"))?;
    map.pin(links.join(PINS).join(table)).map_err(|e| chain(&e))?;
    let mut table = ProgramArray::try_from(map).map_err(|e| chain(&e))?;
    table.set(0, &descriptor, 0).map_err(|e| chain(&e))?;
    Ok(figures)
}

fn load_one(
    program: &mut FExit,
    btf: &AyaBtf,
    name: &'static str,
    end: &Watched,
    links: &Path,
) -> Result<Loaded, String> {
    let figures = load(program, btf, name, &end.function)?;
    let at = end.waiting(links);
    program.pin(&at).map_err(|e| format!("cannot pin {}: {}", at.display(), chain(&e)))?;
    Ok(figures)
}

fn load(program: &mut FExit, btf: &AyaBtf, name: &'static str, function: &str) -> Result<Loaded, String> {
    program.load(function, btf).map_err(|e| not_loaded(name, &e).message)?;
    let info = program.info().map_err(|e| chain(&e))?;
    let (verified, machine_code) = (info.verified_instruction_count(), info.size_jitted());
    Ok(Loaded { program: name, verified, machine_code })
}

fn exit<'a>(ebpf: &'a mut Ebpf, name: &str) -> Result<&'a mut FExit, String> {
    let program = ebpf.program_mut(name).ok_or_else(|| format!("the object has no program {name}"))?;
    program.try_into().map_err(|e: ProgramError| chain(&e))
}

/// Whether all of the functions are watched, are about to be, or were tried; and the tables are still there.
pub fn tried(links: &Path, watched: &[Watched]) -> bool {
    watched.iter().all(|end| end.link(links).exists() || is_waiting(links, end))
        && tables_gone(links, watched).next().is_none()
}

/// The tables that are not pinned any more.
pub fn tables_gone<'a>(links: &'a Path, watched: &[Watched]) -> impl Iterator<Item = &'static str> + use<'a> {
    let kinds: BTreeSet<Option<u32>> = watched.iter().map(|end| end.prototype).collect();
    let tables = KINDS.into_iter().take(kinds.len()).map(|(_, table)| table);
    tables.filter(|table| !links.join(PINS).join(table).exists())
}

/// The programs behind the links, by the function.
pub fn attached(links: &Path, watched: &[Watched]) -> BTreeMap<String, u32> {
    let one = |end: &Watched| program_of(&end.link(links)).ok().map(|id| (end.function.clone(), id));
    watched.iter().filter_map(one).collect()
}

/// One entry for each call that this kernel has, but for those that are not attached yet. `before`: what was attached by
/// this daemon, or before it.
pub fn health(links: &Path, watched: &[Watched], before: &BTreeMap<String, u32>, active: bool) -> Vec<Hook> {
    let now = attached(links, watched);
    let is_there =
        |end: &&Watched| now.get(&end.function).is_some_and(|id| before.get(&end.function) == Some(id));
    let one = |call: &Call| {
        let mut ends = watched.iter().filter(|end| end.call.number == call.number).peekable();
        ends.peek()?;
        if ends.clone().any(|end| is_waiting(links, end)) {
            return None;
        }
        let absent: Vec<&str> = ends.filter(|end| !is_there(end)).map(|end| end.function.as_str()).collect();
        let note = match (absent.is_empty(), active) {
            (true, true) => String::new(),
            (true, false) => "another generation decides".to_owned(),
            (false, _) => format!("{} is not watched; the daemon's log says why", absent.join(" ")),
        };
        let name = format!("{SYSTEM_CALLS}{}", call.name);
        Some(Hook { name, required: false, attached: note.is_empty(), note })
    };
    CALLS.iter().filter_map(one).collect()
}

/// The functions of the calls about which a policy asks that something be done.
fn wanted(watched: &[Watched], grants: Grants) -> impl Iterator<Item = &Watched> {
    let acts = grants.calls.stopped | grants.calls.killed;
    watched.iter().filter(move |end| {
        let place = CALLS.iter().position(|call| call.number == end.call.number);
        place.is_some_and(|place| acts >> place & 1 != 0)
    })
}

/// Attaches what a policy asks for and waits for it, and says what.
pub fn attach_wanted(links: &Path, watched: &[Watched], grants: Grants) -> Vec<(String, u32)> {
    let waiting = wanted(watched, grants).filter(|end| is_waiting(links, end));
    waiting.filter_map(|end| attach_waiting(links, end)).collect()
}

/// What a policy asks for and the programs cannot do.
pub fn undoable(links: &Path, watched: &[Watched], grants: Grants) -> Option<String> {
    let end = wanted(watched, grants).find(|end| program_of(&end.link(links)).is_err())?;
    Some(format!(
        "`system_calls`: nothing can be done about `{}`, because {} is not watched on this kernel",
        end.call.name, end.function
    ))
}

#[cfg(test)]
mod tests {
    use super::{find, own_function};

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

    #[test]
    fn a_call_is_seen_where_the_table_of_calls_sends_it() {
        let symbols = "0 T __x64_sys_ptrace\n0 T __ia32_sys_ptrace\n0 T __ia32_compat_sys_ptrace\n\
                       0 T __x64_sys_umount\n0 T __ia32_sys_umount\n0 T __ia32_sys_kexec_file_load\n0 T __x64_sys_clone\n";
        let functions: Vec<String> = find(symbols, |_| None).into_iter().map(|end| end.function).collect();
        let expected =
            ["__x64_sys_ptrace", "__ia32_compat_sys_ptrace", "__x64_sys_umount", "__ia32_sys_umount"];
        assert_eq!(functions, expected);
    }
}
