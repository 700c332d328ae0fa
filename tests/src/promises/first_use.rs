//! The first use of what a rule allows is recorded, and no later one: of files, addresses and unix sockets.

use super::tree;
use crate::{
    agent::Agent,
    cases,
    command::systemctl,
    ensure, events,
    harness::{Outcome, Test},
    peer::{Port, UnixServers},
};
use serde_json::Value;

cases!(first_use:
    what_a_rule_allows_is_recorded_the_first_time_and_never_again,
    rules_that_say_the_same_do_not_stop_a_directory_from_moving,
);

/// What a session's first uses say: the operation, what of it was new, the object, and the rule's text up to its objects.
type Use = (String, String, String, String);

fn used(operation: &str, access: &str, object: &str, rule: &str) -> Use {
    (operation.to_owned(), access.to_owned(), object.to_owned(), rule.to_owned())
}

/// The first uses that a session has left, but for what the profiles' rules allow.
fn uses(agent: &Agent, acts: &[String], expected: &[&str]) -> Outcome<Vec<Use>> {
    let session = agent.probe(acts)?;
    ensure!(session.lines == expected, "{:?}", session.lines);
    // The same ring has both.
    events::wait("the end of the session", session.mark, |record| {
        record["kind"] == "session-ended" && record["session"] == session.id.as_str()
    })?;
    let all = events::since(session.mark)?;
    let mine = |record: &&Value| {
        record["kind"] == "first-use"
            && record["operation"] != "exec"
            && record["session"] == session.id.as_str()
            && record["policy"]["digest"] == agent.digest()
    };
    let text = |value: &Value| value.as_str().unwrap_or_default().to_owned();
    let mut uses = Vec::new();
    for record in all.iter().filter(mine) {
        let rules = record["rule"].as_array().cloned().unwrap_or_default();
        let own = |rule: &&Value| {
            text(&rule["text"]).rsplit(" at ").next().is_some_and(|origin| !origin.contains('@'))
        };
        let own: Vec<String> = rules.iter().filter(own).map(|rule| text(&rule["text"])).collect();
        let [rule] = &own[..] else {
            ensure!(own.is_empty() && !rules.is_empty(), "{record}");
            continue;
        };
        let access: Vec<String> = record["access"].as_array().into_iter().flatten().map(&text).collect();
        let object = match &record["object"] {
            object if object["path"].is_string() => text(&object["path"]),
            object if object["address"].is_string() => {
                format!("{}:{}", text(&object["address"]), object["port"])
            }
            _ => "a name".to_owned(),
        };
        let rule = rule.split(" #").next().unwrap_or_default().to_owned();
        uses.push((text(&record["operation"]), access.join("+"), object, rule));
    }
    Ok(uses)
}

fn what_a_rule_allows_is_recorded_the_first_time_and_never_again(t: &mut Test) -> Outcome {
    tree(t)?;
    let w = t.dir("open")?;
    let sockets = t.dir("sockets")?;
    let _servers = UnixServers::open(&sockets, "enforcer-first")?;
    let (port, other) = (Port::open()?, Port::open()?);
    let (one, two) = (format!("127.0.0.1:{}", port.number), format!("127.0.0.1:{}", other.number));
    // The first two rules say the same, and so do the two about addresses.
    let policy = t
        .policy()
        .allow("read", &format!("{w}/d1/**"))
        .allow("read", &format!("{w}/d2/**"))
        .allow("read, write", &format!("{w}/f1"))
        .allow("create, rename, write, delete", &format!("{w}/d3/**"))
        .line(&format!("unix: [{{ allow: ['{sockets}/stream'] }}, {{ allow: ['@enforcer-first-stream'] }}]"))
        .connect(&format!("{one}/tcp"))
        .connect(&format!("{two}/tcp"));
    let mut agent = t.agent(policy)?;
    let acts = [
        format!("read {w}/d1/x"),
        format!("read {w}/d1/x"),
        format!("read {w}/f2"),
        format!("read {w}/d2/x"),
        format!("write {w}/f1"),
        format!("read {w}/f1"),
        format!("read {w}/f1"),
        format!("create {w}/d3/new"),
        format!("rename {w}/d3/new {w}/d3/newer"),
        format!("unlink {w}/d3/newer"),
        format!("unix-stream {sockets}/stream"),
        "unix-stream @enforcer-first-stream".to_owned(),
        format!("unix-stream {sockets}/stream"),
        format!("tcp 127.0.0.1 {}", port.number),
        format!("tcp 127.0.0.1 {}", port.number),
        format!("tcp 127.0.0.1 {}", other.number),
    ];
    let mut lines = ["ok"; 16];
    lines[2] = "EPERM";
    let rule = |operations: &str, at: &str| format!("allow {operations} {at}");
    let changes = rule("write+create+delete+rename+truncate", &format!("{w}/d3/**"));
    let expected = [
        used("open", "read", &format!("{w}/d1/x"), &rule("read", &format!("{w}/d1/**"))),
        used("open", "read", &format!("{w}/d2/x"), &rule("read", &format!("{w}/d2/**"))),
        used("open", "write", &format!("{w}/f1"), &rule("read+write+truncate", &format!("{w}/f1"))),
        used("open", "read", &format!("{w}/f1"), &rule("read+write+truncate", &format!("{w}/f1"))),
        used("create", "create", &format!("{w}/d3/new"), &changes),
        used("open", "write", &format!("{w}/d3/new"), &changes),
        used("rename", "delete+rename", &format!("{w}/d3/new"), &changes),
        used(
            "unix-connect",
            "connect",
            &format!("{sockets}/stream"),
            &rule("connect", &format!("{sockets}/stream")),
        ),
        used("unix-connect", "connect", "a name", &rule("connect", "@enforcer-first-stream")),
        used("connect", "connect", &one, &rule("connect", &format!("{one}/tcp"))),
        used("connect", "connect", &two, &rule("connect", &format!("{two}/tcp"))),
    ];
    let found = uses(&agent, &acts, &lines)?;
    ensure!(found == expected, "{found:#?}");
    let again = uses(&agent, &acts, &lines)?;
    ensure!(again.is_empty(), "in a later session of the same agent: {again:#?}");

    // Another version of the policy is another policy, and a daemon that starts has been told nothing yet.
    agent.change(agent.policy().next())?;
    let found = uses(&agent, &acts, &lines)?;
    ensure!(found == expected, "under another version: {found:#?}");
    systemctl("restart enforcer.service")?;
    let found = uses(&agent, &acts, &lines)?;
    ensure!(found == expected, "with another daemon: {found:#?}");
    Ok(())
}

fn rules_that_say_the_same_do_not_stop_a_directory_from_moving(t: &mut Test) -> Outcome {
    tree(t)?;
    let w = t.dir("open")?;
    let all = "read, list, write, create, delete, rename";
    let policy = t.policy().allow(all, &format!("{w}/d1/**")).allow(all, &format!("{w}/d2/**"));
    let policy = policy.allow("read", &format!("{w}/d3/**"));
    let agent = t.agent(policy)?;
    let acts = [
        format!("mkdir {w}/d1/sub"),
        format!("create {w}/d1/sub/file"),
        format!("rename {w}/d1/sub {w}/d2/sub"),
        format!("rename {w}/d2/sub {w}/d3/sub"),
        format!("read {w}/d2/sub/file"),
        format!("rename {w}/d2/sub/file {w}/d1/file"),
    ];
    let session = agent.probe(&acts)?;
    ensure!(session.lines == ["ok", "ok", "ok", "EPERM", "ok", "ok"], "{:?}", session.lines);
    Ok(())
}
