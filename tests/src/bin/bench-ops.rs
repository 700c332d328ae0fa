//! What `cargo xtask bench` runs in a guest: `bench-ops phases [--full] [--phase NAME]... [--only NAME]...` goes
//! through the configurations, `bench-ops measure NAME [NAME]...` measures one in a process of its own and prints a JSON
//! object per operation. The beginning of a configuration's or operation's name will do.
//! `bench-ops profile NAME...` says what each hook adds to an operation inside an agent.
//! `bench-ops refused COUNT` only opens what it may not. `bench-ops prepare` and `bench-ops repeat FILE`, which
//! opens it for ever, are for profiles: docs/performance.md.

#[path = "../bench/mod.rs"]
mod bench;

use std::process::ExitCode;

fn main() -> ExitCode {
    let arguments: Vec<String> = std::env::args().skip(1).collect();
    let words: Vec<&str> = arguments.iter().map(String::as_str).collect();
    let done = match words.as_slice() {
        ["phases", options @ ..] => bench::phases::run(options),
        ["measure", configuration, only @ ..] => bench::measure(configuration, only),
        ["refused", count] => bench::refused(count),
        ["profile", operations @ ..] => bench::phases::profile(operations),
        ["prepare"] => bench::phases::prepare(&[10]),
        ["repeat", path] => bench::repeat(path),
        _ => {
            Err("bench-ops phases [--full] [--phase NAME] [--only NAME] | bench-ops measure NAME [NAME] | bench-ops profile NAME"
                .into())
        }
    };
    match done {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("bench-ops: {error}");
            ExitCode::FAILURE
        }
    }
}
