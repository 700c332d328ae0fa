//! Addresses in spellings that programs do not use, and what makes packets go elsewhere than they say.

use super::{
    Act, Args,
    net::{address, connect, family_of, given, ip, send_to, socket},
    sys::{self, fd, sys},
};
use std::{
    io,
    net::{IpAddr, Ipv6Addr},
    os::fd::{AsRawFd, OwnedFd},
};

pub(super) const ACTS: &[(&str, Act)] = &[
    ("tcp-cut", tcp_cut),
    ("tcp-padded", tcp_padded),
    ("tcp-scoped", tcp_scoped),
    ("tcp-other-family", tcp_other_family),
    ("udp-cut", udp_cut),
    ("udp-scoped", udp_scoped),
    ("udp-wrapped", udp_wrapped),
    ("tcp-wrapped", tcp_wrapped),
    ("udp-again", udp_again),
    ("udp-after-disconnect", udp_after_disconnect),
    ("tcp-send-unconnected", |a| {
        let to = given(a, 0)?;
        send_to(&socket(family_of(&to), libc::SOCK_STREAM)?, &to, libc::MSG_NOSIGNAL)
    }),
    ("udp-mmsg-second", udp_mmsg_second),
    ("tfo-sendmmsg", tfo_sendmmsg),
    ("bind-unspec6", bind_unspec6),
    ("bind-mapped", bind_mapped),
    ("bind-cut", bind_cut),
    ("listen-unbound6", |_| sys!(SYS_listen, &socket(libc::AF_INET6, libc::SOCK_STREAM)?, 1).map(drop)),
    ("option-ip", |_| option(libc::AF_INET, libc::IPPROTO_IP, libc::IP_OPTIONS, &[1; 4])),
    ("option-retopts", |_| option(libc::AF_INET, libc::IPPROTO_IP, 7, &[0; 4])),
    ("option-rthdr", |_| option(libc::AF_INET6, libc::IPPROTO_IPV6, 57, &[])),
    ("option-2292rthdr", |_| option(libc::AF_INET6, libc::IPPROTO_IPV6, 5, &1i32.to_ne_bytes())),
    ("option-2292pktoptions", |_| option(libc::AF_INET6, libc::IPPROTO_IPV6, 6, &[])),
    ("option-mark", |_| option(libc::AF_INET, libc::SOL_SOCKET, libc::SO_MARK, &7i32.to_ne_bytes())),
    ("option-repair", |_| option(libc::AF_INET, libc::IPPROTO_TCP, 19, &1i32.to_ne_bytes())),
    ("option-transparent", |_| option(libc::AF_INET, libc::IPPROTO_IP, 19, &1i32.to_ne_bytes())),
    ("option-transparent6", |_| option(libc::AF_INET6, libc::IPPROTO_IPV6, 75, &1i32.to_ne_bytes())),
    ("option-priority", |_| option(libc::AF_INET, libc::SOL_SOCKET, libc::SO_PRIORITY, &7i32.to_ne_bytes())),
    ("option-force-buffer", |_| option(libc::AF_INET, libc::SOL_SOCKET, 33, &4096i32.to_ne_bytes())),
    ("flow-label-route", flow_label_route),
    ("udp-zero-copy", udp_zero_copy),
    ("control-retopts", |a| control(a, libc::IPPROTO_IP, 7, &[0; 4])),
    ("control-rthdr", |a| control(a, libc::IPPROTO_IPV6, 57, &[0; 8])),
    ("control-behind-others", control_behind_others),
    // struct in_pktinfo, in6_pktinfo: the interface with the number 1, and none with a local address.
    ("control-interface", |a| {
        control(a, libc::IPPROTO_IP, libc::IP_PKTINFO, &[1, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0])
    }),
    ("control-interface6", |a| {
        let mut interface = [0; 20];
        interface[16] = 1;
        control(a, libc::IPPROTO_IPV6, libc::IPV6_PKTINFO, &interface)
    }),
    ("control-source", |a| {
        control(a, libc::IPPROTO_IP, libc::IP_PKTINFO, &[0, 0, 0, 0, 127, 0, 0, 1, 0, 0, 0, 0])
    }),
    ("control-tos", |a| control(a, libc::IPPROTO_IP, libc::IP_TOS, &0i32.to_ne_bytes())),
    ("link-down", link_down),
    ("add-route", add_route),
    ("set-address", set_address),
    ("abstract-autobind", abstract_autobind),
];

