//! Records outside their log: lines of JSON that can be verified with nothing but a public key.
//!
//! The first line is `{"export":1,"origin":…,"checkpoint":…,"complete":…}`. Each other line is
//! `{"index":N,"leaf":…,"clear":…,"proof":[…]}`: the leaf's and the clear part's text exactly as hashed,
//! and the inclusion proof as base64 hashes. A complete export has all records from 0 on, so that the tree over them can be
//! made again: it can do without proofs, but only with them a record that was changed is told from the others.
//! Where the first records of the log were removed, the first line
//! has `"first"`, the index of the first one that is left, and `"before"`, the hashes of the tiles that end
//! there, from the lowest level up.

use super::{
    error::LogError,
    leaf,
    note::{Checkpoint, Trusted},
    reader::Reader,
    retention::Claim,
    tree::{self, Edge, Hash, Nodes, TILE_HEIGHT, check_inclusion, leaf_hash},
    verify::{Demands, Finding, Verified},
};
use base64::{Engine as _, prelude::BASE64_STANDARD};
use serde::{Deserialize, Serialize};
use std::io::BufRead;

/// Version of this format.
const VERSION: u32 = 1;

#[derive(Debug, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
struct Head {
    export: u32,
    origin: String,
    checkpoint: String,
    complete: bool,
    #[serde(default, skip_serializing_if = "is_zero")]
    first: u64,
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    before: Vec<Vec<String>>,
}

#[expect(clippy::trivially_copy_pass_by_ref, reason = "serde asks for it")]
fn is_zero(number: &u64) -> bool {
    *number == 0
}

#[derive(Debug, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
struct Line {
    index: u64,
    leaf: String,
    #[serde(default, skip_serializing_if = "String::is_empty")]
    clear: String,
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    proof: Vec<String>,
}

/// The first line of an export.
pub fn head(reader: &mut Reader, complete: bool) -> Result<String, LogError> {
    let first = if complete { reader.first() } else { 0 };
    let mut before = Vec::new();
    for level in (0u8..8).take_while(|level| first >> (TILE_HEIGHT * u32::from(*level)) > 0) {
        let (height, nodes) = (TILE_HEIGHT * u32::from(level), first >> (TILE_HEIGHT * u32::from(level)));
        let from = nodes - tree::partial_width(first, level) as u64;
        let hashes = (from..nodes).map(|index| reader.node(height, index).map(|h| BASE64_STANDARD.encode(h)));
        before.push(hashes.collect::<Result<_, _>>()?);
    }
    let head = Head {
        first,
        before,
        export: VERSION,
        origin: reader.checkpoint.origin.clone(),
        checkpoint: String::from_utf8_lossy(&reader.note).into_owned(),
        complete,
    };
    Ok(text(&head))
}

/// A record as a line; with its proof, without which an export must be complete; without its clear part where that is
/// withheld.
pub fn line(reader: &mut Reader, index: u64, with_proof: bool, redact: bool) -> Result<String, LogError> {
    let record = reader.record(index)?;
    let proof = match with_proof {
        false => Vec::new(),
        true => tree::prove_inclusion(reader, index, reader.size())?,
    };
    let proof = proof.iter().map(|hash| BASE64_STANDARD.encode(hash)).collect();
    let utf8 = |bytes: Vec<u8>| String::from_utf8_lossy(&bytes).into_owned();
    let clear = if redact { String::new() } else { utf8(record.clear) };
    Ok(text(&Line { index, leaf: utf8(record.leaf), clear, proof }))
}

fn text<T: Serialize>(value: &T) -> String {
    serde_json::to_string(value).unwrap_or_default()
}

/// An export that holds.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Export {
    /// As of a log.
    pub verified: Verified,
    /// Records in the export.
    pub records: u64,
    /// All records of the log are in it.
    pub complete: bool,
}

/// Verifies an export.
pub fn verify(input: &mut dyn BufRead, demands: &Demands) -> Result<Export, Finding> {
    let name = std::path::Path::new("the export");
    let unreadable = |e| Finding::Log(LogError::io("read", name, e));
    let broken = |line: u64, why: &str| Finding::Log(LogError::damaged(name, format!("line {line}: {why}")));
    let mut lines = (1u64..).zip(input.lines());
    let (_, first) = lines.next().ok_or_else(|| broken(1, "is missing"))?;
    let head: Head =
        serde_json::from_str(&first.map_err(unreadable)?).map_err(|e| broken(1, &e.to_string()))?;
    if head.export != VERSION {
        return Err(broken(1, "another version of the format"));
    }
    let wrong = |why| Finding::Checkpoint { path: name.to_owned(), why };
    let claimed = Checkpoint::unverified(head.checkpoint.as_bytes()).map_err(wrong)?;
    let edge = edge_before(&head).ok_or_else(|| broken(1, "`before` does not fit `first`"))?;
    let mut state = State::new(&claimed, &head, edge, demands);
    for (number, line) in lines {
        let line: Line =
            serde_json::from_str(&line.map_err(unreadable)?).map_err(|e| broken(number, &e.to_string()))?;
        state.take(&line)?;
    }
    Checkpoint::open(head.checkpoint.as_bytes(), &state.trusted.keys).map_err(wrong)?;
    state.finish(demands)
}

/// The tree over the records that were removed.
fn edge_before(head: &Head) -> Option<Edge> {
    let decode = |text: &String| BASE64_STANDARD.decode(text).ok()?.try_into().ok();
    let levels = head.before.iter().map(|level| level.iter().map(decode).collect());
    Edge::from_levels(head.first, levels.collect::<Option<_>>()?)
}

