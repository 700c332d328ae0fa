//! What each tier becomes at each level of trust.

use crate::policy::{Tier, Trust};
use enforcer_common::map::TierMap;
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

/// What becomes of what a rule of some tier allows. Ordered: the larger one is stricter.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Deserialize, Serialize, JsonSchema)]
#[serde(rename_all = "lowercase")]
pub enum Becomes {
    /// It goes on.
    Allow,
    /// A person decides.
    Hold,
    /// It is refused.
    Deny,
}

impl Becomes {
    /// The word in the settings.
    pub fn name(self) -> &'static str {
        match self {
            Self::Allow => "allow",
            Self::Hold => "hold",
            Self::Deny => "deny",
        }
    }
}

/// What each tier becomes at one level. Tier critical has no place here: it is always refused.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Deserialize, Serialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct Row {
    /// Tier low, and rules without a tier.
    pub low: Becomes,
    /// Tier medium.
    pub medium: Becomes,
    /// Tier high.
    pub high: Becomes,
}

impl Row {
    const fn new(low: Becomes, medium: Becomes, high: Becomes) -> Self {
        Self { low, medium, high }
    }

    fn tiers(self) -> [(Tier, Becomes); 3] {
        [(Tier::Low, self.low), (Tier::Medium, self.medium), (Tier::High, self.high)]
    }
}

/// What tiers mean at each level of trust. A level that is named here names all three tiers; tier critical is
/// always refused.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Deserialize, Serialize, JsonSchema)]
#[serde(deny_unknown_fields, default)]
pub struct Table {
    /// The level of an agent about which nothing was stated.
    pub probation: Row,
    /// The level above probation.
    pub supervised: Row,
    /// The level above supervised.
    pub trusted: Row,
    /// The highest level.
    pub autonomous: Row,
}

impl Default for Table {
    fn default() -> Self {
        use Becomes::{Allow, Hold};
        Self {
            probation: Row::new(Allow, Hold, Hold),
            supervised: Row::new(Allow, Allow, Hold),
            trusted: Row::new(Allow, Allow, Hold),
            autonomous: Row::new(Allow, Allow, Allow),
        }
    }
}

impl Table {
    /// The row of a level.
    pub fn row(&self, level: Trust) -> Row {
        match level {
            Trust::Probation => self.probation,
            Trust::Supervised => self.supervised,
            Trust::Trusted => self.trusted,
            Trust::Autonomous => self.autonomous,
        }
    }

    /// What a session on this level has in the kernel.
    pub fn tiers(&self, level: Trust) -> TierMap {
        let mut out = TierMap { allow: [0; 3], hold: [0; 3], level: level.number() };
        for (at, (_, becomes)) in self.row(level).tiers().into_iter().enumerate() {
            match becomes {
                Becomes::Allow => out.allow[at] = u16::MAX,
                Becomes::Hold => out.hold[at] = u16::MAX,
                Becomes::Deny => {}
            }
        }
        out
    }

    /// Why this cannot be the table: more trust, or less at stake, must never be treated more strictly.
    pub fn problem(&self) -> Option<String> {
        for level in Trust::ALL {
            for pair in self.row(level).tiers().windows(2) {
                let [(less, low), (more, high)] = pair else { continue };
                if high < low {
                    return Some(format!(
                        "{}: tier {} is `{}`, but tier {}, with more at stake, is `{}`: what has more at stake is \
                         never treated more leniently",
                        level.name(),
                        word(*less),
                        low.name(),
                        word(*more),
                        high.name()
                    ));
                }
            }
        }
        for pair in Trust::ALL.windows(2) {
            let [lower, higher] = pair else { continue };
            let rows = self.row(*lower).tiers().into_iter().zip(self.row(*higher).tiers());
            for ((tier, below), (_, above)) in rows {
                if above > below {
                    return Some(format!(
                        "{}.{} is `{}`, but `{}` at {}, with less trust: a higher level is never stricter than a \
                         lower one",
                        higher.name(),
                        word(tier),
                        above.name(),
                        below.name(),
                        lower.name()
                    ));
                }
            }
        }
        None
    }
}

fn word(tier: Tier) -> &'static str {
    crate::approvals::request::tier_name(tier)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::policy::trust_tiers;
    use enforcer_common::{map::Masks, verdict::Verdict};
    use proptest::prelude::*;

    #[test]
    fn the_default_table_is_the_one_that_policies_are_tested_with() {
        for level in Trust::ALL {
            let TierMap { allow, hold, level: number } = Table::default().tiers(level);
            let built_in = trust_tiers(level);
            assert_eq!((allow, hold, number), (built_in.allow, built_in.hold, level.number()));
        }
        assert_eq!(Table::default().problem(), None);
    }

    #[test]
    fn rules_without_a_tier_run_at_every_level() {
        let plain = Masks { allow: [1, 0, 0], ..Masks::NONE };
        for level in Trust::ALL {
            assert_eq!(plain.fold(&Table::default().tiers(level)).verdict(1), Verdict::Allow);
        }
    }

    fn becomes() -> impl Strategy<Value = Becomes> {
        prop::sample::select(vec![Becomes::Allow, Becomes::Hold, Becomes::Deny])
    }

    fn row() -> impl Strategy<Value = Row> {
        (becomes(), becomes(), becomes()).prop_map(|(low, medium, high)| Row { low, medium, high })
    }

    fn verdict(table: &Table, level: Trust, tier: usize, holds: bool) -> Verdict {
        let mut masks = Masks::NONE;
        if holds {
            masks.hold[tier] = 1
        } else {
            masks.allow[tier] = 1
        }
        masks.fold(&table.tiers(level)).verdict(1)
    }

    proptest! {
        /// A table that passes is monotone in what the kernel makes of it; one that does not pass is not.
        #[test]
        fn more_trust_is_never_stricter(
            (probation, supervised, trusted, autonomous) in (row(), row(), row(), row()),
        ) {
            let table = Table { probation, supervised, trusted, autonomous };
            let levels = Trust::ALL.windows(2).all(|pair| {
                (0..3).all(|tier| verdict(&table, pair[1], tier, false) <= verdict(&table, pair[0], tier, false))
            });
            let tiers = Trust::ALL.iter().all(|level| {
                (0..2).all(|tier| verdict(&table, *level, tier, false) <= verdict(&table, *level, tier + 1, false))
            });
            prop_assert_eq!(table.problem().is_none(), levels && tiers);
            // A rule that holds is never let through by any table.
            for level in Trust::ALL {
                for tier in 0..3 {
                    prop_assert!(verdict(&table, level, tier, true) >= Verdict::Hold);
                }
            }
        }
    }
}
