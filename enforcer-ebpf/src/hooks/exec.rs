//! Executing programs, and the moment at which a launching task becomes an armed one.

use super::judge_by;
use crate::{
    emit, maps,
    object::{self, pointer},
    path::{self, Place},
    subject,
    verifier::result,
};
use aya_ebpf::{macros::lsm, programs::LsmContext};
use enforcer_common::{
    access::file::EXEC,
    event::{kind, operation},
};

/// Called for the program, and again for each interpreter of a script.
#[lsm(hook = "bprm_check_security")]
pub fn bprm_check_security(ctx: LsmContext) -> i32 {
    let Some(mut subject) = subject::current() else { return 0 };
    let bprm: *const u8 = ctx.arg(0);
    let file = pointer(bprm, &object::BPRM_FILE);
    if subject.launching() {
        let id = object::file_id(pointer(file, &object::FILE_INODE));
        if subject.stays_launching() && maps::EXECUTORS.get_ptr(id).is_some() {
            emit::activity(kind::EXECUTED, subject.label);
            return 0;
        }
        subject::arm(&mut subject);
    }
    let path = file.wrapping_add(object::FILE_PATH.get());
    let place = Place {
        directory: core::ptr::null(),
        dentry: pointer(path, &object::PATH_DENTRY),
        mount: pointer(path, &object::PATH_MOUNT),
    };
    let found =
        path::states_uncached(&subject, place.dentry as u64, place.mount as u64).map(path::Answer::Ends);
    result(judge_by(&subject, &place, operation::EXEC, EXEC, found, |rights| rights.verdict(EXEC)))
}
