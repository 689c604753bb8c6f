//! The list of Google's errors: one line of documentation, one constructor, one status each.

use http::StatusCode;

use super::{Fault, Kind};

macro_rules! errors {
    ($($(#[$doc:meta])* $name:ident, $kind:ident, $code:literal, $status:literal;)*) => {
        /// An error that Google sends.
        #[derive(Clone, Copy, Debug, PartialEq, Eq)]
        pub(in crate::sim) enum ErrorKind { $($kind,)* }

        impl ErrorKind {
            const ALL: &'static [ErrorKind] = &[$(ErrorKind::$kind,)*];

            pub(super) fn name(self) -> &'static str {
                match self { $(ErrorKind::$kind => stringify!($name),)* }
            }

            pub(in crate::sim) fn code(self) -> u16 {
                match self { $(ErrorKind::$kind => $code,)* }
            }

            /// `error.status`; empty for pages in HTML.
            pub(super) fn google_status(self) -> &'static str {
                match self { $(ErrorKind::$kind => $status,)* }
            }
        }

        /// Errors that Google sends.
        impl Fault {
            $($(#[$doc])* pub fn $name() -> Self { Self::of(Kind::Error(ErrorKind::$kind)) })*
        }
    };
}

errors! {
    /// 429: the requests of this minute are spent. Default: limit 10, `Please retry in 31.58s.`
    rate_limited, RateLimited, 429, "RESOURCE_EXHAUSTED";
    /// 429: the input tokens of this minute are spent. Default: limit 250,000, retry in 31.58 s.
    token_rate_limited, TokenRateLimited, 429, "RESOURCE_EXHAUSTED";
    /// 429: the requests of this day are spent, and yet `RetryInfo` is short, as Google's mostly is. Default:
    /// limit 250, retry in 31.58 s.
    daily_quota_exhausted, DailyQuota, 429, "RESOURCE_EXHAUSTED";
    /// 429: the model has no quota at all: `limit: 0` in the message and no `quotaValue`. Default: retry in
    /// 31.58 s.
    zero_quota, ZeroQuota, 429, "RESOURCE_EXHAUSTED";
    /// 429 of one sentence, without details.
    bare_exhausted, BareExhausted, 429, "RESOURCE_EXHAUSTED";
    /// 429 of Vertex AI when capacity shared by all customers is short; without details.
    shared_capacity_exhausted, SharedCapacity, 429, "RESOURCE_EXHAUSTED";
    /// 429: the project's monthly spend cap is reached. Only the message says so.
    spend_cap_reached, SpendCap, 429, "RESOURCE_EXHAUSTED";
    /// 429: prepaid credits are used up. Only the message says so.
    prepay_depleted, PrepayDepleted, 429, "RESOURCE_EXHAUSTED";
    /// 429 with the reason `MODEL_CAPACITY_EXHAUSTED`: not the caller's quota, the model is full.
    model_capacity_exhausted, ModelCapacity, 429, "RESOURCE_EXHAUSTED";
    /// 503: the model is in high demand.
    overloaded, Overloaded, 503, "UNAVAILABLE";
    /// 503: the service is unavailable.
    unavailable, Unavailable, 503, "UNAVAILABLE";
    /// 500.
    internal, Internal, 500, "INTERNAL";
    /// 504: the server's deadline expired.
    deadline_exceeded, DeadlineExceeded, 504, "DEADLINE_EXCEEDED";
    /// 499: the server cancelled the operation.
    cancelled, Cancelled, 499, "CANCELLED";
    /// 502 from the front end: a page in HTML.
    bad_gateway_html, BadGatewayHtml, 502, "";
    /// 404 from the front end: a page in HTML.
    not_found_html, NotFoundHtml, 404, "";
    /// 400: some field is wrong, with `BadRequest` details.
    invalid_argument, InvalidArgument, 400, "INVALID_ARGUMENT";
    /// 400 (not 401) with the reason `API_KEY_INVALID`: no such key.
    api_key_invalid, ApiKeyInvalid, 400, "INVALID_ARGUMENT";
    /// 400 with the reason `API_KEY_INVALID`: the key has expired.
    api_key_expired, ApiKeyExpired, 400, "INVALID_ARGUMENT";
    /// 400: more input tokens than the model's context holds.
    context_too_long, ContextTooLong, 400, "INVALID_ARGUMENT";
    /// 400 (not 413): the request's body is too large.
    payload_too_large, PayloadTooLarge, 400, "INVALID_ARGUMENT";
    /// 400: not offered where the caller is.
    location_unsupported, LocationUnsupported, 400, "FAILED_PRECONDITION";
    /// 401: the credentials are not accepted; with `WWW-Authenticate`.
    unauthenticated, Unauthenticated, 401, "UNAUTHENTICATED";
    /// 403 without details: the caller may not do this.
    permission_denied, PermissionDenied, 403, "PERMISSION_DENIED";
    /// 403 without details: no key was sent.
    no_api_key, NoApiKey, 403, "PERMISSION_DENIED";
    /// 403 without details: Google found the key published and closed it.
    key_leaked, KeyLeaked, 403, "PERMISSION_DENIED";
    /// 403 with the reason `CONSUMER_SUSPENDED`. **Echoes the caller's key**, as Google does, three times:
    /// once in the message, twice in the details.
    consumer_suspended, ConsumerSuspended, 403, "PERMISSION_DENIED";
    /// 403 with the reason `SERVICE_DISABLED`: the API is not enabled in the project.
    service_disabled, ServiceDisabled, 403, "PERMISSION_DENIED";
    /// 404: no such model.
    not_found, NotFound, 404, "NOT_FOUND";
    /// 501.
    unimplemented, Unimplemented, 501, "UNIMPLEMENTED";
}

impl ErrorKind {
    pub(in crate::sim) fn status(self) -> StatusCode {
        StatusCode::from_u16(self.code()).unwrap_or(StatusCode::INTERNAL_SERVER_ERROR)
    }

    pub(in crate::sim) fn is_html(self) -> bool {
        self.google_status().is_empty()
    }
}

impl Fault {
    /// Every error that Google sends and this simulator knows, once, in no meaningful order: for a test that
    /// shows each of them to your own code.
    pub fn every_error() -> impl Iterator<Item = Fault> {
        ErrorKind::ALL.iter().map(|kind| Fault::of(Kind::Error(*kind)))
    }
}
