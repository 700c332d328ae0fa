//! Having somebody else do it: rings of system calls, and processes outside the session.

use super::{Attack, all_refused, refused};
use crate::{
    cases,
    command::wait_for,
    ensure, events,
    harness::{Outcome, Test, exists, outside},
    peer::Port,
    promise::{self, Attempt, Denial},
};
use std::cell::Cell;

cases!(attack_asynchronous:
    what_a_ring_does_is_judged_like_a_call,
    what_a_ring_does_with_other_credentials_is_judged,
    a_ring_that_no_policy_allows_any_more_is_judged,
);

fn lay(t: &Test) -> Outcome {
    t.fresh()?;
    for side in ["open", "shut"] {
        for number in 1..=40 {
            t.file(&format!("{side}/f{number}"))?;
        }
    }
    promise::marker(t)?;
    Ok(())
}

const HERE: &str = "127.0.0.1";

/// How a ring performs what it is given: at once, in a worker, in the kernel thread of a polled ring.
const WAYS: [&str; 3] = ["", "+async", "+poll"];

fn what_a_ring_does_is_judged_like_a_call(t: &mut Test) -> Outcome {
    let (open, shut) = (t.at("open"), t.at("shut"));
    let (free, port) = (Port::open()?.number, Port::open()?);
    let p = port.number;
    let policy = t
        .policy()
        .line("system: [io-uring]")
        .allow("all", &format!("{open}/**"))
        .allow("read, write, list", &format!("{shut}/w/**"))
        .deny("truncate", &format!("{shut}/**"))
        .connect(&format!("{HERE}:{free}/*"));
    let mut next = 0;
    let mut name = || {
        next += 1;
        format!("f{next}")
    };
    let (mut attempts, mut twins) = (Vec::new(), Vec::new());
    for way in WAYS {
        let act = |operation: &str| format!("ring-{operation}{way}");
        for (operation, recorded, access) in [
            ("open", "open", "read"),
            ("open2", "open", "read"),
            ("open-slot", "open", "read"),
            ("unlink", "unlink", "delete"),
            ("setxattr", "xattr", "metadata"),
        ] {
            let file = name();
            let path = format!("{shut}/{file}");
            let denial = Denial::no_rule(recorded).on(&path).asking(access);
            attempts.push(Attempt::new(format!("{} {path}", act(operation)), denial));
            twins.push(format!("{} {open}/{file}", act(operation)));
        }
        for (operation, recorded) in [("create", "create"), ("mkdir", "mkdir"), ("symlink x", "symlink")] {
            let new = name().replace('f', "n");
            let path = format!("{shut}/{new}");
            let (verb, argument) = operation.split_once(' ').unwrap_or((operation, ""));
            attempts.push(Attempt::new(
                format!("{} {argument} {path}", act(verb)).replace("  ", " "),
                Denial::no_rule(recorded).on(&path).asking("create"),
            ));
            twins.push(format!("{} {argument} {open}/{new}", act(verb)).replace("  ", " "));
        }
        let (from, to) = (name(), name().replace('f', "n"));
        let path = format!("{shut}/{from}");
        attempts.push(Attempt::new(
            format!("{} {path} {open}/{to}", act("rename")),
            Denial::no_rule("rename").on(&path).asking("delete+rename"),
        ));
        let path = format!("{shut}/{to}");
        attempts.push(Attempt::new(
            format!("{} {open}/{from} {path}", act("link")),
            Denial::no_rule("link").on(&path).asking("create+link"),
        ));
        for (operation, recorded, protocol) in [("connect", "connect", "tcp"), ("sendmsg", "send", "udp")] {
            let denial = Denial::no_rule(recorded).to(HERE, p, protocol).asking("connect");
            attempts.push(Attempt::new(format!("{} {HERE} {p}", act(operation)), denial));
            twins.push(format!("{} {HERE} {free}", act(operation)));
        }
        // A ring does not wait for the answer.
        let denial = Denial::no_rule("send").to(HERE, p, "tcp").asking("connect");
        let fast = Attempt::new(format!("{} {HERE} {p}", act("send-fastopen")), denial);
        attempts.push(fast.fails_outside("EINPROGRESS"));
        attempts.push(Attempt::new(format!("{} 2 3 1", act("socket")), Denial::floor("socket")));
    }
    // What only newer kernels do by a ring.
    let path = format!("{shut}/w/t");
    let truncate = Denial::by_rule("truncate", "deny truncate").on(&path).asking("truncate");
    attempts.push(Attempt::new(format!("ring-ftruncate {path}"), truncate).newer());
    let unused = Port::unused()?;
    let bind = Denial::no_rule("bind").to(HERE, unused, "tcp").asking("bind");
    attempts.push(Attempt::new(format!("ring-bind {HERE} {unused}"), bind).newer());
    let listen = Denial::no_rule("listen").to("0.0.0.0", 0, "tcp").asking("bind");
    attempts.push(Attempt::new("ring-listen", listen).newer());
    attempts.push(Attempt::new("ring-socket-option", Denial::floor("socket-option")).newer());
    let path = format!("{shut}/w/x");
    attempts.push(Attempt::new(
        format!("ring-fsetxattr {path}"),
        Denial::no_rule("xattr").on(&path).asking("metadata"),
    ));
    let prepare = || -> Outcome {
        lay(t)?;
        t.file("shut/w/t")?;
        t.file("shut/w/x")?;
        Ok(())
    };
    prepare()?;
    let outside = Cell::new(0);
    all_refused(t, policy, &twins, attempts, 43, || {
        outside.set(port.arrivals.count()?);
        prepare()
    })?;
    let inside = port.arrivals.count()? - outside.get();
    ensure!(
        outside.get() >= 6 && inside == 0,
        "{} arrived from outside, {inside} although refused",
        outside.get()
    );
    ensure!(exists(&format!("{shut}/f4")), "a refused removal removed");
    Ok(())
}

