//! Retry, and what a request needs to be sent again.

mod replay;

pub use replay::{LostReason, Replay, ReplayBody, ReplayLayer, ReplayLost, ReplayService, Superseded};
