//! Every program and the hook that it belongs to. All that this kernel can have are required: a
//! missing one would be an operation that nobody decides.

/// How a program is attached.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Kind {
    /// `bpf_lsm_*`.
    Lsm,
    /// A BTF tracepoint.
    Tracepoint,
    /// Entry of a kernel function.
    Entry,
    /// Return of a kernel function.
    Exit,
}

/// Which kernels need the program.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum When {
    /// All.
    Always,
    /// Those whose `struct file` keeps `f_path` in a union.
    TaggedPaths,
    /// The others.
    PlainPaths,
    /// Those that have the hook; older ones judge the same operation elsewhere.
    IfPresent,
    /// Those whose hook takes as many parameters as the program says; another program is for the others.
    IfSoMany,
    /// Those that have the function and read memory without calls. It decides nothing and makes others cheaper.
    IfOfUse,
}

/// A program.
#[derive(Clone, Copy, Debug)]
pub struct HookProgram {
    /// Its name in the object.
    pub program: &'static str,
    /// The hook, tracepoint or function.
    pub hook: &'static str,
    /// How it is attached.
    pub kind: Kind,
    /// Where it is needed.
    pub when: When,
    /// Parameters that the hook must take. Another number means that the arguments moved.
    pub parameters: u32,
}

const fn lsm(hook: &'static str, parameters: u32) -> HookProgram {
    HookProgram { program: hook, hook, kind: Kind::Lsm, when: When::Always, parameters }
}

const fn entry(hook: &'static str, parameters: u32) -> HookProgram {
    HookProgram { kind: Kind::Entry, ..lsm(hook, parameters) }
}

const fn tracepoint(hook: &'static str) -> HookProgram {
    HookProgram { kind: Kind::Tracepoint, ..lsm(hook, 0) }
}

/// The functions of the object whose first argument is tagged as trusted where that is needed.
pub const TAGGED_FUNCTIONS: &[&str] = &["open_tagged"];

/// Programs without which no kernel decides about everything.
pub fn needed() -> impl Iterator<Item = &'static str> {
    PROGRAMS.iter().filter(|program| program.when == When::Always).map(|program| program.program)
}

/// Every program. Those that keep labels true come first.
pub const PROGRAMS: &[HookProgram] = &[
    lsm("task_alloc", 2),
    HookProgram { program: "cgroup_attach_task_entry", ..entry("cgroup_attach_task", 3) },
    tracepoint("cgroup_attach_task"),
    tracepoint("cgroup_mkdir"),
    tracepoint("cgroup_rmdir"),
    HookProgram { when: When::PlainPaths, ..lsm("file_open", 1) },
    HookProgram { program: "file_open_tagged", when: When::TaggedPaths, ..lsm("file_open", 1) },
    lsm("cred_prepare", 3),
    lsm("path_mknod", 4),
    lsm("path_mkdir", 3),
    lsm("path_symlink", 3),
    lsm("path_link", 3),
    lsm("path_unlink", 2),
    lsm("path_rmdir", 2),
    lsm("path_rename", 5),
    lsm("path_truncate", 1),
    HookProgram { when: When::IfPresent, ..lsm("file_truncate", 1) },
    lsm("file_receive", 1),
    HookProgram { program: "d_move", kind: Kind::Exit, when: When::IfOfUse, ..lsm("__d_move", 3) },
    HookProgram { kind: Kind::Exit, ..lsm("devpts_pty_new", 3) },
    entry("devpts_pty_kill", 1),
    entry("mnt_want_write", 1),
    entry("mnt_want_write_file", 1),
    HookProgram { when: When::IfSoMany, ..lsm("inode_setattr", 2) },
    HookProgram { program: "inode_setattr_mapped", when: When::IfSoMany, ..lsm("inode_setattr", 3) },
    lsm("inode_setxattr", 6),
    lsm("inode_removexattr", 3),
    HookProgram { when: When::IfPresent, ..lsm("inode_set_acl", 4) },
    HookProgram { when: When::IfPresent, ..lsm("inode_remove_acl", 3) },
    HookProgram { when: When::IfPresent, ..lsm("inode_file_setattr", 2) },
    lsm("key_permission", 3),
    lsm("key_alloc", 3),
    lsm("cred_alloc_blank", 2),
    lsm("kernel_module_request", 1),
    lsm("shm_alloc_security", 1),
    lsm("msg_queue_alloc_security", 1),
    lsm("sem_alloc_security", 1),
    lsm("shm_free_security", 1),
    lsm("msg_queue_free_security", 1),
    lsm("sem_free_security", 1),
    lsm("ipc_permission", 2),
    lsm("shm_shmctl", 2),
    lsm("msg_queue_msgctl", 2),
    lsm("sem_semctl", 2),
    lsm("path_notify", 3),
    lsm("inode_create", 3),
    lsm("inode_unlink", 2),
    lsm("path_chmod", 2),
    lsm("path_chown", 3),
    lsm("mmap_file", 4),
    lsm("file_mprotect", 3),
    lsm("bprm_check_security", 1),
    HookProgram { parameters: ANY, ..lsm("bprm_committed_creds", 1) },
    tracepoint("sched_process_exec"),
    lsm("socket_create", 4),
    lsm("socket_connect", 3),
    lsm("socket_sendmsg", 3),
    lsm("socket_bind", 3),
    lsm("socket_listen", 2),
    lsm("socket_accept", 2),
    lsm("unix_stream_connect", 3),
    lsm("unix_may_send", 2),
    lsm("task_kill", 4),
    lsm("ptrace_access_check", 2),
    lsm("ptrace_traceme", 1),
    lsm("task_setrlimit", 3),
    lsm("task_setscheduler", 1),
    lsm("task_setnice", 2),
    lsm("task_setioprio", 2),
    lsm("file_fcntl", 3),
    lsm("file_ioctl", 3),
    HookProgram { when: When::IfPresent, ..lsm("file_ioctl_compat", 3) },
    lsm("socket_setsockopt", 3),
    lsm("syslog", 1),
    lsm("capable", 4),
    lsm("sb_mount", 5),
    lsm("sb_umount", 2),
    lsm("sb_pivotroot", 2),
    lsm("move_mount", 2),
    lsm("path_chroot", 1),
    lsm("userns_create", 1),
    HookProgram { parameters: ANY, ..lsm("bpf", 0) },
    HookProgram { parameters: ANY, ..lsm("perf_event_open", 0) },
    lsm("settime", 2),
    lsm("inode_init_security_anon", 3),
];

/// The program looks at no argument, so their number does not matter.
pub const ANY: u32 = u32::MAX;
