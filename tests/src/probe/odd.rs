//! What is neither opening nor naming nor reaching, and still leads somewhere.

use super::{
    Act, Args,
    exec::be_quiet,
    sys::{self, fd, in_child, open, sys, text},
};
use std::{
    io,
    os::fd::{AsRawFd, OwnedFd},
};

pub(super) const ACTS: &[(&str, Act)] = &[
    ("map-implied-exec", map_implied_exec),
    ("mprotect-key-exec", mprotect_key_exec),
    ("memfd-map-exec", memfd_map_exec),
    ("exec-deleted", exec_deleted),
    ("core-dump", core_dump),
    ("kill-group", |a| sys!(SYS_kill, -a.number::<i32>(0)?, a.number_or::<i32>(1, 0)?).map(drop)),
    ("kill-everybody", |a| sys!(SYS_kill, -1, a.number_or::<i32>(0, 0)?).map(drop)),
    ("thread-queue", thread_queue),
    ("own-signals", own_signals),
    ("own-signals-ioctl", own_signals_ioctl),
    ("own-signals-group", own_signals_group),
    ("robust-list", robust_list),
    ("migrate-pages", |a| {
        let nodes = 1u64.to_ne_bytes();
        sys!(SYS_migrate_pages, a.number::<i32>(0)?, 1, &nodes[..], &nodes[..]).map(drop)
    }),
    ("set-attr-schedule", set_attr_schedule),
    ("set-parameter-schedule", |a| {
        sys!(SYS_sched_setparam, a.number::<i32>(0)?, &0u32.to_ne_bytes()[..]).map(drop)
    }),
    ("proc-read", |a| {
        let file = open(&proc(a)?, libc::O_RDONLY, 0)?;
        sys!(SYS_read, &file, &mut [0u8; 8][..], 8).map(drop)
    }),
    ("proc-write", |a| open(&proc(a)?, libc::O_WRONLY, 0).map(drop)),
    ("clone-parent", clone_parent),
    ("clone-own-cgroup", clone_own_cgroup),
    ("deep-long-read", deep_long_read),
    ("deep-long-make", deep_long_make),
    ("descriptor-of-directory", descriptor_of_directory),
    ("copy-into", copy_into),
    ("reflink", reflink),
    ("copy-range", copy_range),
    ("splice-into", splice_into),
    ("splice-from", splice_from),
    ("lease", |a| {
        let file = open(&a.text(0)?, libc::O_RDONLY, 0)?;
        sys!(SYS_fcntl, &file, libc::F_SETLEASE, libc::F_RDLCK).map(drop)
    }),
    ("seize-stopped-self", |_| sys!(SYS_ptrace, libc::PTRACE_TRACEME as i32, 0, 0, 0).map(drop)),
];

/// A personality by which whatever is mapped readable becomes executable too.
fn map_implied_exec(args: &Args<'_>) -> io::Result<()> {
    const READ_IMPLIES_EXEC: i32 = 0x040_0000;
    let file = open(&args.text(0)?, libc::O_RDONLY, 0)?;
    let before = sys!(SYS_personality, -1)?;
    sys!(SYS_personality, before | i64::from(READ_IMPLIES_EXEC))?;
    let done = sys!(SYS_mmap, 0, 4096, libc::PROT_READ, libc::MAP_PRIVATE, &file, 0);
    sys!(SYS_personality, before)?;
    done.map(drop)
}

fn mprotect_key_exec(args: &Args<'_>) -> io::Result<()> {
    let file = open(&args.text(0)?, libc::O_RDONLY, 0)?;
    let at = sys!(SYS_mmap, 0, 4096, libc::PROT_READ, libc::MAP_PRIVATE, &file, 0)?;
    // No key: as mprotect, by another call.
    sys!(SYS_pkey_mprotect, at, 4096, libc::PROT_READ | libc::PROT_EXEC, -1).map(drop)
}

/// `memfd-map-exec PATH`: a library that is in memory only.
fn memfd_map_exec(args: &Args<'_>) -> io::Result<()> {
    let from = open(&args.text(0)?, libc::O_RDONLY, 0)?;
    let memory = fd!(SYS_memfd_create, c"probe", libc::MFD_CLOEXEC)?;
    while sys!(SYS_sendfile, &memory, &from, 0, 1 << 20)? > 0 {}
    let protection = libc::PROT_READ | libc::PROT_EXEC;
    sys!(SYS_mmap, 0, 4096, protection, libc::MAP_PRIVATE, &memory, 0).map(drop)
}

