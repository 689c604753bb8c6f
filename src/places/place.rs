//! A place, and how a request is rewritten for it. The rewriting of a URI is pure.

use std::fmt;
use std::sync::Arc;

use http::uri::{Authority, PathAndQuery, Scheme};
use http::{HeaderName, HeaderValue, Request, Uri};

use crate::error::ConfigError;
use crate::request::{KeyLabel, Target};

static X_GOOG_API_KEY: HeaderName = HeaderName::from_static("x-goog-api-key");
static X_VERTEX_REQUEST_TYPE: HeaderName = HeaderName::from_static("x-vertex-ai-llm-request-type");

/// Whether a request draws on provisioned throughput: `X-Vertex-AI-LLM-Request-Type`.
///
/// Without the header Vertex AI takes what is provisioned first, and what goes over it is served and billed as you go
/// ([Google's page](https://cloud.google.com/vertex-ai/generative-ai/docs/use-provisioned-throughput), read 2026-11).
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
#[non_exhaustive]
pub enum RequestType {
    /// Provisioned throughput alone: what goes over it is a 429, after which the next place is asked.
    Dedicated,
    /// What is provisioned is passed by.
    Shared,
}

impl RequestType {
    /// As it is sent: `dedicated`, `shared`.
    #[must_use]
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Dedicated => "dedicated",
            Self::Shared => "shared",
        }
    }
}

impl fmt::Display for RequestType {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.pad(self.as_str())
    }
}

/// Where a request may be sent: a region of Vertex AI, the global endpoint, provisioned throughput, a project or key of the
/// caller's own.
///
/// What is not set stays as it is in the request. `Debug` shows no header's value.
///
/// ```
/// use tower_gemini::places::{Place, RequestType};
///
/// let provisioned = Place::vertex("europe-west4").named("provisioned").request_type(RequestType::Dedicated);
/// let places = [provisioned, Place::vertex("europe-west4"), Place::vertex("eu"), Place::vertex("global")];
/// # let _ = places;
/// ```
#[derive(Clone)]
#[must_use = "a place does nothing until a layer has it"]
pub struct Place {
    name: Arc<str>,
    region: Option<Arc<str>>,
    location: Option<Box<str>>,
    project: Option<Box<str>>,
    /// `Err` until the layer is built.
    origin: Option<Result<(Option<Scheme>, Authority), ()>>,
    headers: Vec<(HeaderName, HeaderValue)>,
    /// For requests without a label.
    label: KeyLabel,
}

impl Place {
    /// A place that changes nothing yet. The name is printed in events and labels, so it must not be a key.
    pub fn new(name: impl Into<Arc<str>>) -> Self {
        let name = name.into();
        Self {
            label: KeyLabel::new(Arc::clone(&name)),
            name,
            region: None,
            location: None,
            project: None,
            origin: None,
            headers: Vec::new(),
        }
    }

    /// A location of Vertex AI: a region such as `europe-west4`, one of the multi-regions `us` and `eu`, or `global`. It is
    /// the place's name and its [region](Self::region), its host is the one that
    /// [Google's page](https://docs.cloud.google.com/gemini-enterprise-agent-platform/resources/locations) gives (read
    /// 2026-11), and it takes the place of the location in a request's path.
    pub fn vertex(location: impl Into<Arc<str>>) -> Self {
        let location = location.into();
        let host = match &*location {
            "global" => "aiplatform.googleapis.com".to_owned(),
            "us" | "eu" => format!("aiplatform.{location}.rep.googleapis.com"),
            region => format!("{region}-aiplatform.googleapis.com"),
        };
        let mut place = Self::new(Arc::clone(&location)).region(Arc::clone(&location));
        place.location = Some(Box::from(&*location));
        place.origin = Some(Authority::try_from(host).map(|host| (Some(Scheme::HTTPS), host)).map_err(drop));
        place
    }

    /// Another name.
    pub fn named(mut self, name: impl Into<Arc<str>>) -> Self {
        self.name = name.into();
        self.label = KeyLabel::new(Arc::clone(&self.name));
        self
    }

    /// Where it works on a request, for [`Residency`]. Default none: under a residency it is then never asked.
    pub fn region(mut self, region: impl Into<Arc<str>>) -> Self {
        self.region = Some(region.into());
        self
    }

    /// The Google Cloud project that takes the place of the one in a request's path (Vertex AI). Only one of your own: see
    /// [whose projects](super#whose-projects).
    pub fn project(mut self, project: impl Into<Box<str>>) -> Self {
        self.project = Some(project.into());
        self
    }

