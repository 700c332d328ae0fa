//! The floor: what no session does unless its policy names it, in any mode.

use super::armed;
use crate::{
    call,
    emit::{Denial, refuse},
    object,
    verifier::errno,
};
use aya_ebpf::{macros::lsm, programs::LsmContext};
use enforcer_common::{
    event::{operation, reason},
    floor,
};

macro_rules! floor_hook {
    ($(#[$doc:meta])* $hook:ident, $operation:ident) => {
        floor_hook!($(#[$doc])* $hook, $operation, 0);
    };
    ($(#[$doc:meta])* $hook:ident, $operation:ident, $item:expr) => {
        $(#[$doc])*
        #[lsm]
        pub fn $hook(_ctx: LsmContext) -> i32 {
            let Some(subject) = armed() else { return 0 };
            if $item != 0 && subject.has($item) {
                return 0;
            }
            let mut denial = Denial::of(operation::$operation, reason::FLOOR, 0);
            denial.check = call::HOOK;
            errno(refuse(&subject, &denial))
        }
    };
}

floor_hook!(
    /// Mounting.
    sb_mount, MOUNT);
floor_hook!(
    /// Unmounting, which may uncover something.
    sb_umount, UNMOUNT);
floor_hook!(
    /// Another root for the mount namespace.
    sb_pivotroot, PIVOT_ROOT);
floor_hook!(
    /// Moving or attaching a mount.
    move_mount, MOVE_MOUNT);
floor_hook!(
    /// Another root for names.
    path_chroot, CHROOT);
floor_hook!(
    /// A user namespace, and with it capabilities over new objects.
    userns_create, USER_NAMESPACE);
floor_hook!(
    /// Programs, maps and links, ours among them.
    bpf, BPF);
floor_hook!(
    /// Performance events: they read other tasks and the kernel.
    perf_event_open, PERF);
floor_hook!(
    /// The clock.
    settime, CLOCK, floor::CLOCK);

floor_hook!(
    /// The kernel's log, which can show addresses and what others do.
    syslog, SYSLOG, floor::KERNEL_LOG);

/// Modules that the kernel loads because somebody uses what they are for: it runs a program as root for that, outside
/// of every cgroup of agents (`call_modprobe()`, kernel/module/kmod.c).
#[lsm(hook = "kernel_module_request")]
pub fn kernel_module_request(_ctx: LsmContext) -> i32 {
    let Some(subject) = armed() else { return 0 };
    let mut denial = Denial::of(operation::MODULE, reason::FLOOR, 0);
    // One use can ask for several names.
    denial.check = call::REPEATED;
    errno(refuse(&subject, &denial))
}

/// Capabilities that act on the agent's own files and identity. All others reach further.
const HARMLESS: u64 = bit(0) // CHOWN
    | bit(1) // DAC_OVERRIDE
    | bit(3) // FOWNER
    | bit(4) // FSETID
    | bit(5) // KILL: task_kill decides
    | bit(6) // SETGID
    | bit(7) // SETUID
    | bit(8) // SETPCAP
    | bit(10); // NET_BIND_SERVICE: socket_bind decides

/// `CAP_DAC_READ_SEARCH`.
const DAC_READ_SEARCH: i32 = 2;
/// `CAP_SYS_RESOURCE`.
const SYS_RESOURCE: i32 = 24;
/// `CAP_SYS_TIME`.
const SYS_TIME: i32 = 25;
/// `CAP_SYSLOG`.
const SYSLOG: i32 = 34;

const fn bit(capability: u32) -> u64 {
    1 << capability
}

/// The backstop for everything that only a capability guards.
#[lsm(hook = "capable")]
pub fn capable(ctx: LsmContext) -> i32 {
    let (capability, options): (i32, u32) = (ctx.arg(2), ctx.arg(3));
    if capability < 64 && HARMLESS >> (capability as u32 & 63) & 1 != 0 {
        return 0;
    }
    let Some(subject) = armed() else { return 0 };
    // Whether the others' credentials have it is for the kernel to say. Rings let their users act with
    // credentials that they had before.
    if subject.acts_for_others() {
        return 0;
    }
    let granted = match capability {
        SYS_TIME => subject.has(floor::CLOCK),
        SYSLOG => subject.has(floor::KERNEL_LOG),
        // Limits can be granted. That a process names another executable as its own cannot: records, and rules about
        // who executes what, would believe it.
        SYS_RESOURCE if call::changes_what_it_looks_like() => false,
        _ => subject.may_use(capability as u32),
    };
    if granted {
        return 0;
    }
    // CAP_OPT_NOAUDIT: the kernel only wants to know, as it does on every fork; a refusal is part of
    // ordinary life and no attempt (include/linux/security.h).
    const NOAUDIT: u32 = 1 << 1;
    // Without it, root's reading and searching goes on by another capability; by itself it opens files
    // by their handles.
    let in_passing = capability == DAC_READ_SEARCH && !call::opens_by_handle();
    if options & NOAUDIT != 0 || in_passing {
        return errno(true);
    }
    let mut denial = Denial::of(operation::CAPABILITY, reason::FLOOR, capability as u32);
    denial.check = bit(capability as u32 & 63);
    errno(refuse(&subject, &denial))
}

/// Rings: their workers act without passing the agent's hooks in a way that a hold could stop.
#[lsm(hook = "inode_init_security_anon")]
pub fn inode_init_security_anon(ctx: LsmContext) -> i32 {
    let Some(subject) = armed() else { return 0 };
    if subject.has(floor::IO_URING) {
        subject.note_ring();
        return 0;
    }
    let name = object::pointer(ctx.arg(1), &object::QSTR_NAME) as u64;
    // A name that cannot be read could be that name.
    match object::peek::<[u8; 10]>(name) {
        Some(text) if text != *b"[io_uring]" => 0,
        _ => errno(refuse(&subject, &Denial::of(operation::IO_URING, reason::FLOOR, 0))),
    }
}
