//! Waiting for a person. A call whose verdict is hold is not answered: its thread is stopped inside the system
//! call, and when it goes on the kernel makes the call again by itself (`-ERESTARTNOINTR`,
//! arch_do_signal_or_restart(), arch/x86/kernel/signal.c). The hook runs again then and finds a grant, a refusal, or
//! nothing new.

mod hash;
mod loaded;
mod request;
mod ticket;

pub use loaded::{kill, loaded_decided};
pub use ticket::approves_program;

use crate::{
    call, emit, maps, object,
    subject::{self, Subject},
    verifier::{Conclusion, atomic_add, compare_exchange},
};
use aya_ebpf::helpers::{
    bpf_get_current_pid_tgid,
    generated::{bpf_ktime_get_boot_ns, bpf_send_signal_thread},
};
use enforcer_common::{
    event::{Header, kind, operation, reason},
    hold::{ASKED, GRANTED, Hold, REFUSED, WAITING, Waiter, WaiterKey, Word},
    scratch::Scratch,
    verdict::Verdict,
};

/// What [`settle`] says.
mod outcome {
    pub(super) const GO_ON: u64 = 0;
    pub(super) const REFUSE: u64 = 1;
    pub(super) const WAIT: u64 = 2;
    /// Beside it: there is nothing new to record.
    pub(super) const SILENT: u64 = 4;
}

const SIGCONT: u32 = 18;
const SIGSTOP: u32 = 19;

/// What is asked for besides the object.
#[derive(Clone, Copy)]
pub struct Beside {
    /// Dentry of the operation's second name, or zero.
    pub target: u64,
    /// Its mount.
    pub mount: u64,
    /// The running call has created the object.
    pub created: bool,
}

impl Beside {
    /// Nothing.
    pub const NOTHING: Self = Self { target: 0, mount: 0, created: false };
}

/// Asks a person, whose answer may be there already. The record in the making says what for.
///
/// The steps are called one after the other rather than by each other: older verifiers bound what all frames of a
/// chain of calls take together.
#[inline(always)]
pub fn ask(subject: &Subject, check: u64, beside: &Beside, sc: *mut Scratch) -> Conclusion {
    // SAFETY: not null, and nobody else uses a task's scratch.
    unsafe {
        core::ptr::write_volatile(&raw mut (*sc).asking.target[0], beside.target);
        core::ptr::write_volatile(&raw mut (*sc).asking.target[1], beside.mount);
        core::ptr::write_volatile(&raw mut (*sc).asking.created, u64::from(beside.created));
        let mut i = 0;
        while i < 4 {
            let word = if subject.policy.is_null() {
                0
            } else {
                let digest = (&raw const (*subject.policy).digest).cast::<u64>();
                core::ptr::read_volatile(digest.add(i))
            };
            core::ptr::write_volatile((&raw mut (*sc).asking.policy).cast::<u64>().add(i), word);
            i += 1;
        }
    }
    let unclear = if call::can_wait() { request::identify(sc) } else { 1 };
    let said = if unclear == 0 { settle(u64::from(subject.label)) } else { outcome::REFUSE };
    match put(said, check) {
        outcome::GO_ON => Conclusion::GoOn,
        outcome::WAIT => Conclusion::Wait,
        _ => Conclusion::Refuse,
    }
}

/// Records what is new of what was said, and stops the thread if it has to wait.
#[inline(never)]
#[unsafe(no_mangle)]
pub extern "C" fn put(said: u64, check: u64) -> u64 {
    // Looked up again: older verifiers take no key of a map from memory that is handed to a function.
    let (sc, record) = (maps::SCRATCH.of_current(), maps::RECORDS.of_current());
    if sc.is_null() || record.is_null() {
        return outcome::REFUSE;
    }
    let answer = said & 3;
    // SAFETY: map memory; the record begins with a header.
    unsafe {
        let header = record.cast::<Header>();
        match answer {
            outcome::GO_ON => (*header).verdict = Verdict::Allow as u16,
            outcome::WAIT => {
                (*header).kind = kind::HELD;
                (*header).verdict = Verdict::Hold as u16;
                ticket::keep(sc);
                // Before the record: whoever answers it at once must find a thread that is going to stop.
                if bpf_send_signal_thread(SIGSTOP) != 0 {
                    no_longer_waits(sc);
                    (*header).kind = kind::DECISION;
                    return refuse(sc, header, reason::HELD, check);
                }
            }
            _ => return refuse(sc, header, (*header).reason, check),
        }
        if said & outcome::SILENT == 0 && emit::send(sc, 0) != 0 {
            emit::lose_of(header);
            if answer == outcome::WAIT {
                // Nobody would hear of it. A signal to go on takes back the one to stop
                // (prepare_signal(), kernel/signal.c).
                bpf_send_signal_thread(SIGCONT);
                no_longer_waits(sc);
                return outcome::REFUSE;
            }
        }
    }
    answer
}

