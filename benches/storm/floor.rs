//! What this crate's row came to when it was last recorded.

use serde::{Deserialize, Serialize};

use super::figures::Figures;
use super::scenario::Measure;

/// One cell, over the seeds from 0 on.
#[derive(Clone, Copy, Debug, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub(crate) struct Record {
    pub(crate) seeds: u64,
    /// The share that was answered in time, of the requests that count.
    pub(crate) served: f64,
    /// All calls for each answer.
    pub(crate) calls: f64,
    /// Seconds: the time by which the scenario is judged.
    pub(crate) time: f64,
    pub(crate) score: f64,
}

impl Record {
    pub(crate) fn of(seeds: &[Figures], measure: Measure, score: f64) -> Self {
        let average =
            |of: &dyn Fn(&Figures) -> f64| seeds.iter().map(of).sum::<f64>() / seeds.len().max(1) as f64;
        // Enough digits to see a change of a thousandth, and no more to change in each record.
        let round = |x: f64| (x * 1e4).round() / 1e4;
        Self {
            seeds: seeds.len() as u64,
            served: round(average(&Figures::share)),
            calls: round(average(&Figures::calls_per_answer)),
            time: round(average(&|figures| figures.time(measure))),
            score: round(score),
        }
    }

    /// What fell more than 2 % below `self`.
    #[allow(dead_code, reason = "the floor's test alone asks")]
    pub(crate) fn fallen(&self, now: &Self) -> Vec<String> {
        let mut fallen = Vec::new();
        for (name, was, is, worse) in [
            ("served", self.served, now.served, now.served < 0.98 * self.served),
            ("calls for each answer", self.calls, now.calls, now.calls > 1.02 * self.calls),
            ("time", self.time, now.time, now.time > 1.02 * self.time),
            ("score", self.score, now.score, now.score < 0.98 * self.score),
        ] {
            if worse {
                fallen.push(format!("{name}: {is} after {was}"));
            }
        }
        fallen
    }
}
