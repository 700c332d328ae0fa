//! Servers outside every agent, which count what reaches them.

use crate::command::PATIENCE;
use std::{
    fs,
    io::{self, Read},
    iter::from_fn,
    net::{Ipv6Addr, SocketAddr, TcpListener, TcpStream, UdpSocket},
    os::{
        fd::AsRawFd,
        linux::net::SocketAddrExt,
        unix::net::{SocketAddr as UnixAddr, UnixDatagram, UnixListener, UnixStream},
    },
    sync::{
        Arc,
        atomic::{AtomicU16, AtomicU64, Ordering},
        mpsc::channel,
    },
    thread,
    time::Duration,
};

/// What asks a socket whether it has had everything that came before.
const ASKED: &[u8] = b"has all come?";

/// A counter of connections and packets.
pub struct Arrivals {
    counter: Counter,
    sockets: Vec<Socket>,
}

#[derive(Clone, Default)]
struct Counter(Arc<AtomicU64>);

impl Counter {
    fn add(&self) {
        self.0.fetch_add(1, Ordering::SeqCst);
    }
}

/// A socket that counts, asked by what comes last to it.
type Socket = Box<dyn Fn() -> io::Result<()>>;

impl Arrivals {
    /// How many have come. What was sent on this host before is in a queue already: what is sent now comes behind it.
    pub fn count(&self) -> io::Result<u64> {
        thread::sleep(Duration::from_millis(300));
        self.sockets.iter().try_for_each(|socket| socket())?;
        Ok(self.counter.0.load(Ordering::SeqCst))
    }

    /// A listener, by its connections as they are accepted, one after the other. Whoever asks connects too, and sees its
    /// connection end.
    fn streams<S: Read>(
        &mut self,
        incoming: impl Iterator<Item = io::Result<S>> + Send + 'static,
        connect: impl Fn() -> io::Result<S> + 'static,
    ) {
        let counter = self.counter.clone();
        thread::spawn(move || incoming.filter(Result::is_ok).for_each(|_| counter.add()));
        let counter = self.counter.clone();
        self.sockets.push(Box::new(move || {
            connect()?.read_to_end(&mut Vec::new())?;
            counter.0.fetch_sub(1, Ordering::SeqCst);
            Ok(())
        }));
    }

    /// A socket for packets.
    fn packets(
        &mut self,
        receive: impl Fn(&mut [u8]) -> io::Result<usize> + Send + 'static,
        send: impl Fn(&[u8]) -> io::Result<usize> + 'static,
    ) {
        let (counter, (told, answer)) = (self.counter.clone(), channel());
        thread::spawn(move || {
            let mut packet = [0u8; 64];
            while let Ok(length) = receive(&mut packet) {
                match &packet[..length] {
                    ASKED => drop(told.send(())),
                    _ => counter.add(),
                }
            }
        });
        self.sockets.push(Box::new(move || {
            send(ASKED)?;
            answer.recv_timeout(PATIENCE).map_err(io::Error::other)
        }));
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
        let here = (Ipv6Addr::LOCALHOST, number);
        let mut arrivals = Arrivals { counter: Counter::default(), sockets: Vec::new() };
        arrivals.streams(from_fn(move || Some(tcp.accept().map(|(stream, _)| stream))), move || {
            TcpStream::connect(here)
        });
        let asking = UdpSocket::bind((Ipv6Addr::LOCALHOST, 0))?;
        arrivals.packets(move |packet| udp.recv(packet), move |packet| asking.send_to(packet, here));
        Ok(Self { number, arrivals })
    }

    /// A port that nobody has, for binding: another one each time, and none that the kernel gives to whoever asks for any.
    pub fn unused() -> io::Result<u16> {
        static NEXT: AtomicU16 = AtomicU16::new(22_000);
        loop {
            let number = NEXT.fetch_add(1, Ordering::SeqCst);
            let all: SocketAddr = (Ipv6Addr::UNSPECIFIED, number).into();
            match TcpListener::bind(all).and_then(|_| UdpSocket::bind(all)) {
                Err(error) if error.kind() == io::ErrorKind::AddrInUse && number < 23_000 => {}
                result => return result.map(|_| number),
            }
        }
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
        let mut arrivals = Arrivals { counter: Counter::default(), sockets: Vec::new() };
        let abstract_name = |kind: &str| UnixAddr::from_abstract_name(format!("{name}-{kind}"));
        let path = |kind: &str| {
            let path = format!("{directory}/{kind}");
            let _ = fs::remove_file(&path);
            UnixAddr::from_pathname(path)
        };
        for address in [path("stream")?, abstract_name("stream")?] {
            let listener = UnixListener::bind_addr(&address)?;
            arrivals.streams(from_fn(move || Some(listener.accept().map(|(stream, _)| stream))), move || {
                UnixStream::connect_addr(&address)
            });
        }
        for address in [path("dgram")?, abstract_name("dgram")?] {
            let (socket, asking) = (UnixDatagram::bind_addr(&address)?, UnixDatagram::unbound()?);
            arrivals.packets(
                move |packet| socket.recv(packet),
                move |packet| asking.send_to_addr(packet, &address),
            );
        }
        Ok(Self { arrivals })
    }
}
