//! What the daemon asks of the kernel. `kernel/` implements it; tests use a fake in memory.

use crate::cli::exit::{Exit, Failure};
use crate::policy::{Image, LinkedFile, ValidPolicy};
use enforcer_common::hold::{Hold, HoldId, Waiter, WaiterKey};
use enforcer_common::map::{FileId, Session, TierMap};
use std::{collections::BTreeMap, io, os::fd::RawFd, path::PathBuf};

/// An entry of the agents map.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct AgentSlot(pub u32);

/// A policy that is in force.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct PublishedPolicy {
    /// Never reused while live; what ring records name.
    pub id: u32,
    /// Entry of the policies map.
    pub slot: u32,
    /// Where the image lies in the arena: states in ring records are offsets from the arena's start.
    pub base: u32,
    /// SHA-256 of the compiled tables, as read back.
    pub image_digest: [u8; 32],
}

/// A session, safe against reuse of its slot.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct SessionRef {
    /// Entry of the sessions map.
    pub slot: u32,
    /// Never repeats.
    pub generation: u64,
    /// The 128-bit id.
    pub id: [u64; 2],
}

/// A session that exists, and where.
#[derive(Clone, Copy, Debug)]
pub struct SessionEntry {
    /// Entry of the sessions map.
    pub slot: u32,
    /// What the map says.
    pub session: Session,
}

/// A cgroup below which agents live.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct RootSetting {
    /// Path in the cgroup hierarchy, `/agents.slice`.
    pub path: String,
    /// A child that no session claims is an outsider.
    pub shared: bool,
}

/// A root to whose cgroup the second layer on the network was attached.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Followed {
    /// Its path in the cgroup hierarchy.
    pub root: String,
    /// Id of the cgroup that stands there.
    pub cgroup: u64,
}

/// Begins the names of the entries among the hooks that stand for the second layer on the network, one for each root.
pub const NETWORK_LAYER: &str = "network layer of ";

/// Begins the names of the entries among the hooks that stand for rare system calls, one for each.
pub const SYSTEM_CALLS: &str = "system call ";

/// A function of a rare system call that the kernel does not let be watched.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Unwatched {
    /// The call.
    pub call: &'static str,
    /// The kernel's function.
    pub function: String,
    /// What the kernel said.
    pub because: String,
}

/// One hook of the kernel.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Hook {
    /// Its name, `file_open`.
    pub name: String,
    /// Whether there is no enforcement without it.
    pub required: bool,
    /// Whether our program is attached to it, in the active generation.
    pub attached: bool,
    /// Why not, or what stands in for it.
    pub note: String,
}

/// How full a table is.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Usage {
    /// The table.
    pub name: String,
    /// Entries or bytes in use.
    pub used: u64,
    /// Entries or bytes there are.
    pub room: u64,
}

/// What the kernel side says about itself.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Health {
    /// Generation of the programs that decide.
    pub generation: u32,
    /// Every hook that the daemon knows, but for those that are still to be attached.
    pub hooks: Vec<Hook>,
    /// Rare system calls whose programs are loaded and still to be attached, by name.
    pub waiting: Vec<String>,
    /// Programs that the kernel has left out since the daemon started because they were running already, and how
    /// often.
    pub missed: BTreeMap<String, u64>,
    /// How often programs ran, and for how many nanoseconds in all, while the kernel counted that.
    pub timed: BTreeMap<String, (u64, u64)>,
    /// Pinned tables and programs that are not where they were pinned.
    pub pins_gone: Vec<String>,
    /// Every table that can fill up.
    pub usage: Vec<Usage>,
}

/// Files of several names that a policy has to know.
#[derive(Clone, Copy, Debug)]
pub enum Linked<'a> {
    /// These, and no others.
    Known(&'a [LinkedFile]),
    /// More than there is room for: whatever has several names is refused.
    TooMany,
}

impl<'a> Linked<'a> {
    /// What becomes of these files, with so much room; and why not all are known, if they are not.
    pub fn new(files: &'a [LinkedFile], room: usize) -> (Self, Option<String>) {
        let most = room.min(enforcer_common::limits::LINKS_OF_ONE);
        if files.len() <= most {
            return (Self::Known(files), None);
        }
        let why = format!(
            "{} files that it denies or holds have other names, and there is room for {most}: whatever has several names \
             is refused; remove links, and publish again",
            files.len()
        );
        (Self::TooMany, Some(why))
    }

    /// Those that are known.
    pub fn files(self) -> &'a [LinkedFile] {
        match self {
            Self::Known(files) => files,
            Self::TooMany => &[],
        }
    }
}

/// Why the kernel side did not do what was asked. Whatever was in force stays in force.
#[derive(Debug, thiserror::Error)]
pub enum EnforcementError {
    /// No room.
    #[error("{what} is full: {limit} is all there is")]
    Full {
        /// The table.
        what: String,
        /// Its size.
        limit: u64,
    },
    /// The agent or session does not exist (any more).
    #[error("{0} does not exist")]
    Gone(String),
    /// This kernel cannot do it.
    #[error("{0}")]
    Unsupported(String),
    /// A system call failed.
    #[error("{what}: {source}")]
    Kernel {
        /// What was tried.
        what: String,
        /// What the kernel said.
        source: io::Error,
    },
    /// What was read back is not what was written, or a table is not as it must be.
    #[error("{0}")]
    Inconsistent(String),
}

