//! Rare system calls, when they are over: also those that failed before any other hook was asked. A layer of its own,
//! which decides nothing.
//!
//! Each function has a program, which does no more than to see whether an agent's task runs; they all go on in one,
//! which is verified once. Outsiders pay for these calls only, and for that comparison.

use super::armed;
use crate::{
    emit,
    evidence::{self, Made},
    maps, object,
    subject::{self, Side},
};
use aya_ebpf::{macros::fexit, programs::FExitContext};
use core::ptr::read_volatile;
use enforcer_common::calls::{ARGUMENTS, NARROW};

#[inline(always)]
fn over(ctx: &FExitContext) -> i32 {
    if subject::side() != Side::Outside {
        // SAFETY: nothing here needs to be dropped.
        unsafe { maps::CALL_PROGRAMS.tail_call(ctx, 0) };
        // Only if nothing stands there.
        emit::lose_activity(core::ptr::null());
    }
    0
}

macro_rules! programs {
    ($($wide:ident, $narrow:ident, $name:literal, $number:literal, $narrow_number:tt, $arguments:literal, $text:tt,
       $function:literal, $narrow_function:literal;)*) => {
        $(
            #[doc = concat!("`", $name, "` is over.")]
            #[fexit]
            pub fn $wide(ctx: FExitContext) -> i32 {
                over(&ctx)
            }

            #[doc = concat!("`", $name, "` of a 32-bit program is over.")]
            #[fexit]
            pub fn $narrow(ctx: FExitContext) -> i32 {
                over(&ctx)
            }
        )*
    };
}
enforcer_common::recorded_calls!(programs);

/// What all of them go on in. The function's one argument are the user's registers, which hold the call's.
#[fexit]
pub fn call_over(ctx: FExitContext) -> i32 {
    let Some(subject) = armed() else { return 0 };
    // `struct pt_regs` (arch/x86/include/asm/ptrace.h).
    const ORIG_AX: usize = 120;
    // di, si, dx, r10, r8, r9; bx, cx, dx, si, di, bp.
    const PLACES: [usize; ARGUMENTS] = [112, 104, 96, 56, 72, 64];
    const NARROW_PLACES: [usize; ARGUMENTS] = [40, 88, 96, 104, 112, 32];
    // `TS_COMPAT` (arch/x86/include/asm/thread_info.h), and `__X32_SYSCALL_BIT`.
    const COMPAT: u32 = 2;
    const X32: u64 = 0x4000_0000;
    let (registers, result): (*const u8, i64) = (ctx.arg(0), ctx.arg(1));
    // SAFETY: the verifier knows the structure.
    let word = |at: usize| unsafe { read_volatile(registers.add(at).cast::<u64>()) };
    let narrow = object::number::<u32>(subject::task(), &object::TASK_STATUS) & COMPAT != 0;
    let number = (word(ORIG_AX) & !X32) as u32;
    let at = if narrow { number.wrapping_add(NARROW) } else { number };
    // A number without an entry: another call ends in the same function.
    let entry = maps::CALLS.get_ptr(at).map_or(0, |entry| {
        // SAFETY: a map value.
        unsafe { read_volatile(entry) }
    });
    let mut arguments = [0; ARGUMENTS];
    let mut i = 0;
    while i < ARGUMENTS {
        arguments[i] = if narrow { word(NARROW_PLACES[i]) & 0xffff_ffff } else { word(PLACES[i]) };
        i += 1;
    }
    let text = match entry >> 8 & 0xff {
        1 => arguments[0],
        2 => arguments[1],
        3 => arguments[2],
        _ => 0,
    };
    let (place, number) = if entry == 0 { (63, number) } else { ((entry & 0xff) - 1, entry >> 16) };
    let bits = if narrow { 32 } else { 64 };
    evidence::note(&subject, &Made { place, number, bits, result, arguments, text });
    0
}
