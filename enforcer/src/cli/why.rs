//! `enforcer why`: which refusal it was, and what it was not.

use super::{Failure, Output, audit, exit::Exit, json_text, print, printable};
use crate::{
    control::{
        agent::{AgentReply, AgentRequest, Waits},
        agent_server,
        peer::unified,
    },
    daemon::canary,
    event::why::{self, Why},
    settings::{Settings, is_below},
};
use clap::Args;
use serde_json::{Map, Value, json};
use std::{fs, path::Path, process::ExitCode};

#[derive(Debug, Args)]
pub(super) struct WhyArgs {
    /// The process that was refused; one of its threads will do.
    #[arg(value_name = "PID")]
    pid: Option<u64>,
    /// The session, by the beginning of its id.
    #[arg(long, value_name = "ID", conflicts_with = "pid")]
    session: Option<String>,
    /// The last refusal of any agent; so without anything else too.
    #[arg(long, conflicts_with_all = ["pid", "session"])]
    last: bool,
    #[command(flatten)]
    place: audit::Place,
}

/// What is known of a process beside the audit log.
#[derive(Debug, Default)]
struct Process {
    cgroup: Option<String>,
    seccomp: bool,
    /// The profile that confines it, if one does.
    profile: Option<String>,
}

/// Explains the newest refusal to the session that this process belongs to; `None`: it belongs to none, or asks about
/// something else.
pub(super) fn inside(socket: &Path, args: &WhyArgs, output: Output) -> Option<Result<ExitCode, Failure>> {
    if args.session.is_some() || args.place.is_named() {
        return None;
    }
    match agent_server::ask(socket, &AgentRequest::Why) {
        Ok(AgentReply::Why { mut refusals, waiting }) => {
            // As far as the session's own processes are meant.
            if let Some(pid) = args.pid {
                refusals.retain(|why| why.process.split_whitespace().next() == Some(&pid.to_string()));
            }
            refusals.truncate(1);
            Some(of_session(&refusals, &waiting, output))
        }
        _ => None,
    }
}

/// What a session was refused, and what waits.
pub(super) fn of_session(refusals: &[Why], waiting: &[Waits], output: Output) -> Result<ExitCode, Failure> {
    let own = u64::from(std::process::id());
    let lines = if refusals.is_empty() { beside(&process(own), None) } else { Vec::new() };
    print(&match output {
        Output::Json => json_text(&json!({
            "refusal": refusals.first(), "refusals": refusals, "waiting": waiting, "beside": lines,
        })),
        Output::Human => {
            let mut out = String::new();
            refusals.iter().for_each(|why| out += &text(why));
            if refusals.is_empty() {
                out += "the Enforcer has refused this session nothing that it remembers\n";
            }
            lines.iter().for_each(|line| out += &format!("  - {}\n", printable(line)));
            for Waits { hold, act, justified, .. } in waiting {
                let hold = hold.get(..12).unwrap_or(hold);
                let why = if *justified { "" } else { "; enforcer session justify says why" };
                out += &printable(&format!("{hold} waits for a person: {act}{why}"));
                out.push('\n');
            }
            out
        }
    })?;
    Ok(if refusals.is_empty() { Exit::NoRefusal.into() } else { Exit::Ok.into() })
}

/// Explains the newest refusal that fits.
pub(super) fn run(settings: &Settings, args: &WhyArgs, output: Output) -> Result<ExitCode, Failure> {
    let found = audit::newest(&args.place, settings, |record| fits(args, record))?;
    if let Some(record) = found {
        let why = why::why(&record);
        return print(&match output {
            Output::Json => json_text(&json!({"refusal": why})),
            Output::Human => text(&why),
        });
    }
    let lines = match args.pid {
        Some(pid) => beside(&process(pid), Some(&roots(settings))),
        None => Vec::new(),
    };
    print(&match output {
        Output::Json => json_text(&json!({"refusal": null, "beside": lines})),
        Output::Human => {
            let mut out = "no refusal by the Enforcer is recorded that fits\n".to_owned();
            lines.iter().for_each(|line| out += &format!("  - {}\n", printable(line)));
            out
        }
    })?;
    Ok(Exit::NoRefusal.into())
}

fn roots(settings: &Settings) -> Vec<String> {
    settings.agents.roots.iter().map(|root| root.path.clone()).collect()
}

fn fits(args: &WhyArgs, record: &Map<String, Value>) -> bool {
    if !why::is_refusal(record) {
        return false;
    }
    let number = |key: &str| record.get(key).and_then(Value::as_u64);
    let text = |key: &str| record.get(key).and_then(Value::as_str);
    match (args.pid, &args.session) {
        (Some(pid), _) => number("pid") == Some(pid) || number("tgid") == Some(pid),
        (None, Some(id)) => text("session").is_some_and(|session| session.starts_with(id.as_str())),
        // The proofs that refusals happen are nobody's question.
        (None, None) => text("agent").is_some_and(|agent| agent != canary::AGENT),
    }
}

