//! Whose task is this? Outsiders leave after one comparison; everybody else has a session, or no
//! rights at all.

pub use crate::gate::{has_storage, is_outside, is_stray};
use crate::{
    emit,
    gate::{Side, decides, side},
    hold, maps,
    object::{self, loosely},
};
use aya_ebpf::helpers::{
    bpf_get_current_pid_tgid, bpf_get_current_uid_gid,
    generated::{bpf_get_current_ancestor_cgroup_id, bpf_get_current_task_btf, bpf_ktime_get_boot_ns},
};
use enforcer_common::{
    event::{flag, kind},
    floor::IO_URING,
    limits,
    map::{
        Agent, EXECUTOR_HELPER, LABEL_LAUNCHING, LABEL_LOADED, LABEL_ONCE, Label, MODE_AUDIT, NO_SESSION,
        Policy, ROOT_SHARED, SESSION_HAS_RINGS, SESSION_LAUNCHING, Session, StrayKey, TierMap, waiting,
    },
};

/// A governed task. Null pointers mean that it has no rights.
#[derive(Clone, Copy)]
pub struct Subject {
    /// The session, or null.
    pub session: *const Session,
    /// The policy in force, or null.
    pub policy: *const Policy,
    /// Slot of the policy.
    pub slot: u32,
    /// See [`Label::mount_namespace`].
    pub namespace: u64,
    /// See [`Label::flags`].
    pub flags: u32,
    /// See [`Label::slot`].
    pub label: u32,
}

impl Subject {
    /// Governed, and without rights.
    pub const NOBODY: Self = Self {
        session: core::ptr::null(),
        policy: core::ptr::null(),
        slot: 0,
        namespace: 0,
        flags: 0,
        label: NO_SESSION,
    };

    /// Still preparing: came from outside, runs a named executor and has not executed anything else.
    #[inline(always)]
    pub fn launching(&self) -> bool {
        self.flags & LABEL_LAUNCHING != 0
    }

    /// Whether executing another named executor leaves it launching: a runtime's does, as long as it
    /// is root; the launch helper's first exec is the entry point.
    #[inline(always)]
    pub fn stays_launching(&self) -> bool {
        self.flags & LABEL_ONCE == 0 && bpf_get_current_uid_gid() as u32 == 0
    }

    /// Whether rules only record what they would refuse: flags that say so and why, or 0. Asked when something
    /// would be refused, never on the way of what is allowed.
    #[inline(always)]
    pub fn audits(&self) -> u16 {
        if self.policy.is_null() {
            return 0;
        }
        // SAFETY: both are map values.
        unsafe {
            if (*self.policy).mode == MODE_AUDIT {
                return flag::WOULD;
            }
            if !self.session.is_null() && is_lifted((*self.session).agent.into()) != 0 {
                return flag::WOULD | flag::BREAK_GLASS;
            }
        }
        0
    }

    /// Whether the policy changes this of the floor: a bit of [`enforcer_common::floor`].
    #[inline(always)]
    pub fn has(&self, item: u32) -> bool {
        // SAFETY: a policy's pointer is a map value.
        !self.policy.is_null() && unsafe { (*self.policy).floor } & item != 0
    }

    /// Whether the running task acts with credentials that the kernel's own code has lent it for a step, so that what it does
    /// was judged already. Rings lend their users credentials too, theirs of earlier, and are there still when no policy
    /// allows them any more.
    #[inline(always)]
    pub fn acts_for_others(&self) -> bool {
        if !object::borrows_credentials(task()) || self.has(IO_URING) || self.session.is_null() {
            return false;
        }
        // SAFETY: a session's pointer is a map value.
        unsafe { core::ptr::read_volatile(&raw const (*self.session).flags) & SESSION_HAS_RINGS == 0 }
    }

    /// Notes that somebody in the session may make a ring.
    #[inline(always)]
    pub fn note_ring(&self) {
        if let Some(session) = maps::SESSIONS.get_ptr_mut(self.label) {
            // SAFETY: a map value, of which nobody else writes this word while the session is there.
            unsafe { core::ptr::write_volatile(&raw mut (*session).flags, SESSION_HAS_RINGS) };
        }
    }

    /// Whether the policy grants a capability.
    #[inline(always)]
    pub fn may_use(&self, capability: u32) -> bool {
        // SAFETY: as above.
        !self.policy.is_null() && unsafe { (*self.policy).capabilities } >> (capability & 63) & 1 != 0
    }

    /// What each tier becomes.
    #[inline(always)]
    pub fn tiers(&self) -> TierMap {
        if self.session.is_null() {
            return TierMap { allow: [0; 3], hold: [0; 3], level: 0 };
        }
        // SAFETY: a session's pointer is a map value.
        unsafe { (*self.session).tiers }
    }
}

