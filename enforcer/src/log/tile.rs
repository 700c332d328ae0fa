//! Names and contents of the files of a log, as C2SP tlog-tiles has them (<https://c2sp.org/tlog-tiles>):
//! `tile/<level>/<number>`, `tile/entries/<number>`, and `….p/<width>` for what is not full yet. Beside
//! them, `clear/<number>` holds what the leaves only commit to; its names follow the same rule. Pure.

use super::tree::{Hash, TILE_WIDTH};
use std::path::{Path, PathBuf};

/// What a file of a log holds.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Kind {
    /// Hashes of this level of tiles.
    Hashes(u8),
    /// Leaves.
    Entries,
    /// What the leaves commit to, in clear.
    Clear,
}

/// A file of a log.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Tile {
    /// What it holds.
    pub kind: Kind,
    /// Its number among its kind.
    pub number: u64,
    /// How many hashes or entries: [`TILE_WIDTH`] in a full one.
    pub width: usize,
}

impl Tile {
    /// The tile of this kind with this number in a tree of `size` leaves; `None` where it would be empty.
    pub fn at(kind: Kind, number: u64, size: u64) -> Option<Self> {
        let level = if let Kind::Hashes(level) = kind { u32::from(level) } else { 0 };
        let nodes = size.checked_shr(level * super::tree::TILE_HEIGHT).unwrap_or(0);
        let before = number.checked_mul(TILE_WIDTH as u64)?;
        let width = nodes.checked_sub(before)?.min(TILE_WIDTH as u64) as usize;
        (width > 0).then_some(Self { kind, number, width })
    }

    /// Whether nothing will be added to it.
    pub fn is_full(&self) -> bool {
        self.width == TILE_WIDTH
    }

    /// Where it lies in the log's directory.
    pub fn path(&self) -> PathBuf {
        if self.is_full() {
            return self.full_path();
        }
        self.partials().join(self.width.to_string())
    }

    /// Where it will lie when it is full.
    pub fn full_path(&self) -> PathBuf {
        self.base("")
    }

    /// The directory of its shorter versions.
    pub fn partials(&self) -> PathBuf {
        self.base(".p")
    }

    fn base(&self, suffix: &str) -> PathBuf {
        let kind = match self.kind {
            Kind::Hashes(level) => format!("tile/{level}"),
            Kind::Entries => "tile/entries".to_owned(),
            Kind::Clear => "clear".to_owned(),
        };
        // Three digits a component; all but the last begin with an x.
        let mut name = format!("{:03}", self.number % 1000);
        let mut rest = self.number / 1000;
        while rest > 0 {
            name = format!("x{:03}/{name}", rest % 1000);
            rest /= 1000;
        }
        PathBuf::from(format!("{kind}/{name}{suffix}"))
    }

    /// The tile that lies at this path, if the name is exactly what [`Tile::path`] gives.
    pub fn from_path(path: &Path) -> Option<Self> {
        let text = path.to_str()?;
        let (kind, mut name) = if let Some(name) = text.strip_prefix("clear/") {
            (Kind::Clear, name)
        } else if let Some(name) = text.strip_prefix("tile/entries/") {
            (Kind::Entries, name)
        } else {
            let (level, name) = text.strip_prefix("tile/")?.split_once('/')?;
            (Kind::Hashes(level.parse().ok()?), name)
        };
        let mut width = TILE_WIDTH;
        if let Some((before, partial)) = name.split_once(".p/") {
            (name, width) = (before, partial.parse().ok()?);
        }
        let mut number = 0u64;
        for part in name.split('/') {
            let digits: u64 = part.trim_start_matches('x').parse().ok()?;
            number = number.checked_mul(1000)?.checked_add(digits)?;
        }
        let tile = Self { kind, number, width };
        (width > 0 && tile.path() == path).then_some(tile)
    }
}

/// Why the bytes of a file make no sense.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum Malformed {
    /// A tile of hashes has a length that is not a number of hashes, or not the expected one.
    #[error("{found} bytes, but {expected} hashes have {}", expected * 32)]
    Length {
        /// Bytes there are.
        found: usize,
        /// Hashes there should be.
        expected: usize,
    },
    /// An entry goes on after the end.
    #[error("entry {0} of the bundle is cut")]
    Cut(usize),
    /// More or fewer entries than expected.
    #[error("{found} entries instead of {expected}")]
    Count {
        /// Entries there are.
        found: usize,
        /// Entries there should be.
        expected: usize,
    },
}

