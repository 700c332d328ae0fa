//! Addresses in rules: `ADDRESS[/PREFIX]:PORTS/PROTOCOL`. Every spelling of an address is one address.

use enforcer_common::address::Address;
use std::{
    fmt,
    net::{IpAddr, Ipv4Addr, Ipv6Addr},
};

/// IPPROTO_TCP.
pub const TCP: u8 = 6;
/// IPPROTO_UDP.
pub const UDP: u8 = 17;

/// Addresses, ports and protocols that a rule names.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct Endpoint {
    prefix: Option<Prefix>,
    ports: (u16, u16),
    protocol: Option<u8>,
}

/// A block of addresses of one family.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Prefix {
    /// 4 or 6.
    pub family: u8,
    /// Bits that count.
    pub bits: u8,
    /// As in [`Address::bytes`]; the bits that do not count are zero.
    pub bytes: [u8; 16],
}

/// Why a text is not an endpoint.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("{message}")]
pub struct EndpointError {
    /// Byte of the text at which the fault lies.
    pub offset: usize,
    /// What is wrong.
    pub message: String,
    /// What to write instead.
    pub remedy: String,
}

fn error<T>(
    offset: usize,
    message: impl Into<String>,
    remedy: impl Into<String>,
) -> Result<T, EndpointError> {
    Err(EndpointError { offset, message: message.into(), remedy: remedy.into() })
}

impl Prefix {
    /// Whether an address lies in it.
    pub fn contains(&self, address: &Address) -> bool {
        self.family == address.family && masked(address.bytes, self.bits) == self.bytes
    }

    /// The block around this one that has `bits` bits.
    pub fn widened(&self, bits: u8) -> Self {
        Self { family: self.family, bits, bytes: masked(self.bytes, bits) }
    }

    /// The same, of IPv4 or IPv6 as a whole.
    pub fn whole(family: u8) -> Self {
        Self { family, bits: 0, bytes: [0; 16] }
    }
}

impl Endpoint {
    /// Reads an endpoint. `binding` says that only local addresses are meant.
    pub fn parse(text: &str, binding: bool) -> Result<Self, EndpointError> {
        if text.starts_with("unix:") {
            return error(
                0,
                "a unix socket is no address",
                "write it as a rule under `unix`, without `unix:`",
            );
        }
        let form =
            "write ADDRESS[/PREFIX]:PORTS/PROTOCOL, such as 10.0.0.0/8:5432/tcp or [2001:db8::]/32:443/tcp";
        let Some((rest, protocol)) = text.rsplit_once('/') else {
            return error(text.len(), "the protocol is missing", form);
        };
        let protocol_at = rest.len() + 1;
        let protocol = match protocol {
            "tcp" => Some(TCP),
            "udp" => Some(UDP),
            "*" => None,
            _ if protocol.contains(':') => {
                return error(
                    text.len(),
                    "the protocol is missing",
                    format!("add /tcp, /udp or /*: `{text}/tcp`"),
                );
            }
            _ => {
                return error(
                    protocol_at,
                    format!("`{protocol}` is not a protocol that rules can name"),
                    "write tcp, udp or *",
                );
            }
        };
        let Some((block, ports)) = rest.rsplit_once(':').filter(|(_, ports)| !ports.contains([']', '/']))
        else {
            return error(rest.len(), "the port is missing", form);
        };
        let ports = parse_ports(ports, block.len() + 1)?;
        let prefix = if block == "*" { None } else { Some(parse_prefix(block, binding)?) };
        Ok(Self { prefix, ports, protocol })
    }

    /// The blocks that it stands for, one per family.
    pub fn prefixes(&self) -> Vec<Prefix> {
        match self.prefix {
            Some(prefix) => vec![prefix],
            None => vec![Prefix::whole(4), Prefix::whole(6)],
        }
    }

    /// First and last port.
    pub fn ports(&self) -> (u16, u16) {
        self.ports
    }

    /// The protocols that it stands for.
    pub fn protocols(&self) -> &'static [u8] {
        match self.protocol {
            Some(TCP) => &[TCP],
            Some(_) => &[UDP],
            None => &[TCP, UDP],
        }
    }

    /// The one address, port and protocol that it stands for, if it is that narrow.
    pub fn single(&self) -> Option<(Address, u16, u8)> {
        let prefix = self.prefix?;
        let full = if prefix.family == 4 { 32 } else { 128 };
        let one = prefix.bits == full && self.ports.0 == self.ports.1;
        let address = Address { family: prefix.family, bytes: prefix.bytes };
        one.then_some((address, self.ports.0, self.protocol?))
    }

    /// Whether it names this address, port and protocol.
    pub fn matches(&self, address: &Address, port: u16, protocol: u8) -> bool {
        self.prefix.is_none_or(|prefix| prefix.contains(address))
            && (self.ports.0..=self.ports.1).contains(&port)
            && self.protocol.is_none_or(|own| own == protocol)
            && matches!(protocol, TCP | UDP)
    }
}

