//! The verdict: what one attempt's outcome means, read once and acted on by every layer.
//!
//! A [`Verdict`] says what kind of failure this was, whether another attempt makes sense and when, whether
//! the request was sent at all, which quota was hit, what else would help, and what a person should do.
//! [`ClassifyLayer`](crate::classify::ClassifyLayer) publishes it in the response's extensions; anybody can
//! make one with [`Verdict::from_parts`] (a response in hand), [`Verdict::of`] (whatever is known of a
//! response) and [`Verdict::from_error`] (a failure without a response).
//!
//! # Sharing and dropping
//!
//! A verdict is an immutable value behind one `Arc`: cloning it is a reference count, and a success that
//! nobody watches holds nothing at all. It keeps the error body it was read from (at most the classifier's
//! limit, 256 KiB by default) alive as long as a clone lives.
//!
//! # Secrets
//!
//! Google echoes the API key in some error messages. What a verdict prints (`Debug`,
//! [`message`](Verdict::message), [`details`](Verdict::details)) has everything that looks like a key or a
//! bearer token replaced; the response body itself is left as it came.

use std::borrow::Cow;
use std::error::Error;
use std::fmt;
use std::sync::{Arc, OnceLock};
use std::time::Duration;

use bytes::Bytes;
use http::{HeaderMap, Response, StatusCode};

use crate::classify::redact;
use crate::google_rpc::{Code, Status};

/// What went wrong, in the terms that a caller can act on.
///
/// Prints as the snake-case name (`rate_limited`). The table of what each kind means, whether it is retried
/// and what helps is on [`Kind::remedy`] and in the README.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
#[non_exhaustive]
pub enum Kind {
    /// The request is malformed or a parameter is out of range. The same request fails again.
    InvalidArgument,
    /// The API key is wrong, unknown or expired. Google says this with a 400.
    ApiKeyInvalid,
    /// Region not served, billing not enabled, or a resource not in the state it must be in.
    FailedPrecondition,
    /// More input tokens than the model takes.
    ContextTooLong,
    /// More bytes than the API takes. Google says this with a 400, proxies with a 413.
    PayloadTooLarge,
    /// No credentials, expired ones, or of the wrong sort.
    Unauthenticated,
    /// The credentials are known but not allowed to do this.
    PermissionDenied,
    /// Google found the key in public and has blocked it.
    KeyLeaked,
    /// The API is not enabled in this project.
    ServiceDisabled,
    /// No such model, file, cache or path.
    NotFound,
    /// Over a limit that clears within minutes.
    RateLimited,
    /// Over a limit that does not: daily, zero, spend cap, prepaid credits.
    QuotaExhausted,
    /// The model has no capacity at the moment, whoever asks.
    Overloaded,
    /// The service or something in front of it is down.
    Unavailable,
    /// An error inside Google; also the form some over-long requests take.
    Internal,
    /// A time limit passed: Google's, a gateway's, or the caller's own.
    DeadlineExceeded,
    /// Cancelled on the server's side.
    Cancelled,
    /// Aborted by, or in conflict with, another operation.
    Conflict,
    /// Not implemented, or not for this method.
    Unimplemented,
    /// The prompt or the answer was blocked by a policy. The HTTP status is 200.
    ContentBlocked,
    /// A 200 without an answer.
    EmptyResponse,
    /// A 200 whose answer stops before its end.
    Truncated,
    /// No answer: connecting, sending or receiving failed.
    Transport,
    /// None of the above could be read from the answer.
    Unknown,
}

