//! What happened and left no record, by the kernel's own counters.

use super::core::{Core, now};
use crate::event::json;

impl Core {
    /// Records what the kernel could not hand over since the last time.
    pub fn note_losses(&mut self) {
        let counts = match self.enforcement.lost() {
            Ok(counts) => counts,
            Err(error) => return tracing::error!(%error, "cannot read the counters of lost records"),
        };
        let read = now();
        let between = [std::mem::replace(&mut self.lost_at, read), read];
        for (slot, decisions, activity) in counts {
            // A counter that runs backwards belongs to an entry that was made anew.
            let (d, a) = self.lost_seen.insert(slot, (decisions, activity)).unwrap_or_default();
            let new = (decisions.saturating_sub(d), activity.saturating_sub(a));
            if new == (0, 0) {
                continue;
            }
            self.lost.decisions += new.0;
            self.lost.activity += new.1;
            let name = self.slots.name(slot).map(str::to_owned);
            self.audit.append(&json::lost(name.as_deref(), new.0, new.1, between));
        }
        let beyond = self.enforcement.calls_beyond().unwrap_or_else(|error| {
            tracing::error!(%error, "cannot read the counters of system calls");
            Vec::new()
        });
        for (slot, calls) in beyond {
            // As above. No fault of the daemon or the ring, so it degrades nothing.
            let new = calls.saturating_sub(self.calls_seen.insert(slot, calls).unwrap_or_default());
            if new > 0 {
                self.audit.append(&json::calls_beyond(self.slots.name(slot), new, between));
            }
        }
        self.flush();
    }
}
