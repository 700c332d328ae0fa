//! `cargo xtask vm`: the contract between this checkout and a guest that runs it.

use std::{
    collections::BTreeSet,
    ffi::OsString,
    fs::{self, File},
    io::{self, IsTerminal, Write},
    path::{Path, PathBuf},
    process::Command,
    time::Duration,
};

use anyhow::{Context, Result, bail};
use clap::{Args, Subcommand};

use crate::{
    cache, compile,
    guest::{Accel, Boot, Console, End, Limits, Report},
    kernels::{self, Kernel},
    kvm,
    payload::{self, Modes, Payload},
    progress, rootfs,
};

/// As `timeout(1)` has it.
const TIMED_OUT: i32 = 124;
/// The guest, not the command, failed.
const GUEST_FAILED: i32 = 125;

/// As a shell reports SIGPIPE.
const OUTPUT_CLOSED: i32 = 141;

/// Guests with real kernels.
#[derive(Subcommand)]
pub(crate) enum Vm {
    /// Boot, install this build, run CMD as root outside every agent, and exit with its status
    ///
    /// 124: CMD took longer than --timeout. 125: the guest or the daemon did not start.
    Run {
        #[command(flatten)]
        options: Options,
        #[arg(last = true, required = true, value_name = "CMD")]
        command: Vec<OsString>,
    },
    /// Boot and hand over the guest's console; leaving the shell switches the guest off
    Shell {
        #[command(flatten)]
        options: Options,
    },
    /// Fetch and build the images of all kernels (or of those named), and boot nothing
    Prepare {
        #[arg(long)]
        kernel: Vec<Kernel>,
    },
}

#[derive(Args, Clone, Debug)]
pub(crate) struct Options {
    /// The kernel to boot
    #[arg(long, value_enum, default_value = "6.12")]
    pub(crate) kernel: Kernel,
    /// A directory that is /share in the guest; what the guest writes there comes back
    #[arg(long, value_name = "DIR")]
    pub(crate) share: Option<PathBuf>,
    /// A directory whose files go to /etc/enforcer/policies.d
    #[arg(long, value_name = "DIR")]
    pub(crate) policies: Option<PathBuf>,
    /// Appended to the kernel's command line
    #[arg(long, default_value = "", allow_hyphen_values = true)]
    pub(crate) cmdline: String,
    /// Do not start the daemon
    #[arg(long)]
    pub(crate) no_daemon: bool,
    /// Let the guest's clock count instructions (emulated, one CPU), so that benchmarks repeat
    #[arg(long)]
    pub(crate) icount: bool,
    /// Let emulated CPUs take turns in one thread: slower, but none executes what another has just replaced, of which
    /// the kernel dies sooner or later where programs are exchanged again and again
    #[arg(long, conflicts_with = "icount")]
    pub(crate) in_turn: bool,
    /// Seconds that CMD may take
    #[arg(long, value_name = "S", default_value_t = 600)]
    pub(crate) timeout: u64,
    /// Take what an earlier build left in the target directory
    #[arg(long)]
    pub(crate) no_build: bool,
    /// Ext4 images to mount read-only; for the demo, not for the command line
    #[arg(skip)]
    pub(crate) images: Vec<(PathBuf, String)>,
    /// Install nothing of this build but the tests' programs, and lay these packages (a .deb, an .rpm) beside them
    #[arg(long, value_name = "FILE")]
    pub(crate) package: Vec<PathBuf>,
    /// Says every few seconds that the command is running; for tests, not for the command line
    #[arg(skip)]
    pub(crate) tick: Option<String>,
    /// Beside the kernel, what tells this guest from others that run at the same time
    #[arg(skip)]
    pub(crate) purpose: Option<String>,
}

impl Options {
    /// What `vm run` does without any option.
    pub(crate) fn new(kernel: Kernel) -> Self {
        Self {
            kernel,
            share: None,
            policies: None,
            cmdline: String::new(),
            no_daemon: false,
            icount: false,
            in_turn: false,
            timeout: 600,
            no_build: false,
            images: Vec::new(),
            package: Vec::new(),
            tick: None,
            purpose: None,
        }
    }
}

pub(crate) fn main(vm: Vm) -> Result<i32> {
    match vm {
        Vm::Run { options, command } => run(&options, &command, io::stdout(), io::stderr()),
        Vm::Shell { options } => shell(&options),
        Vm::Prepare { kernel } => {
            rootfs::ensure()?;
            let kernels = if kernel.is_empty() { Kernel::ALL.to_vec() } else { kernel };
            for kernel in kernels {
                kernels::ensure(kernel)?;
                progress::note(format!("kernel {} is ready", kernel.name()));
            }
            Ok(0)
        }
    }
}

