//! `enforcer session`: what a process inside a session may ask about that session.

use super::{Failure, Output, exit::Exit, json_text, print, printable, unexpected_of_session, why};
use crate::control::{
    agent::{AgentReply, AgentRequest, Who},
    agent_server,
};
use clap::Subcommand;
use serde_json::json;
use std::{path::Path, process::ExitCode};

/// What is asked.
#[derive(Debug, Subcommand)]
pub(super) enum SessionCommand {
    /// Say whose session this is: agent, policy, level of trust.
    Who,
    /// Say what was refused to this session last and what to ask for, and what waits for a person.
    Why,
    /// Say why what waits is wanted. Whoever decides sees it as the agent's own words.
    Justify {
        /// The words, up to 500 characters.
        text: String,
        /// Which request, by the beginning of its id; without it the only one that there is.
        #[arg(long, value_name = "ID")]
        hold: Option<String>,
    },
}

/// Asks.
pub(super) fn run(socket: &Path, command: &SessionCommand, output: Output) -> Result<ExitCode, Failure> {
    let request = match command {
        SessionCommand::Who => AgentRequest::Who,
        SessionCommand::Why => AgentRequest::Why,
        SessionCommand::Justify { text, hold } => {
            AgentRequest::Justify { hold: hold.clone(), text: text.clone() }
        }
    };
    match ask(socket, &request)? {
        AgentReply::Who(who) => print(&match output {
            Output::Json => json_text(&who),
            Output::Human => text(&who),
        }),
        AgentReply::Why { refusals, waiting } => why::of_session(&refusals, &waiting, output),
        AgentReply::Justified { hold } => print(&match output {
            Output::Json => json_text(&json!({"justified": hold})),
            Output::Human => format!("whoever decides about {} sees it\n", printable(&hold)),
        }),
        AgentReply::Failed { .. } => Err(unexpected_of_session()),
    }
}

/// Asks the daemon over the sessions' socket.
pub(super) fn ask(socket: &Path, request: &AgentRequest) -> Result<AgentReply, Failure> {
    let at = socket.display();
    match agent_server::ask(socket, request) {
        Ok(AgentReply::Failed { exit, message, remedy }) => {
            Err(Failure::new(Exit::from_number(exit).unwrap_or(Exit::Internal), message, remedy))
        }
        Ok(reply) => Ok(reply),
        Err(e) => Err(Failure::new(
            Exit::Unavailable,
            format!("cannot ask at {at}: {e}"),
            "this works inside a session, while the daemon runs",
        )),
    }
}

fn text(who: &Who) -> String {
    let Who { agent, owner, purpose, session, task, policy_version, policy_digest, mode, trust } = who;
    let mut out = String::new();
    let mut line = |name: &str, value: &str| out += &format!("{name:<8} {}\n", printable(value));
    line("agent", agent);
    line("purpose", purpose);
    line("owner", owner);
    line("session", session);
    if let Some(task) = task {
        line("task", task);
    }
    line("policy", &format!("version {policy_version}, {policy_digest}"));
    line("mode", mode);
    line("trust", trust);
    out
}
