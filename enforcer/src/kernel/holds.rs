//! Holds and those who wait for them, in the kernel's tables.

use super::{
    sessions::boot_time,
    tables::{Holds, Tables, Waiters, failed, to_bytes, view},
};
use crate::daemon::enforcement::EnforcementError;
use aya::maps::MapError;
use enforcer_common::{
    event::operation,
    hold::{ASKED, GRANTED, Hold, HoldId, HoldSettings, Quota, REFUSED, WAITING, Waiter, WaiterKey, Word},
    limits,
};
use rustix::{
    io::Errno,
    process::{Pid, PidfdFlags, Signal, pidfd_open, pidfd_send_signal},
};
use std::{fs, io, mem::offset_of, sync::atomic::Ordering};

/// New requests that a session may make before the daemon has said anything about it.
const AT_FIRST: u64 = 64;
/// Nanoseconds that a request is open while the daemon says nothing.
const WAIT: u64 = 600_000_000_000;

const WORDS: usize = size_of::<HoldId>();
const ENTRY: usize = size_of::<Hold>();
/// `BPF_EXIST` (include/uapi/linux/bpf.h).
const EXIST: u64 = 2;

/// Prepares the tables on their first use: a secret, and a quota for every session.
pub fn adopt(tables: &mut Tables) -> Result<(), EnforcementError> {
    let key = offset_of!(HoldSettings, key);
    if tables.hold_settings.word(key).load(Ordering::SeqCst) != 0 {
        return Ok(());
    }
    for slot in 0..limits::SESSIONS {
        quota(tables, slot, offset_of!(Quota, allowed)).store(AT_FIRST, Ordering::SeqCst);
    }
    tables.hold_settings.word(offset_of!(HoldSettings, wait)).store(WAIT, Ordering::SeqCst);
    let mut secret = [0; 16];
    getrandom::getrandom(&mut secret).map_err(|e| EnforcementError::Kernel {
        what: "asking the kernel for random numbers".to_owned(),
        source: io::Error::other(e.to_string()),
    })?;
    let [low, high] =
        [&secret[..8], &secret[8..]].map(|half| u64::from_ne_bytes(half.try_into().unwrap_or([1; 8])));
    tables.hold_settings.word(key + 8).store(high, Ordering::SeqCst);
    // Last: programs take a zero here as "nothing can be held".
    tables.hold_settings.word(key).store(low | 1, Ordering::SeqCst);
    Ok(())
}

fn quota(tables: &Tables, slot: u32, field: usize) -> &std::sync::atomic::AtomicU64 {
    tables.quotas.word(slot as usize * size_of::<Quota>() + field)
}

/// Every hold.
pub fn list(holds: &Holds) -> Result<Vec<(HoldId, Hold)>, EnforcementError> {
    let entries = holds.iter().map(|entry| entry.map(|(id, hold)| (view(&id), view(&hold))));
    entries.collect::<Result<_, _>>().map_err(|e| failed("reading HOLDS", e))
}

/// What is known of one request or grant.
pub fn one(holds: &Holds, id: HoldId) -> Result<Option<Hold>, EnforcementError> {
    match holds.get(&to_bytes::<_, WORDS>(&id), 0) {
        Ok(bytes) => Ok(Some(view(&bytes))),
        Err(MapError::KeyNotFound) => Ok(None),
        Err(e) => Err(failed("reading HOLDS", e)),
    }
}

/// Every thread that waits.
pub fn waiters(waiters: &Waiters) -> Result<Vec<(WaiterKey, Waiter)>, EnforcementError> {
    let entries = waiters.iter().map(|entry| entry.map(|(key, waiter)| (view(&key), view(&waiter))));
    entries.collect::<Result<_, _>>().map_err(|e| failed("reading WAITERS", e))
}

/// Replaces what is known of a hold. `false`: it is not there, or `change` leaves it as it is.
///
/// The programs only take uses from a grant, and grants are only ever replaced by refusals, so nothing of theirs
/// is overwritten by a change of what is open.
fn change(
    tables: &mut Tables,
    id: HoldId,
    change: impl FnOnce(Hold) -> Option<Hold>,
) -> Result<bool, EnforcementError> {
    let key = to_bytes::<_, WORDS>(&id);
    let Some(old) = one(&tables.holds, id)? else { return Ok(false) };
    let Some(new) = change(old) else { return Ok(false) };
    match tables.holds.insert(key, to_bytes::<_, ENTRY>(&new), EXIST) {
        Ok(()) => Ok(true),
        Err(MapError::SyscallError(e)) if e.io_error.kind() == io::ErrorKind::NotFound => Ok(false),
        Err(e) => Err(failed("writing HOLDS", e)),
    }
}

/// Sets what becomes of a request that nobody has answered yet.
fn change_open(
    tables: &mut Tables,
    id: HoldId,
    state: u8,
    uses: u32,
    until: u64,
) -> Result<bool, EnforcementError> {
    change(tables, id, |hold| {
        let open = matches!(Word(hold.word).state(), WAITING | ASKED);
        open.then_some(Hold { word: Word::new(id, state, uses).0, deadline: until, ..hold })
    })
}

/// See [`crate::daemon::enforcement::Enforcement::set_hold_open`].
pub fn set_open(tables: &mut Tables, id: HoldId, until: u64, wait: bool) -> Result<bool, EnforcementError> {
    change_open(tables, id, if wait { WAITING } else { ASKED }, 0, until)
}

