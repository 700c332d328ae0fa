//! Directories that somebody outside moves between two acts: what is remembered of their names must not outlive that,
//! whatever else is being renamed at the same time.

use super::{acts::Act, generate::Tree, random::Random};
use std::{
    ffi::CString,
    fs, io,
    os::unix::ffi::OsStrExt,
    path::Path,
    sync::{
        Arc,
        atomic::{AtomicBool, Ordering},
    },
    thread::JoinHandle,
};

/// A directory that gets another name, alone or in exchange with a file.
pub struct Move {
    from: String,
    to: String,
    exchange: bool,
    /// Files below it, relative.
    below: Vec<String>,
}

/// A random one of a directory that has files, unless the tree has none.
pub fn random(random: &mut Random, root: &str, tree: &Tree) -> Option<Move> {
    let files_below = |directory: &str| -> Vec<String> {
        tree.files
            .iter()
            .filter_map(|file| file.strip_prefix(directory)?.strip_prefix('/'))
            .map(str::to_owned)
            .collect()
    };
    let directories: Vec<&String> =
        tree.directories.iter().filter(|directory| !files_below(directory).is_empty()).collect();
    if directories.is_empty() {
        return None;
    }
    let from = (*random.of(&directories)).clone();
    let inside =
        |path: &str| path == from || path.strip_prefix(&from).is_some_and(|rest| rest.starts_with('/'));
    let others: Vec<&String> = tree.files.iter().filter(|file| !inside(file)).collect();
    let exchange = !others.is_empty() && random.chance(40);
    let to = if exchange {
        (*random.of(&others)).clone()
    } else {
        let parents: Vec<&String> = tree.directories.iter().filter(|directory| !inside(directory)).collect();
        let parent = if parents.is_empty() { String::new() } else { (*random.of(&parents)).clone() };
        format!("{parent}/moved{}", random.of(&["", ".rs", "secret"]))
    };
    let below = files_below(&from).into_iter().take(8).collect();
    Some(Move { from: format!("{root}{from}"), to: format!("{root}{to}"), exchange, below })
}

impl Move {
    /// What is tried while the directory has its old name.
    pub fn before(&self) -> Vec<Act> {
        Self::acts(&self.from, &self.below)
    }

    /// What is tried under the new one.
    pub fn after(&self) -> Vec<Act> {
        Self::acts(&self.to, &self.below)
    }

    fn acts(directory: &str, below: &[String]) -> Vec<Act> {
        let files = below.iter().map(|name| format!("{directory}/{name}"));
        let mut acts: Vec<Act> = files.flat_map(|path| [Act::Read(path.clone()), Act::Write(path)]).collect();
        acts.push(Act::List(directory.to_owned()));
        acts
    }

    /// Does it.
    pub fn perform(&self) -> io::Result<()> {
        rename(&self.from, &self.to, self.exchange)
    }

    /// Undoes it.
    pub fn undo(&self) -> io::Result<()> {
        rename(&self.to, &self.from, self.exchange)
    }
}

fn rename(from: &str, to: &str, exchange: bool) -> io::Result<()> {
    let path = |path: &str| CString::new(Path::new(path).as_os_str().as_bytes());
    let (from, to) = (path(from)?, path(to)?);
    let flags = if exchange { libc::RENAME_EXCHANGE } else { libc::RENAME_NOREPLACE };
    // SAFETY: terminated paths that outlive the call.
    let done = unsafe { libc::renameat2(libc::AT_FDCWD, from.as_ptr(), libc::AT_FDCWD, to.as_ptr(), flags) };
    if done == 0 { Ok(()) } else { Err(io::Error::last_os_error()) }
}

/// Renames files without a pause, and now and then a directory, until it is dropped.
pub struct Shuffler {
    over: Arc<AtomicBool>,
    thread: Option<JoinHandle<()>>,
}

impl Shuffler {
    /// Starts, in a directory of its own beside the tree.
    pub fn start(root: &str) -> io::Result<Self> {
        let place = format!("{root}-shuffled");
        fs::create_dir_all(format!("{place}/d1"))?;
        fs::write(format!("{place}/f1"), b"")?;
        let over = Arc::new(AtomicBool::new(false));
        let told = Arc::clone(&over);
        let thread = std::thread::spawn(move || {
            let swap = |name: &str| {
                let (one, two) = (format!("{place}/{name}1"), format!("{place}/{name}2"));
                // Nothing else touches them, and what is compared says whether it mattered.
                let _ = fs::rename(&one, &two).and_then(|()| fs::rename(&two, &one));
            };
            for turn in 0u32.. {
                if told.load(Ordering::Relaxed) {
                    break;
                }
                swap("f");
                if turn % 64 == 0 {
                    swap("d");
                }
            }
        });
        Ok(Self { over, thread: Some(thread) })
    }
}

impl Drop for Shuffler {
    fn drop(&mut self) {
        self.over.store(true, Ordering::Relaxed);
        if let Some(thread) = self.thread.take() {
            let _ = thread.join();
        }
    }
}
