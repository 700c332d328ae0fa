//! `cargo xtask bench`: what enforcement costs, in guest instructions. docs/performance.md says how.

mod budget;
mod figures;
mod plots;
mod report;

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

#[derive(Args, Default)]
pub(crate) struct Options {
    /// Guests with these kernels (6.12 alone if none is named)
    #[arg(long)]
    kernel: Vec<Kernel>,
    /// Also with 10,000 rules
    #[arg(long)]
    full: bool,
    /// Only what the layers around sessions cost, one after another
    #[arg(long, conflicts_with_all = ["full", "check"])]
    layers: bool,
    /// Write the figures there, one JSON object a line
    #[arg(long, value_name = "FILE")]
    json: Option<PathBuf>,
    /// Write the figures there as a page with plots (target/bench.html where no FILE is named)
    #[arg(long, value_name = "FILE")]
    html: Option<PathBuf>,
    /// Boot the guests with these LSMs instead of Debian's list; without `apparmor` its rows are left out
    #[arg(long, value_name = "LIST")]
    lsm: Option<String>,
    /// Fail where a figure is over bench/budget.toml by more than its noise
    #[arg(long)]
    check: bool,
    /// Take what an earlier build left in the target directory
    #[arg(long)]
    no_build: bool,
    /// Only rows whose name begins so, like `open`; can be repeated
    #[arg(long, value_name = "NAME", conflicts_with = "check")]
    only: Vec<String>,
    /// Beside the base only configurations whose name begins so, like `inside, 10 `; can be repeated. `records` stands
    /// for what the daemon does for a record
    #[arg(long, value_name = "NAME")]
    phase: Vec<String>,
}

pub(crate) fn main(options: &Options) -> Result<i32> {
    let budget = options.check.then(Budget::read).transpose()?;
    if !options.no_build {
        compile::build(false)?;
    }
    let kernels = if options.kernel.is_empty() { &[Kernel::V6_12] } else { options.kernel.as_slice() };
    let mut rows = Vec::new();
    for kernel in kernels {
        let runs = measure(*kernel, options)?;
        let of_kernel = figures::rows(kernel.name(), &runs)?;
        let (programs, costs): (Vec<&Row>, Vec<&Row>) =
            of_kernel.iter().partition(|row| row.is_about_a_program());
        println!("kernel {}\n\n{}", kernel.name(), figures::table(&costs));
        println!("{}\n{}", figures::above_floor(&costs), figures::programs(&programs));
        rows.extend(of_kernel);
    }
    if let Some(path) = &options.json {
        write_json(path, &rows).with_context(|| format!("cannot write {}", path.display()))?;
    }
    let page = options.html.clone().unwrap_or_else(|| compile::target_dir().join("bench.html"));
    std::fs::write(&page, report::html(&rows)?)
        .with_context(|| format!("cannot write {}", page.display()))?;
    println!("with plots: {}", page.display());
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

/// The rows that every change should see: outside and inside under ten rules, on 6.12, against the budget.
pub(crate) fn short() -> Result<()> {
    let options = Options {
        kernel: vec![Kernel::V6_12],
        check: true,
        no_build: true,
        phase: ["outside", "inside, 10 rules", "records"].map(str::to_owned).to_vec(),
        ..Options::default()
    };
    match main(&options)? {
        0 => Ok(()),
        _ => bail!(
            "figures are over bench/budget.toml: `cargo xtask bench --check` repeats them; docs/performance.md says how \
             to find what took them"
        ),
    }
}

/// One boot.
fn measure(kernel: Kernel, bench: &Options) -> Result<Vec<Run>> {
    progress::note(format!("kernel {}: booting a guest whose clock counts instructions", kernel.name()));
    let mut command = vec![OsString::from("/usr/lib/enforcer-tests/bench-ops"), "phases".into()];
    let full = bench.full;
    if full {
        command.push("--full".into());
    }
    if bench.layers {
        command.push("--layers".into());
    }
    for (option, names) in [("--only", &bench.only), ("--phase", &bench.phase)] {
        for name in names {
            command.extend([option.into(), name.into()]);
        }
    }
    let options = vm::Options {
        icount: true,
        no_daemon: true,
        no_build: true,
        // Where a process's mappings lie decides how many page tables a fork copies: the same in each column.
        cmdline: format!(
            "norandmaps {}",
            bench.lsm.as_ref().map(|list| format!("lsm={list}")).unwrap_or_default()
        ),
        timeout: if full { 3600 } else { 1200 },
        tick: Some("the guest measures".into()),
        ..vm::Options::new(kernel)
    };
    let output = Captured::default();
    let status = vm::run(&options, &command, output.clone(), io::stderr())?;
    let bytes = output.0.lock().unwrap_or_else(PoisonError::into_inner).clone();
    // Every round, for whoever wonders about a figure; a help only.
    let _ = std::fs::write(compile::target_dir().join(format!("bench-{}.jsonl", kernel.name())), &bytes);
    if status != 0 {
        bail!("kernel {}: bench-ops ended with {status}", kernel.name());
    }
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
