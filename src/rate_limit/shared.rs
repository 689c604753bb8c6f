//! What all services of one layer share: the states per key, and the settings.

use std::collections::HashMap;
use std::fmt;
use std::sync::Arc;

use super::common::Common;
use super::gate::Key;
use super::learnt::Remembered;
use crate::error::ConfigError;
use crate::keyed::Keyed;
use crate::request::limits::Limits;
use crate::request::quota_key::{Pool, QuotaKey};
use crate::request::{Target, TargetKey};
#[cfg(feature = "fleet")]
use crate::sync::Ordering;
use crate::sync::{Mutex, lock};

pub(super) type KeyBy = Arc<dyn Fn(&Target<'_>) -> TargetKey + Send + Sync>;
/// The state of one layer.
pub(super) struct Shared {
    pub(super) common: Arc<Common>,
    pub(super) keys: Keyed<QuotaKey, Key>,
    pub(super) config: Mutex<Config>,
    pub(super) key_by: Option<KeyBy>,
    /// Whether service tiers have quotas of their own.
    pub(super) by_tier: bool,
    pub(super) enabled: bool,
    /// Tells snapshots of this layer from those of another one.
    pub(super) id: u64,
}

/// What may change at run time.
#[derive(Clone, Debug, Default)]
pub(super) struct Config {
    pub(super) limits: Limits,
    pub(super) by_model: HashMap<Box<str>, Limits>,
    /// Counts of a snapshot for keys that have not been met yet.
    pub(super) restored: HashMap<String, Remembered>,
}

impl Config {
    /// The limits that were set for this key.
    pub(super) fn limits_of(&self, key: &QuotaKey) -> Limits {
        if !key.pool().is_model_work() {
            return Limits::new();
        }
        let own = key.target().model().and_then(|model| self.by_model.get(model));
        own.copied().unwrap_or(self.limits)
    }
}

impl Shared {
    /// Whether these limits can be kept.
    pub(super) fn check(&self, limits: &Limits) -> Result<(), ConfigError> {
        limits.check()?;
        self.common.check(limits)
    }

    /// The state of a target's key.
    pub(super) fn key_of(&self, target: &Target<'_>) -> Arc<Key> {
        let key = self.keys.get(self.id_of(target), |key| {
            let config = lock(&self.config);
            let restored = config.restored.get(&key.to_string()).copied();
            Key::new(Arc::clone(&self.common), key.clone(), config.limits_of(key), restored)
        });
        #[cfg(feature = "fleet")]
        self.join_fleet(&key);
        key
    }

    /// Gives a key that is met for the first time its part in the fleet. One that is not kept, because all others are
    /// needed, has none: nobody would ask the store for it.
    #[cfg(feature = "fleet")]
    fn join_fleet(&self, key: &Arc<Key>) {
        let Some(joined) = self.common.fleet.as_ref().filter(|_| key.id.pool() != Pool::Unlimited) else {
            return;
        };
        if key.is_met.load(Ordering::Relaxed) {
            return;
        }
        if self.keys.peek(&key.id).is_some_and(|kept| Arc::ptr_eq(&kept, key)) {
            let limits = lock(&self.config).limits_of(&key.id);
            key.with_state(self.common.now(), |scheduler| {
                // Another call may have been quicker.
                if scheduler.ledger.supply.is_none() {
                    let quota = scheduler.ledger.quota(limits);
                    scheduler.ledger.join(joined.supply(&key.id, quota));
                    joined.join_spans(&key.id, &mut scheduler.ledger);
                }
            });
        }
        key.is_met.store(true, Ordering::Relaxed);
    }

    pub(super) fn id_of(&self, target: &Target<'_>) -> QuotaKey {
        match &self.key_by {
            None if self.by_tier => QuotaKey::of(target).of_tier(target.tier()),
            None => QuotaKey::of(target),
            Some(by) if self.by_tier => QuotaKey::new(Pool::of(target.method()), by(target)),
            Some(by) => QuotaKey::new(Pool::of(target.method()), by(target).without_tier()),
        }
    }
}

#[cfg(feature = "fleet")]
impl Drop for Shared {
    fn drop(&mut self) {
        if let Some(joined) = &self.common.fleet {
            joined.leave(self);
        }
    }
}

impl fmt::Debug for Shared {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("RateLimits").field("keys", &self.keys).finish_non_exhaustive()
    }
}
