//! Never a grant without a record that stands, never after the deadline, never by a restart.

use super::world::{Bench, id};
use crate::approvals::{
    drive::World as _,
    error::DecisionError,
    hold::{HoldState, SessionKey},
    queue::{Action, State},
    shape::Shape,
    signature::{LocalPeer, tests::NOBODY},
    statement::Verdict,
};
use crate::policy::Tier;
use proptest::prelude::*;

const ONCE: Verdict = Verdict::Approve(Shape::Once);
const ALICE: (&str, u8) = ("alice", 1);
const BOB: (&str, u8) = ("bob", 2);
const BOBBY: (&str, u8) = ("bobby", 3);
const DAVE: (&str, u8) = ("dave", 5);

fn pending(bench: &Bench, n: u32) -> bool {
    bench.state(n) == Some(State::Pending)
}

#[test]
fn an_approval_is_recorded_kept_and_then_granted_once() {
    let mut bench = Bench::new();
    bench.ask(1, Tier::Medium);
    assert!(pending(&bench, 1) && bench.sim.announced == [id(1)]);
    let decided = bench.decide(1, ONCE, ALICE).expect("approved");
    assert!(decided.void.is_empty() && bench.sim.lets_through(id(1)));
    assert_eq!(bench.sim.woken, [101]);
    let (kind, record) = bench.sim.log.last().expect("a record");
    assert_eq!((*kind, &record["by"]["person"]), ("approval-decided", &"Alice".into()));
    bench.ask(1, Tier::Medium);
    assert!(!bench.sim.lets_through(id(1)), "the one use is taken");
    bench.sim.seconds += 1;
    bench.ask(1, Tier::Medium);
    assert!(pending(&bench, 1), "asked anew");
}

#[test]
fn a_denial_stands_for_a_while_and_then_it_may_be_asked_again() {
    let mut bench = Bench::new();
    bench.ask(1, Tier::Medium);
    bench.decide(1, Verdict::Deny, ALICE).expect("denied");
    assert_eq!(bench.sim.holds[&id(1)].state, HoldState::Refused);
    assert!(bench.sim.waiters.is_empty());
    bench.sim.seconds += 61;
    bench.look();
    assert!(!bench.sim.holds.contains_key(&id(1)));
    bench.ask(1, Tier::Medium);
    assert!(pending(&bench, 1));
}

#[test]
fn nothing_is_granted_if_it_cannot_be_recorded_or_kept_or_the_kernel_fails() {
    for fail in 0..3 {
        let mut bench = Bench::new();
        bench.ask(1, Tier::Medium);
        match fail {
            0 => bench.sim.fail_record = true,
            1 => bench.sim.fail_persist = true,
            _ => bench.sim.fail_kernel = true,
        }
        let result = bench.decide(1, ONCE, ALICE);
        match fail {
            2 => assert_eq!(result.expect("void").void, [id(1)]),
            _ => assert!(matches!(result, Err(DecisionError::Unrecorded(_))) && pending(&bench, 1)),
        }
        assert!(!bench.sim.lets_through(id(1)));
        if fail < 2 {
            (bench.sim.fail_record, bench.sim.fail_persist) = (false, false);
            bench.decide(1, ONCE, ALICE).expect("now it can be");
            assert!(bench.sim.lets_through(id(1)));
        }
    }
}

#[test]
fn a_record_that_took_too_long_makes_the_decision_void() {
    let mut bench = Bench::new();
    bench.ask(1, Tier::Medium);
    (bench.sim.seconds, bench.sim.slow) = (599, 2);
    let decided = bench.decide(1, ONCE, ALICE).expect("recorded");
    assert_eq!(decided.void, [id(1)]);
    assert!(!bench.sim.lets_through(id(1)) && bench.said("approval-void") == 1);
}

#[test]
fn nobody_decides_in_time() {
    let mut bench = Bench::new();
    bench.ask(1, Tier::Medium);
    bench.sim.seconds = 600;
    assert!(matches!(bench.decide(1, ONCE, ALICE), Err(DecisionError::Late { .. })));
    bench.look();
    bench.look();
    assert_eq!((bench.said("approval-timed-out"), bench.sim.waiters.len()), (1, 0));
    bench.ask(1, Tier::Medium);
    assert!(bench.sim.waiters.is_empty(), "it stays refused for a while");
    assert!(matches!(bench.decide(1, ONCE, ALICE), Err(DecisionError::Decided(_))));
}

#[test]
fn the_same_question_is_asked_once() {
    let mut bench = Bench::new();
    (0..5).for_each(|_| bench.ask(1, Tier::Medium));
    assert_eq!(bench.queue.entry(id(1)).expect("entry").asked, 5);
    assert_eq!((bench.said("approval-requested"), bench.sim.announced.len()), (1, 1));
}

