//! Many agents, and load for long: in a guest of its own, since what it measures must not have other tests beside it.
//! `endurance-suite [--full] [--minutes=N] [FILTER…]`

use std::process::ExitCode;

fn main() -> ExitCode {
    enforcer_tests::harness::main(enforcer_tests::promises::ENDURANCE, &[])
}
