//! From fields to a verdict: the rules, in their order. Pure.
//!
//! The order is what matters (each step beats those below it):
//!
//! 1. a reason code that names the kind exactly;
//! 2. for 429: zero limits, then money, then capacity, then the widest window, then an absurdly long delay;
//!    what is left is a rate limit. *The delay is not the verdict*: a spent daily quota carries a short one;
//! 3. the canonical status, with the few messages that say more than it;
//! 4. the HTTP status.

use std::time::Duration;

use bytes::Bytes;
use http::StatusCode;

use super::fields::Fields;
use super::message;
use super::names;
use super::phrases::{INDIVIDUAL, MONEY, MONEY_ROOTS, NO_TIER, Says};
use super::quota::{Quotas, quota};
use super::reason::{by_name, by_reason, code_of_reason, constant};
use super::sentence;
use crate::google_rpc::Code;
use crate::verdict::{
    Alternative, DelaySource, Inner, Kind, Period, Piece, QuotaViolation, Retryability, Sent, ServerDelay,
};

/// A delay above this is no rate limit that clears within minutes: gemini-cli takes 300 s as final
/// (google-gemini/gemini-cli `googleQuotaErrors.ts`, read 2026-11).
const LONG: Duration = Duration::from_secs(300);

/// A file that is being processed, and accounts of services that are being made.
const COMES_TRUE: [&str; 2] = ["not in an ACTIVE state", "ervice agents are being provisioned"];

/// Judges an error: `http` is the response's status, `header` the delay of its headers.
///
/// The facts are of `body`, so that the verdict's texts can be shares of it.
pub(super) fn error(http: StatusCode, header: Option<Duration>, fields: &Fields<'_>, body: &Bytes) -> Inner {
    // A long-running operation ends with google.rpc's own number, under a 200. Under an error's status a number
    // below 17 is the beginning of a cut one.
    let numbered = || fields.code.filter(|_| http.is_success()).and_then(Code::from_number);
    let named = [fields.status.as_deref(), fields.code_name.as_deref()];
    let code = named.into_iter().flatten().find_map(Code::from_name).or_else(numbered);
    // A body inside a 200, or a relay's, knows better than the head.
    let named = fields.code.filter(|n| is_status(*n));
    let number = named.or_else(|| message::http_line(&fields.message)).unwrap_or(http.as_u16());
    // What the service found says more than what somebody on the way makes of it.
    let stands = |code: &Code| !matches!(code, Code::Unknown | Code::Internal | Code::Unavailable);
    let by_reason = || code_of_reason(fields.reason.as_deref()?, number);
    // So does a message that is a reason or a status and nothing else.
    let by_constant = || {
        let name = constant(&fields.message).filter(|_| matches!(number, 0..=400 | 429 | 500..600))?;
        let named = || Code::from_name(name).filter(|code| stands(code) || number < 400);
        code_of_reason(name, number).or_else(named)
    };
    let meant = code.filter(stands).or_else(by_reason).or_else(by_constant).or(code);
    let delay = delay(fields, header);
    let clears = delay.is_none_or(|delay| delay.declared() <= LONG);
    let Quotas { violations: quota, zero, doubtful } = quota(fields, body, clears);
    let mut kind = kind(fields, meant, number, delay, &quota, zero);
    let is_bare = code.is_none() && fields.code_name.is_none() && fields.reason.is_none() && quota.is_empty();
    if is_bare && matches!(kind, Kind::RateLimited | Kind::Internal | Kind::Unavailable) {
        // Of a text, what stands in a later line as well.
        kind = by_text(body).and_then(|text| by_sentence(text, number, delay, &quota, zero)).unwrap_or(kind);
    }
    // A print has the number only, and this is what Google says under it.
    let code = match code {
        None | Some(Code::InvalidArgument) if kind == Kind::FailedPrecondition && number == 400 => {
            Some(Code::FailedPrecondition)
        }
        code => code,
    };
    let limited = kind == Kind::RateLimited;

    let billing = || billing(&fields.message);
    let alternative = match kind {
        Kind::QuotaExhausted if !zero && billing() => Alternative::Project,
        Kind::RateLimited
        | Kind::QuotaExhausted
        | Kind::Overloaded
        | Kind::Unavailable
        | Kind::Internal
        | Kind::DeadlineExceeded => Alternative::Model,
        Kind::NotFound if message::model(&fields.message).is_some() => Alternative::Model,
        Kind::ContextTooLong => Alternative::LargerContext,
        Kind::ApiKeyInvalid
        | Kind::Unauthenticated
        | Kind::PermissionDenied
        | Kind::KeyLeaked
        | Kind::ServiceDisabled => Alternative::Project,
        _ => Alternative::None,
    };
    let retryability = match kind {
        Kind::RateLimited
        | Kind::Overloaded
        | Kind::Unavailable
        | Kind::Internal
        | Kind::DeadlineExceeded
        | Kind::Cancelled
        | Kind::Transport
        | Kind::Conflict => retry_with(delay),
        // The preconditions that come true by themselves, in seconds and in minutes.
        Kind::FailedPrecondition if message::says(&fields.message, &COMES_TRUE) => retry_with(delay),
        _ => Retryability::Never,
    };
    let name = |text: &str| Piece::of(body, text);
    Inner {
        retryability: if kind == Kind::Conflict && code == Some(Code::AlreadyExists) {
            Retryability::Never
        } else {
            retryability
        },
        alternative,
        http: Some(http),
        code,
        delay,
        model: model(fields, kind).map(name),
        reason: fields.reason.as_deref().map(name),
        domain: fields.domain.as_deref().map(name),
        message: Piece::of(body, &fields.message),
        escaped: fields.escaped,
        doubtful_zero: doubtful && limited,
        window: window(widest(&quota)).filter(|_| limited && delay.is_none()),
        quota,
        body: body.clone(),
        // Somebody else's call has failed without an answer.
        sent: if kind == Kind::Transport { Sent::Maybe } else { Sent::Yes },
        ..Inner::new(kind)
    }
}

