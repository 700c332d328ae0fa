//! Descriptors over Unix sockets, the two questions about a peer that nix does not ask, and the size of a
//! terminal.
//!
//! One of the two files with `unsafe`: descriptors that the kernel hands out as numbers become owned here.

use nix::{
    errno::Errno,
    fcntl::{FcntlArg, FdFlag, fcntl},
    pty::Winsize,
    sys::socket::{ControlMessage, MsgFlags, recv, recvmsg, sendmsg},
};
use std::{
    io::{self, IoSlice, IoSliceMut},
    mem::MaybeUninit,
    os::fd::{AsFd, AsRawFd, BorrowedFd, FromRawFd, OwnedFd, RawFd},
};
use tokio::io::{Interest, unix::AsyncFd};

/// Descriptors that one message may carry: standard input, output and error, and one order.
pub const MAXIMUM: usize = 4;

/// Words of control data for [`MAXIMUM`] descriptors: a header of two words, two descriptors in each.
const CONTROL: usize = 2 + MAXIMUM.div_ceil(2);

/// What one read brought.
#[derive(Debug)]
pub struct Received {
    /// How many bytes; 0 is the end.
    pub bytes: usize,
    /// The descriptors beside them, close-on-exec.
    pub fds: Vec<OwnedFd>,
    /// More descriptors were sent than [`MAXIMUM`]; the kernel has closed the others.
    pub cut: bool,
}

/// Reads bytes and the descriptors beside them.
///
/// nix gives no access to the descriptors of a message that the kernel has cut, and they would stay open
/// for ever.
pub fn receive(socket: BorrowedFd<'_>, buffer: &mut [u8]) -> io::Result<Received> {
    let mut part = libc::iovec { iov_base: buffer.as_mut_ptr().cast(), iov_len: buffer.len() };
    // As 64-bit words, because the kernel writes `struct cmsghdr`s, which are aligned so.
    let mut space = [0u64; CONTROL];
    // SAFETY: all-zero is a valid `msghdr`: no name, no parts, no control data.
    let mut message: libc::msghdr = unsafe { std::mem::zeroed() };
    message.msg_iov = &mut part;
    message.msg_iovlen = 1;
    message.msg_control = space.as_mut_ptr().cast();
    message.msg_controllen = size_of_val(&space) as _;
    // SAFETY: `message` points to `part`, which covers `buffer`, and to `space`, each with its true length;
    // all outlive the call, and the kernel writes at most those lengths (recvmsg(2)).
    let result = unsafe {
        libc::recvmsg(socket.as_raw_fd(), &mut message, libc::MSG_CMSG_CLOEXEC | libc::MSG_DONTWAIT)
    };
    let bytes = Errno::result(result)? as usize;
    let mut fds = Vec::new();
    // SAFETY: the CMSG macros walk the `msg_controllen` bytes of control data that the kernel has written
    // and return null at their end; each header lies in `space`. Its data are `cmsg_len - CMSG_LEN(0)` bytes
    // of descriptors (unix(7), SCM_RIGHTS), which the kernel has installed for this process just now, and
    // each is taken exactly once. They are read unaligned, since only the header's alignment is certain.
    unsafe {
        let mut header = libc::CMSG_FIRSTHDR(&message);
        while let Some(control) = header.as_ref() {
            if (control.cmsg_level, control.cmsg_type) == (libc::SOL_SOCKET, libc::SCM_RIGHTS) {
                let length = control.cmsg_len - libc::CMSG_LEN(0) as usize;
                let data = libc::CMSG_DATA(header).cast::<RawFd>();
                for index in 0..length / size_of::<RawFd>() {
                    fds.push(OwnedFd::from_raw_fd(data.add(index).read_unaligned()));
                }
            }
            header = libc::CMSG_NXTHDR(&message, header);
        }
    }
    Ok(Received { bytes, fds, cut: message.msg_flags & libc::MSG_CTRUNC != 0 })
}

/// Reads bytes that stay in the socket, and so do the descriptors beside them. Where some stand in the way, what lies behind
/// them is not seen (`unix_stream_read_generic()`, net/unix/af_unix.c).
pub fn look(socket: BorrowedFd<'_>, buffer: &mut [u8]) -> io::Result<usize> {
    Ok(recv(socket.as_raw_fd(), buffer, MsgFlags::MSG_PEEK | MsgFlags::MSG_DONTWAIT)?)
}

