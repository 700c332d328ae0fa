//! Programs whose arguments are judged once they are loaded: what the kernel told of them, until the verdict.

use super::{
    cmdline::{self, Command},
    content::Reading,
    core::{Core, boot_time},
    held::Held,
    loaded::Kept,
    names::{Names, matching_rules},
};
use crate::{
    event::{
        decode::Event,
        json,
        text::{escape, hex},
        why,
    },
    policy::{Rule, RuleId, Run, Trust, ValidPolicy, reference},
};
use enforcer_common::{event::flag, map::TierMap, verdict::Verdict};
use serde_json::{Value, json};
use std::{collections::HashMap, rc::Rc, time::Duration};

/// Processes about whose programs is known before they are loaded. Those of execs that failed stay for a while, until
/// there are so many; beyond the second number nothing more is noted, and what is not known is denied.
const MANY: usize = 4_096;
const MOST: usize = 65_536;
/// Nanoseconds after which an exec has ended one way or the other.
const OLD: u64 = 60_000_000_000;
/// Nanoseconds for which a program may take to stop where it was loaded.
const PATIENCE: u64 = 10_000_000_000;

/// Programs that are read at one time because of what is in them, one of each agent.
const READERS: usize = 8;

/// Nanoseconds within which a program has usually stopped.
const SOON: u64 = 20_000_000;

/// A program, or a script on the way to its interpreter, that rules about arguments name.
struct Stage {
    /// Nanoseconds of boot time.
    at: u64,
    /// Start of the process.
    started: u64,
    /// The policy in force then. Its number may soon mean nothing any more.
    policy: Option<Rc<Kept>>,
    rules: Vec<RuleId>,
    /// How many arguments the caller gave, the name included: an interpreter is given more in front of them.
    count: usize,
    /// The program that executed it, as the kernel told, if it is known whole.
    parent: Option<Vec<u8>>,
}

/// A loaded program that waits.
struct Waiting {
    held: Held,
    /// As the log will have it, if there is something to say.
    record: Value,
    session: [u64; 2],
    stages: Vec<Stage>,
    /// How many stages there were.
    count: usize,
    trust: u32,
    since: u64,
    /// Its content, where a rule is about that.
    reading: Option<Reading>,
}

/// What is known of such programs.
#[derive(Default)]
pub(super) struct Arguments {
    stages: HashMap<u32, Vec<Stage>>,
    /// With so many they are looked through again: each time twice as many as were left, so that it costs little for each.
    look_at: usize,
    waiting: Vec<Waiting>,
}

impl Arguments {
    /// A program is being executed.
    pub(super) fn loading(&mut self, event: &Event<'_>, names: &Names<'_>) {
        let header = &event.header;
        if self.stages.len() >= self.look_at.max(MANY) {
            self.stages.retain(|_, of| of.iter().all(|stage| header.time.saturating_sub(stage.at) < OLD));
            self.look_at = 2 * self.stages.len();
        }
        if self.stages.len() >= MOST && !self.stages.contains_key(&header.tgid) {
            return;
        }
        let known = names.numbers.loaded(header.policy);
        let rules = known.and_then(|(loaded, base)| matching_rules(&loaded, event, base)).unwrap_or_default();
        let stages = self.stages.entry(header.tgid).or_default();
        // The lowest bit: the first of this exec.
        if header.argument & 1 != 0 {
            stages.clear();
        }
        let (at, started, count) = (header.time, header.started, (header.argument >> 1) as usize);
        // What executes a program is its process's program until then.
        let whole = header.flags & flag::EXE_CUT == 0;
        let parent = event.exe.strip_prefix(b"/").filter(|_| whole).map(<[u8]>::to_vec);
        stages.push(Stage { at, started, policy: names.numbers.shared(header.policy), rules, count, parent });
    }

    /// It has been loaded, and waits.
    pub(super) fn loaded(&mut self, event: &Event<'_>, offset: i128, names: &Names<'_>, recent: Vec<String>) {
        let header = &event.header;
        let mut stages = self.stages.remove(&header.tgid).unwrap_or_default();
        // The same policy published again has another number, and the same rules.
        let digest = |policy: Option<Rc<Kept>>| policy.map(|kept| kept.head().digest());
        let in_force = digest(names.numbers.shared(header.policy));
        stages.retain(|stage| {
            stage.started == header.started && in_force.is_some() && digest(stage.policy.clone()) == in_force
        });
        self.waiting.push(Waiting {
            held: Held::new(event, names, recent),
            record: json::event(event, offset, names),
            session: header.session,
            stages,
            count: header.argument as usize,
            trust: header.trust,
            since: header.time,
            reading: None,
        });
    }

