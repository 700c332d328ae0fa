//! What has two names: links and renames, judged at both ends.

use super::{armed, denial, is_knob, refusal, unknown};
use crate::{
    emit::{self, Denial},
    hold::Beside,
    maps,
    object::{self, pointer},
    path::{self as names, Place, States},
    subject::Subject,
    verifier::{Conclusion, result},
};
use aya_ebpf::{macros::lsm, programs::LsmContext};
use enforcer_common::{
    access::file::{CREATE, DELETE, LINK, RENAME, WRITE},
    event::{self, operation, reason},
    verdict::Verdict,
};

/// Why an operation on two names is refused, and because of which of them.
struct Fault {
    reason: u16,
    at_new: bool,
    access: u16,
    states: States,
}

impl Fault {
    #[inline(always)]
    fn at(new: bool, reason: u16, access: u16, states: States) -> Result<(), Self> {
        Err(Self { reason, at_new: new, access, states })
    }
}

/// Notes what is allowed for the first time under the new name, where something is under the old one as well. In the
/// scratch, since older kernels bound what a hook keeps on the stack.
#[inline(always)]
fn also(access: u16, states: States) {
    let sc = maps::SCRATCH.of_current_or_new();
    if !sc.is_null() {
        // SAFETY: not null; the path of a record is made without `other`.
        unsafe {
            (*sc).other = [states[0], states[1], states[2], 0];
            core::ptr::write_volatile(&raw mut (*sc).also, access);
        }
    }
}

/// Records a fault, once for all the ways that lead to one.
#[inline(always)]
fn conclude(
    subject: &Subject,
    operation: u16,
    old: &Place,
    new: &Place,
    found: Result<(), Fault>,
) -> Conclusion {
    let Err(fault) = found else { return Conclusion::GoOn };
    let mut denial = Denial::of(operation, fault.reason, 0);
    denial.access = fault.access;
    denial.states = fault.states;
    denial.dentry = if fault.at_new { new.dentry } else { old.dentry } as u64;
    denial.mount = if fault.at_new { new.mount } else { old.mount } as u64;
    if fault.reason == reason::HELD {
        // Whoever is asked about one name sees both, the old one first.
        denial.dentry = old.dentry as u64;
        denial.mount = old.mount as u64;
    }
    let beside = Beside { target: new.dentry as u64, mount: new.mount as u64, created: false };
    let conclusion = emit::conclude_beside(subject, &denial, &beside);
    if operation == event::operation::RENAME {
        tell_also(subject, new);
    }
    conclusion
}

/// Records what [`also`] has noted.
#[inline(always)]
fn tell_also(subject: &Subject, new: &Place) {
    let sc = maps::SCRATCH.of_current();
    if sc.is_null() {
        return;
    }
    // SAFETY: not null.
    unsafe {
        let access = core::ptr::read_volatile(&raw const (*sc).also);
        if access == 0 {
            return;
        }
        core::ptr::write_volatile(&raw mut (*sc).also, 0);
        let states = [(*sc).other[0], (*sc).other[1], (*sc).other[2]];
        emit::first_use(subject, &denial(new, event::operation::RENAME, emit::FIRST_USE, access, states));
    }
}

/// A further name for an object: the name needs `create` and `link`, and must not give anything
/// that the object's present name does not.
#[lsm(hook = "path_link")]
pub fn path_link(ctx: LsmContext) -> i32 {
    let Some(subject) = armed() else { return 0 };
    let new = Place::below(ctx.arg(1), ctx.arg(2));
    // The hook does not say through which mount the source was found; a link cannot cross mounts
    // (do_linkat(), fs/namei.c).
    let old = Place::alone(ctx.arg(0), new.mount);
    result(conclude(&subject, operation::LINK, &old, &new, link(&subject, &old, &new)))
}

#[inline(always)]
fn link(subject: &Subject, old: &Place, new: &Place) -> Result<(), Fault> {
    const WANT: u16 = CREATE | LINK;
    if is_knob(new) {
        return Fault::at(true, reason::FLOOR, WANT, [0; 3]);
    }
    let target = match names::states(subject, new) {
        Ok(states) => states,
        Err(_) => return Fault::at(true, unknown(subject), WANT, [0; 3]),
    };
    let rights = names::rights(subject, new.dentry, &target);
    let verdict = rights.verdict(WANT);
    if let (Verdict::Deny, Some(why)) = (verdict, refusal(subject, verdict)) {
        return Fault::at(true, why, WANT, target);
    }
    let source = match names::states_uncached(subject, old.dentry as u64, old.mount as u64) {
        Ok(states) => states,
        Err(_) => return Fault::at(false, unknown(subject), WANT, [0; 3]),
    };
    if !names::rights(subject, old.dentry, &source).may_also_be(&rights) {
        return Fault::at(false, reason::GAINS_RIGHTS, WANT, source);
    }
    // Last: nobody is asked about what is refused anyway, and an approval changes no other check.
    if verdict == Verdict::Hold {
        return Fault::at(true, reason::HELD, WANT, target);
    }
    if names::is_first(subject, &target, WANT) {
        return Fault::at(true, emit::FIRST_USE, WANT, target);
    }
    Ok(())
}

