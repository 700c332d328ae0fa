//! Every map, and nothing else. The daemon pins them: those of system calls with the links of a generation, all others for good.

use aya_ebpf::{
    bindings::{
        BPF_F_MMAPABLE, BPF_F_NO_PREALLOC, BPF_LOCAL_STORAGE_GET_F_CREATE,
        bpf_map_type::BPF_MAP_TYPE_TASK_STORAGE,
    },
    btf_maps::InodeStorage,
    helpers::generated::{bpf_get_current_task_btf, bpf_task_storage_get},
    macros::{btf_map, map},
    maps::{Array, HashMap, LpmTrie, LruHashMap, ProgramArray, Queue, RingBuf},
};
use core::arch::asm;
use enforcer_common::{
    calls::NUMBERS,
    hold::{self, Hold, HoldId, HoldSettings, Quota, Waiter, WaiterKey},
    limits,
    map::{
        Agent, DirectoryCache, FileId, Gate, Label, Link, LinkKey, Meta, NetKey, NetValue, Pass, Policy,
        RootPath, Session, SessionSeed, StrayKey,
    },
    offsets::Single,
    scratch::{Record, Scratch},
};

/// The automata and port tables of all policies. Longer than its mask by what a bounded access may add. The daemon makes
/// both of the size that it was told.
#[repr(C)]
pub struct Arena([u8; limits::ARENA + limits::ARENA_TAIL]);

/// Roots, strays and the generation that decides.
#[map]
pub static GATE: Array<Gate> = Array::with_max_entries(1, BPF_F_MMAPABLE);
/// Who made these maps.
#[map]
pub static META: Array<Meta> = Array::with_max_entries(1, 0);
/// Path of a root → its index in the gate.
#[map]
pub static ROOT_PATHS: HashMap<RootPath, u32> = HashMap::with_max_entries(limits::ROOTS as u32, 0);
/// Programs that may prepare a session.
#[map]
pub static EXECUTORS: HashMap<FileId, u32> = HashMap::with_max_entries(limits::EXECUTORS, 0);
/// Agents, by index. Mapped into the daemon, which switches policies by one aligned write.
#[map]
pub static AGENTS: Array<Agent> = Array::with_max_entries(limits::AGENTS, BPF_F_MMAPABLE);
/// Sessions, by slot. Slot 0 is nobody's. Mapped into the daemon, which changes single fields.
#[map]
pub static SESSIONS: Array<Session> = Array::with_max_entries(limits::SESSIONS, BPF_F_MMAPABLE);
/// Cgroup id → session slot.
#[map]
pub static SESSION_OF: HashMap<u64, u32> = HashMap::with_max_entries(limits::SESSIONS, 0);
/// Session entries that may be given to cgroups which a policy's globs name.
#[map]
pub static SEEDS: Queue<SessionSeed> = Queue::with_max_entries(1024, 0);
/// Labelled processes outside every root.
#[map]
pub static STRAYS: HashMap<StrayKey, Label> = HashMap::with_max_entries(limits::STRAYS, 0);
/// Policy images, by slot.
#[map]
pub static POLICIES: Array<Policy> = Array::with_max_entries(limits::POLICIES, 0);
/// Automata and port tables. Mapped into the daemon.
#[map]
pub static ARENA: Array<Arena> = Array::with_max_entries(1, BPF_F_MMAPABLE);
/// Policy, family, protocol and address prefix → port ranges.
#[map]
pub static PREFIXES: LpmTrie<NetKey, NetValue> = LpmTrie::with_max_entries(limits::PREFIXES, 0);
/// Thread → what its running call was granted on the network. Only the second layer asks.
#[map]
pub static PASSES: LruHashMap<u64, Pass> = LruHashMap::with_max_entries(limits::PASSES, 0);
/// Files with several names → what rules say under any of them.
#[map]
pub static LINKS: HashMap<LinkKey, Link> = HashMap::with_max_entries(limits::LINKS, BPF_F_NO_PREALLOC);
/// Denials and holds.
#[map]
pub static DECISIONS: RingBuf = RingBuf::with_byte_size(limits::DECISION_RING, 0);
/// Sessions and executed programs.
#[map]
pub static ACTIVITY: RingBuf = RingBuf::with_byte_size(limits::ACTIVITY_RING, 0);
/// What waits for a person, and what was decided.
#[map]
pub static HOLDS: HashMap<HoldId, Hold> = HashMap::with_max_entries(hold::HOLDS, 0);
/// The threads that wait.
#[map]
pub static WAITERS: HashMap<WaiterKey, Waiter> = HashMap::with_max_entries(hold::WAITERS, 0);
/// How much each session may ask for, by slot. Mapped into the daemon.
#[map]
pub static QUOTAS: Array<Quota> = Array::with_max_entries(limits::SESSIONS, BPF_F_MMAPABLE);
/// The secret of the holds' keys, and how long they are open. Mapped into the daemon.
#[map]
pub static HOLD_SETTINGS: Array<HoldSettings> = Array::with_max_entries(1, BPF_F_MMAPABLE);
/// Address of an object of System V IPC → generation of the session that made it.
#[map]
pub static IPC_OBJECTS: HashMap<u64, u64> = HashMap::with_max_entries(limits::IPC_OBJECTS, BPF_F_NO_PREALLOC);
/// Renames, as far as it is known what they were of: in the low half up to which state of the kernel's `rename_lock`, in
/// the high half how many of them were no mere file's, twice.
#[map]
pub static MOVES: Array<u64> = Array::with_max_entries(1, 0);
/// Number of a system call (those of 32-bit programs behind the others) → what is to be known of it. Each
/// generation of programs has its own.
#[map]
pub static CALLS: Array<u32> = Array::with_max_entries(NUMBERS, 0);
/// What the programs behind system calls go on in, a table for each of the two kinds of functions that kernels have. Each
/// generation has its own.
#[map]
pub static CALL_PROGRAM_0: ProgramArray = ProgramArray::with_max_entries(1, 0);
/// As [`CALL_PROGRAM_0`].
#[map]
pub static CALL_PROGRAM_1: ProgramArray = ProgramArray::with_max_entries(1, 0);
/// The automaton's states at a directory. Only ever a cache: evicting an inode empties it.
#[btf_map]
pub static DIRECTORIES: InodeStorage<DirectoryCache> = InodeStorage::new();
/// The session that a task belongs to.
#[btf_map]
pub static LABELS: TaskStorage<Label> = TaskStorage::new();
/// Working memory of a task inside a hook.
#[btf_map]
pub static SCRATCH: TaskStorage<Scratch> = TaskStorage::new();