impl Kind {
    /// Every kind there is today, in the order of the documentation.
    pub const ALL: &'static [Self] = &[
        Self::InvalidArgument,
        Self::ApiKeyInvalid,
        Self::FailedPrecondition,
        Self::ContextTooLong,
        Self::PayloadTooLarge,
        Self::Unauthenticated,
        Self::PermissionDenied,
        Self::KeyLeaked,
        Self::ServiceDisabled,
        Self::NotFound,
        Self::RateLimited,
        Self::QuotaExhausted,
        Self::Overloaded,
        Self::Unavailable,
        Self::Internal,
        Self::DeadlineExceeded,
        Self::Cancelled,
        Self::Conflict,
        Self::Unimplemented,
        Self::ContentBlocked,
        Self::EmptyResponse,
        Self::Truncated,
        Self::Transport,
        Self::Unknown,
    ];

    /// The snake-case name, as printed.
    #[must_use]
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::InvalidArgument => "invalid_argument",
            Self::ApiKeyInvalid => "api_key_invalid",
            Self::FailedPrecondition => "failed_precondition",
            Self::ContextTooLong => "context_too_long",
            Self::PayloadTooLarge => "payload_too_large",
            Self::Unauthenticated => "unauthenticated",
            Self::PermissionDenied => "permission_denied",
            Self::KeyLeaked => "key_leaked",
            Self::ServiceDisabled => "service_disabled",
            Self::NotFound => "not_found",
            Self::RateLimited => "rate_limited",
            Self::QuotaExhausted => "quota_exhausted",
            Self::Overloaded => "overloaded",
            Self::Unavailable => "unavailable",
            Self::Internal => "internal",
            Self::DeadlineExceeded => "deadline_exceeded",
            Self::Cancelled => "cancelled",
            Self::Conflict => "conflict",
            Self::Unimplemented => "unimplemented",
            Self::ContentBlocked => "content_blocked",
            Self::EmptyResponse => "empty_response",
            Self::Truncated => "truncated",
            Self::Transport => "transport",
            Self::Unknown => "unknown",
        }
    }

    /// One sentence that a person can act on.
    ///
    /// After Google's [troubleshooting guide](https://ai.google.dev/gemini-api/docs/troubleshooting), in our
    /// own words, as of 2026-11.
    #[must_use]
    pub const fn remedy(self) -> &'static str {
        match self {
            Self::InvalidArgument => {
                "Check the request against the API reference and the API version in the path (/v1 or /v1beta)."
            }
            Self::ApiKeyInvalid => {
                "Check the API key: it is mistyped, deleted or expired; create a new one in AI Studio."
            }
            Self::FailedPrecondition => {
                "Enable billing in AI Studio or call from a supported region; if it is about a file, wait until the file is ACTIVE."
            }
            Self::ContextTooLong => "Shorten the input, or use a model with a larger context window.",
            Self::PayloadTooLarge => {
                "Send less inline data: upload large media with the Files API and refer to it."
            }
            Self::Unauthenticated => {
                "Send valid credentials: an API key for the Gemini API, an OAuth access token for Vertex AI, never both."
            }
            Self::PermissionDenied => {
                "Check the key's restrictions, the account's roles and whether this model or resource is open to the project."
            }
            Self::KeyLeaked => {
                "Google has blocked this key because it was found in public: create a new one and keep it out of code and logs."
            }
            Self::ServiceDisabled => {
                "Enable the API named in the message for this project, then wait a few minutes."
            }
            Self::NotFound => {
                "Check the model's exact name, the resource and the API version; retired models answer like this, too."
            }
            Self::RateLimited => {
                "Wait as long as the answer says and send fewer requests or tokens per minute; ask for a higher quota if it keeps happening."
            }
            Self::QuotaExhausted => {
                "Waiting minutes will not help: use another model, wait for the daily reset (midnight Pacific), raise the quota or spend cap, or enable billing."
            }
            Self::Overloaded => {
                "The model is short of capacity for everyone: back off for a minute or use another model meanwhile."
            }
            Self::Unavailable => "The service is temporarily down: back off and retry, or use another model.",
            Self::Internal => {
                "Retry; if it stays, shorten the input or use another model, since some over-long requests fail like this."
            }
            Self::DeadlineExceeded => {
                "Raise the client's timeout or shorten the input: the answer took longer than allowed."
            }
            Self::Cancelled => "The server cancelled the call, usually under load: retry once.",
            Self::Conflict => "Another operation got in the way: retry after a moment.",
            Self::Unimplemented => "This method or feature does not exist for the model or API version used.",
            Self::ContentBlocked => {
                "A policy blocked the prompt or the answer: change the prompt, or the safety settings where you may."
            }
            Self::EmptyResponse => {
                "The model returned nothing usable: allow more output tokens, simplify tools or prompt, and try again."
            }
            Self::Truncated => "The answer broke off: discard or mark what arrived, and ask again.",
            Self::Transport => {
                "Check the network, the address and the proxy; the request may not have arrived."
            }
            Self::Unknown => "Look at the answer itself: it does not look like one of Gemini's.",
        }
    }

    /// The page of Google's documentation that says more.
    #[must_use]
    pub const fn docs(self) -> &'static str {
        match self {
            Self::ApiKeyInvalid | Self::KeyLeaked | Self::Unauthenticated => {
                "https://ai.google.dev/gemini-api/docs/api-key"
            }
            Self::FailedPrecondition => "https://ai.google.dev/gemini-api/docs/available-regions",
            Self::ContextTooLong => "https://ai.google.dev/gemini-api/docs/long-context",
            Self::PayloadTooLarge => "https://ai.google.dev/gemini-api/docs/files",
            Self::NotFound => "https://ai.google.dev/gemini-api/docs/models",
            Self::RateLimited | Self::QuotaExhausted => "https://ai.google.dev/gemini-api/docs/rate-limits",
            Self::ContentBlocked => "https://ai.google.dev/gemini-api/docs/safety-settings",
            Self::ServiceDisabled => "https://cloud.google.com/service-usage/docs/enable-disable",
            _ => "https://ai.google.dev/gemini-api/docs/troubleshooting",
        }
    }
}

