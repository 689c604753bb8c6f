//! What second tries are cloned from.

use std::sync::{Mutex, OnceLock};

use crate::lock::lock;

/// What second tries are cloned from. Here and not in each call, because nearly all calls need none.
pub(super) struct Spare<S>(pub(super) OnceLock<Mutex<S>>);

impl<S: Clone> Spare<S> {
    /// A service for one second try, not polled ready.
    #[cold]
    pub(super) fn service(&self) -> S {
        let spare = self.0.get().expect("it was made before the first try");
        // NOTE: a user's code, `clone`, runs under this lock. Nothing else is behind it, and only second tries take it.
        lock(spare).clone()
    }
}
