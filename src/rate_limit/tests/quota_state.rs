use super::*;
use crate::rate_limit::day::Day;
use crate::rate_limit::estimate::Trust;

const SPAN: Nanos = 60;
const DAY: Nanos = 1_000;

fn ledger(limits: Limits) -> QuotaState {
    let rules = Rules { span: SPAN, margin: 1.0, learn: true, probe_every: 40, guard: 0 };
    let mut ledger = QuotaState::new(rules, limits, 0);
    ledger.set_day(0, Day { date: jiff::civil::date(2026, 11, 21), left: DAY });
    ledger
}

fn exact(tokens: u32) -> Cost {
    Cost::exact(tokens)
}

fn grant(ledger: &mut QuotaState, now: Nanos, cost: Cost) -> Receipt {
    match ledger.admit(now, cost) {
        Admission::Granted(receipt) => receipt,
        other => panic!("{cost:?} at {now}: {other:?}"),
    }
}

fn closing(until: Option<Nanos>) -> QuotaUpdate {
    QuotaUpdate { dimension: LimitKind::Other, limit: None, until, spent: false, zero: false }
}

/// A door that a 429 has closed at 0, until then.
fn closed(limits: Limits, until: Option<Nanos>) -> QuotaState {
    let mut ledger = ledger(limits);
    let mut refused = grant(&mut ledger, 0, exact(1));
    ledger.close_until(0, &mut refused, closing(until));
    ledger.settle(refused, Settlement::TooMany);
    ledger
}

#[test]
fn a_request_without_tokens_that_was_not_sent_gives_its_place_back() {
    let mut ledger = ledger(Limits::new().requests_per_minute(1));
    let receipt = grant(&mut ledger, 0, Cost::FREE);
    assert!(ledger.settle(receipt, Settlement::NotSent));
    let _again = grant(&mut ledger, 0, Cost::FREE);
}

#[test]
fn who_waits_is_asked_again_only_when_something_came_free() {
    for (charged, how, frees) in [
        (0, Settlement::NotSent, true),
        (0, Settlement::Unknown, false),
        (0, Settlement::Refused, false),
        (0, Settlement::TooMany, true),
        (5, Settlement::Unknown, false),
        (5, Settlement::Refused, true),
        (5, Settlement::Used { input_tokens: 5 }, false),
        (5, Settlement::Used { input_tokens: 4 }, true),
    ] {
        let mut ledger = ledger(Limits::new().requests_per_day(9));
        let receipt = grant(&mut ledger, 0, exact(charged));
        assert_eq!(ledger.settle(receipt, how), frees, "{charged} {how:?}");
    }
}

#[test]
fn a_wait_names_the_dimension_that_is_over() {
    for (limits, dimension) in [
        (Limits::new().requests_per_minute(1), LimitKind::RequestsPerMinute),
        (Limits::new().input_tokens_per_minute(5), LimitKind::InputTokensPerMinute),
        (Limits::new().requests_per_minute(1).input_tokens_per_minute(5), LimitKind::InputTokensPerMinute),
        (Limits::new().requests_per_minute(1).input_tokens_per_minute(50), LimitKind::RequestsPerMinute),
    ] {
        let mut ledger = ledger(limits);
        let _receipt = grant(&mut ledger, 0, exact(5));
        assert_eq!(ledger.admit(7, exact(5)), Admission::Wait { until: SPAN, dimension, spent: None });
    }
}

#[test]
fn a_day_whose_limit_is_lowered_below_its_count_is_spent() {
    let mut ledger = ledger(Limits::new().requests_per_day(9));
    let _receipts = [(); 3].map(|()| grant(&mut ledger, 0, exact(1)));
    ledger.configure(Limits::new().requests_per_day(2));
    let spent = Some(Spent { reset: Some(DAY) });
    let waits = Admission::Wait { until: DAY, dimension: LimitKind::RequestsPerDay, spent };
    assert_eq!(ledger.admit(0, exact(1)), waits);
}

#[test]
fn a_forecast_counts_those_ahead_window_by_window() {
    let mut by_requests = ledger(Limits::new().requests_per_minute(3));
    for now in [0, 10, 20] {
        let receipt = grant(&mut by_requests, now, exact(1));
        by_requests.settle(receipt, Settlement::Unknown);
    }
    for (ahead, at) in [(0, 60), (1, 70), (2, 80), (3, 120), (4, 130), (7, 190)] {
        let forecast = by_requests.forecast(30, (ahead, 0), exact(1)).expect("it is not too large");
        assert_eq!((forecast.at, forecast.dimension), (at, LimitKind::RequestsPerMinute), "{ahead} ahead");
    }
    let mut by_tokens = ledger(Limits::new().input_tokens_per_minute(30));
    for now in [0, 10, 20] {
        let receipt = grant(&mut by_tokens, now, exact(10));
        by_tokens.settle(receipt, Settlement::Unknown);
    }
    for (ahead, tokens, at) in [(0, 10, 60), (0, 11, 70), (10, 11, 80), (30, 1, 120), (30, 30, 140)] {
        let forecast = by_tokens.forecast(30, (1, ahead), exact(tokens)).expect("it is not too large");
        assert_eq!(
            (forecast.at, forecast.dimension),
            (at, LimitKind::InputTokensPerMinute),
            "{ahead} {tokens}"
        );
    }
}

