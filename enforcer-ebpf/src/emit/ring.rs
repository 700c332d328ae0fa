//! The rings are everybody's: while one is more than half full, each agent may add only so much to it in a while. So
//! whoever leaves records as fast as it can takes no more than half of a ring from others, whose records are few, and
//! whose programs are stopped or refused if nobody can be told about their arguments.

use crate::maps;
use aya_ebpf::maps::RingBuf;
use core::ptr::{read_volatile, write_volatile};
use enforcer_common::{
    event::Header,
    limits::{ACTIVITY_RING, DECISION_RING, SHARE_PART, SHARE_SHIFT, SHARE_UNIT},
};

/// `BPF_RB_AVAIL_DATA` (include/uapi/linux/bpf.h).
const WAITING: u64 = 0;

/// Puts a complete record on the ring of decisions (0) or activity (1). False: it did not fit, or its agent has had its
/// share for now. Of several CPUs that count at once some may not be counted.
///
/// # Safety
/// `header` begins `bytes`.
#[inline(always)]
pub(crate) unsafe fn put(header: *const Header, bytes: &[u8], ring: u64) -> bool {
    // SAFETY: a map value each; the header is the caller's.
    unsafe {
        let shares = match maps::AGENTS.get_ptr_mut((*header).agent) {
            Some(agent) => (&raw mut (*agent).shares).cast::<u32>(),
            None => (&raw mut (*maps::gate()).shares).cast::<u32>(),
        };
        let time = (*header).time;
        if ring == 0 {
            onto::<DECISION_RING>(&maps::DECISIONS, shares, time, bytes)
        } else {
            onto::<ACTIVITY_RING>(&maps::ACTIVITY, shares.add(1), time, bytes)
        }
    }
}

#[inline(always)]
unsafe fn onto<const SIZE: u32>(ring: &RingBuf, share: *mut u32, time: u64, bytes: &[u8]) -> bool {
    if ring.query(WAITING) > u64::from(SIZE / 2) {
        // SAFETY: a word of a map value.
        unsafe {
            let (now, had) = ((time >> SHARE_SHIFT) as u32 & 0xffff, read_volatile(share));
            let had = if had >> 16 == now { had & 0xffff } else { 0 };
            let units = had + (bytes.len() as u32).div_ceil(SHARE_UNIT);
            if units > SIZE / SHARE_PART / SHARE_UNIT {
                return false;
            }
            write_volatile(share, now << 16 | units);
        }
    }
    ring.output::<[u8]>(bytes, 0).is_ok()
}
