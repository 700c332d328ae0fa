//! What rules mean.

use super::policy;
use crate::policy::{
    Endpoint, Glob, RuleId, Run, TCP, Trust, UDP, ValidPolicy, compile, explain, explain_with, parse,
    reference::{self, Rename, folded, link_verdict, rename_verdict},
    trust_tiers,
};
use enforcer_common::{
    access::{file, net},
    address::Address,
    verdict::Verdict::{self, Allow, Deny, Hold},
};

fn matches(glob: &str, path: &str) -> bool {
    reference::matches(&Glob::parse(glob).expect(glob), path.as_bytes())
}

#[test]
fn globs_match_whole_components() {
    for (glob, yes, no) in [
        ("/a", &["/a"][..], &["/", "/a/b", "/aa", "/b"][..]),
        ("/", &["/"], &["/a"]),
        ("/*", &["/a", "/.x"], &["/", "/a/b"]),
        ("/**", &["/", "/a", "/a/b/c"], &[]),
        ("/w/**", &["/w", "/w/a", "/w/a/b"], &["/", "/ww", "/x/w"]),
        ("/a/**/b", &["/a/b", "/a/x/b", "/a/x/y/b"], &["/a", "/ab", "/a/xb"]),
        ("**/.env", &["/.env", "/a/.env", "/a/b/.env"], &["/a.env", "/.env/x"]),
        ("**/x/**", &["/x", "/a/x", "/a/x/b", "/x/y"], &["/", "/ax"]),
        ("/a/**/**/b", &["/a/b", "/a/x/b"], &["/a"]),
        ("/a*b", &["/ab", "/axb", "/aab"], &["/a/b", "/abc"]),
        ("/?", &["/a"], &["/", "/ab", "/ä"]),
        ("/??", &["/ä"], &[]),
        ("/[a-c]", &["/a", "/c"], &["/d"]),
        ("/[!a-c]", &["/d"], &["/a"]),
        ("/[]a]", &["/]", "/a"], &["/b"]),
        ("/[a-]", &["/a", "/-"], &["/b"]),
        ("/[+-9]", &["/+", "/5"], &["/a"]),
        ("/{a,b/c}/d", &["/a/d", "/b/c/d"], &["/b/d"]),
        ("/a{,b{1,2}}", &["/a", "/ab1", "/ab2"], &["/ab"]),
        ("/a,b", &["/a,b"], &["/a"]),
        ("/\\*", &["/*"], &["/a"]),
        ("/\\x61", &["/a"], &["/x61"]),
        ("/*a*b*", &["/ab", "/xaxbx", "/aabb"], &["/ba", "/a"]),
    ] {
        for path in yes {
            assert!(matches(glob, path), "{glob} does not match {path}");
        }
        for path in no {
            assert!(!matches(glob, path), "{glob} matches {path}");
        }
    }
    assert!(reference::matches(&Glob::parse("/\\xff").expect("a glob"), b"/\xff"));
}

fn verdict(policy: &ValidPolicy, want: u16, path: &str, trust: Trust) -> Verdict {
    reference::file_verdict(policy, path.as_bytes(), want, &trust_tiers(trust)).0
}

#[test]
fn deny_beats_hold_beats_allow_and_silence_denies() {
    let policy = policy(
        "files:\n  - { deny: [read], paths: ['/w/d'] }\n  - { hold: [read], paths: ['/w/h', '/w/d'] }\n  - { allow: [read], paths: ['/w/**'] }\n",
    );
    let read = |path| verdict(&policy, file::READ, path, Trust::Autonomous);
    assert_eq!([read("/w/x"), read("/w/h"), read("/w/d"), read("/x")], [Allow, Hold, Deny, Deny]);
    assert_eq!(verdict(&policy, file::READ | file::WRITE, "/w/x", Trust::Autonomous), Deny);
}

#[test]
fn a_tier_means_what_the_level_of_trust_makes_of_it() {
    let policy = policy(
        "files:\n  - { allow: [read], paths: ['/none'] }\n  - { allow: [read], tier: low, paths: ['/low'] }\n  - { allow: [read], tier: medium, paths: ['/medium'] }\n  - { allow: [read], tier: high, paths: ['/high'] }\n  - { allow: [read], tier: critical, paths: ['/critical'] }\n  - { hold: [read], tier: low, paths: ['/held'] }\n",
    );
    let all = |trust| {
        ["/none", "/low", "/medium", "/high", "/critical", "/held"]
            .map(|path| verdict(&policy, file::READ, path, trust))
    };
    assert_eq!(all(Trust::Probation), [Allow, Allow, Hold, Hold, Deny, Hold]);
    assert_eq!(all(Trust::Supervised), [Allow, Allow, Allow, Hold, Deny, Hold]);
    assert_eq!(all(Trust::Trusted), [Allow, Allow, Allow, Hold, Deny, Hold]);
    assert_eq!(all(Trust::Autonomous), [Allow, Allow, Allow, Allow, Deny, Hold]);
    assert!(policy.warnings().iter().any(|warning| warning.message.contains("critical")));
}

