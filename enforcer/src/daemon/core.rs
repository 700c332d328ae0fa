//! The daemon's state and everything that changes it. Nothing here waits.

use super::{
    aggregate::{Aggregator, Summary},
    arguments::Arguments,
    break_glass::Glass,
    canary::Canary,
    commands::Commands,
    counted::Counted,
    enforcement::{AgentSlot, Enforcement, EnforcementError, PublishedPolicy, RootSetting},
    first_use::{FirstUses, of_program},
    held::Held,
    holds::Approvals,
    left_open::LeftOpens,
    lives::stranger,
    loaded::Kept,
    metrics::Verdicts,
    names::Names,
    numbers::{InKernel, Numbers},
    policies::{Known, LastGood},
    proof::CanaryAgent,
    published::Store,
    recent::Recent,
    refusals::Refusals,
    registry::Slots,
    sessions::Sessions,
    trust::Trusts,
    unwritten::Unwritten,
    watch::{self, Watched},
};
use crate::{
    audit::Sink,
    control::{
        agent_server::Meter,
        message::{FileStatus, Lost},
    },
    event::{
        decode::{Event, Kind},
        flat::Flat,
        json,
    },
    launch::scope::Scopes,
    links::Finder,
    policy::Trust,
    settings::{OnFailure, Settings},
};
use enforcer_common::{event::operation, map::TierMap};
use serde_json::Value;
use std::{
    cell::RefCell,
    collections::{BTreeMap, BTreeSet, HashSet},
    io,
    path::PathBuf,
    rc::Rc,
    time::{SystemTime, UNIX_EPOCH},
};

/// The state, shared by the tasks of one thread. Never borrowed across a wait.
pub type Shared = Rc<RefCell<Core>>;

/// No tier runs and none waits: everything is refused.
pub const NO_TIERS: TierMap = TierMap { allow: [0; 3], hold: [0; 3], level: 0 };

/// Records that are taken in one turn: a flood must not keep the daemon from its other work.
const AT_ONCE: usize = 256;

/// What one turn took from the rings.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Drained {
    /// How many records.
    pub records: usize,
    /// The rings may have more.
    pub more: bool,
}

/// What is in force for an agent.
#[derive(Clone)]
pub struct AgentState {
    /// Its place in the kernel's table.
    pub slot: AgentSlot,
    /// The file that its policy came from.
    pub file: PathBuf,
    /// The policy.
    pub policy: Rc<Kept>,
    /// What the kernel calls it.
    pub published: PublishedPolicy,
}

/// The daemon.
pub struct Core {
    /// The settings.
    pub settings: Rc<Settings>,
    /// This program, to be run as canary and launch helper.
    pub program: PathBuf,
    /// The canary.
    pub canary: Canary,
    pub(super) canary_agent: Option<CanaryAgent>,
    pub(super) enforcement: Box<dyn Enforcement>,
    pub(super) audit: Box<dyn Sink>,
    pub(super) audit_error: Option<String>,
    pub(super) unwritten: Unwritten,
    pub(super) slots: Slots,
    pub(super) agents: BTreeMap<String, AgentState>,
    pub(super) numbers: Numbers,
    pub(super) links: Finder,
    /// Agents with files whose further names may not all be known, and why.
    pub(super) links_incomplete: BTreeMap<String, String>,
    pub(super) files: Vec<FileStatus>,
    pub(super) known: Known,
    /// How the directory of policies was when it was read.
    pub(super) read_as: Option<u64>,
    /// How it was when it was last found to be another.
    pub(super) stale_as: Option<u64>,
    /// Agents and cgroup globs of the matcher in force.
    pub(super) matched: Option<Vec<(AgentSlot, Vec<String>)>>,
    pub(super) matcher_error: Option<String>,
    pub(super) last_good: LastGood,
    /// Cgroups of launches that are going on: no process may be in them yet.
    pub(super) launching: HashSet<PathBuf>,
    /// Sessions whose command this daemon waits for: it ends them itself.
    pub(super) attended: HashSet<[u64; 2]>,
    /// What is known of systemd, which makes the sessions' cgroups where it can.
    pub(crate) scopes: Scopes,
    /// Sessions whose refusals somebody waits for.
    pub(crate) watched: Watched,
    pub(super) repeats: Aggregator,
    /// Programs whose arguments are to be judged.
    pub(super) arguments: Arguments,
    /// What waits for a person.
    pub(super) approvals: Approvals,
    /// The kernel's count of waits when nothing was there.
    pub(super) idle_since: Option<u64>,
    /// How far agents are trusted.
    pub(super) trust: Trusts,
    /// What break-glass lifts.
    pub(super) glass: Glass,
    /// What sessions did last.
    pub(super) recent: Recent,
    /// What sessions hold open that their policy refuses by now.
    pub(super) left_open: LeftOpens,
    /// Who started sessions, and what they did in sum.
    pub(super) sessions: Sessions,
    /// Executed programs whose arguments are not complete.
    pub(super) commands: Commands,
    /// Rules that have let programs run.
    pub(super) first_uses: FirstUses,
    /// Room for the record at hand.
    pub(super) flat: Flat,
    /// What was refused to sessions last.
    pub(super) refusals: Refusals,
    /// How much sessions have asked about themselves.
    pub(super) asks: Meter,
    pub(super) offset: Option<i128>,
    /// Sessions may have ended, or a root was made anew: time to look.
    pub(super) sweep_due: bool,
    pub(super) lost: Lost,
    pub(super) counted: Counted,
    pub(super) no_proof: Option<String>,
    pub(super) proven_at: Option<i128>,
    pub(super) verdicts: Verdicts,
}

