//! Old records are removed with a record about it, and what is left can be verified as before.

use crate::world::{Host, append, files, sealed};
use enforcer::log::{
    key, note,
    reader::Reader,
    retention::{Claim, Decision, FILE, KIND, Keeper, Limits, Plan, Truncation},
    store::{CHECKPOINT, Store},
    tree::{check_consistency, check_inclusion, leaf_hash, prove_consistency, prove_inclusion, root_at},
    verify::Finding,
};
use serde_json::json;
use std::fs;

/// As much as 300 records take, about.
const SOME: u64 = 200_000;

fn limits(bytes: u64) -> Limits {
    Limits { bytes, days: 0, settings: "d1".to_owned() }
}

fn plan(keeper: &mut Keeper, bytes: u64, passed: u64) -> Plan {
    match keeper.decide(&limits(bytes), passed, 0).expect("decides") {
        Decision::Remove(plan) => *plan,
        other => panic!("{other:?}"),
    }
}

/// Records what goes, as the daemon does; returns the index of the record about it.
fn say(store: &mut Store, plan: &Plan) -> u64 {
    let mut all: Vec<_> = plan.handovers.iter().map(|fields| ("key-handover", fields.clone())).collect();
    all.push((KIND, plan.fields.clone()));
    for (kind, mut fields) in all {
        fields["kind"] = kind.into();
        fields["time"] = "2026-02-03T04:05:06.000000000Z".into();
        let record = sealed(store.size(), &fields);
        store.append(&record);
    }
    store.commit().expect("commit");
    store.size() - 1
}

/// Removes all but so many bytes.
pub(crate) fn truncate(host: &Host, store: &mut Store, bytes: u64) -> Plan {
    let mut keeper = Keeper::open(&host.log()).expect("opens");
    let plan = plan(&mut keeper, bytes, u64::MAX);
    let record = say(store, &plan);
    keeper.carry_out(&plan, record, &mut || false).expect("removes");
    plan
}

fn removed(host: &Host) -> Claim {
    host.verify(None).expect("verifies").removed.expect("a truncation")
}

#[test]
fn a_log_without_its_oldest_records_verifies_and_says_what_is_gone() {
    let host = Host::with_records(1_500, 97);
    let early = fs::read(host.log().join(CHECKPOINT)).expect("checkpoint");
    let (mut store, _) = host.open();
    let whole = files(&host.log()).len();
    let plan = truncate(&host, &mut store, SOME);
    assert!(plan.from == 0 && plan.to >= 512 && plan.to.is_multiple_of(256), "{plan:?}");
    let claim = removed(&host);
    assert_eq!((claim.to, claim.because.as_str()), (plan.to, "bytes"));
    // Entries and clear texts went, the record's file came, hashes stayed.
    assert!(files(&host.log()).len() < whole);
    assert!(!host.log().join("tile/entries/000").exists() && !host.log().join("clear/000").exists());
    assert!(host.log().join("tile/0/000").exists());
    // A checkpoint from before, one of a size that is gone altogether.
    assert_eq!(host.verify(Some(&early)).expect("verifies").kept, Some(1_500));
    // And again, over a restart.
    (0..900).for_each(|_| append(&mut store));
    store.commit().expect("commit");
    drop(store);
    let (mut store, _) = host.open();
    let second = truncate(&host, &mut store, SOME);
    assert_eq!((second.from, removed(&host).to), (plan.to, second.to));
    assert!(second.to > plan.to && Truncation::read(&host.log()).expect("reads").is_some());
}

#[test]
fn proofs_of_what_is_left_and_of_what_went_hold() {
    let host = Host::with_records(1_200, 301);
    let (mut store, _) = host.open();
    let plan = truncate(&host, &mut store, SOME);
    let mut reader = Reader::open(&host.log()).expect("log");
    let (size, root) = (reader.size(), reader.checkpoint.root);
    for index in [plan.to, plan.to + 1, size - 1] {
        let leaf = leaf_hash(&reader.record(index).expect("record").leaf);
        let proof = prove_inclusion(&mut reader, index, size).expect("proof");
        assert!(check_inclusion(&proof, index, &leaf, size, &root), "{index}");
    }
    for old in [1, 17, 256, plan.to - 1, plan.to, plan.to + 3, size] {
        let old_root = root_at(&mut reader, old).expect("root");
        let proof = prove_consistency(&mut reader, old, size).expect("proof");
        assert!(check_consistency(&proof, old, &old_root, size, &root), "{old}");
    }
    assert!(reader.record(plan.to - 1).expect_err("gone").to_string().contains("removed by retention"));
}

#[test]
fn records_that_are_gone_without_a_record_are_damage() {
    let host = Host::with_records(900, 100);
    for name in ["tile/entries/000", "clear/000"] {
        fs::remove_file(host.log().join(name)).expect("remove");
    }
    assert!(matches!(host.verify(None), Err(Finding::Record { index: 0, .. })));
    // Nor does the file that names a record stand for one, whatever it says.
    for text in
        ["{\"to\":256,\"record\":700}\n", "{\"to\":256,\"record\":9000}\n", "{\"to\":256,\"record\":1}\n"]
    {
        fs::write(host.log().join(FILE), text).expect("write");
        assert!(host.verify(None).is_err(), "{text}");
    }
}

