//! What the layers tell while they work.
//!
//! An [`Observer`] is called on the path of a failure only: a call that succeeds at once costs it nothing. Two events
//! speak of good calls, too: [`Event::Settled`] of a [rate limit](crate::rate_limit) that has an observer, and
//! [`Event::Finished`] of the [layer](crate::observe) whose only task that is. An observer runs inside the call, so it
//! should be quick and must not panic; hand slow work to a channel.
//!
//! Events hold no request, no header and no body. What they show of an error message has keys and tokens
//! replaced.
//!
//! Observers that are ready to use stand in [`observe`](crate::observe).

pub(crate) mod attachment;
pub(crate) mod attempts;
pub(crate) mod call;
pub(crate) mod cause;
pub(crate) mod circuit;
pub(crate) mod fallback;
pub(crate) mod finding;
pub(crate) mod layer_kind;
pub(crate) mod rate_limit;

use std::collections::HashSet;
use std::fmt;
use std::sync::atomic::AtomicBool;
use std::sync::atomic::Ordering::Relaxed;
use std::sync::{Arc, Mutex};
use std::time::Duration;

use tokio::time::Instant;

pub(crate) use self::attachment::Attachment;
pub(crate) use self::attempts::{Attempt, Attempts};
pub(crate) use self::call::Call;
pub(crate) use self::cause::Cause;
pub(crate) use self::circuit::Transition;
pub(crate) use self::fallback::{AnsweredBy, FallbackRefusal};
pub(crate) use self::finding::{Finding, Rule};
pub use self::layer_kind::LayerKind;
pub(crate) use self::rate_limit::RateLimitReason;
use crate::lock::lock;
use crate::request::TargetKey;
use crate::request::limits::{LimitKind, Limits};
use crate::request::quota_key::QuotaKey;
use crate::tier::ServiceTier;
use crate::verdict::Verdict;

