//! What the caller may tell of a request, and the owned key made of it.

use std::fmt;
use std::sync::Arc;

use super::{Surface, Target, path};
use crate::redact::redact;
use crate::tier::ServiceTier;

/// Names whose quota a request draws on: an extension that the **caller** puts into the request.
///
/// Google's quotas are per *project*, not per key ([rate limits](https://ai.google.dev/gemini-api/docs/rate-limits)):
/// two keys of one project share them. A label therefore names the project, or the team or tenant that owns it. Requests
/// without a label share one state, which is right as long as all of them go to one project.
///
/// ```
/// use tower_gemini::request::KeyLabel;
///
/// let mut request = http::Request::new(());
/// request.extensions_mut().insert(KeyLabel::new("team-a"));
/// ```
///
/// A label is printed in events and errors, so it must never be the key itself. Should one slip in all the
/// same (it begins like an API key or an OAuth token of Google), `Debug` and `Display` print `redacted` instead.
#[derive(Clone, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct KeyLabel(Arc<str>);

impl KeyLabel {
    /// A label of the caller's choice. Clones share its text.
    #[must_use]
    pub fn new(label: impl Into<Arc<str>>) -> Self {
        Self(label.into())
    }

    /// The label as it was given.
    #[must_use]
    pub fn as_str(&self) -> &str {
        &self.0
    }

    /// Tells callers apart, where a layer must know whether two outcomes are the same one's. Never 0, which is a request
    /// without a label. Two labels that share a number share the blame, and nothing else.
    #[inline]
    pub(crate) fn caller(&self) -> u64 {
        let mix = |hash: u64, byte: &u8| (hash ^ u64::from(*byte)).wrapping_mul(0x0100_0000_01b3);
        self.0.as_bytes().iter().fold(0xcbf2_9ce4_8422_2325, mix) | 1
    }

    fn printable(&self) -> &str {
        // API keys in the old form and the new, and OAuth access tokens.
        const SECRETS: [&str; 3] = ["AIza", "AQ.", "ya29."];
        if SECRETS.iter().any(|start| self.0.starts_with(start)) { "redacted" } else { &self.0 }
    }
}

impl fmt::Debug for KeyLabel {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_tuple("KeyLabel").field(&self.printable()).finish()
    }
}

impl fmt::Display for KeyLabel {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.printable())
    }
}

/// Names the model of a request whose path does not: an extension that the **caller** puts into the request.
///
/// The OpenAI-compatible surface, Interactions and Code Assist carry the model in the body. Without a hint
/// their requests share one state per surface and label. A hint wins over the path.
///
/// It is read like a path: `models/gemini-3.5-flash-lite`, `google/gemini-3.5-flash-lite` and
/// `publishers/google/models/gemini-3.5-flash-lite` all mean `gemini-3.5-flash-lite`. A hint that is no name (see
/// [how a path is read](super#how-a-path-is-read)) is passed over.
///
/// ```
/// use tower_gemini::request::{ModelHint, Target};
///
/// let mut request = http::Request::post("/v1beta/openai/chat/completions").body(())?;
/// assert_eq!(Target::of(&request).model(), None);
/// request.extensions_mut().insert(ModelHint::new("gemini-3.5-flash-lite"));
/// assert_eq!(Target::of(&request).model(), Some("gemini-3.5-flash-lite"));
/// # Ok::<(), http::Error>(())
/// ```
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct ModelHint(Arc<str>);

impl ModelHint {
    /// A hint. Clones share its text.
    #[must_use]
    pub fn new(model: impl Into<Arc<str>>) -> Self {
        Self(model.into())
    }

    /// The hint as it was given.
    #[must_use]
    pub fn as_str(&self) -> &str {
        &self.0
    }

    pub(super) fn model(&self) -> Option<&str> {
        let hint = &*self.0;
        let model = match hint.rsplit_once("/models/") {
            Some((_, model)) => model,
            None => ["models/", "google/"].iter().find_map(|p| hint.strip_prefix(p)).unwrap_or(hint),
        };
        path::is_name(model).then_some(model)
    }
}

