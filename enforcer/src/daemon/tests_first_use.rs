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
