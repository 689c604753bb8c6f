//! A body that can be sent again, around one that cannot be cloned.
//!
//! `body` has the copies and their turns, `tape` (pure) the kept frames, `handle` what other layers may ask, `layer` the
//! layer. The promises are written at [`ReplayBody`], when to use it at [`ReplayLayer`].

mod body;
mod error;
mod handle;
mod layer;
mod tape;

pub use body::ReplayBody;
pub use error::{LostReason, ReplayLost, Superseded};
pub use handle::Replay;
pub(crate) use handle::Upload;
pub use layer::{ReplayLayer, ReplayService};

/// 32 MiB: more than the 20 MB that inline data was long limited to, and still a bearable sum over a
/// hundred requests in flight.
const DEFAULT_MAX_BYTES: usize = 32 * 1024 * 1024;
