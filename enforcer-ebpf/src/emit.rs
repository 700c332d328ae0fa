//! Records for the rings. Nothing here decides anything: a record that does not fit is counted for
//! its agent and the verdict stays what it was.

use crate::{
    call,
    hold::{self, Beside},
    maps, object,
    path::{self, outcome},
    subject::{self, Subject},
    verifier::{Conclusion, atomic_add, below, bound},
};
use aya_ebpf::helpers::{
    bpf_get_current_pid_tgid, bpf_get_current_uid_gid,
    generated::{
        bpf_get_current_cgroup_id, bpf_get_current_comm, bpf_ktime_get_boot_ns, bpf_loop,
        bpf_probe_read_kernel, bpf_probe_read_user,
    },
};
use core::ffi::c_void;
use enforcer_common::{
    event::{
        self, ABOVE, ARGUMENTS_FIRST, ARGUMENTS_MORE, ARGUMENTS_ROUNDS, Header, NO_AGENT, flag, kind, reason,
    },
    limits,
    map::Session,
    scratch::{Component, RECORD_MAX, Record, Render, Scratch},
    verdict::Verdict,
};

const HEADER: u64 = size_of::<Header>() as u64;
/// Positions in a record are masked with this and then compared with its length.
const RECORD_MASK: i32 = 8191;
pub(crate) const RECORD_END: u64 = RECORD_MAX as u64 + 1;
pub(crate) const EPERM: i32 = -1;

/// No [`reason`], and in no record: rules allow it for the first time. Of an address the argument is its set's number.
pub const FIRST_USE: u16 = u16::MAX;

/// What a denial is about.
#[derive(Clone, Copy)]
pub struct Denial {
    /// One of [`event::operation`].
    pub operation: u16,
    /// One of [`event::reason`].
    pub reason: u16,
    /// The operations that were asked for.
    pub access: u16,
    /// States in which the object's name ended.
    pub states: path::States,
    /// The object's dentry and mount, or zero where it is no file.
    pub dentry: u64,
    /// The mount.
    pub mount: u64,
    /// What the operation's name says.
    pub argument: u32,
    /// The check that refuses, where one system call can meet several: see [`call`].
    pub check: u64,
}

impl Denial {
    /// A denial of `operation` that concerns no file.
    #[inline(always)]
    pub fn of(operation: u16, reason: u16, argument: u32) -> Self {
        Self { operation, reason, access: 0, states: [0; 3], dentry: 0, mount: 0, argument, check: 0 }
    }
}

/// Records a refusal and says whether the caller must refuse: in audit mode what rules refuse goes
/// on, the floor does not.
#[inline(always)]
pub fn refuse(subject: &Subject, denial: &Denial) -> bool {
    refuse_with(subject, denial, |_| {})
}

/// As [`refuse`], with more to fill in.
#[inline(always)]
pub fn refuse_with(subject: &Subject, denial: &Denial, fill: impl FnOnce(&mut Header)) -> bool {
    say(subject, denial, None, fill) != Conclusion::GoOn
}

/// As [`refuse`], for a verdict that may also be to wait for a person.
#[inline(always)]
pub fn conclude(subject: &Subject, denial: &Denial) -> Conclusion {
    say(subject, denial, Some(&Beside::NOTHING), |_| {})
}

/// As [`conclude`], with more to fill in.
#[inline(always)]
pub fn conclude_with(subject: &Subject, denial: &Denial, fill: impl FnOnce(&mut Header)) -> Conclusion {
    say(subject, denial, Some(&Beside::NOTHING), fill)
}

/// As [`conclude`], on an object that is not all there is to be said.
#[inline(always)]
pub fn conclude_beside(subject: &Subject, denial: &Denial, beside: &Beside) -> Conclusion {
    say(subject, denial, Some(beside), |_| {})
}

