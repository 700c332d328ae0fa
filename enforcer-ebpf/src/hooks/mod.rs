//! The hooks, by what they guard. Each is: whose task, which object, which verdict, record, errno.

pub mod attributes;
pub mod calls;
pub mod cgroup;
pub mod crash;
pub mod exec;
pub mod file;
pub mod floor;
pub mod ioctl;
pub mod ipc;
pub mod key;
pub mod layer;
pub mod leaving;
pub mod moves;
pub mod net;
pub mod queue;
pub mod rename;
pub mod task;
pub mod terminal;
pub mod watch;

use crate::{
    emit::{self, Denial},
    object,
    path::{self, Answer, Place, States, outcome},
    subject::{self, Subject},
    verifier::Conclusion,
};
use enforcer_common::{
    event::reason,
    verdict::{Folded, Verdict},
};

/// The running task, if rules apply to it.
///
/// A launching task prepares its session with rights of its own, until it executes the entry point.
#[inline(always)]
fn armed() -> Option<Subject> {
    let subject = subject::current()?;
    if subject.launching() { None } else { Some(subject) }
}

/// The reason for refusing what no session may do.
#[inline(always)]
fn floor(subject: &Subject) -> u16 {
    if subject.policy.is_null() { reason::NO_SESSION } else { reason::FLOOR }
}

/// The reason for refusing an object whose name could not be told.
#[inline(always)]
fn unknown(subject: &Subject) -> u16 {
    if subject.policy.is_null() { reason::NO_SESSION } else { reason::UNKNOWN_OBJECT }
}

/// Why a verdict refuses, if it does.
#[inline(always)]
fn refusal(subject: &Subject, verdict: Verdict) -> Option<u16> {
    match verdict {
        Verdict::Allow => None,
        Verdict::Hold => Some(reason::HELD),
        Verdict::Deny if subject.policy.is_null() => Some(reason::NO_SESSION),
        Verdict::Deny => Some(reason::RULE),
    }
}

/// Whether the object lies on a file system whose files are knobs: pins in bpffs, cgroups, tracefs
/// and their like, and proc. Changing names or metadata there is refused whatever the policy says.
#[inline(always)]
fn is_knob(place: &Place) -> bool {
    let at = if place.directory.is_null() { place.dentry } else { place.directory };
    let inode = object::pointer(at, &object::DENTRY_INODE);
    // No inode: it cannot be told, so it counts as one.
    inode.is_null() || object::is_control(object::magic(inode))
}

/// Judges `want`, which changes something, on the object at `place`.
#[inline(always)]
fn judge(subject: &Subject, place: &Place, operation: u16, want: u16) -> Conclusion {
    let (states, why) = if is_knob(place) {
        ([0; 3], Some(reason::FLOOR))
    } else {
        let found = path::ask(subject, place, want);
        if is_nameless(&found) && object::is_memory(object::pointer(place.dentry, &object::DENTRY_INODE)) {
            return Conclusion::GoOn;
        }
        ruling(subject, place, want, found, |rights| rights.verdict(want))
    };
    conclude(subject, place, operation, want, states, why)
}

/// Judges an object whose name ended in `found`.
#[inline(always)]
fn judge_by(
    subject: &Subject,
    place: &Place,
    operation: u16,
    want: u16,
    found: Result<Answer, u64>,
    verdict: impl FnOnce(&Folded) -> Verdict,
) -> Conclusion {
    let (states, why) = ruling(subject, place, want, found, verdict);
    conclude(subject, place, operation, want, states, why)
}

/// What the rules say about doing `want` to the object at `place`, whose name ended in `found`: why it is refused, if it
/// is, or that it is what they allow for the first time.
#[inline(always)]
fn ruling(
    subject: &Subject,
    place: &Place,
    want: u16,
    found: Result<Answer, u64>,
    verdict: impl FnOnce(&Folded) -> Verdict,
) -> (States, Option<u16>) {
    match found {
        Ok(Answer::Allowed) => ([0; 3], None),
        Ok(Answer::Ends(states)) => {
            let why = refusal(subject, verdict(&path::rights(subject, place.dentry, &states)));
            if why.is_none() && path::is_first(subject, &states, want) {
                return (states, Some(emit::FIRST_USE));
            }
            (states, why)
        }
        Err(_) => ([0; 3], Some(unknown(subject))),
    }
}

#[inline(always)]
fn conclude(
    subject: &Subject,
    place: &Place,
    operation: u16,
    want: u16,
    states: States,
    why: Option<u16>,
) -> Conclusion {
    let Some(reason) = why else { return Conclusion::GoOn };
    emit::conclude(subject, &denial(place, operation, reason, want, states))
}

/// What is said of an object that is not simply allowed.
#[inline(always)]
fn denial(place: &Place, operation: u16, reason: u16, want: u16, states: States) -> Denial {
    let mut denial = Denial::of(operation, reason, 0);
    denial.access = want;
    denial.states = states;
    denial.dentry = place.dentry as u64;
    denial.mount = place.mount as u64;
    denial
}

/// Whether a walk ended at something that has no name because only the kernel mounts it.
#[inline(always)]
fn is_nameless(found: &Result<Answer, u64>) -> bool {
    matches!(found, Err(outcome::NAMELESS))
}
