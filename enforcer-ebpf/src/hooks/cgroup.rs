//! What happens to cgroups: roots are followed when they are created anew, cgroups that a policy
//! names become sessions, and processes that leave are remembered. All of it works while no daemon
//! runs.

use crate::{emit, maps, net, object, path, subject, verifier::atomic_add};
use aya_ebpf::{
    helpers::generated::{bpf_ktime_get_boot_ns, bpf_probe_read_kernel_str},
    macros::{btf_tracepoint, fentry},
    programs::{BtfTracePointContext, FEntryContext},
};
use enforcer_common::{
    event::kind,
    limits,
    map::{NO_SESSION, SESSION_LAUNCHING, STATE_SETTLED, Session},
    scratch::{Component, Scratch},
};

/// `BPF_NOEXIST`.
const ONLY_NEW: u64 = 1;

/// Whether a cgroup belongs to the unified hierarchy, whose number is 0: ids repeat in others.
#[inline(always)]
fn is_unified(cgroup: *const u8) -> bool {
    object::number::<u32>(object::pointer(cgroup, &object::CGROUP_ROOT), &object::HIERARCHY_ID) == 0
}

/// Called before the new cgroup becomes visible (`cgroup_mkdir()`, kernel/cgroup/cgroup.c).
#[btf_tracepoint(function = "cgroup_mkdir")]
pub fn cgroup_mkdir(ctx: BtfTracePointContext) -> i32 {
    let cgroup: *const u8 = ctx.arg(0);
    let path: *const u8 = ctx.arg(1);
    if !is_unified(cgroup) {
        return 0;
    }
    let id: u64 = object::number(object::pointer(cgroup, &object::CGROUP_NODE), &object::NODE_ID);
    let Some(sc) = maps::CGROUP_SCRATCH.get_ptr_mut(0) else { return 0 };
    // SAFETY: a map value; cgroups are made one at a time.
    unsafe {
        core::ptr::write_volatile(&raw mut (*sc).address, path as u64);
        core::ptr::write_volatile(&raw mut (*sc).mount, cgroup as u64);
        follow_root(id);
        bind(sc, id);
    }
    0
}

/// Takes the id of a root that was created anew.
#[inline(never)]
#[unsafe(no_mangle)]
pub extern "C" fn follow_root(id: u64) -> u64 {
    // Looked up again rather than handed over: older kernels take keys from map values only.
    let Some(sc) = maps::CGROUP_SCRATCH.get_ptr_mut(0) else { return 0 };
    // SAFETY: `sc` is the task's scratch; the name buffer is a root path's size.
    unsafe {
        let words = (&raw mut (*sc).name).cast::<u64>();
        let mut i = 0;
        while i < limits::ROOT_PATH / 8 {
            core::ptr::write_volatile(words.add(i), 0);
            i += 1;
        }
        let name = (&raw mut (*sc).name).cast::<u8>();
        let len = bpf_probe_read_kernel_str(name.cast(), limits::ROOT_PATH as u32, (*sc).address as *const _);
        if len <= 0 || len >= limits::ROOT_PATH as i64 {
            return 0;
        }
        let Some(index) = maps::ROOT_PATHS.get_ptr(&(*sc).name) else { return 0 };
        let index = *index as usize;
        let gate = maps::gate();
        if index >= limits::ROOTS {
            return 0;
        }
        (*gate).root[index].id = id;
        emit::activity_in(kind::ROOT_CREATED, NO_SESSION, id, index as u32);
        1
    }
}

