//! Decisions that were changed, replayed or made by others: none of them counts.

use super::{
    mutation::{Random, mutated},
    world::{Bench, id},
};
use crate::approvals::{
    hold::HoldState,
    queue::State,
    shape::Shape,
    signature::{
        LocalPeer,
        tests::{NOBODY, sign},
    },
    statement::{NAMESPACE, Verdict},
};
use crate::policy::Tier;
use std::collections::BTreeMap;

#[test]
fn no_changed_or_replayed_decision_is_accepted() {
    forge(1_000);
}

#[test]
#[ignore = "the full number: cargo xtask test --full"]
fn no_changed_or_replayed_decision_is_accepted_in_full() {
    forge(10_000);
}

fn forge(attempts: usize) {
    let mut bench = Bench::new();
    bench.look();
    // One that is decided, one that waits, one that is over.
    bench.ask(1, Tier::Medium);
    let approve =
        |bench: &Bench, n| bench.statement(n, Verdict::Approve(Shape::Once), "alice").expect("text");
    let used = approve(&bench, 1);
    let used = (used.clone(), sign(1, NAMESPACE, &used));
    bench.submit(&used.0, Some(&used.1), &NOBODY).expect("the only one that counts");
    bench.ask(3, Tier::Medium);
    let late = approve(&bench, 3);
    let late = (late.clone(), sign(1, NAMESPACE, &late));
    bench.sim.seconds = 601;
    bench.look();
    bench.ask(2, Tier::Medium);
    let good = approve(&bench, 2);
    let signature = sign(1, NAMESPACE, &good);
    let denial = bench.statement(2, Verdict::Deny, "alice").expect("text");
    let denied = sign(1, NAMESPACE, &denial);

    let mut random = Random(0x9e37_79b9_7f4a_7c15);
    let (mut tried, mut reasons) = (0, BTreeMap::<String, usize>::new());
    while tried < attempts {
        let (text, armor) = match random.below(9) {
            0 | 1 => match mutated(&good, &mut random) {
                Some(text) => (text, Some(signature.clone())),
                None => continue,
            },
            2 | 3 => match mutated(&signature, &mut random) {
                Some(armor) => (good.clone(), Some(armor)),
                None => continue,
            },
            // Signed for something else, by somebody else, or not at all.
            4 => (good.clone(), Some(denied.clone())),
            5 => {
                let namespace = ["file", "git", "enforcer-trust", "enforcer-approval "][random.below(4)];
                (good.clone(), Some(sign(1, namespace, &good)))
            }
            6 => (good.clone(), Some(sign(2 + random.below(6) as u8, NAMESPACE, &good))),
            7 => (good.clone(), None),
            // Replayed.
            _ if random.below(2) == 0 => (used.0.clone(), Some(used.1.clone())),
            _ => (late.0.clone(), Some(late.1.clone())),
        };
        tried += 1;
        let error = bench.submit(&text, armor.as_deref(), &NOBODY).expect_err("accepted");
        let name = format!("{error:?}");
        *reasons.entry(name.split([' ', '(']).next().unwrap_or_default().to_owned()).or_default() += 1;
    }
    assert_eq!(bench.state(2), Some(State::Pending));
    assert_eq!((bench.sim.grants, bench.sim.holds[&id(2)].state), (1, HoldState::Pending));
    assert!(reasons.len() >= 6, "the attempts fail for many reasons: {reasons:?}");
    // The one that was copied all the time counts, so the attempts failed for what they changed.
    bench.submit(&good, Some(&signature), &NOBODY).expect("the genuine one");
    let agent = LocalPeer { uid: 1000, may_decide: true, ..NOBODY };
    assert!(bench.submit(&good, None, &agent).is_err());
}
