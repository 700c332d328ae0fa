//! Records of rare system calls, and what a policy says must become of whoever makes them. No verdict is made here and
//! none depends on it: what may happen, LSM hooks have decided.

use crate::{
    emit,
    gate::is_replaced,
    hold, maps,
    subject::{self, Subject},
    verifier::atomic_add,
};
use aya_ebpf::helpers::generated::{bpf_ktime_get_boot_ns, bpf_probe_read_user_str, bpf_send_signal};
use enforcer_common::{
    calls::{
        ARGUMENTS, CLONE, CLONE_PLACE, DETAIL, Detail, GOES_ON, KILLED, QUOTA, STOPPED, TEXT, UNDECIDED,
        WINDOW,
    },
    event::{Header, kind},
    map::Session,
};

/// A call that was made.
pub struct Made {
    /// Its place in the list of calls.
    pub place: u32,
    /// Its number for 64-bit programs.
    pub number: u32,
    /// 32 or 64.
    pub bits: u32,
    /// What it returned, or [`UNDECIDED`].
    pub result: i64,
    /// Its arguments.
    pub arguments: [u64; ARGUMENTS],
    /// Where its text lies, or 0.
    pub text: u64,
}

/// A task that asks for namespaces is about to be made.
#[inline(always)]
pub fn clone(subject: &Subject, flags: u64) {
    let arguments = [flags, 0, 0, 0, 0, 0];
    let (place, number) = (CLONE_PLACE, CLONE);
    note(subject, &Made { place, number, bits: 64, result: UNDECIDED, arguments, text: 0 });
}

/// Does with the caller what its policy says, and records the call.
#[inline(always)]
pub fn note(subject: &Subject, made: &Made) {
    let bit = 1 << (made.place & 63);
    let (mut ignored, mut then) = (false, GOES_ON);
    if !subject.policy.is_null() {
        // SAFETY: a policy's pointer is a map value.
        unsafe {
            ignored = (*subject.policy).ignored_calls & bit != 0;
            if (*subject.policy).stopping_calls & bit != 0 {
                then = STOPPED;
            }
            if (*subject.policy).killing_calls & bit != 0 {
                then = KILLED;
            }
        }
    }
    let mut flags = 0;
    if then != GOES_ON {
        flags = subject.audits();
        if flags == 0 {
            act(then);
        }
    }
    // The programs that have taken over record it.
    if ignored || is_replaced() {
        return;
    }
    // What ends in an act is never left out.
    if then == GOES_ON && spent(subject.session) {
        if let Some(agent) = subject::agent_of(subject.session) {
            // SAFETY: a map value.
            unsafe { atomic_add(&raw mut (*agent).calls_beyond, 1) };
        }
    } else if !record(subject, made, then, flags) {
        emit::lose_activity(subject.session);
    }
}

#[inline(always)]
fn act(then: u32) {
    const SIGSTOP: u32 = 19;
    if then == KILLED {
        hold::kill();
    } else {
        // SAFETY: the helper takes a signal's number.
        unsafe { bpf_send_signal(SIGSTOP) };
    }
}

/// Whether the session has left as many records in this window as it may. Two CPUs that begin a window at once may let
/// a few more pass.
#[inline(always)]
fn spent(session: *const Session) -> bool {
    if session.is_null() {
        return false;
    }
    let session = session.cast_mut();
    // SAFETY: a map value, and words of it that only these programs change.
    unsafe {
        let now = bpf_ktime_get_boot_ns();
        let since = core::ptr::read_volatile(&raw const (*session).calls_since);
        if now - since > WINDOW {
            core::ptr::write_volatile(&raw mut (*session).calls_since, now);
            core::ptr::write_volatile(&raw mut (*session).calls, 0);
        }
        atomic_add(&raw mut (*session).calls, 1);
        core::ptr::read_volatile(&raw const (*session).calls) > QUOTA
    }
}

/// False: it could not be recorded.
#[inline(always)]
fn record(subject: &Subject, made: &Made, then: u32, flags: u16) -> bool {
    let (sc, record) = (maps::SCRATCH.of_current_or_new(), maps::RECORDS.of_current_or_new());
    if sc.is_null() || record.is_null() {
        return false;
    }
    const HEADER: usize = size_of::<Header>();
    // SAFETY: neither is null; a record has room for a header, the detail and the text.
    unsafe {
        core::ptr::write_volatile(&raw mut (*sc).dentry, 0);
        let header = emit::start(sc, record, kind::SYSTEM_CALL);
        emit::name_session(header, subject.session);
        header.argument = made.number;
        header.flags = flags;
        if made.result < 0 && made.result >= -4095 {
            header.error = made.result as i32;
        }
        if !subject.policy.is_null() {
            header.policy = (*subject.policy).id;
        }
        let detail = record.cast::<u8>().add(HEADER).cast::<Detail>();
        let mut i = 0;
        while i < ARGUMENTS {
            core::ptr::write_volatile(&raw mut (*detail).arguments[i], made.arguments[i]);
            i += 1;
        }
        core::ptr::write_volatile(&raw mut (*detail).result, made.result);
        core::ptr::write_volatile(&raw mut (*detail).bits, made.bits);
        core::ptr::write_volatile(&raw mut (*detail).then, then);
        let mut length = DETAIL as u64;
        if made.text != 0 {
            let to = record.cast::<u8>().add(HEADER + DETAIL);
            let read = bpf_probe_read_user_str(to.cast(), TEXT as u32, made.text as *const _);
            if read > 0 && read <= TEXT as i64 {
                // Without its zero byte.
                length += read as u64 - 1;
            }
        }
        header.target_len = length as u16;
        core::ptr::write_volatile(&raw mut (*sc).used, HEADER as u64 + length);
        emit::send(sc, 1) == 0
    }
}
