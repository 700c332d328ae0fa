//! Rules about running programs, and questions about one run.

use super::{Checker, Common, absolute, present};
use crate::policy::{
    arguments::{Arguments, ArgumentsError},
    condition::Condition,
    decode::{At, Tolerant},
    draft::ExecRuleDraft,
    problem::Position,
    rule::{Effect, Objects, OnHold, Section, Tier},
    valid::Question,
};
use enforcer_common::access::file;

impl Checker<'_> {
    pub(in crate::policy) fn exec(&mut self, rules: &Option<Vec<Tolerant<At<ExecRuleDraft>>>>) {
        for (index, At { at, value: rule }) in present(rules) {
            let ExecRuleDraft {
                allow,
                hold,
                deny,
                arguments,
                sha256,
                parent,
                tier,
                because,
                on_hold,
                hold_timeout,
            } = rule;
            let common = Common { allow, hold, deny, tier: *tier, because, on_hold, hold_timeout };
            let Some((effect, texts)) = self.effect(*at, &common) else { continue };
            let globs = self.globs(&texts.value);
            self.rule(*at, Section::Exec, index, effect, file::EXEC, Objects::Paths(globs), &common);
            let conditions = [arguments, sha256, parent];
            if let Some(first) = conditions.into_iter().flatten().next() {
                self.goes_with_conditions(first.at, effect, &common);
            }
            let condition = Condition {
                arguments: arguments.as_ref().and_then(|texts| self.arguments(texts)),
                content: sha256.as_ref().map(|texts| self.digests(texts)).unwrap_or_default(),
                parents: parent.as_ref().map(|texts| self.globs(&texts.value)).unwrap_or_default(),
            };
            if let Some(empty) = [sha256, parent].into_iter().flatten().find(|texts| texts.value.is_empty()) {
                self.problem(empty.at, "no run can be meant", "name at least one, or leave the key out");
            }
            if let Some(rule) = self.rules.last_mut() {
                rule.condition = condition;
            }
        }
    }

    /// Runs are judged when the program has been loaded, so some of what other rules can say does not go with a rule
    /// about some of them.
    fn goes_with_conditions<T>(&mut self, at: Position, effect: Effect, common: &Common<'_, T>) {
        if effect == Effect::Allow && !matches!(common.tier, None | Some(Tier::Low)) {
            self.problem(
                at,
                "an allow with arguments, content or parent has no other tier than low: whoever may run the program \
                 in some way would be asked before it is known",
                "leave the tier out, or write a `hold` with the same beside an `allow` of the program",
            );
        }
        if let Some(on_hold) = common.on_hold.as_ref().filter(|on| on.value == OnHold::Refuse) {
            self.problem(
                on_hold.at,
                "a program whose arguments are judged has been loaded: it cannot be told to come back later",
                "remove `on_hold`, or leave arguments, content and parent out",
            );
        }
    }

    /// SHA-256 as hexadecimal digits.
    fn digests(&mut self, texts: &At<Vec<At<String>>>) -> Vec<[u8; 32]> {
        let mut all = Vec::new();
        for text in &texts.value {
            match digest(&text.value) {
                Some(digest) => all.push(digest),
                None => self.problem(
                    text.at,
                    "this is no SHA-256: 64 digits of 0 to 9 and a to f",
                    "copy what `sha256sum FILE` prints",
                ),
            }
        }
        all
    }

    /// The arguments that a rule is about.
    fn arguments(&mut self, texts: &At<Vec<At<String>>>) -> Option<Arguments> {
        let written: Vec<&str> = texts.value.iter().map(|text| text.value.as_str()).collect();
        match Arguments::parse(&written) {
            Ok(pattern) => Some(pattern),
            Err(ArgumentsError { index, message, remedy }) => {
                self.problem(texts.value.get(index).map_or(texts.at, |text| text.at), message, remedy);
                None
            }
        }
    }

    /// One run of a program.
    pub(super) fn run(
        &mut self,
        path: Vec<u8>,
        arguments: &Option<At<Vec<At<String>>>>,
        sha256: &Option<At<String>>,
        parent: &Option<At<String>>,
    ) -> Option<Question> {
        let given = arguments.iter().flat_map(|list| &list.value);
        let arguments = given.map(|one| one.value.clone().into_bytes()).collect();
        let content = match sha256.as_ref().map(|text| (text, digest(&text.value))) {
            Some((text, None)) => {
                self.problem(text.at, "this is no SHA-256", "copy what `sha256sum FILE` prints");
                return None;
            }
            Some((_, digest)) => digest,
            None => None,
        };
        let parent = match parent.as_ref().map(|text| (text, absolute(&text.value))) {
            Some((text, Err((message, remedy)))) => {
                self.problem(text.at, message, remedy);
                return None;
            }
            Some((_, Ok(path))) => Some(path),
            None => None,
        };
        Some(Question::Run { path, arguments, content, parent })
    }
}

/// Bytes from hexadecimal digits as sha256sum prints them.
pub fn digest(text: &str) -> Option<[u8; 32]> {
    let digits = text.as_bytes();
    if digits.len() != 64 || !digits.iter().all(|d| matches!(d, b'0'..=b'9' | b'a'..=b'f')) {
        return None;
    }
    let mut out = [0; 32];
    for (byte, pair) in out.iter_mut().zip(digits.chunks_exact(2)) {
        *byte = u8::from_str_radix(std::str::from_utf8(pair).ok()?, 16).ok()?;
    }
    Some(out)
}
