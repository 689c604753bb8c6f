//! The settings of resuming, their defaults and their checks.

use std::sync::{Arc, Mutex};

use super::bucket::Bucket;
use super::layer::ResumeLayer;
use super::report::ResumeMode;
use super::shared::Shared;
use crate::error::ConfigError;
use crate::event::{Observed, Observer};

/// Collects settings for a [`ResumeLayer`]; [`build`](Self::build) checks them.
#[derive(Clone, Debug)]
#[must_use]
pub struct ResumeBuilder {
    pub(super) mode: ResumeMode,
    pub(super) enabled: bool,
    pub(super) most: u32,
    pub(super) budget: f64,
    pub(super) max_text_bytes: usize,
    pub(super) observer: Observed,
}

impl ResumeBuilder {
    /// Off, every stream passes through as it is, with the same type. Default on.
    pub const fn enabled(mut self, enabled: bool) -> Self {
        self.enabled = enabled;
        self
    }

    /// How often one answer is gone on with, 1 to 5. Default 1.
    pub const fn most(mut self, times: u32) -> Self {
        self.most = times;
        self
    }

    /// How many streams may be gone on with for each that ended well, 0 to 1. Default 0.1. The bucket begins full and holds 10.
    pub const fn budget(mut self, per_stream: f64) -> Self {
        self.budget = per_stream;
        self
    }

    /// How much text of one answer is kept to continue it, 1 KiB to 16 MiB. Default 1 MiB. A longer one is not continued.
    pub const fn max_text_bytes(mut self, bytes: usize) -> Self {
        self.max_text_bytes = bytes;
        self
    }

    /// Is told of each stream that is gone on with: [`Event::StreamResumed`](crate::event::Event::StreamResumed).
    pub fn observer(mut self, observer: Arc<dyn Observer>) -> Self {
        self.observer = Observed::by(observer);
        self
    }

    /// The layer.
    ///
    /// # Errors
    ///
    /// The first setting that is out of its range, and the range.
    pub fn build(self) -> Result<ResumeLayer, ConfigError> {
        if !(1..=5).contains(&self.most) {
            return Err(ConfigError::new("most", "must be from 1 to 5"));
        }
        if !(0.0..=1.0).contains(&self.budget) {
            return Err(ConfigError::new("budget", "must be from 0 to 1"));
        }
        if !(1 << 10..=16 << 20).contains(&self.max_text_bytes) {
            return Err(ConfigError::new("max_text_bytes", "must be from 1 KiB to 16 MiB"));
        }
        let shared = Shared {
            mode: self.mode,
            enabled: self.enabled,
            most: self.most,
            max_text_bytes: self.max_text_bytes,
            observer: self.observer,
            bucket: Mutex::new(Bucket::new(self.budget)),
        };
        Ok(ResumeLayer { shared: Arc::new(shared) })
    }
}
