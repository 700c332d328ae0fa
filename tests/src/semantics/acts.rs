//! The acts: what is tried, what the reference says about it, and how it is done.

use super::{generate::Tree, random::Random};
use enforcer::policy::{
    Image, ValidPolicy,
    reference::{self, Rename},
};
use enforcer_common::{access::file, map::TierMap, verdict::Verdict};
use std::{
    ffi::CString,
    fs, io,
    os::unix::{ffi::OsStrExt, fs::PermissionsExt},
    path::Path,
};

/// Something that a worker tries. Each leaves the tree as it was, or says how to mend it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Act {
    /// Open for reading.
    Read(String),
    /// Open for writing.
    Write(String),
    /// Open for writing and truncate.
    Cut(String),
    /// `truncate`.
    Truncate(String),
    /// `chmod`.
    Mode(String),
    /// Open a directory.
    List(String),
    /// Create a file that is not there; removed again by the outside.
    Create(String),
    /// Make a directory that is not there.
    Directory(String),
    /// Remove a file; made again by the outside.
    Delete(String),
    /// Rename a file or a directory to a name that is free.
    Rename(String, String),
    /// Rename a file over another one.
    Replace(String, String),
    /// Link a file to a name that is free.
    Link(String, String),
}

/// A random act on the tree below `root`.
pub fn random_act(random: &mut Random, root: &str, tree: &Tree) -> Act {
    let file = |random: &mut Random| format!("{root}{}", random.of(&tree.files));
    let directory = |random: &mut Random| format!("{root}{}", random.of(&tree.directories));
    let new = |random: &mut Random| format!("{}/new{}", directory(random), random.of(&["", ".rs", "a", "b"]));
    match random.below(24) {
        0..6 => Act::Read(file(random)),
        6..9 => Act::Write(file(random)),
        9 => Act::Cut(file(random)),
        10 => Act::Truncate(file(random)),
        11 => Act::Mode(file(random)),
        12..15 => Act::List(directory(random)),
        15..17 => Act::Create(new(random)),
        17 => Act::Directory(new(random)),
        18..20 => Act::Delete(file(random)),
        20 => Act::Rename(file(random), new(random)),
        21 => Act::Rename(directory(random), new(random)),
        22 => Act::Replace(file(random), file(random)),
        _ => Act::Link(file(random), new(random)),
    }
}

impl Act {
    /// Whether it can be tried at all (a directory does not fit into itself, a file not over itself).
    pub fn makes_sense(&self) -> bool {
        match self {
            Self::Rename(from, to) => !to.starts_with(&format!("{from}/")),
            Self::Replace(from, to) => from != to,
            _ => true,
        }
    }

    /// Whether names come or go by it.
    pub fn changes_names(&self) -> bool {
        !matches!(
            self,
            Self::Read(_) | Self::Write(_) | Self::Cut(_) | Self::Truncate(_) | Self::Mode(_) | Self::List(_)
        )
    }

    /// Whether a refusal may come after an effect: a file may be made by somebody who may not open it.
    pub fn may_leave_something(&self) -> bool {
        matches!(self, Self::Create(_))
    }

    /// Whether the reference allows it.
    pub fn expected(&self, policy: &ValidPolicy, image: &Image, tiers: &TierMap) -> bool {
        let one = |path: &str, want| reference::file_verdict(policy, path.as_bytes(), want, tiers).0;
        let verdict = match self {
            Self::Read(path) => one(path, file::READ),
            Self::Write(path) => one(path, file::WRITE),
            Self::Cut(path) => one(path, file::WRITE | file::TRUNCATE),
            Self::Truncate(path) => one(path, file::TRUNCATE),
            Self::Mode(path) => one(path, file::METADATA),
            Self::List(path) => one(path, file::LIST),
            // The name is decided first, then the opening of what it names.
            Self::Create(path) => one(path, file::CREATE).max(one(path, file::WRITE)),
            Self::Directory(path) => one(path, file::CREATE),
            Self::Delete(path) => one(path, file::DELETE),
            Self::Link(from, to) => reference::link_verdict(policy, from.as_bytes(), to.as_bytes(), tiers).0,
            Self::Rename(from, to) | Self::Replace(from, to) => {
                let rename = Rename {
                    from: from.as_bytes(),
                    to: to.as_bytes(),
                    is_directory: Path::new(from).is_dir(),
                    replaces: matches!(self, Self::Replace(..)),
                };
                reference::rename_verdict(policy, image, &rename, tiers).0
            }
        };
        verdict == Verdict::Allow
    }

