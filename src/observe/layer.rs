use std::sync::Arc;

use tower_layer::Layer;

use super::Observe;
use super::config::Settings;
use crate::event::{Observed, Observer};

/// Puts [`Observe`] around a service. See the [module documentation](super).
///
/// All services it makes, and its clones, tell the same observer.
#[derive(Clone, Debug)]
#[must_use]
pub struct ObserveLayer {
    pub(super) settings: Settings,
}

impl ObserveLayer {
    /// A layer that tells this observer of each call: [`Event::Finished`](crate::event::Event::Finished), once.
    pub fn new(observer: Arc<dyn Observer>) -> Self {
        let observer = Observed::by(observer);
        #[cfg(feature = "tracing")]
        return Self { settings: Settings { observer, enabled: true, spans: false } };
        #[cfg(not(feature = "tracing"))]
        return Self { settings: Settings { observer, enabled: true } };
    }

    /// Whether the layer does anything. Default `true`. With `false` each call passes through, nobody is told and no span is opened;
    /// the type is the same.
    pub const fn enabled(mut self, enabled: bool) -> Self {
        self.settings.enabled = enabled;
        self
    }

    /// Opens a span for each call, named `gemini`, at the level of information. Default off.
    ///
    /// Future and body are polled inside it, so that what is told meanwhile belongs to it. It closes when the call is
    /// over.
    /// Its fields are those of [`Tracing`](super::Tracing)'s finished calls, those known at the start from the start
    /// on.
    #[cfg(feature = "tracing")]
    #[cfg_attr(docsrs, doc(cfg(feature = "tracing")))]
    pub const fn spans(mut self) -> Self {
        self.settings.spans = true;
        self
    }
}

impl<S> Layer<S> for ObserveLayer {
    type Service = Observe<S>;

    fn layer(&self, inner: S) -> Self::Service {
        Observe::new(inner, self.settings.clone())
    }
}