/// A record of a task in the making. Apart from the scratch, since newer kernels give 8 KiB at most.
#[btf_map]
pub static RECORDS: TaskStorage<Record> = TaskStorage::new();
/// Working memory of the program that sees cgroups made. The kernel holds a lock around the
/// tracepoint (`TRACE_CGROUP_PATH`, kernel/cgroup/cgroup-internal.h), so one is enough, and a root's new
/// id is never missed for want of memory.
#[map]
pub static CGROUP_SCRATCH: Array<Scratch> = Array::with_max_entries(1, 0);

/// The gate.
#[inline(always)]
pub fn gate() -> *mut Gate {
    single::<{ Single::Gate.placeholder() }>().cast()
}

/// The arena.
#[inline(always)]
pub fn arena() -> *const u8 {
    single::<{ Single::Arena.placeholder() }>().cast_const()
}

/// The word in [`MOVES`].
#[inline(always)]
pub fn moves() -> *mut u64 {
    single::<{ Single::Moves.placeholder() }>().cast()
}

/// The only entry of a map. The daemon makes of the number a reference to the map's value (`BPF_PSEUDO_MAP_VALUE`,
/// include/uapi/linux/bpf.h), and the kernel an address.
#[inline(always)]
fn single<const PLACE: i32>() -> *mut u8 {
    let at: *mut u8;
    // SAFETY: one BPF load of a number of 64 bits.
    unsafe { asm!("{0} = {1} ll", out(reg) at, const PLACE, options(pure, nomem, nostack)) };
    at
}

/// Task storage, which aya-ebpf does not have: its definition is read from the program's BTF.
#[repr(C)]
pub struct TaskStorage<T> {
    r#type: *const [i32; BPF_MAP_TYPE_TASK_STORAGE as usize],
    key: *const i32,
    value: *const T,
    max_entries: *const [i32; 0],
    map_flags: *const [i32; BPF_F_NO_PREALLOC as usize],
}

// SAFETY: the structure only describes the map; nothing is ever stored in it.
unsafe impl<T> Sync for TaskStorage<T> {}

impl<T> TaskStorage<T> {
    const fn new() -> Self {
        use core::ptr::null;
        Self { r#type: null(), key: null(), value: null(), max_entries: null(), map_flags: null() }
    }

    /// The value of the running task, or null.
    #[inline(always)]
    pub fn of_current(&self) -> *mut T {
        // SAFETY: the helper takes the map's address and the running task.
        unsafe {
            bpf_task_storage_get(self.address(), bpf_get_current_task_btf().cast(), core::ptr::null_mut(), 0)
                .cast()
        }
    }

    /// The value of `task`, a pointer that the verifier knows as a task, or null.
    #[inline(always)]
    pub fn of(&self, task: *const u8) -> *mut T {
        // SAFETY: the verifier only lets a task pointer pass.
        unsafe {
            bpf_task_storage_get(self.address(), task.cast_mut().cast(), core::ptr::null_mut(), 0).cast()
        }
    }

    /// The value of the running task, made of zeros if there is none yet; null when out of memory.
    #[inline(always)]
    pub fn of_current_or_new(&self) -> *mut T {
        // SAFETY: as above; without an initial value the kernel zeroes the new one.
        unsafe {
            let create = BPF_LOCAL_STORAGE_GET_F_CREATE.into();
            bpf_task_storage_get(
                self.address(),
                bpf_get_current_task_btf().cast(),
                core::ptr::null_mut(),
                create,
            )
            .cast()
        }
    }

    /// Gives `task` the value `initial` unless it has one; null when out of memory.
    #[inline(always)]
    pub fn set(&self, task: *const u8, initial: &T) -> *mut T {
        // SAFETY: the verifier only lets a task pointer pass; the kernel copies `initial`.
        unsafe {
            let create = BPF_LOCAL_STORAGE_GET_F_CREATE.into();
            let value = core::ptr::from_ref(initial).cast_mut().cast();
            bpf_task_storage_get(self.address(), task.cast_mut().cast(), value, create).cast()
        }
    }

    #[inline(always)]
    fn address(&self) -> *mut core::ffi::c_void {
        core::ptr::from_ref(self).cast_mut().cast()
    }
}
