//! Choosing the order of the layers.
//!
//! From the outside in:
//!
//! 1. **[Deadline](crate::timeout::DeadlineLayer)**, because it must cover all waits and attempts. It is an instant in
//!    the request's extensions, so that layers and attempts cannot add up to more than was meant.
//! 2. **[Preflight](crate::preflight)**, where it is asked for: what is refused there is neither charged, nor counted, nor sent.
//! 3. **[Replay](crate::retry::ReplayLayer)**, where a request's body is not `Clone`: everything inside may send it again.
//! 4. **[Service tier](crate::tier)**: read once, before all that acts on it. Inside the deadline, to which it gives more time for
//!    flex, and inside the replay, whose first frame it looks at.
//! 5. **[Model fallback](crate::fallback)**, because a model is given up when its retries are.
//! 6. **[Places](crate::places)**, where there are several: all of them are asked for the model that is wanted, each through its
//!    own quota and circuit, and none is waited for while another is open.
//! 7. **[Retry](crate::retry)**, around everything that one attempt goes through.
//! 8. **[Second tries](crate::hedge)**, where they are asked for: inside of retry, so that no retry is part of one, and outside
//!    of the quota and the circuit, which count them like any call.
//! 9. **[Rate limit](crate::rate_limit)**: Google counts attempts, so each one asks, and waits here, holding nothing else.
//! 10. **[Adaptive concurrency](crate::concurrency)**: a place among the calls in flight is taken after the wait for quota
//!     and given back when the answer ends.
//! 11. **[Circuit breaker](crate::circuit_breaker)**: decides at the instant of sending, after every wait, so that nobody
//!     sleeps with a probe's place in hand.
//! 12. **[Attempt timeout](crate::timeout::TimeoutLayer)**: begins when all waiting is over, so that a queue is never taken for a slow
//!     server.
//! 13. **[Classifier](crate::classify)**: right around the client, so that all layers above read the same verdict.
//!
//! [`GeminiStack`](crate::stack::GeminiStack) is this order. What each layer turns away is marked as **not sent**
//! ([`Rejected`](crate::Rejected)): the retry layer waits for it without spending an attempt, the rate limit gives the
//! quota back, the breaker counts nothing. That is what lets the limit stand outside of the breaker.
//!
//! # What goes wrong elsewhere
//!
//! | misplaced | what happens |
//! |---|---|
//! | rate limit outside of retry | one permit pays for ten attempts: more 429s exactly when the quota is spent |
//! | breaker outside of retry | it sees one outcome where there were five; a "probe" is five calls; nobody waits for it to close |
//! | concurrency limit outside of retry | its places are held by those who sleep through a backoff |
//! | rate limit inside of the concurrency limit | those who wait a minute for quota fill the places of those who could go |
//! | rate limit inside of the breaker | a probe's place is held through the wait for quota |
//! | timeout around the rate limit | waiting for quota looks like a slow server, and opens the circuit |
//! | timeout around retry | the first slow attempt ends all of them; for that there is the deadline |
//! | classifier outside of retry | retry guesses by status: a spent day is retried, a delay in the body is not seen |
//! | retry around retry | the attempts multiply: 3 × 3 × 3 is 27 calls in an outage. Turn the retries of your SDK and of the client below off |
//! | preflight inside of retry or the rate limit | what is refused has waited for quota, and is looked at again for each attempt |
//! | places inside of retry | the wait for one place is waited before the next one is asked |
//! | second tries outside of retry | the second try repeats all attempts and waits of the first |
//! | fallback inside of retry | every attempt tries every model |
//! | service tier inside of what acts on it | a flex call has the limits of a standard one, and its timeouts count as the standard tier's |
//! | `tower::buffer` or a queue of your own inside of the timeout | the time in the queue counts as the server's |
//!
//! Where a failed answer shows such an order, the layer that stands too far outside tells its observer, once:
//! [`Event::Misplaced`](crate::event::Event::Misplaced).
//!
//! # Leaving layers out
//!
//! Each works without the others. What is lost:
//!
//! | without | |
//! |---|---|
//! | classifier | status, headers and error type decide; Gemini writes the delay and the kind of quota into the body only |
//! | rate limit | each caller finds out about a spent quota by a 429 of his own |
//! | breaker | every caller finds out about an outage by himself, at full rate |
//! | adaptive concurrency | a server that queues is kept queueing by those who gave up and came back |
//! | retry budget | in an outage the load is the number of attempts times the usual one |
//! | service tier | a flex call is cut at the standard tier's limits, unless the caller puts a [`ServiceTier`](crate::ServiceTier) in |
//! | deadline | waits are bounded by the retry layer's own deadline of 120 s |
//!
//! Breaker and governor belong together: in the scenarios of this repository (`tests/scenarios`) the breaker alone does not
//! leave a server whose queue outlasts its callers' patience, and the governor alone changes nothing in an outage.
//!
//! # Where your own layers go
//!
//! - **Authentication, request ids, tracing of the user's request**: outside of everything; or inside of retry, if each attempt
//!   needs a fresh signature.
//! - **A cache of answers**: outside of the deadline.
//! - **Load shedding, a bound on callers**: outside of the deadline, since waits in here are on purpose.
//! - **Fault injection**: inside of the classifier, around the client.
//! - **Decompression**: outside. Inside, the classifier reads what it decodes; gzip it reads by itself.
