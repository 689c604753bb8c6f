//! All layers in the recommended order, in one line.
//!
//! ```
//! use tower::Layer;
//! use tower_gemini::stack::GeminiStack;
//!
//! # let client = tower::service_fn(async |_: http::Request<http_body_util::Full<bytes::Bytes>>|
//! #     Ok::<_, std::io::Error>(http::Response::new(http_body_util::Full::<bytes::Bytes>::default())));
//! let gemini = GeminiStack::new().layer(client);
//! # let _: &dyn std::any::Any = &gemini as &dyn std::any::Any;
//! ```
//!
//! [`GeminiStack`] is a [`Layer`]: around any `Service<http::Request<B>>` it puts, from the outside in,
//!
//! | place | layer | in [`GeminiStack::new`] |
//! |---|---|---|
//! | `deadline` | [`DeadlineLayer`] | 120 s for requests without one (flex: 30 min) |
//! | `last_good` | [`LastGoodLayer`](crate::last_good::LastGoodLayer) | left out: only the caller knows which answers may stand in for others |
//! | `coalesce` | [`CoalesceLayer`](crate::coalesce::CoalesceLayer) | left out: only the caller knows which requests are equal |
//! | `preflight` | [`PreflightLayer`](crate::preflight::PreflightLayer) | left out: it changes the type of the request's body |
//! | `replay` | [`ReplayLayer`](crate::retry::ReplayLayer) | left out: for bodies that are not `Clone` |
//! | `tier` | [`TierLayer`] | reads the service tier from header and body |
//! | `fallback` | [`ModelFallbackLayer`] | left out: no chain of models is known |
//! | `places` | [`PlacesLayer`] | left out: no places are known |
//! | `retry` | [`RetryLayer`] | 10 attempts, of which the first three retries come soon where other calls succeed; a budget of 100 tokens, 3 for each success |
//! | `hedge` | [`HedgeLayer`] | left out: each second try may be billed |
//! | `rate_limit` | [`RateLimitLayer`] | no limits but those that a 429 names |
//! | `concurrency` | [`AdaptiveConcurrencyLayer`] | no limit until timeouts show that the server queues |
//! | `circuit_breaker` | [`CircuitBreakerLayer`] | 20 failures in a row, or 0.95 of at least 20 calls in 30 s |
//! | `timeout` | [`TimeoutLayer`] | 120 s to the first byte (flex: 16 min), 300 s of silence |
//! | `classify` | [`ClassifyLayer`] | with the first event looked at, and bodies watched |
//!
//! Each place has three methods: `retry(layer)` puts another layer there, one of your own configuration or any other
//! that fits; `without_retry()` leaves it out; `get_retry()` looks at it, for its handle. The reasons for the order,
//! and what goes wrong with others, stand in [the guide](crate::guide::order).
//!
//! Rate limit, concurrency limit and circuit breaker are one service with three gates there ([`admission`](crate::admission)). A
//! layer of another kind in one of these three places is put there as [`Custom`].
//!
//! # When to use it, and when not
//!
//! Whenever you would put three of these layers together. Put them together by hand, with tower's `ServiceBuilder`,
//! when something of your own belongs between them; a layer that then stands too far outside says so to its observer
//! ([`Event::Misplaced`](crate::event::Event::Misplaced)).
//!
//! # Sharing and dropping
//!
//! Clones of a stack, all services it makes, and their clones, share budgets, limits, circuits and counts. Dropping a
//! future or a body drops what each layer holds for it; see their pages.
//!
//! # Errors
//!
//! The service's error is a [`BoxError`](crate::BoxError). Responses are the inner service's own, failures included;
//! errors are its own, too, or one of [`RateLimited`](crate::rate_limit::RateLimited),
//! [`ConcurrencyLimited`](crate::concurrency::ConcurrencyLimited), [`CircuitOpen`](crate::circuit_breaker::CircuitOpen),
//! [`TimedOut`](crate::timeout::TimedOut) and, where it is asked for,
//! [`PreflightRefused`](crate::preflight::PreflightRefused): [`error::find`](crate::error::find) finds them.
//!
//! # Examples
//!
//! Limits that are known, a breaker that gives up sooner, no governor, and a handle to watch the quotas:
//!
//! ```
//! use std::time::Duration;
//! use tower::Layer;
//! use tower_gemini::circuit_breaker::CircuitBreakerLayer;
//! use tower_gemini::rate_limit::{Limits, RateLimitLayer};
//! use tower_gemini::stack::GeminiStack;
//!
//! # fn main() -> Result<(), tower_gemini::ConfigError> {
//! # let client = tower::service_fn(async |_: http::Request<http_body_util::Full<bytes::Bytes>>|
//! #     Ok::<_, std::io::Error>(http::Response::new(http_body_util::Full::<bytes::Bytes>::default())));
//! let stack = GeminiStack::new()
//!     .rate_limit(RateLimitLayer::new(Limits::new().requests_per_minute(1_000))?)
//!     .circuit_breaker(CircuitBreakerLayer::builder().consecutive_failures(8).build()?)
//!     .without_concurrency();
//! let quotas = stack.get_rate_limit().handle();
//! let gemini = stack.layer(client);
//! assert!(quotas.status().is_empty(), "nobody has asked yet");
//! # let _: &dyn std::any::Any = &gemini as &dyn std::any::Any; Ok(()) }
//! ```
//!
//! For a job that has an hour, observed:
//!
//! ```
//! use std::sync::Arc;
//! use tower_gemini::event::{Event, Observer};
//! use tower_gemini::stack::Preset;
//!
//! struct Print;
//! impl Observer for Print {
//!     fn on_event(&self, event: &Event<'_>) {
//!         eprintln!("{event:?}");
//!     }
//! }
//!
//! let stack = Preset::batch().observer(Arc::new(Print)).stack();
//! # let _ = stack;
//! ```

