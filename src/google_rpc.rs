//! `google.rpc.Status` and its details, read tolerantly.
//!
//! Google describes errors with [`google.rpc.Status`] and a list of typed details ([error model], read
//! 2026-11). What arrives is less tidy: arrays around the object, details without `@type`, numbers where
//! strings belong, keys in snake case, relays that wrap the whole thing once more as a string. Nothing here
//! fails on any of that: what cannot be read is left out.
//!
//! [`google.rpc.Status`]: https://github.com/googleapis/googleapis/blob/master/google/rpc/status.proto
//! [error model]: https://cloud.google.com/apis/design/errors

use std::collections::BTreeMap;
use std::fmt;
use std::time::Duration;

use serde_json::{Map, Value};

use crate::redact::redact;

/// The canonical error codes of `google.rpc.Code`. Prints as the canonical name (`RESOURCE_EXHAUSTED`).
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
#[allow(missing_docs, reason = "the names are the documentation: they are google.rpc.Code's own")]
#[non_exhaustive]
pub enum Code {
    Cancelled,
    Unknown,
    InvalidArgument,
    DeadlineExceeded,
    NotFound,
    AlreadyExists,
    PermissionDenied,
    ResourceExhausted,
    FailedPrecondition,
    Aborted,
    OutOfRange,
    Unimplemented,
    Internal,
    Unavailable,
    DataLoss,
    Unauthenticated,
}

impl Code {
    const NAMES: [(&'static str, Self); 16] = [
        ("CANCELLED", Self::Cancelled),
        ("UNKNOWN", Self::Unknown),
        ("INVALID_ARGUMENT", Self::InvalidArgument),
        ("DEADLINE_EXCEEDED", Self::DeadlineExceeded),
        ("NOT_FOUND", Self::NotFound),
        ("ALREADY_EXISTS", Self::AlreadyExists),
        ("PERMISSION_DENIED", Self::PermissionDenied),
        ("RESOURCE_EXHAUSTED", Self::ResourceExhausted),
        ("FAILED_PRECONDITION", Self::FailedPrecondition),
        ("ABORTED", Self::Aborted),
        ("OUT_OF_RANGE", Self::OutOfRange),
        ("UNIMPLEMENTED", Self::Unimplemented),
        ("INTERNAL", Self::Internal),
        ("UNAVAILABLE", Self::Unavailable),
        ("DATA_LOSS", Self::DataLoss),
        ("UNAUTHENTICATED", Self::Unauthenticated),
    ];

    /// The code of a canonical name, `None` for anything else.
    #[must_use]
    pub fn from_name(name: &str) -> Option<Self> {
        Self::NAMES.iter().find(|(n, _)| *n == name).map(|(_, code)| *code)
    }

    /// The canonical name.
    #[must_use]
    pub fn as_str(self) -> &'static str {
        Self::NAMES.iter().find(|(_, code)| *code == self).map_or("UNKNOWN", |(name, _)| name)
    }

    /// The code of a number of `google/rpc/code.proto`, as long-running operations have it; 0 is OK and `None`.
    pub(crate) fn from_number(number: u16) -> Option<Self> {
        // NOTE: `NAMES` is in the order of the numbers, from 1 on; a test holds it to that.
        Self::NAMES.get(usize::from(number).checked_sub(1)?).map(|(_, code)| *code)
    }

    /// The code that Google's own mapping gives to an HTTP status, where exactly one fits.
    pub(crate) fn from_http(status: u16) -> Option<Self> {
        Some(match status {
            400 => Self::InvalidArgument,
            401 => Self::Unauthenticated,
            403 => Self::PermissionDenied,
            404 => Self::NotFound,
            409 => Self::Aborted,
            429 => Self::ResourceExhausted,
            499 => Self::Cancelled,
            500 => Self::Internal,
            501 => Self::Unimplemented,
            503 => Self::Unavailable,
            504 => Self::DeadlineExceeded,
            _ => return None,
        })
    }
}

impl fmt::Display for Code {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.pad(self.as_str())
    }
}

/// Reads a duration in any of the spellings Google uses: `31s`, `45.837906927s`, `856.559356ms`,
/// `10h17m5.723541104s`. A bare number means seconds.
///
/// `None` for anything negative, malformed, not finite, or longer than `u64::MAX` seconds. Fractions finer
/// than a nanosecond are cut off.
///
/// ```
/// use std::time::Duration;
/// use tower_gemini::google_rpc::parse_duration;
///
/// assert_eq!(parse_duration("856.559356ms"), Some(Duration::from_nanos(856_559_356)));
/// assert_eq!(parse_duration("10h17m5.5s"), Some(Duration::from_millis(37_025_500)));
/// assert_eq!(parse_duration("-3s"), None);
/// ```
#[must_use]
pub fn parse_duration(text: &str) -> Option<Duration> {
    let (duration, rest) = leading_duration(text.trim())?;
    rest.is_empty().then_some(duration)
}