fn v6(args: &Args<'_>) -> io::Result<Vec<u8>> {
    let to = given(args, 0)?;
    if family_of(&to) == libc::AF_INET6 { Ok(to) } else { Err(super::usage("an IPv6 address")) }
}

/// `tcp-cut HOST PORT LENGTH`: so many bytes of the address.
fn tcp_cut(args: &Args<'_>) -> io::Result<()> {
    let to = given(args, 0)?;
    let socket = socket(family_of(&to), libc::SOCK_STREAM)?;
    sys!(SYS_connect, &socket, &to, args.number::<usize>(2)?).map(drop)
}

/// An address that is longer than one is.
fn tcp_padded(args: &Args<'_>) -> io::Result<()> {
    let mut to = given(args, 0)?;
    let family = family_of(&to);
    to.resize(128, 0xff);
    connect(&socket(family, libc::SOCK_STREAM)?, &to)
}

fn scoped(args: &Args<'_>) -> io::Result<Vec<u8>> {
    let mut to = v6(args)?;
    // The flow label is looked at only where it was asked for.
    to[4..8].copy_from_slice(&0x000f_ffff_u32.to_be_bytes());
    to[24..28].copy_from_slice(&1u32.to_ne_bytes());
    Ok(to)
}

fn tcp_scoped(args: &Args<'_>) -> io::Result<()> {
    connect(&socket(libc::AF_INET6, libc::SOCK_STREAM)?, &scoped(args)?)
}

fn udp_scoped(args: &Args<'_>) -> io::Result<()> {
    send_to(&socket(libc::AF_INET6, libc::SOCK_DGRAM)?, &scoped(args)?, 0)
}

/// An address of one family on a socket of the other.
fn tcp_other_family(args: &Args<'_>) -> io::Result<()> {
    let to = given(args, 0)?;
    let other = if family_of(&to) == libc::AF_INET { libc::AF_INET6 } else { libc::AF_INET };
    connect(&socket(other, libc::SOCK_STREAM)?, &to)
}

/// `udp-cut HOST PORT LENGTH`
fn udp_cut(args: &Args<'_>) -> io::Result<()> {
    let to = given(args, 0)?;
    let socket = socket(family_of(&to), libc::SOCK_DGRAM)?;
    sys!(SYS_sendto, &socket, &b"x"[..], 1, 0, &to, args.number::<usize>(2)?).map(drop)
}

/// An IPv4 address inside an IPv6 one: `compatible`, `nat64`, `6to4` or `isatap`.
fn wrapped(args: &Args<'_>) -> io::Result<Vec<u8>> {
    let IpAddr::V4(v4) = ip(args, 1)? else { return Err(super::usage("an IPv4 address")) };
    let [a, b, c, d] = v4.octets();
    let (high, low) = (u16::from_be_bytes([a, b]), u16::from_be_bytes([c, d]));
    let all = match args.str(0)? {
        "compatible" => [0, 0, 0, 0, 0, 0, high, low],
        "translated" => [0, 0, 0, 0, 0xffff, 0, high, low],
        "nat64" => [0x64, 0xff9b, 0, 0, 0, 0, high, low],
        "6to4" => [0x2002, high, low, 0, 0, 0, 0, 1],
        "isatap" => [0xfe80, 0, 0, 0, 0, 0x5efe, high, low],
        _ => return Err(super::usage("no such wrapping")),
    };
    Ok(address(Ipv6Addr::from(all).into(), args.number(2)?))
}

