//! Text → [`ValidPolicy`].

use super::{
    canonical,
    check::{self, Checker},
    compile,
    condition::Run,
    decode::{self, At, list},
    draft::{Draft, LaunchDraft, MetadataDraft, NameOrNumber},
    layers::LayerChoice,
    problem::{PolicyErrors, Position, Problem},
    profile, reference,
    rule::trust_tiers,
    valid::{Feature, Launch, Launcher, Question, Test, User, ValidPolicy},
    yaml,
};
use enforcer_common::verdict::Verdict;
use time::{OffsetDateTime, format_description::well_known::Rfc3339};

/// Reads and checks a policy: its shape, its meaning, that it compiles, and the tests that it carries.
pub fn parse(source_name: &str, text: &str) -> Result<ValidPolicy, PolicyErrors> {
    let fail = |problems| PolicyErrors::new(source_name, text, problems);
    let node = yaml::read(text).map_err(|problem| fail(vec![problem]))?;
    let mut problems = Vec::new();
    let draft = decode::decode::<Draft>(&node, &mut problems);
    // A thousand rules are a tree of megabytes, and making the tables takes more of them.
    drop(node);
    let Some(draft) = draft else { return Err(fail(problems)) };
    let mut checker = Checker::new(source_name, text, problems);
    let policy = checker.policy(draft);
    if !checker.problems.is_empty() {
        return Err(fail(checker.problems));
    }
    let Some(mut policy) = policy else { return Err(fail(checker.problems)) };
    policy.digest = canonical::digest(&policy);
    let mut problems: Vec<Problem> =
        policy.tests.iter().filter_map(|test| failed_test(&policy, test)).collect();
    match compile::compile(&policy) {
        Ok(image) => policy.image = Some(image),
        Err(error) => problems.push(compile_problem(&policy, source_name, &error)),
    }
    if problems.is_empty() { Ok(policy) } else { Err(fail(problems)) }
}

