//! Errors: one boxed type outward, small named structs inward, and the way to find them again.
//!
//! A layer that adds no failure of its own passes the inner error on. A layer that adds one uses
//! [`BoxError`] and a small public struct. [`find`] gets that struct back from any depth, so a
//! caller (or an outer layer) never has to know in which order the layers were stacked.
//!
//! # Not sent
//!
//! An error that says "this request never left the process" has [`Rejected`] somewhere along its
//! [`source`](std::error::Error::source) chain, or is one. Outer layers then charge no attempt and no
//! retry budget, and may wait until [`Rejected::until`] instead of giving up.
//!
//! # Sent as a probe
//!
//! A circuit breaker that is half-open sends a few calls to find out whether the server is well. The error of one that
//! failed is put into a [`ProbeFailed`]: the retry layer charges neither an attempt nor the budget for it, waits until
//! [`ProbeFailed::until`], and takes it off again before it hands the error on.

pub(crate) mod timed_out;

use std::error::Error;
use std::fmt;

use http::Response;
use tokio::time::Instant;

pub use crate::config_error::ConfigError;
use crate::context::quota_wait::QuotaWait;
use crate::verdict::Kind;

/// Any error, boxed. The same alias as `tower::BoxError`.
pub type BoxError = Box<dyn Error + Send + Sync + 'static>;

/// How far [`find`] and the classifier walk along `source()`.
///
/// Real chains have three to six links. The bound keeps an error that is its own source from
/// turning a lookup into an endless loop.
pub(crate) const MAX_DEPTH: usize = 32;

/// Finds the first error of type `E` in `error` or along its `source()` chain, at most 32 links deep.
///
/// Boxes are looked through at every link: a `BoxError` inside an `io::Error` inside a client's error
/// is found as well.
///
/// ```
/// use std::io;
/// use tower_gemini::error::{BoxError, find};
///
/// let inner = io::Error::from(io::ErrorKind::ConnectionRefused);
/// let outer: BoxError = Box::new(io::Error::other(inner));
/// let found = find::<io::Error>(outer.as_ref()).map(io::Error::kind);
/// assert_eq!(found, Some(io::ErrorKind::Other), "the outermost match comes first");
/// ```
#[must_use]
pub fn find<'a, E: Error + 'static>(error: &'a (dyn Error + 'static)) -> Option<&'a E> {
    chain(error).find_map(|link| link.downcast_ref::<E>())
}

/// An error with all that is behind it, for a log: the texts of the chain, joined by `: `, each once.
///
/// Clients' own errors often say that something failed and leave the reason to their `source()`: `error decoding response body` is
/// all that reqwest prints of a stream that a [`StrictBodyLayer`](crate::classify::StrictBodyLayer) has ended.
///
/// ```
/// use std::io;
/// use tower_gemini::error::{BoxError, Rejected, with_causes};
///
/// let error: BoxError = Box::new(io::Error::other(Rejected::new("maintenance window")));
/// assert_eq!(with_causes(error.as_ref()).to_string(), "not sent: maintenance window");
/// ```
pub fn with_causes<'a>(error: &'a (dyn Error + 'static)) -> impl fmt::Display + 'a {
    struct WithCauses<'a>(&'a (dyn Error + 'static));
    impl fmt::Display for WithCauses<'_> {
        fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
            let mut before = String::new();
            for text in chain(self.0).map(ToString::to_string) {
                // A link that has printed its cause already.
                if !before.is_empty() && before.ends_with(&text) {
                    continue;
                }
                write!(f, "{}{text}", if before.is_empty() { "" } else { ": " })?;
                before = text;
            }
            Ok(())
        }
    }
    WithCauses(error)
}

