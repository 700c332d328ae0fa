//! Puts a compiled policy into the kernel: everything under a fresh id, read back, then one write.

use super::{
    arena::Arena,
    tables::{Tables, failed, to_bytes, view},
};
use crate::daemon::enforcement::{EnforcementError, PublishedPolicy};
use crate::policy::{Image, NetEntry, Placed};
use aya::maps::lpm_trie::Key;
use enforcer_common::{
    limits,
    map::{NetKey, Policy},
};
use sha2::{Digest, Sha256};
use std::{collections::BTreeSet, sync::atomic::Ordering};

/// The policies that are in the kernel, as far as room is concerned.
pub struct Policies {
    arena: Arena,
    used: BTreeSet<u32>,
}

impl Policies {
    /// Takes stock of what an earlier daemon left.
    pub fn adopt(tables: &Tables) -> Result<Self, EnforcementError> {
        let mut found = Self { arena: Arena::new(limits::ARENA as u32), used: BTreeSet::new() };
        for slot in 0..limits::POLICIES {
            let policy = tables.policy(slot)?;
            if policy.version == 0 {
                continue;
            }
            if !found.arena.claim(policy.arena_base, policy.arena_len) {
                return Err(EnforcementError::Inconsistent(format!(
                    "policy slot {slot} overlaps another one"
                )));
            }
            found.used.insert(slot);
        }
        Ok(found)
    }

    /// Bytes of the arena and entries of the policies map in use.
    pub fn usage(&self) -> (u64, u64) {
        (u64::from(self.arena.used()), self.used.len() as u64)
    }

    /// Loads an image under a new id, complete and read back, but used by nobody yet.
    pub fn stage(
        &mut self,
        tables: &mut Tables,
        image: &Image,
        digest: [u8; 32],
        mode: u32,
    ) -> Result<PublishedPolicy, EnforcementError> {
        let slot = (0..limits::POLICIES)
            .find(|slot| !self.used.contains(slot))
            .ok_or_else(|| full("the table of policies", limits::POLICIES.into()))?;
        let len = u32::try_from(image.len()).map_err(|_| full("the arena", limits::ARENA as u64))?;
        let base = self.arena.take(len).ok_or_else(|| full("the arena", limits::ARENA as u64))?;
        match write(tables, image, slot, base, digest, mode) {
            Ok(published) => {
                self.used.insert(slot);
                Ok(published)
            }
            Err(e) => {
                self.arena.give(base, len);
                Err(e)
            }
        }
    }

    /// Frees a policy that no agent names any more, after every program that may still use it has
    /// ended.
    pub fn free(&mut self, tables: &mut Tables, word: u64) -> Result<(), EnforcementError> {
        let slot = word as u32;
        let policy = tables.policy(slot)?;
        if word == 0 || policy.version == 0 || policy.id != (word >> 32) as u32 {
            return Ok(());
        }
        grace()?;
        let keys: Vec<_> = tables
            .prefixes
            .keys()
            .collect::<Result<Vec<_>, _>>()
            .map_err(|e| failed("reading PREFIXES", e))?
            .into_iter()
            .filter(|key| view::<NetKey>(&key.data()).policy == policy.id)
            .collect();
        for key in &keys {
            tables.prefixes.remove(key).map_err(|e| failed("removing from PREFIXES", e))?;
        }
        tables.set_policy(slot, &zero_policy())?;
        self.used.remove(&slot);
        self.arena.give(policy.arena_base, policy.arena_len);
        Ok(())
    }
}

fn write(
    tables: &mut Tables,
    image: &Image,
    slot: u32,
    base: u32,
    digest: [u8; 32],
    mode: u32,
) -> Result<PublishedPolicy, EnforcementError> {
    let id = next_id(tables)?;
    let placed = image.place(base);
    tables.arena.write(base as usize, &placed.bytes);
    for entry in &placed.net {
        tables
            .prefixes
            .insert(&key_of(id, entry), to_bytes::<_, 8>(&entry.value), 0)
            .map_err(|e| failed("writing PREFIXES", e))?;
    }
    let policy = Policy {
        version: 1,
        groups: placed.groups,
        id,
        mode,
        flags: 0,
        start: placed.start,
        reserved0: 0,
        digest,
        image: image.digest(),
        arena_base: base,
        arena_len: placed.bytes.len() as u32,
        reserved: [0; 7],
        class: placed.class,
    };
    tables.set_policy(slot, &policy)?;
    let image_digest = read_back(tables, image, slot, base, &policy, &placed)?;
    Ok(PublishedPolicy { id, slot, base, image_digest })
}

fn key_of(policy: u32, entry: &NetEntry) -> Key<[u8; size_of::<NetKey>()]> {
    let NetEntry { prefix_bits, family, protocol, address, value: _ } = *entry;
    Key::new(prefix_bits, to_bytes(&NetKey { policy, family, protocol, reserved: 0, address }))
}

/// Compares everything in the kernel with what was meant.
fn read_back(
    tables: &Tables,
    image: &Image,
    slot: u32,
    base: u32,
    policy: &Policy,
    placed: &Placed,
) -> Result<[u8; 32], EnforcementError> {
    let differs = |what: &str| EnforcementError::Inconsistent(format!("{what} reads back differently"));
    if tables.arena.read(base as usize, placed.bytes.len()) != placed.bytes {
        return Err(differs("the arena"));
    }
    let found = tables.policy(slot)?;
    if to_bytes::<_, { size_of::<Policy>() }>(&found) != to_bytes::<_, { size_of::<Policy>() }>(policy) {
        return Err(differs("the policy's entry"));
    }
    for entry in &placed.net {
        let got =
            tables.prefixes.get(&key_of(policy.id, entry), 0).map_err(|e| failed("reading PREFIXES", e))?;
        if got != to_bytes::<_, 8>(&entry.value) {
            return Err(differs("an address prefix"));
        }
    }
    Ok(image.digest())
}

/// The next id, remembered before it is used.
fn next_id(tables: &mut Tables) -> Result<u32, EnforcementError> {
    let mut meta = tables.meta()?;
    let id = meta.next_policy.max(1);
    meta.next_policy =
        id.checked_add(1).ok_or_else(|| full("the numbering of policies", u64::from(u32::MAX)))?;
    tables.set_meta(&meta)?;
    Ok(id)
}

/// Waits until every program that started before has ended: they run under RCU, and this call is
/// `synchronize_rcu()` (`membarrier()`, kernel/sched/membarrier.c, `MEMBARRIER_CMD_GLOBAL`).
fn grace() -> Result<(), EnforcementError> {
    std::sync::atomic::fence(Ordering::SeqCst);
    const MEMBARRIER_CMD_GLOBAL: libc::c_int = 1;
    // SAFETY: the system call takes numbers only.
    let done = unsafe { libc::syscall(libc::SYS_membarrier, MEMBARRIER_CMD_GLOBAL, 0, 0) };
    if done == 0 {
        return Ok(());
    }
    Err(EnforcementError::Kernel { what: "membarrier".to_owned(), source: std::io::Error::last_os_error() })
}

fn zero_policy() -> Policy {
    view(&[0; size_of::<Policy>()])
}

pub(super) fn full(what: &str, limit: u64) -> EnforcementError {
    EnforcementError::Full { what: what.to_owned(), limit }
}

/// SHA-256 of `bytes`.
pub(super) fn sha256(bytes: &[u8]) -> [u8; 32] {
    Sha256::digest(bytes).into()
}
