//! Asks witnesses to sign checkpoints. A thread of its own, and one for each request: whatever they do or do not do,
//! the log never waits.

use crate::{
    log::{
        error::LogError,
        reader::Reader,
        tree::prove_consistency,
        witness::{self, Cosignature, WITNESSED, WitnessKey},
    },
    settings::{Audit, WitnessSettings},
    sink::{SinkError, SinkStatus, Wake, Web},
};
use serde_json::{Value, json};
use std::{
    fs, io,
    path::{Path, PathBuf},
    sync::{
        Arc, Mutex, PoisonError,
        mpsc::{self, Receiver, Sender},
    },
    thread,
    time::Duration,
};

/// How long a witness may take to answer.
const PATIENCE: Duration = Duration::from_secs(10);
/// Failures in a row after which there is a record.
const FAILURES: u32 = 3;
/// What a witness's answer is read of. Bytes.
const ANSWER: u64 = 16_384;

type Record = (&'static str, Value);

/// The witnesses of a log.
pub(super) struct Witnesses {
    states: Vec<Arc<Mutex<State>>>,
    quorum: usize,
    records: Receiver<Record>,
}

/// How a witness does.
#[derive(Clone, Debug, Default)]
struct State {
    /// The size of the log that it has signed last.
    size: u64,
    /// The size that was signed here last, by this log's own key.
    current: u64,
    signed: u64,
    failures: u64,
    in_a_row: u32,
    error: Option<String>,
    name: String,
}

impl Witnesses {
    /// Starts to ask, whenever there is a new checkpoint and the time has come.
    pub(super) fn start(settings: &Audit, log: &Path, wake: Arc<Wake>) -> io::Result<Self> {
        let (sender, records) = mpsc::channel();
        let all: Vec<Witness> =
            settings.witnesses.iter().filter_map(|witness| Witness::new(witness, &sender)).collect();
        let states = all.iter().map(|witness| Arc::clone(&witness.state)).collect();
        if !all.is_empty() {
            let worker = Worker {
                log: log.to_owned(),
                wake,
                witnesses: all,
                pause: Duration::from_secs(settings.witness_seconds),
            };
            thread::Builder::new().name("audit-witness".to_owned()).spawn(move || worker.run())?;
        }
        Ok(Self { states, quorum: settings.witness_quorum, records })
    }

    /// What is to be recorded about them since the last call.
    pub(super) fn records(&self) -> Vec<Record> {
        self.records.try_iter().collect()
    }

    /// How each of them does, as sinks are reported; one that is missed for the quorum is an error.
    pub(super) fn status(&self) -> Vec<SinkStatus> {
        let states: Vec<State> = self.states.iter().map(|state| lock(state).clone()).collect();
        let signing = states.iter().filter(|state| state.error.is_none()).count();
        let missed = signing < self.quorum;
        states.into_iter().map(|state| state.status(missed)).collect()
    }
}

impl State {
    fn status(self, missed: bool) -> SinkStatus {
        SinkStatus {
            name: self.name,
            target: "witness".to_owned(),
            lag: self.current.saturating_sub(self.size),
            delivered: self.signed,
            failures: self.failures,
            // Where the others are enough, its silence is no problem.
            error: self.error.filter(|_| missed),
        }
    }
}

fn lock(state: &Mutex<State>) -> std::sync::MutexGuard<'_, State> {
    state.lock().unwrap_or_else(PoisonError::into_inner)
}

struct Worker {
    log: PathBuf,
    wake: Arc<Wake>,
    witnesses: Vec<Witness>,
    pause: Duration,
}

impl Worker {
    fn run(mut self) {
        let mut asked = 0;
        loop {
            let seen = self.wake.commits();
            if self.wake.stopping() {
                return;
            }
            match Reader::open(&self.log) {
                Ok(reader) if reader.size() > asked => {
                    asked = reader.size();
                    self.ask_all(&reader);
                    self.wake.wait_out(self.pause);
                }
                Ok(_) => self.wake.wait_for_more(seen, self.pause),
                Err(error) => {
                    tracing::warn!(%error, "there is no checkpoint for witnesses to sign");
                    self.wake.wait_out(self.pause);
                }
            }
        }
    }

    /// Asks all at the same time; each signature is kept as soon as it has come.
    fn ask_all(&mut self, reader: &Reader) {
        let kept = Mutex::new(Vec::new());
        let (log, kept) = (&self.log, &kept);
        thread::scope(|scope| {
            for witness in &mut self.witnesses {
                scope.spawn(move || {
                    lock(&witness.state).current = reader.size();
                    let outcome = witness.ask(log, reader).and_then(|cosignature| {
                        let mut kept = kept.lock().unwrap_or_else(PoisonError::into_inner);
                        kept.push(cosignature);
                        write(log, &reader.note, &kept).map_err(|e| e.to_string())
                    });
                    witness.note(outcome);
                });
            }
        });
    }
}

