//! The pinned maps, opened. Values are the ABI crate's types as bytes, so that no type here has to
//! be taken on trust.

use super::{
    load::{MAPS, internal, refused},
    mapped::{Mapped, Pieces},
    ring::Ring,
};
use crate::daemon::enforcement::{EnforcementError, StartError};
use aya::maps::{Array, HashMap, LpmTrie, Map, MapData, MapError, MapInfo, Queue};
use enforcer_common::{
    hold::{Hold, HoldId, HoldSettings, Quota, Waiter, WaiterKey},
    limits,
    map::{
        Agent, FileId, Gate, Label, Link, LinkKey, Meta, NetKey, NetValue, Policy, RootPath, Session,
        SessionSeed, StrayKey,
    },
};
use std::{io, path::Path};
use zerocopy::{FromBytes, IntoBytes};

/// Bytes of a type of the ABI crate.
macro_rules! bytes {
    ($type:ty) => {
        [u8; size_of::<$type>()]
    };
}

/// What waits for a person, and what was decided.
pub type Holds = HashMap<MapData, bytes!(HoldId), bytes!(Hold)>;
/// The threads that wait.
pub type Waiters = HashMap<MapData, bytes!(WaiterKey), bytes!(Waiter)>;

/// Everything that the daemon reads or writes in the kernel.
pub struct Tables {
    /// Mapped: roots, strays, generation.
    pub gate: Mapped,
    /// Mapped: agents.
    pub agents: Mapped,
    /// Mapped: sessions.
    pub sessions: Mapped,
    /// Automata and port tables.
    pub arena: Pieces,
    /// See [`Meta`].
    pub meta: Array<MapData, bytes!(Meta)>,
    /// Path of a root → its index.
    pub root_paths: HashMap<MapData, RootPath, u32>,
    /// Programs that may prepare a session.
    pub executors: HashMap<MapData, bytes!(FileId), u32>,
    /// Cgroup id → session slot.
    pub session_of: HashMap<MapData, u64, u32>,
    /// Free sessions for the kernel to give away.
    pub seeds: Queue<MapData, bytes!(SessionSeed)>,
    /// Labelled processes outside every root.
    pub strays: HashMap<MapData, bytes!(StrayKey), bytes!(Label)>,
    /// Compiled policies.
    pub policies: Array<MapData, bytes!(Policy)>,
    /// Address prefixes.
    pub prefixes: LpmTrie<MapData, bytes!(NetKey), bytes!(NetValue)>,
    /// Files with several names.
    pub links: HashMap<MapData, bytes!(LinkKey), bytes!(Link)>,
    /// Objects of System V IPC and pseudo terminals that sessions have made, by their address.
    pub ipc_objects: HashMap<MapData, u64, u64>,
    /// Denials and holds.
    pub decisions: Ring,
    /// Sessions and executed programs.
    pub activity: Ring,
    /// What waits for a person, and what was decided.
    pub holds: Holds,
    /// The threads that wait.
    pub waiters: Waiters,
    /// Mapped: how much sessions may ask for.
    pub quotas: Mapped,
    /// Mapped: see [`HoldSettings`].
    pub hold_settings: Mapped,
}

/// Bytes of the arena that is pinned in `directory`.
pub fn arena_of(directory: &Path) -> Result<usize, StartError> {
    let at = directory.join("ARENA");
    let info = MapInfo::from_pin(&at).map_err(|e| refused(format!("cannot open {}: {e}", at.display())))?;
    let bytes = (info.value_size() as usize).saturating_sub(limits::ARENA_TAIL);
    if !bytes.is_power_of_two() {
        return Err(internal(format!("the pinned arena has {bytes} bytes, which is no power of two")));
    }
    Ok(bytes)
}

impl Tables {
    /// Opens the maps pinned in `directory`.
    pub fn open(directory: &Path) -> Result<Self, StartError> {
        let data = |name: &str| -> Result<MapData, StartError> {
            debug_assert!(MAPS.contains(&name));
            MapData::from_pin(directory.join(name)).map_err(|e| {
                refused(format!("cannot open the pinned map {}: {e}", directory.join(name).display()))
            })
        };
        let mapped = |name: &str, len: usize| -> Result<Mapped, StartError> {
            let data = data(name)?;
            Mapped::new(data.fd(), len).map_err(|e| refused(format!("cannot map {name}: {e}")))
        };
        let ring = |name: &str| -> Result<Ring, StartError> {
            Ring::new(&data(name)?).map_err(|e| refused(format!("cannot map {name}: {e}")))
        };
        let wrong = |e: MapError| internal(format!("a pinned map is not what it should be: {e}"));
        Ok(Self {
            gate: mapped("GATE", size_of::<Gate>())?,
            agents: mapped("AGENTS", size_of::<Agent>() * limits::AGENTS as usize)?,
            sessions: mapped("SESSIONS", size_of::<Session>() * limits::SESSIONS as usize)?,
            arena: Pieces::new(data("ARENA")?.fd(), arena_of(directory)?)
                .map_err(|e| refused(format!("cannot open ARENA: {e}")))?,
            meta: Array::try_from(Map::Array(data("META")?)).map_err(wrong)?,
            root_paths: HashMap::try_from(Map::HashMap(data("ROOT_PATHS")?)).map_err(wrong)?,
            executors: HashMap::try_from(Map::HashMap(data("EXECUTORS")?)).map_err(wrong)?,
            session_of: HashMap::try_from(Map::HashMap(data("SESSION_OF")?)).map_err(wrong)?,
            seeds: Queue::try_from(Map::Queue(data("SEEDS")?)).map_err(wrong)?,
            strays: HashMap::try_from(Map::HashMap(data("STRAYS")?)).map_err(wrong)?,
            policies: Array::try_from(Map::Array(data("POLICIES")?)).map_err(wrong)?,
            prefixes: LpmTrie::try_from(Map::LpmTrie(data("PREFIXES")?)).map_err(wrong)?,
            links: HashMap::try_from(Map::HashMap(data("LINKS")?)).map_err(wrong)?,
            ipc_objects: HashMap::try_from(Map::HashMap(data("IPC_OBJECTS")?)).map_err(wrong)?,
            decisions: ring("DECISIONS")?,
            activity: ring("ACTIVITY")?,
            holds: HashMap::try_from(Map::HashMap(data("HOLDS")?)).map_err(wrong)?,
            waiters: HashMap::try_from(Map::HashMap(data("WAITERS")?)).map_err(wrong)?,
            quotas: mapped("QUOTAS", size_of::<Quota>() * limits::SESSIONS as usize)?,
            hold_settings: mapped("HOLD_SETTINGS", size_of::<HoldSettings>())?,
        })
    }

