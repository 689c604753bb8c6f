use super::backfill::pick;
use super::*;
use crate::rate_limit::day::Day;
use crate::rate_limit::quota_state::Rules;
use crate::rate_limit::quota_update::QuotaUpdate;
use crate::request::limits::Limits;
use proptest::prelude::*;

const SPAN: Nanos = 60;
const DAY: Nanos = 1_000;

/// A scheduler whose waiters leave their number as their waker.
fn scheduler(limits: Limits) -> Scheduler<u32> {
    let rules = Rules { span: SPAN, margin: 1.0, learn: true, probe_every: 40, guard: 0 };
    let mut ledger = QuotaState::new(rules, limits, 0);
    ledger.set_day(0, Day { date: jiff::civil::date(2026, 11, 21), left: DAY });
    Scheduler::new(ledger, 1000, true, Patience { fetch: 4, tick: 0 })
}

fn of(tokens: u32) -> Cost {
    Cost::exact(tokens)
}

fn queued(scheduler: &mut Scheduler<u32>, now: Nanos, tokens: u32, deadline: Nanos) -> WaiterId {
    match scheduler.arrive(now, of(tokens), deadline) {
        Arrival::Queued(place, _) => place,
        other => panic!("{tokens} at {now}: {other:?}"),
    }
}

fn look(scheduler: &mut Scheduler<u32>, place: WaiterId, number: u32) -> Look {
    scheduler.look(place, || 0, |waker| *waker = Some(number))
}

#[test]
fn a_spent_day_is_waited_for_only_with_a_deadline_that_is_not_before_its_end() {
    let mut scheduler = scheduler(Limits::new().requests_per_day(1));
    assert!(scheduler.grant(0, of(1)).is_some());
    let refused = Arrival::Refused(Refusal {
        why: RateLimitReason::Spent,
        dimension: LimitKind::RequestsPerDay,
        until: Some(DAY),
        is_final: false,
    });
    assert_eq!(scheduler.arrive(1, of(1), NEVER), refused);
    assert_eq!(scheduler.arrive(1, of(1), DAY - 1), refused);
    queued(&mut scheduler, 1, 1, DAY);
}

#[test]
fn the_last_of_those_that_are_looked_at_passes_at_once() {
    let mut scheduler = scheduler(Limits::new().input_tokens_per_minute(100));
    assert!(scheduler.grant(0, of(60)).is_some());
    // The head leaves room for 20 beside it, which is too little for the next.
    queued(&mut scheduler, 10, 80, NEVER);
    for _ in 1..BACKFILL {
        queued(&mut scheduler, 10, 30, NEVER);
    }
    let last = queued(&mut scheduler, 10, 20, NEVER);
    assert!(matches!(look(&mut scheduler, last, 0), Look::Answered(Ok(_))));
    assert_eq!(scheduler.queued(), BACKFILL);
}

#[test]
fn when_one_of_those_that_are_looked_at_leaves_the_next_one_is() {
    let mut scheduler = scheduler(Limits::new().input_tokens_per_minute(100));
    assert!(scheduler.grant(0, of(60)).is_some());
    queued(&mut scheduler, 10, 80, NEVER);
    let large = [(); BACKFILL].map(|()| queued(&mut scheduler, 10, 30, NEVER));
    let small = queued(&mut scheduler, 10, 20, NEVER);
    assert_eq!(look(&mut scheduler, small, 0), Look::Driving(SPAN));
    scheduler.cancel(20, large[7]);
    assert!(matches!(look(&mut scheduler, small, 0), Look::Answered(Ok(_))));
}

