//! The `enforcer` program: see [`enforcer::cli`].

use std::process::ExitCode;

fn main() -> ExitCode {
    enforcer::cli::main()
}
