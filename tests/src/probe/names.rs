//! Making, removing, moving and changing names and what they stand for.

use super::{
    Act, Args,
    sys::{fd, open, sys, text},
};
use std::{
    ffi::{CStr, OsStr},
    io,
    os::fd::{AsRawFd, OwnedFd},
    sync::atomic::{AtomicBool, Ordering},
    thread,
    time::{Duration, Instant},
};

const HERE: i32 = libc::AT_FDCWD;

pub(super) const ACTS: &[(&str, Act)] = &[
    ("mkdir", |a| sys!(SYS_mkdirat, HERE, &a.text(0)?, 0o755).map(drop)),
    ("rmdir", |a| sys!(SYS_unlinkat, HERE, &a.text(0)?, libc::AT_REMOVEDIR).map(drop)),
    ("unlink", |a| sys!(SYS_unlinkat, HERE, &a.text(0)?, 0).map(drop)),
    ("unlink-each", unlink_each),
    ("mknod-fifo", |a| sys!(SYS_mknodat, HERE, &a.text(0)?, libc::S_IFIFO | 0o644, 0).map(drop)),
    ("mknod-file", |a| sys!(SYS_mknodat, HERE, &a.text(0)?, libc::S_IFREG | 0o644, 0).map(drop)),
    ("set-id-mknod", |a| sys!(SYS_mknodat, HERE, &a.text(0)?, libc::S_IFREG | 0o4755, 0).map(drop)),
    ("mknod-disk", |a| sys!(SYS_mknodat, HERE, &a.text(0)?, libc::S_IFBLK | 0o600, 0xfe00).map(drop)),
    ("symlink", |a| sys!(SYS_symlinkat, &a.text(0)?, HERE, &a.text(1)?).map(drop)),
    ("link", |a| sys!(SYS_linkat, HERE, &a.text(0)?, HERE, &a.text(1)?, 0).map(drop)),
    ("link-fd", link_fd),
    ("rename", |a| rename(a, 0)),
    ("rename-exchange", |a| rename(a, libc::RENAME_EXCHANGE)),
    ("rename-noreplace", |a| rename(a, libc::RENAME_NOREPLACE)),
    ("rename-whiteout", |a| rename(a, libc::RENAME_WHITEOUT)),
    ("torn-names", torn_names),
    ("proc-net-gone", net_of_gone),
    ("truncate", |a| sys!(SYS_truncate, &a.text(0)?, 1).map(drop)),
    ("ftruncate", ftruncate),
    ("chmod", |a| sys!(SYS_fchmodat, HERE, &a.text(0)?, 0o640).map(drop)),
    ("fchmod", |a| sys!(SYS_fchmod, &open(&a.text(0)?, libc::O_RDONLY, 0)?, 0o640).map(drop)),
    ("chown", |a| chown(a, 0)),
    ("lchown", |a| chown(a, libc::AT_SYMLINK_NOFOLLOW)),
    ("fchown", |a| sys!(SYS_fchown, &open(&a.text(0)?, libc::O_RDONLY, 0)?, 7, 7).map(drop)),
    ("utimes", utimes),
    ("setxattr", setxattr),
    ("removexattr", |a| sys!(SYS_removexattr, &a.text(0)?, c"user.probe").map(drop)),
    ("setflags", setflags),
    ("punch-hole", punch_hole),
];

/// `unlink-each DIR COUNT`: removes DIR/0, DIR/1 … in a process each, at the same time; the first error of any.
fn unlink_each(args: &Args<'_>) -> io::Result<()> {
    let directory = args.text(0)?;
    let count: usize = args.word(1)?.to_string_lossy().parse().map_err(|_| io::ErrorKind::InvalidInput)?;
    let mut children = Vec::new();
    for number in 0..count {
        // SAFETY: the probe has one thread, so the child may do what the parent may.
        let child = super::sys::result(unsafe { libc::fork() }.into())?;
        if child == 0 {
            let path = format!("{}/{number}\0", directory.to_string_lossy());
            let done = sys!(SYS_unlinkat, HERE, path.as_bytes(), 0);
            let code = done.err().map_or(0, |error| error.raw_os_error().unwrap_or(255));
            // SAFETY: ends the child without running what the parent wants to run at its end.
            unsafe { libc::_exit(code) };
        }
        children.push(child as i32);
    }
    let mut worst = 0;
    for child in children {
        let mut status = 0i32;
        // SAFETY: `status` takes the status of a child that was just made.
        unsafe { libc::waitpid(child, &mut status, 0) };
        worst = worst.max(libc::WEXITSTATUS(status));
    }
    if worst == 0 { Ok(()) } else { Err(io::Error::from_raw_os_error(worst)) }
}

fn rename(args: &Args<'_>, flags: u32) -> io::Result<()> {
    sys!(SYS_renameat2, HERE, &args.text(0)?, HERE, &args.text(1)?, flags).map(drop)
}