/// The running task as a subject, or `None` for an outsider.
///
/// Nearly always it has a label, and everything that this leads to is as it should be; or it is an outsider.
#[inline(always)]
pub fn current() -> Option<Subject> {
    let task = task();
    if let Some(found) = at_once(task) {
        return Some(found);
    }
    if is_outside() {
        return None;
    }
    governed()
}

/// The running task as a subject with a session and a policy. `None` says nothing.
///
/// As long as no labelled task has ever left the roots, a label says enough, and where its bearer lives is not asked.
#[inline(always)]
fn at_once(task: *const u8) -> Option<Subject> {
    if !has_storage(task) {
        return None;
    }
    let gate = maps::gate();
    // SAFETY: labels, sessions, agents and policies are map values; indices are checked by the lookup.
    unsafe {
        if core::ptr::read_volatile(&raw const (*gate).strays) != 0 || !decides(gate) {
            return None;
        }
        let label = maps::LABELS.of(task);
        if label.is_null() {
            return None;
        }
        let session = maps::SESSIONS.get_ptr((*label).slot)?;
        if (*session).version != 1 || (*session).generation != (*label).generation {
            return None;
        }
        let agent = maps::AGENTS.get_ptr((*session).agent)?;
        let word = core::ptr::read_volatile(&raw const (*agent).policy);
        let policy = maps::POLICIES.get_ptr(word as u32)?;
        if (*policy).version != 1 || (*policy).id != (word >> 32) as u32 {
            return None;
        }
        Some(Subject {
            session,
            policy,
            slot: word as u32,
            namespace: (*label).mount_namespace,
            flags: (*label).flags,
            label: (*label).slot,
        })
    }
}

/// Whether these programs are the generation that decides.
#[inline(always)]
pub fn decide() -> bool {
    // SAFETY: a map value.
    unsafe { decides(maps::gate()) }
}

/// Whether `number` is the running thread, or its process, in the initial namespace.
#[inline(always)]
pub fn is_current(number: u32) -> bool {
    let ids = bpf_get_current_pid_tgid();
    number == ids as u32 || number == (ids >> 32) as u32
}

/// How the running task stands to the roots, as a number.
mod standing {
    /// Not an agent's.
    pub(super) const OUTSIDE: u64 = 0;
    /// It has a label.
    pub(super) const LABELLED: u64 = 1;
    /// Below a root, without a label.
    pub(super) const UNLABELLED: u64 = 2;
    /// The same below a shared root.
    pub(super) const IN_SHARED: u64 = 3;
    /// Below no root, and only the second record says that it is an agent's.
    pub(super) const RECORDED: u64 = 4;
}

/// One of [`standing`].
#[inline(never)]
#[unsafe(no_mangle)]
pub extern "C" fn stands() -> u64 {
    let side = side();
    let label = maps::LABELS.of_current();
    match side {
        Side::Outside => standing::OUTSIDE,
        Side::Inside(_) if !label.is_null() => standing::LABELLED,
        Side::Inside(flags) if flags & ROOT_SHARED != 0 => standing::IN_SHARED,
        Side::Inside(_) => standing::UNLABELLED,
        Side::Perhaps => {
            let key = stray_key(task());
            let second = maps::STRAYS.get_ptr(key);
            if label.is_null() {
                // The storage may have been busy rather than empty: ask the second record.
                return if second.is_some() { standing::RECORDED } else { standing::OUTSIDE };
            }
            if second.is_none() {
                // A stray's child. No room only means that there is one record of it, not two.
                // SAFETY: a map value, copied.
                let _ = maps::STRAYS.insert(&key, unsafe { &*label }, 0);
            }
            standing::LABELLED
        }
    }
}

/// The running task as a subject, whatever it is.
#[inline(always)]
fn governed() -> Option<Subject> {
    let mut stands = stands();
    if stands == standing::UNLABELLED || stands == standing::IN_SHARED {
        // Only a cgroup that nobody claims is an outsider's, and only below a shared root.
        match admit() {
            admitted::LABELLED => stands = standing::LABELLED,
            admitted::NONE if stands == standing::IN_SHARED => return None,
            _ => return Some(Subject::NOBODY),
        }
    }
    let label = match stands {
        standing::LABELLED => maps::LABELS.of_current().cast_const(),
        standing::RECORDED => maps::STRAYS.get_ptr(stray_key(task())).unwrap_or(core::ptr::null()),
        _ => return None,
    };
    if label.is_null() { Some(Subject::NOBODY) } else { Some(subject(label)) }
}

