//! System calls that leave a record when a session makes them, whatever becomes of them: rare ones, which LSM hooks see
//! late, only as a capability, or not at all. What a policy says of each, and what a record has.
//!
//! The list is append-only: the place of a call in it is its bit in policies that are in force.

use zerocopy::{FromBytes, Immutable, IntoBytes, KnownLayout};

/// A system call.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Call {
    /// Its name.
    pub name: &'static str,
    /// Its number for 64-bit programs (arch/x86/entry/syscalls/syscall_64.tbl); records name calls by it.
    pub number: u32,
    /// Its number for 32-bit programs (arch/x86/entry/syscalls/syscall_32.tbl), or [`NONE`].
    pub narrow: u32,
    /// How many arguments it takes.
    pub arguments: usize,
    /// The argument that is a text, or [`NONE`].
    pub text: u32,
}

/// No number, no argument.
pub const NONE: u32 = u32::MAX;

const fn call(name: &'static str, number: u32, narrow: u32, arguments: usize, text: u32) -> Call {
    Call { name, number, narrow, arguments, text }
}

/// Every call: its name, both numbers, how many arguments, which of them is a text.
pub const CALLS: &[Call] = &[
    // Seen by the hook that judges new tasks, in all of its forms: the argument are its flags.
    call("clone", CLONE, NONE, 1, NONE),
    call("ptrace", 101, 26, 4, NONE),
    call("syslog", 103, 103, 3, NONE),
    call("personality", 135, 136, 1, NONE),
    call("modify_ldt", 154, 123, 3, NONE),
    call("pivot_root", 155, 217, 2, NONE),
    call("chroot", 161, 61, 1, 0),
    call("acct", 163, 51, 1, 0),
    call("mount", 165, 21, 5, 1),
    call("umount2", 166, 52, 2, 0),
    call("swapon", 167, 87, 2, 0),
    call("swapoff", 168, 115, 1, 0),
    call("reboot", 169, 88, 4, NONE),
    call("iopl", 172, 110, 1, NONE),
    call("ioperm", 173, 101, 3, NONE),
    call("init_module", 175, 128, 3, 2),
    call("delete_module", 176, 129, 2, 0),
    call("quotactl", 179, 131, 4, 1),
    call("kexec_load", 246, 283, 4, NONE),
    call("add_key", 248, 286, 5, 0),
    call("request_key", 249, 287, 4, 0),
    call("keyctl", 250, 288, 5, NONE),
    call("migrate_pages", 256, 294, 4, NONE),
    call("unshare", 272, 310, 1, NONE),
    call("move_pages", 279, 317, 6, NONE),
    call("perf_event_open", 298, 336, 5, NONE),
    call("fanotify_init", 300, 338, 2, NONE),
    call("name_to_handle_at", 303, 341, 5, 1),
    call("open_by_handle_at", 304, 342, 3, NONE),
    call("setns", 308, 346, 2, NONE),
    call("process_vm_readv", 310, 347, 6, NONE),
    call("process_vm_writev", 311, 348, 6, NONE),
    call("kcmp", 312, 349, 5, NONE),
    call("finit_module", 313, 350, 3, 1),
    call("memfd_create", 319, 356, 2, 0),
    call("kexec_file_load", 320, NONE, 5, NONE),
    call("bpf", 321, 357, 3, NONE),
    call("userfaultfd", 323, 374, 1, NONE),
    call("pidfd_send_signal", 424, 424, 4, NONE),
    call("io_uring_setup", 425, 425, 2, NONE),
    call("io_uring_register", 427, 427, 4, NONE),
    call("open_tree", 428, 428, 3, 1),
    call("move_mount", 429, 429, 5, 1),
    call("fsopen", 430, 430, 2, 0),
    call("fsconfig", 431, 431, 5, 2),
    call("fsmount", 432, 432, 3, NONE),
    call("fspick", 433, 433, 3, 1),
    call("pidfd_open", 434, 434, 2, NONE),
    call("pidfd_getfd", 438, 438, 3, NONE),
    call("process_madvise", 440, 440, 5, NONE),
    call("mount_setattr", 442, 442, 5, 1),
    call("quotactl_fd", 443, 443, 4, NONE),
    call("memfd_secret", 447, 447, 1, NONE),
    call("process_mrelease", 448, 448, 2, NONE),
    call("open_tree_attr", 467, 467, 5, 1),
];

