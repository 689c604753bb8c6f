//! The kinds of failure, and what each means to a person.

use std::fmt;

/// What went wrong, in the terms that a caller can act on.
///
/// Prints as the snake-case name (`rate_limited`). The table of what each kind means, whether it is retried
/// and what helps is on [`Kind::remedy`] and in the README.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
#[non_exhaustive]
pub enum Kind {
    /// The request is malformed or a parameter is out of range. The same request fails again.
    InvalidArgument,
    /// The API key is wrong, unknown or expired. Google says this with a 400.
    ApiKeyInvalid,
    /// Region not served, billing not enabled, or a resource not in the state it must be in.
    FailedPrecondition,
    /// More input tokens than the model takes.
    ContextTooLong,
    /// More bytes than the API takes. Google says this with a 400, proxies with a 413.
    PayloadTooLarge,
    /// No credentials, expired ones, or of the wrong sort.
    Unauthenticated,
    /// The credentials are known but not allowed to do this.
    PermissionDenied,
    /// Google found the key in public and has blocked it.
    KeyLeaked,
    /// The API is not enabled in this project.
    ServiceDisabled,
    /// No such model, file, cache or path.
    NotFound,
    /// Over a limit that clears within minutes.
    RateLimited,
    /// Over a limit that does not: daily, zero, spend cap, prepaid credits.
    QuotaExhausted,
    /// The model has no capacity at the moment, whoever asks.
    Overloaded,
    /// The service or something in front of it is down.
    Unavailable,
    /// An error inside Google; also the form some over-long requests take.
    Internal,
    /// A time limit passed: Google's, a gateway's, or the caller's own.
    DeadlineExceeded,
    /// Cancelled on the server's side.
    Cancelled,
    /// Aborted by, or in conflict with, another operation.
    Conflict,
    /// Not implemented, or not for this method.
    Unimplemented,
    /// The prompt or the answer was blocked by a policy. The HTTP status is 200, or 400 where an image was asked for.
    ContentBlocked,
    /// A 200 without an answer.
    EmptyResponse,
    /// A 200 whose answer stops before its end: a stream without a finish reason, JSON that is cut. A text that ends at
    /// `MAX_TOKENS` is what was asked for, and no fault.
    Truncated,
    /// No answer: connecting, sending or receiving failed.
    Transport,
    /// The client refused to send the request, and will the next time: no TLS for `https`, a relative URI, a header, method or
    /// version that it does not take.
    Usage,
    /// None of the above could be read from the answer.
    Unknown,
}

