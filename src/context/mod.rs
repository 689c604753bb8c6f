//! What travels beside a request: one context, an extension of the request.
//!
//! It is made by the outermost layer that has something to say. Being an extension it goes wherever the request goes:
//! through `tower::buffer`, into a spawned task, through layers that are not of this crate. Copies of a request have what it
//! had; what only some calls need is shared between them by `Arc`, and copied where one of them is told something else, as
//! a further attempt is.
//!
//! | it carries | who writes it | who reads it |
//! |---|---|---|
//! | [`deadline`](Context::deadline) | `timeout::DeadlineLayer` | every layer that waits: preflight, fallback, retry, rate limit, concurrency, timeout |
//! | [`flex_later`](Context::flex_later): by how many milliseconds that is later for the flex tier | `timeout::DeadlineLayer` | `tier`, where header or body name that tier |
//! | [`attempt`](More::attempt): its number, 0 for a first one | `retry` | callers, by `retry::Attempt::of` |
//! | [`timeouts`](More::timeouts): earlier attempts that took too long | `retry` | `timeout`, whose limit grows with it |
//! | [`quota`](More::quota): what earlier attempts have waited for quota | `retry` | `rate_limit` |
//! | [`carry`](More::carry): attempts at other models and places | `fallback`, `places` | `retry`, `places` |
//! | [`most_attempts`](More::most_attempts): the caller's own limit | [`CallOptions`](crate::CallOptions) | `retry` |
//! | [`trail`](More::trail): where attempts are noted for who watches the call | `observe` | `retry` writes to it, `classify` asks it for the model |
//!
//! What callers put in themselves is no part of it: [`Deadline`], [`KeyLabel`], [`ModelHint`](crate::request::ModelHint),
//! [`ServiceTier`], `InputTokens`, and the `Replay` of a body are extensions of their own, and a layer of the caller's may
//! add one anywhere. [`View`] reads all of them with one look: mostly there is nothing but the context.
//!
//! Answers carry their part in extensions, too: `Verdict`, `Attempts`, the marks of [`order`](crate::layer_order) and what a rate
//! limit says to a retry. They stand in [`verdict`](crate::verdict), [`retry`](crate::retry) and
//! [`quota_wait`].

mod attempt_counter;
pub(crate) mod deadline;
pub(crate) mod quota_wait;

use std::num::NonZeroU32;
use std::sync::Arc;
use std::time::Duration;

use http::{Extensions, Request};

pub(crate) use self::attempt_counter::AttemptCounter;
use self::deadline::Deadline;
use crate::blame::Caller;
use crate::context::quota_wait::QuotaWait;
use crate::request::KeyLabel;
use crate::retry::SharedAttempts;
use crate::tier::ServiceTier;
use crate::time;

/// The extension. The table of the [module](self) has who writes and who reads each of its fields.
///
/// Small, because the usual call has nothing but a deadline, and pays for three allocations as it is: the map of the
/// extensions, its table, and a box.
#[derive(Clone, Default)]
pub(crate) struct Context {
    pub(crate) deadline: Option<Deadline>,
    pub(crate) flex_later: i32,
    more: Option<Arc<More>>,
}

/// What only some calls carry.
#[derive(Clone, Default)]
pub(crate) struct More {
    pub(crate) attempt: u32,
    pub(crate) timeouts: u32,
    pub(crate) quota: QuotaWait,
    pub(crate) carry: Option<SharedAttempts>,
    pub(crate) trail: Option<AttemptCounter>,
    pub(crate) most_attempts: Option<NonZeroU32>,
}

impl Context {
    /// What the request carries, if anything was written.
    #[inline]
    pub(crate) fn of<B>(request: &Request<B>) -> Option<&Self> {
        request.extensions().get()
    }

    /// What only some calls carry, of this one.
    #[inline]
    pub(crate) fn more<B>(request: &Request<B>) -> Option<&More> {
        Self::of(request)?.more.as_deref()
    }

    /// Where another call of the same request may follow, or went before.
    #[inline]
    pub(crate) fn carry(&self) -> Option<&SharedAttempts> {
        self.more.as_ref()?.carry.as_ref()
    }

    /// The attempts that the caller allows in all; `u32::MAX` where it has not said.
    #[inline]
    pub(crate) fn most_attempts(&self) -> u32 {
        self.more.as_ref().and_then(|more| more.most_attempts).map_or(u32::MAX, NonZeroU32::get)
    }

    /// The deadline for the flex tier, where it is another one.
    pub(crate) fn flex_deadline(&self) -> Option<Deadline> {
        let deadline = self.deadline.filter(|_| self.flex_later != 0)?.instant();
        let by = Duration::from_millis(self.flex_later.unsigned_abs().into());
        let flex = match self.flex_later {
            ..0 => deadline.checked_sub(by)?,
            _ => time::saturating_add(deadline, by),
        };
        Some(Deadline::at(flex))
    }

