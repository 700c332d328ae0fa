//! Unix sockets, by path and by abstract name (`@name`).

use super::{
    Act, Args,
    sys::{self, fd, sys},
};
use std::{
    io,
    os::fd::{AsRawFd, OwnedFd},
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

/// Takes a descriptor that whoever connects hands over.
fn receive(args: &Args<'_>) -> io::Result<OwnedFd> {
    let name = address(args.str(0)?);
    let server = socket(libc::SOCK_STREAM)?;
    sys!(SYS_bind, &server, &name, name.len())?;
    sys!(SYS_listen, &server, 1)?;
    let peer = fd!(SYS_accept4, &server, 0, 0, libc::SOCK_CLOEXEC)?;
    let mut byte = [0u8; 1];
    let mut vector = libc::iovec { iov_base: byte.as_mut_ptr().cast(), iov_len: 1 };
    let mut control = [0u64; 8];
    let mut message: libc::msghdr = sys::zeroed();
    (message.msg_iov, message.msg_iovlen) = (&raw mut vector, 1);
    (message.msg_control, message.msg_controllen) = ((&raw mut control).cast(), size_of_val(&control));
    // SAFETY: one byte of data and 64 of control data, which outlive the call.
    sys::result(unsafe { libc::recvmsg(peer.as_raw_fd(), &raw mut message, libc::MSG_CMSG_CLOEXEC) } as i64)?;
    // struct cmsghdr: length, level and type; then the descriptor. A refused one is not there.
    if message.msg_controllen < 20 || message.msg_flags & libc::MSG_CTRUNC != 0 {
        return Err(io::Error::from_raw_os_error(libc::EPERM));
    }
    Ok(sys::owned(i64::from(control[2] as u32 as i32)))
}
