//! The one way to take a lock of the standard library. Locks that loom goes through are in `sync`.

use std::sync::{Mutex, MutexGuard, PoisonError};

/// Locks, also where another thread panicked while it held the lock.
///
/// NOTE: what is kept under a lock in this crate is whole between any two statements that could panic, and of a
/// user's code nothing runs under one but `clone` (of a waker; of the service that retries are cloned from), so a
/// poisoned lock is no reason to give up the counts behind it.
pub(crate) fn lock<T: ?Sized>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}
