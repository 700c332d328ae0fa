//! What waits for a person, between the kernel's tables and the queue: the daemon as the queue's world.

use super::{
    core::{Core, boot_time, now},
    enforcement::{AgentSlot, EnforcementError, SessionRef},
    held::Held,
};
use crate::{
    approvals::{
        ancestry,
        approver::Approvers,
        directory,
        drive::{self, Decided, World},
        error::DecisionError,
        hold::{self, HoldId, HoldState, Now, SessionKey},
        queue::{Ask, Kept, KernelAct, Launch, Limits, Queue, Seen, SessionInfo},
        request::{Request, Who},
        signature::LocalPeer,
        store::Store,
        webhook::Webhook,
        words,
    },
    audit,
    control::peer::Peer,
    event::text::{hex, session_id},
    settings::Settings,
};
use enforcer_common::{
    event::operation,
    hold::{ASKED, GRANTED, Hold, REFUSED, WAITING, WaiterKey, Word},
};
use serde_json::{Value, json};

/// Nanoseconds that a program has to go on, or to end, once its arguments are judged.
const RESUME: u64 = 60_000_000_000;

/// Nanoseconds within which the daemon judges a program's arguments, or has asked somebody.
const JUDGED: u64 = 20_000_000_000;

/// The daemon's part of approvals.
pub(super) struct Approvals {
    queue: Queue,
    store: Store,
    boot: String,
    host: String,
    webhook: Option<Webhook>,
    /// What an earlier daemon has kept cannot be read.
    problem: Option<String>,
}

impl Approvals {
    /// Reads what an earlier daemon has kept. What is damaged counts as nothing: what waits is then refused.
    pub(super) fn load(settings: &Settings) -> Self {
        let (store, boot) = (Store::new(&settings.paths.state), audit::boot());
        let (kept, problem) = match store.load(&boot) {
            Ok(kept) => (kept, None),
            Err(problem) => (Kept::default(), Some(problem)),
        };
        let own = &settings.approvals;
        let limits = Limits {
            timeout: own.timeout_seconds,
            refusal: own.refusal_seconds,
            per_agent: own.per_agent,
            strikes: own.strikes,
            cool_down: own.cool_down_seconds,
            two_persons: own.two_persons.clone(),
        };
        let webhook = own.webhook.as_ref().and_then(|target| {
            Webhook::start(target).inspect_err(|error| tracing::error!(error, "there is no webhook")).ok()
        });
        Self { queue: Queue::new(limits, kept), store, boot, host: audit::host(), webhook, problem }
    }
}

impl Approvals {
    /// Who has launched a session, and what for.
    pub(super) fn launch(&self, session: &str) -> Option<&Launch> {
        self.queue.launch(session)
    }
}

/// The time, twice.
pub(super) fn present() -> Now {
    Now {
        wall: i64::try_from(now() / 1_000_000_000).unwrap_or(i64::MAX),
        boot: u64::try_from(boot_time()).unwrap_or_default(),
    }
}

/// SHA-256 of the policy under which it was asked for.
fn digest(hold: &Hold) -> [u8; 32] {
    let mut bytes = [0; 32];
    bytes.chunks_exact_mut(8).zip(hold.digest).for_each(|(to, word)| to.copy_from_slice(&word.to_ne_bytes()));
    bytes
}

fn state(hold: &Hold, boot: u64) -> HoldState {
    let word = Word(hold.word);
    let open = boot < hold.deadline;
    match word.state() {
        WAITING | ASKED if open => HoldState::Pending,
        GRANTED if open && word.uses() > 0 => HoldState::Granted,
        REFUSED if open => HoldState::Refused,
        _ => HoldState::Over,
    }
}

impl Core {
    /// Lets a loaded program run.
    pub(super) fn let_run(&mut self, held: &Held) {
        let until = present().boot + RESUME;
        let told = self.enforcement.grant(held.id.0, 1, until).and_then(|_| self.wake(held));
        if let Err(error) = told {
            tracing::error!(%error, process = held.waiter.tgid, "a program waits although its arguments are allowed");
        }
    }

    /// Ends a loaded program before its first instruction.
    pub(super) fn end_program(&mut self, held: &Held) {
        let told =
            self.enforcement.refuse_hold(held.id.0, present().boot + RESUME).and_then(|_| self.wake(held));
        if let Err(error) = told {
            tracing::error!(%error, process = held.waiter.tgid, "a program waits although it is refused");
        }
    }

