//! Servers outside every agent, which count what reaches them.

use std::{
    fs, io,
    net::{Ipv4Addr, Ipv6Addr, SocketAddr, TcpListener, UdpSocket},
    os::{
        fd::AsRawFd,
        linux::net::SocketAddrExt,
        unix::net::{SocketAddr as UnixAddr, UnixDatagram, UnixListener, UnixStream},
    },
    sync::{
        Arc,
        atomic::{AtomicU64, Ordering},
    },
    thread,
    time::Duration,
};

/// A counter of connections and packets.
#[derive(Clone, Default)]
pub struct Arrivals(Arc<AtomicU64>);

impl Arrivals {
    fn add(&self) {
        self.0.fetch_add(1, Ordering::SeqCst);
    }

    /// How many have come. What was sent on this host before is in a queue already: a moment is enough.
    pub fn count(&self) -> u64 {
        thread::sleep(Duration::from_millis(300));
        self.0.load(Ordering::SeqCst)
    }
}

/// A port on every address of the host, for TCP and UDP over IPv4 and IPv6.
pub struct Port {
    /// Its number.
    pub number: u16,
    /// What has come.
    pub arrivals: Arrivals,
}

impl Port {
    /// Opens a port that is free for all four.
    pub fn open() -> io::Result<Self> {
        for number in 20_000..21_000 {
            match Self::at(number) {
                Err(error) if error.kind() == io::ErrorKind::AddrInUse => {}
                result => return result,
            }
        }
        Err(io::ErrorKind::AddrInUse.into())
    }

    fn at(number: u16) -> io::Result<Self> {
        // One dual socket each: `::` takes IPv4 as well.
        let all: SocketAddr = (Ipv6Addr::UNSPECIFIED, number).into();
        let (tcp, udp) = (TcpListener::bind(all)?, UdpSocket::bind(all)?);
        let arrivals = Arrivals::default();
        let counter = arrivals.clone();
        thread::spawn(move || {
            for stream in tcp.incoming() {
                if stream.is_ok() {
                    counter.add();
                }
            }
        });
        let counter = arrivals.clone();
        thread::spawn(move || {
            let mut packet = [0u8; 64];
            while udp.recv(&mut packet).is_ok() {
                counter.add();
            }
        });
        Ok(Self { number, arrivals })
    }

    /// A port that nobody has, for binding.
    pub fn unused() -> io::Result<u16> {
        Ok(TcpListener::bind((Ipv4Addr::UNSPECIFIED, 0))?.local_addr()?.port())
    }
}

/// Connects to the abstract socket `name` and hands over a file that was opened here.
pub fn hand_over(name: &str, path: &str) -> io::Result<()> {
    hand_over_descriptor(name, &fs::File::open(path)?)
}

/// As [`hand_over`], of anything that is open here.
pub fn hand_over_descriptor(name: &str, file: &impl AsRawFd) -> io::Result<()> {
    let socket = UnixStream::connect_addr(&UnixAddr::from_abstract_name(name)?)?;
    // struct cmsghdr (length, level, type), the descriptor, padding.
    let mut control =
        [20, u64::from(libc::SOL_SOCKET as u32) | (libc::SCM_RIGHTS as u64) << 32, file.as_raw_fd() as u64];
    let mut byte = [b'x'];
    let mut vector = libc::iovec { iov_base: byte.as_mut_ptr().cast(), iov_len: 1 };
    // SAFETY: all zero is an empty message.
    let mut message: libc::msghdr = unsafe { std::mem::zeroed() };
    (message.msg_iov, message.msg_iovlen) = (&raw mut vector, 1);
    (message.msg_control, message.msg_controllen) = ((&raw mut control).cast(), size_of_val(&control));
    // SAFETY: data and control data outlive the call and are only read.
    if unsafe { libc::sendmsg(socket.as_raw_fd(), &raw const message, 0) } < 0 {
        return Err(io::Error::last_os_error());
    }
    Ok(())
}

/// Unix sockets of an outsider: a stream and a datagram socket, by path and by abstract name.
pub struct UnixServers {
    /// What has come.
    pub arrivals: Arrivals,
}

impl UnixServers {
    /// Serves `DIR/stream`, `DIR/dgram`, `@NAME-stream` and `@NAME-dgram`.
    pub fn open(directory: &str, name: &str) -> io::Result<Self> {
        let arrivals = Arrivals::default();
        let abstract_name = |kind: &str| UnixAddr::from_abstract_name(format!("{name}-{kind}"));
        let path = |kind: &str| {
            let path = format!("{directory}/{kind}");
            let _ = fs::remove_file(&path);
            UnixAddr::from_pathname(path)
        };
        for address in [path("stream")?, abstract_name("stream")?] {
            let (listener, counter) = (UnixListener::bind_addr(&address)?, arrivals.clone());
            thread::spawn(move || listener.incoming().filter(Result::is_ok).for_each(|_| counter.add()));
        }
        for address in [path("dgram")?, abstract_name("dgram")?] {
            let (socket, counter) = (UnixDatagram::bind_addr(&address)?, arrivals.clone());
            thread::spawn(move || {
                while socket.recv(&mut [0u8; 64]).is_ok() {
                    counter.add();
                }
            });
        }
        Ok(Self { arrivals })
    }
}
