//! The bodies of Google's errors.
//!
//! Member order, `@type`s, quota ids and the phrases that are an error's only mark are Google's. Everything
//! else is worded for this simulator, so a classifier cannot pass by knowing sentences by heart.

use std::time::Duration;

use super::kinds::ErrorKind;
use super::shape::Shape;
use crate::sim::QuotaLimit;
use crate::sim::json::{Json, object};

/// The delay of a scripted quota error unless it was given another.
const DEFAULT_RETRY_IN: Duration = Duration::from_millis(31_580);
const SERVICE: &str = "generativelanguage.googleapis.com";

/// What the body of an error says about the call.
pub(in crate::sim) struct Asked<'a> {
    pub(in crate::sim) model: &'a str,
    pub(in crate::sim) key: Option<&'a str>,
    pub(in crate::sim) version: &'a str,
    pub(in crate::sim) method: &'a str,
    pub(in crate::sim) tokens: u64,
    pub(in crate::sim) max_bytes: usize,
}

/// Exceeded limits, scripted or enforced.
pub(in crate::sim) struct QuotaExceeded<'a> {
    pub(in crate::sim) violations: &'a [(QuotaLimit, u64)],
    pub(in crate::sim) retry_in: Duration,
    pub(in crate::sim) paid: bool,
}

/// `{"error": {code, message, status, details}}`, without `details` where there are none.
pub(in crate::sim) fn status_object(code: u16, status: &str, message: &str, details: Vec<Json>) -> Json {
    let mut error =
        object([("code", u64::from(code).into()), ("message", message.into()), ("status", status.into())]);
    if !details.is_empty() {
        error = error.and("details", details);
    }
    object([("error", error)])
}

impl QuotaExceeded<'_> {
    /// The third generation of quota bodies: `Help`, `QuotaFailure`, `RetryInfo`.
    pub(in crate::sim) fn to_json(&self, model: &str) -> Json {
        let mut message = String::from(
            "You exceeded your current quota, please check your plan and billing details. Limits are explained \
             at https://ai.google.dev/gemini-api/docs/rate-limits and your usage is shown at https://ai.dev/rate-limit. ",
        );
        let mut list = Vec::new();
        for (dimension, limit) in self.violations {
            let (metric, id) = names(*dimension, self.paid);
            let metric = format!("{SERVICE}/{metric}");
            message += &format!("\n* Quota exceeded for metric: {metric}, limit: {limit}, model: {model}");
            let dimensions = object([("location", "global".into()), ("model", model.into())]);
            let mut violation = object([
                ("quotaMetric", metric.into()),
                ("quotaId", id.into()),
                ("quotaDimensions", dimensions),
            ]);
            // A proto3 zero is not serialised, which is how Google writes "limit 0".
            if *limit > 0 {
                violation = violation.and("quotaValue", limit.to_string());
            }
            list.push(violation);
        }
        message += &format!("\nPlease retry in {}.", go_duration(self.retry_in));
        let retry = format!("{}s", self.retry_in.as_secs());
        let details = vec![
            help("Learn more about Gemini API quotas", "https://ai.google.dev/gemini-api/docs/rate-limits"),
            detail("QuotaFailure").and("violations", list),
            detail("RetryInfo").and("retryDelay", retry),
        ];
        status_object(429, "RESOURCE_EXHAUSTED", &message, details)
    }
}

/// Metric and quota id of a dimension.
fn names(dimension: QuotaLimit, paid: bool) -> (&'static str, &'static str) {
    use QuotaLimit as D;
    const FREE_REQUESTS: &str = "generate_content_free_tier_requests";
    match (dimension, paid) {
        (D::RequestsPerMinute, false) => {
            (FREE_REQUESTS, "GenerateRequestsPerMinutePerProjectPerModel-FreeTier")
        }
        (D::RequestsPerDay, false) => (FREE_REQUESTS, "GenerateRequestsPerDayPerProjectPerModel-FreeTier"),
        (D::InputTokensPerMinute, false) => (
            "generate_content_free_tier_input_token_count",
            "GenerateContentInputTokensPerModelPerMinute-FreeTier",
        ),
        (D::RequestsPerMinute, true) => {
            ("generate_requests_per_model", "GenerateRequestsPerMinutePerProjectPerModel")
        }
        (D::RequestsPerDay, true) => {
            ("generate_requests_per_model_per_day", "GenerateRequestsPerDayPerProjectPerModel")
        }
        (D::InputTokensPerMinute, true) => (
            "generate_content_paid_tier_input_token_count",
            "GenerateContentPaidTierInputTokensPerModelPerMinute",
        ),
    }
}

/// The body of a scripted error that is not a page in HTML.
pub(in crate::sim) fn error_json(kind: ErrorKind, shape: &Shape, asked: &Asked<'_>) -> Json {
    use QuotaLimit as D;
    let scripted = |dimension, default| {
        let violations = [(dimension, shape.limit.unwrap_or(default))];
        let retry_in = shape.retry_in.unwrap_or(DEFAULT_RETRY_IN);
        QuotaExceeded { violations: &violations, retry_in, paid: false }.to_json(asked.model)
    };
    match kind {
        ErrorKind::RateLimited => return scripted(D::RequestsPerMinute, 10),
        ErrorKind::TokenRateLimited => return scripted(D::InputTokensPerMinute, 250_000),
        ErrorKind::DailyQuota => return scripted(D::RequestsPerDay, 250),
        ErrorKind::ZeroQuota => return scripted(D::RequestsPerMinute, 0),
        _ => {}
    }
    status_object(kind.code(), kind.google_status(), &message(kind, asked), details(kind, asked))
}

