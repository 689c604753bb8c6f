//! To look at what a layer knows, and to change it while it works.

use std::fmt;
use std::sync::Arc;
use std::time::Duration;

use tokio::time::Instant;

use super::decision::Spent;
use super::error::RateLimited;
use super::gate::Key;
use super::shared::Shared;
use super::snapshot::{Restored, Snapshot, SnapshotError};
use super::spans::SpanState;
use super::window::Nanos;
use crate::error::ConfigError;
use crate::event::RateLimitReason;
use crate::request::Target;
use crate::request::limits::{LimitKind, Limits, Unit};
use crate::request::quota_key::QuotaKey;
use crate::sync::lock;

/// A handle to the quotas of a [`RateLimitLayer`](super::RateLimitLayer). Cheap to clone; outlives the layer.
///
/// ```
/// use tower_gemini::rate_limit::{Limits, RateLimitLayer};
///
/// # #[tokio::main(flavor = "current_thread")] async fn main() -> Result<(), tower_gemini::ConfigError> {
/// let layer = RateLimitLayer::default();
/// let quotas = layer.handle();
/// quotas.set_model_limits("gemini-3.5-flash", Limits::new().requests_per_minute(1_000))?;
/// for status in quotas.status() {
///     println!("{status}");
/// }
/// # Ok(()) }
/// ```
#[derive(Clone)]
pub struct RateLimits {
    shared: Arc<Shared>,
}

impl RateLimits {
    pub(super) const fn new(shared: Arc<Shared>) -> Self {
        Self { shared }
    }

    #[cfg(all(test, not(tower_gemini_loom)))]
    pub(super) fn shared(&self) -> &Shared {
        &self.shared
    }

    /// Every key that the layer has met and not forgotten, in the order of their names.
    #[must_use]
    pub fn status(&self) -> Vec<QuotaStatus> {
        let mut all: Vec<_> = self.shared.keys.all().iter().map(|(_, key)| QuotaStatus::of(key)).collect();
        all.sort_by_cached_key(|status| status.key.to_string());
        all
    }

    /// One key; `None` where the layer has not met it.
    #[must_use]
    pub fn status_of(&self, key: &QuotaKey) -> Option<QuotaStatus> {
        self.shared.keys.peek(key).map(|key| QuotaStatus::of(&key))
    }

    /// The error of a request for this target whose quota is spent: of the day, of another long period, or zero.
    /// `None` while it may go, also after a wait. Charges nothing.
    pub(crate) fn turns_away(&self, target: &Target<'_>) -> Option<RateLimited> {
        let key = self.shared.keys.peek(&self.shared.id_of(target))?;
        let now = key.common().now();
        let (dimension, Spent { reset }) = key.with_state(now, |scheduler| scheduler.ledger.spent(now))?;
        let why = if reset.is_none() { RateLimitReason::Zero } else { RateLimitReason::Spent };
        Some(RateLimited::new(
            Arc::clone(key.id()),
            why,
            dimension,
            reset.and_then(|reset| key.common().instant(reset)),
        ))
    }

    /// Whether a call for this target would wait or be at the expense of others: a door is closed, somebody waits, or so
    /// many tenths of a limit are used. Charges nothing.
    pub(crate) fn is_short(&self, target: &Target<'_>, tenths: u64) -> bool {
        let Some(key) = self.shared.keys.peek(&self.shared.id_of(target)) else { return false };
        let status = QuotaStatus::of(&key);
        let is_near = |used: u64, limit: Option<u64>| {
            limit.is_some_and(|limit| used.saturating_mul(10) >= limit.saturating_mul(tenths))
        };
        !status.closed.is_empty()
            || status.queued > 0
            || is_near(status.requests, status.limits.rpm)
            || is_near(status.tokens, status.limits.tpm)
            || is_near(status.requests_today, status.limits.rpd)
    }