fn parse_ports(text: &str, at: usize) -> Result<(u16, u16), EndpointError> {
    if text == "*" {
        return Ok((0, u16::MAX));
    }
    let number = |text: &str, at: usize| match text.parse::<u16>() {
        Ok(port) if text.bytes().all(|b| b.is_ascii_digit()) => Ok(port),
        _ => error(
            at,
            format!("`{text}` is not a port"),
            "write a number up to 65535, a range such as 8000-8100, or *",
        ),
    };
    match text.split_once('-') {
        None => number(text, at).map(|port| (port, port)),
        Some((first, last)) => {
            let range = (number(first, at)?, number(last, at + first.len() + 1)?);
            if range.0 > range.1 {
                return error(at, "the port range runs backwards", format!("write {}-{}", range.1, range.0));
            }
            Ok(range)
        }
    }
}

fn parse_prefix(block: &str, binding: bool) -> Result<Prefix, EndpointError> {
    let (address, bits) = match block.rsplit_once('/') {
        Some((address, bits)) => (address, Some(bits)),
        None => (block, None),
    };
    let bits_at = address.len() + 1;
    let (ip, at) = if let Some(inner) = address.strip_prefix('[') {
        let Some(inner) = inner.strip_suffix(']') else {
            return error(
                0,
                "the bracket is not closed before the prefix length",
                format!("write the brackets around the address only, as in [2001:db8::]/32, not `{block}`"),
            );
        };
        match inner.parse::<Ipv6Addr>() {
            Ok(ip) => (IpAddr::V6(ip), 1),
            Err(_) => return error(1, format!("`{inner}` is not an IPv6 address"), zone_remedy(inner)),
        }
    } else if let Ok(ip) = address.parse::<Ipv4Addr>() {
        (IpAddr::V4(ip), 0)
    } else if address.contains(':') {
        return error(0, "an IPv6 address needs brackets", format!("write [{address}]"));
    } else if address.bytes().all(|b| b.is_ascii_digit() || b == b'.') {
        return error(
            0,
            format!("`{address}` is not an IPv4 address"),
            "write four decimal numbers without leading zeros, as in 10.0.0.1",
        );
    } else {
        return error(
            0,
            format!("this version cannot enforce host names yet: `{address}`"),
            "write the addresses that it stands for",
        );
    };
    let full: u8 = if ip.is_ipv4() { 32 } else { 128 };
    let bits = match bits {
        None => full,
        Some(text) => match text.parse::<u8>() {
            Ok(bits) if bits <= full && text.bytes().all(|b| b.is_ascii_digit()) => bits,
            _ => {
                return error(
                    bits_at,
                    format!("`{text}` is not a prefix length"),
                    format!("write a number from 0 to {full}"),
                );
            }
        },
    };
    check_host_bits(ip, bits, bits == full && !block.contains('/'))?;
    let prefix = normal(ip, bits, at)?;
    let names_unspecified = prefix.bytes == [0; 16] && bits == full;
    if names_unspecified && !binding {
        return error(
            at,
            "nothing can be reached at the unspecified address",
            "as a destination it means this host: write 127.0.0.1 or [::1]; it can be named where `bind` is the only operation",
        );
    }
    Ok(prefix)
}

fn zone_remedy(text: &str) -> String {
    if text.contains('%') {
        "leave the zone out: rules see the address only".to_owned()
    } else {
        "write it as in [2001:db8::1]".to_owned()
    }
}

fn check_host_bits(ip: IpAddr, bits: u8, single: bool) -> Result<(), EndpointError> {
    let right = match ip {
        IpAddr::V4(v4) => {
            let mask = u32::MAX.checked_shl(32 - u32::from(bits)).unwrap_or(0);
            IpAddr::V4(Ipv4Addr::from_bits(v4.to_bits() & mask))
        }
        IpAddr::V6(v6) => {
            let mask = u128::MAX.checked_shl(128 - u32::from(bits)).unwrap_or(0);
            IpAddr::V6(Ipv6Addr::from_bits(v6.to_bits() & mask))
        }
    };
    if right == ip || single {
        return Ok(());
    }
    let shown = match right {
        IpAddr::V4(v4) => format!("{v4}/{bits}"),
        IpAddr::V6(v6) => format!("[{v6}]/{bits}"),
    };
    error(
        0,
        "the address has bits beyond the prefix length",
        format!("write {shown}, or the one address without a length"),
    )
}

