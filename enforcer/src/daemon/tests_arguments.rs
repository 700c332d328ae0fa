//! Programs that wait for the verdict on their arguments are none of the queue's business until somebody is asked.

use super::*;
use enforcer_common::{
    event::operation,
    hold::{GRANTED, Hold, REFUSED, WAITING, Word},
};
use zerocopy::FromZeros;

const ID: [u64; 2] = [7, 8];

/// The state of a hold that has just come, once the tables have been looked at.
fn looked_at(operation: u16, state: u8) -> Option<u8> {
    let mut world = World::new();
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
    assert_eq!(looked_at(operation::ARGUMENTS, WAITING), Some(WAITING));
    assert_eq!(looked_at(operation::ARGUMENTS, GRANTED), Some(GRANTED));
}

#[test]
fn a_grant_that_nobody_knows_of_is_none() {
    assert_ne!(looked_at(operation::UNLINK, GRANTED), Some(GRANTED));
    assert!(matches!(looked_at(operation::ARGUMENTS, REFUSED), None | Some(REFUSED)));
}
