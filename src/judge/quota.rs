//! Which quotas an answer names: in its details, its metadata or its message. Pure.

use bytes::Bytes;

use super::fields::{Fields, Violation};
use super::message;
use crate::verdict::{Dimension, Period, Piece, QuotaViolation};

/// Which quotas an answer names, and whether any of them is zero.
pub(super) struct Quotas {
    pub(super) violations: Vec<QuotaViolation>,
    pub(super) zero: bool,
    /// A limit is left out, which is how a zero is written, and something speaks against it.
    pub(super) doubtful: bool,
}

/// Every violation, from the details, else from the metadata, else from the message.
///
/// `clears` says that the answer does not name a delay that is longer than a short window.
pub(super) fn quota(fields: &Fields<'_>, body: &Bytes, clears: bool) -> Quotas {
    let name = |text: &str| Piece::of(body, text);
    let (mut out, mut doubtful) = (Vec::new(), false);
    if fields.violations.len() > 0 {
        // Zero is written by leaving it out: proto3's JSON has no zeros. Where the message names limits, it
        // decides; where it does not, an id without a value is a zero.
        let named_zero = fields.violations.iter().any(|v| v.value.is_none())
            && (message::quota_lines(&fields.message).any(|line| line.limit == Some(0))
                || message::says_zero(&fields.message));
        out.reserve_exact(fields.violations.len());
        for v in fields.violations.iter() {
            let named = || {
                let metric = v.metric.as_deref()?;
                message::quota_lines(&fields.message).find(|line| line.metric == Some(metric))?.limit
            };
            let limit = v.value.or(named_zero.then_some(0)).or_else(named);
            let (dimension, period) = meaning(words(v));
            let omitted = limit.is_none() && v.id.is_some() && !v.not_omitted;
            // Zero is what it may mean, and a quota of a minute that a server has named without its value is as likely
            // (vercel/ai's and gemini-cli's own fixtures; read 2026-11). Only a delay that no minute needs decides.
            let doubted = omitted && clears && matches!(period, Period::Second | Period::Minute);
            doubtful |= doubted;
            out.push(QuotaViolation {
                dimension,
                period,
                limit,
                zero: limit == Some(0) || (omitted && !doubted),
                metric: v.metric.as_deref().map(name),
                id: v.id.as_deref().map(name),
                model: v.model.as_deref().map(name),
            });
        }
    } else if fields.metadata.quota_metric.is_some() || fields.metadata.quota_limit.is_some() {
        let m = &fields.metadata;
        let names =
            [&m.quota_limit, &m.quota_unit, &m.quota_metric].into_iter().flatten().map(|s| s.as_ref());
        let (dimension, period) = meaning(names);
        out.push(QuotaViolation {
            dimension,
            period,
            limit: m.quota_limit_value,
            zero: m.quota_limit_value == Some(0),
            metric: m.quota_metric.as_deref().map(name),
            id: m.quota_limit.as_deref().map(name),
            model: m.model.as_deref().map(name),
        });
    } else {
        let mut lines = message::quota_lines(&fields.message).take(32).peekable();
        let others = lines.peek().is_none().then(|| message::too_many(&fields.message));
        for line in lines.chain(others.into_iter().flatten()) {
            let names = [line.limit_name, line.metric].into_iter().flatten();
            let (dimension, period) = meaning(names);
            if line.metric.is_none() && period == Period::Unknown {
                continue;
            }
            let v = QuotaViolation {
                dimension,
                period,
                limit: line.limit,
                zero: line.limit == Some(0),
                metric: line.metric.map(name),
                id: None,
                model: line.model.map(name),
            };
            if !out.contains(&v) {
                out.push(v);
            }
        }
    }
    let zero = out.iter().any(|v| v.zero);
    Quotas { violations: out, zero, doubtful }
}

fn words<'v>(v: &'v Violation<'_>) -> impl Iterator<Item = &'v str> {
    [&v.id, &v.metric].into_iter().flatten().map(|s| s.as_ref())
}

