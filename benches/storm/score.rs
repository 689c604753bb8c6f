//! One number for a scenario: the geometric mean of four ratios of the best possible to the measured.

use super::figures::Figures;
use super::scenario::Scenario;

/// The four of them: time, calls for each answer, requests left over and one, seconds to recover and one.
///
/// None is above 1: luck in the draws is no merit.
pub(crate) fn ratios(scenario: &Scenario, ideal: &Figures, measured: &Figures) -> [f64; 4] {
    let never = (scenario.load.horizon + scenario.deadline - scenario.well).as_secs_f64();
    let recovery = |figures: &Figures| figures.recovery.unwrap_or(never) + 1.0;
    let ratio = |best: f64, measured: f64| (best / measured).min(1.0);
    let calls = match measured.served_in_all {
        // Nothing was bought with them.
        0 => ratio(ideal.calls_per_answer(), measured.calls_in_all.max(1) as f64),
        _ => ratio(ideal.calls_per_answer(), measured.calls_per_answer()),
    };
    [
        ratio(ideal.time(scenario.measure), measured.time(scenario.measure)),
        calls,
        ratio((ideal.unfinished + 1) as f64, (measured.unfinished + 1) as f64),
        ratio(recovery(ideal), recovery(measured)),
    ]
}

/// The logarithm of the score.
pub(crate) fn log_score(ratios: [f64; 4]) -> f64 {
    ratios.iter().map(|ratio| ratio.ln()).sum::<f64>() / 4.0
}

/// Mean and half the width of its 95 % interval.
pub(crate) fn mean(values: &[f64]) -> (f64, f64) {
    let n = values.len() as f64;
    let mean = values.iter().sum::<f64>() / n;
    let variance = values.iter().map(|v| (v - mean).powi(2)).sum::<f64>() / (n - 1.0).max(1.0);
    (mean, 1.96 * (variance / n).sqrt())
}