impl fmt::Display for Kind {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.pad(self.as_str())
    }
}

/// Whether another attempt at the same request makes sense.
///
/// Exhaustive on purpose: a caller must handle the decision whole.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Retryability {
    /// The same request fails again; or it would be paid for again without need.
    Never,
    /// Yes, once the server's own delay has passed: [`Verdict::server_delay`].
    AfterServerDelay,
    /// Yes, with a backoff of the caller's choosing.
    WithBackoff,
}

/// How far the request got.
///
/// Exhaustive on purpose: "not sent" is free to repeat, "maybe sent" may be paid twice.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Sent {
    /// It never left this process, or never reached a server.
    No,
    /// It may have arrived and may have been processed, and no answer tells.
    Maybe,
    /// The server answered it.
    Yes,
}

/// What other than the same request again would help.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
#[non_exhaustive]
pub enum Alternative {
    /// Nothing but changing the request, or waiting.
    None,
    /// Another model.
    Model,
    /// Another project, or another key.
    Project,
    /// A model with a larger context window.
    LargerContext,
}

/// Where a server's delay was found.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
#[non_exhaustive]
pub enum DelaySource {
    /// `google.rpc.RetryInfo.retryDelay` in the error's details.
    RetryInfo,
    /// The error message ("Please retry in 31.5s").
    Message,
    /// `quotaResetDelay` in the metadata of `google.rpc.ErrorInfo`.
    Metadata,
    /// A `Retry-After` or `retry-after-ms` header.
    Header,
}

/// A delay that the server named.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct ServerDelay {
    delay: Duration,
    source: DelaySource,
}

impl ServerDelay {
    pub(crate) const fn new(delay: Duration, source: DelaySource) -> Self {
        Self { delay, source }
    }

    /// The delay as declared: the largest of all that the answer contains.
    #[must_use]
    pub const fn declared(&self) -> Duration {
        self.delay
    }

    /// Where it was found.
    #[must_use]
    pub const fn source(&self) -> DelaySource {
        self.source
    }

