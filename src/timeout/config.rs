use std::time::Duration;

use super::TimeoutLayer;
use crate::config::TimeoutConfig;
use crate::error::ConfigError;
use crate::tier::ServiceTier;

/// No setting of this room is longer: tokio's timers end somewhere above two years.
pub(super) const MAX: Duration = Duration::from_secs(24 * 3600);

/// Google's target for the first byte of a flex answer is 1 to 15 minutes
/// ([flex](https://ai.google.dev/gemini-api/docs/flex-inference), read 2026-11-29); one minute more is for the way.
const FLEX_FIRST_BYTE: Duration = Duration::from_secs(16 * 60);
/// Room for one slow answer, and for most of another one.
pub(super) const FLEX_DEADLINE: Duration = Duration::from_secs(30 * 60);

#[derive(Clone, Copy, Debug)]
pub(super) struct Settings {
    pub(super) first_byte: Option<Duration>,
    pub(super) max_first_byte: Duration,
    pub(super) idle: Option<Duration>,
    pub(super) total: Option<Duration>,
    pub(super) server_timeout: bool,
    pub(super) enabled: bool,
    pub(super) flex: Own,
    pub(super) priority: Own,
}

/// What a tier has of its own. In milliseconds, because every service carries it: 0 is nothing.
#[derive(Clone, Copy, Debug, Default)]
pub(super) struct Own {
    first_byte: u32,
    total: u32,
}

const fn millis(millis: u32) -> Option<Duration> {
    if millis == 0 { None } else { Some(Duration::from_millis(millis as u64)) }
}

impl Default for Settings {
    fn default() -> Self {
        Self {
            first_byte: Some(Duration::from_secs(120)),
            max_first_byte: Duration::from_secs(600),
            idle: Some(Duration::from_secs(300)),
            total: None,
            server_timeout: true,
            enabled: true,
            flex: Own::default(),
            priority: Own::default(),
        }
    }
}

impl Settings {
    #[allow(
        clippy::field_reassign_with_default,
        reason = "one setting a line, some of them worked out between"
    )]
    pub(super) fn config(&self) -> TimeoutConfig {
        let or_off = |limit: Option<Duration>| Some(limit.map(Into::into).into());
        let tiers = |of: fn(&Own) -> u32| {
            let tiers = [(ServiceTier::Flex, self.flex), (ServiceTier::Priority, self.priority)];
            Some(tiers.iter().filter_map(|(tier, own)| Some((*tier, millis(of(own))?.into()))).collect())
        };
        let mut config = TimeoutConfig::default();
        config.enabled = Some(self.enabled);
        config.first_byte = or_off(self.first_byte);
        config.max_first_byte = Some(self.max_first_byte.into());
        config.idle = or_off(self.idle);
        config.total = or_off(self.total);
        config.tier_first_byte = tiers(|own| own.first_byte);
        config.tier_total = tiers(|own| own.total);
        config.server_timeout = Some(self.server_timeout);
        config
    }

    /// Doubled for each earlier attempt that took too long, to at most half of the time that is left: where answers are
    /// late by chance and not by their length, the other half is for one more.
    #[inline]
    pub(super) fn first_byte_after(&self, earlier: u32, left: Option<Duration>) -> Option<Duration> {
        let first_byte = self.first_byte?;
        if earlier == 0 {
            return Some(first_byte);
        }
        let grown = first_byte.saturating_mul(2_u32.saturating_pow(earlier));
        let most = left.map_or(self.max_first_byte, |left| self.max_first_byte.min(left / 2));
        Some(grown.min(most.max(first_byte)))
    }

    /// The settings for a request of another tier than the standard one.
    #[cold]
    pub(super) fn of_tier(&self, tier: ServiceTier) -> Self {
        let mut settings = *self;
        let own = match tier {
            ServiceTier::Flex => {
                // Without a limit for the standard tier there is none for a slower one.
                settings.first_byte = settings.first_byte.map(|limit| limit.max(FLEX_FIRST_BYTE));
                self.flex
            }
            ServiceTier::Priority => self.priority,
            ServiceTier::Standard | ServiceTier::Other => Own::default(),
        };
        settings.first_byte = millis(own.first_byte).or(settings.first_byte);
        settings.total = millis(own.total).or(settings.total);
        settings
    }

    /// Whether anything is measured from the call on, apart from the request's deadline.
    pub(super) const fn count_from_the_call(&self) -> bool {
        self.first_byte.is_some() || self.total.is_some()
    }
}

