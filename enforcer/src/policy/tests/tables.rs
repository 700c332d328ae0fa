//! The tables against the reference, walked as the kernel programs walk them.

use super::policy;
use crate::policy::{
    ALIGN, CompileError, Glob, Image, MatchError, Placed, RuleId, TCP, UDP, ValidPolicy, compile,
    compile::build, matcher, parse, reference, rule::normal,
};
use enforcer_common::{
    address::Address,
    map::{Masks, PortRange, ROW_HEADER, STATE_SETTLED},
};
use proptest::prelude::*;
use std::fmt::Write as _;
use zerocopy::FromBytes;

/// The walk over one component after the other, leaving a name early where its state has settled.
fn walk(placed: &Placed, base: u32, path: &[u8]) -> (Masks, [u32; 3]) {
    let row = |state: u32| ((state & !STATE_SETTLED) - base) as usize;
    let mut masks = Masks::NONE;
    let mut states = placed.start;
    for (group, state) in states.iter_mut().enumerate().take(usize::from(placed.groups)) {
        let step = |state: u32, byte: u8| {
            let at = row(state) + ROW_HEADER as usize + usize::from(placed.class[group][usize::from(byte)]);
            u32::read_from_bytes(&placed.bytes[at..at + 4]).expect("four bytes")
        };
        let mut names = path.split(|byte| *byte == b'/').peekable();
        while let Some(name) = names.next() {
            for byte in name {
                if *state & STATE_SETTLED != 0 {
                    break;
                }
                *state = step(*state, *byte);
            }
            if names.peek().is_some() {
                *state = step(*state, b'/');
            }
        }
        let at = row(*state);
        masks.join(&Masks::read_from_bytes(&placed.bytes[at..at + 16]).expect("a row"));
    }
    (normal(&masks), states)
}

/// The longest matching prefix, then the range that contains the port.
fn look_up(placed: &Placed, base: u32, address: Address, port: u16, protocol: u8) -> Option<PortRange> {
    let entry = placed
        .net
        .iter()
        .filter(|entry| entry.family == address.family && entry.protocol == protocol)
        .filter(|entry| {
            let bits = entry.prefix_bits - 64;
            (0..bits).all(|bit| {
                let (byte, shift) = ((bit / 8) as usize, 7 - bit % 8);
                (entry.address[byte] ^ address.bytes[byte]) >> shift & 1 == 0
            })
        })
        .max_by_key(|entry| entry.prefix_bits)?;
    let at = (entry.value.ranges - base) as usize;
    let size = size_of::<PortRange>();
    let ranges: Vec<PortRange> = placed.bytes[at..at + entry.value.count as usize * size]
        .chunks(size)
        .map(|row| PortRange::read_from_bytes(row).expect("a range"))
        .collect();
    assert!(ranges.windows(2).all(|pair| pair[0].last < pair[1].first), "ranges overlap");
    ranges.into_iter().find(|range| range.first <= port && port <= range.last)
}

const BASE: u32 = 4096;

fn check_path(policy: &ValidPolicy, image: &Image, placed: &Placed, path: &[u8]) {
    let expected = normal(&reference::masks_at_path(policy, path));
    let (found, states) = walk(placed, BASE, path);
    let shown = String::from_utf8_lossy(path);
    assert_eq!(found, expected, "masks at {shown}");
    assert_eq!(image.masks_at(path), expected, "masks on the host at {shown}");
    let named = image.rules_at(states, BASE);
    let matching = reference::rules_at_path(policy, path);
    assert_eq!(reference::rules_among(policy, image.rules_near(path), path), matching, "rules at {shown}");
    for rule in matching {
        assert!(named.contains(&rule), "rule {rule} is not named at {shown}");
    }
}

fn glob() -> impl Strategy<Value = String> {
    let component = prop::sample::select(vec![
        "a", "b", "ab", "ba", "a.b", ".a", "*", "a*", "*a", "*.b", "a*b", "*a*", "?", "?a", "??", "[ab]",
        "[!a]", "[^b]*", "[a-c]?", "{a,b}", "{a,b/a}", "{a*,.b}", "\\*", "\\xff*", "**", "**",
    ]);
    (prop::bool::weighted(0.2), prop::collection::vec(component, 1..5)).prop_map(|(anywhere, parts)| {
        let path = parts.join("/");
        if anywhere { format!("**/{path}") } else { format!("/{path}") }
    })
}