#[inline(always)]
fn say(
    subject: &Subject,
    denial: &Denial,
    beside: Option<&Beside>,
    fill: impl FnOnce(&mut Header),
) -> Conclusion {
    let first = denial.reason == FIRST_USE;
    let audits = if first { 0 } else { subject.audits() };
    let only_recorded = audits != 0 && denial.reason != reason::FLOOR && denial.reason != reason::NO_SESSION;
    let unless_recorded = if only_recorded || first { Conclusion::GoOn } else { Conclusion::Refuse };
    let asks = beside.is_some() && denial.reason == reason::HELD && audits == 0;
    let sc = path::begin(subject, denial.dentry, denial.mount);
    let record = maps::RECORDS.of_current_or_new();
    if sc.is_null() || record.is_null() {
        if first {
            lose_activity(subject.session);
        } else {
            lose(subject.session);
        }
        return unless_recorded;
    }
    if !asks && !first && call::is_recorded(sc, denial.check) != 0 {
        count_same_call(subject.session);
        return unless_recorded;
    }
    // SAFETY: the scratch is not null and begins a record with room for the header.
    unsafe {
        let header = describe(subject, denial, sc, record);
        fill(header);
        if first {
            tell_first(subject, sc, record);
            return Conclusion::GoOn;
        }
        if asks && let Some(beside) = beside {
            return hold::ask(subject, denial.check, beside, sc);
        }
        header.verdict = Verdict::Deny as u16;
        header.error = if only_recorded { 0 } else { EPERM };
        if only_recorded {
            header.flags |= audits;
        }
        if send(sc, 0) != 0 {
            lose(subject.session);
        }
    }
    unless_recorded
}

