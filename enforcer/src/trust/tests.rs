//! Changes of trust over a log, a disk and a kernel in memory: what does not count, and in which order what counts
//! takes effect.

use super::{
    book::{Book, Kept, Standing},
    change::{Changed, World, change},
    statement::{NAMESPACE, Statement},
    store::Store,
};
use crate::{
    approvals::{
        approver::{Approvers, tests::approvers},
        error::DecisionError,
        signature::{
            LocalPeer,
            tests::{NOBODY, sign},
        },
        statement::NAMESPACE as APPROVAL,
        tests::mutation::{Random, mutated},
    },
    policy::Trust,
};
use serde_json::Value;
use std::collections::BTreeMap;

const START: i64 = 1_800_000_000;
const BOT: &str = "billing-bot";
const ROOT: LocalPeer = LocalPeer { uid: 0, may_decide: true, ..NOBODY };

#[derive(Default)]
struct Sim {
    seconds: i64,
    ceiling: Option<Trust>,
    /// What happened, in its order.
    log: Vec<String>,
    disk: BTreeMap<String, Kept>,
    kernel: Option<Trust>,
    fail_record: bool,
    fail_keep: bool,
    fail_kernel: bool,
}

impl World for Sim {
    fn now(&self) -> i64 {
        START + self.seconds
    }
    fn ceiling(&self, agent: &str) -> Option<Trust> {
        self.ceiling.filter(|_| agent == BOT)
    }
    fn record(&mut self, kind: &'static str, _: Value) {
        self.log.push(kind.to_owned());
    }
    fn record_surely(&mut self, kind: &'static str, fields: Value) -> Result<(), String> {
        if self.fail_record {
            return Err("disk full".to_owned());
        }
        assert!(fields["statement"].as_str().is_some_and(|text| Statement::parse(text).is_ok()));
        self.log.push(format!("{kind} {}", fields["in_force"].as_str().unwrap_or_default()));
        Ok(())
    }
    fn keep(&mut self, agent: &str, kept: &Kept) -> Result<(), String> {
        if self.fail_keep {
            return Err("disk full".to_owned());
        }
        self.log.push("kept".to_owned());
        self.disk.insert(agent.to_owned(), kept.clone());
        Ok(())
    }
    fn activate(&mut self, _: &str, level: Trust) -> Result<(), String> {
        if self.fail_kernel {
            return Err("no".to_owned());
        }
        self.log.push(format!("active {}", level.name()));
        self.kernel = Some(level);
        Ok(())
    }
}

struct Bench {
    sim: Sim,
    book: Book,
    approvers: Approvers,
}

impl Bench {
    fn new(ceiling: Trust) -> Self {
        let book = Book::new("h1".to_owned(), ([7; 32], [8; 32]), BTreeMap::new(), None);
        Self { sim: Sim { ceiling: Some(ceiling), ..Sim::default() }, book, approvers: approvers() }
    }

    /// The next statement about the agent.
    fn next(&self, after: Trust) -> Statement {
        Statement {
            host: "h1".to_owned(),
            agent: BOT.to_owned(),
            before: self.book.stated(BOT),
            after,
            follows: self.book.follows(BOT),
            made: START + self.sim.seconds,
            valid_until: START + self.sim.seconds + 900,
            approver: "alice".to_owned(),
            reason: "because".to_owned(),
        }
    }

    fn submit(
        &mut self,
        text: &str,
        signature: Option<&str>,
        peer: &LocalPeer,
    ) -> Result<Changed, DecisionError> {
        change(&mut self.sim, &mut self.book, (text, signature), peer, &self.approvers)
    }

    /// Alice, whose scope includes trust, states it.
    fn state(&mut self, after: Trust) -> Result<Changed, DecisionError> {
        let text = self.next(after).text();
        self.submit(&text, Some(&sign(1, NAMESPACE, &text)), &NOBODY)
    }
}

#[test]
fn without_a_statement_it_is_probation_and_never_more_than_the_ceiling() {
    let mut bench = Bench::new(Trust::Trusted);
    assert_eq!(bench.book.in_force(BOT, Trust::Autonomous), Trust::Probation);
    let changed = bench.state(Trust::Trusted).expect("changed");
    assert_eq!((changed.in_force, bench.sim.kernel), (Trust::Trusted, Some(Trust::Trusted)));
    for ceiling in Trust::ALL {
        assert_eq!(bench.book.in_force(BOT, ceiling), ceiling.min(Trust::Trusted));
    }
    assert_eq!(
        bench.state(Trust::Autonomous),
        Err(DecisionError::Ceiling { agent: BOT.to_owned(), after: "autonomous", ceiling: "trusted" })
    );
    // A policy that allows less now: what was stated can be lowered step by step.
    bench.sim.ceiling = Some(Trust::Probation);
    let changed = bench.state(Trust::Supervised).expect("lowered");
    assert_eq!((changed.stated, changed.in_force), (Trust::Supervised, Trust::Probation));
}

