//! Which address is meant, and what do the rules say about it?

use crate::{maps, object, path, subject::Subject, verifier::bound};
use aya_ebpf::{helpers::generated::bpf_probe_read_kernel, maps::lpm_trie::Key};
use enforcer_common::{
    access::net::BIND,
    address::Address,
    event::reason,
    map::{NetKey, NetValue, PortRange},
    offsets::Extra,
    scratch::{Reached, Scratch, Sockaddr},
    verdict::Verdict,
};

/// `AF_UNSPEC`, `AF_UNIX`, `AF_INET`, `AF_INET6`, `AF_NETLINK`.
pub const UNSPEC: u16 = 0;
/// `AF_UNIX`.
pub const UNIX: u16 = 1;
/// `AF_INET`.
pub const INET: u16 = 2;
/// `AF_INET6`.
pub const INET6: u16 = 10;
/// `AF_NETLINK`.
pub const NETLINK: u16 = 16;
/// `IPPROTO_TCP`.
pub const TCP: u16 = 6;
/// `IPPROTO_UDP`.
pub const UDP: u16 = 17;

/// A socket, as far as rules know one.
#[derive(Clone, Copy)]
pub struct Socket {
    /// Address family.
    pub family: u16,
    /// Protocol number.
    pub protocol: u16,
    /// The port that it is bound to, or 0.
    pub port: u16,
    /// Where the `struct sock` lies.
    pub at: u64,
}

/// The socket behind a `struct sock` that the verifier knows. Without one it is of no family, which
/// nothing allows.
#[inline(always)]
pub fn socket(sock: *const u8) -> Socket {
    if sock.is_null() {
        return Socket { family: UNSPEC, protocol: 0, port: 0, at: 0 };
    }
    Socket {
        family: object::number(sock, &object::SOCK_FAMILY),
        protocol: object::number(sock, &object::SOCK_PROTOCOL),
        port: object::number(sock, &object::SOCK_PORT),
        at: sock as u64,
    }
}

/// Whether the socket has a link-local address and `to` is none, nor a group on the link (`ff02::`): its packets would leave by that address's interface, whatever
/// the routes say (`__inet6_bind()`, net/ipv6/af_inet6.c, ties the socket to it).
#[inline(always)]
fn is_tied(socket: Socket, to: [u8; 16]) -> bool {
    let link_local = |bytes: [u8; 2]| bytes[0] == 0xfe && bytes[1] & 0xc0 == 0x80;
    let own = object::peek::<[u8; 2]>(socket.at + object::SOCK_LOCAL6.get() as u64);
    let on_the_link = link_local([to[0], to[1]]) || to[0] == 0xff && to[1] & 0xf == 2;
    !on_the_link && own.is_none_or(link_local)
}

/// Where 0.0.0.0 leads from an Internet socket: see [`Address::v4_from`]. `None`: that cannot be told.
#[inline(always)]
fn from_anywhere(socket: Socket) -> Option<Address> {
    let bound = object::peek::<[u8; 4]>(socket.at + object::SOCK_SOURCE.get() as u64)?;
    Some(Address::v4_from([0; 4], bound))
}

/// What the rules say about an address; which one it was stands in the scratch.
#[derive(Clone, Copy)]
pub enum Judged {
    /// It may be reached.
    Allowed,
    /// It may be reached, and something of what was asked was never used before as the set of rules with this number
    /// allows it.
    First(u16),
    /// It may not, for this reason (one of [`reason`]).
    Refused(u16),
}

/// What a call that names an address means by an address of family `AF_UNSPEC`.
#[derive(Clone, Copy, PartialEq, Eq)]
pub enum Unspecified {
    /// Nothing is reached (`connect`: dissolves the association).
    Nothing,
    /// The same as `AF_INET` (`udp_sendmsg()`, net/ipv4/udp.c). An IPv6 socket would take it as no
    /// address, but it can become an IPv4 socket between this judgement and the sending
    /// (`IPV6_ADDRFORM`).
    Inet,
}

/// Reads the socket address at `address`, `len` bytes of kernel memory, into the scratch. Returns the
/// size that was read, or 0.
#[inline(always)]
fn read(sc: *mut Scratch, address: u64, len: u32) -> u64 {
    const LONGEST: u64 = size_of::<Sockaddr>() as u64;
    let size = bound::<31>(if u64::from(len) > LONGEST { LONGEST } else { u64::from(len) });
    if size < 2 || size > LONGEST {
        return 0;
    }
    // SAFETY: the scratch is not null, and at most a whole `Sockaddr` is written. Bytes that the
    // caller did not give are not looked at.
    unsafe {
        clear(sc);
        if bpf_probe_read_kernel((&raw mut (*sc).sockaddr).cast(), size as u32, address as *const _) != 0 {
            return 0;
        }
    }
    size
}

