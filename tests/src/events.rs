//! The audit log, read as an operator reads it.

use crate::{command::wait_for, harness::Outcome};
use serde_json::Value;
use std::{
    fs::{self, File},
    io::{self, Read, Seek, SeekFrom},
    thread,
    time::{Duration, Instant},
};

/// By then the window of identical refusals is over, also on an emulated machine.
const LATEST: Duration = Duration::from_secs(10);

const LOG: &str = "/var/lib/enforcer/audit/events.jsonl";

/// A place in the log.
#[derive(Clone, Copy, Debug)]
pub struct Mark(u64);

impl Mark {
    /// The beginning of the log.
    pub const START: Self = Self(0);
}

/// The end of the log now.
pub fn mark() -> io::Result<Mark> {
    match fs::metadata(LOG) {
        Ok(metadata) => Ok(Mark(metadata.len())),
        Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(Mark(0)),
        Err(error) => Err(error),
    }
}

/// Every whole record after a mark. A line that is no JSON object is a fault of the product.
pub fn since(mark: Mark) -> Outcome<Vec<Value>> {
    let mut file = File::open(LOG)?;
    file.seek(SeekFrom::Start(mark.0))?;
    let mut text = String::new();
    file.read_to_string(&mut text)?;
    let whole = text.rfind('\n').map_or("", |end| &text[..end]);
    let record = |line: &str| {
        serde_json::from_str(line)
            .map_err(|e| format!("the log has a line that is no JSON: {e}: {line}").into())
    };
    whole.lines().map(record).collect()
}

/// Waits until the log after `mark` has a record for which `is` holds.
pub fn wait(what: &str, mark: Mark, is: impl Fn(&Value) -> bool) -> Outcome<Value> {
    Ok(wait_for(what, 30, || since(mark).ok()?.into_iter().find(|record| is(record)))?)
}

/// Whether a record is a decision in this session.
pub fn decides(record: &Value, session: &str) -> bool {
    record["kind"] == "decision" && record["session"] == session
}

/// The decisions in a session before the one about the file `marker`, which the session was refused last:
/// the ring keeps the order, so when that one is there, all others are, and what is not there never was.
pub fn until_marker(mark: Mark, session: &str, marker: &str) -> Outcome<Vec<Value>> {
    wait(&format!("the record about {marker}"), mark, |record| {
        decides(record, session) && record["object"]["path"] == marker
    })?;
    let mine = since(mark)?.into_iter().filter(|record| decides(record, session));
    Ok(mine.take_while(|record| record["object"]["path"] != marker).collect())
}

/// As [`until_marker`], one record for each of at least `expected` acts: identical refusals of one second are
/// recorded together, when that second is over.
pub fn acts_until_marker(mark: Mark, session: &str, marker: &str, expected: usize) -> Outcome<Vec<Value>> {
    let begun = Instant::now();
    until_marker(mark, session, marker)?;
    loop {
        let all = since(mark)?.into_iter().filter(|record| decides(record, session));
        let mut acts: Vec<Value> = all.flat_map(acts).collect();
        acts.sort_by(|a, b| a["time"].as_str().cmp(&b["time"].as_str()));
        let acts: Vec<Value> =
            acts.into_iter().take_while(|record| record["object"]["path"] != marker).collect();
        if acts.len() >= expected || begun.elapsed() > LATEST {
            return Ok(acts);
        }
        thread::sleep(Duration::from_millis(100));
    }
}

/// The acts that a record stands for, each with its time. Of many, those between the first and the last
/// have the time of the last.
fn acts(record: Value) -> Vec<Value> {
    let Some(count) = record["count"].as_u64() else { return vec![record] };
    let times = (0..count).map(|n| if n == 0 { "first" } else { "last" });
    let act = |time: &str| {
        let mut act = record.clone();
        act["time"] = record[time].clone();
        act
    };
    times.map(act).collect()
}

/// A record in one line, without what every record has.
pub fn shown(record: &Value) -> String {
    const PARTS: [&str; 9] =
        ["operation", "access", "verdict", "reason", "rule", "object", "argument", "error", "flags"];
    let parts = PARTS.iter().filter(|part| !record[**part].is_null());
    parts.map(|part| format!("{part}={}", record[*part])).collect::<Vec<_>>().join(" ")
}
