//! The approvers' files as they are now. They are read for each decision, so that one that was taken away is gone.

use super::approver::Approvers;
use std::{
    fs::{self, File},
    io::{self, Read},
    os::unix::fs::{MetadataExt, OpenOptionsExt},
    path::{Path, PathBuf},
};

/// No approver's file is longer.
const LENGTH: u64 = 64 * 1024;

/// The approvers in a directory; files count if they and the directory are `owner`'s and nobody else can write them.
pub fn read(directory: &Path, owner: u32) -> Approvers {
    let mut files = match list(directory) {
        Ok(files) => files,
        Err(e) if e.kind() == io::ErrorKind::NotFound => return Approvers::default(),
        Err(e) => {
            return Approvers { known: Vec::new(), problems: vec![format!("{}: {e}", directory.display())] };
        }
    };
    files.sort();
    if let Err(problem) =
        fs::metadata(directory).map_err(|e| e.to_string()).and_then(|meta| safe(&meta, owner))
    {
        return Approvers {
            known: Vec::new(),
            problems: vec![format!("{}: {problem}", directory.display())],
        };
    }
    Approvers::read(files.into_iter().map(|file| one(&file, owner)))
}

fn list(directory: &Path) -> io::Result<Vec<PathBuf>> {
    let entries = fs::read_dir(directory)?.map(|entry| entry.map(|entry| entry.path()));
    let is_toml = |path: &PathBuf| path.extension().is_some_and(|extension| extension == "toml");
    Ok(entries.collect::<io::Result<Vec<_>>>()?.into_iter().filter(is_toml).collect())
}

fn one(path: &Path, owner: u32) -> Result<(String, String), String> {
    let shown = path.display().to_string();
    let open = || -> io::Result<File> {
        // Not a pipe that never answers, and no link to somebody else's file.
        fs::OpenOptions::new().read(true).custom_flags(libc::O_NOFOLLOW | libc::O_NONBLOCK).open(path)
    };
    let file = open().map_err(|e| format!("{shown}: {e}"))?;
    let meta = file.metadata().map_err(|e| format!("{shown}: {e}"))?;
    if !meta.is_file() {
        return Err(format!("{shown}: it is not a file"));
    }
    safe(&meta, owner).map_err(|problem| format!("{shown}: {problem}"))?;
    let mut text = String::new();
    file.take(LENGTH + 1).read_to_string(&mut text).map_err(|e| format!("{shown}: {e}"))?;
    if text.len() as u64 > LENGTH {
        return Err(format!("{shown}: it is longer than {LENGTH} bytes"));
    }
    Ok((shown, text))
}

fn safe(meta: &fs::Metadata, owner: u32) -> Result<(), String> {
    if meta.uid() != owner {
        return Err(format!("it belongs to user {}, not to user {owner}: chown it", meta.uid()));
    }
    if meta.mode() & 0o022 != 0 {
        return Err("others can write it: chmod go-w".to_owned());
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::super::approver::tests::file;
    use super::*;
    use std::os::unix::fs::{PermissionsExt, symlink};

    #[test]
    fn only_files_that_nobody_else_can_write_count() {
        let dir = tempfile::tempdir().expect("dir");
        let own = nix::unistd::geteuid().as_raw();
        let write = |name: &str, seed: u8, mode: u32| {
            let path = dir.path().join(name);
            fs::write(&path, file(name, name, seed, "agents = [\"*\"]\ntiers = [\"low\"]")).expect("write");
            fs::set_permissions(&path, fs::Permissions::from_mode(mode)).expect("chmod");
        };
        write("good.toml", 1, 0o644);
        write("group.toml", 2, 0o664);
        write("note.txt", 3, 0o644);
        symlink(dir.path().join("note.txt"), dir.path().join("link.toml")).expect("link");
        let approvers = read(dir.path(), own);
        assert_eq!(approvers.known.iter().map(|a| a.name.as_str()).collect::<Vec<_>>(), ["good.toml"]);
        assert_eq!(approvers.problems.len(), 2, "{:?}", approvers.problems);
        assert!(
            approvers.problems[0].contains("group.toml: others can write it"),
            "{:?}",
            approvers.problems
        );
        let others = read(dir.path(), own + 1);
        assert!(others.known.is_empty() && others.problems[0].contains("belongs to user"));
        fs::set_permissions(dir.path(), fs::Permissions::from_mode(0o777)).expect("chmod");
        assert!(read(dir.path(), own).known.is_empty());
        assert_eq!(read(&dir.path().join("none"), own), Approvers::default());
    }
}