#[test]
fn an_agents_words_count_once_and_make_it_another_text() {
    let mut bench = Bench::new();
    bench.ask(1, Tier::High);
    let root = LocalPeer { uid: 0, may_decide: true, ..NOBODY };
    let denial = bench.statement(1, Verdict::Deny, "operator-0").expect("text");
    let justify = |bench: &mut Bench, text: &str| {
        let now = bench.sim.now();
        bench.queue.justify(now, &id(1).to_string(), text)
    };
    let actions = justify(&mut bench, "please\x1b[2J").expect("taken");
    let Action::Record("approval-justified", said) = &actions[0] else { panic!("{actions:?}") };
    assert_eq!(said["the_agent_says"], "please\\x1b[2J");
    assert!(justify(&mut bench, "again").is_err());
    // Whoever has signed the text without these words has signed another one.
    assert!(matches!(bench.submit(&denial, None, &root), Err(DecisionError::UnknownRequest(_))));
    bench.decide(1, ONCE, BOB).expect("the first of two");
    bench.decide(1, ONCE, DAVE).expect("the second");
    assert!(bench.sim.lets_through(id(1)) && justify(&mut bench, "late").is_err());
    // What a first person has approved stays as it is.
    bench.ask(2, Tier::High);
    bench.decide(2, ONCE, BOB).expect("the first of two");
    let now = bench.sim.now();
    assert!(bench.queue.justify(now, &id(2).to_string(), "changed").is_err());
    assert!(bench.queue.justify(now, "0", "nothing").is_err());
}

#[test]
fn two_persons_are_two_persons() {
    let mut bench = Bench::new();
    bench.ask(1, Tier::High);
    let root = LocalPeer { uid: 0, may_decide: true, ..NOBODY };
    let text = bench.statement(1, ONCE, "operator-0").expect("text");
    assert_eq!(bench.submit(&text, None, &root), Err(DecisionError::TwoPersons));
    assert!(matches!(bench.decide(1, ONCE, ALICE), Err(DecisionError::Scope { .. })));
    bench.decide(1, ONCE, BOB).expect("the first");
    assert!(!bench.sim.lets_through(id(1)) && pending(&bench, 1));
    for again in [BOB, BOBBY] {
        assert_eq!(bench.decide(1, ONCE, again), Err(DecisionError::SamePerson("Bob".to_owned())));
    }
    bench.restart();
    assert!(matches!(bench.decide(1, ONCE, BOB), Err(DecisionError::SamePerson(_))), "also after a restart");
    bench.decide(1, ONCE, DAVE).expect("the second");
    assert!(bench.sim.lets_through(id(1)));
}

#[test]
fn one_person_denies_alone() {
    let mut bench = Bench::new();
    bench.ask(1, Tier::High);
    bench.decide(1, ONCE, BOB).expect("the first");
    bench.decide(1, Verdict::Deny, DAVE).expect("denied");
    assert_eq!(bench.sim.holds[&id(1)].state, HoldState::Refused);
}

#[test]
fn nothing_standing_is_granted_for_high() {
    let mut bench = Bench::new();
    bench.ask(1, Tier::High);
    for shape in [Shape::Times(2), Shape::Session, Shape::Until(super::world::START + 60)] {
        assert!(matches!(bench.decide(1, Verdict::Approve(shape), BOB), Err(DecisionError::Shape { .. })));
    }
}

#[test]
fn an_agent_that_asks_too_much_is_refused_and_then_not_listened_to() {
    let mut bench = Bench::new();
    bench.look();
    assert_eq!(bench.sim.quotas[&3], 4);
    (1..=5).for_each(|n| bench.ask(n, Tier::Medium));
    assert_eq!((bench.sim.quotas[&3], bench.said("approval-refused")), (0, 1));
    assert_eq!(bench.sim.holds[&id(5)].state, HoldState::Refused);
    (1..=3).for_each(|n| drop(bench.decide(n, Verdict::Deny, ALICE).expect("denied")));
    assert_eq!((bench.sim.quotas[&3], bench.said("approvals-silenced")), (0, 1));
    bench.ask(7, Tier::Medium);
    assert_eq!(bench.sim.holds[&id(7)].state, HoldState::Refused);
    bench.decide(4, ONCE, ALICE).expect("what was asked before can be answered");
    bench.sim.seconds += 299;
    assert!(!bench.queue.is_idle(), "somebody must look at the clock");
    bench.sim.seconds += 2;
    bench.look();
    assert_eq!(bench.sim.quotas[&3], 4);
}

#[test]
fn what_nobody_waits_for_any_more_is_withdrawn() {
    let mut bench = Bench::new();
    bench.look();
    bench.ask(1, Tier::Medium);
    bench.sim.waiters.clear();
    bench.look();
    assert!(pending(&bench, 1), "news may be late");
    bench.sim.seconds += 6;
    bench.look();
    assert_eq!((bench.state(1), bench.said("approval-withdrawn")), (None, 1));
    assert!(bench.sim.holds.is_empty());
}

