//! The status in a client's print of an error: `Error 429, …`, `code = ResourceExhausted desc = …`,
//! `ResourceExhaustedException: io.grpc.StatusRuntimeException: RESOURCE_EXHAUSTED: …`. Pure, one pass over words.
//!
//! A name or number counts only where prints have it: behind a word such as "status", as the name of an exception, in
//! front of a colon. Prose has such words, too.

use crate::google_rpc::Code;

/// The status that a print names.
#[derive(Clone, Copy, Debug, Default, PartialEq)]
pub(super) struct Named {
    pub(super) code: Option<Code>,
    /// The HTTP status, as a number or by the name of an exception.
    pub(super) number: Option<u16>,
    /// The number leads a sentence, as google-api-core and the old JavaScript SDK write it: they leave the name out.
    pub(super) leads: bool,
    /// A client's error that leads a sentence further on: `got status: 500 Internal Server Error. 429 Over the quota.`
    pub(super) inner: Option<u16>,
}

/// Reads the first status that is named, and the first number.
pub(super) fn status(text: &str) -> Named {
    let (mut constant, mut camel, mut number, mut alias) = (None, None, None, None);
    let bytes = text.as_bytes();
    let (mut at, mut before, mut earlier, mut leads, mut inner) = (0, "", "", false, None);
    loop {
        let is_word = |b: &u8| b.is_ascii_alphanumeric() || *b == b'_';
        let Some(start) = bytes[at..].iter().position(is_word).map(|n| at + n) else { break };
        let end = bytes[start..].iter().position(|b| !is_word(b)).map_or(bytes.len(), |n| start + n);
        let word = &text[start..end];
        let place = Place {
            label: is_label(before) || matches!(before, "of" | "was" | "is") && is_label(earlier),
            leading: start == 0
                // Of a quote, a line or a page's title. The equals sign is Java's print of a map, which has no quotes.
                || matches!(bytes[start - 1], b'[' | b'(' | b'"' | b'\'' | b'`' | b'=' | b'\n' | b'>')
                || matches!(bytes[..start], [.., b':' | b'-' | b'.', b' ']),
            told: VERBS.contains(&before),
            before,
            after: &bytes[end..],
        };
        match word.as_bytes()[0] {
            b'0'..=b'9' => {
                let here = place.number(word);
                number = number.or(here);
                leads |= here.is_some() && here == number && place.leads();
                inner = inner.or(here.filter(|n| *n < 500 && here != number && place.leads()));
            }
            b'A'..=b'Z' if word.len() > 6 => {
                constant = constant.or_else(|| place.constant(word));
                camel = camel.or_else(|| place.camel(word));
                alias = alias.or_else(|| place.alias(word));
            }
            // Swift's `RPCStatus.resourceExhausted`.
            b'a'..=b'z' if word.len() > 6 && before.ends_with("Status") => {
                let upper = word[..1].to_ascii_uppercase() + &word[1..];
                camel = camel.or_else(|| from_camel(&upper));
            }
            _ => {}
        }
        (at, earlier, before) = (end, before, word);
    }
    let number = number.or(alias).or_else(|| phrase(text)).or_else(|| super::message::http_line(text));
    Named { code: constant.or(camel), number, leads: leads && number.is_some(), inner }
}

/// The status whose phrase ends a print that has no number: `AI_APICallError: Too Many Requests`.
fn phrase(text: &str) -> Option<u16> {
    const PHRASES: [(&str, u16); 10] = [
        (": Too Many Requests", 429),
        (": Bad Gateway", 502),
        (": Service Unavailable", 503),
        (": Gateway Timeout", 504),
        // These are prose elsewhere.
        ("Error: Bad Request", 400),
        ("Error: Unauthorized", 401),
        ("Error: Forbidden", 403),
        ("Error: Not Found", 404),
        ("Error: Payload Too Large", 413),
        ("Error: Internal Server Error", 500),
    ];
    let text = text.trim_end();
    PHRASES.iter().find(|(phrase, _)| text.ends_with(phrase)).map(|(_, number)| *number)
}

/// What stands around a word.
struct Place<'t> {
    label: bool,
    leading: bool,
    /// Somebody says that it was the answer.
    told: bool,
    before: &'t str,
    after: &'t [u8],
}

