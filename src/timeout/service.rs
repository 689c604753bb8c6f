use std::task::{Context, Poll};

use http::{Request, Response};
use tower_service::Service;

use super::config::Settings;
use super::future::ResponseFuture;
use super::header::tell_server;
use super::plan::Plan;
use super::{Deadline, TimedOut, TimeoutBody};
use crate::context::View;
use crate::error::BoxError;
use crate::retry::Replay;
use crate::tier::ServiceTier;
use crate::time;

/// Ends an attempt that takes too long. Made by [`TimeoutLayer`](super::TimeoutLayer); see the [module
/// documentation](super).
///
/// `poll_ready` is the inner service's own. It is not timed: the limits count from `call`.
#[derive(Clone, Copy, Debug)]
pub struct Timeout<S> {
    inner: S,
    settings: Settings,
}

impl<S> Timeout<S> {
    pub(super) const fn new(inner: S, settings: Settings) -> Self {
        Self { inner, settings }
    }

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

impl<S, B, RB> Service<Request<B>> for Timeout<S>
where
    S: Service<Request<B>, Response = Response<RB>>,
    S::Error: Into<BoxError>,
{
    type Response = Response<TimeoutBody<RB>>;
    type Error = BoxError;
    type Future = ResponseFuture<S::Future>;

    fn poll_ready(&mut self, cx: &mut Context<'_>) -> Poll<Result<(), Self::Error>> {
        self.inner.poll_ready(cx).map_err(Into::into)
    }

    #[inline(always)]
    fn call(&mut self, mut request: Request<B>) -> Self::Future {
        if !self.settings.enabled {
            return ResponseFuture::called(self.inner.call(request), Plan::NONE, None);
        }
        let own;
        let view = View::of(&request);
        let settings = match view.tier() {
            None | Some(ServiceTier::Standard) => &self.settings,
            Some(tier) => {
                own = self.settings.of_tier(tier);
                &own
            }
        };
        let deadline = view.deadline().map(Deadline::instant);
        let replay = view.get::<Replay>().cloned();
        let mut plan = Plan::pauses_only(settings);
        if settings.count_from_the_call() || deadline.is_some() {
            // From here on and not from the first `Pending`: a future may be polled long after the call, and an inner
            // service be at work since then.
            let now = Deadline::called_at().unwrap_or_else(time::now);
            if deadline.is_some_and(|deadline| deadline <= now) {
                return ResponseFuture::over(TimedOut::not_sent());
            }
            plan = Plan::new(settings, now, deadline, view.more().map_or(0, |more| more.timeouts));
        }
        if settings.server_timeout {
            tell_server(&mut request, &plan);
        }
        ResponseFuture::called(self.inner.call(request), plan, replay)
    }
}