impl Core {
    /// The daemon with a kernel side that has started: says where agents live and takes over what an
    /// earlier daemon left.
    pub fn new(
        settings: Rc<Settings>,
        program: PathBuf,
        canary: Canary,
        mut enforcement: Box<dyn Enforcement>,
        audit: Box<dyn Sink>,
    ) -> Result<Self, EnforcementError> {
        let roots: Vec<RootSetting> = settings
            .agents
            .roots
            .iter()
            .map(|root| RootSetting { path: root.path.clone(), shared: root.shared })
            .collect();
        enforcement.set_roots(&roots)?;
        let mut executors = settings.agents.executors.clone();
        // The kernel knows executors by file, not by a link to whoever asks.
        executors.push(std::fs::canonicalize(&program).unwrap_or_else(|_| program.clone()));
        enforcement.set_executors(&executors)?;
        let agents = enforcement.agents()?;
        let kernel = InKernel {
            tables: enforcement.tables().to_owned(),
            held: enforcement.policies()?.into_iter().collect(),
            in_force: agents.iter().map(|(_, _, word)| (word >> 32) as u32).filter(|id| *id != 0).collect(),
        };
        let link_time = std::time::Duration::from_secs(settings.agents.link_seconds);
        let (numbers, problem) = Numbers::adopt(Store::new(&settings.paths.state), kernel, boot_time());
        if let Some(problem) = problem {
            tracing::warn!("{problem}");
        }
        let left_open = LeftOpens::new(&agents, &numbers, &settings.paths.state);
        let slots = Slots::adopt(agents.into_iter().map(|(slot, name, _)| (slot, name)));
        let counted = Counted::load(&settings.paths.state, enforcement.tables());
        let last_good = LastGood::new(&settings.paths.state);
        let approvals = Approvals::load(&settings);
        let trust = Trusts::load(&settings);
        let glass = Glass::load(&settings);
        let mut core = Self {
            settings,
            program,
            canary,
            canary_agent: None,
            enforcement,
            audit,
            audit_error: None,
            unwritten: Unwritten::default(),
            slots,
            agents: BTreeMap::new(),
            numbers,
            links: Finder::new(link_time),
            links_incomplete: BTreeMap::new(),
            files: Vec::new(),
            known: Known::new(),
            read_as: None,
            stale_as: None,
            matched: None,
            matcher_error: None,
            last_good,
            launching: HashSet::new(),
            attended: HashSet::new(),
            scopes: Scopes::default(),
            watched: Watched::default(),
            repeats: Aggregator::default(),
            arguments: Arguments::default(),
            idle_since: None,
            approvals,
            trust,
            glass,
            recent: Recent::default(),
            left_open,
            sessions: Sessions::default(),
            commands: Commands::default(),
            first_uses: FirstUses::default(),
            flat: Flat::default(),
            refusals: Refusals::default(),
            asks: Meter::default(),
            offset: None,
            sweep_due: true,
            lost: Lost::default(),
            counted,
            no_proof: Some("no canary has been refused yet".to_owned()),
            proven_at: None,
            verdicts: Verdicts::default(),
        };
        core.introduce_kept();
        Ok(core)
    }

    /// The paths of the roots.
    pub fn roots(&self) -> Vec<String> {
        self.settings.agents.roots.iter().map(|root| root.path.clone()).collect()
    }

    /// What is in force for an agent.
    pub fn agent(&self, name: &str) -> Option<&AgentState> {
        self.agents.get(name)
    }

    /// Why agents must not be started now.
    pub fn no_proof(&self) -> Option<&str> {
        self.no_proof.as_deref()
    }