    /// Forgets a loaded program that is gone: whoever starts and ends many would fill the tables for others.
    pub(super) fn forget_program(&mut self, held: &Held) {
        let hold::Waiter { pid, tgid, started, .. } = held.waiter;
        let forgotten = self.enforcement.forget_waiter(WaiterKey { pid, tgid, started });
        if let Err(error) = forgotten.and_then(|()| self.enforcement.forget_hold(held.id.0)) {
            tracing::error!(%error, process = tgid, "cannot forget a program that has gone");
        }
    }

    /// Whether somebody may be asked about one more act of its agent.
    pub(super) fn may_ask(&self, held: &Held) -> bool {
        self.approvals.queue.may_ask(&held.who.agent, present()) > 0
    }

    fn wake(&mut self, held: &Held) -> Result<(), EnforcementError> {
        let hold::Waiter { pid, tgid, started, .. } = held.waiter;
        self.enforcement.wake(WaiterKey { pid, tgid, started })
    }

    /// Puts what came from the kernel before the queue.
    pub(super) fn take_held(&mut self, held: Vec<Held>) {
        if held.is_empty() {
            return;
        }
        let sessions = match self.session_keys() {
            Ok(sessions) => sessions,
            // What nobody was asked about is refused after a while.
            Err(error) => return tracing::error!(%error, "cannot list the sessions"),
        };
        let mut actions = Vec::new();
        for one in held {
            let Some(session) = sessions.iter().find(|s| s.id == session_id(one.session)) else { continue };
            let ask = Ask {
                id: one.id,
                at: one.at,
                session: session.key,
                waiter: one.waiter,
                waits: one.waits,
                timeout: one.timeout,
            };
            let time = present();
            let launch = self.approvals.queue.launch(&one.who.session).cloned();
            let host = self.approvals.host.clone();
            actions.extend(self.approvals.queue.ask(time, &ask, |deadline| {
                let (task, launcher) = launch.map_or((None, None), |l| (l.task, Some(l.launcher)));
                let process = one.who.process;
                let directory = ancestry::directory(process);
                let who =
                    Who { host, task, launcher, ancestry: ancestry::ancestry(process), directory, ..one.who };
                let (what, why, recent) = (one.what, one.why, one.recent);
                let (hold, number, since) = (one.id, number(), time.wall);
                Request { hold, number, who, what, why, since, deadline, justification: None, recent }
            }));
        }
        self.with_queue(|core, queue| drive::perform(core, queue, actions));
    }

    /// Compares the queue with the kernel's tables. Without `sessions`, only if something waits.
    pub fn look_at_holds(&mut self, sessions: bool) {
        if !self.arguments.is_empty() {
            self.judge_arguments(present().boot);
        }
        // Read before the tables: what is counted later is looked for the next time. Empty tables take the kernel long to
        // go through, since it looks for their first entry.
        let waits = self.enforcement.waits();
        let told = self.approvals.problem.is_none() && self.approvals.queue.is_idle();
        if !sessions && told && self.idle_since == Some(waits) {
            return;
        }
        self.idle_since = None;
        let (holds, waiters) = match (self.enforcement.holds(), self.enforcement.waiters()) {
            (Ok(holds), Ok(waiters)) => (holds, waiters),
            (Err(error), _) | (_, Err(error)) => {
                return tracing::error!(%error, "cannot read what waits for a person");
            }
        };
        if let Some(problem) = self.approvals.problem.take() {
            tracing::error!(problem, "what waits for a person is refused");
            self.record("approvals-lost", json!({"because": problem}));
        }
        let idle = holds.is_empty() && waiters.is_empty() && self.approvals.queue.is_idle();
        self.idle_since = idle.then_some(waits);
        if idle && !sessions {
            return;
        }
        let time = present();
        let sessions = match self.session_keys() {
            Ok(sessions) => sessions,
            Err(error) => return tracing::error!(%error, "cannot list the sessions"),
        };
        let mut seen = Seen { sessions, ..Seen::default() };
        // The queue hears of a program only if somebody has to be asked about its arguments.
        let own = |(id, hold): &&(enforcer_common::hold::HoldId, Hold)| {
            hold.operation == operation::ARGUMENTS
                && self.approvals.queue.entry(HoldId(*id)).is_none()
                && match state(hold, time.boot) {
                    HoldState::Pending => time.boot.saturating_sub(hold.since) < JUDGED,
                    HoldState::Granted => true,
                    HoldState::Refused | HoldState::Over => false,
                }
        };
        let own: std::collections::BTreeSet<_> = holds.iter().filter(own).map(|(id, _)| *id).collect();
        let known = |(id, hold): &(enforcer_common::hold::HoldId, Hold)| hold::Hold {
            id: HoldId(*id),
            state: state(hold, time.boot),
            slot: hold.slot,
        };
        seen.holds = holds.iter().filter(|(id, _)| !own.contains(id)).map(known).collect();
        for (key, waiter) in waiters {
            if ancestry::exists(key.tgid, key.pid, key.started) {
                if !own.contains(&waiter.id) {
                    let (pid, tgid, started) = (key.pid, key.tgid, key.started);
                    seen.waiters.push(hold::Waiter { id: HoldId(waiter.id), pid, tgid, started });
                }
                continue;
            }
            let mut forgotten = self.enforcement.forget_waiter(key);
            // Each run of a program is a request of its own, which goes with it.
            if own.contains(&waiter.id) {
                forgotten = forgotten.and_then(|()| self.enforcement.forget_hold(waiter.id));
            }
            if let Err(error) = forgotten {
                tracing::error!(%error, "cannot forget a thread that has gone");
            }
        }
        let actions = self.approvals.queue.look(time, &seen);
        self.with_queue(|core, queue| drive::perform(core, queue, actions));
    }

