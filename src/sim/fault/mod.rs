//! Everything that can go wrong with a call.
//!
//! `kinds.rs` lists the errors, `body.rs` writes their bodies, `shape.rs` has the modifiers.

mod body;
mod kinds;
mod shape;

use std::time::Duration;

use bytes::Bytes;
use http::{HeaderValue, StatusCode};

pub(super) use body::{Asked, QuotaExceeded, error_json, html, interaction_error};
pub(super) use kinds::ErrorKind;
pub(super) use shape::{Delivery, Shape};

use super::ConfigError;
use super::route::Action;

/// One thing that goes wrong with a call.
///
/// Three families, told apart by what else still happens:
///
/// * **Errors** ([`rate_limited`](Self::rate_limited), [`overloaded`](Self::overloaded), …,
///   [`response`](Self::response)) answer the call in Google's shape. Key, model and quota are not looked at.
/// * **Refusals of the connection** ([`connection_refused`](Self::connection_refused),
///   [`reset_before_head`](Self::reset_before_head), [`stalled`](Self::stalled)) give no answer at all.
/// * **Spoilt answers** (all others, and errors delivered [inside a stream](Self::in_stream_after)) are 200s
///   that turn out badly. The call is judged by key, model and quota first, like a healthy one; if it is turned
///   away there, the fault has no effect.
///
/// Errors take their form from the call as Google's do: an array for `streamGenerateContent` without
/// `alt=sse` and for chat completions, a plain object under `text/event-stream` for `alt=sse`. The modifiers
/// change that.
///
/// ```
/// use std::time::Duration;
/// use tower_gemini::sim::Fault;
///
/// let quota = Fault::rate_limited().with_retry_in(Duration::from_millis(4_500)).with_limit(5);
/// let late = Fault::overloaded().in_stream_after(2);
/// let odd = Fault::internal().as_array().gzipped().truncated_at(40);
/// assert_eq!(quota.name(), "rate_limited");
/// assert_eq!(late.status().map(|s| s.as_u16()), Some(200));
/// ```
#[derive(Clone, Debug)]
#[must_use = "a fault does nothing until a rule of a simulator has it"]
pub struct Fault {
    pub(super) kind: Kind,
    pub(super) shape: Shape,
}

/// What goes wrong.
#[derive(Clone)]
pub(super) enum Kind {
    Error(ErrorKind),
    Response { status: StatusCode, content_type: String, body: Bytes },
    Refused,
    ResetBeforeHead,
    ResetAfterBytes(u64),
    ResetAfterChunks(u32),
    Stalled(Duration),
    StalledStream { chunks: u32, silence: Duration },
    Slow(Duration),
    CutStream(u32),
    BlockedPrompt,
    BlockedAnswer,
    EmptyAnswer,
}

impl Fault {
    pub(super) fn of(kind: Kind) -> Self {
        Self { kind, shape: Shape::default() }
    }

    /// Answers with this status, `content-type` and body, byte for byte: for bodies that you recorded.
    ///
    /// A simulator refuses the rule if the content type is not a header value or the status is a 1xx.
    pub fn response(status: StatusCode, content_type: impl Into<String>, body: impl Into<Bytes>) -> Self {
        Self::of(Kind::Response { status, content_type: content_type.into(), body: body.into() })
    }

    /// The connection is refused at once: `ConnectionRefused`, and nothing is read of the request. On a
    /// loopback socket, where a listener cannot refuse one connection of many, the connection is closed.
    pub fn connection_refused() -> Self {
        Self::of(Kind::Refused)
    }

    /// The request is read, the head's time passes, and then the connection is reset (`ConnectionReset`).
    pub fn reset_before_head() -> Self {
        Self::of(Kind::ResetBeforeHead)
    }

    /// The connection is reset after `bytes` bytes of the body, or at its end if it is shorter.
    pub fn reset_after_bytes(bytes: u64) -> Self {
        Self::of(Kind::ResetAfterBytes(bytes))
    }

    /// The connection is reset after `chunks` chunks of a stream, or at its end if it has fewer. Applies to
    /// streamed calls only.
    pub fn reset_after_chunks(chunks: u32) -> Self {
        Self::of(Kind::ResetAfterChunks(chunks))
    }

    /// Silence for this long, in place of the head's time; then the connection is reset.
    pub fn stalled(silence: Duration) -> Self {
        Self::of(Kind::Stalled(silence))
    }

    /// Silence for this long after `chunks` chunks of a stream, on top of the usual time between chunks; then
    /// the stream goes on. Applies to streamed calls only.
    pub fn stalled_stream_after(chunks: u32, silence: Duration) -> Self {
        Self::of(Kind::StalledStream { chunks, silence })
    }

    /// A good answer, whose head comes this much later than usual.
    pub fn slow(by: Duration) -> Self {
        Self::of(Kind::Slow(by))
    }

    /// The stream ends cleanly after `chunks` chunks, at the latest before the one with the `finishReason`.
    /// Applies to streamed calls only.
    pub fn cut_stream_after(chunks: u32) -> Self {
        Self::of(Kind::CutStream(chunks))
    }

