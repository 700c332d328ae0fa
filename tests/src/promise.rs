//! A promise: allowed outside, refused inside with the exact error, recorded exactly once, and allowed
//! again where the policy says so. What every test of this suite is made of.

use crate::{
    agent::{Agent, PROBE, Session},
    ensure, events, fail,
    harness::{Outcome, Test, exists, outside_all},
};
use serde_json::Value;

/// The rules that a record must name.
#[derive(Clone, Debug)]
enum Rule {
    /// "no rule": nothing allows it.
    None,
    /// Some rule with this in its text.
    Some(String),
    /// The record names no rules: something else decided.
    Absent,
}

/// What the one record of a refusal must say.
#[derive(Clone, Debug)]
pub struct Denial {
    operations: &'static str,
    reason: &'static str,
    rule: Rule,
    path: Option<String>,
    access: Option<&'static str>,
    address: Option<(String, u16, &'static str)>,
    argument: Option<&'static str>,
    flag: Option<&'static str>,
}

impl Denial {
    fn new(operations: &'static str, reason: &'static str, rule: Rule) -> Self {
        let (path, access, address, argument, flag) = (None, None, None, None, None);
        Self { operations, reason, rule, path, access, address, argument, flag }
    }

    /// No rule allows the operation. Several names, separated by `|`, are alternatives.
    pub fn no_rule(operations: &'static str) -> Self {
        Self::new(operations, "rule", Rule::None)
    }

    /// A rule denies it; its text contains this.
    pub fn by_rule(operations: &'static str, text: &str) -> Self {
        Self::new(operations, "rule", Rule::Some(text.to_owned()))
    }

    /// Something else than a rule decides.
    pub fn because(operations: &'static str, reason: &'static str) -> Self {
        Self::new(operations, reason, Rule::Absent)
    }

    /// The floor forbids it.
    pub fn floor(operations: &'static str) -> Self {
        Self::because(operations, "floor")
    }

    /// On this file.
    pub fn on(mut self, path: &str) -> Self {
        self.path = Some(path.to_owned());
        self
    }

    /// Asking for this access, joined by `+`.
    pub fn asking(mut self, access: &'static str) -> Self {
        self.access = Some(access);
        self
    }

    /// Reaching this address.
    pub fn to(mut self, address: &str, port: u16, protocol: &'static str) -> Self {
        self.address = Some((address.to_owned(), port, protocol));
        self
    }

    /// With this argument.
    pub fn argument(mut self, argument: &'static str) -> Self {
        self.argument = Some(argument);
        self
    }

    /// With this flag.
    pub fn flagged(mut self, flag: &'static str) -> Self {
        self.flag = Some(flag);
        self
    }

    /// What is wrong with a record of this agent's session.
    pub fn faults(&self, record: &Value, agent: &Agent) -> Vec<String> {
        let mut faults = Vec::new();
        let mut is = |what: &str, found: &Value, expected: Value| {
            if *found != expected {
                faults.push(format!("{what} is {found}, not {expected}"));
            }
        };
        is("kind", &record["kind"], "decision".into());
        is("agent", &record["agent"], agent.name().into());
        is("verdict", &record["verdict"], "deny".into());
        is("reason", &record["reason"], self.reason.into());
        is("error", &record["error"], "EPERM".into());
        is("policy.id", &record["policy"]["id"], agent.name().into());
        is("policy.digest", &record["policy"]["digest"], agent.digest().into());
        is("policy.version", &record["policy"]["version"], agent.policy().version().into());
        is("flags", &record["flags"], self.flag.into_iter().collect::<Vec<_>>().into());
        if let Some(path) = &self.path {
            is("object.path", &record["object"]["path"], path.as_str().into());
        }
        if let Some(access) = self.access {
            is("access", &record["access"], access.split('+').collect::<Vec<_>>().into());
        }
        if let Some((address, port, protocol)) = &self.address {
            is("object.address", &record["object"]["address"], address.as_str().into());
            is("object.port", &record["object"]["port"], (*port).into());
            is("object.protocol", &record["object"]["protocol"], (*protocol).into());
        }
        if let Some(argument) = self.argument {
            is("argument", &record["argument"], argument.into());
        }
        match &self.rule {
            Rule::None => is("rule", &record["rule"], "no rule".into()),
            Rule::Absent => is("rule", &record["rule"], Value::Null),
            Rule::Some(text) => {
                let rules = record["rule"].as_array().cloned().unwrap_or_default();
                if !rules.iter().any(|rule| rule["text"].as_str().is_some_and(|t| t.contains(text))) {
                    faults.push(format!("no rule with {text:?} among {}", record["rule"]));
                }
            }
        }
        if !self.operations.split('|').any(|operation| record["operation"] == operation) {
            faults.push(format!("operation is {}, not {}", record["operation"], self.operations));
        }
        if record["exe"].as_str().is_none_or(str::is_empty) {
            faults.push("no executable is named".to_owned());
        }
        faults
    }
}

/// An act that is refused inside.
pub struct Attempt {
    act: String,
    control: Control,
    errno: &'static str,
    denial: Option<Denial>,
    exe: &'static str,
    newer: bool,
}

enum Control {
    /// The act succeeds outside.
    Ok,
    /// Outside it fails with this, which shows that it got past the permission checks.
    Fails(&'static str),
    /// Outside it fails somehow, but is not forbidden: what it asks for does not exist.
    FailsSomehow,
    /// It must not be tried outside.
    None,
}

impl Attempt {
    /// The act is refused inside with EPERM, and `denial` is its record.
    pub fn new(act: impl Into<String>, denial: Denial) -> Self {
        Self {
            act: act.into(),
            control: Control::Ok,
            errno: "EPERM",
            denial: Some(denial),
            exe: PROBE,
            newer: false,
        }
    }

