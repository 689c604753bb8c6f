//! Limits over windows of any span: what is charged to each of them, and when there is room. Pure.
//!
//! Each has an exact [`Window`] of its own, whose tokens are what its unit counts. A call is charged to all of them in one step,
//! and keeps a number under which it is found again when it is settled.

use super::decision::{Forecast, Settlement, Spent};
use super::estimate::Cost;
use super::prices::Purse;
use super::window::{EntryId, Nanos, Window};
#[cfg(feature = "fleet")]
use crate::fleet::{Supply, UseId};
use crate::request::limits::{LimitKind, Limits, MAX_SPANS, PerSpan, Unit};
use crate::tier::ServiceTier;
use crate::verdict::Usage;

/// Who waits for a window longer than this waits for tomorrow: without a deadline behind it, it is refused at once.
const LONG: Nanos = 3600 * 1_000_000_000;
/// No entry of any window.
const NO_ENTRY: EntryId = EntryId::MAX;

/// What is in the way of a request.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Full {
    Until { at: Nanos, dimension: LimitKind, spent: Option<Spent> },
    TooLarge(LimitKind),
}

#[derive(Debug)]
struct Span {
    unit: Unit,
    limit: u64,
    window: Window,
    length: Nanos,
    /// Without the guard.
    #[cfg(feature = "fleet")]
    span: std::time::Duration,
    /// Where a fleet shares the limit: its permits.
    #[cfg(feature = "fleet")]
    supply: Option<Box<Supply>>,
}

impl Span {
    fn new(one: PerSpan, guard: Nanos) -> Self {
        let length = Nanos::try_from(one.span.as_nanos()).unwrap_or(Nanos::MAX).saturating_add(guard);
        Self {
            unit: one.unit,
            limit: one.limit,
            window: Window::new(length),
            length,
            #[cfg(feature = "fleet")]
            span: one.span,
            #[cfg(feature = "fleet")]
            supply: None,
        }
    }

    /// When so much fits; `None` where it does now.
    fn fits_at(&self, amount: u64) -> Option<Nanos> {
        let over = (self.window.tokens() + amount).saturating_sub(self.limit);
        let freed = || self.window.freed(0, over).map_or(self.window.empty_at(), |freed| freed.at);
        (over > 0).then(freed)
    }

    fn spent(&self, at: Nanos) -> Option<Spent> {
        (self.length > LONG).then_some(Spent { reset: Some(at) })
    }
}

/// A call that is under way.
#[derive(Clone, Copy, Debug)]
struct Open {
    entries: [EntryId; MAX_SPANS],
    charged: [u32; MAX_SPANS],
    /// The permits of a fleet; 0 for none.
    #[cfg(feature = "fleet")]
    permits: [UseId; MAX_SPANS],
    tier: ServiceTier,
    /// What it has cost, once that is known.
    bill: Option<u32>,
}

#[derive(Debug)]
pub(super) struct Spans {
    spans: Vec<Span>,
    purse: Option<Purse>,
    open: Vec<Option<Open>>,
    /// Places of `open` that are free.
    free: Vec<u32>,
    /// What was shared of limits that are no longer set, to be given back.
    #[cfg(feature = "fleet")]
    gone: Vec<Supply>,
}

/// How a window is told of by its owner's status.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct SpanState {
    pub(super) unit: Unit,
    pub(super) used: u64,
    pub(super) limit: u64,
    pub(super) length: Nanos,
}

impl Spans {
    /// The windows of these limits; `None` where there are none.
    pub(super) fn new(limits: &Limits, guard: Nanos, purse: Option<Purse>) -> Option<Box<Self>> {
        let spans: Vec<Span> = limits.spans().map(|one| Span::new(one, guard)).collect();
        (!spans.is_empty()).then(|| {
            Box::new(Self {
                spans,
                purse,
                open: Vec::new(),
                free: Vec::new(),
                #[cfg(feature = "fleet")]
                gone: Vec::new(),
            })
        })
    }

