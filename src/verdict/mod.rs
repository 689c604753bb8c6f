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

mod answer_failed;
mod delay;
mod end;
mod inner;
mod kind;
mod quota;
mod signal;
mod usage;

use std::borrow::Cow;
use std::fmt;
use std::sync::Arc;
use std::time::Duration;

use http::{Response, StatusCode};

pub use self::answer_failed::AnswerFailed;
pub use self::delay::{DelaySource, ServerDelay};
pub(crate) use self::end::{Cell, End, EndCell, Says, Tiers};
pub(crate) use self::inner::Inner;
pub use self::kind::Kind;
pub(crate) use self::quota::Piece;
pub use self::quota::{Dimension, Period, QuotaViolation};
pub use self::signal::Signal;
pub(crate) use self::signal::Signals;
pub use self::usage::Usage;
use crate::catalogue::Catalogue;
use crate::google_rpc::{Code, Status};
use crate::redact::{holds_key, redact};
use crate::tier::ServiceTier;

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

/// A model that is gone, or is about to be: [`Verdict::retired`].
#[derive(Clone, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub struct Retired {
    /// Its name.
    pub model: String,
    /// The day on which it retires, such as `2026-12-01`.
    pub since: String,
    /// What is to be used instead, where it is known.
    pub successor: Option<String>,
}

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

impl Verdict {
    pub(crate) fn new(inner: Inner) -> Self {
        Self(Repr::Failure(Arc::new(inner)))
    }

    /// A success whose body is watched: the cell tells how it ended.
    pub(crate) fn watched(end: EndCell) -> Self {
        Self(Repr::Watched(end))
    }

    #[inline]
    fn inner(&self) -> Option<&Inner> {
        match &self.0 {
            Repr::Failure(inner) => Some(inner),
            Repr::Success | Repr::Watched(_) => None,
        }
    }

    /// Whether [`Verdict::of`] would be a success; without making it.
    #[inline]
    pub(crate) fn is_good<B>(response: &Response<B>) -> bool {
        Self::good(response).is_some()
    }

    /// For an answer that is good, where its end will be published, if anywhere: both with one look into the
    /// extensions.
    #[inline]
    pub(crate) fn good<B>(response: &Response<B>) -> Option<Option<&EndCell>> {
        if response.status().as_u16() >= 400 {
            return None;
        }
        match response.extensions().get::<Self>() {
            None => Some(None),
            Some(verdict) => verdict.is_success().then(|| verdict.end_cell()),
        }
    }

    /// The kind of failure; `None` for a success.
    #[must_use]
    #[inline]
    pub fn kind(&self) -> Option<Kind> {
        self.inner().map(|inner| inner.kind)
    }

    /// Whether this was a success, as far as it is known yet.
    #[must_use]
    #[inline]
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
        match self.sent() {
            Sent::No => false,
            Sent::Maybe => true,
            Sent::Yes => matches!(self.kind(), Some(Kind::DeadlineExceeded | Kind::Cancelled)),
        }
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

    /// How long the quota takes to be back where the answer names it and no delay: a minute for a quota per minute, a
    /// second for one per second. `None` where there is a [`server_delay`](Self::server_delay), and for every other
    /// failure.
    ///
    /// An earlier attempt meets the same limit, and counts against it.
    #[must_use]
    pub fn quota_window(&self) -> Option<Duration> {
        self.inner().and_then(|inner| inner.window)
    }

    /// Whether one retry is worth it and a second is not: a quota of a minute whose limit the answer leaves out, the way
    /// proto3's JSON leaves out zeros, without a delay that no minute needs.
    ///
    /// If the same comes again after that delay, or after the [window](Self::quota_window), the limit is zero: [`believed`](Self::believed) is the verdict then.
    #[must_use]
    pub fn is_doubtful_zero(&self) -> bool {
        self.inner().is_some_and(|inner| inner.doubtful_zero)
    }

    /// The verdict without its doubt: where [`is_doubtful_zero`](Self::is_doubtful_zero), the limits that are left out are
    /// zero, and the kind is [`Kind::QuotaExhausted`]. Any other verdict is returned as it is.
    #[must_use]
    pub fn believed(self) -> Self {
        match self.0 {
            Repr::Failure(inner) if inner.doubtful_zero => {
                let mut inner = Arc::unwrap_or_clone(inner);
                inner.doubtful_zero = false;
                (inner.kind, inner.retryability) = (Kind::QuotaExhausted, Retryability::Never);
                for violation in &mut inner.quota {
                    violation.zero |= violation.limit.is_none() && violation.id.is_some();
                }
                Self::new(inner)
            }
            repr => Self(repr),
        }
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
        self.inner().and_then(|inner| inner.reason.as_ref()).and_then(Piece::name)
    }

