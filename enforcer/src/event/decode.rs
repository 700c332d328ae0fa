//! From the bytes of one ring record to an [`Event`].
//!
//! A number that this version does not know is kept with the record's bytes; bytes that are no record at
//! all become [`Malformed`] with those bytes. Nothing is dropped.

use core::{
    mem::offset_of,
    net::{IpAddr, Ipv4Addr, Ipv6Addr},
};
use enforcer_common::{
    access,
    event::{Header, VERSION, kind, operation, reason},
    verdict::Verdict,
};
use std::borrow::Cow;
use zerocopy::FromBytes;

/// What a record tells.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Kind {
    /// An operation was refused, held, or would have been.
    Decision,
    /// A cgroup became a session.
    SessionBound,
    /// A session's entry point was executed.
    SessionArmed,
    /// A task entered a session from outside.
    Entered,
    /// A program was executed.
    Executed,
    /// A root's cgroup was created anew.
    RootCreated,
    /// A labelled process was moved out of every root.
    Strayed,
    /// A cgroup that a session was bound to was removed.
    SessionRemoved,
    /// A thread waits for a person's decision.
    Held,
    /// A program is being executed whose arguments will be judged.
    Loading,
    /// More of the arguments of an executed program.
    Arguments,
    /// Rules have allowed something for the first time.
    FirstUse,
    /// A rare system call was made.
    SystemCall,
    /// A number that this version does not know.
    Unknown(u16),
}

impl Kind {
    /// The kind with this number.
    pub fn from_number(number: u16) -> Self {
        match number {
            kind::DECISION => Self::Decision,
            kind::SESSION_BOUND => Self::SessionBound,
            kind::SESSION_ARMED => Self::SessionArmed,
            kind::ENTERED => Self::Entered,
            kind::EXECUTED => Self::Executed,
            kind::ROOT_CREATED => Self::RootCreated,
            kind::STRAYED => Self::Strayed,
            kind::SESSION_REMOVED => Self::SessionRemoved,
            kind::HELD => Self::Held,
            kind::LOADING => Self::Loading,
            kind::ARGUMENTS => Self::Arguments,
            kind::FIRST_USE => Self::FirstUse,
            kind::SYSTEM_CALL => Self::SystemCall,
            other => Self::Unknown(other),
        }
    }

    /// Its name in records.
    pub fn name(self) -> Cow<'static, str> {
        match self {
            Self::Decision => "decision".into(),
            Self::SessionBound => "session-bound".into(),
            Self::SessionArmed => "session-armed".into(),
            Self::Entered => "entered".into(),
            Self::Executed => "executed".into(),
            Self::RootCreated => "root-created".into(),
            Self::Strayed => "strayed".into(),
            Self::SessionRemoved => "session-removed".into(),
            Self::Held => "held".into(),
            Self::Loading => "loading".into(),
            Self::Arguments => "arguments".into(),
            Self::FirstUse => "first-use".into(),
            Self::SystemCall => "system-call".into(),
            Self::Unknown(number) => format!("unknown-{number}").into(),
        }
    }
}

/// What an operation was done to, as the kernel saw it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Endpoint {
    /// The address as it was decided on, if the family is one with addresses.
    pub address: Option<IpAddr>,
    /// Host byte order.
    pub port: u16,
    /// `IPPROTO_*`.
    pub protocol: u16,
    /// `AF_*`.
    pub family: u16,
}

/// One record, still where the ring has it.
#[derive(Clone, Debug)]
pub struct Event<'a> {
    /// The fixed part, as it came.
    pub header: Header,
    /// What it tells.
    pub kind: Kind,
    /// The verdict, or its number.
    pub verdict: Result<Verdict, u16>,
    /// The object's bytes: a path, or what else the operation names. May be empty.
    pub object: &'a [u8],
    /// The operation's second name: where a rename or link leads to. May be empty.
    pub target: &'a [u8],
    /// The path of the executable. May be empty.
    pub exe: &'a [u8],
    /// The task's name, without what follows its zero byte.
    pub comm: &'a [u8],
    /// The record's bytes, where it says something that this version does not know.
    pub raw: Option<&'a [u8]>,
}

/// Bytes that are no record.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("{why}")]
pub struct Malformed {
    /// What is wrong with them.
    pub why: String,
    /// The bytes.
    pub raw: Vec<u8>,
}

