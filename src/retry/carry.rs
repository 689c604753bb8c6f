//! What one request has used up in earlier calls of the retry layer.

use std::sync::{Arc, Mutex};

use super::policy::Progress;
use crate::event::attempts::Attempts;
use crate::lock::lock;

/// At each model but the last of a chain: their backoffs add up to three seconds or so (six where it is overloaded), and
/// those of ten attempts to two minutes.
const ATTEMPTS_BEFORE_ANOTHER: u32 = 3;

/// Makes several calls of this layer count as one: a model fallback outside puts it into the context of a request before
/// each of them.
///
/// Attempts, waits, kinds, the number for events and the instant of the first attempt go on where the call before
/// ended, so that another model is no way round the policy. Clones share them.
///
/// NOTE: `fallback` makes its calls one after the other, so there is never a call of the same request under way
/// that has not taken the progress out yet.
#[derive(Clone, Default)]
pub(crate) struct Carry {
    progress: Arc<Mutex<Progress>>,
    /// Attempts that are left to models which come after this one.
    reserved: u32,
    /// Another call may follow, which needs the body again.
    goes_on: bool,
}

impl Carry {
    /// The same, leaving one attempt to each of so many models that come after this one.
    pub(crate) fn reserving(&self, models: usize) -> Self {
        let reserved = u32::try_from(models).unwrap_or(u32::MAX);
        Self { progress: Arc::clone(&self.progress), reserved, goes_on: models > 0 }
    }

    /// The same, where nobody knows yet whether any model comes after this one: nothing is left to them.
    pub(crate) fn reserving_nothing(&self) -> Self {
        Self { progress: Arc::clone(&self.progress), reserved: 0, goes_on: true }
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
        Progress { reserved: self.reserved, limit, taken: 0, ..progress }
    }

    /// Keeps it for the next call. What went into a report is taken back from there.
    pub(super) fn put(&self, mut progress: Progress, report: Option<&Attempts>) {
        if let Some(report) = report {
            progress.waits.clone_from(&report.waits);
            progress.kinds.clone_from(&report.kinds);
        }
        // Its place in the queue was one of this model's.
        progress.quota.first = false;
        *lock(&self.progress) = progress;
    }
}
