//! The second layer on the network: programs of the agents' root cgroups, which see what the LSM hooks have let pass.
//! They judge by the same tables and share nothing else with those hooks, so that a fault there is no way out.
//!
//! A program runs if the *socket* was made below the root, whoever uses it now; judged is the running task.

use crate::{layer, net, subject::Subject};
use aya_ebpf::{
    macros::{cgroup_sock, cgroup_sock_addr},
    programs::{SockAddrContext, SockContext},
};
use core::ptr::read_volatile;
use enforcer_common::{
    access::net::{BIND, CONNECT},
    address::Address,
    event::operation,
};
use layer::{Asked, PASS, answer};

/// What a program reads of its context, before anything else.
#[derive(Clone, Copy)]
struct Given {
    v4: [u8; 4],
    v6: [u8; 16],
    /// The IPv4 address that the socket is bound to, or 0.0.0.0. Only of who connects.
    bound: [u8; 4],
    port: u16,
    protocol: u16,
}

/// SAFETY of the reads: the context is the kernel's, and these are members that every such program may read.
#[inline(always)]
fn given_v4(ctx: &SockAddrContext) -> Given {
    // SAFETY: see above.
    unsafe {
        let at = ctx.sock_addr;
        Given {
            v4: read_volatile(&raw const (*at).user_ip4).to_ne_bytes(),
            v6: [0; 16],
            bound: [0; 4],
            port: u16::from_be(read_volatile(&raw const (*at).user_port) as u16),
            protocol: read_volatile(&raw const (*at).protocol) as u16,
        }
    }
}

/// As [`given_v4`].
#[inline(always)]
fn given_v6(ctx: &SockAddrContext) -> Given {
    // SAFETY: see above.
    unsafe {
        let at = ctx.sock_addr;
        let word = |i: usize| read_volatile(&raw const (*at).user_ip6[i]).to_ne_bytes();
        let (a, b, c, d) = (word(0), word(1), word(2), word(3));
        Given {
            v4: [0; 4],
            bound: [0; 4],
            v6: [
                a[0], a[1], a[2], a[3], b[0], b[1], b[2], b[3], c[0], c[1], c[2], c[3], d[0], d[1], d[2],
                d[3],
            ],
            port: u16::from_be(read_volatile(&raw const (*at).user_port) as u16),
            protocol: read_volatile(&raw const (*at).protocol) as u16,
        }
    }
}

/// With where the socket is bound: it is locked while these programs run, and stays there (`udp_pre_connect()`, net/ipv4/udp.c,
/// `tcp_v4_pre_connect()`, net/ipv4/tcp_ipv4.c).
#[inline(always)]
fn bound(ctx: &SockAddrContext, given: Given) -> Given {
    // SAFETY: as in `given_v4`; the kernel always gives a socket.
    unsafe {
        let sock = read_volatile(&raw const (*ctx.sock_addr).__bindgen_anon_1.sk);
        if sock.is_null() {
            return given;
        }
        Given { bound: read_volatile(&raw const (*sock).src_ip4).to_ne_bytes(), ..given }
    }
}

/// What the address says of itself, whatever the socket is.
#[inline(always)]
fn named_family(ctx: &SockAddrContext) -> u32 {
    // SAFETY: as in `given_v4`.
    unsafe { read_volatile(&raw const (*ctx.sock_addr).user_family) }
}

#[inline(always)]
fn reach(subject: &Subject, operation: u16, given: Given, family: u16, meant: Option<Address>) -> i32 {
    let asked = Asked { operation, want: CONNECT, meant, port: given.port, protocol: given.protocol, family };
    answer(subject, &asked)
}

#[inline(always)]
fn take(subject: &Subject, given: Given, family: u16, meant: Address) -> i32 {
    let asked = Asked {
        operation: operation::BIND,
        want: BIND,
        meant: Some(meant),
        port: given.port,
        protocol: given.protocol,
        family,
    };
    answer(subject, &asked)
}

/// Connecting, also by sending (TCP Fast Open), and connecting datagram sockets.
#[cgroup_sock_addr(connect4)]
pub fn connect4(ctx: SockAddrContext) -> i32 {
    let given = bound(&ctx, given_v4(&ctx));
    let Some(subject) = layer::governed() else { return PASS };
    // Nothing of another family gets here: that is AF_UNSPEC, which dissolves (inet_dgram_connect(),
    // __inet_stream_connect(), net/ipv4/af_inet.c).
    reach(&subject, operation::CONNECT, given, net::INET, Some(Address::v4_from(given.v4, given.bound)))
}

/// As [`connect4`], on sockets of IPv6.
#[cgroup_sock_addr(connect6)]
pub fn connect6(ctx: SockAddrContext) -> i32 {
    let given = bound(&ctx, given_v6(&ctx));
    // Of another family: refused afterwards (tcp_v6_connect(), __ip6_datagram_connect()).
    if named_family(&ctx) != u32::from(net::INET6) {
        return PASS;
    }
    let Some(subject) = layer::governed() else { return PASS };
    let meant = if Address::is_mapped_any(given.v6) {
        Some(Address::v4_from([0; 4], given.bound))
    } else {
        Address::v6(given.v6)
    };
    reach(&subject, operation::CONNECT, given, net::INET6, meant)
}

/// Taking a local address.
#[cgroup_sock_addr(bind4)]
pub fn bind4(ctx: SockAddrContext) -> i32 {
    let given = given_v4(&ctx);
    let Some(subject) = layer::governed() else { return PASS };
    take(&subject, given, net::INET, Address::v4_local(given.v4))
}

/// As [`bind4`], on sockets of IPv6.
#[cgroup_sock_addr(bind6)]
pub fn bind6(ctx: SockAddrContext) -> i32 {
    let given = given_v6(&ctx);
    // Of another family: refused afterwards (__inet6_bind(), net/ipv6/af_inet6.c).
    if named_family(&ctx) != u32::from(net::INET6) {
        return PASS;
    }
    let Some(subject) = layer::governed() else { return PASS };
    take(&subject, given, net::INET6, Address::v6_local(given.v6))
}

/// The kinds of IP sockets that may exist. What others would send is not looked at when it leaves.
#[cgroup_sock(sock_create)]
pub fn sock_create(ctx: SockContext) -> i32 {
    const STREAM: u32 = 1;
    const DGRAM: u32 = 2;
    // SAFETY: the context is the kernel's, and these are members that the program may read.
    let (family, kind, protocol) = unsafe {
        let at = ctx.sock;
        (
            read_volatile(&raw const (*at).family),
            read_volatile(&raw const (*at).type_),
            read_volatile(&raw const (*at).protocol),
        )
    };
    let plain =
        kind == STREAM && protocol == u32::from(net::TCP) || kind == DGRAM && protocol == u32::from(net::UDP);
    let Some(subject) = layer::governed() else { return PASS };
    if plain && !subject.policy.is_null() {
        return PASS;
    }
    layer::refuse_socket(&subject, family as u16, kind, protocol as u16)
}
