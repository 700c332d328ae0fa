//! Keys and values of the maps. Each has a version or belongs to one that has, and room to grow;
//! sizes are asserted, padding and invalid bit patterns are ruled out by the derives.

use crate::{
    limits::{AGENT_NAME, GROUPS, ROOT_PATH, ROOTS, SETS},
    scratch::CALL_REGISTERS,
};
use zerocopy::{FromBytes, Immutable, IntoBytes, KnownLayout};

/// What the rules that match an object say, by tier (low, medium, high). A rule of tier critical
/// is a deny.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash, FromBytes, IntoBytes, Immutable, KnownLayout)]
#[repr(C)]
pub struct Masks {
    /// Operations that a rule of this tier allows.
    pub allow: [u16; 3],
    /// Operations that a rule of this tier leaves to a person.
    pub hold: [u16; 3],
    /// Operations that a rule denies.
    pub deny: u16,
    /// Number of the set of rules that allow something here, for [`Policy::unused`]; 0 where none does, or nobody asks.
    /// It says nothing about verdicts.
    pub set: u16,
}

/// What each tier becomes in a session: all ones or zero per tier; neither means deny.
#[derive(Clone, Copy, Debug, PartialEq, Eq, FromBytes, IntoBytes, Immutable, KnownLayout)]
#[repr(C)]
pub struct TierMap {
    /// All ones where the tier runs by itself.
    pub allow: [u16; 3],
    /// All ones where the tier waits for a person.
    pub hold: [u16; 3],
    /// The level of trust that this is, by its number in records; 0 where it is none.
    pub level: u32,
}

/// What every hook looks at first: is the task below a root, and may this generation decide.
///
/// Mapped into the daemon: each field changes by one aligned write.
#[derive(Clone, Copy, Debug, FromBytes, IntoBytes, Immutable, KnownLayout)]
#[repr(C)]
pub struct Gate {
    /// Cgroups below which agents live. The first entry with level 0 ends the list.
    pub root: [Root; ROOTS],
    /// Moves of labelled processes out of every root, ever. While it is not zero, tasks outside every
    /// root are asked for their label too.
    pub strays: u64,
    /// Generation of the programs that decide; others let the operation pass to those.
    pub generation: u32,
    /// Zero.
    pub reserved: u32,
    /// The image that maps cgroup paths to agents: id in the high half, slot in the low half.
    pub matcher: u64,
    /// Decisions about tasks without a session that the ring could not take.
    pub lost_decisions: u64,
    /// Activity without a session that the ring could not take.
    pub lost_activity: u64,
    /// The file of the socket at which sessions ask about themselves: its inode number, or 0 while there is none,
    /// and its device as in [`FileId`].
    pub agent_socket: [u64; 2],
    /// Requests that were put and threads that began to wait, ever: whoever finds it unchanged need not look for them.
    pub waits: u64,
    /// As [`Agent::shares`], of records that are no agent's.
    pub shares: [u32; 2],
}

/// One root. A stopped and restarted slice is a new cgroup: the id changes, the path does not.
#[derive(Clone, Copy, Debug, FromBytes, IntoBytes, Immutable, KnownLayout)]
#[repr(C)]
pub struct Root {
    /// Id of the cgroup (`cgroup_id()`, include/linux/cgroup.h), or 0 while it does not exist.
    pub id: u64,
    /// Depth below the hierarchy's root; 0 marks an unused entry.
    pub level: u32,
    /// [`ROOT_SHARED`] or 0.
    pub flags: u32,
}

/// A child that no session claims is an outsider, not a governed task without rights.
pub const ROOT_SHARED: u32 = 1;

/// The path of a root in the cgroup hierarchy (`/agents.slice`), zero-filled: the key by which the
/// program that follows its re-creation finds it.
pub type RootPath = [u8; ROOT_PATH];

/// Who made the pinned maps.
#[derive(Clone, Copy, Debug, FromBytes, IntoBytes, Immutable, KnownLayout)]
#[repr(C)]
pub struct Meta {
    /// [`crate::ABI_VERSION`] of the maps.
    pub abi: u32,
    /// Generation of the programs that were attached last.
    pub generation: u32,
    /// SHA-256 of the object that they come from.
    pub object: [u8; 32],
    /// The next [`Policy::id`], written before it is used: an id that a cache may still hold never
    /// comes back.
    pub next_policy: u32,
    /// Zero.
    pub reserved0: u32,
    /// Zero.
    pub reserved: [u64; 10],
}