/// Why enforcement cannot start.
#[derive(Debug, thiserror::Error)]
#[error("{message}")]
pub struct StartError {
    /// What kind of thing is missing; it becomes the exit code.
    pub cause: StartCause,
    /// What is missing, naming it.
    pub message: String,
    /// What an operator can do about it.
    pub remedy: String,
}

/// What kind of thing is missing at the start.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum StartCause {
    /// The kernel has no BPF LSM, BTF, required hook or supported version, or rejects a program.
    Kernel,
    /// The kernel refuses it to this user.
    Permission,
    /// Pins of another version or without sense.
    Pins,
    /// A fault of the program itself.
    Internal,
}

impl From<StartError> for Failure {
    fn from(error: StartError) -> Self {
        let exit = match error.cause {
            StartCause::Kernel => Exit::Kernel,
            StartCause::Permission => Exit::Permission,
            StartCause::Pins | StartCause::Internal => Exit::Internal,
        };
        Failure::new(exit, error.message, error.remedy)
    }
}

/// The kernel side. Every method either does all of what it says or changes nothing.
pub trait Enforcement {
    /// Loads a compiled policy under a new id, with the files of several names that it stops, reads it back,
    /// tells `before` about it and makes it the agent's with one write.
    fn publish(
        &mut self,
        agent: AgentSlot,
        name: &str,
        policy: &ValidPolicy,
        image: &Image,
        links: Linked<'_>,
        before: &mut dyn FnMut(&PublishedPolicy),
    ) -> Result<PublishedPolicy, EnforcementError>;

    /// How many files of several names there is room for.
    fn room_for_links(&self) -> usize;

    /// Adds files with several names to those that a policy stops. Those that it has stay.
    fn add_links(
        &mut self,
        policy: &PublishedPolicy,
        image: &Image,
        links: Linked<'_>,
    ) -> Result<(), EnforcementError>;

    /// Replaces the table that maps cgroup paths to agents.
    fn publish_matcher(&mut self, image: &Image) -> Result<(), EnforcementError>;

    /// Takes an agent's policy away: its sessions are refused everything from now on.
    fn retire(&mut self, agent: AgentSlot) -> Result<(), EnforcementError>;

    /// The agents that the kernel knows: slot, name, policy in force (id and slot, or 0).
    fn agents(&self) -> Result<Vec<(AgentSlot, String, u64)>, EnforcementError>;

    /// The policies that the kernel holds: id and digest of the canonical policy.
    fn policies(&self) -> Result<Vec<(u32, [u8; 32])>, EnforcementError>;

    /// What tells these tables from any others: after a reboot, or when the pins were removed, ids start
    /// again.
    fn tables(&self) -> &str;

    /// Makes the cgroup a session of the agent with this id, launching. Fails where it is a session already.
    fn bind_session(
        &mut self,
        cgroup: u64,
        id: [u64; 2],
        agent: AgentSlot,
        tiers: TierMap,
    ) -> Result<SessionRef, EnforcementError>;

    /// Every session that exists.
    fn sessions(&self) -> Result<Vec<SessionEntry>, EnforcementError>;

    /// Frees a session. One that is not there any more is not an error.
    fn end_session(&mut self, slot: u32, generation: u64) -> Result<(), EnforcementError>;

    /// Fills up the kernel's pool of free sessions, which begin with `first`, and gives those that the kernel
    /// has bound by itself the tiers of their agent.
    fn refill_seeds(
        &mut self,
        first: TierMap,
        tiers_of: &dyn Fn(AgentSlot) -> TierMap,
    ) -> Result<(), EnforcementError>;

    /// Gives sessions that exist other tiers, where `tiers_of` says so about their agent. Meanwhile no call is
    /// let through that neither the old nor the new tiers would.
    fn set_tiers(&mut self, tiers_of: &dyn Fn(AgentSlot) -> Option<TierMap>) -> Result<(), EnforcementError>;

    /// Until then (nanoseconds of boot time) what the agents' rules refuse goes on and is recorded; 0: from now on it
    /// is refused. The kernel ends it by itself.
    fn lift(&mut self, agents: &[AgentSlot], until: u64) -> Result<(), EnforcementError>;

    /// The agents for which that was said and not taken back, and until when: it may be over.
    fn lifted(&self) -> Result<Vec<(AgentSlot, u64)>, EnforcementError>;

    /// Says below which cgroups agents live.
    fn set_roots(&mut self, roots: &[RootSetting]) -> Result<(), EnforcementError>;

    /// Attaches what belongs to the roots' cgroups and is missing there: a root that was made anew has lost it. Says to
    /// which roots something was attached since the last time.
    fn follow_roots(&mut self) -> Vec<Followed> {
        Vec::new()
    }

