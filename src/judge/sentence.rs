//! Google's own sentences, and the few of its clients, as one table: what each says where neither a status nor a reason does.
//! Pure.
//!
//! A sentence is read narrowly: by the phrases that are in no other error. Of the troubleshooting page, and of reports of
//! 2024 to 2026 (read 2026-11).

use super::labels::{names_block, names_field, numbers_block};
use super::message::says;
use crate::verdict::Kind::{self, *};

/// What a message says by one of its sentences.
#[derive(Clone, Copy, Debug, PartialEq)]
pub(super) enum Says {
    Kind(Kind),
    /// Over a limit; which one is for the rules of 429 to find out.
    Limit,
}

/// Money. The generic "check your plan and billing details" is *not* a sign of it: every quota error says so.
pub(super) const MONEY: [&str; 28] = [
    "spending cap",
    "spend cap",
    "spending limit",
    "spend limit",
    "repayment credits",
    "repaid credits",
    "credits are depleted",
    "credits have been depleted",
    "nsufficient balance",
    "nsufficient credits",
    "nsufficient_credits",
    // Of relays, from here on: LiteLLM and Bifrost, OpenRouter, one-api and new-api.
    "udget has been exceeded",
    "udget exceeded",
    "udgetExceeded",
    "xceededBudget",
    "over budget",
    "equires more credits",
    "can only afford",
    "Key limit exceeded",
    "nsufficient quota",
    "nsufficient_quota",
    "nsufficient_user_quota",
    "quota is not enough",
    "额度不足",
    "额度已用",
    "额度失败",
    "额度已耗尽",
    "余额不足",
];

/// Of Code Assist's quotas of hours and of days.
pub(super) const INDIVIDUAL: &str = "ndividual quota reached";

/// A model without a free tier.
pub(super) const NO_TIER: [&str; 2] = ["have a free quota tier", "no free quota tier"];

