//! Builds the eBPF object with a compiler that has `core` for it, then the userland that embeds the object.

use std::{
    path::{Path, PathBuf},
    process::Command,
};

use anyhow::{Context, Result, bail};

use crate::{
    progress::{note, output, run_shown},
    setup,
};

/// The release of bpf-linker whose LLVM fits the compilers below.
pub(crate) const BPF_LINKER: &str = "0.10.4";
const TARGET: &str = "bpfel-unknown-none";

/// The checkout that this xtask was built from.
pub(crate) fn root() -> &'static Path {
    Path::new(env!("CARGO_MANIFEST_DIR")).parent().unwrap_or(Path::new("."))
}

/// The userland's build directory.
pub(crate) fn target_dir() -> PathBuf {
    std::env::var_os("CARGO_TARGET_DIR").map_or_else(|| root().join("target"), PathBuf::from)
}

/// What a build leaves behind.
pub(crate) struct Built {
    /// The directory with `enforcer` and the programs of enforcer-tests.
    pub(crate) bin: PathBuf,
}

/// `cargo xtask build`.
pub(crate) fn build(debug: bool) -> Result<Built> {
    let object = ebpf()?;
    let profile: &[&str] = if debug { &[] } else { &["--release"] };
    let enforcer = ["build", "--package", "enforcer", "--features", "kernel"];
    let mut command = cargo();
    command.args(enforcer).args(profile).env("ENFORCER_BPF_OBJECT", &object);
    run_shown("building the daemon", &mut command)?;
    // Apart from the daemon, so that features of one do not leak into the other.
    run_shown(
        "building the guests' test programs",
        cargo().args(["build", "--package", "enforcer-tests"]).args(profile),
    )?;
    Ok(Built { bin: target_dir().join(if debug { "debug" } else { "release" }) })
}

/// What an earlier build left behind, however old.
pub(crate) fn as_built() -> Built {
    Built { bin: target_dir().join("release") }
}

/// rustup's (or the user's) cargo on the workspace.
pub(crate) fn cargo() -> Command {
    let mut command = Command::new("cargo");
    command.current_dir(root()).env_remove("CARGO").env_remove("RUSTC");
    command
}

/// Builds the eBPF object and returns its path.
pub(crate) fn ebpf() -> Result<PathBuf> {
    setup::for_bpf()?;
    let linker = setup::bpf_linker()?;
    let target_dir = target_dir().join("bpf");
    let flags = [
        "-Cdebuginfo=2",
        "-Clink-arg=--btf",
        &format!("-Clinker={}", linker.display()),
        "--cfg=bpf_target_arch=\"x86_64\"",
    ]
    .join("\x1f");
    let toolchain = BpfToolchain::find()?;
    let mut command = toolchain.cargo();
    command
        .current_dir(root().join("enforcer-ebpf"))
        .args(["build", "--release", "--target", TARGET])
        .args(toolchain.build_std())
        .env("CARGO_TARGET_DIR", &target_dir)
        .env("CARGO_ENCODED_RUSTFLAGS", flags);
    run_shown("building the eBPF programs", with_rustup_llvm(&mut command))
        .with_context(|| format!("the eBPF programs were compiled with {}", toolchain.name()))?;
    let object = target_dir.join(TARGET).join("release/enforcer-ebpf");
    if !object.is_file() {
        bail!("the eBPF build left no {}", object.display());
    }
    Ok(object)
}

/// A compiler that can produce eBPF.
pub(crate) enum BpfToolchain {
    /// Debian's rustc-web, with a prebuilt `core` for eBPF: needs nothing else.
    Debian,
    /// A rustup nightly with rust-src, which builds `core` itself.
    Nightly,
}

impl BpfToolchain {
    /// Debian's first: what it needs is fixed by packages, while a nightly changes daily.
    pub(crate) fn find() -> Result<Self> {
        if debian_has_core() {
            return Ok(Self::Debian);
        }
        if nightly_has_source() {
            return Ok(Self::Nightly);
        }
        bail!(
            "no compiler for eBPF: `cargo xtask setup` installs Debian's rustc-web, cargo-web and \
             libstd-rust-web-dev-bpf; elsewhere: rustup toolchain install nightly --component rust-src"
        )
    }

    fn name(&self) -> &'static str {
        match self {
            Self::Debian => "Debian's rustc-web (/usr/bin/rustc)",
            Self::Nightly => "rustup's nightly (-Z build-std=core)",
        }
    }

    fn cargo(&self) -> Command {
        let mut command = match self {
            Self::Debian => Command::new("/usr/bin/cargo"),
            Self::Nightly => Command::new("rustup"),
        };
        // What the outer cargo sets is about another compiler.
        for (name, _) in std::env::vars_os() {
            let name = name.to_string_lossy();
            if name.starts_with("CARGO") && name != "CARGO_HOME"
                || name.starts_with("RUST") && name != "RUSTUP_HOME"
            {
                command.env_remove(&*name);
            }
        }
        match self {
            // aya-ebpf uses an unstable feature (see its crate root); rustc-web is a stable compiler.
            Self::Debian => command.env("RUSTC", "/usr/bin/rustc").env("RUSTC_BOOTSTRAP", "1"),
            Self::Nightly => command.args(["run", "nightly", "cargo"]),
        };
        command
    }

    fn build_std(&self) -> &'static [&'static str] {
        match self {
            Self::Debian => &[],
            Self::Nightly => &["-Z", "build-std=core"],
        }
    }
}

fn debian_has_core() -> bool {
    let Ok(lib) =
        output(Command::new("/usr/bin/rustc").args(["--print", "target-libdir", "--target", TARGET]))
    else {
        return false;
    };
    let names = std::fs::read_dir(lib).into_iter().flatten().flatten().map(|entry| entry.file_name());
    Path::new("/usr/bin/cargo").exists()
        && names.into_iter().any(|name| name.to_string_lossy().starts_with("libcore-"))
}

fn nightly_has_source() -> bool {
    output(Command::new("rustup").args(["run", "nightly", "rustc", "--print", "sysroot"]))
        .is_ok_and(|sysroot| Path::new(&sysroot).join("lib/rustlib/src/rust/library/core").is_dir())
}

/// bpf-linker loads LLVM from rustup's toolchain, whose library directory it does not look for.
pub(crate) fn with_rustup_llvm(command: &mut Command) -> &mut Command {
    // Asked from the checkout, where rustup applies the toolchain that this project is built with.
    let sysroot =
        output(Command::new("rustc").args(["--print", "sysroot"]).current_dir(root()).env_remove("RUSTC"));
    match sysroot {
        Ok(sysroot) => {
            let mut path = Path::new(&sysroot).join("lib").into_os_string();
            if let Some(more) = std::env::var_os("LD_LIBRARY_PATH") {
                path.push(":");
                path.push(more);
            }
            command.env("LD_LIBRARY_PATH", path)
        }
        Err(error) => {
            note(format!(
                "rustc does not say where it is installed, bpf-linker may not find LLVM: {error:#}"
            ));
            command
        }
    }
}