/// What layers key their state by: surface, model, project and location where the path names them, label, service tier.
///
/// Project and location belong to it because Vertex AI counts per project and region: a region that is full does
/// not stop another; the tier because a shortage of flex capacity is none of the standard tier's. The method does not belong to it: a model that is overloaded is so for all of them. Nor does
/// the host, since one service usually talks to one.
///
/// Cheap to make, to clone and to compare: short names are kept in place, long ones and the label are shared.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct TargetKey {
    surface: Surface,
    model: Option<Name>,
    place: Option<Place>,
    label: Option<KeyLabel>,
    tier: ServiceTier,
}

impl TargetKey {
    pub(super) fn new(target: &Target<'_>) -> Self {
        Self {
            surface: target.surface(),
            model: target.model().map(|model| Name::new(&[model])),
            place: Place::new(target.project(), target.location()),
            label: target.label().cloned(),
            tier: target.tier(),
        }
    }

    /// A key of the caller's own making, for layers that are told how to key their state: all targets that are
    /// given the same name share it. Its surface is [`Surface::Unknown`], its model the name.
    ///
    /// ```
    /// use tower_gemini::request::TargetKey;
    ///
    /// assert_eq!(TargetKey::named("nightly jobs"), TargetKey::named("nightly jobs"));
    /// ```
    #[must_use]
    pub fn named(name: &str) -> Self {
        Self {
            surface: Surface::Unknown,
            model: Some(Name::new(&[name])),
            place: None,
            label: None,
            tier: ServiceTier::Standard,
        }
    }

    /// The same key for every model.
    #[must_use]
    pub fn without_model(mut self) -> Self {
        self.model = None;
        self
    }

    /// The same key for every project and location.
    #[must_use]
    pub fn without_place(mut self) -> Self {
        self.place = None;
        self
    }

    /// The same key for every label.
    #[must_use]
    pub fn without_label(mut self) -> Self {
        self.label = None;
        self
    }

    /// The same key for every service tier.
    #[must_use]
    pub fn without_tier(self) -> Self {
        self.with_tier(ServiceTier::Standard)
    }

    #[must_use]
    pub(crate) const fn with_tier(mut self, tier: ServiceTier) -> Self {
        self.tier = tier;
        self
    }

    /// The same key under another label: where a layer is to tell fewer apart than the request's own label does.
    #[must_use]
    pub fn with_label(mut self, label: KeyLabel) -> Self {
        self.label = Some(label);
        self
    }

    /// The same key for every surface of one host: what the Gemini API, its OpenAI-compatible paths and its
    /// interactions have in common.
    #[must_use]
    pub(crate) const fn with_surface(mut self, surface: Surface) -> Self {
        self.surface = surface;
        self
    }

    /// The surface.
    #[must_use]
    pub const fn surface(&self) -> Surface {
        self.surface
    }

    /// The model, as [`Target::model`] gives it.
    #[must_use]
    pub fn model(&self) -> Option<&str> {
        self.model.as_ref().map(Name::as_str)
    }

    /// The project, where the path named it.
    #[must_use]
    pub fn project(&self) -> Option<&str> {
        self.place.as_ref().and_then(|place| place.split().0)
    }

    /// The location, where the path named it.
    #[must_use]
    pub fn location(&self) -> Option<&str> {
        self.place.as_ref().and_then(|place| place.split().1)
    }

    /// The label.
    #[must_use]
    pub const fn label(&self) -> Option<&KeyLabel> {
        self.label.as_ref()
    }

    /// The service tier.
    #[must_use]
    pub const fn tier(&self) -> ServiceTier {
        self.tier
    }
}

impl fmt::Display for TargetKey {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.surface.fmt(f)?;
        write_names(f, self.model(), self.project(), self.location(), self.label(), self.tier)
    }
}

