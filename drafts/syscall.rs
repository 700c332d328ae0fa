//! The rare system calls that leave a record when an agent makes them, whatever becomes of them.

/// A system call.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Call {
    /// Its number in the 64-bit table (arch/x86/entry/syscalls/syscall_64.tbl).
    pub number: u32,
    /// Its name there.
    pub name: &'static str,
    /// How many arguments it takes.
    pub arguments: usize,
}

/// Arguments that a record has room for.
pub const ARGUMENTS: usize = 6;

/// The list, for programs and for readers.
#[macro_export]
macro_rules! recorded_calls {
    ($with:ident) => {
        $with! {
            sys_personality, "__x64_sys_personality", 135, "personality", 1;
            sys_unshare, "__x64_sys_unshare", 272, "unshare", 1;
            sys_open_by_handle_at, "__x64_sys_open_by_handle_at", 304, "open_by_handle_at", 3;
            sys_setns, "__x64_sys_setns", 308, "setns", 2;
            sys_process_vm_readv, "__x64_sys_process_vm_readv", 310, "process_vm_readv", 6;
            sys_process_vm_writev, "__x64_sys_process_vm_writev", 311, "process_vm_writev", 6;
            sys_kcmp, "__x64_sys_kcmp", 312, "kcmp", 5;
            sys_memfd_create, "__x64_sys_memfd_create", 319, "memfd_create", 2;
            sys_userfaultfd, "__x64_sys_userfaultfd", 323, "userfaultfd", 1;
            sys_io_uring_setup, "__x64_sys_io_uring_setup", 425, "io_uring_setup", 2;
            sys_open_tree, "__x64_sys_open_tree", 428, "open_tree", 3;
            sys_move_mount, "__x64_sys_move_mount", 429, "move_mount", 5;
            sys_fsopen, "__x64_sys_fsopen", 430, "fsopen", 2;
            sys_fspick, "__x64_sys_fspick", 433, "fspick", 3;
            sys_pidfd_getfd, "__x64_sys_pidfd_getfd", 438, "pidfd_getfd", 3;
            sys_process_madvise, "__x64_sys_process_madvise", 440, "process_madvise", 5;
            sys_mount_setattr, "__x64_sys_mount_setattr", 442, "mount_setattr", 5;
            sys_memfd_secret, "__x64_sys_memfd_secret", 447, "memfd_secret", 1;
        }
    };
}

macro_rules! table {
    ($($program:ident, $function:literal, $number:literal, $name:literal, $arguments:literal;)*) => {
        /// Every call, in one list.
        pub const CALLS: &[Call] =
            &[$(Call { number: $number, name: $name, arguments: $arguments }),*];
        /// Names of the programs, and the functions at whose end they run.
        pub const PROGRAMS: &[(&str, &str)] = &[$((stringify!($program), $function)),*];
    };
}
recorded_calls!(table);

/// The call with this number.
pub fn find(number: u32) -> Option<&'static Call> {
    CALLS.iter().find(|call| call.number == number)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_number_stands_once_and_takes_no_more_arguments_than_fit() {
        for call in CALLS {
            assert_eq!(find(call.number), Some(call));
            assert!(call.arguments >= 1 && call.arguments <= ARGUMENTS, "{call:?}");
        }
    }
}