    /// The meta entry.
    pub fn meta(&self) -> Result<Meta, EnforcementError> {
        let bytes = self.meta.get(&0, 0).map_err(|e| failed("reading META", e))?;
        Ok(view(&bytes))
    }

    /// Replaces the meta entry.
    pub fn set_meta(&mut self, meta: &Meta) -> Result<(), EnforcementError> {
        self.meta.set(0, to_bytes(meta), 0).map_err(|e| failed("writing META", e))
    }

    /// The policy in `slot`.
    pub fn policy(&self, slot: u32) -> Result<Policy, EnforcementError> {
        let bytes = self.policies.get(&slot, 0).map_err(|e| failed("reading POLICIES", e))?;
        Ok(view(&bytes))
    }

    /// Replaces the policy in `slot`.
    pub fn set_policy(&mut self, slot: u32, policy: &Policy) -> Result<(), EnforcementError> {
        self.policies.set(slot, to_bytes(policy), 0).map_err(|e| failed("writing POLICIES", e))
    }

    /// The agent in `slot`.
    pub fn agent(&self, slot: u32) -> Agent {
        let at = slot as usize * size_of::<Agent>();
        view(&self.agents.read(at, size_of::<Agent>()))
    }

    /// The session in `slot`.
    pub fn session(&self, slot: u32) -> Session {
        view(&self.sessions.read(session_at(slot), size_of::<Session>()))
    }
}

/// The meta entry of the maps pinned in `directory`, whatever version the other ones have.
pub fn meta_of(directory: &Path) -> Result<Meta, StartError> {
    let path = directory.join("META");
    let unreadable = |why: String| refused(format!("cannot read the pinned map {}: {why}", path.display()));
    let data = MapData::from_pin(&path).map_err(|e| unreadable(e.to_string()))?;
    let meta: Array<MapData, bytes!(Meta)> =
        Array::try_from(Map::Array(data)).map_err(|e| unreadable(e.to_string()))?;
    let bytes = meta.get(&0, 0).map_err(|e| unreadable(e.to_string()))?;
    Ok(view(&bytes))
}

/// What tells the maps pinned in `directory` from any others: the boot, and the id of one of them, which
/// the kernel does not give out twice (`bpf_map_alloc_id()`, kernel/bpf/syscall.c).
pub fn identity(directory: &Path) -> Result<String, StartError> {
    let boot = std::fs::read_to_string("/proc/sys/kernel/random/boot_id")
        .map_err(|e| internal(format!("cannot read the boot's id: {e}")))?;
    Ok(format!("{}:{}", boot.trim(), id(directory, "META")?))
}

/// The number that the kernel gave a pinned map.
pub fn id(directory: &Path, map: &str) -> Result<u32, StartError> {
    let path = directory.join(map);
    let info = MapInfo::from_pin(&path)
        .map_err(|e| refused(format!("cannot look at the pinned map {}: {e}", path.display())))?;
    Ok(info.id())
}

/// Where a session's entry begins.
pub fn session_at(slot: u32) -> usize {
    slot as usize * size_of::<Session>()
}

/// The bytes of `value`, as an array that a map takes.
pub fn to_bytes<T: IntoBytes + zerocopy::Immutable, const N: usize>(value: &T) -> [u8; N] {
    let mut bytes = [0; N];
    bytes.copy_from_slice(value.as_bytes());
    bytes
}

/// The value in `bytes`, which have its size.
pub fn view<T: FromBytes>(bytes: &[u8]) -> T {
    match T::read_from_bytes(bytes) {
        Ok(value) => value,
        Err(_) => unreachable!("sizes are those of the type"),
    }
}

/// A failed system call on a map.
pub fn failed(what: &str, error: MapError) -> EnforcementError {
    let source = match error {
        MapError::SyscallError(e) => e.io_error,
        other => io::Error::other(other.to_string()),
    };
    EnforcementError::Kernel { what: what.to_owned(), source }
}
