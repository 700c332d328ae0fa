//! Whether a log is complete and as it was signed. Trusts the public key that it is given and nothing else.

mod tiles;

use self::tiles::{TileFiles, cut_entries};
use super::{
    error::LogError,
    files::{self, read, read_tile},
    leaf,
    note::{Checkpoint, NoteError, PublicKey, Trusted},
    reader::Reader,
    retention::{self, Claim, Truncation},
    store::CHECKPOINT,
    tile::{self, Kind, Tile},
    tree::{self, Edge, Hash, TILE_HEIGHT, TILE_WIDTH, leaf_hash},
    witness::WITNESSED,
};
use std::{
    collections::HashMap,
    path::{Path, PathBuf},
};

/// What must hold besides.
#[derive(Clone, Debug, Default)]
pub struct Demands {
    /// Public keys that are trusted to begin with. A later one counts if one of them has handed over to it.
    pub keys: Vec<PublicKey>,
    /// A checkpoint that somebody else has kept: what it says must be in the log.
    pub kept: Option<Vec<u8>>,
    /// Clear parts may be missing.
    pub redacted: bool,
}

/// A log that is what it was when it was signed.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Verified {
    /// Its name.
    pub origin: String,
    /// Records under its checkpoint: all of them are there, but for those that were removed.
    pub size: u64,
    /// The root of the tree.
    pub root: Hash,
    /// Size of the checkpoint that was demanded, which the log contains.
    pub kept: Option<u64>,
    /// Keys that were handed over to, in order.
    pub handovers: Vec<PublicKey>,
    /// Values that are sealed and not disclosed.
    pub withheld: u64,
    /// Files beyond the checkpoint: written, not signed yet.
    pub uncommitted: usize,
    /// The first records were removed, as a record says.
    pub removed: Option<Claim>,
}

/// The first thing that is wrong.
#[derive(Debug, thiserror::Error)]
pub enum Finding {
    /// A file cannot be read.
    #[error(transparent)]
    Log(#[from] LogError),
    /// The checkpoint does not hold.
    #[error("{path}: {why}")]
    Checkpoint {
        /// The checkpoint.
        path: PathBuf,
        /// What is wrong.
        why: NoteError,
    },
    /// A record is not what was signed.
    #[error("record {index} is the first that is wrong: {why}")]
    Record {
        /// Its index.
        index: u64,
        /// What is wrong with it.
        why: String,
    },
    /// The records are what was signed, but a file beside them is not.
    #[error("{path}: {why}; the records themselves are what was signed")]
    File {
        /// The file, in the log's directory.
        path: PathBuf,
        /// What is wrong with it.
        why: String,
    },
    /// The log is not a continuation of what somebody has seen.
    #[error("the kept checkpoint does not fit: {0}")]
    Kept(String),
}

/// Verifies a log's directory: the checkpoint's signature, every record, every clear part, every tile.
pub fn directory(log: &Path, demands: &Demands) -> Result<Verified, Finding> {
    loop {
        // Before the checkpoint: that covers the record about it.
        let truncation = Truncation::read(log)?;
        let outcome = directory_from(log, demands, truncation);
        // A daemon that runs may have removed what was about to be read.
        if outcome.is_ok() || Truncation::read(log)? == truncation {
            return outcome;
        }
    }
}

fn directory_from(
    log: &Path,
    demands: &Demands,
    truncation: Option<Truncation>,
) -> Result<Verified, Finding> {
    let path = log.join(CHECKPOINT);
    let bytes = read(&path)?.ok_or_else(|| LogError::damaged(&path, "the checkpoint is missing"))?;
    let wrong = |why| Finding::Checkpoint { path: path.clone(), why };
    let claimed = Checkpoint::unverified(&bytes).map_err(&wrong)?;
    let mut walk = Walk::new(log, demands, &claimed, truncation);
    let outcome = walk.run();
    // A key that was handed over to in the log itself may have signed it: the note that says so proves
    // itself, so it counts before the records do. Where such a record was not reached, what stopped the
    // walk says more than the missing signature.
    match Checkpoint::open(&bytes, &walk.trusted.keys) {
        Err(NoteError::Unsigned(_)) if outcome.is_err() => {}
        other => drop(other.map_err(&wrong)?),
    }
    outcome?;
    let kept = walk.check_kept()?;
    let uncommitted = walk.other_files()?;
    Ok(Verified {
        origin: claimed.origin.clone(),
        size: claimed.size,
        root: claimed.root,
        kept,
        handovers: walk.trusted.handovers().to_vec(),
        withheld: walk.withheld,
        uncommitted,
        removed: walk.removed,
    })
}

struct Walk<'a> {
    log: &'a Path,
    demands: &'a Demands,
    claimed: &'a Checkpoint,
    trusted: Trusted,
    edge: Edge,
    truncation: Option<Truncation>,
    root_of_removed: Hash,
    /// What the record that `truncation` names says.
    removed: Option<Claim>,
    kept: Option<Result<Checkpoint, NoteError>>,
    root_at_kept: Option<Hash>,
    withheld: u64,
    tiles: TileFiles<'a>,
    /// The first record whose tile the signed root does not vouch for.
    unvouched: Option<u64>,
}

