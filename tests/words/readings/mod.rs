//! Errors as they arrive second hand: printed by an SDK, wrapped by a relay, escaped once too often. Each group of
//! [`every_kind_of_wrapping_is_read`] is a kind, and its inputs differ in everything but that; the property below wraps any
//! fixture in any chain of such forms.
#![allow(clippy::unwrap_used, reason = "in a test a panic is the report")]

mod answers;
mod faults;
mod kinds;
mod languages;
mod logs;
mod relays;
mod servers;
mod services;
mod words;
mod wrapped;
mod wrappings;
