//! How many retries may be made in all: a bucket of tokens that successes fill.
//!
//! A plain attempt limit multiplies the load of an outage by the limit. A budget bounds it by evidence: each retry takes
//! tokens out, a request that succeeds in the end gets all of its own back and pays [`per_success`](Budget::per_success)
//! on top, and one that fails has lost them. So retries that help are free, and retries that do not help run out; with
//! none left the failure is handed on at once.
//!
//! # What it bounds
//!
//! With nothing that succeeds, all retries together are at most [`cap`](Budget::cap) and, by default, 30 a minute
//! ([`least_per_minute`](Budget::least_per_minute)). Where a server answers with a
//! steady goodput however much is asked, the attempts of requests that fail in the end are, beyond their first ones, at
//! most `d` for each answer. A retry after a timeout takes two tokens, since nobody knows whether the server is
//! still at work on what was given up: of those there are at most `d / 2`.
//!
//! # In advance
//!
//! A refusal comes at once and an answer may take a minute, so at a cold start, or when errors begin, failures are all that
//! is known. Attempts under way have not been refused, so what they will pay in is lent until they end: `per_success` for
//! each of them, times the share of those that have not failed. Where everything fails at once that share goes to zero. A
//! timeout ends the credit until answers have come: a server that hangs looks the same as one that is at work. Nothing is lent
//! for retries of timeouts, and for late attempts.
//!
//! An empty budget never makes anybody wait: no success could fill it while a sequential caller sleeps on it.

use std::collections::HashMap;
use std::fmt;
use std::hash::BuildHasherDefault;
use std::sync::Arc;
use std::time::Duration;

use tokio::time::Instant;

use super::ConfigError;
use crate::config::BudgetConfig;
use crate::seen::Identity;
use crate::sync::{AtomicUsize, Mutex, MutexGuard, Ordering, lock};

/// Thousandths of a token, so that shares of one add up exactly.
pub(super) type Milli = u32;
const TOKEN: Milli = 1000;
/// Retries a minute for which nobody has to pay, by default.
const LEAST_PER_MINUTE: u32 = 30;
const MINUTE: Duration = Duration::from_secs(60);
/// Keys that are short of tokens at the same time. Beyond that the fuller half of them counts as full.
const MAX_KEYS: usize = 1024;

/// What a retry costs, and from which level on it may be had.
#[derive(Clone, Copy, Debug, PartialEq)]
pub(super) struct Charge {
    cost: Milli,
    /// Only from a bucket that is at least half full: what is left below is for requests that have tried less.
    is_late: bool,
}

impl Charge {
    /// After a failure that the server, or the way to it, told of.
    pub(super) const FAILURE: Self = Self { cost: TOKEN, is_late: false };
    /// After a timeout.
    pub(super) const TIMEOUT: Self = Self { cost: 2 * TOKEN, is_late: false };

    pub(super) const fn late(self, is_late: bool) -> Self {
        Self { is_late, ..self }
    }
}

/// A retry budget. Clones share it: give one to several layers to bound them together.
///
/// A bucket of tokens, full at the start. A retry takes one token out, and two after a timeout. A request that succeeds
/// gets all of its own back and pays [`per_success`](Self::per_success) on top; one that fails has lost them. A retry
/// that was not sent costs nothing. An attempt beyond the fifth, and a timeout's second and further retry, are made only
/// while the bucket is at least half full.
///
/// With the default of 3 a success, the bucket does not run dry while up to 80 % of all calls fail independently, or
/// 70 % time out; when nothing succeeds, all retries together are at most the bucket, and 30 a minute beyond it
/// ([`least_per_minute`](Self::least_per_minute)). In between, wasted retries are at most
/// `per_success` for each answer.
///
/// Kept apart by host and [`TargetKey`](crate::request::TargetKey), so that an outage of one model does not use up the
/// retries of another. A key whose bucket is full takes no memory; at most 1,024 others are kept. When there would be
/// more, the fuller half of them counts as full again.
///
/// ```
/// use tower_gemini::retry::{Budget, RetryPolicy};
///
/// # fn main() -> Result<(), tower_gemini::retry::ConfigError> {
/// let strict = Budget::new(10, 0.1)?;
/// let policy = RetryPolicy::builder().budget(strict.clone()).build()?;
/// # let _ = policy; Ok(()) }
/// ```
#[derive(Clone)]
pub struct Budget {
    shared: Arc<Shared>,
}

