//! What is attached, pinned and full, by what the kernel says about it rather than by what was done at the start.

use super::{Kernel, hooks::HookProgram, load::MAPS, net_layer};
use crate::daemon::enforcement::{Health, Hook, Usage};
use aya::programs::{
    links::{FdLink, PinnedLink},
    loaded_programs,
};
use enforcer_common::{
    hold::{HOLDS, WAITERS},
    limits,
    map::Gate,
};
use std::{
    collections::{BTreeMap, BTreeSet},
    fs,
    mem::offset_of,
    os::fd::{AsFd, AsRawFd},
    path::Path,
    sync::atomic::Ordering,
};

/// How things are in the kernel.
pub(super) fn of(kernel: &Kernel) -> Health {
    let active =
        kernel.tables.gate.half(offset_of!(Gate, generation)).load(Ordering::SeqCst) == kernel.generation;
    let hooks = kernel.programs.iter().map(|p| {
        let link = kernel.links.join(p.program);
        let note = match (program_of(&link), kernel.attached.get(p.program)) {
            (Ok(now), Some(before)) if now != *before => {
                format!("{} is a link to another program", link.display())
            }
            (Ok(_), _) if active => String::new(),
            (Ok(_), _) => "another generation decides".to_owned(),
            (Err(_), _) if !link.exists() => format!("the link {} is gone", link.display()),
            (Err(why), _) => format!("{} is no link to a program: {why}", link.display()),
        };
        Hook { name: p.program.to_owned(), required: true, attached: note.is_empty(), note }
    });
    let counts = counts(kernel.attached.iter().chain(kernel.calls.attached()));
    let missed = counts.iter().filter_map(|(name, count)| {
        let before = kernel.missed_before.get(name).map_or(0, |before| before.missed);
        let new = count.missed.saturating_sub(before);
        (new > 0).then(|| (name.clone(), new))
    });
    let timed = counts.iter().filter(|(_, count)| count.runs > 0);
    let timed = timed.map(|(name, count)| (name.clone(), (count.runs, count.nanoseconds)));
    let gone = MAPS.iter().filter(|map| !kernel.maps.join(map).exists()).map(|map| (*map).to_owned());
    let programs_gone = net_layer::missing(&kernel.links).map(|name| format!("network/{name}"));
    let tables_gone = kernel.calls.tables_gone().map(str::to_owned);
    Health {
        generation: kernel.generation,
        hooks: hooks.chain(kernel.net_layer.health(active)).chain(kernel.calls.health(active)).collect(),
        waiting: kernel.calls.waiting(),
        missed: missed.collect(),
        timed: timed.collect(),
        pins_gone: gone.chain(programs_gone).chain(tables_gone).collect(),
        usage: usage(kernel),
    }
}

fn usage(kernel: &Kernel) -> Vec<Usage> {
    let one = |name: &str, used: u64, room: u32| Usage { name: name.to_owned(), used, room: room.into() };
    let entries = |keys: usize| u64::try_from(keys).unwrap_or(u64::MAX);
    let tables = &kernel.tables;
    let room = kernel.policies.usage();
    vec![
        one("arena", room.arena, u32::try_from(tables.arena.len()).unwrap_or(u32::MAX)),
        one("policies", room.policies, limits::POLICIES),
        one("prefixes", room.prefixes, limits::PREFIXES),
        one("links", room.links, limits::LINKS),
        one("sessions", kernel.sessions.count(tables), limits::SESSIONS),
        one("holds", entries(tables.holds.keys().count()), HOLDS),
        one("waiters", entries(tables.waiters.keys().count()), WAITERS),
        one("strays", entries(tables.strays.keys().count()), limits::STRAYS),
        one("objects", entries(tables.ipc_objects.keys().count()), limits::IPC_OBJECTS),
        one("decision ring", tables.decisions.waiting(), limits::DECISION_RING),
        one("activity ring", tables.activity.waiting(), limits::ACTIVITY_RING),
        one("executors", entries(tables.executors.keys().count()), limits::EXECUTORS),
    ]
}

/// The program behind a pinned link.
pub(super) fn program_of(link: &Path) -> Result<u32, String> {
    let pinned = PinnedLink::from_pin(link).map_err(|e| e.to_string())?;
    FdLink::from(pinned).info().map(|info| info.program_id()).map_err(|e| e.to_string())
}

/// The programs behind the links of a generation, by their names.
pub(super) fn attached(programs: &[&'static HookProgram], links: &Path) -> BTreeMap<String, u32> {
    let one = |p: &&HookProgram| Some((p.program.to_owned(), program_of(&links.join(p.program)).ok()?));
    programs.iter().filter_map(one).collect()
}

/// What the kernel counts of a program.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(super) struct Counts {
    /// How often it was left out because it was running on that CPU already. That happens to tracing programs only
    /// (`bpf_prog_check_recur()`, include/linux/bpf_verifier.h).
    pub missed: u64,
    /// How often it ran, and for how long, while `kernel.bpf_stats_enabled` was set.
    pub runs: u64,
    nanoseconds: u64,
}

/// What the kernel counts of each program.
pub(super) fn counts<'a>(attached: impl Iterator<Item = (&'a String, &'a u32)>) -> BTreeMap<String, Counts> {
    let ours: BTreeMap<u32, &String> = attached.map(|(name, id)| (*id, name)).collect();
    let mut counts = BTreeMap::new();
    for info in loaded_programs().flatten() {
        let (Some(name), Ok(fd)) = (ours.get(&info.id()), info.fd()) else { continue };
        let path = format!("/proc/self/fdinfo/{}", fd.as_fd().as_raw_fd());
        counts.insert((*name).clone(), counts_in(&fs::read_to_string(path).unwrap_or_default()));
    }
    counts
}

fn counts_in(fdinfo: &str) -> Counts {
    let number = |name: &str| {
        let value = |line: &str| line.strip_prefix(name)?.strip_prefix(':')?.trim().parse().ok();
        fdinfo.lines().find_map(value).unwrap_or_default()
    };
    Counts { missed: number("recursion_misses"), runs: number("run_cnt"), nanoseconds: number("run_time_ns") }
}

/// The numbers of the maps that programs use.
pub(super) fn maps_used(programs: &BTreeSet<u32>) -> BTreeSet<u32> {
    let infos = loaded_programs().flatten().filter(|info| programs.contains(&info.id()));
    infos.filter_map(|info| info.map_ids().ok().flatten()).flatten().collect()
}

#[cfg(test)]
mod tests {
    use super::{Counts, counts_in};

    #[test]
    fn counts_are_read_from_what_the_kernel_says_of_a_program() {
        let text = "pos:\t0\nprog_jited:\t1\nrun_time_ns:\t81\nrun_cnt:\t9\nrecursion_misses:\t3\n";
        assert_eq!(counts_in(text), Counts { missed: 3, runs: 9, nanoseconds: 81 });
        assert_eq!(counts_in("pos:\t0\n"), Counts::default());
    }
}