/// The same, and whether something stands beside these bytes: descriptors, which are not taken either.
pub fn look_beside(socket: BorrowedFd<'_>, buffer: &mut [u8]) -> io::Result<(usize, bool)> {
    let flags = MsgFlags::MSG_PEEK | MsgFlags::MSG_DONTWAIT;
    let mut room = [IoSliceMut::new(buffer)];
    let message = recvmsg::<()>(socket.as_raw_fd(), &mut room, None, flags)?;
    // Without room for them that is all that is said (`scm_recv()`, include/net/scm.h).
    Ok((message.bytes, message.flags.contains(MsgFlags::MSG_CTRUNC)))
}

/// Sends bytes with descriptors beside them, and says how many bytes went. The descriptors go with the
/// first byte, so a caller that has to send the rest sends it without them.
pub fn send(socket: BorrowedFd<'_>, bytes: &[u8], fds: &[BorrowedFd<'_>]) -> io::Result<usize> {
    let numbers: Vec<RawFd> = fds.iter().map(AsRawFd::as_raw_fd).collect();
    let rights = [ControlMessage::ScmRights(&numbers)];
    let control: &[ControlMessage<'_>] = if fds.is_empty() { &[] } else { &rights };
    let sent =
        sendmsg::<()>(socket.as_raw_fd(), &[IoSlice::new(bytes)], control, MsgFlags::MSG_NOSIGNAL, None)?;
    Ok(sent)
}

/// Sends all bytes on a blocking socket, with descriptors beside the first.
pub fn send_all(socket: BorrowedFd<'_>, bytes: &[u8], fds: &[BorrowedFd<'_>]) -> io::Result<()> {
    let (mut sent, mut fds) = (0, fds);
    while sent < bytes.len() {
        match send(socket, &bytes[sent..], fds) {
            Ok(n) => {
                sent += n;
                fds = &[];
            }
            Err(e) if e.kind() == io::ErrorKind::Interrupted => {}
            Err(e) => return Err(e),
        }
    }
    Ok(())
}

/// The supplementary groups of the process that connected, as they were then: unlike a look at /proc,
/// this cannot meet another process that has taken over the number.
pub fn peer_groups(socket: BorrowedFd<'_>) -> io::Result<Vec<u32>> {
    // NGROUPS_MAX, include/uapi/linux/limits.h, is 65536; nearly everybody has fewer than 64.
    let mut room = 64usize;
    loop {
        let mut groups = vec![0u32; room];
        let mut length = (room * size_of::<u32>()) as libc::socklen_t;
        // SAFETY: `groups` is valid for writes of `length` bytes, which is its size, and the kernel
        // writes at most that many (sk_getsockopt(), net/core/sock.c); `length` outlives the call.
        let result = unsafe {
            libc::getsockopt(
                socket.as_raw_fd(),
                libc::SOL_SOCKET,
                libc::SO_PEERGROUPS,
                groups.as_mut_ptr().cast(),
                &mut length,
            )
        };
        match Errno::result(result) {
            Ok(_) => {
                groups.truncate(length as usize / size_of::<u32>());
                return Ok(groups);
            }
            Err(Errno::ERANGE) if room < 65_536 => room = 65_536,
            Err(e) => return Err(e.into()),
        }
    }
}

/// A descriptor for the process that connected, which stays its even when the number is used again.
/// `None` before Linux 6.5.
pub fn peer_process(socket: BorrowedFd<'_>) -> io::Result<Option<OwnedFd>> {
    /// include/uapi/asm-generic/socket.h
    const SO_PEERPIDFD: libc::c_int = 77;
    let mut fd = MaybeUninit::<libc::c_int>::uninit();
    let mut length = size_of::<libc::c_int>() as libc::socklen_t;
    // SAFETY: `fd` is valid for writes of `length` bytes; both outlive the call.
    let result = unsafe {
        libc::getsockopt(
            socket.as_raw_fd(),
            libc::SOL_SOCKET,
            SO_PEERPIDFD,
            fd.as_mut_ptr().cast(),
            &mut length,
        )
    };
    match Errno::result(result) {
        // SAFETY: on success the kernel has written a new descriptor that nobody else owns.
        Ok(_) => Ok(Some(unsafe { OwnedFd::from_raw_fd(fd.assume_init()) })),
        Err(Errno::ENOPROTOOPT) => Ok(None),
        Err(e) => Err(e.into()),
    }
}