mod client;
mod gates;
mod preset;

use std::fmt;

use tower_layer::{Identity, Layer};

pub use self::client::{BytesBody, ClientError, CloneBody, HttpClient, HttpService, check};
pub use self::gates::Custom;
use self::gates::{Closed, Open, Place};
pub use self::preset::Preset;
use crate::circuit_breaker::CircuitBreakerLayer;
use crate::classify::ClassifyLayer;
use crate::concurrency::AdaptiveConcurrencyLayer;
use crate::error::ConfigError;
use crate::fallback::{ModelFallbackBuilder, ModelFallbackLayer, RewriteBody};
use crate::hedge::{HedgeBuilder, HedgeLayer};
use crate::places::{PlacesBuilder, PlacesLayer};
use crate::rate_limit::RateLimitLayer;
use crate::retry::RetryLayer;
use crate::tier::TierLayer;
use crate::timeout::{DeadlineLayer, TimeoutLayer};

/// The layers of this crate around a service, in the recommended order. See the [module documentation](self).
///
/// One type parameter for each place, from the outside in, those of the preflight, the tier, the shared calls, the last good answers, the second tries and the places last; an empty place is [`Identity`].
#[derive(Clone)]
#[must_use = "a stack does nothing until it is put around a service"]
pub struct GeminiStack<
    D = DeadlineLayer,
    P = Identity,
    F = Identity,
    R = RetryLayer,
    L = RateLimitLayer,
    C = AdaptiveConcurrencyLayer,
    K = CircuitBreakerLayer,
    T = TimeoutLayer,
    J = ClassifyLayer,
    Q = Identity,
    G = TierLayer,
    W = Identity,
    X = Identity,
    H = Identity,
    Y = Identity,
> {
    deadline: D,
    preflight: Q,
    replay: P,
    fallback: F,
    retry: R,
    rate_limit: L,
    concurrency: C,
    circuit_breaker: K,
    timeout: T,
    classify: J,
    tier: G,
    coalesce: W,
    last_good: X,
    hedge: H,
    places: Y,
}

impl GeminiStack {
    /// The defaults: [`Preset::new`].
    pub fn new() -> Self {
        Preset::new().stack()
    }
}

impl Default for GeminiStack {
    fn default() -> Self {
        Self::new()
    }
}

