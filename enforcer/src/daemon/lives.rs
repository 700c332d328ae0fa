//! The daemon's own start, and sessions from their binding to their end: what is said of them besides what they do.

use super::{
    core::{Core, boot_time},
    enforcement::{AgentSlot, EnforcementError, SessionRef},
    sessions::container,
    sweep,
};
use crate::{
    event::{
        decode::{Event, Kind},
        json::{Launcher, SessionNote},
        text::session_id,
    },
    launch::cgroup,
    settings::{Root, Settings},
};
use enforcer_common::map::TierMap;
use serde_json::{Value, json};
use std::path::PathBuf;

impl Core {
    /// Records that the daemon has started: what it found in the kernel, and what the log had last.
    pub fn say_started(&mut self) {
        let health = self.enforcement.health();
        let missing = health.hooks.iter().filter(|hook| !hook.attached);
        let missing: Vec<Value> = missing
            .map(|hook| json!({"name": hook.name, "required": hook.required, "note": hook.note}))
            .collect();
        let attached = health.hooks.len() - missing.len();
        let fields = json!({
            "version": env!("CARGO_PKG_VERSION"), "generation": health.generation,
            "hooks": {"attached": attached, "missing": missing, "waiting": health.waiting}, "previous": self.audit.previous(),
        });
        self.record("daemon-started", fields);
    }

    /// Makes a cgroup a session of an agent.
    pub fn bind(
        &mut self,
        cgroup: u64,
        id: [u64; 2],
        slot: AgentSlot,
        tiers: TierMap,
    ) -> Result<SessionRef, EnforcementError> {
        // A root that was made anew a moment ago: not without the second layer, if it can be had.
        self.follow_roots();
        let bound = self.bind_anew(cgroup, id, slot, tiers)?;
        self.set_first_quota(bound, slot);
        Ok(bound)
    }

    fn bind_anew(
        &mut self,
        cgroup: u64,
        id: [u64; 2],
        slot: AgentSlot,
        tiers: TierMap,
    ) -> Result<SessionRef, EnforcementError> {
        let first = self.enforcement.bind_session(cgroup, id, slot, tiers);
        if first.is_ok() {
            return first;
        }
        // The kernel has bound it by itself because some agent's globs match its name: that is undone.
        for entry in self.enforcement.sessions()? {
            if entry.session.cgroup == cgroup {
                self.enforcement.end_session(entry.slot, entry.session.generation)?;
                return self.enforcement.bind_session(cgroup, id, slot, tiers);
            }
        }
        first
    }

    /// Notes who launches a session, and what for.
    pub fn introduce(&mut self, session: SessionRef, task: Option<String>, launcher: Launcher) {
        let note = SessionNote { task: task.clone(), launcher: Some(launcher), ..SessionNote::default() };
        self.sessions.introduce(session.id, note, u64::try_from(boot_time()).ok());
        let launcher = format!("uid {} pid {}", launcher.uid, launcher.pid);
        self.note_launch(session_id(session.id), task, launcher);
    }

    /// What a session that has ended did in sum: with everything that waits in the rings.
    pub fn sum_up(&mut self, id: [u64; 2]) -> Value {
        // What others do at the same time must not keep this from ending.
        for _ in 0..64 {
            if !self.drain().more {
                break;
            }
        }
        self.sessions.end(id, u64::try_from(boot_time()).unwrap_or_default())
    }

    /// Takes up what an earlier daemon has noted about sessions that still run.
    pub(super) fn introduce_kept(&mut self) {
        for entry in self.enforcement.sessions().unwrap_or_default() {
            let id = entry.session.id;
            if let Some(launch) = self.approvals.launch(&session_id(id)) {
                let (task, launcher) = (launch.task.clone(), Launcher::parse(&launch.launcher));
                let note = SessionNote { task, launcher, ..SessionNote::default() };
                self.sessions.introduce(id, note, Some(entry.session.bound_at));
            }
        }
    }

    /// Remembers that a cgroup is being prepared, or not any more.
    pub fn set_launching(&mut self, cgroup: PathBuf, launching: bool) {
        if launching {
            self.launching.insert(cgroup);
        } else {
            self.launching.remove(&cgroup);
        }
    }

    /// Says that the end of a session's command is waited for, or not any more: until then the session goes on,
    /// even if its cgroup is gone because its processes were moved elsewhere.
    pub fn set_attended(&mut self, id: [u64; 2], attended: bool) {
        if attended {
            self.attended.insert(id);
        } else {
            self.attended.remove(&id);
        }
    }

    /// Frees a session.
    pub fn end(&mut self, session: SessionRef) {
        if let Err(error) = self.enforcement.end_session(session.slot, session.generation) {
            tracing::error!(%error, "cannot end a session");
        }
    }
}

/// An id that no session has had.
pub fn new_id() -> [u64; 2] {
    let mut bytes = [0; 16];
    getrandom::getrandom(&mut bytes).expect("the kernel gives random bytes");
    let word = |at: usize| u64::from_be_bytes(std::array::from_fn(|i| bytes[at + i]));
    [word(0), word(8)]
}

/// What can be told of a session that nobody has introduced: the container that its cgroup is, as long as that exists.
pub(super) fn stranger(settings: &Settings, event: &Event<'_>) -> SessionNote {
    let header = &event.header;
    let id = if event.kind == Kind::SessionBound { header.inode } else { header.cgroup };
    let below = |root: &Root| cgroup::find(&sweep::directory(&settings.paths.cgroups, &root.path), id);
    let found = settings.agents.roots.iter().find_map(below);
    let container = found.and_then(|path| container(&path.to_string_lossy()));
    SessionNote { container, ..SessionNote::default() }
}