/// The duration at the start of `text`, and what follows it. For prose: `31.5s. Or later` stops before the
/// full stop.
pub(crate) fn leading_duration(text: &str) -> Option<(Duration, &str)> {
    let bytes = text.as_bytes();
    let mut total = Duration::ZERO;
    let mut at = 0;
    let mut segments = 0;
    loop {
        let number = decimal(&bytes[at..]);
        if number.len == 0 {
            return (segments > 0).then(|| (total, &text[at..]));
        }
        let after = at + number.len;
        let (unit_nanos, unit_len) = match &bytes[after..] {
            [b'n', b's', ..] => (1, 2),
            [b'u', b's', ..] => (1_000, 2),
            [0xC2, 0xB5, b's', ..] | [0xCE, 0xBC, b's', ..] => (1_000, 3),
            [b'm', b's', ..] => (1_000_000, 2),
            [b's', ..] => (1_000_000_000, 1),
            [b'm', ..] => (60_000_000_000, 1),
            [b'h', ..] => (3_600_000_000_000, 1),
            [b'd', ..] => (86_400_000_000_000, 1),
            // A bare number stands for seconds, but not as the tail of a composite ("10h17" is cut text).
            _ if segments == 0 => (1_000_000_000, 0),
            _ => return Some((total, &text[at..])),
        };
        let segment = number.times(unit_nanos)?;
        // NOTE: `1d2h` is a duration, `30 seconds` is one of 30 s with a rest; a unit is one letter or two.
        total = total.checked_add(segment)?;
        segments += 1;
        at = after + unit_len;
        if segments > 8 {
            return Some((total, &text[at..]));
        }
    }
}

struct Decimal {
    whole: u64,
    /// Billionths.
    fraction: u64,
    overflow: bool,
    len: usize,
}

impl Decimal {
    fn times(&self, unit_nanos: u64) -> Option<Duration> {
        if self.overflow {
            return None;
        }
        let nanos = u128::from(self.whole).checked_mul(u128::from(unit_nanos))?
            + u128::from(self.fraction) * u128::from(unit_nanos) / 1_000_000_000;
        let seconds = u64::try_from(nanos / 1_000_000_000).ok()?;
        // The remainder is below 10^9 and fits.
        Some(Duration::new(seconds, u32::try_from(nanos % 1_000_000_000).ok()?))
    }
}

/// Digits, optionally a point and more digits. The point is taken only where a digit follows it, so that a
/// sentence's full stop stays outside.
fn decimal(bytes: &[u8]) -> Decimal {
    let mut d = Decimal { whole: 0, fraction: 0, overflow: false, len: 0 };
    while let Some(digit @ b'0'..=b'9') = bytes.get(d.len) {
        match d.whole.checked_mul(10).and_then(|w| w.checked_add(u64::from(digit - b'0'))) {
            Some(whole) => d.whole = whole,
            None => d.overflow = true,
        }
        d.len += 1;
    }
    if d.len > 0 && bytes.get(d.len) == Some(&b'.') && bytes.get(d.len + 1).is_some_and(u8::is_ascii_digit) {
        d.len += 1;
        let mut scale = 100_000_000;
        while let Some(digit @ b'0'..=b'9') = bytes.get(d.len) {
            d.fraction += u64::from(digit - b'0') * scale;
            scale /= 10;
            d.len += 1;
        }
    }
    d
}

/// A `google.rpc.Status`, as it stands in an error body.
#[derive(Clone, Debug, Default, PartialEq)]
#[non_exhaustive]
pub struct Status {
    /// The numeric code, which in HTTP bodies is the HTTP status.
    pub code: Option<u16>,
    /// The name of the status (`RESOURCE_EXHAUSTED`), or the Interactions API's string code (`not_found`).
    pub status: Option<String>,
    /// The message, with keys and tokens replaced.
    pub message: String,
    /// The typed details, in the order of the body.
    pub details: Vec<Detail>,
}

