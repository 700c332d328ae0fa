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
    /// The program that runs when the 64-bit call is over, and the kernel's function.
    pub wide_program: (&'static str, &'static str),
    /// The same of the 32-bit call; no function where there is none.
    pub narrow_program: (&'static str, &'static str),
}

/// No number, no argument.
pub const NONE: u32 = u32::MAX;

/// The calls that have programs of their own, for the kernel's side and for the daemon's: names of both programs,
/// name, both numbers, arguments, which of them is a text, both functions.
#[macro_export]
macro_rules! recorded_calls {
    ($with:ident) => {
        $with! {
            wide_ptrace, narrow_ptrace, "ptrace", 101, 26, 4, NONE, "__x64_sys_ptrace", "__ia32_compat_sys_ptrace";
            wide_syslog, narrow_syslog, "syslog", 103, 103, 3, NONE, "__x64_sys_syslog", "__ia32_sys_syslog";
            wide_personality, narrow_personality, "personality", 135, 136, 1, NONE, "__x64_sys_personality", "__ia32_sys_personality";
            wide_modify_ldt, narrow_modify_ldt, "modify_ldt", 154, 123, 3, NONE, "__x64_sys_modify_ldt", "__ia32_sys_modify_ldt";
            wide_pivot_root, narrow_pivot_root, "pivot_root", 155, 217, 2, NONE, "__x64_sys_pivot_root", "__ia32_sys_pivot_root";
            wide_chroot, narrow_chroot, "chroot", 161, 61, 1, 0, "__x64_sys_chroot", "__ia32_sys_chroot";
            wide_acct, narrow_acct, "acct", 163, 51, 1, 0, "__x64_sys_acct", "__ia32_sys_acct";
            wide_mount, narrow_mount, "mount", 165, 21, 5, 1, "__x64_sys_mount", "__ia32_sys_mount";
            wide_umount2, narrow_umount2, "umount2", 166, 52, 2, 0, "__x64_sys_umount", "__ia32_sys_umount";
            wide_swapon, narrow_swapon, "swapon", 167, 87, 2, 0, "__x64_sys_swapon", "__ia32_sys_swapon";
            wide_swapoff, narrow_swapoff, "swapoff", 168, 115, 1, 0, "__x64_sys_swapoff", "__ia32_sys_swapoff";
            wide_reboot, narrow_reboot, "reboot", 169, 88, 4, NONE, "__x64_sys_reboot", "__ia32_sys_reboot";
            wide_iopl, narrow_iopl, "iopl", 172, 110, 1, NONE, "__x64_sys_iopl", "__ia32_sys_iopl";
            wide_ioperm, narrow_ioperm, "ioperm", 173, 101, 3, NONE, "__x64_sys_ioperm", "__ia32_sys_ioperm";
            wide_init_module, narrow_init_module, "init_module", 175, 128, 3, 2, "__x64_sys_init_module", "__ia32_sys_init_module";
            wide_delete_module, narrow_delete_module, "delete_module", 176, 129, 2, 0, "__x64_sys_delete_module", "__ia32_sys_delete_module";
            wide_quotactl, narrow_quotactl, "quotactl", 179, 131, 4, 1, "__x64_sys_quotactl", "__ia32_sys_quotactl";
            wide_kexec_load, narrow_kexec_load, "kexec_load", 246, 283, 4, NONE, "__x64_sys_kexec_load", "__ia32_compat_sys_kexec_load";
            wide_add_key, narrow_add_key, "add_key", 248, 286, 5, 0, "__x64_sys_add_key", "__ia32_sys_add_key";
            wide_request_key, narrow_request_key, "request_key", 249, 287, 4, 0, "__x64_sys_request_key", "__ia32_sys_request_key";
            wide_keyctl, narrow_keyctl, "keyctl", 250, 288, 5, NONE, "__x64_sys_keyctl", "__ia32_compat_sys_keyctl";
            wide_migrate_pages, narrow_migrate_pages, "migrate_pages", 256, 294, 4, NONE, "__x64_sys_migrate_pages", "__ia32_sys_migrate_pages";
            wide_unshare, narrow_unshare, "unshare", 272, 310, 1, NONE, "__x64_sys_unshare", "__ia32_sys_unshare";
            wide_move_pages, narrow_move_pages, "move_pages", 279, 317, 6, NONE, "__x64_sys_move_pages", "__ia32_sys_move_pages";
            wide_perf_event_open, narrow_perf_event_open, "perf_event_open", 298, 336, 5, NONE, "__x64_sys_perf_event_open", "__ia32_sys_perf_event_open";
            wide_fanotify_init, narrow_fanotify_init, "fanotify_init", 300, 338, 2, NONE, "__x64_sys_fanotify_init", "__ia32_sys_fanotify_init";
            wide_name_to_handle_at, narrow_name_to_handle_at, "name_to_handle_at", 303, 341, 5, 1, "__x64_sys_name_to_handle_at", "__ia32_sys_name_to_handle_at";
            wide_open_by_handle_at, narrow_open_by_handle_at, "open_by_handle_at", 304, 342, 3, NONE, "__x64_sys_open_by_handle_at", "__ia32_compat_sys_open_by_handle_at";
            wide_setns, narrow_setns, "setns", 308, 346, 2, NONE, "__x64_sys_setns", "__ia32_sys_setns";
            wide_process_vm_readv, narrow_process_vm_readv, "process_vm_readv", 310, 347, 6, NONE, "__x64_sys_process_vm_readv", "__ia32_sys_process_vm_readv";
            wide_process_vm_writev, narrow_process_vm_writev, "process_vm_writev", 311, 348, 6, NONE, "__x64_sys_process_vm_writev", "__ia32_sys_process_vm_writev";
            wide_kcmp, narrow_kcmp, "kcmp", 312, 349, 5, NONE, "__x64_sys_kcmp", "__ia32_sys_kcmp";
            wide_finit_module, narrow_finit_module, "finit_module", 313, 350, 3, 1, "__x64_sys_finit_module", "__ia32_sys_finit_module";
            wide_memfd_create, narrow_memfd_create, "memfd_create", 319, 356, 2, 0, "__x64_sys_memfd_create", "__ia32_sys_memfd_create";
            wide_kexec_file_load, narrow_kexec_file_load, "kexec_file_load", 320, NONE, 5, NONE, "__x64_sys_kexec_file_load", "";
            wide_bpf, narrow_bpf, "bpf", 321, 357, 3, NONE, "__x64_sys_bpf", "__ia32_sys_bpf";
            wide_userfaultfd, narrow_userfaultfd, "userfaultfd", 323, 374, 1, NONE, "__x64_sys_userfaultfd", "__ia32_sys_userfaultfd";
            wide_pidfd_send_signal, narrow_pidfd_send_signal, "pidfd_send_signal", 424, 424, 4, NONE, "__x64_sys_pidfd_send_signal", "__ia32_sys_pidfd_send_signal";
            wide_io_uring_setup, narrow_io_uring_setup, "io_uring_setup", 425, 425, 2, NONE, "__x64_sys_io_uring_setup", "__ia32_sys_io_uring_setup";
            wide_io_uring_register, narrow_io_uring_register, "io_uring_register", 427, 427, 4, NONE, "__x64_sys_io_uring_register", "__ia32_sys_io_uring_register";
            wide_open_tree, narrow_open_tree, "open_tree", 428, 428, 3, 1, "__x64_sys_open_tree", "__ia32_sys_open_tree";
            wide_move_mount, narrow_move_mount, "move_mount", 429, 429, 5, 1, "__x64_sys_move_mount", "__ia32_sys_move_mount";
            wide_fsopen, narrow_fsopen, "fsopen", 430, 430, 2, 0, "__x64_sys_fsopen", "__ia32_sys_fsopen";
            wide_fsconfig, narrow_fsconfig, "fsconfig", 431, 431, 5, 2, "__x64_sys_fsconfig", "__ia32_sys_fsconfig";
            wide_fsmount, narrow_fsmount, "fsmount", 432, 432, 3, NONE, "__x64_sys_fsmount", "__ia32_sys_fsmount";
            wide_fspick, narrow_fspick, "fspick", 433, 433, 3, 1, "__x64_sys_fspick", "__ia32_sys_fspick";
            wide_pidfd_open, narrow_pidfd_open, "pidfd_open", 434, 434, 2, NONE, "__x64_sys_pidfd_open", "__ia32_sys_pidfd_open";
            wide_pidfd_getfd, narrow_pidfd_getfd, "pidfd_getfd", 438, 438, 3, NONE, "__x64_sys_pidfd_getfd", "__ia32_sys_pidfd_getfd";
            wide_process_madvise, narrow_process_madvise, "process_madvise", 440, 440, 5, NONE, "__x64_sys_process_madvise", "__ia32_sys_process_madvise";
            wide_mount_setattr, narrow_mount_setattr, "mount_setattr", 442, 442, 5, 1, "__x64_sys_mount_setattr", "__ia32_sys_mount_setattr";
            wide_quotactl_fd, narrow_quotactl_fd, "quotactl_fd", 443, 443, 4, NONE, "__x64_sys_quotactl_fd", "__ia32_sys_quotactl_fd";
            wide_memfd_secret, narrow_memfd_secret, "memfd_secret", 447, 447, 1, NONE, "__x64_sys_memfd_secret", "__ia32_sys_memfd_secret";
            wide_process_mrelease, narrow_process_mrelease, "process_mrelease", 448, 448, 2, NONE, "__x64_sys_process_mrelease", "__ia32_sys_process_mrelease";
            wide_open_tree_attr, narrow_open_tree_attr, "open_tree_attr", 467, 467, 5, 1, "__x64_sys_open_tree_attr", "__ia32_sys_open_tree_attr";
        }
    };
}

