//! A draft as the text of a policy that a person has to finish.

use super::{Draft, Evidence, LeftOut, Proposed, operation_list, quoted};
use crate::policy::rule::Section;
use std::fmt;

/// Most records of one rule that are named.
const NAMED: usize = 3;

impl fmt::Display for Draft {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { agent, version, include, sessions, rules, left_out, notes } = self;
        writeln!(
            f,
            "# A draft for {agent}, learned from what would have been refused in audit mode. The agent"
        )?;
        writeln!(
            f,
            "# wrote that record itself: strike what it has no business with. The rules of the policy"
        )?;
        writeln!(f, "# in force are not repeated. Without `owner` it does not load.")?;
        writeln!(f, "#")?;
        sessions.iter().try_for_each(|session| writeln!(f, "# session {}", comment(session)))?;
        notes.iter().try_for_each(|note| writeln!(f, "# note: {}", comment(note)))?;
        if !left_out.is_empty() {
            writeln!(f, "#\n# Left out:")?;
        }
        for LeftOut { what, why, evidence } in left_out {
            writeln!(f, "#   {}: {why} ({})", comment(what), count(evidence))?;
        }
        writeln!(f, "apiVersion: enforcer/v1\nkind: AgentPolicy\nmetadata:")?;
        writeln!(f, "  id: {}\n  version: {version}", quoted(agent))?;
        writeln!(f, "  # owner: whoever has read this and answers for it")?;
        writeln!(f, "  purpose: a draft that was learned")?;
        writeln!(f, "mode: audit")?;
        if !include.is_empty() {
            let names: Vec<String> = include.iter().map(|name| quoted(name)).collect();
            writeln!(f, "include: [{}]", names.join(", "))?;
        }
        for section in [Section::Files, Section::Exec, Section::Network] {
            let of_section: Vec<&Proposed> = rules.iter().filter(|rule| rule.section == section).collect();
            if !of_section.is_empty() {
                writeln!(f, "{}:", section.name())?;
            }
            of_section.into_iter().try_for_each(|rule| write_rule(f, rule))?;
        }
        Ok(())
    }
}

fn write_rule(f: &mut fmt::Formatter<'_>, rule: &Proposed) -> fmt::Result {
    let Proposed { section, operations, pattern, objects, evidence } = rule;
    for source in evidence.first.iter().take(NAMED) {
        let (log, exe) = (comment(&source.log), comment(&source.exe));
        writeln!(f, "  # {log}:{} {} {exe}", source.line, comment(&source.time))?;
    }
    let because = match objects {
        1 => format!("learned from {}", count(evidence)),
        more => format!("learned from {} about {more} objects", count(evidence)),
    };
    let operations = operation_list(*section, operations.1).join(", ");
    let (pattern, because) = (quoted(pattern), quoted(&because));
    match section {
        Section::Files => {
            writeln!(f, "  - {{ allow: [{operations}], paths: [{pattern}], because: {because} }}")
        }
        Section::Exec | Section::Unix => writeln!(f, "  - {{ allow: [{pattern}], because: {because} }}"),
        Section::Network => {
            writeln!(f, "  - {{ allow: [{operations}], to: [{pattern}], because: {because} }}")
        }
    }
}

fn count(evidence: &Evidence) -> String {
    let plural = |n: u64, what: &str| if n == 1 { format!("{n} {what}") } else { format!("{n} {what}s") };
    format!("{} of {}", plural(evidence.records, "record"), plural(evidence.sessions.len() as u64, "session"))
}

/// Text that cannot end a comment.
fn comment(text: &str) -> String {
    text.chars().map(|c| if crate::event::text::is_plain(c) { c } else { '?' }).collect()
}
