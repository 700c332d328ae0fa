//! Opening a log: what was signed must be there and fit; what came after the last checkpoint is taken up
//! again as far as it is whole, and what is not is set aside and counted.

use super::{
    error::LogError,
    files::{self, read, read_tile, set_aside, versions},
    journal,
    key::Keys,
    leaf::{self, Sealed},
    note::{Checkpoint, NoteError, PublicKey, SecretKey},
    store::{CHECKPOINT, Store, write_checkpoint},
    tile::{self, Kind, Tile},
    tree::{self, Edge, Hash, TILE_HEIGHT, TILE_WIDTH, leaf_hash, partial_width},
};
use std::{fs, path::Path};

/// A log that was opened, and what happened to it before.
pub struct Recovered {
    /// The log.
    pub store: Store,
    /// Records without a checkpoint that were whole and are in the log now.
    pub adopted: u64,
    /// Records without a checkpoint that were not whole: at least so many are lost.
    pub dropped: u64,
    /// The log was signed with the previous key, which has to hand over.
    pub hand_over: bool,
}

/// Makes an empty log with its first checkpoint.
pub fn create(directory: &Path, origin: &str, signers: Vec<SecretKey>) -> Result<Store, LogError> {
    let parent = directory.parent().unwrap_or(Path::new("/"));
    let fresh = files::temporary(directory);
    // What a crash has left; it never had a checkpoint under its own name.
    let _ = fs::remove_dir_all(&fresh);
    fs::create_dir_all(&fresh).map_err(|e| LogError::io("make", &fresh, e))?;
    let empty = Checkpoint { origin: origin.to_owned(), size: 0, root: tree::empty_root() };
    write_checkpoint(&fresh, &empty, &signers)?;
    fs::rename(&fresh, directory).map_err(|e| LogError::io("make", directory, e))?;
    files::sync(parent)?;
    Store::at(directory, origin, signers, Edge::default(), &[])
}

/// Opens a log. Nothing that is there is changed before it is clear that the log fits its checkpoint.
pub fn open(directory: &Path, keys: &Keys) -> Result<Recovered, LogError> {
    let (checkpoint, signer) = checkpoint(directory, keys)?;
    let edge = edge(directory, &checkpoint)?;
    let unfinished = unfinished(directory, &edge)?;
    let mut store = Store::at(directory, &checkpoint.origin, vec![signer.clone()], edge, &unfinished)?;
    let (adopted, dropped) = take_up(&mut store)?;
    let hand_over = signer.public() != keys.current.public();
    Ok(Recovered { store, adopted, dropped, hand_over })
}

/// The checkpoint, and the key that it is signed with.
fn checkpoint(directory: &Path, keys: &Keys) -> Result<(Checkpoint, SecretKey), LogError> {
    let path = directory.join(CHECKPOINT);
    let bytes = read(&path)?.ok_or_else(|| LogError::damaged(&path, "the checkpoint is missing"))?;
    let mut known = vec![&keys.current];
    known.extend(&keys.previous);
    for key in &known {
        match Checkpoint::open(&bytes, &[key.public()]) {
            Ok(checkpoint) => return Ok((checkpoint, (*key).clone())),
            Err(NoteError::Unsigned(_)) => {}
            Err(error) => return Err(LogError::damaged(&path, error)),
        }
    }
    let known: Vec<String> = known.iter().map(|key| key.public().text()).collect();
    Err(LogError::OtherKey { path, why: NoteError::Unsigned(known.join(", ")) })
}

/// The right edge from the tiles of hashes; it must have the root that was signed.
fn edge(directory: &Path, checkpoint: &Checkpoint) -> Result<Edge, LogError> {
    let size = checkpoint.size;
    let mut levels = Vec::new();
    for level in (0u8..8).take_while(|level| size >> (TILE_HEIGHT * u32::from(*level)) > 0) {
        let width = partial_width(size, level);
        let number = size >> (TILE_HEIGHT * (u32::from(level) + 1));
        levels.push(match width {
            0 => Vec::new(),
            width => hashes(directory, Tile { kind: Kind::Hashes(level), number, width })?,
        });
    }
    let edge = Edge::from_levels(size, levels).filter(|edge| edge.root() == checkpoint.root);
    let path = directory.join(CHECKPOINT);
    edge.ok_or_else(|| LogError::damaged(&path, "the tiles do not have the root that was signed"))
}

