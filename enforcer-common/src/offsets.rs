//! The members of kernel structures that the programs read. Rust emits no relocations for them, so
//! the daemon looks them up in the running kernel's BTF and writes them into the instructions before it loads the
//! programs: a constant costs nothing where a variable is a load of its own. One list for both sides.

/// A member to look up.
#[derive(Clone, Copy, Debug)]
pub struct Field {
    /// What the programs call the byte offset.
    pub global: &'static str,
    /// The structure.
    pub of: &'static str,
    /// The member's path, with alternatives for kernels that call it otherwise.
    pub members: &'static [&'static str],
    /// Bytes that the programs read there. A member of another size refuses the start.
    pub size: u32,
}

/// Hands the list to the macro `$with`: `(GLOBAL, "struct", ["member", …], size)` for each.
#[macro_export]
macro_rules! kernel_fields {
    ($with:ident) => {
        $with! {
            FILE_PATH, "file", ["f_path"], 16;
            FILE_INODE, "file", ["f_inode"], 8;
            FILE_FLAGS, "file", ["f_flags"], 4;
            FILE_MODE, "file", ["f_mode"], 4;
            FILE_PRIVATE, "file", ["private_data"], 8;
            PATH_MOUNT, "path", ["mnt"], 8;
            PATH_DENTRY, "path", ["dentry"], 8;
            VFSMOUNT_ROOT, "vfsmount", ["mnt_root"], 8;
            VFSMOUNT_SB, "vfsmount", ["mnt_sb"], 8;
            MOUNT_VFSMOUNT, "mount", ["mnt"], 0;
            MOUNT_PARENT, "mount", ["mnt_parent"], 8;
            MOUNT_POINT, "mount", ["mnt_mountpoint"], 8;
            MOUNT_NAMESPACE, "mount", ["mnt_ns"], 8;
            DENTRY_PARENT, "dentry", ["d_parent"], 8;
            DENTRY_LEN, "dentry", ["d_name.len"], 4;
            DENTRY_NAME, "dentry", ["d_name.name"], 8;
            DENTRY_INODE, "dentry", ["d_inode"], 8;
            DENTRY_FLAGS, "dentry", ["d_flags"], 4;
            DENTRY_COUNT, "dentry", ["d_seq"], 4;
            DENTRY_PRIVATE, "dentry", ["d_fsdata"], 8;
            DENTRY_INLINE, "dentry", ["d_shortname", "d_iname"], 0;
            INODE_MODE, "inode", ["i_mode"], 2;
            INODE_FLAGS, "inode", ["i_flags"], 4;
            INODE_NUMBER, "inode", ["i_ino"], 8;
            INODE_SB, "inode", ["i_sb"], 8;
            INODE_DEVICE, "inode", ["i_rdev"], 4;
            INODE_PRIVATE, "inode", ["i_private"], 8;
            INODE_LINKS, "inode", ["i_nlink"], 4;
            INODE_GENERATION, "inode", ["i_generation"], 4;
            INODE_CHANGED, "inode", ["i_ctime_sec", "__i_ctime.tv_sec", "i_ctime.tv_sec"], 8;
            INODE_CHANGED_NANOS, "inode", ["i_ctime_nsec", "__i_ctime.tv_nsec", "i_ctime.tv_nsec"], 0;
            INODE_WRITERS, "inode", ["i_writecount"], 4;
            SB_DEVICE, "super_block", ["s_dev"], 4;
            SB_MAGIC, "super_block", ["s_magic"], 8;
            BPRM_FILE, "linux_binprm", ["file"], 8;
            BPRM_COUNT, "linux_binprm", ["argc"], 4;
            BPRM_NAME, "linux_binprm", ["filename"], 8;
            BPRM_INTERPRETER, "linux_binprm", ["interp"], 8;
            VMA_FILE, "vm_area_struct", ["vm_file"], 8;
            TASK_TGID, "task_struct", ["tgid"], 4;
            TASK_PID, "task_struct", ["pid"], 4;
            TASK_COMM, "task_struct", ["comm"], 16;
            TASK_FLAGS, "task_struct", ["flags"], 4;
            TASK_SIGNAL, "task_struct", ["signal"], 8;
            SIGNAL_LIMITS, "signal_struct", ["rlim"], 0;
            TASK_LEADER, "task_struct", ["group_leader"], 8;
            TASK_START, "task_struct", ["start_boottime"], 8;
            TASK_PARENT, "task_struct", ["real_parent"], 8;
            TASK_TRACED, "task_struct", ["ptrace"], 4;
            TASK_MM, "task_struct", ["mm"], 8;
            TASK_NSPROXY, "task_struct", ["nsproxy"], 8;
            TASK_CRED, "task_struct", ["cred"], 8;
            TASK_REAL_CRED, "task_struct", ["real_cred"], 8;
            TASK_STATUS, "task_struct", ["thread_info.status"], 4;
            TASK_CGROUPS, "task_struct", ["cgroups"], 8;
            TASK_STORAGE, "task_struct", ["bpf_storage"], 8;
            TASK_PIDS, "task_struct", ["pid_links"], 0;
            CRED_UID, "cred", ["uid.val"], 4;
            CSS_SET_CGROUP, "css_set", ["dfl_cgrp"], 8;
            KEY_DESCRIPTION, "key", ["description"], 8;
            KEY_TYPE, "key", ["type"], 8;
            KEY_TYPE_NAME, "key_type", ["name"], 8;
            IATTR_VALID, "iattr", ["ia_valid"], 4;
            NSPROXY_MOUNT, "nsproxy", ["mnt_ns"], 8;
            MM_EXE, "mm_struct", ["exe_file"], 8;
            MM_ARGUMENTS, "mm_struct", ["arg_start"], 8;
            MM_ARGUMENTS_END, "mm_struct", ["arg_end"], 8;
            CGROUP_NODE, "cgroup", ["kn"], 8;
            CGROUP_PARENT, "cgroup", ["self.parent"], 8;
            NODE_ID, "kernfs_node", ["id"], 8;
            SOCKET_SOCK, "socket", ["sk"], 8;
            SOCK_FAMILY, "sock", ["__sk_common.skc_family"], 2;
            SOCK_PROTOCOL, "sock", ["sk_protocol"], 2;
            SOCK_PORT, "sock", ["__sk_common.skc_num"], 2;
            SOCK_LOCAL, "sock", ["__sk_common.skc_rcv_saddr"], 4;
            SOCK_LOCAL6, "sock", ["__sk_common.skc_v6_rcv_saddr"], 16;
            SOCK_SOURCE, "inet_sock", ["inet_saddr"], 4;
            SOCK_CGROUP, "sock", ["sk_cgrp_data.cgroup"], 8;
            UNIX_PATH, "unix_sock", ["path"], 16;
            UNIX_ADDRESS, "unix_sock", ["addr"], 8;
            UNIX_LEN, "unix_address", ["len"], 4;
            UNIX_NAME, "unix_address", ["name"], 0;
            MSG_CONTROL, "msghdr", ["msg_control"], 8;
            MSG_CONTROLLEN, "msghdr", ["msg_controllen"], 8;
            CGROUP_ROOT, "cgroup", ["root"], 8;
            HIERARCHY_ID, "cgroup_root", ["hierarchy_id"], 4;
            MSG_NAME, "msghdr", ["msg_name"], 8;
            MSG_NAMELEN, "msghdr", ["msg_namelen"], 4;
            PROC_INODE, "proc_inode", ["vfs_inode"], 0;
            PROC_PID, "proc_inode", ["pid"], 8;
            PID_NUMBERS, "pid", ["numbers"], 0;
            PID_TASKS, "pid", ["tasks"], 0;
            TERMINAL_OF_FILE, "tty_file_private", ["tty"], 8;
            TERMINAL_LINK, "tty_struct", ["link"], 8;
            TERMINAL_DRIVER, "tty_struct", ["driver_data"], 8;
            TERMINAL_SESSION, "tty_struct", ["ctrl.session"], 8;
            QSTR_NAME, "qstr", ["name"], 8;
        }
    };
}

