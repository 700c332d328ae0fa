//! Sessions whose cgroup is gone are ended; cgroups that the daemon has made and that nobody lives in any
//! more are removed.

use super::{
    core::Core,
    enforcement::{AgentSlot, Followed, SessionEntry, Unwatched},
};
use crate::{event::text::session_id, launch::cgroup};
use serde_json::json;
use std::{
    collections::HashSet,
    fs,
    path::{Path, PathBuf},
};

impl Core {
    /// Whether it is time to look.
    pub fn sweep_due(&self) -> bool {
        self.sweep_due
    }

    /// Ends what has ended, and follows roots that were made anew.
    pub fn sweep(&mut self) {
        self.sweep_due = false;
        self.follow_roots();
        // The list comes first: a session that is bound after it cannot be taken for one that has ended.
        let sessions = match self.enforcement.sessions() {
            Ok(sessions) => sessions,
            Err(error) => return tracing::error!(%error, "cannot list the sessions"),
        };
        let mut alive = HashSet::new();
        for root in self.settings.agents.roots.clone() {
            let path = directory(&self.settings.paths.cgroups, &root.path);
            self.remove_left_over(&path);
            match cgroup::ids_below(&path) {
                Ok(ids) => alive.extend(ids),
                // What cannot be told stays.
                Err(error) => return tracing::error!(%error, "cannot look below {}", path.display()),
            }
        }
        let mut ended = 0;
        let is_over = |entry: &&SessionEntry| {
            let session = &entry.session;
            !alive.contains(&session.cgroup) && !self.attended.contains(&session.id)
        };
        let over: Vec<&SessionEntry> = sessions.iter().filter(is_over).collect();
        for entry in over {
            match self.enforcement.end_session(entry.slot, entry.session.generation) {
                Ok(()) => {
                    ended += 1;
                    self.say_ended(entry);
                }
                Err(error) => tracing::error!(%error, "cannot end a session"),
            }
        }
        if ended > 0 {
            self.refill();
        }
        let ids: HashSet<_> = sessions.iter().map(|entry| entry.session.id).collect();
        self.sessions.retain(&ids);
        self.recent.retain(&ids);
        self.refusals.retain(&ids);
        self.look_at_open_again(true);
    }

    /// A session that the kernel has bound by itself has ended. How its last process ended, nobody knows.
    fn say_ended(&mut self, entry: &SessionEntry) {
        let id = entry.session.id;
        let agent = self.slots.name(AgentSlot(entry.session.agent)).map(str::to_owned);
        if agent.as_deref() == Some(super::canary::AGENT) {
            return;
        }
        let summary = self.sum_up(id);
        let fields = json!({"agent": agent, "session": session_id(id), "end": null, "summary": summary});
        self.record("session-ended", fields);
    }

    /// Sees that the second layer is on the roots as they are now.
    pub fn follow_roots(&mut self) {
        for followed in self.enforcement.follow_roots() {
            let Followed { root, cgroup } = followed;
            tracing::info!(root, cgroup, "the second layer on the network is attached");
            self.record("layer-attached", json!({"layer": "network", "root": root, "cgroup": cgroup}));
        }
    }

    /// Attaches some of what may wait, and says what cannot be.
    pub fn attach_more(&mut self) {
        self.enforcement.attach_more();
        for Unwatched { call, function, because } in self.enforcement.take_unwatched() {
            tracing::error!(
                because,
                "the system call {call} leaves no records, because {function} is not watched"
            );
            self.record("call-unwatched", json!({"call": call, "function": function, "because": because}));
        }
    }

    /// Says which programs somebody had taken away.
    pub fn say_brought_back(&mut self) {
        let hooks = self.enforcement.brought_back();
        if !hooks.is_empty() {
            tracing::warn!(hooks = hooks.join(" "), "programs had been taken away and are attached again");
            self.record("hooks-brought-back", json!({"hooks": hooks}));
        }
    }

    /// Removes the cgroups of sessions that an earlier daemon has started and that have ended.
    fn remove_left_over(&self, root: &Path) {
        let Ok(children) = fs::read_dir(root) else { return };
        for child in children.flatten() {
            let path = child.path();
            let ours = child.file_name().as_encoded_bytes().starts_with(cgroup::PREFIX.as_bytes());
            if ours && !self.launching.contains(&path) && cgroup::populated(&path).is_ok_and(|p| !p) {
                // One that cannot be removed now is tried again the next time.
                let _ = cgroup::remove(&path);
            }
        }
    }
}

/// The directory of a cgroup.
pub(super) fn directory(cgroups: &Path, path: &str) -> PathBuf {
    cgroups.join(path.trim_start_matches('/'))
}
