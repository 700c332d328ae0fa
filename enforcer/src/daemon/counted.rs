//! How far the kernel's counters of what left no record have been told. They go on while no daemon runs, so this is
//! kept on disk: the next daemon tells the rest.

use super::{
    core::{boot_time, now},
    enforcement::AgentSlot,
};
use crate::approvals::sealed::{read_sealed, sealed, write_whole};
use serde::{Deserialize, Serialize};
use std::{collections::BTreeMap, path::Path};

/// What has been told, and until when.
#[derive(Debug, PartialEq, Eq)]
pub(super) struct Counted {
    /// Of each agent: decisions and activity that were lost.
    pub(super) lost: BTreeMap<AgentSlot, (u64, u64)>,
    /// Of each agent: system calls beyond those that are recorded.
    pub(super) calls: BTreeMap<AgentSlot, u64>,
    /// Nanoseconds since 1970.
    pub(super) at: i128,
}

#[derive(Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
struct Kept {
    /// The kernel's tables that have the counters: in others they begin anew.
    tables: String,
    at: i64,
    lost: Vec<(u32, u64, u64)>,
    calls: Vec<(u32, u64)>,
}

impl Counted {
    /// What an earlier daemon has told of these tables. Where that is not known, nothing has been told since the host
    /// booted: rather twice than never.
    pub(super) fn load(state: &Path, tables: &str) -> Self {
        let nothing = || Self { lost: BTreeMap::new(), calls: BTreeMap::new(), at: now() - boot_time() };
        let kept = read_sealed(&state.join(FILE)).and_then(|json| {
            json.map(|json| serde_json::from_slice::<Kept>(&json).map_err(|e| e.to_string())).transpose()
        });
        match kept {
            Ok(Some(kept)) if kept.tables == tables => Self {
                lost: kept.lost.into_iter().map(|(slot, d, a)| (AgentSlot(slot), (d, a))).collect(),
                calls: kept.calls.into_iter().map(|(slot, calls)| (AgentSlot(slot), calls)).collect(),
                at: kept.at.into(),
            },
            Ok(_) => nothing(),
            Err(problem) => {
                tracing::warn!(problem, "records that were lost may be told a second time");
                nothing()
            }
        }
    }

    /// Keeps it for the next daemon.
    pub(super) fn keep(&self, state: &Path, tables: &str) {
        let kept = Kept {
            tables: tables.to_owned(),
            at: i64::try_from(self.at).unwrap_or(i64::MAX),
            lost: self.lost.iter().map(|(slot, (d, a))| (slot.0, *d, *a)).collect(),
            calls: self.calls.iter().map(|(slot, calls)| (slot.0, *calls)).collect(),
        };
        let json = serde_json::to_vec(&kept).map_err(std::io::Error::other);
        let file = state.join(FILE);
        if let Err(error) = json.and_then(|json| write_whole(&file, &sealed(&json))) {
            tracing::warn!(
                %error,
                "cannot write {}: the next daemon may tell once more what records were lost",
                file.display()
            );
        }
    }
}

const FILE: &str = "counted.json";

/// By how much a counter has grown. One that runs backwards belongs to an entry that was made anew.
pub(super) fn grown(before: u64, now: u64) -> u64 {
    now.checked_sub(before).unwrap_or(now)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_kept_is_known_to_the_next_daemon_on_the_same_tables_only() {
        let dir = tempfile::tempdir().expect("dir");
        let mut told = Counted::load(dir.path(), "a");
        assert!(told.lost.is_empty() && told.at < now());
        told.lost.insert(AgentSlot(3), (5, 7));
        told.calls.insert(AgentSlot(4), 9);
        told.at = 1_000;
        told.keep(dir.path(), "a");
        assert_eq!(Counted::load(dir.path(), "a"), told);
        assert!(Counted::load(dir.path(), "b").lost.is_empty());
        std::fs::write(dir.path().join(FILE), "damaged").expect("write");
        assert!(Counted::load(dir.path(), "a").lost.is_empty());
    }

    #[test]
    fn a_counter_that_began_anew_has_grown_by_what_it_shows() {
        assert_eq!([grown(3, 3), grown(3, 5), grown(3, 2)], [0, 2, 2]);
    }
}
