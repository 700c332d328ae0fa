//! `cargo xtask package`: a .deb and an .rpm from the release binary. The same binary gives the same packages,
//! byte for byte.

use std::{
    collections::BTreeSet,
    fs,
    os::unix::fs::PermissionsExt,
    path::{Path, PathBuf},
    process::Command,
};

use anyhow::{Context, Result, bail, ensure};
use clap::Args;
use walkdir::WalkDir;

use crate::{
    compile::{self, cargo},
    progress::{note, output, run_logged},
    setup,
};

/// What makes the packages, and its release.
const CARGO_DEB: (&str, &str) = ("cargo-deb", "3.8.0");
const CARGO_RPM: (&str, &str) = ("cargo-generate-rpm", "0.21.1");

/// Directories whose files go into the packages as they are.
const TREES: [(&str, &str); 6] = [
    ("dist/etc", "etc"),
    ("dist/systemd", "usr/lib/systemd/system"),
    ("dist/sysusers.d", "usr/lib/sysusers.d"),
    ("dist/tmpfiles.d", "usr/lib/tmpfiles.d"),
    ("enforcer/profiles", "usr/share/enforcer/profiles"),
    ("examples/policies", "usr/share/doc/enforcer/examples/policies"),
];

/// A .deb and an .rpm of this checkout, in target/package
#[derive(Args)]
pub(crate) struct Options {
    /// Take the binary that an earlier build left in the target directory
    #[arg(long)]
    no_build: bool,
    /// The .deb only
    #[arg(long)]
    deb: bool,
    /// Make everything twice and compare; ask lintian about the .deb; compare the .rpm with what went into it
    #[arg(long)]
    check: bool,
}

/// The packages.
pub(crate) struct Packages {
    pub(crate) deb: PathBuf,
    pub(crate) rpm: Option<PathBuf>,
}

pub(crate) fn main(options: &Options) -> Result<()> {
    let built = if options.no_build { compile::as_built() } else { compile::build(false)? };
    let first = if options.check { checked(&built, options.deb)? } else { make(&built, options.deb)? };
    for package in [Some(&first.deb), first.rpm.as_ref()].into_iter().flatten() {
        note(format!("{} ({} kB)", package.display(), fs::metadata(package)?.len() / 1000));
    }
    Ok(())
}

/// Makes the packages twice, and looks at them with their formats' own tools.
pub(crate) fn checked(built: &compile::Built, deb_only: bool) -> Result<Packages> {
    setup::for_package_checks()?;
    let first = make(built, deb_only)?;
    let kept = |path: &Path| -> Result<Vec<u8>> { Ok(fs::read(path)?) };
    let before = [Some(kept(&first.deb)?), first.rpm.as_deref().map(kept).transpose()?];
    let second = make(built, deb_only)?;
    let after = [Some(kept(&second.deb)?), second.rpm.as_deref().map(kept).transpose()?];
    ensure!(before == after, "two packages of the same binary differ");
    note("made twice, the packages are equal byte for byte");
    let mut lintian = Command::new("lintian");
    // That bug is filed with Debian's archive, for which this package is not made.
    let not_uploaded = ["--suppress-tags", "initial-upload-closes-no-bugs"];
    lintian.args(["--fail-on", "error,warning", "--allow-root"]).args(not_uploaded).arg(&second.deb);
    output(&mut lintian).context("lintian finds something in the .deb")?;
    note("lintian finds nothing in the .deb");
    if let Some(rpm) = &second.rpm {
        same_files(rpm, &compile::root().join("target/package/root"))?;
        note("the .rpm has the files of the .deb");
    }
    Ok(second)
}

/// Compares what an .rpm says that it has with what went into it.
fn same_files(rpm: &Path, root: &Path) -> Result<()> {
    let mut query = Command::new("rpm");
    query.args(["--query", "--package", "--queryformat", "[%{FILENAMES} %{FILEDIGESTS}\\n]"]).arg(rpm);
    let has = output(&mut query)?;
    let has: BTreeSet<String> = has.lines().map(|line| line.trim().to_owned()).collect();
    let mut wanted = BTreeSet::new();
    for entry in WalkDir::new(root) {
        let entry = entry?;
        if entry.file_type().is_file() {
            let sum = output(Command::new("sha256sum").arg("--").arg(entry.path()))?;
            let sum = sum.split_whitespace().next().unwrap_or_default();
            wanted.insert(format!("/{} {sum}", entry.path().strip_prefix(root)?.display()));
        }
    }
    let differs: Vec<&String> = has.symmetric_difference(&wanted).collect();
    ensure!(differs.is_empty() && !wanted.is_empty(), "the .rpm has other files than it should: {differs:?}");
    Ok(())
}