/// The error and its sources, outermost first, at most [`MAX_DEPTH`] of them.
pub(crate) fn chain<'a>(error: &'a (dyn Error + 'static)) -> impl Iterator<Item = &'a (dyn Error + 'static)> {
    std::iter::successors(Some(error), |link| next_link(*link)).take(MAX_DEPTH)
}

fn next_link<'a>(link: &'a (dyn Error + 'static)) -> Option<&'a (dyn Error + 'static)> {
    // NOTE: `io::Error::source` skips the error it was made from and answers with that one's source, so
    // `io::Error::other(ConnectError)` would hide `ConnectError` from us. `get_ref` does not.
    if let Some(io) = link.downcast_ref::<std::io::Error>() {
        return io.get_ref().map(|inner| inner as &(dyn Error + 'static));
    }
    link.source()
}

/// The marker of a request that was **not sent**: a layer of this process turned it away.
///
/// The layers of this crate put it behind their own named errors as `source()`. Your own layers can do
/// the same: an error whose chain holds a `Rejected` is retried for free once [`until`](Self::until) has
/// come, if the deadline allows, and charges neither an attempt nor the retry budget.
///
/// ```
/// use tower_gemini::error::{BoxError, Rejected, find};
///
/// let error: BoxError = Rejected::new("maintenance window").into();
/// assert!(find::<Rejected>(error.as_ref()).is_some());
/// ```
#[derive(Clone, Debug)]
pub struct Rejected {
    why: &'static str,
    until: Option<Instant>,
    kind: Option<Kind>,
    quota: Option<QuotaWait>,
}

impl Rejected {
    /// A rejection for `why` (a lower-case phrase without a full stop), with no known end.
    #[must_use]
    pub const fn new(why: &'static str) -> Self {
        Self { why, until: None, kind: None, quota: None }
    }

    /// Says when it makes sense to try again.
    #[must_use]
    pub const fn with_until(mut self, until: Instant) -> Self {
        self.until = Some(until);
        self
    }

    /// Says what kind of failure it stands for, in verdicts made of it: a spent quota is one, although no server said
    /// so this time. Default [`Kind::Transport`].
    #[must_use]
    pub const fn with_kind(mut self, kind: Kind) -> Self {
        self.kind = Some(kind);
        self
    }

    /// Says how long its request may still wait for quota.
    pub(crate) const fn with_quota(mut self, quota: QuotaWait) -> Self {
        self.quota = Some(quota);
        self
    }

    /// The same without an end: coming back is of no use.
    pub(crate) const fn for_good(mut self) -> Self {
        self.until = None;
        self
    }

    pub(crate) const fn quota(&self) -> Option<QuotaWait> {
        self.quota
    }

    /// What kind of failure it stands for.
    #[must_use]
    pub const fn kind(&self) -> Option<Kind> {
        self.kind
    }

    /// Why the request was turned away.
    #[must_use]
    pub const fn why(&self) -> &'static str {
        self.why
    }

    /// The instant from which on the request may be admitted; `None` when nobody knows, or never.
    #[must_use]
    pub const fn until(&self) -> Option<Instant> {
        self.until
    }
}

impl fmt::Display for Rejected {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "not sent: {}", self.why)
    }
}

impl Error for Rejected {}

/// The error of a call that a circuit breaker sent as a probe, and that failed.
///
/// The call was sent, for the sake of all callers. So the [retry layer](crate::retry) takes no attempt and no budget
/// token of the request that happened to be the probe: it sends it again at [`until`](Self::until), where the failure can
/// be retried at all and the deadline allows it. What it hands on is the inner error, as the same box; whoever uses a
/// breaker without a retry layer around it finds the inner error with [`find`], or by
/// [`into_inner`](Self::into_inner). [`Verdict::from_error`](crate::Verdict::from_error) sees through it.
///
/// ```
/// use std::io;
/// use tokio::time::Instant;
/// use tower_gemini::error::{BoxError, ProbeFailed, find};
/// use tower_gemini::{Kind, Verdict};
///
/// let refused = io::Error::from(io::ErrorKind::ConnectionRefused);
/// let error: BoxError = ProbeFailed::new(Instant::now(), refused).into();
/// assert!(find::<io::Error>(error.as_ref()).is_some());
/// assert_eq!(Verdict::from_error(error.as_ref()).kind(), Some(Kind::Transport));
/// ```
#[derive(Debug)]
pub struct ProbeFailed {
    until: Instant,
    source: BoxError,
}

impl ProbeFailed {
    /// A probe that failed with `source`, of a circuit that is open `until` this instant.
    #[must_use]
    pub fn new(until: Instant, source: impl Into<BoxError>) -> Self {
        Self { until, source: source.into() }
    }

    /// The instant from which on the circuit may admit the next call.
    #[must_use]
    pub const fn until(&self) -> Instant {
        self.until
    }

    /// The inner error, as the same box.
    #[must_use]
    pub fn into_inner(self) -> BoxError {
        self.source
    }

    /// The inner error of a failed probe, else the error itself.
    pub(crate) fn unwrap(error: BoxError) -> BoxError {
        match error.downcast::<Self>() {
            Ok(failed) => failed.source,
            Err(error) => error,
        }
    }

    /// The same where the error is.
    pub(crate) fn unwrap_in_place(error: &mut BoxError) {
        /// Takes the error's place for the time of a move. Of no size, so its box allocates nothing.
        #[derive(Debug)]
        struct Moved;
        impl fmt::Display for Moved {
            fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str("moved")
            }
        }
        impl Error for Moved {}
        if error.is::<Self>() {
            let failed = std::mem::replace(error, Box::new(Moved));
            *error = Self::unwrap(failed);
        }
    }
}

