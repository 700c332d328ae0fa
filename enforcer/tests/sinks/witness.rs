//! Witnesses in another language: one that signs, and others that do all they should not.

use crate::world::{World, record, wait_until};
use enforcer::{
    audit::{Recorder, Sink, public_key},
    log::{
        note::{Checkpoint, PublicKey},
        reader::Reader,
        verify::{self, Demands},
        witness::{self, WITNESSED, WitnessKey},
    },
    settings::Settings,
};
use std::{
    fs,
    io::{BufRead, BufReader},
    process::{Child, Command, Stdio},
};

const SCRIPT: &str = concat!(env!("CARGO_MANIFEST_DIR"), "/tests/witness.py");

struct Witness {
    child: Child,
    key: String,
    port: String,
}

impl Witness {
    fn start(name: &str, log_key: &str, behaviour: &str) -> Self {
        let mut child = Command::new("python3")
            .args([SCRIPT, name, log_key, behaviour])
            .stdout(Stdio::piped())
            .spawn()
            .expect("Python starts");
        let mut lines = BufReader::new(child.stdout.take().expect("piped")).lines().map_while(Result::ok);
        let (key, port) = (lines.next().expect("a key"), lines.next().expect("a port"));
        Self { child, key, port }
    }

    fn settings(&self) -> String {
        format!("{{ url = 'http://127.0.0.1:{}', key = '{}' }}", self.port, self.key)
    }

    fn key(&self) -> WitnessKey {
        WitnessKey::parse(&self.key).expect("a key")
    }
}

impl Drop for Witness {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

/// The log's public key, once a recorder has made it.
fn log_key(world: &World) -> String {
    drop(world.recorder());
    fs::read_to_string(public_key(world.dir.path())).expect("key").trim().to_owned()
}

fn set(world: &World, witnesses: &[&Witness], quorum: usize) {
    let all: Vec<String> = witnesses.iter().map(|witness| witness.settings()).collect();
    world.set(&format!(
        "[audit]\nwitness_seconds = 1\nwitness_quorum = {quorum}\nwitnesses = [{}]\n",
        all.join(", ")
    ));
}

/// Appends until the witnessed checkpoint has this many records, at least.
fn until_witnessed(world: &World, recorder: &mut Recorder, size: u64) -> Vec<u8> {
    let mut note = Vec::new();
    wait_until(|| {
        recorder.append(&record(1));
        recorder.flush().expect("flush");
        note = fs::read(world.log().join(WITNESSED)).unwrap_or_default();
        let witnessed = Checkpoint::unverified(&note).map_or(0, |checkpoint| checkpoint.size);
        if witnessed >= size { Ok(()) } else { Err(format!("{witnessed} of {size}: {:?}", recorder.sinks())) }
    });
    note
}

fn statuses(recorder: &Recorder) -> Vec<(String, Option<String>)> {
    recorder.sinks().into_iter().map(|status| (status.name, status.error)).collect()
}

#[test]
fn a_witness_signs_what_only_grows_and_its_signature_is_checked() {
    let world = World::new("");
    let log_key = log_key(&world);
    let witness = Witness::start("w.example/one", &log_key, "good");
    set(&world, &[&witness], 1);
    let mut recorder = world.recorder();
    let first = Checkpoint::unverified(&until_witnessed(&world, &mut recorder, 1)).expect("checkpoint").size;
    until_witnessed(&world, &mut recorder, first + 300);
    drop(recorder);
    // Another daemon does not know what the witness has seen; it is told.
    let mut recorder = world.recorder();
    let end = Reader::open(&world.log()).expect("log").size();
    let note = until_witnessed(&world, &mut recorder, end + 5);
    assert!(statuses(&recorder).iter().all(|(_, error)| error.is_none()), "{:?}", statuses(&recorder));
    drop(recorder);
    // The log holds, with what the witness has signed as a kept checkpoint, and the file beside it disturbs nothing.
    let keys = vec![PublicKey::parse(&log_key).expect("a key")];
    let demands = Demands { keys, kept: Some(note.clone()), redacted: false };
    assert!(verify::directory(&world.log(), &demands).expect("verifies").kept.is_some());
    let found = witness::check(&note, &[witness.key()], 1).expect("signed");
    assert_eq!(found[0].witness, "w.example/one");
}

#[test]
fn witnesses_that_refuse_lie_forget_or_sleep_cost_nothing_but_their_signatures() {
    let world = World::new("");
    let log_key = log_key(&world);
    let start = |name: &str, behaviour: &str| Witness::start(name, &log_key, behaviour);
    let good = start("good", "good");
    let bad = [
        start("refuses", "refuse"),
        start("lies", "lie"),
        start("forgets", "amnesia"),
        start("sleeps", "slow"),
    ];
    let mut gone = start("gone", "good");
    gone.child.kill().and_then(|()| gone.child.wait()).expect("kill");
    let all: Vec<&Witness> = [&good, &gone].into_iter().chain(&bad).collect();
    set(&world, &all, 1);
    let mut recorder = world.recorder();
    // While one of them sleeps, the log takes records, signs them, and has the signature of the good one.
    let note = until_witnessed(&world, &mut recorder, 1);
    assert_eq!(witness::check(&note, &[good.key()], 1).expect("signed").len(), 1);
    let keys: Vec<WitnessKey> = all.iter().map(|witness| witness.key()).collect();
    assert!(witness::check(&note, &keys, 2).is_err(), "only one of them has signed");
    let before = world.size();
    (0..50).for_each(|n| recorder.append(&record(n)));
    recorder.settle().expect("written");
    wait_until(|| if world.size() >= before + 50 { Ok(()) } else { Err("the log waits".to_owned()) });
    // The quorum is reached, so nothing is a problem.
    assert!(statuses(&recorder).iter().all(|(_, error)| error.is_none()), "{:?}", statuses(&recorder));
    let failing = |recorder: &Recorder| recorder.sinks().iter().filter(|status| status.failures > 0).count();
    wait_until(|| {
        let failed = failing(&recorder);
        if failed >= 4 { Ok(()) } else { Err(format!("{failed} have failed: {:?}", recorder.sinks())) }
    });
    drop(recorder);
    // Without the good one it is missed.
    set(&world, &[&bad[0]], 1);
    let mut recorder = world.recorder();
    wait_until(|| {
        recorder.append(&record(1));
        recorder.flush().expect("flush");
        match &statuses(&recorder)[..] {
            [(name, Some(error))] if name == "refuses" && error.contains("does not know this log's key") => {
                Ok(())
            }
            other => Err(format!("{other:?}")),
        }
    });
    wait_until(|| {
        recorder.append(&record(1));
        recorder.flush().expect("flush");
        let text = fs::read_to_string(world.dir.path().join("audit/events.jsonl")).expect("live copy");
        let said =
            text.lines().any(|line| line.contains("\"witness-failed\"") && line.contains("\"refuses\""));
        if said { Ok(()) } else { Err("no record says so".to_owned()) }
    });
}

#[test]
fn settings_of_witnesses_are_checked() {
    let refused = |text: &str| Settings::parse("enforcer.toml", text).expect_err("refused").to_string();
    let key = "w+00000000+BAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAA";
    let text = refused(&format!("[audit]\nwitnesses = [{{ url = 'https://w', key = '{key}' }}]"));
    assert!(text.contains("audit.witnesses") && text.contains("id"), "{text}");
    let text = refused("[audit]\nwitness_quorum = 1");
    assert!(text.contains("quorum of 1, but 0 witnesses"), "{text}");
}
