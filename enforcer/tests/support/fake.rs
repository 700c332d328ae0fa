//! The kernel side in memory, for tests only: it keeps what it is told and enforces nothing.

use enforcer::{
    daemon::enforcement::{
        AgentSlot, Enforcement, EnforcementError, Health, Hook, Linked, PublishedPolicy, RootSetting,
        SessionEntry, SessionRef,
    },
    policy::{Image, ValidPolicy},
};
use enforcer_common::{
    event::{Header, VERSION, kind},
    hold::{ASKED, GRANTED, Hold, HoldId, REFUSED, WAITING, Waiter, WaiterKey, Word},
    map::{FileId, SESSION_LAUNCHING, Session, TierMap},
    verdict::Verdict,
};
use std::{cell::RefCell, collections::BTreeMap, os::fd::RawFd, path::PathBuf, rc::Rc};
use zerocopy::{FromZeros, IntoBytes};

/// What the fake knows: shared with the test.
#[derive(Default)]
pub struct Told {
    /// Name and policy (id in the high half) by agent.
    pub agents: BTreeMap<AgentSlot, (String, u64)>,
    /// How often a matcher was published.
    pub matchers: usize,
    /// Sessions by slot.
    pub sessions: BTreeMap<u32, Session>,
    /// The roots.
    pub roots: Vec<RootSetting>,
    /// The executors.
    pub executors: Vec<PathBuf>,
    /// Records that wait.
    pub records: Vec<Vec<u8>>,
    /// This record comes again and again, as often as somebody asks.
    pub flood: Option<Vec<u8>>,
    /// Lost decisions and activity by agent.
    pub lost: BTreeMap<AgentSlot, (u64, u64)>,
    /// Folded refusals by agent.
    pub folded: BTreeMap<AgentSlot, u64>,
    /// Until when break-glass is in force, by agent.
    pub lifted: BTreeMap<AgentSlot, u64>,
    /// Digests of policies by id.
    pub digests: BTreeMap<u32, [u8; 32]>,
    /// The last id of a policy.
    pub last_policy: u32,
    /// The last generation of a session.
    pub last_session: u64,
    /// The record of the canary does not arrive.
    pub mute: bool,
    /// What was asked for.
    pub holds: BTreeMap<HoldId, Hold>,
    /// Requests and threads that began to wait, ever.
    pub waits: u64,
    /// Who waits.
    pub waiters: Vec<(WaiterKey, Waiter)>,
    /// Requests that sessions may still make.
    pub quotas: BTreeMap<u32, u32>,
    /// Whom was gone on, in order.
    pub woken: Vec<WaiterKey>,
    /// When each of them was.
    pub woken_at: Vec<std::time::Instant>,
    /// The socket at which sessions ask about themselves.
    pub agent_socket: Option<FileId>,
    /// Publishing fails with this.
    pub full: bool,
    /// What the kernel side says about itself beside one hook that is there.
    pub health: Health,
}

fn refusal(agent: AgentSlot, policy: u32, session: [u64; 2]) -> Vec<u8> {
    let mut header = Header::new_zeroed();
    header.version = VERSION;
    header.kind = kind::DECISION;
    header.verdict = Verdict::Deny as u16;
    header.length = size_of::<Header>() as u32;
    header.error = -1;
    (header.agent, header.policy, header.session) = (agent.0, policy, session);
    header.as_bytes().to_vec()
}

/// The fake.
#[derive(Clone, Default)]
pub struct Fake(pub Rc<RefCell<Told>>);

impl Enforcement for Fake {
    fn publish(
        &mut self,
        agent: AgentSlot,
        name: &str,
        policy: &ValidPolicy,
        image: &Image,
        _links: Linked<'_>,
        before: &mut dyn FnMut(&PublishedPolicy),
    ) -> Result<PublishedPolicy, EnforcementError> {
        let mut told = self.0.borrow_mut();
        if told.full {
            return Err(EnforcementError::Full { what: "the arena".to_owned(), limit: 1 });
        }
        told.last_policy += 1;
        let id = told.last_policy;
        let published = PublishedPolicy { id, slot: id, base: 0, image_digest: image.digest() };
        before(&published);
        told.digests.insert(id, policy.digest());
        told.agents.insert(agent, (name.to_owned(), u64::from(id) << 32));
        Ok(published)
    }

    fn publish_matcher(&mut self, _: &Image) -> Result<(), EnforcementError> {
        self.0.borrow_mut().matchers += 1;
        Ok(())
    }

