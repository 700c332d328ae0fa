//! The proof that enforcement is real, round by round: nobody's process is refused; a process of the daemon's
//! own agent may do what its policy allows, is refused what it denies, and the record of that arrives.

use super::{
    canary::{self, Silence},
    core::{Core, Shared, now},
    enforcement::{AgentSlot, EnforcementError, PublishedPolicy, SessionRef},
    lives::new_id,
    loaded::Kept,
    reload::InForceNow,
    watch,
};
use crate::{policy::Trust, trust::table::Table};
use std::{fmt::Write as _, os::unix::ffi::OsStrExt, path::Path, rc::Rc};

/// Rounds at the start whose record may be lost because the ring is full of others.
const ROUNDS: usize = 5;

/// The canary's agent.
#[derive(Clone, Copy, Debug)]
pub(super) struct CanaryAgent {
    slot: AgentSlot,
    policy: PublishedPolicy,
}

/// What became of the record.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Heard {
    /// It arrived.
    Record,
    /// The ring was full; the kernel counted it as lost.
    Counted,
}

/// Nothing is ready before a round has succeeded, with its record.
pub(super) async fn prove_first(core: &Shared) -> Result<(), Silence> {
    let mut proof = core.borrow_mut().publish_canary().map_err(|e| tell("publish the canary's policy", &e));
    if proof.is_ok() {
        for _ in 0..ROUNDS {
            proof = match round(core).await {
                Ok(Heard::Counted) => Err(Silence::NoRecord),
                Ok(Heard::Record) => Ok(()),
                Err(silence) => Err(silence),
            };
            if proof != Err(Silence::NoRecord) {
                break;
            }
        }
    }
    core.borrow_mut().note_canary(proof.clone());
    proof
}

/// One round.
pub(super) async fn round(core: &Shared) -> Result<Heard, Silence> {
    let canary = core.borrow().canary.clone();
    core.borrow_mut().free_canary().map_err(|e| tell("free the canary's cgroups", &e))?;
    canary.stranger().await?;
    let (agent, session, lost) = core.borrow_mut().begin_canary().map_err(|e| tell("bind a session", &e))?;
    let mut heard = canary.member().await.map(|()| Heard::Record);
    if heard.is_ok() {
        watch::catch_up(core, session.id).await;
    }
    let mut core = core.borrow_mut();
    let refusals = core.watched.take(session.id);
    core.end(session);
    let ours = |r: &watch::Refusal| (r.agent, r.policy) == (agent.slot.0, agent.policy.id);
    if heard.is_ok() && !refusals.iter().any(ours) {
        let counted = core.lost_decisions(agent.slot).is_ok_and(|now| now > lost);
        heard = if counted { Ok(Heard::Counted) } else { Err(Silence::NoRecord) };
    }
    heard
}

fn tell(what: &str, error: &EnforcementError) -> Silence {
    Silence::CannotTell(format!("cannot {what}: {error}"))
}

impl Core {
    /// Gives the canary's agent its policy.
    fn publish_canary(&mut self) -> Result<(), EnforcementError> {
        let wrong = EnforcementError::Inconsistent;
        let text = policy_text(self.canary.allowed(), self.canary.refused());
        let file = Path::new("the daemon's own policy");
        let kept = Kept::read(&file.display().to_string(), text).map_err(wrong)?;
        let (kept, taken) = (Rc::new(kept), self.taken()?);
        let InForceNow { slot, published: policy, links } =
            self.put_in_force(canary::AGENT, file, &kept, &taken)?;
        self.say_published(canary::AGENT, file, &kept, &policy, &links);
        self.canary_agent = Some(CanaryAgent { slot, policy });
        Ok(())
    }

    /// Makes the canary's second cgroup a session and watches it; also says what its agent has lost so far.
    fn begin_canary(&mut self) -> Result<(CanaryAgent, SessionRef, u64), EnforcementError> {
        let agent = self.canary_agent.ok_or(EnforcementError::Gone("the canary's agent".to_owned()))?;
        let cgroup = self.canary.member_cgroup().map_err(|source| EnforcementError::Kernel {
            what: "making the canary's cgroup".to_owned(),
            source,
        })?;
        let lost = self.lost_decisions(agent.slot)?;
        let session = self.bind(cgroup, new_id(), agent.slot, Table::default().tiers(Trust::Probation))?;
        self.watched.watch(session.id);
        Ok((agent, session, lost))
    }