pub(super) fn rules() -> impl Strategy<Value = String> {
    let verdict = prop::sample::select(vec![
        "allow: [read]",
        "allow: [write, create]",
        "allow: [all]",
        "hold: [delete]",
        "deny: [read]",
        "deny: [write, link]",
    ]);
    let tier =
        prop::sample::select(vec!["", ", tier: low", ", tier: medium", ", tier: high", ", tier: critical"]);
    prop::collection::vec((verdict, tier, prop::collection::vec(glob(), 1..3)), 1..8).prop_map(|rules| {
        let mut text = String::from("files:\n");
        for (verdict, tier, globs) in rules {
            let globs: Vec<String> = globs.iter().map(|glob| format!("'{glob}'")).collect();
            let _ = writeln!(text, "  - {{ {verdict}{tier}, paths: [{}] }}", globs.join(", "));
        }
        text
    })
}

pub(super) fn path() -> impl Strategy<Value = Vec<u8>> {
    let byte = prop::sample::select(b"aaabbb.c*\xff".to_vec());
    let name = prop::collection::vec(byte, 1..5);
    prop::collection::vec(name, 0..6).prop_map(|names| names.join(&b'/'))
}

pub(super) fn endpoint() -> impl Strategy<Value = String> {
    let block = prop::sample::select(vec![
        "*",
        "0.0.0.0/0",
        "10.0.0.0/8",
        "10.1.0.0/16",
        "10.1.2.3",
        "127.0.0.1",
        "[::]/0",
        "[2001:db8::]/32",
        "[2001:db8::1]",
        "[::1]",
        "[::ffff:10.0.0.0]/104",
        "[::ffff:10.1.2.3]",
    ]);
    let ports = prop::sample::select(vec!["*", "80", "443", "80-443", "1-79", "444-65535", "0"]);
    let protocol = prop::sample::select(vec!["tcp", "udp", "*"]);
    (block, ports, protocol).prop_map(|(block, ports, protocol)| format!("{block}:{ports}/{protocol}"))
}

pub(super) fn address() -> impl Strategy<Value = Address> {
    prop::sample::select(vec![
        "10.1.2.3",
        "10.1.9.9",
        "10.9.9.9",
        "11.0.0.1",
        "127.0.0.1",
        "2001:db8::1",
        "2001:db8::2",
        "::1",
        "fe80::1",
    ])
    .prop_map(|text| match text.parse().expect("an address") {
        std::net::IpAddr::V4(v4) => Address::v4(v4.octets()),
        std::net::IpAddr::V6(v6) => Address::v6(v6.octets()).expect("an address"),
    })
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 400, failure_persistence: None, ..ProptestConfig::default() })]

    #[test]
    fn tables_say_what_the_reference_says(rules in rules(), paths in prop::collection::vec(path(), 60)) {
        let policy = policy(&rules);
        // One automaton, and as many as there are kinds of patterns.
        for one_automaton in [4096, 0] {
            let image = build(&policy, one_automaton).expect("it compiles");
            let placed = image.place(BASE);
            prop_assert_eq!(placed.bytes.len(), image.len());
            for path in &paths {
                check_path(&policy, &image, &placed, path);
            }
        }
    }

    #[test]
    fn a_directory_that_may_move_carries_equal_rights(
        rules in rules(), a in path(), b in path(), below in prop::collection::vec(path(), 20)
    ) {
        let policy = policy(&rules);
        for one_automaton in [4096, 0] {
            let image = build(&policy, one_automaton).expect("it compiles");
            if !image.same_directory(&a, &b) {
                continue;
            }
            let rights = |path: &[u8]| normal(&reference::masks_at_path(&policy, path));
            prop_assert_eq!(rights(&a), rights(&b));
            for child in below.iter().filter(|child| !child.is_empty()) {
                let at = |parent: &[u8]| {
                    let full = if parent.is_empty() { child.clone() } else { [parent, b"/", child].concat() };
                    rights(&full)
                };
                prop_assert_eq!(at(&a), at(&b));
            }
        }
    }

    #[test]
    fn port_tables_say_what_the_reference_says(
        endpoints in prop::collection::vec((endpoint(), 0..4usize), 1..12),
        asked in prop::collection::vec((address(), prop::sample::select(vec![0u16, 1, 79, 80, 81, 443, 444, 65535]), prop::bool::ANY), 30)
    ) {
        let mut text = String::from("network:\n");
        for (endpoint, verdict) in endpoints {
            let verdict = ["allow: [connect]", "allow: [connect, bind]", "hold: [connect]", "deny: [bind]"][verdict];
            let _ = writeln!(text, "  - {{ {verdict}, to: [\"{endpoint}\"] }}");
        }
        let policy = policy(&text);
        let image = compile(&policy).expect("it compiles");
        let placed = image.place(BASE);
        for (address, port, tcp) in asked {
            let protocol = if tcp { TCP } else { UDP };
            let rules = reference::rules_at_address(&policy, address, port, protocol);
            match look_up(&placed, BASE, address, port, protocol) {
                Some(range) => {
                    let masks = Masks { set: 0, ..range.masks };
                    prop_assert_eq!(masks, normal(&reference::joined(&policy, &rules)));
                    prop_assert_eq!(image.rules_at_port(range.index), rules);
                }
                None => prop_assert!(rules.is_empty()),
            }
        }
    }
}

