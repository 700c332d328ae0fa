//! Policies as tests write them.

use std::{
    fmt::{self, Write},
    sync::atomic::{AtomicU64, Ordering},
};

/// A policy: what the probe itself needs, and what a test adds.
#[derive(Clone, Debug)]
pub struct Policy {
    name: String,
    purpose: String,
    version: u64,
    header: Vec<String>,
    files: Vec<String>,
    exec: Vec<String>,
    network: Vec<String>,
}

impl Policy {
    /// The agent `name` may run the probe, and nothing else.
    pub fn new(name: String, purpose: &str) -> Self {
        let exec = vec!["allow: ['/usr/lib/enforcer-tests/probe']".to_owned()];
        let purpose = purpose.replace("::", ", ").replace('_', " ");
        let (header, files, network) = (vec!["include: [base@1]".to_owned()], Vec::new(), Vec::new());
        Self { name, purpose, version: next(), header, files, exec, network }
    }

    /// The agent's name.
    pub fn name(&self) -> &str {
        &self.name
    }

    /// The version, which no other policy of this run has.
    pub fn version(&self) -> u64 {
        self.version
    }

    /// The same under a new version, to be changed.
    pub fn next(&self) -> Self {
        Self { version: next(), ..self.clone() }
    }

    /// Allows operations on a path.
    pub fn allow(self, operations: &str, path: &str) -> Self {
        self.file(format!("allow: [{operations}], paths: ['{path}']"))
    }

    /// Holds operations on a path.
    pub fn hold(self, operations: &str, path: &str) -> Self {
        self.file(format!("hold: [{operations}], paths: ['{path}']"))
    }

    /// Denies operations on a path, and says why.
    pub fn deny(self, operations: &str, path: &str) -> Self {
        self.file(format!("deny: [{operations}], paths: ['{path}'], because: 'a test says so'"))
    }

    /// A rule about files as the language has it, without its braces.
    pub fn file(mut self, rule: String) -> Self {
        self.files.push(rule);
        self
    }

    /// Allows running a program.
    pub fn exec(mut self, path: &str) -> Self {
        self.exec.push(format!("allow: ['{path}']"));
        self
    }

    /// Holds running a program.
    pub fn exec_hold(mut self, path: &str) -> Self {
        self.exec.push(format!("hold: ['{path}']"));
        self
    }

    /// A rule about running programs, as a policy has it.
    pub fn exec_rule(mut self, rule: String) -> Self {
        self.exec.push(rule);
        self
    }

    /// A rule about the network as the language has it, without its braces.
    pub fn network_rule(mut self, rule: &str) -> Self {
        self.network.push(rule.to_owned());
        self
    }

    /// Holds connecting.
    pub fn connect_hold(mut self, to: &str) -> Self {
        self.network.push(format!("hold: [connect], to: ['{to}']"));
        self
    }

    /// Denies running a program.
    pub fn exec_deny(mut self, path: &str) -> Self {
        self.exec.push(format!("deny: ['{path}']"));
        self
    }

    /// Allows connecting.
    pub fn connect(mut self, to: &str) -> Self {
        self.network.push(format!("allow: [connect], to: ['{to}']"));
        self
    }

    /// Denies connecting.
    pub fn connect_deny(mut self, to: &str) -> Self {
        self.network.push(format!("deny: [connect], to: ['{to}']"));
        self
    }

    /// Allows binding.
    pub fn bind(mut self, to: &str) -> Self {
        self.network.push(format!("allow: [bind], to: ['{to}']"));
        self
    }

    /// A line of the document's head, such as `mode: audit`. Another `include` takes the place of the first one.
    pub fn line(mut self, line: &str) -> Self {
        if line.starts_with("include:") {
            self.header.retain(|before| !before.starts_with("include:"));
        }
        self.header.push(line.to_owned());
        self
    }
}

fn next() -> u64 {
    static NEXT: AtomicU64 = AtomicU64::new(1);
    NEXT.fetch_add(1, Ordering::Relaxed)
}

impl fmt::Display for Policy {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { name, purpose, version, header, files, exec, network } = self;
        writeln!(f, "apiVersion: enforcer/v1\nkind: AgentPolicy")?;
        writeln!(
            f,
            "metadata: {{ id: {name}, version: {version}, owner: tests@example.com, purpose: '{purpose}' }}"
        )?;
        header.iter().try_for_each(|line| writeln!(f, "{line}"))?;
        for (section, rules) in [("files", files), ("exec", exec), ("network", network)] {
            if !rules.is_empty() {
                writeln!(f, "{section}:")?;
                rules.iter().try_for_each(|rule| writeln!(f, "  - {{ {rule} }}"))?;
            }
        }
        f.write_char('\n')
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_policy_is_written_as_the_language_has_it() {
        let policy = Policy::new("t1".to_owned(), "files::reading_needs_a_rule").allow("read", "/srv/a/**");
        let text = policy.to_string();
        assert!(text.contains("metadata: { id: t1, version: "));
        assert!(text.contains("purpose: 'files, reading needs a rule'"));
        assert!(text.contains("files:\n  - { allow: [read], paths: ['/srv/a/**'] }\n"));
        assert!(!text.contains("network:"));
        assert!(policy.next().version() > policy.version());
    }
}
