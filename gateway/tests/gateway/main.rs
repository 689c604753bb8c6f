//! The gateway: its arguments, what it passes on, what it says of itself, and how it stops.
//!
//! Everything runs on loopback sockets in real time, with waits of tenths of a second; only the outage and other long waits are lived
//! through in virtual time, with the gateway's stack over the simulator as a service.
#![allow(clippy::unwrap_used)] // Clippy excuses test functions by itself, but not their helpers.

mod arguments;
mod attack;
mod causes;
mod clients;
mod config;
mod history;
mod isolation;
mod layers;
mod leaving;
mod limits;
mod load;
#[cfg(feature = "otlp")]
mod otlp;
mod outage;
mod pages;
#[cfg(target_os = "linux")]
mod program;
mod quota_store;
mod refusals;
mod restart;
mod tls;
mod verbatim;
mod world;
mod wrong;
