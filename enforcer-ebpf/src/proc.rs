//! Whose is a file of proc? Most files about a process can be read by everybody, and say what others do: command lines,
//! status, cgroups, sockets. Those of the session's own tasks are judged by rules, all others are refused.

use crate::{
    net,
    object::{self, peek},
    path,
    subject::{self, Subject},
};
use enforcer_common::scratch::Scratch;

/// `PROC_SUPER_MAGIC`.
pub const PROC: u64 = 0x9fa0;
/// `PID_FS_MAGIC`.
pub const PIDFS: u64 = 0x5049_4446;

/// Whether the object is one of proc that belongs to a task outside the session, or a descriptor of such a process where
/// the kernel opens that as a file.
#[inline(always)]
pub fn is_others(subject: &Subject, inode: *const u8, dentry: *const u8) -> bool {
    match object::magic(inode) {
        PROC => belongs_to_others(subject, dentry as u64, false),
        PIDFS => belongs_to_others(subject, dentry as u64, true),
        _ => false,
    }
}

#[inline(always)]
fn belongs_to_others(subject: &Subject, dentry: u64, descriptor: bool) -> bool {
    let sc = path::begin(subject, 0, 0);
    if sc.is_null() || subject.session.is_null() {
        return true;
    }
    // SAFETY: neither is null; both are map values.
    unsafe {
        core::ptr::write_volatile(&raw mut (*sc).address, dentry);
        find_owner(sc, (*subject.session).cgroup, u64::from(descriptor)) != 0
    }
}

/// Looks for the task that the dentry at `sc.address` belongs to: its own, or that of the directory above that has one,
/// since the files of a process's network do not know theirs. Non-zero: it is not below the cgroup with the id
/// `session`, or cannot be told.
#[inline(never)]
#[unsafe(no_mangle)]
pub extern "C" fn find_owner(sc: *mut Scratch, session: u64, descriptor: u64) -> u64 {
    if sc.is_null() {
        return 1;
    }
    // SAFETY: `sc` is the task's scratch; kernel memory is read by `peek`.
    let mut dentry = unsafe { (*sc).address };
    for level in 0..16u64 {
        let Some(inode) = peek::<u64>(dentry + object::DENTRY_INODE.get() as u64) else { return 1 };
        if inode == 0 {
            return 1;
        }
        // `struct proc_inode` (fs/proc/internal.h) contains the inode, so its other members lie around it.
        let at = if descriptor != 0 {
            inode + object::INODE_PRIVATE.get() as u64
        } else {
            inode - object::PROC_INODE.get() as u64 + object::PROC_PID.get() as u64
        };
        let Some(pid) = peek::<u64>(at) else { return 1 };
        if pid != 0 {
            // A task that is gone has no file that could be read any more, but what lies below its directory may be of
            // somebody who lives on: its network is.
            return is_outside(sc, pid, session, u64::from(level != 0));
        }
        let Some(parent) = peek::<u64>(dentry + object::DENTRY_PARENT.get() as u64) else { return 1 };
        if parent == dentry {
            return descriptor;
        }
        dentry = parent;
    }
    1
}

/// Whether the task of the `struct pid` at `pid` is not below the cgroup with the id `session`.
///
/// By its cgroup rather than its label, which is found by trusted pointers only. A task of the session that somebody has
/// moved elsewhere is refused to its companions. `gone` is what is said of a task that has ended, or has not been born.
#[inline(always)]
pub fn is_outside(sc: *mut Scratch, pid: u64, session: u64, gone: u64) -> u64 {
    // numbers[0] is the id in the initial namespace.
    let Some(number) = peek::<u32>(pid + object::PID_NUMBERS.get() as u64) else { return 1 };
    if subject::is_current(number) {
        return 0;
    }
    // tasks[PIDTYPE_PID] and pid_links[PIDTYPE_PID] are the first of their arrays.
    let Some(link) = peek::<u64>(pid + object::PID_TASKS.get() as u64) else { return 1 };
    if link == 0 {
        // It gets no other task.
        return gone;
    }
    let task = link - object::TASK_PIDS.get() as u64;
    // A task that has ended keeps its cgroups until its parent has heard of that (`cgroup_free()`).
    let Some(set) = peek::<u64>(task + object::TASK_CGROUPS.get() as u64) else { return 1 };
    let Some(cgroup) = peek::<u64>(set + object::CSS_SET_CGROUP.get() as u64) else { return 1 };
    // SAFETY: `sc` is the task's scratch.
    unsafe { core::ptr::write_volatile(&raw mut (*sc).mount, cgroup) };
    u64::from(net::below_cgroup(sc, session) == 0)
}