#[test]
fn writing_includes_cutting_short_but_not_the_other_way_round() {
    let policy =
        policy("files:\n  - { allow: [write], paths: ['/w'] }\n  - { allow: [truncate], paths: ['/t'] }\n");
    assert_eq!(verdict(&policy, file::WRITE | file::TRUNCATE, "/w", Trust::Autonomous), Allow);
    assert_eq!(verdict(&policy, file::TRUNCATE, "/t", Trust::Autonomous), Allow);
    assert_eq!(verdict(&policy, file::WRITE, "/t", Trust::Autonomous), Deny);
}

#[test]
fn every_operation_has_its_bit_and_all_means_all() {
    for (bit, name) in file::NAMES.into_iter().filter(|(bit, _)| bit & file::ALL != 0) {
        let policy = policy(&format!(
            "files:\n  - {{ allow: [{name}], paths: ['/a'] }}\n  - {{ allow: ['*'], paths: ['/b'] }}\n"
        ));
        assert_eq!(verdict(&policy, bit, "/a", Trust::Autonomous), Allow, "{name}");
        assert_eq!(verdict(&policy, bit, "/b", Trust::Autonomous), Allow, "{name}");
    }
}

#[test]
fn what_may_run_may_be_mapped_but_not_read() {
    let policy = policy(
        "exec:\n  - { allow: ['/bin/x', '/bin/y'] }\nfiles:\n  - { deny: [load], paths: ['/bin/y'] }\n",
    );
    let tiers = trust_tiers(Trust::Autonomous);
    assert_eq!(verdict(&policy, file::EXEC, "/bin/x", Trust::Autonomous), Allow);
    assert_eq!(verdict(&policy, file::READ, "/bin/x", Trust::Autonomous), Deny);
    assert_eq!(reference::map_verdict(&policy, b"/bin/x", &tiers), (Allow, vec![RuleId(1)]));
    assert_eq!(reference::map_verdict(&policy, b"/bin/y", &tiers), (Deny, vec![RuleId(0)]));
    assert_eq!(reference::map_verdict(&policy, b"/bin/z", &tiers), (Deny, vec![]));
}

#[test]
fn the_deciding_rules_are_named() {
    let policy = policy(
        "files:\n  - { deny: [write], paths: ['/w/x'] }\n  - { allow: [read, write], paths: ['/w/*'] }\n",
    );
    let tiers = trust_tiers(Trust::Autonomous);
    let ask = |path: &[u8], want| reference::file_verdict(&policy, path, want, &tiers);
    assert_eq!(ask(b"/w/x", file::WRITE), (Deny, vec![RuleId(0)]));
    assert_eq!(ask(b"/w/x", file::READ), (Allow, vec![RuleId(1)]));
    assert_eq!(ask(b"/w/x", file::CREATE), (Deny, vec![]));
}

