//! Reads along with an answer while it passes, a frame at a time, and remembers what it says: how it ends, what
//! it has used, and which error stands in it. Pure.
//!
//! The [`Scanner`] is shown every byte once and keeps none of them but an error's text, at most 8 KiB. Its state
//! is a few hundred bytes whatever the length of the body, and it allocates only for an error, or for a short
//! body that is no JSON. It follows a few known paths; strings and values outside of them are passed over at the
//! speed of memory.
//!
//! It reads server-sent events (all three line ends, comments, data over several lines), an array of objects
//! (`streamGenerateContent` without `alt=sse`), one object, and the bare pretty-printed object with which Google
//! ends a broken stream. The content type is not asked: the first bytes tell.

mod answer;
mod capture;
mod field;
mod json;
mod near;
mod state;
#[cfg(test)]
mod tests;
mod token;

use bytes::Bytes;

pub(crate) use self::answer::Finish;
use self::answer::Mark;
use self::json::Json;
pub(crate) use self::near::{find2, find3};
use self::state::Found;
pub(crate) use self::state::name_hash;
use crate::tier::ServiceTier;
use crate::verdict::{Kind, Usage};

/// The fields of server-sent events, of which only the first is read.
const FIELDS: [&[u8]; 5] = [b"data:", b"event:", b"id:", b"retry:", b":"];

#[derive(Debug, Default)]
pub(crate) struct Scanner {
    form: Form,
    line: Line,
    /// The last byte was a CR: a LF that follows belongs to it.
    cr: bool,
    /// The first line was one of an event stream.
    is_stream: bool,
    /// The brackets that the body began with, before it was known whose they are.
    opened: Opened,
    json: Json,
    found: Found,
}

#[derive(Clone, Copy, Debug, Default, PartialEq)]
enum Form {
    /// Nothing but blanks so far.
    #[default]
    Start,
    /// One value: the whole body, or the bare tail of an event stream.
    Json,
    Events,
    /// Something else, of which the beginning is kept.
    Text,
    /// The same, and it begins as a page does.
    Page,
}

/// The brackets at the beginning of a body that may be JSON, or another language's print.
#[derive(Clone, Copy, Debug, Default, PartialEq)]
enum Opened {
    #[default]
    Nothing,
    Object,
    List,
    Both,
}

impl Opened {
    const fn text(self) -> &'static [u8] {
        match self {
            Self::Nothing => b"",
            Self::Object => b"{",
            Self::List => b"[",
            Self::Both => b"[{",
        }
    }
}

/// Where in a line of an event stream.
#[derive(Clone, Copy, Debug, Default, PartialEq)]
enum Line {
    #[default]
    Start,
    /// As many bytes as told of one of [`FIELDS`].
    Field(u8, u8),
    Data,
    Ignored,
}

impl Scanner {
    #[inline(always)]
    pub(crate) fn new() -> Self {
        Self::default()
    }

    /// Reads the next bytes of the body, cut anywhere.
    pub(crate) fn feed(&mut self, bytes: &[u8]) {
        match self.form {
            Form::Json => {
                self.json.feed(bytes, &mut self.found);
                if !self.is_stream {
                    self.found.keep_foreign(self.opened.text(), bytes);
                }
            }
            Form::Events => self.lines(bytes),
            Form::Text | Form::Page => self.found.capture.text(bytes),
            Form::Start => self.begin(bytes),
        }
    }

    /// Reads the beginning of the body, which tells its form.
    fn begin(&mut self, mut bytes: &[u8]) {
        let blank = |b: &&u8| b" \t\r\n\xef\xbb\xbf".contains(b);
        loop {
            let blanks = bytes.iter().take_while(blank).count();
            if blanks > 0 {
                self.found.answer.mark(Mark::Blanks);
            }
            bytes = &bytes[blanks..];
            let Some(first) = bytes.first() else { return };
            self.opened = match (self.opened, first) {
                (Opened::Nothing, b'{') => Opened::Object,
                (Opened::Nothing, b'[') => Opened::List,
                (Opened::List, b'{') => Opened::Both,
                _ => break,
            };
            bytes = &bytes[1..];
        }
        self.form = match (self.opened, bytes[0]) {
            // A name, or nothing: Python's and JavaScript's prints of an object have other quotes, or none.
            (Opened::Object | Opened::Both, b'"' | b'}') | (Opened::List, b'"' | b'[' | b']') => Form::Json,
            // So is a log line that begins with a time, a level or a status: `[503] The model is overloaded.`
            (Opened::Object | Opened::Both | Opened::List, _) => Form::Text,
            (Opened::Nothing, b'<') => Form::Page,
            (Opened::Nothing, first) if FIELDS.iter().any(|name| name[0] == first) => Form::Events,
            (Opened::Nothing, _) => Form::Text,
        };
        let opened = self.opened.text();
        match self.form {
            // Not kept before the members behind it have told whether this is an answer.
            Form::Json => self.json.feed(opened, &mut self.found),
            _ if !opened.is_empty() => self.feed(opened),
            _ => {}
        }
        self.feed(bytes);
    }

