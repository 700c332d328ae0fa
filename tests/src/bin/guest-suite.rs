//! The suite: runs in a guest as root, outside every agent, while the daemon is up.
//! `guest-suite [--full] [--sample-0|--sample-1|--half-0|--half-1] [FILTER…]`

use enforcer_tests::{attacks, harness, promises};
use std::process::ExitCode;

fn main() -> ExitCode {
    promises::outsiders::start();
    let mut tables = promises::ALL.to_vec();
    // The outsider's own case looks back on all others.
    let last = tables.len() - 1;
    tables.splice(last..last, attacks::ALL.iter().copied());
    harness::main(&tables, promises::SELDOM)
}
