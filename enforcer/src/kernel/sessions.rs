//! Sessions in the kernel: those that the daemon binds, and the pool from which the kernel binds
//! cgroups that a policy names.

use super::{
    publish::full,
    tables::{Tables, failed, session_at, to_bytes, view},
};
use crate::daemon::enforcement::{AgentSlot, EnforcementError, SessionEntry, SessionRef};
use aya::maps::MapError;
use enforcer_common::{
    limits,
    map::{NO_SESSION, SESSION_LAUNCHING, Session, SessionSeed, StrayKey, TierMap},
};
use std::{collections::BTreeSet, io::Read, mem::offset_of, sync::atomic::Ordering};

/// Entries from here on are only given away by the kernel, so that an interrupted daemon can never
/// bind one that waits in the pool.
const SEEDED: u32 = limits::SESSIONS / 2;
/// Free sessions that wait in the pool.
const POOL: usize = 512;

/// Entries that may not be given to anybody.
pub struct Sessions {
    pooled: BTreeSet<u32>,
    next: u32,
    /// What those in the pool begin with; `None` until this daemon has said it to them.
    first: Option<TierMap>,
}

impl Sessions {
    /// Takes stock of what an earlier daemon left. The pool is turned round once, never emptied: a
    /// cgroup that is made meanwhile must find a session.
    pub fn adopt(tables: &mut Tables) -> Result<Self, EnforcementError> {
        let mut found = Self { pooled: BTreeSet::new(), next: 1, first: None };
        for _ in 0..tables.seeds.capacity() {
            let seed = match tables.seeds.pop(0) {
                Ok(bytes) => bytes,
                Err(MapError::SyscallError(e)) if e.io_error.raw_os_error() == Some(libc::ENOENT) => break,
                Err(MapError::ElementNotFound) => break,
                Err(e) => return Err(failed("reading SEEDS", e)),
            };
            let slot = view::<SessionSeed>(&seed).slot;
            if !found.pooled.insert(slot) {
                tables.seeds.push(seed, 0).map_err(|e| failed("writing SEEDS", e))?;
                break;
            }
            tables.seeds.push(seed, 0).map_err(|e| failed("writing SEEDS", e))?;
        }
        Ok(found)
    }

    /// Makes a cgroup a session.
    pub fn bind(
        &mut self,
        tables: &mut Tables,
        cgroup: u64,
        id: [u64; 2],
        agent: AgentSlot,
        tiers: TierMap,
    ) -> Result<SessionRef, EnforcementError> {
        match tables.session_of.get(&cgroup, 0) {
            // Named by a policy when the kernel had no session left to give.
            Ok(NO_SESSION) => {
                tables.session_of.remove(&cgroup).map_err(|e| failed("removing from SESSION_OF", e))?;
            }
            Ok(_) => return Err(taken()),
            Err(_) => {}
        }
        let slot = (0..SEEDED - 1)
            .map(|i| 1 + (self.next - 1 + i) % (SEEDED - 1))
            .find(|slot| version(tables, *slot) == 0)
            .ok_or_else(|| full("the table of sessions", u64::from(SEEDED)))?;
        self.next = 1 + slot % (SEEDED - 1);
        let made = Session {
            version: 0,
            state: SESSION_LAUNCHING,
            agent: agent.0,
            generation: random_word()?,
            id,
            cgroup,
            tiers,
            parent: NO_SESSION,
            flags: 0,
            bound_at: boot_time(),
            armed_at: 0,
            calls_since: 0,
            calls: 0,
            reserved: [0; 4],
        };
        tables.sessions.write(session_at(slot), &to_bytes::<_, { size_of::<Session>() }>(&made));
        tables.sessions.quarter(session_at(slot) + offset_of!(Session, version)).store(1, Ordering::SeqCst);
        const ONLY_NEW: u64 = 1;
        match tables.session_of.insert(cgroup, slot, ONLY_NEW) {
            Ok(()) => Ok(SessionRef { slot, generation: made.generation, id: made.id }),
            Err(e) => {
                forget(tables, slot);
                // The kernel was quicker: some agent's globs name this cgroup.
                match tables.session_of.get(&cgroup, 0) {
                    Ok(_) => Err(taken()),
                    Err(_) => Err(failed("writing SESSION_OF", e)),
                }
            }
        }
    }

