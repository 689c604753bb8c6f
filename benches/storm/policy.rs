//! What another client does with a failure: its published defaults, as data.

use std::time::Duration;

use rand::RngExt;
use rand::rngs::StdRng;

use crate::server::Answer;

/// A contender over the one model of a client in `client.rs`.
#[derive(Clone, Copy, Debug, PartialEq)]
pub(crate) struct Policy {
    pub(crate) name: &'static str,
    /// In all, the first included.
    pub(crate) attempts: u32,
    pub(crate) backoff: Backoff,
    /// The backoff after a 503, where it has one of its own.
    pub(crate) overloaded: Option<Backoff>,
    pub(crate) hint: Hint,
    /// Whether a quota of a day ends it.
    pub(crate) knows_days: bool,
    pub(crate) budget: BudgetRule,
    pub(crate) breaker: Option<BreakerRule>,
    pub(crate) limiter: LimiterRule,
    /// Its own limit for all attempts together.
    pub(crate) total: Option<Duration>,
}

/// Seconds before the n-th retry, n from 0.
#[derive(Clone, Copy, Debug, PartialEq)]
pub(crate) struct Backoff {
    pub(crate) base: f64,
    pub(crate) factor: f64,
    pub(crate) cap: f64,
    pub(crate) jitter: Jitter,
}

#[derive(Clone, Copy, Debug, PartialEq)]
pub(crate) enum Jitter {
    None,
    /// From nothing to the whole.
    Full,
    /// So many seconds more, at most, below the cap.
    Plus(f64),
    /// So much of it more, at most, above the cap.
    PlusShare(f64),
    /// So much of it more or less.
    Ratio(f64),
    /// Polly's second form of the decorrelated one.
    Polly,
}

impl Backoff {
    pub(crate) const NONE: Self = Self::fixed(0.0);

    pub(crate) const fn fixed(base: f64) -> Self {
        Self { base, factor: 1.0, cap: base, jitter: Jitter::None }
    }

    pub(crate) const fn doubling(base: f64, cap: f64, jitter: Jitter) -> Self {
        Self { base, factor: 2.0, cap, jitter }
    }

    /// `memory` is the request's own, zero at first.
    fn delay(&self, n: u32, memory: &mut f64, rng: &mut StdRng) -> f64 {
        let n = n.min(1000);
        let grown = (self.base * self.factor.powi(n as i32)).min(self.cap);
        let draw: f64 = rng.random();
        match self.jitter {
            Jitter::None => grown,
            Jitter::Full => grown * draw,
            Jitter::Plus(most) => (grown + most * draw).min(self.cap),
            Jitter::PlusShare(share) => grown * (1.0 + share * draw),
            Jitter::Ratio(ratio) => grown * (1.0 + ratio * (2.0 * draw - 1.0)),
            Jitter::Polly => {
                // The step from the point of a smooth curve that was drawn before to this one.
                let t = f64::from(n) + draw;
                let point = 2.0_f64.powf(t) * (4.0 * t).sqrt().tanh();
                let step = point - std::mem::replace(memory, point);
                (self.base * step / 1.4).min(self.cap)
            }
        }
    }
}

/// What becomes of the delay that the server names.
#[derive(Clone, Copy, Debug, PartialEq)]
pub(crate) enum Hint {
    Ignored,
    /// Waited out as it is.
    Exact,
    /// The own delay where it is longer; and up to so much more.
    AtLeast(f64),
    /// Between the own delay and five seconds more.
    Clamped,
    /// Waited out, but not beyond so many seconds.
    Capped(f64),
}

#[derive(Clone, Copy, Debug, PartialEq)]
pub(crate) enum BudgetRule {
    None,
    /// A bucket of 500; a retry costs so much, after a throttling so much, after a timeout so much.
    Aws {
        cost: f64,
        throttled: f64,
        timeout: f64,
    },
    /// Ten tokens; a failure takes one, a success gives a tenth, and only above five is there a retry.
    Grpc,
    /// In ten seconds a fifth of the requests, and ten a second on top.
    Finagle,
}

#[derive(Clone, Copy, Debug, PartialEq)]
pub(crate) struct BreakerRule {
    /// Opens at this share of failures.
    pub(crate) share: f64,
    /// Of at least so many calls.
    pub(crate) min_calls: usize,
    /// In so many seconds; `None` is the last `min_calls` calls.
    pub(crate) window: Option<f64>,
    pub(crate) open: f64,
    /// Calls that are let through when that is over.
    pub(crate) probes: u32,
    /// Whether its own retry takes a rejection for a failure like any other.
    pub(crate) retried: bool,
}

#[derive(Clone, Copy, Debug, PartialEq)]
pub(crate) enum LimiterRule {
    None,
    /// Spaced evenly at the told requests a minute, of which as many may go at once.
    Gcra,
    /// A rate that falls with a throttling and grows by a cubic law.
    Cubic,
}

impl Policy {
    /// What all begin with: five attempts, full jitter from one second to a minute, and nothing else.
    pub(crate) const PLAIN: Self = Self {
        name: "",
        attempts: 5,
        backoff: Backoff::doubling(1.0, 60.0, Jitter::Full),
        overloaded: None,
        hint: Hint::Ignored,
        knows_days: false,
        budget: BudgetRule::None,
        breaker: None,
        limiter: LimiterRule::None,
        total: None,
    };

    /// How long to wait before the n-th retry, n from 0; `None` gives up. No answer is a timeout.
    pub(crate) fn delay(
        &self,
        n: u32,
        memory: &mut f64,
        answer: Option<&Answer>,
        rng: &mut StdRng,
    ) -> Option<Duration> {
        let overloaded = self.overloaded.filter(|_| answer.is_some_and(|answer| answer.status == 503));
        let own = overloaded.unwrap_or(self.backoff).delay(n, memory, rng);
        let refusal = answer.and_then(|answer| answer.refusal.as_ref());
        if self.knows_days && refusal.is_some_and(|refusal| refusal.daily) {
            return None;
        }
        let seconds = refusal.map_or(own, |refusal| {
            let hint = refusal.retry_info().as_secs_f64();
            match self.hint {
                Hint::Ignored => own,
                Hint::Exact => hint,
                Hint::AtLeast(more) => own.max(hint) * (1.0 + more * rng.random::<f64>()),
                Hint::Clamped => hint.clamp(own, own + 5.0),
                Hint::Capped(cap) => hint.min(cap),
            }
        });
        Some(Duration::from_secs_f64(seconds.max(0.0)))
    }
}
