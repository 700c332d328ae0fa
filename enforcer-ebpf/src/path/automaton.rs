//! The policy's automata, as they lie in the arena: a state is the byte offset of its row.

use crate::{maps, object, verifier::bound};
use enforcer_common::{
    limits,
    map::{Masks, Policy, ROW_HEADER, ROW_TWIN, STATE_SETTLED},
    offsets::Extra,
    scratch::Scratch,
    verdict::Words,
};

/// The daemon puts the mask there.
const ARENA_MASK: i32 = Extra::ArenaWords.placeholder();

pub use maps::arena;

/// The state after `byte`.
#[inline(always)]
pub unsafe fn step(arena: *const u8, class: *const u16, state: u64, byte: u8) -> u64 {
    // SAFETY: the mask keeps the row inside the arena, which is longer than the mask by more than a
    // row's header; `class` has 256 entries.
    unsafe {
        let column = u64::from(*class.add(byte as usize));
        let at = bound::<ARENA_MASK>(state + column);
        u64::from(core::ptr::read_volatile(arena.add(at as usize + ROW_HEADER as usize).cast::<u32>()))
    }
}

/// The masks that stand at `state`.
#[inline(always)]
pub unsafe fn masks(arena: *const u8, state: u32) -> Masks {
    // SAFETY: as in `step`.
    unsafe {
        core::ptr::read_volatile(arena.add(bound::<ARENA_MASK>(u64::from(state)) as usize).cast::<Masks>())
    }
}

/// The masks that stand at `state`, as words.
#[inline(always)]
pub unsafe fn words(arena: *const u8, state: u32) -> Words {
    // SAFETY: as in `step`.
    unsafe {
        let at = arena.add(bound::<ARENA_MASK>(u64::from(state)) as usize).cast::<u64>();
        Words { low: core::ptr::read_volatile(at), high: core::ptr::read_volatile(at.add(1)) }
    }
}

/// The state for all that say the same as `state`, here and behind every further name.
#[inline(always)]
pub unsafe fn twin(arena: *const u8, state: u64) -> u32 {
    // SAFETY: as in `step`.
    unsafe {
        let at = bound::<ARENA_MASK>(state) as usize + ROW_TWIN as usize;
        core::ptr::read_volatile(arena.add(at).cast::<u32>())
    }
}

/// Runs one automaton over `len` bytes at the kernel address `sc.address`. A function of its own, so
/// that the verifier goes through its loop once and not once per component.
///
/// Returns the state, or `u64::MAX` when the bytes cannot be read.
#[inline(never)]
#[unsafe(no_mangle)]
pub extern "C" fn run_name(sc: *mut Scratch, slot: u32, group: u64, state: u64, len: u64) -> u64 {
    if sc.is_null() || len > 255 || group >= limits::GROUPS as u64 {
        return u64::MAX;
    }
    // SAFETY: `sc` is the task's scratch; the name buffer takes 255 bytes.
    unsafe {
        let Some(policy) = maps::POLICIES.get_ptr(slot) else { return u64::MAX };
        let arena = arena();
        run(sc, arena, class_table(policy, group), state, (*sc).address, len)
    }
}

/// The body of [`run_name`].
#[inline(always)]
pub unsafe fn run(
    sc: *mut Scratch,
    arena: *const u8,
    class: *const u16,
    state: u64,
    address: u64,
    len: u64,
) -> u64 {
    // SAFETY: as in `run_name`.
    unsafe {
        if len > 255 {
            return u64::MAX;
        }
        let mut state = state;
        let mut i = 0u64;
        if object::casts() {
            // A name is followed by its zero and lies at a multiple of eight, so whole words can be read.
            let mut word = 0u64;
            while i < 255 {
                if i >= len || state & u64::from(STATE_SETTLED) != 0 {
                    break;
                }
                if i & 7 == 0 {
                    word = object::word(address + i);
                }
                state = step(arena, class, state, word as u8);
                word >>= 8;
                i += 1;
            }
            return state;
        }
        let len = bound::<255>(len);
        let name = (&raw mut (*sc).name).cast::<u8>();
        if aya_ebpf::helpers::generated::bpf_probe_read_kernel(name.cast(), len as u32, address as *const _)
            != 0
        {
            return u64::MAX;
        }
        while i < 255 {
            if i >= len || state & u64::from(STATE_SETTLED) != 0 {
                break;
            }
            state = step(arena, class, state, *name.add(i as usize));
            i += 1;
        }
        state
    }
}

#[inline(always)]
pub unsafe fn class_table(policy: *const Policy, group: u64) -> *const u16 {
    // SAFETY: there are three tables of 512 bytes and the struct ends with them.
    unsafe {
        let tables = (&raw const (*policy).class).cast::<u8>();
        let at = if group == 0 {
            0
        } else if group == 1 {
            512
        } else {
            1024
        };
        tables.add(at).cast::<u16>()
    }
}

/// The state after a slash.
#[inline(always)]
pub unsafe fn slash(arena: *const u8, policy: *const Policy, group: u64, state: u64) -> u64 {
    // SAFETY: as in `step`.
    unsafe { step(arena, class_table(policy, group), state, b'/') }
}
