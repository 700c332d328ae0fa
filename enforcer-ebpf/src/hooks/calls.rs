//! Rare system calls, when they are over: also those that failed before any other hook was asked. A layer of its own,
//! which decides nothing.
//!
//! The kernel checks a program against the function that it is for, so each function needs one of its own. That one does
//! no more than to see whether an agent's task runs, and goes on in another, which is verified once for all functions of
//! a kind. Outsiders pay for these calls only, and for that comparison.

use super::armed;
use crate::{
    emit,
    evidence::{self, Made},
    gate::{Side, side},
    maps, object, subject,
};
use aya_ebpf::{macros::fexit, maps::ProgramArray, programs::FExitContext};
use core::ptr::read_volatile;
use enforcer_common::calls::{ARGUMENTS, NARROW, NUMBERS, UNLISTED};

/// `struct pt_regs` (arch/x86/include/asm/ptrace.h).
const ORIG_AX: usize = 120;
/// di, si, dx, r10, r8, r9.
const WIDE: [usize; ARGUMENTS] = [112, 104, 96, 56, 72, 64];
/// bx, cx, dx, si, di, bp.
const NARROW_ONES: [usize; ARGUMENTS] = [40, 88, 96, 104, 112, 32];
/// `TS_COMPAT` (arch/x86/include/asm/thread_info.h).
const COMPAT: u32 = 2;
/// `__X32_SYSCALL_BIT`.
const X32: u64 = 0x4000_0000;

#[inline(always)]
fn go_on(ctx: &FExitContext, program: &ProgramArray) -> i32 {
    if side() != Side::Outside {
        // SAFETY: nothing here needs to be dropped.
        let _ = unsafe { program.tail_call(ctx, 0) };
        // Only if nothing stands there.
        emit::lose_activity(core::ptr::null());
    }
    0
}

macro_rules! ends {
    ($($name:ident $program:ident;)*) => {
        $(
            /// A call is over, in a function of this kind.
            #[fexit]
            pub fn $name(ctx: FExitContext) -> i32 {
                go_on(&ctx, &maps::$program)
            }
        )*
    };
}
ends! {
    call_ends_0 CALL_PROGRAM_0;
    call_ends_1 CALL_PROGRAM_1;
}

/// What these go on in. The function's one argument are the user's registers, which hold the call's.
#[fexit]
pub fn call_over(ctx: FExitContext) -> i32 {
    let Some(subject) = armed() else { return 0 };
    let (registers, result): (*const u8, i64) = (ctx.arg(0), ctx.arg(1));
    // SAFETY: the verifier knows the structure.
    let word = |at: usize| unsafe { read_volatile(registers.add(at).cast::<u64>()) };
    let narrow = object::number::<u32>(subject::task(), &object::TASK_STATUS) & COMPAT != 0;
    let number = (word(ORIG_AX) & !X32) as u32;
    let at = match (narrow, number) {
        (true, number) => number.wrapping_add(NARROW),
        (false, number) if number < NARROW => number,
        // One of x32's own.
        (false, _) => NUMBERS,
    };
    // A number without an entry: another call ends in the same function.
    let entry = maps::CALLS.get_ptr(at).map_or(0, |entry| {
        // SAFETY: a map value.
        unsafe { read_volatile(entry) }
    });
    let mut arguments = [0; ARGUMENTS];
    let mut i = 0;
    while i < ARGUMENTS {
        arguments[i] = if narrow { word(NARROW_ONES[i]) & 0xffff_ffff } else { word(WIDE[i]) };
        i += 1;
    }
    let text = match entry >> 8 & 0xff {
        1 => arguments[0],
        2 => arguments[1],
        3 => arguments[2],
        _ => 0,
    };
    let (place, number) = if entry == 0 { (UNLISTED, number) } else { ((entry & 0xff) - 1, entry >> 16) };
    let bits = if narrow { 32 } else { 64 };
    evidence::note(&subject, &Made { place, number, bits, result, arguments, text });
    0
}
