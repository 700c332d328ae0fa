//! What each published policy number stands for, on disk: the kernel goes on naming policies by number while
//! no daemon runs, and only this tells the next daemon what it meant.

use crate::event::text::hex;
use serde::{Deserialize, Serialize};
use sha2::{Digest, Sha256};
use std::{
    fs::{self, File, OpenOptions},
    io::{self, Write},
    os::unix::fs::OpenOptionsExt,
    path::{Path, PathBuf},
};

/// A policy that was given a number.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Published {
    /// The number, as ring records have it.
    pub number: u32,
    /// The kernel's tables that gave it out: in others it means something else.
    pub tables: String,
    /// The agent, which is the policy's id.
    pub agent: String,
    /// The version that the policy says it has.
    pub version: u64,
    /// SHA-256 of the canonical policy, hexadecimal.
    pub digest: String,
    /// SHA-256 of the compiled tables, hexadecimal.
    pub image: String,
    /// Where the compiled tables lay in the arena.
    pub base: u32,
    /// The name under which the policy was read; rules are named with it.
    pub file: String,
    /// The policy's text: from it the rules are found again.
    pub text: String,
}

/// The directory with one file for each number.
pub struct Store {
    directory: PathBuf,
}

/// What the directory has.
#[derive(Debug, Default)]
pub struct Contents {
    /// The numbers that can be told.
    pub entries: Vec<Published>,
    /// Files that cannot be used, and why.
    pub broken: Vec<String>,
}

impl Store {
    /// The store in the daemon's state directory.
    pub fn new(state: &Path) -> Self {
        Self { directory: state.join("published") }
    }

    /// Where it is.
    pub fn directory(&self) -> &Path {
        &self.directory
    }

    /// Keeps an entry. When this returns it survives a crash of the host.
    pub fn keep(&self, entry: &Published) -> io::Result<()> {
        fs::create_dir_all(&self.directory)?;
        let fresh = self.directory.join(".new");
        let mut out = OpenOptions::new().write(true).create(true).truncate(true).mode(0o600).open(&fresh)?;
        out.write_all(&encode(entry)?)?;
        out.sync_all()?;
        fs::rename(&fresh, self.file(entry.number))?;
        File::open(&self.directory)?.sync_all()
    }

    /// Drops an entry. One that stays after all is told by its tables or its digest.
    pub fn forget(&self, number: u32) {
        match fs::remove_file(self.file(number)) {
            Err(error) if error.kind() != io::ErrorKind::NotFound => {
                tracing::warn!(%error, "cannot remove {}", self.file(number).display());
            }
            _ => {}
        }
    }

    /// Reads everything. Files whose content makes no sense are removed, so that they are said once.
    pub fn load(&self) -> Contents {
        let mut contents = Contents::default();
        let entries = match fs::read_dir(&self.directory) {
            Ok(entries) => entries,
            Err(error) => {
                if error.kind() != io::ErrorKind::NotFound {
                    contents.broken.push(format!("{}: {error}", self.directory.display()));
                }
                return contents;
            }
        };
        for path in entries.flatten().map(|entry| entry.path()).filter(|path| !is_hidden(path)) {
            let read = fs::read(&path).map_err(|e| e.to_string());
            let entry = read.and_then(|bytes| {
                let entry = decode(&bytes).filter(|entry| self.file(entry.number) == path);
                entry.ok_or_else(|| {
                    // It is as useless the next time.
                    let _ = fs::remove_file(&path);
                    "damaged".to_owned()
                })
            });
            match entry {
                Ok(entry) => contents.entries.push(entry),
                Err(why) => contents.broken.push(format!("{}: {why}", path.display())),
            }
        }
        contents
    }

    fn file(&self, number: u32) -> PathBuf {
        self.directory.join(format!("{number}.json"))
    }
}

/// What a crash may leave of an entry that was not complete.
fn is_hidden(path: &Path) -> bool {
    path.file_name().is_none_or(|name| name.as_encoded_bytes().starts_with(b"."))
}

/// One line with the digest of what follows, so that nothing damaged is taken for an attribution.
fn encode(entry: &Published) -> io::Result<Vec<u8>> {
    let json = serde_json::to_vec(entry)?;
    Ok([hex(&Sha256::digest(&json)).as_bytes(), b"\n", &json].concat())
}

fn decode(bytes: &[u8]) -> Option<Published> {
    let end = bytes.iter().position(|b| *b == b'\n')?;
    let (digest, json) = (&bytes[..end], &bytes[end + 1..]);
    let intact = hex(&Sha256::digest(json)).as_bytes() == digest;
    intact.then(|| serde_json::from_slice(json).ok())?
}

#[cfg(test)]
mod tests {
    use super::*;

    fn entry(number: u32) -> Published {
        Published {
            number,
            tables: "boot:7".to_owned(),
            agent: "bot".to_owned(),
            version: 3,
            digest: "ab".repeat(32),
            image: "cd".repeat(32),
            base: 64,
            file: "/etc/enforcer/policies.d/bot.yaml".to_owned(),
            text: "apiVersion: enforcer/v1\n# \u{202e}\n".to_owned(),
        }
    }

    #[test]
    fn what_is_kept_is_read_again_until_it_is_forgotten() {
        let dir = tempfile::tempdir().expect("dir");
        let store = Store::new(dir.path());
        assert!(store.load().entries.is_empty() && store.load().broken.is_empty());
        store.keep(&entry(1)).expect("keep");
        store.keep(&entry(2)).expect("keep");
        let mut found = store.load().entries;
        found.sort_by_key(|entry| entry.number);
        assert_eq!(found, [entry(1), entry(2)]);
        store.forget(1);
        store.forget(1);
        assert_eq!(store.load().entries, [entry(2)]);
    }

    #[test]
    fn a_damaged_entry_is_said_once_and_never_used() {
        let dir = tempfile::tempdir().expect("dir");
        let store = Store::new(dir.path());
        store.keep(&entry(1)).expect("keep");
        let path = store.directory().join("1.json");
        let whole = fs::read(&path).expect("read");
        let mut flipped = whole.clone();
        let at = flipped.len() - 20;
        flipped[at] ^= 1;
        for damage in [&whole[..whole.len() - 1], &flipped[..], b"", b"{}"] {
            fs::write(&path, damage).expect("write");
            let contents = store.load();
            assert!(contents.entries.is_empty() && contents.broken.len() == 1, "{contents:?}");
            assert!(store.load().broken.is_empty(), "it was said once");
        }
        // A whole entry under another number's name.
        fs::write(store.directory().join("2.json"), whole).expect("write");
        assert!(store.load().entries.is_empty());
    }

    #[test]
    fn what_a_crash_left_half_written_is_not_looked_at() {
        let dir = tempfile::tempdir().expect("dir");
        let store = Store::new(dir.path());
        store.keep(&entry(1)).expect("keep");
        fs::write(store.directory().join(".new"), "half").expect("write");
        assert!(store.load().broken.is_empty());
    }
}
