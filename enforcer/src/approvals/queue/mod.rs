//! What waits for a person, what was decided, and what follows from it. Pure: time and news come in, actions go out.

mod ask;
mod decide;
mod justify;
mod kept;
mod look;

pub use ask::Ask;
pub use decide::{Outcome, Proposal};
pub use kept::{Change, Kept};
pub use look::{Seen, SessionInfo};

use super::{
    canonical::Digest,
    hold::{HoldId, Now, SECOND, SessionKey, Waiter},
    request::Request,
    shape::Shape,
};
use crate::policy::Tier;
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};
use serde_json::Value;
use std::{
    collections::{BTreeMap, BTreeSet},
    sync::Arc,
};

/// How long something may look odd before it is taken for what it looks like: news come late.
const GRACE: u64 = 5 * SECOND;

/// What the settings say.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Limits {
    /// Seconds that a request is open where its rule does not say.
    pub timeout: u64,
    /// Seconds that a refusal stands before it may be asked again.
    pub refusal: u64,
    /// Requests of one agent that may wait at one time.
    pub per_agent: u32,
    /// Refusals and timeouts in a row after which the agent is not listened to for a while.
    pub strikes: u32,
    /// Seconds that it is not listened to.
    pub cool_down: u64,
    /// Where two persons must approve.
    pub two_persons: Vec<TwoPersons>,
}

/// Where two persons must approve.
#[derive(Clone, Debug, PartialEq, Eq, Deserialize, Serialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct TwoPersons {
    /// Agents by name; `*` stands for any characters.
    pub agents: String,
    /// Tiers of requests.
    pub tiers: Vec<Tier>,
}

/// What is to be done, in this order.
#[derive(Clone, Debug, PartialEq)]
pub enum Action {
    /// Write a record.
    Record(&'static str, Value),
    /// Keep the queue on the disk.
    Persist,
    /// Tell the kernel.
    Kernel(KernelAct),
    /// Tell whoever wants to hear of new requests.
    Announce(HoldId),
}

/// What the kernel is told.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum KernelAct {
    /// The request is open until then; its callers wait, or are refused meanwhile.
    Open(HoldId, u64, bool),
    /// So many calls pass until then.
    Grant(HoldId, u32, u64),
    /// It is refused until then.
    Refuse(HoldId, u64),
    /// Nothing is known of it any more.
    Forget(HoldId),
    /// How many new requests a session may still make.
    Quota(u32, u32),
    /// Whoever waits looks again.
    Wake(Waiter),
}

/// A request and what became of it.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Entry {
    /// What is asked.
    pub request: Request,
    /// The session.
    pub session: SessionKey,
    /// Boot time of the first record.
    pub asked_at: u64,
    /// Boot time until which it can be answered.
    pub deadline: u64,
    /// Callers wait inside the call; else they are refused and come again.
    pub waits: bool,
    /// How often it was asked.
    pub asked: u64,
    /// What became of it.
    pub state: State,
    /// Approvals so far, where two are needed.
    pub approvals: Vec<Approval>,
}

/// What became of a request.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum State {
    /// Nobody has decided.
    Pending,
    /// It goes on until then (boot time).
    Granted {
        /// Boot time of the decision.
        at: u64,
        /// Boot time of its end.
        until: u64,
    },
    /// It is refused until then (boot time).
    Refused {
        /// Boot time of the decision.
        at: u64,
        /// Boot time of its end.
        until: u64,
    },
}

/// One person's approval.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Approval {
    /// Who.
    pub name: String,
    /// The person behind the name.
    pub person: String,
    /// What they approve.
    pub shape: Shape,
}

/// Who has launched a session, and what for.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Launch {
    /// What for, in the launcher's words.
    pub task: Option<String>,
    /// Who.
    pub launcher: String,
}

/// How an agent has behaved.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
struct Meter {
    strikes: u32,
    /// Boot time until which nobody listens.
    silent_until: u64,
}

/// The queue.
#[derive(Clone, Debug, PartialEq)]
pub struct Queue {
    limits: Limits,
    kept: Kept,
    /// By digest of the request.
    digests: BTreeMap<Digest, HoldId>,
    sessions: Vec<SessionInfo>,
    /// Agents whose sessions' quotas are to be said again.
    stirred: BTreeSet<String>,
    /// Holds of the kernel that the queue does not know, and when they were first seen.
    strange: BTreeMap<HoldId, u64>,
}

impl Queue {
    /// A queue with what an earlier daemon of this boot has kept.
    pub fn new(limits: Limits, kept: Kept) -> Self {
        let digests = kept.entries.iter().map(|(id, entry)| (entry.request.digest(), *id)).collect();
        let stirred = BTreeSet::new();
        Self { limits, kept, digests, sessions: Vec::new(), stirred, strange: BTreeMap::new() }
    }