#[test]
fn who_is_too_late_at_the_end_queues_only_if_it_may_pass_the_head() {
    let mut scheduler = scheduler(Limits::new().input_tokens_per_minute(100));
    assert!(scheduler.grant(0, of(60)).is_some());
    queued(&mut scheduler, 10, 80, NEVER);
    let late = scheduler.arrive(10, of(30), SPAN - 1);
    assert!(matches!(late, Arrival::Refused(Refusal { why: RateLimitReason::Deadline, .. })), "{late:?}");
    let small = queued(&mut scheduler, 10, 15, SPAN - 1);
    assert!(matches!(look(&mut scheduler, small, 0), Look::Answered(Ok(_))));
}

#[test]
fn before_a_closed_door_nobody_passes() {
    let mut scheduler = scheduler(Limits::new().input_tokens_per_minute(100));
    let mut refused = scheduler.grant(0, of(1)).expect("it fits");
    let lesson =
        QuotaUpdate { dimension: LimitKind::Other, limit: None, until: Some(40), spent: false, zero: false };
    scheduler.ledger.close_until(0, &mut refused, lesson);
    scheduler.settle(refused, Settlement::TooMany);
    queued(&mut scheduler, 10, 50, NEVER);
    queued(&mut scheduler, 10, 50, NEVER);
    let late = scheduler.arrive(10, of(20), 50);
    assert!(matches!(late, Arrival::Refused(Refusal { why: RateLimitReason::Deadline, .. })), "{late:?}");
}

#[test]
fn the_driver_is_woken_when_its_timer_is_set_too_late_and_only_then() {
    let mut scheduler = scheduler(Limits::new().input_tokens_per_minute(100));
    assert!(scheduler.grant(0, of(60)).is_some());
    let second = scheduler.grant(5, of(40)).expect("it fits");
    let head = queued(&mut scheduler, 10, 80, NEVER);
    assert_eq!(look(&mut scheduler, head, 0), Look::Driving(5 + SPAN));
    scheduler.advance(15);
    assert!(scheduler.take_woken().is_empty(), "nothing has changed");
    assert!(scheduler.settle(second, Settlement::Used { input_tokens: 20 }));
    scheduler.advance(20);
    assert_eq!(scheduler.take_woken(), [0]);
    assert_eq!(look(&mut scheduler, head, 0), Look::Driving(SPAN));
}

#[test]
fn one_that_fits_is_exchanged_for_the_one_that_fills_the_room_best() {
    assert_eq!(pick(&[50, 30, 70], 100), 0b110);
    assert_eq!(pick(&[50, 30, 60, 70, 71], 100), 0b1010);
    assert_eq!(pick(&[50, 50, 70], 100), 0b11, "it is full already");
}

#[test]
fn a_day_that_turns_out_spent_refuses_those_who_cannot_wait_for_the_next() {
    let mut scheduler = scheduler(Limits::new().requests_per_minute(1));
    let mut first = scheduler.grant(0, of(1)).expect("it fits");
    let [undated, early, late] =
        [NEVER, DAY - 1, DAY].map(|deadline| queued(&mut scheduler, 10, 1, deadline));
    let lesson = QuotaUpdate {
        dimension: LimitKind::RequestsPerDay,
        limit: None,
        until: Some(DAY),
        spent: true,
        zero: false,
    };
    scheduler.ledger.close_until(20, &mut first, lesson);
    scheduler.settle(first, Settlement::TooMany);
    scheduler.advance(20);
    let refusal = Refusal {
        why: RateLimitReason::Spent,
        dimension: LimitKind::RequestsPerDay,
        until: Some(DAY),
        is_final: false,
    };
    assert_eq!(look(&mut scheduler, undated, 0), Look::Answered(Err(refusal)));
    assert_eq!(look(&mut scheduler, early, 1), Look::Answered(Err(refusal)));
    assert!(matches!(look(&mut scheduler, late, 2), Look::Driving(_)));
}