#[test]
fn a_rename_gives_nothing_that_the_old_name_did_not() {
    let policy = policy(
        "files:\n  - { allow: [all], paths: ['/w/**'] }\n  - { allow: [write, create, delete, rename], paths: ['/in/**'] }\n  - { deny: [read], paths: ['/w/secret/**', '**/.env'] }\n",
    );
    let image = compile(&policy).expect("it compiles");
    let ask = |from: &str, to: &str, is_directory, replaces| {
        let rename = Rename { from: from.as_bytes(), to: to.as_bytes(), is_directory, replaces };
        reference::rename_verdict(&policy, &image, &rename, &trust_tiers(Trust::Autonomous)).0
    };
    assert_eq!(ask("/w/a", "/w/b", false, false), Allow);
    assert_eq!(ask("/w/a", "/w/.env", false, true), Allow);
    assert_eq!(ask("/w/.env", "/w/a", false, false), Deny, "reading is gained");
    assert_eq!(ask("/in/a", "/w/a", false, false), Deny, "reading is gained");
    assert_eq!(ask("/w/a", "/in/a", false, false), Allow);
    assert_eq!(ask("/w/a", "/x", false, false), Deny, "nothing may be created there");
    assert_eq!(ask("/w/d", "/w/e", true, false), Allow);
    assert_eq!(ask("/w/secret", "/w/e", true, false), Deny, "what is below would lose its deny");
    assert_eq!(ask("/w/d", "/w/secret", true, false), Deny);
    assert_eq!(ask("/w/d", "/in/d", true, false), Deny, "the trees differ");
    let swap = |one: &str, other: &str, directories| {
        let (one, other) = ((one.as_bytes(), directories), (other.as_bytes(), directories));
        reference::exchange_verdict(&policy, &image, one, other, &trust_tiers(Trust::Autonomous)).0
    };
    assert_eq!(swap("/w/a", "/w/b", false), Allow);
    assert_eq!(swap("/w/a", "/w/.env", false), Deny, "one of the two gains");
    assert_eq!(swap("/w/d", "/w/e", true), Allow);
    assert_eq!(swap("/w/d", "/w/secret", true), Deny);
}

#[test]
fn a_link_gives_nothing_that_the_old_name_did_not() {
    let policy = policy(
        "files:\n  - { allow: [read], paths: ['/ro/**'] }\n  - { allow: [read, write, create, link], paths: ['/w/**', '/v/**'] }\n",
    );
    let ask = |from: &[u8], to: &[u8]| {
        reference::link_verdict(&policy, from, to, &trust_tiers(Trust::Autonomous)).0
    };
    assert_eq!(ask(b"/w/a", b"/w/b"), Allow);
    assert_eq!(ask(b"/w/a", b"/v/b"), Allow);
    assert_eq!(ask(b"/ro/a", b"/w/b"), Deny);
    assert_eq!(ask(b"/w/a", b"/ro/b"), Deny);
}

#[test]
fn an_address_is_one_address_however_it_is_spelled() {
    let policy = policy(
        "network:\n  - { allow: [connect], to: ['[::ffff:10.0.0.0]/104:443/tcp', '*:53/udp', '[::]/0:80/*'] }\n  - { deny: [connect], to: ['10.1.0.0/16:*/*'] }\n",
    );
    let v4 = |text: &str| Address::v4(text.parse::<std::net::Ipv4Addr>().expect("v4").octets());
    let v6 = |text: &str| Address::v6(text.parse::<std::net::Ipv6Addr>().expect("v6").octets()).expect("v6");
    let ask = |address, port, protocol| {
        reference::net_verdict(
            &policy,
            address,
            port,
            protocol,
            net::CONNECT,
            &trust_tiers(Trust::Autonomous),
        )
        .0
    };
    assert_eq!(ask(v4("10.2.3.4"), 443, TCP), Allow);
    assert_eq!(ask(v6("::ffff:10.2.3.4"), 443, TCP), Allow);
    assert_eq!(ask(v4("10.1.3.4"), 443, TCP), Deny);
    assert_eq!(ask(v4("10.2.3.4"), 443, UDP), Deny);
    assert_eq!(ask(v4("8.8.8.8"), 53, UDP), Allow);
    assert_eq!(ask(v6("2001:db8::1"), 53, UDP), Allow);
    assert_eq!(ask(v6("2001:db8::1"), 80, TCP), Allow);
    assert_eq!(ask(v4("8.8.8.8"), 80, TCP), Deny, "all of IPv6 is not IPv4");
    assert_eq!(ask(v4("10.2.3.4"), 443, 132), Deny);
    // What a translator makes IPv4 of, unless that would be somebody's own.
    assert_eq!(ask(v6("64:ff9b::8.8.8.8"), 53, UDP), Allow);
    assert_eq!(ask(v6("64:ff9b::8.8.8.8"), 80, TCP), Deny, "all of IPv6 is not IPv4");
}

