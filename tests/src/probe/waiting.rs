//! Acts in threads, in children, under tracers and behind parents: what else happens while one of them waits.

use super::{
    Act, Args, errno, find,
    sys::{open, result, sys, zeroed},
    usage,
};
use std::{
    ffi::OsString,
    io,
    sync::atomic::{AtomicU32, Ordering},
};

pub(super) const ACTS: &[(&str, Act)] = &[
    ("threads", threads),
    ("children", children),
    ("handling", handling),
    ("parent-conts", parent_conts),
    ("spawn", spawn),
    ("traced", traced),
    ("exec-over-child", exec_over_child),
    ("reap", reap),
    ("thread-execs", thread_execs),
];

/// An act whose words have the number instead of `{}`.
fn numbered(args: &Args<'_>, from: usize, number: usize) -> io::Result<(Act, Vec<OsString>)> {
    let act = find(args.str(from)?).ok_or_else(|| usage("no such act"))?;
    let words = args.0[from + 1..].iter().map(|word| {
        let word = word.to_str().ok_or_else(|| usage("an argument is not text"))?;
        Ok(OsString::from(word.replace("{}", &number.to_string())))
    });
    Ok((act, words.collect::<io::Result<_>>()?))
}

fn said(outcome: &io::Result<()>) -> String {
    match outcome {
        Ok(()) => "ok".to_owned(),
        Err(error) => error.raw_os_error().map_or_else(|| error.to_string(), errno::name),
    }
}

/// What all of them said, in their order; ok where all are.
fn together(all: &[String]) -> io::Result<()> {
    if all.iter().all(|one| one == "ok") { Ok(()) } else { Err(io::Error::other(all.join("/"))) }
}

/// `threads COUNT ACT ARG…`: the act in so many threads at the same time, `{}` being the thread's number.
fn threads(args: &Args<'_>) -> io::Result<()> {
    let all = (0..args.number(0)?).map(|number| numbered(args, 1, number)).collect::<io::Result<Vec<_>>>()?;
    let all = all.into_iter().map(|(act, words)| std::thread::spawn(move || said(&act(&Args(&words)))));
    let all: Vec<_> = all.collect();
    let all = all.into_iter().map(|thread| thread.join().unwrap_or_else(|_| "panicked".to_owned()));
    together(&all.collect::<Vec<_>>())
}

fn status_of(child: i32) -> i32 {
    let mut status = 0i32;
    // SAFETY: `status` takes the status of a child of this process.
    unsafe { libc::waitpid(child, &mut status, 0) };
    status
}

/// Whether it stopped rather than ended.
fn stops(child: i32) -> bool {
    let mut status = 0i32;
    // SAFETY: `status` takes the status of a child of this process.
    unsafe { libc::waitpid(child, &mut status, libc::WUNTRACED) };
    libc::WIFSTOPPED(status)
}

/// A child whose status is the act's error, 0 where there is none.
fn child_that(act: impl FnOnce() -> io::Result<()>) -> io::Result<i32> {
    // SAFETY: the probe has one thread, so the child may do what the parent may.
    let child = result(unsafe { libc::fork() }.into())?;
    if child == 0 {
        let code = act().err().map_or(0, |error| error.raw_os_error().unwrap_or(255));
        // SAFETY: ends the child without running what the parent wants to run at its end.
        unsafe { libc::_exit(code) };
    }
    i32::try_from(child).map_err(io::Error::other)
}

fn outcome_of(status: i32) -> io::Result<()> {
    match (libc::WIFEXITED(status), libc::WEXITSTATUS(status)) {
        (true, 0) => Ok(()),
        (true, code) if code < 134 => Err(io::Error::from_raw_os_error(code)),
        _ => Err(io::Error::other(format!("status-{status:#x}"))),
    }
}

/// `children COUNT ACT ARG…`: the act in so many processes at the same time, `{}` being the number.
fn children(args: &Args<'_>) -> io::Result<()> {
    let mut all = Vec::new();
    for number in 0..args.number(0)? {
        let (act, words) = numbered(args, 1, number)?;
        all.push(child_that(|| act(&Args(&words)))?);
    }
    let all = all.into_iter().map(|child| said(&outcome_of(status_of(child))));
    together(&all.collect::<Vec<_>>())
}

static HANDLED: AtomicU32 = AtomicU32::new(0);

extern "C" fn count(_: libc::c_int) {
    HANDLED.fetch_add(1, Ordering::SeqCst);
}

