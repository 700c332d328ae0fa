//! `unix`, `process`, `capabilities`, `system`.

use super::{errors, policy};
use crate::policy::{Section, compile, explain, reference, trust_tiers};
use enforcer_common::{
    access::file::{self, CONNECT},
    floor::{CLOCK, Grants, IO_URING, NO_TRACE},
    verdict::Verdict,
};

const RULES: &str = "unix:
  - { allow: ['/run/postgresql/.s.*', '@app-?', '@/tmp/.X11-unix/X0', '@deep/**'] }
  - { deny: ['@app-9', '/run/postgresql/.s.secret'], because: 'not that one' }
";

fn verdict(text: &str, socket: &[u8]) -> Verdict {
    let policy = policy(text);
    let tiers = trust_tiers(policy.trust());
    let (verdict, _) = reference::file_verdict(&policy, socket, CONNECT, &tiers);
    let compiled = compile(&policy).expect("compiles").masks_at(socket).fold(&tiers).verdict(CONNECT);
    assert_eq!(verdict, compiled, "{}", String::from_utf8_lossy(socket));
    verdict
}

#[test]
fn sockets_are_named_by_their_paths_and_abstract_names() {
    for (socket, expected) in [
        (&b"/run/postgresql/.s.PGSQL.5432"[..], Verdict::Allow),
        (b"/run/postgresql/.s.secret", Verdict::Deny),
        (b"/run/postgresql/other", Verdict::Deny),
        (b"\x01app-1", Verdict::Allow),
        (b"\x01app-9", Verdict::Deny),
        (b"\x01app-12", Verdict::Deny),
        (b"\x01/tmp/.X11-unix/X0", Verdict::Allow),
        (b"\x01deep/a/b", Verdict::Allow),
        (b"\x01other", Verdict::Deny),
        // A file is no abstract socket of the same name, nor the other way round.
        (b"/app-1", Verdict::Deny),
        (b"\x01run/postgresql/.s.x", Verdict::Deny),
    ] {
        assert_eq!(verdict(RULES, socket), expected, "{}", String::from_utf8_lossy(socket));
    }
}

#[test]
fn any_abstract_name_is_no_path() {
    let text = "unix: [ { allow: ['@**'] } ]\nfiles: [ { allow: [read], paths: ['/etc/**'] } ]\n";
    for name in [&b"\x01a"[..], b"\x01a/b", b"\x01/a/b"] {
        assert_eq!(verdict(text, name), Verdict::Allow, "{}", String::from_utf8_lossy(name));
    }
    assert_eq!(verdict(text, b"/a"), Verdict::Deny);
}

#[test]
fn all_operations_on_a_file_do_not_reach_who_listens_there() {
    let text = "files: [ { allow: [all], paths: ['/srv/**'] } ]\n";
    assert_eq!(verdict(text, b"/srv/socket"), Verdict::Deny);
    assert_eq!(policy(text).rules()[0].operations(), file::ALL);
}

#[test]
fn tests_and_explanations_know_sockets() {
    let text = format!(
        "{RULES}tests:\n  - {{ expect: allow, connect: 'unix:@app-1' }}\n  - {{ expect: deny, connect: 'unix:/run/x' }}\n"
    );
    let policy = policy(&text);
    let explained = explain(&policy, "connect", "unix:@app-9", None).expect("a question");
    assert_eq!(explained.verdict, "deny");
    assert!(explained.reason.contains("not that one"), "{}", explained.reason);
    let section = policy.rules().iter().filter(|rule| rule.origin().section == Section::Unix).count();
    assert_eq!(section, 2);
}

#[test]
fn items_and_capabilities_are_granted_by_name() {
    let text =
        "system: [io-uring, clock]\ncapabilities: [sys_nice, CAP_IPC_LOCK]\nprocess: { trace: deny }\n";
    let policy = policy(&format!("{text}{RULES}"));
    let expected =
        Grants { floor: IO_URING | CLOCK | NO_TRACE, capabilities: 1 << 23 | 1 << 14, ..Grants::default() };
    assert_eq!(policy.grants(), expected);
    assert_eq!(compile(&policy).expect("compiles").place(0).grants, expected);
    let plain = super::policy(RULES);
    assert_eq!(plain.grants(), Grants::default());
    assert_ne!(plain.digest(), policy.digest());
    let image = |policy| compile(policy).expect("compiles").digest();
    assert_ne!(image(&plain), image(&policy), "images are shared by digest");
}

#[test]
fn what_would_undo_the_rules_is_refused_with_its_reason() {
    for (line, message) in [
        ("capabilities: [sys_admin]", "the capability `sys_admin` cannot be granted: it mounts"),
        ("capabilities: [net_raw]", "the capability `net_raw` cannot be granted: it makes packets"),
        ("capabilities: [cap_bpf]", "the capability `bpf` cannot be granted"),
        ("capabilities: [chown]", "the capability `chown` is refused to no session"),
        ("capabilities: [everything]", "there is no capability `everything`"),
        ("system: [mount]", "`mount` cannot be granted of the floor"),
        ("process: { trace: maybe }", "`maybe` is not known here"),
        ("unix: [ { allow: ['@'] } ]", "the abstract name is empty"),
        ("unix: [ { allow: ['run/x'] } ]", "the path is relative"),
    ] {
        let errors = errors(&format!("{line}\n{}", if line.starts_with("unix") { "" } else { RULES }));
        let found = errors.problems();
        assert!(found.iter().any(|fault| fault.message.contains(message)), "{line}: {found:?}");
    }
}

#[test]
fn every_policy_keeps_the_agent_away_from_what_enforces_it() {
    let policy = policy("files: [ { allow: [all], paths: ['/**'] } ]\nexec: [ { allow: ['/**'] } ]\n");
    let tiers = trust_tiers(policy.trust());
    let verdict = |path: &str, want| reference::file_verdict(&policy, path.as_bytes(), want, &tiers);
    for path in
        ["/var/lib/enforcer/audit/key", "/run/enforcer/control.sock", "/sys/fs/bpf/enforcer/maps/GATE"]
    {
        assert_eq!(verdict(path, file::READ).0, Verdict::Deny, "{path}");
    }
    for path in
        ["/etc/enforcer/policies.d/a.yaml", "/usr/bin/enforcer", "/etc/systemd/system/agents.slice.d/x"]
    {
        assert_eq!(verdict(path, file::READ).0, Verdict::Allow, "{path}");
        let (denied, rules) = verdict(path, file::WRITE);
        assert_eq!(denied, Verdict::Deny, "{path}");
        let rule = policy.rule(rules[0]).expect("a rule");
        assert_eq!(rule.origin().source, "floor@1");
    }
    assert_eq!(verdict("/etc/enforcers/x", file::WRITE).0, Verdict::Allow);
}
