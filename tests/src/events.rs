//! The audit log, read as an operator reads it.

use crate::{command::wait_for, harness::Outcome};
use serde_json::Value;
use std::{
    fs::{self, File},
    io::{self, Read, Seek, SeekFrom},
    thread,
    time::{Duration, Instant},
};

/// So long after the marker's record the window of identical refusals is over, also on an emulated machine that has stood
/// still meanwhile.
const LATEST: Duration = Duration::from_secs(60);

/// Seconds in which a record comes, also on an emulated machine.
const PATIENCE: u64 = 120;

/// So much of the log is read at once where it is followed; no record is as long.
const CHUNK: u64 = 4 << 20;

const LOG: &str = "/var/lib/enforcer/audit/events.jsonl";

/// A place in the log.
#[derive(Clone, Copy, Debug)]
pub struct Mark(u64);

impl Mark {
    /// The beginning of the log.
    pub const START: Self = Self(0);
}

/// The end of the log now. It can lie in the middle of a record: the kernel makes a file longer page by page
/// while somebody writes it.
pub fn mark() -> io::Result<Mark> {
    match fs::metadata(LOG) {
        Ok(metadata) => Ok(Mark(metadata.len())),
        Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(Mark(0)),
        Err(error) => Err(error),
    }
}

/// Every whole record that begins after a mark. A line that is no JSON object is a fault of the product.
pub fn since(mark: Mark) -> Outcome<Vec<Value>> {
    // From the byte before the mark, which ends a line unless the mark lies inside one.
    let from = mark.0.saturating_sub(1);
    let mut file = File::open(LOG)?;
    file.seek(SeekFrom::Start(from))?;
    let mut text = Vec::new();
    file.read_to_end(&mut text)?;
    let whole = whole_lines(&text, mark.0 > 0);
    let record = |line: &[u8]| {
        serde_json::from_slice(line).map_err(|e| {
            format!("the log has a line that is no JSON: {e}: {}", String::from_utf8_lossy(line)).into()
        })
    };
    match whole.strip_suffix(b"\n") {
        Some(lines) => lines.split(|byte| *byte == b'\n').map(record).collect(),
        None => Ok(Vec::new()),
    }
}

/// Reads on from a mark, record by record as they come, until `end` holds for one; each before it is handed to `each`.
/// For logs that are too long to be read again and again.
pub fn follow(
    (what, seconds): (&str, u64),
    mark: Mark,
    end: impl Fn(&Value) -> bool,
    mut each: impl FnMut(&Value),
) -> Outcome {
    let (mut at, mut cut) = (mark.0.saturating_sub(1), mark.0 > 0);
    let until = Instant::now() + Duration::from_secs(seconds);
    let mut file = File::open(LOG)?;
    loop {
        file.seek(SeekFrom::Start(at))?;
        let mut text = Vec::new();
        (&mut file).take(CHUNK).read_to_end(&mut text)?;
        let whole = whole_lines(&text, cut);
        if !whole.is_empty() {
            let begin = whole.as_ptr() as usize - text.as_ptr() as usize;
            at += (begin + whole.len()) as u64;
            cut = false;
            for line in whole.split(|byte| *byte == b'\n').filter(|line| !line.is_empty()) {
                // A write that failed in the middle of a record leaves its beginning, and the record comes again as a whole.
                let Ok(record) = serde_json::from_slice(line) else {
                    eprintln!("cut short: {}", String::from_utf8_lossy(line));
                    continue;
                };
                if end(&record) {
                    return Ok(());
                }
                each(&record);
            }
            continue;
        }
        if Instant::now() > until {
            return Err(format!("{seconds} s went by without: {what}").into());
        }
        thread::sleep(Duration::from_millis(100));
    }
}

/// The lines of `text` that are whole; its beginning is part of an earlier one if it was `cut` there.
fn whole_lines(text: &[u8], cut: bool) -> &[u8] {
    let begin = match cut {
        true => text.iter().position(|byte| *byte == b'\n').map_or(text.len(), |end| end + 1),
        false => 0,
    };
    let end = text.iter().rposition(|byte| *byte == b'\n').map_or(begin, |end| end + 1);
    &text[begin..end.max(begin)]
}

/// Waits until the log after `mark` has a record for which `is` holds.
pub fn wait(what: &str, mark: Mark, is: impl Fn(&Value) -> bool) -> Outcome<Value> {
    wait_long(what, PATIENCE, mark, is)
}

/// As [`wait`], for so many seconds.
pub fn wait_long(what: &str, seconds: u64, mark: Mark, is: impl Fn(&Value) -> bool) -> Outcome<Value> {
    Ok(wait_for(what, seconds, || since(mark).ok()?.into_iter().find(|record| is(record)))?)
}

/// Whether a record is a decision in this session.
pub fn decides(record: &Value, session: &str) -> bool {
    record["kind"] == "decision" && record["session"] == session
}

/// The decisions in a session before the one about the file `marker`, which the session was refused last:
/// the ring keeps the order, so when that one is there, all others are, and what is not there never was.
pub fn until_marker(mark: Mark, session: &str, marker: &str) -> Outcome<Vec<Value>> {
    until_marker_long(PATIENCE, mark, session, marker)
}

/// As [`until_marker`], when there are so many that the last one is late: within so many seconds.
pub fn until_marker_long(seconds: u64, mark: Mark, session: &str, marker: &str) -> Outcome<Vec<Value>> {
    wait_long(&format!("the record about {marker}"), seconds, mark, |record| {
        decides(record, session) && record["object"]["path"] == marker
    })?;
    let mine = since(mark)?.into_iter().filter(|record| decides(record, session));
    Ok(mine.take_while(|record| record["object"]["path"] != marker).collect())
}

/// As [`until_marker`], one record for each of at least `expected` acts: identical refusals of one second are
/// recorded together, when that second is over.
pub fn acts_until_marker(mark: Mark, session: &str, marker: &str, expected: usize) -> Outcome<Vec<Value>> {
    until_marker(mark, session, marker)?;
    let begun = Instant::now();
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

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_whole_lines_count() {
        let cases: [(&str, bool, &str); 8] = [
            ("", false, ""),
            ("", true, ""),
            ("a\nb\nc", false, "a\nb\n"),
            // A mark at a line's beginning: the byte before it is the end of another.
            ("\na\nb\n", true, "a\nb\n"),
            // A mark in the middle of a line.
            ("est\na\nb", true, "a\n"),
            ("est\n", true, ""),
            ("est", true, ""),
            ("\n", true, ""),
        ];
        for (text, cut, whole) in cases {
            assert_eq!(whole_lines(text.as_bytes(), cut), whole.as_bytes(), "{text:?} {cut}");
        }
    }
}
