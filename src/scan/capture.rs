//! The texts that are kept: errors, so that they can be judged as a body is. Pure.

use bytes::Bytes;

/// Errors are below 4 KiB. A text of more than this is a download.
pub(crate) const MAX_KEPT: usize = 8 * 1024;

/// The errors of a body as a list of envelopes, `[{"error":…},{"error":…`, or the beginning of a body of another
/// form.
#[derive(Debug, Default)]
pub(super) struct Capture {
    /// At most [`MAX_KEPT`]; nothing is allocated before there is something to keep.
    text: Vec<u8>,
    /// Where the envelope under way begins in `text`.
    envelope: u16,
    /// Where the member under way begins.
    member: u16,
    /// Where its value begins.
    value: u16,
    state: State,
    /// The envelope under way holds an error.
    is_error: bool,
    /// It has a list of errors.
    is_listed: bool,
    /// It has a code that makes an error of it, once it is complete.
    is_flat_error: bool,
    /// The body is no JSON, and `text` is its beginning.
    plain: bool,
}

#[derive(Clone, Copy, Debug, Default, PartialEq)]
enum State {
    /// Between envelopes.
    #[default]
    Closed,
    /// In an envelope, of which members have been kept.
    Open,
    /// In the value of a member that is kept.
    Value,
    /// The text breaks off, for want of room or because the body did: nothing can be added.
    Cut,
}

impl Capture {
    /// A value follows that is to be kept. The names have neither quotes nor escapes in them.
    pub(super) fn begin(&mut self, name: &str) {
        match self.state {
            State::Cut | State::Value => return,
            State::Open => self.mark_member(b","),
            State::Closed => {
                self.envelope = self.text.len() as u16;
                (self.is_error, self.is_flat_error, self.is_listed) = (false, false, false);
                let open: &[u8] = if self.text.is_empty() { b"[{" } else { b",{" };
                self.mark_member(open);
            }
        }
        self.is_listed |= name == "errors";
        for piece in ["\"", name, "\":"] {
            self.push(piece.as_bytes());
        }
        self.value = self.text.len() as u16;
    }

    fn mark_member(&mut self, before: &[u8]) {
        self.member = self.text.len() as u16;
        self.state = State::Value;
        self.push(before);
    }

    /// More of the value under way.
    pub(super) fn push(&mut self, bytes: &[u8]) {
        if self.state == State::Value {
            let room = MAX_KEPT - self.text.len();
            self.text.extend_from_slice(&bytes[..bytes.len().min(room)]);
            if bytes.len() > room {
                self.state = State::Cut;
            }
        }
    }

    /// The value of an `error` is over. Whether there is anything in it.
    pub(super) fn end_error(&mut self) -> bool {
        let value = &self.text[usize::from(self.value).min(self.text.len())..];
        let is_error = match value.first() {
            Some(b'"') => value.len() > 2,
            Some(b'{' | b'[') => memchr::memchr(b'"', value).is_some(),
            _ => false,
        };
        self.is_error |= is_error;
        match self.state {
            State::Value if is_error => self.state = State::Open,
            State::Value => self.take_back(),
            _ => {}
        }
        is_error
    }

    /// The value of another member is over.
    pub(super) fn end_flat(&mut self) {
        if self.state == State::Value {
            self.state = State::Open;
        }
    }

    /// The member under way does not count. Without its only member the envelope has not begun.
    fn take_back(&mut self) {
        self.text.truncate(usize::from(self.member));
        self.state = if self.member == self.envelope { State::Closed } else { State::Open };
    }

    /// The envelope under way has a code of an error.
    pub(super) fn flat_error(&mut self) {
        self.is_flat_error = true;
    }

    /// The envelope under way is an interaction that has failed: its list of errors, if it has one, is what it failed of.
    pub(super) fn failed_interaction(&mut self) {
        if self.state == State::Open && self.is_listed && !self.is_error {
            // Only interactions have this member, and their own members are not kept.
            self.begin("updated");
            self.push(b"null");
            self.end_flat();
            self.is_flat_error = true;
        }
    }

    /// The outermost object is over: what has been kept of it counts or not. Whether its code has made it the first
    /// error there is.
    pub(super) fn close(&mut self) -> bool {
        let is_error = self.is_error || self.is_flat_error;
        match self.state {
            State::Closed => return false,
            State::Cut if is_error => return false,
            _ if is_error => self.text.push(b'}'),
            _ => self.text.truncate(usize::from(self.envelope)),
        }
        self.state = State::Closed;
        self.is_flat_error && !self.is_error && self.envelope == 0
    }

    /// The outermost object breaks off. Half an error is one, where it is the first; the other members need the code, and all
    /// of them.
    pub(super) fn abandon(&mut self, in_error: bool) -> bool {
        let half = in_error && self.state == State::Value && self.envelope == 0 && self.end_error();
        if self.state == State::Value {
            self.take_back();
        }
        self.is_flat_error = false;
        if half {
            self.state = State::Cut;
        }
        self.close();
        half
    }

    /// More of a body of another form. Nothing is kept of one that is too long: that is a download.
    pub(super) fn text(&mut self, bytes: &[u8]) {
        if self.state == State::Cut {
            return;
        }
        self.plain = true;
        if self.text.len() + bytes.len() > MAX_KEPT {
            self.text = Vec::new();
            self.state = State::Cut;
        } else {
            self.text.extend_from_slice(bytes);
        }
    }

    /// The body is a text, and no download.
    pub(super) fn is_short_text(&self) -> bool {
        self.plain && self.state != State::Cut && std::str::from_utf8(&self.text).is_ok()
    }

    /// How much of what has been kept counts.
    fn end(&self) -> usize {
        match self.state {
            // Of an envelope under way nothing is known yet.
            State::Open | State::Value => usize::from(self.envelope),
            State::Closed | State::Cut => self.text.len(),
        }
    }

    /// Whether there is a [`body`](Self::body).
    pub(super) fn is_kept(&self) -> bool {
        self.end() > 0
    }

    /// What has been kept, as a body.
    pub(super) fn body(&self) -> Option<Bytes> {
        let end = self.end();
        if end == 0 {
            return None;
        }
        let close: &[u8] = if self.plain || self.state == State::Cut { b"" } else { b"]" };
        Some([&self.text[..end], close].concat().into())
    }
}
