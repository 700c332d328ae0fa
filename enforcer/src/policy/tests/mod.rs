mod calls;
mod diff;
mod examples;
mod floor;
mod format;
mod language;
mod learn;
mod meaning;
mod profiles;
mod sets;
mod tables;

use super::{PolicyErrors, ValidPolicy, parse};

/// A policy with these lines behind its head. The head has four lines.
fn with_head(rest: &str) -> String {
    format!(
        "apiVersion: enforcer/v1\n\
         kind: AgentPolicy\n\
         metadata: {{ id: test, version: 1, owner: me@example.com, purpose: testing }}\n\
         trust: autonomous\n\
         {rest}"
    )
}

pub(super) fn policy(rest: &str) -> ValidPolicy {
    match parse("test.yaml", &with_head(rest)) {
        Ok(policy) => policy,
        Err(errors) => panic!("the policy does not load:\n{errors}"),
    }
}

fn errors(rest: &str) -> PolicyErrors {
    match parse("test.yaml", &with_head(rest)) {
        Ok(_) => panic!("the policy loads:\n{rest}"),
        Err(errors) => errors,
    }
}

/// Line and column of the one fault, and its message and remedy in one text.
fn fault(rest: &str) -> ((u32, u32), String) {
    let errors = errors(rest);
    match errors.problems() {
        [one] => ((one.line, one.column), format!("{} / {}", one.message, one.remedy)),
        _ => panic!("not one fault:\n{errors}"),
    }
}

/// Checks the place of the one fault, and that its text contains some words.
fn assert_fault(rest: &str, place: (u32, u32), words: &str) {
    let (found, text) = fault(rest);
    assert!(text.contains(words), "`{words}` is not in: {text}");
    assert_eq!(found, place, "{text}\n{}", errors(rest));
}
