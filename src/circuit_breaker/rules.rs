//! The numbers that a circuit goes by, and the lengths that follow from them. Pure.

use super::ramp::Ramp;
use super::{Nanos, SECOND};
use crate::event::circuit::BreakerMode;

/// How far open times are spread, either way.
const JITTER: f64 = 0.2;

/// Calls a second at the beginning of a ramp, at the least.
pub(super) const RAMP_START: f64 = 10.0;

/// The share of the calls a second before the outage with which a ramp begins, if that is more, by the longest outage
/// that it is for: the longer it was, the more wait, and the colder the server may be. Twice as many are what callers send
/// who back off for up to as long as the outage has lasted, and come back within as much again: no more than without a
/// breaker.
const RAMP_SHARES: [(Nanos, f64); 2] = [(90 * SECOND, 2.0), (Nanos::MAX, 0.25)];

/// A probe goes for each so many calls that were made in the same time before the outage, however long the open time has
/// grown: one call in twenty more is no load, and a client that makes many finds out the sooner.
const CALLS_PER_PROBE: f64 = 20.0;
/// The shortest time over which those calls are counted: a batch that begins at once is no rate.
pub(super) const LEAST_PACED: Nanos = SECOND;

/// Every number that the rules depend on. Checked by the builder.
#[derive(Clone, Copy, Debug)]
pub(super) struct Rules {
    pub(super) mode: BreakerMode,
    pub(super) window: Nanos,
    pub(super) min_calls: u32,
    pub(super) failure_share: f64,
    pub(super) consecutive: u32,
    /// Above 1 where slow calls do not matter.
    pub(super) slow_share: f64,
    pub(super) open: Nanos,
    pub(super) open_factor: f64,
    pub(super) open_max: Nanos,
    pub(super) max_server_delay: Nanos,
    /// At most [`MAX_PROBES`].
    pub(super) probes: usize,
    pub(super) successes: u32,
    pub(super) lease: Nanos,
    pub(super) ramp: Nanos,
}

impl Rules {
    /// How long until the next probe, the longer the more of them have failed or hang in this outage, and the fewer calls a
    /// second there were before it.
    pub(super) fn open_time(&self, strikes: u32, pace: f64, draw: f64) -> Nanos {
        // The longest open time is a promise, and the spread stays whole below it.
        let most = self.open_max as f64 / (1.0 + JITTER);
        // Infinite where nothing was called.
        let often = CALLS_PER_PROBE / pace * SECOND as f64;
        let most = most.min(often.max(self.open as f64));
        (self.grown(strikes).min(most) * (1.0 + JITTER * (2.0 * draw - 1.0))) as Nanos
    }

    /// The open time after so many probes that failed or hang, without spread or bound.
    pub(super) fn grown(&self, strikes: u32) -> f64 {
        let strikes = i32::try_from(strikes).unwrap_or(i32::MAX);
        self.open as f64 * self.open_factor.powi(strikes)
    }

    /// The ramp after an outage of this length, before which there were `busy` calls a second.
    pub(super) fn ramp(&self, now: Nanos, outage: Nanos, busy: f64) -> Option<Ramp> {
        let share =
            RAMP_SHARES.iter().find(|(longest, _)| outage < *longest).map_or(0.0, |(_, share)| *share);
        let start = RAMP_START.max(busy * share);
        (self.ramp > 0).then(|| Ramp::new(now, self.ramp, start))
    }
}
