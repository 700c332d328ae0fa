//! The kernel side of the daemon, and the only place that knows aya: what this kernel has, loading,
//! publishing, sessions, rings, and taking over from an earlier daemon.

mod arena;
mod btf;
mod calls;
mod cast;
mod executors;
mod health;
mod holds;
mod hooks;
mod load;
mod mapped;
mod net_layer;
mod offsets;
mod overdue;
mod pins;
mod publish;
mod regions;
mod ring;
mod roots;
mod sessions;
mod tables;
mod trust_tag;

use crate::{
    daemon::enforcement::{
        AgentSlot, Enforcement, EnforcementError, Followed, Health, Linked, PublishedPolicy, RootSetting,
        SessionEntry, SessionRef, StartCause, StartError, Unwatched,
    },
    policy::{Image, Mode, ValidPolicy},
    settings::Settings,
};
use calls::Calls;
use enforcer_common::{
    event::NO_AGENT,
    hold::{Hold, HoldId, Waiter, WaiterKey},
    limits,
    map::{Agent, FileId, Gate, MODE_AUDIT, MODE_ENFORCE, TierMap},
};
use hooks::HookProgram;
pub use hooks::needed;
use load::Host;
pub use load::Loaded;
use net_layer::NetLayer;
pub use overdue::wake as wake_overdue;
use pins::{earlier, links_of, make_private, remove_other_links, replace};
use publish::{Policies, full, sha256};
use ring::Ring;
use sessions::Sessions;
use std::{
    collections::BTreeMap,
    fs,
    mem::offset_of,
    os::fd::{AsRawFd, RawFd},
    path::{Path, PathBuf},
    sync::atomic::Ordering,
    time::Duration,
};
use tables::Tables;

/// How long attaching what may wait takes of each second.
const ATTACHING: Duration = Duration::from_millis(200);

/// The programs in the kernel and the tables that steer them.
pub struct Kernel {
    tables: Tables,
    policies: Policies,
    sessions: Sessions,
    programs: Vec<&'static HookProgram>,
    maps: PathBuf,
    calls: Calls,
    links: PathBuf,
    /// The programs behind the links at the start.
    attached: BTreeMap<String, u32>,
    /// How often a program had been left out when this daemon started.
    missed_before: BTreeMap<String, health::Counts>,
    net_layer: NetLayer,
    /// Programs that were attached or pinned once and were not any more at the start.
    brought_back: Vec<String>,
    generation: u32,
    cgroups: PathBuf,
    identity: String,
    /// The executors, open: while they are, no other file can get their inodes' numbers.
    executors: Vec<fs::File>,
    loaded: Vec<Loaded>,
}

/// Takes over what an earlier daemon pinned, or loads and attaches everything.
///
/// # Errors
/// Says what is missing and what can be done. Nothing of this start stays attached then; what an
/// earlier daemon attached keeps enforcing.
pub fn start(settings: &Settings) -> Result<Box<dyn Enforcement>, StartError> {
    Ok(Box::new(Kernel::start(&settings.paths.pins, &settings.paths.cgroups, settings.daemon.arena())?))
}

/// The cgroups that the tables pinned in `pins` call sessions.
///
/// # Errors
/// The tables cannot be read, or are of another version.
pub fn pinned_sessions(pins: &Path) -> Result<Vec<u64>, StartError> {
    let maps = pins.join("maps");
    match earlier(&maps)? {
        Some(_) => {
            Ok(sessions::list(&Tables::open(&maps)?).iter().map(|entry| entry.session.cgroup).collect())
        }
        None => Ok(Vec::new()),
    }
}

/// The size of the arena that is there, else `wanted`. A table cannot grow, and programs must know its size.
fn arena_in_force(maps: &Path, wanted: usize) -> Result<usize, StartError> {
    if !maps.join("ARENA").exists() {
        return Ok(wanted);
    }
    let found = tables::arena_of(maps)?;
    if found != wanted {
        tracing::warn!(
            in_force = found >> 20,
            wanted = wanted >> 20,
            "daemon.arena_mib takes effect when the tables are made anew: at the next boot, or after `enforcer daemon \
             --uninstall`"
        );
    }
    Ok(found)
}

