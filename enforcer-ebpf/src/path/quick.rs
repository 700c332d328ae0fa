//! The question that is asked most, in as few instructions as it takes: may a regular file be opened for reading or
//! writing whose directory is remembered, under a policy of one automaton? Everything else is the long way's.
//!
//! It must never allow what the long way would not. What an entry holds is proved by one word over all of it
//! ([`mark`]), and that the names are still those by the counters of renames and mounts, as in [`super::cache`]. The
//! floor needs no look: an entry has the word only if its directory lies on a file system without files of its own kind
//! (no knobs, no proc), and the file must lie on the same.

use super::{
    automaton::{class_table, words},
    cache::{inline_name, memory_of, place_id, run_inline, slot_of},
    uses::is_used,
};
use crate::{
    maps,
    object::{self, pointer},
    proc::PIDFS,
    subject::Subject,
    verifier::difference,
};
use enforcer_common::{
    access::file::{READ, WRITE},
    map::CacheEntry,
};

/// The word over an entry: its directory's counters, place and file system, the state there, and the policy.
#[inline(always)]
pub fn mark(sequence: u64, place: u64, file_system: u64, state: u64, policy: u64) -> u64 {
    let whole = place.wrapping_add(file_system.wrapping_mul(0xc2b2_ae3d_27d4_eb4f));
    let mixed = whole.wrapping_mul(0x9e37_79b9_7f4a_7c15) ^ (policy << 32 | state);
    mixed.wrapping_mul(0xd6e8_feb8_6659_fd93).wrapping_add(sequence)
}

/// The word for an entry that is being made, or 0: files of this file system need more than rules about names.
#[inline(always)]
pub fn mark_for(sequence: u64, place: u64, inode: *const u8, state: u64, policy: u64) -> u64 {
    let magic = object::magic(inode);
    if !object::casts() || object::is_control(magic) || magic == PIDFS {
        return 0;
    }
    mark(sequence, place, file_system(inode, inode), state, policy)
}

/// The file system of `inode`, as a number beside its directory's inode.
#[inline(always)]
fn file_system(inode: *const u8, directory: *const u8) -> u64 {
    difference(pointer(inode, &object::INODE_SB), directory)
}

/// Whether the file at `path` may be opened. False says nothing.
#[inline(always)]
pub fn may_open(subject: &Subject, path: *const u8, inode: *const u8, flags: u32) -> bool {
    // What creates, truncates or executes is asked elsewhere; the access mode 3 is neither of both.
    const LONG: u32 = object::OPEN_EXEC | object::OPEN_TRUNCATE | object::OPEN_TMPFILE;
    if !object::casts() || subject.policy.is_null() || subject.session.is_null() {
        return false;
    }
    let access = flags & object::OPEN_ACCESS;
    if flags & LONG != 0 || access == 3 || object::kind(inode) != object::REGULAR {
        return false;
    }
    const _: () = assert!(READ == 1 && WRITE == 2);
    let want = (access + 1) as u16;
    // SAFETY: map values; the verifier knows the inodes and dentries.
    unsafe {
        // Before any name is read. The kernel's own count is compared at the end: equal means that there was no
        // rename from here to there.
        let moves = object::told();
        let dentry = pointer(path, &object::PATH_DENTRY);
        let parent = pointer(dentry, &object::DENTRY_PARENT);
        let directory = pointer(parent, &object::DENTRY_INODE);
        if dentry == parent || directory.is_null() {
            return false;
        }
        let memory = memory_of(directory);
        if memory.is_null() {
            return false;
        }
        let policy = subject.policy;
        if (*policy).groups != 1 || core::ptr::read_volatile(&raw const (*policy).links) != 0 {
            return false;
        }
        let place = place_id(subject, pointer(path, &object::PATH_MOUNT), directory);
        let id = u64::from((*policy).id);
        let entry = memory.cast::<CacheEntry>().add(slot_of(place, id));
        let sequence = core::ptr::read_volatile(&raw const (*entry).sequence);
        let before = u64::from(core::ptr::read_volatile((&raw const (*entry).states).cast::<u32>()));
        if core::ptr::read_volatile(&raw const (*entry).quick)
            != mark(sequence, place, file_system(inode, directory), before, id)
        {
            return false;
        }
        let Some(len) = inline_name(dentry) else { return false };
        let state = run_inline(maps::arena(), class_table(policy, 0), dentry, len, before);
        if object::stamp_if(moves) != sequence {
            return false;
        }
        let tiers = core::ptr::read_volatile((&raw const (*subject.session).tiers).cast::<u64>());
        let words = words(maps::arena(), state as u32);
        words.clearly_allows(tiers, want) && is_used(policy, words.high, want)
    }
}
