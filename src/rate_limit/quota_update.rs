//! What a 429 teaches, worked out from its verdict. Pure.

use super::queue::NEVER;
use super::window::Nanos;
use crate::request::limits::LimitKind;
use crate::verdict::{Dimension as Counted, Kind, Period, QuotaViolation, Sent, Verdict};

/// A delay for a spent day is believed from here on. Shorter ones are the time to the next full minute, which Google
/// sends with daily quotas as well.
const BELIEVED: Nanos = 3600 * 1_000_000_000;

/// What one quota violation teaches.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct QuotaUpdate {
    pub(super) dimension: LimitKind,
    /// The limit that the answer named.
    pub(super) limit: Option<u64>,
    /// When it clears; `None` where the server did not say.
    pub(super) until: Option<Nanos>,
    /// It does not clear while anybody waits.
    pub(super) spent: bool,
    /// Nobody knows when it clears.
    pub(super) zero: bool,
}

/// The updates_from of a verdict, one for each violation that it names; none if it does not speak of quotas.
pub(super) fn updates_from(verdict: &Verdict, now: Nanos, day_ends: Nanos) -> Vec<QuotaUpdate> {
    let Some(kind @ (Kind::RateLimited | Kind::QuotaExhausted)) = verdict.kind() else { return Vec::new() };
    if verdict.sent() == Sent::No {
        // Another layer's word, not the server's.
        return Vec::new();
    }
    let delay =
        verdict.server_delay().map(|delay| u64::try_from(delay.at_least().as_nanos()).unwrap_or(NEVER));
    let heard = Heard { exhausted: kind == Kind::QuotaExhausted, delay, now, day_ends };
    match verdict.quota() {
        [] if speaks_of_spend(verdict) => vec![heard.money(Period::Unknown)],
        [] if heard.exhausted => vec![heard.spent(LimitKind::Other, None, None)],
        // A spell of 429s that name nothing and no time is left to the retry layer's backoff and the circuit breaker.
        [] if heard.delay.is_none() => Vec::new(),
        [] => vec![heard.passing(LimitKind::Other, None)],
        violations => violations.iter().map(|violation| heard.lesson(violation)).collect(),
    }
}

struct Heard {
    exhausted: bool,
    delay: Option<Nanos>,
    now: Nanos,
    day_ends: Nanos,
}

/// Whether it is about money that is counted over a while, and not about a month's cap or credits.
fn speaks_of_spend(verdict: &Verdict) -> bool {
    let message = verdict.message().to_ascii_lowercase();
    let says = |words: &[&str]| words.iter().any(|word| message.contains(word));
    says(&["spend", "spent"]) && !says(&["month", "credit"])
}

/// Whether a quota counts money, by its name.
fn counts_money(violation: &QuotaViolation) -> bool {
    let names = [violation.id(), violation.metric()];
    names.into_iter().flatten().any(|name| name.to_ascii_lowercase().contains("spend"))
}

impl Heard {
    fn lesson(&self, violation: &QuotaViolation) -> QuotaUpdate {
        let dimension = match (violation.dimension(), violation.period()) {
            (Counted::Requests, Period::Day) => LimitKind::RequestsPerDay,
            (Counted::Requests, Period::Minute) => LimitKind::RequestsPerMinute,
            (Counted::InputTokens, Period::Minute) => LimitKind::InputTokensPerMinute,
            _ => LimitKind::Other,
        };
        // A limit whose dimension is not counted here cannot be kept.
        let limit = violation.limit().filter(|_| dimension != LimitKind::Other);
        match violation.period() {
            period if counts_money(violation) && !violation.is_zero() => self.money(period),
            _ if violation.is_zero() => self.spent(dimension, None, None),
            Period::Day => self.spent(dimension, limit, Some(self.day_ends)),
            Period::Month => self.spent(dimension, None, None),
            Period::Unknown if self.exhausted => self.spent(dimension, None, None),
            _ => self.passing(dimension, limit),
        }
    }

    /// Clears within minutes, when the server says.
    fn passing(&self, dimension: LimitKind, limit: Option<u64>) -> QuotaUpdate {
        let until = self.delay.map(|delay| self.now.saturating_add(delay));
        QuotaUpdate { dimension, limit, until, spent: false, zero: false }
    }