/// Begins a record of a decision with what is known of it.
#[inline(always)]
unsafe fn describe<'a>(
    subject: &Subject,
    denial: &Denial,
    sc: *mut Scratch,
    record: *mut Record,
) -> &'a mut Header {
    // SAFETY: as the caller promises: neither is null. The policy is a map value.
    unsafe {
        let header = start(sc, record, kind::DECISION);
        header.operation = denial.operation;
        header.reason = denial.reason;
        header.access = u32::from(denial.access);
        header.states = denial.states;
        header.argument = denial.argument;
        if subject::is_stray() {
            header.flags |= flag::STRAY;
        }
        if !subject.policy.is_null() {
            header.policy = (*subject.policy).id;
            if (*subject.policy).links != 0 && denial.dentry != 0 {
                // Perhaps; it is looked up when the record is complete.
                header.flags |= flag::OTHER_NAME;
            }
        }
        name_session(header, subject.session);
        header
    }
}

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
unsafe fn tell_first(subject: &Subject, sc: *mut Scratch, record: *mut Record) {
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

/// Records what is not a refusal. False: it could not be recorded.
#[inline(always)]
pub fn tell(subject: &Subject, denial: &Denial, kind: u16) -> bool {
    let sc = path::begin(subject, denial.dentry, denial.mount);
    let record = maps::RECORDS.of_current_or_new();
    if sc.is_null() || record.is_null() {
        lose(subject.session);
        return false;
    }
    // SAFETY: neither is null.
    let sent = unsafe {
        describe(subject, denial, sc, record).kind = kind;
        send(sc, 0) == 0
    };
    if !sent {
        lose(subject.session);
    }
    sent
}

/// Records that something happened to the session in `slot` or to the running task in it.
#[inline(always)]
pub fn activity(kind: u16, slot: u32) {
    activity_in(kind, slot, 0, 0);
}

/// As [`activity`], about a cgroup and a root.
#[inline(always)]
pub fn activity_in(kind: u16, slot: u32, cgroup: u64, argument: u32) {
    let sc = maps::SCRATCH.of_current_or_new();
    let session = maps::SESSIONS.get_ptr(slot).unwrap_or(core::ptr::null());
    let record = maps::RECORDS.of_current_or_new();
    if sc.is_null() || record.is_null() {
        lose_activity(session);
        return;
    }
    // SAFETY: the scratch is not null.
    unsafe {
        core::ptr::write_volatile(&raw mut (*sc).dentry, 0);
        let header = start(sc, record, kind);
        header.argument = argument;
        header.inode = cgroup;
        name_session(header, session);
        if send(sc, 1) != 0 {
            lose_activity(session);
        }
    }
}

#[inline(always)]
pub(crate) fn lose_activity(session: *const Session) {
    // SAFETY: map values.
    unsafe {
        if let Some(agent) = subject::agent_of(session) {
            atomic_add(&raw mut (*agent).lost_activity, 1);
        } else {
            let gate = maps::gate();
            atomic_add(&raw mut (*gate).lost_activity, 1);
        }
    }
}

/// An empty header at the start of the record.
#[inline(always)]
pub(crate) unsafe fn start<'a>(sc: *mut Scratch, record: *mut Record, kind: u16) -> &'a mut Header {
    // SAFETY: the buffer is longer than a header and lies at a multiple of eight.
    unsafe {
        let words = record.cast::<u64>();
        let mut i = 0;
        while i < HEADER as usize / 8 {
            core::ptr::write_volatile(words.add(i), 0);
            i += 1;
        }
        let header = &mut *words.cast::<Header>();
        header.version = event::VERSION;
        header.kind = kind;
        header.agent = NO_AGENT;
        core::ptr::write_volatile(&raw mut (*sc).used, HEADER);
        header
    }
}

#[inline(always)]
pub(crate) unsafe fn name_session(header: &mut Header, session: *const Session) {
    if session.is_null() {
        return;
    }
    // SAFETY: a map value.
    unsafe {
        if (*session).version == 1 {
            header.agent = (*session).agent;
            header.session = (*session).id;
            header.trust = (*session).tiers.level;
        }
    }
}

/// Counts a decision that could not be recorded.
#[inline(always)]
pub fn lose(session: *const Session) {
    // SAFETY: map values.
    unsafe {
        if let Some(agent) = subject::agent_of(session) {
            atomic_add(&raw mut (*agent).lost_decisions, 1);
        } else {
            let gate = maps::gate();
            atomic_add(&raw mut (*gate).lost_decisions, 1);
        }
    }
}

/// As [`lose`], of the session whose record it is.
#[inline(always)]
pub unsafe fn lose_of(header: *const Header) {
    // SAFETY: map memory.
    unsafe {
        if let Some(agent) = maps::AGENTS.get_ptr_mut((*header).agent) {
            atomic_add(&raw mut (*agent).lost_decisions, 1);
        }
    }
}

#[inline(always)]
fn count_same_call(session: *const Session) {
    // SAFETY: a map value.
    unsafe {
        if let Some(agent) = subject::agent_of(session) {
            atomic_add(&raw mut (*agent).same_call, 1);
        }
    }
}

/// Completes the record in the scratch (who, when, names) and puts it on the ring of decisions (0)
/// or activity (1). Non-zero: it did not fit.
#[inline(never)]
#[unsafe(no_mangle)]
pub extern "C" fn send(sc: *mut Scratch, ring: u64) -> u64 {
    let record = maps::RECORDS.of_current();
    if sc.is_null() || record.is_null() {
        return 1;
    }
    // SAFETY: `sc` is the task's scratch, `record` its record; typed loads start at the running task.
    unsafe {
        let header = record.cast::<Header>();
        let task = subject::task();
        let ids = bpf_get_current_pid_tgid();
        (*header).time = bpf_ktime_get_boot_ns();
        (*header).cgroup = bpf_get_current_cgroup_id();
        (*header).tgid = (ids >> 32) as u32;
        (*header).pid = ids as u32;
        (*header).uid = bpf_get_current_uid_gid() as u32;
        (*header).parent = object::number(object::pointer(task, &object::TASK_PARENT), &object::TASK_TGID);
        (*header).started = object::number(object::pointer(task, &object::TASK_LEADER), &object::TASK_START);
        bpf_get_current_comm((&raw mut (*header).comm).cast(), 16);
        name_above(header, task);

        if core::ptr::read_volatile(&raw const (*sc).dentry) != 0 {
            if (*header).flags & flag::OTHER_NAME != 0 {
                name_other(sc);
            }
            match climb_for_record(sc) {
                outcome::KNOWN => {}
                _ => (*header).flags |= flag::FOREIGN,
            }
            if render(sc, limits::PATH as u64) != 0 {
                (*header).flags |= flag::OBJECT_CUT;
            }
        }
        // A second name may stand there already, behind the object's.
        let names = core::ptr::read_volatile(&raw const (*sc).used) - HEADER;
        (*header).object_len = (names - u64::from((*header).target_len)) as u16;

        let exe = object::pointer(object::pointer(task, &object::TASK_MM), &object::MM_EXE);
        let at = exe.wrapping_add(object::FILE_PATH.get());
        core::ptr::write_volatile(&raw mut (*sc).mount, object::pointer(at, &object::PATH_MOUNT) as u64);
        core::ptr::write_volatile(&raw mut (*sc).dentry, object::pointer(at, &object::PATH_DENTRY) as u64);
        if climb_for_record(sc) == outcome::UNKNOWN || render(sc, RECORD_MAX as u64 - HEADER - names) != 0 {
            (*header).flags |= flag::EXE_CUT;
        }
        let used = core::ptr::read_volatile(&raw const (*sc).used);
        (*header).exe_len = (used - HEADER - names) as u16;
        (*header).length = used as u32;

        let Some(used) = below::<RECORD_MASK>(used, RECORD_END) else { return 1 };
        let record = core::slice::from_raw_parts(record.cast::<u8>(), used as usize);
        let sent = if ring == 0 {
            maps::DECISIONS.output::<[u8]>(record, 0)
        } else {
            maps::ACTIVITY.output::<[u8]>(record, 0)
        };
        u64::from(sent.is_err())
    }
}

/// The processes above, up to the first one of all.
#[inline(always)]
unsafe fn name_above(header: *mut Header, task: *const u8) {
    // SAFETY: the header is map memory; typed loads lead from one task to the next.
    unsafe {
        let mut above = task;
        let mut i = 0;
        while i < ABOVE {
            above = object::pointer(above, &object::TASK_PARENT);
            let tgid: u32 = object::number(above, &object::TASK_TGID);
            if tgid == 0 {
                break;
            }
            let at = &raw mut (*header).above[i];
            core::ptr::write_volatile(&raw mut (*at).tgid, tgid);
            let started = object::number(object::pointer(above, &object::TASK_LEADER), &object::TASK_START);
            core::ptr::write_volatile(&raw mut (*at).started, started);
            if tgid == 1 {
                break;
            }
            i += 1;
        }
    }
}

/// Records that the running task has been given a new program, with its arguments: as many records as they take.
#[inline(always)]
pub fn executed(subject: &Subject) {
    let sc = maps::SCRATCH.of_current_or_new();
    let record = maps::RECORDS.of_current_or_new();
    if sc.is_null() || record.is_null() {
        lose_activity(subject.session);
        return;
    }
    // SAFETY: neither is null; the kernel has just written the new image's arguments, and nothing of it has run.
    unsafe {
        core::ptr::write_volatile(&raw mut (*sc).dentry, 0);
        let mm = object::pointer(subject::task(), &object::TASK_MM);
        let from: u64 = object::number(mm, &object::MM_ARGUMENTS);
        let end: u64 = object::number(mm, &object::MM_ARGUMENTS_END);
        let length = end.saturating_sub(from);
        let header = start(sc, record, kind::EXECUTED);
        name_session(header, subject.session);
        if !subject.policy.is_null() {
            header.policy = (*subject.policy).id;
        }
        header.argument = length as u32;
        let first = if length < ARGUMENTS_FIRST as u64 { length } else { ARGUMENTS_FIRST as u64 };
        let Some(size) = below::<{ 2 * ARGUMENTS_FIRST as i32 - 1 }>(first, ARGUMENTS_FIRST as u64 + 1)
        else {
            lose_activity(subject.session);
            return;
        };
        let to = record.cast::<u8>().add(HEADER as usize);
        if bpf_probe_read_user(to.cast(), size as u32, from as *const _) == 0 {
            header.target_len = size as u16;
            core::ptr::write_volatile(&raw mut (*sc).used, HEADER + size);
        }
        if send(sc, 1) != 0 {
            lose_activity(subject.session);
            return;
        }
        if length > ARGUMENTS_FIRST as u64 {
            (*sc).address = from;
            (*sc).render.room = length;
            let mut round = path::Round { sc };
            bpf_loop(ARGUMENTS_ROUNDS as u32, arguments_round as *mut c_void, (&raw mut round).cast(), 0);
        }
    }
}

/// More of the arguments. 1 ends the loop.
extern "C" fn arguments_round(number: u32, round: *mut path::Round) -> i64 {
    // SAFETY: the scratch is not null; every size is bounded before it is used.
    unsafe {
        let sc = (*round).sc;
        let record = maps::RECORDS.of_current();
        let done = ARGUMENTS_FIRST as u64 + ARGUMENTS_MORE as u64 * u64::from(number);
        let length = (*sc).render.room;
        if record.is_null() || length <= done {
            return 1;
        }
        let rest = length - done;
        let rest = if rest < ARGUMENTS_MORE as u64 { rest } else { ARGUMENTS_MORE as u64 };
        let Some(size) = below::<{ 2 * ARGUMENTS_MORE as i32 - 1 }>(rest, ARGUMENTS_MORE as u64 + 1) else {
            return 1;
        };
        // Who, when and where stand there already.
        let header = record.cast::<Header>();
        let to = record.cast::<u8>().add(HEADER as usize);
        if bpf_probe_read_user(to.cast(), size as u32, ((*sc).address + done) as *const _) != 0 {
            return 1;
        }
        (*header).kind = kind::ARGUMENTS;
        (*header).argument = done as u32;
        (*header).exe_len = 0;
        (*header).target_len = size as u16;
        (*header).length = (HEADER + size) as u32;
        let Some(used) = below::<RECORD_MASK>(HEADER + size, RECORD_END) else { return 1 };
        let bytes = core::slice::from_raw_parts(record.cast::<u8>(), used as usize);
        // What is missing is told from the length that the first record says.
        i64::from(maps::ACTIVITY.output::<[u8]>(bytes, 0).is_err())
    }
}

/// Says in the record whether the object has another name that counts. Whether the rules for this or for that one
/// decided is for the reader to see.
#[inline(never)]
#[unsafe(no_mangle)]
pub extern "C" fn name_other(sc: *mut Scratch) -> u64 {
    let record = maps::RECORDS.of_current();
    if sc.is_null() || record.is_null() {
        return 0;
    }
    // SAFETY: `sc` is the task's scratch, `record` its record.
    unsafe {
        let header = record.cast::<Header>();
        (*sc).address = core::ptr::read_volatile(&raw const (*sc).dentry);
        (*header).flags &= !flag::OTHER_NAME;
        if path::find_link(sc, core::ptr::read_volatile(&raw const (*sc).policy) as u32) != 0 {
            (*header).flags |= flag::OTHER_NAME;
            (*header).states = [(*sc).object[0], (*sc).object[1], (*sc).object[2]];
        }
    }
    0
}

/// The components for a name that is only shown.
#[inline(always)]
unsafe fn climb_for_record(sc: *mut Scratch) -> u64 {
    path::climb(sc)
}

/// Appends the collected components to the record as a path, within `room` bytes. Non-zero: cut.
#[inline(never)]
#[unsafe(no_mangle)]
pub extern "C" fn render(sc: *mut Scratch, room: u64) -> u64 {
    let record = maps::RECORDS.of_current();
    if sc.is_null() || record.is_null() {
        return 1;
    }
    // SAFETY: `sc` is the task's scratch; the callback gets the address of a value that outlives the
    // call.
    unsafe {
        let first = core::ptr::read_volatile(&raw const (*sc).used);
        let count = core::ptr::read_volatile(&raw const (*sc).count);
        if count == 0 {
            let Some(at) = below::<RECORD_MASK>(first, RECORD_END) else { return 1 };
            record.cast::<u8>().add(at as usize).write_volatile(b'/');
            core::ptr::write_volatile(&raw mut (*sc).used, first + 1);
            return 0;
        }
        (*sc).render = Render { first, room, cut: 0 };
        let mut round = path::Round { sc };
        bpf_loop(count as u32, render_round as *mut c_void, (&raw mut round).cast(), 0);
        core::ptr::read_volatile(&raw const (*sc).render.cut)
    }
}

/// One component, the topmost first. 1 ends the loop.
extern "C" fn render_round(number: u32, round: *mut path::Round) -> i64 {
    // SAFETY: as in `render`; every offset is masked to the record, which has room for a name behind
    // the mask.
    unsafe {
        let sc = (*round).sc;
        let at = &mut (*sc).render;
        let record = maps::RECORDS.of_current();
        at.cut = 1;
        if record.is_null() {
            return 1;
        }
        let component = (&raw const (*sc).component).cast::<Component>();
        let index = (*sc).count - 1 - u64::from(number);
        let entry = component.add(bound::<{ limits::DEPTH as i32 - 1 }>(index) as usize);
        let len = bound::<255>((*entry).len);
        let used = (*sc).used;
        if used - at.first + len + 1 > at.room || used + len + 1 > RECORD_MAX as u64 {
            return 1;
        }
        let Some(position) = below::<RECORD_MASK>(used, RECORD_END) else { return 1 };
        let to = record.cast::<u8>().add(position as usize);
        to.write_volatile(b'/');
        if bpf_probe_read_kernel(to.add(1).cast(), len as u32, (*entry).name as *const _) != 0 {
            return 1;
        }
        (*sc).used = used + len + 1;
        at.cut = 0;
        0
    }
}
