//! Where the daemon's records go: into the signed log, and as they come into a file of JSON lines.

use super::{
    JsonLines, Sink,
    alerts::Alerts,
    ledger::{Batch, Ledger},
    retention::Retention,
    witnesses::Witnesses,
};
use crate::{
    event::{flat::Flat, json::SCHEMA, kinds, text::rfc3339},
    log::{
        error::LogError,
        key::{KeyPlaces, host_id},
        leaf::{self, Place, Room, Salt},
        reader::Reader,
        segments,
    },
    settings::Settings,
    sink::{Fresh, SinkStatus, Sinks, Wake},
};
use serde_json::{Map, Value, json};
use std::{
    fs, io,
    path::{Path, PathBuf},
    sync::Arc,
    time::{Duration, Instant, SystemTime, UNIX_EPOCH},
};

/// Bytes of records that may wait for the log's writer; what comes after them is counted, not kept.
const BACKLOG: usize = 64 << 20;
/// Bytes of records after which they are handed over without being asked for.
const BATCH: usize = 1 << 18;
/// After so long without a record there is one that says so: a fresh checkpoint shows that the log lives.
const QUIET: Duration = Duration::from_secs(60);

/// How long a record that must stay is waited for. A busy disk, or a guest that its host lets stand still, takes seconds; a
/// third of what the watchdog waits for the daemon.
const PATIENCE: Duration = Duration::from_secs(10);

/// Where the log lies in the daemon's state directory.
pub fn directory(state: &Path) -> PathBuf {
    state.join("audit/log")
}

/// Where the public key lies, for whoever sets up verification.
pub fn public_key(state: &Path) -> PathBuf {
    state.join("audit/key.pub")
}

/// Where the cursors of sinks lie.
pub fn cursors(state: &Path) -> PathBuf {
    state.join("audit/sinks")
}

/// Where the secret key lies unless the settings or a credential say otherwise.
pub fn secret_key(settings: &Settings) -> PathBuf {
    settings.audit.key.clone().unwrap_or_else(|| settings.paths.state.join("audit/key"))
}

/// The signed log with its live copy.
pub struct Recorder {
    lines: JsonLines,
    // Ends first: what it removes is recorded before.
    retention: Option<Retention>,
    ledger: Ledger,
    // Ends after the ledger: what that commits last is still delivered.
    sinks: Sinks,
    // They end by themselves; nobody waits for them.
    witnesses: Witnesses,
    alerts: Alerts,
    place: Place,
    salts: Salts,
    /// Index of the next record.
    next: u64,
    batch: Batch,
    /// What a record of the kernel is made in.
    room: Room,
    /// Sinks take records as text from memory.
    shows: bool,
    lost: u64,
    /// Lost records that the log does not mention yet.
    unsaid: u64,
    last_record: Instant,
    /// See [`Sink::previous`].
    previous: Option<Value>,
}

impl Recorder {
    /// Opens the log in the state directory, or makes it, and recovers what an earlier daemon left.
    pub fn open(settings: &Settings) -> Result<Self, LogError> {
        let state = &settings.paths.state;
        let lines_path = state.join("audit/events.jsonl");
        let lines = JsonLines::open(&lines_path).map_err(|e| LogError::io("open", &lines_path, e))?;
        let place = Place { host: host(), boot: boot() };
        let places = KeyPlaces {
            credentials: std::env::var_os("CREDENTIALS_DIRECTORY").map(PathBuf::from),
            file: secret_key(settings),
        };
        let name = format!("enforcer-audit/{}", place.host);
        let mut ready = segments::open(&directory(state), &places, &name, settings.audit.on_damage)?;
        let public = public_key(state);
        fs::write(&public, ready.keys.current.public().text() + "\n")
            .map_err(|e| LogError::io("write", &public, e))?;
        let (notes, next) = (std::mem::take(&mut ready.notes), ready.store.size());
        tracing::info!(records = next, origin = ready.store.origin(), "audit log");
        let interval = Duration::from_millis(settings.audit.checkpoint_milliseconds);
        let log = ready.store.directory().to_owned();
        let previous = previous(&log, ready.store.last());
        let wake = Arc::new(Wake::default());
        let number = log.file_name().and_then(|name| name.to_str()?.parse().ok()).unwrap_or(0);
        let fresh = Arc::new(Fresh::default());
        let ledger = Ledger::start(ready, interval, Arc::clone(&wake), Arc::clone(&fresh), number)
            .map_err(|e| LogError::io("write", &log, e))?;
        let witnesses = Witnesses::start(&settings.audit, &log, Arc::clone(&wake));
        let witnesses = witnesses.map_err(|e| LogError::io("start a thread for", &log, e))?;
        let sinks = Sinks::start(&settings.sinks, &directory(state), &cursors(state), wake, &fresh)
            .map_err(|e| LogError::Sink(e.to_string()))?;
        let retention = Retention::start(settings, (number, &log), sinks.passed(), ledger.committed_handle());
        let retention = retention.map_err(|e| LogError::io("start a thread for", &log, e))?;
        let mut recorder = Self {
            lines,
            retention,
            ledger,
            sinks,
            witnesses,
            alerts: Alerts::new(settings.alerts.clone()),
            place,
            salts: Salts::default(),
            next,
            batch: Batch::default(),
            room: Room::default(),
            shows: fresh.is_wanted(),
            lost: 0,
            unsaid: 0,
            last_record: Instant::now(),
            previous,
        };
        for (kind, fields) in notes {
            recorder.own(kind, fields);
        }
        recorder.hand_over();
        Ok(recorder)
    }

