//! The queue's journal: whatever was kept is read again, and whatever somebody else has changed is found.

use super::{mutation::Random, world::Bench};
use crate::{
    approvals::{queue::Kept, shape::Shape, statement::Verdict, store::Store},
    policy::Tier,
};
use std::{fs, path::PathBuf};

const BOOT: &str = "a-boot";

/// States of a queue while requests come, are decided, repeated and forgotten.
fn states(count: u32) -> Vec<Kept> {
    let (mut bench, mut random) = (Bench::new(), Random(7));
    let mut out = Vec::new();
    for _ in 0..count {
        let number = u32::try_from(random.below(40)).expect("small");
        match random.below(4) {
            0 | 1 => bench.ask(number, Tier::Medium),
            2 => {
                let verdicts = [Verdict::Approve(Shape::Once), Verdict::Deny];
                // One that nobody asks for, or that is decided, changes nothing.
                let _ = bench.decide(number, verdicts[random.below(2)], ("alice", 1));
            }
            _ => {
                bench.sim.seconds += 20;
                bench.look();
            }
        }
        out.push(bench.queue.kept().clone());
    }
    out
}

fn store() -> (tempfile::TempDir, Store, PathBuf) {
    let dir = tempfile::tempdir().expect("a directory");
    let store = Store::new(dir.path());
    let file = dir.path().join("approvals/queue.jsonl");
    (dir, store, file)
}

#[test]
fn whatever_was_kept_last_is_read_again() {
    let (_dir, mut store, file) = store();
    let (mut begun, mut before) = (0, 0);
    for kept in states(2000) {
        store.keep(BOOT, &kept).expect("kept");
        assert_eq!(store.load(BOOT), Ok(kept));
        let size = fs::metadata(&file).expect("a file").len();
        begun += usize::from(size < before);
        before = size;
    }
    assert!(begun > 1, "the journal never grew so much that it was begun anew");
    assert_eq!(store.load("another-boot"), Ok(Kept::default()));
}

#[test]
fn what_the_daemon_did_not_finish_writing_does_not_count_and_is_replaced() {
    let (dir, mut store, file) = store();
    let states = states(60);
    states.iter().for_each(|kept| store.keep(BOOT, kept).expect("kept"));
    let whole = fs::read(&file).expect("a file");
    let last = whole[..whole.len() - 1].iter().rposition(|byte| *byte == b'\n').expect("two lines") + 1;
    fs::write(&file, &whole[..last]).expect("written");
    let before = store.load(BOOT).expect("the lines before the last");
    for end in last..whole.len() {
        fs::write(&file, &whole[..end]).expect("written");
        assert_eq!(store.load(BOOT).as_ref(), Ok(&before), "cut at {end}");
    }
    let mut next = Store::new(dir.path());
    next.keep(BOOT, &states[7]).expect("kept");
    next.keep(BOOT, &states[40]).expect("kept");
    assert_eq!(next.load(BOOT).as_ref(), Ok(&states[40]));
}

#[test]
fn damage_is_found_in_every_line() {
    let (_dir, mut store, file) = store();
    states(60).iter().for_each(|kept| store.keep(BOOT, kept).expect("kept"));
    let whole = fs::read(&file).expect("a file");
    let mut random = Random(3);
    for _ in 0..500 {
        let (place, bit) = (random.below(whole.len() - 1), random.below(8));
        let mut changed = whole.clone();
        changed[place] ^= 1 << bit;
        fs::write(&file, &changed).expect("written");
        let error = store.load(BOOT).expect_err("it is damaged");
        assert!(error.contains("queue.jsonl: line ") && error.contains("damaged"), "{error}");
    }
    // A line that is missing in the middle, and two that changed places.
    let lines: Vec<&[u8]> = whole.split_inclusive(|byte| *byte == b'\n').collect();
    let missing = [&lines[..3], &lines[4..]].concat().concat();
    let swapped = [&lines[..3], &[lines[4], lines[3]], &lines[5..]].concat().concat();
    for changed in [missing, swapped] {
        fs::write(&file, changed).expect("written");
        assert!(store.load(BOOT).is_err_and(|error| error.contains("line 4: it is damaged")));
    }
}
