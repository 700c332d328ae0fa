//! `cargo xtask fuzz`: libFuzzer on what reads bytes that others made.
//!
//! The flags are those of `cargo fuzz --sanitizer none`, which a stable compiler takes. There is no unsafe
//! code in what is fuzzed, so what a sanitizer would look for cannot be there.

use std::{path::PathBuf, process::Command};

use anyhow::{Context, Result, bail};

use crate::{
    compile,
    progress::{note, output, run_shown},
};

/// The targets, with the directories of this checkout that they start from.
const TARGETS: [(&str, &[&str]); 5] = [
    ("policy", &["fuzz/seeds/policy", "enforcer/profiles"]),
    ("glob", &[]),
    ("record", &[]),
    ("frame", &[]),
    ("agent", &[]),
];

const FLAGS: [&str; 7] = [
    "-Cpasses=sancov-module",
    "-Cllvm-args=-sanitizer-coverage-level=4",
    "-Cllvm-args=-sanitizer-coverage-inline-8bit-counters",
    "-Cllvm-args=-sanitizer-coverage-pc-table",
    "-Cllvm-args=-sanitizer-coverage-trace-compares",
    "-Ccodegen-units=1",
    "--cfg=fuzzing",
];

#[derive(clap::Args)]
pub(crate) struct Options {
    /// How long each target runs
    #[arg(long, default_value_t = 60, value_name = "N")]
    seconds: u32,
    /// Run one input, such as a finding, instead of looking for more
    #[arg(long, value_name = "FILE", requires = "targets")]
    input: Option<PathBuf>,
    /// policy, glob, record, frame or agent; all of them if none is named
    #[arg(value_name = "TARGET", value_parser = TARGETS.map(|(name, _)| name))]
    targets: Vec<String>,
}

/// Builds the targets and runs them one after the other. What they learn stays in `fuzz/corpus`.
pub(crate) fn main(options: &Options) -> Result<i32> {
    let bin = build()?;
    for (name, seeds) in TARGETS {
        if options.targets.is_empty() || options.targets.iter().any(|target| target == name) {
            run(&bin, name, seeds, options)?;
        }
    }
    Ok(0)
}

/// The directory with the instrumented programs.
fn build() -> Result<PathBuf> {
    let version = output(Command::new("rustc").arg("-vV"))?;
    let host =
        version.lines().find_map(|line| line.strip_prefix("host: ")).context("rustc -vV names no host")?;
    let target_dir = compile::target_dir().join("fuzz");
    // With a target, build scripts and macros are not instrumented.
    run_shown(
        "building the fuzz targets",
        compile::cargo()
            .current_dir(compile::root().join("fuzz"))
            .args(["build", "--release", "--target", host])
            .env("CARGO_TARGET_DIR", &target_dir)
            .env("CARGO_ENCODED_RUSTFLAGS", FLAGS.join("\x1f")),
    )?;
    Ok(target_dir.join(host).join("release"))
}

fn run(bin: &std::path::Path, name: &str, seeds: &[&str], options: &Options) -> Result<()> {
    let home = compile::root().join("fuzz");
    let (corpus, findings) = (home.join("corpus").join(name), home.join("findings").join(name));
    std::fs::create_dir_all(&corpus)?;
    std::fs::create_dir_all(&findings)?;
    let mut command = Command::new(bin.join(name));
    command.current_dir(&home).arg(format!("-artifact_prefix={}/", findings.display()));
    if let Some(input) = &options.input {
        command.arg(std::path::absolute(input)?);
    } else {
        // An input that takes longer or more memory than this is a finding. Patterns that are refused because
        // they multiply each other take seconds, and ten times that under instrumentation.
        command.args([
            "-timeout=60",
            "-report_slow_units=60",
            "-rss_limit_mb=2048",
            "-print_final_stats=1",
            "-verbosity=0",
        ]);
        command.arg(format!("-max_total_time={}", options.seconds)).arg(&corpus);
        let dictionary = home.join("dictionaries").join(name);
        if dictionary.is_file() {
            command.arg(format!("-dict={}", dictionary.display()));
        }
        command.args(seeds.iter().map(|seed| compile::root().join(seed)).filter(|seed| seed.is_dir()));
    }
    note(format!("fuzzing {name}"));
    let status = command.status().with_context(|| format!("cannot run {name}"))?;
    if !status.success() {
        bail!(
            "{name} found something: see {}, and try it again with `cargo xtask fuzz {name} --input FILE`",
            findings.display()
        );
    }
    Ok(())
}