struct Shared {
    cap: Milli,
    per_success: Milli,
    /// How long after the last one that nothing paid for there is another. `None` where there are none.
    unpaid_every: Option<Duration>,
    /// Buckets that are not full: what they lack, from 1 to `cap`. A missing key has a full bucket.
    lacking: Mutex<Buckets>,
    /// `lacking.len()`, written under the lock and read without it, so that a success costs one load while all
    /// is well. Relaxed: it is a hint. A success that misses a bucket that was opened in the same moment pays
    /// nothing in, which is what it would have done a moment before.
    open: AtomicUsize,
}

/// By key, those that are not full.
type Buckets = HashMap<u64, Bucket, BuildHasherDefault<Identity>>;

/// One that is not full.
#[derive(Clone, Copy, Debug)]
struct Bucket {
    lack: Milli,
    /// The share of the last calls that succeeded, about eight of them: failures that a retry is paid for, or would have
    /// been, and successes. Forgotten when the bucket is full.
    well: f32,
    /// When a retry was last let go for which there were no tokens.
    unpaid: Option<Instant>,
    /// Attempts under way that began while the bucket was not full.
    under_way: u32,
    /// Failures, from when those began; each success takes its share of them away.
    failed: f32,
    /// How far attempts under way are trusted not to time out: not at all once one has, and then by the answers since.
    trust: f32,
    /// Timeouts in a row, without a success between, whose retries were asked for.
    late_row: u32,
}

impl Bucket {
    const FULL: Self =
        Self { lack: 0, well: 1.0, unpaid: None, under_way: 0, failed: 0.0, trust: 1.0, late_row: 0 };
    /// What one outcome weighs.
    const RECENT: f32 = 1.0 / 8.0;

    /// What attempts under way will have paid in, as far as is known. Of those that began, `failed` have failed and the
    /// others have not: that share of them is taken to succeed.
    fn advance(&self, per_success: Milli) -> Milli {
        let under_way = f64::from(self.under_way);
        let share = under_way / (under_way + f64::from(self.failed)).max(1.0);
        // At most 2³² attempts: `as` saturates.
        (f64::from(self.trust) * under_way * share * f64::from(per_success)) as Milli
    }
}

impl Budget {
    /// A budget of `cap` tokens, full at the start, into which each success pays `per_success` beyond what its own
    /// retries took.
    ///
    /// # Errors
    ///
    /// When `cap` is not from 1 to 1,000,000, or `per_success` not from 0.001 to 100 (NaN included).
    pub fn new(cap: u32, per_success: f64) -> Result<Self, ConfigError> {
        if !(1..=1_000_000).contains(&cap) {
            return Err(ConfigError::new("budget.cap", "must be from 1 to 1,000,000 tokens"));
        }
        if !(0.001..=100.0).contains(&per_success) {
            return Err(ConfigError::new(
                "budget.per_success",
                "must be from 0.001 to 100 tokens per success",
            ));
        }
        // In range by the line above, so the cast keeps the value.
        Ok(Self::of(cap * TOKEN, (per_success * f64::from(TOKEN)).round() as Milli))
    }

    fn of(cap: Milli, per_success: Milli) -> Self {
        let unpaid_every = None;
        let shared =
            Shared { cap, per_success, unpaid_every, lacking: Mutex::default(), open: AtomicUsize::new(0) };
        Self { shared: Arc::new(shared) }
    }

