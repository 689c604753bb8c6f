//! One key's control loop: who is in flight, what timeouts and answers say, and the limit that follows. Pure.
//!
//! No clock, no lock, no queue. The gate tells it what starts and ends, with its number: starts are counted from 1, and
//! of two calls the one with the higher number began later.

use std::collections::BTreeMap;
use std::time::Duration;

use tokio::time::Instant;

use super::config::Tuning;
use super::ends::{Said, Start};
use super::evidence::{Evidence, Timeout, Usual};
use super::limit::{Limit, Room, Speed};
use super::most::Most;
use crate::blame::{Caller, Witness};
use crate::latency::Latency;
use crate::time::saturating_add;

/// After how many times the patience a call that has neither ended nor been dropped counts as lost.
const LOST: u32 = 3;

/// But not sooner: a server that says 504 at once makes the patience short.
const LOST_LEAST: Duration = Duration::from_secs(60);

/// The same, while no call with a known beginning has timed out.
const LOST_UNKNOWN: Duration = Duration::from_secs(600);

/// For so many times the patience nothing has timed out: then slow answers are no sign of a queue.
const CALM: u32 = 4;

/// The gate's counts at the end of a call.
#[derive(Clone, Copy, Debug)]
pub(super) struct Moment {
    pub(super) now: Instant,
    /// Calls started so far: the highest number.
    pub(super) started: u64,
    /// Calls answered so far, of a counter that wraps.
    pub(super) answers: u32,
    /// Calls in flight, with the one that ends.
    pub(super) in_flight: u32,
}

#[derive(Debug)]
pub(super) struct Control {
    /// Calls started while this watched, by their number, as long as they are not lost.
    flights: BTreeMap<u64, Instant>,
    /// Those of them that neither ended nor were dropped for so long that they no longer count.
    lost: u32,
    /// The number of the first call that started while this watched.
    from: u64,
    since: Instant,
    /// When something last spoke against the server.
    troubled: Instant,
    evidence: Evidence,
    limit: Option<Limit>,
    /// Whom the limit binds.
    bound: Witness,
    /// A cut is news only of calls that start after it.
    cut_at: u64,
    /// How long calls wait before they time out.
    patience: Option<Duration>,
    /// Calls with a higher number began after the last answer that was not slow, of those since the last cut.
    good_until: u64,
    /// How usual it is that calls time out.
    usual: Usual,
    /// How long answers take.
    latency: Latency,
    /// The share of timeouts among the last calls that ended, where most time out whoever overtakes whom.
    most: Most,
    /// How many calls were in flight before the trouble; 0 where that is not known. Half of the limit after a cut from more than
    /// one at a time: the server has shown that it does not take so many now.
    level: f64,
    /// How long answers took before it: asked until five have come since.
    before: Latency,
}

impl Control {
    /// Watches from the call with this number on.
    pub(super) fn new(from: u64, now: Instant, usual: Usual) -> Self {
        Self {
            flights: BTreeMap::new(),
            lost: 0,
            from,
            since: now,
            troubled: now,
            evidence: Evidence::default(),
            limit: None,
            bound: Witness::Nobody,
            cut_at: 0,
            patience: None,
            good_until: u64::MAX,
            usual,
            latency: Latency::new(),
            most: Most::default(),
            level: 0.0,
            before: Latency::new(),
        }
    }

    /// What was usual before: so many calls in flight, and answers in such times.
    pub(super) const fn after(mut self, level: f64, latency: Latency) -> Self {
        (self.level, self.before) = (level, latency);
        self
    }

    pub(super) const fn usual(&self) -> Usual {
        self.usual
    }

    pub(super) const fn limit(&self) -> Option<&Limit> {
        self.limit.as_ref()
    }

    fn lease(&self) -> Duration {
        self.patience.map_or(LOST_UNKNOWN, |patience| patience.saturating_mul(LOST).max(LOST_LEAST))
    }

    /// Of `all` calls that have not ended, those that count.
    pub(super) fn in_flight(&mut self, all: u32, now: Instant) -> u32 {
        let lease = self.lease();
        while let Some(first) = self.flights.first_entry() {
            if saturating_add(*first.get(), lease) > now {
                break;
            }
            first.remove();
            self.lost += 1;
        }
        let watched = u32::try_from(self.flights.len()).unwrap_or(u32::MAX);
        // Those from before count for one lease.
        if saturating_add(self.since, lease) > now { all.saturating_sub(self.lost) } else { watched }
    }

    /// Whether one more call of this caller may start beside so many.
    pub(super) fn room(&self, caller: Caller, in_flight: u32, now: Instant, tuning: &Tuning) -> Room {
        match &self.limit {
            Some(limit) if self.bound.binds(caller) => limit.room(in_flight, now, tuning),
            _ => Room::Now,
        }
    }

    /// What a request must have left of its time when its turn comes: nine of ten answers take longer.
    pub(super) fn least(&self) -> Duration {
        self.latency.quick().or(self.before.quick()).map(Latency::at_most).unwrap_or_default()
    }