#[test]
fn what_a_removal_left_out_or_took_too_much_is_found() {
    let host = Host::with_records(1_500, 97);
    let (mut store, _) = host.open();
    let plan = truncate(&host, &mut store, SOME);
    let first = format!("tile/entries/{:03}", plan.to / 256);
    let bytes = fs::read(host.log().join(&first)).expect("bundle");
    fs::remove_file(host.log().join(&first)).expect("remove");
    match host.verify(None) {
        Err(Finding::Record { index, .. }) => assert_eq!(index, plan.to),
        other => panic!("{other:?}"),
    }
    fs::write(host.log().join(&first), &bytes).expect("write");
    host.verify(None).expect("as before");
    // A bundle that was never signed, in the place of one that is gone.
    fs::write(host.log().join("tile/entries/000"), &bytes).expect("write");
    assert!(matches!(host.verify(None), Err(Finding::File { .. })));
}

#[test]
fn wherever_a_removal_is_interrupted_the_log_verifies_and_the_next_one_goes_on() {
    let mut interrupted = 0;
    for steps in 0.. {
        let host = Host::with_records(1_100, 256);
        let (mut store, _) = host.open();
        let mut keeper = Keeper::open(&host.log()).expect("opens");
        let plan = plan(&mut keeper, SOME, u64::MAX);
        let before = files(&host.log());
        // Before the record, after it, and after every single file.
        host.verify(None).expect("before");
        let record = say(&mut store, &plan);
        assert_eq!(host.verify(None).expect("recorded").removed, None);
        let mut left = steps;
        let mut stop = || {
            left -= 1;
            left < 0
        };
        keeper.carry_out(&plan, record, &mut stop).expect("removes");
        let done = left >= 0;
        assert_eq!(removed(&host).to, plan.to, "{steps}");
        // The power failing may bring back any of them.
        let old = |name: &std::path::Path| name.ends_with("entries/001") || name.ends_with("entries/000");
        for (name, bytes) in before.iter().filter(|(name, _)| old(name)) {
            fs::write(host.log().join(name), bytes).expect("write");
        }
        assert_eq!(removed(&host).to, plan.to, "{steps}, brought back");
        drop(store);
        let (store, _) = host.open();
        Keeper::open(&host.log()).expect("goes on");
        let entries = files(&host.log().join("tile/entries"));
        assert!(!entries.iter().any(|(name, _)| old(&std::path::Path::new("entries").join(name))), "{steps}");
        assert_eq!(host.verify(None).expect("verifies").size, store.size());
        if done {
            break;
        }
        interrupted += 1;
    }
    assert!(interrupted >= 4, "{interrupted}");
}

#[test]
fn nothing_goes_that_a_sink_has_not_delivered() {
    let host = Host::with_records(1_500, 97);
    let mut keeper = Keeper::open(&host.log()).expect("opens");
    assert_eq!(keeper.decide(&limits(SOME), 255, 0).expect("decides"), Decision::Waits);
    assert_eq!(plan(&mut keeper, SOME, 700).to, 512);
    assert_eq!(keeper.decide(&limits(1 << 40), u64::MAX, 0).expect("decides"), Decision::Nothing);
}

#[test]
fn records_go_when_all_of_their_bundle_are_old() {
    let host = Host::with_records(600, 97);
    let mut keeper = Keeper::open(&host.log()).expect("opens");
    let days = |days| Limits { days, ..Limits::default() };
    // All records are of 2026-01-01.
    let day = 86_400_000_000_000i128;
    let begin = 1_767_225_600_000_000_000i128;
    assert_eq!(keeper.decide(&days(3), u64::MAX, begin + 2 * day).expect("decides"), Decision::Nothing);
    match keeper.decide(&days(3), u64::MAX, begin + 4 * day).expect("decides") {
        Decision::Remove(plan) => {
            assert_eq!(
                (plan.to, &plan.fields["because"], &plan.fields["max_days"]),
                (512, &json!("age"), &json!(3))
            );
        }
        other => panic!("{other:?}"),
    }
}

#[test]
fn who_knows_only_the_first_key_still_follows_when_the_handover_is_gone() {
    let host = Host::with_records(10, 5);
    let first = host.public();
    let mut signers = Vec::new();
    for _ in 0..2 {
        key::replace(&host.dir.path().join("key")).expect("replaced");
        let (mut store, keys) = host.open();
        store.commit().expect("commit");
        fs::remove_file(keys.previous_file.clone().expect("previous")).expect("remove");
        signers.push(keys.current);
    }
    let (mut store, _) = host.open();
    (0..1_000).for_each(|_| append(&mut store));
    store.commit().expect("commit");
    let plan = truncate(&host, &mut store, SOME);
    assert_eq!(plan.handovers.len(), 2);
    let demands = enforcer::log::verify::Demands { keys: vec![first], ..Default::default() };
    let verified = enforcer::log::verify::directory(&host.log(), &demands).expect("follows");
    let expected: Vec<note::PublicKey> = signers.iter().map(note::SecretKey::public).collect();
    assert_eq!(verified.handovers, expected);
}
