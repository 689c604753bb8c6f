use std::fmt;
use std::sync::Arc;
use std::sync::atomic::{AtomicU32, Ordering};

/// How a stream is gone on with.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
#[non_exhaustive]
pub enum ResumeMode {
    /// The answer so far is the model's last turn in the further request, and goes on behind it.
    Continue,
    /// The same request is sent again; the answer begins anew.
    Restart,
}

impl ResumeMode {
    /// What is told in the stream and to observers: `continued`, `restarted`.
    #[must_use]
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Continue => "continued",
            Self::Restart => "restarted",
        }
    }
}

impl fmt::Display for ResumeMode {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.pad(self.as_str())
    }
}

#[derive(Debug, Default)]
pub(super) struct Counts {
    pub(super) times: AtomicU32,
    pub(super) billed: AtomicU32,
}

/// What became of a stream, in the response's extensions. Grows while the body is read; cheap to clone.
#[derive(Clone, Debug)]
pub struct Resumed {
    pub(super) mode: ResumeMode,
    pub(super) counts: Arc<Counts>,
}

impl Resumed {
    pub(super) fn new(mode: ResumeMode) -> Self {
        Self { mode, counts: Arc::default() }
    }

    /// That of a response that may be gone on with; `None` for others.
    #[must_use]
    pub fn of<R: crate::AnyResponse>(response: &R) -> Option<Self> {
        response.extensions().get().cloned()
    }

    /// How it is gone on with.
    #[must_use]
    pub const fn mode(&self) -> ResumeMode {
        self.mode
    }

    /// How often so far. Grows with the frame that has the comment: after a frame after which it has grown, what came before is to be thrown away, if
    /// the mode is [`Restart`](ResumeMode::Restart).
    #[must_use]
    pub fn times(&self) -> u32 {
        self.counts.times.load(Ordering::Acquire)
    }

    /// Calls that were billed, or may have been, beside the one that ended the answer: those that broke off, and the failed attempts within each
    /// ([`Attempts::billed`](crate::retry::Attempts::billed)).
    #[must_use]
    pub fn billed(&self) -> u32 {
        self.counts.billed.load(Ordering::Acquire)
    }

    pub(super) fn add_billed(&self, calls: u32) {
        self.counts.billed.fetch_add(calls, Ordering::AcqRel);
    }
}
