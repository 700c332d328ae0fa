//! The signed log itself: appending to its tree, and verifying it, which `enforcer audit verify` does.

use crate::{made::denials, records::decoded};
use divan::{Bencher, black_box, counter::ItemsCount};
use enforcer::log::{
    export, leaf,
    note::SecretKey,
    reader::Reader,
    recover, tree,
    verify::{self, Demands},
};
use std::{
    io::BufReader,
    path::{Path, PathBuf},
};

/// Records of a log.
const RECORDS: usize = 10_000;

fn sealed(count: usize) -> Vec<leaf::Sealed> {
    let place = leaf::Place { host: "bench".to_owned(), boot: "boot".to_owned() };
    let seal = |(seq, bytes): (u64, Vec<u8>)| {
        let record = decoded(&bytes);
        let record = record.as_object().expect("an object");
        leaf::seal(record, &place, seq, &mut || [7; 16])
    };
    (0..).zip(denials(count)).map(seal).collect()
}

fn key() -> SecretKey {
    SecretKey::from_seed("bench/0001", &[7; 32])
}

/// A log with all records under one checkpoint.
fn written(dir: &Path, records: &[leaf::Sealed]) -> PathBuf {
    let log = dir.join("0001");
    let mut store = recover::create(&log, "bench/0001", vec![key()]).expect("a log");
    for some in records.chunks(256) {
        for record in some {
            store.append(record);
        }
        store.flush().expect("written");
    }
    store.commit().expect("signed");
    log
}

fn demands() -> Demands {
    Demands { keys: vec![key().public()], ..Demands::default() }
}

/// The tree alone, in memory: one hash of the leaf and on average one of a node.
#[divan::bench]
fn merkle_append(bencher: Bencher<'_, '_>) {
    let records = sealed(RECORDS);
    bencher.counter(ItemsCount::new(RECORDS)).bench(|| {
        let mut edge = tree::Edge::default();
        for record in &records {
            edge.push(tree::leaf_hash(&record.leaf), &mut |tile| drop(black_box(tile)));
        }
        edge.root()
    });
}

/// Salting and hashing what agents chose, and the canonical leaf.
#[divan::bench]
fn seal_leaves(bencher: Bencher<'_, '_>) {
    bencher.counter(ItemsCount::new(RECORDS)).bench(|| sealed(RECORDS));
}

/// Files and one signed checkpoint.
#[divan::bench(sample_count = 10, sample_size = 1)]
fn write_and_sign(bencher: Bencher<'_, '_>) {
    let records = sealed(RECORDS);
    bencher
        .counter(ItemsCount::new(RECORDS))
        .with_inputs(|| tempfile::tempdir().expect("a directory"))
        .bench_refs(|dir| written(dir.path(), &records));
}

/// Every record, proof and tile of a log's directory.
#[divan::bench(sample_count = 10, sample_size = 1)]
fn verify_directory(bencher: Bencher<'_, '_>) {
    let dir = tempfile::tempdir().expect("a directory");
    let log = written(dir.path(), &sealed(RECORDS));
    let demands = demands();
    bencher
        .counter(ItemsCount::new(RECORDS))
        .bench(|| verify::directory(&log, &demands).expect("it is what was signed"));
}

/// The same records as one exported bundle: lines of JSON and a public key.
#[divan::bench(args = [true, false], sample_count = 10, sample_size = 1)]
fn verify_bundle(bencher: Bencher<'_, '_>, complete: bool) {
    let dir = tempfile::tempdir().expect("a directory");
    let mut reader = Reader::open(&written(dir.path(), &sealed(RECORDS))).expect("a log");
    let mut text = export::head(&mut reader, complete).expect("a head") + "\n";
    for index in 0..RECORDS as u64 {
        text += &export::line(&mut reader, index, complete, false).expect("a record");
        text += "\n";
    }
    let demands = demands();
    bencher
        .counter(ItemsCount::new(RECORDS))
        .bench(|| export::verify(&mut BufReader::new(text.as_bytes()), &demands).expect("it holds"));
}