    /// Frees a session.
    pub fn end(&mut self, tables: &mut Tables, slot: u32, generation: u64) -> Result<(), EnforcementError> {
        let session = checked(tables, slot)?;
        if session.version == 0 || session.generation != generation {
            return Ok(());
        }
        match tables.session_of.remove(&session.cgroup) {
            Ok(()) | Err(MapError::KeyNotFound) => {}
            Err(MapError::SyscallError(e)) if e.io_error.raw_os_error() == Some(libc::ENOENT) => {}
            Err(e) => return Err(failed("removing from SESSION_OF", e)),
        }
        forget(tables, slot);
        self.pooled.remove(&slot);
        Ok(())
    }

    /// Fills the pool up, sets the tiers of sessions that the kernel bound, and forgets strays that
    /// are gone.
    pub fn refill(
        &mut self,
        tables: &mut Tables,
        first: TierMap,
        tiers_of: &dyn Fn(AgentSlot) -> TierMap,
    ) -> Result<(), EnforcementError> {
        let bound: Vec<u32> =
            self.pooled.iter().copied().filter(|slot| version(tables, *slot) != 0).collect();
        for slot in bound {
            self.pooled.remove(&slot);
            let session = tables.session(slot);
            set_tiers(tables, slot, &tiers_of(AgentSlot(session.agent)));
        }
        if self.first != Some(first) {
            self.say_first(tables, first)?;
        }
        let mut slot = SEEDED;
        while self.pooled.len() < POOL && slot < limits::SESSIONS {
            if !self.pooled.contains(&slot) && version(tables, slot) == 0 {
                let seed = SessionSeed {
                    slot,
                    reserved: 0,
                    generation: random_word()?,
                    id: [random_word()?, random_word()?],
                    tiers: first,
                };
                tables.seeds.push(to_bytes(&seed), 0).map_err(|e| failed("writing SEEDS", e))?;
                self.pooled.insert(slot);
            }
            slot += 1;
        }
        forget_strays(tables)
    }

    /// Turns the pool round once, so that what an earlier daemon has put there begins with the tiers of this one.
    fn say_first(&mut self, tables: &mut Tables, first: TierMap) -> Result<(), EnforcementError> {
        for _ in 0..self.pooled.len() {
            let seed = match tables.seeds.pop(0) {
                Ok(bytes) => bytes,
                Err(MapError::SyscallError(e)) if e.io_error.raw_os_error() == Some(libc::ENOENT) => break,
                Err(MapError::ElementNotFound) => break,
                Err(e) => return Err(failed("reading SEEDS", e)),
            };
            let seed = SessionSeed { tiers: first, ..view::<SessionSeed>(&seed) };
            tables.seeds.push(to_bytes(&seed), 0).map_err(|e| failed("writing SEEDS", e))?;
        }
        self.first = Some(first);
        Ok(())
    }

    /// Entries in use.
    pub fn count(&self, tables: &Tables) -> u64 {
        (1..limits::SESSIONS).filter(|slot| version(tables, *slot) != 0).count() as u64
    }
}

/// Every session that exists.
pub fn list(tables: &Tables) -> Vec<SessionEntry> {
    (1..limits::SESSIONS)
        .filter(|slot| version(tables, *slot) != 0)
        .map(|slot| SessionEntry { slot, session: tables.session(slot) })
        .collect()
}

fn taken() -> EnforcementError {
    EnforcementError::Inconsistent("the cgroup is a session already".to_owned())
}

