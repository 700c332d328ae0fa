//! Comparing policies: against the reference, path by path and address by address.

use super::{
    policy,
    tables::{address, endpoint, path, rules},
};
use crate::policy::{
    Diff, Direction, Example, Relation, Section, Step, TCP, Trust, UDP, ValidPolicy, diff, reference,
    trust_tiers,
};
use enforcer_common::{
    access::{self, file, net},
    address::Address,
    verdict::Verdict,
};
use proptest::prelude::*;
use std::fmt::Write as _;

const LEVELS: [Trust; 4] = [Trust::Probation, Trust::Supervised, Trust::Trusted, Trust::Autonomous];

fn compared(a: &ValidPolicy, b: &ValidPolicy) -> Diff {
    diff(a, b, None).expect("they can be compared")
}

fn file_answer(policy: &ValidPolicy, path: &[u8], bit: u16, trust: Trust) -> Verdict {
    let tiers = trust_tiers(policy.trust_in_force(Some(trust)));
    match bit {
        file::LOAD => reference::map_verdict(policy, path, &tiers).0,
        _ => reference::file_verdict(policy, path, bit, &tiers).0,
    }
}

/// The same about every operation at every level of trust.
fn file_answers(policy: &ValidPolicy, path: &[u8]) -> Vec<(&'static str, Trust, Verdict)> {
    let masks = reference::masks_at_path(policy, path);
    let at = |trust: Trust| {
        let folded = masks.fold(&trust_tiers(policy.trust_in_force(Some(trust))));
        file::NAMES.map(|(bit, name)| match bit {
            file::LOAD => (name, trust, folded.map_verdict()),
            _ => (name, trust, folded.verdict(bit)),
        })
    };
    LEVELS.into_iter().flat_map(at).collect()
}

/// A policy with a level of trust of its own.
fn trusted(trust: Trust, rest: &str) -> ValidPolicy {
    let text = super::with_head(rest).replace("trust: autonomous", &format!("trust: {}", trust.name()));
    crate::policy::parse("test.yaml", &text).expect("a policy")
}

fn net_answer(
    policy: &ValidPolicy,
    (address, port, protocol): (Address, u16, u8),
    bit: u16,
    trust: Trust,
) -> Verdict {
    let tiers = trust_tiers(policy.trust_in_force(Some(trust)));
    reference::net_verdict(policy, address, port, protocol, bit, &tiers).0
}

/// Every example must show what is claimed for it.
fn check_examples(a: &ValidPolicy, b: &ValidPolicy, diff: &Diff) {
    for difference in &diff.differences {
        assert!(!difference.operations.is_empty() && !difference.steps.is_empty());
        assert!(!difference.objects.is_empty(), "{difference:?}");
        for name in &difference.operations {
            for Step { trust, from, to } in &difference.steps {
                let (x, y) = match &difference.example {
                    Example::Path(path) => {
                        let bit = access::named(&file::NAMES, name).expect("an operation");
                        (file_answer(a, path, bit, *trust), file_answer(b, path, bit, *trust))
                    }
                    Example::Address { address, port, protocol } => {
                        let bit = access::named(&net::NAMES, name).expect("an operation");
                        let object = (*address, *port, *protocol);
                        (net_answer(a, object, bit, *trust), net_answer(b, object, bit, *trust))
                    }
                };
                assert_eq!((x, y), (*from, *to), "{name} at {trust:?} in {difference:?}");
                assert_eq!(to < from, difference.direction == Direction::Grants);
            }
        }
    }
}