/// No address yet.
#[inline(always)]
pub fn clear(sc: *mut Scratch) {
    // SAFETY: the scratch is not null.
    unsafe {
        (*sc).prefix.family = 0;
        (*sc).prefix.address = [0; 16];
        (*sc).port = 0;
        (*sc).range = u32::MAX;
    }
}

/// Judges `want` on the destination at `address`, `len` bytes of kernel memory.
#[inline(always)]
pub fn judge(
    sc: *mut Scratch,
    subject: &Subject,
    socket: Socket,
    address: u64,
    len: u32,
    want: u16,
    unspecified: Unspecified,
) -> Judged {
    let now = asked(subject, socket, address, len, want);
    // SAFETY: not null.
    if let Some(now) = &now
        && unsafe { (*sc).reached == *now }
    {
        return Judged::Allowed;
    }
    let size = read(sc, address, len);
    // SAFETY: not null.
    let raw = unsafe { &(*sc).sockaddr };
    let mut family = raw.family;
    if size == 0 {
        return Judged::Refused(reason::UNKNOWN_OBJECT);
    }
    if family == UNSPEC {
        match unspecified {
            Unspecified::Nothing => return Judged::Allowed,
            Unspecified::Inet => family = INET,
        }
    }
    let meant = match family {
        INET if size >= 8 && Address::is_any(raw.v4) => from_anywhere(socket),
        INET if size >= 8 => Some(Address::v4(raw.v4)),
        INET6 if size >= 24 && Address::is_mapped_any(raw.v6) => from_anywhere(socket),
        INET6 if size >= 24 && is_tied(socket, raw.v6) => None,
        INET6 if size >= 24 => Address::v6(raw.v6),
        _ => None,
    };
    let Some(meant) = meant else { return Judged::Refused(reason::UNKNOWN_OBJECT) };
    let judged = look_up(sc, subject, socket.protocol, &meant, u16::from_be(raw.port), want);
    // What 0.0.0.0 means depends on the socket.
    if let (Judged::Allowed, Some(now)) = (judged, now)
        && now.address >> 32 != 0
    {
        // SAFETY: not null.
        unsafe { (*sc).reached = now };
    }
    judged
}

/// What would be remembered of this question, if it is one of those that are: about an IPv4 address, where reading
/// the caller's address costs no call.
#[inline(always)]
fn asked(subject: &Subject, socket: Socket, address: u64, len: u32, want: u16) -> Option<Reached> {
    if !object::casts() || len < 8 || subject.policy.is_null() || subject.session.is_null() {
        return None;
    }
    // The kernel's own copy: the caller cannot change it any more.
    let address = object::word(address);
    if address as u16 != INET {
        return None;
    }
    // SAFETY: map values.
    unsafe {
        let policy = u64::from((*subject.policy).id) << 32;
        let tiers = (&raw const (*subject.session).tiers).cast::<u64>();
        Some(Reached {
            address,
            policy: policy | u64::from(socket.protocol) << 16 | u64::from(want),
            tiers: [core::ptr::read_volatile(tiers), core::ptr::read_volatile(tiers.add(1))],
        })
    }
}

/// Judges binding the local address at `address`. Unlike as destinations, 0.0.0.0 and `::` are
/// addresses of their own: every address of the host.
#[inline(always)]
pub fn judge_bind(sc: *mut Scratch, subject: &Subject, socket: Socket, address: u64, len: u32) -> Judged {
    let size = read(sc, address, len);
    // SAFETY: not null.
    let raw = unsafe { &(*sc).sockaddr };
    let family = if raw.family == UNSPEC { socket.family } else { raw.family };
    let meant = match family {
        INET if size >= 8 => Address::v4_local(raw.v4),
        INET6 if size >= 24 => Address::v6_local(raw.v6),
        _ => return Judged::Refused(reason::UNKNOWN_OBJECT),
    };
    look_up(sc, subject, socket.protocol, &meant, u16::from_be(raw.port), BIND)
}

/// The local address of an Internet socket that the verifier knows.
#[inline(always)]
pub fn local_address(sock: *const u8, family: u16) -> Option<Address> {
    match family {
        INET => Some(Address::v4_local(object::number::<u32>(sock, &object::SOCK_LOCAL).to_ne_bytes())),
        INET6 => {
            let words = object::peek::<[u64; 2]>(sock as u64 + object::SOCK_LOCAL6.get() as u64)?;
            let mut bytes = [0; 16];
            bytes[..8].copy_from_slice(&words[0].to_ne_bytes());
            bytes[8..].copy_from_slice(&words[1].to_ne_bytes());
            Some(Address::v6_local(bytes))
        }
        _ => None,
    }
}

