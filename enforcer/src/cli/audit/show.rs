//! `enforcer audit tail`, `search` and `export`: records for people and programs. They read and do not
//! verify.

use super::{Failure, Output, failure, filter::Filter};
use crate::{
    cli::{exit::Exit, printable},
    log::{error::LogError, export as lines, leaf, reader::Reader},
};
use serde_json::{Map, Value};
use std::{
    collections::VecDeque,
    io::{self, BufWriter, Write},
    path::{Path, PathBuf},
    process::ExitCode,
    thread::sleep,
    time::Duration,
};

/// How often a log that is followed is looked at.
const LOOK: Duration = Duration::from_millis(300);

/// Prints the last records that fit, and then those that come.
pub(super) fn tail(
    logs: &[PathBuf],
    filter: &Filter,
    count: usize,
    follow: bool,
    output: Output,
) -> Result<ExitCode, Failure> {
    let mut last = VecDeque::new();
    let mut seen = 0;
    'logs: for log in logs.iter().rev() {
        let mut reader = Reader::open(log).map_err(|e| failure(&e))?;
        if seen == 0 {
            seen = reader.size();
        }
        for index in (reader.first()..reader.size()).rev() {
            if last.len() == count {
                break 'logs;
            }
            let record = record(&mut reader, index)?;
            if filter.fits(&record) {
                last.push_front(record);
            }
        }
    }
    let mut out = Out::new(output);
    last.iter().try_for_each(|record| out.record(record)).or_else(Out::gone)?;
    let Some(log) = logs.last().filter(|_| follow) else { return out.end() };
    loop {
        out.flush().or_else(Out::gone)?;
        if out.gone {
            return Ok(Exit::Ok.into());
        }
        sleep(LOOK);
        let mut reader = Reader::open(log).map_err(|e| failure(&e))?;
        for index in seen.max(reader.first())..reader.size() {
            let record = record(&mut reader, index)?;
            if filter.fits(&record) && out.record(&record).is_err() {
                return Ok(Exit::Ok.into());
            }
        }
        seen = reader.size();
    }
}

/// The newest record that fits.
pub(super) fn newest(
    logs: &[PathBuf],
    fits: impl Fn(&Map<String, Value>) -> bool,
) -> Result<Option<Map<String, Value>>, Failure> {
    for log in logs.iter().rev() {
        let mut reader = Reader::open(log).map_err(|e| failure(&e))?;
        for index in (reader.first()..reader.size()).rev() {
            let record = record(&mut reader, index)?;
            if fits(&record) {
                return Ok(Some(record));
            }
        }
    }
    Ok(None)
}

/// Prints every record that fits.
pub(super) fn search(logs: &[PathBuf], filter: &Filter, output: Output) -> Result<ExitCode, Failure> {
    let mut out = Out::new(output);
    for log in logs {
        let mut reader = Reader::open(log).map_err(|e| failure(&e))?;
        for index in reader.first()..reader.size() {
            let record = record(&mut reader, index)?;
            if filter.fits(&record) {
                out.record(&record).or_else(Out::gone)?;
            }
        }
    }
    out.end()
}

/// Prints records as lines that can be verified.
pub(super) fn export(log: &Path, filter: &Filter, redact: bool, proofs: bool) -> Result<ExitCode, Failure> {
    let mut reader = Reader::open(log).map_err(|e| failure(&e))?;
    let complete = filter.is_empty();
    let mut out = Out::new(Output::Json);
    let head = lines::head(&mut reader, complete).map_err(|e| failure(&e))?;
    out.line(&head).or_else(Out::gone)?;
    for index in reader.first()..reader.size() {
        let wanted = complete || {
            let record = record(&mut reader, index)?;
            // Without these the keys that later checkpoints are signed with could not be told.
            filter.fits(&record) || record.get("kind").is_some_and(|kind| kind == "key-handover")
        };
        if wanted {
            let line =
                lines::line(&mut reader, index, proofs || !complete, redact).map_err(|e| failure(&e))?;
            out.line(&line).or_else(Out::gone)?;
        }
    }
    out.end()
}

