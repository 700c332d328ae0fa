//! Debian's cloud kernels, fetched with apt and kept.

use std::{
    fs,
    path::{Path, PathBuf},
    process::Command,
};

use anyhow::{Context, Result, bail};
use clap::ValueEnum;
use walkdir::WalkDir;

use crate::{apt::Apt, cache, progress, setup};

/// Raised when the layout of a cached kernel changes; the packages themselves are kept apart and reused.
const FORMAT: u32 = 2;

/// The kernels that the Enforcer is tested on: the oldest and the newest supported, and one between.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub(crate) enum Kernel {
    #[value(name = "6.1")]
    V6_1,
    #[value(name = "6.12")]
    V6_12,
    #[value(name = "newest")]
    Newest,
}

impl Kernel {
    pub(crate) const ALL: [Self; 3] = [Self::V6_1, Self::V6_12, Self::Newest];

    pub(crate) fn name(self) -> &'static str {
        match self {
            Self::V6_1 => "6.1",
            Self::V6_12 => "6.12",
            Self::Newest => "newest",
        }
    }
}

/// What QEMU needs of one kernel.
pub(crate) struct KernelImage {
    pub(crate) vmlinuz: PathBuf,
    /// An ext4 image of `/usr/lib/modules`: mounting it costs a boot nothing, unpacking would.
    pub(crate) modules: PathBuf,
    /// Modules (decompressed) to load before the root file system can be mounted, in order.
    pub(crate) early: Vec<PathBuf>,
}

/// The image of one kernel, from the cache or from Debian's archive.
pub(crate) fn ensure(kernel: Kernel) -> Result<KernelImage> {
    let dir = cache::ensure(&format!("kernel-{}-f{FORMAT}", kernel.name()), |staged| {
        setup::for_guests()?;
        let debs = packages(kernel)?;
        assemble(&debs, staged)
    })
    .with_context(|| format!("no image of kernel {}", kernel.name()))?;
    let mut early: Vec<PathBuf> =
        fs::read_dir(dir.join("early"))?.flatten().map(|entry| entry.path()).collect();
    early.sort();
    Ok(KernelImage { vmlinuz: dir.join("vmlinuz"), modules: dir.join("modules.ext4"), early })
}

/// The `.deb` files of a kernel. They stay in the cache: a new layout must not need the network again.
fn packages(kernel: Kernel) -> Result<Vec<PathBuf>> {
    let kept = cache::dir()?.join("debs").join(format!("kernel-{}", kernel.name()));
    if !kept.exists() {
        let staged = cache::scratch("debs")?;
        let apt = Apt::refresh()?;
        let names = choose(kernel, &apt)?;
        apt.download(&names, staged.path())?;
        fs::create_dir_all(kept.parent().context("the cache has directories")?)?;
        fs::rename(staged.path(), &kept)?;
    }
    Ok(fs::read_dir(&kept)?.flatten().map(|entry| entry.path()).collect())
}

/// The packages that together hold the newest image and modules of a series.
fn choose(kernel: Kernel, apt: &Apt) -> Result<Vec<String>> {
    const FLAVOUR: &str = "-cloud-amd64";
    // Up to 6.12 one package holds all (only the unsigned one has no other version in its way); the 7.x
    // packages are split.
    let (prefix, suffix) = match kernel {
        Kernel::V6_1 => ("linux-image-6.1.0-", "-cloud-amd64-unsigned"),
        Kernel::V6_12 => ("linux-image-6.12.", "-cloud-amd64-unsigned"),
        Kernel::Newest => ("linux-image-7.", FLAVOUR),
    };
    let images = apt.packages(|name| name.starts_with(prefix) && name.ends_with(suffix))?;
    let Some(image) = images.into_iter().max_by_key(|name| version_key(name)) else {
        bail!(
            "this machine's Debian archive has no {prefix}*{suffix}; set ENFORCER_DEBIAN_MIRROR to one that has"
        );
    };
    if kernel != Kernel::Newest {
        return Ok(vec![image]);
    }
    let release = image.trim_start_matches("linux-image-").to_owned();
    apt.packages(|name| {
        ["image", "base", "binary", "modules"].iter().any(|part| name == format!("linux-{part}-{release}"))
    })
}

/// Orders package names by the numbers in them.
fn version_key(name: &str) -> Vec<u64> {
    name.split(|c: char| !c.is_ascii_digit()).filter_map(|part| part.parse().ok()).collect()
}