/// Completes the record of a refusal.
#[inline(always)]
unsafe fn refuse(sc: *mut Scratch, header: *mut Header, why: u16, check: u64) -> u64 {
    // SAFETY: map memory.
    unsafe {
        (*header).verdict = Verdict::Deny as u16;
        (*header).error = emit::EPERM;
        (*header).reason = why;
        if call::is_recorded(sc, check) == 0 && emit::send(sc, 0) != 0 {
            emit::lose_of(header);
        }
    }
    outcome::REFUSE
}

/// Looks for the answer. What has none yet is put to somebody. Leaves the reason in the record.
#[inline(never)]
#[unsafe(no_mangle)]
pub extern "C" fn settle(slot: u64) -> u64 {
    // Looked up again: older verifiers take no key of a map from memory that is handed to a function.
    let (sc, record) = (maps::SCRATCH.of_current(), maps::RECORDS.of_current());
    if sc.is_null() || record.is_null() {
        return outcome::REFUSE;
    }
    // SAFETY: map memory.
    unsafe {
        let header = record.cast::<Header>();
        (*header).hold = (*sc).asking.id;
        // The call's approval to execute is none of its arguments.
        if (*header).operation != operation::ARGUMENTS && ticket::passes(sc) != 0 {
            return outcome::GO_ON | outcome::SILENT;
        }
        let now = bpf_ktime_get_boot_ns();
        let id = (*sc).asking.id;
        let Some(hold) = maps::HOLDS.get_ptr_mut(&(*sc).asking.id) else {
            return request_new(sc, slot, now, NOEXIST);
        };
        let word = Word(core::ptr::read_volatile(&raw const (*hold).word));
        let open = now < core::ptr::read_volatile(&raw const (*hold).deadline);
        // The entry may have become another one's while it was read.
        if !word.is_of(id) || core::ptr::read_volatile(&raw const (*hold).word) != word.0 {
            (*header).reason = reason::INTERNAL;
            return outcome::REFUSE;
        }
        match (word.state(), open) {
            (WAITING, true) => wait(sc, now),
            (ASKED, true) => outcome::REFUSE,
            (WAITING | ASKED, false) => {
                no_longer_waits(sc);
                (*header).reason = reason::TIMED_OUT;
                outcome::REFUSE
            }
            (REFUSED, true) => {
                no_longer_waits(sc);
                (*header).reason = reason::REFUSED;
                outcome::REFUSE
            }
            (GRANTED, true) if word.uses() > 0 => {
                no_longer_waits(sc);
                if take(hold, word) {
                    (*header).reason = reason::GRANTED;
                    ticket::give(sc);
                    outcome::GO_ON
                } else {
                    (*header).reason = reason::INTERNAL;
                    outcome::REFUSE
                }
            }
            (GRANTED | REFUSED, _) => {
                // What this thread waited for has been answered, to others: it asks anew, and somebody must hear of it.
                no_longer_waits(sc);
                request_new(sc, slot, now, ANY)
            }
            _ => {
                (*header).reason = reason::INTERNAL;
                outcome::REFUSE
            }
        }
    }
}

/// Takes one use. Others may take some at the same time; after a few attempts it is given up.
#[inline(always)]
unsafe fn take(hold: *mut Hold, mut word: Word) -> bool {
    let mut attempt = 0;
    while attempt < 8 {
        // SAFETY: an aligned word of a map value.
        let found = Word(unsafe { compare_exchange(&raw mut (*hold).word, word.0, word.0 - 1) });
        if found == word {
            return true;
        }
        // Another one's entry, a refusal, or nothing left.
        if found.0 >> 24 != word.0 >> 24 || found.uses() == 0 {
            return false;
        }
        word = found;
        attempt += 1;
    }
    false
}