    /// The same settings with a full bucket for every key, and so many retries a minute for each key although its bucket
    /// does not hold what they cost: one every `60 s / retries`. From 0 (none, as made by [`new`](Self::new)) to 6,000;
    /// [`Budget::default`] has 30.
    ///
    /// A process that makes a few calls a minute to a server that is up for a few seconds at a time would else have no
    /// retries left, while the load that they are to be kept from is none. What they add to an outage is this much for
    /// each process and key. Not for timeouts, after which a server may still be at work.
    ///
    /// # Errors
    ///
    /// When `retries` is above 6,000.
    pub fn least_per_minute(&self, retries: u32) -> Result<Self, ConfigError> {
        if retries > 6_000 {
            return Err(ConfigError::new("budget.least_per_minute", "must be from 0 to 6,000"));
        }
        Ok(Self::of(self.shared.cap, self.shared.per_success).with_unpaid(retries))
    }

    /// Before it is shared.
    fn with_unpaid(mut self, retries: u32) -> Self {
        let shared = Arc::get_mut(&mut self.shared).expect("it was just made");
        shared.unpaid_every = (retries > 0).then(|| MINUTE / retries);
        self
    }

    pub(crate) fn config(&self) -> BudgetConfig {
        // Exact, for so few: the rest of the division is below one in a million.
        let least = self.shared.unpaid_every.map_or(0, |every| (MINUTE.as_nanos() / every.as_nanos()) as u32);
        BudgetConfig::of(self.cap(), self.per_success(), least)
    }

    /// The most tokens that can be saved up.
    #[must_use]
    pub fn cap(&self) -> u32 {
        self.shared.cap / TOKEN
    }

    /// Tokens that one success pays in, beyond what its own retries took.
    ///
    /// Where attempts fail independently with probability `f`, a request of at most `n` attempts fails with probability
    /// `fⁿ`, and has then lost `n - 1` tokens; it succeeds with `s = 1 - fⁿ`, and pays `d` in. The bucket holds where
    /// `(1 - s)(n - 1) <= d s`. For five attempts and ten:
    ///
    /// | `f` | 0.5 | 0.6 | 0.7 | 0.8 | 0.84 | 0.86 |
    /// |---|---|---|---|---|---|---|
    /// | least `d`, `n = 5` | 0.13 | 0.34 | 0.81 | 1.95 | 2.9 | 3.6 |
    /// | least `d`, `n = 10` | 0.01 | 0.05 | 0.26 | 1.08 | 1.9 | 2.6 |
    ///
    /// The default of 3 also covers the tokens that unfinished requests hold when such a spell begins. With the default
    /// backoff and `f = 0.8` those of age 0.5, 1.5, 3.5, 7.5 and 15.5 s (the middle of the waits) hold, by arrival a
    /// second, 0.4, 1.7, 4.8, 11 and 24 tokens in sum, and the successes until then have paid in 0.1, 0.5, 1.4, 3.8 and
    /// 9.2 times `d`: 100 tokens and `d = 3` are enough for some 200 requests a second, and `d = 2` for 40.
    #[must_use]
    pub fn per_success(&self) -> f64 {
        f64::from(self.shared.per_success) / f64::from(TOKEN)
    }

    /// Keys whose bucket is not full at the moment.
    #[must_use]
    pub fn keys_short(&self) -> usize {
        self.shared.open.load(Ordering::Relaxed)
    }

