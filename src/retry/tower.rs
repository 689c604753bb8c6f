//! The policy for those who have tower's own `Retry` in their stack already.

use std::fmt;
use std::pin::Pin;
use std::task::{Context, Poll};

use http::{Request, Response};
use http_body::Body;
use pin_project_lite::pin_project;
use tokio::time::Sleep;

use super::budget::Withdrawal;
use super::config::RetryPolicy;
use super::failure::Failure;
use super::progress::Progress;
use super::{budget_key, replayable};
use crate::context::deadline::Deadline;
use crate::error::{BoxError, FailedProbe, ProbeFailed};
use crate::verdict::Verdict;

/// Use [`RetryLayer`](super::RetryLayer) where you can. Under tower's `Retry` the last attempt has no copy of
/// the request, and tower asks the policy only while there is one: so the final failure of a request that used
/// up its attempts is reported nowhere, a success of a last attempt pays nothing into the budget, and the
/// service is cloned for each call.
impl<B, RB> tower::retry::Policy<Request<B>, Response<RB>, BoxError> for RetryPolicy
where
    B: Body + Clone,
{
    type Future = Wait;

    fn retry(
        &mut self,
        request: &mut Request<B>,
        result: &mut Result<Response<RB>, BoxError>,
    ) -> Option<Self::Future> {
        let Self { settings, progress } = self;
        let said = Progress::said(result);
        let verdict = match result {
            Ok(response) => Verdict::of(response),
            Err(error) => Verdict::from_error(error.as_ref()),
        };
        if verdict.is_success() {
            if let Some(budget) = settings.budget.as_ref().filter(|budget| !budget.is_full()) {
                budget.deposit(budget_key(request), progress.taken);
            }
            progress.attempts += 1;
            progress.publish(result.as_mut().map_err(|_| ()), None);
            return None;
        }
        let verdict = progress.believe(verdict, result);
        let failure = Failure::of(result, &verdict);
        let now = crate::time::now();
        let deadline = Deadline::of(request).map(Deadline::instant).or_else(|| {
            let started = progress.started.unwrap_or(now);
            settings.deadline.map(|total| crate::time::saturating_add(started, total))
        });
        settings.number(progress);
        progress.hear(said);
        settings.tell_failed(progress, &failure);
        match settings.decide(progress, &failure, now, deadline, || budget_key(request)) {
            Ok(again) => {
                if let Some(token) = &again.token {
                    settings.tell_charged(progress, token);
                    // Its wait spends it, and one that is dropped ends the request.
                    progress.taken = progress.taken.saturating_add(token.taken());
                }
                settings.tell_waiting(progress, &failure, again.wait);
                progress.mark(request);
                Some(Wait { sleep: tokio::time::sleep(again.wait), token: again.token })
            }
            Err(why) => {
                settings.tell_gave_up(progress, &failure, why);
                progress.publish(result.as_mut().map_err(|_| ()), Some(why));
                match result {
                    Ok(response) => FailedProbe::unmark(response),
                    Err(error) => ProbeFailed::unwrap_in_place(error),
                }
                None
            }
        }
    }

    fn clone_request(&mut self, request: &Request<B>) -> Option<Request<B>> {
        // Without a number it had no failure yet. Attempts are none as well while it is turned away, or is a probe.
        if self.progress.request == 0 {
            self.progress = Progress { started: Some(crate::time::now()), ..Progress::default() };
        }
        let last = self.progress.attempts + 1 >= self.settings.attempts;
        (!last && replayable(request, self.settings.max_body_bytes)).then(|| request.clone())
    }
}

pin_project! {
    /// The wait between two attempts under tower's `Retry`.
    ///
    /// Dropping it gives the retry budget's token back: the retry was never sent.
    #[must_use = "futures do nothing unless polled"]
    pub struct Wait {
        #[pin]
        sleep: Sleep,
        token: Option<Withdrawal>,
    }
}

impl Future for Wait {
    type Output = ();

    fn poll(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<()> {
        let this = self.project();
        let slept = this.sleep.poll(cx);
        if slept.is_ready() {
            if let Some(token) = this.token.take() {
                token.spend();
            }
        }
        slept
    }
}

impl fmt::Debug for Wait {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("retry::Wait").finish_non_exhaustive()
    }
}