/// Whether a number is the status of an error, and not a port or a length: those of RFC 9110, and those of proxies.
const fn is_status(number: u16) -> bool {
    matches!(number, 400..=418 | 421..=429 | 431 | 451 | 499..=511 | 520..=530 | 598 | 599)
}

/// How long a quota of a second or a minute takes to be back where the answer does not say: its whole window.
fn window(widest: Period) -> Option<Duration> {
    match widest {
        Period::Second => Some(Duration::from_secs(1)),
        Period::Minute => Some(Duration::from_secs(60)),
        _ => None,
    }
}

const fn retry_with(delay: Option<ServerDelay>) -> Retryability {
    if delay.is_some() { Retryability::AfterServerDelay } else { Retryability::WithBackoff }
}

/// The largest of all delays that the answer declares; of equal ones the first, in the order of trust.
fn delay(fields: &Fields<'_>, header: Option<Duration>) -> Option<ServerDelay> {
    [
        (fields.retry_info, DelaySource::RetryInfo),
        (message::delay(&fields.message), DelaySource::Message),
        // When the whole quota is there again, where another field says when to try again.
        (fields.metadata.reset_delay.filter(|_| fields.retry_info.is_none()), DelaySource::Metadata),
        (fields.reset, DelaySource::Metadata),
        (header, DelaySource::Header),
    ]
    .into_iter()
    .filter_map(|(delay, source)| Some(ServerDelay::new(delay?, source)))
    .reduce(|best, next| if next.declared() > best.declared() { next } else { best })
}

fn billing(message: &str) -> bool {
    // Each of the phrases has one of these: most messages are searched for few words, and not for all of them.
    message::says(message, &MONEY_ROOTS) && message::says(message, &MONEY)
}