    fn lock(&self) -> MutexGuard<'_, Buckets> {
        lock(&self.shared.lacking)
    }

    /// Whether every bucket is full: then no key needs to be worked out.
    #[inline]
    pub(super) fn is_full(&self) -> bool {
        self.shared.open.load(Ordering::Relaxed) == 0
    }

    /// Whether no retry can be had, of whatever charge and however late.
    pub(super) fn is_empty(&self, key: u64) -> bool {
        if self.is_full() || self.shared.unpaid_every.is_some() {
            return false;
        }
        let Shared { cap, per_success, .. } = *self.shared;
        self.lock().get(&key).is_some_and(|bucket| {
            cap.saturating_add(bucket.advance(per_success)).saturating_sub(bucket.lack) < TOKEN
        })
    }

    /// Whether enough of this key's last calls have succeeded that a failure is likely to be chance, as far as is known:
    /// the failure at hand is not counted, and a full bucket is well.
    pub(super) fn is_well(&self, key: u64) -> bool {
        const WELL: f32 = 0.4;
        self.is_full() || self.lock().get(&key).is_none_or(|bucket| bucket.well >= WELL)
    }

    /// How many calls of this key in a row timed out, with no success between, and asked for a retry.
    pub(super) fn late_row(&self, key: u64) -> u32 {
        if self.is_full() { 0 } else { self.lock().get(&key).map_or(0, |bucket| bucket.late_row) }
    }

    /// An attempt begins, which counts while this key's bucket is not full.
    pub(super) fn begin(&self, key: u64) -> UnderWay {
        if self.is_full() {
            return UnderWay(None);
        }
        let mut lacking = self.lock();
        let counted = lacking.get_mut(&key).map(|bucket| bucket.under_way += 1);
        UnderWay(counted.map(|()| (self.clone(), key)))
    }

    /// A request has succeeded: pays in, and gives back what its retries took.
    pub(super) fn deposit(&self, key: u64, taken: Milli) {
        if !self.is_full() {
            self.give(key, self.shared.per_success.saturating_add(taken), true);
        }
    }

    /// Takes what a retry costs, or says that there is not enough.
    pub(super) fn withdraw(&self, key: u64, charge: Charge, now: Instant) -> Option<Withdrawal> {
        let Shared { cap, .. } = *self.shared;
        // A bucket that is smaller than the cost is emptied by it.
        let cost = charge.cost.min(cap);
        let mut lacking = self.lock();
        let mut seen = lacking.get(&key).copied().unwrap_or(Bucket::FULL);
        seen.well -= seen.well * Bucket::RECENT;
        seen.failed += 1.0;
        if charge.cost > TOKEN {
            seen.trust = 0.0;
            seen.late_row = seen.late_row.saturating_add(1);
        }
        if let Some(bucket) = lacking.get_mut(&key) {
            *bucket = seen;
        }
        let Bucket { lack, unpaid, .. } = seen;
        let advance = if charge.cost > TOKEN { 0 } else { seen.advance(self.shared.per_success) };
        if cap.saturating_add(advance).saturating_sub(lack) < cost || (charge.is_late && lack > cap / 2) {
            let every = self.shared.unpaid_every.filter(|_| charge.cost == TOKEN)?;
            let bucket = lacking.get_mut(&key)?;
            if unpaid.is_some_and(|last| now.saturating_duration_since(last) < every) {
                return None;
            }
            bucket.unpaid = Some(now);
            drop(lacking);
            return Some(Withdrawal { budget: self.clone(), key, taken: 0, left: cap.saturating_sub(lack) });
        }
        if lack == 0 && lacking.len() >= MAX_KEYS {
            drop_fuller_half(&mut lacking);
        }
        lacking.insert(key, Bucket { lack: lack + cost, ..seen });
        self.shared.open.store(lacking.len(), Ordering::Relaxed);
        drop(lacking);
        Some(Withdrawal { budget: self.clone(), key, taken: cost, left: cap.saturating_sub(lack + cost) })
    }

    fn give(&self, key: u64, amount: Milli, has_succeeded: bool) {
        let mut lacking = self.lock();
        if let Some(Bucket { lack, well, trust, late_row, failed, under_way, .. }) = lacking.get_mut(&key) {
            *lack = lack.saturating_sub(amount);
            if has_succeeded {
                *well += (1.0 - *well) * Bucket::RECENT;
                *trust += (1.0 - *trust) * Bucket::RECENT;
                *late_row = 0;
                *failed -= *failed / (*under_way).max(1) as f32;
            }
            if *lack == 0 {
                lacking.remove(&key);
            }
        }
        self.shared.open.store(lacking.len(), Ordering::Relaxed);
    }
}

