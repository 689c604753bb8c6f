//! How one place does for one model, by the verdicts of the calls that went there. Pure.

use std::time::Duration;

use crate::error::Rejected;
use crate::verdict::{Alternative, Kind, Retryability, Verdict};

/// Nanoseconds since the layer's epoch.
pub(super) type Nanos = u64;

/// How a place stands.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Standing {
    Open,
    /// Closed until this instant.
    Closed(Nanos),
}

/// The order of places of which none is open.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(super) enum Rank {
    /// It is worth a call since then: nobody knows how it does now.
    Due(Nanos),
    /// It was asked a moment ago. One that has served lately fails now and then, and is better than one that never answers; then
    /// the one that is worth a call first.
    Later(std::cmp::Reverse<Nanos>, Nanos),
}

/// Failures in a row that close a place, where they name no quota.
pub(super) const ROW: u32 = 3;
/// For how long, at first; doubled for each time that the call after it failed as well.
pub(super) const TROUBLE_FOR: Duration = Duration::from_secs(15);
/// After a 429 that names no delay; doubled in the same way.
pub(super) const SHORT_FOR: Duration = Duration::from_secs(10);
/// Those two at the most. And what does not serve this model or this caller is asked again after so long.
pub(super) const LONGEST: Duration = Duration::from_secs(300);
/// A quota that does not clear within minutes, where nothing says when it does.
pub(super) const SPENT_FOR: Duration = Duration::from_secs(3_600);
/// A place that has served within this time fails now and then, and is not down.
const LATELY: Duration = Duration::from_secs(5);
/// No longer than this, whatever a server says.
const MOST: Duration = Duration::from_secs(86_400);
/// The call that finds out whether a place is open again has so long before another one does.
pub(super) const TRIAL: Duration = Duration::from_secs(60);

/// What a failure says of the place.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Blame {
    /// Quota or capacity is short, for so long where that is known.
    Short(Option<Duration>),
    /// It is spent.
    Spent(Option<Duration>),
    /// The server is not well, or is not reached.
    Trouble,
    /// This place does not serve this model or this caller.
    Unfit,
}

impl Blame {
    /// `None` where another place would answer the same. `ahead` is how far ahead a layer of this process says that the
    /// place opens again.
    pub(super) fn of(
        verdict: &Verdict,
        rejected: Option<&Rejected>,
        ahead: Option<Duration>,
    ) -> Option<Self> {
        if verdict.after_output() || verdict.is_by_caller() {
            return None;
        }
        let kind = rejected.map_or(verdict.kind(), Rejected::kind)?;
        let delay = ahead.or_else(|| verdict.server_delay().map(|delay| delay.at_least()));
        match kind {
            Kind::RateLimited => Some(Self::Short(delay)),
            Kind::QuotaExhausted => Some(Self::Spent(delay)),
            // An open circuit, or a full queue: the layer that says so knows until when.
            Kind::Overloaded | Kind::Unavailable if rejected.is_some() => Some(Self::Short(delay)),
            Kind::Overloaded | Kind::Unavailable | Kind::Internal => Some(Self::Trouble),
            Kind::DeadlineExceeded | Kind::Transport | Kind::Cancelled
                if rejected.is_none() && verdict.retryability() != Retryability::Never =>
            {
                Some(Self::Trouble)
            }
            // Of a file or a cache, no other place has it.
            Kind::NotFound if verdict.alternative() != Alternative::Model => None,
            Kind::NotFound
            | Kind::PermissionDenied
            | Kind::Unauthenticated
            | Kind::ApiKeyInvalid
            | Kind::KeyLeaked
            | Kind::ServiceDisabled
            | Kind::FailedPrecondition
                if rejected.is_none() && verdict.retryability() == Retryability::Never =>
            {
                Some(Self::Unfit)
            }
            _ => None,
        }
    }
}

/// One place.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(super) struct Health {
    /// Failures in a row.
    row: u32,
    /// Times in a row that it was closed.
    times: u32,
    /// Since when and until when it is closed; past, until a call has found out.
    closed: Option<(Nanos, Nanos)>,
    /// When it may be asked again where no other place is open: before `closed` ends, if nobody has said that it will not help.
    again: Nanos,
    /// When the last call was sent that was answered well.
    served: Nanos,
    /// Until when the call that finds out has to do so.
    trial: Option<Nanos>,
}

impl Health {
    pub(super) fn standing(&self, now: Nanos) -> Standing {
        match (self.closed, self.trial) {
            (None, _) => Standing::Open,
            (Some((_, until)), _) if now < until => Standing::Closed(until),
            (Some(_), Some(lease)) if now < lease => Standing::Closed(lease),
            (Some(_), _) => Standing::Open,
        }
    }