/// Makes a cgroup that a policy names a session, unless it lies in one.
#[inline(never)]
#[unsafe(no_mangle)]
pub extern "C" fn bind(sc: *mut Scratch, id: u64) -> u64 {
    if sc.is_null() {
        return 0;
    }
    // SAFETY: `sc` is the task's scratch; everything else is a map value.
    unsafe {
        if within(sc) != INSIDE_ROOT {
            return 0;
        }
        let gate = maps::gate();
        let word = core::ptr::read_volatile(&raw const (*gate).matcher);
        let slot = word as u32;
        let Some(policy) = maps::POLICIES.get_ptr(slot) else { return 0 };
        if word == 0 || (*policy).version != 1 || (*policy).id != (word >> 32) as u32 {
            return 0;
        }
        let state = run_path(sc, slot);
        let arena = path::arena();
        if state == u64::MAX {
            return 0;
        }
        let found = path::masks(arena, state as u32);
        let agent = u32::from(found.allow[0]) | u32::from(found.allow[1]) << 16;
        if agent == 0 {
            return 0;
        }
        // No seed left: the cgroup is somebody's without a session, so its tasks have no rights.
        let Ok(Some(seed)) = maps::SEEDS.pop() else {
            let _ = maps::SESSION_OF.insert(id, NO_SESSION, ONLY_NEW);
            return 0;
        };
        let Some(session) = maps::SESSIONS.get_ptr_mut(seed.slot) else { return 0 };
        core::ptr::write_volatile(
            session,
            Session {
                version: 1,
                state: SESSION_LAUNCHING,
                agent: agent - 1,
                generation: seed.generation,
                id: seed.id,
                cgroup: id,
                tiers: seed.tiers,
                parent: NO_SESSION,
                flags: 0,
                bound_at: bpf_ktime_get_boot_ns(),
                armed_at: 0,
                calls_since: 0,
                calls: 0,
                reserved: [0; 4],
            },
        );
        if maps::SESSION_OF.insert(id, seed.slot, ONLY_NEW).is_err() {
            return 0;
        }
        emit::activity_in(kind::SESSION_BOUND, seed.slot, id, 0);
        1
    }
}

const INSIDE_ROOT: u64 = 1;

/// Looks upwards from the cgroup at `sc.mount`: 1 if a root comes before any session.
#[inline(never)]
#[unsafe(no_mangle)]
pub extern "C" fn within(sc: *mut Scratch) -> u64 {
    if sc.is_null() {
        return 0;
    }
    let gate = maps::gate();
    // SAFETY: `sc` is the task's scratch; kernel memory is read by `peek`.
    unsafe {
        let mut cgroup = (*sc).mount;
        for _ in 0..32 {
            // `self` is the first member of struct cgroup, so a css of it is the cgroup.
            let Some(parent) = object::peek::<u64>(cgroup + object::CGROUP_PARENT.get() as u64) else {
                return 0;
            };
            if parent == 0 {
                return 0;
            }
            let Some(node) = object::peek::<u64>(parent + object::CGROUP_NODE.get() as u64) else { return 0 };
            let Some(id) = object::peek::<u64>(node + object::NODE_ID.get() as u64) else { return 0 };
            if maps::SESSION_OF.get_ptr(id).is_some() {
                return 0;
            }
            let mut i = 0;
            while i < limits::ROOTS {
                if (*gate).root[i].level != 0 && (*gate).root[i].id == id {
                    return INSIDE_ROOT;
                }
                i += 1;
            }
            cgroup = parent;
        }
        0
    }
}

/// Runs the matcher over the cgroup path at `sc.address`; a path that may have been cut matches nothing.
#[inline(never)]
#[unsafe(no_mangle)]
pub extern "C" fn run_path(sc: *mut Scratch, slot: u32) -> u64 {
    if sc.is_null() {
        return u64::MAX;
    }
    // SAFETY: `sc` is the scratch; the components' room is longer than a cgroup path.
    unsafe {
        let Some(policy) = maps::POLICIES.get_ptr(slot) else { return u64::MAX };
        let arena = path::arena();
        const _: () = assert!(size_of::<Component>() * limits::DEPTH >= limits::CGROUP_PATH);
        let buffer = (&raw mut (*sc).component).cast::<u8>();
        let len =
            bpf_probe_read_kernel_str(buffer.cast(), limits::CGROUP_PATH as u32, (*sc).address as *const _);
        if len < 2 || len >= limits::CGROUP_PATH as i64 {
            return u64::MAX;
        }
        let class = (&raw const (*policy).class).cast::<u16>();
        let mut state = u64::from((*policy).start[0]);
        // Without the leading slash and the terminating zero.
        let mut i = 1usize;
        while i < limits::CGROUP_PATH {
            let byte = *buffer.add(i);
            if byte == 0 {
                break;
            }
            state = path::step(arena, class, state, byte);
            i += 1;
        }
        state & !u64::from(STATE_SETTLED)
    }
}