    /// Attaches some of what is loaded and may wait. Called every second.
    fn attach_more(&mut self) {}

    /// What turned out not to be watchable since the last time.
    fn take_unwatched(&mut self) -> Vec<Unwatched> {
        Vec::new()
    }

    /// Programs of this build that an earlier daemon had attached and that had been detached or unpinned when this one
    /// started. They are attached again.
    fn brought_back(&self) -> Vec<String> {
        Vec::new()
    }

    /// Says which programs may prepare a session. Those that do not exist are left out.
    fn set_executors(&mut self, executors: &[PathBuf]) -> Result<(), EnforcementError>;

    /// Says which file is the socket at which sessions ask about themselves; `None`: there is none.
    fn set_agent_socket(&mut self, file: Option<FileId>);

    /// Per agent: decisions and activity records that the rings could not take, since the maps exist.
    fn lost(&self) -> Result<Vec<(AgentSlot, u64, u64)>, EnforcementError>;

    /// Per agent: refusals that were a further check of a system call whose refusal is recorded already, since the
    /// maps exist.
    fn folded(&self) -> Result<Vec<(AgentSlot, u64)>, EnforcementError>;

    /// Per agent: rare system calls beyond those that are recorded in a second, since the maps exist.
    fn calls_beyond(&self) -> Result<Vec<(AgentSlot, u64)>, EnforcementError> {
        Ok(Vec::new())
    }

    /// Hands waiting records to `f`, in order per ring, and says how many there were. Fewer than `most`: no
    /// ring has any more.
    fn drain(&mut self, most: usize, f: &mut dyn FnMut(&[u8])) -> Result<usize, EnforcementError>;

    /// Lets go of memory that only reading records takes, if none came since the last time. Whether there was any.
    fn rest(&mut self) -> bool {
        false
    }

    /// The rings' descriptors: readable when there is something to drain.
    fn ring_fds(&self) -> Vec<RawFd>;

    /// What the kernel side says about itself.
    fn health(&self) -> Health;

    /// Everything that has been asked for and is not forgotten yet.
    fn holds(&self) -> Result<Vec<(HoldId, Hold)>, EnforcementError>;

    /// What is known of one of them; `None`: nothing.
    fn hold(&self, id: HoldId) -> Result<Option<Hold>, EnforcementError>;

    /// Requests that were put and threads that began to wait, ever.
    fn waits(&self) -> u64;

    /// The threads that wait.
    fn waiters(&self) -> Result<Vec<(WaiterKey, Waiter)>, EnforcementError>;

    /// Says until when (nanoseconds of boot time) a request that nobody has answered is open, and whether its
    /// callers wait or are refused meanwhile. One that was answered stays as it is: `false`.
    fn set_hold_open(&mut self, id: HoldId, until: u64, wait: bool) -> Result<bool, EnforcementError>;

    /// Lets `uses` calls pass until `until`, if the request is still open: else `false`.
    fn grant(&mut self, id: HoldId, uses: u32, until: u64) -> Result<bool, EnforcementError>;

    /// Refuses the request, and its repetitions until `until`. Ends a grant, too. `false`: it is not there.
    fn refuse_hold(&mut self, id: HoldId, until: u64) -> Result<bool, EnforcementError>;

    /// Forgets a request or grant. One that is not there any more is not an error.
    fn forget_hold(&mut self, id: HoldId) -> Result<(), EnforcementError>;

    /// Forgets a thread that does not exist any more.
    fn forget_waiter(&mut self, key: WaiterKey) -> Result<(), EnforcementError>;

    /// Says how many new requests the session in `slot` may still make.
    fn set_hold_quota(&mut self, slot: u32, more: u32) -> Result<(), EnforcementError>;

    /// Lets a stopped process go on, so that its call is judged again. Another process that has got the same
    /// id since is left alone; one that is gone is not an error.
    fn wake(&mut self, waiter: WaiterKey) -> Result<(), EnforcementError>;
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::policy::LinkedFile;
    use enforcer_common::{limits::LINKS_OF_ONE, map::Masks};

    #[test]
    fn files_that_there_is_no_room_for_are_none_that_are_known() {
        let one = LinkedFile { device: 1, inode: 1, path: Vec::new(), masks: Masks::NONE };
        let many = vec![one; LINKS_OF_ONE + 1];
        let known = |files: &[LinkedFile], room| match Linked::new(files, room) {
            (Linked::Known(files), None) => Some(files.len()),
            (Linked::TooMany, Some(why)) => {
                assert!(why.contains("remove links"), "{why}");
                None
            }
            other => panic!("{other:?}"),
        };
        assert_eq!(known(&many[1..], usize::MAX), Some(LINKS_OF_ONE));
        assert_eq!(known(&many, usize::MAX), None);
        assert_eq!((known(&many[..3], 3), known(&many[..3], 2)), (Some(3), None));
        assert!(Linked::TooMany.files().is_empty());
    }
}
