//! Sockets: which may exist, and whom they may reach.

use super::armed;
use crate::{
    emit::{Denial, FIRST_USE, conclude_with, refuse, refuse_with},
    layer, maps,
    net::{self, Judged, Socket, Unspecified},
    object::{self, pointer},
    path,
    subject::Subject,
    unix,
    verifier::{Conclusion, errno, result},
};
use aya_ebpf::{macros::lsm, programs::LsmContext};
use enforcer_common::{
    access::{
        file,
        net::{BIND, CONNECT},
    },
    address::Address,
    event::{self, operation, reason},
    scratch::Scratch,
    verdict::Verdict,
};

/// An allowlist of family, type and protocol: everything else can carry packets past the rules.
#[lsm(hook = "socket_create")]
pub fn socket_create(ctx: LsmContext) -> i32 {
    let Some(subject) = armed() else { return 0 };
    let (family, kind, protocol, kernel): (i32, i32, i32, i32) =
        (ctx.arg(0), ctx.arg(1), ctx.arg(2), ctx.arg(3));
    if kernel != 0 {
        return 0;
    }
    const STREAM: i32 = 1;
    const DGRAM: i32 = 2;
    let (tcp, udp) = (i32::from(net::TCP), i32::from(net::UDP));
    let allowed = match u16::try_from(family) {
        Ok(net::UNIX) => true,
        Ok(net::INET | net::INET6) => match kind {
            STREAM => protocol == 0 || protocol == tcp,
            DGRAM => protocol == 0 || protocol == udp,
            _ => false,
        },
        // NETLINK_ROUTE: the C library asks it for the host's addresses; changing them takes a
        // capability.
        Ok(net::NETLINK) => protocol == 0,
        _ => false,
    };
    if allowed && !subject.policy.is_null() {
        return 0;
    }
    let why = if allowed { reason::NO_SESSION } else { reason::FLOOR };
    errno(refuse_with(&subject, &Denial::of(operation::SOCKET, why, kind as u32), |header| {
        header.family = family as u16;
        header.protocol = protocol as u16;
    }))
}

/// Connecting, with every protocol.
#[lsm(hook = "socket_connect")]
pub fn socket_connect(ctx: LsmContext) -> i32 {
    let Some(subject) = armed() else { return 0 };
    let (address, len): (*const u8, i32) = (ctx.arg(1), ctx.arg(2));
    let socket = net::socket(pointer(ctx.arg(0), &object::SOCKET_SOCK));
    if socket.family == net::UNIX {
        // Decided by who made the peer: see unix_stream_connect and unix_may_send.
        return 0;
    }
    result(reach(
        &subject,
        socket,
        operation::CONNECT,
        CONNECT,
        address as u64,
        len as u32,
        Unspecified::Nothing,
    ))
}

/// Sending to an address without connecting first, and TCP Fast Open, which connects by sending.
#[lsm(hook = "socket_sendmsg")]
pub fn socket_sendmsg(ctx: LsmContext) -> i32 {
    let message: *const u8 = ctx.arg(1);
    let name = pointer(message, &object::MSG_NAME);
    let control: u64 = object::number(message, &object::MSG_CONTROLLEN);
    if name.is_null() && control == 0 {
        // Goes to the peer that connect was asked about.
        return 0;
    }
    let Some(subject) = armed() else { return 0 };
    let socket = net::socket(pointer(ctx.arg(0), &object::SOCKET_SOCK));
    if socket.family == net::UNIX || socket.family == net::NETLINK {
        return 0;
    }
    if control != 0 {
        let sc = maps::SCRATCH.of_current_or_new();
        if !sc.is_null() {
            // Through memory: newer kernels type it as a pointer, a global function wants a number.
            // SAFETY: not null.
            unsafe {
                let at = pointer(message, &object::MSG_CONTROL) as u64;
                core::ptr::write_volatile(&raw mut (*sc).address, at);
            }
        }
        if net::control_reroutes(sc, control) != 0 {
            return errno(refuse(&subject, &Denial::of(operation::SOCKET_OPTION, reason::FLOOR, 0)));
        }
    }
    if name.is_null() {
        return 0;
    }
    let len: u32 = object::number(message, &object::MSG_NAMELEN);
    result(reach(&subject, socket, operation::SEND, CONNECT, name as u64, len, Unspecified::Inet))
}

