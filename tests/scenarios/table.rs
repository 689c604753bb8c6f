//! Every figure over many seeds. See the head of `tests/scenarios.rs`.

use crate::days::*;
use crate::stack::*;

fn seeds() -> u64 {
    std::env::var("SEEDS").ok().and_then(|seeds| seeds.parse().ok()).unwrap_or(10)
}

#[test]
#[ignore = "figures for the record"]
fn table_s3() {
    for stack in [RETRY, BOTH, BOTH_FIVE, PACED, PACED_FIVE, BREAKER, BOTH_BY_DEFAULT, BOTH_AND_BUDGET] {
        Cell::of("S3", &outage(), 1, &stack, seeds());
    }
}

#[test]
#[ignore = "figures for the record"]
fn table_s4() {
    for rate in [20.0, 0.3] {
        for stack in [BOTH, BOTH_FIVE, BOTH_THREE, BREAKER, BOTH_BY_DEFAULT, BOTH_AND_BUDGET] {
            Cell::of(&format!("S4 {rate}/s"), &brown_out(rate), 1, &stack, seeds());
        }
    }
}

#[test]
#[ignore = "figures for the record"]
fn table_s6() {
    for (name, down) in PATTERNS {
        for stack in [RETRY, BOTH, BOTH_FIVE, BREAKER, BOTH_BY_DEFAULT, BOTH_AND_BUDGET] {
            Cell::of(&format!("S6 {name}"), &bursts(down), 1, &stack, seeds());
        }
    }
}

#[test]
#[ignore = "figures for the record"]
fn table_s10() {
    for processes in [1, 10, 50] {
        for variant in [CONSTANT, FALLING, BOUNDED] {
            for stack in [GOVERNOR, BOTH, BOTH_FIVE, BREAKER, BOTH_BY_DEFAULT, BOTH_AND_BUDGET] {
                let name = format!("S10 P = {processes} {}", variant.0);
                Cell::of(&name, &metastable(variant, HOUR), processes, &stack, seeds());
            }
        }
    }
}