    /// Whether something waits.
    pub(super) fn is_empty(&self) -> bool {
        self.waiting.is_empty()
    }
}

/// Whether a rule about the program that runs in the end depends on what is in its file.
fn is_about_content(policy: &ValidPolicy, stages: &[Stage]) -> bool {
    let rules = stages.last().into_iter().flat_map(|stage| &stage.rules);
    rules.filter_map(|id| policy.rule(*id)).any(|rule| rule.condition().is_about_content())
}

/// Whether the last stage is the program that runs. The interpreter of a script, which rules may not name at all, is
/// given more than the script's caller gave (`load_script()`, fs/binfmt_script.c; `load_misc_binary()`,
/// fs/binfmt_misc.c).
fn is_what_runs(last: &Stage, given: &[Vec<u8>]) -> bool {
    last.count == given.len()
}

/// The verdict of all stages on what a program was given, and the rules behind it. `given` includes its name. `content`
/// is what runs; of a script on the way to that nobody can tell, since its interpreter reads it only later.
fn judge(
    policy: &ValidPolicy,
    stages: &[Stage],
    given: &[Vec<u8>],
    content: Option<[u8; 32]>,
    tiers: &TierMap,
) -> (Verdict, Vec<RuleId>) {
    let mut all = (Verdict::Allow, Vec::new());
    for (number, stage) in stages.iter().enumerate() {
        // Behind the name: what an interpreter is given in front of it is not the script's.
        let arguments = given.len().checked_sub(stage.count.saturating_sub(1)).and_then(|at| given.get(at..));
        let (verdict, rules) = match arguments {
            Some(arguments) => {
                let runs = number + 1 == stages.len() && is_what_runs(stage, given);
                let content = content.filter(|_| runs);
                let run = Run { arguments, content, parent: stage.parent.as_deref() };
                reference::arguments_verdict(policy, &stage.rules, &run, tiers)
            }
            None => (Verdict::Deny, Vec::new()),
        };
        if verdict > all.0 {
            all = (verdict, rules);
        } else if verdict == all.0 {
            all.1.extend(rules);
        }
    }
    all
}

impl Waiting {
    /// The content of its program, if a rule depends on it; `None`: not yet. `readers` are the agents of whom one is read.
    fn content(&mut self, readers: &mut Vec<String>) -> Option<Option<[u8; 32]>> {
        let policy = self.stages.first().and_then(|stage| Some(stage.policy.as_ref()?.whole()));
        if !policy.is_some_and(|loaded| is_about_content(&loaded.policy, &self.stages)) {
            return Some(None);
        }
        if let Some(reading) = &self.reading {
            return reading.told();
        }
        let agent = self.held.agent();
        if readers.len() >= READERS || readers.iter().any(|one| one == agent) {
            return None;
        }
        let (process, started) = self.held.process();
        match Reading::begin(process, started) {
            Ok(reading) => {
                readers.push(agent.to_owned());
                self.reading = Some(reading);
                None
            }
            Err(error) => {
                tracing::error!(%error, process, "a program cannot be read");
                Some(None)
            }
        }
    }
}

impl Core {
    /// Judges what came just now. A program stops soon after its record: waiting for that costs less than coming
    /// back, but not for one whose agent keeps it from running.
    pub(super) fn judge_stopped(&mut self) {
        loop {
            let now = u64::try_from(boot_time()).unwrap_or_default();
            if !self.arguments.is_empty() {
                self.judge_arguments(now);
            }
            if self.arguments.waiting.iter().all(|one| now.saturating_sub(one.since) > SOON) {
                return;
            }
            std::thread::sleep(Duration::from_micros(500));
        }
    }

