//! From facts to findings and one word: pure.

use super::{
    facts::{DaemonFact, Facts},
    layers,
};
use crate::{control::message::State, daemon::probe::Need};
use serde::Serialize;

/// Free bytes below which the audit log is about to stop.
const LITTLE_ROOM: u64 = 256 << 20;

/// How much something matters.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
#[serde(rename_all = "kebab-case")]
pub enum Level {
    /// As it must be.
    Good,
    /// Worth knowing; nothing to do now.
    Note,
    /// Could not be told.
    Unknown,
    /// Agents are confined all the same.
    Problem,
    /// Nothing can be, or is, enforced.
    Fatal,
}

/// Something that was looked at.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct Finding {
    /// What.
    pub check: &'static str,
    /// How much it matters.
    pub level: Level,
    /// How it is.
    pub says: String,
    /// How to mend it; empty where there is nothing to mend.
    #[serde(skip_serializing_if = "String::is_empty")]
    pub remedy: String,
}

/// Everything that was looked at.
#[derive(Clone, Debug, Serialize)]
pub struct Report {
    /// The word that `status` uses too.
    pub state: State,
    /// This host can enforce, whether or not it does.
    pub host_can_enforce: bool,
    /// What was looked at.
    pub findings: Vec<Finding>,
}

/// Judges. The state is the daemon's own where it answers, and never better than the findings.
pub fn judge(facts: &Facts) -> Report {
    let mut findings = host(facts);
    let host_can_enforce = !findings.iter().any(|finding| finding.level == Level::Fatal);
    findings.extend(layers::judge(&facts.layers, facts.family));
    findings.extend(installation(facts));
    findings.extend(enforcement(facts));
    findings.extend(files(facts));
    let worst = |level| findings.iter().any(|finding| finding.level == level);
    let state = match (&facts.daemon, &facts.links) {
        _ if worst(Level::Fatal) => State::NotEnforcing,
        (DaemonFact::Answers(status), _) if status.state != State::Enforcing => status.state,
        (DaemonFact::Answers(_), _) if !worst(Level::Problem) => State::Enforcing,
        (DaemonFact::Answers(_), _) => State::Degraded,
        // What is pinned decides without a daemon.
        (_, Ok(Some(1..))) => State::Degraded,
        _ => State::NotEnforcing,
    };
    Report { state, host_can_enforce, findings }
}

pub(super) fn finding(
    check: &'static str,
    level: Level,
    says: impl Into<String>,
    remedy: impl Into<String>,
) -> Finding {
    Finding { check, level, says: says.into(), remedy: remedy.into() }
}

fn host(facts: &Facts) -> Vec<Finding> {
    let mut found = Vec::new();
    for (need, problem) in &facts.needs {
        let (check, good) = match need {
            Need::Kernel => ("kernel", "new enough"),
            Need::Cgroups => ("cgroups", "cgroup v2, and nothing else"),
            Need::BpfLsm => ("lsm", "bpf is among the active LSMs"),
            Need::Lockdown => ("lockdown", "not locked down for confidentiality"),
            Need::Btf => ("btf", "the kernel describes its types"),
            Need::Bpffs => ("bpffs", "mounted"),
        };
        found.push(match problem {
            None => finding(check, Level::Good, good, ""),
            Some(what) => finding(check, Level::Fatal, what, facts.family.mend(*need, facts.lsms.as_deref())),
        });
    }
    found.push(match facts.jit.as_deref() {
        Some("1" | "2") => finding("jit", Level::Good, "BPF programs are compiled", ""),
        Some("0") => finding(
            "jit",
            Level::Fatal,
            "BPF programs are interpreted: LSM programs need the JIT",
            "sysctl -w net.core.bpf_jit_enable=1, and write it to /etc/sysctl.d/",
        ),
        _ => finding("jit", Level::Unknown, "cannot tell whether BPF programs are compiled", "ask as root"),
    });
    found
}

fn installation(facts: &Facts) -> Vec<Finding> {
    let systemd = if facts.systemd {
        finding("systemd", Level::Good, "runs this host", "")
    } else {
        let remedy = "run enforcer daemon under a supervisor of your own, before anything else in its roots";
        finding("systemd", Level::Note, "does not run this host", remedy)
    };
    let unit = match facts.unit.as_deref() {
        _ if !facts.systemd => None,
        Some("enabled") => Some(finding("unit", Level::Good, "enforcer.service starts at boot", "")),
        Some("") | None => Some(finding(
            "unit",
            Level::Note,
            "enforcer.service is not installed",
            "install the package, see docs/install.md",
        )),
        Some(state) => Some(finding(
            "unit",
            Level::Problem,
            format!("enforcer.service is {state}: after a reboot nothing would be enforced"),
            "systemctl enable enforcer.service",
        )),
    };
    [Some(systemd), unit].into_iter().flatten().collect()
}

