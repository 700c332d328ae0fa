//! What sessions hold open although their agent's policy, since it was replaced, would refuse to open it: a policy
//! is asked when something is opened, and not again. The list is read from `/proc`; with `on_tighten: kill` whoever
//! is on it is killed before the new policy counts as applied.

mod judge;
mod pending;
mod seen;
mod sockets;

use super::{
    core::Core,
    enforcement::AgentSlot,
    loaded::{Kept, Loaded},
    numbers::Numbers,
};
use crate::{
    control::message::LeftOpen,
    event::text::{escape, hex, session_id},
    launch::cgroup::{self, SessionCgroup},
    policy::{Head, OnTighten, RuleId},
};
use enforcer_common::{
    access::{file, net},
    map::TierMap,
    verdict::Verdict,
};
use judge::{Rules, tightened};
use pending::Pending;
use seen::{Object, Open, Seen};
use serde_json::json;
use std::{
    collections::{BTreeMap, BTreeSet},
    path::{Path, PathBuf},
    rc::Rc,
    time::{Duration, Instant},
};

/// Things of one agent that are listed; the others are counted.
const LISTED: usize = 256;

/// How long the daemon waits for killed processes to be gone. They execute nothing more from the moment of the
/// kill; what takes them longer is the end of a call of theirs.
const ENDS: Duration = Duration::from_secs(2);

/// What was in force for an agent.
pub(super) enum Before {
    /// Nothing, or the same as now.
    Nothing,
    /// A policy.
    Policy(Rc<Kept>, TierMap),
    /// A policy whose text nobody has any more.
    Unknown,
}

impl Before {
    /// What the policy that goes says about this, if nothing comes after it.
    pub(super) fn on_tighten(&self) -> OnTighten {
        match self {
            Self::Policy(before, _) => before.head().on_tighten(),
            Self::Nothing | Self::Unknown => OnTighten::List,
        }
    }
}

/// What is known of all agents.
#[derive(Default)]
pub(super) struct LeftOpens {
    by_agent: BTreeMap<String, OfAgent>,
    /// Agents that came with a policy in the kernel about which an earlier daemon has left no note.
    unknown: BTreeSet<String>,
    pending: Pending,
}

impl LeftOpens {
    /// With what the kernel has at the start: agents and the numbers of their policies.
    pub(super) fn new(agents: &[(AgentSlot, String, u64)], numbers: &Numbers, state: &Path) -> Self {
        let unknown = |(_, _, word): &&(AgentSlot, String, u64)| {
            let number = (word >> 32) as u32;
            number != 0 && numbers.policy(number).is_none()
        };
        let unknown = agents.iter().filter(unknown).map(|(_, name, _)| name.clone()).collect();
        Self { by_agent: BTreeMap::new(), unknown, pending: Pending::load(state) }
    }

    /// What is known of an agent.
    pub(super) fn of(&self, agent: &str) -> Option<&OfAgent> {
        self.by_agent.get(agent)
    }
}

/// What the sessions of an agent hold open.
#[derive(Default)]
pub(super) struct OfAgent {
    items: BTreeSet<Item>,
    listed: Vec<LeftOpen>,
    problems: Vec<String>,
    /// Calls that were going on when the policy changed may have opened something after the first look: with what
    /// was in force before.
    again: Option<(Before, bool)>,
}

/// One thing, wherever it is inherited to.
#[derive(Clone, PartialEq, Eq, PartialOrd, Ord)]
struct Item {
    session: String,
    open: Open,
}

/// A session and where it lives.
struct Place {
    session: String,
    cgroup: PathBuf,
}

impl OfAgent {
    /// What is listed.
    pub(super) fn listed(&self) -> &[LeftOpen] {
        &self.listed
    }

    /// How many there are beside those that are listed.
    pub(super) fn unlisted(&self) -> usize {
        self.items.len().saturating_sub(self.listed.len())
    }

    /// In one sentence.
    fn sentence(&self, agent: &str) -> Option<String> {
        let more = if self.problems.is_empty() { "" } else { ", and maybe more" };
        let any = !self.items.is_empty() || !self.problems.is_empty();
        any.then(|| {
            format!(
                "sessions of {agent} hold {} things open{more} that its policy refuses since it was replaced: see \
                 `enforcer agents`; ending the sessions closes them",
                self.items.len()
            )
        })
    }
}

impl Core {
    /// What is in force for an agent that is about to get another policy.
    pub(super) fn before(&self, agent: &str, new: Option<&Head>) -> Before {
        // An earlier daemon has replaced it, and ended before it knew what was open.
        if self.left_open.pending.has(agent) {
            return Before::Unknown;
        }
        let Some((number, digest)) = self.numbers.current(agent) else {
            let unknown = self.left_open.unknown.contains(agent);
            return if unknown { Before::Unknown } else { Before::Nothing };
        };
        if new.is_some_and(|new| hex(&new.digest()) == digest) {
            return Before::Nothing;
        }
        match self.numbers.shared(number) {
            Some(kept) => {
                let level = self.level(agent, kept.head().trust());
                let tiers = self.settings.trust.tiers(level);
                Before::Policy(kept, tiers)
            }
            None => Before::Unknown,
        }
    }

