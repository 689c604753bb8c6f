//! A body inside a string: an SDK's print of an error, a relay's copy of one, at any depth of escaping. Pure.
//!
//! Two sorts of evidence come out of a string. A body (an object, in whatever language's print) is as good as one that
//! stands there in JSON: it outranks what is around it. What a print says in words (`Error 429, … Status:
//! RESOURCE_EXHAUSTED`, gRPC's text form) fills in what the answer itself leaves open.

use std::borrow::Cow;
use std::cell::Cell;
use std::time::Duration;

use serde::de::DeserializeSeed;

use super::fields::{Fields, Print};
use super::json::Envelope;
use super::literal::{self, Found, candidate, unescape};
use super::scalar::Scalar;
use super::sentence;
use super::text;

/// Strings inside strings that are opened. gemini-cli opens ten.
const MAX_LEVELS: u8 = 12;
/// Layers of escapes that are taken off one string.
const MAX_LAYERS: u8 = 12;
/// Bytes read in all strings together, those of each level and layer counted again: so many times the body's own, so that the
/// time stays linear, and never more than a body of the usual limit needs.
const MAX_TIMES: usize = 16;
const MAX_BYTES: usize = 2 * 1024 * 1024;
/// Of a string that is read for words. Prints are short, whatever is in them.
const MAX_WORDS: usize = 16 * 1024;

/// What one judgement needs to know everywhere, and what it may spend.
#[derive(Debug)]
pub(super) struct Context {
    /// The response's status.
    pub(super) http: u16,
    left: Cell<usize>,
}

impl Context {
    /// For a body of so many bytes.
    pub(super) fn new(http: u16, bytes: usize) -> Self {
        let left = bytes.saturating_mul(MAX_TIMES).saturating_add(MAX_WORDS).min(MAX_BYTES);
        Self { http, left: Cell::new(left) }
    }

    pub(super) fn spend(&self, bytes: usize) -> bool {
        match self.left.get().checked_sub(bytes) {
            Some(left) => {
                self.left.set(left);
                true
            }
            None => false,
        }
    }

    /// Takes the facts of the body in `text` over, if there is one.
    pub(super) fn open(&self, fields: &mut Fields<'_>, text: &str, level: u8) -> bool {
        // No body is without a brace, and most strings are.
        if fields.unwrapped || memchr::memchr(b'{', text.as_bytes()).is_none() {
            return false;
        }
        match self.body_in(text, level) {
            Some(inner) => {
                fields.take_over(inner);
                true
            }
            None => false,
        }
    }

    /// The facts of the first body in `text`.
    pub(super) fn body_in(&self, text: &str, level: u8) -> Option<Fields<'static>> {
        if level >= MAX_LEVELS {
            return None;
        }
        let mut text = Cow::Borrowed(text);
        'layers: for _ in 0..MAX_LAYERS {
            let mut at = 0;
            if let Some(start) = candidate(&text, 0).filter(|start| has_foreign_layer(&text, *start)) {
                let inner = self.spend(text.len()).then(|| unescape(&text[start..]));
                if let Some(fields) = inner.and_then(|inner| self.body_in(&inner, level + 1)) {
                    return Some(self.with_words(fields, &text));
                }
            }
            while let Some(start) = candidate(&text, at) {
                let rest = &text[start..];
                match literal::read(rest) {
                    Found::Layered => {
                        if !self.spend(rest.len()) {
                            return None;
                        }
                        text = Cow::Owned(unescape(rest));
                        continue 'layers;
                    }
                    Found::Nothing(len) => {
                        if !self.spend(len) {
                            return None;
                        }
                        at = boundary(&text, start + len.max(1));
                    }
                    Found::Literal { json, len, whole } => {
                        if !self.spend(len) {
                            return None;
                        }
                        at = boundary(&text, start + len.max(1));
                        if let Some(fields) = self.body(&json, &text[start..start + len], whole, level) {
                            // A body whose inner one has lost its escapes breaks off where that begins.
                            let broken = !whole && at < text.len() && !fields.has_details();
                            let inner = broken.then(|| self.body_in(&text[at..], level + 1)).flatten();
                            let inner = inner.filter(|inner| inner.has_error && inner.has_details());
                            return Some(self.with_words(inner.unwrap_or(fields), &text));
                        }
                    }
                }
            }
            return None;
        }
        None
    }

    /// The facts of a literal, if it is a body.
    fn body(&self, json: &str, printed: &str, whole: bool, level: u8) -> Option<Fields<'static>> {
        let mut fields = Fields::default();
        let mut de = serde_json::Deserializer::from_str(json);
        let envelope = Envelope { fields: &mut fields, context: self, level: level + 1 };
        let read = envelope.deserialize(&mut de).is_ok();
        // Details alone are told from gRPC's text form by being whole, and by being members.
        let detailed = whole && read && fields.has_details();
        fields.settle(self);
        if !(whole && read) && fields.has_error {
            // Of a body that breaks off, what stands before the break counts.
            text::scan(&mut fields, printed, 200);
        }
        (fields.has_error || detailed).then(|| fields.into_owned())
    }

    /// Details without an envelope have their status in the words in front of them.
    fn with_words(&self, mut fields: Fields<'static>, text: &str) -> Fields<'static> {
        if fields.code.is_none() && fields.status.is_none() && fields.code_name.is_none() {
            let mut words = Fields::default();
            text::print(&mut words, clip(text), 200);
            let status = words.status.map(|s| Cow::Owned(s.into_owned()));
            // A name of its own says more than what stands for a number.
            let is_named = fields.sort.as_deref().and_then(super::reason::by_name).is_some();
            (fields.code, fields.status) = (words.code, status.filter(|_| !is_named));
        }
        fields.has_error = true;
        fields
    }

    /// Keeps what a print in a member without a name of ours says: the first one that says anything.
    pub(super) fn note(&self, fields: &mut Fields<'_>, text: &str) {
        if fields.print.is_none() && text.len() > 8 && self.spend(text.len().min(MAX_WORDS)) {
            fields.print = Print::read(text).map(Box::new);
        }
    }
}

