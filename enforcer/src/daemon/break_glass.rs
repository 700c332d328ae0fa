//! Break-glass in the daemon: recorded and kept first, then in the kernel; taken back the other way round.

use super::{
    core::{Core, boot_time, now},
    enforcement::{AgentSlot, EnforcementError},
};
use crate::{
    approvals::{
        ancestry,
        drive::World as _,
        sealed::{read_sealed, sealed, write_whole},
    },
    audit,
    break_glass::book::{Ask, Book, Lifted, Refused},
    cli::exit::{Exit, Failure},
    control::{break_glass::BreakGlassStatus, peer::Peer},
    event::text::{hex, rfc3339},
    settings::Settings,
};
use serde::{Deserialize, Serialize};
use serde_json::{Value, json};
use std::{collections::BTreeMap, path::PathBuf};

/// The daemon's part of it.
pub(super) struct Glass {
    book: Book,
    file: PathBuf,
    /// This boot: times of another one mean nothing.
    boot: String,
    /// What was in force when the host went down.
    rebooted: Vec<Lifted>,
    /// Why what an earlier daemon kept cannot be read.
    unreadable: Option<String>,
}

#[derive(Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
struct Kept {
    boot: String,
    book: Book,
}

impl Glass {
    /// Reads what an earlier daemon has kept.
    pub(super) fn load(settings: &Settings) -> Self {
        let file = settings.paths.state.join("break-glass.json");
        let read = || -> Result<Option<Kept>, String> {
            let Some(bytes) = read_sealed(&file)? else { return Ok(None) };
            serde_json::from_slice(&bytes).map(Some).map_err(|e| format!("{}: {e}", file.display()))
        };
        let boot = audit::boot();
        let (kept, unreadable) = match read() {
            Ok(kept) => (kept, None),
            Err(why) => (None, Some(why)),
        };
        let (book, rebooted) = match kept {
            Some(kept) if kept.boot == boot => (kept.book, Vec::new()),
            Some(kept) => (Book::default(), kept.book.cut_off()),
            None => (Book::default(), Vec::new()),
        };
        Self { book, file, boot, rebooted, unreadable }
    }

    /// What was in force for an agent at a time (boot time).
    pub(super) fn of(&self, agent: &str, time: u64) -> Option<&str> {
        self.book.of(agent, time)
    }

    fn keep(&self) -> Result<(), String> {
        let kept = Kept { boot: self.boot.clone(), book: self.book.clone() };
        let bytes = serde_json::to_vec(&kept).map_err(|e| e.to_string())?;
        write_whole(&self.file, &sealed(&bytes)).map_err(|e| format!("{}: {e}", self.file.display()))
    }
}

impl Core {
    /// A person asks that what the policies of agents refuse goes on for a while. Without agents: of all.
    pub fn begin_break_glass(
        &mut self,
        agents: &[String],
        seconds: u64,
        reason: &str,
        peer: &Peer,
    ) -> Result<(), Failure> {
        let by = self.who(peer);
        if peer.uid != 0 || peer.terminal.is_none() {
            let because = "break-glass is for root at a terminal";
            self.record("break-glass-refused", json!({"because": because, "by": by}));
            let remedy = "log in on the console or over SSH and run this there, with its standard input on that \
                          terminal";
            return Err(Failure::new(Exit::Permission, because, remedy));
        }
        let ask = Ask { agents: agents.to_vec(), seconds, reason: reason.to_owned(), by, id: new_id() };
        self.lift(ask).map_err(|refused| {
            let fields = json!({"because": refused.to_string(), "by": self.who(peer)});
            self.record("break-glass-refused", fields);
            let remedy = "enforcer break-glass status says what is in force; nothing has changed";
            Failure::new(Exit::NotApproved, refused.to_string(), remedy)
        })
    }

    /// Recorded and kept, then active. What does not work is undone.
    pub(super) fn lift(&mut self, ask: Ask) -> Result<(), Refused> {
        let known: Vec<String> = self.agents.keys().cloned().collect();
        let most = self.settings.break_glass.maximum_seconds;
        let lifted = self.glass.book.propose(ask, &known, most, boot())?;
        self.record_surely("break-glass-begun", lifted.begun()).map_err(Refused::Unrecorded)?;
        self.glass.book.enter(lifted.clone());
        if let Err(why) = self.glass.keep() {
            self.take_back(&lifted.id, "it could not be kept on the disk", None);
            return Err(Refused::Unrecorded(why));
        }
        if let Err(error) = self.tell_kernel(&lifted.agents, lifted.until) {
            self.take_back(&lifted.id, "the kernel could not be told", None);
            return Err(Refused::Kernel(error.to_string()));
        }
        tracing::warn!(
            id = lifted.id,
            agents = lifted.agents.join(" "),
            "BREAK-GLASS is in force until {}",
            rfc3339(wall(lifted.until))
        );
        // What waits for a person goes on.
        let slots: Vec<AgentSlot> = lifted.agents.iter().filter_map(|name| self.slots.get(name)).collect();
        slots.into_iter().for_each(|slot| self.judge_anew(slot));
        Ok(())
    }

    /// A person ends it: the one with this id, or all.
    pub fn end_break_glass(&mut self, id: Option<&str>, peer: &Peer) -> Result<(), Failure> {
        let by = self.who(peer);
        self.end_lifted(id, "a person has ended it", Some(&by)).map_err(|refused| {
            Failure::new(
                Exit::NotApproved,
                refused.to_string(),
                "enforcer break-glass status says what is in force",
            )
        })
    }

