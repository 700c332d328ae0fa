//! Tasks: labels are passed on, and companions are the only tasks that can be touched.

use super::{armed, floor};
use crate::{
    emit::{Denial, refuse},
    evidence, maps, object, subject,
    verifier::{argument, errno},
};
use aya_ebpf::{macros::lsm, programs::LsmContext};
use enforcer_common::{
    calls::NAMESPACES,
    event::{operation, reason},
    floor::NO_TRACE,
};

/// `CLONE_INTO_CGROUP` (include/uapi/linux/sched.h): the child would be born elsewhere.
const CLONE_INTO_CGROUP: u64 = 1 << 33;

/// `CLONE_PARENT`: the child would be the creator's sibling. The parent of a session's first process is
/// the daemon, which does not know such children and would never reap them.
const CLONE_PARENT: u64 = 0x8000;

/// The child inherits the label before it runs. A child that cannot be labelled is not born.
#[lsm(hook = "task_alloc")]
pub fn task_alloc(ctx: LsmContext) -> i32 {
    let Some(found) = subject::current() else { return 0 };
    let (child, flags): (*const u8, u64) = (ctx.arg(0), ctx.arg(1));
    if flags & (CLONE_INTO_CGROUP | CLONE_PARENT) != 0 && !found.launching() {
        return errno(refuse(&found, &Denial::of(operation::FORK, floor(&found), 0)));
    }
    if flags & NAMESPACES != 0 && !found.launching() {
        evidence::clone(&found, flags);
    }
    let own = maps::LABELS.of_current();
    if own.is_null() {
        // Nobody's task in a root: the child is born into the same cgroup, without rights as well.
        if found.session.is_null() && !subject::is_stray() {
            return 0;
        }
        return errno(refuse(&found, &Denial::of(operation::FORK, reason::INTERNAL, 0)));
    }
    // SAFETY: a map value, copied. The label of an ended session is passed on too.
    let label = unsafe { *own };
    if !maps::LABELS.set(child, &label).is_null() {
        return 0;
    }
    errno(refuse(&found, &Denial::of(operation::FORK, reason::INTERNAL, 0)))
}

/// Signals that a task sends.
#[lsm(hook = "task_kill")]
pub fn task_kill(ctx: LsmContext) -> i32 {
    let Some(subject) = armed() else { return 0 };
    // With credentials: for a device that somebody else waits for, in an interrupt of whatever task is running
    // (`kill_pid_usb_asyncio()`, kernel/signal.c), in the middle of whose own hooks that may be.
    if argument(&ctx, 3).is_some_and(|credentials| credentials != 0) {
        return 0;
    }
    // The number on most architectures (include/uapi/asm-generic/signal.h).
    const SIGCONT: i32 = 18;
    let (target, signal): (*const u8, i32) = (ctx.arg(0), ctx.arg(2));
    if subject::is_companion(&subject, target) {
        return 0;
    }
    // What waits for a verdict on its arguments may be ended, not sent on its way.
    if signal != SIGCONT && subject::is_waiting_companion(&subject, target) {
        return 0;
    }
    errno(refuse(&subject, &Denial::of(operation::SIGNAL, floor(&subject), signal as u32)))
}

/// Reading or changing another task: ptrace and everything that asks like it.
#[lsm(hook = "ptrace_access_check")]
pub fn ptrace_access_check(ctx: LsmContext) -> i32 {
    // `PTRACE_MODE_ATTACH` (include/linux/ptrace.h): more than reading.
    const ATTACH: u32 = 2;
    let Some(subject) = armed() else { return 0 };
    let (target, mode): (*const u8, u32) = (ctx.arg(0), ctx.arg(1));
    let companion = subject::is_companion(&subject, target);
    let denied = mode & ATTACH != 0 && subject.has(NO_TRACE);
    if companion && !denied {
        return 0;
    }
    let pid: u32 = object::number(target, &object::TASK_TGID);
    let why = if companion { reason::RULE } else { floor(&subject) };
    errno(refuse(&subject, &Denial::of(operation::PTRACE, why, pid)))
}

/// Asking to be traced by the parent, which may be outside.
#[lsm(hook = "ptrace_traceme")]
pub fn ptrace_traceme(ctx: LsmContext) -> i32 {
    let Some(subject) = armed() else { return 0 };
    let companion = subject::is_companion(&subject, ctx.arg(0));
    if companion && !subject.has(NO_TRACE) {
        return 0;
    }
    let why = if companion { reason::RULE } else { floor(&subject) };
    errno(refuse(&subject, &Denial::of(operation::PTRACE, why, 0)))
}

macro_rules! target_hook {
    ($(#[$doc:meta])* $hook:ident, $operation:ident) => {
        $(#[$doc])*
        #[lsm]
        pub fn $hook(ctx: LsmContext) -> i32 {
            let Some(subject) = armed() else { return 0 };
            let target: *const u8 = ctx.arg(0);
            if subject::is_companion(&subject, target) {
                return 0;
            }
            let pid: u32 = object::number(target, &object::TASK_TGID);
            errno(refuse(&subject, &Denial::of(operation::$operation, floor(&subject), pid)))
        }
    };
}

target_hook!(
    /// Resource limits of another task: a limit of zero stops a daemon as a signal does.
    task_setrlimit, LIMIT);
target_hook!(
    /// Scheduling class and CPU affinity.
    task_setscheduler, LIMIT);
target_hook!(
    /// Priority.
    task_setnice, LIMIT);
target_hook!(
    /// I/O priority.
    task_setioprio, LIMIT);

/// `F_SETOWN` and `F_SETOWN_EX`: whoever owns a descriptor gets signals when it is ready, sent by
/// whoever makes it so, without `task_kill` being asked. The hook for that (`file_send_sigiotask`) is of no use: it runs
/// in interrupts too, where the running task has nothing to do with it, and then in the middle of this task's own hooks,
/// whose working memory it would write to. `F_SETLEASE`: while a file is leased, others that want to write
/// to it, or to read it, wait; reading is enough to get one. `F_SETDELEG` (from 6.19 on) is the same under another
/// number, for directories too. Numbers behind it, which no supported kernel knows, are refused until somebody has
/// looked what they do.
#[lsm(hook = "file_fcntl")]
pub fn file_fcntl(ctx: LsmContext) -> i32 {
    const SET_OWNER: u32 = 8;
    const SET_OWNER_EX: u32 = 15;
    const SET_LEASE: u32 = 1024;
    /// `F_GETDELEG`, the last of Linux's own that only asks (include/uapi/linux/fcntl.h).
    const GET_DELEGATION: u32 = 1039;
    /// `CAP_LEASE`.
    const LEASE: u32 = 28;
    let command: u32 = ctx.arg(1);
    let leases = command == SET_LEASE || command > GET_DELEGATION;
    if !leases && !matches!(command, SET_OWNER | SET_OWNER_EX) {
        return 0;
    }
    let Some(subject) = armed() else { return 0 };
    if leases {
        let granted = subject.may_use(LEASE);
        return errno(!granted && refuse(&subject, &Denial::of(operation::LEASE, floor(&subject), 0)));
    }
    errno(refuse(&subject, &Denial::of(operation::SIGNAL_OWNER, floor(&subject), command)))
}