    /// Records under the log's last checkpoint.
    pub fn committed(&self) -> u64 {
        self.ledger.committed()
    }

    /// Records that were taken: they are in the log once [`Recorder::committed`] has come so far.
    pub fn taken(&self) -> u64 {
        self.next
    }

    /// Records something about the log itself.
    fn own(&mut self, kind: &str, mut fields: Value) {
        let now = SystemTime::now().duration_since(UNIX_EPOCH).map_or(0, |d| d.as_nanos() as i128);
        if let Some(map) = fields.as_object_mut() {
            map.insert("schema".to_owned(), SCHEMA.into());
            map.insert("time".to_owned(), rfc3339(now).into());
            map.insert("kind".to_owned(), kind.into());
            self.take(map);
        }
    }

    fn take(&mut self, record: &Map<String, Value>) {
        let kind = record.get("kind").and_then(Value::as_str).unwrap_or_default();
        debug_assert!(kinds::is_known(kind), "the kind {kind} is missing in event/kinds.rs");
        let salts = &mut self.salts;
        let sealed = leaf::seal(record, &self.place, self.next, &mut || salts.next());
        self.lines.append_numbered(self.next, record);
        let shown = self.shows.then(|| leaf::show(record, &self.place, self.next));
        let shown = shown.as_ref().map(|shown| (shown.text.as_bytes(), shown.place_of_kind()));
        self.batch.push(&sealed.leaf, &sealed.clear, shown);
        self.taken_one();
        self.look_for_alert(record);
    }

    fn taken_one(&mut self) {
        self.last_record = Instant::now();
        self.next += 1;
        if self.batch.bytes() > BATCH {
            self.hand_over();
        }
    }

    /// Looks at the record that was taken last.
    fn look_for_alert(&mut self, record: &Map<String, Value>) {
        if let Some(alert) = self.alerts.note(record, self.next - 1, boot_time()) {
            self.own("alert", alert);
        }
    }

    /// Records what retention is about to remove. While records are lost for want of room it waits.
    fn record_retention(&mut self) {
        if self.is_full() {
            return;
        }
        let Some(records) = self.retention.as_ref().and_then(Retention::wants) else { return };
        let mut index = self.next;
        for (kind, fields) in records {
            index = self.next;
            self.own(kind, fields);
        }
        if let Some(retention) = &self.retention {
            retention.recorded(index);
        }
    }

    fn hand_over(&mut self) {
        if !self.batch.is_empty() {
            let next = self.ledger.room();
            self.ledger.append(std::mem::replace(&mut self.batch, next));
        }
    }

    fn is_full(&self) -> bool {
        self.ledger.waiting() + self.batch.bytes() > BACKLOG
    }
}

impl Sink for Recorder {
    fn append(&mut self, record: &Value) {
        if self.is_full() {
            let acts = super::acts(record.get("count"));
            self.lost += acts;
            self.unsaid += acts;
            return self.lines.append(record);
        }
        match record {
            Value::Object(record) => self.take(record),
            other => self.own("other", json!({"value": other})),
        }
    }

    fn append_flat(&mut self, record: &Flat) {
        if self.is_full() {
            let acts = record.acts();
            self.lost += acts;
            self.unsaid += acts;
            return self.lines.append(&Value::Object(record.to_map()));
        }
        let salts = &mut self.salts;
        let room = &mut self.room;
        leaf::seal_flat(record, &self.place, self.next, self.shows, &mut || salts.next(), room);
        self.lines.append_flat(self.next, record);
        let shown = self.shows.then(|| (&*room.shown, room.kind.clone()));
        self.batch.push(&room.leaf, &room.clear, shown);
        self.taken_one();
        if self.alerts.may_be_about(record) {
            self.look_for_alert(&record.to_map());
        }
    }

