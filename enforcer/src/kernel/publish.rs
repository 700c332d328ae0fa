//! Puts a compiled policy into the kernel: everything under a fresh id, read back, then one write.

use super::{
    regions::{Regions, Room},
    tables::{Tables, failed, to_bytes, view},
};
use crate::daemon::enforcement::{EnforcementError, Linked, PublishedPolicy};
use crate::policy::{Image, LinkedFile, NetEntry, Placed};
use aya::maps::{MapError, lpm_trie::Key};
use enforcer_common::{
    limits,
    map::{Gate, Link, LinkKey, NetKey, Policy},
};
use sha2::{Digest, Sha256};
use std::{
    collections::{BTreeMap, BTreeSet},
    mem::offset_of,
    sync::atomic::Ordering,
    time::{Duration, Instant},
};

/// The policies that are in the kernel, as far as room is concerned.
pub struct Policies {
    regions: Regions,
    /// Entries of the policies map that are not in use.
    free: BTreeSet<u32>,
    /// Replaced, but a program that started before may still use them.
    retired: Vec<(Instant, u64)>,
    /// Address prefixes and files of several names of all policies that are loaded.
    entries: Entries,
}

/// How much there is in the tables that all policies share.
#[derive(Clone, Copy, Debug, Default)]
struct Entries {
    prefixes: u64,
    links: u64,
}

/// How much of the tables policies take.
pub struct Used {
    /// Bytes.
    pub arena: u64,
    /// Entries.
    pub policies: u64,
    /// Address prefixes.
    pub prefixes: u64,
    /// Files of several names.
    pub links: u64,
}

/// Replaced policies that are freed together: each time costs a grace period and a look at every address prefix.
const TOGETHER: usize = 256;

/// How long the last replaced policies wait for others.
const SETTLED: Duration = Duration::from_secs(1);

/// No program runs for so long: the kernel calls 21 s without a grace period a stall
/// (`CONFIG_RCU_CPU_STALL_TIMEOUT`).
const LONG_ENOUGH: Duration = Duration::from_secs(60);

impl Policies {
    /// Takes stock of what an earlier daemon left, and removes what nobody refers to: it was cut off
    /// between loading a policy and putting it in force, or between replacing and freeing it.
    pub fn adopt(tables: &mut Tables) -> Result<Self, EnforcementError> {
        let mut live: BTreeSet<u64> = (0..limits::AGENTS).map(|slot| tables.agent(slot).policy).collect();
        live.insert(tables.gate.word(offset_of!(Gate, matcher)).load(Ordering::SeqCst));
        let size =
            u32::try_from(tables.arena.len()).map_err(|e| EnforcementError::Inconsistent(e.to_string()))?;
        let free = (0..limits::POLICIES).collect();
        let mut found =
            Self { regions: Regions::new(size), free, retired: Vec::new(), entries: Entries::default() };
        let mut ids = BTreeSet::new();
        for slot in 0..limits::POLICIES {
            let policy = tables.policy(slot)?;
            if policy.version == 0 {
                continue;
            }
            if !live.contains(&(u64::from(policy.id) << 32 | u64::from(slot))) {
                tables.set_policy(slot, &zero_policy())?;
                continue;
            }
            if !found.regions.claim(policy.arena_base, policy.arena_len, policy.image) {
                return Err(EnforcementError::Inconsistent(format!(
                    "policy slot {slot} overlaps another one"
                )));
            }
            if policy.unused != Policy::UNUSED {
                // First uses are told anew: what an earlier daemon was told may not have reached its log.
                tables.set_policy(slot, &Policy { unused: Policy::UNUSED, ..policy })?;
            }
            found.free.remove(&slot);
            ids.insert(policy.id);
        }
        found.entries = remove_entries(tables, |id| !ids.contains(&id))?;
        Ok(found)
    }

    /// Ids and digests of the policies that are loaded.
    pub fn held(&self, tables: &Tables) -> Result<Vec<(u32, [u8; 32])>, EnforcementError> {
        let used = (0..limits::POLICIES).filter(|slot| !self.free.contains(slot));
        used.map(|slot| tables.policy(slot).map(|policy| (policy.id, policy.digest))).collect()
    }

    /// What is in use.
    pub fn usage(&self) -> Used {
        Used {
            arena: u64::from(self.regions.used()),
            policies: u64::from(limits::POLICIES) - self.free.len() as u64,
            prefixes: self.entries.prefixes,
            links: self.entries.links,
        }
    }

    /// Counts the files of several names again: some were added to a policy that is in force.
    pub fn links_added(&mut self, tables: &Tables) {
        self.entries.links = tables.links.keys().count() as u64;
    }

