//! Rare system calls that LSM hooks see late, only as a capability, or not at all. They leave a record with their
//! arguments when they are over, also where they failed before any hook was asked. Nothing is decided here, and nothing
//! relies on it.

use super::armed;
use crate::emit;
use aya_ebpf::{macros::fexit, programs::FExitContext};
use core::ptr::read_volatile;

/// The function's one argument are the user's registers, which hold the call's.
#[inline(always)]
fn tell(ctx: &FExitContext, number: u32) -> i32 {
    let Some(subject) = armed() else { return 0 };
    let (registers, result): (*const u8, i64) = (ctx.arg(0), ctx.arg(1));
    // `struct pt_regs` (arch/x86/include/asm/ptrace.h): di, si, dx, r10, r8, r9.
    let word = |at: usize| {
        // SAFETY: the verifier knows the structure.
        unsafe { read_volatile(registers.add(at).cast::<u64>()) }
    };
    let arguments = [word(112), word(104), word(96), word(56), word(72), word(64)];
    emit::system_call(&subject, number, result, &arguments);
    0
}

macro_rules! programs {
    ($($program:ident, $function:literal, $number:literal, $name:literal, $arguments:literal;)*) => {
        $(
            #[doc = concat!("`", $name, "` is over.")]
            #[fexit(function = $function)]
            pub fn $program(ctx: FExitContext) -> i32 {
                tell(&ctx, $number)
            }
        )*
    };
}
enforcer_common::recorded_calls!(programs);