impl<'a> TryFrom<&'a [u8]> for Event<'a> {
    type Error = Malformed;

    fn try_from(bytes: &'a [u8]) -> Result<Self, Malformed> {
        let malformed = |why: String| Malformed { why, raw: bytes.to_vec() };
        let (header, rest) = Header::read_from_prefix(bytes).map_err(|_| {
            malformed(format!("{} bytes, but a header has {}", bytes.len(), size_of::<Header>()))
        })?;
        if header.version != VERSION {
            return Err(malformed(format!("version {}, but this daemon reads {VERSION}", header.version)));
        }
        // A ring hands out what was reserved, which may be more than what was filled.
        if (header.length as usize) > bytes.len() {
            return Err(malformed(format!("says {} bytes and has {}", header.length, bytes.len())));
        }
        let lengths = [header.object_len, header.target_len, header.exe_len].map(usize::from);
        let [object_len, target_len, _] = lengths;
        let names: usize = lengths.iter().sum();
        let tail = (header.length as usize)
            .checked_sub(size_of::<Header>())
            .and_then(|len| rest.get(..len))
            .filter(|tail| names <= tail.len())
            .ok_or_else(|| {
                malformed(format!("{} bytes cannot hold {names} bytes of paths", header.length))
            })?;
        let (object, rest) = tail[..names].split_at(object_len);
        let (target, exe) = rest.split_at(target_len);
        // The header is copied, the name is not.
        let comm = &bytes[offset_of!(Header, comm)..][..header.comm.len()];
        let comm = comm.split(|b| *b == 0).next().unwrap_or_default();
        let verdict = verdict(header.verdict);
        let kind = Kind::from_number(header.kind);
        let known = !matches!(kind, Kind::Unknown(_))
            && verdict.is_ok()
            && (header.operation == 0 || operation::name(header.operation).is_some())
            && (header.reason == 0 || reason_name(header.reason).is_some());
        Ok(Self { kind, verdict, object, target, exe, comm, raw: (!known).then_some(bytes), header })
    }
}

impl Event<'_> {
    /// The operation's name.
    pub fn operation(&self) -> Cow<'static, str> {
        let number = self.header.operation;
        operation::name(number).map_or_else(|| format!("unknown-{number}").into(), Cow::Borrowed)
    }

    /// The reason's name.
    pub fn reason(&self) -> Cow<'static, str> {
        let number = self.header.reason;
        reason_name(number).map_or_else(|| format!("unknown-{number}").into(), Cow::Borrowed)
    }

    /// Whether the operation is one on the network.
    pub fn is_network(&self) -> bool {
        (operation::CONNECT..=operation::SOCKET).contains(&self.header.operation)
    }

    /// The names of what was asked for. A bit without a name is named by its number.
    pub fn access(&self) -> impl Iterator<Item = Cow<'static, str>> + use<> {
        let bits = self.header.access;
        let names: &[(u16, &str)] =
            if self.is_network() { &access::net::NAMES } else { &access::file::NAMES };
        (0..u32::BITS).filter(move |bit| bits & (1 << bit) != 0).map(|bit| {
            let known = names.iter().find(|(known, _)| u32::from(*known) == 1 << bit);
            known.map_or_else(|| format!("bit-{bit}").into(), |(_, name)| Cow::Borrowed(*name))
        })
    }

    /// The address, where the operation has one.
    pub fn endpoint(&self) -> Option<Endpoint> {
        if !self.is_network() {
            return None;
        }
        let Header { address: bytes, family, port, protocol, .. } = self.header;
        let address = match i32::from(family) {
            libc::AF_INET => Some(IpAddr::V4(Ipv4Addr::new(bytes[0], bytes[1], bytes[2], bytes[3]))),
            libc::AF_INET6 => Some(IpAddr::V6(Ipv6Addr::from(bytes))),
            _ => None,
        };
        Some(Endpoint { address, port, protocol, family })
    }
}

fn verdict(number: u16) -> Result<Verdict, u16> {
    [Verdict::Allow, Verdict::Hold, Verdict::Deny].into_iter().find(|v| *v as u16 == number).ok_or(number)
}

/// The name of a reason, or `None` for a number that this version does not know.
pub fn reason_name(number: u16) -> Option<&'static str> {
    Some(match number {
        reason::RULE => "rule",
        reason::FLOOR => "floor",
        reason::UNKNOWN_OBJECT => "unknown-object",
        reason::NO_SESSION => "no-session",
        reason::INTERNAL => "internal",
        reason::GAINS_RIGHTS => "gains-rights",
        reason::MOVES_RULES => "moves-rules",
        reason::HELD => "held",
        reason::GRANTED => "granted",
        reason::REFUSED => "refused-by-person",
        reason::TIMED_OUT => "hold-timed-out",
        reason::TOO_MANY => "too-many-holds",
        reason::SECOND_LAYER => "second-layer",
        _ => return None,
    })
}

#[cfg(test)]
pub(crate) mod tests {
    use super::*;
    use proptest::prelude::*;
    use zerocopy::{FromZeros, IntoBytes};

