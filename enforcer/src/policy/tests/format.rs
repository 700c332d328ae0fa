//! The canonical layout: nothing is lost, and a second time changes nothing.

use super::with_head;
use crate::policy::{FormatError, format, parse, profiles, schema};
use proptest::prelude::*;

fn laid_out(text: &str) -> String {
    format("test.yaml", text).unwrap_or_else(|error| panic!("{error}\n{text}"))
}

const HEAD: &str = "apiVersion: enforcer/v1\nkind: AgentPolicy\nmetadata: { id: test, version: 1, owner: me@example.com, purpose: testing }\ntrust: autonomous\n";

#[test]
fn keys_have_an_order_and_short_rules_one_line() {
    let text = "trust: 'autonomous'\nfiles:\n- paths:\n  - '/w/**'\n  because: \"x\"\n  allow: ['read', list]\nkind: AgentPolicy\napiVersion: \"enforcer/v1\"\nmetadata:\n    purpose: testing\n    owner: me@example.com\n    version: 1\n    id: test\n";
    let expected = format!("{HEAD}files:\n  - {{ allow: [read, list], paths: [\"/w/**\"], because: x }}\n");
    assert_eq!(laid_out(text), expected);
}

#[test]
fn a_long_rule_gets_a_line_for_each_key_and_a_long_list_one_for_each_value() {
    let paths: Vec<String> = (0..8).map(|i| format!("/srv/a-rather-long-directory/{i}")).collect();
    let text =
        with_head(&format!("exec:\n  - {{ allow: [{}], because: 'needed; much' }}\n", paths.join(", ")));
    let lines: String = paths.iter().map(|path| format!("      - {path}\n")).collect();
    let expected = format!("{HEAD}exec:\n  - allow:\n{lines}    because: \"needed; much\"\n");
    assert_eq!(laid_out(&text), expected);
}

#[test]
fn comments_stay_with_what_they_are_about() {
    let text = "# about the file\n\n# and more\nkind: AgentPolicy # the kind\napiVersion: enforcer/v1\nmetadata: { id: test, version: 1,\n  # who\n  owner: me@example.com, # reachable\n  purpose: testing }\ntrust: autonomous\n\n# what it works on\nfiles: # rules\n  # the first\n  - { allow: [read], paths: [/a] } # remark\n\n  - allow: [write] # second\n    paths:\n      - /b # b\n      # not yet\n      # - /c\n  # the last\n# the end\n";
    let expected = "# about the file\n\n# and more\napiVersion: enforcer/v1\nkind: AgentPolicy  # the kind\nmetadata:\n  id: test\n  version: 1\n  # who\n  owner: me@example.com  # reachable\n  purpose: testing\ntrust: autonomous\n\n# what it works on\nfiles:  # rules\n  # the first\n  - { allow: [read], paths: [/a] }  # remark\n\n  - allow: [write]  # second\n    paths:\n      - /b  # b\n      # not yet\n      # - /c\n  # the last\n# the end\n";
    assert_eq!(laid_out(text), expected);
    assert_eq!(laid_out(expected), expected);
}

#[test]
fn a_number_sign_in_a_value_is_no_comment() {
    let text = with_head(
        "files:\n  - { allow: [read], paths: [/a#b, '/c # d'], because: \"it's # one\" }\n  - allow: [list]\n    paths: [/e]\n    because: |\n      # not a comment\n",
    );
    assert!(laid_out(&text).contains("because: \"# not a comment\\n\""), "{}", laid_out(&text));
    assert!(
        laid_out(&text).contains("[\"/a#b\", \"/c # d\"], because: \"it's # one\""),
        "{}",
        laid_out(&text)
    );
}

#[test]
fn what_the_layout_cannot_keep_is_an_error_with_its_place() {
    for (rest, words) in [
        ("files:\n  - { allow: &ops [read], paths: [/a] }\n", "anchors"),
        ("files:\n  - { allow: [read], paths: [!!str /a] }\n", "tags"),
        ("fils: []\n", "unknown key"),
    ] {
        match format("test.yaml", &with_head(rest)) {
            Err(FormatError::Document(errors)) => {
                assert!(errors.to_string().contains(words), "{errors}");
                assert!(errors.problems()[0].line >= 5, "{errors}");
            }
            other => panic!("{other:?}"),
        }
    }
}

