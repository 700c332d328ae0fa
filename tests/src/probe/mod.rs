//! Acts: each does one exact thing by raw system calls and says `ok` or the name of the error.
//!
//! `probe ACT ARG…` prints one line; `probe seq ACT ARG… , ACT ARG…` does several in one process and
//! prints a line each. The status is 0 whatever the kernel said, and 2 where the command line is wrong.

mod devices;
mod errno;
mod exec;
mod files;
mod ipc;
mod kernel;
mod loaded;
mod metadata;
mod mounts;
mod names;
mod net;
mod odd;
mod ring;
mod spelling;
mod storm;
mod sys;
mod tasks;
mod unix;
mod waiting;

use std::{
    ffi::{OsStr, OsString},
    io::{self, Write},
    os::unix::ffi::OsStrExt,
    process::ExitCode,
    time::{Duration, Instant},
};

pub use errno::name as errno_name;

/// The arguments of an act.
struct Args<'a>(&'a [OsString]);

impl Args<'_> {
    fn text(&self, index: usize) -> io::Result<std::ffi::CString> {
        sys::text(self.word(index)?)
    }

    fn word(&self, index: usize) -> io::Result<&OsStr> {
        self.0.get(index).map(OsString::as_os_str).ok_or_else(|| usage("an argument is missing"))
    }

    fn str(&self, index: usize) -> io::Result<&str> {
        self.word(index)?.to_str().ok_or_else(|| usage("an argument is not text"))
    }

    fn number<T: std::str::FromStr>(&self, index: usize) -> io::Result<T> {
        self.str(index)?.parse().map_err(|_| usage("an argument is not a number"))
    }

    /// The argument, or a default where there is none.
    fn number_or<T: std::str::FromStr>(&self, index: usize, default: T) -> io::Result<T> {
        if self.0.len() > index { self.number(index) } else { Ok(default) }
    }
}

/// An error of the command line rather than of the kernel.
fn usage(what: &str) -> io::Error {
    io::Error::new(io::ErrorKind::InvalidInput, what.to_owned())
}

type Act = fn(&Args<'_>) -> io::Result<()>;

/// Every act by its name.
fn find(name: &str) -> Option<Act> {
    const TABLES: [&[(&str, Act)]; 17] = [
        files::ACTS,
        names::ACTS,
        exec::ACTS,
        loaded::ACTS,
        net::ACTS,
        unix::ACTS,
        mounts::ACTS,
        tasks::ACTS,
        kernel::ACTS,
        spelling::ACTS,
        metadata::ACTS,
        odd::ACTS,
        storm::ACTS,
        waiting::ACTS,
        ipc::ACTS,
        devices::ACTS,
        ACTS,
    ];
    TABLES.iter().flat_map(|table| table.iter()).find(|(known, _)| *known == name).map(|(_, act)| *act)
}

const ACTS: &[(&str, Act)] = &[("wait-for", wait_for), ("say", say), ("loop", again), ("chdir", chdir)];

fn chdir(args: &Args<'_>) -> io::Result<()> {
    std::env::set_current_dir(args.word(0)?)
}

/// Waits until a file exists, by `stat`, which no hook sees.
fn wait_for(args: &Args<'_>) -> io::Result<()> {
    wait_for_file(args.word(0)?, args.number_or(1, 600)?)
}

fn wait_for_file(file: &OsStr, seconds: u64) -> io::Result<()> {
    let until = Instant::now() + Duration::from_secs(seconds);
    while std::fs::symlink_metadata(file).is_err() {
        if Instant::now() > until {
            return Err(io::Error::from_raw_os_error(libc::ETIMEDOUT));
        }
        std::thread::sleep(Duration::from_millis(20));
    }
    Ok(())
}

/// Prints a line now, so that whoever reads knows how far this process is.
fn say(args: &Args<'_>) -> io::Result<()> {
    let mut out = io::stdout();
    out.write_all(args.word(0)?.as_bytes())?;
    out.write_all(b"\n")?;
    out.flush()
}

/// `loop FILE ACT ARG…`: the act again and again until FILE exists. Ok if it never succeeded and
/// was tried at least once.
fn again(args: &Args<'_>) -> io::Result<()> {
    let act = args.str(1).ok().and_then(find).ok_or_else(|| usage("no such act"))?;
    let (mut tried, mut done) = (0u64, 0u64);
    let until = Instant::now() + Duration::from_secs(600);
    while std::fs::symlink_metadata(args.word(0)?).is_err() && Instant::now() < until {
        tried += 1;
        done += u64::from(act(&Args(&args.0[2..])).is_ok());
        // Leaves the daemon time to write down each attempt.
        std::thread::sleep(Duration::from_millis(3));
    }
    println!("tried {tried}");
    if done == 0 && tried > 0 {
        Ok(())
    } else {
        Err(io::Error::other(format!("{done}-of-{tried}-succeeded")))
    }
}

/// The program.
pub fn main(arguments: Vec<OsString>) -> ExitCode {
    let sequence = arguments.first().is_some_and(|first| first == "seq");
    let acts: Vec<&[OsString]> = match arguments.split_first() {
        Some((_, rest)) if sequence => rest.split(|word| word == ",").collect(),
        _ => vec![&arguments[..]],
    };
    let mut out = io::stdout();
    for words in acts {
        let name = words.first().and_then(|name| name.to_str()).unwrap_or_default();
        let done = match find(name) {
            Some(act) => Some(act(&Args(&words[1..]))),
            None => ring::act(name, words.get(1..).unwrap_or_default()),
        };
        let Some(done) = done else {
            eprintln!("usage: probe ACT ARG… | probe seq ACT ARG… , ACT ARG…; no such act: {words:?}");
            return ExitCode::from(2);
        };
        let line = match done {
            Ok(()) => "ok".to_owned(),
            Err(error) => match error.raw_os_error() {
                Some(number) => errno::name(number),
                None if error.kind() == io::ErrorKind::InvalidInput => {
                    eprintln!("{words:?}: {error}");
                    return ExitCode::from(2);
                }
                None => error.to_string().replace([' ', '\n'], "-"),
            },
        };
        // Nobody is left to hear that it could not be said.
        let _ = out.write_all(format!("{line}\n").as_bytes()).and_then(|()| out.flush());
    }
    ExitCode::SUCCESS
}
