//! What the language refuses, where it points, and what it says to write instead.

use super::{assert_fault, errors, policy, with_head};
use crate::policy::{
    Effect, Feature, Glob, Launcher, Mode, OnHold, OnTighten, Trust, User, parse, path_bytes, schema,
};
use proptest::prelude::*;

const FILES: &str = "files:\n  - { allow: [read], paths: ['/a'] }\n";

#[test]
fn a_full_policy_is_read() {
    let text = "apiVersion: enforcer/v1\n\
        kind: AgentPolicy\n\
        metadata: { id: billing-bot, version: 7, owner: a@b.c, purpose: Money, expires: '2030-01-02T03:04:05Z' }\n\
        match: { cgroup: '/agents.slice/billing-bot.slice/*' }\n\
        launch: { by: [uid:root, uid:7, group:operators, group:8], run_as: billing-bot }\n\
        trust: supervised\n\
        mode: audit\n\
        on_tighten: kill\n\
        requires: [network, exec]\n\
        include: [base@1]\n\
        files:\n\
        - { hold: [delete], tier: high, paths: ['/w/**'], because: ledgers, on_hold: refuse, hold_timeout: 15m }\n\
        exec:\n\
        - { allow: ['/usr/bin/git'] }\n\
        network:\n\
        - { allow: [connect], to: ['10.0.0.0/8:5432/tcp', '[2001:db8::]/32:443/tcp'] }\n";
    let policy = parse("p.yaml", text).unwrap_or_else(|errors| panic!("{errors}"));
    assert_eq!(
        (policy.id(), policy.version(), policy.owner(), policy.purpose()),
        ("billing-bot", 7, "a@b.c", "Money")
    );
    assert_eq!(policy.expires_unix(), Some(1_893_553_445));
    assert_eq!(policy.cgroups()[0].text(), "/agents.slice/billing-bot.slice/*");
    let launch = policy.launch().expect("launch");
    assert_eq!(launch.run_as(), Some(&User::Name("billing-bot".into())));
    assert_eq!(
        launch.by(),
        [
            Launcher::User(User::Name("root".into())),
            Launcher::User(User::Id(7)),
            Launcher::Group("operators".into()),
            Launcher::GroupId(8)
        ]
    );
    assert_eq!((policy.trust(), policy.mode()), (Trust::Supervised, Mode::Audit));
    assert_eq!(policy.on_tighten(), OnTighten::Kill);
    assert_eq!(policy.requires(), [Feature::Exec, Feature::Network]);
    let rule = &policy.rules()[0];
    assert_eq!(
        (rule.effect(), rule.on_hold(), rule.hold_timeout()),
        (Effect::Hold, Some(OnHold::Refuse), Some(900))
    );
    assert_eq!(policy.warnings().len(), 0, "{:?}", policy.warnings());
    assert_eq!(policy.includes(), ["base@1"]);
}

#[test]
fn units_are_the_cgroups_that_systemd_gives_them() {
    let cgroups = |matches: &str| {
        let policy = parse("p", &format!("{}match: {matches}\n", with_head(FILES)));
        policy.map(|policy| policy.cgroups().iter().map(|glob| glob.text().to_owned()).collect::<Vec<_>>())
    };
    let found = cgroups("{ unit: [bot.service, 'bot@*.service'] }").expect("units");
    assert_eq!(found, ["/agents.slice/bot.service", "/agents.slice/bot@*.service"]);
    let found = cgroups("{ unit: 'a\\x2db.scope', slice: agents-eu.slice, cgroup: /agents.slice/x }");
    let nested = r"/agents.slice/agents-eu.slice/a\\x2db.scope";
    assert_eq!(found.expect("a slice"), ["/agents.slice/x", nested]);
    for (wrong, why) in [
        ("{}", "neither a cgroup nor a unit"),
        ("{ slice: agents.slice, cgroup: /agents.slice/x }", "there is no `unit`"),
        ("{ unit: bot }", "not a service or scope"),
        ("{ unit: a/b.service }", "not a service or scope"),
        ("{ unit: bot.service, slice: agents }", "not a slice"),
    ] {
        let errors = cgroups(wrong).expect_err(wrong).to_string();
        assert!(errors.contains(why), "{wrong}: {errors}");
    }
}