struct State<'a> {
    claimed: &'a Checkpoint,
    complete: bool,
    redacted: bool,
    trusted: Trusted,
    edge: Edge,
    /// The first record that is not removed, and the root over those that are.
    first: (u64, Hash),
    removed: Option<Claim>,
    kept: Option<Checkpoint>,
    root_at_kept: Option<Hash>,
    next: u64,
    records: u64,
    withheld: u64,
    /// The first record without a proof of its own.
    unproven: Option<u64>,
}

impl<'a> State<'a> {
    fn new(claimed: &'a Checkpoint, head: &Head, edge: Edge, demands: &Demands) -> Self {
        let kept = demands.kept.as_deref().and_then(|bytes| Checkpoint::unverified(bytes).ok());
        let empty_is_kept = kept.as_ref().is_some_and(|kept| kept.size == 0);
        Self {
            claimed,
            complete: head.complete,
            redacted: demands.redacted,
            trusted: Trusted::new(&demands.keys),
            first: (head.first, edge.root()),
            edge,
            removed: None,
            kept,
            root_at_kept: empty_is_kept.then(tree::empty_root),
            next: head.first,
            records: 0,
            withheld: 0,
            unproven: None,
        }
    }

    fn take(&mut self, line: &Line) -> Result<(), Finding> {
        let bad = |why: String| Finding::Record { index: line.index, why };
        if line.index < self.next || (self.complete && line.index != self.next) {
            return Err(bad(format!("it stands where record {} was expected", self.next)));
        }
        self.next = line.index + 1;
        self.records += 1;
        let opened = leaf::open(line.leaf.as_bytes(), line.clear.as_bytes(), line.index);
        let opened = opened.map_err(|e| bad(e.to_string()))?;
        if opened.withheld > 0 && !self.redacted {
            return Err(bad("values of it are withheld".to_owned()));
        }
        self.withheld += opened.withheld as u64;
        let hash = leaf_hash(line.leaf.as_bytes());
        if self.complete {
            self.edge.push(hash, &mut |_| ());
            if self.kept.as_ref().is_some_and(|kept| kept.size == self.next) {
                self.root_at_kept = Some(self.edge.root());
            }
        }
        if self.complete && line.proof.is_empty() && self.claimed.size > 1 {
            self.unproven.get_or_insert(line.index);
        } else {
            let decode = |text: &String| BASE64_STANDARD.decode(text).ok()?.try_into().ok();
            let proof: Option<Vec<Hash>> = line.proof.iter().map(decode).collect();
            let proof = proof.ok_or_else(|| bad("its proof is malformed".to_owned()))?;
            let Checkpoint { size, root, .. } = self.claimed;
            if !check_inclusion(&proof, line.index, &hash, *size, root) {
                return Err(bad("it is not in the log that was signed".to_owned()));
            }
        }
        self.trusted.note(&opened.record);
        let (first, root) = &self.first;
        if let Some(claim) = Claim::of(&opened.record).filter(|c| *first > 0 && c.fits(*first, root)) {
            self.removed = Some(claim);
        }
        Ok(())
    }

    fn finish(self, demands: &Demands) -> Result<Export, Finding> {
        let Checkpoint { origin, size, root } = self.claimed.clone();
        if self.complete && self.next != size {
            let why = format!("the log has {size} records and the export ends before it");
            return Err(Finding::Record { index: self.next, why });
        }
        if self.complete && self.edge.root() != root {
            // Whatever has a proof was compared with the signed root by itself.
            let why = "this record, or one behind it that has no proof either, is not what was signed; which one \
                       is told by an export with proofs";
            return Err(Finding::Record { index: self.unproven.unwrap_or_default(), why: why.to_owned() });
        }
        if self.first.0 > 0 && self.removed.is_none() {
            let why =
                format!("it is missing, and no record says that those before {} were removed", self.first.0);
            return Err(Finding::Record { index: 0, why });
        }
        let kept = match &demands.kept {
            None => None,
            Some(bytes) => Some(self.check_kept(bytes)?),
        };
        let verified = Verified {
            origin,
            size,
            root,
            kept,
            handovers: self.trusted.handovers().to_vec(),
            withheld: self.withheld,
            uncommitted: 0,
            removed: self.removed,
        };
        Ok(Export { verified, records: self.records, complete: self.complete })
    }

    fn check_kept(&self, bytes: &[u8]) -> Result<u64, Finding> {
        let kept = Checkpoint::open(bytes, &self.trusted.keys).map_err(|e| Finding::Kept(e.to_string()))?;
        let claimed = self.claimed;
        let seen = if kept.size == claimed.size { Some(claimed.root) } else { self.root_at_kept };
        if kept.origin != claimed.origin {
            return Err(Finding::Kept(format!("it is of {}, the export of {}", kept.origin, claimed.origin)));
        }
        if kept.size > claimed.size {
            let why = format!("it has {} records, the export was made of {}", kept.size, claimed.size);
            return Err(Finding::Kept(why));
        }
        if seen.is_none() {
            let why =
                "it is older than the export, which is not complete; ask for `enforcer audit prove --from`";
            return Err(Finding::Kept(why.to_owned()));
        }
        if seen != Some(kept.root) {
            return Err(Finding::Kept(format!(
                "the first {} records were others when it was signed",
                kept.size
            )));
        }
        Ok(kept.size)
    }
}