    /// Why no session must be started because of the audit log: it cannot be written, and the settings say so.
    pub fn unrecorded(&self) -> Option<&str> {
        match self.settings.audit.on_failure {
            OnFailure::Continue => None,
            OnFailure::Refuse | OnFailure::Freeze => self.audit_error.as_deref(),
        }
    }

    /// The rings' descriptors.
    pub fn ring_fds(&self) -> Vec<std::os::fd::RawFd> {
        self.enforcement.ring_fds()
    }

    /// Writes a record of the daemon's own.
    pub fn record(&mut self, kind: &str, mut fields: Value) {
        if let Some(map) = fields.as_object_mut() {
            self.mark_break_glass(map);
            map.insert("schema".to_owned(), json::SCHEMA.into());
            map.insert("time".to_owned(), crate::event::text::rfc3339(now()).into());
            map.insert("kind".to_owned(), kind.into());
        }
        self.audit.append(&fields);
        self.flush();
    }

    /// Hands the records to the operating system.
    pub fn flush(&mut self) {
        self.note_audit(|audit| audit.flush());
    }

    /// Forces the records to the disk.
    pub fn sync(&mut self) {
        self.note_audit(|audit| audit.flush().and_then(|()| audit.sync()));
    }

    fn note_audit(&mut self, act: impl FnOnce(&mut dyn Sink) -> io::Result<()>) {
        let error = act(self.audit.as_mut()).err().map(|e| e.to_string());
        if error.is_some() && error != self.audit_error {
            tracing::error!(error, "the audit log cannot be written");
        }
        self.audit_error = error;
        self.lost.unwritten = self.audit.lost();
    }

    /// Records what waits in the rings, as much as one turn may take.
    pub fn drain(&mut self) -> Drained {
        let (began, offset) = (boot_time(), boot_offset(self.offset));
        self.offset = Some(offset);
        let (mut sweep, mut refill, mut newest) = (false, false, 0);
        let mut held = Vec::new();
        let (slots, numbers, glass) = (&self.slots, &self.numbers, &self.glass);
        let (table, settings) = (&self.settings.trust, &self.settings);
        let (sessions, commands, flat) = (&mut self.sessions, &mut self.commands, &mut self.flat);
        let (recent, refusals) = (&mut self.recent, &mut self.refusals);
        let first_uses = &mut self.first_uses;
        let (audit, watched, repeats) = (&mut self.audit, &mut self.watched, &mut self.repeats);
        let (malformed, arguments) = (&mut self.lost.malformed, &mut self.arguments);
        let verdicts = &mut self.verdicts;
        let drained = self.enforcement.drain(AT_ONCE, &mut |bytes| match Event::try_from(bytes) {
            Ok(event) => {
                sweep |= matches!(event.kind, Kind::SessionRemoved | Kind::RootCreated);
                refill |= event.kind == Kind::SessionBound;
                newest = newest.max(event.header.time);
                watched.note(&event);
                if sessions.is_new(event.header.session) {
                    sessions.introduce(event.header.session, stranger(settings, &event), None);
                }
                sessions.note(&event);
                let names = Names { slots, numbers, table, glass, sessions };
                verdicts.note(names.slots.name(AgentSlot(event.header.agent)), &event);
                // Whether there is something to record of these is known once the arguments are judged.
                if event.kind == Kind::Loading {
                    return arguments.loading(&event, &names);
                }
                if event.kind == Kind::Held && event.header.operation == operation::ARGUMENTS {
                    return arguments.loaded(&event, offset, &names, recent.of(event.header.session));
                }
                if event.kind == Kind::Held {
                    refusals.note(bytes, &event);
                    held.push(Held::new(&event, &names, recent.of(event.header.session)));
                }
                if event.kind == Kind::Executed {
                    recent.note(&event, offset);
                    let record = json::event(&event, offset, &names);
                    let used = numbers.loaded(event.header.policy);
                    let used =
                        used.map(|(loaded, _)| first_uses.note(&loaded, event.exe)).unwrap_or_default();
                    let first = of_program(&record, used);
                    let complete = commands.begin(&event, record);
                    return complete.iter().chain(&first).for_each(|record| audit.append(record));
                }
                if event.kind == Kind::Arguments
                    && let Ok(complete) = commands.more(&event)
                {
                    return complete.iter().for_each(|record| audit.append(record));
                }
                if event.kind == Kind::FirstUse {
                    let act = || json::event(&event, offset, &names);
                    let first = first_uses.allowed(&event, numbers, table, act);
                    return first.iter().for_each(|record| audit.append(record));
                }
                let (alone, closed) = repeats.take(bytes, &event);
                if let Some(summary) = closed {
                    record_repeats(audit.as_mut(), &summary, offset, &names, flat);
                }
                if alone {
                    recent.note(&event, offset);
                    if event.kind != Kind::Held {
                        refusals.note(bytes, &event);
                    }
                    json::write(&event, None, offset, &names, flat);
                    audit.append_flat(flat);
                    first_uses.granted(&event, numbers, table, flat).iter().for_each(|it| audit.append(it));
                }
            }
            Err(error) => {
                *malformed += 1;
                audit.append(&json::malformed(&error, now()));
            }
        });
        if let Err(error) = &drained {
            tracing::error!(%error, "cannot read the rings");
        }
        let records = drained.unwrap_or(0);
        let more = records >= AT_ONCE;
        // While records wait, it is as late as in the newest one: the others of its window may be among them.
        let time = if more { newest } else { u64::try_from(began).unwrap_or(0) };
        let closed = repeats.close(time);
        let names = Names { slots, numbers, table, glass, sessions };
        closed.iter().for_each(|summary| record_repeats(audit.as_mut(), summary, offset, &names, flat));
        let overdue = commands.overdue(time);
        overdue.iter().for_each(|record| audit.append(record));
        if !more && self.numbers.forget(began) {
            self.first_uses.retain(&self.numbers.digests());
        }
        self.sweep_due |= sweep;
        if records > 0 || !closed.is_empty() || !overdue.is_empty() {
            self.flush();
        }
        self.take_held(held);
        self.judge_stopped();
        if refill || sweep {
            self.refill();
            self.look_at_holds(true);
        }
        Drained { records, more }
    }

