//! The way up from an object to the namespace's root, and the automata's way down again.

use super::automaton::{arena, class_table, run, step};
use crate::{
    maps,
    object::{self, peek},
    proc::PROC,
    verifier::bound,
};
use aya_ebpf::helpers::generated::bpf_loop;
use core::ffi::c_void;
use enforcer_common::{
    limits,
    map::STATE_SETTLED,
    scratch::{Component, Descent, FOLDS, Scratch},
};

/// What a walk ends with.
pub mod outcome {
    /// The name was found.
    pub const KNOWN: u64 = 0;
    /// It could not be told: unreachable, too deep, moving all the time, or memory unreadable.
    pub const UNKNOWN: u64 = 1;
    /// The object lies in another mount namespace, or in none.
    pub const FOREIGN: u64 = 2;
    /// The object belongs to a mount that only the kernel uses.
    pub const NAMELESS: u64 = 3;
}

/// Walks before a name that keeps moving counts as unknown.
const ATTEMPTS: u64 = 8;

/// Of a [`Component::len`]: the name's bytes.
const LENGTH: u64 = 0xffff_ffff;
/// Where the dentry's count of changes begins in a [`Component::len`], and in the word that it is read from.
const COUNT: u32 = 33;
/// Of that word: a change is going on.
const BUSY: u64 = 1 << 32;

/// What a loop's callback gets. It must lie on the stack, which is scarce, so it is only the address
/// of the scratch; where the loop stands is kept there.
#[repr(C)]
pub struct Round {
    /// The task's scratch.
    pub sc: *mut Scratch,
}

/// Collects the components from `sc.dentry` on `sc.mount` up to the root of the mount namespace.
///
/// The loop is `bpf_loop`'s, whose body the verifier goes through once and not once a round.
#[inline(never)]
#[unsafe(no_mangle)]
pub extern "C" fn climb(sc: *mut Scratch) -> u64 {
    if sc.is_null() {
        return outcome::UNKNOWN;
    }
    // SAFETY: `sc` is the task's scratch; kernel memory is read by `peek`, which fails on a fault;
    // the callback gets the address of a value that outlives the call.
    unsafe {
        let Some(root) = peek::<u64>((*sc).mount + object::VFSMOUNT_ROOT.get() as u64) else {
            return outcome::UNKNOWN;
        };
        (*sc).count = 0;
        (*sc).directory = 0;
        (*sc).climb.root = root;
        (*sc).climb.dentry = (*sc).dentry;
        // struct mount contains the vfsmount that paths carry (fs/mount.h, real_mount()).
        (*sc).climb.mount = (*sc).mount - object::MOUNT_VFSMOUNT.get() as u64;
        (*sc).climb.outcome = outcome::UNKNOWN;
        let mut round = Round { sc };
        let rounds = (limits::DEPTH + limits::MOUNTS) as u32;
        bpf_loop(rounds, climb_round as *mut c_void, (&raw mut round).cast(), 0);
        core::ptr::read_volatile(&raw const (*sc).climb.outcome)
    }
}

/// One step upwards. 1 ends the loop.
extern "C" fn climb_round(_round: u32, round: *mut Round) -> i64 {
    // SAFETY: as in `climb`.
    unsafe {
        let sc = (*round).sc;
        let at = &mut (*sc).climb;
        if at.dentry == at.root {
            return cross(sc);
        }
        // d_flags, d_seq: contiguous, which the daemon checks. The count is read before the name that it tells about. What
        // cannot be read compares names by itself.
        const COMPARES: u64 = 2;
        let flags = at.dentry + object::DENTRY_FLAGS.get() as u64;
        at.state = word_at(sc, flags).unwrap_or(COMPARES);
        // d_parent, d_name {hash, len, name}: contiguous too.
        let parent = at.dentry + object::DENTRY_PARENT.get() as u64;
        let Some(d) = object::words_at(parent, &raw mut (*sc).words) else { return 1 };
        if d[0] == at.dentry {
            // Its own parent and not the mount's root: a pseudo file, a disconnected dentry, or a
            // directory that was moved out of a bind mount.
            if top(sc, at.mount, (*sc).namespace) == outcome::NAMELESS {
                at.outcome = outcome::NAMELESS;
            }
            return 1;
        }
        let n = (*sc).count;
        if n >= limits::DEPTH as u64 {
            return 1;
        }
        let component = (&raw mut (*sc).component).cast::<Component>();
        let entry = component.add(bound::<{ limits::DEPTH as i32 - 1 }>(n) as usize);
        (*entry).name = d[2];
        (*entry).len = d[1] >> 32 | at.state >> COUNT << COUNT;
        // Not for a mount's root, whose name lies in another mount: it must not be remembered at the parent that it
        // has in its own file system.
        if n == 0 && at.dentry == (*sc).dentry {
            (*sc).directory = d[0];
        }
        (*sc).count = n + 1;
        // `d_flags`: whoever compares names by itself (`DCACHE_OP_COMPARE`, include/linux/dcache.h) is asked why.
        at.dentry = d[0];
        if at.state & COMPARES != 0 && folds(sc) {
            // Found anew, which takes no stack.
            let n = core::ptr::read_volatile(&raw const (*sc).count).wrapping_sub(1);
            let component = (&raw mut (*sc).component).cast::<Component>();
            let entry = component.add(bound::<{ limits::DEPTH as i32 - 1 }>(n) as usize);
            (*entry).len |= FOLDS;
            // What is remembered at a directory holds for names that it knows by one spelling.
            if n == 0 {
                (*sc).directory = 0;
            }
        }
        0
    }
}

