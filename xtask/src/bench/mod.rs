//! `cargo xtask bench`: what enforcement costs, in guest instructions. docs/performance.md says how.

mod budget;
mod figures;

use std::{
    ffi::OsString,
    fs::File,
    io::{self, BufWriter, Write},
    path::PathBuf,
    sync::{Arc, Mutex, PoisonError},
};

use anyhow::{Context, Result, bail};
use clap::Args;

use crate::{compile, kernels::Kernel, progress, vm};
use budget::Budget;
use figures::{Row, Run};

#[derive(Args)]
pub(crate) struct Options {
    /// Guests with these kernels (6.12 alone if none is named)
    #[arg(long)]
    kernel: Vec<Kernel>,
    /// Also with 10,000 rules
    #[arg(long)]
    full: bool,
    /// Write the figures there, one JSON object a line
    #[arg(long, value_name = "FILE")]
    json: Option<PathBuf>,
    /// Fail where a figure is over bench/budget.toml by more than its noise
    #[arg(long)]
    check: bool,
    /// Take what an earlier build left in the target directory
    #[arg(long)]
    no_build: bool,
}

pub(crate) fn main(options: &Options) -> Result<i32> {
    let budget = options.check.then(Budget::read).transpose()?;
    if !options.no_build {
        compile::build(false)?;
    }
    let kernels = if options.kernel.is_empty() { &[Kernel::V6_12] } else { options.kernel.as_slice() };
    let mut rows = Vec::new();
    for kernel in kernels {
        let runs = measure(*kernel, options.full)?;
        let of_kernel = figures::rows(kernel.name(), &runs)?;
        println!("kernel {}\n\n{}", kernel.name(), figures::table(&of_kernel));
        rows.extend(of_kernel);
    }
    if let Some(path) = &options.json {
        write_json(path, &rows).with_context(|| format!("cannot write {}", path.display()))?;
    }
    let Some(budget) = budget else { return Ok(0) };
    let verdict = budget.compare(&rows);
    for line in &verdict.over {
        println!("over budget: {line}");
    }
    for line in &verdict.unknown {
        println!("in the budget, but never measured: {line}");
    }
    println!("{} figures compared with bench/budget.toml, {} over", verdict.compared, verdict.over.len());
    Ok(i32::from(!verdict.over.is_empty() || !verdict.unknown.is_empty()))
}

/// One boot.
fn measure(kernel: Kernel, full: bool) -> Result<Vec<Run>> {
    progress::note(format!("kernel {}: booting a guest whose clock counts instructions", kernel.name()));
    let mut command = vec![OsString::from("/usr/lib/enforcer-tests/bench-ops"), "phases".into()];
    if full {
        command.push("--full".into());
    }
    let options = vm::Options {
        icount: true,
        no_daemon: true,
        no_build: true,
        timeout: if full { 3600 } else { 1200 },
        tick: Some("the guest measures".into()),
        ..vm::Options::new(kernel)
    };
    let output = Captured::default();
    let status = vm::run(&options, &command, output.clone(), io::stderr())?;
    if status != 0 {
        bail!("kernel {}: bench-ops ended with {status}", kernel.name());
    }
    let bytes = output.0.lock().unwrap_or_else(PoisonError::into_inner).clone();
    // Every round, for whoever wonders about a figure; a help only.
    let _ = std::fs::write(compile::target_dir().join(format!("bench-{}.jsonl", kernel.name())), &bytes);
    let text = String::from_utf8(bytes).context("bench-ops printed something else than text")?;
    text.lines().map(Run::parse).collect()
}

fn write_json(path: &PathBuf, rows: &[Row]) -> Result<()> {
    let mut file = BufWriter::new(File::create(path)?);
    for row in rows {
        writeln!(file, "{}", row.json())?;
    }
    Ok(file.flush()?)
}

/// What the guest prints, kept.
#[derive(Clone, Default)]
struct Captured(Arc<Mutex<Vec<u8>>>);

impl Write for Captured {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner).extend_from_slice(bytes);
        Ok(bytes.len())
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}
