//! docs/settings.md, made from the types that the settings are read into: the test fails when it is stale.

use crate::settings::Settings;
use serde_json::Value;
use std::{fs, path::Path};

const PAGE: &str = concat!(env!("CARGO_MANIFEST_DIR"), "/../docs/settings.md");

const HEAD: &str = "# Settings

`/etc/enforcer/enforcer.toml`, or what `--settings FILE` names, is read once, when the daemon starts. Every key is
optional. A key that is not known, a value of another type and a value that cannot be are errors with their place:
the daemon does not start then, and ends with 78.

This page is made from the types that the file is read into.
";

const TAIL: &str = r#"## Examples

Agents in a slice of their own, beside a container runtime whose other containers are left alone:

```toml
[agents]
roots = [{ path = "/agents.slice" }, { path = "/kubepods.slice", shared = true }]
executors = ["/usr/lib/systemd/systemd", "/usr/bin/runc"]
```

Sessions with limits; the slice needs limits of that kind too, see [install.md](install.md#limits):

```toml
[launch]
pids_max = 512
memory_max = "2G"
```

A signing key that another program puts in place, and no daemon on a log that is not what was signed:

```toml
[audit]
key = "/run/credentials/enforcer/audit-key"
on_damage = "refuse"
```

Figures for a Prometheus on this host, which cannot ask a unix socket:

```toml
[metrics]
address = "127.0.0.1:9469"
```
"#;

/// The page.
fn page() -> String {
    let schema = serde_json::to_value(schemars::schema_for!(Settings)).expect("a schema is JSON");
    let defaults = serde_json::to_value(Settings::default()).expect("settings are JSON");
    let mut out = HEAD.to_owned();
    for (section, property) in object(&schema["properties"]) {
        let about = resolved(&schema, property);
        out += &format!("\n## {section}\n\n{}\n\n", text(&property["description"], &about["description"]));
        out += "| key | type | default | |\n|---|---|---|---|\n";
        for (key, property) in object(&about["properties"]) {
            let default = match &defaults[section][key] {
                Value::Null => "none".to_owned(),
                value => format!("`{value}`"),
            };
            let what = text(&property["description"], &resolved(&schema, property)["description"]);
            out += &format!("| `{key}` | {} | {default} | {what} |\n", kind(&schema, property));
        }
    }
    format!("{out}\n{TAIL}")
}

fn object(value: &Value) -> impl Iterator<Item = (&String, &Value)> {
    value.as_object().into_iter().flatten()
}

/// The definition that a `$ref` names, possibly as one of two with `null`.
fn resolved<'a>(schema: &'a Value, property: &'a Value) -> &'a Value {
    let choice = property["anyOf"].as_array().and_then(|all| all.iter().find(|one| one["type"] != "null"));
    let property = choice.unwrap_or(property);
    match property["$ref"].as_str().and_then(|name| name.rsplit('/').next()) {
        Some(name) => &schema["$defs"][name],
        None => property,
    }
}

/// One line of the description: tables have no others.
fn text(own: &Value, other: &Value) -> String {
    let words = own.as_str().or(other.as_str()).unwrap_or_default();
    words.split_whitespace().collect::<Vec<_>>().join(" ").replace('|', "\\|")
}

fn kind(schema: &Value, property: &Value) -> String {
    let about = resolved(schema, property);
    if let Some(choices) = about["oneOf"].as_array() {
        let named = choices.iter().map(|choice| format!("`{}`", choice["const"]));
        return named.collect::<Vec<_>>().join(" or ");
    }
    let of = match &about["type"] {
        Value::Array(all) => all.iter().find(|one| *one != "null").unwrap_or(&Value::Null),
        one => one,
    };
    match of.as_str() {
        Some("array") => {
            let item = resolved(schema, &about["items"]);
            match object(&item["properties"]).map(|(key, _)| format!("`{key}`")).collect::<Vec<_>>() {
                keys if keys.is_empty() => "list of text".to_owned(),
                keys => format!("list of tables: {}", keys.join(", ")),
            }
        }
        Some("string") => "text".to_owned(),
        Some("integer") => "number".to_owned(),
        Some("boolean") => "`true` or `false`".to_owned(),
        other => other.unwrap_or("text").to_owned(),
    }
}

#[test]
fn the_page_is_what_the_types_say() {
    let page = page();
    if std::env::var_os("ENFORCER_UPDATE_DOCS").is_some() {
        fs::write(PAGE, &page).expect("write");
    }
    let there = fs::read_to_string(PAGE).expect("docs/settings.md");
    assert!(
        there == page,
        "docs/settings.md is stale: ENFORCER_UPDATE_DOCS=1 cargo test -p enforcer --lib settings_reference"
    );
}

#[test]
fn every_key_has_a_type_and_a_description() {
    let page = page();
    let rows: Vec<&str> = page.lines().filter(|line| line.starts_with("| `")).collect();
    assert!(rows.len() >= 20, "{page}");
    for row in rows {
        assert!(!row.contains("|  |"), "{row}");
    }
}

#[test]
fn every_example_is_valid() {
    let mut count = 0;
    for page in [PAGE, concat!(env!("CARGO_MANIFEST_DIR"), "/../docs/install.md")] {
        let text = fs::read_to_string(Path::new(page)).expect(page);
        for example in text.split("```toml\n").skip(1) {
            let example = example.split("```").next().unwrap_or_default();
            assert!(
                Settings::parse(page, example).is_ok(),
                "{page}: {:?}\n{example}",
                Settings::parse(page, example)
            );
            count += 1;
        }
    }
    assert!(count >= 4, "{count} examples");
}