/// `tcp-wrapped HOW HOST PORT`
fn tcp_wrapped(args: &Args<'_>) -> io::Result<()> {
    connect(&socket(libc::AF_INET6, libc::SOCK_STREAM)?, &wrapped(args)?)
}

fn udp_wrapped(args: &Args<'_>) -> io::Result<()> {
    send_to(&socket(libc::AF_INET6, libc::SOCK_DGRAM)?, &wrapped(args)?, 0)
}

/// `udp-again HOST PORT HOST PORT`: connects to the first, then to the second.
fn udp_again(args: &Args<'_>) -> io::Result<()> {
    let (first, second) = (given(args, 0)?, given(args, 2)?);
    let socket = socket(family_of(&first), libc::SOCK_DGRAM)?;
    connect(&socket, &first)?;
    connect(&socket, &second)
}

/// `udp-after-disconnect HOST PORT HOST PORT`: connects to the first, dissolves that, sends to the second.
fn udp_after_disconnect(args: &Args<'_>) -> io::Result<()> {
    let (first, second) = (given(args, 0)?, given(args, 2)?);
    let socket = socket(family_of(&first), libc::SOCK_DGRAM)?;
    connect(&socket, &first)?;
    connect(&socket, &[0u8; 16])?;
    send_to(&socket, &second, 0)
}

fn vector() -> libc::iovec {
    libc::iovec { iov_base: c"x".as_ptr().cast_mut().cast(), iov_len: 1 }
}

fn header(to: &mut [u8], vector: &mut libc::iovec) -> libc::mmsghdr {
    let mut header: libc::mmsghdr = sys::zeroed();
    (header.msg_hdr.msg_name, header.msg_hdr.msg_namelen) = (to.as_mut_ptr().cast(), to.len() as u32);
    (header.msg_hdr.msg_iov, header.msg_hdr.msg_iovlen) = (vector, 1);
    header
}

/// `udp-mmsg-second HOST PORT HOST PORT`: two packets in one call, the second to another address. The call says
/// how many were sent; fewer than two is the error of the second.
fn udp_mmsg_second(args: &Args<'_>) -> io::Result<()> {
    let (mut first, mut second, mut vector) = (given(args, 0)?, given(args, 2)?, vector());
    let socket = socket(family_of(&first), libc::SOCK_DGRAM)?;
    let mut both = [header(&mut first, &mut vector), header(&mut second, &mut vector)];
    // SAFETY: two headers; what they point to outlives the call and is only read.
    let sent = sys::result(unsafe { libc::sendmmsg(socket.as_raw_fd(), both.as_mut_ptr(), 2, 0) }.into())?;
    if sent == 2 { Ok(()) } else { Err(io::Error::from_raw_os_error(libc::EPERM)) }
}

fn tfo_sendmmsg(args: &Args<'_>) -> io::Result<()> {
    let (mut to, mut vector) = (given(args, 0)?, vector());
    let socket = socket(family_of(&to), libc::SOCK_STREAM)?;
    let mut one = [header(&mut to, &mut vector)];
    // SAFETY: one header; what it points to outlives the call and is only read.
    let done = unsafe { libc::sendmmsg(socket.as_raw_fd(), one.as_mut_ptr(), 1, libc::MSG_FASTOPEN) };
    sys::result(done.into()).map(drop)
}

/// `bind-unspec6 PORT`: `::` that says it is of no family.
fn bind_unspec6(args: &Args<'_>) -> io::Result<()> {
    let mut at = address(Ipv6Addr::UNSPECIFIED.into(), args.number(0)?);
    at[..2].copy_from_slice(&(libc::AF_UNSPEC as u16).to_ne_bytes());
    let socket = socket(libc::AF_INET6, libc::SOCK_STREAM)?;
    sys!(SYS_bind, &socket, &at, at.len()).map(drop)
}