fn process(pid: u64) -> Option<Process> {
    let read = |name: &str| fs::read_to_string(format!("/proc/{pid}/{name}")).ok();
    let status = read("status")?;
    let profile = read("attr/apparmor/current").or_else(|| read("attr/current"));
    Some(Process {
        cgroup: read("cgroup").and_then(|text| unified(&text).map(str::to_owned)),
        seccomp: status.lines().any(|line| line.split_whitespace().eq(["Seccomp:", "2"])),
        profile: profile
            .map(|text| text.trim_end_matches(['\0', '\n']).to_owned())
            .filter(|text| !text.is_empty() && text != "unconfined"),
    })
}

/// What else may have refused, as far as that can be told. Without `roots` the process is a session's.
fn beside(process: &Option<Process>, roots: Option<&[String]>) -> Vec<String> {
    let Some(process) = process else {
        return vec![
            "there is no such process (any more): whether something else refused it cannot be told"
                .to_owned(),
            "the number may have been another process's before; --session asks about a session".to_owned(),
        ];
    };
    let mut lines = Vec::new();
    let is_below = |cgroup: &String, roots: &[String]| roots.iter().any(|root| is_below(cgroup, root));
    match (&process.cgroup, roots) {
        (_, None) => lines.push("a refusal would be remembered, unless the daemon is new or its record was lost".to_owned()),
        (None, _) => lines.push("its cgroup cannot be told, so neither whether it belongs to an agent".to_owned()),
        (Some(cgroup), Some(roots)) if is_below(cgroup, roots) => lines.push(format!(
            "it lives in {cgroup}, where agents live; a refusal would be recorded, unless the record was lost \
             (enforcer status)"
        )),
        (Some(cgroup), _) => lines.push(format!(
            "it lives in {cgroup}, below no root: the Enforcer refuses it nothing, unless an agent moved it there"
        )),
    }
    if process.seccomp {
        lines.push(
            "a seccomp filter is in force: it may have refused a system call; it leaves no trace".to_owned(),
        );
    }
    if let Some(profile) = &process.profile {
        lines.push(format!(
            "another security module confines it ({profile}): journalctl -k -g 'apparmor|avc' shows its refusals"
        ));
    }
    lines.push(
        "EACCES is mostly the mode or owner of a file or of a directory above it (namei -l PATH); the Enforcer \
         refuses with EPERM, except for a session's Landlock layer (enforcer agents)"
            .to_owned(),
    );
    if !process.seccomp && process.profile.is_none() {
        lines.push("no seccomp filter and no other security module confines it now".to_owned());
    }
    lines
}

fn text(why: &Why) -> String {
    let Why { time, agent, session, process, tried, outcome, layer, rules, because, policy, ask } = why;
    let mut out = format!("{}: {}\n", printable(tried), printable(outcome));
    let mut line = |name: &str, value: &str| out += &format!("  {name:<8} {}\n", printable(value));
    line("when", time);
    line("agent", agent.as_deref().unwrap_or("none"));
    if let Some(session) = session {
        line("session", session);
    }
    line("process", process);
    line("decided", layer);
    rules.iter().for_each(|rule| line("rule", rule));
    because.iter().for_each(|words| line("because", words));
    if let Some(policy) = policy {
        line("policy", policy);
    }
    line("ask for", ask);
    out
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_else_may_have_refused_is_named_and_what_cannot_be_told_too() {
        let roots = ["/agents.slice".to_owned()];
        let said = |process: Option<Process>| beside(&process, Some(&roots)).join("\n");
        assert!(said(None).contains("cannot be told"));
        let inside = Process { cgroup: Some("/agents.slice/a".to_owned()), ..Process::default() };
        assert!(said(Some(inside)).contains("lost"));
        let confined = Process {
            cgroup: Some("/user.slice".to_owned()),
            seccomp: true,
            profile: Some("docker-default (enforce)".to_owned()),
        };
        let text = said(Some(confined));
        assert!(
            text.contains("below no root") && text.contains("seccomp") && text.contains("docker-default"),
            "{text}"
        );
        assert!(!text.contains("no seccomp filter"));
        assert!(said(Some(Process::default())).contains("cgroup cannot be told"));
    }

    #[test]
    fn this_process_is_known() {
        let own = process(u64::from(std::process::id())).expect("this process");
        assert!(own.cgroup.is_some());
        assert!(process(u64::MAX).is_none());
    }
}
