//! A kernel, a log, a disk and a clock in memory, which fail and die when they are told to.

use crate::approvals::{
    approver::{Approvers, tests::approvers},
    drive::{Decided, World, decide, perform},
    error::DecisionError,
    hold::{Hold, HoldId, HoldState, Now, SECOND, SessionKey, Waiter},
    queue::{Ask, Kept, KernelAct, Limits, Queue, Seen, SessionInfo, State, TwoPersons},
    request::{Request, tests::request},
    signature::{
        LocalPeer,
        tests::{NOBODY, sign},
    },
    statement::{NAMESPACE, Statement, Verdict},
};
use crate::policy::Tier;
use serde_json::Value;
use std::collections::BTreeMap;

pub(super) const START: i64 = 1_800_000_000;
pub(super) const SESSION: SessionKey = SessionKey { slot: 3, generation: 9 };

/// A hold of the kernel.
#[derive(Clone, Copy, Debug)]
pub(super) struct InKernel {
    pub state: HoldState,
    pub uses: u32,
    pub until: u64,
}

#[derive(Default)]
pub(super) struct Sim {
    pub seconds: u64,
    pub holds: BTreeMap<HoldId, InKernel>,
    pub waiters: Vec<Waiter>,
    pub quotas: BTreeMap<u32, u32>,
    pub log: Vec<(&'static str, Value)>,
    pub disk: Option<Kept>,
    pub complaints: Vec<String>,
    pub announced: Vec<HoldId>,
    pub woken: Vec<u32>,
    /// A person's decision is being carried out.
    pub deciding: bool,
    pub grants: usize,
    pub fail_record: bool,
    pub fail_persist: bool,
    pub fail_kernel: bool,
    /// Seconds that writing a record takes.
    pub slow: u64,
    /// Effects until the daemon dies.
    pub dies_in: Option<usize>,
}

impl Sim {
    fn dead(&mut self) -> bool {
        match &mut self.dies_in {
            None => false,
            Some(0) => true,
            Some(n) => {
                *n -= 1;
                false
            }
        }
    }

    /// What the kernel lets through.
    pub(super) fn lets_through(&self, id: HoldId) -> bool {
        let now = self.now().boot;
        self.holds.get(&id).is_some_and(|h| h.state == HoldState::Granted && h.uses > 0 && now < h.until)
    }
}

impl World for Sim {
    fn now(&self) -> Now {
        Now { wall: START + self.seconds as i64, boot: (1000 + self.seconds) * SECOND }
    }
    fn record(&mut self, kind: &'static str, fields: Value) {
        if !self.dead() && !self.fail_record {
            self.log.push((kind, fields));
        }
    }
    fn record_surely(&mut self, kind: &'static str, fields: Value) -> Result<(), String> {
        self.seconds += self.slow;
        if self.fail_record {
            return Err("disk full".to_owned());
        }
        if !self.dead() {
            self.log.push((kind, fields));
        }
        Ok(())
    }
    fn persist(&mut self, kept: &Kept) -> Result<(), String> {
        if self.fail_persist {
            return Err("disk full".to_owned());
        }
        if !self.dead() {
            self.disk = Some(kept.clone());
        }
        Ok(())
    }
    fn kernel(&mut self, act: KernelAct) -> Result<bool, String> {
        if self.dead() {
            return Ok(true);
        }
        if self.fail_kernel {
            return Err("no".to_owned());
        }
        let now = self.now().boot;
        match act {
            KernelAct::Open(id, until, _) => {
                let Some(hold) = self.holds.get_mut(&id).filter(|h| h.state == HoldState::Pending) else {
                    return Ok(false);
                };
                hold.until = until;
            }
            KernelAct::Grant(id, uses, until) => {
                assert!(self.deciding, "a grant without a decision");
                let recorded = self.log.iter().rev().find(|(kind, _)| *kind == "approval-decided");
                let text = recorded.map(|(_, fields)| fields["requests"].to_string()).unwrap_or_default();
                assert!(
                    text.contains(&id.to_string()) && text.contains("approved"),
                    "a grant without a record"
                );
                let kept = self.disk.as_ref().map(|kept| serde_json::to_value(kept).expect("json"));
                let kept = kept.expect("kept")["entries"][id.to_string()]["state"].to_string();
                assert!(kept.contains("granted"), "a grant that is not kept: {kept}");
                let Some(hold) = self.holds.get_mut(&id).filter(|h| h.state == HoldState::Pending) else {
                    return Ok(false);
                };
                assert!(now < hold.until, "a grant after the deadline");
                *hold = InKernel { state: HoldState::Granted, uses, until };
                self.grants += 1;
            }
            KernelAct::Refuse(id, until) => {
                let Some(hold) = self.holds.get_mut(&id) else { return Ok(false) };
                *hold = InKernel { state: HoldState::Refused, uses: 0, until };
            }
            KernelAct::Forget(id) => drop(self.holds.remove(&id)),
            KernelAct::Quota(slot, more) => drop(self.quotas.insert(slot, more)),
            KernelAct::Wake(waiter) => {
                self.woken.push(waiter.tgid);
                // It looks again; what is still pending holds it again.
                let open = self
                    .holds
                    .get(&waiter.id)
                    .is_some_and(|h| h.state == HoldState::Pending && now < h.until);
                if !open {
                    self.waiters.retain(|other| other != &waiter);
                }
            }
        }
        Ok(true)
    }
    fn announce(&mut self, _: &Queue, id: HoldId) {
        self.announced.push(id);
    }
    fn complain(&mut self, what: &str) {
        self.complaints.push(what.to_owned());
    }
}

/// A daemon with its world.
pub(super) struct Bench {
    pub sim: Sim,
    pub queue: Queue,
    pub approvers: Approvers,
    number: u32,
}

pub(super) fn limits() -> Limits {
    Limits {
        timeout: 600,
        refusal: 60,
        per_agent: 4,
        strikes: 3,
        cool_down: 300,
        two_persons: vec![TwoPersons { agents: "*".to_owned(), tiers: vec![Tier::High] }],
    }
}

pub(super) fn id(n: u32) -> HoldId {
    HoldId([7, u64::from(n)])
}

impl Bench {
    pub(super) fn new() -> Self {
        let queue = Queue::new(limits(), Kept::default());
        Self { sim: Sim::default(), queue, approvers: approvers(), number: 0 }
    }