/// `RENAME_EXCHANGE` (include/uapi/linux/fs.h).
const EXCHANGE: u32 = 1 << 1;
/// `RENAME_WHITEOUT`: a device is made under the old name, which in a layer of an overlay hides what lies below.
const WHITEOUT: u32 = 1 << 2;

/// Moving a name. Both names give one up and get one in an exchange.
#[lsm(hook = "path_rename")]
#[inline(always)]
pub fn path_rename(ctx: LsmContext) -> i32 {
    let Some(subject) = armed() else { return 0 };
    let old = Place::below(ctx.arg(0), ctx.arg(1));
    let new = Place::below_since(ctx.arg(2), ctx.arg(3), old.renames);
    let flags = ctx.arg::<u32>(4);
    result(conclude(&subject, operation::RENAME, &old, &new, rename(&subject, &old, &new, flags)))
}

#[inline(always)]
fn rename(subject: &Subject, old: &Place, new: &Place, flags: u32) -> Result<(), Fault> {
    let exchange = flags & EXCHANGE != 0;
    let mut leave = DELETE | RENAME;
    if flags & WHITEOUT != 0 {
        leave |= CREATE;
    }
    let mut arrive = CREATE | WRITE;
    let moved = pointer(old.dentry, &object::DENTRY_INODE);
    let replaced = pointer(new.dentry, &object::DENTRY_INODE);
    if exchange {
        leave |= arrive;
        arrive = leave;
    } else if !replaced.is_null() {
        arrive |= DELETE;
    }
    // Both ends lie on one file system.
    if is_knob(new) {
        return Fault::at(true, reason::FLOOR, arrive, [0; 3]);
    }
    // Most renames end here: no question of what a directory would take along, or of what would be gained.
    let file = !exchange && !moved.is_null() && !object::is_directory(moved);
    if file && names::same_and_allowed(subject, old, new, leave | arrive) {
        return Ok(());
    }
    let source = match names::states(subject, old) {
        Ok(states) => states,
        Err(_) => return Fault::at(false, unknown(subject), leave, [0; 3]),
    };
    let old_rights = names::rights(subject, old.dentry, &source);
    let leaving = old_rights.verdict(leave);
    if let (Verdict::Deny, Some(why)) = (leaving, refusal(subject, leaving)) {
        return Fault::at(false, why, leave, source);
    }
    let target = match names::states(subject, new) {
        Ok(states) => states,
        Err(_) => return Fault::at(true, unknown(subject), arrive, [0; 3]),
    };
    let new_rights = names::rights(subject, new.dentry, &target);
    let arriving = new_rights.verdict(arrive);
    if let (Verdict::Deny, Some(why)) = (arriving, refusal(subject, arriving)) {
        return Fault::at(true, why, arrive, target);
    }
    // Where both names end in the same states, what moves is denied and held the same as before.
    let same = source[0] == target[0] && source[1] == target[1] && source[2] == target[2];
    if !(exchange && same) && names::loses_rules(subject, new.dentry, &target) {
        return Fault::at(true, reason::GAINS_RIGHTS, arrive, target);
    }
    if !same && names::loses_rules(subject, old.dentry, &source) {
        return Fault::at(false, reason::GAINS_RIGHTS, leave, source);
    }
    let directory = !moved.is_null() && object::is_directory(moved);
    let other_directory = exchange && !replaced.is_null() && object::is_directory(replaced);
    if (directory || other_directory) && !names::same_directory(subject, &source, &target) {
        return Fault::at(false, reason::MOVES_RULES, leave, source);
    }
    let gains = !directory && !old_rights.may_become(&new_rights);
    let other_gains = exchange && !other_directory && !new_rights.may_become(&old_rights);
    if gains || other_gains {
        return Fault::at(false, reason::GAINS_RIGHTS, leave, source);
    }
    // Last: nobody is asked about what is refused anyway, and an approval changes no other check. One question is
    // about both names.
    match (leaving, arriving) {
        (Verdict::Hold, Verdict::Hold) => Fault::at(false, reason::HELD, leave | arrive, source),
        (Verdict::Hold, _) => Fault::at(false, reason::HELD, leave, source),
        (_, Verdict::Hold) => Fault::at(true, reason::HELD, arrive, target),
        _ => {
            let at_new = names::is_first(subject, &target, arrive);
            if names::is_first(subject, &source, leave) {
                if at_new {
                    also(arrive, target);
                }
                return Fault::at(false, emit::FIRST_USE, leave, source);
            }
            if at_new { Fault::at(true, emit::FIRST_USE, arrive, target) } else { Ok(()) }
        }
    }
}