/// The `error` of the Interactions API: a code that is a word, and a message.
pub(in crate::sim) fn interaction_error(kind: ErrorKind, shape: &Shape, asked: &Asked<'_>) -> Json {
    use ErrorKind as E;
    let retry = go_duration(shape.retry_in.unwrap_or(DEFAULT_RETRY_IN));
    let (code, text) = match kind {
        E::RateLimited | E::TokenRateLimited => {
            ("rate_limit_exceeded", format!("You exceeded your current quota. Please retry in {retry}."))
        }
        E::DailyQuota | E::ZeroQuota => (
            "quota_exceeded",
            "You exceeded your current quota, please check your plan and billing details.".into(),
        ),
        E::BareExhausted | E::SharedCapacity | E::ModelCapacity => {
            ("too_many_requests", message(kind, asked))
        }
        E::NotFoundHtml => ("not_found", "There is no such resource.".into()),
        kind => {
            let code = match kind.google_status() {
                "INVALID_ARGUMENT" => "invalid_request",
                "FAILED_PRECONDITION" => "failed_precondition",
                "UNAUTHENTICATED" => "authentication",
                "PERMISSION_DENIED" => "permission_denied",
                "NOT_FOUND" => "not_found",
                "RESOURCE_EXHAUSTED" => "quota_exceeded",
                "UNAVAILABLE" => "service_unavailable",
                "DEADLINE_EXCEEDED" => "gateway_timeout",
                "CANCELLED" => "cancelled",
                "UNIMPLEMENTED" => "unimplemented",
                _ => "internal_error",
            };
            (code, message(kind, asked))
        }
    };
    object([("code", code.into()), ("message", text.into())])
}

fn message(kind: ErrorKind, asked: &Asked<'_>) -> String {
    use ErrorKind as E;
    let text = match kind {
        E::BareExhausted => "Resource has been exhausted (e.g. check quota).",
        E::SharedCapacity => {
            "Resource exhausted. Please try again later. Please refer to \
             https://cloud.google.com/vertex-ai/generative-ai/docs/error-code-429 for what this means."
        }
        E::SpendCap => {
            "Your project has exceeded its monthly spending cap. Please go to AI Studio at \
             https://ai.studio/spend and raise it or wait for the next month."
        }
        E::PrepayDepleted => {
            "Your prepayment credits are depleted. Please go to AI Studio at https://ai.studio/projects to add \
             some. "
        }
        E::ModelCapacity => return format!("No capacity available for model {} on the server", asked.model),
        E::Overloaded => {
            "This model is currently experiencing high demand. Such spikes mostly pass. Please try again later."
        }
        E::Unavailable => "The service is currently unavailable.",
        E::Internal => "An internal error has occurred. Please retry or report it.",
        E::DeadlineExceeded => "Deadline expired before operation could complete.",
        E::Cancelled => "The operation was cancelled.",
        E::InvalidArgument => {
            "Invalid JSON payload received. Unknown name \"tone\" at 'generation_config': Cannot find field."
        }
        E::ApiKeyInvalid => "API key not valid. Please pass a valid API key.",
        E::ApiKeyExpired => "API key expired. Please renew the API key.",
        E::ContextTooLong => {
            let tokens = asked.tokens.max(1_048_577);
            return format!(
                "The input token count ({tokens}) exceeds the maximum number of tokens allowed (1048576)."
            );
        }
        E::PayloadTooLarge => {
            return format!("Request payload size exceeds the limit: {} bytes.", asked.max_bytes);
        }
        E::LocationUnsupported => "User location is not supported for the API use.",
        E::Unauthenticated => {
            "Request had invalid authentication credentials. An OAuth 2 access token or another valid credential is \
             expected."
        }
        E::PermissionDenied => "The caller does not have permission",
        E::NoApiKey => {
            "Method doesn't allow unregistered callers (callers without established identity). Please use an API \
             key or another form of identity."
        }
        E::KeyLeaked => "Your API key was reported as leaked. Please use another API key.",
        E::ConsumerSuspended => {
            return format!("Permission denied: Consumer '{}' has been suspended.", consumer(asked));
        }
        E::ServiceDisabled => {
            "Generative Language API has not been used in project 123456789012 before or it is disabled. Enable it \
             at https://console.developers.google.com/apis/api/generativelanguage.googleapis.com/overview, then retry; \
             it may take a few minutes."
        }
        E::NotFound => {
            return format!(
                "models/{} is not found for API version {}, or is not supported for {}. Call \
                 ModelService.ListModels for the models there are.",
                asked.model, asked.version, asked.method,
            );
        }
        E::Unimplemented => "Operation is not implemented, or supported, or enabled.",
        // Written elsewhere: quota errors in `error_json`, pages in `html`.
        E::RateLimited | E::TokenRateLimited | E::DailyQuota | E::ZeroQuota => "",
        E::BadGatewayHtml | E::NotFoundHtml => "",
    };
    text.to_owned()
}

