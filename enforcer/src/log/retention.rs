//! Removing the oldest records on purpose. A record `truncated`, under a signed checkpoint on the disk, says
//! what goes and why before anything does; then the file `truncation` names that record, and the bundles go.
//! Tiles of hashes stay (32 bytes for each record), so proofs and kept checkpoints hold for ever.
//!
//! Whatever the moment of a crash: without the file nothing was removed; with it, bundles below its position
//! may be there or not, and the next run removes those that are.

use super::{
    error::LogError,
    files::{self, Unsynced, read},
    leaf,
    reader::Reader,
    tile::{Kind, Tile},
    tree::{self, Hash, TILE_HEIGHT, TILE_WIDTH},
};
use crate::event::text::hex;
use serde::{Deserialize, Serialize};
use serde_json::{Map, Value, json};
use std::{
    collections::VecDeque,
    fs, io,
    path::{Path, PathBuf},
};
use time::{OffsetDateTime, format_description::well_known::Rfc3339};

/// The file in a log's directory that names the record of the last truncation.
pub const FILE: &str = "truncation";
/// The kind of that record.
pub const KIND: &str = "truncated";
const DAY: i128 = 86_400 * 1_000_000_000;

/// Where the record of the last truncation is. It proves nothing: the record does.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Truncation {
    /// Records before this one are gone; a multiple of [`TILE_WIDTH`], not 0.
    pub to: u64,
    /// Index of the record that says so.
    pub record: u64,
}

impl Truncation {
    /// The last truncation of a log; `None` where nothing was removed.
    pub fn read(log: &Path) -> Result<Option<Self>, LogError> {
        let path = log.join(FILE);
        let Some(bytes) = read(&path)? else { return Ok(None) };
        let parsed = serde_json::from_slice(&bytes).ok();
        let whole = |t: &Self| {
            t.text() == bytes && t.to > 0 && t.to.is_multiple_of(TILE_WIDTH as u64) && t.record >= t.to
        };
        let damaged = || LogError::damaged(&path, "does not name a record about a truncation");
        parsed.filter(whole).map(Some).ok_or_else(damaged)
    }

    fn text(self) -> Vec<u8> {
        format!("{{\"to\":{},\"record\":{}}}\n", self.to, self.record).into_bytes()
    }
}

/// What a record about a truncation says.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Claim {
    /// Records before this one were removed.
    pub to: u64,
    /// The root of the tree over them, in hex.
    pub root: String,
    /// When.
    pub time: String,
    /// Why.
    pub because: String,
}

impl Claim {
    /// What this record says, if it is about a truncation.
    pub fn of(record: &Map<String, Value>) -> Option<Self> {
        let text = |key: &str| record.get(key)?.as_str().map(str::to_owned);
        (record.get("kind")? == KIND).then_some(())?;
        let to = record.get("to")?.as_u64()?;
        Some(Self { to, root: text("root")?, time: text("time")?, because: text("because")? })
    }

    /// Whether it is about the removal of the records before `to`, which had this root.
    pub fn fits(&self, to: u64, root: &Hash) -> bool {
        self.to == to && self.root == hex(root)
    }
}

/// How much is kept.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Limits {
    /// Bytes of full bundles and their clear parts; 0: no limit.
    pub bytes: u64,
    /// Days; 0: no limit.
    pub days: u32,
    /// Digest of the settings that say so, in hex.
    pub settings: String,
}

/// What is to be removed.
#[derive(Clone, Debug, PartialEq)]
pub struct Plan {
    /// The first record that is still there.
    pub from: u64,
    /// The first one that stays.
    pub to: u64,
    /// Fields of the record about it.
    pub fields: Value,
    /// Fields of records `key-handover` that go and are needed: they are recorded again before.
    pub handovers: Vec<Value>,
}

/// What to do now.
#[derive(Clone, Debug, PartialEq)]
pub enum Decision {
    /// Nothing is too much.
    Nothing,
    /// Records are too old or too many, but somebody has not seen them yet.
    Waits,
    /// These go.
    Remove(Box<Plan>),
}

/// Knows what a log's bundles take up.
pub struct Keeper {
    log: PathBuf,
    bundles: VecDeque<Bundle>,
    /// Number of the next bundle to look at.
    next: u64,
}

struct Bundle {
    number: u64,
    bytes: u64,
    /// When its last record was made; not looked at before it is asked for.
    newest: Option<i128>,
}

impl Keeper {
    /// Finishes a removal that was interrupted.
    pub fn open(log: &Path) -> Result<Self, LogError> {
        let first = Truncation::read(log)?.map_or(0, |t| t.to);
        if first > 0 {
            let of = |name: &PathBuf| Tile::from_path(name);
            let old = |tile: &Tile| {
                matches!(tile.kind, Kind::Entries | Kind::Clear) && tile.number << TILE_HEIGHT < first
            };
            let left: Vec<Tile> = files::all(log)?.iter().filter_map(of).filter(old).collect();
            remove(log, &left, &mut || false)?;
        }
        Ok(Self { log: log.to_owned(), bundles: VecDeque::new(), next: first >> TILE_HEIGHT })
    }