    /// Whether the first of so many who wait would take the place of one who can still be answered in time, and be answered
    /// itself in three of four cases at the most.
    ///
    /// Only where the last who waits has that time now, and will not have it when all before it have gone; so a wrong estimate
    /// refuses nobody where there is room for all.
    pub(super) fn is_doomed(&self, until: Instant, last: Instant, waiting: usize, now: Instant) -> bool {
        let known = if self.latency.typical().is_some() { &self.latency } else { &self.before };
        let times = known.typical().zip(known.fair().map(Latency::at_most));
        let (Some((typical, fair)), Some(limit)) = (times, &self.limit) else { return false };
        let answered = saturating_add(now, fair);
        let turn = typical.mul_f64((waiting as f64 / limit.value()).min(1e6));
        until < answered && last >= answered && saturating_add(answered, turn) > last
    }

    /// See [`Limit::earliest`].
    pub(super) fn earliest(&self, in_flight: u32, tuning: &Tuning) -> Option<Instant> {
        self.limit.as_ref()?.earliest(in_flight, tuning)
    }

    /// Whether the limit, if there is one, holds this caller back.
    pub(super) fn binds(&self, caller: Caller) -> bool {
        self.limit.is_some() && self.bound.binds(caller)
    }

    /// Whether nothing would be lost without it.
    pub(super) fn has_learnt_nothing(&self) -> bool {
        self.limit.is_none() && self.evidence.is_none()
    }

    /// It stands in somebody's way.
    pub(super) fn stands_in_the_way(&mut self, now: Instant) {
        if let Some(limit) = &mut self.limit {
            limit.bound(now);
        }
    }

    /// A call starts, beside so many others.
    pub(super) fn start(&mut self, number: u64, in_flight: u32, now: Instant, draw: f64) {
        self.flights.insert(number, now);
        if let Some(limit) = &mut self.limit {
            limit.admitted(now, draw);
            if limit.is_used(in_flight + 1) {
                limit.bound(now);
            }
        }
    }

    /// It was let in earlier than it is sent: it begins now.
    pub(super) fn restart(&mut self, number: u64, now: Instant) {
        if let Some(at) = self.flights.get_mut(&number) {
            *at = now;
        }
    }

    /// A call ends. Whether the limit was cut, or binds more callers than before.
    pub(super) fn end(
        &mut self,
        start: Start,
        said: Said,
        moment: Moment,
        draw: impl FnOnce() -> f64,
        tuning: &Tuning,
    ) -> bool {
        self.usual.answers(moment.answers);
        if self.most.ended(start, said, moment.now) {
            // The cut did no good: as large a share of the calls times out as before.
            self.lift();
            self.evidence.clear();
        }
        let began = self.flights.remove(&start.number);
        if began.is_none() && start.number >= self.from {
            self.lost = self.lost.saturating_sub(1);
        }
        let took = began.map(|began| moment.now.saturating_duration_since(began));
        match said {
            Said::Nothing => false,
            Said::Answered => {
                self.answered(start, took, moment, tuning);
                false
            }
            Said::TimedOut { overtaken } => self.timed_out(start, took, overtaken, moment, draw, tuning),
        }
    }

    fn lift(&mut self) {
        (self.limit, self.bound) = (None, Witness::Nobody);
    }

    fn answered(&mut self, start: Start, took: Option<Duration>, moment: Moment, tuning: &Tuning) {
        // How long one took that began before anything was watched is not known, and it is old news.
        let Some(took) = took else { return };
        // An answer that took twice as long as those that timed out shows that they did not wait for a queue. One
        // that took a little longer shows how long calls wait.
        self.patience = self.patience.filter(|patience| took < patience.saturating_mul(2));
        // As quick as before the trouble, or nearly: however long that is, it did not wait.
        let as_before = self.before.typical().is_some_and(|before| took <= before + before / 2);
        let speed = if as_before { Speed::Quick } else { Speed::of(took, self.patience) };
        self.patience = self.patience.map(|patience| patience.max(took));
        self.latency.record(took);
        if speed != Speed::Slow {
            if start.number > self.cut_at {
                self.good_until = moment.started;
            }
            self.evidence.quick_answer(start.number);
            if start.number > self.cut_at && !self.bound.binds(start.caller) {
                // The server answers everybody else: what the one caller sees is its own.
                self.lift();
            }
        }
        // Where nothing has timed out for long, slow is how this model answers.
        let calm = saturating_add(self.troubled, self.patience.unwrap_or_default().saturating_mul(CALM));
        let speed = if speed == Speed::Slow && moment.now >= calm { Speed::Fair } else { speed };
        if let Some(limit) = self.limit.as_mut().filter(|limit| limit.is_used(moment.in_flight)) {
            limit.bound(moment.now);
            limit.answered(speed, tuning);
            if as_before {
                limit.raise_to(self.level);
            }
        }
    }

