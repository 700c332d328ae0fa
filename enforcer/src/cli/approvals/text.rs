//! Requests for people. Whatever an agent may have chosen was escaped by the daemon, and is made printable here again.

use crate::{cli::printable, control::approvals::ApprovalStatus};

/// The list.
pub(super) fn list(requests: &[ApprovalStatus], problems: &[String], now: i64) -> String {
    let mut out = String::new();
    if requests.is_empty() {
        out += "nothing waits for a person\n";
    }
    for request in requests {
        out += &format!("{}\n", head(request, now));
        out += &format!("  {} ({}) wants to {}\n", agent(request), tier(request), line(&request.act));
    }
    for problem in problems {
        out += &format!("approver's file not used: {}\n", printable(problem));
    }
    out
}

/// One request in full.
pub(super) fn details(request: &ApprovalStatus, now: i64) -> String {
    let mut out = format!("{}\n", head(request, now));
    out += &format!("{} ({}) wants to {}\n\n", agent(request), tier(request), line(&request.act));
    out += &facts(request);
    out += &format!("\nApproving once would allow:\n  {}\n", line(&request.allows));
    if request.two_persons {
        let so_far =
            if request.approved_by.is_empty() { "nobody".to_owned() } else { request.approved_by.join(", ") };
        out += &format!("Two persons must approve; so far: {}\n", line(&so_far));
    }
    out
}

/// The request's facts, and what the agent says in a box of its own.
pub(super) fn facts(request: &ApprovalStatus) -> String {
    const SAYS: &str = "the-agent-says: ";
    /// What identifies a request comes after what a decision depends on.
    const LAST: [&str; 9] =
        ["hold", "number", "host", "session", "owner", "purpose", "trust", "policy-version", "policy-digest"];
    let is_last = |fact: &&str| fact.split_once(": ").is_some_and(|(key, _)| LAST.contains(&key));
    let (last, first): (Vec<&str>, Vec<&str>) =
        request.text.lines().skip(1).filter(|fact| !fact.starts_with("no-")).partition(is_last);
    let mut out = String::new();
    for fact in first.into_iter().chain(last) {
        match fact.strip_prefix(SAYS) {
            None => {
                let (key, value) = fact.split_once(": ").unwrap_or((fact, ""));
                out += &format!("  {key:<24} {}\n", line(value));
            }
            Some(words) => {
                out += "  +-- the agent's own words; nobody has checked them\n";
                out += &format!("  | {}\n  +--\n", line(words));
            }
        }
    }
    out
}

/// First line of a request.
pub(super) fn head(request: &ApprovalStatus, now: i64) -> String {
    let state = match (request.state.as_str(), request.request.deadline - now) {
        ("pending", left) if left > 0 => format!("waits, {} left", duration(left)),
        ("pending", _) => "waits, its time is over".to_owned(),
        (other, _) => other.to_owned(),
    };
    let asked = if request.asked > 1 { format!(", asked {} times", request.asked) } else { String::new() };
    format!(
        "{}  {state}{asked}, {} waiting",
        request.hold.get(..12).unwrap_or(&request.hold),
        request.waiting
    )
}

/// A number of seconds as people say it.
pub(super) fn duration(seconds: i64) -> String {
    match seconds {
        ..=0 => "nothing".to_owned(),
        1..=119 => format!("{seconds} s"),
        120..=7199 => format!("{} min", seconds / 60),
        _ => format!("{} h", seconds / 3600),
    }
}

fn agent(request: &ApprovalStatus) -> String {
    line(&request.request.who.agent)
}

fn tier(request: &ApprovalStatus) -> String {
    format!("tier {}", line(&request.tier))
}

/// One line, whatever it was.
pub(super) fn line(text: &str) -> String {
    printable(text).replace('\n', " ")
}
