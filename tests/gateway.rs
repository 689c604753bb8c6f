//! The gateway example: its arguments, what it passes on, what it says of itself, and how it stops.
//!
//! The example's sources are compiled into this test, since a test has no portable way to an example's program. Everything runs
//! on loopback sockets in real time, with waits of tenths of a second; only the outage and other long waits are lived through in
//! virtual time, with the gateway's stack over the simulator as a service.
#![cfg(all(feature = "hyper", feature = "sim"))]
#![allow(clippy::unwrap_used)] // Clippy excuses test functions by itself, but not their helpers.

#[allow(dead_code)] // Its `main`.
#[path = "../examples/gateway/main.rs"]
mod gateway;

#[path = "gateway/arguments.rs"]
mod arguments;
#[path = "gateway/layers.rs"]
mod layers;
#[path = "gateway/leaving.rs"]
mod leaving;
#[path = "gateway/outage.rs"]
mod outage;
#[path = "gateway/pages.rs"]
mod pages;
#[path = "gateway/verbatim.rs"]
mod verbatim;
#[path = "gateway/world.rs"]
mod world;
#[path = "gateway/wrong.rs"]
mod wrong;