    /// The least wait that is not too early.
    ///
    /// Google cuts the fraction off when it writes `RetryInfo` (`"58s"` beside "58.93s" in the message,
    /// googleapis/python-genai#2114, read 2026-11), so one second is added to a delay of whole seconds.
    #[must_use]
    pub const fn at_least(&self) -> Duration {
        if self.delay.subsec_nanos() == 0 {
            self.delay.saturating_add(Duration::from_secs(1))
        } else {
            self.delay
        }
    }
}

/// What a quota counts.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
#[non_exhaustive]
pub enum Dimension {
    /// Requests. Prints as `requests`.
    Requests,
    /// Input tokens. Prints as `tokens`.
    InputTokens,
    /// Something else: images, output tokens, enqueued tokens, spend. Prints as `other`.
    Other,
}

impl Dimension {
    /// The name, as printed.
    #[must_use]
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Requests => "requests",
            Self::InputTokens => "tokens",
            Self::Other => "other",
        }
    }
}

impl fmt::Display for Dimension {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.pad(self.as_str())
    }
}

/// The window of a quota. Ordered: the widest is the greatest, and unknown is the least.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
#[non_exhaustive]
pub enum Period {
    /// The answer does not say.
    Unknown,
    /// One second.
    Second,
    /// One minute.
    Minute,
    /// One hour.
    Hour,
    /// One day; for the Gemini API the Pacific calendar day.
    Day,
    /// One month.
    Month,
}

impl Period {
    /// The name, as printed.
    #[must_use]
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Unknown => "unknown",
            Self::Second => "second",
            Self::Minute => "minute",
            Self::Hour => "hour",
            Self::Day => "day",
            Self::Month => "month",
        }
    }
}

impl fmt::Display for Period {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.pad(self.as_str())
    }
}

/// A piece of text out of a body: a share of it where it stands there, so that nothing is copied.
#[derive(Clone, Default, PartialEq, Eq)]
pub(crate) struct Piece(Bytes);

impl Piece {
    /// A share of `body` where `text` lies in it, else a copy.
    pub(crate) fn of(body: &Bytes, text: &str) -> Self {
        let (base, at) = (body.as_ptr() as usize, text.as_ptr() as usize);
        let inside = at >= base && at + text.len() <= base + body.len();
        Self(if inside {
            body.slice(at - base..at - base + text.len())
        } else {
            Bytes::copy_from_slice(text.as_bytes())
        })
    }

    pub(crate) fn as_str(&self) -> &str {
        // Made of a `str` above, so this never fails; the check is some nanoseconds on a failure's path.
        std::str::from_utf8(&self.0).unwrap_or_default()
    }
}

impl fmt::Debug for Piece {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Debug::fmt(&redact(self.as_str()), f)
    }
}

/// One quota that was exceeded.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct QuotaViolation {
    pub(crate) metric: Option<Piece>,
    pub(crate) id: Option<Piece>,
    pub(crate) dimension: Dimension,
    pub(crate) period: Period,
    pub(crate) limit: Option<u64>,
    pub(crate) model: Option<Piece>,
    pub(crate) zero: bool,
}

impl QuotaViolation {
    /// The metric, such as `generativelanguage.googleapis.com/generate_content_free_tier_requests`. Does not
    /// tell a minute's quota from a day's.
    #[must_use]
    pub fn metric(&self) -> Option<&str> {
        self.metric.as_ref().map(Piece::as_str)
    }

    /// The quota's id, such as `GenerateRequestsPerMinutePerProjectPerModel-FreeTier`.
    #[must_use]
    pub fn id(&self) -> Option<&str> {
        self.id.as_ref().map(Piece::as_str)
    }

    /// What it counts.
    #[must_use]
    pub const fn dimension(&self) -> Dimension {
        self.dimension
    }

    /// Over which window.
    #[must_use]
    pub const fn period(&self) -> Period {
        self.period
    }

    /// The limit, where the answer names it.
    #[must_use]
    pub const fn limit(&self) -> Option<u64> {
        self.limit
    }

