//! Patterns over the arguments that a program is executed with.

use super::{
    glob::{Atom, Component},
    reference::{bytes_match, sequence_matches},
};
use std::fmt;

/// Most elements of a pattern.
const MOST: usize = 256;

/// A pattern over all arguments after the program's own name, which is whatever the caller says.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Arguments {
    texts: Vec<String>,
    /// `**`, or exactly one argument.
    elements: Vec<Component>,
}

/// Why a text is not a pattern.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct ArgumentsError {
    /// Which element, from 0; as many as there are if it is about all.
    pub(super) index: usize,
    pub(super) message: String,
    pub(super) remedy: &'static str,
}

impl Arguments {
    /// Reads a pattern, an element for each argument: `*` is any bytes, `\` takes the next character literally, and
    /// an element `**` is any number of arguments.
    pub(super) fn parse(texts: &[&str]) -> Result<Self, ArgumentsError> {
        let all = |message: String, remedy| Err(ArgumentsError { index: texts.len(), message, remedy });
        if texts.len() > MOST {
            return all(
                format!("{} arguments are more than {MOST}, the limit", texts.len()),
                "let `**` stand for those that do not matter",
            );
        }
        let mut elements = Vec::with_capacity(texts.len());
        for (index, text) in texts.iter().enumerate() {
            let element = element(text).map_err(|(message, remedy)| ArgumentsError {
                index,
                message: message.to_owned(),
                remedy,
            })?;
            // Two of them say no more than one.
            if element != Component::AnyDepth || elements.last() != Some(&Component::AnyDepth) {
                elements.push(element);
            }
        }
        if elements == [Component::AnyDepth] {
            return all("these are any arguments at all".to_owned(), "leave `arguments` out");
        }
        Ok(Self { texts: texts.iter().map(|text| (*text).to_owned()).collect(), elements })
    }

    /// Whether it stands for these arguments, without the first one, the program's name.
    pub fn matches(&self, arguments: &[Vec<u8>]) -> bool {
        let arguments: Vec<&[u8]> = arguments.iter().map(Vec::as_slice).collect();
        sequence_matches(&self.elements, &arguments, bytes_match)
    }

    /// As it was written.
    pub fn texts(&self) -> &[String] {
        &self.texts
    }
}

/// As the list in a policy, so that spaces in an argument show.
impl fmt::Display for Arguments {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("[")?;
        for (index, text) in self.texts.iter().enumerate() {
            write!(f, "{}{text:?}", if index == 0 { "" } else { ", " })?;
        }
        f.write_str("]")
    }
}

fn element(text: &str) -> Result<Component, (&'static str, &'static str)> {
    if text == "**" {
        return Ok(Component::AnyDepth);
    }
    let mut atoms = Vec::with_capacity(text.len());
    let mut bytes = text.bytes();
    while let Some(byte) = bytes.next() {
        atoms.push(match byte {
            0 => {
                return Err((
                    "an argument cannot contain NUL",
                    "remove it: no program gets such an argument",
                ));
            }
            b'*' if atoms.last() == Some(&Atom::Star) => {
                return Err((
                    "`**` inside an argument is no more than `*`",
                    "write one `*`, or `**` as an argument of its own for any number of them",
                ));
            }
            b'*' => Atom::Star,
            b'\\' => match bytes.next() {
                Some(next) => Atom::Byte(next),
                None => return Err(("the backslash escapes nothing", "write `\\\\` for a backslash")),
            },
            byte => Atom::Byte(byte),
        });
    }
    Ok(Component::Name(atoms))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn matches(pattern: &[&str], arguments: &[&str]) -> bool {
        let arguments: Vec<Vec<u8>> = arguments.iter().map(|one| one.as_bytes().to_vec()).collect();
        Arguments::parse(pattern).expect("a pattern").matches(&arguments)
    }

    #[test]
    fn each_element_is_one_argument_and_two_stars_are_any_number() {
        assert!(matches(&["push", "**"], &["push"]) && matches(&["push", "**"], &["push", "a", "b"]));
        assert!(!matches(&["push"], &["push", "a"]) && !matches(&["push", "**"], &["a", "push"]));
        assert!(matches(&["**", "--force", "**"], &["push", "--force", "x"]));
        assert!(!matches(&["**", "--force", "**"], &["push", "--force-with-lease"]));
        assert!(matches(&["**", "--force*", "**"], &["push", "--force-with-lease"]));
        assert!(matches(&[], &[]) && !matches(&[], &["x"]));
    }

    #[test]
    fn a_star_takes_slashes_spaces_and_nothing() {
        assert!(matches(&["*"], &["a/b c"]) && matches(&["*"], &[""]) && !matches(&["*"], &[]));
        assert!(matches(&["a*b*c"], &["a/x/b//c"]) && !matches(&["a*b*c"], &["a/x/b//cd"]));
        assert!(matches(&["\\*\\\\"], &["*\\"]) && !matches(&["\\*"], &["x"]));
        assert!(matches(&[""], &[""]) && !matches(&[""], &["x"]));
    }

    #[test]
    fn faults_name_their_element() {
        let index = |texts: &[&str]| Arguments::parse(texts).expect_err("a fault").index;
        assert_eq!(index(&["push", "a\\"]), 1);
        assert_eq!(index(&["a**"]), 0);
        assert_eq!(index(&["**", "**"]), 2);
        assert_eq!(index(&["x\0"]), 0);
        assert_eq!(index(&["x"; MOST + 1]), MOST + 1);
    }
}
