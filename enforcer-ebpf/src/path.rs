//! Which name does an object have, and what do the rules say about it?
//!
//! The name is the one in the mount namespace that was recorded when the task was armed: the walk
//! goes from the object up through dentries and mounts to that namespace's root, then the policy's
//! automata run down over the components. The states reached at a directory are remembered in its
//! inode, valid while the kernel's rename and mount counters stand still; then only the last
//! component is left to do.

use crate::{
    maps,
    object::{self, number, peek, pointer},
    subject::Subject,
    verifier::{bound, difference},
};
use aya_ebpf::helpers::generated::bpf_loop;
use core::ffi::c_void;
use enforcer_common::{
    limits,
    map::{CacheEntry, Component, Descent, Masks, Policy, ROW_HEADER, STATE_SETTLED, Scratch},
    verdict::Folded,
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

/// An automaton's states, one per group.
pub type States = [u32; 3];

const ARENA_MASK: i32 = (limits::ARENA as i32 - 1) & !3;
/// Bytes of a name that lie inside its dentry on every supported kernel (`DNAME_INLINE_LEN`,
/// include/linux/dcache.h, 64 bit).
const INLINE: u64 = 32;
/// Walks before a name that keeps moving counts as unknown.
const ATTEMPTS: u64 = 4;

/// The arena, or null.
#[inline(always)]
pub fn arena() -> *const u8 {
    maps::ARENA.get_ptr(0).map_or(core::ptr::null(), |a| a.cast())
}

/// The state after `byte`.
#[inline(always)]
pub unsafe fn step(arena: *const u8, class: *const u16, state: u64, byte: u8) -> u64 {
    // SAFETY: the mask keeps the row inside the arena, which is longer than the mask by more than a
    // row's header; `class` has 256 entries.
    unsafe {
        let column = u64::from(*class.add(byte as usize));
        let at = bound::<ARENA_MASK>(state + column);
        u64::from(core::ptr::read_volatile(arena.add(at as usize + ROW_HEADER as usize).cast::<u32>()))
    }
}

/// The masks that stand at `state`.
#[inline(always)]
pub unsafe fn masks(arena: *const u8, state: u32) -> Masks {
    // SAFETY: as in `step`.
    unsafe {
        core::ptr::read_volatile(arena.add(bound::<ARENA_MASK>(u64::from(state)) as usize).cast::<Masks>())
    }
}

/// What the rules say about an object whose name ended in `states`.
#[inline(always)]
pub fn rights(subject: &Subject, states: &States) -> Folded {
    let mut all = Masks::NONE;
    let arena = arena();
    if !arena.is_null() && !subject.policy.is_null() {
        // SAFETY: map values.
        unsafe {
            let groups = (*subject.policy).groups;
            all.join(&masks(arena, states[0]));
            if groups > 1 {
                all.join(&masks(arena, states[1]));
                all.join(&masks(arena, states[2]));
            }
        }
    }
    all.fold(&subject.tiers())
}

/// Runs one automaton over `len` bytes at the kernel address `sc.address`. A function of its own, so
/// that the verifier goes through its loop once and not once per component.
///
/// Returns the state, or `u64::MAX` when the bytes cannot be read.
#[inline(never)]
#[unsafe(no_mangle)]
pub extern "C" fn run_name(sc: *mut Scratch, slot: u32, group: u64, state: u64, len: u64) -> u64 {
    if sc.is_null() || len > 255 || group >= limits::GROUPS as u64 {
        return u64::MAX;
    }
    // SAFETY: `sc` is the task's scratch; the name buffer takes 255 bytes.
    unsafe {
        let Some(policy) = maps::POLICIES.get_ptr(slot) else { return u64::MAX };
        let arena = arena();
        if arena.is_null() {
            return u64::MAX;
        }
        let len = bound::<255>(len);
        let name = (&raw mut (*sc).name).cast::<u8>();
        let address = (*sc).address;
        if aya_ebpf::helpers::generated::bpf_probe_read_kernel(name.cast(), len as u32, address as *const _)
            != 0
        {
            return u64::MAX;
        }
        let class = class_table(policy, group);
        let mut state = state;
        let mut i = 0u64;
        while i < 255 {
            if i >= len || state & u64::from(STATE_SETTLED) != 0 {
                break;
            }
            state = step(arena, class, state, *name.add(i as usize));
            i += 1;
        }
        state
    }
}

#[inline(always)]
unsafe fn class_table(policy: *const Policy, group: u64) -> *const u16 {
    // SAFETY: there are three tables of 512 bytes and the struct ends with them.
    unsafe {
        let tables = (&raw const (*policy).class).cast::<u8>();
        let at = if group == 0 {
            0
        } else if group == 1 {
            512
        } else {
            1024
        };
        tables.add(at).cast::<u16>()
    }
}

/// The state after a slash.
#[inline(always)]
unsafe fn slash(arena: *const u8, policy: *const Policy, group: u64, state: u64) -> u64 {
    // SAFETY: as in `step`.
    unsafe { step(arena, class_table(policy, group), state, b'/') }
}

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
            let Some(up) = peek::<[u64; 2]>(at.mount + object::MOUNT_PARENT.get() as u64) else { return 1 };
            if up[0] == at.mount {
                at.outcome = top(at.mount, (*sc).namespace);
                return 1;
            }
            let root = up[0] + (object::MOUNT_VFSMOUNT.get() + object::VFSMOUNT_ROOT.get()) as u64;
            let Some(root) = peek::<u64>(root) else { return 1 };
            at.mount = up[0];
            at.dentry = up[1];
            at.root = root;
            return 0;
        }
        // d_parent, d_name {hash, len, name}: contiguous, which the daemon checks.
        let Some(d) = peek::<[u64; 3]>(at.dentry + object::DENTRY_PARENT.get() as u64) else { return 1 };
        if d[0] == at.dentry {
            // Its own parent and not the mount's root: a pseudo file, a disconnected dentry, or a
            // directory that was moved out of a bind mount.
            if top(at.mount, (*sc).namespace) == outcome::NAMELESS {
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
        (*entry).len = d[1] >> 32;
        (*sc).count = n + 1;
        at.dentry = d[0];
        0
    }
}

