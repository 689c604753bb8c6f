//! Whether timeouts are the server's: the evidence for and against, of one key. Pure.
//!
//! A server that queues answers late calls later: what was started after a call that timed out does not overtake it.
//! A call that hangs by chance, or an answer that is long by itself, is overtaken by others. So a timeout that nobody
//! has overtaken weighs 1, one that was overtaken a quarter, and a quick answer to a call started after the last
//! timeout takes 1 back (Page's CUSUM: never below zero). At [`ALARM`] the limit is cut.
//!
//! **False alarms, by calculation.** With a share `p` of calls that time out by chance, independent of each other:
//!
//! - Calls one at a time cannot overtake: two timeouts in a row alarm, `p²` of all calls (0.04 % at 2 %, 0.25 % at 5 %),
//!   and leave one call at a time, which such a caller does not notice. A pace needs two more in a row:
//!   `p⁴` (0.16 of a million at 2 %, 6 of a million at 5 %).
//! - Of many calls at once nearly all timeouts are overtaken: eight more of them than quick answers are needed. The
//!   chance that a spell which begins with a timeout gets there is at most `y⁻⁷`, where `p·y + (1 − p)·y⁻⁴ = 1`: 2 in a
//!   hundred billion at 2 %, 1 in 80,000 at 20 %.
//!
//! **What stays unseen.** A server that answers nobody in time is noticed with the second timeout: one patience after
//! the trouble began at 20 calls a second, and two patiences at the most where calls come one in 10 s.

/// The score at which the limit is cut.
pub(super) const ALARM: f64 = 2.0;

/// What a timeout weighs that a later call has overtaken.
const OVERTAKEN: f64 = 0.25;

/// A caller, by a hash of its label; all requests without one are one caller.
pub(super) type Caller = u64;

/// Whose timeouts the evidence is made of.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(super) enum Witness {
    #[default]
    Nobody,
    /// All of them are this caller's: they may be its own fault, and bind nobody else.
    One(Caller),
    Many,
}

impl Witness {
    fn and(self, caller: Caller) -> Self {
        match self {
            Self::Nobody => Self::One(caller),
            Self::One(known) if known == caller => self,
            _ => Self::Many,
        }
    }

    /// Whether what these have seen holds this caller back, too.
    pub(super) fn binds(self, caller: Caller) -> bool {
        match self {
            Self::Nobody | Self::Many => true,
            Self::One(known) => known == caller,
        }
    }
}

#[derive(Clone, Copy, Debug, Default)]
pub(super) struct Evidence {
    /// Never below zero.
    score: f64,
    witness: Witness,
    /// The latest start of a call that timed out.
    latest: u64,
}

impl Evidence {
    /// A call that was the `start`-th has timed out. Whether that is enough to act.
    pub(super) fn timeout(&mut self, start: u64, is_overtaken: bool, caller: Caller) -> bool {
        self.score += if is_overtaken { OVERTAKEN } else { 1.0 };
        self.witness = self.witness.and(caller);
        self.latest = self.latest.max(start);
        self.score >= ALARM
    }

    /// A call was answered, well within the patience of those that time out.
    pub(super) fn quick_answer(&mut self, start: u64) {
        if start > self.latest {
            self.score = (self.score - 1.0).max(0.0);
            if self.score == 0.0 {
                self.witness = Witness::Nobody;
            }
        }
    }

    /// It was acted upon, or it is out of date.
    pub(super) fn clear(&mut self) {
        (self.score, self.witness) = (0.0, Witness::Nobody);
    }

    pub(super) const fn witness(&self) -> Witness {
        self.witness
    }

    pub(super) fn is_none(&self) -> bool {
        self.score == 0.0
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    /// How many alarms so many calls make of which a share times out by chance, all overtaken or none.
    fn alarms(calls: u64, share: f64, overtaken: bool, mut draw: impl FnMut() -> f64) -> u64 {
        let (mut evidence, mut alarms) = (Evidence::default(), 0);
        for start in 1..=calls {
            if draw() >= share {
                evidence.quick_answer(start);
            } else if evidence.timeout(start, overtaken, 0) {
                alarms += 1;
                evidence.clear();
            }
        }
        alarms
    }

    fn draws(seed: u64) -> impl FnMut() -> f64 {
        let mut stream = crate::rng::Chance::seeded(seed).stream();
        move || stream.unit()
    }

    proptest! {
        #![proptest_config(ProptestConfig::with_cases(24))]

        // The rates of the module's page. Poisson noise: five standard deviations.
        #[test]
        fn one_at_a_time_alarms_as_calculated(share in 0.01..0.2f64, seed: u64) {
            let calls = 200_000;
            let seen = alarms(calls, share, false, draws(seed)) as f64;
            let most = share * share * calls as f64;
            prop_assert!(seen <= most + 5.0 * most.sqrt() + 1.0, "{seen} of {most}");
            prop_assert!(seen >= 0.5 * most - 5.0 * most.sqrt(), "{seen} of {most}");
        }

        #[test]
        fn overtaken_timeouts_alarm_as_rarely_as_calculated(share in 0.02..0.3f64, seed: u64) {
            let calls = 200_000;
            let mut y = 1.0 / share;
            for _ in 0..200 {
                y = (1.0 - (1.0 - share) * f64::powi(y, -4)) / share;
            }
            let most = share * calls as f64 * y.powi(-7);
            let seen = alarms(calls, share, true, draws(seed)) as f64;
            prop_assert!(seen <= most + 5.0 * most.sqrt() + 1.0, "{seen} of {most}");
        }

        #[test]
        fn a_server_that_answers_nobody_is_noticed_with_the_second(first in 1u64..1000, caller: u64) {
            let mut evidence = Evidence::default();
            prop_assert!(!evidence.timeout(first, false, caller));
            prop_assert!(evidence.timeout(first + 1, false, caller));
            prop_assert!(evidence.witness().binds(caller) && !evidence.witness().binds(!caller));
            prop_assert!(evidence.timeout(first, false, !caller));
            prop_assert_eq!(evidence.witness(), Witness::Many);
        }
    }

    #[test]
    fn an_answer_from_before_the_last_timeout_says_nothing() {
        let mut evidence = Evidence::default();
        assert!(!evidence.timeout(7, false, 0));
        evidence.quick_answer(6);
        assert!(!evidence.is_none());
        evidence.quick_answer(8);
        assert!(evidence.is_none() && evidence.witness() == Witness::Nobody);
    }
}
