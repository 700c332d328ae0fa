//! What outlives a daemon: the directory of pins, the generation that is in force there, and the change to another.

use super::{
    calls,
    load::{self, Host, Loaded},
    net_layer,
    tables::Tables,
};
use crate::daemon::enforcement::{EnforcementError, StartCause, StartError};
use enforcer_common::{ABI_VERSION, map::Meta};
use std::{
    fs,
    path::{Path, PathBuf},
};

/// What an earlier daemon says about its pins; another ABI is refused, never guessed at.
/// `None`: a start that was cut off before it attached anything.
pub(super) fn earlier(maps: &Path) -> Result<Option<Meta>, StartError> {
    let pins = |message: String| StartError {
        cause: StartCause::Pins,
        message,
        remedy: "start the version that made them, or stop the agents, remove the directory and start again"
            .to_owned(),
    };
    let tables = Tables::open(maps)?;
    let meta = tables.meta().map_err(|e| pins(e.to_string()))?;
    if meta.abi == 0 && meta.generation == 0 {
        return Ok(None);
    }
    if meta.abi != ABI_VERSION {
        return Err(pins(format!(
            "the pins in {} have ABI version {}, this program has {ABI_VERSION}",
            maps.display(),
            meta.abi
        )));
    }
    Ok(Some(meta))
}

/// Loads and attaches a generation beside whatever is attached, then makes it the one that decides.
pub(super) fn replace(
    host: &Host,
    generation: u32,
    maps: &Path,
    links: &Path,
    digest: [u8; 32],
) -> Result<Vec<Loaded>, StartError> {
    // Left over from a start that did not get far enough to be recorded.
    remove_directory(links)?;
    make_private(links)?;
    let (mut ebpf, btf, mut loaded) = load::load(host, generation, maps)?;
    loaded.extend(net_layer::load(&mut ebpf, links)?);
    load::attach(&mut ebpf, host, links)?;
    drop(ebpf);
    loaded.extend(calls::attach(&btf, links, &host.calls, || load::open(host, generation, maps)));
    let mut tables = Tables::open(maps)?;
    let internal = |e: EnforcementError| load::internal(e.to_string());
    let mut meta = tables.meta().map_err(internal)?;
    meta.abi = ABI_VERSION;
    meta.generation = generation;
    meta.object = digest;
    tables.set_meta(&meta).map_err(internal)?;
    Ok(loaded)
}

pub(super) fn links_of(pins: &Path, generation: u32) -> PathBuf {
    pins.join(format!("links-{generation}"))
}

/// What a generation has not pinned, or not any more.
pub(super) fn missing(host: &Host, links: &Path) -> Vec<String> {
    let hooks = host.programs.iter().map(|p| p.program).filter(|name| !links.join(name).exists());
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
