//! Prints how many records a second go from ring bytes through decoding, the signed log and its live copy, and out of
//! a file sink, and how long the slowest batches wait until the operating system has them:
//! `cargo run --release -p enforcer --example audit_throughput [RECORDS] [DIRECTORY]`.

use enforcer::{
    audit::{Recorder, Sink},
    event::{
        decode::Event,
        flat::Flat,
        json::{self, Context, PolicyNote, RuleNote},
    },
    settings::Settings,
};
use enforcer_common::{
    event::{Header, VERSION, kind, operation, reason},
    verdict::Verdict,
};
use std::{
    path::PathBuf,
    time::{Duration, Instant},
};
use zerocopy::{FromZeros, IntoBytes};

/// Records between two flushes: what a ring holds when the daemon looks.
const BATCH: usize = 512;
/// Records that may wait for the disk.
const AHEAD: u64 = 40_000;

struct Names;

impl Context for Names {
    fn break_glass(&self, _: u32, _: u64) -> Option<String> {
        None
    }
    fn agent(&self, _: u32) -> Option<String> {
        Some("billing-bot".to_owned())
    }
    fn policy(&self, _: u32) -> Option<PolicyNote> {
        Some(PolicyNote { id: "billing-bot".to_owned(), version: 7, digest: "ab".repeat(32) })
    }
    fn rules(&self, _: &Event) -> Option<Vec<RuleNote>> {
        Some(vec![RuleNote { text: "deny read **/.env files[3] at bot.yaml:12".to_owned(), because: None }])
    }
}

fn record(n: usize) -> Vec<u8> {
    let (object, exe) = (format!("/workspace/project/module-{}/.env", n % 977), "/usr/bin/python3.11");
    let mut header = Header::new_zeroed();
    (header.version, header.kind, header.operation) = (VERSION, kind::DECISION, operation::OPEN);
    (header.verdict, header.reason, header.error, header.access) =
        (Verdict::Deny as u16, reason::RULE, -1, 1);
    (header.session, header.pid, header.tgid, header.time) = ([1, 2], 4711, 4711, n as u64 * 5_000);
    (header.device, header.inode) = (8 << 20 | 1, n as u64);
    (header.object_len, header.exe_len) = (object.len() as u16, exe.len() as u16);
    header.length = (size_of::<Header>() + object.len() + exe.len()) as u32;
    header.comm[..7].copy_from_slice(b"python3");
    [header.as_bytes(), object.as_bytes(), exe.as_bytes()].concat()
}

fn main() {
    let mut arguments = std::env::args().skip(1);
    let count: usize = arguments.next().map_or(1_000_000, |n| n.parse().expect("a number of records"));
    let directory = arguments.next().map(PathBuf::from);
    let dir = tempfile::tempdir_in(directory.unwrap_or_else(std::env::temp_dir)).expect("directory");
    let records: Vec<Vec<u8>> = (0..4096).map(record).collect();

    let mut flat = Flat::default();
    let start = Start::now();
    for n in 0..count {
        let event = Event::try_from(&records[n % records.len()][..]).expect("a record");
        json::write(&event, None, 0, &Names, &mut flat);
        std::hint::black_box(&flat);
    }
    start.say("decoded and named", count);

    let sink = format!(
        "[[sinks]]\nname='file'\nbatch=5000\nfile={{path='{}/out',rotate_megabytes=9999}}",
        dir.path().display()
    );
    let mut settings = Settings::parse("example", &sink).expect("settings");
    // A sink delivers what a checkpoint covers: at the default of one second, waiting would be measured.
    settings.audit.checkpoint_milliseconds = 50;
    settings.paths.state = dir.path().to_owned();
    let mut recorder = Recorder::open(&settings).expect("log");
    let first = recorder.committed();
    let (start, mut waits) = (Start::now(), Vec::new());
    for batch in 0..count.div_ceil(BATCH) {
        let came = Instant::now();
        for n in batch * BATCH..count.min((batch + 1) * BATCH) {
            let event = Event::try_from(&records[n % records.len()][..]).expect("a record");
            json::write(&event, None, 0, &Names, &mut flat);
            recorder.append_flat(&flat);
        }
        recorder.flush().expect("flush");
        // Not faster than the log is written: what waits there would be memory, and later losses.
        while recorder.taken() - recorder.committed() > AHEAD {
            std::thread::sleep(Duration::from_micros(200));
        }
        waits.push(came.elapsed());
    }
    start.say("handed over", count - recorder.lost() as usize);
    let all = count as u64 - recorder.lost();
    while recorder.committed() < first + all {
        recorder.flush().expect("flush");
        std::thread::sleep(Duration::from_millis(1));
    }
    start.say("signed and on the disk", all as usize);
    // Not more than what the sink had to say itself.
    while recorder.sinks().iter().any(|sink| sink.delivered < all || sink.lag > 0) {
        std::thread::sleep(Duration::from_millis(1));
    }
    start.say("out of the sink", all as usize);
    waits.sort();
    let at = |share: usize| waits[(waits.len() - 1) * share / 1000];
    println!("a batch of {BATCH}: p50 {:?}, p99 {:?}, worst {:?}", at(500), at(990), at(1000));
    println!("lost: {}", recorder.lost());
}

/// A moment, by the clock and by what all threads have computed.
struct Start(Instant, Duration);

impl Start {
    fn now() -> Self {
        Self(Instant::now(), computed())
    }

    fn say(&self, what: &str, count: usize) {
        let (took, computed) = (self.0.elapsed(), computed() - self.1);
        let rate = count as f64 / took.as_secs_f64();
        let each = computed / count.max(1) as u32;
        println!("{what}: {count} in {took:?}, {rate:.0}/s, {each:?} of processor time each");
    }
}

fn computed() -> Duration {
    let clock = nix::time::ClockId::CLOCK_PROCESS_CPUTIME_ID;
    nix::time::clock_gettime(clock).map(Duration::from).unwrap_or_default()
}
