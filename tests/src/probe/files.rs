//! Opening files in every way there is.

use super::{
    Act, Args,
    sys::{self, fd, in_child, open, sys},
};
use std::{io, os::fd::OwnedFd};

pub(super) const ACTS: &[(&str, Act)] = &[
    ("read", read),
    ("write", write),
    ("append", append),
    ("read-write", |a| open(&a.text(0)?, libc::O_RDWR, 0).map(drop)),
    ("access-3", |a| open(&a.text(0)?, libc::O_ACCMODE, 0).map(drop)),
    ("create", |a| open(&a.text(0)?, libc::O_CREAT | libc::O_EXCL | libc::O_WRONLY, 0o644).map(drop)),
    ("rdonly-creat", |a| open(&a.text(0)?, libc::O_RDONLY | libc::O_CREAT, 0o644).map(drop)),
    ("rdonly-trunc", |a| open(&a.text(0)?, libc::O_RDONLY | libc::O_TRUNC, 0).map(drop)),
    ("write-trunc", |a| open(&a.text(0)?, libc::O_WRONLY | libc::O_TRUNC, 0).map(drop)),
    ("creat", |a| fd!(SYS_creat, &a.text(0)?, 0o644).map(drop)),
    ("openat2", openat2),
    ("tmpfile", |a| open(&a.text(0)?, libc::O_TMPFILE | libc::O_WRONLY, 0o600).map(drop)),
    ("tmpfile-link", tmpfile_link),
    ("set-id-creat", |a| open(&a.text(0)?, libc::O_CREAT | libc::O_EXCL | libc::O_WRONLY, 0o4755).map(drop)),
    ("set-gid-creat", |a| open(&a.text(0)?, libc::O_CREAT | libc::O_EXCL | libc::O_WRONLY, 0o2755).map(drop)),
    ("set-id-tmpfile", |a| open(&a.text(0)?, libc::O_TMPFILE | libc::O_WRONLY, 0o4755).map(drop)),
    ("list", list),
    ("opath-reopen", opath_reopen),
    ("opath-dev-fd", opath_dev_fd),
    ("proc-self-root", proc_self_root),
    ("proc-self-cwd", proc_self_cwd),
    ("stdin-reopen", stdin_reopen),
    ("from-child", |a| in_child(|| read(a))),
    ("from-thread", from_thread),
    ("handle", handle),
    ("inotify", inotify),
    ("dnotify", dnotify),
    ("copy-file-range", copy_file_range),
    ("long-create", long_create),
    ("deep-read", deep_read),
    ("hammer", hammer),
    ("keep", keep),
    ("flood", flood),
    ("time-opens", time_opens),
    ("stdin-is-null", |_| open(c"/proc/self/fd/0", libc::O_RDONLY, 0).map(drop)),
];

fn read_from(fd: &OwnedFd) -> io::Result<()> {
    let mut byte = [0u8; 1];
    sys!(SYS_read, fd, &mut byte[..], 1).map(drop)
}

fn read(args: &Args<'_>) -> io::Result<()> {
    read_from(&open(&args.text(0)?, libc::O_RDONLY, 0)?)
}

/// `keep PATH`: opens it for reading and keeps it open.
fn keep(args: &Args<'_>) -> io::Result<()> {
    std::mem::forget(open(&args.text(0)?, libc::O_RDONLY, 0)?);
    Ok(())
}

fn write_to(fd: &OwnedFd, args: &Args<'_>) -> io::Result<()> {
    match args.word(1) {
        Ok(text) => {
            let bytes = text.as_encoded_bytes();
            sys!(SYS_write, fd, bytes, bytes.len()).map(drop)
        }
        Err(_) => Ok(()),
    }
}

/// `write PATH [TEXT]`: opens for writing, and writes only where a text is given.
fn write(args: &Args<'_>) -> io::Result<()> {
    write_to(&open(&args.text(0)?, libc::O_WRONLY, 0)?, args)
}

fn append(args: &Args<'_>) -> io::Result<()> {
    write_to(&open(&args.text(0)?, libc::O_WRONLY | libc::O_APPEND, 0)?, args)
}