    /// A queue with the same limits that knows nothing.
    pub fn empty(&self) -> Self {
        Self::new(self.limits.clone(), Kept::default())
    }

    /// What is to be kept.
    pub fn kept(&self) -> &Kept {
        &self.kept
    }

    /// Everything that is known, by id.
    pub fn entries(&self) -> impl Iterator<Item = (HoldId, &Entry)> {
        self.kept.entries.iter().map(|(id, entry)| (*id, &**entry))
    }

    /// Nothing is known that time could change: no request, and no agent that is not listened to.
    pub fn is_idle(&self) -> bool {
        self.kept.entries.is_empty() && self.kept.meters.values().all(|meter| meter.silent_until == 0)
    }

    /// How many new requests an agent may make now.
    pub fn may_ask(&self, agent: &str, now: Now) -> u32 {
        if self.is_silenced(agent, now) {
            0
        } else {
            self.limits.per_agent.saturating_sub(self.waiting(agent))
        }
    }

    /// One request.
    pub fn entry(&self, id: HoldId) -> Option<&Entry> {
        self.kept.entries.get(&id).map(|entry| &**entry)
    }

    /// Remembers who has launched a session.
    pub fn note_launch(&mut self, session: String, launch: Launch) {
        self.kept.launches.insert(session, launch);
    }

    /// Who has launched a session.
    pub fn launch(&self, session: &str) -> Option<&Launch> {
        self.kept.launches.get(session)
    }

    /// Whether two persons must approve.
    pub fn needs_two(&self, agent: &str, tier: Tier) -> bool {
        let asks = |two: &TwoPersons| super::approver::fits(&two.agents, agent) && two.tiers.contains(&tier);
        self.limits.two_persons.iter().any(asks)
    }

    fn insert(&mut self, id: HoldId, entry: Entry) {
        self.remove(id);
        self.digests.insert(entry.request.digest(), id);
        self.kept.entries.insert(id, Arc::new(entry));
    }

    fn remove(&mut self, id: HoldId) -> Option<Arc<Entry>> {
        let entry = self.kept.entries.remove(&id)?;
        self.digests.remove(&entry.request.digest());
        Some(entry)
    }

    fn waiting(&self, agent: &str) -> u32 {
        let is_one = |entry: &&Arc<Entry>| entry.state == State::Pending && entry.request.who.agent == agent;
        u32::try_from(self.kept.entries.values().filter(is_one).count()).unwrap_or(u32::MAX)
    }

    fn is_silenced(&self, agent: &str, now: Now) -> bool {
        self.kept.meters.get(agent).is_some_and(|meter| now.boot < meter.silent_until)
    }

    /// Counts a refusal or a timeout. Too many in a row: nobody listens for a while.
    fn strike(&mut self, agent: &str, now: Now) -> Option<Action> {
        let limits = &self.limits;
        let meter = self.kept.meters.entry(agent.to_owned()).or_default();
        meter.strikes += 1;
        self.stirred.insert(agent.to_owned());
        if meter.strikes < limits.strikes {
            return None;
        }
        *meter = Meter { strikes: 0, silent_until: now.boot.saturating_add(limits.cool_down * SECOND) };
        Some(Action::Record(
            "approvals-silenced",
            serde_json::json!({
                "agent": agent, "seconds": limits.cool_down,
                "because": format!("{} of its requests in a row were refused or not answered", limits.strikes),
            }),
        ))
    }

    /// Says how many requests sessions may still make, where that has changed.
    fn quotas(&mut self, now: Now) -> Vec<Action> {
        let stirred = std::mem::take(&mut self.stirred);
        let mut actions = Vec::new();
        for agent in stirred {
            let more = self.may_ask(&agent, now);
            let sessions = self.sessions.iter().filter(|session| session.agent == agent);
            actions.extend(sessions.map(|s| Action::Kernel(KernelAct::Quota(s.key.slot, more))));
        }
        actions
    }
}

/// What records say about a request.
fn about(id: HoldId, request: &Request) -> serde_json::Map<String, Value> {
    let mut out = serde_json::Map::new();
    let mut put = |key: &str, value: Value| drop(out.insert(key.to_owned(), value));
    put("hold", id.to_string().into());
    put("request", crate::event::text::hex(&request.digest()).into());
    put("agent", request.who.agent.clone().into());
    put("session", request.who.session.clone().into());
    put("operation", request.what.operation.clone().into());
    put("object", request.what.object.as_str().into());
    out
}

fn record(kind: &'static str, id: HoldId, request: &Request, because: &str) -> Action {
    let mut fields = about(id, request);
    fields.insert("because".to_owned(), because.into());
    Action::Record(kind, fields.into())
}
