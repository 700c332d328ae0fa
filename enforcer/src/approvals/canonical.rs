//! The one way to write what is signed: a line for each fact, in a fixed order, everything escaped. So what a
//! person reads and what is hashed are the same bytes.

use crate::event::text::{escape, hex, rfc3339};
use sha2::{Digest as _, Sha256};
use time::{OffsetDateTime, format_description::well_known::Rfc3339};

/// SHA-256.
pub type Digest = [u8; 32];

/// Lines that are being written.
#[derive(Debug)]
pub struct Lines(String);

impl Lines {
    /// A text that begins with what it is and its version.
    pub fn new(head: &str) -> Self {
        Self(format!("{head}\n"))
    }

    /// Adds a fact that is text of our own, or escaped already.
    pub fn put(&mut self, key: &str, value: &str) {
        debug_assert!(!value.contains('\n'), "one fact is one line");
        self.0 += &format!("{key}: {value}\n");
    }

    /// Adds a fact that somebody else has written.
    pub fn put_escaped(&mut self, key: &str, value: &str) {
        self.put(key, &escape(value.as_bytes()));
    }

    /// The text.
    pub fn end(self) -> String {
        self.0
    }
}

/// The lines of a text, taken one by one.
pub struct Reader<'a> {
    rest: &'a str,
}

impl<'a> Reader<'a> {
    /// Reads a text.
    pub fn new(text: &'a str) -> Self {
        Self { rest: text }
    }

    /// The next line as it is.
    pub fn line(&mut self) -> Option<&'a str> {
        let (line, rest) = self.rest.split_once('\n')?;
        self.rest = rest;
        Some(line)
    }

    /// The value of the next line, if that has this key.
    pub fn value(&mut self, key: &str) -> Option<&'a str> {
        let (line, rest) = self.rest.split_once('\n')?;
        let value = line.strip_prefix(key)?.strip_prefix(": ")?;
        self.rest = rest;
        Some(value)
    }

    /// Nothing is left.
    pub fn is_empty(&self) -> bool {
        self.rest.is_empty()
    }
}

/// SHA-256 of a canonical text.
pub fn digest(text: &str) -> Digest {
    Sha256::digest(text.as_bytes()).into()
}

/// 64 lower-case digits as a digest.
pub fn parse_digest(text: &str) -> Option<Digest> {
    let mut digest = Digest::default();
    if text.len() != 64 || !text.is_ascii() {
        return None;
    }
    for (byte, at) in digest.iter_mut().zip((0..64).step_by(2)) {
        *byte = u8::from_str_radix(&text[at..at + 2], 16).ok()?;
    }
    (hex(&digest) == text).then_some(digest)
}

/// Seconds since 1970 as RFC 3339.
pub fn stamp(seconds: i64) -> String {
    let text = rfc3339(i128::from(seconds) * 1_000_000_000);
    format!("{}Z", &text[..19])
}

/// RFC 3339 in UTC with whole seconds, exactly as [`stamp`] writes it.
pub fn parse_stamp(text: &str) -> Option<i64> {
    let seconds = OffsetDateTime::parse(text, &Rfc3339).ok()?.unix_timestamp();
    // Beyond the year 2262 the records' nanoseconds end.
    ((0..9_000_000_000).contains(&seconds) && stamp(seconds) == text).then_some(seconds)
}

/// What [`escape`] has made of a text; `None` if it has not made this.
pub fn unescape(text: &str) -> Option<String> {
    let mut out = String::new();
    let mut rest = text;
    while let Some(at) = rest.find('\\') {
        out += &rest[..at];
        let escaped = &rest[at + 1..];
        let (c, taken) = match escaped.as_bytes().first()? {
            b'\\' => ('\\', 1),
            b'n' => ('\n', 1),
            b't' => ('\t', 1),
            b'x' => (char::from(u8::from_str_radix(escaped.get(1..3)?, 16).ok()?), 3),
            b'u' => {
                let end = escaped.find('}')?;
                let number = u32::from_str_radix(escaped.get(2..end)?, 16).ok()?;
                (char::from_u32(number)?, end + 1)
            }
            _ => return None,
        };
        out.push(c);
        rest = &escaped[taken..];
    }
    out += rest;
    (escape(out.as_bytes()) == text).then_some(out)
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    #[test]
    fn stamps_have_one_form() {
        assert_eq!(stamp(1_767_225_599), "2025-12-31T23:59:59Z");
        assert_eq!(parse_stamp("2025-12-31T23:59:59Z"), Some(1_767_225_599));
        for text in [
            "2025-12-31T23:59:59.0Z",
            "2025-12-31T23:59:59+00:00",
            "2025-12-31t23:59:59z",
            "9999-01-01T00:00:00Z",
        ] {
            assert_eq!(parse_stamp(text), None, "{text}");
        }
    }

    #[test]
    fn digests_have_one_form() {
        let text = "ab".repeat(32);
        assert_eq!(parse_digest(&text), Some([0xab; 32]));
        for bad in [text.to_uppercase(), "ab".repeat(31), format!("+a{}", "ab".repeat(31)), "é".repeat(32)] {
            assert_eq!(parse_digest(&bad), None, "{bad}");
        }
    }

    proptest! {
        #[test]
        fn what_was_escaped_comes_back(text in any::<String>()) {
            prop_assert_eq!(unescape(&escape(text.as_bytes())), Some(text));
        }

        #[test]
        fn no_text_makes_a_reader_panic(text in "[\\\\xun{}0-9a-fé]{0,12}") {
            drop((unescape(&text), parse_digest(&text), parse_stamp(&text)));
        }
    }
}
