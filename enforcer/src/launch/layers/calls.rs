//! Which system calls a session's filter refuses: a pure table, and what a policy makes of it.
//!
//! A filter decides before every LSM hook, so what it refuses leaves no record. The table therefore says of each
//! call what would be recorded without a filter.

use crate::policy::Seccomp;
use enforcer_common::{
    calls,
    floor::{CLOCK, Grants, IO_URING, KERNEL_LOG, NO_TRACE},
};
use serde::{Deserialize, Serialize};

/// What becomes of a call's refusal without a filter.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Recorded {
    /// No LSM program refuses the call, or it has no use after one that is refused and recorded.
    Never,
    /// Only root's: whoever lacks the capability is refused by the kernel, which asks for it first.
    OfRoot,
    /// A record of everybody's.
    Always,
}
use Recorded::{Always, Never, OfRoot};

/// A call that may be refused.
struct Entry {
    name: &'static str,
    /// Its number on this architecture.
    native: Option<i64>,
    /// Its number for 32-bit programs (arch/x86/entry/syscalls/syscall_32.tbl).
    narrow: Option<u32>,
    recorded: Recorded,
    /// The item of the floor with which it is granted.
    granted_by: u32,
    /// It is refused only where one of these bits is set in the argument of that number.
    bits: Option<(u8, u32)>,
}

const fn entry(name: &'static str, native: i64, narrow: u32, recorded: Recorded) -> Entry {
    let (native, narrow) = (Some(native), Some(narrow));
    Entry { name, native, narrow, recorded, granted_by: 0, bits: None }
}

impl Entry {
    const fn unless(self, granted_by: u32) -> Self {
        Self { granted_by, ..self }
    }

    const fn with(self, argument: u8, bits: u32) -> Self {
        Self { bits: Some((argument, bits)), ..self }
    }

    const fn not_native(self) -> Self {
        Self { native: None, ..self }
    }

    const fn not_narrow(self) -> Self {
        Self { narrow: None, ..self }
    }
}

/// `OPEN_TREE_CLONE`: without it nothing is mounted.
const OPEN_TREE_CLONE: u32 = 1;
/// Every `CLONE_NEW…` that clone(2) knows; the bit of time namespaces is a part of its signal there.
const NAMESPACES: u32 = 0x7e02_0000;
/// The same with time namespaces, for unshare(2).
const ALL_NAMESPACES: u32 = NAMESPACES | 0x80;

/// What is not in it on purpose: calls that ordinary programs also make and that cannot be told by their numbers
/// (`adjtimex` and `quotactl` reading, `fanotify_init` without privileges, `process_vm_readv` of oneself, `keyctl` on
/// own keys, `mknod` of whiteouts). The LSM programs tell.
const TABLE: &[Entry] = &[
    entry("userfaultfd", libc::SYS_userfaultfd, 374, Never),
    entry("modify_ldt", libc::SYS_modify_ldt, 123, Never),
    entry("uselib", libc::SYS_uselib, 86, Never),
    entry("vm86", 0, 166, Never).not_native(),
    entry("vm86old", 0, 113, Never).not_native(),
    entry("io_uring_enter", libc::SYS_io_uring_enter, 426, Never).unless(IO_URING),
    entry("io_uring_register", libc::SYS_io_uring_register, 427, Never).unless(IO_URING),
    entry("fsconfig", libc::SYS_fsconfig, 431, Never),
    entry("umount2", libc::SYS_umount2, 52, OfRoot),
    entry("umount", 0, 22, OfRoot).not_native(),
    entry("pivot_root", libc::SYS_pivot_root, 217, OfRoot),
    entry("open_tree", libc::SYS_open_tree, 428, OfRoot).with(2, OPEN_TREE_CLONE),
    entry("move_mount", libc::SYS_move_mount, 429, OfRoot),
    entry("fsopen", libc::SYS_fsopen, 430, OfRoot),
    entry("fsmount", libc::SYS_fsmount, 432, OfRoot),
    entry("fspick", libc::SYS_fspick, 433, OfRoot),
    entry("mount_setattr", libc::SYS_mount_setattr, 442, OfRoot),
    entry("chroot", libc::SYS_chroot, 61, OfRoot),
    entry("setns", libc::SYS_setns, 346, OfRoot),
    entry("kexec_load", libc::SYS_kexec_load, 283, OfRoot),
    entry("kexec_file_load", libc::SYS_kexec_file_load, 0, OfRoot).not_narrow(),
    entry("init_module", libc::SYS_init_module, 128, OfRoot),
    entry("finit_module", libc::SYS_finit_module, 350, OfRoot),
    entry("delete_module", libc::SYS_delete_module, 129, OfRoot),
    entry("reboot", libc::SYS_reboot, 88, OfRoot),
    entry("swapon", libc::SYS_swapon, 87, OfRoot),
    entry("swapoff", libc::SYS_swapoff, 115, OfRoot),
    entry("acct", libc::SYS_acct, 51, OfRoot),
    entry("iopl", libc::SYS_iopl, 110, OfRoot),
    entry("ioperm", libc::SYS_ioperm, 101, OfRoot),
    entry("sethostname", libc::SYS_sethostname, 74, OfRoot),
    entry("setdomainname", libc::SYS_setdomainname, 121, OfRoot),
    entry("vhangup", libc::SYS_vhangup, 111, OfRoot),
    entry("lookup_dcookie", libc::SYS_lookup_dcookie, 253, OfRoot),
    entry("open_by_handle_at", libc::SYS_open_by_handle_at, 342, OfRoot),
    entry("settimeofday", libc::SYS_settimeofday, 79, OfRoot).unless(CLOCK),
    entry("stime", 0, 25, OfRoot).not_native().unless(CLOCK),
    entry("clock_settime", libc::SYS_clock_settime, 264, OfRoot).unless(CLOCK),
    entry("clock_settime64", 0, 404, OfRoot).not_native().unless(CLOCK),
    entry("mount", libc::SYS_mount, 21, Always),
    entry("unshare", libc::SYS_unshare, 310, Always).with(0, ALL_NAMESPACES),
    entry("clone", libc::SYS_clone, 120, Always).with(0, NAMESPACES),
    entry("bpf", libc::SYS_bpf, 357, Always),
    entry("perf_event_open", libc::SYS_perf_event_open, 336, Always),
    entry("io_uring_setup", libc::SYS_io_uring_setup, 425, Always).unless(IO_URING),
    entry("syslog", libc::SYS_syslog, 103, Always).unless(KERNEL_LOG),
];

