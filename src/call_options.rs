use std::num::NonZeroU32;
use std::time::Duration;

use http::Request;

use crate::context::Context;
use crate::request::KeyLabel;
use crate::tier::ServiceTier;
use crate::time;
use crate::timeout::Deadline;

/// What differs for one call from how the layers are set up. Put into the request before it is sent.
///
/// | option | who reads it | without it |
/// |---|---|---|
/// | [`attempts`](Self::attempts), [`without_retry`](Self::without_retry) | [`retry`](crate::retry) | the policy's |
/// | [`deadline`](Self::deadline), [`within`](Self::within) | every layer that waits, and [`timeout`](crate::timeout) | that of the [`DeadlineLayer`](crate::timeout::DeadlineLayer) |
/// | [`tier`](Self::tier) | [`TierLayer`](crate::tier::TierLayer), timeouts, limits | what header or body say |
/// | [`class`](Self::class) | [rate limit](crate::rate_limit), where requests wait | interactive |
/// | [`label`](Self::label) | rate limit, circuit breaker, concurrency, retry budget | no label: all share one state |
///
/// An option whose layer is not there has no effect. Clones of the request have the same options; so have its retries and the
/// calls of a [fallback](crate::fallback). The request on the wire is not changed: for another tier of the server's, name it in
/// the body as well.
///
/// ```
/// use std::time::Duration;
/// use tower_gemini::{CallOptions, ServiceTier};
///
/// let mut request = http::Request::post("/v1beta/models/m:generateContent").body(())?;
/// CallOptions::new().attempts(2).within(Duration::from_secs(20)).tier(ServiceTier::Priority).label("search").apply(&mut request);
/// # Ok::<(), http::Error>(())
/// ```
#[derive(Clone, Debug, Default)]
#[must_use = "options do nothing until they are applied to a request"]
pub struct CallOptions {
    attempts: Option<NonZeroU32>,
    deadline: Option<Deadline>,
    within: Option<Duration>,
    tier: Option<ServiceTier>,
    label: Option<KeyLabel>,
    class: Option<RequestClass>,
}

/// How urgent a request is where requests wait for quota: an extension that the caller puts into the request, or
/// [`CallOptions::class`].
///
/// While both wait at a [rate limit](crate::rate_limit), eight interactive requests go for each batch request
/// ([unless set](crate::rate_limit::RateLimitBuilder::interactive_weight)), and each class in the order of arrival. A batch request is
/// never passed by more than eight that came later, and eight more for each batch request before it. In a [fleet](crate::fleet) members
/// that interactive requests wait at have eight times the share of those where only batch requests do.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash)]
#[non_exhaustive]
pub enum RequestClass {
    /// Somebody waits for the answer. The default.
    #[default]
    Interactive,
    /// It is to be done some time.
    Batch,
}

impl CallOptions {
    /// Nothing differs.
    pub const fn new() -> Self {
        Self { attempts: None, deadline: None, within: None, tier: None, label: None, class: None }
    }

    /// At most so many attempts in all, the first included; 0 counts as 1. It lowers the policy's
    /// [`attempts`](crate::retry::RetryPolicyBuilder::attempts) and never raises them. Further models of a fallback are asked once
    /// each where none are left.
    pub const fn attempts(mut self, attempts: u32) -> Self {
        self.attempts = match NonZeroU32::new(attempts) {
            Some(attempts) => Some(attempts),
            None => Some(NonZeroU32::MIN),
        };
        self
    }

    /// One attempt: what fails is handed on, also where a layer of this process turned it away.
    pub const fn without_retry(self) -> Self {
        self.attempts(1)
    }

    /// When the call must be over.
    pub const fn deadline(mut self, deadline: Deadline) -> Self {
        self.deadline = Some(deadline);
        self.within = None;
        self
    }

    /// The same, from [`apply`](Self::apply) on.
    pub const fn within(mut self, within: Duration) -> Self {
        self.within = Some(within);
        self.deadline = None;
        self
    }

    /// The service tier that the layers take the request to be of.
    pub const fn tier(mut self, tier: ServiceTier) -> Self {
        self.tier = Some(tier);
        self
    }

    /// How urgent the request is where requests wait for quota.
    pub const fn class(mut self, class: RequestClass) -> Self {
        self.class = Some(class);
        self
    }

    /// Whose quota the request draws on; see [`KeyLabel`].
    pub fn label(mut self, label: impl Into<std::sync::Arc<str>>) -> Self {
        self.label = Some(KeyLabel::new(label));
        self
    }

    /// Puts the options into the request's extensions. What is not set stays as it is there.
    pub fn apply<B>(&self, request: &mut Request<B>) {
        if let Some(attempts) = self.attempts {
            Context::write_more(request, |more| more.most_attempts = Some(attempts));
        }
        let within = self.within.map(|within| Deadline::at(time::saturating_add(time::now(), within)));
        let extensions = request.extensions_mut();
        if let Some(deadline) = self.deadline.or(within) {
            extensions.insert(deadline);
        }
        if let Some(tier) = self.tier {
            extensions.insert(tier);
        }
        if let Some(class) = self.class {
            extensions.insert(class);
        }
        if let Some(label) = &self.label {
            extensions.insert(label.clone());
        }
    }
}
