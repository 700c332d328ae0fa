//! Why a decision does not count. Each case has words of its own, and what to do about it.

use super::{canonical::stamp, statement::StatementError};
use crate::cli::exit::{Exit, Failure};

/// Why a decision does not count.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum DecisionError {
    /// It is no statement.
    #[error(transparent)]
    Statement(#[from] StatementError),
    /// It is no signature.
    #[error("the signature cannot be read: {0}")]
    Armor(String),
    /// A signature for something else.
    #[error("the signature is for the namespace {found:?}, not {wanted:?}")]
    Namespace {
        /// As signed.
        found: String,
        /// As it must be.
        wanted: &'static str,
    },
    /// Nobody has this key.
    #[error("no approver has the key {0}")]
    UnknownKey(String),
    /// The key's owner has not signed this.
    #[error("the signature of {0} does not fit the statement")]
    Signature(String),
    /// A hardware key that was not touched.
    #[error("the hardware key of {0} signed without being touched")]
    Untouched(String),
    /// Signed by somebody else than the statement says.
    #[error("the statement names the approver {named:?}, but {signer:?} has signed it")]
    OtherApprover {
        /// In the statement.
        named: String,
        /// Whose key it is.
        signer: String,
    },
    /// Nobody has signed, and the local operator does not count.
    #[error("the settings do not let a local operator decide")]
    NoOperator,
    /// Nobody has signed, and the peer is not root.
    #[error("only root decides without a signature")]
    NotRoot,
    /// Too late for the statement.
    #[error("the statement was valid until {}", stamp(*.0))]
    Expired(i64),
    /// Nothing waits for this.
    #[error("no request has the digest {0}: it was never made, was withdrawn, or is over")]
    UnknownRequest(String),
    /// It was decided before.
    #[error("the request {0} has been decided already")]
    Decided(String),
    /// Too late for the request.
    #[error("the request {id} had to be answered until {}", stamp(*.deadline))]
    Late {
        /// The hold.
        id: String,
        /// Until when.
        deadline: i64,
    },
    /// Somebody else must decide.
    #[error("{name} may not decide about tier {tier} of agent {agent}")]
    Scope {
        /// Who.
        name: String,
        /// About whom.
        agent: String,
        /// The tier.
        tier: &'static str,
    },
    /// More than the tier allows.
    #[error("`{shape}` is too much for tier {tier}: {why}")]
    Shape {
        /// What was stated.
        shape: String,
        /// The tier.
        tier: &'static str,
        /// Why.
        why: String,
    },
    /// The second of two persons must be another one.
    #[error("{0} has approved this already: another person is needed")]
    SamePerson(String),
    /// The second of two persons approves something else than the first.
    #[error("the first approval says `{first}`, this one `{second}`: both must say the same")]
    OtherShape {
        /// The first one's.
        first: String,
        /// The second one's.
        second: String,
    },
    /// Two persons must sign.
    #[error("two persons must sign this; the local operator is none of them")]
    TwoPersons,
    /// It could not be recorded, so it does not count.
    #[error("the decision could not be recorded, so it does not count: {0}")]
    Unrecorded(String),
    /// The kernel did not take it.
    #[error("the kernel side did not take the decision: {0}")]
    Kernel(String),
    /// A statement about trust that was made for another state.
    #[error("the statement follows {found}, but the last one about {agent} is {last}")]
    Order {
        /// The agent.
        agent: String,
        /// In the statement.
        found: String,
        /// As it is.
        last: String,
    },
    /// They may not change this agent's trust.
    #[error("{name} may not change the trust of agent {agent}")]
    TrustScope {
        /// Who.
        name: String,
        /// About whom.
        agent: String,
    },
    /// More trust than the policy lets the agent have.
    #[error("{after} is more than the policy of {agent} lets it have, which is {ceiling}")]
    Ceiling {
        /// The agent.
        agent: String,
        /// In the statement.
        after: &'static str,
        /// The policy's `trust`.
        ceiling: &'static str,
    },
    /// Made for another host.
    #[error("the statement is for host {found}, but this one is {own}")]
    Host {
        /// In the statement.
        found: String,
        /// Here.
        own: String,
    },
    /// Made in what is the future here.
    #[error("the statement was made at {}, which is still to come", stamp(*.0))]
    Early(i64),
    /// There is no such agent.
    #[error("there is no agent {0}")]
    UnknownAgent(String),
}

impl DecisionError {
    fn remedy(&self) -> (Exit, &'static str) {
        match self {
            Self::Statement(_) => (
                Exit::Usage,
                "let enforcer approvals show --request, or enforcer trust set --request, write the statement",
            ),
            Self::Armor(_) | Self::Namespace { .. } => (
                Exit::NotApproved,
                "sign with: ssh-keygen -Y sign -n NAMESPACE -f KEY STATEMENT, where the namespace is \
                 enforcer-approval, and enforcer-trust for a level of trust",
            ),
            Self::UnknownKey(_) => (Exit::NotApproved, "name the key in a file of the approvers' directory"),
            Self::Signature(_) | Self::OtherApprover { .. } => {
                (Exit::NotApproved, "sign exactly the text that is submitted, with your own key")
            }
            Self::Untouched(_) => (Exit::NotApproved, "sign with a key that asks to be touched"),
            Self::NoOperator | Self::TwoPersons => {
                (Exit::NotApproved, "let approvers sign: --key, or submit")
            }
            Self::NotRoot => (Exit::Permission, "sign with --key, or run this as root"),
            Self::Expired(_) => (Exit::NotApproved, "write and sign the statement again"),
            Self::UnknownRequest(_) | Self::Decided(_) | Self::Late { .. } => {
                (Exit::NotApproved, "enforcer approvals list shows what waits now")
            }
            Self::Scope { .. } => (Exit::NotApproved, "ask an approver whose scopes include it"),
            Self::Shape { .. } => (Exit::NotApproved, "see the table of tiers in docs/approvals.md"),
            Self::SamePerson(_) => (Exit::NotApproved, "ask a second person"),
            Self::OtherShape { .. } => (Exit::NotApproved, "approve in the same shape, or deny"),
            Self::Unrecorded(_) => {
                (Exit::CannotWrite, "see enforcer status about the audit log, and decide again")
            }
            Self::Kernel(_) => (Exit::Kernel, "see enforcer status, and decide again"),
            Self::Order { .. } => (
                Exit::NotApproved,
                "it was submitted before, or another one came first: write and sign it again",
            ),
            Self::TrustScope { .. } => {
                (Exit::NotApproved, "ask an approver one of whose scopes has this agent and trust = true")
            }
            Self::Ceiling { .. } => (
                Exit::NotApproved,
                "the policy's `trust` is the most that can be stated: change the policy first",
            ),
            Self::Host { .. } => (Exit::NotApproved, "write the statement on the host that it is for"),
            Self::Early(_) => (Exit::NotApproved, "compare the clocks of the two hosts"),
            Self::UnknownAgent(_) => (Exit::Usage, "enforcer agents lists those that have a policy"),
        }
    }
}

impl From<DecisionError> for Failure {
    fn from(error: DecisionError) -> Self {
        let (exit, remedy) = error.remedy();
        Failure::new(exit, error.to_string(), remedy)
    }
}