/// What it means that a walk ended at the top of `mount`: its namespace is the expected one, an
/// error pointer for a mount of the kernel's own (`MNT_NS_INTERNAL`, fs/mount.h), or neither.
#[inline(always)]
fn top(mount: u64, namespace: u64) -> u64 {
    let Some(found) = peek::<u64>(mount + object::MOUNT_NAMESPACE.get() as u64) else {
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
        let Some(policy) = maps::POLICIES.get_ptr((*sc).policy as u32) else { return outcome::UNKNOWN };
        let start = (&raw const (*policy).start).cast::<u32>();
        let rounds = core::ptr::read_volatile(&raw const (*sc).count) as u32;
        let mut group = 0u64;
        while group < limits::GROUPS as u64 {
            if group >= u64::from((*policy).groups) {
                break;
            }
            let index = bound::<3>(group) as usize;
            let first = u64::from(core::ptr::read_volatile(start.add(index)));
            (*sc).descent = Descent { group, before: first, state: first };
            let mut round = Round { sc };
            bpf_loop(rounds, descend_round as *mut c_void, (&raw mut round).cast(), 0);
            let state = core::ptr::read_volatile(&raw const (*sc).descent.state);
            if state == u64::MAX {
                return outcome::UNKNOWN;
            }
            let before = core::ptr::read_volatile(&raw const (*sc).descent.before);
            core::ptr::write_volatile((&raw mut (*sc).parent).cast::<u32>().add(index), before as u32);
            core::ptr::write_volatile((&raw mut (*sc).object).cast::<u32>().add(index), state as u32);
            group += 1;
        }
        outcome::KNOWN
    }
}

