//! Calls that change the kernel, or the machine, rather than data.

use super::{
    Act, Args,
    sys::{self, fd, open, sys},
};
use std::{io, os::fd::AsRawFd};

pub(super) const ACTS: &[(&str, Act)] = &[
    ("bpf-next-program", |_| bpf(11)),
    ("bpf-next-map", |_| bpf(12)),
    ("bpf-next-link", |_| bpf(31)),
    ("bpf-command", bpf_command),
    ("bpf-create-map", bpf_create_map),
    ("bpf-get-pin", bpf_get_pin),
    ("bpf-add-abi", bpf_add_abi),
    ("bpf-pin-other", bpf_pin_other),
    ("bpf-pin-program", bpf_pin_program),
    ("perf-event", perf_event),
    ("io-uring", io_uring),
    ("set-time-of-day", |_| sys!(SYS_settimeofday, &now()?, 0).map(drop)),
    ("clock-settime", |_| sys!(SYS_clock_settime, libc::CLOCK_REALTIME, &now()?).map(drop)),
    ("adjtimex", adjtimex),
    ("init-module", |_| sys!(SYS_init_module, &b"no module"[..], 9, c"").map(drop)),
    ("finit-module", finit_module),
    ("delete-module", |_| sys!(SYS_delete_module, c"probe_no_such_module", 0).map(drop)),
    ("kexec-load", |_| sys!(SYS_kexec_load, 0, 0, 0, 0).map(drop)),
    ("kexec-file-load", |_| sys!(SYS_kexec_file_load, -1, -1, 0, c"", 0).map(drop)),
    ("reboot", |_| sys!(SYS_reboot, 0xfee1_dead_u32, 672_274_793, 0, 0).map(drop)),
    ("iopl", |_| sys!(SYS_iopl, 3).map(drop)),
    ("ioperm", |_| sys!(SYS_ioperm, 0x80, 1, 1).map(drop)),
    ("swapon", |a| sys!(SYS_swapon, &a.text(0)?, 0).map(drop)),
    ("acct", |a| sys!(SYS_acct, &a.text(0)?).map(drop)),
    ("quotactl", quotactl),
    ("syslog", |_| sys!(SYS_syslog, 5, 0, 0).map(drop)),
    ("sethostname", |_| sys!(SYS_sethostname, c"guest", 5).map(drop)),
    ("keyctl-describe", keyctl_describe),
    ("add-key", add_key),
    ("key-own", key_own),
    ("request-key", request_key),
    ("session-to-parent", session_to_parent),
    ("unknown-hash", unknown_hash),
    ("crash", crash),
    ("prctl-name", |_| sys!(SYS_prctl, libc::PR_SET_NAME, c"probe", 0, 0, 0).map(drop)),
    ("set-stack", set_stack),
    ("raise-limit", |_| raise_limit()),
    ("userfaultfd", |_| fd!(SYS_userfaultfd, libc::O_CLOEXEC).map(drop)),
    ("fanotify", |_| fd!(SYS_fanotify_init, 0, libc::O_RDONLY).map(drop)),
    ("mlock", |_| sys!(SYS_mlockall, libc::MCL_CURRENT).map(drop)),
    ("setuid", |a| {
        sys!(SYS_setresuid, a.number::<u32>(0)?, a.number::<u32>(0)?, a.number::<u32>(0)?).map(drop)
    }),
    ("call", raw),
    ("call-each", raw_each),
    ("vhangup", |_| sys!(SYS_vhangup).map(drop)),
];

/// One of the things by which a process says what it is: where its stack begins.
fn set_stack(_: &Args<'_>) -> io::Result<()> {
    const SET_MM: i32 = 35;
    const START_STACK: u64 = 5;
    let here = 0u64;
    sys!(SYS_prctl, SET_MM, START_STACK, (&raw const here) as u64, 0, 0).map(drop)
}

