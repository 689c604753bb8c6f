//! What is promised of each day.

use crate::days::*;
use crate::stack::*;

// ===== S3: an outage of five minutes =====

#[test]
fn s3_an_outage_is_outlasted_with_few_calls_and_without_a_rush() {
    for stack in [BOTH, BOTH_FIVE] {
        let cell = Cell::of("S3", &outage(), 1, &stack, 2);
        assert!(cell.served() >= 0.99, "{cell}");
        assert!(cell.calls_each() <= 0.2, "{cell}");
        assert!(cell.peak() <= 100, "{cell}");
        assert!(cell.days.iter().all(|day| (day.moves.opened, day.moves.closed) == (1, 1)), "{cell}");
    }
}

#[test]
fn s3_with_a_limit_outside_the_backlog_comes_back_at_its_pace() {
    let cell = Cell::of("S3", &outage(), 1, &PACED, 2);
    assert!(cell.served() >= 0.99, "{cell}");
    assert!(cell.calls_each() <= 0.2, "{cell}");
    assert!(cell.peak() <= 8, "{cell}");
}

// ===== S4: a third of the calls fail =====

#[test]
fn s4_independent_errors_cost_what_the_attempts_cost_and_open_nothing() {
    for (rate, seeds, most) in [(20.0, 2, 0.01), (0.3, 100, 0.1)] {
        let cell = Cell::of(&format!("S4 {rate}/s"), &brown_out(rate), 1, &BOTH_FIVE, seeds);
        assert!((cell.served() - served_in_brown_out(5)).abs() <= 0.001, "{cell}");
        assert!((cell.calls_each() - served_in_brown_out(5) / 0.7).abs() < 0.03, "{cell}");
        assert!(cell.opened() <= most, "{cell}");
        assert!(cell.days.iter().all(|day| day.moves.cut == 0), "{cell}");
    }
}

// ===== S6: bursts of refusals =====

#[test]
fn s6_bursts_of_refusals_are_waited_out() {
    for (name, down) in PATTERNS {
        for stack in [BOTH, BOTH_FIVE] {
            let cell = Cell::of(&format!("S6 {name}"), &bursts(down), 1, &stack, 1);
            assert!(cell.served() >= 0.98, "{name} {cell}");
        }
    }
}

// An empty budget ends retries that are charged, and not the waits for a circuit.
#[test]
fn s3_and_s6_an_empty_budget_loses_those_who_failed_and_not_those_who_wait() {
    for (stack, least) in [(BOTH_BY_DEFAULT, 0.95), (BOTH_AND_BUDGET, 0.99)] {
        let cell = Cell::of("S3", &outage(), 1, &stack, 2);
        assert!(cell.served() >= least, "{cell}");
        assert!(cell.calls_each() <= 0.2, "{cell}");
        assert!(cell.peak() <= 100, "{cell}");
    }
    for (name, down) in PATTERNS {
        let cell = Cell::of(&format!("S6 {name}"), &bursts(down), 1, &BOTH_BY_DEFAULT, 1);
        assert!(cell.served() >= 0.97, "{name} {cell}");
    }
}

// Refusals at once hold no place, so the governor alone changes nothing: they are the breaker's.
#[test]
fn s3_and_s6_refusals_leave_the_governor_at_rest() {
    for day in [outage(), bursts(PATTERNS[1].1)] {
        let (with, without) = (day.run(1, 0, &GOVERNOR), day.run(1, 0, &RETRY));
        assert!((with.share() - without.share()).abs() < 0.001, "{with:?} {without:?}");
        assert_eq!(with.moves.cut, 0);
    }
}

// ===== S10: the metastable server =====

#[test]
fn s10_retries_alone_never_leave_the_bad_state() {
    for variant in [CONSTANT, FALLING] {
        let served = metastable(variant, seconds(600)).run(1, 0, &RETRY).share();
        assert!(served < 0.1, "{variant:?} {served}");
    }
}

fn s10(processes: usize, variant: Variant, stack: &Stack, at_least: f64) {
    let name = format!("S10 P = {processes} {}", variant.0);
    let cell = Cell::of(&name, &metastable(variant, HOUR), processes, stack, 1);
    assert!(cell.served() >= at_least, "{name}, {}: {cell}", stack.name);
}

#[test]
fn s10_one_process_recovers_in_every_variant() {
    for variant in [CONSTANT, FALLING, BOUNDED] {
        s10(1, variant, &BOTH, 0.995);
    }
}

#[test]
fn s10_ten_processes_recover_in_every_variant() {
    for variant in [CONSTANT, FALLING, BOUNDED] {
        s10(10, variant, &BOTH, 0.995);
    }
    // The breaker has no part in it.
    s10(10, FALLING, &GOVERNOR, 0.995);
}

#[test]
fn s10_fifty_processes_recover_where_capacity_does_not_fall() {
    for variant in [CONSTANT, BOUNDED] {
        s10(50, variant, &BOTH, 0.98);
    }
}

// The hardest one: fifty processes that know nothing of each other are over the edge before the first timeout says so.
#[test]
fn s10_fifty_processes_find_back_where_capacity_falls() {
    s10(50, FALLING, &GOVERNOR, 0.85);
    s10(50, FALLING, &BOTH, 0.85);
}
