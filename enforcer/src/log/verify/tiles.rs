//! What the files of hashes say about which record is wrong.

use crate::log::{
    files::read_tile,
    note::Checkpoint,
    tile::{self, Kind, Tile},
    tree::{self, Edge, Hash, TILE_HEIGHT, TILE_WIDTH, leaf_hash},
};
use std::{collections::HashMap, path::Path};

/// The hashes of the entries before a cut.
pub(super) fn cut_entries(bytes: &[u8], count: usize) -> Vec<Hash> {
    let (mut rest, mut all) = (bytes, Vec::new());
    while all.len() < count {
        let Some((length, after)) = rest.split_first_chunk::<2>() else { break };
        let Some((entry, after)) = after.split_at_checked(usize::from(u16::from_be_bytes(*length))) else {
            break;
        };
        all.push(leaf_hash(entry));
        rest = after;
    }
    all
}

/// The tiles of hashes as files. They are used to say which record is wrong, as far as the signed root
/// vouches for them.
pub(super) struct TileFiles<'a> {
    pub(super) log: &'a Path,
    pub(super) claimed: &'a Checkpoint,
    /// The hashes of tiles, or `None` where the root does not vouch for what is there.
    pub(super) known: HashMap<(u8, u64), Option<Vec<Hash>>>,
}

impl TileFiles<'_> {
    /// The first of these leaf hashes of a bundle that is not the signed one. Where the tile itself is
    /// damaged: none if the leaves are those that its parent knows, else the first that differs from the
    /// damaged tile. And whether the signed root vouches for the answer.
    pub(super) fn first_difference(&mut self, number: u64, hashes: &[Hash]) -> (Option<usize>, bool) {
        let differs = |tile: &[Hash]| {
            let pairs = hashes.iter().zip(tile);
            pairs.enumerate().find(|(_, (ours, theirs))| ours != theirs).map(|(at, _)| at)
        };
        if let Some(tile) = self.vouched(0, number) {
            return (differs(&tile), true);
        }
        let parents = self.vouched(1, number >> TILE_HEIGHT);
        let parent = parents.and_then(|p| p.get((number % TILE_WIDTH as u64) as usize).copied());
        if hashes.len() == TILE_WIDTH && parent == Some(tree::root_of(hashes)) {
            return (None, true);
        }
        let file = self.read(0, number);
        // Nothing vouches for either: where they agree, the tree as a whole will tell.
        (file.and_then(|tile| differs(&tile)).or(parent.map(|_| 0)), false)
    }

    /// The hashes of a tile that the signed root vouches for.
    pub(super) fn vouched(&mut self, level: u8, number: u64) -> Option<Vec<Hash>> {
        if let Some(known) = self.known.get(&(level, number)) {
            return known.clone();
        }
        let tile = Tile::at(Kind::Hashes(level), number, self.claimed.size)?;
        let hashes = self.read(level, number);
        let vouched = if tile.is_full() {
            let parents = self.vouched(level + 1, number >> TILE_HEIGHT);
            let parent = parents.and_then(|p| p.get((number % TILE_WIDTH as u64) as usize).copied());
            hashes.filter(|hashes| parent == Some(tree::root_of(hashes)))
        } else {
            hashes.filter(|_| self.edge_is_signed())
        };
        // Tiles far from the edge are asked for once only.
        if level > 0 || !tile.is_full() {
            self.known.insert((level, number), vouched.clone());
        }
        vouched
    }

    /// Whether the tiles at the right edge have the signed root.
    fn edge_is_signed(&mut self) -> bool {
        let size = self.claimed.size;
        let mut levels = Vec::new();
        for level in (0u8..8).take_while(|level| size >> (TILE_HEIGHT * u32::from(*level)) > 0) {
            let number = size >> (TILE_HEIGHT * (u32::from(level) + 1));
            levels.push(match tree::partial_width(size, level) {
                0 => Vec::new(),
                _ => self.read(level, number).unwrap_or_default(),
            });
        }
        Edge::from_levels(size, levels).is_some_and(|edge| edge.root() == self.claimed.root)
    }

    fn read(&self, level: u8, number: u64) -> Option<Vec<Hash>> {
        let tile = Tile::at(Kind::Hashes(level), number, self.claimed.size)?;
        let (found, bytes) = read_tile(self.log, tile).ok()??;
        let mut hashes = tile::hashes(&bytes, found.width).ok()?;
        hashes.truncate(tile.width);
        Some(hashes)
    }
}
