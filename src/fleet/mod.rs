//! One quota for many processes: what a [rate limit](crate::rate_limit) shares with others through a store.
//!
//! A Gemini quota belongs to a project, and a service has several replicas. Without a store each believes that it is alone, and
//! the others' 429s teach it. With one they keep the limits together, exactly: in no position of a minute do they send more,
//! whatever dies and whoever is cut off.
//!
//! # When to use it
//!
//! Wherever more than one process (or more than one layer) calls the same project and model. A single process needs none.
//!
//! # How it works
//!
//! A member holds a *part* of each limit, which it may send without asking, and takes *leases* of two seconds for the rest. One
//! message at a time goes to the store for each key; while the store is well, most requests cost none. A 429 that one meets
//! closes the door for all at once, a limit that it names counts for all, and a spent day is one for all. Limits over
//! [spans](crate::rate_limit::Limits::per) are shared each by a state of its own, and [classes](crate::RequestClass) are weights between members.
//! The page `docs/fleet.md`, which comes with the crate's source, has the protocol, the proof of the bound and what it assumes.
//!
//! Everything else of the layer stays as it is: queue, deadlines, events, handle. What waits for the store waits in the queue
//! and keeps its deadline. [`QuotaStatus::fleet`](crate::rate_limit::QuotaStatus::fleet) shows members, part and stock,
//! [`RateLimits::store`](crate::rate_limit::RateLimits::store) the store's health.
//!
//! # Defaults
//!
//! | setting | default |
//! |---|---|
//! | [`namespace`](Fleet::namespace) | empty: all layers that use the store share |
//! | [`weight`](Fleet::weight) | 1 |
//! | [`outage`](Fleet::outage) | [`Outage::Strict`]: never above the limit, and less and less while it lasts |
//! | [`hide_names`](Fleet::hide_names) | off: names of models and labels stand in the store, keys of the API never |
//!
//! # Sharing and dropping
//!
//! One task for each layer, started with its first key on the runtime of the call that brings it. It ends when the layer, its
//! services and its handles are dropped, and gives back what was held. A process that is killed costs its part for some minutes
//! and its lease for one.
//!
//! # Examples
//!
//! ```
//! use tower_gemini::fleet::MemoryStore;
//! use tower_gemini::rate_limit::{Limits, RateLimitLayer};
//!
//! # #[tokio::main(flavor = "current_thread")] async fn main() -> Result<(), tower_gemini::ConfigError> {
//! // Two layers of one process; with `RedisStore`, any number of processes.
//! let store = MemoryStore::new();
//! let limits = Limits::new().requests_per_minute(60);
//! let one = RateLimitLayer::builder().limits(limits).store(store.clone()).build()?;
//! let other = RateLimitLayer::builder().limits(limits).store(store).build()?;
//! # let _ = (one, other); Ok(()) }
//! ```

mod book;
mod config;
mod digest;
mod member;
mod memory;
mod message;
#[cfg(test)]
#[path = "tests/model.rs"]
mod model;
mod outage;
#[cfg(feature = "redis")]
mod redis;
mod share;
mod store;
mod supply;

pub use self::config::Fleet;
pub use self::digest::keyed_label;
pub(crate) use self::member::{Manner, UseId};
pub use self::memory::MemoryStore;
pub use self::message::{
    Amount, Close, Correction, DayEnd, Held, Micros, Notice, Quota, Reply, StoreKey, Take, Terms, Use,
};
pub use self::outage::Outage;
#[cfg(feature = "redis")]
#[cfg_attr(docsrs, doc(cfg(feature = "redis")))]
pub use self::redis::RedisStore;
pub use self::store::{Notices, Store, StoreError, StoreFault, StoreFuture};
pub(crate) use self::supply::{Known, Supply};
