//! The layer that gives each request a deadline.

use std::fmt;
use std::pin::Pin;
use std::task::{self, Poll};
use std::time::Duration;

use http::Request;
use pin_project_lite::pin_project;
use tower_layer::Layer;
use tower_service::Service;

use super::Deadline;
use super::config::{FLEX_DEADLINE, MAX};
use crate::config::DeadlineConfig;
use crate::context::{Context, View};
use crate::error::ConfigError;
use crate::tier::ServiceTier;
use crate::time;

/// Gives each request that carries no [`Deadline`] one. See the [module documentation](super).
///
/// It counts from `call`, so it belongs outermost: then it spans all attempts and waits. It adds no failure of its own and
/// changes no body. The deadline is written into the request's context, an extension, which costs three allocations;
/// [`Deadline::of`] finds it there, also behind tower's `Buffer` and in a spawned task.
///
/// A call that is made in the course of another one, with a request of its own (fetching a token, say), has that
/// one's deadline, as if it had been given, as long as it is made by the task that polls the other one.
///
/// ```
/// use std::time::Duration;
/// use tower_gemini::timeout::DeadlineLayer;
///
/// # fn main() -> Result<(), tower_gemini::ConfigError> {
/// // The callers' own deadlines count where they are earlier.
/// let layer = DeadlineLayer::new(Duration::from_secs(30))?.cap_given();
/// # let _ = layer; Ok(()) }
/// ```
#[derive(Clone, Copy, Debug)]
#[must_use]
pub struct DeadlineLayer {
    settings: Settings,
}

#[derive(Clone, Copy, Debug)]
struct Settings {
    within: Duration,
    /// So small, because every service carries it and every call.
    flex_millis: u32,
    cap_given: bool,
    enabled: bool,
}

impl DeadlineLayer {
    /// A layer whose deadline is this long after `call`: above zero, at most 1 day. [`DeadlineLayer::default`] has
    /// 120 s.
    ///
    /// # Errors
    ///
    /// [`ConfigError`] when it is out of range.
    pub fn new(within: Duration) -> Result<Self, ConfigError> {
        if within.is_zero() || within > MAX {
            return Err(ConfigError::new("deadline", "must be above zero and at most 1 day"));
        }
        let flex_millis = whole_millis(within.max(FLEX_DEADLINE));
        Ok(Self { settings: Settings { within, flex_millis, cap_given: false, enabled: true } })
    }

    /// The deadline of requests of the [flex tier](crate::tier), whose answers take 1 to 15 minutes: above zero, at most 1
    /// day, rounded up to whole milliseconds. Default 30 minutes, or the layer's own deadline if that is longer.
    ///
    /// For requests that carry the tier when they come here, and for those of which a [`TierLayer`](crate::tier::TierLayer)
    /// inside says so.
    ///
    /// # Errors
    ///
    /// [`ConfigError`] when it is out of range.
    pub fn flex(mut self, within: Duration) -> Result<Self, ConfigError> {
        if within.is_zero() || within > MAX {
            return Err(ConfigError::new("flex", "must be above zero and at most 1 day"));
        }
        self.settings.flex_millis = whole_millis(within);
        Ok(self)
    }

    /// A deadline that the caller has given counts only where it is earlier than this layer's. Default: it counts
    /// whatever it is.
    pub const fn cap_given(mut self) -> Self {
        self.settings.cap_given = true;
        self
    }

    /// Off, it gives no request a deadline and keeps those that are given as they are, with the same type. Default on.
    pub const fn enabled(mut self, enabled: bool) -> Self {
        self.settings.enabled = enabled;
        self
    }

    pub(crate) fn config(&self) -> DeadlineConfig {
        let Settings { within, flex_millis, cap_given, enabled } = self.settings;
        let flex = Duration::from_millis(flex_millis.into());
        DeadlineConfig::of(within, flex, cap_given, enabled)
    }
}

impl Settings {
    #[inline]
    const fn within(&self, is_flex: bool) -> Duration {
        if is_flex { Duration::from_millis(self.flex_millis as u64) } else { self.within }
    }

    /// By how many milliseconds the flex tier's deadline is later than the others'. May be below zero.
    #[inline]
    fn flex_later(&self) -> i32 {
        // Both are at most a day.
        self.flex_millis as i32 - (self.within.as_secs() as i32 * 1000 + self.within.subsec_millis() as i32)
    }
}

