//! Drafts: what they allow was asked for, and what they must not allow they name.

use super::policy;
use crate::policy::{Draft, LearnError, Learner, ValidPolicy, parse, reference, trust_tiers};
use enforcer_common::{access::file, verdict::Verdict};
use serde_json::{Value, json};

const ONE: &str = "00000000000000010000000000000001";
const TWO: &str = "00000000000000010000000000000002";

fn record_of(session: &str, path: &str, access: &[&str]) -> Value {
    json!({
        "schema": 1, "time": "2026-01-01T00:00:00.000000000Z", "kind": "decision", "agent": "test",
        "session": session, "exe": "/usr/bin/python3", "operation": "open", "access": access,
        "verdict": "deny", "reason": "rule", "rule": "no rule", "object": { "path": path },
        "error": null, "flags": ["would"],
    })
}

fn learned(base: Option<&ValidPolicy>, records: &[Value]) -> Draft {
    let mut learner = Learner::new(&[ONE.to_owned()]);
    for (record, line) in records.iter().zip(1..) {
        learner.line("log", line, &record.to_string());
    }
    learner.draft(base).unwrap_or_else(|error| panic!("{error}"))
}

/// The draft as it loads when somebody has answered for it.
fn owned(draft: &Draft) -> ValidPolicy {
    let text = draft.to_string();
    assert!(parse("draft", &text).is_err(), "a draft without an owner loads:\n{text}");
    let text = text.replace("  # owner: whoever", "  owner: me # whoever");
    parse("draft", &text).unwrap_or_else(|errors| panic!("{errors}\n{text}"))
}

fn allows(policy: &ValidPolicy, path: &str, want: u16) -> bool {
    reference::file_verdict(policy, path.as_bytes(), want, &trust_tiers(policy.trust())).0 == Verdict::Allow
}

fn left_out(draft: &Draft, what: &str, why: &str) {
    assert!(
        draft.left_out.iter().any(|one| one.what == what && one.why.contains(why)),
        "{what}: {why} is not in {:#?}",
        draft.left_out
    );
}

#[test]
fn what_was_wanted_is_allowed_by_name_and_says_where_it_comes_from() {
    let draft = learned(
        None,
        &[record_of(ONE, "/srv/in/a*.csv", &["read"]), record_of(ONE, "/srv/in/a*.csv", &["read"])],
    );
    let policy = owned(&draft);
    assert!(allows(&policy, "/srv/in/a*.csv", file::READ));
    assert!(
        !allows(&policy, "/srv/in/ab.csv", file::READ) && !allows(&policy, "/srv/in/a*.csv", file::WRITE)
    );
    assert_eq!(policy.rules()[0].because(), Some("learned from 2 records of 1 session"));
    assert!(draft.to_string().contains("# log:1 2026-01-01T00:00:00.000000000Z /usr/bin/python3"), "{draft}");
    assert!(draft.to_string().contains("mode: audit"));
}

#[test]
fn sessions_that_are_not_named_teach_nothing_and_all_that_are_do() {
    let mut learner = Learner::new(&[ONE.to_owned(), TWO.to_owned()]);
    let three = ONE.replace('1', "3");
    for (line, (session, path)) in
        [(ONE, "/a"), (TWO, "/b"), (&three, "/c"), (TWO, "/a")].into_iter().enumerate()
    {
        learner.line("log", line as u64 + 1, &record_of(session, path, &["read"]).to_string());
    }
    let draft = learner.draft(None).expect("a draft");
    let patterns: Vec<&str> = draft.rules.iter().map(|rule| rule.pattern.as_str()).collect();
    assert_eq!(patterns, ["/a", "/b"]);
    assert_eq!((draft.rules[0].evidence.records, draft.rules[0].evidence.sessions.len()), (2, 2));
}

#[test]
fn a_session_that_is_not_in_the_log_or_of_another_agent_is_an_error() {
    let mut learner = Learner::new(&[ONE.to_owned(), TWO.to_owned()]);
    learner.line("log", 1, &record_of(ONE, "/a", &["read"]).to_string());
    assert_eq!(learner.agent(), Err(LearnError::NoSession(TWO.to_owned())));
    let mut other = record_of(TWO, "/a", &["read"]);
    other["agent"] = json!("other");
    learner.line("log", 2, &other.to_string());
    assert!(matches!(learner.agent(), Err(LearnError::Agents(_))));
}

