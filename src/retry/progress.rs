//! How far one request has come: what its failures count for, and the waits within what a rate limit allows.

use std::time::Duration;

use http::Response;
use tokio::time::Instant;

use super::GaveUp;
use super::budget::Milli;
use crate::context::quota_wait::QuotaWait;
use crate::error::{BoxError, Rejected, find};
use crate::rng::RequestRng;
use crate::verdict::{Kind, Verdict};

/// What a request waits longer for those that turn it away, for each of its attempts: more than the timer's grain, and
/// nothing beside the waits themselves.
const YIELD: Duration = Duration::from_millis(10);
/// And at most so many times that, which is a fifth of a second.
const MOST_YIELDS: u32 = 20;

/// How far one request has come. Plain data: the future that holds it may be dropped at any time.
#[derive(Debug, Default)]
pub(super) struct Progress {
    /// The request's number, once it had a failure; 0 before.
    pub(super) request: u64,
    /// Attempts that were sent and have ended.
    pub(super) attempts: u32,
    /// When the first attempt began; read late, see `future.rs`.
    pub(super) started: Option<Instant>,
    pub(super) maybe_processed: u32,
    /// Of the retries, those that came soon.
    pub(super) quick: u32,
    /// Of the attempts, those whose answer was none.
    pub(super) empty: u32,
    /// Rejections and failed probes in a row, none of them counted as an attempt.
    pub(super) rejections: u32,
    /// Attempts that were a circuit's probes and have failed; not counted as attempts.
    pub(super) probes: u32,
    /// An attempt ended with a zero that was left out and doubted: one that comes again is believed.
    pub(super) doubted: bool,
    /// Timeouts among the attempts.
    pub(super) timeouts: u32,
    /// When the next attempt was to begin, as the last failure was decided.
    pub(super) next_at: Option<Instant>,
    /// What retries that were sent took from the budget, to be given back if the request succeeds.
    pub(super) taken: Milli,
    /// Attempts that are left to models which come after this one.
    pub(super) reserved: u32,
    /// Attempts at which this model's are over, where another one may be called instead.
    pub(super) limit: Option<u32>,
    /// Drawn from at the first wait.
    pub(super) stream: Option<RequestRng>,
    /// For the last backoff.
    pub(super) drawn: Option<f64>,
    pub(super) waits: Vec<Duration>,
    pub(super) kinds: Vec<Kind>,
    /// Why the last call of the retry layer gave up.
    pub(super) gave_up: Option<GaveUp>,
    /// What a rate limit inside has said of the waits for quota.
    pub(super) quota: QuotaWait,
    /// It said so of the last failure.
    pub(super) is_quota: bool,
}

impl Progress {
    /// With no more attempts than these, where the caller has said how many.
    pub(super) fn at_most(mut self, attempts: u32) -> Self {
        if attempts != u32::MAX {
            self.limit = Some(self.limit.map_or(attempts, |limit| limit.min(attempts)));
        }
        self
    }

    /// An attempt has failed.
    pub(super) fn count(&mut self, verdict: &Verdict) {
        self.attempts += 1;
        self.kinds.extend(verdict.kind());
    }

    /// A probe that is not repeated after all, and is an attempt like any other.
    pub(super) fn count_probe(&mut self, verdict: &Verdict) {
        self.probes = self.probes.saturating_sub(1);
        self.count(verdict);
    }

    /// The wait after what is no attempt, where it may go again so far ahead.
    pub(super) fn free_wait(&mut self, ahead: Duration) -> Duration {
        // Two layers that disagree about the time must not spin, so the n-th in a row waits 2ⁿ ms at the least, and at
        // most 1 s so.
        self.rejections = self.rejections.saturating_add(1);
        let floor = Duration::from_millis(1 << self.rejections.min(10));
        // The first to come back may be the probe that finds out whether the server is well. Where others wait who
        // have lost no attempt and been no probe yet, they go before.
        let behind = YIELD * self.attempts.saturating_add(self.probes).min(MOST_YIELDS);
        ahead.max(floor).saturating_add(behind)
    }
}

impl Clone for Progress {
    /// A clone of a policy is for another request: only the start is copied, which tower's `Retry` clones right
    /// after it was read.
    fn clone(&self) -> Self {
        Self { started: self.started, ..Self::default() }
    }
}

impl Progress {
    /// What a rate limit inside has to say of this failure.
    pub(super) fn said<RB>(result: &Result<Response<RB>, BoxError>) -> Option<QuotaWait> {
        match result {
            Ok(response) => QuotaWait::said(response),
            Err(error) => find::<Rejected>(error.as_ref()).and_then(Rejected::quota),
        }
    }

    /// The verdict of an attempt, without its doubt where an attempt before has left the same doubt.
    pub(super) fn believe<RB>(
        &mut self,
        verdict: Verdict,
        result: &mut Result<Response<RB>, BoxError>,
    ) -> Verdict {
        if !verdict.is_doubtful_zero() || !std::mem::replace(&mut self.doubted, true) {
            return verdict;
        }
        let verdict = verdict.believed();
        if let Ok(response) = result {
            response.extensions_mut().insert(verdict.clone());
        }
        verdict
    }

    pub(super) fn hear(&mut self, said: Option<QuotaWait>) {
        self.is_quota = said.is_some();
        self.quota = self.quota.and(said.unwrap_or_default());
    }

    /// The wait after this failure within what a rate limit inside allows.
    pub(super) fn bound(
        &self,
        wait: Result<Duration, GaveUp>,
        verdict: &Verdict,
    ) -> Result<Duration, GaveUp> {
        if self.quota.first && matches!(wait, Ok(_) | Err(GaveUp::ServerDelay)) {
            // It waits in the queue, before all others.
            return Ok(Duration::ZERO);
        }
        let wait = wait?;
        let Some(left) = self.quota.left.filter(|_| self.is_quota) else { return Ok(wait) };
        match verdict.server_delay().filter(|_| verdict.kind() == Some(Kind::RateLimited)) {
            Some(delay) if delay.at_least() > left => Err(GaveUp::ServerDelay),
            Some(_) => Ok(wait.min(left)),
            // The quota may be back before its window is over, and certainly not at once.
            None if verdict.quota_window().is_some() && left.is_zero() => Err(GaveUp::ServerDelay),
            None if verdict.quota_window().is_some() => Ok(wait.min(left)),
            None => Ok(wait),
        }
    }
}
