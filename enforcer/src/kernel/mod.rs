//! The kernel side of the daemon, and the only place that knows aya: what this kernel has, loading,
//! publishing, sessions, rings, and taking over from an earlier daemon.

mod arena;
mod btf;
mod cast;
mod holds;
mod hooks;
mod load;
mod mapped;
mod offsets;
mod overdue;
mod publish;
mod regions;
mod sessions;
mod tables;
mod trust_tag;

use crate::{
    daemon::enforcement::{
        AgentSlot, Enforcement, EnforcementError, Health, Hook, PublishedPolicy, RootSetting, SessionEntry,
        SessionRef, StartCause, StartError, Usage,
    },
    policy::{Image, LinkedFile, Mode, ValidPolicy},
    settings::Settings,
};
use aya::maps::{MapData, RingBuf};
use enforcer_common::{
    ABI_VERSION,
    event::NO_AGENT,
    hold::{Hold, HoldId, Waiter, WaiterKey},
    limits,
    map::{
        Agent, EXECUTOR_HELPER, EXECUTOR_RUNTIME, FileId, Gate, MODE_AUDIT, MODE_ENFORCE, Meta, ROOT_SHARED,
        Root, RootPath, TierMap,
    },
};
use hooks::HookProgram;
use load::Host;
pub use load::Loaded;
pub use overdue::wake as wake_overdue;
use publish::{Policies, full, sha256};
use sessions::Sessions;
use std::{
    fs,
    mem::offset_of,
    os::{
        fd::{AsRawFd, RawFd},
        unix::fs::{MetadataExt, OpenOptionsExt},
    },
    path::{Path, PathBuf},
    sync::atomic::Ordering,
};
use tables::{Tables, failed, to_bytes};

