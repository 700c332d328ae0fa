//! Files with several names, once policies are in force.

use super::core::Core;
use std::time::Instant;

impl Core {
    /// Looks again for the files that matter to these agents' new policies: until such a policy was in force, an
    /// agent could give further names to what it denies, also between the first look and then. Nothing that was
    /// found is forgotten.
    pub(super) fn look_again(&mut self, agents: &[String]) {
        self.links.forget();
        for agent in agents {
            let Some(state) = self.agents.get(agent) else { continue };
            let (policy, image) = (&state.loaded.policy, &state.loaded.image);
            let found = self.links.find(policy, image, Instant::now());
            let added = self.enforcement.add_links(&state.published, image, &found.files);
            let incomplete = match added {
                Ok(()) => found.incomplete,
                Err(error) => Some(error.to_string()),
            };
            match incomplete {
                Some(why) => self.links_incomplete.insert(agent.clone(), why),
                None => self.links_incomplete.remove(agent),
            };
        }
    }
}
