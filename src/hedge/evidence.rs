//! Whether a second try is worth its price: what the calls of one key have shown, the budget, the decision. Pure.

use std::time::Duration;

use super::moment::moment;
use super::report::HeldBack;
use crate::latency::Tails;

/// Nanoseconds since the layer's epoch.
pub(super) type Nanos = u64;

/// One second try.
const TRY: u64 = 1_000_000;
/// What a bucket holds at the most: a spell of late answers is met by so many second tries at once.
pub(super) const MOST_TRIES: u64 = 10;
/// Second tries in a row that may come second before the next ones become dearer: three of ten do where they help.
const LOSSES: u32 = 3;
/// What a second try costs at the most, doubled from there on.
const DEAREST: u64 = 8;
/// Calls that must have ended without a failure.
pub(super) const CALM: u32 = 16;
/// After a 429, and after a call that had to wait for quota or for a place.
pub(super) const SHORT_FOR: Duration = Duration::from_secs(60);
/// After an overload, and after a call that took too long.
pub(super) const STRAINED_FOR: Duration = Duration::from_secs(600);
pub(super) const LATE_FOR: Duration = Duration::from_secs(60);
/// Of the last so many answers, so many above the median are no chance: 1 in 94 where nothing has changed.
const LAST: u32 = 16;
const SLOW: u32 = 13;
/// Standard errors by which answers take longer the more calls are under way.
const SURE: f32 = 1.5;
/// By how much a call's load is forgotten with each answer: what is known is of the last 512 in the main.
const FORGET: f32 = 1.0 / 512.0;
/// A server's delay is believed up to this.
const LONGEST_SHORTAGE: Duration = Duration::from_secs(3_600);
/// Calls sent later that must have been answered before this one: as many as there are, up to this.
pub(super) const OVERTAKERS: u64 = 2;
/// Answered calls that are remembered for that.
const REMEMBERED: usize = 8;
/// How much of the usual number of calls under way a new one adds.
const USUAL: f32 = 1.0 / 64.0;
/// More calls under way than this, of the usual number, are a crowd.
const CROWD: f32 = 1.25;
/// After so many answers the moment of a second try is worked out anew.
const ANEW: u64 = 32;

/// The numbers that are set.
#[derive(Clone, Copy, Debug, PartialEq)]
pub(super) struct Rules {
    /// Second tries for a million calls.
    pub(super) share: u32,
    /// Answers that must have been timed.
    pub(super) samples: u32,
}

/// What is known of one key.
#[derive(Clone, Debug)]
pub(super) struct Evidence {
    tails: Tails,
    /// Answers that were timed.
    timed: u64,
    /// When a second try may be made; worked out anew now and then.
    after: Option<Duration>,
    /// Millionths of a second try.
    bucket: u64,
    /// One bit for each of the last calls, the youngest last; 1 is a failure.
    failed: u32,
    short_until: Nanos,
    /// Until when an overload or a timeout is recent.
    strained_until: Nanos,
    /// How long half of the answers take at most, as of the last time that `after` was worked out.
    median: Option<Duration>,
    /// One bit for each of the last answers, the youngest last; 1 took longer than the median.
    slow: u32,
    load: Load,
    /// Calls sent: the number of the next one.
    sent: u64,
    /// The numbers of those that were answered last, in no order.
    answered: [u64; REMEMBERED],
    next: usize,
    /// Calls under way, second tries not counted; and how many there usually are when one is sent, that one included.
    under_way: u32,
    usual: f32,
    /// A second try was sent, and nothing was answered since.
    is_open: bool,
    /// Second tries in a row that did not come first.
    lost_in_a_row: u32,
    pub(super) counts: Counts,
}

/// For the handle.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(super) struct Counts {
    pub(super) sent: u64,
    pub(super) won: u64,
    pub(super) lost: u64,
    pub(super) held_back: [u64; HeldBack::ALL.len()],
}

impl Evidence {
    pub(super) const fn new() -> Self {
        Self {
            tails: Tails::new(),
            timed: 0,
            after: None,
            bucket: 0,
            failed: 0,
            short_until: 0,
            strained_until: 0,
            median: None,
            slow: 0,
            load: Load { with: 0.0, square: 0.0 },
            sent: 0,
            answered: [0; REMEMBERED],
            next: 0,
            under_way: 0,
            usual: 1.0,
            is_open: false,
            lost_in_a_row: 0,
            counts: Counts { sent: 0, won: 0, lost: 0, held_back: [0; HeldBack::ALL.len()] },
        }
    }

