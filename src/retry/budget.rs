//! How many retries may be made in all: a bucket of tokens that successes fill.
//!
//! A plain attempt limit multiplies the load of an outage by the limit. A budget bounds it: each success pays
//! [`per_success`](Budget::per_success) of a token in, each retry takes one out, and with none left the failure is
//! handed on at once. In any steady state the load is at most `1 + per_success` times the first tries', and in a
//! total outage it sinks to the first tries alone ([Brooker](https://brooker.co.za/blog/2022/02/28/retries.html),
//! read 2026-11).
//!
//! An empty budget never makes anybody wait: no success could fill it while a sequential caller sleeps on it.

use std::collections::HashMap;
use std::fmt;
use std::hash::{BuildHasherDefault, Hasher};
use std::sync::Arc;

use super::ConfigError;
use crate::sync::{AtomicUsize, Mutex, MutexGuard, Ordering, lock};

/// Thousandths of a token, so that shares of one add up exactly.
type Milli = u32;
const TOKEN: Milli = 1000;
/// Keys that are short of tokens at the same time. Beyond that they share one bucket.
const MAX_KEYS: usize = 1024;
const SHARED_KEY: u64 = u64::MAX;

/// A retry budget. Clones share it: give one to several layers to bound them together.
///
/// Kept apart by host and [`TargetKey`](crate::target::TargetKey), so that an outage of one model does not use up the retries of another. A key
/// whose bucket is full takes no memory; at most 1,024 others are kept, and more share one.
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
    /// Buckets that are not full: what they lack, from 1 to `cap`. A missing key has a full bucket.
    lacking: Mutex<Buckets<Milli>>,
    /// `lacking.len()`, written under the lock and read without it, so that a success costs one load while all
    /// is well. Relaxed: it is a hint. A success that misses a bucket that was opened in the same moment pays
    /// nothing in, which is what it would have done a moment before.
    open: AtomicUsize,
}

/// By key, those that differ from what a key begins with. See [`slot`].
pub(super) type Buckets<T> = HashMap<u64, T, BuildHasherDefault<Identity>>;

/// Keys are hashes already.
#[derive(Default)]
pub(super) struct Identity(u64);

impl Hasher for Identity {
    fn finish(&self) -> u64 {
        self.0
    }
    fn write(&mut self, bytes: &[u8]) {
        for byte in bytes {
            self.0 = self.0.rotate_left(8) ^ u64::from(*byte);
        }
    }
    fn write_u64(&mut self, n: u64) {
        self.0 = n;
    }
}

impl Budget {
    /// A budget of `cap` retries, full at the start, that each success refills by `per_success`.
    ///
    /// # Errors
    ///
    /// When `cap` is not from 1 to 1,000,000, or `per_success` not from 0.001 to 1 (NaN included).
    pub fn new(cap: u32, per_success: f64) -> Result<Self, ConfigError> {
        if !(1..=1_000_000).contains(&cap) {
            return Err(ConfigError::new("budget.cap", "must be from 1 to 1,000,000 retries"));
        }
        if !(0.001..=1.0).contains(&per_success) {
            return Err(ConfigError::new("budget.per_success", "must be from 0.001 to 1 token per success"));
        }
        // In range by the line above, so the cast keeps the value.
        Ok(Self::of(cap * TOKEN, (per_success * f64::from(TOKEN)).round() as Milli))
    }

    fn of(cap: Milli, per_success: Milli) -> Self {
        let shared = Shared { cap, per_success, lacking: Mutex::default(), open: AtomicUsize::new(0) };
        Self { shared: Arc::new(shared) }
    }

    /// The most retries that can be saved up.
    #[must_use]
    pub fn cap(&self) -> u32 {
        self.shared.cap / TOKEN
    }

    /// Tokens that one success pays in.
    #[must_use]
    pub fn per_success(&self) -> f64 {
        f64::from(self.shared.per_success) / f64::from(TOKEN)
    }

    /// Keys whose bucket is not full at the moment.
    #[must_use]
    pub fn keys_short(&self) -> usize {
        self.shared.open.load(Ordering::Relaxed)
    }

    fn lock(&self) -> MutexGuard<'_, Buckets<Milli>> {
        lock(&self.shared.lacking)
    }

    /// Whether every bucket is full: then no key needs to be worked out.
    #[inline]
    pub(super) fn is_full(&self) -> bool {
        self.shared.open.load(Ordering::Relaxed) == 0
    }

    pub(super) fn is_empty(&self, key: u64) -> bool {
        if self.is_full() {
            return false;
        }
        let lacking = self.lock();
        let slot = lacking.get(&slot(&lacking, key));
        slot.is_some_and(|lack| self.shared.cap - lack < TOKEN)
    }

    /// A success: pays in.
    pub(super) fn deposit(&self, key: u64) {
        if !self.is_full() {
            self.give(key, self.shared.per_success);
        }
    }

    /// Takes one token, or says that there is none.
    pub(super) fn withdraw(&self, key: u64) -> Option<Withdrawal> {
        let mut lacking = self.lock();
        let key = slot(&lacking, key);
        let lack = lacking.get(&key).copied().unwrap_or(0);
        if self.shared.cap - lack < TOKEN {
            return None;
        }
        lacking.insert(key, lack + TOKEN);
        self.shared.open.store(lacking.len(), Ordering::Relaxed);
        drop(lacking);
        Some(Withdrawal { from: Some((self.clone(), key)), left: self.shared.cap - lack - TOKEN })
    }

    fn give(&self, key: u64, amount: Milli) {
        let mut lacking = self.lock();
        let key = slot(&lacking, key);
        if let Some(lack) = lacking.get_mut(&key) {
            *lack = lack.saturating_sub(amount);
            if *lack == 0 {
                lacking.remove(&key);
            }
        }
        self.shared.open.store(lacking.len(), Ordering::Relaxed);
    }
}

