//! The cgroup of a session that the daemon has made.

use std::{
    fs, io,
    os::unix::fs::MetadataExt,
    path::{Path, PathBuf},
};

/// Names that begin so are the daemon's own. Those of systemd's scopes begin otherwise: systemd removes them.
pub const PREFIX: &str = "session-";

/// A directory below the root, made for one session.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct SessionCgroup {
    path: PathBuf,
    id: u64,
}

impl SessionCgroup {
    /// Makes a cgroup for a session.
    pub fn create(cgroups: &Path, root: &str, agent: &str, session: &str) -> io::Result<Self> {
        let path = cgroups.join(root.trim_start_matches('/')).join(format!("{PREFIX}{agent}-{session}"));
        fs::create_dir(&path)?;
        Self::at(path)
    }

    /// A cgroup that exists.
    pub fn at(path: PathBuf) -> io::Result<Self> {
        // The id of a cgroup is the inode number of its directory (kernfs_id(), include/linux/kernfs.h,
        // on 64-bit hosts).
        let id = fs::metadata(&path)?.ino();
        Ok(Self { path, id })
    }

    /// `cgroup_id()` of the kernel.
    pub fn id(&self) -> u64 {
        self.id
    }

    /// Its directory.
    pub fn path(&self) -> &Path {
        &self.path
    }

    /// The file through which processes enter.
    pub fn procs(&self) -> PathBuf {
        self.path.join("cgroup.procs")
    }

    /// Writes a limit. The parent must pass the controller on; where it does not, it is told to.
    pub fn limit(&self, controller: &str, file: &str, value: &str) -> io::Result<()> {
        let target = self.path.join(file);
        if !target.exists()
            && let Some(parent) = self.path.parent()
        {
            fs::write(parent.join("cgroup.subtree_control"), format!("+{controller}"))?;
        }
        // Never creates: on a real hierarchy a file that is not there cannot be made.
        fs::OpenOptions::new()
            .write(true)
            .open(target)
            .and_then(|mut f| io::Write::write_all(&mut f, value.as_bytes()))
    }

    /// Kills every process in it and below (cgroup.kill, Linux 5.14). In one that is gone there is nobody.
    pub fn kill(&self) -> io::Result<()> {
        // Never creates: only a real hierarchy has the file.
        let written = fs::OpenOptions::new()
            .write(true)
            .open(self.path.join("cgroup.kill"))
            .and_then(|mut file| io::Write::write_all(&mut file, b"1"));
        match written {
            Err(e) if is_gone(&e) && !self.path.exists() => Ok(()),
            other => other,
        }
    }

    /// Whether a process lives in it or below.
    pub fn populated(&self) -> io::Result<bool> {
        populated(&self.path)
    }

    /// Removes it and what is below it. Fails while a process lives there.
    pub fn remove(&self) -> io::Result<()> {
        remove(&self.path)
    }
}

/// What a file of a cgroup that is not there answers, or of one that goes away while the file is open.
fn is_gone(error: &io::Error) -> bool {
    error.kind() == io::ErrorKind::NotFound || error.raw_os_error() == Some(libc::ENODEV)
}

/// Whether a process lives in the cgroup or below.
pub fn populated(path: &Path) -> io::Result<bool> {
    match fs::read_to_string(path.join("cgroup.events")) {
        Ok(text) => Ok(!text.lines().any(|line| line == "populated 0")),
        Err(e) if is_gone(&e) => Ok(false),
        Err(e) => Err(e),
    }
}

/// Stops everything in a cgroup and below, or lets it go on.
pub fn freeze(path: &Path, freeze: bool) -> io::Result<()> {
    // Never creates: only a real hierarchy has the file.
    let written = fs::OpenOptions::new()
        .write(true)
        .open(path.join("cgroup.freeze"))
        .and_then(|mut file| io::Write::write_all(&mut file, if freeze { b"1" } else { b"0" }));
    match written {
        Err(e) if is_gone(&e) && !path.exists() => Ok(()),
        other => other,
    }
}

/// Whether it was told to stop.
pub fn is_frozen(path: &Path) -> io::Result<bool> {
    Ok(fs::read_to_string(path.join("cgroup.freeze"))?.trim() == "1")
}

