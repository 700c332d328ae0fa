//! Running programs and making memory executable.

use super::{
    Act, Args,
    sys::{fd, in_child, open, sys, text},
};
use std::{
    ffi::{CStr, CString},
    io,
    os::fd::{AsRawFd, OwnedFd},
};

pub(super) const ACTS: &[(&str, Act)] = &[
    ("exec", exec),
    ("exec-odd", exec_odd),
    ("execveat-fd", execveat_fd),
    ("exec-proc-fd", exec_proc_fd),
    ("memfd-exec", memfd_exec),
    ("map-exec", map_exec),
    ("mprotect-exec", mprotect_exec),
    ("anonymous-exec", anonymous_exec),
    ("preload", preload),
];

/// Pointers to the words, ended by null, as execve takes them.
fn pointers(words: &[CString]) -> Vec<u8> {
    let words = words.iter().map(|word| word.as_ptr() as u64).chain([0]);
    words.flat_map(u64::to_ne_bytes).collect()
}

pub(super) fn words(args: &Args<'_>) -> io::Result<Vec<CString>> {
    args.0.iter().map(|word| text(word)).collect()
}

/// The program's own descriptors 1 and 2 lead nowhere, so that only the probe's lines are printed.
pub(super) fn be_quiet() -> io::Result<()> {
    let null = open(c"/dev/null", libc::O_RDWR, 0)?;
    for target in 0..3 {
        sys!(SYS_dup3, &null, target, 0)?;
    }
    Ok(())
}

pub(super) fn execveat(
    dir: i32,
    path: &CStr,
    words: &[CString],
    variables: &[CString],
    flags: i32,
) -> io::Result<()> {
    let (arguments, environment) = (pointers(words), pointers(variables));
    sys!(SYS_execveat, dir, path, &arguments, &environment, flags).map(drop)
}

/// `exec PATH ARG…` in a child. Ok: the program ran and ended with 0.
fn exec(args: &Args<'_>) -> io::Result<()> {
    let words = words(args)?;
    in_child(|| {
        be_quiet()?;
        execveat(libc::AT_FDCWD, &words[0], &words, &[], 0)
    })
}

/// `exec-odd PATH LENGTH`: with an argument that no terminal should see, and one of this length.
fn exec_odd(args: &Args<'_>) -> io::Result<()> {
    let (path, length): (CString, usize) = (args.text(0)?, args.number(1)?);
    let odd = [b"a\nb\x1b[31m\xff".to_vec(), vec![b'x'; length]];
    let odd = odd.into_iter().map(CString::new).collect::<Result<Vec<_>, _>>()?;
    let words: Vec<CString> = [path].into_iter().chain(odd).collect();
    in_child(|| {
        be_quiet()?;
        execveat(libc::AT_FDCWD, &words[0], &words, &[], 0)
    })
}

/// The program as an O_PATH descriptor, which passed no check.
fn execveat_fd(args: &Args<'_>) -> io::Result<()> {
    let words = words(args)?;
    in_child(|| {
        be_quiet()?;
        let file = open(&words[0], libc::O_PATH, 0)?;
        execveat(file.as_raw_fd(), c"", &words, &[], libc::AT_EMPTY_PATH)
    })
}

fn exec_proc_fd(args: &Args<'_>) -> io::Result<()> {
    let words = words(args)?;
    in_child(|| {
        be_quiet()?;
        let file = open(&words[0], libc::O_PATH, 0)?;
        let name = text(format!("/proc/self/fd/{}", file.as_raw_fd()).as_ref())?;
        execveat(libc::AT_FDCWD, &name, &words, &[], 0)
    })
}

/// `memfd-exec PATH ARG…`: a copy of PATH in memory only.
fn memfd_exec(args: &Args<'_>) -> io::Result<()> {
    let words = words(args)?;
    let from = open(&words[0], libc::O_RDONLY, 0)?;
    let memory = fd!(SYS_memfd_create, c"probe", libc::MFD_CLOEXEC)?;
    while sys!(SYS_sendfile, &memory, &from, 0, 1 << 20)? > 0 {}
    in_child(|| {
        be_quiet()?;
        execveat(memory.as_raw_fd(), c"", &words, &[], libc::AT_EMPTY_PATH)
    })
}

fn map(file: Option<&OwnedFd>, protection: i32) -> io::Result<i64> {
    let (flags, fd) = match file {
        Some(file) => (libc::MAP_PRIVATE, file.as_raw_fd()),
        None => (libc::MAP_PRIVATE | libc::MAP_ANONYMOUS, -1),
    };
    sys!(SYS_mmap, 0, 4096, protection, flags, fd, 0)
}

fn map_exec(args: &Args<'_>) -> io::Result<()> {
    map(Some(&open(&args.text(0)?, libc::O_RDONLY, 0)?), libc::PROT_READ | libc::PROT_EXEC).map(drop)
}

/// Mapped for reading, made executable later.
fn mprotect_exec(args: &Args<'_>) -> io::Result<()> {
    let at = map(Some(&open(&args.text(0)?, libc::O_RDONLY, 0)?), libc::PROT_READ)?;
    sys!(SYS_mprotect, at, 4096, libc::PROT_READ | libc::PROT_EXEC).map(drop)
}

fn anonymous_exec(_: &Args<'_>) -> io::Result<()> {
    map(None, libc::PROT_READ | libc::PROT_WRITE | libc::PROT_EXEC).map(drop)
}

/// `preload LIBRARY PROGRAM ARG…`: the program with LD_PRELOAD. Ok: it ran and ended with 0.
fn preload(args: &Args<'_>) -> io::Result<()> {
    let all = words(args)?;
    let variable = text(format!("LD_PRELOAD={}", args.str(0)?).as_ref())?;
    in_child(|| {
        be_quiet()?;
        execveat(libc::AT_FDCWD, &all[1], &all[1..], &[variable], 0)
    })
}
