//! Wakes everybody who waits for a shared call.

use std::sync::{Arc, Mutex};
use std::task::{Wake, Waker};

use crate::lock::lock;

/// What the inner future is polled with.
///
/// It wakes all who wait and not one of them: whoever is polled first goes on with the call, so none carries a duty for the others.
#[derive(Default)]
pub(super) struct Bell(Mutex<Ring>);

#[derive(Default)]
struct Ring {
    rung: bool,
    wakers: Vec<Option<Waker>>,
}

impl Bell {
    /// Rung, because nobody has polled yet.
    pub(super) fn new() -> Arc<Self> {
        Arc::new(Self(Mutex::new(Ring { rung: true, wakers: Vec::new() })))
    }

    /// Wakes this one with the next ring. What is returned is to be dropped outside of any lock.
    #[must_use]
    pub(super) fn register(&self, id: usize, waker: &Waker) -> Option<Waker> {
        let mut ring = lock(&self.0);
        if ring.wakers.len() <= id {
            ring.wakers.resize(id + 1, None);
        }
        match &ring.wakers[id] {
            Some(known) if known.will_wake(waker) => None,
            _ => ring.wakers[id].replace(waker.clone()),
        }
    }

    /// Takes one's waker back.
    #[must_use]
    pub(super) fn forget(&self, id: usize) -> Option<Waker> {
        lock(&self.0).wakers.get_mut(id).and_then(Option::take)
    }

    /// Whether it was rung since this was asked last.
    pub(super) fn take_rung(&self) -> bool {
        std::mem::take(&mut lock(&self.0).rung)
    }

    /// Says that there is something to poll, and wakes nobody.
    pub(super) fn mark(&self) {
        lock(&self.0).rung = true;
    }

    pub(super) fn is_rung(&self) -> bool {
        lock(&self.0).rung
    }

    /// Wakes all. No lock may be held.
    pub(super) fn wake_all(&self) {
        let wakers = std::mem::take(&mut lock(&self.0).wakers);
        wakers.into_iter().flatten().for_each(Waker::wake);
    }
}

impl Wake for Bell {
    fn wake(self: Arc<Self>) {
        self.wake_by_ref();
    }

    fn wake_by_ref(self: &Arc<Self>) {
        self.mark();
        self.wake_all();
    }
}