    /// Whether the limit is zero: named so, or left out the way proto3's JSON leaves out zeros. Such a quota
    /// never clears.
    #[must_use]
    pub const fn is_zero(&self) -> bool {
        self.zero
    }

    /// The quota's own name for the model, which may differ from the one that was asked for.
    #[must_use]
    pub fn model(&self) -> Option<&str> {
        self.model.as_ref().map(Piece::as_str)
    }
}

/// How an answer ended that was handed on before its end was known.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
#[non_exhaustive]
pub enum Outcome {
    /// The whole body arrived, and as far as it was looked at it is a good answer.
    Complete,
    /// The body ended badly: it broke off, held an error, or was blocked or empty.
    Failed(Kind),
    /// The caller dropped the body before its end. Says nothing about the server.
    Dropped,
}

/// The shared cell in which the end of a body is published, once.
pub(crate) type EndCell = Arc<OnceLock<Outcome>>;

/// What one attempt's outcome means. See the [module documentation](self).
///
/// ```
/// use bytes::Bytes;
/// use http::{HeaderMap, StatusCode};
/// use tower_gemini::{Kind, Verdict};
///
/// let body = Bytes::from_static(br#"{"error": {"code": 429, "status": "RESOURCE_EXHAUSTED",
///   "message": "Your project has exceeded its monthly spending cap."}}"#);
/// let verdict = Verdict::from_parts(StatusCode::TOO_MANY_REQUESTS, &HeaderMap::new(), body);
/// assert_eq!(verdict.kind(), Some(Kind::QuotaExhausted), "waiting a minute will not help");
/// println!("{}", verdict.remedy());
/// ```
#[derive(Clone, Default)]
pub struct Verdict(Repr);

#[derive(Clone, Default)]
enum Repr {
    /// A success that nobody watches. It allocates nothing.
    #[default]
    Success,
    /// A success so far, whose end will be published.
    Watched(EndCell),
    Failure(Arc<Inner>),
}

#[derive(Clone)]
pub(crate) struct Inner {
    pub(crate) kind: Kind,
    pub(crate) retryability: Retryability,
    pub(crate) sent: Sent,
    pub(crate) alternative: Alternative,
    pub(crate) http: Option<StatusCode>,
    pub(crate) code: Option<Code>,
    pub(crate) delay: Option<ServerDelay>,
    pub(crate) quota: Vec<QuotaViolation>,
    pub(crate) message: Piece,
    /// The message stands in JSON, with its escapes.
    pub(crate) escaped: bool,
    pub(crate) reason: Option<Piece>,
    pub(crate) domain: Option<Piece>,
    /// Where no violation has one.
    pub(crate) model: Option<Piece>,
    pub(crate) body: Bytes,
    /// The error came after output had been delivered.
    pub(crate) after_output: bool,
    /// A retry was due, and the request's body was too large to be kept for it.
    pub(crate) replay_refused: bool,
}

impl Inner {
    pub(crate) fn new(kind: Kind) -> Self {
        Self {
            kind,
            retryability: Retryability::Never,
            sent: Sent::Yes,
            alternative: Alternative::None,
            http: None,
            code: None,
            delay: None,
            quota: Vec::new(),
            message: Piece::default(),
            escaped: false,
            reason: None,
            domain: None,
            model: None,
            body: Bytes::new(),
            after_output: false,
            replay_refused: false,
        }
    }

    /// Without its escapes and secrets. Worked out when it is asked for: most messages never are.
    fn message(&self) -> Cow<'_, str> {
        let raw = self.message.as_str();
        let plain = || serde_json::from_str::<String>(&format!("\"{raw}\"")).ok();
        match self.escaped.then(plain).flatten() {
            Some(plain) => Cow::Owned(redact(&plain).into_owned()),
            None => redact(raw),
        }
    }
}

impl Verdict {
    pub(crate) fn new(inner: Inner) -> Self {
        Self(Repr::Failure(Arc::new(inner)))
    }

    /// A success whose body is watched: the cell tells how it ended.
    pub(crate) fn watched(end: EndCell) -> Self {
        Self(Repr::Watched(end))
    }

