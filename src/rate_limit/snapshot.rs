//! The day's counts and learnt limits, to outlive a process.

use std::collections::HashMap;
use std::error::Error;
use std::fmt;
use std::sync::Arc;

use jiff::civil::Date;
use serde::{Deserialize, Serialize};

use super::learnt::{LearntLimits, Remembered};
use super::shared::Shared;
use crate::sync::lock;

/// The version of the form below.
const VERSION: u32 = 2;
/// The version before, which has no learnt limits.
const WITHOUT_LEARNT: u32 = 1;
/// A snapshot with more keys than any layer keeps is damaged.
const MOST_KEYS: usize = 1_000_000;

/// The counts of a Pacific day per key, and the limits that 429s have named. Serialize it with any format of serde's before the process ends, and
/// [restore](super::RateLimits::restore) it after the start of the next one, so that a daily limit of 250 is not
/// taken for a fresh one, and a limit that was learnt once is not learnt by another 429. What is restored of the latter is
/// tried and forgotten as if it had just been named.
///
/// It holds the names of models and labels, and no key.
///
/// ```
/// use tower_gemini::rate_limit::{RateLimitLayer, Snapshot};
///
/// # #[tokio::main(flavor = "current_thread")] async fn main() -> Result<(), Box<dyn std::error::Error>> {
/// let saved = serde_json::to_string(&RateLimitLayer::default().handle().snapshot())?;
/// // … the process ends, another one starts …
/// let layer = RateLimitLayer::default();
/// let restored = layer.handle().restore(&serde_json::from_str::<Snapshot>(&saved)?)?;
/// assert_eq!(restored.stale, 0);
/// # Ok(()) }
/// ```
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Snapshot {
    version: u32,
    /// The layer that it was taken from.
    source: u64,
    keys: Vec<Saved>,
}

#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
struct Saved {
    key: String,
    /// The Pacific date, `2026-11-21`.
    date: String,
    requests: u64,
    /// The limits that 429s have named, as they stand: requests a minute, input tokens a minute, requests a day.
    #[serde(default, skip_serializing_if = "nothing")]
    learnt: LearntLimits,
}

fn nothing(learnt: &LearntLimits) -> bool {
    learnt.iter().all(Option::is_none)
}

/// What became of a snapshot's counts.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
#[non_exhaustive]
pub struct Restored {
    /// Keys whose count is in force, or will be as soon as they are met.
    pub keys: usize,
    /// Keys whose count is of another day, and was left out. What they have learnt was not.
    pub stale: usize,
}

/// A snapshot that cannot be restored.
#[derive(Clone, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub enum SnapshotError {
    /// Of a version that this crate does not know.
    #[non_exhaustive]
    Version {
        /// The version that it names.
        found: u32,
    },
    /// A date, a count or the number of keys is none that was ever saved.
    #[non_exhaustive]
    Damaged {
        /// The key, as it stands in the snapshot; empty where it is about all of them.
        key: String,
        /// The member that is wrong: `date`, `requests`, `learnt`, `key` or `keys`.
        field: &'static str,
    },
}

impl fmt::Display for SnapshotError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Version { found } => {
                write!(f, "the snapshot has version {found}, and only version {VERSION} can be restored")
            }
            Self::Damaged { key, field } if key.is_empty() => {
                write!(f, "the snapshot is damaged: its `{field}`")
            }
            Self::Damaged { key, field } => write!(f, "the snapshot is damaged: `{field}` of `{key}`"),
        }
    }
}

impl Error for SnapshotError {}

impl Snapshot {
    pub(super) fn take(shared: &Shared) -> Self {
        let mut saved: HashMap<String, Remembered> = lock(&shared.config).restored.clone();
        for (id, key) in shared.keys.all() {
            let now = key.common().now();
            let (today, learnt) =
                key.with_state(now, |scheduler| (scheduler.ledger.today(), scheduler.ledger.learnt()));
            if let Some((date, requests)) = today {
                saved.insert(id.to_string(), Remembered { date, requests, learnt });
            }
        }
        let mut keys: Vec<Saved> = saved
            .into_iter()
            .filter(|(_, of)| of.requests > 0 || !nothing(&of.learnt))
            .map(|(key, Remembered { date, requests, learnt })| Saved {
                key,
                date: date.to_string(),
                requests,
                learnt,
            })
            .collect();
        keys.sort_by(|a, b| a.key.cmp(&b.key));
        Self { version: VERSION, source: shared.id, keys }
    }

    pub(super) fn restore(&self, shared: &Arc<Shared>) -> Result<Restored, SnapshotError> {
        if ![WITHOUT_LEARNT, VERSION].contains(&self.version) {
            return Err(SnapshotError::Version { found: self.version });
        }
        let dates = self.check()?;
        let mut restored = Restored::default();
        if self.source == shared.id {
            // Its counts are here already.
            restored.keys = self.keys.len();
            return Ok(restored);
        }
        let common = &shared.common;
        let today = common.day(common.now()).date;
        let known: HashMap<String, _> =
            shared.keys.all().into_iter().map(|(id, key)| (id.to_string(), key)).collect();
        for (saved, date) in self.keys.iter().zip(dates) {
            let is_stale = date != today;
            if is_stale {
                restored.stale += 1;
            } else {
                restored.keys += 1;
            }
            if is_stale && nothing(&saved.learnt) {
                continue;
            }
            // A count of another day is none of today's.
            let requests = if is_stale { 0 } else { saved.requests };
            let of = Remembered { date: today, requests, learnt: saved.learnt };
            lock(&shared.config).restored.insert(saved.key.clone(), of);
            if let Some(key) = known.get(&saved.key) {
                let now = common.now();
                key.with_state(now, |scheduler| {
                    scheduler.ledger.restore(requests);
                    scheduler.ledger.restore_learnt(now, saved.learnt);
                    scheduler.advance(now);
                });
            }
        }
        Ok(restored)
    }

    /// Looks at everything before anything is changed.
    fn check(&self) -> Result<Vec<Date>, SnapshotError> {
        let damaged = |key: &str, field| SnapshotError::Damaged { key: key.to_owned(), field };
        if self.keys.len() > MOST_KEYS {
            return Err(damaged("", "keys"));
        }
        let mut seen = std::collections::HashSet::new();
        self.keys
            .iter()
            .map(|saved| {
                if saved.key.is_empty() || saved.key.len() > 1024 || !seen.insert(&*saved.key) {
                    return Err(damaged(&saved.key, "key"));
                }
                if saved.requests > 1 << 40 {
                    return Err(damaged(&saved.key, "requests"));
                }
                if saved.learnt.iter().flatten().any(|limit| !(1..=1 << 40).contains(limit)) {
                    return Err(damaged(&saved.key, "learnt"));
                }
                saved.date.parse::<Date>().map_err(|_| damaged(&saved.key, "date"))
            })
            .collect()
    }
}
