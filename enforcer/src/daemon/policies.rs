//! The policy directory: files in, checked policies out.

use super::{
    canary,
    loaded::{Kept, Loaded},
    progress,
    registry::{Claim, Reading},
};
use crate::{policy, settings::is_below};
use std::{
    collections::HashMap,
    fs::{self, File, OpenOptions},
    hash::{DefaultHasher, Hash, Hasher},
    io::{self, Read},
    os::unix::fs::{MetadataExt, OpenOptionsExt},
    path::{Path, PathBuf},
    rc::Rc,
};

/// The largest policy file that is read.
const MAXIMUM: u64 = 4 << 20;

/// A file of the directory.
#[derive(Clone, Debug)]
pub struct PolicyFile {
    /// Where it is.
    pub path: PathBuf,
    /// The policy, or what is wrong with the file.
    pub outcome: Result<Rc<Kept>, String>,
}

impl PolicyFile {
    /// What the plan needs to know of it.
    pub fn reading(&self) -> Reading {
        let claim =
            |kept: &Rc<Kept>| Claim { agent: kept.head().id().to_owned(), digest: kept.head().digest() };
        Reading { path: self.path.clone(), outcome: self.outcome.as_ref().map(claim).map_err(Clone::clone) }
    }
}

/// What the files said when they were good the last time.
pub type Known = HashMap<PathBuf, Rc<Kept>>;

/// The policies of a directory, in the order of their names. A directory that is not there is empty.
pub fn paths(directory: &Path) -> io::Result<Vec<PathBuf>> {
    let entries = match fs::read_dir(directory) {
        Ok(entries) => entries,
        Err(e) if e.kind() == io::ErrorKind::NotFound => return Ok(Vec::new()),
        Err(e) => return Err(e),
    };
    let mut paths = entries.map(|e| e.map(|e| e.path())).collect::<io::Result<Vec<_>>>()?;
    paths.retain(|path| is_policy(path));
    paths.sort();
    Ok(paths)
}

impl PolicyFile {
    /// Reads one of them. A text that is `known` is not compiled again.
    pub fn read(path: PathBuf, roots: &[String], known: &Known) -> Self {
        progress::goes_on();
        let outcome = read(&path).and_then(|text| match known.get(&path) {
            Some(kept) if kept.text() == text => Ok(Rc::clone(kept)),
            _ => check(&path, text, roots).map(Rc::new),
        });
        Self { path, outcome }
    }
}

/// What tells a directory of policies from how it was: names, sizes and times of change. A directory that is not
/// there is empty.
pub fn fingerprint(directory: &Path) -> io::Result<u64> {
    let entries = match fs::read_dir(directory) {
        Ok(entries) => entries,
        Err(e) if e.kind() == io::ErrorKind::NotFound => return Ok(0),
        Err(e) => return Err(e),
    };
    let mut files = Vec::new();
    for entry in entries {
        let path = entry?.path();
        if is_policy(&path) {
            // One that cannot be looked at is told from one that can.
            let meta = fs::metadata(&path).ok();
            // The bytes of a name: as a path it is taken apart with each comparison.
            files.push((
                path.into_os_string(),
                meta.map(|m| (m.ino(), m.len(), m.mtime(), m.mtime_nsec(), m.ctime(), m.ctime_nsec())),
            ));
        }
    }
    files.sort();
    let mut hasher = DefaultHasher::new();
    files.hash(&mut hasher);
    Ok(hasher.finish())
}

/// Whether a file of the directory is meant to be a policy: editors leave others.
pub fn is_policy(path: &Path) -> bool {
    let hidden = path.file_name().is_none_or(|name| name.as_encoded_bytes().starts_with(b"."));
    !hidden && path.extension().is_some_and(|e| ["yaml", "yml", "json"].iter().any(|known| e == *known))
}

/// Reads and compiles one policy, and checks what only this host knows.
pub fn load(path: &Path, roots: &[String]) -> Result<Kept, String> {
    check(path, read(path)?, roots)
}

fn check(path: &Path, text: String, roots: &[String]) -> Result<Kept, String> {
    let name = path.display().to_string();
    let policy = policy::parse(&name, &text).map_err(|errors| errors.render(false))?;
    if policy.id() == canary::AGENT {
        return Err(format!("{name}: the id {} is the daemon's own; choose another", canary::AGENT));
    }
    for glob in policy.cgroups() {
        let glob = glob.text();
        if !roots.iter().any(|root| glob != *root && is_below(glob, root)) {
            return Err(format!(
                "{name}: match.cgroup {glob} lies below none of the roots ({}): nothing there is governed",
                roots.join(", ")
            ));
        }
    }
    let loaded = Loaded::new(&name, policy)?;
    Ok(Kept::new(name, text, loaded))
}

/// Reads a file that only root can have written: whoever writes a policy decides what agents may do.
fn read(path: &Path) -> Result<String, String> {
    let wrong = |e: io::Error| format!("{}: {e}", path.display());
    let file: File = OpenOptions::new()
        .read(true)
        .custom_flags(libc::O_CLOEXEC | libc::O_NONBLOCK)
        .open(path)
        .map_err(wrong)?;
    let meta = file.metadata().map_err(wrong)?;
    let shown = path.display();
    if !meta.is_file() {
        return Err(format!("{shown}: not a regular file"));
    }
    if meta.uid() != 0 && meta.uid() != nix::unistd::geteuid().as_raw() {
        return Err(format!("{shown}: belongs to user {}; chown root it", meta.uid()));
    }
    if meta.mode() & 0o022 != 0 {
        return Err(format!("{shown}: others than its owner can write it; chmod go-w it"));
    }
    if meta.len() > MAXIMUM {
        return Err(format!("{shown}: larger than {MAXIMUM} bytes"));
    }
    let mut text = String::new();
    file.take(MAXIMUM).read_to_string(&mut text).map_err(wrong)?;
    Ok(text)
}