/// The three methods of a place: the type with that place replaced is written out once for each.
macro_rules! place {
    ($param:ident, $field:ident, $without:ident, $get:ident, $what:literal,
     [$($before:ident $before_field:ident)*], [$($after:ident $after_field:ident)*]) => {
        impl<D, P, F, R, L, C, K, T, J, Q, G, W, X, H, Y> GeminiStack<D, P, F, R, L, C, K, T, J, Q, G, W, X, H, Y> {
            #[doc = concat!("Puts `layer` in the place of ", $what, ".")]
            pub fn $field<New>(self, layer: New) -> GeminiStack<$($before,)* New, $($after,)*> {
                GeminiStack {
                    $($before_field: self.$before_field,)*
                    $field: layer,
                    $($after_field: self.$after_field,)*
                }
            }

            #[doc = concat!("Leaves ", $what, " out.")]
            pub fn $without(self) -> GeminiStack<$($before,)* Identity, $($after,)*> {
                self.$field(Identity::new())
            }

            #[doc = concat!("The layer in the place of ", $what, ".")]
            pub const fn $get(&self) -> &$param {
                &self.$field
            }
        }
    };
}

place!(D, deadline, without_deadline, get_deadline, "the deadline",
    [], [P replay F fallback R retry L rate_limit C concurrency K circuit_breaker T timeout J classify Q preflight G tier W coalesce X last_good H hedge Y places]);
place!(P, replay, without_replay, get_replay, "the replay of request bodies",
    [D deadline], [F fallback R retry L rate_limit C concurrency K circuit_breaker T timeout J classify Q preflight G tier W coalesce X last_good H hedge Y places]);
place!(F, fallback, without_fallback, get_fallback, "the model fallback",
    [D deadline P replay], [R retry L rate_limit C concurrency K circuit_breaker T timeout J classify Q preflight G tier W coalesce X last_good H hedge Y places]);
place!(R, retry, without_retry, get_retry, "the retries",
    [D deadline P replay F fallback], [L rate_limit C concurrency K circuit_breaker T timeout J classify Q preflight G tier W coalesce X last_good H hedge Y places]);
place!(L, rate_limit, without_rate_limit, get_rate_limit, "the rate limit",
    [D deadline P replay F fallback R retry], [C concurrency K circuit_breaker T timeout J classify Q preflight G tier W coalesce X last_good H hedge Y places]);
place!(C, concurrency, without_concurrency, get_concurrency, "the adaptive concurrency limit",
    [D deadline P replay F fallback R retry L rate_limit], [K circuit_breaker T timeout J classify Q preflight G tier W coalesce X last_good H hedge Y places]);
place!(K, circuit_breaker, without_circuit_breaker, get_circuit_breaker, "the circuit breaker",
    [D deadline P replay F fallback R retry L rate_limit C concurrency], [T timeout J classify Q preflight G tier W coalesce X last_good H hedge Y places]);
place!(T, timeout, without_timeout, get_timeout, "the attempt's timeouts",
    [D deadline P replay F fallback R retry L rate_limit C concurrency K circuit_breaker], [J classify Q preflight G tier W coalesce X last_good H hedge Y places]);
place!(J, classify, without_classify, get_classify, "the classifier",
    [D deadline P replay F fallback R retry L rate_limit C concurrency K circuit_breaker T timeout], [Q preflight G tier W coalesce X last_good H hedge Y places]);

place!(Q, preflight, without_preflight, get_preflight, "the preflight",
    [D deadline P replay F fallback R retry L rate_limit C concurrency K circuit_breaker T timeout J classify], [G tier W coalesce X last_good H hedge Y places]);
place!(G, tier, without_tier, get_tier, "the service tier",
    [D deadline P replay F fallback R retry L rate_limit C concurrency K circuit_breaker T timeout J classify Q preflight], [W coalesce X last_good H hedge Y places]);
place!(W, coalesce, without_coalesce, get_coalesce, "the sharing of calls by equal requests",
    [D deadline P replay F fallback R retry L rate_limit C concurrency K circuit_breaker T timeout J classify Q preflight G tier], [X last_good H hedge Y places]);
place!(X, last_good, without_last_good, get_last_good, "the last good answers",
    [D deadline P replay F fallback R retry L rate_limit C concurrency K circuit_breaker T timeout J classify Q preflight G tier W coalesce], [H hedge Y places]);
place!(H, hedge, without_hedge, get_hedge, "the second tries",
    [D deadline P replay F fallback R retry L rate_limit C concurrency K circuit_breaker T timeout J classify Q preflight G tier W coalesce X last_good], [Y places]);
place!(Y, places, without_places, get_places, "the choice of places",
    [D deadline P replay F fallback R retry L rate_limit C concurrency K circuit_breaker T timeout J classify Q preflight G tier W coalesce X last_good H hedge], []);