/// The size of a terminal.
pub fn window_size(terminal: BorrowedFd<'_>) -> Option<Winsize> {
    let mut size = MaybeUninit::<Winsize>::zeroed();
    // SAFETY: TIOCGWINSZ writes one `struct winsize` (ioctl_tty(2)) to memory that is valid for it.
    let result = unsafe { libc::ioctl(terminal.as_raw_fd(), libc::TIOCGWINSZ, size.as_mut_ptr()) };
    // SAFETY: `winsize` is four integers, for which zeroed memory is valid, written or not.
    Errno::result(result).ok().map(|_| unsafe { size.assume_init() })
}

/// Sets the size of a terminal. One that has gone has none.
pub fn set_window_size(terminal: BorrowedFd<'_>, size: &Winsize) {
    // SAFETY: TIOCSWINSZ reads one `struct winsize` (ioctl_tty(2)) from memory that is valid for it.
    unsafe { libc::ioctl(terminal.as_raw_fd(), libc::TIOCSWINSZ, std::ptr::from_ref(size)) };
}

/// Lets a descriptor end with this program.
pub fn close_on_exec(fd: BorrowedFd<'_>) -> io::Result<()> {
    fcntl(fd, FcntlArg::F_SETFD(FdFlag::FD_CLOEXEC))?;
    Ok(())
}

/// A descriptor that the event loop watches for something to read.
pub fn watch(fd: OwnedFd) -> io::Result<AsyncFd<OwnedFd>> {
    // SAFETY: an `OwnedFd` stays open and the same until it is dropped, and the `AsyncFd` owns it.
    let watched = unsafe { AsyncFd::register_with_interest(fd, Interest::READABLE) };
    watched.map_err(io::Error::from)
}

/// A second owner of a descriptor that somebody else keeps open, close-on-exec.
pub fn duplicate_raw(fd: RawFd) -> io::Result<OwnedFd> {
    // SAFETY: fcntl(2) with F_DUPFD_CLOEXEC touches no memory; a number that is not open is an error.
    let new = Errno::result(unsafe { libc::fcntl(fd, libc::F_DUPFD_CLOEXEC, 3) })?;
    // SAFETY: the kernel has just made this descriptor, and nobody else knows its number.
    Ok(unsafe { OwnedFd::from_raw_fd(new) })
}

/// A second owner of a descriptor, close-on-exec.
pub fn duplicate(fd: impl AsFd) -> io::Result<OwnedFd> {
    fd.as_fd().try_clone_to_owned()
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::{fs::File, io::Read, os::unix::net::UnixStream};

    #[test]
    fn descriptors_arrive_with_their_bytes() {
        let (a, b) = UnixStream::pair().expect("pair");
        let (reader, writer) = nix::unistd::pipe().expect("pipe");
        send_all(a.as_fd(), b"hello", &[writer.as_fd()]).expect("send");
        drop(writer);
        let mut buffer = [0; 16];
        let received = receive(b.as_fd(), &mut buffer).expect("receive");
        assert_eq!((received.bytes, received.fds.len(), received.cut), (5, 1, false));
        nix::unistd::write(&received.fds[0], b"x").expect("write");
        drop(received);
        let mut text = String::new();
        File::from(reader).read_to_string(&mut text).expect("read");
        assert_eq!(text, "x");
    }

    #[test]
    fn too_many_descriptors_are_noticed_and_none_stays_open() {
        let open = || {
            std::fs::read_dir("/proc/self/fd")
                .expect("fds")
                .flatten()
                .filter(|fd| {
                    std::fs::read_link(fd.path())
                        .is_ok_and(|target| target.ends_with("enforcer-common/src/limits.rs"))
                })
                .count()
        };
        let (a, b) = UnixStream::pair().expect("pair");
        let path = concat!(env!("CARGO_MANIFEST_DIR"), "/../enforcer-common/src/limits.rs");
        let file = File::open(path).expect("a file");
        send_all(a.as_fd(), b"x", &[file.as_fd(); 7]).expect("send");
        let received = receive(b.as_fd(), &mut [0; 16]).expect("receive");
        assert!(received.cut && received.fds.len() == MAXIMUM);
        drop(received);
        assert_eq!(open(), 1);
    }

    #[test]
    fn the_peer_of_a_pair_is_this_process() {
        let (a, _b) = UnixStream::pair().expect("pair");
        let mut expected: Vec<u32> =
            nix::unistd::getgroups().expect("groups").into_iter().map(nix::unistd::Gid::as_raw).collect();
        let mut groups = peer_groups(a.as_fd()).expect("groups");
        expected.sort_unstable();
        groups.sort_unstable();
        assert_eq!(groups, expected);
        assert!(peer_process(a.as_fd()).is_ok());
    }
}