#[test]
fn nobody_takes_the_days_last_request_from_the_head() {
    let mut ledger = ledger(Limits::new().input_tokens_per_minute(100).requests_per_day(2));
    let receipt = grant(&mut ledger, 0, exact(60));
    ledger.settle(receipt, Settlement::Unknown);
    ledger.look(10);
    assert_eq!(ledger.room_before(exact(80)), None);
    ledger.configure(Limits::new().input_tokens_per_minute(100).requests_per_day(3));
    assert_eq!(ledger.room_before(exact(80)), Some(20));
}

#[test]
fn room_is_what_the_head_leaves_when_its_requests_are_free_as_well() {
    let mut ledger = ledger(Limits::new());
    for now in [0, 1, 1, 1, 1, 1] {
        let receipt = grant(&mut ledger, now, exact(10));
        ledger.settle(receipt, Settlement::Unknown);
    }
    ledger.configure(Limits::new().requests_per_minute(5).input_tokens_per_minute(100));
    ledger.look(10);
    // The first entry's tokens are enough for the head, its request is not; the second brings five.
    assert_eq!(ledger.room_before(exact(45)), Some(55));
}

#[test]
fn it_is_idle_when_forgetting_it_loses_nothing() {
    let mut ledger = ledger(Limits::new());
    assert!(ledger.is_idle(0));
    let receipt = grant(&mut ledger, 0, exact(1));
    assert!(!ledger.is_idle(SPAN), "a call is under way");
    ledger.settle(receipt, Settlement::Unknown);
    assert_eq!([SPAN - 1, SPAN].map(|now| ledger.is_idle(now)), [false, true]);

    assert_eq!([499, 500].map(|now| closed(Limits::new(), Some(500)).is_idle(now)), [false, true]);

    let mut daily = self::ledger(Limits::new().requests_per_day(9));
    assert!(daily.is_idle(0), "nothing is counted yet");
    let receipt = grant(&mut daily, 0, exact(1));
    daily.settle(receipt, Settlement::Unknown);
    assert_eq!([SPAN, DAY - 1, DAY].map(|now| daily.is_idle(now)), [false, false, true]);
}

#[test]
fn an_estimate_is_refused_only_if_it_is_too_large_at_the_least() {
    let admit = |tokens, trust| {
        ledger(Limits::new().input_tokens_per_minute(200)).admit(0, Cost { tokens, trust, ..Cost::FREE })
    };
    for (tokens, trust) in [(300, Trust::Estimate), (301, Trust::Guess), (4_000_000, Trust::Guess)] {
        let Admission::Granted(receipt) = admit(tokens, trust) else { panic!("{tokens} {trust:?}") };
        assert_eq!((receipt.charged, receipt.raw), (200, tokens));
    }
    for (tokens, trust) in [(302, Trust::Estimate), (201, Trust::Exact)] {
        assert_eq!(
            admit(tokens, trust),
            Admission::TooLarge(LimitKind::InputTokensPerMinute),
            "{tokens} {trust:?}"
        );
    }
}

#[test]
fn a_probe_goes_from_its_instant_on() {
    let mut ledger = closed(Limits::new(), Some(100));
    let waits = Admission::Wait { until: 40, dimension: LimitKind::Other, spent: None };
    assert_eq!(ledger.admit(39, exact(1)), waits);
    assert!(grant(&mut ledger, 40, exact(1)).is_probe());
    let waits = Admission::Wait { until: 80, dimension: LimitKind::Other, spent: None };
    assert_eq!(ledger.admit(40, exact(1)), waits, "one at a time");
}

#[test]
fn a_door_is_closed_until_its_instant() {
    let ledger = closed(Limits::new(), Some(100));
    let seen = |now| ledger.closed(now).map(|(dimension, door)| (dimension, door.until)).collect::<Vec<_>>();
    assert_eq!(seen(7), [(LimitKind::Other, 100)]);
    assert_eq!(seen(99), [(LimitKind::Other, 100)]);
    assert_eq!(seen(100), []);
}

