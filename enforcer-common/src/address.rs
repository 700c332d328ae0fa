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
    /// 0.0.0.0 as a destination is the host itself, unless the socket is bound: see [`Self::v4_from`].
    #[inline(always)]
    pub fn v4(octets: [u8; 4]) -> Self {
        let o = if Self::is_any(octets) { [127, 0, 0, 1] } else { octets };
        Self { family: 4, bytes: [o[0], o[1], o[2], o[3], 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0] }
    }

    /// As [`Self::v4`], from a socket that is bound to `bound`, or to no address (0.0.0.0): without a destination the kernel
    /// takes the own address for it, wherever that may be reached from, and loopback only if there is none
    /// (`ip_route_output_key_hash_rcu()`, net/ipv4/route.c).
    #[inline(always)]
    pub fn v4_from(octets: [u8; 4], bound: [u8; 4]) -> Self {
        if Self::is_any(octets) && !Self::is_any(bound) { Self::v4_local(bound) } else { Self::v4(octets) }
    }

    /// Whether it is 0.0.0.0.
    #[inline(always)]
    pub fn is_any(octets: [u8; 4]) -> bool {
        u32::from_ne_bytes(octets) == 0
    }

    /// Whether it is 0.0.0.0 as an IPv6 socket spells it, `::ffff:0.0.0.0`.
    #[inline(always)]
    pub fn is_mapped_any(b: [u8; 16]) -> bool {
        u128::from_be_bytes(b) == 0xffff << 32
    }

    /// The address that a packet to this IPv6 address reaches, or `None` where that cannot be told:
    /// `::` is one loopback or the other, depending on how the socket is bound
    /// (`tcp_v6_connect()`, net/ipv6/tcp_ipv6.c), and several kinds of addresses have an IPv4 address in them at which
    /// the packet leaves IPv6, wherever that is.
    ///
    /// An IPv4-mapped address (`::ffff:a.b.c.d`, RFC 4291 2.5.5.2) leaves as IPv4 and is IPv4 here. One that a
    /// translator makes IPv4 of (`64:ff9b::a.b.c.d`, RFC 6052 2.1) is what it becomes; of addresses that are not
    /// everybody's there must be none (3.1), so they cannot be told.
    #[inline(always)]
    pub fn v6(b: [u8; 16]) -> Option<Self> {
        let word = |i: usize| u32::from_be_bytes([b[i], b[i + 1], b[i + 2], b[i + 3]]);
        let (first, second, third, last) = (word(0), word(4), word(8), word(12));
        let begins_with_zeros = first | second == 0;
        if begins_with_zeros && third == 0xffff {
            return Some(Self::v4([b[12], b[13], b[14], b[15]]));
        }
        const TRANSLATED: u32 = 0x0064_ff9b;
        if first == TRANSLATED && second == 0 && third == 0 {
            let own = matches!(b[12], 0 | 10 | 127 | 224..)
                || matches!((b[12], b[13]), (100, 64..=127) | (169, 254) | (172, 16..=31) | (192, 168));
            return if own { None } else { Some(Self::v4([b[12], b[13], b[14], b[15]])) };
        }
        // IPv4-compatible (RFC 4291 2.5.5.1) and `::`; IPv4-translated (RFC 2765 2.1).
        let compatible = begins_with_zeros && third == 0 && last != 1;
        let translated = begins_with_zeros && third == 0xffff_0000;
        // Translators' own prefix (RFC 8215), 6to4 (RFC 3056), Teredo (RFC 4380), ISATAP (RFC 5214 6.1).
        let local = first == TRANSLATED && second >> 16 == 1;
        let tunnelled = first >> 16 == 0x2002 || first == 0x2001_0000 || third & !0x0200_0000 == 0x5efe;
        if compatible || translated || local || tunnelled {
            return None;
        }
        Some(Self { family: 6, bytes: b })
    }

    /// An IPv4 address to bind: 0.0.0.0 means every address and stays itself.
    #[inline(always)]
    pub fn v4_local(o: [u8; 4]) -> Self {
        Self { family: 4, bytes: [o[0], o[1], o[2], o[3], 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0] }
    }

    /// An IPv6 address to bind: all stay themselves but a mapped one, which is IPv4.
    #[inline(always)]
    pub fn v6_local(b: [u8; 16]) -> Self {
        if u128::from_be_bytes(b) >> 32 == 0xffff {
            return Self::v4_local([b[12], b[13], b[14], b[15]]);
        }
        Self { family: 6, bytes: b }
    }
}
