//! `match`: the cgroups that are sessions of an agent, by their path or as units of systemd.

use super::{
    check::Checker,
    decode::At,
    draft::MatchDraft,
    glob::{Component, Glob},
};

/// Where units live whose slice is not named: the first root, unless the settings say otherwise.
const USUAL_SLICE: &str = "agents.slice";

impl Checker<'_> {
    pub(super) fn matches(&mut self, draft: &At<MatchDraft>) -> Vec<Glob> {
        let MatchDraft { cgroup, unit, slice } = &draft.value;
        let mut globs = Vec::new();
        if cgroup.is_none() && unit.is_none() {
            self.problem(
                draft.at,
                "`match` names neither a cgroup nor a unit",
                "write `cgroup: /agents.slice/my-agent` or `unit: my-agent.service`, or remove `match`",
            );
        }
        for text in cgroup.iter().flat_map(|texts| &texts.0) {
            globs.extend(self.cgroup(text));
        }
        let directory = self.slice(slice.as_ref());
        for text in unit.iter().flat_map(|texts| &texts.0) {
            globs.extend(directory.as_deref().and_then(|directory| self.unit(directory, text)));
        }
        if let Some(slice) = slice.as_ref().filter(|_| unit.is_none()) {
            self.problem(
                slice.at,
                "`slice` says where units live, and there is no `unit`",
                "name one, as in `unit: my-agent.service`, or remove `slice`",
            );
        }
        globs
    }

    fn cgroup(&mut self, text: &At<String>) -> Option<Glob> {
        let glob = self.glob(text)?;
        let patterns = glob.patterns();
        if patterns.iter().any(|p| p.components().first() == Some(&Component::AnyDepth)) {
            self.problem(
                text.at,
                "a cgroup pattern cannot start with `**`",
                "write it from the hierarchy's root, as in /agents.slice/my-agent.slice/*",
            );
        } else if patterns.iter().any(|p| p.is_subtree()) {
            let at = self.inside(text, text.value.len().saturating_sub(2));
            self.problem(
                at,
                "a cgroup pattern cannot end in `/**`: sessions do not nest",
                "end in `/*` to make each child cgroup a session; everything below belongs to it",
            );
        } else if patterns.iter().any(|p| p.components().is_empty()) {
            self.problem(
                text.at,
                "the root of the hierarchy cannot be an agent's cgroup",
                "name a cgroup below it, as in /agents.slice/my-agent.slice/*",
            );
        } else {
            return Some(glob);
        }
        None
    }

    /// The cgroup of a slice, or nothing where its name is wrong.
    fn slice(&mut self, named: Option<&At<String>>) -> Option<String> {
        let name = named.map_or(USUAL_SLICE, |named| named.value.as_str());
        let path = slice_path(name);
        if let (None, Some(named)) = (&path, named) {
            self.problem(
                named.at,
                format!("`{name}` is not a slice of systemd"),
                "write it as systemctl shows it, as in agents-billing.slice",
            );
        }
        path
    }

    fn unit(&mut self, slice: &str, text: &At<String>) -> Option<Glob> {
        let named = text.value.strip_suffix(".service").or_else(|| text.value.strip_suffix(".scope"));
        if named.is_none_or(|name| name.is_empty() || name.contains(['/', '{', '}'])) {
            self.problem(
                text.at,
                format!("`{}` is not a service or scope of systemd", text.value),
                "write its whole name, as in my-agent.service or my-agent@*.service",
            );
            return None;
        }
        // systemd escapes with backslashes, and so do globs.
        let path = format!("{slice}/{}", text.value.replace('\\', "\\\\"));
        match Glob::parse(&path) {
            Ok(glob) => Some(glob),
            Err(error) => {
                self.problem(text.at, error.message, error.remedy);
                None
            }
        }
    }
}

/// The path of a slice's cgroup: each dash in its name is a level (systemd.slice(5)). `None` if this is no
/// slice's name.
fn slice_path(name: &str) -> Option<String> {
    let stem = name.strip_suffix(".slice")?;
    let parts: Vec<&str> = stem.split('-').collect();
    let plain = |part: &&str| {
        !part.is_empty() && part.bytes().all(|b| b.is_ascii_alphanumeric() || b":_.@".contains(&b))
    };
    if !parts.iter().all(plain) {
        return None;
    }
    let level = |depth: usize| format!("/{}.slice", parts[..depth].join("-"));
    Some((1..=parts.len()).map(level).collect())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_slice_lies_in_the_slices_that_its_name_begins_with() {
        assert_eq!(slice_path("agents.slice").as_deref(), Some("/agents.slice"));
        let nested = "/agents.slice/agents-billing.slice/agents-billing-eu.slice";
        assert_eq!(slice_path("agents-billing-eu.slice").as_deref(), Some(nested));
        for wrong in ["-.slice", "agents", "a--b.slice", "/agents.slice", "a/b.slice", ".slice", "a*.slice"] {
            assert_eq!(slice_path(wrong), None, "{wrong}");
        }
    }
}