/// The verdict on one address.
#[inline(always)]
pub fn look_up(
    sc: *mut Scratch,
    subject: &Subject,
    protocol: u16,
    meant: &Address,
    port: u16,
    want: u16,
) -> Judged {
    // SAFETY: the scratch is not null; map values; the mask keeps a range inside the arena, which is
    // longer than its mask by more than a range.
    unsafe {
        (*sc).prefix.family = meant.family;
        (*sc).prefix.address = meant.bytes;
        (*sc).port = port;
        (*sc).range = u32::MAX;
        let arena = path::arena();
        if subject.policy.is_null() || (protocol != TCP && protocol != UDP) {
            return Judged::Refused(reason::RULE);
        }
        (*sc).prefix_len = NetKey::FIXED_BITS + 128;
        (*sc).prefix.policy = (*subject.policy).id;
        (*sc).prefix.protocol = protocol as u8;
        (*sc).prefix.reserved = 0;
        let key = (&raw const (*sc).prefix_len).cast::<Key<NetKey>>();
        let Some(value) = maps::PREFIXES.get(&*key) else { return Judged::Refused(reason::RULE) };
        let (judged, range) = by_port(subject, arena, value, port, want);
        (*sc).range = range;
        judged
    }
}

/// What the port ranges behind a prefix say, and the index of the range that decided, or all ones.
///
/// # Safety
/// `arena` is the map's value.
#[inline(always)]
pub unsafe fn by_port(
    subject: &Subject,
    arena: *const u8,
    value: &NetValue,
    port: u16,
    want: u16,
) -> (Judged, u32) {
    // SAFETY: the mask keeps a range inside the arena, which is longer than its mask by more than a range.
    unsafe {
        // Sorted, not overlapping: a bounded binary search.
        let (mut low, mut high) = (0u64, u64::from(value.count));
        let first = u64::from(value.ranges);
        let mut round = 0;
        while round < 12 {
            if low >= high {
                break;
            }
            let middle = (low + high) / 2;
            let at =
                bound::<{ Extra::ArenaRanges.placeholder() }>(first + middle * size_of::<PortRange>() as u64);
            let range = arena.add(at as usize).cast::<PortRange>();
            if port < (*range).first {
                high = middle;
            } else if port > (*range).last {
                low = middle + 1;
            } else {
                let judged = match (*range).masks.fold(&subject.tiers()).verdict(want) {
                    Verdict::Allow if path::is_unused(subject, (*range).masks.set.into(), want) => {
                        Judged::First((*range).masks.set)
                    }
                    Verdict::Allow => Judged::Allowed,
                    Verdict::Hold => Judged::Refused(reason::HELD),
                    Verdict::Deny => Judged::Refused(reason::RULE),
                };
                return (judged, (*range).index);
            }
            round += 1;
        }
        (Judged::Refused(reason::RULE), u32::MAX)
    }
}

/// Whether the unix socket `sock` was made inside the subject's session: its creator's cgroup is
/// remembered in the socket.
#[inline(always)]
pub fn made_in_session(subject: &Subject, sock: *const u8) -> bool {
    if subject.session.is_null() {
        return false;
    }
    // SAFETY: a map value.
    let wanted = unsafe { (*subject.session).cgroup };
    let creator = object::pointer(sock, &object::SOCK_CGROUP) as u64;
    let sc = path::begin(subject, 0, creator);
    !sc.is_null() && below_cgroup(sc, wanted) != 0
}

/// [`made_in_session`] of the socket behind an open file. Its private data is the `struct socket`
/// (`sock_alloc_file()`, net/socket.c); the caller knows that the file is one.
#[inline(always)]
pub fn file_made_in_session(subject: &Subject, file: *const u8) -> bool {
    if subject.session.is_null() {
        return false;
    }
    let socket = object::pointer(file, &object::FILE_PRIVATE) as u64;
    let Some(sock) = object::peek::<u64>(socket + object::SOCKET_SOCK.get() as u64) else { return false };
    let Some(creator) = object::peek::<u64>(sock + object::SOCK_CGROUP.get() as u64) else { return false };
    // SAFETY: a map value.
    let wanted = unsafe { (*subject.session).cgroup };
    let sc = path::begin(subject, 0, creator);
    !sc.is_null() && below_cgroup(sc, wanted) != 0
}

