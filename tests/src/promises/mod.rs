//! What the product promises, one module per concern.

use crate::{
    agent::Agent,
    harness::{Case, Outcome, Test},
    policy::Policy,
    promise::{self, Attempt},
};

mod arguments;
mod asking;
mod audit;
mod break_glass;
mod changes;
mod devices;
mod evidence;
mod examples;
mod execution;
mod files;
mod first_use;
mod floor;
mod full_disk;
mod globs;
mod grants;
mod holds;
mod identity;
mod ipc;
mod knobs;
mod layers;
mod lifecycle;
mod links;
mod mounts;
mod network;
mod operating;
pub mod outsiders;
mod package;
mod policies;
mod proc;
mod proof;
mod propagation;
mod refusals;
mod replay;
mod retention;
mod rpm;
mod scale;
mod scopes;
mod second_layer;
mod sessions;
mod signed;
mod small_state;
mod soak;
mod stress;
mod tasks;
mod trust;
pub(crate) mod units;
mod unix;
mod upcalls;
mod waiting;
mod watch;

/// The tests of the suite, in the order in which they run.
pub const ALL: &[&[Case]] = &[
    files::CASES,
    changes::CASES,
    globs::CASES,
    links::CASES,
    execution::CASES,
    arguments::CASES,
    identity::CASES,
    network::CASES,
    second_layer::CASES,
    unix::CASES,
    mounts::CASES,
    propagation::CASES,
    floor::CASES,
    evidence::CASES,
    grants::CASES,
    holds::CASES,
    waiting::CASES,
    asking::CASES,
    signed::CASES,
    trust::CASES,
    knobs::CASES,
    tasks::CASES,
    proc::CASES,
    ipc::CASES,
    watch::CASES,
    upcalls::CASES,
    devices::CASES,
    sessions::CASES,
    layers::CASES,
    policies::CASES,
    audit::CASES,
    proof::CASES,
    retention::CASES,
    full_disk::CASES,
    first_use::CASES,
    operating::CASES,
    replay::CASES,
    examples::CASES,
    units::CASES,
    scopes::CASES,
    lifecycle::CASES,
    break_glass::CASES,
    outsiders::CASES,
];

/// Modules about what the daemon and its commands do, which no kernel changes: where a run is sampled, all of
/// their cases run on one kernel and few on the others.
pub const SELDOM: &[&str] = &[
    "signed",
    "trust",
    "policies",
    "audit",
    "operating",
    "units",
    "scopes",
    "lifecycle",
    "break_glass",
    "retention",
    "full_disk",
    "outsiders",
    "globs",
];

/// The tests of the packages.
pub const PACKAGE: &[&[Case]] = &[package::CASES, rpm::CASES];

/// The tests of a daemon under much, and for long.
pub const ENDURANCE: &[&[Case]] = &[scale::CASES, soak::CASES];

/// The tests for a kernel without the BPF LSM.
pub const WITHOUT_LSM: &[&[Case]] = &[refusals::CASES];

/// Two directories, `open` and `shut`, that hold the same: files `f1` to `f12`, empty directories `e1`
/// to `e4`, directories `d1` to `d4` with a file `x`.
fn tree(test: &Test) -> Outcome {
    test.fresh()?;
    for side in ["open", "shut"] {
        for number in 1..=12 {
            test.file(&format!("{side}/f{number}"))?;
        }
        for number in 1..=4 {
            test.dir(&format!("{side}/e{number}"))?;
            test.file(&format!("{side}/d{number}/x"))?;
        }
    }
    promise::marker(test)?;
    Ok(())
}

/// The whole promise: the attempts succeed outside; inside, under `narrow`, they are refused and recorded
/// while the twins succeed; `after` looks at what is left; under `wide` the same attempts succeed inside.
fn promise(
    test: &Test,
    (narrow, wide): (Policy, Policy),
    (twins, attempts): (&[String], &[Attempt]),
    after: impl Fn() -> Outcome,
) -> Outcome<Agent> {
    promise_in(test, tree, (narrow, wide), (twins, attempts), after)
}

/// As [`promise`], among other files than the two directories.
fn promise_in(
    test: &Test,
    prepare: impl Fn(&Test) -> Outcome,
    (narrow, wide): (Policy, Policy),
    (twins, attempts): (&[String], &[Attempt]),
    after: impl Fn() -> Outcome,
) -> Outcome<Agent> {
    prepare(test)?;
    promise::control(attempts)?;
    prepare(test)?;
    let mut agent = test.agent(narrow)?;
    promise::refused(test, &agent, twins, attempts)?;
    after()?;
    prepare(test)?;
    agent.change(wide)?;
    promise::allowed(&agent, &promise::acts(attempts))?;
    Ok(agent)
}
