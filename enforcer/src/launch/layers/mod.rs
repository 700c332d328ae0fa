//! The layers that `enforcer exec` puts around a session beside the kernel programs, so that a fault in these is not
//! a way out: `no_new_privs`, a seccomp filter and a Landlock ruleset, made of the session's policy.
//!
//! [`plan`] decides and is pure; the launch helper puts on what it says, or fails. None of them can be widened while
//! the session runs.

pub mod apply;
pub mod calls;
pub mod filter;
pub mod host;
pub mod places;
pub mod scope;

use self::{calls::Calls, host::Host, scope::Scope};
use crate::{
    control::message::LayerStatus,
    event::text::hex,
    policy::{Landlock, LayerChoice, Mode, Seccomp, ValidPolicy},
    settings,
};
use serde::{Deserialize, Serialize};
use sha2::{Digest, Sha256};

/// What the launch helper puts on.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Layers {
    /// Set-user-id programs and file capabilities give nothing.
    pub no_new_privileges: bool,
    /// What the filter refuses.
    pub seccomp: Option<Calls>,
    /// What the ruleset is made of.
    pub landlock: Option<Scope>,
}

impl Layers {
    /// A word for all that a session can never get more of: another one says that it may have to start again.
    pub fn digest(&self) -> String {
        let text = serde_json::to_vec(self).unwrap_or_default();
        hex(&<[u8; 32]>::from(Sha256::digest(text)))
    }
}

/// What a session gets, and how that is said to people.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Plan {
    /// For the helper.
    pub layers: Layers,
    /// For records and status: each layer, with the reason where it is less than was asked for.
    pub status: Vec<LayerStatus>,
}