    /// The agent's policy is about to be replaced, or taken away. What kills sessions is not forgotten if this daemon ends
    /// before it has looked at them.
    pub(super) fn will_look(
        &mut self,
        agent: &str,
        before: &Before,
        on_tighten: OnTighten,
        has_sessions: bool,
    ) {
        if has_sessions && on_tighten == OnTighten::Kill && !matches!(before, Before::Nothing) {
            self.left_open.pending.begin(agent);
        }
    }

    /// The agent's policy was replaced, or taken away: lists what its sessions hold open that is refused now, and
    /// kills whom the policy says to kill.
    pub(super) fn look_at_open(
        &mut self,
        agent: &str,
        slot: AgentSlot,
        before: Before,
        now: Option<&Rc<Loaded>>,
    ) {
        self.left_open.unknown.remove(agent);
        let on_tighten = now.map_or_else(|| before.on_tighten(), |now| now.policy.on_tighten());
        let mut found = OfAgent::default();
        let places = match before {
            Before::Nothing => return self.left_open.pending.done(agent),
            _ => self.places(slot, &mut found.problems),
        };
        if places.is_empty() && found.problems.is_empty() {
            self.left_open.by_agent.remove(agent);
            self.left_open.pending.done(agent);
            return;
        }
        // What was listed under the policy before is listed as long as it is open and refused.
        let known = self.left_open.by_agent.remove(agent).map(|of| of.items).unwrap_or_default();
        self.find(&mut found, &places, agent, now, &before, &known);
        self.act(agent, now, &mut found, &places, on_tighten);
        found.again = Some((before, on_tighten == OnTighten::Kill));
        self.left_open.by_agent.insert(agent.to_owned(), found);
    }

    /// Looks again: what has been closed is not listed any more.
    pub(super) fn look_at_open_again(&mut self, all: bool) {
        let due: Vec<String> = self
            .left_open
            .by_agent
            .iter()
            .filter(|(_, of)| all || of.again.is_some())
            .map(|(agent, _)| agent.clone())
            .collect();
        for agent in due {
            let Some(was) = self.left_open.by_agent.remove(&agent) else { continue };
            let (slot, now) = match (self.slots.get(&agent), self.agents.get(&agent)) {
                (Some(slot), state) => (slot, state.map(|state| state.policy.whole())),
                (None, _) => continue,
            };
            let mut found = OfAgent::default();
            let places = self.places(slot, &mut found.problems);
            let (before, kill) = was.again.unwrap_or((Before::Nothing, false));
            self.find(&mut found, &places, &agent, now.as_ref(), &before, &was.items);
            let new = found.items.difference(&was.items).next().is_some();
            if new {
                let on = if kill { OnTighten::Kill } else { OnTighten::List };
                self.act(&agent, now.as_ref(), &mut found, &places, on);
            }
            self.left_open.pending.done(&agent);
            if !found.items.is_empty() || !found.problems.is_empty() {
                self.left_open.by_agent.insert(agent, found);
            }
        }
    }

    /// What is said about it in the status.
    pub(super) fn open_problems(&self) -> Vec<String> {
        self.left_open.by_agent.iter().filter_map(|(agent, of)| of.sentence(agent)).collect()
    }

    /// The sessions of an agent and their cgroups.
    fn places(&self, slot: AgentSlot, problems: &mut Vec<String>) -> Vec<Place> {
        let sessions: BTreeMap<u64, String> = match self.enforcement.sessions() {
            Ok(sessions) => sessions
                .iter()
                .filter(|entry| entry.session.agent == slot.0)
                .map(|entry| (entry.session.cgroup, session_id(entry.session.id)))
                .collect(),
            Err(error) => {
                problems.push(format!("cannot list the sessions: {error}"));
                return Vec::new();
            }
        };
        if sessions.is_empty() {
            return Vec::new();
        }
        let mut places = Vec::new();
        for root in self.roots() {
            match cgroup::cgroups_below(&super::sweep::directory(&self.settings.paths.cgroups, &root)) {
                Ok(all) => places.extend(all.into_iter().filter_map(|(cgroup, id)| {
                    sessions.get(&id).map(|session| Place { session: session.clone(), cgroup })
                })),
                Err(error) => problems.push(format!("cannot look below {root}: {error}")),
            }
        }
        places
    }

