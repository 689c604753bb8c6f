//! The weather: random days, each lived through by this crate's stack and by plain clients, and what harm it did.

pub(crate) mod harm;
pub(crate) mod judge;
