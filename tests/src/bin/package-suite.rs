//! The tests of the packages, for a guest in which nothing of the Enforcer is installed.

use std::process::ExitCode;

fn main() -> ExitCode {
    enforcer_tests::harness::main(enforcer_tests::promises::PACKAGE, &[])
}