    /// Says that the body is over.
    pub(crate) fn finish(&mut self) {
        match (self.form, self.line) {
            (Form::Events, Line::Field(name, matched)) if !self.is_stream => {
                self.become_text(name, matched, &[])
            }
            (Form::Events, _) => {
                self.json.end_line(&mut self.found);
                self.json.end_event(&mut self.found);
            }
            (Form::Start, _) if self.opened != Opened::Nothing => {
                self.form = Form::Json;
                self.json.feed(self.opened.text(), &mut self.found);
                self.json.finish(&mut self.found);
            }
            (Form::Json, _) => self.json.finish(&mut self.found),
            (Form::Start | Form::Text | Form::Page, _) => {}
        }
    }

    /// What the answer says it has used so far: its last word about it.
    pub(crate) fn usage(&self) -> Option<Usage> {
        self.found.usage()
    }

    /// What no name has as its [hash](name_hash): any model that answers is another one.
    pub(crate) const NO_MODEL: u16 = 2;

    /// Asks for the model that answers, if its name has another [hash](name_hash).
    pub(crate) fn expect(&mut self, model: u16) {
        self.found.expect(model);
    }

    /// The tier that has served, by the answer's usage.
    pub(crate) fn tier(&self) -> Option<ServiceTier> {
        self.found.tier()
    }

    /// The model that says it has answered, where it is not the one that was [expected](Self::expect).
    pub(crate) fn model_version(&self) -> Option<&str> {
        self.found.model_version()
    }

    /// The errors in the answer, as a body that can be judged: for a body that is no JSON and no event stream, or JSON of
    /// no known answer, its whole text. `None` where there is none, and for such a text of more than 8 KiB.
    pub(crate) fn error(&self) -> Option<Bytes> {
        let foreign = self.found.foreign().filter(|_| self.json.is_done());
        foreign.map(Bytes::copy_from_slice).or_else(|| self.found.capture.body())
    }

    /// What is wrong with the answer, errors in it aside, now that it is over; `None` where nothing is.
    pub(crate) fn fault(&self) -> Option<Kind> {
        let answer = &self.found.answer;
        match self.form {
            // A body without a byte is the answer to what has none; one of blanks is what is left of a stream.
            Form::Start => answer.is(Mark::Blanks).then_some(Kind::EmptyResponse),
            Form::Page => Some(Kind::Unknown),
            Form::Text => self.found.capture.is_short_text().then_some(Kind::Unknown),
            Form::Events => answer.fault(true),
            Form::Json if self.is_stream => answer.fault(true),
            Form::Json => match answer.objects {
                0 if answer.is(Mark::Cut) => Some(Kind::Truncated),
                // A stream's list without an element.
                0 if self.found.is_empty_list() => Some(Kind::EmptyResponse),
                0 => Some(Kind::Unknown),
                _ if !self.json.is_done() => answer.fault_of_cut(),
                n => answer.fault(n > 1),
            },
        }
    }

