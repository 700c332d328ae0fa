//! Other tasks: reading them, changing them, signalling them; and where children are born.

use super::{
    Act, Args,
    sys::{self, fd, open, sys},
};
use std::{
    ffi::CString,
    io,
    os::fd::{AsRawFd, OwnedFd},
};

pub(super) const ACTS: &[(&str, Act)] = &[
    ("kill", |a| sys!(SYS_kill, pid(a)?, signal(a)?).map(drop)),
    ("tgkill", |a| sys!(SYS_tgkill, pid(a)?, pid(a)?, signal(a)?).map(drop)),
    ("tkill", |a| sys!(SYS_tkill, pid(a)?, signal(a)?).map(drop)),
    ("sigqueue", sigqueue),
    ("pidfd-kill", |a| sys!(SYS_pidfd_send_signal, &pidfd(a)?, signal(a)?, 0, 0).map(drop)),
    ("pidfd-self", |_| {
        let own = fd!(SYS_pidfd_open, std::process::id(), 0)?;
        sys!(SYS_pidfd_send_signal, &own, 0, 0, 0).map(drop)
    }),
    ("sigio", sigio),
    ("kill-self", |_| sys!(SYS_kill, std::process::id(), 0).map(drop)),
    ("ptrace-attach", |a| sys!(SYS_ptrace, libc::PTRACE_ATTACH, pid(a)?, 0, 0).map(drop)),
    ("ptrace-seize", |a| sys!(SYS_ptrace, libc::PTRACE_SEIZE, pid(a)?, 0, 0).map(drop)),
    ("process-vm-readv", |a| vm(a, libc::SYS_process_vm_readv)),
    ("process-vm-writev", |a| vm(a, libc::SYS_process_vm_writev)),
    ("proc-mem", |a| open(&proc_file(a, "mem")?, libc::O_RDONLY, 0).map(drop)),
    ("proc-mem-write", |a| open(&proc_file(a, "mem")?, libc::O_WRONLY, 0).map(drop)),
    ("proc-environ", |a| open(&proc_file(a, "environ")?, libc::O_RDONLY, 0).map(drop)),
    ("proc-maps", |a| open(&proc_file(a, "maps")?, libc::O_RDONLY, 0).map(drop)),
    ("proc-maps-own", |_| open(c"/proc/self/maps", libc::O_RDONLY, 0).map(drop)),
    ("proc-root", proc_root),
    ("proc-of-child", |a| of_child(a, false)),
    ("proc-of-zombie", |a| of_child(a, true)),
    ("proc-of-thread", of_thread),
    ("pidfd-getfd", |a| fd!(SYS_pidfd_getfd, &pidfd(a)?, 0, 0).map(drop)),
    ("kcmp", |a| sys!(SYS_kcmp, pid(a)?, std::process::id(), 0, 0, 0).map(drop)),
    ("process-madvise", process_madvise),
    ("move-pages", |a| sys!(SYS_move_pages, pid(a)?, 0, 0, 0, 0, 0).map(drop)),
    ("prlimit", prlimit),
    ("affinity", |a| sys!(SYS_sched_setaffinity, pid(a)?, 8, &[1u8, 0, 0, 0, 0, 0, 0, 0][..]).map(drop)),
    ("scheduler", |a| sys!(SYS_sched_setscheduler, pid(a)?, libc::SCHED_BATCH, &[0u8; 4][..]).map(drop)),
    ("priority", |a| sys!(SYS_setpriority, libc::PRIO_PROCESS, pid(a)?, 5).map(drop)),
    ("io-priority", |a| sys!(SYS_ioprio_set, 1, pid(a)?, (2 << 13) | 5).map(drop)),
    ("oom-score", |a| write(&proc_file(a, "oom_score_adj")?, b"500")),
    ("clone-into-cgroup", clone_into_cgroup),
    ("cgroup-move", |a| write(&sys::text(format!("{}/cgroup.procs", a.str(0)?).as_ref())?, b"0")),
    ("fork", |_| sys::in_child(|| Ok(()))),
];

fn pid(args: &Args<'_>) -> io::Result<i32> {
    args.number(0)
}

/// The second argument; without one, the signal that only asks whether it could be sent.
fn signal(args: &Args<'_>) -> io::Result<i32> {
    args.number_or(1, 0)
}

fn pidfd(args: &Args<'_>) -> io::Result<OwnedFd> {
    fd!(SYS_pidfd_open, pid(args)?, 0)
}

fn proc_file(args: &Args<'_>, name: &str) -> io::Result<CString> {
    sys::text(format!("/proc/{}/{name}", pid(args)?).as_ref())
}

fn write(path: &CString, text: &[u8]) -> io::Result<()> {
    sys!(SYS_write, &open(path, libc::O_WRONLY, 0)?, text, text.len()).map(drop)
}

fn sigqueue(args: &Args<'_>) -> io::Result<()> {
    let mut info: libc::siginfo_t = sys::zeroed();
    info.si_signo = signal(args)?;
    info.si_code = -1; // SI_QUEUE
    sys!(SYS_rt_sigqueueinfo, pid(args)?, signal(args)?, &sys::bytes_of(&info)).map(drop)
}

