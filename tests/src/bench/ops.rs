//! The operations. Each is measured in short rounds, so that the few into which a timer interrupt falls
//! do not move the median.

use super::rules;
use std::{
    fs::{self, File, OpenOptions},
    io::{self, Read as _},
    net::{Ipv4Addr, SocketAddrV4, TcpListener, TcpStream, UdpSocket},
    os::{
        fd::AsRawFd as _,
        unix::{fs::FileExt as _, net::UnixStream},
    },
    thread,
    time::Duration,
};

/// Instructions per operation, one figure a round.
pub struct Measured {
    /// What was done.
    pub name: &'static str,
    /// The rounds.
    pub rounds: Vec<f64>,
    /// How often it was done, with the rounds that do not count.
    pub operations: usize,
}

impl Measured {
    fn new(name: &'static str, count: usize, rounds: usize) -> Self {
        Self { name, rounds: Vec::with_capacity(rounds), operations: count * (rounds + WARM_UP) }
    }
}

/// Which rows are wanted: those whose name begins with one of these, or all.
pub struct Only<'a>(pub &'a [&'a str]);

impl Only<'_> {
    fn has(&self, name: &str) -> bool {
        self.0.is_empty() || self.0.iter().any(|start| name.starts_with(start))
    }
}

/// What the operations work on, made while nothing is confined.
pub struct Bench {
    data: File,
    listener: TcpListener,
    receiver: UdpSocket,
    sender: UdpSocket,
    connected: UdpSocket,
}

const DEPTH_3: &str = "/bench/allow/report.txt";
const DEPTH_6: &str = "/bench/allow/a/b/c/report.txt";
const DEPTH_12: &str = "/bench/allow/a/b/c/d/e/f/g/h/i/report.txt";
/// A file that no rule mentions.
pub const DENIED: &str = "/bench/deny/secret.txt";

/// Makes what the operations find: called once, by whoever is confined by nothing.
pub fn populate() -> io::Result<()> {
    for directory in [
        "/bench/deny",
        "/bench/bin",
        "/bench/fill/group-0",
        "/bench/allow/a/b/c/d/e/f/g/h/i",
        "/bench/allow/c/here",
    ] {
        fs::create_dir_all(directory)?;
    }
    for file in
        [DEPTH_3, DEPTH_6, DEPTH_12, DENIED, "/bench/allow/data", "/bench/allow/one", "/bench/allow/c/one"]
    {
        if let Some(directory) = std::path::Path::new(file).parent() {
            fs::create_dir_all(directory)?;
        }
        fs::write(file, [b'x'; 8192])?;
    }
    tiny(rules::TINY)
}

/// A static program for x86-64 that only exits: an ELF header, one segment, `exit(0)`.
fn tiny(path: &str) -> io::Result<()> {
    const BASE: u64 = 0x40_0000;
    const HEADERS: u64 = 64 + 56;
    let code = [0x31, 0xff, 0xb8, 0x3c, 0, 0, 0, 0x0f, 0x05];
    let size = HEADERS + code.len() as u64;
    let mut elf = vec![0x7f, b'E', b'L', b'F', 2, 1, 1, 0, 0, 0, 0, 0, 0, 0, 0, 0];
    // ET_EXEC, EM_X86_64.
    for half in [2u16, 62] {
        elf.extend(half.to_le_bytes());
    }
    elf.extend(1u32.to_le_bytes());
    for word in [BASE + HEADERS, 64, 0] {
        elf.extend(word.to_le_bytes());
    }
    elf.extend(0u32.to_le_bytes());
    for half in [64u16, 56, 1, 0, 0, 0] {
        elf.extend(half.to_le_bytes());
    }
    // PT_LOAD, readable and executable.
    for word in [1u32, 5] {
        elf.extend(word.to_le_bytes());
    }
    for word in [0, BASE, BASE, size, size, 0x1000] {
        elf.extend(word.to_le_bytes());
    }
    elf.extend(code);
    fs::write(path, elf)?;
    fs::set_permissions(path, std::os::unix::fs::PermissionsExt::from_mode(0o755))
}