/// An agent: whose policy decides.
#[derive(Clone, Copy, Debug, FromBytes, IntoBytes, Immutable, KnownLayout)]
#[repr(C)]
pub struct Agent {
    /// 1, or 0 for a free entry.
    pub version: u32,
    /// Zero.
    pub flags: u32,
    /// The policy in force: id in the high half, slot in the low half. One aligned write switches it.
    pub policy: u64,
    /// The agent's id, zero-terminated.
    pub name: [u8; AGENT_NAME],
    /// Decisions that the ring could not take.
    pub lost_decisions: u64,
    /// Activity records that the ring could not take.
    pub lost_activity: u64,
    /// Refusals that were a further check of a system call whose refusal is recorded already.
    pub same_call: u64,
    /// Break-glass: until then (nanoseconds of boot time) what its rules refuse goes on and is recorded; 0 otherwise.
    /// The kernel compares it with its own clock, so it ends by itself. One aligned write changes it.
    pub lifted_until: u64,
    /// Rare system calls beyond those that a session may leave records of in a second.
    pub calls_beyond: u64,
    /// Of the ring of decisions and of that of activity, what the agent has put there while they were more than half full:
    /// in which stretch of time (high half), and how much ([`limits::SHARE_UNIT`]s, low half).
    ///
    /// [`limits::SHARE_UNIT`]: crate::limits::SHARE_UNIT
    pub shares: [u32; 2],
}

/// One run of an agent: a cgroup subtree.
#[derive(Clone, Copy, Debug, FromBytes, IntoBytes, Immutable, KnownLayout)]
#[repr(C)]
pub struct Session {
    /// 1, or 0 for a free entry.
    pub version: u16,
    /// [`SESSION_LAUNCHING`] and so on.
    pub state: u16,
    /// Entry of the agents map.
    pub agent: u32,
    /// Never repeats, so that a label of an ended session does not fit the slot's next one.
    pub generation: u64,
    /// The 128-bit id.
    pub id: [u64; 2],
    /// Id of the cgroup.
    pub cgroup: u64,
    /// What each tier becomes: one write changes the trust level.
    pub tiers: TierMap,
    /// Slot of the session that started this one, or [`NO_SESSION`].
    pub parent: u32,
    /// [`SESSION_HAS_RINGS`]. Written by the kernel.
    pub flags: u32,
    /// Nanoseconds of boot time at which the cgroup was bound.
    pub bound_at: u64,
    /// Nanoseconds of boot time of the entry point's exec, or 0.
    pub armed_at: u64,
    /// When the window began in which records of system calls are counted ([`crate::calls::WINDOW`]).
    pub calls_since: u64,
    /// How many were made in it.
    pub calls: u64,
    /// Zero.
    pub reserved: [u64; 4],
}

/// Slot 0 of the sessions map is nobody's: whoever is governed without a session has no rights.
pub const NO_SESSION: u32 = 0;
/// Bound, but the entry point has not been executed.
pub const SESSION_LAUNCHING: u16 = 1;
/// The entry point has been executed. One way.
pub const SESSION_ARMED: u16 = 2;

/// Somebody in the session was let make an io_uring. It may be there still when no policy allows one any more. One way.
pub const SESSION_HAS_RINGS: u32 = 1;

/// A free session entry with an unguessable id that the kernel may give to a new cgroup.
#[derive(Clone, Copy, Debug, FromBytes, IntoBytes, Immutable, KnownLayout)]
#[repr(C)]
pub struct SessionSeed {
    /// Entry of the sessions map.
    pub slot: u32,
    /// Zero.
    pub reserved: u32,
    /// See [`Session::generation`].
    pub generation: u64,
    /// The 128-bit id.
    pub id: [u64; 2],
    /// What each tier becomes at first.
    pub tiers: TierMap,
}

/// What a task carries wherever it goes: its session, inherited by its children.
#[derive(Clone, Copy, Debug, FromBytes, IntoBytes, Immutable, KnownLayout)]
#[repr(C)]
pub struct Label {
    /// Entry of the sessions map.
    pub slot: u32,
    /// [`LABEL_LAUNCHING`] or 0.
    pub flags: u32,
    /// [`Session::generation`] of the session that was meant.
    pub generation: u64,
    /// The mount namespace at arming, in which names are read (an address, only ever compared).
    pub mount_namespace: u64,
}

/// The task came from outside, runs a named executor and has not executed anything else yet.
pub const LABEL_LAUNCHING: u32 = 1;
/// The next exec ends the launching, whatever it executes.
pub const LABEL_ONCE: u32 = 2;
/// The task has been given a program whose arguments are to be judged: from here on nobody signals or traces it.
pub const LABEL_LOADED: u32 = 4;