impl Kernel {
    /// As [`start`], for pins in `pins` and the cgroup hierarchy mounted at `cgroups`. `arena`: the bytes that the arena
    /// gets if it is made now.
    pub fn start(pins: &Path, cgroups: &Path, arena: usize) -> Result<Self, StartError> {
        let host = Host::probe()?;
        let maps = pins.join("maps");
        make_private(pins)?;
        make_private(&maps)?;
        let found = pins::found(&host, pins)?;
        let digest = sha256(load::OBJECT);
        let mut brought_back = Vec::new();
        let generation = match &found {
            Some(meta) if meta.object == digest => {
                let links = links_of(pins, meta.generation);
                brought_back = pins::missing(&host, &links);
                if brought_back.is_empty() && calls::tried(&links, &host.calls) {
                    meta.generation
                } else {
                    meta.generation + 1
                }
            }
            Some(meta) => meta.generation + 1,
            None => 1,
        };
        let arena = arena_in_force(&maps, arena)?;
        let links = links_of(pins, generation);
        let (mut loaded, mut unwatched) = (Vec::new(), Vec::new());
        if found.as_ref().is_none_or(|meta| meta.generation != generation) {
            (loaded, unwatched) = replace(&host, generation, &maps, &links, digest, arena)?;
        }
        let mut tables = Tables::open(&maps)?;
        // Before these programs decide, so that the roots are never without the second layer.
        let mut net_layer = NetLayer::new(&links, cgroups);
        net_layer.set_roots(roots::known(&tables).map_err(|e| load::internal(e.to_string()))?);
        // The same for policies that are in force and act upon calls.
        let mut calls = Calls::new(&links, host.calls, unwatched);
        calls.attach_wanted(publish::acting_calls(&tables).map_err(|e| load::internal(e.to_string()))?);
        // Also after a take-over: an earlier start may have been cut off before it came to this.
        tables.gate.half(offset_of!(Gate, generation)).store(generation, Ordering::SeqCst);
        remove_other_links(pins, &links)?;
        let wrong = |e: EnforcementError| StartError {
            cause: StartCause::Pins,
            message: format!("cannot take over the pins in {}: {e}", pins.display()),
            remedy: "stop the agents, remove the directory and start again".to_owned(),
        };
        let policies = Policies::adopt(&mut tables).map_err(wrong)?;
        let sessions = Sessions::adopt(&mut tables).map_err(wrong)?;
        holds::adopt(&mut tables).map_err(wrong)?;
        let identity = tables::identity(&maps)?;
        let attached = health::attached(&host.programs, &links);
        Ok(Self {
            tables,
            policies,
            sessions,
            programs: host.programs,
            maps,
            missed_before: health::counts(attached.iter().chain(calls.attached())),
            calls,
            links,
            attached,
            net_layer,
            brought_back,
            generation,
            cgroups: cgroups.to_owned(),
            identity,
            executors: Vec::new(),
            loaded,
        })
    }

    /// What the verifier said about the programs that this start loaded; empty after a take-over.
    pub fn loaded(&self) -> &[Loaded] {
        &self.loaded
    }

    fn agent_policy(&self, agent: AgentSlot) -> Result<&std::sync::atomic::AtomicU64, EnforcementError> {
        if agent.0 >= limits::AGENTS {
            return Err(full("the table of agents", limits::AGENTS.into()));
        }
        Ok(self.tables.agents.word(agent.0 as usize * size_of::<Agent>() + offset_of!(Agent, policy)))
    }

