//! The kernel's own figures of each attached program, and a program that does nothing in the place of each: what
//! any set of programs on these hooks costs at least. Uses bpf(2) as it is; field offsets are those of
//! `union bpf_attr`, `struct bpf_link_info` and `struct bpf_prog_info` in include/uapi/linux/bpf.h.

use std::{
    collections::BTreeSet,
    ffi::{CString, OsStr},
    fs, io,
    os::{
        fd::{AsRawFd as _, FromRawFd as _, OwnedFd},
        unix::ffi::OsStrExt as _,
    },
    path::Path,
};

const OBJ_GET: i32 = 7;
const PROG_LOAD: i32 = 5;
const PROG_GET_FD_BY_ID: i32 = 13;
const OBJ_GET_INFO_BY_FD: i32 = 15;
const RAW_TRACEPOINT_OPEN: i32 = 17;
const ENABLE_STATS: i32 = 32;

/// `BPF_PROG_TYPE_TRACING` and what such a program can be attached to: `BPF_TRACE_RAW_TP`, `BPF_TRACE_FENTRY`.
const TRACING: u32 = 26;
const TRACEPOINT: u32 = 23;
const ENTRY: u32 = 24;
/// `BPF_LSM_MAC`, of the type `BPF_PROG_TYPE_LSM`.
const LSM_MAC: u32 = 27;

/// A program, as the kernel describes it.
pub struct Program {
    /// Its name in the object.
    name: String,
    /// `BPF_PROG_TYPE_*`.
    kind: u32,
    /// Instructions that the verifier went through, with every path on which it did.
    verified: u32,
    /// Bytes of eBPF after the verifier's changes.
    translated: u32,
    /// Bytes of machine code.
    machine_code: u32,
    /// What it is attached to, in the kernel's type information.
    target: u32,
    /// Runs while statistics were on, and the nanoseconds that these took.
    runs: [u64; 2],
}

/// Lets the kernel count the programs' runs, until the descriptor goes.
pub fn count_runs() -> io::Result<OwnedFd> {
    // BPF_STATS_RUN_TIME is 0.
    descriptor(ENABLE_STATS, &mut [0u8; 128])
}

/// What a program did between two looks: its name, how often it ran, and nanoseconds.
pub type Runs = (String, u64, u64);

/// What each program did between two looks.
pub fn between(before: &[Program], after: &[Program]) -> Vec<Runs> {
    let mut done = Vec::new();
    for program in after {
        let [runs, took] = before.iter().find(|b| b.name == program.name).map_or([0; 2], |b| b.runs);
        done.push((program.name.clone(), program.runs[0] - runs, program.runs[1] - took));
    }
    done
}

/// Where programs are pinned that are still to be attached.
const WAITING: &[u8] = b"system-calls-waiting";

/// Whether programs are still to be attached.
pub fn some_wait(pins: &Path) -> io::Result<bool> {
    for entry in fs::read_dir(pins)? {
        let waiting = match fs::read_dir(entry?.path().join(OsStr::from_bytes(WAITING))) {
            Ok(waiting) => waiting,
            Err(e) if matches!(e.kind(), io::ErrorKind::NotFound | io::ErrorKind::NotADirectory) => continue,
            Err(error) => return Err(error),
        };
        if waiting.count() > 0 {
            return Ok(true);
        }
    }
    Ok(false)
}

/// Those whose links are pinned below `pins`.
pub fn attached(pins: &Path) -> io::Result<Vec<Program>> {
    let mut programs = Vec::new();
    for entry in fs::read_dir(pins)? {
        let directory = entry?;
        if !directory.file_name().as_bytes().starts_with(b"links-") {
            continue;
        }
        for link in fs::read_dir(directory.path())? {
            let link = link?;
            match link.file_name().as_bytes() {
                // Programs without a link; one program at the end of many rare calls, which nothing else pays for.
                b"network" | b"system-calls" | WAITING => {}
                name if name.starts_with(b"network-") => {
                    for link in fs::read_dir(link.path())? {
                        programs.push(describe(&link?.path())?);
                    }
                }
                _ => programs.push(describe(&link.path())?),
            }
        }
    }
    if programs.is_empty() {
        return Err(io::Error::other(format!("no program is pinned in {}", pins.display())));
    }
    programs.sort_by(|a, b| a.name.cmp(&b.name));
    Ok(programs)
}

/// Prints the figures of each, as rows of configurations of their own.
pub fn print(programs: &[Program]) {
    for program in programs {
        for (configuration, figure) in [
            ("verified instructions", program.verified),
            ("eBPF bytes", program.translated),
            ("machine code bytes", program.machine_code),
        ] {
            println!(
                "{}",
                serde_json::json!({
                    "configuration": configuration, "operation": program.name, "rounds": [figure],
                })
            );
        }
    }
}

