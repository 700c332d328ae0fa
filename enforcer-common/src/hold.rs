//! Actions that wait for a person: what kernel and daemon keep about them.
//!
//! A hold's key is a keyed hash of everything that was asked for, made in the kernel. What differs in anything
//! has another key, so an approval covers what was approved and nothing else.

use zerocopy::{FromBytes, Immutable, IntoBytes, KnownLayout};

/// SipHash-2-4, 128 bit, of the session, the policy, the operation and its exact object.
pub type HoldId = [u64; 2];

/// Holds that exist at one time, and threads that wait for them.
pub const HOLDS: u32 = 8_192;
/// Threads that wait at one time.
pub const WAITERS: u32 = 16_384;

/// Callers stop until somebody decides.
pub const WAITING: u8 = 1;
/// Somebody is asked; callers are refused meanwhile and may try again.
pub const ASKED: u8 = 2;
/// Approved: as many calls as are left pass until the deadline.
pub const GRANTED: u8 = 3;
/// Refused until the deadline; then it may be asked for again.
pub const REFUSED: u8 = 4;

/// What has been asked for, and what became of it.
#[derive(Clone, Copy, Debug, PartialEq, Eq, FromBytes, IntoBytes, Immutable, KnownLayout)]
#[repr(C)]
pub struct Hold {
    /// See [`Word`]: the one word that a use is taken from.
    pub word: u64,
    /// Nanoseconds of boot time. Once it has passed, what waits or is asked is refused, a grant is none, and what
    /// was refused may be asked for again.
    pub deadline: u64,
    /// Nanoseconds of boot time of the first request.
    pub since: u64,
    /// The session's id.
    pub session: [u64; 2],
    /// Slot of the session.
    pub slot: u32,
    /// Entry of the agents map.
    pub agent: u32,
    /// [`crate::map::Policy::id`].
    pub policy: u32,
    /// One of [`crate::event::operation`].
    pub operation: u16,
    /// Bits of [`crate::access`].
    pub access: u16,
    /// SHA-256 of the canonical policy: the same policy loaded again has another id.
    pub digest: [u64; 4],
}

/// State, uses left, and half of the key: entries of a hash map may be reused while a program still looks at them,
/// and another one's word must not pass for this one's.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Word(pub u64);

impl Word {
    /// The most uses that a grant can have.
    pub const MOST: u32 = 0xff_ffff;

    /// The word of a hold.
    #[inline(always)]
    pub const fn new(id: HoldId, state: u8, uses: u32) -> Self {
        Self(id[0] << 32 | (state as u64) << 24 | (uses & Self::MOST) as u64)
    }

    /// Whether it is the word of this hold.
    #[inline(always)]
    pub const fn is_of(self, id: HoldId) -> bool {
        self.0 >> 32 == id[0] & 0xffff_ffff
    }

    /// [`WAITING`] and so on.
    #[inline(always)]
    pub const fn state(self) -> u8 {
        (self.0 >> 24) as u8
    }

    /// How often the grant can still be used.
    #[inline(always)]
    pub const fn uses(self) -> u32 {
        self.0 as u32 & Self::MOST
    }
}

/// A thread that waits.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, FromBytes, IntoBytes, Immutable, KnownLayout)]
#[repr(C)]
pub struct WaiterKey {
    /// Thread id in the initial namespace.
    pub pid: u32,
    /// Thread group id.
    pub tgid: u32,
    /// Start of the thread group's leader, nanoseconds of boot time: ids are reused.
    pub started: u64,
}

/// What it waits for.
#[derive(Clone, Copy, Debug, PartialEq, Eq, FromBytes, IntoBytes, Immutable, KnownLayout)]
#[repr(C)]
pub struct Waiter {
    /// Key of the hold.
    pub id: HoldId,
    /// Nanoseconds of boot time at which it began to wait.
    pub since: u64,
    /// How often it was woken and had to wait again.
    pub woken: u64,
}

/// How much a session may ask for. Each side writes one field.
#[derive(Clone, Copy, Debug, PartialEq, Eq, FromBytes, IntoBytes, Immutable, KnownLayout)]
#[repr(C)]
pub struct Quota {
    /// New requests so far. Written by the kernel.
    pub asked: u64,
    /// Requests up to which the session may ask. Written by the daemon.
    pub allowed: u64,
}

/// What the daemon tells the programs about holding.
#[derive(Clone, Copy, Debug, PartialEq, Eq, FromBytes, IntoBytes, Immutable, KnownLayout)]
#[repr(C)]
pub struct HoldSettings {
    /// The secret of [`HoldId`]; zero: nothing can be held.
    pub key: [u64; 2],
    /// Nanoseconds that a request waits unless the daemon says otherwise.
    pub wait: u64,
    /// Zero.
    pub reserved: u64,
}

const _: () = {
    assert!(size_of::<Hold>() == 88);
    assert!(size_of::<WaiterKey>() == 16);
    assert!(size_of::<Waiter>() == 32);
};

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_word_keeps_its_parts_apart() {
        let id = [0x1111_2222_3333_4444, 5];
        let word = Word::new(id, GRANTED, Word::MOST);
        assert!(word.is_of(id) && !word.is_of([0x1111_2222_3333_4445, 5]));
        assert_eq!((word.state(), word.uses()), (GRANTED, Word::MOST));
        assert_eq!(Word(word.0 - 1).uses(), Word::MOST - 1);
        assert_eq!(Word::new(id, WAITING, 0).uses(), 0);
    }
}