macro_rules! table {
    ($($wide:ident, $narrow:ident, $name:literal, $number:literal, $narrow_number:tt, $arguments:literal, $text:tt,
       $function:literal, $narrow_function:literal;)*) => {
        /// Every call.
        pub const CALLS: &[Call] = &[
            // Seen by the hook that judges new tasks, in all of its forms: the argument are its flags.
            Call {
                name: "clone",
                number: CLONE,
                narrow: NONE,
                arguments: 1,
                text: NONE,
                wide_program: ("", ""),
                narrow_program: ("", ""),
            },
            $(Call {
                name: $name,
                number: $number,
                narrow: $narrow_number,
                arguments: $arguments,
                text: $text,
                wide_program: (stringify!($wide), $function),
                narrow_program: (stringify!($narrow), $narrow_function),
            }),*
        ];
    };
}
recorded_calls!(table);

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
        assert!(CALLS.len() <= 64, "a policy has 64 bits");
        assert_eq!(CALLS[CLONE_PLACE as usize].number, CLONE);
        for (place, call) in CALLS.iter().enumerate() {
            assert_eq!(find(call.number), Some(call));
            assert!(
                CALLS.iter().filter(|other| other.narrow == call.narrow).count() == 1 || call.narrow == NONE
            );
            assert!(call.number < NARROW && (call.narrow < NARROW || call.narrow == NONE), "{call:?}");
            assert!(call.arguments >= 1 && call.arguments <= ARGUMENTS, "{call:?}");
            assert!(call.text == NONE || (call.text as usize) < call.arguments, "{call:?}");
            assert_eq!((call.narrow == NONE), call.narrow_program.1.is_empty(), "{call:?}");
            let word = entry(place, call);
            assert_eq!((word & 0xff, word >> 16), (place as u32 + 1, call.number));
        }
    }
}
