//! Whether agents are confined, in one word: pure.

use super::enforcement::Health;
use crate::{
    control::{
        break_glass::BreakGlassStatus,
        message::{FileStatus, Lost, State},
    },
    sink::SinkStatus,
};
use std::collections::BTreeMap;

/// Records that a sink may have before it without that being worth a word.
const BEHIND: u64 = 10_000;

/// What is known.
#[derive(Clone, Debug, Default)]
pub struct Facts<'a> {
    /// What the kernel side says.
    pub health: Health,
    /// Why there is no fresh proof that a process without rights is refused.
    pub no_proof: Option<&'a str>,
    /// Why the matcher in force is not the one that the policies ask for.
    pub matcher: Option<&'a str>,
    /// The policy files.
    pub files: &'a [FileStatus],
    /// Agents whose policy has expired.
    pub expired: &'a [String],
    /// Agents with files whose further names may not all be known, and why.
    pub links: Option<&'a BTreeMap<String, String>>,
    /// What sessions hold open that their policy refuses by now.
    pub left_open: &'a [String],
    /// What could not be recorded.
    pub lost: Lost,
    /// Why the audit log cannot be written.
    pub audit: Option<&'a str>,
    /// What delivers records elsewhere.
    pub sinks: &'a [SinkStatus],
    /// What was stated about agents' trust and cannot be read.
    pub trust: &'a [String],
    /// Where what policies refuse is only recorded.
    pub break_glass: &'a [BreakGlassStatus],
}

/// The state, and everything that needs attention.
pub fn judge(facts: &Facts<'_>) -> (State, Vec<String>) {
    let mut fatal = Vec::new();
    let mut minor = Vec::new();
    if let Some(why) = facts.no_proof {
        fatal.push(why.to_owned());
    }
    for hook in facts.health.hooks.iter().filter(|h| !h.attached) {
        let note = if hook.note.is_empty() { String::new() } else { format!(": {}", hook.note) };
        if hook.required {
            fatal.push(format!("required hook {} is not attached{note}", hook.name));
        } else {
            minor.push(format!("optional hook {} is not attached{note}", hook.name));
        }
    }
    if facts.health.hooks.is_empty() {
        fatal.push("no hook is attached".to_owned());
    }
    for pin in &facts.health.pins_gone {
        minor.push(format!(
            "the pin of {pin} is gone: agents stay confined, but the next daemon will not be able to take over"
        ));
    }
    for (program, count) in &facts.health.missed {
        minor.push(format!(
            "the kernel left out program {program} {count} times because it was running on that CPU already"
        ));
    }
    if let Some(why) = facts.matcher {
        minor.push(format!("the cgroups of the agents could not be published: {why}"));
    }
    for file in facts.files {
        if let Some(error) = &file.error {
            minor.push(format!("policy {}: {}", file.path, error.lines().next().unwrap_or_default()));
        }
    }
    for agent in facts.expired {
        minor.push(format!("the policy of {agent} has expired"));
    }
    for (agent, why) in facts.links.into_iter().flatten() {
        minor.push(format!("hard links of what the policy of {agent} denies may be unknown: {why}"));
    }
    // Rings fill up for a moment; what they could not take is counted.
    let tables = facts.health.usage.iter().filter(|table| !table.name.ends_with(" ring"));
    for table in tables.filter(|t| t.room > 0 && t.used.saturating_mul(5) >= t.room * 4) {
        minor.push(format!("table {} is {} % full", table.name, table.used.saturating_mul(100) / table.room));
    }
    minor.extend(facts.left_open.iter().cloned());
    if let Some(why) = facts.audit {
        minor.push(format!("the audit log cannot be written: {why}"));
    }
    minor.extend(facts.trust.iter().cloned());
    for one in facts.break_glass {
        let agents = one.agents.join(" ");
        let what = "what their policies refuse is only recorded";
        minor.push(format!("BREAK-GLASS until {} for {agents}: {what}", one.until));
    }
    for sink in facts.sinks {
        if let Some(error) = &sink.error {
            minor.push(format!("sink {}: {error}; {} records wait", sink.name, sink.lag));
        } else if sink.lag >= BEHIND {
            minor.push(format!("sink {} is behind: {} records wait", sink.name, sink.lag));
        }
    }
    let Lost { decisions, activity, malformed, unwritten } = facts.lost;
    for (count, what) in [
        (decisions, "decisions were lost: the kernel's ring was full"),
        (activity, "activity records were lost: the kernel's ring was full"),
        (malformed, "ring records made no sense"),
        (unwritten, "records could not be written to the audit log"),
    ] {
        if count > 0 {
            minor.push(format!("{count} {what}"));
        }
    }
    let state = match (fatal.is_empty(), minor.is_empty()) {
        (false, _) => State::NotEnforcing,
        (true, false) => State::Degraded,
        (true, true) => State::Enforcing,
    };
    fatal.append(&mut minor);
    (state, fatal)
}

