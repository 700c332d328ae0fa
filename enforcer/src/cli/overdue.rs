//! `enforcer wake-overdue`: what a unit of its own does while the daemon is down.

use super::{Failure, exit::Exit, wake_overdue};
use std::{os::unix::net::UnixStream, path::Path, process::ExitCode, thread, time::Duration};

/// The longest that is waited before looking again: something may begin to wait, and the daemon may be back.
const LOOK: Duration = Duration::from_secs(10);

/// Wakes what is overdue until there is a daemon again, or nothing is pinned any more. Broken settings are no reason not
/// to: the usual pins are looked at then.
pub(super) fn run(pins: &Path, socket: &Path) -> Result<ExitCode, Failure> {
    loop {
        // Whoever listens there does it itself.
        if UnixStream::connect(socket).is_ok() || !pins.join("maps").exists() {
            return Ok(Exit::Ok.into());
        }
        match wake_overdue(pins) {
            // Not before the deadline: the kernel counts in the same clock, but finer.
            Ok(next) => thread::sleep(next.unwrap_or(LOOK).min(LOOK) + Duration::from_millis(10)),
            Err(error) => {
                let remedy = "run `enforcer doctor`, and start the daemon";
                return Err(Failure::new(Exit::Kernel, error.to_string(), remedy));
            }
        }
    }
}
