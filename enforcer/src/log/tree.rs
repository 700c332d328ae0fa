//! The mathematics of the Merkle tree of RFC 6962 section 2.1 (the same in RFC 9162): hashes, the right
//! edge of a growing tree in tiles, proofs and their verification. Pure: values in, values out.

use sha2::{Digest, Sha256};

/// A node's hash: SHA-256.
pub type Hash = [u8; 32];

/// Hashes in a full tile: trees of height 8, as C2SP tlog-tiles has them.
pub const TILE_WIDTH: usize = 256;
/// Levels of the tree in a tile.
pub const TILE_HEIGHT: u32 = 8;

/// The hash of a leaf (RFC 6962: `SHA-256(0x00 || leaf)`).
pub fn leaf_hash(leaf: &[u8]) -> Hash {
    Sha256::new().chain_update([0]).chain_update(leaf).finalize().into()
}

/// The hash of an inner node (RFC 6962: `SHA-256(0x01 || left || right)`).
pub fn node_hash(left: &Hash, right: &Hash) -> Hash {
    Sha256::new().chain_update([1]).chain_update(left).chain_update(right).finalize().into()
}

/// The root of a tree without leaves (RFC 6962: the hash of nothing).
pub fn empty_root() -> Hash {
    Sha256::digest([]).into()
}

/// The root of the tree over these nodes, which stand for complete subtrees of one height.
pub fn root_of(nodes: &[Hash]) -> Hash {
    match nodes {
        [] => empty_root(),
        [one] => *one,
        more => {
            let (left, right) = more.split_at(split(more.len() as u64) as usize);
            node_hash(&root_of(left), &root_of(right))
        }
    }
}

/// The largest power of two below `n`, for n > 1.
fn split(n: u64) -> u64 {
    1 << (63 - (n - 1).leading_zeros())
}

/// A tile that has become full.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct FullTile {
    /// Its level.
    pub level: u8,
    /// Its number within the level.
    pub number: u64,
    /// [`TILE_WIDTH`] hashes.
    pub hashes: Vec<Hash>,
}

/// The right edge of a growing tree: on each level the tile that is not full yet.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Edge {
    size: u64,
    levels: Vec<Vec<Hash>>,
}

impl Edge {
    /// The edge of a tree with `size` leaves; `levels[l]` are the hashes of level `l`'s last tile.
    /// `None` where their number does not fit the size.
    pub fn from_levels(size: u64, levels: Vec<Vec<Hash>>) -> Option<Self> {
        let fits = (0..8).all(|level| {
            let hashes = levels.get(level as usize).map_or(0, Vec::len);
            hashes == partial_width(size, level)
        });
        (fits && levels.len() <= 8).then_some(Self { size, levels })
    }

    /// Leaves so far.
    pub fn size(&self) -> u64 {
        self.size
    }

    /// The hashes of the last tile of each level; those of a full last tile have moved up.
    pub fn levels(&self) -> &[Vec<Hash>] {
        &self.levels
    }

    /// Adds a leaf. Each tile that it fills is handed to `full`, from below.
    pub fn push(&mut self, leaf: Hash, full: &mut dyn FnMut(FullTile)) {
        let mut hash = leaf;
        self.size += 1;
        for level in 0u8.. {
            let at = usize::from(level);
            if self.levels.len() == at {
                self.levels.push(Vec::with_capacity(TILE_WIDTH));
            }
            self.levels[at].push(hash);
            if self.levels[at].len() < TILE_WIDTH {
                return;
            }
            let hashes = std::mem::replace(&mut self.levels[at], Vec::with_capacity(TILE_WIDTH));
            hash = root_of(&hashes);
            let number = (self.size >> (TILE_HEIGHT * (u32::from(level) + 1))) - 1;
            full(FullTile { level, number, hashes });
        }
    }

    /// The root of the tree.
    pub fn root(&self) -> Hash {
        let mut right: Option<Hash> = None;
        for hashes in &self.levels {
            let mut rest = &hashes[..];
            // The complete subtrees of this level, the smallest first.
            while !rest.is_empty() {
                let width = 1 << rest.len().trailing_zeros();
                let (before, last) = rest.split_at(rest.len() - width);
                let subtree = root_of(last);
                right = Some(right.map_or(subtree, |right| node_hash(&subtree, &right)));
                rest = before;
            }
        }
        right.unwrap_or_else(empty_root)
    }
}

/// Hashes in the tile of `level` that is not full, in a tree with `size` leaves.
pub fn partial_width(size: u64, level: u8) -> usize {
    (size.checked_shr(TILE_HEIGHT * u32::from(level)).unwrap_or(0) % TILE_WIDTH as u64) as usize
}