    fn room_for_links(&self) -> usize {
        usize::MAX
    }

    fn add_links(
        &mut self,
        _policy: &PublishedPolicy,
        _image: &Image,
        _links: Linked<'_>,
    ) -> Result<(), EnforcementError> {
        Ok(())
    }

    fn retire(&mut self, agent: AgentSlot) -> Result<(), EnforcementError> {
        if let Some((_, policy)) = self.0.borrow_mut().agents.get_mut(&agent) {
            *policy = 0;
        }
        Ok(())
    }

    fn agents(&self) -> Result<Vec<(AgentSlot, String, u64)>, EnforcementError> {
        let told = self.0.borrow();
        Ok(told.agents.iter().map(|(slot, (name, policy))| (*slot, name.clone(), *policy)).collect())
    }

    fn policies(&self) -> Result<Vec<(u32, [u8; 32])>, EnforcementError> {
        Ok(self.0.borrow().digests.iter().map(|(id, digest)| (*id, *digest)).collect())
    }

    fn tables(&self) -> &str {
        "memory"
    }

    fn bind_session(
        &mut self,
        cgroup: u64,
        id: [u64; 2],
        agent: AgentSlot,
        tiers: TierMap,
    ) -> Result<SessionRef, EnforcementError> {
        let mut told = self.0.borrow_mut();
        if told.sessions.values().any(|session| session.cgroup == cgroup) {
            return Err(EnforcementError::Inconsistent("the cgroup is a session already".to_owned()));
        }
        told.last_session += 1;
        let generation = told.last_session;
        let slot = u32::try_from(generation).unwrap_or(u32::MAX);
        let mut session = Session::new_zeroed();
        session.version = 1;
        session.state = SESSION_LAUNCHING;
        session.agent = agent.0;
        session.generation = generation;
        session.id = id;
        session.cgroup = cgroup;
        session.tiers = tiers;
        told.sessions.insert(slot, session);
        let canary = told.agents.get(&agent).filter(|(name, _)| name == "enforcer-canary");
        if let Some(policy) = canary.map(|(_, policy)| (policy >> 32) as u32).filter(|_| !told.mute) {
            // What it will be refused.
            let record = refusal(agent, policy, session.id);
            told.records.push(record);
        }
        Ok(SessionRef { slot, generation, id })
    }

    fn sessions(&self) -> Result<Vec<SessionEntry>, EnforcementError> {
        let told = self.0.borrow();
        Ok(told
            .sessions
            .iter()
            .map(|(slot, session)| SessionEntry { slot: *slot, session: *session })
            .collect())
    }

    fn end_session(&mut self, slot: u32, generation: u64) -> Result<(), EnforcementError> {
        let mut told = self.0.borrow_mut();
        if told.sessions.get(&slot).is_some_and(|session| session.generation == generation) {
            told.sessions.remove(&slot);
        }
        Ok(())
    }

    fn refill_seeds(
        &mut self,
        _: TierMap,
        tiers_of: &dyn Fn(AgentSlot) -> TierMap,
    ) -> Result<(), EnforcementError> {
        let _ = tiers_of(AgentSlot(0));
        Ok(())
    }

    fn set_tiers(&mut self, tiers_of: &dyn Fn(AgentSlot) -> Option<TierMap>) -> Result<(), EnforcementError> {
        for session in self.0.borrow_mut().sessions.values_mut() {
            if let Some(tiers) = tiers_of(AgentSlot(session.agent)) {
                session.tiers = tiers;
            }
        }
        Ok(())
    }

    fn lift(&mut self, agents: &[AgentSlot], until: u64) -> Result<(), EnforcementError> {
        let mut told = self.0.borrow_mut();
        told.lifted.retain(|slot, _| !agents.contains(slot));
        told.lifted.extend(agents.iter().filter(|_| until != 0).map(|slot| (*slot, until)));
        Ok(())
    }

    fn lifted(&self) -> Result<Vec<(AgentSlot, u64)>, EnforcementError> {
        Ok(self.0.borrow().lifted.iter().map(|(slot, until)| (*slot, *until)).collect())
    }

    fn set_roots(&mut self, roots: &[RootSetting]) -> Result<(), EnforcementError> {
        self.0.borrow_mut().roots = roots.to_vec();
        Ok(())
    }

