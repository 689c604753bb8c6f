//! The future of a retried call: three states and a loop.

use std::fmt;
use std::pin::Pin;
use std::task::{self, Poll, ready};

use http::{Request, Response};
use http_body::Body;
use pin_project_lite::pin_project;
use tokio::time::Sleep;
use tower_service::Service;

use super::call::{Next, Task};
use crate::error::BoxError;

pin_project! {
    /// The future of [`Retry`](super::Retry).
    ///
    /// Dropping it in any state drops the attempt or the wait, the kept copy of the request, and gives back the
    /// budget's token of an attempt that was not begun yet.
    #[must_use = "futures do nothing unless polled"]
    pub struct ResponseFuture<S, B, F> {
        #[pin]
        pub(super) state: State<F>,
        pub(super) task: Task<S, B>,
    }
}

pin_project! {
    #[project = StateProj]
    pub(super) enum State<F> {
        // An attempt is under way.
        Called { #[pin] future: F },
        // Between two attempts. Holds no readiness of the inner service.
        Waiting { #[pin] sleep: Sleep },
        // The wait is over; the inner service is not ready yet.
        Readying,
    }
}

impl<S, B, F> fmt::Debug for ResponseFuture<S, B, F> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        // Not the request: its headers hold the key.
        f.debug_struct("retry::ResponseFuture").finish_non_exhaustive()
    }
}

impl<S, B, RB, E> Future for ResponseFuture<S, B, S::Future>
where
    S: Service<Request<B>, Response = Response<RB>, Error = E> + Clone,
    E: Into<BoxError>,
    B: Body + Clone,
{
    type Output = Result<Response<RB>, BoxError>;

    fn poll(self: Pin<&mut Self>, cx: &mut task::Context<'_>) -> Poll<Self::Output> {
        let mut this = self.project();
        loop {
            match this.state.as_mut().project() {
                StateProj::Called { future } => {
                    let result = match future.poll(cx) {
                        Poll::Pending => {
                            this.task.begun();
                            return Poll::Pending;
                        }
                        // The usual case, kept short: a response is moved once, into the result.
                        Poll::Ready(Ok(response)) if this.task.is_plain_success(&response) => {
                            return Poll::Ready(Ok(response));
                        }
                        Poll::Ready(result) => result.map_err(Into::into),
                    };
                    match this.task.after(result) {
                        Next::Return(result) => return Poll::Ready(result),
                        Next::Wait(wait) => {
                            this.state.set(State::Waiting { sleep: tokio::time::sleep(wait) });
                        }
                    }
                }
                StateProj::Waiting { sleep } => {
                    ready!(sleep.poll(cx));
                    this.state.set(State::Readying);
                }
                StateProj::Readying => {
                    let Task::Kept(kept) = &mut *this.task else {
                        unreachable!("only a kept request waits");
                    };
                    let service = kept.service.get_or_insert_with(|| kept.shared.service());
                    ready!(service.poll_ready(cx)).map_err(Into::into)?;
                    let request = kept.next_request();
                    let service = kept.service.as_mut().expect("it was polled ready a line above");
                    this.state.set(State::Called { future: service.call(request) });
                }
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;
    use std::time::Duration;

    use http_body_util::Empty;
    use tower::{Layer, ServiceExt};

    use super::*;
    use crate::error::FailedProbe;
    use crate::retry::{Attempts, Budget, GaveUp, RetryLayer, RetryPolicy};
    use crate::time;

    type Body = Empty<bytes::Bytes>;

    /// Answers with this status and the mark of a failed probe, so often, and then well.
    fn probing(
        status: u16,
        failures: u32,
    ) -> impl Service<
        Request<Body>,
        Response = Response<Body>,
        Error = BoxError,
        Future = impl Future<Output = Result<Response<Body>, BoxError>>,
    > + Clone {
        let calls = Arc::new(std::sync::atomic::AtomicU32::new(0));
        tower::service_fn(move |_: Request<Body>| {
            let is_over = calls.fetch_add(1, std::sync::atomic::Ordering::Relaxed) >= failures;
            async move {
                let mut response = Response::new(Body::new());
                if !is_over {
                    *response.status_mut() = http::StatusCode::from_u16(status).expect("a status");
                    FailedProbe::mark(&mut response, time::now() + Duration::from_secs(15));
                }
                Ok(response)
            }
        })
    }

    async fn run(status: u16, failures: u32, deadline: u64) -> Response<Body> {
        let policy = RetryPolicy::builder().attempts(2).deadline(Duration::from_secs(deadline));
        let policy = policy.budget(Budget::new(1, 0.5).expect("valid")).build().expect("valid");
        let service = RetryLayer::new(policy).layer(probing(status, failures));
        service.oneshot(Request::new(Body::new())).await.expect("a response")
    }

    // How long the first attempt had is known from its beginning.
    #[tokio::test(start_paused = true)]
    async fn where_nothing_is_answered_no_attempt_is_made_that_has_less_time_than_the_first() {
        let calls = Arc::new(std::sync::atomic::AtomicU32::new(0));
        let counted = Arc::clone(&calls);
        let hangs = tower::service_fn(move |_: Request<Body>| {
            counted.fetch_add(1, std::sync::atomic::Ordering::Relaxed);
            async {
                tokio::time::sleep(Duration::from_secs(60)).await;
                let mut response = Response::new(Body::new());
                *response.status_mut() = http::StatusCode::GATEWAY_TIMEOUT;
                Ok::<_, BoxError>(response)
            }
        });
        let service = RetryLayer::default().layer(hangs);
        for made in [2, 4, 5, 6] {
            let response = service.clone().oneshot(Request::new(Body::new())).await.expect("a response");
            assert_eq!(response.status(), 504);
            assert_eq!(calls.load(std::sync::atomic::Ordering::Relaxed), made, "two more than requests");
        }
    }

    #[tokio::test(start_paused = true)]
    async fn an_answer_to_a_probe_costs_no_attempt() {
        let response = run(503, 10, 3600).await;
        assert_eq!(response.status(), 200);
        let report = Attempts::of(&response);
        assert_eq!((report.made(), report.probes(), report.kinds()), (1, 10, &[][..]));
    }

    #[tokio::test(start_paused = true)]
    async fn an_answer_to_a_probe_is_handed_on_without_its_mark() {
        for (status, probes, why) in [(503, 3, GaveUp::Deadline), (400, 0, GaveUp::NotRetryable)] {
            let response = run(status, 10, 60).await;
            assert_eq!(response.status().as_u16(), status);
            assert_eq!(FailedProbe::of(&response), None);
            let report = Attempts::of(&response);
            assert_eq!((report.made(), report.probes(), report.gave_up()), (1, probes, Some(why)));
            assert_eq!(report.kinds().len(), 1, "the last is an attempt like any other");
        }
    }
}
