//! Tells the threads of sinks that there is something new, or that they shall end.

use std::{
    sync::{Condvar, Mutex, MutexGuard, PoisonError},
    time::{Duration, Instant},
};

#[derive(Clone, Copy, Default)]
struct State {
    commits: u64,
    stop: bool,
}

/// Shared by the thread that signs and the threads that deliver.
#[derive(Default)]
pub struct Wake {
    state: Mutex<State>,
    changed: Condvar,
}

impl Wake {
    fn lock(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// There is a new checkpoint.
    pub fn committed(&self) {
        self.lock().commits += 1;
        self.changed.notify_all();
    }

    pub(super) fn stop(&self) {
        self.lock().stop = true;
        self.changed.notify_all();
    }

    pub(crate) fn stopping(&self) -> bool {
        self.lock().stop
    }

    /// How many checkpoints there have been.
    pub(crate) fn commits(&self) -> u64 {
        self.lock().commits
    }

    /// Waits until there were more than `seen` checkpoints, or the time is over, or it shall end.
    pub(crate) fn wait_for_more(&self, seen: u64, at_most: Duration) {
        self.wait(at_most, |state| state.commits > seen);
    }

    /// Waits, unless it shall end.
    pub(crate) fn wait_out(&self, time: Duration) {
        self.wait(time, |_| false);
    }

    fn wait(&self, at_most: Duration, enough: impl Fn(&State) -> bool) {
        let until = Instant::now() + at_most;
        let mut state = self.lock();
        while !state.stop && !enough(&state) {
            let Some(left) = until.checked_duration_since(Instant::now()).filter(|left| !left.is_zero())
            else {
                return;
            };
            state = self.changed.wait_timeout(state, left).unwrap_or_else(PoisonError::into_inner).0;
        }
    }
}
