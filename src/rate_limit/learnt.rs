//! A limit that a 429 has named, and whether it still holds. Pure.
//!
//! A named limit is kept, and tried now and then: where it binds, one call is let through over it. While the truth is
//! unchanged that call's 429 names the limit again, and the next trial comes after twice the wait: first 60 s, then up to
//! the time of 100 calls, but at least 30 s and at most 5 minutes.
//!
//! A request that would be refused because of the limit has nothing to lose, and the count behind the limit is only our
//! own: a server that counts in fixed minutes or fills a bucket, or shares with strangers, has room at other times. So it
//! is let through where the time has come for which the last 429 has asked; where that named none, when the last trial is
//! as long ago as 20 calls take, from 10 s to a minute. What a plain retry would get, it gets. One in four of those requests is
//! let through in any case, so that who is called often finds out soon that a limit was raised.
//!
//! While trials succeed they go on at once, and each raises the limit by itself: one at a time first, then as many at once
//! as have been gained, up to 64, and half of that from there on. Trials that would have been refused by now have
//! succeeded: a quota decides when a call arrives, and an answer may take long. Only the first of a row must be answered,
//! if it could have waited.
//!
//! A fixed window or a token bucket of the server's may take up to a window's calls over the limit before it refuses, so
//! a success alone proves little. Each of the first three such mistakes doubles the waits, and after a large one no more go
//! at once than a quarter of what has been gained.

use super::window::Nanos;

const SECOND: Nanos = 1_000_000_000;
/// The first wait.
const FIRST: Nanos = 60 * SECOND;
const LEAST: Nanos = 30 * SECOND;
const MOST: Nanos = 300 * SECOND;
/// How many calls go between two trials that fail, where that takes neither [`LEAST`] nor [`MOST`].
const CALLS_PER_TRIAL: u64 = 100;
/// The same for requests that would be refused.
const PRESSED: (Nanos, Nanos) = (10 * SECOND, 60 * SECOND);
const CALLS_PER_PRESSED: u64 = 20;
/// How often the waits double where trials succeed although the limit holds.
const MISTAKES: u32 = 3;
/// The wait between pressed trials by which nothing is gained, doubled up to so many times: 15 s to a minute.
const MISSED: Nanos = 15 * SECOND / 2;
const MISSES: u32 = 3;
/// One in so many requests that would be refused is such a trial, whatever the waits: it has nothing to lose.
const DENIED: u32 = 4;
/// A call over the limit that has no end by then is not waited for.
const GIVEN_UP: Nanos = 300 * SECOND;
/// Without trials: how long a limit stands before a tenth more is taken.
const TRUSTED: Nanos = 3600 * SECOND;

/// Learnt limits by dimension, in the order of [`LEARNT`](super::quota_state::LEARNT).
pub(super) type LearntLimits = [Option<u64>; 3];

/// What a snapshot says of a key that has not been met yet.
#[derive(Clone, Copy, Debug)]
pub(super) struct Remembered {
    pub(super) date: jiff::civil::Date,
    pub(super) requests: u64,
    pub(super) learnt: LearntLimits,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Learnt {
    named: u64,
    /// What was gained since it was named.
    over: u64,
    /// No trial before this instant, while nothing is gained.
    try_at: Nanos,
    wait: Nanos,
    /// The same for a request that would be refused.
    pressed_at: Nanos,
    /// How often trials have succeeded first and then the same limit was named again, up to [`MISTAKES`].
    mistakes: u32,
    /// How often in a row nothing was gained by a pressed trial: the server counts as we do.
    misses: u32,
    /// One of them was more than a sixteenth of the limit: the server counts in another way.
    is_elastic: bool,
    /// Requests that were refused since the last pressed trial.
    denied: u32,
    /// A trial was made since the limit was named.
    tried: bool,
    /// Such a one was pressed.
    was_pressed: bool,
    /// When what was gained was last lost: calls from before that went over the limit unknowingly.
    lost_at: Option<Nanos>,
    /// What trials under way have taken, and until when they are waited for.
    trying: u64,
    trying_until: Nanos,
    /// They have passed if nothing is heard of them until then; otherwise nothing is known of them.
    is_quick: bool,
    /// Of those that passed so, what has not been answered yet.
    credited: u64,
    /// When a tenth more is taken where there are no trials.
    pub(super) raise_at: Nanos,
}

/// The longest wait between two trials, for so many calls in a window of `span`.
fn longest(span: Nanos, calls: u64) -> Nanos {
    (span / calls.max(1)).saturating_mul(CALLS_PER_TRIAL).clamp(LEAST, MOST)
}

fn pressed(span: Nanos, calls: u64) -> Nanos {
    (span / calls.max(1)).saturating_mul(CALLS_PER_PRESSED).clamp(PRESSED.0, PRESSED.1)
}

impl Learnt {
    /// A limit that is named for the first time, in a window that holds so many calls. `until`: when there is room again,
    /// where the 429 says.
    pub(super) fn new(now: Nanos, named: u64, until: Option<Nanos>, span: Nanos, calls: u64) -> Self {
        let wait = FIRST.min(longest(span, calls));
        let pressed_at = until.unwrap_or_else(|| now.saturating_add(pressed(span, calls).min(wait)));
        Self {
            named,
            over: 0,
            try_at: now.saturating_add(wait),
            wait,
            pressed_at,
            mistakes: 0,
            misses: 0,
            is_elastic: false,
            denied: 0,
            tried: false,
            was_pressed: false,
            lost_at: None,
            trying: 0,
            trying_until: 0,
            is_quick: false,
            credited: 0,
            raise_at: now.saturating_add(TRUSTED),
        }
    }

