//! What tests of the log's sinks need: validators and decoders from PyPI, and rsyslog with TLS from Debian,
//! which is unpacked and not installed, so that none begins to run on this machine.

use std::{
    fs,
    path::{Path, PathBuf},
    process::Command,
};

use anyhow::{Context, Result};

use crate::{apt::Apt, cache, progress, setup};

/// Pinned.
const PYTHON: [&str; 4] =
    ["ocsf-json-schema==1.2.0", "jsonschema==4.26.0", "opentelemetry-proto==1.45.2", "protobuf==7.36.2"];
/// rsyslog and the libraries that a minimal Debian lacks.
const RSYSLOG: [&str; 6] =
    ["rsyslog", "rsyslog-openssl", "libestr0", "libfastjson4", "liblognorm5", "libssl3"];

/// Variables for the tests: where these are. What cannot be had is said, and its tests say that they skip.
pub(crate) fn environment() -> Vec<(&'static str, PathBuf)> {
    let mut all = Vec::new();
    for (name, place) in [("ENFORCER_TEST_PYTHON", python()), ("ENFORCER_TEST_RSYSLOG", rsyslog())] {
        match place {
            Ok(path) => all.push((name, path)),
            Err(error) => progress::note(format!("{name} is not set, its tests are skipped: {error:#}")),
        }
    }
    all
}

/// A Python with the packages, in a virtual environment below the cache.
pub(crate) fn python() -> Result<PathBuf> {
    let name = format!("python-{}", PYTHON.join("-").replace(['=', '.'], ""));
    let made = cache::ensure(&name, |_| Ok(()))?;
    // An environment knows its own path, so it is made in place; the mark says that it is whole.
    let (python, mark) = (made.join("env/bin/python3"), made.join("whole"));
    if !mark.exists() {
        setup::for_python()?;
        let _lock = cache::lock()?;
        progress::note("installing Python packages that check OCSF events and OpenTelemetry requests");
        let env = made.join("env");
        let make = Command::new("python3").args(["-m", "venv", "--clear"]).arg(&env).status();
        anyhow::ensure!(
            make.is_ok_and(|status| status.success()),
            "`python3 -m venv` fails; install python3-venv"
        );
        progress::run_logged(
            "pip install",
            Command::new(&python).args(["-m", "pip", "install", "--quiet"]).args(PYTHON),
        )?;
        fs::write(&mark, "")?;
    }
    cache::sweep("python-", &made)?;
    Ok(python)
}

/// The directory into which rsyslog was unpacked.
pub(crate) fn rsyslog() -> Result<PathBuf> {
    cache::ensure("rsyslog-1", |staged| {
        let packages = staged.join("packages");
        fs::create_dir(&packages)?;
        let names: Vec<String> = RSYSLOG.iter().map(|name| (*name).to_owned()).collect();
        Apt::refresh()?.download(&names, &packages)?;
        unpack(&packages, staged)?;
        fs::remove_dir_all(&packages).context("cannot remove the packages")
    })
}

fn unpack(packages: &Path, to: &Path) -> Result<()> {
    for package in fs::read_dir(packages)? {
        let package = package?.path();
        progress::run_logged("dpkg-deb", Command::new("dpkg-deb").arg("-x").arg(&package).arg(to))?;
    }
    Ok(())
}
