//! How much a model may be asked: what the user sets, what Google publishes.

use std::fmt;
use std::time::Duration;

use crate::config_error::ConfigError;

/// What Google counts, each by itself; any one of them gives a 429.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
#[non_exhaustive]
pub enum LimitKind {
    /// Requests per minute (RPM).
    RequestsPerMinute,
    /// Input tokens per minute (TPM). Output tokens are not limited per minute.
    InputTokensPerMinute,
    /// Requests per Pacific calendar day (RPD).
    RequestsPerDay,
    /// What a 429 did not attribute to one of them: images, a shared capacity.
    Other,
    /// Money: of a limit that was [set](Limits::per), or that a 429 speaks of.
    Spend,
    /// Requests of another span than a minute or a day; see [`Limits::per`].
    Requests,
    /// Input tokens of another span than a minute.
    InputTokens,
    /// Images.
    Images,
    /// Texts to be embedded.
    Texts,
}

impl LimitKind {
    /// How many of them, from the first on, a 429 can close.
    pub(crate) const COUNT: usize = 5;

    /// A name: `requests per minute`, `input tokens per minute`, `requests per day`, `other`, `spend`, `requests`, `input tokens`,
    /// `images`, `texts`.
    #[must_use]
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::RequestsPerMinute => "requests per minute",
            Self::InputTokensPerMinute => "input tokens per minute",
            Self::RequestsPerDay => "requests per day",
            Self::Other => "other",
            Self::Spend => "spend",
            Self::Requests => "requests",
            Self::InputTokens => "input tokens",
            Self::Images => "images",
            Self::Texts => "texts",
        }
    }
}

impl fmt::Display for LimitKind {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.pad(self.as_str())
    }
}

/// What a limit over a span counts. See [`Limits::per`].
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
#[non_exhaustive]
pub enum Unit {
    /// Requests.
    Requests,
    /// Input tokens: estimated, and corrected by what the answer says.
    InputTokens,
    /// Images that a request makes, by [`Images`](crate::rate_limit::Images) in its extensions. Without that: 4 for `:predict`, 1 for a request to
    /// a model with `image` in its name, 0 for others.
    Images,
    /// Texts to be embedded: each of a `:batchEmbedContents`, by [`Texts`](crate::rate_limit::Texts) in the request's extensions, which
    /// [preflight](crate::preflight) and [`ByContent`](crate::rate_limit::ByContent) find out. Without that as many as its size can hold, up to
    /// 100. 1 for `:embedContent`, 0 for what embeds nothing.
    Texts,
    /// Money, in millionths of the currency of the [`Prices`](crate::rate_limit::Prices). It is reserved by the estimated input and by the output
    /// that answers have shown, and corrected by what the answer says it used.
    Money,
}

impl Unit {
    pub(crate) const fn dimension(self) -> LimitKind {
        match self {
            Self::Requests => LimitKind::Requests,
            Self::InputTokens => LimitKind::InputTokens,
            Self::Images => LimitKind::Images,
            Self::Texts => LimitKind::Texts,
            Self::Money => LimitKind::Spend,
        }
    }

    /// A name: `requests`, `input tokens`, `images`, `texts`, `money`.
    #[must_use]
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Money => "money",
            other => other.dimension().as_str(),
        }
    }
}

impl fmt::Display for Unit {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.pad(self.as_str())
    }
}

/// The most limits over spans that one model may have.
pub(crate) const MAX_SPANS: usize = 6;

/// A limit over a span.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub(crate) struct PerSpan {
    pub(crate) unit: Unit,
    pub(crate) limit: u64,
    pub(crate) span: Duration,
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
#[derive(Clone, Copy, Default, PartialEq, Eq, Hash)]
#[must_use]
pub struct Limits {
    pub(crate) rpm: Option<u64>,
    pub(crate) tpm: Option<u64>,
    pub(crate) rpd: Option<u64>,
    pub(crate) spans: [Option<PerSpan>; MAX_SPANS],
    /// More were set than there is room for.
    pub(crate) too_many: bool,
}

