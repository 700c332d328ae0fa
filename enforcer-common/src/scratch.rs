//! Working memory of the kernel programs: what a task needs inside a hook, kept in maps because stacks are
//! short and programs can be preempted.

use crate::{
    hold::{Hold, HoldId, Waiter, WaiterKey},
    limits::DEPTH,
    map::NetKey,
};
use zerocopy::{FromBytes, Immutable, IntoBytes, KnownLayout};

/// One path component on the way down.
#[derive(Clone, Copy, FromBytes, IntoBytes, Immutable, KnownLayout)]
#[repr(C)]
pub struct Component {
    /// Kernel address of the name.
    pub name: u64,
    /// Bytes of the name, [`FOLDS`], and above that how often the dentry had changed its name and parent (`d_seq`, without
    /// its lowest bit).
    pub len: u64,
}

/// Bit of [`Component::len`]: other spellings of the name lead to the same object.
pub const FOLDS: u64 = 1 << 32;

/// `struct sockaddr_in6` (include/uapi/linux/in6.h); `sockaddr_in` is its beginning up to `v4`.
#[derive(Clone, Copy, FromBytes, IntoBytes, Immutable, KnownLayout)]
#[repr(C)]
pub struct Sockaddr {
    /// Address family, host byte order.
    pub family: u16,
    /// Port, network byte order.
    pub port: u16,
    /// The IPv4 address, or the flow label.
    pub v4: [u8; 4],
    /// The IPv6 address.
    pub v6: [u8; 16],
    /// Index of the interface.
    pub scope: u32,
}

/// Where the way up to the namespace's root stands.
#[derive(Clone, Copy, FromBytes, IntoBytes, Immutable, KnownLayout)]
#[repr(C)]
pub struct Climb {
    /// Dentry that is reached.
    pub dentry: u64,
    /// Its mount (`struct mount *`).
    pub mount: u64,
    /// That mount's root dentry.
    pub root: u64,
    /// First word of the dentry, which ends with its count of changes; while that is looked at again, how many were.
    pub state: u64,
    /// How it ended.
    pub outcome: u64,
}

/// The IPv4 address that the task was allowed to reach last, and under what: the same again needs no table. What is
/// compared is all that the verdict depends on; a policy's tables never change under its number.
#[derive(Clone, Copy, PartialEq, Eq, FromBytes, IntoBytes, Immutable, KnownLayout)]
#[repr(C)]
pub struct Reached {
    /// Family, port and address, as they stand in the caller's address.
    pub address: u64,
    /// Number of the policy, protocol, and what was asked for.
    pub policy: u64,
    /// What each tier becomes.
    pub tiers: [u64; 2],
}

/// Where the automaton's way down stands.
#[derive(Clone, Copy, FromBytes, IntoBytes, Immutable, KnownLayout)]
#[repr(C)]
pub struct Descent {
    /// Which automaton.
    pub group: u64,
    /// State before the last component.
    pub before: u64,
    /// State after it, or all ones: a name could not be read.
    pub state: u64,
}

/// Where the rendering of a path stands.
#[derive(Clone, Copy, FromBytes, IntoBytes, Immutable, KnownLayout)]
#[repr(C)]
pub struct Render {
    /// Where in the record the path begins.
    pub first: u64,
    /// Bytes that it may take.
    pub room: u64,
    /// Non-zero: it took more.
    pub cut: u64,
}

/// Which system call a task's last refusal belonged to.
#[derive(Clone, Copy, FromBytes, IntoBytes, Immutable, KnownLayout)]
#[repr(C)]
pub struct Call {
    /// The user's registers at the entry of the call: arguments, number, instruction, stack.
    pub registers: [u64; CALL_REGISTERS],
    /// The same of the running call.
    pub running: [u64; CALL_REGISTERS],
    /// Checks that refused it so far.
    pub checks: u64,
    /// Nanoseconds of boot time of the recorded refusal.
    pub at: u64,
}

/// A request for a person's decision in the making, and what the running call was granted already.
#[derive(Clone, Copy, FromBytes, IntoBytes, Immutable, KnownLayout)]
#[repr(C)]
pub struct Asking {
    /// Dentry and mount of the operation's second name, or zero.
    pub target: [u64; 2],
    /// Non-zero: the file was created by the running call.
    pub created: u64,
    /// SHA-256 of the canonical policy: the same policy loaded again asks nothing new.
    pub policy: [u64; 4],
    /// State of the hash.
    pub hash: [u64; 4],
    /// What is hashed beside the names.
    pub words: [u64; ASKED_WORDS],
    /// Hash of the names alone.
    pub names: HoldId,
    /// Key of the hold.
    pub id: HoldId,
    /// The hold.
    pub hold: Hold,
    /// Who waits.
    pub key: WaiterKey,
    /// For what.
    pub waiter: Waiter,
    /// Registers of the call that the tickets belong to.
    pub registers: [u64; CALL_REGISTERS],
    /// How many tickets there are.
    pub count: u64,
    /// What that call was granted.
    pub ticket: [Ticket; TICKETS],
}

