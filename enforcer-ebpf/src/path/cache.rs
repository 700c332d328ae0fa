//! The automata's states at a directory, remembered in its inode.

use super::{
    Answer, Place, States,
    automaton::{arena, class_table, run_name, step, words},
    clearly_allowed,
    quick::mark_for,
    uses::is_used,
};
use crate::{
    maps,
    object::{self, number, pointer},
    subject::Subject,
    verifier::{anew, bound, difference},
};
use enforcer_common::{
    map::{CacheEntry, DirectoryCache, STATE_SETTLED},
    scratch::Scratch,
};

/// Bytes of a name that lie inside its dentry on every supported kernel (`DNAME_INLINE_LEN`,
/// include/linux/dcache.h, 64 bit).
const INLINE: u64 = 32;

/// Over an entry's words. Builds whose sequence counted otherwise have another first number.
#[inline(always)]
fn check(sequence: u64, place: u64, states: u64, state_policy: u64) -> u64 {
    0x5851_f42d_4c95_7f2d
        ^ sequence.wrapping_mul(0x9e37_79b9_7f4a_7c15)
        ^ place.wrapping_mul(0xc2b2_ae3d_27d4_eb4f)
        ^ states.wrapping_mul(0x1656_67b1_9e37_79f9)
        ^ state_policy.wrapping_mul(0xd6e8_feb8_6659_fd93)
}

/// Mount and namespace as one number: a directory can be reached through several of either.
#[inline(always)]
pub fn place_id(subject: &Subject, mount: *const u8, inode: *const u8) -> u64 {
    difference(mount, inode).wrapping_add(subject.namespace.wrapping_mul(0x9e37_79b9_7f4a_7c15))
}

/// Which of a directory's entries is a place's and a policy's.
#[inline(always)]
pub fn slot_of(place: u64, policy: u64) -> usize {
    bound::<3>((place >> 6) ^ policy) as usize
}

/// What is remembered at a directory, or null.
#[inline(always)]
pub fn memory_of(inode: *const u8) -> *mut DirectoryCache {
    // SAFETY: the verifier knows the inode.
    unsafe { maps::DIRECTORIES.get_ptr_mut(inode.cast_mut().cast()) }
}

/// The states after the directory of `place` and its slash, and under which stamp they hold.
#[inline(always)]
unsafe fn recall(
    subject: &Subject,
    place: &Place,
    inode: *const u8,
    cache: *mut DirectoryCache,
) -> Option<(States, u64)> {
    // SAFETY: map values; the verifier knows the inode.
    unsafe {
        if cache.is_null() {
            return None;
        }
        let id = place_id(subject, place.mount, inode);
        let policy = (*subject.policy).id;
        let entry = cache.cast::<CacheEntry>().add(slot_of(id, policy.into()));
        let sequence = core::ptr::read_volatile(&raw const (*entry).sequence);
        let low = core::ptr::read_volatile(&raw const (*entry).states);
        let high = core::ptr::read_volatile(&raw const (*entry).state_policy);
        if core::ptr::read_volatile(&raw const (*entry).place) != id
            || (high >> 32) as u32 != policy
            || core::ptr::read_volatile(&raw const (*entry).check) != check(sequence, id, low, high)
        {
            return None;
        }
        Some(([low as u32, (low >> 32) as u32, high as u32], sequence))
    }
}

#[inline(always)]
pub fn remembered(
    subject: &Subject,
    place: &Place,
    inode: *const u8,
    cache: *mut DirectoryCache,
    want: u16,
) -> Option<Answer> {
    if subject.policy.is_null() {
        return None;
    }
    let arena = arena();
    // SAFETY: map values; the verifier knows the inode.
    unsafe {
        let (mut states, sequence) = recall(subject, place, inode, cache)?;
        states[0] = leaf(subject, arena, place.dentry, 0, states[0])?;
        if (*subject.policy).groups > 1 {
            states[1] = leaf(subject, arena, place.dentry, 1, states[1])?;
            states[2] = leaf(subject, arena, place.dentry, 2, states[2])?;
        }
        // One look at the end: no directory has moved since the states were made, and nothing at all since the
        // object's own directory was read.
        if object::stamp_since(place.renames) != sequence {
            return None;
        }
        if clearly_allowed(subject, arena, place.dentry, &states, want) {
            return Some(Answer::Allowed);
        }
        Some(Answer::Ends(states))
    }
}

/// Whether all of `want` is clearly allowed under both names, and the rules say the same about both: then a file that
/// gets one instead of the other gains nothing. False says nothing.
#[inline(always)]
pub fn same_and_allowed(subject: &Subject, old: &Place, new: &Place, want: u16) -> bool {
    both(subject, old, new, want).unwrap_or(false)
}

