//! What outlives a daemon: the directory of pins, the generation that is in force there, and the change to another.

use super::{
    calls, health,
    load::{self, Host, Loaded, MAPS},
    net_layer,
    tables::{self, Tables},
};
use crate::daemon::enforcement::{EnforcementError, StartCause, StartError, Unwatched};
use enforcer_common::{
    ABI_VERSION,
    map::{Gate, Meta},
};
use std::{
    collections::BTreeSet,
    fs,
    mem::{self, offset_of},
    path::{Path, PathBuf},
    sync::atomic::Ordering,
};

/// Tables that programs use in every call: if one of them is another one than the programs have, all that would be
/// written there is nobody's.
const USED: [&str; 6] = ["GATE", "AGENTS", "SESSIONS", "SESSION_OF", "POLICIES", "ARENA"];

/// What an earlier daemon has left. `None`: nothing that decides. Where programs decide whose tables are not all there,
/// or are not theirs, nothing is guessed and nothing attached beside them: that would be a gap for all who live now.
pub(super) fn found(host: &Host, pins: &Path) -> Result<Option<Meta>, StartError> {
    let maps = pins.join("maps");
    let gone: Vec<&str> = MAPS.iter().copied().filter(|map| !maps.join(map).exists()).collect();
    let attached = attached(host, pins)?;
    if attached.is_empty() {
        // A first start, or one that was cut off before it attached anything.
        return if gone.is_empty() { earlier(&maps) } else { Ok(None) };
    }
    let cannot = |why: String| StartError {
        cause: StartCause::Pins,
        message: format!(
            "programs are attached by the links in {}, and {why}: they go on deciding, and cannot be taken over",
            pins.display()
        ),
        remedy: "end the agents, then enforcement (enforcer daemon --uninstall), and start again".to_owned(),
    };
    if gone.contains(&"META") {
        return Err(cannot(format!("of their tables {} gone", list(&gone))));
    }
    // Another version's tables need not have the names and sizes that are looked for below.
    let meta = earlier(&maps).map_err(|e| match e.cause {
        StartCause::Pins => e,
        _ => cannot(e.message),
    })?;
    if !gone.is_empty() {
        return Err(cannot(format!("of their tables {} gone", list(&gone))));
    }
    let used = health::maps_used(&attached);
    let foreign = |map: &&str| tables::id(&maps, map).is_ok_and(|id| !used.contains(&id));
    let foreign: Vec<&str> = USED.into_iter().filter(foreign).collect();
    if !foreign.is_empty() {
        return Err(cannot(format!("{} not the tables that they use", list(&foreign))));
    }
    let tables =
        Tables::open(&maps).map_err(|e| cannot(format!("their tables are not as they must be ({e})")))?;
    match meta {
        Some(meta) => Ok(Some(meta)),
        // Attached, and cut off before it decided.
        None if tables.gate.half(offset_of!(Gate, generation)).load(Ordering::SeqCst) == 0 => Ok(None),
        None => Err(cannot("the table META does not say what they are".to_owned())),
    }
}

/// "A is", "A B are".
fn list(names: &[&str]) -> String {
    format!("{} {}", names.join(" "), if names.len() == 1 { "is" } else { "are" })
}

/// The programs behind all pinned links, of whatever generation.
fn attached(host: &Host, pins: &Path) -> Result<BTreeSet<u32>, StartError> {
    let entries = fs::read_dir(pins).map_err(|e| load::refused(format!("{}: {e}", pins.display())))?;
    let generations = entries.flatten().filter(|e| e.file_name().to_string_lossy().starts_with("links-"));
    Ok(generations.flat_map(|e| health::attached(&host.programs, &e.path()).into_values()).collect())
}