/// What the names of a quota say: what it counts, and over which window (`PerDay`, `per_day`, `per day`,
/// `1/min/{…}`).
///
/// The first name that says anything decides: the id is exact, the metric is shared by several windows.
fn meaning<'a>(names: impl Iterator<Item = &'a str>) -> (Dimension, Period) {
    let per = |before: &str| before.eq_ignore_ascii_case("per") || before == "1";
    let (mut dimension, mut period) = (None, Period::Unknown);
    for name in names {
        let (mut here, mut before) = (None, "");
        for word in words_of(name) {
            let is = |other: &str| word.eq_ignore_ascii_case(other);
            let open = period == Period::Unknown;
            match word.as_bytes()[0] | 0x20 {
                b'o' if is("output") => here = Some(Dimension::Other),
                b'e' if is("enqueued") => here = Some(Dimension::Other),
                b't' if here != Some(Dimension::Other) && (is("tokens") || is("token")) => {
                    here = Some(Dimension::InputTokens);
                }
                b'r' if here.is_none() && (is("requests") || is("request")) => {
                    here = Some(Dimension::Requests);
                }
                b'd' if open && (is("daily") || per(before) && is("day") || before == "1" && is("d")) => {
                    period = Period::Day
                }
                b'm' if open && (is("monthly") || per(before) && is("month")) => period = Period::Month,
                b'm' if open && per(before) && (is("minute") || is("min")) => period = Period::Minute,
                b'h' if open && per(before) && is("hour") => period = Period::Hour,
                b's' if open && per(before) && is("second") => period = Period::Second,
                _ => {}
            }
            before = word;
        }
        dimension = dimension.or(here);
        if dimension.is_some() && period != Period::Unknown {
            break;
        }
    }
    (dimension.unwrap_or(Dimension::Other), period)
}

/// The words of an identifier in any case: `InputTokensPerModel`, `input_tokens_per_model`, "input tokens".
pub(super) fn words_of(name: &str) -> impl Iterator<Item = &str> {
    let mut rest = name;
    std::iter::from_fn(move || {
        rest = rest.trim_start_matches(|c: char| !c.is_ascii_alphanumeric());
        let bytes = rest.as_bytes();
        let mut end = usize::from(!bytes.is_empty());
        while bytes.get(end).is_some_and(|b| b.is_ascii_lowercase() || b.is_ascii_digit()) {
            end += 1;
        }
        let (word, after) = rest.split_at(end);
        rest = after;
        (!word.is_empty()).then_some(word)
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn ids_are_read_as_words() {
        for (name, expected) in [
            ("GenerateRequestsPerMinutePerProjectPerModel-FreeTier", Period::Minute),
            ("GenerateRequestsPerDayPerProjectPerModel", Period::Day),
            ("svc/generate_requests_per_model_per_day", Period::Day),
            ("Gemini25ProRequestsPerDay", Period::Day),
            ("Requests per day per user per tier", Period::Day),
            ("PerSecondThing", Period::Second),
            ("1/min/{project}/{region}", Period::Minute),
            ("online_prediction_requests_per_base_model", Period::Unknown),
            ("Per", Period::Unknown),
            ("RequestsPerMonth", Period::Month),
            ("monthly_spend", Period::Month),
            ("daily_requests", Period::Day),
            ("1/d/{project}", Period::Day),
            ("requests_per_hour", Period::Hour),
            ("requests_per_min", Period::Minute),
            ("requests_per_minute_per_day", Period::Minute),
            // Words that begin like a period, and periods that nothing is counted by.
            ("ModelRequestsPerDay", Period::Day),
            ("DataHeavyServiceRequestsPerMinute", Period::Minute),
            ("per_model_per_host_per_data_per_service", Period::Unknown),
            ("day_of_month_hour_minute_second", Period::Unknown),
            ("per_d", Period::Unknown),
            ("1/data", Period::Unknown),
            ("d/1", Period::Unknown),
            ("per_", Period::Unknown),
            ("", Period::Unknown),
        ] {
            assert_eq!(meaning([name].into_iter()).1, expected, "{name}");
        }
    }

    #[test]
    fn what_one_name_does_not_say_the_next_one_may() {
        let read = |names: [&'static str; 2]| meaning(names.into_iter());
        assert_eq!(read(["SomeRequests", "svc/thing_per_day"]), (Dimension::Requests, Period::Day));
        assert_eq!(read(["ThingPerDay", "svc/requests_per_minute"]), (Dimension::Requests, Period::Day));
    }

    #[test]
    fn what_is_counted() {
        for (name, expected) in [
            ("GenerateContentInputTokensPerModelPerMinute-FreeTier", Dimension::InputTokens),
            ("generate_content_paid_tier_2_input_token_count", Dimension::InputTokens),
            ("GenerateRequestsPerMinutePerProjectPerModel", Dimension::Requests),
            ("ImagesPerMinute", Dimension::Other),
            ("BatchEnqueuedTokens", Dimension::Other),
            ("EnqueuedTokensPerDay", Dimension::Other),
            ("GenerateContentOutputTokensPerMinute", Dimension::Other),
            ("tokens_per_request", Dimension::InputTokens),
            ("request_tokens", Dimension::InputTokens),
            ("token_count", Dimension::InputTokens),
            ("request_count", Dimension::Requests),
            ("ResearchTrafficPerDay", Dimension::Other),
        ] {
            assert_eq!(meaning([name].into_iter()).0, expected, "{name}");
        }
    }
}