/// The running task.
#[inline(always)]
pub fn task() -> *const u8 {
    // SAFETY: the helper always returns the running task.
    unsafe { bpf_get_current_task_btf() as *const u8 }
}

/// The key of a task's process among the strays.
#[inline(always)]
pub fn stray_key(task: *const u8) -> StrayKey {
    let leader = loosely::follow(task, &object::TASK_LEADER);
    StrayKey {
        tgid: object::number(task, &object::TASK_TGID),
        reserved: 0,
        started: loosely::large(leader, &object::TASK_START),
    }
}

#[inline(always)]
fn subject(label: *const Label) -> Subject {
    // SAFETY: labels, sessions, agents and policies are map values; indices are checked by the lookup.
    unsafe {
        // A label whose session has ended leaves its bearer governed and without rights.
        let Some(session) = maps::SESSIONS.get_ptr((*label).slot) else { return Subject::NOBODY };
        if (*session).version != 1 {
            return Subject::NOBODY;
        }
        if (*session).generation != (*label).generation {
            if waiting((*session).generation) != (*label).generation || hold::loaded_decided() == 0 {
                return Subject::NOBODY;
            }
        }
        let mut found = Subject {
            namespace: (*label).mount_namespace,
            flags: (*label).flags,
            label: (*label).slot,
            ..Subject::NOBODY
        };
        found.session = session;
        with_policy(found)
    }
}

/// The subject of the session in `slot`, which is known by its cgroup rather than by a label.
#[inline(always)]
pub fn in_session(slot: u32) -> Subject {
    // SAFETY: a map value; the index is checked by the lookup.
    unsafe {
        match maps::SESSIONS.get_ptr(slot) {
            Some(session) if (*session).version == 1 && slot != NO_SESSION => {
                with_policy(Subject { session, label: slot, ..Subject::NOBODY })
            }
            _ => Subject::NOBODY,
        }
    }
}

/// The subject with the policy in force of its session, if there is one.
#[inline(always)]
unsafe fn with_policy(mut found: Subject) -> Subject {
    // SAFETY: map values; indices are checked by the lookup.
    unsafe {
        let Some(agent) = maps::AGENTS.get_ptr((*found.session).agent) else { return found };
        let word = core::ptr::read_volatile(&raw const (*agent).policy);
        let Some(policy) = maps::POLICIES.get_ptr(word as u32) else { return found };
        if (*policy).version != 1 || (*policy).id != (word >> 32) as u32 {
            return found;
        }
        found.policy = policy;
        found.slot = word as u32;
        found
    }
}

/// The policy in force for a label's session, or null.
#[inline(always)]
pub fn policy_of(label: &Label) -> *const Policy {
    // SAFETY: map values.
    unsafe {
        let Some(session) = maps::SESSIONS.get_ptr(label.slot) else { return core::ptr::null() };
        in_force(session)
    }
}

/// The policy in force for a session's agent, or null.
#[inline(always)]
unsafe fn in_force(session: *const Session) -> *const Policy {
    // SAFETY: map values; indices are checked by the lookup.
    unsafe {
        let Some(agent) = maps::AGENTS.get_ptr((*session).agent) else { return core::ptr::null() };
        let word = core::ptr::read_volatile(&raw const (*agent).policy);
        let Some(policy) = maps::POLICIES.get_ptr(word as u32) else { return core::ptr::null() };
        if (*policy).version != 1 || (*policy).id != (word >> 32) as u32 {
            return core::ptr::null();
        }
        policy
    }
}

/// What becomes of a task without a label.
mod admitted {
    /// No cgroup above it is anybody's session.
    pub(super) const NONE: u64 = 0;
    /// It has a label now.
    pub(super) const LABELLED: u64 = 1;
    /// It belongs to somebody, but that could not be noted.
    pub(super) const FAILED: u64 = 2;
}