    fn with_world(&mut self, act: impl FnOnce(&mut Sim, &mut Queue)) {
        act(&mut self.sim, &mut self.queue);
    }

    /// A process asks for object `n`: what the kernel does, and the record that follows.
    pub(super) fn ask(&mut self, n: u32, tier: Tier) {
        let now = self.sim.now();
        if self.sim.lets_through(id(n)) {
            if let Some(hold) = self.sim.holds.get_mut(&id(n)) {
                hold.uses -= 1;
            }
            return;
        }
        let known = self.sim.holds.get(&id(n)).copied();
        let refused = known.is_some_and(|h| match h.state {
            HoldState::Refused => now.boot < h.until,
            // It timed out, and stays so until it is forgotten.
            HoldState::Pending => now.boot >= h.until,
            HoldState::Granted | HoldState::Over => false,
        });
        if refused {
            return;
        }
        let waiter = Waiter { id: id(n), pid: 100 + n, tgid: 100 + n, started: 5 };
        if !known.is_some_and(|h| h.state == HoldState::Pending && now.boot < h.until) {
            let fresh = InKernel { state: HoldState::Pending, uses: 0, until: now.boot + 600 * SECOND };
            self.sim.holds.insert(id(n), fresh);
        }
        if !self.sim.waiters.contains(&waiter) {
            self.sim.waiters.push(waiter);
        }
        self.number += 1;
        let number = self.number;
        let ask = Ask { id: id(n), at: now.boot, session: SESSION, waiter, waits: true, timeout: None };
        self.with_world(|sim, queue| {
            let actions = queue.ask(now, &ask, |deadline| asked(n, number, tier, now.wall, deadline));
            perform(sim, queue, actions);
        });
    }

    pub(super) fn look(&mut self) {
        let seen = self.seen();
        let now = self.sim.now();
        self.with_world(|sim, queue| {
            let actions = queue.look(now, &seen);
            perform(sim, queue, actions);
        });
    }

    fn seen(&self) -> Seen {
        let now = self.sim.now().boot;
        let state = |hold: &InKernel| match hold.state {
            HoldState::Granted if hold.uses == 0 => HoldState::Over,
            state if now < hold.until => state,
            _ => HoldState::Over,
        };
        let holds =
            self.sim.holds.iter().map(|(id, hold)| Hold { id: *id, state: state(hold), slot: SESSION.slot });
        let session = SessionInfo { key: SESSION, id: "0".repeat(32), agent: "billing-bot".to_owned() };
        Seen { holds: holds.collect(), waiters: self.sim.waiters.clone(), sessions: vec![session] }
    }

    /// The statement that decides about object `n`.
    pub(super) fn statement(&self, n: u32, verdict: Verdict, approver: &str) -> Option<String> {
        let digest = self.queue.entry(id(n))?.request.digest();
        let valid_until = self.sim.now().wall + 900;
        let (approver, reason) = (approver.to_owned(), "because".to_owned());
        Some(Statement { verdict, requests: vec![digest], valid_until, approver, reason }.text())
    }

    pub(super) fn submit(
        &mut self,
        text: &str,
        signature: Option<&str>,
        peer: &LocalPeer,
    ) -> Result<Decided, DecisionError> {
        self.sim.deciding = true;
        let waiters = self.sim.waiters.clone();
        let Self { sim, queue, approvers, .. } = self;
        let result = decide(sim, queue, (text, signature), peer, approvers, &waiters);
        self.sim.deciding = false;
        result
    }

    /// Somebody decides with the key that belongs to `seed`.
    pub(super) fn decide(
        &mut self,
        n: u32,
        verdict: Verdict,
        (approver, seed): (&str, u8),
    ) -> Result<Decided, DecisionError> {
        let Some(text) = self.statement(n, verdict, approver) else {
            return Err(DecisionError::UnknownRequest(String::new()));
        };
        let signature = sign(seed, NAMESPACE, &text);
        self.submit(&text, Some(&signature), &NOBODY)
    }

    /// The daemon dies and another one begins with what is on the disk.
    pub(super) fn restart(&mut self) {
        self.sim.dies_in = None;
        self.queue = Queue::new(limits(), self.sim.disk.clone().unwrap_or_default());
    }

    pub(super) fn state(&self, n: u32) -> Option<State> {
        self.queue.entry(id(n)).map(|entry| entry.state)
    }

    pub(super) fn said(&self, kind: &str) -> usize {
        self.sim.log.iter().filter(|(known, _)| *known == kind).count()
    }
}

fn asked(n: u32, number: u32, tier: Tier, since: i64, deadline: i64) -> Request {
    request(|r| {
        r.hold = id(n);
        r.number = format!("{number:032x}");
        (r.why.tier, r.since, r.deadline) = (tier, since, deadline);
    })
}
