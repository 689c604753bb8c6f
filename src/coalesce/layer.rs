use std::fmt;
use std::hash::Hash;
use std::sync::Arc;

use tower_layer::Layer;

use super::key::Shared;
use super::service::Coalesce;
use crate::error::ConfigError;
use crate::event::{Observed, Observer};

/// Puts a [`Coalesce`] around a service. See the [module documentation](super).
///
/// Clones and all services it makes share the calls under way.
#[must_use]
pub struct CoalesceLayer<K, F> {
    shared: Arc<Shared<K>>,
    key_of: Arc<F>,
}

impl<K: Hash + Eq + Send + Sync + 'static, F> CoalesceLayer<K, F> {
    /// A layer with the defaults. `key_of` is a `Fn(&http::Request<B>) -> Option<K>`: requests with equal keys may be answered by one call, and those
    /// without one are passed on as they are.
    pub fn new(key_of: F) -> Self {
        Self::builder(key_of).build().expect("the defaults are valid")
    }

    /// A builder with the defaults, and this key function.
    pub fn builder(key_of: F) -> CoalesceBuilder<K, F> {
        CoalesceBuilder {
            key_of,
            max_calls: 1024,
            max_bytes: 1 << 20,
            enabled: true,
            observer: Observed::default(),
            key: std::marker::PhantomData,
        }
    }

    /// How many calls newcomers can join at the moment.
    #[must_use]
    pub fn in_flight(&self) -> usize {
        self.shared.len()
    }
}

impl<K, F> Clone for CoalesceLayer<K, F> {
    fn clone(&self) -> Self {
        Self { shared: Arc::clone(&self.shared), key_of: Arc::clone(&self.key_of) }
    }
}

impl<K, F> fmt::Debug for CoalesceLayer<K, F> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        // Not the keys: they hold prompts and credentials.
        f.debug_struct("CoalesceLayer").finish_non_exhaustive()
    }
}

impl<S, K, F> Layer<S> for CoalesceLayer<K, F> {
    type Service = Coalesce<S, K, F>;

    fn layer(&self, inner: S) -> Self::Service {
        Coalesce::new(inner, Arc::clone(&self.shared), Arc::clone(&self.key_of))
    }
}

/// Collects settings for a [`CoalesceLayer`]; [`build`](Self::build) checks them.
#[must_use]
pub struct CoalesceBuilder<K, F> {
    key_of: F,
    max_calls: usize,
    max_bytes: usize,
    enabled: bool,
    observer: Observed,
    key: std::marker::PhantomData<fn() -> K>,
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
