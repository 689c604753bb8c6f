//! JSON in pieces, cut anywhere: the grammar of what is followed, and a way past what is not. Pure.
//!
//! What is followed must be JSON. What is passed over is searched for its end only: strings for a quote, objects
//! and lists for the bracket of their own kind.

use super::answer::Mark;
use super::field::Slot;
use super::near::{find2, find3};
use super::state::Found;
use super::token::{self, Scratch, is_literal};

/// Containers inside each other that are followed: a list, an answer, Code Assist's envelope around it, and
/// `candidates`, `content` and `parts` with their lists are eight.
const MAX_DEPTH: usize = 12;

#[derive(Debug, Default)]
pub(super) struct Json {
    at: At,
    /// What the value to come, or under way, is for.
    slot: Slot,
    /// The first byte of the text was one of an object or a list.
    bracketed: bool,
    /// In a string that is passed over: the last byte was a backslash.
    escaped: bool,
    /// What the innermost container that is followed is for.
    top: Slot,
    depth: u8,
    /// Those around it.
    stack: [Slot; MAX_DEPTH],
    /// A bit for each container, the innermost lowest: whether it is a list.
    lists: u16,
    /// In a container that is passed over: how deep, of what kind, and whether in a string.
    nested: u32,
    square: bool,
    quoted: bool,
    scratch: Scratch,
}

#[derive(Clone, Copy, Debug, Default, PartialEq)]
enum At {
    /// Nothing but blanks so far.
    #[default]
    Start,
    Value,
    /// After `[`.
    FirstElement,
    /// After `{`.
    FirstKey,
    /// After `,` in an object.
    NextKey,
    Key,
    Colon,
    /// After a value.
    Comma,
    /// A string or literal that is read.
    Read,
    Literal,
    /// The first byte of a string that need only not be empty.
    Any,
    /// A string or container that is passed over.
    String,
    Container,
    /// The text is complete. What follows is not looked at.
    Done,
    /// Not JSON.
    Bad,
}

impl Json {
    pub(super) fn is_done(&self) -> bool {
        self.at == At::Done
    }

    /// Whether an object or a list is under way.
    pub(super) const fn is_open(&self) -> bool {
        self.depth > 0
    }

    pub(super) fn feed(&mut self, bytes: &[u8], found: &mut Found) {
        let mut at = 0;
        // Where the part of a kept value begins in these bytes.
        let mut from = 0;
        while at < bytes.len() {
            let byte = bytes[at];
            match self.at {
                At::Done | At::Bad => return,
                At::String => match self.pass_string(&bytes[at..]) {
                    Some(n) => {
                        at += n;
                        self.end_value(&bytes[from..at], found);
                        at = self.hurry(bytes, at);
                    }
                    None => break,
                },
                At::Container => match self.pass_container(&bytes[at..]) {
                    Some(n) => {
                        at += n;
                        self.end_value(&bytes[from..at], found);
                        at = self.hurry(bytes, at);
                    }
                    None => break,
                },
                At::Key => match self.scratch.string(&bytes[at..]) {
                    Some((n, key)) => {
                        at += n;
                        self.slot = found.member(self.top, trim(key));
                        self.at = At::Colon;
                        // The usual spelling is read at once: each turn of this loop is a jump that is hard to
                        // predict.
                        if bytes.get(at) == Some(&b':') {
                            self.at = At::Value;
                            at += 1 + usize::from(bytes.get(at + 1) == Some(&b' '));
                            at = self.quick_value(bytes, at, found);
                        }
                    }
                    None => break,
                },
                At::Read => match self.scratch.string(&bytes[at..]) {
                    Some((n, text)) => {
                        at += n;
                        found.scalar(self.top, self.slot, text, true);
                        self.end_value(&bytes[from..at], found);
                        at = self.hurry(bytes, at);
                    }
                    None => break,
                },
                At::Any => {
                    self.at = At::String;
                    if byte != b'"' {
                        found.text(self.top, self.slot);
                    }
                }
                At::Literal => match self.scratch.literal(&bytes[at..]) {
                    Some((n, text)) => {
                        at += n;
                        if text.len() >= token::MAX || is_literal(text) {
                            found.scalar(self.top, self.slot, text, false);
                            self.end_value(&bytes[from..at], found);
                            at = self.hurry(bytes, at);
                        } else {
                            self.fail(found);
                        }
                    }
                    None => break,
                },
                _ if matches!(byte, b' ' | b'\n' | b'\r' | b'\t') => {
                    // Google's answers are indented.
                    while let Some(b' ' | b'\n' | b'\r' | b'\t') = bytes.get(at) {
                        at += 1;
                    }
                }
                At::Start => {
                    self.bracketed = matches!(byte, b'{' | b'[');
                    self.slot = Slot::Envelope;
                    self.at = At::Value;
                }
                At::FirstElement if byte == b']' => {
                    at += 1;
                    self.close(found);
                }
                // `[DONE]` ends the streams of the OpenAI-compatible surface.
                At::FirstElement if byte == b'D' && self.depth == 1 => {
                    found.answer.foreign = true;
                    self.bracketed = false;
                    self.stop();
                }
                At::Value | At::FirstElement => {
                    from = at;
                    at += usize::from(self.begin_value(byte, found));
                    if self.at == At::FirstKey && bytes.get(at) == Some(&b'"') {
                        at += 1;
                        self.begin_key();
                    }
                }
                At::FirstKey | At::NextKey => match byte {
                    b'"' => {
                        at += 1;
                        self.begin_key();
                    }
                    b'}' if self.at == At::FirstKey => {
                        at += 1;
                        self.close(found);
                    }
                    _ => self.fail(found),
                },
                At::Colon if byte == b':' => {
                    at += 1;
                    self.at = At::Value;
                }
                At::Comma => {
                    at += 1;
                    let list = self.in_list();
                    match byte {
                        b',' if list => {
                            self.slot = self.top;
                            self.at = At::Value;
                        }
                        b',' => self.at = At::NextKey,
                        b']' if list => {
                            self.close(found);
                            at = self.hurry(bytes, at);
                        }
                        b'}' if !list => {
                            self.close(found);
                            at = self.hurry(bytes, at);
                        }
                        _ => self.fail(found),
                    }
                }
                At::Colon => self.fail(found),
            }
        }
        if self.slot.is_kept() && self.in_value() {
            found.capture.push(&bytes[from..]);
        }
    }