/// One component, the topmost first. 1 ends the loop.
extern "C" fn descend_round(number: u32, round: *mut Round) -> i64 {
    // SAFETY: as in `descend`.
    unsafe {
        let sc = (*round).sc;
        let at = &mut (*sc).descent;
        if number > 0 {
            let arena = arena();
            let policy = maps::POLICIES.get_ptr((*sc).policy as u32);
            let (Some(policy), false) = (policy, arena.is_null()) else {
                at.state = u64::MAX;
                return 1;
            };
            at.before = slash(arena, policy, at.group, at.state);
        }
        let component = (&raw const (*sc).component).cast::<Component>();
        let index = (*sc).count - 1 - u64::from(number);
        let entry = component.add(bound::<{ limits::DEPTH as i32 - 1 }>(index) as usize);
        (*sc).address = (*entry).name;
        at.state = run_name(sc, (*sc).policy as u32, at.group, at.before, (*entry).len);
        i64::from(at.state == u64::MAX)
    }
}

/// The whole walk for `sc.dentry` on `sc.mount`, again while things move. Two walks in a row that
/// agree decide too: one agent's renaming in a loop must not deny others.
///
/// Leaves the states in `sc.object` and `sc.parent`, and in `sc.sequence` the counters under which
/// they may be remembered, or 0.
#[inline(never)]
#[unsafe(no_mangle)]
pub extern "C" fn walk(sc: *mut Scratch) -> u64 {
    if sc.is_null() {
        return outcome::UNKNOWN;
    }
    // SAFETY: `sc` is the task's scratch.
    unsafe {
        core::ptr::write_volatile(&raw mut (*sc).sequence, 0);
        let mut attempt = 0;
        while attempt < ATTEMPTS {
            let before = object::sequence();
            let mut result = climb(sc);
            if result == outcome::KNOWN {
                result = descend(sc);
            }
            let after = object::sequence();
            if before == after && before & object::MOVING == 0 {
                if result == outcome::KNOWN {
                    core::ptr::write_volatile(&raw mut (*sc).sequence, before);
                }
                return result;
            }
            if result == outcome::KNOWN {
                let same = attempt > 0
                    && (*sc).object[0] == (*sc).other[0]
                    && (*sc).object[1] == (*sc).other[1]
                    && (*sc).object[2] == (*sc).other[2];
                if same {
                    return result;
                }
                (*sc).other = (*sc).object;
            }
            attempt += 1;
        }
        outcome::UNKNOWN
    }
}

/// An object to be judged: what a `struct path` and a dentry say.
#[derive(Clone, Copy)]
pub struct Place {
    /// Dentry of the directory, for the cache; null if there is none to remember at.
    pub directory: *const u8,
    /// The object's dentry.
    pub dentry: *const u8,
    /// The mount.
    pub mount: *const u8,
}

impl Place {
    /// An object in `directory` (a `struct path`).
    #[inline(always)]
    pub fn below(directory: *const u8, dentry: *const u8) -> Self {
        Self {
            directory: pointer(directory, &object::PATH_DENTRY),
            dentry,
            mount: pointer(directory, &object::PATH_MOUNT),
        }
    }

    /// The object that `path` (a `struct path`) names.
    #[inline(always)]
    pub fn at(path: *const u8) -> Self {
        let dentry = pointer(path, &object::PATH_DENTRY);
        let mount = pointer(path, &object::PATH_MOUNT);
        // A mount's root has its name in another mount: nothing to remember it by.
        let directory = if dentry == pointer(mount, &object::VFSMOUNT_ROOT) {
            core::ptr::null()
        } else {
            pointer(dentry, &object::DENTRY_PARENT)
        };
        Self { directory, dentry, mount }
    }
}