impl<'a> Walk<'a> {
    fn new(
        log: &'a Path,
        demands: &'a Demands,
        claimed: &'a Checkpoint,
        truncation: Option<Truncation>,
    ) -> Self {
        let kept = demands.kept.as_deref().map(Checkpoint::unverified);
        let empty_is_kept = matches!(&kept, Some(Ok(kept)) if kept.size == 0);
        Self {
            log,
            demands,
            claimed,
            trusted: Trusted::new(&demands.keys),
            edge: Edge::default(),
            truncation,
            root_of_removed: tree::empty_root(),
            removed: None,
            kept,
            root_at_kept: empty_is_kept.then(tree::empty_root),
            withheld: 0,
            tiles: TileFiles { log, claimed, known: HashMap::new() },
            unvouched: None,
        }
    }

    /// Every record in order, up to the first that is wrong.
    fn run(&mut self) -> Result<(), Finding> {
        let mut filled = Vec::new();
        let first = self.begin()?;
        for number in first..self.claimed.size.div_ceil(TILE_WIDTH as u64) {
            self.bundle(number, &mut filled)?;
        }
        if self.edge.root() != self.claimed.root {
            let why = "from it on, the records are not those that were signed".to_owned();
            return Err(Finding::Record { index: self.unvouched.unwrap_or(0), why });
        }
        for ((level, number), hashes) in filled {
            let tile = Tile { kind: Kind::Hashes(level), number, width: TILE_WIDTH };
            self.same_tile(tile, &hashes)?;
        }
        for (level, hashes) in (0u8..).zip(self.edge.levels().to_vec()) {
            if !hashes.is_empty() {
                let number = self.claimed.size >> (TILE_HEIGHT * (u32::from(level) + 1));
                let tile = Tile { kind: Kind::Hashes(level), number, width: hashes.len() };
                self.same_tile(tile, &hashes)?;
            }
        }
        match self.truncation {
            Some(Truncation { record, .. }) if self.removed.is_none() => {
                Err(self
                    .not_said(format!("record {record} does not say that the records before were removed")))
            }
            _ => Ok(()),
        }
    }

    /// Starts where the first records were removed, from tiles that the signed root vouches for. Returns the
    /// number of the first bundle.
    fn begin(&mut self) -> Result<u64, Finding> {
        let Some(Truncation { to, record }) = self.truncation else { return Ok(0) };
        if record >= self.claimed.size {
            return Err(self.not_said(format!("there is no record {record} that could say so")));
        }
        let mut levels = Vec::new();
        for level in (0u8..8).take_while(|level| to >> (TILE_HEIGHT * u32::from(*level)) > 0) {
            let before = to >> (TILE_HEIGHT * (u32::from(level) + 1));
            // Whole tiles of which no record is left: nothing but the tile above can tell about them.
            for number in 0..before {
                self.vouched(level, number)?;
            }
            levels.push(match tree::partial_width(to, level) {
                0 => Vec::new(),
                width => self.vouched(level, before)?.get(..width).unwrap_or_default().to_vec(),
            });
        }
        let edge = Edge::from_levels(to, levels);
        self.edge = edge.ok_or_else(|| self.not_said("the tiles before it are too short".to_owned()))?;
        self.root_of_removed = self.edge.root();
        Ok(to >> TILE_HEIGHT)
    }

    fn vouched(&mut self, level: u8, number: u64) -> Result<Vec<Hash>, Finding> {
        let why = || "it is missing, or its hashes are not those that were signed".to_owned();
        let path = Tile { kind: Kind::Hashes(level), number, width: TILE_WIDTH }.path();
        self.tiles.vouched(level, number).ok_or_else(|| Finding::File { path, why: why() })
    }