/// The block in the family in which its packets leave.
fn normal(ip: IpAddr, bits: u8, at: usize) -> Result<Prefix, EndpointError> {
    match ip {
        IpAddr::V4(v4) => Ok(v4_prefix(v4, bits)),
        IpAddr::V6(v6) => {
            // ::ffff:0:0/96 (RFC 4291, 2.5.5.2).
            const MAPPED: u128 = 0xffff << 32;
            let mask = u128::MAX.checked_shl(128 - u32::from(bits)).unwrap_or(0);
            if bits >= 96 && v6.to_bits() >> 32 == MAPPED >> 32 {
                return Ok(v4_prefix(Ipv4Addr::from_bits(v6.to_bits() as u32), bits - 96));
            }
            // `[::]/0` is how everybody writes "all of IPv6", and means just that.
            if bits != 0 && bits < 96 && MAPPED & mask == v6.to_bits() {
                return error(
                    at,
                    "the block mixes IPv6 with IPv4 addresses in their mapped form",
                    "packets to ::ffff:a.b.c.d leave as IPv4: write the IPv4 block, such as 10.0.0.0/8, and the IPv6 block, such as [2001:db8::]/32, separately",
                );
            }
            // 64:ff9b::/96 (RFC 6052, 2.1): what a translator makes IPv4 of.
            const TRANSLATED: u128 = 0x0064_ff9b << 96;
            if bits >= 96 && v6.to_bits() >> 32 == TRANSLATED >> 32 {
                return Ok(v4_prefix(Ipv4Addr::from_bits(v6.to_bits() as u32), bits - 96));
            }
            if bits != 0 && bits < 96 && TRANSLATED & mask == v6.to_bits() {
                return error(
                    at,
                    "the block has addresses that stand for IPv4 ones",
                    "packets to 64:ff9b::a.b.c.d become IPv4: write the IPv4 block, such as 198.51.100.0/24",
                );
            }
            if is_never_reached(v6, bits) {
                return error(
                    at,
                    "packets to these addresses leave IPv6 on the way, where no rule can be about them",
                    "addresses with an IPv4 address in them (IPv4-compatible, 6to4, Teredo, ISATAP, translators' own) are refused to every agent: write the IPv4 address",
                );
            }
            Ok(Prefix { family: 6, bits, bytes: v6.octets() })
        }
    }
}

/// Whether no address of the block can be told ([`Address::v6`]). `::` is dealt with elsewhere.
fn is_never_reached(block: Ipv6Addr, bits: u8) -> bool {
    // 6to4, Teredo, translators' own, IPv4-translated, IPv4-compatible.
    const KINDS: [(u128, u8); 5] =
        [(0x2002 << 112, 16), (0x2001 << 112, 32), (0x0064_ff9b_0001 << 80, 48), (0xffff << 48, 96), (0, 96)];
    let block = block.to_bits();
    let last = block | u128::MAX.checked_shr(u32::from(bits)).unwrap_or(0);
    let within =
        |(first, length): &(u128, u8)| bits >= *length && (block ^ first) >> (128 - u32::from(*length)) == 0;
    block != 0 && Address::v6(last.to_be_bytes()).is_none() && (bits == 128 || KINDS.iter().any(within))
}

fn v4_prefix(v4: Ipv4Addr, bits: u8) -> Prefix {
    let mut bytes = [0; 16];
    bytes[..4].copy_from_slice(&v4.octets());
    Prefix { family: 4, bits, bytes }
}

fn masked(bytes: [u8; 16], bits: u8) -> [u8; 16] {
    let mask = u128::MAX.checked_shl(128 - u32::from(bits)).unwrap_or(0);
    (u128::from_be_bytes(bytes) & mask).to_be_bytes()
}

impl fmt::Display for Prefix {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let [a, b, c, d, ..] = self.bytes;
        match self.family {
            4 => write!(f, "{}", Ipv4Addr::new(a, b, c, d))?,
            _ => write!(f, "[{}]", Ipv6Addr::from(self.bytes))?,
        }
        match (self.family, self.bits) {
            (4, 32) | (6, 128) => Ok(()),
            (_, bits) => write!(f, "/{bits}"),
        }
    }
}

impl fmt::Display for Endpoint {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match &self.prefix {
            Some(prefix) => write!(f, "{prefix}:")?,
            None => f.write_str("*:")?,
        }
        match self.ports {
            (0, u16::MAX) => f.write_str("*")?,
            (first, last) if first == last => write!(f, "{first}")?,
            (first, last) => write!(f, "{first}-{last}")?,
        }
        f.write_str(match self.protocol {
            Some(TCP) => "/tcp",
            Some(_) => "/udp",
            None => "/*",
        })
    }
}
