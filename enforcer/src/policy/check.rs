//! Draft → checked parts: what every document with rules has in common.

mod exec;

pub use exec::digest;

use super::{
    condition::Condition,
    decode::{At, Tolerant},
    draft::{
        Expectation, FileOperation, FileRuleDraft, NetOperation, NetworkRuleDraft, TestDraft, UnixRuleDraft,
    },
    endpoint::Endpoint,
    glob::Glob,
    problem::{Position, Problem},
    rule::{Effect, Objects, OnHold, Origin, Rule, Section, Tier},
    valid::{Question, Test, Warning},
};
use enforcer_common::{
    access::{file, net},
    verdict::Verdict,
};

/// Collects what a document says and what is wrong with it.
pub(super) struct Checker<'a> {
    pub(super) source_name: &'a str,
    pub(super) text: &'a str,
    pub(super) problems: Vec<Problem>,
    pub(super) warnings: Vec<Warning>,
    pub(super) rules: Vec<Rule>,
}

/// What all kinds of rules share: exactly one verdict on something, and the rest.
struct Common<'a, T> {
    allow: &'a Option<At<Vec<T>>>,
    hold: &'a Option<At<Vec<T>>>,
    deny: &'a Option<At<Vec<T>>>,
    tier: Option<Tier>,
    because: &'a Option<String>,
    on_hold: &'a Option<At<OnHold>>,
    hold_timeout: &'a Option<At<String>>,
}

impl<'a> Checker<'a> {
    pub(super) fn new(source_name: &'a str, text: &'a str, problems: Vec<Problem>) -> Self {
        Self { source_name, text, problems, warnings: Vec::new(), rules: Vec::new() }
    }

    pub(super) fn problem(&mut self, at: Position, message: impl Into<String>, remedy: impl Into<String>) {
        self.problems.push(Problem::new(at, message, remedy));
    }

    pub(super) fn warn(&mut self, at: Position, message: impl Into<String>) {
        self.warnings.push(Warning {
            source: self.source_name.to_owned(),
            line: at.line,
            column: at.column,
            message: message.into(),
        });
    }

    /// The place of byte `offset` of a value: exact where the value stands in the text as it is.
    pub(super) fn inside(&self, value: &At<String>, offset: usize) -> Position {
        let at = value.at;
        let Some(source) = self.text.get(at.offset as usize..) else { return at };
        let quote = usize::from(source.starts_with(['"', '\'']));
        let verbatim = source.get(quote..).is_some_and(|rest| rest.starts_with(value.value.as_str()));
        match value.value.get(..offset) {
            Some(before) if verbatim && !value.value.contains('\n') => Position {
                line: at.line,
                column: at.column + (quote + before.chars().count()) as u32,
                offset: at.offset + (quote + offset) as u32,
            },
            _ => at,
        }
    }

    pub(super) fn glob(&mut self, text: &At<String>) -> Option<Glob> {
        match Glob::parse(&text.value) {
            Ok(glob) => Some(glob),
            Err(error) => {
                let at = self.inside(text, error.offset);
                self.problem(at, error.message, error.remedy);
                None
            }
        }
    }

    fn globs(&mut self, texts: &[At<String>]) -> Vec<Glob> {
        texts.iter().filter_map(|text| self.glob(text)).collect()
    }

    pub(super) fn files(&mut self, rules: &Option<Vec<Tolerant<At<FileRuleDraft>>>>) {
        for (index, At { at, value: rule }) in present(rules) {
            let FileRuleDraft { allow, hold, deny, paths, tier, because, on_hold, hold_timeout } = rule;
            let common = Common { allow, hold, deny, tier: *tier, because, on_hold, hold_timeout };
            let globs = self.globs(paths);
            if paths.is_empty() {
                self.problem(*at, "the rule names no path", "name at least one path, or remove the rule");
            }
            let Some((effect, operations)) = self.effect(*at, &common) else { continue };
            let load = operations.value.iter().find(|op| matches!(op.value, FileOperation::Load));
            if let (Effect::Hold, Some(load)) = (effect, load) {
                self.problem(
                    load.at,
                    "loading cannot wait for a person: a program is mapped after it has begun to replace the old one",
                    "hold `exec` of the program instead, or deny `load`",
                );
            }
            let operations = operations.value.iter().fold(0, |all, op| all | file_operation(op.value));
            self.rule(*at, Section::Files, index, effect, operations, Objects::Paths(globs), &common);
        }
    }