/// Boots, runs, and returns the status that the contract promises.
pub(crate) fn run(
    options: &Options,
    command: &[OsString],
    stdout: impl Write + Send + 'static,
    stderr: impl Write + Send + 'static,
) -> Result<i32> {
    let stage = Stage::prepare(options, Some(command))?;
    let console = stage.work.path().join("console");
    let boot = stage.boot("guest-run.service", Console::Log(console.clone()));
    // An emulated CPU that others share can be slow; a guest that gets no further than this hangs.
    let limits = Limits {
        boot: Duration::from_secs(900),
        command: Duration::from_secs(options.timeout),
        tick: options.tick.clone(),
    };
    let report = boot.run(stdout, stderr, &limits)?;
    let kept = keep_console(&console, options);
    if let Some(after) = report.ready_after
        && std::env::var_os("ENFORCER_VM_TIMES").is_some()
    {
        progress::note(format!(
            "{}: the command started after {:.1} s",
            options.kernel.name(),
            after.as_secs_f64()
        ));
    }
    if let (Some(share), End::Exit(_)) = (&options.share, &report.end) {
        if report.share_lost {
            bail!("the guest could not return /share (is it larger than 16 GB?)");
        }
        payload::take_back(&stage.returns, share, &stage.shared)
            .with_context(|| format!("cannot write what the guest left in /share to {}", share.display()))?;
    }
    Ok(status(&report, options, &console, &kept))
}

fn status(report: &Report, options: &Options, console: &Path, kept: &Path) -> i32 {
    let (what, status) = match report.end {
        End::Exit(status) => return status,
        End::OutputClosed => return OUTPUT_CLOSED,
        End::DaemonFailed => {
            progress::note("the daemon did not start in the guest; its journal is above");
            return GUEST_FAILED;
        }
        End::NotReady => ("the guest did not come up".to_owned(), GUEST_FAILED),
        End::TimedOut => {
            (format!("the command took longer than {} s and was ended", options.timeout), TIMED_OUT)
        }
        End::Died => ("the guest ended before its command did".to_owned(), GUEST_FAILED),
    };
    let tail = File::open(console).map(|mut file| progress::last_lines(&mut file, 60)).unwrap_or_default();
    progress::note(format!("the end of the guest's console:\n{tail}"));
    progress::note(format!(
        "kernel {}: {what}; its whole console is in {}",
        options.kernel.name(),
        kept.display()
    ));
    status
}

/// The last console of each kernel and purpose stays, for looking at it after a failure.
fn keep_console(console: &Path, options: &Options) -> PathBuf {
    let kept = kept_console(options);
    // Being a help only, its failure is none of the run.
    let directory = kept.parent().map_or(Ok(()), fs::create_dir_all);
    let _ = directory.and_then(|()| fs::copy(console, &kept));
    kept
}

/// Where the last console of such a guest is.
pub(crate) fn kept_console(options: &Options) -> PathBuf {
    let purpose = options.purpose.as_ref().map(|purpose| format!("-{purpose}")).unwrap_or_default();
    compile::target_dir().join("vm").join(format!("console-{}{purpose}.log", options.kernel.name()))
}

fn shell(options: &Options) -> Result<i32> {
    if !io::stdin().is_terminal() {
        bail!("`vm shell` needs a terminal; `vm run -- CMD` does not");
    }
    let stage = Stage::prepare(options, None)?;
    progress::note("booting; leave with `exit`, or at once with Ctrl-A X");
    stage.boot("guest-shell.service", Console::Terminal).interact()?;
    if let Some(share) = &options.share {
        // A guest that was switched off at once returns nothing or a part: nothing is removed for that.
        payload::take_back(&stage.returns, share, &BTreeSet::new())
            .context("the guest did not return /share; leave its shell with `exit`")?;
    }
    Ok(0)
}

/// All that a boot needs, on disk.
struct Stage<'a> {
    options: &'a Options,
    kernel: kernels::KernelImage,
    rootfs: rootfs::Rootfs,
    accel: Accel,
    work: tempfile::TempDir,
    payload: PathBuf,
    returns: PathBuf,
    shared: BTreeSet<PathBuf>,
}

impl<'a> Stage<'a> {
    fn prepare(options: &'a Options, command: Option<&[OsString]>) -> Result<Self> {
        let built = if options.no_build { compile::as_built() } else { compile::build(false)? };
        let rootfs = rootfs::ensure()?;
        let kernel = kernels::ensure(options.kernel)?;
        let accel = match (options.icount, kvm::works(&kernel, &rootfs)?) {
            (true, _) => Accel::Counted,
            (false, true) => Accel::Kvm,
            (false, false) if options.in_turn => Accel::InTurn,
            (false, false) => Accel::Emulated,
        };
        let work = cache::scratch("vm")?;
        let (payload, returns) = (work.path().join("payload"), work.path().join("returns"));
        let shared =
            pack(&payload, &built, options, command).context("cannot pack what goes into the guest")?;
        // Sparse: takes as much as the guest writes.
        File::create(&returns)?.set_len(16 << 30)?;
        Ok(Self { options, kernel, rootfs, accel, work, payload, returns, shared })
    }