/// A higher hard limit than there was, which takes `CAP_SYS_RESOURCE`.
fn raise_limit() -> io::Result<()> {
    let mut limit = [0u8; 16];
    sys!(SYS_prlimit64, 0, libc::RLIMIT_NICE, 0, &mut limit[..])?;
    let hard = u64::from_ne_bytes(limit[8..].try_into().expect("eight bytes"));
    limit[8..].copy_from_slice(&(hard + 1).to_ne_bytes());
    sys!(SYS_prlimit64, 0, libc::RLIMIT_NICE, &mut limit[..], 0).map(drop)
}

/// `BPF_*_GET_NEXT_ID` from the beginning.
fn bpf(command: i32) -> io::Result<()> {
    let mut attributes = [0u8; 128];
    sys!(SYS_bpf, command, &mut attributes[..], 128).map(drop)
}

fn bpf_create_map(_: &Args<'_>) -> io::Result<()> {
    // BPF_MAP_TYPE_ARRAY, a key and a value of four bytes, one entry.
    let mut attributes = [0u8; 128];
    for (word, value) in attributes.chunks_exact_mut(4).zip([2u32, 4, 4, 1]) {
        word.copy_from_slice(&value.to_ne_bytes());
    }
    fd!(SYS_bpf, 0, &mut attributes[..], 128).map(drop)
}

/// `bpf-get-pin PATH`
fn bpf_get_pin(args: &Args<'_>) -> io::Result<()> {
    let path = args.text(0)?;
    let mut attributes = [0u8; 128];
    attributes[..8].copy_from_slice(&(path.as_ptr() as u64).to_ne_bytes());
    fd!(SYS_bpf, 7, &mut attributes[..], 128).map(drop)
}

/// `bpf-add-abi PATH N`: adds N to the version in the pinned map META, for tests outside every agent.
fn bpf_add_abi(args: &Args<'_>) -> io::Result<()> {
    let path = args.text(0)?;
    let mut attributes = [0u8; 128];
    attributes[..8].copy_from_slice(&(path.as_ptr() as u64).to_ne_bytes());
    let map = fd!(SYS_bpf, 7, &mut attributes[..], 128)?;
    let (key, mut value) = ([0u8; 4], [0u8; 128]);
    let mut element = [0u8; 128];
    element[..4].copy_from_slice(&map.as_raw_fd().to_ne_bytes());
    element[8..16].copy_from_slice(&(key.as_ptr() as u64).to_ne_bytes());
    element[16..24].copy_from_slice(&(value.as_mut_ptr() as u64).to_ne_bytes());
    // BPF_MAP_LOOKUP_ELEM, then BPF_MAP_UPDATE_ELEM.
    sys!(SYS_bpf, 1, &mut element[..], 128)?;
    let version = i32::from_ne_bytes([value[0], value[1], value[2], value[3]]) + args.number::<i32>(1)?;
    value[..4].copy_from_slice(&version.to_ne_bytes());
    sys!(SYS_bpf, 2, &mut element[..], 128).map(drop)
}

/// `bpf-pin-other PATH BYTES FLAGS`: pins there an array of one entry of so many bytes, full of zeroes.
fn bpf_pin_other(args: &Args<'_>) -> io::Result<()> {
    let path = args.text(0)?;
    let mut attributes = [0u8; 128];
    // BPF_MAP_CREATE: BPF_MAP_TYPE_ARRAY, key, value, entries, flags.
    for (word, value) in
        attributes.chunks_exact_mut(4).zip([2u32, 4, args.number(1)?, 1, args.number_or(2, 0)?])
    {
        word.copy_from_slice(&value.to_ne_bytes());
    }
    let map = fd!(SYS_bpf, 0, &mut attributes[..], 128)?;
    let mut pin = [0u8; 128];
    pin[..8].copy_from_slice(&(path.as_ptr() as u64).to_ne_bytes());
    pin[8..12].copy_from_slice(&map.as_raw_fd().to_ne_bytes());
    // BPF_OBJ_PIN.
    sys!(SYS_bpf, 6, &mut pin[..], 128).map(drop)
}

