//! Locks and atomics of what the model checker goes through: the standard library's, or its own.
//!
//! The circuit breaker's gate, the rate limit's key and the retry budget are made of them.
//!
//! `RUSTFLAGS="--cfg tower_gemini_loom" cargo test --release --lib loom_` runs the models. The name is the crate's own
//! and not `loom`, which tokio and others read as well and then leave out what the clients need.

#[cfg(not(tower_gemini_loom))]
pub(crate) use std::sync::{
    Mutex, MutexGuard,
    atomic::{AtomicBool, AtomicU8, AtomicU32, AtomicU64, AtomicUsize, Ordering},
};

#[cfg(not(tower_gemini_loom))]
pub(crate) use crate::lock::lock;

#[cfg(tower_gemini_loom)]
pub(crate) use loom::sync::{
    Mutex, MutexGuard,
    atomic::{AtomicBool, AtomicU8, AtomicU32, AtomicU64, AtomicUsize, Ordering},
};

#[cfg(tower_gemini_loom)]
pub(crate) fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(std::sync::PoisonError::into_inner)
}
