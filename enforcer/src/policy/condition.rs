//! What an exec rule says beside the program's path: arguments, content, and who executes it. It is judged when the
//! program has been loaded and has not run.

use super::{arguments::Arguments, glob::Glob, reference::glob_matches};
use crate::event::text::hex;
use std::fmt;

/// What a rule says beside the path; nothing of it: it applies to every run.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Condition {
    pub(super) arguments: Option<Arguments>,
    /// SHA-256 of the program's file: one of these.
    pub(super) content: Vec<[u8; 32]>,
    /// The program that executes it.
    pub(super) parents: Vec<Glob>,
}

/// One run of a program, as far as it can be told.
#[derive(Clone, Copy, Debug, Default)]
pub struct Run<'a> {
    /// The arguments after the program's name.
    pub arguments: &'a [Vec<u8>],
    /// SHA-256 of the program's file.
    pub content: Option<[u8; 32]>,
    /// The program that executed it, without the leading slash.
    pub parent: Option<&'a [u8]>,
}

impl Condition {
    /// Whether it says nothing.
    pub fn is_none(&self) -> bool {
        self.arguments.is_none() && self.content.is_empty() && self.parents.is_empty()
    }

    /// Whether a run meets it; `None`: that cannot be told.
    pub fn is_met(&self, run: &Run<'_>) -> Option<bool> {
        let arguments = self.arguments.as_ref().is_none_or(|pattern| pattern.matches(run.arguments));
        let content = match run.content {
            _ if self.content.is_empty() => Some(true),
            known => known.map(|content| self.content.contains(&content)),
        };
        let parent = match run.parent {
            _ if self.parents.is_empty() => Some(true),
            known => known.map(|path| self.parents.iter().any(|glob| glob_matches(glob, path))),
        };
        match [Some(arguments), content, parent] {
            all if all.contains(&Some(false)) => Some(false),
            all if all.contains(&None) => None,
            _ => Some(true),
        }
    }

    /// The arguments.
    pub fn arguments(&self) -> Option<&Arguments> {
        self.arguments.as_ref()
    }

    /// SHA-256 of the program's file, as text.
    pub fn content(&self) -> Vec<String> {
        self.content.iter().map(|digest| hex(digest)).collect()
    }

    /// Whether the program's content matters.
    pub fn is_about_content(&self) -> bool {
        !self.content.is_empty()
    }

    /// The programs that execute it, as written.
    pub fn parents(&self) -> Vec<&str> {
        self.parents.iter().map(Glob::text).collect()
    }
}

/// In words, with a space in front; nothing where it says nothing.
impl fmt::Display for Condition {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        if let Some(arguments) = &self.arguments {
            write!(f, " with the arguments {arguments}")?;
        }
        if !self.content.is_empty() {
            write!(f, " with the content sha256 {}", self.content().join(" or "))?;
        }
        if !self.parents.is_empty() {
            write!(f, " executed by {}", self.parents().join(" or "))?;
        }
        Ok(())
    }
}