    /// Says how much a new session may ask for: its slot still has what the session before it had left.
    pub(super) fn set_first_quota(&mut self, session: SessionRef, agent: AgentSlot) {
        let name = self.slots.name(agent).unwrap_or_default().to_owned();
        let more = self.approvals.queue.may_ask(&name, present());
        if let Err(error) = self.enforcement.set_hold_quota(session.slot, more) {
            tracing::error!(%error, "cannot say how much a session may ask for");
        }
    }

    /// The agent has another policy: what waits is judged by that one. Where nothing is different it waits on.
    pub(super) fn judge_anew(&mut self, agent: AgentSlot) {
        let (holds, waiters) = match (self.enforcement.holds(), self.enforcement.waiters()) {
            (Ok(holds), Ok(waiters)) => (holds, waiters),
            (Err(error), _) | (_, Err(error)) => {
                return tracing::error!(%error, "cannot read what waits for a person");
            }
        };
        let in_force = self.slots.name(agent).and_then(|name| self.agents.get(name));
        let in_force = in_force.map(|state| state.policy.head().digest());
        for (key, waiter) in waiters {
            let of_agent = |(id, hold): &&(_, Hold)| *id == waiter.id && hold.agent == agent.0;
            let Some((id, hold)) = holds.iter().find(of_agent) else { continue };
            let mut told = Ok(true);
            if hold.operation == operation::ARGUMENTS && Some(digest(hold)) != in_force {
                // A program that was loaded under the old policy cannot be executed again under the new one.
                told = self.enforcement.refuse_hold(*id, present().boot + RESUME);
            }
            if let Err(error) = told.and_then(|_| self.enforcement.wake(key)) {
                tracing::error!(%error, "cannot let what waits be judged anew");
            }
        }
    }

    /// How many threads wait for each request.
    pub fn waiting_threads(&self) -> std::collections::BTreeMap<HoldId, usize> {
        let mut out = std::collections::BTreeMap::new();
        for (_, waiter) in self.enforcement.waiters().unwrap_or_default() {
            *out.entry(HoldId(waiter.id)).or_default() += 1;
        }
        out
    }

    /// The queue.
    pub fn queue(&self) -> &Queue {
        &self.approvals.queue
    }

    /// The approvers as their files are now.
    pub fn approvers(&self) -> Approvers {
        directory::read(&self.settings.paths.approvers, nix::unistd::geteuid().as_raw())
    }

    /// What a peer is, where nobody has signed.
    pub fn local_peer(&self, peer: &Peer) -> LocalPeer {
        LocalPeer {
            uid: peer.uid,
            pid: peer.pid,
            login_uid: ancestry::login_uid(peer.pid),
            may_decide: self.settings.approvals.local_operator,
        }
    }

    /// A person decides.
    pub fn decide(
        &mut self,
        text: &str,
        signature: Option<&str>,
        peer: &LocalPeer,
    ) -> Result<Decided, DecisionError> {
        let approvers = self.approvers();
        let all = self.enforcement.waiters().map_err(|e| DecisionError::Kernel(e.to_string()))?;
        let waiters: Vec<hold::Waiter> = all
            .into_iter()
            .map(|(key, waiter)| hold::Waiter {
                id: HoldId(waiter.id),
                pid: key.pid,
                tgid: key.tgid,
                started: key.started,
            })
            .collect();
        let result = self.with_queue(|core, queue| {
            drive::decide(core, queue, (text, signature), peer, &approvers, &waiters)
        });
        if let Err(error) = &result {
            let error = error.to_string();
            let fields = json!({"because": error, "peer": {"uid": peer.uid, "pid": peer.pid}});
            self.record("approval-rejected", fields);
        }
        result
    }