    /// Money was spent too fast: it clears when the server says, and a month's in no time that anybody waits for.
    fn money(&self, period: Period) -> QuotaUpdate {
        let window = !matches!(period, Period::Day | Period::Month);
        match self.delay.filter(|_| window) {
            Some(delay) => {
                let until = Some(self.now.saturating_add(delay));
                QuotaUpdate { dimension: LimitKind::Spend, limit: None, until, spent: true, zero: false }
            }
            None => self.spent(LimitKind::Spend, None, Some(self.day_ends).filter(|_| period == Period::Day)),
        }
    }

    /// Clears at `reset`, at a time that the server names credibly, or nobody knows when.
    fn spent(&self, dimension: LimitKind, limit: Option<u64>, reset: Option<Nanos>) -> QuotaUpdate {
        let said = self.delay.filter(|delay| *delay >= BELIEVED).map(|delay| self.now.saturating_add(delay));
        let until = said.or(reset);
        QuotaUpdate {
            dimension,
            limit,
            until: Some(until.unwrap_or(NEVER)),
            spent: true,
            zero: until.is_none(),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use bytes::Bytes;
    use http::{HeaderMap, StatusCode};

    const SECOND: Nanos = 1_000_000_000;
    const NOW: Nanos = 100 * SECOND;
    const MIDNIGHT: Nanos = 50_000 * SECOND;

    fn taught(violations: &[(&str, Option<&str>)], delay: Option<&str>) -> Vec<QuotaUpdate> {
        let violations: Vec<String> = violations
            .iter()
            .map(|(id, value)| {
                let value = value.map_or(String::new(), |value| format!(r#","quotaValue":"{value}""#));
                let metric = if id.contains("Tokens") { "input_token_count" } else { "requests" };
                format!(
                    r#"{{"quotaMetric":"generativelanguage.googleapis.com/generate_content_free_tier_{metric}","quotaId":"{id}"{value}}}"#
                )
            })
            .collect();
        let delay = delay.map_or(String::new(), |delay| {
            format!(r#",{{"@type":"type.googleapis.com/google.rpc.RetryInfo","retryDelay":"{delay}"}}"#)
        });
        let body = format!(
            r#"{{"error":{{"code":429,"status":"RESOURCE_EXHAUSTED","message":"quota","details":[
              {{"@type":"type.googleapis.com/google.rpc.QuotaFailure","violations":[{}]}}{delay}]}}}}"#,
            violations.join(",")
        );
        judge(&body)
    }

    fn judge(body: &str) -> Vec<QuotaUpdate> {
        let body = Bytes::from(body.to_owned());
        updates_from(
            &Verdict::from_parts(StatusCode::TOO_MANY_REQUESTS, &HeaderMap::new(), body),
            NOW,
            MIDNIGHT,
        )
    }

    const RPM: &str = "GenerateRequestsPerMinutePerProjectPerModel-FreeTier";
    const TPM: &str = "GenerateContentInputTokensPerModelPerMinute-FreeTier";
    const RPD: &str = "GenerateRequestsPerDayPerProjectPerModel-FreeTier";
    const TPD: &str = "GenerateContentInputTokensPerModelPerDay-FreeTier";

    #[test]
    fn each_violation_teaches_its_own_dimension() {
        let until = Some(NOW + 6 * SECOND);
        let passing = |dimension, limit| QuotaUpdate {
            dimension,
            limit: Some(limit),
            until,
            spent: false,
            zero: false,
        };
        assert_eq!(
            taught(&[(RPM, Some("15")), (TPM, Some("250000"))], Some("5s")),
            [passing(LimitKind::RequestsPerMinute, 15), passing(LimitKind::InputTokensPerMinute, 250_000)],
            "a delay of whole seconds is cut off, so one is added"
        );
    }

    #[test]
    fn a_spent_day_ends_at_midnight_whatever_the_delay() {
        let day = |until| QuotaUpdate {
            dimension: LimitKind::RequestsPerDay,
            limit: Some(20),
            until: Some(until),
            spent: true,
            zero: false,
        };
        assert_eq!(taught(&[(RPD, Some("20"))], Some("24s")), [day(MIDNIGHT)]);
        assert_eq!(taught(&[(RPD, Some("20"))], None), [day(MIDNIGHT)]);
        // A long one is credible.
        assert_eq!(taught(&[(RPD, Some("20"))], Some("35640.5s")), [day(NOW + 35_640 * SECOND + SECOND / 2)]);
        let tokens = taught(&[(TPD, Some("1000"))], Some("5s"));
        assert_eq!((tokens[0].dimension, tokens[0].limit, tokens[0].spent), (LimitKind::Other, None, true));
    }