    fn set_agent_socket(&mut self, file: Option<FileId>) {
        self.0.borrow_mut().agent_socket = file;
    }

    fn set_executors(&mut self, executors: &[PathBuf]) -> Result<(), EnforcementError> {
        self.0.borrow_mut().executors = executors.to_vec();
        Ok(())
    }

    fn lost(&self) -> Result<Vec<(AgentSlot, u64, u64)>, EnforcementError> {
        Ok(self.0.borrow().lost.iter().map(|(slot, (d, a))| (*slot, *d, *a)).collect())
    }

    fn folded(&self) -> Result<Vec<(AgentSlot, u64)>, EnforcementError> {
        Ok(self.0.borrow().folded.iter().map(|(slot, count)| (*slot, *count)).collect())
    }

    fn drain(&mut self, most: usize, f: &mut dyn FnMut(&[u8])) -> Result<usize, EnforcementError> {
        let flood = self.0.borrow().flood.clone();
        if let Some(record) = flood {
            (0..most).for_each(|_| f(&record));
            return Ok(most);
        }
        let records: Vec<Vec<u8>> = {
            let waiting = &mut self.0.borrow_mut().records;
            let count = waiting.len().min(most);
            waiting.drain(..count).collect()
        };
        records.iter().for_each(|record| f(record));
        Ok(records.len())
    }

    fn ring_fds(&self) -> Vec<RawFd> {
        Vec::new()
    }

    fn health(&self) -> Health {
        let hook = Hook { name: "file_open".to_owned(), required: true, attached: true, note: String::new() };
        let mut health = self.0.borrow().health.clone();
        (health.generation, health.hooks) = (1, [vec![hook], health.hooks].concat());
        health
    }

    fn holds(&self) -> Result<Vec<(HoldId, Hold)>, EnforcementError> {
        Ok(self.0.borrow().holds.iter().map(|(id, hold)| (*id, *hold)).collect())
    }

    fn hold(&self, id: HoldId) -> Result<Option<Hold>, EnforcementError> {
        Ok(self.0.borrow().holds.get(&id).copied())
    }

    fn waits(&self) -> u64 {
        self.0.borrow().waits
    }

    fn waiters(&self) -> Result<Vec<(WaiterKey, Waiter)>, EnforcementError> {
        Ok(self.0.borrow().waiters.clone())
    }

    fn set_hold_open(&mut self, id: HoldId, until: u64, wait: bool) -> Result<bool, EnforcementError> {
        self.change_open(id, if wait { WAITING } else { ASKED }, 0, until)
    }

    fn grant(&mut self, id: HoldId, uses: u32, until: u64) -> Result<bool, EnforcementError> {
        self.change_open(id, GRANTED, uses, until)
    }

    fn refuse_hold(&mut self, id: HoldId, until: u64) -> Result<bool, EnforcementError> {
        let mut told = self.0.borrow_mut();
        let Some(hold) = told.holds.get_mut(&id) else { return Ok(false) };
        (hold.word, hold.deadline) = (Word::new(id, REFUSED, 0).0, until);
        Ok(true)
    }

    fn forget_hold(&mut self, id: HoldId) -> Result<(), EnforcementError> {
        self.0.borrow_mut().holds.remove(&id);
        Ok(())
    }

    fn forget_waiter(&mut self, key: WaiterKey) -> Result<(), EnforcementError> {
        self.0.borrow_mut().waiters.retain(|(other, _)| *other != key);
        Ok(())
    }

    fn set_hold_quota(&mut self, slot: u32, more: u32) -> Result<(), EnforcementError> {
        self.0.borrow_mut().quotas.insert(slot, more);
        Ok(())
    }

    fn wake(&mut self, waiter: WaiterKey) -> Result<(), EnforcementError> {
        let mut told = self.0.borrow_mut();
        told.woken.push(waiter);
        told.woken_at.push(std::time::Instant::now());
        Ok(())
    }
}

impl Fake {
    fn change_open(
        &mut self,
        id: HoldId,
        state: u8,
        uses: u32,
        until: u64,
    ) -> Result<bool, EnforcementError> {
        let mut told = self.0.borrow_mut();
        let Some(hold) = told.holds.get_mut(&id) else { return Ok(false) };
        if !matches!(Word(hold.word).state(), WAITING | ASKED) {
            return Ok(false);
        }
        (hold.word, hold.deadline) = (Word::new(id, state, uses).0, until);
        Ok(true)
    }
}
