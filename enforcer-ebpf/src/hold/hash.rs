//! SipHash-2-4 with 128 bits (Aumasson, Bernstein: "SipHash: a fast short-input PRF") over whole words. Nobody
//! without the key can find two requests with one hash.

use crate::{
    maps,
    path::Round,
    verifier::{below, bound},
};
use aya_ebpf::helpers::generated::bpf_loop;
use core::ffi::c_void;
use enforcer_common::{
    event::Header,
    hold::HoldId,
    scratch::{RECORD_MAX, Scratch},
};

/// Begins. False: there is no key yet.
#[inline(always)]
pub unsafe fn begin(sc: *mut Scratch) -> bool {
    let Some(settings) = maps::HOLD_SETTINGS.get_ptr(0) else { return false };
    // SAFETY: a map value; the scratch is not null.
    unsafe {
        let key = [core::ptr::read_volatile(&raw const (*settings).key[0]), (*settings).key[1]];
        if key[0] == 0 {
            return false;
        }
        (*sc).asking.hash = [
            key[0] ^ 0x736f_6d65_7073_6575,
            key[1] ^ 0x646f_7261_6e64_6f6d ^ 0xee,
            key[0] ^ 0x6c79_6765_6e65_7261,
            key[1] ^ 0x7465_6462_7974_6573,
        ];
    }
    true
}

#[inline(always)]
fn round(v: &mut [u64; 4]) {
    v[0] = v[0].wrapping_add(v[1]);
    v[1] = v[1].rotate_left(13) ^ v[0];
    v[0] = v[0].rotate_left(32);
    v[2] = v[2].wrapping_add(v[3]);
    v[3] = v[3].rotate_left(16) ^ v[2];
    v[0] = v[0].wrapping_add(v[3]);
    v[3] = v[3].rotate_left(21) ^ v[0];
    v[2] = v[2].wrapping_add(v[1]);
    v[1] = v[1].rotate_left(17) ^ v[2];
    v[2] = v[2].rotate_left(32);
}

/// One word.
#[inline(never)]
#[unsafe(no_mangle)]
pub extern "C" fn absorb(sc: *mut Scratch, word: u64) -> u64 {
    if sc.is_null() {
        return 1;
    }
    // SAFETY: not null.
    unsafe {
        let mut v = (*sc).asking.hash;
        v[3] ^= word;
        round(&mut v);
        round(&mut v);
        v[0] ^= word;
        (*sc).asking.hash = v;
    }
    0
}

/// The hash of what was absorbed.
#[inline(always)]
pub unsafe fn finish(sc: *mut Scratch) -> HoldId {
    // SAFETY: not null.
    unsafe {
        let mut v = (*sc).asking.hash;
        v[2] ^= 0xee;
        four(&mut v);
        let low = v[0] ^ v[1] ^ v[2] ^ v[3];
        v[1] ^= 0xdd;
        four(&mut v);
        [low, v[0] ^ v[1] ^ v[2] ^ v[3]]
    }
}

#[inline(always)]
fn four(v: &mut [u64; 4]) {
    let mut i = 0;
    while i < 4 {
        round(v);
        i += 1;
    }
}

/// Absorbs the names in the task's record: `words` of it, from behind the header on. False: not all of them.
#[inline(always)]
pub unsafe fn absorb_names(sc: *mut Scratch, words: u64) -> bool {
    let mut round = Round { sc };
    // The whole register: where the verifier puts the loop in line it compares 64 bits of the number, of which the
    // compiler only keeps 32 (`inline_bpf_loop()`, kernel/bpf/verifier.c).
    let words = bound::<1023>(words);
    // SAFETY: the callback gets the address of a value that outlives the call.
    let done = unsafe { bpf_loop(words as u32, absorb_name as *mut c_void, (&raw mut round).cast(), 0) };
    done as u64 == words
}

/// Words 1 end the loop.
extern "C" fn absorb_name(number: u32, round: *mut Round) -> i64 {
    // SAFETY: the offset is masked to the record, which has room for a word behind the mask.
    unsafe {
        let record = maps::RECORDS.of_current();
        let at = size_of::<Header>() as u64 + 8 * u64::from(number);
        let Some(at) = below::<8191>(at, RECORD_MAX as u64) else { return 1 };
        if record.is_null() {
            return 1;
        }
        let word = core::ptr::read_volatile(record.cast::<u8>().add(at as usize).cast::<u64>());
        absorb((*round).sc, word);
        0
    }
}
