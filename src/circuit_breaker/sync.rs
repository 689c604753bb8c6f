//! What the gate is made of: the standard library's, or the model checker's.
//!
//! `RUSTFLAGS="--cfg tower_gemini_loom" cargo test --release --lib loom_` runs the models. The name is the crate's own
//! and not `loom`, which tokio and others read as well and then leave out what the clients need.

#[cfg(not(tower_gemini_loom))]
pub(super) use std::sync::{
    Mutex, MutexGuard,
    atomic::{AtomicU64, AtomicUsize, Ordering},
};

#[cfg(not(tower_gemini_loom))]
pub(super) use crate::keyed::lock;

#[cfg(tower_gemini_loom)]
pub(super) use loom::sync::{
    Mutex, MutexGuard,
    atomic::{AtomicU64, AtomicUsize, Ordering},
};

#[cfg(tower_gemini_loom)]
pub(super) fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(std::sync::PoisonError::into_inner)
}