#[test]
fn an_image_is_the_same_wherever_it_is_placed() {
    let policy = policy(
        "files:\n  - { allow: [read], paths: ['/a/**', '**/x?'] }\nnetwork:\n  - { allow: [connect], to: ['10.0.0.0/8:1-2/tcp'] }\n",
    );
    let image = compile(&policy).expect("it compiles");
    let (low, high) = (image.place(0), image.place(1 << 20));
    assert_eq!(low.bytes.len(), high.bytes.len());
    assert_eq!(low.class, high.class);
    assert_eq!(low.start[0] + (1 << 20), high.start[0]);
    assert_eq!(low.start[1..], [0, 0]);
    assert_eq!(walk(&low, 0, b"a/b").0, walk(&high, 1 << 20, b"a/b").0);
    assert_eq!(low.net[0].value.ranges % 8, 0);
    assert_eq!(image.digest(), compile(&policy).expect("it compiles").digest());
    assert!(image.len().is_multiple_of(8) && ALIGN == 16);
}

#[test]
fn the_dead_state_is_the_first_row_and_settled() {
    let image = compile(&policy("files:\n  - { allow: [read], paths: ['/a'] }\n")).expect("it compiles");
    let placed = image.place(BASE);
    let (masks, states) = walk(&placed, BASE, b"b");
    assert_eq!((masks, states[0]), (Masks::NONE, BASE | STATE_SETTLED));
    assert!(image.rules_at(states, BASE).is_empty());
    assert_eq!(image.rules_at(walk(&placed, BASE, b"a").1, BASE), [RuleId(0)]);
}

#[test]
fn a_thousand_mixed_rules_match_as_the_reference_does() {
    let tops = ["usr", "var", "srv"];
    let mut text = String::from("files:\n");
    for i in 0..1000usize {
        let (top, a, b) = (tops[i % 3], i * 7919 % 1000, i % 17);
        let glob = match i % 10 {
            0..6 => format!("/{top}/d{a}/e{b}/**"),
            6 | 7 => format!("/{top}/d{a}/f{b}"),
            8 => format!("/{top}/d{a}/**/*.x{b}"),
            _ => format!("**/n{a}.x{b}"),
        };
        let verdict = ["allow: [read]", "allow: [write]", "deny: [all]"][i % 3];
        let _ = writeln!(text, "  - {{ {verdict}, paths: ['{glob}'] }}");
    }
    let policy = policy(&text);
    let image = compile(&policy).expect("it compiles");
    assert_eq!(image.group_states().len(), 3);
    let placed = image.place(BASE);
    for i in 0..300usize {
        let (top, a, b) = (tops[i % 3], i * 31 % 1000, i % 17);
        for path in [
            format!("{top}/d{a}/e{b}"),
            format!("{top}/d{a}/e{b}/g/h"),
            format!("{top}/d{a}/f{b}"),
            format!("{top}/d{a}/q/r/s.x{b}"),
            format!("any/n{a}.x{b}"),
            format!("{top}/d{a}/q/n{a}.x{b}"),
        ] {
            check_path(&policy, &image, &placed, path.as_bytes());
        }
    }
}

#[test]
fn patterns_that_multiply_each_other_are_refused_by_name() {
    let mut text = String::from("files:\n  - { allow: [read], paths: ['/usr/**', '/srv/data/*.csv'] }\n");
    for i in 0..24 {
        let _ = writeln!(text, "  - {{ deny: [read], paths: ['**/x{i}/**/y'] }}");
    }
    let errors = super::errors(&text);
    let [problem] = errors.problems() else { panic!("not one fault: {errors}") };
    assert!(problem.message.contains("multiply each other"), "{}", problem.message);
    assert!(problem.message.matches("/**/y`").count() >= 2, "{}", problem.message);
    assert!(!problem.message.contains("/usr/**"), "{}", problem.message);
    assert!(problem.remedy.contains("at most one `**`"), "{}", problem.remedy);
    assert!(problem.line > 6, "line {}", problem.line);
}

