//! Executing programs, and the moment at which a launching task becomes an armed one.

use super::{conclude, denial, ruling};
use crate::{
    emit::{self, Denial, refuse},
    gate::is_replaced,
    hold, maps,
    object::{self, pointer},
    path::{self, Place},
    subject::{self, Subject},
    verifier::{Conclusion, result},
};
use aya_ebpf::{
    macros::{btf_tracepoint, lsm},
    programs::{BtfTracePointContext, LsmContext},
};
use enforcer_common::{
    access::file::{ANY_ARGUMENTS, EXEC},
    event::{kind, operation, reason},
    map::{LABEL_LOADED, waiting},
};

/// Called for the program, and again for each interpreter of a script.
#[lsm(hook = "bprm_check_security")]
pub fn bprm_check_security(ctx: LsmContext) -> i32 {
    let Some(mut subject) = subject::current() else { return 0 };
    let bprm: *const u8 = ctx.arg(0);
    let place = program(bprm);
    if subject.launching() {
        let id = object::file_id(pointer(place.dentry, &object::DENTRY_INODE));
        if subject.stays_launching() && maps::EXECUTORS.get_ptr(id).is_some() {
            emit::activity(kind::EXECUTED, subject.label);
            return 0;
        }
        subject::arm(&mut subject);
    }
    let found =
        path::states_uncached(&subject, place.dentry as u64, place.mount as u64).map(path::Answer::Ends);
    let mut arguments = 0;
    let (states, mut why) = ruling(&subject, &place, 0, found, |rights| {
        arguments = rights.deny & ANY_ARGUMENTS;
        rights.verdict(EXEC)
    });
    // Nobody can tell whether the programs that have taken over know of these arguments.
    if arguments != 0 && is_replaced() {
        why = Some(reason::INTERNAL);
    }
    let conclusion = conclude(&subject, &place, operation::EXEC, EXEC, states, why);
    let judged = arguments != 0 && conclusion == Conclusion::GoOn && subject.audits() == 0;
    result(if note(bprm, &subject, &place, states, judged) { conclusion } else { Conclusion::Refuse })
}

/// Notes whether the arguments will be judged, and tells of whom they are. False: that cannot be told.
#[inline(always)]
fn note(bprm: *const u8, subject: &Subject, place: &Place, states: path::States, judged: bool) -> bool {
    // The same until a script's interpreter takes the script's place (bprm_change_interp(), fs/exec.c).
    let first = pointer(bprm, &object::BPRM_NAME) == pointer(bprm, &object::BPRM_INTERPRETER);
    let given: u32 = object::number(bprm, &object::BPRM_COUNT);
    let sc = maps::SCRATCH.of_current();
    if sc.is_null() {
        return false;
    }
    // SAFETY: map memory.
    let first = unsafe {
        if first {
            (*sc).loading = 0;
        }
        if !judged {
            return true;
        }
        (*sc).loading += 1;
        // What was told of an exec that has failed is none of this one's, even if this one begins with a script that
        // nobody judges.
        (*sc).loading == 1
    };
    let mut told = denial(place, operation::EXEC, reason::RULE, EXEC, states);
    told.argument = given << 1 | u32::from(first);
    emit::tell(subject, &told, kind::LOADING)
}

/// The program that is being executed.
#[inline(always)]
fn program(bprm: *const u8) -> Place {
    let path = pointer(bprm, &object::BPRM_FILE).wrapping_add(object::FILE_PATH.get());
    Place::alone(pointer(path, &object::PATH_DENTRY), pointer(path, &object::PATH_MOUNT))
}

/// The old program has gone, and whoever wants to trace the new one still waits (`cred_guard_mutex`,
/// begin_new_exec(), fs/exec.c): from here on that is refused where arguments are to be judged.
#[lsm(hook = "bprm_committed_creds")]
pub fn bprm_committed_creds(_: LsmContext) -> i32 {
    if subject::current().is_none() {
        return 0;
    }
    let (sc, label) = (maps::SCRATCH.of_current(), maps::LABELS.of_current());
    // SAFETY: map memory.
    unsafe {
        if !sc.is_null() && (*sc).loading != 0 && !label.is_null() {
            (*label).flags |= LABEL_LOADED;
        }
    }
    0
}

/// The new program is in place and has not run: what judges its arguments can read them now.
#[btf_tracepoint(function = "sched_process_exec")]
pub fn sched_process_exec(ctx: BtfTracePointContext) -> i32 {
    let Some(subject) = subject::current() else { return 0 };
    if subject.launching() || is_replaced() {
        return 0;
    }
    if !subject.session.is_null() {
        emit::executed(&subject);
    }
    let (sc, label) = (maps::SCRATCH.of_current(), maps::LABELS.of_current());
    // Without them it could not have come here. Should a lookup fail now, it cannot be told whether it may go on.
    if sc.is_null() || label.is_null() || subject.session.is_null() {
        hold::kill();
        return 0;
    }
    // SAFETY: map memory.
    let stages = unsafe {
        let stages = (*sc).loading;
        if stages == 0 {
            return 0;
        }
        (*sc).loading = 0;
        (*label).generation = waiting((*label).generation);
        if (*label).flags & LABEL_LOADED == 0 {
            hold::kill();
            return 0;
        }
        stages
    };
    if object::number::<u32>(subject::task(), &object::TASK_TRACED) != 0 {
        // A tracer writes to the program whatever is decided.
        refuse(&subject, &Denial::of(operation::ARGUMENTS, reason::FLOOR, 0));
        hold::kill();
        return 0;
    }
    let place = program(ctx.arg(2));
    let mut asked = denial(&place, operation::ARGUMENTS, reason::HELD, EXEC, [0; 3]);
    asked.argument = stages as u32;
    if emit::conclude(&subject, &asked) != Conclusion::Wait {
        hold::kill();
    }
    0
}
