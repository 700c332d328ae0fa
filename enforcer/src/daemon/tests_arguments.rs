//! Programs that wait for the verdict on their arguments are none of the queue's business until somebody is asked.

use super::*;
use enforcer_common::{
    event::operation,
    hold::{GRANTED, Hold, REFUSED, WAITING, Waiter, WaiterKey, Word},
};
use zerocopy::FromZeros;

const ID: [u64; 2] = [7, 8];

/// The state of a hold that has just come, once the tables have been looked at. `waiter`: who waits for it, if anybody.
fn looked_at(operation: u16, state: u8, waiter: Option<WaiterKey>) -> Option<u8> {
    let mut world = World::new();
    let waiters = waiter.map(|key| (key, Waiter { id: ID, since: 0, woken: 0 }));
    world.told().waiters.extend(waiters);
    let now = u64::try_from(boot_time()).expect("a time");
    let mut hold = Hold::new_zeroed();
    hold.word = Word::new(ID, state, u32::from(state == GRANTED)).0;
    (hold.operation, hold.since, hold.deadline) = (operation, now, now + 60_000_000_000);
    world.told().holds.insert(ID, hold);
    world.core.look_at_holds(true);
    world.told().holds.get(&ID).map(|hold| Word(hold.word).state())
}

#[test]
fn what_the_daemon_judges_itself_is_not_refused_for_being_unknown_to_the_queue() {
    assert_eq!(looked_at(operation::ARGUMENTS, WAITING, None), Some(WAITING));
    assert_eq!(looked_at(operation::ARGUMENTS, GRANTED, None), Some(GRANTED));
}

#[test]
fn a_grant_that_nobody_knows_of_is_none() {
    assert_ne!(looked_at(operation::UNLINK, GRANTED, None), Some(GRANTED));
    assert!(matches!(looked_at(operation::ARGUMENTS, REFUSED, None), None | Some(REFUSED)));
}

#[test]
fn tables_that_were_empty_are_looked_at_again_once_something_has_waited() {
    let mut world = World::new();
    world.core.look_at_holds(false);
    let mut hold = Hold::new_zeroed();
    (hold.word, hold.operation) = (Word::new(ID, GRANTED, 1).0, operation::UNLINK);
    hold.deadline = u64::try_from(boot_time()).expect("a time") + 60_000_000_000;
    world.told().holds.insert(ID, hold);
    let state = |world: &World| world.told().holds.get(&ID).map(|hold| Word(hold.word).state());
    world.core.look_at_holds(false);
    assert_eq!(state(&world), Some(GRANTED), "the count did not change, so nobody looked");
    world.told().waits += 1;
    world.core.look_at_holds(false);
    assert_ne!(state(&world), Some(GRANTED), "nobody knows of this grant");
}

#[test]
fn a_program_that_is_gone_takes_its_request_along() {
    let own = std::process::id();
    let stat = std::fs::read_to_string("/proc/self/stat").expect("stat");
    // Behind the name, which may have blanks; in hundredths of a second (proc_pid_stat(5)).
    let ticks: u64 = stat[stat.rfind(')').expect("a name")..]
        .split(' ')
        .nth(20)
        .and_then(|word| word.parse().ok())
        .expect("a start");
    let here = WaiterKey { pid: own, tgid: own, started: ticks * 10_000_000 };
    let gone = WaiterKey { started: here.started + 1_000_000_000_000, ..here };
    for state in [WAITING, GRANTED] {
        assert_eq!(looked_at(operation::ARGUMENTS, state, Some(here)), Some(state));
        assert_eq!(looked_at(operation::ARGUMENTS, state, Some(gone)), None);
    }
}