/// Something that happened: to one request, which its number tells from others at work at the same time, or to a
/// state that requests share.
#[derive(Clone, Debug)]
#[non_exhaustive]
pub enum Event<'a> {
    /// An attempt failed. One that was sent as a circuit breaker's probe is told as well, and does not count: the next one
    /// has its number again.
    #[non_exhaustive]
    AttemptFailed {
        /// Which request: its number among those of this policy that had a failure, from 1.
        request: u64,
        /// Which one; the first is 1.
        attempt: u32,
        /// Why.
        verdict: &'a Verdict,
    },
    /// The next attempt was paid for from the retry budget. A wait that the server named is not.
    ///
    /// Should the attempt not be sent after all, or the request succeed in the end, the tokens go back, untold.
    #[non_exhaustive]
    BudgetCharged {
        /// Which request.
        request: u64,
        /// The attempt that it pays for; the first is 1.
        attempt: u32,
        /// Tokens that it took: one, or two after a timeout.
        cost: f64,
        /// Tokens that are left to this host, model and key label. A budget that has not enough is told by
        /// [`GaveUp::Budget`].
        left: f64,
    },
    /// The next attempt waits.
    #[non_exhaustive]
    Waiting {
        /// Which request.
        request: u64,
        /// The attempt that will follow; the first is 1.
        attempt: u32,
        /// How long.
        wait: Duration,
        /// What the wait is for.
        verdict: &'a Verdict,
    },
    /// A request succeeded after at least one failure.
    #[non_exhaustive]
    Recovered {
        /// Which request.
        request: u64,
        /// Attempts made in all.
        attempts: u32,
    },
    /// A failure is handed to the caller although, or because, it cannot be retried.
    #[non_exhaustive]
    GaveUp {
        /// Which request.
        request: u64,
        /// Attempts made in all.
        attempts: u32,
        /// Why there is no further one. [`GaveUp::BodyTooLarge`] says that a replay was refused.
        why: GaveUp,
        /// The failure.
        verdict: &'a Verdict,
    },
    /// A request waits in the queue of the rate limit.
    #[non_exhaustive]
    Queued {
        /// Whose quota.
        key: &'a QuotaKey,
        /// Which one is in the way; [`Other`](crate::rate_limit::LimitKind::Other) where only another call's end can tell.
        dimension: LimitKind,
        /// When its turn comes, as far as can be told now.
        until: Option<Instant>,
    },
    /// The rate limit did not admit a request.
    #[non_exhaustive]
    RateLimited {
        /// Whose quota.
        key: &'a QuotaKey,
        /// Why.
        why: RateLimitReason,
        /// Which quota is in the way; [`Other`](crate::rate_limit::LimitKind::Other) where it is none that has a name.
        dimension: LimitKind,
        /// When a request like it could be admitted, where that is known.
        until: Option<Instant>,
    },
    /// The rate limit corrected what it had charged for a call, now that the call is over. Told where input tokens
    /// are limited, of good calls as well.
    #[non_exhaustive]
    Settled {
        /// Whose quota.
        key: &'a QuotaKey,
        /// Input tokens that were charged when it was admitted.
        charged: u64,
        /// Input tokens that it used, by its own word; 0 where it was refused or not sent. `None` where nobody knows:
        /// what was charged stands.
        used: Option<u64>,
    },
    /// The rate limit learnt from a 429: one for each violation that it named.
    #[non_exhaustive]
    QuotaExceeded {
        /// Whose quota.
        key: &'a QuotaKey,
        /// Which one.
        dimension: LimitKind,
        /// The limit that the answer named.
        limit: Option<u64>,
        /// When it clears, where that is known. `None` as well of a call that went over a learnt limit to see whether it
        /// still holds: nothing is closed by that.
        until: Option<Instant>,
    },
    /// A circuit opened, half-opened or closed, or was told to. Told in the order of its generations.
    #[non_exhaustive]
    CircuitChanged {
        /// Whose circuit.
        key: &'a TargetKey,
        /// What changed, when and why.
        transition: &'a Transition,
    },
    /// A timeout cut the number of calls that may be in flight.
    #[non_exhaustive]
    ConcurrencyCut {
        /// Whose.
        key: &'a TargetKey,
        /// Calls in flight at the cut, the one that timed out included.
        in_flight: u32,
        /// How many may be from now on; below 1, one at a time and a pace.
        limit: f64,
    },
    /// A layer stands outside of one that belongs outside of it. Told once by each layer, with the first failed answer
    /// that shows it.
    #[non_exhaustive]
    Misplaced {
        /// The layer that stands too far outside.
        layer: LayerKind,
        /// What it has inside.
        inside: LayerKind,
        /// What goes wrong so.
        consequence: &'static str,
    },
    /// A layer keeps as many keys as it may, all of them are needed, and a request of a further key goes out without
    /// state: not limited, not counted, and not turned away.
    ///
    /// Told by the first such request, and again when there was room meanwhile; once a minute at most.
    #[non_exhaustive]
    KeysExhausted {
        /// Which layer.
        layer: LayerKind,
        /// How many keys it may keep: its `max_keys`.
        max_keys: usize,
    },
    /// The calls in flight have no limit any more.
    #[non_exhaustive]
    ConcurrencyLifted {
        /// Whose.
        key: &'a TargetKey,
    },
    /// A request breaks a rule of the [preflight](crate::preflight): one for each rule. Told before anything is sent, and for a body
    /// that is too large to be held, also when it has gone out.
    #[non_exhaustive]
    Preflight {
        /// What it asks for.
        key: &'a TargetKey,
        /// The rule, and what is wrong.
        finding: &'a Finding,
        /// The request is not sent because of it.
        refused: bool,
    },
    /// A request goes on to another model, or to another service tier of the same one.
    #[non_exhaustive]
    FellBack {
        /// The model that failed, or that was passed over because its circuit is open or its quota spent. `?` where a
        /// request that goes on to another tier does not name it.
        from: &'a str,
        /// The model that is called next; `None` where the last resort answered.
        to: Option<&'a str>,
        /// The tier in which it is called next, where the request's [ladder](crate::fallback::ModelFallbackBuilder::tier_ladder)
        /// has changed it.
        tier: Option<ServiceTier>,
        /// Why.
        verdict: &'a Verdict,
    },
    /// Another model would have helped, and none was called.
    #[non_exhaustive]
    FallbackRefused {
        /// The model that failed; `None` where the request's body names it, which is not at hand.
        model: Option<&'a str>,
        /// Why none was called.
        why: FallbackRefusal,
        /// The failure, which is handed on.
        verdict: &'a Verdict,
    },
    /// A request waits for the call of an equal one instead of making its own. Told by the [`CoalesceLayer`](crate::coalesce::CoalesceLayer).
    #[non_exhaustive]
    Coalesced {
        /// What it asks for.
        key: &'a TargetKey,
    },
    /// Everything failed, and an answer that was good a while ago stands in. Told by the [`LastGoodLayer`](crate::last_good::LastGoodLayer).
    #[non_exhaustive]
    LastGoodUsed {
        /// What the request asks for.
        key: &'a TargetKey,
        /// How long ago the answer came.
        age: Duration,
        /// The failure that it stands in for.
        verdict: &'a Verdict,
    },
    /// The store of a [fleet](crate::rate_limit::RateLimitBuilder) does not answer: members keep to what they hold. Told once
    /// until it is found again.
    #[non_exhaustive]
    StoreLost {
        /// Where it is.
        store: &'a str,
        /// Why, and what to do.
        why: &'a str,
    },
    /// The store of a fleet answers again.
    #[non_exhaustive]
    StoreFound {
        /// Where it is.
        store: &'a str,
        /// For how long it did not.
        lost_for: Duration,
    },
    /// Members of a fleet were given different limits; the lowest counts. Told once for each key.
    #[non_exhaustive]
    LimitsDiffer {
        /// Whose quota.
        key: &'a QuotaKey,
        /// The limits in force.
        limits: &'a Limits,
    },
    /// An answer came from another model than was asked, as Google answers for retired ones. Told by
    /// [`ObserveLayer`](crate::observe::ObserveLayer), once for each pair of models, up to 256 pairs.
    ///
    /// Quotas and circuits are kept by the model that was asked; the price is that of the one that answered.
    #[non_exhaustive]
    Redirected {
        /// The model that was asked.
        asked: &'a str,
        /// The model that the answer names: its `modelVersion`.
        answered: &'a str,
    },
    /// A call was served in another service tier than it asked for. Told by
    /// [`ObserveLayer`](crate::observe::ObserveLayer), for each such call, before its end is told.
    #[non_exhaustive]
    Downgraded {
        /// The model that was asked.
        model: Option<&'a str>,
        /// The tier that was asked for.
        asked: ServiceTier,
        /// The tier that served.
        served: ServiceTier,
    },
    /// A request goes on to another place. Told by the [places layer](crate::places).
    #[non_exhaustive]
    Moved {
        /// Where it has failed.
        from: &'a str,
        /// Where it is sent next.
        to: &'a str,
        /// Why.
        verdict: &'a Verdict,
    },
    /// A place is closed for the calls of one key: others are asked first. Told by the [places layer](crate::places).
    #[non_exhaustive]
    PlaceClosed {
        /// The place.
        place: &'a str,
        /// What is asked for, as it was before it was rewritten for a place.
        key: &'a TargetKey,
        /// When a call goes there to find out.
        until: Instant,
        /// What closed it.
        verdict: &'a Verdict,
    },
    /// A call that is late was sent a second time. Told by the [hedge layer](crate::hedge).
    #[non_exhaustive]
    Hedged {
        /// What it asks for.
        key: &'a TargetKey,
        /// How long after the first the second try was sent.
        after: Duration,
    },
    /// A second try is over: it was answered first, failed, or came second and was dropped. Not told where the caller dropped
    /// the call.
    #[non_exhaustive]
    HedgeSettled {
        /// What it asked for.
        key: &'a TargetKey,
        /// Its answer was handed on.
        won: bool,
        /// From when it was sent to this.
        took: Duration,
    },
    /// A stream that broke off goes on with the answer of a further call. Told by the [resume layer](crate::resume).
    #[non_exhaustive]
    StreamResumed {
        /// What it asks for.
        key: &'a TargetKey,
        /// The answer begins anew, and does not go on where it broke off.
        restarted: bool,
        /// How it broke off.
        verdict: &'a Verdict,
        /// Bytes of the text that had been delivered.
        delivered: usize,
        /// Calls of this answer that were billed in vain so far, or may have been.
        billed: u32,
    },
    /// A call is over: its body ended, it failed, or its caller dropped it. Told by
    /// [`ObserveLayer`](crate::observe::ObserveLayer), once for each call.
    #[non_exhaustive]
    Finished {
        /// The call, from its start to its end.
        call: &'a Call,
    },
}