    fn boot(&self, unit: &'a str, console: Console) -> Boot<'_> {
        Boot {
            kernel: &self.kernel,
            rootfs: &self.rootfs,
            accel: self.accel,
            payload: &self.payload,
            returns: self.options.share.is_some().then_some(&self.returns),
            images: &self.options.images,
            cmdline: &self.options.cmdline,
            unit,
            console,
            work: self.work.path(),
        }
    }
}

/// Writes the archive that is unpacked over the guest's root; returns what of /share went in.
fn pack(
    path: &Path,
    built: &compile::Built,
    options: &Options,
    command: Option<&[OsString]>,
) -> Result<BTreeSet<PathBuf>> {
    const HERE: &str = "usr/lib/enforcer-guest";
    let mut payload = Payload::create(path)?;
    for (name, text) in [
        ("guest-run", include_str!("../../tests/guest/guest-run")),
        ("return-share", include_str!("../../tests/guest/return-share")),
    ] {
        payload.bytes(&format!("{HERE}/{name}"), 0o755, text.as_bytes())?;
    }
    for (name, text) in [
        ("guest-run.service", include_str!("../../tests/guest/guest-run.service")),
        ("guest-shell.service", include_str!("../../tests/guest/guest-shell.service")),
    ] {
        payload.bytes(&format!("usr/lib/systemd/system/{name}"), 0o644, text.as_bytes())?;
    }
    if let Some(command) = command {
        payload.bytes(&format!("{HERE}/command"), 0o644, &payload::zero_terminated(command))?;
    }
    if !options.no_daemon {
        payload.bytes(&format!("{HERE}/start-daemon"), 0o644, b"")?;
    }

    for package in &options.package {
        let path = Path::new("usr/lib/enforcer-tests/enforcer")
            .with_extension(package.extension().unwrap_or_default());
        payload.file(&path, package, Some(0o644))?;
    }
    if options.package.is_empty() {
        install(&mut payload, built)?;
        payload.dir("etc/enforcer")?;
        payload.dir("etc/enforcer/policies.d")?;
    }
    tests(&mut payload, built)?;
    if let Some(policies) = &options.policies {
        payload.tree("etc/enforcer/policies.d", policies, Modes::Plain)?;
    }
    let mut shared = std::collections::BTreeSet::new();
    if let Some(share) = &options.share {
        payload.bytes(&format!("{HERE}/share-returns"), 0o644, b"")?;
        shared = payload.tree("share", share, Modes::Kept)?;
    }
    payload.finish()?;
    Ok(shared)
}

/// This build, laid out as its packages lay it out.
fn install(payload: &mut Payload, built: &compile::Built) -> Result<()> {
    let enforcer = built.bin.join("enforcer");
    if enforcer.is_file() {
        program(payload, "usr/bin/enforcer", &enforcer)?;
    }
    let dist = compile::root().join("dist");
    for (from, to) in [
        ("systemd", "usr/lib/systemd/system"),
        ("etc", "etc"),
        ("sysusers.d", "usr/lib/sysusers.d"),
        ("tmpfiles.d", "usr/lib/tmpfiles.d"),
    ] {
        let from = dist.join(from);
        if from.is_dir() {
            payload.tree(to, &from, Modes::Plain)?;
        }
    }
    // A guest that its host lets wait loads the programs for minutes, and stands still for longer than the watchdog waits.
    let patient = b"[Service]\nTimeoutStartSec=900\nWatchdogSec=180\n";
    payload.bytes("etc/systemd/system/enforcer.service.d/guest.conf", 0o644, patient)?;
    if dist.join("sysusers.d").is_dir() {
        // Otherwise systemd looks for new users only after an update of the whole system.
        let unconditional = b"[Unit]\nConditionNeedsUpdate=\n";
        payload.bytes("etc/systemd/system/systemd-sysusers.service.d/guest.conf", 0o644, unconditional)?;
    }
    Ok(())
}

/// The programs of enforcer-tests, which are its src/bin entries.
fn tests(payload: &mut Payload, built: &compile::Built) -> Result<()> {
    let sources = compile::root().join("tests/src/bin");
    for entry in fs::read_dir(&sources).into_iter().flatten().flatten() {
        let source = entry.path();
        let Some(name) = source.file_stem() else { continue };
        let file = built.bin.join(name);
        if file.is_file() {
            program(payload, &format!("usr/lib/enforcer-tests/{}", name.to_string_lossy()), &file)?;
        }
    }
    let policies = compile::root().join("tests/policies");
    if policies.is_dir() {
        payload.tree("usr/lib/enforcer-tests/policies", &policies, Modes::Plain)?;
    }
    Ok(())
}

/// Without debug information, as packages have it: an emulated CPU needs seconds to unpack the rest.
fn program(payload: &mut Payload, to: &str, from: &Path) -> Result<()> {
    let stripped = tempfile::NamedTempFile::new()?;
    let mut strip = Command::new("strip");
    strip.arg("--strip-debug").arg("-o").arg(stripped.path()).arg(from);
    // A machine without binutils has a slower boot, no less.
    let source = if progress::succeeds(&mut strip) { stripped.path() } else { from };
    payload.file(Path::new(to), source, Some(0o755))
}