fn kind(
    fields: &Fields<'_>,
    code: Option<Code>,
    number: u16,
    delay: Option<ServerDelay>,
    quota: &[QuotaViolation],
    zero: bool,
) -> Kind {
    let message = fields.message.as_ref();
    let constant = constant(message);
    if let Some(kind) = fields.reason.as_deref().or(constant).and_then(by_reason) {
        return kind;
    }
    let name = fields.code_name.as_deref().and_then(by_name);
    // A relay has handed on the message alone, under a status of its own.
    let is_own = matches!(number, 0..=400 | 429 | 500..600) && matches!(name, None | Some(Kind::Internal));
    let is_open = code.is_none_or(|code| code == Code::Unknown);
    if is_own && is_open {
        if let Some(kind) = by_sentence(message, number, delay, quota, zero) {
            return kind;
        }
    }
    // OpenAI's and Anthropic's sort of error says more than a status that stands for any of them.
    let sort = fields.sort.as_deref().filter(|_| is_open).and_then(by_name).filter(|kind| match kind {
        // A relay's budget or credit, under whichever status it has for that.
        Kind::QuotaExhausted if widest(quota) == Period::Unknown => true,
        // A number of the answer's own says more than "some error".
        Kind::Internal if number == 400 && named_number(fields) => false,
        _ => matches!(number, 0..=400 | 500..600),
    });
    // A message of one constant is such a name, too; a status beside it knows better, but of what was blocked.
    let constant = constant
        .and_then(by_name)
        .filter(|kind| matches!(number, 0..=400 | 500..600) && (is_open || *kind == Kind::ContentBlocked));
    let name = name.or(sort).or(constant);
    // These names say as little as the status does, and the message then says more.
    match name {
        // What a server writes that only knows its own 5xx.
        Some(Kind::Internal) if matches!(number, 502..=504 | 520..=529) => {}
        Some(Kind::InvalidArgument) => return bad_request(message),
        Some(Kind::PermissionDenied) => return forbidden(message),
        Some(Kind::RateLimited) => return limit(message, delay, quota, zero),
        Some(Kind::Unavailable) if overloaded(message) => return Kind::Overloaded,
        Some(kind) => return kind,
        None => {}
    }
    // "UNKNOWN" is what gateways write that do not know: then the number says more.
    match (code.filter(|code| *code != Code::Unknown), number) {
        (Some(Code::ResourceExhausted), _) | (None, 429) => limit(message, delay, quota, zero),
        (Some(Code::InvalidArgument | Code::OutOfRange), _) | (None, 400) => bad_request(message),
        (Some(Code::FailedPrecondition), _) => Kind::FailedPrecondition,
        (None, 401..=403) if billing(message) => Kind::QuotaExhausted,
        (Some(Code::Unauthenticated), _) | (None, 401 | 407) => {
            more_exact(message, Kind::Unauthenticated, &[Kind::KeyLeaked, Kind::ApiKeyInvalid])
        }
        (Some(Code::PermissionDenied), _) | (None, 403) => forbidden(message),
        (Some(Code::NotFound), _) | (None, 404 | 410) => Kind::NotFound,
        (Some(Code::Aborted | Code::AlreadyExists), _) | (None, 409) => Kind::Conflict,
        (Some(Code::Cancelled), _) | (None, 499) => Kind::Cancelled,
        (Some(Code::DeadlineExceeded), _) | (None, 408 | 504) => Kind::DeadlineExceeded,
        (Some(Code::Unimplemented), _) | (None, 405 | 501) => Kind::Unimplemented,
        (Some(Code::Unavailable), _) | (None, 503) => {
            if overloaded(message) {
                Kind::Overloaded
            } else {
                // gRPC's client may have had no credentials to call with.
                more_exact(message, Kind::Unavailable, &[Kind::Unauthenticated])
            }
        }
        (Some(Code::Internal | Code::DataLoss), _) | (None, 500) => Kind::Internal,
        (_, 402) => Kind::QuotaExhausted,
        (_, 412) => Kind::FailedPrecondition,
        (_, 406 | 411 | 415 | 417 | 422) => Kind::InvalidArgument,
        (_, 413 | 414 | 431) => Kind::PayloadTooLarge,
        // 529 is what relays say for "overloaded"; 520 to 527 are a proxy that cannot reach its origin.
        (_, 529) => Kind::Overloaded,
        (_, 502 | 520..=527) => Kind::Unavailable,
        (_, 500..600) => Kind::Internal,
        _ => Kind::Unknown,
    }
}

/// Whether the answer itself says that it is an error of the request: `Request failed with status code 400`.
fn named_number(fields: &Fields<'_>) -> bool {
    let named = fields.code.or_else(|| names::status(message::clip(&fields.message, 4096)).number);
    named.is_some_and(|number| (400..500).contains(&number))
}

/// A body that is a text and no JSON, as far as an error's goes.
fn by_text(body: &Bytes) -> Option<&str> {
    let text = std::str::from_utf8(body).ok()?;
    (!text.trim_start().starts_with(['{', '[', '"', '<'])).then(|| message::clip(text, 4096))
}

