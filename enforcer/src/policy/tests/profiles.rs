//! The profiles that come with the program.

use super::with_head;
use crate::policy::{compile, parse, parse_profile, profiles};

#[test]
fn every_profile_is_what_its_name_says_and_passes_its_tests() {
    for (name, text) in profiles() {
        let profile = parse_profile(&name, text).unwrap_or_else(|errors| panic!("{errors}"));
        assert_eq!(format!("{}@{}", profile.id(), profile.version()), name);
        assert!(!profile.purpose().is_empty());
        let (_, tests) = text.split_once("\ntests:\n").unwrap_or_else(|| panic!("{name} has no tests"));
        let policy = with_head(&format!("include: [{name}]\ntests:\n{tests}"));
        parse(&name, &policy).unwrap_or_else(|errors| panic!("{errors}"));
    }
}

#[test]
fn all_profiles_together_fit_one_small_automaton() {
    let names: Vec<String> = profiles().into_iter().map(|(name, _)| name).collect();
    let rules = "files:\n  - { allow: [all], paths: ['/workspace/**', '/tmp/**'] }\n";
    let policy = super::policy(&format!("include: [{}]\n{rules}", names.join(", ")));
    let image = compile(&policy).expect("it compiles");
    assert!(image.len() < 1 << 20, "{} bytes", image.len());
}

#[test]
fn rules_say_which_profile_they_come_from() {
    let policy = super::policy("include: [git@1]\nexec:\n  - { allow: ['/opt/tool'] }\n");
    let sources: Vec<&str> = policy.rules().iter().map(|rule| rule.origin().source.as_str()).collect();
    assert_eq!(sources, ["test.yaml", "git@1", "git@1", "floor@1", "floor@1"]);
}