#[test]
fn many_names_in_one_directory_become_a_star_and_secrets_stay_denied() {
    let many: Vec<Value> = (0..9).map(|i| record_of(ONE, &format!("/srv/in/{i}.csv"), &["read"])).collect();
    let draft = learned(None, &many);
    assert_eq!(draft.rules.len(), 1);
    assert_eq!((draft.rules[0].pattern.as_str(), draft.rules[0].objects), ("/srv/in/*", 9));
    let policy = owned(&draft);
    assert!(allows(&policy, "/srv/in/new.csv", file::READ) && !allows(&policy, "/srv/in/.env", file::READ));
    assert!(!allows(&policy, "/srv/in/sub/a", file::READ) && !allows(&policy, "/srv/in", file::READ));
}

#[test]
fn homes_shallow_directories_and_few_names_are_not_generalised() {
    let in_dir = |dir: &str, count: usize| -> Vec<Value> {
        (0..count).map(|i| record_of(ONE, &format!("{dir}/{i}.csv"), &["read"])).collect()
    };
    for (dir, count) in
        [("/home/me/data", 20), ("/root/x/y", 20), ("/srv", 20), ("/srv/in", 7), ("/srv/secrets/all", 0)]
    {
        let records = in_dir(dir, count.max(1));
        let draft = learned(None, &records);
        assert!(draft.rules.iter().all(|rule| rule.objects == 1), "{dir}\n{draft}");
    }
}

#[test]
fn secrets_are_left_out() {
    let paths = [
        "/srv/app/.env",
        "/home/me/.ssh/id_ed25519",
        "/root/.aws/credentials",
        "/etc/shadow",
        "/srv/api_token.txt",
        "/proc/1/environ",
        "/srv/tls/server.pem",
        "/home/me/.bash_history",
        "/var/lib/enforcer/audit/events.jsonl",
    ];
    let records: Vec<Value> = paths.iter().map(|path| record_of(ONE, path, &["read"])).collect();
    let draft = learned(None, &records);
    assert!(draft.rules.is_empty(), "{draft}");
    paths.iter().for_each(|path| left_out(&draft, &format!("read {path}"), "secret"));
}

#[test]
fn the_host_is_not_changed() {
    let draft = learned(
        None,
        &[
            record_of(ONE, "/etc/cron.d/x", &["create", "write"]),
            record_of(ONE, "/usr/bin/ls", &["write"]),
            record_of(ONE, "/etc/hosts", &["read"]),
        ],
    );
    left_out(&draft, "write /etc/cron.d/x", "host");
    left_out(&draft, "create /etc/cron.d/x", "host");
    left_out(&draft, "write /usr/bin/ls", "host");
    assert_eq!(draft.rules.len(), 1);
}

#[test]
fn what_the_agent_can_write_is_not_run_and_the_other_way_round() {
    let base = policy(
        "mode: audit\nfiles:\n  - { allow: [write, create], paths: ['/srv/w/**'] }\n  - { hold: [rename], paths: ['/opt/a'] }\nexec:\n  - { allow: ['/opt/bin/*'] }\n",
    );
    let run = |path: &str| record_of(ONE, path, &["exec"]);
    let draft = learned(
        Some(&base),
        &[
            run("/srv/w/tool"),
            run("/opt/a/tool"),
            run("/tmp/tool"),
            run("/home/me/tool"),
            run("/opt/fresh/tool"),
            record_of(ONE, "/opt/fresh", &["rename"]),
            run("/usr/bin/make"),
            record_of(ONE, "/opt/bin/x", &["write"]),
            record_of(ONE, "/srv/other/lib.so", &["load"]),
            record_of(ONE, "/srv/other/lib.so", &["write"]),
        ],
    );
    left_out(&draft, "exec /srv/w/tool", "can write it");
    left_out(&draft, "exec /opt/a/tool", "can write it");
    left_out(&draft, "exec /tmp/tool", "where agents can write");
    left_out(&draft, "exec /home/me/tool", "where agents can write");
    left_out(&draft, "exec /opt/fresh/tool", "can write it");
    left_out(&draft, "write /opt/bin/x", "may run it");
    left_out(&draft, "load /srv/other/lib.so", "can write it");
    let allowed = owned(&draft);
    assert!(allows(&allowed, "/usr/bin/make", file::EXEC));
    assert_eq!(
        draft.rules.iter().filter(|rule| rule.operations.1 & (file::EXEC | file::LOAD) != 0).count(),
        1
    );
}