fn link_fd(args: &Args<'_>) -> io::Result<()> {
    link_descriptor(&open(&args.text(0)?, libc::O_PATH, 0)?, &args.text(1)?)
}

/// By its name in /proc: giving the descriptor itself takes a capability on older kernels.
pub(super) fn link_descriptor(file: &OwnedFd, to: &CStr) -> io::Result<()> {
    let from = text(format!("/proc/self/fd/{}", file.as_raw_fd()).as_ref())?;
    sys!(SYS_linkat, HERE, &from, HERE, to, libc::AT_SYMLINK_FOLLOW).map(drop)
}

/// Opens for writing, which may be allowed, and then changes the length.
fn ftruncate(args: &Args<'_>) -> io::Result<()> {
    let file = open(&args.text(0)?, libc::O_WRONLY, 0)?;
    sys!(SYS_ftruncate, &file, 1).map(drop)
}

fn chown(args: &Args<'_>, flags: i32) -> io::Result<()> {
    sys!(SYS_fchownat, HERE, &args.text(0)?, 7, 7, flags).map(drop)
}

fn utimes(args: &Args<'_>) -> io::Result<()> {
    // Two struct timespec.
    let times: Vec<u8> = [1i64, 0, 1, 0].iter().flat_map(|word| word.to_ne_bytes()).collect();
    sys!(SYS_utimensat, HERE, &args.text(0)?, &times, 0).map(drop)
}

fn setxattr(args: &Args<'_>) -> io::Result<()> {
    sys!(SYS_setxattr, &args.text(0)?, c"user.probe", &b"1"[..], 1, 0).map(drop)
}

/// "No access times", beside the flags that there are.
fn setflags(args: &Args<'_>) -> io::Result<()> {
    const FS_IOC_GETFLAGS: u64 = 0x8008_6601;
    const FS_IOC_SETFLAGS: u64 = 0x4008_6602;
    const FS_NOATIME_FL: u64 = 0x80;
    let file = open(&args.text(0)?, libc::O_RDONLY, 0)?;
    let mut flags = [0u8; 8];
    sys!(SYS_ioctl, &file, FS_IOC_GETFLAGS, &mut flags[..])?;
    let flags = u64::from_ne_bytes(flags) | FS_NOATIME_FL;
    sys!(SYS_ioctl, &file, FS_IOC_SETFLAGS, &flags.to_ne_bytes()[..]).map(drop)
}

fn punch_hole(args: &Args<'_>) -> io::Result<()> {
    let file = open(&args.text(0)?, libc::O_WRONLY, 0)?;
    let mode = libc::FALLOC_FL_PUNCH_HOLE | libc::FALLOC_FL_KEEP_SIZE;
    sys!(SYS_fallocate, &file, mode, 0, 4096).map(drop)
}

/// `torn-names A B NAME SECONDS`: opens NAME in the directory A, which another thread moves to B and back all the time.
/// Ok as soon as it can be opened.
fn torn_names(args: &Args<'_>) -> io::Result<()> {
    let (a, b, name) = (args.text(0)?, args.text(1)?, args.text(2)?);
    let until = Instant::now() + Duration::from_secs(args.number(3)?);
    let directory = open(&a, libc::O_PATH | libc::O_DIRECTORY, 0)?;
    let done = AtomicBool::new(false);
    thread::scope(|scope| {
        let mover = scope.spawn(|| -> io::Result<()> {
            while !done.load(Ordering::Relaxed) {
                sys!(SYS_renameat2, HERE, &a, HERE, &b, 0)?;
                sys!(SYS_renameat2, HERE, &b, HERE, &a, 0)?;
            }
            Ok(())
        });
        let mut result = Err(io::Error::from_raw_os_error(libc::ETIMEDOUT));
        while Instant::now() < until && !mover.is_finished() {
            result = fd!(SYS_openat, &directory, &name, libc::O_RDONLY, 0).map(drop);
            if result.is_ok() {
                break;
            }
        }
        done.store(true, Ordering::Relaxed);
        mover.join().map_err(|_| io::Error::other("the mover panicked"))??;
        result
    })
}

/// `proc-net-gone PID FOUND GO`: finds a process's table of TCP sockets, and opens it when GO is there.
fn net_of_gone(args: &Args<'_>) -> io::Result<()> {
    let table = text(OsStr::new(&format!("/proc/{}/net/tcp", args.str(0)?)))?;
    let found = open(&table, libc::O_PATH, 0)?;
    std::fs::write(args.word(1)?, "")?;
    super::wait_for_file(args.word(2)?, 600)?;
    let again = text(OsStr::new(&format!("/proc/self/fd/{}", found.as_raw_fd())))?;
    open(&again, libc::O_RDONLY, 0).map(drop)
}