/// The kind, and sentences of it. The parts of one are divided by `…`, and all of them must be there. The first that is found
/// counts.
const TABLE: [(Says, &[&str]); 29] = [
    (Says::Kind(KeyLeaked), &["reported as leaked"]),
    (
        Says::Kind(ApiKeyInvalid),
        &[
            "PI key not valid",
            "PI Key not found",
            "PI key not found",
            "PI key expired",
            "PI key invalid",
            "PI key is invalid",
        ],
    ),
    (Says::Kind(ServiceDisabled), &["has not been used in project", "before or it is disabled"]),
    (
        Says::Kind(PermissionDenied),
        &[
            "equests to this API…are blocked",
            "equests from …are blocked",
            "IP address restriction",
            "caller does not have permission",
            "allow unregistered callers",
            "onsumer '…has been suspended",
            "project has been denied access",
            "insufficient authentication scopes",
            "denied on resource",
            "requires billing to be enabled",
            "(or permission denied)",
            "do not have permission to access the ",
            "disabled in this account for violation of Terms of Service",
        ],
    ),
    (
        Says::Kind(Unauthenticated),
        &[
            "invalid_grant",
            "invalid_scope",
            "Reauthentication is needed",
            "invalid authentication credentials",
            "missing required authentication credential",
            "API keys are not supported by this API",
            "does not have valid authentication credentials",
            "default credentials were not found",
            "ould not load the default credentials",
            "ould not automatically determine credentials",
        ],
    ),
    (
        Says::Kind(FailedPrecondition),
        &[
            "ser location is not supported",
            "not available in your country",
            "not currently available in your location",
            "not in an ACTIVE state",
            "ervice agents are being provisioned",
        ],
    ),
    (
        Says::Kind(ContextTooLong),
        &[
            "oken count…exceeds the max",
            "oken count…only supports up to",
            "exceeds the maximum number of tokens",
            "exceeds the maximum token limit",
            "oken limit exceeded",
            "context length",
            "rompt is too long",
            "nput is too long",
            "nput content is too long",
            // What a minute has too many of is no length.
            "ontains too many tokens",
            "rompt has too many tokens",
            "nput has too many tokens",
            "xceeds the context window",
            "xceeds the model's context window",
        ],
    ),
    (
        Says::Kind(PayloadTooLarge),
        &["payload size exceeds", "payload is too large", "equest entity too large"],
    ),
    (
        Says::Kind(NotFound),
        &[
            "is no longer available to new users",
            "is not found for API version",
            "ublisher Model…not found",
            "equested entity was not found",
            // tonic's words for its codes, here and below.
            "ome requested entity was not found",
        ],
    ),
    (
        Says::Kind(ContentBlocked),
        &[
            "was blocked due to ",
            "rompt was blocked",
            "esponse was blocked",
            "promptBlocked(",
            "inish reason: SAFETY",
            "inish reason: PROHIBITED_CONTENT",
            // Of Imagen, under a 400.
            "safety filter threshold prohibited",
            "is blocked, as it may violate our policies",
            "violate Google's Responsible AI practices",
            "violated Google's Responsible AI practices",
            "ontains blocked content",
            "ontains sensitive words",
            "usage guidelines",
            "locked by Model Armor",
            "rompt could not be submitted",
            "ontent policy violation",
            "ontentPolicyViolation",
            "ontent that has been blocked",
            "rompt blocked",
            "BlockedPromptException",
            "nput was flagged",
            // Of the client google-generativeai, here and below.
            "check the `candidate.safety_ratings`",
            "check the candidate.safety_ratings",
        ],
    ),
    (
        Says::Kind(EmptyResponse),
        &[
            "valid `Part`, but none were returned",
            "valid Part, but none were returned",
            "andidate's finish_reason is ",
            "andidate's [finish_reason](",
            // Of other clients that found nothing in an answer.
            "o content parts were returned",
            "odel response empty",
            "odel response is empty",
            "odel returned an empty response",
            "odel stream ended with empty response",
            "o images were generated",
            "content.parts 为空",
        ],
    ),
    // Of the client @google/genai.
    (Says::Kind(Truncated), &["ncomplete JSON segment at the end"]),
    // Of gemini-cli, and of relays that share accounts.
    (Says::Kind(QuotaExhausted), &["sage limit reached for "]),
    (Says::Kind(RateLimited), &["ll accounts limited", "ll accounts are rate-limited"]),
    (Says::Limit, &MONEY),
    (Says::Limit, &NO_TIER),
    (
        Says::Limit,
        &[
            "exceeded your current quota",
            "uota exceeded for ",
            INDIVIDUAL,
            "Resource has been exhausted",
            "esource exhausted. Please try again",
            "exhausted your capacity",
            "exhausted your daily quota",
            "ome resource has been exhausted",
            "o capacity available for model",
            "oo many concurrent requests",
            "oo many requests",
            "oo many tokens per minute",
            "oo many tokens per day",
            "ate limit exceeded",
            // Of OpenRouter.
            "temporarily rate-limited",
        ],
    ),
    (
        Says::Kind(Overloaded),
        &[
            "odel is overloaded",
            "odel is currently overloaded",
            "experiencing high demand",
            "529 Overloaded",
            "529 overloaded",
            "负载已饱和",
            "负载过高",
        ],
    ),
    (
        Says::Kind(Unavailable),
        &[
            "he service is currently unavailable",
            // Of gRPC's clients, and of Envoy.
            "failed to connect to all addresses",
            "ame resolution failed for target",
            "DNS resolution failed for ",
            "onnection error: desc = ",
            "pstream connect error or disconnect",
            "o healthy upstream",
            // Of relays that share accounts.
            "no auth available",
            "o available accounts",
            "ll accounts failed or unhealthy",
        ],
    ),
    (
        Says::Kind(DeadlineExceeded),
        &[
            "eadline expired before operation could complete",
            "context deadline exceeded",
            "Read timed out.",
            "read operation timed out",
            "equest timed out",
            "timeout of …ms exceeded",
            "litellm.Timeout",
            "timed out after ",
            "ETIMEDOUT",
            "onnect Timeout Error",
            "onnection timeout to host",
            "java.net.SocketTimeoutException",
            "peration timed out",
            "equest timeout has expired",
            "Client.Timeout exceeded",
            "HttpClient.Timeout",
            "i/o timeout",
            "Net::ReadTimeout",
            "Net::OpenTimeout",
            "_TIMEOUT_ERROR",
            "UND_ERR_HEADERS_TIMEOUT",
            "aborted due to timeout",
            "deadline has elapsed",
        ],
    ),
    (Says::Kind(Cancelled), &["he operation was cancelled."]),
    (
        Says::Kind(Unimplemented),
        &["is not implemented, or supported, or enabled", "is not implemented or not supported"],
    ),
    (
        Says::Kind(InvalidArgument),
        &[
            "ontains an invalid argument",
            "specified an invalid argument",
            "* GenerateContentRequest.",
            "nvalid JSON payload received",
            "nvalid value at '",
            "nable to submit request because",
            "nable to process input image",
            "missing a thought_signature",
            "function call turn comes immediately after",
            "number of function response parts is equal to",
            "ensure that multiturn requests",
            "eveloper instruction is not enabled for",
            "hinking level is not supported for this model",
            "This model only works in thinking mode",
            "candidateCount must be between",
            "inimum allowed deadline is",
            "nsupported MIME type: ",
            "requests can be in one batch",
            "ultiple tools are supported only when",
        ],
    ),
    // Closes of WebSocket sessions, as Python's websockets prints them: a reason, if there is any, has been read by now.
    (Says::Kind(Unavailable), &["1001 (going away)", "1012 (service restart)", "1013 (try again later)"]),
    (Says::Kind(InvalidArgument), &["1007 (invalid frame payload data)"]),
    (Says::Kind(PermissionDenied), &["1008 (policy violation)"]),
    (Says::Kind(PayloadTooLarge), &["1009 (message too big)"]),
    (
        Says::Kind(Internal),
        &["1011 (internal error)", "1011 internal error", "1011 Internal error", "1011 None. Internal error"],
    ),
    // There was no answer at all, and this is what the client says of it.
    (
        Says::Kind(Transport),
        &[
            "fetch failed",
            "ECONNRESET",
            "ECONNREFUSED",
            "socket hang up",
            "he network connection was lost",
            "error sending request for url",
            "annot assign requested address",
            "ailed connecting to host",
            "no close frame received or sent",
            "java.net.SocketException",
            "java.net.ConnectException",
            "java.net.UnknownHostException",
            "DioException [connection error]",
            "onnection refused",
            "onnection reset by",
            "onnection aborted",
            "onnection error.",
            "no such host",
            "ame or service not known",
            "ailure in name resolution",
            "nodename nor servname",
            "ENOTFOUND",
            "EAI_AGAIN",
            "ENETUNREACH",
            "EHOSTUNREACH",
            "ailed host lookup",
            "ould not resolve host",
            "ould not connect to server",
            "erver disconnected",
            "peer closed connection without",
            "Max retries exceeded with url",
            "etwork is unreachable",
            "o route to host",
            "roken pipe",
            "Failed to open TCP connection",
            "ailed to fetch",
            "request to http…failed, reason:",
            "NetworkError when attempting",
            "error trying to connect",
            "UND_ERR_SOCKET",
            "other side closed",
            "CERTIFICATE_VERIFY_FAILED",
            "TLS handshake",
        ],
    ),
];

