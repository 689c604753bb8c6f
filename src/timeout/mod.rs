//! Ends what takes too long: an attempt without an answer, an answer that falls silent, and the request as a whole.
//!
//! [`TimeoutLayer`] limits **one attempt**: how long its answer may take to begin, how long it may pause, and, where
//! asked for, how long it may last. [`DeadlineLayer`] gives the **whole request** an end, all attempts and waits
//! together: a [`Deadline`] in its extensions, which every layer of this crate keeps to.
//!
//! # When to use them, and where
//!
//! The deadline outermost, so that it counts from the caller's call. The attempt's limits right around the
//! [classifier](crate::classify), inside all that waits ([retry](crate::retry), [rate limit](crate::rate_limit),
//! [concurrency](crate::concurrency)) and inside the [circuit breaker](crate::circuit_breaker): they begin when the
//! request is really sent, and the layers around them see each attempt that timed out. Outside of retry a timeout
//! would end all attempts with the first slow one; outside of a queue it would call a server slow that was never asked.
//!
//! Turn the client's own timeouts off or set them longer, but for its connect timeout, whose error says that nothing
//! was sent: this layer cannot know.
//!
//! # The limits of an attempt
//!
//! - **First byte**: from `call` to the answer's head. The request's deadline counts as well, whichever is earlier, and
//!   [`TimedOut::what`] says which it was. A request whose deadline has passed already is not sent; the inner service
//!   stays ready for the next call.
//! - **Idle**: while the body makes a pause. Each frame ends it, comments and trailers too, whatever they hold. Only
//!   the time in which somebody waits for a frame counts: a pause begins when the reader asks and nothing is there.
//!   A reader who asked, went away, and comes back more than 1 s after the pause was over was not waiting: if there is
//!   nothing for it then, the pause begins anew, once. Backpressure is not the server's silence.
//! - **Total**: from `call` to the end of the body, the reader's own time included. Off, since nobody knows how long
//!   a good answer may be.
//!
//! The deadline does not cut a body that has begun. Its head came in time, what has been generated is paid for, and a
//! retry would pay again for what is arriving now. Whoever wants an end to it nevertheless sets a total.
//!
//! A limit that is over drops the call or the inner body at once, which closes its connection (of HTTP/2, its stream),
//! and gives one [`TimedOut`], for a body followed by its end. The verdict of such an error is `deadline_exceeded`,
//! maybe sent: the server may have done the work, and billed it.
//!
//! # Service tiers
//!
//! A request of the [flex tier](crate::tier) waits 1 to 15 minutes for its answer, and that is no fault. For it the first byte has
//! 16 minutes ([`tier_first_byte`](TimeoutBuilder::tier_first_byte)), the request 30 ([`DeadlineLayer::flex`]), and the
//! server is told so. This layer knows the tier by the request's [`ServiceTier`](crate::tier::ServiceTier), which the caller
//! or a [`TierLayer`](crate::tier::TierLayer) outside puts in.
//!
//! # What the other layers make of it
//!
//! The [retry layer](crate::retry) sends a request again that had no first byte, as often as its budget permits, and not
//! one whose answer broke off. What took too long once is likely to do so again: with each attempt that did, and with each
//! 504 of the server's, the next one's first byte has [twice as long](TimeoutBuilder::max_first_byte), up to 600 s. It grows
//! to no more than half of what the deadline leaves, so that there is time for one more where answers are late by chance.
//!
//! To the concurrency limit and the circuit breaker it is a [`Timeout`](crate::verdict::Signal::Timeout). Of a body
//! they learn so where the classifier [watches](crate::classify::ClassifyLayer::watch): then the outcome
//! `deadline_exceeded` is published, with the tokens that were reported until then. Without it they see a body that
//! broke off, a transport failure: it counts for the breaker, and does not shrink the concurrency limit.
//!
//! # Whose doing it was
//!
//! What the caller brought about says nothing of the server: [`TimedOut::is_by_caller`],
//! [`Verdict::is_by_caller`](crate::Verdict::is_by_caller), and the signal is
//! [`Neutral`](crate::verdict::Signal::Neutral). The verdict stays `deadline_exceeded`. So it is
//!
//! - **where the server had the whole request for less than half of this layer's own limit** (the earlier of
//!   `first_byte`, not grown, and `total`), whichever limit was over: the request's deadline left too little, or its body
//!   came too slowly. From half on the silence is the server's, also under a deadline: under the defaults, where both
//!   are 120 s, nearly every attempt that hangs is ended by the deadline. Without a limit of this layer's own a deadline
//!   is always the caller's;
//! - where more of the **request's body** is waited for, or it failed. Such a request is not tried again. A 408 or 504 of
//!   the server's in the meantime is the caller's as well, and an error that may have to do with it becomes an
//!   [`UploadIncomplete`]. A server that does not read is to blame itself;
//! - where the **total** is over and the reader has not asked for a frame that was not there.
//!
//! Of bodies this layer knows where they go through a [`ReplayLayer`](crate::retry::ReplayLayer) outside. The first byte
//! counts from the call, the time of the upload included.
//!
//! # What the server is told
//!
//! The header `X-Server-Timeout`: in whole seconds, rounded up, how long the attempt may take (the earliest of first
//! byte, deadline and total), so that the server does not go on with what nobody waits for. Google's own SDKs send their
//! timeout so ([python-genai](https://github.com/googleapis/python-genai),
//! [go-genai](https://github.com/googleapis/go-genai), read 2026-11). It never says less than 10, because Google refuses
//! shorter ones with a 400, and it is left alone where the caller set it. The server's limit spans its whole answer,
//! so for a streaming method it is the total, and where there is none there is no header. Where only the request's
//! body asks for a stream (the OpenAI-compatible surface, Interactions) this layer does not see it: set the header
//! yourself, or turn it [off](TimeoutBuilder::without_server_timeout).
//!
//! # Defaults
//!
//! | setting | default |
//! |---|---|
//! | [`first_byte`](TimeoutBuilder::first_byte) | 120 s |
//! | [`tier_first_byte`](TimeoutBuilder::tier_first_byte) of flex | 16 min, or `first_byte` if that is longer |
//! | [`tier_total`](TimeoutBuilder::tier_total) | that of the standard tier |
//! | [`max_first_byte`](TimeoutBuilder::max_first_byte) | 600 s, doubling for each earlier timeout |
//! | [`idle`](TimeoutBuilder::idle) | 300 s |
//! | [`total`](TimeoutBuilder::total) | none |
//! | `X-Server-Timeout` | sent; [`without_server_timeout`](TimeoutBuilder::without_server_timeout) |
//! | [`DeadlineLayer`] | 120 s, for requests without a deadline; of the flex tier 30 min |
//!
//! # Sharing and dropping
//!
//! Nothing is shared but settings. Dropping a future or a body at any point drops the call and the timer, counts
//! nothing, and is no timeout: the outcome of a watched body that is dropped is "dropped", as without this layer.
//!
//! # Cost
//!
//! One look at the clock for each call. One that is ready at once makes no timer and allocates nothing. One that waits makes
//! its only timer at its first `Pending`, in a box, armed for the shorter of the head's limit and `idle`, and hands it on to the
//! body; it is set anew when it fires early, not per frame. The box keeps the body `Unpin`. A frame that is there costs nothing
//! (with a total, a look at the clock), a wait a look at the clock. The header allocates nothing up to 999 s, but what `http`'s
//! map needs to grow. An error is a box.
//!
//! # Examples
//!
//! ```
//! use tower::ServiceBuilder;
//! use tower_gemini::classify::ClassifyLayer;
//! use tower_gemini::retry::RetryLayer;
//! use tower_gemini::timeout::{DeadlineLayer, TimeoutLayer};
//!
//! # let client = tower::service_fn(async |_: http::Request<http_body_util::Full<bytes::Bytes>>|
//! #     Ok::<_, std::io::Error>(http::Response::new(http_body_util::Full::<bytes::Bytes>::default())));
//! let service = ServiceBuilder::new()
//!     .layer(DeadlineLayer::default())
//!     .layer(RetryLayer::default())
//!     .layer(TimeoutLayer::new())
//!     .layer(ClassifyLayer::new().watch())
//!     .service(client);
//! # let _ = service;
//! ```
//!
//! For a long job, of which no attempt may take more than ten minutes in all:
//!
//! ```
//! use std::time::Duration;
//! use tower_gemini::timeout::{DeadlineLayer, TimeoutLayer};
//!
//! # fn main() -> Result<(), tower_gemini::ConfigError> {
//! let deadline = DeadlineLayer::new(Duration::from_secs(3600))?;
//! let timeout = TimeoutLayer::builder()
//!     .first_byte(Duration::from_secs(300))
//!     .idle(Duration::from_secs(30))
//!     .total(Duration::from_secs(600))
//!     .build()?;
//! # let _ = (deadline, timeout); Ok(()) }
//! ```

mod body;
mod config;
mod future;
mod header;
mod layer;
mod plan;
mod service;
mod set_deadline;
mod timer;

pub use self::body::TimeoutBody;
pub use self::config::TimeoutBuilder;
pub use self::future::ResponseFuture;
pub use self::layer::TimeoutLayer;
pub use self::service::Timeout;
pub use self::set_deadline::{DeadlineFuture, DeadlineLayer, SetDeadline};
pub use crate::context::deadline::Deadline;
pub use crate::error::timed_out::{Phase, TimedOut, UploadIncomplete};