/// What [`GeminiStack::service`] makes of the default stack: the type to name in a struct.
///
/// `S` is the client, `B` the request's body:
///
/// ```
/// use bytes::Bytes;
/// use http_body_util::Full;
/// use hyper_util::client::legacy::{Client, connect::HttpConnector};
/// use tower_gemini::stack::{GeminiService, GeminiStack};
///
/// type Hyper = Client<HttpConnector, Full<Bytes>>;
///
/// struct App {
///     gemini: GeminiService<Hyper, Full<Bytes>>,
/// }
///
/// fn app(client: Hyper) -> App {
///     App { gemini: GeminiStack::new().service(client) }
/// }
/// ```
///
/// A stack with other layers has another type; [`tower::util::BoxCloneSyncService`] hides it.
pub type GeminiService<S, B> = <GeminiStack as Layer<HttpClient<S, B>>>::Service;

impl<D, P, F, R, L, C, K, T, J, Q, G, W, X, H, Y> GeminiStack<D, P, F, R, L, C, K, T, J, Q, G, W, X, H, Y> {
    /// The stack around `client`: as [`layer`](Layer::layer), but what is wrong with a client is told by the compiler here, by its name,
    /// and not where the first request is sent.
    ///
    /// `B` is the body that the client takes, inferred from the client or from the first request. It is the stack's own, but under a
    /// replay (`ReplayBody<_>`) and a preflight (`PreflightBody<_>`).
    ///
    /// Where a body is not `Clone` and nothing of the stack sends it twice (no retries, no fallback), use `layer`.
    ///
    /// ```
    /// use tower_gemini::stack::GeminiStack;
    ///
    /// # let client = tower::service_fn(async |_: http::Request<http_body_util::Full<bytes::Bytes>>|
    /// #     Ok::<_, std::io::Error>(http::Response::new(http_body_util::Full::<bytes::Bytes>::default())));
    /// let gemini = GeminiStack::new().service(client);
    /// # let _: &dyn std::any::Any = &gemini as &dyn std::any::Any;
    /// ```
    pub fn service<S, B>(&self, client: S) -> <Self as Layer<HttpClient<S, B>>>::Service
    where
        Self: Layer<HttpClient<S, B>>,
        S: HttpService<B> + Clone,
        <S as HttpService<B>>::Error: ClientError,
        <S as HttpService<B>>::ResponseBody: BytesBody,
        B: CloneBody + RewriteBody,
    {
        self.layer(HttpClient::new(client))
    }
}

/// A stack with a fallback that knows its circuits and its quotas.
type FallingBack<D, P, R, E, C, T, J, Q, G, W, X, H, Y> = GeminiStack<
    D,
    P,
    ModelFallbackLayer,
    R,
    RateLimitLayer<E>,
    C,
    CircuitBreakerLayer,
    T,
    J,
    Q,
    G,
    W,
    X,
    H,
    Y,
>;

impl<D, P, F, R, E, C, T, J, Q, G, W, X, H, Y>
    GeminiStack<D, P, F, R, RateLimitLayer<E>, C, CircuitBreakerLayer, T, J, Q, G, W, X, H, Y>
{
    /// Falls back to other models, and asks this stack's own circuits and quotas before it calls one: a model whose
    /// circuit is open or whose day is spent is passed over at once.
    ///
    /// Set circuit breaker and rate limit before.
    ///
    /// # Errors
    ///
    /// Those of [`ModelFallbackBuilder::build`].
    #[allow(clippy::type_complexity, reason = "it is the stack's own type, with one place filled")]
    pub fn falling_back(
        self,
        chains: ModelFallbackBuilder,
    ) -> Result<FallingBack<D, P, R, E, C, T, J, Q, G, W, X, H, Y>, ConfigError> {
        let (circuits, quotas) = (self.circuit_breaker.handle(), self.rate_limit.handle());
        let layer = chains.circuits(circuits).rate_limits(quotas).build()?;
        Ok(self.fallback(layer))
    }
}

/// A stack with second tries that know its limits and circuits.
type Hedging<D, P, F, R, E, T, J, Q, G, W, X, Y> = GeminiStack<
    D,
    P,
    F,
    R,
    RateLimitLayer<E>,
    AdaptiveConcurrencyLayer,
    CircuitBreakerLayer,
    T,
    J,
    Q,
    G,
    W,
    X,
    HedgeLayer,
    Y,
