use std::error::Error;
use std::fmt;
use std::sync::Arc;

use crate::error::BoxError;

/// The failure of a call that several requests shared.
///
/// Behind it, as `source()`, is the inner service's error, which all of them share: [`error::find`](crate::error::find) finds it, and
/// [`Verdict::from_error`](crate::Verdict::from_error) judges it as if it were alone. Where one request is left when the call fails, that one is given
/// the error itself.
#[derive(Clone, Debug)]
pub struct SharedError {
    source: Arc<BoxError>,
}

impl SharedError {
    pub(super) const fn new(source: Arc<BoxError>) -> Self {
        Self { source }
    }
}

impl fmt::Display for SharedError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("coalesce: a call that several requests share has failed")
    }
}

impl Error for SharedError {
    fn source(&self) -> Option<&(dyn Error + 'static)> {
        let source: &BoxError = &self.source;
        Some(&**source)
    }
}

/// A reader of a shared body was so far behind the fastest one that the bytes between them were no longer kept.
///
/// The others read on. What was read until then is a true beginning of the answer. Raise
/// [`max_bytes`](super::CoalesceBuilder::max_bytes), or read faster.
#[derive(Clone, Debug)]
pub struct FellBehind {
    bytes: usize,
}

impl FellBehind {
    pub(super) const fn new(bytes: usize) -> Self {
        Self { bytes }
    }

    /// How many bytes were held for it when it lost its place.
    #[must_use]
    pub const fn bytes(&self) -> usize {
        self.bytes
    }
}

impl fmt::Display for FellBehind {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let bytes = self.bytes;
        write!(
            f,
            "coalesce: read {bytes} bytes slower than another reader of the same answer: raise `max_bytes`, or read faster"
        )
    }
}

impl Error for FellBehind {}

/// The inner service, or the body of its answer, panicked while it was polled for several requests.
#[derive(Clone, Debug)]
pub struct CallLost {
    pub(super) _private: (),
}

impl fmt::Display for CallLost {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("coalesce: the shared call panicked")
    }
}

impl Error for CallLost {}