/// Where this key is kept: beyond [`MAX_KEYS`] all others share one place.
pub(super) fn slot<T>(buckets: &Buckets<T>, key: u64) -> u64 {
    if buckets.len() < MAX_KEYS || buckets.contains_key(&key) { key } else { SHARED_KEY }
}

impl Default for Budget {
    /// 20 retries, half a token per success: for a retry layer used without the other layers. At 30 % failures
    /// it still covers three attempts for nearly all requests.
    fn default() -> Self {
        Self::of(20 * TOKEN, TOKEN / 2)
    }
}

impl fmt::Debug for Budget {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Budget")
            .field("cap", &self.cap())
            .field("per_success", &self.per_success())
            .field("keys_short", &self.keys_short())
            .finish()
    }
}

/// A token that was taken for a retry. Goes back when it is dropped before the retry was sent.
#[derive(Debug)]
pub(super) struct Withdrawal {
    from: Option<(Budget, u64)>,
    left: Milli,
}

impl Withdrawal {
    /// Tokens that it left in its bucket.
    pub(super) fn left(&self) -> f64 {
        f64::from(self.left) / f64::from(TOKEN)
    }

    /// The retry goes out: the token is spent.
    pub(super) fn spend(mut self) {
        self.from = None;
    }
}

impl Drop for Withdrawal {
    fn drop(&mut self) {
        if let Some((budget, key)) = self.from.take() {
            budget.give(key, TOKEN);
        }
    }
}

#[cfg(all(test, tower_gemini_loom))]
#[path = "budget_models.rs"]
mod models;

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn two_successes_pay_for_one_retry() {
        let budget = Budget::new(2, 0.5).expect("valid");
        for _ in 0..2 {
            budget.withdraw(1).expect("full at the start").spend();
        }
        assert!(budget.withdraw(1).is_none());
        assert!(budget.withdraw(2).is_some(), "another key has its own");
        budget.deposit(1);
        assert!(budget.is_empty(1), "half a token is not one");
        budget.deposit(1);
        budget.withdraw(1).expect("one token").spend();
    }

    #[test]
    fn it_says_what_it_was_given_and_what_is_left() {
        let budget = Budget::new(7, 0.25).expect("valid");
        assert_eq!((budget.cap(), budget.per_success()), (7, 0.25));
        let first = budget.withdraw(1).expect("full at the start");
        assert_eq!(first.left(), 6.0);
        let second = budget.withdraw(1).expect("six are left");
        assert_eq!(second.left(), 5.0);
        assert_eq!(format!("{budget:?}"), "Budget { cap: 7, per_success: 0.25, keys_short: 1 }");
    }

    #[test]
    fn a_key_is_its_own_hash() {
        let mut hasher = Identity::default();
        hasher.write_u64(1 << 40 | 7);
        assert_eq!(hasher.finish(), 1 << 40 | 7);
        let mut hasher = Identity::default();
        hasher.write(&[0xFF, 1, 2, 3, 4, 5, 6, 7, 0x0F]);
        assert_eq!(hasher.finish(), 0x0102_0304_0506_07F0, "no byte is lost, the ninth falls on the first");
    }

    #[test]
    fn a_dropped_withdrawal_goes_back() {
        let budget = Budget::new(1, 0.5).expect("valid");
        drop(budget.withdraw(7).expect("full"));
        assert_eq!(budget.keys_short(), 0, "a full bucket takes no memory");
        budget.withdraw(7).expect("it came back").spend();
        assert!(budget.withdraw(7).is_none());
    }

    #[test]
    fn keys_beyond_the_bound_share_a_bucket() {
        let budget = Budget::new(1, 0.5).expect("valid");
        for key in 0..MAX_KEYS as u64 {
            budget.withdraw(key).expect("its own").spend();
        }
        budget.withdraw(1_000_000).expect("the shared one").spend();
        assert!(budget.withdraw(2_000_000).is_none(), "the shared one is empty");
        assert_eq!(budget.keys_short(), MAX_KEYS + 1);
    }

    #[test]
    fn bad_settings_name_the_rule() {
        for (cap, per_success) in [(0, 0.5), (2_000_000, 0.5), (1, 0.0), (1, f64::NAN), (1, 1.5), (1, -1.0)] {
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
                            match budget.withdraw(3) {
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
            budget.deposit(3);
        }
        assert_eq!(budget.keys_short(), 0, "100 halves make 50 whole");
    }

    proptest! {
        // Against a reference model: one number per key.
        #[test]
        fn behaves_like_one_number_per_key(ops in prop::collection::vec((0u64..3, 0u8..3), 0..200)) {
            let budget = Budget::new(5, 0.25).expect("valid");
            let mut model = [5000i64; 3];
            for (key, op) in ops {
                let tokens = &mut model[key as usize];
                match op {
                    0 => {
                        budget.deposit(key);
                        *tokens = (*tokens + 250).min(5000);
                    }
                    1 => {
                        let granted = budget.withdraw(key).map(Withdrawal::spend).is_some();
                        prop_assert_eq!(granted, *tokens >= 1000);
                        *tokens -= if granted { 1000 } else { 0 };
                    }
                    _ => drop(budget.withdraw(key)),
                }
                prop_assert_eq!(budget.is_empty(key), *tokens < 1000);
            }
        }
    }
}
