//! The thread of a sink: from the log to the receiver, and the cursor behind.

use super::{
    Fresh, SinkStatus, Wake,
    cursor::{BEGINNING, Cursor, Position},
    error::SinkError,
    queue::{Limits, Queue},
    receiver::{self, Message, Receiver},
    retry::{Note, Retry},
    settings::{Format, SinkSettings, Start},
};
use serde_json::{Value, json};
use std::{
    collections::VecDeque,
    io,
    path::Path,
    sync::{
        Arc, Mutex, PoisonError,
        mpsc::{self, Sender},
    },
    thread::{self, JoinHandle},
    time::{Duration, Instant},
};

/// Bytes of records in one delivery, about.
const BYTES: usize = 1 << 20;
/// How long a cursor may stay behind what is certain.
const SAVE: Duration = Duration::from_secs(1);
/// How often a sink without work looks for itself.
const LOOK: Duration = Duration::from_secs(60);
/// How long the end of the daemon waits for sinks.
const FAREWELL: Duration = Duration::from_secs(4);

/// Something that a sink wants to have in the log: kind and fields.
type Record = (&'static str, Value);

/// All sinks of a daemon.
pub struct Sinks {
    wake: Arc<Wake>,
    running: Vec<(Arc<Shared>, JoinHandle<()>)>,
    records: mpsc::Receiver<Record>,
}

struct Shared {
    status: Mutex<SinkStatus>,
    /// Where the cursor on the disk stands.
    saved: Mutex<Position>,
}

impl Shared {
    fn change(&self, change: impl FnOnce(&mut SinkStatus)) {
        change(&mut self.status.lock().unwrap_or_else(PoisonError::into_inner));
    }
}

impl Sinks {
    /// Starts a thread for each sink. The logs are in `logs`, cursors go to `cursors`; `wake` tells of new
    /// checkpoints, and `fresh` has what was written last.
    pub fn start(
        settings: &[SinkSettings],
        logs: &Path,
        cursors: &Path,
        wake: Arc<Wake>,
        fresh: &Arc<Fresh>,
    ) -> Result<Self, SinkError> {
        let (sender, records) = mpsc::channel();
        let mut sinks = Self { wake, running: Vec::new(), records };
        for sink in settings {
            let mut worker = Worker::new(sink, logs, cursors, &sinks.wake, sender.clone())?;
            worker.queue.take_fresh(fresh);
            let shared = Arc::clone(&worker.shared);
            let thread = thread::Builder::new().name(format!("sink-{}", sink.name));
            let thread = thread.spawn(move || worker.run());
            let thread = thread.map_err(|e| SinkError::io("start a thread for", &sink.name, e))?;
            sinks.running.push((shared, thread));
        }
        Ok(sinks)
    }

    /// How each of them does.
    pub fn status(&self) -> Vec<SinkStatus> {
        let status = |(shared, thread): &(Arc<Shared>, JoinHandle<()>)| {
            let mut status = shared.status.lock().unwrap_or_else(PoisonError::into_inner).clone();
            if thread.is_finished() {
                status.error = Some("its thread has ended; restart the daemon".to_owned());
            }
            status
        };
        self.running.iter().map(status).collect()
    }

    /// How far all of them have come, whenever that is asked.
    pub fn passed(&self) -> Passed {
        Passed(self.running.iter().map(|(shared, _)| Arc::clone(shared)).collect())
    }

    /// What they want to have in the log since the last call.
    pub fn records(&self) -> Vec<Record> {
        self.records.try_iter().collect()
    }
}

/// How far sinks have come, for another thread.
pub struct Passed(Vec<Arc<Shared>>);

impl Passed {
    /// The cursor on the disk that is the furthest behind, and whose it is; `None` without sinks. What is
    /// before it has arrived everywhere.
    pub fn slowest(&self) -> Option<(Position, String)> {
        let of = |shared: &Arc<Shared>| {
            let saved = *shared.saved.lock().unwrap_or_else(PoisonError::into_inner);
            let status = shared.status.lock().unwrap_or_else(PoisonError::into_inner);
            (saved, status.name.clone())
        };
        self.0.iter().map(of).min()
    }
}

impl Drop for Sinks {
    fn drop(&mut self) {
        self.wake.stop();
        let until = Instant::now() + FAREWELL;
        for (_, thread) in self.running.drain(..) {
            while !thread.is_finished() && Instant::now() < until {
                thread::sleep(Duration::from_millis(5));
            }
            if thread.is_finished() {
                // A panic of the thread was reported by itself.
                let _ = thread.join();
            }
            // One that still waits for its receiver ends with the process; its cursor stays behind.
        }
    }
}

struct Worker {
    target: &'static str,
    name: String,
    format: Format,
    kinds: Vec<String>,
    queue: Queue,
    cursor: Cursor,
    receiver: Box<dyn Receiver>,
    wake: Arc<Wake>,
    shared: Arc<Shared>,
    records: Sender<Record>,
    retry: Retry,
    /// What is delivered next.
    next: Position,
    /// Everything before it has arrived.
    certain: Position,
    /// Delivered then, up to there, and not certain yet.
    doubtful: VecDeque<(Instant, Position)>,
    saved_at: Instant,
    /// Records in one delivery: what was set, or less where the receiver wants less.
    most: usize,
    set: usize,
}

/// What a step has left.
enum Left {
    /// There may be more.
    More,
    /// Nothing for now.
    Nothing,
}

impl Worker {
    fn new(
        sink: &SinkSettings,
        logs: &Path,
        cursors: &Path,
        wake: &Arc<Wake>,
        records: Sender<Record>,
    ) -> Result<Self, SinkError> {
        let target = sink
            .target()
            .map_err(|problem| SinkError::io("use the sink", &sink.name, io::Error::other(problem)))?;
        let queue = Queue::new(logs.to_owned(), sink.redact, sink.wants_checkpoints());
        let (mut cursor, at) = Cursor::open(cursors, &sink.name)?;
        let start = match (at, sink.start) {
            (Some(position), _) => position,
            (None, Start::Beginning) => BEGINNING,
            (None, Start::Now) => {
                // Noted, so that a restart does not move it.
                let end = queue.end()?.unwrap_or(BEGINNING);
                cursor.save(end)?;
                end
            }
        };
        let name = target.name();
        let status = SinkStatus { name: sink.name.clone(), target: name.to_owned(), ..SinkStatus::default() };
        Ok(Self {
            target: name,
            name: sink.name.clone(),
            format: sink.format,
            kinds: sink.kinds.clone(),
            queue,
            cursor,
            receiver: receiver::of(target),
            wake: Arc::clone(wake),
            shared: Arc::new(Shared { status: Mutex::new(status), saved: Mutex::new(start) }),
            records,
            retry: Retry::default(),
            next: start,
            certain: start,
            doubtful: VecDeque::new(),
            saved_at: Instant::now(),
            most: sink.batch,
            set: sink.batch,
        })
    }

    fn run(mut self) {
        loop {
            let seen = self.wake.commits();
            let outcome = self.step(Instant::now());
            let stopping = self.wake.stopping();
            match outcome {
                Ok(Left::More) => {}
                Ok(Left::Nothing) if stopping => break,
                Ok(Left::Nothing) => {
                    let restless = !self.doubtful.is_empty() || self.saved_at.elapsed() < SAVE;
                    self.wake.wait_for_more(seen, if restless { SAVE } else { LOOK });
                }
                Err(error) => {
                    let wait = self.failed(&error);
                    if stopping {
                        break;
                    }
                    self.wake.wait_out(wait);
                }
            }
        }
        if self.receiver.finish().is_ok() {
            self.certain = self.next;
        }
        if let Err(error) = self.save() {
            tracing::warn!(%error, "sink {}: some records will be sent again", self.name);
        }
    }

    fn step(&mut self, now: Instant) -> Result<Left, SinkError> {
        let result = self.settle(now).and_then(|()| self.forward(now));
        if result.is_err() {
            // Whatever is not certain is sent again.
            self.next = self.certain;
            self.doubtful.clear();
        }
        result
    }

    /// What was delivered long enough ago over a connection that still stands has arrived.
    fn settle(&mut self, now: Instant) -> Result<(), SinkError> {
        self.receiver.check()?;
        let doubt = self.receiver.doubt();
        let before = self.certain;
        while let Some((at, position)) = self.doubtful.front() {
            if now.saturating_duration_since(*at) < doubt {
                break;
            }
            self.certain = *position;
            self.doubtful.pop_front();
        }
        if self.certain != before {
            self.succeeded();
        }
        if now.saturating_duration_since(self.saved_at) >= SAVE {
            self.save()?;
            self.saved_at = now;
        }
        Ok(())
    }

    fn save(&mut self) -> Result<(), SinkError> {
        self.cursor.save(self.certain)?;
        *self.shared.saved.lock().unwrap_or_else(PoisonError::into_inner) = self.certain;
        Ok(())
    }

    fn forward(&mut self, now: Instant) -> Result<Left, SinkError> {
        let batch = self.queue.read(self.next, Limits { records: self.most, bytes: BYTES })?;
        let read = batch.items.len() as u64;
        self.shared.change(|status| status.lag = batch.lag + read);
        let wanted = |kind: &str| {
            self.kinds.is_empty()
                || matches!(kind, "checkpoint" | "unreadable")
                || self.kinds.iter().any(|k| k == kind)
        };
        let items = batch.items.into_iter().filter(|item| wanted(item.kind()));
        let messages: Vec<Message> = items.map(|item| Message::new(item, self.format)).collect();
        if !messages.is_empty() {
            match self.receiver.deliver(&messages) {
                // Where nothing is confirmed, it is a success when it has become certain.
                Ok(()) if self.receiver.doubt().is_zero() => self.succeeded(),
                Ok(()) => {}
                Err(SinkError::TooLarge { .. }) if self.most > 1 => {
                    self.most = (self.most / 2).max(1);
                    return Ok(Left::More);
                }
                Err(error) => return Err(error),
            }
            self.most = (self.most + 1).min(self.set);
        }
        let moved = batch.next != self.next;
        self.next = batch.next;
        if self.receiver.doubt().is_zero() || (messages.is_empty() && self.doubtful.is_empty()) {
            self.certain = self.next;
        } else if moved {
            self.doubtful.push_back((now, self.next));
        }
        let records = messages.iter().filter(|m| m.item.kind() != "checkpoint").count() as u64;
        self.shared.change(|status| {
            status.lag = batch.lag;
            status.delivered += records;
        });
        Ok(if moved { Left::More } else { Left::Nothing })
    }

    fn succeeded(&mut self) {
        self.shared.change(|status| status.error = None);
        if let Some(Note::Recovered(attempts)) = self.retry.succeeded() {
            tracing::info!("sink {}: it works again", self.name);
            self.say("sink-recovered", json!({"attempts": attempts}));
        }
    }

    fn failed(&mut self, error: &SinkError) -> Duration {
        let text = crate::event::text::escape(error.to_string().as_bytes());
        let mut jitter = [0];
        // Without random bytes all wait the shortest time.
        let _ = getrandom::getrandom(&mut jitter);
        let (wait, note) = self.retry.failed(jitter[0]);
        let mut lag = 0;
        self.shared.change(|status| {
            status.failures += 1;
            status.error = Some(text.clone());
            lag = status.lag;
        });
        if note == Some(Note::Failed) {
            tracing::warn!("sink {}: {text}; records wait in the log", self.name);
            self.say("sink-failed", json!({"because": text, "lag": lag}));
        }
        wait
    }

    fn say(&self, kind: &'static str, mut fields: Value) {
        fields["sink"] = self.name.as_str().into();
        fields["target"] = self.target.into();
        // At the end nobody listens any more.
        let _ = self.records.send((kind, fields));
    }
}