    fn end_lifted(&mut self, id: Option<&str>, because: &str, by: Option<&Value>) -> Result<(), Refused> {
        let ended = self.glass.book.end(id, boot())?;
        // What refuses does not wait for a log or a disk that fails; the deadline in the kernel stands in any case.
        let told = ended.iter().map(|one| self.tell_kernel(&one.agents, 0)).collect::<Result<Vec<()>, _>>();
        self.say_over(&ended, because, by);
        told.map(|_| ()).map_err(|error| Refused::Kernel(error.to_string()))
    }

    fn take_back(&mut self, id: &str, because: &str, by: Option<&Value>) {
        if let Err(error) = self.end_lifted(Some(id), because, by) {
            tracing::error!(%error, "cannot take break-glass {id} back");
        }
    }

    /// Ends what is over: the kernel has, the records say so. Called every second.
    pub(super) fn end_overdue_break_glass(&mut self) {
        let over = self.glass.book.overdue(boot());
        // Zero tells the next daemon that there is nothing to be said about it any more.
        for one in &over {
            if let Err(error) = self.tell_kernel(&one.agents, 0) {
                tracing::error!(%error, "cannot tell the kernel that break-glass {} is over", one.id);
            }
        }
        self.say_over(&over, "its time is over", None);
    }

    /// At the start: what an earlier daemon has begun goes on until its deadline, if kernel and disk agree on it.
    pub(super) fn adopt_break_glass(&mut self) {
        for one in std::mem::take(&mut self.glass.rebooted) {
            self.record("break-glass-ended", one.over("the host was started anew", None, None));
            self.keep_that_it_is_over();
        }
        self.end_overdue_break_glass();
        let lifted = match self.enforcement.lifted() {
            Ok(lifted) => lifted,
            Err(error) => return tracing::error!(%error, "cannot read what break-glass lifts"),
        };
        let name = |slot: AgentSlot| self.slots.name(slot).unwrap_or_default().to_owned();
        let kernel: BTreeMap<String, u64> =
            lifted.iter().map(|(slot, until)| (name(*slot), *until)).collect();
        let (ended, clear) = self.glass.book.reconcile(&kernel, boot());
        let slots: Vec<AgentSlot> =
            lifted.iter().filter(|(slot, _)| clear.contains(&name(*slot))).map(|(slot, _)| *slot).collect();
        if let Err(error) = self.enforcement.lift(&slots, 0) {
            tracing::error!(%error, "cannot end break-glass in the kernel");
        }
        self.say_over(&ended, "the kernel and the daemon's files did not agree on it", None);
        let why = self.glass.unreadable.take();
        if !clear.is_empty() && ended.is_empty() || why.is_some() {
            let because = why.unwrap_or_else(|| "the daemon's files say nothing about it".to_owned());
            tracing::error!("break-glass of an earlier daemon is ended: {because}");
            self.record(
                "break-glass-ended",
                json!({"break_glass": null, "agents": clear, "because": because}),
            );
        }
    }

    fn say_over(&mut self, ended: &[Lifted], because: &str, by: Option<&Value>) {
        for one in ended {
            tracing::warn!(id = one.id, "break-glass is over: {because}");
            self.record("break-glass-ended", one.over(because, by, Some(boot())));
        }
        if !ended.is_empty() {
            self.keep_that_it_is_over();
        }
    }

    fn keep_that_it_is_over(&self) {
        if let Err(error) = self.glass.keep() {
            // The kernel knows, and the next daemon compares.
            tracing::error!(error, "cannot keep that break-glass is over");
        }
    }

    fn tell_kernel(&mut self, agents: &[String], until: u64) -> Result<(), EnforcementError> {
        let slots: Vec<AgentSlot> = agents.iter().filter_map(|name| self.slots.get(name)).collect();
        self.enforcement.lift(&slots, until)
    }

    fn who(&self, peer: &Peer) -> Value {
        let terminal = peer.terminal.as_ref().map(|terminal| terminal.name.clone());
        json!({
            "uid": peer.uid, "pid": peer.pid, "terminal": terminal, "login_uid": ancestry::login_uid(peer.pid),
        })
    }

    /// What is in force.
    pub fn break_glass_list(&self) -> Vec<BreakGlassStatus> {
        let time = boot();
        let status = |one: &Lifted| BreakGlassStatus {
            id: one.id.clone(),
            agents: one.agents.clone(),
            reason: one.reason.clone(),
            until: rfc3339(wall(one.until)),
            seconds_left: (one.until - time) / 1_000_000_000,
        };
        self.glass.book.in_force(time).map(status).collect()
    }

    /// Marks a record of the daemon's own that is about an agent.
    pub(super) fn mark_break_glass(&self, fields: &mut serde_json::Map<String, Value>) {
        let agent = fields.get("agent").and_then(Value::as_str).unwrap_or_default();
        if let Some(id) = self.glass.of(agent, boot()) {
            fields.insert("break_glass".to_owned(), id.into());
        }
    }
}

fn boot() -> u64 {
    u64::try_from(boot_time()).unwrap_or(0)
}

/// A boot time as time since 1970, to the second.
fn wall(time: u64) -> i128 {
    (now() + i128::from(time) - boot_time()) / 1_000_000_000 * 1_000_000_000
}

fn new_id() -> String {
    let mut bytes = [0; 8];
    // It has no way to fail where it has worked once (random(7)).
    getrandom::getrandom(&mut bytes).expect("the kernel gives random bytes");
    hex(&bytes)
}
