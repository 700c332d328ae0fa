//! What is attached, pinned and full, by what the kernel says about it rather than by what was done at the start.

use super::{Kernel, hooks::HookProgram, load::MAPS};
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
        let note = match program_of(&link) {
            Ok(_) if active => String::new(),
            Ok(_) => "another generation decides".to_owned(),
            Err(_) if !link.exists() => format!("the link {} is gone", link.display()),
            Err(why) => format!("{} is no link to a program: {why}", link.display()),
        };
        Hook { name: p.program.to_owned(), required: true, attached: note.is_empty(), note }
    });
    let missed = missed(&kernel.programs, &kernel.links).into_iter().filter_map(|(name, count)| {
        let new = count.saturating_sub(kernel.missed_before.get(name).copied().unwrap_or_default());
        (new > 0).then(|| (name.to_owned(), new))
    });
    let (arena, policies) = kernel.policies.usage();
    let usage = |name: &str, used: u64, room: u64| Usage { name: name.to_owned(), used, room };
    let entries = |keys: usize| u64::try_from(keys).unwrap_or(u64::MAX);
    Health {
        generation: kernel.generation,
        hooks: hooks.collect(),
        missed: missed.collect(),
        pins_gone: MAPS
            .iter()
            .filter(|map| !kernel.maps.join(map).exists())
            .map(|m| (*m).to_owned())
            .collect(),
        usage: vec![
            usage("arena", arena, limits::ARENA as u64),
            usage("policies", policies, limits::POLICIES.into()),
            usage("sessions", kernel.sessions.count(&kernel.tables), limits::SESSIONS.into()),
            usage("holds", entries(kernel.tables.holds.keys().count()), HOLDS.into()),
            usage("waiters", entries(kernel.tables.waiters.keys().count()), WAITERS.into()),
            usage("strays", entries(kernel.tables.strays.keys().count()), limits::STRAYS.into()),
            usage("executors", entries(kernel.tables.executors.keys().count()), limits::EXECUTORS.into()),
        ],
    }
}

/// The program behind a pinned link.
fn program_of(link: &Path) -> Result<u32, String> {
    let pinned = PinnedLink::from_pin(link).map_err(|e| e.to_string())?;
    FdLink::from(pinned).info().map(|info| info.program_id()).map_err(|e| e.to_string())
}

/// How often the kernel left a program out because it was running on that CPU already. It does that with tracing
/// programs only (bpf_prog_check_recur(), include/linux/bpf_verifier.h).
pub(super) fn missed(programs: &[&'static HookProgram], links: &Path) -> BTreeMap<&'static str, u64> {
    let ours: BTreeMap<u32, &'static str> = programs
        .iter()
        .filter_map(|p| program_of(&links.join(p.program)).ok().map(|id| (id, p.program)))
        .collect();
    let wanted: BTreeSet<u32> = ours.keys().copied().collect();
    let mut missed = BTreeMap::new();
    for info in loaded_programs().flatten().filter(|info| wanted.contains(&info.id())) {
        let Ok(fd) = info.fd() else { continue };
        let path = format!("/proc/self/fdinfo/{}", fd.as_fd().as_raw_fd());
        let text = fs::read_to_string(path).unwrap_or_default();
        let count = text.lines().find_map(|line| line.strip_prefix("recursion_misses:")?.trim().parse().ok());
        if let (Some(count @ 1..), Some(name)) = (count, ours.get(&info.id())) {
            missed.insert(*name, count);
        }
    }
    missed
}
