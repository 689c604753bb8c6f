//! Whether timeouts are the server's: the evidence for and against, of one key. Pure.
//!
//! A timeout is late news, and one alone may be chance: a call that hangs, an answer that is long by itself, a patience that
//! is too short for the model. What tells them from a server that queues:
//!
//! - **Order.** A queue answers late calls later: what was started after a call that timed out does not overtake it.
//!   An overtaken timeout weighs 1/40.
//! - **Answers meanwhile.** A timeout during which nothing at all was answered weighs 1, any other ½.
//! - **Quick answers.** Each answer in less than half the patience, to a call that was started after the last timeout, takes 1
//!   back (Page's CUSUM: never below zero).
//! - **What is usual.** Weights shrink where timeouts are no news: by `(ln(0.9/u) / ln 9)²`, where `u` is the share of
//!   calls that usually time out, at least 0.1: to ½ at 20 %, to ⅓ at 25 %, and from there on nothing is cut. It is learnt
//!   from the last 200 calls, beginning with one in ten. Timeouts that a cut explains are left out of it.
//! - **Experience.** Before ten answers were seen, a third.
//!
//! At a score of 1 the limit is cut. It binds one caller where nine tenths of the score are that caller's, and all
//! callers otherwise.
//!
//! **What a false alarm costs, and how often there is one**, where a share `p` of calls times out by chance:
//!
//! - A first cut leaves what the server has answered within one patience, or one call at a time. It takes a timeout that
//!   nobody has overtaken: with `n` other calls a patience, `p · e^{-n(1-p)/2}` of all calls at the least answered half the
//!   time; where `n` is small enough for that to happen, one call at a time is about what there is to do.
//! - A pace takes timeouts in a row, one call at a time: `p²` for a gap of 2 s, `p³` for one of 20 s (8 in a million at
//!   2 %, 1 in 8,000 at 5 %), and the first quick answer ends it.
//!
//! **What stays unseen.** A server that answers nobody is noticed with the first timeout by who has had answers before,
//! at 20 calls a second and at one in 10 s alike: one patience after the trouble began, plus the time to the next call.

use crate::blame::{Caller, Witness};

/// The score at which the limit is cut. A little less than what three thirds add up to.
const ALARM: f64 = 0.99;

/// What a timeout weighs that a later call has overtaken.
const OVERTAKEN: f64 = 0.025;

/// What a timeout weighs while others were answered.
const SOME: f64 = 0.5;

/// Up to this share of timeouts each counts in full.
const RARE: f64 = 0.1;

/// From this share on timeouts are no news.
const NO_NEWS: f64 = 0.25;

/// The share of the score that makes it one caller's own.
const ONES_OWN: f64 = 0.9;

/// With fewer answers, each timeout weighs a third.
const EXPERIENCE: u32 = 10;

/// A call that timed out, and what happened while it waited.
#[derive(Clone, Copy, Debug)]
pub(super) struct Timeout {
    /// Its number: of two calls, the one with the higher number began later.
    pub(super) number: u64,
    pub(super) caller: Caller,
    /// A call with a higher number has been answered.
    pub(super) is_overtaken: bool,
    /// How many calls were answered.
    pub(super) answered: u32,
}

/// How usual it is that a call times out.
#[derive(Clone, Copy, Debug)]
pub(super) struct Usual {
    timeouts: f64,
    calls: f64,
    /// Answers counted so far, of a counter that wraps.
    answers: u32,
}

impl Default for Usual {
    fn default() -> Self {
        Self { timeouts: 1.0, calls: 10.0, answers: 0 }
    }
}

impl Usual {
    /// There were so many answers in all.
    pub(super) fn answers(&mut self, answers: u32) {
        let more = answers.wrapping_sub(self.answers);
        self.answers = answers;
        self.calls += f64::from(more);
        self.fade();
    }

    pub(super) fn timed_out(&mut self) {
        self.calls += 1.0;
        self.timeouts += 1.0;
        self.fade();
    }

    fn fade(&mut self) {
        const MOST: f64 = 200.0;
        if self.calls > MOST {
            self.timeouts *= MOST / self.calls;
            self.calls = MOST;
        }
    }

    fn share(&self) -> f64 {
        self.timeouts / self.calls
    }

    /// What a timeout weighs, at most 1.
    pub(super) fn weight(&self) -> f64 {
        let rarity = (0.9 / self.share().clamp(RARE, 0.9)).ln() / (0.9f64 / RARE).ln();
        rarity * rarity * if self.answers < EXPERIENCE { 1.0 / 3.0 } else { 1.0 }
    }

    pub(super) fn is_no_news(&self) -> bool {
        self.share() >= NO_NEWS
    }
}

#[derive(Clone, Copy, Debug, Default)]
pub(super) struct Evidence {
    /// Never below zero.
    score: f64,
    /// The caller whose timeouts weigh most, and how much of the score that is at least.
    suspect: Caller,
    suspected: f64,
    /// The highest number of a call that timed out.
    latest: u64,
}

impl Evidence {
    /// Adds a timeout, by this much of its weight. Whether that is enough to act.
    pub(super) fn timeout(&mut self, timeout: Timeout, weight: f64) -> bool {
        let share = match timeout {
            Timeout { is_overtaken: true, .. } => OVERTAKEN,
            Timeout { answered: 0, .. } => 1.0,
            _ => SOME,
        };
        let share = weight * share;
        self.score += share;
        if self.suspect == timeout.caller {
            self.suspected += share;
        } else if share > self.suspected {
            (self.suspect, self.suspected) = (timeout.caller, share);
        }
        self.latest = self.latest.max(timeout.number);
        self.score >= ALARM
    }

