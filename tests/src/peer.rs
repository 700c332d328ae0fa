//! Servers outside every agent, which count what reaches them.

use crate::{command::PATIENCE, passing};
use std::{
    fs,
    io::{self, Read},
    iter::from_fn,
    net::{Ipv6Addr, SocketAddr, TcpListener, TcpStream, UdpSocket},
    os::{
        fd::{AsRawFd, RawFd},
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
    hand_over_descriptor(name, fs::File::open(path)?.as_raw_fd())
}

/// As [`hand_over`], of anything that is open here.
pub fn hand_over_descriptor(name: &str, file: RawFd) -> io::Result<()> {
    passing::give(&connected(name)?, file)
}

/// As [`hand_over_descriptor`], but by the socket that the one at `name` lends for it.
pub fn hand_over_by_what_is_lent(name: &str, file: RawFd) -> io::Result<()> {
    let lent = passing::take(&connected(name)?)?;
    passing::give(&lent, file)
}

/// Puts a descriptor among those of a process that handed over, at `name`, the listener of its seccomp filter
/// (`SECCOMP_IOCTL_NOTIF_ADDFD`, seccomp_unotify(2)). Its call returns the number, or the error.
pub fn add_descriptor(name: &str, file: RawFd) -> io::Result<()> {
    const RECEIVE: libc::c_ulong = 0xc050_2100;
    const SEND: libc::c_ulong = 0xc018_2101;
    const ADD: libc::c_ulong = 0x4018_2103;
    let listener = passing::take(&connected(name)?)?;
    let control = |request, bytes: &mut [u64]| {
        // SAFETY: the kernel reads and writes as many bytes as the request says, which the array has.
        match unsafe { libc::ioctl(listener.as_raw_fd(), request, bytes.as_mut_ptr()) } {
            ..0 => Err(io::Error::last_os_error()),
            value => Ok(value),
        }
    };
    // struct seccomp_notif: the number of the call is first.
    let mut notice = [0u64; 10];
    control(RECEIVE, &mut notice)?;
    // struct seccomp_notif_addfd: number, flags, which one here; which one there, its flags.
    let added = control(ADD, &mut [notice[0], (file as u64) << 32, 0]);
    // struct seccomp_notif_resp: number, value, error (negative) and flags.
    let (value, error) = match added {
        Ok(number) => (number as u64, 0),
        Err(error) => (0, -error.raw_os_error().unwrap_or(libc::EIO)),
    };
    control(SEND, &mut [notice[0], value, u64::from(error as u32)]).map(drop)
}

fn connected(name: &str) -> io::Result<UnixStream> {
    UnixStream::connect_addr(&UnixAddr::from_abstract_name(name)?)
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
