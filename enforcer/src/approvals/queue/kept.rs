//! What survives the daemon, and what has changed of it.

use super::{Entry, Launch, Meter};
use crate::approvals::hold::HoldId;
use serde::{Deserialize, Serialize};
use std::{collections::BTreeMap, sync::Arc};

/// What survives the daemon. Copies share their entries, so that they cost little beside a thousand of them.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Kept {
    pub(super) entries: BTreeMap<HoldId, Arc<Entry>>,
    pub(super) meters: BTreeMap<String, Meter>,
    pub(super) launches: BTreeMap<String, Launch>,
}

/// What has to be done to one state to get the next: what is there now, or `None` where it is gone.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct Change {
    #[serde(skip_serializing_if = "BTreeMap::is_empty")]
    entries: BTreeMap<HoldId, Option<Arc<Entry>>>,
    #[serde(skip_serializing_if = "BTreeMap::is_empty")]
    meters: BTreeMap<String, Option<Meter>>,
    #[serde(skip_serializing_if = "BTreeMap::is_empty")]
    launches: BTreeMap<String, Option<Launch>>,
}

impl Kept {
    /// One request, to change it.
    pub(super) fn entry_mut(&mut self, id: HoldId) -> Option<&mut Entry> {
        self.entries.get_mut(&id).map(Arc::make_mut)
    }

    /// What has changed since `before`.
    pub fn since(&self, before: &Self) -> Change {
        // Entries that nobody touched are the very same: a look at two addresses.
        let same = |a: &Arc<Entry>, b: &Arc<Entry>| Arc::ptr_eq(a, b) || a == b;
        Change {
            entries: changes(&before.entries, &self.entries, same),
            meters: changes(&before.meters, &self.meters, |a, b| a == b),
            launches: changes(&before.launches, &self.launches, |a, b| a == b),
        }
    }

    /// Makes it what it was after the change.
    pub fn apply(&mut self, change: Change) {
        put(&mut self.entries, change.entries);
        put(&mut self.meters, change.meters);
        put(&mut self.launches, change.launches);
    }
}

impl Change {
    /// Nothing has changed.
    pub fn is_empty(&self) -> bool {
        self.entries.is_empty() && self.meters.is_empty() && self.launches.is_empty()
    }
}

fn changes<K: Ord + Clone, V: Clone>(
    before: &BTreeMap<K, V>,
    after: &BTreeMap<K, V>,
    same: impl Fn(&V, &V) -> bool,
) -> BTreeMap<K, Option<V>> {
    let is_new = |(key, value): &(&K, &V)| before.get(*key).is_none_or(|old| !same(old, value));
    let new = after.iter().filter(is_new).map(|(key, value)| (key.clone(), Some(value.clone())));
    let gone = before.keys().filter(|key| !after.contains_key(*key)).map(|key| (key.clone(), None));
    new.chain(gone).collect()
}

fn put<K: Ord, V>(into: &mut BTreeMap<K, V>, changes: BTreeMap<K, Option<V>>) {
    for (key, value) in changes {
        match value {
            Some(value) => drop(into.insert(key, value)),
            None => drop(into.remove(&key)),
        }
    }
}