    fn find(
        &self,
        found: &mut OfAgent,
        places: &[Place],
        agent: &str,
        now: Option<&Rc<Loaded>>,
        before: &Before,
        known: &BTreeSet<Item>,
    ) {
        let after: Rules<'_> = now.map(|now| {
            let policy = &now.policy;
            (policy, self.settings.trust.tiers(self.level(agent, policy.trust())))
        });
        let was = match before {
            Before::Policy(kept, tiers) => Some((kept.whole(), *tiers)),
            Before::Nothing | Before::Unknown => None,
        };
        let mut listed = Vec::new();
        let until = Instant::now() + seen::LOOK;
        for place in places {
            let seen = seen::processes(std::slice::from_ref(&place.cgroup))
                .map(|processes| Seen::of(Path::new("/proc"), &processes, until));
            let seen = match seen {
                Ok(seen) => seen,
                Err(error) => {
                    found.problems.push(format!("session {}: {error}", place.session));
                    continue;
                }
            };
            found
                .problems
                .extend(seen.problems.iter().map(|why| format!("session {}: {why}", place.session)));
            for (open, process) in seen.open {
                let item = Item { session: place.session.clone(), open };
                let new = match (before, &was) {
                    (Before::Nothing, _) => None,
                    (_, Some((loaded, tiers))) => {
                        tightened(Some(Some((&loaded.policy, *tiers))), after, &item.open)
                    }
                    // What was in force cannot be told.
                    (_, None) => tightened(None, after, &item.open),
                };
                let still = || known.contains(&item).then(|| tightened(None, after, &item.open)).flatten();
                let Some((verdict, rules)) = new.or_else(still) else { continue };
                if listed.len() < LISTED {
                    listed.push(line(&item, process, verdict, &rules, now));
                }
                found.items.insert(item);
            }
        }
        found.listed = listed;
    }

    /// Records what was found, and kills.
    fn act(
        &mut self,
        agent: &str,
        now: Option<&Rc<Loaded>>,
        found: &mut OfAgent,
        places: &[Place],
        on_tighten: OnTighten,
    ) {
        if found.items.is_empty() && found.problems.is_empty() {
            return;
        }
        let (mut killed, mut alive, mut errors) = (Vec::new(), Vec::new(), Vec::new());
        if on_tighten == OnTighten::Kill {
            // What could not be told may be open.
            let whole = found.problems.is_empty();
            let holds =
                |place: &&Place| !whole || found.items.iter().any(|item| item.session == place.session);
            for place in places.iter().filter(holds) {
                match SessionCgroup::at(place.cgroup.clone()).and_then(|session| session.kill()) {
                    Ok(()) => killed.push(place),
                    Err(error) if seen::is_gone(&error) => {}
                    Err(error) => errors.push(format!("cannot kill session {}: {error}", place.session)),
                }
            }
            let deadline = Instant::now() + ENDS;
            alive =
                killed.iter().filter(|place| !ends(&place.cgroup, deadline)).map(|p| &p.session).collect();
        }
        let policy = now.map(|now| {
            let policy = &now.policy;
            json!({"id": policy.id(), "version": policy.version(), "digest": hex(&policy.digest())})
        });
        let killed: Vec<&String> = killed.iter().map(|place| &place.session).collect();
        errors.iter().for_each(|error| tracing::error!(agent, "{error}"));
        tracing::warn!(
            agent,
            open = found.items.len(),
            killed = killed.len(),
            "sessions hold open what their policy refuses now"
        );
        let fields = json!({
            "agent": agent, "policy": policy, "on_tighten": on_tighten, "source": "proc",
            "left_open": found.listed, "unlisted": found.unlisted(), "problems": found.problems,
            "killed": killed, "still_ending": alive, "errors": errors,
        });
        self.record("policy-tightened", fields);
        found.problems.append(&mut errors);
    }
}

/// Waits for the last process of a cgroup.
fn ends(cgroup: &Path, deadline: Instant) -> bool {
    loop {
        match cgroup::populated(cgroup) {
            Ok(false) => return true,
            Ok(true) | Err(_) if Instant::now() >= deadline => return false,
            Ok(true) | Err(_) => std::thread::sleep(Duration::from_millis(5)),
        }
    }
}

fn line(item: &Item, process: u32, verdict: Verdict, rules: &[RuleId], now: Option<&Rc<Loaded>>) -> LeftOpen {
    let Open { how, object, want } = &item.open;
    let words = |names: &[(u16, &str)]| -> Vec<String> {
        names.iter().filter(|(bit, _)| want & bit != 0).map(|(_, name)| (*name).to_owned()).collect()
    };
    let (object, access) = match object {
        Object::File(path) => (escape(path), words(&file::NAMES)),
        Object::Address { ip, port, protocol } => {
            let protocol = match i32::from(*protocol) {
                libc::IPPROTO_TCP => "tcp".to_owned(),
                libc::IPPROTO_UDP => "udp".to_owned(),
                other => other.to_string(),
            };
            let shown = if ip.is_ipv6() {
                format!("[{ip}]:{port}/{protocol}")
            } else {
                format!("{ip}:{port}/{protocol}")
            };
            (shown, words(&net::NAMES))
        }
    };
    let text = |id: &RuleId| {
        now.and_then(|now| now.policy.rule(*id))
            .map(|rule| format!("{} {id} at {}", super::names::describe(rule), rule.origin()))
    };
    LeftOpen {
        session: item.session.clone(),
        process,
        how: how.name().to_owned(),
        object,
        access,
        now: match verdict {
            Verdict::Allow => "allowed",
            Verdict::Hold => "waits for a person",
            Verdict::Deny => "refused",
        }
        .to_owned(),
        rules: rules.iter().filter_map(text).collect(),
        source: "proc".to_owned(),
    }
}
