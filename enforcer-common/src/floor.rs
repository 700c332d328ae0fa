//! What a policy can change of the floor: items that it grants, capabilities, and what its own
//! processes may not do to each other.

/// Rings of system calls (`io_uring_setup`).
pub const IO_URING: u32 = 1 << 0;
/// Setting the clock.
pub const CLOCK: u32 = 1 << 1;
/// Reading the kernel's log.
pub const KERNEL_LOG: u32 = 1 << 2;
/// The keyrings that all processes of a user share.
pub const USER_KEYRINGS: u32 = 1 << 3;
/// Devices beside sinks, sources of bytes and terminals: rules name which.
pub const DEVICES: u32 = 1 << 4;

/// Every item of the floor that a policy can grant, with the word in policies.
pub const ITEMS: [(u32, &str); 5] = [
    (IO_URING, "io-uring"),
    (CLOCK, "clock"),
    (KERNEL_LOG, "kernel-log"),
    (USER_KEYRINGS, "user-keyrings"),
    (DEVICES, "devices"),
];

/// The session's processes do not trace each other, nor write to each other's memory.
pub const NO_TRACE: u32 = 1 << 16;

/// Capabilities that a policy can grant, by number and name without `cap_` (include/uapi/linux/capability.h).
/// The others lead past what rules can say: to the kernel's memory and code, to other processes, to
/// devices, to files by their handles, to other mounts.
pub const CAPABILITIES: [(u32, &str); 10] = [
    (9, "linux_immutable"),
    (11, "net_broadcast"),
    (14, "ipc_lock"),
    (19, "sys_ptrace"),
    (23, "sys_nice"),
    (24, "sys_resource"),
    (28, "lease"),
    (29, "audit_write"),
    (35, "wake_alarm"),
    (36, "block_suspend"),
];

/// What one policy changes.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Grants {
    /// Items of [`ITEMS`], and [`NO_TRACE`].
    pub floor: u32,
    /// Capabilities, a bit each.
    pub capabilities: u64,
    /// What is said of rare system calls.
    pub calls: crate::calls::Actions,
}