/// Taking a local address.
#[lsm(hook = "socket_bind")]
pub fn socket_bind(ctx: LsmContext) -> i32 {
    let Some(subject) = armed() else { return 0 };
    let (address, len): (*const u8, i32) = (ctx.arg(1), ctx.arg(2));
    let socket = net::socket(pointer(ctx.arg(0), &object::SOCKET_SOCK));
    if socket.family == net::UNIX || socket.family == net::NETLINK {
        return 0;
    }
    let sc = maps::SCRATCH.of_current_or_new();
    if sc.is_null() {
        return result(lost(&subject, operation::BIND));
    }
    let judged = net::judge_bind(sc, &subject, socket, address as u64, len as u32);
    result(answer(sc, &subject, socket, operation::BIND, BIND, judged))
}

/// Listening, which binds a socket that was not bound.
#[lsm(hook = "socket_listen")]
pub fn socket_listen(ctx: LsmContext) -> i32 {
    let Some(subject) = armed() else { return 0 };
    let socket = net::socket(pointer(ctx.arg(0), &object::SOCKET_SOCK));
    // Bound already: the port was judged then. Otherwise listen picks one on every address.
    if socket.family == net::UNIX || socket.port != 0 {
        return 0;
    }
    let sc = maps::SCRATCH.of_current_or_new();
    if sc.is_null() {
        return result(lost(&subject, operation::LISTEN));
    }
    let any = Address { family: if socket.family == net::INET6 { 6 } else { 4 }, bytes: [0; 16] };
    let judged = net::look_up(sc, &subject, socket.protocol, &any, 0, BIND);
    result(answer(sc, &subject, socket, operation::LISTEN, BIND, judged))
}

/// Taking a connection, by a socket that the session has made. Where it listens is certain now: while `listen` is asked
/// about, another thread can still take a port away from a socket that was not bound by name, and it gets another one, on
/// every address.
#[lsm(hook = "socket_accept")]
pub fn socket_accept(ctx: LsmContext) -> i32 {
    let Some(subject) = armed() else { return 0 };
    let sock = pointer(ctx.arg(0), &object::SOCKET_SOCK);
    let socket = net::socket(sock);
    if !matches!(socket.family, net::INET | net::INET6) || !net::made_in_session(&subject, sock) {
        return 0;
    }
    let sc = maps::SCRATCH.of_current_or_new();
    if sc.is_null() {
        return result(lost(&subject, operation::LISTEN));
    }
    let Some(local) = net::local_address(sock, socket.family) else {
        return result(lost(&subject, operation::LISTEN));
    };
    // As it was asked about if the port was left to the kernel, or else as it is.
    let mut judged = net::look_up(sc, &subject, socket.protocol, &local, 0, BIND);
    if matches!(judged, Judged::Refused(why) if why != reason::HELD) {
        judged = net::look_up(sc, &subject, socket.protocol, &local, socket.port, BIND);
    }
    // A person has answered when it was bound.
    if matches!(judged, Judged::Refused(reason::HELD)) {
        return 0;
    }
    result(answer(sc, &subject, socket, operation::LISTEN, BIND, judged))
}

/// Options by which packets leave elsewhere than the address that is judged says.
#[lsm(hook = "socket_setsockopt")]
pub fn socket_setsockopt(ctx: LsmContext) -> i32 {
    let (level, option): (i32, i32) = (ctx.arg(1), ctx.arg(2));
    if !net::leads_elsewhere(level as u32, option as u32) {
        return 0;
    }
    let Some(subject) = armed() else { return 0 };
    errno(refuse(&subject, &Denial::of(operation::SOCKET_OPTION, reason::FLOOR, option as u32)))
}

/// A stream or packet connection between unix sockets.
#[lsm(hook = "unix_stream_connect")]
pub fn unix_stream_connect(ctx: LsmContext) -> i32 {
    let Some(subject) = armed() else { return 0 };
    result(unix_peer(&subject, ctx.arg(1), operation::UNIX_CONNECT))
}

