use std::cmp::Reverse;
use std::collections::BinaryHeap;

use super::super::evidence::exceeds;
use super::super::rules::RAMP_START;
use super::*;
use crate::rng::{RequestRng, RngSource};

const MS: Nanos = SECOND / 1000;
const HARD: Mark = Mark::Failure;
const ROW: usize = 20;

fn rules() -> Rules {
    Rules {
        mode: BreakerMode::Automatic,
        window: 30 * SECOND,
        min_calls: 20,
        failure_share: 0.95,
        consecutive: 20,
        slow_share: f64::INFINITY,
        open: SECOND / 2,
        open_factor: 1.06,
        open_max: 15 * SECOND,
        max_server_delay: 300 * SECOND,
        probes: 4,
        successes: 1,
        lease: 120 * SECOND,
        ramp: 30 * SECOND,
    }
}

fn machine(rules: Rules) -> Machine {
    Machine::new(rules, 0)
}

fn admit(machine: &mut Machine, now: Nanos) -> Option<Pass> {
    admit_of(machine, now, 0, 0)
}

fn admit_of(machine: &mut Machine, now: Nanos, caller: Caller, number: u32) -> Option<Pass> {
    let pass = machine.admit(now, caller).0.ok().flatten();
    pass.map(|pass| Pass { number, ..pass })
}

/// Asks, and settles with this mark at once.
fn call(machine: &mut Machine, now: Nanos, mark: Mark) -> Option<Change> {
    call_of(machine, now, 0, mark)
}

fn call_of(machine: &mut Machine, now: Nanos, caller: Caller, mark: Mark) -> Option<Change> {
    let pass = admit_of(machine, now, caller, 0).expect("it is let through");
    machine.settle(now, pass, caller, mark, false, 0, || 0.5)
}

/// Opens a closed circuit with a row of failures, and says until when.
fn trip(machine: &mut Machine, now: Nanos) -> Nanos {
    trip_of(machine, now, &[0])
}

fn trip_of(machine: &mut Machine, now: Nanos, callers: &[Caller]) -> Nanos {
    let row = callers.iter().cycle().take(ROW);
    let changes: Vec<_> = row.filter_map(|caller| call_of(machine, now, *caller, HARD)).collect();
    assert_eq!(changes.len(), 1, "one change");
    assert_eq!(changes[0].cause, TransitionCause::ConsecutiveFailures);
    changes[0].until.expect("it is open")
}

/// Closes an open circuit with one probe, at the end of its open time.
fn heal(machine: &mut Machine) -> Nanos {
    let now = machine.until().expect("it is open");
    assert_eq!(call(machine, now, Mark::Success).map(|c| c.to), Some(CircuitState::Closed));
    now
}

#[test]
fn open_times_grow_to_the_most_and_are_forgotten_at_closing() {
    let mut circuit = machine(Rules { ramp: 0, ..rules() });
    let mut now = trip(&mut circuit, 0);
    assert_eq!(now, SECOND / 2);
    for failed in 1..=100 {
        let until = call(&mut circuit, now, HARD).and_then(|change| change.until).expect("a probe failed");
        // There were no calls before the row, for which probes would go sooner.
        let wait = (0.5 * 1.06_f64.powi(failed)).min(12.5);
        assert!(((until - now) as f64 / 1e9 - wait).abs() < 1e-6, "{failed}: {}", until - now);
        now = until;
    }
    let closed = heal(&mut circuit);
    assert_eq!(trip(&mut circuit, closed) - closed, SECOND / 2, "the next outage is another one");
}

#[test]
fn an_open_time_stays_within_its_bounds_at_every_draw() {
    for draw in [0.0, 0.5, 1.0 - f64::EPSILON] {
        for strikes in [0, 1, 5, 58, u32::MAX - 1] {
            let mut circuit = machine(rules());
            circuit.probes.strikes = strikes;
            let wait = circuit.open(0, TransitionCause::ProbeFailed, 0, draw).until.unwrap();
            assert!((400 * MS..=15 * SECOND).contains(&wait), "{strikes} {draw}: {wait}");
        }
    }
}

#[test]
fn the_servers_own_instant_counts_if_it_is_later_up_to_the_bound() {
    for (hint, wait) in [(SECOND / 4, SECOND / 2), (59 * SECOND, 59 * SECOND), (Nanos::MAX, 300 * SECOND)] {
        let mut circuit = machine(rules());
        assert!((1..ROW).all(|_| call(&mut circuit, 0, HARD).is_none()));
        let pass = admit(&mut circuit, 0).unwrap();
        let change = circuit.settle(0, pass, 0, HARD, false, hint, || 0.5).unwrap();
        assert_eq!(change.until, Some(wait));
    }
}

#[test]
fn strikes_are_not_counted_beyond_the_longest_open_time() {
    let mut circuit = machine(Rules { open_max: 4500 * MS, open: 2 * SECOND, open_factor: 1.5, ..rules() });
    let mut now = trip(&mut circuit, 0);
    for strikes in [0, 1, 2, 2, 2] {
        assert_eq!(circuit.probes.strikes, strikes, "the third open time is the longest");
        now = call(&mut circuit, now, HARD).and_then(|change| change.until).expect("a probe failed");
    }
}

