//! Reaching addresses in every spelling and by every call.

use super::{
    Act, Args,
    sys::{self, fd, sys},
};
use std::{
    io,
    net::{IpAddr, Ipv4Addr, Ipv6Addr},
    os::fd::{AsRawFd, OwnedFd},
};

pub(super) const ACTS: &[(&str, Act)] = &[
    ("tcp", tcp),
    ("tcp-from", |a| from(a, libc::SOCK_STREAM)),
    ("udp-from", |a| from(a, libc::SOCK_DGRAM)),
    ("keep-tcp", keep_tcp),
    ("v4mapped", v4mapped),
    ("tfo", tfo),
    ("tfo-mapped", tfo_mapped),
    ("tfo-option", tfo_option),
    ("udp-connect", udp_connect),
    ("udp-send", udp_send),
    ("udp-corked", udp_corked),
    ("udp-segments", udp_segments),
    ("udp-mapped", udp_mapped),
    ("udp6-inet", udp6_inet),
    ("udp-sendmsg", udp_sendmsg),
    ("udp-sendmmsg", udp_sendmmsg),
    ("udp-connected-elsewhere", udp_connected_elsewhere),
    ("udp-unspec", udp_unspec),
    ("tcp-disconnect", tcp_disconnect),
    ("bind", |a| bind(a, libc::SOCK_STREAM)),
    ("bind-udp", |a| bind(a, libc::SOCK_DGRAM)),
    ("bind-unspec", bind_unspec),
    ("bind-listen", bind_listen),
    ("listen-unbound", listen_unbound),
    ("accept-when", accept_when),
    ("socket", socket_of),
    ("socketpair", socketpair),
];

pub(super) fn ip(args: &Args<'_>, index: usize) -> io::Result<IpAddr> {
    args.str(index)?.parse().map_err(|_| super::usage("not an address"))
}

/// `struct sockaddr_in` or `sockaddr_in6`.
pub(super) fn address(ip: IpAddr, port: u16) -> Vec<u8> {
    let family = if ip.is_ipv4() { libc::AF_INET } else { libc::AF_INET6 } as u16;
    let mut bytes = [family.to_ne_bytes(), port.to_be_bytes()].concat();
    match ip {
        IpAddr::V4(ip) => bytes.extend(ip.octets().into_iter().chain([0; 8])),
        IpAddr::V6(ip) => bytes.extend([0; 4].into_iter().chain(ip.octets()).chain([0; 4])),
    }
    bytes
}

/// The address in the arguments from `index` on: host and port.
pub(super) fn given(args: &Args<'_>, index: usize) -> io::Result<Vec<u8>> {
    Ok(address(ip(args, index)?, args.number(index + 1)?))
}

fn mapped(args: &Args<'_>) -> io::Result<Vec<u8>> {
    let IpAddr::V4(v4) = ip(args, 0)? else { return Err(super::usage("an IPv4 address")) };
    Ok(address(Ipv6Addr::from(v4.to_ipv6_mapped().octets()).into(), args.number(1)?))
}

pub(super) fn family_of(address: &[u8]) -> i32 {
    i32::from(u16::from_ne_bytes([address[0], address[1]]))
}

pub(super) fn socket(family: i32, kind: i32) -> io::Result<OwnedFd> {
    fd!(SYS_socket, family, kind | libc::SOCK_CLOEXEC, 0)
}

pub(super) fn connect(socket: &OwnedFd, address: &[u8]) -> io::Result<()> {
    sys!(SYS_connect, socket, address, address.len()).map(drop)
}

/// `keep-tcp HOST PORT`: connects and stays connected.
fn keep_tcp(args: &Args<'_>) -> io::Result<()> {
    let address = given(args, 0)?;
    let socket = socket(family_of(&address), libc::SOCK_STREAM)?;
    connect(&socket, &address)?;
    std::mem::forget(socket);
    Ok(())
}

fn tcp(args: &Args<'_>) -> io::Result<()> {
    let to = given(args, 0)?;
    connect(&socket(family_of(&to), libc::SOCK_STREAM)?, &to)
}

/// `tcp-from LOCAL HOST PORT`, `udp-from LOCAL HOST PORT`: binds the local address and any port, and connects or sends.
fn from(args: &Args<'_>, kind: i32) -> io::Result<()> {
    let (own, to) = (address(ip(args, 0)?, 0), given(args, 1)?);
    let socket = socket(family_of(&own), kind)?;
    sys!(SYS_bind, &socket, &own, own.len())?;
    if kind == libc::SOCK_STREAM { connect(&socket, &to) } else { send_to(&socket, &to, 0) }
}

