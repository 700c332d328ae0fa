//! Logs to test with.

use enforcer::log::{
    key::{KeyPlaces, Keys},
    leaf::{self, Place, Salt, Sealed},
    note::PublicKey,
    segments::{self, OnDamage},
    store::Store,
    verify::{self, Demands, Finding, Verified},
};
use serde_json::{Value, json};
use std::{
    fs,
    path::{Path, PathBuf},
};

/// Numbers that are the same in every run.
pub struct Random(pub u64);

impl Random {
    /// The next number (xorshift64*).
    pub fn next(&mut self) -> u64 {
        self.0 ^= self.0 >> 12;
        self.0 ^= self.0 << 25;
        self.0 ^= self.0 >> 27;
        self.0.wrapping_mul(0x2545_f491_4f6c_dd1d)
    }

    /// A number below `end`.
    pub fn below(&mut self, end: usize) -> usize {
        (self.next() % end as u64) as usize
    }
}

/// A host's directory with a key and logs.
pub struct Host {
    /// The directory, removed at the end.
    pub dir: tempfile::TempDir,
}

impl Host {
    /// An empty one.
    pub fn new() -> Self {
        Self { dir: tempfile::tempdir().expect("dir") }
    }

    /// Opens or makes its log, as a daemon does at its start; notes become records.
    pub fn open(&self) -> (Store, Keys) {
        open(self.dir.path())
    }

    /// The first log.
    pub fn log(&self) -> PathBuf {
        self.dir.path().join("log/0001")
    }

    /// A log with so many records, committed after each `step`.
    pub fn with_records(count: u64, step: u64) -> Self {
        let host = Self::new();
        let (mut store, _) = host.open();
        while store.size() < count {
            append(&mut store);
            if store.size() % step == 0 {
                store.commit().expect("commit");
            }
        }
        store.commit().expect("commit");
        host
    }

    /// Its public key.
    pub fn public(&self) -> PublicKey {
        places(self.dir.path()).load("test/host").expect("key").current.public()
    }

    /// Verifies the first log.
    pub fn verify(&self, kept: Option<&[u8]>) -> Result<Verified, Finding> {
        let kept = kept.map(<[u8]>::to_vec);
        verify::directory(&self.log(), &Demands { keys: vec![self.public()], kept, redacted: false })
    }
}

fn places(dir: &Path) -> KeyPlaces {
    KeyPlaces { credentials: None, file: dir.join("key") }
}

/// Opens or makes the log below a directory.
pub fn open(dir: &Path) -> (Store, Keys) {
    let opened = segments::open(&dir.join("log"), &places(dir), "test/host", OnDamage::Refuse);
    let mut ready = opened.unwrap_or_else(|e| panic!("{e}"));
    for (kind, mut fields) in ready.notes {
        fields["kind"] = kind.into();
        let sealed = sealed(ready.store.size(), &fields);
        ready.store.append(&sealed);
    }
    (ready.store, ready.keys)
}

/// Appends a record like those of the daemon.
pub fn append(store: &mut Store) {
    append_of(store, "bot");
}

/// The same, about other agents.
pub fn append_of(store: &mut Store, agent: &str) {
    let n = store.size();
    let record = json!({
        "kind": "decision", "agent": format!("{agent}-{}", n % 3), "verdict": if n.is_multiple_of(2) { "deny" } else { "hold" },
        "time": format!("2026-01-01T00:00:{:02}.000000000Z", n % 60), "exe": format!("/usr/bin/{agent}"),
        "object": {"path": format!("/workspace/\u{fc}\\n{n}"), "inode": n}, "rule": [{"text": "deny read /**"}],
    });
    let record = sealed(n, &record);
    store.append(&record);
}

/// A record as a leaf.
pub fn sealed(seq: u64, record: &Value) -> Sealed {
    let place = Place { host: "host".to_owned(), boot: "boot".to_owned() };
    let mut random = Random(seq + 1);
    let mut salt = || -> Salt { (u128::from(random.next()) << 64 | u128::from(random.next())).to_be_bytes() };
    leaf::seal(record.as_object().expect("object"), &place, seq, &mut salt)
}

/// Every file below a directory with its content, by its path in it.
pub fn files(top: &Path) -> Vec<(PathBuf, Vec<u8>)> {
    let (mut waiting, mut all) = (vec![top.to_owned()], Vec::new());
    while let Some(dir) = waiting.pop() {
        for entry in fs::read_dir(&dir).expect("list").flatten() {
            let path = entry.path();
            if path.is_dir() {
                waiting.push(path);
            } else {
                let name = path.strip_prefix(top).expect("below").to_owned();
                all.push((name, fs::read(&path).expect("read")));
            }
        }
    }
    all.sort();
    all
}
