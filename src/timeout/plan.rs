//! When an attempt is cut, and what the server is told of it. Pure: instants and numbers in, decisions out.

use std::time::Duration;

use tokio::time::Instant;

use super::Phase;
use super::config::Settings;
use crate::error::timed_out::Fault;
use crate::retry::Upload;
use crate::time::saturating_add;

/// Below this Google turns the call away: "Manually set deadline 5s is too short. Minimum allowed deadline is 10s."
/// (a 400, seen in livekit/agents issue 3723, read 2026-11.)
const LEAST_SERVER_TIMEOUT: u64 = 10;

/// Nanoseconds; [`NEVER`] is no limit. The longest setting, a day, fits thousands of times.
type Nanos = u64;

const NEVER: Nanos = Nanos::MAX;

/// One limit of one attempt, when somebody has to wait for it.
#[derive(Clone, Copy, Debug, PartialEq)]
pub(super) struct Cut {
    pub(super) at: Instant,
    pub(super) what: Phase,
    /// After the call; of a pause, how long it lasted.
    pub(super) after: Duration,
}

/// The limits of one attempt.
///
/// In nanoseconds after the call, because most answers are here before anybody has to know when that would be: what
/// every call pays for is a comparison, and the few bytes that are moved with its future.
#[derive(Clone, Copy, Debug, PartialEq)]
pub(super) struct Plan {
    /// By when the head must be here: the earliest of three.
    head: Nanos,
    /// Which of the three that is.
    what: Phase,
    /// How long the server must have had the whole request before its silence is the server's: half of the earlier of
    /// this layer's own limits, not grown. [`NEVER`] where there are none.
    fair: Nanos,
    pub(super) rest: Rest,
}

/// The limits of its body.
#[derive(Clone, Copy, Debug, PartialEq)]
pub(super) struct Rest {
    /// When the call was made. `None` where nothing counts from there, which spares a look at the clock.
    start: Option<Instant>,
    /// By when the body must be over.
    total: Nanos,
    idle: Nanos,
}

impl Plan {
    /// Of an attempt that nothing ends.
    pub(super) const NONE: Self = {
        let rest = Rest { start: None, total: NEVER, idle: NEVER };
        Self { head: NEVER, what: Phase::FirstByte, fair: NEVER, rest }
    };

    /// Of an attempt that only its pauses end.
    pub(super) const fn pauses_only(settings: &Settings) -> Self {
        let rest = Rest { start: None, total: NEVER, idle: nanos_of(settings.idle) };
        Self { head: NEVER, what: Phase::FirstByte, fair: NEVER, rest }
    }

    /// Of an attempt that begins `now`, after so many others that took too long.
    #[inline]
    pub(super) fn new(settings: &Settings, now: Instant, deadline: Option<Instant>, earlier: u32) -> Self {
        let left = deadline.map(|at| at.saturating_duration_since(now));
        let first_byte = nanos_of(settings.first_byte_after(earlier, left));
        let total = nanos_of(settings.total);
        // Of those that fall together the first counts: no other setting helps where the deadline is the limit.
        let mut head = nanos_of(left);
        let mut what = Phase::Deadline;
        for (limit, phase) in [(first_byte, Phase::FirstByte), (total, Phase::Total)] {
            if limit < head {
                (head, what) = (limit, phase);
            }
        }
        let own = nanos_of(settings.first_byte).min(total);
        let fair = if own == NEVER { NEVER } else { own / 2 };
        Self { head, what, fair, rest: Rest { start: Some(now), total, idle: nanos_of(settings.idle) } }
    }

    /// When the head is late.
    pub(super) fn head(&self) -> Option<Cut> {
        self.rest.cut(self.head, self.what)
    }

    /// When a timer is due that is to serve head and body: no later than the head, and than a pause which begins with it.
    pub(super) fn first_look(&self) -> Option<Instant> {
        self.rest.cut(self.head.min(self.rest.idle), self.what).map(|cut| cut.at)
    }

    /// Whose doing it is that the head did not come before this cut, where the caller has come so far with sending the
    /// request's body.
    pub(super) fn fault(&self, cut: Cut, upload: Upload, whole_since: Option<Instant>) -> Fault {
        match upload {
            Upload::Awaited | Upload::Failed => Fault::Upload,
            // One that is idle was not asked for more: the server does not read.
            Upload::Whole | Upload::Idle => {
                let had = whole_since.map_or(cut.after, |since| cut.at.saturating_duration_since(since));
                if nanos(had) < self.fair { Fault::Deadline } else { Fault::Server }
            }
        }
    }

    /// Whole seconds for the server, rounded up.
    ///
    /// The server's limit spans its whole answer. For a method that answers in one piece that is the head. A stream
    /// may go on long after its first byte, and after the deadline: for it there is `total` alone.
    #[inline]
    pub(super) fn server_timeout(&self, streaming: bool) -> Option<u64> {
        let after = if streaming { self.rest.total } else { self.head };
        (after != NEVER).then(|| after.div_ceil(1_000_000_000).max(LEAST_SERVER_TIMEOUT))
    }
}

impl Rest {
    /// Whether nothing limits the body.
    #[inline]
    pub(super) const fn is_empty(&self) -> bool {
        self.total == NEVER && self.idle == NEVER
    }

    /// When the body is late, however it goes on.
    #[inline]
    pub(super) fn total(&self) -> Option<Cut> {
        self.cut(self.total, Phase::Total)
    }

    /// How long the body may pause.
    pub(super) fn idle(&self) -> Option<Duration> {
        (self.idle != NEVER).then(|| Duration::from_nanos(self.idle))
    }