    /// The limit to keep; never below the one that was named.
    pub(super) const fn limit(&self) -> u64 {
        self.named.saturating_add(self.over)
    }

    /// What was gained since it was named.
    pub(super) const fn over(&self) -> u64 {
        self.over
    }

    /// A 429 names it, or speaks of it without a number. `shared`: strangers use the quota, too, so that a trial that is
    /// refused says nothing of how the server counts.
    pub(super) fn name(
        &mut self,
        now: Nanos,
        named: Option<u64>,
        until: Option<Nanos>,
        (span, calls): (Nanos, u64),
        shared: bool,
    ) {
        let most = longest(span, calls);
        if self.over > 0 {
            self.lost_at = Some(now);
        }
        if named.is_some_and(|named| named != self.named) {
            let Self { lost_at, trying, trying_until, is_quick, credited, .. } = *self;
            let new = Self::new(now, named.unwrap_or(self.named), until, span, calls);
            *self = Self { lost_at, trying, trying_until, is_quick, credited, ..new };
            return;
        }
        // One slot is what the next in the queue would have had.
        if self.over > self.named / 4 + 1 {
            self.misses = 0;
        } else if self.was_pressed && !shared {
            self.misses = (self.misses + 1).min(MISSES);
        }
        // A window with a guard band is a little longer than the server's, so a few more calls fit into any.
        self.is_elastic |= self.over > self.named / 16;
        if self.over > 0 {
            self.mistakes = (self.mistakes + 1).min(MISTAKES);
            self.wait = (most << self.mistakes).min(MOST);
        } else if self.tried {
            self.wait = self.wait.saturating_mul(2).min(most);
        }
        (self.over, self.tried, self.was_pressed, self.denied) = (0, false, false, 0);
        self.try_at = now.saturating_add(self.wait);
        let pressed = (pressed(span, calls) << self.mistakes).min(PRESSED.1);
        self.pressed_at = match until {
            // Each miss doubles the wait.
            Some(until) if self.misses > 0 => until.max(now.saturating_add(MISSED << self.misses)),
            Some(until) => until,
            None => now.saturating_add(pressed).min(self.try_at),
        };
        self.raise_at = now.saturating_add(TRUSTED);
    }

    /// Whether a call may go over the limit that takes `amount` of it. `telling`: the window was filled just now, so
    /// that a success says more than that the server counts in another way. `pressed`: it would be refused otherwise.
    pub(super) fn may_try(&self, now: Nanos, amount: u64, telling: bool, pressed: bool) -> bool {
        let trying = if now < self.trying_until { self.trying } else { 0 };
        if self.over == 0 {
            let due = if pressed {
                now >= self.pressed_at || self.denied + 1 >= DENIED
            } else {
                telling && now >= self.try_at
            };
            return due && trying == 0;
        }
        let at_once = match self.over {
            over if self.is_elastic && over <= self.named => over / 4,
            over if over <= 64 => over,
            over => over / 2,
        };
        trying == 0 || trying.saturating_add(amount) <= at_once
    }

    /// A request is refused that would have needed more.
    pub(super) fn deny(&mut self) {
        self.denied = self.denied.saturating_add(1);
    }

    /// Such a call goes.
    ///
    /// A first one must be answered before another follows, unless it is pressed and the last such has gained something. Of the others it is enough that they
    /// were not refused `decided_after` they went.
    pub(super) fn begin(&mut self, now: Nanos, amount: u64, decided_after: Nanos, pressed: bool) {
        if now >= self.trying_until {
            self.credit(now);
            self.trying = 0;
        }
        self.tried = true;
        self.was_pressed |= pressed;
        self.denied = 0;
        self.trying = self.trying.saturating_add(amount);
        self.is_quick = self.over > 0 || pressed && self.misses == 0;
        self.trying_until = now.saturating_add(if self.is_quick { decided_after } else { GIVEN_UP });
    }