fn openat2(args: &Args<'_>) -> io::Result<()> {
    // struct open_how: flags, mode, resolve
    let how: Vec<u8> = [libc::O_RDONLY as u64, 0, 0].iter().flat_map(|word| word.to_ne_bytes()).collect();
    read_from(&fd!(SYS_openat2, libc::AT_FDCWD, &args.text(0)?, &how, 24usize)?)
}

/// `tmpfile-link DIR NAME`: a file without a name, which gets one.
fn tmpfile_link(args: &Args<'_>) -> io::Result<()> {
    let file = open(&args.text(0)?, libc::O_TMPFILE | libc::O_WRONLY, 0o600)?;
    super::names::link_descriptor(&file, &args.text(1)?)
}

fn list(args: &Args<'_>) -> io::Result<()> {
    let dir = open(&args.text(0)?, libc::O_RDONLY | libc::O_DIRECTORY, 0)?;
    let mut entries = [0u8; 4096];
    sys!(SYS_getdents64, &dir, &mut entries[..], 4096).map(drop)
}

fn number_of(fd: &OwnedFd) -> i32 {
    std::os::fd::AsRawFd::as_raw_fd(fd)
}

/// A descriptor that passed no check, opened again through its name in /proc.
fn opath_reopen(args: &Args<'_>) -> io::Result<()> {
    let path = open(&args.text(0)?, libc::O_PATH, 0)?;
    let again = sys::text(format!("/proc/self/fd/{}", number_of(&path)).as_ref())?;
    read_from(&open(&again, libc::O_RDONLY, 0)?)
}

fn opath_dev_fd(args: &Args<'_>) -> io::Result<()> {
    let path = open(&args.text(0)?, libc::O_PATH, 0)?;
    let again = sys::text(format!("/dev/fd/{}", number_of(&path)).as_ref())?;
    read_from(&open(&again, libc::O_RDONLY, 0)?)
}

fn proc_self_root(args: &Args<'_>) -> io::Result<()> {
    let path = sys::text(format!("/proc/self/root{}", args.str(0)?).as_ref())?;
    read_from(&open(&path, libc::O_RDONLY, 0)?)
}

fn proc_self_cwd(args: &Args<'_>) -> io::Result<()> {
    let (dir, name) = args.str(0)?.rsplit_once('/').ok_or_else(|| super::usage("an absolute path"))?;
    sys!(SYS_chdir, &sys::text(dir.as_ref())?)?;
    let path = sys::text(format!("/proc/self/cwd/{name}").as_ref())?;
    read_from(&open(&path, libc::O_RDONLY, 0)?)
}

/// Standard input becomes an O_PATH descriptor of the file; then `/dev/stdin` is opened.
fn stdin_reopen(args: &Args<'_>) -> io::Result<()> {
    let path = open(&args.text(0)?, libc::O_PATH, 0)?;
    sys!(SYS_dup3, &path, 0, 0)?;
    read_from(&open(c"/dev/stdin", libc::O_RDONLY, 0)?)
}

fn from_thread(args: &Args<'_>) -> io::Result<()> {
    let path = args.text(0)?;
    let thread = std::thread::spawn(move || read_from(&open(&path, libc::O_RDONLY, 0)?));
    thread.join().unwrap_or_else(|_| Err(io::Error::other("panicked")))
}

/// `name_to_handle_at`, then `open_by_handle_at`: no name is walked.
fn handle(args: &Args<'_>) -> io::Result<()> {
    // struct file_handle: size, type, bytes
    let mut handle = [0u8; 8 + 128];
    handle[..4].copy_from_slice(&128u32.to_ne_bytes());
    let mut mount = [0u8; 4];
    sys!(SYS_name_to_handle_at, libc::AT_FDCWD, &args.text(0)?, &mut handle[..], &mut mount[..], 0)?;
    let root = open(c"/", libc::O_PATH, 0)?;
    // O_PATH is not enough for the mount: any descriptor on it serves.
    let on_mount = open(c"/usr", libc::O_RDONLY | libc::O_DIRECTORY, 0).unwrap_or(root);
    read_from(&fd!(SYS_open_by_handle_at, &on_mount, &handle[..], libc::O_RDONLY)?)
}

/// Watches a file, or the names in a directory.
fn inotify(args: &Args<'_>) -> io::Result<()> {
    let watch = fd!(SYS_inotify_init1, libc::IN_CLOEXEC)?;
    sys!(SYS_inotify_add_watch, &watch, &args.text(0)?, libc::IN_MODIFY | libc::IN_CREATE).map(drop)
}

