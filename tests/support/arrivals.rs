//! Who asks, and when. The same whatever the clients are: common random numbers.
//!
//! Shared by `tests/scenarios.rs` and `benches/storm.rs`.

use std::time::Duration;

use rand::rngs::StdRng;
use rand::{RngExt, SeedableRng};

/// Poisson arrivals, each at one process of so many.
pub(crate) struct Arrivals {
    rng: StdRng,
    rate: f64,
    horizon: Duration,
    processes: usize,
    at: Duration,
}

impl Arrivals {
    /// `rate` is the requests a second of all processes together.
    pub(crate) fn new(rate: f64, horizon: Duration, processes: usize, seed: u64) -> Self {
        let rng = StdRng::seed_from_u64(seed ^ 0x5EED);
        Self { rng, rate, horizon, processes, at: Duration::ZERO }
    }
}

impl Iterator for Arrivals {
    /// When, and the number of the process.
    type Item = (Duration, usize);

    fn next(&mut self) -> Option<Self::Item> {
        self.at += Duration::from_secs_f64(-(1.0 - self.rng.random::<f64>()).ln() / self.rate);
        (self.at < self.horizon).then(|| (self.at, self.rng.random_range(0..self.processes)))
    }
}
