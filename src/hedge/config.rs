//! The settings of the layer.

use super::evidence::Rules;
use crate::circuit_breaker::Circuits;
use crate::concurrency::ConcurrencyHandle;
use crate::event::Observed;
use crate::rate_limit::RateLimits;

#[derive(Clone, Debug)]
pub(super) struct Settings {
    pub(super) rules: Rules,
    pub(super) max_body_bytes: usize,
    pub(super) enabled: bool,
    pub(super) rate_limits: Option<RateLimits>,
    pub(super) circuits: Option<Circuits>,
    pub(super) concurrency: Option<ConcurrencyHandle>,
    pub(super) observer: Observed,
}
