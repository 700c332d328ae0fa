//! What a host has for layers.

use super::{ASKED_FIRST, NO_LANDLOCK, UNKNOWN_ORDER, apply};
use std::fs;

/// What matters of a host.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Host {
    /// Landlock's version.
    pub landlock: Option<u32>,
    /// The active LSMs, in the order in which the kernel asks them; empty where that cannot be told.
    pub lsms: Vec<String>,
}

impl Host {
    /// This host.
    pub fn look() -> Self {
        let list = fs::read_to_string("/sys/kernel/security/lsm").unwrap_or_default();
        let lsms = list.trim().split(',').filter(|name| !name.is_empty()).map(str::to_owned).collect();
        Self { landlock: apply::landlock_version(), lsms }
    }

    /// Why a session gets no ruleset here. A demand gives up records, never the ruleset.
    pub(super) fn without_landlock(&self, demanded: bool) -> Option<&'static str> {
        // Version 2 can let things move between directories; before it, all of that was refused.
        if self.landlock.is_none_or(|version| version < 2) {
            return Some(NO_LANDLOCK);
        }
        let place = |name: &str| self.lsms.iter().position(|one| one == name);
        match (place("bpf"), place("landlock")) {
            (Some(bpf), Some(landlock)) if bpf < landlock => None,
            _ if demanded => None,
            (Some(_), Some(_)) => Some(ASKED_FIRST),
            _ => Some(UNKNOWN_ORDER),
        }
    }
}