/// What one of Google's own sentences says, where neither a status nor a reason does.
///
/// A status of its own says more than a client's word for a connection that failed, but for the 500 of those who have no other.
fn by_sentence(
    message: &str,
    number: u16,
    delay: Option<ServerDelay>,
    quota: &[QuotaViolation],
    zero: bool,
) -> Option<Kind> {
    // So it does than "an internal error".
    let says_little = |kind| matches!(kind, Kind::Transport | Kind::Internal);
    Some(match sentence::find(message, |kind| !says_little(kind) || matches!(number, 0..400 | 500))? {
        Says::Limit => limit(message, delay, quota, zero),
        Says::Kind(kind) => kind,
    })
}

/// The kind that a sentence makes of an error which has a kind already, if it is one of those that are more exact.
fn more_exact(message: &str, kind: Kind, exact: &[Kind]) -> Kind {
    match sentence::find(message, |kind| exact.contains(&kind)) {
        Some(Says::Kind(kind)) => kind,
        _ => kind,
    }
}

fn limit(message: &str, delay: Option<ServerDelay>, quota: &[QuotaViolation], zero: bool) -> Kind {
    if zero || quota.iter().any(|v| v.period >= Period::Day) {
        return Kind::QuotaExhausted;
    }
    if quota.iter().all(|v| v.limit.is_none()) && message::says_zero(message) {
        return Kind::QuotaExhausted;
    }
    // The structured forms name their quota, and then the message has no more to say. The delay counts only
    // where it is absurd: on record are 161 h for a quota whose body says neither day nor zero.
    let widest = widest(quota);
    let long = delay.is_some_and(|d| d.declared() > LONG) && widest < Period::Minute;
    if long {
        return Kind::QuotaExhausted;
    }
    if widest != Period::Unknown {
        return Kind::RateLimited;
    }
    let daily = [
        "aily quota",
        "aily limit",
        "aily Limit",
        "aily request",
        "aily token",
        "aily usage",
        "aily free",
        "per day",
        "per-day",
        "PerDay",
        "for today",
        "for the day",
        "QUOTA_EXHAUSTED",
        INDIVIDUAL,
        // Of what is stored at once, which no window gives back.
        "CachedContentStorage",
    ];
    if billing(message) || message::says(message, &NO_TIER) || message::says(message, &daily) {
        return Kind::QuotaExhausted;
    }
    if overloaded(message) { Kind::Overloaded } else { Kind::RateLimited }
}

fn widest(quota: &[QuotaViolation]) -> Period {
    quota.iter().map(|v| v.period).max().unwrap_or(Period::Unknown)
}

/// Short of capacity, whoever asks. Not "exhausted your capacity", which is the caller's own.
fn overloaded(message: &str) -> bool {
    message::says(
        message,
        &[
            "verloaded",
            "high demand",
            "high load",
            "o capacity available",
            "apacity exceeded",
            "out of capacity",
            "MODEL_CAPACITY_EX",
            "负载已饱和",
            "负载过高",
        ],
    )
}

fn bad_request(message: &str) -> Kind {
    let exact = [
        Kind::ContextTooLong,
        Kind::PayloadTooLarge,
        Kind::ApiKeyInvalid,
        Kind::FailedPrecondition,
        Kind::ContentBlocked,
    ];
    let many_tokens = message::says(message, &["oo many tokens"]) && !message::says(message, &["tokens per"]);
    let kind = if many_tokens { Kind::ContextTooLong } else { Kind::InvalidArgument };
    more_exact(message, kind, &exact)
}

fn forbidden(message: &str) -> Kind {
    let exact = [Kind::KeyLeaked, Kind::ApiKeyInvalid, Kind::ServiceDisabled, Kind::ContentBlocked];
    more_exact(message, Kind::PermissionDenied, &exact)
}

/// The model that the answer names outside of its violations, which have it already.
fn model<'f>(fields: &'f Fields<'_>, kind: Kind) -> Option<&'f str> {
    if fields.violations.iter().any(|v| v.model.is_some()) {
        return None;
    }
    if let Some(model) = &fields.metadata.model {
        return Some(model);
    }
    if let Some(model) = message::quota_lines(&fields.message).find_map(|line| line.model) {
        return Some(model);
    }
    // Not for every kind: "Please use models/… instead" names another one.
    let names_its_own = matches!(
        kind,
        Kind::NotFound
            | Kind::InvalidArgument
            | Kind::Unimplemented
            | Kind::PermissionDenied
            | Kind::Overloaded
    );
    // A page names the path that was asked for.
    names_its_own.then(|| message::model(&fields.message).filter(|_| !message::is_page(&fields.message)))?
}
