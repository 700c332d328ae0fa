//! Which system call is running? One refused call leaves one record, though the kernel may ask several
//! hooks about it: for one capability, for another that would do as well, for the operation itself.
//!
//! System calls have no number of their own in the kernel. Two checks belong to one call if the user's
//! registers at its entry are the same, the second follows soon, and it is not a check that was made
//! already: that one begins a new call. What is left out is counted for the agent
//! ([`enforcer_common::map::Agent::same_call`]) and was refused all the same.

use crate::{object, subject};
use aya_ebpf::{
    bindings::task_struct,
    helpers::generated::{bpf_ktime_get_boot_ns, bpf_probe_read_kernel, bpf_task_pt_regs},
};
use enforcer_common::scratch::{CALL_REGISTERS, Scratch};

/// The check of a hook that is for one operation. Lower bits are capabilities.
pub const HOOK: u64 = 1 << 62;
/// A check that one call can meet many times.
pub const REPEATED: u64 = 1 << 61;

/// Longest time between two checks of one call, nanoseconds.
const SOON: u64 = 10_000_000;

/// Byte offsets in `struct pt_regs` (arch/x86/include/asm/ptrace.h), which is ABI: `dx`, the first of
/// the registers that are compared, and `orig_ax`, the number of the call.
const DX: usize = 96;
const SI: usize = 104;
const ORIG_AX: usize = 120;

#[inline(always)]
fn registers() -> u64 {
    // SAFETY: the helper takes the running task and returns where its registers lie.
    unsafe { bpf_task_pt_regs(subject::task() as *mut task_struct) as u64 }
}

/// Whether the running call is one that a refusal was recorded of already, so that a refusal by `check`
/// needs no record of its own; else makes it that one. A `check` of zero always has a record.
#[inline(never)]
#[unsafe(no_mangle)]
pub extern "C" fn is_recorded(sc: *mut Scratch, check: u64) -> u64 {
    if sc.is_null() {
        return 0;
    }
    // SAFETY: `sc` is the task's scratch.
    unsafe {
        let now = bpf_ktime_get_boot_ns();
        let call = &raw mut (*sc).call;
        let running = (&raw mut (*call).running).cast::<u64>();
        let recorded = (&raw mut (*call).registers).cast::<u64>();
        let from = (registers() + DX as u64) as *const _;
        let mut same = bpf_probe_read_kernel(running.cast(), 8 * CALL_REGISTERS as u32, from) == 0
            && now - (*call).at < SOON;
        let mut i = 0;
        while i < CALL_REGISTERS {
            let word = core::ptr::read_volatile(running.add(i));
            same &= word == core::ptr::read_volatile(recorded.add(i));
            core::ptr::write_volatile(recorded.add(i), word);
            i += 1;
        }
        if same && check != 0 && (*call).checks & check == 0 {
            (*call).checks |= check & !REPEATED;
            return 1;
        }
        (*call).checks = check & !REPEATED;
        (*call).at = now;
        0
    }
}

/// Whether the running call is the one whose registers were kept; keeps them from now on.
///
/// # Safety
/// `kept` has room for all registers.
#[inline(always)]
pub unsafe fn is_same(sc: *mut Scratch, kept: *mut u64) -> bool {
    // SAFETY: as the caller promises; the scratch is not null.
    unsafe {
        let running = (&raw mut (*sc).call.running).cast::<u64>();
        let from = (registers() + DX as u64) as *const _;
        let mut same = bpf_probe_read_kernel(running.cast(), 8 * CALL_REGISTERS as u32, from) == 0;
        let mut i = 0;
        while i < CALL_REGISTERS {
            let word = core::ptr::read_volatile(running.add(i));
            same &= word == core::ptr::read_volatile(kept.add(i));
            core::ptr::write_volatile(kept.add(i), word);
            i += 1;
        }
        same
    }
}

/// Whether the running call, which executes a program, is the one whose registers were kept. Its number is not
/// compared: the kernel makes `execve` of every such call (`set_personality_64bit()`, arch/x86/kernel/process_64.c).
///
/// # Safety
/// `kept` has all registers.
#[inline(always)]
pub unsafe fn is_same_exec(sc: *mut Scratch, kept: *const u64) -> bool {
    const NUMBER: usize = (ORIG_AX - DX) / 8;
    // SAFETY: as the caller promises; the scratch is not null.
    unsafe {
        let running = (&raw mut (*sc).call.running).cast::<u64>();
        let from = (registers() + DX as u64) as *const _;
        let mut same = bpf_probe_read_kernel(running.cast(), 8 * CALL_REGISTERS as u32, from) == 0;
        let mut i = 0;
        while i < CALL_REGISTERS {
            let equal = core::ptr::read_volatile(running.add(i)) == core::ptr::read_volatile(kept.add(i));
            same &= equal || i == NUMBER;
            i += 1;
        }
        same
    }
}

