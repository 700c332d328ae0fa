//! A recorder with sinks, in a process that can be killed.

use enforcer::{
    audit::{Recorder, Sink, directory},
    log::reader::Reader,
    settings::Settings,
};
use serde_json::{Value, json};
use std::{
    env, fs,
    path::{Path, PathBuf},
    process::{Child, Command, Stdio},
    thread::sleep,
    time::{Duration, Instant},
};

const DIRECTORY: &str = "ENFORCER_TEST_STATE";

/// Numbers that are the same in every run.
pub struct Random(pub u64);

impl Random {
    /// A number below `end` (xorshift64*).
    pub fn below(&mut self, end: u64) -> u64 {
        self.0 ^= self.0 >> 12;
        self.0 ^= self.0 << 25;
        self.0 ^= self.0 >> 27;
        self.0.wrapping_mul(0x2545_f491_4f6c_dd1d) % end
    }
}

/// A state directory with settings.
pub struct World {
    /// The directory, removed at the end.
    pub dir: tempfile::TempDir,
}

/// A process that does not outlive a test that fails.
pub struct Victim(Child);

impl Victim {
    /// Kills it without warning.
    pub fn kill(&mut self) {
        self.0.kill().and_then(|()| self.0.wait()).expect("kill");
    }
}

impl Drop for Victim {
    fn drop(&mut self) {
        // It is dead already unless the test has failed.
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}

/// A denial like those of the daemon.
pub fn record(n: u64) -> Value {
    json!({
        "schema": 1, "kind": "decision", "agent": format!("bot-{}", n % 3), "verdict": "deny", "n": n,
        "time": "2026-01-02T03:04:05.123456789Z", "exe": "/usr/bin/python3.11", "pid": 7, "tgid": 7,
        "object": {"path": format!("/srv/\u{fc}\\n{n}")}, "operation": "open", "reason": "rule",
    })
}

impl World {
    /// With these `[[sinks]]`; `DIR` in them is the directory.
    pub fn new(sinks: &str) -> Self {
        let world = Self { dir: tempfile::tempdir().expect("dir") };
        world.set(sinks);
        world
    }

    /// Other sinks.
    pub fn set(&self, sinks: &str) {
        let text = sinks.replace("DIR", &self.dir.path().display().to_string());
        fs::write(self.dir.path().join("enforcer.toml"), text).expect("write");
    }

    /// Starts a recorder here.
    pub fn recorder(&self) -> Recorder {
        self.recorder_with(20)
    }

    /// Starts a recorder here that signs after so many milliseconds.
    pub fn recorder_with(&self, milliseconds: u64) -> Recorder {
        recorder(self.dir.path(), milliseconds)
    }

    /// A process that records until it is killed.
    pub fn spawn(&self) -> Victim {
        let child = Command::new(env::current_exe().expect("this test"))
            .args(["--ignored", "--exact", "world::child", "--nocapture"])
            .env(DIRECTORY, self.dir.path())
            .stdout(Stdio::null())
            .spawn()
            .expect("child");
        Victim(child)
    }

    /// Records in the log.
    pub fn size(&self) -> u64 {
        Reader::open(&self.log()).map_or(0, |reader| reader.size())
    }

    /// The log.
    pub fn log(&self) -> PathBuf {
        directory(self.dir.path()).join("0001")
    }

    /// The size of the log, once its last record is among those that came.
    pub fn has_come(&self, received: &[u64]) -> Result<u64, String> {
        let size = self.size();
        let last = received.iter().max();
        let there = last.is_some_and(|last| last + 1 >= size);
        there.then_some(size).ok_or_else(|| format!("{size} records, the last one that came is {last:?}"))
    }

    /// The first `size` records must be there, and all that came in order when repeated ones are
    /// left out. Later records may still be on their way: that a sink failed or recovered is a
    /// record too.
    pub fn check(&self, received: &[u64], size: u64) {
        let mut seen = std::collections::HashSet::new();
        let first = received.iter().copied().filter(|seq| seen.insert(*seq));
        let wrong = (0..).zip(first).find(|(expected, seq)| expected != seq);
        assert_eq!(wrong, None, "{} deliveries", received.len());
        let (came, all) = (seen.len() as u64, self.size());
        assert!((size..=all).contains(&came), "{came} came, of {size} to {all}");
    }
}

fn recorder(dir: &Path, milliseconds: u64) -> Recorder {
    let mut settings = Settings::load(Some(&dir.join("enforcer.toml"))).unwrap_or_else(|e| panic!("{e}"));
    settings.paths.state = dir.to_owned();
    settings.audit.checkpoint_milliseconds = milliseconds;
    Recorder::open(&settings).unwrap_or_else(|e| panic!("{e}"))
}

#[test]
#[ignore = "a process of the tests"]
fn child() {
    let Some(dir) = env::var_os(DIRECTORY) else { return };
    let mut recorder = recorder(Path::new(&dir), 20);
    for n in 0.. {
        recorder.append(&record(n));
        if n % 10 == 9 {
            recorder.flush().expect("flush");
            sleep(Duration::from_millis(4));
        }
    }
}

/// Waits until it holds, and fails with what it says after two minutes.
pub fn wait_until<T>(mut what: impl FnMut() -> Result<T, String>) -> T {
    let start = Instant::now();
    loop {
        match what() {
            Ok(value) => return value,
            Err(text) => assert!(start.elapsed() < Duration::from_secs(120), "{text}"),
        }
        sleep(Duration::from_millis(10));
    }
}