/// The kernel sends the signal when the pipe has data. It reports nothing: whoever calls looks whether it arrived.
fn sigio(args: &Args<'_>) -> io::Result<()> {
    let mut ends = [0u8; 8];
    sys!(SYS_pipe2, &mut ends[..], libc::O_CLOEXEC)?;
    let number =
        |at: usize| i64::from(i32::from_ne_bytes([ends[at], ends[at + 1], ends[at + 2], ends[at + 3]]));
    let (from, to) = (sys::owned(number(0)), sys::owned(number(4)));
    sys!(SYS_fcntl, &from, libc::F_SETOWN, pid(args)?)?;
    sys!(SYS_fcntl, &from, 10 /* F_SETSIG */, signal(args)?)?;
    sys!(SYS_fcntl, &from, libc::F_SETFL, libc::O_ASYNC)?;
    sys!(SYS_write, &to, &b"x"[..], 1).map(drop)
}

/// `process-vm-readv PID ADDRESS`
fn vm(args: &Args<'_>, number: libc::c_long) -> io::Result<()> {
    let mut byte = [0u8; 1];
    let local = libc::iovec { iov_base: byte.as_mut_ptr().cast(), iov_len: 1 };
    let at: u64 = args.number_or(1, 0x1000)?;
    let remote = libc::iovec { iov_base: at as *mut libc::c_void, iov_len: 1 };
    // SAFETY: one local byte, which outlives the call; the remote address belongs to the other process.
    sys::result(unsafe { libc::syscall(number, pid(args)?, &local, 1, &remote, 1, 0) }).map(drop)
}

/// `proc-root PID PATH`: a file as another process sees it.
fn proc_root(args: &Args<'_>) -> io::Result<()> {
    let path = sys::text(format!("/proc/{}/root{}", args.str(0)?, args.str(1)?).as_ref())?;
    open(&path, libc::O_RDONLY, 0).map(drop)
}

/// `proc-of-child NAME`: a file in /proc about a child that waits, or has ended and was not waited for.
fn of_child(args: &Args<'_>, ended: bool) -> io::Result<()> {
    let name = args.str(0)?;
    // SAFETY: the probe has one thread, so the child may do what the parent may.
    let child = sys::result(unsafe { libc::fork() }.into())?;
    if child == 0 {
        loop {
            // SAFETY: ends or suspends the child.
            unsafe { if ended { libc::_exit(0) } else { libc::pause() } };
        }
    }
    if ended {
        // P_PID, WEXITED | WNOWAIT: the child stays what it is.
        sys!(SYS_waitid, 1, child, 0, libc::WEXITED | libc::WNOWAIT, 0)?;
    }
    let path = sys::text(format!("/proc/{child}/{name}").as_ref())?;
    let done = open(&path, libc::O_RDONLY, 0).and_then(|file| sys!(SYS_read, &file, &mut [0u8; 64][..], 64));
    sys!(SYS_kill, child, libc::SIGKILL)?;
    sys!(SYS_wait4, child, 0, 0, 0)?;
    done.map(drop)
}

/// `proc-of-thread NAME`: the same about another thread.
fn of_thread(args: &Args<'_>) -> io::Result<()> {
    let (say, hear) = std::sync::mpsc::channel();
    let (stop, stopped) = std::sync::mpsc::channel::<()>();
    let thread = std::thread::spawn(move || {
        let _ = say.send(sys!(SYS_gettid));
        let _ = stopped.recv();
    });
    let id = hear.recv().unwrap_or_else(|_| Err(io::Error::other("no thread")))?;
    let path = sys::text(format!("/proc/self/task/{id}/{}", args.str(0)?).as_ref())?;
    let done = open(&path, libc::O_RDONLY, 0).and_then(|file| sys!(SYS_read, &file, &mut [0u8; 64][..], 64));
    drop(stop);
    let _ = thread.join();
    done.map(drop)
}

fn process_madvise(args: &Args<'_>) -> io::Result<()> {
    let process = pidfd(args)?;
    let vector = libc::iovec { iov_base: 0x1000 as *mut libc::c_void, iov_len: 4096 };
    // SAFETY: the vector outlives the call; what it describes belongs to the other process.
    let done = unsafe {
        libc::syscall(libc::SYS_process_madvise, process.as_raw_fd(), &vector, 1, libc::MADV_COLD, 0)
    };
    sys::result(done).map(drop)
}

fn prlimit(args: &Args<'_>) -> io::Result<()> {
    // struct rlimit64
    let limit: Vec<u8> = [64u64, 64].iter().flat_map(|word| word.to_ne_bytes()).collect();
    sys!(SYS_prlimit64, pid(args)?, libc::RLIMIT_NOFILE, &limit, 0).map(drop)
}

/// `clone-into-cgroup DIR`: the child would be born there; the descriptor passed no check.
fn clone_into_cgroup(args: &Args<'_>) -> io::Result<()> {
    let cgroup = open(&args.text(0)?, libc::O_PATH | libc::O_DIRECTORY, 0)?;
    let mut arguments: libc::clone_args = sys::zeroed();
    arguments.flags = 0x2_0000_0000; // CLONE_INTO_CGROUP
    arguments.exit_signal = libc::SIGCHLD as u64;
    arguments.cgroup = cgroup.as_raw_fd() as u64;
    // SAFETY: like fork: no stack and no memory of the caller is named; the probe has one thread.
    let child = sys::result(unsafe { libc::syscall(libc::SYS_clone3, &arguments, size_of_val(&arguments)) })?;
    if child == 0 {
        // SAFETY: ends the child at once.
        unsafe { libc::_exit(0) };
    }
    sys!(SYS_wait4, child, 0, 0, 0).map(drop)
}
