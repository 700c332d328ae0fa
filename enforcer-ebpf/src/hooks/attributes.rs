//! Times, extended attributes, access lists and flags. Their hooks know no mount, so no name. Each of
//! these calls asks to write to the mount just before (`mnt_want_write()`, fs/namespace.c): that one is
//! noted, and taken if it is of the object's file system.

use super::{armed, judge, unknown};
use crate::{
    emit::{self, Denial},
    maps,
    object::{self, pointer},
    path::Place,
    subject::{self, Subject},
    verifier::{Conclusion, result},
};
use aya_ebpf::{
    macros::{fentry, lsm},
    programs::{FEntryContext, LsmContext},
};
use enforcer_common::{access::file::METADATA, event::operation};

/// A task is going to write to a mount that it has the path of.
#[fentry(function = "mnt_want_write")]
pub fn mnt_want_write(ctx: FEntryContext) -> i32 {
    note(|| ctx.arg::<*const u8>(0));
    0
}

/// The same by an open file.
#[fentry(function = "mnt_want_write_file")]
pub fn mnt_want_write_file(ctx: FEntryContext) -> i32 {
    note(|| {
        let file: *const u8 = ctx.arg(0);
        pointer(file.wrapping_add(object::FILE_PATH.get()), &object::PATH_MOUNT)
    });
    0
}

/// Notes the mount for the hooks of agents' tasks. Whose task it is they ask themselves: whoever has working memory
/// is not asked here, since a note that nobody takes does no harm.
#[inline(always)]
fn note(mount: impl Fn() -> *const u8) {
    let task = subject::task();
    let mut sc = if subject::has_storage(task) { maps::SCRATCH.of(task) } else { core::ptr::null_mut() };
    if sc.is_null() {
        if armed().is_none() {
            return;
        }
        sc = maps::SCRATCH.of_current_or_new();
    }
    let mount = mount() as u64;
    if !sc.is_null() {
        // SAFETY: not null.
        unsafe { core::ptr::write_volatile(&raw mut (*sc).writing, mount) };
    }
}

/// Judges a change of what `dentry` is beside its content.
#[inline(always)]
fn change(subject: &Subject, dentry: *const u8, operation: u16) -> Conclusion {
    // An overlay that writes to its layer, whose own object was judged. A ring acts with credentials that it was given
    // too, and whoever may use one could borrow its own.
    if subject.acts_for_others() {
        return Conclusion::GoOn;
    }
    let sc = maps::SCRATCH.of_current_or_new();
    // SAFETY: not null where it is read.
    let mount = if sc.is_null() { 0 } else { unsafe { core::ptr::read_volatile(&raw const (*sc).writing) } };
    let inode = pointer(dentry, &object::DENTRY_INODE);
    let sb = object::peek::<u64>(mount + object::VFSMOUNT_SB.get() as u64);
    // An object that attributes are set of has an inode; the branch is for the verifier.
    let same = !inode.is_null() && sb == Some(pointer(inode, &object::INODE_SB) as u64);
    if mount == 0 || !same {
        let mut denial = Denial::of(operation, unknown(subject), 0);
        denial.access = METADATA;
        return emit::conclude(subject, &denial);
    }
    judge(subject, &Place::alone(dentry, mount as *const u8), operation, METADATA)
}

/// Times that a caller sets; others follow from writing. Modes, owners and sizes have hooks that know
/// the path.
const TIMES: u32 = 1 << 16 // ATTR_TIMES_SET
    | 1 << 17; // ATTR_TOUCH (include/linux/fs.h)

/// `utimensat` and its ancestors.
#[lsm(hook = "inode_setattr")]
pub fn inode_setattr(ctx: LsmContext) -> i32 {
    times(ctx.arg(0), ctx.arg(1))
}

/// The same on kernels whose hook knows the mount's mapping of users.
#[lsm(hook = "inode_setattr")]
pub fn inode_setattr_mapped(ctx: LsmContext) -> i32 {
    times(ctx.arg(1), ctx.arg(2))
}

#[inline(always)]
fn times(dentry: *const u8, attributes: *const u8) -> i32 {
    if object::number::<u32>(attributes, &object::IATTR_VALID) & TIMES == 0 {
        return 0;
    }
    let Some(subject) = armed() else { return 0 };
    result(change(&subject, dentry, operation::SETATTR))
}

macro_rules! change_hook {
    ($(#[$doc:meta])* $hook:ident, $operation:ident, $dentry:literal) => {
        $(#[$doc])*
        #[lsm]
        pub fn $hook(ctx: LsmContext) -> i32 {
            let Some(subject) = armed() else { return 0 };
            result(change(&subject, ctx.arg($dentry), operation::$operation))
        }
    };
}

change_hook!(
    /// Extended attributes, and on kernels before 6.2 access lists.
    inode_setxattr, XATTR, 1);
change_hook!(
    /// Taking one away.
    inode_removexattr, XATTR, 1);
change_hook!(
    /// Access lists.
    inode_set_acl, XATTR, 1);
change_hook!(
    /// Taking one away.
    inode_remove_acl, XATTR, 1);
change_hook!(
    /// `file_setattr`: flags, projects.
    inode_file_setattr, SETATTR, 0);