/// Where proofs get the hashes of complete subtrees from: the node at `height` above the leaves that is
/// number `index` of its height.
pub trait Nodes {
    /// Why a hash cannot be given.
    type Error;
    /// The hash of that node.
    fn node(&mut self, height: u32, index: u64) -> Result<Hash, Self::Error>;
}

/// The root over the leaves `from..to`, where `from` is a multiple of a power of two not below the width.
fn range_root<N: Nodes>(nodes: &mut N, from: u64, to: u64) -> Result<Hash, N::Error> {
    let width = to - from;
    if width.is_power_of_two() {
        return nodes.node(width.trailing_zeros(), from / width);
    }
    let middle = from + split(width);
    Ok(node_hash(&range_root(nodes, from, middle)?, &range_root(nodes, middle, to)?))
}

/// The root of the first `size` leaves.
pub fn root_at<N: Nodes>(nodes: &mut N, size: u64) -> Result<Hash, N::Error> {
    if size == 0 { Ok(empty_root()) } else { range_root(nodes, 0, size) }
}

/// The proof that leaf `index` is in the tree of `size` leaves (RFC 9162 section 2.1.3.1), for
/// index < size.
pub fn prove_inclusion<N: Nodes>(nodes: &mut N, index: u64, size: u64) -> Result<Vec<Hash>, N::Error> {
    let (mut from, mut to) = (0, size);
    let mut proof = Vec::new();
    while to - from > 1 {
        let middle = from + split(to - from);
        if index < middle {
            proof.push(range_root(nodes, middle, to)?);
            to = middle;
        } else {
            proof.push(range_root(nodes, from, middle)?);
            from = middle;
        }
    }
    proof.reverse();
    Ok(proof)
}

/// The proof that the tree of `size` leaves begins with that of `old` leaves (RFC 9162 section 2.1.4.1),
/// for 0 < old <= size.
pub fn prove_consistency<N: Nodes>(nodes: &mut N, old: u64, size: u64) -> Result<Vec<Hash>, N::Error> {
    let (mut from, mut to, mut whole) = (0, size, true);
    let mut proof = Vec::new();
    while to != old {
        let middle = from + split(to - from);
        if old <= middle {
            proof.push(range_root(nodes, middle, to)?);
            to = middle;
        } else {
            proof.push(range_root(nodes, from, middle)?);
            from = middle;
            whole = false;
        }
    }
    if !whole {
        proof.push(range_root(nodes, from, to)?);
    }
    proof.reverse();
    Ok(proof)
}

/// Whether `proof` shows that `leaf` is leaf `index` of the tree (RFC 9162 section 2.1.3.2).
pub fn check_inclusion(proof: &[Hash], index: u64, leaf: &Hash, size: u64, root: &Hash) -> bool {
    if index >= size {
        return false;
    }
    let (mut node, mut last, mut hash) = (index, size - 1, *leaf);
    for step in proof {
        if last == 0 {
            return false;
        }
        if node & 1 == 1 || node == last {
            hash = node_hash(step, &hash);
            while node & 1 == 0 && node != 0 {
                (node, last) = (node >> 1, last >> 1);
            }
        } else {
            hash = node_hash(&hash, step);
        }
        (node, last) = (node >> 1, last >> 1);
    }
    last == 0 && hash == *root
}

/// Whether `proof` shows that the tree with `root` begins with the one with `old_root` (RFC 9162 section
/// 2.1.4.2). Every tree begins with the empty one, and with itself; neither has a proof.
pub fn check_consistency(proof: &[Hash], old: u64, old_root: &Hash, size: u64, root: &Hash) -> bool {
    if old == 0 || old == size {
        let same = if old == 0 { *old_root == empty_root() } else { old_root == root };
        return proof.is_empty() && old <= size && same;
    }
    let mut steps = proof.iter();
    let first = if old.is_power_of_two() { Some(old_root) } else { steps.next() };
    let Some(first) = first.filter(|_| old < size) else { return false };
    let (mut node, mut last) = (old - 1, size - 1);
    while node & 1 == 1 {
        (node, last) = (node >> 1, last >> 1);
    }
    let (mut old_hash, mut hash) = (*first, *first);
    for step in steps {
        if last == 0 {
            return false;
        }
        if node & 1 == 1 || node == last {
            (old_hash, hash) = (node_hash(step, &old_hash), node_hash(step, &hash));
            while node & 1 == 0 && node != 0 {
                (node, last) = (node >> 1, last >> 1);
            }
        } else {
            hash = node_hash(&hash, step);
        }
        (node, last) = (node >> 1, last >> 1);
    }
    last == 0 && old_hash == *old_root && hash == *root
}

#[cfg(test)]
#[path = "tests/tree.rs"]
mod tests;