/// A labelled process is about to be moved: from now on hooks ask tasks outside the roots for their
/// label too.
#[fentry(function = "cgroup_attach_task")]
pub fn cgroup_attach_task_entry(ctx: FEntryContext) -> i32 {
    let leader: *const u8 = ctx.arg(1);
    let label = maps::LABELS.of(leader);
    if label.is_null() {
        return 0;
    }
    let sc = maps::SCRATCH.of_current_or_new();
    let gate = maps::gate();
    // SAFETY: map values. A second record that does not fit is missed only where the first one is busy.
    unsafe {
        let label = *label;
        let _ = maps::STRAYS.insert(&subject::stray_key(leader), &label, 0);
        // Two generations may be attached during an upgrade; the move counts once. Without a note of
        // it, it is never taken back.
        if sc.is_null() || (*sc).moving != leader as u64 {
            atomic_add(&raw mut (*gate).strays, 1);
        }
        if !sc.is_null() {
            (*sc).moving = leader as u64;
        }
    }
    0
}

/// The move is over. It ended below a root: nobody left by it, and what the entry program counted is
/// taken back. A move that ended outside is never taken back, whatever becomes of the process: it may
/// have had children there. Nor is one that failed; both only cost a second look at outsiders.
#[btf_tracepoint(function = "cgroup_attach_task")]
pub fn cgroup_attach_task(ctx: BtfTracePointContext) -> i32 {
    let (destination, leader): (*const u8, *const u8) = (ctx.arg(0), ctx.arg(2));
    let label = maps::LABELS.of(leader);
    let sc = maps::SCRATCH.of_current_or_new();
    if label.is_null() || sc.is_null() {
        return 0;
    }
    let gate = maps::gate();
    // SAFETY: map values and the task's scratch.
    unsafe {
        let slot = (*label).slot;
        // Only what the entry program of this very move has counted may be taken back.
        let counted = (*sc).moving == leader as u64;
        (*sc).moving = 0;
        core::ptr::write_volatile(&raw mut (*sc).mount, destination as u64);
        let mut i = 0;
        while i < limits::ROOTS {
            let root = (*gate).root[i];
            if root.level != 0 && net::below_cgroup(sc, root.id) != 0 {
                if counted {
                    atomic_add(&raw mut (*gate).strays, u64::MAX);
                }
                return 0;
            }
            i += 1;
        }
        emit::activity(kind::STRAYED, slot);
    }
    0
}

/// A session's cgroup is gone.
#[btf_tracepoint(function = "cgroup_rmdir")]
pub fn cgroup_rmdir(ctx: BtfTracePointContext) -> i32 {
    let cgroup: *const u8 = ctx.arg(0);
    if !is_unified(cgroup) {
        return 0;
    }
    let id: u64 = object::number(object::pointer(cgroup, &object::CGROUP_NODE), &object::NODE_ID);
    let Some(slot) = maps::SESSION_OF.get_ptr(id) else { return 0 };
    // SAFETY: a map value.
    let slot = unsafe { *slot };
    if slot == NO_SESSION {
        let _ = maps::SESSION_OF.remove(id);
        return 0;
    }
    emit::activity_in(kind::SESSION_REMOVED, slot, id, 0);
    0
}
