//! Where records go: the signed log (`crate::log`) and its live copy in JSON lines.

mod alerts;
mod ledger;
mod lines;
mod recorder;
mod retention;
mod witnesses;

pub use alerts::{AlertSettings, Credentials, Rate};
pub use lines::JsonLines;
pub use recorder::{Recorder, boot, cursors, directory, host, public_key, secret_key};

use crate::{event::flat::Flat, sink::SinkStatus};
use serde_json::Value;
use std::io;

/// How many acts a record stands for, by its field `count`: identical denials are recorded together.
pub fn acts(count: Option<&Value>) -> u64 {
    count.and_then(Value::as_u64).unwrap_or(1)
}

/// Something that keeps records.
pub trait Sink {
    /// Takes a record. One that cannot be kept is counted in [`Sink::lost`] and said in the log as soon
    /// as that is possible again.
    fn append(&mut self, record: &Value);

    /// As [`Sink::append`], of a record of the kernel.
    fn append_flat(&mut self, record: &Flat) {
        self.append(&Value::Object(record.to_map()));
    }

    /// Hands what was appended to the operating system.
    fn flush(&mut self) -> io::Result<()>;

    /// Forces what was flushed to the disk.
    fn sync(&mut self) -> io::Result<()>;

    /// Writes what was appended so that it stays, or says why not: waits for the disk.
    fn settle(&mut self) -> io::Result<()> {
        self.flush()?;
        self.sync()
    }

    /// How many records could not be kept since the start, each for as many [`acts`] as it stands for.
    fn lost(&self) -> u64;

    /// What was recorded last before this was opened: kind, time and index.
    fn previous(&self) -> Option<Value> {
        None
    }

    /// How what delivers records elsewhere does.
    fn sinks(&self) -> Vec<SinkStatus> {
        Vec::new()
    }
}
