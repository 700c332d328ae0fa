//! A policy in the daemon: whole, and what is kept of it while nobody needs the whole.

use super::names::describe;
use crate::{
    event::json::RuleNote,
    policy::{self, FirstUses, Head, Image, Rule, RuleId, ValidPolicy},
};
use std::{
    cell::{Cell, OnceCell, RefCell},
    rc::Rc,
    time::{Duration, Instant},
};

/// For how long nobody has asked for rules and tables that are let go of.
const IDLE: Duration = Duration::from_secs(60);

/// A policy with its tables.
#[derive(Debug)]
pub struct Loaded {
    /// The checked policy.
    pub policy: ValidPolicy,
    /// The compiled tables.
    pub image: Image,
    /// Its rules as records name them, made when the first record does.
    words: OnceCell<Vec<RuleNote>>,
}

impl Loaded {
    /// A policy that has been checked, with its tables; `name` is what its rules are named with.
    pub(super) fn new(name: &str, policy: ValidPolicy) -> Result<Self, String> {
        let image = policy::compile(&policy).map_err(|e| format!("{name}: {e}"))?;
        Ok(Self { policy, image, words: OnceCell::new() })
    }

    /// A rule as records name it.
    pub(super) fn words(&self, id: RuleId) -> Option<&RuleNote> {
        let note = |(id, rule): (RuleId, &Rule)| RuleNote {
            text: format!("{} {id} at {}", describe(rule), rule.origin()),
            because: rule.because().map(str::to_owned),
        };
        let words = self.words.get_or_init(|| self.policy.numbered_rules().map(note).collect());
        words.get(usize::try_from(id.0).ok()?)
    }
}

/// Reads the text of a policy that was in force; `name` is what its rules are named with.
pub fn compile(name: &str, text: &str) -> Result<Loaded, String> {
    let policy = policy::parse(name, text).map_err(|errors| errors.render(false))?;
    Loaded::new(name, policy)
}

/// A policy for as long as it is in force. Rules and tables take some hundred kilobytes even of a small one, so with many
/// agents they stay in memory only while they are asked for, and are made of the text again when they are the next time.
#[derive(Debug)]
pub struct Kept {
    head: Head,
    name: String,
    text: String,
    first_uses: FirstUses,
    whole: RefCell<Option<Rc<Loaded>>>,
    /// When it was asked for last.
    used: Cell<Instant>,
}

impl Kept {
    /// A policy that has just been read from `text`; `name` is what its rules are named with.
    pub fn new(name: String, text: String, loaded: Loaded) -> Self {
        let (head, first_uses) = (Head::of(&loaded.policy), loaded.image.first_uses());
        let whole = RefCell::new(Some(Rc::new(loaded)));
        Self { head, name, text, first_uses, whole, used: Cell::new(Instant::now()) }
    }

    /// Reads and compiles a text.
    pub fn read(name: &str, text: String) -> Result<Self, String> {
        let loaded = compile(name, &text)?;
        Ok(Self::new(name.to_owned(), text, loaded))
    }

    /// All but the rules.
    pub fn head(&self) -> &Head {
        &self.head
    }

    /// Its text.
    pub fn text(&self) -> &str {
        &self.text
    }

    /// What the first use of is recorded, by the names in records.
    pub fn first_uses(&self) -> Vec<&'static str> {
        let FirstUses { paths, addresses } = self.first_uses;
        let told = [(true, "programs"), (paths, "paths"), (addresses, "addresses")];
        told.into_iter().filter_map(|(told, name)| told.then_some(name)).collect()
    }

    /// All of it.
    pub fn whole(&self) -> Rc<Loaded> {
        self.used.set(Instant::now());
        let again = || match compile(&self.name, &self.text) {
            Ok(loaded) if loaded.policy.digest() == self.head.digest() => Rc::new(loaded),
            _ => unreachable!("this program has read this text before"),
        };
        Rc::clone(self.whole.borrow_mut().get_or_insert_with(again))
    }

    /// Lets go of rules and tables if nobody has asked for them for a minute; says whether it did.
    pub fn rest(&self, now: Instant) -> bool {
        now.saturating_duration_since(self.used.get()) >= IDLE && self.let_go()
    }

    /// Lets go of rules and tables; says whether they were in memory.
    pub fn let_go(&self) -> bool {
        self.whole.replace(None).is_some()
    }

    /// Whether rules and tables are in memory.
    #[cfg(test)]
    pub fn is_whole(&self) -> bool {
        self.whole.borrow().is_some()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_nobody_asks_for_is_let_go_of_and_is_the_same_when_it_is_asked_for_again() {
        let text = "apiVersion: enforcer/v1\nkind: AgentPolicy\n\
                    metadata: { id: bot, version: 3, owner: o@example.com, purpose: test }\n\
                    files:\n  - { allow: [read], paths: [\"/workspace/**\"], because: work }\n";
        let kept = Kept::read("bot.yaml", text.to_owned()).expect("valid");
        let first = kept.whole();
        let now = Instant::now();
        assert!(!kept.rest(now) && kept.is_whole(), "it was used just now");
        assert!(kept.rest(now + IDLE) && !kept.is_whole());
        assert!(!kept.rest(now + IDLE), "there was nothing any more");
        assert_eq!((kept.head().id(), kept.head().version()), ("bot", 3));
        let again = kept.whole();
        assert!(kept.is_whole());
        assert_eq!(again.policy.digest(), first.policy.digest());
        assert_eq!(again.image.digest(), first.image.digest());
        assert_eq!(
            again.words(RuleId(0)).map(|note| &note.text),
            first.words(RuleId(0)).map(|note| &note.text)
        );
    }
}
