//! Whatever is changed in a log is found by whoever has a later checkpoint.

use crate::world::{Host, Random, append, append_of, files};
use enforcer::log::{
    store::CHECKPOINT,
    tile,
    verify::{Demands, Finding, directory},
};
use std::{
    collections::{BTreeMap, BTreeSet},
    fs,
    path::{Path, PathBuf},
};

type Files = BTreeMap<PathBuf, Vec<u8>>;

/// A log with two snapshots of its own past, and another log under the same name and key.
struct Scene {
    host: Host,
    kept: Vec<u8>,
    now: Files,
    earlier: Vec<Files>,
    other: Files,
}

/// The files that are the log: what is in the journal is not signed yet.
fn log_files(host: &Host) -> Files {
    files(&host.log()).into_iter().filter(|(name, _)| name != Path::new("journal")).collect()
}

/// Another log: the same key, another history.
fn rival(host: &Host) -> Files {
    let rival = Host::new();
    fs::copy(host.dir.path().join("key"), rival.dir.path().join("key")).expect("copy");
    let (mut store, _) = rival.open();
    while store.size() < 450 {
        let agent = if store.size() < 20 { "bot" } else { "rival" };
        append_of(&mut store, agent);
    }
    store.commit().expect("commit");
    log_files(&rival)
}

/// The same, and in each of the states the oldest records were removed.
fn truncated_scene() -> Scene {
    let host = Host::new();
    let (mut store, _) = host.open();
    let mut earlier = Vec::new();
    for size in [900, 1_300, 1_700] {
        while store.size() < size {
            append(&mut store);
        }
        store.commit().expect("commit");
        crate::retention::truncate(&host, &mut store, 200_000);
        earlier.push(log_files(&host));
    }
    let now = earlier.pop().expect("the last");
    let other = rival(&host);
    let kept = now[Path::new(CHECKPOINT)].clone();
    Scene { host, kept, now, earlier, other }
}

fn scene() -> Scene {
    let host = Host::new();
    let (mut store, _) = host.open();
    let mut earlier = Vec::new();
    for size in [100, 290, 400] {
        while store.size() < size {
            append(&mut store);
        }
        store.commit().expect("commit");
        earlier.push(log_files(&host));
    }
    let now = earlier.pop().expect("the last");
    let other = rival(&host);
    let kept = now[Path::new(CHECKPOINT)].clone();
    Scene { host, kept, now, earlier, other }
}

/// A file of entries or clear parts, split into its records.
fn split(name: &Path, bytes: &[u8]) -> Option<Vec<Vec<u8>>> {
    let parts = match () {
        () if name.starts_with("clear") => tile::clears(bytes).ok()?,
        () if name.starts_with("tile/entries") => tile::entries(bytes).ok()?,
        () if name.starts_with("tile") => bytes.chunks(32).collect(),
        () => return None,
    };
    Some(parts.into_iter().map(<[u8]>::to_vec).collect())
}

fn join(name: &Path, parts: &[Vec<u8>]) -> Vec<u8> {
    let mut out = Vec::new();
    for part in parts {
        match () {
            () if name.starts_with("clear") => tile::put_clear(&mut out, part),
            () if name.starts_with("tile/entries") => tile::put_entry(&mut out, part),
            () => out.extend(part),
        }
    }
    out
}

fn pick<'a>(random: &mut Random, files: &'a Files) -> (&'a PathBuf, &'a Vec<u8>) {
    let at = random.below(files.len());
    files.iter().nth(at).expect("a file")
}

impl Scene {
    /// The log after one random change, and what that was.
    fn mutate(&self, random: &mut Random) -> (Files, String) {
        let mut log = self.now.clone();
        let (name, bytes) = pick(random, &self.now);
        let shown = name.display();
        let records = |random: &mut Random, change: &dyn Fn(&mut Random, &mut Vec<Vec<u8>>)| {
            let mut parts = split(name, bytes)?;
            change(random, &mut parts);
            Some(join(name, &parts))
        };
        let what = match random.below(12) {
            0..3 => {
                let mut other = bytes.clone();
                let at = random.below(other.len());
                other[at] ^= 1 << random.below(8);
                log.insert(name.clone(), other);
                format!("flip byte {at} of {shown}")
            }
            3 => {
                log.remove(name);
                format!("drop {shown}")
            }
            4 => {
                let changed = records(random, &|r, parts| drop(parts.remove(r.below(parts.len()))));
                log.extend(changed.map(|bytes| (name.clone(), bytes)));
                format!("drop a part of {shown}")
            }
            5 => {
                let (second, others) = pick(random, &self.now);
                log.insert(name.clone(), others.clone());
                log.insert(second.clone(), bytes.clone());
                format!("swap {shown} and {}", second.display())
            }
            6 => {
                let swap = |r: &mut Random, parts: &mut Vec<Vec<u8>>| {
                    let (a, b) = (r.below(parts.len()), r.below(parts.len()));
                    parts.swap(a, b);
                };
                log.extend(records(random, &swap).map(|bytes| (name.clone(), bytes)));
                format!("swap parts of {shown}")
            }
            7 => {
                let double = |r: &mut Random, parts: &mut Vec<Vec<u8>>| {
                    let part = parts[r.below(parts.len())].clone();
                    let at = r.below(parts.len() + 1);
                    if r.below(2) == 0 || at == parts.len() {
                        parts.insert(at, part);
                    } else {
                        parts[at] = part;
                    }
                };
                log.extend(records(random, &double).map(|bytes| (name.clone(), bytes)));
                format!("duplicate a part of {shown}")
            }
            8 => {
                let (second, _) = pick(random, &self.now);
                log.insert(second.clone(), bytes.clone());
                format!("copy {shown} over {}", second.display())
            }
            9 => {
                for (name, bytes) in &self.other {
                    if random.below(2) == 0 {
                        log.insert(name.clone(), bytes.clone());
                    }
                }
                "splice in files of another log".to_owned()
            }
            10 => {
                log.insert(name.clone(), bytes[..random.below(bytes.len())].to_vec());
                format!("cut {shown}")
            }
            _ if random.below(4) == 0 => {
                log = self.earlier[random.below(self.earlier.len())].clone();
                "cut the whole log to an earlier state".to_owned()
            }
            _ => {
                let mut parts = split(name, bytes).unwrap_or_default();
                parts.truncate(random.below(parts.len().max(1)));
                log.insert(name.clone(), join(name, &parts));
                format!("cut records off {shown}")
            }
        };
        (log, what)
    }

