//! What a person is asked: everything that the decision depends on, in one text with one digest.

use super::{
    canonical::{Digest, Lines, digest, stamp},
    hold::HoldId,
};
use crate::{event::text::escape, policy::Tier};
use serde::{Deserialize, Serialize};

/// Version of the text.
pub const HEAD: &str = "enforcer-request 1";

/// Bytes that an agent may have chosen, as text that is fit to be shown. Different bytes never look the same.
#[derive(Clone, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(transparent)]
pub struct Shown(String);

impl Shown {
    /// Escapes the bytes.
    pub fn of(bytes: &[u8]) -> Self {
        Self(escape(bytes))
    }

    /// The text.
    pub fn as_str(&self) -> &str {
        &self.0
    }
}

/// A request. Its strings are as they came; [`Request::text`] escapes them.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Request {
    /// What the kernel calls the hold.
    pub hold: HoldId,
    /// Random: the same question asked again is another request, so that an answer counts once.
    pub number: String,
    /// Who asks.
    pub who: Who,
    /// What for.
    pub what: What,
    /// By which rule.
    pub why: Why,
    /// Since when, in seconds since 1970.
    pub since: i64,
    /// Until when it can be answered.
    pub deadline: i64,
    /// What the agent says about it.
    pub justification: Option<String>,
    /// What the session did before, the oldest first, as the audit log has it: escaped.
    #[serde(default)]
    pub recent: Vec<String>,
}

/// Who asks.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Who {
    /// The host.
    pub host: String,
    /// The agent.
    pub agent: String,
    /// Who answers for it.
    pub owner: String,
    /// What it is for.
    pub purpose: String,
    /// The session's id.
    pub session: String,
    /// What the session is for, in its launcher's words.
    pub task: Option<String>,
    /// Who launched it, if that is known.
    pub launcher: Option<String>,
    /// The process.
    pub process: u32,
    /// The thread in it.
    pub thread: u32,
    /// The real user.
    pub uid: u32,
    /// The program's path, as the kernel told it.
    pub exe: Shown,
    /// Read from /proc when the request came: the processes above, the nearest first.
    pub ancestry: Vec<Ancestor>,
    /// Read from /proc when the request came: the working directory.
    pub directory: Option<Shown>,
}

/// A process above.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Ancestor {
    /// The process.
    pub process: u32,
    /// The program's path, if it could be read.
    pub exe: Option<Shown>,
}

/// What is asked for.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct What {
    /// The operation's name.
    pub operation: String,
    /// The rights that it takes.
    pub access: Vec<String>,
    /// The object: a path, or an address with port and protocol.
    pub object: Shown,
    /// The new name of a rename or link.
    pub target: Option<Shown>,
    /// What a program was executed with, where that is asked about: its own name first.
    #[serde(default)]
    pub arguments: Vec<Shown>,
    /// The exact object: device and inode, where it is a file that exists.
    pub identity: Option<String>,
}

/// By which rule.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Why {
    /// The rules that decided.
    pub rules: Vec<RuleText>,
    /// The highest tier among them.
    pub tier: Tier,
    /// The level of trust in force.
    pub trust: String,
    /// Version of the policy.
    pub policy_version: u64,
    /// SHA-256 of the canonical policy.
    pub policy_digest: String,
}

/// A rule.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct RuleText {
    /// As the policy has it.
    pub text: String,
    /// The policy's own words on why.
    pub because: Option<String>,
}

impl Request {
    /// The canonical text: what is shown and what is hashed.
    pub fn text(&self) -> String {
        // Taken apart in full: what is added to a request is in its text, or this does not build.
        let Self { hold, number, who, what, why, since, deadline, justification, recent } = self;
        let Who {
            host,
            agent,
            owner,
            purpose,
            session,
            task,
            launcher,
            process,
            thread,
            uid,
            exe,
            ancestry,
            directory,
        } = who;
        let What { operation, access, object, target, arguments, identity } = what;
        let Why { rules, tier, trust, policy_version, policy_digest } = why;
        let mut out = Lines::new(HEAD);
        let shown = |out: &mut Lines, key: &str, value: &Option<Shown>| match value {
            Some(text) => out.put(key, text.as_str()),
            None => out.put(&format!("no-{key}"), "-"),
        };
        let optional = |out: &mut Lines, key: &str, value: &Option<String>| {
            shown(out, key, &value.as_ref().map(|text| Shown::of(text.as_bytes())));
        };
        out.put("hold", &hold.to_string());
        out.put_escaped("number", number);
        out.put_escaped("host", host);
        out.put_escaped("agent", agent);
        out.put_escaped("owner", owner);
        out.put_escaped("purpose", purpose);
        out.put_escaped("session", session);
        optional(&mut out, "task", task);
        optional(&mut out, "launcher", launcher);
        out.put("process", &format!("{process} thread {thread} uid {uid}"));
        out.put("program", exe.as_str());
        for Ancestor { process, exe } in ancestry {
            let exe = exe.as_ref().map_or("(not readable)", Shown::as_str);
            out.put("parent-read-from-proc", &format!("{process} {exe}"));
        }
        shown(&mut out, "directory-read-from-proc", directory);
        out.put_escaped("operation", operation);
        out.put_escaped("access", &access.join(" "));
        out.put("object", object.as_str());
        shown(&mut out, "target", target);
        for argument in arguments {
            out.put("argument", argument.as_str());
        }
        optional(&mut out, "identity", identity);
        for RuleText { text, because } in rules {
            out.put_escaped("rule", text);
            optional(&mut out, "because", because);
        }
        out.put("tier", tier_name(*tier));
        out.put_escaped("trust", trust);
        out.put("policy-version", &policy_version.to_string());
        out.put_escaped("policy-digest", policy_digest);
        out.put("since", &stamp(*since));
        out.put("deadline", &stamp(*deadline));
        for act in recent {
            out.put_escaped("before", act);
        }
        optional(&mut out, "the-agent-says", justification);
        out.end()
    }

