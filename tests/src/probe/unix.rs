//! Unix sockets, by path and by abstract name (`@name`).

use super::{
    Act, Args,
    sys::{self, fd, sys},
};
use crate::passing;
use std::{
    io,
    os::{
        fd::{AsRawFd, OwnedFd},
        unix::net::UnixStream,
    },
};

pub(super) const ACTS: &[(&str, Act)] = &[
    ("unix-stream", |a| connect(a, libc::SOCK_STREAM)),
    ("unix-seqpacket", |a| connect(a, libc::SOCK_SEQPACKET)),
    ("unix-dgram", send),
    ("unix-dgram-connect", |a| connect(a, libc::SOCK_DGRAM)),
    ("unix-own-stream", |a| own(a, libc::SOCK_STREAM)),
    ("unix-own-dgram", |a| own(a, libc::SOCK_DGRAM)),
    ("unix-serve", serve),
    ("unix-receive", |a| {
        let file = receive(a)?;
        sys!(SYS_read, &file, &mut [0u8; 1][..], 1).map(drop)
    }),
    ("unix-receive-only", |a| receive(a).map(drop)),
    ("unix-receive-lent", |a| receive_by_what_is_lent(a).map(drop)),
    // A process can have one such listener.
    ("unix-be-given", |a| sys::in_child(|| be_given(a))),
];

/// `struct sockaddr_un`, as long as the name.
fn address(name: &str) -> Vec<u8> {
    let mut bytes = (libc::AF_UNIX as u16).to_ne_bytes().to_vec();
    match name.strip_prefix('@') {
        Some(name) => bytes.extend([0].iter().chain(name.as_bytes())),
        None => bytes.extend(name.as_bytes().iter().chain(&[0])),
    }
    bytes
}

fn socket(kind: i32) -> io::Result<OwnedFd> {
    fd!(SYS_socket, libc::AF_UNIX, kind | libc::SOCK_CLOEXEC, 0)
}

fn connect(args: &Args<'_>, kind: i32) -> io::Result<()> {
    let to = address(args.str(0)?);
    sys!(SYS_connect, &socket(kind)?, &to, to.len()).map(drop)
}

fn send(args: &Args<'_>) -> io::Result<()> {
    let to = address(args.str(0)?);
    sys!(SYS_sendto, &socket(libc::SOCK_DGRAM)?, &b"probe"[..], 5, 0, &to, to.len()).map(drop)
}

/// Binds a name of its own and reaches it.
fn own(args: &Args<'_>, kind: i32) -> io::Result<()> {
    let name = address(args.str(0)?);
    let server = socket(kind)?;
    sys!(SYS_bind, &server, &name, name.len())?;
    if kind == libc::SOCK_STREAM {
        sys!(SYS_listen, &server, 1)?;
        return connect(args, kind);
    }
    send(args)
}

/// Listens until the process ends.
fn serve(args: &Args<'_>) -> io::Result<()> {
    let name = address(args.str(0)?);
    let server = socket(libc::SOCK_STREAM)?;
    sys!(SYS_bind, &server, &name, name.len())?;
    sys!(SYS_listen, &server, 8)?;
    std::mem::forget(server);
    Ok(())
}

/// Whoever connects to a name of our own.
fn visitor(args: &Args<'_>) -> io::Result<OwnedFd> {
    let name = address(args.str(0)?);
    let server = socket(libc::SOCK_STREAM)?;
    sys!(SYS_bind, &server, &name, name.len())?;
    sys!(SYS_listen, &server, 1)?;
    fd!(SYS_accept4, &server, 0, 0, libc::SOCK_CLOEXEC)
}

/// Takes a descriptor that whoever connects hands over.
fn receive(args: &Args<'_>) -> io::Result<OwnedFd> {
    passing::take(&visitor(args)?)
}

/// The same by one end of a pair of sockets made here, which is lent for it.
fn receive_by_what_is_lent(args: &Args<'_>) -> io::Result<OwnedFd> {
    let (kept, lent) = UnixStream::pair()?;
    passing::give(&visitor(args)?, lent.as_raw_fd())?;
    drop(lent);
    passing::take(&kept)
}

/// Has a descriptor put among its own: a filter of its own stops one of its calls, and whoever connects gets what answers.
fn be_given(args: &Args<'_>) -> io::Result<()> {
    const STOPPED: libc::c_long = libc::SYS_getpgrp;
    // linux/filter.h: load the call's number; unless it is that one, skip; `SECCOMP_RET_USER_NOTIF`; `SECCOMP_RET_ALLOW`.
    let program = [0x20, 0x0100_0015 | (STOPPED as u64) << 32, 0x7fc0_0000_0000_0006, 0x7fff_0000_0000_0006];
    let filter: Vec<u8> =
        [program.len() as u64, program.as_ptr() as u64].into_iter().flat_map(u64::to_ne_bytes).collect();
    let visitor = visitor(args)?;
    sys!(SYS_prctl, libc::PR_SET_NO_NEW_PRIVS, 1, 0, 0, 0)?;
    let listener =
        fd!(SYS_seccomp, libc::SECCOMP_SET_MODE_FILTER, libc::SECCOMP_FILTER_FLAG_NEW_LISTENER, &filter)?;
    passing::give(&visitor, listener.as_raw_fd())?;
    drop(listener);
    sys!(SYS_getpgrp).map(drop)
}