    /// Does it, as the process that runs this.
    pub fn perform(&self) -> io::Result<()> {
        let open = |path: &str, options: &fs::OpenOptions| options.open(path).map(drop);
        match self {
            Self::Read(path) => open(path, fs::OpenOptions::new().read(true)),
            Self::Write(path) => open(path, fs::OpenOptions::new().write(true)),
            Self::Cut(path) => open(path, fs::OpenOptions::new().write(true).truncate(true)),
            Self::Truncate(path) => truncate(path),
            Self::Mode(path) => fs::set_permissions(path, fs::Permissions::from_mode(0o644)),
            Self::List(path) => fs::read_dir(path).map(drop),
            Self::Create(path) => open(path, fs::OpenOptions::new().write(true).create_new(true)),
            Self::Directory(path) => fs::create_dir(path),
            Self::Delete(path) => fs::remove_file(path),
            Self::Rename(from, to) | Self::Replace(from, to) => fs::rename(from, to),
            Self::Link(from, to) => fs::hard_link(from, to),
        }
    }

    /// Undoes it from outside, where it happened.
    pub fn mend(&self) -> io::Result<()> {
        match self {
            Self::Create(path) => remove(path),
            Self::Directory(path) => fs::remove_dir(path).or_else(absent),
            Self::Delete(path) => fs::write(path, b""),
            Self::Link(_, to) => remove(to),
            Self::Rename(from, to) if Path::new(to).exists() => fs::rename(to, from),
            Self::Replace(from, to) => fs::write(from, b"").and_then(|()| fs::write(to, b"")),
            _ => Ok(()),
        }
    }

    /// One line for the worker.
    pub fn to_line(&self) -> String {
        let (name, paths) = match self {
            Self::Read(a) => ("read", vec![a]),
            Self::Write(a) => ("write", vec![a]),
            Self::Cut(a) => ("cut", vec![a]),
            Self::Truncate(a) => ("truncate", vec![a]),
            Self::Mode(a) => ("mode", vec![a]),
            Self::List(a) => ("list", vec![a]),
            Self::Create(a) => ("create", vec![a]),
            Self::Directory(a) => ("directory", vec![a]),
            Self::Delete(a) => ("delete", vec![a]),
            Self::Rename(a, b) => ("rename", vec![a, b]),
            Self::Replace(a, b) => ("replace", vec![a, b]),
            Self::Link(a, b) => ("link", vec![a, b]),
        };
        let mut line = name.to_owned();
        for path in paths {
            line.push('\t');
            line.push_str(path);
        }
        line
    }

    /// Reads [`Self::to_line`].
    pub fn from_line(line: &str) -> Option<Self> {
        let mut words = line.split('\t').map(str::to_owned);
        let name = words.next()?;
        let (a, b) = (words.next()?, words.next().unwrap_or_default());
        Some(match name.as_str() {
            "read" => Self::Read(a),
            "write" => Self::Write(a),
            "cut" => Self::Cut(a),
            "truncate" => Self::Truncate(a),
            "mode" => Self::Mode(a),
            "list" => Self::List(a),
            "create" => Self::Create(a),
            "directory" => Self::Directory(a),
            "delete" => Self::Delete(a),
            "rename" => Self::Rename(a, b),
            "replace" => Self::Replace(a, b),
            "link" => Self::Link(a, b),
            _ => return None,
        })
    }
}

fn remove(path: &str) -> io::Result<()> {
    fs::remove_file(path).or_else(absent)
}

fn absent(error: io::Error) -> io::Result<()> {
    if error.kind() == io::ErrorKind::NotFound { Ok(()) } else { Err(error) }
}

/// `truncate(2)`: the standard library only cuts what it has opened.
fn truncate(path: &str) -> io::Result<()> {
    let path = CString::new(Path::new(path).as_os_str().as_bytes())?;
    // SAFETY: a terminated path that outlives the call.
    if unsafe { libc::truncate(path.as_ptr(), 0) } == 0 { Ok(()) } else { Err(io::Error::last_os_error()) }
}