#[test]
fn defaults_are_the_strict_ones() {
    let policy = parse("p", &with_head(FILES).replace("trust: autonomous\n", "")).expect("it loads");
    assert_eq!((policy.trust(), policy.mode()), (Trust::Probation, Mode::Enforce));
    assert_eq!(policy.on_tighten(), OnTighten::List);
    // What nobody said changes no digest; what somebody said does.
    let kept = with_head(FILES).replace("trust: autonomous\n", "on_tighten: list\n");
    assert_eq!(parse("p", &kept).expect("it loads").digest(), policy.digest());
    let killed = kept.replace("on_tighten: list", "on_tighten: kill");
    assert_ne!(parse("p", &killed).expect("it loads").digest(), policy.digest());
    assert!(policy.launch().is_none() && policy.cgroups().is_empty());
}

#[test]
fn a_number_is_a_user_too() {
    let policy = policy(&format!("launch: {{ run_as: 1000 }}\n{FILES}"));
    assert_eq!(policy.launch().and_then(|launch| launch.run_as()), Some(&User::Id(1000)));
}

#[test]
fn unknown_keys_are_refused_with_a_suggestion() {
    assert_fault(&format!("{FILES}fils: []\n"), (7, 1), "unknown key `fils` / did you mean `files`?");
    assert_fault(
        "files:\n  - { allow: [read], path: ['/a'], paths: ['/a'] }\n",
        (6, 22),
        "did you mean `paths`?",
    );
}

#[test]
fn keys_of_the_language_that_cannot_be_enforced_are_refused_as_such() {
    assert_fault(
        "network:\n  - { allow: [connect], to: ['unix:/run/x.sock'] }\n",
        (6, 31),
        "write it as a rule under `unix`",
    );
    assert_fault(
        "network:\n  - { allow: [connect], to: ['example.com:443/tcp'] }\n",
        (6, 31),
        "host names yet",
    );
}

#[test]
fn all_faults_of_a_file_are_reported_at_once() {
    let errors = errors(
        "mode: strict\nfilez: []\nfiles:\n  - { allow: [reed], paths: ['/a'] }\n  - { allow: [read], paths: ['b'] }\n  - { deny: [read] }\n",
    );
    let places: Vec<(u32, u32)> = errors.problems().iter().map(|p| (p.line, p.column)).collect();
    assert_eq!(places, [(5, 7), (6, 1), (8, 15), (9, 31), (10, 5)], "{errors}");
}

#[test]
fn a_fault_is_shown_with_its_line_a_caret_and_a_remedy() {
    let text = errors("files:\n  - { allow: [reed], paths: ['/a'] }\n").render(false);
    let expected = "error: `reed` is not known here\n  --> test.yaml:6:15\n   |\n 6 |   - { allow: [reed], paths: ['/a'] }\n   |               ^\n   = help: did you mean `read`?\n";
    assert_eq!(text.trim_end(), expected.trim_end());
    assert!(errors("fils: []\n").render(true).contains("\x1b[1;31m"));
}

#[test]
fn what_a_file_contains_cannot_steer_the_terminal() {
    let text = errors("mode: \"\\e[2J\"\nfiles: []\n").render(false);
    assert!(!text.contains('\x1b'), "{text:?}");
}

#[test]
fn a_text_that_looks_unlike_what_it_says_is_refused() {
    // The rule would look like the rest of the comment.
    assert_fault("files: # read\r  - { allow: [read], paths: ['/**'] }\n", (5, 14), "a line feed");
    assert_fault("files: []\n# a \u{202e}b\n", (6, 5), "\\U0000202e");
    assert_fault("files: []\n#\u{200b}\n", (6, 2), "remove it");
    for kept in [FILES.replace('\n', "\r\n"), FILES.replace('\n', " # \tsee \u{e9}\u{4e2d}\n")] {
        assert!(parse("kept", &with_head(&kept)).is_ok(), "{kept:?}");
    }
    assert!(parse("kept", &format!("\u{feff}{}", with_head(FILES))).is_ok());
}