fn details(kind: ErrorKind, asked: &Asked<'_>) -> Vec<Json> {
    use ErrorKind as E;
    let localized = || detail("LocalizedMessage").and("locale", "en-US").and("message", message(kind, asked));
    match kind {
        E::ModelCapacity => vec![error_info(
            "MODEL_CAPACITY_EXHAUSTED",
            "cloudcode-pa.googleapis.com",
            object([("model", asked.model.into())]),
        )],
        E::InvalidArgument => {
            let violation =
                object([("field", "generation_config".into()), ("description", message(kind, asked).into())]);
            vec![detail("BadRequest").and("fieldViolations", vec![violation])]
        }
        E::ApiKeyInvalid | E::ApiKeyExpired => vec![
            error_info("API_KEY_INVALID", "googleapis.com", object([("service", SERVICE.into())])),
            localized(),
        ],
        E::ConsumerSuspended => {
            let metadata = object([
                ("service", SERVICE.into()),
                ("consumer", consumer(asked).into()),
                ("containerInfo", consumer(asked).into()),
            ]);
            vec![error_info("CONSUMER_SUSPENDED", "googleapis.com", metadata)]
        }
        E::ServiceDisabled => {
            let metadata = object([
                ("service", SERVICE.into()),
                ("serviceTitle", "Generative Language API".into()),
                ("consumer", "projects/123456789012".into()),
            ]);
            vec![
                error_info("SERVICE_DISABLED", "googleapis.com", metadata),
                localized(),
                help("Google developers console API activation", "https://console.developers.google.com/"),
            ]
        }
        _ => Vec::new(),
    }
}

/// The page that Google's front end sends in place of JSON.
pub(in crate::sim) fn html(kind: ErrorKind) -> String {
    let (code, title, text) = match kind {
        ErrorKind::BadGatewayHtml => (
            502,
            "Server Error",
            "The server met a temporary error and could not complete your request. Please try again in 30 seconds.",
        ),
        _ => (404, "Not Found", "The requested URL was not found on this server."),
    };
    format!(
        "<!DOCTYPE html>\n<html lang=en>\n  <meta charset=utf-8>\n  <title>Error {code} ({title})!!1</title>\n  \
         <p><b>{code}.</b> <ins>That\u{2019}s an error.</ins>\n  <p>{text}\n"
    )
}

fn consumer(asked: &Asked<'_>) -> String {
    match asked.key {
        Some(key) => format!("api_key:{key}"),
        None => "project_number:123456789012".to_owned(),
    }
}

fn detail(name: &str) -> Json {
    object([("@type", format!("type.googleapis.com/google.rpc.{name}").into())])
}

fn error_info(reason: &str, domain: &str, metadata: Json) -> Json {
    detail("ErrorInfo").and("reason", reason).and("domain", domain).and("metadata", metadata)
}

fn help(description: &str, url: &str) -> Json {
    detail("Help").and("links", vec![object([("description", description.into()), ("url", url.into())])])
}

/// As Go prints durations, which is where Google's messages get them from: `856.559356ms`, `31.58s`, `1m5s`,
/// `10h17m5.5s`.
fn go_duration(duration: Duration) -> String {
    let (secs, nanos) = (duration.as_secs(), duration.subsec_nanos());
    if secs == 0 && nanos > 0 {
        return match nanos {
            0..1_000 => format!("{nanos}ns"),
            1_000..1_000_000 => format!("{}µs", fraction(u64::from(nanos / 1_000), nanos % 1_000, 3)),
            _ => format!("{}ms", fraction(u64::from(nanos / 1_000_000), nanos % 1_000_000, 6)),
        };
    }
    let (hours, minutes, seconds) = (secs / 3600, secs / 60 % 60, fraction(secs % 60, nanos, 9));
    match (hours, minutes) {
        (0, 0) => format!("{seconds}s"),
        (0, m) => format!("{m}m{seconds}s"),
        (h, m) => format!("{h}h{m}m{seconds}s"),
    }
}

/// `whole.rest` with `rest` of `digits` digits, without trailing zeros.
fn fraction(whole: u64, rest: u32, digits: usize) -> String {
    let text = format!("{whole}.{rest:0digits$}");
    text.trim_end_matches('0').trim_end_matches('.').to_owned()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn durations_are_spelt_as_in_googles_messages() {
        let cases = [
            (Duration::ZERO, "0s"),
            (Duration::from_nanos(856_559_356), "856.559356ms"),
            (Duration::from_nanos(1_500), "1.5µs"),
            (Duration::from_nanos(7), "7ns"),
            (Duration::from_millis(31_580), "31.58s"),
            (Duration::from_secs(60), "1m0s"),
            (Duration::from_millis(37_025_500), "10h17m5.5s"),
        ];
        for (duration, text) in cases {
            assert_eq!(go_duration(duration), text);
        }
    }
}
