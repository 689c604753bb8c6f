//! The usual error, read at once: one envelope in Google's own words, as almost every failure has it. Pure.
//!
//! A shorter way to the same fields as the fold over serde's visitors, which costs as much again as it finds. It takes what
//! it knows and nothing else: a member it does not know, an escape where none belongs, a member that comes twice, anything
//! that is no JSON, and the body goes to the fold. A property below holds the two together.

use std::borrow::Cow;

use memchr::memchr;

use super::fields::{Fields, Violation};
use super::scalar::Scalar;

/// Objects and lists inside each other that are passed over.
const MAX_DEPTH: u8 = 8;

/// Reads `{"error": {…}}`. On `None`, what `fields` hold means nothing.
pub(super) fn read<'a>(fields: &mut Fields<'a>, text: &'a str) -> Option<()> {
    let mut cursor = Cursor { text, at: 0 };
    cursor.expect(b'{')?;
    if cursor.name()? != "error" {
        return None;
    }
    let mut seen = 0_u8;
    cursor.object(&mut |cursor, name| {
        let member = match name {
            "code" => {
                fields.code = Some(cursor.number()?);
                1
            }
            "message" => {
                let (message, escaped) = cursor.prose()?;
                (fields.message, fields.escaped) = (Cow::Borrowed(message), escaped);
                2
            }
            "status" => {
                fields.status = Scalar::Text(Cow::Borrowed(cursor.string()?)).text();
                4
            }
            "details" => {
                cursor.list(&mut |cursor| detail(cursor, fields))?;
                8
            }
            _ => return None,
        };
        let twice = seen & member != 0;
        seen |= member;
        (!twice).then_some(())
    })?;
    // A relay's status is a number at times, and its members stand beside the error.
    let plain =
        fields.status.as_deref().is_none_or(|status| !status.starts_with(|c: char| c.is_ascii_digit()));
    if seen == 0 || !plain || cursor.next()? != b'}' {
        return None;
    }
    fields.has_error = true;
    Some(())
}

fn detail<'a>(cursor: &mut Cursor<'a>, fields: &mut Fields<'a>) -> Option<()> {
    cursor.object(&mut |cursor, name| {
        match name {
            "@type" | "links" | "fieldViolations" | "locale" | "detail" | "stackEntries" => cursor.skip(0)?,
            "violations" => cursor.list(&mut |cursor| {
                let (mut violation, mut is_described) = (Violation::default(), false);
                cursor.object(&mut |cursor, name| {
                    match name {
                        "quotaMetric" | "quotaId" | "quotaValue" => {
                            violation.set(name, Scalar::Text(Cow::Borrowed(cursor.string()?)));
                        }
                        "quotaDimensions" => cursor.object(&mut |cursor, name| {
                            let value = cursor.string()?;
                            if name == "model" {
                                violation.model = Scalar::Text(Cow::Borrowed(value)).text();
                            }
                            Some(())
                        })?,
                        "subject" | "type" | "apiService" => cursor.skip(0)?,
                        "description" => {
                            is_described = true;
                            cursor.skip(0)?;
                        }
                        _ => return None,
                    }
                    Some(())
                })?;
                if !violation.is_empty() {
                    fields.violations.push(violation);
                } else if is_described {
                    // It may stand in the place of a name.
                    return None;
                }
                Some(())
            })?,
            "retryDelay" => {
                let delay = Scalar::Text(Cow::Borrowed(cursor.string()?)).duration();
                fields.retry_info = fields.retry_info.max(delay);
            }
            "reason" => {
                let reason = Scalar::Text(Cow::Borrowed(cursor.string()?)).text();
                fields.reason = fields.reason.take().or(reason);
            }
            "domain" => {
                let domain = Scalar::Text(Cow::Borrowed(cursor.string()?)).text();
                fields.domain = fields.domain.take().or(domain);
            }
            "metadata" => cursor.object(&mut |cursor, name| {
                fields.metadata.set(name, Scalar::Text(Cow::Borrowed(cursor.string()?)));
                Some(())
            })?,
            _ => return None,
        }
        Some(())
    })
}

struct Cursor<'a> {
    text: &'a str,
    at: usize,
}

impl<'a> Cursor<'a> {
    /// The next byte that is no blank, which is taken.
    #[inline(always)]
    fn next(&mut self) -> Option<u8> {
        let bytes = self.text.as_bytes();
        loop {
            let byte = *bytes.get(self.at)?;
            self.at += 1;
            match byte {
                // Google indents by two, and a third of the body is that.
                b'\n' => {
                    while bytes.get(self.at..self.at + 8).is_some_and(|eight| eight == b"        ") {
                        self.at += 8;
                    }
                }
                b' ' | b'\r' | b'\t' => {}
                byte => return Some(byte),
            }
        }
    }