/// One of a status' typed details.
#[derive(Clone, Debug, PartialEq)]
#[allow(missing_docs, reason = "the fields are google/rpc/error_details.proto's own")]
#[non_exhaustive]
pub enum Detail {
    /// `google.rpc.ErrorInfo`: a machine-readable reason.
    ErrorInfo { reason: String, domain: String, metadata: BTreeMap<String, String> },
    /// `google.rpc.QuotaFailure`; each violation as the body has it.
    QuotaFailure { violations: Vec<BTreeMap<String, String>> },
    /// `google.rpc.RetryInfo`.
    RetryInfo { retry_delay: Option<Duration> },
    /// `google.rpc.Help`: descriptions and links.
    Help { links: Vec<(String, String)> },
    /// `google.rpc.BadRequest`: fields and what is wrong with them.
    BadRequest { field_violations: Vec<(String, String)> },
    /// `google.rpc.LocalizedMessage`.
    LocalizedMessage { locale: String, message: String },
    /// `google.rpc.DebugInfo`, which only staging front ends send.
    DebugInfo { detail: String },
    /// Anything else: its `@type`, empty where it has none.
    Other { type_url: String },
}

impl Status {
    /// Reads the status out of an error body: an object, an array of one, or either wrapped once more as a
    /// JSON string. `None` where there is no JSON error in it.
    #[must_use]
    pub fn from_body(body: &[u8]) -> Option<Self> {
        let body = body.strip_prefix(b"\xef\xbb\xbf").unwrap_or(body);
        let value: Value = serde_json::Deserializer::from_slice(body).into_iter().next()?.ok()?;
        Self::from_value(&value, 4)
    }

    fn from_value(value: &Value, depth: u8) -> Option<Self> {
        let depth = depth.checked_sub(1)?;
        match value {
            Value::Array(items) => items.iter().find_map(|item| Self::from_value(item, depth)),
            Value::String(text) => Self::from_value(&serde_json::from_str(text).ok()?, depth),
            Value::Object(map) => match map.get("error") {
                Some(Value::Object(error)) => Some(Self::from_map(error, depth)),
                Some(Value::String(text)) => Self::from_value(&Value::String(text.clone()), depth)
                    .or_else(|| Some(Self { message: redact(text).into_owned(), ..Self::default() })),
                _ if map.contains_key("message") => Some(Self::from_map(map, depth)),
                _ => None,
            },
            _ => None,
        }
    }

    fn from_map(map: &Map<String, Value>, depth: u8) -> Self {
        let message = text(map.get("message"));
        // A relay's envelope: Google's own body is the more exact one.
        let wrapped = message.trim_start().starts_with(['{', '[']);
        let inner = || Self::from_value(&Value::String(message.clone()), depth);
        if let Some(inner) = wrapped.then(inner).flatten() {
            return inner;
        }
        let code = map.get("code");
        Self {
            code: code.and_then(Value::as_u64).and_then(|n| u16::try_from(n).ok()),
            status: map.get("status").or(code).and_then(Value::as_str).map(|text| redact(text).into_owned()),
            message: redact(&message).into_owned(),
            details: map
                .get("details")
                .and_then(Value::as_array)
                .map(|details| details.iter().filter_map(Value::as_object).map(detail).collect())
                .unwrap_or_default(),
        }
    }
}

fn detail(map: &Map<String, Value>) -> Detail {
    let pairs = |key: &str, a: &str, b: &str| -> Vec<(String, String)> {
        map.get(key)
            .and_then(Value::as_array)
            .map(|items| items.iter().map(|item| (clean(item.get(a)), clean(item.get(b)))).collect())
            .unwrap_or_default()
    };
    // By the members and not by `@type`: relays cut it or write it oddly.
    let other = || Detail::Other { type_url: clean(map.get("@type")) };
    if let Some(delay) = map.get("retryDelay").or(map.get("retry_delay")) {
        let parts = |key| delay.get(key).and_then(Value::as_u64);
        let retry_delay = match parts("seconds") {
            Some(seconds) => {
                Duration::from_secs(seconds).checked_add(Duration::from_nanos(parts("nanos").unwrap_or(0)))
            }
            None => parse_duration(&text(Some(delay))),
        };
        Detail::RetryInfo { retry_delay }
    } else if let Some(violations) = map.get("violations").and_then(Value::as_array) {
        let quota = |violation: &Value| {
            ["quotaMetric", "quotaId", "quota_metric", "quota_id"].iter().any(|k| violation.get(k).is_some())
        };
        // `PreconditionFailure` has violations, too, of another sort.
        if !violations.iter().any(quota) && text(map.get("@type")).ends_with("PreconditionFailure") {
            return other();
        }
        Detail::QuotaFailure { violations: violations.iter().map(flat).collect() }
    } else if map.contains_key("reason") {
        Detail::ErrorInfo {
            reason: clean(map.get("reason")),
            domain: clean(map.get("domain")),
            metadata: map.get("metadata").map(flat).unwrap_or_default(),
        }
    } else if map.contains_key("links") {
        Detail::Help { links: pairs("links", "description", "url") }
    } else if map.contains_key("fieldViolations") {
        Detail::BadRequest { field_violations: pairs("fieldViolations", "field", "description") }
    } else if map.contains_key("locale") {
        Detail::LocalizedMessage { locale: clean(map.get("locale")), message: clean(map.get("message")) }
    } else if map.contains_key("detail") {
        Detail::DebugInfo { detail: clean(map.get("detail")) }
    } else {
        other()
    }
}