/// Removes a cgroup and what is below it. One that is not there is not an error.
pub fn remove(path: &Path) -> io::Result<()> {
    let children = match fs::read_dir(path) {
        Ok(children) => children,
        Err(e) if e.kind() == io::ErrorKind::NotFound => return Ok(()),
        Err(e) => return Err(e),
    };
    for child in children.flatten() {
        if child.file_type().is_ok_and(|t| t.is_dir()) {
            remove(&child.path())?;
        }
    }
    match fs::remove_dir(path) {
        Err(e) if e.kind() != io::ErrorKind::NotFound => Err(e),
        _ => Ok(()),
    }
}

/// Cgroups that may lie below a root; a walk that meets more gives up.
const MOST: usize = 100_000;

/// The ids of every cgroup at `path` and below, or an error where it cannot be told.
pub fn ids_below(path: &Path) -> io::Result<Vec<u64>> {
    Ok(cgroups_below(path)?.into_iter().map(|(_, id)| id).collect())
}

/// The cgroup with this id, at `path` or below.
pub fn find(path: &Path, id: u64) -> Option<PathBuf> {
    cgroups_below(path).ok()?.into_iter().find_map(|(at, found)| (found == id).then_some(at))
}

/// Those of the cgroups `ids` at `path` or below in which a process lives.
pub fn populated_among(path: &Path, ids: &[u64]) -> io::Result<Vec<PathBuf>> {
    let mut found = Vec::new();
    for (at, id) in cgroups_below(path)? {
        if ids.contains(&id) && populated(&at)? {
            found.push(at);
        }
    }
    Ok(found)
}

/// Every cgroup at `path` and below with its id.
pub fn cgroups_below(path: &Path) -> io::Result<Vec<(PathBuf, u64)>> {
    let (mut ids, mut waiting) = (Vec::new(), vec![path.to_owned()]);
    while let Some(at) = waiting.pop() {
        let found =
            fs::metadata(&at).and_then(|meta| fs::read_dir(&at).map(|children| (meta.ino(), children)));
        let (id, children) = match found {
            Ok(found) => found,
            // A cgroup that goes away meanwhile is not there.
            Err(e) if e.kind() == io::ErrorKind::NotFound => continue,
            Err(e) => return Err(e),
        };
        if ids.len() >= MOST {
            return Err(io::Error::other("too many cgroups"));
        }
        for child in children {
            let child = child?;
            if child.file_type().is_ok_and(|t| t.is_dir()) {
                waiting.push(child.path());
            }
        }
        ids.push((at, id));
    }
    Ok(ids)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn two_sessions_never_share_a_cgroup() {
        let dir = tempfile::tempdir().expect("dir");
        fs::create_dir(dir.path().join("agents.slice")).expect("root");
        let a = SessionCgroup::create(dir.path(), "/agents.slice", "bot", "0a").expect("a");
        let b = SessionCgroup::create(dir.path(), "/agents.slice", "bot", "0b").expect("b");
        assert!(
            SessionCgroup::create(dir.path(), "/agents.slice", "bot", "0a").is_err(),
            "it is a session's"
        );
        assert_ne!(a.path(), b.path());
        assert_ne!(a.id(), b.id());
        let mut ids = ids_below(&dir.path().join("agents.slice")).expect("ids");
        ids.sort_unstable();
        assert!(ids.contains(&a.id()) && ids.contains(&b.id()) && ids.len() == 3);
        a.remove().expect("remove");
        a.remove().expect("twice is fine");
        assert!(b.path().exists());
    }

    #[test]
    fn killing_in_a_cgroup_that_is_gone_is_no_error() {
        let dir = tempfile::tempdir().expect("dir");
        fs::create_dir(dir.path().join("agents.slice")).expect("root");
        let session = SessionCgroup::create(dir.path(), "/agents.slice", "bot", "0a").expect("session");
        assert!(session.kill().is_err(), "it is there and cannot be told to kill");
        let file = session.path().join("cgroup.kill");
        fs::write(&file, "").expect("write");
        session.kill().expect("killed");
        assert_eq!(fs::read_to_string(&file).expect("read"), "1");
        fs::remove_file(file).expect("remove");
        session.remove().expect("remove");
        session.kill().expect("nobody is left");
    }

    #[test]
    fn a_cgroup_is_populated_unless_the_kernel_says_otherwise() {
        let dir = tempfile::tempdir().expect("dir");
        let events = dir.path().join("cgroup.events");
        fs::write(&events, "populated 1\nfrozen 0\n").expect("write");
        assert!(populated(dir.path()).expect("told"));
        fs::write(&events, "populated 0\nfrozen 0\n").expect("write");
        assert!(!populated(dir.path()).expect("told"));
        assert!(!populated(&dir.path().join("gone")).expect("told"));
    }
}