    /// SHA-256 of the canonical text: what a decision is about.
    pub fn digest(&self) -> Digest {
        digest(&self.text())
    }
}

/// A tier's word.
pub fn tier_name(tier: Tier) -> &'static str {
    match tier {
        Tier::Low => "low",
        Tier::Medium => "medium",
        Tier::High => "high",
        Tier::Critical => "critical",
    }
}

#[cfg(test)]
pub(crate) mod tests {
    use super::*;

    /// A request to delete a ledger.
    pub(crate) fn request(change: impl FnOnce(&mut Request)) -> Request {
        let mut request = Request {
            hold: HoldId([1, 2]),
            number: "0".repeat(32),
            who: Who {
                host: "h1".to_owned(),
                agent: "billing-bot".to_owned(),
                owner: "payments@example.com".to_owned(),
                purpose: "Reconcile invoices".to_owned(),
                session: "0".repeat(32),
                process: 4711,
                thread: 4712,
                uid: 1000,
                exe: Shown::of(b"/usr/bin/rm"),
                ancestry: vec![Ancestor { process: 4000, exe: Some(Shown::of(b"/usr/bin/bash")) }],
                ..Who::default()
            },
            what: What {
                operation: "unlink".to_owned(),
                access: vec!["delete".to_owned()],
                object: Shown::of(b"/workspace/ledger/2026.csv"),
                identity: Some("device 8:1 inode 77".to_owned()),
                ..What::default()
            },
            why: Why {
                rules: vec![RuleText {
                    text: "hold delete /workspace/ledger/**".to_owned(),
                    because: Some("ledgers are legal records".to_owned()),
                }],
                tier: Tier::Medium,
                trust: "supervised".to_owned(),
                policy_version: 7,
                policy_digest: "ab".repeat(32),
            },
            since: 1_800_000_000,
            deadline: 1_800_000_600,
            justification: None,
            recent: vec!["07:59:58 ran the program /usr/bin/rm".to_owned()],
        };
        change(&mut request);
        request
    }

    #[test]
    fn every_part_changes_the_digest() {
        let changes: Vec<fn(&mut Request)> = vec![
            |r| r.hold = HoldId([1, 3]),
            |r| r.number = "1".repeat(32),
            |r| r.who.host.push('x'),
            |r| r.who.agent.push('x'),
            |r| r.who.owner.push('x'),
            |r| r.who.purpose.push('x'),
            |r| r.who.session.push('x'),
            |r| r.who.task = Some(String::new()),
            |r| r.who.launcher = Some("-".to_owned()),
            |r| r.who.process += 1,
            |r| r.who.thread += 1,
            |r| r.who.uid += 1,
            |r| r.who.exe = Shown::of(b"x"),
            |r| r.who.ancestry.clear(),
            |r| r.who.ancestry[0].exe = None,
            |r| r.who.directory = Some(Shown::of(b"/")),
            |r| r.what.operation.push('x'),
            |r| r.what.access.clear(),
            |r| r.what.object = Shown::of(b"x"),
            |r| r.what.target = Some(Shown::of(b"/x")),
            |r| r.what.arguments = vec![Shown::of(b"push"), Shown::of(b"origin")],
            |r| r.what.arguments = vec![Shown::of(b"push origin")],
            |r| r.what.arguments = vec![Shown::default(), Shown::of(b"push origin")],
            |r| r.what.identity = None,
            |r| r.why.rules[0].text.push('x'),
            |r| r.why.rules[0].because = None,
            |r| r.why.rules.clear(),
            |r| r.why.tier = Tier::High,
            |r| r.why.trust.push('x'),
            |r| r.why.policy_version += 1,
            |r| r.why.policy_digest.push('x'),
            |r| r.since += 1,
            |r| r.deadline += 1,
            |r| r.justification = Some("please".to_owned()),
            |r| r.recent[0].push('x'),
            |r| r.recent.clear(),
        ];
        let mut digests = vec![request(|_| ()).digest()];
        digests.extend(changes.into_iter().map(|change| request(change).digest()));
        let count = digests.len();
        digests.sort_unstable();
        digests.dedup();
        assert_eq!(digests.len(), count);
    }

    #[test]
    fn nothing_that_an_agent_chose_makes_a_line_of_its_own() {
        let evil = "/w/a\ntier: low\x1b[2J\u{202e}".to_owned();
        let text = request(|r| {
            r.what.object = Shown::of(evil.as_bytes());
            r.who.exe = Shown::of(evil.as_bytes());
            r.justification = Some(evil.clone());
        })
        .text();
        assert_eq!(text.lines().filter(|line| line.starts_with("tier: ")).count(), 1);
        assert!(text.contains("object: /w/a\\ntier: low\\x1b[2J\\u{202e}\n"), "{text}");
        assert!(text.chars().all(|c| c == '\n' || crate::event::text::is_plain(c)));
    }
}