#[test]
fn a_limit_of_zero_is_not_learnt() {
    let mut ledger = ledger(Limits::new().requests_per_minute(5));
    let mut receipt = grant(&mut ledger, 0, exact(1));
    let lesson = QuotaUpdate { dimension: LimitKind::RequestsPerMinute, limit: Some(0), ..closing(None) };
    ledger.close_until(0, &mut receipt, lesson);
    assert_eq!(ledger.limits(), Limits::new().requests_per_minute(5));
}

#[test]
fn a_spent_day_is_told_until_a_probe_is_due() {
    let mut ledger = ledger(Limits::new().requests_per_day(1));
    assert_eq!(ledger.spent(0), None);
    let receipt = grant(&mut ledger, 0, exact(1));
    ledger.settle(receipt, Settlement::Unknown);
    let spent = Spent { reset: Some(DAY) };
    assert_eq!(ledger.spent(1), Some((LimitKind::RequestsPerDay, spent)));
    assert_eq!(closed(Limits::new(), Some(100)).spent(1), None, "it clears while one waits");
}

#[test]
fn after_a_429_that_nothing_explains_calls_go_in_batches_that_double() {
    const SECOND: Nanos = 1_000_000_000;
    let rules = Rules { span: 60 * SECOND, margin: 1.0, learn: true, probe_every: 300 * SECOND, guard: 0 };
    let mut ledger = QuotaState::new(rules, Limits::new(), 0);
    ledger.set_day(0, Day { date: jiff::civil::date(2026, 11, 21), left: 3600 * SECOND });
    let mut refused = grant(&mut ledger, 0, exact(1));
    // It took a quarter of a second, so whoever was not refused in half a second was admitted.
    ledger.close_until(SECOND / 4, &mut refused, closing(Some(30 * SECOND)));
    ledger.settle(refused, Settlement::TooMany);
    assert!(ledger.is_attentive());
    let opens = 30 * SECOND;
    let waits = |until| Admission::Wait { until, dimension: LimitKind::Other, spent: None };
    let mut now = opens;
    for size in [1, 2, 4, 8, 16, 32] {
        for _ in 0..size {
            let receipt = grant(&mut ledger, now, exact(1));
            assert!(!receipt.is_probe(), "the door is open again");
        }
        let decided = now + SECOND / 2;
        assert_eq!(ledger.admit(now, exact(1)), waits(decided), "{size}: nobody waits for longer than that");
        assert_eq!(ledger.admit(decided - 1, exact(1)), waits(decided), "{size}");
        now = decided;
    }
    // An answer decides its call before that, and lets one more go; the 64th of this batch is the first of the next.
    let mut first = grant(&mut ledger, now, exact(1));
    (1..64).for_each(|_| drop(grant(&mut ledger, now, exact(1))));
    ledger.answered(now + 1, &mut first);
    let _two = [(); 2].map(|()| grant(&mut ledger, now + 1, exact(1)));
    assert_eq!(ledger.admit(now + 1, exact(1)), waits(now + 1 + SECOND / 2));
    ledger.settle(first, Settlement::Unknown);
    assert_eq!(ledger.admit(now + 1, exact(1)), waits(now + 1 + SECOND / 2), "it was answered before");
    let _later = grant(&mut ledger, opens + 60 * SECOND, exact(1));
    assert!(!ledger.is_attentive(), "it is over");
    assert!(!self::ledger(Limits::new()).is_attentive());
}

#[test]
fn the_calendar_is_looked_at_when_it_is_due() {
    let mut ledger = ledger(Limits::new());
    assert_eq!([DAY - 1, DAY].map(|now| ledger.is_day_due(now)), [false, true]);
    let minute = 60 * 1_000_000_000;
    ledger.set_day(5, Day { date: jiff::civil::date(2026, 11, 21), left: 2 * minute });
    assert_eq!([4 + minute, 5 + minute].map(|now| ledger.is_day_due(now)), [false, true]);
}

#[test]
fn a_call_that_strangers_had_refused_counts_against_a_configured_limit_only() {
    for (limits, counted) in [(Limits::new(), 0), (Limits::new().requests_per_minute(5), 1)] {
        let mut ledger = ledger(limits);
        let mut refused = grant(&mut ledger, 0, exact(1));
        let dimension = LimitKind::RequestsPerMinute;
        let lesson = QuotaUpdate { dimension, limit: Some(4), until: Some(10), spent: false, zero: false };
        ledger.close_until(1, &mut refused, lesson);
        ledger.settle(refused, Settlement::TooMany);
        assert_eq!(ledger.window.requests(), counted, "{limits:?}");
    }
}
