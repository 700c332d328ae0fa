//! Questions and answers about break-glass.

use serde::{Deserialize, Serialize};

/// Break-glass that is in force.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct BreakGlassStatus {
    /// Its id, as in records.
    pub id: String,
    /// For whom.
    pub agents: Vec<String>,
    /// Why.
    pub reason: String,
    /// When the kernel ends it; RFC 3339.
    pub until: String,
    /// How long that is from now.
    pub seconds_left: u64,
}
