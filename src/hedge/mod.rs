//! Sends a call that is late a second time, and takes the answer that comes first.
//!
//! Some answers take many times longer than others for no reason of their own: a bad machine, a bad moment. The same request
//! sent again is mostly answered at the usual pace. [`HedgeLayer`] learns what is late for each model, and pays for second
//! tries from a budget that is a small share of the calls: **2 % by default, and never more**.
//!
//! # When to use it, and where
//!
//! Where the slowest hundredth of the calls matters and is paid for: each second try may be billed, whichever answer comes
//! first. Off in [`GeminiStack`](crate::stack::GeminiStack) until [`hedging`](crate::stack::GeminiStack::hedging) puts it there.
//! Inside the [retry layer](crate::retry), so that a retry is never part of a second try; outside the [rate
//! limit](crate::rate_limit), the [concurrency limit](crate::concurrency), the [circuit breaker](crate::circuit_breaker) and the
//! [timeout](crate::timeout), so that a second try is counted by all of them like any call.
//!
//! **It makes a day worse** where lateness is the request's own: prompts of very different lengths under one model. A second
//! try is then as late as the first, and is paid for nothing, until its price has risen (see below); give such requests a
//! [`KeyLabel`](crate::KeyLabel) of their own. Where the server is near its capacity one more call makes others later: the rules
//! below stop second tries there, as far as the calls of this process show it.
//!
//! # When a second try is sent
//!
//! The time is counted from when the call is really sent, behind all that waits inside, to the head of the answer; of a
//! stream the [classifier](crate::classify) holds that until its first event. It is kept for each model, place, label, tier
//! and method of its own. The second try is sent no sooner than the **95th percentile** of the last 500 to 1,000 answers, and of
//! the moments from there on at the one that makes the 99th percentile the least, as far as these answers tell. With a
//! bucket that serves two of the five calls in a hundred that are past the 95th percentile, chance decides which; a little
//! later there are fewer, and more of them are really late. It is worked out anew after every 32 answers.
//!
//! # What it can do
//!
//! No rule that knows a call's age can do better than this. Let `S(t)` be the share of the answers that takes longer than `t`, and `F` the rest. A
//! rule that sends a second try at the age `h` to a share `g(h)` of those that get there spends the sum of `g(h) S(h)`, and leaves the share
//! `S(t) (1 - sum of g(h) F(t - h))` above `t`. Both are linear in `g`, so the least 99th percentile within a budget is that of a linear
//! program. Where 3 of 100 answers take eight times longer and the median is 2 s, it is 10.8 s at 2 % and 7.2 s at 5 %, against 19.2 s without; this layer comes
//! to 1.05 and 1.04 times that, and to 1.01 to 1.06 times the least with other shapes of tail (`tests/calls/hedge.rs`). **So a budget below
//! the share of the slow calls leaves slow calls, whatever is done**: where 3 % are slow and the 99th percentile matters, set 3 to 5 %.
//!
//! All of these must hold, or none is sent ([`HeldBack`] names the rule that was in the way, and [`HedgeStatus`] counts):
//!
//! | rule | number |
//! |---|---|
//! | so many answers were timed | 100 ([`samples`](HedgeBuilder::samples)) |
//! | none of the last calls has failed | 16 |
//! | no overload (503, 529, a 429 for capacity) within, and no call that took too long within | 10 min, 60 s |
//! | no 429, and no call that had to wait for quota, a place or a circuit, | within 60 s, or the delay that the 429 named, up to 1 h |
//! | something was answered since the last second try | |
//! | of the calls sent later, so many were answered before this one | 2, or as many as there are |
//! | no more calls are under way than usual, times | 1.25 |
//! | of the last 16 answers, fewer took longer than the median than | 13 |
//! | answers do not take longer the more calls were under way when they were asked for: over the last 512 in the main, by less standard errors than | 1.5 |
//! | the deadline leaves as long as half of the answers take | |
//! | with a handle: the circuit is closed and does not ramp, the calls in flight are not limited, no door of the quota is closed, nobody waits for it, and of each limit at most so much is used | nine tenths |
//! | the bucket holds its price: one, doubled for each second try in a row beyond the third that did not come first | up to 8 |
//! | the second try need not wait inside: one that would is dropped before it is sent, and its price given back | |
//!
//! So there is none in an outage: where calls fail, the first failure ends it; where they hang, nobody overtakes anybody, and
//! nothing is answered after the first second try.
//!
//! # What is never sent twice
//!
//! What has begun to answer. What leaves something behind or starts something: interactions, files, caches, batches,
//! operations, images and videos. Only `generateContent`, `streamGenerateContent`, `generateAnswer`, `countTokens`,
//! `embedContent`, `batchEmbedContents`, chat completions, their embeddings, and the list and the description of models are. Not
//! the [flex tier](crate::tier), whose answers take their time; not an attempt after the first; not a body above
//! [`max_body_bytes`](HedgeBuilder::max_body_bytes), and not one that streams through a
//! [`ReplayLayer`](crate::retry::ReplayLayer) before it has gone out whole.
//!
//! # What comes of it
//!
//! The answer that comes first is handed on, and the other call is dropped at once. What that held is given back: its place,
//! its circuit's count, its connection; the rate limit keeps what it charged, since the server may have done the work. Where one of
//! the two fails, the other is waited for: after the first has failed, for as long as the second was sent after it, and not at
//! all where the failure would be the same again. If both fail, the first failure is the answer. The time of a call that
//! was given up counts as one in the middle of those that take longer, so that slow answers do not vanish from what is learnt.
//!
//! # What it costs is told
//!
//! [`Hedged`] in the response's extensions where a second try was sent; [`Event::Hedged`](crate::event::Event::Hedged) and
//! [`Event::HedgeSettled`](crate::event::Event::HedgeSettled); [`Hedges`] with the counts of each key.
//! [`Attempts`](crate::retry::Attempts) counts both tries as one.
//!
//! # Defaults
//!
//! | setting | default |
//! |---|---|
//! | [`budget`](HedgeBuilder::budget) | 0.02 of the calls; the bucket begins empty and holds 10 |
//! | [`samples`](HedgeBuilder::samples) | 100 |
//! | [`rate_limits`](HedgeBuilder::rate_limits), [`circuits`](HedgeBuilder::circuits), [`concurrency`](HedgeBuilder::concurrency) | not looked at; in the stack, its own |
//! | [`max_body_bytes`](HedgeBuilder::max_body_bytes) | 32 MiB |
//! | [`max_keys`](HedgeBuilder::max_keys) | 1,024 |
//!
//! # Sharing, dropping and cost
//!
//! Clones and all services of one layer share what was learnt and the budgets. Dropping the future drops both calls and
//! counts nothing. A call is copied (not its bytes) once enough was learnt, has a timer, and takes a lock when it is sent and
//! when it is answered. The future is larger by the copy.
//!
//! # Errors
//!
//! None of its own. The inner service's are boxed as a [`BoxError`](crate::BoxError) (a boxed error stays the same box).
//!
//! # Examples
//!
//! ```
//! use tower::Layer;
//! use tower_gemini::hedge::HedgeLayer;
//! use tower_gemini::stack::GeminiStack;
//!
//! # fn main() -> Result<(), tower_gemini::ConfigError> {
//! # let client = tower::service_fn(async |_: http::Request<http_body_util::Full<bytes::Bytes>>|
//! #     Ok::<_, std::io::Error>(http::Response::new(http_body_util::Full::<bytes::Bytes>::default())));
//! let stack = GeminiStack::new().hedging(HedgeLayer::builder())?;
//! let cost = stack.get_hedge().handle();
//! let gemini = stack.layer(client);
//! assert!(cost.all().is_empty(), "nobody has asked yet");
//! # let _: &dyn std::any::Any = &gemini as &dyn std::any::Any; Ok(()) }
//! ```
//!
//! By hand, and at 5 %:
//!
//! ```
//! use tower::ServiceBuilder;
//! use tower_gemini::circuit_breaker::CircuitBreakerLayer;
//! use tower_gemini::classify::ClassifyLayer;
//! use tower_gemini::hedge::HedgeLayer;
//! use tower_gemini::rate_limit::RateLimitLayer;
//! use tower_gemini::retry::RetryLayer;
//!
//! # fn main() -> Result<(), tower_gemini::ConfigError> {
//! # let client = tower::service_fn(async |_: http::Request<http_body_util::Full<bytes::Bytes>>|
//! #     Ok::<_, std::io::Error>(http::Response::new(http_body_util::Full::<bytes::Bytes>::default())));
//! let (limit, breaker) = (RateLimitLayer::default(), CircuitBreakerLayer::default());
//! let hedge = HedgeLayer::builder()
//!     .budget(0.05)
//!     .rate_limits(limit.handle())
//!     .circuits(breaker.handle())
//!     .build()?;
//! let service = ServiceBuilder::new()
//!     .layer(RetryLayer::default())
//!     .layer(hedge)
//!     .layer(limit)
//!     .layer(breaker)
//!     .layer(ClassifyLayer::new())
//!     .service(client);
//! # let _ = service; Ok(()) }
//! ```

mod config;
mod evidence;
mod future;
mod layer;
mod moment;
mod report;
mod service;
mod shared;
mod spare;

pub use self::future::ResponseFuture;
pub use self::layer::{HedgeBuilder, HedgeLayer, Hedges};
pub use self::report::{HedgeStatus, Hedged, HeldBack};
pub use self::service::Hedge;
use crate::request::{Method, Target};
use crate::tier::ServiceTier;

/// Whether a call may be sent twice side by side: it leaves nothing behind, starts nothing, and is not slow by choice.
fn may_be_repeated(target: &Target<'_>) -> bool {
    let repeats = matches!(
        target.method(),
        Method::GenerateContent
            | Method::StreamGenerateContent
            | Method::GenerateAnswer
            | Method::CountTokens
            | Method::EmbedContent
            | Method::BatchEmbedContents
            | Method::ChatCompletions
            | Method::Embeddings
            | Method::ModelsList
            | Method::ModelsGet
    );
    repeats && target.tier() != ServiceTier::Flex
}