#[test]
fn the_head_is_strict() {
    let broken = |from: &str, to: &str| {
        let text = with_head(FILES).replace(from, to);
        let errors = parse("test.yaml", &text).expect_err("it is refused");
        let first = errors.problems()[0].clone();
        ((first.line, first.column), format!("{} / {}", first.message, first.remedy))
    };
    for (from, to, place, words) in [
        ("enforcer/v1", "enforcer/v2", (1, 13), "`enforcer/v2` is not known here / write `enforcer/v1`"),
        ("kind: AgentPolicy", "kind: Pod", (2, 7), "write `AgentPolicy`"),
        ("apiVersion: enforcer/v1\n", "", (1, 1), "`apiVersion` is missing"),
        ("owner: me@example.com, ", "", (3, 11), "`owner` is missing"),
        ("id: test", "id: Test", (3, 17), "`Test` is not an id"),
        ("version: 1", "version: 0", (3, 32), "versions start at 1"),
        ("version: 1", "version: one", (3, 32), "found the text \"one\""),
        ("purpose: testing", "purpose: ''", (3, 67), "`purpose` is empty"),
        ("purpose: testing", "purpose: 7", (3, 67), "in quotes"),
        ("purpose: testing", "purpose: p, expires: tomorrow", (3, 79), "2030-12-31T00:00:00Z"),
        ("trust: autonomous", "trust: total", (4, 8), "`total` is not known here"),
    ] {
        let (found, text) = broken(from, to);
        assert!(text.contains(words), "`{words}` is not in: {text}");
        assert_eq!(found, place, "{text}");
    }
}

#[test]
fn yaml_that_could_mean_two_things_is_refused() {
    assert_fault(&format!("{FILES}{FILES}"), (7, 1), "remove one of the two");
    assert_fault(&format!("{FILES}---\n{FILES}"), (8, 1), "a file of its own");
    assert_fault("files: &a\n  - { <<: {}, allow: [read], paths: ['/a'] }\n", (6, 7), "use `include`");
    let bomb = "x0: &x0 [a, a, a, a, a, a, a, a, a, a]\nx1: &x1 [*x0, *x0, *x0, *x0, *x0, *x0, *x0]\nx2: &x2 [*x1, *x1, *x1, *x1, *x1, *x1, *x1]\n\
        x3: &x3 [*x2, *x2, *x2, *x2, *x2, *x2, *x2]\nx4: [*x3, *x3, *x3, *x3, *x3, *x3, *x3]\nx5: [*x3, *x3, *x3, *x3, *x3, *x3, *x3]\n";
    assert_eq!(errors(bomb).problems().len(), 1);
    let deep = format!("files: {}{}\n", "[".repeat(100), "]".repeat(100));
    assert_eq!(errors(&deep).problems().len(), 1);
    assert!(parse("empty", "").is_err() && parse("empty", "# nothing\n").is_err());
    assert_fault("files:\n  - { allow: [read], paths: [**/x] }\n", (6, 30), "starts with `*` needs quotes");
}

#[test]
fn a_rule_has_exactly_one_verdict_on_something() {
    assert_fault("files:\n  - { paths: ['/a'] }\n", (6, 5), "add one of `allow`, `hold` or `deny`");
    assert_fault(
        "files:\n  - { allow: [read], deny: [read], paths: ['/a'] }\n",
        (6, 28),
        "both `allow` and `deny`",
    );
    assert_fault("files:\n  - { allow: [], paths: ['/a'] }\n", (6, 14), "`allow` lists nothing");
    assert_fault("files:\n  - { allow: [read], paths: [] }\n", (6, 5), "names no path");
    assert_fault("files:\n  - { allow: [read] }\n", (6, 5), "`paths` is missing");
    assert_fault("exec:\n  - { allow: ['usr/bin/git'] }\n", (6, 16), "the path is relative");
    assert_fault(
        "files:\n  - { allow: [read], paths: ['/a'], on_hold: wait }\n",
        (6, 46),
        "`on_hold` needs `hold`",
    );
    assert_fault(
        "files:\n  - { hold: [read, load], paths: ['/a'] }\n",
        (6, 20),
        "loading cannot wait for a person",
    );
    assert_fault("unix:\n  - { hold: ['/run/a', '@b'] }\n", (6, 24), "an abstract name cannot wait");
    assert_fault(
        "files:\n  - { deny: [read], paths: ['/a'], hold_timeout: 5m }\n",
        (6, 50),
        "`hold_timeout` needs `hold`",
    );
    assert_fault(
        "files:\n  - { hold: [read], paths: ['/a'], hold_timeout: soon }\n",
        (6, 50),
        "90s, 15m or 2h",
    );
    assert_fault("files: {}\n", (5, 8), "a mapping");
    assert_fault("files:\n", (5, 6), "found nothing");
    assert_fault("files: []\n", (1, 1), "no rules");
}

