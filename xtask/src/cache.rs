//! Where downloaded and built images live: outside `target/`, shared by all clones of one user.

use std::{
    fs::{self, File},
    io::Write,
    path::{Path, PathBuf},
    time::{Duration, SystemTime},
};

use anyhow::{Context, Result};
use nix::fcntl::{Flock, FlockArg};
use tempfile::TempDir;

use crate::progress::{self, Ticker};

/// An image that nobody has used for so long belongs to a recipe that is gone.
const STALE: Duration = Duration::from_secs(14 * 24 * 3600);

/// `$ENFORCER_CACHE`, else `~/.cache/enforcer`; created when absent.
pub(crate) fn dir() -> Result<PathBuf> {
    let dir = match (std::env::var_os("ENFORCER_CACHE"), std::env::var_os("XDG_CACHE_HOME")) {
        (Some(dir), _) => PathBuf::from(dir),
        (None, Some(base)) => PathBuf::from(base).join("enforcer"),
        (None, None) => {
            let home =
                std::env::var_os("HOME").context("HOME is not set; set ENFORCER_CACHE to a directory")?;
            PathBuf::from(home).join(".cache/enforcer")
        }
    };
    fs::create_dir_all(&dir).with_context(|| {
        format!("cannot create {}; set ENFORCER_CACHE to a directory that can be written", dir.display())
    })?;
    fs::canonicalize(&dir).with_context(|| format!("cannot resolve {}", dir.display()))
}

/// Held while the cache is filled, so that two runs do not build the same image at once.
pub(crate) struct Lock {
    _file: Flock<File>,
}

/// Waits for its turn, and says so.
pub(crate) fn lock() -> Result<Lock> {
    let path = dir()?.join("lock");
    let file = File::options().create(true).append(true).open(&path)?;
    let file = match Flock::lock(file, FlockArg::LockExclusiveNonblock) {
        Ok(locked) => return Ok(Lock { _file: locked }),
        Err((file, _)) => file,
    };
    let _ticker = Ticker::start("waiting for another xtask that fills the image cache");
    let locked = Flock::lock(file, FlockArg::LockExclusive)
        .map_err(|(_, errno)| errno)
        .with_context(|| format!("cannot lock {}", path.display()))?;
    Ok(Lock { _file: locked })
}

/// The cached directory `name`; `fill` builds it in a temporary place that is renamed when it is complete.
pub(crate) fn ensure(name: &str, fill: impl FnOnce(&Path) -> Result<()>) -> Result<PathBuf> {
    let path = dir()?.join(name);
    if !path.exists() {
        let _lock = lock()?;
        if !path.exists() {
            let temporary = scratch("fill")?;
            let staged = temporary.path().join("staged");
            fs::create_dir(&staged)?;
            fill(&staged)?;
            fs::rename(&staged, &path).with_context(|| format!("cannot put {} in place", path.display()))?;
        }
    }
    // The time of the last use, for `sweep`.
    let _ = write_atomic(&path.join("used"), b"");
    Ok(path)
}

/// Removes cached directories of one kind that are neither `keep` nor in use by another clone.
pub(crate) fn sweep(prefix: &str, keep: &Path) -> Result<()> {
    for entry in fs::read_dir(dir()?)? {
        let path = entry?.path();
        let named = path.file_name().is_some_and(|name| name.to_string_lossy().starts_with(prefix));
        if !named || path == keep {
            continue;
        }
        let used = fs::metadata(path.join("used")).and_then(|meta| meta.modified());
        let age = used.ok().and_then(|time| SystemTime::now().duration_since(time).ok());
        if age.is_some_and(|age| age > STALE) {
            progress::note(format!("removing {}, unused for two weeks", path.display()));
            fs::remove_dir_all(&path)?;
        }
    }
    Ok(())
}

/// A directory on the cache's file system that goes away with its value. What a killed run left is removed here.
pub(crate) fn scratch(purpose: &str) -> Result<TempDir> {
    let parent = dir()?.join("run");
    fs::create_dir_all(&parent)?;
    for entry in fs::read_dir(&parent)?.flatten() {
        let name = entry.file_name().to_string_lossy().into_owned();
        let owner = name.split('.').next().and_then(|pid| pid.parse::<u32>().ok());
        if owner.is_some_and(|pid| !Path::new("/proc").join(pid.to_string()).exists()) {
            let _ = fs::remove_dir_all(entry.path());
        }
    }
    tempfile::Builder::new()
        .prefix(&format!("{}.{purpose}.", std::process::id()))
        .tempdir_in(&parent)
        .with_context(|| format!("cannot create a directory in {}", parent.display()))
}

/// Either the old bytes or the new ones are at `path`, never a part.
pub(crate) fn write_atomic(path: &Path, bytes: &[u8]) -> Result<()> {
    let parent = path.parent().context("a cached file has a parent directory")?;
    let mut file = tempfile::NamedTempFile::new_in(parent)?;
    file.write_all(bytes)?;
    file.persist(path).with_context(|| format!("cannot write {}", path.display()))?;
    Ok(())
}
