//! Why a policy answers as it does.

use super::{
    check::socket_path,
    condition::Run,
    endpoint::{Endpoint, TCP, UDP},
    reference,
    rule::{Effect, Rule, RuleId, Tier, Trust, operation_names, trust_tiers},
    valid::ValidPolicy,
    validate::{path_bytes, word},
};
use enforcer_common::{
    access::{self, file, net},
    map::TierMap,
    verdict::Verdict,
};
use serde::Serialize;
use std::fmt;

/// A verdict with its reasons.
#[derive(Clone, Debug, Serialize)]
pub struct Explanation {
    /// Operation that was asked about.
    pub operation: String,
    /// Path or address.
    pub object: String,
    /// Level of trust that was assumed.
    pub trust: &'static str,
    /// `allow`, `hold` or `deny`.
    pub verdict: &'static str,
    /// Every rule about the object, whatever its operations.
    pub matched: Vec<ExplainedRule>,
    /// Why the verdict is what it is.
    pub reason: String,
}

/// A rule as shown to people.
#[derive(Clone, Debug, Serialize)]
pub struct ExplainedRule {
    /// Number.
    pub id: RuleId,
    /// Place.
    pub origin: String,
    /// The verdict that the rule names.
    pub effect: Effect,
    /// Its tier.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub tier: Option<Tier>,
    /// Its operations.
    pub operations: Vec<&'static str>,
    /// The arguments that it is about.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub arguments: Option<String>,
    /// SHA-256 of the program's file.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub sha256: Vec<String>,
    /// The programs that execute it.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub parent: Vec<String>,
    /// All of these in words.
    #[serde(skip)]
    condition: String,
    /// Its reason.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub because: Option<String>,
    /// Whether it decides the verdict.
    pub decides: bool,
}

/// Why a question cannot be answered.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum ExplainError {
    /// No such operation.
    #[error("`{0}` is not an operation: write one of {1}")]
    Operation(String, String),
    /// Not an absolute, resolved path.
    #[error("`{path}`: {reason}; write the resolved absolute path")]
    Path {
        /// What was given.
        path: String,
        /// What is wrong.
        reason: String,
    },
    /// Arguments of what is no program.
    #[error("`{0}` takes no arguments, content or parent: they are about `exec`")]
    Arguments(String),
    /// Not one address.
    #[error("`{0}` is not one address: write ADDRESS:PORT/PROTOCOL, as in 10.0.0.1:443/tcp")]
    Address(String),
}

/// Answers a question about a path or an address, at the policy's own level of trust or a lower one.
pub fn explain(
    policy: &ValidPolicy,
    operation: &str,
    object: &str,
    trust: Option<Trust>,
) -> Result<Explanation, ExplainError> {
    explain_with(policy, operation, object, &Run::default(), trust, &trust_tiers)
}

