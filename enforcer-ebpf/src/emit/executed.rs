//! Records of new programs, with their arguments.

use super::{HEADER, RECORD_END, RECORD_MASK, lose_activity, name_session, ring, send, start};
use crate::{
    maps, object, path,
    subject::{self, Subject},
    verifier::below,
};
use aya_ebpf::helpers::generated::{bpf_loop, bpf_probe_read_user};
use core::ffi::c_void;
use enforcer_common::event::{ARGUMENTS_FIRST, ARGUMENTS_MORE, ARGUMENTS_ROUNDS, Header, kind};

/// Records that the running task has been given a new program, with its arguments: as many records as they take.
#[inline(always)]
pub fn executed(subject: &Subject) {
    let sc = maps::SCRATCH.of_current_or_new();
    let record = maps::RECORDS.of_current_or_new();
    if sc.is_null() || record.is_null() {
        lose_activity(subject.session);
        return;
    }
    // SAFETY: neither is null; the kernel has just written the new image's arguments, and nothing of it has run.
    unsafe {
        core::ptr::write_volatile(&raw mut (*sc).dentry, 0);
        let mm = object::pointer(subject::task(), &object::TASK_MM);
        let from: u64 = object::number(mm, &object::MM_ARGUMENTS);
        let end: u64 = object::number(mm, &object::MM_ARGUMENTS_END);
        let length = end.saturating_sub(from);
        let header = start(sc, record, kind::EXECUTED);
        name_session(header, subject.session);
        if !subject.policy.is_null() {
            header.policy = (*subject.policy).id;
        }
        header.argument = length as u32;
        let first = if length < ARGUMENTS_FIRST as u64 { length } else { ARGUMENTS_FIRST as u64 };
        let Some(size) = below::<{ 2 * ARGUMENTS_FIRST as i32 - 1 }>(first, ARGUMENTS_FIRST as u64 + 1)
        else {
            lose_activity(subject.session);
            return;
        };
        let to = record.cast::<u8>().add(HEADER as usize);
        if bpf_probe_read_user(to.cast(), size as u32, from as *const _) == 0 {
            header.target_len = size as u16;
            core::ptr::write_volatile(&raw mut (*sc).used, HEADER + size);
        }
        if send(sc, 1) != 0 {
            lose_activity(subject.session);
            return;
        }
        if length > ARGUMENTS_FIRST as u64 {
            (*sc).address = from;
            (*sc).render.room = length;
            let mut round = path::Round { sc };
            bpf_loop(ARGUMENTS_ROUNDS as u32, arguments_round as *mut c_void, (&raw mut round).cast(), 0);
        }
    }
}

/// More of the arguments. 1 ends the loop.
extern "C" fn arguments_round(number: u32, round: *mut path::Round) -> i64 {
    // SAFETY: the scratch is not null; every size is bounded before it is used.
    unsafe {
        let sc = (*round).sc;
        let record = maps::RECORDS.of_current();
        let done = ARGUMENTS_FIRST as u64 + ARGUMENTS_MORE as u64 * u64::from(number);
        let length = (*sc).render.room;
        if record.is_null() || length <= done {
            return 1;
        }
        let rest = length - done;
        let rest = if rest < ARGUMENTS_MORE as u64 { rest } else { ARGUMENTS_MORE as u64 };
        let Some(size) = below::<{ 2 * ARGUMENTS_MORE as i32 - 1 }>(rest, ARGUMENTS_MORE as u64 + 1) else {
            return 1;
        };
        // Who, when and where stand there already.
        let header = record.cast::<Header>();
        let to = record.cast::<u8>().add(HEADER as usize);
        if bpf_probe_read_user(to.cast(), size as u32, ((*sc).address + done) as *const _) != 0 {
            return 1;
        }
        (*header).kind = kind::ARGUMENTS;
        (*header).argument = done as u32;
        (*header).exe_len = 0;
        (*header).target_len = size as u16;
        (*header).length = (HEADER + size) as u32;
        let Some(used) = below::<RECORD_MASK>(HEADER + size, RECORD_END) else { return 1 };
        let bytes = core::slice::from_raw_parts(record.cast::<u8>(), used as usize);
        // What is missing is told from the length that the first record says.
        i64::from(!ring::put(header, bytes, 1))
    }
}
