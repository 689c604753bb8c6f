//! Asking `countTokens` first.

use std::sync::Mutex;
use std::time::Duration;

use bytes::{Bytes, BytesMut};
use http::uri::PathAndQuery;
use http::{HeaderValue, Request, Uri, header};
use tokio::time::Instant;

use super::body::PreflightBody;
use crate::error::ConfigError;
use crate::lock::lock;
use crate::time;

/// The longest answer that is read.
pub(super) const MAX_ANSWER: usize = 64 * 1024;

/// Asks the server how many tokens a prompt has before it is sent, within bounds of its own. See the
/// [module documentation](super).
///
/// Default: prompts of 16 KiB to 1 MiB, at most 60 a minute, and no longer than 2 s for each.
#[derive(Clone, Copy, Debug, PartialEq)]
#[must_use]
pub struct CountTokens {
    pub(super) per_minute: u32,
    pub(super) timeout: Duration,
    pub(super) min_bytes: usize,
    pub(super) max_bytes: usize,
}

impl Default for CountTokens {
    fn default() -> Self {
        Self::new()
    }
}

impl CountTokens {
    /// The defaults.
    pub const fn new() -> Self {
        Self { per_minute: 60, timeout: Duration::from_secs(2), min_bytes: 16 * 1024, max_bytes: 1024 * 1024 }
    }

    /// How many are asked for within a minute, 1 to 100,000; that many at once as well. Those above are not counted, and sent.
    /// Default 60.
    pub const fn per_minute(mut self, count: u32) -> Self {
        self.per_minute = count;
        self
    }

    /// How long an answer is waited for, retries of the layers inside included, 1 ms to 60 s. Default 2 s.
    pub const fn timeout(mut self, timeout: Duration) -> Self {
        self.timeout = timeout;
        self
    }

    /// Smaller bodies are not counted. Default 16 KiB.
    pub const fn min_bytes(mut self, bytes: usize) -> Self {
        self.min_bytes = bytes;
        self
    }

    /// Larger bodies are not counted, at most 16 MiB: they are sent twice. Default 1 MiB.
    pub const fn max_bytes(mut self, bytes: usize) -> Self {
        self.max_bytes = bytes;
        self
    }

    pub(super) fn check(&self) -> Result<(), ConfigError> {
        if !(1..=100_000).contains(&self.per_minute) {
            return Err(ConfigError::new("per_minute", "must be from 1 to 100,000"));
        }
        if self.timeout < Duration::from_millis(1) || self.timeout > Duration::from_secs(60) {
            return Err(ConfigError::new("timeout", "must be from 1 ms to 60 s"));
        }
        if self.max_bytes > 16 * 1024 * 1024 || self.min_bytes > self.max_bytes {
            return Err(ConfigError::new("max_bytes", "must be from min_bytes to 16 MiB"));
        }
        Ok(())
    }
}

/// Counts that are left: a bucket of a minute's, which fills as time passes.
#[derive(Debug, Default)]
pub(super) struct Bucket(Mutex<Option<Level>>);

#[derive(Clone, Copy, Debug, PartialEq)]
struct Level {
    left: f64,
    at: Instant,
}

impl Bucket {
    /// Whether one more may be asked for, which is then taken.
    pub(super) fn take(&self, per_minute: u32, now: Instant) -> bool {
        let mut level = lock(&self.0);
        let (taken, next) = Level::take(*level, per_minute, now);
        *level = Some(next);
        taken
    }
}

impl Level {
    fn take(level: Option<Self>, per_minute: u32, now: Instant) -> (bool, Self) {
        let most = f64::from(per_minute);
        let left = level.map_or(most, |level| {
            let filled = now.saturating_duration_since(level.at).as_secs_f64() / 60.0 * most;
            (level.left + filled).min(most)
        });
        let taken = left >= 1.0;
        (taken, Self { left: if taken { left - 1.0 } else { left }, at: now })
    }
}

/// The request that asks, for one whose whole body is held. `None` where it cannot be made.
///
/// `model` is put into the body where that names none.
pub(super) fn request<B>(
    head: &Request<()>,
    body: &PreflightBody<B>,
    model: Option<&str>,
) -> Option<Request<PreflightBody<B>>> {
    let mut asked = Request::new(PreflightBody::of_bytes(wrap(body, model)?));
    *asked.method_mut() = head.method().clone();
    *asked.version_mut() = head.version();
    *asked.uri_mut() = uri(head.uri())?;
    asked.headers_mut().clone_from(head.headers());
    let length = body_length(&asked);
    if asked.headers().contains_key(header::CONTENT_LENGTH) {
        asked.headers_mut().insert(header::CONTENT_LENGTH, HeaderValue::from(length));
    }
    asked.extensions_mut().clone_from(head.extensions());
    Some(asked)
}

fn body_length<B>(request: &Request<PreflightBody<B>>) -> u64 {
    request.body().held() as u64
}