/// Why a session cannot have what its policy demands.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("the policy demands Landlock for its sessions, and {0}")]
pub struct Missing(&'static str);

const NO_LANDLOCK: &str = "this kernel has none, or one without renames (5.19)";
const AUDITS: &str = "the policy only audits: Landlock would refuse";
const NOT_ASKED: &str = "none is asked for";
const UNKNOWN_ORDER: &str =
    "/sys/kernel/security/lsm does not say in which order the kernel asks bpf and landlock";
const ASKED_FIRST: &str = "this kernel asks landlock before bpf, so what it refuses would leave no record: put bpf \
                           before landlock in lsm=, or let the policy demand it (launch.landlock)";

/// The layers of a session of this policy that runs as user `uid`.
pub fn plan(
    policy: &ValidPolicy,
    settings: &settings::Launch,
    uid: u32,
    host: &Host,
) -> Result<Plan, Missing> {
    let own = policy.launch().map(|launch| launch.layers()).unwrap_or_default();
    let chosen = choose(own, policy.mode(), settings, host)?;
    let landlock = match chosen.landlock {
        Landlock::None => None,
        Landlock::Changes => Some(scope::scope(policy, false)),
        Landlock::All => Some(scope::scope(policy, true)),
    };
    let powerless = uid != 0 && chosen.no_new_privileges;
    let seccomp = calls::refused(chosen.seccomp, policy.grants(), powerless);
    let layers = Layers { no_new_privileges: chosen.no_new_privileges, seccomp, landlock };
    Ok(Plan { layers, status: chosen.status() })
}

/// The layers of sessions whose policies say nothing about them.
pub fn usual(settings: &settings::Launch, host: &Host) -> Vec<LayerStatus> {
    let chosen = choose(LayerChoice::default(), Mode::Enforce, settings, host);
    chosen.map(|chosen| chosen.status()).unwrap_or_default()
}

/// What a session gets.
struct Chosen {
    no_new_privileges: bool,
    seccomp: Seccomp,
    landlock: Landlock,
    /// Why there is no ruleset.
    without: Option<&'static str>,
}

fn choose(own: LayerChoice, mode: Mode, settings: &settings::Launch, host: &Host) -> Result<Chosen, Missing> {
    let LayerChoice { no_new_privileges, seccomp, landlock } = own;
    let wanted = landlock.unwrap_or(settings.landlock);
    let demanded = landlock.is_some();
    let (landlock, without) = match (wanted, mode) {
        (Landlock::None, _) => (Landlock::None, Some(NOT_ASKED)),
        (_, Mode::Audit) => (Landlock::None, Some(AUDITS)),
        (_, Mode::Enforce) => match host.without_landlock(demanded) {
            Some(why) if demanded => return Err(Missing(why)),
            Some(why) => (Landlock::None, Some(why)),
            None => (wanted, None),
        },
    };
    Ok(Chosen {
        no_new_privileges: no_new_privileges.unwrap_or(settings.no_new_privileges),
        seccomp: seccomp.unwrap_or(settings.seccomp),
        landlock,
        without,
    })
}

impl Chosen {
    /// The same for people.
    fn status(&self) -> Vec<LayerStatus> {
        let layer = |name: &str, state: &str, because: Option<&str>| LayerStatus {
            name: name.to_owned(),
            state: state.to_owned(),
            because: because.map(str::to_owned),
        };
        let (set, unset) = if self.no_new_privileges { ("set", None) } else { ("none", Some(NOT_ASKED)) };
        let unfiltered = (self.seccomp == Seccomp::None).then_some(NOT_ASKED);
        vec![
            layer("no-new-privileges", set, unset),
            layer("seccomp", self.seccomp.name(), unfiltered),
            layer("landlock", self.landlock.name(), self.without),
        ]
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::policy::parse;

    fn policy(more: &str) -> ValidPolicy {
        let text = format!(
            "apiVersion: enforcer/v1\nkind: AgentPolicy\n\
             metadata: {{ id: a, version: 1, owner: a@b.c, purpose: Test }}\n\
             files:\n- {{ allow: [write], paths: ['/w/**'] }}\n{more}"
        );
        parse("p", &text).unwrap_or_else(|e| panic!("{e}"))
    }

    fn host(version: u32, order: &str) -> Host {
        Host { landlock: Some(version), lsms: order.split(',').map(str::to_owned).collect() }
    }

    fn planned(more: &str, host: &Host) -> Plan {
        plan(&policy(more), &settings::Launch::default(), 1000, host).expect("a plan")
    }

    fn said(plan: &Plan) -> Vec<(&str, &str)> {
        plan.status.iter().map(|layer| (layer.name.as_str(), layer.state.as_str())).collect()
    }

    #[test]
    fn a_session_has_three_layers_where_the_kernel_asks_bpf_first() {
        let plan = planned("", &host(6, "capability,bpf,landlock"));
        let all = [("no-new-privileges", "set"), ("seccomp", "unrecorded"), ("landlock", "changes")];
        assert_eq!(said(&plan), all);
        assert!(plan.status.iter().all(|layer| layer.because.is_none()));
        assert!(plan.layers.no_new_privileges && plan.layers.seccomp.is_some());
        assert!(plan.layers.landlock.is_some_and(|scope| !scope.reading));
    }

    #[test]
    fn landlock_before_bpf_takes_no_evidence_away_unless_a_policy_demands_it() {
        let first = host(6, "capability,landlock,lockdown,bpf");
        let plan = planned("", &first);
        assert_eq!(plan.layers.landlock, None);
        assert!(plan.status[2].because.as_deref().is_some_and(|why| why.contains("before bpf")));
        let plan = planned("launch: { landlock: all }\n", &first);
        assert!(plan.layers.landlock.is_some_and(|scope| scope.reading));
    }

    #[test]
    fn what_a_policy_demands_and_the_kernel_lacks_is_an_error() {
        for missing in [Host { landlock: None, lsms: vec!["bpf".to_owned()] }, host(1, "bpf,landlock")] {
            assert_eq!(planned("", &missing).layers.landlock, None);
            let demanding = policy("launch: { landlock: changes }\n");
            assert!(plan(&demanding, &settings::Launch::default(), 0, &missing).is_err());
        }
    }

    #[test]
    fn in_audit_mode_nothing_that_rules_decide_is_refused() {
        let plan = planned("mode: audit\nlaunch: { landlock: all }\n", &host(6, "bpf,landlock"));
        assert_eq!(plan.layers.landlock, None);
        assert_eq!(said(&plan)[2], ("landlock", "none"));
        assert!(plan.layers.seccomp.is_some(), "the floor holds in audit mode too");
    }

    #[test]
    fn a_policys_word_comes_before_the_settings() {
        let none = "launch: { no_new_privileges: false, seccomp: none, landlock: none }\n";
        let plan = planned(none, &host(6, "bpf,landlock"));
        assert_eq!(plan.layers, Layers::default());
        assert!(plan.status.iter().all(|layer| layer.state == "none" && layer.because.is_some()));
        let root =
            super::plan(&policy(""), &settings::Launch::default(), 0, &host(6, "bpf")).expect("a plan");
        assert_ne!(root.layers.seccomp, planned("", &host(6, "bpf")).layers.seccomp);
    }

    #[test]
    fn another_scope_has_another_digest() {
        let host = host(6, "bpf,landlock");
        let digest = |more: &str| planned(more, &host).layers.digest();
        assert_eq!(digest(""), digest("trust: supervised\n"));
        assert_ne!(digest(""), digest("exec: [ { allow: ['/usr/bin/git'] } ]\n"));
    }
}
