//! How much a model may be asked: what the user sets, what Google publishes.

use std::fmt;

use crate::error::ConfigError;

/// What Google counts, each by itself; any one of them gives a 429.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
#[non_exhaustive]
pub enum Dimension {
    /// Requests per minute (RPM).
    RequestsPerMinute,
    /// Input tokens per minute (TPM). Output tokens are not limited per minute.
    InputTokensPerMinute,
    /// Requests per Pacific calendar day (RPD).
    RequestsPerDay,
    /// What a 429 did not attribute to one of them: spend, images, a shared capacity.
    Other,
}

impl Dimension {
    pub(super) const COUNT: usize = 4;

    /// A name: `requests per minute`, `input tokens per minute`, `requests per day`, `other`.
    #[must_use]
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::RequestsPerMinute => "requests per minute",
            Self::InputTokensPerMinute => "input tokens per minute",
            Self::RequestsPerDay => "requests per day",
            Self::Other => "other",
        }
    }
}

impl fmt::Display for Dimension {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.pad(self.as_str())
    }
}

/// The limits of one model in one project. What is not set is unlimited, until a 429 tells otherwise.
///
/// ```
/// use tower_gemini::rate_limit::Limits;
///
/// let limits = Limits::new()
///     .requests_per_minute(10)
///     .input_tokens_per_minute(250_000)
///     .requests_per_day(250);
/// # let _ = limits;
/// ```
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash)]
#[must_use]
pub struct Limits {
    pub(super) rpm: Option<u64>,
    pub(super) tpm: Option<u64>,
    pub(super) rpd: Option<u64>,
}

impl Limits {
    /// No limit at all.
    pub const fn new() -> Self {
        Self { rpm: None, tpm: None, rpd: None }
    }

    /// At most so many requests in any 60 seconds, from 1 to a billion.
    pub const fn requests_per_minute(mut self, limit: u64) -> Self {
        self.rpm = Some(limit);
        self
    }

    /// At most so many input tokens in any 60 seconds, from 1 to a trillion.
    pub const fn input_tokens_per_minute(mut self, limit: u64) -> Self {
        self.tpm = Some(limit);
        self
    }

    /// At most so many requests in a Pacific calendar day, from 1 to a billion.
    pub const fn requests_per_day(mut self, limit: u64) -> Self {
        self.rpd = Some(limit);
        self
    }

    /// The limit of this dimension, if there is one.
    #[must_use]
    pub const fn of(&self, dimension: Dimension) -> Option<u64> {
        match dimension {
            Dimension::RequestsPerMinute => self.rpm,
            Dimension::InputTokensPerMinute => self.tpm,
            Dimension::RequestsPerDay => self.rpd,
            Dimension::Other => None,
        }
    }

    pub(super) fn check(&self) -> Result<(), ConfigError> {
        const BILLION: u64 = 1_000_000_000;
        let outside = |limit: Option<u64>, most| limit.is_some_and(|limit| limit == 0 || limit > most);
        if outside(self.rpm, BILLION) {
            return Err(ConfigError::new("requests_per_minute", "must be from 1 to 1,000,000,000"));
        }
        if outside(self.tpm, 1000 * BILLION) {
            return Err(ConfigError::new("input_tokens_per_minute", "must be from 1 to 1,000,000,000,000"));
        }
        if outside(self.rpd, BILLION) {
            return Err(ConfigError::new("requests_per_day", "must be from 1 to 1,000,000,000"));
        }
        Ok(())
    }

    /// The share `margin` of each limit, rounded down, and at least 1.
    pub(super) fn share(&self, margin: f64) -> Self {
        // The addend keeps 0.29 of 100 from becoming 28.
        let share = |limit: u64| ((limit as f64 * margin + 1e-6).floor() as u64).clamp(1, limit);
        Self { rpm: self.rpm.map(share), tpm: self.tpm.map(share), rpd: self.rpd.map(share) }
    }

