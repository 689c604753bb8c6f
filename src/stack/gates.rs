//! The places of the rate limit, the concurrency limit and the circuit breaker: layers of this crate that stand beside each other
//! there are one service with several gates. See [`admission`](crate::admission).

use tower_layer::{Identity, Layer};

use crate::admission::{Admission, Both, Inner, Kind, Kinds};
use crate::circuit_breaker::{Breaker, CircuitBreakerLayer, Guards};
use crate::concurrency::{AdaptiveConcurrencyLayer, Concurrency, Slots};
use crate::rate_limit::{Permits, Quota, RateLimitLayer};

/// A layer of the caller's own, or one of this crate in a place that is not its own, in one of a
/// [`GeminiStack`](super::GeminiStack)'s three places that admit calls.
///
/// Those of this crate that stand beside each other there share one future, one body and one look at the request. Another
/// layer parts them, and says so with this.
///
/// ```
/// use tower::limit::ConcurrencyLimitLayer;
/// use tower_gemini::stack::{Custom, GeminiStack};
///
/// let stack = GeminiStack::new().concurrency(Custom(ConcurrencyLimitLayer::new(8)));
/// # let _ = stack;
/// ```
#[derive(Clone, Copy, Debug, Default)]
pub struct Custom<L>(pub L);

/// What stands in a place, around what stands in the places inside of it.
#[diagnostic::on_unimplemented(
    message = "`{Self}` cannot stand in a place of the stack that admits calls",
    label = "put it there as `Custom(layer)`: `tower_gemini::stack::Custom`"
)]
pub trait Place<A> {
    /// Both.
    type Out: Closed;
    /// Puts it there.
    fn put(&self, inside: A) -> Self::Out;
}

/// What stands in the places up to here, as a service.
pub trait Closed {
    /// The service.
    type Service;
    /// That is all.
    fn close(self) -> Self::Service;
}

/// No gate yet.
#[derive(Debug)]
pub struct Open<S>(pub(super) S);

impl<S> Closed for Open<S> {
    type Service = S;
    fn close(self) -> S {
        self.0
    }
}

impl<S, G, K: Kind> Closed for Admission<S, G, K> {
    type Service = Self;
    fn close(self) -> Self {
        self
    }
}

impl<A: Closed> Place<A> for Identity {
    type Out = A;
    fn put(&self, inside: A) -> A {
        inside
    }
}

impl<L: Layer<A::Service>, A: Closed> Place<A> for Custom<L> {
    type Out = Open<L::Service>;
    fn put(&self, inside: A) -> Self::Out {
        Open(self.0.layer(inside.close()))
    }
}

/// The gate of a layer of this crate.
macro_rules! gate {
    ([$($param:ident)?] $layer:ty, $gate:ty, $kind:ty) => {
        impl<S $(, $param)?> Place<Open<S>> for $layer {
            type Out = Admission<S, $gate, $kind>;
            fn put(&self, inside: Open<S>) -> Self::Out {
                Admission::new(self.gate(), inside.0)
            }
        }

        impl<S, G: Clone, K: Inner $(, $param)?> Place<Admission<S, G, K>> for $layer {
            type Out = Admission<S, Both<$gate, G>, Kinds<$kind, K>>;
            fn put(&self, inside: Admission<S, G, K>) -> Self::Out {
                inside.behind(self.gate())
            }
        }
    };
}

gate!([E] RateLimitLayer<E>, Quota<E>, Permits);
gate!([] AdaptiveConcurrencyLayer, Concurrency, Slots);
gate!([] CircuitBreakerLayer, Breaker, Guards);
