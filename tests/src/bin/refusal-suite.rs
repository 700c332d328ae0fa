//! The tests for a guest in which nothing can be enforced: its kernel was started without the BPF LSM.

use std::process::ExitCode;

fn main() -> ExitCode {
    enforcer_tests::harness::main(enforcer_tests::promises::WITHOUT_LSM, &[])
}