    /// The act fails with EPERM where no attempt needs to be recorded: the kernel asks without meaning it.
    pub fn silent(act: impl Into<String>) -> Self {
        Self { act: act.into(), control: Control::Ok, errno: "EPERM", denial: None, exe: PROBE, newer: false }
    }

    /// The first object that the act names.
    pub fn object(&self) -> &str {
        self.act.split_whitespace().nth(1).unwrap_or_default()
    }

    /// Outside the act fails with this error rather than EPERM.
    pub fn fails_outside(mut self, errno: &'static str) -> Self {
        self.control = Control::Fails(errno);
        self
    }

    /// Outside the act succeeds, or fails with any error that says that it was not forbidden: which one depends on
    /// the kernel.
    pub fn fails_somehow_outside(mut self) -> Self {
        self.control = Control::FailsSomehow;
        self
    }

    /// Outside the act would harm the guest.
    pub fn not_outside(mut self) -> Self {
        self.control = Control::None;
        self
    }

    /// Older kernels do not have the call.
    pub fn newer(mut self) -> Self {
        self.newer = true;
        self
    }

    /// Inside the caller sees this.
    pub fn errno(mut self, errno: &'static str) -> Self {
        self.errno = errno;
        self
    }

    /// With this argument in its record.
    pub fn argument(mut self, argument: &'static str) -> Self {
        self.denial = self.denial.map(|denial| denial.argument(argument));
        self
    }

