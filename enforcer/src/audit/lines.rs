//! One JSON object per line in an append-only file.

use super::{Sink, acts};
use crate::event::{flat::Flat, json::SCHEMA, text::rfc3339};
use serde_json::{Map, Value, json};
use std::{
    fs::{File, OpenOptions},
    io::{self, Write},
    os::unix::fs::OpenOptionsExt,
    path::{Path, PathBuf},
    time::{SystemTime, UNIX_EPOCH},
};

/// Bytes after which records are written without being asked to.
const BATCH: usize = 1 << 18;
/// Bytes of records that wait while the file cannot be written; what comes after them is counted, not kept.
const BACKLOG: usize = 8 << 20;

/// A file of JSON lines, mode 0600.
pub struct JsonLines {
    path: PathBuf,
    file: File,
    waiting: Vec<u8>,
    /// The last write stopped inside a line.
    torn: bool,
    /// Something was written since the last sync.
    dirty: bool,
    lost: u64,
    /// Lost records that the log does not mention yet.
    unsaid: u64,
}

impl JsonLines {
    /// Opens or creates the file and its directory.
    pub fn open(path: &Path) -> io::Result<Self> {
        if let Some(parent) = path.parent() {
            std::fs::create_dir_all(parent)?;
        }
        let file = OpenOptions::new()
            .append(true)
            .create(true)
            .mode(0o600)
            .custom_flags(libc::O_CLOEXEC | libc::O_NOFOLLOW)
            .open(path)?;
        // A line that a crash cut short must not swallow the next one.
        let torn = ends_inside_a_line(path)?;
        Ok(Self { path: path.to_owned(), file, waiting: Vec::new(), torn, dirty: false, lost: 0, unsaid: 0 })
    }

    /// Where it is.
    pub fn path(&self) -> &Path {
        &self.path
    }

    /// Takes the record that is number `seq` of the signed log.
    pub fn append_numbered(&mut self, seq: u64, record: &Map<String, Value>) {
        if self.has_room(acts(record.get("count"))) {
            self.waiting.extend(format!("{{\"seq\":{seq}").into_bytes());
            let start = self.waiting.len();
            serde_json::to_writer(&mut self.waiting, record).expect("JSON values can be written to memory");
            // One object: the brace that opens the record's own gives way to a comma.
            match record.is_empty() {
                true => drop(self.waiting.remove(start)),
                false => self.waiting[start] = b',',
            }
            self.waiting.push(b'\n');
            self.write_batch();
        }
    }

    /// The same of a record of the kernel.
    pub fn append_flat(&mut self, seq: u64, record: &Flat) {
        if self.has_room(record.acts()) {
            self.waiting.extend(b"{\"seq\":");
            serde_json::to_writer(&mut self.waiting, &seq).expect("numbers can be written to memory");
            record.write_fields(&mut self.waiting);
            self.waiting.extend(b"}\n");
            self.write_batch();
        }
    }

    /// Whether one more record can wait; if not, it is counted as lost.
    fn has_room(&mut self, acts: u64) -> bool {
        let room = self.waiting.len() <= BACKLOG;
        if !room {
            self.lost += acts;
            self.unsaid += acts;
        }
        room
    }

    fn write_batch(&mut self) {
        if self.waiting.len() > BATCH {
            // Said by the next flush that is asked for, which fails in the same way.
            let _ = self.write_waiting();
        }
    }

    fn say_losses(&mut self) {
        if self.unsaid == 0 {
            return;
        }
        let now = SystemTime::now().duration_since(UNIX_EPOCH).map_or(0, |d| d.as_nanos() as i128);
        let record = json!({
            "schema": SCHEMA, "time": rfc3339(now), "kind": "lost", "agent": null, "records": self.unsaid,
            "because": "the audit log could not be written",
        });
        self.unsaid = 0;
        self.push(&record);
    }

    fn push(&mut self, record: &Value) {
        serde_json::to_writer(&mut self.waiting, record).expect("JSON values can be written to memory");
        self.waiting.push(b'\n');
    }