    fn not_said(&self, why: String) -> Finding {
        Finding::File { path: PathBuf::from(retention::FILE), why }
    }

    fn bundle(&mut self, number: u64, filled: &mut Vec<((u8, u64), Vec<Hash>)>) -> Result<(), Finding> {
        let first = number << TILE_HEIGHT;
        let bad = |index: u64, why: String| Finding::Record { index, why };
        let Some(place) = Tile::at(Kind::Entries, number, self.claimed.size) else { return Ok(()) };
        let path = place.path();
        let Some((_, bytes)) = read_tile(self.log, place)? else {
            return Err(bad(first, format!("{} is missing", path.display())));
        };
        let leaves = match tile::entries(&bytes) {
            Ok(leaves) if leaves.len() >= place.width => leaves,
            Ok(leaves) => {
                let why = format!("{} ends before it", path.display());
                return Err(bad(first + leaves.len() as u64, why));
            }
            // Entries before the cut may be wrong too; where lengths are wrong nobody can tell.
            Err(tile::Malformed::Cut(at)) => {
                let cut = cut_entries(&bytes, at);
                let at = self.tiles.first_difference(number, &cut).0.unwrap_or(at);
                return Err(bad(
                    first + at as u64,
                    format!("{} is cut or has a wrong length", path.display()),
                ));
            }
            Err(error) => return Err(bad(first, error.to_string())),
        };
        let leaves = &leaves[..place.width];
        let hashes: Vec<Hash> = leaves.iter().map(|leaf| leaf_hash(leaf)).collect();
        let (difference, vouched) = self.tiles.first_difference(number, &hashes);
        if let Some(at) = difference {
            let why = "it is not the one that was signed".to_owned();
            return Err(bad(first + at as u64, why));
        }
        if !vouched {
            self.unvouched.get_or_insert(first);
        }
        // A longer bundle is there because the writer went on; an exact one must end where it should.
        let clear = Tile { kind: Kind::Clear, ..place };
        let clear_bytes = read_tile(self.log, clear)?.map(|(_, bytes)| bytes);
        let clears = match clear_bytes.as_deref().map(tile::clears) {
            None if self.demands.redacted => vec![&[][..]; place.width],
            None => return Err(bad(first, format!("{} is missing", clear.path().display()))),
            Some(Ok(clears)) if clears.len() >= place.width => clears,
            Some(Ok(clears)) => {
                let why = format!("{} ends before it", clear.path().display());
                return Err(bad(first + clears.len() as u64, why));
            }
            Some(Err(error)) => return Err(bad(first, format!("{}: {error}", clear.path().display()))),
        };
        for ((index, leaf), (clear, hash)) in (first..).zip(leaves).zip(clears.iter().zip(hashes)) {
            let opened = leaf::open(leaf, clear, index).map_err(|e| bad(index, e.to_string()))?;
            if opened.withheld > 0 && !self.demands.redacted {
                return Err(bad(index, "its clear part is missing".to_owned()));
            }
            self.withheld += opened.withheld as u64;
            self.trusted.note(&opened.record);
            if let Some(Truncation { to, record }) = self.truncation
                && record == index
            {
                self.removed =
                    Claim::of(&opened.record).filter(|claim| claim.fits(to, &self.root_of_removed));
            }
            self.edge.push(hash, &mut |tile| filled.push(((tile.level, tile.number), tile.hashes)));
            if matches!(&self.kept, Some(Ok(kept)) if kept.size == index + 1) {
                self.root_at_kept = Some(self.edge.root());
            }
        }
        Ok(())
    }

    fn same_tile(&self, tile: Tile, hashes: &[Hash]) -> Result<(), Finding> {
        let path = tile.path();
        let bytes = read_tile(self.log, tile)?.map(|(_, bytes)| bytes);
        let why = match bytes {
            Some(bytes) if bytes.get(..tile.width * 32) == Some(hashes.as_flattened()) => return Ok(()),
            Some(_) => "its hashes are not those of the records",
            None => "is missing",
        };
        Err(Finding::File { path, why: why.to_owned() })
    }