#[test]
fn with_nobody_waiting_there_is_nothing_to_advance() {
    let mut scheduler = scheduler(Limits::new().requests_per_minute(2));
    let receipts = [(); 2].map(|()| scheduler.grant(0, of(1)).expect("it fits"));
    assert_eq!((scheduler.is_queued(), scheduler.next()), (false, None));
    let [first, second] = receipts;
    assert!(!scheduler.settle(first, Settlement::NotSent));
    assert!(scheduler.grant(1, of(1)).is_some());
    queued(&mut scheduler, 1, 1, NEVER);
    assert_eq!((scheduler.is_queued(), scheduler.next()), (true, Some(SPAN)));
    assert!(scheduler.settle(second, Settlement::NotSent));
}

#[test]
fn when_the_driver_leaves_another_one_is_woken_and_only_then() {
    let mut scheduler = scheduler(Limits::new().requests_per_minute(1));
    assert!(scheduler.grant(0, of(1)).is_some());
    let places = [(); 3].map(|()| queued(&mut scheduler, 10, 1, NEVER));
    assert_eq!(look(&mut scheduler, places[0], 0), Look::Driving(SPAN));
    assert!(matches!(look(&mut scheduler, places[1], 1), Look::Waiting(_)));
    assert!(matches!(look(&mut scheduler, places[2], 2), Look::Waiting(_)));
    assert!(scheduler.take_woken().is_empty());
    assert_eq!(scheduler.cancel(20, places[1]), Some(1));
    assert!(scheduler.take_woken().is_empty(), "the driver is still there");
    assert_eq!(scheduler.cancel(20, places[0]), Some(0));
    assert_eq!(scheduler.take_woken(), [2]);
    assert_eq!(look(&mut scheduler, places[2], 2), Look::Driving(SPAN));
}

#[test]
fn who_goes_first_and_is_not_polled_holds_nobody_up() {
    let mut scheduler = scheduler(Limits::new().requests_per_minute(1));
    assert!(scheduler.grant(0, of(1)).is_some());
    let other = queued(&mut scheduler, 10, 1, NEVER);
    assert_eq!(look(&mut scheduler, other, 0), Look::Driving(SPAN));
    let Arrival::Queued(first, _) = scheduler.arrive_first(20, of(1), NEVER) else {
        panic!("there is no room")
    };
    scheduler.watch(SPAN, other);
    // The turn is that of the first, until it has not come for it in time.
    assert_eq!(look(&mut scheduler, other, 0), Look::Driving(SPAN + 4));
    scheduler.watch(SPAN + 4, other);
    assert!(matches!(look(&mut scheduler, other, 0), Look::Answered(Ok(_))));
    assert!(!matches!(look(&mut scheduler, first, 1), Look::Answered(_)));
    scheduler.advance(2 * SPAN + 4);
    assert!(matches!(look(&mut scheduler, first, 1), Look::Answered(Ok(_))));
}

const SECOND: Nanos = 1_000_000_000;

/// One request was sent, and its 429 has taught a limit of one a minute, which is closed until then.
fn with_a_learnt_limit(until: Nanos) -> Scheduler<u32> {
    let rules = Rules { span: 61 * SECOND, margin: 1.0, learn: true, probe_every: 60 * SECOND, guard: 0 };
    let mut ledger = QuotaState::new(rules, Limits::new(), 0);
    ledger.set_day(0, Day { date: jiff::civil::date(2026, 11, 21), left: 3600 * SECOND });
    let mut scheduler: Scheduler<u32> =
        Scheduler::new(ledger, 1000, true, Patience { fetch: SECOND, tick: 0 });
    let mut refused = scheduler.grant(0, of(1)).expect("it fits");
    let dimension = LimitKind::RequestsPerMinute;
    let lesson = QuotaUpdate { dimension, limit: Some(1), until: None, spent: false, zero: false };
    scheduler.ledger.close_until(until, &mut refused, lesson);
    scheduler.settle(refused, Settlement::TooMany);
    scheduler
}