/// The checkpoint with the signatures of witnesses, in a file beside that without.
fn write(log: &Path, note: &[u8], cosignatures: &[Cosignature]) -> Result<(), LogError> {
    let mut bytes = note.to_vec();
    for cosignature in cosignatures {
        bytes.extend(cosignature.line.as_bytes());
        bytes.push(b'\n');
    }
    let (path, fresh) = (log.join(WITNESSED), log.join("checkpoint.witnessed.tmp"));
    fs::write(&fresh, bytes).map_err(|e| LogError::io("write", &fresh, e))?;
    fs::rename(&fresh, &path).map_err(|e| LogError::io("replace", &path, e))
}

struct Witness {
    key: WitnessKey,
    web: Web,
    state: Arc<Mutex<State>>,
    records: Sender<Record>,
}

impl Witness {
    fn new(settings: &WitnessSettings, records: &Sender<Record>) -> Option<Self> {
        // The settings were looked through before; a key that is none is no witness.
        let key = WitnessKey::parse(&settings.key).ok()?;
        let url = format!("{}/add-checkpoint", settings.url.trim_end_matches('/'));
        let state = State { name: key.name().to_owned(), ..State::default() };
        Some(Self {
            web: Web::new(url, "Bearer", None, settings.tls.clone()),
            key,
            state: Arc::new(Mutex::new(state)),
            records: records.clone(),
        })
    }

    /// Its signature of the reader's checkpoint. What it has signed before it says itself, once.
    fn ask(&mut self, log: &Path, reader: &Reader) -> Result<Cosignature, String> {
        let old = lock(&self.state).size;
        match self.ask_from(old, log, reader)? {
            Answer::Signed(cosignature) => Ok(cosignature),
            Answer::Knows(size) if size != old && size <= reader.size() => {
                match self.ask_from(size, log, reader)? {
                    Answer::Signed(cosignature) => Ok(cosignature),
                    Answer::Knows(size) => {
                        Err(format!("it says that it knows {size} records, and then others"))
                    }
                }
            }
            Answer::Knows(size) => {
                Err(format!("it has signed a log of {size} records; this one has {}", reader.size()))
            }
        }
    }

    fn ask_from(&mut self, old: u64, log: &Path, reader: &Reader) -> Result<Answer, String> {
        let size = reader.size();
        let proof = if old == 0 || old == size {
            Vec::new()
        } else {
            let mut nodes = Reader::open(log).map_err(|e| e.to_string())?;
            prove_consistency(&mut nodes, old, size).map_err(|e| e.to_string())?
        };
        let body = witness::request(old, &proof, &reader.note);
        let (status, answer) =
            self.web.post_raw(&body, PATIENCE, ANSWER).map_err(|e: SinkError| e.to_string())?;
        let answer = String::from_utf8_lossy(&answer);
        match status {
            200 => {
                let (text, _) = witness::split(&reader.note).map_err(|e| e.to_string())?;
                match self.key.cosignature(text, &answer) {
                    Some(Ok(cosignature)) => Ok(Answer::Signed(cosignature)),
                    Some(Err(error)) => Err(error.to_string()),
                    None => Err("its answer has no signature by its key".to_owned()),
                }
            }
            409 => {
                let size = answer.trim().parse();
                size.map(Answer::Knows)
                    .map_err(|_| "it has seen another size and does not say which".to_owned())
            }
            403 => Err("it does not know this log's key".to_owned()),
            404 => Err("it does not know this log".to_owned()),
            422 => Err("it does not accept the proof that the log only grew".to_owned()),
            other => Err(format!("it answers {other}")),
        }
    }

    fn note(&self, outcome: Result<(), String>) {
        let mut state = lock(&self.state);
        let name = state.name.clone();
        match outcome {
            Ok(()) => {
                state.size = state.current;
                state.signed += 1;
                let failed = std::mem::take(&mut state.in_a_row);
                state.error = None;
                if failed >= FAILURES {
                    // At the end nobody listens any more.
                    let _ = self
                        .records
                        .send(("witness-recovered", json!({"witness": name, "attempts": failed})));
                }
            }
            Err(error) => {
                let error = crate::event::text::escape(error.as_bytes());
                tracing::warn!("witness {name}: {error}");
                state.failures += 1;
                state.in_a_row += 1;
                state.error = Some(error.clone());
                if state.in_a_row == FAILURES {
                    let fields = json!({"witness": name, "because": error, "signed": state.size});
                    let _ = self.records.send(("witness-failed", fields));
                }
            }
        }
    }
}

enum Answer {
    Signed(Cosignature),
    /// It has signed a log of this size last.
    Knows(u64),
}