    fn write_waiting(&mut self) -> io::Result<()> {
        if self.torn {
            self.file.write_all(b"\n")?;
            self.torn = false;
        }
        let mut written = 0;
        let result = loop {
            match self.file.write(&self.waiting[written..]) {
                Ok(0) => break Err(io::ErrorKind::WriteZero.into()),
                Ok(n) => written += n,
                Err(e) if e.kind() == io::ErrorKind::Interrupted => {}
                Err(e) => break Err(e),
            }
            if written == self.waiting.len() {
                break Ok(());
            }
        };
        if result.is_ok() {
            (self.torn, self.dirty) = (false, true);
            self.waiting.clear();
            return Ok(());
        }
        // A record that was cut is written again as a whole; its first attempt stays as a torn line.
        let whole = self.waiting[..written].iter().rposition(|b| *b == b'\n').map_or(0, |at| at + 1);
        self.torn = written > whole;
        self.dirty |= written > 0;
        self.waiting.drain(..whole);
        result
    }
}

impl Sink for JsonLines {
    fn append(&mut self, record: &Value) {
        if self.has_room(acts(record.get("count"))) {
            self.push(record);
            self.write_batch();
        }
    }

    fn flush(&mut self) -> io::Result<()> {
        if !self.waiting.is_empty() {
            self.write_waiting()?;
        }
        if self.unsaid > 0 {
            self.say_losses();
            self.write_waiting()?;
        }
        Ok(())
    }

    fn sync(&mut self) -> io::Result<()> {
        if self.dirty {
            self.file.sync_data()?;
            self.dirty = false;
        }
        Ok(())
    }

    fn lost(&self) -> u64 {
        self.lost
    }
}

fn ends_inside_a_line(path: &Path) -> io::Result<bool> {
    use std::io::{Read, Seek, SeekFrom};
    let mut file = File::open(path)?;
    if file.seek(SeekFrom::End(0))? == 0 {
        return Ok(false);
    }
    file.seek(SeekFrom::End(-1))?;
    let mut last = [0];
    file.read_exact(&mut last)?;
    Ok(last != [b'\n'])
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::os::unix::fs::PermissionsExt;

    #[test]
    fn every_record_is_one_line_and_nobody_else_can_read_the_file() {
        let dir = tempfile::tempdir().expect("dir");
        let path = dir.path().join("audit/events.jsonl");
        let mut log = JsonLines::open(&path).expect("open");
        log.append(&json!({"a": "x\ny"}));
        log.append(&json!({"b": 2}));
        log.flush().expect("flush");
        log.sync().expect("sync");
        let text = std::fs::read_to_string(&path).expect("read");
        assert_eq!(text, "{\"a\":\"x\\ny\"}\n{\"b\":2}\n");
        assert_eq!(std::fs::metadata(&path).expect("meta").permissions().mode() & 0o777, 0o600);
    }

    #[test]
    fn a_torn_last_line_does_not_swallow_the_next_record() {
        let dir = tempfile::tempdir().expect("dir");
        let path = dir.path().join("events.jsonl");
        std::fs::write(&path, "{\"cut\":").expect("write");
        let mut log = JsonLines::open(&path).expect("open");
        log.append(&json!({"b": 2}));
        log.flush().expect("flush");
        assert_eq!(std::fs::read_to_string(&path).expect("read"), "{\"cut\":\n{\"b\":2}\n");
    }

    #[test]
    fn records_wait_while_the_disk_is_full_and_losses_are_counted() {
        if !Path::new("/dev/full").exists() {
            return;
        }
        let dir = tempfile::tempdir().expect("dir");
        let mut log = JsonLines::open(&dir.path().join("events.jsonl")).expect("open");
        let good = std::mem::replace(&mut log.file, File::create("/dev/full").expect("full"));
        log.append(&json!({"n": 1}));
        assert!(log.flush().is_err());
        let big = json!({"x": "y".repeat(BACKLOG)});
        log.append(&big);
        log.append(&json!({"n": 2}));
        assert_eq!(log.lost(), 1);
        log.file = good;
        log.flush().expect("flush");
        let text = std::fs::read_to_string(log.path()).expect("read");
        let lines: Vec<Value> = text.lines().map(|l| serde_json::from_str(l).expect("json")).collect();
        assert_eq!(lines[0], json!({"n": 1}));
        assert_eq!((&lines[2]["kind"], &lines[2]["records"]), (&json!("lost"), &json!(1)));
    }
}