/// Whether a layer of escapes was put around the object at `start` by somebody who does not escape its quotes: Python's
/// print of a text or of bytes around JSON, JSON's escapes around Python's print.
///
/// The number of backslashes in front of a quote tells: JSON's own leave an odd number in front of a double quote, Python's
/// in front of a single one.
fn has_foreign_layer(text: &str, start: usize) -> bool {
    let bytes = &text.as_bytes()[start..];
    let run = |mark: &[u8; 2]| {
        let at = memchr::memmem::find(bytes, mark)?;
        Some(bytes[..=at].iter().rev().take_while(|b| **b == b'\\').count())
    };
    let (double, single) = (run(b"\\\""), run(b"\\'"));
    match bytes.iter().skip(1).find(|b| !b.is_ascii_whitespace() && **b != b'{') {
        Some(b'"') => match double {
            Some(run) => run % 2 == 0,
            None => {
                let opens = text[..start].ends_with("b'") || text[..start].ends_with("b\"");
                opens && memchr::memchr(b'\\', bytes).is_some()
            }
        },
        Some(b'\'') => double.is_some_and(|run| run % 2 == 1) || single.is_some_and(|run| run % 2 == 0),
        _ => false,
    }
}

fn boundary(text: &str, mut at: usize) -> usize {
    while !text.is_char_boundary(at) {
        at += 1;
    }
    at
}

fn clip(text: &str) -> &str {
    super::message::clip(text, MAX_WORDS)
}

/// A print without the escapes that were put around it as a whole.
pub(super) fn plain(text: &str) -> Cow<'_, str> {
    let mut text = without_false_ends(text);
    for _ in 0..MAX_LAYERS {
        let escaped =
            [&b"\\\""[..], b"\\n"].iter().any(|mark| memchr::memmem::find(text.as_bytes(), mark).is_some());
        if !escaped {
            break;
        }
        text = Cow::Owned(unescape(&text));
    }
    text
}

/// The text without the quotes that end a string in the middle of a quoted value inside it.
///
/// A quote inside a string has more backslashes in front of it than the string's own. Where the body was cut inside a value,
/// the value's quote is still open when the string around it ends; unescaped, that end would read as the value's, and half an
/// id as a whole one.
fn without_false_ends(text: &str) -> Cow<'_, str> {
    let bytes = text.as_bytes();
    let (mut out, mut from) = (String::new(), 0);
    // The backslashes in front of each quote that is open, fewest first.
    let mut open: Vec<usize> = Vec::new();
    for at in memchr::memchr_iter(b'"', bytes) {
        let run = bytes[from..at].iter().rev().take_while(|b| **b == b'\\').count();
        let cut = open.last().is_some_and(|last| *last > run) && open.contains(&run);
        while open.last().is_some_and(|last| *last > run) {
            open.pop();
        }
        if cut {
            out.push_str(&text[from..at - run]);
            // No id has a line feed in it.
            out.push('\n');
            from = at + 1;
        }
        if open.last() == Some(&run) {
            open.pop();
        } else {
            open.push(run);
        }
    }
    if from == 0 {
        return Cow::Borrowed(text);
    }
    out.push_str(&text[from..]);
    Cow::Owned(out)
}