/// Whether each of the components that [`climb`] has collected is still the same: then all of them were at one time, which
/// is after the last of them was read and before the first is looked at here. 0: they were not, or it cannot be told.
///
/// A dentry counts the changes of its name and parent (`d_seq`, `__d_move()`, fs/dcache.c): while the count is the same and
/// even, what was read in between is what it was. Counts of others do not matter, so nobody is refused because somebody
/// else renames in a loop.
#[inline(never)]
#[unsafe(no_mangle)]
pub extern "C" fn is_unchanged(sc: *mut Scratch) -> u64 {
    if sc.is_null() {
        return 0;
    }
    // SAFETY: as in `climb`.
    unsafe {
        let Some(root) = peek::<u64>((*sc).mount + object::VFSMOUNT_ROOT.get() as u64) else { return 0 };
        (*sc).climb.root = root;
        (*sc).climb.dentry = (*sc).dentry;
        (*sc).climb.mount = (*sc).mount - object::MOUNT_VFSMOUNT.get() as u64;
        (*sc).climb.state = 0;
        (*sc).climb.outcome = outcome::UNKNOWN;
        let mut round = Round { sc };
        let rounds = (limits::DEPTH + limits::MOUNTS) as u32;
        bpf_loop(rounds, unchanged_round as *mut c_void, (&raw mut round).cast(), 0);
        u64::from(core::ptr::read_volatile(&raw const (*sc).climb.outcome) == outcome::KNOWN)
    }
}

/// One step upwards. 1 ends the loop.
extern "C" fn unchanged_round(_round: u32, round: *mut Round) -> i64 {
    // SAFETY: as in `climb`.
    unsafe {
        let sc = (*round).sc;
        let at = &mut (*sc).climb;
        if at.dentry == at.root {
            let ended = cross(sc);
            // As many as there were.
            if at.state != (*sc).count {
                at.outcome = outcome::UNKNOWN;
            }
            return ended;
        }
        let n = at.state;
        if n >= (*sc).count {
            return 1;
        }
        // The parent first: it is the one that was read before if the count has not changed behind it.
        let parent = at.dentry + object::DENTRY_PARENT.get() as u64;
        let flags = at.dentry + object::DENTRY_FLAGS.get() as u64;
        let Some(parent) = word_at(sc, parent) else { return 1 };
        at.dentry = parent;
        let Some(state) = word_at(sc, flags) else { return 1 };
        let component = (&raw const (*sc).component).cast::<Component>();
        let entry = component.add(bound::<{ limits::DEPTH as i32 - 1 }>(n) as usize);
        if state & BUSY != 0 || (state ^ (*entry).len) >> COUNT != 0 {
            return 1;
        }
        at.state = n + 1;
        0
    }
}

