//! How many records a second go from the ring's bytes to the signed log and out of a file sink, and how late the last
//! of a hundred arrives there: `cargo bench --package enforcer --bench throughput`.
//!
//! First as fast as it goes, with so many records under way at most; then at a fixed rate, where nothing waits for
//! anything. `RATE`, `SECONDS` and `CHECKPOINT` (milliseconds) change what is tried; the directory is `TMPDIR`'s.

#[path = "userland/made.rs"]
mod made;

use enforcer::{
    audit::{Recorder, Sink as _},
    event::{decode::Event, flat::Flat, json},
    settings::Settings,
};
use made::{BATCH, Known, OFFSET, denials};
use nix::sys::{
    resource::{UsageWho, getrusage},
    time::TimeValLike as _,
};
use std::{
    collections::VecDeque,
    env,
    path::Path,
    thread::sleep,
    time::{Duration, Instant},
};

/// Different records; they come again and again.
const DIFFERENT: usize = 16_384;
/// Records under way at most, where nothing else limits them: fewer than may wait in memory.
const UNDER_WAY: u64 = 12_288;

fn number(name: &str, default: u64) -> u64 {
    env::var(name).ok().and_then(|text| text.parse().ok()).unwrap_or(default)
}

fn recorder(state: &Path, checkpoint: u64) -> Recorder {
    let sink = format!(
        "[[sinks]]\nname='file'\nbatch=5000\nfile={{path='{}/out',rotate_megabytes=32,rotate_keep=1}}",
        state.display()
    );
    let mut settings = Settings::parse("bench", &sink).expect("valid settings");
    settings.paths.state = state.to_owned();
    settings.audit.checkpoint_milliseconds = checkpoint;
    Recorder::open(&settings).expect("a log")
}

/// The time that this process has had of all CPUs.
fn cpu() -> Duration {
    let usage = getrusage(UsageWho::RUSAGE_SELF).expect("usage");
    let micros = usage.user_time().num_microseconds() + usage.system_time().num_microseconds();
    Duration::from_micros(micros.unsigned_abs())
}

/// One run, with these many records a second or as fast as it goes.
struct Run {
    recorder: Recorder,
    /// Up to which record, and when they were taken from the ring.
    under_way: VecDeque<(u64, Instant)>,
    late: Vec<Duration>,
    delivered: u64,
}

impl Run {
    fn look(&mut self) {
        self.delivered = self.recorder.sinks().iter().map(|sink| sink.delivered).min().expect("a sink");
        while self.under_way.front().is_some_and(|(end, _)| *end <= self.delivered) {
            self.late.extend(self.under_way.pop_front().map(|(_, at)| at.elapsed()));
        }
    }

    fn take(&mut self, records: &[Vec<u8>], flat: &mut Flat) {
        let at = Instant::now();
        for bytes in records {
            let event = Event::try_from(&bytes[..]).expect("a record");
            json::write(&event, None, OFFSET, &Known, flat);
            self.recorder.append_flat(flat);
        }
        self.recorder.flush().expect("handed over");
        self.under_way.push_back((self.recorder.taken(), at));
    }
}

fn run(rate: Option<u64>, seconds: u64, checkpoint: u64) {
    let records = denials(DIFFERENT);
    let dir = tempfile::tempdir().expect("a directory");
    let (mut flat, mut next) = (Flat::default(), records.chunks_exact(BATCH).cycle());
    let mut run = Run {
        recorder: recorder(dir.path(), checkpoint),
        under_way: VecDeque::new(),
        late: Vec::new(),
        delivered: 0,
    };
    let (begun, used) = (Instant::now(), cpu());
    let first = run.recorder.taken();
    while begun.elapsed() < Duration::from_secs(seconds) {
        run.look();
        let taken = run.recorder.taken();
        let waits = match rate {
            Some(rate) => (begun.elapsed().as_secs_f64() * rate as f64) < (taken - first) as f64,
            None => taken - run.delivered > UNDER_WAY,
        };
        if waits {
            sleep(Duration::from_micros(100));
        } else {
            run.take(next.next().expect("it never ends"), &mut flat);
        }
    }
    while run.delivered < run.recorder.taken() {
        sleep(Duration::from_micros(100));
        run.look();
    }
    let (took, used) = (begun.elapsed().as_secs_f64(), cpu().saturating_sub(used).as_secs_f64());
    // At a fixed rate there is no other way out where the disk is too slow; it is said then.
    let lost = run.recorder.lost();
    let count = run.recorder.taken() - first;
    run.late.sort_unstable();
    let late = |percent: usize| run.late[(run.late.len() - 1) * percent / 100].as_secs_f64() * 1e3;
    let name = rate.map_or("as fast as it goes".to_owned(), |rate| format!("{rate} records/s wanted"));
    println!(
        "{name}, a checkpoint every {checkpoint} ms: {:.0} records/s into the log and out of the sink for {took:.1} s, \
         {:.2} \u{b5}s of CPU a record; late by {:.1} ms (half), {:.1} ms (99 of 100), {:.1} ms (all); {lost} lost",
        count as f64 / took,
        used * 1e6 / count as f64,
        late(50),
        late(99),
        late(100),
    );
}

fn main() {
    let (seconds, checkpoint) = (number("SECONDS", 5), number("CHECKPOINT", 20));
    run(None, seconds, checkpoint);
    run(Some(number("RATE", 200_000)), seconds, checkpoint);
}