impl Print {
    /// `None` where `text` is no print.
    pub(super) fn read(text: &str) -> Option<Self> {
        let mut fields = Fields::default();
        let plain = plain(clip(text));
        let text = plain.as_ref();
        text::print(&mut fields, text, 200);
        let names_status = fields.code.is_some() || fields.status.is_some();
        let is_sentence = !names_status && sentence::is_known(text);
        if !names_status && !is_sentence && !fields.has_details() {
            return None;
        }
        if fields.message.is_empty() {
            fields.message = Cow::Borrowed(text);
        }
        Some(Self { fields: fields.into_owned(), is_sentence })
    }
}

/// The unit of a relay's own delay: `reset_seconds`, `retryAfterMs`, `cooldown`.
#[derive(Clone, Copy, Debug, PartialEq)]
pub(super) enum Unit {
    Millis,
    Seconds,
    Minutes,
}

impl Unit {
    /// The unit of a member that is a delay by its name: a word for it, and nothing but units and small words beside it.
    pub(super) fn of(name: &str) -> Option<Self> {
        // Most names are longer, or begin with another letter.
        if name.len() > 32
            || !matches!(name.as_bytes().first(), Some(b'r' | b'R' | b'c' | b'C' | b'w' | b'W' | b'q' | b'b'))
        {
            return None;
        }
        let (mut unit, mut named) = (Self::Seconds, false);
        for word in super::quota::words_of(name) {
            match word.to_ascii_lowercase().as_str() {
                "retry" | "reset" | "resets" | "cooldown" | "wait" | "backoff" => named = true,
                "ms" | "millis" | "milliseconds" | "msec" => unit = Self::Millis,
                "minutes" | "mins" => unit = Self::Minutes,
                "after" | "in" | "for" | "seconds" | "second" | "secs" | "sec" | "s" | "time" | "delay"
                | "quota" | "remaining" | "left" | "duration" | "suggested" | "cool" | "down" | "hint" => {}
                _ => return None,
            }
        }
        let named = named || name.to_ascii_lowercase().replace(['_', '-'], "").starts_with("cooldown");
        named.then_some(unit)
    }

    /// The delay; `None` for what is none, such as an instant.
    pub(super) fn of_value(self, value: &Scalar<'_>) -> Option<Duration> {
        // Instants are written as seconds since 1970.
        const LONGEST: Duration = Duration::from_secs(366 * 86_400);
        let bare = match value {
            Scalar::Text(text) => text.trim().parse::<f64>().is_ok(),
            _ => true,
        };
        let delay = value.duration()?;
        let delay = match self {
            Self::Millis if bare => delay.checked_div(1000)?,
            Self::Minutes if bare => delay.checked_mul(60)?,
            _ => delay,
        };
        Some(delay).filter(|delay| *delay < LONGEST)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_delay_is_known_by_its_name_and_has_a_unit() {
        for (name, unit) in [
            ("reset_seconds", Some(Unit::Seconds)),
            ("reset_time", Some(Unit::Seconds)),
            ("resetInSeconds", Some(Unit::Seconds)),
            ("retryAfterMs", Some(Unit::Millis)),
            ("retry_after", Some(Unit::Seconds)),
            ("Retry-After", Some(Unit::Seconds)),
            ("cooldown", Some(Unit::Seconds)),
            ("cooldownSecondsRemaining", Some(Unit::Seconds)),
            ("cool_down_minutes", Some(Unit::Minutes)),
            ("wait_ms", Some(Unit::Millis)),
            ("resets_in_seconds", Some(Unit::Seconds)),
            ("quotaResetDelay", Some(Unit::Seconds)),
            ("retryable", None),
            ("retries", None),
            ("reset_at", None),
            ("retry_count", None),
            ("waiting_list", None),
            ("quota", None),
            ("request_id", None),
            ("raw", None),
        ] {
            assert_eq!(Unit::of(name), unit, "{name}");
        }
        let text = |text: &'static str| Scalar::Text(Cow::Borrowed(text));
        let seconds = Duration::from_secs;
        assert_eq!(Unit::Seconds.of_value(&text("156h0m34s")), Some(seconds(561_634)));
        assert_eq!(Unit::Millis.of_value(&Scalar::Integer(1500)), Some(Duration::from_millis(1500)));
        assert_eq!(Unit::Millis.of_value(&text("2s")), Some(seconds(2)));
        assert_eq!(Unit::Minutes.of_value(&Scalar::Number(1.5)), Some(seconds(90)));
        assert_eq!(Unit::Seconds.of_value(&Scalar::Integer(1_796_000_000)), None, "an instant");
        assert_eq!(Unit::Seconds.of_value(&text("2026-11-29T00:00:00Z")), None);
    }
}