/// The same by a signal, for a directory.
fn dnotify(args: &Args<'_>) -> io::Result<()> {
    let dir = open(&args.text(0)?, libc::O_RDONLY | libc::O_DIRECTORY, 0)?;
    sys!(SYS_fcntl, &dir, libc::F_NOTIFY, 4 /* DN_CREATE */).map(drop)
}

/// `copy-file-range FROM TO`
fn copy_file_range(args: &Args<'_>) -> io::Result<()> {
    let from = open(&args.text(0)?, libc::O_RDONLY, 0)?;
    let to = open(&args.text(1)?, libc::O_WRONLY | libc::O_CREAT, 0o644)?;
    sys!(SYS_copy_file_range, &from, 0, &to, 0, 1, 0).map(drop)
}

/// `long-create DIR LENGTH`: a name of so many bytes.
fn long_create(args: &Args<'_>) -> io::Result<()> {
    let name = format!("{}/{}", args.str(0)?, "n".repeat(args.number(1)?));
    open(&sys::text(name.as_ref())?, libc::O_CREAT | libc::O_EXCL | libc::O_WRONLY, 0o644).map(drop)
}

/// `deep-read DIR DEPTH`: reads DIR/d/d/…/file, step by step, so that no path is too long.
fn deep_read(args: &Args<'_>) -> io::Result<()> {
    let mut at = open(&args.text(0)?, libc::O_PATH, 0)?;
    for _ in 0..args.number::<u32>(1)? {
        at = fd!(SYS_openat, &at, c"d", libc::O_PATH | libc::O_CLOEXEC, 0)?;
    }
    read_from(&fd!(SYS_openat, &at, c"file", libc::O_RDONLY | libc::O_CLOEXEC, 0)?)
}

/// `hammer ALLOWED REFUSED STOP MINIMUM`: opens the one file, and now and then the other, at least so many
/// times and until STOP exists. EBADE: the first was refused; EBADR: the second was not.
fn hammer(args: &Args<'_>) -> io::Result<()> {
    let (allowed, refused, stop) = (args.text(0)?, args.text(1)?, args.text(2)?);
    let minimum: u64 = args.number(3)?;
    let mut checks = 0u64;
    loop {
        if open(&allowed, libc::O_RDONLY, 0).is_err() {
            return Err(io::Error::from_raw_os_error(libc::EBADE));
        }
        if checks.is_multiple_of(64) {
            if open(&refused, libc::O_RDONLY, 0).is_ok() {
                return Err(io::Error::from_raw_os_error(libc::EBADR));
            }
            if checks >= minimum && sys!(SYS_access, &stop, libc::F_OK).is_ok() {
                return Ok(());
            }
        }
        checks += 1;
    }
}

/// `flood DIRECTORY ACTS FILES`: creates so many files in turn, so often in all, and expects to be refused each time.
fn flood(args: &Args<'_>) -> io::Result<()> {
    let (directory, acts, files): (_, u64, u64) = (args.str(0)?, args.number(1)?, args.number(2)?);
    for act in 0..acts {
        let path = sys::text(format!("{directory}/flood-{}", act % files).as_ref())?;
        match open(&path, libc::O_CREAT | libc::O_WRONLY, 0o600) {
            Err(error) if error.raw_os_error() == Some(libc::EPERM) => {}
            Err(error) => return Err(error),
            Ok(_) => return Err(io::Error::from_raw_os_error(libc::EBADE)),
        }
    }
    Ok(())
}

/// `time-opens PATH COUNT ROUNDS`: opens so many times, and says the nanoseconds of the quickest round.
fn time_opens(args: &Args<'_>) -> io::Result<()> {
    let (path, count) = (args.text(0)?, args.number::<u32>(1)?);
    let mut least = u128::MAX;
    for _ in 0..args.number::<u32>(2)? {
        let begun = std::time::Instant::now();
        for _ in 0..count {
            drop(open(&path, libc::O_RDONLY, 0)?);
        }
        least = least.min(begun.elapsed().as_nanos());
    }
    Err(io::Error::other(least.to_string()))
}