/// The programs in the kernel and the tables that steer them.
pub struct Kernel {
    tables: Tables,
    policies: Policies,
    sessions: Sessions,
    programs: Vec<&'static HookProgram>,
    links: PathBuf,
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
    Ok(Box::new(Kernel::start(&settings.paths.pins, &settings.paths.cgroups)?))
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

impl Kernel {
    /// As [`start`], for pins in `pins` and the cgroup hierarchy mounted at `cgroups`.
    pub fn start(pins: &Path, cgroups: &Path) -> Result<Self, StartError> {
        let host = Host::probe()?;
        let maps = pins.join("maps");
        make_private(pins)?;
        make_private(&maps)?;
        let found = if maps.join("META").exists() { earlier(&maps)? } else { None };
        let digest = sha256(load::OBJECT);
        let generation = match &found {
            Some(meta) if meta.object == digest && complete(&host, &links_of(pins, meta.generation)) => {
                meta.generation
            }
            Some(meta) => meta.generation + 1,
            None => 1,
        };
        let links = links_of(pins, generation);
        let mut loaded = Vec::new();
        if found.as_ref().is_none_or(|meta| meta.generation != generation) {
            loaded = replace(&host, generation, &maps, &links, digest)?;
        }
        let mut tables = Tables::open(&maps)?;
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
        Ok(Self {
            tables,
            policies,
            sessions,
            programs: host.programs,
            links,
            generation,
            cgroups: cgroups.to_owned(),
            identity: tables::identity(&maps)?,
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

/// What an earlier daemon says about its pins; another ABI is refused, never guessed at.
/// `None`: a start that was cut off before it attached anything.
fn earlier(maps: &Path) -> Result<Option<Meta>, StartError> {
    let pins = |message: String| StartError {
        cause: StartCause::Pins,
        message,
        remedy: "start the version that made them, or stop the agents, remove the directory and start again"
            .to_owned(),
    };
    let tables = Tables::open(maps)?;
    let meta = tables.meta().map_err(|e| pins(e.to_string()))?;
    if meta.abi == 0 && meta.generation == 0 {
        return Ok(None);
    }
    if meta.abi != ABI_VERSION {
        return Err(pins(format!(
            "the pins in {} have ABI version {}, this program has {ABI_VERSION}",
            maps.display(),
            meta.abi
        )));
    }
    Ok(Some(meta))
}

/// Loads and attaches a generation beside whatever is attached, then makes it the one that decides.
fn replace(
    host: &Host,
    generation: u32,
    maps: &Path,
    links: &Path,
    digest: [u8; 32],
) -> Result<Vec<Loaded>, StartError> {
    // Left over from a start that did not get far enough to be recorded.
    remove_directory(links)?;
    make_private(links)?;
    let (mut ebpf, loaded) = load::load(host, generation, maps)?;
    load::attach(&mut ebpf, host, links)?;
    let mut tables = Tables::open(maps)?;
    let internal = |e: EnforcementError| load::internal(e.to_string());
    let mut meta = tables.meta().map_err(internal)?;
    meta.abi = ABI_VERSION;
    meta.generation = generation;
    meta.object = digest;
    tables.set_meta(&meta).map_err(internal)?;
    Ok(loaded)
}

fn links_of(pins: &Path, generation: u32) -> PathBuf {
    pins.join(format!("links-{generation}"))
}

fn complete(host: &Host, links: &Path) -> bool {
    host.programs.iter().all(|p| links.join(p.program).exists())
}

fn remove_other_links(pins: &Path, keep: &Path) -> Result<(), StartError> {
    let entries = fs::read_dir(pins).map_err(|e| load::refused(format!("{}: {e}", pins.display())))?;
    for entry in entries.flatten() {
        let path = entry.path();
        if path != keep && entry.file_name().to_string_lossy().starts_with("links-") {
            remove_directory(&path)?;
        }
    }
    Ok(())
}

/// Removes a directory of pins, one link at a time: the programs of an older generation stand aside
/// already, so the order does not matter.
fn remove_directory(path: &Path) -> Result<(), StartError> {
    match fs::remove_dir_all(path) {
        Ok(()) => Ok(()),
        Err(e) if e.kind() == std::io::ErrorKind::NotFound => Ok(()),
        Err(e) => Err(load::refused(format!("cannot remove {}: {e}", path.display()))),
    }
}

fn make_private(path: &Path) -> Result<(), StartError> {
    use std::os::unix::fs::DirBuilderExt;
    match fs::DirBuilder::new().mode(0o700).create(path) {
        Ok(()) => Ok(()),
        Err(e) if e.kind() == std::io::ErrorKind::AlreadyExists => Ok(()),
        Err(e) => Err(StartError {
            cause: StartCause::Permission,
            message: format!("cannot create {}: {e}", path.display()),
            remedy: "run as root, with bpffs mounted at /sys/fs/bpf (mount -t bpf bpf /sys/fs/bpf)"
                .to_owned(),
        }),
    }
}

/// The path of a root as text.
fn root_text(path: &RootPath) -> String {
    String::from_utf8_lossy(path.split(|b| *b == 0).next().unwrap_or_default()).into_owned()
}

impl Enforcement for Kernel {
    fn publish(
        &mut self,
        agent: AgentSlot,
        name: &str,
        policy: &ValidPolicy,
        image: &Image,
        links: &[LinkedFile],
        before: &mut dyn FnMut(&PublishedPolicy),
    ) -> Result<PublishedPolicy, EnforcementError> {
        self.agent_policy(agent)?;
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

    fn add_links(
        &mut self,
        policy: &PublishedPolicy,
        image: &Image,
        links: &[LinkedFile],
    ) -> Result<(), EnforcementError> {
        publish::add_links(&mut self.tables, policy, image, links)
    }

    fn publish_matcher(&mut self, image: &Image) -> Result<(), EnforcementError> {
        let published = self.policies.stage(&mut self.tables, image, &[], [0; 32], MODE_ENFORCE)?;
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
        agent: AgentSlot,
        tiers: TierMap,
    ) -> Result<SessionRef, EnforcementError> {
        self.sessions.bind(&mut self.tables, cgroup, agent, tiers)
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
        if roots.len() > limits::ROOTS {
            return Err(full("the table of roots", limits::ROOTS as u64));
        }
        let stale = self
            .tables
            .root_paths
            .keys()
            .collect::<Result<Vec<_>, _>>()
            .map_err(|e| failed("reading ROOT_PATHS", e))?;
        let known: Vec<String> = stale.iter().map(root_text).collect();
        if !known.is_empty() && !roots.iter().all(|r| known.contains(&r.path)) || known.len() > roots.len() {
            // While entries change, tasks may lie below none of them: labels count everywhere.
            self.tables.gate.word(offset_of!(Gate, strays)).fetch_add(1, Ordering::SeqCst);
        }
        for (i, root) in roots.iter().enumerate() {
            let mut path = [0; limits::ROOT_PATH];
            path[..root.path.len()].copy_from_slice(root.path.as_bytes());
            // First the path, so that a root which is created now is followed, then the id of one
            // that exists.
            self.tables.root_paths.insert(path, i as u32, 0).map_err(|e| failed("writing ROOT_PATHS", e))?;
            let at = offset_of!(Gate, root) + i * size_of::<Root>();
            let directory = self.cgroups.join(root.path.trim_start_matches('/'));
            if let Ok(meta) = fs::metadata(&directory) {
                // The id of a cgroup is its inode number in cgroupfs (cgroup_id(), 64 bit).
                self.tables.gate.word(at + offset_of!(Root, id)).store(meta.ino(), Ordering::SeqCst);
            }
            let flags = if root.shared { ROOT_SHARED } else { 0 };
            self.tables.gate.half(at + offset_of!(Root, flags)).store(flags, Ordering::SeqCst);
            let level = root.path.matches('/').count() as u32;
            self.tables.gate.half(at + offset_of!(Root, level)).store(level, Ordering::SeqCst);
        }
        for i in roots.len()..limits::ROOTS {
            let at = offset_of!(Gate, root) + i * size_of::<Root>();
            self.tables.gate.half(at + offset_of!(Root, level)).store(0, Ordering::SeqCst);
        }
        for path in stale {
            let text =
                String::from_utf8_lossy(path.split(|b| *b == 0).next().unwrap_or_default()).into_owned();
            if !roots.iter().any(|r| r.path == text) {
                self.tables.root_paths.remove(&path).map_err(|e| failed("removing from ROOT_PATHS", e))?;
            }
        }
        Ok(())
    }

    fn set_executors(&mut self, executors: &[PathBuf]) -> Result<(), EnforcementError> {
        // This program is the launch helper; everything else is a runtime.
        let own = std::env::current_exe().ok().and_then(|path| fs::metadata(path).ok());
        let (mut wanted, mut held) = (Vec::new(), Vec::new());
        for path in executors {
            // What does not exist here cannot prepare anything.
            let file = fs::File::options().read(true).custom_flags(libc::O_PATH).open(path);
            if let Ok((file, meta)) = file.and_then(|file| file.metadata().map(|meta| (file, meta))) {
                held.push(file);
                let device = nix::sys::stat::major(meta.dev()) << 20 | nix::sys::stat::minor(meta.dev());
                let key = to_bytes::<_, { size_of::<FileId>() }>(&FileId { device, inode: meta.ino() });
                let is_own =
                    own.as_ref().is_some_and(|own| (own.dev(), own.ino()) == (meta.dev(), meta.ino()));
                wanted.push((key, if is_own { EXECUTOR_HELPER } else { EXECUTOR_RUNTIME }));
            }
        }
        for (key, kind) in &wanted {
            self.tables.executors.insert(*key, *kind, 0).map_err(|e| failed("writing EXECUTORS", e))?;
        }
        let all = self
            .tables
            .executors
            .keys()
            .collect::<Result<Vec<_>, _>>()
            .map_err(|e| failed("reading EXECUTORS", e))?;
        for key in all.iter().filter(|key| !wanted.iter().any(|(k, _)| k == *key)) {
            self.tables.executors.remove(key).map_err(|e| failed("removing from EXECUTORS", e))?;
        }
        self.executors = held;
        Ok(())
    }

    fn lost(&self) -> Result<Vec<(AgentSlot, u64, u64)>, EnforcementError> {
        let used =
            (0..limits::AGENTS).map(|slot| (slot, self.tables.agent(slot))).filter(|(_, a)| a.version == 1);
        let of_nobody = |offset| self.tables.gate.word(offset).load(Ordering::SeqCst);
        let nobody = (
            AgentSlot(NO_AGENT),
            of_nobody(offset_of!(Gate, lost_decisions)),
            of_nobody(offset_of!(Gate, lost_activity)),
        );
        let agents = used.map(|(slot, a)| (AgentSlot(slot), a.lost_decisions, a.lost_activity));
        Ok(agents.chain([nobody]).collect())
    }

    fn folded(&self) -> Result<Vec<(AgentSlot, u64)>, EnforcementError> {
        let all = (0..limits::AGENTS).map(|slot| (AgentSlot(slot), self.tables.agent(slot)));
        Ok(all.filter(|(_, a)| a.version == 1).map(|(slot, a)| (slot, a.same_call)).collect())
    }

    fn drain(&mut self, most: usize, f: &mut dyn FnMut(&[u8])) -> Result<usize, EnforcementError> {
        let mut count = 0;
        let mut take = |ring: &mut RingBuf<MapData>, end: usize| {
            while count < end
                && let Some(record) = ring.next()
            {
                f(&record);
                count += 1;
            }
        };
        // A flood on one ring leaves half of each turn to the other.
        take(&mut self.tables.activity, most / 2);
        take(&mut self.tables.decisions, most);
        take(&mut self.tables.activity, most);
        Ok(count)
    }

    fn ring_fds(&self) -> Vec<RawFd> {
        vec![self.tables.decisions.as_raw_fd(), self.tables.activity.as_raw_fd()]
    }

    fn health(&self) -> Health {
        let active =
            self.tables.gate.half(offset_of!(Gate, generation)).load(Ordering::SeqCst) == self.generation;
        let hooks = self.programs.iter().map(|p| {
            let pinned = self.links.join(p.program).exists();
            let note = match (pinned, active) {
                (true, true) => String::new(),
                (false, _) => format!("the link {} is gone", self.links.join(p.program).display()),
                (true, false) => "another generation decides".to_owned(),
            };
            Hook { name: p.program.to_owned(), required: true, attached: pinned && active, note }
        });
        let (arena, policies) = self.policies.usage();
        let usage = |name: &str, used: u64, room: u64| Usage { name: name.to_owned(), used, room };
        Health {
            generation: self.generation,
            hooks: hooks.collect(),
            usage: vec![
                usage("arena", arena, limits::ARENA as u64),
                usage("policies", policies, limits::POLICIES.into()),
                usage("sessions", self.sessions.count(&self.tables), limits::SESSIONS.into()),
            ],
        }
    }

    fn holds(&self) -> Result<Vec<(HoldId, Hold)>, EnforcementError> {
        holds::list(&self.tables.holds)
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
