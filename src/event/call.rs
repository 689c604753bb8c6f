//! What there is to say of one call.

use std::borrow::Cow;
use std::error::Error;
use std::fmt;
use std::time::Duration;

use http::uri::{Authority, PathAndQuery};
use http::{Request, Response, StatusCode};
use tokio::time::Instant;

use super::{AnsweredBy, Attachment, Attempt, Attempts, Cause, GaveUp};
use crate::catalogue::Catalogue;
use crate::context::AttemptCounter;
use crate::error::{BoxError, Rejected, chain, find};
use crate::redact::{holds_key, redact};
use crate::request::{Method, Surface, Target, TargetKey};
use crate::tier::ServiceTier;
use crate::time;
use crate::verdict::{End, Kind, Outcome, Usage, Verdict};

/// One call, from its start to its end: what an [`ObserveLayer`](crate::observe::ObserveLayer) saw of it.
///
/// No header and no body are kept, and of the URI neither the query nor a user is shown. What looks like a key or a
/// token is replaced in [`path`](Self::path) and [`message`](Self::message), and is no [`model`](Self::model).
pub struct Call {
    target: TargetKey,
    method: Method,
    streaming: bool,
    http_method: http::Method,
    path: Option<PathAndQuery>,
    authority: Option<Authority>,
    https: bool,
    attempt: u32,
    started: Instant,
    trail: AttemptCounter,
    pub(crate) attachment: Option<Attachment>,
    // Of the head.
    status: Option<StatusCode>,
    headed: Option<Instant>,
    verdict: Verdict,
    made: u32,
    waited: Duration,
    gave_up: Option<GaveUp>,
    /// Of a failure without a response.
    error: Option<String>,
    // Of the end.
    ended: Instant,
    outcome: Outcome,
    usage: Option<Usage>,
    /// The model of this crate's own fallback.
    fell_back: Option<AnsweredBy>,
    /// What the answer names, where it is not the model that was asked, letter for letter.
    model_version: Option<String>,
    is_redirect: bool,
}

