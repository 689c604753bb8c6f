//! A real server behind the whole layer: with TLS, behind Sentinel, and with all that may be wrong with it.
#![cfg(feature = "redis")]
#![allow(clippy::unwrap_used, reason = "a failing test may panic anywhere")]

#[path = "support/redis.rs"]
#[allow(dead_code, unreachable_pub, reason = "each test uses some of it")]
mod redis;

#[path = "fleet_store/cluster.rs"]
mod cluster;
#[path = "fleet_store/doors.rs"]
mod doors;
#[path = "fleet_store/member.rs"]
mod member;
#[path = "fleet_store/sentinel.rs"]
mod sentinel;
#[path = "fleet_store/tls.rs"]
mod tls;
#[path = "fleet_store/wrong.rs"]
mod wrong;