/// An object's members as text; members that are objects themselves (`quotaDimensions`) are spread out as
/// `quotaDimensions.model`.
fn flat(value: &Value) -> BTreeMap<String, String> {
    let mut out = BTreeMap::new();
    for (key, value) in value.as_object().into_iter().flatten() {
        if let Some(inner) = value.as_object() {
            out.extend(
                inner.iter().map(|(k, v)| (redact(&format!("{key}.{k}")).into_owned(), clean(Some(v)))),
            );
        } else {
            out.insert(redact(key).into_owned(), clean(Some(value)));
        }
    }
    out
}

fn text(value: Option<&Value>) -> String {
    match value {
        Some(Value::String(text)) => text.clone(),
        Some(Value::Number(number)) => number.to_string(),
        _ => String::new(),
    }
}

fn clean(value: Option<&Value>) -> String {
    redact(&text(value)).into_owned()
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn codes_have_the_numbers_of_the_proto() {
        for (number, code) in [
            (1, Code::Cancelled),
            (4, Code::DeadlineExceeded),
            (8, Code::ResourceExhausted),
            (10, Code::Aborted),
            (13, Code::Internal),
            (14, Code::Unavailable),
            (15, Code::DataLoss),
            (16, Code::Unauthenticated),
        ] {
            assert_eq!(Code::from_number(number), Some(code));
        }
        assert_eq!((Code::from_number(0), Code::from_number(17)), (None, None));
    }

    #[test]
    fn codes_have_the_statuses_of_googles_mapping() {
        for (status, code) in [
            (400, Code::InvalidArgument),
            (401, Code::Unauthenticated),
            (403, Code::PermissionDenied),
            (404, Code::NotFound),
            (409, Code::Aborted),
            (429, Code::ResourceExhausted),
            (499, Code::Cancelled),
            (500, Code::Internal),
            (501, Code::Unimplemented),
            (503, Code::Unavailable),
            (504, Code::DeadlineExceeded),
        ] {
            assert_eq!(Code::from_http(status), Some(code));
        }
        assert_eq!((Code::from_http(200), Code::from_http(418)), (None, None));
    }

    #[test]
    fn an_error_may_be_a_text_and_a_message_may_stand_alone() {
        let read = |body: &str| Status::from_body(body.as_bytes());
        let plain = read(r#"{"error":"no such model"}"#).expect("a status");
        assert_eq!((plain.code, plain.message.as_str()), (None, "no such model"));
        let wrapped =
            read(r#"{"error":"{\"error\":{\"code\":404,\"message\":\"gone\"}}"}"#).expect("a status");
        assert_eq!((wrapped.code, wrapped.message.as_str()), (Some(404), "gone"));
        let alone = read(r#"{"message":5,"code":"not_found"}"#).expect("a status");
        assert_eq!((alone.message.as_str(), alone.status.as_deref()), ("5", Some("not_found")));
        assert_eq!(read(r#"{"code":404}"#), None);
        assert_eq!(read(r#"{"error":5}"#), None);
    }

    #[test]
    fn each_detail_is_known_by_its_members() {
        let body = br#"{"error":{"message":"m","details":[
            {"reason":"R","domain":"D","metadata":{"model":"x","n":5,"inner":{"k":"v"}}},
            {"@type":"google.rpc.QuotaFailure","violations":[{"subject":"s","quotaDimensions":{"model":"y"}}]},
            {"@type":"google.rpc.PreconditionFailure","violations":[{"quotaId":"q"}]},
            {"links":[{"description":"d","url":"u"}]},
            {"fieldViolations":[{"field":"f","description":"d"}]},
            {"locale":"en","message":"text"},
            {"detail":"trace"},
            {"@type":"mine"}]}}"#;
        let map =
            |pairs: &[(&str, &str)]| pairs.iter().map(|(k, v)| ((*k).to_owned(), (*v).to_owned())).collect();
        let s = str::to_owned;
        let quota = |pairs: &[(&str, &str)]| Detail::QuotaFailure { violations: vec![map(pairs)] };
        assert_eq!(
            Status::from_body(body).expect("a status").details,
            [
                Detail::ErrorInfo {
                    reason: s("R"),
                    domain: s("D"),
                    metadata: map(&[("model", "x"), ("n", "5"), ("inner.k", "v")]),
                },
                quota(&[("subject", "s"), ("quotaDimensions.model", "y")]),
                quota(&[("quotaId", "q")]),
                Detail::Help { links: vec![(s("d"), s("u"))] },
                Detail::BadRequest { field_violations: vec![(s("f"), s("d"))] },
                Detail::LocalizedMessage { locale: s("en"), message: s("text") },
                Detail::DebugInfo { detail: s("trace") },
                Detail::Other { type_url: s("mine") },
            ]
        );
    }

    #[test]
    fn details_in_snake_case_and_of_other_sorts() {
        let body = br#"{"error":{"message":"m","details":[{"retry_delay":{"seconds":3,"nanos":5}},
            {"@type":"type.googleapis.com/google.rpc.PreconditionFailure","violations":[{"type":"TOS"}]}]}}"#;
        let status = Status::from_body(body).expect("a status");
        let delay = Some(Duration::new(3, 5));
        assert_eq!(status.details[0], Detail::RetryInfo { retry_delay: delay });
        assert!(
            matches!(&status.details[1], Detail::Other { type_url } if type_url.ends_with("PreconditionFailure"))
        );
    }

    #[test]
    fn four_spellings_of_a_duration() {
        for (text, nanos) in [
            ("31s", 31_000_000_000),
            ("0s", 0),
            ("45.837906927s", 45_837_906_927),
            ("856.559356ms", 856_559_356),
            ("10h17m5.723541104s", 37_025_723_541_104),
            ("161h39m41.300432511s", 581_981_300_432_511),
            ("2m", 120_000_000_000),
            ("1d2h", 93_600_000_000_000),
            ("17µs", 17_000),
            ("17us", 17_000),
            ("17ns", 17),
            ("1s2s3s4s5s6s7s8s9s", 45_000_000_000),
            ("30", 30_000_000_000),
            (" 5.5 ", 5_500_000_000),
        ] {
            assert_eq!(parse_duration(text), Some(Duration::from_nanos(nanos)), "{text}");
        }
    }

    #[test]
    fn what_is_no_duration_is_refused() {
        for text in [
            "",
            "s",
            "-3s",
            "+3s",
            "NaN",
            "inf",
            "1e9s",
            "3x",
            "3s later",
            ".5s",
            "1.s",
            "10h17",
            "१s",
            "1s2s3s4s5s6s7s8s9s1s",
        ] {
            assert_eq!(parse_duration(text), None, "{text}");
        }
        assert_eq!(parse_duration("99999999999999999999s"), None, "too large for u64");
        assert_eq!(parse_duration("18446744073709551615h"), None, "too large after the unit");
    }

    #[test]
    fn prose_ends_where_the_duration_ends() {
        assert_eq!(leading_duration("31.58s. Or else"), Some((Duration::from_millis(31_580), ". Or else")));
        assert_eq!(leading_duration("30 seconds"), Some((Duration::from_secs(30), " seconds")));
        assert_eq!(leading_duration("later"), None);
    }

    #[test]
    fn a_status_is_found_under_every_wrapping() {
        let plain = r#"{"error":{"code":404,"message":"no such model","status":"NOT_FOUND"}}"#;
        let array = format!("[{plain}\n]");
        let double = format!(r#"{{"error":{{"code":404,"message":{plain:?},"status":"Not Found"}}}}"#);
        for body in [plain, &array, &double] {
            let status = Status::from_body(body.as_bytes()).expect(body);
            assert_eq!((status.code, status.status.as_deref()), (Some(404), Some("NOT_FOUND")), "{body}");
        }
    }

    proptest! {
        #[test]
        fn durations_survive_the_round_trip(secs in 0..u64::from(u32::MAX), nanos in 0..1_000_000_000u32) {
            let text = format!("{secs}.{nanos:09}s");
            prop_assert_eq!(parse_duration(&text), Some(Duration::new(secs, nanos)));
        }

        #[test]
        fn no_text_panics(text in ".{0,40}", body in prop::collection::vec(any::<u8>(), 0..200)) {
            let _ = (parse_duration(&text), leading_duration(&text), Status::from_body(&body));
        }
    }
}
