//! Very many of one thing: refusals, processes.

use super::{
    Act, Args, find,
    sys::{self, sys, text},
    usage,
};
use std::{
    ffi::OsString,
    io,
    time::{Duration, Instant},
};

pub(super) const ACTS: &[(&str, Act)] = &[
    ("flood-create", flood_create),
    ("flood-read", flood_read),
    ("fork-bomb", fork_bomb),
    ("storm", storm),
    ("churn", churn),
    ("killed", killed),
];

/// Several acts of one line: `ACT ARG… + ACT ARG…`.
fn several(words: &[OsString]) -> io::Result<Vec<(Act, &[OsString])>> {
    let one = |words: &[OsString]| {
        let name = words.first().and_then(|name| name.to_str());
        name.and_then(find).ok_or_else(|| usage("no such act"))
    };
    words.split(|word| word == "+").map(|words| Ok((one(words)?, &words[1..]))).collect()
}

/// `churn FILE MILLISECONDS ACT ARG… + ACT ARG…`: the acts in turn, with a pause between two rounds, until FILE exists.
/// Ok if every one of them always succeeded.
fn churn(args: &Args<'_>) -> io::Result<()> {
    let (pause, acts) = (Duration::from_millis(args.number(1)?), several(&args.0[2..])?);
    let mut rounds = 0u64;
    while std::fs::symlink_metadata(args.word(0)?).is_err() {
        for (act, words) in &acts {
            act(&Args(words))?;
        }
        rounds += 1;
        std::thread::sleep(pause);
    }
    println!("{rounds} rounds of {} acts", acts.len());
    Ok(())
}

/// Attempts of a storm in each second: more would only keep the daemon's CPU from it.
const PACE: u64 = 1_500;

/// `storm FILE ACT ARG… + ACT ARG…`: the acts in turn, very often, until FILE exists. Ok if none succeeded.
fn storm(args: &Args<'_>) -> io::Result<()> {
    let acts = several(&args.0[1..])?;
    let begun = Instant::now();
    let (mut tried, mut done) = (0u64, vec![0u64; acts.len()]);
    while std::fs::symlink_metadata(args.word(0)?).is_err() {
        for _ in 0..32 {
            for ((act, words), done) in acts.iter().zip(&mut done) {
                tried += 1;
                *done += u64::from(act(&Args(words)).is_ok());
            }
        }
        let due = begun + Duration::from_millis(tried * 1000 / PACE);
        std::thread::sleep(due.saturating_duration_since(Instant::now()));
    }
    println!("tried {tried} in {}", begun.elapsed().as_millis());
    if done.iter().sum::<u64>() == 0 { Ok(()) } else { Err(io::Error::other(format!("{done:?}-succeeded"))) }
}

/// `flood-create DIR COUNT`: tries to make so many files of different names. Ok: none was made.
fn flood_create(args: &Args<'_>) -> io::Result<()> {
    let directory = args.str(0)?;
    for number in 0..args.number::<u32>(1)? {
        let path = text(format!("{directory}/flood-{number}").as_ref())?;
        refused(sys::open(&path, libc::O_CREAT | libc::O_WRONLY, 0o644).map(drop))?;
    }
    Ok(())
}

/// `flood-read FILE COUNT`: tries to read one file so many times. Ok: never.
fn flood_read(args: &Args<'_>) -> io::Result<()> {
    let path = args.text(0)?;
    (0..args.number::<u32>(1)?).try_for_each(|_| refused(sys::open(&path, libc::O_RDONLY, 0).map(drop)))
}

/// EBADE: it was not refused.
fn refused(result: io::Result<()>) -> io::Result<()> {
    match result {
        Err(error) if error.raw_os_error() == Some(libc::EPERM) => Ok(()),
        Err(error) => Err(error),
        Ok(()) => Err(io::Error::from_raw_os_error(libc::EBADE)),
    }
}

/// `fork-bomb FILE COUNT`: so many children that all live at once, each of which tries to read the file. Those
/// that cannot be born do not count. Ok: some could not be born, and no child could read.
fn fork_bomb(args: &Args<'_>) -> io::Result<()> {
    let (path, count) = (args.text(0)?, args.number::<usize>(1)?);
    let mut ends = [0i32; 2];
    // SAFETY: room for two descriptors.
    sys::result(unsafe { libc::pipe2(ends.as_mut_ptr(), libc::O_CLOEXEC) }.into())?;
    let [go, start] = ends.map(|end| sys::owned(end.into()));
    let (mut children, mut unborn) = (Vec::new(), 0u32);
    for _ in 0..count {
        // SAFETY: the probe has one thread, so the child may do what the parent may.
        match unsafe { libc::fork() } {
            0 => {
                // SAFETY: the child's own copy, so that the pipe ends when the parent closes its one.
                unsafe { libc::close(ends[1]) };
                let mut byte = [0u8; 1];
                let _ = sys!(SYS_read, &go, &mut byte[..], 1);
                let read = refused(sys::open(&path, libc::O_RDONLY, 0).map(drop));
                // SAFETY: ends the child without running what the parent wants to run at its end.
                unsafe { libc::_exit(i32::from(read.is_err())) };
            }
            -1 => unborn += 1,
            child => children.push(child),
        }
    }
    drop(start);
    let mut escaped = 0;
    for child in &children {
        let mut status = 0;
        // SAFETY: `status` takes the status of a child that was just made.
        unsafe { libc::waitpid(*child, &mut status, 0) };
        escaped += u32::from(status != 0);
    }
    if escaped > 0 {
        return Err(io::Error::from_raw_os_error(libc::EBADE));
    }
    if unborn == 0 || children.is_empty() {
        return Err(io::Error::other(format!("{}-born-{unborn}-not", children.len())));
    }
    Ok(())
}

/// `killed FILE NUMBER`: children that make the call of this number, one after the other, until FILE exists. Ok if each of
/// them was killed.
fn killed(args: &Args<'_>) -> io::Result<()> {
    let (number, begun) = (args.number(1)?, Instant::now());
    let (mut tried, mut survived) = (0u64, 0u64);
    while std::fs::symlink_metadata(args.word(0)?).is_err() {
        // SAFETY: the probe has one thread, so the child may do what the parent may.
        let child = unsafe { libc::fork() };
        if child == 0 {
            let _ = sys::call(number, &mut []);
            // SAFETY: ends the child without running what the parent wants to run at its end.
            unsafe { libc::_exit(0) };
        }
        sys::result(child.into())?;
        let mut status = 0;
        // SAFETY: `status` takes the status of the child that was just made.
        unsafe { libc::waitpid(child, &mut status, 0) };
        tried += 1;
        survived += u64::from(!libc::WIFSIGNALED(status) || libc::WTERMSIG(status) != libc::SIGKILL);
    }
    println!("tried {tried} in {}", begun.elapsed().as_millis());
    if survived == 0 { Ok(()) } else { Err(io::Error::other(format!("{survived}-survived"))) }
}