/// Flags of an update (include/uapi/linux/bpf.h).
const ANY: u64 = 0;
const NOEXIST: u64 = 1;

/// Puts a new request, if the session may still make one.
#[inline(always)]
unsafe fn request_new(sc: *mut Scratch, slot: u64, now: u64, flags: u64) -> u64 {
    let record = maps::RECORDS.of_current();
    if record.is_null() {
        return outcome::REFUSE;
    }
    // SAFETY: map memory.
    unsafe {
        let header = record.cast::<Header>();
        let (Some(quota), Some(settings)) =
            (maps::QUOTAS.get_ptr_mut(slot as u32), maps::HOLD_SETTINGS.get_ptr(0))
        else {
            return outcome::REFUSE;
        };
        // Most programs whose arguments are judged concern nobody; the daemon limits those that do.
        let counts = (*header).operation != operation::ARGUMENTS;
        if counts
            && core::ptr::read_volatile(&raw const (*quota).asked)
                >= core::ptr::read_volatile(&raw const (*quota).allowed)
        {
            (*header).reason = reason::TOO_MANY;
            return outcome::REFUSE;
        }
        let asking = &raw mut (*sc).asking;
        let hold = &raw mut (*asking).hold;
        (*hold).word = Word::new((*asking).id, WAITING, 0).0;
        (*hold).deadline = now + (*settings).wait;
        (*hold).since = now;
        (*hold).session = (*header).session;
        (*hold).slot = slot as u32;
        (*hold).agent = (*header).agent;
        (*hold).policy = (*header).policy;
        (*hold).operation = (*header).operation;
        (*hold).access = (*header).access as u16;
        (*hold).digest = (*asking).policy;
        if maps::HOLDS.insert(&(*asking).id, &*hold, flags).is_err() {
            // Another thread was faster, or there is no room.
            if maps::HOLDS.get_ptr(&(*asking).id).is_none() {
                return outcome::REFUSE;
            }
        } else if counts {
            atomic_add(&raw mut (*quota).asked, 1);
        }
        wait(sc, now)
    }
}

/// Notes that this thread waits; only the first time is news.
#[inline(always)]
unsafe fn wait(sc: *mut Scratch, now: u64) -> u64 {
    // SAFETY: map memory and the running task.
    unsafe {
        let outcome = note_waiter(sc, now);
        // Last: whoever sees it finds what it counts.
        atomic_add(&raw mut (*maps::gate()).waits, 1);
        outcome
    }
}

#[inline(always)]
unsafe fn note_waiter(sc: *mut Scratch, now: u64) -> u64 {
    // SAFETY: map memory and the running task.
    unsafe {
        let asking = &raw mut (*sc).asking;
        who(&raw mut (*asking).key);
        if let Some(waiter) = maps::WAITERS.get_ptr_mut(&(*asking).key)
            && (*waiter).id == (*asking).id
        {
            atomic_add(&raw mut (*waiter).woken, 1);
            return outcome::WAIT | outcome::SILENT;
        }
        (*asking).waiter = Waiter { id: (*asking).id, since: now, woken: 0 };
        if maps::WAITERS.insert(&(*asking).key, &(*asking).waiter, ANY).is_err() {
            return outcome::REFUSE;
        }
        outcome::WAIT
    }
}

#[inline(always)]
unsafe fn no_longer_waits(sc: *mut Scratch) {
    // SAFETY: map memory.
    unsafe {
        let key = &raw mut (*sc).asking.key;
        who(key);
        let _ = maps::WAITERS.remove(&*key);
    }
}

#[inline(always)]
unsafe fn who(key: *mut WaiterKey) {
    let ids = bpf_get_current_pid_tgid();
    // SAFETY: map memory and the running task.
    unsafe {
        (*key).pid = ids as u32;
        (*key).tgid = (ids >> 32) as u32;
        (*key).started =
            object::number(object::pointer(subject::task(), &object::TASK_LEADER), &object::TASK_START);
    }
}
