//! Records for the rings. Nothing here decides anything: a record that does not fit is counted for
//! its agent and the verdict stays what it was.

mod executed;
mod first_use;
mod names;
mod ring;

pub use executed::executed;
pub use first_use::first_use;
pub(crate) use names::render;

use crate::{
    call,
    gate::is_replaced,
    hold::{self, Beside},
    maps,
    path::{self, outcome},
    subject::{self, Subject},
    verifier::{Conclusion, atomic_add, below},
};
use aya_ebpf::helpers::{
    bpf_get_current_pid_tgid, bpf_get_current_uid_gid,
    generated::{bpf_get_current_cgroup_id, bpf_get_current_comm, bpf_ktime_get_boot_ns},
};
use enforcer_common::{
    event::{self, Header, NO_AGENT, flag, kind, reason},
    limits,
    map::Session,
    scratch::{RECORD_MAX, Record, Scratch},
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
    // What goes on is recorded by the programs that have taken over.
    if only_recorded && is_replaced() {
        return Conclusion::GoOn;
    }
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
            first_use::tell_first(subject, sc, record);
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
    // SAFETY: `sc` is the task's scratch, `record` its record.
    unsafe {
        let header = record.cast::<Header>();
        let ids = bpf_get_current_pid_tgid();
        (*header).time = bpf_ktime_get_boot_ns();
        (*header).cgroup = bpf_get_current_cgroup_id();
        (*header).tgid = (ids >> 32) as u32;
        (*header).pid = ids as u32;
        (*header).uid = bpf_get_current_uid_gid() as u32;
        bpf_get_current_comm((&raw mut (*header).comm).cast(), 16);
        names::name_task();

        if core::ptr::read_volatile(&raw const (*sc).dentry) != 0 {
            if (*header).flags & flag::OTHER_NAME != 0 {
                names::name_other(sc);
            }
            match names::climb_for_record(sc) {
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

        names::take_exe(sc);
        if names::climb_for_record(sc) == outcome::UNKNOWN
            || render(sc, RECORD_MAX as u64 - HEADER - names) != 0
        {
            (*header).flags |= flag::EXE_CUT;
        }
        let used = core::ptr::read_volatile(&raw const (*sc).used);
        (*header).exe_len = (used - HEADER - names) as u16;
        (*header).length = used as u32;

        let Some(used) = below::<RECORD_MASK>(used, RECORD_END) else { return 1 };
        let record = core::slice::from_raw_parts(record.cast::<u8>(), used as usize);
        u64::from(!ring::put(header, record, ring))
    }
}