    #[inline(always)]
    fn expect(&mut self, byte: u8) -> Option<()> {
        (self.next()? == byte).then_some(())
    }

    /// A member's name, and the colon behind it.
    #[inline(always)]
    fn name(&mut self) -> Option<&'a str> {
        let name = self.string()?;
        self.expect(b':')?;
        // The fold takes the blanks off.
        (!name.starts_with(' ') && !name.ends_with(' ')).then_some(name)
    }

    /// A string without an escape.
    #[inline]
    fn string(&mut self) -> Option<&'a str> {
        self.expect(b'"')?;
        let rest = &self.text.as_bytes()[self.at..];
        let len = special(rest)?;
        if rest[len] != b'"' {
            return None;
        }
        let text = &self.text[self.at..self.at + len];
        self.at += len + 1;
        Some(text)
    }

    /// A string with escapes that hide nothing, in which no body stands; and whether it has any.
    fn prose(&mut self) -> Option<(&'a str, bool)> {
        self.expect(b'"')?;
        let from = self.at;
        let escaped = self.pass_string(true)?;
        let text = &self.text[from..self.at - 1];
        memchr(b'{', text.as_bytes()).is_none().then_some((text, escaped))
    }

    /// To the end of a string. `plain` takes only the escapes of one letter.
    fn pass_string(&mut self, plain: bool) -> Option<bool> {
        let bytes = self.text.as_bytes();
        let mut escaped = false;
        loop {
            let rest = &bytes[self.at..];
            let len = special(rest)?;
            self.at += len + 1;
            match rest[len] {
                b'"' => return Some(escaped),
                b'\\' => escaped = true,
                // JSON takes it in no string.
                _ => return None,
            }
            match rest.get(len + 1)? {
                b'"' | b'\\' | b'n' | b't' | b'r' | b'b' | b'f' => self.at += 1,
                b'/' if !plain => self.at += 1,
                b'u' if !plain && rest.get(len + 2..len + 6)?.iter().all(u8::is_ascii_hexdigit) => {
                    self.at += 5
                }
                _ => return None,
            }
        }
    }

    /// A status code: at most five digits.
    fn number(&mut self) -> Option<u16> {
        let first = self.next()?;
        self.at -= 1;
        let rest = &self.text[self.at..];
        let len = rest.bytes().take_while(u8::is_ascii_digit).count();
        if first == b'0' || !rest[len..].starts_with([',', '}', ' ', '\n', '\r', '\t']) {
            return None;
        }
        self.at += len;
        rest[..len].parse().ok()
    }

    #[inline(always)]
    fn object(&mut self, member: &mut dyn FnMut(&mut Self, &'a str) -> Option<()>) -> Option<()> {
        self.expect(b'{')?;
        if self.peek()? == b'}' {
            self.at += 1;
            return Some(());
        }
        loop {
            let name = self.name()?;
            member(self, name)?;
            match self.next()? {
                b',' => {}
                b'}' => return Some(()),
                _ => return None,
            }
        }
    }

    #[inline(always)]
    fn list(&mut self, element: &mut dyn FnMut(&mut Self) -> Option<()>) -> Option<()> {
        self.expect(b'[')?;
        if self.peek()? == b']' {
            self.at += 1;
            return Some(());
        }
        loop {
            element(self)?;
            match self.next()? {
                b',' => {}
                b']' => return Some(()),
                _ => return None,
            }
        }
    }

    /// The next byte that is no blank, which is left.
    fn peek(&mut self) -> Option<u8> {
        let byte = self.next()?;
        self.at -= 1;
        Some(byte)
    }

    /// Passes over strings, and objects and lists of such.
    fn skip(&mut self, depth: u8) -> Option<()> {
        if depth > MAX_DEPTH {
            return None;
        }
        match self.peek()? {
            b'"' => {
                self.at += 1;
                self.pass_string(false).map(drop)
            }
            b'{' => self.object(&mut |cursor, _| cursor.skip(depth + 1)),
            b'[' => self.list(&mut |cursor| cursor.skip(depth + 1)),
            _ => None,
        }
    }
}

