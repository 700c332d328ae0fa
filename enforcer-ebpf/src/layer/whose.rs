//! Whose task or packet this is: the session of the nearest cgroup that has one.

use crate::{
    gate::{decides, is_replaced},
    maps,
    subject::{self, Subject},
};
use aya_ebpf::{
    bindings::__sk_buff,
    helpers::generated::{
        bpf_get_current_ancestor_cgroup_id, bpf_get_current_cgroup_id, bpf_skb_ancestor_cgroup_id,
        bpf_skb_cgroup_id,
    },
};
use enforcer_common::{
    limits,
    map::{NO_SESSION, ROOT_SHARED},
};

/// What [`session_here`] says beside the slot of a session.
mod here {
    /// Nobody's task, or not for these programs to decide.
    pub(super) const OUTSIDE: u64 = 1 << 32;
    /// The same, because no root is above.
    pub(super) const BELOW_NO_ROOT: u64 = OUTSIDE | 1;
    /// Beside a slot: the task lives outside every root.
    pub(super) const STRAY: u64 = 1 << 33;
}

/// The running task, if rules apply to it. A launching task cannot be told yet: see [`super::may_be_launching`].
#[inline(always)]
pub fn governed() -> Option<Subject> {
    let found = session_here();
    if found & here::OUTSIDE != 0 {
        return None;
    }
    let mut subject = subject::in_session(found as u32);
    // No other flag is of use here.
    subject.flags = (found >> 33) as u32 & 1;
    Some(subject)
}

/// The session of the nearest cgroup that has one. Slot 0 is a governed task that has none.
#[inline(never)]
#[unsafe(no_mangle)]
pub extern "C" fn session_here() -> u64 {
    let found = session_of(Task);
    // SAFETY: map values and the running task, read only.
    unsafe {
        // Somebody outside uses a socket that was made inside, or an agent's process was moved out.
        if found != here::BELOW_NO_ROOT || (*maps::gate()).strays == 0 {
            return found;
        }
        let key = subject::stray_key(subject::task());
        let Some(label) = maps::STRAYS.get_ptr(key) else { return here::OUTSIDE };
        match maps::SESSIONS.get_ptr((*label).slot) {
            Some(session) if (*session).generation == (*label).generation => {
                u64::from((*label).slot) | here::STRAY
            }
            _ => u64::from(NO_SESSION) | here::STRAY,
        }
    }
}

/// Something that lives in a cgroup.
trait Member: Copy {
    /// The cgroup's id, or 0.
    fn cgroup(self) -> u64;
    /// The id of the cgroup at this level above it, or 0.
    fn ancestor(self, level: i32) -> u64;
}

/// The running task.
#[derive(Clone, Copy)]
struct Task;

impl Member for Task {
    #[inline(always)]
    fn cgroup(self) -> u64 {
        // SAFETY: the helper takes nothing.
        unsafe { bpf_get_current_cgroup_id() }
    }

    #[inline(always)]
    fn ancestor(self, level: i32) -> u64 {
        // SAFETY: the helper takes a number.
        unsafe { bpf_get_current_ancestor_cgroup_id(level) }
    }
}

/// The socket of a packet, which lives where it was made.
#[derive(Clone, Copy)]
struct Sender(*mut __sk_buff);

impl Member for Sender {
    #[inline(always)]
    fn cgroup(self) -> u64 {
        // SAFETY: the context is the kernel's.
        unsafe { bpf_skb_cgroup_id(self.0) }
    }

    #[inline(always)]
    fn ancestor(self, level: i32) -> u64 {
        // SAFETY: as above.
        unsafe { bpf_skb_ancestor_cgroup_id(self.0, level) }
    }
}

/// Whose packet this is, if rules apply to them: the session in whose cgroup the socket was made, whoever sends.
#[inline(always)]
pub fn sender(packet: *mut __sk_buff) -> Option<Subject> {
    let found = session_of(Sender(packet));
    if found & here::OUTSIDE != 0 { None } else { Some(subject::in_session(found as u32)) }
}

#[inline(always)]
fn session_of(member: impl Member) -> u64 {
    let gate = maps::gate();
    // SAFETY: map values, read only.
    unsafe {
        if !decides(gate) || is_replaced() {
            return here::OUTSIDE;
        }
        // Most sessions are one cgroup.
        if let Some(slot) = maps::SESSION_OF.get_ptr(member.cgroup()) {
            return u64::from(*slot);
        }
        let mut level = limits::SESSION_LEVEL;
        while level > 0 {
            let id = member.ancestor(level as i32);
            if id != 0
                && let Some(slot) = maps::SESSION_OF.get_ptr(id)
            {
                return u64::from(*slot);
            }
            level -= 1;
        }
        let mut i = 0;
        while i < limits::ROOTS {
            let root = &raw const (*gate).root[i];
            if (*root).level == 0 {
                break;
            }
            let id = member.ancestor((*root).level as i32);
            if id != 0 && id == (*root).id {
                return if (*root).flags & ROOT_SHARED != 0 { here::OUTSIDE } else { u64::from(NO_SESSION) };
            }
            i += 1;
        }
    }
    here::BELOW_NO_ROOT
}
