//! Holds as the kernel side tells of them, in plain values.

use serde::{Deserialize, Deserializer, Serialize, Serializer, de::Error as _};
use std::{fmt, str::FromStr};

/// What the kernel calls a hold: a keyed hash over session, policy, operation, access and the exact object. The
/// same request again has the same id; an id never covers another object.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct HoldId(pub [u64; 2]);

impl fmt::Display for HoldId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{:016x}{:016x}", self.0[0], self.0[1])
    }
}

impl FromStr for HoldId {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        let digits =
            text.len() == 32 && text.bytes().all(|b| b.is_ascii_digit() || (b'a'..=b'f').contains(&b));
        if !digits {
            return Err(format!("{text:?} is not the id of a hold: 32 hexadecimal digits"));
        }
        let half = |part: &str| u64::from_str_radix(part, 16).map_err(|e| e.to_string());
        Ok(Self([half(&text[..16])?, half(&text[16..])?]))
    }
}

impl Serialize for HoldId {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.collect_str(self)
    }
}

impl<'de> Deserialize<'de> for HoldId {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        String::deserialize(deserializer)?.parse().map_err(D::Error::custom)
    }
}

/// What the kernel does with a request of this id.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum HoldState {
    /// Whoever makes it waits.
    Pending,
    /// It goes on, while uses and time last.
    Granted,
    /// It is refused until its time is over.
    Refused,
    /// Its time is over, or its uses are used up. What waited for it is refused.
    Over,
}

/// An entry of the kernel's table of holds, as far as the queue looks at it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Hold {
    /// Its id.
    pub id: HoldId,
    /// What becomes of it.
    pub state: HoldState,
    /// Slot of the session that it belongs to.
    pub slot: u32,
}

/// A session, safe against reuse of its slot.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct SessionKey {
    /// Entry of the kernel's table of sessions.
    pub slot: u32,
    /// Never repeats.
    pub generation: u64,
}

/// A thread that waits inside a system call.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Waiter {
    /// What it waits for.
    pub id: HoldId,
    /// The thread.
    pub pid: u32,
    /// Its process.
    pub tgid: u32,
    /// When the process started (boot time): numbers of processes are used again.
    pub started: u64,
}

/// What time it is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Now {
    /// Seconds since 1970: what people and statements mean.
    pub wall: i64,
    /// Nanoseconds since boot, sleep included: what the kernel's deadlines mean.
    pub boot: u64,
}

impl Now {
    /// The boot time at which it will be `wall`. A time that has passed is now.
    pub fn boot_at(self, wall: i64) -> u64 {
        let seconds = u64::try_from(wall.saturating_sub(self.wall)).unwrap_or(0);
        self.boot.saturating_add(seconds.saturating_mul(SECOND))
    }
}

/// Nanoseconds.
pub const SECOND: u64 = 1_000_000_000;

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_id_is_32_digits_and_nothing_else() {
        let id = HoldId([1, u64::MAX]);
        assert_eq!(id.to_string(), "0000000000000001ffffffffffffffff");
        assert_eq!(id.to_string().parse(), Ok(id));
        for text in ["", "1", "+000000000000001ffffffffffffffff", "0000000000000001FFFFFFFFFFFFFFFF", "é"] {
            assert!(text.parse::<HoldId>().is_err(), "{text}");
        }
    }
}
