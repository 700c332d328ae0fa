//! How far an approval reaches, and how far it may reach by tier.

use super::canonical::{parse_stamp, stamp};
use crate::policy::Tier;
use serde::{Deserialize, Serialize};
use std::fmt;

/// How often, or how long, what was asked for may be done.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Shape {
    /// One time.
    Once,
    /// So many times.
    Times(u32),
    /// Any number of times until then (seconds since 1970).
    Until(i64),
    /// Any number of times while the session lasts.
    Session,
}

/// What a kernel grant counts that has no number of uses.
pub const UNCOUNTED: u32 = u32::MAX;
/// How long a counted approval can be used, in seconds.
pub const COUNTED: i64 = 3600;

impl Shape {
    /// The shape as statements write it.
    pub fn parse(text: &str) -> Option<Self> {
        let shape = match text.split_once(' ') {
            None if text == "once" => Self::Once,
            None if text == "session" => Self::Session,
            Some(("times", n)) => Self::Times(n.parse().ok().filter(|n| (1..UNCOUNTED).contains(n))?),
            Some(("until", at)) => Self::Until(parse_stamp(at)?),
            _ => return None,
        };
        (shape.to_string() == text).then_some(shape)
    }

    /// Uses in the kernel.
    pub fn uses(self) -> u32 {
        match self {
            Self::Once => 1,
            Self::Times(n) => n,
            Self::Until(_) | Self::Session => UNCOUNTED,
        }
    }

    /// When the grant ends, in seconds since 1970; `None`: with the session.
    pub fn ends(self, now: i64) -> Option<i64> {
        match self {
            Self::Once | Self::Times(_) => Some(now + COUNTED),
            Self::Until(at) => Some(at),
            Self::Session => None,
        }
    }

    /// Why it is too much for a tier, if it is.
    pub fn excess(self, tier: Tier, now: i64) -> Option<String> {
        let Some(limit) = limit(tier) else { return Some("tier critical is never approved".to_owned()) };
        match self {
            Self::Once => None,
            Self::Times(n) if n <= limit.times => None,
            Self::Times(_) if limit.times == 1 => Some("only `once` is possible".to_owned()),
            Self::Times(_) => Some(format!("at most {} times are possible", limit.times)),
            Self::Until(at) if at <= now => Some("the time has passed".to_owned()),
            Self::Until(at) if at - now <= limit.seconds => None,
            Self::Until(_) | Self::Session if limit.seconds == 0 => {
                Some("nothing standing is possible, only `once`".to_owned())
            }
            Self::Until(_) => Some(format!("at most {} minutes are possible", limit.seconds / 60)),
            Self::Session if limit.session => None,
            Self::Session => Some("not for a whole session: say how often or until when".to_owned()),
        }
    }
}

impl fmt::Display for Shape {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Once => f.write_str("once"),
            Self::Times(n) => write!(f, "times {n}"),
            Self::Until(at) => write!(f, "until {}", stamp(*at)),
            Self::Session => f.write_str("session"),
        }
    }
}

struct Limit {
    times: u32,
    seconds: i64,
    session: bool,
}

/// docs/approvals.md has the same table.
fn limit(tier: Tier) -> Option<Limit> {
    Some(match tier {
        Tier::Low => Limit { times: 1000, seconds: 86_400, session: true },
        Tier::Medium => Limit { times: 20, seconds: 3600, session: false },
        Tier::High => Limit { times: 1, seconds: 0, session: false },
        Tier::Critical => return None,
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn shapes_have_one_form() {
        for shape in [Shape::Once, Shape::Times(3), Shape::Until(1_800_000_000), Shape::Session] {
            assert_eq!(Shape::parse(&shape.to_string()), Some(shape));
        }
        for text in [
            "",
            "Once",
            "times 0",
            "times 03",
            "times +3",
            "times 4294967295",
            "until now",
            "once ",
            "session x",
        ] {
            assert_eq!(Shape::parse(text), None, "{text}");
        }
    }

    #[test]
    fn nothing_standing_is_possible_for_high_and_nothing_at_all_for_critical() {
        let now = 1_800_000_000;
        let all = [Shape::Once, Shape::Times(2), Shape::Until(now + 1), Shape::Session];
        let fits = |tier| all.map(|shape| shape.excess(tier, now).is_none());
        assert_eq!(fits(Tier::High), [true, false, false, false]);
        assert_eq!(fits(Tier::Critical), [false; 4]);
        assert_eq!(fits(Tier::Medium), [true, true, true, false]);
        assert_eq!(fits(Tier::Low), [true; 4]);
    }

    #[test]
    fn what_a_tier_allows_has_an_end() {
        let now = 1_800_000_000;
        for (tier, times, seconds) in [(Tier::Low, 1000, 86_400), (Tier::Medium, 20, 3600)] {
            assert_eq!(Shape::Times(times).excess(tier, now), None);
            assert!(Shape::Times(times + 1).excess(tier, now).is_some());
            assert_eq!(Shape::Until(now + seconds).excess(tier, now), None);
            assert!(Shape::Until(now + seconds + 1).excess(tier, now).is_some());
            assert!(Shape::Until(now).excess(tier, now).is_some());
        }
    }
}