#[test]
fn values_that_look_like_something_else_are_quoted() {
    let text = with_head(
        "launch: { by: ['uid:0'], run_as: 1000 }\nfiles:\n  - { allow: [read], paths: ['/a\\[1\\]', '/b''c', '/d: e', '/f\"g\\xff'], because: 'true' }\n",
    );
    let out = laid_out(&text);
    for part in
        ["by: [uid:0]", "run_as: 1000", "'/a\\[1\\]'", "\"/b'c\"", "\"/d: e\"", "'/f\"g\\xff'", "\"true\""]
    {
        assert!(out.contains(part), "{part} is not in\n{out}");
    }
}

#[test]
fn what_comes_with_the_program_can_be_laid_out() {
    for (name, text) in profiles() {
        let out = format(&name, text).unwrap_or_else(|error| panic!("{error}"));
        assert_eq!(format(&name, &out).expect("again"), out, "{name}");
    }
}

#[test]
fn every_key_of_the_language_has_its_place() {
    let schema = schema();
    let mut missing = Vec::new();
    let mut look = vec![&schema];
    while let Some(value) = look.pop() {
        if let Some(properties) = value.get("properties").and_then(|p| p.as_object()) {
            let order = crate::policy::format::items::ORDER;
            missing.extend(properties.keys().filter(|key| !order.contains(&key.as_str())));
        }
        match value {
            serde_json::Value::Object(map) => look.extend(map.values()),
            serde_json::Value::Array(list) => look.extend(list),
            _ => {}
        }
    }
    assert!(missing.is_empty(), "{missing:?}");
}

const DOCUMENT: &str = r#"# A document with something of everything.
metadata: { id: test, version: 1, owner: me@example.com, purpose: "all: of it" }
apiVersion: enforcer/v1
kind: AgentPolicy
launch:
    by: [uid:root]
files:
- allow: [read, list,
    write]
  paths:
  - "/srv/project/**"
  - '/srv/other # place/**'
  because: the project
- { paths: ["**/.env"], deny: [all] }
exec:
  - { because: "a reason that is long enough that the rule takes more than one line", allow: [/usr/bin/git] }
tests:
  - { expect: allow, write: /srv/project/invoice.py }
  - read: /srv/project/.env
    expect: deny
"#;

proptest! {
    #![proptest_config(ProptestConfig { cases: 256, failure_persistence: None, ..ProptestConfig::default() })]

    #[test]
    fn comments_anywhere_survive_and_the_policy_stays_the_same(
        added in prop::collection::vec((0..60usize, 0..9usize, 0..3u8), 1..6)
    ) {
        let mut lines: Vec<String> = DOCUMENT.lines().map(str::to_owned).collect();
        for (n, (at, indent, kind)) in added.iter().enumerate() {
            let at = at % lines.len();
            match kind {
                0 => lines.insert(at, format!("{}# own {n}", " ".repeat(*indent))),
                1 => lines[at].push_str(&format!(" # end {n}")),
                _ => lines.insert(at, String::new()),
            }
        }
        let text = lines.join("\n") + "\n";
        let before = parse("a.yaml", &text).expect("a policy");
        let out = laid_out(&text);
        prop_assert_eq!(before.digest(), parse("a.yaml", &out).expect("a policy").digest());
        prop_assert_eq!(laid_out(&out), out.clone(), "of\n{}", text);
        for (n, (_, _, kind)) in added.iter().enumerate() {
            let words = [format!("# own {n}"), format!("# end {n}")];
            prop_assert!(*kind == 2 || out.contains(&words[usize::from(*kind)]), "{n} in\n{out}");
        }
    }

    #[test]
    fn any_text_in_a_value_survives(because in "\\PC{1,12}|[ -~\\n\\t]{1,12}") {
        prop_assume!(!because.trim().is_empty());
        let quoted = serde_json::to_string(&because).expect("text");
        let text = with_head(&format!("files:\n  - {{ allow: [read], paths: [/a], because: {quoted} }}\n"));
        // A JSON string is not always a YAML one.
        prop_assume!(parse("a.yaml", &text).is_ok());
        let out = laid_out(&text);
        prop_assert_eq!(
            parse("a.yaml", &text).expect("a policy").digest(), parse("a.yaml", &out).expect("a policy").digest()
        );
        prop_assert_eq!(laid_out(&out), out);
    }
}