/// Whether the cgroup at `sc.mount` is the one with the id `wanted` or lies below it.
#[inline(never)]
#[unsafe(no_mangle)]
pub extern "C" fn below_cgroup(sc: *mut Scratch, wanted: u64) -> u64 {
    if sc.is_null() {
        return 0;
    }
    // SAFETY: `sc` is the task's scratch; kernel memory is read by `peek`.
    let mut cgroup = unsafe { (*sc).mount };
    for _ in 0..32 {
        if cgroup == 0 {
            return 0;
        }
        let Some(node) = object::peek::<u64>(cgroup + object::CGROUP_NODE.get() as u64) else { return 0 };
        let Some(id) = object::peek::<u64>(node + object::NODE_ID.get() as u64) else { return 0 };
        if id == wanted {
            return 1;
        }
        // `self` is the first member of struct cgroup, so a css of it is the cgroup.
        let Some(parent) = object::peek::<u64>(cgroup + object::CGROUP_PARENT.get() as u64) else { return 0 };
        cgroup = parent;
    }
    0
}

/// `IPPROTO_IP`.
const IP: u32 = 0;
/// `IPPROTO_IPV6`.
const IPV6: u32 = 41;

/// Options by which packets leave for other addresses than the one that was judged: IPv4 source
/// routes, IPv6 routing headers (include/uapi/linux/in.h, in6.h), and those that put another protocol behind a socket
/// that was made as a plain one (tcp.h, udp.h).
#[inline(always)]
fn reroutes(level: u32, option: u32) -> bool {
    match level {
        // IP_OPTIONS, IP_RETOPTS
        IP => option == 4 || option == 7,
        // IPV6_RTHDR, IPV6_2292RTHDR, IPV6_2292PKTOPTIONS; IPV6_FLOWLABEL_MGR: a label can carry a routing header
        IPV6 => matches!(option, 57 | 5 | 6 | 32),
        // TCP_ULP
        6 => option == 31,
        // UDP_ENCAP
        17 => option == 100,
        _ => false,
    }
}

/// Options of sockets that no session sets: those that [`reroutes`] knows, and
///
/// - those that say by which interface packets leave, past the routes of the host: the same address is somebody else
///   there;
/// - groups and shared addresses: a packet leaves for an address that only the option names, and others' arrive;
/// - local addresses that are not the host's, by which packets leave in the name of somebody else, and answers go there;
/// - a port, or a source, that is taken without being bound.
#[inline(always)]
pub fn leads_elsewhere(level: u32, option: u32) -> bool {
    match level {
        // SO_BINDTODEVICE, SO_BINDTOIFINDEX
        1 => option == 25 || option == 62,
        // IP_FREEBIND; IP_MULTICAST_IF; IP_ADD_MEMBERSHIP to MCAST_MSFILTER; IP_UNICAST_IF, IP_LOCAL_PORT_RANGE
        IP if matches!(option, 15 | 32 | 35..=48 | 50 | 51) => true,
        // IPV6_MULTICAST_IF; IPV6_JOIN_GROUP, _LEAVE_; IPV6_JOIN_ANYCAST, _LEAVE_; MCAST_JOIN_GROUP to MCAST_MSFILTER;
        // IPV6_PKTINFO; IPV6_UNICAST_IF; IPV6_FREEBIND
        IPV6 if matches!(option, 17 | 20 | 21 | 27 | 28 | 42..=48 | 50 | 76 | 78) => true,
        _ => reroutes(level, option),
    }
}

/// Whether control data of this level and type, with the kernel address `data` of what it says, name an interface to
/// leave by. The local address there is one of the host's.
#[inline(always)]
fn picks_interface(level: u32, kind: u32, data: u64) -> bool {
    let at = match (level, kind) {
        // IP_PKTINFO: the interface comes first (struct in_pktinfo).
        (IP, 8) => 0,
        // IPV6_PKTINFO, IPV6_2292PKTINFO: behind the address (struct in6_pktinfo).
        (IPV6, 50 | 2) => 16,
        _ => return false,
    };
    object::peek::<u32>(data + at) != Some(0)
}

/// Looks through a message's control data, `len` bytes at the kernel address `sc.address`
/// (`____sys_sendmsg()`, net/socket.c, has copied it). Non-zero: it reroutes, is malformed, or has too many parts to tell.
#[inline(never)]
#[unsafe(no_mangle)]
pub extern "C" fn control_reroutes(sc: *mut Scratch, len: u64) -> u64 {
    const HEADER: u64 = 16;
    if sc.is_null() {
        return 1;
    }
    // SAFETY: not null.
    let at = unsafe { (*sc).address };
    let mut offset = 0;
    for _ in 0..16 {
        if offset + HEADER > len {
            return 0;
        }
        // struct cmsghdr: length with itself, level, type.
        let Some(header) = object::peek::<[u64; 2]>(at + offset) else { return 1 };
        let (level, kind) = (header[1] as u32, (header[1] >> 32) as u32);
        if header[0] < HEADER || reroutes(level, kind) || picks_interface(level, kind, at + offset + HEADER) {
            return 1;
        }
        offset += (header[0] + 7) & !7;
    }
    u64::from(offset + HEADER <= len)
}