    /// A 200 without candidates, with `promptFeedback.blockReason`. Applies to `generateContent` and
    /// `streamGenerateContent` only.
    pub fn blocked_prompt() -> Self {
        Self::of(Kind::BlockedPrompt)
    }

    /// A 200 whose `finishReason` is `SAFETY`; a stream has begun to answer before. Applies to
    /// `generateContent` and `streamGenerateContent` only.
    pub fn blocked_answer() -> Self {
        Self::of(Kind::BlockedAnswer)
    }

    /// A 200 whose `finishReason` is `STOP`, and whose content has no parts. Applies to `generateContent` and
    /// `streamGenerateContent` only.
    pub fn empty_answer() -> Self {
        Self::of(Kind::EmptyAnswer)
    }

    /// The name of its constructor, as [`CallCause::Fault`](super::CallCause::Fault) shows it.
    #[must_use]
    pub fn name(&self) -> &'static str {
        match &self.kind {
            Kind::Error(kind) => kind.name(),
            Kind::Response { .. } => "response",
            Kind::Refused => "connection_refused",
            Kind::ResetBeforeHead => "reset_before_head",
            Kind::ResetAfterBytes(_) => "reset_after_bytes",
            Kind::ResetAfterChunks(_) => "reset_after_chunks",
            Kind::Stalled(_) => "stalled",
            Kind::StalledStream { .. } => "stalled_stream_after",
            Kind::Slow(_) => "slow",
            Kind::CutStream(_) => "cut_stream_after",
            Kind::BlockedPrompt => "blocked_prompt",
            Kind::BlockedAnswer => "blocked_answer",
            Kind::EmptyAnswer => "empty_answer",
        }
    }

    /// The HTTP status that the caller sees; `None` if there is no answer.
    #[must_use]
    pub fn status(&self) -> Option<StatusCode> {
        match &self.kind {
            Kind::Refused | Kind::ResetBeforeHead | Kind::Stalled(_) => None,
            Kind::Error(kind) if self.shape.delivery == Delivery::Head => Some(kind.status()),
            Kind::Response { status, .. } if self.shape.delivery == Delivery::Head => Some(*status),
            _ => Some(StatusCode::OK),
        }
    }

    /// Whether such a call can have this fault.
    pub(super) fn applies_to(&self, action: Action) -> bool {
        match &self.kind {
            Kind::ResetAfterChunks(_) | Kind::StalledStream { .. } | Kind::CutStream(_) => action.is_stream(),
            Kind::BlockedPrompt | Kind::BlockedAnswer | Kind::EmptyAnswer => action.is_generate(),
            Kind::Error(_) | Kind::Response { .. } => {
                self.shape.delivery == Delivery::Head || action.is_stream()
            }
            _ => true,
        }
    }

    /// Whether a stream that it befalls has the end that it would have without.
    pub(super) fn leaves_the_end(&self) -> bool {
        let is_cut = matches!(self.kind, Kind::CutStream(_) | Kind::ResetAfterChunks(_));
        !is_cut && self.shape.delivery == Delivery::Head
    }

    pub(super) fn check(&self) -> Result<(), ConfigError> {
        if let Kind::Response { status, content_type, .. } = &self.kind {
            if status.is_informational() {
                return Err(ConfigError::new("Fault::response", "the status must not be a 1xx"));
            }
            if HeaderValue::from_str(content_type).is_err() {
                return Err(ConfigError::new("Fault::response", "the content type must be a header value"));
            }
        }
        Ok(())
    }
}

/// By hand, so that a recorded body does not flood a log.
impl std::fmt::Debug for Kind {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self {
            Kind::Error(kind) => f.write_str(kind.name()),
            Kind::Response { status, content_type, body } => f
                .debug_struct("Response")
                .field("status", status)
                .field("content_type", content_type)
                .field("bytes", &body.len())
                .finish(),
            Kind::Refused => f.write_str("Refused"),
            Kind::ResetBeforeHead => f.write_str("ResetBeforeHead"),
            Kind::ResetAfterBytes(n) => f.debug_tuple("ResetAfterBytes").field(n).finish(),
            Kind::ResetAfterChunks(n) => f.debug_tuple("ResetAfterChunks").field(n).finish(),
            Kind::Stalled(d) => f.debug_tuple("Stalled").field(d).finish(),
            Kind::StalledStream { chunks, silence } => {
                f.debug_tuple("StalledStream").field(chunks).field(silence).finish()
            }
            Kind::Slow(d) => f.debug_tuple("Slow").field(d).finish(),
            Kind::CutStream(n) => f.debug_tuple("CutStream").field(n).finish(),
            Kind::BlockedPrompt => f.write_str("BlockedPrompt"),
            Kind::BlockedAnswer => f.write_str("BlockedAnswer"),
            Kind::EmptyAnswer => f.write_str("EmptyAnswer"),
        }
    }
}
