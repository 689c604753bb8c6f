//! One quota for many processes.

mod book;
mod member;
mod message;
#[cfg(test)]
mod model;
mod share;

pub use self::member::Outage;
pub use self::message::{
    Amount, Close, Correction, DayEnd, Held, Micros, Notice, Quota, Reply, StoreKey, Take, Terms, Use,
};
