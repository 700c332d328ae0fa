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
use crate::daemon::enforcement::{Hook, SYSTEM_CALLS, Unwatched};
use aya::{
    Btf as AyaBtf, Ebpf,
    maps::{Array, ProgramArray},
    programs::{FExit, ProgramError, links::FdLink},
};
use enforcer_common::calls::{CALLS, CLONE, Call, NARROW, NONE, OLDER, entry};
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

    fn unwatched(&self, because: &str) -> Unwatched {
        let (function, because) = (self.function.clone(), because.to_owned());
        Unwatched { call: self.call.name, function, because }
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
        let older = OLDER.iter().filter(|(.., form_of)| *form_of == call.name);
        let older = older.map(|(_, name, _)| format!("__ia32_sys_{name}"));
        let older = older.filter(|function| known.contains(function.as_str()));
        found.extend([wide, narrow].into_iter().flatten().chain(older).map(|function| Watched {
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

/// Loads what can be, and pins it until it is attached. Returns the figures of each program once, since they differ in
/// nothing but the function, and what cannot be watched.
pub fn load_all(programs: &mut Programs, links: &Path, watched: &[Watched]) -> (Vec<Loaded>, Vec<Unwatched>) {
    let begun = Instant::now();
    let Programs { ebpf, btf, .. } = programs;
    let directories = [PINS, WAITING].map(|name| make_private(&links.join(name)).map_err(|e| e.to_string()));
    if let Err(problem) = directories.into_iter().collect::<Result<(), _>>().and_then(|()| fill(ebpf)) {
        return (Vec::new(), watched.iter().map(|end| end.unwatched(&problem)).collect());
    }
    let (mut loaded, mut unwatched) = (Vec::new(), Vec::new());
    let mut give_up = |end: &Watched, problem: &str| unwatched.push(give_up(end, links, problem));
    let mut kinds: BTreeMap<u32, Vec<&Watched>> = BTreeMap::new();
    for end in watched {
        match end.prototype {
            Some(kind) => kinds.entry(kind).or_default().push(end),
            None => give_up(end, "the kernel has no type information about it"),
        }
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
                        Err(problem) => give_up(end, &problem),
                    }
                    // If it was not even loaded, there is nothing to unload.
                    let _ = program.unload();
                }
                loaded.extend(figures);
            }
            Err(problem) => ends.into_iter().for_each(|end| give_up(end, &problem)),
        }
    }
    let milliseconds = begun.elapsed().as_millis();
    tracing::info!(functions = watched.len(), milliseconds, "programs for rare system calls are loaded");
    (loaded, unwatched)
}

/// Notes that a function is not watched, also for the next daemon.
fn give_up(end: &Watched, links: &Path, problem: &str) -> Unwatched {
    // If it cannot be made, the next daemon tries again.
    let _ = fs::create_dir(end.link(links));
    let waiting = end.waiting(links);
    let _ = fs::remove_file(&waiting).or_else(|_| fs::remove_dir(&waiting));
    end.unwatched(problem)
}

fn attach_one(links: &Path, end: &Watched) -> Result<u32, String> {
    let (at, waiting) = (end.link(links), end.waiting(links));
    let told = |e: ProgramError| chain(&e);
    let mut program = FExit::from_pin(&waiting).map_err(told)?;
    let id = program.attach().map_err(told)?;
    let link: FdLink = program.take_link(id).map_err(told)?.into();
    link.pin(&at).map_err(|e| format!("cannot pin {}: {}", at.display(), chain(&e)))?;
    // One that stays there counts for nothing beside its link.
    let _ = fs::remove_file(&waiting);
    program_of(&at)
}