#[test]
fn match_launch_requires_and_include_are_checked() {
    let fault =
        |line: &str, column: u32, words: &str| assert_fault(&format!("{line}\n{FILES}"), (5, column), words);
    fault("match: { cgroup: '/agents.slice/**' }", 33, "sessions do not nest");
    fault("match: { cgroup: '**/x' }", 18, "cannot start with `**`");
    fault("match: { cgroup: ['/a/../b'] }", 23, "`..` is not a name");
    fault("match: { cgroup: '/' }", 18, "root of the hierarchy");
    fault("match: { cgroup: 'a' }", 19, "relative");
    fault("launch: { by: [root] }", 16, "uid:NAME");
    fault("launch: { by: ['uid:'] }", 16, "uid:NAME");
    fault("launch: { run_as: 'a b' }", 19, "not a user");
    fault("requires: [telepathy]", 12, "cannot enforce `telepathy`, which the policy requires");
    fault("include: [pyton@1]", 11, "did you mean `python@1`?");
    fault("include: [telepathy@1]", 11, "the profiles are `base@1`");
    fault("include: [base@1, base@1]", 19, "included twice");
}

#[test]
fn globs_say_where_and_what() {
    let long = "x".repeat(256);
    let deep = "/x".repeat(129);
    for (glob, offset, words) in [
        ("", 0, "the path is empty"),
        ("a/b", 0, "start it with `/`"),
        ("**", 0, "relative"),
        ("**x/y", 0, "relative"),
        ("/a/../b", 3, "`..` is not a name"),
        ("/./b", 1, "`.` is not a name"),
        ("/a/{b,..}", 6, "`..` is not a name"),
        ("/a//b", 3, "empty component"),
        ("//", 1, "ends in a slash"),
        ("/a/", 2, "ends in a slash"),
        ("/a/**b", 3, "`**` must be a whole component"),
        ("/a/b**", 4, "`**` must be a whole component"),
        ("/a/***", 3, "`**` must be a whole component"),
        ("/a\0b", 2, "NUL"),
        ("/a\\x00", 2, "NUL"),
        ("/a[b", 2, "never closed"),
        ("/a[]", 2, "never closed"),
        ("/a{b", 2, "never closed"),
        ("/a}b", 2, "closes nothing"),
        ("/a[b/c]", 4, "cannot contain `/`"),
        ("/a[z-a]", 3, "runs backwards"),
        ("/a[\u{e4}]", 3, "one byte"),
        ("/a\\", 2, "escapes nothing"),
        ("/a\\xg0", 2, "two hexadecimal digits"),
        ("/a\\/b", 2, "cannot contain `/`"),
        (&format!("/a/{long}"), 3, "longer than 255"),
        (&deep, 257, "more than 128 components"),
        ("/{0,1,2,3,4,5,6,7,8,9}{0,1,2,3,4,5,6,7,8,9}{0,1,2,3,4,5,6,7,8,9}{0,1}", 64, "more than 1000 paths"),
    ] {
        let error = Glob::parse(glob).expect_err(glob);
        assert!(error.message.contains(words) || error.remedy.contains(words), "{glob}: {error:?}");
        assert_eq!(error.offset, offset, "{glob}: {error:?}");
        assert!(!error.remedy.is_empty(), "{glob}");
    }
}