    /// Other limits from now on. What stays keeps its counts, and calls under way are settled where they were charged.
    pub(super) fn configure(&mut self, limits: &Limits, guard: Nanos) {
        let mut before = std::mem::take(&mut self.spans);
        let mut places = [None; MAX_SPANS];
        for (one, place) in limits.spans().zip(&mut places) {
            let mut span = Span::new(one, guard);
            let is_same = |other: &Span| (other.unit, other.length) == (span.unit, span.length);
            *place = before.iter().position(is_same);
            if let Some(kept) = *place {
                std::mem::swap(&mut span.window, &mut before[kept].window);
                #[cfg(feature = "fleet")]
                span.keep_supply(&mut before[kept]);
            }
            self.spans.push(span);
        }
        #[cfg(feature = "fleet")]
        self.gone.extend(before.into_iter().filter_map(|span| span.supply).map(|supply| *supply));
        for open in self.open.iter_mut().flatten() {
            open.charged = places.map(|place| place.map_or(0, |kept| open.charged[kept]));
            open.entries = places.map(|place| place.map_or(NO_ENTRY, |kept| open.entries[kept]));
            #[cfg(feature = "fleet")]
            {
                open.permits = places.map(|place| place.map_or(0, |kept| open.permits[kept]));
            }
        }
    }

    /// Lets go of what has left the windows.
    pub(super) fn expire(&mut self, now: Nanos) {
        self.spans.iter_mut().for_each(|span| span.window.expire(now));
    }

    /// What a request is charged, by window. What is guessed is held to the limit itself.
    fn amounts(&self, cost: Cost, tokens: u32) -> Result<[u32; MAX_SPANS], LimitKind> {
        let mut amounts = [0; MAX_SPANS];
        for (span, amount) in self.spans.iter().zip(&mut amounts) {
            let (wanted, is_guess) = match span.unit {
                Unit::Requests => (1, false),
                Unit::InputTokens => (tokens, !cost.is_exact()),
                Unit::Images => (u32::from(cost.units.images), cost.units.is_guess()),
                Unit::Texts => (u32::from(cost.units.texts), cost.units.is_guess()),
                Unit::Money => {
                    let reserve =
                        |purse: &Purse| purse.reserve(cost.units.tier(), tokens, cost.units.embeds());
                    (self.purse.as_ref().map_or(0, reserve), true)
                }
            };
            let most = u32::try_from(span.limit).unwrap_or(u32::MAX);
            if wanted > most && !is_guess {
                return Err(span.unit.dimension());
            }
            *amount = wanted.min(most);
        }
        Ok(amounts)
    }

    /// Whether a request fits all windows, as of the last [`expire`](Self::expire). `tokens` are its input tokens.
    pub(super) fn check(&self, cost: Cost, tokens: u32) -> Result<(), Full> {
        let amounts = self.amounts(cost, tokens).map_err(Full::TooLarge)?;
        let waits = self
            .spans
            .iter()
            .zip(amounts)
            .filter_map(|(span, amount)| span.fits_at(u64::from(amount)).map(|at| (at, span)));
        match waits.max_by_key(|wait| wait.0) {
            None => Ok(()),
            Some((at, span)) => {
                Err(Full::Until { at, dimension: span.unit.dimension(), spent: span.spent(at) })
            }
        }
    }

    /// Charges a request that [fits](Self::check). Returns its number, which is never 0.
    pub(super) fn charge(&mut self, now: Nanos, cost: Cost, tokens: u32) -> u32 {
        let charged = self.amounts(cost, tokens).unwrap_or_default();
        let mut entries = [NO_ENTRY; MAX_SPANS];
        for ((span, amount), entry) in self.spans.iter_mut().zip(charged).zip(&mut entries) {
            *entry = span.window.charge(now, amount);
        }
        #[cfg(feature = "fleet")]
        let permits = self.take_permits(now, charged);
        let open = Some(Open {
            entries,
            charged,
            #[cfg(feature = "fleet")]
            permits,
            tier: cost.units.tier(),
            bill: None,
        });
        let place = self.free.pop().unwrap_or_else(|| {
            self.open.push(None);
            (self.open.len() - 1) as u32
        });
        self.open[place as usize] = open;
        place + 1
    }

    fn open(&mut self, number: u32) -> Option<&mut Open> {
        self.open.get_mut(number.checked_sub(1)? as usize)?.as_mut()
    }

    /// What a call has used, before it is [settled](Self::settle), by the model and the tier that answered.
    pub(super) fn bill(
        &mut self,
        number: u32,
        usage: &Usage,
        model: Option<&str>,
        tier: Option<ServiceTier>,
    ) {
        let Some(asked) = self.open(number).map(|open| open.tier) else { return };
        let Some(purse) = &mut self.purse else { return };
        let bill = purse.bill(usage, model, tier.unwrap_or(asked));
        if let Some(open) = self.open(number) {
            open.bill = Some(bill);
        }
    }

