//! From the bytes of the kernel's ring to JSON, to the signed log, and out of a sink.

use divan::{Bencher, counter::ItemsCount};
use enforcer::{
    audit::{Recorder, Sink as _},
    event::{
        decode::Event,
        flat::Flat,
        json::{self, Context, PolicyNote, RuleNote},
    },
    settings::Settings,
};
use enforcer_common::{
    access,
    event::{Header, VERSION, kind, operation, reason},
    verdict::Verdict,
};
use serde_json::Value;
use std::{path::Path, time::Duration};
use zerocopy::{FromZeros as _, IntoBytes as _};

/// Records a turn.
const RECORDS: usize = 20_000;
/// As many as the daemon takes from the ring at once.
const BATCH: usize = 256;

/// Denials of different files, as the kernel writes them.
pub fn denials(count: usize) -> Vec<Vec<u8>> {
    let exe = b"/usr/bin/python3.11";
    let denial = |n: usize| {
        let object = format!("/home/someone/secrets/file-{n}");
        let mut header = Header::new_zeroed();
        header.version = VERSION;
        header.kind = kind::DECISION;
        header.operation = operation::OPEN;
        header.verdict = Verdict::Deny as u16;
        header.reason = reason::RULE;
        header.error = -libc::EPERM;
        header.access = u32::from(access::file::READ);
        header.object_len = object.len() as u16;
        header.exe_len = exe.len() as u16;
        header.length = (size_of::<Header>() + object.len() + exe.len()) as u32;
        header.comm[..7].copy_from_slice(b"python3");
        (header.policy, header.session, header.cgroup) = (1, [7, 7], 4712);
        (header.tgid, header.pid, header.parent, header.uid) = (4711, 4711, 1, 1000);
        (header.device, header.inode) = (8 << 20 | 1, 1 + n as u64);
        header.time = 1_000_000_000 + n as u64 * 10_000;
        [header.as_bytes(), object.as_bytes(), exe].concat()
    };
    (0..count).map(denial).collect()
}

/// What the daemon knows of the numbers in a record.
struct Known;

impl Context for Known {
    fn agent(&self, _: u32) -> Option<String> {
        Some("billing-bot".to_owned())
    }

    fn policy(&self, _: u32) -> Option<PolicyNote> {
        Some(PolicyNote { id: "billing-bot".to_owned(), version: 7, digest: "ab".repeat(32) })
    }

    fn rules(&self, _: &Event<'_>) -> Option<Vec<RuleNote>> {
        Some(vec![RuleNote { text: "deny read **/secrets/**".to_owned(), because: None }])
    }

    fn break_glass(&self, _: u32, _: u64) -> Option<String> {
        None
    }
}

/// A record as JSON.
pub fn decoded(bytes: &[u8]) -> Value {
    json::event(&Event::try_from(bytes).expect("a record"), 1_700_000_000_000_000_000, &Known)
}

#[divan::bench]
fn decode_to_json(bencher: Bencher<'_, '_>) {
    let [bytes] = &denials(1)[..] else { return };
    let mut flat = Flat::default();
    bencher.counter(ItemsCount::new(1usize)).bench_local(|| {
        let event = Event::try_from(&bytes[..]).expect("a record");
        json::write(&event, None, 1_700_000_000_000_000_000, &Known, &mut flat);
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
            json::write(&event, None, 1_700_000_000_000_000_000, &Known, &mut flat);
            recorder.append_flat(&flat);
        }
        recorder.settle().expect("written");
    }
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
