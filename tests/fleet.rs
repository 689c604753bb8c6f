//! One quota for many layers, each with a member of its own, over a store in memory that can be made to fail. In tokio's
//! paused time; what is judged is what a server received.
#![cfg(feature = "fleet")]
#![allow(clippy::unwrap_used, clippy::float_cmp, reason = "a failing test may panic anywhere")]

#[path = "fleet/doors.rs"]
mod doors;
#[path = "fleet/outages.rs"]
mod outages;
#[path = "fleet/paces.rs"]
mod paces;
#[path = "fleet/shares.rs"]
mod shares;
#[path = "fleet/spans.rs"]
mod spans;
#[path = "fleet/world.rs"]
mod world;