#[test]
fn a_trial_that_nobody_fetches_passes_on() {
    let mut scheduler = with_a_learnt_limit(0);
    let places = [(); 4].map(|()| queued(&mut scheduler, SECOND, 1, NEVER));
    let see = |scheduler: &mut Scheduler<u32>, now, place: WaiterId| {
        scheduler.look(place, || now, |waker| *waker = Some(0))
    };
    assert_eq!(see(&mut scheduler, SECOND, places[2]), Look::Driving(61 * SECOND));
    // One has its turn, and another one goes over the limit. Neither is polled.
    scheduler.watch(61 * SECOND, places[2]);
    assert_eq!(scheduler.queued(), 2);
    assert_eq!(see(&mut scheduler, 61 * SECOND, places[2]), Look::Driving(62 * SECOND));
    scheduler.watch(62 * SECOND, places[2]);
    let answers = [places[2], places[3]].map(|place| see(&mut scheduler, 62 * SECOND, place));
    let trials = answers.map(|answer| match answer {
        Look::Answered(Ok(receipt)) => receipt.trial.is_any(),
        other => panic!("{other:?}"),
    });
    assert_eq!(trials, [false, true]);
    for place in [places[0], places[1]] {
        assert!(
            !matches!(see(&mut scheduler, 62 * SECOND, place), Look::Answered(_)),
            "they have their places again"
        );
    }
}

#[test]
fn an_answer_of_a_slower_tier_is_no_sample() {
    let rules = Rules { span: 60 * SECOND, margin: 1.0, learn: true, probe_every: 60 * SECOND, guard: 0 };
    let mut ledger = QuotaState::new(rules, Limits::new().requests_per_minute(1), 0);
    ledger.set_day(0, Day { date: jiff::civil::date(2026, 11, 21), left: 36_000 * SECOND });
    let mut scheduler: Scheduler<u32> =
        Scheduler::new(ledger, 1000, true, Patience { fetch: SECOND, tick: 0 });
    for n in 0..40 {
        let (at, is_flex) = (n * 1_000 * SECOND, n % 2 == 1);
        let mut receipt = scheduler.grant(at, of(1)).expect("it fits");
        let place = queued(&mut scheduler, at, 1, NEVER);
        let took = if is_flex { 840 * SECOND } else { 2 * SECOND };
        scheduler.answered(at + took, &mut receipt, !is_flex);
        scheduler.settle(receipt, Settlement::Unknown);
        scheduler.cancel(at + took, place);
    }
    let slow = scheduler.latency.slow().expect("there were twenty samples");
    assert!(slow < std::time::Duration::from_secs(3), "{slow:?}");
}

// Answers take 20 s. A call that was refused where our own count had room tells of strangers.
#[test]
fn among_strangers_a_call_goes_to_who_is_likelier_than_not_to_be_answered() {
    let rules = Rules { span: 60 * SECOND, margin: 1.0, learn: true, probe_every: 60 * SECOND, guard: 0 };
    let mut ledger = QuotaState::new(rules, Limits::new(), 0);
    ledger.set_day(0, Day { date: jiff::civil::date(2026, 11, 21), left: 36_000 * SECOND });
    let mut scheduler: Scheduler<u32> =
        Scheduler::new(ledger, 1000, true, Patience { fetch: SECOND, tick: 0 });
    let refused = |scheduler: &mut Scheduler<u32>, now| {
        let Arrival::Granted(mut receipt) = scheduler.arrive(now, of(1), NEVER) else {
            panic!("nothing is learnt")
        };
        let (dimension, limit) = (LimitKind::RequestsPerMinute, Some(50));
        let lesson = QuotaUpdate { dimension, limit, until: None, spent: false, zero: false };
        scheduler.ledger.close_until(now, &mut receipt, lesson);
        scheduler.settle(receipt, Settlement::TooMany);
    };
    refused(&mut scheduler, 0);
    for n in 1..8 {
        let now = n * 30 * SECOND;
        let Arrival::Granted(mut receipt) = scheduler.arrive(now, of(1), NEVER) else {
            panic!("there is room")
        };
        scheduler.answered(now + 20 * SECOND, &mut receipt, true);
        scheduler.settle(receipt, Settlement::Unknown);
    }
    let now = 280 * SECOND;
    let mut arrive =
        |at: u64, left: u64| scheduler.arrive(now + at * SECOND, of(1), now + (at + left) * SECOND);
    assert!(matches!(arrive(0, 10), Arrival::Granted(_)), "nobody has more time");
    assert!(matches!(arrive(1, 60), Arrival::Granted(_)));
    assert!(matches!(arrive(2, 10), Arrival::Refused(Refusal { is_final: true, .. })), "others have");
    assert!(matches!(arrive(3, 30), Arrival::Granted(_)));
    assert!(matches!(arrive(70, 10), Arrival::Granted(_)), "that was a window ago");
    assert!(matches!(arrive(72, 60), Arrival::Granted(_)));
    assert!(matches!(arrive(900, 10), Arrival::Granted(_)), "the strangers are gone");
}