/// Words of a request beside its names: see `hold::identify` in the programs.
pub const ASKED_WORDS: usize = 20;
/// Approvals that one call can use up.
pub const TICKETS: usize = 4;

/// One check of a call has used a grant up: the call's other checks of the same object pass, and so does the same
/// check when the call is judged again because another one had to wait.
#[derive(Clone, Copy, FromBytes, IntoBytes, Immutable, KnownLayout)]
#[repr(C)]
pub struct Ticket {
    /// Hash of the names.
    pub names: HoldId,
    /// Device and inode; those of the directory where the object did not exist yet.
    pub object: [u64; 2],
    /// The operation that used the grant.
    pub operation: u32,
    /// What was granted.
    pub access: u32,
    /// Non-zero: the same check may pass once more.
    pub again: u64,
}

/// Registers by which a call is told from another one: `dx` to `sp` of `struct pt_regs`
/// (arch/x86/include/asm/ptrace.h).
pub const CALL_REGISTERS: usize = 8;

/// A task's working memory: programs can be preempted, so it must not belong to a CPU.
#[derive(Clone, Copy, FromBytes, IntoBytes, Immutable, KnownLayout)]
#[repr(C)]
pub struct Scratch {
    /// Dentry at which a walk stands.
    pub dentry: u64,
    /// Its mount (`struct vfsmount *`).
    pub mount: u64,
    /// The mount namespace that the walk must end in, or 0 for any.
    pub namespace: u64,
    /// Components collected.
    pub count: u64,
    /// Slot of the policy.
    pub policy: u64,
    /// The sequence counters during the walk, or 0 if they moved (then nothing may be cached).
    pub sequence: u64,
    /// States after the parent directory and its slash.
    pub parent: [u32; 4],
    /// States after the object's own name.
    pub object: [u32; 4],
    /// States of the attempt before, or of a rename's other name.
    pub other: [u32; 4],
    /// Bytes of the record in use.
    pub used: u64,
    /// A socket address as the caller gave it.
    pub sockaddr: Sockaddr,
    /// Key of an address prefix: its length, then the key itself.
    pub prefix_len: u32,
    /// See `prefix_len`.
    pub prefix: NetKey,
    /// Port of the judged address, host byte order.
    pub port: u16,
    /// What of a rename is allowed for the first time under the new name, whose states are in `other`, where something is
    /// under the old one as well; else 0.
    pub also: u16,
    /// Index of the port range that decided, or all ones.
    pub range: u32,
    /// What was allowed last.
    pub reached: Reached,
    /// The way up.
    pub climb: Climb,
    /// The way down.
    pub descent: Descent,
    /// A path on its way into a record.
    pub render: Render,
    /// Address of a name that is handed to a function which takes no kernel pointers.
    pub address: u64,
    /// The object's directory, as the way up found it.
    pub directory: u64,
    /// The labelled process that this task is moving to another cgroup, as an address.
    pub moving: u64,
    /// The mount (`struct vfsmount *`) that the task asked to write to last.
    pub writing: u64,
    /// Non-zero: the arguments of the program that is being executed are to be judged.
    pub loading: u64,
    /// The call that was refused last.
    pub call: Call,
    /// The request that is being made.
    pub asking: Asking,
    /// What the way up reads of one dentry or mount.
    pub words: [u64; 3],
    /// The components, the deepest first.
    pub component: [Component; DEPTH],
    /// One name, with room for what a bounded read may add.
    pub name: [u8; 256],
}

/// A record in the making: header, object, executable; room for what a bounded copy may add.
#[derive(Clone, Copy, FromBytes, IntoBytes, Immutable, KnownLayout)]
#[repr(C, align(8))]
pub struct Record {
    /// The bytes.
    pub bytes: [u8; RECORD_ROOM],
}

/// Bytes of [`Record::bytes`].
pub const RECORD_ROOM: usize = RECORD_MAX + 1 + 512;
/// Bytes of the longest record: header, object ([`crate::limits::PATH`]) and what is left for the
/// executable.
pub const RECORD_MAX: usize = 7167;

const _: () = {
    assert!(size_of::<Component>() == 16);
    // Newer kernels allocate task storage with kmalloc_nolock(), which gives no more than
    // KMALLOC_MAX_CACHE_SIZE, 8 KiB, with the kernel's own header (kernel/bpf/bpf_local_storage.c).
    assert!(size_of::<Scratch>() <= 7936);
    assert!(size_of::<Record>() <= 7936);
};
