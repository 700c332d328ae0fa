//! Records of rare system calls, with their arguments, also of those that fail before anybody is asked.

use crate::{
    cases,
    command::Command,
    ensure, events,
    harness::{Outcome, Test, outside_all},
    promise as check,
};
use serde_json::{Value, json};

cases!(evidence:
    rare_system_calls_leave_their_arguments_whatever_became_of_them,
);

/// The act, the call with its arguments as far as they are known, and its error.
fn acts() -> Vec<(&'static str, &'static str, Vec<(usize, &'static str)>, Value)> {
    vec![
        ("unshare-mount", "unshare", vec![(0, "0x20000")], json!("EPERM")),
        ("unshare-user", "unshare", vec![(0, "0x10000000")], json!("EPERM")),
        ("setns-nothing", "setns", vec![(0, "0xffffffffffffffff"), (1, "0x20000")], json!("EBADF")),
        ("personality-ask", "personality", vec![(0, "0xffffffff")], Value::Null),
        ("memfd-named", "memfd_create", vec![(1, "0x1")], Value::Null),
        ("fsopen tmpfs", "fsopen", vec![(1, "0x0")], json!("EPERM")),
    ]
}

fn rare_system_calls_leave_their_arguments_whatever_became_of_them(t: &mut Test) -> Outcome {
    t.fresh()?;
    let marker = check::marker(t)?;
    let all = acts();
    let mut words: Vec<String> = all.iter().map(|(act, ..)| (*act).to_owned()).collect();
    let before = events::mark()?;
    outside_all(&words)?;
    words.push(format!("read {marker}"));
    let agent = t.agent(t.policy())?;
    let session = agent.probe(&words)?;
    ensure!(session.lines.len() == words.len(), "{:?} {}", session.lines, session.err);
    events::until_marker(session.mark, &session.id, &marker)?;
    // The two rings have no common order: the last call's record may come after the marker's.
    let mine = || -> Outcome<Vec<Value>> {
        let all = events::since(before)?.into_iter();
        Ok(all.filter(|r| r["kind"] == "system-call" && r["session"] == session.id.as_str()).collect())
    };
    crate::command::wait_for("a record of each call", 30, || {
        (mine().ok()?.len() >= all.len()).then_some(())
    })?;
    let found = mine()?;
    ensure!(found.len() == all.len(), "{} records: {found:?}", found.len());
    for ((act, name, arguments, error), record) in all.iter().zip(&found) {
        let call = &record["call"];
        let right = call["name"] == *name
            && record["error"] == *error
            && record["verdict"].is_null()
            && arguments.iter().all(|(at, word)| call["arguments"][at] == *word);
        ensure!(right, "{act}: {record}");
    }
    // Nobody outside left one.
    let others = events::since(before)?.into_iter().filter(|r| r["kind"] == "system-call");
    let strangers: Vec<Value> = others.filter(|r| r["agent"].is_null()).collect();
    ensure!(strangers.is_empty(), "{strangers:?}");
    let status = Command::new("enforcer").args(["status"]).run()?;
    ensure!(status.out.contains("rare system calls"), "{status}");
    Ok(())
}
