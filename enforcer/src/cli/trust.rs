//! `enforcer trust`: how far agents are trusted, and how a person changes it.

use super::{
    Failure, Output,
    approvals::{Signer, decide, sign},
    exit::Exit,
    json_text, policy, print, printable, status, unexpected,
};
use crate::{
    approvals::{canonical::parse_digest, signature::operator_name},
    control::{
        client::Client,
        message::{Reply, Request},
        trust::{TrustChanged, TrustStatus},
    },
    event::text::escape,
    policy::Trust,
    trust::statement::{NAMESPACE, Statement, is_reason},
};
use clap::Subcommand;
use serde_json::json;
use std::{path::PathBuf, process::ExitCode};

/// `enforcer trust …`.
#[derive(Debug, Subcommand)]
pub(super) enum TrustCommand {
    /// Show the level in force, the ceiling of the policy and the last statement.
    Show {
        /// Only this agent.
        agent: Option<String>,
    },
    /// State an agent's level. A lower one counts at once, for sessions that run too.
    Set {
        /// The agent.
        agent: String,
        /// probation, supervised, trusted or autonomous; at most what the policy says.
        #[arg(value_parser = policy::trust_level)]
        level: Trust,
        /// Why; goes into the audit log.
        #[arg(long, value_name = "TEXT")]
        reason: String,
        /// Print the statement that is to be signed instead, and nothing else.
        #[arg(long, conflicts_with = "key")]
        request: bool,
        /// For how many minutes the statement can be submitted.
        #[arg(long, value_name = "M", default_value_t = 60)]
        valid: u32,
        #[command(flatten)]
        signer: Signer,
    },
    /// Submit a statement that somebody has signed, wherever that was.
    Submit {
        /// The statement; `-` is standard input.
        statement: PathBuf,
        /// Its signature, as ssh-keygen -Y sign writes it [default: the statement's name with .sig].
        signature: Option<PathBuf>,
    },
}

/// Runs the command; `connect` reaches the daemon.
pub(super) fn run(
    command: &TrustCommand,
    output: Output,
    connect: &dyn Fn() -> Result<Client, Failure>,
) -> Result<ExitCode, Failure> {
    match command {
        TrustCommand::Show { agent } => {
            let mut agents = fetch(&mut connect()?)?;
            if let Some(agent) = agent {
                agents = vec![find(agents, agent)?];
            }
            print(&match output {
                Output::Json => json_text(&json!({"agents": agents})),
                Output::Human => agents.iter().map(text).collect(),
            })
        }
        TrustCommand::Set { agent, level, reason, request, valid, signer } => {
            let mut client = connect()?;
            let known = find(fetch(&mut client)?, agent)?;
            let text = statement(&known, *level, reason, *valid, signer.approver.as_deref())?;
            if *request {
                return print(&text);
            }
            let signature = signer.key.as_deref().map(|key| sign::sign(key, NAMESPACE, &text)).transpose()?;
            submit(&mut client, text, signature, output)
        }
        TrustCommand::Submit { statement, signature } => {
            let (statement, signature) = decide::read_signed(statement, signature.as_deref())?;
            submit(&mut connect()?, statement, Some(signature), output)
        }
    }
}

/// How far every agent is trusted.
pub(super) fn fetch(client: &mut Client) -> Result<Vec<TrustStatus>, Failure> {
    match client.ask(&Request::Trust)? {
        Reply::Trust { agents } => Ok(agents),
        other => Err(unexpected(&other)),
    }
}

fn find(agents: Vec<TrustStatus>, agent: &str) -> Result<TrustStatus, Failure> {
    agents.into_iter().find(|known| known.agent == agent).ok_or_else(|| {
        let message = format!("there is no agent {}", escape(agent.as_bytes()));
        Failure::new(Exit::Usage, message, "enforcer agents lists those that have a policy")
    })
}