impl Limits {
    /// No limit at all.
    pub const fn new() -> Self {
        Self { rpm: None, tpm: None, rpd: None, spans: [None; MAX_SPANS], too_many: false }
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

    /// At most so many of these in any window of `span`, beside the other limits; again for another unit or span, up to six in
    /// all, and in place of the one of the same unit and span. `limit` is from 1 to a trillion, `span` from 100 ms to 31 days.
    ///
    /// The window slides and is exact, as the minute's is, [guard](crate::rate_limit::RateLimitBuilder::guard) and
    /// [margin](crate::rate_limit::RateLimitBuilder::margin) included. A request that does not fit waits, and nobody passes it. 429s neither
    /// lower such a limit nor raise it. The counts are those of this process, from its start: a restart begins them anew. With a
    /// [store](crate::rate_limit::RateLimitBuilder::store) they are those of the whole fleet, and outlast it.
    ///
    /// ```
    /// use std::time::Duration;
    /// use tower_gemini::rate_limit::{Limits, Unit};
    ///
    /// // 3,000 texts a minute, and ten dollars in any ten minutes.
    /// let limits = Limits::new()
    ///     .per(Unit::Texts, 3_000, Duration::from_secs(60))
    ///     .per(Unit::Money, 10_000_000, Duration::from_secs(600));
    /// # let _ = limits;
    /// ```
    pub const fn per(mut self, unit: Unit, limit: u64, span: Duration) -> Self {
        let mut at = 0;
        while at < MAX_SPANS {
            let is_place = match &self.spans[at] {
                None => true,
                Some(other) => other.unit as u8 == unit as u8 && other.span.as_nanos() == span.as_nanos(),
            };
            if is_place {
                self.spans[at] = Some(PerSpan { unit, limit, span });
                return self;
            }
            at += 1;
        }
        self.too_many = true;
        self
    }

    /// The limit over this span that was set with [`per`](Self::per), if there is one.
    #[must_use]
    pub fn of_span(&self, unit: Unit, span: Duration) -> Option<u64> {
        self.spans().find(|one| one.unit == unit && one.span == span).map(|one| one.limit)
    }

    pub(crate) fn spans(&self) -> impl Iterator<Item = PerSpan> {
        self.spans.into_iter().flatten()
    }

    pub(crate) fn counts_money(&self) -> bool {
        self.spans().any(|one| one.unit == Unit::Money)
    }

    /// The limit of this dimension, if there is one; [`of_span`](Self::of_span) has those over a span.
    #[must_use]
    pub const fn of(&self, dimension: LimitKind) -> Option<u64> {
        match dimension {
            LimitKind::RequestsPerMinute => self.rpm,
            LimitKind::InputTokensPerMinute => self.tpm,
            LimitKind::RequestsPerDay => self.rpd,
            _ => None,
        }
    }

    pub(crate) fn check(&self) -> Result<(), ConfigError> {
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
        if self.too_many {
            return Err(ConfigError::new("per", "takes at most six units and spans"));
        }
        let days = Duration::from_millis(100)..=Duration::from_secs(31 * 24 * 3600);
        for one in self.spans() {
            if outside(Some(one.limit), 1000 * BILLION) {
                return Err(ConfigError::new("per", "the limit must be from 1 to 1,000,000,000,000"));
            }
            if !days.contains(&one.span) {
                return Err(ConfigError::new("per", "the span must be from 100 ms to 31 days"));
            }
        }
        Ok(())
    }

    /// The share `margin` of each limit, rounded down, and at least 1.
    pub(crate) fn share(&self, margin: f64) -> Self {
        // The addend keeps 0.29 of 100 from becoming 28.
        let share = |limit: u64| ((limit as f64 * margin + 1e-6).floor() as u64).clamp(1, limit);
        let of_span = |one: PerSpan| PerSpan { limit: share(one.limit), ..one };
        Self {
            rpm: self.rpm.map(share),
            tpm: self.tpm.map(share),
            rpd: self.rpd.map(share),
            spans: self.spans.map(|one| one.map(of_span)),
            ..*self
        }
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
        Some(Self { rpm: limit(found.2), tpm: limit(found.3), rpd: limit(found.4), ..Self::new() })
    }
}

impl fmt::Debug for Limits {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let mut out = f.debug_struct("Limits");
        out.field("rpm", &self.rpm).field("tpm", &self.tpm).field("rpd", &self.rpd);
        if self.spans[0].is_some() {
            out.field("per", &self.spans().map(|one| (one.unit, one.limit, one.span)).collect::<Vec<_>>());
        }
        out.finish()
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
        assert_eq!(limits.share(0.8), Limits { rpm: Some(8), tpm: Some(80), rpd: Some(1), ..Limits::new() });
        assert_eq!(limits.share(0.29).tpm, Some(29));
        assert_eq!(limits.share(1.0), limits);
        assert_eq!(limits.share(0.001), Limits { rpm: Some(1), tpm: Some(1), rpd: Some(1), ..Limits::new() });
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
    fn a_limit_over_a_span_has_its_range_and_takes_its_equals_place() {
        let second = Duration::from_secs(1);
        let limits = Limits::new().per(Unit::Texts, 5, second).per(Unit::Images, 6, second);
        let limits = limits.per(Unit::Texts, 7, second).per(Unit::Texts, 9, 2 * second);
        assert_eq!(limits.spans().map(|one| one.limit).collect::<Vec<_>>(), [7, 6, 9]);
        assert_eq!(
            (limits.of_span(Unit::Texts, second), limits.of_span(Unit::Money, second)),
            (Some(7), None)
        );
        assert_eq!(limits.share(0.5).spans().map(|one| one.limit).collect::<Vec<_>>(), [3, 3, 4]);
        let named =
            |limit, span| Limits::new().per(Unit::Money, limit, span).check().map_err(|error| error.field());
        assert_eq!(named(1, second), Ok(()));
        assert_eq!(named(1_000_000_000_000, 31 * 24 * 3600 * second), Ok(()));
        for (limit, span) in
            [(0, second), (1_000_000_000_001, second), (1, second / 11), (1, 32 * 24 * 3600 * second)]
        {
            assert_eq!(named(limit, span), Err("per"), "{limit} {span:?}");
        }
        let many = |count| (1..=count).fold(Limits::new(), |all, n| all.per(Unit::Requests, 1, n * second));
        assert!(many(6).check().is_ok() && many(7).check().is_err());
    }

    #[test]
    fn a_limit_is_found_by_its_dimension() {
        let limits = Limits::new().requests_per_minute(2).input_tokens_per_minute(3).requests_per_day(4);
        for (dimension, name, limit) in [
            (LimitKind::RequestsPerMinute, "requests per minute", Some(2)),
            (LimitKind::InputTokensPerMinute, "input tokens per minute", Some(3)),
            (LimitKind::RequestsPerDay, "requests per day", Some(4)),
            (LimitKind::Other, "other", None),
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
