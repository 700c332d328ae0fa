//! What the lines of tests tell: how many passed, and what to say again at the end.

use std::{
    io::{self, Write},
    sync::{Arc, Mutex, PoisonError},
};

use anyhow::Result;

use crate::{kernels::Kernel, progress, recap::Recap};

#[derive(Debug, Default)]
pub(super) struct Tally {
    pub(super) passed: u64,
    pub(super) failed: u64,
    pub(super) skipped: u64,
    pub(super) recap: Recap,
}

impl Tally {
    /// Passed, failed, skipped.
    pub(super) fn numbers(&self) -> [u64; 3] {
        [self.passed, self.failed, self.skipped]
    }

    pub(super) fn add(&mut self, other: Self) {
        self.passed += other.passed;
        self.failed += other.failed;
        self.skipped += other.skipped;
        self.recap.append(other.recap);
    }

    /// Counts one test and prints its line, as libtest would.
    pub(super) fn one(&mut self, name: &str, result: Result<()>) {
        match result {
            Ok(()) => {
                println!("test {name} ... ok");
                self.passed += 1;
            }
            Err(error) => {
                progress::note(format!("{name}: {error:#}"));
                println!("test {name} ... FAILED");
                self.recap.say(format!("test {name} ... FAILED\n    {error:#}"));
                self.failed += 1;
            }
        }
    }
}

/// What a guest's lines told.
#[derive(Default)]
pub(super) struct Seen {
    pub(super) summary: Option<Tally>,
    pub(super) recap: Recap,
}

/// Passes a guest's lines on, with the kernel in the names of tests, and keeps what they tell.
pub(super) struct GuestLines {
    pub(super) kernel: Kernel,
    pub(super) partial: Vec<u8>,
    pub(super) seen: Arc<Mutex<Seen>>,
}

impl GuestLines {
    fn line(&mut self, line: &str) -> io::Result<()> {
        let mut seen = self.seen.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(counts) = summary_counts(line) {
            // Only the sum of all stands alone on a line.
            seen.summary = Some(counts);
            return Ok(());
        }
        let line = match line.strip_prefix("test ") {
            Some(rest) => format!("test [{}] {rest}", self.kernel.name()),
            None => line.to_owned(),
        };
        seen.recap.line(&line);
        writeln!(io::stdout(), "{line}")
    }
}

impl Write for GuestLines {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        self.partial.extend_from_slice(bytes);
        while let Some(end) = self.partial.iter().position(|byte| *byte == b'\n') {
            let line: Vec<u8> = self.partial.drain(..=end).collect();
            self.line(String::from_utf8_lossy(&line).trim_end())?;
        }
        Ok(bytes.len())
    }

    fn flush(&mut self) -> io::Result<()> {
        io::stdout().flush()
    }
}

/// "ok. 3 passed; 0 failed; 1 ignored; …"
pub(super) fn libtest_counts(text: &str) -> Tally {
    let count = |name: &str| {
        let field =
            text.split([';', '.']).find_map(|field| field.trim().strip_suffix(name)?.trim().parse().ok());
        field.unwrap_or(0)
    };
    Tally {
        passed: count("passed"),
        failed: count("failed"),
        skipped: count("ignored"),
        recap: Recap::default(),
    }
}

/// "3 passed, 0 failed, 1 skipped", alone on its line.
fn summary_counts(line: &str) -> Option<Tally> {
    let mut fields = line.trim().split(", ");
    let mut count = |name: &str| fields.next()?.strip_suffix(name)?.parse().ok();
    let tally = Tally {
        passed: count(" passed")?,
        failed: count(" failed")?,
        skipped: count(" skipped")?,
        recap: Recap::default(),
    };
    fields.next().is_none().then_some(tally)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn libtest_lines_are_counted() {
        let line = "ok. 12 passed; 1 failed; 3 ignored; 0 measured; 7 filtered out; finished in 0.00s";
        assert_eq!(libtest_counts(line).numbers(), [12, 1, 3]);
    }

    #[test]
    fn a_summary_is_a_whole_line() {
        let numbers = |line| summary_counts(line).as_ref().map(Tally::numbers);
        assert_eq!(numbers("3 passed, 0 failed, 1 skipped"), Some([3, 0, 1]));
        assert_eq!(numbers("suite: 3 passed, 0 failed, 1 skipped"), None);
        assert_eq!(numbers("3 passed, 0 failed, 1 skipped, more"), None);
    }
}
