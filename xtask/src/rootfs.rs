//! The guest's root file system: a lean Debian with systemd, made by mmdebstrap and cached by its recipe.

use std::{
    fs,
    path::{Path, PathBuf},
    process::Command,
};

use anyhow::{Context, Result, bail};
use sha2::{Digest, Sha256};

use crate::{apt, cache, kernels, progress, setup};

const SUITE: &str = "bookworm";

/// What a small server with an agent on it has, and the tools of the tests.
const PACKAGES: &str = "systemd,systemd-sysv,dbus,kmod,iproute2,procps,util-linux,coreutils,passwd,python3,git,curl,\
                        ca-certificates,nodejs,busybox-static,strace,netcat-openbsd,apparmor,python3-venv,npm,make,\
                        gcc,libc6-dev,stress-ng,python3-pytest,cargo,rpm";

/// Runs on the finished tree ($1): users, masks, and the removal of what no guest reads.
const CUSTOMIZE: &str = include_str!("../../tests/guest/customize.sh");

/// Free room for what tests write.
const ROOM: u64 = 4 << 30;

/// A disk image with the root file system, and a static busybox for the step before it is mounted.
pub(crate) struct Rootfs {
    pub(crate) image: PathBuf,
    pub(crate) busybox: PathBuf,
}

/// The root file system, from the cache or built now.
pub(crate) fn ensure() -> Result<Rootfs> {
    let recipe = Sha256::new()
        .chain_update(SUITE)
        .chain_update(PACKAGES)
        .chain_update(CUSTOMIZE)
        .chain_update(ROOM.to_le_bytes());
    let digest: String = recipe.finalize().iter().take(8).map(|byte| format!("{byte:02x}")).collect();
    let dir = cache::ensure(&format!("rootfs-{digest}"), |staged| {
        setup::for_guests()?;
        build(staged)
    })
    .context("no root file system for the guests")?;
    cache::sweep("rootfs-", &dir)?;
    Ok(Rootfs { image: dir.join("root.ext4"), busybox: dir.join("busybox") })
}

fn build(staged: &Path) -> Result<()> {
    if !nix::unistd::geteuid().is_root() {
        // Its files belong to root and to users of its own.
        bail!(
            "making it takes root, once: sudo env PATH=\"$PATH\" ENFORCER_CACHE={} cargo xtask vm prepare",
            cache::dir()?.display()
        );
    }
    let work = cache::scratch("rootfs")?;
    let tree = work.path().join("tree");
    let sources = work.path().join("sources.list");
    let customize = work.path().join("customize.sh");
    fs::write(&sources, apt::sources(&[SUITE, "bookworm-security"])?)?;
    fs::write(&customize, CUSTOMIZE)?;
    // Packages are kept beside the images, so that a changed recipe downloads only what is new in it.
    let debs = cache::dir()?.join("debs/rootfs");
    fs::create_dir_all(&debs)?;
    let archives = "\"$1\"/var/cache/apt/archives";
    let bring = format!(
        "mkdir -p {archives} && find '{0}' -name '*.deb' -exec cp -t {archives} {{}} +",
        debs.display()
    );
    let keep = format!("rm -f '{0}'/*.deb && cp {archives}/*.deb '{0}'/", debs.display());
    let mut command = Command::new("mmdebstrap");
    command
        .args(["--variant=minbase", "--mode=root", "--skip=essential/unlink", "--format=directory"])
        .arg(format!("--include={PACKAGES}"))
        .arg(format!("--setup-hook={bring}"))
        .arg(format!("--customize-hook={keep}"))
        .arg(format!("--customize-hook=sh '{}' \"$1\"", customize.display()))
        .arg(SUITE)
        .arg(&tree)
        .arg(&sources);
    progress::run_logged("building the guests' root file system (mmdebstrap, about 40 s)", &mut command)?;
    fs::copy(tree.join("usr/bin/busybox"), staged.join("busybox"))?;
    kernels::make_ext4(&tree, &staged.join("root.ext4"), ROOM)
}
