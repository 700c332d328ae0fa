//! Text that an agent may have chosen, made safe to show; and times and numbers as text.

/// Whether a character may be shown as it is: no control character, nothing that changes the direction of text, is not
/// seen or looks like the blank (a terminal or a reviewer would be deceived), and nothing that looks otherwise on every
/// screen.
pub fn is_plain(c: char) -> bool {
    if c.is_ascii() {
        return !c.is_control();
    }
    let noncharacter = c as u32 & 0xfffe == 0xfffe;
    !c.is_control() && !c.is_whitespace() && !noncharacter && !is_unseen(c)
}

/// Whether nothing is seen of a character: all that Unicode calls ignorable by default (`Default_Ignorable_Code_Point`),
/// further ones that have an empty shape, and those of which nobody knows the shape.
fn is_unseen(c: char) -> bool {
    matches!(c,
        // Soft hyphen, joiners, fillers of Hangul, vowels of Khmer that are never shown, selectors of Mongolian.
        '\u{ad}' | '\u{34f}' | '\u{61c}' | '\u{115f}' | '\u{1160}' | '\u{17b4}' | '\u{17b5}' | '\u{180b}'..='\u{180f}'
        // Of no width, and what turns the direction.
        | '\u{200b}'..='\u{200f}' | '\u{2028}'..='\u{202e}' | '\u{2060}'..='\u{206f}'
        // Braille without a dot, fillers, variation selectors, the mark of byte order, annotations between lines.
        | '\u{2800}' | '\u{3164}' | '\u{fe00}'..='\u{fe0f}' | '\u{feff}' | '\u{ffa0}' | '\u{fff0}'..='\u{fffc}'
        // Controls of Egyptian, shorthand and music, a filler of Khitan.
        | '\u{13430}'..='\u{1343f}' | '\u{16fe4}' | '\u{1bca0}'..='\u{1bca3}' | '\u{1d159}' | '\u{1d173}'..='\u{1d17a}'
        // Tags and more variation selectors.
        | '\u{e0000}'..='\u{e0fff}'
        // Noncharacters, and private use.
        | '\u{fdd0}'..='\u{fdef}' | '\u{e000}'..='\u{f8ff}' | '\u{f0000}'..='\u{10ffff}')
}

/// Whether a character is a mark that goes onto whatever comes before it. With it the same letter can be written in
/// several ways that look alike, and at the beginning of a text it would change what is not part of the text.
fn is_mark(c: char) -> bool {
    matches!(c,
        '\u{300}'..='\u{36f}' | '\u{483}'..='\u{489}' | '\u{1ab0}'..='\u{1aff}' | '\u{1dc0}'..='\u{1dff}'
        | '\u{20d0}'..='\u{20ff}' | '\u{302a}'..='\u{302f}' | '\u{3099}' | '\u{309a}' | '\u{fe20}'..='\u{fe2f}')
}

/// Bytes as text in which everything that is not plain is written as an escape, and every mark that goes onto what comes
/// before it. A backslash is doubled, so that two different byte strings never look the same.
pub fn escape(bytes: &[u8]) -> String {
    let mut out = String::with_capacity(bytes.len());
    for chunk in bytes.utf8_chunks() {
        for c in chunk.valid().chars() {
            match c {
                '\\' => out.push_str("\\\\"),
                c => put_visible(&mut out, c),
            }
        }
        for byte in chunk.invalid() {
            out += &format!("\\x{byte:02x}");
        }
    }
    out
}

/// Appends a character, or its escape as in [`escape`]. For texts that people wrote and look for as they wrote them: a
/// backslash stays alone.
pub fn put_visible(out: &mut String, c: char) {
    match c {
        '\n' => out.push_str("\\n"),
        '\t' => out.push_str("\\t"),
        c if is_plain(c) && !is_mark(c) => out.push(c),
        c if (c as u32) < 0x100 => *out += &format!("\\x{:02x}", c as u32),
        c => *out += &format!("\\u{{{:x}}}", c as u32),
    }
}

