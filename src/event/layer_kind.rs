//! The layers whose order matters.

use std::fmt;

/// A layer of this crate, in the order from the outside in.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
#[non_exhaustive]
pub enum LayerKind {
    /// [`fallback`](crate::fallback).
    Fallback,
    /// [`places`](crate::places).
    Places,
    /// [`retry`](crate::retry).
    Retry,
    /// [`hedge`](crate::hedge).
    Hedge,
    /// [`rate_limit`](crate::rate_limit).
    RateLimit,
    /// [`concurrency`](crate::concurrency).
    Concurrency,
    /// [`circuit_breaker`](crate::circuit_breaker).
    CircuitBreaker,
}

impl LayerKind {
    /// The name of its module.
    #[must_use]
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Fallback => "fallback",
            Self::Places => "places",
            Self::Retry => "retry",
            Self::Hedge => "hedge",
            Self::RateLimit => "rate_limit",
            Self::Concurrency => "concurrency",
            Self::CircuitBreaker => "circuit_breaker",
        }
    }

    /// What goes wrong where this layer stands outside of `inner`, which belongs outside of it.
    pub(crate) const fn consequence(self, inner: Self) -> &'static str {
        match (self, inner) {
            (Self::Retry, Self::Retry) => "retries multiply: five attempts of five are 25 calls",
            (Self::Retry, Self::Places) => "the wait for one place is waited before the next one is asked",
            (_, Self::Places) => "one call here is several, at several places",
            (_, Self::Fallback) => "one call here is several, of several models",
            (Self::Hedge, Self::Retry) => "a second try repeats all attempts and waits of the first",
            (Self::RateLimit, _) => {
                "one permit pays for all attempts, and those after the first are not counted"
            }
            (Self::Concurrency, Self::Retry) => "a place is held while a retry waits",
            (Self::CircuitBreaker, Self::Retry) => {
                "failures that a retry mended are never seen, and an open circuit is not waited for"
            }
            (_, Self::Hedge) => "a second try goes out uncounted",
            (_, Self::RateLimit) => "what waits for its turn is counted as slow or in flight",
            _ => "the circuit decides before the wait for a place and not after it",
        }
    }
}

impl fmt::Display for LayerKind {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.pad(self.as_str())
    }
}
