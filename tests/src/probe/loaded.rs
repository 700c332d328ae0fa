//! Getting at a program that was loaded and has not run yet.

use super::{
    Act, Args,
    exec::{be_quiet, execveat, words},
    sys::{fd, sys, text},
};
use std::io;

pub(super) const ACTS: &[(&str, Act)] = &[
    ("stopped-cont", cont),
    ("stopped-trace", trace),
    ("stopped-memory", memory),
    ("traced-exec", traced_exec),
];

/// Starts a program in a child, waits until that stops, lets `act` have its process id, and ends it. `-` is no
/// program: the child stops itself.
fn when_stopped(args: &Args<'_>, act: impl FnOnce(i64) -> io::Result<()>) -> io::Result<()> {
    let words = words(args)?;
    let child = start(|| {
        if words[0].as_bytes() == b"-" {
            // SAFETY: a signal to itself.
            unsafe { libc::raise(libc::SIGSTOP) };
            return Ok(());
        }
        execveat(libc::AT_FDCWD, &words[0], &words, &[], 0)
    })?;
    let status = wait(child, libc::WUNTRACED);
    let done = if libc::WIFSTOPPED(status) { act(child) } else { Err(ended(status)) };
    let _ = sys!(SYS_kill, child, libc::SIGKILL);
    wait(child, 0);
    done
}

fn start(act: impl FnOnce() -> io::Result<()>) -> io::Result<i64> {
    // SAFETY: the probe has one thread, so the child may do what the parent may.
    let child = unsafe { libc::fork() };
    if child == 0 {
        let _ = be_quiet().and_then(|()| act());
        // SAFETY: ends the child without running what the parent wants to run at its end.
        unsafe { libc::_exit(1) };
    }
    if child < 0 { Err(io::Error::last_os_error()) } else { Ok(child.into()) }
}

fn wait(child: i64, options: i32) -> i32 {
    let mut status = 0;
    // SAFETY: `status` takes the status of a child of this process.
    unsafe { libc::waitpid(child as i32, &mut status, options) };
    status
}

fn ended(status: i32) -> io::Error {
    io::Error::other(format!("status-{status:#x}"))
}

fn cont(args: &Args<'_>) -> io::Result<()> {
    when_stopped(args, |child| sys!(SYS_kill, child, libc::SIGCONT).map(drop))
}

fn trace(args: &Args<'_>) -> io::Result<()> {
    when_stopped(args, |child| sys!(SYS_ptrace, libc::PTRACE_SEIZE as i32, child, 0, 0).map(drop))
}

fn memory(args: &Args<'_>) -> io::Result<()> {
    when_stopped(args, |child| {
        let name = text(format!("/proc/{child}/mem").as_ref())?;
        fd!(SYS_openat, libc::AT_FDCWD, &name, libc::O_RDONLY, 0).map(drop)
    })
}

/// `traced-exec PATH ARG…` in a child that this process traces. Ok: the program ran and ended with 0.
fn traced_exec(args: &Args<'_>) -> io::Result<()> {
    let words = words(args)?;
    let child = start(|| {
        sys!(SYS_ptrace, libc::PTRACE_TRACEME as i32, 0, 0, 0)?;
        execveat(libc::AT_FDCWD, &words[0], &words, &[], 0)
    })?;
    loop {
        let status = wait(child, 0);
        if libc::WIFSTOPPED(status) {
            sys!(SYS_ptrace, libc::PTRACE_CONT as i32, child, 0, 0)?;
        } else if libc::WIFEXITED(status) && libc::WEXITSTATUS(status) == 0 {
            return Ok(());
        } else {
            return Err(ended(status));
        }
    }
}