/// Why a failure was handed on and not retried.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
#[non_exhaustive]
pub enum GaveUp {
    /// Another attempt would fail the same way.
    NotRetryable,
    /// All attempts of the policy, or of this kind's schedule, are used up.
    Attempts,
    /// The server asks for a longer wait than the policy allows, or the rate limit's
    /// [`max_wait`](crate::rate_limit::RateLimitBuilder::max_wait).
    ServerDelay,
    /// The next wait would end after the deadline.
    Deadline,
    /// The retry budget is empty.
    Budget,
    /// The request may have been processed, and the policy repeats such requests no more often.
    MaybeProcessed,
    /// Part of the answer had already been delivered.
    AfterOutput,
    /// The request's body is larger than the policy keeps for another attempt.
    BodyTooLarge,
    /// A layer of this process turned the request away and does not know until when.
    Rejected,
    /// Another [place](crate::places) takes the request, so that it need not wait for this one.
    Elsewhere,
}

impl GaveUp {
    /// The reason as a phrase.
    #[must_use]
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::NotRetryable => "another attempt would fail the same way",
            Self::Attempts => "all attempts are used up",
            Self::ServerDelay => "the server asks for a longer wait than allowed",
            Self::Deadline => "the next wait would end after the deadline",
            Self::Budget => "the retry budget is empty",
            Self::MaybeProcessed => "the request may have been processed",
            Self::AfterOutput => "part of the answer had been delivered",
            Self::BodyTooLarge => "the request body is too large to be kept",
            Self::Rejected => "turned away with no known end",
            Self::Elsewhere => "another place takes the request",
        }
    }
}