    /// A counter of all agents. It is read every few seconds, so no entry is copied for it.
    fn counts(&self, field: usize) -> impl Iterator<Item = (AgentSlot, u64)> + '_ {
        let agents = &self.tables.agents;
        let entries = (0..limits::AGENTS).map(|slot| (slot, slot as usize * size_of::<Agent>()));
        let used = entries
            .filter(|(_, at)| agents.half(at + offset_of!(Agent, version)).load(Ordering::Relaxed) == 1);
        used.map(move |(slot, at)| (AgentSlot(slot), agents.word(at + field).load(Ordering::Relaxed)))
    }

    fn name_agent(&self, agent: AgentSlot, name: &str) -> Result<(), EnforcementError> {
        if name.len() >= limits::AGENT_NAME {
            return Err(full("the room for an agent's name", limits::AGENT_NAME as u64 - 1));
        }
        let mut bytes = [0; limits::AGENT_NAME];
        bytes[..name.len()].copy_from_slice(name.as_bytes());
        let at = agent.0 as usize * size_of::<Agent>();
        if self.tables.agent(agent.0).name != bytes {
            // What was lifted for the agent that had the entry is not lifted for this one.
            self.tables.agents.word(at + offset_of!(Agent, lifted_until)).store(0, Ordering::SeqCst);
        }
        self.tables.agents.write(at + offset_of!(Agent, name), &bytes);
        self.tables.agents.half(at + offset_of!(Agent, version)).store(1, Ordering::SeqCst);
        Ok(())
    }
}

impl Enforcement for Kernel {
    fn publish(
        &mut self,
        agent: AgentSlot,
        name: &str,
        policy: &ValidPolicy,
        image: &Image,
        links: Linked<'_>,
        before: &mut dyn FnMut(&PublishedPolicy),
    ) -> Result<PublishedPolicy, EnforcementError> {
        self.agent_policy(agent)?;
        let acts = policy.grants().calls.acts();
        self.calls.attach_wanted(acts);
        if let Some(problem) = self.calls.undoable(acts) {
            return Err(EnforcementError::Unsupported(problem));
        }
        let mode = match policy.mode() {
            Mode::Enforce => MODE_ENFORCE,
            Mode::Audit => MODE_AUDIT,
        };
        let published = self.policies.stage(&mut self.tables, image, links, policy.digest(), mode)?;
        before(&published);
        self.name_agent(agent, name)?;
        let word = u64::from(published.id) << 32 | u64::from(published.slot);
        let old = self.agent_policy(agent)?.swap(word, Ordering::SeqCst);
        self.policies.retire(&mut self.tables, old);
        Ok(published)
    }

    fn room_for_links(&self) -> usize {
        let used = usize::try_from(self.policies.usage().links).unwrap_or(usize::MAX);
        (limits::LINKS as usize).saturating_sub(used)
    }

    fn add_links(
        &mut self,
        policy: &PublishedPolicy,
        image: &Image,
        links: Linked<'_>,
    ) -> Result<(), EnforcementError> {
        let added = publish::add_links(&mut self.tables, policy, image, links);
        if !links.files().is_empty() {
            self.policies.links_added(&self.tables);
        }
        added
    }

    fn publish_matcher(&mut self, image: &Image) -> Result<(), EnforcementError> {
        let published =
            self.policies.stage(&mut self.tables, image, Linked::Known(&[]), [0; 32], MODE_ENFORCE)?;
        let word = u64::from(published.id) << 32 | u64::from(published.slot);
        let old = self.tables.gate.word(offset_of!(Gate, matcher)).swap(word, Ordering::SeqCst);
        self.policies.retire(&mut self.tables, old);
        Ok(())
    }

    fn retire(&mut self, agent: AgentSlot) -> Result<(), EnforcementError> {
        let old = self.agent_policy(agent)?.swap(0, Ordering::SeqCst);
        self.policies.retire(&mut self.tables, old);
        Ok(())
    }