fn bind_mapped(args: &Args<'_>) -> io::Result<()> {
    let IpAddr::V4(v4) = ip(args, 0)? else { return Err(super::usage("an IPv4 address")) };
    let at = address(v4.to_ipv6_mapped().into(), args.number(1)?);
    let socket = socket(libc::AF_INET6, libc::SOCK_STREAM)?;
    sys!(SYS_bind, &socket, &at, at.len()).map(drop)
}

/// `bind-cut HOST PORT LENGTH`
fn bind_cut(args: &Args<'_>) -> io::Result<()> {
    let at = given(args, 0)?;
    let socket = socket(family_of(&at), libc::SOCK_STREAM)?;
    sys!(SYS_bind, &socket, &at, args.number::<usize>(2)?).map(drop)
}

fn option(family: i32, level: i32, name: i32, value: &[u8]) -> io::Result<()> {
    sys!(SYS_setsockopt, &socket(family, libc::SOCK_STREAM)?, level, name, value, value.len()).map(drop)
}

/// `flow-label-route HOST PORT`: a flow label that carries a routing header, and a packet that is sent with it. It
/// leaves for the header's address.
fn flow_label_route(args: &Args<'_>) -> io::Result<()> {
    const MANAGE: i32 = 32;
    const SEND_LABELS: i32 = 33;
    let mut to = v6(args)?;
    let socket = socket(libc::AF_INET6, libc::SOCK_DGRAM)?;
    // `struct in6_flowlabel_req` (include/uapi/linux/in6.h): the destination, a label of the kernel's choice; get it,
    // for this socket alone, and make it.
    let mut request = to[8..24].to_vec();
    request.extend([0, 0, 0, 0, 0, 1, 1, 0]);
    request.resize(32, 0);
    // Type 2, with one address: ::1.
    let mut route = [0; 24];
    [route[1], route[2], route[3], route[23]] = [2, 2, 1, 1];
    request.extend(part(libc::IPPROTO_IPV6, 57, &route));
    let length = request.len();
    sys!(SYS_setsockopt, &socket, libc::IPPROTO_IPV6, MANAGE, &mut request[..], length)?;
    sys!(SYS_setsockopt, &socket, libc::IPPROTO_IPV6, SEND_LABELS, &1i32.to_ne_bytes()[..], 4)?;
    to[4..8].copy_from_slice(&request[16..20]);
    send_to(&socket, &to, 0)
}

/// `udp-zero-copy HOST PORT`: the packet stays in the sender's memory.
fn udp_zero_copy(args: &Args<'_>) -> io::Result<()> {
    let to = given(args, 0)?;
    let socket = socket(family_of(&to), libc::SOCK_DGRAM)?;
    sys!(SYS_setsockopt, &socket, libc::SOL_SOCKET, libc::SO_ZEROCOPY, &1i32.to_ne_bytes()[..], 4)?;
    send_to(&socket, &to, libc::MSG_ZEROCOPY)
}

/// A `struct cmsghdr` with its data.
fn part(level: i32, kind: i32, data: &[u8]) -> Vec<u8> {
    let mut bytes = (16 + data.len() as u64).to_ne_bytes().to_vec();
    bytes.extend(level.to_ne_bytes().into_iter().chain(kind.to_ne_bytes()).chain(data.iter().copied()));
    bytes.resize(bytes.len().next_multiple_of(8), 0);
    bytes
}

fn send_with(args: &Args<'_>, mut control: Vec<u8>) -> io::Result<()> {
    let (mut to, mut vector) = (given(args, 0)?, vector());
    let socket: OwnedFd = socket(family_of(&to), libc::SOCK_DGRAM)?;
    let mut message = header(&mut to, &mut vector).msg_hdr;
    (message.msg_control, message.msg_controllen) = (control.as_mut_ptr().cast(), control.len());
    // SAFETY: what the header points to outlives the call and is only read.
    sys::result(unsafe { libc::sendmsg(socket.as_raw_fd(), &raw const message, 0) } as i64).map(drop)
}

