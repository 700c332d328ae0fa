//! System calls by a ring: each act makes a ring, hands in one entry, and says what its completion says.
//!
//! `ring-OPERATION ARG…` performs it inline; `ring-OPERATION+async` in a worker thread, and
//! `ring-OPERATION+poll` in the kernel thread of a ring that is polled.

use super::{
    Args,
    sys::{self, fd, open, sys},
};
use std::{
    ffi::{CStr, OsString},
    io,
    os::fd::{AsRawFd, OwnedFd},
    sync::atomic::{AtomicU32, Ordering},
};

/// How the entry is worked on.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Way {
    Inline,
    Async,
    Polled,
}

const HERE: i32 = libc::AT_FDCWD;

// include/uapi/linux/io_uring.h
const SENDMSG: u8 = 9;
const CONNECT: u8 = 16;
const OPENAT: u8 = 18;
const OPENAT2: u8 = 28;
const RENAMEAT: u8 = 35;
const UNLINKAT: u8 = 36;
const MKDIRAT: u8 = 37;
const SYMLINKAT: u8 = 38;
const LINKAT: u8 = 39;
const FSETXATTR: u8 = 41;
const SETXATTR: u8 = 42;
const SOCKET: u8 = 45;
const URING_CMD: u8 = 46;
const FTRUNCATE: u8 = 55;
const BIND: u8 = 56;
const LISTEN: u8 = 57;

/// `struct io_uring_sqe`, as far as it is filled in here.
#[derive(Clone, Copy, Default)]
#[repr(C)]
struct Entry {
    opcode: u8,
    flags: u8,
    priority: u16,
    fd: i32,
    off: u64,
    addr: u64,
    len: u32,
    op_flags: u32,
    user_data: u64,
    buffer: u16,
    personality: u16,
    file_index: u32,
    addr3: u64,
    padding: u64,
}

const _: () = assert!(size_of::<Entry>() == 64);

/// What is performed, by its name after `ring-` and before `+`.
pub(super) fn act(name: &str, arguments: &[OsString]) -> Option<io::Result<()>> {
    let rest = name.strip_prefix("ring-")?;
    let (operation, way) = match rest.split_once('+') {
        None => (rest, Way::Inline),
        Some((operation, "async")) => (operation, Way::Async),
        Some((operation, "poll")) => (operation, Way::Polled),
        Some(_) => return None,
    };
    let args = Args(arguments);
    Some(match operation {
        "open" => with_path(&args, way, |entry| (entry.opcode, entry.fd) = (OPENAT, HERE)),
        "open2" => open2(&args, way),
        "open-slot" => open_slot(&args, way),
        "create" => with_path(&args, way, |entry| {
            (entry.opcode, entry.fd, entry.len) = (OPENAT, HERE, 0o644);
            entry.op_flags = (libc::O_CREAT | libc::O_EXCL | libc::O_WRONLY) as u32;
        }),
        "unlink" => with_path(&args, way, |entry| (entry.opcode, entry.fd) = (UNLINKAT, HERE)),
        "mkdir" => with_path(&args, way, |entry| {
            (entry.opcode, entry.fd, entry.len) = (MKDIRAT, HERE, 0o755);
        }),
        "symlink" => with_two(&args, way, |entry| (entry.opcode, entry.fd) = (SYMLINKAT, HERE)),
        "rename" => with_two(&args, way, |entry| {
            (entry.opcode, entry.fd, entry.len) = (RENAMEAT, HERE, HERE as u32);
        }),
        "link" => with_two(&args, way, |entry| {
            (entry.opcode, entry.fd, entry.len) = (LINKAT, HERE, HERE as u32);
        }),
        "setxattr" => set_attribute(&args, way, 0),
        "setxattr-as" => set_attribute_as(&args, way, || Ok(())),
        // `… PATH MADE GO`: the ring is there before MADE is, and used when GO is.
        "setxattr-late" => set_attribute_as(&args, way, || {
            std::fs::write(args.word(1)?, "")?;
            super::wait_for_file(args.word(2)?, 600)
        }),
        "fsetxattr" => set_attribute_of_open(&args, way),
        "ftruncate" => truncate(&args, way),
        "connect" => connect(&args, way),
        "sendmsg" => send_message(&args, way),
        "send-fastopen" => send_fast(&args, way),
        "socket" => socket(&args, way),
        "bind" => bind(&args, way),
        "listen" => listen(way),
        "socket-option" => socket_option(way),
        _ => return None,
    })
}