    /// Loads an image under a new id, complete and read back, but used by nobody yet.
    pub fn stage(
        &mut self,
        tables: &mut Tables,
        image: &Image,
        links: Linked<'_>,
        digest: [u8; 32],
        mode: u32,
    ) -> Result<PublishedPolicy, EnforcementError> {
        if self.free.is_empty() {
            self.reclaim(tables);
        }
        let slot =
            *self.free.first().ok_or_else(|| full("the table of policies", limits::POLICIES.into()))?;
        let bytes = tables.arena.len() as u64;
        let no_room = || full("the arena (daemon.arena_mib)", bytes);
        let len = u32::try_from(image.len()).map_err(|_| no_room())?;
        let mut room = self.regions.take(image.digest(), len);
        if room.is_none() {
            self.reclaim(tables);
            room = self.regions.take(image.digest(), len);
        }
        let room = room.ok_or_else(no_room)?;
        match write(tables, image, links, slot, room, digest, mode) {
            Ok(published) => {
                self.entries.prefixes += image.prefixes() as u64;
                self.entries.links += links.files().len() as u64;
                self.free.remove(&slot);
                Ok(published)
            }
            Err((id, e)) => {
                // Nobody refers to it yet. What cannot be removed now is removed by the next start.
                let undone = tables
                    .set_policy(slot, &zero_policy())
                    .and_then(|()| remove_entries(tables, |i| i == id));
                if let Ok(left) = undone {
                    self.entries = left;
                    self.regions.give(room.base);
                }
                Err(e)
            }
        }
    }

    /// Frees a policy that nobody refers to any more, now or later: never before every program that
    /// may still use it has ended. What is in force is not touched, so there is nothing to fail.
    pub fn retire(&mut self, tables: &mut Tables, word: u64) {
        if word != 0 {
            self.retired.push((Instant::now(), word));
        }
        if self.retired.len() >= TOGETHER {
            self.reclaim(tables);
        }
    }

    /// Frees what was replaced a while ago, if nothing more has been since.
    pub fn settle(&mut self, tables: &mut Tables) {
        if self.retired.last().is_some_and(|(since, _)| since.elapsed() > SETTLED) {
            self.reclaim(tables);
        }
    }

    fn reclaim(&mut self, tables: &mut Tables) {
        if self.retired.is_empty() {
            return;
        }
        let all_ended = grace();
        let (free, keep) = std::mem::take(&mut self.retired)
            .into_iter()
            .partition(|(since, _)| all_ended || since.elapsed() > LONG_ENOUGH);
        self.retired = keep;
        if self.free(tables, &free).is_err() {
            // Tried again the next time; what was freed already is found to be.
            self.retired.extend(free);
        }
    }

    fn free(&mut self, tables: &mut Tables, words: &[(Instant, u64)]) -> Result<(), EnforcementError> {
        let mut all = BTreeMap::new();
        for (_, word) in words {
            let (slot, id) = (*word as u32, (word >> 32) as u32);
            let policy = tables.policy(slot)?;
            if policy.version != 0 && policy.id == id {
                all.insert(id, (slot, policy.arena_base));
            }
        }
        if all.is_empty() {
            return Ok(());
        }
        self.entries = remove_entries(tables, |id| all.contains_key(&id))?;
        for (slot, base) in all.into_values() {
            tables.set_policy(slot, &zero_policy())?;
            self.free.insert(slot);
            self.regions.give(base);
        }
        Ok(())
    }
}

/// The calls after which a policy in the tables has something done with the process, a bit each.
pub(super) fn acting_calls(tables: &Tables) -> Result<u64, EnforcementError> {
    let mut acts = 0;
    for slot in 0..limits::POLICIES {
        let policy = tables.policy(slot)?;
        if policy.version != 0 {
            acts |= policy.stopping_calls | policy.killing_calls;
        }
    }
    Ok(acts)
}

/// Removes the address prefixes, and the files of several names, of the policies that `of` names; how many are left.
fn remove_entries(tables: &mut Tables, of: impl Fn(u32) -> bool) -> Result<Entries, EnforcementError> {
    let mut left = Entries::default();
    let keys =
        tables.prefixes.keys().collect::<Result<Vec<_>, _>>().map_err(|e| failed("reading PREFIXES", e))?;
    for key in keys {
        if of(view::<NetKey>(&key.data()).policy) {
            tables.prefixes.remove(&key).map_err(|e| failed("removing from PREFIXES", e))?;
        } else {
            left.prefixes += 1;
        }
    }
    let keys = tables.links.keys().collect::<Result<Vec<_>, _>>().map_err(|e| failed("reading LINKS", e))?;
    for key in keys {
        if of(view::<LinkKey>(&key).policy) {
            tables.links.remove(&key).map_err(|e| failed("removing from LINKS", e))?;
        } else {
            left.links += 1;
        }
    }
    Ok(left)
}

fn write_links(
    tables: &mut Tables,
    image: &Image,
    base: u32,
    policy: u32,
    links: &[LinkedFile],
) -> Result<(), EnforcementError> {
    for file in links {
        let (key, link) = link_of(image, base, policy, file);
        tables.links.insert(to_bytes::<_, 16>(&key), to_bytes::<_, 32>(&link), 0).map_err(|e| match e {
            MapError::SyscallError(call) if call.io_error.raw_os_error() == Some(libc::E2BIG) => {
                full("the table of files with several names", limits::LINKS.into())
            }
            e => failed("writing LINKS", e),
        })?;
    }
    Ok(())
}