#[cfg(test)]
mod tests {
    use super::super::enforcement::{Hook, Usage};
    use super::*;

    fn hook(name: &str, required: bool, attached: bool) -> Hook {
        Hook { name: name.to_owned(), required, attached, note: String::new() }
    }

    fn healthy() -> Facts<'static> {
        let hooks = vec![hook("file_open", true, true)];
        let health = Health { generation: 1, hooks, ..Health::default() };
        Facts { health, ..Facts::default() }
    }

    #[test]
    fn everything_in_place_is_enforcing() {
        assert_eq!(judge(&healthy()), (State::Enforcing, vec![]));
    }

    #[test]
    fn a_missing_required_hook_or_proof_is_not_enforcing() {
        let mut facts = healthy();
        facts.health.hooks.push(hook("bprm_check_security", true, false));
        assert_eq!(judge(&facts).0, State::NotEnforcing);
        assert_eq!(judge(&Facts { no_proof: Some("no canary"), ..healthy() }).0, State::NotEnforcing);
        assert_eq!(judge(&Facts::default()).0, State::NotEnforcing);
    }

    #[test]
    fn what_is_not_essential_degrades_and_is_named() {
        let mut facts = healthy();
        facts.health.hooks.push(hook("uring_allowed", false, false));
        facts.health.usage.push(Usage { name: "sessions".to_owned(), used: 80, room: 100 });
        facts.lost.decisions = 3;
        let files = [FileStatus {
            path: "a.yaml".to_owned(),
            agent: None,
            error: Some("3:1: unknown key\nmore".to_owned()),
            warnings: vec![],
        }];
        facts.files = &files;
        let (state, problems) = judge(&facts);
        assert_eq!(state, State::Degraded);
        assert_eq!(problems.len(), 4, "{problems:?}");
        assert!(problems[1].contains("a.yaml: 3:1: unknown key"));
    }

    #[test]
    fn pins_that_are_gone_and_programs_that_are_left_out_degrade_and_are_named() {
        let mut facts = healthy();
        facts.health.pins_gone.push("GATE".to_owned());
        facts.health.missed.insert("mnt_want_write".to_owned(), 2);
        let (state, problems) = judge(&facts);
        assert_eq!((state, problems.len()), (State::Degraded, 2));
        assert!(problems[0].contains("GATE is gone") && problems[1].contains("mnt_want_write 2 times"));
    }

    #[test]
    fn a_sink_that_is_far_behind_degrades() {
        let sink = |lag| [SinkStatus { name: "siem".to_owned(), lag, ..SinkStatus::default() }];
        assert_eq!(judge(&Facts { sinks: &sink(BEHIND - 1), ..healthy() }).0, State::Enforcing);
        let (state, problems) = judge(&Facts { sinks: &sink(BEHIND), ..healthy() });
        assert_eq!(state, State::Degraded);
        assert!(problems[0].starts_with("sink siem is behind"), "{problems:?}");
    }

    #[test]
    fn break_glass_is_never_silent() {
        let lifted = [BreakGlassStatus {
            id: "1f".to_owned(),
            agents: vec!["a".to_owned(), "b".to_owned()],
            reason: "disk full".to_owned(),
            until: "2026-01-01T00:15:00Z".to_owned(),
            seconds_left: 60,
        }];
        let (state, problems) = judge(&Facts { break_glass: &lifted, ..healthy() });
        assert_eq!(state, State::Degraded);
        assert!(problems[0].starts_with("BREAK-GLASS until 2026-01-01T00:15:00Z for a b"), "{problems:?}");
    }

    #[test]
    fn a_sink_that_does_not_deliver_degrades_and_is_named() {
        let sinks = [SinkStatus {
            name: "siem".to_owned(),
            lag: 7,
            error: Some("no route".to_owned()),
            ..SinkStatus::default()
        }];
        let (state, problems) = judge(&Facts { sinks: &sinks, ..healthy() });
        assert_eq!(
            (state, &problems[..]),
            (State::Degraded, &["sink siem: no route; 7 records wait".to_owned()][..])
        );
    }
}