macro_rules! table {
    ($($global:ident, $of:literal, [$($member:literal),*], $size:literal;)*) => {
        /// Place of each member in [`FIELDS`].
        #[allow(non_camel_case_types, clippy::upper_case_acronyms, missing_docs)]
        #[derive(Clone, Copy, Debug)]
        #[repr(i32)]
        pub enum Index { $($global),* }

        /// Every member, in one list.
        pub const FIELDS: &[Field] = &[
            $(Field { global: stringify!($global), of: $of, members: &[$($member),*], size: $size }),*
        ];
    };
}
kernel_fields!(table);

/// What stands in the instructions for the first member; the others follow, then [`Extra`]. No offset is as large, and
/// the verifier would refuse one that stayed.
pub const PLACEHOLDER: i32 = 0x7ffe_0000;

/// Numbers that are no offsets, behind those of [`FIELDS`].
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[repr(i32)]
pub enum Extra {
    /// Address of `rename_lock` (fs/dcache.c), the sequence counter under which names move. Zero means "no cache",
    /// never "unchanged".
    RenameLock,
    /// Address of `mount_lock` (fs/namespace.c), in the same way.
    MountLock,
    /// Address of `core_pattern` (fs/coredump.c). Zero: it cannot be told where core dumps go.
    CorePattern,
    /// BTF id of a structure of two plain words, where addresses can be cast; else 0.
    CastType,
    /// The generation of the programs.
    Generation,
    /// What keeps a multiple of four inside the arena.
    ArenaWords,
    /// What keeps a multiple of eight inside the arena.
    ArenaRanges,
}

/// How many there are.
pub const EXTRAS: usize = Extra::ArenaRanges as usize + 1;

impl Extra {
    /// What stands for it.
    pub const fn placeholder(self) -> i32 {
        PLACEHOLDER + FIELDS.len() as i32 + self as i32
    }
}

/// Maps of one entry, whose address stands in the instructions: a lookup would cost a dozen of them. Behind the numbers.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[repr(i32)]
pub enum Single {
    /// `GATE`.
    Gate,
    /// `ARENA`.
    Arena,
    /// `MOVES`.
    Moves,
}

impl Single {
    /// What stands for it, in an instruction that loads 64 bits.
    pub const fn placeholder(self) -> i32 {
        Extra::ArenaRanges.placeholder() + 1 + self as i32
    }
}

/// Every [`Single`], by the map's name.
pub const SINGLES: &[(Single, &str)] =
    &[(Single::Gate, "GATE"), (Single::Arena, "ARENA"), (Single::Moves, "MOVES")];

/// Those of [`Extra`] that are addresses of kernel symbols.
pub const SYMBOLS: &[(Extra, &str)] = &[
    (Extra::RenameLock, "rename_lock"),
    (Extra::MountLock, "mount_lock"),
    (Extra::CorePattern, "core_pattern"),
];
