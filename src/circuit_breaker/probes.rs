//! The probes of one outage: their leases, how many have succeeded or failed, and what those under way let expect. Pure.

use super::decision::Mark;
use super::rules::Rules;
use super::{MAX_PROBES, Nanos, SECOND};

/// What is added to the time in which probes fail, against the noise of networks and timers.
const GRAIN: Nanos = SECOND / 10;

/// See [`Probes::promise`].
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(super) enum Promise {
    None,
    /// It has lasted longer than those that failed: others may try as well.
    Made,
    /// It has lasted much longer: the circuit closes.
    Kept,
}

#[derive(Clone, Copy, Debug)]
struct Lease {
    ticket: u32,
    since: Nanos,
    ends: Nanos,
    /// It has lengthened the open time.
    struck: bool,
}

#[derive(Clone, Debug, Default)]
pub(super) struct Probes {
    /// Those under way.
    leases: [Option<Lease>; MAX_PROBES],
    /// How many have succeeded in this outage.
    pub(super) good: u32,
    /// The exponent of the next open time: probes of this outage that have failed or hang.
    pub(super) strikes: u32,
    /// The longest that a probe of this outage took to fail.
    fails_in: Option<Nanos>,
    /// Tickets handed out. Not forgotten with the outage.
    tickets: u32,
}

impl Probes {
    /// What the oldest probe under way lets expect: a server that refuses does so at once, and one that is at work on a
    /// probe for longer than that is back. An answer may take a minute; who waits for it may miss all of the time in which
    /// the server is up.
    pub(super) fn promise(&self, now: Nanos, rules: &Rules) -> Promise {
        let oldest =
            self.leases.iter().flatten().filter(|lease| lease.ends > now).map(|lease| lease.since).min();
        // A closed circuit has no leases.
        let (Some(fails_in), Some(oldest)) = (self.fails_in, oldest) else { return Promise::None };
        let unit = fails_in.saturating_mul(4).saturating_add(GRAIN);
        match now.saturating_sub(oldest) {
            age if rules.successes > 1 || age < unit => Promise::None,
            age if age < unit.saturating_mul(2) => Promise::Made,
            _ => Promise::Kept,
        }
    }

    /// How many are under way.
    pub(super) fn under_way(&self, now: Nanos) -> usize {
        self.leases.iter().flatten().filter(|lease| lease.ends > now).count()
    }

    /// Counts a probe that is sent, for which there is a place, and gives its ticket.
    pub(super) fn begin(&mut self, now: Nanos, rules: &Rules) -> u32 {
        // Zero is no ticket.
        self.tickets = self.tickets.checked_add(1).unwrap_or(1);
        let ends = now.saturating_add(rules.lease);
        // One that hangs does not keep the others from finding out; it counts as one that failed. It is given back if
        // the probe says nothing.
        let struck = rules.grown(self.strikes) < rules.open_max as f64;
        self.strikes += u32::from(struck);
        let lease = Lease { ticket: self.tickets, since: now, ends, struck };
        let free = self.leases.iter_mut().find(|slot| slot.is_none_or(|lease| lease.ends <= now));
        *free.expect("it does not deny, so a place is free") = Some(lease);
        self.tickets
    }

    /// A probe has ended. `false` for one of an outage that is over, and for one whose lease is.
    pub(super) fn end(&mut self, now: Nanos, ticket: u32, mark: Mark) -> bool {
        let Some(lease) = self.take(ticket).filter(|lease| lease.ends > now) else { return false };
        match mark {
            Mark::Neutral => self.strikes -= u32::from(lease.struck),
            Mark::Failure => {
                let took = now.saturating_sub(lease.since);
                self.fails_in = Some(self.fails_in.map_or(took, |longest| longest.max(took)));
            }
            Mark::Success => {}
        }
        true
    }

    /// A probe that ended without a word.
    pub(super) fn release(&mut self, ticket: u32) {
        if let Some(lease) = self.take(ticket) {
            self.strikes -= u32::from(lease.struck);
        }
    }

    fn take(&mut self, ticket: u32) -> Option<Lease> {
        self.leases.iter_mut().find(|slot| slot.is_some_and(|lease| lease.ticket == ticket))?.take()
    }

    /// The outage is over: the next one is another.
    pub(super) fn forget(&mut self) {
        *self = Self { tickets: self.tickets, ..Self::default() };
    }
}
