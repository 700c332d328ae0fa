//! Which address is meant, and what do the rules say about it?

use crate::{maps, object, path, subject::Subject, verifier::bound};
use aya_ebpf::{helpers::generated::bpf_probe_read_kernel, maps::lpm_trie::Key};
use enforcer_common::{
    access::net::BIND,
    address::Address,
    event::reason,
    limits,
    map::{Masks, NetKey, PortRange},
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
}

/// The socket behind a `struct sock` that the verifier knows. Without one it is of no family, which
/// nothing allows.
#[inline(always)]
pub fn socket(sock: *const u8) -> Socket {
    if sock.is_null() {
        return Socket { family: UNSPEC, protocol: 0, port: 0 };
    }
    Socket {
        family: object::number(sock, &object::SOCK_FAMILY),
        protocol: object::number(sock, &object::SOCK_PROTOCOL),
        port: object::number(sock, &object::SOCK_PORT),
    }
}

/// Where to, and what the rules say.
#[derive(Clone, Copy)]
pub struct Judged {
    /// Refused, and why; `None`: allowed.
    pub refused: Option<u16>,
    /// The address that decided.
    pub address: [u8; 16],
    /// Its port.
    pub port: u16,
    /// Index of the port range that decided.
    pub index: u32,
}

impl Judged {
    #[inline(always)]
    fn unknown() -> Self {
        Self { refused: Some(reason::UNKNOWN_OBJECT), address: [0; 16], port: 0, index: u32::MAX }
    }

    #[inline(always)]
    fn allowed() -> Self {
        Self { refused: None, address: [0; 16], port: 0, index: u32::MAX }
    }
}

/// `struct sockaddr_in6` (include/uapi/linux/in6.h); `sockaddr_in` is its beginning up to the address.
#[repr(C)]
#[derive(Clone, Copy)]
struct Sockaddr {
    family: u16,
    port: u16,
    v4: [u8; 4],
    v6: [u8; 16],
    scope: u32,
}

/// What a call that names an address means by an address of family `AF_UNSPEC`.
#[derive(Clone, Copy, PartialEq, Eq)]
pub enum Unspecified {
    /// Nothing is reached (`connect`: dissolves the association).
    Nothing,
    /// On an IPv4 socket the same as `AF_INET` (`udp_sendmsg()`, net/ipv4/udp.c; `__inet_bind()`,
    /// net/ipv4/af_inet.c); on an IPv6 socket no address at all (`udpv6_sendmsg()`, net/ipv6/udp.c).
    LikeSocket,
}

/// Reads the socket address at `address`, `len` bytes of kernel memory; the size that was read.
#[inline(always)]
fn read(address: u64, len: u32) -> Option<(Sockaddr, u64)> {
    let mut raw = Sockaddr { family: 0, port: 0, v4: [0; 4], v6: [0; 16], scope: 0 };
    let size = bound::<31>(if len > 28 { 28 } else { u64::from(len) });
    if size < 2 || size > 28 {
        return None;
    }
    // SAFETY: at most 28 bytes, the size of `raw`.
    if unsafe { bpf_probe_read_kernel((&raw mut raw).cast(), size as u32, address as *const _) } != 0 {
        return None;
    }
    Some((raw, size))
}

/// Judges `want` on the destination at `address`, `len` bytes of kernel memory.
#[inline(always)]
pub fn judge(subject: &Subject, socket: Socket, address: u64, len: u32, want: u16, unspecified: Unspecified) -> Judged {
    let Some((raw, size)) = read(address, len) else { return Judged::unknown() };
    let mut family = raw.family;
    if family == UNSPEC {
        match unspecified {
            Unspecified::Nothing => return Judged::allowed(),
            Unspecified::LikeSocket if socket.family == INET6 => return Judged::allowed(),
            Unspecified::LikeSocket => family = socket.family,
        }
    }
    let meant = match family {
        INET if size >= 8 => Some(Address::v4(raw.v4)),
        INET6 if size >= 24 => Address::v6(raw.v6),
        _ => None,
    };
    let Some(meant) = meant else { return Judged::unknown() };
    look_up(subject, socket.protocol, &meant, u16::from_be(raw.port), want)
}

/// Judges binding the local address at `address`. Unlike as destinations, 0.0.0.0 and `::` are
/// addresses of their own: every address of the host.
#[inline(always)]
pub fn judge_bind(subject: &Subject, socket: Socket, address: u64, len: u32) -> Judged {
    let Some((raw, size)) = read(address, len) else { return Judged::unknown() };
    let family = if raw.family == UNSPEC { socket.family } else { raw.family };
    let meant = match family {
        INET if size >= 8 => Address::v4_local(raw.v4),
        INET6 if size >= 24 => Address::v6_local(raw.v6),
        _ => return Judged::unknown(),
    };
    look_up(subject, socket.protocol, &meant, u16::from_be(raw.port), BIND)
}

/// The verdict on one address.
#[inline(always)]
pub fn look_up(subject: &Subject, protocol: u16, meant: &Address, port: u16, want: u16) -> Judged {
    let mut judged = Judged { refused: Some(reason::RULE), address: meant.bytes, port, index: u32::MAX };
    if subject.policy.is_null() || (protocol != TCP && protocol != UDP) {
        return judged;
    }
    // SAFETY: map values; the mask keeps a range inside the arena, which is longer than its mask by
    // more than a range.
    unsafe {
        let key = Key::new(
            NetKey::FIXED_BITS + 128,
            NetKey {
                policy: (*subject.policy).id,
                family: meant.family,
                protocol: protocol as u8,
                reserved: 0,
                address: meant.bytes,
            },
        );
        let Some(value) = maps::PREFIXES.get(&key) else { return judged };
        let arena = path::arena();
        if arena.is_null() {
            return judged;
        }
        // Sorted, not overlapping: a bounded binary search.
        let (mut low, mut high) = (0u64, u64::from(value.count));
        let mut masks = Masks::NONE;
        let mut round = 0;
        while round < 12 {
            if low >= high {
                break;
            }
            let middle = (low + high) / 2;
            let at = bound::<{ (limits::ARENA as i32 - 1) & !7 }>(u64::from(value.ranges) + middle * size_of::<PortRange>() as u64);
            let range = arena.add(at as usize).cast::<PortRange>();
            if port < (*range).first {
                high = middle;
            } else if port > (*range).last {
                low = middle + 1;
            } else {
                masks = (*range).masks;
                judged.index = (*range).index;
                break;
            }
            round += 1;
        }
        match masks.fold(&subject.tiers()).verdict(want) {
            Verdict::Allow => judged.refused = None,
            Verdict::Hold => judged.refused = Some(reason::HELD),
            Verdict::Deny => {}
        }
        judged
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

/// Whether the cgroup at `sc.mount` is the one with the id `wanted` or lies below it.
#[inline(never)]
#[unsafe(no_mangle)]
pub extern "C" fn below_cgroup(sc: *mut enforcer_common::map::Scratch, wanted: u64) -> u64 {
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