/// A ring may act with credentials that it was given before the process changed its own.
fn what_a_ring_does_with_other_credentials_is_judged(t: &mut Test) -> Outcome {
    let (open, shut) = (t.at("open"), t.at("shut"));
    let policy = t.policy().line("system: [io-uring]").allow("all", &format!("{open}/**"));
    let attempts = WAYS
        .iter()
        .enumerate()
        .map(|(number, way)| {
            let path = format!("{shut}/f{}", number + 1);
            let denial = Denial::no_rule("xattr").on(&path).asking("metadata");
            Attempt::new(format!("ring-setxattr-as{way} {path}"), denial)
        })
        .collect();
    let twins = WAYS.map(|way| format!("ring-setxattr-as{way} {open}/f1"));
    lay(t)?;
    all_refused(t, policy, &twins, attempts, 3, || lay(t))?;
    Ok(())
}

/// A ring and the credentials in it outlive the policy that allowed it.
fn a_ring_that_no_policy_allows_any_more_is_judged(t: &mut Test) -> Outcome {
    lay(t)?;
    let (open, path) = (t.at("open"), t.at("shut/f1"));
    let late = |name: &str| format!("ring-setxattr-late {path} {open}/made-{name} {open}/go-{name}");
    t.file("open/go-outside")?;
    ensure!(outside(&late("outside"))? == "ok", "the control");
    let without = t.policy().allow("all", &format!("{open}/**"));
    let (with, without) = (without.next().line("system: [io-uring]"), without.next().next());
    let mut agent = t.agent(with)?;
    let marker = promise::marker(t)?;
    let acts = [
        "say ready".to_owned(),
        late("agent"),
        format!("setxattr {open}/f1"),
        "io-uring".to_owned(),
        format!("read {marker}"),
    ];
    let mut live = agent.start(&acts)?;
    live.expect(&["ready", "ok"])?;
    wait_for("the ring", 60, || exists(&format!("{open}/made-agent")).then_some(()))?;
    agent.change(without)?;
    t.file("open/go-agent")?;
    live.expect(&["EPERM", "ok", "EPERM", "EPERM"])?;
    let records = events::until_marker(live.mark, &live.id, &marker)?;
    let denials = [Denial::no_rule("xattr").on(&path).asking("metadata"), Denial::floor("io-uring")];
    promise::judged(&records, &denials, &agent)
}

const RING: &str = "attack_asynchronous::what_a_ring_does_is_judged_like_a_call";
const OUTSIDERS: &str = "unix::sockets_of_outsiders_are_refused";
const ASKED: &str = "unix::the_daemon_and_the_system_manager_cannot_be_asked";

