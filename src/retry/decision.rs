//! Again, and when? The decision about one failed attempt. Pure but for the budget's tokens and the streams of randomness.

use std::sync::atomic::Ordering;
use std::time::Duration;

use tokio::time::Instant;

use super::GaveUp;
use super::backoff::{Backoff, next_draw};
use super::budget::{Charge, Withdrawal};
use super::config::Settings;
use super::failure::{Failure, is_gone, is_of_the_server, is_timeout, may_be_lost, may_be_quick};
use super::progress::Progress;
use super::schedule::Schedule;
use crate::verdict::{Retryability, Verdict};

/// Attempts beyond these are made only while the budget is at least half full: what is left below that is kept for
/// requests that have tried less.
const EARLY_ATTEMPTS: u32 = 5;

/// Of a retry where most other calls succeed.
const QUICK: Backoff = Backoff::new(Duration::from_millis(50), Duration::from_secs(1));

/// With less left of a deadline no backoff is fitted into it: the retry would hardly be answered in time.
const LEAST_LEFT: Duration = Duration::from_millis(500);

/// What a draw is for.
#[derive(Clone, Copy, Debug)]
pub(super) enum Draw {
    Backoff,
    /// What goes on top of a delay that the server named.
    ServerDelay,
}

/// Send it again after `wait`, paying with `token` where the budget was charged.
#[derive(Debug)]
pub(super) struct Again {
    pub(super) wait: Duration,
    pub(super) token: Option<Withdrawal>,
}

/// How many other requests must have timed out in a row, with no success between, for a timeout to be no chance.
const OTHERS_LATE: u32 = 2;

impl Settings {
    /// Remembers that failures occur after which a wait is neither charged to the budget nor, of a rejection, an
    /// attempt. From the first one on a copy is kept also where only such a wait could need it: while the budget is
    /// empty, and of the last attempt. Where there are none, neither copy is paid for.
    pub(super) fn note_free_wait(&self, failure: &Failure<'_>) {
        let is_free = match failure {
            Failure::Rejected(rejected, _) => rejected.until().is_some(),
            Failure::Probe(..) => true,
            Failure::Verdict(verdict) => verdict.retryability() == Retryability::AfterServerDelay,
        };
        if is_free && !self.has_free_waits() {
            self.free_waits.store(true, Ordering::Relaxed);
        }
    }

    /// Relaxed: a call that does not see it yet keeps no copy, as the ones before it.
    pub(super) fn has_free_waits(&self) -> bool {
        self.free_waits.load(Ordering::Relaxed)
    }

    /// Gives a request its number, at its first failure.
    pub(super) fn number(&self, progress: &mut Progress) {
        if progress.request == 0 {
            // Relaxed: only distinct numbers are asked for.
            progress.request = self.failed_requests.fetch_add(1, Ordering::Relaxed) + 1;
        }
    }

    /// The attempts of a request in all, but for those that are left to models which come after this one.
    pub(super) fn most(&self, reserved: u32) -> u32 {
        self.attempts.saturating_sub(reserved).max(1)
    }

    /// The same, where the request has come so far.
    pub(super) fn most_here(&self, progress: &Progress) -> u32 {
        self.most(progress.reserved).min(progress.limit.unwrap_or(u32::MAX))
    }

    /// See [`RetryPolicy::would_retry`](super::RetryPolicy::would_retry).
    pub(super) fn would_retry(&self, verdict: &Verdict) -> Option<Duration> {
        let progress = Progress { attempts: 1, ..Progress::default() };
        let is_quick = self.quick_retries > 0 && self.budget.is_some() && may_be_quick(verdict);
        let wait = self.schedule(&progress, verdict, is_quick, |_| 0.0).ok()?;
        match self.deadline {
            Some(deadline) if wait >= deadline => fitted(verdict, deadline, 0.0),
            _ => Some(wait),
        }
    }

