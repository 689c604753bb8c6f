use std::fmt;
use std::hash::Hash;
use std::sync::Arc;

use tower_layer::Layer;

use super::config::CoalesceBuilder;
use super::key::Shared;
use super::service::Coalesce;
use crate::event::Observed;

/// Puts a [`Coalesce`] around a service. See the [module documentation](super).
///
/// Clones and all services it makes share the calls under way.
#[must_use]
pub struct CoalesceLayer<K, F> {
    pub(super) shared: Arc<Shared<K>>,
    pub(super) key_of: Arc<F>,
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