#[test]
fn a_fault_inside_a_quoted_path_is_pointed_at_exactly() {
    assert_fault("files:\n  - { allow: [read], paths: [\"/ä/b/../c\"] }\n", (6, 36), "`..`");
    assert_fault("files:\n  - allow: [read]\n    paths:\n      - /a//b\n", (8, 12), "empty component");
    // Escapes move the characters: then the whole text is pointed at.
    assert_fault("files:\n  - { allow: [read], paths: [\"/\\x61/b/../c\"] }\n", (6, 30), "`..`");
}

#[test]
fn addresses_say_where_and_what() {
    for (to, column, words) in [
        ("10.0.0.1/8:5432/tcp", 30, "write 10.0.0.0/8"),
        ("[2001:db8::1]/32:443/tcp", 30, "write [2001:db8::]/32"),
        ("[::ffff:0.0.0.0]/90:1/tcp", 30, "bits beyond"),
        ("[::]/80:1/tcp", 31, "leave as IPv4"),
        ("2001:db8::1:443/tcp", 30, "needs brackets"),
        ("[2001:db8::/32]:443/tcp", 30, "around the address only"),
        ("[fe80::1%eth0]:443/tcp", 31, "leave the zone out"),
        ("10.0.0.1:443", 42, "protocol is missing"),
        ("10.0.0.0/8:443", 44, "add /tcp, /udp or /*"),
        ("10.0.0.1/tcp", 38, "port is missing"),
        ("10.0.0.1:https/tcp", 39, "`https` is not a port"),
        ("10.0.0.1:65536/tcp", 39, "is not a port"),
        ("10.0.0.1:90-80/tcp", 39, "write 80-90"),
        ("10.0.0.1:80/sctp", 42, "tcp, udp or *"),
        ("10.0.0.0/33:80/tcp", 39, "from 0 to 32"),
        ("010.0.0.1:80/tcp", 30, "is not an IPv4 address"),
        ("0.0.0.0:80/tcp", 30, "write 127.0.0.1"),
        ("[::]:80/tcp", 31, "write 127.0.0.1 or [::1]"),
        ("0x7f.1:80/tcp", 30, "host names yet"),
    ] {
        assert_fault(
            &format!("network:\n  - {{ allow: [connect], to: ['{to}'] }}\n"),
            (6, column + 1),
            words,
        );
    }
    policy("network:\n  - { allow: [bind], to: ['0.0.0.0:80/tcp', '[::]:80/*'] }\n");
}

#[test]
fn a_failing_test_is_a_fault_at_its_line() {
    assert_fault(
        &format!("{FILES}tests:\n  - {{ expect: allow, read: /a }}\n  - {{ expect: allow, read: /b }}\n"),
        (9, 5),
        "expects allow, but the policy says deny / no rule allows it",
    );
    assert_fault(
        &format!("{FILES}tests:\n  - {{ expect: deny, read: /a }}\n"),
        (8, 5),
        "the first rule that decides is test.yaml:6:5 (files[0])",
    );
    let test = |body: &str, place, words: &str| {
        assert_fault(&format!("{FILES}tests:\n  - {{ {body} }}\n"), place, words)
    };
    test("expect: deny", (8, 5), "asks nothing");
    test("expect: deny, read: /a, write: /a", (8, 5), "more than one thing");
    test("expect: deny, read: a", (8, 27), "relative");
    test("expect: deny, read: /a/../b", (8, 27), "resolved path");
    test("expect: deny, connect: '10.0.0.0/8:1/tcp'", (8, 30), "one address");
}

#[test]
fn the_schema_is_made_of_the_same_types() {
    let schema = schema().to_string();
    for word in [
        "apiVersion",
        "hold_timeout",
        "enforcer/v1",
        "AgentPolicy",
        "Profile",
        "oneOf",
        "additionalProperties",
    ] {
        assert!(schema.contains(word), "{word} is not in {schema}");
    }
}