/// How many files the programs are to look for.
fn number_of(links: Linked<'_>) -> u32 {
    match links {
        Linked::Known(files) => files.len() as u32,
        Linked::TooMany => Policy::ALL_LINKS,
    }
}

/// Adds files of several names to a policy that is in force.
pub fn add_links(
    tables: &mut Tables,
    published: &PublishedPolicy,
    image: &Image,
    links: Linked<'_>,
) -> Result<(), EnforcementError> {
    let PublishedPolicy { id, slot, base, image_digest: _ } = *published;
    write_links(tables, image, base, id, links.files())?;
    let mut policy = tables.policy(slot)?;
    if policy.version != 1 || policy.id != id {
        return Err(EnforcementError::Gone(format!("policy {id}")));
    }
    // Only that it is not zero matters to the programs; everything else is written as it stands there.
    let count = policy.links.max(number_of(links));
    if count != policy.links {
        policy.links = count;
        tables.set_policy(slot, &policy)?;
    }
    Ok(())
}

/// A file of several names as the programs look for it.
fn link_of(image: &Image, base: u32, policy: u32, file: &LinkedFile) -> (LinkKey, Link) {
    let LinkedFile { device, inode, path, masks } = file;
    let link = Link { masks: *masks, states: image.states_at(path, base), reserved: 0 };
    (LinkKey { inode: *inode, device: *device, policy }, link)
}

/// Loads everything. An error comes with the id that was used.
fn write(
    tables: &mut Tables,
    image: &Image,
    links: Linked<'_>,
    slot: u32,
    room: Room,
    digest: [u8; 32],
    mode: u32,
) -> Result<PublishedPolicy, (u32, EnforcementError)> {
    let id = next_id(tables).map_err(|e| (0, e))?;
    let Room { base, new } = room;
    let placed = image.place(base);
    // Never over tables that another policy is read from.
    if new {
        tables.arena.write(base as usize, &placed.bytes).map_err(|e| (id, copying(e)))?;
    }
    let policy = Policy {
        version: 1,
        groups: placed.groups,
        id,
        mode,
        floor: placed.grants.floor,
        start: placed.start,
        links: number_of(links),
        digest,
        image: image.digest(),
        arena_base: base,
        arena_len: placed.bytes.len() as u32,
        capabilities: placed.grants.capabilities,
        unused: Policy::UNUSED,
        ignored_calls: placed.grants.calls.ignored,
        stopping_calls: placed.grants.calls.stopped,
        killing_calls: placed.grants.calls.killed,
        reserved: [0; 3],
        class: placed.class,
    };
    let mut all = || -> Result<[u8; 32], EnforcementError> {
        for entry in &placed.net {
            let value = to_bytes::<_, 8>(&entry.value);
            tables
                .prefixes
                .insert(&key_of(id, entry), value, 0)
                .map_err(|e| failed("writing PREFIXES", e))?;
        }
        write_links(tables, image, base, id, links.files())?;
        tables.set_policy(slot, &policy)?;
        read_back(tables, image, links.files(), slot, base, &policy, &placed)
    };
    let image_digest = all().map_err(|e| (id, e))?;
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
    links: &[LinkedFile],
    slot: u32,
    base: u32,
    policy: &Policy,
    placed: &Placed,
) -> Result<[u8; 32], EnforcementError> {
    let differs = |what: &str| EnforcementError::Inconsistent(format!("{what} reads back differently"));
    if tables.arena.read(base as usize, placed.bytes.len()).map_err(copying)? != placed.bytes {
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
    for file in links {
        let (key, link) = link_of(image, base, policy.id, file);
        let got = tables.links.get(&to_bytes::<_, 16>(&key), 0).map_err(|e| failed("reading LINKS", e))?;
        if got != to_bytes::<_, 32>(&link) {
            return Err(differs("a file with several names"));
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
/// `synchronize_rcu()`. False where it is not: with CPUs that run without ticks it is refused, with one
/// CPU it does nothing (`membarrier()`, kernel/sched/membarrier.c, `MEMBARRIER_CMD_GLOBAL`).
fn grace() -> bool {
    std::sync::atomic::fence(Ordering::SeqCst);
    const MEMBARRIER_CMD_GLOBAL: libc::c_int = 1;
    let several = std::thread::available_parallelism().is_ok_and(|n| n.get() > 1);
    // SAFETY: the system call takes numbers only.
    several && unsafe { libc::syscall(libc::SYS_membarrier, MEMBARRIER_CMD_GLOBAL, 0, 0) } == 0
}

fn copying(source: std::io::Error) -> EnforcementError {
    EnforcementError::Kernel { what: "mapping a piece of ARENA".to_owned(), source }
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
