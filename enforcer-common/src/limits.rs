//! Bounds that size maps and loops. Whatever exceeds one is refused and said, never cut.

/// Cgroups below which agents live.
pub const ROOTS: usize = 4;
/// Bytes of a root's path in the cgroup hierarchy.
pub const ROOT_PATH: usize = 256;
/// Bytes of a cgroup path that the `cgroup_mkdir` tracepoint carries (`TRACE_CGROUP_PATH_LEN`,
/// kernel/cgroup/cgroup-internal.h). A longer one arrives cut, so it is never matched.
pub const CGROUP_PATH: usize = 1024;
/// Deepest level of the hierarchy at which a session's cgroup may lie.
pub const SESSION_LEVEL: u32 = 12;
/// Sessions that exist at one time.
pub const SESSIONS: u32 = 16_384;
/// Agents (principals) that have a policy.
pub const AGENTS: u32 = 10_240;
/// Policy images that are live or being replaced.
pub const POLICIES: u32 = 12_288;
/// Automata that one policy may be split into.
pub const GROUPS: usize = 3;
/// Sets of rules that allow something together, as far as a policy tells them apart for the first use of each. A power
/// of two; number 0 stands for none.
pub const SETS: usize = 256;
/// Address prefixes of all policies together.
pub const PREFIXES: u32 = 262_144;
/// Files with several names of which a policy denies or holds one, of all policies together.
pub const LINKS: u32 = 65_536;
/// Port ranges behind one address prefix.
pub const PORT_RANGES: u32 = 1_024;
/// Bytes of the arena that holds the automata, unless the settings say otherwise. A power of two.
pub const ARENA: usize = 1 << 26;
/// Bytes of the arena at least and at most, powers of two.
pub const ARENAS: [usize; 2] = [1 << 24, 1 << 30];
/// Bytes behind the arena that a bounded access to its end may touch.
pub const ARENA_TAIL: usize = 64;
/// Directories above an object. A deeper object cannot be told, so it is denied.
pub const DEPTH: usize = 128;
/// Mounts that a walk may cross.
pub const MOUNTS: usize = 16;
/// Bytes of one path component (`NAME_MAX`, include/uapi/linux/limits.h).
pub const NAME: usize = 255;
/// Bytes of a path in a ring record. A longer one is cut and flagged.
pub const PATH: usize = 4096;
/// Bytes of an agent's name, with its terminating zero.
pub const AGENT_NAME: usize = 64;
/// Programs that may prepare a session before it is armed.
pub const EXECUTORS: u32 = 64;
/// Labelled tasks outside every root.
pub const STRAYS: u32 = 16_384;
/// Bytes of the ring of decisions (denials, holds).
pub const DECISION_RING: u32 = 1 << 22;
/// Bytes of the ring of activity (sessions, executed programs).
pub const ACTIVITY_RING: u32 = 1 << 20;
/// The part of a ring (one of so many) that one agent may take in [`SHARE_SHIFT`] while the ring is more than half full.
pub const SHARE_PART: u32 = 128;
/// That stretch of time is two to this many nanoseconds: 268 ms.
pub const SHARE_SHIFT: u32 = 28;
/// Bytes by which shares are counted.
pub const SHARE_UNIT: u32 = 256;
/// Calls that somebody has granted and that the second layer on the network has not seen yet; the oldest go first.
pub const PASSES: u32 = 4096;
/// Files of several names that one policy can look for. A policy that would have to look for more looks for none, and
/// refuses whatever has several names: one agent that makes links does not fill the table for the others.
pub const LINKS_OF_ONE: usize = LINKS as usize / 4;
/// Objects of System V IPC and pseudo terminals that sessions have made, all together: more than the kernel lets there be
/// in one IPC namespace and one devpts (32,000 queues, 32,000 sets of semaphores, 4,096 segments and as many terminals,
/// unless it is told otherwise), so that whoever makes as many as there can be does not fill it for the others.
pub const IPC_OBJECTS: u32 = 131_072;
