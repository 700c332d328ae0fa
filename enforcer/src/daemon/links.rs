//! Files with several names, once policies are in force.

use super::{core::Core, enforcement::Linked};
use crate::links::Looked;

impl Core {
    /// Looks again for the files that matter to these agents' new policies, for each of which was looked there: until
    /// such a policy was in force, an agent could give further names to what it denies, also between the first look and
    /// then. Nothing that was found is forgotten.
    pub(super) fn look_again(&mut self, agents: &[(String, Looked)]) {
        self.links.forget();
        for (agent, looked) in agents {
            super::progress::goes_on();
            if self.links.is_as_before(looked) {
                continue;
            }
            let Some(state) = self.agents.get(agent) else { continue };
            let whole = state.policy.whole();
            let found = self.links.find(&whole.policy, &whole.image);
            let (linked, too_many) = Linked::new(&found.files, self.enforcement.room_for_links());
            let added = self.enforcement.add_links(&state.published, &whole.image, linked);
            let failed = added.err().map(|error| error.to_string());
            self.note_links(agent, failed.or(too_many).or(found.incomplete));
        }
        self.links.begin();
    }

    /// Remembers why an agent's files may have names that are not known.
    pub(super) fn note_links(&mut self, agent: &str, incomplete: Option<String>) {
        match incomplete {
            Some(why) => self.links_incomplete.insert(agent.to_owned(), why),
            None => self.links_incomplete.remove(agent),
        };
    }
}
