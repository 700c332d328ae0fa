//! Installs what the other steps need, and says why. Each step looks first, so a second run does nothing.

use std::{
    path::{Path, PathBuf},
    process::Command,
};

use anyhow::{Context, Result, bail};

use crate::{
    cache,
    compile::{self, BPF_LINKER},
    progress::{note, output, run_logged, succeeds},
    receivers,
};

/// A package, how to see that it is there, and why it is wanted.
struct Need {
    package: &'static str,
    sign: Sign,
    why: &'static str,
}

enum Sign {
    Program(&'static str),
    File(&'static str),
    /// Only dpkg knows.
    Installed,
}

const COMPILER: [Need; 3] = [
    Need { package: "gcc", sign: Sign::Program("cc"), why: "links the userland" },
    Need { package: "libc6-dev", sign: Sign::File("/usr/include/stdlib.h"), why: "links the userland" },
    Need {
        package: "pkg-config",
        sign: Sign::Program("pkg-config"),
        why: "finds libraries for build scripts",
    },
];

/// Only where no rustup nightly with rust-src takes this part.
const BPF_COMPILER: [Need; 3] = [
    Need { package: "rustc-web", sign: Sign::Installed, why: "compiles the eBPF programs" },
    Need { package: "cargo-web", sign: Sign::File("/usr/bin/cargo"), why: "compiles the eBPF programs" },
    Need { package: "libstd-rust-web-dev-bpf", sign: Sign::Installed, why: "Rust's core library for eBPF" },
];

const GUESTS: [Need; 9] = [
    Need { package: "qemu-system-x86", sign: Sign::Program("qemu-system-x86_64"), why: "runs the guests" },
    Need { package: "mmdebstrap", sign: Sign::Program("mmdebstrap"), why: "makes their root file system" },
    Need {
        package: "debian-archive-keyring",
        sign: Sign::File("/usr/share/keyrings/debian-archive-keyring.gpg"),
        why: "verifies what is downloaded for them",
    },
    Need { package: "e2fsprogs", sign: Sign::Program("mke2fs"), why: "packs their disks" },
    Need { package: "kmod", sign: Sign::Program("depmod"), why: "finds which modules their kernels need" },
    Need { package: "xz-utils", sign: Sign::Program("xz"), why: "unpacks kernel modules" },
    Need { package: "zstd", sign: Sign::Program("zstd"), why: "unpacks kernel modules" },
    Need {
        package: "util-linux",
        sign: Sign::Program("setpriv"),
        why: "ends a guest together with the command that started it",
    },
    Need {
        package: "ca-certificates",
        sign: Sign::File("/etc/ssl/certs/ca-certificates.crt"),
        why: "verifies downloads",
    },
];

const DEMO: [Need; 2] = [
    Need { package: "nodejs", sign: Sign::Program("node"), why: "runs npm" },
    Need { package: "npm", sign: Sign::Program("npm"), why: "fetches the agent of the demo" },
];

const UNIT_TESTS: [Need; 1] = [Need {
    package: "openssh-client",
    sign: Sign::Program("ssh-keygen"),
    why: "signs decisions as approvers do, in tests",
}];

const PACKAGE_CHECKS: [Need; 2] = [
    Need { package: "lintian", sign: Sign::Program("lintian"), why: "knows what a good Debian package is" },
    Need { package: "rpm", sign: Sign::Program("rpm"), why: "says what an .rpm has in it" },
];

const FULL_TESTS: [Need; 1] = [Need {
    package: "prometheus",
    sign: Sign::Program("promtool"),
    why: "promtool reads the daemon's metrics",
}];

const PYTHON: [Need; 1] = [Need {
    package: "python3-venv",
    sign: Sign::Installed,
    why: "holds the Python packages that check what the log's sinks send",
}];

/// `cargo xtask setup`: everything.
pub(crate) fn all() -> Result<()> {
    for_userland()?;
    for_bpf()?;
    for_guests()?;
    for_demo()?;
    apt(&UNIT_TESTS)?;
    receivers::environment();
    for component in ["rustfmt", "clippy"] {
        let tool = if component == "clippy" { "cargo-clippy" } else { component };
        if !succeeds(Command::new(tool).arg("--version")) {
            note(format!("installing {component}: `cargo xtask test` checks the sources with it"));
            run_logged("rustup component add", Command::new("rustup").args(["component", "add", component]))
                .with_context(|| format!("install {component} for your Rust toolchain"))?;
        }
    }
    note("everything that a build, a guest and a test need is installed");
    Ok(())
}

pub(crate) fn for_userland() -> Result<()> {
    apt(&COMPILER)
}

pub(crate) fn for_guests() -> Result<()> {
    apt(&GUESTS)
}

pub(crate) fn for_python() -> Result<()> {
    // A Python that is not Debian's has what it takes.
    let ready = succeeds(Command::new("python3").args(["-m", "ensurepip", "--version"]));
    if ready { Ok(()) } else { apt(&PYTHON) }
}

pub(crate) fn for_demo() -> Result<()> {
    // npm may come without Debian's package (nodesource's nodejs has its own).
    if DEMO.iter().all(|need| need.present()) { Ok(()) } else { apt(&DEMO) }
}

pub(crate) fn for_bpf() -> Result<()> {
    for_userland()?;
    if compile::BpfToolchain::find().is_err() {
        apt(&BPF_COMPILER)?;
    }
    bpf_linker().map(drop)
}

/// bpf-linker, from PATH or from the cache's own root; installed there when neither has one that runs.
pub(crate) fn bpf_linker() -> Result<PathBuf> {
    let own_root = cache::dir()?.join("cargo");
    let own = own_root.join("bin/bpf-linker");
    let works = |path: &Path| succeeds(compile::with_rustup_llvm(&mut Command::new(path)).arg("--version"));
    for candidate in [on_path("bpf-linker"), Some(own.clone())].into_iter().flatten() {
        if works(&candidate) {
            return Ok(candidate);
        }
    }
    let _lock = cache::lock()?;
    note(format!("bpf-linker {BPF_LINKER} links the eBPF programs; it goes to {}", own_root.display()));
    run_logged(
        "installing bpf-linker (about two minutes)",
        Command::new("cargo")
            .args(["install", "bpf-linker", "--locked", "--force", "--version", BPF_LINKER, "--root"])
            .arg(&own_root),
    )?;
    if !works(&own) {
        bail!("{} does not run; it loads LLVM from the lib directory of rustup's toolchain", own.display());
    }
    Ok(own)
}

/// For `cargo xtask package --check` and `cargo xtask test --full` only.
pub(crate) fn for_package_checks() -> Result<()> {
    apt(&PACKAGE_CHECKS)
}

/// For `cargo xtask test --full` only.
pub(crate) fn for_full_tests() -> Result<()> {
    apt(&FULL_TESTS)
}

/// A cargo tool of one release, in the cache's own root; installed there when it is not.
pub(crate) fn cargo_tool(name: &str, version: &str, why: &str) -> Result<PathBuf> {
    let root = cache::dir()?.join("cargo");
    let tool = root.join("bin").join(name);
    let installed = || {
        output(Command::new(&tool).arg("--version"))
            .is_ok_and(|text| text.split_whitespace().any(|w| w == version))
    };
    if installed() {
        return Ok(tool);
    }
    let _lock = cache::lock()?;
    note(format!("{name} {version} is for {why}; it goes to {}", root.display()));
    run_logged(
        &format!("installing {name} (about three minutes)"),
        Command::new("cargo")
            .args(["install", name, "--locked", "--force", "--version", version, "--root"])
            .arg(&root)
            .env_remove("CARGO_TARGET_DIR"),
    )?;
    if !installed() {
        bail!("{} does not say that it is version {version}", tool.display());
    }
    Ok(tool)
}

/// A command run by root: itself, or through sudo.
pub(crate) fn as_root(program: &str) -> Command {
    if nix::unistd::geteuid().is_root() {
        return Command::new(program);
    }
    let mut command = Command::new("sudo");
    command.arg("--").arg(program);
    command
}

fn apt(needs: &[Need]) -> Result<()> {
    let missing: Vec<&Need> = needs.iter().filter(|need| !need.present()).collect();
    if missing.is_empty() {
        return Ok(());
    }
    for need in &missing {
        note(format!("installing {}: {}", need.package, need.why));
    }
    let packages: Vec<&str> = missing.iter().map(|need| need.package).collect();
    let install = || {
        let mut command = as_root("env");
        command
            .args([
                "DEBIAN_FRONTEND=noninteractive",
                "apt-get",
                "install",
                "--yes",
                "--no-install-recommends",
            ])
            .args(["-o", "DPkg::Lock::Timeout=300"])
            .args(&packages);
        run_logged("apt-get install", &mut command)
    };
    // Fresh machines have no package lists, old ones have stale lists.
    if install().is_err() {
        run_logged("apt-get update", as_root("apt-get").arg("update"))?;
        install().with_context(|| {
            format!("install these yourself: {} (Debian 12 has all of them)", packages.join(" "))
        })?;
    }
    Ok(())
}

impl Need {
    fn present(&self) -> bool {
        match self.sign {
            Sign::Program(name) => on_path(name).is_some(),
            Sign::File(path) => Path::new(path).exists(),
            Sign::Installed => output(Command::new("dpkg-query").args(["-W", "-f=${Status}", self.package]))
                .is_ok_and(|status| status.ends_with(" installed")),
        }
    }
}

/// Also looks where administrators' tools are, which users' PATHs often leave out.
pub(crate) fn on_path(program: &str) -> Option<PathBuf> {
    let path = std::env::var_os("PATH").unwrap_or_default();
    let system = ["/usr/sbin", "/sbin"].map(PathBuf::from);
    std::env::split_paths(&path).chain(system).map(|dir| dir.join(program)).find(|file| file.is_file())
}
