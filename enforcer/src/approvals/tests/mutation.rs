//! Changed statements, for the tests that none of them counts.

use proptest::prelude::*;
use std::fmt::Debug;

/// Numbers that are the same every time (xorshift64*).
pub(crate) struct Random(pub(crate) u64);

impl Random {
    /// A number below `n`.
    pub(crate) fn below(&mut self, n: usize) -> usize {
        self.0 ^= self.0 >> 12;
        self.0 ^= self.0 << 25;
        self.0 ^= self.0 >> 27;
        (self.0.wrapping_mul(0x2545_f491_4f6c_dd1d) >> 33) as usize % n
    }
}

/// A text that was changed somehow; `None` where the change made no other text.
pub(crate) fn mutated(text: &str, random: &mut Random) -> Option<String> {
    let mut bytes = text.as_bytes().to_vec();
    let at = random.below(bytes.len());
    match random.below(6) {
        0 => bytes[at] ^= 1 << random.below(7),
        1 => drop(bytes.remove(at)),
        2 => bytes.insert(at, b" \n:a0"[random.below(5)]),
        3 => bytes.truncate(at),
        4 => {
            let other = random.below(bytes.len());
            bytes.swap(at, other);
        }
        _ => {
            let line = text.lines().nth(random.below(text.lines().count()))?;
            bytes.extend_from_slice(line.as_bytes());
            bytes.push(b'\n');
        }
    }
    String::from_utf8(bytes).ok().filter(|changed| changed != text)
}

/// That a statement whose text had one byte replaced is refused, or is another one with exactly that text.
pub(crate) fn one_text_for_each<S: PartialEq + Debug, E>(
    one: &S,
    (at, byte): (usize, u8),
    text: impl Fn(&S) -> String,
    parse: impl Fn(&str) -> Result<S, E>,
) -> Result<(), TestCaseError> {
    let mut bytes = text(one).into_bytes();
    let at = at % bytes.len();
    prop_assume!(bytes[at] != byte);
    bytes[at] = byte;
    if let Ok(changed) = String::from_utf8(bytes)
        && let Ok(other) = parse(&changed)
    {
        prop_assert_ne!(&other, one);
        prop_assert_eq!(text(&other), changed);
    }
    Ok(())
}