    /// When trials under way have passed, if nothing is heard of them.
    pub(super) fn credit_at(&self) -> Option<Nanos> {
        Some(self.trying_until).filter(|_| self.is_quick && self.trying > 0)
    }

    /// They have, where that instant has come.
    pub(super) fn credit(&mut self, now: Nanos) {
        if self.credit_at().is_some_and(|at| at <= now) {
            self.over = self.over.saturating_add(self.trying);
            self.credited = self.credited.saturating_add(self.trying);
            self.trying = 0;
        }
    }

    /// What ends was credited before.
    fn take_credit(&mut self, amount: u64) -> bool {
        let was_credited = self.trying < amount && self.credited >= amount;
        if was_credited {
            self.credited -= amount;
        }
        was_credited
    }

    /// Whether a call that was sent then, and was refused, went over the limit because of what had been gained.
    pub(super) fn has_misled(&self, sent: Nanos) -> bool {
        self.over > 0 || self.lost_at.is_some_and(|lost| sent <= lost)
    }

    /// It was answered.
    pub(super) fn passed(&mut self, amount: u64) {
        if self.take_credit(amount) {
            return;
        }
        self.over = self.over.saturating_add(amount);
        self.trying = self.trying.saturating_sub(amount);
    }

    /// It ended otherwise. One that was sent waits for the next trial; one that was not gives its turn back.
    pub(super) fn ended(&mut self, now: Nanos, amount: u64, sent: bool) {
        if !self.take_credit(amount) {
            self.trying = self.trying.saturating_sub(amount);
        }
        if sent {
            self.try_at = self.try_at.max(now.saturating_add(self.wait));
            if self.pressed_at <= now {
                // It was no 429, which would have said when.
                self.pressed_at = now.saturating_add(PRESSED.0);
            }
        }
    }

