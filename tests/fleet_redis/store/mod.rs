//! A real server behind the whole layer: with TLS, behind Sentinel, and with all that may be wrong with it.

pub(crate) mod cluster;
mod doors;
mod member;
pub(crate) mod sentinel;
pub(crate) mod tls;
pub(crate) mod wrong;
