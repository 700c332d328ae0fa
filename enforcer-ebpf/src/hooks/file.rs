//! Files: opening, and everything that makes, removes, moves or changes a name.

use super::{armed, denial, is_knob, is_nameless, judge, judge_by, refusal, ruling, unknown};
use crate::{
    call,
    emit::{self, Denial},
    hold::{self, Beside},
    maps, net,
    object::{self, pointer},
    path::{self as names, Place, States},
    proc,
    subject::{self, Subject},
    verifier::{Conclusion, result},
};
use aya_ebpf::{macros::lsm, programs::LsmContext};
use enforcer_common::{
    access::file::{CREATE, DELETE, EXEC, LINK, LIST, LOAD, METADATA, READ, RENAME, TRUNCATE, WRITE},
    event::{self, operation, reason},
    floor::DEVICES,
    verdict::Verdict,
};

/// `open` in all its forms, after the path was resolved.
#[lsm(hook = "file_open")]
#[inline(always)]
pub fn file_open(ctx: LsmContext) -> i32 {
    let Some(subject) = armed() else { return 0 };
    let file: *const u8 = ctx.arg(0);
    let path = file.wrapping_add(object::FILE_PATH.get());
    let inode = pointer(file, &object::FILE_INODE);
    if names::may_open(&subject, path, inode, object::number(file, &object::FILE_FLAGS)) {
        return 0;
    }
    result(open(&subject, path, inode, flags(file)))
}

/// The open flags, and [`CREATED`].
#[inline(always)]
fn flags(file: *const u8) -> u32 {
    // `FMODE_CREATED` (include/linux/fs.h).
    const MODE_CREATED: u32 = 0x10_0000;
    let created = object::number::<u32>(file, &object::FILE_MODE) & MODE_CREATED != 0;
    object::number::<u32>(file, &object::FILE_FLAGS) & !CREATED | if created { CREATED } else { 0 }
}

/// Beside the open flags, which leave this bit free: the call that opens the file has created it.
const CREATED: u32 = 1 << 31;

/// The kernel's `struct path`: the verifier compares the name.
#[repr(C)]
pub struct path {
    mount: *const u8,
    dentry: *const u8,
}

/// [`file_open`] for kernels whose `struct file` keeps `f_path` in a union: what is read through a
/// union is not trusted, an argument that the daemon tags as trusted is (`btf_tag.rs`).
#[lsm(hook = "file_open")]
pub fn file_open_tagged(ctx: LsmContext) -> i32 {
    let task = subject::task();
    if !subject::has_storage(task) && subject::is_outside(task) {
        return 0;
    }
    let file: *const u8 = ctx.arg(0);
    let path = file.wrapping_add(object::FILE_PATH.get());
    result(match open_tagged(path.cast(), flags(file)) {
        GO_ON => Conclusion::GoOn,
        WAIT => Conclusion::Wait,
        _ => Conclusion::Refuse,
    })
}

const GO_ON: u64 = 0;
const REFUSE: u64 = 1;
const WAIT: u64 = 2;

/// The body of [`file_open_tagged`].
#[inline(never)]
#[unsafe(no_mangle)]
pub extern "C" fn open_tagged(path: *const path, flags: u32) -> u64 {
    let Some(subject) = armed() else { return GO_ON };
    let path = path.cast::<u8>();
    let inode = pointer(pointer(path, &object::PATH_DENTRY), &object::DENTRY_INODE);
    // An open file has an inode; the branch is for the verifier.
    if inode.is_null() {
        return REFUSE;
    }
    if names::may_open(&subject, path, inode, flags) {
        return GO_ON;
    }
    match open(&subject, path, inode, flags) {
        Conclusion::GoOn => GO_ON,
        Conclusion::Wait => WAIT,
        Conclusion::Refuse => REFUSE,
    }
}

#[inline(always)]
fn open(subject: &Subject, path: *const u8, inode: *const u8, flags: u32) -> Conclusion {
    let place = Place::at(path);
    let executes = flags & object::OPEN_EXEC != 0;
    let want = if executes {
        EXEC
    } else if object::is_directory(inode) && flags & object::OPEN_TMPFILE != object::OPEN_TMPFILE {
        LIST
    } else {
        wanted(flags)
    };
    if is_beyond_rules(subject, inode, place.dentry)
        || want & (WRITE | CREATE | TRUNCATE) != 0 && object::is_forbidden_to_write(inode)
    {
        return emit::conclude(subject, &denial(&place, operation::OPEN, reason::FLOOR, want, [0; 3]));
    }
    let found = names::ask(subject, &place, if executes { 0 } else { want });
    // To execute, too: an overlay opens its layer's file so, and whether the object itself may be
    // executed or loaded is asked when it is (exec, map).
    if is_nameless(&found) && object::nameless_may_open(object::magic(inode)) {
        return Conclusion::GoOn;
    }
    let operation = if executes { operation::EXEC } else { operation::OPEN };
    let (states, why) = ruling(subject, &place, want, found, |rights| {
        // The ELF interpreter is opened like the program itself; which one it is shows when it is
        // mapped (load) or checked as the program (exec).
        if executes { rights.open_to_execute() } else { rights.verdict(want) }
    });
    let Some(reason) = why else { return Conclusion::GoOn };
    let beside = Beside { created: flags & CREATED != 0, ..Beside::NOTHING };
    emit::conclude_beside(subject, &denial(&place, operation, reason, want, states), &beside)
}