fn record(reader: &mut Reader, index: u64) -> Result<Map<String, Value>, Failure> {
    let sealed = reader.record(index).map_err(|e| failure(&e))?;
    let opened = leaf::open(&sealed.leaf, &sealed.clear, index);
    let wrong =
        |e: leaf::LeafError| failure(&LogError::damaged(Path::new("record"), format!("{index}: {e}")));
    opened.map(|opened| opened.record).map_err(wrong)
}

/// Standard output, whose reader may go away at any time.
struct Out {
    out: BufWriter<io::StdoutLock<'static>>,
    output: Output,
    gone: bool,
}

impl Out {
    fn new(output: Output) -> Self {
        Self { out: BufWriter::new(io::stdout().lock()), output, gone: false }
    }

    fn record(&mut self, record: &Map<String, Value>) -> io::Result<()> {
        match self.output {
            Output::Json => {
                let line = serde_json::to_string(record)?;
                self.line(&line)
            }
            Output::Human => self.line(&human(record)),
        }
    }

    fn line(&mut self, line: &str) -> io::Result<()> {
        self.out.write_all(line.as_bytes())?;
        self.out.write_all(b"\n")
    }

    fn flush(&mut self) -> io::Result<()> {
        self.out.flush()
    }

    /// A reader who has gone wants no more; everything else is an error.
    fn gone(error: io::Error) -> Result<(), Failure> {
        match error.kind() {
            io::ErrorKind::BrokenPipe => std::process::exit(0),
            _ => Err(Failure::new(Exit::CannotWrite, format!("cannot write: {error}"), "")),
        }
    }

    fn end(mut self) -> Result<ExitCode, Failure> {
        self.flush().or_else(Self::gone)?;
        Ok(Exit::Ok.into())
    }
}

/// A record in one line for people: what most ask for first, the rest as it is.
fn human(record: &Map<String, Value>) -> String {
    const FIRST: [&str; 9] =
        ["time", "seq", "kind", "agent", "session", "verdict", "operation", "object", "rule"];
    /// What every record has, or what says the same in another form.
    const LEFT_OUT: [&str; 9] =
        ["boot", "cgroup", "exe_b64", "host", "leaf", "policy", "schema", "started", "comm_b64"];
    let mut parts = Vec::new();
    for key in FIRST {
        match record.get(key) {
            None | Some(Value::Null) => {}
            Some(value) if key == "seq" => parts.push(format!("#{value}")),
            Some(value) => parts.push(plain(value)),
        }
    }
    for (key, value) in record {
        let empty = value.is_null() || value.as_array().is_some_and(Vec::is_empty);
        if !empty && !FIRST.contains(&key.as_str()) && !LEFT_OUT.contains(&key.as_str()) {
            parts.push(format!("{key}={}", plain(value)));
        }
    }
    // Values are escaped already where they came from agents; nothing else may reach a terminal either.
    printable(&parts.join(" ").replace('\n', "\\n"))
}

fn plain(value: &Value) -> String {
    match value {
        Value::String(text) => text.clone(),
        Value::Array(all) => all.iter().map(plain).collect::<Vec<_>>().join(","),
        Value::Object(all) => match (all.get("path").or(all.get("text")), all.get("sealed")) {
            (Some(Value::String(text)), _) => text.clone(),
            (_, Some(_)) => "(withheld)".to_owned(),
            _ => {
                let shown = all.iter().filter(|(_, value)| !value.is_null());
                shown.map(|(key, value)| format!("{key}:{}", plain(value))).collect::<Vec<_>>().join(";")
            }
        },
        other => other.to_string(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    #[test]
    fn a_record_is_one_line_without_anything_that_moves_a_terminal() {
        let record = json!({
            "time": "T", "seq": 7, "kind": "decision", "agent": "bot", "verdict": "deny", "operation": "open",
            "object": {"path": "/a\u{1b}[2J\nfake", "inode": 1}, "rule": [{"text": "deny read"}], "leaf": 1,
            "exe": "\u{202e}x", "flags": [], "error": null, "uid": 5,
        });
        let line = human(record.as_object().expect("object"));
        assert_eq!(line, "T #7 decision bot deny open /a?[2J\\nfake deny read exe=?x uid=5");
    }
}