    /// `google.rpc.ErrorInfo.domain`.
    #[must_use]
    pub fn domain(&self) -> Option<&str> {
        self.inner().and_then(|inner| inner.domain.as_ref()).and_then(Piece::name)
    }

    /// The model that the answer names, which is the quota's name for it in a 429.
    #[must_use]
    pub fn model(&self) -> Option<&str> {
        let inner = self.inner()?;
        inner
            .model
            .as_ref()
            .and_then(Piece::name)
            .or_else(|| inner.quota.iter().find_map(QuotaViolation::model))
    }

    /// The retirement of the model that the answer names, where that is what is wrong: a [`NotFound`](Kind::NotFound) of a
    /// model that retires, or a 400 or 429 of one whose day has come, for retired models answer with these as well.
    ///
    /// Read from the [catalogue](crate::catalogue) that counts at the moment of the question.
    #[must_use]
    pub fn retired(&self) -> Option<Retired> {
        let by_date = match self.kind()? {
            Kind::NotFound => false,
            Kind::InvalidArgument | Kind::RateLimited | Kind::QuotaExhausted => true,
            _ => return None,
        };
        let catalogue = Catalogue::current();
        let model = catalogue.model(self.model()?)?;
        if by_date && !model.is_retired(crate::time::wall_clock()) {
            return None;
        }
        Some(Retired {
            model: model.name().to_owned(),
            since: model.retires()?.to_owned(),
            successor: self.named_successor().or(model.successor()).map(str::to_owned),
        })
    }

    /// The model to use in the place of one that has [retired](Self::retired): the one that the answer itself names, also of a model
    /// that the catalogue does not know, else the catalogue's.
    #[must_use]
    pub fn successor(&self) -> Option<String> {
        let named =
            || self.named_successor().filter(|_| self.kind() == Some(Kind::NotFound)).map(str::to_owned);
        self.retired().map_or_else(named, |retired| retired.successor)
    }

    /// "This model models/… is no longer available … use models/… instead" (reports of 2026-11).
    fn named_successor(&self) -> Option<&str> {
        let message = self.inner()?.message.as_str();
        let at = message.find("no longer available")?;
        let rest = &message[at..];
        let name = &rest[rest.find("use models/")? + "use models/".len()..];
        let len = name.bytes().take_while(|b| b.is_ascii_alphanumeric() || b"-._".contains(b)).count();
        Some(name[..len].trim_end_matches(['.', '-'])).filter(|name| !name.is_empty() && !holds_key(name))
    }

    /// The [service tier](crate::tier) that the request asked for: where it carried one, and the classifier
    /// [watches](crate::classify::ClassifyLayer::watch) answers or this is the failure of one.
    #[must_use]
    pub fn tier_asked(&self) -> Option<ServiceTier> {
        match &self.0 {
            Repr::Watched(end) => end.tier_asked(),
            Repr::Failure(inner) => inner.tier,
            Repr::Success => None,
        }
    }

    /// The service tier that has served, of a request that [asked](Self::tier_asked) for one: by the answer's
    /// `x-gemini-service-tier`, else, once it is over, by its `usageMetadata`. `None` where it does not say.
    #[must_use]
    pub fn tier_served(&self) -> Option<ServiceTier> {
        self.tier_asked()?;
        match &self.0 {
            Repr::Watched(end) => end.tier_at_end(),
            Repr::Failure(_) | Repr::Success => None,
        }
    }

    /// The tiers that were asked for and that served, in this order, where they differ: Google serves as standard what
    /// goes over the limits of priority, and bills it so.
    #[must_use]
    pub fn downgraded(&self) -> Option<(ServiceTier, ServiceTier)> {
        self.tier_asked().zip(self.tier_served()).filter(|(asked, served)| asked != served)
    }

    /// The model that a watched answer says has answered (`modelVersion`), where that is not the very name that was asked:
    /// known as far as the answer was read, and inside of an [`ObserveLayer`](crate::observe::ObserveLayer) alone, whose
    /// [`Call`](crate::observe::Call::model_version) has it, too. A name of more than 31 bytes is not kept.
    ///
    /// [`Catalogue::is_redirect`] tells whether it is another model.
    #[must_use]
    pub fn model_version(&self) -> Option<String> {
        match &self.0 {
            Repr::Watched(end) => end.model_version(),
            Repr::Failure(_) | Repr::Success => None,
        }
    }

