//! Many agents: rules and tables are not in memory for all of them, and nobody can tell.

use super::{super::reload::FEW, *};

#[test]
fn agents_whose_tables_are_not_in_memory_are_told_by_their_rules_all_the_same() {
    let mut world = World::new();
    let count = FEW + 4;
    for number in 0..count {
        let name = format!("bot-{number:02}");
        world.write(&format!("{name}.yaml"), &policy(&name, 1, &format!("/agents.slice/{name}/*")));
    }
    assert_eq!(world.core.reload().published.len(), count);
    let last = format!("bot-{:02}", count - 1);
    let state = world.core.agent(&last).expect("in force").clone();
    let in_memory = |world: &World| world.core.agents.values().filter(|a| a.policy.is_whole()).count();
    assert!(in_memory(&world) <= FEW && !state.policy.is_whole());
    let refused = record(b"/workspace/.env", b"/usr/bin/cat", |h| {
        (h.agent, h.policy, h.session) = (state.slot.0, state.published.id, [7, 7]);
    });
    world.told().records = vec![refused];
    world.core.drain();
    world.core.drain_all();
    let log = world.log.0.borrow();
    let decision = log.iter().find(|record| record["kind"] == "decision").expect("recorded");
    assert_eq!(decision["agent"], last.as_str());
    let rule = decision["rule"][0]["text"].as_str().expect("the rule that decided");
    assert!(rule.starts_with("deny read **/.env"), "{decision}");
    assert!(state.policy.is_whole(), "its rules were asked for");
    drop(log);
    // Nothing is published again because of that.
    assert_eq!(world.core.reload().published, Vec::<String>::new());
}
