//! What a call keeps of its request.

use std::sync::Arc;

use super::config::Settings;
use super::store::Key;
use crate::request::TargetKey;

/// What is remembered of a request with a key.
pub(super) struct Asked {
    pub(super) key: Key,
    /// For the observer, where there is one.
    pub(super) target: Option<TargetKey>,
    pub(super) settings: Arc<Settings>,
}