fn v4mapped(args: &Args<'_>) -> io::Result<()> {
    connect(&socket(libc::AF_INET6, libc::SOCK_STREAM)?, &mapped(args)?)
}

const PACKET: &[u8] = b"probe";

pub(super) fn send_to(socket: &OwnedFd, to: &[u8], flags: i32) -> io::Result<()> {
    sys!(SYS_sendto, socket, PACKET, PACKET.len(), flags, to, to.len()).map(drop)
}

/// TCP Fast Open: connects by sending.
fn tfo(args: &Args<'_>) -> io::Result<()> {
    let to = given(args, 0)?;
    send_to(&socket(family_of(&to), libc::SOCK_STREAM)?, &to, libc::MSG_FASTOPEN)
}

fn tfo_mapped(args: &Args<'_>) -> io::Result<()> {
    send_to(&socket(libc::AF_INET6, libc::SOCK_STREAM)?, &mapped(args)?, libc::MSG_FASTOPEN)
}

fn tfo_option(args: &Args<'_>) -> io::Result<()> {
    let to = given(args, 0)?;
    let socket = socket(family_of(&to), libc::SOCK_STREAM)?;
    let on = 1i32.to_ne_bytes();
    sys!(SYS_setsockopt, &socket, libc::IPPROTO_TCP, libc::TCP_FASTOPEN_CONNECT, &on[..], 4)?;
    connect(&socket, &to)?;
    sys!(SYS_write, &socket, PACKET, PACKET.len()).map(drop)
}

fn udp_connect(args: &Args<'_>) -> io::Result<()> {
    let to = given(args, 0)?;
    connect(&socket(family_of(&to), libc::SOCK_DGRAM)?, &to)
}

fn udp_send(args: &Args<'_>) -> io::Result<()> {
    let to = given(args, 0)?;
    send_to(&socket(family_of(&to), libc::SOCK_DGRAM)?, &to, 0)
}

/// In two parts, which leave as one packet at the end of the second call.
fn udp_corked(args: &Args<'_>) -> io::Result<()> {
    let to = given(args, 0)?;
    let socket = socket(family_of(&to), libc::SOCK_DGRAM)?;
    send_to(&socket, &to, libc::MSG_MORE)?;
    send_to(&socket, &to, 0)
}

/// Several datagrams that the kernel makes of one.
fn udp_segments(args: &Args<'_>) -> io::Result<()> {
    let to = given(args, 0)?;
    let socket = socket(family_of(&to), libc::SOCK_DGRAM)?;
    sys!(SYS_setsockopt, &socket, libc::SOL_UDP, libc::UDP_SEGMENT, &1i32.to_ne_bytes()[..], 4)?;
    send_to(&socket, &to, 0)
}

fn udp_mapped(args: &Args<'_>) -> io::Result<()> {
    send_to(&socket(libc::AF_INET6, libc::SOCK_DGRAM)?, &mapped(args)?, 0)
}

/// A plain IPv4 address on an IPv6 socket (`udpv6_sendmsg()` takes it).
fn udp6_inet(args: &Args<'_>) -> io::Result<()> {
    send_to(&socket(libc::AF_INET6, libc::SOCK_DGRAM)?, &given(args, 0)?, 0)
}

/// `struct mmsghdr` for `count` packets to one address.
fn messages(to: &mut [u8], vector: &mut libc::iovec, count: usize) -> Vec<libc::mmsghdr> {
    let mut header: libc::mmsghdr = sys::zeroed();
    header.msg_hdr.msg_name = to.as_mut_ptr().cast();
    header.msg_hdr.msg_namelen = to.len() as u32;
    header.msg_hdr.msg_iov = vector;
    header.msg_hdr.msg_iovlen = 1;
    vec![header; count]
}

fn udp_sendmmsg(args: &Args<'_>) -> io::Result<()> {
    let mut to = given(args, 0)?;
    let socket = socket(family_of(&to), libc::SOCK_DGRAM)?;
    let mut vector = libc::iovec { iov_base: PACKET.as_ptr().cast_mut().cast(), iov_len: PACKET.len() };
    let mut all = messages(&mut to, &mut vector, 3);
    // SAFETY: three headers that point to `to` and `vector`, which outlive the call; what they point to
    // is only read.
    sys::result(unsafe { libc::sendmmsg(socket.as_raw_fd(), all.as_mut_ptr(), 3, 0) }.into()).map(drop)
}

