//! The thread that removes old records, where the settings ask for it. It decides and removes; the records
//! about it are the recorder's, like all others.

use super::ledger::Committed;
use crate::{
    log::retention::{Decision, KIND, Keeper, Limits, Plan},
    settings::Settings,
    sink::{Passed, Position},
};
use serde_json::Value;
use sha2::{Digest, Sha256};
use std::{
    io,
    path::{Path, PathBuf},
    sync::mpsc::{self, Receiver, RecvTimeoutError, Sender, TryRecvError},
    thread::{self, JoinHandle},
    time::{Duration, SystemTime, UNIX_EPOCH},
};

/// How often it looks whether something is too much.
const LOOK: Duration = Duration::from_secs(1);
/// How often it looks whether the record about a removal is on the disk.
const SOON: Duration = Duration::from_millis(20);

/// Kind and fields of a record.
pub(super) type Record = (&'static str, Value);

/// The thread, as the recorder sees it.
pub(super) struct Retention {
    plans: Receiver<Vec<Record>>,
    // Closed first: then the thread ends.
    answers: Option<Sender<u64>>,
    thread: Option<JoinHandle<()>>,
}

impl Retention {
    /// Starts the thread for the log number `number` in `log`; `None` where nothing is ever removed.
    pub(super) fn start(
        settings: &Settings,
        (number, log): (u32, &Path),
        passed: Passed,
        committed: Committed,
    ) -> io::Result<Option<Self>> {
        let Some(limits) = limits(settings) else { return Ok(None) };
        let (orders, plans) = mpsc::channel();
        let (answers, answered) = mpsc::channel();
        let worker = Worker { limits, number, log: log.to_owned(), passed, committed, orders, answered };
        let thread = thread::Builder::new().name("audit-retention".to_owned()).spawn(move || worker.run())?;
        Ok(Some(Self { plans, answers: Some(answers), thread: Some(thread) }))
    }

    /// Records that it wants to have, the last of which it acts on once it is committed: the answer is that
    /// one's index.
    pub(super) fn wants(&self) -> Option<Vec<Record>> {
        self.plans.try_recv().ok()
    }

    /// The last of the wanted records has this index.
    pub(super) fn recorded(&self, index: u64) {
        // A thread that has ended has said why.
        let _ = self.answers.as_ref().map(|answers| answers.send(index));
    }
}

impl Drop for Retention {
    fn drop(&mut self) {
        self.answers = None;
        if let Some(thread) = self.thread.take() {
            // A panic of the thread was reported by itself.
            let _ = thread.join();
        }
    }
}

fn limits(settings: &Settings) -> Option<Limits> {
    let audit = &settings.audit;
    if audit.max_bytes == 0 && audit.max_days == 0 {
        return None;
    }
    let text = serde_json::to_vec(audit).expect("settings are JSON values");
    let settings = crate::event::text::hex(&Sha256::digest(text));
    Some(Limits { bytes: audit.max_bytes, days: audit.max_days, settings })
}

struct Worker {
    limits: Limits,
    number: u32,
    log: PathBuf,
    passed: Passed,
    committed: Committed,
    orders: Sender<Vec<Record>>,
    answered: Receiver<u64>,
}

impl Worker {
    fn run(self) {
        let (mut keeper, mut last_problem) = (None, None::<String>);
        while matches!(self.answered.recv_timeout(LOOK), Err(RecvTimeoutError::Timeout)) {
            let problem = match self.look(&mut keeper) {
                Ok(problem) => problem,
                Err(error) => {
                    // What it knows may not be so any more.
                    keeper = None;
                    Some(format!("old records cannot be removed: {error}"))
                }
            };
            if let Some(problem) = &problem
                && last_problem.as_ref() != Some(problem)
            {
                tracing::warn!("{problem}");
            }
            last_problem = problem;
        }
    }

    /// Removes what is too much; returns why that is not possible now.
    fn look(&self, keeper: &mut Option<Keeper>) -> Result<Option<String>, crate::log::error::LogError> {
        let keeper = match keeper {
            Some(keeper) => keeper,
            none => none.insert(Keeper::open(&self.log)?),
        };
        let (passed, slowest) = self.passed();
        let now = SystemTime::now().duration_since(UNIX_EPOCH).map_or(0, |d| d.as_nanos() as i128);
        let plan = match keeper.decide(&self.limits, passed, now)? {
            Decision::Nothing => return Ok(None),
            Decision::Waits => {
                let sink = slowest.unwrap_or_default();
                return Ok(Some(format!(
                    "old records of the audit log are kept beyond its limits: the sink {sink} has not delivered them"
                )));
            }
            Decision::Remove(plan) => plan,
        };
        let Some(record) = self.record(&plan) else { return Ok(None) };
        let answered = &self.answered;
        let mut stop = || matches!(answered.try_recv(), Err(TryRecvError::Disconnected));
        keeper.carry_out(&plan, record, &mut stop)?;
        tracing::info!(from = plan.from, to = plan.to, record, "old records of the audit log were removed");
        Ok(None)
    }

    /// Has the removal recorded and waits until that is under a checkpoint, on the disk. `None` where the
    /// daemon ends before.
    fn record(&self, plan: &Plan) -> Option<u64> {
        let mut records: Vec<Record> =
            plan.handovers.iter().map(|fields| ("key-handover", fields.clone())).collect();
        records.push((KIND, plan.fields.clone()));
        self.orders.send(records).ok()?;
        let record = self.answered.recv().ok()?;
        while self.committed.get() <= record {
            if !matches!(self.answered.recv_timeout(SOON), Err(RecvTimeoutError::Timeout)) {
                return None;
            }
        }
        Some(record)
    }

    /// Up to which record of this log every sink has come, and the last of them.
    fn passed(&self) -> (u64, Option<String>) {
        match self.passed.slowest() {
            None => (u64::MAX, None),
            Some((Position { log, index }, name)) if log == self.number => (index, Some(name)),
            Some((position, name)) if position.log < self.number => (0, Some(name)),
            Some((_, name)) => (u64::MAX, Some(name)),
        }
    }
}
