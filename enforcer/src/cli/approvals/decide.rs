//! From an answer to a statement, its signature and the daemon.

use super::{Output, Signer, Terms, Which, fetch, find, sign};
use crate::{
    approvals::{
        canonical::parse_digest,
        shape::Shape,
        signature::operator_name,
        statement::{NAMESPACE, Statement, Verdict},
    },
    cli::{
        exit::{Exit, Failure},
        json_text, print, unexpected,
    },
    control::{
        approvals::{ApprovalStatus, Decision},
        client::Client,
        message::{Reply, Request},
    },
};
use serde_json::json;
use std::{
    fs,
    io::Read,
    path::{Path, PathBuf},
    process::ExitCode,
    time::{SystemTime, UNIX_EPOCH},
};

/// Seconds since 1970.
pub(in crate::cli) fn now() -> i64 {
    SystemTime::now().duration_since(UNIX_EPOCH).map_or(0, |since| since.as_secs() as i64)
}

/// What the terms say.
pub(super) fn verdict(terms: &Terms, deny: bool) -> Verdict {
    if deny {
        return Verdict::Deny;
    }
    Verdict::Approve(match terms {
        Terms { times: Some(n), .. } => Shape::Times(*n),
        Terms { minutes: Some(m), .. } => Shape::Until(now() + i64::from(*m) * 60),
        Terms { for_session: true, .. } => Shape::Session,
        _ => Shape::Once,
    })
}

/// The statement about some requests.
pub(super) fn statement(
    requests: &[&ApprovalStatus],
    verdict: Verdict,
    terms: &Terms,
    approver: Option<&str>,
) -> Result<String, Failure> {
    let digests = requests.iter().map(|request| {
        // What is signed is what is shown: the digest is the one of the text that came, not one that came beside it.
        let own = request.request.digest();
        (request.text == request.request.text() && parse_digest(&request.digest) == Some(own)).then_some(own)
    });
    let Some(digests) = digests.collect::<Option<Vec<_>>>() else {
        let message = "the daemon's digest is not the one of the request that it shows";
        return Err(Failure::new(
            Exit::Unavailable,
            message,
            "daemon and command line may be of different versions",
        ));
    };
    let statement = Statement {
        verdict,
        requests: Statement::ordered(digests),
        valid_until: now() + i64::from(terms.valid) * 60,
        approver: approver.map_or_else(|| operator_name(nix::unistd::geteuid().as_raw()), str::to_owned),
        reason: terms.reason.clone(),
    };
    let text = statement.text();
    Statement::parse(&text).map_err(|error| {
        Failure::new(
            Exit::Usage,
            error.to_string(),
            "at most 64 requests, and a reason of at most 1024 bytes",
        )
    })?;
    Ok(text)
}

/// Decides about requests, with one statement for all of them.
pub(super) fn decide(
    client: &mut Client,
    which: &Which,
    verdict: Verdict,
    terms: &Terms,
    signer: &Signer,
    output: Output,
) -> Result<ExitCode, Failure> {
    let all = fetch(client)?.0;
    let requests: Vec<&ApprovalStatus> = match &which.agent {
        None => which.ids.iter().map(|id| find(&all, id)).collect::<Result<_, _>>()?,
        Some(agent) => all.iter().filter(|r| r.state == "pending" && r.request.who.agent == *agent).collect(),
    };
    if requests.is_empty() {
        return Err(Failure::new(Exit::Usage, "nothing of this agent waits", "see enforcer approvals list"));
    }
    let text = statement(&requests, verdict, terms, signer.approver.as_deref())?;
    let decisions = send(client, text, signer)?;
    print_decisions(&decisions, output)
}

/// Signs where a key is named, and hands the statement to the daemon.
pub(super) fn send(
    client: &mut Client,
    statement: String,
    signer: &Signer,
) -> Result<Vec<Decision>, Failure> {
    let signature = signer.key.as_deref().map(|key| sign::sign(key, NAMESPACE, &statement)).transpose()?;
    ask(client, statement, signature)
}

/// Submits what somebody else has signed.
pub(super) fn submit(
    client: &mut Client,
    statement: &Path,
    signature: Option<&Path>,
    output: Output,
) -> Result<ExitCode, Failure> {
    let (statement, signature) = read_signed(statement, signature)?;
    let decisions = ask(client, statement, Some(signature))?;
    print_decisions(&decisions, output)
}

/// A statement and its signature; without a name for that, it lies beside the statement.
pub(in crate::cli) fn read_signed(
    statement: &Path,
    signature: Option<&Path>,
) -> Result<(String, String), Failure> {
    let beside = || {
        let mut name = statement.as_os_str().to_owned();
        name.push(".sig");
        PathBuf::from(name)
    };
    if statement == Path::new("-") && signature.is_none() {
        return Err(Failure::new(Exit::Usage, "the signature's file must be named as well", ""));
    }
    let signature = read(&signature.map_or_else(beside, Path::to_owned))?;
    Ok((read(statement)?, signature))
}

fn read(path: &Path) -> Result<String, Failure> {
    let text = if path == Path::new("-") {
        let mut text = String::new();
        std::io::stdin().read_to_string(&mut text).map(|_| text)
    } else {
        fs::read_to_string(path)
    };
    text.map_err(|e| Failure::new(Exit::NoInput, format!("cannot read {}: {e}", path.display()), ""))
}

fn ask(client: &mut Client, statement: String, signature: Option<String>) -> Result<Vec<Decision>, Failure> {
    match client.ask(&Request::Decide { statement, signature })? {
        Reply::Decided { decisions } => Ok(decisions),
        other => Err(unexpected(&other)),
    }
}

fn print_decisions(decisions: &[Decision], output: Output) -> Result<ExitCode, Failure> {
    print(&match output {
        Output::Json => json_text(&json!({"decisions": decisions})),
        Output::Human => decisions.iter().map(|d| format!("{}  {}\n", d.hold, words(&d.outcome))).collect(),
    })?;
    let void = decisions.iter().any(|decision| decision.outcome == "void");
    Ok(if void { Exit::NotApproved } else { Exit::Ok }.into())
}

/// What a decision did, for people.
pub(super) fn words(outcome: &str) -> &str {
    match outcome {
        "first-approval" => "approved by the first person; a second one is needed",
        "void" => "void: it was over before the decision counted",
        other => other,
    }
}
