//! Crashes: the kernel may start a program for the core dump, or connect to a socket, outside, as root, and hand over what
//! the agent had in its memory (`core_pattern`, core(5)).

use super::{armed, floor};
use crate::{
    emit::{Denial, refuse},
    object::{self, peek},
    subject,
    verifier::errno,
};
use aya_ebpf::{macros::lsm, programs::LsmContext};
use enforcer_common::event::operation;

/// Before a core is dumped the kernel prepares credentials for it, and leaves it if it gets none (`do_coredump()`,
/// fs/coredump.c). It is the only hook on the way. Everybody else who prepares credentials has no deadly signal yet.
#[lsm(hook = "cred_prepare")]
pub fn cred_prepare(_: LsmContext) -> i32 {
    /// `PF_SIGNALED` (include/linux/sched.h), set before a dump (`get_signal()`, kernel/signal.c).
    const SIGNALED: u32 = 0x400;
    /// `CAP_SYS_RESOURCE`, which is for limits, that of core dumps among them.
    const LIMITS: u32 = 24;
    let task = subject::task();
    if object::number::<u32>(task, &object::TASK_FLAGS) & SIGNALED == 0 {
        return 0;
    }
    let Some(subject) = armed() else { return 0 };
    if subject.may_use(LIMITS) || !goes_outside(task) {
        return 0;
    }
    errno(refuse(&subject, &Denial::of(operation::CORE_DUMP, floor(&subject), 0)))
}

/// Whether a dump is handed to somebody. Also where that cannot be told.
#[inline(always)]
fn goes_outside(task: *const u8) -> bool {
    /// `RLIMIT_CORE` (include/uapi/asm-generic/resource.h), of pairs of words.
    const CORE: u64 = 4 * 16;
    let pattern = object::CORE_PATTERN.get() as u64;
    let first = if pattern == 0 { None } else { peek::<u64>(pattern).map(|word| word as u8) };
    match first {
        // One byte is what the kernel takes for "not at all" where a pipe is concerned; every other limit it ignores.
        Some(b'|') => {
            let limits =
                object::pointer(task, &object::TASK_SIGNAL) as u64 + object::SIGNAL_LIMITS.get() as u64;
            peek::<u64>(limits + CORE) != Some(1)
        }
        // A file, which is the agent's own to open.
        Some(first) => first == b'@',
        None => true,
    }
}