    pub(crate) fn of_tier(self, tier: Option<ServiceTier>) -> Self {
        match self.0 {
            Repr::Failure(inner) if tier.is_some() => {
                Self::new(Inner { tier, ..Arc::unwrap_or_clone(inner) })
            }
            repr => Self(repr),
        }
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

    /// Whether this is a 200 without an answer where the next one may have one: empty, or broken off before there was
    /// anything to see, and not for want of tokens.
    pub(crate) fn is_no_answer(&self) -> bool {
        self.inner().is_some_and(|inner| inner.no_answer)
    }

    /// Whether a retry was due and could not be made because the request's body was too large to be kept.
    #[must_use]
    pub fn replay_refused(&self) -> bool {
        self.inner().is_some_and(|inner| inner.replay_refused)
    }

    /// Of something that was no HTTP response.
    pub(crate) fn without_status(self) -> Self {
        match self.0 {
            Repr::Failure(inner) => Self::new(Inner { http: None, ..Arc::unwrap_or_clone(inner) }),
            repr => Self(repr),
        }
    }

    pub(crate) fn with_replay_refused(self) -> Self {
        match self.0 {
            Repr::Failure(inner) => Self::new(Inner { replay_refused: true, ..(*inner).clone() }),
            repr => Self(repr),
        }
    }

    /// Whether the caller brought it about, so that it says nothing of the server: its
    /// [`Deadline`](crate::Deadline) left the attempt too little time, or it did not send the whole of the request's
    /// body ([`TimedOut::is_by_caller`](crate::timeout::TimedOut::is_by_caller),
    /// [`UploadIncomplete`](crate::timeout::UploadIncomplete)). The [`signal`](Self::signal) is then
    /// [`Neutral`](Signal::Neutral), whatever the kind.
    #[must_use]
    pub fn is_by_caller(&self) -> bool {
        self.inner().is_some_and(|inner| inner.by_caller)
    }

    /// The caller did not send the whole of the request's body. Another attempt would wait for the same caller.
    pub(crate) fn of_stalled_upload(self) -> Self {
        match self.0 {
            Repr::Failure(inner) => {
                let retryability = Retryability::Never;
                Self::new(Inner { by_caller: true, retryability, ..(*inner).clone() })
            }
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
            Repr::Watched(end) => end.get().map(|end| end.outcome),
            Repr::Success | Repr::Failure(_) => None,
        }
    }

    /// The tokens that an answer says it has used. `None` as long as [`outcome`](Self::outcome) is, and where the
    /// answer did not say; of a body that was dropped, what had been read of it says. Of failures, those that were
    /// [peeked](crate::classify::Peek) at under a 200 may say.
    #[must_use]
    pub fn usage(&self) -> Option<Usage> {
        match &self.0 {
            Repr::Failure(inner) => inner.usage,
            Repr::Watched(end) => end.get()?.usage,
            Repr::Success => None,
        }
    }

    /// The finish reason of an answer where it is one that this version does not know, as the answer wrote it (its first 32
    /// bytes). An answer with such a reason is complete if anything was delivered, and empty if not.
    ///
    /// `None` as long as [`outcome`](Self::outcome) is, and for reasons that are known, which the kind tells. Of failures,
    /// those that were [peeked](crate::classify::Peek) at under a 200 may say.
    #[must_use]
    pub fn unknown_finish_reason(&self) -> Option<&str> {
        match &self.0 {
            Repr::Watched(end) => end.unknown_finish(),
            Repr::Failure(inner) => inner.finish.as_deref(),
            Repr::Success => None,
        }
    }

    /// Where the end of a watched body will be published.
    pub(crate) fn end_cell(&self) -> Option<&EndCell> {
        match &self.0 {
            Repr::Watched(end) => Some(end),
            Repr::Success | Repr::Failure(_) => None,
        }
    }
}

impl fmt::Debug for Verdict {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let inner = match &self.0 {
            Repr::Success => return f.write_str("Verdict(success)"),
            Repr::Watched(end) => {
                return f.debug_tuple("Verdict").field(&end.get().map(|end| end.outcome)).finish();
            }
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
