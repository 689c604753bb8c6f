//! What all services of a layer share.

use std::fmt;
use std::sync::Arc;

use tokio::time::Instant;

use super::config::Settings;
use super::evidence::{Evidence, Nanos, nanos};
use super::report::HeldBack;
use crate::keyed::{Keyed, Need, State};
use crate::lock::lock;
use crate::request::{Method, Target, TargetKey};
use crate::time;

/// What all services of a layer share.
pub(super) struct Shared {
    pub(super) settings: Settings,
    pub(super) keys: Keyed<Id, Key>,
    pub(super) epoch: Instant,
}

impl Shared {
    pub(super) fn of_target(&self, target: &Target<'_>) -> Arc<Key> {
        let id = Id { target: target.key(), method: target.method() };
        self.keys.get(id, |id| Key { id: id.clone(), evidence: std::sync::Mutex::new(Evidence::new()) })
    }

    pub(super) fn now(&self) -> Nanos {
        nanos(time::now().saturating_duration_since(self.epoch))
    }

    /// What the handles of layers inside have against a second try.
    pub(super) fn warned(&self, target: &Target<'_>) -> Option<HeldBack> {
        let settings = &self.settings;
        if settings.circuits.as_ref().is_some_and(|circuits| !circuits.is_well(target)) {
            return Some(HeldBack::Circuit);
        }
        if settings.concurrency.as_ref().is_some_and(|gates| gates.is_limited(target)) {
            return Some(HeldBack::Concurrency);
        }
        let is_short = settings.rate_limits.as_ref().is_some_and(|limits| limits.is_short(target, 9));
        is_short.then_some(HeldBack::Quota)
    }
}

impl fmt::Debug for Shared {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Shared")
            .field("settings", &self.settings)
            .field("keys", &self.keys)
            .finish_non_exhaustive()
    }
}

/// Whose answers are alike.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub(super) struct Id {
    pub(super) target: TargetKey,
    pub(super) method: Method,
}

pub(super) struct Key {
    pub(super) id: Id,
    evidence: std::sync::Mutex<Evidence>,
}

impl Key {
    pub(super) fn with<T>(&self, act: impl FnOnce(&mut Evidence) -> T) -> T {
        act(&mut lock(&self.evidence))
    }
}

impl State for Key {
    fn is_idle(&self) -> bool {
        self.with(|evidence| evidence.calls() == 0)
    }

    // A call under way holds the key; beside that there are counts alone.
    fn need(&self) -> Need {
        if self.is_idle() { Need::Nothing } else { Need::Counts }
    }
}