/// A later one is so many milliseconds later, rounded up.
#[cold]
fn millis_between(deadline: Deadline, later: Deadline) -> i32 {
    let (deadline, later) = (deadline.instant(), later.instant());
    let millis = |duration: Duration| i32::try_from(whole_millis(duration)).unwrap_or(i32::MAX);
    millis(later.saturating_duration_since(deadline)) - millis(deadline.saturating_duration_since(later))
}

/// A day fits fifty times.
fn whole_millis(duration: Duration) -> u32 {
    u32::try_from(duration.as_nanos().div_ceil(1_000_000)).unwrap_or(u32::MAX)
}

impl Default for DeadlineLayer {
    fn default() -> Self {
        Self::new(Duration::from_secs(120)).expect("the default is valid")
    }
}

impl<S> Layer<S> for DeadlineLayer {
    type Service = SetDeadline<S>;

    fn layer(&self, inner: S) -> Self::Service {
        SetDeadline { inner, settings: self.settings }
    }
}

/// Gives requests a deadline. Made by [`DeadlineLayer`].
///
/// `poll_ready`, the error and the response are the inner service's own.
#[derive(Clone, Copy, Debug)]
pub struct SetDeadline<S> {
    inner: S,
    settings: Settings,
}

impl<S> SetDeadline<S> {
    /// The inner service.
    pub const fn get_ref(&self) -> &S {
        &self.inner
    }

    /// The inner service, to change it.
    pub const fn get_mut(&mut self) -> &mut S {
        &mut self.inner
    }

    /// The inner service, by value.
    pub fn into_inner(self) -> S {
        self.inner
    }
}

impl<S, B> Service<Request<B>> for SetDeadline<S>
where
    S: Service<Request<B>>,
{
    type Response = S::Response;
    type Error = S::Error;
    type Future = DeadlineFuture<S::Future>;

    fn poll_ready(&mut self, cx: &mut task::Context<'_>) -> Poll<Result<(), Self::Error>> {
        self.inner.poll_ready(cx)
    }

    #[inline(always)]
    fn call(&mut self, mut request: Request<B>) -> Self::Future {
        if !self.settings.enabled {
            return DeadlineFuture { inner: self.inner.call(request), deadline: None };
        }
        let view = View::of(&request);
        let written = view.get::<Deadline>().copied();
        let (before, flex_before) =
            view.context.map_or((None, 0), |context| (context.deadline, context.flex_later));
        let given = written.or(before).or_else(Deadline::carried);
        let (settings, is_flex) = (&self.settings, view.tier() == Some(ServiceTier::Flex));
        let (mut called_at, mut flex_later) = (None, 0);
        let deadline = match given {
            Some(given) if !settings.cap_given => given,
            given => {
                let at = *called_at.insert(time::now());
                let own = Deadline::at(time::saturating_add(at, settings.within(is_flex)));
                flex_later = if is_flex { 0 } else { settings.flex_later() };
                match given {
                    None => own,
                    // The caller's own is in what is noted, since it may be written over below.
                    Some(given) => {
                        let deadline = given.min(own);
                        let flex = given.min(Deadline::at(time::saturating_add(at, settings.within(true))));
                        flex_later = millis_between(deadline, flex);
                        deadline
                    }
                }
            }
        };
        // What is written in the request counts first, so there it is corrected.
        if written.is_some_and(|written| written != deadline) {
            request.extensions_mut().insert(deadline);
        }
        if flex_later != flex_before || (written.is_none() && before != Some(deadline)) {
            Context::write(&mut request, |context| {
                context.deadline = Some(deadline);
                context.flex_later = flex_later;
            });
        }
        let carrying = deadline.carry(called_at);
        // In this order, so that the future is made where it is returned, and not copied with all that is inside.
        let future = DeadlineFuture { inner: self.inner.call(request), deadline: Some(deadline) };
        drop(carrying);
        future
    }
}

pin_project! {
    /// The future of [`SetDeadline`]: the inner service's, and the deadline that it is polled with.
    ///
    /// Dropping it drops the inner future.
    #[must_use = "futures do nothing unless polled"]
    pub struct DeadlineFuture<F> {
        #[pin]
        inner: F,
        // `None` where the layer is off.
        deadline: Option<Deadline>,
    }
}

impl<F: Future> Future for DeadlineFuture<F> {
    type Output = F::Output;

    #[inline]
    fn poll(self: Pin<&mut Self>, cx: &mut task::Context<'_>) -> Poll<Self::Output> {
        let this = self.project();
        let _carrying = this.deadline.map(|deadline| deadline.carry(None));
        this.inner.poll(cx)
    }
}

impl<F> fmt::Debug for DeadlineFuture<F> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("DeadlineFuture").field("deadline", &self.deadline).finish_non_exhaustive()
    }
}