    /// Sets the limits of each model that has none of its own, also while requests wait: they go, or are refused, by
    /// the new ones at once. What 429s have taught of those models is forgotten.
    ///
    /// # Errors
    ///
    /// When a limit is out of its range; then nothing is changed.
    pub fn set_limits(&self, limits: Limits) -> Result<(), ConfigError> {
        self.shared.check(&limits)?;
        lock(&self.shared.config).limits = limits;
        self.apply(|key| {
            let model = key.target().model();
            model.is_none_or(|model| !lock(&self.shared.config).by_model.contains_key(model))
        });
        Ok(())
    }

    /// Sets the limits of one model, as [`set_limits`](Self::set_limits) does.
    ///
    /// # Errors
    ///
    /// When a limit is out of its range; then nothing is changed.
    pub fn set_model_limits(&self, model: impl Into<Box<str>>, limits: Limits) -> Result<(), ConfigError> {
        self.shared.check(&limits)?;
        let model = model.into();
        lock(&self.shared.config).by_model.insert(model.clone(), limits);
        self.apply(|key| key.target().model() == Some(&*model));
        Ok(())
    }

    fn apply(&self, concerns: impl Fn(&QuotaKey) -> bool) {
        for (id, key) in self.shared.keys.all() {
            if id.pool().is_model_work() && concerns(&id) {
                let limits = lock(&self.shared.config).limits_of(&id);
                key.configure(limits);
            }
        }
    }

    /// How the store of the fleet does; `None` where the layer has no [store](super::RateLimitBuilder::store).
    #[cfg(feature = "fleet")]
    #[cfg_attr(docsrs, doc(cfg(feature = "fleet")))]
    #[must_use]
    pub fn store(&self) -> Option<super::StoreHealth> {
        self.shared.common.fleet.as_ref().map(super::fleet::Joined::health)
    }

    /// Opens every door that a 429 has closed for this key, without waiting for a probe: the bill was paid.
    /// Nothing happens for a key that the layer has not met.
    pub fn reopen(&self, key: &QuotaKey) {
        let Some(key) = self.shared.keys.peek(key) else { return };
        let now = key.common().now();
        key.with_state(now, |scheduler| {
            scheduler.ledger.reopen();
            scheduler.advance(now);
        });
    }

    /// The day's counts, to be saved before the process ends. See [`Snapshot`].
    #[must_use]
    pub fn snapshot(&self) -> Snapshot {
        Snapshot::take(&self.shared)
    }

    /// Adds the counts of an earlier process to those of today. Live counts stay, and restoring the same snapshot
    /// twice counts once.
    ///
    /// # Errors
    ///
    /// When the snapshot is of another form or version; then nothing is changed. Counts of another day are no error:
    /// [`Restored`] says how many were left out.
    pub fn restore(&self, snapshot: &Snapshot) -> Result<Restored, SnapshotError> {
        snapshot.restore(&self.shared)
    }
}

/// How many quotas `Debug` shows.
const MAX_PRINTED: usize = 16;

impl fmt::Debug for RateLimits {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let all = self.status();
        let is_of_note = |status: &&QuotaStatus| status.queued > 0 || !status.closed.is_empty();
        let of_note = all.iter().filter(is_of_note).take(MAX_PRINTED).map(ToString::to_string);
        f.debug_struct("RateLimits")
            .field("keys", &all.len())
            .field("waiting_or_closed", &of_note.collect::<Vec<_>>())
            .finish_non_exhaustive()
    }
}

/// The window of a limit over a span, at one instant.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub struct SpanStatus {
    /// What it counts.
    pub unit: Unit,
    /// The span, without the guard.
    pub span: Duration,
    /// What is in it: what answers said, and estimates for calls that are still under way.
    pub used: u64,
    /// The limit, after the margin.
    pub limit: u64,
}

impl SpanStatus {
    fn of(state: SpanState, guard: Nanos) -> Self {
        let span = Duration::from_nanos(state.length.saturating_sub(guard));
        Self { unit: state.unit, span, used: state.used, limit: state.limit }
    }
}

