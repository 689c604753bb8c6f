use std::fmt;
use std::hash::RandomState;
use std::sync::Arc;
use std::sync::atomic::AtomicUsize;
use std::time::Duration;

use http::HeaderName;
use tower_layer::Layer;

use super::config::{Settings, When};
use super::service::WithLastGood;
use super::store::{LastGoodStore, MemoryStore};
use crate::error::ConfigError;
use crate::event::{Observed, Observer};
use crate::verdict::Verdict;

/// Puts a [`WithLastGood`] around a service. See the [module documentation](super).
///
/// Clones and all services it makes share the store.
#[must_use]
pub struct LastGoodLayer<F> {
    settings: Arc<Settings>,
    key_of: Arc<F>,
}

impl<F> LastGoodLayer<F> {
    /// A layer with the defaults. `key_of` is a `Fn(&http::Request<B>) -> Option<Bytes>`: an answer to a request may stand in for those to requests of an equal key. Those
    /// without one are passed on as they are.
    pub fn new(key_of: F) -> Self {
        Self::builder(key_of).build().expect("the defaults are valid")
    }

    /// A builder with the defaults, and this key function.
    pub fn builder(key_of: F) -> LastGoodBuilder<F> {
        LastGoodBuilder {
            key_of,
            store: None,
            enabled: true,
            max_age: Duration::from_secs(3600),
            max_answer_bytes: 256 << 10,
            max_reading_bytes: 16 << 20,
            header: None,
            when: None,
            observer: Observed::default(),
            shared: false,
        }
    }
}

impl<F> Clone for LastGoodLayer<F> {
    fn clone(&self) -> Self {
        Self { settings: Arc::clone(&self.settings), key_of: Arc::clone(&self.key_of) }
    }
}

impl<F> fmt::Debug for LastGoodLayer<F> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("LastGoodLayer").field("max_age", &self.settings.max_age).finish_non_exhaustive()
    }
}

impl<S, F> Layer<S> for LastGoodLayer<F> {
    type Service = WithLastGood<S, F>;

    fn layer(&self, inner: S) -> Self::Service {
        WithLastGood::new(inner, Arc::clone(&self.settings), Arc::clone(&self.key_of))
    }
}

/// Collects settings for a [`LastGoodLayer`]; [`build`](Self::build) checks them.
#[must_use]
pub struct LastGoodBuilder<F> {
    key_of: F,
    store: Option<Arc<dyn LastGoodStore>>,
    enabled: bool,
    max_age: Duration,
    max_answer_bytes: usize,
    max_reading_bytes: usize,
    header: Option<HeaderName>,
    when: Option<When>,
    observer: Observed,
    shared: bool,
}

impl<F> LastGoodBuilder<F> {
    /// Off, nothing is kept and nothing stands in, with the same type. Default on.
    pub const fn enabled(mut self, enabled: bool) -> Self {
        self.enabled = enabled;
        self
    }

    /// Where answers are kept. Default a [`MemoryStore`] of 16 MiB and 1,024 answers.
    pub fn store(mut self, store: impl LastGoodStore + 'static) -> Self {
        self.store = Some(Arc::new(store));
        self
    }

    /// How old an answer may be that stands in: above zero, at most 30 days. Default 1 hour.
    pub const fn max_age(mut self, age: Duration) -> Self {
        self.max_age = age;
        self
    }

    /// The largest body that is kept: 1 to 64 MiB. Default 256 KiB.
    pub const fn max_answer_bytes(mut self, bytes: usize) -> Self {
        self.max_answer_bytes = bytes;
        self
    }

    /// How many bytes of answers that are being read may be held at a time, of all calls together: 1 KiB to 16 GiB. Default 16 MiB. Where there is no room an
    /// answer is passed on and not kept.
    pub const fn max_reading_bytes(mut self, bytes: usize) -> Self {
        self.max_reading_bytes = bytes;
        self
    }

    /// The header of an answer that stands in, which says its age in whole seconds. Default none.
    pub fn header(mut self, name: HeaderName) -> Self {
        self.header = Some(name);
        self
    }

    /// After which failures a kept answer stands in, in place of the default.
    pub fn when(mut self, helps: impl Fn(&Verdict) -> bool + Send + Sync + 'static) -> Self {
        self.when = Some(Arc::new(helps));
        self
    }

    /// An answer that one API key, project or token has paid for may stand in for those of others. Default: not.
    pub const fn across_credentials(mut self) -> Self {
        self.shared = true;
        self
    }

    /// Is told of each answer that stands in: [`Event::LastGoodUsed`](crate::event::Event::LastGoodUsed).
    pub fn observer(mut self, observer: Arc<dyn Observer>) -> Self {
        self.observer = Observed::by(observer);
        self
    }

    /// The layer.
    ///
    /// # Errors
    ///
    /// [`ConfigError`] when a setting is out of its range.
    pub fn build(self) -> Result<LastGoodLayer<F>, ConfigError> {
        if self.max_age.is_zero() || self.max_age > Duration::from_secs(30 * 24 * 3600) {
            return Err(ConfigError::new("max_age", "must be above zero and at most 30 days"));
        }
        if !(1..=64 << 20).contains(&self.max_answer_bytes) {
            return Err(ConfigError::new("max_answer_bytes", "must be from 1 byte to 64 MiB"));
        }
        if !(1 << 10..=16_usize.saturating_mul(1 << 30)).contains(&self.max_reading_bytes) {
            return Err(ConfigError::new("max_reading_bytes", "must be from 1 KiB to 16 GiB"));
        }
        let settings = Settings {
            store: self.store.unwrap_or_else(|| Arc::new(MemoryStore::default())),
            enabled: self.enabled,
            max_age: self.max_age,
            max_answer_bytes: self.max_answer_bytes,
            max_reading_bytes: self.max_reading_bytes,
            header: self.header,
            when: self.when,
            observer: self.observer,
            hashes: (!self.shared).then(|| [RandomState::new(), RandomState::new()]),
            reading: AtomicUsize::new(0),
        };
        Ok(LastGoodLayer { settings: Arc::new(settings), key_of: Arc::new(self.key_of) })
    }
}

impl<F> fmt::Debug for LastGoodBuilder<F> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("LastGoodBuilder")
            .field("max_age", &self.max_age)
            .field("max_answer_bytes", &self.max_answer_bytes)
            .field("max_reading_bytes", &self.max_reading_bytes)
            .field("header", &self.header)
            .field("observer", &self.observer)
            .finish_non_exhaustive()
    }
}