/// The hashes in a tile.
pub fn hashes(bytes: &[u8], expected: usize) -> Result<Vec<Hash>, Malformed> {
    let (hashes, rest) = bytes.as_chunks::<32>();
    if !rest.is_empty() || hashes.len() != expected {
        return Err(Malformed::Length { found: bytes.len(), expected });
    }
    Ok(hashes.to_vec())
}

/// Appends an entry to a bundle: its length, big-endian, and its bytes.
///
/// # Panics
///
/// Where the entry has more than 65,535 bytes; [`super::leaf::seal`] makes none.
pub fn put_entry(bundle: &mut Vec<u8>, entry: &[u8]) {
    let length = u16::try_from(entry.len()).expect("leaves are made to fit a bundle");
    bundle.extend(length.to_be_bytes());
    bundle.extend(entry);
}

/// Appends the clear part of an entry: as [`put_entry`], with a length of four bytes.
pub fn put_clear(bundle: &mut Vec<u8>, clear: &[u8]) {
    bundle.extend((clear.len() as u32).to_be_bytes());
    bundle.extend(clear);
}

/// Splits a bundle of entries.
pub fn entries(bundle: &[u8]) -> Result<Vec<&[u8]>, Malformed> {
    split(bundle, |rest| {
        let (length, rest) = rest.split_first_chunk::<2>()?;
        rest.split_at_checked(usize::from(u16::from_be_bytes(*length)))
    })
}

/// Splits a bundle of clear parts.
pub fn clears(bundle: &[u8]) -> Result<Vec<&[u8]>, Malformed> {
    split(bundle, |rest| {
        let (length, rest) = rest.split_first_chunk::<4>()?;
        rest.split_at_checked(u32::from_be_bytes(*length) as usize)
    })
}

type Take = fn(&[u8]) -> Option<(&[u8], &[u8])>;

fn split(bundle: &[u8], take: Take) -> Result<Vec<&[u8]>, Malformed> {
    let (mut rest, mut all) = (bundle, Vec::with_capacity(TILE_WIDTH));
    while !rest.is_empty() {
        let (entry, after) = take(rest).ok_or(Malformed::Cut(all.len()))?;
        all.push(entry);
        rest = after;
    }
    Ok(all)
}

/// As many parts as there should be, or an error.
pub fn counted<T>(parts: Vec<T>, expected: usize) -> Result<Vec<T>, Malformed> {
    if parts.len() == expected { Ok(parts) } else { Err(Malformed::Count { found: parts.len(), expected }) }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn path(kind: Kind, number: u64, width: usize) -> String {
        Tile { kind, number, width }.path().display().to_string()
    }

    #[test]
    fn names_are_those_of_the_specification() {
        assert_eq!(path(Kind::Hashes(0), 1_234_067, 256), "tile/0/x001/x234/067");
        assert_eq!(path(Kind::Hashes(2), 5, 17), "tile/2/005.p/17");
        assert_eq!(path(Kind::Entries, 1000, 1), "tile/entries/x001/000.p/1");
        assert_eq!(path(Kind::Clear, 0, 256), "clear/000");
    }

    #[test]
    fn other_spellings_of_a_name_are_not_a_tile() {
        for name in ["tile/0/5", "tile/0/005.p/256", "tile/0/005.p/0", "tile/00/005", "tile/0/x000/005", "x"]
        {
            assert_eq!(Tile::from_path(Path::new(name)), None, "{name}");
        }
    }

    #[test]
    fn a_cut_bundle_is_said_to_be_cut() {
        let mut bundle = Vec::new();
        put_entry(&mut bundle, b"one");
        put_entry(&mut bundle, b"");
        assert_eq!(entries(&bundle).expect("whole"), [&b"one"[..], b""]);
        assert_eq!(entries(&bundle[..bundle.len() - 1]), Err(Malformed::Cut(1)));
        assert_eq!(clears(&[0, 0, 0, 9, 1]), Err(Malformed::Cut(0)));
    }

    proptest! {
        #[test]
        fn names_lead_back_to_their_tile(level in 0u8..8, which in 0u8..3, number: u64, width in 1usize..=256) {
            let kind = [Kind::Hashes(level), Kind::Entries, Kind::Clear][usize::from(which)];
            let tile = Tile { kind, number, width };
            prop_assert_eq!(Tile::from_path(&tile.path()), Some(tile));
            if let Kind::Hashes(level) = kind {
                // The other implementation puts the height of tiles into the name, as the older format did.
                let theirs = tlog_tiles::Tile::new(8, level, number, width as u32, false).path();
                prop_assert_eq!(theirs.replacen("/8/", "/", 1), tile.path().display().to_string());
            }
        }
    }
}