    fn agents(&self) -> Result<Vec<(AgentSlot, String, u64)>, EnforcementError> {
        let used =
            (0..limits::AGENTS).map(|slot| (slot, self.tables.agent(slot))).filter(|(_, a)| a.version == 1);
        Ok(used
            .map(|(slot, agent)| {
                let name = agent.name.split(|b| *b == 0).next().unwrap_or_default();
                (AgentSlot(slot), String::from_utf8_lossy(name).into_owned(), agent.policy)
            })
            .collect())
    }

    fn policies(&self) -> Result<Vec<(u32, [u8; 32])>, EnforcementError> {
        self.policies.held(&self.tables)
    }

    fn tables(&self) -> &str {
        &self.identity
    }

    fn bind_session(
        &mut self,
        cgroup: u64,
        id: [u64; 2],
        agent: AgentSlot,
        tiers: TierMap,
    ) -> Result<SessionRef, EnforcementError> {
        self.sessions.bind(&mut self.tables, cgroup, id, agent, tiers)
    }

    fn sessions(&self) -> Result<Vec<SessionEntry>, EnforcementError> {
        Ok(sessions::list(&self.tables))
    }

    fn end_session(&mut self, slot: u32, generation: u64) -> Result<(), EnforcementError> {
        self.sessions.end(&mut self.tables, slot, generation)
    }

    fn refill_seeds(
        &mut self,
        first: TierMap,
        tiers_of: &dyn Fn(AgentSlot) -> TierMap,
    ) -> Result<(), EnforcementError> {
        self.sessions.refill(&mut self.tables, first, tiers_of)
    }

    fn set_tiers(&mut self, tiers_of: &dyn Fn(AgentSlot) -> Option<TierMap>) -> Result<(), EnforcementError> {
        sessions::set_tiers_of(&self.tables, tiers_of);
        Ok(())
    }

    fn lift(&mut self, agents: &[AgentSlot], until: u64) -> Result<(), EnforcementError> {
        for agent in agents {
            // Also refuses an entry that there is not.
            self.agent_policy(*agent)?;
            let at = agent.0 as usize * size_of::<Agent>() + offset_of!(Agent, lifted_until);
            self.tables.agents.word(at).store(until, Ordering::SeqCst);
        }
        Ok(())
    }

    fn lifted(&self) -> Result<Vec<(AgentSlot, u64)>, EnforcementError> {
        let all = (0..limits::AGENTS).map(|slot| (AgentSlot(slot), self.tables.agent(slot)));
        Ok(all.filter(|(_, a)| a.lifted_until != 0).map(|(slot, a)| (slot, a.lifted_until)).collect())
    }

    fn set_roots(&mut self, roots: &[RootSetting]) -> Result<(), EnforcementError> {
        roots::set(&mut self.tables, &self.cgroups, roots)?;
        self.net_layer.set_roots(roots.iter().map(|root| root.path.clone()).collect());
        Ok(())
    }

    fn follow_roots(&mut self) -> Vec<Followed> {
        // Called every second, which is what settling waits for.
        self.policies.settle(&mut self.tables);
        self.net_layer.follow();
        self.net_layer.take_attached()
    }

    fn attach_more(&mut self) {
        self.calls.attach_some(ATTACHING);
    }

    fn take_unwatched(&mut self) -> Vec<Unwatched> {
        self.calls.take_unwatched()
    }

    fn brought_back(&self) -> Vec<String> {
        self.brought_back.clone()
    }

    fn set_agent_socket(&mut self, file: Option<FileId>) {
        let at = offset_of!(Gate, agent_socket);
        // Never one file's number with another's device.
        self.tables.gate.word(at).store(0, Ordering::SeqCst);
        if let Some(file) = file {
            self.tables.gate.word(at + 8).store(file.device, Ordering::SeqCst);
            self.tables.gate.word(at).store(file.inode, Ordering::SeqCst);
        }
    }

    fn set_executors(&mut self, executors: &[PathBuf]) -> Result<(), EnforcementError> {
        self.executors = executors::set(&mut self.tables, executors)?;
        Ok(())
    }

