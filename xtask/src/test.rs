//! `cargo xtask test`: the checks, the unit tests, and one guest per kernel.

mod tally;

use std::{
    ffi::OsString,
    fs,
    io::{self, BufRead, BufReader},
    path::PathBuf,
    process::Stdio,
    sync::{
        Arc, Mutex, PoisonError,
        atomic::{AtomicBool, AtomicUsize, Ordering},
    },
    thread,
    time::Instant,
};

use anyhow::{Context, Result};
use clap::Args;

use crate::{
    bench,
    compile::{self, cargo},
    console,
    kernels::Kernel,
    package,
    progress::{self, Ticker},
    receivers, setup, tidy, vm,
};

use tally::{GuestLines, Seen, Tally, libtest_counts};

#[derive(Args)]
pub(crate) struct Options {
    /// Also the long tests
    #[arg(long)]
    full: bool,
    /// Guests with these kernels only
    #[arg(long)]
    kernel: Vec<Kernel>,
    /// Only tests with this in their name; leaves out the checks of the sources
    filter: Option<String>,
}

/// One boot per kernel; `cargo xtask test` runs them all.
struct GuestTest {
    name: &'static str,
    /// A program among those of enforcer-tests. It prints libtest's lines and a summary of its own.
    program: &'static str,
    /// What is there before the program runs.
    starts_with: StartsWith,
    cmdline: &'static str,
    kernels: Kernels,
    /// Seconds, without and with `--full`.
    timeout: [u64; 2],
}

/// What a guest has of ours.
#[derive(Clone, Copy, PartialEq, Eq)]
enum StartsWith {
    /// This build, and a daemon that runs.
    Daemon,
    /// This build.
    Build,
    /// A package of it, which is not installed.
    Package,
}

/// Which kernels a guest is booted with.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Kernels {
    All,
    /// All of it on 6.12, in two guests, and a sample on each of the others, unless `--full` asks for all.
    Sampled,
    /// 6.12 alone, with `--full` only: what takes long and no kernel changes.
    OneInFull,
}

const GUESTS: [GuestTest; 5] = [
    GuestTest {
        name: "suite",
        program: "guest-suite",
        starts_with: StartsWith::Daemon,
        cmdline: "",
        kernels: Kernels::Sampled,
        timeout: [3300, 9000],
    },
    GuestTest {
        name: "semantics",
        program: "semantics",
        starts_with: StartsWith::Daemon,
        cmdline: "",
        kernels: Kernels::All,
        timeout: [1_500, 3600],
    },
    GuestTest {
        name: "endurance",
        program: "endurance-suite",
        starts_with: StartsWith::Daemon,
        cmdline: "",
        kernels: Kernels::OneInFull,
        timeout: [18_000, 18_000],
    },
    GuestTest {
        name: "package",
        program: "package-suite",
        starts_with: StartsWith::Package,
        cmdline: "",
        kernels: Kernels::OneInFull,
        timeout: [1_500, 1_500],
    },
    GuestTest {
        name: "refusals",
        program: "refusal-suite",
        starts_with: StartsWith::Build,
        cmdline: "lsm=landlock,lockdown,yama",
        kernels: Kernels::All,
        timeout: [600, 600],
    },
];

pub(crate) fn main(options: &Options) -> Result<i32> {
    let begun = Instant::now();
    setup::all()?;
    let mut tally = Tally::default();
    if options.filter.is_none() {
        checks(&mut tally);
    }
    tally.add(unit_tests(options)?);
    match compile::build(false) {
        Ok(_) => guests(options, &mut tally),
        Err(error) => tally.one("build", Err(error)),
    }
    progress::note(format!("all of it took {} s", begun.elapsed().as_secs()));
    tally.recap.print();
    let [passed, failed, skipped] = tally.numbers();
    println!("\n{passed} passed, {failed} failed, {skipped} skipped");
    Ok(i32::from(tally.failed > 0))
}

fn checks(tally: &mut Tally) {
    let run = |what, command: &mut std::process::Command| progress::run_shown(what, command);
    let format = || -> Result<()> {
        run("checking the format", cargo().args(["fmt", "--all", "--check"]))?;
        let ebpf = ["fmt", "--manifest-path", "enforcer-ebpf/Cargo.toml", "--check"];
        run("checking the format of the eBPF programs", cargo().args(ebpf))
    };
    tally.one("check::format", format().context("`cargo fmt` mends it"));
    let lints = ["clippy", "--workspace", "--all-targets", "--", "-D", "warnings"];
    tally.one("check::lints", run("clippy", cargo().args(lints)));
    let kernel = || -> Result<()> {
        let object = compile::ebpf()?;
        let lints = [
            "clippy",
            "--package",
            "enforcer",
            "--all-targets",
            "--features",
            "kernel",
            "--",
            "-D",
            "warnings",
        ];
        run("clippy with the kernel feature", cargo().args(lints).env("ENFORCER_BPF_OBJECT", object))
    };
    tally.one("check::lints_with_kernel", kernel());
    tally.one("check::tidy", tidy::check());
}