/// Where the first quote, backslash or control byte is, eight bytes at a time: strings here are short, and `memchr` takes
/// long to set out.
#[inline]
fn special(bytes: &[u8]) -> Option<usize> {
    const ONES: u64 = u64::from_ne_bytes([1; 8]);
    const TOPS: u64 = u64::from_ne_bytes([0x80; 8]);
    // The top bit of each byte that is zero, exact up to the first one.
    let zero = |word: u64| word.wrapping_sub(ONES) & !word & TOPS;
    let mut at = 0;
    while let Some(chunk) = bytes.get(at..at + 8) {
        let word = u64::from_le_bytes(chunk.try_into().expect("eight bytes"));
        let control = word.wrapping_sub(ONES * 0x20) & !word & TOPS;
        let found = zero(word ^ (ONES * u64::from(b'"'))) | zero(word ^ (ONES * u64::from(b'\\'))) | control;
        if found != 0 {
            return Some(at + found.trailing_zeros() as usize / 8);
        }
        at += 8;
    }
    bytes[at..].iter().position(|b| matches!(b, b'"' | b'\\' | 0..0x20)).map(|n| at + n)
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::super::nest::Context;
    use super::*;

    /// Both readers, as they print: `None` where the short way is not taken.
    fn both(text: &str) -> Option<(String, String)> {
        let (mut short, mut long) = (Fields::default(), Fields::default());
        read(&mut short, text)?;
        let context = Context::new(429, text.len());
        short.settle(&context);
        let whole = long.fold(text, &context) == super::super::fields::Read::Whole;
        assert!(whole, "{text}");
        Some((format!("{short:?}"), format!("{long:?}")))
    }

    #[test]
    fn the_usual_bodies_go_the_short_way() {
        let dir = format!("{}/tests/fixtures", env!("CARGO_MANIFEST_DIR"));
        let mut short = 0;
        for entry in std::fs::read_dir(dir).expect("the fixtures") {
            let path = entry.expect("an entry").path();
            let Ok(text) = std::fs::read_to_string(&path) else { continue };
            if let Some((short_way, long_way)) = both(&text) {
                assert_eq!(short_way, long_way, "{}", path.display());
                short += 1;
            }
        }
        assert!(short > 12, "{short} of the fixtures");
    }

    proptest! {
        #[test]
        fn the_first_special_byte_is_found(bytes in prop::collection::vec(prop_oneof![
            Just(b'"'), Just(b'\\'), Just(0x1f), Just(0x20), Just(0x21), Just(0xa0), any::<u8>(), b'a'..=b'z', b'a'..=b'z', b'a'..=b'z'
        ], 0..40)) {
            prop_assert_eq!(special(&bytes), bytes.iter().position(|b| matches!(b, b'"' | b'\\' | 0..0x20)));
        }
    }

    #[test]
    fn what_is_unusual_goes_the_long_way() {
        for text in [
            r#"{"error":{}}"#,
            r#"{"error":{"code":429,"code":500}}"#,
            r#"{"error":{"code":"429"}}"#,
            r#"{"error":{"code":429.5}}"#,
            r#"{"error":{"code":0429}}"#,
            r#"{"error":{"message":"a {b}"}}"#,
            r#"{"error":{"message":"a \u0027"}}"#,
            r#"{"error":{"status":"a\n"}}"#,
            r#"{"error":{"status":"429"}}"#,
            r#"{"error":{"new":1}}"#,
            r#"{"error":{"code":429},"more":1}"#,
            r#"{"error":{"code":429}"#,
            r#"{"error":{"code":429,}}"#,
            r#"{"error":{"details":[{"retryDelay":5}]}}"#,
            r#"{" error":{"code":429}}"#,
            "{\"error\":{\"message\":\"a\nb\"}}",
            r#"[{"error":{"code":429}}]"#,
        ] {
            assert!(both(text).is_none(), "{text}");
        }
    }

    proptest! {
        #![proptest_config(ProptestConfig::with_cases(2000))]

        #[test]
        fn both_ways_lead_to_the_same_facts(
            text in r#"\{"error": ?\{("code": ?[0-9]{1,4}, ?)?("message": "([a-z .:]|\\n|\\"|Please retry in 3s){0,9}",\n? ?)?("details": \[(\{"(@type|reason|domain|retryDelay|locale)": "[a-zA-Z0-9.]{0,6}"\}, ?){0,2}\{"violations": \[(\{("quotaId": "[A-Za-z]{0,5}PerDay", )?"quotaMetric": "[a-z/]{0,5}"(, "quotaDimensions": \{"model": "[a-z]{0,3}"\})?\},?)\{"quotaValue": "[0-9]{0,2}"\}\]\}\], )?"status": "[A-Z_]{0,8}"\}\}"#,
            damage in any::<prop::sample::Index>(),
            byte in prop::sample::select(vec!["", "\"", "\\", "{", "}", "[", "]", ",", ":", " ", "0", "\n", "µ", "\u{1}"]),
        ) {
            for text in [text.clone(), {
                let mut at = damage.index(text.len());
                while !text.is_char_boundary(at) { at -= 1; }
                format!("{}{byte}{}", &text[..at], &text[at..])
            }] {
                if let Some((short, long)) = both(&text) {
                    prop_assert_eq!(short, long, "{}", text);
                }
            }
        }
    }
}