#[test]
fn who_is_certain_to_be_denied_is_told_and_takes_no_place() {
    let mut circuit = machine(rules());
    assert_eq!(circuit.refuse(0, 0), None);
    let until = trip(&mut circuit, 0);
    let told = |denial: Option<Denial>| denial.map(|denial| denial.why);
    assert_eq!(
        told(circuit.refuse(until - 1, 0)),
        Some(CircuitOpenReason::Opened(TransitionCause::ConsecutiveFailures))
    );
    assert_eq!(circuit.refuse(until, 0), None, "it may be the probe");
    assert_eq!(circuit.refuse(until, 0), None, "and has taken no place");
    admit(&mut circuit, until).expect("the probe");
    assert_eq!(told(circuit.refuse(until, 0)), Some(CircuitOpenReason::Probing));
    circuit.set_mode(until, BreakerMode::ObserveOnly);
    trip(&mut circuit, until);
    assert_eq!(circuit.refuse(until, 0), None, "it only observes");
}

#[test]
fn those_who_wait_for_a_probe_come_back_evenly_spread() {
    let mut circuit = machine(rules());
    let now = trip(&mut circuit, 0);
    admit(&mut circuit, now).expect("the probe");
    // From half the open time of 0.5 s to one and a half of it; a hundredth of that apart, give or take.
    let mut waits: Vec<_> = (0..100).filter_map(|_| circuit.refuse(now, 0)).map(|d| d.until - now).collect();
    waits.sort_unstable();
    for (nth, wait) in waits.into_iter().enumerate() {
        let even = SECOND / 4 + nth as Nanos * 5 * MS;
        assert!((even.saturating_sub(5 * MS)..even + 10 * MS).contains(&wait), "{nth}: {wait}");
    }
}

#[test]
fn what_spares_the_lock_is_told_of_each_phase() {
    let mut circuit = machine(rules());
    assert_eq!((circuit.shut(), circuit.is_free(), circuit.is_even()), (0, true, true));
    call(&mut circuit, 0, HARD);
    assert_eq!((circuit.is_free(), circuit.is_even()), (true, false), "a success ends the row");
    call(&mut circuit, 0, Mark::Success);
    assert!(circuit.is_even());
    let until = trip(&mut circuit, 0);
    assert_eq!((circuit.shut(), circuit.is_free(), circuit.is_even()), (until, false, false));
    let now = heal(&mut circuit);
    assert_eq!((circuit.shut(), circuit.is_free(), circuit.is_even()), (0, false, true), "a ramp limits it");
    assert_eq!([now, now + 30 * SECOND].map(|now| circuit.is_ramping(now)), [true, false]);

    let mut without_ramp = machine(Rules { ramp: 0, ..rules() });
    trip(&mut without_ramp, 0);
    heal(&mut without_ramp);
    assert!(without_ramp.is_free());

    let mut observing = machine(Rules { mode: BreakerMode::ObserveOnly, ..rules() });
    trip(&mut observing, 0);
    assert_eq!(observing.shut(), 0, "nobody is turned away");
}

#[test]
fn only_what_is_held_open_by_hand_has_no_end() {
    let mut circuit = machine(rules());
    let change = circuit.set_mode(0, BreakerMode::ForcedOpen).expect("another mode");
    assert_eq!((change.until, circuit.until()), (None, None));
    let end = NEVER - 5;
    let mut circuit = Machine::new(rules(), end);
    assert_eq!(trip(&mut circuit, end), NEVER - 1);
}

#[test]
fn a_ramp_begins_with_a_share_of_the_calls_a_second_before_that_falls_with_the_outage() {
    for (outage, share) in [(1, 2.0), (89, 2.0), (91, 0.25), (7200, 0.25)] {
        let mut circuit = machine(rules());
        for n in 0..1000 {
            assert!(call(&mut circuit, n * 10 * MS, Mark::Success).is_none());
        }
        trip(&mut circuit, 10 * SECOND);
        let now = (10 + outage) * SECOND;
        assert!(call(&mut circuit, now, Mark::Success).is_some());
        let free = (0..1000).take_while(|_| admit(&mut circuit, now).is_some()).count();
        // 1,020 in 10 s are 102 a second.
        assert_eq!(free, (102.0 * share) as usize, "{outage} s");
    }
    let mut circuit = machine(rules());
    trip(&mut circuit, 30 * SECOND);
    let now = heal(&mut circuit);
    assert_eq!((0..1000).take_while(|_| admit(&mut circuit, now).is_some()).count(), 10, "the least");
    // At a cold start the row that opens it is all that there is: 20 within half a second.
    let mut circuit = machine(rules());
    for n in 0..ROW as Nanos {
        call(&mut circuit, n * 500 * MS / ROW as Nanos, HARD);
    }
    let now = heal(&mut circuit);
    let free = (0..1000).take_while(|_| admit(&mut circuit, now).is_some()).count();
    assert!((80..=85).contains(&free), "{free}");
}

#[test]
fn a_lost_probe_is_replaced_and_its_late_word_ignored() {
    let mut circuit = machine(Rules { probes: 1, ..rules() });
    let now = trip(&mut circuit, 0);
    let lost = admit(&mut circuit, now).unwrap();
    assert!(admit(&mut circuit, now + 119 * SECOND).is_none(), "one at a time");
    let next = admit(&mut circuit, now + 120 * SECOND).expect("the lease is over");
    assert_eq!(circuit.settle(now + 121 * SECOND, lost, 0, HARD, false, 0, || 0.5), None);
    circuit.release(lost);
    assert!(admit(&mut circuit, now + 121 * SECOND).is_none(), "the place is the second one's");
    circuit.settle(now + 121 * SECOND, next, 0, Mark::Neutral, false, 0, || 0.5);
    assert!(admit(&mut circuit, now + 121 * SECOND).is_some());
}