/// Whether the difference covers this step on this operation.
fn covered(diff: &Diff, section: Section, name: &str, step: Step) -> bool {
    diff.differences
        .iter()
        .any(|one| one.section == section && one.operations.contains(&name) && one.steps.contains(&step))
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 300, failure_persistence: None, ..ProptestConfig::default() })]

    #[test]
    fn what_differs_at_random_paths_is_in_the_diff_and_every_example_differs(
        a in rules(), b in rules(), keep in prop::bool::ANY,
        trust in prop::sample::select(vec![Trust::Probation, Trust::Autonomous, Trust::Autonomous]), paths in prop::collection::vec(path(), 60)
    ) {
        // Half of the time the second is the first with more rules.
        let b = if keep { a.clone() + b.strip_prefix("files:\n").expect("rules") } else { b };
        let (a, b) = (policy(&a), trusted(trust, &b));
        let diff = compared(&a, &b);
        check_examples(&a, &b, &diff);
        for path in &paths {
            // Not the name of an object.
            if path.split(|byte| *byte == b'/').any(|name| name == b"." || name == b"..") {
                continue;
            }
            let answers = file_answers(&a, path).into_iter().zip(file_answers(&b, path));
            for ((name, trust, from), (_, _, to)) in answers.filter(|(a, b)| a.2 != b.2) {
                let step = Step { trust, from, to };
                prop_assert!(
                    covered(&diff, Section::Files, name, step),
                    "{name} {} {step:?} is not in\n{diff}", String::from_utf8_lossy(path)
                );
            }
        }
        prop_assert_eq!(compared(&a, &a).relation, Relation::Same);
    }

    #[test]
    fn what_differs_at_random_addresses_is_in_the_diff_and_every_example_differs(
        a in prop::collection::vec((endpoint(), 0..4usize), 0..8),
        b in prop::collection::vec((endpoint(), 0..4usize), 0..8),
        asked in prop::collection::vec((address(), prop::sample::select(vec![0u16, 1, 79, 80, 81, 443, 444, 65535]), prop::bool::ANY), 30)
    ) {
        let text = |endpoints: &[(String, usize)]| {
            let mut text = String::from("files:\n  - { allow: [read], paths: [/a] }\nnetwork:\n");
            text.push_str("  - { allow: [bind], to: ['127.0.0.9:9/tcp'] }\n");
            for (endpoint, verdict) in endpoints {
                let verdict = ["allow: [connect]", "allow: [connect, bind]", "hold: [connect]", "deny: [bind]"][*verdict];
                let _ = writeln!(text, "  - {{ {verdict}, to: [\"{endpoint}\"] }}");
            }
            policy(&text)
        };
        let (a, b) = (text(&a), text(&b));
        let diff = compared(&a, &b);
        check_examples(&a, &b, &diff);
        for (address, port, tcp) in asked {
            let object = (address, port, if tcp { TCP } else { UDP });
            for (bit, name) in net::NAMES {
                for trust in LEVELS {
                    let (from, to) = (net_answer(&a, object, bit, trust), net_answer(&b, object, bit, trust));
                    if from != to {
                        let step = Step { trust, from, to };
                        prop_assert!(covered(&diff, Section::Network, name, step), "{object:?} {step:?}\n{diff}");
                    }
                }
            }
        }
    }
}

#[test]
fn the_same_meaning_in_other_words_is_the_same_authority() {
    let a = policy("files:\n  - { allow: [read, list], paths: ['/{a,b}/**'] }\n");
    let b = policy(
        "files:\n  - { allow: [read], paths: ['/b/**', '/a/**'] }\n  - { allow: [list], paths: ['/a/**'] }\n  - { allow: [list], paths: ['/b', '/b/**/*'] }\n",
    );
    let diff = compared(&a, &b);
    assert_eq!(diff.relation, Relation::Same, "{diff}");
    assert!(diff.differences.is_empty() && !diff.moves_may_differ && diff.settings.is_empty(), "{diff}");
}

#[test]
fn a_grant_names_the_shortest_path_the_pattern_and_the_rule() {
    let a = policy("files:\n  - { allow: [read], paths: ['/srv/notes/**'] }\n");
    let b = policy(
        "files:\n  - { allow: [read], paths: ['/srv/notes/**'] }\n  - { allow: [write], paths: ['/srv/notes/drafts/*.md'], because: drafts }\n",
    );
    let diff = compared(&a, &b);
    assert_eq!(diff.relation, Relation::More);
    let [one] = &diff.differences[..] else { panic!("not one difference:\n{diff}") };
    assert_eq!(one.operations, ["write", "truncate"]);
    assert_eq!(one.example.to_string(), "/srv/notes/drafts/.md");
    assert_eq!(one.objects, ["/srv/notes/drafts/*.md"]);
    assert!(one.from.is_empty() && one.to[0].origin.contains("files[1]"));
    assert_eq!(compared(&b, &a).relation, Relation::Less);
    let text = diff.to_string();
    for words in ["more authority", "grants:", "+ write, truncate", "deny → allow", "drafts"] {
        assert!(text.contains(words), "`{words}` is not in\n{text}");
    }
}

