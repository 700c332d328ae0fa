//! The ways out that are tried, one file per class: a catalogue of all attacks of the class, and the cases for
//! those that no promise tries anyway. docs/bypasses.md has the catalogue as a table, which is checked here.

use crate::{
    agent::Agent,
    harness::{Case, Outcome, Test},
    policy::Policy,
    promise::{self, Attempt},
};

mod asynchronous;
mod cgroups;
mod decisions;
mod descriptors;
mod enforcer;
mod execution;
mod knobs;
mod launches;
mod layers;
mod metadata;
mod names;
mod network;
mod objects;
mod page;
mod processes;

/// Ways out of one kind.
pub struct Class {
    /// What they have in common, as docs/bypasses.md calls it.
    pub title: &'static str,
    /// Each of them.
    pub attacks: &'static [Attack],
}

/// One way out.
pub struct Attack {
    /// A letter for the class, and a number. Numbers are never given again.
    pub id: &'static str,
    /// What is tried.
    pub tries: &'static str,
    /// The kernels on which it can be tried.
    pub kernels: &'static str,
    /// The hooks that refuse it.
    pub hooks: &'static str,
    /// The layers that refuse it, each by itself.
    pub layers: &'static str,
    /// Who tries it.
    pub tried: Tried,
}

/// Who tries an attack.
pub enum Tried {
    /// The case of this name, which performs this act (a word of its module's source).
    By(&'static str, &'static str),
    /// Nobody: it is not refused, and the table of what is open begins a row with this.
    Open(&'static str),
}

impl Attack {
    /// On these kernels only.
    const fn on(self, kernels: &'static str) -> Self {
        Self { kernels, ..self }
    }
}

/// An attack that the kernel programs refuse, on every kernel.
const fn refused(
    id: &'static str,
    tries: &'static str,
    hooks: &'static str,
    case: &'static str,
    act: &'static str,
) -> Attack {
    Attack { id, tries, kernels: "all", hooks, layers: "LSM", tried: Tried::By(case, act) }
}

/// An attack that is not refused.
const fn open(id: &'static str, tries: &'static str, row: &'static str) -> Attack {
    Attack { id, tries, kernels: "all", hooks: "", layers: "", tried: Tried::Open(row) }
}

/// Every class, in the order of the table.
pub const CLASSES: &[Class] = &[
    Class { title: "Names and paths", attacks: names::ATTACKS },
    Class { title: "Metadata and changes", attacks: metadata::ATTACKS },
    Class { title: "Execution", attacks: execution::ATTACKS },
    Class { title: "Network", attacks: network::ATTACKS },
    Class { title: "Asynchronous and delegated contexts", attacks: asynchronous::ATTACKS },
    Class { title: "Descriptors", attacks: descriptors::ATTACKS },
    Class { title: "Leaving the cgroup", attacks: cgroups::ATTACKS },
    Class { title: "Processes", attacks: processes::ATTACKS },
    Class { title: "Blinding or altering the enforcer", attacks: enforcer::ATTACKS },
    Class { title: "Knobs and devices", attacks: knobs::ATTACKS },
    Class { title: "Objects that no path has", attacks: objects::ATTACKS },
    Class { title: "Launches", attacks: launches::ATTACKS },
    Class { title: "Each layer by itself", attacks: layers::ATTACKS },
    Class { title: "Approvals and policies", attacks: decisions::ATTACKS },
];

/// The cases that try what promises do not.
pub const ALL: &[&[Case]] = &[
    names::CASES,
    metadata::CASES,
    execution::CASES,
    network::CASES,
    asynchronous::CASES,
    descriptors::CASES,
    cgroups::CASES,
    processes::CASES,
    enforcer::CASES,
    launches::CASES,
];

/// An agent that may do everything that rules about files and addresses can allow.
fn almighty(test: &Test) -> Outcome<Policy> {
    let all = test.policy().allow("all", "/**").exec("/**").connect("*:*/*").bind("*:*/*");
    // Refused, so that the end of its records can be told.
    Ok(all.deny("read", &promise::marker(test)?))
}

/// The attempts succeed outside, those that this kernel has no call for left out, and are refused inside. At least
/// `least` are left.
fn all_refused(
    test: &Test,
    policy: Policy,
    twins: &[String],
    attempts: Vec<Attempt>,
    least: usize,
    between: impl Fn() -> Outcome,
) -> Outcome<Agent> {
    let attempts = promise::possible(attempts, least)?;
    between()?;
    let agent = test.agent(policy)?;
    promise::refused(test, &agent, twins, &attempts)?;
    Ok(agent)
}