/// Labels the running task, which lives below a root, with the session of its nearest cgroup that
/// has one. Returns one of [`admitted`].
///
/// A task without a label inside a session came from outside: its creator would have passed the
/// label on (`task_alloc`), or would have been refused.
#[inline(never)]
#[unsafe(no_mangle)]
pub extern "C" fn admit() -> u64 {
    const NOT_FOUND: u32 = u32::MAX;
    let mut slot = NOT_FOUND;
    // SAFETY: map values and the running task, read only.
    unsafe {
        // From the deepest level up, so that the nearest session is found first.
        let mut level = limits::SESSION_LEVEL;
        while level > 0 {
            let id = bpf_get_current_ancestor_cgroup_id(level as i32);
            if id != 0
                && let Some(found) = maps::SESSION_OF.get_ptr(id)
            {
                slot = *found;
                break;
            }
            level -= 1;
        }
        if slot == NOT_FOUND {
            return admitted::NONE;
        }
        // A policy names the cgroup, but there was no session left for it.
        if slot == NO_SESSION {
            return admitted::FAILED;
        }
        let Some(session) = maps::SESSIONS.get_ptr(slot) else { return admitted::FAILED };
        let task = task();
        let mut label = Label { slot, flags: 0, generation: (*session).generation, mount_namespace: 0 };
        let exe = loosely::follow(loosely::follow(task, &object::TASK_MM), &object::MM_EXE);
        let executor = object::file_id(loosely::follow(exe, &object::FILE_INODE));
        match maps::EXECUTORS.get_ptr(executor) {
            Some(kind) if bpf_get_current_uid_gid() as u32 == 0 => {
                label.flags =
                    if *kind == EXECUTOR_HELPER { LABEL_LAUNCHING | LABEL_ONCE } else { LABEL_LAUNCHING };
            }
            _ => label.mount_namespace = mount_namespace(task),
        }
        if maps::LABELS.set(task, &label).is_null() {
            return admitted::FAILED;
        }
        emit::activity(kind::ENTERED, slot);
        admitted::LABELLED
    }
}

/// The mount namespace of `task`, as an address that is only compared.
#[inline(always)]
pub fn mount_namespace(task: *const u8) -> u64 {
    let proxy = loosely::follow(task, &object::TASK_NSPROXY);
    loosely::follow(proxy, &object::NSPROXY_MOUNT) as u64
}

/// Ends the launching of the running task: from now on its policy decides, and names are read in
/// the mount namespace that it has now.
#[inline(always)]
pub fn arm(subject: &mut Subject) {
    let label = maps::LABELS.of_current();
    if label.is_null() {
        // No label, no rights: the caller refuses.
        *subject = Subject::NOBODY;
        return;
    }
    // SAFETY: map values.
    unsafe {
        (*label).mount_namespace = mount_namespace(task());
        (*label).flags &= !(LABEL_LAUNCHING | LABEL_ONCE);
        subject.namespace = (*label).mount_namespace;
        subject.flags = (*label).flags;
        if let Some(session) = maps::SESSIONS.get_ptr_mut((*label).slot)
            && (*session).state == SESSION_LAUNCHING
        {
            (*session).armed_at = bpf_ktime_get_boot_ns();
            (*session).state = enforcer_common::map::SESSION_ARMED;
            emit::activity(kind::SESSION_ARMED, (*label).slot);
        }
    }
}

/// Whether `task` (a pointer that the verifier knows) is an armed task of the same session.
#[inline(always)]
pub fn is_companion(subject: &Subject, task: *const u8) -> bool {
    let label = maps::LABELS.of(task);
    if label.is_null() || subject.session.is_null() {
        return false;
    }
    // SAFETY: map values.
    unsafe {
        (*label).generation == (*subject.session).generation
            && (*label).flags & (LABEL_LAUNCHING | LABEL_LOADED) == 0
    }
}

/// Whether `task` would be a companion if its program did not wait for the verdict on its arguments.
#[inline(always)]
pub fn is_waiting_companion(subject: &Subject, task: *const u8) -> bool {
    let label = maps::LABELS.of(task);
    if label.is_null() || subject.session.is_null() {
        return false;
    }
    // SAFETY: map values.
    unsafe {
        let own = (*subject.session).generation;
        ((*label).generation == own || (*label).generation == waiting(own))
            && (*label).flags & (LABEL_LAUNCHING | LABEL_LOADED) == LABEL_LOADED
    }
}

/// Whether break-glass is in force for the agent with this entry. The kernel's clock decides: it is over in time,
/// daemon or no daemon.
#[inline(never)]
#[unsafe(no_mangle)]
pub extern "C" fn is_lifted(agent: u64) -> u64 {
    let Some(agent) = maps::AGENTS.get_ptr_mut(agent as u32) else { return 0 };
    // SAFETY: a map value; the daemon writes this word.
    let until = unsafe { core::ptr::read_volatile(&raw const (*agent).lifted_until) };
    // SAFETY: the helper takes nothing.
    u64::from(until != 0 && unsafe { bpf_ktime_get_boot_ns() } < until)
}

/// The agent's entry, for counting what could not be recorded.
#[inline(always)]
pub fn agent_of(session: *const Session) -> Option<*mut Agent> {
    if session.is_null() {
        return None;
    }
    // SAFETY: a map value.
    maps::AGENTS.get_ptr_mut(unsafe { (*session).agent })
}
