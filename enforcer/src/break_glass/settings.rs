//! `[break_glass]` in the settings.

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

/// The longest that anybody can set, in seconds.
const MOST: u64 = 4 * 3600;

/// Lifting what policies refuse, for a while.
#[derive(Clone, Debug, PartialEq, Eq, Deserialize, Serialize, JsonSchema)]
#[serde(deny_unknown_fields, default)]
pub struct BreakGlass {
    /// The longest time for which it can be asked, in seconds, at most 14400; 0: never.
    pub maximum_seconds: u64,
}

impl Default for BreakGlass {
    fn default() -> Self {
        Self { maximum_seconds: 900 }
    }
}

impl BreakGlass {
    /// What is wrong with it.
    pub fn problem(&self) -> Option<(&'static str, String)> {
        let problem = || ("break_glass.maximum_seconds", format!("must be at most {MOST}: four hours"));
        (self.maximum_seconds > MOST).then(problem)
    }
}