/// `control-… HOST PORT`: a packet with control data.
fn control(args: &Args<'_>, level: i32, kind: i32, data: &[u8]) -> io::Result<()> {
    send_with(args, part(level, kind, data))
}

fn control_behind_others(args: &Args<'_>) -> io::Result<()> {
    let mut all = part(libc::IPPROTO_IP, libc::IP_TTL, &64i32.to_ne_bytes());
    all.extend(part(libc::IPPROTO_IP, libc::IP_TOS, &0i32.to_ne_bytes()));
    all.extend(part(libc::IPPROTO_IP, 7, &[0; 4]));
    send_with(args, all)
}

/// A request to `rtnetlink`, and the error that it answers with.
fn netlink(kind: u16, flags: u16, body: &[u8]) -> io::Result<()> {
    let netlink = fd!(SYS_socket, libc::AF_NETLINK, libc::SOCK_RAW | libc::SOCK_CLOEXEC, 0)?;
    // struct nlmsghdr: length, type, flags, sequence, port.
    let mut bytes = (16 + body.len() as u32).to_ne_bytes().to_vec();
    bytes.extend(kind.to_ne_bytes().into_iter().chain((flags | 0x5).to_ne_bytes()));
    bytes.extend([1, 0, 0, 0, 0, 0, 0, 0].iter().chain(body));
    sys!(SYS_sendto, &netlink, &bytes, bytes.len(), 0, 0, 0)?;
    let mut answer = [0u8; 256];
    sys!(SYS_read, &netlink, &mut answer[..], 256)?;
    match i32::from_ne_bytes([answer[16], answer[17], answer[18], answer[19]]) {
        0 => Ok(()),
        error => Err(io::Error::from_raw_os_error(-error)),
    }
}

/// Takes down an interface that is down: the last dummy, by a number that nobody has.
fn link_down(_: &Args<'_>) -> io::Result<()> {
    // struct ifinfomsg: family, type, index, flags, change.
    let body: Vec<u8> = [0u32, 0x7fff_0000, 0, 1].iter().flat_map(|word| word.to_ne_bytes()).collect();
    netlink(16, 0, &body)
}

/// A route to a documentation network through an interface that nobody has.
fn add_route(_: &Args<'_>) -> io::Result<()> {
    // struct rtmsg, then RTA_DST and RTA_OIF.
    let mut body = vec![libc::AF_INET as u8, 24, 0, 0, 254, 4, 253, 1, 0, 0, 0, 0];
    body.extend([8, 0, 1, 0, 192, 0, 2, 0, 8, 0, 4, 0, 0, 0, 0xff, 0x7f]);
    netlink(24, 0x600, &body)
}

/// `SIOCSIFADDR`: the address that the loopback has.
fn set_address(_: &Args<'_>) -> io::Result<()> {
    let mut request = [0u8; 40];
    request[..2].copy_from_slice(b"lo");
    request[16..18].copy_from_slice(&(libc::AF_INET as u16).to_ne_bytes());
    request[20..24].copy_from_slice(&[127, 0, 0, 1]);
    let socket = socket(libc::AF_INET, libc::SOCK_DGRAM)?;
    sys!(SYS_ioctl, &socket, 0x8916, &request[..]).map(drop)
}

/// A name that the kernel chooses.
fn abstract_autobind(_: &Args<'_>) -> io::Result<()> {
    let socket = fd!(SYS_socket, libc::AF_UNIX, libc::SOCK_STREAM | libc::SOCK_CLOEXEC, 0)?;
    sys!(SYS_bind, &socket, &(libc::AF_UNIX as u16).to_ne_bytes()[..], 2)?;
    sys!(SYS_listen, &socket, 1).map(drop)
}