impl Kind {
    /// Every kind there is today, in the order of the documentation.
    pub const ALL: &'static [Self] = &[
        Self::InvalidArgument,
        Self::ApiKeyInvalid,
        Self::FailedPrecondition,
        Self::ContextTooLong,
        Self::PayloadTooLarge,
        Self::Unauthenticated,
        Self::PermissionDenied,
        Self::KeyLeaked,
        Self::ServiceDisabled,
        Self::NotFound,
        Self::RateLimited,
        Self::QuotaExhausted,
        Self::Overloaded,
        Self::Unavailable,
        Self::Internal,
        Self::DeadlineExceeded,
        Self::Cancelled,
        Self::Conflict,
        Self::Unimplemented,
        Self::ContentBlocked,
        Self::EmptyResponse,
        Self::Truncated,
        Self::Transport,
        Self::Usage,
        Self::Unknown,
    ];

    /// The snake-case name, as printed.
    #[must_use]
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::InvalidArgument => "invalid_argument",
            Self::ApiKeyInvalid => "api_key_invalid",
            Self::FailedPrecondition => "failed_precondition",
            Self::ContextTooLong => "context_too_long",
            Self::PayloadTooLarge => "payload_too_large",
            Self::Unauthenticated => "unauthenticated",
            Self::PermissionDenied => "permission_denied",
            Self::KeyLeaked => "key_leaked",
            Self::ServiceDisabled => "service_disabled",
            Self::NotFound => "not_found",
            Self::RateLimited => "rate_limited",
            Self::QuotaExhausted => "quota_exhausted",
            Self::Overloaded => "overloaded",
            Self::Unavailable => "unavailable",
            Self::Internal => "internal",
            Self::DeadlineExceeded => "deadline_exceeded",
            Self::Cancelled => "cancelled",
            Self::Conflict => "conflict",
            Self::Unimplemented => "unimplemented",
            Self::ContentBlocked => "content_blocked",
            Self::EmptyResponse => "empty_response",
            Self::Truncated => "truncated",
            Self::Transport => "transport",
            Self::Usage => "usage",
            Self::Unknown => "unknown",
        }
    }

    /// One sentence that a person can act on.
    ///
    /// After Google's [troubleshooting guide](https://ai.google.dev/gemini-api/docs/troubleshooting), in our
    /// own words, as of 2026-11.
    #[must_use]
    pub const fn remedy(self) -> &'static str {
        match self {
            Self::InvalidArgument => {
                "Check the request against the API reference and the API version in the path (/v1 or /v1beta)."
            }
            Self::ApiKeyInvalid => {
                "Check the API key: it is mistyped, deleted or expired; create a new one in AI Studio."
            }
            Self::FailedPrecondition => {
                "Enable billing in AI Studio or call from a supported region; if it is about a file, wait until the file is ACTIVE."
            }
            Self::ContextTooLong => "Shorten the input, or use a model with a larger context window.",
            Self::PayloadTooLarge => {
                "Send less inline data: upload large media with the Files API and refer to it."
            }
            Self::Unauthenticated => {
                "Send valid credentials: an API key for the Gemini API, an OAuth access token for Vertex AI, never both."
            }
            Self::PermissionDenied => {
                "Check the key's restrictions, the account's roles and whether this model or resource is open to the project."
            }
            Self::KeyLeaked => {
                "Google has blocked this key because it was found in public: create a new one and keep it out of code and logs."
            }
            Self::ServiceDisabled => {
                "Enable the API named in the message for this project, then wait a few minutes."
            }
            Self::NotFound => {
                "Check the model's exact name, the resource and the API version; retired models answer like this, too."
            }
            Self::RateLimited => {
                "Wait as long as the answer says and send fewer requests or tokens per minute; ask for a higher quota if it keeps happening."
            }
            Self::QuotaExhausted => {
                "Waiting minutes will not help: use another model, wait for the daily reset (midnight Pacific), raise the quota or spend cap, or enable billing."
            }
            Self::Overloaded => {
                "The model is short of capacity for everyone: back off for a minute or use another model meanwhile."
            }
            Self::Unavailable => "The service is temporarily down: back off and retry, or use another model.",
            Self::Internal => {
                "Retry; if it stays, shorten the input or use another model, since some over-long requests fail like this."
            }
            Self::DeadlineExceeded => {
                "Raise the client's timeout or shorten the input: the answer took longer than allowed."
            }
            Self::Cancelled => "The server cancelled the call, usually under load: retry once.",
            Self::Conflict => "Another operation got in the way: retry after a moment.",
            Self::Unimplemented => "This method or feature does not exist for the model or API version used.",
            Self::ContentBlocked => {
                "A policy blocked the prompt or the answer: change the prompt, or the safety settings where you may."
            }
            Self::EmptyResponse => {
                "The model returned nothing usable: allow more output tokens, simplify tools or prompt, and try again."
            }
            Self::Truncated => "The answer broke off: discard or mark what arrived, and ask again.",
            Self::Transport => {
                "Check the network, the address and the proxy; the request may not have arrived."
            }
            Self::Usage => {
                "Correct the program: the client needs TLS for https, an absolute URI, and a method, version and headers that it takes; nothing was sent."
            }
            Self::Unknown => "Look at the answer itself: it does not look like one of Gemini's.",
        }
    }

    /// The page of Google's documentation that says more.
    #[must_use]
    pub const fn docs(self) -> &'static str {
        match self {
            Self::ApiKeyInvalid | Self::KeyLeaked | Self::Unauthenticated => {
                "https://ai.google.dev/gemini-api/docs/api-key"
            }
            Self::FailedPrecondition => "https://ai.google.dev/gemini-api/docs/available-regions",
            Self::ContextTooLong => "https://ai.google.dev/gemini-api/docs/long-context",
            Self::PayloadTooLarge => "https://ai.google.dev/gemini-api/docs/files",
            Self::NotFound => "https://ai.google.dev/gemini-api/docs/models",
            Self::RateLimited | Self::QuotaExhausted => "https://ai.google.dev/gemini-api/docs/rate-limits",
            Self::ContentBlocked => "https://ai.google.dev/gemini-api/docs/safety-settings",
            Self::ServiceDisabled => "https://cloud.google.com/service-usage/docs/enable-disable",
            _ => "https://ai.google.dev/gemini-api/docs/troubleshooting",
        }
    }
}

impl fmt::Display for Kind {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.pad(self.as_str())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn each_kind_has_a_name_a_remedy_and_a_page() {
        let names: std::collections::HashSet<_> = Kind::ALL.iter().map(|kind| kind.to_string()).collect();
        assert_eq!(names.len(), Kind::ALL.len());
        for kind in Kind::ALL {
            assert!(kind.remedy().len() > 20 && kind.remedy().ends_with('.'), "{kind}: {}", kind.remedy());
            let page = match kind {
                Kind::ApiKeyInvalid | Kind::KeyLeaked | Kind::Unauthenticated => "/api-key",
                Kind::FailedPrecondition => "/available-regions",
                Kind::ContextTooLong => "/long-context",
                Kind::PayloadTooLarge => "/files",
                Kind::NotFound => "/models",
                Kind::RateLimited | Kind::QuotaExhausted => "/rate-limits",
                Kind::ContentBlocked => "/safety-settings",
                Kind::ServiceDisabled => "/enable-disable",
                _ => "/troubleshooting",
            };
            assert!(kind.docs().starts_with("https://") && kind.docs().ends_with(page), "{kind}");
            let verdict = crate::Verdict::new(crate::verdict::Inner::new(*kind));
            assert_eq!((verdict.docs(), verdict.remedy()), (Some(kind.docs()), kind.remedy()));
            let printed = format!("{verdict:?}");
            assert!(printed.starts_with(&format!("Verdict {{ kind: {kind:?}")), "{printed}");
        }
        assert_eq!(crate::Verdict::default().docs(), None);
    }
}
