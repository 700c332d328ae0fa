//! Long work that goes on is no hang: systemd is told, at the start and under its watchdog.

use sd_notify::NotifyState;
use std::{
    cell::Cell,
    time::{Duration, Instant},
};

/// How often it is told, and for how long that counts at the start.
const EVERY: Duration = Duration::from_secs(1);
const COUNTS: Duration = Duration::from_secs(60);

/// One step of many is done.
pub(super) fn goes_on() {
    thread_local!(static SAID: Cell<Option<Instant>> = const { Cell::new(None) });
    if SAID.get().is_none_or(|said| said.elapsed() >= EVERY) {
        SAID.set(Some(Instant::now()));
        let more = u32::try_from(COUNTS.as_micros()).unwrap_or(u32::MAX);
        // Without a service manager there is nobody to tell.
        let _ = sd_notify::notify(false, &[NotifyState::Watchdog, NotifyState::ExtendTimeoutUsec(more)]);
    }
}
