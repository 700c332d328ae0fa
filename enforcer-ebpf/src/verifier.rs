//! Small things that only exist because of the verifier or the compiler in front of it.

use aya_ebpf::{EbpfContext, helpers::generated::bpf_get_func_arg, programs::LsmContext};
use core::arch::asm;

/// A hook's argument as a plain number, of whose type the verifier knows nothing.
#[inline(always)]
pub fn argument(ctx: &LsmContext, number: u32) -> Option<u64> {
    let mut value = 0u64;
    // SAFETY: the helper takes the context and writes one word.
    let read = unsafe { bpf_get_func_arg(ctx.as_ptr(), number, &raw mut value) };
    if read == 0 { Some(value) } else { None }
}

/// `x & MASK` on the very register that is used next. Written plainly, LLVM may prove the bound on
/// another copy and the verifier never sees it.
#[inline(always)]
pub fn bound<const MASK: i32>(mut x: u64) -> u64 {
    // SAFETY: one BPF ALU instruction on a register.
    unsafe { asm!("{0} &= {1}", inout(reg) x, const MASK, options(pure, nomem, nostack)) };
    x
}

/// `x` if it is below `END`, which is no power of two; else `None`.
#[inline(always)]
pub fn below<const MASK: i32>(x: u64, end: u64) -> Option<u64> {
    let x = bound::<MASK>(x);
    if x < end { Some(x) } else { None }
}

/// The same pointer, of which the compiler knows nothing: a check for null that follows stays where it is
/// written, on the register that is used. LLVM otherwise keeps the result of an earlier one as a number, which the
/// verifier does not connect with the pointer.
#[inline(always)]
pub fn anew<T>(mut pointer: *const T) -> *const T {
    // SAFETY: one BPF move of a register into itself. Without any instruction two lines of the source could begin at one,
    // which the kernel refuses.
    unsafe { asm!("{0} = {0}", inout(reg) pointer, options(pure, nomem, nostack)) };
    pointer
}

/// The difference of two kernel addresses, which is a plain number to the verifier.
#[inline(always)]
pub fn difference(a: *const u8, b: *const u8) -> u64 {
    let mut x = a as u64;
    // SAFETY: one BPF ALU instruction on registers.
    unsafe { asm!("{0} -= {1}", inout(reg) x, in(reg) b, options(pure, nomem, nostack)) };
    x
}

/// What an LSM program may return, as constants that the verifier can see: 0 or -EPERM. After a
/// call of a global function a result would otherwise be any number.
#[inline(always)]
pub fn errno(refused: bool) -> i32 {
    let value: i64;
    // SAFETY: one BPF move into a register.
    unsafe {
        if refused {
            asm!("{0} = -1", out(reg) value, options(nomem, nostack));
        } else {
            asm!("{0} = 0", out(reg) value, options(nomem, nostack));
        }
    }
    value as i32
}

/// What becomes of a call.
#[derive(Clone, Copy, PartialEq, Eq)]
pub enum Conclusion {
    /// It goes on.
    GoOn,
    /// It fails with `EPERM`.
    Refuse,
    /// It waits: the caller is stopped, and the kernel makes the call again when it goes on.
    Wait,
}

/// As [`errno`]: 0, -EPERM or -ERESTARTNOINTR (include/linux/errno.h).
#[inline(always)]
pub fn result(conclusion: Conclusion) -> i32 {
    let value: i64;
    // SAFETY: one BPF move into a register.
    unsafe {
        match conclusion {
            Conclusion::GoOn => asm!("{0} = 0", out(reg) value, options(nomem, nostack)),
            Conclusion::Refuse => asm!("{0} = -1", out(reg) value, options(nomem, nostack)),
            Conclusion::Wait => asm!("{0} = -513", out(reg) value, options(nomem, nostack)),
        }
    }
    value as i32
}

/// Takes `old` out of an aligned word and puts `new` there, if it still is `old`; returns what it was.
///
/// # Safety
/// `at` is an aligned word of a map value.
#[inline(always)]
pub unsafe fn compare_exchange(at: *mut u64, old: u64, new: u64) -> u64 {
    let found: u64;
    // SAFETY: as the caller promises; the verifier checks it again.
    unsafe {
        asm!("r0 = cmpxchg_64({0} + 0, r0, {1})", in(reg) at, in(reg) new, inout("r0") old => found, options(nostack));
    }
    found
}

/// Adds `amount` (wrapping, so a large one subtracts) to an aligned word, atomically: BPF_ATOMIC
/// without fetch, which Rust's atomics do not offer for this target.
///
/// # Safety
/// `counter` is an aligned word of a map value.
#[inline(always)]
pub unsafe fn atomic_add(counter: *mut u64, amount: u64) {
    // SAFETY: as the caller promises; the verifier checks it again.
    unsafe { asm!("lock *(u64 *)({0} + 0) += {1}", in(reg) counter, in(reg) amount, options(nostack)) };
}