#[test]
fn four_probes_go_each_an_open_time_after_the_one_before() {
    let mut circuit = machine(rules());
    let start = trip(&mut circuit, 0);
    let mut at = start;
    for probe in 1..=4 {
        assert!(admit(&mut circuit, at).is_some_and(Pass::is_probe), "{probe}");
        let wait = (0.5 * 1.06_f64.powi(probe) * 1e9) as Nanos;
        assert!(admit(&mut circuit, at + wait - MS).is_none(), "{probe}: too early for the next");
        at += wait + MS;
    }
    assert!(admit(&mut circuit, at + 60 * SECOND).is_none(), "a fifth");
    assert_eq!(circuit.probes.strikes, 4, "each of those that hang lengthens the open time");
}

#[test]
fn a_hanging_probe_does_not_keep_others_from_finding_out() {
    let mut circuit = machine(rules());
    let now = trip(&mut circuit, 0);
    admit(&mut circuit, now).expect("it hangs");
    assert!(call(&mut circuit, now + SECOND, Mark::Success).is_some_and(|c| c.to == CircuitState::Closed));
}

#[test]
fn a_ticket_holds_across_open_and_half_open_of_one_outage() {
    for (mark, state) in [(Mark::Success, CircuitState::Closed), (HARD, CircuitState::Open)] {
        let mut circuit = machine(rules());
        let now = trip(&mut circuit, 0);
        let first = admit(&mut circuit, now).unwrap();
        assert!(
            call(&mut circuit, now + SECOND, HARD).is_some_and(|c| c.cause == TransitionCause::ProbeFailed)
        );
        let change = circuit.settle(now + SECOND + MS, first, 0, mark, false, 0, || 0.5);
        assert_eq!((change.is_some(), circuit.state()), (mark == Mark::Success, state));
    }
    // Of the next outage it is none.
    let mut circuit = machine(Rules { ramp: 0, ..rules() });
    let now = trip(&mut circuit, 0);
    let old = admit(&mut circuit, now).unwrap();
    call(&mut circuit, now + SECOND, Mark::Success).expect("closed");
    trip(&mut circuit, now + SECOND);
    assert_eq!(circuit.settle(now + SECOND, old, 0, Mark::Success, false, 0, || 0.5), None);
}

#[test]
fn a_probe_that_outlasts_those_that_failed_closes_it() {
    for (failed_in, closes_after) in [(0, 200), (10, 280), (1000, 8200)] {
        for successes in [1, 2] {
            let mut circuit = machine(Rules { successes, ..rules() });
            let now = trip(&mut circuit, 0);
            let probe = admit(&mut circuit, now).unwrap();
            let now = now + failed_in * MS;
            circuit.settle(now, probe, 0, HARD, false, 0, || 0.5);
            let now = circuit.until().unwrap();
            admit(&mut circuit, now).expect("it lasts");
            let early = circuit.admit(now + closes_after * MS - 1, 0).1;
            assert_eq!((early, circuit.state()), (None, CircuitState::HalfOpen));
            let change = circuit.admit(now + closes_after * MS, 0).1;
            let cause = (successes == 1).then_some(TransitionCause::ProbeOutlasts);
            assert_eq!(change.map(|change| change.cause), cause, "{failed_in} ms");
        }
    }
    // With none that failed there is nothing to outlast.
    let mut circuit = machine(rules());
    let now = trip(&mut circuit, 0);
    admit(&mut circuit, now).unwrap();
    assert_eq!(circuit.admit(now + 60 * SECOND, 0).1, None);
}

// One that hangs when another fails has lasted long enough when the open time is over: that is one change and not two.
#[test]
fn who_finds_the_open_time_over_and_a_probe_that_lasts_closes_it_in_one_change() {
    let mut circuit = machine(rules());
    let now = trip(&mut circuit, 0);
    admit(&mut circuit, now).expect("it lasts");
    call(&mut circuit, now + SECOND, HARD).expect("it opens again");
    let now = circuit.until().unwrap();
    let before = circuit.generation();
    let change = circuit.admit(now, 0).1.expect("a change");
    assert_eq!((change.from, change.cause), (CircuitState::Open, TransitionCause::ProbeOutlasts));
    assert_eq!((change.generation, circuit.generation()), (before + 1, before + 1));
}

// ===== whom it binds =====

const OTHERS: u32 = super::OTHERS;

#[test]
fn a_row_of_one_caller_binds_that_caller_until_others_have_seen_the_same() {
    let mut circuit = machine(rules());
    let until = trip_of(&mut circuit, 0, &[7]);
    assert!(circuit.is_one_callers() && circuit.admit(0, 7).0.is_err());
    for other in 0..OTHERS {
        assert!(circuit.is_one_callers(), "after {other}");
        let caller = u64::from(100 + other % 3);
        assert_eq!(circuit.refuse(0, caller), None);
        assert_eq!(call_of(&mut circuit, 0, caller, HARD), None);
    }
    assert!(!circuit.is_one_callers() && circuit.admit(0, 100).0.is_err(), "{until}");
    // And another one's success closes it at once.
    let mut circuit = machine(rules());
    trip_of(&mut circuit, 0, &[7]);
    let change = call_of(&mut circuit, 0, 8, Mark::Success).expect("a change");
    assert_eq!((change.to, change.cause), (CircuitState::Closed, TransitionCause::ProbesSucceeded));
    assert!(circuit.is_free(), "no ramp holds the others back");
    // A row of several binds all, and so does a share.
    let mut circuit = machine(rules());
    trip_of(&mut circuit, 0, &[7, 8]);
    assert!([0, 7, 8, 9].into_iter().all(|caller| circuit.admit(0, caller).0.is_err()));
}

