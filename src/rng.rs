//! The only door to chance.
//!
//! A draw is needed only when something already went wrong, so the cost of making a generator then does
//! not matter; what matters is that every request has a stream of its own, and that a seed makes a test
//! repeat exactly.

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

use rand::rngs::StdRng;
use rand::{RngExt, SeedableRng};

/// Where a layer gets its randomness: from the system, or from a seed. Shared by clones.
#[derive(Clone, Debug, Default)]
pub(crate) struct RngSource {
    seeded: Option<Arc<Seeded>>,
}

#[derive(Debug)]
struct Seeded {
    seed: u64,
    streams: AtomicU64,
}

impl RngSource {
    pub(crate) fn seeded(seed: u64) -> Self {
        Self { seeded: Some(Arc::new(Seeded { seed, streams: AtomicU64::new(0) })) }
    }

    pub(crate) fn seed(&self) -> Option<u64> {
        self.seeded.as_ref().map(|seeded| seeded.seed)
    }

    /// A stream of its own for one request. With a seed, the n-th request to ask gets the n-th stream.
    #[allow(clippy::disallowed_methods, reason = "this is the door")]
    pub(crate) fn stream(&self) -> RequestRng {
        RequestRng(match &self.seeded {
            // Relaxed: the counter only hands out distinct numbers; nothing is published through it.
            Some(s) => StdRng::seed_from_u64(
                s.seed ^ s.streams.fetch_add(1, Ordering::Relaxed).wrapping_mul(0x9E37_79B9_7F4A_7C15),
            ),
            None => StdRng::from_rng(&mut rand::rng()),
        })
    }
}

/// One request's random numbers.
#[derive(Debug)]
pub(crate) struct RequestRng(StdRng);

impl RequestRng {
    /// Uniform in `[0, 1)`.
    pub(crate) fn unit(&mut self) -> f64 {
        self.0.random::<f64>()
    }

    /// A number that nothing else will have.
    pub(crate) fn id(&mut self) -> u64 {
        self.0.random()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_seed_repeats_and_streams_differ() {
        let draws = |seed| {
            let chance = RngSource::seeded(seed);
            (0..8).map(|_| chance.stream().unit()).collect::<Vec<_>>()
        };
        assert_eq!(draws(7), draws(7));
        assert_ne!(draws(7), draws(8));
        let d = draws(7);
        assert!(d.windows(2).all(|w| w[0] != w[1]), "each request has a stream of its own: {d:?}");
        let d = draws(u64::MAX);
        assert!(d.windows(2).all(|w| w[0] != w[1]), "whatever the seed: {d:?}");
    }

    #[test]
    fn no_two_ids_are_the_same() {
        let mut stream = RngSource::seeded(7).stream();
        let (one, other) = (stream.id(), stream.id());
        assert_ne!(one, other);
        assert_ne!(one, RngSource::default().stream().id());
    }
}
