//! What a record shows beside the decision: the object's path, its other name, the processes above.

use super::{RECORD_END, RECORD_MASK};
use crate::{
    maps,
    object::{self, loosely},
    path, subject,
    verifier::{below, bound},
};
use aya_ebpf::helpers::generated::{bpf_loop, bpf_probe_read_kernel};
use core::ffi::c_void;
use enforcer_common::{
    event::{ABOVE, Header, flag},
    limits,
    scratch::{Component, RECORD_MAX, Render, Scratch},
};

/// The running process and those above, up to the first one of all. A function of its own, since what calls it has no room
/// on the stack.
#[inline(never)]
#[unsafe(no_mangle)]
pub extern "C" fn name_task() -> u64 {
    let record = maps::RECORDS.of_current();
    if record.is_null() {
        return 1;
    }
    // SAFETY: the record is map memory; loads lead from one task to the next.
    unsafe {
        let header = record.cast::<Header>();
        let task = subject::task();
        let mut above = loosely::follow(task, &object::TASK_PARENT);
        (*header).parent = loosely::small(above, &object::TASK_TGID);
        (*header).started = started(task);
        let mut i = 0;
        while i < ABOVE {
            let tgid = loosely::small(above, &object::TASK_TGID);
            if tgid == 0 {
                break;
            }
            let at = &raw mut (*header).above[i];
            core::ptr::write_volatile(&raw mut (*at).tgid, tgid);
            core::ptr::write_volatile(&raw mut (*at).started, started(above));
            if tgid == 1 {
                break;
            }
            above = loosely::follow(above, &object::TASK_PARENT);
            i += 1;
        }
    }
    0
}

/// When a task's process began.
#[inline(always)]
fn started(task: *const u8) -> u64 {
    loosely::large(loosely::follow(task, &object::TASK_LEADER), &object::TASK_START)
}

/// Puts the running program's file where [`climb_for_record`] begins.
#[inline(never)]
#[unsafe(no_mangle)]
pub extern "C" fn take_exe(sc: *mut Scratch) -> u64 {
    if sc.is_null() {
        return 1;
    }
    let exe = loosely::follow(loosely::follow(subject::task(), &object::TASK_MM), &object::MM_EXE);
    let at = exe.wrapping_add(object::FILE_PATH.get());
    // SAFETY: `sc` is the task's scratch.
    unsafe {
        core::ptr::write_volatile(&raw mut (*sc).mount, loosely::follow(at, &object::PATH_MOUNT) as u64);
        core::ptr::write_volatile(&raw mut (*sc).dentry, loosely::follow(at, &object::PATH_DENTRY) as u64);
    }
    0
}

/// Says in the record whether the object has another name that counts. Whether the rules for this or for that one
/// decided is for the reader to see.
#[inline(never)]
#[unsafe(no_mangle)]
pub extern "C" fn name_other(sc: *mut Scratch) -> u64 {
    let record = maps::RECORDS.of_current();
    if sc.is_null() || record.is_null() {
        return 0;
    }
    // SAFETY: `sc` is the task's scratch, `record` its record.
    unsafe {
        let header = record.cast::<Header>();
        (*sc).address = core::ptr::read_volatile(&raw const (*sc).dentry);
        (*header).flags &= !flag::OTHER_NAME;
        // Where nothing is known of the object no rules stand for it, and everything is refused.
        (*sc).object = [0; 4];
        if path::find_link(sc, core::ptr::read_volatile(&raw const (*sc).policy) as u32) != 0 {
            (*header).flags |= flag::OTHER_NAME;
            (*header).states = [(*sc).object[0], (*sc).object[1], (*sc).object[2]];
        }
    }
    0
}

/// The components for a name that is only shown.
#[inline(always)]
pub(super) unsafe fn climb_for_record(sc: *mut Scratch) -> u64 {
    path::climb(sc)
}

/// Appends the collected components to the record as a path, within `room` bytes. Non-zero: cut.
#[inline(never)]
#[unsafe(no_mangle)]
pub extern "C" fn render(sc: *mut Scratch, room: u64) -> u64 {
    let record = maps::RECORDS.of_current();
    if sc.is_null() || record.is_null() {
        return 1;
    }
    // SAFETY: `sc` is the task's scratch; the callback gets the address of a value that outlives the
    // call.
    unsafe {
        let first = core::ptr::read_volatile(&raw const (*sc).used);
        let count = core::ptr::read_volatile(&raw const (*sc).count);
        if count == 0 {
            let Some(at) = below::<RECORD_MASK>(first, RECORD_END) else { return 1 };
            record.cast::<u8>().add(at as usize).write_volatile(b'/');
            core::ptr::write_volatile(&raw mut (*sc).used, first + 1);
            return 0;
        }
        (*sc).render = Render { first, room, cut: 0 };
        let mut round = path::Round { sc };
        bpf_loop(count as u32, render_round as *mut c_void, (&raw mut round).cast(), 0);
        core::ptr::read_volatile(&raw const (*sc).render.cut)
    }
}

/// One component, the topmost first. 1 ends the loop.
extern "C" fn render_round(number: u32, round: *mut path::Round) -> i64 {
    // SAFETY: as in `render`; every offset is masked to the record, which has room for a name behind
    // the mask.
    unsafe {
        let sc = (*round).sc;
        let at = &mut (*sc).render;
        let record = maps::RECORDS.of_current();
        at.cut = 1;
        if record.is_null() {
            return 1;
        }
        let component = (&raw const (*sc).component).cast::<Component>();
        let index = (*sc).count - 1 - u64::from(number);
        let entry = component.add(bound::<{ limits::DEPTH as i32 - 1 }>(index) as usize);
        let len = bound::<255>((*entry).len);
        let used = (*sc).used;
        if used - at.first + len + 1 > at.room || used + len + 1 > RECORD_MAX as u64 {
            return 1;
        }
        let Some(position) = below::<RECORD_MASK>(used, RECORD_END) else { return 1 };
        let to = record.cast::<u8>().add(position as usize);
        to.write_volatile(b'/');
        if bpf_probe_read_kernel(to.add(1).cast(), len as u32, (*entry).name as *const _) != 0 {
            return 1;
        }
        (*sc).used = used + len + 1;
        at.cut = 0;
        0
    }
}
