//! How one kind of failure is retried.

use super::backoff::Backoff;

/// How one kind of failure is retried.
///
/// ```
/// use std::time::Duration;
/// use tower_gemini::Kind;
/// use tower_gemini::retry::{Backoff, RetryPolicy, Schedule};
///
/// # fn main() -> Result<(), tower_gemini::retry::ConfigError> {
/// // A batch job would rather wait a minute for the model it wants.
/// let slow = Backoff::new(Duration::from_secs(20), Duration::from_secs(60));
/// let policy = RetryPolicy::builder().schedule(Kind::Overloaded, Schedule::new(5, slow)).build()?;
/// # let _ = policy; Ok(()) }
/// ```
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Schedule {
    /// `None` is as many as the policy has.
    pub(super) attempts: Option<u32>,
    pub(super) backoff: Backoff,
}

impl Schedule {
    /// This kind ends a request that has had `attempts` in all, the first and those of other kinds included,
    /// even where the policy has more. 1 never retries it.
    #[must_use]
    pub const fn new(attempts: u32, backoff: Backoff) -> Self {
        Self { attempts: Some(attempts), backoff }
    }

    /// As many attempts as the policy has, with this backoff.
    #[must_use]
    pub const fn waiting(backoff: Backoff) -> Self {
        Self { attempts: None, backoff }
    }
}