/// What the first sentence says that is known and asked for.
pub(super) fn find(message: &str, asked: impl Fn(Kind) -> bool) -> Option<Says> {
    let mut known = TABLE.iter().filter(|(said, _)| match said {
        Says::Kind(kind) => asked(*kind),
        Says::Limit => asked(RateLimited),
    });
    let is_said = |sentence: &str| sentence.split('…').all(|part| says(message, &[part]));
    let said = |said: &Says, sentences: &[&str]| {
        sentences.iter().any(|s| is_said(s))
            || *said == Says::Kind(ContentBlocked) && (names_block(message) || numbers_block(message))
            || *said == Says::Kind(InvalidArgument) && names_field(message)
    };
    known.find(|(kind, sentences)| said(kind, sentences)).map(|(said, _)| *said)
}

/// Whether a text has one of the sentences in it.
pub(super) fn is_known(text: &str) -> bool {
    // The shortest is longer, and almost every member of a body is shorter.
    text.len() > 20 && find(text, |_| true).is_some()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn each_sentence_is_found_in_its_place() {
        for (said, sentences) in &TABLE {
            for sentence in *sentences {
                let text = format!("It said: {}.", sentence.replace('…', " some words "));
                assert_eq!(find(&text, |_| true), Some(*said), "{text}");
            }
        }
    }

    #[test]
    fn prose_says_nothing() {
        for text in [
            "",
            "Something went wrong on our side.",
            "A caller has permission.",
            "The model said that it is late.",
        ] {
            assert!(!is_known(text), "{text}");
        }
        assert_eq!(
            find("API key not valid. The prompt is too long", |kind| kind == ContextTooLong),
            Some(Says::Kind(ContextTooLong))
        );
    }
}