/// `exec-deleted PROGRAM DIR`: a copy that has lost its name before it runs.
fn exec_deleted(args: &Args<'_>) -> io::Result<()> {
    let (program, copy) = (args.text(0)?, text(format!("{}/gone", args.str(1)?).as_ref())?);
    let from = open(&program, libc::O_RDONLY, 0)?;
    let to = open(&copy, libc::O_CREAT | libc::O_WRONLY | libc::O_TRUNC, 0o755)?;
    while sys!(SYS_sendfile, &to, &from, 0, 1 << 20)? > 0 {}
    drop(to);
    let kept = open(&copy, libc::O_PATH, 0)?;
    sys!(SYS_unlinkat, libc::AT_FDCWD, &copy, 0)?;
    in_child(|| {
        be_quiet()?;
        super::exec::execveat(kept.as_raw_fd(), c"", &[program], &[], libc::AT_EMPTY_PATH)
    })
}

/// `core-dump DIR`: a child that leaves a core in a directory. EBADE: it left none.
fn core_dump(args: &Args<'_>) -> io::Result<()> {
    let directory = args.text(0)?;
    // SAFETY: the probe has one thread, so the child may do what the parent may.
    let child = sys::result(unsafe { libc::fork() }.into())?;
    if child == 0 {
        let limit: Vec<u8> = [1u64 << 24; 2].iter().flat_map(|word| word.to_ne_bytes()).collect();
        let _ = sys!(SYS_prlimit64, 0, libc::RLIMIT_CORE, &limit, 0);
        let _ = sys!(SYS_prctl, libc::PR_SET_DUMPABLE, 1, 0, 0, 0);
        let _ = sys!(SYS_chdir, &directory);
        // SAFETY: a signal to itself, whose default action is to dump.
        unsafe { libc::abort() };
    }
    let mut status = 0;
    // SAFETY: `status` takes the status of the child that was just made.
    unsafe { libc::waitpid(child as i32, &mut status, 0) };
    if libc::WCOREDUMP(status) { Ok(()) } else { Err(io::Error::from_raw_os_error(libc::EBADE)) }
}

/// `thread-queue PID SIGNAL`
fn thread_queue(args: &Args<'_>) -> io::Result<()> {
    let (pid, signal) = (args.number::<i32>(0)?, args.number_or::<i32>(1, 0)?);
    let mut info: libc::siginfo_t = sys::zeroed();
    (info.si_signo, info.si_code) = (signal, -1);
    sys!(SYS_rt_tgsigqueueinfo, pid, pid, signal, &sys::bytes_of(&info)).map(drop)
}

fn pipe() -> io::Result<[OwnedFd; 2]> {
    let mut ends = [0i32; 2];
    // SAFETY: room for two descriptors.
    sys::result(unsafe { libc::pipe2(ends.as_mut_ptr(), libc::O_CLOEXEC) }.into())?;
    Ok(ends.map(|end| sys::owned(end.into())))
}

fn own_signals(args: &Args<'_>) -> io::Result<()> {
    sys!(SYS_fcntl, &pipe()?[0], libc::F_SETOWN, args.number::<i32>(0)?).map(drop)
}

fn own_signals_ioctl(args: &Args<'_>) -> io::Result<()> {
    let socket = fd!(SYS_socket, libc::AF_UNIX, libc::SOCK_STREAM | libc::SOCK_CLOEXEC, 0)?;
    sys!(SYS_ioctl, &socket, 0x8901, &args.number::<i32>(0)?.to_ne_bytes()[..]).map(drop)
}

fn own_signals_group(args: &Args<'_>) -> io::Result<()> {
    const F_SETOWN_EX: i32 = 15;
    const F_OWNER_PID: i32 = 1;
    let owner = [F_OWNER_PID.to_ne_bytes(), args.number::<i32>(0)?.to_ne_bytes()].concat();
    sys!(SYS_fcntl, &pipe()?[0], F_SETOWN_EX, &owner).map(drop)
}

fn robust_list(args: &Args<'_>) -> io::Result<()> {
    let (mut head, mut length) = ([0u8; 8], [0u8; 8]);
    sys!(SYS_get_robust_list, args.number::<i32>(0)?, &mut head[..], &mut length[..]).map(drop)
}

fn set_attr_schedule(args: &Args<'_>) -> io::Result<()> {
    // struct sched_attr: its size, SCHED_OTHER, no flags, niceness 5.
    let mut attributes = [0u8; 48];
    attributes[0] = 48;
    attributes[16] = 5;
    sys!(SYS_sched_setattr, args.number::<i32>(0)?, &attributes[..], 0).map(drop)
}

/// `proc-read PID FILE`
fn proc(args: &Args<'_>) -> io::Result<std::ffi::CString> {
    text(format!("/proc/{}/{}", args.str(0)?, args.str(1)?).as_ref())
}

fn clone_with(flags: u64, cgroup: u64) -> io::Result<()> {
    let mut arguments: libc::clone_args = sys::zeroed();
    arguments.flags = flags;
    arguments.cgroup = cgroup;
    // SAFETY: like fork: no stack and no memory of the caller is named; the probe has one thread.
    let child = sys::result(unsafe { libc::syscall(libc::SYS_clone3, &arguments, size_of_val(&arguments)) })?;
    if child == 0 {
        // SAFETY: ends the child at once.
        unsafe { libc::_exit(0) };
    }
    Ok(())
}