#[test]
fn an_address_that_leaves_ipv6_on_its_way_is_none() {
    let rule = |text: &str| Endpoint::parse(text, false);
    let none = |text: &str| {
        let ip = text.parse::<std::net::Ipv6Addr>().expect("v6");
        assert_eq!(Address::v6(ip.octets()), None, "{text}");
        assert!(rule(&format!("[{text}]:443/tcp")).is_err() || text.starts_with("64:ff9b::"), "{text}");
    };
    [
        "64:ff9b::169.254.169.254",
        "64:ff9b::127.0.0.1",
        "64:ff9b::10.0.0.1",
        "64:ff9b::224.0.0.1",
        "64:ff9b:1::a9fe:a9fe",
        "2002:a9fe:a9fe::1",
        "2001:0:a9fe:a9fe::1",
        "::169.254.169.254",
        "::2",
        "::ffff:0:169.254.169.254",
        "fe80::5efe:169.254.169.254",
        "2001:db8::200:5efe:169.254.169.254",
    ]
    .into_iter()
    .for_each(none);
    let some = |text: &str| Address::v6(text.parse::<std::net::Ipv6Addr>().expect("v6").octets()).is_some();
    assert!(["::1", "2001:db8::1", "fe80::1", "ff02::1", "2001:1::1", "2003::1"].into_iter().all(some));
    assert!(rule("[2002::]/16:443/tcp").is_err());
    assert!(rule("[64:ff9b::]/64:443/tcp").is_err());
    assert!(rule("[2000::]/3:443/tcp").is_ok());
    assert!(rule("[::1]:443/tcp").is_ok());
}

#[test]
fn an_explanation_names_rules_verdict_and_reason() {
    let policy = policy(
        "files:\n  - { deny: [read], paths: ['**/.env'], because: secrets }\n  - { allow: [read], paths: ['/w/**'] }\n  - { allow: [write], tier: high, paths: ['/w/**'] }\nnetwork:\n  - { allow: [connect], to: ['10.0.0.0/8:443/tcp'] }\n",
    );
    let ask =
        |operation: &str, object: &str, trust| explain(&policy, operation, object, trust).expect("an answer");
    let denied = ask("read", "/w/.env", None);
    assert_eq!((denied.verdict, denied.matched.len()), ("deny", 3));
    assert_eq!(denied.reason, "decided by test.yaml:6:5 (files[0]): secrets");
    assert!(denied.matched[0].decides && !denied.matched[1].decides);
    let held = ask("write", "/w/a", Some(Trust::Supervised));
    assert_eq!(held.verdict, "hold");
    assert!(held.reason.contains("tier high means hold at trust supervised"), "{}", held.reason);
    assert!(ask("delete", "/w/a", None).reason.contains("no rule allows delete here"));
    assert!(ask("read", "/x", None).reason.contains("no rule names it"));
    assert_eq!(ask("connect", "10.1.2.3:443/tcp", None).verdict, "allow");
    assert!(explain(&policy, "fly", "/x", None).is_err());
    assert!(explain(&policy, "read", "x", None).is_err());
    assert!(explain(&policy, "connect", "10.0.0.0/8:1/tcp", None).is_err());
    assert!(denied.to_string().contains("* test.yaml:6:5 (files[0]) deny [read]: secrets"), "{denied}");
}

#[test]
fn trust_that_is_asked_about_is_never_more_than_the_policy_gives() {
    let text = super::with_head("files:\n  - { allow: [read], tier: high, paths: ['/a'] }\n")
        .replace("autonomous", "probation");
    let policy = parse("p", &text).expect("it loads");
    assert_eq!(explain(&policy, "read", "/a", Some(Trust::Autonomous)).expect("an answer").verdict, "hold");
}

#[test]
fn arguments_are_judged_beside_the_program() {
    let policy = policy(
        "exec:\n\
         - { allow: [/usr/bin/git] }\n\
         - { hold: [/usr/bin/git], arguments: [push, '**'] }\n\
         - { deny: ['/usr/bin/*'], arguments: ['**', --force, '**'] }\n\
         - { allow: [/usr/bin/make], arguments: [test] }\n\
         - { hold: [/usr/bin/ssh] }\n\
         - { deny: [/usr/bin/ssh], arguments: [root@*] }\n\
         tests:\n\
         - { expect: allow, exec: /usr/bin/git, arguments: [status] }\n\
         - { expect: hold, exec: /usr/bin/git, arguments: [push, origin] }\n\
         - { expect: deny, exec: /usr/bin/git, arguments: [push, --force] }\n\
         - { expect: allow, exec: /usr/bin/make, arguments: [test] }\n\
         - { expect: deny, exec: /usr/bin/make, arguments: [test, all] }\n\
         - { expect: deny, exec: /usr/bin/make, arguments: [] }\n\
         - { expect: allow, exec: /usr/bin/make }\n\
         - { expect: hold, exec: /usr/bin/ssh, arguments: [host] }\n\
         - { expect: deny, exec: /usr/bin/ssh, arguments: [root@host] }\n\
         - { expect: deny, exec: /usr/bin/id, arguments: [] }\n",
    );
    let asked = |arguments: &[&str]| {
        let arguments: Vec<Vec<u8>> = arguments.iter().map(|one| one.as_bytes().to_vec()).collect();
        explain_with(
            &policy,
            "exec",
            "/usr/bin/git",
            &Run { arguments: &arguments, ..Run::default() },
            None,
            &trust_tiers,
        )
        .expect("an answer")
    };
    assert_eq!(asked(&["push"]).verdict, "hold");
    assert!(asked(&["push"]).to_string().contains("with the arguments [\"push\", \"**\"]"));
    assert_eq!(asked(&["status"]).verdict, "allow");
    assert!(
        explain_with(
            &policy,
            "read",
            "/x",
            &Run { arguments: &[vec![]], ..Run::default() },
            None,
            &trust_tiers
        )
        .is_err()
    );
    // What is only asked about some arguments is nothing that another name may have without being asked.
    let tiers = trust_tiers(Trust::Autonomous);
    let [git, true_] = ["/usr/bin/git", "/usr/bin/ssh"].map(|path| folded(&policy, path.as_bytes(), &tiers));
    assert!(git.free() & file::ANY_ARGUMENTS == 0 && true_.free() & file::EXEC == 0);
}

