//! What a policy says about its agent beside the rules.

use super::{
    glob::Glob,
    rule::{Mode, OnTighten, Trust},
    valid::{ValidPolicy, Warning},
};

/// All of a policy but its rules, tests and tables: small, so that there can be one for each of many agents.
#[derive(Clone, Debug)]
pub struct Head {
    id: String,
    version: u64,
    owner: String,
    purpose: String,
    expires: Option<i64>,
    cgroups: Vec<Glob>,
    trust: Trust,
    mode: Mode,
    on_tighten: OnTighten,
    warnings: Vec<Warning>,
    digest: [u8; 32],
}

impl Head {
    /// The head of a policy.
    pub fn of(policy: &ValidPolicy) -> Self {
        Self {
            id: policy.id().to_owned(),
            version: policy.version(),
            owner: policy.owner().to_owned(),
            purpose: policy.purpose().to_owned(),
            expires: policy.expires_unix(),
            cgroups: policy.cgroups().to_vec(),
            trust: policy.trust(),
            mode: policy.mode(),
            on_tighten: policy.on_tighten(),
            warnings: policy.warnings().to_vec(),
            digest: policy.digest(),
        }
    }

    /// As [`ValidPolicy::id`].
    pub fn id(&self) -> &str {
        &self.id
    }

    /// As [`ValidPolicy::version`].
    pub fn version(&self) -> u64 {
        self.version
    }

    /// As [`ValidPolicy::owner`].
    pub fn owner(&self) -> &str {
        &self.owner
    }

    /// As [`ValidPolicy::purpose`].
    pub fn purpose(&self) -> &str {
        &self.purpose
    }

    /// As [`ValidPolicy::expires_unix`].
    pub fn expires_unix(&self) -> Option<i64> {
        self.expires
    }

    /// As [`ValidPolicy::cgroups`].
    pub fn cgroups(&self) -> &[Glob] {
        &self.cgroups
    }

    /// As [`ValidPolicy::trust`].
    pub fn trust(&self) -> Trust {
        self.trust
    }

    /// As [`ValidPolicy::mode`].
    pub fn mode(&self) -> Mode {
        self.mode
    }

    /// As [`ValidPolicy::on_tighten`].
    pub fn on_tighten(&self) -> OnTighten {
        self.on_tighten
    }

    /// As [`ValidPolicy::warnings`].
    pub fn warnings(&self) -> &[Warning] {
        &self.warnings
    }

    /// As [`ValidPolicy::digest`].
    pub fn digest(&self) -> [u8; 32] {
        self.digest
    }
}