    fn lost(&self) -> Result<Vec<(AgentSlot, u64, u64)>, EnforcementError> {
        let of_nobody = |offset| self.tables.gate.word(offset).load(Ordering::SeqCst);
        let nobody = (
            AgentSlot(NO_AGENT),
            of_nobody(offset_of!(Gate, lost_decisions)),
            of_nobody(offset_of!(Gate, lost_activity)),
        );
        let [decisions, activity] =
            [offset_of!(Agent, lost_decisions), offset_of!(Agent, lost_activity)].map(|at| self.counts(at));
        let agents = decisions.zip(activity).map(|((slot, d), (_, a))| (slot, d, a));
        Ok(agents.chain([nobody]).collect())
    }

    fn folded(&self) -> Result<Vec<(AgentSlot, u64)>, EnforcementError> {
        Ok(self.counts(offset_of!(Agent, same_call)).collect())
    }

    fn calls_beyond(&self) -> Result<Vec<(AgentSlot, u64)>, EnforcementError> {
        Ok(self.counts(offset_of!(Agent, calls_beyond)).collect())
    }

    fn drain(&mut self, most: usize, f: &mut dyn FnMut(&[u8])) -> Result<usize, EnforcementError> {
        let mut count = 0;
        let mut take = |ring: &mut Ring, end: usize| -> Result<(), EnforcementError> {
            let reader = ring.reader().map_err(|e| tables::failed("mapping a ring", e))?;
            let Some(reader) = reader else { return Ok(()) };
            while count < end
                && let Some(record) = reader.next()
            {
                f(&record);
                count += 1;
            }
            Ok(())
        };
        // A flood on one ring leaves half of each turn to the other.
        take(&mut self.tables.activity, most / 2)?;
        take(&mut self.tables.decisions, most)?;
        take(&mut self.tables.activity, most)?;
        Ok(count)
    }

    fn rest(&mut self) -> bool {
        let let_go = [self.tables.decisions.rest(), self.tables.activity.rest()];
        let_go.contains(&true)
    }

    fn ring_fds(&self) -> Vec<RawFd> {
        vec![self.tables.decisions.as_raw_fd(), self.tables.activity.as_raw_fd()]
    }

    fn health(&self) -> Health {
        health::of(self)
    }

    fn holds(&self) -> Result<Vec<(HoldId, Hold)>, EnforcementError> {
        holds::list(&self.tables.holds)
    }

    fn hold(&self, id: HoldId) -> Result<Option<Hold>, EnforcementError> {
        holds::one(&self.tables.holds, id)
    }

    fn waits(&self) -> u64 {
        self.tables.gate.word(offset_of!(Gate, waits)).load(Ordering::SeqCst)
    }

    fn waiters(&self) -> Result<Vec<(WaiterKey, Waiter)>, EnforcementError> {
        holds::waiters(&self.tables.waiters)
    }

    fn set_hold_open(&mut self, id: HoldId, until: u64, wait: bool) -> Result<bool, EnforcementError> {
        holds::set_open(&mut self.tables, id, until, wait)
    }

    fn grant(&mut self, id: HoldId, uses: u32, until: u64) -> Result<bool, EnforcementError> {
        holds::grant(&mut self.tables, id, uses, until)
    }

    fn refuse_hold(&mut self, id: HoldId, until: u64) -> Result<bool, EnforcementError> {
        holds::refuse(&mut self.tables, id, until)
    }

    fn forget_hold(&mut self, id: HoldId) -> Result<(), EnforcementError> {
        holds::forget(&mut self.tables, id)
    }

    fn forget_waiter(&mut self, key: WaiterKey) -> Result<(), EnforcementError> {
        holds::forget_waiter(&mut self.tables, key)
    }

    fn set_hold_quota(&mut self, slot: u32, more: u32) -> Result<(), EnforcementError> {
        holds::set_quota(&self.tables, slot, more)
    }

    fn wake(&mut self, waiter: WaiterKey) -> Result<(), EnforcementError> {
        holds::wake(&self.tables.holds, &self.tables.waiters, waiter)
    }
}
