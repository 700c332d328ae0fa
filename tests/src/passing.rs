//! Descriptors through unix sockets (`SCM_RIGHTS`, unix(7)), as both sides of a promise use them.

use std::{
    io,
    os::fd::{AsRawFd, FromRawFd, OwnedFd, RawFd},
};

/// Sends one byte and a descriptor.
pub fn give(socket: &impl AsRawFd, descriptor: RawFd) -> io::Result<()> {
    // struct cmsghdr (length, level, type), the descriptor, padding.
    let mut control =
        [20, u64::from(libc::SOL_SOCKET as u32) | (libc::SCM_RIGHTS as u64) << 32, descriptor as u64];
    let mut byte = [b'x'];
    let mut vector = libc::iovec { iov_base: byte.as_mut_ptr().cast(), iov_len: 1 };
    // SAFETY: all zero is an empty message.
    let mut message: libc::msghdr = unsafe { std::mem::zeroed() };
    (message.msg_iov, message.msg_iovlen) = (&raw mut vector, 1);
    (message.msg_control, message.msg_controllen) = ((&raw mut control).cast(), size_of_val(&control));
    // SAFETY: data and control data outlive the call and are only read.
    if unsafe { libc::sendmsg(socket.as_raw_fd(), &raw const message, libc::MSG_NOSIGNAL) } < 0 {
        return Err(io::Error::last_os_error());
    }
    Ok(())
}

/// Waits for a byte, or the end, and takes the descriptor that comes with it. One that the kernel refused to hand over is
/// not there, without an error; that is `EPERM` here.
pub fn take(socket: &impl AsRawFd) -> io::Result<OwnedFd> {
    let mut byte = [0u8; 1];
    let mut vector = libc::iovec { iov_base: byte.as_mut_ptr().cast(), iov_len: 1 };
    let mut control = [0u64; 8];
    // SAFETY: all zero is an empty message.
    let mut message: libc::msghdr = unsafe { std::mem::zeroed() };
    (message.msg_iov, message.msg_iovlen) = (&raw mut vector, 1);
    (message.msg_control, message.msg_controllen) = ((&raw mut control).cast(), size_of_val(&control));
    // SAFETY: one byte of data and 64 of control data, which outlive the call.
    if unsafe { libc::recvmsg(socket.as_raw_fd(), &raw mut message, libc::MSG_CMSG_CLOEXEC) } < 0 {
        return Err(io::Error::last_os_error());
    }
    // struct cmsghdr: length, level and type; then the descriptor.
    if message.msg_controllen < 20 || message.msg_flags & libc::MSG_CTRUNC != 0 {
        return Err(io::Error::from_raw_os_error(libc::EPERM));
    }
    // SAFETY: the kernel has just made it and nobody else knows its number.
    Ok(unsafe { OwnedFd::from_raw_fd(control[2] as u32 as RawFd) })
}

/// Makes closing a connection wait so many seconds for what nobody has read (`SO_LINGER`, socket(7)).
pub fn linger(stream: &impl AsRawFd, seconds: i32) -> io::Result<()> {
    set(stream, libc::SO_LINGER, &libc::linger { l_onoff: 1, l_linger: seconds })
}

/// Lets little wait in a socket, both ways.
pub fn narrow(socket: &impl AsRawFd) -> io::Result<()> {
    const LITTLE: i32 = 4096;
    set(socket, libc::SO_RCVBUF, &LITTLE)?;
    set(socket, libc::SO_SNDBUF, &LITTLE)
}

fn set<T>(socket: &impl AsRawFd, option: i32, value: &T) -> io::Result<()> {
    let length = size_of::<T>() as libc::socklen_t;
    // SAFETY: the kernel reads the value, which outlives the call, and no more than its length.
    let result = unsafe {
        libc::setsockopt(socket.as_raw_fd(), libc::SOL_SOCKET, option, (&raw const *value).cast(), length)
    };
    if result < 0 { Err(io::Error::last_os_error()) } else { Ok(()) }
}