    /// What must go of a log at `now` (nanoseconds since 1970), where every sink has passed `passed`.
    pub fn decide(&mut self, limits: &Limits, passed: u64, now: i128) -> Result<Decision, LogError> {
        let mut reader = Reader::open(&self.log)?;
        self.look(reader.size() >> TILE_HEIGHT)?;
        let Some(first) = self.bundles.front().map(|bundle| bundle.number) else {
            return Ok(Decision::Nothing);
        };
        let (mut left, mut wanted) = (self.bundles.iter().map(|b| b.bytes).sum::<u64>(), 0);
        let (mut by_bytes, mut by_age, mut held, mut gone) = (false, false, false, 0);
        for bundle in &mut self.bundles {
            let too_many = limits.bytes > 0 && left > limits.bytes;
            let too_old =
                limits.days > 0 && bundle.is_older(&mut reader, now - i128::from(limits.days) * DAY)?;
            if !too_many && !too_old {
                break;
            }
            if (bundle.number + 1) << TILE_HEIGHT > passed {
                held = true;
                break;
            }
            (by_bytes, by_age) = (by_bytes || too_many, by_age || too_old);
            (left, gone, wanted) = (left - bundle.bytes, gone + bundle.bytes, wanted + 1);
        }
        if wanted == 0 {
            return Ok(if held { Decision::Waits } else { Decision::Nothing });
        }
        let (from, to) = (first << TILE_HEIGHT, (first + wanted) << TILE_HEIGHT);
        let root = tree::root_at(&mut reader, to)?;
        let because = match (by_bytes, by_age) {
            (true, true) => "bytes and age",
            (true, false) => "bytes",
            _ => "age",
        };
        let fields = json!({
            "from": from, "to": to, "root": hex(&root), "because": because, "bytes": gone,
            "max_bytes": limits.bytes, "max_days": limits.days, "settings": limits.settings,
        });
        let handovers = handovers(&mut reader, from, to)?;
        Ok(Decision::Remove(Box::new(Plan { from, to, fields, handovers })))
    }

    /// Removes what the record number `record`, which is under a checkpoint on the disk, says. Ends early
    /// where `stop` says so; the next [`Keeper::open`] goes on.
    pub fn carry_out(
        &mut self,
        plan: &Plan,
        record: u64,
        stop: &mut dyn FnMut() -> bool,
    ) -> Result<(), LogError> {
        let mut unsynced = Unsynced::default();
        unsynced.write(&self.log.join(FILE), &Truncation { to: plan.to, record }.text())?;
        unsynced.sync(&self.log)?;
        self.bundles.retain(|bundle| bundle.number << TILE_HEIGHT >= plan.to);
        let numbers = plan.from >> TILE_HEIGHT..plan.to >> TILE_HEIGHT;
        let both = |number| [Kind::Clear, Kind::Entries].map(|kind| Tile { kind, number, width: TILE_WIDTH });
        remove(&self.log, &numbers.flat_map(both).collect::<Vec<_>>(), stop)
    }

    fn look(&mut self, full: u64) -> Result<(), LogError> {
        while self.next < full {
            let mut bytes = 0;
            for kind in [Kind::Entries, Kind::Clear] {
                let path = self.log.join(Tile { kind, number: self.next, width: TILE_WIDTH }.path());
                match fs::metadata(&path) {
                    Ok(metadata) => bytes += metadata.len(),
                    Err(e) if e.kind() == io::ErrorKind::NotFound && kind == Kind::Clear => {}
                    Err(e) => return Err(LogError::io("look at", &path, e)),
                }
            }
            self.bundles.push_back(Bundle { number: self.next, bytes, newest: None });
            self.next += 1;
        }
        Ok(())
    }
}

impl Bundle {
    fn is_older(&mut self, reader: &mut Reader, than: i128) -> Result<bool, LogError> {
        let newest = match self.newest {
            Some(newest) => newest,
            None => {
                let sealed = reader.record((self.number << TILE_HEIGHT) + TILE_WIDTH as u64 - 1)?;
                // One without a time is kept until what comes after it is old: as if it came from now on.
                *self.newest.insert(time_of(&sealed.leaf).unwrap_or(i128::MAX))
            }
        };
        Ok(newest < than)
    }
}

fn time_of(leaf: &[u8]) -> Option<i128> {
    let record: Map<String, Value> = serde_json::from_slice(leaf).ok()?;
    let time = OffsetDateTime::parse(record.get("time")?.as_str()?, &Rfc3339).ok()?;
    Some(time.unix_timestamp_nanos())
}

/// The records with which keys hand over among those from `from` to `to`: who knows only the first key needs
/// them. They prove themselves, wherever they stand.
fn handovers(reader: &mut Reader, from: u64, to: u64) -> Result<Vec<Value>, LogError> {
    const MARK: &[u8] = b"\"kind\":\"key-handover\"";
    let mut all = Vec::new();
    for index in from..to {
        let sealed = reader.record(index)?;
        if !sealed.leaf.windows(MARK.len()).any(|window| window == MARK) {
            continue;
        }
        if let Ok(opened) = leaf::open(&sealed.leaf, &sealed.clear, index) {
            let field = |key: &str| opened.record.get(key).cloned().unwrap_or_default();
            all.push(json!({"note": field("note"), "public": field("public"), "again": index}));
        }
    }
    Ok(all)
}

/// Removes bundles, all clear parts first: a bundle that a crash has left has its leaves, by which it can be
/// checked.
fn remove(log: &Path, bundles: &[Tile], stop: &mut dyn FnMut() -> bool) -> Result<(), LogError> {
    for kind in [Kind::Clear, Kind::Entries] {
        for tile in bundles.iter().filter(|tile| tile.kind == kind) {
            if stop() {
                return Ok(());
            }
            let path = log.join(tile.path());
            match fs::remove_file(&path) {
                Err(e) if e.kind() != io::ErrorKind::NotFound => {
                    return Err(LogError::io("remove", &path, e));
                }
                _ => {}
            }
        }
        if !bundles.is_empty() {
            files::sync_all(log)?;
        }
    }
    Ok(())
}
