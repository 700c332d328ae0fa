//! What waits for a person, seen and answered as a person on the host does.

use crate::{
    agent::{Agent, Live},
    command::{Command, Ran, wait_for},
    events, fail,
    harness::Outcome,
};
use serde_json::Value;

/// A request that waits.
#[derive(Clone, Debug)]
pub struct Request {
    /// What the kernel calls it.
    pub hold: String,
    /// All that is said about it.
    pub said: Value,
}

/// What waits of an agent.
pub fn pending(agent: &Agent) -> Outcome<Vec<Request>> {
    let ran = Command::new("enforcer").args(["approvals", "list", "--output", "json"]).run()?;
    let Ok(answer) = serde_json::from_str::<Value>(&ran.out) else { fail!("no JSON: {ran}") };
    let requests = answer["requests"].as_array().cloned().unwrap_or_default();
    let mine = requests.into_iter().filter(|request| request["request"]["who"]["agent"] == agent.name());
    Ok(mine
        .map(|said| Request { hold: said["hold"].as_str().unwrap_or_default().to_owned(), said })
        .collect())
}

/// Waits for the one request of an agent that nobody has answered.
pub fn asked(agent: &Agent, what: &str) -> Outcome<Request> {
    let found = wait_for(&format!("the request to {what}"), 120, || match &pending(agent).ok()?[..] {
        [] => None,
        [one] => Some(Ok(one.clone())),
        many => Some(Err(format!("{} requests for {what}: {many:?}", many.len()))),
    })?;
    match found {
        Ok(request) if request.said["request"]["what"]["operation"] == what => Ok(request),
        Ok(request) => fail!("asked for something else than {what}: {}", request.said),
        Err(error) => fail!("{error}"),
    }
}

/// What a session is the first to be recorded to wait for. Whoever asks the daemon may come too late for what ends soon.
pub fn held(live: &Live) -> Outcome<Request> {
    let said = events::wait("the record of a hold", live.mark, |record| {
        record["kind"] == "held" && record["session"] == live.id.as_str()
    })?;
    Ok(Request { hold: said["hold"].as_str().unwrap_or_default().to_owned(), said })
}

/// Waits until an agent has nothing that waits.
pub fn nothing_waits(agent: &Agent) -> Outcome {
    Ok(wait_for("an end of waiting", 120, || pending(agent).ok()?.is_empty().then_some(()))?)
}

/// A decision does not count before its record is on the disk. Where the disk is slow the daemon says so, and to decide
/// again.
fn decide(words: &[&str]) -> Outcome<Ran> {
    Ok(wait_for("a decision that is recorded", 120, || {
        let ran = Command::new("enforcer").args(["approvals"]).args(words).run();
        match &ran {
            Ok(said) if said.err.contains("about the audit log, and decide again") => None,
            _ => Some(ran),
        }
    })??)
}

/// Root on the host approves, with these further words.
pub fn approve(request: &Request, words: &[&str]) -> Outcome {
    let all = [&["approve", request.hold.as_str(), "--reason", "a test says so"], words].concat();
    let ran = decide(&all)?;
    if ran.code == Some(0) { Ok(()) } else { fail!("{ran}") }
}

/// Root on the host denies.
pub fn deny(request: &Request) -> Outcome {
    let ran = decide(&["deny", &request.hold, "--reason", "a test says so"])?;
    if ran.code == Some(0) { Ok(()) } else { fail!("{ran}") }
}