/// The system calls that a filter refuses.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Calls {
    /// Refused with EPERM, by this architecture's numbers.
    pub native: Vec<Refused<i64>>,
    /// The same for 32-bit programs.
    pub narrow: Vec<Refused<u32>>,
    /// clone3(2) answers ENOSYS: its flags lie in memory, where no filter sees them. C libraries then use clone(2).
    pub no_clone3: bool,
}

/// One call.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Refused<N> {
    /// Its number.
    pub number: N,
    /// It is refused only where one of these bits is set in the argument of that number, from 0.
    pub bits: Option<(u8, u32)>,
}

/// What the filter of a session refuses; `powerless`: it is not root's and can gain nothing by executing.
pub fn refused(choice: Seccomp, grants: Grants, powerless: bool) -> Option<Calls> {
    let all = match choice {
        Seccomp::None => return None,
        Seccomp::Unrecorded => false,
        Seccomp::All => true,
    };
    let wanted = |entry: &&Entry| {
        let unseen = match entry.recorded {
            Never => true,
            // The kernel refuses it, and the attempt leaves evidence.
            OfRoot => powerless && !calls::CALLS.iter().any(|call| call.name == entry.name),
            Always => false,
        };
        (all || unseen) && (entry.granted_by == 0 || grants.floor & entry.granted_by == 0)
    };
    let trace = entry("ptrace", libc::SYS_ptrace, 26, Always);
    let traced = (grants.floor & NO_TRACE != 0).then_some(&trace);
    let mut calls = Calls { no_clone3: all, ..Calls::default() };
    for entry in TABLE.iter().chain(traced).filter(wanted) {
        debug_assert!(!entry.name.is_empty());
        calls.native.extend(entry.native.map(|number| Refused { number, bits: entry.bits }));
        calls.narrow.extend(entry.narrow.map(|number| Refused { number, bits: entry.bits }));
    }
    Some(calls)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn names(choice: Seccomp, floor: u32, powerless: bool) -> Vec<&'static str> {
        let calls = refused(choice, Grants { floor, ..Grants::default() }, powerless).unwrap_or_default();
        let known = |number: i64| TABLE.iter().find(|entry| entry.native == Some(number)).map(|e| e.name);
        calls.native.iter().map(|call| known(call.number).unwrap_or("ptrace")).collect()
    }

    #[test]
    fn what_would_be_recorded_is_left_to_the_programs_that_record_it() {
        let of_root = names(Seccomp::Unrecorded, 0, false);
        assert!(of_root.contains(&"userfaultfd") && of_root.contains(&"io_uring_enter"));
        for recorded in ["mount", "init_module", "bpf", "io_uring_setup", "chroot", "clone"] {
            assert!(!of_root.contains(&recorded), "{recorded}");
        }
        let of_others = names(Seccomp::Unrecorded, 0, true);
        assert!(of_others.contains(&"sethostname") && of_others.contains(&"settimeofday"));
        for recorded in
            ["init_module", "chroot", "setns", "mount", "bpf", "perf_event_open", "io_uring_setup", "unshare"]
        {
            assert!(!of_others.contains(&recorded), "{recorded}");
        }
    }

    #[test]
    fn what_a_policy_grants_is_not_refused() {
        for (item, calls) in [
            (IO_URING, &["io_uring_setup", "io_uring_enter", "io_uring_register"][..]),
            (CLOCK, &["settimeofday", "clock_settime"]),
            (KERNEL_LOG, &["syslog"]),
        ] {
            for call in calls {
                assert!(names(Seccomp::All, 0, false).contains(call), "{call}");
                assert!(!names(Seccomp::All, item, false).contains(call), "{call}");
            }
        }
        assert!(!names(Seccomp::All, 0, false).contains(&"ptrace"));
        assert!(names(Seccomp::All, NO_TRACE, false).contains(&"ptrace"));
        assert!(refused(Seccomp::None, Grants::default(), true).is_none());
    }

    #[test]
    fn no_call_is_named_twice_and_all_names_differ() {
        for (index, entry) in TABLE.iter().enumerate() {
            for other in &TABLE[index + 1..] {
                assert_ne!(entry.name, other.name);
                assert!(entry.native.is_none() || entry.native != other.native, "{}", entry.name);
                assert!(entry.narrow.is_none() || entry.narrow != other.narrow, "{}", entry.name);
            }
        }
    }
}