#[test]
fn stars_on_both_sides_behind_any_depth_are_refused_when_they_explode() {
    let globs: Vec<String> = (0..26u8).map(|i| format!("'/w/**/*{}*.rs'", char::from(b'a' + i))).collect();
    let errors = super::errors(&format!("files:\n  - {{ deny: [read], paths: [{}] }}\n", globs.join(", ")));
    assert!(errors.problems()[0].message.contains("multiply each other"), "{errors}");
}

#[test]
fn more_port_ranges_than_the_kernel_searches_are_refused() {
    let to: Vec<String> = (0..1100).map(|i| format!("'10.0.0.1:{}/tcp'", i * 2)).collect();
    let errors = super::errors(&format!("network:\n  - {{ allow: [connect], to: [{}] }}\n", to.join(", ")));
    assert!(errors.problems()[0].message.contains("more than 1024 ranges"), "{errors}");
}

#[test]
fn a_compile_error_names_its_rules() {
    let error = CompileError::TooLarge { bytes: 1 << 30 };
    assert!(error.rules().is_empty() && !error.remedy().is_empty());
}

fn agents(list: &[(&str, &[&str])]) -> Result<Image, MatchError> {
    let globs: Vec<Vec<Glob>> = list
        .iter()
        .map(|(_, globs)| globs.iter().map(|glob| Glob::parse(glob).expect("a glob")).collect())
        .collect();
    let agents: Vec<(u32, &str, &[Glob])> = list
        .iter()
        .zip(&globs)
        .zip(0..)
        .map(|(((id, _), globs), index)| (70_000 * index, *id, &globs[..]))
        .collect();
    matcher(&agents)
}

#[test]
fn a_cgroup_belongs_to_the_agent_that_matches_it() {
    let image =
        agents(&[("one", &["/agents.slice/one.slice/*"]), ("two", &["/agents.slice/two-*", "/x/{a,b}"])])
            .expect("no overlap");
    let placed = image.place(BASE);
    let agent = |path: &[u8]| {
        let masks = walk(&placed, BASE, path).0;
        u32::from(masks.allow[0]) | u32::from(masks.allow[1]) << 16
    };
    assert_eq!(agent(b"agents.slice/one.slice/s1"), 1);
    assert_eq!(agent(b"agents.slice/two-9"), 70_001);
    assert_eq!(agent(b"x/b"), 70_001);
    for nobody in [
        &b"agents.slice/one.slice"[..],
        b"agents.slice/one.slice/s1/deeper",
        b"",
        b"agents.slice/two",
        b"x/c",
    ] {
        assert_eq!(agent(nobody), 0, "{}", String::from_utf8_lossy(nobody));
    }
}

#[test]
fn two_agents_cannot_match_one_cgroup() {
    for (a, b, example) in [
        ("/a/*", "/a/*", "/a/a"),
        ("/a/x*", "/a/*y", "/a/xy"),
        ("/a/b", "/a/?", "/a/b"),
        ("/a/**/c", "/a/b/c", "/a/b/c"),
    ] {
        match agents(&[("first", &[a]), ("second", &[b])]) {
            Err(MatchError::Overlap { first, second, example: found }) => {
                assert_eq!((first.as_str(), second.as_str(), found.as_str()), ("first", "second", example));
            }
            other => panic!("{a} and {b}: {other:?}"),
        }
    }
    assert!(agents(&[("first", &["/a/x*"]), ("second", &["/a/y*"])]).is_ok());
    assert!(agents(&[("first", &["/a/*"]), ("second", &["/a/*/*"])]).is_ok());
}

#[test]
fn a_session_cannot_be_a_subtree() {
    let error = agents(&[("one", &["/agents.slice/**"])]).expect_err("it is refused");
    assert!(error.to_string().contains("sessions do not nest"), "{error}");
}

#[test]
fn two_texts_that_mean_the_same_have_one_digest() {
    let block = "apiVersion: enforcer/v1\nkind: AgentPolicy\nmetadata:\n  purpose: p\n  owner: o\n  version: 3\n  id: a\nfiles:\n  # why\n  - paths: ['/a']\n    allow: [read]\n";
    let flow = r#"{"kind":"AgentPolicy","apiVersion":"enforcer/v1","metadata":{"id":"a","version":3,"owner":"o","purpose":"p"},"files":[{"allow":["read"],"paths":["/a"]}]}"#;
    let digest = |text: &str| parse("x", text).expect("it loads").digest();
    assert_eq!(digest(block), digest(flow));
    assert_ne!(digest(block), digest(&block.replace("version: 3", "version: 4")));
    assert_ne!(digest(block), digest(&block.replace("'/a'", "'/b'")));
}