/// A child of the parent's.
fn clone_parent(_: &Args<'_>) -> io::Result<()> {
    const CLONE_PARENT: u64 = 0x8000;
    clone_with(CLONE_PARENT, 0)
}

/// `clone-own-cgroup DIR`: without a signal at its end.
fn clone_own_cgroup(args: &Args<'_>) -> io::Result<()> {
    let cgroup = open(&args.text(0)?, libc::O_RDONLY | libc::O_DIRECTORY, 0)?;
    clone_with(0x2_0000_0000, cgroup.as_raw_fd() as u64)
}

fn long_name() -> io::Result<std::ffi::CString> {
    text("n".repeat(250).as_ref())
}

/// `deep-long-make DIR DEPTH`: directories with long names in one another, and a file in the last.
fn deep_long_make(args: &Args<'_>) -> io::Result<()> {
    let (mut at, name) = (open(&args.text(0)?, libc::O_PATH, 0)?, long_name()?);
    for _ in 0..args.number::<u32>(1)? {
        sys!(SYS_mkdirat, &at, &name, 0o755)?;
        at = fd!(SYS_openat, &at, &name, libc::O_PATH | libc::O_CLOEXEC, 0)?;
    }
    fd!(SYS_openat, &at, c"file", libc::O_CREAT | libc::O_WRONLY | libc::O_CLOEXEC, 0o644).map(drop)
}

/// `deep-long-read DIR DEPTH`: the file, step by step; its path is longer than any call takes.
fn deep_long_read(args: &Args<'_>) -> io::Result<()> {
    let (mut at, name) = (open(&args.text(0)?, libc::O_PATH, 0)?, long_name()?);
    for _ in 0..args.number::<u32>(1)? {
        at = fd!(SYS_openat, &at, &name, libc::O_PATH | libc::O_CLOEXEC, 0)?;
    }
    fd!(SYS_openat, &at, c"file", libc::O_RDONLY | libc::O_CLOEXEC, 0).map(drop)
}

/// `descriptor-of-directory DIR NAME`: from a directory that passed no check.
fn descriptor_of_directory(args: &Args<'_>) -> io::Result<()> {
    let directory = open(&args.text(0)?, libc::O_PATH | libc::O_DIRECTORY, 0)?;
    fd!(SYS_openat, &directory, &args.text(1)?, libc::O_RDONLY | libc::O_CLOEXEC, 0).map(drop)
}

/// `copy-into FROM TO`: by `sendfile`, into a file that is only opened for writing.
fn copy_into(args: &Args<'_>) -> io::Result<()> {
    let from = open(&args.text(0)?, libc::O_RDONLY, 0)?;
    let to = open(&args.text(1)?, libc::O_WRONLY, 0)?;
    sys!(SYS_sendfile, &to, &from, 0, 16).map(drop)
}

/// `reflink FROM TO`: shares the content.
fn reflink(args: &Args<'_>) -> io::Result<()> {
    let from = open(&args.text(0)?, libc::O_RDONLY, 0)?;
    let to = open(&args.text(1)?, libc::O_WRONLY, 0)?;
    sys!(SYS_ioctl, &to, 0x4004_9409_u64, &from).map(drop)
}

/// `copy-range FROM TO`: by `copy_file_range`.
fn copy_range(args: &Args<'_>) -> io::Result<()> {
    let from = open(&args.text(0)?, libc::O_RDONLY, 0)?;
    let to = open(&args.text(1)?, libc::O_WRONLY, 0)?;
    sys!(SYS_copy_file_range, &from, 0, &to, 0, 8, 0).map(drop)
}

/// `splice-into FILE`: memory by `vmsplice` into a pipe, through `tee`, and from there into the file.
fn splice_into(args: &Args<'_>) -> io::Result<()> {
    let to = open(&args.text(0)?, libc::O_WRONLY, 0)?;
    let ([out, into], [second_out, second_into]) = (pipe()?, pipe()?);
    let word = *b"spliced!";
    let mut vector = (word.as_ptr() as u64).to_ne_bytes().to_vec();
    vector.extend(8u64.to_ne_bytes());
    sys!(SYS_vmsplice, &into, &vector, 1, 0)?;
    sys!(SYS_tee, &out, &second_into, 8, 0)?;
    sys!(SYS_splice, &second_out, 0, &to, 0, 8, 0).map(drop)
}

/// `splice-from FILE`: into a pipe.
fn splice_from(args: &Args<'_>) -> io::Result<()> {
    let from = open(&args.text(0)?, libc::O_RDONLY, 0)?;
    sys!(SYS_splice, &from, 0, &pipe()?[1], 0, 8, 0).map(drop)
}
