//! One address for every spelling of it.

/// An address as policies and tables know it.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct Address {
    /// 4 or 6.
    pub family: u8,
    /// Network byte order; an IPv4 address in the first four bytes, the others zero.
    pub bytes: [u8; 16],
}

impl Address {
    /// The address that a packet to this IPv4 address reaches.
    ///
    /// 0.0.0.0 as a destination is the host itself (`ip_route_output_key_hash_rcu()`, net/ipv4/route.c).
    #[inline(always)]
    pub fn v4(octets: [u8; 4]) -> Self {
        let o = if u32::from_ne_bytes(octets) == 0 { [127, 0, 0, 1] } else { octets };
        Self { family: 4, bytes: [o[0], o[1], o[2], o[3], 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0] }
    }

    /// The address that a packet to this IPv6 address reaches, or `None` where that cannot be told:
    /// `::` is one loopback or the other, depending on how the socket is bound
    /// (`tcp_v6_connect()`, net/ipv6/tcp_ipv6.c).
    ///
    /// An IPv4-mapped address (`::ffff:a.b.c.d`, RFC 4291 2.5.5.2) leaves as IPv4 and is IPv4 here.
    #[inline(always)]
    pub fn v6(b: [u8; 16]) -> Option<Self> {
        let word = |i: usize| u32::from_be_bytes([b[i], b[i + 1], b[i + 2], b[i + 3]]);
        let (a, m, last) = ((word(0) | word(4)), word(8), word(12));
        if a == 0 && m == 0xffff {
            return Some(Self::v4([b[12], b[13], b[14], b[15]]));
        }
        if a == 0 && m == 0 && last == 0 {
            return None;
        }
        Some(Self { family: 6, bytes: b })
    }

    /// An IPv4 address to bind: 0.0.0.0 means every address and stays itself.
    #[inline(always)]
    pub fn v4_local(o: [u8; 4]) -> Self {
        Self { family: 4, bytes: [o[0], o[1], o[2], o[3], 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0] }
    }

    /// An IPv6 address to bind: `::` means every address and stays itself, a mapped one is IPv4.
    #[inline(always)]
    pub fn v6_local(b: [u8; 16]) -> Self {
        match Self::v6(b) {
            Some(Self { family: 4, .. }) => Self::v4_local([b[12], b[13], b[14], b[15]]),
            _ => Self { family: 6, bytes: b },
        }
    }
}