    #[test]
    fn a_quota_of_zero_is_spent_with_no_end_in_sight() {
        for lesson in [taught(&[(RPM, Some("0"))], Some("30s")), taught(&[(RPD, None)], None)] {
            assert!(lesson[0].zero && lesson[0].spent && lesson[0].limit.is_none(), "{lesson:?}");
            assert_eq!(lesson[0].until, Some(NEVER));
        }
        // A quota of a minute that was named without its value is doubted, and nothing is shut for all.
        assert!(taught(&[(RPM, None)], None).iter().all(|lesson| !lesson.zero && !lesson.spent));
        let cap = judge(
            r#"{"error":{"code":429,"status":"RESOURCE_EXHAUSTED","message":"Your project has exceeded its monthly spending cap."}}"#,
        );
        assert!(cap[0].zero && cap[0].spent && cap[0].dimension == LimitKind::Other);
    }

    #[test]
    fn a_spend_limit_closes_until_the_server_says() {
        let spend = |until: Option<Nanos>| QuotaUpdate {
            dimension: LimitKind::Spend,
            limit: None,
            until: Some(until.unwrap_or(NEVER)),
            spent: true,
            zero: until.is_none(),
        };
        let soon = Some(NOW + 313 * SECOND);
        assert_eq!(taught(&[("SpendPerTenMinutesPerProject", Some("10"))], Some("312s")), [spend(soon)]);
        assert_eq!(taught(&[("SpendPerTenMinutesPerProject", Some("10"))], None), [spend(None)]);
        assert_eq!(taught(&[("SpendPerMonth", Some("10"))], Some("312s")), [spend(None)]);
        assert_eq!(taught(&[("SpendPerDay", Some("10"))], Some("312s")), [spend(Some(MIDNIGHT))]);
        let said = |message: &str| {
            judge(&format!(
                r#"{{"error":{{"code":429,"status":"RESOURCE_EXHAUSTED","message":"{message}"}}}}"#
            ))
        };
        let rolling = "You exceeded your spending limit for the last 10 minutes. Please retry in 312.5s.";
        assert_eq!(said(rolling), [spend(Some(NOW + 312 * SECOND + SECOND / 2))]);
        let capped = said("Your project has exceeded its monthly spending cap. Please retry in 24s.");
        assert_eq!((capped[0].dimension, capped[0].zero), (LimitKind::Other, true));
    }

    #[test]
    fn a_month_and_an_exhausted_quota_of_no_period_have_no_end_in_sight() {
        let endless = QuotaUpdate {
            dimension: LimitKind::Other,
            limit: None,
            until: Some(NEVER),
            spent: true,
            zero: true,
        };
        assert_eq!(taught(&[("RequestsPerMonth", Some("5"))], Some("24s")), [endless]);
        assert_eq!(taught(&[("SomeRequests", Some("5"))], Some("600s")), [endless], "absurdly long");
        let passing = QuotaUpdate {
            dimension: LimitKind::Other,
            limit: None,
            until: Some(NOW + 6 * SECOND),
            spent: false,
            zero: false,
        };
        assert_eq!(taught(&[("SomeRequests", Some("5"))], Some("5s")), [passing]);
    }

    #[test]
    fn a_bare_429_teaches_nothing() {
        let bare = judge(
            r#"{"error":{"code":429,"status":"RESOURCE_EXHAUSTED","message":"Resource has been exhausted (e.g. check quota)."}}"#,
        );
        assert_eq!(bare, []);
        let delayed = judge(
            r#"{"error":{"code":429,"status":"RESOURCE_EXHAUSTED","message":"Please retry in 5.5s."}}"#,
        );
        assert_eq!((delayed.len(), delayed[0].until), (1, Some(NOW + 5 * SECOND + SECOND / 2)));
    }

    #[test]
    fn what_is_no_quota_teaches_nothing() {
        let full = r#"{"error":{"code":429,"status":"RESOURCE_EXHAUSTED","message":"No capacity available","details":[
          {"@type":"type.googleapis.com/google.rpc.ErrorInfo","reason":"MODEL_CAPACITY_EXHAUSTED","domain":"cloudcode-pa.googleapis.com"}]}}"#;
        assert_eq!(judge(full), []);
        assert_eq!(updates_from(&Verdict::default(), NOW, MIDNIGHT), []);
    }
}
