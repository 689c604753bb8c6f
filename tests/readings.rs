//! Errors as they arrive second hand: printed by an SDK, wrapped by a relay, escaped once too often. Each group of
//! [`every_kind_of_wrapping_is_read`] is a kind, and its inputs differ in everything but that; the property below wraps any
//! fixture in any chain of such forms.
#![allow(clippy::unwrap_used, reason = "in a test a panic is the report")]

#[path = "support/line.rs"]
mod line;

#[path = "readings/answers.rs"]
mod answers;
#[path = "readings/faults.rs"]
mod faults;
#[path = "readings/kinds.rs"]
mod kinds;
#[path = "readings/languages.rs"]
mod languages;
#[path = "readings/logs.rs"]
mod logs;
#[path = "readings/relays.rs"]
mod relays;
#[path = "readings/servers.rs"]
mod servers;
#[path = "readings/services.rs"]
mod services;
#[path = "readings/words.rs"]
mod words;
#[path = "readings/wrapped.rs"]
mod wrapped;
#[path = "readings/wrappings.rs"]
mod wrappings;