#[test]
fn a_grant_that_is_not_fetched_does_not_refuse_who_can_be_answered_in_time() {
    let rules = Rules { span: 60 * SECOND, margin: 1.0, learn: true, probe_every: 60 * SECOND, guard: 0 };
    let mut ledger = QuotaState::new(rules, Limits::new().requests_per_minute(1), 0);
    ledger.set_day(0, Day { date: jiff::civil::date(2026, 11, 21), left: 3600 * SECOND });
    let mut scheduler: Scheduler<u32> =
        Scheduler::new(ledger, 1000, true, Patience { fetch: SECOND, tick: 0 });
    let at = |minute: u64, second: u64| (60 * minute + second) * SECOND;
    // Answers take 20 s.
    for minute in 0..6 {
        let mut receipt = scheduler.grant(at(minute, 0), of(1)).expect("it fits");
        let place = queued(&mut scheduler, at(minute, 0), 1, NEVER);
        scheduler.answered(at(minute, 20), &mut receipt, true);
        scheduler.settle(receipt, Settlement::Unknown);
        scheduler.cancel(at(minute, 20), place);
    }
    let _last = scheduler.grant(at(6, 0), of(1)).expect("it fits");
    let hopeless = scheduler.arrive(at(6, 0), of(1), at(7, 10));
    assert!(matches!(hopeless, Arrival::Queued(..)), "alone it may try");
    let late = scheduler.arrive(at(6, 0), of(1), at(8, 10));
    assert!(matches!(late, Arrival::Refused(Refusal { is_final: true, .. })), "{late:?}");
    let Arrival::Queued(hopeless, _) = hopeless else { unreachable!() };
    scheduler.cancel(at(6, 0), hopeless);
    let other = queued(&mut scheduler, at(6, 0), 1, at(7, 30));
    let behind = queued(&mut scheduler, at(6, 0), 1, NEVER);
    // One goes before it and is not polled.
    assert!(matches!(scheduler.arrive_first(at(6, 10), of(1), NEVER), Arrival::Queued(..)));
    let look =
        |scheduler: &mut Scheduler<u32>, now, place| scheduler.look(place, || now, |waker| *waker = Some(0));
    assert_eq!(look(&mut scheduler, at(6, 10), other), Look::Driving(at(7, 0)));
    scheduler.watch(at(7, 0), other);
    // The next turn would be too late for it; but the grant before it passes on within a second.
    assert_eq!(look(&mut scheduler, at(7, 0), other), Look::Driving(at(7, 1)));
    scheduler.watch(at(7, 1), other);
    assert!(matches!(look(&mut scheduler, at(7, 1), other), Look::Answered(Ok(_))));
    assert!(matches!(look(&mut scheduler, at(7, 1), behind), Look::Driving(_)));
}