#[test]
fn a_lifted_denial_names_the_rule_that_stood_in_the_way() {
    let allow = "files:\n  - { allow: [read], paths: ['/w/**'] }\n";
    let a = policy(&format!("{allow}  - {{ deny: [read], paths: ['**/.env'], because: secrets }}\n"));
    let diff = compared(&a, &policy(allow));
    let [one] = &diff.differences[..] else { panic!("not one difference:\n{diff}") };
    assert_eq!((one.direction, one.example.to_string().as_str()), (Direction::Grants, "/w/.env"));
    assert_eq!(one.from[0].because.as_deref(), Some("secrets"));
}

#[test]
fn trust_counts_at_the_levels_that_it_reaches() {
    let read = |trust| trusted(trust, "exec:\n  - { allow: ['/bin/x'], tier: high }\n");
    let (low, high) = (read(Trust::Supervised), read(Trust::Autonomous));
    let all = compared(&low, &high);
    assert_eq!(all.relation, Relation::More, "{all}");
    let steps = &all.differences[0].steps;
    assert_eq!(steps[..], [Step { trust: Trust::Autonomous, from: Verdict::Hold, to: Verdict::Allow }]);
    let now = diff(&low, &high, Some(Trust::Probation)).expect("compared");
    assert_eq!(now.relation, Relation::Same);
}

#[test]
fn audit_mode_grants_and_another_user_is_incomparable() {
    let rules = "files:\n  - { allow: [read], paths: [/a] }\n";
    let enforce = policy(rules);
    let audit = policy(&format!("mode: audit\n{rules}"));
    assert_eq!(compared(&enforce, &audit).relation, Relation::More);
    assert_eq!(compared(&audit, &enforce).relation, Relation::Less);
    let other = policy(&format!("launch: {{ run_as: root }}\n{rules}"));
    assert_eq!(compared(&enforce, &other).relation, Relation::Both);
}

#[test]
fn rules_that_change_no_answer_are_mentioned_for_the_sake_of_moves() {
    let a = policy("files:\n  - { allow: [rename], paths: ['/w/**'] }\n");
    let b = policy(
        "files:\n  - { allow: [rename], paths: ['/w/**'] }\n  - { deny: [read], paths: ['/w/x/**'] }\n",
    );
    let diff = compared(&a, &b);
    assert!(diff.relation == Relation::Same && diff.moves_may_differ, "{diff}");
}

#[test]
fn large_policies_that_hardly_differ_are_compared() {
    let rules = |denied: usize| {
        let mut text = String::from("files:\n");
        for i in 0..600usize {
            let (top, b) = (["usr", "var", "srv"][i % 3], i % 17);
            let glob = match i % 10 {
                0..8 => format!("/{top}/d{i}/e{b}/**"),
                8 => format!("/{top}/d{i}/**/*.x{b}"),
                _ => format!("**/n{i}.x{b}"),
            };
            let verdict = if i == denied { "deny: [read]" } else { "allow: [read]" };
            let _ = writeln!(text, "  - {{ {verdict}, paths: ['{glob}'] }}");
        }
        policy(&text)
    };
    let (a, b) = (rules(usize::MAX), rules(300));
    let diff = compared(&a, &b);
    assert_eq!(diff.relation, Relation::Less);
    check_examples(&a, &b, &diff);
    assert_eq!(diff.differences[0].example.to_string(), "/usr/d300/e11");
}

#[test]
fn rules_about_arguments_are_compared_as_they_are_written() {
    let with = |exec: &str| policy(&format!("exec: [{{ allow: [/bin/git] }}{exec}]\n"));
    let push = with(", { hold: [/bin/git], arguments: [push] }");
    let both = with(", { hold: [/bin/git], arguments: [push] }, { deny: [/bin/git], arguments: [gc] }");
    let other = with(", { hold: [/bin/git], arguments: [pull] }");
    let relation = |a: &ValidPolicy, b: &ValidPolicy| diff(a, b, None).expect("compares").relation;
    assert_eq!(relation(&push, &push), Relation::Same);
    assert_eq!(relation(&push, &both), Relation::Less);
    assert_eq!(relation(&both, &push), Relation::More);
    assert_eq!(relation(&push, &other), Relation::Both);
}