fn udp_sendmsg(args: &Args<'_>) -> io::Result<()> {
    let mut to = given(args, 0)?;
    let socket = socket(family_of(&to), libc::SOCK_DGRAM)?;
    let mut vector = libc::iovec { iov_base: PACKET.as_ptr().cast_mut().cast(), iov_len: PACKET.len() };
    let all = messages(&mut to, &mut vector, 1);
    // SAFETY: as in `udp_sendmmsg`.
    sys::result(unsafe { libc::sendmsg(socket.as_raw_fd(), &all[0].msg_hdr, 0) } as i64).map(drop)
}

/// `udp-connected-elsewhere HOST PORT HOST PORT`: connects to the first, sends to the second.
fn udp_connected_elsewhere(args: &Args<'_>) -> io::Result<()> {
    let first = given(args, 0)?;
    let socket = socket(family_of(&first), libc::SOCK_DGRAM)?;
    connect(&socket, &first)?;
    send_to(&socket, &given(args, 2)?, 0)
}

/// An IPv4 address that says it is of no family: `udp_sendmsg()` takes it for one.
fn udp_unspec(args: &Args<'_>) -> io::Result<()> {
    let mut to = given(args, 0)?;
    to[..2].copy_from_slice(&(libc::AF_UNSPEC as u16).to_ne_bytes());
    send_to(&socket(libc::AF_INET, libc::SOCK_DGRAM)?, &to, 0)
}

/// `connect` with no family dissolves what there is and reaches nothing.
fn tcp_disconnect(_: &Args<'_>) -> io::Result<()> {
    connect(&socket(libc::AF_INET, libc::SOCK_STREAM)?, &[0u8; 16])
}

fn bound(args: &Args<'_>, kind: i32) -> io::Result<OwnedFd> {
    let at = given(args, 0)?;
    let socket = socket(family_of(&at), kind)?;
    sys!(SYS_setsockopt, &socket, libc::SOL_SOCKET, libc::SO_REUSEADDR, &1i32.to_ne_bytes()[..], 4)?;
    sys!(SYS_bind, &socket, &at, at.len())?;
    Ok(socket)
}

fn bind(args: &Args<'_>, kind: i32) -> io::Result<()> {
    bound(args, kind).map(drop)
}

/// 0.0.0.0 that says it is of no family: `__inet_bind()` takes it.
fn bind_unspec(args: &Args<'_>) -> io::Result<()> {
    let mut at = address(Ipv4Addr::UNSPECIFIED.into(), args.number(0)?);
    at[..2].copy_from_slice(&(libc::AF_UNSPEC as u16).to_ne_bytes());
    let socket = socket(libc::AF_INET, libc::SOCK_STREAM)?;
    sys!(SYS_bind, &socket, &at, at.len()).map(drop)
}

fn bind_listen(args: &Args<'_>) -> io::Result<()> {
    sys!(SYS_listen, &bound(args, libc::SOCK_STREAM)?, 1).map(drop)
}

/// `accept-when ADDRESS PORT FILE`: listens there, and takes a connection once the file is there.
fn accept_when(args: &Args<'_>) -> io::Result<()> {
    let socket = bound(args, libc::SOCK_STREAM)?;
    sys!(SYS_listen, &socket, 1)?;
    while std::fs::symlink_metadata(args.word(2)?).is_err() {
        std::thread::sleep(std::time::Duration::from_millis(20));
    }
    fd!(SYS_accept4, &socket, 0, 0, libc::SOCK_CLOEXEC).map(drop)
}

/// `listen` binds a socket that was not bound.
fn listen_unbound(_: &Args<'_>) -> io::Result<()> {
    sys!(SYS_listen, &socket(libc::AF_INET, libc::SOCK_STREAM)?, 1).map(drop)
}

fn socket_of(args: &Args<'_>) -> io::Result<()> {
    let (family, kind, protocol): (i32, i32, i32) = (args.number(0)?, args.number(1)?, args.number_or(2, 0)?);
    fd!(SYS_socket, family, kind | libc::SOCK_CLOEXEC, protocol).map(drop)
}

fn socketpair(_: &Args<'_>) -> io::Result<()> {
    let mut ends = [0u8; 8];
    sys!(SYS_socketpair, libc::AF_UNIX, libc::SOCK_STREAM, 0, &mut ends[..]).map(drop)
}