/// From a mount's root on to where it is mounted. 1: that was the topmost, and `sc.climb.outcome` says which it is, or it
/// cannot be told.
#[inline(always)]
unsafe fn cross(sc: *mut Scratch) -> i64 {
    // SAFETY: as in `climb`.
    unsafe {
        let at = &mut (*sc).climb;
        let room = (&raw mut (*sc).words).cast::<[u64; 2]>();
        let parent = at.mount + object::MOUNT_PARENT.get() as u64;
        let Some(up) = object::words_at(parent, room) else { return 1 };
        if up[0] == at.mount {
            at.outcome = top(sc, at.mount, (*sc).namespace);
            return 1;
        }
        let root = up[0] + (object::MOUNT_VFSMOUNT.get() + object::VFSMOUNT_ROOT.get()) as u64;
        let Some(root) = word_at(sc, root) else { return 1 };
        at.mount = up[0];
        at.dentry = up[1];
        at.root = root;
        0
    }
}

/// Whether the directory at `sc.climb.dentry` may know its objects by other spellings as well, the name being the one that
/// somebody has asked for: capitals (vfat, ntfs3, directories of ext4 with `chattr +F`), or short names. So it is said
/// where it cannot be read.
///
/// In proc a file may be gone, which is no other spelling; file systems that fold in some directories say in which.
#[inline(always)]
fn folds(sc: *mut Scratch) -> bool {
    const EXT: u64 = 0xef53;
    const F2FS: u64 = 0xf2f5_2010;
    const TMPFS: u64 = 0x0102_1994;
    // `S_CASEFOLD` (include/linux/fs.h).
    const CASEFOLD: u64 = 1 << 15;
    // SAFETY: `sc` is the task's scratch.
    let parent = unsafe { core::ptr::read_volatile(&raw const (*sc).climb.dentry) };
    let Some(inode) = word_at(sc, parent + object::DENTRY_INODE.get() as u64) else { return true };
    // The first four bytes.
    let Some(flags) = word_at(sc, inode + object::INODE_FLAGS.get() as u64) else { return true };
    let Some(block) = word_at(sc, inode + object::INODE_SB.get() as u64) else { return true };
    let Some(magic) = word_at(sc, block + object::SB_MAGIC.get() as u64) else { return true };
    match magic {
        PROC => false,
        EXT | F2FS | TMPFS => flags & CASEFOLD != 0,
        _ => true,
    }
}

/// Kernel memory at a plain address, read into the scratch: on 6.1 the way from a rename to here has no room left on the
/// stack.
#[inline(always)]
fn word_at(sc: *mut Scratch, address: u64) -> Option<u64> {
    // SAFETY: there is room for a word in the task's scratch.
    unsafe { object::words_at(address, (&raw mut (*sc).words).cast::<[u64; 1]>()).map(|word| word[0]) }
}

/// What it means that a walk ended at the top of `mount`: its namespace is the expected one, an
/// error pointer for a mount of the kernel's own (`MNT_NS_INTERNAL`, fs/mount.h), or neither.
#[inline(always)]
fn top(sc: *mut Scratch, mount: u64, namespace: u64) -> u64 {
    let Some(found) = word_at(sc, mount + object::MOUNT_NAMESPACE.get() as u64) else {
        return outcome::UNKNOWN;
    };
    if found >= (-4095i64) as u64 {
        outcome::NAMELESS
    } else if found == namespace && found != 0 {
        outcome::KNOWN
    } else {
        outcome::FOREIGN
    }
}

/// Runs the automata down over the collected components: `sc.object` becomes the states after the
/// last one, `sc.parent` those after the directory before it and its slash.
#[inline(never)]
#[unsafe(no_mangle)]
pub extern "C" fn descend(sc: *mut Scratch) -> u64 {
    if sc.is_null() {
        return outcome::UNKNOWN;
    }
    // SAFETY: `sc` is the task's scratch; the policy is a map value; the callback gets the address of
    // a value that outlives the call.
    unsafe {
        // What the loop remembers lies in the scratch, since the stack is scarce.
        let mut turn = 0;
        while turn < limits::GROUPS {
            let Some(policy) = maps::POLICIES.get_ptr((*sc).policy as u32) else { return outcome::UNKNOWN };
            if turn >= usize::from((*policy).groups) {
                break;
            }
            let first = u64::from((*policy).start[turn]);
            (*sc).descent = Descent { group: turn as u64, before: first, state: first };
            let arena = arena();
            let mut round = Down { sc, arena, class: class_table(policy, turn as u64) };
            let rounds = core::ptr::read_volatile(&raw const (*sc).count) as u32;
            bpf_loop(rounds, descend_round as *mut c_void, (&raw mut round).cast(), 0);
            let state = core::ptr::read_volatile(&raw const (*sc).descent.state);
            if state == u64::MAX {
                return outcome::UNKNOWN;
            }
            (*sc).object[turn] = state as u32;
            (*sc).parent[turn] = core::ptr::read_volatile(&raw const (*sc).descent.before) as u32;
            turn += 1;
        }
        outcome::KNOWN
    }
}

