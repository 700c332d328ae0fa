//! The suite: runs in a guest as root, outside every agent, while the daemon is up.
//! `guest-suite [--full] [--sample] [FILTER…]`

use std::process::ExitCode;

fn main() -> ExitCode {
    enforcer_tests::promises::outsiders::start();
    enforcer_tests::harness::main(enforcer_tests::promises::ALL, enforcer_tests::promises::SAMPLED)
}
