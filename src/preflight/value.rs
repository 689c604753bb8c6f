//! A name, or a short value, that may arrive in pieces. Pure.

use crate::scan::find2;

/// The longest that is kept. Names of models have up to 50 bytes, and numbers of more digits are no one's.
const MAX: usize = 64;

#[derive(Clone, Copy, Debug)]
pub(super) struct Value {
    bytes: [u8; MAX],
    /// Longer than [`MAX`] where it has not all of it.
    len: u8,
    escape: Escape,
    /// The value of a `\u` escape under way.
    unit: u16,
}

#[derive(Clone, Copy, Debug, PartialEq)]
enum Escape {
    None,
    Backslash,
    /// As many digits of a `\u` escape are missing.
    Hex(u8),
}

impl Default for Value {
    fn default() -> Self {
        Self { bytes: [0; MAX], len: 0, escape: Escape::None, unit: 0 }
    }
}

impl Value {
    pub(super) const fn clear(&mut self) {
        (self.len, self.escape) = (0, Escape::None);
    }

    /// The whole of it; `None` where it is too long.
    pub(super) fn text(&self) -> Option<&[u8]> {
        self.bytes.get(..usize::from(self.len))
    }

    fn push(&mut self, bytes: &[u8]) {
        let at = usize::from(self.len);
        match self.bytes.get_mut(at..at + bytes.len()) {
            Some(place) => {
                place.copy_from_slice(bytes);
                self.len += bytes.len() as u8;
            }
            None => self.len = MAX as u8 + 1,
        }
    }

    /// A string up to its closing quote: how many bytes of it are here, the quote included, and whether that is here.
    pub(super) fn string(&mut self, bytes: &[u8]) -> (usize, bool) {
        let mut at = 0;
        while let Some(&byte) = bytes.get(at) {
            match self.escape {
                Escape::None => {
                    let plain = find2(b'"', b'\\', &bytes[at..]).unwrap_or(bytes.len() - at);
                    self.push(&bytes[at..at + plain]);
                    at += plain;
                    match bytes.get(at) {
                        Some(b'"') => return (at + 1, true),
                        Some(_) => self.escape = Escape::Backslash,
                        None => return (at, false),
                    }
                }
                Escape::Backslash if byte == b'u' => (self.escape, self.unit) = (Escape::Hex(4), 0),
                Escape::Backslash => {
                    self.escape = Escape::None;
                    self.push(&[match byte {
                        b'n' => b'\n',
                        b't' => b'\t',
                        b'r' => b'\r',
                        b'b' => 8,
                        b'f' => 12,
                        byte => byte,
                    }]);
                }
                Escape::Hex(left) => {
                    let digit = char::from(byte).to_digit(16).unwrap_or(0);
                    self.unit = self.unit << 4 | digit as u16;
                    self.escape = if left > 1 { Escape::Hex(left - 1) } else { Escape::None };
                    if left == 1 {
                        // Nothing that is looked for has any other letter.
                        self.push(&[u8::try_from(self.unit).ok().filter(u8::is_ascii).unwrap_or(b'?')]);
                    }
                }
            }
            at += 1;
        }
        (at, false)
    }

    /// A number or a word up to the byte after it: how many bytes of it are here, and whether that byte is.
    pub(super) fn literal(&mut self, bytes: &[u8]) -> (usize, bool) {
        let part = |b: &u8| !(b.is_ascii_alphanumeric() || matches!(b, b'+' | b'-' | b'.'));
        let end = bytes.iter().position(part);
        let n = end.unwrap_or(bytes.len());
        self.push(&bytes[..n]);
        (n, end.is_some())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_string_is_read_with_its_escapes_wherever_it_is_cut() {
        let (longest, longer) = ("x".repeat(MAX), "x".repeat(MAX + 1));
        for (written, read) in [
            ("topP", Some("topP")),
            (r"top\u0050", Some("topP")),
            (r"\u0074op\u0050", Some("topP")),
            (r"top\u00e9", Some("top?")),
            (r"a\n\t\r\b\f\/\\b", Some("a\n\t\r\u{8}\u{c}/\\b")),
            (&*longest, Some(&*longest)),
            (&*longer, None),
        ] {
            let text = format!("{written}\" and more");
            for cut in 0..=written.len() {
                let (mut value, (front, back)) = (Value::default(), text.as_bytes().split_at(cut));
                assert_eq!(value.string(front), (cut, false), "{written} at {cut}");
                assert_eq!(value.string(back), (written.len() + 1 - cut, true), "{written} at {cut}");
                assert_eq!(value.text(), read.map(str::as_bytes), "{written} at {cut}");
            }
        }
    }

    #[test]
    fn a_literal_ends_before_what_is_none_of_its() {
        for (text, cut) in [("-1.5e+3,", 0), ("-1.5e+3}", 3), ("-1.5e+3 ", 7)] {
            let mut value = Value::default();
            assert_eq!(value.literal(&text.as_bytes()[..cut]), (cut, false));
            assert_eq!(value.literal(&text.as_bytes()[cut..]), (7 - cut, true));
            assert_eq!(value.text(), Some(&b"-1.5e+3"[..]));
        }
    }
}
