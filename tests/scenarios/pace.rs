//! A limit of so many calls a second, evenly spaced: what a quota by the minute cannot say.

use std::future::Future;
use std::pin::Pin;
use std::sync::{Arc, Mutex};
use std::task::{Context, Poll};
use std::time::Duration;

use http::Request;
use tokio::time::Instant;
use tower::{Service, ServiceExt};
use tower_gemini::BoxError;
use tower_gemini::error::{Rejected, find};

use crate::support::Body;

/// First come, first served. What was not sent is paid back.
#[derive(Clone)]
pub(crate) struct Pace<S> {
    inner: S,
    gap: Duration,
    /// Held by the caller whose turn it is.
    turn: Arc<tokio::sync::Mutex<()>>,
    /// When the next call may go.
    next: Arc<Mutex<Instant>>,
}

impl<S> Pace<S> {
    /// So many calls a second, from now on.
    pub(crate) fn new(inner: S, rate: f64) -> Self {
        let gap = Duration::from_secs_f64(1.0 / rate);
        Self { inner, gap, turn: Arc::default(), next: Arc::new(Mutex::new(Instant::now())) }
    }
}

impl<S> Service<Request<Body>> for Pace<S>
where
    S: Service<Request<Body>, Error = BoxError> + Clone + Send + 'static,
    S::Future: Send,
    S::Response: Send,
{
    type Response = S::Response;
    type Error = BoxError;
    type Future = Pin<Box<dyn Future<Output = Result<S::Response, BoxError>> + Send>>;

    fn poll_ready(&mut self, _: &mut Context<'_>) -> Poll<Result<(), BoxError>> {
        Poll::Ready(Ok(()))
    }

    fn call(&mut self, request: Request<Body>) -> Self::Future {
        let Self { inner, gap, turn, next } = self.clone();
        Box::pin(async move {
            let mine = turn.lock().await;
            let at = *next.lock().unwrap();
            tokio::time::sleep_until(at).await;
            *next.lock().unwrap() = Instant::now() + gap;
            drop(mine);
            let result = inner.oneshot(request).await;
            if result.as_ref().is_err_and(|error| find::<Rejected>(error.as_ref()).is_some()) {
                let mut next = next.lock().unwrap();
                // Never more than the call that may go now: nothing is saved up.
                *next = (*next - gap).max(Instant::now());
            }
            result
        })
    }
}