    /// Calls sent, second tries not counted.
    pub(super) const fn calls(&self) -> u64 {
        self.sent
    }

    /// What the bucket holds, in second tries.
    pub(super) fn tries_left(&self) -> f64 {
        self.bucket as f64 / TRY as f64
    }

    /// A call is sent.
    pub(super) fn send(&mut self, rules: &Rules) -> Sent {
        self.bucket = (self.bucket + u64::from(rules.share)).min(MOST_TRIES * TRY);
        self.sent += 1;
        self.under_way += 1;
        // Against what was usual before it.
        let crowd = self.under_way as f32 - self.usual;
        self.usual += crowd * USUAL;
        Sent { number: self.sent, crowd }
    }

    /// A call that was sent is over, however it ended: called once for each, also for one that was dropped.
    pub(super) fn end(&mut self) {
        self.under_way = self.under_way.saturating_sub(1);
    }

    fn is_crowded(&self) -> bool {
        self.under_way as f32 > self.usual * CROWD + 0.5
    }

    /// A call was answered well, after so long where that is known.
    pub(super) fn answer(&mut self, sent: Sent, took: Option<Duration>, rules: &Rules) {
        self.failed <<= 1;
        self.is_open = false;
        self.answered[self.next] = sent.number;
        self.next = (self.next + 1) % REMEMBERED;
        if let Some(took) = took {
            self.time(sent, took, rules);
        }
    }

    /// A call was given up for its second try, which was answered. It would have taken longer than this: left out, or with
    /// the time that it had, it would be missing from the slow answers. So it counts as one in the middle of those that
    /// take longer.
    pub(super) fn give_up(&mut self, sent: Sent, had: Duration, rules: &Rules) {
        self.failed <<= 1;
        self.is_open = false;
        self.time(sent, self.tails.beyond(had), rules);
    }

    fn time(&mut self, sent: Sent, took: Duration, rules: &Rules) {
        self.tails.record(took);
        if let Some(median) = self.median {
            let is_slow = took > median;
            self.slow = self.slow << 1 | u32::from(is_slow);
            self.load.answer(sent.crowd, is_slow);
        }
        self.timed += 1;
        let samples = u64::from(rules.samples);
        if self.timed >= samples && (self.timed - samples) % ANEW == 0 {
            self.after = Some(moment(&self.tails.shares(), rules.share as f32 / 1e6));
            self.median = self.tails.quantile(0.5);
        }
    }

    /// A call has failed, in a way that says something of the server; with a kind that says that it has too much to do for some
    /// time.
    pub(super) fn fail(&mut self, now: Nanos, strained: Option<Duration>) {
        self.failed = self.failed << 1 | 1;
        if let Some(lasts) = strained {
            self.strained_until = self.strained_until.max(now.saturating_add(nanos(lasts)));
        }
    }

    /// Quota or places are short: a 429, or a call that has to wait.
    pub(super) fn shorten(&mut self, now: Nanos, delay: Option<Duration>) {
        let lasts = delay.unwrap_or_default().clamp(SHORT_FOR, LONGEST_SHORTAGE);
        self.short_until = self.short_until.max(now.saturating_add(nanos(lasts)));
    }

    /// After how long a second try may be made; `None` while too few answers were timed.
    pub(super) const fn after(&self) -> Option<Duration> {
        self.after
    }

    /// How long half of the answers take at most.
    fn typical(&self) -> Duration {
        self.median.unwrap_or_default()
    }

    /// What the next second try costs.
    fn price(&self) -> u64 {
        TRY * (1 << self.lost_in_a_row.saturating_sub(LOSSES).min(8)).min(DEAREST)
    }

    /// Whether this call, which is late, gets a second try, with so much left of its deadline. Pays for it.
    pub(super) fn decide(
        &mut self,
        sent: Sent,
        now: Nanos,
        left: Option<Duration>,
    ) -> Result<Paid, HeldBack> {
        let decided = self.look(sent.number, now, left);
        match decided {
            Ok(()) => {
                let paid = Paid { price: self.price() };
                self.bucket -= paid.price;
                self.is_open = true;
                self.counts.sent += 1;
                Ok(paid)
            }
            Err(why) => {
                self.hold_back(why);
                Err(why)
            }
        }
    }

