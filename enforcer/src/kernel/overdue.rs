//! What waits for a person while there is no daemon: woken from the pins alone once its time is over. The kernel
//! refuses it by then, whoever wakes it; without anybody it would only stay where it stopped.

use super::{
    holds,
    sessions::boot_time,
    tables::{Holds, Waiters},
};
use crate::daemon::enforcement::EnforcementError;
use aya::maps::{HashMap, Map, MapData, MapError};
use std::{io, path::Path, time::Duration};

/// Wakes what is overdue. Returns after how long to look again; `None`: nothing waits.
pub fn wake(pins: &Path) -> Result<Option<Duration>, EnforcementError> {
    let maps = pins.join("maps");
    if !maps.join("WAITERS").exists() {
        return Ok(None);
    }
    let open = |name: &str| {
        MapData::from_pin(maps.join(name)).map_err(|source| EnforcementError::Kernel {
            what: format!("opening the pinned map {}", maps.join(name).display()),
            source: io::Error::other(source),
        })
    };
    let wrong = |e: MapError| EnforcementError::Kernel {
        what: "opening a pinned map".to_owned(),
        source: io::Error::other(e),
    };
    let all: Holds = HashMap::try_from(Map::HashMap(open("HOLDS")?)).map_err(wrong)?;
    let waiters: Waiters = HashMap::try_from(Map::HashMap(open("WAITERS")?)).map_err(wrong)?;
    let known = holds::list(&all)?;
    let now = boot_time();
    let mut next: Option<u64> = None;
    for (key, waiter) in holds::waiters(&waiters)? {
        let deadline = known.iter().find(|(id, _)| *id == waiter.id).map_or(0, |(_, hold)| hold.deadline);
        if deadline <= now {
            holds::wake(&all, &waiters, key)?;
        } else {
            next = Some(next.map_or(deadline, |first| first.min(deadline)));
        }
    }
    Ok(next.map(|deadline| Duration::from_nanos(deadline - now)))
}
