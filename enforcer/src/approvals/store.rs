//! The queue on the disk: a journal of what has changed, begun anew with the whole when it has grown. It counts for the
//! boot that it was written in; after another one nobody waits any more. So it has to outlive the daemon, not the host,
//! and a change waits for no disk.

use super::{
    queue::{Change, Kept},
    sealed::write_whole,
};
use crate::event::text::hex;
use serde::{Deserialize, Serialize};
use sha2::{Digest, Sha256};
use std::{
    fs::{self, File, OpenOptions},
    io::{self, Write},
    path::{Path, PathBuf},
};

/// Bytes of changes that are always worth less than writing the whole anew.
const LITTLE: usize = 256 << 10;

/// Where something is kept.
#[derive(Debug)]
pub struct Store {
    file: PathBuf,
    journal: Option<Journal>,
}

/// What this daemon has written.
#[derive(Debug)]
struct Journal {
    file: File,
    /// What the file says by now.
    kept: Kept,
    /// Digest of all its lines.
    chain: [u8; 32],
    /// Bytes of its first line, and of those after it.
    sizes: [usize; 2],
}

/// The first line: the whole.
#[derive(Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
struct First {
    boot: String,
    kept: Kept,
}

impl Store {
    /// The store in the daemon's state directory.
    pub fn new(state: &Path) -> Self {
        Self { file: state.join("approvals/queue.jsonl"), journal: None }
    }

    /// Keeps the queue. When this returns it survives the daemon.
    pub fn keep(&mut self, boot: &str, kept: &Kept) -> io::Result<()> {
        // What a failed write has left behind is unknown: then, too, it is begun anew.
        let journal = self.journal.take();
        let journal = journal.filter(|journal| journal.sizes[1] <= LITTLE.max(4 * journal.sizes[0]));
        let journal = match journal {
            Some(journal) => journal.append(kept)?,
            None => self.begin(boot, kept)?,
        };
        self.journal = Some(journal);
        Ok(())
    }

    fn begin(&self, boot: &str, kept: &Kept) -> io::Result<Journal> {
        let first = First { boot: boot.to_owned(), kept: kept.clone() };
        let (line, chain) = line([0; 32], &serde_json::to_vec(&first)?);
        write_whole(&self.file, &line)?;
        let file = OpenOptions::new().append(true).open(&self.file)?;
        Ok(Journal { file, kept: first.kept, chain, sizes: [line.len(), 0] })
    }

    /// Reads the queue: nothing where there is none or it is of another boot, an error where it is damaged.
    pub fn load(&self, boot: &str) -> Result<Kept, String> {
        let bytes = match fs::read(&self.file) {
            Ok(bytes) => bytes,
            Err(e) if e.kind() == io::ErrorKind::NotFound => return Ok(Kept::default()),
            Err(e) => return Err(format!("{}: {e}", self.file.display())),
        };
        parse(&bytes, boot).map_err(|why| format!("{}: {why}", self.file.display()))
    }
}

impl Journal {
    fn append(mut self, kept: &Kept) -> io::Result<Self> {
        let change = kept.since(&self.kept);
        if change.is_empty() {
            return Ok(self);
        }
        let (line, chain) = line(self.chain, &serde_json::to_vec(&change)?);
        self.file.write_all(&line)?;
        (self.kept, self.chain) = (kept.clone(), chain);
        self.sizes[1] += line.len();
        Ok(self)
    }
}

/// A line with a digest of it and of all before it, and that digest.
fn line(before: [u8; 32], json: &[u8]) -> (Vec<u8>, [u8; 32]) {
    let chain: [u8; 32] = Sha256::new().chain_update(before).chain_update(json).finalize().into();
    ([hex(&chain).as_bytes(), b" ", json, b"\n"].concat(), chain)
}

fn parse(bytes: &[u8], boot: &str) -> Result<Kept, String> {
    let (mut chain, mut kept) = ([0; 32], None::<Kept>);
    for (number, text) in bytes.split_inclusive(|byte| *byte == b'\n').enumerate() {
        // The daemon was ended while it wrote: nothing followed from what it had not kept.
        let Some(text) = text.strip_suffix(b"\n") else { break };
        let damaged = || format!("line {}: it is damaged", number + 1);
        let json = text.get(65..).ok_or_else(damaged)?;
        let whole = line(chain, json);
        if whole.0.strip_suffix(b"\n") != Some(text) {
            return Err(damaged());
        }
        chain = whole.1;
        let wrong = |e: serde_json::Error| format!("line {}: {e}", number + 1);
        match &mut kept {
            None => {
                let first: First = serde_json::from_slice(json).map_err(wrong)?;
                if first.boot != boot {
                    return Ok(Kept::default());
                }
                kept = Some(first.kept);
            }
            Some(kept) => kept.apply(serde_json::from_slice::<Change>(json).map_err(wrong)?),
        }
    }
    kept.ok_or_else(|| "it has no first line".to_owned())
}