fn checked(tables: &Tables, slot: u32) -> Result<Session, EnforcementError> {
    if slot == 0 || slot >= limits::SESSIONS {
        return Err(EnforcementError::Gone(format!("session {slot}")));
    }
    Ok(tables.session(slot))
}

fn version(tables: &Tables, slot: u32) -> u16 {
    tables.sessions.quarter(session_at(slot) + offset_of!(Session, version)).load(Ordering::SeqCst)
}

/// First the version, which makes every label that points here void, then the rest.
fn forget(tables: &Tables, slot: u32) {
    tables.sessions.quarter(session_at(slot) + offset_of!(Session, version)).store(0, Ordering::SeqCst);
    tables.sessions.word(session_at(slot) + offset_of!(Session, generation)).store(0, Ordering::SeqCst);
}

/// Gives sessions other tiers, where `tiers_of` says so about their agent.
pub fn set_tiers_of(tables: &Tables, tiers_of: &dyn Fn(AgentSlot) -> Option<TierMap>) {
    for slot in (1..limits::SESSIONS).filter(|slot| version(tables, *slot) != 0) {
        let session = tables.session(slot);
        if let Some(tiers) = tiers_of(AgentSlot(session.agent)).filter(|tiers| *tiers != session.tiers) {
            set_tiers(tables, slot, &tiers);
        }
    }
}

/// Two words: the first has what runs and what waits of tier low, the second what waits of the others. Between the
/// two writes a hook may see one old and one new word. Where something runs no more, the second goes first: what
/// is to wait then waits already (hold beats allow), and the word that lets calls pass by itself comes last. Where
/// something runs that did not, the first goes first, so that it is not refused in between.
fn set_tiers(tables: &Tables, slot: u32, tiers: &TierMap) {
    let before = tables.session(slot).tiers;
    let loses = before.allow.iter().zip(tiers.allow).any(|(old, new)| old & !new != 0);
    let bytes = to_bytes::<_, { size_of::<TierMap>() }>(tiers);
    let at = session_at(slot) + offset_of!(Session, tiers);
    for word in if loses { [8, 0] } else { [0, 8] } {
        tables.sessions.word(at + word).store(view(&bytes[word..word + 8]), Ordering::SeqCst);
    }
}

/// Drops the second records of strays whose process is gone. The gate's count stays: a stray's
/// children may live on.
fn forget_strays(tables: &mut Tables) -> Result<(), EnforcementError> {
    let keys =
        tables.strays.keys().collect::<Result<Vec<_>, _>>().map_err(|e| failed("reading STRAYS", e))?;
    for bytes in keys {
        let key = view::<StrayKey>(&bytes);
        if started(key.tgid).is_some_and(|ticks| ticks == key.started / 10_000_000) {
            continue;
        }
        match tables.strays.remove(&bytes) {
            Ok(()) | Err(MapError::KeyNotFound) => {}
            Err(e) => return Err(failed("removing from STRAYS", e)),
        }
    }
    Ok(())
}

/// Start of a process since boot, in ticks of 10 ms (`/proc/PID/stat`, field 22).
fn started(pid: u32) -> Option<u64> {
    let text = std::fs::read_to_string(format!("/proc/{pid}/stat")).ok()?;
    let rest = &text[text.rfind(')')? + 1..];
    rest.split_ascii_whitespace().nth(19)?.parse().ok()
}

fn random_word() -> Result<u64, EnforcementError> {
    let mut bytes = [0; 8];
    std::fs::File::open("/dev/urandom")
        .and_then(|mut file| file.read_exact(&mut bytes))
        .map_err(|source| EnforcementError::Kernel { what: "reading /dev/urandom".to_owned(), source })?;
    Ok(u64::from_ne_bytes(bytes))
}

pub(super) fn boot_time() -> u64 {
    nix::time::clock_gettime(nix::time::ClockId::CLOCK_BOOTTIME)
        .map(|t| t.tv_sec() as u64 * 1_000_000_000 + t.tv_nsec() as u64)
        .unwrap_or(0)
}
