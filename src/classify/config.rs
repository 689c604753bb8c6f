//! The settings of the layer.

use std::time::Duration;

#[derive(Clone, Copy, Debug)]
pub(super) struct Settings {
    pub(super) max_error_bytes: usize,
    pub(super) read_timeout: Duration,
    pub(super) watch: bool,
    pub(super) peek: Peek,
    pub(super) enabled: bool,
}

impl Settings {
    /// Whether anything of a success is read.
    #[inline]
    pub(super) const fn reads(&self) -> bool {
        self.watch || !matches!(self.peek, Peek::Off)
    }
}

/// How far an answer with a 2xx is looked at before it is handed on: see
/// [`ClassifyLayer::peek`](super::ClassifyLayer::peek).
///
/// What is looked at is held: the head waits, and then everything is handed on frame by frame as it came. What turns
/// out to be a failure gets its [`Verdict`](crate::Verdict) as a failed status does, so that retry, limiter and breaker
/// treat a 503 inside a 200 as a 503. The status stays 200. A failure is
///
/// - an error before anything was delivered that a user would see;
/// - a body that is over without such a thing: empty, broken off, blocked;
/// - a transport that fails before it. The request may have been processed then.
///
/// Whatever is to be seen, the head goes on when the body is over or its transport fails, when an error is found, when
/// the text is no answer (plain text, broken JSON, a coding that is not read), and after
/// [`max_error_bytes`](super::ClassifyLayer::max_error_bytes) or 1,024 frames. There is no time limit: an attempt
/// timeout outside covers the wait, as it covers the wait for a head.
///
/// Costs an answer that is peeked at one allocation, a list for what comes in more than one frame, and what a gzip
/// coding takes; others nothing.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash)]
#[non_exhaustive]
pub enum Peek {
    /// Nothing is held. Errors are seen at the end of the body, with [`watch`](super::ClassifyLayer::watch).
    Off,
    /// A stream's head waits for its first event, which a reader of events would wait for as well: none gets later. A
    /// comment is no event. Of an interaction that is the word that it was created: it is held for up to 500 ms, or until
    /// something was said, so that an error behind it is retried. A later one is told and not retried.
    ///
    /// A stream is what says so (`content-type: text/event-stream`) or was asked for as one
    /// (`streamGenerateContent`, also without `alt=sse`). Other answers pass at once.
    #[default]
    FirstEvent,
    /// The head of every answer of a [generating](crate::Method::is_generation) call waits until there is something
    /// that a user would see: text, a function call, an image. Thoughts are not.
    ///
    /// For [retries of empty answers](crate::retry::RetryPolicyBuilder::empty_answers). It has a price: thoughts that
    /// are shown live come late, all at once with the first words; and the head of an answer that is no stream waits
    /// for its body.
    ///
    /// What can be read are Gemini's own answers (Code Assist's among them), interactions and chat completions. Others
    /// (partners' models) wait for their first event or object only.
    Output,
    /// The head of every answer of a generating call waits for the whole body, up to
    /// [`max_error_bytes`](super::ClassifyLayer::max_error_bytes) and 1,024 frames; of a longer one the rest streams.
    ///
    /// For callers who use a stream to keep the connection busy and read it whole. As nothing was handed on, an answer that breaks off in its midst, ends with a malformed
    /// call or is blocked is a failure like another one: an error in the stream and a transport that fails are retried by their kind, and what is empty, malformed or
    /// broken off as often as [`empty_answers`](crate::retry::RetryPolicyBuilder::empty_answers) says. Each is billed again.
    Whole,
}