    /// Writes into the context of this request alone.
    #[inline]
    pub(crate) fn write<B>(request: &mut Request<B>, write: impl FnOnce(&mut Self)) {
        let extensions = request.extensions_mut();
        match extensions.get_mut::<Self>() {
            Some(context) => write(context),
            None => {
                let mut context = Self::default();
                write(&mut context);
                extensions.insert(context);
            }
        }
    }

    /// As [`write`](Self::write), what only some calls carry: copies of the request keep what they have.
    pub(crate) fn write_more<B>(request: &mut Request<B>, write: impl FnOnce(&mut More)) {
        Self::write(request, |context| write(Arc::make_mut(context.more.get_or_insert_default())));
    }
}

/// A request's context and what stands beside it, found with one look.
#[derive(Clone, Copy)]
pub(crate) struct View<'a> {
    pub(crate) context: Option<&'a Context>,
    /// `None` where there is nothing but the context: then nothing need be looked for.
    beside: Option<&'a Extensions>,
}

impl<'a> View<'a> {
    #[inline]
    pub(crate) fn of<B>(request: &'a Request<B>) -> Self {
        let extensions = request.extensions();
        if extensions.is_empty() {
            return Self { context: None, beside: None };
        }
        let context = extensions.get::<Context>();
        let beside = (extensions.len() > usize::from(context.is_some())).then_some(extensions);
        Self { context, beside }
    }

    /// Whether there is nothing but the context.
    #[inline]
    pub(crate) const fn is_plain(self) -> bool {
        self.beside.is_none()
    }

    /// An extension of its own.
    #[inline]
    pub(crate) fn get<T: Send + Sync + 'static>(self) -> Option<&'a T> {
        self.beside?.get()
    }

    /// What only some calls carry.
    #[inline]
    pub(crate) fn more(self) -> Option<&'a More> {
        self.context?.more.as_deref()
    }

    /// As [`Deadline::of`].
    #[inline]
    pub(crate) fn deadline(self) -> Option<Deadline> {
        let written = self.get().copied();
        written.or_else(|| self.context?.deadline).or_else(Deadline::carried)
    }

    /// The context, with the deadline wherever that was found.
    #[inline(always)]
    pub(crate) fn effective(self) -> Context {
        let (flex_later, more) =
            self.context.map_or((0, None), |context| (context.flex_later, context.more.clone()));
        Context { deadline: self.deadline(), flex_later, more }
    }

    /// As [`ServiceTier::of`].
    #[inline]
    pub(crate) fn tier(self) -> Option<ServiceTier> {
        self.get().copied()
    }

    /// Who sends the request.
    #[inline]
    pub(crate) fn caller(self) -> Caller {
        self.get::<KeyLabel>().map_or(0, KeyLabel::caller)
    }

    /// The number of the model that was asked, where somebody around wants to know if another one answers; else 0.
    #[inline]
    pub(crate) fn expected_model(self) -> u16 {
        self.more().and_then(|more| more.trail.as_ref()).map_or(0, AttemptCounter::model)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_written_is_one_requests_own_and_copies_share_the_rest() {
        let mut request = Request::new(());
        assert!(Context::of(&request).is_none() && View::of(&request).is_plain());
        Context::write_more(&mut request, |more| more.attempt = 2);
        let mut copy = request.clone();
        let address = |request: &Request<()>| std::ptr::from_ref(Context::more(request).expect("written"));
        assert_eq!(address(&request), address(&copy), "shared until one is told something else");
        Context::write_more(&mut copy, |more| more.timeouts = 1);
        Context::write(&mut copy, |context| context.flex_later = 7);
        let read = |request: &Request<()>| Context::more(request).map(|more| (more.attempt, more.timeouts));
        assert_eq!((read(&request), read(&copy)), (Some((2, 0)), Some((2, 1))));
        let flex = |request: &Request<()>| Context::of(request).map(|context| context.flex_later);
        assert_eq!((flex(&request), flex(&copy)), (Some(0), Some(7)));
        assert_eq!(request.extensions().len(), 1);
    }

    #[test]
    fn a_view_looks_beside_the_context_where_there_is_something() {
        let mut request = Request::new(());
        request.extensions_mut().insert(KeyLabel::new("team-a"));
        let view = View::of(&request);
        assert!(view.context.is_none() && !view.is_plain());
        assert_eq!(view.get::<KeyLabel>().map(KeyLabel::as_str), Some("team-a"));
        assert!(view.caller() != 0 && view.tier().is_none());
        Context::write_more(&mut request, |more| more.attempt = 2);
        let view = View::of(&request);
        assert!(view.more().is_some_and(|more| more.attempt == 2) && view.caller() != 0);
        request.extensions_mut().remove::<KeyLabel>();
        assert!(View::of(&request).is_plain() && View::of(&request).caller() == 0);
    }
}
