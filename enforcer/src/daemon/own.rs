//! What a session is told about itself.

use super::{
    core::{Core, now},
    enforcement::AgentSlot,
    holds::present,
    names::Names,
    refusals::Refusal,
};
use crate::{
    approvals::{drive, queue::State, words},
    cli::exit::{Exit, Failure},
    control::{
        agent::{JUSTIFICATION, Waits, Who},
        agent_server::Meter,
    },
    event::{
        decode::Event,
        json,
        text::{hex, session_id},
        why::{self, Why},
    },
    policy::Mode,
};

impl Core {
    /// The sessions by the ids of their cgroups.
    pub fn session_cgroups(&self) -> Vec<(u64, [u64; 2])> {
        let sessions = self.enforcement.sessions().unwrap_or_default();
        sessions.iter().map(|entry| (entry.session.cgroup, entry.session.id)).collect()
    }

    /// How much sessions have asked.
    pub fn asks_of_sessions(&mut self) -> &mut Meter {
        &mut self.asks
    }

    /// Who a session is.
    pub fn who_is(&self, session: [u64; 2]) -> Result<Who, Failure> {
        let gone = |what: &str| Failure::new(Exit::Unavailable, what, "see enforcer agents on the host");
        let sessions = self.enforcement.sessions().map_err(|e| gone(&e.to_string()))?;
        let entry = sessions.iter().find(|entry| entry.session.id == session);
        let slot = entry.map(|entry| AgentSlot(entry.session.agent));
        let slot = slot.ok_or_else(|| gone("the session has ended"))?;
        let state = self.slots.name(slot).and_then(|name| self.agents.get(name));
        let policy = state.ok_or_else(|| gone("the agent has no policy any more"))?.policy.head();
        let id = session_id(session);
        Ok(Who {
            agent: policy.id().to_owned(),
            owner: policy.owner().to_owned(),
            purpose: policy.purpose().to_owned(),
            task: self.queue().launch(&id).and_then(|launch| launch.task.clone()),
            session: id,
            policy_version: policy.version(),
            policy_digest: hex(&policy.digest()),
            mode: match policy.mode() {
                Mode::Enforce => "enforce".to_owned(),
                Mode::Audit => "audit".to_owned(),
            },
            trust: self.level(policy.id(), policy.trust()).name().to_owned(),
        })
    }

    /// What was refused to a session last, the newest first.
    pub fn refusals_of(&self, session: [u64; 2]) -> Vec<Why> {
        let names = Names {
            slots: &self.slots,
            numbers: &self.numbers,
            table: &self.settings.trust,
            glass: &self.glass,
            sessions: &self.sessions,
        };
        let offset = self.offset.unwrap_or_default();
        let in_words = |refusal: &Refusal| match refusal {
            Refusal::Told(bytes) => {
                let event = Event::try_from(&bytes[..]).ok()?;
                json::event(&event, offset, &names).as_object().map(why::why)
            }
            Refusal::Ended(why) => Some(Why::clone(why)),
        };
        self.refusals.of(session).filter_map(in_words).collect()
    }

    /// What waits of a session.
    pub fn waits_of(&self, session: [u64; 2]) -> Vec<Waits> {
        let id = session_id(session);
        let mine = self
            .queue()
            .entries()
            .filter(|(_, entry)| entry.state == State::Pending && entry.request.who.session == id);
        mine.map(|(hold, entry)| Waits {
            hold: hold.to_string(),
            act: words::act(&entry.request.what),
            deadline: entry.request.deadline,
            justified: entry.request.justification.is_some(),
        })
        .collect()
    }

    /// A session says why it wants what waits. Returns which request that is.
    pub fn justify(&mut self, session: [u64; 2], hold: Option<&str>, text: &str) -> Result<String, Failure> {
        let wrong = |message: String| Failure::new(Exit::Usage, message, "");
        let length = text.chars().count();
        if text.trim().is_empty() || length > JUSTIFICATION {
            let message = format!("a justification has 1 to {JUSTIFICATION} characters, not {length}");
            return Err(wrong(message));
        }
        let waiting = self.waits_of(session);
        let meant = |one: &&Waits| hold.is_none_or(|start| one.hold.starts_with(start));
        let meant: Vec<&Waits> = waiting.iter().filter(meant).collect();
        let [one] = meant[..] else {
            let ids: Vec<&str> = meant.iter().map(|one| one.hold.as_str()).collect();
            return Err(wrong(match ids.len() {
                0 => "no request of this session waits that is meant".to_owned(),
                _ => format!("several requests wait; name one of them: {}", ids.join(", ")),
            }));
        };
        let hold = one.hold.clone();
        self.with_queue(|core, queue| {
            let actions = queue.justify(present(), &hold, text)?;
            drive::perform(core, queue, actions);
            Ok(())
        })
        .map_err(|why: &'static str| wrong(why.to_owned()))?;
        tracing::info!(hold, at = %now(), "a session has said why it asks");
        Ok(hold)
    }
}