    /// When it is worth a call, where no place is open.
    fn again(&self, now: Nanos) -> Nanos {
        match (self.closed, self.trial) {
            (None, _) => 0,
            (Some(_), Some(lease)) if now < lease => lease,
            (Some(_), _) => self.again,
        }
    }

    /// Which place is asked where none is open: the least.
    pub(super) fn rank(&self, now: Nanos) -> Rank {
        match self.again(now) {
            again if again <= now => Rank::Due(again),
            again => {
                // One whose quota is spent has served as well, and one that is down had served before.
                let is_soon = self.again <= now.saturating_add(nanos(TROUBLE_FOR));
                let is_shaky = is_soon && now <= self.served.saturating_add(nanos(LATELY));
                Rank::Later(std::cmp::Reverse(if is_shaky { self.served } else { 0 }), again)
            }
        }
    }

    pub(super) const fn is_well(&self) -> bool {
        self.closed.is_none() && self.row == 0
    }

    /// A call goes there. Its lease, where it is the one that finds out whether the place is open.
    pub(super) fn enter(&mut self, now: Nanos) -> Option<Nanos> {
        if self.closed.is_some() && self.again(now) <= now {
            self.trial = Some(now.saturating_add(nanos(TRIAL)));
            return self.trial;
        }
        None
    }

    /// The call that finds out was dropped, or is over in a way that says nothing of the place.
    pub(super) fn leave(&mut self, lease: Nanos) {
        if self.trial == Some(lease) {
            self.trial = None;
        }
    }

    /// A call that went there at `sent` was answered well. Whether that opens the place.
    pub(super) fn succeed(&mut self, sent: Nanos) -> bool {
        self.served = self.served.max(sent);
        // One that was under way when it closed says nothing of the time since.
        if self.closed.is_some_and(|(since, _)| sent < since) {
            return false;
        }
        let was_closed = self.closed.is_some();
        *self = Self { served: self.served, ..Self::default() };
        was_closed
    }

    /// A call has failed. Until when the place is closed, where it was not.
    pub(super) fn fail(&mut self, blame: Blame, now: Nanos) -> Option<Nanos> {
        let is_closed = matches!(self.closed, Some((_, until)) if now < until);
        let is_counted = matches!(blame, Blame::Trouble | Blame::Unfit);
        self.row = self.row.saturating_add(u32::from(is_counted));
        if is_counted && self.row < ROW && self.closed.is_none() {
            return None;
        }
        let doubled = |first: Duration| first.saturating_mul(1 << self.times.min(16)).min(LONGEST);
        let lasts = match blame {
            Blame::Short(Some(delay)) => delay,
            Blame::Short(None) => doubled(SHORT_FOR),
            Blame::Spent(delay) => delay.unwrap_or(SPENT_FOR),
            Blame::Unfit => LONGEST,
            // Once closed, the first failure after it closes it again.
            Blame::Trouble => doubled(TROUBLE_FOR),
        };
        let first = match blame {
            Blame::Short(None) => SHORT_FOR,
            Blame::Trouble => TROUBLE_FOR,
            Blame::Short(Some(_)) | Blame::Spent(_) | Blame::Unfit => MOST,
        };
        let after = |lasts: Duration| now.saturating_add(nanos(lasts.clamp(Duration::from_millis(1), MOST)));
        let until = after(lasts);
        // One that went there early, since no other place was open, closes it anew.
        if is_closed && self.trial.is_none() {
            // Calls that were under way when it closed. A quota may take longer than was known.
            if let (Some((_, closed)), false) = (&mut self.closed, is_counted) {
                *closed = (*closed).max(until);
                self.again = self.again.max(until.min(after(first)));
            }
            return None;
        }
        self.times = self.times.saturating_add(1);
        self.trial = None;
        // A quota that was named, or is known to be spent, is not shortened by what came after it.
        let until = match self.closed {
            Some((_, closed)) if is_closed => until.max(closed),
            _ => until,
        };
        self.closed = Some((now, until));
        self.again = until.min(after(first));
        Some(until)
    }
}

pub(super) fn nanos(duration: Duration) -> Nanos {
    u64::try_from(duration.as_nanos()).unwrap_or(u64::MAX)
}

#[cfg(test)]
mod tests {
    use bytes::Bytes;
    use http::{HeaderMap, StatusCode};
    use proptest::prelude::*;

    use super::*;

    const S: Nanos = 1_000_000_000;

