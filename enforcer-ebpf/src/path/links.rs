//! What rules say about an object because of the other names that it has: a file with several hard links is
//! refused under each of them what a rule refuses under one.
//!
//! Which objects have such a name is for the daemon to find out; the programs look only where the policy in
//! force has any such object and the link count is above one.

use super::{States, masks_of};
use crate::{
    maps,
    object::{self, number, peek, pointer},
    subject::Subject,
    verifier::anew,
};
use enforcer_common::{
    map::{LinkKey, Masks, Policy},
    scratch::Scratch,
};

/// Whether the object at `dentry` may have another name that counts.
#[inline(always)]
pub fn may_have_others(subject: &Subject, dentry: *const u8) -> bool {
    let policy = anew(subject.policy);
    // SAFETY: a map value.
    if policy.is_null() || unsafe { core::ptr::read_volatile(&raw const (*policy).links) } == 0 {
        return false;
    }
    let inode = pointer(dentry, &object::DENTRY_INODE);
    !inode.is_null() && number::<u32>(inode, &object::INODE_LINKS) > 1 && !object::is_directory(inode)
}

/// What rules deny and hold under other names of an object, as words of 16 bits: the denied operations, then the
/// held ones of each tier. Zero: nothing.
pub type Others = u64;

/// What is known of the object at `dentry` because of its other names.
#[inline(always)]
pub fn other_names(subject: &Subject, dentry: *const u8) -> Others {
    if may_have_others(subject, dentry) { known(subject, dentry as u64) } else { 0 }
}

/// As [`other_names`], of a dentry that the verifier does not know.
#[inline(always)]
pub fn known(subject: &Subject, dentry: u64) -> Others {
    let sc = maps::SCRATCH.of_current_or_new();
    if sc.is_null() {
        return EVERYTHING;
    }
    // SAFETY: not null. Through memory: newer kernels type it as a pointer, a global function wants a number.
    unsafe { core::ptr::write_volatile(&raw mut (*sc).address, dentry) };
    find_link(sc, subject.slot)
}

/// Everything is denied.
const EVERYTHING: Others = 0xffff;

/// Looks for the object whose dentry is at `sc.address`; where it is known, `sc.object` is where the automata end
/// after that other name. Of one that cannot be read everything is denied.
#[inline(never)]
#[unsafe(no_mangle)]
pub extern "C" fn find_link(sc: *mut Scratch, slot: u32) -> Others {
    if sc.is_null() {
        return EVERYTHING;
    }
    // SAFETY: `sc` is the task's scratch; map values.
    unsafe {
        let Some(policy) = maps::POLICIES.get_ptr(slot) else { return EVERYTHING };
        if (*policy).links == 0 {
            return 0;
        }
        let Some(inode) = peek::<u64>((*sc).address + object::DENTRY_INODE.get() as u64) else {
            return EVERYTHING;
        };
        // A name that does not exist yet.
        if inode == 0 {
            return 0;
        }
        // Kept there: a further register of this function takes stack, of which old verifiers let its callers have no more.
        core::ptr::write_volatile(&raw mut (*sc).object[3], (*policy).links);
        let Some(key) = key_of(inode, (*policy).id) else { return EVERYTHING };
        let Some(found) = maps::LINKS.get_ptr(key) else {
            let links = core::ptr::read_volatile(&raw const (*sc).object[3]);
            return if links == Policy::ALL_LINKS { EVERYTHING } else { 0 };
        };
        (*sc).object = [(*found).states[0], (*found).states[1], (*found).states[2], 0];
        let Masks { allow: _, hold, deny, set: _ } = (*found).masks;
        u64::from(deny) | u64::from(hold[0]) << 16 | u64::from(hold[1]) << 32 | u64::from(hold[2]) << 48
    }
}

/// Whether removing the name of the object at `dentry`, which ends in `states`, takes from the object what rules deny or
/// hold because of it: there are other names left, and they are asked about no longer where it has one.
#[inline(always)]
pub fn loses_rules(subject: &Subject, dentry: *const u8, states: &States) -> bool {
    if !may_have_others(subject, dentry) {
        return false;
    }
    let sc = maps::SCRATCH.of_current_or_new();
    if sc.is_null() {
        return true;
    }
    // SAFETY: not null. Through memory: newer kernels type it as a pointer, a global function wants a number.
    unsafe { core::ptr::write_volatile(&raw mut (*sc).address, dentry as u64) };
    loses(sc, subject.slot, u64::from(states[0]) | u64::from(states[1]) << 32, states[2]) != 0
}

/// Whether the object whose dentry is at `sc.address` is known to have several names, and the one that ends in these
/// states is denied or held something. A function of its own, since older verifiers bound the stack of its callers.
#[inline(never)]
#[unsafe(no_mangle)]
pub extern "C" fn loses(sc: *mut Scratch, slot: u32, low: u64, high: u32) -> u64 {
    if sc.is_null() {
        return 1;
    }
    if find_link(sc, slot) == 0 {
        return 0;
    }
    let Some(policy) = maps::POLICIES.get_ptr(slot) else { return 1 };
    let own = masks_of(policy, &[low as u32, (low >> 32) as u32, high]);
    u64::from(own.deny | own.hold[0] | own.hold[1] | own.hold[2] != 0)
}

/// The rules that [`Others`] stands for.
#[inline(always)]
pub fn masks(others: Others) -> Masks {
    let hold = [(others >> 16) as u16, (others >> 32) as u16, (others >> 48) as u16];
    Masks { allow: [0; 3], hold, deny: others as u16, set: 0 }
}

#[inline(always)]
fn key_of(inode: u64, policy: u32) -> Option<LinkKey> {
    let block = peek::<u64>(inode + object::INODE_SB.get() as u64)?;
    let device = peek::<u32>(block + object::SB_DEVICE.get() as u64)?;
    let number = peek::<u64>(inode + object::INODE_NUMBER.get() as u64)?;
    Some(LinkKey { inode: number, device, policy })
}
