//! Controls of descriptors, and what they make the kernel do.

use super::{
    Act, Args,
    sys::{fd, in_child, open, sys, text},
};
use std::{
    ffi::CString,
    io,
    os::fd::{AsRawFd, OwnedFd},
};

pub(super) const ACTS: &[(&str, Act)] = &[
    ("ioctl", ioctl),
    ("socket-ioctl", socket_ioctl),
    ("pty", |_| pty(|_, _| Ok(()))),
    // `ptys-until FILE`: three at once, until the file is there.
    ("ptys-until", |a| pty(|_, _| pty(|_, _| pty(|_, _| super::wait_for(a))))),
    ("pty-ioctl", |a| pty(|_, slave| sys!(SYS_ioctl, slave, number(a, 0)?, &mut [0u8; 4096][..]).map(drop))),
    ("lease", |a| {
        let file = open(&a.text(0)?, libc::O_RDONLY, 0)?;
        sys!(SYS_fcntl, &file, libc::F_SETLEASE, 0 /* F_RDLCK */).map(drop)
    }),
    // `F_SETDELEG` (from 6.19 on), which directories have too: `struct delegation`, for reading.
    ("delegate", |a| sys!(SYS_fcntl, &open(&a.text(0)?, libc::O_RDONLY, 0)?, 1040, &[0u8; 8][..]).map(drop)),
    ("write-open", |a| open(&a.text(0)?, libc::O_WRONLY | libc::O_NONBLOCK | libc::O_NOCTTY, 0).map(drop)),
    ("socket-option", socket_option),
    ("option", option),
    ("pty-by-name", |_| pty(|_, slave| open(&name(slave)?, libc::O_RDWR | libc::O_NOCTTY, 0).map(drop))),
    ("pty-controlling", |_| pty(|_, slave| in_child(|| controlled(slave)))),
];

/// A number, in hexadecimal.
fn number(args: &Args<'_>, index: usize) -> io::Result<u32> {
    u32::from_str_radix(args.str(index)?, 16).map_err(|_| super::usage("a hexadecimal number"))
}

/// `ioctl PATH COMMAND`, on a descriptor for reading, with a buffer of zeros.
fn ioctl(args: &Args<'_>) -> io::Result<()> {
    let file = open(&args.text(0)?, libc::O_RDONLY | libc::O_NONBLOCK, 0)?;
    sys!(SYS_ioctl, &file, number(args, 1)?, &mut [0u8; 4096][..]).map(drop)
}

/// `socket-ioctl COMMAND`, about the interface `lo`.
fn socket_ioctl(args: &Args<'_>) -> io::Result<()> {
    let socket = fd!(SYS_socket, libc::AF_INET, libc::SOCK_DGRAM, 0)?;
    let mut request = [0u8; 256];
    request[..2].copy_from_slice(b"lo");
    sys!(SYS_ioctl, &socket, number(args, 0)?, &mut request[..]).map(drop)
}

/// A pseudo terminal of one's own.
fn pty(act: impl FnOnce(&OwnedFd, &OwnedFd) -> io::Result<()>) -> io::Result<()> {
    const UNLOCK: u32 = 0x4004_5431;
    const PEER: u32 = 0x5441;
    let master = open(c"/dev/ptmx", libc::O_RDWR | libc::O_NOCTTY, 0)?;
    sys!(SYS_ioctl, &master, UNLOCK, &mut [0u8; 4][..])?;
    let slave = fd!(SYS_ioctl, &master, PEER, libc::O_RDWR | libc::O_NOCTTY)?;
    act(&master, &slave)
}

/// The name by which a descriptor leads to its file.
fn name(file: &OwnedFd) -> io::Result<CString> {
    text(format!("/proc/self/fd/{}", file.as_raw_fd()).as_ref())
}

/// Opens the terminal again, by both names, as the one that controls this process.
fn controlled(terminal: &OwnedFd) -> io::Result<()> {
    sys!(SYS_setsid)?;
    sys!(SYS_ioctl, terminal, libc::TIOCSCTTY, 0)?;
    open(&name(terminal)?, libc::O_RDWR, 0)?;
    open(c"/dev/tty", libc::O_RDWR, 0).map(drop)
}

/// `option FAMILY LEVEL OPTION BYTES`, in hexadecimal, on a datagram socket.
fn option(args: &Args<'_>) -> io::Result<()> {
    let socket = fd!(SYS_socket, args.number::<i32>(0)?, libc::SOCK_DGRAM, 0)?;
    let digits = args.str(3)?;
    let byte = |at: usize| digits.get(at..at + 2).and_then(|two| u8::from_str_radix(two, 16).ok());
    let value: Option<Vec<u8>> = (0..digits.len()).step_by(2).map(byte).collect();
    let value = value.ok_or_else(|| super::usage("not bytes in hexadecimal"))?;
    sys!(SYS_setsockopt, &socket, args.number::<i32>(1)?, args.number::<i32>(2)?, &value, value.len())
        .map(drop)
}

/// `socket-option LEVEL OPTION TEXT`, on a connected TCP socket's listener or a UDP socket.
fn socket_option(args: &Args<'_>) -> io::Result<()> {
    let (level, option): (i32, i32) = (args.number(0)?, args.number(1)?);
    let kind = if level == libc::IPPROTO_UDP { libc::SOCK_DGRAM } else { libc::SOCK_STREAM };
    let socket = fd!(SYS_socket, libc::AF_INET, kind, 0)?;
    let value = args.word(2)?.as_encoded_bytes();
    sys!(SYS_setsockopt, &socket, level, option, value, value.len()).map(drop)
}