#[test]
fn a_path_to_ask_about_is_absolute_and_resolved() {
    assert_eq!(path_bytes("/a/b").as_deref(), Ok(&b"a/b"[..]));
    assert_eq!(path_bytes("/").as_deref(), Ok(&b""[..]));
    for bad in ["", "a", "//", "/a/", "/a//b", "/a/.", "/../a"] {
        assert!(path_bytes(bad).is_err(), "{bad}");
    }
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 1000, failure_persistence: None, ..ProptestConfig::default() })]

    #[test]
    fn no_text_makes_the_glob_reader_panic(text in "[a/*?\\[\\]{},\\\\x0!^.\u{e4}-]{0,40}") {
        if let Err(error) = Glob::parse(&text) {
            prop_assert!(error.offset <= text.len());
        }
    }

    #[test]
    fn no_text_makes_the_policy_reader_panic(text in any::<String>()) {
        let _ = parse("any", &text);
    }

    #[test]
    fn no_damage_makes_the_policy_reader_panic(at in 0..400usize, len in 0..20usize, with in "[a-z:{}\\[\\]'\",&*!|> \n\t0-9-]{0,12}") {
        let mut text = with_head("match: { cgroup: /a/* }\nfiles:\n  - { hold: [delete], tier: high, paths: ['/w/**', \"**/x\"], because: b }\nnetwork:\n  - { allow: [connect], to: ['10.0.0.0/8:5432/tcp'] }\ntests:\n  - { expect: deny, read: /a }\n");
        let at = at.min(text.len());
        text.replace_range(at..(at + len).min(text.len()), &with);
        if let Err(errors) = parse("damaged", &text) {
            prop_assert!(!errors.problems().is_empty());
            prop_assert!(!errors.render(true).is_empty());
        }
    }
}

#[test]
fn the_documentation_shows_policies_that_load() {
    let text = include_str!("../../../../docs/policy.md");
    let mut blocks = text.split("```yaml\n").skip(1).filter_map(|rest| rest.split("```").next());
    let full = blocks.next().expect("a policy");
    parse("docs/policy.md", full).unwrap_or_else(|errors| panic!("{errors}"));
    for block in blocks {
        let key = block.split(':').next().unwrap_or_default();
        let head = with_head("");
        // An example of a key takes the place of that key in the head.
        let mut lines: Vec<&str> =
            head.lines().filter(|line| !line.starts_with(&format!("{key}:"))).collect();
        lines.push(block);
        if key != "files" {
            lines.push(FILES);
        }
        // Questions are answered by rules that the example does not show.
        if key == "tests" {
            lines.push("exec:\n  - { allow: ['/x'] }\nnetwork:\n  - { allow: [connect], to: ['10.0.0.0/8:5432/tcp'] }");
        }
        parse(key, &lines.join("\n")).unwrap_or_else(|errors| panic!("{errors}"));
    }
}

#[test]
fn rules_about_arguments_say_nothing_that_comes_too_late() {
    assert_fault("exec: [{ allow: [/a], arguments: [x], tier: high }]\n", (5, 34), "would be asked before");
    assert_fault("exec: [{ hold: [/a], arguments: [x], on_hold: refuse }]\n", (5, 47), "come back later");
    assert_fault("exec: [{ hold: [/a], arguments: ['x**'] }]\n", (5, 34), "no more than");
    assert_fault("exec: [{ hold: [/a], arguments: ['**'] }]\n", (5, 33), "any arguments at all");
    assert_fault(
        "exec: [{ allow: [/a] }]\ntests: [{ expect: deny, read: /a, arguments: [] }]\n",
        (6, 46),
        "needs `exec`",
    );
}

#[test]
fn rules_about_content_and_parents_are_checked() {
    assert_fault("exec: [{ allow: [/a], sha256: [abc] }]\n", (5, 32), "no SHA-256");
    assert_fault("exec: [{ allow: [/a], sha256: [] }]\n", (5, 31), "no run can be meant");
    assert_fault("exec: [{ allow: [/a], parent: [git] }]\n", (5, 32), "");
    assert_fault("exec: [{ allow: [/a], parent: [/b], tier: high }]\n", (5, 31), "would be asked before");
    assert_fault(
        "exec: [{ allow: [/a] }]\ntests: [{ expect: deny, read: /a, parent: /b }]\n",
        (6, 43),
        "`parent` needs `exec`",
    );
}