#[test]
fn a_hold_that_nobody_knows_is_refused_and_a_grant_that_nobody_recorded_ends() {
    let mut bench = Bench::new();
    bench.ask(1, Tier::Medium);
    bench.ask(2, Tier::Medium);
    bench.sim.holds.get_mut(&id(2)).expect("hold").state = HoldState::Granted;
    bench.sim.holds.get_mut(&id(2)).expect("hold").uses = 1;
    bench.sim.disk = None;
    bench.restart();
    bench.look();
    assert!(!bench.sim.lets_through(id(2)));
    assert_eq!(bench.sim.holds[&id(1)].state, HoldState::Pending);
    bench.sim.seconds += 6;
    bench.look();
    assert_eq!(bench.sim.holds[&id(1)].state, HoldState::Refused);
    assert!(bench.sim.waiters.is_empty());
}

#[test]
fn another_session_in_the_same_place_is_another_session() {
    let mut bench = Bench::new();
    bench.ask(1, Tier::Medium);
    bench.decide(1, Verdict::Approve(Shape::Once), ALICE).expect("approved");
    let now = crate::approvals::drive::World::now(&bench.sim);
    let other = SessionKey { slot: 3, generation: 10 };
    let session = crate::approvals::queue::SessionInfo {
        key: other,
        id: "1".repeat(32),
        agent: "billing-bot".to_owned(),
    };
    let hold = crate::approvals::hold::Hold { id: id(1), state: HoldState::Granted, slot: 3 };
    let seen =
        crate::approvals::queue::Seen { holds: vec![hold], waiters: Vec::new(), sessions: vec![session] };
    let actions = bench.queue.look(now, &seen);
    crate::approvals::drive::perform(&mut bench.sim, &mut bench.queue, actions);
    assert!(!bench.sim.lets_through(id(1)), "the grant goes with its session");
}

#[derive(Clone, Debug)]
enum Step {
    Ask(u32, Tier),
    Decide(u32, bool, u8),
    Pass(u64),
    Look,
    Restart,
    /// The daemon dies after so many effects of what comes next.
    Die(usize),
    Fail(bool, bool, bool),
    Slow(u64),
    LoseDisk,
}

fn step() -> impl Strategy<Value = Step> {
    let tier = prop::sample::select(vec![Tier::Low, Tier::Medium, Tier::High]);
    prop_oneof![
        6 => (0u32..4, tier).prop_map(|(n, tier)| Step::Ask(n, tier)),
        6 => (0u32..4, any::<bool>(), 1u8..6).prop_map(|(n, yes, seed)| Step::Decide(n, yes, seed)),
        3 => prop::sample::select(vec![1u64, 59, 301, 599, 600, 3600]).prop_map(Step::Pass),
        4 => Just(Step::Look),
        2 => Just(Step::Restart),
        2 => (0usize..6).prop_map(Step::Die),
        1 => (any::<bool>(), any::<bool>(), any::<bool>()).prop_map(|(a, b, c)| Step::Fail(a, b, c)),
        1 => (0u64..700).prop_map(Step::Slow),
        1 => Just(Step::LoseDisk),
    ]
}

fn story(steps: Vec<Step>) -> Result<(), TestCaseError> {
    let mut bench = Bench::new();
    let names = ["", "alice", "bob", "bobby", "carol", "dave"];
    for step in steps {
        let before = bench.sim.grants;
        let decides = matches!(step, Step::Decide(_, true, _));
        match step {
            Step::Ask(n, tier) => bench.ask(n, tier),
            Step::Decide(n, yes, seed) => {
                let verdict = if yes { ONCE } else { Verdict::Deny };
                drop(bench.decide(n, verdict, (names[usize::from(seed)], seed)));
            }
            Step::Pass(seconds) => bench.sim.seconds += seconds,
            Step::Look => bench.look(),
            Step::Restart => bench.restart(),
            Step::Die(effects) => bench.sim.dies_in = Some(effects),
            Step::Fail(a, b, c) => {
                (bench.sim.fail_record, bench.sim.fail_persist, bench.sim.fail_kernel) = (a, b, c);
            }
            Step::Slow(seconds) => bench.sim.slow = seconds,
            Step::LoseDisk => bench.sim.disk = None,
        }
        prop_assert!(decides || bench.sim.grants == before);
    }
    // In the end, with everything working again, nobody waits for ever.
    (bench.sim.fail_record, bench.sim.fail_persist, bench.sim.fail_kernel) = (false, false, false);
    bench.restart();
    for _ in 0..4 {
        bench.sim.seconds += 700;
        bench.look();
    }
    prop_assert!(bench.sim.waiters.is_empty(), "{:?}", bench.sim.waiters);
    Ok(())
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(200))]
    // What a grant needs is asserted by the world in memory itself.
    #[test]
    fn no_story_ends_with_a_grant_that_no_person_gave(steps in prop::collection::vec(step(), 1..40)) {
        story(steps)?;
    }
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(4_000))]
    #[test]
    #[ignore = "the full number: cargo xtask test --full"]
    fn no_story_ends_with_a_grant_that_no_person_gave_in_full(steps in prop::collection::vec(step(), 1..40)) {
        story(steps)?;
    }
}
