//! Path patterns: text → [`Glob`].
//!
//! Names are bytes. `*` and `?` stay inside one component, `**` stands for any number of whole
//! components, `[...]` is one byte of a class, `{a,b}` is either, `\` takes the next character
//! literally, and `\xHH` is a byte by its number.

mod expand;
mod lex;

use super::bytes::ByteSet;
use enforcer_common::{
    access::file::ABSTRACT,
    limits::{DEPTH, NAME},
};
use std::fmt;

/// Most patterns that the braces of one glob may stand for.
pub(super) const EXPANSIONS: usize = 1_000;
/// Longest text of a glob.
pub(super) const TEXT: usize = 4_096;

/// A pattern over absolute paths, checked: it can match something, and is written in one way only.
#[derive(Clone, Debug)]
pub struct Glob {
    text: Box<str>,
    patterns: Vec<Pattern>,
}

/// One alternative of a glob, without braces.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct Pattern {
    components: Vec<Component>,
}

/// One component of a pattern.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub enum Component {
    /// `**`: any number of components, also none.
    AnyDepth,
    /// Exactly one component.
    Name(Vec<Atom>),
}

/// A piece of a component.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub enum Atom {
    /// This byte.
    Byte(u8),
    /// One byte of a class; `?` is the class of all.
    Set(Box<ByteSet>),
    /// `*`: any bytes, also none.
    Star,
}

/// Why a text is not a glob.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("{message}")]
pub struct GlobError {
    /// Byte of the text at which the fault lies.
    pub offset: usize,
    /// What is wrong.
    pub message: String,
    /// What to write instead.
    pub remedy: String,
}

impl GlobError {
    fn new(offset: usize, message: impl Into<String>, remedy: impl Into<String>) -> Self {
        Self { offset, message: message.into(), remedy: remedy.into() }
    }
}

impl Glob {
    /// Reads a glob.
    pub fn parse(text: &str) -> Result<Self, GlobError> {
        if text.len() > TEXT {
            return Err(GlobError::new(
                0,
                format!("the path is longer than {TEXT} bytes"),
                "the kernel knows no longer paths; shorten it",
            ));
        }
        let tokens = lex::tokens(text)?;
        let mut patterns: Vec<Pattern> = Vec::new();
        for alternative in expand::alternatives(&tokens)? {
            let pattern = Pattern::from_tokens(&alternative, text)?;
            if !patterns.contains(&pattern) {
                patterns.push(pattern);
            }
        }
        Ok(Self { text: text.into(), patterns })
    }

    /// Reads a glob over the names of unix sockets: over paths, or behind `@` over abstract names, which
    /// stand as paths that begin with [`ABSTRACT`].
    pub fn parse_socket(text: &str) -> Result<Self, GlobError> {
        let Some(name) = text.strip_prefix('@') else { return Self::parse(text) };
        if name.is_empty() {
            return Err(GlobError::new(0, "the abstract name is empty", "write it behind `@`"));
        }
        let rooted = name.starts_with('/');
        let path = if rooted { name.to_owned() } else { format!("/{name}") };
        let moved = |error: GlobError| GlobError { offset: error.offset + usize::from(rooted), ..error };
        let mut glob = Self::parse(&path).map_err(moved)?;
        for pattern in &mut glob.patterns {
            // That byte is a component of its own if the name goes on with a slash.
            match pattern.components.first_mut() {
                Some(Component::Name(atoms)) if !rooted => atoms.insert(0, Atom::Byte(ABSTRACT)),
                Some(Component::AnyDepth) if !rooted => {
                    pattern.components.insert(0, Component::Name(vec![Atom::Byte(ABSTRACT), Atom::Star]));
                }
                _ => pattern.components.insert(0, Component::Name(vec![Atom::Byte(ABSTRACT)])),
            }
        }
        glob.text = text.into();
        Ok(glob)
    }

    /// The text that it was read from.
    pub fn text(&self) -> &str {
        &self.text
    }

    /// Its alternatives.
    pub fn patterns(&self) -> &[Pattern] {
        &self.patterns
    }
}

impl PartialEq for Glob {
    fn eq(&self, other: &Self) -> bool {
        self.patterns == other.patterns
    }
}

impl Eq for Glob {}

impl fmt::Display for Glob {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.text)
    }
}

impl Pattern {
    /// The components, from the root down.
    pub fn components(&self) -> &[Component] {
        &self.components
    }

    /// Whether it ends in `/**`, that is, matches a directory and everything below.
    pub fn is_subtree(&self) -> bool {
        self.components.last() == Some(&Component::AnyDepth)
    }