    #[test]
    fn three_failures_in_a_row_close_it_and_the_times_double() {
        let mut health = Health::default();
        assert_eq!(health.fail(Blame::Trouble, 0), None);
        assert_eq!(health.fail(Blame::Trouble, 0), None);
        assert!(!health.succeed(0), "it was open");
        for _ in 0..2 {
            assert_eq!(health.fail(Blame::Trouble, 0), None);
        }
        let mut now = 0;
        for lasts in [15, 30, 60, 120, 240, 300, 300] {
            assert_eq!(health.fail(Blame::Trouble, now), Some(now + lasts * S));
            now += lasts * S;
            assert_eq!(health.standing(now - 1), Standing::Closed(now));
            assert!(health.enter(now).is_some(), "one finds out");
            assert_eq!(health.standing(now), Standing::Closed(now + 60 * S), "and one alone");
        }
        assert!(health.succeed(now));
        assert_eq!(health, Health { served: now, ..Health::default() });
    }

    /// Where no other place is open, nobody waits for the doubled time.
    #[test]
    fn the_doubled_time_is_for_when_another_place_is_open() {
        let mut health = Health::default();
        assert_eq!((0..3).filter_map(|_| health.fail(Blame::Trouble, 0)).collect::<Vec<_>>(), [15 * S]);
        let mut now = 0;
        for lasts in [30, 60, 120, 240, 300, 300] {
            assert_eq!(health.enter(now + 15 * S - 1), None);
            now += 15 * S;
            assert!(health.enter(now).is_some(), "one goes there after 15 s");
            assert_eq!(health.again(now), now + 60 * S, "and no other while that finds out");
            assert_eq!(health.fail(Blame::Trouble, now), Some(now + lasts * S));
            assert_eq!(health.standing(now), Standing::Closed(now + lasts * S));
        }
        let lease = health.enter(now + 15 * S).unwrap();
        health.leave(lease);
        assert!(health.succeed(now + 15 * S), "answered well, it is open for all");
        for (blame, after) in [(Blame::Short(None), 10), (Blame::Short(Some(Duration::from_secs(40))), 40)] {
            let mut health = Health::default();
            let until = health.fail(blame, 0).unwrap();
            assert_eq!((health.again(0), until), (after * S, after * S));
        }
        let mut spent = Health::default();
        spent.fail(Blame::Spent(None), 0);
        assert_eq!(spent.again(0), 3_600 * S, "what is spent is left alone");
    }

    #[test]
    fn where_none_is_open_one_that_is_due_comes_first_and_then_one_that_serves_now_and_then() {
        let closed = |served: Nanos, at: Nanos| {
            let mut health = Health::default();
            health.succeed(served);
            (0..3).for_each(|_| assert!(health.fail(Blame::Trouble, at).is_none_or(|until| until > at)));
            health
        };
        let (dead, shaky) = (closed(S, 3 * S), closed(9 * S, 10 * S));
        assert!(shaky.rank(11 * S) < dead.rank(11 * S), "it has served two seconds ago");
        assert!(dead.rank(18 * S) < shaky.rank(18 * S), "its turn has come");
        assert!(dead.rank(26 * S) < shaky.rank(26 * S), "both are due: the one that was asked before");
        let (older, newer) = (closed(S, 34 * S), closed(2 * S, 35 * S));
        assert!(
            older.rank(36 * S) < newer.rank(36 * S),
            "long ago says nothing: the one that was asked before"
        );
        let mut spent = closed(10 * S, 10 * S);
        spent.fail(Blame::Spent(None), 10 * S);
        assert!(dead.rank(11 * S) < spent.rank(11 * S), "what is spent serves nobody");
    }

    #[test]
    fn a_quota_closes_it_for_as_long_as_it_says() {
        for (blame, lasts) in [
            (Blame::Short(Some(Duration::from_secs(37))), 37),
            (Blame::Short(None), 10),
            (Blame::Spent(None), 3_600),
            (Blame::Spent(Some(Duration::from_secs(7_200))), 7_200),
            (Blame::Spent(Some(Duration::from_secs(900_000))), 86_400),
        ] {
            assert_eq!(Health::default().fail(blame, 5 * S), Some((5 + lasts) * S), "{blame:?}");
        }
    }

    #[test]
    fn one_request_that_is_not_served_closes_nothing() {
        let mut health = Health::default();
        for _ in 0..9 {
            assert_eq!(health.fail(Blame::Unfit, 0), None);
            assert_eq!(health.fail(Blame::Unfit, 0), None);
            health.succeed(0);
        }
        assert_eq!((0..3).filter_map(|_| health.fail(Blame::Unfit, 0)).collect::<Vec<_>>(), [300 * S]);
    }

    #[test]
    fn what_was_under_way_neither_opens_it_nor_closes_it_for_longer() {
        let mut health = Health::default();
        assert_eq!((0..3).filter_map(|_| health.fail(Blame::Trouble, 10 * S)).collect::<Vec<_>>(), [25 * S]);
        assert_eq!(health.fail(Blame::Trouble, 12 * S), None);
        assert_eq!(health.standing(12 * S), Standing::Closed(25 * S));
        assert!(!health.succeed(9 * S));
        assert_eq!(health.standing(12 * S), Standing::Closed(25 * S));
        assert_eq!(health.fail(Blame::Spent(None), 12 * S), None);
        assert_eq!(health.standing(12 * S), Standing::Closed(3_612 * S), "a quota counts");
    }