    fn place(&self, from: &Files, to: &Files) {
        let names: BTreeSet<&PathBuf> = from.keys().chain(to.keys()).collect();
        for name in names.into_iter().filter(|name| from.get(*name) != to.get(*name)) {
            let path = self.host.log().join(name);
            match to.get(name) {
                None => fs::remove_file(&path).expect("remove"),
                Some(bytes) => {
                    fs::create_dir_all(path.parent().expect("parent")).expect("make");
                    fs::write(&path, bytes).expect("write");
                }
            }
        }
    }

    /// Tries so many changes; all that change anything must be found.
    fn run(&self, count: usize, seed: u64) {
        assert!(self.host.verify(Some(&self.kept)).expect("unchanged").kept.is_some());
        let demands =
            Demands { keys: vec![self.host.public()], kept: Some(self.kept.clone()), redacted: false };
        let mut random = Random(seed);
        let mut tried = 0;
        while tried < count {
            let (log, what) = self.mutate(&mut random);
            if log == self.now {
                continue;
            }
            self.place(&self.now, &log);
            let found = directory(&self.host.log(), &demands);
            self.place(&log, &self.now);
            assert!(found.is_err(), "number {tried}: {what}");
            tried += 1;
        }
    }
}

#[test]
fn changes_of_every_kind_are_found() {
    scene().run(600, 42);
}

#[test]
fn changes_of_every_kind_are_found_in_a_log_whose_oldest_records_were_removed() {
    truncated_scene().run(600, 99);
}

#[test]
#[ignore = "the full number; takes minutes"]
fn a_hundred_thousand_changes_of_a_truncated_log_are_found() {
    truncated_scene().run(100_000, 8);
}

#[test]
#[ignore = "the full number; takes minutes"]
fn a_hundred_thousand_changes_are_found() {
    scene().run(100_000, 7);
}

#[test]
fn the_first_bad_record_is_named() {
    let scene = scene();
    for index in [0usize, 17, 255, 256, 399] {
        let name = if index < 256 { "tile/entries/000" } else { "tile/entries/001.p/144" };
        let path = scene.host.log().join(name);
        let good = fs::read(&path).expect("read");
        let mut parts = split(Path::new(name), &good).expect("parts");
        for part in &mut parts[index % 256..] {
            part[0] = b'[';
        }
        fs::write(&path, join(Path::new(name), &parts)).expect("write");
        match scene.host.verify(None) {
            Err(Finding::Record { index: found, .. }) => assert_eq!(found, index as u64),
            other => panic!("{other:?}"),
        }
        fs::write(&path, &good).expect("write");
    }
}

#[test]
fn a_damaged_tile_is_told_from_a_damaged_record() {
    let scene = scene();
    let path = scene.host.log().join("tile/0/000");
    let mut bytes = fs::read(&path).expect("read");
    bytes[40] ^= 1;
    fs::write(&path, bytes).expect("write");
    match scene.host.verify(None) {
        Err(Finding::File { path, .. }) => assert_eq!(path, Path::new("tile/0/000")),
        other => panic!("{other:?}"),
    }
}

#[test]
fn without_a_later_checkpoint_a_cut_log_is_complete_to_where_it_was_cut_and_never_more() {
    let scene = scene();
    for (earlier, size) in scene.earlier.iter().zip([100, 290]) {
        scene.place(&scene.now, earlier);
        let verified = scene.host.verify(None).expect("it was signed like that once");
        assert_eq!((verified.size, verified.kept), (size, None));
        let text = scene.host.verify(Some(&scene.kept)).expect_err("found").to_string();
        assert!(text.contains(&format!("the last {} are gone", 400 - size)), "{text}");
        scene.place(earlier, &scene.now);
    }
}

#[test]
fn a_history_that_was_rewritten_and_signed_again_is_found_by_a_kept_checkpoint() {
    let scene = scene();
    scene.place(&scene.now, &scene.other);
    let text = scene.host.verify(Some(&scene.kept)).expect_err("found").to_string();
    assert!(text.contains("record") || text.contains("were others"), "{text}");
}

#[test]
fn another_key_is_refused() {
    let scene = scene();
    let demands = Demands { keys: vec![Host::new_key()], ..Demands::default() };
    let text = directory(&scene.host.log(), &demands).expect_err("refused").to_string();
    assert!(text.contains("not signed by any of the keys"), "{text}");
}

impl Host {
    fn new_key() -> enforcer::log::note::PublicKey {
        let host = Self::new();
        let _ = host.open();
        host.public()
    }
}