/// What a label has instead of its session's generation while the task's program waits for the verdict on its
/// arguments: every bit is another, so it is no label of that session, gives no rights, and its bearer is nobody's
/// companion. Once more makes it the session's again.
#[inline(always)]
pub const fn waiting(generation: u64) -> u64 {
    !generation
}

/// Value of the executors map: a runtime, which may execute other runtimes before the entry point.
pub const EXECUTOR_RUNTIME: u32 = 1;
/// Value of the executors map: the launch helper, whose first exec is the entry point.
pub const EXECUTOR_HELPER: u32 = 2;

/// A labelled process that lives outside every root.
#[derive(Clone, Copy, Debug, PartialEq, Eq, FromBytes, IntoBytes, Immutable, KnownLayout)]
#[repr(C)]
pub struct StrayKey {
    /// Thread group id.
    pub tgid: u32,
    /// Zero.
    pub reserved: u32,
    /// `start_boottime` of the group leader: thread group ids are reused.
    pub started: u64,
}

/// An object of a file system.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, FromBytes, IntoBytes, Immutable, KnownLayout)]
#[repr(C)]
pub struct FileId {
    /// `s_dev` in the kernel's encoding: major << 20 | minor.
    pub device: u64,
    /// Inode number.
    pub inode: u64,
}

/// A compiled policy.
#[derive(Clone, Copy, FromBytes, IntoBytes, Immutable, KnownLayout)]
#[repr(C)]
pub struct Policy {
    /// 1, or 0 for a free entry.
    pub version: u16,
    /// Automata in use, at most [`GROUPS`].
    pub groups: u16,
    /// Never reused while live.
    pub id: u32,
    /// [`MODE_ENFORCE`] or [`MODE_AUDIT`].
    pub mode: u32,
    /// What of the floor the policy changes: bits of [`crate::floor`].
    pub floor: u32,
    /// State of each automaton after the leading slash: a byte offset in the arena.
    pub start: [u32; GROUPS],
    /// Objects in the map of links that this policy looks for, or [`Self::ALL_LINKS`].
    pub links: u32,
    /// SHA-256 of the canonical policy.
    pub digest: [u8; 32],
    /// SHA-256 of the compiled tables.
    pub image: [u8; 32],
    /// Where the tables lie in the arena.
    pub arena_base: u32,
    /// How many bytes they take there.
    pub arena_len: u32,
    /// Capabilities that the policy grants, a bit each.
    pub capabilities: u64,
    /// System calls of [`crate::calls`] that leave no record, a bit each.
    pub ignored_calls: u64,
    /// Those after which the process is stopped.
    pub stopping_calls: u64,
    /// Those after which it is ended.
    pub killing_calls: u64,
    /// Zero.
    pub reserved: [u64; 3],
    /// By [`Masks::set`]: the operations that nobody has used yet as these rules allow them. The programs take bits away
    /// once a first use is on the ring.
    pub unused: [u16; SETS],
    /// Per automaton: byte → column of its row, as a byte offset (class × 4).
    pub class: [[u16; 256]; GROUPS],
}

impl Policy {
    /// In place of a number of links: there are too many to know them. Whatever has several names and is not in the map
    /// is refused.
    pub const ALL_LINKS: u32 = u32::MAX;
    /// Nothing was used yet.
    pub const UNUSED: [u16; SETS] = {
        let mut unused = [u16::MAX; SETS];
        unused[0] = 0;
        unused
    };
}

/// Verdicts are enforced.
pub const MODE_ENFORCE: u32 = 1;
/// Verdicts are recorded; only the floor is enforced.
pub const MODE_AUDIT: u32 = 2;

/// Bytes at the start of an automaton's row, before `next[class]`: its [`Masks`], then its twin.
pub const ROW_HEADER: u32 = 20;
/// Where in a row its twin stands: the state for all that say the same, here and behind every further name, and differ
/// in which rules do.
pub const ROW_TWIN: u32 = 16;
/// Bit 0 of a `next` word: every byte but `/` leads back to that state.
pub const STATE_SETTLED: u32 = 1;

/// A file with several names, one of which a policy denies or holds.
#[derive(
    Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, FromBytes, IntoBytes, Immutable, KnownLayout,
)]
#[repr(C)]
pub struct LinkKey {
    /// Inode number.
    pub inode: u64,
    /// `s_dev` in the kernel's encoding: major << 20 | minor.
    pub device: u32,
    /// [`Policy::id`].
    pub policy: u32,
}