    fn check_kept(&self) -> Result<Option<u64>, Finding> {
        let Some(bytes) = &self.demands.kept else { return Ok(None) };
        let kept = Checkpoint::open(bytes, &self.trusted.keys).map_err(|e| Finding::Kept(e.to_string()))?;
        if kept.origin != self.claimed.origin {
            let why = format!("it is of {}, this log is {}", kept.origin, self.claimed.origin);
            return Err(Finding::Kept(why));
        }
        if kept.size > self.claimed.size {
            let (have, missing) = (self.claimed.size, kept.size - self.claimed.size);
            let why = format!("it has {} records, the log {have}: the last {missing} are gone", kept.size);
            return Err(Finding::Kept(why));
        }
        let root = match self.truncation {
            // All tiles were checked by now.
            Some(Truncation { to, .. }) if kept.size <= to => {
                Some(tree::root_at(&mut Reader::open(self.log)?, kept.size)?)
            }
            _ => self.root_at_kept,
        };
        if root != Some(kept.root) {
            let why = format!("the first {} records were others when it was signed", kept.size);
            return Err(Finding::Kept(why));
        }
        Ok(Some(kept.size))
    }

    /// Every other file must be an earlier version of one that was checked, or lie beyond the checkpoint.
    /// Returns how many lie beyond.
    fn other_files(&mut self) -> Result<usize, Finding> {
        let mut beyond = 0;
        for path in files::all(self.log)? {
            let own = [CHECKPOINT, WITNESSED, super::journal::NAME, retention::FILE]
                .iter()
                .any(|name| path == Path::new(name));
            if own || path.starts_with("aside") || path.extension().is_some_and(|e| e == "tmp") {
                continue;
            }
            let strange = |why: &str| Finding::File { path: path.clone(), why: why.to_owned() };
            let tile = Tile::from_path(&path).ok_or_else(|| strange("does not belong to the log"))?;
            let Some(checked) = Tile::at(tile.kind, tile.number, self.claimed.size) else {
                beyond += 1;
                continue;
            };
            if self.is_removed(tile) {
                if !self.is_left_over(tile)? {
                    return Err(strange("is of records that were removed, and is not what it was"));
                }
                continue;
            }
            if checked == tile {
                if self.is_too_long(tile)? {
                    return Err(strange("has more in it than it should"));
                }
                continue;
            }
            let (Some(ours), Some(bytes)) = (read_tile(self.log, checked)?, read(&self.log.join(&path))?)
            else {
                continue;
            };
            if !ours.1.starts_with(&bytes) && !bytes.starts_with(&ours.1) {
                return Err(strange("does not fit the other version of it"));
            }
            beyond += usize::from(tile.width > checked.width);
        }
        Ok(beyond)
    }

    fn is_removed(&self, tile: Tile) -> bool {
        let to = self.truncation.map_or(0, |truncation| truncation.to);
        !matches!(tile.kind, Kind::Hashes(_)) && tile.number << TILE_HEIGHT < to
    }

    /// Whether a bundle that should be gone is at least what was signed: its removal was interrupted.
    fn is_left_over(&mut self, tile: Tile) -> Result<bool, Finding> {
        let Some(entries) = read(&self.log.join(Tile { kind: Kind::Entries, ..tile }.path()))? else {
            return Ok(false);
        };
        let Ok(leaves) = tile::entries(&entries) else { return Ok(false) };
        let signed = self.vouched(0, tile.number)?;
        let same = leaves.iter().zip(&signed).all(|(leaf, hash)| leaf_hash(leaf) == *hash);
        if tile.kind == Kind::Entries {
            return Ok(same && leaves.len() == tile.width);
        }
        let clears = read(&self.log.join(tile.path()))?.unwrap_or_default();
        let clears = tile::clears(&clears).unwrap_or_default();
        let fits = |(index, (leaf, clear)): (u64, (&&[u8], &&[u8]))| {
            leaf::open(leaf, clear, index).is_ok_and(|opened| opened.withheld == 0 || self.demands.redacted)
        };
        let pairs = (tile.number << TILE_HEIGHT..).zip(leaves.iter().zip(&clears));
        Ok(same && clears.len() == leaves.len() && clears.len() == tile.width && pairs.into_iter().all(fits))
    }

    fn is_too_long(&self, tile: Tile) -> Result<bool, Finding> {
        // A writer that goes on replaces it by a longer one.
        let Some(bytes) = read(&self.log.join(tile.path()))? else { return Ok(false) };
        Ok(match tile.kind {
            Kind::Hashes(_) => bytes.len() != tile.width * 32,
            Kind::Entries => tile::entries(&bytes).map_or(0, |all| all.len()) != tile.width,
            Kind::Clear => tile::clears(&bytes).map_or(0, |all| all.len()) != tile.width,
        })
    }
}