fn enforcement(facts: &Facts) -> Vec<Finding> {
    let mut found = vec![match &facts.links {
        Ok(Some(count @ 1..)) => finding("pins", Level::Good, format!("{count} programs are pinned"), ""),
        Ok(_) => finding("pins", Level::Fatal, "no program is attached", "systemctl start enforcer.service"),
        Err(why) => finding("pins", Level::Unknown, format!("cannot look at the pins: {why}"), "ask as root"),
    }];
    // A daemon says so itself.
    if !facts.missing.is_empty() && matches!(facts.daemon, DaemonFact::Silent(_)) && facts.links.is_ok() {
        let says = format!("nobody decides what these programs did: {}", facts.missing.join(", "));
        found.push(finding("pins", Level::Fatal, says, "systemctl start enforcer.service"));
    }
    match &facts.daemon {
        DaemonFact::Silent(why) => {
            let says = match &facts.links {
                Ok(Some(1..)) => {
                    format!("{why}; what is pinned goes on deciding, and nothing new can be started")
                }
                _ => why.clone(),
            };
            let remedy = "systemctl start enforcer.service; journalctl -u enforcer says why it ended";
            found.push(finding("daemon", Level::Problem, says, remedy));
        }
        DaemonFact::Forbidden => {
            let remedy = "ask as root, or as a member of the group enforcer";
            found.push(finding("daemon", Level::Unknown, "may not be asked by this user", remedy));
        }
        DaemonFact::Answers(status) => {
            let level = match status.state {
                State::Enforcing => Level::Good,
                State::Degraded => Level::Problem,
                State::NotEnforcing => Level::Fatal,
            };
            let says = format!("process {} says: {}", status.pid, status.state.word());
            let remedy =
                if level == Level::Good { "" } else { "see the problems below, and enforcer status" };
            found.push(finding("daemon", level, says, remedy));
            found.extend(status.problems.iter().map(|problem| {
                finding("daemon", if level == Level::Good { Level::Note } else { level }, problem, "")
            }));
            found.push(match &status.canary {
                Some(time) => finding("canary", Level::Good, format!("refused at {time}"), ""),
                None => {
                    finding("canary", Level::Fatal, "nobody has seen a refusal", "journalctl -u enforcer")
                }
            });
        }
    }
    found
}

fn files(facts: &Facts) -> Vec<Finding> {
    let mut found = vec![match &facts.settings {
        None => finding("settings", Level::Good, "valid, or the defaults", ""),
        Some(why) => {
            finding("settings", Level::Problem, why, "mend the file: docs/settings.md has every key")
        }
    }];
    match &facts.policies {
        Err(why) => found.push(finding("policies", Level::Unknown, why, "ask as root")),
        Ok(files) => {
            let bad = files.iter().filter_map(|(path, problem)| problem.as_ref().map(|p| (path, p)));
            for (path, problem) in bad.clone() {
                let first = problem.lines().next().unwrap_or_default();
                let says = if first.contains(&*path.to_string_lossy()) {
                    first.to_owned()
                } else {
                    format!("{}: {first}", path.display())
                };
                let remedy = format!("enforcer policy check {}", path.display());
                found.push(finding("policies", Level::Problem, says, remedy));
            }
            if bad.count() == 0 {
                found.push(finding("policies", Level::Good, format!("{} files, all valid", files.len()), ""));
            }
        }
    }
    found.push(match &facts.key {
        Err(why) => finding("audit key", Level::Unknown, why, "ask as root"),
        Ok(None) => finding("audit key", Level::Note, "none yet: the first start makes it", ""),
        Ok(Some(key)) if key.uid == 0 && key.mode & 0o077 == 0 => {
            finding("audit key", Level::Good, "only root can read it", "")
        }
        Ok(Some(key)) => finding(
            "audit key",
            Level::Problem,
            format!(
                "{} belongs to user {} with mode {:04o}: others may sign",
                key.path.display(),
                key.uid,
                key.mode
            ),
            format!("chown root {0} && chmod 0600 {0}, then enforcer audit rotate-key", key.path.display()),
        ),
    });
    found.push(match facts.disk {
        None => finding("disk", Level::Unknown, "cannot tell how much room there is", "ask as root"),
        Some((free, _)) if free < LITTLE_ROOM => finding(
            "disk",
            Level::Problem,
            format!("{} MB are left for the audit log", free >> 20),
            "make room on the file system of the state directory",
        ),
        Some((free, _)) => finding("disk", Level::Good, format!("{} MB are free", free >> 20), ""),
    });
    found
}

#[cfg(test)]
#[path = "tests.rs"]
mod tests;
