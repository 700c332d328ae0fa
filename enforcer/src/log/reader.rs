//! Reading a log's records and the hashes for proofs, without verifying: for searching, exporting, proving.

use super::{
    error::LogError,
    files::{read, read_tile},
    leaf::Sealed,
    note::Checkpoint,
    retention::Truncation,
    store::CHECKPOINT,
    tile::{self, Kind, Tile},
    tree::{self, Hash, Nodes, TILE_HEIGHT, TILE_WIDTH},
};
use std::path::{Path, PathBuf};

/// A log that is read.
pub struct Reader {
    directory: PathBuf,
    /// Its checkpoint, whose signature nobody has looked at.
    pub checkpoint: Checkpoint,
    /// The signed note itself.
    pub note: Vec<u8>,
    /// Where its first records were removed: up to where, as nobody has checked.
    pub truncation: Option<Truncation>,
    bundle: Option<(u64, Vec<Sealed>)>,
}

impl Reader {
    /// Reads the checkpoint of a log.
    pub fn open(directory: &Path) -> Result<Self, LogError> {
        // First: the checkpoint that is read after it covers the record that it names.
        let truncation = Truncation::read(directory)?;
        let path = directory.join(CHECKPOINT);
        let note = read(&path)?.ok_or_else(|| LogError::damaged(&path, "the checkpoint is missing"))?;
        let checkpoint = Checkpoint::unverified(&note).map_err(|e| LogError::damaged(&path, e))?;
        Ok(Self { directory: directory.to_owned(), checkpoint, note, truncation, bundle: None })
    }

    /// Records under the checkpoint.
    pub fn size(&self) -> u64 {
        self.checkpoint.size
    }

    /// Index of the first record that is still there.
    pub fn first(&self) -> u64 {
        self.truncation.map_or(0, |truncation| truncation.to)
    }

    /// Record number `index`, for [`Reader::first`] <= index < [`Reader::size`].
    pub fn record(&mut self, index: u64) -> Result<Sealed, LogError> {
        if index < self.first() {
            return Err(LogError::damaged(
                &self.directory,
                format!("record {index} was removed by retention"),
            ));
        }
        let (number, at) = (index >> TILE_HEIGHT, (index % TILE_WIDTH as u64) as usize);
        if self.bundle.as_ref().is_none_or(|(have, _)| *have != number) {
            self.bundle = Some((number, self.read_bundle(number)?));
        }
        let records = self.bundle.as_ref().map(|(_, records)| records);
        let missing = || LogError::damaged(&self.directory, format!("record {index} is missing"));
        records.and_then(|records| records.get(at)).cloned().ok_or_else(missing)
    }

    fn read_bundle(&self, number: u64) -> Result<Vec<Sealed>, LogError> {
        let tile = |kind| {
            let tile = Tile::at(kind, number, self.size());
            tile.ok_or_else(|| LogError::damaged(&self.directory, format!("there is no bundle {number}")))
        };
        let entries = tile(Kind::Entries)?;
        let path = self.directory.join(entries.path());
        let (_, leaves) =
            read_tile(&self.directory, entries)?.ok_or_else(|| LogError::damaged(&path, "is missing"))?;
        let leaves = tile::entries(&leaves).map_err(|e| LogError::damaged(&path, e))?;
        // Clear parts may have been taken away on purpose.
        let clear = read_tile(&self.directory, tile(Kind::Clear)?)?.map(|(_, bytes)| bytes);
        let clears = clear.as_deref().and_then(|bytes| tile::clears(bytes).ok()).unwrap_or_default();
        let record = |(at, leaf): (usize, &&[u8])| Sealed {
            leaf: leaf.to_vec(),
            clear: clears.get(at).map(|clear| clear.to_vec()).unwrap_or_default(),
        };
        Ok(leaves.iter().enumerate().map(record).collect())
    }
}

impl Nodes for Reader {
    type Error = LogError;

    fn node(&mut self, height: u32, index: u64) -> Result<Hash, LogError> {
        let level = (height / TILE_HEIGHT) as u8;
        let below = height % TILE_HEIGHT;
        let first = index << below;
        let kind = Kind::Hashes(level);
        let damaged = |why: &str| LogError::damaged(&self.directory, format!("{kind:?} {first}: {why}"));
        let tile =
            Tile::at(kind, first >> TILE_HEIGHT, self.size()).ok_or_else(|| damaged("is not there"))?;
        let path = self.directory.join(tile.path());
        let (found, bytes) =
            read_tile(&self.directory, tile)?.ok_or_else(|| LogError::damaged(&path, "is missing"))?;
        let hashes = tile::hashes(&bytes, found.width).map_err(|e| LogError::damaged(&path, e))?;
        let from = (first % TILE_WIDTH as u64) as usize;
        hashes.get(from..from + (1 << below)).map(tree::root_of).ok_or_else(|| damaged("is too short"))
    }
}
