//! Running programs with a deadline.

use std::{
    ffi::OsStr,
    fmt,
    io::{self, Read},
    process::{Child, Stdio},
    sync::mpsc,
    thread,
    time::{Duration, Instant},
};

/// Emulated guests are slow and can stand still for many seconds, and a hang must end as a failure of one test.
pub const PATIENCE: Duration = Duration::from_secs(300);

/// A program to be run.
pub struct Command {
    inner: std::process::Command,
    shown: String,
    patience: Duration,
}

/// How a program ended.
#[derive(Clone, Debug)]
pub struct Ran {
    shown: String,
    /// Its status, or `None` where a signal ended it.
    pub code: Option<i32>,
    /// Its standard output.
    pub out: String,
    /// Its standard error.
    pub err: String,
}

impl fmt::Display for Ran {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { shown, code, out, err } = self;
        let code = code.map_or_else(|| "a signal".to_owned(), |code| code.to_string());
        write!(f, "`{shown}` ended with {code}\nstdout: {}\nstderr: {}", out.trim_end(), err.trim_end())
    }
}

impl Command {
    /// A program without arguments, with nothing on its standard input.
    pub fn new(program: &str) -> Self {
        let mut inner = std::process::Command::new(program);
        inner.stdin(Stdio::null()).stdout(Stdio::piped()).stderr(Stdio::piped());
        Self { inner, shown: program.to_owned(), patience: PATIENCE }
    }

    /// Adds arguments.
    pub fn args<S: AsRef<OsStr>>(mut self, words: impl IntoIterator<Item = S>) -> Self {
        for word in words {
            self.shown = format!("{} {}", self.shown, word.as_ref().to_string_lossy());
            self.inner.arg(word);
        }
        self
    }

    /// Another deadline.
    pub fn patience(mut self, seconds: u64) -> Self {
        self.patience = Duration::from_secs(seconds);
        self
    }

    /// Runs it to its end; kills it at the deadline, which is an error.
    pub fn run(mut self) -> io::Result<Ran> {
        let mut child = self.inner.spawn().map_err(|e| named(&self.shown, &e))?;
        let (out, err) = (child.stdout.take().map(collect), child.stderr.take().map(collect));
        let until = Instant::now() + self.patience;
        let status = loop {
            if let Some(status) = child.try_wait()? {
                break status;
            }
            if Instant::now() > until {
                child.kill()?;
                child.wait()?;
                let text = |of: Option<mpsc::Receiver<String>>| of.and_then(|text| text.recv().ok());
                let (out, err) = (text(out).unwrap_or_default(), text(err).unwrap_or_default());
                let Self { shown, patience, .. } = &self;
                return Err(io::Error::other(format!(
                    "`{shown}` did not end within {patience:?}\n{out}{err}"
                )));
            }
            thread::sleep(Duration::from_millis(5));
        };
        let text = |of: Option<mpsc::Receiver<String>>| {
            of.and_then(|text| text.recv_timeout(Duration::from_secs(60)).ok()).unwrap_or_default()
        };
        Ok(Ran { shown: self.shown, code: status.code(), out: text(out), err: text(err) })
    }

    /// Starts it and leaves it running.
    pub fn spawn(mut self) -> io::Result<Child> {
        self.inner.spawn().map_err(|e| named(&self.shown, &e))
    }
}

fn named(shown: &str, error: &io::Error) -> io::Error {
    io::Error::other(format!("cannot run `{shown}`: {error}"))
}

fn collect(mut from: impl Read + Send + 'static) -> mpsc::Receiver<String> {
    let (to, text) = mpsc::channel();
    thread::spawn(move || {
        let mut bytes = Vec::new();
        // What came before an error is what there is.
        let _ = from.read_to_end(&mut bytes);
        let _ = to.send(String::from_utf8_lossy(&bytes).into_owned());
    });
    text
}

/// Whether a child of this process, which only sleeps, lives and goes on living: no signal is on its way to it. A signal is
/// pending before whoever sent it goes on, but whom it ends does that when there is a CPU for it.
pub fn survives(child: &mut Child) -> io::Result<bool> {
    let pid = child.id();
    let asleep = || {
        let status = std::fs::read_to_string(format!("/proc/{pid}/status")).ok()?;
        let field = |name: &str| Some(status.lines().find_map(|line| line.strip_prefix(name))?.trim());
        let none = |name: &str| field(name).is_some_and(|set| set.trim_start_matches('0').is_empty());
        let rests = field("State:")?.starts_with(['S', 'T', 't']);
        (rests && none("SigPnd:") && none("ShdPnd:")).then_some(true)
    };
    wait_for("a process that ends or sleeps on", 120, || match child.try_wait() {
        Ok(None) => asleep(),
        _ => Some(false),
    })
}

/// `systemctl WORDS…`, which must succeed.
pub fn systemctl(words: &str) -> io::Result<()> {
    let ran = Command::new("systemctl").args(words.split_whitespace()).run()?;
    if ran.code == Some(0) { Ok(()) } else { Err(io::Error::other(ran.to_string())) }
}

/// Asks again and again until there is an answer; an error after the deadline, naming what was waited for.
pub fn wait_for<T>(what: &str, seconds: u64, mut ask: impl FnMut() -> Option<T>) -> io::Result<T> {
    let until = Instant::now() + Duration::from_secs(seconds);
    loop {
        if let Some(answer) = ask() {
            return Ok(answer);
        }
        if Instant::now() > until {
            return Err(io::Error::new(
                io::ErrorKind::TimedOut,
                format!("{seconds} s went by without: {what}"),
            ));
        }
        thread::sleep(Duration::from_millis(20));
    }
}
