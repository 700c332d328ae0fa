//! What happened and left no record, by the kernel's own counters.

use super::{
    core::{Core, now},
    counted::grown,
};
use crate::event::json;

impl Core {
    /// Records what the kernel could not hand over since the last time.
    pub fn note_losses(&mut self) {
        let counts = match self.enforcement.lost() {
            Ok(counts) => counts,
            Err(error) => return tracing::error!(%error, "cannot read the counters of lost records"),
        };
        let read = now();
        let between = [std::mem::replace(&mut self.counted.at, read), read];
        let mut changed = false;
        for (slot, decisions, activity) in counts {
            let (d, a) = self.counted.lost.insert(slot, (decisions, activity)).unwrap_or_default();
            changed |= (d, a) != (decisions, activity);
            let new = (grown(d, decisions), grown(a, activity));
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
            let before = self.counted.calls.insert(slot, calls).unwrap_or_default();
            changed |= before != calls;
            // No fault of the daemon or the ring, so it degrades nothing.
            let new = grown(before, calls);
            if new > 0 {
                self.audit.append(&json::calls_beyond(self.slots.name(slot), new, between));
            }
        }
        self.flush();
        if changed {
            self.counted.keep(&self.settings.paths.state, self.enforcement.tables());
        }
    }
}