/// The task's scratch with the walk's beginning filled in, or null.
#[inline(always)]
pub fn begin(subject: &Subject, dentry: u64, mount: u64) -> *mut Scratch {
    let sc = maps::SCRATCH.of_current_or_new();
    if !sc.is_null() {
        // SAFETY: not null, and nobody else uses a task's scratch.
        unsafe {
            core::ptr::write_volatile(&raw mut (*sc).dentry, dentry);
            core::ptr::write_volatile(&raw mut (*sc).mount, mount);
            core::ptr::write_volatile(&raw mut (*sc).namespace, subject.namespace);
            core::ptr::write_volatile(&raw mut (*sc).policy, u64::from(subject.slot));
        }
    }
    sc
}

/// The states in which the object's name ends, from the directory's cache if possible.
#[inline(always)]
pub fn states(subject: &Subject, place: &Place) -> Result<States, u64> {
    let inode = if place.directory.is_null() {
        core::ptr::null()
    } else {
        pointer(place.directory, &object::DENTRY_INODE)
    };
    if !inode.is_null()
        && let Some(states) = remembered(subject, place, inode)
    {
        return Ok(states);
    }
    let sc = begin(subject, place.dentry as u64, place.mount as u64);
    if sc.is_null() {
        return Err(outcome::UNKNOWN);
    }
    let result = walk(sc);
    if result != outcome::KNOWN {
        return Err(result);
    }
    // SAFETY: not null.
    unsafe {
        let sequence = core::ptr::read_volatile(&raw const (*sc).sequence);
        if !inode.is_null() && sequence != 0 {
            remember(subject, place, inode, sequence, sc);
        }
        Ok([(*sc).object[0], (*sc).object[1], (*sc).object[2]])
    }
}

/// The states of a walk without a cache, for hooks whose pointers the verifier does not trust.
#[inline(always)]
pub fn states_uncached(subject: &Subject, dentry: u64, mount: u64) -> Result<States, u64> {
    let sc = begin(subject, dentry, mount);
    if sc.is_null() {
        return Err(outcome::UNKNOWN);
    }
    let result = walk(sc);
    if result != outcome::KNOWN {
        return Err(result);
    }
    // SAFETY: not null.
    unsafe { Ok([(*sc).object[0], (*sc).object[1], (*sc).object[2]]) }
}

#[inline(always)]
fn check(sequence: u64, place: u64, states: u64, state_policy: u64) -> u64 {
    sequence.wrapping_mul(0x9e37_79b9_7f4a_7c15)
        ^ place.wrapping_mul(0xc2b2_ae3d_27d4_eb4f)
        ^ states.wrapping_mul(0x1656_67b1_9e37_79f9)
        ^ state_policy.wrapping_mul(0xd6e8_feb8_6659_fd93)
}

/// Mount and namespace as one number: a directory can be reached through several of either.
#[inline(always)]
fn place_id(subject: &Subject, place: &Place, inode: *const u8) -> u64 {
    difference(place.mount, inode).wrapping_add(subject.namespace.wrapping_mul(0x9e37_79b9_7f4a_7c15))
}