impl Checker<'_> {
    fn policy(&mut self, draft: Draft) -> Option<ValidPolicy> {
        let Draft {
            api_version: _,
            kind: _,
            metadata,
            matches,
            launch,
            trust,
            mode,
            on_tighten,
            requires,
            include,
            files,
            exec,
            network,
            unix,
            process,
            capabilities,
            system,
            system_calls,
            tests,
        } = draft;
        let metadata = metadata.0.and_then(|metadata| self.metadata(metadata));
        let cgroups = matches.and_then(|m| m.0).map(|m| self.matches(&m)).unwrap_or_default();
        let launch = launch.and_then(|launch| launch.0).map(|launch| self.launch(launch));
        self.files(&files);
        self.exec(&exec);
        self.network(&network);
        self.unix(&unix);
        let mut grants = self.grants(process.and_then(|p| p.0), capabilities, system);
        grants.calls =
            system_calls.and_then(|calls| calls.0).map(|calls| self.calls(&calls)).unwrap_or_default();
        let includes = self.includes(include.unwrap_or_default());
        let requires = self.requires(requires.unwrap_or_default());
        let tests = self.tests(&tests);
        if self.rules.is_empty() && self.problems.is_empty() {
            let start = Position { line: 1, column: 1, offset: 0 };
            self.problem(
                start,
                "the policy has no rules, so nothing could run",
                "add `include: [base@1]` and an `exec` rule for the agent's program",
            );
        }
        self.floor();
        let (id, version, owner, purpose, expires) = metadata?;
        Some(ValidPolicy {
            id,
            version,
            owner,
            purpose,
            expires,
            cgroups,
            launch,
            trust: trust.and_then(|trust| trust.0).unwrap_or_default(),
            mode: mode.and_then(|mode| mode.0).unwrap_or_default(),
            on_tighten: on_tighten.and_then(|on| on.0).unwrap_or_default(),
            requires,
            includes,
            rules: std::mem::take(&mut self.rules),
            grants,
            tests,
            warnings: std::mem::take(&mut self.warnings),
            digest: [0; 32],
            image: None,
        })
    }

    #[expect(clippy::type_complexity, reason = "the metadata, taken apart at once by the one caller")]
    fn metadata(
        &mut self,
        draft: MetadataDraft,
    ) -> Option<(String, u64, String, String, Option<(String, i64)>)> {
        let MetadataDraft { id, version, owner, purpose, expires } = draft;
        if !is_id(&id.value) {
            self.problem(
                id.at,
                format!("`{}` is not an id", id.value),
                "start with a lower-case letter or digit; then up to 62 of a-z, 0-9, dot, underscore and hyphen",
            );
        }
        if version.value == 0 {
            self.problem(version.at, "versions start at 1", "write 1 or more");
        }
        for (name, field) in [("owner", &owner), ("purpose", &purpose)] {
            if field.value.trim().is_empty() {
                self.problem(field.at, format!("`{name}` is empty"), "somebody will need it: fill it in");
            }
        }
        let expires = expires.map(|text| match OffsetDateTime::parse(&text.value, &Rfc3339) {
            Ok(when) => (text.value, when.unix_timestamp()),
            Err(_) => {
                let message = format!("`{}` is not a time", text.value);
                self.problem(text.at, message, "write it as 2030-12-31T00:00:00Z");
                (text.value, 0)
            }
        });
        Some((id.value, version.value, owner.value, purpose.value, expires))
    }

    fn launch(&mut self, draft: LaunchDraft) -> Launch {
        let LaunchDraft { by, run_as, no_new_privileges, seccomp, landlock } = draft;
        let by = by.unwrap_or_default().iter().filter_map(|text| self.launcher(text)).collect();
        let run_as = run_as.and_then(|At { at, value }| match value {
            NameOrNumber::Number(id) => Some(User::Id(id)),
            NameOrNumber::Name(name) if is_account(&name) => Some(account(&name)),
            NameOrNumber::Name(name) => {
                self.problem(at, format!("`{name}` is not a user"), "write a user name or a number");
                None
            }
        });
        Launch { by, run_as, layers: LayerChoice { no_new_privileges, seccomp, landlock } }
    }

    fn launcher(&mut self, text: &At<String>) -> Option<Launcher> {
        let (kind, name) = text.value.split_once(':').unwrap_or_default();
        if is_account(name) {
            match (kind, account(name)) {
                ("uid", user) => return Some(Launcher::User(user)),
                ("group", User::Name(name)) => return Some(Launcher::Group(name)),
                ("group", User::Id(id)) => return Some(Launcher::GroupId(id)),
                _ => {}
            }
        }
        self.problem(
            text.at,
            format!("`{}` names neither a user nor a group", text.value),
            "write uid:NAME, uid:NUMBER, group:NAME or group:NUMBER",
        );
        None
    }

    fn requires(&mut self, texts: Vec<At<String>>) -> Vec<Feature> {
        let mut features = Vec::new();
        for text in texts {
            match Feature::ALL.into_iter().find(|feature| feature.name() == text.value) {
                Some(feature) => features.push(feature),
                None => {
                    let known: Vec<&str> = Feature::ALL.iter().map(|feature| feature.name()).collect();
                    let message =
                        format!("this version cannot enforce `{}`, which the policy requires", text.value);
                    self.problem(text.at, message, format!("it can enforce {}", list(&known)));
                }
            }
        }
        features.sort_unstable();
        features.dedup();
        features
    }

    /// Adds the rules of the profiles behind the policy's own.
    fn includes(&mut self, texts: Vec<At<String>>) -> Vec<String> {
        let mut names: Vec<String> = Vec::new();
        for reference in texts {
            let Some(text) = profile::text(&reference.value) else {
                self.unknown_profile(&reference);
                continue;
            };
            if names.contains(&reference.value) {
                self.problem(reference.at, format!("`{}` is included twice", reference.value), "remove one");
                continue;
            }
            match profile::parse_profile(&reference.value, text) {
                Ok(profile) => {
                    self.rules.extend(profile.rules);
                    self.warnings.extend(profile.warnings);
                    names.push(reference.value);
                }
                Err(errors) => self.problem(
                    reference.at,
                    format!("the profile `{}` is broken: {}", reference.value, errors.problems()[0].message),
                    "this is a fault of the program, not of the policy",
                ),
            }
        }
        names
    }

    /// Adds what every policy contains behind all the rest.
    fn floor(&mut self) {
        let (name, text) = profile::FLOOR;
        match profile::parse_profile(name, text) {
            Ok(floor) => self.rules.extend(floor.rules),
            Err(errors) => self.problem(
                Position { line: 1, column: 1, offset: 0 },
                format!("the profile `{name}` is broken: {}", errors.problems()[0].message),
                "this is a fault of the program, not of the policy",
            ),
        }
    }

    fn unknown_profile(&mut self, reference: &At<String>) {
        let known = profile::profiles();
        let name = reference.value.split('@').next().unwrap_or_default();
        let near = known
            .iter()
            .map(|(known, _)| known.as_str())
            .find(|known| known.split('@').next().is_some_and(|known| decode::distance(name, known) <= 2));
        let remedy = match near {
            Some(known) => format!("did you mean `{known}`?"),
            None => {
                let names: Vec<&str> = known.iter().map(|(name, _)| name.as_str()).collect();
                format!("the profiles are {}", list(&names))
            }
        };
        self.problem(reference.at, format!("there is no profile `{}`", reference.value), remedy);
    }
}

