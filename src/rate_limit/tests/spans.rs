use std::sync::Arc;
use std::time::Duration;

use proptest::prelude::*;

use super::*;
use crate::rate_limit::estimate::{Trust, Units};
use crate::rate_limit::prices::{Price, Prices};

const SPAN: Nanos = 600;

fn limits(unit: Unit, limit: u64) -> Limits {
    Limits::new().per(unit, limit, Duration::from_nanos(SPAN))
}

fn spans(limits: &Limits) -> Spans {
    let prices = Prices::read_on("2026-11-29").model("m", Price::per_million(1.0, 10.0)).output_tokens(5);
    *Spans::new(limits, 0, Some(Purse::new(Arc::new(prices), Some("m".into())))).expect("there is a limit")
}

fn texts(texts: u8) -> Cost {
    Cost { units: Units { texts, ..Units::default() }, ..Cost::FREE }
}

/// Charges what must fit.
fn charge(spans: &mut Spans, now: Nanos, cost: Cost) -> u32 {
    spans.expire(now);
    assert_eq!(spans.check(cost, cost.tokens), Ok(()), "{cost:?} at {now}");
    spans.charge(now, cost, cost.tokens)
}

fn used(spans: &Spans) -> Vec<u64> {
    spans.states().map(|state| state.used).collect()
}

fn until(spans: &Spans, cost: Cost) -> Option<Nanos> {
    match spans.check(cost, cost.tokens) {
        Ok(()) => None,
        Err(Full::Until { at, .. }) => Some(at),
        Err(Full::TooLarge(dimension)) => panic!("too large for {dimension}"),
    }
}

#[test]
fn each_text_counts_and_more_than_the_limit_is_refused() {
    let mut spans = spans(&limits(Unit::Texts, 100));
    charge(&mut spans, 0, texts(60));
    charge(&mut spans, 10, texts(40));
    assert_eq!(until(&spans, texts(1)), Some(SPAN));
    assert_eq!(until(&spans, texts(61)), Some(SPAN + 10));
    assert_eq!(until(&spans, texts(0)), None, "what embeds nothing is not held back");
    assert_eq!(spans.check(texts(101), 0), Err(Full::TooLarge(LimitKind::Texts)));
    let guess = Cost { units: Units::new(101, 0, ServiceTier::Standard, true), ..Cost::FREE };
    assert_eq!(until(&spans, guess), Some(SPAN + 10), "a guess is held to the limit");
}

#[test]
fn a_call_is_charged_to_all_windows_or_to_none() {
    let both = limits(Unit::Requests, 2).per(Unit::InputTokens, 100, Duration::from_nanos(50));
    let mut spans = spans(&both);
    charge(&mut spans, 0, Cost::exact(80));
    assert_eq!(
        spans.check(Cost::exact(30), 30).map_err(|full| matches!(full, Full::Until { at: 50, .. })),
        Err(true)
    );
    assert_eq!(used(&spans), [1, 80]);
    charge(&mut spans, 50, Cost::exact(30));
    assert_eq!((used(&spans), until(&spans, Cost::FREE)), (vec![2, 30], Some(SPAN)));
}

#[test]
fn money_is_reserved_by_the_estimate_and_settled_by_the_bill() {
    let mut spans = spans(&limits(Unit::Money, 1_000));
    // 100 tokens of input at 1 and five of output at 10.
    let call = charge(&mut spans, 0, Cost::exact(100));
    assert_eq!(used(&spans), [150]);
    let usage = Usage { input_tokens: 90, output_tokens: 20, thought_tokens: 10, ..Usage::default() };
    spans.bill(call, &usage, None, None);
    assert!(!spans.settle(0, call, Settlement::Used { input_tokens: 90 }), "it took more than was reserved");
    assert_eq!(used(&spans), [90 + 300]);
    // Output is expected to be as large from now on, and half as much again.
    let next = charge(&mut spans, 1, Cost::exact(100));
    assert_eq!(used(&spans), [390 + 100 + 450]);
    assert_eq!(until(&spans, Cost::exact(100)), Some(SPAN + 1));
    assert!(spans.settle(0, next, Settlement::TooMany));
    assert_eq!((used(&spans), spans.under_way()), (vec![390], 0));
}

#[test]
fn each_end_keeps_what_the_server_counts() {
    let all = limits(Unit::Requests, 1_000)
        .per(Unit::InputTokens, 1_000, Duration::from_nanos(SPAN))
        .per(Unit::Images, 1_000, Duration::from_nanos(SPAN))
        .per(Unit::Texts, 1_000, Duration::from_nanos(SPAN))
        .per(Unit::Money, 1_000, Duration::from_nanos(SPAN));
    let cost = Cost { units: Units { texts: 3, images: 4, ..Units::default() }, ..Cost::exact(50) };
    for (how, kept) in [
        (Settlement::NotSent, [0, 0, 0, 0, 0]),
        (Settlement::Unknown, [1, 50, 4, 3, 50]),
        (Settlement::Used { input_tokens: 40 }, [1, 40, 4, 3, 50]),
        (Settlement::Refused, [1, 0, 0, 0, 0]),
        (Settlement::TooMany, [1, 0, 0, 3, 0]),
    ] {
        let mut spans = spans(&all);
        let call = charge(&mut spans, 0, cost);
        assert_eq!(spans.settle(0, call, how), kept.iter().sum::<u64>() < 108, "{how:?}");
        assert_eq!((used(&spans), spans.under_way()), (kept.to_vec(), 0), "{how:?}");
        assert!(!spans.settle(0, call, Settlement::NotSent), "it is settled once");
    }
}

