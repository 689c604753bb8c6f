//! Which place is asked. Pure.

use super::health::{Rank, Standing};

/// One place, as it stands for one request.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Candidate {
    /// Within the request's residency, and the request can be rewritten for it.
    pub(super) permitted: bool,
    /// This request has been there.
    pub(super) tried: bool,
    pub(super) standing: Standing,
    /// Its place in the order, where no place is open.
    pub(super) rank: Rank,
}

impl Candidate {
    const fn is_open(&self) -> bool {
        self.permitted && !self.tried && matches!(self.standing, Standing::Open)
    }
}

/// The first place that is open, in the order in which they were given; where none is, the least in rank of those that
/// this request has not been to. `None` where none is permitted or left.
pub(super) fn choose(candidates: &[Candidate]) -> Option<usize> {
    candidates.iter().position(Candidate::is_open).or_else(|| {
        let left = candidates.iter().enumerate().filter(|(_, place)| place.permitted && !place.tried);
        left.min_by_key(|(_, place)| place.rank).map(|(at, _)| at)
    })
}

/// Whether a request that has failed at one place has another one to go to, which is open.
pub(super) fn another(candidates: &[Candidate]) -> Option<usize> {
    candidates.iter().position(Candidate::is_open)
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn candidates() -> impl Strategy<Value = Vec<Candidate>> {
        let standing = prop_oneof![Just(Standing::Open), any::<u64>().prop_map(Standing::Closed)];
        let rank = prop_oneof![
            any::<u64>().prop_map(Rank::Due),
            any::<(u64, u64)>().prop_map(|(served, again)| Rank::Later(std::cmp::Reverse(served), again)),
        ];
        let one = (any::<bool>(), any::<bool>(), standing, rank)
            .prop_map(|(permitted, tried, standing, rank)| Candidate { permitted, tried, standing, rank });
        proptest::collection::vec(one, 0..17)
    }

    proptest! {
        #[test]
        fn a_forbidden_place_is_never_chosen(candidates in candidates()) {
            for at in [choose(&candidates), another(&candidates)].into_iter().flatten() {
                prop_assert!(candidates[at].permitted && !candidates[at].tried);
            }
        }

        #[test]
        fn no_closed_place_is_chosen_while_an_open_one_is_there(candidates in candidates()) {
            let first = candidates.iter().position(|p| p.permitted && !p.tried && p.standing == Standing::Open);
            prop_assert_eq!(another(&candidates), first);
            if first.is_some() {
                prop_assert_eq!(choose(&candidates), first, "and the first of them is");
            }
        }

        #[test]
        fn there_is_a_choice_while_a_permitted_place_is_left(candidates in candidates()) {
            let left = candidates.iter().any(|place| place.permitted && !place.tried);
            prop_assert_eq!(choose(&candidates).is_some(), left);
            if let (Some(at), None) = (choose(&candidates), another(&candidates)) {
                let left = candidates.iter().filter(|place| place.permitted && !place.tried);
                prop_assert_eq!(Some(candidates[at].rank), left.map(|place| place.rank).min());
            }
        }

        /// While all is well it is the first permitted place, whatever is closed or open behind it.
        #[test]
        fn it_is_stable_when_all_is_well(candidates in candidates(), change in candidates()) {
            let home = candidates.iter().position(|place| place.permitted);
            let mut well = candidates;
            for (at, place) in well.iter_mut().enumerate() {
                place.tried = false;
                place.standing = if Some(at) == home { Standing::Open } else { place.standing };
            }
            prop_assert_eq!(choose(&well), home);
            prop_assume!(home.is_some());
            for (place, other) in well.iter_mut().zip(change).skip(home.map_or(0, |at| at + 1)) {
                *place = other;
            }
            prop_assert_eq!(choose(&well), home);
        }
    }
}