    fn inner(&self) -> Option<&Inner> {
        match &self.0 {
            Repr::Failure(inner) => Some(inner),
            Repr::Success | Repr::Watched(_) => None,
        }
    }

    /// Judges a whole response: status, headers and body.
    ///
    /// Pure: no clock is read but for an HTTP date in `Retry-After`, nothing is kept but `body`. Never
    /// panics, whatever the bytes. Bodies of 4xx and 5xx are read as errors whatever their content type
    /// says; bodies of 2xx are read as answers, in which an error, a block or an empty answer may hide.
    #[must_use]
    pub fn from_parts(status: StatusCode, headers: &HeaderMap, body: Bytes) -> Self {
        crate::classify::judge(status, headers, body)
    }

    /// What is known of this response: the verdict that the classifier left in its extensions, else what
    /// its status and headers say.
    #[must_use]
    pub fn of<B>(response: &Response<B>) -> Self {
        match response.extensions().get::<Self>() {
            Some(verdict) => verdict.clone(),
            None if response.status().as_u16() < 400 => Self::default(),
            None => crate::classify::judge(response.status(), response.headers(), Bytes::new()),
        }
    }

    /// Whether [`Verdict::of`] would be a success; without making it.
    pub(crate) fn is_good<B>(response: &Response<B>) -> bool {
        let published = response.extensions().get::<Self>();
        response.status().as_u16() < 400 && published.is_none_or(Self::is_success)
    }

    /// Judges a failure without a response, by walking along `source()`.
    ///
    /// Tells "not sent" (refused connections, unresolvable names, [`Rejected`](crate::Rejected)) from "maybe
    /// sent" (resets, broken pipes, timeouts). Errors of hyper and hyper-util are known with the feature
    /// `hyper` (on by default), reqwest's with `reqwest`, tower-http's timeouts with `tower-http-06` and
    /// `tower-http-07`; `io::Error` and the timeouts of tower and tokio always. Anything unknown is a
    /// transport failure that may have been sent.
    #[must_use]
    pub fn from_error(error: &(dyn Error + 'static)) -> Self {
        crate::classify::judge_error(error)
    }

    /// The kind of failure; `None` for a success.
    #[must_use]
    pub fn kind(&self) -> Option<Kind> {
        self.inner().map(|inner| inner.kind)
    }

    /// Whether this was a success, as far as it is known yet.
    #[must_use]
    pub fn is_success(&self) -> bool {
        self.kind().is_none()
    }

    /// Whether another attempt at the same request makes sense.
    #[must_use]
    pub fn retryability(&self) -> Retryability {
        self.inner().map_or(Retryability::Never, |inner| inner.retryability)
    }

    /// How far the request got.
    #[must_use]
    pub fn sent(&self) -> Sent {
        self.inner().map_or(Sent::Yes, |inner| inner.sent)
    }

    /// Whether the server may have done (and billed) the work although no answer came of it: a timeout on
    /// either side, a cancellation by the server, or a connection lost after the request may have left.
    #[must_use]
    pub fn maybe_processed(&self) -> bool {
        self.sent() == Sent::Maybe || matches!(self.kind(), Some(Kind::DeadlineExceeded | Kind::Cancelled))
    }

    /// What else would help.
    #[must_use]
    pub fn alternative(&self) -> Alternative {
        self.inner().map_or(Alternative::None, |inner| inner.alternative)
    }

    /// The HTTP status, where there was a response.
    #[must_use]
    pub fn http_status(&self) -> Option<StatusCode> {
        self.inner().and_then(|inner| inner.http)
    }

    /// The `google.rpc.Code` that the body names.
    #[must_use]
    pub fn grpc_code(&self) -> Option<Code> {
        self.inner().and_then(|inner| inner.code)
    }

    /// The delay that the server declared, believed or not: a spent daily quota carries one, too.
    #[must_use]
    pub fn server_delay(&self) -> Option<ServerDelay> {
        self.inner().and_then(|inner| inner.delay)
    }

    /// Every quota that was exceeded, in the order of the body.
    #[must_use]
    pub fn quota(&self) -> &[QuotaViolation] {
        self.inner().map_or(&[], |inner| &inner.quota)
    }

    /// The error message, with keys and tokens replaced; empty where there is none.
    #[must_use]
    pub fn message(&self) -> Cow<'_, str> {
        self.inner().map_or(Cow::Borrowed(""), Inner::message)
    }