/// What the way down gets: as [`Round`], and what would otherwise be looked up for every component.
#[repr(C)]
struct Down {
    sc: *mut Scratch,
    arena: *const u8,
    class: *const u16,
}

/// One component, the topmost first. 1 ends the loop.
extern "C" fn descend_round(number: u32, round: *mut Down) -> i64 {
    // SAFETY: as in `descend`.
    unsafe {
        let Down { sc, arena, class } = *round;
        let at = &mut (*sc).descent;
        if number > 0 {
            at.before = step(arena, class, at.state, b'/');
        }
        let component = (&raw const (*sc).component).cast::<Component>();
        let index = (*sc).count - 1 - u64::from(number);
        let entry = component.add(bound::<{ limits::DEPTH as i32 - 1 }>(index) as usize);
        let len = (*entry).len & LENGTH;
        if (*entry).len & FOLDS != 0 {
            // Where rules tell names apart it cannot be told which of them is meant.
            let settled = at.before & u64::from(STATE_SETTLED) != 0;
            at.state = if settled { at.before } else { u64::MAX };
            return i64::from(!settled);
        }
        at.state = run(sc, arena, class, at.before, (*entry).name, len);
        i64::from(at.state == u64::MAX)
    }
}

/// Most looks at the counters while something is on the move: some milliseconds.
const PATIENCE: u32 = 1 << 16;

/// The counters, once no rename and no mount is going on, or after a while as they are.
///
/// Whoever is at it holds a spin lock and is done at once, unless a hypervisor took its CPU away in
/// between. The kernel's own readers wait without end (`read_seqbegin()`, include/linux/seqlock.h).
#[inline(never)]
#[unsafe(no_mangle)]
pub extern "C" fn settled() -> u64 {
    let mut counters = object::stamp();
    if counters & object::MOVING != 0 {
        // SAFETY: the callback gets the address of a value that outlives the call.
        unsafe { bpf_loop(PATIENCE, settled_round as *mut c_void, (&raw mut counters).cast(), 0) };
    }
    counters
}

/// One look. 1 ends the loop.
extern "C" fn settled_round(_round: u32, counters: *mut u64) -> i64 {
    // SAFETY: as in `settled`.
    unsafe {
        object::take_stock();
        *counters = object::stamp();
        i64::from(*counters & object::MOVING == 0)
    }
}

/// The whole walk for `sc.dentry` on `sc.mount`, again while things move. What was read while something was on the move
/// counts if none of its own names was among that ([`is_unchanged`]), and no mount: one agent's renaming in a loop must not
/// deny others.
///
/// Leaves the states in `sc.object` and `sc.parent`, and in `sc.sequence` the counters under which
/// they may be remembered, or 0.
#[inline(never)]
#[unsafe(no_mangle)]
pub extern "C" fn walk(sc: *mut Scratch) -> u64 {
    if sc.is_null() {
        return outcome::UNKNOWN;
    }
    // SAFETY: `sc` is the task's scratch. What the loop remembers lies there and not on the stack,
    // which is scarce.
    unsafe {
        let mut attempt = 0;
        while attempt < ATTEMPTS {
            core::ptr::write_volatile(&raw mut (*sc).sequence, settled());
            // The first attempt is mostly the only one, and needs no more.
            if attempt > 0 {
                (*sc).other[0] = object::stamp_by_calls() as u32;
            }
            let renames = object::renames();
            let mut result = climb(sc);
            if result == outcome::KNOWN {
                result = descend(sc);
            }
            let after = object::stamp_since(renames);
            let before = core::ptr::read_volatile(&raw const (*sc).sequence);
            if before == after && before & object::MOVING == 0 {
                return result;
            }
            if attempt > 0 && result == outcome::KNOWN && is_unchanged(sc) != 0 {
                let mounts = object::stamp_by_calls() as u32;
                if mounts == (*sc).other[0] && mounts & 1 == 0 {
                    core::ptr::write_volatile(&raw mut (*sc).sequence, 0);
                    return result;
                }
            }
            attempt += 1;
        }
        core::ptr::write_volatile(&raw mut (*sc).sequence, 0);
        outcome::UNKNOWN
    }
}