impl Bench {
    /// Opens what is open during the measurements.
    pub fn prepare() -> io::Result<Self> {
        let local = |port| SocketAddrV4::new(Ipv4Addr::LOCALHOST, port);
        let receiver = UdpSocket::bind(local(rules::UDP_PORT))?;
        receiver.set_nonblocking(true)?;
        let listener = TcpListener::bind(local(rules::TCP_PORT))?;
        listener.set_nonblocking(true)?;
        let sender = UdpSocket::bind("0.0.0.0:0")?;
        let connected = UdpSocket::bind("0.0.0.0:0")?;
        connected.connect(local(rules::UDP_PORT))?;
        let data = OpenOptions::new().read(true).write(true).open("/bench/allow/data")?;
        Ok(Self { data, listener, receiver, sender, connected })
    }

    /// Measures everything that is wanted.
    pub fn all(&mut self, only: &Only<'_>) -> io::Result<Vec<Measured>> {
        let mut page = [0u8; 4096];
        let mut rounds = vec![known(1_000_000)];
        // Not measured, hence not done, if the name is not wanted.
        let mut row = |name: &'static str, measure: &mut dyn FnMut(&'static str) -> io::Result<Measured>| {
            if only.has(name) {
                rounds.push(measure(name)?);
            }
            io::Result::Ok(())
        };
        for (warm, renamed, cold, path) in [
            ("open depth 3", "open depth 3, after a rename", "open depth 3, cold", DEPTH_3),
            ("open depth 6", "open depth 6, after a rename", "open depth 6, cold", DEPTH_6),
            ("open depth 12", "open depth 12, after a rename", "open depth 12, cold", DEPTH_12),
        ] {
            let open = || File::open(path).map(drop);
            row(warm, &mut |name| many(name, 25, 41, open))?;
            row(renamed, &mut |name| each(name, 10, 41, || unrelated_rename("one", "two"), open))?;
            row(cold, &mut |name| each(name, 10, 41, || unrelated_rename("here", "there"), open))?;
        }
        row("open denied", &mut |name| denied(name, 10, 31, || File::open(DENIED).map(drop)))?;
        row("stat depth 6", &mut |name| many(name, 25, 41, || fs::metadata(DEPTH_6).map(drop)))?;
        let create = || {
            File::create_new("/bench/allow/new").map(drop)?;
            fs::remove_file("/bench/allow/new")
        };
        row("create+unlink", &mut |name| many(name, 10, 41, create))?;
        let mut there = false;
        let mut rename = || {
            there = !there;
            let (from, to) = if there { ("one", "two") } else { ("two", "one") };
            fs::rename(format!("/bench/allow/{from}"), format!("/bench/allow/{to}"))
        };
        row("rename", &mut |name| many(name, 10, 41, &mut rename))?;
        row("fork+exec", &mut |name| with_children(name, 5, 31, fork_exec))?;
        row("TCP connect+close", &mut |name| self.tcp(name))?;
        let refused = SocketAddrV4::new(Ipv4Addr::LOCALHOST, rules::REFUSED_PORT);
        row("connect denied", &mut |name| denied(name, 10, 31, || TcpStream::connect(refused).map(drop)))?;
        let to = SocketAddrV4::new(Ipv4Addr::LOCALHOST, rules::UDP_PORT);
        row("UDP send, connected", &mut |name| self.udp(name, |bench| bench.connected.send(&[0; 64])))?;
        row("UDP send, to address", &mut |name| self.udp(name, |bench| bench.sender.send_to(&[0; 64], to)))?;
        // Nobody takes the connections before the measurement is over: the backlog has room for all.
        row("unix connect", &mut |name| many(name, 5, 41, || UnixStream::connect(rules::SOCKET).map(drop)))?;
        row("read 4 KiB", &mut |name| many(name, 50, 31, || self.data.read_exact_at(&mut page, 0)))?;
        row("write 4 KiB", &mut |name| many(name, 50, 31, || self.data.write_all_at(&page, 0)))?;
        row("rare call", &mut |name| many(name, 5, 41, unshare_nothing))?;
        row("mmap", &mut |name| many(name, 25, 31, || map(&self.data)))?;
        Ok(rounds)
    }

    /// Connecting and closing; the other side takes its connections when the round is over.
    fn tcp(&self, name: &'static str) -> io::Result<Measured> {
        let to = SocketAddrV4::new(Ipv4Addr::LOCALHOST, rules::TCP_PORT);
        let drain = || {
            while let Ok((mut stream, _)) = self.listener.accept() {
                let _ = stream.read(&mut [0; 16]);
            }
            Ok(())
        };
        each(name, 5, 41, drain, || TcpStream::connect(to).map(drop))
    }

    fn udp(&self, name: &'static str, send: impl Fn(&Self) -> io::Result<usize>) -> io::Result<Measured> {
        let drain = || {
            while self.receiver.recv(&mut [0; 64]).is_ok() {}
            Ok(())
        };
        each(name, 10, 41, drain, || send(self).map(drop))
    }
}