/// The end of what [`Target`] and [`TargetKey`] print: ` model in project/location (label) [tier]`, each if known, and
/// the tier if it is not the standard one.
pub(super) fn write_names(
    f: &mut fmt::Formatter<'_>,
    model: Option<&str>,
    project: Option<&str>,
    location: Option<&str>,
    label: Option<&KeyLabel>,
    tier: ServiceTier,
) -> fmt::Result {
    // A path may hold anything, also a key in the place of a name.
    if let Some(model) = model {
        write!(f, " {}", redact(model))?;
    }
    if project.is_some() || location.is_some() {
        write!(f, " in {}/{}", redact(project.unwrap_or("-")), redact(location.unwrap_or("-")))?;
    }
    if let Some(label) = label {
        write!(f, " ({label})")?;
    }
    if tier != ServiceTier::Standard {
        write!(f, " [{tier}]")?;
    }
    Ok(())
}

/// Project and location in one [`Name`], parted by a slash, which neither can hold; an absent one is empty.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
struct Place(Name);

impl Place {
    fn new(project: Option<&str>, location: Option<&str>) -> Option<Self> {
        if project.is_none() && location.is_none() {
            return None;
        }
        Some(Self(Name::new(&[project.unwrap_or(""), "/", location.unwrap_or("")])))
    }

    fn split(&self) -> (Option<&str>, Option<&str>) {
        let (project, location) = self.0.as_str().split_once('/').unwrap_or_default();
        (Some(project).filter(|p| !p.is_empty()), Some(location).filter(|l| !l.is_empty()))
    }
}

/// 46 makes a `Name` 48 bytes long, and holds `gemini-2.5-flash-native-audio-preview-12-2025` (45).
const INLINE: usize = 46;

/// An owned string that needs no allocation while it is short.
///
/// Invariant: a string of at most [`INLINE`] bytes is always `Inline`, with zeros behind its end, so the derived
/// comparison and hash are those of the string.
#[derive(Clone, PartialEq, Eq, Hash)]
enum Name {
    Inline { len: u8, bytes: [u8; INLINE] },
    Shared(Arc<str>),
}

impl Name {
    fn new(parts: &[&str]) -> Self {
        let len: usize = parts.iter().map(|part| part.len()).sum();
        if len > INLINE {
            return Self::Shared(parts.concat().into());
        }
        let mut bytes = [0; INLINE];
        let mut at = 0;
        for part in parts {
            bytes[at..at + part.len()].copy_from_slice(part.as_bytes());
            at += part.len();
        }
        Self::Inline { len: u8::try_from(len).expect("at most 46"), bytes }
    }

    fn as_str(&self) -> &str {
        match self {
            Self::Inline { len, bytes } => {
                std::str::from_utf8(&bytes[..usize::from(*len)]).expect("whole strings went in")
            }
            Self::Shared(name) => name,
        }
    }
}

impl fmt::Debug for Name {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.as_str().fmt(f)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_name_is_its_string_on_both_sides_of_the_inline_limit() {
        for len in [0, 1, INLINE - 1, INLINE, INLINE + 1, 256] {
            let text = "ä".repeat(len / 2) + &"x".repeat(len % 2);
            let name = Name::new(&[&text]);
            assert_eq!(name.as_str(), text);
            assert_eq!(matches!(name, Name::Inline { .. }), len <= INLINE);
            assert_eq!(name, Name::new(&[&text[..0], &text]));
        }
        assert_eq!(size_of::<Name>(), 48);
    }

    #[test]
    fn a_label_prints_itself_unless_it_is_a_key() {
        let label = KeyLabel::new("team-a");
        assert_eq!((label.as_str(), label.to_string().as_str()), ("team-a", "team-a"));
        assert_eq!(format!("{label:?}"), r#"KeyLabel("team-a")"#);
        let key = KeyLabel::new("AIzaSyA-0123456789");
        assert_eq!((key.to_string().as_str(), key.as_str()), ("redacted", "AIzaSyA-0123456789"));
        assert_eq!(format!("{key:?} {:?}", Name::new(&["m"])), r#"KeyLabel("redacted") "m""#);
    }

    #[test]
    fn a_place_gives_back_what_it_was_made_of() {
        for (project, location) in [(Some("p"), Some("l")), (Some("p"), None), (None, Some("l"))] {
            let place = Place::new(project, location).unwrap();
            assert_eq!(place.split(), (project, location));
        }
        assert_eq!(Place::new(None, None), None);
    }
}
