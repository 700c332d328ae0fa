//! The first use of rules that let programs run. Pure. What other rules allow leaves no record, so nothing can be told
//! of them here.

use super::{names::describe, policies::Loaded};
use crate::policy::{RuleId, reference};
use enforcer_common::access::file::EXEC;
use std::collections::HashSet;

/// Programs of policies that were looked up; beyond that all are looked up again.
const MOST: usize = 16_384;

/// What was used.
#[derive(Debug, Default)]
pub(super) struct FirstUses {
    rules: HashSet<([u8; 32], RuleId)>,
    programs: HashSet<([u8; 32], Vec<u8>)>,
}

impl FirstUses {
    /// The rules that let this program run, if they have not been used before: each as records name it.
    pub(super) fn note(&mut self, loaded: &Loaded, exe: &[u8]) -> Vec<String> {
        let digest = loaded.policy.digest();
        if exe.is_empty() || !self.programs.insert((digest, exe.to_vec())) {
            return Vec::new();
        }
        if self.programs.len() > MOST {
            self.programs.clear();
        }
        let path = exe.strip_prefix(b"/").unwrap_or(exe);
        let mut out = Vec::new();
        for id in reference::rules_among(&loaded.policy, loaded.image.rules_near(path), path) {
            let Some(rule) = loaded.policy.rule(id) else { continue };
            let lets = rule.operations() & EXEC != 0 && rule.effect().name() != "deny";
            if lets && self.rules.insert((digest, id)) {
                out.push(format!("{} {id} at {}", describe(rule), rule.origin()));
            }
        }
        out
    }
}