fn assemble(debs: &[PathBuf], staged: &Path) -> Result<()> {
    let unpacked = cache::scratch("kernel")?;
    for deb in debs {
        progress::output(Command::new("dpkg-deb").arg("-x").arg(deb).arg(unpacked.path()))?;
    }
    // The older packages use /lib, the newer ones /usr/lib.
    let root = unpacked.path();
    let modules =
        [root.join("usr/lib/modules"), root.join("lib/modules")].into_iter().find(|dir| dir.exists());
    let modules = modules.context("the kernel's packages hold no modules")?;
    let release =
        fs::read_dir(&modules)?.next().context("the kernel's packages hold no modules")??.file_name();
    let release = release.to_string_lossy().into_owned();
    let boot = root.join("boot").join(format!("vmlinuz-{release}"));
    let vmlinuz = [boot, modules.join(&release).join("vmlinuz")].into_iter().find(|file| file.exists());
    fs::copy(vmlinuz.context("the kernel's packages hold no vmlinuz")?, staged.join("vmlinuz"))?;

    let base = modules.parent().and_then(Path::parent).context("modules lie two levels deep")?;
    let base = if base.ends_with("usr") { base.to_path_buf() } else { root.to_path_buf() };
    progress::output(Command::new(tool("depmod")).arg("-b").arg(&base).arg(&release))?;
    early_modules(&modules.join(&release), &staged.join("early"))?;
    make_ext4(&modules, &staged.join("modules.ext4"), 16 << 20)?;
    fs::write(staged.join("release"), &release)?;
    Ok(())
}

/// What a guest needs before its root disk is mounted, and for its ports. Kernels differ in which of these
/// are built in.
const EARLY: [&str; 3] = ["virtio_pci", "virtio_blk", "virtio_console"];

fn early_modules(tree: &Path, into: &Path) -> Result<()> {
    fs::create_dir(into)?;
    let table = fs::read_to_string(tree.join("modules.dep")).context("depmod wrote no modules.dep")?;
    let mut loaded: Vec<&str> = Vec::new();
    for module in EARLY {
        let named =
            |line: &&str| line.split(".ko").next().is_some_and(|path| path.ends_with(&format!("/{module}")));
        let Some(line) = table.lines().find(named) else { continue };
        // modules.dep lists a module and then what it needs; the deepest need comes last.
        for path in line.split([':', ' ']).filter(|path| !path.is_empty()).rev() {
            if !loaded.contains(&path) {
                decompress(&tree.join(path), into, loaded.len())?;
                loaded.push(path);
            }
        }
    }
    Ok(())
}

/// busybox's insmod takes plain modules only.
fn decompress(module: &Path, into: &Path, order: usize) -> Result<()> {
    let name = module.file_name().context("a module has a name")?.to_string_lossy();
    let target = into.join(format!("{order:02}-{}.ko", name.split(".ko").next().unwrap_or(&name)));
    let program = match module.extension().and_then(|extension| extension.to_str()) {
        Some("xz") => "xz",
        Some("zst") => "zstd",
        _ => {
            fs::copy(module, target)?;
            return Ok(());
        }
    };
    let out = Command::new(program)
        .arg("-dc")
        .arg(module)
        .output()
        .with_context(|| format!("cannot run {program}"))?;
    if !out.status.success() {
        bail!("{program} cannot decompress {}", module.display());
    }
    Ok(fs::write(target, out.stdout)?)
}

/// Packs a directory into an image that is `room` larger than what the directory holds (the file is sparse).
pub(crate) fn make_ext4(dir: &Path, image: &Path, room: u64) -> Result<()> {
    let sizes = WalkDir::new(dir).into_iter().flatten().filter_map(|entry| entry.metadata().ok());
    let held: u64 = sizes.map(|meta| meta.len().next_multiple_of(4096)).sum();
    let size = format!("{}M", (held + held / 8 + room) >> 20);
    // No journal: every guest works on a throw-away copy.
    let mut command = Command::new(tool("mke2fs"));
    command
        .args(["-q", "-F", "-t", "ext4", "-O", "^has_journal", "-m", "0", "-d"])
        .arg(dir)
        .arg(image)
        .arg(size);
    progress::output(&mut command)?;
    Ok(())
}

/// Administrators' tools are not on every user's PATH.
pub(crate) fn tool(name: &str) -> PathBuf {
    ["/usr/sbin", "/sbin"]
        .iter()
        .map(|dir| Path::new(dir).join(name))
        .find(|path| path.exists())
        .unwrap_or_else(|| name.into())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn versions_compare_as_numbers() {
        let newest = ["linux-image-6.12.9+deb12-cloud-amd64", "linux-image-6.12.117+deb12-cloud-amd64"];
        assert_eq!(newest.into_iter().max_by_key(|name| version_key(name)), Some(newest[1]));
    }
}
