//! Agents whose policy was replaced and whose sessions have not been looked at yet, on disk: a daemon that dies in
//! between leaves that to the next one.

use std::{
    collections::BTreeSet,
    fs::{self, File},
    io,
    path::{Path, PathBuf},
};

/// One empty file for each agent.
#[derive(Default)]
pub(super) struct Pending {
    directory: PathBuf,
    agents: BTreeSet<String>,
}

impl Pending {
    /// What an earlier daemon has left in the state directory.
    pub(super) fn load(state: &Path) -> Self {
        let directory = state.join("tightening");
        let agents = match fs::read_dir(&directory) {
            Ok(entries) => {
                entries.flatten().filter_map(|entry| entry.file_name().into_string().ok()).collect()
            }
            Err(error) => {
                if error.kind() != io::ErrorKind::NotFound {
                    tracing::error!(%error, "cannot read {}", directory.display());
                }
                BTreeSet::new()
            }
        };
        Self { directory, agents }
    }

    /// Whether an earlier daemon has not come to the end with this agent.
    pub(super) fn has(&self, agent: &str) -> bool {
        self.agents.contains(agent)
    }

    /// Before the policy is replaced. When this returns it survives a crash of the host. Agents' ids are names of files
    /// (see `crate::policy`).
    pub(super) fn begin(&mut self, agent: &str) {
        let kept = || -> io::Result<()> {
            fs::create_dir_all(&self.directory)?;
            File::create(self.directory.join(agent))?.sync_all()?;
            File::open(&self.directory)?.sync_all()
        };
        if let Err(error) = kept() {
            tracing::error!(%error, "a restart would not know that sessions of {agent} are to be looked at");
        }
    }

    /// Its sessions have been looked at.
    pub(super) fn done(&mut self, agent: &str) {
        self.agents.remove(agent);
        match fs::remove_file(self.directory.join(agent)) {
            Err(error) if error.kind() != io::ErrorKind::NotFound => {
                tracing::warn!(%error, "sessions of {agent} will be looked at again after a restart");
            }
            _ => {}
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_was_begun_and_not_done_is_known_to_the_next() {
        let dir = tempfile::tempdir().expect("dir");
        let mut first = Pending::load(dir.path());
        first.begin("a");
        first.begin("b");
        first.done("b");
        assert!(!first.has("a"), "this daemon does it itself");
        let mut next = Pending::load(dir.path());
        assert!(next.has("a") && !next.has("b"));
        next.done("a");
        assert!(!next.has("a") && !Pending::load(dir.path()).has("a"));
    }
}
