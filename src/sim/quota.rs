//! Enforced quotas: what a model allows, and what is left of it.

use std::time::Duration;

use super::window::{Algorithm, Fit, Meter};

const MINUTE: Duration = Duration::from_secs(60);
const DAY: Duration = Duration::from_secs(24 * 60 * 60);

/// Which limit of a [`Quota`] was exceeded.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
#[non_exhaustive]
pub enum QuotaLimit {
    /// Requests in a minute (RPM).
    RequestsPerMinute,
    /// Input tokens in a minute (TPM).
    InputTokensPerMinute,
    /// Requests in a day (RPD).
    RequestsPerDay,
}

/// What one model allows. A limit that is not set is not enforced; a limit of zero lets nothing through.
///
/// `generateContent`, `streamGenerateContent`, the two embedding methods and chat completions are charged:
/// one request and the prompt's tokens (see the [module's page](super) on how they are counted), at the
/// moment when the request's body has arrived. Rejected calls are charged nothing, and neither are calls
/// that a scripted error answers.
///
/// A rejection is a 429 in Google's present form, naming every limit that is exceeded. Its delay is the exact
/// time until this request would fit if nobody else were admitted: to the nanosecond in the message, cut to
/// whole seconds in `RetryInfo`, as Google does. A request that is larger than the limit itself gets a
/// delay of 60 s (of a day, if it is the daily limit): it never fits, and Google does not say so either.
///
/// ```
/// use tower_gemini::sim::{Algorithm, Quota, Simulator};
///
/// let free_tier = Quota::new()
///     .requests_per_minute(10)
///     .input_tokens_per_minute(250_000)
///     .requests_per_day(250)
///     .algorithm(Algorithm::TokenBucket);
/// let sim = Simulator::builder().quota("gemini-3.5-flash-lite", free_tier).build()?;
/// # Ok::<(), tower_gemini::sim::ConfigError>(())
/// ```
#[derive(Clone, Debug, Default, PartialEq, Eq)]
#[must_use = "a quota does nothing until a simulator enforces it"]
pub struct Quota {
    rpm: Option<u64>,
    tpm: Option<u64>,
    rpd: Option<u64>,
    algorithm: Algorithm,
    paid: bool,
    short_daily_delay: bool,
}

impl Quota {
    /// No limit at all, counted by [`Algorithm::SlidingWindow`], named as the free tier's.
    pub fn new() -> Self {
        Self::default()
    }

    /// At most `limit` requests in 60 s. Default: not enforced.
    pub fn requests_per_minute(mut self, limit: u64) -> Self {
        self.rpm = Some(limit);
        self
    }

    /// At most `limit` input tokens in 60 s. Default: not enforced.
    pub fn input_tokens_per_minute(mut self, limit: u64) -> Self {
        self.tpm = Some(limit);
        self
    }

    /// At most `limit` requests in each 24 h, counted from the simulator's first call. Default: not enforced.
    pub fn requests_per_day(mut self, limit: u64) -> Self {
        self.rpd = Some(limit);
        self
    }

    /// How the minutes are counted. Default: [`Algorithm::SlidingWindow`].
    pub fn algorithm(mut self, algorithm: Algorithm) -> Self {
        self.algorithm = algorithm;
        self
    }

    /// Violations carry the paid tier's quota ids instead of those that end in `-FreeTier`.
    pub fn paid_tier(mut self) -> Self {
        self.paid = true;
        self
    }

    /// A spent day answers with the time to the next full minute, as Google mostly does, instead of the
    /// true time. Default: the true time.
    pub fn short_daily_delay(mut self) -> Self {
        self.short_daily_delay = true;
        self
    }
}

/// A quota and what was charged to it.
#[derive(Clone, Debug)]
pub(super) struct Meters {
    quota: Quota,
    rpm: Option<Meter>,
    tpm: Option<Meter>,
    rpd: Option<Meter>,
}

/// Why a call was rejected.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Denied {
    /// The exceeded limits and their values, in the order in which Google's bodies mostly list them.
    pub(super) violations: Vec<(QuotaLimit, u64)>,
    pub(super) retry_in: Duration,
    pub(super) paid: bool,
}

