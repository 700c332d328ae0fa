//! From the bytes of the kernel's ring to JSON, to the signed log, and out of a sink.

use crate::made::{BATCH, Known, OFFSET, denials};
use divan::{Bencher, counter::ItemsCount};
use enforcer::{
    audit::{Recorder, Sink as _},
    event::{decode::Event, flat::Flat, json},
    settings::Settings,
};
use serde_json::Value;
use std::{path::Path, time::Duration};

/// Records a turn.
const RECORDS: usize = 20_000;

/// A record as JSON.
pub fn decoded(bytes: &[u8]) -> Value {
    json::event(&Event::try_from(bytes).expect("a record"), OFFSET, &Known)
}

#[divan::bench]
fn decode_to_json(bencher: Bencher<'_, '_>) {
    let [bytes] = &denials(1)[..] else { return };
    let mut flat = Flat::default();
    bencher.counter(ItemsCount::new(1usize)).bench_local(|| {
        let event = Event::try_from(&bytes[..]).expect("a record");
        json::write(&event, None, OFFSET, &Known, &mut flat);
        flat.acts()
    });
}

fn recorder(state: &Path) -> Recorder {
    let sink = format!(
        "[[sinks]]\nname='file'\nbatch=5000\nfile={{path='{}/out',rotate_megabytes=9999}}",
        state.display()
    );
    let mut settings = Settings::parse("bench", &sink).expect("valid settings");
    settings.paths.state = state.to_owned();
    // A sink delivers what a checkpoint covers; at the default of one second, waiting would be measured.
    settings.audit.checkpoint_milliseconds = 50;
    Recorder::open(&settings).expect("a log")
}

fn take(recorder: &mut Recorder, records: &[Vec<u8>]) {
    let mut flat = Flat::default();
    for batch in records.chunks(BATCH) {
        for bytes in batch {
            let event = Event::try_from(&bytes[..]).expect("a record");
            json::write(&event, None, OFFSET, &Known, &mut flat);
            recorder.append_flat(&flat);
        }
        recorder.flush().expect("handed over");
    }
    recorder.settle().expect("written");
    assert_eq!(recorder.lost(), 0, "every record is in the log");
}

/// A recorder in a directory that lives as long as it.
fn fresh() -> (tempfile::TempDir, Recorder) {
    let dir = tempfile::tempdir().expect("a directory");
    let recorder = recorder(dir.path());
    (dir, recorder)
}

#[divan::bench(sample_count = 5, sample_size = 1)]
fn decode_to_log(bencher: Bencher<'_, '_>) {
    let records = denials(RECORDS);
    bencher
        .counter(ItemsCount::new(RECORDS))
        .with_inputs(fresh)
        .bench_refs(|(_, recorder)| take(recorder, &records));
}

#[divan::bench(sample_count = 5, sample_size = 1)]
fn decode_to_log_to_sink(bencher: Bencher<'_, '_>) {
    let records = denials(RECORDS);
    bencher.counter(ItemsCount::new(RECORDS)).with_inputs(fresh).bench_refs(|(_, recorder)| {
        take(recorder, &records);
        while recorder.sinks().iter().any(|sink| sink.delivered < RECORDS as u64 || sink.lag > 0) {
            std::thread::sleep(Duration::from_millis(1));
        }
    });
}