/// A datagram between unix sockets, or their connecting.
#[lsm(hook = "unix_may_send")]
pub fn unix_may_send(ctx: LsmContext) -> i32 {
    let Some(subject) = armed() else { return 0 };
    let other: *const u8 = ctx.arg(1);
    result(unix_peer(&subject, pointer(other, &object::SOCKET_SOCK), operation::UNIX_SEND))
}

/// Peers are the session's own sockets, whatever name they have, and others that rules name.
#[inline(always)]
fn unix_peer(subject: &Subject, peer: *const u8, operation: u16) -> Conclusion {
    if !peer.is_null() && net::made_in_session(subject, peer) {
        return Conclusion::GoOn;
    }
    let mut denial =
        Denial::of(operation, if subject.policy.is_null() { reason::NO_SESSION } else { reason::FLOOR }, 0);
    denial.access = file::CONNECT;
    let name = unix::name(subject, peer);
    if let Some(states) = name.states {
        let others = if name.dentry == 0 { 0 } else { path::known_link(subject, name.dentry) };
        let rights = path::rights_with(subject, others, &states);
        match rights.verdict(file::CONNECT) {
            Verdict::Allow if path::is_first(subject, &states, file::CONNECT) => denial.reason = FIRST_USE,
            Verdict::Allow => return Conclusion::GoOn,
            Verdict::Hold => denial.reason = reason::HELD,
            // Without a rule it is the floor that refuses, in audit mode too.
            Verdict::Deny if rights.deny & file::CONNECT != 0 => denial.reason = reason::RULE,
            Verdict::Deny => {}
        }
        denial.states = states;
    }
    // Whoever bears a session's label may ask about that session; the daemon answers about no other.
    let own = operation == event::operation::UNIX_CONNECT && !subject.policy.is_null();
    if own && unix::is_agent_socket(name.dentry) {
        return Conclusion::GoOn;
    }
    denial.dentry = name.dentry;
    denial.mount = name.mount;
    conclude_with(subject, &denial, |header| header.family = net::UNIX)
}

#[inline(always)]
fn reach(
    subject: &Subject,
    socket: Socket,
    operation: u16,
    want: u16,
    address: u64,
    len: u32,
    unspecified: Unspecified,
) -> Conclusion {
    let sc = maps::SCRATCH.of_current_or_new();
    if sc.is_null() {
        return lost(subject, operation);
    }
    let judged = net::judge(sc, subject, socket, address, len, want, unspecified);
    answer(sc, subject, socket, operation, want, judged)
}

/// Refuses for want of working memory, which a record would take too: it is counted.
#[inline(always)]
fn lost(subject: &Subject, operation: u16) -> Conclusion {
    conclude_with(subject, &Denial::of(operation, reason::INTERNAL, 0), |_| {})
}

#[inline(always)]
fn answer(
    sc: *const Scratch,
    subject: &Subject,
    socket: Socket,
    operation: u16,
    want: u16,
    judged: Judged,
) -> Conclusion {
    let (why, set) = match judged {
        Judged::Allowed => return Conclusion::GoOn,
        Judged::First(set) => (FIRST_USE, set),
        Judged::Refused(why) => (why, 0),
    };
    let why = if subject.policy.is_null() { reason::NO_SESSION } else { why };
    let mut denial = Denial::of(operation, why, set.into());
    denial.access = want;
    // SAFETY: the scratch is not null; a record is made in another part of it.
    let conclusion = unsafe {
        denial.states[0] = (*sc).range;
        conclude_with(subject, &denial, |header| {
            header.address = (*sc).prefix.address;
            header.port = (*sc).port;
            header.protocol = socket.protocol;
            header.family = match (*sc).prefix.family {
                4 => net::INET,
                6 => net::INET6,
                _ => socket.family,
            };
        })
    };
    if conclusion == Conclusion::GoOn && why == reason::HELD {
        layer::let_pass(u64::from(want));
    }
    conclusion
}
