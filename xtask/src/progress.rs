//! Says what is being waited for, without hiding what went wrong.

use std::{
    fs::File,
    io::{Read, Seek},
    process::{Command, ExitStatus, Stdio},
    sync::mpsc::{self, RecvTimeoutError, Sender},
    thread::JoinHandle,
    time::{Duration, Instant},
};

use anyhow::{Context, Result, bail};

/// The longest that a person looks at a silent terminal.
const TICK: Duration = Duration::from_secs(5);

/// One line on stderr; stdout belongs to the command that runs in the guest.
pub(crate) fn note(text: impl AsRef<str>) {
    eprintln!("xtask: {}", text.as_ref());
}

/// Prints "still at it" lines until dropped.
pub(crate) struct Ticker {
    stop: Option<Sender<()>>,
    thread: Option<JoinHandle<()>>,
}

impl Ticker {
    pub(crate) fn start(what: impl Into<String>) -> Self {
        Self::with_detail(what, String::new)
    }

    /// `detail` is asked at every tick, e.g. for the last line of a log.
    pub(crate) fn with_detail(
        what: impl Into<String>,
        mut detail: impl FnMut() -> String + Send + 'static,
    ) -> Self {
        let (what, begun) = (what.into(), Instant::now());
        let (stop, stopped) = mpsc::channel::<()>();
        let thread = std::thread::spawn(move || {
            while stopped.recv_timeout(TICK) == Err(RecvTimeoutError::Timeout) {
                let detail = detail();
                let separator = if detail.is_empty() { "" } else { ": " };
                note(format!("{what}, {} s{separator}{detail}", begun.elapsed().as_secs()));
            }
        });
        Self { stop: Some(stop), thread: Some(thread) }
    }
}

impl Drop for Ticker {
    fn drop(&mut self) {
        drop(self.stop.take());
        if let Some(thread) = self.thread.take() {
            let _ = thread.join();
        }
    }
}

/// Runs a command whose output the caller wants to see (cargo), with ticks beside it.
pub(crate) fn run_shown(what: &str, command: &mut Command) -> Result<()> {
    let _ticker = Ticker::start(what);
    let status = command.status().with_context(|| format!("cannot start {}", describe(command)))?;
    ensure_success(what, command, status, "")
}

/// Runs a chatty command quietly: its last line is the progress, its log is shown if it fails.
pub(crate) fn run_logged(what: &str, command: &mut Command) -> Result<()> {
    note(what);
    let log =
        tempfile::NamedTempFile::new().context("cannot create a log file in the temporary directory")?;
    let mut tail = log.reopen()?;
    let _ticker = Ticker::with_detail(what, move || last_lines(&mut tail, 1));
    let status = command
        .stdin(Stdio::null())
        .stdout(log.reopen()?)
        .stderr(append(&log)?)
        .status()
        .with_context(|| format!("cannot start {}", describe(command)))?;
    ensure_success(what, command, status, &last_lines(&mut log.reopen()?, 40))
}

/// The trimmed stdout of a short command; its stderr is part of the error.
pub(crate) fn output(command: &mut Command) -> Result<String> {
    let out = command.output().with_context(|| format!("cannot start {}", describe(command)))?;
    ensure_success("command", command, out.status, &String::from_utf8_lossy(&out.stderr))?;
    Ok(String::from_utf8_lossy(&out.stdout).trim().to_owned())
}

/// Whether a command runs and succeeds; for probing what is installed.
pub(crate) fn succeeds(command: &mut Command) -> bool {
    command
        .stdin(Stdio::null())
        .stdout(Stdio::null())
        .stderr(Stdio::null())
        .status()
        .is_ok_and(|status| status.success())
}

/// The last `count` lines of a file that may still be growing.
pub(crate) fn last_lines(file: &mut File, count: usize) -> String {
    let mut bytes = Vec::new();
    let end = file.metadata().map(|meta| meta.len()).unwrap_or(0);
    let from = end.saturating_sub(64 * 1024);
    if file.seek(std::io::SeekFrom::Start(from)).is_err() || file.read_to_end(&mut bytes).is_err() {
        return String::new();
    }
    let text = String::from_utf8_lossy(&bytes).replace('\r', "");
    let lines: Vec<&str> = text.lines().filter(|line| !line.trim().is_empty()).collect();
    lines[lines.len().saturating_sub(count)..].join("\n")
}

fn append(log: &tempfile::NamedTempFile) -> Result<File> {
    File::options().append(true).open(log.path()).context("cannot reopen the log file")
}

fn ensure_success(what: &str, command: &Command, status: ExitStatus, log: &str) -> Result<()> {
    if status.success() {
        return Ok(());
    }
    let log = if log.is_empty() { String::new() } else { format!("\n{log}") };
    bail!("{what} failed ({status}): {}{log}", describe(command))
}

fn describe(command: &Command) -> String {
    let mut words = vec![command.get_program().to_string_lossy().into_owned()];
    words.extend(command.get_args().map(|arg| arg.to_string_lossy().into_owned()));
    words.join(" ")
}