/// One key at one instant. `Display` is one line for a person.
#[derive(Clone, Debug)]
#[non_exhaustive]
pub struct QuotaStatus {
    /// Whose quota.
    pub key: QuotaKey,
    /// The limits in force: the configured and learnt ones, after the margin.
    pub limits: Limits,
    /// Requests in the window of 60 s and guard.
    pub requests: u64,
    /// Input tokens in that window: what answers said, and estimates for calls that are still under way.
    pub tokens: u64,
    /// Requests of the Pacific day, as far as this layer knows.
    pub requests_today: u64,
    /// What the windows of the limits [over a span](Limits::per) hold.
    pub spans: Vec<SpanStatus>,
    /// Calls that were admitted and whose answers have not ended: what is reserved.
    pub in_flight: u64,
    /// Requests that wait.
    pub queued: usize,
    /// When the first of them may go, if nothing changes.
    pub next_admission: Option<Instant>,
    /// The doors that 429s closed, and until when; `None` where nobody knows.
    pub closed: Vec<(LimitKind, Option<Instant>)>,
    /// Tokens of the answers per estimated token, the deviation included: what estimates are multiplied by.
    pub correction: f32,
    /// Calls that were ever admitted.
    pub admitted: u64,
    /// Of them, those that were answered or cut off, and are settled.
    pub settled: u64,
    /// Of them, those that were given back because they were never sent.
    pub not_sent: u64,
    /// Of them, those that Google refused with a 429.
    pub too_many: u64,
    /// The fleet that shares this quota; `None` where the layer has no [store](super::RateLimitBuilder::store).
    #[cfg(feature = "fleet")]
    #[cfg_attr(docsrs, doc(cfg(feature = "fleet")))]
    pub fleet: Option<super::FleetStatus>,
}

impl QuotaStatus {
    fn of(key: &Key) -> Self {
        let now = key.common().now();
        key.with_state(now, |scheduler| {
            let now = scheduler.ledger.look(now);
            let (ledger, common) = (&scheduler.ledger, key.common());
            let counts = ledger.counts();
            let closed = ledger.closed(now).map(|(dimension, closed)| {
                (dimension, common.instant(closed.until).filter(|_| !closed.zero))
            });
            Self {
                key: QuotaKey::clone(key.id()),
                limits: ledger.limits(),
                requests: ledger.window().requests(),
                tokens: ledger.window().tokens(),
                spans: ledger
                    .spans()
                    .into_iter()
                    .map(|one| SpanStatus::of(one, common.rules.guard))
                    .collect(),
                requests_today: ledger.today().map_or(0, |(_, count)| count),
                in_flight: counts.admitted - counts.settled - counts.not_sent - counts.too_many,
                queued: scheduler.queued(),
                next_admission: scheduler.next().and_then(|next| common.instant(next)),
                closed: closed.collect(),
                correction: ledger.ratio().factor(),
                admitted: counts.admitted,
                settled: counts.settled,
                not_sent: counts.not_sent,
                too_many: counts.too_many,
                #[cfg(feature = "fleet")]
                fleet: ledger.supply.as_ref().map(|supply| super::FleetStatus::of(supply.known(now))),
            }
        })
    }
}

impl fmt::Display for QuotaStatus {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let of = |f: &mut fmt::Formatter<'_>, used: u64, limit: Option<u64>, unit: &str| match limit {
            Some(limit) => write!(f, ", {used} of {limit} {unit}"),
            None => write!(f, ", {used} {unit}"),
        };
        write!(f, "{}", self.key)?;
        of(f, self.requests, self.limits.rpm, "requests a minute")?;
        of(f, self.tokens, self.limits.tpm, "input tokens a minute")?;
        of(f, self.requests_today, self.limits.rpd, "requests today")?;
        for one in &self.spans {
            write!(f, ", {} of {} {} in {:?}", one.used, one.limit, one.unit, one.span)?;
        }
        write!(f, ", {} in flight, {} queued", self.in_flight, self.queued)?;
        for (dimension, _) in &self.closed {
            write!(f, ", {dimension} closed")?;
        }
        #[cfg(feature = "fleet")]
        if let Some(fleet) = &self.fleet {
            let (part, stock) = (fleet.part.requests, fleet.stock.requests);
            write!(f, ", {} in the fleet, part {part}, stock {stock}", fleet.members)?;
            if fleet.is_lost {
                f.write_str(", store lost")?;
            }
        }
        Ok(())
    }
}