/// As [`explain`], where levels of trust mean what `tiers_of` says, for one run of a program.
pub fn explain_with(
    policy: &ValidPolicy,
    operation: &str,
    object: &str,
    run: &Run<'_>,
    trust: Option<Trust>,
    tiers_of: &dyn Fn(Trust) -> TierMap,
) -> Result<Explanation, ExplainError> {
    let trust = trust.unwrap_or(policy.trust()).min(policy.trust());
    let tiers = tiers_of(trust);
    let Run { arguments, content, parent } = run;
    if (!arguments.is_empty() || content.is_some() || parent.is_some()) && operation != "exec" {
        return Err(ExplainError::Arguments(operation.to_owned()));
    }
    let socket = object.strip_prefix("unix:").filter(|_| operation == "connect");
    if let (Some(want), None) = (access::named(&net::NAMES, operation), socket) {
        let endpoint = Endpoint::parse(object, want == net::BIND).ok().and_then(|endpoint| endpoint.single());
        let (address, port, protocol) = endpoint.ok_or_else(|| ExplainError::Address(object.to_owned()))?;
        debug_assert!(matches!(protocol, TCP | UDP));
        let matching = reference::rules_at_address(policy, address, port, protocol);
        let (verdict, deciders) = reference::net_verdict(policy, address, port, protocol, want, &tiers);
        return Ok(explanation(policy, (operation, object), trust, verdict, &matching, &deciders));
    }
    let Some(want) = access::named(&file::NAMES, operation) else {
        let names: Vec<&str> = file::NAMES.iter().chain(&net::NAMES).map(|(_, name)| *name).collect();
        return Err(ExplainError::Operation(operation.to_owned(), names.join(", ")));
    };
    let path = match socket {
        Some(socket) => socket_path(socket).map_err(|(reason, _)| reason),
        None => path_bytes(object),
    };
    let path = path.map_err(|reason| ExplainError::Path { path: object.to_owned(), reason })?;
    let matching = reference::rules_at_path(policy, &path);
    let (verdict, deciders) = match want {
        file::LOAD => reference::map_verdict(policy, &path, &tiers),
        file::EXEC => reference::run_verdict(policy, &path, run, &tiers),
        file::WRITE => reference::file_verdict(policy, &path, want | file::TRUNCATE, &tiers),
        _ => reference::file_verdict(policy, &path, want, &tiers),
    };
    let mut out = explanation(policy, (operation, object), trust, verdict, &matching, &deciders);
    let untold = |id: &RuleId| policy.rule(*id).is_some_and(|rule| rule.condition().is_met(run).is_none());
    if want == file::EXEC && verdict == Verdict::Deny && deciders.iter().any(untold) {
        out.reason += "; what it says of the program's content or parent cannot be told here: say which \
                       (--sha256, --parent)";
    }
    Ok(out)
}

fn explanation(
    policy: &ValidPolicy,
    (operation, object): (&str, &str),
    trust: Trust,
    verdict: Verdict,
    matching: &[RuleId],
    deciders: &[RuleId],
) -> Explanation {
    let shown = |id: &RuleId| policy.rule(*id).map(|rule| explained(*id, rule, deciders.contains(id)));
    let first = deciders.first().and_then(|id| policy.rule(*id));
    let reason = match (first, verdict) {
        (None, _) if matching.is_empty() => "no rule names it, and what no rule allows is denied".to_owned(),
        (None, _) => format!("no rule allows {operation} here, and what no rule allows is denied"),
        (Some(rule), _) => {
            let because = rule.because().map(|because| format!(": {because}")).unwrap_or_default();
            let tier = match rule.tier() {
                Some(tier) if rule.effect().name() != word(verdict) => format!(
                    ", whose tier {} means {} at trust {}",
                    format!("{tier:?}").to_lowercase(),
                    word(verdict),
                    trust.name()
                ),
                _ => String::new(),
            };
            format!("decided by {}{tier}{because}", rule.origin())
        }
    };
    Explanation {
        operation: operation.to_owned(),
        object: object.to_owned(),
        trust: trust.name(),
        verdict: word(verdict),
        matched: matching.iter().filter_map(shown).collect(),
        reason,
    }
}

fn explained(id: RuleId, rule: &Rule, decides: bool) -> ExplainedRule {
    ExplainedRule {
        id,
        origin: rule.origin().to_string(),
        effect: rule.effect(),
        tier: rule.tier(),
        operations: operation_names(rule.origin().section, rule.operations()),
        arguments: rule.condition().arguments().map(ToString::to_string),
        sha256: rule.condition().content(),
        parent: rule.condition().parents().into_iter().map(str::to_owned).collect(),
        condition: rule.condition().to_string(),
        because: rule.because().map(str::to_owned),
        decides,
    }
}

impl fmt::Display for Explanation {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { operation, object, trust, verdict, matched, reason } = self;
        writeln!(f, "{operation} {object}: {verdict} (trust {trust})")?;
        writeln!(f, "  {reason}")?;
        for rule in matched {
            let mark = if rule.decides { '*' } else { ' ' };
            write!(f, "  {mark} {} {} [{}]", rule.origin, rule.effect.name(), rule.operations.join(", "))?;
            f.write_str(&rule.condition)?;
            match &rule.because {
                Some(because) => writeln!(f, ": {because}")?,
                None => writeln!(f)?,
            }
        }
        Ok(())
    }
}