    /// How many `**` stand before the last component, and whether the pattern starts with one.
    pub(super) fn depth_wildcards(&self) -> (usize, bool) {
        let inner = &self.components[..self.components.len().saturating_sub(1)];
        let count = inner.iter().filter(|c| **c == Component::AnyDepth).count();
        (count, inner.first() == Some(&Component::AnyDepth))
    }

    fn from_tokens(tokens: &[lex::Token], text: &str) -> Result<Self, GlobError> {
        use lex::Kind;
        let end = text.len();
        let Some(first) = tokens.first() else {
            return Err(GlobError::new(
                0,
                "the path is empty",
                "write an absolute path, such as /srv/data/**",
            ));
        };
        let leading_depth = matches!(
            tokens,
            [
                lex::Token { kind: Kind::Star, .. },
                lex::Token { kind: Kind::Star, .. },
                lex::Token { kind: Kind::Slash, .. },
                ..
            ]
        );
        let rest = if first.kind == Kind::Slash {
            &tokens[1..]
        } else if leading_depth {
            tokens
        } else {
            return Err(GlobError::new(
                first.at,
                "the path is relative",
                format!(
                    "start it with `/`, or with `**/` to match at any depth: `/{0}` or `**/{0}`",
                    text.trim_matches('/')
                ),
            ));
        };
        let mut components = Vec::new();
        if !rest.is_empty() {
            for part in rest.split(|token| token.kind == Kind::Slash) {
                // An empty part is what stands between two slashes: the fault is at the second.
                let at = match part.first() {
                    Some(token) => token.at,
                    None => empty_part_offset(rest, part, end),
                };
                let component = component(part, at, end)?;
                if component != Component::AnyDepth || components.last() != Some(&Component::AnyDepth) {
                    components.push(component);
                }
                if components.len() > DEPTH {
                    return Err(GlobError::new(
                        at,
                        format!("the path has more than {DEPTH} components"),
                        "no object that deep can be resolved, so the rule could never apply; shorten it",
                    ));
                }
            }
        }
        Ok(Self { components })
    }
}

/// Where an empty component stands in the text.
fn empty_part_offset(all: &[lex::Token], part: &[lex::Token], end: usize) -> usize {
    // `part` borrows from `all`: what follows it there is the slash that ends it.
    let index = all.partition_point(|token| std::ptr::from_ref(token) < part.as_ptr());
    all.get(index).map_or(end.saturating_sub(1), |token| token.at)
}

/// One component from its tokens.
fn component(part: &[lex::Token], at: usize, end: usize) -> Result<Component, GlobError> {
    use lex::Kind;
    match part {
        [] if at + 1 >= end => {
            return Err(GlobError::new(
                at,
                "the path ends in a slash",
                "leave the slash out for the object itself, or end in `/**` for it and everything below",
            ));
        }
        [] => {
            return Err(GlobError::new(
                at,
                "the path has an empty component",
                "resolved paths have single slashes; write one `/`, or `/**/` for any depth",
            ));
        }
        [a, b] if a.kind == Kind::Star && b.kind == Kind::Star => return Ok(Component::AnyDepth),
        _ => {}
    }
    let dots = part.iter().take_while(|token| token.kind == Kind::Byte(b'.')).count();
    if dots == part.len() && dots <= 2 {
        let name = ".".repeat(dots);
        return Err(GlobError::new(
            at,
            format!("`{name}` is not a name that a resolved path can contain"),
            "rules see the resolved path of the object: write it without `.` and `..`",
        ));
    }
    let mut atoms = Vec::with_capacity(part.len());
    let mut shortest = 0;
    for token in part {
        shortest += 1;
        atoms.push(match &token.kind {
            Kind::Byte(byte) => Atom::Byte(*byte),
            Kind::Set(set) => Atom::Set(Box::new(*set)),
            Kind::Star if atoms.last() == Some(&Atom::Star) => {
                return Err(GlobError::new(
                    token.at - 1,
                    "`**` must be a whole component",
                    "write `*` for any characters inside a component, or `/**/` for any number of components",
                ));
            }
            Kind::Star => {
                shortest -= 1;
                Atom::Star
            }
            Kind::Slash | Kind::Open | Kind::Comma | Kind::Close => {
                return Err(GlobError::new(token.at, "unexpected character", "put a backslash before it"));
            }
        });
    }
    if shortest > NAME {
        return Err(GlobError::new(
            at,
            format!("a component is longer than {NAME} bytes"),
            "no file name is that long, so the rule could never apply; shorten it",
        ));
    }
    Ok(Component::Name(atoms))
}

#[cfg(test)]
mod tests;
