//! The verdict in words and as JSON.

use std::fmt::Write;

use http::StatusCode;
use serde_json::{Value, json};
use tower_gemini::retry::RetryPolicy;
use tower_gemini::verdict::Alternative;
use tower_gemini::{Kind, Verdict};

use crate::read::{self, Pasted};

/// One line of `--jsonl`, answered.
pub(crate) fn json_line(line: &[u8]) -> String {
    let answer = match read::json(line) {
        Ok((id, pasted)) => explain(id, &judge(&pasted)),
        Err(error) => json!({ "id": null, "error": error }),
    };
    answer.to_string()
}

fn judge(pasted: &Pasted) -> Verdict {
    let judge = |status| Verdict::from_parts(status, &pasted.headers, pasted.body.clone());
    let verdict = judge(pasted.status);
    // Without a status in the input, what is no answer is read as an error, in which a body may stand anywhere. So is a print that
    // begins as an event stream does.
    let is_none = matches!(verdict.kind(), Some(Kind::Unknown | Kind::EmptyResponse))
        // Ruby's print of an answer begins as JSON does, and breaks off at its first arrow.
        || verdict.kind() == Some(Kind::Truncated) && is_ruby(&pasted.body);
    if pasted.assumed && is_none {
        let error = judge(StatusCode::INTERNAL_SERVER_ERROR);
        if error.kind() != Some(Kind::Internal) || error.grpc_code().is_some() {
            return error;
        }
    }
    verdict
}

fn is_ruby(body: &[u8]) -> bool {
    let name = body.trim_ascii().strip_prefix(b"{\"").unwrap_or_default();
    name.splitn(2, |b| *b == b'"').nth(1).is_some_and(|rest| rest.starts_with(b"=>"))
}

fn explain(id: Value, verdict: &Verdict) -> Value {
    let quota: Vec<Value> = verdict
        .quota()
        .iter()
        .map(|violation| {
            json!({
                "metric": violation.metric(),
                "id": violation.id(),
                "dimension": violation.dimension().as_str(),
                "period": violation.period().as_str(),
                // As Google writes 64-bit numbers.
                "limit": violation.limit().map(|limit| limit.to_string()),
                "model": violation.model(),
            })
        })
        .collect();
    json!({
        "id": id,
        "kind": verdict.kind().map(|kind| kind.as_str()),
        "grpc_status": verdict.grpc_code().map(|code| code.as_str()),
        "retryable": RetryPolicy::default().would_retry(verdict).is_some(),
        "retry_after_s": verdict.server_delay().map(|delay| delay.declared().as_secs_f64()),
        "reason": verdict.reason(),
        "model": verdict.model(),
        "quota": quota,
        "remedy": verdict.kind().map(|kind| kind.remedy()),
        "docs": verdict.docs(),
        "successor": verdict.successor(),
    })
}

/// The verdict for a person.
pub(crate) fn prose(pasted: &Pasted) -> String {
    let verdict = judge(pasted);
    let mut out = String::new();
    // Writing to a string cannot fail.
    let _ = write_prose(&mut out, pasted, &verdict);
    out
}

fn write_prose(out: &mut String, pasted: &Pasted, verdict: &Verdict) -> std::fmt::Result {
    let Some(kind) = verdict.kind() else {
        return writeln!(out, "success: HTTP {}, nothing to do", pasted.status.as_u16());
    };
    match (pasted.assumed, verdict.grpc_code()) {
        (true, Some(code)) => writeln!(out, "{kind}: {code}")?,
        (true, None) => writeln!(out, "{kind}")?,
        (false, Some(code)) => writeln!(out, "{kind}: HTTP {}, {code}", pasted.status.as_u16())?,
        (false, None) => writeln!(out, "{kind}: HTTP {}", pasted.status.as_u16())?,
    }
    writeln!(out)?;
    let mut line = |name: &str, value: &str| match value {
        "" => Ok(()),
        value => writeln!(out, "  {name:<10} {value}"),
    };
    let message = verdict.message();
    line("message", message.lines().next().unwrap_or_default())?;
    line("reason", verdict.reason().unwrap_or_default())?;
    line("model", verdict.model().unwrap_or_default())?;
    if let Some(retired) = verdict.retired() {
        let instead = retired.successor.map(|name| format!("; use {name}")).unwrap_or_default();
        line("retired", &format!("on {}{instead}", retired.since))?;
    }
    for violation in verdict.quota() {
        let limit = violation.limit().map_or("not named".into(), |limit| limit.to_string());
        let name = violation.id().or(violation.metric()).unwrap_or("a quota without a name");
        let (what, period) = (violation.dimension(), violation.period());
        line("quota", &format!("{what} per {period}, limit {limit}: {name}"))?;
    }
    if let Some(delay) = verdict.server_delay() {
        line("delay", &format!("{:.3} s declared by {:?}", delay.declared().as_secs_f64(), delay.source()))?;
    }
    line(
        "retry",
        &match RetryPolicy::default().would_retry(verdict) {
            Some(wait) if !wait.is_zero() => {
                format!("yes, after {:.3} s at the least", wait.as_secs_f64())
            }
            Some(_) => "yes, with a jittered backoff".into(),
            None => "no".into(),
        },
    )?;
    line(
        "else",
        match verdict.alternative() {
            Alternative::Model => "another model may help",
            Alternative::Project => "another project or key may help",
            Alternative::LargerContext => "a model with a larger context may help",
            _ => "",
        },
    )?;
    writeln!(out, "\n{}\n{}", verdict.remedy(), kind.docs())
}