fn statement(
    known: &TrustStatus,
    after: Trust,
    reason: &str,
    valid: u32,
    approver: Option<&str>,
) -> Result<String, Failure> {
    if !is_reason(reason) {
        let message = "--reason is empty, or longer than 1024 bytes";
        return Err(Failure::new(Exit::Usage, message, "say why the agent is trusted more or less"));
    }
    let (Some(before), Some(follows)) = (Trust::named(&known.stated), parse_digest(&known.follows)) else {
        let message = "the daemon names a level or a digest that this program does not know";
        return Err(Failure::new(
            Exit::Unavailable,
            message,
            "daemon and command line may be of different versions",
        ));
    };
    let made = decide::now();
    let statement = Statement {
        host: known.host.clone(),
        agent: known.agent.clone(),
        before,
        after,
        follows,
        made,
        valid_until: made + i64::from(valid) * 60,
        approver: approver.map_or_else(|| operator_name(nix::unistd::geteuid().as_raw()), str::to_owned),
        reason: reason.to_owned(),
    };
    Ok(statement.text())
}

fn submit(
    client: &mut Client,
    statement: String,
    signature: Option<String>,
    output: Output,
) -> Result<ExitCode, Failure> {
    let changed = match client.ask(&Request::ChangeTrust { statement, signature })? {
        Reply::TrustChanged(changed) => changed,
        other => return Err(unexpected(&other)),
    };
    print(&match output {
        Output::Json => json_text(&changed),
        Output::Human => changed_text(&changed),
    })?;
    Ok(if changed.problems.is_empty() { Exit::Ok } else { Exit::Degraded }.into())
}

fn changed_text(changed: &TrustChanged) -> String {
    let TrustChanged { agent, stated, ceiling, in_force, problems } = changed;
    let mut out = format!(
        "{}: {} is stated, {} is in force\n",
        printable(agent),
        printable(stated),
        status::level(ceiling, in_force)
    );
    problems.iter().for_each(|problem| out += &format!("problem: {}\n", printable(problem)));
    out
}

fn text(agent: &TrustStatus) -> String {
    let TrustStatus { agent: name, ceiling, stated, in_force, tiers, statements, since, by, reason, .. } =
        agent;
    let line = |text: &str| printable(text).replace('\n', " ");
    let mut out = format!("{}  {}\n", line(name), status::level(ceiling, in_force));
    out += &format!(
        "  low {}, medium {}, high {}, critical deny\n",
        tiers.low.name(),
        tiers.medium.name(),
        tiers.high.name()
    );
    match (since, by, reason) {
        (Some(since), Some(by), Some(reason)) => {
            out += &format!(
                "  {} stated by {} at {} (statement {statements})\n",
                line(stated),
                line(by),
                line(since)
            );
            out += &format!("  because: {}\n", line(reason));
        }
        _ => out += "  nothing was stated\n",
    }
    out
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::trust::table::Table;

    fn status() -> TrustStatus {
        TrustStatus {
            agent: "bot".to_owned(),
            ceiling: "trusted".to_owned(),
            stated: "probation".to_owned(),
            in_force: "probation".to_owned(),
            tiers: Table::default().probation,
            host: "h".to_owned(),
            follows: "ab".repeat(32),
            statements: 0,
            since: None,
            by: None,
            reason: None,
        }
    }

    #[test]
    fn what_is_written_for_a_signature_is_a_statement() {
        let text = statement(&status(), Trust::Supervised, "why\nnot", 5, Some("alice")).expect("text");
        let read = Statement::parse(&text).expect("a statement");
        assert_eq!(
            (read.before, read.after, read.follows),
            (Trust::Probation, Trust::Supervised, [0xab; 32])
        );
        assert_eq!((read.approver.as_str(), read.valid_until - read.made), ("alice", 300));
        assert!(statement(&status(), Trust::Supervised, " ", 5, None).is_err());
    }

    #[test]
    fn nothing_in_a_reason_reaches_the_terminal_as_it_is() {
        let mut one = status();
        assert!(
            text(&one).contains("bot  probation (at most trusted)")
                && text(&one).contains("nothing was stated")
        );
        (one.since, one.by) = (Some("now".to_owned()), Some("alice".to_owned()));
        one.reason = Some("\x1b[2J\nlow deny".to_owned());
        assert!(text(&one).ends_with("  because: ?[2J low deny\n"), "{}", text(&one));
    }
}
