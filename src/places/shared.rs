//! What all services of a layer share.

use std::fmt;
use std::sync::{Arc, Mutex};

use http::Request;
use tokio::time::Instant;

use super::choose::Candidate;
use super::health::{Health, Nanos, nanos};
use super::place::{AtPlace, Place, Residency};
use super::report::NoPlaceReason;
use crate::circuit_breaker::Circuits;
use crate::event::Observed;
use crate::keyed::{Keyed, Need, State};
use crate::lock::lock;
use crate::rate_limit::RateLimits;
use crate::request::{Target, TargetKey};
use crate::time;

/// What all services of a layer share.
pub(super) struct Shared {
    /// At least one.
    pub(super) places: Vec<Place>,
    pub(super) residency: Option<Residency>,
    pub(super) enabled: bool,
    pub(super) rate_limits: Option<RateLimits>,
    pub(super) circuits: Option<Circuits>,
    pub(super) observer: Observed,
    pub(super) keys: Keyed<TargetKey, Key>,
    pub(super) epoch: Instant,
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
    pub(super) places: Mutex<Vec<Health>>,
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
            rank: health.rank(now),
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