impl Call {
    /// What the caller has attached to the request, if it is of this type. See [`Attachment`].
    #[must_use]
    pub fn attached<T: 'static>(&self) -> Option<&T> {
        self.attachment.as_ref()?.0.downcast_ref()
    }

    /// A call that begins now.
    pub(crate) fn begin<B>(request: &Request<B>, trail: AttemptCounter) -> Self {
        let (target, uri, now) = (Target::of(request), request.uri(), time::now());
        trail.expect(target.model());
        Self {
            target: target.key(),
            method: target.method(),
            streaming: target.is_streaming(),
            http_method: request.method().clone(),
            path: uri.path_and_query().cloned(),
            authority: uri.authority().cloned(),
            https: uri.scheme() != Some(&http::uri::Scheme::HTTP),
            attempt: Attempt::of(request),
            started: now,
            trail,
            attachment: request.extensions().get::<Attachment>().cloned(),
            status: None,
            headed: None,
            verdict: Verdict::default(),
            made: 1,
            waited: Duration::ZERO,
            gave_up: None,
            error: None,
            ended: now,
            outcome: Outcome::Dropped,
            usage: None,
            fell_back: None,
            model_version: None,
            is_redirect: false,
        }
    }

    pub(crate) fn answered<B>(&mut self, response: &Response<B>) {
        self.headed = Some(time::now());
        self.status = Some(response.status());
        self.verdict = Verdict::of(response);
        self.fell_back = AnsweredBy::of(response).cloned();
        if let Some(attempts) = response.extensions().get::<Attempts>() {
            self.made = attempts.made();
            self.waited = attempts.waits().iter().sum();
            self.gave_up = attempts.gave_up();
        } else if let Some(cause) = Cause::of(response) {
            self.read_trail(cause.error());
        }
    }

    /// There was no response to say it.
    fn read_trail(&mut self, error: &(dyn Error + 'static)) {
        (self.made, self.waited) = self.trail.read();
        // What was turned away was no attempt.
        if find::<Rejected>(error).is_some() {
            self.made -= 1;
        }
    }

    pub(crate) fn errored(&mut self, error: &BoxError) {
        self.verdict = Verdict::from_error(error.as_ref());
        self.error = Some(in_one_line(error));
        self.read_trail(error.as_ref());
    }

    pub(crate) fn end(&mut self, end: End) {
        self.ended = time::now();
        (self.outcome, self.usage) = (end.outcome, end.usage);
        self.end_model();
        if self.headed.is_none() && self.error.is_none() {
            (self.made, self.waited) = self.trail.read();
        }
    }

    /// Which model has answered. Costs nothing where that is the one that was asked.
    fn end_model(&mut self) {
        let Self { verdict, fell_back, target, .. } = &*self;
        let Some(asked) = fell_back.as_ref().and_then(AnsweredBy::model).or_else(|| target.model()) else {
            return;
        };
        let version = verdict.model_version().filter(|version| version != asked && !holds_key(version));
        self.is_redirect =
            version.as_ref().is_some_and(|version| Catalogue::current().is_redirect(asked, version));
        self.model_version = version;
    }

    /// Surface, model, place and label. Names stand here as they stood in the path.
    #[must_use]
    pub const fn target(&self) -> &TargetKey {
        &self.target
    }

    /// The model, where path or [`ModelHint`](crate::request::ModelHint) name it.
    #[must_use]
    pub fn model(&self) -> Option<&str> {
        self.target.model().filter(|model| !holds_key(model))
    }

    /// The model that was sent the request that was answered: another one than [`model`](Self::model) where the
    /// [fallback](crate::fallback) inside has changed it.
    #[must_use]
    pub fn sent_model(&self) -> Option<&str> {
        self.fell_back.as_ref().and_then(AnsweredBy::model).or_else(|| self.model())
    }

    /// The model that the answer says has answered: its `modelVersion`, where the classifier
    /// [watches](crate::classify::ClassifyLayer::watch), and where it is not the very name that was
    /// [sent](Self::sent_model). By its price the call is billed.
    #[must_use]
    pub fn model_version(&self) -> Option<&str> {
        self.model_version.as_deref()
    }

    /// The [`model_version`](Self::model_version), where it is another model than was asked, by the
    /// [catalogue](crate::catalogue::Catalogue::is_redirect), and not only a version of it.
    #[must_use]
    pub fn redirected(&self) -> Option<&str> {
        self.model_version().filter(|_| self.is_redirect)
    }

    /// The [service tier](crate::tier) that was asked for; `None` where none was named.
    #[must_use]
    pub fn tier_asked(&self) -> Option<ServiceTier> {
        let named = Some(self.target.tier()).filter(|tier| *tier != ServiceTier::Standard);
        self.verdict.tier_asked().or(named)
    }

    /// The tier that served, where one was asked for and the answer says it.
    #[must_use]
    pub fn tier_served(&self) -> Option<ServiceTier> {
        self.verdict.tier_served()
    }

    /// What was asked for.
    #[must_use]
    pub const fn method(&self) -> Method {
        self.method
    }

    /// Whether method or query asked for a stream.
    #[must_use]
    pub const fn is_streaming(&self) -> bool {
        self.streaming
    }

    /// The HTTP method.
    #[must_use]
    pub const fn http_method(&self) -> &http::Method {
        &self.http_method
    }

    /// The path, without the query.
    #[must_use]
    pub fn path(&self) -> Cow<'_, str> {
        redact(self.path.as_ref().map_or("", PathAndQuery::path))
    }

    /// The host, where the request's URI names it.
    #[must_use]
    pub fn host(&self) -> Option<&str> {
        self.authority.as_ref().map(Authority::host)
    }

    /// The port, where the request's URI names a host: its own, or that of the scheme.
    #[must_use]
    pub fn port(&self) -> Option<u16> {
        let authority = self.authority.as_ref()?;
        Some(authority.port_u16().unwrap_or(if self.https { 443 } else { 80 }))
    }

    /// The status of the answer, if there was one.
    #[must_use]
    pub const fn status(&self) -> Option<StatusCode> {
        self.status
    }

    /// What the answer, or the error in its place, means. A call that was dropped before has a success here: look at
    /// [`outcome`](Self::outcome) first.
    #[must_use]
    pub const fn verdict(&self) -> &Verdict {
        &self.verdict
    }

    /// How it ended: whole, failed, or dropped by its caller before its end.
    ///
    /// What is wrong inside an answer is seen if the [classifier](crate::classify::ClassifyLayer::watch) watches it.
    #[must_use]
    pub const fn outcome(&self) -> Outcome {
        self.outcome
    }

    /// The kind of the failure, if it is one: of the head, or of the end of the body.
    #[must_use]
    pub const fn kind(&self) -> Option<Kind> {
        match self.outcome {
            Outcome::Failed(kind) => Some(kind),
            _ => None,
        }
    }

    /// The message of the failure, with keys and tokens replaced: the server's, or the error's and its sources'. Empty
    /// where there is none.
    #[must_use]
    pub fn message(&self) -> Cow<'_, str> {
        match &self.error {
            Some(error) => Cow::Borrowed(error),
            None => self.verdict.message(),
        }
    }

    /// Which attempt this call is, where the layer stands inside the retry layer; the first is 1.
    #[must_use]
    pub const fn attempt(&self) -> u32 {
        self.attempt
    }

    /// Attempts that were made, the first included; what was turned away in this process is none. 1 where the layer
    /// stands inside the retry layer. Of a call that was dropped: attempts that were begun.
    #[must_use]
    pub const fn attempts(&self) -> u32 {
        self.made
    }

    /// How often the request had been sent before: OpenTelemetry's `http.request.resend_count`.
    #[must_use]
    pub const fn resends(&self) -> u32 {
        self.made.saturating_sub(1) + self.attempt - 1
    }

    /// The waits between its attempts, together, as they were decided.
    #[must_use]
    pub const fn waited(&self) -> Duration {
        self.waited
    }

    /// Why the failure was not retried. `None` where there was no answer to say so, and no retry layer.
    #[must_use]
    pub const fn gave_up(&self) -> Option<GaveUp> {
        self.gave_up
    }

    /// When it was called.
    #[must_use]
    pub const fn started(&self) -> Instant {
        self.started
    }

    /// From the call to the head of the answer, retries and waits included. `None` where there was no answer.
    #[must_use]
    pub fn time_to_head(&self) -> Option<Duration> {
        self.headed.map(|headed| headed.saturating_duration_since(self.started))
    }

    /// From the call to its end: of the body for an answer, of the head for a failure.
    #[must_use]
    pub fn latency(&self) -> Duration {
        self.ended.saturating_duration_since(self.started)
    }

    /// The tokens that the answer says it has used, as far as it was read. `None` where it does not say.
    #[must_use]
    pub const fn usage(&self) -> Option<Usage> {
        self.usage
    }

    /// OpenTelemetry's `gen_ai.operation.name`: `generate_content`, `chat` or `embeddings`; for what it has no name
    /// for, the method's own.
    #[must_use]
    pub const fn operation(&self) -> &'static str {
        match self.method {
            Method::GenerateContent | Method::StreamGenerateContent | Method::InteractionsCreate => {
                "generate_content"
            }
            Method::ChatCompletions => "chat",
            Method::EmbedContent | Method::BatchEmbedContents | Method::Embeddings => "embeddings",
            method => method.as_str(),
        }
    }

    /// OpenTelemetry's `gen_ai.provider.name`: `gcp.gemini`, `gcp.vertex_ai`, or `gcp.gen_ai` for either.
    #[must_use]
    pub fn provider(&self) -> &'static str {
        match self.target.surface() {
            Surface::Vertex => "gcp.vertex_ai",
            _ if self.target.project().is_some() => "gcp.vertex_ai",
            Surface::GeminiApi | Surface::Interactions | Surface::OpenAi => "gcp.gemini",
            _ => "gcp.gen_ai",
        }
    }

    /// Whether its answer tells what it used: files and lists do not, and may be large.
    pub(crate) const fn uses_tokens(&self) -> bool {
        matches!(
            self.method,
            Method::GenerateContent
                | Method::StreamGenerateContent
                | Method::GenerateAnswer
                | Method::InteractionsCreate
                | Method::InteractionsGet
                | Method::ChatCompletions
                | Method::EmbedContent
                | Method::BatchEmbedContents
                | Method::Embeddings
        )
    }
}