    /// Corrects what was charged, now that the call is over. Returns whether that made room.
    pub(super) fn settle(
        &mut self,
        #[cfg_attr(not(feature = "fleet"), allow(unused_variables, reason = "the clock of permits"))]
        now: Nanos,
        number: u32,
        how: Settlement,
    ) -> bool {
        let Some(open) = self.open(number).copied() else { return false };
        self.open[number as usize - 1] = None;
        self.free.push(number - 1);
        let mut has_room = false;
        for (at, span) in self.spans.iter_mut().enumerate() {
            let charged = open.charged[at];
            let used = match (how, span.unit) {
                (Settlement::NotSent, _) => 0,
                (_, Unit::Requests) | (Settlement::Unknown, _) => charged,
                (Settlement::Used { input_tokens }, Unit::InputTokens) => {
                    u32::try_from(input_tokens).unwrap_or(u32::MAX)
                }
                (Settlement::Used { .. }, Unit::Money) => open.bill.unwrap_or(charged),
                // Each text is a request to the server, refused or not.
                (Settlement::TooMany, Unit::Texts) | (Settlement::Used { .. }, _) => charged,
                (Settlement::Refused | Settlement::TooMany, _) => 0,
            };
            if used != charged && open.entries[at] != NO_ENTRY {
                // The window's own requests are of no interest.
                span.window.correct(open.entries[at], charged, used, true);
                has_room |= used < charged;
                #[cfg(feature = "fleet")]
                span.settle_permit(now, open.permits[at], charged, used);
            }
        }
        has_room
    }

    /// Charges a call anew, because it is sent only now.
    pub(super) fn restamp(&mut self, now: Nanos, number: u32) {
        let Some(mut open) = self.open(number).copied() else { return };
        for (at, span) in self.spans.iter_mut().enumerate() {
            if open.entries[at] != NO_ENTRY {
                span.window.correct(open.entries[at], open.charged[at], 0, true);
                open.entries[at] = span.window.charge(now, open.charged[at]);
                #[cfg(feature = "fleet")]
                span.restamp_permit(now, &mut open.permits[at], open.charged[at]);
            }
        }
        self.open[number as usize - 1] = Some(open);
    }

    /// The earliest instant at which a request can go after so many requests and tokens. What those ahead count in other units
    /// is not known, so it may be later.
    pub(super) fn forecast(
        &self,
        now: Nanos,
        ahead: (u64, u64),
        (cost, tokens): (Cost, u32),
        forecast: &mut Forecast,
    ) -> Result<(), LimitKind> {
        let amounts = self.amounts(cost, tokens)?;
        for (span, amount) in self.spans.iter().zip(amounts) {
            let ahead = match span.unit {
                Unit::Requests => ahead.0,
                Unit::InputTokens => ahead.1,
                Unit::Images | Unit::Texts | Unit::Money => 0,
            };
            if amount == 0 {
                continue;
            }
            // What is admitted comes free again a window later, so that the pattern repeats.
            let index = ahead.saturating_add(u64::from(amount)) - 1;
            let first = span.fits_at(index % span.limit + 1).unwrap_or(now);
            let at = first.saturating_add((index / span.limit).saturating_mul(span.length));
            forecast.not_before(at, span.unit.dimension());
            if at > now && forecast.spent.is_none() {
                forecast.spent = span.spent(at);
            }
        }
        Ok(())
    }

    /// Whether what an answer has used matters.
    pub(super) fn wants_usage(&self) -> bool {
        self.spans.iter().any(|span| matches!(span.unit, Unit::InputTokens | Unit::Money))
    }

    /// When all windows are empty if nothing more is charged.
    pub(super) fn empty_at(&self) -> Nanos {
        self.spans.iter().map(|span| span.window.empty_at()).max().unwrap_or(0)
    }

    pub(super) fn states(&self) -> impl Iterator<Item = SpanState> {
        self.spans.iter().map(|span| SpanState {
            unit: span.unit,
            used: span.window.tokens(),
            limit: span.limit,
            length: span.length,
        })
    }

    #[cfg(test)]
    fn under_way(&self) -> usize {
        self.open.iter().flatten().count()
    }
}

#[cfg(feature = "fleet")]
#[path = "spans_fleet.rs"]
mod fleet;

#[cfg(test)]
#[path = "tests/spans.rs"]
mod tests;