#[rustfmt::skip]
pub const ATTACKS: &[Attack] = &[
    refused("A01", "a ring of system calls (`io_uring_setup`), where no policy grants one", "inode_init_security_anon", "floor::no_ring_of_system_calls", "io-uring"),
    refused("A02", "where one is granted: opening by a ring", "file_open", RING, "open"),
    refused("A03", "`openat2` by a ring", "file_open", RING, "open2"),
    refused("A04", "opening into a slot of the ring, without a descriptor", "file_open", RING, "open-slot"),
    refused("A05", "creating by a ring", "path_mknod", RING, "create"),
    refused("A06", "removing by a ring", "path_unlink", RING, "unlink"),
    refused("A07", "`mkdirat` by a ring", "path_mkdir", RING, "mkdir"),
    refused("A08", "`symlinkat` by a ring", "path_symlink", RING, "symlink x"),
    refused("A09", "`linkat` by a ring", "path_link", RING, "link"),
    refused("A10", "`renameat` by a ring", "path_rename", RING, "rename"),
    refused("A11", "`setxattr` by a ring", "inode_setxattr", RING, "setxattr"),
    refused("A12", "`fsetxattr` by a ring", "inode_setxattr", RING, "ring-fsetxattr"),
    refused("A13", "`ftruncate` by a ring", "file_truncate", RING, "ring-ftruncate").on("6.12, newest"),
    refused("A14", "connecting by a ring", "socket_connect", RING, "connect"),
    refused("A15", "a packet by a ring", "socket_sendmsg", RING, "sendmsg"),
    refused("A16", "TCP Fast Open by a ring", "socket_sendmsg", RING, "send-fastopen"),
    refused("A17", "a raw socket by a ring", "socket_create", RING, "2 3 1"),
    refused("A18", "binding by a ring", "socket_bind", RING, "ring-bind").on("6.12, newest"),
    refused("A19", "listening by a ring", "socket_listen", RING, "ring-listen").on("6.12, newest"),
    refused("A20", "a source route by a command to a socket", "socket_setsockopt", RING, "ring-socket-option").on("6.12, newest"),
    refused("A21", "all of these in a worker thread (`IOSQE_ASYNC`)", "the same; task_alloc labels the worker", RING, "+async"),
    refused("A22", "all of these in the kernel thread of a polled ring (`SQPOLL`)", "the same; task_alloc labels the thread", RING, "+poll"),
    refused("A23", "a ring with credentials from before the process changed its own", "inode_setxattr", "attack_asynchronous::what_a_ring_does_with_other_credentials_is_judged", "ring-setxattr-as"),
    refused("A24", "a ring that was made outside and is inherited", "the launch: no descriptor enters a session", "sessions::a_session_gets_nothing_of_its_callers", "/proc/self/fd"),
    refused("A25", "an outsider's socket with a path", "unix_stream_connect", OUTSIDERS, "unix-stream"),
    refused("A26", "an outsider's socket with an abstract name", "unix_stream_connect", OUTSIDERS, "unix-stream @enforcer-tests-stream"),
    refused("A27", "an outsider's datagram socket with a path", "unix_may_send", OUTSIDERS, "unix-dgram"),
    refused("A28", "an outsider's datagram socket with an abstract name", "unix_may_send", OUTSIDERS, "unix-dgram @enforcer-tests-dgram"),
    refused("A29", "connecting a datagram socket to one of an outsider", "unix_may_send", OUTSIDERS, "unix-dgram-connect"),
    refused("A30", "a socket of another session", "unix_stream_connect", "unix::sockets_of_another_session_are_refused", "unix-stream @other-session"),
    refused("A31", "the daemon's control socket", "unix_stream_connect", ASKED, "/run/enforcer/control.sock"),
    refused("A32", "the service manager (`systemd-run`)", "unix_stream_connect", ASKED, "/run/systemd/private"),
    refused("A33", "D-Bus", "unix_stream_connect", ASKED, "/run/dbus/system_bus_socket"),
    refused("A34", "the command line's questions to the daemon", "unix_stream_connect", "unix::the_command_line_answers_no_agent", "status"),
    refused("A35", "a socket that rules deny among allowed ones", "unix_stream_connect, unix_may_send", "grants::a_denied_socket_stays_denied_among_allowed_ones", "unix-stream"),
    refused("A36", "a ring with such credentials, when no policy allows a ring any more", "inode_setxattr", "attack_asynchronous::a_ring_that_no_policy_allows_any_more_is_judged", "ring-setxattr-late"),
];
