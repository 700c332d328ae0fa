//! The policies in examples/: they load, pass their tests, and are laid out as `policy fmt` does.

use crate::policy::{Mode, format, matcher, parse};
use std::{collections::BTreeSet, fs, path::PathBuf};

fn examples() -> Vec<(String, String)> {
    let dir = PathBuf::from(env!("CARGO_MANIFEST_DIR")).join("../examples/policies");
    let mut files: Vec<PathBuf> =
        fs::read_dir(dir).expect("examples").map(|entry| entry.expect("a file").path()).collect();
    files.sort();
    let name = |path: &PathBuf| path.file_stem().expect("a name").to_string_lossy().into_owned();
    files.iter().map(|path| (name(path), fs::read_to_string(path).expect("text"))).collect()
}

#[test]
fn every_example_loads_passes_its_tests_and_says_what_it_refuses() {
    let examples = examples();
    assert_eq!(examples.len(), 10);
    let mut policies = Vec::new();
    for (name, text) in &examples {
        let policy = parse(name, text).unwrap_or_else(|errors| panic!("{errors}"));
        assert_eq!(policy.id(), name);
        assert!(policy.tests().len() >= 5, "{name} has hardly any tests");
        let denials =
            policy.tests().iter().filter(|test| test.expect == enforcer_common::verdict::Verdict::Deny);
        assert!(denials.count() >= 3, "{name} hardly says what it refuses");
        policies.push(policy);
    }
    assert_eq!(policies.iter().filter(|policy| policy.mode() == Mode::Audit).count(), 1);
    let agents: Vec<_> =
        policies.iter().zip(0..).map(|(policy, i)| (i, policy.id(), policy.cgroups())).collect();
    matcher(&agents).expect("no two claim one cgroup");
}

#[test]
fn examples_are_in_the_canonical_layout() {
    for (name, text) in examples() {
        assert_eq!(format(&name, &text).unwrap_or_else(|error| panic!("{error}")), text, "{name}");
    }
}

#[test]
fn the_documentation_lists_every_example_and_shows_every_key() {
    let page = include_str!("../../../../docs/policy.md");
    for (name, _) in examples() {
        assert!(
            page.contains(&format!("[{name}](../examples/policies/{name}.yaml)")),
            "{name} is not listed"
        );
    }
    let schema = crate::policy::schema();
    let mut keys = BTreeSet::new();
    let mut look = vec![&schema];
    while let Some(value) = look.pop() {
        if let Some(properties) = value.get("properties").and_then(|value| value.as_object()) {
            keys.extend(properties.keys());
        }
        match value {
            serde_json::Value::Object(map) => look.extend(map.values()),
            serde_json::Value::Array(list) => look.extend(list),
            _ => {}
        }
    }
    let yaml: String =
        page.split("```").skip(1).step_by(2).filter(|block| block.starts_with("yaml")).collect();
    let missing: Vec<_> = keys.into_iter().filter(|key| !yaml.contains(&format!("{key}:"))).collect();
    assert!(missing.is_empty(), "docs/policy.md has no example of {missing:?}");
}

#[test]
fn every_policy_in_the_documentation_loads() {
    let page = include_str!("../../../../docs/policy.md");
    let blocks: Vec<&str> =
        page.split("```").skip(1).step_by(2).filter_map(|block| block.strip_prefix("yaml\n")).collect();
    assert!(blocks.len() > 10);
    let head = "apiVersion: enforcer/v1\nkind: AgentPolicy\n";
    let metadata = "metadata: { id: x, version: 1, owner: x, purpose: x }\n";
    let rules = "files:\n  - { allow: [read], paths: [/x] }\n";
    for block in blocks {
        let mut text = String::new();
        if !block.contains("apiVersion:") {
            text.push_str(head);
        }
        if !block.contains("metadata: {") {
            text.push_str(metadata);
        }
        text.push_str(block);
        if !block.contains("files:") && !block.contains("exec:\n") && !block.contains("network:\n") {
            text.push_str(rules);
        }
        // A list of questions by itself asks a policy that is not there.
        if block.starts_with("tests:") {
            text.push_str("network:\n  - { allow: [connect, bind], to: [\"10.0.0.1:5432/tcp\"] }\n");
        }
        parse("policy.md", &text).unwrap_or_else(|errors| panic!("{errors}\n{text}"));
    }
}
