//! Packets that leave: the second layer on datagrams that name their destination each time.
//!
//! Programs on `sendmsg` of the same cgroups would see the address as it was named, but where one of them is attached
//! anywhere, the kernel locks the socket for each datagram of everybody (`udp_sendmsg()`, net/ipv4/udp.c). This one
//! costs whoever is no agent's a look at an empty list (`cgroup_bpf_sock_enabled()`, include/linux/bpf-cgroup.h).
//!
//! It runs before a packet is cut into fragments (`ip_finish_output()`, net/ipv4/ip_output.c; `ip6_finish_output()`,
//! net/ipv6/ip6_output.c), nearly always in the call that sends, which then fails with EPERM. Judged is whoever made
//! the socket.

use crate::{
    layer::{self, Asked, PASS, answer},
    net,
};
use aya_ebpf::{
    bindings::{__sk_buff, bpf_sock},
    helpers::generated::{bpf_sk_fullsock, bpf_skb_load_bytes},
    macros::cgroup_skb,
    programs::SkBuffContext,
};
use core::{mem::MaybeUninit, ptr::read_volatile};
use enforcer_common::{access::net::CONNECT, address::Address, event::operation};

/// What a packet of a UDP socket is. Every member has a value whatever the kind: the compiler would merge the ways to
/// here, and the verifier takes no register that one of them has not set.
struct Given {
    kind: Kind,
    family: u16,
    /// The words of the address, as they lie in the packet; of an IPv4 address the first one.
    words: [u32; 4],
    /// Network byte order.
    port: u16,
}

#[derive(Clone, Copy, PartialEq, Eq)]
enum Kind {
    Datagram,
    /// Wrapped by the host (IPsec): not the agent's to choose.
    Other,
    /// With headers in between that the sender can ask for, so that the destination is not what it seems; or it could
    /// not be read.
    Unclear,
}

/// The destination of each UDP datagram that is not the connected peer's.
#[cgroup_skb(egress)]
pub fn egress(ctx: SkBuffContext) -> i32 {
    let packet = ctx.skb.skb;
    // SAFETY: the context is the kernel's, and these are members that the program may read.
    let socket = unsafe {
        let socket = read_volatile(&raw const (*packet).__bindgen_anon_2.sk);
        if socket.is_null() { socket } else { bpf_sk_fullsock(socket) }
    };
    // Every packet of a stream comes here. Without a socket the program would not run.
    // SAFETY: as above.
    if socket.is_null() || unsafe { read_volatile(&raw const (*socket).protocol) } != u32::from(net::UDP) {
        return PASS;
    }
    let given = read(packet);
    // Connecting was judged.
    if given.kind == Kind::Other || is_peer(socket, &given) {
        return PASS;
    }
    let Some(subject) = layer::sender(packet) else { return PASS };
    let meant = match (given.kind, given.family) {
        (Kind::Datagram, net::INET) => Some(Address::v4(given.words[0].to_ne_bytes())),
        (Kind::Datagram, _) => Address::v6(bytes(given.words)),
        _ => None,
    };
    // No rule is about an address of no family.
    let meant = Some(meant.unwrap_or(Address { family: 0, bytes: [0; 16] }));
    let port = u16::from_be(given.port);
    let (operation, family) = (operation::SEND, given.family);
    answer(&subject, &Asked { operation, want: CONNECT, meant, port, protocol: net::UDP, family })
}

#[inline(always)]
fn read(packet: *mut __sk_buff) -> Given {
    const IPV4: u32 = 0x0800u16.to_be() as u32;
    const UDP: u8 = net::UDP as u8;
    // SAFETY: the context is the kernel's, and this is a member that the program may read.
    let family =
        if unsafe { read_volatile(&raw const (*packet).protocol) } == IPV4 { net::INET } else { net::INET6 };
    let mut given = Given { kind: Kind::Unclear, family, words: [0; 4], port: 0 };
    let (next, behind) = if family == net::INET {
        let Some(header) = load::<Ipv4>(packet, 0) else { return given };
        given.words[0] = header.destination;
        (header.protocol, u32::from(header.version_and_length & 0xf) * 4)
    } else {
        let Some(header) = load::<Ipv6>(packet, 0) else { return given };
        given.words = header.destination;
        (header.next, size_of::<Ipv6>() as u32)
    };
    given.kind = match next {
        UDP => Kind::Datagram,
        // Hop-by-hop options, routing, fragment, destination options.
        0 | 43 | 44 | 60 if family == net::INET6 => Kind::Unclear,
        _ => Kind::Other,
    };
    if given.kind == Kind::Datagram {
        match load::<Ports>(packet, behind) {
            Some(ports) => given.port = ports.destination,
            None => given.kind = Kind::Unclear,
        }
    }
    given
}

/// RFC 791, 3.1, without options.
#[repr(C)]
#[derive(Clone, Copy)]
struct Ipv4 {
    version_and_length: u8,
    _unused: [u8; 8],
    protocol: u8,
    _checksum: u16,
    _source: u32,
    destination: u32,
}

/// RFC 8200, 3.
#[repr(C)]
#[derive(Clone, Copy)]
struct Ipv6 {
    _unused: [u8; 6],
    next: u8,
    _hops: u8,
    _source: [u32; 4],
    destination: [u32; 4],
}

/// RFC 768, what matters of it.
#[repr(C)]
#[derive(Clone, Copy)]
struct Ports {
    _source: u16,
    destination: u16,
}

const _: () = assert!(size_of::<Ipv4>() == 20 && size_of::<Ipv6>() == 40);

/// What lies in the packet, so far behind the beginning of its IP header.
#[inline(always)]
fn load<T: Copy>(packet: *mut __sk_buff, at: u32) -> Option<T> {
    let mut found = MaybeUninit::<T>::uninit();
    // SAFETY: the helper fills the value, which is made of plain numbers, or says that it did not.
    unsafe {
        let failed = bpf_skb_load_bytes(packet.cast(), at, found.as_mut_ptr().cast(), size_of::<T>() as u32);
        if failed == 0 { Some(found.assume_init()) } else { None }
    }
}

/// Whether the socket is connected to that very address.
#[inline(always)]
fn is_peer(socket: *const bpf_sock, given: &Given) -> bool {
    // SAFETY: the verifier knows the socket, and these are members that the program may read.
    unsafe {
        if given.kind != Kind::Datagram
            || given.port == 0
            || read_volatile(&raw const (*socket).dst_port) != given.port
        {
            return false;
        }
        if given.family == net::INET {
            return read_volatile(&raw const (*socket).dst_ip4) == given.words[0];
        }
        let at = |i: usize| read_volatile(&raw const (*socket).dst_ip6[i]) == given.words[i];
        at(0) && at(1) && at(2) && at(3)
    }
}

/// Four words as the bytes that they are.
#[inline(always)]
fn bytes(words: [u32; 4]) -> [u8; 16] {
    let [a, b, c, d] = words.map(u32::to_ne_bytes);
    [a[0], a[1], a[2], a[3], b[0], b[1], b[2], b[3], c[0], c[1], c[2], c[3], d[0], d[1], d[2], d[3]]
}