/// Makes room by forgetting what the fuller half lacks. Half of them at once, so that each new key pays for a few steps
/// on the average; and the fuller ones, so that an empty bucket stays empty while others come and go.
#[cold]
fn drop_fuller_half(lacking: &mut Buckets) {
    let mut by_lack: Vec<(Milli, u64)> = lacking.iter().map(|(key, bucket)| (bucket.lack, *key)).collect();
    let (fuller, ..) = by_lack.select_nth_unstable(MAX_KEYS / 2);
    for (_, key) in fuller {
        lacking.remove(key);
    }
}

impl Default for Budget {
    /// 100 tokens, 3 for each success, and 30 retries a minute in any case: see the type.
    fn default() -> Self {
        Self::of(100 * TOKEN, 3 * TOKEN).with_unpaid(LEAST_PER_MINUTE)
    }
}

impl fmt::Debug for Budget {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Budget")
            .field("cap", &self.cap())
            .field("per_success", &self.per_success())
            .field("unpaid_every", &self.shared.unpaid_every)
            .field("keys_short", &self.keys_short())
            .finish()
    }
}

/// What was taken for a retry. Goes back when it is dropped before the retry was sent.
#[derive(Debug)]
pub(super) struct Withdrawal {
    budget: Budget,
    key: u64,
    taken: Milli,
    left: Milli,
}

impl Withdrawal {
    /// Tokens that it took.
    pub(super) fn cost(&self) -> f64 {
        f64::from(self.taken) / f64::from(TOKEN)
    }

    /// The same, as it is counted.
    pub(super) const fn taken(&self) -> Milli {
        self.taken
    }

    /// Tokens that it left in its bucket.
    pub(super) fn left(&self) -> f64 {
        f64::from(self.left) / f64::from(TOKEN)
    }

    /// The retry goes out: the tokens are spent, until its request succeeds. Returns how much.
    pub(super) fn spend(mut self) -> Milli {
        std::mem::take(&mut self.taken)
    }
}

impl Drop for Withdrawal {
    fn drop(&mut self) {
        if self.taken > 0 {
            self.budget.give(self.key, self.taken, false);
        }
    }
}

/// An attempt that its bucket counts until this is dropped.
#[derive(Debug, Default)]
pub(super) struct UnderWay(Option<(Budget, u64)>);

impl Drop for UnderWay {
    fn drop(&mut self) {
        if let Some((budget, key)) = self.0.take() {
            if let Some(bucket) = budget.lock().get_mut(&key) {
                // Of a bucket that was full in between it was not counted.
                bucket.under_way = bucket.under_way.saturating_sub(1);
            }
        }
    }
}