impl Place<'_> {
    fn number(&self, word: &str) -> Option<u16> {
        let number = word.parse().ok().filter(|n| word.len() == 3 && (400..600).contains(n))?;
        let rest = match self.after {
            // A fraction, a share, a version.
            [b'.', b'0'..=b'9', ..] | [b'%', ..] | [b'-', b'0'..=b'9', ..] => return None,
            // Python's `429, message='Too Many Requests', url=…`.
            [b',', rest @ ..] if rest.starts_with(b" message=") => {
                return (self.label || self.leading).then_some(number);
            }
            // `returned 429, retrying in 500ms`.
            [b',', b' ', next, ..] if self.told && next.is_ascii_lowercase() => return Some(number),
            [b' ' | b':' | b'.' | b'-' | b']' | b')', rest @ ..] => rest,
            [] => return (self.label || self.leading || self.told).then_some(number),
            rest => return self.label.then_some(number).filter(|_| !rest.is_empty()),
        };
        let next = rest.iter().find(|b| !b" :.-(".contains(b));
        // A sentence, a name or a body follows.
        let begins = next.is_none_or(|b| b.is_ascii_uppercase() || b"{['\"*<]".contains(b))
            || matches!(self.after, [b':', b' ', ..] | [b' ', b'-', b' ', ..]);
        // "error 503 times" is prose.
        let loose = self.after[0] == b' ' && self.before.to_ascii_lowercase().ends_with("error");
        (self.label && !loose || (self.label || self.leading || self.told) && begins).then_some(number)
    }

    /// Whether this begins a sentence that is the error, and is not said to be a status by the word in front of it.
    fn leads(&self) -> bool {
        let before = self.before.to_ascii_lowercase();
        self.leading && (!self.label || before.ends_with("error") || before == "exception")
    }

    fn constant(&self, word: &str) -> Option<Code> {
        let code = Code::from_name(word)?;
        // Single words are prose in capitals as well.
        let counted = self.before.len() <= 3 && self.before.bytes().all(|b| b.is_ascii_digit());
        let named = self.label || (counted && !self.before.is_empty()) || self.after.first() == Some(&b':');
        // `last error: UNKNOWN: ipv4:142.251.10.95:443: …`: of one address of many, and no answer's.
        if self.after.starts_with(b": ipv4:") || self.after.starts_with(b": ipv6:") {
            return None;
        }
        (word.contains('_') || named).then_some(code)
    }

    /// `ResourceExhausted`, `ResourceExhaustedException`.
    fn camel(&self, word: &str) -> Option<Code> {
        let name = exception(word);
        let code = from_camel(name)?;
        let named = name.len() < word.len() || self.label || self.after.first() == Some(&b':');
        named.then_some(code)
    }

    /// The exceptions of clients that are named after the HTTP status: LiteLLM's, OpenAI's, google-api-core's.
    fn alias(&self, word: &str) -> Option<u16> {
        let name = exception(word);
        if name.len() == word.len() && self.after.first() != Some(&b':') {
            return None;
        }
        // Of Vercel's gateway: `GatewayInternalServerError`.
        let name = name.strip_prefix("Gateway").filter(|name| *name != "Timeout").unwrap_or(name);
        Some(match name {
            "BadRequest" | "ContextWindowExceeded" | "InvalidRequest" => 400,
            "Unauthorized" | "Authentication" => 401,
            "Forbidden" => 403,
            "ModelNotFound" => 404,
            "RateLimit" | "TooManyRequests" | "QuotaExceeded" | "RateLimitExceeded" => 429,
            "InternalServer" | "InternalServerError" => 500,
            "BadGateway" => 502,
            "ServiceUnavailable" => 503,
            "GatewayTimeout" | "APITimeout" => 504,
            _ => return None,
        })
    }
}

fn exception(word: &str) -> &str {
    word.strip_suffix("Exception")
        .or_else(|| word.strip_suffix("Error"))
        .filter(|name| !name.is_empty())
        .unwrap_or(word)
}

/// What stands in front of a number where somebody tells which answer there was.
const VERBS: [&str; 8] = ["returned", "responded", "with", "got", "received", "gave", "answered", "failed"];