/// Whether no rule about paths gives the object: it belongs to a task outside the session, or is a device that takes more
/// than a path.
#[inline(always)]
fn is_beyond_rules(subject: &Subject, inode: *const u8, dentry: *const u8) -> bool {
    object::is_special_device(inode) && !subject.has(DEVICES) || proc::is_others(subject, inode, dentry)
}

/// What the open flags ask for. Only the access mode can mean reading.
#[inline(always)]
fn wanted(flags: u32) -> u16 {
    let mut want = match flags & object::OPEN_ACCESS {
        0 => READ,
        1 => WRITE,
        // 3 asks for both and gives neither: ioctl only (Documentation of open(2)).
        _ => READ | WRITE,
    };
    if flags & object::OPEN_TRUNCATE != 0 {
        want |= WRITE | TRUNCATE;
    }
    if flags & object::OPEN_TMPFILE == object::OPEN_TMPFILE {
        want |= CREATE;
    }
    want
}

macro_rules! name_hook {
    ($(#[$doc:meta])* $hook:ident, $operation:ident, $want:expr) => {
        $(#[$doc])*
        #[lsm]
        pub fn $hook(ctx: LsmContext) -> i32 {
            let Some(subject) = armed() else { return 0 };
            let place = Place::below(ctx.arg(0), ctx.arg(1));
            result(judge(&subject, &place, operation::$operation, $want))
        }
    };
}

/// Regular files, devices, sockets and pipes, before they exist.
#[lsm(hook = "path_mknod")]
pub fn path_mknod(ctx: LsmContext) -> i32 {
    let Some(subject) = armed() else { return 0 };
    let place = Place::below(ctx.arg(0), ctx.arg(1));
    result(create(&subject, &place))
}

/// Judges the making of a file. What its opening would have to wait for is asked before it exists.
#[inline(always)]
fn create(subject: &Subject, place: &Place) -> Conclusion {
    if is_knob(place) {
        return emit::conclude(subject, &denial(place, operation::CREATE, reason::FLOOR, CREATE, [0; 3]));
    }
    let mut want = CREATE;
    let found = names::ask(subject, place, CREATE | READ | WRITE);
    let (states, why) = ruling(subject, place, CREATE, found, |rights| {
        let verdict = rights.verdict(CREATE);
        if verdict == Verdict::Deny || rights.hold & (CREATE | READ | WRITE) == 0 {
            return verdict;
        }
        let with = CREATE | call::opening();
        if rights.verdict(with) == Verdict::Deny {
            return verdict;
        }
        want = with;
        rights.verdict(with)
    });
    let Some(reason) = why else { return Conclusion::GoOn };
    emit::conclude(subject, &denial(place, operation::CREATE, reason, want, states))
}

name_hook!(
    /// Directories, before they exist.
    path_mkdir, MKDIR, CREATE);
name_hook!(
    /// Symbolic links, before they exist.
    path_symlink, SYMLINK, CREATE);
name_hook!(
    /// Removing a name.
    path_unlink, UNLINK, DELETE);
name_hook!(
    /// Removing a directory.
    path_rmdir, RMDIR, DELETE);

macro_rules! object_hook {
    ($(#[$doc:meta])* $hook:ident, $operation:ident, $want:expr) => {
        $(#[$doc])*
        #[lsm]
        pub fn $hook(ctx: LsmContext) -> i32 {
            let Some(subject) = armed() else { return 0 };
            let place = Place::at(ctx.arg(0));
            result(judge(&subject, &place, operation::$operation, $want))
        }
    };
}

object_hook!(
    /// `truncate`, and on kernels before 6.2 `ftruncate` and `O_TRUNC`.
    path_truncate, TRUNCATE, TRUNCATE);
object_hook!(
    /// Mode.
    path_chmod, CHMOD, METADATA);
object_hook!(
    /// Owner.
    path_chown, CHOWN, METADATA);

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

/// Moving a name. Both names give one up and get one in an exchange.
#[lsm(hook = "path_rename")]
#[inline(always)]
pub fn path_rename(ctx: LsmContext) -> i32 {
    let Some(subject) = armed() else { return 0 };
    let old = Place::below(ctx.arg(0), ctx.arg(1));
    let new = Place::below_since(ctx.arg(2), ctx.arg(3), old.renames);
    let exchange = ctx.arg::<u32>(4) & EXCHANGE != 0;
    result(conclude(&subject, operation::RENAME, &old, &new, rename(&subject, &old, &new, exchange)))
}

#[inline(always)]
fn rename(subject: &Subject, old: &Place, new: &Place, exchange: bool) -> Result<(), Fault> {
    let mut leave = DELETE | RENAME;
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

/// `ftruncate`, where it has a hook of its own.
#[lsm(hook = "file_truncate")]
pub fn file_truncate(ctx: LsmContext) -> i32 {
    let Some(subject) = armed() else { return 0 };
    let place = uncached(ctx.arg(0));
    let found =
        names::states_uncached(&subject, place.dentry as u64, place.mount as u64).map(names::Answer::Ends);
    // What has no name was made by the agent itself.
    if is_nameless(&found) {
        return 0;
    }
    result(judge_by(&subject, &place, operation::TRUNCATE, TRUNCATE, found, |rights| {
        rights.verdict(TRUNCATE)
    }))
}

/// A descriptor that another process passed on: judged like an open of what it leads to.
#[lsm(hook = "file_receive")]
pub fn file_receive(ctx: LsmContext) -> i32 {
    let Some(subject) = armed() else { return 0 };
    let file: *const u8 = ctx.arg(0);
    let flags: u32 = object::number(file, &object::FILE_FLAGS);
    if flags & object::OPEN_PATH != 0 {
        return 0;
    }
    let inode = pointer(file, &object::FILE_INODE);
    if object::is_socket(inode) && net::file_made_in_session(&subject, file) {
        return 0;
    }
    let want = if object::is_directory(inode) { LIST } else { wanted(flags & object::OPEN_ACCESS) };
    let place = uncached(file);
    // As where it is opened: no rule grants these.
    if want & WRITE != 0 && object::is_forbidden_to_write(inode) {
        let denial = denial(&place, operation::RECEIVE, reason::FLOOR, want, [0; 3]);
        return result(emit::conclude(&subject, &denial));
    }
    if is_beyond_rules(&subject, inode, place.dentry) {
        return result(emit::conclude(
            &subject,
            &denial(&place, operation::RECEIVE, reason::FLOOR, want, [0; 3]),
        ));
    }
    let found =
        names::states_uncached(&subject, place.dentry as u64, place.mount as u64).map(names::Answer::Ends);
    if is_nameless(&found) && object::nameless_may_open(object::magic(inode)) {
        return 0;
    }
    result(judge_by(&subject, &place, operation::RECEIVE, want, found, |rights| rights.verdict(want)))
}

/// Where an open file is, for hooks whose pointers the verifier does not trust.
#[inline(always)]
pub(super) fn uncached(file: *const u8) -> Place {
    let path = file.wrapping_add(object::FILE_PATH.get());
    Place::alone(pointer(path, &object::PATH_DENTRY), pointer(path, &object::PATH_MOUNT))
}

/// Mapping a file executable.
#[lsm(hook = "mmap_file")]
pub fn mmap_file(ctx: LsmContext) -> i32 {
    let protection: u64 = ctx.arg(2);
    if protection & object::PROT_EXEC == 0 {
        return 0;
    }
    let Some(subject) = armed() else { return 0 };
    let file: *const u8 = ctx.arg(0);
    if file.is_null() {
        return 0;
    }
    result(map_file(&subject, file))
}

/// Making a mapping of a file executable later.
#[lsm(hook = "file_mprotect")]
pub fn file_mprotect(ctx: LsmContext) -> i32 {
    let protection: u64 = ctx.arg(2);
    if protection & object::PROT_EXEC == 0 {
        return 0;
    }
    let Some(subject) = armed() else { return 0 };
    let area: *const u8 = ctx.arg(0);
    let file = pointer(area, &object::VMA_FILE);
    if file.is_null() {
        return 0;
    }
    result(map_file(&subject, file))
}

#[inline(always)]
fn map_file(subject: &Subject, file: *const u8) -> Conclusion {
    let place = uncached(file);
    let found =
        names::states_uncached(subject, place.dentry as u64, place.mount as u64).map(names::Answer::Ends);
    judge_by(subject, &place, operation::MAP, LOAD, found, |rights| {
        let verdict = rights.map_verdict();
        if verdict == Verdict::Deny && rights.runs_when_approved() {
            let sc = maps::SCRATCH.of_current_or_new();
            if !sc.is_null() {
                // Through memory: newer kernels type it as a pointer, a global function wants a number.
                // SAFETY: not null.
                unsafe { core::ptr::write_volatile(&raw mut (*sc).address, place.dentry as u64) };
            }
            if hold::approves_program(sc) != 0 {
                return Verdict::Allow;
            }
        }
        verdict
    })
}