    fn flush(&mut self) -> io::Result<()> {
        if self.unsaid > 0 && !self.is_full() {
            let records = std::mem::take(&mut self.unsaid);
            let because = "the audit log could not be written fast enough";
            self.own("lost", json!({"agent": null, "records": records, "because": because}));
        }
        for (kind, fields) in self.sinks.records().into_iter().chain(self.witnesses.records()) {
            self.own(kind, fields);
        }
        self.record_retention();
        self.hand_over();
        self.lines.flush()?;
        match self.ledger.error() {
            Some(error) => Err(io::Error::other(error)),
            None => Ok(()),
        }
    }

    fn sync(&mut self) -> io::Result<()> {
        let wall = SystemTime::now().duration_since(UNIX_EPOCH).map_or(0, |d| d.as_nanos() as i128);
        if let Some(alert) = self.alerts.look_at_clock(wall, boot_time()) {
            self.own("alert", alert);
            self.flush()?;
        }
        if self.last_record.elapsed() >= QUIET {
            self.own("alive", json!({}));
            self.flush()?;
        }
        self.lines.sync()
    }

    fn settle(&mut self) -> io::Result<()> {
        self.flush()?;
        self.lines.sync()?;
        // The log's own thread writes; what it has written survives the daemon, and is signed within a moment.
        let begun = Instant::now();
        while self.ledger.waiting() > 0 {
            if let Some(error) = self.ledger.error() {
                return Err(io::Error::other(error));
            }
            if begun.elapsed() > PATIENCE {
                return Err(io::Error::other("the audit log is not written fast enough"));
            }
            std::thread::sleep(Duration::from_micros(200));
        }
        Ok(())
    }

    fn lost(&self) -> u64 {
        self.lost + self.lines.lost()
    }

    fn previous(&self) -> Option<Value> {
        self.previous.clone()
    }

    fn sinks(&self) -> Vec<SinkStatus> {
        self.sinks.status().into_iter().chain(self.witnesses.status()).collect()
    }
}

impl Drop for Recorder {
    fn drop(&mut self) {
        // Then the ledger's own drop commits. What fails now has failed before and was said.
        let _ = self.flush();
    }
}

/// What the last record of a log says of itself. One that ends with a full bundle has it on the disk only.
fn previous(log: &Path, last: Option<&[u8]>) -> Option<Value> {
    let leaf = last.map(<[u8]>::to_vec).or_else(|| {
        let mut reader = Reader::open(log).ok()?;
        reader.record(reader.size().checked_sub(1)?).ok().map(|record| record.leaf)
    })?;
    let leaf: Value = serde_json::from_slice(&leaf).ok()?;
    Some(json!({"kind": leaf.get("kind"), "time": leaf.get("time"), "seq": leaf.get("seq")}))
}

/// Random bytes, many at a time.
struct Salts {
    bytes: [u8; 4096],
    used: usize,
}

impl Default for Salts {
    fn default() -> Self {
        Self { bytes: [0; 4096], used: 4096 }
    }
}

impl Salts {
    fn next(&mut self) -> Salt {
        if self.used == self.bytes.len() {
            // It has no way to fail where it has worked once (random(7)), and keys come from it too.
            getrandom::getrandom(&mut self.bytes).expect("the kernel gives random bytes");
            self.used = 0;
        }
        let mut salt = Salt::default();
        let end = self.used + salt.len();
        salt.copy_from_slice(&self.bytes[self.used..end]);
        self.used = end;
        salt
    }
}

/// The host, as records name it.
pub fn host() -> String {
    let machine = fs::read_to_string("/etc/machine-id").unwrap_or_default();
    if machine.trim().is_empty() {
        let name = nix::unistd::gethostname().unwrap_or_default();
        return host_id(&name.to_string_lossy());
    }
    host_id(&machine)
}

/// Nanoseconds since the host booted, its sleep included.
fn boot_time() -> i128 {
    nix::time::clock_gettime(nix::time::ClockId::CLOCK_BOOTTIME)
        .map_or(0, |t| i128::from(t.tv_sec()) * 1_000_000_000 + i128::from(t.tv_nsec()))
}

/// The boot, as records name it.
pub fn boot() -> String {
    let id = fs::read_to_string("/proc/sys/kernel/random/boot_id").unwrap_or_default();
    id.trim().replace('-', "")
}

#[cfg(test)]
#[path = "tests/recorder.rs"]
mod tests;