#[test]
fn what_gives_trust_is_recorded_then_kept_then_active() {
    let mut bench = Bench::new(Trust::Autonomous);
    bench.state(Trust::Autonomous).expect("changed");
    assert_eq!(bench.sim.log, ["trust-changed autonomous", "kept", "active autonomous"]);
    for (what, mut bench) in
        [("record", Bench::new(Trust::Autonomous)), ("keep", Bench::new(Trust::Autonomous))]
    {
        (bench.sim.fail_record, bench.sim.fail_keep) = (what == "record", what == "keep");
        let error = bench.state(Trust::Supervised).expect_err("not changed");
        assert!(matches!(error, DecisionError::Unrecorded(_)), "{error}");
        assert_eq!((bench.sim.kernel, bench.book.stated(BOT)), (None, Trust::Probation));
    }
}

#[test]
fn what_takes_trust_away_waits_for_nothing() {
    let mut bench = Bench::new(Trust::Autonomous);
    bench.state(Trust::Autonomous).expect("changed");
    (bench.sim.fail_record, bench.sim.fail_keep) = (true, true);
    let changed = bench.state(Trust::Supervised).expect("lowered");
    assert_eq!((changed.in_force, bench.sim.kernel), (Trust::Supervised, Some(Trust::Supervised)));
    assert_eq!(changed.problems.len(), 2, "{:?}", changed.problems);
    assert_eq!(bench.sim.log.last().map(String::as_str), Some("trust-problems"));
    // And gives none back while that is so.
    assert!(bench.state(Trust::Autonomous).is_err());
    bench.sim.fail_kernel = true;
    assert_eq!(bench.state(Trust::Probation).expect("lowered").problems.len(), 3);
}

#[test]
fn only_whom_a_scope_or_the_settings_let_changes_trust() {
    let mut bench = Bench::new(Trust::Autonomous);
    // Bob decides about everything, but no scope of his says trust.
    let bobs = Statement { approver: "bob".to_owned(), ..bench.next(Trust::Supervised) }.text();
    let error = bench.submit(&bobs, Some(&sign(2, NAMESPACE, &bobs)), &ROOT).expect_err("refused");
    assert!(matches!(error, DecisionError::TrustScope { .. }), "{error}");
    let own = |bench: &Bench, uid: u32| {
        Statement { approver: format!("operator-{uid}"), ..bench.next(Trust::Supervised) }.text()
    };
    let text = own(&bench, 0);
    for (peer, uid) in [(LocalPeer { may_decide: false, ..ROOT }, 0), (LocalPeer { uid: 1000, ..ROOT }, 1000)]
    {
        let text = own(&bench, uid);
        assert!(bench.submit(&text, None, &peer).is_err());
    }
    assert!(bench.sim.log.is_empty() && bench.sim.kernel.is_none());
    bench.submit(&text, None, &ROOT).expect("the local operator");
    assert!(matches!(bench.submit(&text, None, &ROOT), Err(DecisionError::Order { .. })), "once");
}

#[test]
fn no_changed_or_replayed_statement_is_accepted() {
    forge(3_000);
}

#[test]
#[ignore = "the full number: cargo xtask test --full"]
fn no_changed_or_replayed_statement_is_accepted_in_full() {
    forge(10_000);
}