/// See [`crate::daemon::enforcement::Enforcement::grant`].
pub fn grant(tables: &mut Tables, id: HoldId, uses: u32, until: u64) -> Result<bool, EnforcementError> {
    change_open(tables, id, GRANTED, uses.min(Word::MOST), until)
}

/// See [`crate::daemon::enforcement::Enforcement::refuse_hold`].
pub fn refuse(tables: &mut Tables, id: HoldId, until: u64) -> Result<bool, EnforcementError> {
    change(tables, id, |hold| Some(Hold { word: Word::new(id, REFUSED, 0).0, deadline: until, ..hold }))
}

/// See [`crate::daemon::enforcement::Enforcement::forget_hold`].
pub fn forget(tables: &mut Tables, id: HoldId) -> Result<(), EnforcementError> {
    gone_is_fine(tables.holds.remove(&to_bytes::<_, WORDS>(&id)), "HOLDS")
}

/// See [`crate::daemon::enforcement::Enforcement::forget_waiter`].
pub fn forget_waiter(tables: &mut Tables, key: WaiterKey) -> Result<(), EnforcementError> {
    gone_is_fine(tables.waiters.remove(&to_bytes::<_, { size_of::<WaiterKey>() }>(&key)), "WAITERS")
}

fn gone_is_fine(result: Result<(), MapError>, map: &str) -> Result<(), EnforcementError> {
    or_gone(result, map).map(|_| ())
}

/// What was found, or `None` where there is no such entry.
fn or_gone<T>(result: Result<T, MapError>, map: &str) -> Result<Option<T>, EnforcementError> {
    match result {
        Ok(found) => Ok(Some(found)),
        Err(MapError::KeyNotFound) => Ok(None),
        Err(MapError::SyscallError(e)) if e.io_error.kind() == io::ErrorKind::NotFound => Ok(None),
        Err(e) => Err(failed(&format!("looking up an entry of {map}"), e)),
    }
}

/// See [`crate::daemon::enforcement::Enforcement::set_hold_quota`].
pub fn set_quota(tables: &Tables, slot: u32, more: u32) -> Result<(), EnforcementError> {
    if slot >= limits::SESSIONS {
        return Err(EnforcementError::Gone(format!("session {slot}")));
    }
    let asked = quota(tables, slot, offset_of!(Quota, asked)).load(Ordering::SeqCst);
    quota(tables, slot, offset_of!(Quota, allowed)).store(asked + u64::from(more), Ordering::SeqCst);
    Ok(())
}

/// What a woken thread is to do. A call is made again, and meets its hook. A loaded program has nothing that it could
/// make again: it runs if it may, ends if it may not, and otherwise goes on waiting.
fn signal(holds: &Holds, waiters: &Waiters, waiter: WaiterKey) -> Result<Option<Signal>, EnforcementError> {
    let key = to_bytes::<_, { size_of::<WaiterKey>() }>(&waiter);
    let found = or_gone(waiters.get(&key, 0), "WAITERS")?;
    let Some(id) = found.map(|bytes| view::<Waiter>(&bytes).id) else { return Ok(Some(Signal::CONT)) };
    let hold = or_gone(holds.get(&to_bytes::<_, WORDS>(&id), 0), "HOLDS")?;
    let Some(hold) = hold.map(|bytes| view::<Hold>(&bytes)) else { return Ok(Some(Signal::CONT)) };
    if hold.operation != operation::ARGUMENTS {
        return Ok(Some(Signal::CONT));
    }
    let open = boot_time() < hold.deadline;
    Ok(match Word(hold.word).state() {
        GRANTED if open => Some(Signal::CONT),
        WAITING | ASKED if open => None,
        _ => Some(Signal::KILL),
    })
}

/// See [`crate::daemon::enforcement::Enforcement::wake`].
pub fn wake(holds: &Holds, waiters: &Waiters, waiter: WaiterKey) -> Result<(), EnforcementError> {
    let Some(signal) = signal(holds, waiters, waiter)? else { return Ok(()) };
    let gone = [Errno::SRCH, Errno::INVAL];
    let wrong = |e: Errno| EnforcementError::Kernel {
        what: format!("waking process {}", waiter.tgid),
        source: e.into(),
    };
    let Some(pid) = i32::try_from(waiter.tgid).ok().and_then(Pid::from_raw) else { return Ok(()) };
    // First the descriptor, then the look at who it is: from then on the id cannot become another's.
    let process = match pidfd_open(pid, PidfdFlags::empty()) {
        Ok(process) => process,
        Err(e) if gone.contains(&e) => return Ok(()),
        Err(e) => return Err(wrong(e)),
    };
    if !is_the_same(waiter) {
        return Ok(());
    }
    match pidfd_send_signal(&process, signal) {
        Ok(()) => Ok(()),
        Err(e) if gone.contains(&e) => Ok(()),
        Err(e) => Err(wrong(e)),
    }
}

/// Whether the process with the waiter's id is the one that waited, as far as /proc tells: it gives the start in
/// ticks of a hundredth of a second (`do_task_stat()`, fs/proc/array.c).
fn is_the_same(waiter: WaiterKey) -> bool {
    const TICK: u64 = 10_000_000;
    let Ok(stat) = fs::read_to_string(format!("/proc/{}/stat", waiter.tgid)) else { return false };
    // The name, which the program chooses, may contain anything; it ends at the last bracket.
    let fields = stat.rsplit_once(')').map_or("", |(_, rest)| rest);
    let started = fields.split_ascii_whitespace().nth(19).and_then(|field| field.parse::<u64>().ok());
    started == Some(waiter.started / TICK)
}
