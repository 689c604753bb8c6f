//! Random numbers for a day, of few digits, so that they are the same in its file.

use rand::rngs::StdRng;
use rand::{RngExt, SeedableRng};

/// The generator of one day.
pub(crate) struct Draw(StdRng);

impl Draw {
    pub(crate) fn new(seed: u64, index: u64) -> Self {
        let mixed = seed.wrapping_mul(0x9E37_79B9_7F4A_7C15) ^ index.wrapping_mul(0xD1B5_4A32_D192_ED03);
        Self(StdRng::seed_from_u64(mixed))
    }

    pub(crate) fn uniform(&mut self, least: f64, most: f64) -> f64 {
        let drawn = least + (most - least) * self.0.random::<f64>();
        round(drawn).clamp(least, most)
    }

    /// Each factor is as likely as any other.
    pub(crate) fn log_uniform(&mut self, least: f64, most: f64) -> f64 {
        let drawn = (least.ln() + (most / least).ln() * self.0.random::<f64>()).exp();
        round(drawn).clamp(least, most)
    }

    pub(crate) fn chance(&mut self, share: f64) -> bool {
        self.0.random::<f64>() < share
    }

    pub(crate) fn pick<T: Copy>(&mut self, among: &[T]) -> T {
        among[self.0.random_range(0..among.len())]
    }
}

/// To three digits.
pub(crate) fn round(x: f64) -> f64 {
    if x == 0.0 {
        return 0.0;
    }
    // By way of the decimal form, which is what the file has.
    format!("{x:.2e}").parse().expect("a number's own form")
}
