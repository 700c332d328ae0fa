//! One log on the disk, being appended to.
//!
//! Records pass three stages. *Flushed*: the operating system has them, in a full bundle or in the journal;
//! a killed daemon loses none. *Committed*: they are under a signed checkpoint and everything that it stands
//! on was forced to the disk before; the power failing takes none. Files get their name when they are
//! whole, the checkpoint comes last, and nothing that is committed is written again.

use super::{
    error::LogError,
    files::{Unsynced, versions},
    journal::{Journal, put_frame},
    leaf::Sealed,
    note::{Checkpoint, SecretKey},
    tile::{Kind, Tile, put_clear, put_entry},
    tree::{Edge, FullTile, Hash, TILE_HEIGHT, TILE_WIDTH, leaf_hash, partial_width},
};
use std::{
    collections::VecDeque,
    fs,
    path::{Path, PathBuf},
};

/// The checkpoint's name in a log's directory.
pub const CHECKPOINT: &str = "checkpoint";

/// Entries on their way into a bundle.
#[derive(Default)]
struct Bundle {
    entries: Vec<u8>,
    clear: Vec<u8>,
    count: usize,
}

/// How much of the unfinished bundle the operating system has.
#[derive(Clone, Copy, Default)]
struct Flushed {
    count: usize,
    entries: usize,
    clear: usize,
}

/// A log that can be appended to.
pub struct Store {
    directory: PathBuf,
    origin: String,
    signers: Vec<SecretKey>,
    edge: Edge,
    bundle: Bundle,
    flushed: Flushed,
    full: VecDeque<(u64, Bundle)>,
    tiles: VecDeque<FullTile>,
    journal: Journal,
    committed: u64,
    /// Nothing was committed since the log was opened.
    fresh: bool,
    unsynced: Unsynced,
}

impl Store {
    /// A log whose checkpoint stands at `edge`, with what the unfinished bundle holds by then.
    pub(super) fn at(
        directory: &Path,
        origin: &str,
        signers: Vec<SecretKey>,
        edge: Edge,
        unfinished: &[Sealed],
    ) -> Result<Self, LogError> {
        let mut bundle = Bundle::default();
        unfinished.iter().for_each(|record| bundle.add(&record.leaf, &record.clear));
        Ok(Self {
            directory: directory.to_owned(),
            origin: origin.to_owned(),
            signers,
            committed: edge.size(),
            edge,
            flushed: bundle.end(),
            bundle,
            full: VecDeque::new(),
            tiles: VecDeque::new(),
            journal: Journal::open(directory)?,
            fresh: true,
            unsynced: Unsynced::default(),
        })
    }

    /// Its directory.
    pub fn directory(&self) -> &Path {
        &self.directory
    }

    /// Its name.
    pub fn origin(&self) -> &str {
        &self.origin
    }

    /// Records in it, those under no checkpoint included.
    pub fn size(&self) -> u64 {
        self.edge.size()
    }

    /// Records under its checkpoint.
    pub fn committed(&self) -> u64 {
        self.committed
    }

    pub(super) fn journal(&mut self) -> &mut Journal {
        &mut self.journal
    }

    /// The entries and the clear parts of the bundle that is not full.
    pub(super) fn unfinished(&self) -> (&[u8], &[u8]) {
        (&self.bundle.entries, &self.bundle.clear)
    }

    /// The last record of the bundle that is not full, if it has any.
    pub fn last(&self) -> Option<&[u8]> {
        super::tile::entries(&self.bundle.entries).ok()?.pop()
    }

    /// From now on these keys sign.
    pub fn set_signers(&mut self, signers: Vec<SecretKey>) {
        self.signers = signers;
    }

    /// Takes a record; returns its hash. Nothing is written yet.
    pub fn append(&mut self, record: &Sealed) -> Hash {
        self.append_parts(&record.leaf, &record.clear)
    }

    /// The same, of a leaf and its clear part.
    pub fn append_parts(&mut self, leaf: &[u8], clear: &[u8]) -> Hash {
        self.bundle.add(leaf, clear);
        let hash = leaf_hash(leaf);
        let (full, tiles) = (&mut self.full, &mut self.tiles);
        let (bundle, flushed) = (&mut self.bundle, &mut self.flushed);
        self.edge.push(hash, &mut |tile| {
            if tile.level == 0 {
                let next = Bundle {
                    entries: Vec::with_capacity(bundle.entries.len()),
                    clear: Vec::with_capacity(bundle.clear.len()),
                    count: 0,
                };
                full.push_back((tile.number, std::mem::replace(bundle, next)));
                *flushed = Flushed::default();
            }
            tiles.push_back(tile);
        });
        hash
    }

    /// Says that what was appended so far is on the disk already, in the journal or in bundles.
    pub(super) fn note_flushed(&mut self) {
        self.flushed = self.bundle.end();
    }