/// Bytes as they are, if [`escape`] would change nothing.
pub fn plain(bytes: &[u8]) -> Option<&str> {
    let printable = |byte: &u8| (b' '..=b'~').contains(byte) && *byte != b'\\';
    let text = std::str::from_utf8(bytes).ok()?;
    let whole = |c: char| is_plain(c) && !is_mark(c) && c != '\\';
    let plain = bytes.iter().all(printable) || text.chars().all(whole);
    plain.then_some(text)
}

/// Lower-case hexadecimal.
pub fn hex(bytes: &[u8]) -> String {
    let mut out = Vec::with_capacity(2 * bytes.len());
    put_hex(&mut out, bytes);
    String::from_utf8(out).expect("digits")
}

/// Appends lower-case hexadecimal.
pub(crate) fn put_hex(out: &mut Vec<u8>, bytes: &[u8]) {
    const DIGITS: &[u8; 16] = b"0123456789abcdef";
    for byte in bytes {
        out.extend([DIGITS[usize::from(byte >> 4)], DIGITS[usize::from(byte & 0xf)]]);
    }
}

/// A session's id as people see it: 32 digits.
pub fn session_id(id: [u64; 2]) -> String {
    hex(&[id[0].to_be_bytes(), id[1].to_be_bytes()].concat())
}

/// Nanoseconds since 1970 as RFC 3339 in UTC with nanoseconds.
pub fn rfc3339(nanoseconds: i128) -> String {
    let mut out = Vec::with_capacity(30);
    put_rfc3339(&mut out, nanoseconds);
    String::from_utf8(out).expect("digits")
}

/// Appends the same.
pub(super) fn put_rfc3339(out: &mut Vec<u8>, nanoseconds: i128) {
    // Whatever a clock can say fits 64 bits, in which dividing is quick.
    let nanoseconds = i64::try_from(nanoseconds).unwrap_or(i64::MAX);
    let (seconds, fraction) = (nanoseconds.div_euclid(1_000_000_000), nanoseconds.rem_euclid(1_000_000_000));
    let (days, rest) = (seconds.div_euclid(86_400), seconds.rem_euclid(86_400));
    let (year, month, day) = civil(days);
    for (number, digits, after) in [
        (year, 4, b'-'),
        (month, 2, b'-'),
        (day, 2, b'T'),
        (rest / 3600, 2, b':'),
        (rest / 60 % 60, 2, b':'),
        (rest % 60, 2, b'.'),
        (fraction, 9, b'Z'),
    ] {
        let mut unit = 10i64.pow(digits - 1);
        while unit > 0 {
            out.push(b'0' + (number / unit % 10) as u8);
            unit /= 10;
        }
        out.push(after);
    }
}