#[test]
fn what_another_caller_began_before_the_outage_closes_nothing() {
    let mut circuit = machine(rules());
    let old = admit_of(&mut circuit, 0, 8, 0).unwrap();
    let until = trip_of(&mut circuit, 0, &[7]);
    assert_eq!(circuit.settle(0, old, 8, Mark::Success, false, 0, || 0.5), None);
    // What it began since does, also after the circuit was half-opened.
    let pass = admit_of(&mut circuit, 0, 8, 0).unwrap();
    admit_of(&mut circuit, until, 7, 0).expect("a probe");
    assert_eq!(circuit.state(), CircuitState::HalfOpen);
    assert!(circuit.settle(until, pass, 8, Mark::Success, false, 0, || 0.5).is_some());
}

// ===== evidence =====

/// Calls that fail with this probability, each before the next begins, until the circuit opens; at most so many.
fn calls_to_open(chance: &mut RequestRng, p: f64, n: u32, at_most: u64) -> u64 {
    let mut circuit = machine(Rules { consecutive: n, min_calls: u32::MAX, ..rules() });
    for number in 1..=at_most {
        let pass = admit_of(&mut circuit, number * MS, 0, number as u32).expect("it is closed");
        let mark = if chance.unit() < p { HARD } else { Mark::Success };
        if circuit.settle(number * MS, pass, 0, mark, false, 0, || 0.5).is_some() {
            return number;
        }
    }
    at_most
}

#[test]
fn false_alarms_of_the_row_are_as_rare_as_stated() {
    let mut chance = RngSource::seeded(11).stream();
    // 2.1 million at 0.5 and 20 are too many to try; the same formula elsewhere.
    for (p, n) in [(0.5_f64, 8), (0.8, 20), (0.9, 20), (0.7, 10)] {
        let stated = (p.powi(-n) - 1.0) / (1.0 - p);
        let sum: u64 = (0..400).map(|_| calls_to_open(&mut chance, p, n as u32, u64::MAX)).sum();
        let mean = sum as f64 / 400.0;
        // The times are nearly exponential: 5 % is one deviation of the mean of 400.
        assert!((mean / stated - 1.0).abs() < 0.15, "{p} {n}: {mean}, stated {stated}");
    }
}

#[test]
fn the_share_opens_at_the_stated_counts() {
    for (share, calls, least) in [
        (0.95, 20, 20),
        (0.95, 50, 50),
        (0.95, 200, 195),
        (0.95, 1000, 961),
        (0.5, 20, 14),
        (0.5, 50, 31),
        (0.5, 200, 111),
    ] {
        assert!(exceeds(least, calls, share) && !exceeds(least - 1, calls, share), "{share} of {calls}");
    }
}

#[test]
fn successes_from_before_a_row_do_not_end_it_and_later_ones_do() {
    for (old, opens) in [(true, true), (false, false)] {
        let mut circuit = machine(Rules { min_calls: u32::MAX, ..rules() });
        let mut opened = false;
        for n in 0..ROW as u32 {
            let pass = admit_of(&mut circuit, 0, 0, 100 + n).unwrap();
            opened |= circuit.settle(0, pass, 0, HARD, false, 0, || 0.5).is_some();
            if n == 10 {
                let number = if old { 99 } else { 111 };
                let pass = admit_of(&mut circuit, 0, 0, number).unwrap();
                circuit.settle(0, pass, 0, Mark::Success, false, 0, || 0.5);
            }
        }
        assert_eq!(opened, opens);
    }
}

// A server that refuses a fifth at once and answers the rest after 24 s: in the first 24 s all that has ended has failed.
#[test]
fn a_cold_start_with_quick_refusals_and_slow_answers_opens_nothing() {
    for seed in 0..50 {
        let mut chance = RngSource::seeded(seed).stream();
        let mut circuit = machine(rules());
        let mut out = std::collections::VecDeque::new();
        for number in 0..4000_u32 {
            let now = Nanos::from(number) * 50 * MS;
            while out.front().is_some_and(|(ends, _)| *ends <= now) {
                let (ends, pass) = out.pop_front().unwrap();
                assert_eq!(circuit.settle(ends, pass, 0, Mark::Success, false, 0, || 0.5), None);
            }
            let pass = admit_of(&mut circuit, now, 0, number).expect("it is closed");
            if chance.unit() < 0.2 {
                let change = circuit.settle(now, pass, 0, HARD, false, 0, || 0.5);
                assert_eq!(change, None, "seed {seed}, call {number}");
            } else {
                out.push_back((now + 24 * SECOND, pass));
            }
        }
    }
}

// Down for 3 s in every 7, at 40 calls a second that are told at once.
#[test]
fn on_a_server_that_flaps_it_is_open_no_longer_than_that_is_down_and_one_probe_interval() {
    let mut circuit = machine(Rules { ramp: 0, ..rules() });
    let (mut number, mut since) = (0, None);
    let mut longest = 0;
    for step in 0..8400_u64 {
        let now = step * 25 * MS;
        let mark = if now % (7 * SECOND) < 3 * SECOND { HARD } else { Mark::Success };
        if let Some(pass) = admit_of(&mut circuit, now, 0, number) {
            number += 1;
            circuit.settle(now, pass, 0, mark, false, 0, || 0.5);
        }
        if circuit.state() == CircuitState::Closed {
            since = None;
        } else {
            longest = longest.max(now - *since.get_or_insert(now));
        }
    }
    // It opens half a second late; the interval has grown by five probes at the most.
    assert!((2 * SECOND..3 * SECOND + 700 * MS).contains(&longest), "{longest}");
}

