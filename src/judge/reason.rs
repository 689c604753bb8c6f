//! What the names say that errors go by: Google's reasons, the Interactions API's codes, and the words of relays. Pure.

use crate::google_rpc::Code;
use crate::verdict::Kind;

/// `google.rpc.ErrorInfo.reason`: the list of <https://cloud.google.com/apis/design/errors>, of Code Assist and
/// of the bodies on record (2026-11), as far as the status does not say the same.
pub(super) fn by_reason(reason: &str) -> Option<Kind> {
    Some(match reason {
        "API_KEY_INVALID" | "API_KEY_EXPIRED" | "API_KEY_NOT_FOUND" => Kind::ApiKeyInvalid,
        "SERVICE_DISABLED" => Kind::ServiceDisabled,
        "MODEL_CAPACITY_EXHAUSTED" | "MODEL_CAPACITY_EXCEEDED" => Kind::Overloaded,
        // The second is of what exists at once, which no window gives back.
        "QUOTA_EXHAUSTED" | "RESOURCE_QUOTA_EXCEEDED" | "INSUFFICIENT_G1_CREDITS_BALANCE" => {
            Kind::QuotaExhausted
        }
        // OpenAI's names, in the place of Google's.
        name if name.starts_with(|c: char| c.is_ascii_lowercase()) => {
            let exact = [Kind::ContextTooLong, Kind::QuotaExhausted, Kind::ContentBlocked];
            return by_name(name).filter(|kind| exact.contains(kind));
        }
        _ => return None,
    })
}

/// The constant that is all of a message: `API_KEY_INVALID`, `Error: RESOURCE_EXHAUSTED`.
pub(super) fn constant(message: &str) -> Option<&str> {
    let text = Some(message.trim()).filter(|text| text.len() <= 96)?;
    // A client's word may stand in front of it.
    let text = text.rsplit_once("rror: ").map_or(text, |(_, rest)| rest);
    let is_constant = |b: u8| b.is_ascii_uppercase() || b.is_ascii_digit() || b == b'_';
    (text.len() > 3 && text.bytes().all(is_constant)).then_some(text)
}

/// The status that Google answers a reason with: for those who hand on the reason under a status of their own.
///
/// The names are those of `google.api.ErrorReason`, IAM and VPC Service Controls (2026-11). That file documents what the first
/// sixteen are answered with; of the others the status follows from what the name is about.
pub(super) fn code_of_reason(reason: &str, number: u16) -> Option<Code> {
    Some(match reason {
        // Under this number it is what has to be mended before, as a free tier's country is.
        "BILLING_DISABLED" if number == 400 => Code::FailedPrecondition,
        "SERVICE_DISABLED"
        | "BILLING_DISABLED"
        | "API_KEY_SERVICE_BLOCKED"
        | "API_KEY_HTTP_REFERRER_BLOCKED"
        | "API_KEY_IP_ADDRESS_BLOCKED"
        | "API_KEY_ANDROID_APP_BLOCKED"
        | "API_KEY_IOS_APP_BLOCKED"
        | "CONSUMER_INVALID"
        | "CONSUMER_SUSPENDED"
        | "USER_PROJECT_DENIED"
        | "RESOURCE_PROJECT_INVALID"
        | "SECURITY_POLICY_VIOLATED"
        | "ORG_RESTRICTION_VIOLATION"
        | "ORG_RESTRICTION_HEADER_INVALID"
        | "RESOURCE_USAGE_RESTRICTION_VIOLATED"
        | "LOCATION_TAX_POLICY_VIOLATED"
        | "LOCATION_ORG_POLICY_VIOLATED"
        | "LOCATION_POLICY_VIOLATED"
        | "SERVICE_NOT_VISIBLE"
        | "GCP_SUSPENDED"
        | "ACCESS_TOKEN_SCOPE_INSUFFICIENT"
        | "IAM_PERMISSION_DENIED" => Code::PermissionDenied,
        "CREDENTIALS_MISSING"
        | "ACCESS_TOKEN_EXPIRED"
        | "ACCESS_TOKEN_TYPE_UNSUPPORTED"
        | "ACCOUNT_STATE_INVALID"
        | "SESSION_COOKIE_INVALID"
        | "USER_BLOCKED_BY_ADMIN"
        | "MISSING_ORIGIN"
        | "OVERLOADED_CREDENTIALS" => Code::Unauthenticated,
        "RATE_LIMIT_EXCEEDED" | "RESOURCE_QUOTA_EXCEEDED" => Code::ResourceExhausted,
        "API_KEY_INVALID" | "SYSTEM_PARAMETER_UNSUPPORTED" => Code::InvalidArgument,
        _ => return None,
    })
}

/// The Interactions API's string codes, the canonical names in lower case, and what relays and OpenAI's clients write.
pub(super) fn by_name(name: &str) -> Option<Kind> {
    // The Interactions API calls its codes URIs; those on record are their last part alone.
    let name = name.rsplit(['/', '#']).next().filter(|name| name.len() < 40)?;
    let name = name.to_ascii_lowercase().replace(' ', "_");
    Some(match name.as_str() {
        "invalid_request" | "invalid_argument" | "invalid_input" | "out_of_range" => Kind::InvalidArgument,
        "unauthenticated"
        | "unauthorized"
        | "invalid_grant"
        | "invalid_client"
        | "invalid_rapt"
        | "authentication_error"
        | "authentication" => Kind::Unauthenticated,
        "permission_denied" | "permission_error" | "forbidden" => Kind::PermissionDenied,
        "not_found" | "not_found_error" | "model_not_found" => Kind::NotFound,
        "too_many_requests"
        | "rate_limit_exceeded"
        | "rate_limited"
        | "rate_limit_error"
        | "rate_limit"
        | "throttling_error"
        | "resource_exhausted" => Kind::RateLimited,
        "quota_exceeded"
        | "quota_exhausted"
        | "insufficient_quota"
        | "insufficient_user_quota"
        | "insufficient_credits"
        | "provider_quota_exceeded"
        | "insufficient_balance"
        | "insufficient_credit"
        | "pre_consume_token_quota_failed"
        | "billing_hard_limit_reached"
        | "payment_required"
        | "budget_limit_exceeded"
        | "budget_exceeded" => Kind::QuotaExhausted,
        "invalid_api_key" | "api_key_invalid" => Kind::ApiKeyInvalid,
        "failed_precondition" => Kind::FailedPrecondition,
        "request_too_large" | "payload_too_large" | "message_too_big" => Kind::PayloadTooLarge,
        "context_length_exceeded"
        | "context_window_exceeded"
        | "maximum_context_length"
        | "prompt_too_long"
        | "input_too_long" => Kind::ContextTooLong,
        "overloaded" | "overloaded_error" | "model_overloaded" => Kind::Overloaded,
        "unavailable" | "service_unavailable" | "provider_unavailable" => Kind::Unavailable,
        "internal" | "internal_error" | "internal_server_error" | "server_error" | "api_error" => {
            Kind::Internal
        }
        "deadline_exceeded" | "timeout" | "timeout_error" | "gateway_timeout" => Kind::DeadlineExceeded,
        "cancelled" => Kind::Cancelled,
        "aborted" | "conflict" | "already_exists" => Kind::Conflict,
        "unimplemented" | "not_implemented" => Kind::Unimplemented,
        "safety"
        | "prohibited_content"
        | "image_safety"
        | "recitation"
        | "blocklist"
        | "spii"
        | "content_filter"
        | "prompt_blocked"
        | "sensitive_words_detected"
        | "content_policy_violation" => Kind::ContentBlocked,
        _ => return None,
    })
}
