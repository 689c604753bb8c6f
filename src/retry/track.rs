//! Whether further attempts have helped lately, by key.
//!
//! Some failures are either chance or the request's own: `internal` is what a server in trouble says, and also what
//! Google says to a prompt that is too long. Which of the two a request met shows in the ones before it: where the last
//! attempt that is allowed mostly succeeds it was chance, and one more is worth its price.
//!
//! No clock: evidence that has grown old is spent on one or two requests.

use std::sync::Mutex;

use super::budget::{Buckets, slot};
use crate::keyed::lock;

/// The most failures that earlier successes make up for.
const MOST: u8 = 8;

/// Successes of late attempts less their failures, from 0, which is no evidence, to [`MOST`].
///
/// A request that cannot succeed lowers it with each late attempt, also with those that it owes to the score. So requests
/// of that sort use up what there is, and then end where they would have ended without it.
#[derive(Clone, Copy, Debug, Default, PartialEq)]
struct Score(u8);

impl Score {
    fn after(self, helped: bool) -> Self {
        Self(if helped { MOST.min(self.0 + 1) } else { self.0.saturating_sub(1) })
    }

    const fn is_worth_more(self) -> bool {
        self.0 > 0
    }
}

/// The scores by key. One of 0 takes no memory; at most 1,024 others are kept, and more share one.
#[derive(Debug, Default)]
pub(super) struct TrackRecord {
    scores: Mutex<Buckets<Score>>,
}

impl TrackRecord {
    /// Counts a late attempt, and says whether yet another one is worth it.
    pub(super) fn note(&self, key: u64, helped: bool) -> bool {
        let mut scores = lock(&self.scores);
        let key = slot(&scores, key);
        let score = scores.get(&key).copied().unwrap_or_default().after(helped);
        if score == Score::default() {
            scores.remove(&key);
        } else {
            scores.insert(key, score);
        }
        score.is_worth_more()
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn nothing_is_worth_more_without_evidence() {
        let record = TrackRecord::default();
        assert!(!record.note(1, false));
        assert!(record.note(1, true), "one success is some");
        assert!(!record.note(2, false), "another key has its own");
        assert!(!record.note(1, false), "and one failure takes it away");
    }

    // What a model that fails every long prompt may cost, after any number of good days.
    #[test]
    fn what_cannot_succeed_uses_the_evidence_up() {
        let record = TrackRecord::default();
        (0..1000).for_each(|_| _ = record.note(1, true));
        let more = (0..1000).filter(|_| record.note(1, false)).count();
        assert_eq!(more, usize::from(MOST) - 1);
        assert!(record.scores.lock().expect("no panic").is_empty(), "no evidence takes no memory");
    }

    #[test]
    fn keys_beyond_the_bound_share_a_score() {
        let record = TrackRecord::default();
        (0..2000).for_each(|key| _ = record.note(key, true));
        assert_eq!(record.scores.lock().expect("no panic").len(), 1025);
        assert!(record.note(5000, false), "it has the others' successes");
    }

    proptest! {
        // Against the same sum without a map.
        #[test]
        fn behaves_like_one_bounded_sum_per_key(ops in prop::collection::vec((0u64..3, any::<bool>()), 0..300)) {
            let record = TrackRecord::default();
            let mut model = [0i32; 3];
            for (key, helped) in ops {
                let sum = &mut model[key as usize];
                *sum = (*sum + if helped { 1 } else { -1 }).clamp(0, i32::from(MOST));
                prop_assert_eq!(record.note(key, helped), *sum > 0);
            }
        }
    }
}