/// One of the system calls that are recorded of agents. All rounds together stay below what a session may leave in a
/// second.
fn unshare_nothing() -> io::Result<()> {
    // SAFETY: the call takes a number.
    if unsafe { libc::unshare(0) } == 0 { Ok(()) } else { Err(io::Error::last_os_error()) }
}

/// Maps one page of a file to read it, and unmaps it.
fn map(file: &File) -> io::Result<()> {
    const PAGE: usize = 4096;
    // SAFETY: the kernel chooses the place, and nothing looks at it before it is unmapped.
    let unmapped = unsafe {
        let place =
            libc::mmap(std::ptr::null_mut(), PAGE, libc::PROT_READ, libc::MAP_PRIVATE, file.as_raw_fd(), 0);
        place != libc::MAP_FAILED && libc::munmap(place, PAGE) == 0
    };
    if unmapped { Ok(()) } else { Err(io::Error::last_os_error()) }
}

/// Moves a file (`one`) or a directory (`here`) to another name and back, far from what is measured.
fn unrelated_rename(from: &str, to: &str) -> io::Result<()> {
    let at = |name: &str| format!("/bench/allow/c/{name}");
    fs::rename(at(from), at(to))?;
    fs::rename(at(to), at(from))
}

/// Rounds whose figures are thrown away: caches fill, memory is touched for the first time.
const WARM_UP: usize = 8;

/// `count` times in a row.
fn many(
    name: &'static str,
    count: usize,
    rounds: usize,
    mut act: impl FnMut() -> io::Result<()>,
) -> io::Result<Measured> {
    let mut measured = Measured::new(name, count, rounds);
    for round in 0..rounds + WARM_UP {
        let before = now(libc::CLOCK_MONOTONIC_RAW);
        for _ in 0..count {
            act().map_err(|error| io::Error::other(format!("{name}: {error}")))?;
        }
        let took = now(libc::CLOCK_MONOTONIC_RAW) - before;
        if round >= WARM_UP {
            measured.rounds.push(took as f64 / count as f64);
        }
    }
    Ok(measured)
}

/// Each time after `between`, which is not measured. The clock is: twice in every figure.
fn each(
    name: &'static str,
    count: usize,
    rounds: usize,
    mut between: impl FnMut() -> io::Result<()>,
    mut act: impl FnMut() -> io::Result<()>,
) -> io::Result<Measured> {
    let mut measured = Measured::new(name, count, rounds);
    for round in 0..rounds + WARM_UP {
        let mut took = 0;
        for _ in 0..count {
            between()?;
            let before = now(libc::CLOCK_MONOTONIC_RAW);
            let done = act();
            took += now(libc::CLOCK_MONOTONIC_RAW) - before;
            done.map_err(|error| io::Error::other(format!("{name}: {error}")))?;
        }
        if round >= WARM_UP {
            measured.rounds.push(took as f64 / count as f64);
        }
    }
    Ok(measured)
}

