//! Streams over a loopback socket, through the whole stack, with reqwest's client and with hyper-util's.
//!
//! Sockets and paused time do not go together, so time is real here: the waits of the stack are milliseconds, nothing
//! sleeps but to look again, and whatever is awaited has an end.
#![cfg(all(feature = "sim", feature = "hyper", feature = "reqwest"))]
#![allow(clippy::unwrap_used, reason = "a failing test may panic anywhere")]

mod beginnings;
mod crowd;
mod drops;
mod ends;
mod world;
