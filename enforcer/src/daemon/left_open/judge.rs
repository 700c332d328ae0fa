//! What a policy says about something that is open already, by the reference semantics: pure.

use super::seen::{How, Object, Open, REACHABLE};
use crate::policy::{Mode, RuleId, ValidPolicy, reference};
use enforcer_common::{address::Address, map::TierMap, verdict::Verdict};
use std::net::IpAddr;

/// The verdict on having it open, were it asked about now.
pub(super) fn verdict(policy: &ValidPolicy, open: &Open, tiers: &TierMap) -> (Verdict, Vec<RuleId>) {
    match &open.object {
        Object::File(path) if open.how == How::Code => reference::map_verdict(policy, path, tiers),
        Object::File(path) => reference::file_verdict(policy, path, open.want, tiers),
        Object::Address { ip, port, protocol } => match address(*ip, open.want) {
            Some(address) => reference::net_verdict(policy, address, *port, *protocol, open.want, tiers),
            // No rule can name it.
            None => (Verdict::Deny, Vec::new()),
        },
    }
}

/// 0.0.0.0 and `::` mean something else to whoever can be reached than to whoever has connected.
fn address(ip: IpAddr, want: u16) -> Option<Address> {
    match ip {
        IpAddr::V4(v4) if want == REACHABLE => Some(Address::v4_local(v4.octets())),
        IpAddr::V4(v4) => Some(Address::v4(v4.octets())),
        IpAddr::V6(v6) if want == REACHABLE => Some(Address::v6_local(v6.octets())),
        IpAddr::V6(v6) => Address::v6(v6.octets()),
    }
}

/// A policy with what tiers mean in its sessions. Without one an agent may do nothing.
pub(super) type Rules<'a> = Option<(&'a ValidPolicy, TierMap)>;

/// What `after` says, if it is stricter than what was before: what was refused before stays out of this.
/// `before` is `None` where it cannot be told.
pub(super) fn tightened(
    before: Option<Rules<'_>>,
    after: Rules<'_>,
    open: &Open,
) -> Option<(Verdict, Vec<RuleId>)> {
    let said = |rules: Rules<'_>| match rules {
        Some((policy, _)) if policy.mode() == Mode::Audit => (Verdict::Allow, Vec::new()),
        Some((policy, tiers)) => verdict(policy, open, &tiers),
        None => (Verdict::Deny, Vec::new()),
    };
    let (was, (is, rules)) = (before.map_or(Verdict::Allow, |rules| said(rules).0), said(after));
    (was < is).then_some((is, rules))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::policy::{Trust, parse, trust_tiers};
    use enforcer_common::access::file::{READ, WRITE};

    fn policy(rest: &str) -> ValidPolicy {
        let head = "apiVersion: enforcer/v1\nkind: AgentPolicy\n\
                    metadata: { id: a, version: 1, owner: a, purpose: Test }\n";
        parse("p", &format!("{head}{rest}")).unwrap_or_else(|errors| panic!("{errors}"))
    }

    fn file(path: &str, want: u16) -> Open {
        Open { how: How::Descriptor, object: Object::File(path.into()), want }
    }

    #[test]
    fn only_what_became_stricter_is_left_open() {
        let tiers = trust_tiers(Trust::Probation);
        let wide = policy(
            "files:\n  - { allow: [read, write], paths: ['/w/**'] }\n\
             network:\n  - { allow: [connect], to: ['10.0.0.0/8:443/tcp'] }\n",
        );
        let narrow = policy(
            "files:\n  - { allow: [read], paths: ['/w/**'] }\n  - { hold: [read], paths: ['/w/h'] }\n",
        );
        let said = |open: &Open| {
            tightened(Some(Some((&wide, tiers))), Some((&narrow, tiers)), open).map(|(verdict, _)| verdict)
        };
        assert_eq!(said(&file("/w/a", READ)), None);
        assert_eq!(said(&file("/w/a", READ | WRITE)), Some(Verdict::Deny));
        assert_eq!(said(&file("/w/h", READ)), Some(Verdict::Hold));
        // What the launcher passed and no policy ever allowed.
        assert_eq!(said(&file("/dev/pts/3", READ | WRITE)), None);
        let to = |ip: &str| {
            let object = Object::Address { ip: ip.parse().expect("ip"), port: 443, protocol: 6 };
            Open { how: How::Socket, object, want: super::super::seen::CONNECTED }
        };
        assert_eq!(said(&to("10.1.2.3")), Some(Verdict::Deny));
        assert_eq!(said(&to("::ffff:10.1.2.3")), Some(Verdict::Deny));
        assert_eq!(said(&to("11.1.2.3")), None);
    }

    #[test]
    fn no_policy_refuses_everything_and_an_audit_nothing() {
        let tiers = trust_tiers(Trust::Probation);
        let (all, audit) = (
            policy("files:\n  - { allow: [read], paths: ['/w/**'] }\n"),
            policy("mode: audit\nfiles:\n  - { allow: [read], paths: ['/x'] }\n"),
        );
        let open = file("/w/a", READ);
        assert!(tightened(Some(Some((&all, tiers))), None, &open).is_some());
        assert!(tightened(Some(Some((&all, tiers))), Some((&audit, tiers)), &open).is_none());
        assert!(tightened(Some(Some((&audit, tiers))), None, &file("/anything", READ)).is_some());
        // What was in force before cannot be told: whatever is refused now counts.
        assert!(tightened(None, Some((&all, tiers)), &file("/else", READ)).is_some());
    }
}
