//! The settings of shared calls, their defaults and their checks.

use std::fmt;
use std::hash::Hash;
use std::sync::Arc;

use super::key::Shared;
use super::layer::CoalesceLayer;
use crate::error::ConfigError;
use crate::event::{Observed, Observer};

/// Collects settings for a [`CoalesceLayer`]; [`build`](Self::build) checks them.
#[must_use]
pub struct CoalesceBuilder<K, F> {
    pub(super) key_of: F,
    pub(super) max_calls: usize,
    pub(super) max_bytes: usize,
    pub(super) enabled: bool,
    pub(super) observer: Observed,
    pub(super) key: std::marker::PhantomData<fn() -> K>,
}

impl<K: Hash + Eq + Send + Sync + 'static, F> CoalesceBuilder<K, F> {
    /// Off, every request is passed on as it is, with the same type. Default on.
    pub const fn enabled(mut self, enabled: bool) -> Self {
        self.enabled = enabled;
        self
    }

    /// How many calls can be shared at a time: 1 to 1,000,000. Default 1,024. Requests of further keys are passed on as they are.
    pub const fn max_calls(mut self, calls: usize) -> Self {
        self.max_calls = calls;
        self
    }

    /// How many bytes of one answer are held for those who read it more slowly than the fastest, 64 for each frame added: 1 KiB to 64
    /// MiB. Default 1 MiB. A single frame that is larger is held all the same.
    ///
    /// Who falls further behind is given a [`FellBehind`](super::FellBehind). As long as an answer is no longer than this, requests can join it at any time
    /// before its end.
    pub const fn max_bytes(mut self, bytes: usize) -> Self {
        self.max_bytes = bytes;
        self
    }

    /// Is told of each request that joined a call: [`Event::Coalesced`](crate::event::Event::Coalesced).
    pub fn observer(mut self, observer: Arc<dyn Observer>) -> Self {
        self.observer = Observed::by(observer);
        self
    }

    /// The layer.
    ///
    /// # Errors
    ///
    /// [`ConfigError`] when a setting is out of its range.
    pub fn build(self) -> Result<CoalesceLayer<K, F>, ConfigError> {
        if !(1..=1_000_000).contains(&self.max_calls) {
            return Err(ConfigError::new("max_calls", "must be from 1 to 1,000,000"));
        }
        if !(1 << 10..=64 << 20).contains(&self.max_bytes) {
            return Err(ConfigError::new("max_bytes", "must be from 1 KiB to 64 MiB"));
        }
        let shared = Shared::new(self.enabled, self.max_calls, self.max_bytes, self.observer);
        Ok(CoalesceLayer { shared, key_of: Arc::new(self.key_of) })
    }
}

impl<K, F> fmt::Debug for CoalesceBuilder<K, F> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("CoalesceBuilder")
            .field("max_calls", &self.max_calls)
            .field("max_bytes", &self.max_bytes)
            .field("observer", &self.observer)
            .finish_non_exhaustive()
    }
}