fn hashes(directory: &Path, tile: Tile) -> Result<Vec<Hash>, LogError> {
    let path = directory.join(tile.path());
    let (found, bytes) = read_tile(directory, tile)?.ok_or_else(|| LogError::damaged(&path, "is missing"))?;
    let mut hashes = tile::hashes(&bytes, found.width).map_err(|e| LogError::damaged(&path, e))?;
    hashes.truncate(tile.width);
    Ok(hashes)
}

/// The records of the bundle that is not full; they must be those that were signed.
fn unfinished(directory: &Path, edge: &Edge) -> Result<Vec<Sealed>, LogError> {
    let Some(hashes) = edge.levels().first().filter(|hashes| !hashes.is_empty()) else {
        return Ok(Vec::new());
    };
    let number = edge.size() >> TILE_HEIGHT;
    let entries = Tile { kind: Kind::Entries, number, width: hashes.len() };
    let path = directory.join(entries.path());
    let records = records(directory, entries)?.ok_or_else(|| LogError::damaged(&path, "is missing"))?;
    let records: Vec<Sealed> = records.into_iter().take(entries.width).collect();
    for ((record, hash), index) in records.iter().zip(hashes).zip(number << TILE_HEIGHT..) {
        if leaf_hash(&record.leaf) != *hash {
            return Err(LogError::damaged(&path, format!("record {index} is not the one that was signed")));
        }
        leaf::open(&record.leaf, &record.clear, index)
            .map_err(|e| LogError::damaged(&path, format!("record {index}: {e}")))?;
    }
    Ok(records)
}

/// The records of a bundle or of a longer version of it; `None` where it is not there.
fn records(directory: &Path, entries: Tile) -> Result<Option<Vec<Sealed>>, LogError> {
    let clear = Tile { kind: Kind::Clear, ..entries };
    let Some((found, leaves)) = read_tile(directory, entries)? else { return Ok(None) };
    let Some((also, clears)) = read_tile(directory, clear)? else { return Ok(None) };
    let wrong = |tile: Tile, e: tile::Malformed| LogError::damaged(&directory.join(tile.path()), e);
    let leaves = tile::entries(&leaves).and_then(|all| tile::counted(all, found.width));
    let clears_of = tile::clears(&clears).and_then(|all| tile::counted(all, also.width));
    let (leaves, clears) = (leaves.map_err(|e| wrong(found, e))?, clears_of.map_err(|e| wrong(also, e))?);
    let pair = |(leaf, clear): (&&[u8], &&[u8])| Sealed { leaf: leaf.to_vec(), clear: clear.to_vec() };
    Ok(Some(leaves.iter().zip(&clears).map(pair).collect()))
}