    /// Records everything that still waits, at the end.
    pub fn drain_all(&mut self) {
        let mut taken = 0;
        // More cannot have waited; what an agent goes on to do is the next daemon's.
        while taken < watch::ALL {
            let drained = self.drain();
            taken += drained.records;
            if !drained.more {
                break;
            }
        }
        let names = Names {
            slots: &self.slots,
            numbers: &self.numbers,
            table: &self.settings.trust,
            glass: &self.glass,
            sessions: &self.sessions,
        };
        self.commands.all().iter().for_each(|record| self.audit.append(record));
        for summary in self.repeats.close_all() {
            let offset = boot_offset(self.offset);
            record_repeats(self.audit.as_mut(), &summary, offset, &names, &mut self.flat);
        }
        self.flush();
    }

    /// Keeps the kernel's pool of free sessions full.
    pub fn refill(&mut self) {
        let tiers = self.all_tiers();
        let tiers_of = |slot| tiers.get(&slot).copied().unwrap_or(NO_TIERS);
        let first = self.narrowed(self.settings.trust.tiers(Trust::Probation));
        if let Err(error) = self.enforcement.refill_seeds(first, &tiers_of) {
            tracing::error!(%error, "cannot refill the pool of sessions");
        }
    }

    /// Places of agents that sessions refer to.
    pub(super) fn slots_in_use(&self) -> Result<BTreeSet<AgentSlot>, EnforcementError> {
        Ok(self.enforcement.sessions()?.iter().map(|entry| AgentSlot(entry.session.agent)).collect())
    }
}

fn record_repeats(audit: &mut dyn Sink, summary: &Summary, offset: i128, names: &Names<'_>, flat: &mut Flat) {
    let Summary { record, count, first, last } = summary;
    let repeats = json::Repeats { count: *count, first: *first, last: *last };
    match Event::try_from(&record[..]) {
        Ok(event) => {
            json::write(&event, Some(repeats), offset, names, flat);
            audit.append_flat(flat);
        }
        Err(error) => unreachable!("it was a record when it came: {error}"),
    }
}

/// Nanoseconds since 1970.
pub fn now() -> i128 {
    SystemTime::now().duration_since(UNIX_EPOCH).map_or(0, |since| since.as_nanos() as i128)
}

/// Nanoseconds since the host booted, its sleep included.
pub fn boot_time() -> i128 {
    nix::time::clock_gettime(nix::time::ClockId::CLOCK_BOOTTIME)
        .map_or(0, |t| i128::from(t.tv_sec()) * 1_000_000_000 + i128::from(t.tv_nsec()))
}

/// What turns boot time into time since 1970. It stays what it was unless the clock was set (or slewed by more
/// than a millisecond), so that records keep the order that the kernel gave them.
fn boot_offset(before: Option<i128>) -> i128 {
    const SAME: i128 = 1_000_000;
    let sample = || {
        let (earlier, now, later) = (boot_time(), now(), boot_time());
        (later - earlier, now - (earlier + later) / 2)
    };
    // The one that was interrupted least.
    let (_, measured) = [sample(), sample(), sample()].into_iter().min().unwrap_or_default();
    before.filter(|before| (measured - before).abs() <= SAME).unwrap_or(measured)
}
