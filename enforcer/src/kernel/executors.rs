//! The programs that may prepare a session: known by file, so that no name can be put in their place.

use super::tables::{Tables, failed, to_bytes};
use crate::daemon::enforcement::EnforcementError;
use enforcer_common::map::{EXECUTOR_HELPER, EXECUTOR_RUNTIME, FileId};
use std::{
    fs,
    os::unix::fs::{MetadataExt, OpenOptionsExt},
    path::PathBuf,
};

/// Says which programs prepare sessions. The result keeps their inodes from being used again.
pub(super) fn set(tables: &mut Tables, executors: &[PathBuf]) -> Result<Vec<fs::File>, EnforcementError> {
    // This program is the launch helper; everything else is a runtime.
    let own = std::env::current_exe().ok().and_then(|path| fs::metadata(path).ok());
    let (mut wanted, mut held) = (Vec::new(), Vec::new());
    for path in executors {
        // What does not exist here cannot prepare anything.
        let file = fs::File::options().read(true).custom_flags(libc::O_PATH).open(path);
        if let Ok((file, meta)) = file.and_then(|file| file.metadata().map(|meta| (file, meta))) {
            held.push(file);
            let device = nix::sys::stat::major(meta.dev()) << 20 | nix::sys::stat::minor(meta.dev());
            let key = to_bytes::<_, { size_of::<FileId>() }>(&FileId { device, inode: meta.ino() });
            let is_own = own.as_ref().is_some_and(|own| (own.dev(), own.ino()) == (meta.dev(), meta.ino()));
            wanted.push((key, if is_own { EXECUTOR_HELPER } else { EXECUTOR_RUNTIME }));
        }
    }
    for (key, kind) in &wanted {
        tables.executors.insert(*key, *kind, 0).map_err(|e| failed("writing EXECUTORS", e))?;
    }
    let all =
        tables.executors.keys().collect::<Result<Vec<_>, _>>().map_err(|e| failed("reading EXECUTORS", e))?;
    for key in all.iter().filter(|key| !wanted.iter().any(|(k, _)| k == *key)) {
        tables.executors.remove(key).map_err(|e| failed("removing from EXECUTORS", e))?;
    }
    Ok(held)
}