/// Makes the packages from what was built.
pub(crate) fn make(built: &compile::Built, deb_only: bool) -> Result<Packages> {
    let target = compile::root().join("target/package");
    let root = target.join("root");
    if target.exists() {
        fs::remove_dir_all(&target)?;
    }
    let date =
        output(Command::new("git").arg("-C").arg(compile::root()).args(["log", "-1", "--format=%ct"]))?;
    stage(&root, built)?;
    fs::write(target.join("changelog"), changelog(&date)?)?;
    fs::write(target.join("copyright"), copyright()?)?;
    normalise(&target, &date)?;
    let run = |what: &str, tool: (&str, &str), words: &[&str], to: &Path| -> Result<()> {
        let mut command = Command::new(setup::cargo_tool(tool.0, tool.1, what)?);
        command.current_dir(compile::root()).args(words).arg(to).env("SOURCE_DATE_EPOCH", &date);
        run_logged(what, &mut command)
    };
    let deb = target.join("enforcer.deb");
    let words = ["--package", "enforcer", "--no-build", "--no-strip", "--output"];
    run("making the .deb", CARGO_DEB, &words, &deb)?;
    let rpm = (!deb_only).then(|| target.join("enforcer.rpm"));
    if let Some(rpm) = &rpm {
        let words = ["--package", "enforcer", "--source-date", &date, "--output"];
        run("making the .rpm", CARGO_RPM, &words, rpm)?;
    }
    // Named as their archives expect.
    let named = |path: PathBuf, name: String| -> Result<PathBuf> {
        let to = target.join(name);
        fs::rename(&path, &to)?;
        Ok(to)
    };
    let version = version()?;
    Ok(Packages {
        deb: named(deb, format!("enforcer_{version}-1_amd64.deb"))?,
        rpm: rpm.map(|path| named(path, format!("enforcer-{version}-1.x86_64.rpm"))).transpose()?,
    })
}

/// Lays out what goes into the packages.
fn stage(root: &Path, built: &compile::Built) -> Result<()> {
    let binary = built.bin.join("enforcer");
    let installed = root.join("usr/bin/enforcer");
    fs::create_dir_all(root.join("usr/bin"))?;
    output(
        Command::new("strip")
            .arg("--strip-unneeded")
            .args(["--remove-section=.comment", "-o"])
            .arg(&installed)
            .arg(&binary),
    )
    .with_context(|| format!("cannot take {}: `cargo xtask build` makes it", binary.display()))?;
    let kernel_side = output(Command::new(&installed).args(["--output", "json", "version"]))?;
    ensure!(kernel_side.contains("\"kernel_side\": true"), "{} has no kernel side", binary.display());
    output(Command::new(&installed).arg("generate").arg(root)).context("the man pages")?;
    for (from, to) in TREES {
        copy(&compile::root().join(from), &root.join(to))?;
    }
    for entry in fs::read_dir(compile::root().join("docs"))? {
        let path = entry?.path();
        let name = path.file_name().unwrap_or_default();
        if path.extension().is_some_and(|ext| ext == "md") {
            fs::copy(&path, root.join("usr/share/doc/enforcer").join(name))?;
        }
    }
    for entry in WalkDir::new(root.join("usr/share/man")) {
        let entry = entry?;
        if entry.file_type().is_file() {
            output(Command::new("gzip").args(["-9", "-n"]).arg(entry.path()))?;
        }
    }
    Ok(())
}

fn copy(from: &Path, to: &Path) -> Result<()> {
    for entry in WalkDir::new(from) {
        let entry = entry.with_context(|| format!("cannot read {}", from.display()))?;
        let target = to.join(entry.path().strip_prefix(from)?);
        if entry.file_type().is_dir() {
            fs::create_dir_all(&target)?;
        } else {
            fs::copy(entry.path(), &target)?;
        }
    }
    Ok(())
}

/// The same modes and times, whatever the checkout's umask and age.
fn normalise(target: &Path, date: &str) -> Result<()> {
    for entry in WalkDir::new(target) {
        let entry = entry?;
        let program = entry.file_type().is_dir() || entry.path().ends_with("usr/bin/enforcer");
        fs::set_permissions(entry.path(), fs::Permissions::from_mode(if program { 0o755 } else { 0o644 }))?;
    }
    let files = WalkDir::new(target).into_iter().collect::<Result<Vec<_>, _>>()?;
    let mut touch = Command::new("touch");
    touch.arg(format!("--date=@{date}")).args(files.iter().map(walkdir::DirEntry::path));
    output(&mut touch).map(drop)
}

fn version() -> Result<String> {
    let metadata = output(cargo().args(["metadata", "--no-deps", "--format-version", "1"]))?;
    let metadata: serde_json::Value = serde_json::from_str(&metadata)?;
    let packages = metadata["packages"].as_array().context("cargo metadata lists no packages")?;
    let own = packages.iter().find(|package| package["name"] == "enforcer");
    match own.and_then(|package| package["version"].as_str()) {
        Some(version) => Ok(version.to_owned()),
        None => bail!("cargo metadata does not know the package enforcer"),
    }
}

/// As Debian wants it; the history itself is in the repository.
fn changelog(date: &str) -> Result<String> {
    let stamp = output(Command::new("date").args(["--utc", "--rfc-email"]).arg(format!("--date=@{date}")))?;
    let version = version()?;
    Ok(format!(
        "enforcer ({version}-1) unstable; urgency=medium\n\n  * Version {version}, of the last commit's date.\n\n \
         -- The Enforcer's maintainers <maintainers@enforcer.invalid>  {stamp}\n"
    ))
}

fn copyright() -> Result<String> {
    let mit = fs::read_to_string(compile::root().join("LICENSE-MIT")).context("LICENSE-MIT")?;
    Ok(format!(
        "The Enforcer is under the MIT licence or the Apache licence 2.0 (/usr/share/common-licenses/Apache-2.0), at\n\
         your choice. Its kernel programs are also under the GNU General Public License, version 2\n\
         (/usr/share/common-licenses/GPL-2).\n\n{mit}"
    ))
}