/// What rules say about such a file under every name.
#[derive(Clone, Copy, Debug, PartialEq, Eq, FromBytes, IntoBytes, Immutable, KnownLayout)]
#[repr(C)]
pub struct Link {
    /// What rules deny and hold under any of its names. It allows nothing.
    pub masks: Masks,
    /// Where the automata end after one of those names: for the record.
    pub states: [u32; GROUPS],
    /// Zero.
    pub reserved: u32,
}

/// Key of the longest-prefix table: a prefix length of [`NetKey::FIXED_BITS`] + address bits
/// keeps policy, family and protocol exact.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, FromBytes, IntoBytes, Immutable, KnownLayout)]
#[repr(C)]
pub struct NetKey {
    /// [`Policy::id`].
    pub policy: u32,
    /// 4 or 6.
    pub family: u8,
    /// `IPPROTO_TCP` (6) or `IPPROTO_UDP` (17).
    pub protocol: u8,
    /// Zero.
    pub reserved: u16,
    /// Network byte order; an IPv4 address in the first four bytes, the others zero.
    pub address: [u8; 16],
}

impl NetKey {
    /// Bits before the address.
    pub const FIXED_BITS: u32 = 64;
}

/// What the running call of a thread may reach although a rule holds it: somebody has granted that, to the hooks of the
/// LSM. The second layer on the network asks for it, since it cannot see the call's tickets.
#[derive(Clone, Copy, Debug, FromBytes, IntoBytes, Immutable, KnownLayout)]
#[repr(C)]
pub struct Pass {
    /// The registers of the call.
    pub registers: [u64; CALL_REGISTERS],
    /// The address, its protocol and the policy.
    pub key: NetKey,
    /// The port, host byte order.
    pub port: u16,
    /// The operation: bits of [`crate::access::net`].
    pub access: u16,
    /// Zero.
    pub reserved: u32,
}

/// Value of the longest-prefix table: where the prefix's port ranges lie. They already join what
/// every shorter prefix of the same policy says.
#[derive(Clone, Copy, Debug, PartialEq, Eq, FromBytes, IntoBytes, Immutable, KnownLayout)]
#[repr(C)]
pub struct NetValue {
    /// Byte offset of the first [`PortRange`] in the arena.
    pub ranges: u32,
    /// How many there are.
    pub count: u32,
}

/// A range of ports. The ranges of one prefix are sorted and do not overlap.
#[derive(Clone, Copy, Debug, PartialEq, Eq, FromBytes, IntoBytes, Immutable, KnownLayout)]
#[repr(C)]
pub struct PortRange {
    /// First port.
    pub first: u16,
    /// Last port, included.
    pub last: u16,
    /// Index of the range among all of the policy's, for explaining a verdict.
    pub index: u32,
    /// What the rules say.
    pub masks: Masks,
}

/// The automaton's states at a directory, remembered in its inode's storage. Valid while the
/// kernel's rename and mount sequence counters are what they were.
#[derive(Clone, Copy, FromBytes, IntoBytes, Immutable, KnownLayout)]
#[repr(C)]
pub struct CacheEntry {
    /// Both sequence counters.
    pub sequence: u64,
    /// Mount and mount namespace, mixed.
    pub place: u64,
    /// States 0 and 1.
    pub states: u64,
    /// State 2 and the policy's id.
    pub state_policy: u64,
    /// Over the four words above: a torn entry is a miss.
    pub check: u64,
    /// Over what the shortest way needs (enforcer-ebpf/src/path/quick.rs), or 0 where that way is closed.
    pub quick: u64,
}

/// The cache of one directory.
#[derive(Clone, Copy, FromBytes, IntoBytes, Immutable, KnownLayout)]
#[repr(C)]
pub struct DirectoryCache {
    /// Chosen by place and policy.
    pub entry: [CacheEntry; 4],
}

const _: () = {
    assert!(size_of::<Masks>() == 16);
    assert!(size_of::<Masks>() == ROW_TWIN as usize);
    assert!(SETS.is_power_of_two());
    assert!(size_of::<TierMap>() == 16);
    assert!(size_of::<Root>() == 16);
    assert!(size_of::<Meta>() == 128);
    assert!(size_of::<Gate>() == 136);
    assert!(size_of::<Agent>() == 128);
    assert!(size_of::<Session>() == 128);
    assert!(size_of::<SessionSeed>() == 48);
    assert!(size_of::<Label>() == 24);
    assert!(size_of::<Policy>() == 160 + 2 * SETS + 1536);
    assert!(size_of::<LinkKey>() == 16);
    assert!(size_of::<Link>() == 32);
    assert!(size_of::<NetKey>() == 24);
    assert!(size_of::<PortRange>() == 24);
    assert!(size_of::<Pass>() == 96);
    assert!(size_of::<CacheEntry>() == 48);
};
