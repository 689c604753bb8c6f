//! Streams over a loopback socket, through the whole stack, with reqwest's client and with hyper-util's.
//!
//! Sockets and paused time do not go together, so time is real here: the waits of the stack are milliseconds, nothing
//! sleeps but to look again, and whatever is awaited has an end.
#![cfg(all(feature = "sim", feature = "hyper", feature = "reqwest"))]
#![allow(clippy::unwrap_used, reason = "a failing test may panic anywhere")]

#[path = "streams/beginnings.rs"]
mod beginnings;
#[path = "streams/crowd.rs"]
mod crowd;
#[path = "streams/drops.rs"]
mod drops;
#[path = "streams/ends.rs"]
mod ends;
#[path = "streams/world.rs"]
mod world;
