//! The way through the directories.

use super::mounts::{self, Mount};
use crate::policy::LinkName;
use std::{
    collections::HashMap,
    ffi::OsStr,
    fs, io,
    os::unix::{ffi::OsStrExt, fs::MetadataExt},
    path::{Path, PathBuf},
    time::Instant,
};

/// What a walk has seen.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(super) struct Names {
    /// Names of files that have several.
    pub(super) names: Vec<LinkName>,
    /// Why there may be more, if there may.
    pub(super) incomplete: Option<String>,
}

/// A walk, with its end.
pub(super) struct Walk {
    mounts: HashMap<Vec<u8>, Mount>,
    until: Instant,
    found: Names,
}

impl Walk {
    pub(super) fn new(until: Instant) -> Self {
        let mut found = Names::default();
        let mounts = match fs::read("/proc/self/mountinfo") {
            Ok(text) => mounts::parse(&text),
            Err(error) => {
                found.incomplete = Some(format!("/proc/self/mountinfo: {error}"));
                HashMap::new()
            }
        };
        Self { mounts, until, found }
    }

    pub(super) fn finish(self) -> Names {
        self.found
    }

    /// Looks at a file, or at everything below a directory. What does not exist has no names.
    pub(super) fn go(&mut self, place: &[u8]) {
        let Some(mount) = self.mount_of(place) else { return };
        let place = PathBuf::from(OsStr::from_bytes(place));
        match fs::symlink_metadata(&place) {
            Ok(meta) if meta.is_dir() => {}
            Ok(meta) => return self.note(place, &meta, &mount),
            Err(error) => return self.fail(&place, &error),
        }
        let mut left = vec![(place, mount)];
        while let Some((directory, mount)) = left.pop() {
            if self.is_over(&directory) {
                return;
            }
            if !mount.local {
                continue;
            }
            if let Err(error) = self.look(&directory, &mount, &mut left) {
                self.fail(&directory, &error);
            }
        }
    }

    /// Whether there is no time left; whoever waits for the walk waits no longer than that.
    fn is_over(&mut self, at: &Path) -> bool {
        let over = Instant::now() > self.until;
        if over {
            let reason = format!("the time for looking was over at {}", at.display());
            self.found.incomplete.get_or_insert(reason);
        }
        over
    }

    fn fail(&mut self, at: &Path, error: &io::Error) {
        if !matches!(error.kind(), io::ErrorKind::NotFound | io::ErrorKind::NotADirectory) {
            self.found.incomplete.get_or_insert(format!("{}: {error}", at.display()));
        }
    }

    fn note(&mut self, path: PathBuf, meta: &fs::Metadata, mount: &Mount) {
        if mount.local && meta.nlink() > 1 {
            let path = path.into_os_string().into_encoded_bytes();
            // A file that is mounted on its own belongs to its own file system.
            let device = self.mounts.get(&path).unwrap_or(mount).device;
            self.found.names.push(LinkName { device, inode: meta.ino(), path });
        }
    }

    fn look(&mut self, directory: &Path, mount: &Mount, left: &mut Vec<(PathBuf, Mount)>) -> io::Result<()> {
        for (number, entry) in fs::read_dir(directory)?.enumerate() {
            // One directory may hold a million.
            if number % 256 == 255 && self.is_over(directory) {
                break;
            }
            let entry = entry?;
            let path = entry.path();
            if entry.file_type()?.is_dir() {
                let at = self.mounts.get(path.as_os_str().as_bytes()).unwrap_or(mount).clone();
                left.push((path, at));
                continue;
            }
            // Whatever was removed in between has no name any more.
            let Ok(meta) = entry.metadata() else { continue };
            self.note(path, &meta, mount);
        }
        Ok(())
    }

    /// The mount that a directory lies on.
    fn mount_of(&self, place: &[u8]) -> Option<Mount> {
        let path = Path::new(OsStr::from_bytes(place));
        path.ancestors().find_map(|above| self.mounts.get(above.as_os_str().as_bytes()).cloned())
    }
}
