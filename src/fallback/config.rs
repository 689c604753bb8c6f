//! The settings of the layer, and what they say of a request.

use std::fmt;
use std::sync::Arc;

use bytes::Bytes;
use http::request::Parts;
use http::{HeaderName, Request, Response};
use tokio::time::Instant;

use super::chain::{Chains, Ladders};
use crate::circuit_breaker::Circuits;
use crate::event::Observed;
use crate::rate_limit::RateLimits;
use crate::request::Target;
use crate::verdict::Verdict;

pub(super) type LastResort = Arc<dyn Fn(&Parts, &Verdict) -> Option<Response<Bytes>> + Send + Sync>;

#[derive(Clone, Default)]
pub(super) struct Settings {
    pub(super) disabled: bool,
    pub(super) chains: Chains,
    pub(super) ladders: Ladders,
    pub(super) circuits: Option<Circuits>,
    pub(super) rate_limits: Option<RateLimits>,
    pub(super) header: Option<HeaderName>,
    pub(super) last_resort: Option<LastResort>,
    pub(super) observer: Observed,
}

impl Settings {
    pub(super) const fn looks_ahead(&self) -> bool {
        self.circuits.is_some() || self.rate_limits.is_some()
    }

    /// Why this request would be turned away by a layer inside; `None` as far as it would not.
    pub(super) fn turns_away<B>(&self, request: &Request<B>) -> Option<TurnedAway> {
        if !self.looks_ahead() {
            return None;
        }
        let target = Target::of(request);
        if let Some(open) = self.circuits.as_ref().and_then(|circuits| circuits.turns_away(&target)) {
            return Some(TurnedAway { verdict: Verdict::from_error(&*open), opens: open.until() });
        }
        let spent = self.rate_limits.as_ref().and_then(|limits| limits.turns_away(&target));
        spent.map(|spent| TurnedAway { verdict: Verdict::from_error(&spent), opens: None })
    }
}

/// What a layer inside would say to a request.
pub(super) struct TurnedAway {
    pub(super) verdict: Verdict,
    /// When its circuit lets calls through again, where it is an open circuit that says so.
    pub(super) opens: Option<Instant>,
}

impl fmt::Debug for Settings {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Settings")
            .field("chains", &self.chains)
            .field("ladders", &self.ladders)
            .field("header", &self.header)
            .field("last_resort", &self.last_resort.as_ref().map(|_| ()))
            .field("observer", &self.observer)
            .finish_non_exhaustive()
    }
}