/// `bpf-pin-program LINK PATH`: pins there the program behind a pinned link.
fn bpf_pin_program(args: &Args<'_>) -> io::Result<()> {
    let (link, path) = (args.text(0)?, args.text(1)?);
    let word = |attributes: &mut [u8; 128], at: usize, value: u64, bytes: usize| {
        attributes[at..at + bytes].copy_from_slice(&value.to_ne_bytes()[..bytes]);
    };
    let mut get = [0u8; 128];
    word(&mut get, 0, link.as_ptr() as u64, 8);
    let link = fd!(SYS_bpf, 7, &mut get[..], 128)?;
    // BPF_OBJ_GET_INFO_BY_FD: type, id of the link, id of the program.
    let (mut ask, mut info) = ([0u8; 128], [0u8; 64]);
    word(&mut ask, 0, link.as_raw_fd() as u64, 4);
    word(&mut ask, 4, info.len() as u64, 4);
    word(&mut ask, 8, info.as_mut_ptr() as u64, 8);
    sys!(SYS_bpf, 15, &mut ask[..], 128)?;
    // BPF_PROG_GET_FD_BY_ID, BPF_OBJ_PIN.
    let mut by_id = [0u8; 128];
    by_id[..4].copy_from_slice(&info[8..12]);
    let program = fd!(SYS_bpf, 13, &mut by_id[..], 128)?;
    let mut pin = [0u8; 128];
    word(&mut pin, 0, path.as_ptr() as u64, 8);
    word(&mut pin, 8, program.as_raw_fd() as u64, 4);
    sys!(SYS_bpf, 6, &mut pin[..], 128).map(drop)
}

/// Counts the context switches of another process.
fn perf_event(args: &Args<'_>) -> io::Result<()> {
    let mut attributes = [0u8; 128];
    for (word, value) in attributes.chunks_exact_mut(4).zip([1u32, 128, 3]) {
        word.copy_from_slice(&value.to_ne_bytes());
    }
    fd!(SYS_perf_event_open, &mut attributes[..], args.number_or::<i32>(0, 0)?, -1, -1, 0).map(drop)
}

fn io_uring(_: &Args<'_>) -> io::Result<()> {
    let mut parameters = [0u8; 120];
    fd!(SYS_io_uring_setup, 2, &mut parameters[..]).map(drop)
}

/// The time that it is already: harmless where it is allowed.
fn now() -> io::Result<Vec<u8>> {
    let since = std::time::UNIX_EPOCH.elapsed().map_err(|_| io::ErrorKind::Other)?;
    Ok([since.as_secs(), 0].iter().flat_map(|word| word.to_ne_bytes()).collect())
}

fn adjtimex(_: &Args<'_>) -> io::Result<()> {
    let mut state: libc::timex = sys::zeroed();
    state.modes = libc::ADJ_MAXERROR;
    state.maxerror = 16;
    let mut bytes = sys::bytes_of(&state);
    sys!(SYS_adjtimex, &mut bytes[..]).map(drop)
}

fn finit_module(_: &Args<'_>) -> io::Result<()> {
    let file = open(c"/usr/lib/enforcer-tests/probe", libc::O_RDONLY, 0)?;
    sys!(SYS_finit_module, &file, c"", 0).map(drop)
}

fn quotactl(args: &Args<'_>) -> io::Result<()> {
    // QCMD(Q_SYNC, USRQUOTA) on one device; Q_QUOTAON with no format.
    const Q_QUOTAON: i32 = 0x80_0002;
    sys!(SYS_quotactl, Q_QUOTAON << 8, &args.text(0)?, 0, c"/").map(drop)
}

/// `keyctl-describe ID`
fn keyctl_describe(args: &Args<'_>) -> io::Result<()> {
    let mut text = [0u8; 64];
    sys!(SYS_keyctl, 6, args.number::<i32>(0)?, &mut text[..], 64).map(drop)
}

