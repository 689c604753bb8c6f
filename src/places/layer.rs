use std::fmt;
use std::sync::{Arc, Mutex};

use http::Request;
use tokio::time::Instant;
use tower_layer::Layer;

use super::choose::{Candidate, Standing};
use super::health::{Health, Nanos, nanos};
use super::place::{AtPlace, Place, Residency};
use super::report::{NoPlaceReason, PlaceStatus};
use super::service::PlaceChoice;
use crate::circuit_breaker::Circuits;
use crate::error::ConfigError;
use crate::event::Part;
use crate::event::{Observed, Observer};
use crate::keyed::{Keyed, MAX_KEYS, Need, State};
use crate::lock::lock;
use crate::rate_limit::RateLimits;
use crate::request::{Target, TargetKey};
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

/// What all services of a layer share.
pub(super) struct Shared {
    /// At least one.
    pub(super) places: Vec<Place>,
    residency: Option<Residency>,
    rate_limits: Option<RateLimits>,
    circuits: Option<Circuits>,
    pub(super) observer: Observed,
    pub(super) keys: Keyed<TargetKey, Key>,
    epoch: Instant,
}

impl Shared {
    /// The state of a key; one of many keys has a state that lasts as long as its call.
    pub(super) fn of_target(&self, target: &Target<'_>) -> Arc<Key> {
        self.keys.get(target.key(), |key| Key {
            key: key.clone(),
            places: Mutex::new(vec![Health::default(); self.places.len()]),
        })
    }

    pub(super) fn now(&self) -> Nanos {
        nanos(time::now().saturating_duration_since(self.epoch))
    }

    pub(super) fn instant(&self, at: Nanos) -> Instant {
        time::saturating_add(self.epoch, std::time::Duration::from_nanos(at))
    }

    /// Those that this request may be sent to.
    pub(super) fn permitted<B>(&self, request: &Request<B>) -> Result<Permitted, NoPlaceReason> {
        let extensions = request.extensions();
        let own = extensions.get::<Residency>();
        let bound = extensions.get::<AtPlace>();
        if bound.is_some_and(|bound| !self.places.iter().any(|place| bound.is(place))) {
            return Err(NoPlaceReason::Unknown);
        }
        let mut permitted = Permitted(0);
        for (at, place) in self.places.iter().enumerate() {
            let resides = [self.residency.as_ref(), own].into_iter().flatten().all(|r| place.is_within(r));
            if resides && bound.is_none_or(|bound| bound.is(place)) {
                permitted.0 |= 1 << at;
            }
        }
        if permitted.0 == 0 { Err(NoPlaceReason::Residency) } else { Ok(permitted) }
    }

    /// Whether a request for this target would wait inside, or be turned away.
    pub(super) fn would_wait(&self, target: &Target<'_>) -> bool {
        self.rate_limits.as_ref().is_some_and(|limits| limits.is_short(target, 10))
            || self.circuits.as_ref().is_some_and(|circuits| circuits.turns_away(target).is_some())
    }
}

impl fmt::Debug for Shared {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Shared")
            .field("places", &self.places)
            .field("residency", &self.residency)
            .finish_non_exhaustive()
    }
}

/// One bit for each place.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Permitted(u16);

impl Permitted {
    pub(super) const NONE: Self = Self(0);

    pub(super) const fn has(self, at: usize) -> bool {
        self.0 & (1 << at) != 0
    }

    pub(super) const fn with(self, at: usize) -> Self {
        Self(self.0 | (1 << at))
    }

    pub(super) const fn without(self, at: usize) -> Self {
        Self(self.0 & !(1 << at))
    }

    pub(super) fn first(self) -> usize {
        self.0.trailing_zeros() as usize
    }

    pub(super) const fn count(self) -> u32 {
        self.0.count_ones()
    }
}

/// What is known of the places for one key.
pub(super) struct Key {
    pub(super) key: TargetKey,
    places: Mutex<Vec<Health>>,
}

impl Key {
    pub(super) fn with<T>(&self, at: usize, act: impl FnOnce(&mut Health) -> T) -> T {
        act(&mut lock(&self.places)[at])
    }

    pub(super) fn candidates(&self, permitted: Permitted, tried: Permitted, now: Nanos) -> Vec<Candidate> {
        let places = lock(&self.places);
        let of = |(at, health): (usize, &Health)| Candidate {
            permitted: permitted.has(at),
            tried: tried.has(at),
            standing: health.standing(now),
        };
        places.iter().enumerate().map(of).collect()
    }
}

impl State for Key {
    fn is_idle(&self) -> bool {
        lock(&self.places).iter().all(Health::is_well)
    }

    // A place that is closed is found closed again.
    fn need(&self) -> Need {
        if self.is_idle() { Need::Nothing } else { Need::Counts }
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
        let keys = Keyed::new(self.max_keys, Part::Places, self.observer.clone());
        Ok(PlacesLayer {
            shared: Arc::new(Shared {
                places: self.places,
                residency: self.residency,
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
