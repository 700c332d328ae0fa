//! When a rule is used for the first time.

use super::*;
use enforcer_common::{
    access,
    event::{operation, reason},
    verdict::Verdict,
};

const POLICY: &str = "apiVersion: enforcer/v1\nkind: AgentPolicy\n\
    metadata: { id: probe, version: 1, owner: a@example.com, purpose: Test }\n\
    files:\n  - { hold: [delete], tier: high, paths: [\"/w/**\"] }\n";

#[test]
fn what_a_person_let_is_a_first_use_of_the_rule_once_and_what_was_refused_is_none() {
    let mut world = World::new();
    world.write("probe.yaml", POLICY);
    world.core.reload();
    let agent = world.core.agent("probe").expect("agent").clone();
    let act = |object: &str, verdict: Verdict, reason: u16| {
        record(object.as_bytes(), b"/usr/bin/rm", |h| {
            (h.agent, h.policy, h.session) = (agent.slot.0, agent.published.id, [7, 7]);
            (h.operation, h.access) = (operation::UNLINK, u32::from(access::file::DELETE));
            (h.verdict, h.reason, h.error) = (verdict as u16, reason, 0);
        })
    };
    let refused = act("/w/a", Verdict::Deny, reason::REFUSED);
    let first = [act("/w/b", Verdict::Allow, reason::GRANTED), act("/w/c", Verdict::Allow, reason::GRANTED)];
    world.told().records = [vec![refused], first.to_vec()].concat();
    world.core.drain();
    let log = world.log.0.borrow();
    let uses: Vec<&Value> = log.iter().filter(|record| record["kind"] == "first-use").collect();
    let [first] = uses[..] else { panic!("{uses:?}") };
    assert_eq!((&first["operation"], &first["object"]["path"]), (&"unlink".into(), &"/w/b".into()));
    assert!(first["rule"][0]["text"].as_str().is_some_and(|text| text.starts_with("hold delete")), "{first}");
}

#[test]
fn what_the_kernel_tells_is_recorded_once_for_each_operation_of_a_rule() {
    let mut world = World::new();
    let rules = "files:\n  - { allow: [read, write], paths: [\"/w/a/**\"] }\n\
                 \x20 - { allow: [read], paths: [\"/w/**\"] }\n  - { deny: [read], paths: [\"/w/no\"] }\n";
    world.write("probe.yaml", &format!("{}{rules}", POLICY.split("files:").next().expect("a head")));
    world.core.reload();
    let agent = world.core.agent("probe").expect("agent").clone();
    let told = |object: &str, policy: u32, access: u16| {
        record(object.as_bytes(), b"/usr/bin/cat", |h| {
            h.kind = enforcer_common::event::kind::FIRST_USE;
            (h.agent, h.policy, h.session, h.reason) = (agent.slot.0, policy, [7, 7], 0);
            (h.operation, h.access, h.verdict, h.error) = (operation::OPEN, u32::from(access), 0, 0);
        })
    };
    let number = agent.published.id;
    let (read, write) = (access::file::READ, access::file::WRITE);
    world.told().records = vec![
        told("/w/b", number, read),
        // Of two rules one is new, then of that one an operation.
        told("/w/a/b", number, read),
        told("/w/a/c", number, read | write),
        told("/w/a/d", number, read | write),
        // A policy that nobody knows any more.
        told("/w/a/d", 999, read),
    ];
    world.core.drain();
    let log = world.log.0.borrow();
    let uses: Vec<&Value> = log.iter().filter(|record| record["kind"] == "first-use").collect();
    let shown: Vec<String> = uses
        .iter()
        .map(|one| {
            let rule = one["rule"][0]["text"].as_str().or(one["rule"].as_str()).unwrap_or_default();
            let rule = rule.split(" #").next().unwrap_or_default();
            let rules = one["rule"].as_array().map_or(0, Vec::len);
            format!("{} {} {rules} {rule}", one["object"]["path"], one["access"])
        })
        .collect();
    assert_eq!(
        shown,
        [
            "\"/w/b\" [\"read\"] 1 allow read /w/**",
            "\"/w/a/b\" [\"read\"] 1 allow read+write+truncate /w/a/**",
            "\"/w/a/c\" [\"write\"] 1 allow read+write+truncate /w/a/**",
            "\"/w/a/d\" [\"read\"] 0 unknown",
        ]
    );
    assert!(uses.iter().all(|one| one["operation"] == "open" && one["agent"] == "probe"), "{uses:?}");
}

#[test]
fn uses_of_a_policy_are_remembered_as_long_as_records_can_name_it() {
    let mut world = World::new();
    world.write("probe.yaml", POLICY);
    world.core.reload();
    let agent = world.core.agent("probe").expect("agent").clone();
    let act = || {
        record(b"/w/a", b"/usr/bin/rm", |h| {
            (h.agent, h.policy, h.session) = (agent.slot.0, agent.published.id, [7, 7]);
            (h.operation, h.access) = (operation::UNLINK, u32::from(access::file::DELETE));
            (h.verdict, h.reason, h.error) = (Verdict::Allow as u16, reason::GRANTED, 0);
        })
    };
    let uses = |world: &mut World| {
        world.told().records = vec![act()];
        world.core.drain();
        world.log.0.borrow().iter().filter(|record| record["kind"] == "first-use").count()
    };
    assert_eq!(uses(&mut world), 1);
    world.core.first_uses.retain(&world.core.numbers.digests());
    assert_eq!(uses(&mut world), 1, "it is in force");
    world.core.first_uses.retain(&std::collections::HashSet::new());
    assert_eq!(uses(&mut world), 2, "nothing of it is left");
}