    /// Decides about one failed attempt, which `progress` does not count yet, and counts it.
    ///
    /// `deadline` is absolute, `key` names the budget's bucket; both are asked for only when they matter.
    pub(super) fn decide(
        &self,
        progress: &mut Progress,
        failure: &Failure<'_>,
        now: Instant,
        deadline: Option<Instant>,
        mut key: impl FnMut() -> u64,
    ) -> Result<Again, GaveUp> {
        let (mut stream, mut drawn) = (progress.stream.take(), progress.drawn);
        let in_time = |wait: Duration| {
            let end = now.checked_add(wait);
            deadline.is_none_or(|deadline| end.is_some_and(|end| end < deadline))
        };
        let again = match failure {
            Failure::Rejected(rejected, _) => {
                let until = rejected.until().ok_or(GaveUp::Rejected)?;
                if progress.reserved > 0 && is_of_the_server(rejected) {
                    // Another model is left, which need not be waited for.
                    return Err(GaveUp::Rejected);
                }
                if progress.is_quota && !progress.quota.allows(until.saturating_duration_since(now)) {
                    return Err(GaveUp::Rejected);
                }
                let wait = progress.free_wait(until.saturating_duration_since(now));
                if !in_time(wait) {
                    return Err(GaveUp::Deadline);
                }
                Again { wait, token: None }
            }
            Failure::Probe(_, verdict) if progress.reserved > 0 => {
                progress.count(verdict);
                return Err(GaveUp::Attempts);
            }
            Failure::Probe(until, verdict) => {
                progress.probes += 1;
                let least = self.after_probe(progress, verdict);
                let wait =
                    least.map(|least| progress.free_wait(least.max(until.saturating_duration_since(now))));
                let left = deadline.map_or(Duration::MAX, |deadline| deadline.saturating_duration_since(now));
                match wait {
                    Ok(wait)
                        if is_timeout(verdict)
                            && self.is_in_vain(progress, now, left.saturating_sub(wait), &mut key) =>
                    {
                        // Quiet processes would else keep a full server full by their probes alone.
                        progress.count_probe(verdict);
                        return Err(GaveUp::Deadline);
                    }
                    Ok(wait) if in_time(wait) => {
                        progress.maybe_processed += u32::from(may_be_lost(verdict));
                        Again { wait, token: None }
                    }
                    end => {
                        progress.count_probe(verdict);
                        return Err(end.err().unwrap_or(GaveUp::Deadline));
                    }
                }
            }
            Failure::Verdict(verdict) => {
                progress.count(verdict);
                progress.rejections = 0;
                let draw = |what| {
                    let mut unit = || stream.get_or_insert_with(|| self.chance.stream()).unit();
                    match what {
                        Draw::Backoff => *drawn.insert(next_draw(drawn, unit)),
                        Draw::ServerDelay => unit(),
                    }
                };
                let is_quick = self.is_quick(progress, verdict, &mut key);
                if progress.reserved > 0 && !is_quick && may_be_quick(verdict) {
                    // Another model is left, and it costs less than a wait for this one.
                    return Err(GaveUp::Attempts);
                }
                let wait = progress.bound(self.schedule(progress, verdict, is_quick, draw), verdict)?;
                let left = deadline.map_or(Duration::MAX, |deadline| deadline.saturating_duration_since(now));
                let wait = if in_time(wait) {
                    wait
                } else {
                    fitted(verdict, left, drawn.unwrap_or(0.5)).ok_or(GaveUp::Deadline)?
                };
                if is_timeout(verdict) && self.is_in_vain(progress, now, left.saturating_sub(wait), &mut key)
                {
                    return Err(GaveUp::Deadline);
                }
                progress.quick += u32::from(is_quick);
                progress.maybe_processed += u32::from(may_be_lost(verdict));
                progress.timeouts += u32::from(is_timeout(verdict));
                progress.empty += u32::from(verdict.is_no_answer());
                // A server that names the time itself expects the retry: that is no load to be bounded, and
                // waits for quota would starve the retries of real faults.
                let token = match &self.budget {
                    Some(budget)
                        if verdict.retryability() != Retryability::AfterServerDelay
                            && !progress.quota.first =>
                    {
                        Some(budget.withdraw(key(), charge(progress, verdict), now).ok_or(GaveUp::Budget)?)
                    }
                    _ => None,
                };
                Again { wait, token }
            }
        };
        (progress.stream, progress.drawn) = (stream, drawn);
        if progress.is_quota && failure.is_of_quota() {
            progress.quota.spend(again.wait);
        }
        progress.waits.push(again.wait);
        progress.next_at = now.checked_add(again.wait);
        Ok(again)
    }

    /// Whether an attempt with so much time left would only be one more timeout: the one before it had longer, and timeouts of
    /// [`OTHERS_LATE`] other requests were followed by no success yet, or few others of late have had an answer. Where a share `p` of
    /// calls times out by chance, that is wrong for `p³` of them at the most. A server that works on calls in their order finishes
    /// none of it then, and every such call makes those behind it late.
    fn is_in_vain(
        &self,
        progress: &Progress,
        now: Instant,
        left: Duration,
        mut key: impl FnMut() -> u64,
    ) -> bool {
        let began = progress.next_at.or(progress.started);
        began.is_some_and(|began| left < now.saturating_duration_since(began))
            && self.budget.as_ref().is_some_and(|budget| {
                let key = key();
                !budget.is_well(key) || budget.late_row(key) >= progress.timeouts + OTHERS_LATE
            })
    }