fn with_path(args: &Args<'_>, way: Way, fill: impl FnOnce(&mut Entry)) -> io::Result<()> {
    let path = args.text(0)?;
    let mut entry = Entry { addr: path.as_ptr() as u64, ..Entry::default() };
    fill(&mut entry);
    done(way, entry)
}

fn with_two(args: &Args<'_>, way: Way, fill: impl FnOnce(&mut Entry)) -> io::Result<()> {
    let (from, to) = (args.text(0)?, args.text(1)?);
    let mut entry = Entry { addr: from.as_ptr() as u64, off: to.as_ptr() as u64, ..Entry::default() };
    fill(&mut entry);
    done(way, entry)
}

fn open2(args: &Args<'_>, way: Way) -> io::Result<()> {
    // struct open_how
    let how = [0u64; 3];
    with_path(args, way, |entry| {
        (entry.opcode, entry.fd, entry.len, entry.off) = (OPENAT2, HERE, 24, how.as_ptr() as u64);
    })
}

/// Opens into a slot of the ring, so that there is never a descriptor.
fn open_slot(args: &Args<'_>, way: Way) -> io::Result<()> {
    const REGISTER_FILES: i32 = 2;
    let path = args.text(0)?;
    let ring = Ring::new(way)?;
    let slots = (-1i32).to_ne_bytes();
    sys!(SYS_io_uring_register, &ring.fd, REGISTER_FILES, &slots[..], 1)?;
    let entry =
        Entry { opcode: OPENAT, fd: HERE, addr: path.as_ptr() as u64, file_index: 1, ..Entry::default() };
    ring.perform(entry).map(drop)
}

const NAME: &CStr = c"user.probe";

fn set_attribute(args: &Args<'_>, way: Way, personality: u16) -> io::Result<()> {
    let path = args.text(0)?;
    done(way, attribute(&path, personality))
}

fn attribute(path: &CStr, personality: u16) -> Entry {
    Entry {
        opcode: SETXATTR,
        addr: NAME.as_ptr() as u64,
        off: c"1".as_ptr() as u64,
        len: 1,
        addr3: path.as_ptr() as u64,
        personality,
        ..Entry::default()
    }
}

/// With credentials that the ring was given before this process's own changed.
fn set_attribute_as(args: &Args<'_>, way: Way, wait: impl FnOnce() -> io::Result<()>) -> io::Result<()> {
    const REGISTER_PERSONALITY: i32 = 9;
    let path = args.text(0)?;
    sys::in_child(|| {
        let ring = Ring::new(way)?;
        let personality = sys!(SYS_io_uring_register, &ring.fd, REGISTER_PERSONALITY, 0, 0)?;
        sys!(SYS_setresgid, -1, 1000, -1)?;
        wait()?;
        ring.perform(attribute(&path, personality as u16)).map(drop)
    })
}

fn set_attribute_of_open(args: &Args<'_>, way: Way) -> io::Result<()> {
    let file = open(&args.text(0)?, libc::O_RDONLY, 0)?;
    let (name, value) = (NAME.as_ptr() as u64, c"1".as_ptr() as u64);
    let fd = file.as_raw_fd();
    done(way, Entry { opcode: FSETXATTR, fd, addr: name, off: value, len: 1, ..Entry::default() })
}

fn truncate(args: &Args<'_>, way: Way) -> io::Result<()> {
    let file = open(&args.text(0)?, libc::O_WRONLY, 0)?;
    done(way, Entry { opcode: FTRUNCATE, fd: file.as_raw_fd(), off: 1, ..Entry::default() })
}

fn stream(family: i32) -> io::Result<OwnedFd> {
    fd!(SYS_socket, family, libc::SOCK_STREAM | libc::SOCK_CLOEXEC, 0)
}