    /// A line of an event is over: what may not go on in the next one breaks off, and a new text may begin there.
    pub(super) fn end_line(&mut self, found: &mut Found) {
        match self.at {
            At::Literal => self.feed(b" ", found),
            At::Key | At::Read | At::Any | At::String => self.fail(found),
            At::Container if self.quoted => self.fail(found),
            _ => {}
        }
        if matches!(self.at, At::Done | At::Bad) {
            // An event that breaks off says that there was to be more.
            if self.at == At::Bad && self.bracketed {
                found.answer.mark(Mark::Cut);
            }
            self.at = At::Start;
        }
    }

    /// An event is over.
    pub(super) fn end_event(&mut self, found: &mut Found) {
        if self.at != At::Start {
            self.fail(found);
            self.end_line(found);
        }
    }

    /// The body is over, which is one text.
    pub(super) fn finish(&mut self, found: &mut Found) {
        if !matches!(self.at, At::Done | At::Bad) {
            found.answer.mark(Mark::Cut);
            self.fail(found);
        }
    }

    /// Whether a value is under way.
    fn in_value(&self) -> bool {
        matches!(self.at, At::Read | At::Literal | At::Any | At::String | At::Container)
    }

    const fn in_list(&self) -> bool {
        self.lists & 1 != 0
    }

    /// Breaks off: nothing more is found in this text.
    fn fail(&mut self, found: &mut Found) {
        found.abandon(self.slot == Slot::Error && self.in_value());
        self.stop();
    }

    fn stop(&mut self) {
        self.at = At::Bad;
        (self.depth, self.lists, self.nested) = (0, 0, 0);
        self.top = Slot::Skip;
        (self.escaped, self.quoted) = (false, false);
    }

    fn begin_key(&mut self) {
        self.scratch.clear();
        self.at = At::Key;
    }

    /// Passes a string without escapes or a whole number that is here as a whole, behind a name: as far as the next name where
    /// that is near. Anything else is left as it is, for the states that spell it out.
    #[inline(always)]
    fn quick_value(&mut self, bytes: &[u8], at: usize, found: &mut Found) -> usize {
        let (slot, rest) = (self.slot, &bytes[at..]);
        let len = match rest {
            _ if slot.is_kept() => return at,
            [b'"', text @ ..] => match find2(b'"', b'\\', text) {
                Some(n) if text[n] == b'"' => {
                    if slot.is_scalar() {
                        if n >= token::MAX {
                            return at;
                        }
                        found.scalar(self.top, slot, &text[..n], true);
                    } else if n > 0 && slot.is_any() {
                        found.text(self.top, slot);
                    }
                    n + 2
                }
                _ => return at,
            },
            [b'1'..=b'9', ..] => {
                let digits = rest.iter().take_while(|byte| byte.is_ascii_digit()).count();
                // What else is in a literal is left to its own state.
                if digits >= token::MAX || !matches!(rest.get(digits), Some(b',' | b'}' | b'\n' | b' ')) {
                    return at;
                }
                if slot != Slot::Skip {
                    found.scalar(self.top, slot, &rest[..digits], false);
                }
                digits
            }
            _ => return at,
        };
        // A name stands in an object: there is one around it, and no list's element is over.
        self.at = At::Comma;
        self.hurry(bytes, at + len)
    }