fn unit_tests(options: &Options) -> Result<Tally> {
    let mut command = cargo();
    command.args(["test", "--workspace", "--no-fail-fast"]).args(&options.filter);
    let receivers = receivers::environment();
    command.envs(receivers.iter().cloned());
    let mut tally = cargo_test("unit tests", command)?;
    // What only exists with the kernel feature, which the workspace's tests are built without.
    let mut command = cargo();
    command.args(["test", "--package", "enforcer", "--features", "kernel", "--lib"]);
    command.arg(options.filter.as_deref().unwrap_or("kernel::"));
    command.env("ENFORCER_BPF_OBJECT", compile::ebpf()?);
    tally.add(cargo_test("unit tests of the kernel side", command)?);
    if options.full {
        // The full numbers of what is sampled otherwise: killed writers, failing power, changed logs.
        let mut command = cargo();
        command.args(["test", "--release", "--package", "enforcer", "--test", "audit"]);
        command.args(&options.filter).args(["--", "--ignored"]);
        tally.add(cargo_test("unit tests in full", command)?);
        setup::for_full_tests()?;
        let mut command = cargo();
        command.args(["test", "--package", "enforcer", "--lib", "--", "--ignored", "promtool"]);
        tally.add(cargo_test("metrics, as promtool reads them", command)?);
        // Beside these the library's ignored tests are measurements.
        let mut command = cargo();
        command.args(["test", "--release", "--package", "enforcer", "--lib", "in_full", "--", "--ignored"]);
        tally.add(cargo_test("decisions in full", command)?);
    }
    Ok(tally)
}

fn cargo_test(what: &str, mut command: std::process::Command) -> Result<Tally> {
    let _ticker = Ticker::start(what);
    let mut child = command.stdout(Stdio::piped()).spawn().context("cannot start cargo")?;
    let mut tally = Tally::default();
    for line in BufReader::new(child.stdout.take().context("cargo's output is piped")?).lines() {
        let line = line?;
        println!("{line}");
        tally.recap.line(&line);
        if let Some(counts) = line.strip_prefix("test result: ") {
            tally.add(libtest_counts(counts));
        }
    }
    if !child.wait()?.success() && tally.failed == 0 {
        tally.one(what, Err(anyhow::anyhow!("cargo test failed without a failed test")));
    }
    Ok(tally)
}

/// Guests that run at the same time. Each has two CPUs and keeps little more than one of ours busy.
const LANES: usize = 2;

fn guests(options: &Options, tally: &mut Tally) {
    let kernels = if options.kernel.is_empty() { Kernel::ALL.to_vec() } else { options.kernel.clone() };
    // The long ones first, so that none of them is left for the end.
    let wanted = |test: &GuestTest, kernel: &Kernel| {
        test.kernels != Kernels::OneInFull || options.full && *kernel == Kernel::V6_12
    };
    let mut jobs = Vec::new();
    for test in &GUESTS {
        for kernel in kernels.iter().filter(|kernel| wanted(test, kernel)) {
            jobs.extend(parts(options, test, *kernel).iter().map(|part| (test, *kernel, *part)));
        }
    }
    let (next, all) = (AtomicUsize::new(0), Mutex::new(Tally::default()));
    let bench = AtomicBool::new(options.filter.is_none() && kernels.contains(&Kernel::V6_12));
    let lane = || {
        while let Some((test, kernel, part)) = jobs.get(next.fetch_add(1, Ordering::Relaxed)) {
            let half = part.half.map_or(String::new(), |half| format!(", {half} half"));
            let label = format!("{} on {}{half}", test.name, kernel.name());
            let one = match test.starts_with {
                StartsWith::Package => package(options, *kernel, test, &label),
                _ => guest(options, *kernel, test, *part, &label, Vec::new()),
            };
            all.lock().unwrap_or_else(PoisonError::into_inner).add(one);
        }
        // Last, by whoever is done first: instructions are counted, so it does not matter what runs beside.
        if bench.swap(false, Ordering::Relaxed) {
            let result = bench::short();
            all.lock().unwrap_or_else(PoisonError::into_inner).one("bench::within_budget", result);
        }
    };
    thread::scope(|scope| (0..LANES).for_each(|_| drop(scope.spawn(lane))));
    tally.add(all.into_inner().unwrap_or_else(PoisonError::into_inner));
}

