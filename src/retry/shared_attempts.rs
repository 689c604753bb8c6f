//! What one request has used up in earlier calls of the retry layer.

use std::sync::{Arc, Mutex};

use super::failure::Failure;
use super::progress::Progress;
use crate::error::Rejected;
use crate::event::GaveUp;
use crate::event::attempts::Attempts;
use crate::lock::lock;
use crate::verdict::Verdict;

/// Knows whether the same request could be sent somewhere else.
pub(crate) trait Elsewhere: Send + Sync {
    /// Is told of each failure. Whether another place would take the request now, so that it need not wait here.
    fn failed(&self, verdict: &Verdict, rejected: Option<&Rejected>) -> bool;
}

/// At each model but the last of a chain: their backoffs add up to three seconds or so (six where it is overloaded), and
/// those of ten attempts to two minutes.
const ATTEMPTS_BEFORE_ANOTHER: u32 = 3;

/// Makes several calls of this layer count as one: a model fallback or a choice of places outside puts it into the context
/// of a request before each of them.
///
/// Attempts, waits, kinds, the number for events and the instant of the first attempt go on where the call before
/// ended, so that another model is no way round the policy. Clones share them.
///
/// NOTE: `fallback` and `places` make their calls one after the other, so there is never a call of the same request under way
/// that has not taken the progress out yet.
#[derive(Clone, Default)]
pub(crate) struct SharedAttempts {
    progress: Arc<Mutex<Progress>>,
    /// Attempts that are left to models which come after this one.
    reserved: u32,
    /// Another call may follow, which needs the body again.
    goes_on: bool,
    elsewhere: Option<Arc<dyn Elsewhere>>,
}

impl SharedAttempts {
    /// The same, leaving one attempt to each of so many models that come after this one.
    pub(crate) fn reserving(&self, models: usize) -> Self {
        let reserved = u32::try_from(models).unwrap_or(u32::MAX);
        Self { progress: Arc::clone(&self.progress), reserved, goes_on: models > 0, elsewhere: None }
    }

    /// The same, where nobody knows yet whether any model comes after this one: nothing is left to them.
    pub(crate) fn reserving_nothing(&self) -> Self {
        Self { progress: Arc::clone(&self.progress), reserved: 0, goes_on: true, elsewhere: None }
    }

    /// The same for a call to one of several places: one that fails is given up where another place would take it.
    ///
    /// Forgets why an earlier call gave up.
    pub(crate) fn leaving_to(&self, elsewhere: Arc<dyn Elsewhere>) -> Self {
        lock(&self.progress).gave_up = None;
        Self { elsewhere: Some(elsewhere), goes_on: true, ..self.clone() }
    }

    /// Why the last call was given up; `None` where no retry layer has seen it fail.
    pub(crate) fn gave_up(&self) -> Option<GaveUp> {
        lock(&self.progress).gave_up
    }

    /// Whether another place would take the request after this failure.
    pub(super) fn has_another(&self, failure: &Failure<'_>) -> bool {
        let rejected = match failure {
            Failure::Rejected(rejected, _) => Some(*rejected),
            _ => None,
        };
        self.elsewhere.as_ref().is_some_and(|elsewhere| elsewhere.failed(failure.verdict(), rejected))
    }

    /// Whether another call may follow, which needs the body again.
    pub(super) const fn goes_on(&self) -> bool {
        self.goes_on
    }

    /// The attempts that are left to others.
    pub(super) const fn reserved(&self) -> u32 {
        self.reserved
    }

    /// How far the request has come.
    pub(super) fn take(&self) -> Progress {
        let progress = std::mem::take(&mut *lock(&self.progress));
        // Where another model may help, it is not kept waiting for all that this one might need.
        let limit = (self.reserved > 0).then(|| progress.attempts.saturating_add(ATTEMPTS_BEFORE_ANOTHER));
        // What retries took from another model's budget is lost there: they did not help.
        Progress { reserved: self.reserved, limit, taken: 0, gave_up: None, ..progress }
    }

    /// Keeps it for the next call. What went into a report is taken back from there.
    pub(super) fn put(&self, mut progress: Progress, report: Option<&Attempts>) {
        if let Some(report) = report {
            progress.waits.clone_from(&report.waits);
            progress.kinds.clone_from(&report.kinds);
        }
        // Its place in the queue was one of this model's, and so was the doubt.
        (progress.quota.first, progress.doubted) = (false, false);
        *lock(&self.progress) = progress;
    }
}