    /// Scheme and host, with a port if need be, such as `http://127.0.0.1:8080`; of a host alone the scheme stays.
    pub fn origin(mut self, origin: &str) -> Self {
        let (scheme, host) = match origin.split_once("://") {
            Some((scheme, host)) => (Scheme::try_from(scheme).map(Some), host),
            None => (Ok(None), origin),
        };
        let host = host.strip_suffix('/').unwrap_or(host);
        let origin = scheme.ok().zip(Authority::try_from(host).ok());
        self.origin = Some(origin.ok_or(()));
        self
    }

    /// The key in `x-goog-api-key`; a `key` in the query is taken out. Only one of a project of your own: see
    /// [whose projects](super#whose-projects).
    pub fn api_key(self, mut key: HeaderValue) -> Self {
        key.set_sensitive(true);
        self.header(X_GOOG_API_KEY.clone(), key)
    }

    /// Whether provisioned throughput is used (Vertex AI). Default: what the request says.
    pub fn request_type(self, request_type: RequestType) -> Self {
        self.header(X_VERTEX_REQUEST_TYPE.clone(), HeaderValue::from_static(request_type.as_str()))
    }

    /// A header that takes the place of the request's own.
    pub fn header(mut self, name: HeaderName, value: HeaderValue) -> Self {
        self.headers.push((name, value));
        self
    }

    pub(super) const fn name(&self) -> &Arc<str> {
        &self.name
    }

    pub(super) fn check(&self) -> Result<(), ConfigError> {
        let is_segment = |name: &str| {
            !name.is_empty() && name.bytes().all(|b| b.is_ascii_alphanumeric() || b"-._:".contains(&b))
        };
        if self.name.is_empty() {
            return Err(ConfigError::new("place", "must have a name"));
        }
        if matches!(self.origin, Some(Err(()))) {
            return Err(ConfigError::new("origin", "must be a host, with a scheme and a port if need be"));
        }
        if !self.location.as_deref().is_none_or(is_segment) {
            return Err(ConfigError::new("location", "must be letters, digits, dashes and dots"));
        }
        if !self.project.as_deref().is_none_or(is_segment) {
            return Err(ConfigError::new("project", "must be letters, digits, dashes, dots and colons"));
        }
        Ok(())
    }

    pub(super) fn is_within(&self, residency: &Residency) -> bool {
        residency.permits(self.region.as_deref())
    }

    /// Makes it a request to this place. `None` where its path names no project or location that could be replaced.
    pub(super) fn rewrite<B>(&self, request: &mut Request<B>) -> Option<()> {
        let drops_key = self.headers.iter().any(|(name, _)| *name == X_GOOG_API_KEY);
        if let Some(uri) = self.uri(request.uri(), drops_key)? {
            *request.uri_mut() = uri;
        }
        if self.origin.is_some() {
            // The client makes it of the URI.
            request.headers_mut().remove(http::header::HOST);
        }
        for (name, value) in &self.headers {
            request.headers_mut().insert(name, value.clone());
        }
        let label = match request.extensions().get::<KeyLabel>() {
            None => self.label.clone(),
            Some(own) => KeyLabel::new(format!("{}@{}", own.as_str(), self.name)),
        };
        request.extensions_mut().insert(label);
        Some(())
    }

    /// `Some(None)` where nothing changes.
    fn uri(&self, uri: &Uri, drops_key: bool) -> Option<Option<Uri>> {
        let (path, query) = (uri.path(), uri.query());
        let moved = match (&self.project, &self.location) {
            (None, None) => None,
            (project, location) => moved(path, project.as_deref(), location.as_deref())?,
        };
        let has_key = |query: &str| query.split('&').any(|pair| pair.starts_with("key="));
        let kept = query.filter(|query| drops_key && has_key(query)).map(|query| {
            query.split('&').filter(|pair| !pair.starts_with("key=")).collect::<Vec<_>>().join("&")
        });
        if self.origin.is_none() && moved.is_none() && kept.is_none() {
            return Some(None);
        }
        let mut parts = uri.clone().into_parts();
        if let Some(Ok((scheme, authority))) = &self.origin {
            parts.authority = Some(authority.clone());
            parts.scheme = scheme.clone().or(parts.scheme).or(Some(Scheme::HTTPS));
        }
        if moved.is_some() || kept.is_some() || parts.path_and_query.is_none() {
            let path = moved.as_deref().unwrap_or(path);
            let whole = match kept.as_deref().or(query).filter(|query| !query.is_empty()) {
                Some(query) => format!("{path}?{query}"),
                None => path.to_owned(),
            };
            parts.path_and_query = Some(PathAndQuery::try_from(whole).ok()?);
        }
        Some(Some(Uri::from_parts(parts).ok()?))
    }
}