/// The same address with the method `countTokens`, and without `alt`.
fn uri(uri: &Uri) -> Option<Uri> {
    let path = uri.path();
    let (before, verb) = path.rsplit_once(':')?;
    if !matches!(verb, "generateContent" | "streamGenerateContent") {
        return None;
    }
    let mut whole = format!("{before}:countTokens");
    let pairs = uri.query().into_iter().flat_map(|query| query.split('&'));
    let kept = pairs.filter(|pair| !matches!(pair.split('=').next(), Some("alt" | "$alt" | "%24alt" | "")));
    for (n, pair) in kept.enumerate() {
        whole.push(if n == 0 { '?' } else { '&' });
        whole.push_str(pair);
    }
    let mut parts = uri.clone().into_parts();
    parts.path_and_query = Some(PathAndQuery::try_from(whole).ok()?);
    Uri::from_parts(parts).ok()
}

/// The body within `generateContentRequest`.
fn wrap<B>(body: &PreflightBody<B>, model: Option<&str>) -> Option<Bytes> {
    let mut whole = BytesMut::with_capacity(body.held() + 64 + model.map_or(0, str::len));
    whole.extend_from_slice(b"{\"generateContentRequest\":{");
    if let Some(model) = model {
        // It stands between quotes, where a name has nothing to be escaped.
        if model.contains(['"', '\\']) {
            return None;
        }
        whole.extend_from_slice(b"\"model\":\"models/");
        whole.extend_from_slice(model.as_bytes());
        whole.extend_from_slice(b"\",");
    }
    let mut begun = false;
    for piece in body.pieces() {
        let mut rest = &piece[..];
        if !begun {
            rest = rest.trim_ascii_start();
            match rest.split_first() {
                // A comma before the end would be no JSON.
                Some((b'{', after)) if model.is_some() && after.trim_ascii_start().starts_with(b"}") => {
                    return None;
                }
                Some((b'{', after)) => (rest, begun) = (after, true),
                Some(_) => return None,
                None => continue,
            }
        }
        whole.extend_from_slice(rest);
    }
    whole.extend_from_slice(b"}");
    begun.then(|| whole.freeze())
}

/// The count of an answer.
pub(super) fn total(body: &[u8]) -> Option<u64> {
    #[derive(serde::Deserialize)]
    #[serde(rename_all = "camelCase")]
    struct Answer {
        total_tokens: u64,
    }
    serde_json::from_slice(body).ok().map(|answer: Answer| answer.total_tokens)
}

/// When an answer is no longer waited for.
pub(super) fn give_up_at(timeout: Duration, deadline: Option<Instant>) -> Instant {
    let own = time::saturating_add(time::now(), timeout);
    deadline.map_or(own, |deadline| deadline.min(own))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_minutes_counts_may_go_at_once_and_come_back_with_time() {
        let start = time::now();
        let mut level = None;
        let mut take = |secs: f64| {
            let (taken, next) = Level::take(level, 6, start + Duration::from_secs_f64(secs));
            level = Some(next);
            taken
        };
        assert!((0..6).all(|_| take(0.0)));
        assert!(!take(0.0) && !take(9.9));
        assert!(take(10.0) && !take(10.1));
        assert!((0..6).all(|_| take(600.0)) && !take(600.0), "no more than a minute's");
    }

    #[test]
    fn the_question_is_the_request_in_an_envelope() {
        let ask = |body: &'static str, model| {
            let body = PreflightBody::<()>::of_bytes(Bytes::from_static(body.as_bytes()));
            wrap(&body, model).map(|bytes| String::from_utf8(bytes.to_vec()).expect("text"))
        };
        assert_eq!(
            ask(r#" {"contents":[]}"#, Some("m")).as_deref(),
            Some(r#"{"generateContentRequest":{"model":"models/m","contents":[]}}"#)
        );
        assert_eq!(
            ask(r#"{"model":"models/m"}"#, None).as_deref(),
            Some(r#"{"generateContentRequest":{"model":"models/m"}}"#)
        );
        assert_eq!(
            [ask("[]", None), ask("", None), ask("{}", Some("a\"b")), ask("{ }", Some("m"))],
            [None, None, None, None]
        );
        for (from, to) in [
            ("/v1beta/models/m:generateContent", Some("/v1beta/models/m:countTokens")),
            (
                "https://h/v1beta/models/m:streamGenerateContent?alt=sse&key=K",
                Some("https://h/v1beta/models/m:countTokens?key=K"),
            ),
            ("/v1beta/models/m:embedContent", None),
            ("/v1beta/models", None),
        ] {
            let made = uri(&from.parse().expect("a URI")).map(|uri| uri.to_string());
            assert_eq!(made.as_deref(), to, "{from}");
        }
        assert_eq!(total(br#"{"totalTokens": 31, "promptTokensDetails": []}"#), Some(31));
        assert_eq!(total(br#"{"error": {}}"#), None);
    }
}
