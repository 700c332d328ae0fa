//! A program that has been loaded and waits for the verdict on its arguments: only the new image says for certain
//! what they are. Its label gives no rights until that verdict is an allow, so an early wake-up gains nothing.

use super::{SIGSTOP, take, who};
use crate::{maps, subject};
use aya_ebpf::helpers::generated::{bpf_ktime_get_boot_ns, bpf_send_signal, bpf_send_signal_thread};
use enforcer_common::{
    hold::{GRANTED, WAITING, Word},
    map::{LABEL_LOADED, Label, waiting},
};

const SIGKILL: u32 = 9;

/// Ends the running task's process before it returns to its program.
#[inline(always)]
pub fn kill() {
    // SAFETY: the helper takes a signal's number.
    unsafe { bpf_send_signal(SIGKILL) };
}

/// Looks for the verdict on the running task's program. 1: it may run, and its label says so again. 0: it has no
/// rights; it stops again while nobody has decided, and ends otherwise.
#[inline(never)]
#[unsafe(no_mangle)]
pub extern "C" fn loaded_decided() -> u64 {
    let (sc, label) = (maps::SCRATCH.of_current(), maps::LABELS.of_current());
    if sc.is_null() || label.is_null() {
        return 0;
    }
    // SAFETY: map memory.
    unsafe {
        let key = &raw mut (*sc).asking.key;
        who(key);
        let Some(waiter) = maps::WAITERS.get_ptr_mut(&(*sc).asking.key) else {
            kill();
            return 0;
        };
        let id = (*waiter).id;
        let Some(hold) = maps::HOLDS.get_ptr_mut(&(*waiter).id) else {
            kill();
            return 0;
        };
        let word = Word(core::ptr::read_volatile(&raw const (*hold).word));
        let open = bpf_ktime_get_boot_ns() < core::ptr::read_volatile(&raw const (*hold).deadline);
        if word.is_of(id) && open && is_in_force(&*label, &raw const (*hold).digest) {
            if word.state() == GRANTED && word.uses() > 0 && take(hold, word) {
                let _ = maps::WAITERS.remove(&(*sc).asking.key);
                (*sc).asking.id = id;
                let _ = maps::HOLDS.remove(&(*sc).asking.id);
                (*label).flags &= !LABEL_LOADED;
                (*label).generation = waiting((*label).generation);
                return 1;
            }
            if word.state() == WAITING {
                bpf_send_signal_thread(SIGSTOP);
                return 0;
            }
        }
        kill();
        0
    }
}

/// Whether the policy in force for the label's session is the one with this digest.
#[inline(always)]
unsafe fn is_in_force(label: &Label, digest: *const [u64; 4]) -> bool {
    let policy = subject::policy_of(label);
    if policy.is_null() {
        return false;
    }
    // SAFETY: map values.
    unsafe {
        let (own, other) = ((&raw const (*policy).digest).cast::<u64>(), digest.cast::<u64>());
        let mut i = 0;
        while i < 4 {
            if core::ptr::read_volatile(own.add(i)) != core::ptr::read_volatile(other.add(i)) {
                return false;
            }
            i += 1;
        }
    }
    true
}
