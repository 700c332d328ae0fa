//! Descriptors that a cooperating outsider hands over.

use super::{Attack, almighty, refused};
use crate::{
    agent::{Agent, PROBE},
    cases,
    command::{Command, wait_for},
    ensure, events,
    harness::{Outcome, Test},
    peer::{Port, add_descriptor, hand_over_by_what_is_lent, hand_over_descriptor},
    promise,
    terminal::Pty,
};
use std::{
    fs::{self, File},
    io,
    net::{TcpListener, TcpStream, UdpSocket},
    os::{
        fd::{AsRawFd, FromRawFd, OwnedFd, RawFd},
        unix::net::{UnixDatagram, UnixListener},
    },
};

cases!(attack_descriptors:
    no_descriptor_of_an_outsider_arrives,
    no_knob_is_handed_over,
    no_roundabout_way_brings_a_descriptor_in,
);

/// A descriptor that a system call has just returned.
fn made(number: i64) -> io::Result<OwnedFd> {
    if number < 0 {
        return Err(io::Error::last_os_error());
    }
    // SAFETY: the kernel has just made it and nobody else knows its number.
    Ok(unsafe { OwnedFd::from_raw_fd(number as i32) })
}

/// An array of one entry.
fn map() -> io::Result<OwnedFd> {
    let mut attributes = [0u32; 32];
    attributes[..4].copy_from_slice(&[2, 4, 4, 1]);
    // SAFETY: the kernel reads as many bytes as it is told that there are.
    made(unsafe { libc::syscall(libc::SYS_bpf, 0, attributes.as_ptr(), 128) })
}

fn counter() -> io::Result<OwnedFd> {
    let mut attributes = [0u32; 32];
    attributes[..3].copy_from_slice(&[1, 128, 3]);
    // SAFETY: the kernel reads as many bytes as the structure says that it has.
    made(unsafe { libc::syscall(libc::SYS_perf_event_open, attributes.as_ptr(), 0, -1, -1, 0) })
}

fn faults() -> io::Result<OwnedFd> {
    // SAFETY: numbers only.
    made(unsafe { libc::syscall(libc::SYS_userfaultfd, libc::O_CLOEXEC) })
}

fn names() -> io::Result<OwnedFd> {
    // SAFETY: numbers only.
    made(unsafe { libc::syscall(libc::SYS_fanotify_init, 0, libc::O_RDONLY) })
}

fn directory(path: &str, flags: i32) -> io::Result<OwnedFd> {
    let path = std::ffi::CString::new(path)?;
    // SAFETY: a name that outlives the call.
    made(i64::from(unsafe { libc::open(path.as_ptr(), flags | libc::O_DIRECTORY | libc::O_CLOEXEC) }))
}