    fn lines(&mut self, bytes: &[u8]) {
        let mut at = 0;
        while at < bytes.len() {
            let byte = bytes[at];
            if std::mem::take(&mut self.cr) && byte == b'\n' {
                at += 1;
                continue;
            }
            match self.line {
                Line::Start => match byte {
                    b'\r' | b'\n' => {
                        self.json.end_event(&mut self.found);
                        self.cr = byte == b'\r';
                        at += 1;
                    }
                    b'{' | b'[' => {
                        self.json.end_event(&mut self.found);
                        self.form = Form::Json;
                        return self.json.feed(&bytes[at..], &mut self.found);
                    }
                    // The usual line, whole: no need to spell it out.
                    _ if bytes[at..].starts_with(FIELDS[0]) => {
                        at += FIELDS[0].len();
                        (self.line, self.is_stream) = (Line::Data, true);
                    }
                    _ => {
                        let name = FIELDS.iter().position(|name| name[0] == byte);
                        // Google's Go client takes an indented object behind one field, whose lines have none.
                        let rest = if self.json.is_open() { Line::Data } else { Line::Ignored };
                        self.line = name.map_or(rest, |name| Line::Field(name as u8, 0));
                    }
                },
                Line::Field(name, matched) => {
                    let field = FIELDS[usize::from(name)];
                    if field[usize::from(matched)] == byte {
                        at += 1;
                        self.line = match () {
                            () if usize::from(matched) + 1 < field.len() => Line::Field(name, matched + 1),
                            () if name == 0 => Line::Data,
                            () => Line::Ignored,
                        };
                        self.is_stream |= matches!(self.line, Line::Data | Line::Ignored);
                    } else if self.is_stream {
                        self.line = Line::Ignored;
                    } else {
                        return self.become_text(name, matched, &bytes[at..]);
                    }
                }
                Line::Data | Line::Ignored => {
                    let end = memchr::memchr2(b'\r', b'\n', &bytes[at..]).map_or(bytes.len(), |n| at + n);
                    if self.line == Line::Data {
                        self.json.feed(&bytes[at..end], &mut self.found);
                    }
                    if end < bytes.len() {
                        if self.line == Line::Data {
                            self.json.end_line(&mut self.found);
                        }
                        self.cr = bytes[end] == b'\r';
                        self.line = Line::Start;
                    }
                    at = end + 1;
                }
            }
        }
    }

    /// It only looked like an event stream: `data` without a colon.
    fn become_text(&mut self, name: u8, matched: u8, rest: &[u8]) {
        self.form = Form::Text;
        self.found.capture.text(&FIELDS[usize::from(name)][..usize::from(matched)]);
        self.found.capture.text(rest);
    }
}

/// For those who look at an answer before it is over.
impl Scanner {
    /// Objects that are complete: events, elements of an array, or the one answer.
    pub(crate) fn events(&self) -> u32 {
        self.found.complete
    }

    /// Whether there is anything complete: an event, whatever its data, an element of an array, or the one answer.
    pub(crate) fn has_said(&self) -> bool {
        self.found.said || self.events() > 0
    }

    /// Whether anything has been delivered that a user would see, thoughts not counted.
    pub(crate) fn delivered(&self) -> bool {
        self.found.answer.delivered()
    }

    /// Whether an error came after something had been delivered.
    pub(crate) fn error_after_output(&self) -> bool {
        self.found.answer.error_after_output
    }

    /// Whether the body is one JSON text, and over before its end.
    pub(crate) fn ends_early(&self) -> bool {
        self.form == Form::Json && !self.is_stream && self.found.answer.is(Mark::Cut)
    }

    /// Whether JSON has turned out to be none, or to break off.
    pub(crate) fn is_broken(&self) -> bool {
        self.found.broken
    }

    /// Whether [`error`](Self::error) is there; without making it.
    pub(crate) fn has_error(&self) -> bool {
        self.found.capture.is_kept() || self.json.is_done() && self.found.foreign().is_some()
    }

    /// Nothing but blanks so far.
    pub(crate) fn is_blank(&self) -> bool {
        self.form == Form::Start && self.opened == Opened::Nothing
    }

    /// The body is neither JSON nor an event stream.
    pub(crate) fn is_text(&self) -> bool {
        matches!(self.form, Form::Text | Form::Page)
    }

    /// The body is a page, such as a login page.
    pub(crate) fn is_page(&self) -> bool {
        self.form == Form::Page
    }

    /// A finish reason that is not known here, as the answer wrote it, up to 32 bytes.
    pub(crate) fn unknown_finish(&self) -> Option<&str> {
        self.found.unknown_finish()
    }

    /// Whether the answer is of a form of which [`delivered`](Self::delivered) can be told: Gemini's, or a chat
    /// completion's.
    pub(crate) fn tells_output(&self) -> bool {
        // A list without an element has delivered nothing, and is no other answer.
        self.found.answer.is_generated() || self.opened == Opened::List && self.found.is_empty_list()
    }

    /// Whether it is an interaction that has begun and neither said anything nor ended.
    pub(crate) fn has_only_begun(&self) -> bool {
        self.found.answer.has_only_begun()
    }

    /// Whether any part of it ended at a limit of its length, or is to be continued.
    pub(crate) fn is_cut_short(&self) -> bool {
        self.found.answer.is_cut_short()
    }

    /// Whether the same request would end the same way: its thoughts have used up its tokens.
    pub(crate) fn is_spent(&self) -> bool {
        self.found.answer.is_spent()
    }
}
