//! What the numbers in ring records mean: agents, policies, and the rules that decided.

use super::{
    break_glass::Glass, enforcement::AgentSlot, loaded::Loaded, numbers::Numbers, registry::Slots,
    sessions::Sessions,
};
use crate::trust::table::Table;
use crate::{
    event::{
        decode::{Event, Kind},
        json,
    },
    policy::{Objects, Rule, RuleId, Trust, reference},
};
use enforcer_common::{
    address::Address,
    event::{flag, operation, reason},
    verdict::Verdict,
};
use std::net::IpAddr;

/// What the numbers in records mean.
pub(super) struct Names<'a> {
    /// The agents by place.
    pub slots: &'a Slots,
    /// The policies by number.
    pub numbers: &'a Numbers,
    /// What tiers mean.
    pub table: &'a Table,
    /// What break-glass lifts.
    pub glass: &'a Glass,
    /// What earlier records have told.
    pub sessions: &'a Sessions,
}

impl json::Context for Names<'_> {
    fn sessions(&self) -> &dyn json::SessionOf {
        self.sessions
    }

    fn agent(&self, slot: u32) -> Option<String> {
        self.slots.name(AgentSlot(slot)).map(str::to_owned)
    }

    fn policy(&self, id: u32) -> Option<json::PolicyNote> {
        self.numbers.policy(id)
    }

    fn break_glass(&self, agent: u32, time: u64) -> Option<String> {
        self.glass.of(self.slots.name(AgentSlot(agent))?, time).map(str::to_owned)
    }

    fn rules(&self, event: &Event<'_>) -> Option<Vec<json::RuleNote>> {
        if event.header.policy == 0 {
            // No policy, no rules.
            return Some(Vec::new());
        }
        let (loaded, base) = self.numbers.loaded(event.header.policy)?;
        policy_rules(&loaded, event, base, self.table)
    }
}

fn policy_rules(
    loaded: &Loaded,
    event: &Event<'_>,
    base: Option<u32>,
    table: &Table,
) -> Option<Vec<json::RuleNote>> {
    let rules = deciding_rules(loaded, event, base, table)?;
    Some(rules.into_iter().filter_map(|(id, _)| loaded.words(id).cloned()).collect())
}

/// The rules that speak about what was asked for. Where the object itself is known, exactly those; else
/// those that the automata's states stand for, which may be some more. `None`: it cannot be told.
pub(super) fn deciding_rules<'a>(
    loaded: &'a Loaded,
    event: &Event<'_>,
    base: Option<u32>,
    table: &Table,
) -> Option<Vec<(RuleId, &'a Rule)>> {
    let header = &event.header;
    let ids = if let Some(endpoint) = event.endpoint() {
        // 0.0.0.0 and `::` mean something else to whoever binds than to whoever connects.
        let local = matches!(header.operation, operation::BIND | operation::LISTEN);
        let address = match endpoint.address {
            Some(IpAddr::V4(v4)) if local => Some(Address::v4_local(v4.octets())),
            Some(IpAddr::V4(v4)) => Some(Address::v4(v4.octets())),
            Some(IpAddr::V6(v6)) if local => Some(Address::v6_local(v6.octets())),
            Some(IpAddr::V6(v6)) => Address::v6(v6.octets()),
            None => None,
        };
        let protocol = u8::try_from(endpoint.protocol).unwrap_or_default();
        address.map_or_else(Vec::new, |address| {
            reference::rules_at_address(&loaded.policy, address, endpoint.port, protocol)
        })
    } else {
        rules_of_path(loaded, event, base)?
    };
    let ids: Vec<_> = ids.into_iter().collect();
    // The level that the session had when the kernel decided.
    let tiers = table.tiers(Trust::from_number(header.trust).unwrap_or_default());
    let want = header.access as u16;
    // Those that decided; for a refusal for want of a rule that is none, even if some rule allows a part.
    let deciders = |ids: Vec<RuleId>| match header.reason {
        _ if event.kind == Kind::FirstUse => {
            reference::deciders(&loaded.policy, &ids, want, Verdict::Allow, &tiers)
        }
        reason::RULE => reference::deciders(&loaded.policy, &ids, want, Verdict::Deny, &tiers),
        reason::HELD | reason::GRANTED | reason::REFUSED | reason::TIMED_OUT | reason::TOO_MANY => {
            reference::deciders(&loaded.policy, &ids, want, Verdict::Hold, &tiers)
        }
        _ => ids,
    };
    let mut deciding = deciders(ids);
    if deciding.is_empty() && header.flags & flag::OTHER_NAME != 0 {
        deciding = deciders(loaded.image.rules_at(header.states, base?));
    }
    let rules = deciding.into_iter().filter_map(|id| loaded.policy.rule(id).map(|rule| (id, rule)));
    Some(rules.filter(|(_, rule)| rule.operations() & want != 0).collect())
}

/// The rules about the object's path: where it is known, exactly those; else those that the automata's states stand
/// for.
fn rules_of_path(loaded: &Loaded, event: &Event<'_>, base: Option<u32>) -> Option<Vec<RuleId>> {
    let header = &event.header;
    match (event.object.strip_prefix(b"/"), header.flags & flag::OBJECT_CUT) {
        (Some(path), 0) => Some(reference::rules_among(&loaded.policy, loaded.image.rules_near(path), path)),
        _ => Some(loaded.image.rules_at(header.states, base?)),
    }
}

/// Every rule about the object, whatever it says: those for a further name of it that counts too.
pub(super) fn matching_rules(loaded: &Loaded, event: &Event<'_>, base: Option<u32>) -> Option<Vec<RuleId>> {
    let mut rules = rules_of_path(loaded, event, base)?;
    if event.header.flags & flag::OTHER_NAME != 0 {
        rules.extend(loaded.image.rules_at(event.header.states, base?));
        rules.sort_unstable();
        rules.dedup();
    }
    Some(rules)
}

pub(super) fn describe(rule: &Rule) -> String {
    let objects: Vec<String> = match rule.objects() {
        Objects::Paths(globs) => globs.iter().map(|glob| glob.text().to_owned()).collect(),
        Objects::Endpoints(endpoints) => endpoints.iter().map(ToString::to_string).collect(),
    };
    let (effect, operations) = (rule.effect().name(), rule.operation_names().join("+"));
    format!("{effect} {operations} {}{}", objects.join(" "), rule.condition())
}