impl Meters {
    /// Starts to enforce `quota`, keeping the counts of `before` where they are counted the same way.
    pub(super) fn new(quota: Quota, before: Option<Meters>) -> Self {
        let before = before.filter(|b| b.quota.algorithm == quota.algorithm);
        let (rpm, tpm, rpd) = before.map_or((None, None, None), |b| (b.rpm, b.tpm, b.rpd));
        let daily = Algorithm::FixedWindow { phase: Duration::ZERO };
        let meter = |limit: Option<u64>, old: Option<Meter>, algorithm, period| {
            let limit = limit?;
            let mut meter = old.unwrap_or_else(|| Meter::new(algorithm, limit, period));
            meter.set_limit(limit);
            Some(meter)
        };
        Self {
            rpm: meter(quota.rpm, rpm, quota.algorithm, MINUTE),
            tpm: meter(quota.tpm, tpm, quota.algorithm, MINUTE),
            rpd: meter(quota.rpd, rpd, daily, DAY),
            quota,
        }
    }

    /// Charges one request of `tokens` input tokens, or charges nothing and says why.
    pub(super) fn admit(&mut self, now: Duration, tokens: u64) -> Result<(), Denied> {
        let mut violations = Vec::new();
        let mut retry_in = Duration::ZERO;
        let mut judge = |dimension, meter: &mut Option<Meter>, cost, never: Duration| {
            let Some(meter) = meter else { return };
            let mut wait = match meter.fit(now, cost) {
                Fit::Now => return,
                Fit::In(wait) => wait,
                Fit::Never => never,
            };
            if dimension == QuotaLimit::RequestsPerDay && self.quota.short_daily_delay {
                wait = MINUTE - Duration::from_nanos((now.as_nanos() % MINUTE.as_nanos()) as u64);
            }
            retry_in = retry_in.max(wait);
            violations.push((dimension, meter.limit()));
        };
        judge(QuotaLimit::RequestsPerMinute, &mut self.rpm, 1, MINUTE);
        judge(QuotaLimit::InputTokensPerMinute, &mut self.tpm, tokens, MINUTE);
        judge(QuotaLimit::RequestsPerDay, &mut self.rpd, 1, DAY);
        if !violations.is_empty() {
            return Err(Denied { violations, retry_in, paid: self.quota.paid });
        }
        for (meter, cost) in [(&mut self.rpm, 1), (&mut self.tpm, tokens), (&mut self.rpd, 1)] {
            if let Some(meter) = meter {
                meter.charge(now, cost);
            }
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_rejected_call_is_charged_to_no_dimension() {
        // Five tokens of six are gone after the first call, so the second fails on tokens alone; if it were
        // charged as a request, the third would not pass.
        let quota = Quota::new().requests_per_minute(2).input_tokens_per_minute(6);
        let mut meters = Meters::new(quota, None);
        assert!(meters.admit(Duration::ZERO, 5).is_ok());
        let denied = meters.admit(Duration::ZERO, 5).expect_err("six tokens a minute");
        assert_eq!(denied.violations, [(QuotaLimit::InputTokensPerMinute, 6)]);
        assert!(meters.admit(Duration::ZERO, 1).is_ok());
    }

    #[test]
    fn the_longest_wait_of_all_violations_is_told() {
        let quota = Quota::new().requests_per_minute(1).requests_per_day(1);
        let now = Duration::from_secs(90);
        let mut meters = Meters::new(quota.clone(), None);
        assert!(meters.admit(now, 0).is_ok());
        let denied = meters.admit(now, 0).expect_err("one a day");
        assert_eq!(denied.violations.len(), 2);
        assert_eq!(denied.retry_in, DAY - now);

        let mut meters = Meters::new(quota.short_daily_delay(), None);
        assert!(meters.admit(now, 0).is_ok());
        let denied = meters.admit(now + Duration::from_secs(20), 0).expect_err("one a day");
        assert_eq!(denied.retry_in, Duration::from_secs(40), "of the minute; the day would be 10 s");
    }

    #[test]
    fn a_new_quota_of_the_same_algorithm_keeps_the_counts() {
        let mut meters = Meters::new(Quota::new().requests_per_minute(5), None);
        assert!(meters.admit(Duration::ZERO, 0).is_ok());
        let mut lower = Meters::new(Quota::new().requests_per_minute(1), Some(meters.clone()));
        assert!(lower.admit(Duration::ZERO, 0).is_err());
        let other = Quota::new().requests_per_minute(1).algorithm(Algorithm::TokenBucket);
        assert!(Meters::new(other, Some(meters)).admit(Duration::ZERO, 0).is_ok());
    }
}