    fn cut(&self, after: Nanos, what: Phase) -> Option<Cut> {
        let start = self.start.filter(|_| after != NEVER)?;
        let after = Duration::from_nanos(after);
        Some(Cut { at: saturating_add(start, after), what, after })
    }
}

#[inline]
const fn nanos_of(limit: Option<Duration>) -> Nanos {
    match limit {
        Some(limit) => nanos(limit),
        None => NEVER,
    }
}

/// What overflows is a limit of five hundred years, which is none.
#[inline]
const fn nanos(duration: Duration) -> Nanos {
    duration.as_secs().saturating_mul(1_000_000_000).saturating_add(duration.subsec_nanos() as u64)
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn settings(first_byte: Option<u64>, total: Option<u64>) -> Settings {
        Settings {
            first_byte: first_byte.map(Duration::from_millis),
            total: total.map(Duration::from_millis),
            ..Settings::default()
        }
    }

    proptest! {
        #[test]
        fn the_head_is_due_at_the_earliest_limit_and_the_error_names_that_one(
            first_byte in proptest::option::of(1_u64..400_000),
            total in proptest::option::of(1_u64..400_000),
            // Even, for its half.
            deadline in proptest::option::of((1_u64..200_000).prop_map(|ms| 2 * ms)),
            earlier in 0_u32..3,
            streaming: bool,
        ) {
            let now = crate::time::now();
            let at = deadline.map(|ms| now + Duration::from_millis(ms));
            let plan = Plan::new(&settings(first_byte, total), now, at, earlier);
            let half = deadline.map_or(u64::MAX, |left| left / 2);
            let grown = first_byte.map(|ms| (ms << earlier).min(ms.max(half.min(600_000))));
            let earliest = [deadline, grown, total].into_iter().flatten().min();
            prop_assert_eq!(plan.head().map(|cut| (cut.at - now).as_millis() as u64), earliest);
            if let Some(cut) = plan.head() {
                let named = match cut.what {
                    Phase::Deadline => deadline,
                    Phase::FirstByte => grown,
                    _ => total,
                };
                prop_assert_eq!(named, earliest);
                prop_assert_eq!(now + cut.after, cut.at);
            }
            let told = plan.server_timeout(streaming);
            let limit = if streaming { total } else { earliest };
            prop_assert_eq!(told, limit.map(|ms| ms.div_ceil(1000).max(10)));
        }
    }

    #[test]
    fn the_server_is_to_blame_once_it_had_the_request_for_half_of_the_limit() {
        let now = crate::time::now();
        let at = |ms: u64| now + Duration::from_millis(ms);
        let fault = |first_byte, total, deadline: Option<u64>, earlier, upload, whole: Option<u64>| {
            let plan = Plan::new(&settings(first_byte, total), now, deadline.map(at), earlier);
            plan.fault(plan.head().unwrap(), upload, whole.map(at))
        };
        use Upload::*;
        for (first_byte, total, deadline, whole, expected) in [
            (Some(100), None, None, None, Fault::Server),
            // The caller's deadline is judged by what it leaves.
            (Some(100), None, Some(100), None, Fault::Server),
            (Some(100), None, Some(50), None, Fault::Server),
            (Some(100), None, Some(49), None, Fault::Deadline),
            (Some(100), Some(60), Some(30), None, Fault::Server),
            (Some(100), Some(60), Some(29), None, Fault::Deadline),
            (None, None, Some(100_000), None, Fault::Deadline),
            // And so is an upload that has taken its time.
            (Some(100), None, None, Some(50), Fault::Server),
            (Some(100), None, None, Some(51), Fault::Deadline),
            (Some(100), None, Some(80), Some(31), Fault::Deadline),
        ] {
            for upload in [Whole, Idle] {
                assert_eq!(fault(first_byte, total, deadline, 0, upload, whole), expected, "{deadline:?}");
            }
            for upload in [Awaited, Failed] {
                assert_eq!(fault(first_byte, total, deadline, 0, upload, None), Fault::Upload);
            }
        }
        // A limit that has grown asks for no more than it did.
        assert_eq!(fault(Some(100), None, Some(60), 3, Whole, None), Fault::Server);
    }

    #[test]
    fn what_is_not_limited_is_not_measured() {
        let plan = |settings: &Settings| Plan::new(settings, crate::time::now(), None, 0);
        let none = Settings { idle: None, ..settings(None, None) };
        assert!(plan(&none).rest.is_empty() && !none.count_from_the_call());
        for some in [settings(None, None), Settings { idle: None, ..settings(None, Some(5)) }] {
            assert!(!plan(&some).rest.is_empty());
        }
        assert!(settings(Some(5), None).count_from_the_call());
        assert!(settings(None, Some(5)).count_from_the_call());
    }

    #[test]
    fn each_earlier_timeout_doubles_the_first_byte_up_to_the_longest() {
        let of = |first_byte: u64, earlier| settings(Some(first_byte), None).first_byte_after(earlier, None);
        let limits = [0, 1, 2, 3, u32::MAX].map(|earlier| of(120_000, earlier).unwrap().as_secs());
        assert_eq!(limits, [120, 240, 480, 600, 600]);
        assert_eq!(of(900_000, 1), Some(Duration::from_secs(900)), "longer than the longest: it stays");
        let within = |left: u64, earlier| {
            let left = Some(Duration::from_secs(left));
            settings(Some(20_000), None).first_byte_after(earlier, left).unwrap().as_secs()
        };
        assert_eq!(
            [(60, 0), (100, 1), (60, 1), (39, 1), (18, 2)].map(|(left, n)| within(left, n)),
            [20, 40, 30, 20, 20]
        );
    }
}