    /// A call was answered, well within the patience of those that time out.
    pub(super) fn quick_answer(&mut self, number: u64) {
        if number > self.latest {
            self.score = (self.score - 1.0).max(0.0);
            self.suspected = self.suspected.min(self.score);
        }
    }

    /// It was acted upon, or it is out of date.
    pub(super) fn clear(&mut self) {
        (self.score, self.suspected) = (0.0, 0.0);
    }

    /// Whose timeouts these are: one caller's, where nine tenths of the score are.
    pub(super) fn witness(&self) -> Witness {
        if self.suspected >= ONES_OWN * self.score { Witness::One(self.suspect) } else { Witness::Many }
    }

    pub(super) fn is_none(&self) -> bool {
        self.score == 0.0
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    const ALONE: Timeout = Timeout { number: 1, caller: 0, is_overtaken: false, answered: 0 };

    fn draws(seed: u64) -> impl FnMut() -> f64 {
        let mut stream = crate::rng::RngSource::seeded(seed).stream();
        move || stream.unit()
    }

    fn experienced() -> Usual {
        let mut usual = Usual::default();
        usual.answers(190);
        usual
    }

    proptest! {
        #![proptest_config(ProptestConfig::with_cases(24))]

        // The rates of the module's page, for calls one at a time, none of which can overtake: with a share of up to 10 %
        // each timeout is a first cut, and each further one in a row a deeper one.
        #[test]
        fn deeper_cuts_are_as_rare_as_timeouts_in_a_row(share in 0.01..0.1f64, seed: u64) {
            let (calls, mut draw) = (200_000, draws(seed));
            let (mut evidence, mut usual) = (Evidence::default(), experienced());
            let (mut row, mut deep) = (0, [0u32; 4]);
            for number in 1..=calls {
                if draw() >= share {
                    usual.answers(usual.answers.wrapping_add(1));
                    evidence.quick_answer(number);
                    row = 0;
                } else {
                    let weight = usual.weight();
                    usual.timed_out();
                    if evidence.timeout(Timeout { number, ..ALONE }, weight) {
                        evidence.clear();
                        row += 1;
                        deep[row.min(4) - 1] += 1;
                    }
                }
            }
            for (n, seen) in deep.into_iter().enumerate().take(3) {
                let most = share.powi(n as i32 + 1) * calls as f64;
                prop_assert!(f64::from(seen) <= most + 5.0 * most.sqrt() + 1.0, "{n}: {seen} of {most}");
            }
        }

        // Forty overtaken timeouts more than quick answers, however many calls.
        #[test]
        fn overtaken_timeouts_alarm_nobody(share in 0.0..0.45f64, seed: u64) {
            let (mut evidence, usual, mut draw) = (Evidence::default(), experienced(), draws(seed));
            for number in 1..=100_000 {
                if draw() >= share {
                    evidence.quick_answer(number);
                } else {
                    let timeout = Timeout { number, is_overtaken: true, answered: 20, caller: 0 };
                    prop_assert!(!evidence.timeout(timeout, usual.weight()));
                }
            }
        }

        #[test]
        fn usual_follows_the_share(share in 0.0..0.9f64, seed: u64) {
            let (mut usual, mut draw) = (Usual::default(), draws(seed));
            for _ in 0..2_000 {
                if draw() < share { usual.timed_out() } else { usual.answers(usual.answers.wrapping_add(1)) }
            }
            // 200 calls: a standard deviation of 0.035 at most.
            prop_assert!((usual.share() - share).abs() < 0.15, "{} {share}", usual.share());
            prop_assert!((0.0..=1.0).contains(&usual.weight()));
            prop_assert!(usual.is_no_news() || share < 0.4);
        }
    }

    #[test]
    fn a_server_that_answers_nobody_is_noticed_with_the_first_timeout() {
        let mut evidence = Evidence::default();
        assert!(evidence.timeout(ALONE, experienced().weight()));
        let (mut evidence, usual) = (Evidence::default(), Usual::default());
        let alarms = [1, 2, 3].map(|number| evidence.timeout(Timeout { number, ..ALONE }, usual.weight()));
        assert_eq!(alarms, [false, false, true], "with the third, where nobody was ever answered");
    }

    #[test]
    fn a_score_is_one_callers_where_the_others_hardly_add_to_it() {
        let of = |caller| Timeout { caller, answered: 3, ..ALONE };
        let stray = Timeout { is_overtaken: true, ..of(9) };
        let mut evidence = Evidence::default();
        let alarms = [of(9), stray, of(4), stray, of(4)].map(|timeout| evidence.timeout(timeout, 1.0));
        assert_eq!((alarms, evidence.witness()), ([false, false, true, true, true], Witness::Many));
        evidence.clear();
        let alarms = [stray, of(4), stray, of(4)].map(|timeout| evidence.timeout(timeout, 1.0));
        assert_eq!((alarms, evidence.witness()), ([false, false, false, true], Witness::One(4)));
    }

    #[test]
    fn an_answer_from_before_the_last_timeout_says_nothing() {
        let mut evidence = Evidence::default();
        assert!(!evidence.timeout(Timeout { number: 7, answered: 3, ..ALONE }, 1.0));
        evidence.quick_answer(6);
        assert!(!evidence.is_none());
        evidence.quick_answer(8);
        assert!(evidence.is_none());
    }
}