fn connect(args: &Args<'_>, way: Way) -> io::Result<()> {
    let to = super::net::given(args, 0)?;
    let socket = stream(super::net::family_of(&to))?;
    let (addr, off) = (to.as_ptr() as u64, to.len() as u64);
    done(way, Entry { opcode: CONNECT, fd: socket.as_raw_fd(), addr, off, ..Entry::default() })
}

/// A message whose address and content outlive the act.
fn message(to: &mut [u8], vector: &mut libc::iovec) -> libc::msghdr {
    let mut message: libc::msghdr = sys::zeroed();
    (message.msg_name, message.msg_namelen) = (to.as_mut_ptr().cast(), to.len() as u32);
    (message.msg_iov, message.msg_iovlen) = (vector, 1);
    message
}

fn send_message(args: &Args<'_>, way: Way) -> io::Result<()> {
    let mut to = super::net::given(args, 0)?;
    let socket = fd!(SYS_socket, super::net::family_of(&to), libc::SOCK_DGRAM | libc::SOCK_CLOEXEC, 0)?;
    let mut vector = libc::iovec { iov_base: c"x".as_ptr().cast_mut().cast(), iov_len: 1 };
    let message = message(&mut to, &mut vector);
    let addr = (&raw const message) as u64;
    done(way, Entry { opcode: SENDMSG, fd: socket.as_raw_fd(), addr, len: 1, ..Entry::default() })
}

/// TCP Fast Open: connects by sending.
fn send_fast(args: &Args<'_>, way: Way) -> io::Result<()> {
    let mut to = super::net::given(args, 0)?;
    let socket = stream(super::net::family_of(&to))?;
    let mut vector = libc::iovec { iov_base: c"x".as_ptr().cast_mut().cast(), iov_len: 1 };
    let message = message(&mut to, &mut vector);
    let (addr, op_flags) = ((&raw const message) as u64, libc::MSG_FASTOPEN as u32);
    let fd = socket.as_raw_fd();
    done(way, Entry { opcode: SENDMSG, fd, addr, len: 1, op_flags, ..Entry::default() })
}

/// `ring-socket FAMILY TYPE PROTOCOL`
fn socket(args: &Args<'_>, way: Way) -> io::Result<()> {
    let (fd, off, len) = (args.number(0)?, args.number(1)?, args.number_or(2, 0)?);
    done(way, Entry { opcode: SOCKET, fd, off, len, ..Entry::default() })
}

fn bind(args: &Args<'_>, way: Way) -> io::Result<()> {
    let at = super::net::given(args, 0)?;
    let socket = stream(super::net::family_of(&at))?;
    let (addr, off) = (at.as_ptr() as u64, at.len() as u64);
    done(way, Entry { opcode: BIND, fd: socket.as_raw_fd(), addr, off, ..Entry::default() })
}

/// Of a socket that was not bound.
fn listen(way: Way) -> io::Result<()> {
    let socket = stream(libc::AF_INET)?;
    done(way, Entry { opcode: LISTEN, fd: socket.as_raw_fd(), len: 1, ..Entry::default() })
}

/// A source route, set by a command to the socket.
fn socket_option(way: Way) -> io::Result<()> {
    const SET_OPTION: u64 = 3;
    let socket = stream(libc::AF_INET)?;
    let value = [1u8; 4];
    let entry = Entry {
        opcode: URING_CMD,
        fd: socket.as_raw_fd(),
        off: SET_OPTION,
        addr: (libc::IPPROTO_IP as u64) | (libc::IP_OPTIONS as u64) << 32,
        file_index: value.len() as u32,
        addr3: value.as_ptr() as u64,
        ..Entry::default()
    };
    done(way, entry)
}

fn done(way: Way, entry: Entry) -> io::Result<()> {
    Ring::new(way)?.perform(entry).map(drop)
}

/// Memory that is shared with the kernel until the value goes.
struct Mapping {
    at: *mut u8,
    len: usize,
}

