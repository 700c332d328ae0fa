//! What /proc says about a process that waits. It may have said something else a moment before, so requests mark it.

use super::request::{Ancestor, Shown};
use std::{fs, os::unix::ffi::OsStrExt, path::Path};

/// Processes above that are named.
const MOST: usize = 16;

/// The processes above, the nearest first, up to the first one of all.
pub fn ancestry(process: u32) -> Vec<Ancestor> {
    let mut out = Vec::new();
    let mut next = parent(process);
    while let Some(process) = next.filter(|process| *process > 0 && out.len() < MOST) {
        out.push(Ancestor { process, exe: link(process, "exe") });
        next = parent(process);
    }
    out
}

/// The working directory.
pub fn directory(process: u32) -> Option<Shown> {
    link(process, "cwd")
}

/// Whether a thread still exists, in the process that started then (nanoseconds of boot time).
pub fn exists(process: u32, thread: u32, started: u64) -> bool {
    // /proc gives the start in ticks of a hundredth of a second (do_task_stat(), fs/proc/array.c).
    const TICK: u64 = 10_000_000;
    let same = field(process, 19).is_some_and(|ticks| ticks == started / TICK);
    same && Path::new(&format!("/proc/{process}/task/{thread}")).exists()
}

/// The letter for what a process does (get_task_state(), fs/proc/array.c).
pub fn state(process: u32) -> Option<u8> {
    fields(process)?.trim_start().bytes().next()
}

/// The user who once logged in, through every `su` since.
pub fn login_uid(process: i32) -> Option<u32> {
    let text = fs::read_to_string(format!("/proc/{process}/loginuid")).ok()?;
    text.trim().parse().ok().filter(|uid| *uid != u32::MAX)
}

fn link(process: u32, name: &str) -> Option<Shown> {
    let target = fs::read_link(format!("/proc/{process}/{name}")).ok()?;
    Some(Shown::of(target.as_os_str().as_bytes()))
}

fn parent(process: u32) -> Option<u32> {
    field(process, 1).and_then(|parent| u32::try_from(parent).ok())
}

/// A field of /proc/PID/stat, counted from the one after the name.
fn field(process: u32, index: usize) -> Option<u64> {
    fields(process)?.split_ascii_whitespace().nth(index)?.parse().ok()
}

/// What follows the name in /proc/PID/stat.
fn fields(process: u32) -> Option<String> {
    let bytes = fs::read(format!("/proc/{process}/stat")).ok()?;
    // The name, which the program chooses, may contain anything; it ends at the last bracket.
    let end = bytes.iter().rposition(|byte| *byte == b')')?;
    String::from_utf8(bytes.get(end + 1..)?.to_vec()).ok()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_processes_above_end_with_the_first_one() {
        let above = ancestry(std::process::id());
        assert_eq!(above[0].process, std::os::unix::process::parent_id());
        assert!(above.len() == MOST || parent(above[above.len() - 1].process) == Some(0));
        assert!(directory(std::process::id()).is_some());
    }

    #[test]
    fn a_process_is_its_number_and_its_start() {
        let own = std::process::id();
        let started = field(own, 19).expect("started") * 10_000_000;
        assert!(exists(own, own, started + 5) && !exists(own, own, started + 10_000_000));
        assert!(!exists(own, 1, started));
    }
}