    /// Hands what was appended to the operating system. After an error everything is kept and tried again
    /// by the next call.
    pub fn flush(&mut self) -> Result<(), LogError> {
        while let Some((number, bundle)) = self.full.front() {
            for (kind, bytes) in [(Kind::Entries, &bundle.entries), (Kind::Clear, &bundle.clear)] {
                let tile = Tile { kind, number: *number, width: TILE_WIDTH };
                self.unsynced.write(&self.directory.join(tile.path()), bytes)?;
            }
            self.full.pop_front();
            if self.full.is_empty() {
                // All of the journal is in bundles now.
                self.journal.cut(0)?;
            }
        }
        if self.flushed.count == self.bundle.count {
            return Ok(());
        }
        let mut frames = Vec::new();
        let first = self.edge.size() - (self.bundle.count - self.flushed.count) as u64;
        for (index, (leaf, clear)) in (first..).zip(self.bundle.after(self.flushed)) {
            put_frame(&mut frames, index, leaf, clear);
        }
        self.journal.append(&frames)?;
        self.flushed = self.bundle.end();
        Ok(())
    }

    /// Puts everything that was appended under a signed checkpoint, on the disk.
    pub fn commit(&mut self) -> Result<(), LogError> {
        self.flush()?;
        while let Some(tile) = self.tiles.front() {
            let bytes = tile.hashes.as_flattened();
            let place = Tile { kind: Kind::Hashes(tile.level), number: tile.number, width: TILE_WIDTH };
            self.unsynced.write(&self.directory.join(place.path()), bytes)?;
            self.tiles.pop_front();
        }
        // Upper tiles seldom change.
        let (fresh, committed) = (self.fresh, self.committed);
        let changed = |tile: &Tile| fresh || Tile::at(tile.kind, tile.number, committed) != Some(*tile);
        let partials = partials(&self.edge, &self.bundle);
        for (tile, bytes) in partials.into_iter().filter(|(tile, _)| changed(tile)) {
            self.unsynced.write(&self.directory.join(tile.path()), bytes)?;
        }
        self.unsynced.sync(&self.directory)?;
        write_checkpoint(&self.directory, &self.checkpoint(), &self.signers)?;
        let before = std::mem::replace(&mut self.committed, self.edge.size());
        self.fresh = false;
        self.prune(before);
        self.journal.cut(0)
    }

    fn checkpoint(&self) -> Checkpoint {
        Checkpoint { origin: self.origin.clone(), size: self.edge.size(), root: self.edge.root() }
    }

    /// Removes the versions of tiles that longer ones have replaced. What cannot be removed does no harm.
    fn prune(&self, before: u64) {
        let levels = (0..8u8).map(|level| (Kind::Hashes(level), level));
        for (kind, level) in levels.chain([(Kind::Entries, 0), (Kind::Clear, 0)]) {
            if partial_width(before, level) == 0 {
                continue;
            }
            let number = before >> (TILE_HEIGHT * (u32::from(level) + 1));
            let Some(current) = Tile::at(kind, number, self.committed) else { continue };
            for old in versions(&self.directory, current).unwrap_or_default() {
                if old.width < current.width {
                    let _ = fs::remove_file(self.directory.join(old.path()));
                }
            }
            if current.is_full() {
                let _ = fs::remove_dir(self.directory.join(current.partials()));
            }
        }
    }
}

/// The tiles at the right edge that are not full.
fn partials<'a>(edge: &'a Edge, bundle: &'a Bundle) -> Vec<(Tile, &'a [u8])> {
    let size = edge.size();
    let mut all = Vec::new();
    for (level, hashes) in (0u8..).zip(edge.levels()).filter(|(_, hashes)| !hashes.is_empty()) {
        let number = size >> (TILE_HEIGHT * (u32::from(level) + 1));
        let tile = Tile { kind: Kind::Hashes(level), number, width: hashes.len() };
        all.push((tile, hashes.as_flattened()));
        if level == 0 {
            all.push((Tile { kind: Kind::Entries, ..tile }, &bundle.entries[..]));
            all.push((Tile { kind: Kind::Clear, ..tile }, &bundle.clear[..]));
        }
    }
    all
}

/// Writes and syncs a signed checkpoint.
pub(super) fn write_checkpoint(
    directory: &Path,
    checkpoint: &Checkpoint,
    signers: &[SecretKey],
) -> Result<(), LogError> {
    let signers: Vec<&SecretKey> = signers.iter().collect();
    let note = checkpoint.sign(&signers).map_err(LogError::Sign)?;
    let (path, fresh) = (directory.join(CHECKPOINT), directory.join("checkpoint.tmp"));
    fs::write(&fresh, note).map_err(|e| LogError::io("write", &fresh, e))?;
    super::files::sync(&fresh)?;
    fs::rename(&fresh, &path).map_err(|e| LogError::io("replace", &path, e))?;
    super::files::sync(directory)
}

impl Bundle {
    fn add(&mut self, leaf: &[u8], clear: &[u8]) {
        put_entry(&mut self.entries, leaf);
        put_clear(&mut self.clear, clear);
        self.count += 1;
    }

    fn end(&self) -> Flushed {
        Flushed { count: self.count, entries: self.entries.len(), clear: self.clear.len() }
    }

    /// What came after `flushed`.
    fn after(&self, flushed: Flushed) -> impl Iterator<Item = (&[u8], &[u8])> {
        let entries = super::tile::entries(&self.entries[flushed.entries..]).unwrap_or_default();
        let clear = super::tile::clears(&self.clear[flushed.clear..]).unwrap_or_default();
        entries.into_iter().zip(clear)
    }
}
