//! Everything that a developer does with this checkout: `cargo xtask --help`.

mod apt;
mod bench;
mod cache;
mod compile;
mod console;
mod cpio;
mod demo;
mod fuzz;
mod guest;
mod kernels;
mod kvm;
mod package;
mod payload;
mod progress;
mod recap;
mod receivers;
mod rootfs;
mod setup;
mod test;
mod tidy;
mod vm;

use anyhow::Result;
use clap::{Parser, Subcommand};

/// Builds, boots, tests and checks the Enforcer
#[derive(Parser)]
#[command(name = "cargo xtask", bin_name = "cargo xtask")]
struct Cli {
    #[command(subcommand)]
    command: Task,
}

#[derive(Subcommand)]
enum Task {
    /// Install what the other commands need, saying why (they do this themselves, as far as they need it)
    Setup,
    /// Build the eBPF programs, then the daemon and the guests' test programs
    Build {
        /// An unoptimized userland (the eBPF programs are optimized always: the verifier takes no others)
        #[arg(long)]
        debug: bool,
    },
    #[command(subcommand)]
    Vm(vm::Vm),
    /// Check the sources, run the unit tests, then the guest tests on every kernel
    Test(test::Options),
    /// Watch a real agent work inside its scope and try to leave it
    Demo(demo::Options),
    /// A .deb and an .rpm of this checkout, in target/package
    Package(package::Options),
    /// Measure what enforcement costs
    Bench(bench::Options),
    /// Feed the readers of policies, records and requests with what nobody would write
    Fuzz(fuzz::Options),
    /// Check the rules of this checkout that no compiler knows
    Tidy,
}

fn main() {
    let status = match run(Cli::parse().command) {
        Ok(status) => status,
        Err(error) => {
            progress::note(format!("error: {error:#}"));
            1
        }
    };
    std::process::exit(status);
}

fn run(task: Task) -> Result<i32> {
    match task {
        Task::Setup => setup::all().map(|()| 0),
        Task::Build { debug } => compile::build(debug).map(|_| 0),
        Task::Vm(vm) => vm::main(vm),
        Task::Test(options) => test::main(&options),
        Task::Demo(options) => demo::main(&options),
        Task::Package(options) => package::main(&options).map(|()| 0),
        Task::Bench(options) => bench::main(&options),
        Task::Fuzz(options) => fuzz::main(&options),
        Task::Tidy => tidy::check().map(|()| 0),
    }
}