    /// Whether decisions of an agent were lost since the counters were last noted, seconds ago.
    pub(crate) fn may_have_lost(&self, slot: AgentSlot) -> bool {
        let known = self.counted.lost.get(&slot).map_or(0, |(decisions, _)| *decisions);
        self.lost_decisions(slot).map_or(true, |now| now > known)
    }

    /// Decisions of an agent that the kernel could not hand over, since its tables exist.
    fn lost_decisions(&self, slot: AgentSlot) -> Result<u64, EnforcementError> {
        let lost = self.enforcement.lost()?;
        Ok(lost.into_iter().find(|(of, ..)| *of == slot).map_or(0, |(_, decisions, _)| decisions))
    }

    /// Says if refusals were proven on another kernel the last time.
    pub(super) fn note_kernel(&mut self) {
        let (file, now) = (self.settings.paths.state.join("kernel"), super::kernel_release());
        let before = std::fs::read_to_string(&file).unwrap_or_default();
        if before == now {
            return;
        }
        if !before.is_empty() {
            tracing::warn!(before, now, "the kernel is another one than the last time, and refuses too");
            self.record("kernel-changed", serde_json::json!({"from": before, "to": now}));
        }
        if let Err(error) = std::fs::write(&file, &now) {
            tracing::warn!(%error, "cannot write {}", file.display());
        }
    }

    /// Notes how the proof went.
    pub fn note_canary(&mut self, proof: Result<(), Silence>) {
        match proof {
            Ok(()) => (self.no_proof, self.proven_at) = (None, Some(now())),
            Err(silence) => {
                tracing::error!(%silence, "the canary");
                self.record("canary", serde_json::json!({"problem": silence.to_string()}));
                self.no_proof = Some(silence.to_string());
            }
        }
    }

    /// The canary's cgroups must be nobody's between two rounds: sessions that a policy's globs have led to,
    /// or that an earlier daemon has left, are ended.
    pub fn free_canary(&mut self) -> Result<(), EnforcementError> {
        let own: Vec<u64> =
            [self.canary.cgroup(), self.canary.member_cgroup()].into_iter().filter_map(Result::ok).collect();
        for entry in self.enforcement.sessions()? {
            if own.contains(&entry.session.cgroup) {
                self.enforcement.end_session(entry.slot, entry.session.generation)?;
            }
        }
        Ok(())
    }
}

/// A policy that allows one file and denies another.
fn policy_text(allowed: &Path, refused: &Path) -> String {
    format!(
        "apiVersion: enforcer/v1\nkind: AgentPolicy\n\
         metadata: {{ id: {}, version: 1, owner: enforcer, purpose: Proves that policies are enforced }}\n\
         files:\n  - {{ allow: [read], paths: ['{}'] }}\n  \
         - {{ deny: [read], paths: ['{}'], because: \"the canary's proof that refusals happen and are recorded\" }}\n",
        canary::AGENT,
        literal(allowed),
        literal(refused)
    )
}

/// A path as a glob that matches nothing else, fit for a quoted string.
fn literal(path: &Path) -> String {
    let mut out = String::new();
    for byte in path.as_os_str().as_bytes() {
        if byte.is_ascii_alphanumeric() || b"/._-".contains(byte) {
            out.push(char::from(*byte));
        } else {
            let _ = write!(out, "\\x{byte:02x}");
        }
    }
    out
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::policy::reference;
    use enforcer_common::{access::file::READ, verdict::Verdict};
    use std::{ffi::OsStr, path::PathBuf};

    #[test]
    fn the_policy_says_the_same_for_every_state_directory() {
        for state in [&b"/var/lib/enforcer"[..], b"/srv/a b/{x,'y'}\"*?[!q]\\\xff", "/srv/\u{e4}".as_bytes()]
        {
            let state = PathBuf::from(OsStr::from_bytes(state));
            let (allowed, refused) = (state.join("allowed"), state.join("refused"));
            let loaded =
                crate::daemon::loaded::compile("own", &policy_text(&allowed, &refused)).expect("valid");
            let tiers = Table::default().tiers(Trust::Probation);
            let verdict = |path: &Path| {
                reference::file_verdict(&loaded.policy, path.as_os_str().as_bytes(), READ, &tiers).0
            };
            assert_eq!((verdict(&allowed), verdict(&refused)), (Verdict::Allow, Verdict::Deny));
            assert_eq!(verdict(&state.join("allowed2")), Verdict::Deny);
        }
    }
}