#[cfg(all(test, tower_gemini_loom))]
#[path = "tests/budget_loom.rs"]
mod models;

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    const ONE: Charge = Charge::FAILURE;

    fn now() -> Instant {
        crate::time::now()
    }

    #[tokio::test(start_paused = true)]
    async fn one_retry_every_two_seconds_needs_no_tokens() {
        let budget = Budget::default();
        let spent = |charge| budget.withdraw(7, charge, now()).map(Withdrawal::spend);
        assert_eq!((0..100).filter_map(|_| spent(ONE)).sum::<Milli>(), 100 * TOKEN);
        // An hour in which nothing succeeds, asked ten times a second.
        let mut unpaid = 0;
        for _ in 0..36_000 {
            unpaid += u32::from(spent(ONE).is_some());
            assert_eq!(spent(Charge::TIMEOUT), None, "a server may still be at work on those");
            tokio::time::advance(Duration::from_millis(100)).await;
        }
        assert_eq!(unpaid, 1800);
        assert_eq!(
            budget.withdraw(7, Charge::TIMEOUT, now()).map(Withdrawal::spend),
            None,
            "they fill nothing"
        );
        // It is for each key, late attempts included, and off where it was not asked for.
        let strict = Budget::new(100, 3.0).expect("valid");
        assert!((0..100).all(|_| strict.withdraw(7, ONE, now()).map(Withdrawal::spend).is_some()));
        assert!(strict.withdraw(7, ONE, now()).is_none());
        let twice = strict.least_per_minute(2).expect("valid");
        assert!((0..101).all(|_| twice.withdraw(7, ONE, now()).map(Withdrawal::spend).is_some()));
        tokio::time::advance(Duration::from_secs(29)).await;
        assert!(twice.withdraw(7, ONE.late(true), now()).is_none());
        tokio::time::advance(Duration::from_secs(1)).await;
        assert!(twice.withdraw(7, ONE.late(true), now()).is_some());
        assert_eq!(
            strict.least_per_minute(6_001).expect_err("out of range").field(),
            "budget.least_per_minute"
        );
    }

    #[test]
    fn attempts_under_way_are_a_credit_until_one_times_out() {
        let budget = Budget::new(2, 3.0).expect("valid");
        let spent = |charge| budget.withdraw(1, charge, now()).map(Withdrawal::spend).is_some();
        assert!(spent(ONE) && spent(ONE) && !spent(ONE));
        // 30 that have not failed, beside three that have: 3 · 30 · 30 / 33, and less with each that fails.
        let mut under_way: Vec<_> = (0..30).map(|_| budget.begin(1)).collect();
        assert!((0..30).all(|_| spent(ONE)), "they are lent");
        assert!(!spent(ONE.late(true)), "not to late attempts");
        under_way.truncate(3);
        assert!(!spent(ONE), "those that have ended have failed");
        under_way.extend((0..200).map(|_| budget.begin(1)));
        assert!(spent(ONE));
        assert!(!spent(Charge::TIMEOUT), "not to timeouts");
        assert!(!spent(ONE), "nor after one");
        (0..16).for_each(|_| budget.deposit(1, 0));
        assert!(spent(ONE), "answers bring it back");
        assert!(budget.begin(2).0.is_none(), "a full bucket counts nothing");
    }

    #[test]
    fn two_successes_pay_for_one_retry() {
        let budget = Budget::new(2, 0.5).expect("valid");
        for _ in 0..2 {
            budget.withdraw(1, ONE, now()).expect("full at the start").spend();
        }
        assert!(budget.withdraw(1, ONE, now()).is_none());
        assert!(budget.withdraw(2, ONE, now()).is_some(), "another key has its own");
        budget.deposit(1, 0);
        assert!(budget.is_empty(1), "half a token is not one");
        budget.deposit(1, 0);
        budget.withdraw(1, ONE, now()).expect("one token").spend();
    }

    #[test]
    fn a_success_gives_back_what_its_retries_took() {
        let budget = Budget::new(9, 0.5).expect("valid");
        let taken =
            [ONE, Charge::TIMEOUT].map(|charge| budget.withdraw(1, charge, now()).expect("full").spend());
        assert_eq!(taken, [1000, 2000]);
        budget.withdraw(1, ONE, now()).expect("six are left").spend();
        budget.deposit(1, taken.iter().sum());
        assert_eq!(
            budget.withdraw(1, ONE, now()).map(|token| token.left()),
            Some(7.5),
            "one is lost, half is paid in"
        );
    }

    #[test]
    fn late_retries_are_for_a_bucket_that_is_half_full() {
        let budget = Budget::new(4, 0.5).expect("valid");
        let take = |late| budget.withdraw(1, ONE.late(late), now()).map(|token| token.spend()).is_some();
        let taken = [true, true, true, true, false, false].map(take);
        assert_eq!(taken, [true, true, true, false, true, false]);
    }

    #[test]
    fn a_bucket_smaller_than_the_charge_is_emptied_by_it() {
        let budget = Budget::new(1, 0.5).expect("valid");
        let token = budget.withdraw(1, Charge::TIMEOUT, now()).expect("full");
        assert_eq!((token.cost(), token.left()), (1.0, 0.0));
    }

    #[test]
    fn it_says_what_it_was_given_and_what_is_left() {
        let budget = Budget::new(7, 0.25).expect("valid");
        assert_eq!((budget.cap(), budget.per_success()), (7, 0.25));
        let first = budget.withdraw(1, ONE, now()).expect("full at the start");
        assert_eq!(first.left(), 6.0);
        let second = budget.withdraw(1, ONE, now()).expect("six are left");
        assert_eq!(second.left(), 5.0);
        assert_eq!(
            format!("{budget:?}"),
            "Budget { cap: 7, per_success: 0.25, unpaid_every: None, keys_short: 1 }"
        );
        let default = Budget::default();
        assert_eq!((default.cap(), default.per_success()), (100, 3.0));
    }

    #[test]
    fn a_dropped_withdrawal_goes_back() {
        let budget = Budget::new(1, 0.5).expect("valid");
        drop(budget.withdraw(7, ONE, now()).expect("full"));
        assert_eq!(budget.keys_short(), 0, "a full bucket takes no memory");
        budget.withdraw(7, ONE, now()).expect("it came back").spend();
        assert!(budget.withdraw(7, ONE, now()).is_none());
    }

    #[test]
    fn whether_others_succeed_is_learnt_over_some_eight_calls() {
        let budget = Budget::new(100, 0.001).expect("valid");
        let fail = || {
            let _ = budget.withdraw(1, ONE, now()).map(Withdrawal::spend);
        };
        let until = |is_well: bool, step: &dyn Fn()| {
            let steps = (1..=100).inspect(|_| step()).find(|_| budget.is_well(1) == is_well);
            steps.expect("within a hundred")
        };
        assert!(budget.is_well(1), "nothing is known");
        assert_eq!(until(false, &fail), 7);
        assert!(budget.is_well(2), "another key has its own");
        (0..30).for_each(|_| fail());
        assert_eq!(until(true, &|| budget.deposit(1, 0)), 4);
        // Every other one is enough, and every third is not.
        for (failures, is_well) in [(1, true), (2, false)] {
            for _ in 0..20 {
                (0..failures).for_each(|_| fail());
                budget.deposit(1, 0);
            }
            assert_eq!(budget.is_well(1), is_well, "{failures} failures for each success");
        }
    }

    #[test]
    fn a_withdrawal_that_is_dropped_is_no_success() {
        let budget = Budget::new(100, 0.001).expect("valid");
        budget.withdraw(1, ONE, now()).expect("full").spend();
        for _ in 0..6 {
            drop(budget.withdraw(1, ONE, now()).expect("one is lacking"));
        }
        assert!(!budget.is_well(1), "each was asked for after a failure");
        budget.deposit(1, TOKEN);
        assert!(budget.is_well(1), "a full bucket is forgotten");
    }

    #[test]
    fn a_refused_withdrawal_is_a_failure_too() {
        let budget = Budget::new(1, 0.001).expect("valid");
        budget.withdraw(1, ONE, now()).expect("full").spend();
        (0..5).for_each(|_| assert!(budget.withdraw(1, ONE, now()).is_none()));
        assert!(budget.is_well(1));
        assert!(budget.withdraw(1, ONE, now()).is_none());
        assert!(!budget.is_well(1));
    }

    #[test]
    fn beyond_the_bound_the_fuller_half_counts_as_full() {
        let budget = Budget::new(2, 0.5).expect("valid");
        let keys = MAX_KEYS as u64;
        // Every other one is empty, the rest lack one token of two.
        for key in 0..keys {
            for _ in 0..=key % 2 {
                budget.withdraw(key, ONE, now()).expect("its own").spend();
            }
        }
        assert_eq!(budget.keys_short(), MAX_KEYS);
        assert!(budget.withdraw(1, ONE, now()).is_none(), "what is known already makes no room");
        // A newcomer is bound by nobody, and so are all who come after it.
        for key in keys..10 * keys {
            assert!(!budget.is_empty(key));
            budget.withdraw(key, ONE, now()).expect("full").spend();
            assert!(budget.keys_short() <= MAX_KEYS);
        }
        let empty = (0..keys).filter(|key| budget.is_empty(*key)).count();
        assert_eq!(empty, MAX_KEYS / 2, "the empty ones stay empty, whoever comes");
        budget.withdraw(0, ONE, now()).expect("dropped, and full again").spend();
    }

    #[test]
    fn bad_settings_name_the_rule() {
        for (cap, per_success) in [(0, 0.5), (2_000_000, 0.5), (1, 0.0), (1, f64::NAN), (1, 100.5), (1, -1.0)]
        {
            assert!(
                Budget::new(cap, per_success).unwrap_err().to_string().contains("budget."),
                "{cap} {per_success}"
            );
        }
    }

    // Two threads, every token accounted for: withdrawals granted can never exceed what was there and paid in,
    // and after all deposits every bucket is full again.
    #[test]
    fn no_token_is_lost_or_made_between_threads() {
        let budget = Budget::new(50, 0.5).expect("valid");
        let rounds = 20_000;
        let granted: usize = std::thread::scope(|scope| {
            let workers: Vec<_> = (0..4)
                .map(|worker| {
                    let budget = budget.clone();
                    scope.spawn(move || {
                        let mut granted = 0;
                        for i in 0..rounds {
                            match budget.withdraw(3, ONE, now()) {
                                Some(w) if (i + worker) % 2 == 0 => {
                                    w.spend();
                                    granted += 1;
                                }
                                // The rest is dropped and comes back.
                                _ => {}
                            }
                        }
                        granted
                    })
                })
                .collect();
            workers.into_iter().map(|w| w.join().expect("no panic")).sum()
        });
        assert_eq!(granted, 50, "nobody paid in, so exactly the cap can be spent");
        for _ in 0..100 {
            budget.deposit(3, 0);
        }
        assert_eq!(budget.keys_short(), 0, "100 halves make 50 whole");
    }

    proptest! {
        // Against a reference model: the tokens of each key, and what is known of its calls.
        #[test]
        fn behaves_like_two_numbers_per_key(ops in prop::collection::vec((0u64..3, 0u8..3), 0..200)) {
            let budget = Budget::new(5, 0.25).expect("valid");
            let mut model = [(5000i64, 1.0f32); 3];
            for (key, op) in ops {
                let (tokens, well) = &mut model[key as usize];
                let failed = *well - *well / 8.0;
                match op {
                    0 => {
                        budget.deposit(key, 0);
                        *tokens = (*tokens + 250).min(5000);
                        *well += (1.0 - *well) / 8.0;
                    }
                    1 => {
                        let granted = budget.withdraw(key, ONE, now()).map(Withdrawal::spend).is_some();
                        prop_assert_eq!(granted, *tokens >= 1000);
                        *tokens -= if granted { 1000 } else { 0 };
                        *well = failed;
                    }
                    // Taken and given back: no success, and where it was full before, nothing.
                    _ => {
                        drop(budget.withdraw(key, ONE, now()));
                        *well = failed;
                    }
                }
                if *tokens == 5000 {
                    *well = 1.0;
                }
                prop_assert_eq!(budget.is_empty(key), *tokens < 1000);
                prop_assert_eq!(budget.is_well(key), *well >= 0.4);
                prop_assert_eq!(budget.keys_short(), budget.lock().len());
                let known = budget.lock().get(&key).map(|bucket| (i64::from(bucket.lack), bucket.well));
                prop_assert_eq!(known, (*tokens < 5000).then_some((5000 - *tokens, *well)));
            }
        }
    }
}