/// Fills the table of numbers.
fn fill(ebpf: &mut Ebpf) -> Result<(), String> {
    let map = ebpf.map_mut("CALLS").ok_or("the object has no table of calls")?;
    let mut table = Array::<_, u32>::try_from(map).map_err(|e| chain(&e))?;
    for (place, call) in CALLS.iter().enumerate() {
        let narrow = (call.narrow != NONE).then_some(call.narrow);
        let older = OLDER.iter().filter(|(.., form_of)| *form_of == call.name).map(|(number, ..)| *number);
        let narrow = narrow.into_iter().chain(older).map(|number| number + NARROW);
        for at in narrow.chain([call.number]) {
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
    watched.iter().all(|end| end.link(links).exists() || end.waiting(links).exists())
        && tables_gone(links, watched).next().is_none()
}

fn tables_gone<'a>(links: &'a Path, watched: &[Watched]) -> impl Iterator<Item = &'static str> + use<'a> {
    let kinds: BTreeSet<u32> = watched.iter().filter_map(|end| end.prototype).collect();
    let tables = KINDS.into_iter().take(kinds.len()).map(|(_, table)| table);
    tables.filter(|table| !links.join(PINS).join(table).exists())
}

/// The programs of the generation that decides.
pub struct Calls {
    watched: Vec<Watched>,
    links: PathBuf,
    /// By the function: what was attached by this daemon, or before it.
    attached: BTreeMap<String, u32>,
    /// Why a function is not watched, as far as this daemon has tried.
    because: BTreeMap<String, String>,
    /// What of that nobody has asked for yet.
    untold: Vec<Unwatched>,
    /// Whether there may be something to attach yet. What was attached is never attached again, so this becomes false
    /// once, and a daemon at rest looks no more: more than a hundred files each second.
    to_come: bool,
}

impl Calls {
    /// `unwatched`: what this daemon could not load.
    pub fn new(links: &Path, watched: Vec<Watched>, unwatched: Vec<Unwatched>) -> Self {
        let mut found = Self {
            watched,
            links: links.to_owned(),
            attached: BTreeMap::new(),
            because: BTreeMap::new(),
            untold: Vec::new(),
            to_come: true,
        };
        found.attached = found.there();
        unwatched.into_iter().for_each(|one| found.miss(one));
        found
    }

    /// The programs that were attached by this daemon, or before it.
    pub fn attached(&self) -> &BTreeMap<String, u32> {
        &self.attached
    }

    fn miss(&mut self, one: Unwatched) {
        self.because.insert(one.function.clone(), one.because.clone());
        self.untold.push(one);
    }

    /// What was found not to be watchable since this was asked the last time.
    pub fn take_unwatched(&mut self) -> Vec<Unwatched> {
        std::mem::take(&mut self.untold)
    }

    /// The programs behind the links now.
    fn there(&self) -> BTreeMap<String, u32> {
        let one =
            |end: &Watched| program_of(&end.link(&self.links)).ok().map(|id| (end.function.clone(), id));
        self.watched.iter().filter_map(one).collect()
    }

    /// Whether the program is loaded and still to be attached.
    fn is_waiting(&self, end: &Watched) -> bool {
        !self.because.contains_key(&end.function)
            && !end.link(&self.links).exists()
            && end.waiting(&self.links).exists()
    }

    /// Attaches what waits for it, as much as there is time for.
    pub fn attach_some(&mut self, time: Duration) {
        let begun = Instant::now();
        while self.to_come && begun.elapsed() < time {
            match self.watched.iter().find(|end| self.is_waiting(end)).cloned() {
                Some(end) => self.attach(&end),
                None => self.to_come = false,
            }
        }
    }

    /// Attaches what waits for it and is to be stopped or ended for; `acts` has a bit for each call.
    pub fn attach_wanted(&mut self, acts: u64) {
        let waiting: Vec<Watched> = self.wanted(acts).filter(|end| self.is_waiting(end)).cloned().collect();
        waiting.iter().for_each(|end| self.attach(end));
    }

    fn attach(&mut self, end: &Watched) {
        match attach_one(&self.links, end) {
            Ok(id) => {
                self.attached.insert(end.function.clone(), id);
            }
            Err(problem) => self.miss(give_up(end, &self.links, &problem)),
        }
    }

    /// The functions of calls with these bits.
    fn wanted(&self, acts: u64) -> impl Iterator<Item = &Watched> {
        self.watched.iter().filter(move |end| {
            let place = CALLS.iter().position(|call| call.number == end.call.number);
            place.is_some_and(|place| acts >> place & 1 != 0)
        })
    }

    /// What is asked for and the programs cannot do.
    pub fn undoable(&self, acts: u64) -> Option<String> {
        let end = self.wanted(acts).find(|end| program_of(&end.link(&self.links)).is_err())?;
        Some(format!(
            "`system_calls`: nothing can be done about `{}`, because {} is not watched on this kernel",
            end.call.name, end.function
        ))
    }

    /// The calls of which a program is still to be attached.
    pub fn waiting(&self) -> Vec<String> {
        let waits = |call: &&Call| self.to_come && self.ends(call).any(|end| self.is_waiting(end));
        CALLS.iter().filter(waits).map(|call| call.name.to_owned()).collect()
    }

    fn ends(&self, call: &Call) -> impl Iterator<Item = &Watched> {
        let number = call.number;
        self.watched.iter().filter(move |end| end.call.number == number)
    }

    /// One entry for each call that this kernel has, but for those that wait.
    pub fn health(&self, active: bool) -> Vec<Hook> {
        let now = self.there();
        let is_there = |end: &&Watched| {
            now.get(&end.function).is_some_and(|id| self.attached.get(&end.function) == Some(id))
        };
        let one = |call: &Call| {
            let ends: Vec<&Watched> = self.ends(call).collect();
            if ends.is_empty() || ends.iter().any(|end| self.is_waiting(end)) {
                return None;
            }
            let absent: Vec<String> =
                ends.iter().filter(|end| !is_there(end)).map(|end| self.why(end)).collect();
            let note = match (absent.is_empty(), active) {
                (true, true) => String::new(),
                (true, false) => "another generation decides".to_owned(),
                (false, _) => absent.join("; "),
            };
            let name = format!("{SYSTEM_CALLS}{}", call.name);
            Some(Hook { name, required: false, attached: note.is_empty(), note })
        };
        CALLS.iter().filter_map(one).collect()
    }

    fn why(&self, end: &Watched) -> String {
        let link = end.link(&self.links);
        let because = match self.because.get(&end.function) {
            Some(because) => because.clone(),
            None if link.is_dir() => {
                "an earlier daemon could not; its record `call-unwatched` says why".to_owned()
            }
            None if link.exists() => format!("{} is no link to its program", link.display()),
            None => format!("the link {} is gone", link.display()),
        };
        format!("{} is not watched: {because}", end.function)
    }

    /// The tables that are not pinned any more.
    pub fn tables_gone(&self) -> impl Iterator<Item = &'static str> {
        tables_gone(&self.links, &self.watched)
    }
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
                       0 T __x64_sys_umount\n0 T __ia32_sys_umount\n0 T __ia32_sys_oldumount\n0 T __ia32_sys_kexec_file_load\n0 T __x64_sys_clone\n";
        let functions: Vec<String> = find(symbols, |_| None).into_iter().map(|end| end.function).collect();
        let expected = [
            "__x64_sys_ptrace",
            "__ia32_compat_sys_ptrace",
            "__x64_sys_umount",
            "__ia32_sys_umount",
            "__ia32_sys_oldumount",
        ];
        assert_eq!(functions, expected);
    }
}