/// Collects settings for a [`TimeoutLayer`]; [`build`](Self::build) checks them.
#[derive(Clone, Copy, Debug, Default)]
#[must_use]
pub struct TimeoutBuilder {
    settings: Settings,
    /// The first setting of a tier that is out of its range.
    bad_tier: Option<&'static str>,
}

impl TimeoutBuilder {
    /// Off, it ends nothing, tells the server nothing and does not look at deadlines, with the same type. Default on.
    pub const fn enabled(mut self, enabled: bool) -> Self {
        self.settings.enabled = enabled;
        self
    }

    /// From `call` to the head of the answer: above zero, at most 1 day; default 120 s. The request's
    /// [`Deadline`](crate::Deadline) counts where it is earlier, whether this is on or off.
    ///
    /// A classifier that reads an error's body, or waits for a stream's first event, does so before it hands the head
    /// on: then that counts as well.
    pub const fn first_byte(mut self, limit: Duration) -> Self {
        self.settings.first_byte = Some(limit);
        self
    }

    /// No limit for the head but the request's deadline, and `total`.
    pub const fn without_first_byte(mut self) -> Self {
        self.settings.first_byte = None;
        self
    }

    /// How far [`first_byte`](Self::first_byte) grows: above zero, at most 1 day; default 600 s. At or below
    /// `first_byte` it does not grow at all.
    ///
    /// Under this crate's retry, `first_byte` is doubled for each earlier attempt at the same request that ended in
    /// `deadline_exceeded`, this layer's own timeouts and the server's 504 alike, but to no more than half of what the
    /// deadline leaves. The deadline and `total` are limits as before.
    pub const fn max_first_byte(mut self, limit: Duration) -> Self {
        self.settings.max_first_byte = limit;
        self
    }

    /// Between two frames of the body, and before the first: above zero, at most 1 day; default 300 s. Any frame
    /// counts, whatever is in it: a comment that keeps a stream alive, or trailers.
    ///
    /// Only the server's silence counts, not the reader's; see the [module documentation](super).
    ///
    /// Between two events of a stream a model may think, draw an image or run a tool, as before the first one, and what is
    /// cut after output cannot be retried. So the default is for connections that are dead, and not for slow models.
    pub const fn idle(mut self, limit: Duration) -> Self {
        self.settings.idle = Some(limit);
        self
    }

    /// No limit for pauses of the body.
    pub const fn without_idle(mut self) -> Self {
        self.settings.idle = None;
        self
    }

    /// From `call` to the end of the body: above zero, at most 1 day; default none. The one limit that counts a slow
    /// reader's time, too. It costs a look at the clock for each frame.
    pub const fn total(mut self, limit: Duration) -> Self {
        self.settings.total = Some(limit);
        self
    }

    /// The [first byte](Self::first_byte) of requests of this tier: from 1 ms to 1 day, in whole milliseconds. Default: that
    /// of the standard tier, and for flex at least 16 minutes, because 1 to 15 are
    /// [normal](https://ai.google.dev/gemini-api/docs/flex-inference) (read 2026-11-29).
    ///
    /// Only [`Flex`](ServiceTier::Flex) and [`Priority`](ServiceTier::Priority) have limits of their own.
    pub fn tier_first_byte(mut self, tier: ServiceTier, limit: Duration) -> Self {
        self.tier(tier, limit, "tier_first_byte", |own| &mut own.first_byte);
        self
    }

    /// The [total](Self::total) of requests of this tier: from 1 ms to 1 day, in whole milliseconds. Default: that of the
    /// standard tier, which has none.
    pub fn tier_total(mut self, tier: ServiceTier, limit: Duration) -> Self {
        self.tier(tier, limit, "tier_total", |own| &mut own.total);
        self
    }

    fn tier(
        &mut self,
        tier: ServiceTier,
        limit: Duration,
        field: &'static str,
        place: fn(&mut Own) -> &mut u32,
    ) {
        let millis = u32::try_from(limit.as_millis()).ok().filter(|ms| *ms > 0 && limit <= MAX);
        let own = match tier {
            ServiceTier::Flex => Some(&mut self.settings.flex),
            ServiceTier::Priority => Some(&mut self.settings.priority),
            ServiceTier::Standard | ServiceTier::Other => None,
        };
        match (own, millis) {
            (Some(own), Some(millis)) => *place(own) = millis,
            _ => {
                self.bad_tier.get_or_insert(field);
            }
        }
    }

