//! The tax that every task on the host pays: does it live below a root?

use crate::{maps, object};
use aya_ebpf::helpers::generated::bpf_get_current_ancestor_cgroup_id;
use enforcer_common::{
    limits,
    map::{Gate, Root},
};

/// What the gate says about the running task.
#[derive(Clone, Copy, PartialEq, Eq)]
pub enum Side {
    /// Not an agent's task.
    Outside,
    /// Below a root; the flags are the root's.
    Inside(u32),
    /// Below no root, but labelled processes are known to live there.
    Perhaps,
}

/// Whether the running task lives outside every root. Asked where it matters and not kept with the subject: hooks'
/// stacks have no room for it.
#[inline(always)]
pub fn is_stray() -> bool {
    side() == Side::Perhaps
}

/// The tax that every task on the host pays: is it below a root?
#[inline(always)]
pub fn side() -> Side {
    let gate = maps::gate();
    // SAFETY: map values.
    unsafe {
        let root = root_of(gate);
        if !root.is_null() {
            return if decides(gate) { Side::Inside((*root).flags) } else { Side::Outside };
        }
        if (*gate).strays != 0 && decides(gate) { Side::Perhaps } else { Side::Outside }
    }
}

/// The root that the running task lives below, or null.
///
/// By the helper, which is fewer instructions than what it does would be as typed loads (each is checked for a fault), and
/// none that take the verifier long (see [`object::loosely`]).
#[inline(always)]
unsafe fn root_of(gate: *const Gate) -> *const Root {
    // SAFETY: a map value; the helper takes a number.
    unsafe {
        let mut i = 0;
        while i < limits::ROOTS {
            let root = &raw const (*gate).root[i];
            let level = (*root).level;
            if level == 0 {
                break;
            }
            let id = bpf_get_current_ancestor_cgroup_id(level as i32);
            if id != 0 && id == (*root).id {
                return root;
            }
            i += 1;
        }
        core::ptr::null()
    }
}

/// Whether these programs decide: they are the generation that does, or one that it has taken over from. Asked last: for
/// outsiders it makes no difference.
///
/// Of the programs at one function those that were attached last run first (`bpf_trampoline_add_prog()`,
/// kernel/bpf/trampoline.c). A task that the newer ones have let pass, because they did not decide yet, is on its way to
/// these ones when that changes; so these go on deciding as long as they run at all, which is until they are detached.
/// For that moment a task is judged by both: what these do beside refusing must be harmless a second time, or asks
/// [`is_replaced`].
#[inline(always)]
pub unsafe fn decides(gate: *const Gate) -> bool {
    // SAFETY: a map value.
    unsafe { (*gate).generation >= object::GENERATION.get() as u32 }
}

/// Whether a newer generation decides. Where programs run in the order in which they were attached, as those at
/// tracepoints and at cgroups do, whoever comes by now meets the newer ones afterwards, and there is nothing left to do.
#[inline(always)]
pub fn is_replaced() -> bool {
    // SAFETY: a map value.
    unsafe { (*maps::gate()).generation > object::GENERATION.get() as u32 }
}

/// Whether the running task has any storage: whoever has none has no label. It costs one load.
#[inline(always)]
pub fn has_storage(task: *const u8) -> bool {
    !object::pointer(task, &object::TASK_STORAGE).is_null()
}

/// Whether the running task is an outsider for certain. False says nothing.
#[inline(always)]
pub fn is_outside() -> bool {
    let gate = maps::gate();
    // SAFETY: map values.
    unsafe { root_of(gate).is_null() && core::ptr::read_volatile(&raw const (*gate).strays) == 0 }
}