    fn timed_out(
        &mut self,
        start: Start,
        took: Option<Duration>,
        overtaken: bool,
        moment: Moment,
        draw: impl FnOnce() -> f64,
        tuning: &Tuning,
    ) -> bool {
        let now = moment.now;
        let answered = moment.answers.wrapping_sub(start.answers);
        if let Some(took) = took {
            let patience = self.patience.unwrap_or(took);
            let is_hasty = self.latency.typical().is_some_and(|typical| took < typical);
            if took < patience / 2 || is_hasty {
                // Not the patience of those that wait in a queue: a server that says 504 at once, or a hasty caller.
                return false;
            }
            self.patience = Some(took.max(patience - patience / 8));
        }
        self.troubled = now;
        if let Some(limit) = &mut self.limit {
            limit.bound(now);
            if start.number <= self.cut_at {
                return false;
            }
        }
        let weight = self.usual.weight();
        if self.limit.is_none() && self.most.may_try(now) {
            self.limit = Some(Limit::first(answered, now, draw(), tuning));
            self.bound = self.most.try_from(moment.started, now);
            self.evidence.clear();
            return true;
        }
        if self.limit.is_none() || start.number > self.good_until {
            self.usual.timed_out();
            if self.usual.is_no_news() && !self.most.is_on_trial() {
                self.lift();
                self.evidence.clear();
                return false;
            }
        }
        let timeout =
            Timeout { number: start.number, caller: start.caller, is_overtaken: overtaken, answered };
        if !self.evidence.timeout(timeout, weight) {
            return false;
        }
        match &mut self.limit {
            Some(limit) if !self.bound.binds(start.caller) => {
                // What one caller has seen, and now another one, too: for all others it is a first cut, not the pace
                // that the one has earned.
                if limit.value() < 1.0 {
                    *limit = Limit::first(answered, now, draw(), tuning);
                }
                self.bound = Witness::Many;
            }
            Some(limit) if !limit.may_cut(now, tuning) => return false,
            Some(limit) => {
                if limit.value() > 1.0 {
                    self.level = self.level.min(limit.value() / 2.0);
                }
                limit.cut(answered, now, tuning);
            }
            None => {
                self.limit = Some(Limit::first(answered, now, draw(), tuning));
                self.bound = self.evidence.witness();
            }
        }
        self.evidence.clear();
        true
    }

    /// From the call with this number on, what happens is news.
    pub(super) fn was_cut(&mut self, last: u64) {
        self.good_until = u64::MAX;
        self.cut_at = last;
    }

    /// Whether there is nothing left to watch.
    pub(super) fn is_spent(&self, now: Instant, tuning: &Tuning) -> bool {
        now.saturating_duration_since(self.troubled) >= tuning.lift_after
            && self.limit.as_ref().is_none_or(|limit| limit.is_spent(now, tuning.lift_after))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    // Answers take 4 s in three of four cases, and four calls go at once.
    #[tokio::test(start_paused = true)]
    async fn a_place_goes_to_who_can_still_be_answered_where_there_is_not_room_for_all() {
        let (now, tuning) = (crate::time::now(), Tuning::default());
        let mut control = Control::new(0, now, Usual::default());
        for took in [2, 3, 3, 4, 4, 4, 4, 6] {
            control.latency.record(Duration::from_secs(took));
        }
        let at = |secs: u64| now + Duration::from_secs(secs);
        assert!(!control.is_doomed(at(1), at(60), 1000, now), "no limit");
        control.limit = Some(Limit::first(6, now, 0.5, &tuning));
        assert!(control.is_doomed(at(2), at(60), 100, now), "100 wait, and the last will not be answered");
        assert!(!control.is_doomed(at(6), at(60), 100, now), "it has the time");
        assert!(!control.is_doomed(at(2), at(60), 10, now), "there is room for all");
        assert!(!control.is_doomed(at(2), at(3), 100, now), "nor has the last the time");
    }

    // Ten were in flight before, and an answer took 2 s.
    #[tokio::test(start_paused = true)]
    async fn an_answer_as_before_raises_it_to_the_level_and_a_cut_from_there_to_half_of_it() {
        let (start, tuning) = (crate::time::now(), Tuning::default());
        let mut usual = Usual::default();
        usual.answers(190);
        let mut latency = Latency::new();
        (0..5).for_each(|_| latency.record(Duration::from_secs(2)));
        let mut control = Control::new(1, start, usual).after(10.0, latency);
        let (mut now, mut number) = (start, 0);
        let mut call = |control: &mut Control, took: u64, said: Said| {
            number += 1;
            control.start(number, 9, now, 0.5);
            now += Duration::from_secs(took);
            let moment = Moment { now, started: number, answers: 190, in_flight: 99 };
            let begun = Start { number, answers: 190, caller: 0 };
            if control.end(begun, said, moment, || 0.5, &tuning) {
                control.was_cut(number);
            }
            control.limit().map(Limit::value)
        };
        let late = Said::TimedOut { overtaken: false };
        assert_eq!(call(&mut control, 8, late), Some(1.0));
        assert_eq!(
            call(&mut control, 4, Said::Answered),
            Some(1.0 - 0.0),
            "slow beside 8 s, and as it was before"
        );
        assert_eq!(call(&mut control, 3, Said::Answered), Some(10.0), "as before, or half as long again");
        assert_eq!(call(&mut control, 8, late), Some(1.0), "it does not take so many now");
        assert_eq!(call(&mut control, 2, Said::Answered), Some(5.0));
    }
}