    /// Does not tell the server how long the attempt may take. Default: the header `X-Server-Timeout` does; see
    /// the [module documentation](super).
    pub const fn without_server_timeout(mut self) -> Self {
        self.settings.server_timeout = false;
        self
    }

    /// The layer.
    ///
    /// # Errors
    ///
    /// [`ConfigError`] for the first setting that is out of its range.
    pub fn build(self) -> Result<TimeoutLayer, ConfigError> {
        let Settings { first_byte, max_first_byte, idle, total, .. } = self.settings;
        if let Some(field) = self.bad_tier {
            return Err(ConfigError::new(field, "must be for flex or priority, from 1 ms to 1 day"));
        }
        let rules = [
            (first_byte, "first_byte"),
            (Some(max_first_byte), "max_first_byte"),
            (idle, "idle"),
            (total, "total"),
        ];
        let fits = |limit: Duration| !limit.is_zero() && limit <= MAX;
        match rules.into_iter().find(|(limit, _)| !limit.is_none_or(fits)) {
            Some((_, field)) => Err(ConfigError::new(field, "must be above zero and at most 1 day")),
            None => Ok(TimeoutLayer { settings: self.settings }),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::timeout::DeadlineLayer;

    #[test]
    fn bad_settings_name_the_field_and_the_rule() {
        let b = TimeoutBuilder::default;
        for bad in [Duration::ZERO, MAX + Duration::from_nanos(1), Duration::MAX] {
            for (result, field) in [
                (b().first_byte(bad).build().err(), "first_byte"),
                (b().max_first_byte(bad).build().err(), "max_first_byte"),
                (b().idle(bad).build().err(), "idle"),
                (b().total(bad).build().err(), "total"),
                (DeadlineLayer::new(bad).err(), "deadline"),
            ] {
                let error = result.expect(field);
                assert_eq!(error.field(), field);
                assert!(error.to_string().contains(error.rule()));
            }
        }
    }

    #[test]
    fn a_tier_has_limits_of_its_own_or_those_of_the_standard_tier() {
        let b = TimeoutBuilder::default;
        for bad in [Duration::ZERO, MAX + Duration::from_nanos(1)] {
            for (result, field) in [
                (b().tier_first_byte(ServiceTier::Flex, bad).build().err(), "tier_first_byte"),
                (b().tier_total(ServiceTier::Priority, bad).build().err(), "tier_total"),
                (DeadlineLayer::default().flex(bad).err(), "flex"),
            ] {
                assert_eq!(result.expect(field).field(), field);
            }
        }
        assert!(b().tier_total(ServiceTier::Flex, Duration::from_nanos(1)).build().is_err());
        assert!(b().tier_total(ServiceTier::Standard, MAX).build().is_err(), "that is `total`");
        let secs = Duration::from_secs;
        let of = |builder: TimeoutBuilder, tier| {
            let settings = builder.build().expect("valid").settings.of_tier(tier);
            (settings.first_byte.map(|d| d.as_secs()), settings.total.map(|d| d.as_secs()))
        };
        assert_eq!(of(b(), ServiceTier::Flex), (Some(960), None));
        assert_eq!(of(b().first_byte(secs(2_000)), ServiceTier::Flex), (Some(2_000), None));
        assert_eq!(of(b().without_first_byte(), ServiceTier::Flex), (None, None));
        assert_eq!(of(b().tier_first_byte(ServiceTier::Flex, secs(60)), ServiceTier::Flex), (Some(60), None));
        assert_eq!(of(b(), ServiceTier::Priority), (Some(120), None));
        let own =
            b().tier_first_byte(ServiceTier::Priority, secs(20)).tier_total(ServiceTier::Priority, secs(40));
        assert_eq!(of(own, ServiceTier::Priority), (Some(20), Some(40)));
        assert_eq!(of(own, ServiceTier::Flex), (Some(960), None));
        assert_eq!(of(own, ServiceTier::Other), (Some(120), None));
    }

    #[test]
    fn the_defaults_and_the_longest_are_valid() {
        assert!(TimeoutBuilder::default().build().is_ok());
        let longest = TimeoutBuilder::default().first_byte(MAX).max_first_byte(MAX).idle(MAX).total(MAX);
        assert!(longest.build().is_ok());
        assert!(DeadlineLayer::new(MAX).is_ok());
    }
}
