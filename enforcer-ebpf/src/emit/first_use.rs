//! Records that rules allow something for the first time.

use super::{Denial, describe, lose_activity, send};
use crate::{maps, path, subject::Subject};
use enforcer_common::{
    event::{Header, kind},
    scratch::{Record, Scratch},
};

/// Records that rules allow something for the first time, where a hook has more than one such thing to tell.
#[inline(always)]
pub fn first_use(subject: &Subject, denial: &Denial) {
    let sc = path::begin(subject, denial.dentry, denial.mount);
    let record = maps::RECORDS.of_current_or_new();
    if sc.is_null() || record.is_null() {
        lose_activity(subject.session);
        return;
    }
    // SAFETY: neither is null.
    unsafe {
        describe(subject, denial, sc, record);
        tell_first(subject, sc, record);
    }
}

/// Completes a record as one of a first use. What does not fit on the ring is counted, and tried again the next time.
#[inline(always)]
pub(super) unsafe fn tell_first(subject: &Subject, sc: *mut Scratch, record: *mut Record) {
    // SAFETY: as the caller promises: neither is null, and the record has a header.
    unsafe {
        let header = record.cast::<Header>();
        (*header).kind = kind::FIRST_USE;
        (*header).reason = 0;
        if send(sc, 1) != 0 {
            lose_activity(subject.session);
        } else {
            path::note_use(sc);
        }
    }
}