// Half an hour of outage after a minute in which all was well; each call that is turned away counts as one that would have
// been made.
#[test]
fn a_probe_goes_for_each_twenty_calls_that_were_made_before_it() {
    for (per_second, longest) in [(100, 500 * MS), (20, SECOND), (5, 4 * SECOND), (1, 12_500 * MS)] {
        let mut circuit = machine(rules());
        let (mut probes, mut last, mut apart) = (0_u64, 60 * SECOND, 0);
        for number in 0..(60 + 1800) * per_second {
            let now = number * SECOND / per_second;
            let mark = if now < 60 * SECOND { Mark::Success } else { HARD };
            if let Some(pass) = admit_of(&mut circuit, now, 0, number as u32) {
                if pass.is_probe() {
                    (probes, apart, last) = (probes + 1, apart.max(now - last), now);
                }
                circuit.settle(now, pass, 0, mark, false, 0, || 0.5);
            }
        }
        let calls = 1800 * per_second;
        assert!(apart <= longest + SECOND / per_second + 20 * SECOND / per_second, "{per_second}: {apart}");
        // The first open times are shorter, and never less than the first.
        assert!(probes <= (calls / 20).min(3600) + 150, "{per_second}: {probes}");
        assert!(probes >= 1800 * SECOND / (longest + SECOND), "{per_second}: {probes}");
    }
}

#[test]
fn only_observing_it_tells_the_same_and_turns_nobody_away() {
    let mut circuit = machine(Rules { mode: BreakerMode::ObserveOnly, ..rules() });
    let now = trip(&mut circuit, 0);
    assert_eq!(circuit.admit(now - 1, 0), (Ok(None), None), "goes through, counts nothing");
    assert!(admit(&mut circuit, now).is_some_and(|pass| pass.ticket > 0));
    assert_eq!(circuit.admit(now, 0).0, Ok(None), "no second probe");
}

// Independent errors over ten minutes, each call tried up to five times with full jitter: at a half, 20 a second are 39,
// and one spell in 90 has a row of twenty. What opens it ends with the first probe that succeeds.
#[test]
fn independent_errors_hardly_ever_open_it() {
    for (p, per_second, at_most) in [(0.3, 20.0, 0), (0.5, 20.0, 6), (0.5, 1.0, 1), (0.5, 0.3, 1)] {
        let opened = (0..200).filter(|seed| opens_in_a_brown_out(*seed, p, per_second)).count();
        assert!(opened <= at_most, "{opened} of 200 at {per_second} a second, {p}");
    }
}

fn opens_in_a_brown_out(seed: u64, p: f64, per_second: f64) -> bool {
    let mut chance = RngSource::seeded(seed).stream();
    let mut circuit = machine(rules());
    let mut number = 0;
    let (mut arrival, mut retries) = (0.0, BinaryHeap::new());
    loop {
        arrival -= (1.0 - chance.unit()).ln() / per_second;
        let next = (arrival * 1e9) as Nanos;
        if next > 600 * SECOND {
            return false;
        }
        retries.push(Reverse((next, 0)));
        while let Some(Reverse((now, attempt))) = retries.pop() {
            if now > next {
                retries.push(Reverse((now, attempt)));
                break;
            }
            let failed = chance.unit() < p;
            number += 1;
            let pass = admit_of(&mut circuit, now, 0, number).expect("it is closed");
            let mark = if failed { HARD } else { Mark::Success };
            if circuit.settle(now, pass, 0, mark, false, 0, || 0.5).is_some() {
                return true;
            }
            if failed && attempt < 4 {
                let wait = chance.unit() * f64::from(1 << attempt);
                retries.push(Reverse((now + (wait * 1e9) as Nanos, attempt + 1)));
            }
        }
    }
}

// ===== against a model that knows no arithmetic but counting over lists =====

#[derive(Clone, Copy, Debug, PartialEq)]
enum Is {
    Closed,
    Open(Nanos),
    HalfOpen,
}

struct Outcome {
    at: Nanos,
    mark: Mark,
    slow: bool,
    caller: Caller,
    number: u32,
}

struct Probe {
    pass: Pass,
    since: Nanos,
    ends: Nanos,
}

struct Naive {
    rules: Rules,
    mode: BreakerMode,
    is: Is,
    generation: u32,
    since: Nanos,
    /// All that was ever counted in this generation.
    results: Vec<Outcome>,
    /// Of this outage: the generation that it began with, the one whom it binds if it is one, the failures in a row of
    /// others, probes under way, how many were sent of which nothing was heard or the worst, how long those took that
    /// failed, successes since it was opened last, and when the next may go.
    outage: u32,
    bound: Option<Caller>,
    others: u32,
    probes: Vec<Probe>,
    strikes: u32,
    failed_in: Vec<Nanos>,
    good: u32,
    next: Nanos,
    /// Calls a second before it, over one second at the least.
    pace: f64,
    ramp_until: Nanos,
    /// How much of that failures have added.
    behind: Nanos,
    let_through: Vec<Nanos>,
    touched: Nanos,
}

impl Naive {
    fn new(rules: Rules, now: Nanos) -> Self {
        Self {
            rules,
            mode: rules.mode,
            is: Is::Closed,
            generation: 0,
            since: now,
            results: Vec::new(),
            outage: 0,
            bound: None,
            others: 0,
            probes: Vec::new(),
            strikes: 0,
            failed_in: Vec::new(),
            good: 0,
            next: 0,
            pace: 0.0,
            ramp_until: 0,
            behind: 0,
            let_through: Vec::new(),
            touched: now,
        }
    }