    /// A tenth more where there are no trials and nothing contradicted for an hour.
    pub(super) fn raise(&mut self, now: Nanos) {
        self.over = self.over.saturating_add(self.limit().div_ceil(10));
        self.raise_at = now.saturating_add(TRUSTED);
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    const SPAN: Nanos = 60 * SECOND + SECOND / 2;
    const HOUR: Nanos = 3600 * SECOND;

    /// A server that takes `truth` calls in any window, and callers who always want more: tries at each step. The 429s,
    /// and when the limit was first at `goal`.
    fn live(
        learnt: &mut Learnt,
        truth: u64,
        goal: u64,
        latency: Nanos,
        until: Nanos,
    ) -> (u64, Option<Nanos>) {
        let (mut now, mut refused, mut reached) = (0, 0, None);
        while now < until {
            let mut sent = 0;
            while learnt.may_try(now, 1, true, false) {
                learnt.begin(now, 1, GIVEN_UP, false);
                sent += 1;
            }
            let fits = sent.min(truth.saturating_sub(learnt.limit()));
            now += if sent > 0 { latency } else { SECOND };
            (0..fits).for_each(|_| learnt.passed(1));
            for _ in fits..sent {
                refused += 1;
                learnt.name(now, Some(truth), None, (SPAN, truth), false);
                learnt.ended(now, 1, true);
            }
            if learnt.limit() >= goal {
                reached.get_or_insert(now);
            }
        }
        (refused, reached)
    }

    #[test]
    fn a_limit_that_holds_costs_a_429_in_a_hundred_calls_or_five_minutes() {
        for (limit, most) in [(1, 15), (10, 15), (60, 38), (100, 62), (1_000, 122), (100_000, 122)] {
            let (refused, _) =
                live(&mut Learnt::new(0, limit, None, SPAN, limit), limit, limit, SECOND / 10, HOUR);
            assert!(refused <= most && refused >= 11, "{limit}: {refused}");
            assert!(limit < 20 || refused * 90 <= limit * 60, "{limit}: {refused}");
        }
    }

    #[test]
    fn a_limit_that_was_raised_five_times_is_found_within_minutes() {
        for limit in [1, 10, 60, 1_000, 10_000] {
            for (seconds, most) in [(2, 150), (10, 480)] {
                let mut learnt = Learnt::new(0, limit, None, SPAN, limit);
                let (_, reached) = live(&mut learnt, 5 * limit, 5 * limit, seconds * SECOND, HOUR);
                let reached = reached.expect("it is reached") / SECOND;
                assert!(reached <= 60 + most, "{limit} at {seconds} s: {reached} s");
            }
        }
    }

    #[test]
    fn a_trial_of_which_nothing_is_heard_ends_the_trials_for_five_minutes_only() {
        let mut learnt = Learnt::new(0, 10, None, SPAN, 10);
        learnt.begin(FIRST, 1, SECOND, false);
        assert!(!learnt.may_try(FIRST + GIVEN_UP - 1, 1, true, false));
        assert!(learnt.may_try(FIRST + GIVEN_UP, 1, true, false));
    }

    #[test]
    fn one_that_was_not_sent_gives_its_turn_back() {
        let mut learnt = Learnt::new(0, 10, None, SPAN, 10);
        learnt.begin(FIRST, 1, SECOND, false);
        learnt.ended(FIRST, 1, false);
        assert!(learnt.may_try(FIRST, 1, true, false));
        learnt.begin(FIRST, 1, SECOND, false);
        learnt.ended(FIRST, 1, true);
        assert!(!learnt.may_try(2 * FIRST - 1, 1, true, false) && learnt.may_try(2 * FIRST, 1, true, false));
    }

    #[test]
    fn another_limit_is_news() {
        let mut learnt = Learnt::new(0, 10, None, SPAN, 10);
        let mut now = 0;
        for wait in [60, 120, 240, 300, 300] {
            now += wait * SECOND;
            assert!(
                !learnt.may_try(now - 1, 1, true, false) && learnt.may_try(now, 1, true, false),
                "{wait}"
            );
            assert!(!learnt.may_try(now, 1, false, false), "the window is not fresh");
            learnt.begin(now, 1, GIVEN_UP, false);
            learnt.name(now, Some(10), None, (SPAN, 10), false);
            learnt.ended(now, 1, true);
        }
        learnt.name(now, Some(8), None, (SPAN, 8), false);
        assert_eq!(learnt.limit(), 8);
        assert!(learnt.may_try(now + FIRST, 1, true, false));
    }

    #[test]
    fn requests_that_would_be_refused_ask_sooner() {
        for (calls, wait) in [(1, 60), (10, 60), (30, 40), (60, 20), (1_000, 10)] {
            let learnt = Learnt::new(0, calls, None, 60 * SECOND, calls);
            let at = wait * SECOND;
            assert!(!learnt.may_try(at - 1, 1, true, true), "{calls}");
            assert!(learnt.may_try(at, 1, true, true), "{calls}");
        }
    }

    #[test]
    fn one_in_four_of_those_that_would_be_refused_asks_whatever_the_wait() {
        let mut learnt = Learnt::new(0, 10, None, SPAN, 10);
        for round in 0..5 {
            let now = round * SECOND / 10;
            for denied in 0..3 {
                assert!(!learnt.may_try(now, 1, true, true), "{round}: {denied}");
                learnt.deny();
            }
            assert!(!learnt.may_try(now, 1, true, false), "not in its turn");
            assert!(learnt.may_try(now, 1, true, true), "{round}: the fourth");
            learnt.begin(now, 1, SECOND, true);
            assert!(!learnt.may_try(now, 1, true, true), "one at a time");
            learnt.name(now, Some(10), None, (SPAN, 10), false);
            learnt.ended(now, 1, true);
        }
    }

    #[derive(Clone, Debug)]
    enum Op {
        Pass(u64),
        Try(u64),
        Passed,
        Ended(bool),
        Name(Option<u64>),
        Raise,
    }

    fn op() -> impl Strategy<Value = Op> {
        prop_oneof![
            4 => (0..100_u64).prop_map(|seconds| Op::Pass(seconds * SECOND)),
            4 => (1..50_u64).prop_map(Op::Try),
            3 => Just(Op::Passed),
            2 => any::<bool>().prop_map(Op::Ended),
            1 => prop::option::of(1..2_000_u64).prop_map(Op::Name),
            1 => Just(Op::Raise),
        ]
    }

    proptest! {
        /// Whatever happens: never below what was named last, and back to it at each 429.
        #[test]
        fn it_is_never_below_the_named_limit(first in 1..2_000_u64, ops in proptest::collection::vec(op(), 1..200)) {
            let (mut learnt, mut named, mut now) = (Learnt::new(0, first, None, SPAN, first), first, 0);
            let mut open: Vec<u64> = Vec::new();
            for op in ops {
                match op {
                    Op::Pass(time) => now += time,
                    Op::Try(amount) if learnt.may_try(now, amount, true, false) => {
                        learnt.begin(now, amount, SECOND, false);
                        open.push(amount);
                    }
                    Op::Try(_) => {}
                    Op::Passed => open.pop().into_iter().for_each(|amount| learnt.passed(amount)),
                    Op::Ended(sent) => open.pop().into_iter().for_each(|amount| learnt.ended(now, amount, sent)),
                    Op::Name(limit) => {
                        learnt.name(now, limit, None, (SPAN, 10), false);
                        named = limit.unwrap_or(named);
                        prop_assert_eq!(learnt.limit(), named);
                        prop_assert!(!learnt.may_try(now + LEAST - 1, 1, true, false));
                        prop_assert!(!learnt.may_try(now + PRESSED.0 - 1, 1, true, true));
                    }
                    Op::Raise => learnt.raise(now),
                }
                prop_assert!(learnt.limit() >= named);
            }
        }
    }
}