#[test]
fn a_name_with_other_arguments_cannot_be_taken() {
    let policy = policy(
        "files: [{ allow: [all], paths: ['/w/**'] }, { deny: [read], paths: ['/w/git'] }]\n\
         exec: [{ deny: [/w/git], arguments: [push] }]\n",
    );
    let tiers = trust_tiers(Trust::Autonomous);
    let image = compile(&policy).expect("compiles");
    let rename = |from: &str, to: &str| {
        let rename =
            Rename { from: from.as_bytes(), to: to.as_bytes(), is_directory: false, replaces: false };
        rename_verdict(&policy, &image, &rename, &tiers).0
    };
    assert_eq!(rename("/w/git", "/w/tig"), Verdict::Deny);
    assert_eq!(link_verdict(&policy, b"/w/git", b"/w/tig", &tiers).0, Verdict::Deny);
    assert_eq!(rename("/w/a", "/w/b"), Verdict::Allow);
}

#[test]
fn content_and_parents_are_judged_beside_the_program() {
    let (good, other) = ("0a".repeat(32), "0b".repeat(32));
    let policy = policy(&format!(
        "exec:\n\
         - {{ allow: [/usr/bin/git], sha256: ['{good}'] }}\n\
         - {{ allow: [/usr/bin/ssh], parent: ['/usr/lib/git-core/*'], arguments: ['*', git-upload-pack*] }}\n\
         - {{ allow: [/usr/bin/make] }}\n\
         - {{ deny: [/usr/bin/make], sha256: ['{other}'], because: 'broken' }}\n\
         tests:\n\
         - {{ expect: allow, exec: /usr/bin/git, sha256: '{good}' }}\n\
         - {{ expect: deny, exec: /usr/bin/git, sha256: '{other}' }}\n\
         - {{ expect: deny, exec: /usr/bin/git, arguments: [] }}\n\
         - {{ expect: allow, exec: /usr/bin/ssh, parent: /usr/lib/git-core/x, arguments: [h, git-upload-pack y] }}\n\
         - {{ expect: deny, exec: /usr/bin/ssh, parent: /usr/bin/bash, arguments: [h, git-upload-pack y] }}\n\
         - {{ expect: deny, exec: /usr/bin/ssh, parent: /usr/lib/git-core/x }}\n\
         - {{ expect: allow, exec: /usr/bin/make, sha256: '{good}' }}\n\
         - {{ expect: deny, exec: /usr/bin/make, sha256: '{other}' }}\n"
    ));
    let asked = |run: &Run<'_>| {
        explain_with(&policy, "exec", "/usr/bin/git", run, None, &trust_tiers).expect("an answer").to_string()
    };
    assert!(
        asked(&Run { content: Some([10; 32]), ..Run::default() }).starts_with("exec /usr/bin/git: allow")
    );
    let untold = asked(&Run::default());
    assert!(untold.contains(": deny") && untold.contains("cannot be told here"), "{untold}");
    assert!(untold.contains(&format!("with the content sha256 {good}")), "{untold}");
    // A name under which some contents run gives no other name the right to run.
    assert!(
        folded(&policy, b"usr/bin/git", &trust_tiers(Trust::Autonomous)).free() & file::ANY_ARGUMENTS == 0
    );
}