/// Takes up what was flushed and not committed: first from bundles, then from the journal. Returns how many
/// records that were, and how many could not be taken.
fn take_up(store: &mut Store) -> Result<(u64, u64), LogError> {
    let start = store.size();
    let directory = store.directory().to_owned();
    loop {
        let number = store.size() >> TILE_HEIGHT;
        let have = (store.size() % TILE_WIDTH as u64) as usize;
        let bundle = Tile { kind: Kind::Entries, number, width: TILE_WIDTH };
        let mut longest: Option<Vec<Sealed>> = None;
        for version in versions(&directory, bundle)?.into_iter().filter(|v| v.width > have) {
            match continues(store, version, have).filter(|_| longest.is_none()) {
                Some(records) => longest = Some(records),
                // It says the same as the longer one, or nothing that can be used.
                None => set_aside_bundle(&directory, version)?,
            }
        }
        let Some(records) = longest else { break };
        let full = records.len() + have == TILE_WIDTH;
        for record in records {
            store.append(&record);
        }
        store.note_flushed();
        if !full {
            break;
        }
    }
    let content = store.journal().content()?;
    let (mut whole, mut dropped) = (content.torn == 0, u64::from(content.torn > 0));
    for (index, record) in &content.frames {
        let next = store.size();
        if *index < next {
            continue;
        }
        if *index == next && leaf::open(&record.leaf, &record.clear, next).is_ok() {
            store.append(record);
            store.note_flushed();
        } else {
            (whole, dropped) = (false, dropped + 1);
        }
    }
    if !whole {
        // What cannot be used is kept; the frames that can are written again.
        let copy = directory.join("aside");
        fs::create_dir_all(&copy).map_err(|e| LogError::io("make", &copy, e))?;
        let copy = copy.join(format!("{}-{}", journal::NAME, store.size()));
        fs::copy(directory.join(journal::NAME), &copy).map_err(|e| LogError::io("write", &copy, e))?;
        store.journal().cut(content.whole)?;
    }
    let seen = set_aside_unusable(store)?;
    // Records that were in a bundle which cannot be used, and nowhere else.
    Ok((store.size() - start, dropped.max(seen.saturating_sub(store.size()))))
}

/// Moves away what would stand beside the tiles that will be written: bundles beyond the end, which could
/// not be taken up, and tiles of hashes beyond the checkpoint, which are made anew. Returns the size that
/// the log had at least, as those bundles have it.
fn set_aside_unusable(store: &Store) -> Result<u64, LogError> {
    let mut seen = 0;
    for path in files::all(store.directory())? {
        let Some(tile) = Tile::from_path(&path) else { continue };
        let end = if let Kind::Hashes(_) = tile.kind { store.committed() } else { store.size() };
        let whole = Tile::at(tile.kind, tile.number, end).is_some_and(|now| tile.width <= now.width);
        let extent = (tile.number << TILE_HEIGHT) + tile.width as u64;
        let alone = tile.kind == Kind::Clear
            && extent > store.committed()
            && !store.directory().join(Tile { kind: Kind::Entries, ..tile }.path()).exists();
        if !whole || alone {
            set_aside(store.directory(), &path)?;
            if tile.kind == Kind::Entries {
                seen = seen.max(extent);
            }
        }
    }
    Ok(seen)
}

fn set_aside_bundle(directory: &Path, entries: Tile) -> Result<(), LogError> {
    for kind in [Kind::Entries, Kind::Clear] {
        let path = Tile { kind, ..entries }.path();
        if directory.join(&path).exists() {
            set_aside(directory, &path)?;
        }
    }
    Ok(())
}

/// The records of an uncommitted bundle after the first `have`, if they go on where the log ends.
fn continues(store: &Store, entries: Tile, have: usize) -> Option<Vec<Sealed>> {
    let clear = Tile { kind: Kind::Clear, ..entries };
    let bytes = |tile: Tile| read(&store.directory().join(tile.path())).ok().flatten();
    let (entries_bytes, clear_bytes) = (bytes(entries)?, bytes(clear)?);
    let (our_entries, our_clear) = store.unfinished();
    if !entries_bytes.starts_with(our_entries) || !clear_bytes.starts_with(our_clear) {
        return None;
    }
    let leaves = tile::counted(tile::entries(&entries_bytes).ok()?, entries.width).ok()?;
    let clears = tile::counted(tile::clears(&clear_bytes).ok()?, entries.width).ok()?;
    let first = entries.number << TILE_HEIGHT;
    let mut records = Vec::new();
    for ((index, leaf), clear) in (first..).zip(leaves).zip(clears).skip(have) {
        leaf::open(leaf, clear, index).ok()?;
        records.push(Sealed { leaf: leaf.to_vec(), clear: clear.to_vec() });
    }
    Some(records)
}

/// The public keys, for whoever only reads.
pub fn public(keys: &Keys) -> Vec<PublicKey> {
    let mut all = vec![keys.current.public()];
    all.extend(keys.previous.as_ref().map(SecretKey::public));
    all
}