    /// The record names this executable.
    pub fn exe(mut self, exe: &'static str) -> Self {
        self.exe = exe;
        self
    }
}

/// The acts of attempts.
pub fn acts(attempts: &[Attempt]) -> Vec<String> {
    attempts.iter().map(|attempt| attempt.act.clone()).collect()
}

/// Acts that succeed inside.
pub fn allowed(agent: &Agent, acts: &[String]) -> Outcome {
    let session = agent.probe(acts)?;
    let faults = compare(acts, &session.lines, |_| "ok");
    if faults.is_empty() {
        Ok(())
    } else {
        fail!("inside, where the policy allows it:\n{}", faults.join("\n"))
    }
}

/// As [`allowed`], outside.
pub fn allowed_outside(acts: &[String]) -> Outcome {
    let faults = compare(acts, &outside_all(acts)?, |_| "ok");
    if faults.is_empty() {
        Ok(())
    } else {
        fail!("outside, where everything is allowed:\n{}", faults.join("\n"))
    }
}

fn compare<'a>(acts: &[String], lines: &[String], expected: impl Fn(usize) -> &'a str) -> Vec<String> {
    let mut faults: Vec<String> = Vec::new();
    for (index, act) in acts.iter().enumerate() {
        let (line, expected) = (lines.get(index).map_or("nothing", String::as_str), expected(index));
        if line != expected {
            faults.push(format!("{act}: {line}, not {expected}"));
        }
    }
    faults
}

/// The attempts outside: each succeeds, or gets as far as it was said to.
pub fn control(attempts: &[Attempt]) -> Outcome {
    let mut faults = Vec::new();
    let tried: Vec<&Attempt> = attempts.iter().filter(|a| !matches!(a.control, Control::None)).collect();
    let acts: Vec<String> = tried.iter().map(|attempt| attempt.act.clone()).collect();
    if acts.is_empty() {
        return Ok(());
    }
    let lines = outside_all(&acts)?;
    faults.extend(compare(&acts, &lines, |index| match tried[index].control {
        Control::Fails(errno) => errno,
        Control::FailsSomehow => got_further(lines.get(index)),
        Control::Ok | Control::None => "ok",
    }));
    if faults.is_empty() { Ok(()) } else { fail!("outside (the control):\n{}", faults.join("\n")) }
}

/// What a line should have been of an act that may fail, but not because it is forbidden.
fn got_further(line: Option<&String>) -> &str {
    let forbidden = ["EPERM"];
    line.map(String::as_str).filter(|line| !forbidden.contains(line)).unwrap_or("anything but forbidden")
}

/// The [`control`] of attempts of which this kernel may not have every call; those that it has, at least `least`.
pub fn possible(attempts: Vec<Attempt>, least: usize) -> Outcome<Vec<Attempt>> {
    let acts: Vec<String> = attempts.iter().map(|attempt| attempt.act.clone()).collect();
    let lines = outside_all(&acts)?;
    let expected = |attempt: &Attempt| match attempt.control {
        Control::Fails(errno) => errno,
        Control::Ok | Control::FailsSomehow | Control::None => "ok",
    };
    let mut there = Vec::new();
    let mut faults = Vec::new();
    for (attempt, line) in attempts.into_iter().zip(&lines) {
        let unknown = ["ENOSYS", "EINVAL", "EOPNOTSUPP"].contains(&line.as_str());
        if line == expected(&attempt) {
            there.push(attempt);
        } else if !(attempt.newer && unknown) {
            faults.push(format!("{}: {line}, not {}", attempt.act, expected(&attempt)));
        }
    }
    if !faults.is_empty() {
        fail!("outside (the control):\n{}", faults.join("\n"));
    }
    if there.len() < least {
        fail!("this kernel knows only {} of the {} calls, not {least}", there.len(), lines.len());
    }
    Ok(there)
}

/// The attempts inside, with their twins before them: every attempt is refused and recorded exactly once,
/// every twin succeeds and is not recorded.
pub fn refused(test: &Test, agent: &Agent, twins: &[String], attempts: &[Attempt]) -> Outcome {
    let mut acts: Vec<String> = twins.to_vec();
    acts.extend(attempts.iter().map(|attempt| attempt.act.clone()));
    let marker = marker(test)?;
    acts.push(format!("read {marker}"));
    let session = agent.probe(&acts)?;
    let errno = |index: usize| {
        let last = acts.len() - 1;
        match index.checked_sub(twins.len()).and_then(|at| attempts.get(at)) {
            _ if index == last => "EPERM",
            Some(attempt) => attempt.errno,
            None => "ok",
        }
    };
    let mut faults = compare(&acts, &session.lines, errno);
    if session.code != Some(0) {
        faults.push(format!("the probe ended with {:?}: {}", session.code, session.err));
    }
    faults.extend(recorded(agent, &session, &marker, attempts)?);
    if faults.is_empty() { Ok(()) } else { fail!("inside:\n{}", faults.join("\n")) }
}

/// Compares what was recorded with what was to be, one record for each denial.
pub fn judged(records: &[Value], denials: &[Denial], agent: &Agent) -> Outcome {
    ensure!(records.len() == denials.len(), "{} records instead of {}", records.len(), denials.len());
    let both = records.iter().zip(denials);
    let faults: Vec<String> = both.flat_map(|(record, denial)| denial.faults(record, agent)).collect();
    if faults.is_empty() { Ok(()) } else { fail!("{}", faults.join("\n")) }
}

/// A file that exists and that no rule names: refusing it ends what is looked for in the log.
pub fn marker(test: &Test) -> Outcome<String> {
    let marker = test.at("marker");
    if !exists(&marker) {
        test.file("marker")?;
    }
    Ok(marker)
}

/// What is wrong with the records of a session: there must be one for each attempt.
fn recorded(agent: &Agent, session: &Session, marker: &str, attempts: &[Attempt]) -> Outcome<Vec<String>> {
    let expected: Vec<(&Attempt, &Denial)> =
        attempts.iter().filter_map(|attempt| Some((attempt, attempt.denial.as_ref()?))).collect();
    let records = events::acts_until_marker(session.mark, &session.id, marker, expected.len())?;
    let mut faults = Vec::new();
    if records.len() != expected.len() {
        faults.push(format!("{} records instead of {}:", records.len(), expected.len()));
        faults.extend(records.iter().map(|record| format!("  {}", events::shown(record))));
        return Ok(faults);
    }
    // Not by their order: of identical refusals the first is recorded at once and the others later.
    let mut left = records;
    for (attempt, denial) in expected {
        let wrong = |record: &Value| {
            let mut wrong = denial.faults(record, agent);
            if record["exe"] != attempt.exe {
                wrong.push(format!("exe is {}, not {}", record["exe"], attempt.exe));
            }
            wrong
        };
        match left.iter().position(|record| wrong(record).is_empty()) {
            Some(place) => drop(left.remove(place)),
            None => {
                let nearest = left.iter().map(wrong).min_by_key(Vec::len).unwrap_or_default();
                faults.extend(nearest.iter().map(|fault| format!("record of {}: {fault}", attempt.act)));
            }
        }
    }
    if faults.is_empty() && !left.is_empty() {
        faults.extend(left.iter().map(|record| format!("of no attempt: {}", events::shown(record))));
    }
    Ok(faults)
}
