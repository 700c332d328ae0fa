//! Watching: what happens to a file, and which names come and go in a directory.

use super::{armed, is_nameless, judge_by};
use crate::{
    emit::{self, Denial},
    object::{self, pointer},
    path::{self, Place},
    proc,
    verifier::result,
};
use aya_ebpf::{macros::lsm, programs::LsmContext};
use enforcer_common::{
    access::file::{LIST, READ},
    event::{operation, reason},
};

/// inotify, fanotify and dnotify. Takes what opening the object would take.
#[lsm(hook = "path_notify")]
#[inline(always)]
pub fn path_notify(ctx: LsmContext) -> i32 {
    let Some(subject) = armed() else { return 0 };
    let place = Place::at(ctx.arg(0));
    let inode = pointer(place.dentry, &object::DENTRY_INODE);
    // What is watched has an inode; the branch is for the verifier.
    if inode.is_null() || proc::is_others(&subject, inode, place.dentry) {
        let mut denial = Denial::of(operation::WATCH, reason::FLOOR, 0);
        denial.access = READ;
        denial.dentry = place.dentry as u64;
        denial.mount = place.mount as u64;
        return result(emit::conclude(&subject, &denial));
    }
    let want = if object::is_directory(inode) { LIST } else { READ };
    let found = path::ask(&subject, &place, want);
    if is_nameless(&found) && object::nameless_may_open(object::magic(inode)) {
        return 0;
    }
    result(judge_by(&subject, &place, operation::WATCH, want, found, |rights| rights.verdict(want)))
}
