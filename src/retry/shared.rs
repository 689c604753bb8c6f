//! What the calls of one service share.

use std::sync::{Arc, Mutex, OnceLock};

use super::config::Settings;
use crate::lock::lock;

/// What the calls of one service share, and what it shares with its clones.
///
/// One for each clone, and on a cache line of its own, because each call counts a reference to it: of one for all clones, two
/// threads with a clone each would fight for the count at every call.
#[repr(align(64))]
pub(super) struct Shared<S> {
    pub(super) settings: Arc<Settings>,
    /// What further attempts are cloned from. Here and not in each call, because nearly all calls need no further
    /// attempt, and a clone of a stack is a dozen atomic operations and half a kilobyte.
    pub(super) spare: Arc<OnceLock<Mutex<S>>>,
}

impl<S> Shared<S> {
    pub(super) fn new(settings: Arc<Settings>) -> Arc<Self> {
        Arc::new(Self { settings, spare: Arc::default() })
    }
}

impl<S: Clone> Shared<S> {
    /// A service for the further attempts of one call, not polled ready.
    #[cold]
    pub(super) fn service(&self) -> Box<S> {
        let spare = self.spare.get().expect("it was made before the first attempt");
        // NOTE: a user's code, `clone`, runs under this lock. Nothing else is behind it, and only retries take it.
        Box::new(lock(spare).clone())
    }
}