    /// From a value to the next name, where they are written in the usual way: how far that is.
    #[inline(always)]
    fn hurry(&mut self, bytes: &[u8], at: usize) -> usize {
        if self.at != At::Comma || bytes.get(at) != Some(&b',') || self.in_list() {
            return at;
        }
        let quote = at + 1 + usize::from(bytes.get(at + 1) == Some(&b' '));
        if bytes.get(quote) != Some(&b'"') {
            return at;
        }
        self.begin_key();
        quote + 1
    }

    /// Whether the byte has been used.
    fn begin_value(&mut self, byte: u8, found: &mut Found) -> bool {
        match byte {
            b'"' if self.slot.is_scalar() => {
                self.scratch.clear();
                self.at = At::Read;
            }
            b'"' if self.slot.is_any() => self.at = At::Any,
            b'"' => self.at = At::String,
            b'{' | b'[' => {
                let list = byte == b'[';
                let follow = if list { self.slot.is_list() } else { self.slot.is_object() };
                if follow && usize::from(self.depth) < MAX_DEPTH {
                    self.stack[usize::from(self.depth)] = self.top;
                    self.lists = self.lists << 1 | u16::from(list);
                    self.top = self.slot;
                    self.depth += 1;
                    if list {
                        self.at = At::FirstElement;
                    } else {
                        found.open(self.slot);
                        self.at = At::FirstKey;
                    }
                } else {
                    (self.at, self.nested, self.square) = (At::Container, 1, list);
                }
            }
            b'-' | b'0'..=b'9' | b't' | b'f' | b'n' => {
                self.scratch.clear();
                self.at = At::Literal;
                return false;
            }
            _ => {
                self.fail(found);
                return false;
            }
        }
        true
    }

    /// `part` is what these bytes hold of the value.
    #[inline(always)]
    fn end_value(&mut self, part: &[u8], found: &mut Found) {
        if self.slot.is_kept() {
            found.capture.push(part);
            found.kept(self.slot);
        }
        self.after_value(found);
    }

    #[inline]
    fn after_value(&mut self, found: &mut Found) {
        if self.depth == 0 {
            self.at = At::Done;
            found.said = true;
            return;
        }
        self.at = At::Comma;
        if self.in_list() {
            found.element(self.top);
        }
    }

    // Inlined, as `hurry` and `end_value` are: 350 instructions of the row `answer: classify, watching`.
    /// A container that was followed is over.
    #[inline(always)]
    fn close(&mut self, found: &mut Found) {
        let (top, list) = (self.top, self.in_list());
        self.depth -= 1;
        self.top = self.stack[usize::from(self.depth)];
        self.lists >>= 1;
        if !list {
            found.close(top);
        }
        self.after_value(found);
    }

    /// To the end of a string that is passed over: how many bytes that is, if it is here.
    fn pass_string(&mut self, bytes: &[u8]) -> Option<usize> {
        let mut at = usize::from(std::mem::take(&mut self.escaped));
        loop {
            let n = find2(b'"', b'\\', bytes.get(at..)?)?;
            if bytes[at + n] == b'"' {
                return Some(at + n + 1);
            }
            at += n + 2;
            self.escaped = at > bytes.len();
        }
    }

    /// To the end of a container that is passed over.
    fn pass_container(&mut self, bytes: &[u8]) -> Option<usize> {
        let (open, close) = if self.square { (b'[', b']') } else { (b'{', b'}') };
        let mut at = 0;
        loop {
            if self.quoted {
                at += self.pass_string(&bytes[at..])?;
                self.quoted = false;
            }
            at += find3(b'"', open, close, &bytes[at..])? + 1;
            match bytes[at - 1] {
                b'"' => self.quoted = true,
                byte if byte == open => self.nested = self.nested.saturating_add(1),
                _ => {
                    self.nested -= 1;
                    if self.nested == 0 {
                        return Some(at);
                    }
                }
            }
        }
    }
}

/// Relays write ` @type`.
fn trim(key: &[u8]) -> &[u8] {
    match key {
        [b' ', ..] | [.., b' '] => key.trim_ascii(),
        _ => key,
    }
}
