//! Service tiers: how urgently, and at which price, the server is to answer a request.
//!
//! Gemini serves a request in one of three tiers, named by the body's top-level `service_tier` (or `serviceTier`):
//!
//! | tier | first byte | when there is no capacity | price |
//! |---|---|---|---|
//! | [`Standard`](ServiceTier::Standard), also where none is named | seconds to minutes | 503, or 429 | full |
//! | [`Flex`](ServiceTier::Flex) | 1 to 15 minutes | 503, or 429; dropped first | half |
//! | [`Priority`](ServiceTier::Priority) | seconds | served as standard, and says so | 75 to 100 % more |
//!
//! Sources, read 2026-11-29: [flex](https://ai.google.dev/gemini-api/docs/flex-inference),
//! [priority](https://ai.google.dev/gemini-api/docs/priority-inference),
//! [Vertex AI](https://docs.cloud.google.com/vertex-ai/generative-ai/docs/priority-paygo), where a header names it:
//! `X-Vertex-AI-LLM-Shared-Request-Type`.
//!
//! # How the layers learn it
//!
//! By one extension of the request: a [`ServiceTier`]. The caller may put it in; else [`TierLayer`] does, which reads
//! the header and the beginning and the end of the body. No other layer looks at either. A request without
//! the extension is of the standard tier, and costs no layer anything.
//!
//! # What the layers make of it
//!
//! - [Deadline and timeouts](crate::timeout) are longer for flex, so that a slow answer is no timeout: the concurrency limit,
//!   the circuit breaker and the retry budget see none.
//! - [Concurrency limit](crate::concurrency), [circuit breaker](crate::circuit_breaker) and the retry budget keep a state of
//!   its own for each tier of a model ([`TargetKey`](crate::request::TargetKey)). A shortage of flex capacity opens no circuit
//!   of the standard tier.
//! - The [rate limit](crate::rate_limit) counts all tiers of a model together, as Google does: flex draws on the
//!   general limits, priority on its own and on the general ones, and a priority request over its own is served as
//!   standard and not refused. How long flex answers take is no sample for the others, and a 429 to a flex request that
//!   names no quota closes nothing.
//! - The [fallback](crate::fallback::ModelFallbackBuilder::tier_ladder) may ask again in another tier.
//! - The [verdict](crate::Verdict::tier_served), a finished [`Call`](crate::observe::Call) and
//!   [`Event::Downgraded`](crate::event::Event::Downgraded) tell which tier served, where one was asked for.
//!
//! # Where the layer belongs
//!
//! Outside of all that acts on the tier but the [`DeadlineLayer`](crate::timeout::DeadlineLayer), and inside a
//! [`ReplayLayer`](crate::retry::ReplayLayer), whose first frame it looks at without using it up. [`GeminiStack`](crate::stack::GeminiStack)
//! has it in that place.
//!
//! # Sharing, dropping and cost
//!
//! There is no state. The future is the inner service's. For each `POST` two headers are looked up and at most 128 KiB of
//! the body searched for one name, at the speed of memory and without an allocation; a body that has the name is parsed
//! once, so that only a member of the outermost object counts. For a body of 2 KiB in memory that is about 1,200 instructions of the
//! default stack's 10,000; `GeminiStack::without_tier` leaves it out, and then the caller's extension is all that counts.
//!
//! # Examples
//!
//! ```
//! use tower_gemini::tier::ServiceTier;
//!
//! let mut request = http::Request::new(());
//! request.extensions_mut().insert(ServiceTier::Flex);
//! assert_eq!(ServiceTier::of(&request), Some(ServiceTier::Flex));
//! ```

mod body;
mod layer;
mod service;

use std::fmt;

use http::{HeaderMap, HeaderName, Request};

pub(crate) use self::body::{of_body, rewritten};
pub use self::layer::TierLayer;
pub use self::service::SetTier;

/// In answers of the Gemini API.
pub(crate) static X_GEMINI_SERVICE_TIER: HeaderName = HeaderName::from_static("x-gemini-service-tier");
/// In requests to Vertex AI.
pub(crate) static X_VERTEX_SHARED_REQUEST_TYPE: HeaderName =
    HeaderName::from_static("x-vertex-ai-llm-shared-request-type");

