//! The shell of the layers that admit calls: the rate limit, the concurrency limit and the circuit breaker.
//!
//! All three have one shape. The key of a request is found; the call passes, waits or is refused; what it holds is settled at the
//! head or at the end of the body, or given back when future or body are dropped. That shape is [`Admission`], with its future and
//! its body, and each layer brings a gate: the state of a key and what is done with it.
//!
//! ```text
//! request - context - gate - gate - gate - ready(inner) - call - head: some are settled - end of the body: the rest is
//!                     each: passes | waits (a ticket) | is refused (a named error, nothing sent)
//! ```
//!
//! [`RateLimit`](crate::rate_limit::RateLimit), [`AdaptiveConcurrency`](crate::concurrency::AdaptiveConcurrency) and
//! [`CircuitBreaker`](crate::circuit_breaker::CircuitBreaker) are this service with one gate each. A
//! [`GeminiStack`](crate::stack::GeminiStack) puts those that stand beside each other in its places into one: one future, one look
//! at the context, one comparison of the target, one body.
//!
//! # Several gates
//!
//! The outer one decides first. What the outer has admitted is held while the inner waits: dropped then, it is given back as not
//! sent, and when the call leaves late, the rate limit counts it from then on. The answer is shown to the inner one first, and so is
//! the end of its body. An inner one's refusal is shown to the outer ones as an error of a call that was not sent.
//!
//! # Readiness
//!
//! `poll_ready` is the inner service's own, but where a circuit that is not closed answers at once. A request that queues gives
//! the readiness of the inner service back; it makes a clone ready itself when its turn has come. The circuit breaker decides last,
//! when the inner service is ready.

mod body;
mod both;
mod future;
mod gate;
mod service;

pub use self::body::AdmittedBody;
pub(crate) use self::both::{Both, Kinds};
pub use self::future::ResponseFuture;
pub(crate) use self::gate::{Entry, Gate, Inner, Kind, Pass, Ticket, Turn, Visitor};
pub use self::service::Admission;