impl Mapping {
    fn new(ring: &OwnedFd, len: usize, offset: i64) -> io::Result<Self> {
        let (protection, flags) = (libc::PROT_READ | libc::PROT_WRITE, libc::MAP_SHARED | libc::MAP_POPULATE);
        let at = sys!(SYS_mmap, 0, len, protection, flags, ring, offset)?;
        Ok(Self { at: at as *mut u8, len })
    }

    fn word(&self, offset: usize) -> &AtomicU32 {
        assert!(offset + 4 <= self.len && offset.is_multiple_of(4));
        // SAFETY: inside the mapping, aligned; what both sides change is read and written as atomics.
        unsafe { &*self.at.add(offset).cast::<AtomicU32>() }
    }
}

impl Drop for Mapping {
    fn drop(&mut self) {
        let _ = sys!(SYS_munmap, self.at as u64, self.len);
    }
}

struct Ring {
    fd: OwnedFd,
    way: Way,
    rings: Mapping,
    entries: Mapping,
    /// `struct io_uring_params`, in words.
    parameters: [u32; 30],
}

impl Ring {
    fn new(way: Way) -> io::Result<Self> {
        const SETUP_SQPOLL: u32 = 2;
        let mut bytes = [0u8; 120];
        if way == Way::Polled {
            bytes[8..12].copy_from_slice(&SETUP_SQPOLL.to_ne_bytes());
            bytes[16..20].copy_from_slice(&50u32.to_ne_bytes());
        }
        let fd = fd!(SYS_io_uring_setup, 2, &mut bytes[..])?;
        let mut parameters = [0u32; 30];
        for (word, four) in parameters.iter_mut().zip(bytes.chunks_exact(4)) {
            *word = u32::from_ne_bytes([four[0], four[1], four[2], four[3]]);
        }
        // The array of submissions and the completions: whichever ends last.
        let (submissions, completions) = (parameters[0] as usize, parameters[1] as usize);
        let ends = (parameters[16] as usize + submissions * 4, parameters[25] as usize + completions * 16);
        let rings = Mapping::new(&fd, ends.0.max(ends.1), 0)?;
        let entries = Mapping::new(&fd, submissions * size_of::<Entry>(), 0x1000_0000)?;
        Ok(Self { fd, way, rings, entries, parameters })
    }

    /// Hands in one entry and waits for its completion.
    fn perform(&self, mut entry: Entry) -> io::Result<i32> {
        const ASYNC: u8 = 1 << 4;
        const GET_EVENTS: u32 = 1;
        const WAKE: u32 = 2;
        if self.way == Way::Async {
            entry.flags |= ASYNC;
        }
        let at = |index: usize| self.parameters[index] as usize;
        let (sq_tail, sq_array, cq_head, cq_tail, cqes) = (at(11), at(16), at(20), at(21), at(25));
        // SAFETY: the first entry; the kernel looks at it when the tail has moved.
        unsafe { self.entries.at.cast::<Entry>().write_volatile(entry) };
        self.rings.word(sq_array).store(0, Ordering::Relaxed);
        let tail = self.rings.word(sq_tail);
        tail.store(tail.load(Ordering::Relaxed).wrapping_add(1), Ordering::Release);
        let flags = if self.way == Way::Polled { GET_EVENTS | WAKE } else { GET_EVENTS };
        loop {
            let submit = u32::from(self.rings.word(cq_tail).load(Ordering::Acquire) == 0);
            match sys!(SYS_io_uring_enter, &self.fd, submit, 1, flags, 0, 0) {
                Err(error) if error.raw_os_error() == Some(libc::EINTR) => {}
                Err(error) => return Err(error),
                Ok(_) => {}
            }
            let head = self.rings.word(cq_head).load(Ordering::Relaxed);
            if self.rings.word(cq_tail).load(Ordering::Acquire) == head {
                continue;
            }
            // struct io_uring_cqe: user_data, result, flags. The first of a ring that is used once.
            let result = self.rings.word(cqes + 8).load(Ordering::Relaxed) as i32;
            self.rings.word(cq_head).store(head.wrapping_add(1), Ordering::Release);
            return if result < 0 { Err(io::Error::from_raw_os_error(-result)) } else { Ok(result) };
        }
    }
}