    pub(super) fn network(&mut self, rules: &Option<Vec<Tolerant<At<NetworkRuleDraft>>>>) {
        for (index, At { at, value: rule }) in present(rules) {
            let NetworkRuleDraft { allow, hold, deny, to, tier, because, on_hold, hold_timeout } = rule;
            let common = Common { allow, hold, deny, tier: *tier, because, on_hold, hold_timeout };
            if to.is_empty() {
                self.problem(
                    *at,
                    "the rule names no address",
                    "name at least one under `to`, or remove the rule",
                );
            }
            let Some((effect, operations)) = self.effect(*at, &common) else { continue };
            let operations = operations.value.iter().fold(0, |all, op| {
                all | match op.value {
                    NetOperation::Connect => net::CONNECT,
                    NetOperation::Bind => net::BIND,
                }
            });
            let endpoints =
                to.iter().filter_map(|text| self.endpoint(text, operations == net::BIND)).collect();
            self.rule(
                *at,
                Section::Network,
                index,
                effect,
                operations,
                Objects::Endpoints(endpoints),
                &common,
            );
        }
    }

    pub(super) fn unix(&mut self, rules: &Option<Vec<Tolerant<At<UnixRuleDraft>>>>) {
        for (index, At { at, value: rule }) in present(rules) {
            let UnixRuleDraft { allow, hold, deny, tier, because, on_hold, hold_timeout } = rule;
            let common = Common { allow, hold, deny, tier: *tier, because, on_hold, hold_timeout };
            let Some((effect, texts)) = self.effect(*at, &common) else { continue };
            for text in
                texts.value.iter().filter(|text| effect == Effect::Hold && text.value.starts_with('@'))
            {
                self.problem(
                    text.at,
                    "connecting to an abstract name cannot wait for a person: the name is no object that could be \
                     shown and found again",
                    "allow it or deny it, or let the peer use a path",
                );
            }
            let globs = texts.value.iter().filter_map(|text| self.socket(text)).collect();
            self.rule(*at, Section::Unix, index, effect, file::CONNECT, Objects::Paths(globs), &common);
        }
    }

    fn socket(&mut self, text: &At<String>) -> Option<Glob> {
        match Glob::parse_socket(&text.value) {
            Ok(glob) => Some(glob),
            Err(error) => {
                let at = self.inside(text, error.offset);
                self.problem(at, error.message, error.remedy);
                None
            }
        }
    }

    fn endpoint(&mut self, text: &At<String>, binding: bool) -> Option<Endpoint> {
        match Endpoint::parse(&text.value, binding) {
            Ok(endpoint) => Some(endpoint),
            Err(error) => {
                let at = self.inside(text, error.offset);
                self.problem(at, error.message, error.remedy);
                None
            }
        }
    }