    /// `google.rpc.ErrorInfo.reason`.
    #[must_use]
    pub fn reason(&self) -> Option<&str> {
        self.inner().and_then(|inner| inner.reason.as_ref()).map(Piece::as_str)
    }

    /// `google.rpc.ErrorInfo.domain`.
    #[must_use]
    pub fn domain(&self) -> Option<&str> {
        self.inner().and_then(|inner| inner.domain.as_ref()).map(Piece::as_str)
    }

    /// The model that the answer names, which is the quota's name for it in a 429.
    #[must_use]
    pub fn model(&self) -> Option<&str> {
        let inner = self.inner()?;
        inner.model.as_ref().map(Piece::as_str).or_else(|| inner.quota.iter().find_map(QuotaViolation::model))
    }

    /// The raw `google.rpc.Status` with all its details, keys and tokens replaced. Parsed anew at each call;
    /// `None` where the body is not JSON.
    #[must_use]
    pub fn details(&self) -> Option<Status> {
        self.inner().and_then(|inner| Status::from_body(&inner.body))
    }

    /// One sentence that a person can act on.
    #[must_use]
    pub fn remedy(&self) -> &'static str {
        self.kind().map_or("Nothing to do.", Kind::remedy)
    }

    /// The page of Google's documentation that says more; `None` for a success.
    #[must_use]
    pub fn docs(&self) -> Option<&'static str> {
        self.kind().map(Kind::docs)
    }

    /// Whether the error came after part of an answer had been delivered, so that nothing may be repeated
    /// silently.
    #[must_use]
    pub fn after_output(&self) -> bool {
        self.inner().is_some_and(|inner| inner.after_output)
    }

    /// Whether a retry was due and could not be made because the request's body was too large to be kept.
    #[must_use]
    pub fn replay_refused(&self) -> bool {
        self.inner().is_some_and(|inner| inner.replay_refused)
    }

    pub(crate) fn with_replay_refused(self) -> Self {
        match self.0 {
            Repr::Failure(inner) => Self::new(Inner { replay_refused: true, ..(*inner).clone() }),
            repr => Self(repr),
        }
    }

    /// How a successful response's body ended: `None` while it is still being read, where nobody watches it,
    /// and for failures, whose body was read before.
    ///
    /// Bodies are watched when [`ClassifyLayer::watch`](crate::classify::ClassifyLayer::watch) is on. Every
    /// clone of the verdict sees the outcome.
    #[must_use]
    pub fn outcome(&self) -> Option<Outcome> {
        match &self.0 {
            Repr::Watched(end) => end.get().copied(),
            Repr::Success | Repr::Failure(_) => None,
        }
    }
}

impl fmt::Debug for Verdict {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let inner = match &self.0 {
            Repr::Success => return f.write_str("Verdict(success)"),
            Repr::Watched(end) => return f.debug_tuple("Verdict").field(&end.get()).finish(),
            Repr::Failure(inner) => inner,
        };
        // The body is left out: it may hold a prompt or an echoed key.
        f.debug_struct("Verdict")
            .field("kind", &inner.kind)
            .field("retryability", &inner.retryability)
            .field("sent", &inner.sent)
            .field("http", &inner.http)
            .field("code", &inner.code)
            .field("server_delay", &inner.delay)
            .field("quota", &inner.quota)
            .field("reason", &inner.reason)
            .field("model", &self.model().map(redact))
            .field("message", &inner.message())
            .finish_non_exhaustive()
    }
}
