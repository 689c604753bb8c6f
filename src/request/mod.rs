//! What a request asks for: the surface, the method, the model, the place, and whose quota it draws on.
//!
//! [`Target::of`] reads it from any [`http::Request`], whatever its body: from the HTTP method, the path, and
//! three extensions that the caller may have put in, [`KeyLabel`], [`ModelHint`] and
//! [`ServiceTier`]. The layers of this crate key
//! their state by [`Target::key`], so that an exhausted model does not stop another.
//!
//! ```
//! use tower_gemini::request::{KeyLabel, Method, Surface, Target};
//!
//! let mut request = http::Request::post(
//!     "https://generativelanguage.googleapis.com/v1beta/models/gemini-3.5-flash-lite:streamGenerateContent?alt=sse&key=SECRET",
//! )
//! .body(())?;
//! request.extensions_mut().insert(KeyLabel::new("team-a"));
//!
//! let target = Target::of(&request);
//! assert_eq!(target.surface(), Surface::GeminiApi);
//! assert_eq!(target.method(), Method::StreamGenerateContent);
//! assert_eq!(target.model(), Some("gemini-3.5-flash-lite"));
//! assert!(target.is_streaming());
//! assert_eq!(target.to_string(), "gemini_api streamGenerateContent gemini-3.5-flash-lite (team-a)");
//! # Ok::<(), http::Error>(())
//! ```
//!
//! # What is never read
//!
//! The API key: neither the `x-goog-api-key` header, nor `authorization`, nor the `key` query. No header is
//! read at all, and of the query only whether it asks for a stream. A [`Target`] therefore holds nothing that
//! may not be logged, as long as the caller puts no secret into the path, a label or a hint; see [`KeyLabel`]
//! for the belt to these braces.
//!
//! # How a path is read
//!
//! The version segment (`v1`, `v1beta`, `v1alpha`, `v1beta1`, `v1internal`, …) is looked for from the left, and the first
//! one that a known resource follows counts; what stands before it is a gateway's prefix. Empty and `.`
//! segments are skipped, `%2F` and `%3A` count as `/` and `:`, names are percent-decoded once. A name that is
//! longer than 256 bytes, or holds a control character, white space or one of `?#&=`, is taken for absent: it is no
//! resource name, and it may be a query that was glued to the path.
//!
//! Reading allocates nothing for a path without `%`. WebSocket and gRPC paths are [`Surface::Unknown`], and so
//! is anything else that is not in the tables of [`Surface`] and [`Method`]; nothing panics.

mod key;
pub(crate) mod limits;
mod method;
mod path;
pub(crate) mod quota_key;

use std::borrow::Cow;
use std::fmt;

pub use key::{KeyLabel, ModelHint, TargetKey};
pub use method::{Method, Surface};

use crate::tier::ServiceTier;

/// What a request asks for, borrowed from the request. See the [module](self).
///
/// `Debug` and `Display` hold names from the path and the label: no header, no query.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Target<'a> {
    surface: Surface,
    method: Method,
    project: Option<Cow<'a, str>>,
    location: Option<Cow<'a, str>>,
    publisher: Option<Cow<'a, str>>,
    model: Option<Cow<'a, str>>,
    label: Option<KeyLabel>,
    streaming: bool,
    tier: ServiceTier,
}

impl<'a> Target<'a> {
    /// Reads the target of a request, with its [`KeyLabel`], its [`ModelHint`] and its [`ServiceTier`].
    #[must_use]
    pub fn of<B>(request: &'a http::Request<B>) -> Self {
        let mut target = Self::read(Some(request.method()), request.uri().path(), request.uri().query());
        if let Some(hinted) = request.extensions().get::<ModelHint>().and_then(ModelHint::model) {
            target.model = Some(Cow::Borrowed(hinted));
        }
        target.label = request.extensions().get::<KeyLabel>().cloned();
        target.tier = ServiceTier::of(request).unwrap_or_default();
        target
    }

    /// Reads the target of a URI whose HTTP method is not known.
    ///
    /// Where the HTTP method decides, the likelier one is taken: an interaction is created in its collection
    /// (`POST`), anything else is read (`GET`).
    #[must_use]
    pub fn from_uri(uri: &'a http::Uri) -> Self {
        Self::read(None, uri.path(), uri.query())
    }

    /// Reads the target of a path, as [`from_uri`](Self::from_uri) does. A query or fragment behind it is no part
    /// of the path; a scheme and host before it do no harm.
    #[must_use]
    pub fn from_path(path: &'a str) -> Self {
        let path = path.split_once('#').map_or(path, |(before, _)| before);
        match path.split_once('?') {
            Some((path, query)) => Self::read(None, path, Some(query)),
            None => Self::read(None, path, None),
        }
    }