/// The path with this project and location. `None` where it does not name what is to be replaced, or would then ask for
/// something else; `Some(None)` where it is the same.
fn moved(path: &str, project: Option<&str>, location: Option<&str>) -> Option<Option<String>> {
    let before = Target::from_path(path);
    let wanted =
        (project.or(before.project()).map(str::to_owned), location.or(before.location()).map(str::to_owned));
    let mut segments: Vec<&str> = path.split('/').collect();
    for (collection, name) in [("projects", project), ("locations", location)] {
        let Some(name) = name else { continue };
        let at = segments.iter().rposition(|segment| *segment == collection)? + 1;
        *segments.get_mut(at)? = name;
    }
    let whole = segments.join("/");
    let after = Target::from_path(&whole);
    // Read again, so that what only looks like a project is left alone.
    let same = (after.surface(), after.method(), after.model(), after.publisher())
        == (before.surface(), before.method(), before.model(), before.publisher());
    let is_there = (after.project().map(str::to_owned), after.location().map(str::to_owned)) == wanted;
    if !same || !is_there {
        return None;
    }
    let changes = whole != path;
    Some(changes.then_some(whole))
}

impl fmt::Debug for Place {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let headers: Vec<_> = self.headers.iter().map(|(name, _)| name).collect();
        f.debug_struct("Place")
            .field("name", &self.label)
            .field("region", &self.region)
            .field("location", &self.location)
            .field("project", &self.project)
            .field("headers", &headers)
            .finish_non_exhaustive()
    }
}

/// The regions in which a request may be worked on: a setting of the layer, and an extension of a request. A request that
/// carries one may go where both allow it.
///
/// Strict: a place outside is never asked, whatever fails, and a place without a [region](Place::region) is outside.
/// Names are compared as they stand: `eu` does not include `europe-west4`.
///
/// ```
/// use tower_gemini::places::Residency;
///
/// let mut request = http::Request::new(());
/// request.extensions_mut().insert(Residency::within(["eu", "europe-west4"]));
/// ```
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Residency(Arc<[Box<str>]>);

impl Residency {
    /// Within these regions. None at all forbids every place.
    pub fn within<T: Into<Box<str>>>(regions: impl IntoIterator<Item = T>) -> Self {
        Self(regions.into_iter().map(Into::into).collect())
    }

    /// Whether a place in this region may be asked.
    #[must_use]
    pub fn permits(&self, region: Option<&str>) -> bool {
        region.is_some_and(|region| self.0.iter().any(|permitted| **permitted == *region))
    }
}

/// The one place at which a request can be answered: an extension of the request, by the place's name. For requests that
/// name what is kept there: a file, a cache, an earlier interaction.
///
/// ```
/// use tower_gemini::places::AtPlace;
///
/// let mut request = http::Request::new(());
/// request.extensions_mut().insert(AtPlace::new("europe-west4"));
/// ```
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct AtPlace(Arc<str>);

impl AtPlace {
    /// At the place of this name.
    pub fn new(place: impl Into<Arc<str>>) -> Self {
        Self(place.into())
    }

