//! Performs one exact act by raw system calls and prints `ok` or the name of the error: `probe read /etc/shadow`.
//! See the library's module `probe` for the acts.

use std::process::ExitCode;

fn main() -> ExitCode {
    enforcer_tests::probe::main(std::env::args_os().skip(1).collect())
}