/// What stands in front of a status.
fn is_label(word: &str) -> bool {
    const LABELS: [&str; 18] = [
        "status",
        "code",
        "error",
        "statuscode",
        "status_code",
        "http",
        "httpstatus",
        "http_status",
        "errorcode",
        "error_code",
        "httpresponsecode",
        "responsecode",
        "exception",
        "apierror",
        "codename",
        "httpcode",
        // .NET's `does not indicate success: 429`.
        "success",
        "raised",
    ];
    word.len() < 17 && LABELS.iter().any(|label| word.eq_ignore_ascii_case(label))
}

/// The codes as Go, Swift, C# and Rust write them.
fn from_camel(name: &str) -> Option<Code> {
    Some(match name {
        "ResourceExhausted" => Code::ResourceExhausted,
        "InvalidArgument" => Code::InvalidArgument,
        "DeadlineExceeded" => Code::DeadlineExceeded,
        "NotFound" => Code::NotFound,
        "AlreadyExists" => Code::AlreadyExists,
        "PermissionDenied" => Code::PermissionDenied,
        "FailedPrecondition" => Code::FailedPrecondition,
        "OutOfRange" => Code::OutOfRange,
        "Unauthenticated" => Code::Unauthenticated,
        "Unimplemented" => Code::Unimplemented,
        "Unavailable" => Code::Unavailable,
        "Internal" => Code::Internal,
        "Aborted" => Code::Aborted,
        "DataLoss" => Code::DataLoss,
        "Cancelled" | "Canceled" => Code::Cancelled,
        _ => return None,
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_print_names_its_status() {
        use Code::*;
        for (text, code, number) in [
            (
                "Error 400, Message: x, Status: INVALID_ARGUMENT, Details: []",
                Some(InvalidArgument),
                Some(400),
            ),
            (
                "ResourceExhaustedException: io.grpc.StatusRuntimeException: RESOURCE_EXHAUSTED: x",
                Some(ResourceExhausted),
                None,
            ),
            ("com.google.api.gax.rpc.PermissionDeniedException: no", Some(PermissionDenied), None),
            ("rpc error: code = Unavailable desc = down", Some(Unavailable), None),
            ("8 RESOURCE_EXHAUSTED: over", Some(ResourceExhausted), None),
            ("14 UNAVAILABLE: down", Some(Unavailable), None),
            ("Status(StatusCode=\"Internal\", Detail=\"x\")", Some(Internal), None),
            ("google.api_core.exceptions.NotFound: 404 models/x", Some(NotFound), None),
            (
                "google.genai.errors.ClientError: 429 RESOURCE_EXHAUSTED. {",
                Some(ResourceExhausted),
                Some(429),
            ),
            ("Error code: 429 - [{", None, Some(429)),
            ("got status: 503 Service Unavailable.", None, Some(503)),
            ("HTTP 502: Bad Gateway", None, Some(502)),
            ("[429 Too Many Requests] over", None, Some(429)),
            ("x: [403 ] Firebase AI Logic requires it", None, Some(403)),
            ("litellm.RateLimitError: over", None, Some(429)),
            ("x.RetryError: Last error: Too Many Requests", None, Some(429)),
            ("RetryError[<Future state=finished raised ResourceExhausted>]", Some(ResourceExhausted), None),
            ("litellm.ServiceUnavailableError: down", None, Some(503)),
            ("429 Over the quota.", None, Some(429)),
            ("429, message='Too Many Requests', url='https://x'", None, Some(429)),
            (
                "RPCError(httpResponseCode: 429, status: RPCStatus.resourceExhausted)",
                Some(ResourceExhausted),
                Some(429),
            ),
            ("googleapi: Error 403: x, forbidden", None, Some(403)),
        ] {
            let named = status(text);
            assert_eq!((named.code, named.number), (code, number), "{text}");
        }
    }

    #[test]
    fn prose_names_none() {
        for text in [
            "upstream error: 503 times a charm",
            "404 not here",
            "the count 429 is too high",
            "exceeds the maximum (5003412)",
            "File x, line 402, in y",
            "status 404.5",
            "an INTERNAL matter",
            "The model is Unavailable today",
            "error 500% up",
            "it had Too Many Requests",
            "µ",
        ] {
            assert_eq!(status(text), Named::default(), "{text}");
        }
    }
}
