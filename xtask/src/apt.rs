//! A private apt configuration: reads Debian from the mirror that this machine already uses, and never
//! changes the machine's own package lists.

use std::{
    fs,
    path::{Path, PathBuf},
    process::Command,
};

use anyhow::{Context, Result, bail};

use crate::{cache, progress};

/// The suites that images are made from. The guest is bookworm; newer kernels come from backports.
const SUITES: [&str; 3] = ["bookworm", "bookworm-security", "trixie-backports"];
const KEYRING: &str = "/usr/share/keyrings/debian-archive-keyring.gpg";

/// apt with package lists of its own, below the cache.
pub(crate) struct Apt {
    root: PathBuf,
}

impl Apt {
    /// Fetches the package lists.
    pub(crate) fn refresh() -> Result<Self> {
        let root = cache::dir()?.join("apt");
        for sub in ["state/lists/partial", "cache/archives/partial", "etc"] {
            fs::create_dir_all(root.join(sub))?;
        }
        cache::write_atomic(&root.join("etc/sources.list"), sources(&SUITES)?.as_bytes())?;
        let apt = Self { root };
        progress::run_logged(
            "fetching Debian's package lists (private to the cache)",
            apt.tool("apt-get").arg("update"),
        )
        .context("the archive could not be read; images that are already cached stay usable without it")?;
        Ok(apt)
    }

    /// Names of known packages that satisfy `wanted`.
    pub(crate) fn packages(&self, wanted: impl Fn(&str) -> bool) -> Result<Vec<String>> {
        let names = progress::output(self.tool("apt-cache").arg("pkgnames"))?;
        Ok(names.lines().filter(|name| wanted(name)).map(str::to_owned).collect())
    }

    /// Downloads (and verifies) packages into `dir`.
    pub(crate) fn download(&self, packages: &[String], dir: &Path) -> Result<()> {
        let what = format!("downloading {}", packages.join(", "));
        progress::run_logged(&what, self.tool("apt-get").arg("download").args(packages).current_dir(dir))
    }

    fn tool(&self, name: &str) -> Command {
        let mut command = Command::new(name);
        let at = |sub: &str| self.root.join(sub).display().to_string();
        for option in [
            format!("Dir::State={}", at("state")),
            "Dir::State::status=/dev/null".to_owned(),
            format!("Dir::Cache={}", at("cache")),
            format!("Dir::Etc::sourcelist={}", at("etc/sources.list")),
            "Dir::Etc::sourceparts=/dev/null".to_owned(),
            "Dir::Etc::preferencesparts=/dev/null".to_owned(),
            "APT::Architecture=amd64".to_owned(),
            "APT::Architectures::=amd64".to_owned(),
            // The cache may lie where the _apt user cannot go.
            format!("APT::Sandbox::User={}", std::env::var("USER").unwrap_or_else(|_| "root".to_owned())),
            // Hooks of the machine (desktop indexes and the like) have no business here.
            "APT::Update::Post-Invoke-Success::=true".to_owned(),
            "Acquire::Languages=none".to_owned(),
        ] {
            command.arg("-o").arg(option);
        }
        command
    }
}

/// `sources.list` lines for some suites, with the addresses that this machine's own sources name.
pub(crate) fn sources(suites: &[&str]) -> Result<String> {
    let mirrors = Mirrors::of_this_machine()?;
    let line = |suite: &&str| {
        let address = if suite.ends_with("-security") { &mirrors.security } else { &mirrors.main };
        format!("deb [signed-by={KEYRING}] {address} {suite} main\n")
    };
    Ok(suites.iter().map(line).collect())
}

struct Mirrors {
    main: String,
    security: String,
}

impl Mirrors {
    fn of_this_machine() -> Result<Self> {
        if let Ok(main) = std::env::var("ENFORCER_DEBIAN_MIRROR") {
            let security = format!("{}-security", main.trim_end_matches('/'));
            return Ok(Self { main, security });
        }
        let mut found = Vec::new();
        let mut files = vec![PathBuf::from("/etc/apt/sources.list")];
        if let Ok(entries) = fs::read_dir("/etc/apt/sources.list.d") {
            files.extend(entries.flatten().map(|entry| entry.path()));
        }
        files.sort();
        for file in files {
            let Ok(text) = fs::read_to_string(&file) else { continue };
            match file.extension().and_then(|ext| ext.to_str()) {
                Some("sources") => found.extend(deb822(&text)),
                Some("list") => found.extend(one_line(&text)),
                _ => {}
            }
        }
        let of = |wanted: fn(&str) -> bool| {
            found.iter().find(|(_, suite)| wanted(suite)).map(|(address, _)| address.clone())
        };
        let Some(main) = of(is_debian_release) else {
            bail!(
                "no Debian archive among this machine's apt sources; set ENFORCER_DEBIAN_MIRROR to the address \
                 of a Debian mirror (the directory that holds dists/)"
            );
        };
        let security = of(|suite| suite.strip_suffix("-security").is_some_and(is_debian_release))
            .unwrap_or_else(|| format!("{}-security", main.trim_end_matches('/')));
        Ok(Self { main, security })
    }
}

fn is_debian_release(suite: &str) -> bool {
    ["bookworm", "trixie", "forky", "sid", "stable", "testing", "unstable"].contains(&suite)
}

/// (address, suite) pairs of a `.sources` file.
fn deb822(text: &str) -> Vec<(String, String)> {
    let mut pairs = Vec::new();
    for stanza in text.split("\n\n") {
        let field = |name: &str| {
            let line = stanza.lines().find_map(|line| line.strip_prefix(name)?.strip_prefix(':'));
            line.map(|value| value.split_whitespace().collect::<Vec<_>>()).unwrap_or_default()
        };
        if !field("Types").contains(&"deb") || field("Enabled").contains(&"no") {
            continue;
        }
        for address in field("URIs") {
            pairs.extend(field("Suites").iter().map(|suite| (address.to_owned(), (*suite).to_owned())));
        }
    }
    pairs
}

/// (address, suite) pairs of a `sources.list`.
fn one_line(text: &str) -> Vec<(String, String)> {
    let parse = |line: &str| {
        let rest = line.trim().strip_prefix("deb ")?.trim_start();
        let rest = if rest.starts_with('[') { rest.split_once(']')?.1 } else { rest };
        let mut words = rest.split_whitespace();
        Some((words.next()?.to_owned(), words.next()?.to_owned()))
    };
    text.lines().filter_map(parse).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_one_line_source_may_carry_options() {
        let pairs = one_line(
            "# no\ndeb [arch=amd64 signed-by=/k] http://mirror.example/debian bookworm main\ndeb-src http://x y z\n",
        );
        assert_eq!(pairs, [("http://mirror.example/debian".to_owned(), "bookworm".to_owned())]);
    }

    #[test]
    fn a_stanza_names_several_suites_and_can_be_disabled() {
        let text = "Types: deb\nURIs: http://m/debian\nSuites: bookworm bookworm-updates\n\nTypes: deb\nEnabled: no\nURIs: http://n\nSuites: sid\n";
        let suites: Vec<_> = deb822(text).into_iter().map(|(_, suite)| suite).collect();
        assert_eq!(suites, ["bookworm", "bookworm-updates"]);
    }
}