/// The number of the running system call, if it is one of the 64-bit table.
#[inline(always)]
fn number() -> Option<u32> {
    // `TS_COMPAT` (arch/x86/include/asm/thread_info.h): the number is of the 32-bit table. Those of x32 have a
    // bit of their own, which no number below has.
    const COMPAT: u32 = 2;
    if object::number::<u32>(subject::task(), &object::TASK_STATUS) & COMPAT != 0 {
        return None;
    }
    object::peek::<u32>(registers() + ORIG_AX as u64)
}

/// Whether the running call can be stopped and made again, without anything having happened: a system call of a
/// program's own thread that hands an error of the hook on as it is (each is tried in the tests,
/// arch/x86/entry/syscalls/syscall_64.tbl).
#[inline(always)]
pub fn can_wait() -> bool {
    // PF_EXITING, PF_IO_WORKER, PF_USER_WORKER, PF_KTHREAD (include/linux/sched.h).
    const NOT_A_PROGRAMS: u32 = 0x4 | 0x10 | 0x4000 | 0x20_0000;
    if object::number::<u32>(subject::task(), &object::TASK_FLAGS) & NOT_A_PROGRAMS != 0 {
        return false;
    }
    matches!(
        number(),
        Some(
            2 // open
            | 42 // connect
            | 44 // sendto
            | 46 // sendmsg
            | 49 // bind
            | 50 // listen
            | 59 // execve
            | 76 // truncate
            | 77 // ftruncate
            | 82..=88 // rename, mkdir, rmdir, creat, link, unlink, symlink
            | 90..=94 // chmod, fchmod, chown, fchown, lchown
            | 132 // utime
            | 133 // mknod
            | 188..=190 // setxattr and its like
            | 197..=199 // removexattr and its like
            | 235 // utimes
            | 257..=261 // openat, mkdirat, mknodat, fchownat, futimesat
            | 263..=266 // unlinkat, renameat, linkat, symlinkat
            | 268 // fchmodat
            | 280 // utimensat
            | 316 // renameat2
            | 322 // execveat
            | 437 // openat2
            | 452 // fchmodat2
        )
    )
}

/// What the running call will ask for when it has created its file: the access that its flags ask for, if it opens
/// one; everything, if that cannot be told.
#[inline(always)]
pub fn opening() -> u16 {
    use enforcer_common::access::file::{READ, WRITE};
    let at = match number() {
        // mknod, mknodat, and bind of a unix socket's name.
        Some(133 | 259 | 49) => return 0,
        // creat.
        Some(85) => return WRITE,
        Some(2) => SI,
        Some(257) => DX,
        _ => return READ | WRITE,
    };
    match object::peek::<u32>(registers() + at as u64).map(|flags| flags & object::OPEN_ACCESS) {
        Some(0) => READ,
        Some(1) => WRITE,
        _ => READ | WRITE,
    }
}

/// Whether the running system call opens or links a file by something else than its name:
/// `open_by_handle_at`, `linkat` with `AT_EMPTY_PATH` (arch/x86/entry/syscalls).
#[inline(always)]
pub fn opens_by_handle() -> bool {
    const OPEN_BY_HANDLE: u32 = 304;
    const OPEN_BY_HANDLE_32: u32 = 342;
    const LINK: u32 = 265;
    const LINK_32: u32 = 303;
    match entered() {
        Some((false, OPEN_BY_HANDLE | LINK) | (true, OPEN_BY_HANDLE_32 | LINK_32)) | None => true,
        Some(_) => false,
    }
}

/// Whether the running system call is `prctl`, which asks for `CAP_SYS_RESOURCE` where a process is to look like
/// another program (`prctl_set_mm()`, kernel/sys.c).
#[inline(always)]
pub fn changes_what_it_looks_like() -> bool {
    const PRCTL: u32 = 157;
    const PRCTL_32: u32 = 172;
    matches!(entered(), Some((false, PRCTL) | (true, PRCTL_32)) | None)
}

/// Whether the running system call is of the 32-bit table, and its number there or in the other one.
#[inline(always)]
fn entered() -> Option<(bool, u32)> {
    // `TS_COMPAT` (arch/x86/include/asm/thread_info.h): the number is of the 32-bit table.
    const COMPAT: u32 = 2;
    // `__X32_SYSCALL_BIT`.
    const X32: u32 = 0x4000_0000;
    let number = object::peek::<u32>(registers() + ORIG_AX as u64)?;
    let compat = object::number::<u32>(subject::task(), &object::TASK_STATUS) & COMPAT != 0;
    Some((compat, number & !X32))
}