/// What an earlier daemon says about its pins; another ABI is refused, never guessed at.
/// `None`: a start that was cut off before it attached anything.
pub(super) fn earlier(maps: &Path) -> Result<Option<Meta>, StartError> {
    let remedy = "start the version that made them, or end the agents, then enforcement (enforcer daemon \
                  --uninstall), and start again";
    let meta = tables::meta_of(maps)?;
    if meta.abi == 0 && meta.generation == 0 {
        return Ok(None);
    }
    if meta.abi == ABI_VERSION {
        return Ok(Some(meta));
    }
    Err(StartError {
        cause: StartCause::Pins,
        message: format!(
            "the pins in {} have ABI version {}, this program has {ABI_VERSION}",
            maps.display(),
            meta.abi
        ),
        remedy: remedy.to_owned(),
    })
}

/// Loads and attaches a generation beside whatever is attached. Also says what of it cannot be had.
pub(super) fn replace(
    host: &Host,
    generation: u32,
    maps: &Path,
    links: &Path,
    digest: [u8; 32],
    arena: usize,
) -> Result<(Vec<Loaded>, Vec<Unwatched>), StartError> {
    // Left over from a start that did not get far enough to be recorded.
    remove_directory(links)?;
    make_private(links)?;
    let mut programs = load::load(host, generation, maps, arena)?;
    let mut loaded = mem::take(&mut programs.loaded);
    loaded.extend(net_layer::load(&mut programs.ebpf, links)?);
    load::attach(&mut programs.ebpf, host, links)?;
    let (figures, unwatched) = calls::load_all(&mut programs, links, &host.calls);
    loaded.extend(figures);
    let mut tables = Tables::open(maps)?;
    let internal = |e: EnforcementError| load::internal(e.to_string());
    let mut meta = tables.meta().map_err(internal)?;
    meta.abi = ABI_VERSION;
    meta.generation = generation;
    meta.object = digest;
    tables.set_meta(&meta).map_err(internal)?;
    Ok((loaded, unwatched))
}

pub(super) fn links_of(pins: &Path, generation: u32) -> PathBuf {
    pins.join(format!("links-{generation}"))
}

/// What a generation has not pinned, or not any more: a pin that is no link to a program is none.
pub(super) fn missing(host: &Host, links: &Path) -> Vec<String> {
    let there = health::attached(&host.programs, links);
    let hooks = host.programs.iter().map(|p| p.program).filter(|name| !there.contains_key(*name));
    hooks.chain(net_layer::missing(links)).map(str::to_owned).collect()
}

pub(super) fn remove_other_links(pins: &Path, keep: &Path) -> Result<(), StartError> {
    let entries = fs::read_dir(pins).map_err(|e| load::refused(format!("{}: {e}", pins.display())))?;
    for entry in entries.flatten() {
        let path = entry.path();
        if path != keep && entry.file_name().to_string_lossy().starts_with("links-") {
            remove_directory(&path)?;
        }
    }
    Ok(())
}

/// Removes a directory of pins, one link at a time: the programs of an older generation stand aside
/// already, so the order does not matter.
pub(super) fn remove_directory(path: &Path) -> Result<(), StartError> {
    match fs::remove_dir_all(path) {
        Ok(()) => Ok(()),
        Err(e) if e.kind() == std::io::ErrorKind::NotFound => Ok(()),
        Err(e) => Err(load::refused(format!("cannot remove {}: {e}", path.display()))),
    }
}

pub(super) fn make_private(path: &Path) -> Result<(), StartError> {
    use std::os::unix::fs::DirBuilderExt;
    match fs::DirBuilder::new().mode(0o700).create(path) {
        Ok(()) => Ok(()),
        Err(e) if e.kind() == std::io::ErrorKind::AlreadyExists => Ok(()),
        Err(e) => Err(StartError {
            cause: StartCause::Permission,
            message: format!("cannot create {}: {e}", path.display()),
            remedy: "run as root, with bpffs mounted at /sys/fs/bpf (mount -t bpf bpf /sys/fs/bpf)"
                .to_owned(),
        }),
    }
}