    /// The one verdict of a rule and what it is on.
    fn effect<'r, T>(&mut self, at: Position, common: &Common<'r, T>) -> Option<(Effect, &'r At<Vec<T>>)> {
        let verdicts =
            [(Effect::Allow, common.allow), (Effect::Hold, common.hold), (Effect::Deny, common.deny)];
        let mut written = verdicts.iter().filter_map(|(effect, on)| on.as_ref().map(|on| (*effect, on)));
        let Some(first) = written.next() else {
            self.problem(at, "the rule has no verdict", "add one of `allow`, `hold` or `deny`");
            return None;
        };
        if let Some((other, on)) = written.next() {
            self.problem(
                on.at,
                format!("the rule says both `{}` and `{}`", first.0.name(), other.name()),
                "write a rule for each verdict",
            );
            return None;
        }
        if first.1.value.is_empty() {
            self.problem(
                first.1.at,
                format!("`{}` lists nothing", first.0.name()),
                "list at least one, or remove the rule",
            );
            return None;
        }
        Some(first)
    }

    #[expect(clippy::too_many_arguments, reason = "the parts of one rule, each checked by its caller")]
    fn rule<T>(
        &mut self,
        at: Position,
        section: Section,
        index: usize,
        effect: Effect,
        operations: u16,
        objects: Objects,
        common: &Common<'_, T>,
    ) {
        let holds = effect == Effect::Hold;
        if let Some(on_hold) = common.on_hold.as_ref().filter(|_| !holds) {
            self.problem(on_hold.at, "`on_hold` needs `hold`", "remove it, or hold the operations instead");
        }
        let hold_timeout = match common.hold_timeout {
            Some(text) if !holds => {
                self.problem(
                    text.at,
                    "`hold_timeout` needs `hold`",
                    "remove it, or hold the operations instead",
                );
                None
            }
            Some(text) => self.duration(text),
            None => None,
        };
        if common.because.as_deref().is_some_and(|because| because.trim().is_empty()) {
            self.problem(at, "`because` is empty", "give the reason, or remove the key");
        }
        if common.tier == Some(Tier::Critical) && effect != Effect::Deny {
            self.warn(at, format!("tier critical is always denied, so this `{}` denies", effect.name()));
        }
        self.rules.push(Rule {
            origin: Origin {
                source: self.source_name.to_owned(),
                line: at.line,
                column: at.column,
                section,
                index,
            },
            effect,
            tier: common.tier,
            operations,
            objects,
            condition: Condition::default(),
            because: common.because.clone(),
            on_hold: common.on_hold.as_ref().map(|on_hold| on_hold.value),
            hold_timeout,
        });
    }

    /// Seconds from `90s`, `15m`, `2h`.
    fn duration(&mut self, text: &At<String>) -> Option<u64> {
        const LONGEST: u64 = 7 * 24 * 3600;
        let unit = match text.value.chars().last() {
            Some('s') => 1,
            Some('m') => 60,
            Some('h') => 3600,
            _ => 0,
        };
        let digits = text.value.get(..text.value.len().saturating_sub(1)).unwrap_or_default();
        let number =
            if digits.bytes().all(|b| b.is_ascii_digit()) { digits.parse::<u64>().ok() } else { None };
        let seconds = number.and_then(|n| n.checked_mul(unit)).filter(|s| (1..=LONGEST).contains(s));
        if seconds.is_none() {
            self.problem(
                text.at,
                format!("`{}` is not a time to wait", text.value),
                "write a number with s, m or h, such as 90s, 15m or 2h; a week at most",
            );
        }
        seconds
    }

    pub(super) fn tests(&mut self, tests: &Option<Vec<Tolerant<At<TestDraft>>>>) -> Vec<Test> {
        let mut checked = Vec::new();
        for (_, At { at, value: test }) in present(tests) {
            let Some(question) = self.question(*at, test) else { continue };
            let expect = match test.expect {
                Expectation::Allow => Verdict::Allow,
                Expectation::Hold => Verdict::Hold,
                Expectation::Deny => Verdict::Deny,
            };
            checked.push(Test { line: at.line, column: at.column, expect, question });
        }
        checked
    }

    fn question(&mut self, at: Position, test: &TestDraft) -> Option<Question> {
        let TestDraft {
            expect: _,
            read,
            write,
            create,
            delete,
            rename,
            link,
            truncate,
            metadata,
            exec,
            arguments,
            sha256,
            parent,
            load,
            list,
            connect,
            bind,
        } = test;
        let given = [
            ("arguments", arguments.as_ref().map(|list| list.at)),
            ("sha256", sha256.as_ref().map(|text| text.at)),
            ("parent", parent.as_ref().map(|text| text.at)),
        ];
        let run = given.into_iter().find_map(|(key, at)| Some((key, at?)));
        if let Some((key, at)) = run.filter(|_| exec.is_none()) {
            self.problem(at, format!("`{key}` needs `exec`"), "name the program under `exec`");
            return None;
        }
        let asked = [
            (file::READ, read),
            (file::WRITE | file::TRUNCATE, write),
            (file::CREATE, create),
            (file::DELETE, delete),
            (file::RENAME, rename),
            (file::LINK, link),
            (file::TRUNCATE, truncate),
            (file::METADATA, metadata),
            (file::EXEC, exec),
            (file::LOAD, load),
            (file::LIST, list),
        ];
        let mut files: Vec<_> =
            asked.iter().filter_map(|(want, path)| path.as_ref().map(|p| (*want, p))).collect();
        let sockets = [(net::CONNECT, connect), (net::BIND, bind)];
        let mut sockets: Vec<_> =
            sockets.iter().filter_map(|(want, to)| to.as_ref().map(|t| (*want, t))).collect();
        match (files.pop(), sockets.pop(), files.is_empty() && sockets.is_empty()) {
            (Some((want, path)), None, true) => match absolute(&path.value) {
                Ok(path) if run.is_some() => self.run(path, arguments, sha256, parent),
                Ok(path) => Some(Question::File { want, path }),
                Err((message, remedy)) => {
                    self.problem(path.at, message, remedy);
                    None
                }
            },
            (None, Some((net::CONNECT, to)), true) if to.value.starts_with("unix:") => {
                match socket_path(&to.value["unix:".len()..]) {
                    Ok(path) => Some(Question::File { want: file::CONNECT, path }),
                    Err((message, remedy)) => {
                        self.problem(to.at, message, remedy);
                        None
                    }
                }
            }
            (None, Some((want, to)), true) => {
                let endpoint = self.endpoint(to, want == net::BIND)?;
                let Some((address, port, protocol)) = endpoint.single() else {
                    self.problem(
                        to.at,
                        "a test asks about one address",
                        "write one address, port and protocol, as in 10.0.0.1:443/tcp",
                    );
                    return None;
                };
                Some(Question::Net { want, address, port, protocol })
            }
            (None, None, _) => {
                self.problem(at, "the test asks nothing", "add one operation, as in `read: /etc/hosts`");
                None
            }
            _ => {
                self.problem(at, "the test asks more than one thing", "write a test for each operation");
                None
            }
        }
    }
}