    fn read(http: Option<&http::Method>, path: &'a str, query: Option<&str>) -> Self {
        let mut target = path::read(http, path);
        target.streaming |= query.is_some_and(|query| path::asks_for_stream(query, target.method));
        target
    }

    const fn new(surface: Surface) -> Self {
        Self {
            surface,
            method: Method::Other,
            project: None,
            location: None,
            publisher: None,
            model: None,
            label: None,
            streaming: false,
            tier: ServiceTier::Standard,
        }
    }

    /// Which of Google's APIs the request speaks.
    #[must_use]
    pub const fn surface(&self) -> Surface {
        self.surface
    }

    /// What the request wants done.
    #[must_use]
    pub const fn method(&self) -> Method {
        self.method
    }

    /// The model: the [`ModelHint`] if there is one, else what the path says.
    ///
    /// `models/{m}` gives `{m}`; tuned models and Vertex endpoints keep their collection, `tunedModels/{id}` and
    /// `endpoints/{id}`, because they live in a name space of their own. The OpenAI-compatible, Interactions and
    /// Code Assist surfaces carry the model in the body, which is not read here: `None` without a hint.
    #[must_use]
    pub fn model(&self) -> Option<&str> {
        self.model.as_deref()
    }

    /// The Google Cloud project, where the path names it (Vertex AI).
    #[must_use]
    pub fn project(&self) -> Option<&str> {
        self.project.as_deref()
    }

    /// The location, where the path names it (Vertex AI): `us-central1`, `global`.
    #[must_use]
    pub fn location(&self) -> Option<&str> {
        self.location.as_deref()
    }

    /// The publisher of the model, where the path names it (Vertex AI): `google`, `anthropic`.
    #[must_use]
    pub fn publisher(&self) -> Option<&str> {
        self.publisher.as_deref()
    }

    /// The label that the caller gave the request's key.
    #[must_use]
    pub const fn label(&self) -> Option<&KeyLabel> {
        self.label.as_ref()
    }

    /// The [service tier](crate::tier) that the request carries; standard where it carries none.
    #[must_use]
    pub const fn tier(&self) -> ServiceTier {
        self.tier
    }

    /// Whether method or query ask for a stream: `streamGenerateContent`, `alt=sse`, `stream=true` when an
    /// interaction is read.
    ///
    /// `false` does not exclude a stream: chat completions and interactions ask for one in the body.
    #[must_use]
    pub const fn is_streaming(&self) -> bool {
        self.streaming || self.method.is_streaming()
    }

    /// The owned key under which layers keep what they know of this target.
    ///
    /// Allocates nothing as long as the model's name has at most 46 bytes, and project and location together 45.
    #[must_use]
    pub fn key(&self) -> TargetKey {
        TargetKey::new(self)
    }
}

impl fmt::Display for Target<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{} {}", self.surface, self.method)?;
        key::write_names(f, self.model(), self.project(), self.location(), self.label(), self.tier)
    }
}

/// Whether [`Target::is_streaming`] may be true of this request: a glance at its verb and its query, which spares all
/// others the reading of their target.
#[inline]
pub(crate) fn may_stream<B>(request: &http::Request<B>) -> bool {
    let (path, query) = (request.uri().path(), request.uri().query());
    // The usual one.
    if query.is_none() && path.ends_with(":generateContent") {
        return false;
    }
    // The colon may be written as `%3A`.
    let verb = memchr::memrchr2(b':', b'%', path.as_bytes()).map_or("", |at| &path[at + 1..]);
    verb.trim_start_matches(['3', 'A', 'a']).starts_with("stream")
        || query.is_some_and(|query| query.contains("sse") || query.contains("stream"))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_glance_sees_every_stream_and_spares_the_rest() {
        for (uri, may) in [
            ("/v1beta/models/m:streamGenerateContent", true),
            ("/v1beta/models/m%3AstreamGenerateContent", true),
            ("/v1beta/models/m%3astreamGenerateContent", true),
            ("/v1beta1/interactions/i:stream", true),
            ("/v1beta/models/m:generateContent?alt=sse", true),
            ("/v1beta/interactions/i?stream=true", true),
            ("/v1beta/models/m:generateContent", false),
            ("/v1beta/models/m:generateContent?alt=json", false),
            ("/v1beta/models", false),
            ("/", false),
        ] {
            let request = http::Request::get(uri).body(()).expect("a valid request");
            assert_eq!(may_stream(&request), may, "{uri}");
            assert!(may || !Target::of(&request).is_streaming(), "{uri}");
        }
    }
}
