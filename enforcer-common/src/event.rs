//! Records on the rings: a fixed header, then the object's bytes, a second name, and the executable's path.
//! Numbers, not enums: an unknown kind is recorded as unknown, never dropped.

use zerocopy::{FromBytes, Immutable, IntoBytes, KnownLayout};

/// Version of the header's layout.
pub const VERSION: u16 = 3;

/// The header of every record. Times are nanoseconds of boot time.
#[derive(Clone, Copy, Debug, FromBytes, IntoBytes, Immutable, KnownLayout)]
#[repr(C)]
pub struct Header {
    /// [`VERSION`].
    pub version: u16,
    /// One of [`kind`].
    pub kind: u16,
    /// Bytes of the whole record.
    pub length: u32,
    /// When the verdict fell.
    pub time: u64,
    /// The session's id, or zero.
    pub session: [u64; 2],
    /// The task's cgroup.
    pub cgroup: u64,
    /// Entry of the agents map, or [`NO_AGENT`].
    pub agent: u32,
    /// Id of the policy that decided, or 0.
    pub policy: u32,
    /// One of [`operation`].
    pub operation: u16,
    /// [`crate::verdict::Verdict`] as a number.
    pub verdict: u16,
    /// One of [`reason`].
    pub reason: u16,
    /// Bits of [`flag`].
    pub flags: u16,
    /// The error that the caller got, or 0.
    pub error: i32,
    /// Bits of [`crate::access`] that were asked for.
    pub access: u32,
    /// Thread group id and thread id in the initial namespace.
    pub tgid: u32,
    /// Thread id.
    pub pid: u32,
    /// Thread group id of the parent.
    pub parent: u32,
    /// Real user id in the initial namespace.
    pub uid: u32,
    /// Start of the thread group's leader.
    pub started: u64,
    /// The object's device, kernel encoding.
    pub device: u64,
    /// The object's inode number.
    pub inode: u64,
    /// States in which the automata ended (arena offsets), or the port range's index in the first.
    pub states: [u32; 3],
    /// The session's level of trust by its number ([`crate::map::TierMap::level`]), or zero.
    pub trust: u32,
    /// Address, network byte order, as normalised.
    pub address: [u8; 16],
    /// Port of the address, host byte order.
    pub port: u16,
    /// Protocol of the socket.
    pub protocol: u16,
    /// Address family of the socket.
    pub family: u16,
    /// Bytes of the object that follow.
    pub object_len: u16,
    /// Bytes of the executable's path that follow the object and the target.
    pub exe_len: u16,
    /// Bytes of the operation's second name (of a rename or link) that follow the object.
    pub target_len: u16,
    /// Capability, signal, process id of the target: what the operation's name says.
    pub argument: u32,
    /// The task's name: chosen by the program itself, so never trusted.
    pub comm: [u8; 16],
    /// The hold that the record is about, or zero.
    pub hold: crate::hold::HoldId,
    /// The parent, its parent and so on; zeros behind the last one.
    pub above: [Above; ABOVE],
}

/// A process above the one that a record is about.
#[derive(Clone, Copy, Debug, PartialEq, Eq, FromBytes, IntoBytes, Immutable, KnownLayout)]
#[repr(C)]
pub struct Above {
    /// Thread group id.
    pub tgid: u32,
    /// Zero.
    pub reserved: u32,
    /// Start of the thread group's leader, nanoseconds of boot time: thread group ids are reused.
    pub started: u64,
}

/// How many processes above a record names.
pub const ABOVE: usize = 8;

const _: () = assert!(size_of::<Header>() == 312);

/// Bytes of a program's arguments in the record about its execution.
pub const ARGUMENTS_FIRST: usize = 2048;
/// Bytes of them in each record that follows.
pub const ARGUMENTS_MORE: usize = 4096;
/// How many such records follow at most; what is beyond is not recorded, and the first record says how much there was.
pub const ARGUMENTS_ROUNDS: usize = 32;
const _: () = assert!(ARGUMENTS_FIRST + ARGUMENTS_MORE * ARGUMENTS_ROUNDS >= 128 << 10);

/// `agent` of a governed task that belongs to no session.
pub const NO_AGENT: u32 = u32::MAX;

/// What a record tells.
pub mod kind {
    /// An operation was refused, held, or would have been.
    pub const DECISION: u16 = 1;
    /// A cgroup became a session.
    pub const SESSION_BOUND: u16 = 2;
    /// A session's entry point was executed.
    pub const SESSION_ARMED: u16 = 3;
    /// A task entered a session from outside.
    pub const ENTERED: u16 = 4;
    /// A program was executed. Its arguments begin in the second name, each with a zero byte behind it; the argument
    /// says how many bytes they are. A launching task's have none.
    pub const EXECUTED: u16 = 5;
    /// A root's cgroup was created anew.
    pub const ROOT_CREATED: u16 = 6;
    /// A labelled process was moved out of every root.
    pub const STRAYED: u16 = 7;
    /// A cgroup that a session was bound to was removed.
    pub const SESSION_REMOVED: u16 = 8;
    /// A thread waits for a person's decision.
    pub const HELD: u16 = 9;
    /// A program is being executed whose arguments will be judged once it is loaded. Says which rules are about it.
    /// The argument is how many arguments its caller gave, its name included, times two, and one more for the first
    /// such record of an exec. That of the request that follows is how many such records there were.
    pub const LOADING: u16 = 10;
    /// More of the arguments of the program whose execution was recorded last for this process: the argument says from
    /// which byte on, the second name has the bytes.
    pub const ARGUMENTS: u16 = 11;
    /// Rules have allowed something for the first time since their policy was put in force: the states, or the range of
    /// ports, say which.
    pub const FIRST_USE: u16 = 12;
    /// One of [`crate::calls`] was made. The argument is its number, the error what it returned if that is one, the
    /// second name has [`crate::calls::Detail`] and the call's text.
    pub const SYSTEM_CALL: u16 = 13;
}