    /// Judges the programs that have stopped where they were loaded.
    pub(super) fn judge_arguments(&mut self, now: u64) {
        let mut held = Vec::new();
        let waiting = std::mem::take(&mut self.arguments.waiting);
        let read = waiting.iter().filter(|one| one.reading.is_some());
        let mut readers: Vec<String> = read.map(|one| one.held.agent().to_owned()).collect();
        for mut one in waiting {
            let (tgid, started) = one.held.process();
            let given = match cmdline::read(tgid, started) {
                // The signal has been sent; it has to be scheduled once more before it stops.
                Command::NotYet if now.saturating_sub(one.since) < PATIENCE => {
                    self.arguments.waiting.push(one);
                    continue;
                }
                Command::Gone => {
                    self.forget_program(&one.held);
                    continue;
                }
                Command::NotYet => Err("it did not stop where it was loaded"),
                Command::Unreadable(why) => Err(why),
                Command::Given(given) => Ok(given),
            };
            let runs = |given: &Vec<_>| one.stages.last().is_some_and(|last| is_what_runs(last, given));
            let content = if given.as_ref().is_ok_and(runs) { one.content(&mut readers) } else { Some(None) };
            let Some(content) = content else {
                self.arguments.waiting.push(one);
                continue;
            };
            held.extend(self.judge_one(one, given, content));
        }
        self.flush();
        self.take_held(held);
    }