fn forge(attempts: usize) {
    let mut bench = Bench::new(Trust::Trusted);
    // Statements that counted: up, down, up again to where the first one led.
    let mut used = Vec::new();
    for after in [Trust::Supervised, Trust::Probation, Trust::Supervised, Trust::Probation] {
        let text = bench.next(after).text();
        let armor = sign(1, NAMESPACE, &text);
        bench.submit(&text, Some(&armor), &NOBODY).expect("counts");
        used.push((text, armor));
    }
    let good = bench.next(Trust::Supervised).text();
    let signature = sign(1, NAMESPACE, &good);
    let change = |change: fn(&mut Statement)| {
        let mut other = Statement::parse(&good).expect("a statement");
        change(&mut other);
        let text = other.text();
        let armor = sign(1, NAMESPACE, &text);
        (text, armor)
    };
    // Signed by somebody who may, but not for this host, agent, state or time.
    let misfits = [
        change(|s| s.host.push('x')),
        change(|s| s.agent.push('x')),
        change(|s| s.before = Trust::Supervised),
        change(|s| s.follows[0] ^= 1),
        change(|s| s.follows = [0; 32]),
        change(|s| s.valid_until = START - 1),
        change(|s| s.made = START + 400),
        change(|s| s.after = Trust::Autonomous),
        change(|s| s.approver = "bob".to_owned()),
    ];
    let (events, kernel) = (bench.sim.log.len(), bench.sim.kernel);
    let mut random = Random(0x9e37_79b9_7f4a_7c15);
    let (mut tried, mut reasons) = (0, BTreeMap::<String, usize>::new());
    while tried < attempts {
        let (text, armor) = match random.below(9) {
            0 | 1 => match mutated(&good, &mut random) {
                Some(text) => (text, Some(signature.clone())),
                None => continue,
            },
            2 | 3 => match mutated(&signature, &mut random) {
                // How many line ends follow the armor is not part of it.
                Some(armor) if armor.trim_end_matches('\n') != signature.trim_end_matches('\n') => {
                    (good.clone(), Some(armor))
                }
                _ => continue,
            },
            4 => {
                let namespace = ["file", "git", APPROVAL, "enforcer-trust "][random.below(4)];
                (good.clone(), Some(sign(1, namespace, &good)))
            }
            5 => (good.clone(), Some(sign(2 + random.below(6) as u8, NAMESPACE, &good))),
            6 => {
                let (text, armor) = &misfits[random.below(misfits.len())];
                (text.clone(), Some(armor.clone()))
            }
            7 => (good.clone(), None),
            _ => {
                let (text, armor) = &used[random.below(used.len())];
                (text.clone(), Some(armor.clone()))
            }
        };
        tried += 1;
        let error =
            bench.submit(&text, armor.as_deref(), &NOBODY).expect_err(&format!("accepted: {text}{armor:?}"));
        let name = format!("{error:?}");
        *reasons.entry(name.split([' ', '(']).next().unwrap_or_default().to_owned()).or_default() += 1;
    }
    assert_eq!((bench.sim.log.len(), bench.sim.kernel), (events, kernel), "nothing happened");
    assert!(reasons.len() >= 10, "the attempts fail for many reasons: {reasons:?}");
    // The one that was copied all the time counts, so the attempts failed for what they changed.
    bench.submit(&good, Some(&signature), &NOBODY).expect("the genuine one");
    assert_eq!(bench.sim.kernel, Some(Trust::Supervised));
}

fn random() -> impl FnMut() -> [u8; 32] {
    let mut n = 0;
    move || {
        n += 1;
        [n; 32]
    }
}

#[test]
fn what_was_stated_survives_and_what_is_damaged_is_probation() {
    let dir = tempfile::tempdir().expect("dir");
    let store = Store::new(dir.path());
    let load = |random: &mut dyn FnMut() -> [u8; 32]| store.load("h1".to_owned(), random);
    let empty = load(&mut random());
    assert!(empty.problems().is_empty() && empty.stated(BOT) == Trust::Probation);
    // What the first statement follows is the same after a restart, and another one on another host's disk.
    assert_eq!(load(&mut || [9; 32]).follows(BOT), empty.follows(BOT));

    let mut bench = Bench::new(Trust::Trusted);
    bench.book = empty;
    bench.state(Trust::Trusted).expect("changed");
    let kept = bench.sim.disk[BOT].clone();
    store.keep(BOT, &kept).expect("kept");
    let book = load(&mut random());
    assert_eq!((book.stated(BOT), book.follows(BOT)), (Trust::Trusted, bench.book.follows(BOT)));
    assert_eq!(book.last(BOT).map(|(_, kept)| kept.number), Some(1));

    let file = dir.path().join(format!("trust/{BOT}.json"));
    let whole = std::fs::read(&file).expect("read");
    for at in 0..whole.len() {
        let mut damaged = whole.clone();
        damaged[at] ^= 1;
        std::fs::write(&file, &damaged).expect("write");
        let book = load(&mut random());
        assert_eq!(book.in_force(BOT, Trust::Autonomous), Trust::Probation, "byte {at}");
        assert!(book.problems()[0].contains(BOT), "{:?}", book.problems());
    }
    // No statement of before counts where the last one cannot be read.
    let text = bench.next(Trust::Supervised).text();
    bench.book = load(&mut random());
    assert!(bench.submit(&text, Some(&sign(1, NAMESPACE, &text)), &NOBODY).is_err());
    bench.state(Trust::Supervised).expect("stated anew");
    assert!(bench.book.problems().is_empty());

    // A file of another agent or host.
    let standing = Standing::of("h2", BOT, Ok(kept.clone()));
    assert!(matches!(standing, Standing::Damaged(_)));
    store.keep("other-bot", &kept).expect("kept");
    assert_eq!(load(&mut random()).stated("other-bot"), Trust::Probation);
}

#[test]
fn a_store_that_is_no_directory_is_probation_for_all() {
    let dir = tempfile::tempdir().expect("dir");
    std::fs::write(dir.path().join("trust"), "x").expect("write");
    let book = Store::new(dir.path()).load("h1".to_owned(), &mut random());
    assert_eq!(book.stated(BOT), Trust::Probation);
    assert!(book.problems()[0].contains("every agent is on probation"), "{:?}", book.problems());
}