/// Attaches a program that lets everything pass to whatever function `programs` are attached to, until the descriptors
/// go. Those of cgroups are in nobody's way but their own tasks'.
pub fn attach_empty(programs: &[Program]) -> Result<Vec<OwnedFd>, Box<dyn std::error::Error>> {
    let targets: BTreeSet<(u32, u32)> =
        programs.iter().filter(|p| p.target != 0).map(|program| (program.kind, program.target)).collect();
    let mut links = Vec::new();
    for (kind, target) in targets {
        let program = match kind {
            TRACING => load_empty(kind, ENTRY, target).or_else(|_| load_empty(kind, TRACEPOINT, target)),
            _ => load_empty(kind, LSM_MAC, target),
        };
        let program = program.map_err(|e| format!("an empty program for type {target}: {e}"))?;
        let mut attributes = [0u8; 128];
        number(&mut attributes, 8, program.as_raw_fd() as u32);
        let link = descriptor(RAW_TRACEPOINT_OPEN, &mut attributes);
        links.push(link.map_err(|e| format!("attaching an empty program to type {target}: {e}"))?);
    }
    Ok(links)
}

fn load_empty(kind: u32, attach: u32, target: u32) -> io::Result<OwnedFd> {
    // r0 = 0; exit
    let instructions: [u64; 2] = [0xb7, 0x95];
    let mut attributes = [0u8; 128];
    number(&mut attributes, 0, kind);
    number(&mut attributes, 4, 2);
    address(&mut attributes, 8, instructions.as_ptr() as u64);
    address(&mut attributes, 16, c"GPL".as_ptr() as u64);
    number(&mut attributes, 68, attach);
    number(&mut attributes, 108, target);
    descriptor(PROG_LOAD, &mut attributes)
}

fn describe(link: &Path) -> io::Result<Program> {
    let path = CString::new(link.as_os_str().as_bytes())?;
    let mut attributes = [0u8; 128];
    address(&mut attributes, 0, path.as_ptr() as u64);
    let link_fd = descriptor(OBJ_GET, &mut attributes)?;
    let id = u32_at(&information(&link_fd)?, 8);
    let mut attributes = [0u8; 128];
    number(&mut attributes, 0, id);
    let information = information(&descriptor(PROG_GET_FD_BY_ID, &mut attributes)?)?;
    Ok(Program {
        name: link.file_name().map(|name| name.to_string_lossy().into_owned()).unwrap_or_default(),
        kind: u32_at(&information, 0),
        machine_code: u32_at(&information, 16),
        translated: u32_at(&information, 20),
        verified: u32_at(&information, 216),
        target: u32_at(&information, 224),
        runs: [u64_at(&information, 200), u64_at(&information, 192)],
    })
}

/// Enough for `struct bpf_prog_info`; the kernel fills what it knows.
fn information(of: &OwnedFd) -> io::Result<[u8; 232]> {
    let mut information = [0u8; 232];
    let mut attributes = [0u8; 128];
    number(&mut attributes, 0, of.as_raw_fd() as u32);
    number(&mut attributes, 4, information.len() as u32);
    address(&mut attributes, 8, information.as_mut_ptr() as u64);
    call(OBJ_GET_INFO_BY_FD, &mut attributes)?;
    Ok(information)
}

fn number(attributes: &mut [u8; 128], at: usize, value: u32) {
    attributes[at..at + 4].copy_from_slice(&value.to_ne_bytes());
}

fn address(attributes: &mut [u8; 128], at: usize, value: u64) {
    attributes[at..at + 8].copy_from_slice(&value.to_ne_bytes());
}

fn u32_at(bytes: &[u8], at: usize) -> u32 {
    bytes.get(at..at + 4).and_then(|four| four.try_into().ok()).map_or(0, u32::from_ne_bytes)
}

fn u64_at(bytes: &[u8], at: usize) -> u64 {
    u64::from(u32_at(bytes, at)) | u64::from(u32_at(bytes, at + 4)) << 32
}

fn descriptor(command: i32, attributes: &mut [u8; 128]) -> io::Result<OwnedFd> {
    let fd = call(command, attributes)?;
    // SAFETY: the kernel has just made it for this call, and nothing else knows it.
    Ok(unsafe { OwnedFd::from_raw_fd(fd) })
}

fn call(command: i32, attributes: &mut [u8; 128]) -> io::Result<i32> {
    // SAFETY: the attributes are as long as is said, and what they point to lives until the call is over.
    let result = unsafe { libc::syscall(libc::SYS_bpf, command, attributes.as_mut_ptr(), attributes.len()) };
    if result < 0 { Err(io::Error::last_os_error()) } else { Ok(result as i32) }
}
