//! Reading the signed log as a queue: only what is under a checkpoint leaves the host.

use super::{Fresh, cursor::Position, error::SinkError, fresh::Place, item::Item};
use crate::log::{reader::Reader, segments, tree::TILE_WIDTH};
use std::{path::PathBuf, sync::Arc};

/// What is read at a time.
#[derive(Clone, Copy, Debug)]
pub struct Limits {
    /// Records.
    pub records: usize,
    /// Bytes of leaves and clear parts, about.
    pub bytes: usize,
}

/// Items in order, and where the next ones begin.
#[derive(Debug)]
pub struct Batch {
    /// The items.
    pub items: Vec<Item>,
    /// After them.
    pub next: Position,
    /// Records between `next` and the end of the logs.
    pub lag: u64,
}

/// The logs of a host.
pub struct Queue {
    directory: PathBuf,
    redact: bool,
    checkpoints: bool,
    reader: Option<(u32, Reader)>,
    fresh: Option<(Arc<Fresh>, Place)>,
}

impl Queue {
    /// The logs in `directory`.
    pub fn new(directory: PathBuf, redact: bool, checkpoints: bool) -> Self {
        Self { directory, redact, checkpoints, reader: None, fresh: None }
    }

    /// What was written a moment ago is taken from there, unless it is to be redacted.
    pub fn take_fresh(&mut self, fresh: &Arc<Fresh>) {
        if !self.redact {
            self.fresh = Some((Arc::clone(fresh), fresh.join()));
        }
    }

    /// The end of what is signed now.
    pub fn end(&self) -> Result<Option<Position>, SinkError> {
        let Some((log, path)) = segments::list(&self.directory)?.pop() else { return Ok(None) };
        Ok(Some(Position { log, index: Reader::open(&path)?.size() }))
    }

    /// The next items from `from` on; none where everything was read.
    pub fn read(&mut self, mut from: Position, limits: Limits) -> Result<Batch, SinkError> {
        let mut items = Vec::new();
        loop {
            match self.open(from, &mut items)? {
                Opened::Here => break,
                Opened::Other(position) => from = position,
                Opened::End => return Ok(Batch { items, next: from, lag: 0 }),
            }
        }
        let lag_after = self.later(from.log)?;
        let (redact, checkpoints) = (self.redact, self.checkpoints);
        let Some((_, reader)) = &mut self.reader else { return Ok(Batch { items, next: from, lag: 0 }) };
        let (size, origin) = (reader.size(), reader.checkpoint.origin.clone());
        let (mut index, mut bytes) = (from.index, 0);
        if index < reader.first() {
            let why = "removed by retention; this sink has not had them";
            items.push(Item::unreadable(&origin, index, reader.first() - index, why));
            index = reader.first();
        }
        if let Some((fresh, place)) = &self.fresh {
            let limits = Limits { records: limits.records.saturating_sub(items.len()), ..limits };
            let at = Position { index, ..from };
            for item in fresh.get(*place, at, size, limits) {
                bytes += item.size();
                items.push(item);
                index += 1;
            }
        }
        while index < size && items.len() < limits.records && bytes < limits.bytes {
            match reader.record(index) {
                Ok(sealed) => {
                    bytes += sealed.leaf.len() + sealed.clear.len();
                    items.push(Item::record(&origin, index, &sealed, redact));
                    index += 1;
                }
                Err(error) => {
                    // The whole bundle is gone or damaged; the receiver is told how much that is.
                    let bundle_end = (index / TILE_WIDTH as u64 + 1) * TILE_WIDTH as u64;
                    let end = size.min(bundle_end);
                    items.push(Item::unreadable(&origin, index, end - index, &error.to_string()));
                    index = end;
                }
            }
        }
        if index == size && checkpoints {
            let time = items.last().and_then(|item| item.fields().get("time")).cloned();
            items.push(Item::checkpoint(&reader.checkpoint, &reader.note, time.as_ref()));
        }
        // It may have grown since it was opened.
        let end = Reader::open(&self.directory.join(format!("{:04}", from.log))).map_or(size, |r| r.size());
        Ok(Batch { items, next: Position { index, ..from }, lag: end.saturating_sub(index) + lag_after })
    }

    /// Opens the log that the position is in, so that it has a record there.
    fn open(&mut self, from: Position, items: &mut Vec<Item>) -> Result<Opened, SinkError> {
        if self.reader.as_ref().is_some_and(|(log, reader)| *log == from.log && from.index < reader.size()) {
            return Ok(Opened::Here);
        }
        self.reader = None;
        let all = segments::list(&self.directory)?;
        let after = all.iter().find(|(log, _)| *log > from.log).map(|(log, _)| *log);
        let Some((_, path)) = all.iter().find(|(log, _)| *log == from.log) else {
            // Taken away as a whole: by retention or by hand.
            let Some(log) = after else { return Ok(Opened::End) };
            if from.log > 1 || from.index > 0 {
                let name = format!("{:04}", from.log);
                items.push(Item::unreadable(&name, from.index, 0, "the log is not there any more"));
            }
            return Ok(Opened::Other(Position { log, index: 0 }));
        };
        let reader = match (Reader::open(path), after) {
            (Ok(reader), _) => reader,
            (Err(error), None) => return Err(error.into()),
            (Err(error), Some(log)) => {
                let name = format!("{:04}", from.log);
                items.push(Item::unreadable(&name, from.index, 0, &error.to_string()));
                return Ok(Opened::Other(Position { log, index: 0 }));
            }
        };
        if from.index > reader.size() {
            // It was shorter than what was delivered: another log, or an older state of this one.
            let why = "the log was cut or replaced since; all of it follows again";
            items.push(Item::unreadable(&reader.checkpoint.origin, reader.size(), 0, why));
            return Ok(Opened::Other(Position { index: 0, ..from }));
        }
        if from.index < reader.size() {
            self.reader = Some((from.log, reader));
            return Ok(Opened::Here);
        }
        Ok(after.map_or(Opened::End, |log| Opened::Other(Position { log, index: 0 })))
    }

    /// Records in the logs after this one.
    fn later(&self, log: u32) -> Result<u64, SinkError> {
        let later = segments::list(&self.directory)?.into_iter().filter(|(number, _)| *number > log);
        Ok(later
            .filter_map(|(_, path)| Reader::open(&path).ok())
            .map(|reader| reader.size() - reader.first())
            .sum())
    }
}

enum Opened {
    /// There is a record.
    Here,
    /// Go on there.
    Other(Position),
    /// Nothing more.
    End,
}
