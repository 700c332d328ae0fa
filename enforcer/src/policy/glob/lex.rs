//! Text → tokens with their places.

use super::{ByteSet, GlobError};

/// A token of a glob.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Token {
    pub(super) kind: Kind,
    /// Byte of the text at which it starts.
    pub(super) at: usize,
}

/// What a token means.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Kind {
    Byte(u8),
    Set(ByteSet),
    Star,
    Slash,
    Open,
    Comma,
    Close,
}

/// Splits a glob into tokens. A comma outside braces is itself.
pub(super) fn tokens(text: &str) -> Result<Vec<Token>, GlobError> {
    let bytes = text.as_bytes();
    let mut out = Vec::with_capacity(bytes.len());
    let mut open: Vec<usize> = Vec::new();
    let mut i = 0;
    while let Some(&byte) = bytes.get(i) {
        let at = i;
        i += 1;
        let kind = match byte {
            0 => return Err(nul(at)),
            b'/' => Kind::Slash,
            b'*' => Kind::Star,
            b'?' => Kind::Set(ByteSet::name_bytes()),
            b'[' => {
                let (set, next) = class(text, at)?;
                i = next;
                Kind::Set(set)
            }
            b'{' => {
                open.push(at);
                Kind::Open
            }
            b'}' if open.pop().is_some() => Kind::Close,
            b'}' => {
                return Err(GlobError::new(
                    at,
                    "`}` closes nothing",
                    "write `\\}` for the character, or add the `{` that it closes",
                ));
            }
            b',' if !open.is_empty() => Kind::Comma,
            b'\\' => {
                let (byte, next) = escape(text, at)?;
                i = next;
                Kind::Byte(byte)
            }
            _ => Kind::Byte(byte),
        };
        out.push(Token { kind, at });
    }
    match open.pop() {
        Some(at) => Err(GlobError::new(
            at,
            "the brace is never closed",
            "close it with `}`, or write `\\{` for the character",
        )),
        None => Ok(out),
    }
}

fn nul(at: usize) -> GlobError {
    GlobError::new(at, "a path cannot contain NUL", "remove it: no file has such a name")
}

/// The byte that the escape at `at` stands for, and where it ends.
fn escape(text: &str, at: usize) -> Result<(u8, usize), GlobError> {
    let bytes = text.as_bytes();
    let (byte, end) = match bytes.get(at + 1) {
        None => {
            return Err(GlobError::new(
                at,
                "the backslash escapes nothing",
                "write `\\\\` for a backslash in a name",
            ));
        }
        Some(b'x') => {
            let digits = text.get(at + 2..at + 4).filter(|d| d.bytes().all(|b| b.is_ascii_hexdigit()));
            let Some(byte) = digits.and_then(|d| u8::from_str_radix(d, 16).ok()) else {
                return Err(GlobError::new(
                    at,
                    "`\\x` needs two hexadecimal digits",
                    "write for example `\\xff`, or `\\\\x` for a backslash and an x",
                ));
            };
            (byte, at + 4)
        }
        Some(byte) => (*byte, at + 2),
    };
    match byte {
        0 => Err(nul(at)),
        b'/' => Err(GlobError::new(
            at,
            "a name cannot contain `/`",
            "write `/` without a backslash to separate components",
        )),
        _ => Ok((byte, end)),
    }
}

/// The class that starts at `at`, and where it ends.
fn class(text: &str, at: usize) -> Result<(ByteSet, usize), GlobError> {
    let bytes = text.as_bytes();
    let mut set = ByteSet::EMPTY;
    let mut i = at + 1;
    let negated = matches!(bytes.get(i), Some(b'!' | b'^'));
    i += usize::from(negated);
    let mut first = true;
    loop {
        match bytes.get(i) {
            None => {
                return Err(GlobError::new(
                    at,
                    "the class is never closed",
                    "close it with `]`, or write `\\[` for the character",
                ));
            }
            Some(b']') if !first => break,
            Some(_) => {}
        }
        first = false;
        let (low, next) = member(text, i)?;
        let is_range = bytes.get(next) == Some(&b'-') && !matches!(bytes.get(next + 1), None | Some(b']'));
        if !is_range {
            set.insert(low);
            i = next;
            continue;
        }
        let (high, next) = member(text, next + 1)?;
        if low > high {
            return Err(GlobError::new(i, "the range runs backwards", "write the lower character first"));
        }
        (low..=high).for_each(|byte| set.insert(byte));
        i = next;
    }
    set.remove(0);
    set.remove(b'/');
    let set = if negated { set.complement() } else { set };
    if set == ByteSet::EMPTY {
        return Err(GlobError::new(at, "the class matches nothing", "name at least one byte other than `/`"));
    }
    Ok((set, i + 1))
}

/// One member of a class, and where it ends.
fn member(text: &str, at: usize) -> Result<(u8, usize), GlobError> {
    match text.as_bytes().get(at) {
        None => Err(GlobError::new(at.saturating_sub(1), "the class is never closed", "close it with `]`")),
        Some(0) => Err(nul(at)),
        Some(b'\\') => escape(text, at),
        Some(b'/') => Err(GlobError::new(
            at,
            "a class cannot contain `/`",
            "a class is one byte of a name; use braces for alternatives with `/`: `{a/b,c}`",
        )),
        Some(byte) if byte.is_ascii() => Ok((*byte, at + 1)),
        Some(_) => Err(GlobError::new(
            at,
            "a class is one byte, and this character is several",
            "use braces for such characters: `{ä,ö}`",
        )),
    }
}
