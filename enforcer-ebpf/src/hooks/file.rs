//! Files: opening, and everything that makes, removes or changes one; moving names is in [`super::rename`].

use super::{armed, denial, is_knob, is_nameless, judge, judge_by, ruling};
use crate::{
    call, emit,
    hold::{self, Beside},
    maps, net,
    object::{self, pointer},
    path::{self as names, Place},
    proc,
    subject::{self, Subject},
    terminal,
    verifier::{Conclusion, result},
};
use aya_ebpf::{macros::lsm, programs::LsmContext};
use enforcer_common::{
    access::file::{CREATE, DELETE, EXEC, LIST, LOAD, METADATA, READ, TRUNCATE, WRITE},
    event::{operation, reason},
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
    if !subject::has_storage(task) && subject::is_outside() {
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
        || want & CREATE != 0 && object::sets_id(object::number(inode, &object::INODE_MODE))
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

/// Whether no rule about paths gives the object: it belongs to a task outside the session, is such a task's terminal, or
/// a device that takes more than a path.
#[inline(always)]
fn is_beyond_rules(subject: &Subject, inode: *const u8, dentry: *const u8) -> bool {
    (object::is_special_device(inode) || object::is_device_memory(inode, dentry)) && !subject.has(DEVICES)
        || proc::is_others(subject, inode, dentry)
        || terminal::is_others(subject, inode, dentry)
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

/// Regular files, devices, sockets and pipes, before they exist. None is born with its owner's rights for whoever
/// executes it: that takes a change of its mode, which is another right.
#[lsm(hook = "path_mknod")]
pub fn path_mknod(ctx: LsmContext) -> i32 {
    let Some(subject) = armed() else { return 0 };
    let place = Place::below(ctx.arg(0), ctx.arg(1));
    result(create(&subject, &place, ctx.arg(2)))
}

/// Judges the making of a file. What its opening would have to wait for is asked before it exists.
#[inline(always)]
fn create(subject: &Subject, place: &Place, mode: u16) -> Conclusion {
    if is_knob(place) || object::sets_id(mode) {
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
/// Removing a name.
#[lsm(hook = "path_unlink")]
pub fn path_unlink(ctx: LsmContext) -> i32 {
    let Some(subject) = armed() else { return 0 };
    let place = Place::below(ctx.arg(0), ctx.arg(1));
    result(remove(&subject, &place))
}

/// Judges the removing of a name. One under which something is refused stays while the object has others.
#[inline(always)]
fn remove(subject: &Subject, place: &Place) -> Conclusion {
    let (mut states, mut why) = ([0; 3], Some(reason::FLOOR));
    if !is_knob(place) {
        let found = names::ask(subject, place, DELETE);
        (states, why) = ruling(subject, place, DELETE, found, |rights| rights.verdict(DELETE));
        let refused = !matches!(why, None | Some(emit::FIRST_USE | reason::HELD));
        if !refused && names::loses_rules(subject, place.dentry, &states) {
            why = Some(reason::GAINS_RIGHTS);
        }
    }
    let Some(reason) = why else { return Conclusion::GoOn };
    emit::conclude(subject, &denial(place, operation::UNLINK, reason, DELETE, states))
}

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
    if is_beyond_rules(&subject, inode, place.dentry) || terminal::is_others_file(&subject, inode, file) {
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
