//! What is wrong with a policy, where, and what to write instead.

use crate::event::text::put_visible;
use serde::Serialize;
use std::fmt::{self, Write as _};

/// A place in a source text. Lines and columns count from 1, columns in characters.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash)]
pub(super) struct Position {
    pub(super) line: u32,
    pub(super) column: u32,
    /// Byte of the text.
    pub(super) offset: u32,
}

/// One fault.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct Problem {
    /// Line, from 1.
    pub line: u32,
    /// Column in characters, from 1.
    pub column: u32,
    /// What is wrong.
    pub message: String,
    /// What to write instead.
    #[serde(skip_serializing_if = "String::is_empty")]
    pub remedy: String,
}

impl Problem {
    pub(super) fn new(at: Position, message: impl Into<String>, remedy: impl Into<String>) -> Self {
        Self { line: at.line, column: at.column, message: message.into(), remedy: remedy.into() }
    }
}

/// All that is wrong with a policy: at least one fault.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct PolicyErrors {
    source_name: String,
    text: String,
    problems: Vec<Problem>,
}

/// Most faults that are shown of one file.
const SHOWN: usize = 50;

impl PolicyErrors {
    pub(super) fn new(source_name: &str, text: &str, mut problems: Vec<Problem>) -> Self {
        problems.sort_by_key(|problem| (problem.line, problem.column));
        problems.dedup();
        Self { source_name: source_name.into(), text: text.into(), problems }
    }

    /// The faults, from the top of the file down.
    pub fn problems(&self) -> &[Problem] {
        &self.problems
    }

    /// The name under which the text was read.
    pub fn source_name(&self) -> &str {
        &self.source_name
    }

    /// The faults as text for a terminal: message, place, source line, caret and remedy.
    pub fn render(&self, colour: bool) -> String {
        let (red, blue, bold, off) =
            if colour { ("\x1b[1;31m", "\x1b[1;34m", "\x1b[1m", "\x1b[0m") } else { ("", "", "", "") };
        let mut out = String::new();
        for problem in self.problems.iter().take(SHOWN) {
            let Problem { line, column, message, remedy } = problem;
            let gutter = line.to_string().len().max(2);
            let source = self.text.lines().nth((*line as usize).saturating_sub(1)).unwrap_or("");
            let (excerpt, caret) = excerpt(source, (*column as usize).saturating_sub(1));
            // Writing to a string cannot fail.
            let _ = writeln!(out, "{red}error{off}{bold}: {}{off}", printable(message));
            let _ = writeln!(
                out,
                "{:gutter$}{blue}-->{off} {}:{line}:{column}",
                "",
                printable(&self.source_name)
            );
            let _ = writeln!(out, "{blue}{:gutter$} |{off}", "");
            let _ = writeln!(out, "{blue}{line:gutter$} |{off} {excerpt}");
            let _ = writeln!(out, "{blue}{:gutter$} |{off} {:caret$}{red}^{off}", "", "");
            if !remedy.is_empty() {
                let _ = writeln!(out, "{blue}{:gutter$} ={off} {bold}help{off}: {}", "", printable(remedy));
            }
            out.push('\n');
        }
        if self.problems.len() > SHOWN {
            let _ = writeln!(out, "… and {} more", self.problems.len() - SHOWN);
        }
        out
    }
}

impl fmt::Display for PolicyErrors {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.render(false).trim_end())
    }
}

impl std::error::Error for PolicyErrors {}

/// Widest excerpt of a source line.
const WIDTH: usize = 100;

/// The part of a line around a column, fit for a terminal, and where the column is in it.
fn excerpt(line: &str, column: usize) -> (String, usize) {
    // What is shown of each character: itself, or an escape.
    let cell = |c: char| if c == '\t' { " ".to_owned() } else { visible(c) };
    let cells: Vec<String> = line.chars().map(cell).collect();
    let width = |cells: &[String]| cells.iter().map(|cell| cell.chars().count()).sum::<usize>();
    let column = column.min(cells.len());
    let (mut start, mut end) = (0, cells.len());
    if width(&cells) > WIDTH {
        start = column;
        while start > 0 && width(&cells[start - 1..column]) <= WIDTH / 2 {
            start -= 1;
        }
        end = column;
        while end < cells.len() && width(&cells[start..=end]) <= WIDTH {
            end += 1;
        }
    }
    (cells[start..end].concat(), width(&cells[start..column]))
}

/// A character as it is shown: what is unseen, or means something to a terminal, as an escape.
fn visible(c: char) -> String {
    let mut out = String::new();
    put_visible(&mut out, c);
    out
}

/// Text without anything that is not seen as what it is, or that a terminal would take for a command. Lines stay.
pub(super) fn printable(text: &str) -> String {
    text.chars().map(|c| if c == '\n' { c.to_string() } else { visible(c) }).collect()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::event::text::is_plain;

    fn rendered(name: &str, text: &str, column: u32, message: &str) -> String {
        let at = Position { line: 1, column, offset: 0 };
        PolicyErrors::new(name, text, vec![Problem::new(at, message, message)]).render(false)
    }

    #[test]
    fn nothing_unseen_of_the_file_or_its_name_reaches_the_terminal() {
        let evil = "a\u{202e}b\u{fe0f}c\u{34f}\u{1b}[2J\u{301}";
        let shown = rendered(evil, &format!("purpose: {evil}"), 11, evil);
        assert!(shown.chars().all(|c| c == '\n' || is_plain(c)), "{shown:?}");
        assert_eq!(shown.matches("\\u{202e}").count(), 4, "{shown}");
        assert_eq!(shown.matches("\\u{301}").count(), 4, "{shown}");
    }

    #[test]
    fn the_caret_stands_below_what_it_means() {
        let (shown, caret) = excerpt("a\u{202e}: \\x", 2);
        assert_eq!((shown.as_str(), &shown[caret..]), ("a\\u{202e}: \\x", ": \\x"));
        assert_eq!(excerpt("\ta", 1), (" a".to_owned(), 1));
    }

    #[test]
    fn a_long_line_of_escapes_stays_short() {
        let line = "\u{202e}".repeat(5_000);
        for column in [0, 1, 2_500, 4_999, 5_000] {
            let (shown, caret) = excerpt(&line, column);
            assert!(shown.len() <= WIDTH && caret <= WIDTH, "{column}: {caret} {shown}");
        }
    }
}