    /// Remembers who has launched a session.
    pub fn note_launch(&mut self, session: String, task: Option<String>, launcher: String) {
        self.approvals.queue.note_launch(session, Launch { task, launcher });
    }

    pub(super) fn with_queue<T>(&mut self, act: impl FnOnce(&mut Self, &mut Queue) -> T) -> T {
        // The world is the daemon without its queue.
        let empty = self.approvals.queue.empty();
        let mut queue = std::mem::replace(&mut self.approvals.queue, empty);
        let result = act(self, &mut queue);
        self.approvals.queue = queue;
        result
    }

    fn session_keys(&self) -> Result<Vec<SessionInfo>, EnforcementError> {
        let sessions = self.enforcement.sessions()?;
        let info = |entry: &super::enforcement::SessionEntry| {
            let slot = AgentSlot(entry.session.agent);
            SessionInfo {
                key: SessionKey { slot: entry.slot, generation: entry.session.generation },
                id: session_id(entry.session.id),
                agent: self.slots.name(slot).map_or_else(|| format!("unknown-{}", slot.0), str::to_owned),
            }
        };
        Ok(sessions.iter().map(info).collect())
    }

    /// Whether a request is still open in the kernel: a grant that comes later is none.
    fn is_open(&self, id: HoldId) -> Result<bool, String> {
        let hold = self.enforcement.hold(id.0).map_err(|e| e.to_string())?;
        let boot = present().boot;
        Ok(hold.is_some_and(|hold| state(&hold, boot) == HoldState::Pending))
    }
}

impl World for Core {
    fn now(&self) -> Now {
        present()
    }

    fn record(&mut self, kind: &'static str, fields: Value) {
        Self::record(self, kind, fields);
    }

    fn record_surely(&mut self, kind: &'static str, fields: Value) -> Result<(), String> {
        let before = self.audit.lost();
        Self::record(self, kind, fields);
        self.audit.settle().map_err(|e| e.to_string())?;
        match self.audit.lost() == before {
            true => Ok(()),
            false => Err("the audit log has no room".to_owned()),
        }
    }

    fn persist(&mut self, kept: &Kept) -> Result<(), String> {
        let Approvals { store, boot, .. } = &mut self.approvals;
        store.keep(boot, kept).map_err(|e| e.to_string())
    }

    fn kernel(&mut self, act: KernelAct) -> Result<bool, String> {
        let told = match act {
            KernelAct::Open(id, until, wait) => self.enforcement.set_hold_open(id.0, until, wait),
            KernelAct::Grant(id, ..) if !self.is_open(id)? => Ok(false),
            KernelAct::Grant(id, uses, until) => self.enforcement.grant(id.0, uses.min(Word::MOST), until),
            KernelAct::Refuse(id, until) => self.enforcement.refuse_hold(id.0, until),
            KernelAct::Forget(id) => self.enforcement.forget_hold(id.0).map(|()| true),
            KernelAct::Quota(slot, more) => self.enforcement.set_hold_quota(slot, more).map(|()| true),
            KernelAct::Wake(waiter) => {
                let hold::Waiter { pid, tgid, started, .. } = waiter;
                self.enforcement.wake(WaiterKey { pid, tgid, started }).map(|()| true)
            }
        };
        told.map_err(|e| e.to_string())
    }

    fn announce(&mut self, queue: &Queue, id: HoldId) {
        let Some(entry) = queue.entry(id) else { return };
        let request = &entry.request;
        tracing::info!(hold = %id, agent = request.who.agent, "asks to {}", words::act(&request.what));
        let Some(webhook) = &self.approvals.webhook else { return };
        let body = json!({
            "event": "approval-requested", "hold": id.to_string(), "request": hex(&request.digest()),
            "agent": request.who.agent, "act": words::act(&request.what), "deadline": request.deadline,
            "text": request.text(),
        });
        if !webhook.send(body.to_string()) {
            tracing::error!(hold = %id, "too many announcements wait for the webhook: this one is dropped");
        }
    }

    fn complain(&mut self, what: &str) {
        tracing::error!("{what}");
    }
}

/// Random, so that no two requests are the same.
fn number() -> String {
    let mut bytes = [0; 16];
    // It has no way to fail where it has worked once (random(7)), and the audit log's salts come from it too.
    getrandom::getrandom(&mut bytes).expect("the kernel gives random bytes");
    hex(&bytes)
}