    fn enter(&mut self, now: Nanos, is: Is) {
        self.is = is;
        self.since = now;
        self.generation += 1;
        self.results.clear();
        self.let_through.clear();
        (self.ramp_until, self.behind) = (0, 0);
    }

    /// The outage is over, or nobody wants to know of it any more.
    fn forget(&mut self) {
        (self.bound, self.others, self.strikes, self.good) = (None, 0, 0, 0);
        self.probes.clear();
        self.failed_in.clear();
    }

    fn close(&mut self, now: Nanos) {
        self.forget();
        self.enter(now, Is::Closed);
        self.ramp_until = now + self.rules.ramp;
    }

    fn binds(&self, caller: Caller) -> bool {
        self.is == Is::Closed || self.bound.is_none_or(|bound| bound == caller)
    }

    /// How many times the time in which probes fail, four times that and a tenth of a second, the oldest has lasted.
    fn outlasts(&self, now: Nanos) -> u64 {
        let oldest = self.probes.iter().filter(|probe| probe.ends > now).map(|probe| now - probe.since).max();
        match (oldest, self.failed_in.iter().max()) {
            (Some(age), Some(fails)) if self.rules.successes == 1 => age / (4 * fails + SECOND / 10),
            _ => 0,
        }
    }

    /// What one call does to a ramp.
    fn ramps(&mut self, now: Nanos, failed: bool) {
        if now < self.ramp_until {
            let begun = self.ramp_until - self.rules.ramp;
            let before = self.behind;
            self.behind = match failed {
                true => (before + SECOND.min(now.saturating_sub(begun))).min(3 * self.rules.ramp),
                false => before.saturating_sub(SECOND / 2),
            };
            self.ramp_until = self.ramp_until + self.behind - before;
        }
    }

    fn recent(&self, now: Nanos) -> impl Iterator<Item = &Outcome> {
        let width = self.rules.window / 10;
        self.results.iter().filter(move |result| result.at / width + 10 > now / width)
    }

    /// What the window holds: calls, failures, slow ones.
    fn window(&self, now: Nanos) -> (u32, u32, u32) {
        let count = |number: usize| u32::try_from(number).unwrap();
        let failed = self.recent(now).filter(|result| result.mark != Mark::Success).count();
        let slow = self.recent(now).filter(|result| result.slow).count();
        (count(self.recent(now).count()), count(failed), count(slow))
    }

    /// The failures in a row.
    fn row(&self) -> Vec<&Outcome> {
        let mut row: Vec<&Outcome> = Vec::new();
        for result in &self.results {
            match row.iter().map(|failed| failed.number).min() {
                _ if result.mark == HARD => row.push(result),
                Some(first) if result.number < first => {}
                _ => row.clear(),
            }
        }
        row
    }

    /// Whether so many are four of five of all calls between the first and the last of these.
    fn is_mostly(calls: usize, numbers: impl Iterator<Item = u32> + Clone) -> bool {
        let (first, last) = (numbers.clone().min().unwrap(), numbers.max().unwrap());
        calls as u64 * 5 >= (u64::from(last) - u64::from(first) + 1) * 4
    }

    /// Of each bucket, the first; and the last of all.
    fn window_numbers(&self, now: Nanos) -> Vec<u32> {
        let width = self.rules.window / 10;
        let recent: Vec<&Outcome> = self.recent(now).collect();
        let mut numbers = vec![recent.last().unwrap().number];
        for (nth, result) in recent.iter().enumerate() {
            if nth == 0 || recent[nth - 1].at / width != result.at / width {
                numbers.push(result.number);
            }
        }
        numbers
    }

    fn probing(&self, now: Nanos) -> usize {
        self.probes.iter().filter(|probe| probe.ends > now).count()
    }

    fn open_time(&self, draw: f64) -> Nanos {
        let mut own = self.rules.open as f64;
        for _ in 0..self.strikes {
            if own < self.rules.open_max as f64 {
                own *= self.rules.open_factor;
            }
        }
        let most = (20.0 * SECOND as f64 / self.pace).max(self.rules.open as f64);
        (own.min(self.rules.open_max as f64 / 1.2).min(most) * (0.8 + 0.4 * draw)) as Nanos
    }

    fn opens(&mut self, now: Nanos, hint: Nanos, draw: f64) {
        self.good = 0;
        if self.is == Is::Closed {
            let least = SECOND;
            let time = (now - self.since).clamp(least, self.rules.window.max(least));
            let earlier = self.window(now).0.saturating_sub(self.row().len() as u32);
            self.pace = f64::from(earlier) / (time as f64 / SECOND as f64);
        }
        let wait = self.open_time(draw).max(hint.min(self.rules.max_server_delay));
        self.enter(now, Is::Open(now + wait));
    }

