//! How a verdict is written down, so that it can be compared.

use std::fmt::Write as _;

use bytes::Bytes;
use http::{HeaderMap, HeaderName, HeaderValue, StatusCode};
use tower_gemini::Verdict;
use tower_gemini::verdict::{DelaySource, QuotaViolation, Retryability};

pub(crate) fn judge(status: u16, headers: &[(&str, &str)], body: impl Into<Bytes>) -> Verdict {
    let mut map = HeaderMap::new();
    for (name, value) in headers {
        map.insert(HeaderName::try_from(*name).unwrap(), HeaderValue::try_from(*value).unwrap());
    }
    Verdict::from_parts(StatusCode::from_u16(status).unwrap(), &map, body.into())
}

/// Everything of a verdict that a caller acts on, in one line.
pub(crate) fn line(verdict: &Verdict) -> String {
    let Some(kind) = verdict.kind() else { return "success".into() };
    let mut out = kind.to_string();
    write!(out, " {}", verdict.grpc_code().map_or("-", |code| code.as_str())).unwrap();
    out += match verdict.retryability() {
        Retryability::Never => " never",
        Retryability::AfterServerDelay => " after",
        Retryability::WithBackoff => " backoff",
    };
    if let Some(delay) = verdict.server_delay() {
        let source = match delay.source() {
            DelaySource::RetryInfo => "info",
            DelaySource::Message => "message",
            DelaySource::Metadata => "metadata",
            DelaySource::Header => "header",
            _ => "?",
        };
        write!(out, " {:?}@{source}", delay.declared()).unwrap();
    }
    if let Some(reason) = verdict.reason() {
        write!(out, " reason={reason}").unwrap();
    }
    if let Some(model) = verdict.model() {
        write!(out, " model={model}").unwrap();
    }
    if verdict.after_output() {
        out += " partly";
    }
    for violation in verdict.quota() {
        out += " + ";
        out += &quota(violation);
    }
    out
}

/// `dimension/period limit [zero] [#id] [~metric] [@model]`, with short names for the two services.
fn quota(v: &QuotaViolation) -> String {
    let limit = v.limit().map_or("-".into(), |limit| limit.to_string());
    let mut out = format!("{}/{} {limit}", v.dimension(), v.period());
    if v.is_zero() {
        out += " zero";
    }
    let named = [('#', v.id()), ('~', v.metric()), ('@', v.model())];
    for (mark, name) in named {
        if let Some(name) = name {
            let name = name
                .replace("generativelanguage.googleapis.com", "gl")
                .replace("aiplatform.googleapis.com", "ai");
            write!(out, " {mark}{name}").unwrap();
        }
    }
    out
}
