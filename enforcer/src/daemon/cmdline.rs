//! The arguments of a program that was stopped before its first instruction: what /proc says of it is what the
//! kernel gave it, as long as it stays stopped.

use crate::approvals::ancestry;
use std::{fs::File, io::Read};

/// Bytes of arguments beyond which they are not judged.
const MOST: u64 = 256 << 10;

/// What could be read.
#[derive(Debug, PartialEq, Eq)]
pub(super) enum Command {
    /// It has not stopped.
    NotYet,
    /// It has ended.
    Gone,
    /// It has arguments that cannot be judged.
    Unreadable(&'static str),
    /// Its arguments, its own name first.
    Given(Vec<Vec<u8>>),
}

/// Reads the arguments of the process that started then (nanoseconds of boot time).
pub(super) fn read(process: u32, started: u64) -> Command {
    let stopped = || is_stopped(process);
    if !ancestry::exists(process, process, started) {
        return Command::Gone;
    }
    if !stopped() {
        return Command::NotYet;
    }
    let mut bytes = Vec::new();
    let file = File::open(format!("/proc/{process}/cmdline"));
    let read = file.and_then(|file| file.take(MOST + 1).read_to_end(&mut bytes));
    // Still the same, and it has not run meanwhile.
    if !ancestry::exists(process, process, started) {
        return Command::Gone;
    }
    match read {
        Err(_) => Command::Unreadable("its arguments cannot be read"),
        Ok(_) if !stopped() => Command::Unreadable("it was woken before its arguments were judged"),
        Ok(_) if bytes.len() as u64 > MOST => Command::Unreadable("its arguments are longer than 256 KiB"),
        Ok(_) => split(&bytes),
    }
}

/// Whether the process is there and has not been let go on.
pub(super) fn still_waits(process: u32, started: u64) -> bool {
    ancestry::exists(process, process, started) && is_stopped(process)
}

fn is_stopped(process: u32) -> bool {
    ancestry::state(process).is_some_and(|state| matches!(state, b'T' | b't'))
}

/// Each argument ends with a zero byte (get_mm_cmdline(), fs/proc/base.c).
fn split(bytes: &[u8]) -> Command {
    match bytes.strip_suffix(b"\0") {
        Some(bytes) => Command::Given(bytes.split(|byte| *byte == 0).map(<[u8]>::to_vec).collect()),
        None => Command::Unreadable("its arguments do not end"),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn arguments_are_bytes_between_zeros() {
        let given = |words: &[&[u8]]| Command::Given(words.iter().map(|word| word.to_vec()).collect());
        assert_eq!(split(b"git\0push\0"), given(&[b"git", b"push"]));
        assert_eq!(split(b"\0"), given(&[b""]));
        assert_eq!(split(b"a\0\0\xff\n\0"), given(&[b"a", b"", b"\xff\n"]));
        assert!(matches!(split(b""), Command::Unreadable(_)));
        assert!(matches!(split(b"a\0b"), Command::Unreadable(_)));
    }

    #[test]
    fn who_runs_has_not_stopped_and_who_is_another_has_gone() {
        let own = std::process::id();
        assert_eq!(read(own, 1), Command::Gone);
    }
}