/// One that is handed over, and what is said of it.
type Handed = (&'static str, Box<dyn AsRawFd>);

/// How it comes in.
struct Way {
    /// The act that waits for it at a name.
    act: &'static str,
    /// What the outsider does there.
    hand: fn(&str, RawFd) -> io::Result<()>,
}

const SENT: Way = Way { act: "unix-receive-only", hand: hand_over_descriptor };
const BY_WHAT_IS_LENT: Way = Way { act: "unix-receive-lent", hand: hand_over_by_what_is_lent };
const ADDED: Way = Way { act: "unix-be-given", hand: add_descriptor };

/// What no rule lets an agent open or make, and the memory file and pipe that anybody may have.
fn things(t: &Test, port: u16) -> Outcome<(Vec<Handed>, Vec<Handed>)> {
    let shut = t.at("shut/f1");
    let writing = fs::OpenOptions::new().write(true).open(&shut)?;
    let deleted = File::open(t.file("shut/gone")?)?;
    fs::remove_file(t.at("shut/gone"))?;
    let socket = t.at("shut/socket");
    let (one, _other) = UnixDatagram::pair()?;
    let ring = |entries: u32| {
        let mut parameters = [0u8; 120];
        // SAFETY: the kernel writes the parameters, which are as long as it knows them.
        made(unsafe { libc::syscall(libc::SYS_io_uring_setup, entries, parameters.as_mut_ptr()) })
    };
    let ring = ring(2)?;
    let bad: Vec<Handed> = vec![
        ("a file for reading", Box::new(File::open(&shut)?)),
        ("a file for writing", Box::new(writing)),
        ("a file that has lost its name", Box::new(deleted)),
        ("a directory", Box::new(directory(&t.at("shut"), libc::O_RDONLY)?)),
        ("a connected TCP socket", Box::new(TcpStream::connect(("127.0.0.1", port))?)),
        ("a listening TCP socket", Box::new(TcpListener::bind(("127.0.0.1", 0))?)),
        ("a UDP socket", Box::new(UdpSocket::bind(("127.0.0.1", 0))?)),
        ("a listening unix socket", Box::new(UnixListener::bind(socket)?)),
        ("one end of a pair of sockets", Box::new(one)),
        ("the memory of a process", Box::new(File::open(format!("/proc/{}/mem", std::process::id()))?)),
        ("a map of kernel programs", Box::new(map()?)),
        ("a counter", Box::new(counter()?)),
        ("page faults", Box::new(faults()?)),
        ("notices about files", Box::new(names()?)),
        ("a knob", Box::new(fs::OpenOptions::new().write(true).open("/proc/sys/kernel/core_pattern")?)),
        ("a namespace", Box::new(File::open("/proc/self/ns/mnt")?)),
        ("a disk", Box::new(File::open("/dev/vda")?)),
    ];
    // The kernel hands over no ring to anybody (since 6.7), or the hook refuses it.
    let bad =
        bad.into_iter().chain([("a ring of system calls", Box::new(ring) as Box<dyn AsRawFd>)]).collect();
    let good: Vec<Handed> = vec![
        ("a file that may be read", Box::new(File::open(t.at("open/f1"))?)),
        ("an end of a pipe", Box::new(io::pipe()?.0)),
    ];
    Ok((bad, good))
}

fn no_descriptor_of_an_outsider_arrives(t: &mut Test) -> Outcome {
    t.fresh()?;
    for name in ["open/f1", "shut/f1"] {
        t.file(name)?;
    }
    let port = Port::open()?;
    let (bad, good) = things(t, port.number)?;
    handed(t, &t.agent(t.policy().allow("all", &t.at("open/**")))?, &SENT, bad, good)
}

/// Whatever rules say, as for what is opened.
fn no_knob_is_handed_over(t: &mut Test) -> Outcome {
    t.file("open/f1")?;
    let knob = |path: &str| fs::OpenOptions::new().write(true).open(path);
    let bad: Vec<Handed> = vec![
        ("a setting of the kernel", Box::new(knob("/proc/sys/kernel/core_pattern")?)),
        ("a file of a control group", Box::new(knob("/sys/fs/cgroup/cgroup.procs")?)),
        (
            "a file of another process",
            Box::new(knob(&format!("/proc/{}/oom_score_adj", std::process::id()))?),
        ),
    ];
    let Pty { maker, user, name: _ } = Pty::new()?;
    let bad = bad.into_iter().chain([
        ("a terminal", Box::new(user) as Box<dyn AsRawFd>),
        ("the other side of a terminal", Box::new(maker)),
    ]);
    let good: Vec<Handed> = vec![("a file that may be read", Box::new(File::open(t.at("open/f1"))?))];
    handed(t, &t.agent(almighty(t)?)?, &SENT, bad.collect(), good)
}

/// By a socket of its own that an agent lends an outsider, and by the listener of a filter of its own, which it gives away.
fn no_roundabout_way_brings_a_descriptor_in(t: &mut Test) -> Outcome {
    t.fresh()?;
    for name in ["open/f1", "shut/f1"] {
        t.file(name)?;
    }
    let port = Port::open()?;
    let agent = t.agent(t.policy().allow("all", &t.at("open/**")))?;
    for way in [&BY_WHAT_IS_LENT, &ADDED] {
        let bad: Vec<Handed> = vec![
            ("a file for reading", Box::new(File::open(t.at("shut/f1"))?)),
            ("a directory", Box::new(directory(&t.at("shut"), libc::O_RDONLY)?)),
            ("a connected TCP socket", Box::new(TcpStream::connect(("127.0.0.1", port.number))?)),
            ("the memory of a process", Box::new(File::open(format!("/proc/{}/mem", std::process::id()))?)),
            ("a map of kernel programs", Box::new(map()?)),
            ("a namespace", Box::new(File::open("/proc/self/ns/mnt")?)),
        ];
        let good: Vec<Handed> = vec![
            ("a file that may be read", Box::new(File::open(t.at("open/f1"))?)),
            ("an end of a pipe", Box::new(io::pipe()?.0)),
        ];
        handed(t, &agent, way, bad, good)?;
    }
    Ok(())
}

fn handed(t: &Test, agent: &Agent, way: &Way, bad: Vec<Handed>, good: Vec<Handed>) -> Outcome {
    let all: Vec<&Handed> = bad.iter().chain(&good).collect();
    let name = |number: usize| format!("received-{number}");
    let acts: Vec<String> = (0..all.len()).map(|number| format!("{} @{}", way.act, name(number))).collect();
    let hand = || -> Outcome<Vec<bool>> {
        let mut sent = Vec::new();
        for (number, (what, file)) in all.iter().enumerate() {
            let given = wait_for(&format!("somebody who takes {what}"), 120, || {
                match (way.hand)(&name(number), file.as_raw_fd()) {
                    Err(error) if error.kind() == io::ErrorKind::ConnectionRefused => None,
                    // A ring is not sent: then nobody takes it, and what waits is let go.
                    Err(error) => Some(Err(error)),
                    Ok(()) => Some(Ok(())),
                }
            })?;
            sent.push(given.is_ok());
        }
        Ok(sent)
    };
    // Outside all arrive, but rings on kernels that send none.
    let words = acts.join(" , ");
    let control = Command::new(PROBE).args(["seq"]).args(words.split_whitespace()).spawn()?;
    let sent = hand()?;
    let said = String::from_utf8_lossy(&control.wait_with_output()?.stdout).into_owned();
    let wrong: Vec<String> = said
        .lines()
        .zip(&all)
        .zip(&sent)
        .filter(|((line, _), sent)| *line != "ok" && **sent)
        .map(|((line, (what, _)), _)| format!("{what}: {line}"))
        .collect();
    ensure!(wrong.is_empty() && said.lines().count() == all.len(), "outside: {}\n{said}", wrong.join(", "));

    let marker = promise::marker(t)?;
    let mut inside = acts.clone();
    inside.push(format!("read {marker}"));
    let mut live = agent.start(&inside)?;
    let sent = hand()?;
    let mut wrong = Vec::new();
    let mut refusals = 0;
    for (number, ((what, _), sent)) in all.iter().zip(&sent).enumerate() {
        let line = live.line()?;
        let expected = if number < bad.len() { "EPERM" } else { "ok" };
        refusals += usize::from(*sent && expected == "EPERM");
        if line != expected {
            wrong.push(format!("{what}: {line}, not {expected}"));
        }
    }
    ensure!(wrong.is_empty(), "inside: {}", wrong.join(", "));
    live.expect(&["EPERM"])?;
    live.finish()?;
    let records = events::acts_until_marker(live.mark, &live.id, &marker, refusals)?;
    let shown: Vec<String> = records.iter().map(events::shown).collect();
    let receives = records.iter().filter(|record| record["operation"] == "receive").count();
    ensure!(
        records.len() == refusals && receives == refusals,
        "{} records instead of {refusals}:\n{}",
        records.len(),
        shown.join("\n")
    );
    Ok(())
}

const FLOOR: &str = "attack_descriptors::no_knob_is_handed_over";
const ROUND: &str = "attack_descriptors::no_roundabout_way_brings_a_descriptor_in";
const BY: &str = "attack_descriptors::no_descriptor_of_an_outsider_arrives";

#[rustfmt::skip]
pub const ATTACKS: &[Attack] = &[
    refused("D01", "a file that may not be read, opened by an outsider", "file_receive", BY, "a file for reading"),
    refused("D02", "a file that may not be written, opened for writing", "file_receive", BY, "a file for writing"),
    refused("D03", "a file that has lost its name", "file_receive", BY, "a file that has lost its name"),
    refused("D04", "a directory that may not be listed", "file_receive", BY, "a directory"),
    refused("D05", "a TCP socket that an outsider connected", "file_receive", BY, "a connected TCP socket"),
    refused("D06", "a TCP socket at which an outsider listens", "file_receive", BY, "a listening TCP socket"),
    refused("D07", "an outsider's UDP socket", "file_receive", BY, "a UDP socket"),
    refused("D08", "an outsider's listening unix socket", "file_receive", BY, "a listening unix socket"),
    refused("D09", "one end of an outsider's pair of sockets", "file_receive", BY, "one end of a pair of sockets"),
    refused("D10", "what a descriptor of an outsider's process is good for, however it came", "task_kill, ptrace_access_check", "tasks::a_descriptor_of_an_outsider_gives_nothing", "pidfd-kill"),
    refused("D11", "the memory of an outsider", "file_receive", BY, "the memory of a process"),
    refused("D12", "a map of kernel programs", "file_receive", BY, "a map of kernel programs"),
    refused("D13", "a performance counter", "file_receive", BY, "a counter"),
    refused("D14", "an outsider's page faults (`userfaultfd`)", "file_receive", BY, "page faults"),
    refused("D15", "an outsider's `fanotify` group", "file_receive", BY, "notices about files"),
    refused("D16", "a knob in `/proc/sys`, open for writing", "file_receive", BY, "a knob"),
    refused("D24", "a setting of the kernel, under a policy that allows everything", "file_receive", FLOOR, "a setting of the kernel"),
    refused("D25", "`cgroup.procs`, the same", "file_receive", FLOOR, "a file of a control group"),
    refused("D26", "a file that changes another process, the same", "file_receive", FLOOR, "a file of another process"),
    refused("D27", "by a socket of its own that the agent lends for it", "file_receive", ROUND, "unix-receive-lent"),
    refused("D28", "by a filter of its own (`SECCOMP_IOCTL_NOTIF_ADDFD`), whose listener it gives away", "file_receive", ROUND, "unix-be-given"),
    refused("D29", "an outsider's terminal, under a policy that allows everything", "file_receive", FLOOR, "a terminal"),
    refused("D30", "the other side of an outsider's terminal, the same", "file_receive", FLOOR, "the other side of a terminal"),
    refused("D17", "a namespace", "file_receive", BY, "a namespace"),
    refused("D19", "a disk", "file_receive", BY, "a disk"),
    refused("D20", "a ring of system calls", "file_receive; the kernel sends none from 6.7 on", BY, "a ring of system calls"),
    refused("D21", "reading what arrived", "file_receive", "unix::a_descriptor_from_an_outsider_is_judged_like_an_open", "unix-receive"),
    refused("D22", "taking a descriptor out of an outsider (`pidfd_getfd`)", "ptrace_access_check", "tasks::a_descriptor_of_an_outsider_gives_nothing", "pidfd-getfd"),
    refused("D23", "descriptors, variables and masks of whoever launches", "the launch", "sessions::a_session_gets_nothing_of_its_callers", "env"),
    super::open("D31", "opening an outsider's pipe or memory file for writing, which was passed for reading", "A pipe or a memory file that an outsider hands over"),
];