impl fmt::Display for GaveUp {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.pad(self.as_str())
    }
}

/// Is told of events. Implement it for what you count or log.
///
/// ```
/// use std::sync::atomic::{AtomicU32, Ordering};
/// use tower_gemini::event::{Event, Observer};
///
/// #[derive(Default)]
/// struct Retries(AtomicU32);
///
/// impl Observer for Retries {
///     fn on_event(&self, event: &Event<'_>) {
///         if let Event::Waiting { .. } = event {
///             self.0.fetch_add(1, Ordering::Relaxed);
///         }
///     }
/// }
/// ```
pub trait Observer: Send + Sync {
    /// Called with each event, in the order of one request's.
    fn on_event(&self, event: &Event<'_>);
}

/// Each of them in turn.
impl Observer for Vec<Arc<dyn Observer>> {
    fn on_event(&self, event: &Event<'_>) {
        self.iter().for_each(|observer| observer.on_event(event));
    }
}

// The trait is used as an object.
const _: Option<&dyn Observer> = None;

/// An observer, or none.
#[derive(Clone, Default)]
pub(crate) struct Observed(Option<Arc<Observing>>);

struct Observing {
    observer: Arc<dyn Observer>,
    once: AtomicBool,
    redirects: Mutex<HashSet<(Box<str>, Box<str>)>>,
}

/// Pairs of models that are told apart. Names of models come from callers.
const MAX_REDIRECTS: usize = 256;

impl Observed {
    pub(crate) fn by(observer: Arc<dyn Observer>) -> Self {
        Self(Some(Arc::new(Observing {
            observer,
            once: AtomicBool::new(false),
            redirects: Mutex::default(),
        })))
    }

    pub(crate) const fn is_some(&self) -> bool {
        self.0.is_some()
    }

    pub(crate) fn tell(&self, event: &Event<'_>) {
        if let Some(told) = &self.0 {
            told.observer.on_event(event);
        }
    }

    /// Tells of a redirect, once for each pair.
    pub(crate) fn tell_redirect(&self, asked: &str, answered: &str) {
        let Some(told) = &self.0 else { return };
        let mut redirects = lock(&told.redirects);
        let is_new = redirects.len() < MAX_REDIRECTS && redirects.insert((asked.into(), answered.into()));
        drop(redirects);
        if is_new {
            told.observer.on_event(&Event::Redirected { asked, answered });
        }
    }

    /// Tells the first of its calls only.
    pub(crate) fn tell_once(&self, event: &Event<'_>) {
        if let Some(told) = self.0.as_ref().filter(|told| !told.once.swap(true, Relaxed)) {
            told.observer.on_event(event);
        }
    }
}

impl fmt::Debug for Observed {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(if self.0.is_some() { "Some(_)" } else { "None" })
    }
}
