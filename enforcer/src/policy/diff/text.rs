//! A comparison as text for people.

use super::{Decider, Diff, Difference, Direction, Relation, Setting, Step};
use crate::policy::{
    endpoint::{Prefix, TCP},
    layers::LayerChoice,
    rule::Section,
    validate::word,
};
use enforcer_common::{
    access::file,
    floor::{CAPABILITIES, Grants, ITEMS, NO_TRACE},
};
use std::fmt;

/// Most differences of one direction that are shown; programs get all.
const SHOWN: usize = 40;
/// Most objects of one difference that are shown.
const OBJECTS: usize = 6;

/// What a policy says about layers; where it says nothing, the settings of a host do.
pub(super) fn layers(choice: LayerChoice) -> String {
    let LayerChoice { no_new_privileges, seccomp, landlock } = choice;
    let said = [
        no_new_privileges.map(|set| format!("no_new_privileges {set}")),
        seccomp.map(|seccomp| format!("seccomp {}", seccomp.name())),
        landlock.map(|landlock| format!("landlock {}", landlock.name())),
    ];
    said.into_iter().flatten().collect::<Vec<_>>().join(", ")
}

impl Relation {
    /// The answer as a sentence.
    pub fn sentence(self) -> &'static str {
        match self {
            Self::Same => "same authority",
            Self::Less => "less authority: the second policy only takes away",
            Self::More => "more authority: the second policy only grants",
            Self::Both => "different authority: the second policy grants and takes away",
        }
    }
}

impl fmt::Display for Diff {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { relation, differences, settings, moves_may_differ } = self;
        writeln!(f, "{}", relation.sentence())?;
        for (direction, title) in [(Direction::Grants, "grants"), (Direction::TakesAway, "takes away")] {
            let all: Vec<&Difference> = differences.iter().filter(|one| one.direction == direction).collect();
            if !all.is_empty() {
                writeln!(f, "\n{title}:")?;
            }
            all.iter().take(SHOWN).try_for_each(|one| one.fmt(f))?;
            if all.len() > SHOWN {
                writeln!(f, "  … and {} more, which --output json lists", all.len() - SHOWN)?;
            }
        }
        if !settings.is_empty() {
            writeln!(f, "\nalso changed:")?;
        }
        for Setting { key, from, to, weighs } in settings {
            let none = |text: &str| if text.is_empty() { "nothing".to_owned() } else { text.to_owned() };
            let note = match weighs[..] {
                [Direction::Grants] => " (nothing is refused any more)",
                [Direction::TakesAway] => " (refusals take effect)",
                [] => "",
                [..] => " (another user has other rights, which no rule speaks of)",
            };
            writeln!(f, "  {key}: {} → {}{note}", none(from), none(to))?;
        }
        if *moves_may_differ {
            writeln!(
                f,
                "\nNo answer differs, but the rules do: which directories may be moved where can differ."
            )?;
        }
        Ok(())
    }
}

impl fmt::Display for Difference {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { direction, section, operations, example, objects, steps, from, to } = self;
        let sign = match direction {
            Direction::Grants => '+',
            Direction::TakesAway => '-',
        };
        let shown: Vec<&str> = objects.iter().take(OBJECTS).map(String::as_str).collect();
        let more = if objects.len() > OBJECTS { " …" } else { "" };
        let operations = match section {
            Section::Files | Section::Exec if operations.len() == file::ALL.count_ones() as usize => {
                "everything".to_owned()
            }
            Section::Files | Section::Exec | Section::Network | Section::Unix => operations.join(", "),
        };
        writeln!(f, "  {sign} {operations}  {}{more}", shown.join(" "))?;
        writeln!(f, "      for example {example}")?;
        writeln!(f, "      {}", verdicts(steps))?;
        writeln!(f, "      from: {}", rules(from))?;
        writeln!(f, "      to:   {}", rules(to))
    }
}

/// What is granted of the floor, in the words of policies.
pub(super) fn system(grants: Grants) -> String {
    named(u64::from(grants.floor), ITEMS.iter().map(|(bit, name)| (u64::from(*bit), *name)))
}

/// The capabilities that are granted.
pub(super) fn capabilities(grants: Grants) -> String {
    named(grants.capabilities, CAPABILITIES.iter().map(|(number, name)| (1 << number, *name)))
}

/// What processes may not do to each other.
pub(super) fn process(grants: Grants) -> String {
    named(u64::from(grants.floor), [(u64::from(NO_TRACE), "trace: deny")].into_iter())
}

fn named<'a>(bits: u64, names: impl Iterator<Item = (u64, &'a str)>) -> String {
    let found: Vec<&str> = names.filter(|(bit, _)| bits & bit != 0).map(|(_, name)| name).collect();
    if found.is_empty() { "nothing".to_owned() } else { found.join(", ") }
}

/// The verdicts, once where every level has the same.
fn verdicts(steps: &[Step]) -> String {
    let one = |step: &Step| format!("{} → {}", word(step.from), word(step.to));
    match steps {
        [first, rest @ ..] if steps.len() == 4 && rest.iter().all(|step| one(step) == one(first)) => {
            one(first)
        }
        _ => {
            let each: Vec<String> =
                steps.iter().map(|step| format!("{} at trust {}", one(step), step.trust.name())).collect();
            each.join(", ")
        }
    }
}

fn rules(rules: &[Decider]) -> String {
    let one = |rule: &Decider| {
        let because = rule.because.as_ref().map(|because| format!(": {because}"));
        format!("{} at {}{}", rule.text, rule.origin, because.unwrap_or_default())
    };
    match rules {
        [] => "no rule".to_owned(),
        [only] => one(only),
        [first, rest @ ..] => format!("{}; and {} more", one(first), rest.len()),
    }
}

/// A block of addresses as rules name it.
pub(super) fn block(block: &Prefix, ports: (u16, u16), protocol: u8) -> String {
    let ports = match ports {
        (0, u16::MAX) => "*".to_owned(),
        (first, last) if first == last => first.to_string(),
        (first, last) => format!("{first}-{last}"),
    };
    format!("{block}:{ports}/{}", if protocol == TCP { "tcp" } else { "udp" })
}

/// When a policy ends.
pub(super) fn or_never(expires: Option<&str>) -> String {
    expires.unwrap_or("never").to_owned()
}
