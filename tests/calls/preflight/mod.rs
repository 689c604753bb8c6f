//! Requests are looked at before they are sent: each rule with a bad and a good request, bodies of any size in any pieces, and
//! what the caller, the observer and a gateway's caller are told.
#![allow(clippy::unwrap_used, reason = "a failing test may panic anywhere")]

mod bodies;
mod counts;
mod places;
mod rules;
mod world;
