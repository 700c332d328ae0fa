//! Whose is a pseudo terminal? Rules name `/dev/pts/N` because programs open their own by that name, and every terminal of
//! the host is called so: who may read and write another's sees what is typed there, and types.
//!
//! A session's own are those that control processes of it, and those that it has made and that control none.

use crate::{
    maps,
    object::{self, peek},
    path, proc,
    subject::Subject,
};
use enforcer_common::scratch::Scratch;

/// Whether the device is the user's side of a pseudo terminal that is not the session's.
#[inline(always)]
pub fn is_others(subject: &Subject, inode: *const u8, dentry: *const u8) -> bool {
    /// `DEVPTS_SUPER_MAGIC`. Elsewhere such a device opens nothing (`pts_unix98_lookup()`, drivers/tty/pty.c).
    const DEVPTS: u64 = 0x1cd1;
    if !object::is_pseudo_terminal(inode) {
        return false;
    }
    let sc = path::begin(subject, 0, 0);
    if sc.is_null() || subject.session.is_null() || object::magic(inode) != DEVPTS {
        return true;
    }
    // SAFETY: neither is null; both are map values.
    unsafe {
        core::ptr::write_volatile(&raw mut (*sc).address, dentry as u64);
        is_foreign(sc, (*subject.session).cgroup, (*subject.session).generation) != 0
    }
}

/// Whether an open file, which somebody hands over, is the maker's side of a pseudo terminal that is not the session's, or
/// `/dev/tty`, which is the terminal of whoever opened it.
#[inline(always)]
pub fn is_others_file(subject: &Subject, inode: *const u8, file: *const u8) -> bool {
    let (is_maker, is_tty) = object::terminal_by_file(inode);
    if !is_maker && !is_tty {
        return false;
    }
    let sc = path::begin(subject, 0, 0);
    if sc.is_null() || subject.session.is_null() || is_tty {
        return true;
    }
    // The name of the other side (`ptmx_open()`, drivers/tty/pty.c).
    let dentry = peek::<u64>(
        object::pointer(file, &object::FILE_PRIVATE) as u64 + object::TERMINAL_OF_FILE.get() as u64,
    )
    .and_then(|maker| peek::<u64>(maker + object::TERMINAL_LINK.get() as u64))
    .and_then(|user| peek::<u64>(user + object::TERMINAL_DRIVER.get() as u64));
    // SAFETY: neither is null; both are map values.
    unsafe {
        core::ptr::write_volatile(&raw mut (*sc).address, dentry.unwrap_or(0));
        is_foreign(sc, (*subject.session).cgroup, (*subject.session).generation) != 0
    }
}

/// Whether the terminal whose name in devpts is the dentry at `sc.address` is not that of the session with this cgroup
/// and generation. Non-zero as well where that cannot be told.
#[inline(never)]
#[unsafe(no_mangle)]
pub extern "C" fn is_foreign(sc: *mut Scratch, session: u64, generation: u64) -> u64 {
    if sc.is_null() {
        return 1;
    }
    // SAFETY: `sc` is the task's scratch; kernel memory is read by `peek`.
    let dentry = unsafe { (*sc).address };
    // The terminal (`devpts_pty_new()`, fs/devpts/inode.c), and the first process of those that it controls.
    let Some(terminal) = peek::<u64>(dentry + object::DENTRY_PRIVATE.get() as u64) else { return 1 };
    if terminal == 0 {
        return 1;
    }
    let Some(leader) = peek::<u64>(terminal + object::TERMINAL_SESSION.get() as u64) else { return 1 };
    // One that has just ended controls nothing any more.
    if leader != 0 && peek::<u64>(leader + object::PID_TASKS.get() as u64) != Some(0) {
        return proc::is_outside(sc, leader, session, 1);
    }
    let Some(inode) = peek::<u64>(dentry + object::DENTRY_INODE.get() as u64) else { return 1 };
    let Some(maker) = maps::IPC_OBJECTS.get_ptr(inode) else { return 1 };
    // SAFETY: a map value.
    u64::from(unsafe { *maker } != generation)
}
