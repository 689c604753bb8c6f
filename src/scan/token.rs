//! A name, or a short value, that may arrive in pieces. Pure.

use super::near::find2;

/// The longest name that is looked for has 23 bytes, the longest reason 25.
pub(super) const MAX: usize = 32;

/// The bytes that literals are made of.
const LITERAL: [bool; 256] = {
    let mut table = [false; 256];
    let mut byte = 0;
    while byte < 256 {
        table[byte] = (byte as u8).is_ascii_alphanumeric() || matches!(byte as u8, b'+' | b'-' | b'.');
        byte += 1;
    }
    table
};

#[derive(Clone, Copy, Debug)]
pub(super) struct Scratch {
    bytes: [u8; MAX],
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

impl Default for Scratch {
    fn default() -> Self {
        Self { bytes: [0; MAX], len: 0, escape: Escape::None, unit: 0 }
    }
}

impl Scratch {
    pub(super) fn clear(&mut self) {
        (self.len, self.escape) = (0, Escape::None);
    }

    /// What lies over the end is dropped: a longer text is none of those that are looked for.
    fn push(&mut self, byte: u8) {
        if let Some(place) = self.bytes.get_mut(usize::from(self.len)) {
            *place = byte;
            self.len += 1;
        }
    }

    /// A string up to its closing quote: how many bytes that took, and its content.
    #[inline(always)]
    pub(super) fn string<'a>(&'a mut self, bytes: &'a [u8]) -> Option<(usize, &'a [u8])> {
        if self.len == 0 && self.escape == Escape::None {
            // Names are short, and most of them are here in one piece.
            let plain = find2(b'"', b'\\', bytes);
            let ends = |n: &usize| *n < MAX && bytes[*n] == b'"';
            if let Some(n) = plain.filter(ends) {
                return Some((n + 1, &bytes[..n]));
            }
        }
        self.string_in_pieces(bytes)
    }

    #[cold]
    fn string_in_pieces(&mut self, bytes: &[u8]) -> Option<(usize, &[u8])> {
        for (at, byte) in bytes.iter().enumerate() {
            match (self.escape, *byte) {
                (Escape::None, b'"') => return Some((at + 1, &self.bytes[..usize::from(self.len)])),
                (Escape::None, b'\\') => self.escape = Escape::Backslash,
                (Escape::None, byte) => self.push(byte),
                (Escape::Backslash, b'u') => (self.escape, self.unit) = (Escape::Hex(4), 0),
                (Escape::Backslash, byte) => {
                    self.escape = Escape::None;
                    self.push(match byte {
                        b'n' => b'\n',
                        b't' => b'\t',
                        b'r' => b'\r',
                        b'b' => 8,
                        b'f' => 12,
                        byte => byte,
                    });
                }
                (Escape::Hex(left), byte) => {
                    let digit = char::from(byte).to_digit(16).unwrap_or(0);
                    self.unit = self.unit << 4 | digit as u16;
                    self.escape = if left > 1 { Escape::Hex(left - 1) } else { Escape::None };
                    if left == 1 {
                        // No name that is looked for has any other letter.
                        self.push(u8::try_from(self.unit).ok().filter(u8::is_ascii).unwrap_or(b'?'));
                    }
                }
            }
        }
        None
    }

    /// A literal up to the byte after it.
    #[inline]
    pub(super) fn literal<'a>(&'a mut self, bytes: &'a [u8]) -> Option<(usize, &'a [u8])> {
        let end = bytes.iter().position(|b| !LITERAL[usize::from(*b)]);
        if let Some(end) = end.filter(|_| self.len == 0) {
            return Some((end, &bytes[..end]));
        }
        bytes[..end.unwrap_or(bytes.len())].iter().for_each(|byte| self.push(*byte));
        end.map(|end| (end, &self.bytes[..usize::from(self.len)]))
    }
}

/// Whether JSON has such a literal.
pub(super) fn is_literal(text: &[u8]) -> bool {
    match text {
        b"true" | b"false" | b"null" => true,
        _ => is_number(text),
    }
}

fn is_number(text: &[u8]) -> bool {
    let digits = |text: &[u8]| text.iter().take_while(|b| b.is_ascii_digit()).count();
    let text = text.strip_prefix(b"-").unwrap_or(text);
    let whole = digits(text);
    if whole == 0 || (whole > 1 && text[0] == b'0') {
        return false;
    }
    let mut rest = &text[whole..];
    if let [b'.', fraction @ ..] = rest {
        let n = digits(fraction);
        if n == 0 {
            return false;
        }
        rest = &fraction[n..];
    }
    match rest {
        [] => true,
        [b'e' | b'E', b'+' | b'-', exponent @ ..] | [b'e' | b'E', exponent @ ..] => {
            !exponent.is_empty() && digits(exponent) == exponent.len()
        }
        _ => false,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_string_is_read_with_its_escapes_wherever_it_is_cut() {
        for (written, read) in [
            (r"plain", "plain"),
            (r"err\u006Fr", "error"),
            (r"\u0065rror", "error"),
            (r"err\u106Fr", "err?r"),
            (r"err\u00e9r", "err?r"),
            (r"a\n\t\r\b\f\/\\b", "a\n\t\r\u{8}\u{c}/\\b"),
            (r"exactly_thirty-two_bytes_in_here", "exactly_thirty-two_bytes_in_here"),
            (r"\u0065xactly_thirty-two_bytes_in_here", "exactly_thirty-two_bytes_in_here"),
        ] {
            let text = format!("{written}\" and more");
            for cut in 0..=written.len() {
                let (mut scratch, (front, back)) = (Scratch::default(), text.as_bytes().split_at(cut));
                assert_eq!(scratch.string(front), None, "{written} at {cut}");
                let (len, content) = scratch.string(back).expect("it ends here");
                assert_eq!((len, content), (written.len() + 1 - cut, read.as_bytes()), "{written} at {cut}");
            }
        }
    }

    #[test]
    fn a_literal_is_one_of_jsons() {
        for text in ["true", "false", "null", "0", "-0", "7", "10", "0.5", "-1.25", "1e5", "1E+05", "1.5e-3"]
        {
            assert!(is_literal(text.as_bytes()), "{text}");
        }
        for text in [
            "", "-", "tru", "nul", "01", "-01", "00", "1.", ".5", "1.e5", "1e", "1e+", "1ex", "1e5x", "1x",
            "+1",
        ] {
            assert!(!is_literal(text.as_bytes()), "{text}");
        }
    }
}
