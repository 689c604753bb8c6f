//! The settings of the layer, and which failures an old answer helps with.

use std::hash::RandomState;
use std::sync::Arc;
use std::sync::atomic::AtomicUsize;
use std::time::Duration;

use http::HeaderName;

use super::store::LastGoodStore;
use crate::event::Observed;
use crate::verdict::{Kind, Verdict};

pub(super) type When = Arc<dyn Fn(&Verdict) -> bool + Send + Sync>;

pub(super) struct Settings {
    pub(super) store: Arc<dyn LastGoodStore>,
    pub(super) enabled: bool,
    pub(super) max_age: Duration,
    pub(super) max_answer_bytes: usize,
    pub(super) max_reading_bytes: usize,
    pub(super) header: Option<HeaderName>,
    pub(super) when: Option<When>,
    pub(super) observer: Observed,
    /// `None` where answers are shared between credentials.
    pub(super) hashes: Option<[RandomState; 2]>,
    /// Bytes of answers that are being read along with.
    pub(super) reading: AtomicUsize,
}

impl Settings {
    pub(super) fn helps(&self, verdict: &Verdict) -> bool {
        match &self.when {
            Some(when) => when(verdict),
            None => is_no_fault_of_the_request(verdict),
        }
    }
}

/// What the [module documentation](super) lists.
fn is_no_fault_of_the_request(verdict: &Verdict) -> bool {
    match verdict.kind() {
        Some(
            Kind::RateLimited
            | Kind::QuotaExhausted
            | Kind::Overloaded
            | Kind::Unavailable
            | Kind::Internal
            | Kind::DeadlineExceeded
            | Kind::Cancelled
            | Kind::Transport
            | Kind::EmptyResponse
            | Kind::Truncated,
        ) => true,
        Some(Kind::Unknown) => verdict.http_status().is_none_or(|status| status.is_server_error()),
        _ => false,
    }
}