/// Looks at the packages, then installs, upgrades, removes and purges the Debian one in a guest that has nothing else of
/// ours, and after it the other one.
fn package(options: &Options, kernel: Kernel, test: &GuestTest, label: &str) -> Tally {
    match package::checked(&compile::as_built(), false) {
        Ok(made) => guest(
            options,
            kernel,
            test,
            Part::WHOLE,
            label,
            [Some(made.deb), made.rpm].into_iter().flatten().collect(),
        ),
        Err(error) => {
            let mut tally = Tally::default();
            tally.one(label, Err(error));
            tally
        }
    }
}

/// What of a program one guest runs.
#[derive(Clone, Copy)]
struct Part {
    /// What the program is told to leave the rest out.
    argument: Option<&'static str>,
    /// What the console's file is called after.
    purpose: &'static str,
    /// Which half of what one kernel runs.
    half: Option<&'static str>,
}

impl Part {
    const WHOLE: Self = Self { argument: None, purpose: "", half: None };
}

/// The guests for one program and kernel. What is long is cut in two, so that both lanes are busy to the end. The
/// samples of the other kernels differ, so that together they have most of it.
fn parts(options: &Options, test: &GuestTest, kernel: Kernel) -> &'static [Part] {
    const FIRST: Part = Part { argument: Some("--half-0"), purpose: "-first", half: Some("first") };
    const SECOND: Part = Part { argument: Some("--half-1"), purpose: "-second", half: Some("second") };
    const EVEN: Part = Part { argument: Some("--sample-0"), ..Part::WHOLE };
    const ODD: Part = Part { argument: Some("--sample-1"), ..Part::WHOLE };
    if options.full || options.filter.is_some() || test.kernels != Kernels::Sampled {
        return &[Part::WHOLE];
    }
    match kernel {
        Kernel::V6_1 => &[EVEN],
        Kernel::V6_12 => &[FIRST, SECOND],
        Kernel::Newest => &[ODD],
    }
}

fn guest(
    options: &Options,
    kernel: Kernel,
    test: &GuestTest,
    part: Part,
    label: &str,
    package: Vec<PathBuf>,
) -> Tally {
    progress::note(format!("{label}: booting"));
    let mut command = vec![OsString::from(format!("/usr/lib/enforcer-tests/{}", test.program))];
    if options.full {
        command.push("--full".into());
    }
    command.extend(part.argument.map(OsString::from));
    command.extend(options.filter.as_ref().map(OsString::from));
    let policies = compile::root().join("tests/policies");
    let vm_options = vm::Options {
        no_build: true,
        no_daemon: test.starts_with != StartsWith::Daemon,
        policies: policies.is_dir().then_some(policies),
        cmdline: test.cmdline.to_owned(),
        package,
        timeout: test.timeout[usize::from(options.full)],
        tick: Some(format!("{label} is running")),
        purpose: Some(format!("{}{}", test.name, part.purpose)),
        ..vm::Options::new(kernel)
    };
    let mut attempted = attempt(&vm_options, &command, label);
    if attempted.emulators_fault {
        // Said aloud, and once: what is ours ends the guest again.
        progress::note(format!("{label}: the emulated CPUs disagreed about patched code; booting once more"));
        attempted = attempt(&vm_options, &command, label);
    }
    let [passed, failed, skipped] = attempted.tally.numbers();
    progress::note(format!("{label}: {passed} passed, {failed} failed, {skipped} skipped"));
    attempted.tally
}

/// What one boot came to.
struct Attempt {
    tally: Tally,
    /// The guest's kernel met a breakpoint of its own where it patches code, after it had been removed.
    emulators_fault: bool,
}

fn attempt(options: &vm::Options, command: &[OsString], label: &str) -> Attempt {
    let kernel = options.kernel;
    let mut emulators_fault = false;
    let seen = Arc::default();
    let lines = GuestLines { kernel, partial: Vec::new(), seen: Arc::clone(&seen) };
    let ended = vm::run(options, command, lines, io::stderr());
    let Seen { summary, recap } = std::mem::take(&mut *seen.lock().unwrap_or_else(PoisonError::into_inner));
    let told = summary.is_some();
    let mut tally = summary.unwrap_or_default();
    tally.recap.append(recap);
    match ended {
        Ok(0) if told => {}
        Ok(_) if tally.failed > 0 => {}
        Ok(status) if told => {
            tally.one(label, Err(anyhow::anyhow!("status {status} though no test failed")));
        }
        Ok(status) => {
            let console = fs::read(vm::kept_console(options)).unwrap_or_default();
            let console = String::from_utf8_lossy(&console);
            let tail = console::end(&console);
            emulators_fault = console::is_emulators_fault(&console);
            let why = "no summary: the guest did not come up, or ended before its command did";
            tally
                .one(label, Err(anyhow::anyhow!("{why} (status {status}); the end of its console:\n{tail}")));
        }
        Err(error) => tally.one(label, Err(error)),
    }
    Attempt { tally, emulators_fault }
}
