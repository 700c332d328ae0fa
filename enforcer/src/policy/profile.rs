//! The fragments that come with the program.

use super::{check::Checker, decode, draft::ProfileDraft, problem::PolicyErrors, rule::Rule, valid, yaml};

/// A fragment: name, version, text.
struct Embedded {
    name: &'static str,
    version: u64,
    text: &'static str,
}

const PROFILES: [Embedded; 7] = [
    Embedded { name: "base", version: 1, text: include_str!("../../profiles/base@1.yaml") },
    Embedded { name: "coding-agent", version: 1, text: include_str!("../../profiles/coding-agent@1.yaml") },
    Embedded { name: "git", version: 1, text: include_str!("../../profiles/git@1.yaml") },
    Embedded { name: "node", version: 1, text: include_str!("../../profiles/node@1.yaml") },
    Embedded { name: "python", version: 1, text: include_str!("../../profiles/python@1.yaml") },
    Embedded { name: "rust", version: 1, text: include_str!("../../profiles/rust@1.yaml") },
    Embedded { name: "shell", version: 1, text: include_str!("../../profiles/shell@1.yaml") },
];

/// What every policy contains; nobody includes it.
pub(super) const FLOOR: (&str, &str) = ("floor@1", include_str!("../../profiles/floor@1.yaml"));

/// A profile, checked.
#[derive(Clone, Debug)]
pub struct Profile {
    id: String,
    version: u64,
    purpose: String,
    pub(super) rules: Vec<Rule>,
    pub(super) warnings: Vec<valid::Warning>,
}

impl Profile {
    /// Name, as in `include`.
    pub fn id(&self) -> &str {
        &self.id
    }

    /// Version.
    pub fn version(&self) -> u64 {
        self.version
    }

    /// What it is for.
    pub fn purpose(&self) -> &str {
        &self.purpose
    }
}

/// `name@version` and text of every profile.
pub fn profiles() -> Vec<(String, &'static str)> {
    PROFILES.iter().map(|p| (format!("{}@{}", p.name, p.version), p.text)).collect()
}

/// The profile called `name@version`.
pub(super) fn text(reference: &str) -> Option<&'static str> {
    let (name, version) = reference.split_once('@')?;
    let version: u64 = version.parse().ok()?;
    PROFILES.iter().find(|p| p.name == name && p.version == version).map(|p| p.text)
}

/// Reads a fragment.
pub fn parse_profile(source_name: &str, text: &str) -> Result<Profile, PolicyErrors> {
    let fail = |problems| PolicyErrors::new(source_name, text, problems);
    let node = yaml::read(text).map_err(|problem| fail(vec![problem]))?;
    let mut problems = Vec::new();
    let draft = decode::decode::<ProfileDraft>(&node, &mut problems);
    let Some(draft) = draft else { return Err(fail(problems)) };
    let ProfileDraft { api_version: _, kind: _, metadata, files, exec, network, unix, tests } = draft;
    let mut checker = Checker::new(source_name, text, problems);
    checker.files(&files);
    checker.exec(&exec);
    checker.network(&network);
    checker.unix(&unix);
    // A profile's tests are run by the program's own: here only their shape matters.
    checker.tests(&tests);
    match metadata.0 {
        Some(metadata) if checker.problems.is_empty() => Ok(Profile {
            id: metadata.id.value,
            version: metadata.version.value,
            purpose: metadata.purpose.value,
            rules: checker.rules,
            warnings: checker.warnings,
        }),
        _ => Err(fail(checker.problems)),
    }
}