    /// The bytes of a record with these parts.
    pub(crate) fn record(object: &[u8], exe: &[u8], change: impl FnOnce(&mut Header)) -> Vec<u8> {
        let mut header = Header::new_zeroed();
        header.version = VERSION;
        header.kind = kind::DECISION;
        header.operation = operation::OPEN;
        header.verdict = Verdict::Deny as u16;
        header.reason = reason::RULE;
        header.error = -libc::EPERM;
        header.access = u32::from(access::file::READ);
        header.object_len = object.len() as u16;
        header.exe_len = exe.len() as u16;
        header.length = (size_of::<Header>() + object.len() + exe.len()) as u32;
        header.comm[..4].copy_from_slice(b"cat\0");
        change(&mut header);
        [header.as_bytes(), object, exe].concat()
    }

    #[test]
    fn a_record_is_split_into_its_parts() {
        let bytes = record(b"/workspace/.env", b"/usr/bin/cat", |h| h.comm = *b"cat\0garbage-----");
        let event = Event::try_from(&bytes[..]).expect("a record");
        assert_eq!((event.kind, event.verdict), (Kind::Decision, Ok(Verdict::Deny)));
        assert_eq!(event.object, b"/workspace/.env");
        assert_eq!(event.exe, b"/usr/bin/cat");
        assert_eq!(event.comm, b"cat");
        assert_eq!((&*event.operation(), &*event.reason()), ("open", "rule"));
        assert!(event.access().eq(["read"]));
        assert_eq!(event.raw, None);
    }

    #[test]
    fn unknown_numbers_are_kept_with_the_bytes() {
        for change in [
            (|h: &mut Header| h.kind = 99) as fn(&mut Header),
            |h| h.operation = 999,
            |h| h.verdict = 7,
            |h| h.reason = 77,
        ] {
            let bytes = record(b"/x", b"", change);
            let event = Event::try_from(&bytes[..]).expect("a record");
            assert_eq!(event.raw, Some(&bytes[..]));
        }
        let bytes = record(b"", b"", |h| (h.kind, h.operation, h.access) = (99, 999, 1 << 31));
        let event = Event::try_from(&bytes[..]).expect("a record");
        assert_eq!(event.kind.name(), "unknown-99");
        assert_eq!(event.operation(), "unknown-999");
        assert!(event.access().eq(["bit-31"]));
    }

    #[test]
    fn addresses_are_read_in_network_order() {
        let bytes = record(b"", b"", |h| {
            (h.operation, h.family, h.port, h.protocol, h.access) = (operation::CONNECT, 2, 5432, 6, 1);
            h.address[..4].copy_from_slice(&[10, 1, 2, 3]);
        });
        let event = Event::try_from(&bytes[..]).expect("a record");
        let endpoint = event.endpoint().expect("an address");
        assert_eq!(endpoint.address, Some("10.1.2.3".parse().expect("address")));
        assert!(endpoint.port == 5432 && event.access().eq(["connect"]));
    }

    #[test]
    fn what_a_ring_reserved_beyond_the_record_is_ignored() {
        let mut bytes = record(b"/a", b"/b", |_| ());
        bytes.extend([0xee; 100]);
        let event = Event::try_from(&bytes[..]).expect("a record");
        assert_eq!((event.object, event.exe), (&b"/a"[..], &b"/b"[..]));
    }

    #[test]
    fn cut_foreign_and_contradictory_bytes_are_malformed_and_kept() {
        let good = record(b"/a", b"", |_| ());
        for bytes in [
            vec![],
            good[..size_of::<Header>() - 1].to_vec(),
            good[..size_of::<Header>() + 1].to_vec(),
            record(b"/a", b"", |h| h.version = VERSION - 1),
            record(b"/a", b"", |h| h.object_len = 3),
            record(b"/a", b"", |h| h.length = 100),
            record(b"/a", b"", |h| (h.object_len, h.exe_len) = (u16::MAX, u16::MAX)),
        ] {
            let error = Event::try_from(&bytes[..]).expect_err("not a record");
            assert_eq!(error.raw, bytes);
        }
    }

    proptest! {
        #[test]
        fn no_bytes_make_it_panic(mut bytes in proptest::collection::vec(any::<u8>(), 0..600), valid: bool) {
            if valid && bytes.len() >= 8 {
                bytes[0..2].copy_from_slice(&VERSION.to_ne_bytes());
                let length = bytes.len() as u32;
                bytes[4..8].copy_from_slice(&length.to_ne_bytes());
            }
            if let Ok(event) = Event::try_from(&bytes[..]) {
                drop((event.access().count(), event.operation(), event.reason(), event.endpoint()));
            }
        }
    }
}