/// Calls of 32-bit programs that have no like among 64-bit ones, each with its number there, the function that it ends in
/// on the kernel's side (without what stands before), and the call of the list that it is an older form of.
pub const OLDER: &[(u32, &str, &str)] = &[
    // Without flags: in their place stands whatever was in the register.
    (22, "oldumount", "umount2"),
];

/// The number of `clone`, which stands for `clone3` and the others that ask for namespaces, too.
pub const CLONE: u32 = 56;
/// The place of `clone` in the list.
pub const CLONE_PLACE: u32 = 0;
/// `CLONE_NEW…` (include/uapi/linux/sched.h).
pub const NAMESPACES: u64 = 0x7e02_0000 | 0x80;

/// Entries of the table that the programs find a call in: those of 32-bit programs begin at [`NARROW`].
pub const NUMBERS: u32 = 2 * NARROW;
/// See [`NUMBERS`].
pub const NARROW: u32 = 512;

/// An entry of that table: what the programs must know of a call; zero where there is none.
pub const fn entry(place: usize, call: &Call) -> u32 {
    let text = if call.text == NONE { 0 } else { call.text + 1 };
    (place as u32 + 1) | (text << 8) | (call.number << 16)
}

/// The call with this 64-bit number.
pub fn find(number: u32) -> Option<&'static Call> {
    CALLS.iter().find(|call| call.number == number)
}

/// The place of a call that is not in the list and ends in the function of one that is.
pub const UNLISTED: u32 = 63;

/// What a policy says of the calls, a bit for each. All are recorded otherwise, and go on.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Actions {
    /// Leave no record.
    pub ignored: u64,
    /// Stop the process when the call is over.
    pub stopped: u64,
    /// End it.
    pub killed: u64,
}

impl Actions {
    /// The calls after which something is done with the process.
    pub const fn acts(self) -> u64 {
        self.stopped | self.killed
    }
}

/// Arguments that a record has room for.
pub const ARGUMENTS: usize = 6;

/// What a record of a call has in the place of a second name; the text, if the call has one, follows.
#[derive(Clone, Copy, Debug, PartialEq, Eq, FromBytes, IntoBytes, Immutable, KnownLayout)]
#[repr(C)]
pub struct Detail {
    /// The arguments as they stood in the registers.
    pub arguments: [u64; ARGUMENTS],
    /// What the call returned, or [`UNDECIDED`].
    pub result: i64,
    /// 32 for a call of a 32-bit program, 64 for others.
    pub bits: u32,
    /// [`GOES_ON`], [`STOPPED`] or [`KILLED`].
    pub then: u32,
}

/// Bytes of a [`Detail`].
pub const DETAIL: usize = size_of::<Detail>();
const _: () = assert!(DETAIL == 64);
/// Bytes of a call's text.
pub const TEXT: usize = 256;
/// The record was made before the call was over.
pub const UNDECIDED: i64 = i64::MIN;
/// The process goes on.
pub const GOES_ON: u32 = 0;
/// It was stopped.
pub const STOPPED: u32 = 1;
/// It was ended.
pub const KILLED: u32 = 2;

/// Records of calls that a session may leave in each [`WINDOW`]; what is beyond is counted as lost.
pub const QUOTA: u64 = 256;
/// Nanoseconds.
pub const WINDOW: u64 = 1_000_000_000;

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn numbers_stand_once_and_everything_fits() {
        assert!(CALLS.len() <= UNLISTED as usize, "a policy has 64 bits");
        assert_eq!(CALLS[CLONE_PLACE as usize].number, CLONE);
        assert!(OLDER.iter().all(|(.., name)| CALLS.iter().any(|call| call.name == *name)));
        for (place, call) in CALLS.iter().enumerate() {
            assert_eq!(find(call.number), Some(call));
            assert!(
                CALLS.iter().filter(|other| other.narrow == call.narrow).count() == 1 || call.narrow == NONE
            );
            assert!(call.number < NARROW && (call.narrow < NARROW || call.narrow == NONE), "{call:?}");
            assert!(call.arguments >= 1 && call.arguments <= ARGUMENTS, "{call:?}");
            assert!(call.text == NONE || (call.text as usize) < call.arguments, "{call:?}");
            assert!(OLDER.iter().all(|(narrow, ..)| *narrow < NARROW && *narrow != call.narrow));
            let word = entry(place, call);
            assert_eq!((word & 0xff, word >> 16), (place as u32 + 1, call.number));
        }
    }
}
