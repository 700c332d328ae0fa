//! Files with several names, once policies are in force.

use super::core::Core;

impl Core {
    /// Looks again for the files that matter to these agents' new policies: until such a policy was in force, an
    /// agent could give further names to what it denies, also between the first look and then. Nothing that was
    /// found is forgotten.
    pub(super) fn look_again(&mut self, agents: &[String]) {
        self.links.forget();
        for agent in agents {
            super::progress::goes_on();
            let Some(state) = self.agents.get(agent) else { continue };
            let (policy, image) = (&state.loaded.policy, &state.loaded.image);
            let found = self.links.find(policy, image);
            let added = self.enforcement.add_links(&state.published, image, &found.files);
            self.note_links(agent, added.err().map(|error| error.to_string()).or(found.incomplete));
        }
    }

    /// Remembers why an agent's files may have names that are not known.
    pub(super) fn note_links(&mut self, agent: &str, incomplete: Option<String>) {
        match incomplete {
            Some(why) => self.links_incomplete.insert(agent.to_owned(), why),
            None => self.links_incomplete.remove(agent),
        };
    }
}
