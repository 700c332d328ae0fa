//! `enforcer approvals`: what waits for a person, and how a person answers.

pub(super) mod decide;
pub(super) mod sign;
mod text;
mod watch;

use super::{Failure, Output, exit::Exit, json_text, print, unexpected};
use crate::control::{
    approvals::ApprovalStatus,
    client::Client,
    message::{Reply, Request},
};
use clap::{Args, Subcommand};
use serde_json::json;
use std::{path::PathBuf, process::ExitCode};

/// `enforcer approvals …`.
#[derive(Debug, Subcommand)]
pub(super) enum ApprovalsCommand {
    /// List what waits for a person.
    List {
        /// What was decided and is not over yet, too.
        #[arg(long)]
        all: bool,
    },
    /// Show a request: who asks for what, by which rule, and what approving would allow.
    Show {
        /// The hold's id, or enough of its beginning.
        id: String,
        /// Print the statement that is to be signed instead, and nothing else.
        #[arg(long)]
        request: bool,
        #[command(flatten)]
        terms: Terms,
        /// With --request: the approver's name.
        #[arg(long = "as", value_name = "NAME")]
        approver: Option<String>,
        /// With --request: a statement that denies.
        #[arg(long)]
        deny: bool,
    },
    /// Approve requests.
    Approve {
        #[command(flatten)]
        which: Which,
        #[command(flatten)]
        terms: Terms,
        #[command(flatten)]
        signer: Signer,
    },
    /// Deny requests.
    Deny {
        #[command(flatten)]
        which: Which,
        /// Why; goes into the audit log.
        #[arg(long, default_value = "")]
        reason: String,
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
    /// Watch what waits and decide, in full screen.
    Watch {
        #[command(flatten)]
        signer: Signer,
    },
}

/// Which requests.
#[derive(Debug, Args)]
pub(super) struct Which {
    /// Holds by their ids, or enough of their beginnings.
    #[arg(required_unless_present = "agent", value_name = "ID")]
    ids: Vec<String>,
    /// Everything that waits of this agent.
    #[arg(long, conflicts_with = "ids")]
    agent: Option<String>,
}

/// What an approval says.
#[derive(Clone, Debug, Default, Args)]
pub(super) struct Terms {
    /// How often it may be done [default: once].
    #[arg(long, value_name = "N", conflicts_with_all = ["minutes", "for_session"])]
    times: Option<u32>,
    /// For how many minutes it may be done, as often as it likes.
    #[arg(long, value_name = "M", conflicts_with = "for_session")]
    minutes: Option<u32>,
    /// As often as it likes while the session lasts.
    #[arg(long)]
    for_session: bool,
    /// Why; goes into the audit log.
    #[arg(long, default_value = "")]
    reason: String,
    /// For how many minutes the statement counts.
    #[arg(long, value_name = "M", default_value_t = 60)]
    valid: u32,
}

/// Who decides.
#[derive(Clone, Debug, Default, Args)]
pub(super) struct Signer {
    /// Sign with this SSH key (a public one whose private half the agent or a hardware key has, too). Without it
    /// root decides as the local operator, where the settings let it.
    #[arg(long, value_name = "FILE", requires = "approver")]
    pub(super) key: Option<PathBuf>,
    /// The approver's name, as in the approvers' files.
    #[arg(long = "as", value_name = "NAME")]
    pub(super) approver: Option<String>,
}

/// Runs the command; `connect` reaches the daemon.
pub(super) fn run(
    command: &ApprovalsCommand,
    output: Output,
    connect: &dyn Fn() -> Result<Client, Failure>,
) -> Result<ExitCode, Failure> {
    match command {
        ApprovalsCommand::List { all } => {
            let (mut requests, problems) = fetch(&mut connect()?)?;
            requests.retain(|request| *all || request.state == "pending");
            print(&match output {
                Output::Json => json_text(&json!({"requests": requests, "problems": problems})),
                Output::Human => text::list(&requests, &problems, decide::now()),
            })
        }
        ApprovalsCommand::Show { id, request, terms, approver, deny } => {
            let all = fetch(&mut connect()?)?.0;
            let one = find(&all, id)?;
            if *request {
                return print(&decide::statement(
                    &[one],
                    decide::verdict(terms, *deny),
                    terms,
                    approver.as_deref(),
                )?);
            }
            print(&match output {
                Output::Json => json_text(one),
                Output::Human => text::details(one, decide::now()),
            })
        }
        ApprovalsCommand::Approve { which, terms, signer } => {
            decide::decide(&mut connect()?, which, decide::verdict(terms, false), terms, signer, output)
        }
        ApprovalsCommand::Deny { which, reason, signer } => {
            let terms = Terms { reason: reason.clone(), valid: 60, ..Terms::default() };
            decide::decide(&mut connect()?, which, decide::verdict(&terms, true), &terms, signer, output)
        }
        ApprovalsCommand::Submit { statement, signature } => {
            decide::submit(&mut connect()?, statement, signature.as_deref(), output)
        }
        ApprovalsCommand::Watch { signer } => watch::run(&mut connect()?, signer),
    }
}

/// The requests, and what is wrong with approvers' files.
fn fetch(client: &mut Client) -> Result<(Vec<ApprovalStatus>, Vec<String>), Failure> {
    match client.ask(&Request::Approvals)? {
        Reply::Approvals { requests, problems } => Ok((requests, problems)),
        other => Err(unexpected(&other)),
    }
}

/// The one request whose hold's id begins so.
fn find<'a>(requests: &'a [ApprovalStatus], id: &str) -> Result<&'a ApprovalStatus, Failure> {
    let usage = |message: String| {
        Failure::new(Exit::Usage, message, "enforcer approvals list --all shows the ids of what is known")
    };
    let mut fitting = requests.iter().filter(|request| !id.is_empty() && request.hold.starts_with(id));
    let shown = crate::event::text::escape(id.as_bytes());
    match (fitting.next(), fitting.next()) {
        (Some(one), None) => Ok(one),
        (None, _) => Err(usage(format!("no request has an id that begins with {shown:?}"))),
        (Some(_), Some(_)) => Err(usage(format!("several requests have ids that begin with {shown:?}"))),
    }
}
