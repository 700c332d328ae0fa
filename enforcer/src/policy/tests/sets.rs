//! The sets of rules by which the kernel tells the first use of each.

use super::policy;
use crate::policy::{FirstUses, Image, compile};
use enforcer_common::{
    limits::SETS,
    map::{Masks, PortRange, STATE_SETTLED},
};
use std::{collections::BTreeSet, fmt::Write as _};
use zerocopy::FromBytes;

const BASE: u32 = 4096;

/// The numbers of the sets behind a path, one for each automaton.
fn sets(image: &Image, path: &str) -> Vec<u16> {
    let placed = image.place(BASE);
    let states = image.states_at(path.as_bytes(), BASE);
    let row = |state: &u32| ((state & !STATE_SETTLED) - BASE) as usize;
    let masks = |at: usize| Masks::read_from_bytes(&placed.bytes[at..at + 16]).expect("a row");
    states.iter().take(usize::from(placed.groups)).map(|state| masks(row(state)).set).collect()
}

#[test]
fn rules_that_say_the_same_are_told_apart_and_what_nothing_allows_has_no_set() {
    let image = compile(&policy(
        "files:\n  - { allow: [read], paths: ['/a/**'] }\n  - { allow: [read], paths: ['/b/**'] }\n\
         \x20 - { allow: [write], paths: ['/b/x'] }\n  - { deny: [all], paths: ['**/secret'] }\n\
         \x20 - { hold: [read], paths: ['/h'] }\nexec:\n  - { allow: ['/bin/true'] }\n",
    ))
    .expect("it compiles");
    assert_eq!(image.first_uses(), FirstUses { paths: true, addresses: true });
    let of = |path: &str| sets(&image, path);
    assert_eq!(of("/a/1"), of("/a/d/2"));
    assert_eq!(of("/b/1"), of("/b/d/2"));
    let different: BTreeSet<Vec<u16>> = ["/a/1", "/b/1", "/b/x"].map(of).into();
    assert!(different.len() == 3 && !different.contains(&vec![0]), "{different:?}");
    // Denied, held, executed, or not mentioned.
    for path in ["/a/secret", "/h", "/bin/true", "/c"] {
        assert_eq!(of(path), [0], "{path}");
    }
    // Which rules say it makes no difference to what may move.
    assert!(image.same_directory(b"/a/d", b"/b/d") && !image.same_directory(b"/a/d", b"/c/d"));
}

#[test]
fn addresses_have_sets_of_their_own() {
    let image = compile(&policy(
        "files:\n  - { allow: [read], paths: ['/a'] }\nnetwork:\n  - { allow: [connect], to: ['10.0.0.0/8:1/tcp'] }\n\
         \x20 - { allow: [connect], to: ['10.0.0.0/8:3/tcp'] }\n  - { deny: [connect], to: ['10.0.0.0/8:5/tcp'] }\n",
    ))
    .expect("it compiles");
    let placed = image.place(0);
    let [entry] = &placed.net[..] else { panic!("{} prefixes", placed.net.len()) };
    let at = entry.value.ranges as usize;
    let rows = placed.bytes[at..].chunks(size_of::<PortRange>()).take(entry.value.count as usize);
    let found: Vec<u16> =
        rows.map(|row| PortRange::read_from_bytes(row).expect("a range").masks.set).collect();
    let paths =
        sets(&compile(&policy("files:\n  - { allow: [read], paths: ['/a'] }\n")).expect("compiles"), "/a");
    assert!(
        matches!(found[..], [a, b, 0] if a != b && a != 0 && b != 0 && ![a, b].contains(&paths[0])),
        "{found:?}"
    );
}

#[test]
fn a_policy_of_very_many_rules_has_no_sets_and_says_so() {
    let rules = |count: usize| {
        let mut text = String::from("files:\n");
        for i in 0..count {
            let _ = writeln!(text, "  - {{ allow: [read], paths: ['/data/{i}'] }}");
        }
        compile(&policy(&text)).expect("it compiles")
    };
    let most = rules(SETS - 1);
    assert!(most.first_uses().paths);
    let all: BTreeSet<Vec<u16>> = (0..SETS - 1).map(|i| sets(&most, &format!("/data/{i}"))).collect();
    assert_eq!(all.len(), SETS - 1);
    let more = rules(SETS);
    assert!(!more.first_uses().paths && more.first_uses().addresses);
    assert_eq!(sets(&more, "/data/7"), [0]);
}