    #[allow(clippy::too_many_arguments, reason = "what the real one is given")]
    fn settled(
        &mut self,
        now: Nanos,
        pass: Pass,
        caller: Caller,
        mark: Mark,
        slow: bool,
        hint: Nanos,
        draw: f64,
    ) {
        if pass.is_probe() {
            let Some(at) = self.probes.iter().position(|probe| probe.pass == pass) else { return };
            let probe = self.probes.remove(at);
            if probe.ends <= now {
                return;
            }
            self.touched = now;
            match mark {
                Mark::Neutral => self.strikes -= 1,
                Mark::Success if !slow => {
                    self.good += 1;
                    if self.good == self.rules.successes {
                        self.close(now);
                    }
                }
                _ => {
                    if mark == HARD {
                        self.failed_in.push(now - probe.since);
                    }
                    if self.is == Is::HalfOpen {
                        self.opens(now, hint, draw);
                    }
                }
            }
            return;
        }
        if !self.binds(caller) {
            match mark {
                _ if pass.generation < self.outage => {}
                Mark::Neutral => {}
                Mark::Success => {
                    self.close(now);
                    self.ramp_until = 0;
                }
                Mark::Failure => {
                    self.others += 1;
                    if self.others == 5 {
                        self.bound = None;
                    }
                }
            }
            return;
        }
        if pass.generation != self.generation {
            return;
        }
        self.touched = now;
        if self.is == Is::Closed && mark != Mark::Neutral {
            self.results.push(Outcome { at: now, mark, slow, caller, number: pass.number });
            self.ramps(now, mark != Mark::Success);
            let (calls, failed, were_slow) = self.window(now);
            let above = |bad: u32, share: f64| {
                let (bad, n) = (f64::from(bad), f64::from(calls));
                share <= 1.0
                    && calls >= self.rules.min_calls
                    && (bad == n || bad - share * n >= 1.5 * (share * (1.0 - share) * n).sqrt())
            };
            let bad = mark != Mark::Success || slow;
            let row = self.row();
            let by_row = row.len() >= self.rules.consecutive as usize
                && Self::is_mostly(row.len(), row.iter().map(|failed| failed.number));
            let by_share = above(failed, self.rules.failure_share)
                && Self::is_mostly(calls as usize, self.window_numbers(now).into_iter());
            let trips = by_row || by_share || above(were_slow, self.rules.slow_share);
            if bad && trips && self.mode != BreakerMode::ForcedClosed {
                let one = row.iter().all(|failed| failed.caller == row[0].caller);
                self.bound = (by_row && one).then(|| row[0].caller);
                (self.others, self.outage) = (0, self.generation + 1);
                self.opens(now, hint, draw);
            }
        }
    }

    fn idle(&self, now: Nanos) -> bool {
        let last = if let Is::Open(until) = self.is { until.max(self.touched) } else { self.touched };
        self.mode == self.rules.mode
            && (now.saturating_sub(last) >= 10 * self.rules.window
                || (self.is == Is::Closed
                    && self.ramp_until <= now
                    && self.row().is_empty()
                    && self.window(now).0 == 0))
    }

    /// Compares one admission. What a ramp lets through is bounded here, and exact in its own tests.
    fn admitted(&mut self, now: Nanos, caller: Caller, admission: &Admission) {
        self.touched = now;
        if !self.binds(caller) {
            let pass = admission.as_ref().ok().copied().flatten().expect("it does not bind");
            assert_eq!((pass.generation, pass.ticket), (self.generation, 0));
            return;
        }
        match self.is {
            Is::Open(until) if now < until || until == NEVER => {}
            Is::Open(_) | Is::HalfOpen if self.outlasts(now) >= 2 => self.close(now),
            Is::Open(_) => {
                self.enter(now, Is::HalfOpen);
                self.next = now;
            }
            Is::Closed | Is::HalfOpen => {}
        }
        let free = match self.is {
            Is::Closed => true,
            Is::Open(_) => false,
            Is::HalfOpen => match self.probing(now) {
                0 => true,
                under_way => under_way < self.rules.probes && (now >= self.next || self.outlasts(now) >= 1),
            },
        };
        match admission {
            Ok(Some(pass)) => {
                assert!(free, "{:?} let a call through", self.is);
                assert_eq!(pass.generation, self.generation);
                assert_eq!(pass.ticket > 0, self.is == Is::HalfOpen);
                if self.is == Is::HalfOpen {
                    self.probes.retain(|probe| probe.ends > now);
                    self.probes.push(Probe { pass: *pass, since: now, ends: now + self.rules.lease });
                    assert!(self.probing(now) <= self.rules.probes, "more probes than permitted");
                    self.strikes += 1;
                    self.next = now + self.open_time(0.5);
                }
                if now < self.ramp_until {
                    self.let_through.push(now);
                    let grown = (now - self.since) as f64 / self.rules.ramp as f64 * 4.0;
                    let seconds = (now - self.since) as f64 / 1e9;
                    // The bucket and the time at the rate that it has grown to, which is more than the ramp gives.
                    let start = RAMP_START.max(1000.0);
                    assert!((self.let_through.len() as f64) <= start * (1.0 + seconds * grown.exp2()) + 1.0);
                }
            }
            Ok(None) => assert!(self.mode == BreakerMode::ObserveOnly && (!free || now < self.ramp_until)),
            Err(denial) => {
                assert_ne!(self.mode, BreakerMode::ObserveOnly);
                assert!(denial.until > now && denial.since == self.since);
                match (denial.why, self.is) {
                    (CircuitOpenReason::Ramping, Is::Closed) => assert!(now < self.ramp_until),
                    (CircuitOpenReason::Opened(_), Is::Open(until)) => assert_eq!(denial.until, until),
                    (CircuitOpenReason::Probing, Is::HalfOpen) => {
                        let half = self.rules.open / 2;
                        assert!(!free && (now + half..now + 3 * half + 1).contains(&denial.until));
                    }
                    (why, is) => panic!("{is:?} says {why:?}"),
                }
            }
        }
    }
}

