//! What no draft allows, whatever the records say.

use super::{Evidence, Object};
use crate::policy::{
    glob::Glob,
    profile::parse_profile,
    profiles, reference,
    rule::{Effect, Section, Trust, trust_tiers},
    valid::ValidPolicy,
};
use enforcer_common::{access::file, verdict::Verdict};
use std::collections::BTreeMap;

/// The profile that denies secrets.
pub(super) const SECRETS: &str = "coding-agent@1";

/// Names of secrets that the profiles do not deny, since somebody may have to read them.
const SUSPICIOUS: [&str; 6] = [
    "**/*{secret,passw,credential,token,apikey,api_key,private_key}*/**",
    "**/{.env*,.netrc*,.pgpass*,.*_history}",
    "**/.{ssh,aws,gnupg,kube,docker,azure,password-store,mozilla,thunderbird}/**",
    "**/.config/{gcloud,gh,hub,op,chromium,google-chrome}/**",
    "/proc/**/{environ,mem,auxv,stack,syscall}",
    "/{etc/ssh,etc/sudoers.d,etc/ssl/private,var/lib/enforcer,etc/enforcer,run/secrets,run/credentials}/**",
];
/// Whose contents belong to people.
const HOMES: [&str; 2] = ["/{root,home}/**", "/run/user/**"];
/// What the host runs on: an agent that may change it is not confined.
const SYSTEM: [&str; 1] = [
    "/{etc,usr,bin,sbin,lib,lib32,lib64,libx32,boot,proc,sys,dev,efi,run/systemd,var/lib/enforcer,var/spool/cron}/**",
];
/// Where anybody may write.
const ANYBODY: [&str; 1] = ["/{tmp,var/tmp,dev/shm,run/user,run/lock}/**"];

const CHANGE: u16 =
    file::WRITE | file::CREATE | file::DELETE | file::RENAME | file::LINK | file::TRUNCATE | file::METADATA;
/// By which other content can come to a name.
const REPLACE: u16 = file::WRITE | file::CREATE | file::RENAME | file::LINK;
const RUN: u16 = file::EXEC | file::LOAD;

/// Lists of globs, read once.
pub(super) struct Guards {
    secrets: Vec<Glob>,
    homes: Vec<Glob>,
    system: Vec<Glob>,
    anybody: Vec<Glob>,
}

impl Guards {
    pub(super) fn new() -> Self {
        let read = |texts: &[&str]| texts.iter().filter_map(|text| Glob::parse(text).ok()).collect();
        let mut secrets: Vec<Glob> = read(&SUSPICIOUS);
        for (name, text) in profiles() {
            let rules = parse_profile(&name, text).map(|profile| profile.rules).unwrap_or_default();
            let denied = rules.into_iter().filter(|rule| {
                rule.effect() == Effect::Deny
                    && rule.origin().section == Section::Files
                    && rule.operations() & file::READ != 0
            });
            secrets.extend(denied.flat_map(|rule| rule.globs().to_vec()));
        }
        Self { secrets, homes: read(&HOMES), system: read(&SYSTEM), anybody: read(&ANYBODY) }
    }

    /// Whether a path, or a directory with all that is below it, has to be named one by one.
    pub(super) fn is_private(&self, path: &[u8]) -> bool {
        hit(&self.secrets, path) || hit(&self.homes, path)
    }
}

fn hit(globs: &[Glob], path: &[u8]) -> bool {
    globs.iter().any(|glob| reference::matches(glob, path))
}

/// What may be proposed; the rest goes to `left_out`, operation by operation, with the reason.
pub(super) fn sift(
    seen: BTreeMap<Object, BTreeMap<u16, Evidence>>,
    base: Option<&ValidPolicy>,
    left_out: &mut BTreeMap<(String, &'static str), Evidence>,
) -> BTreeMap<Object, BTreeMap<u16, Evidence>> {
    let guards = Guards::new();
    let changed: Vec<&[u8]> = seen
        .iter()
        .filter(|(_, by)| by.keys().any(|operations| operations & REPLACE != 0))
        .filter_map(|(object, _)| match object {
            Object::Path(path) => Some(path.as_slice()),
            Object::Address(..) => None,
        })
        .collect();
    let refusal = |object: &Object, bit: u16| -> Option<&'static str> {
        let Object::Path(path) = object else { return None };
        if hit(&guards.secrets, path) {
            return Some("it looks like a secret");
        }
        if bit & CHANGE != 0 && hit(&guards.system, path) {
            return Some("the host runs on it");
        }
        if bit & CHANGE != 0 && base.is_some_and(|base| may(base, path, RUN)) {
            return Some("the agent may run it, and so must not change it");
        }
        if bit & RUN == 0 {
            return None;
        }
        let Some(base) = base else { return Some("whether the agent can write it is not known") };
        if hit(&guards.anybody, path) || hit(&guards.homes, path) {
            return Some("it is where agents can write");
        }
        let above = |other: &[u8]| path == other || path.starts_with(&[other, b"/"].concat());
        let writes =
            changed.iter().any(|other| above(other)) || names_up(path).any(|name| may(base, name, REPLACE));
        writes.then_some("the agent can write it, and so must not run it")
    };
    let mut kept: BTreeMap<Object, BTreeMap<u16, Evidence>> = BTreeMap::new();
    for (object, by) in &seen {
        for (operations, evidence) in by {
            let mut good = 0;
            for (bit, name) in file::NAMES.iter().filter(|(bit, _)| operations & bit != 0) {
                match refusal(object, *bit) {
                    Some(why) => {
                        left_out.entry((format!("{name} {object}"), why)).or_default().join(evidence);
                    }
                    None => good |= bit,
                }
            }
            if good != 0 {
                kept.entry(object.clone()).or_default().entry(good).or_default().join(evidence);
            }
        }
    }
    kept
}

/// A path and the directories above it.
fn names_up(path: &[u8]) -> impl Iterator<Item = &[u8]> {
    let cuts = (0..path.len()).rev().filter(|at| path[*at] == b'/').map(|at| &path[..at]);
    std::iter::once(path).chain(cuts)
}

/// Whether the policy allows, or may come to allow, one of these operations.
fn may(policy: &ValidPolicy, path: &[u8], operations: u16) -> bool {
    let folded =
        reference::folded(policy, path, &trust_tiers(policy.trust_in_force(Some(Trust::Autonomous))));
    file::NAMES.iter().filter(|(bit, _)| operations & bit != 0).any(|(bit, _)| match *bit {
        file::LOAD => folded.map_verdict() != Verdict::Deny,
        bit => folded.verdict(bit) != Verdict::Deny,
    })
}