    pub(super) fn is(&self, place: &Place) -> bool {
        *self.0 == *place.name
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    const VERTEX: &str = "https://h/v1/projects/p/locations/l/publishers/google/models/m:generateContent";

    fn sent(place: &Place, uri: &str) -> Option<String> {
        let mut request = Request::post(uri).body(()).unwrap();
        place.rewrite(&mut request)?;
        Some(request.uri().to_string())
    }

    #[test]
    fn hosts_are_those_of_googles_page() {
        for (location, host) in [
            ("europe-west4", "europe-west4-aiplatform.googleapis.com"),
            ("global", "aiplatform.googleapis.com"),
            ("eu", "aiplatform.eu.rep.googleapis.com"),
            ("us", "aiplatform.us.rep.googleapis.com"),
        ] {
            let expected = format!(
                "https://{host}/v1/projects/p/locations/{location}/publishers/google/models/m:generateContent"
            );
            assert_eq!(sent(&Place::vertex(location), VERTEX).unwrap(), expected);
        }
    }

    #[test]
    fn project_origin_and_query_change_and_nothing_else() {
        let place = Place::new("b").project("q").origin("http://127.0.0.1:1/");
        assert_eq!(
            sent(&place, "/x/v1/projects/p/locations/l/endpoints/openapi/chat/completions?a=1").unwrap(),
            "http://127.0.0.1:1/x/v1/projects/q/locations/l/endpoints/openapi/chat/completions?a=1"
        );
        let keyed = Place::new("k").api_key(HeaderValue::from_static("AIza-secret"));
        let gemini = "https://h/v1beta/models/m:streamGenerateContent?alt=sse&key=old";
        assert_eq!(sent(&keyed, gemini).unwrap(), "https://h/v1beta/models/m:streamGenerateContent?alt=sse");
        assert_eq!(
            sent(&keyed, "https://h/v1beta/models/m:generateContent?key=old").unwrap(),
            "https://h/v1beta/models/m:generateContent"
        );
        assert_eq!(sent(&Place::new("same"), gemini).unwrap(), gemini);
        assert!(!format!("{keyed:?}").contains("secret"));
    }

    #[test]
    fn a_path_without_a_location_cannot_be_moved() {
        for uri in [
            "https://h/v1beta/models/m:generateContent",
            "https://h/v1/publishers/google/models/m:generateContent",
            "https://h/locations/l/v1beta/models/m:generateContent",
        ] {
            assert_eq!(sent(&Place::vertex("eu"), uri), None, "{uri}");
        }
    }

    #[test]
    fn states_are_kept_apart_by_the_label() {
        let place = Place::new("eu").header(HeaderName::from_static("host"), HeaderValue::from_static("x"));
        let mut request = Request::new(());
        place.rewrite(&mut request).unwrap();
        assert_eq!(Target::of(&request).label(), Some(&KeyLabel::new("eu")));
        let mut request = Request::new(());
        request.extensions_mut().insert(KeyLabel::new("team"));
        place.rewrite(&mut request).unwrap();
        assert_eq!(Target::of(&request).label(), Some(&KeyLabel::new("team@eu")));
    }

    #[test]
    fn bad_settings_are_named() {
        for (place, field) in [
            (Place::new(""), "place"),
            (Place::new("a").origin("a b"), "origin"),
            (Place::new("a").origin("http://"), "origin"),
            (Place::vertex("a/b").origin("h"), "location"),
            (Place::vertex("a b"), "origin"),
            (Place::new("a").project("a/b"), "project"),
            (Place::new("a").project(""), "project"),
        ] {
            assert_eq!(place.check().unwrap_err().field(), field, "{place:?}");
        }
        assert_eq!(Place::vertex("eu").project("p").check(), Ok(()));
    }

    #[test]
    fn a_residency_is_strict() {
        let residency = Residency::within(["eu", "europe-west4"]);
        for (region, within) in
            [(Some("eu"), true), (Some("europe-west4"), true), (Some("europe-west1"), false), (None, false)]
        {
            assert_eq!(residency.permits(region), within, "{region:?}");
        }
        assert!(!Residency::within(<[&str; 0]>::default()).permits(Some("eu")));
    }

    proptest! {
        /// What comes out asks the same of the same model, where it was to go, or nothing comes out.
        #[test]
        fn only_the_place_of_a_path_changes(
            head in "(/[a-z]{1,9}|/projects|/locations){0,3}",
            middle in "(/v1/projects/[a-z]{1,6}/locations/[a-z0-9-]{1,8}/publishers/google|/v1/projects/[a-z]{1,4}|/v1beta)",
            tail in "(/models/[a-z.-]{1,9}:generateContent|/endpoints/[0-9]{1,5}:predict|/models)",
            project in proptest::option::of("[a-z][a-z0-9-]{0,8}"),
            location in proptest::option::of("[a-z][a-z0-9-]{0,8}"),
        ) {
            let path = format!("{head}{middle}{tail}");
            let before = Target::from_path(&path);
            let Some(changed) = moved(&path, project.as_deref(), location.as_deref()) else { return Ok(()) };
            let whole = changed.unwrap_or_else(|| path.clone());
            let after = Target::from_path(&whole);
            prop_assert_eq!((before.surface(), before.method(), before.model()), (after.surface(), after.method(), after.model()));
            prop_assert_eq!(after.project(), project.as_deref().or(before.project()));
            prop_assert_eq!(after.location(), location.as_deref().or(before.location()));
        }
    }
}