/// Into its own session keyring.
fn add_key(_: &Args<'_>) -> io::Result<()> {
    sys!(SYS_add_key, c"user", c"probe", &b"x"[..], 1, -3).map(drop)
}

/// `bpf-command NUMBER`: with nothing in its attributes.
fn bpf_command(args: &Args<'_>) -> io::Result<()> {
    bpf(args.number(0)?)
}

/// Makes a key and asks about it by its number, then by its name.
fn key_own(_: &Args<'_>) -> io::Result<()> {
    let key = sys!(SYS_add_key, c"user", c"probe-own", &b"x"[..], 1, -3)?;
    sys!(SYS_keyctl, 6, key, &mut [0u8; 64][..], 64)?;
    sys!(SYS_request_key, c"user", c"probe-own", 0, 0)?;
    sys!(SYS_keyctl, 11, key, &mut [0u8; 8][..], 8).map(drop)
}

/// Asks for a key that does not exist, with something to be said to the program that would make it.
fn request_key(_: &Args<'_>) -> io::Result<()> {
    sys!(SYS_request_key, c"user", c"probe:nothing", c"said", 0).map(drop)
}

/// A child gives its parent its own session keyring.
fn session_to_parent(_: &Args<'_>) -> io::Result<()> {
    sys!(SYS_keyctl, 1, 0)?;
    sys::in_child(|| {
        sys!(SYS_keyctl, 1, 0)?;
        sys!(SYS_keyctl, 18).map(drop)
    })
}

/// Derives a key with a hash that no module has.
fn unknown_hash(_: &Args<'_>) -> io::Result<()> {
    let name = c"probe-no-such-hash";
    // struct keyctl_dh_params: three keys. struct keyctl_kdf_params: hash, other information, its length, spare.
    let mut kdf = [0u8; 56];
    kdf[..8].copy_from_slice(&(name.as_ptr() as u64).to_ne_bytes());
    sys!(SYS_keyctl, 23, &[0u8; 12][..], &mut [0u8; 16][..], 16, &kdf[..]).map(drop)
}

/// `crash [LIMIT]`: a child dies by a signal whose default is to leave its memory behind, as far as a limit of so many bytes
/// lets it.
fn crash(args: &Args<'_>) -> io::Result<()> {
    if let Ok(limit) = args.number::<u64>(0) {
        let limit: Vec<u8> = [limit; 2].iter().flat_map(|word| word.to_ne_bytes()).collect();
        sys!(SYS_prlimit64, 0, libc::RLIMIT_CORE, &limit, 0)?;
    }
    // SAFETY: the probe has one thread, so the child may do what the parent may.
    let child = sys::result(unsafe { libc::fork() }.into())?;
    if child == 0 {
        // SAFETY: ends the child at once; it has no handlers.
        unsafe { libc::abort() };
    }
    sys!(SYS_wait4, child, 0, 0, 0).map(drop)
}

/// `call NUMBER A B C`: a system call with three numbers and zeros.
fn raw(args: &Args<'_>) -> io::Result<()> {
    let [a, b, c]: [u64; 3] = [args.number(1)?, args.number(2)?, args.number(3)?];
    let made = super::sys::call(args.number(0)?, &mut [a.into(), b.into(), c.into()])?;
    // A clone that was made is another process: it must not go on with the acts.
    let number: i64 = args.number(0)?;
    if number == libc::SYS_clone && made == 0 {
        std::process::exit(0);
    }
    Ok(())
}

/// `call-each NUMBER TIMES`: a call without arguments, again and again. Ok if it never succeeded.
fn raw_each(args: &Args<'_>) -> io::Result<()> {
    let times: u32 = args.number(1)?;
    let done = (0..times).filter(|_| super::sys::call(args.number(0).unwrap_or(-1), &mut []).is_ok()).count();
    if done == 0 { Ok(()) } else { Err(io::Error::from_raw_os_error(libc::EEXIST)) }
}