/// The entries of a list that could be decoded, with their places in it.
fn present<T>(list: &Option<Vec<Tolerant<T>>>) -> impl Iterator<Item = (usize, &T)> {
    list.iter()
        .flatten()
        .enumerate()
        .filter_map(|(index, entry)| entry.0.as_ref().map(|entry| (index, entry)))
}

/// The bits of an operation. What may be written may be cut short.
fn file_operation(operation: FileOperation) -> u16 {
    match operation {
        FileOperation::Read => file::READ,
        FileOperation::Write => file::WRITE | file::TRUNCATE,
        FileOperation::Create => file::CREATE,
        FileOperation::Delete => file::DELETE,
        FileOperation::Rename => file::RENAME,
        FileOperation::Link => file::LINK,
        FileOperation::Truncate => file::TRUNCATE,
        FileOperation::Metadata => file::METADATA,
        FileOperation::Exec => file::EXEC,
        FileOperation::Load => file::LOAD,
        FileOperation::List => file::LIST,
        FileOperation::All => file::ALL,
    }
}

/// The path under which rules know a unix socket: its own, or [`file::ABSTRACT`] and its abstract name.
pub(super) fn socket_path(text: &str) -> Result<Vec<u8>, (String, String)> {
    match text.strip_prefix('@') {
        Some("") => Err(("the abstract name is empty".into(), "write it behind `@`".into())),
        Some(name) => Ok([&[file::ABSTRACT], name.as_bytes()].concat()),
        None => absolute(text),
    }
}

/// A path as the kernel names objects, without its leading slash.
pub(super) fn absolute(text: &str) -> Result<Vec<u8>, (String, String)> {
    let Some(rest) = text.strip_prefix('/') else {
        return Err(("the path is relative".into(), format!("write it from the root: `/{text}`")));
    };
    let bad = |part: &str| part.is_empty() || part == "." || part == ".." || part.contains('\0');
    if !rest.is_empty() && rest.split('/').any(bad) {
        return Err((
            "this is not how the kernel names an object".into(),
            "write the resolved path: single slashes, none at the end, no `.` or `..`".into(),
        ));
    }
    Ok(rest.as_bytes().to_vec())
}
