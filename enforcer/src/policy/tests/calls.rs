//! `system_calls`.

use super::{fault, policy};
use enforcer_common::calls::{Actions, CALLS, CLONE_PLACE};

const RULES: &str = "exec: [ { allow: ['/bin/x'] } ]\n";

fn bit(name: &str) -> u64 {
    1 << CALLS.iter().position(|call| call.name == name).expect("a call of the list")
}

#[test]
fn calls_are_ignored_stopped_and_killed_by_name() {
    let text = format!("{RULES}system_calls: {{ ignore: [kcmp], stop: [ptrace, setns], kill: [clone] }}\n");
    let said = policy(&text);
    let expected =
        Actions { ignored: bit("kcmp"), stopped: bit("ptrace") | bit("setns"), killed: 1 << CLONE_PLACE };
    assert_eq!(said.grants().calls, expected);
    let silent = policy(RULES);
    assert_eq!(silent.grants().calls, Actions::default());
    assert_ne!(said.digest(), silent.digest());
    // Saying nothing in so many words is saying nothing.
    assert_eq!(policy(&format!("{RULES}system_calls: {{}}\n")).digest(), silent.digest());
}

#[test]
fn unknown_and_repeated_calls_are_faults() {
    let (at, text) = fault(&format!("{RULES}system_calls: {{ kill: [open] }}\n"));
    assert!(at.0 == 6 && text.contains("`open` is none of"), "{at:?} {text}");
    let (_, text) = fault(&format!("{RULES}system_calls: {{ kill: [bpf], ignore: [bpf] }}\n"));
    assert!(text.contains("`bpf` is named twice"), "{text}");
}