/// Where the last good text of each policy file is kept, so that a broken file does not take its agent's
/// policy away when the daemon restarts.
pub struct LastGood {
    directory: PathBuf,
}

impl LastGood {
    /// The store in the daemon's state directory.
    pub fn new(state: &Path) -> Self {
        Self { directory: state.join("last-good") }
    }

    fn file(&self, policy: &Path) -> Option<PathBuf> {
        policy.file_name().map(|name| self.directory.join(name))
    }

    /// Keeps the text of a policy that is in force now.
    pub fn keep(&self, policy: &Path, text: &str) -> io::Result<()> {
        let Some(file) = self.file(policy) else { return Ok(()) };
        // After a restart it is there for each of maybe many agents.
        if fs::read(&file).is_ok_and(|kept| kept == text.as_bytes()) {
            return Ok(());
        }
        fs::create_dir_all(&self.directory)?;
        let fresh = self.directory.join(".new");
        let mut out = OpenOptions::new().write(true).create(true).truncate(true).mode(0o600).open(&fresh)?;
        io::Write::write_all(&mut out, text.as_bytes())?;
        out.sync_all()?;
        fs::rename(fresh, file)
    }

    /// The policy that was in force from this file.
    pub fn load(&self, policy: &Path, roots: &[String]) -> Option<Kept> {
        load(&self.file(policy)?, roots).ok()
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::os::unix::fs::PermissionsExt;

    /// A policy that is valid and small.
    pub(crate) fn text(agent: &str, glob: &str) -> String {
        format!(
            "apiVersion: enforcer/v1\nkind: AgentPolicy\n\
             metadata: {{ id: {agent}, version: 1, owner: a@example.com, purpose: Test }}\n\
             match: {{ cgroup: \"{glob}\" }}\n\
             files:\n  - {{ allow: [read], paths: [\"/workspace/**\"] }}\n"
        )
    }

    fn roots() -> Vec<String> {
        vec!["/agents.slice".to_owned()]
    }

    #[test]
    fn policies_are_read_in_order_and_other_files_left_alone() {
        let dir = tempfile::tempdir().expect("dir");
        for (name, agent) in [("b.yaml", "b"), ("a.yml", "a")] {
            let glob = format!("/agents.slice/{agent}/*");
            fs::write(dir.path().join(name), text(agent, &glob)).expect("write");
        }
        for name in ["README", ".hidden.yaml", "a.yaml~", "c.yaml.swp"] {
            fs::write(dir.path().join(name), "x").expect("write");
        }
        let files = paths(dir.path()).expect("read").into_iter();
        let read = files.map(|path| PolicyFile::read(path, &roots(), &Known::new()).reading());
        let agents: Vec<_> = read.map(|reading| reading.outcome.expect("good").agent).collect();
        assert_eq!(agents, ["a", "b"]);
        assert!(paths(&dir.path().join("none")).expect("empty").is_empty());
    }

    #[test]
    fn a_broken_policy_is_named_with_line_and_column() {
        let dir = tempfile::tempdir().expect("dir");
        let path = dir.path().join("a.yaml");
        fs::write(&path, text("a", "/agents.slice/a") + "fils: []\n").expect("write");
        let error = load(&path, &roots()).expect_err("broken");
        assert!(error.contains("a.yaml:7:1") && error.contains("fils"), "{error}");
    }

    #[test]
    fn a_cgroup_outside_every_root_is_refused() {
        let dir = tempfile::tempdir().expect("dir");
        let path = dir.path().join("a.yaml");
        for glob in ["/system.slice/*", "/agents.slice", "/agents.slices/x"] {
            fs::write(&path, text("a", glob)).expect("write");
            assert!(
                load(&path, &roots()).expect_err("refused").contains("below none of the roots"),
                "{glob}"
            );
        }
    }

    #[test]
    fn the_daemons_own_agent_cannot_be_claimed() {
        let dir = tempfile::tempdir().expect("dir");
        let path = dir.path().join("a.yaml");
        fs::write(&path, text(canary::AGENT, "/agents.slice/a")).expect("write");
        assert!(load(&path, &roots()).expect_err("refused").contains("the daemon's own"));
    }

    #[test]
    fn a_file_that_others_can_write_is_refused() {
        let dir = tempfile::tempdir().expect("dir");
        let path = dir.path().join("a.yaml");
        fs::write(&path, text("a", "/agents.slice/a")).expect("write");
        fs::set_permissions(&path, fs::Permissions::from_mode(0o664)).expect("chmod");
        assert!(load(&path, &roots()).expect_err("refused").contains("chmod go-w"));
        assert!(load(dir.path(), &roots()).expect_err("refused").contains("not a regular file"));
    }

    #[test]
    fn the_last_good_text_survives() {
        let dir = tempfile::tempdir().expect("dir");
        let store = LastGood::new(dir.path());
        let path = Path::new("/etc/enforcer/policies.d/a.yaml");
        assert!(store.load(path, &roots()).is_none());
        store.keep(path, &text("a", "/agents.slice/a")).expect("keep");
        assert_eq!(store.load(path, &roots()).expect("kept").head().id(), "a");
    }
}
