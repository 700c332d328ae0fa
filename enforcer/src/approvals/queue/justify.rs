//! What an agent says about its own request. It is a part of what is decided about, so it counts once, and only while
//! nobody has approved: nobody signs one text and approves another.

use super::{Action, Queue, State, record};
use crate::approvals::hold::Now;

impl Queue {
    /// Takes the agent's words about the request with this id.
    pub fn justify(&mut self, now: Now, hold: &str, text: &str) -> Result<Vec<Action>, &'static str> {
        let found = self.kept.entries.iter().find(|(id, _)| id.to_string() == hold).map(|(id, _)| *id);
        let Some(id) = found else { return Err("there is no such request") };
        let Some(entry) = self.kept.entry_mut(id) else { return Err("there is no such request") };
        if entry.state != State::Pending || now.boot >= entry.deadline {
            return Err("it has been decided, or its time is over");
        }
        if entry.request.justification.is_some() {
            return Err("a justification was given already");
        }
        if !entry.approvals.is_empty() {
            return Err("somebody has approved it as it is");
        }
        let before = entry.request.digest();
        entry.request.justification = Some(text.to_owned());
        let after = entry.request.digest();
        let mut said = record("approval-justified", id, &entry.request, "the agent has said why it asks");
        self.digests.remove(&before);
        self.digests.insert(after, id);
        if let Action::Record(_, fields) = &mut said
            && let Some(fields) = fields.as_object_mut()
        {
            fields.insert("the_agent_says".to_owned(), crate::event::text::escape(text.as_bytes()).into());
        }
        Ok(vec![said, Action::Persist])
    }
}
