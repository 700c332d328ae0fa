//! Another implementation must agree.

use crate::world::{Host, Random, append, files};
use enforcer::log::store::CHECKPOINT;
use std::{fs, process::Command};

const SCRIPT: &str = concat!(env!("CARGO_MANIFEST_DIR"), "/tests/verify_log.py");

/// What the verifier in Python says, or `None` where there is no Python.
fn python(host: &Host, kept: Option<&str>) -> Option<(bool, String)> {
    let mut command = Command::new("python3");
    command.arg(SCRIPT).arg(host.log()).arg(host.public().text()).args(kept);
    match command.output() {
        Ok(output) => {
            let text = String::from_utf8_lossy(&output.stdout).trim().to_owned();
            assert!(!text.is_empty(), "{}", String::from_utf8_lossy(&output.stderr));
            Some((output.status.success(), text))
        }
        Err(_) => {
            eprintln!("SKIPPED: python3 is not installed");
            None
        }
    }
}

#[test]
fn logs_of_all_shapes_satisfy_another_verifier() {
    for count in [1, 2, 255, 256, 257, 600] {
        let host = Host::with_records(count, 97);
        let ours = host.verify(None).expect("verifies");
        let Some((good, text)) = python(&host, None) else { return };
        let root = enforcer::event::text::hex(&ours.root);
        assert_eq!((good, text), (true, format!("ok test/host/0001 {count} {root}")));
    }
}

#[test]
fn a_log_with_three_levels_of_tiles_satisfies_both() {
    let host = Host::new();
    let (mut store, _) = host.open();
    while store.size() < 65_536 + 300 {
        append(&mut store);
    }
    store.commit().expect("commit");
    for tile in ["tile/2/000.p/1", "tile/1/000", "tile/1/001.p/1", "tile/entries/257.p/44"] {
        assert!(host.log().join(tile).exists(), "{tile}");
    }
    assert_eq!(host.verify(None).expect("verifies").size, 65_836);
    let Some((good, text)) = python(&host, None) else { return };
    assert!(good, "{text}");
}

#[test]
fn a_log_without_its_oldest_records_satisfies_another_verifier() {
    let host = Host::with_records(1_500, 97);
    let (mut store, _) = host.open();
    let to = crate::retention::truncate(&host, &mut store, 200_000).to;
    let ours = host.verify(None).expect("verifies");
    let Some((good, text)) = python(&host, None) else { return };
    let root = enforcer::event::text::hex(&ours.root);
    assert_eq!((good, text), (true, format!("ok test/host/0001 {} {root} from {to}", ours.size)));
    for name in [format!("tile/entries/{:03}", to / 256), "truncation".to_owned(), "tile/0/000".to_owned()] {
        let bytes = fs::read(host.log().join(&name)).expect("read");
        fs::remove_file(host.log().join(&name)).expect("remove");
        assert!(!python(&host, None).expect("there is Python").0, "{name}");
        fs::write(host.log().join(&name), bytes).expect("write");
    }
}

#[test]
fn what_this_verifier_finds_another_finds_too() {
    let host = Host::with_records(300, 100);
    let kept = host.dir.path().join("kept");
    fs::copy(host.log().join(CHECKPOINT), &kept).expect("copy");
    let kept = kept.display().to_string();
    let Some((good, text)) = python(&host, Some(&kept)) else { return };
    assert!(good, "{text}");
    let mut random = Random(5);
    for (name, bytes) in files(&host.log()).iter().filter(|(_, bytes)| !bytes.is_empty()) {
        for _ in 0..3 {
            let mut other = bytes.clone();
            let at = random.below(other.len());
            other[at] ^= 1 << random.below(8);
            fs::write(host.log().join(name), &other).expect("write");
            assert!(host.verify(None).is_err(), "{} byte {at}", name.display());
            let (good, text) = python(&host, None).expect("there is Python");
            assert!(!good, "{} byte {at}: {text}", name.display());
        }
        fs::write(host.log().join(name), bytes).expect("write");
    }
}