/// The date of a day since 1970-01-01, by eras of 400 years that begin on 1 March.
fn civil(days: i64) -> (i64, i64, i64) {
    let shifted = days + 719_468;
    let (era, day_of_era) = (shifted.div_euclid(146_097), shifted.rem_euclid(146_097));
    let year_of_era = (day_of_era - day_of_era / 1460 + day_of_era / 36_524 - day_of_era / 146_096) / 365;
    let day_of_year = day_of_era - (365 * year_of_era + year_of_era / 4 - year_of_era / 100);
    let shifted_month = (5 * day_of_year + 2) / 153;
    let day = day_of_year - (153 * shifted_month + 2) / 5 + 1;
    let month = if shifted_month < 10 { shifted_month + 3 } else { shifted_month - 9 };
    (era * 400 + year_of_era + i64::from(month <= 2), month, day)
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    #[test]
    fn plain_text_is_shown_as_it_is() {
        assert_eq!(escape("/workspace/Übung 1.csv".as_bytes()), "/workspace/Übung 1.csv");
        assert_eq!(plain(b"/a b"), Some("/a b"));
    }

    #[test]
    fn control_ansi_and_bidi_characters_are_escaped() {
        assert_eq!(escape(b"/tmp/a\n{\"verdict\":\"allow\"}"), "/tmp/a\\n{\"verdict\":\"allow\"}");
        assert_eq!(escape(b"\x1b[31mred\x7f"), "\\x1b[31mred\\x7f");
        assert_eq!(escape("a\u{202e}b\u{2066}\u{9b}".as_bytes()), "a\\u{202e}b\\u{2066}\\x9b");
        assert_eq!(escape(b"\xff\xfe"), "\\xff\\xfe");
        assert_eq!(plain(b"\xff"), None);
    }

    #[test]
    fn what_is_not_seen_is_escaped() {
        let ranges = [
            0xa0..=0xa0,
            0xad..=0xad,
            0x34f..=0x34f,
            0x61c..=0x61c,
            0x115f..=0x1160,
            0x1680..=0x1680,
            0x17b4..=0x17b5,
            0x180b..=0x180f,
            0x2000..=0x200f,
            0x2028..=0x202f,
            0x205f..=0x206f,
            0x2800..=0x2800,
            0x3000..=0x3000,
            0x3164..=0x3164,
            0xe000..=0xf8ff,
            0xfdd0..=0xfdef,
            0xfe00..=0xfe0f,
            0xfeff..=0xfeff,
            0xffa0..=0xffa0,
            0xfff0..=0xfffb,
            0xfffe..=0xffff,
            0x1bca0..=0x1bca3,
            0x1d173..=0x1d17a,
            0x1fffe..=0x1ffff,
            0xe0000..=0xe0fff,
            0xf0000..=0x10ffff,
        ];
        for c in ranges.into_iter().flatten().filter_map(char::from_u32) {
            let name = format!("/w/a{c}b");
            assert!(!is_plain(c), "U+{:04X}", c as u32);
            assert!(
                plain(name.as_bytes()).is_none() && escape(name.as_bytes()).is_ascii(),
                "U+{:04X}",
                c as u32
            );
        }
        assert_eq!(escape("/w/\u{fe0e}x\u{34f}".as_bytes()), "/w/\\u{fe0e}x\\u{34f}");
    }

    #[test]
    fn letters_of_all_scripts_are_shown() {
        for text in ["Ünïcödé", "Ελλάδα", "наука", "日本語", "हिन्दी", "한국어", "🎉", "¡ola!", "\u{fffd}"]
        {
            assert_eq!(plain(text.as_bytes()), Some(text));
            assert_eq!(escape(text.as_bytes()), text);
        }
    }

    #[test]
    fn marks_that_go_onto_other_characters_are_escaped() {
        assert_eq!(escape("\u{301}a".as_bytes()), "\\u{301}a");
        assert_eq!(escape("e\u{301}".as_bytes()), "e\\u{301}");
        for mark in ['\u{300}', '\u{36f}', '\u{1ab0}', '\u{1dc0}', '\u{20d0}', '\u{20dd}', '\u{fe20}'] {
            assert_eq!(plain(format!("a{mark}").as_bytes()), None, "{mark:?}");
        }
    }

    #[test]
    fn an_escape_cannot_be_imitated() {
        assert_ne!(escape(b"\\x1b"), escape(b"\x1b"));
    }

    #[test]
    fn times_are_rfc_3339() {
        assert_eq!(rfc3339(0), "1970-01-01T00:00:00.000000000Z");
        assert_eq!(rfc3339(951_782_400_000_000_001), "2000-02-29T00:00:00.000000001Z");
        assert_eq!(rfc3339(1_767_225_599_999_999_999), "2025-12-31T23:59:59.999999999Z");
        assert_eq!(rfc3339(-1), "1969-12-31T23:59:59.999999999Z");
    }

    proptest! {
        #[test]
        fn escaped_text_is_always_plain(bytes: Vec<u8>) {
            prop_assert!(escape(&bytes).chars().all(is_plain));
        }

        #[test]
        fn different_bytes_never_look_the_same(a: Vec<u8>, b: Vec<u8>) {
            prop_assert_eq!(a == b, escape(&a) == escape(&b));
        }
    }
}