>;

impl<D, P, F, R, E, T, J, Q, G, W, X, H, Y>
    GeminiStack<
        D,
        P,
        F,
        R,
        RateLimitLayer<E>,
        AdaptiveConcurrencyLayer,
        CircuitBreakerLayer,
        T,
        J,
        Q,
        G,
        W,
        X,
        H,
        Y,
    >
{
    /// Sends late calls a second time, and asks this stack's own quotas, circuits and limits of the calls in flight before
    /// it does.
    ///
    /// Set circuit breaker, concurrency limit and rate limit before.
    ///
    /// # Errors
    ///
    /// Those of [`HedgeBuilder::build`].
    #[allow(clippy::type_complexity, reason = "it is the stack's own type, with one place filled")]
    pub fn hedging(
        self,
        hedge: HedgeBuilder,
    ) -> Result<Hedging<D, P, F, R, E, T, J, Q, G, W, X, Y>, ConfigError> {
        let layer = hedge
            .rate_limits(self.rate_limit.handle())
            .concurrency(self.concurrency.handle())
            .circuits(self.circuit_breaker.handle())
            .build()?;
        Ok(self.hedge(layer))
    }
}

/// A stack with places that knows its limits and circuits.
type Placing<D, P, F, R, E, C, T, J, Q, G, W, X, H> =
    GeminiStack<D, P, F, R, RateLimitLayer<E>, C, CircuitBreakerLayer, T, J, Q, G, W, X, H, PlacesLayer>;

impl<D, P, F, R, E, C, T, J, Q, G, W, X, H, Y>
    GeminiStack<D, P, F, R, RateLimitLayer<E>, C, CircuitBreakerLayer, T, J, Q, G, W, X, H, Y>
{
    /// Sends requests to one of several places, and asks this stack's own quotas and circuits before it chooses one.
    ///
    /// Set circuit breaker and rate limit before.
    ///
    /// # Errors
    ///
    /// Those of [`PlacesBuilder::build`].
    #[allow(clippy::type_complexity, reason = "it is the stack's own type, with one place filled")]
    pub fn placing(
        self,
        places: PlacesBuilder,
    ) -> Result<Placing<D, P, F, R, E, C, T, J, Q, G, W, X, H>, ConfigError> {
        let (quotas, circuits) = (self.rate_limit.handle(), self.circuit_breaker.handle());
        let layer = places.rate_limits(quotas).circuits(circuits).build()?;
        Ok(self.places(layer))
    }
}

impl<S, D, P, F, R, L, C, K, T, J, Q, G, W, X, H, Y> Layer<S>
    for GeminiStack<D, P, F, R, L, C, K, T, J, Q, G, W, X, H, Y>
where
    J: Layer<S>,
    T: Layer<J::Service>,
    K: Place<Open<T::Service>>,
    C: Place<K::Out>,
    L: Place<C::Out>,
    H: Layer<<L::Out as Closed>::Service>,
    R: Layer<H::Service>,
    Y: Layer<R::Service>,
    F: Layer<Y::Service>,
    G: Layer<F::Service>,
    P: Layer<G::Service>,
    Q: Layer<P::Service>,
    W: Layer<Q::Service>,
    X: Layer<W::Service>,
    D: Layer<X::Service>,
{
    type Service = D::Service;

    fn layer(&self, inner: S) -> Self::Service {
        let attempt = self.timeout.layer(self.classify.layer(inner));
        let slowed = self.concurrency.put(self.circuit_breaker.put(Open(attempt)));
        let admitted = self.rate_limit.put(slowed).close();
        let retried = self.retry.layer(self.hedge.layer(admitted));
        let placed = self.fallback.layer(self.places.layer(retried));
        let repeatable = self.replay.layer(self.tier.layer(placed));
        let shared = self.coalesce.layer(self.preflight.layer(repeatable));
        self.deadline.layer(self.last_good.layer(shared))
    }
}

impl<D, P, F, R, L, C, K, T, J, Q, G, W, X, H, Y> fmt::Debug
    for GeminiStack<D, P, F, R, L, C, K, T, J, Q, G, W, X, H, Y>
{
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        // The places may hold any layer.
        f.debug_struct("GeminiStack").finish_non_exhaustive()
    }
}