    /// The limits that Google published for this model and tier, as read on [`Published::READ`]; `None` for a model
    /// that is not in the table.
    ///
    /// Google changes them, and since the end of 2025 shows the true ones in AI Studio only: take these as a
    /// beginning. Too low ones cost throughput; too high ones cost one 429, which lowers them.
    ///
    /// ```
    /// use tower_gemini::rate_limit::{Limits, Tier};
    ///
    /// let limits = Limits::published(Tier::Free, "gemini-3.1-flash-lite");
    /// assert!(limits.is_some());
    /// ```
    #[must_use]
    pub fn published(tier: Tier, model: &str) -> Option<Self> {
        let found = TABLE.iter().find(|row| row.0 == tier && row.1 == model)?;
        let limit = |n: u64| Some(n).filter(|n| *n > 0);
        Some(Self { rpm: limit(found.2), tpm: limit(found.3), rpd: limit(found.4) })
    }
}

/// A project's tier, which its billing decides.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
#[non_exhaustive]
pub enum Tier {
    /// No billing account.
    Free,
    /// A billing account is linked.
    Tier1,
}

/// About the table behind [`Limits::published`].
#[derive(Debug)]
#[non_exhaustive]
pub struct Published;

impl Published {
    /// The day on which the table was read.
    pub const READ: &'static str = "2026-03-31";
}

/// Tier, model, RPM, TPM, RPD; 0 where none was published.
///
/// Sources, read 2026-03: Google's page on rate limits as quoted by the troubleshooting guides; for the models that
/// they leave out, quotas that users of AI Studio copied into public issues (ApplyPilot#42, googleapis forum threads
/// 112161 and 122337). Where sources differ, the lower number stands here.
const TABLE: &[(Tier, &str, u64, u64, u64)] = &[
    (Tier::Free, "gemini-2.5-flash-lite", 15, 250_000, 1_000),
    (Tier::Free, "gemini-3.1-flash-lite", 15, 250_000, 500),
    (Tier::Free, "gemini-3-flash-preview", 5, 250_000, 20),
    (Tier::Free, "gemini-embedding-001", 100, 30_000, 1_000),
    (Tier::Tier1, "gemini-embedding-001", 3_000, 1_000_000, 0),
];

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_margin_rounds_down_but_never_to_nothing() {
        let limits = Limits::new().requests_per_minute(10).input_tokens_per_minute(100).requests_per_day(1);
        assert_eq!(limits.share(0.8), Limits { rpm: Some(8), tpm: Some(80), rpd: Some(1) });
        assert_eq!(limits.share(0.29).tpm, Some(29));
        assert_eq!(limits.share(1.0), limits);
        assert_eq!(limits.share(0.001), Limits { rpm: Some(1), tpm: Some(1), rpd: Some(1) });
        assert_eq!(Limits::new().share(0.5), Limits::new());
    }

    #[test]
    fn each_limit_has_its_range() {
        const BILLION: u64 = 1_000_000_000;
        for (set, most) in [
            (Limits::requests_per_minute as fn(Limits, u64) -> Limits, BILLION),
            (Limits::input_tokens_per_minute, 1000 * BILLION),
            (Limits::requests_per_day, BILLION),
        ] {
            let is_valid = |limit| set(Limits::new(), limit).check().is_ok();
            assert_eq!([0, 1, most, most + 1].map(is_valid), [false, true, true, false], "{most}");
        }
    }

    #[test]
    fn a_limit_is_found_by_its_dimension() {
        let limits = Limits::new().requests_per_minute(2).input_tokens_per_minute(3).requests_per_day(4);
        for (dimension, name, limit) in [
            (Dimension::RequestsPerMinute, "requests per minute", Some(2)),
            (Dimension::InputTokensPerMinute, "input tokens per minute", Some(3)),
            (Dimension::RequestsPerDay, "requests per day", Some(4)),
            (Dimension::Other, "other", None),
        ] {
            assert_eq!((dimension.to_string().as_str(), limits.of(dimension)), (name, limit));
        }
    }

    #[test]
    fn every_published_row_is_a_valid_setting() {
        for row in TABLE {
            let limits = Limits::published(row.0, row.1).expect("it is in the table");
            assert!(limits.check().is_ok() && limits != Limits::new(), "{row:?}");
        }
        assert_eq!(Limits::published(Tier::Free, "no-such-model"), None);
    }
}
