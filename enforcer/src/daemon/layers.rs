//! Which layers stand around which session: noted at its cgroup, so that the next daemon knows too.

use super::core::{Core, boot_time};
use crate::{
    control::message::LayerStatus,
    launch::{
        cgroup,
        layers::{Plan, host::Host, plan, usual},
    },
};
use serde::{Deserialize, Serialize};
use std::{
    collections::HashMap,
    path::{Path, PathBuf},
};

/// Only the initial user namespace's root can write it, and no agent can write to cgroups at all.
const NOTE: &str = "trusted.enforcer.layers";
/// The longest note that is read.
const LENGTH: usize = 4096;

/// What is noted of a session.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub(super) struct Noted {
    /// The layers, as they are said.
    pub(super) status: Vec<LayerStatus>,
    /// Of all that they allow.
    digest: String,
    /// The user that the session runs as.
    uid: u32,
}

impl Core {
    /// Notes what was put around a session.
    pub fn note_layers(&self, cgroup: &Path, plan: &Plan, uid: u32) {
        let noted = Noted { status: plan.status.clone(), digest: plan.layers.digest(), uid };
        let text = serde_json::to_vec(&noted).unwrap_or_default();
        if let Err(error) = rustix::fs::setxattr(cgroup, NOTE, &text, rustix::fs::XattrFlags::empty()) {
            tracing::warn!(%error, "cannot note the layers of {}", cgroup.display());
        }
    }

    /// The layers of sessions whose policies say nothing about them.
    pub(super) fn usual_layers(&self) -> Vec<LayerStatus> {
        usual(&self.settings.launch, &Host::look())
    }

    /// Every cgroup below the roots, by id.
    pub(super) fn session_directories(&self) -> HashMap<u64, PathBuf> {
        let mut all = HashMap::new();
        for root in self.roots() {
            let path = super::sweep::directory(&self.settings.paths.cgroups, &root);
            // What cannot be looked at has no layers to show; the sweep says what is wrong with it.
            let found = cgroup::cgroups_below(&path).unwrap_or_default();
            all.extend(found.into_iter().map(|(path, id)| (id, path)));
        }
        all
    }

    /// What sessions of an agent would get by now; `None` where that cannot be told or is lifted for a while.
    fn present(&self, slot: u32, uid: u32) -> Option<String> {
        let (name, agent) = self.agents.iter().find(|(_, agent)| agent.slot.0 == slot)?;
        let now = u64::try_from(boot_time()).unwrap_or(0);
        let plan = plan(&agent.policy.whole().policy, &self.settings.launch, uid, &Host::look()).ok()?;
        let is_lifted = plan.layers.landlock.is_some() && self.glass.of(name, now).is_some();
        (!is_lifted).then(|| plan.layers.digest())
    }
}

/// What sessions would get by now, worked out once for each agent and user.
#[derive(Default)]
pub(super) struct Present(HashMap<(u32, u32), Option<String>>);

impl Present {
    /// Whether the session of an agent would get other layers by now than it was started with.
    pub(super) fn outgrows(&mut self, core: &Core, slot: u32, noted: &Noted) -> bool {
        let present = self.0.entry((slot, noted.uid)).or_insert_with(|| core.present(slot, noted.uid));
        present.as_ref() != Some(&noted.digest)
    }
}

/// What is noted at a cgroup.
pub(super) fn noted(cgroup: &Path) -> Option<Noted> {
    let mut text = [0u8; LENGTH];
    let length = rustix::fs::getxattr(cgroup, NOTE, &mut text[..]).ok()?;
    serde_json::from_slice(text.get(..length)?).ok()
}