    /// Carries the verdict on one program out, unless it is for a person.
    fn judge_one(
        &mut self,
        one: Waiting,
        given: Result<Vec<Vec<u8>>, &str>,
        content: Option<[u8; 32]>,
    ) -> Option<Held> {
        let Waiting { mut held, mut record, session, stages, count, trust, since, reading: _ } = one;
        let tiers = self.narrowed(self.settings.trust.tiers(Trust::from_number(trust).unwrap_or_default()));
        let known = stages.first().and_then(|stage| Some(stage.policy.as_ref()?.whole()));
        let (verdict, rules, why): (Verdict, Vec<(RuleId, &Rule)>, &str) = match (&known, &given) {
            (Some(loaded), Ok(given)) if stages.len() == count => {
                let (verdict, ids) = judge(&loaded.policy, &stages, given, content, &tiers);
                let rules = ids.into_iter().filter_map(|id| loaded.policy.rule(id).map(|rule| (id, rule)));
                (verdict, rules.collect(), "rule")
            }
            (_, Err(why)) => (Verdict::Deny, Vec::new(), why),
            _ => (Verdict::Deny, Vec::new(), "the records that say which rules are about it were lost"),
        };
        let (verdict, why) = match verdict {
            Verdict::Hold if !self.may_ask(&held) => (Verdict::Deny, "too-many-holds"),
            other => (other, why),
        };
        if verdict == Verdict::Allow {
            self.let_run(&held);
            return None;
        }
        let given = given.as_deref().unwrap_or_default();
        held.because(&rules, given);
        record["rule"] = held.rules_as_json();
        if let Some(content) = content {
            record["sha256"] = hex(&content).into();
        }
        record["argv"] = given.iter().map(|argument| escape(argument)).collect();
        if verdict == Verdict::Deny {
            record["kind"] = json!("decision");
            record["verdict"] = json!("deny");
            record["reason"] = json!(why);
            record["error"] = json!("SIGKILL");
        }
        self.audit.append(&record);
        if let Some(record) = record.as_object().filter(|_| verdict == Verdict::Deny) {
            self.refusals.note_ended(session, since, why::why(record));
        }
        self.verdicts.note_arguments(held.agent(), verdict);
        if verdict == Verdict::Hold {
            return Some(held);
        }
        self.end_program(&held);
        None
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::policy::{parse, trust_tiers};

    fn policy(exec: &str) -> ValidPolicy {
        let text = format!(
            "apiVersion: enforcer/v1\nkind: AgentPolicy\nmetadata: {{ id: a, version: 1, owner: o@example.com, \
             purpose: p }}\ntrust: autonomous\nexec: {exec}\n"
        );
        parse("a.yaml", &text).expect("a policy")
    }

    fn stage(policy: &ValidPolicy, path: &str, count: usize) -> Stage {
        let rules = reference::rules_at_path(policy, path.as_bytes());
        Stage { at: 0, started: 0, policy: None, rules, count, parent: None }
    }

    fn given(words: &[&str]) -> Vec<Vec<u8>> {
        words.iter().map(|word| word.as_bytes().to_vec()).collect()
    }

    #[test]
    fn a_script_is_judged_by_what_its_caller_gave_it() {
        let policy = policy("[{allow: [/w/s, /bin/sh]}, {deny: [/w/s], arguments: [--prod]}]");
        let tiers = trust_tiers(Trust::Autonomous);
        let verdict = |words: &[&str], count| {
            judge(&policy, &[stage(&policy, "/w/s", count)], &given(words), None, &tiers).0
        };
        assert_eq!(verdict(&["/bin/sh", "-e", "./s", "--prod"], 2), Verdict::Deny);
        assert_eq!(verdict(&["/bin/sh", "./s", "--prod"], 2), Verdict::Deny);
        assert_eq!(verdict(&["/bin/sh", "./s", "--test"], 2), Verdict::Allow);
        assert_eq!(verdict(&["/bin/sh", "./s"], 1), Verdict::Allow);
        // More than there are: what the kernel said and what the program has do not agree.
        assert_eq!(verdict(&["/bin/sh"], 4), Verdict::Deny);
    }

    #[test]
    fn the_strictest_stage_decides() {
        let policy = policy(
            "[{allow: [/w/s, /bin/sh]}, {hold: [/w/s], arguments: [x]}, {deny: [/bin/sh], arguments: ['**', x]}]",
        );
        let tiers = trust_tiers(Trust::Autonomous);
        let both = [stage(&policy, "/w/s", 2), stage(&policy, "/bin/sh", 3)];
        let (verdict, rules) = judge(&policy, &both, &given(&["/bin/sh", "./s", "x"]), None, &tiers);
        assert_eq!((verdict, rules), (Verdict::Deny, vec![RuleId(2)]));
        let (verdict, rules) = judge(&policy, &both[..1], &given(&["/bin/sh", "./s", "x"]), None, &tiers);
        assert_eq!((verdict, rules), (Verdict::Hold, vec![RuleId(1)]));
    }

    #[test]
    fn content_is_that_of_what_runs_and_what_cannot_be_told_is_denied() {
        let good = "aa".repeat(32);
        let policy = policy(&format!(
            "[{{allow: [/bin/sh], sha256: ['{good}']}}, {{allow: [/w/s]}}, {{deny: [/w/t], sha256: ['{good}']}}, \
             {{allow: [/w/t]}}]"
        ));
        let tiers = trust_tiers(Trust::Autonomous);
        let sh = given(&["/bin/sh", "./s"]);
        let verdict = |stages: &[Stage], content| judge(&policy, stages, &sh, content, &tiers).0;
        let direct = [stage(&policy, "/bin/sh", 2)];
        assert!(is_about_content(&policy, &direct));
        assert_eq!(verdict(&direct, Some([0xaa; 32])), Verdict::Allow);
        assert_eq!(verdict(&direct, Some([0xab; 32])), Verdict::Deny);
        assert_eq!(verdict(&direct, None), Verdict::Deny);
        // A script may be swapped before its interpreter reads it: a rule about its content is never met.
        let script = [stage(&policy, "/w/s", 1), stage(&policy, "/bin/sh", 2)];
        assert_eq!(verdict(&script, Some([0xaa; 32])), Verdict::Allow);
        let script = [stage(&policy, "/w/t", 1), stage(&policy, "/bin/sh", 2)];
        assert_eq!(verdict(&script, Some([0xaa; 32])), Verdict::Deny);
        // Nor is it met by the content of an interpreter that no such rule names.
        for content in [[0xaa; 32], [0xab; 32]] {
            assert_eq!(verdict(&[stage(&policy, "/w/t", 1)], Some(content)), Verdict::Deny);
        }
        let policy = self::policy(&format!("[{{allow: [/w/t], sha256: ['{good}']}}, {{allow: [/bin/sh]}}]"));
        let alone = [stage(&policy, "/w/t", 1)];
        assert_eq!(judge(&policy, &alone, &sh, Some([0xaa; 32]), &tiers).0, Verdict::Deny);
        let own = given(&["/w/t"]);
        assert_eq!(judge(&policy, &alone, &own, Some([0xaa; 32]), &tiers).0, Verdict::Allow);
    }

    #[test]
    fn who_executes_it_is_told_by_the_kernel_or_not_at_all() {
        let policy = policy("[{allow: [/usr/bin/ssh], parent: [/usr/bin/git, '/usr/lib/git-core/**']}]");
        let tiers = trust_tiers(Trust::Autonomous);
        let verdict = |parent: Option<&str>| {
            let parent = parent.map(|path| path.as_bytes().to_vec());
            let stage = Stage { parent, ..stage(&policy, "/usr/bin/ssh", 1) };
            judge(&policy, &[stage], &given(&["ssh"]), None, &tiers).0
        };
        assert_eq!(verdict(Some("usr/bin/git")), Verdict::Allow);
        assert_eq!(verdict(Some("usr/lib/git-core/git-remote-ssh")), Verdict::Allow);
        assert_eq!(verdict(Some("usr/bin/bash")), Verdict::Deny);
        assert_eq!(verdict(None), Verdict::Deny);
    }
}