#[inline(always)]
fn remembered(subject: &Subject, place: &Place, inode: *const u8) -> Option<States> {
    if subject.policy.is_null() {
        return None;
    }
    let arena = arena();
    if arena.is_null() {
        return None;
    }
    // SAFETY: map values; the verifier knows the inode.
    unsafe {
        let cache = maps::DIRECTORIES.get_ptr_mut(inode.cast_mut().cast());
        if cache.is_null() {
            return None;
        }
        let id = place_id(subject, place, inode);
        let policy = (*subject.policy).id;
        let slot = bound::<3>((id >> 6) ^ u64::from(policy));
        let entry = cache.cast::<CacheEntry>().add(slot as usize);
        let sequence = core::ptr::read_volatile(&raw const (*entry).sequence);
        let low = core::ptr::read_volatile(&raw const (*entry).states);
        let high = core::ptr::read_volatile(&raw const (*entry).state_policy);
        if core::ptr::read_volatile(&raw const (*entry).place) != id
            || (high >> 32) as u32 != policy
            || core::ptr::read_volatile(&raw const (*entry).check) != check(sequence, id, low, high)
        {
            return None;
        }
        let mut states = [low as u32, (low >> 32) as u32, high as u32];
        states[0] = leaf(subject, arena, place.dentry, 0, states[0])?;
        if (*subject.policy).groups > 1 {
            states[1] = leaf(subject, arena, place.dentry, 1, states[1])?;
            states[2] = leaf(subject, arena, place.dentry, 2, states[2])?;
        }
        // One look at the counters, at the end: equal to those under which the states were made,
        // hence nothing moved from before that until now.
        if object::sequence() == sequence { Some(states) } else { None }
    }
}

#[inline(always)]
fn remember(subject: &Subject, place: &Place, inode: *const u8, sequence: u64, sc: *const Scratch) {
    if subject.policy.is_null() {
        return;
    }
    // SAFETY: map values; the verifier knows the inode. A failing allocation only costs the memory
    // of this one walk.
    unsafe {
        let cache = maps::DIRECTORIES.get_or_insert_ptr_mut(inode.cast_mut().cast(), None);
        if cache.is_null() {
            return;
        }
        let id = place_id(subject, place, inode);
        let policy = (*subject.policy).id;
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
        let name = pointer(dentry, &object::DENTRY_NAME);
        let len = u64::from(number::<u32>(dentry, &object::DENTRY_LEN));
        let mut state = u64::from(state);
        // Only for the first automaton: most policies have no other, and each copy of this loop costs
        // time at load.
        if group == 0 && name as u64 == dentry.add(object::DENTRY_INLINE.get()) as u64 && len <= INLINE {
            // The name lies in the dentry: plain loads, eight bytes at a time, no helper.
            let class = class_table(subject.policy, group);
            let mut i = 0u64;
            let mut word = 0u64;
            let mut at = 0usize;
            while i < INLINE {
                if i >= len || state & u64::from(STATE_SETTLED) != 0 {
                    break;
                }
                if i & 7 == 0 {
                    word =
                        core::ptr::read_volatile(dentry.add(object::DENTRY_INLINE.get() + at).cast::<u64>());
                    at += 8;
                }
                state = step(arena, class, state, word as u8);
                word >>= 8;
                i += 1;
            }
        } else {
            let sc = maps::SCRATCH.of_current_or_new();
            if sc.is_null() {
                return None;
            }
            // Through memory: newer kernels type `name` as a pointer, a global function wants a number.
            core::ptr::write_volatile(&raw mut (*sc).address, name as u64);
            state = run_name(sc, subject.slot, group, state, len);
            if state == u64::MAX {
                return None;
            }
        }
        Some(state as u32)
    }
}

/// Whether a directory keeps all the rules below it under a name that ends in `new`.
#[inline(always)]
pub fn same_directory(subject: &Subject, old: &States, new: &States) -> bool {
    let arena = arena();
    if arena.is_null() || subject.policy.is_null() {
        return false;
    }
    // SAFETY: map values.
    unsafe {
        let groups = u64::from((*subject.policy).groups);
        let mut group = 0u64;
        while group < limits::GROUPS as u64 {
            if group >= groups {
                break;
            }
            let (a, b) = match group {
                0 => (old[0], new[0]),
                1 => (old[1], new[1]),
                _ => (old[2], new[2]),
            };
            let (below_a, below_b) = (
                slash(arena, subject.policy, group, u64::from(a)),
                slash(arena, subject.policy, group, u64::from(b)),
            );
            if below_a != below_b || masks(arena, a) != masks(arena, b) {
                return false;
            }
            group += 1;
        }
        true
    }
}