    #[test]
    fn a_dropped_finder_leaves_the_next_one_in() {
        let mut health = Health::default();
        health.fail(Blame::Short(None), 0);
        let lease = health.enter(10 * S).unwrap();
        assert_eq!(health.enter(10 * S), None);
        health.leave(lease + 1);
        assert_eq!(health.enter(10 * S), None, "another one's lease");
        health.leave(lease);
        assert!(health.enter(11 * S).is_some());
        assert!(health.enter(71 * S).is_some(), "and so does one that hangs");
    }

    #[test]
    fn verdicts_are_blamed_on_the_place_or_on_nobody() {
        let verdict = |status: u16, body: &'static str| {
            let status = StatusCode::from_u16(status).unwrap();
            Verdict::from_parts(status, &HeaderMap::new(), Bytes::from_static(body.as_bytes()))
        };
        for (status, body, blame) in [
            (503, "", Some(Blame::Trouble)),
            (500, "", Some(Blame::Trouble)),
            (504, "", Some(Blame::Trouble)),
            (429, "", Some(Blame::Short(None))),
            (
                429,
                r#"{"error":{"message":"You exceeded your monthly spending cap."}}"#,
                Some(Blame::Spent(None)),
            ),
            (401, "", Some(Blame::Unfit)),
            (403, "", Some(Blame::Unfit)),
            (
                404,
                r#"{"error":{"status":"NOT_FOUND","message":"models/m is not found"}}"#,
                Some(Blame::Unfit),
            ),
            (
                400,
                r#"{"error":{"status":"FAILED_PRECONDITION","message":"User location is not supported for the API use."}}"#,
                Some(Blame::Unfit),
            ),
            (400, "", None),
            (200, r#"{"promptFeedback":{"blockReason":"SAFETY"}}"#, None),
            (501, "", None),
        ] {
            assert_eq!(Blame::of(&verdict(status, body), None, None), blame, "{status} {body}");
        }
        let ahead = Some(Duration::from_secs(9));
        for (kind, blame) in [
            (Kind::Unavailable, Some(Blame::Short(ahead))),
            (Kind::RateLimited, Some(Blame::Short(ahead))),
            (Kind::QuotaExhausted, Some(Blame::Spent(ahead))),
            (Kind::PermissionDenied, None),
        ] {
            let rejected = Rejected::new("open").with_kind(kind);
            assert_eq!(Blame::of(&Verdict::from_error(&rejected), Some(&rejected), ahead), blame, "{kind}");
        }
        let rejected = Rejected::new("maintenance");
        assert_eq!(Blame::of(&Verdict::from_error(&rejected), Some(&rejected), None), None);
    }

    fn blames() -> impl Strategy<Value = Blame> {
        let delay = || proptest::option::of((0..200_000_u64).prop_map(Duration::from_secs));
        prop_oneof![
            4 => Just(Blame::Trouble),
            1 => Just(Blame::Unfit),
            1 => delay().prop_map(Blame::Short),
            1 => delay().prop_map(Blame::Spent),
        ]
    }

    proptest! {
        /// Whatever happens, a place opens again within a day, lets one call find out, and is as new after a success.
        #[test]
        fn it_always_comes_back(
            steps in proptest::collection::vec((blames(), 0..400_u64, any::<bool>(), any::<bool>()), 0..200),
        ) {
            let (mut health, mut now) = (Health::default(), 0);
            for (blame, later, enters, leaves) in steps {
                now += later * S;
                let before = health.standing(now);
                if let Some(lease) = enters.then(|| health.enter(now)).flatten() {
                    prop_assert!(health.enter(now).is_none(), "one alone");
                    if leaves {
                        health.leave(lease);
                        prop_assert_eq!(health.standing(now), before);
                    }
                }
                if let Some(until) = health.fail(blame, now) {
                    prop_assert!(until > now && until <= now + nanos(MOST));
                    prop_assert_eq!(health.standing(now), Standing::Closed(until));
                    prop_assert!(health.enter(now).is_none());
                }
                if let Standing::Closed(until) = health.standing(now) {
                    prop_assert!(health.again(now) <= until.max(now + nanos(TRIAL)));
                    prop_assert!(until <= now + nanos(MOST));
                    prop_assert!(matches!(health.standing(until + nanos(TRIAL)), Standing::Open));
                }
            }
            health.succeed(now);
            prop_assert!(health.is_well());
        }
    }
}