/// `handling ACT ARG…`: the act in a process with a handler for SIGUSR1 that restarts nothing by itself. EINTR: the
/// handler has not run, or more than once.
fn handling(args: &Args<'_>) -> io::Result<()> {
    let (act, words) = numbered(args, 0, 0)?;
    let mut action: libc::sigaction = zeroed();
    action.sa_sigaction = count as extern "C" fn(libc::c_int) as libc::sighandler_t;
    // SAFETY: the handler only counts.
    result(unsafe { libc::sigaction(libc::SIGUSR1, &action, std::ptr::null_mut()) }.into())?;
    act(&Args(&words))?;
    if HANDLED.load(Ordering::SeqCst) == 1 { Ok(()) } else { Err(io::Error::from_raw_os_error(libc::EINTR)) }
}

/// `parent-conts FILE TIMES ACT ARG…`: the act in a child whose parent sees it stop, and tells it to go on each time.
/// Then it makes FILE, and waits for the child's end alone.
fn parent_conts(args: &Args<'_>) -> io::Result<()> {
    let (act, words) = numbered(args, 2, 0)?;
    let child = child_that(|| act(&Args(&words)))?;
    for _ in 0..args.number(1)? {
        if !stops(child) {
            return Err(io::Error::other("it-ended"));
        }
        sys!(SYS_kill, child, libc::SIGCONT)?;
    }
    open(&args.text(0)?, libc::O_CREAT | libc::O_WRONLY, 0o644)?;
    outcome_of(status_of(child))
}

/// `spawn PATH ARG…`: as the C library does it, in a child that shares the parent's memory while that stands still
/// (`CLONE_VFORK`).
fn spawn(args: &Args<'_>) -> io::Result<()> {
    let status = std::process::Command::new(args.word(0)?).args(&args.0[1..]).status()?;
    if status.success() { Ok(()) } else { Err(io::Error::other(status.to_string())) }
}

/// Stops that a tracer keeps from its child before it says how often that was.
const KEPT: u32 = 20;

/// `traced FILE ACT ARG…`: the act in a child that this process traces and keeps from stopping. FILE is made when it
/// was kept from it many times.
fn traced(args: &Args<'_>) -> io::Result<()> {
    let (act, words) = numbered(args, 1, 0)?;
    let mark = args.text(0)?;
    let child = child_that(|| {
        sys!(SYS_ptrace, libc::PTRACE_TRACEME as i32, 0, 0, 0)?;
        act(&Args(&words))
    })?;
    let mut kept = 0;
    loop {
        let status = status_of(child);
        if !libc::WIFSTOPPED(status) {
            return outcome_of(status);
        }
        kept += 1;
        if kept == KEPT {
            open(&mark, libc::O_CREAT | libc::O_WRONLY, 0o644)?;
        }
        if kept > KEPT {
            // Its child asks again each time: the machine has other things to do too.
            std::thread::sleep(std::time::Duration::from_millis(20));
        }
        sys!(SYS_ptrace, libc::PTRACE_CONT as i32, child, 0, 0)?;
    }
}

const PROBE: &std::ffi::CStr = c"/usr/lib/enforcer-tests/probe";

fn become_probe(words: &[&std::ffi::CStr]) -> io::Result<()> {
    let words: Vec<_> = [PROBE].iter().chain(words).map(|word| (*word).to_owned()).collect();
    super::exec::execveat(libc::AT_FDCWD, PROBE, &words, &[], 0)
}

/// `exec-over-child ACT ARG…`: the act in a child; when that has stopped, the parent executes another program, which
/// says how it ended.
fn exec_over_child(args: &Args<'_>) -> io::Result<()> {
    let (act, words) = numbered(args, 0, 0)?;
    let child = child_that(|| act(&Args(&words)))?;
    if !stops(child) {
        return Err(io::Error::other("it-ended"));
    }
    become_probe(&[c"reap"])
}

/// How the one child ended that this process has from the program before it.
fn reap(_: &Args<'_>) -> io::Result<()> {
    outcome_of(status_of(-1))
}

/// `thread-execs TEXT ACT ARG…`: the act in a thread, while the process's first thread executes another program,
/// which says TEXT, as soon as it can.
fn thread_execs(args: &Args<'_>) -> io::Result<()> {
    let (act, words) = numbered(args, 1, 0)?;
    let mut action: libc::sigaction = zeroed();
    action.sa_sigaction = count as extern "C" fn(libc::c_int) as libc::sighandler_t;
    action.sa_flags = libc::SA_RESTART;
    // SAFETY: the handler only counts.
    result(unsafe { libc::sigaction(libc::SIGCONT, &action, std::ptr::null_mut()) }.into())?;
    std::thread::spawn(move || act(&Args(&words)));
    // The thread stops the process, and somebody outside lets it go on: not before that is it this one's turn.
    while HANDLED.load(Ordering::SeqCst) == 0 {
        std::thread::sleep(std::time::Duration::from_millis(5));
    }
    become_probe(&[c"say", &args.text(0)?])
}
