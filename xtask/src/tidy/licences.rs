//! The offline half of deny.toml: every dependency's licence is on its list.

use std::fs;

use anyhow::{Context, Result};
use serde_json::Value;

use crate::{compile, progress};

/// One finding for each package whose licence is not allowed.
pub(super) fn check() -> Result<Vec<String>> {
    let allowed = allowed()?;
    let mut findings = Vec::new();
    for manifest in ["Cargo.toml", "enforcer-ebpf/Cargo.toml"] {
        let mut command = compile::cargo();
        command.args([
            "metadata",
            "--offline",
            "--format-version=1",
            "--filter-platform=x86_64-unknown-linux-gnu",
        ]);
        let text = progress::output(command.args(["--manifest-path", manifest])).with_context(|| {
            format!("cannot list the dependencies of {manifest}; `cargo xtask build` fetches them")
        })?;
        let metadata: Value = serde_json::from_str(&text).context("cargo metadata is not JSON")?;
        for package in metadata["packages"].as_array().into_iter().flatten() {
            let expression = package["license"].as_str().unwrap_or("");
            if !permits(expression, &allowed) {
                findings.push(format!(
                    "{} {} has the licence `{expression}`, which deny.toml does not allow",
                    package["name"].as_str().unwrap_or("?"),
                    package["version"].as_str().unwrap_or("?"),
                ));
            }
        }
    }
    findings.sort();
    findings.dedup();
    Ok(findings)
}

/// The list in deny.toml, so that there is one list only.
fn allowed() -> Result<Vec<String>> {
    let text = fs::read_to_string(compile::root().join("deny.toml")).context("cannot read deny.toml")?;
    let section = text.split("[licenses]").nth(1).context("deny.toml has no [licenses]")?;
    let list = section.split("allow = [").nth(1).and_then(|rest| rest.split(']').next());
    let list = list.context("[licenses] of deny.toml has no `allow` list")?;
    let code = list.lines().map(|line| line.split('#').next().unwrap_or(""));
    Ok(code.flat_map(|line| line.split('"').skip(1).step_by(2)).map(str::to_owned).collect())
}

/// Whether an SPDX expression can be satisfied with allowed licences.
fn permits(expression: &str, allowed: &[String]) -> bool {
    // The old way to write OR.
    let spaced = expression.replace('/', " OR ").replace('(', " ( ").replace(')', " ) ");
    let words: Vec<&str> = spaced.split_whitespace().collect();
    let mut parser = Parser { words: &words, allowed };
    !words.is_empty() && parser.any() && parser.words.is_empty()
}

struct Parser<'a> {
    words: &'a [&'a str],
    allowed: &'a [String],
}

impl Parser<'_> {
    fn any(&mut self) -> bool {
        let mut result = self.all();
        while self.take("OR") {
            result |= self.all();
        }
        result
    }

    fn all(&mut self) -> bool {
        let mut result = self.one();
        while self.take("AND") {
            result &= self.one();
        }
        result
    }

    fn one(&mut self) -> bool {
        if self.take("(") {
            let result = self.any();
            return self.take(")") && result;
        }
        let Some((name, rest)) = self.words.split_first() else { return false };
        self.words = rest;
        if !self.take("WITH") {
            return self.allowed.iter().any(|allowed| allowed == name);
        }
        let Some((exception, rest)) = self.words.split_first() else { return false };
        self.words = rest;
        let whole = format!("{name} WITH {exception}");
        // An exception only adds permissions.
        self.allowed.iter().any(|allowed| *allowed == whole || allowed == name)
    }

    fn take(&mut self, word: &str) -> bool {
        match self.words.split_first() {
            Some((first, rest)) if *first == word => {
                self.words = rest;
                true
            }
            _ => false,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn expressions_are_read_as_spdx_has_them() {
        let allowed = ["MIT".to_owned(), "Apache-2.0".to_owned(), "Unicode-3.0".to_owned()];
        for good in [
            "MIT",
            "MIT/Apache-2.0",
            "GPL-2.0 OR MIT",
            "(MIT OR Apache-2.0) AND Unicode-3.0",
            "Apache-2.0 WITH LLVM-exception",
        ] {
            assert!(permits(good, &allowed), "{good}");
        }
        for bad in ["", "GPL-2.0", "MIT AND GPL-2.0", "(MIT", "MIT MIT"] {
            assert!(!permits(bad, &allowed), "{bad}");
        }
    }
}