/// One run of random operations. Seeded, so that a failure repeats.
fn run(seed: u64, operations: u32) {
    let mut chance = RngSource::seeded(seed).stream();
    let mut below = move |n: u64| below(&mut chance, n);
    let rules = Rules {
        mode: if seed % 5 == 0 { BreakerMode::ObserveOnly } else { BreakerMode::Automatic },
        min_calls: 1 + below(25) as u32,
        failure_share: [0.1, 0.5, 0.9, 1.0][below(4) as usize],
        consecutive: 1 + below(15) as u32,
        slow_share: [f64::INFINITY, 0.5][below(2) as usize],
        probes: 1 + below(3) as usize,
        successes: 1 + below(2) as u32,
        open: 2 * SECOND,
        open_factor: 1.5,
        open_max: 3600 * SECOND,
        lease: 5 * SECOND,
        ramp: [0, 30 * SECOND][below(2) as usize],
        ..rules()
    };
    let mut now = below(100 * SECOND);
    let (mut real, mut naive) = (Machine::new(rules, now), Naive::new(rules, now));
    let mut out: Vec<(Pass, Caller)> = Vec::new();
    let mut number = 0;
    let mut pain = 50;
    for step in 0..operations {
        let before = real.generation();
        let mut change = None;
        match below(1000) {
            0..400 => {
                // Mostly one, so that some rows are its own.
                let caller = [1, 1, 1, 1, 2, 0][below(6) as usize];
                let (mut admission, of_probes) = real.admit(now, caller);
                change = of_probes;
                if let Ok(Some(pass)) = &mut admission {
                    number += 1;
                    pass.number = number;
                }
                naive.admitted(now, caller, &admission);
                out.extend(admission.ok().flatten().map(|pass| (pass, caller)));
            }
            400..700 if !out.is_empty() => {
                let (pass, caller) = out.swap_remove(below(out.len() as u64) as usize);
                let mark = match below(100) {
                    roll if roll < pain => HARD,
                    roll if roll < pain + 5 => Mark::Neutral,
                    _ => Mark::Success,
                };
                let (slow, hint) = (below(10) == 0, [0, 20 * SECOND][usize::from(below(20) == 0)]);
                let draw = below(1 << 20) as f64 / f64::from(1 << 20);
                change = real.settle(now, pass, caller, mark, slow, hint, || draw);
                naive.settled(now, pass, caller, mark, slow, hint, draw);
            }
            700..780 if !out.is_empty() => {
                let (pass, _) = out.swap_remove(below(out.len() as u64) as usize);
                real.release(pass);
                if let Some(at) = naive.probes.iter().position(|probe| probe.pass == pass) {
                    naive.probes.remove(at);
                    naive.strikes -= 1;
                }
            }
            780..960 => {
                let scale = [MS, SECOND, SECOND, 8 * SECOND, 8 * SECOND, 400 * SECOND][below(6) as usize];
                now += below(scale);
            }
            960..966 => {
                let modes = [
                    BreakerMode::Automatic,
                    BreakerMode::ForcedOpen,
                    BreakerMode::ForcedClosed,
                    BreakerMode::ObserveOnly,
                ];
                let mode = if below(2) == 0 { rules.mode } else { modes[below(4) as usize] };
                change = if below(3) == 0 { Some(real.reset(now)) } else { real.set_mode(now, mode) };
                if let Some(change) = change {
                    naive.enter(
                        now,
                        if change.mode == BreakerMode::ForcedOpen { Is::Open(NEVER) } else { Is::Closed },
                    );
                    naive.mode = change.mode;
                    naive.forget();
                }
            }
            966..970 => pain = below(101),
            970..1000 => {
                assert_eq!(real.is_idle(now), naive.idle(now), "seed {seed}, step {step}");
                if out.is_empty() && real.is_idle(now) {
                    (real, naive) = (Machine::new(rules, now), Naive::new(rules, now));
                    continue;
                }
            }
            _ => {}
        }
        let context = || format!("seed {seed}, step {step}, {:?}", naive.is);
        assert_eq!(real.generation(), naive.generation, "{}", context());
        assert_eq!(real.generation() - before, u32::from(change.is_some()), "{}", context());
        assert_eq!(change.map_or(before, |change| change.generation), real.generation());
        let state = match naive.is {
            Is::Closed => CircuitState::Closed,
            Is::Open(until) => {
                assert_eq!(real.until().unwrap_or(NEVER), until, "{}", context());
                CircuitState::Open
            }
            Is::HalfOpen => CircuitState::HalfOpen,
        };
        assert_eq!((real.state(), real.mode()), (state, naive.mode), "{}", context());
        assert_eq!(real.shut_for(), naive.bound, "{}", context());
        let counts = real.counts(now);
        assert_eq!((counts.calls, counts.failures, counts.slow), naive.window(now), "{}", context());
        assert_eq!(real.row() as usize, naive.row().len(), "{}", context());
    }
    leave(&mut real, now);
}

/// Whatever happened: once what is under way is lost, two good probes bring the circuit back.
fn leave(circuit: &mut Machine, mut now: Nanos) {
    circuit.set_mode(now, BreakerMode::Automatic);
    for _ in 0..10 {
        now = circuit.until().unwrap_or(now).max(now) + 6 * SECOND;
        if let Some(pass) = admit(circuit, now) {
            circuit.settle(now, pass, 0, Mark::Success, false, 0, || 0.5);
        }
    }
    assert_eq!(circuit.state(), CircuitState::Closed);
}

fn below(chance: &mut RequestRng, n: u64) -> u64 {
    (chance.unit() * n as f64) as u64
}

// 240,000 operations, each of which is followed by a comparison of all there is to see.
#[test]
fn it_does_what_a_naive_model_does() {
    (0..120).for_each(|seed| run(seed, 2_000));
}