#[test]
fn a_changed_limit_keeps_the_counts_of_its_unit_and_span() {
    let mut spans = spans(&limits(Unit::Requests, 3).per(Unit::Texts, 9, Duration::from_nanos(SPAN)));
    let call = charge(&mut spans, 0, texts(4));
    spans.configure(&limits(Unit::Texts, 5).per(Unit::Requests, 7, Duration::from_nanos(9)), 0);
    assert_eq!(used(&spans), [4, 0]);
    let other = charge(&mut spans, 1, texts(1));
    assert!(spans.settle(0, call, Settlement::NotSent));
    assert_eq!(used(&spans), [1, 1]);
    spans.configure(&Limits::new(), 0);
    assert!(!spans.settle(0, other, Settlement::NotSent));
    assert_eq!((spans.check(texts(99), 0), spans.empty_at()), (Ok(()), 0));
}

#[test]
fn a_window_of_more_than_an_hour_is_spent_as_a_day_is() {
    let mut spans = spans(&Limits::new().per(Unit::Images, 1, Duration::from_secs(7200)));
    let cost = Cost { units: Units { images: 1, ..Units::default() }, ..Cost::FREE };
    charge(&mut spans, 5, cost);
    let at = 7_200_000_000_005;
    let spent = Some(Spent { reset: Some(at) });
    assert_eq!(spans.check(cost, 0), Err(Full::Until { at, dimension: LimitKind::Images, spent }));
    let mut forecast = Forecast { at: 9, dimension: LimitKind::Other, tokens: 0, spent: None };
    assert_eq!(spans.forecast(9, (0, 0), (cost, 0), &mut forecast), Ok(()));
    assert_eq!((forecast.at, forecast.dimension, forecast.spent), (at, LimitKind::Images, spent));
}

#[test]
fn what_is_sent_later_than_it_was_charged_leaves_later() {
    let mut spans = spans(&limits(Unit::Texts, 5));
    let call = charge(&mut spans, 0, texts(5));
    spans.restamp(100, call);
    spans.expire(SPAN);
    assert_eq!(until(&spans, texts(1)), Some(SPAN + 100));
    assert!(spans.settle(0, call, Settlement::NotSent));
    assert_eq!(until(&spans, texts(5)), None);
}

/// What a model keeps of a call: when it was charged, what each unit stands at, and the number under which it is settled.
struct Kept {
    at: Nanos,
    amounts: [u64; 3],
    number: Option<u32>,
}

proptest! {
    /// Against a list of all charges that is summed up anew for each question: no position of any window holds more than its
    /// limit, everything that fits goes, and what has to wait is told the very instant at which it fits.
    #[test]
    fn windows_of_any_span_do_what_a_list_of_all_charges_says(
        lengths in [1..400_u64, 1..400_u64, 1..400_u64],
        most in [1..9_u64, 5..90_u64, 3..40_u64],
        steps in proptest::collection::vec(
            (0..60_u64, 0..40_u32, 0..20_u8, 0..6_u8, any::<prop::sample::Index>()), 1..300),
    ) {
        let units = [Unit::Requests, Unit::InputTokens, Unit::Texts];
        let all = units.into_iter().zip(most).zip(lengths).fold(Limits::new(), |all, ((unit, limit), length)| {
            all.per(unit, limit, Duration::from_nanos(length))
        });
        let mut spans = spans(&all);
        let mut kept: Vec<Kept> = Vec::new();
        let mut now = 0;
        let sum = |kept: &[Kept], at: Nanos, n: usize| -> u64 {
            kept.iter().filter(|one| one.at + lengths[n] > at).map(|one| one.amounts[n]).sum()
        };
        for (wait, tokens, texts, what, which) in steps {
            now += wait / 3;
            spans.expire(now);
            let open: Vec<usize> = (0..kept.len()).filter(|one| kept[*one].number.is_some()).collect();
            if what < 3 || open.is_empty() {
                let units = Units::new(texts, 0, ServiceTier::Standard, true);
                let cost = Cost { trust: Trust::Guess, units, ..Cost::exact(tokens) };
                let wanted = [1, u64::from(tokens).min(most[1]), u64::from(texts).min(most[2])];
                let fits = |at: Nanos| (0..3).all(|n| sum(&kept, at, n) + wanted[n] <= most[n]);
                let expected = (now..).find(|at| fits(*at)).expect("all leave some time");
                match spans.check(cost, tokens) {
                    Ok(()) => {
                        prop_assert_eq!(expected, now);
                        let number = Some(spans.charge(now, cost, tokens));
                        kept.push(Kept { at: now, amounts: wanted, number });
                    }
                    Err(Full::Until { at, .. }) => prop_assert_eq!(at, expected),
                    Err(too_large) => prop_assert!(false, "{:?}", too_large),
                }
            } else {
                let one = open[which.index(open.len())];
                let number = kept[one].number.take().expect("it is under way");
                let [_, charged, texts] = kept[one].amounts;
                // What has left a window is not corrected any more, and matters no more.
                let (how, amounts) = match what {
                    3 => (Settlement::NotSent, [0, 0, 0]),
                    4 => (Settlement::Refused, [1, 0, 0]),
                    _ => (Settlement::Used { input_tokens: charged / 2 }, [1, charged / 2, texts]),
                };
                kept[one].amounts = amounts;
                spans.settle(0, number, how);
            }
            let ours: Vec<u64> = spans.states().map(|state| state.used).collect();
            prop_assert_eq!(ours, (0..3).map(|n| sum(&kept, now, n)).collect::<Vec<_>>());
        }
    }
}