/// What was tried. The numbers are ABI; the names are what people read.
pub mod operation {
    macro_rules! operations {
        ($($name:ident = $number:literal, $text:literal;)*) => {
            $(#[doc = $text] pub const $name: u16 = $number;)*
            /// The name of an operation, or `None` for a number that this version does not know.
            pub fn name(number: u16) -> Option<&'static str> {
                match number { $($name => Some($text),)* _ => None }
            }
            /// Every operation.
            pub const ALL: &[(u16, &str)] = &[$(($name, $text)),*];
        };
    }
    operations! {
        OPEN = 1, "open";
        CREATE = 2, "create";
        MKDIR = 3, "mkdir";
        SYMLINK = 4, "symlink";
        LINK = 5, "link";
        UNLINK = 6, "unlink";
        RMDIR = 7, "rmdir";
        RENAME = 8, "rename";
        TRUNCATE = 9, "truncate";
        CHMOD = 10, "chmod";
        CHOWN = 11, "chown";
        EXEC = 12, "exec";
        MAP = 13, "map";
        CONNECT = 20, "connect";
        SEND = 21, "send";
        BIND = 22, "bind";
        LISTEN = 23, "listen";
        SOCKET = 24, "socket";
        UNIX_CONNECT = 25, "unix-connect";
        UNIX_SEND = 26, "unix-send";
        CAPABILITY = 40, "capability";
        MOUNT = 41, "mount";
        UNMOUNT = 42, "unmount";
        PIVOT_ROOT = 43, "pivot-root";
        MOVE_MOUNT = 44, "move-mount";
        CHROOT = 45, "chroot";
        USER_NAMESPACE = 46, "user-namespace";
        PTRACE = 47, "ptrace";
        SIGNAL = 48, "signal";
        BPF = 49, "bpf";
        PERF = 50, "perf";
        CLOCK = 51, "clock";
        IO_URING = 52, "io-uring";
        FORK = 53, "fork";
        SETATTR = 54, "setattr";
        XATTR = 55, "xattr";
        ANON_EXEC = 56, "anonymous-exec";
        LIMIT = 57, "limit";
        SIGNAL_OWNER = 58, "signal-owner";
        KEY = 59, "key";
        SYSLOG = 60, "syslog";
        SOCKET_OPTION = 61, "socket-option";
        IOCTL = 62, "ioctl";
        RECEIVE = 63, "receive";
        ARGUMENTS = 64, "exec-arguments";
        IPC = 65, "ipc";
        WATCH = 66, "watch";
        MODULE = 67, "module";
        LEASE = 68, "lease";
        CORE_DUMP = 69, "core-dump";
    }
}

/// Why the verdict is what it is.
pub mod reason {
    /// Rules of the policy (or their absence) decided; the states tell which.
    pub const RULE: u16 = 1;
    /// The floor: refused to every session that its policy does not exempt.
    pub const FLOOR: u16 = 2;
    /// The object's name could not be told.
    pub const UNKNOWN_OBJECT: u16 = 3;
    /// The task is governed but belongs to no session.
    pub const NO_SESSION: u16 = 4;
    /// A table or allocation that must exist did not.
    pub const INTERNAL: u16 = 5;
    /// A rename would have given the object rights that it did not have.
    pub const GAINS_RIGHTS: u16 = 6;
    /// A directory would have moved to a name with other rules below it.
    pub const MOVES_RULES: u16 = 7;
    /// The rule holds the action and nobody can be asked, or nobody has answered yet.
    pub const HELD: u16 = 8;
    /// A person approved it; one use is taken.
    pub const GRANTED: u16 = 9;
    /// A person refused it.
    pub const REFUSED: u16 = 10;
    /// Nobody decided in time.
    pub const TIMED_OUT: u16 = 11;
    /// The session has asked for more than it may.
    pub const TOO_MANY: u16 = 12;
    /// The cgroup programs on the network refuse what the LSM hooks, which come first, have let pass: one of these does
    /// not do what it should.
    pub const SECOND_LAYER: u16 = 13;
}

/// What else is to be known about a record.
pub mod flag {
    /// The object's path is longer than a record can carry.
    pub const OBJECT_CUT: u16 = 1 << 0;
    /// The executable's path is longer than a record can carry, or could not be told.
    pub const EXE_CUT: u16 = 1 << 1;
    /// Rules only record what they would refuse: the operation went on.
    pub const WOULD: u16 = 1 << 2;
    /// The task is outside every root and was recognised by its label.
    pub const STRAY: u16 = 1 << 3;
    /// The task was still launching.
    pub const LAUNCHING: u16 = 1 << 4;
    /// The object's path does not begin at the session's root (another or no mount namespace).
    pub const FOREIGN: u16 = 1 << 5;
    /// The object has another name that rules deny or hold something under: the states are of that name.
    pub const OTHER_NAME: u16 = 1 << 6;
    /// Beside [`WOULD`]: it is not the policy's mode, break-glass is in force for the agent.
    pub const BREAK_GLASS: u16 = 1 << 7;
}
