//! `enforcer wake-overdue`: what a unit of its own does while the daemon is down.

use super::{Failure, exit::Exit, wake_overdue};
use std::{path::Path, process::ExitCode, thread, time::Duration};

/// The longest that is waited before looking again: what waits can become more.
const LOOK: Duration = Duration::from_secs(30);

/// Wakes what is overdue until nothing waits. Broken settings are no reason not to: the usual pins are looked at then.
pub(super) fn run(pins: &Path) -> Result<ExitCode, Failure> {
    loop {
        match wake_overdue(pins) {
            Ok(None) => return Ok(Exit::Ok.into()),
            // Not before the deadline: the kernel counts in the same clock, but finer.
            Ok(Some(next)) => thread::sleep(next.min(LOOK) + Duration::from_millis(10)),
            Err(error) => {
                let remedy = "run `enforcer doctor`, and start the daemon";
                return Err(Failure::new(Exit::Kernel, error.to_string(), remedy));
            }
        }
    }
}
