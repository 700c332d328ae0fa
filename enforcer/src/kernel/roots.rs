//! The cgroups below which agents live, as settings name them and as the kernel looks them up.

use super::{
    publish::full,
    tables::{Tables, failed},
};
use crate::daemon::enforcement::{EnforcementError, RootSetting};
use enforcer_common::{
    limits,
    map::{Gate, ROOT_SHARED, Root, RootPath},
};
use std::{fs, mem::offset_of, os::unix::fs::MetadataExt, path::Path, sync::atomic::Ordering};

/// Says below which cgroups agents live.
pub(super) fn set(
    tables: &mut Tables,
    cgroups: &Path,
    roots: &[RootSetting],
) -> Result<(), EnforcementError> {
    if roots.len() > limits::ROOTS {
        return Err(full("the table of roots", limits::ROOTS as u64));
    }
    let stale = tables
        .root_paths
        .keys()
        .collect::<Result<Vec<_>, _>>()
        .map_err(|e| failed("reading ROOT_PATHS", e))?;
    let known: Vec<String> = stale.iter().map(root_text).collect();
    if !known.is_empty() && !roots.iter().all(|r| known.contains(&r.path)) || known.len() > roots.len() {
        // While entries change, tasks may lie below none of them: labels count everywhere.
        tables.gate.word(offset_of!(Gate, strays)).fetch_add(1, Ordering::SeqCst);
    }
    for (i, root) in roots.iter().enumerate() {
        let mut path = [0; limits::ROOT_PATH];
        path[..root.path.len()].copy_from_slice(root.path.as_bytes());
        // First the path, so that a root which is created now is followed, then the id of one
        // that exists.
        tables.root_paths.insert(path, i as u32, 0).map_err(|e| failed("writing ROOT_PATHS", e))?;
        let at = offset_of!(Gate, root) + i * size_of::<Root>();
        let directory = cgroups.join(root.path.trim_start_matches('/'));
        if let Ok(meta) = fs::metadata(&directory) {
            // The id of a cgroup is its inode number in cgroupfs (cgroup_id(), 64 bit).
            tables.gate.word(at + offset_of!(Root, id)).store(meta.ino(), Ordering::SeqCst);
        }
        let flags = if root.shared { ROOT_SHARED } else { 0 };
        tables.gate.half(at + offset_of!(Root, flags)).store(flags, Ordering::SeqCst);
        let level = root.path.matches('/').count() as u32;
        tables.gate.half(at + offset_of!(Root, level)).store(level, Ordering::SeqCst);
    }
    for i in roots.len()..limits::ROOTS {
        let at = offset_of!(Gate, root) + i * size_of::<Root>();
        tables.gate.half(at + offset_of!(Root, level)).store(0, Ordering::SeqCst);
    }
    for path in stale {
        let text = String::from_utf8_lossy(path.split(|b| *b == 0).next().unwrap_or_default()).into_owned();
        if !roots.iter().any(|r| r.path == text) {
            tables.root_paths.remove(&path).map_err(|e| failed("removing from ROOT_PATHS", e))?;
        }
    }
    Ok(())
}

/// The paths of the roots that the kernel's table has.
pub(super) fn known(tables: &Tables) -> Result<Vec<String>, EnforcementError> {
    let paths = tables.root_paths.keys().collect::<Result<Vec<_>, _>>();
    Ok(paths.map_err(|e| failed("reading ROOT_PATHS", e))?.iter().map(root_text).collect())
}

/// The path of a root as text.
fn root_text(path: &RootPath) -> String {
    String::from_utf8_lossy(path.split(|b| *b == 0).next().unwrap_or_default()).into_owned()
}
