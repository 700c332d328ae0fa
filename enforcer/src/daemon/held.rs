//! A record of the kernel about a thread that waits, with what the request needs of the policy.

use super::{
    enforcement::AgentSlot,
    names::{Names, deciding_rules, describe},
};
use crate::{
    approvals::{
        hold::{self, HoldId},
        request::{RuleText, Shown, What, Who, Why},
    },
    event::{
        decode::Event,
        json::Context as _,
        text::{escape, hex, session_id},
    },
    policy::{OnHold, Rule, RuleId, Tier, Trust},
};
use enforcer_common::event::flag;
use serde_json::{Value, json};

/// A record of the kernel about a thread that waits, with what only the daemon knows of it.
pub(super) struct Held {
    pub(super) id: HoldId,
    pub(super) at: u64,
    pub(super) waiter: hold::Waiter,
    pub(super) session: [u64; 2],
    pub(super) timeout: Option<u64>,
    pub(super) waits: bool,
    pub(super) who: Who,
    pub(super) what: What,
    pub(super) why: Why,
    /// What the session did before.
    pub(super) recent: Vec<String>,
}

impl Held {
    /// Keeps of a record what a request needs.
    pub(super) fn new(event: &Event<'_>, names: &Names<'_>, recent: Vec<String>) -> Self {
        let header = &event.header;
        let known = names.numbers.loaded(header.policy);
        let policy = known.as_ref().map(|(loaded, _)| &loaded.policy);
        let rules = known
            .as_ref()
            .and_then(|(loaded, base)| deciding_rules(loaded, event, *base, names.table))
            .unwrap_or_default();
        let note = names.policy(header.policy);
        let agent = names.slots.name(AgentSlot(header.agent));
        let mut held = Self {
            id: HoldId(header.hold),
            at: header.time,
            waiter: hold::Waiter {
                id: HoldId(header.hold),
                pid: header.pid,
                tgid: header.tgid,
                started: header.started,
            },
            session: header.session,
            timeout: None,
            waits: true,
            who: Who {
                agent: agent.map_or_else(|| format!("unknown-{}", header.agent), str::to_owned),
                owner: policy.map(|policy| policy.owner().to_owned()).unwrap_or_default(),
                purpose: policy.map(|policy| policy.purpose().to_owned()).unwrap_or_default(),
                session: session_id(header.session),
                process: header.tgid,
                thread: header.pid,
                uid: header.uid,
                exe: Shown::of(event.exe),
                ..Who::default()
            },
            what: what(event),
            recent,
            why: Why {
                rules: Vec::new(),
                tier: Tier::High,
                trust: Trust::from_number(header.trust)
                    .map_or_else(|| "unknown".to_owned(), |level| level.name().to_owned()),
                policy_version: note.as_ref().map(|note| note.version).unwrap_or_default(),
                policy_digest: policy.map(|policy| hex(&policy.digest())).unwrap_or_default(),
            },
        };
        held.set_rules(&rules);
        held
    }

    /// The rules that leave it to a person.
    fn set_rules(&mut self, rules: &[(RuleId, &Rule)]) {
        // Where the rule cannot be told, the strictest that a person can decide about.
        self.why.tier =
            rules.iter().map(|(_, rule)| rule.tier().unwrap_or(Tier::Low)).max().unwrap_or(Tier::High);
        let text = |(id, rule): &(RuleId, &Rule)| RuleText {
            text: format!("{} {id} at {}", describe(rule), rule.origin()),
            because: rule.because().map(str::to_owned),
        };
        self.why.rules = rules.iter().map(text).collect();
        self.timeout = rules.iter().filter_map(|(_, rule)| rule.hold_timeout()).min();
        self.waits = rules.iter().all(|(_, rule)| rule.on_hold() != Some(OnHold::Refuse));
    }

    /// As [`Self::set_rules`], for a program whose arguments are known now. The first is its name.
    pub(super) fn because(&mut self, rules: &[(RuleId, &Rule)], given: &[Vec<u8>]) {
        self.set_rules(rules);
        self.what.arguments = given.iter().map(|one| Shown::of(one)).collect();
    }

    /// Whose process it is.
    pub(super) fn agent(&self) -> &str {
        &self.who.agent
    }

    /// The process, and when it started (nanoseconds of boot time).
    pub(super) fn process(&self) -> (u32, u64) {
        (self.waiter.tgid, self.waiter.started)
    }

    /// The rules as records have them.
    pub(super) fn rules_as_json(&self) -> Value {
        match &self.why.rules[..] {
            [] => "no rule".into(),
            rules => rules
                .iter()
                .map(|rule| json!({"text": escape(rule.text.as_bytes()), "because": rule.because}))
                .collect(),
        }
    }
}

/// What was asked for, as a request has it.
pub(super) fn what(event: &Event<'_>) -> What {
    let header = &event.header;
    let object = match event.endpoint() {
        Some(endpoint) if event.object.is_empty() => {
            let protocol = match i32::from(endpoint.protocol) {
                libc::IPPROTO_TCP => "tcp".to_owned(),
                libc::IPPROTO_UDP => "udp".to_owned(),
                other => other.to_string(),
            };
            let address =
                endpoint.address.map_or_else(|| format!("family {}", endpoint.family), |a| a.to_string());
            Shown::of(format!("{address} port {} {protocol}", endpoint.port).as_bytes())
        }
        _ => Shown::of(event.object),
    };
    let cut =
        if header.flags & flag::OBJECT_CUT != 0 { ", the path is longer than what is shown" } else { "" };
    let identity = (header.inode != 0 || header.device != 0).then(|| {
        let (major, minor) = (header.device >> 20, header.device & 0xf_ffff);
        format!("device {major}:{minor} inode {}{cut}", header.inode)
    });
    What {
        operation: event.operation().into_owned(),
        access: event.access().map(std::borrow::Cow::into_owned).collect(),
        object,
        target: (!event.target.is_empty()).then(|| Shown::of(event.target)),
        arguments: Vec::new(),
        identity,
    }
}
