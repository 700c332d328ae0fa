//! `cargo xtask demo`: real agents that work and then try to leave their scope, in a guest or on this host.

use std::{
    ffi::OsString,
    fs,
    io::{self, IsTerminal},
    path::{Path, PathBuf},
    process::Command,
};

use anyhow::{Context, Result, bail};
use clap::Args;
use sha2::{Digest, Sha256};

use crate::{cache, compile, kernels, kernels::Kernel, progress, setup, vm};

/// Where the npm package is while the demo runs.
const AGENT: &str = "/opt/mcp";
/// Where the demo's scripts are.
const SCRIPTS: &str = "/opt/demo";
/// Where a daemon with the default settings reads policies.
const POLICIES: &str = "/etc/enforcer/policies.d";

/// Real agents that work and then try to leave their scope; fails if anything goes otherwise than it must
#[derive(Args)]
pub(crate) struct Options {
    /// The guest's kernel
    #[arg(long, value_enum, default_value = "6.12")]
    kernel: Kernel,
    /// Take what an earlier build left in the target directory
    #[arg(long)]
    no_build: bool,
    /// Run here instead of in a guest, under the daemon that enforces here; takes root
    ///
    /// Adds the demo's two policies to /etc/enforcer/policies.d, mounts its programs at /opt/mcp and
    /// /opt/demo, and makes /srv/notes, /srv/project and a key in /root/.ssh; takes all of it away again.
    #[arg(long, conflicts_with_all = ["kernel", "no_build"])]
    on_this_host: bool,
}

pub(crate) fn main(options: &Options) -> Result<i32> {
    let demo = compile::root().join("demo");
    let mut command = vec![OsString::from(format!("{SCRIPTS}/run"))];
    // The guest's output is a pipe; only here is it known where it ends.
    if io::stdout().is_terminal() && std::env::var_os("NO_COLOR").is_none() {
        command.push("--colour".into());
    }
    if options.on_this_host { here(&demo, &command) } else { in_a_guest(options, &demo, &command) }
}

fn in_a_guest(options: &Options, demo: &Path, command: &[OsString]) -> Result<i32> {
    let work = cache::scratch("demo")?;
    let scripts = work.path().join("scripts.ext4");
    kernels::make_ext4(&demo.join("guest"), &scripts, 4 << 20)?;
    let options = vm::Options {
        policies: Some(demo.join("policies")),
        no_build: options.no_build,
        images: vec![(agent()?, AGENT.to_owned()), (scripts, SCRIPTS.to_owned())],
        ..vm::Options::new(options.kernel)
    };
    vm::run(&options, command, io::stdout(), io::stderr())
}

/// On this machine: what is added to it is taken away when the guards go, in the opposite order.
fn here(demo: &Path, command: &[OsString]) -> Result<i32> {
    if !nix::unistd::geteuid().is_root() {
        bail!("on this host the demo takes root: sudo env PATH=\"$PATH\" cargo xtask demo --on-this-host");
    }
    match Command::new("enforcer").arg("status").output() {
        Ok(output) if matches!(output.status.code(), Some(0 | 1)) => {}
        Ok(_) => bail!("no daemon enforces here; see `enforcer status`, or leave out --on-this-host"),
        Err(error) => bail!("the program `enforcer` does not run here ({error}); see docs/install.md"),
    }
    let image = agent()?;
    let _agent = Mounted::new(&["-o", "loop,ro"], &image, Path::new(AGENT))?;
    let _scripts = Mounted::new(&["--bind"], &demo.join("guest"), Path::new(SCRIPTS))?;
    let _policies = Policies::add(&demo.join("policies"), Path::new(POLICIES))?;
    let status = Command::new(&command[0]).args(&command[1..]).status().context("cannot start the demo")?;
    Ok(status.code().unwrap_or(1))
}

/// A mount of the demo's own.
struct Mounted<'a>(&'a Path);

impl<'a> Mounted<'a> {
    fn new(how: &[&str], what: &Path, point: &'a Path) -> Result<Self> {
        fs::create_dir(point)
            .with_context(|| format!("the demo mounts its programs at {}", point.display()))?;
        let mounted = Self(point);
        progress::output(Command::new("mount").args(how).arg(what).arg(point))?;
        Ok(mounted)
    }
}

impl Drop for Mounted<'_> {
    fn drop(&mut self) {
        // Removing the directory fails where it is still a mount, so nothing below it is ever removed.
        let unmounted = progress::output(Command::new("umount").arg(self.0));
        if let Err(error) = fs::remove_dir(self.0) {
            progress::note(format!("{} remains: {error} ({unmounted:?})", self.0.display()));
        }
    }
}

/// The demo's policies, in the daemon's directory.
struct Policies(Vec<PathBuf>);

impl Policies {
    fn add(from: &Path, to: &Path) -> Result<Self> {
        let mut added = Self(Vec::new());
        for entry in fs::read_dir(from)? {
            let entry = entry?;
            let target = to.join(entry.file_name());
            if target.exists() {
                bail!("{} exists: an agent of this host has the name of one of the demo's", target.display());
            }
            added.0.push(target.clone());
            fs::copy(entry.path(), &target).with_context(|| format!("cannot write {}", target.display()))?;
        }
        reload()?;
        Ok(added)
    }
}

impl Drop for Policies {
    fn drop(&mut self) {
        for file in &self.0 {
            if let Err(error) = fs::remove_file(file) {
                progress::note(format!("{} remains: {error}", file.display()));
            }
        }
        if let Err(error) = reload() {
            progress::note(format!("the daemon still has the demo's policies: {error:#}"));
        }
    }
}

fn reload() -> Result<()> {
    progress::output(Command::new("enforcer").arg("reload")).map(drop)
}

/// An image with the agent's npm package, at the versions and digests of demo/agent/package-lock.json.
fn agent() -> Result<PathBuf> {
    let manifest = compile::root().join("demo/agent");
    let files = ["package.json", "package-lock.json"];
    let mut digest = Sha256::new();
    for file in files {
        digest.update(
            fs::read(manifest.join(file))
                .with_context(|| format!("cannot read {file} of the demo's agent"))?,
        );
    }
    let digest: String = digest.finalize().iter().take(8).map(|byte| format!("{byte:02x}")).collect();
    let dir = cache::ensure(&format!("agent-{digest}"), |staged| {
        setup::for_demo()?;
        let work = cache::scratch("npm")?;
        for file in files {
            fs::copy(manifest.join(file), work.path().join(file))?;
        }
        install(work.path())?;
        kernels::make_ext4(work.path(), &staged.join("agent.ext4"), 4 << 20)
    })?;
    cache::sweep("agent-", &dir)?;
    Ok(dir.join("agent.ext4"))
}

/// No script of a package runs here, only what the lock file names comes in.
fn install(dir: &Path) -> Result<()> {
    progress::run_logged(
        "fetching the demo's agent with npm",
        Command::new("npm")
            .args(["ci", "--ignore-scripts", "--omit=dev", "--no-audit", "--no-fund"])
            .current_dir(dir),
    )
}