    /// Whether the failure looks like chance: most other calls of late have succeeded, so nothing is gained by waiting
    /// long, and the server has room. Where few succeed it is the server that needs the time.
    fn is_quick(&self, progress: &Progress, verdict: &Verdict, mut key: impl FnMut() -> u64) -> bool {
        progress.quick < self.quick_retries
            && may_be_quick(verdict)
            && self.budget.as_ref().is_some_and(|budget| budget.is_well(key()))
    }

    /// The wait before the next attempt, by kind and count alone.
    pub(super) fn schedule(
        &self,
        progress: &Progress,
        verdict: &Verdict,
        is_quick: bool,
        mut draw: impl FnMut(Draw) -> f64,
    ) -> Result<Duration, GaveUp> {
        let schedule = self.schedule_of(progress, verdict)?;
        let most = self.most_here(progress);
        if progress.attempts >= schedule.attempts.unwrap_or(most).min(most) {
            return Err(GaveUp::Attempts);
        }
        self.may_repeat(progress, verdict)?;
        if is_quick {
            return Ok(QUICK.delay(progress.quick, None, draw(Draw::Backoff)));
        }
        let retry = progress.attempts.saturating_sub(1 + progress.quick);
        let own = schedule.backoff.delay(retry, progress.waits.last().copied(), draw(Draw::Backoff));
        // The quota of a minute that is named without a delay is back after a minute. Nobody has promised it, so a wait
        // that would end at the deadline is fitted.
        let Some(least) = self.server_delay(verdict)?.or(verdict.quota_window()) else { return Ok(own) };
        // Never early: the jitter goes on top, and the own backoff only lengthens it (a server that keeps
        // failing after its own delay is given more time; google.rpc.RetryInfo asks for that).
        Ok(own.max(least) + least.mul_f64(self.server_delay_jitter * draw(Draw::ServerDelay)))
    }

    /// The least wait after a failed probe, where such a failure is repeated at all.
    fn after_probe(&self, progress: &Progress, verdict: &Verdict) -> Result<Duration, GaveUp> {
        if self.schedule_of(progress, verdict)?.attempts == Some(1) {
            return Err(GaveUp::Attempts);
        }
        self.may_repeat(progress, verdict)?;
        Ok(self.server_delay(verdict)?.unwrap_or_default())
    }

    /// By which schedule such a failure is repeated.
    fn schedule_of(&self, progress: &Progress, verdict: &Verdict) -> Result<Schedule, GaveUp> {
        let kind = verdict.kind().ok_or(GaveUp::NotRetryable)?;
        if verdict.after_output() {
            return Err(GaveUp::AfterOutput);
        }
        match verdict.retryability() {
            Retryability::Never if verdict.is_no_answer() && self.empty_answers > 0 => {
                if progress.empty >= self.empty_answers {
                    return Err(GaveUp::Attempts);
                }
                Ok(Schedule::waiting(self.empty_backoff))
            }
            Retryability::Never => Err(GaveUp::NotRetryable),
            _ if is_gone(verdict) => Err(GaveUp::NotRetryable),
            _ => self.schedules[kind as usize].ok_or(GaveUp::NotRetryable),
        }
    }

    /// What may have been processed is repeated so often.
    fn may_repeat(&self, progress: &Progress, verdict: &Verdict) -> Result<(), GaveUp> {
        let most = self.maybe_processed_retries;
        let is_over = if is_timeout(verdict) { most == 0 } else { progress.maybe_processed >= most };
        if verdict.maybe_processed() && is_over { Err(GaveUp::MaybeProcessed) } else { Ok(()) }
    }

    /// What the server asks for, where it asks.
    fn server_delay(&self, verdict: &Verdict) -> Result<Option<Duration>, GaveUp> {
        match verdict.server_delay() {
            Some(delay) if delay.declared() > self.max_server_delay => Err(GaveUp::ServerDelay),
            delay => Ok(delay.map(|delay| delay.at_least())),
        }
    }
}

/// What the next attempt costs, after this failure, which `progress` counts already.
fn charge(progress: &Progress, verdict: &Verdict) -> Charge {
    let is_late = progress.attempts >= EARLY_ATTEMPTS;
    if is_timeout(verdict) {
        Charge::TIMEOUT.late(is_late || progress.timeouts > 1)
    } else {
        Charge::FAILURE.late(is_late)
    }
}

/// A wait that ends in time, in the place of a backoff that would not: from a quarter to three quarters of what is left
/// of the deadline, by the draw. Never longer than the backoff, which is at least what is left.
///
/// `None` where a server asks for the wait, which is never cut, or where too little is left.
fn fitted(verdict: &Verdict, left: Duration, draw: f64) -> Option<Duration> {
    let may_be_fitted = verdict.server_delay().is_none() && left >= LEAST_LEFT;
    may_be_fitted.then(|| left.mul_f64(0.25 + 0.5 * draw))
}

#[cfg(test)]
#[path = "tests/decision.rs"]
mod tests;
