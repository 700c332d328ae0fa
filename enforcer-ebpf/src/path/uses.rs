//! Which rules have allowed something before? The first time is recorded; from then on nothing is paid but one look at a
//! word of the policy's entry.

use super::{States, arena, automaton::masks};
use crate::{
    maps,
    subject::Subject,
    verifier::{anew, bound},
};
use core::mem::offset_of;
use enforcer_common::{
    event::{Header, operation},
    limits::SETS,
    map::Policy,
    scratch::Scratch,
};

/// Byte offset of a set's word, from its number.
const WORDS: i32 = 2 * (SETS as i32 - 1);

/// Whether all of `want` was used before as the set allows it whose number is at the top of `high`
/// ([`enforcer_common::verdict::Words`]).
#[inline(always)]
pub fn is_used(policy: *const Policy, high: u64, want: u16) -> bool {
    // SAFETY: a map value that is not null; the mask keeps the word inside its array.
    unsafe {
        let at = bound::<WORDS>(high >> 47) as usize;
        want & core::ptr::read_volatile(word(policy, at)) == 0
    }
}

#[inline(always)]
unsafe fn word(policy: *const Policy, at: usize) -> *const u16 {
    // SAFETY: as the caller promises.
    unsafe { policy.cast::<u8>().add(at).add(offset_of!(Policy, unused)).cast() }
}

/// The number of the set of rules that allow something at `state`.
///
/// # Safety
/// `arena` is the map's value.
#[inline(always)]
unsafe fn set_at(arena: *const u8, state: u32) -> u64 {
    // SAFETY: as the caller promises.
    unsafe { masks(arena, state).set.into() }
}

/// Whether something of `want` was never used before as the set with this number allows it.
#[inline(always)]
pub fn is_unused(subject: &Subject, set: u64, want: u16) -> bool {
    let policy = anew(subject.policy);
    !policy.is_null() && !is_used(policy, set << 48, want)
}

/// Whether something of `want` was never used before as the rules allow it that stand behind `states`.
#[inline(always)]
pub fn is_first(subject: &Subject, states: &States, want: u16) -> bool {
    let policy = anew(subject.policy);
    if want == 0 || policy.is_null() {
        return false;
    }
    let arena = arena();
    // SAFETY: map values.
    unsafe {
        if !is_used(policy, set_at(arena, states[0]) << 48, want) {
            return true;
        }
        (*policy).groups > 1
            && !(is_used(policy, set_at(arena, states[1]) << 48, want)
                && is_used(policy, set_at(arena, states[2]) << 48, want))
    }
}

/// Notes that all of `want` was used as the set with this number allows it. Two processors that do so at one time may lose
/// a bit, which is then recorded once more.
///
/// # Safety
/// `policy` is a map value, not null.
#[inline(always)]
unsafe fn use_up(policy: *mut Policy, set: u64, want: u16) {
    // SAFETY: as the caller promises; the mask keeps the word inside its array.
    unsafe {
        let at = word(policy, bound::<WORDS>(set << 1) as usize).cast_mut();
        core::ptr::write_volatile(at, core::ptr::read_volatile(at) & !want);
    }
}

/// Notes that what the record in the making says was used, so that it is no first use any more.
#[inline(never)]
#[unsafe(no_mangle)]
pub extern "C" fn note_use(sc: *mut Scratch) -> u64 {
    let record = maps::RECORDS.of_current();
    if sc.is_null() || record.is_null() {
        return 1;
    }
    // SAFETY: `sc` is the task's scratch, `record` its record; map values.
    unsafe {
        let slot = core::ptr::read_volatile(&raw const (*sc).policy) as u32;
        let Some(policy) = maps::POLICIES.get_ptr_mut(slot) else { return 1 };
        let header = record.cast::<Header>();
        let want = core::ptr::read_volatile(&raw const (*header).access) as u16;
        let called = core::ptr::read_volatile(&raw const (*header).operation);
        if (operation::CONNECT..=operation::LISTEN).contains(&called) {
            let set = core::ptr::read_volatile(&raw const (*header).argument);
            use_up(policy, set.into(), want);
            return 0;
        }
        let arena = arena();
        let states = core::ptr::read_volatile(&raw const (*header).states);
        use_up(policy, set_at(arena, states[0]), want);
        if (*policy).groups > 1 {
            use_up(policy, set_at(arena, states[1]), want);
            use_up(policy, set_at(arena, states[2]), want);
        }
        0
    }
}
