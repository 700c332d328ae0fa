//! cgroup globs of all agents → the one automaton that tells whose session a new cgroup is.

use super::{
    automaton::{Automaton, Bounds},
    glob::{Glob, Pattern},
    image::{FirstUses, Image},
    ports::Ports,
    reference,
};
use enforcer_common::{floor::Grants, map::Masks};

const BOUNDS: Bounds = Bounds { nodes: usize::MAX, raw_states: 250_000, raw_cells: 12 << 20 };

/// An agent and the cgroups that are its sessions.
pub type AgentMatch<'a> = (u32, &'a str, &'a [Glob]);

/// Why the agents' cgroups cannot be told apart.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum MatchError {
    /// Two agents claim one cgroup.
    #[error(
        "`{first}` and `{second}` both match the cgroup {example}; each cgroup belongs to one agent: narrow `match.cgroup` of one of them"
    )]
    Overlap {
        /// One agent.
        first: String,
        /// The other.
        second: String,
        /// A path that both match.
        example: String,
    },
    /// A glob matches whole subtrees.
    #[error("`{agent}` matches {glob}, but sessions do not nest: end it in `/*` instead of `/**`")]
    Subtree {
        /// The agent.
        agent: String,
        /// The glob.
        glob: String,
    },
    /// The globs multiply each other's states.
    #[error("the cgroup globs of the agents are too complex together; write them without `**`")]
    Explodes,
}

/// Compiles the globs of all agents. A state's masks carry the agent's index plus one: the low half
/// in `allow[0]`, the high half in `allow[1]`.
pub fn matcher(agents: &[AgentMatch<'_>]) -> Result<Image, MatchError> {
    let mut patterns: Vec<(u32, &Pattern)> = Vec::new();
    for ((_, agent, globs), position) in agents.iter().zip(0..) {
        for glob in *globs {
            if glob.patterns().iter().any(Pattern::is_subtree) {
                return Err(MatchError::Subtree { agent: (*agent).to_owned(), glob: glob.to_string() });
            }
            patterns.extend(glob.patterns().iter().map(|pattern| (position, pattern)));
        }
    }
    let masks = |labels: &[u32]| match labels {
        [] => Masks::NONE,
        [one] => agent_masks(agents[*one as usize].0),
        // Two agents: kept apart from every other state, and refused below.
        [..] => Masks { set: 1, ..Masks::NONE },
    };
    let automaton = Automaton::build(&patterns, BOUNDS, &masks).map_err(|_| MatchError::Explodes)?;
    if let Some(path) = automaton.example(|state| automaton.set(state) != 0) {
        let claims = |globs: &[Glob]| globs.iter().any(|glob| reference::matches(glob, &path));
        let mut both =
            agents.iter().filter(|(_, _, globs)| claims(globs)).map(|(_, agent, _)| (*agent).to_owned());
        let (first, second) = (both.next().unwrap_or_default(), both.next().unwrap_or_default());
        let example = String::from_utf8_lossy(&path).into_owned();
        return Err(MatchError::Overlap { first, second, example });
    }
    Ok(Image::new(vec![automaton], Ports::default(), Grants::default(), FirstUses::default()))
}

fn agent_masks(index: u32) -> Masks {
    let value = index + 1;
    let mut masks = Masks::NONE;
    masks.allow[0] = value as u16;
    masks.allow[1] = (value >> 16) as u16;
    masks
}
