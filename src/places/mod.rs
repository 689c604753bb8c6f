//! Sends a request to one of several places, and to the next one where that cannot serve it: regions, the global endpoint,
//! provisioned throughput, projects of the caller's own.
//!
//! A quota that is spent in one region or project is not spent in another, and an outage of a region is none of the others.
//! [`PlacesLayer`] has a list of places, asks the first that is open, and moves a request on **at once** where the
//! [`Verdict`](crate::Verdict) of its failure says that another place would help. All places share one set of attempts.
//!
//! # When to use it, and where
//!
//! Where the same model can be asked at more than one place. Outside the [retry layer](crate::retry) and all that is inside of
//! that, so that each place is asked through all of them; inside a [model fallback](crate::fallback), so that all places are
//! asked for the model that is wanted before another one is. Bodies that are not `Clone` go through a
//! [`ReplayLayer`](crate::retry::ReplayLayer) outside.
//!
//! **It makes a day worse** where the places are one: two keys of one project share its quota, and regions may share what is
//! down. Then each failure costs a call at each place before it is waited for. And where an outage is a silence, the calls that
//! find out whether a place is back hang in it for as long as the [timeout](crate::timeout) allows: keep that short.
//!
//! # Whose projects
//!
//! **Only projects and keys that are the caller's own, and that exist for a reason of their own**: teams, products, regions,
//! a contract. Google's quotas are limits on the use of its APIs, and its
//! [terms](https://developers.google.com/terms) forbid attempts to get around them (read 2026-11): projects that are made
//! to multiply a quota are such an attempt, and so are the keys of others. This layer cannot know whose a key is.
//!
//! # What a place is
//!
//! A [`Place`] says what of a request is replaced: scheme and host, the project and the location in the path of Vertex AI, the
//! key, `X-Vertex-AI-LLM-Request-Type`, any other header. All else stays byte for byte. A request whose path names no
//! project or location cannot go to a place that has one. The place's name becomes the request's
//! [`KeyLabel`](crate::KeyLabel) (`label@place` where it has one), so that rate limit, circuit breaker, retry budget and second
//! tries keep their states apart by place, also where the path is the same.
//!
//! # Which place is asked
//!
//! Of those that are permitted, the first that is open, in the order of the list: with all well, every request goes to the
//! first. Where none is open, the one that has not been asked for the longest: each at most every 10 s after a 429 and every 15 s
//! after other failures, one call at a time, and not before a quota is said to be there again. Between those calls the one that has served
//! last, if that is no more than 5 s ago: a place that fails now and then is better than one that never answers. Else the one whose turn
//! comes first. A pure function decides, and property tests hold it to that.
//!
//! **Permitted** is what the [`Residency`] allows, of the layer and of the request together. It is strict: a place outside is
//! never asked, under any failure, and a request for which no place is left is refused with [`NoPlace`].
//! [`AtPlace`] binds a request to one place.
//!
//! **Open** is a place as long as its calls do not say otherwise, for each model, label and tier of its own:
//!
//! | what a call says | the place is closed |
//! |---|---|
//! | a 429 of a minute's quota | as long as it says; without a delay 10 s, doubling up to 300 s |
//! | a spent quota: a day, zero, a spending cap | as long as it says; without a delay 1 h |
//! | 500, 503, 504, no connection, a timeout | after 3 in a row: 15 s, doubling up to 300 s |
//! | no such model here, no permission, a key or a location that is not accepted | after 3 in a row: 300 s |
//! | a layer inside turned it away: [`RateLimited`](crate::rate_limit::RateLimited), [`CircuitOpen`](crate::circuit_breaker::CircuitOpen), [`ConcurrencyLimited`](crate::concurrency::ConcurrencyLimited) | until it says |
//!
//! When that time is over one call goes there to find out, and others keep away from it for 60 s or until that call is over. It
//! opens the place, or closes it again. With the handles of the [rate limit](PlacesBuilder::rate_limits) and the [circuit
//! breaker](PlacesBuilder::circuits), which [`GeminiStack::placing`](crate::stack::GeminiStack::placing) sets, a place at which a
//! request would have to wait for quota comes after those at which it would not.
//!
//! # When a request moves on
//!
//! After a failure of that table (one is enough), where another permitted place is open that the request has not been to. The
//! retry layer inside then waits for nothing, charges no budget, and gives up with
//! [`GaveUp::Elsewhere`](crate::event::GaveUp::Elsewhere). Never after output, never after the deadline, never where the retry
//! layer would not repeat what may have been processed, never once its attempts are used up. Each place is asked once; at
//! the last one the retry layer goes on as it would without this layer. Without a retry layer inside, what may have been
//! processed does not move.
//!
//! Only calls that are about a model move: `generateContent`, `streamGenerateContent`, `generateAnswer`, `countTokens`, embeddings,
//! `predict`, `rawPredict`, `streamRawPredict`, chat completions. All others, files, caches, batches, interactions,
//! operations, are about what is kept somewhere: they go to the first permitted place, always the same, or to the one that
//! [`AtPlace`] names. So should a request that names a file or a cache.
//!
//! # Attempts
//!
//! As with a [fallback](crate::fallback#attempts-and-budgets), several calls are no way round the retry policy: at most as many are
//! made as the policy has attempts, or as there are places if those are more. [`Attempts`](crate::retry::Attempts) and events
//! count all of it as one request. Each place has its own retry budget.
//!
//! # What is told
//!
//! [`ServedAt`] in the response's extensions; [`Event::Moved`](crate::event::Event::Moved) and
//! [`Event::PlaceClosed`](crate::event::Event::PlaceClosed); [`Places`] with the state of each place.
//!
//! # Defaults
//!
//! | setting | default |
//! |---|---|
//! | [`place`](PlacesBuilder::place) | none; 1 to 16 |
//! | [`residency`](PlacesBuilder::residency) | everywhere |
//! | [`rate_limits`](PlacesBuilder::rate_limits), [`circuits`](PlacesBuilder::circuits) | not looked at; in the stack, its own |
//! | [`max_keys`](PlacesBuilder::max_keys) | 1,024 |
//! | [`enabled`](PlacesBuilder::enabled) | `true` |
//!
//! # Errors
//!
//! [`NoPlace`]. The inner service's are boxed as a [`BoxError`](crate::BoxError) (a boxed error stays the same box).
//!
//! # Sharing, dropping and cost
//!
//! Clones and all services of one layer share what is known of the places. A request that has one place is rewritten and
//! passed on; one that has several is copied (not its bytes) and kept until it is answered. Dropping the future drops the
//! call under way and the copy. No readiness of the inner service is held between two places.
//!
//! # Examples
//!
//! Provisioned throughput first, then the same region as you go, then the rest of the European Union, and never outside:
//!
//! ```
//! use tower::Layer;
//! use tower_gemini::places::{Place, PlacesLayer, RequestType, Residency};
//! use tower_gemini::stack::GeminiStack;
//!
//! # fn main() -> Result<(), tower_gemini::ConfigError> {
//! # let client = tower::service_fn(async |_: http::Request<http_body_util::Full<bytes::Bytes>>|
//! #     Ok::<_, std::io::Error>(http::Response::new(http_body_util::Full::<bytes::Bytes>::default())));
//! let places = PlacesLayer::builder()
//!     .place(Place::vertex("europe-west4").named("provisioned").request_type(RequestType::Dedicated))
//!     .place(Place::vertex("europe-west4").request_type(RequestType::Shared))
//!     .place(Place::vertex("eu"))
//!     .place(Place::vertex("global"))
//!     .residency(Residency::within(["europe-west4", "eu"]));
//! let gemini = GeminiStack::new().placing(places)?.layer(client);
//! # let _: &dyn std::any::Any = &gemini as &dyn std::any::Any; Ok(()) }
//! ```
//!
//! Two projects of one's own on the Gemini API:
//!
//! ```
//! use http::HeaderValue;
//! use tower::ServiceBuilder;
//! use tower_gemini::classify::ClassifyLayer;
//! use tower_gemini::places::{Place, PlacesLayer};
//! use tower_gemini::retry::RetryLayer;
//!
//! # fn main() -> Result<(), Box<dyn std::error::Error>> {
//! # let (search, support) = ("AIza-1", "AIza-2");
//! # let client = tower::service_fn(async |_: http::Request<http_body_util::Full<bytes::Bytes>>|
//! #     Ok::<_, std::io::Error>(http::Response::new(http_body_util::Full::<bytes::Bytes>::default())));
//! let places = PlacesLayer::builder()
//!     .place(Place::new("search").api_key(HeaderValue::from_str(search)?))
//!     .place(Place::new("support").api_key(HeaderValue::from_str(support)?))
//!     .build()?;
//! let service = ServiceBuilder::new()
//!     .layer(places)
//!     .layer(RetryLayer::default())
//!     .layer(ClassifyLayer::new())
//!     .service(client);
//! # let _ = service; Ok(()) }
//! ```

mod choose;
mod future;
mod health;
mod layer;
mod place;
mod report;
mod service;
mod shared;
mod work;

pub use self::future::ResponseFuture;
pub use self::layer::{Places, PlacesBuilder, PlacesLayer};
pub use self::place::{AtPlace, Place, RequestType, Residency};
pub use self::report::{NoPlace, NoPlaceReason, PlaceStatus, ServedAt};
pub use self::service::PlaceChoice;
use crate::request::{Method, Target};

/// Whether a call is about a model, which each place has, and not about what is kept at one of them.
fn is_movable(target: &Target<'_>) -> bool {
    matches!(
        target.method(),
        Method::GenerateContent
            | Method::StreamGenerateContent
            | Method::GenerateAnswer
            | Method::CountTokens
            | Method::EmbedContent
            | Method::BatchEmbedContents
            | Method::Predict
            | Method::RawPredict
            | Method::StreamRawPredict
            | Method::ChatCompletions
            | Method::Embeddings
    )
}
