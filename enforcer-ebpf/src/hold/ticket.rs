//! One call can meet several checks: of a script and of its interpreter, of creating a file and of opening it. One
//! of them uses the grant up; for the others the call has a ticket.

use crate::{call, gate::is_replaced, maps, object};
use enforcer_common::{
    event::{Header, operation},
    scratch::{Scratch, TICKETS},
};

/// Whether the tickets are those of the running call; if not, there are none from now on.
#[inline(always)]
unsafe fn of_this_call(sc: *mut Scratch) -> bool {
    // SAFETY: map memory.
    unsafe {
        let kept = (&raw mut (*sc).asking.registers).cast::<u64>();
        if call::is_same(sc, kept) {
            return true;
        }
        (*sc).asking.count = 0;
        false
    }
}

/// Whether the call has a ticket for what the record in the making asks for.
#[inline(never)]
#[unsafe(no_mangle)]
pub extern "C" fn passes(sc: *mut Scratch) -> u64 {
    let record = maps::RECORDS.of_current();
    if sc.is_null() || record.is_null() {
        return 0;
    }
    // SAFETY: map memory.
    unsafe {
        if !of_this_call(sc) {
            return 0;
        }
        let header = record.cast::<Header>();
        let asking = &raw mut (*sc).asking;
        let mut i = 0;
        while i < TICKETS {
            if i as u64 >= (*asking).count {
                break;
            }
            let ticket = &raw mut (*asking).ticket[i];
            i += 1;
            if (*ticket).names[0] != (*asking).names[0] || (*ticket).names[1] != (*asking).names[1] {
                continue;
            }
            if (*ticket).operation == u32::from((*header).operation) {
                if !same_object(asking, ticket) || (*header).access & !(*ticket).access != 0 {
                    continue;
                }
                if (*ticket).again == 0 && !is_replaced() {
                    // The same check again: another call with the same registers.
                    (*asking).count = 0;
                    return 0;
                }
                (*ticket).again = 0;
                return 1;
            }
            let made = (*ticket).operation == u32::from(operation::CREATE) && (*asking).created != 0;
            if made || same_object(asking, ticket) && (*header).access & !(*ticket).access == 0 {
                return 1;
            }
        }
        0
    }
}

#[inline(always)]
unsafe fn same_object(
    asking: *const enforcer_common::scratch::Asking,
    ticket: *const enforcer_common::scratch::Ticket,
) -> bool {
    // SAFETY: map memory.
    unsafe { (*ticket).object[0] == (*asking).words[8] && (*ticket).object[1] == (*asking).words[9] }
}

/// Gives the call a ticket for what was granted.
#[inline(always)]
pub unsafe fn give(sc: *mut Scratch) {
    let record = maps::RECORDS.of_current();
    if record.is_null() {
        return;
    }
    // SAFETY: map memory.
    unsafe {
        let header = record.cast::<Header>();
        let asking = &raw mut (*sc).asking;
        let count = (*asking).count;
        // A call with more is asked about once more.
        if count >= TICKETS as u64 {
            return;
        }
        let ticket = (&raw mut (*asking).ticket)
            .cast::<enforcer_common::scratch::Ticket>()
            .add(crate::verifier::bound::<{ TICKETS as i32 - 1 }>(count) as usize);
        (*ticket).names = (*asking).names;
        (*ticket).object = [(*asking).words[8], (*asking).words[9]];
        (*ticket).operation = u32::from((*header).operation);
        (*ticket).access = (*header).access;
        (*ticket).again = 0;
        (*asking).count = count + 1;
    }
}

/// The call has to wait: what it was granted already counts when it is judged again.
#[inline(always)]
pub unsafe fn keep(sc: *mut Scratch) {
    // SAFETY: map memory.
    unsafe {
        let asking = &raw mut (*sc).asking;
        let mut i = 0;
        while i < TICKETS {
            (*asking).ticket[i].again = 1;
            i += 1;
        }
    }
}

/// Whether a person has approved that the running call executes the file whose dentry stands in the
/// scratch: then its program may be mapped.
#[inline(never)]
#[unsafe(no_mangle)]
pub extern "C" fn approves_program(sc: *mut Scratch) -> u64 {
    if sc.is_null() {
        return 0;
    }
    // SAFETY: map memory; kernel memory through `peek`.
    unsafe {
        if !call::is_same_exec(sc, (&raw const (*sc).asking.registers).cast::<u64>()) {
            return 0;
        }
        let dentry = core::ptr::read_volatile(&raw const (*sc).address);
        let Some(inode) = object::peek::<u64>(dentry + object::DENTRY_INODE.get() as u64) else { return 0 };
        let Some(sb) = object::peek::<u64>(inode + object::INODE_SB.get() as u64) else { return 0 };
        let Some(device) = object::peek::<u32>(sb + object::SB_DEVICE.get() as u64) else { return 0 };
        let Some(number) = object::peek::<u64>(inode + object::INODE_NUMBER.get() as u64) else { return 0 };
        let asking = &raw mut (*sc).asking;
        let mut i = 0;
        while i < TICKETS {
            let ticket = &raw const (*asking).ticket[i];
            if (i as u64) < (*asking).count
                && (*ticket).operation == u32::from(operation::EXEC)
                && (*ticket).object[0] == u64::from(device)
                && (*ticket).object[1] == number
            {
                return 1;
            }
            i += 1;
        }
    }
    0
}