#[test]
fn who_looks_early_is_no_occasion_for_a_trial() {
    let mut scheduler = with_a_learnt_limit(10 * SECOND);
    // It goes before the limit may be tried, at 70 s, and within the time in which that says something.
    scheduler.advance(61 * SECOND);
    let _last = scheduler.grant(69 * SECOND, of(1)).expect("the window is empty");
    let [driver, other] = [(); 2].map(|()| queued(&mut scheduler, 69 * SECOND, 1, NEVER));
    let look =
        |scheduler: &mut Scheduler<u32>, now, place| scheduler.look(place, || now, |waker| *waker = Some(0));
    assert_eq!(look(&mut scheduler, 69 * SECOND, driver), Look::Driving(130 * SECOND));
    assert!(matches!(look(&mut scheduler, 69 * SECOND, other), Look::Waiting(_)));
    scheduler.watch(71 * SECOND, other);
    assert_eq!(scheduler.queued(), 2);
    scheduler.advance(71 * SECOND);
    assert_eq!(scheduler.queued(), 1, "there would have been one");
}

#[test]
fn who_goes_first_takes_back_what_nobody_has_fetched() {
    let mut scheduler = scheduler(Limits::new().requests_per_minute(2));
    let _both = [(); 2].map(|()| scheduler.grant(0, of(1)).expect("it fits"));
    let places = [(); 2].map(|()| queued(&mut scheduler, 10, 1, NEVER));
    scheduler.advance(SPAN);
    let other = queued(&mut scheduler, SPAN, 1, NEVER);
    assert!(matches!(look(&mut scheduler, other, 0), Look::Driving(_)));
    assert!(matches!(scheduler.arrive_first(SPAN + 4, of(1), NEVER), Arrival::Granted(_)));
    assert!(matches!(look(&mut scheduler, other, 0), Look::Answered(Ok(_))), "there was room for two");
    assert!(places.into_iter().all(|place| !matches!(look(&mut scheduler, place, 1), Look::Answered(_))));
}

/// One that waits, in a world where some are not polled.
struct Waits {
    place: WaiterId,
    deadline: Nanos,
    /// Its timer; `None` where it is not polled any more.
    timer: Option<Nanos>,
    /// It was woken, and not by its timer.
    woken: bool,
    answered: Option<Nanos>,
}