    fn look(&self, number: u64, now: Nanos, left: Option<Duration>) -> Result<(), HeldBack> {
        if self.after.is_none() {
            return Err(HeldBack::Samples);
        }
        if now < self.short_until {
            return Err(HeldBack::Quota);
        }
        if self.failed & ((1 << CALM) - 1) != 0 || now < self.strained_until {
            return Err(HeldBack::Failures);
        }
        if self.is_open {
            return Err(HeldBack::Unanswered);
        }
        let later = self.sent.saturating_sub(number);
        let overtakers = self.answered.iter().filter(|other| **other > number).count() as u64;
        if overtakers < later.min(OVERTAKERS) {
            return Err(HeldBack::NotOvertaken);
        }
        if self.is_crowded() {
            return Err(HeldBack::Crowd);
        }
        if (self.slow & ((1 << LAST) - 1)).count_ones() >= SLOW {
            return Err(HeldBack::Slow);
        }
        if self.load.is_felt() {
            return Err(HeldBack::Load);
        }
        if left.is_some_and(|left| left < self.typical()) {
            return Err(HeldBack::Deadline);
        }
        if self.bucket < self.price() { Err(HeldBack::Budget) } else { Ok(()) }
    }

    /// No second try, for a reason that is known elsewhere.
    pub(super) fn hold_back(&mut self, why: HeldBack) {
        self.counts.held_back[why as usize] += 1;
    }

    /// A second try that was paid for was not sent.
    pub(super) fn refund(&mut self, paid: Paid, why: HeldBack) {
        self.bucket = (self.bucket + paid.price).min(MOST_TRIES * TRY);
        self.is_open = false;
        self.counts.sent -= 1;
        self.hold_back(why);
    }

    /// A second try was answered first.
    pub(super) fn win(&mut self) {
        self.is_open = false;
        self.lost_in_a_row = 0;
        self.counts.won += 1;
    }

    /// A second try failed, or the first answer came before its own.
    pub(super) fn lose(&mut self) {
        self.lost_in_a_row = self.lost_in_a_row.saturating_add(1);
        self.counts.lost += 1;
    }
}

/// A call that was sent.
#[derive(Clone, Copy, Debug)]
pub(super) struct Sent {
    /// From 1.
    pub(super) number: u64,
    /// How many more calls than usual were under way, this one included.
    crowd: f32,
}

/// Whether the server is slower the more calls are under way: then one more call makes the others later. Where answers are late for
/// no reason of the server's, they are as often slow in a crowd as alone.
#[derive(Clone, Copy, Debug)]
struct Load {
    /// The sum of `crowd`, counted negative where the answer was quick; and that of the squares, which is the variance of the
    /// first where the two have nothing to do with each other.
    with: f32,
    square: f32,
}

impl Load {
    fn answer(&mut self, crowd: f32, is_slow: bool) {
        const KEEP: f32 = 1.0 - FORGET;
        self.with = self.with * KEEP + if is_slow { crowd } else { -crowd };
        self.square = self.square * (KEEP * KEEP) + crowd * crowd;
    }

    fn is_felt(&self) -> bool {
        self.with > 0.0 && self.with * self.with > SURE * SURE * self.square
    }
}

/// What was taken for a second try.
#[derive(Debug)]
#[must_use = "a second try that is not sent is given back"]
pub(super) struct Paid {
    price: u64,
}

