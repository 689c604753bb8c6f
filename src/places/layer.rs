use std::sync::Arc;

use tower_layer::Layer;

use super::choose::Candidate;
use super::health::Standing;
use super::place::{Place, Residency};
use super::report::PlaceStatus;
use super::service::PlaceChoice;
use super::shared::{Key, Permitted, Shared};
use crate::circuit_breaker::Circuits;
use crate::error::ConfigError;
use crate::event::LayerKind;
use crate::event::{Observed, Observer};
use crate::keyed::{Keyed, MAX_KEYS};
use crate::rate_limit::RateLimits;
use crate::request::TargetKey;
use crate::time;

/// The most places of a layer.
const MOST: usize = 16;

/// Puts a [`PlaceChoice`] around a service. See the [module documentation](super).
///
/// Clones of the layer, all services it makes, and their clones, share what is known of the places.
#[derive(Clone, Debug)]
#[must_use]
pub struct PlacesLayer {
    shared: Arc<Shared>,
}

impl PlacesLayer {
    /// A builder without places.
    pub fn builder() -> PlacesBuilder {
        PlacesBuilder::default()
    }

    /// A handle to look at the places.
    #[must_use]
    pub fn handle(&self) -> Places {
        Places { shared: Arc::clone(&self.shared) }
    }
}

impl<S> Layer<S> for PlacesLayer {
    type Service = PlaceChoice<S>;

    fn layer(&self, inner: S) -> Self::Service {
        PlaceChoice::new(Arc::clone(&self.shared), inner)
    }
}

/// Collects places and settings for a [`PlacesLayer`]; [`build`](Self::build) checks them.
#[derive(Clone, Debug)]
#[must_use]
pub struct PlacesBuilder {
    places: Vec<Place>,
    residency: Option<Residency>,
    rate_limits: Option<RateLimits>,
    circuits: Option<Circuits>,
    observer: Observed,
    max_keys: usize,
    enabled: bool,
}

impl Default for PlacesBuilder {
    fn default() -> Self {
        Self {
            places: Vec::new(),
            residency: None,
            rate_limits: None,
            circuits: None,
            observer: Observed::default(),
            max_keys: MAX_KEYS,
            enabled: true,
        }
    }
}

impl PlacesBuilder {
    /// The next place: those before it are asked first. 1 to 16, each with a name of its own.
    pub fn place(mut self, place: Place) -> Self {
        self.places.push(place);
        self
    }

    /// Where all requests may be worked on. A request's own [`Residency`] narrows it further. Default everywhere.
    pub fn residency(mut self, residency: Residency) -> Self {
        self.residency = Some(residency);
        self
    }

    /// Looks at these quotas before a place is asked: one with a closed door, a queue or a limit that is used up comes
    /// after those that have room. Default: only what this layer sees itself.
    /// [`GeminiStack::placing`](crate::stack::GeminiStack::placing) sets it.
    pub fn rate_limits(mut self, quotas: RateLimits) -> Self {
        self.rate_limits = Some(quotas);
        self
    }

    /// Looks at these circuits before a place is asked: one whose circuit is open comes after those whose is not.
    /// Default: only what this layer sees itself. [`GeminiStack::placing`](crate::stack::GeminiStack::placing) sets it.
    pub fn circuits(mut self, circuits: Circuits) -> Self {
        self.circuits = Some(circuits);
        self
    }

    /// How many keys (what requests ask for, before they are rewritten) are kept apart. From 1 to 1,000,000, default 1,024.
    pub const fn max_keys(mut self, keys: usize) -> Self {
        self.max_keys = keys;
        self
    }

    /// Whether the layer works. Switched off it passes each request on as it is, to where that itself names: **no residency is kept**.
    /// Default `true`.
    pub const fn enabled(mut self, enabled: bool) -> Self {
        self.enabled = enabled;
        self
    }

    /// Who is told of moves and of places that close.
    pub fn observer(mut self, observer: Arc<dyn Observer>) -> Self {
        self.observer = Observed::by(observer);
        self
    }

    /// The layer.
    ///
    /// # Errors
    ///
    /// The first setting that is out of its range, and the range.
    pub fn build(self) -> Result<PlacesLayer, ConfigError> {
        if !(1..=MOST).contains(&self.places.len()) {
            return Err(ConfigError::new("places", "must be from 1 to 16"));
        }
        if !(1..=1_000_000).contains(&self.max_keys) {
            return Err(ConfigError::new("max_keys", "must be from 1 to 1000000"));
        }
        for (at, place) in self.places.iter().enumerate() {
            place.check()?;
            if self.places[..at].iter().any(|other| other.name() == place.name()) {
                return Err(ConfigError::new("places", "must have names that differ"));
            }
        }
        let keys = Keyed::new(self.max_keys, LayerKind::Places, self.observer.clone());
        Ok(PlacesLayer {
            shared: Arc::new(Shared {
                places: self.places,
                residency: self.residency,
                enabled: self.enabled,
                rate_limits: self.rate_limits,
                circuits: self.circuits,
                observer: self.observer,
                keys,
                epoch: time::now(),
            }),
        })
    }
}

/// The places of a layer, to look at. Cheap to clone; outlives the layer. Dropping it changes nothing.
#[derive(Clone, Debug)]
pub struct Places {
    shared: Arc<Shared>,
}

impl Places {
    /// Every place for every key that the layer has met and not forgotten: by the names of the keys, then in the order of
    /// the places.
    #[must_use]
    pub fn all(&self) -> Vec<PlaceStatus> {
        let now = self.shared.now();
        let mut keys = self.shared.keys.all();
        keys.sort_by_cached_key(|(key, _)| key.to_string());
        let of = |(id, key): (TargetKey, Arc<Key>)| {
            let candidates = key.candidates(Permitted::NONE, Permitted::NONE, now);
            let status = |(place, candidate): (&Place, Candidate)| PlaceStatus {
                key: id.clone(),
                place: Arc::clone(place.name()),
                closed_until: match candidate.standing {
                    Standing::Open => None,
                    Standing::Closed(until) => Some(self.shared.instant(until)),
                },
            };
            self.shared.places.iter().zip(candidates).map(status).collect::<Vec<_>>()
        };
        keys.into_iter().flat_map(of).collect()
    }
}
