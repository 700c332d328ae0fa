//! The thread that writes the signed log, so that disks and signatures never make the rings wait.

use crate::{
    log::{error::LogError, segments::Ready, store::Store},
    sink::{Fresh, Item, Making, Position, Wake},
};
use std::{
    fs, io,
    ops::Range,
    sync::{
        Arc, Mutex, PoisonError,
        atomic::{AtomicU64, AtomicUsize, Ordering},
        mpsc::{self, Receiver, RecvTimeoutError, Sender},
    },
    thread::{self, JoinHandle},
    time::{Duration, Instant},
};

/// How long the thread sleeps when there is nothing to do.
const IDLE: Duration = Duration::from_secs(60);
/// Bytes of records that are handed to the operating system at once, about.
const TOGETHER: usize = 4 << 20;
/// Buffers that are kept for the next records, and how many bytes one of them may have.
const SPARE: usize = 2;
const KEPT: usize = 1 << 20;
/// After how long it tries again what has failed.
const AGAIN: Duration = Duration::from_secs(1);

/// Records on their way into the log, in one buffer: leaf, clear part and text of one after the other.
#[derive(Default)]
pub(super) struct Batch {
    bytes: Vec<u8>,
    records: Vec<Parts>,
    /// Bytes of texts.
    shown: usize,
}

/// Where the parts of a record end, and where its kind stands in its text. It has no text where that was not at hand.
struct Parts {
    leaf: usize,
    clear: usize,
    shown: usize,
    kind: Range<usize>,
}

impl Batch {
    /// Adds a record; `shown` is its text and where its kind stands in that.
    pub(super) fn push(&mut self, leaf: &[u8], clear: &[u8], shown: Option<(&[u8], Range<usize>)>) {
        let (shown, kind) = shown.unwrap_or((&[], 0..0));
        let mut put = |part: &[u8]| {
            self.bytes.extend_from_slice(part);
            self.bytes.len()
        };
        self.records.push(Parts { leaf: put(leaf), clear: put(clear), shown: put(shown), kind });
        self.shown += shown.len();
    }

    /// Bytes that it takes while it waits.
    pub(super) fn bytes(&self) -> usize {
        self.bytes.len()
    }

    pub(super) fn is_empty(&self) -> bool {
        self.records.is_empty()
    }

    /// Bytes that are written.
    fn written(&self) -> usize {
        self.bytes.len() - self.shown
    }

    fn clear(&mut self) {
        self.bytes.clear();
        self.records.clear();
        self.shown = 0;
    }
}

/// The writer, as the daemon's thread sees it.
pub(super) struct Ledger {
    // Closed first: then the thread commits what is left, and ends.
    batches: Option<Sender<Batch>>,
    shared: Arc<Shared>,
    thread: Option<JoinHandle<()>>,
}

#[derive(Default)]
struct Shared {
    /// Bytes of records that the operating system does not have yet.
    waiting: AtomicUsize,
    committed: AtomicU64,
    error: Mutex<Option<String>>,
    /// Buffers to be used again.
    spare: Mutex<Vec<Batch>>,
}

/// Records under the last checkpoint, for another thread.
pub(super) struct Committed(Arc<Shared>);

impl Committed {
    /// So many.
    pub(super) fn get(&self) -> u64 {
        self.0.committed.load(Ordering::Acquire)
    }
}

impl Ledger {
    /// Starts the thread. At least every `interval` there is a checkpoint over what has come; `wake` is told. What is
    /// written goes to `fresh` too; the log's number is `number`.
    pub(super) fn start(
        ready: Ready,
        interval: Duration,
        wake: Arc<Wake>,
        fresh: Arc<Fresh>,
        number: u32,
    ) -> io::Result<Self> {
        let shared = Arc::new(Shared::default());
        let (batches, orders) = mpsc::channel();
        let writer = Writer {
            store: ready.store,
            keys: ready.keys,
            shared: Arc::clone(&shared),
            wake,
            fresh,
            number,
            unflushed: 0,
            committed_at: None,
            interval,
        };
        let thread =
            thread::Builder::new().name("audit-log".to_owned()).spawn(move || writer.run(&orders))?;
        Ok(Self { batches: Some(batches), shared, thread: Some(thread) })
    }

    /// Hands records over, in the order of their indexes.
    pub(super) fn append(&self, batch: Batch) {
        self.shared.waiting.fetch_add(batch.bytes(), Ordering::Relaxed);
        let sent = self.batches.as_ref().map(|batches| batches.send(batch));
        if !matches!(sent, Some(Ok(()))) {
            self.shared.set_error(Some("the thread that writes the audit log has ended".to_owned()));
        }
    }

    /// A buffer for the next records.
    pub(super) fn room(&self) -> Batch {
        self.shared.spare.lock().unwrap_or_else(PoisonError::into_inner).pop().unwrap_or_default()
    }

    /// Bytes that wait to be written.
    pub(super) fn waiting(&self) -> usize {
        self.shared.waiting.load(Ordering::Relaxed)
    }

    /// Records under the last checkpoint.
    pub(super) fn committed(&self) -> u64 {
        self.shared.committed.load(Ordering::Acquire)
    }

