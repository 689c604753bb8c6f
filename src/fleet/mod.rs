//! One quota for many processes.

mod book;
mod config;
mod digest;
mod member;
mod memory;
mod message;
#[cfg(test)]
mod model;
#[cfg(feature = "redis")]
mod redis;
mod share;
mod store;
mod supply;

pub use self::config::Fleet;
pub use self::member::Outage;
pub(crate) use self::member::{Manner, UseId};
pub use self::memory::MemoryStore;
pub use self::message::{
    Amount, Close, Correction, DayEnd, Held, Micros, Notice, Quota, Reply, StoreKey, Take, Terms, Use,
};
#[cfg(feature = "redis")]
#[cfg_attr(docsrs, doc(cfg(feature = "redis")))]
pub use self::redis::RedisStore;
pub use self::store::{Notices, Store, StoreError, StoreFault, StoreFuture};
pub(crate) use self::supply::{Known, Supply};
