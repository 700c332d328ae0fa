//! Sessions whose cgroup is gone are ended; cgroups that the daemon has made and that nobody lives in any
//! more are removed.

use super::core::Core;
use crate::launch::cgroup;
use std::{
    collections::HashSet,
    fs,
    path::{Path, PathBuf},
};

impl Core {
    /// Whether it is time to look.
    pub fn sweep_due(&self) -> bool {
        self.sweep_due
    }

    /// Ends what has ended.
    pub fn sweep(&mut self) {
        self.sweep_due = false;
        // The list comes first: a session that is bound after it cannot be taken for one that has ended.
        let sessions = match self.enforcement.sessions() {
            Ok(sessions) => sessions,
            Err(error) => return tracing::error!(%error, "cannot list the sessions"),
        };
        let mut alive = HashSet::new();
        for root in self.settings.agents.roots.clone() {
            let path = directory(&self.settings.paths.cgroups, &root.path);
            self.remove_left_over(&path);
            match cgroup::ids_below(&path) {
                Ok(ids) => alive.extend(ids),
                // What cannot be told stays.
                Err(error) => return tracing::error!(%error, "cannot look below {}", path.display()),
            }
        }
        let mut ended = 0;
        for entry in sessions.iter().filter(|entry| !alive.contains(&entry.session.cgroup)) {
            match self.enforcement.end_session(entry.slot, entry.session.generation) {
                Ok(()) => ended += 1,
                Err(error) => tracing::error!(%error, "cannot end a session"),
            }
        }
        if ended > 0 {
            self.refill();
        }
        self.look_at_open_again(true);
    }

    /// Removes the cgroups of sessions that an earlier daemon has started and that have ended.
    fn remove_left_over(&self, root: &Path) {
        let Ok(children) = fs::read_dir(root) else { return };
        for child in children.flatten() {
            let path = child.path();
            let ours = child.file_name().as_encoded_bytes().starts_with(cgroup::PREFIX.as_bytes());
            if ours && !self.launching.contains(&path) && cgroup::populated(&path).is_ok_and(|p| !p) {
                // One that cannot be removed now is tried again the next time.
                let _ = cgroup::remove(&path);
            }
        }
    }
}

/// The directory of a cgroup.
pub(super) fn directory(cgroups: &Path, path: &str) -> PathBuf {
    cgroups.join(path.trim_start_matches('/'))
}
