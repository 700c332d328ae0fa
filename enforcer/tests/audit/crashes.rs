//! The writer dies at any moment: what it had flushed is there, and the log verifies.

use crate::world::{Host, Random, append, open};
use enforcer::log::{reader::Reader, tile::Tile};
use std::{
    env, fs,
    io::{BufRead, BufReader, Write},
    path::Path,
    process::{Command, Stdio},
    thread::sleep,
    time::Duration,
};

const DIRECTORY: &str = "ENFORCER_TEST_LOG";
const SEED: &str = "ENFORCER_TEST_SEED";

/// Appends until it is killed. After each flush it says how many records there are.
#[test]
#[ignore = "a process of the tests below"]
fn child() {
    let Some(directory) = env::var_os(DIRECTORY) else { return };
    let seed = env::var(SEED).expect("seed").parse().expect("number");
    let mut random = Random(seed);
    let (mut store, _) = open(Path::new(&directory));
    store.commit().expect("commit");
    let mut out = std::io::stdout().lock();
    loop {
        for _ in 0..random.below(90) {
            append(&mut store);
        }
        store.flush().expect("flush");
        writeln!(out, "flushed {}", store.size()).and_then(|()| out.flush()).expect("say");
        if random.below(3) == 0 {
            store.commit().expect("commit");
        }
    }
}

/// Lets a child write for a while and kills it; returns how many records it had flushed.
fn write_and_kill(host: &Host, random: &mut Random) -> u64 {
    let mut child = Command::new(env::current_exe().expect("this test"))
        .args(["--ignored", "--exact", "crashes::child", "--nocapture"])
        .env(DIRECTORY, host.dir.path())
        .env(SEED, (random.next() | 1).to_string())
        .stdout(Stdio::piped())
        .stderr(Stdio::null())
        .spawn()
        .expect("child");
    let out = child.stdout.take().expect("piped");
    let reader = std::thread::spawn(move || {
        let said = BufReader::new(out).lines().map_while(Result::ok);
        said.filter_map(|line| line.rsplit_once("flushed ")?.1.parse().ok()).last().unwrap_or(0u64)
    });
    sleep(Duration::from_micros(5_000 + random.next() % 60_000));
    child.kill().expect("kill");
    child.wait().expect("wait");
    reader.join().expect("reader")
}

fn die_and_recover(rounds: usize, seed: u64) {
    let (mut host, mut random) = (Host::new(), Random(seed));
    for round in 0..rounds {
        if round % 10 == 0 {
            host = Host::new();
        }
        let flushed = write_and_kill(&host, &mut random);
        if !host.log().exists() {
            continue;
        }
        // As it lies there, and as the next start leaves it.
        host.verify(None).unwrap_or_else(|e| panic!("round {round}: {e}"));
        let (mut store, _) = host.open();
        assert!(store.size() >= flushed, "round {round}: {} of {flushed}", store.size());
        store.commit().expect("commit");
        let verified = host.verify(None).unwrap_or_else(|e| panic!("round {round}, recovered: {e}"));
        assert_eq!(verified.size, store.size());
    }
}

#[test]
fn a_killed_writer_loses_nothing_that_it_had_flushed() {
    die_and_recover(50, 3);
}

#[test]
#[ignore = "the full number; takes minutes"]
fn a_writer_killed_a_thousand_times_loses_nothing_that_it_had_flushed() {
    die_and_recover(1_000, 11);
}

/// What was not synced when the power failed is there, or in part, or empty, or not at all.
fn lose_power(host: &Host, random: &mut Random) {
    let size = Reader::open(&host.log()).expect("log").size();
    for (name, bytes) in crate::world::files(&host.log()) {
        let synced = match Tile::from_path(&name) {
            Some(tile) => Tile::at(tile.kind, tile.number, size).is_some_and(|now| tile.width <= now.width),
            None => name == Path::new("checkpoint"),
        };
        let path = host.log().join(&name);
        if !synced && !bytes.is_empty() {
            match random.below(4) {
                0 => fs::remove_file(path).expect("remove"),
                1 => fs::write(path, &bytes[..random.below(bytes.len())]).expect("cut"),
                2 => fs::write(path, vec![0; bytes.len()]).expect("zeros"),
                _ => {}
            }
        }
    }
}

fn lose_power_and_recover(rounds: usize, seed: u64) {
    let (mut host, mut random) = (Host::new(), Random(seed));
    for round in 0..rounds {
        if round % 10 == 0 {
            host = Host::new();
        }
        write_and_kill(&host, &mut random);
        if !host.log().exists() {
            continue;
        }
        let committed = Reader::open(&host.log()).expect("log").size();
        lose_power(&host, &mut random);
        let (mut store, _) = host.open();
        assert!(store.size() >= committed, "round {round}");
        store.commit().expect("commit");
        host.verify(None).unwrap_or_else(|e| panic!("round {round}: {e}"));
    }
}

#[test]
fn the_power_failing_takes_at_most_what_came_after_the_last_checkpoint() {
    lose_power_and_recover(50, 17);
}

#[test]
#[ignore = "the full number; takes minutes"]
fn the_power_failing_a_thousand_times_takes_at_most_what_came_after_the_last_checkpoint() {
    lose_power_and_recover(1_000, 23);
}
