//! A server at several places: an outage of one, a day that is spent at one, and none outside of the residency.

use std::path::Path;

use crate::storm::figures::Figures;
use crate::storm::run::{Cell, Contender};
use crate::storm::scenario;
use crate::storm::stack::Variant;

fn live(name: &str, variant: Variant) -> Figures {
    let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("benches/storm/places");
    let scenario = scenario::read(&folder.join(format!("{name}.json"))).unwrap();
    Cell { scenario: &scenario, processes: 1 }.run(Contender::Stack(variant), 1)
}

fn served(figures: &Figures) -> f64 {
    figures.share()
}

#[test]
fn an_outage_of_one_region_is_not_seen() {
    let (one, two) =
        (live("p01-outage-of-a-region", Variant::All), live("p01-outage-of-a-region", Variant::Placed));
    assert!(served(&one) < 0.75, "{}", served(&one));
    assert_eq!(served(&two), 1.0);
    assert!(two.p99 < 1.1 && two.calls_in_all as f64 <= 1.01 * two.served_in_all as f64, "{two:?}");
}

#[test]
fn a_day_that_is_spent_in_one_project_is_not_spent_in_the_other() {
    let (one, two) =
        (live("p02-quota-of-a-project", Variant::All), live("p02-quota-of-a-project", Variant::Placed));
    assert!(served(&one) < 0.65, "{}", served(&one));
    assert_eq!(served(&two), 1.0);
    assert!(two.p99 < 1.1, "{}", two.p99);
}

#[test]
fn no_call_leaves_the_residency() {
    let (one, two) = (live("p03-residency", Variant::All), live("p03-residency", Variant::Placed));
    assert_eq!((two.violated, &two.violations[..]), (0, &[][..]));
    assert!(served(&two) > served(&one) + 0.1, "{} {}", served(&two), served(&one));
}