/// A fault that only compiling finds, at the first rule of the policy itself that it names.
fn compile_problem(policy: &ValidPolicy, source_name: &str, error: &compile::CompileError) -> Problem {
    let mut named = error.rules().into_iter().filter_map(|id| policy.rule(id));
    let at = match named.find(|rule| rule.origin.source == source_name) {
        Some(rule) => Position { line: rule.origin.line, column: rule.origin.column, offset: 0 },
        None => Position { line: 1, column: 1, offset: 0 },
    };
    Problem::new(at, error.to_string(), error.remedy())
}

/// What is wrong where the policy does not pass one of its tests.
fn failed_test(policy: &ValidPolicy, test: &Test) -> Option<Problem> {
    let tiers = trust_tiers(policy.trust);
    let (verdict, rules) = match &test.question {
        Question::File { want, path } if *want == enforcer_common::access::file::LOAD => {
            reference::map_verdict(policy, path, &tiers)
        }
        Question::File { want, path } => reference::file_verdict(policy, path, *want, &tiers),
        Question::Run { path, arguments, content, parent } => {
            let run = Run { arguments, content: *content, parent: parent.as_deref() };
            reference::run_verdict(policy, path, &run, &tiers)
        }
        Question::Net { want, address, port, protocol } => {
            reference::net_verdict(policy, *address, *port, *protocol, *want, &tiers)
        }
    };
    if verdict == test.expect {
        return None;
    }
    let at = Position { line: test.line, column: test.column, offset: 0 };
    let because = match rules.iter().filter_map(|id| policy.rule(*id)).next() {
        Some(rule) => format!("the first rule that decides is {}", rule.origin),
        None => "no rule allows it".to_owned(),
    };
    let message = format!("the test expects {}, but the policy says {}", word(test.expect), word(verdict));
    Some(Problem::new(at, message, because))
}

/// The word for a verdict.
pub(super) fn word(verdict: Verdict) -> &'static str {
    match verdict {
        Verdict::Allow => "allow",
        Verdict::Hold => "hold",
        Verdict::Deny => "deny",
    }
}

fn is_id(text: &str) -> bool {
    let lower = |b: u8| b.is_ascii_lowercase() || b.is_ascii_digit();
    let bytes = text.as_bytes();
    (1..=63).contains(&bytes.len())
        && lower(bytes[0])
        && bytes.iter().all(|b| lower(*b) || matches!(b, b'.' | b'_' | b'-'))
}

fn is_account(name: &str) -> bool {
    (1..=64).contains(&name.len())
        && !name.starts_with('-')
        && name.chars().all(|c| !c.is_control() && !c.is_whitespace() && c != ':' && c != '/')
}

/// A number is an id, anything else a name.
fn account(name: &str) -> User {
    match name.parse() {
        Ok(id) if name.bytes().all(|b| b.is_ascii_digit()) => User::Id(id),
        _ => User::Name(name.to_owned()),
    }
}

/// An absolute path as callers write it, in the form that verdicts are asked with.
pub fn path_bytes(path: &str) -> Result<Vec<u8>, String> {
    check::absolute(path).map_err(|(message, _)| message)
}