#[inline(always)]
fn both(subject: &Subject, old: &Place, new: &Place, want: u16) -> Option<bool> {
    let arena = arena();
    if subject.policy.is_null() || subject.session.is_null() {
        return None;
    }
    let from = pointer(old.directory, &object::DENTRY_INODE);
    let to = pointer(new.directory, &object::DENTRY_INODE);
    if from.is_null() || to.is_null() {
        return None;
    }
    // SAFETY: map values; the verifier knows the inodes.
    unsafe {
        let policy = subject.policy;
        if (*policy).groups != 1 || core::ptr::read_volatile(&raw const (*policy).links) != 0 {
            return None;
        }
        let (source, sequence) = recall(subject, old, from, memory_of(from))?;
        let mut target = source;
        if from != to || old.mount != new.mount {
            let (found, other) = recall(subject, new, to, memory_of(to))?;
            if other != sequence {
                return None;
            }
            target = found;
        }
        let source = leaf(subject, arena, old.dentry, 0, source[0])?;
        let target = leaf(subject, arena, new.dentry, 0, target[0])?;
        if object::stamp_since(old.renames) != sequence {
            return None;
        }
        let tiers = core::ptr::read_volatile((&raw const (*subject.session).tiers).cast::<u64>());
        let (source, target) = (words(arena, source), words(arena, target));
        Some(
            source.say_the_same(&target)
                && source.clearly_allows(tiers, want)
                && is_used(policy, source.high, want)
                && is_used(policy, target.high, want),
        )
    }
}

#[inline(always)]
pub fn remember(
    subject: &Subject,
    place: &Place,
    inode: *const u8,
    cache: *mut DirectoryCache,
    sequence: u64,
    sc: *const Scratch,
) {
    let policy = anew(subject.policy);
    if policy.is_null() {
        return;
    }
    // SAFETY: map values; the verifier knows the inode. A failing allocation only costs the memory
    // of this one walk.
    unsafe {
        let mut cache = cache;
        if cache.is_null() {
            cache = maps::DIRECTORIES.get_or_insert_ptr_mut(inode.cast_mut().cast(), None);
        }
        if cache.is_null() {
            return;
        }
        let id = place_id(subject, place.mount, inode);
        let policy = (*policy).id;
        let slot = bound::<3>((id >> 6) ^ u64::from(policy));
        let parent = &raw const (*sc).parent;
        let low = u64::from((*parent)[0]) | u64::from((*parent)[1]) << 32;
        let high = u64::from(policy) << 32 | u64::from((*parent)[2]);
        // Field by field: another CPU may write the same entry, and the check makes a mixture a miss.
        let entry = cache.cast::<CacheEntry>().add(slot as usize);
        core::ptr::write_volatile(&raw mut (*entry).sequence, sequence);
        core::ptr::write_volatile(&raw mut (*entry).place, id);
        core::ptr::write_volatile(&raw mut (*entry).states, low);
        core::ptr::write_volatile(&raw mut (*entry).state_policy, high);
        core::ptr::write_volatile(&raw mut (*entry).check, check(sequence, id, low, high));
        let quick = mark_for(sequence, id, inode, low & 0xffff_ffff, policy.into());
        core::ptr::write_volatile(&raw mut (*entry).quick, quick);
    }
}

/// Runs one automaton over the name of `dentry`.
#[inline(always)]
unsafe fn leaf(
    subject: &Subject,
    arena: *const u8,
    dentry: *const u8,
    group: u64,
    state: u32,
) -> Option<u32> {
    if state & STATE_SETTLED != 0 {
        return Some(state);
    }
    // SAFETY: map values; the verifier knows the dentry.
    unsafe {
        // Only for the first automaton: most policies have no other, and each copy of the loop costs
        // time at load.
        if group == 0
            && let Some(len) = inline_name(dentry)
        {
            return Some(
                run_inline(arena, class_table(subject.policy, group), dentry, len, state.into()) as u32
            );
        }
        let sc = maps::SCRATCH.of_current_or_new();
        if sc.is_null() {
            return None;
        }
        let name = pointer(dentry, &object::DENTRY_NAME);
        let len = u64::from(number::<u32>(dentry, &object::DENTRY_LEN));
        // Through memory: newer kernels type `name` as a pointer, a global function wants a number.
        core::ptr::write_volatile(&raw mut (*sc).address, name as u64);
        let state = run_name(sc, subject.slot, group, state.into(), len);
        if state == u64::MAX { None } else { Some(state as u32) }
    }
}

/// The length of a dentry's name, if it lies in the dentry.
#[inline(always)]
pub fn inline_name(dentry: *const u8) -> Option<u64> {
    let name = pointer(dentry, &object::DENTRY_NAME);
    let len = u64::from(number::<u32>(dentry, &object::DENTRY_LEN));
    // SAFETY: the verifier knows the dentry.
    let inside = unsafe { dentry.add(object::DENTRY_INLINE.get()) };
    (name as u64 == inside as u64 && len <= INLINE).then_some(len)
}

/// Runs an automaton over a name of `len` bytes in its dentry: plain loads, eight bytes at a time, no helper.
#[inline(always)]
pub unsafe fn run_inline(
    arena: *const u8,
    class: *const u16,
    dentry: *const u8,
    len: u64,
    mut state: u64,
) -> u64 {
    let mut i = 0u64;
    let mut word = 0u64;
    let mut at = 0usize;
    while i < INLINE {
        if i >= len || state & u64::from(STATE_SETTLED) != 0 {
            break;
        }
        // SAFETY: the name lies within the dentry; `arena` and `class` are map values.
        unsafe {
            if i & 7 == 0 {
                word = core::ptr::read_volatile(dentry.add(object::DENTRY_INLINE.get() + at).cast::<u64>());
                at += 8;
            }
            state = step(arena, class, state, word as u8);
        }
        word >>= 8;
        i += 1;
    }
    state
}