impl fmt::Debug for Call {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        // Not the URI: its query may hold the key.
        f.debug_struct("Call")
            .field("method", &self.method)
            .field("model", &self.model())
            .field("status", &self.status)
            .field("outcome", &self.outcome)
            .field("attempts", &self.made)
            .field("latency", &self.latency())
            .field("usage", &self.usage)
            .finish_non_exhaustive()
    }
}

/// An error and its sources, outermost first, without keys.
fn in_one_line(error: &BoxError) -> String {
    let mut line = String::new();
    for link in chain(error.as_ref()) {
        let text = link.to_string();
        // Some errors print their source themselves.
        if line.ends_with(&text) {
            continue;
        }
        if !line.is_empty() {
            line.push_str(": ");
        }
        line.push_str(&text);
    }
    redact(&without_users(line)).into_owned()
}

/// Errors of clients like to print the URI, and one with `user:password@` has a password in it.
fn without_users(mut text: String) -> String {
    let mut from = 0;
    while let Some(scheme) = text[from..].find("://") {
        let start = from + scheme + 3;
        let end = text[start..].find(['/', ' ', ')', '"', '\'']).map_or(text.len(), |len| start + len);
        if let Some(at) = text[start..end].rfind('@') {
            text.replace_range(start..start + at, "[redacted]");
        }
        from = start;
    }
    text
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_error_is_told_once_with_its_sources_and_without_keys() {
        let inner = std::io::Error::other("GET https://x/y?key=my-own-key refused");
        let error: BoxError = Box::new(std::io::Error::other(inner));
        assert_eq!(in_one_line(&error), "GET https://x/y?key=[redacted] refused");
        let users: BoxError = "http://me:secret@h/x@y, https://@h and ftp://a@b:1 :// @".into();
        let clean = "http://[redacted]@h/x@y, https://[redacted]@h and ftp://[redacted]@b:1 :// @";
        assert_eq!(in_one_line(&users), clean);
        let rejected: BoxError = Rejected::new("closed").into();
        assert_eq!(in_one_line(&rejected), "not sent: closed");
    }

    #[test]
    fn names_of_the_conventions_follow_surface_and_method() {
        for (path, operation, provider) in [
            ("/v1beta/models/m:streamGenerateContent", "generate_content", "gcp.gemini"),
            ("/v1beta/openai/chat/completions", "chat", "gcp.gemini"),
            ("/v1beta/models/m:batchEmbedContents", "embeddings", "gcp.gemini"),
            (
                "/v1/projects/p/locations/l/publishers/google/models/m:generateContent",
                "generate_content",
                "gcp.vertex_ai",
            ),
            ("/v1/projects/p/locations/l/endpoints/openapi/chat/completions", "chat", "gcp.vertex_ai"),
            ("/v1beta/models/m:countTokens", "countTokens", "gcp.gemini"),
            ("/v1internal:generateContent", "generate_content", "gcp.gen_ai"),
        ] {
            let request = Request::post(path).body(()).expect("a valid request");
            let call = Call::begin(&request, AttemptCounter::default());
            assert_eq!((call.operation(), call.provider()), (operation, provider), "{path}");
        }
    }
}
