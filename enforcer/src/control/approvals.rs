//! Questions and answers about what waits for a person.

use super::{message::Reply, peer::Peer};
use crate::{
    approvals::{
        queue::{Outcome, State},
        request::{Request, tier_name},
        shape::Shape,
        words,
    },
    cli::exit::Failure,
    daemon::core::Core,
    event::text::hex,
};
use serde::{Deserialize, Serialize};

/// A request and what became of it.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct ApprovalStatus {
    /// What the kernel calls it.
    pub hold: String,
    /// SHA-256 of `text`: what a decision names.
    pub digest: String,
    /// `pending`, `approved` or `refused`.
    pub state: String,
    /// What is asked, fact by fact.
    pub request: Request,
    /// The same in its canonical form.
    pub text: String,
    /// What is asked, in words.
    pub act: String,
    /// What approving once would allow, in words.
    pub allows: String,
    /// The tier that decides who may approve what.
    pub tier: String,
    /// How often it was asked.
    pub asked: u64,
    /// Threads that wait for it now.
    pub waiting: usize,
    /// Two persons must approve.
    pub two_persons: bool,
    /// Who has approved so far.
    pub approved_by: Vec<String>,
}

/// What a decision did to a request.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Decision {
    /// What the kernel calls it.
    pub hold: String,
    /// `approved`, `denied`, `first-approval` or `void`: it was over before the decision counted.
    pub outcome: String,
}

/// Everything that is known.
pub fn list(core: &Core) -> Reply {
    let (queue, waiting) = (core.queue(), core.waiting_threads());
    let status = |(id, entry): (_, &crate::approvals::queue::Entry)| {
        let request = entry.request.clone();
        let (agent, tier) = (&request.who.agent, request.why.tier);
        ApprovalStatus {
            hold: crate::approvals::hold::HoldId::to_string(&id),
            digest: hex(&request.digest()),
            state: match entry.state {
                State::Pending => "pending",
                State::Granted { .. } => "approved",
                State::Refused { .. } => "refused",
            }
            .to_owned(),
            text: request.text(),
            act: words::act(&request.what),
            allows: words::allows(&request, Shape::Once),
            tier: tier_name(tier).to_owned(),
            asked: entry.asked,
            waiting: waiting.get(&id).copied().unwrap_or_default(),
            two_persons: queue.needs_two(agent, tier),
            approved_by: entry.approvals.iter().map(|approval| approval.name.clone()).collect(),
            request,
        }
    };
    let mut requests: Vec<ApprovalStatus> = queue.entries().map(status).collect();
    requests.sort_by(|a, b| (a.request.since, &a.hold).cmp(&(b.request.since, &b.hold)));
    Reply::Approvals { requests, problems: core.approvers().problems }
}

/// A person decides.
pub fn decide(
    core: &mut Core,
    peer: &Peer,
    statement: &str,
    signature: Option<&str>,
) -> Result<Reply, Failure> {
    let local = core.local_peer(peer);
    let decided = core.decide(statement, signature, &local)?;
    let decisions = decided.outcomes.iter().map(|(id, outcome)| Decision {
        hold: id.to_string(),
        outcome: match outcome {
            _ if decided.void.contains(id) => "void",
            Outcome::Approved(_) => "approved",
            Outcome::First(_) => "first-approval",
            Outcome::Denied => "denied",
        }
        .to_owned(),
    });
    Ok(Reply::Decided { decisions: decisions.collect() })
}
