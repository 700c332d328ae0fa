//! Changing what names stand for: mounts, roots, namespaces.

use super::{
    Act, Args,
    sys::{fd, in_child, open, sys},
};
use std::io;

const HERE: i32 = libc::AT_FDCWD;
const OPEN_TREE_CLONE: i32 = 1;
const MOVE_MOUNT_F_EMPTY_PATH: i32 = 4;
const MOVE_MOUNT_SET_GROUP: i32 = 0x100;
const AT_RECURSIVE: i32 = 0x8000;

pub(super) const ACTS: &[(&str, Act)] = &[
    ("mount-bind", mount_bind),
    ("mount-tmpfs", |a| sys!(SYS_mount, c"none", &a.text(0)?, c"tmpfs", 0, 0).map(drop)),
    ("mount-proc", |a| sys!(SYS_mount, c"none", &a.text(0)?, c"proc", 0, 0).map(drop)),
    ("mount-cgroup", |a| sys!(SYS_mount, c"none", &a.text(0)?, c"cgroup2", 0, 0).map(drop)),
    ("remount", |a| {
        sys!(SYS_mount, c"none", &a.text(0)?, c"none", libc::MS_REMOUNT | libc::MS_BIND, 0).map(drop)
    }),
    ("umount", |a| sys!(SYS_umount2, &a.text(0)?, libc::MNT_DETACH).map(drop)),
    ("unshare-mount", |_| unshare(libc::CLONE_NEWNS)),
    ("unshare-user", |_| unshare(libc::CLONE_NEWUSER)),
    ("unshare-user-mount", |_| unshare(libc::CLONE_NEWUSER | libc::CLONE_NEWNS)),
    ("unshare-net", |_| unshare(libc::CLONE_NEWNET)),
    ("unshare-pid", |_| unshare(libc::CLONE_NEWPID)),
    ("unshare-cgroup", |_| unshare(libc::CLONE_NEWCGROUP)),
    ("open-tree", open_tree),
    ("open-tree-plain", |a| fd!(SYS_open_tree, HERE, &a.text(0)?, 0).map(drop)),
    ("fsopen", |a| fd!(SYS_fsopen, &a.text(0)?, 0).map(drop)),
    ("fspick", |a| fd!(SYS_fspick, HERE, &a.text(0)?, 0).map(drop)),
    ("move-mount", |a| sys!(SYS_move_mount, HERE, &a.text(0)?, HERE, &a.text(1)?, 0).map(drop)),
    ("mount-setattr", mount_setattr),
    ("propagation", |a| sys!(SYS_mount, c"none", &a.text(1)?, c"none", propagation(a.str(0)?)?, 0).map(drop)),
    ("propagation-attr", propagation_attr),
    ("join-peers", |a| {
        sys!(SYS_move_mount, HERE, &a.text(0)?, HERE, &a.text(1)?, MOVE_MOUNT_SET_GROUP).map(drop)
    }),
    ("pivot-root", |a| sys!(SYS_pivot_root, &a.text(0)?, &a.text(1)?).map(drop)),
    ("chroot", |a| sys!(SYS_chroot, &a.text(0)?).map(drop)),
    ("setns", setns),
    ("setns-pidfd", setns_pidfd),
    ("open-tree-attach", open_tree_attach),
];

fn mount_bind(args: &Args<'_>) -> io::Result<()> {
    sys!(SYS_mount, &args.text(0)?, &args.text(1)?, 0, libc::MS_BIND, 0).map(drop)
}

/// In a child, so that the acts that follow are not in the new namespace.
fn unshare(flags: i32) -> io::Result<()> {
    in_child(|| sys!(SYS_unshare, flags).map(drop))
}

/// `open-tree DIR NAME`: a detached copy of the mount, and a file opened in it.
fn open_tree(args: &Args<'_>) -> io::Result<()> {
    let tree = fd!(SYS_open_tree, HERE, &args.text(0)?, OPEN_TREE_CLONE)?;
    fd!(SYS_openat, &tree, &args.text(1)?, libc::O_RDONLY, 0).map(drop)
}

/// `open-tree-attach DIR ONTO`
fn open_tree_attach(args: &Args<'_>) -> io::Result<()> {
    let tree = fd!(SYS_open_tree, HERE, &args.text(0)?, OPEN_TREE_CLONE)?;
    sys!(SYS_move_mount, &tree, c"", HERE, &args.text(1)?, MOVE_MOUNT_F_EMPTY_PATH).map(drop)
}

fn mount_setattr(args: &Args<'_>) -> io::Result<()> {
    // struct mount_attr: set, clear, propagation, userns_fd. Clears nosuid.
    let attributes: Vec<u8> = [0u64, 2, 0, 0].iter().flat_map(|word| word.to_ne_bytes()).collect();
    sys!(SYS_mount_setattr, HERE, &args.text(0)?, 0, &attributes, 32).map(drop)
}

/// `shared`, `slave`, `private` or `unbindable`; with an `r` in front, of all mounts below as well.
fn propagation(kind: &str) -> io::Result<libc::c_ulong> {
    let (kind, all) = match kind.strip_prefix('r') {
        Some(kind) => (kind, libc::MS_REC),
        None => (kind, 0),
    };
    match kind {
        "shared" => Ok(libc::MS_SHARED | all),
        "slave" => Ok(libc::MS_SLAVE | all),
        "private" => Ok(libc::MS_PRIVATE | all),
        "unbindable" => Ok(libc::MS_UNBINDABLE | all),
        _ => Err(super::usage("no such propagation")),
    }
}

/// `propagation-attr KIND DIR`: the same by `mount_setattr`.
fn propagation_attr(args: &Args<'_>) -> io::Result<()> {
    let kind = propagation(args.str(0)?)?;
    let flags = if kind & libc::MS_REC == 0 { 0 } else { AT_RECURSIVE };
    let attributes: Vec<u8> =
        [0, 0, kind & !libc::MS_REC, 0].iter().flat_map(|word: &u64| word.to_ne_bytes()).collect();
    sys!(SYS_mount_setattr, HERE, &args.text(1)?, flags, &attributes, 32).map(drop)
}

/// `setns PID KIND`: the namespace of another process by its file.
fn setns(args: &Args<'_>) -> io::Result<()> {
    let path = super::sys::text(format!("/proc/{}/ns/{}", args.str(0)?, args.str(1)?).as_ref())?;
    in_child(|| sys!(SYS_setns, &open(&path, libc::O_RDONLY, 0)?, 0).map(drop))
}

/// `setns-pidfd PID`: its mount namespace without opening a file.
fn setns_pidfd(args: &Args<'_>) -> io::Result<()> {
    let process = fd!(SYS_pidfd_open, args.number::<i32>(0)?, 0)?;
    in_child(|| sys!(SYS_setns, &process, libc::CLONE_NEWNS).map(drop))
}