/// A service tier: an extension of requests. See the [module documentation](self).
///
/// Prints as the snake-case name.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash, PartialOrd, Ord)]
#[non_exhaustive]
pub enum ServiceTier {
    /// What a request is that names none.
    #[default]
    Standard,
    /// Cheaper, slow, and dropped first.
    Flex,
    /// Dearer and quick.
    Priority,
    /// One that this version does not know.
    Other,
}

impl ServiceTier {
    /// The tier that a request carries as an extension.
    ///
    /// `None` where it has none: it may name one in a header or its body, which [`TierLayer`] reads.
    #[must_use]
    #[inline]
    pub fn of<B>(request: &Request<B>) -> Option<Self> {
        request.extensions().get().copied()
    }

    /// Reads a name in any case: those of `service_tier`, with `default`, `auto` and `on_demand` for standard, and those of
    /// `usageMetadata.trafficType` such as `ON_DEMAND_FLEX`. `None` where it is empty or says that it says nothing.
    #[must_use]
    pub fn from_name(name: &str) -> Option<Self> {
        let name = name.trim();
        let is = |known: &[&str]| known.iter().any(|known| name.eq_ignore_ascii_case(known));
        Some(match () {
            () if is(&["flex", "on_demand_flex", "service_tier_flex"]) => Self::Flex,
            () if is(&["priority", "on_demand_priority", "service_tier_priority"]) => Self::Priority,
            () if is(&["standard", "default", "auto", "on_demand", "service_tier_standard"]) => {
                Self::Standard
            }
            () if is(&["", "unspecified", "service_tier_unspecified", "traffic_type_unspecified"]) => {
                return None;
            }
            () => Self::Other,
        })
    }

    /// What a header of the request names.
    fn of_headers(headers: &HeaderMap) -> Option<Self> {
        // Looking a name up costs more than comparing a few with it.
        let is = |name: &HeaderName| *name == X_VERTEX_SHARED_REQUEST_TYPE || *name == X_GEMINI_SERVICE_TIER;
        if headers.len() <= 16 && !headers.keys().any(is) {
            return None;
        }
        let named =
            headers.get(&X_VERTEX_SHARED_REQUEST_TYPE).or_else(|| headers.get(&X_GEMINI_SERVICE_TIER));
        named.and_then(|name| Self::from_name(name.to_str().ok()?))
    }

    /// The tier that an answer's head says it was served in.
    pub(crate) fn served(headers: &HeaderMap) -> Option<Self> {
        Self::from_name(headers.get(&X_GEMINI_SERVICE_TIER)?.to_str().ok()?)
    }

    /// The snake-case name, as printed and as sent: `standard`, `flex`, `priority`, `other`.
    #[must_use]
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Standard => "standard",
            Self::Flex => "flex",
            Self::Priority => "priority",
            Self::Other => "other",
        }
    }
}

impl fmt::Display for ServiceTier {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.pad(self.as_str())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_are_read_in_any_case_and_spelling() {
        for (name, tier) in [
            ("flex", Some(ServiceTier::Flex)),
            ("FLEX", Some(ServiceTier::Flex)),
            ("ON_DEMAND_FLEX", Some(ServiceTier::Flex)),
            (" priority ", Some(ServiceTier::Priority)),
            ("ON_DEMAND_PRIORITY", Some(ServiceTier::Priority)),
            ("standard", Some(ServiceTier::Standard)),
            ("default", Some(ServiceTier::Standard)),
            ("ON_DEMAND", Some(ServiceTier::Standard)),
            ("paid", Some(ServiceTier::Other)),
            ("PROVISIONED_THROUGHPUT", Some(ServiceTier::Other)),
            ("unspecified", None),
            ("", None),
        ] {
            assert_eq!(ServiceTier::from_name(name), tier, "{name}");
        }
        for tier in [ServiceTier::Standard, ServiceTier::Flex, ServiceTier::Priority] {
            assert_eq!(ServiceTier::from_name(tier.as_str()), Some(tier));
        }
    }
}