/// Every waiter that is polled has its turn at most one window after it would have had it if all had been polled.
fn starve(rpm: u64, arrivals: &[(Nanos, u8)]) -> Result<(), TestCaseError> {
    const MINUTE: Nanos = 60_000;
    let rules = Rules { span: MINUTE, margin: 1.0, learn: true, probe_every: 40, guard: 0 };
    let mut ledger = QuotaState::new(rules, Limits::new().requests_per_minute(rpm), 0);
    ledger.set_day(0, Day { date: jiff::civil::date(2026, 11, 21), left: NEVER / 2 });
    let mut scheduler: Scheduler<usize> =
        Scheduler::new(ledger, 1_000, true, Patience { fetch: 1_000, tick: 1 });
    let mut open: Vec<Receipt> = (0..rpm).map(|_| scheduler.grant(0, of(1)).expect("it fits")).collect();
    let mut all: Vec<Waits> = Vec::new();
    let (mut now, mut arrivals) = (1, arrivals.iter().peekable());
    for step in 0.. {
        prop_assert!(step < 5_000, "{step} steps for {} waiters", all.len());
        let wakes = all.iter().enumerate().filter_map(|(nth, one)| Some((one.timer?, nth))).min();
        let next = arrivals.peek().map(|one| now + one.0);
        if next.is_some_and(|at| wakes.is_none_or(|(timer, _)| at <= timer)) {
            let (after, kind) = *arrivals.next().expect("it was looked at");
            now += after;
            // Its turn is told to one that has no deadline.
            let turn = match scheduler.arrive(now, of(1), NEVER) {
                Arrival::Granted(receipt) => {
                    scheduler.settle(receipt, Settlement::NotSent);
                    now
                }
                Arrival::Queued(place, held) => {
                    scheduler.cancel(now, place);
                    // One more window: a turn may be missed where the driver and the watchers behind it are starved
                    // at once, since timers are not set anew when the queue moves up.
                    held.until + MINUTE
                }
                Arrival::Refused(refusal) => panic!("{refusal:?}"),
            };
            match scheduler.arrive(now, of(1), if kind == 0 { turn } else { NEVER }) {
                Arrival::Granted(receipt) => open.push(receipt),
                Arrival::Queued(place, _) => {
                    let mut waits =
                        Waits { place, deadline: turn, timer: None, woken: false, answered: None };
                    if kind == 0 {
                        (waits.timer, waits.woken) = (Some(now), true);
                    } else if kind == 1 {
                        // Polled once, and not again.
                        let look = scheduler.look(place, || now, |waker| *waker = Some(all.len()));
                        prop_assert!(!matches!(look, Look::Answered(_)), "there was no room");
                    }
                    all.push(waits);
                }
                Arrival::Refused(refusal) => prop_assert!(false, "{refusal:?}"),
            }
        } else if let Some((timer, nth)) = wakes {
            if timer > now {
                now = timer;
            }
            let place = all[nth].place;
            if !std::mem::take(&mut all[nth].woken) {
                scheduler.watch(now, place);
            }
            match scheduler.look(place, || now, |waker| *waker = Some(nth)) {
                Look::Answered(answer) => {
                    prop_assert!(answer.is_ok(), "{nth} at {now}: {answer:?}");
                    open.extend(answer);
                    prop_assert!(now <= all[nth].deadline, "{nth} at {now}, by {}", all[nth].deadline);
                    (all[nth].timer, all[nth].answered) = (None, Some(now));
                }
                Look::Waiting(at) | Look::Driving(at) => {
                    prop_assert!(at != NEVER, "{nth} at {now}");
                    all[nth].timer = Some(at.max(now));
                }
            }
        } else {
            break;
        }
        for woken in scheduler.take_woken() {
            // The timer stands for the wake-up as well. Who is not polled has none.
            if all[woken].timer.is_some() {
                (all[woken].timer, all[woken].woken) = (Some(now), true);
            }
        }
    }
    let answered: Vec<_> = all.iter().filter_map(|one| one.answered).collect();
    prop_assert!(answered.is_sorted(), "first come, first served: {answered:?}");
    for receipt in open {
        scheduler.settle(receipt, Settlement::Unknown);
    }
    for one in all.iter().filter(|one| one.answered.is_none()) {
        scheduler.cancel(now, one.place);
    }
    let counts = scheduler.ledger.counts();
    prop_assert_eq!((scheduler.places(), scheduler.queued()), (0, 0));
    prop_assert_eq!(counts.admitted, counts.settled + counts.not_sent);
    Ok(())
}

proptest! {
    #[test]
    fn who_is_polled_has_its_turn_whoever_is_not(
        rpm in 1..5_u64, arrivals in proptest::collection::vec((0..20_000_u64, 0..3_u8), 1..60),
    ) {
        starve(rpm, &arrivals)?;
    }

    #[test]
    fn what_is_picked_fits_and_fills_at_least_as_much_as_the_first_that_fit(
        sizes in proptest::collection::vec(0..1000_u64, 0..80), room in 0..9000_u64,
    ) {
        let picked = pick(&sizes, room);
        let sizes = &sizes[..sizes.len().min(BACKFILL)];
        let is_picked = |nth: &usize| picked >> nth & 1 == 1;
        let sum: u64 = (0..sizes.len()).filter(is_picked).map(|nth| sizes[nth]).sum();
        let (mut first, mut count) = (0, 0);
        for size in sizes {
            if first + size <= room {
                (first, count) = (first + size, count + 1);
            }
        }
        prop_assert!((first..=room).contains(&sum));
        prop_assert_eq!(picked.count_ones(), count, "an exchange is one for one");
    }
}
