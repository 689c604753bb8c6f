//! Calls through the whole: stacks and their settings, clients, the simulator, what is beside the layers of every stack.
#![allow(clippy::unwrap_used, reason = "a failing test may panic anywhere")]

#[path = "../support/mod.rs"]
mod support;

mod coalesce;
mod compositions;
mod config;
mod hedge;
mod hyper_util;
mod last_good;
mod observe;
mod places;
mod preflight;
mod proxy;
mod reqwest;
mod reqwest_012;
mod resume;
mod sim;
mod stack;
mod streams;
mod trace;
mod transport;