/// Before rounds that all fit into one tick of the kernel's timer. What the row before them has left the kernel to do (a
/// grace period after renames, most likely) was seen to add the same five hundred instructions to each call until a
/// tick ended it: to all rounds or to none, from boot to boot. Not between them: what refusals leave is counted by time.
const TICKS: Duration = Duration::from_millis(50);

/// What fails inside and may succeed outside, by this process's own clock: whoever reads the records of
/// refusals runs in between.
fn denied(
    name: &'static str,
    count: usize,
    rounds: usize,
    mut act: impl FnMut() -> io::Result<()>,
) -> io::Result<Measured> {
    let mut measured = Measured::new(name, count, rounds);
    thread::sleep(TICKS);
    for round in 0..rounds + WARM_UP {
        let before = now(libc::CLOCK_PROCESS_CPUTIME_ID);
        for _ in 0..count {
            let _ = act();
        }
        let took = now(libc::CLOCK_PROCESS_CPUTIME_ID) - before;
        if round >= WARM_UP {
            measured.rounds.push(took as f64 / count as f64);
        }
    }
    Ok(measured)
}

/// By the clocks of this process and of its children, which the kernel gives in microseconds: records of what was
/// executed are read in between.
fn with_children(
    name: &'static str,
    count: usize,
    rounds: usize,
    mut act: impl FnMut() -> io::Result<()>,
) -> io::Result<Measured> {
    let mut measured = Measured::new(name, count, rounds);
    for round in 0..rounds + WARM_UP {
        let before = now(libc::CLOCK_PROCESS_CPUTIME_ID) + of_children();
        for _ in 0..count {
            act()?;
        }
        let took = now(libc::CLOCK_PROCESS_CPUTIME_ID) + of_children() - before;
        if round >= WARM_UP {
            measured.rounds.push(took as f64 / count as f64);
        }
    }
    Ok(measured)
}

/// Nanoseconds that children which were waited for have run.
fn of_children() -> u64 {
    // SAFETY: a structure of numbers, which the kernel fills.
    let used = unsafe {
        let mut used: libc::rusage = std::mem::zeroed();
        libc::getrusage(libc::RUSAGE_CHILDREN, &raw mut used);
        used
    };
    let time = |t: libc::timeval| t.tv_sec as u64 * 1_000_000_000 + t.tv_usec as u64 * 1_000;
    time(used.ru_utime) + time(used.ru_stime)
}

/// Two instructions a turn: says whether a nanosecond of this clock is an instruction.
fn known(turns: u64) -> Measured {
    let mut rounds = Vec::new();
    for _ in 0..5 {
        let before = now(libc::CLOCK_MONOTONIC_RAW);
        // SAFETY: counts a register down.
        unsafe {
            std::arch::asm!("2:", "dec {0}", "jnz 2b", inout(reg) turns => _, options(nomem, nostack));
        }
        rounds.push((now(libc::CLOCK_MONOTONIC_RAW) - before) as f64 / (2 * turns) as f64);
    }
    Measured { name: "clock", rounds, operations: 0 }
}

fn now(clock: libc::clockid_t) -> u64 {
    let mut time = libc::timespec { tv_sec: 0, tv_nsec: 0 };
    // SAFETY: the kernel writes the time.
    unsafe { libc::clock_gettime(clock, &raw mut time) };
    time.tv_sec as u64 * 1_000_000_000 + time.tv_nsec as u64
}

/// Forks, executes the program of three instructions, waits for it.
fn fork_exec() -> io::Result<()> {
    let program = c"/bench/bin/tiny".as_ptr();
    let arguments = [program, std::ptr::null()];
    let mut status = 0;
    // SAFETY: between fork and execve the child makes no call but these, with memory that was made before.
    unsafe {
        let child = libc::fork();
        if child == 0 {
            libc::execve(program, arguments.as_ptr(), std::ptr::null());
            libc::_exit(127);
        }
        if child < 0 || libc::waitpid(child, &raw mut status, 0) != child {
            return Err(io::Error::last_os_error());
        }
    }
    if status == 0 { Ok(()) } else { Err(io::Error::other(format!("the program ended with {status}"))) }
}
