//! `cargo xtask demo`: a real agent, in a guest, that tries to leave its scope.

use std::{
    ffi::OsString,
    fs, io,
    path::{Path, PathBuf},
    process::Command,
};

use anyhow::{Context, Result, bail};
use sha2::{Digest, Sha256};

use crate::{cache, compile, kernels, kernels::Kernel, progress, setup, vm};

/// Where the npm package is in the guest.
const AGENT: &str = "/opt/mcp";
/// The scripts of the demo, in the guest.
const SCRIPTS: &str = "/opt/demo";

pub(crate) fn main(kernel: Kernel) -> Result<i32> {
    let demo = compile::root().join("demo");
    let start = demo.join("guest/run");
    if !start.is_file() {
        bail!("{} is missing: the demo starts with it", start.display());
    }
    let work = cache::scratch("demo")?;
    let scripts = work.path().join("scripts.ext4");
    kernels::make_ext4(&demo.join("guest"), &scripts, 4 << 20)?;
    let options = vm::Options {
        policies: Some(demo.join("policies")),
        images: vec![(agent()?, AGENT.to_owned()), (scripts, SCRIPTS.to_owned())],
        ..vm::Options::new(kernel)
    };
    vm::run(&options, &[OsString::from(format!("{SCRIPTS}/run"))], io::stdout(), io::stderr())
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