#[test]
fn without_the_policy_in_force_nothing_is_run() {
    let draft = learned(None, &[record_of(ONE, "/usr/bin/make", &["exec"])]);
    left_out(&draft, "exec /usr/bin/make", "not known");
}

#[test]
fn names_are_not_generalised_for_writing_where_something_below_may_run() {
    let records: Vec<Value> = (0..9).map(|i| record_of(ONE, &format!("/srv/w/{i}"), &["write"])).collect();
    let runs = policy("exec:\n  - { allow: ['/srv/*/bin/*'] }\n");
    assert_eq!(learned(Some(&runs), &records).rules.len(), 9);
    let does_not = policy("exec:\n  - { allow: ['/opt/bin/*'] }\n");
    assert_eq!(learned(Some(&does_not), &records).rules.len(), 1);
}

#[test]
fn the_floor_purpose_and_people_are_respected() {
    let with = |path: &str, change: &dyn Fn(&mut Value)| {
        let mut record = record_of(ONE, path, &["read"]);
        change(&mut record);
        record
    };
    let draft = learned(
        None,
        &[
            with("/f", &|r| {
                r["reason"] = json!("floor");
                r["flags"] = json!([]);
                r["operation"] = json!("mount");
            }),
            with("/r", &|r| r["rule"] = json!([{"text": "deny", "because": null}])),
            with("/h", &|r| r["reason"] = json!("held")),
            with("/c", &|r| r["flags"] = json!(["would", "object-cut"])),
            with("relative", &|_| ()),
            with("/x/../y", &|_| ()),
            with("/e", &|r| r["flags"] = json!([])),
        ],
    );
    assert!(draft.rules.is_empty(), "{draft}");
    left_out(&draft, "mount /f", "floor");
    left_out(&draft, "open /r", "on purpose");
    left_out(&draft, "open /h", "person");
    left_out(&draft, "open /c", "does not name");
    left_out(&draft, "open relative", "does not name");
    left_out(&draft, "open /x/../y", "does not name");
    assert!(draft.notes.iter().any(|note| note.contains("1 refusals were enforced")), "{:?}", draft.notes);
}

#[test]
fn losses_are_said() {
    let mut learner = Learner::new(&[ONE.to_owned()]);
    learner.line("log", 1, &record_of(ONE, "/a", &["read"]).to_string());
    learner.line(
        "log",
        2,
        &json!({"kind": "lost", "agent": "test", "decisions": 4, "activity": 9}).to_string(),
    );
    learner.line("log", 3, "{\"cut\":");
    let notes = learner.draft(None).expect("a draft").notes.join("\n");
    assert!(notes.contains("4 records of test were lost") && notes.contains("1 lines"), "{notes}");
}

#[test]
fn text_that_an_agent_chose_stays_in_its_comment_and_its_string() {
    let mut record = record_of(ONE, "/srv/a'b\"c: # d\\x", &["read"]);
    record["exe"] = json!("/x\nexec: [all]\u{202e}");
    let draft = learned(None, &[record]);
    let policy = owned(&draft);
    assert_eq!(own_rules(&policy), 1);
    assert!(allows(&policy, "/srv/a'b\"c: # d\\x", file::READ));
    let mut bytes = record_of(ONE, "/srv/?", &["read"]);
    bytes["object"]["path_b64"] = json!("L3Nydi//Cg==");
    let policy = owned(&learned(None, &[bytes]));
    let tiers = trust_tiers(policy.trust());
    assert_eq!(reference::file_verdict(&policy, b"srv/\xff\n", file::READ, &tiers).0, Verdict::Allow);
}

#[test]
fn addresses_are_named_one_by_one() {
    let mut record = record_of(ONE, "/", &["connect"]);
    record["object"] = json!({"address": "::1", "port": 443, "protocol": "tcp", "family": "inet6"});
    let draft = learned(None, &[record]);
    assert_eq!(draft.rules[0].pattern, "[::1]:443/tcp");
    assert_eq!(own_rules(&owned(&draft)), 1);
}

/// Rules that are not part of every policy.
fn own_rules(policy: &ValidPolicy) -> usize {
    policy.rules().iter().filter(|rule| rule.origin().source != "floor@1").count()
}