impl fmt::Display for ProbeFailed {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        // Not the inner error: who prints a chain prints that as well.
        f.write_str("the call was a circuit breaker's probe, and failed")
    }
}

impl Error for ProbeFailed {
    fn source(&self) -> Option<&(dyn Error + 'static)> {
        Some(self.source.as_ref())
    }
}

/// What [`ProbeFailed`] is for errors, for responses: an extension of a failed answer to a probe. The retry layer
/// removes it.
#[derive(Clone, Copy, Debug)]
pub(crate) struct FailedProbe {
    /// The instant from which on the circuit may admit the next call.
    pub(crate) until: Instant,
}

impl FailedProbe {
    /// Marks the failed answer to a probe.
    #[allow(dead_code, reason = "for the circuit breaker")]
    pub(crate) fn mark<B>(response: &mut Response<B>, until: Instant) {
        response.extensions_mut().insert(Self { until });
    }

    /// When the circuit may admit the next call, where this is the failed answer to a probe.
    pub(crate) fn of<B>(response: &Response<B>) -> Option<Instant> {
        response.extensions().get::<Self>().map(|failed| failed.until)
    }

    /// Takes the mark off.
    pub(crate) fn unmark<B>(response: &mut Response<B>) {
        response.extensions_mut().remove::<Self>();
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[derive(Debug)]
    struct Ouroboros;
    impl fmt::Display for Ouroboros {
        fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
            f.write_str("own tail")
        }
    }
    impl Error for Ouroboros {
        fn source(&self) -> Option<&(dyn Error + 'static)> {
            Some(&Ouroboros)
        }
    }

    #[test]
    fn an_error_that_is_its_own_source_ends_the_search() {
        assert!(find::<Rejected>(&Ouroboros).is_none());
        assert_eq!(chain(&Ouroboros).count(), MAX_DEPTH);
    }

    #[test]
    fn a_failed_probe_hides_nothing_of_its_error_and_gives_it_back() {
        let until = crate::time::now();
        let inner: BoxError = Box::new(Rejected::new("closed"));
        let address: *const (dyn Error + Send + Sync) = &*inner;
        let error: BoxError = ProbeFailed::new(until, inner).into();
        assert_eq!(find::<Rejected>(error.as_ref()).map(Rejected::why), Some("closed"));
        assert_eq!(find::<ProbeFailed>(error.as_ref()).map(ProbeFailed::until), Some(until));
        let printed: Vec<_> = chain(error.as_ref()).map(ToString::to_string).collect();
        assert_eq!(printed, ["the call was a circuit breaker's probe, and failed", "not sent: closed"]);
        let inner = ProbeFailed::unwrap(error);
        assert!(std::ptr::addr_eq(address, &*inner), "the same box");
        assert!(ProbeFailed::unwrap(inner).is::<Rejected>(), "another error stays as it is");
    }

    #[test]
    fn found_inside_an_io_error_inside_a_box() {
        let error: BoxError = Box::new(std::io::Error::other(std::io::Error::other(Rejected::new("closed"))));
        assert_eq!(find::<Rejected>(error.as_ref()).map(Rejected::why), Some("closed"));
    }
}