    /// The same, wherever it is asked for.
    pub(super) fn committed_handle(&self) -> Committed {
        Committed(Arc::clone(&self.shared))
    }

    /// Why writing does not succeed now.
    pub(super) fn error(&self) -> Option<String> {
        self.shared.error.lock().unwrap_or_else(PoisonError::into_inner).clone()
    }
}

impl Drop for Ledger {
    fn drop(&mut self) {
        self.batches = None;
        if let Some(thread) = self.thread.take() {
            // A panic of the thread was reported by itself.
            let _ = thread.join();
        }
    }
}

impl Shared {
    /// Keeps a buffer for the next records, unless it has become large or there are enough.
    fn keep(&self, mut batch: Batch) {
        let mut spare = self.spare.lock().unwrap_or_else(PoisonError::into_inner);
        if spare.len() < SPARE && batch.bytes.capacity() <= KEPT {
            batch.clear();
            spare.push(batch);
        }
    }

    fn set_error(&self, error: Option<String>) {
        *self.error.lock().unwrap_or_else(PoisonError::into_inner) = error;
    }
}

struct Writer {
    store: Store,
    keys: crate::log::key::Keys,
    shared: Arc<Shared>,
    wake: Arc<Wake>,
    fresh: Arc<Fresh>,
    number: u32,
    unflushed: usize,
    /// When the last commit was tried.
    committed_at: Option<Instant>,
    interval: Duration,
}

impl Writer {
    fn run(mut self, orders: &Receiver<Batch>) {
        loop {
            match orders.recv_timeout(self.pause(Instant::now())) {
                Ok(batch) => self.take_all(batch, orders),
                Err(RecvTimeoutError::Timeout) => {}
                Err(RecvTimeoutError::Disconnected) => break,
            }
            if self.pause(Instant::now()).is_zero() {
                self.commit();
            }
        }
        if self.store.size() > self.store.committed() {
            self.commit();
        }
    }

    /// How long nothing needs to be committed.
    fn pause(&self, now: Instant) -> Duration {
        if self.store.size() == self.store.committed() {
            return IDLE;
        }
        let wait = if self.shared_error() { AGAIN } else { self.interval };
        self.committed_at.map_or(Duration::ZERO, |at| (at + wait).saturating_duration_since(now))
    }

    fn shared_error(&self) -> bool {
        self.shared.error.lock().is_ok_and(|error| error.is_some())
    }

    /// Takes these records and what has come meanwhile, and hands all of it to the operating system at once: the fewer
    /// times, the fewer records pass through the journal on their way into a bundle.
    fn take_all(&mut self, batch: Batch, orders: &Receiver<Batch>) {
        self.take(batch);
        while self.unflushed < TOGETHER
            && let Ok(batch) = orders.try_recv()
        {
            self.take(batch);
        }
        let flushed = self.store.flush();
        self.note(flushed);
    }

    fn take(&mut self, batch: Batch) {
        // What sinks get is kept elsewhere from now on, and bounded there.
        self.shared.waiting.fetch_sub(batch.shown, Ordering::Relaxed);
        self.unflushed += batch.written();
        let at = Position { log: self.number, index: self.store.size() };
        let wanted = self.fresh.is_wanted();
        let room = batch.shown + batch.records.len() * self.store.origin().len().saturating_add(96);
        let mut texts = Making::new(self.store.origin(), if wanted { room } else { 0 });
        let mut which = Vec::with_capacity(if wanted { batch.records.len() } else { 0 });
        let mut start = 0;
        for Parts { leaf, clear, shown, kind } in &batch.records {
            let hash = self.store.append_parts(&batch.bytes[start..*leaf], &batch.bytes[*leaf..*clear]);
            if wanted {
                let text = &batch.bytes[*clear..*shown];
                which.push((!text.is_empty()).then_some(texts.len()));
                if !text.is_empty() {
                    texts.add(text, kind, &hash);
                }
            }
            start = *shown;
        }
        if wanted {
            let texts = texts.done();
            self.fresh.put(at, which.into_iter().map(|at| Some(Item::of(&texts, at?))).collect());
        }
        self.shared.keep(batch);
    }

    fn commit(&mut self) {
        let committed = self.store.commit();
        self.committed_at = Some(Instant::now());
        if committed.is_ok() {
            self.hand_over();
        }
        self.shared.committed.store(self.store.committed(), Ordering::Release);
        self.wake.committed();
        self.note(committed);
    }

    /// The new key signs alone once its handover is committed.
    fn hand_over(&mut self) {
        if self.keys.previous.take().is_none() {
            return;
        }
        self.store.set_signers(vec![self.keys.current.clone()]);
        if let Some(file) = self.keys.previous_file.take()
            && let Err(error) = fs::remove_file(&file)
        {
            tracing::warn!(%error, "cannot remove {}", file.display());
        }
    }

    fn note(&mut self, result: Result<(), LogError>) {
        match result {
            Ok(()) => {
                self.shared.waiting.fetch_sub(self.unflushed, Ordering::Relaxed);
                self.unflushed = 0;
                self.shared.set_error(None);
            }
            Err(error) => self.shared.set_error(Some(error.to_string())),
        }
    }
}