pub(super) fn nanos(duration: Duration) -> Nanos {
    u64::try_from(duration.as_nanos()).unwrap_or(u64::MAX)
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    const RULES: Rules = Rules { share: 20_000, samples: 100 };
    const SECOND: Nanos = 1_000_000_000;

    fn secs(secs: f64) -> Duration {
        Duration::from_secs_f64(secs)
    }

    /// After so many calls of 1 to 2 s, one after the other, the short and the long ones mixed.
    fn fed(calls: u64) -> Evidence {
        let mut evidence = Evidence::new();
        for n in 0..calls {
            let number = evidence.send(&RULES);
            evidence.answer(number, Some(secs(1.0 + (n * 61 % calls) as f64 / calls as f64)), &RULES);
            evidence.end();
        }
        evidence
    }

    fn late(evidence: &mut Evidence, now: Nanos) -> Result<Paid, HeldBack> {
        let number = evidence.send(&RULES);
        let decided = evidence.decide(number, now, None);
        evidence.end();
        decided
    }

    #[test]
    fn ninety_nine_answers_are_no_evidence() {
        assert_eq!(fed(99).after(), None);
        assert_eq!(late(&mut fed(99), 0).unwrap_err(), HeldBack::Samples);
        let mut enough = fed(100);
        assert!((1.8..2.1).contains(&enough.after().unwrap().as_secs_f64()));
        assert!(late(&mut enough, 0).is_ok());
    }

    #[test]
    fn one_failure_among_sixteen_calls_stops_it() {
        let mut evidence = fed(200);
        evidence.fail(0, None);
        for _ in 0..15 {
            let number = evidence.send(&RULES);
            evidence.answer(number, None, &RULES);
            evidence.end();
            assert_eq!(late(&mut evidence, 0).unwrap_err(), HeldBack::Failures);
        }
        let number = evidence.send(&RULES);
        evidence.answer(number, None, &RULES);
        evidence.end();
        assert!(late(&mut evidence, 0).is_ok());
    }

    #[test]
    fn a_shortage_lasts_a_minute_or_as_long_as_the_server_says_up_to_an_hour() {
        for (delay, lasts) in [(None, 60), (Some(5), 60), (Some(120), 120), (Some(90_000), 3_600)] {
            let mut evidence = fed(200);
            evidence.shorten(0, delay.map(Duration::from_secs));
            assert_eq!(late(&mut evidence, lasts * SECOND - 1).unwrap_err(), HeldBack::Quota);
            assert!(late(&mut evidence, lasts * SECOND).is_ok(), "{delay:?}");
        }
    }

    #[test]
    fn of_calls_sent_later_two_must_have_been_answered() {
        let mut evidence = fed(200);
        let first = evidence.send(&RULES);
        let [a, b, _] = [(); 3].map(|()| evidence.send(&RULES));
        (0..3).for_each(|_| evidence.end());
        assert_eq!(evidence.decide(first, 0, None).unwrap_err(), HeldBack::NotOvertaken);
        evidence.answer(a, None, &RULES);
        assert_eq!(evidence.decide(first, 0, None).unwrap_err(), HeldBack::NotOvertaken);
        evidence.answer(b, None, &RULES);
        assert!(evidence.decide(first, 0, None).is_ok());
    }

    #[test]
    fn where_more_calls_are_under_way_than_usual_the_server_is_not_asked_for_more() {
        // Four at a time, and then eight.
        let mut evidence = fed(100);
        let mut numbers: Vec<_> = (0..4).map(|_| evidence.send(&RULES)).collect();
        for _ in 0..600 {
            evidence.answer(numbers.remove(0), Some(secs(1.0)), &RULES);
            evidence.end();
            numbers.push(evidence.send(&RULES));
        }
        let late = |evidence: &mut Evidence, number: Sent| evidence.look(number.number, 0, None);
        let last = numbers[3];
        assert_eq!(late(&mut evidence, last), Ok(()));
        let next = evidence.send(&RULES);
        evidence.answer(next, None, &RULES);
        assert_eq!(late(&mut evidence, last), Ok(()), "five are hardly more");
        let next = evidence.send(&RULES);
        evidence.answer(next, None, &RULES);
        assert_eq!(late(&mut evidence, last), Err(HeldBack::Crowd));
        evidence.end();
        assert_eq!(late(&mut evidence, last), Ok(()));
    }

    #[test]
    fn an_overload_holds_it_back_for_ten_minutes_and_a_timeout_for_one() {
        for lasts in [LATE_FOR, STRAINED_FOR] {
            let mut evidence = fed(200);
            evidence.fail(SECOND, Some(lasts));
            for _ in 0..CALM {
                let sent = evidence.send(&RULES);
                evidence.answer(sent, None, &RULES);
                evidence.end();
            }
            let until = SECOND + nanos(lasts);
            assert_eq!(late(&mut evidence, until - 1).unwrap_err(), HeldBack::Failures);
            assert!(late(&mut evidence, until).is_ok());
        }
    }

    #[test]
    fn where_most_answers_are_late_it_is_the_server() {
        let mut evidence = fed(200);
        let mut answer = |took, times| {
            for _ in 0..times {
                let sent = evidence.send(&RULES);
                evidence.answer(sent, Some(secs(took)), &RULES);
                evidence.end();
            }
            evidence.look(evidence.sent, 0, None)
        };
        assert_eq!(answer(1.1, 4), Ok(()));
        assert_eq!(answer(1.9, 12), Ok(()), "half of them are above the median");
        assert_eq!(answer(1.9, 1), Err(HeldBack::Slow));
        assert_eq!(answer(1.1, 3), Err(HeldBack::Slow), "the last sixteen count");
        assert_eq!(answer(1.1, 1), Ok(()));
    }

    /// A crowd of `crowd` and then one call alone, and so on, each with its time.
    fn crowds(evidence: &mut Evidence, crowd: usize, took: impl Fn(usize, usize) -> f64) {
        for n in 0..60 {
            let sent: Vec<_> = (0..crowd).map(|_| evidence.send(&RULES)).collect();
            for (nth, sent) in sent.into_iter().enumerate() {
                evidence.answer(sent, Some(secs(took(n, nth))), &RULES);
                evidence.end();
            }
        }
    }

    #[test]
    fn where_answers_take_longer_in_a_crowd_none_is_sent() {
        let mut evidence = fed(200);
        // As long as it takes when others are under way.
        crowds(&mut evidence, 6, |_, nth| 1.0 + 0.2 * nth as f64);
        assert!(evidence.load.is_felt());
        assert_eq!(evidence.look(evidence.sent, 0, None), Err(HeldBack::Load));
        // Quick and slow by turns, whoever else is there.
        let mut evidence = fed(200);
        crowds(&mut evidence, 6, |n, nth| 1.0 + ((n + nth) % 2) as f64);
        assert!(!evidence.load.is_felt());
        assert_eq!(evidence.look(evidence.sent, 0, None), Ok(()));
    }

    #[test]
    fn no_second_one_before_an_answer_came() {
        let mut evidence = fed(400);
        assert!(late(&mut evidence, 0).is_ok());
        for _ in 0..1_000 {
            assert_eq!(late(&mut evidence, 0).unwrap_err(), HeldBack::Unanswered, "also with all the budget");
        }
    }

    #[test]
    fn a_deadline_below_the_median_is_left_alone() {
        let mut evidence = fed(200);
        let number = evidence.send(&RULES);
        let decided = evidence.decide(number, 0, Some(secs(1.3)));
        assert_eq!(decided.unwrap_err(), HeldBack::Deadline);
        assert!(evidence.decide(number, 0, Some(secs(1.7))).is_ok());
    }

    #[test]
    fn those_that_do_not_help_become_dear() {
        let mut evidence = fed(1_000);
        let mut prices = Vec::new();
        for _ in 0..8 {
            evidence.bucket = MOST_TRIES * TRY;
            prices.push(late(&mut evidence, 0).unwrap().price / TRY);
            evidence.lose();
            let number = evidence.send(&RULES);
            evidence.answer(number, None, &RULES);
            evidence.end();
        }
        assert_eq!(prices, [1, 1, 1, 1, 2, 4, 8, 8]);
        evidence.win();
        assert_eq!(evidence.price(), TRY);
    }

    #[test]
    fn what_was_not_sent_is_given_back() {
        let mut evidence = fed(200);
        let before = (evidence.bucket, evidence.is_open);
        let paid = late(&mut evidence, 0).unwrap();
        evidence.refund(paid, HeldBack::Waiting);
        assert_eq!((evidence.bucket - u64::from(RULES.share), evidence.is_open), before);
        assert_eq!((evidence.counts.sent, evidence.counts.held_back[HeldBack::Waiting as usize]), (0, 1));
    }

    #[derive(Clone, Debug)]
    enum Step {
        Send,
        Answer(usize, u32),
        Fail(usize),
        Late(usize),
        NotSent(usize),
        Settle(bool),
        Short(u32),
        Wait(u32),
    }

    fn steps() -> impl Strategy<Value = Vec<Step>> {
        let step = prop_oneof![
            8 => Just(Step::Send),
            6 => (any::<usize>(), 1..5_000_u32).prop_map(|(n, ms)| Step::Answer(n, ms)),
            1 => any::<usize>().prop_map(Step::Fail),
            4 => any::<usize>().prop_map(Step::Late),
            1 => any::<usize>().prop_map(Step::NotSent),
            2 => any::<bool>().prop_map(Step::Settle),
            1 => (0..100_000_u32).prop_map(Step::Short),
            2 => (0..100_000_u32).prop_map(Step::Wait),
        ];
        proptest::collection::vec(step, 0..600)
    }

    proptest! {
        /// Whatever happens in whatever order: never more than the share, never in a shortage, never after a failure, never
        /// two without an answer between, never one that was overtaken by nobody, never in a crowd.
        #[test]
        fn the_promises_hold(steps in steps(), share in 1_000..200_000_u32, samples in 1..30_u32) {
            let rules = Rules { share, samples };
            let (mut evidence, mut now) = (Evidence::new(), 0);
            let (mut under_way, mut calls, mut tries, mut paid) = (Vec::<Sent>::new(), 0_u64, 0_u64, 0_u64);
            // The model: what is remembered plainly.
            let (mut outcomes, mut short_until, mut strained_until, mut open) = (Vec::new(), 0, 0, false);
            let (mut answered, mut timed, mut usual) = (Vec::<u64>::new(), 0, 1.0_f32);
            for step in steps {
                match step {
                    Step::Send => {
                        under_way.push(evidence.send(&rules));
                        calls += 1;
                        usual += (under_way.len() as f32 - usual) / 64.0;
                    }
                    Step::Answer(n, ms) if !under_way.is_empty() => {
                        let number = under_way.swap_remove(n % under_way.len());
                        evidence.answer(number, Some(Duration::from_millis(ms.into())), &rules);
                        evidence.end();
                        outcomes.push(true);
                        answered.push(number.number);
                        timed += 1;
                        open = false;
                    }
                    Step::Fail(n) if !under_way.is_empty() => {
                        under_way.swap_remove(n % under_way.len());
                        let strained = (n % 2 == 0).then_some(LATE_FOR);
                        evidence.fail(now, strained);
                        strained_until = strained_until.max(strained.map_or(0, |lasts| now + nanos(lasts)));
                        evidence.end();
                        outcomes.push(false);
                    }
                    Step::Late(n) | Step::NotSent(n) if !under_way.is_empty() => {
                        let number = under_way[n % under_way.len()];
                        let bucket = evidence.bucket;
                        let Ok(receipt) = evidence.decide(number, now, None) else {
                            prop_assert_eq!(bucket, evidence.bucket);
                            continue;
                        };
                        prop_assert!(timed >= samples && now >= short_until && now >= strained_until && !open);
                        prop_assert!(under_way.len() as f32 <= usual * 1.25 + 0.501, "{under_way:?} {usual}");
                        prop_assert!(outcomes.iter().rev().take(16).all(|good| *good));
                        let overtakers = answered.iter().rev().take(8).filter(|other| **other > number.number).count();
                        prop_assert!(overtakers as u64 >= (calls - number.number).min(2));
                        if matches!(step, Step::NotSent(_)) {
                            evidence.refund(receipt, HeldBack::Waiting);
                            prop_assert_eq!(bucket, evidence.bucket);
                            open = false;
                            continue;
                        }
                        open = true;
                        tries += 1;
                        paid += receipt.price;
                    }
                    Step::Settle(won) => {
                        if won { evidence.win(); open = false } else { evidence.lose() }
                    }
                    Step::Short(ms) => {
                        evidence.shorten(now, Some(Duration::from_millis(ms.into())));
                        short_until = short_until.max(now + 60 * SECOND).max(now + u64::from(ms) * 1_000_000);
                    }
                    Step::Wait(ms) => now += u64::from(ms) * 1_000_000,
                    _ => {}
                }
                prop_assert!(evidence.bucket <= MOST_TRIES * TRY);
                prop_assert!(paid + evidence.bucket <= calls * u64::from(share));
                prop_assert_eq!(evidence.counts.sent, tries);
            }
        }
    }
}
